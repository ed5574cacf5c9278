"""The commands that change something, beside living runners of other processes.

Switches go through a paused runner, which starts nothing of itself; all else through a client that has no
engine. What that starts or opens again is nobody's, and a living runner claims it.
Invariant: nothing is changed before all that was named is known to be there.
Longer than a room should be: one function a command, none of which knows another.
"""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import ExitStack, closing, nullcontext
from datetime import datetime
from itertools import islice
from time import monotonic, sleep

from .. import _cloaca, audit, check, filters, reading, rows, urgency
from .._limits import keyless
from .._runs import over_already
from ..context import Context, decode_value, encode_within, same
from ..duration import microseconds_of
from ..errors import (
    ArgumentError,
    CloacaError,
    ContextError,
    Dropped,
    TriggerError,
    WorkflowError,
    excerpt,
)
from ..name import already_kept, checked_name, unheard
from ..near import hint
from ..reading.runners import RUNNERS_MAX, living
from ..reading.store import PAGE_ITEMS, now
from ..reading.why import of_workflow
from ..repeats import repeated, repeats
from ..served import SERVED, version_of
from ..why import by_command, ends_waiting, first_end, of_ends
from .ending import Ending
from .finishing import Finishing, beginning
from .look import filters_of, status_of, with_parent
from .main import FAILED, OK
from .moment import instant, moment
from .parse import UsageError
from .show import Show, aside
from .tree import wait
from .where import database, program, tell_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from typing import Any

    from ..reading import Cron, Reader
    from ..runner import DefaultRunner

COUNTED_MAX = 10_000
"""So many are counted before it is asked whether they are meant."""
BATCH = 500
"""So many runs are changed in one transaction."""
CONTEXT_BYTES_MAX = 16 * 1024 * 1024
"""As the default of `context_bytes_max`: who claims the run may allow less."""
OUTCOME_SECONDS = 3.0
"""So long is waited for what a poll came to: skips are gathered, and on record later."""
RUN_KEY_TTL = "30d"
PRUNE_COUNTED_MAX = 10_000_000


def _client(url: str) -> DefaultRunner:
    """A client: it changes, and serves nothing."""
    from ..runner import DefaultRunner

    return DefaultRunner(url, work=False)


def enable(arguments: Namespace, show: Show) -> int:
    """Switches on."""
    return _switch(arguments, show, True)


def disable(arguments: Namespace, show: Show) -> int:
    """Switches off."""
    return _switch(arguments, show, False)


def _switch(arguments: Namespace, show: Show, enabled: bool) -> int:
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        found = [(name, reading.schedules_named(reader, name)) for name in arguments.name]
    with _client(url) as runner:
        for name, named in found:
            by_id: Cron | None = next(
                (each for each in named if not isinstance(each, reading.Trigger) and each.id == name), None
            )
            if by_id is not None:
                runner.set_cron_schedule_enabled(name, enabled)
            else:
                runner.set_trigger_enabled(name, enabled)
            _told(show, "enabled" if enabled else "disabled", name)
            if all(each.enabled is enabled for each in named):
                show.note(f"cloaca: {excerpt(name)} was {'enabled' if enabled else 'disabled'} already")
    with reading.Reader(url) as reader:
        for name, named in found:
            if enabled:
                show.note(reading.why(reader, name, way=by_command))
            elif text := _of_unfinished(reader, named):
                show.note(text)
    return OK


def _of_unfinished(reader: Reader, named: list[reading.Trigger | Cron]) -> str:
    """That runs of a trigger or cron which was switched off go on; nothing if none does."""
    names = {each.trigger_name for each in named if each.trigger_name is not None}
    found = [
        run_id
        for name in names
        for status in filters.UNFINISHED
        for run_id in islice(_ids(reader, {"trigger": name, "status": status}), PAGE_ITEMS)
    ]
    if not found:
        return ""
    more = "or more " if len(found) >= PAGE_ITEMS else ""
    are = "run of it is not over, and goes" if len(found) == 1 else "runs of it are not over, and go"
    return f"{len(found)} {more}{are} on; `cloaca cancel` ends what is to end"


def _told(show: Show, what: str, of: str, part: dict[str, str | None] | None = None) -> None:
    """Says of one thing, or of a part of it, what became of it."""
    if show.as_json:
        show.record(what, {"of": of, **(part or {})})
    else:
        show.values([what, of, *(value for value in (part or {}).values() if value is not None)])


def pause(arguments: Namespace, show: Show) -> int:
    """Holds up what would begin."""
    until_us = _pause_until(arguments)
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        kind, name, key = _held(reader, arguments)
        if key is not None and not arguments.yes:
            _refuse_unknown_key(reader, name, key)
        held = [
            each for each in reading.pauses(reader) if (each.what, each.name, each.key) == (kind, name, key)
        ]
    with closing(_cloaca.Client.open(url)) as client:
        if not client.pause(kind, name, key, until_us, f"{audit.user()}, by the command line"):
            raise WorkflowError(keyless(name))
    until = None if until_us is None else rows.moment(until_us)
    if show.as_json:
        show.record("paused", {"of": name, "key": key, "until": until})
    else:
        _told(show, "paused", name, {"key": key})
    for each in held:
        before = "" if each.until is None else f" until {show.time(each.until)}"
        show.note(f"cloaca: it was paused already{before}, by {each.by}")
    resume = shlex.join(["cloaca", "resume", f"--{kind}", name, *([] if key is None else ["--key", key])])
    ends = f"until `{resume}`" if until is None else f"until {show.time(until)}, or `{resume}` before"
    show.note(f"{ends}; what has begun goes on")
    return OK


def _refuse_unknown_key(reader: Reader, workflow: str, key: str) -> None:
    """A slip in a key would hold up nothing, and nobody would notice."""
    known, keyed = reading.keys(reader, workflow), reader.keyed()
    if known is not None and key not in known:
        if keyed is not None:
            known = [each for each in known if keyed.shown(workflow, each) == each]
        raise reading.MissingError(
            f"none of the newest runs of workflow {excerpt(workflow)} has the key {excerpt(key)}"
            f"{hint(key, 'keys', known)}; give --yes if such runs are still to come"
        )


def resume(arguments: Namespace, show: Show) -> int:
    """Holds it up no longer."""
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        kind, name, key = _held(reader, arguments)
    with closing(_cloaca.Client.open(url)) as client:
        if not client.resume(kind, name, key):
            of = "" if key is None else f"key {excerpt(key)} of "
            raise WorkflowError(f"{of}{kind} {excerpt(name)} is not paused")
    _told(show, "resumed", name, {"key": key})
    with reading.Reader(url) as reader:
        show.note(of_workflow(reader, name) if kind == "workflow" else _of_limit(reader, name))
    return OK


def _of_limit(reader: Reader, name: str) -> str:
    """How a limit stands that is not paused any more."""
    found = next(each for each in reading.limits(reader) if each.name == name)
    waiting = "1 attempt waits" if found.waiting == 1 else f"{found.waiting:,} attempts wait"
    taken = "1 has a seat" if found.taken == 1 else f"{found.taken:,} have a seat"
    return f"limit {excerpt(name)} lets attempts begin again: {waiting} for it, and {taken}"


def _held(reader: Reader, arguments: Namespace) -> tuple[str, str, str | None]:
    """What a line means that is to be paused or resumed: kind, name, and perhaps the value of a key."""
    if arguments.key is not None and arguments.workflow is None:
        raise UsageError("--key goes with --workflow")
    if (arguments.workflow is None) == (arguments.limit is None):
        raise UsageError("give --workflow NAME or --limit NAME, one of them")
    if arguments.workflow is not None:
        name = check.text(arguments.workflow, "--workflow", UsageError)
        paused = any((each.what, each.name) == ("workflow", name) for each in reading.pauses(reader))
        is_scheduled = reader.native.query("SELECT 1 FROM schedules WHERE workflow = ? LIMIT 1", [name])
        is_served = reader.native.query(SERVED, [name])
        if not (paused or is_scheduled or is_served or reader.native.version(name) is not None):
            known = reader.native.workflows("", COUNTED_MAX)
            raise reading.MissingError(
                f"workflow {excerpt(name)} not found: the store has neither a run nor a schedule of it,"
                f" and no living runner declares it{hint(name, 'workflows', known)}"
            )
        key = None if arguments.key is None else check.text(arguments.key, "--key", UsageError)
        return "workflow", name, key
    name = check.text(arguments.limit, "--limit", UsageError)
    known = [each.name for each in reading.limits(reader)]
    if name not in known:
        raise reading.MissingError(
            f"limit {excerpt(name)} not found: no program on this store has declared it"
            f"{hint(name, 'limits', known)}"
        )
    return "limit", name, None


def _pause_until(arguments: Namespace) -> int | None:
    span = getattr(arguments, "for")
    if arguments.until is not None and span is not None:
        raise UsageError("give --until or --for, not both")
    at = int(now().timestamp() * 1e6)
    if span is not None:
        try:
            return at + microseconds_of(span, "--for")
        except TriggerError as refused:
            raise UsageError(str(refused)) from None
    if arguments.until is None:
        return None
    until_us = check.microseconds(_instant(arguments.until, "--until", "--for"))
    return check.ahead(until_us, arguments.until, "--until", at, UsageError)


# By runs' ids.
_OVER = """
    SELECT id FROM runs WHERE completed_at IS NOT NULL AND id IN (SELECT value FROM json_each(?))"""


def cancel(arguments: Namespace, show: Show) -> int:
    """Asks for the end of runs."""
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        with beginning(_DONE["cancel"], show) if arguments.all else nullcontext():
            ids = _meant(reader, arguments, arguments.status, filters.UNFINISHED, "cancel", show)
        for run_id in [] if arguments.all else ids:
            if _was_asked(reader, run_id):
                show.note(f"cloaca: the end of run {run_id} was asked for already")
    is_late = False
    with closing(_cloaca.Client.open(url)) as client, reading.Reader(url) as reader:
        for batch in _batches(ids, _DONE["cancel"], show):
            asked = client.cancel_each(batch)
            # Of the others whoever has them in hand ends them, once their bodies have ended.
            over = {row["id"] for row in reader.native.query(_OVER, [json.dumps(batch)])}
            for run_id, is_asked in zip(batch, asked, strict=True):
                # One that has ended meanwhile was not asked.
                if is_asked:
                    _told(show, "cancelled" if run_id in over else "asked", run_id)
                elif not arguments.all:
                    is_late = True
                    show.note(f"cloaca: {over_already(run_id)}")
    return FAILED if is_late else OK


def _was_asked(reader: Reader, run_id: str) -> bool:
    """Whether a run that is not over was asked to end before.

    Raises:
        WorkflowError: (a `ValueError`) it is over.
    """
    found = reading.run(reader, run_id).run
    if found.completed_at is not None:
        raise WorkflowError(over_already(run_id))
    return found.cancel_requested


def retry(arguments: Namespace, show: Show) -> int:
    """Opens runs again."""
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        with beginning(_DONE["retry"], show) if arguments.all else nullcontext():
            ids = _meant(reader, arguments, status_of(arguments), ("Failed",), "retry", show)
        if not arguments.all:
            for run_id in ids:
                _refuse_retry(reader, run_id)
        left_out: list[CloacaError] = []
        # The oldest first.
        with closing(_cloaca.Client.open(url)) as client:
            for batch in _batches(ids[::-1] if arguments.all else ids, _DONE["retry"], show):
                for run_id, (is_open, refusal) in zip(batch, client.retry_each(batch), strict=True):
                    if is_open:
                        _told(show, "retried", run_id)
                    else:
                        told = refusal or f"run {run_id} was opened again by somebody else, or is gone"
                        left_out.append(WorkflowError(told))
        _say_who_takes_them(reader, show)
    if left_out:
        show.note(f"cloaca: {len(left_out)} of {len(ids)} were left out, the first because {left_out[0]}")
    return FAILED if left_out else OK


def _refuse_retry(reader: Reader, run_id: str) -> None:
    status = reading.run(reader, run_id).run.status
    if status not in filters.ENDED_BADLY:
        raise WorkflowError(
            f"run {run_id} is {status}; only a Failed or Cancelled run can be retried"
            f"; `cloaca submit --again {run_id}` starts another one with its context"
        )


def _say_who_takes_them(reader: Reader, show: Show) -> None:
    if not living(reader):
        idle = rows.of_paused(reader.native.owners(RUNNERS_MAX))
        show.note(
            f"no runner is alive: it waits until one that declares its workflow serves this store{idle}"
        )


def _meant(
    reader: Reader, arguments: Namespace, status: str | None, others: tuple[str, ...], verb: str, show: Show
) -> list[str]:
    """The ids of the runs that a line names, or means by its filters, the newest first: of those that stand
    so, or as `others` if it does not say how.
    """
    statuses = others if status is None else (status,)
    wanted = with_parent(reader, filters_of(arguments, statuses[0]))
    has_filter = status is not None or any(value is not None for value in wanted.values())
    if arguments.all == bool(arguments.run) or (has_filter and not arguments.all):
        raise UsageError(f"name the runs to {verb}, or give --all with filters such as --since 24h")
    if not arguments.all:
        return list(dict.fromkeys(reading.find_run(reader, given) for given in arguments.run))
    ids: list[str] = []
    for status in statuses:
        ids += _ids(reader, {**wanted, "status": status})
    if verb == "retry" and (done := repeats(reader.native.query, ids)):
        ids = [run_id for run_id in ids if run_id not in done]
        left_out = repeated(*next(iter(done.items())))
        show.note(f"cloaca: {len(done)} left out, as their work is done again; {left_out}")
    if not ids:
        raise reading.MissingError(f"no run that could be {_COULD[verb]} passes these filters")
    ask(f"{verb} {len(ids):,} run{'' if len(ids) == 1 else 's'}", arguments)
    return ids


_COULD = {"cancel": "cancelled", "retry": "retried"}
_DONE = {"cancel": "asked to end", "retry": "opened again", "tell": "looked at"}


def _ids(reader: Reader, wanted: dict[str, Any]) -> Iterator[str]:
    after: str | None = None
    while True:
        page = reading.runs(reader, **wanted, after=after, limit=500)
        yield from (found.id for found in page)
        if (after := page.after) is None:
            return


def ask(what: str, arguments: Namespace) -> None:
    """Goes on if the user says so.

    Raises:
        UsageError: nobody is there to ask.
        CloacaError: no was said.
    """
    if arguments.yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"this would {what}; give --yes, as there is nobody to ask")
    aside(f"{what}? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CloacaError("nothing was changed")


def _batches(ids: list[str], what: str, show: Show, size: int | None = None) -> Iterator[list[str]]:
    """A few at a time, with a line on the terminal that says how many are done, if they are many. A
    signal to end waits until what has been done is told."""
    shows = len(ids) > BATCH and sys.stderr.isatty()
    size = size or BATCH
    with Finishing() as finishing:
        for at in range(0, len(ids), size):
            yield ids[at : at + size]
            done = min(at + size, len(ids))
            if shows:
                aside(f"\r{done:,} of {len(ids):,} {what}")
            is_last = done == len(ids)
            if shows and (finishing.is_asked or is_last):
                aside("\n")
            if finishing.is_asked and not is_last:
                show.note(f"cloaca: interrupted when {done:,} of {len(ids):,} were {what}")
                finishing.leave()


def submit(arguments: Namespace, show: Show) -> int:
    """Starts a run."""
    if (arguments.workflow is None) == (arguments.again is None):
        raise UsageError("give a workflow, or --again RUN, one of them")
    if arguments.again is not None and arguments.context is not None:
        raise UsageError("--again takes the run's own context; give a workflow and --context instead")
    encoded = encode_within(CONTEXT_BYTES_MAX, _context(arguments.context or "{}"), "the context")
    key = check.run_key(arguments.key, RUN_KEY_TTL)
    when = _when(arguments)
    url = database(arguments.database)
    with reading.Reader(url) as reader, ExitStack() as stack:
        again = None
        if arguments.again is not None:
            again = reading.find_run(reader, arguments.again)
            arguments.workflow, encoded = _first(reader, again)
        version = _version(reader, arguments)
        # From before it may begin until it is told which run it is.
        ending = stack.enter_context(Ending())
        with closing(_cloaca.Client.open(url)) as client:
            try:
                run_id, is_new = client.submit(arguments.workflow, version, encoded, key, when, again)
            except Dropped as refused:
                keyed = reader.keyed()
                text = str(refused) if keyed is None else keyed.hide(str(refused))
                raise Dropped(text, refused.rule, refused.key) from None
        if run_id is None:
            raise WorkflowError(
                f"run key {excerpt(arguments.key)} was used by a run that is not kept any more;"
                " give another one to start one"
            )
        if not is_new:
            known = reader.native.run(run_id)
            if known is not None and not same(decode_value(known["context"]), decode_value(encoded)):
                raise ArgumentError(
                    f"run key {excerpt(arguments.key)} has run {run_id} already, whose context is another"
                    " one; a key stands for one event"
                )
            show.note(f"run key {excerpt(arguments.key)} has this run already")
        status = None
        try:
            _say_who_takes_them(reader, show)
            if arguments.wait:
                with ending.heard():
                    wait(reader, run_id)
                status = reading.run(reader, run_id).run
        except BaseException:
            # Who ends that, or meets a fault, would else not know which run it is.
            if reader.is_gone():
                show.note(f"cloaca: run {run_id} was in a store that is gone")
            else:
                show.note(f"cloaca: run {run_id} goes on; `cloaca show {run_id} --wait` waits for it")
            raise
        if show.as_json:
            show.record("submitted", {"id": run_id, "new": is_new, "status": status and status.status})
        else:
            show.values([run_id, *([] if status is None else [status.status, status.error_message])])
    return OK if status is None or status.status == "Completed" else FAILED


def _when(arguments: Namespace) -> urgency.Urgency | None:
    """When it is to begin, and how urgent it is."""
    at, delay = arguments.at, arguments.delay
    # Before it is read as a time, it is what was typed.
    if at is not None and delay is None:
        at = _instant(at, "--at", "--delay")
    return urgency.of(_number(arguments.priority), at, delay, UsageError, "--")


def _first(reader: Reader, run_id: str) -> tuple[str, str]:
    """The workflow of a run, and the context that it began with, also what is hidden of it."""
    row = reader.native.run(run_id)
    if row is None:  # it was pruned between the two looks
        raise reading.MissingError(f"run {excerpt(run_id)} not found; it was there a moment ago")
    return row["workflow_name"], row["context"]


def _number(text: str | None) -> int | None:
    """A priority, whose bounds are checked where those of a program's are."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--priority is {excerpt(text)}; it must be from 0 to 9, and 9 goes first") from None


def _instant(text: str | None, option: str, span_option: str) -> datetime | None:
    """A time, local if it has no zone; the other option takes how long it is until then."""
    if text is None:
        return None
    try:
        found = instant(text)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{option} is {excerpt(text)}; write a time such as 2026-01-31T06:00, or give {span_option}"
        ) from None
    check.kept(check.microseconds(found), text, option, UsageError)
    return found


def _context(text: str) -> Context:
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:
                text = file.read()
    except (OSError, ValueError) as error:  # it isn't there, or is no text
        raise UsageError(f"--context is {excerpt(text)}, which cannot be read: {error}") from None
    try:
        return Context.from_json(text)
    except ContextError as error:
        raise UsageError(f"--context is no JSON object: {error}") from None


def _version(reader: Reader, arguments: Namespace) -> str:
    """The content version of the workflow; of one that has run already its newest run tells it."""
    name = check.text(arguments.workflow, "workflow", UsageError)
    app = program(arguments.app) if arguments.app else None
    tell_program(arguments.database)
    if app is not None:
        from .program import workflow_of

        return workflow_of(app, name).version
    version = reader.native.version(name)
    if version is None:
        version = version_of(reader.native.query(SERVED, [name]), living(reader))
    if version is None and (app := program(None)) is not None:
        from .program import workflow_of

        return workflow_of(app, name).version
    if version is None:
        known = reader.native.workflows("", COUNTED_MAX)
        raise reading.MissingError(
            f"workflow {excerpt(name)} has no run in this store{hint(name, 'workflows', known)}; if it is"
            " a new one, give --app MODULE, the program that declares it"
        )
    return version


def poll(arguments: Namespace, show: Show) -> int:
    """Asks whoever polls a trigger for a poll now, and says what came of it, if that is soon on record."""
    name, url = arguments.name, database(arguments.database)
    with reading.Reader(url) as reader:
        reading.schedules_named(reader, name)
        asked_at = now()
        with _client(url) as runner:
            runner._ask_poll(name)
        tick = _polled(reader, name, asked_at)
    if tick is None:
        _told(show, "asked", name)
    else:
        _told(show, "polled", name, {"outcome": tick.outcome, "reason": tick.reason})
    return OK


def _polled(reader: Reader, name: str, asked_at: datetime) -> reading.Tick | None:
    """What the first poll on record since then came to."""
    until = monotonic() + OUTCOME_SECONDS
    while monotonic() < until:
        newest = reading.ticks(reader, name, limit=1)
        if newest and datetime.fromisoformat(newest[0].last_at) >= asked_at:
            return newest[0]
        sleep(0.05)
    return None


def skip(arguments: Namespace, show: Show) -> int:
    """Has a trigger go on without the end of a run that it is to be told of, or drops a run's callback."""
    if arguments.name is None:
        return _skip_callback(arguments, show)
    name, url = arguments.name, database(arguments.database)
    with reading.Reader(url) as reader:
        named = reading.schedules_named(reader, name)
        if not any(isinstance(each, reading.Trigger) and each.on_run for each in named):
            raise TriggerError(unheard(name))
        given = arguments.run is not None
        run_id = reading.find_run(reader, arguments.run) if given else first_end(reader.native.query, name)
    if run_id is None:
        raise reading.MissingError(f"no end of a run waits for trigger {excerpt(name)}")
    # Named, so that it is what was shown: meanwhile it may have been told, and another one be the next.
    ask(f"skip the end of run {run_id}, of which trigger {excerpt(name)} is then not told", arguments)
    with _client(url) as runner:
        if runner.skip_end(name, run_id) is None:
            raise reading.MissingError(
                f"no end of run {run_id} waits for trigger {excerpt(name)}: it has been told, or"
                " never was to be"
            )
    _told(show, "skipped", name, {"run": run_id})
    return OK


def _skip_callback(arguments: Namespace, show: Show) -> int:
    """Drops the callback of one run, if that waits."""
    if arguments.run is None:
        raise UsageError("name a trigger, or give --run RUN to drop the callback of that run")
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        run_id = reading.find_run(reader, arguments.run)
        named = _waiting_callback(reader, run_id)
        ask(f"drop {named} of run {run_id}, which is then not called any more", arguments)
        with _client(url) as runner:
            if not runner.skip_callback(run_id):
                raise WorkflowError(no_callback(reading.run(reader, run_id)))
    _told(show, "skipped", named, {"run": run_id})
    return OK


def _waiting_callback(reader: Reader, run_id: str) -> str:
    """The name of a run's callback that waits to be called."""
    details = reading.run(reader, run_id)
    waiting = [call for call in details.callbacks if call.begun_at is None]
    if not waiting:
        raise WorkflowError(no_callback(details))
    return rows.CALLBACKS[waiting[0].status]


def no_callback(details: reading.RunDetails) -> str:
    """That no callback of a run waits, and what became of it."""
    named = f"no callback of run {details.run.id} waits"
    if details.callbacks:
        call = details.callbacks[0]
        return f"{named}: {rows.CALLBACKS[call.status]} is being called by runner {call.runner}"
    last = details.last_callback
    if last is None:
        return f"{named}: its workflow had none for its end, or it is not over"
    became = {"told": "came back", "given_up": "was given up"}.get(last.outcome, f"was {last.outcome}")
    return f"{named}: {rows.CALLBACKS[last.status]} {became} at {last.at}"


def tell(arguments: Namespace, show: Show) -> int:
    """Has callbacks that wait be called now."""
    if arguments.all == bool(arguments.run) or (arguments.workflow is not None and not arguments.all):
        raise UsageError("name the runs whose callbacks to call, or give --all, and perhaps --workflow NAME")
    url = database(arguments.database)
    told = 0
    with reading.Reader(url) as reader:
        if arguments.all:
            with beginning(_DONE["tell"], show):
                ids = list(_ids(reader, {"workflow": arguments.workflow, "untold": True}))
        else:
            ids = list(dict.fromkeys(reading.find_run(reader, given) for given in arguments.run))
        if not ids:
            raise reading.MissingError("no callback of any run waits")
        with _client(url) as runner:
            for (run_id,) in _batches(ids, _DONE["tell"], show, size=1):
                if runner.tell_soon(run_id):
                    told += 1
                    _told(show, "asked", run_id)
                elif not arguments.all:
                    show.note(f"cloaca: {no_callback(reading.run(reader, run_id))}")
        if told:
            _say_who_takes_them(reader, show)
    return OK if told == len(ids) or arguments.all else FAILED


def forget(arguments: Namespace, show: Show) -> int:
    """Deletes what is kept of triggers."""
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        for name in arguments.name:
            reading.schedules_named(reader, name)
        waiting = [(name, ends_waiting(reader.native.query, name)) for name in arguments.name]
    names = ", ".join(excerpt(name) for name in arguments.name[:5])
    lost = "".join(f"; {of_ends(many, name)}, and would never be told" for name, many in waiting if many)
    ask(f"forget {names}{' and more' if len(arguments.name) > 5 else ''}{lost}", arguments)
    with closing(_cloaca.Client.open(url)) as client:
        for name in arguments.name:
            is_gone, by = client.forget(name)
            _refuse_served(name, by)
            if not is_gone:
                raise TriggerError(
                    f"{excerpt(name)} was registered by a call, which made it data: delete it by"
                    " `runner.delete_cron_schedule(id)`, or `cloaca disable` it"
                )
            _told(show, "forgotten", name)
    return OK


def _refuse_served(name: str, by: int | None) -> None:
    if by is not None:
        raise TriggerError(
            f"trigger {excerpt(name)} is served by runner {by} of this store; stop that first, or take the"
            " trigger out of its program"
        )


def rename(arguments: Namespace, show: Show) -> int:
    """Gives what is kept of a trigger another name."""
    name, new_name = arguments.name, checked_name(arguments.new_name, "NEW_NAME", TriggerError)
    url = database(arguments.database)
    with reading.Reader(url) as reader:
        # Done already, as by a deploy that does it each time. If neither is kept the old one is missing.
        if not _is_kept(reader, name) and _is_kept(reader, new_name):
            return _nothing_to_rename(show, name, new_name)
        reading.schedules_named(reader, name)
    if name == new_name:
        raise TriggerError(f"{excerpt(name)} has that name already; give another one")
    with closing(_cloaca.Client.open(url)) as client:
        is_done, by, is_taken = client.rename(name, new_name)
    _refuse_served(name, by)
    if is_taken:
        raise TriggerError(already_kept(name, new_name))
    if is_done:
        _told(show, "renamed", name, {"to": new_name})
        return OK
    with reading.Reader(url) as reader:
        if not _is_kept(reader, name):
            # Somebody else has done it meanwhile.
            return _nothing_to_rename(show, name, new_name)
    raise TriggerError(
        f"{excerpt(name)} was registered by a call, which made it data: register it under the other name,"
        " and delete it by `runner.delete_cron_schedule(id)`"
    )


def _is_kept(reader: Reader, name: str) -> bool:
    try:
        return bool(reading.schedules_named(reader, name))
    except reading.MissingError:
        return False


def _nothing_to_rename(show: Show, name: str, new_name: str) -> int:
    show.note(f"{excerpt(name)} is not kept, and {excerpt(new_name)} is: nothing to rename")
    return OK


def prune(arguments: Namespace, show: Show) -> int:
    """Deletes old runs."""
    before = moment(arguments.before, "--before")
    if before is None:
        raise UsageError("which runs? Give --before, such as --before 90d")
    before_us = check.microseconds(before)
    url = database(arguments.database)
    with beginning("deleted", show):
        count = _prunable(arguments, url, before, show)
    gone = 0
    if count:
        with closing(_cloaca.Client.open(url)) as client:
            gone = _pruned(client, before_us, count, show)
        if gone and not check.on_server(url):
            show.note("the file stays as large as it is: what is written next takes the room")
    if show.as_json:
        show.record("pruned", {"runs": gone})
    else:
        show.values(["pruned", gone])
    return OK


def _prunable(arguments: Namespace, url: str, before: datetime, show: Show) -> int:
    """How many are to be deleted, once the user has said so."""
    before_us = check.microseconds(before)
    with reading.Reader(url) as reader:
        ended = reader.native.ended_before(before_us, PRUNE_COUNTED_MAX)
        count = reader.native.prunable(before_us, PRUNE_COUNTED_MAX) if ended else 0
    if ended > count:
        stay = "1 stays, as" if ended - count == 1 else f"{ended - count:,} stay, each because"
        show.note(
            f"{stay} its run key is in use, a body of it still runs, somebody is still to be told of its end,"
            " or a run that it started, or that started it, is not as old"
        )
    if count:
        shown = Show(utc=arguments.utc).time(before.isoformat())
        more = " or more" if count == PRUNE_COUNTED_MAX else ""
        which = "runs, which" if count > 1 else "run, which"
        ask(f"delete {count:,}{more} {which} ended before {shown}", arguments)
    return count


def _pruned(client: _cloaca.Client, before_us: int, count: int, show: Show) -> int:
    gone, shows = 0, count > 10_000 and sys.stderr.isatty()
    with Finishing() as finishing:
        while not finishing.is_asked and (step := client.prune(before_us)):
            gone += step
            if shows:
                aside(f"\r{gone:,} of {count:,} deleted")
    if shows:
        aside("\n")
    if finishing.is_asked:
        show.note(f"cloaca: interrupted when {gone:,} of {count:,} were deleted")
        finishing.leave()
    return gone
