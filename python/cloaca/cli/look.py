"""The commands that only look."""

from __future__ import annotations

import contextlib
import os

from .. import check, filters, reading
from ..duration import text_of
from ..errors import excerpt
from ..near import hint
from ..reading.store import names, now, unknown
from ..reading.workflows import workflow_names
from ..terminal import clean, span
from ..why import by_command, ends_of
from .ending import cleaning_up, made_by_now
from .main import FAILED, NOT_FOUND, OK
from .moment import moment
from .parse import UsageError
from .show import Id, Show, Stamp, Word, as_json, stamp
from .where import database, refuse_taken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from datetime import datetime
    from typing import Any

    from ..reading import Cron, Limit, Pause, Reader, Run, Runner, Trigger, Workflow

ORDER = ("stopped", "hanging", "failing", "late", "silent", "unserved", "polled", "scheduled", "disabled")
"""In which states are listed: what needs somebody comes first."""
PAGE = 200
SEEN = 1000
"""Of so many of the newest runs it is looked what is near to what nothing has."""
RUNNERS = ("RUNNER", "STATE", "RUNS", "SINCE", "SEEN", "LEFT", "POLLS", "NAME")
KINDS = ("triggers", "crons", "workflows", "runners")


def opened(arguments: Namespace) -> Reader:
    """The store that is meant, for reading."""
    return reading.Reader(database(arguments.database), unmasked=getattr(arguments, "unmasked", False))


def ls(arguments: Namespace, show: Show) -> int:
    """Triggers, crons, workflows and runners."""
    limit = limit_of(arguments)
    at = now()
    with opened(arguments) as reader:
        for kind in KINDS if arguments.kind is None else (arguments.kind,):
            _SECTIONS[kind](reader, show, limit, at)
    return OK


def limit_of(arguments: Namespace) -> int:
    """What `--limit` says."""
    limit: int = arguments.limit
    if not 0 < limit <= 1_000_000:
        raise UsageError(f"--limit is {limit}; it is a number from 1 to 1000000")
    return limit


def _triggers(reader: Reader, show: Show, limit: int, at: datetime) -> None:
    page = reading.triggers(reader, limit=limit)
    columns = ("NAME", "STATE", "EVERY", "WORKFLOW", "POLLED", "FIRED", "NEXT", "LAST")
    found = sorted(page, key=lambda each: ORDER.index(each.state))
    show.table("trigger", columns, [(each, _of_trigger(each, show, at)) for each in found], "triggers")
    _more(show, page.after, "triggers", limit)


def _of_trigger(found: Trigger, show: Show, at: datetime) -> list[Any]:
    last = None if found.last is None else found.last.reason or found.last.outcome
    return [
        *([] if show.is_for_people else ["trigger"]),
        found.trigger_name,
        Word(found.state),
        ends_of(found.on_run, found.on_run_status) or text_of(found.poll_interval_ms * 1000),
        found.workflow_name,
        show.ago(found.last_poll_at, at),
        show.ago(found.last_fired_at, at),
        show.ago(found.next_poll_at, at),
        found.disabled_cause or last,
    ]


def _crons(reader: Reader, show: Show, limit: int, at: datetime) -> None:
    page = reading.crons(reader, limit=limit)
    columns = ("NAME", "STATE", "WHEN", "ZONE", "WORKFLOW", "LAST RUN", "NEXT")
    found = sorted(page, key=lambda each: ORDER.index(each.state))
    show.table("cron", columns, [(each, _of_cron(each, show, at)) for each in found], "crons")
    _more(show, page.after, "crons", limit)


def _of_cron(found: Cron, show: Show, at: datetime) -> list[Any]:
    return [
        *([] if show.is_for_people else ["cron"]),
        found.trigger_name or found.id,
        Word(found.state),
        found.cron_expression,
        found.timezone,
        found.workflow_name,
        show.ago(found.last_run_at, at),
        stamp(found.next_run_at),
    ]


def _workflows(reader: Reader, show: Show, limit: int, at: datetime) -> None:
    page = reading.workflows(reader, limit=limit)
    columns = ("NAME", "LAST", "WAITING", "RUNNING", "DELAYED", "LAST RUN", "PAUSED", "ERROR")
    found = sorted(page, key=lambda each: each.last_status != "Failed")
    show.table("workflow", columns, [(each, _of_workflow(each, show, at)) for each in found], "workflows")
    _more(show, page.after, "workflows", limit)


def _of_workflow(found: Workflow, show: Show, at: datetime) -> list[Any]:
    # What has begun is Running on record, whether or not anybody can go on with it.
    is_unserved = not found.runners and found.pending + found.running > 0
    last = "unserved" if is_unserved else found.last_status
    return [
        *([] if show.is_for_people else ["workflow"]),
        found.workflow_name,
        None if last is None else Word(last),
        found.pending,
        found.running,
        found.delayed or None,
        show.ago(found.last_run_at, at),
        "paused" if found.paused else ", ".join(f"key {key}" for key in found.paused_keys) or None,
        found.last_error,
    ]


def _runners(reader: Reader, show: Show, limit: int, at: datetime) -> None:
    found = reading.runners(reader)[:limit]
    show.table("runner", RUNNERS, [(each, _of_runner(each, show, at)) for each in found], "runners")


def _of_runner(found: Runner, show: Show, at: datetime) -> list[Any]:
    return [
        *([] if show.is_for_people else ["runner"]),
        found.number,
        Word(found.standing),
        found.runs,
        show.ago(found.joined_at, at),
        show.ago(found.seen_at, at),
        show.ago(found.left_at, at),
        found.polls,
        found.name,
    ]


def _more(show: Show, after: object, kind: str, limit: int) -> None:
    if after is not None:
        show.note(f"only the first {limit} {kind} were looked at; --limit looks at more")


_SECTIONS = {"triggers": _triggers, "crons": _crons, "workflows": _workflows, "runners": _runners}


def runners(arguments: Namespace, show: Show) -> int:
    """Who serves the store."""
    with opened(arguments) as reader:
        found, at = reading.runners(reader, left=arguments.left), now()
        rows = [(each, [*_of_runner(each, show, at), each.pid, each.host]) for each in found]
        show.table("runner", (*RUNNERS, "PID", "HOST"), rows, "runners")
    return OK


def limits(arguments: Namespace, show: Show) -> int:
    """Limits with names, and what is paused."""
    at = now()
    with opened(arguments) as reader:
        found, paused = reading.limits(reader), reading.pauses(reader)
    columns = ("LIMIT", "TAKEN", "OF", "WAIT", "SINCE", "THROTTLE", "NEXT", "SET", "PAUSED")
    show.table("limit", columns, [(each, _of_limit(each, show, at)) for each in found], "limits")
    show.table(
        "pause",
        ("KIND", "PAUSED", "KEY", "UNTIL", "SINCE", "BY"),
        [(each, _of_pause(each, show, at)) for each in paused],
        "pauses",
    )
    return OK


def _of_limit(found: Limit, show: Show, at: datetime) -> list[Any]:
    return [
        *([] if show.is_for_people else ["limit"]),
        found.name,
        found.taken,
        found.concurrency,
        found.waiting,
        show.ago(found.waits_since, at),
        found.pace,
        stamp(found.next_at),
        "by hand" if found.is_set else None,
        None if found.pause is None else "paused",
    ]


def _of_pause(found: Pause, show: Show, at: datetime) -> list[Any]:
    return [
        *([] if show.is_for_people else ["pause"]),
        found.what,
        found.name,
        found.key,
        stamp(found.until),
        show.ago(found.since, at),
        found.by,
    ]


def filters_of(arguments: Namespace, status: str | None) -> dict[str, Any]:
    """What a line says of which runs, that stand so, are meant; of a parent perhaps only how its id begins.
    When runs were created counts, or when they ended, where only those are meant that are over.
    """
    since, until = moment(arguments.since, "--since"), moment(arguments.until, "--until")
    return {
        "workflow": arguments.workflow,
        "trigger": arguments.trigger,
        "key": arguments.key,
        "parent": arguments.parent,
        "error": arguments.error,
        **filters.within(status, arguments.error, since, until),
    }


def status_of(arguments: Namespace) -> str | None:
    """How the runs stand that a line means by `--failed` or `--status`."""
    if arguments.failed and arguments.status not in (None, "Failed"):
        raise UsageError(f"--failed and --status {arguments.status} exclude each other; give one of them")
    return "Failed" if arguments.failed else arguments.status


def with_parent(reader: Reader, wanted: dict[str, Any]) -> dict[str, Any]:
    """The same, with the whole id of the parent."""
    parent = wanted["parent"]
    return wanted if parent is None else {**wanted, "parent": reading.find_run(reader, parent)}


def runs(arguments: Namespace, show: Show) -> int:
    """Runs, newest first."""
    status = status_of(arguments)
    wanted = filters_of(arguments, status) | {"status": status}
    wanted["contexts"] = arguments.context
    wanted["untold"] = arguments.untold
    columns = (*_RUN_COLUMNS, "CONTEXT") if arguments.context else _RUN_COLUMNS
    with opened(arguments) as reader:
        wanted = with_parent(reader, wanted)
        after = None if arguments.after is None else reading.find_run(reader, arguments.after)
        left = None if arguments.all else limit_of(arguments)
        title: str | None = "runs"
        looked = 0
        while True:
            size = PAGE if left is None else min(left, PAGE)
            if arguments.text is None:
                page = reading.runs(reader, **wanted, after=after, limit=size)
            else:
                found = _searched(reader, arguments.text, wanted, after, size)
                page, looked = reading.Page(found.items, found.after), looked + found.looked
            if title and not page.items and _is_unknown(reader, show, wanted):
                show.table("run", columns, [], title)
                return NOT_FOUND
            if len(page) or title:
                rows = [(each, _of_run(each, show, arguments.context)) for each in page]
                show.table("run", columns, rows, title, () if arguments.context else ("context",))
            after, title = page.after, None
            left = None if left is None else left - len(page)
            if after is None or left == 0 or (left is not None and arguments.text is not None):
                break
        if arguments.text is not None:
            reached = f", back to {show.time(found.reached)}" if found.reached else ""
            show.note(
                f"looked at {looked:,} runs{reached}"
                + (f": --after {after} goes on, or --all" if after else "")
            )
            return OK
        if after is not None:
            # Also where a pipe counts the lines: standard error is for people.
            show.note(f"there may be more: --after {after}, or --all")
    return OK


def _searched(
    reader: Reader, text: str, wanted: dict[str, Any], after: str | None, limit: int
) -> reading.Search:
    """Runs that hold a text; their contexts are read in any case, and shown if that was asked for."""
    others = {name: value for name, value in wanted.items() if name != "contexts"}
    found = reading.search(reader, text, after=after, limit=limit, **others)
    if wanted["contexts"]:
        return found
    from dataclasses import replace

    return replace(found, items=[replace(each, context=None) for each in found.items])


def _is_unknown(reader: Reader, show: Show, wanted: dict[str, Any]) -> bool:
    """Nothing was found: perhaps because nothing has that name, which is said. That no run has failed with an
    error may be well so, and is said only.
    """
    workflow, trigger, key, error = (wanted[name] for name in ("workflow", "trigger", "key", "error"))
    missing = []
    if workflow is not None and workflow not in (known := workflow_names(reader)):
        missing.append(unknown("workflow", workflow, "workflows", known))
    if trigger is not None and trigger not in (known := names(reader)):
        missing.append(unknown("trigger", trigger, "triggers", known))
    if key is not None and not len(reading.runs(reader, key=key, limit=1)):
        # The newest first.
        seen = [each.run_key for each in reading.runs(reader, limit=SEEN) if each.run_key is not None]
        begun = [each for each in seen if each.startswith(key)]
        which = "keys of the newest runs that begin so" if begun else "keys of the newest runs"
        missing.append(unknown("run with key", key, which, list(dict.fromkeys(begun or seen))))
    for each in missing:
        show.note(f"cloaca: {each}")
    if error is not None and not len(reading.runs(reader, error=error, limit=1)):
        failed = reading.runs(reader, status="Failed", limit=SEEN)
        types = {each.error_type for each in failed if each.error_type is not None}
        show.note(
            f"no run that is kept has failed with {excerpt(error)}{hint(error, 'errors', sorted(types))}"
        )
    return bool(missing)


_RUN_COLUMNS = ("ID", "WORKFLOW", "STATUS", "CREATED", "TOOK", "TRIGGER", "KEY", "ERROR")


def _of_run(found: Run, show: Show, shows_context: bool = False) -> list[Any]:
    seconds = found.took_seconds
    cells: list[Any] = [
        Id(found.id),
        found.workflow_name,
        Word(found.status),
        stamp(found.created_at),
        span(seconds) if show.is_for_people else seconds,
        found.trigger_name,
        found.run_key,
        found.error_message,
    ]
    if shows_context:
        cells.append(None if found.context is None else as_json(found.context))
    return cells


def ticks(arguments: Namespace, show: Show) -> int:
    """A trigger's history."""
    with opened(arguments) as reader:
        found = reading.ticks(reader, arguments.name, limit=limit_of(arguments))
        if not found and any("cron_expression" in row for row in reader.native.named(clean(arguments.name))):
            show.note(
                "only a cron whose function takes a tick has ticks; `cloaca runs --trigger NAME` has its runs"
            )
    columns = ("OUTCOME", "POLLS", "FIRST", "LAST", "TOOK", "REASON")
    rows = [
        (
            each,
            [
                Word(each.outcome),
                each.count,
                Stamp(each.first_at),
                Stamp(each.last_at),
                span(each.mean_us / 1e6) if show.is_for_people else each.mean_us / 1e6,
                each.reason,
            ],
        )
        for each in found
    ]
    show.table("tick", columns, rows)
    return OK


def audit(arguments: Namespace, show: Show) -> int:
    """Who changed what."""
    about: str | None = arguments.about
    with opened(arguments) as reader:
        if about is not None:
            with contextlib.suppress(reading.MissingError):
                about = reading.find_run(reader, about)
        found = reading.audit(reader, about=about, limit=limit_of(arguments))
        is_name = about is not None and about == arguments.about
        if about is not None and is_name and not found.items and reader.native.version(about) is None:
            # Nothing was changed; of what is not there at all that says something else.
            reading.schedules_named(reader, about)
    columns = ("AT", "WHO", "DOOR", "FROM", "WHAT", "ABOUT", "MANY")
    rows = [
        (
            each,
            [
                Stamp(each.at),
                each.who,
                each.door,
                each.place,
                each.what,
                each.about,
                None if each.many == 1 and show.is_for_people else each.many,
            ],
        )
        for each in found
    ]
    show.table("change", columns, rows)
    return OK


def why(arguments: Namespace, show: Show) -> int:
    """One sentence each; also of the others where one of them is not there."""
    code = OK
    with opened(arguments) as reader:
        for name in arguments.name:
            try:
                text = reading.why(reader, name, way=by_command)
            except reading.MissingError as missing:
                show.note(f"cloaca: {missing}")
                code = NOT_FOUND
                continue
            if show.as_json:
                show.record("why", {"name": name, "text": text})
            else:
                show.line(clean(text))
    return code


def doctor(arguments: Namespace, show: Show) -> int:
    """A health report."""
    is_bad = False
    with opened(arguments) as reader:
        for found in reading.doctor(reader, thorough=arguments.thorough):
            is_bad = is_bad or found.level == "bad"
            if show.as_json:
                show.record("finding", found)
            elif not show.is_for_people:
                show.values([found.level, found.subject, found.text, found.way_out])
            else:
                level = show.word(found.level) + " " * (4 - len(found.level))
                show.line(f"{level}  {found.subject:<12} {clean(found.text)}")
                if found.way_out is not None:
                    show.line(f"{'':<19}{show.styled(clean(found.way_out), 'dim')}")
    return FAILED if is_bad else OK


def health(arguments: Namespace, show: Show) -> int:
    """What a probe asks."""
    with opened(arguments) as reader:
        found = reading.of_probe(reader)
    if show.as_json:
        show.record("health", found)
    elif found["ok"] and show.is_for_people:
        show.line(f"{show.word('ok')}    {found['runners']} living, {found['runs_waiting']} waiting")
    for reason in () if show.as_json else found["reasons"]:
        if show.is_for_people:
            show.line(f"{show.word('bad')}   {reason['code']:<14} {clean(reason['text'])}")
        else:
            show.values([reason["code"], reason["count"], reason["seconds"], reason["text"]])
    return OK if found["ok"] else FAILED


def metrics(arguments: Namespace, show: Show) -> int:
    """What a Prometheus would read."""
    from ..telemetry.watched import Watched

    found = [*Watched(database(arguments.database)).families()]
    if show.as_json:
        for family in found:
            for key, value in sorted(family.values.items()):
                labels = dict(zip(family.labels, key, strict=True))
                record = {"name": family.name, "labels": labels, "value": value, "about": family.about}
                show.record("metric", record)
        return OK
    try:
        from ..telemetry.prometheus import text
    except ImportError as error:
        raise UsageError(f'this needs {error.name}; pip install "cloaca[prometheus]"') from error
    for line in text(found)[0].decode().removesuffix("\n").split("\n"):
        # What reads it knows no spelling of a letter but its own.
        show.line(clean(line) if show.is_for_people else line)
    return OK


def export(arguments: Namespace, show: Show) -> int:
    """A copy of everything."""
    refuse_taken(check.target(arguments.path, "path"))
    with opened(arguments) as reader:
        made = made_by_now(arguments.path)
        with cleaning_up(made):
            reader.export(arguments.path)
    size = os.path.getsize(arguments.path)
    if show.as_json:
        show.record("export", {"path": arguments.path, "bytes": size})
    else:
        show.note(f"wrote {arguments.path}, {size:,} bytes")
    return OK
