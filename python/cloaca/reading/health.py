"""Whether all is well with a store and with who serves it: one finding a subject, each with what to do.

Decides what is worth a warning, and nothing else; each look is bounded.
Longer than a room should be: one function a finding, none of which knows another.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .. import __version__, rows, temporary
from ..copied import described, made_at
from ..errors import StoreError, excerpt
from ..health import GRACE_SECONDS, RUNNERS_MAX, health
from ..hidden import MASK
from ..rescue import left_beside
from ..why import of_unread, unheard
from ..why_run import of_pause
from .attention import (
    FAILED_MAX,
    also_failed,
    dropped_callbacks,
    failed_below,
    failing_callbacks,
    failures,
    given_up_callbacks,
    undeclared_callbacks,
)
from .runners import BACKLOG_RUNS, runners
from .runs import runs
from .schedules import Cron, Trigger, crons, triggers, unstarted
from .store import age_of, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    from ..types import Health, HealthReason
    from .store import Reader

LOOKED_MAX = 1000
"""So many triggers, crons and failed runs are looked at."""
UNDER_WAY_SECONDS = 300.0
"""A task that has been under way for so long is worth a warning."""
AHEAD_SECONDS = 60.0
"""What was written so far ahead of now was written by a clock that is wrong, or this one is."""
LOG_BYTES = 64 << 20
"""A write-ahead log is cut back to 16 MiB; a larger one is held up by somebody who reads."""
CHECKED_BYTES = 512 << 20
"""A larger file is checked only if that is asked for."""
FREE_BYTES = 256 << 20
"""Less than that on the disk is worth a warning."""
DESCRIPTORS = 256
"""A runner needs some twenty, and the program its own."""
CONNECTIONS_SHARE = 0.9
"""If more of a server's connections are in use, the next runner may get none."""
NAMED_MAX = 3
"""So many of a kind are named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look came to.

    Attributes:
        level (str): `ok`, `warn` or `bad`.
        subject (str): what was looked at, one word.
        text (str): what was found.
        way_out (str | None): what to do about it.
    """

    level: Literal["ok", "warn", "bad"]
    subject: str
    text: str
    way_out: str | None = None


def doctor(
    reader: Reader,
    *,
    thorough: bool = False,
    brief: bool = False,
    backlog: list[dict[str, Any]] | None = None,
    probed: Health | None = None,
) -> Iterator[Finding]:
    """Findings, one after the other, as they are looked for; with `thorough` a large file is checked, too,
    with `brief` none is. A `backlog` that was read already is not read again, and who was `probed` is not
    asked again.
    """
    at = now()
    if reader.file is None:
        yield _server(reader)
        yield _connections(reader)
    else:
        yield _versions(reader)
        yield from _file(reader, reader.file)
        if not brief:
            yield _integrity(reader, reader.file, thorough)
        yield _disk(reader.file)
        if (lacking := temporary.trouble()) is not None:
            what, _, way_out = lacking.partition(": ")
            yield Finding("warn", "temporary", f"in this process {what}", way_out)
    yield _descriptors()
    yield from _clock(reader, at)
    copied_us = made_at(reader.native.query)
    reasons = (of_probe(reader) if probed is None else probed)["reasons"]
    if copied_us is not None:
        yield _copy(copied_us)
        # Who serves the original lives, and not here.
        reasons = [reason for reason in reasons if reason["code"] not in ("no_runner", "dead_runner")]
    told: set[str] = {reason["code"] for reason in reasons}
    owners = reader.native.owners(RUNNERS_MAX)
    has_paused = bool(rows.paused(owners))
    yield from (_told(reason, has_paused) for reason in reasons)
    if reader.file is None and "old_transaction" not in told:
        yield Finding("ok", "transactions", "none that this user may see has been open for long")
    backlog = reader.native.backlog(BACKLOG_RUNS) if backlog is None else backlog
    if copied_us is None:
        is_told = bool(told & {"no_runner", "silent_runner", "dead_runner"})
        yield from _runners(reader, backlog, owners, is_told)
    yield from _schedules(reader, told, owners)
    if not told & {"backlog", "unserved"}:
        yield _backlog(backlog)
    yield from _callbacks(reader, told)
    yield _pauses(reader)
    yield _overdue(reader, backlog, at if copied_us is None else datetime.fromtimestamp(copied_us / 1e6, UTC))
    yield _failed(reader, at)


def of_probe(reader: Reader) -> Health:
    """What a probe is told of the store, as by `DefaultRunner.health`."""
    owners = reader.native.owners(RUNNERS_MAX)
    return health(reader.native.query, owners, reader.file, on_server=reader.file is None)


_SUBJECTS: dict[str, str] = {
    "store": "file",
    "disk": "disk",
    "old_transaction": "transactions",
    "unserved": "backlog",
    "backlog": "backlog",
    "overdue": "tasks",
    "stuck": "schedules",
    "unpolled": "schedules",
    "late_cron": "schedules",
    "callbacks": "callbacks",
}
_WAYS_OUT: dict[str, str] = {
    "disk": "keep less: retention=, `cloaca prune`",
    "old_transaction": "end it: until then dead rows pile up, and claims slow down",
    "loop": "make a new runner on the loop that runs now",
    "no_runner": "start the program that declares them",
    "silent_runner": "see whether that process hangs, or was stopped",
    "dead_runner": "the next runner that starts takes them over",
    "unserved": "start a program that declares the workflow",
    "backlog": "start another runner, or raise max_concurrent_tasks",
    "overdue": "see what its body waits for: only the end of its process ends it",
    "stuck": "see what its body waits for: `poll_timeout` lets the trigger go on",
    "unpolled": "start a program that declares them; or `cloaca rename` them if they have other names in it"
    " now; or `cloaca disable` or `cloaca forget` them",
    "late_cron": "start a program that declares it, and its workflow; or `cloaca disable` it",
    "callbacks": "`cloaca show RUN` tells what they raise",
}


_UNDECLARED_WAY_OUT = (
    "start a program that declares them: they go untold once runners have served the workflow for an hour"
    " without, or with their runs, by `retention` or `cloaca prune`"
)
_MAY_BE_PAUSED = ("no_runner", "unserved", "unpolled", "late_cron")
_PAUSED_WAY_OUT = "look at what it would do, then call its resume(): what it declares is told of only then"
_GIVEN_UP_WAY_OUT = (
    "`cloaca show RUN`; mend the callback, and where they matter call it by hand, with `runner.get_run(RUN)`"
)
_DROPPED_WAY_OUT = (
    "`cloaca show RUN`; where they matter call the function by hand, with `runner.get_run(RUN)`"
)
_CALLBACKS_WAY_OUT = (
    "`cloaca runs --untold` lists them; once it is mended `cloaca tell RUN`, or --all, has them called now;"
    " `cloaca skip --run RUN` drops one"
)


def _told(reason: HealthReason, has_paused: bool) -> Finding:
    """What a probe is told is bad here, too. A paused runner may declare what nobody serves."""
    code = reason["code"]
    way_out = _PAUSED_WAY_OUT if has_paused and code in _MAY_BE_PAUSED else _WAYS_OUT.get(code)
    since = f", for {_span(reason['seconds'])}" if reason["seconds"] is not None else ""
    return Finding("bad", _SUBJECTS.get(code, "runners"), f"{reason['text']}{since}", way_out)


def _copy(copied_us: int) -> Finding:
    text = described(copied_us)
    return Finding("warn", "copy", text, "to go on with it, stop the original and start the program on this")


def _value(reader: Reader, sql: str) -> Any:
    (row,) = reader.native.query(sql, [])
    return next(iter(row.values()))


def _versions(reader: Reader) -> Finding:
    schema, sqlite = _value(reader, "PRAGMA user_version"), _value(reader, "SELECT sqlite_version()")
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"cloaca {__version__}, SQLite {sqlite}, Python {python}; schema {schema}"
    return Finding("ok", "versions", text)


def _server(reader: Reader) -> Finding:
    schema = _value(reader, "SELECT value FROM meta WHERE name = 'version'")
    server = _value(reader, "SELECT current_setting('server_version')")
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"cloaca {__version__}, PostgreSQL {server}, Python {python}; schema {schema} in {reader.path}"
    return Finding("ok", "versions", text)


def _connections(reader: Reader) -> Finding:
    used = _value(reader, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    most = _value(reader, "SELECT current_setting('max_connections')::BIGINT")
    text = f"{used} of {most} connections are in use"
    if used > most * CONNECTIONS_SHARE:
        return Finding(
            "warn", "connections", text, "raise max_connections, or put a pooler before the server"
        )
    return Finding("ok", "connections", text)


def _file(reader: Reader, path: str) -> Iterator[Finding]:
    size = os.path.getsize(path)
    pages, free = _value(reader, "PRAGMA page_count"), _value(reader, "PRAGMA freelist_count")
    text = f"{path}, {_bytes(size)}"
    if free * 2 > pages and size > CHECKED_BYTES // 8:
        way_out = "stop the runners and run VACUUM, if the room is needed elsewhere; new runs will use it"
        yield Finding("warn", "file", f"{text}, more than half of it free", way_out)
    else:
        yield Finding("ok", "file", text)
    if (told := left_beside(os.fspath(path))) is not None:
        yield Finding("warn", "file", *told)
    log = f"{path}-wal"
    log_bytes = os.path.getsize(log) if os.path.exists(log) else 0
    if log_bytes > LOG_BYTES:
        way_out = "look for a process that reads for long, or keeps a transaction open ('fuser' names them)"
        yield Finding("warn", "log", f"the write-ahead log has {_bytes(log_bytes)}", way_out)
    else:
        yield Finding("ok", "log", f"the write-ahead log has {_bytes(log_bytes)}")


def _integrity(reader: Reader, path: str, thorough: bool) -> Finding:
    size = os.path.getsize(path)
    if size > CHECKED_BYTES and not thorough:
        return Finding("ok", "integrity", f"not looked at: {_bytes(size)} take a while", "doctor --thorough")
    try:
        faults = [next(iter(row.values())) for row in reader.native.query("PRAGMA quick_check(3)", [])]
    except StoreError as error:
        faults = [str(error)]
    if faults == ["ok"]:
        return Finding("ok", "integrity", "SQLite finds no fault")
    way_out = "stop the runners, keep a copy of all files, and restore the last export"
    return Finding("bad", "integrity", "; ".join(map(str, faults[:NAMED_MAX])), way_out)


def _disk(path: str) -> Finding:
    import shutil  # which brings all that packs and unpacks

    folder = os.path.dirname(path)
    free = shutil.disk_usage(folder).free
    text = f"{_bytes(free)} free where the file lies"
    if free < FREE_BYTES:
        return Finding("warn", "disk", text, "make room, or keep less: retention=, `cloaca prune`")
    return Finding("ok", "disk", text)


def _descriptors() -> Finding:
    try:
        import resource
    except ImportError:  # not on Windows
        return Finding("ok", "descriptors", "not limited here")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    text = "not limited" if soft == resource.RLIM_INFINITY else f"a process may have {soft:,}, by this shell"
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        return Finding("warn", "descriptors", text, f"ulimit -n {DESCRIPTORS * 4}, where the runner starts")
    return Finding("ok", "descriptors", text)


def _clock(reader: Reader, at: datetime) -> Iterator[Finding]:
    marks = [row["joined_at"] for row in reader.native.owners(LOOKED_MAX)]
    marks += [found.created_at for found in runs(reader, limit=1)]
    ages = [age for mark in marks if (age := age_of(mark, at)) is not None]
    if ages and min(ages) < -AHEAD_SECONDS:
        text = f"something in the store was written {_span(-min(ages))} ahead of this machine's clock"
        yield Finding("bad", "clock", text, "set the clock; crons and retention go by it")
    else:
        yield Finding("ok", "clock", "nothing in the store lies ahead of now")


def _runners(
    reader: Reader, backlog: list[dict[str, Any]], owners: list[dict[str, Any]], is_told: bool
) -> Iterator[Finding]:
    found = runners(reader, backlog=backlog)
    alive = [each for each in found if each.state == "living"]
    waiting = [each for each in found if each.state == "paused"]
    if waiting and not is_told:
        named = ", ".join(str(each.number) for each in waiting[:NAMED_MAX])
        text = f"{_count(len(waiting), 'runner')} paused ({named}): open, and doing nothing until resume()"
        yield Finding("warn", "runners", text, _PAUSED_WAY_OUT)
    # A client had nothing that anybody could take over.
    dead = [each for each in found if each.state == "dead" and (each.works or each.runs)]
    cut_off = rows.cut_off(owners) if dead else set()
    for word, some in (
        ("died without leaving", [each for each in dead if each.number not in cut_off]),
        (
            "ended before bodies that outlasted the shutdown",
            [each for each in dead if each.number in cut_off],
        ),
    ):
        if not some:
            continue
        numbers = ", ".join(str(each.number) for each in some[:NAMED_MAX])
        runs_left = sum(each.runs for each in some)
        text = f"{_count(len(some), 'runner')} {word} ({numbers}), with {_count(runs_left, 'run')}"
        text = f"{text} that {'is' if runs_left == 1 else 'are'} not over"
        yield Finding("warn", "runners", text, _WAYS_OUT["dead_runner"])
    working = sum(each.works for each in alive)
    clients = f", and {_count(len(alive) - working, 'client')}" if working < len(alive) else ""
    if working:
        yield Finding("ok", "runners", f"{_count(working, 'runner')} living{clients}")
    elif not is_told:
        yield Finding("ok", "runners", f"no runner is alive{clients}, and there is nothing to serve")


def _is(found: Trigger | Cron, state: str) -> bool:
    """Whether a schedule is in that state. One that fails does so where nobody serves it, too: who
    starts the program again meets the same.
    """
    is_left = isinstance(found, Trigger) and found.state == "unserved" and found.failures > 0
    return found.state == state or (state == "failing" and is_left)


def _schedules(reader: Reader, told: set[str], owners: list[dict[str, Any]]) -> Iterator[Finding]:
    found = [*triggers(reader, limit=LOOKED_MAX), *crons(reader, limit=LOOKED_MAX)]
    ways_out = {
        "stopped": "mend its cause, then `cloaca enable NAME`",
        "failing": "`cloaca why NAME` tells what it raises, and what to do",
        "disabled": "`cloaca enable NAME`, once it may go on; `cloaca audit NAME` may tell who did it",
    }
    is_well = not told & {"unpolled", "late_cron", "stuck"}
    for state, way_out in ways_out.items():
        named = [_called(each) for each in found if _is(each, state)]
        if named:
            is_well = False
            more = f" and {len(named) - NAMED_MAX} more" if len(named) > NAMED_MAX else ""
            word = "switched off" if state == "disabled" else state
            text = f"{word}: {', '.join(named[:NAMED_MAX])}{more}"
            yield Finding("bad" if state == "stopped" else "warn", "schedules", text, way_out)
    for each in found:
        if isinstance(each, Cron) and each.enabled:
            unread = of_unread(each.cron_expression, each.timezone)
            if unread is not None:
                is_well = False
                text = f"{_called(each, 'cron ')} {unread}"
                yield Finding("warn", "schedules", text, "every machine that is to run it must know its zone")
    heard = [each for each in found if isinstance(each, Trigger) and each.on_run and each.runner is not None]
    for each in heard:
        unknown = unheard(reader.native.query, each.trigger_name)
        if unknown is not None:
            is_well = False
            text = f"trigger {excerpt(each.trigger_name)} is told of ends of {excerpt(unknown)}, a workflow"
            way_out = "mend its on_run=, or start a program that declares that workflow"
            yield Finding("warn", "schedules", f"{text} that no living runner declares", way_out)
    for each in unstarted(reader, found)[:NAMED_MAX]:
        is_well = False
        text = (
            f"{_called(each)} starts {excerpt(each.workflow_name)}, a workflow that no living runner declares"
        )
        way_out = "mend its workflow=, or start a program that declares that workflow"
        yield Finding("warn", "schedules", text, way_out)
    unserved = [each for each in found if each.state == "unserved" and not _is_told(each, told)]
    has_paused = bool(rows.paused(owners))
    if unserved and (has_paused or rows.living(owners)):
        is_well = False
        named = [_called(each) for each in unserved[:NAMED_MAX]]
        text = f"{_count(len(unserved), 'schedule')} that no living runner declares: {', '.join(named)}"
        way_out = _PAUSED_WAY_OUT if has_paused else _WAYS_OUT["unpolled"]
        yield Finding("warn", "schedules", text, way_out)
    if is_well:
        yield Finding("ok", "schedules", f"none of {_count(len(found), 'schedule')} fails, or was stopped")


def _called(each: Trigger | Cron, kind: str = "") -> str:
    """What a schedule is called. Of a workflow there may be several crons without names: by their ids they
    are switched, and told apart."""
    if each.trigger_name is not None:
        return f"{kind}{excerpt(each.trigger_name)}"
    of = f"a cron of {excerpt(each.workflow_name)}"
    return f"{of} ({excerpt(each.cron_expression)}, {each.id})" if isinstance(each, Cron) else of


def _backlog(rows: list[dict[str, Any]]) -> Finding:
    told = f"{_many_runs(sum(row['pending'] + row['running'] for row in rows))} not over"
    delayed = sum(row["delayed"] for row in rows)
    if delayed:
        wait = "that waits for its" if delayed == 1 else "that wait for their"
        told += f", and {_many_runs(delayed)} {wait} time"
    return Finding("ok", "backlog", told)


def _many_runs(many: int) -> str:
    return f"{BACKLOG_RUNS:,} or more runs" if many >= BACKLOG_RUNS else _count(many, "run")


def _callbacks(reader: Reader, told: set[str]) -> Iterator[Finding]:
    """A probe is not told: what callbacks tell may be away, and the runner works all the same."""
    found = failing_callbacks(reader)
    for each in found[:NAMED_MAX]:
        many = f"{_count(each.count, 'end')} of runs of workflow {excerpt(each.workflow_name)}"
        text = (
            f"{many} whose callback keeps failing, first that of run {each.run_id}, since {each.ended_at} in"
            f" {_count(each.attempts, 'call')}: {excerpt(each.error)}"
        )
        yield Finding("warn", "callbacks", text, _CALLBACKS_WAY_OUT)
    if len(found) > NAMED_MAX:
        text = f"those of {_count(len(found) - NAMED_MAX, 'more workflow')} keep failing, too"
        yield Finding("warn", "callbacks", text, "`cloaca runs --untold`")
    silent = list(_untold(reader))
    yield from silent
    if not found and not silent and "callbacks" not in told:
        yield Finding("ok", "callbacks", "none keeps failing, or was given up within a day")


def _untold(reader: Reader) -> Iterator[Finding]:
    """Ends of runs of which nobody is told."""
    for each in undeclared_callbacks(reader)[:NAMED_MAX]:
        text = (
            f"{_count(each.count, 'end')} of runs of workflow {excerpt(each.workflow_name)} wait for"
            f" callbacks that no living runner declares, first that of run {each.run_id}, since {each.at}"
        )
        yield Finding("warn", "callbacks", text, _UNDECLARED_WAY_OUT)
    since = now() - timedelta(days=1)
    for lost in given_up_callbacks(reader, since)[:NAMED_MAX]:
        text = (
            f"{_count(lost.count, 'end')} of runs of workflow {excerpt(lost.workflow_name)} whose callback"
            f" was given up within the last 24 hours, and that are told to nobody: first that of run"
            f" {lost.run_id}, at {lost.at} after {_count(lost.attempts, 'call')}: {excerpt(lost.error)}"
        )
        yield Finding("warn", "callbacks", text, _GIVEN_UP_WAY_OUT)
    for each in dropped_callbacks(reader, since)[:NAMED_MAX]:
        text = (
            f"{_count(each.count, 'end')} of runs of workflow {excerpt(each.workflow_name)} waited for a"
            f" callback that was dropped within the last 24 hours, and are told to nobody: first that of run"
            f" {each.run_id}, at {each.at}"
        )
        yield Finding("warn", "callbacks", text, _DROPPED_WAY_OUT)


def _pauses(reader: Reader) -> Finding:
    """What is paused: first what is until somebody resumes it, and may have been forgotten."""
    found = sorted(reader.pauses(), key=lambda each: each["until"] is not None)
    if not found:
        return Finding("ok", "pauses", "nothing is paused")
    more = f"; and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    told = "; ".join(f"{of_pause(each)}, since {each['since']}" for each in found[:NAMED_MAX])
    if found[0]["until"] is not None:
        return Finding("ok", "pauses", f"{told}{more}")
    return Finding("warn", "pauses", f"{told}{more}", f"`{_resume(found[0])}`, once it may go on")


def _resume(pause: dict[str, Any]) -> str:
    if pause["kind"] == "limit":
        return f"cloaca resume --limit {shlex.quote(pause['name'])}"
    # One that is hidden whoever paused it knows.
    value = "KEY" if pause["key"] == MASK else pause["key"]
    key = "" if value is None else f" --key {shlex.quote(value)}"
    return f"cloaca resume --workflow {shlex.quote(pause['name'])}{key}"


def _is_told(each: Trigger | Cron, told: set[str]) -> bool:
    """Whether what a probe is told has it."""
    if isinstance(each, Cron):
        return "late_cron" in told and (age_of(each.next_run_at, now()) or 0.0) > GRACE_SECONDS
    return "unpolled" in told


def _overdue(reader: Reader, backlog: list[dict[str, Any]], at: datetime) -> Finding:
    # Where no run has begun no task is looked for.
    rows = reader.native.begun(BACKLOG_RUNS) if any(each["running"] for each in backlog) else []
    late = [row for row in rows if (age_of(row["started_at"], at) or 0.0) > UNDER_WAY_SECONDS]
    if not late:
        return Finding("ok", "tasks", "none has been under way for more than 5 minutes")
    named = "; ".join(
        f"{excerpt(row['task'])} of run {row['run']} since {row['started_at']}" for row in late[:NAMED_MAX]
    )
    text = f"{_count(len(late), 'task')} under way for more than 5 minutes: {named}"
    return Finding("warn", "tasks", text, "`cloaca why RUN` says in whose hands it is; a time-out ends it")


def _failed(reader: Reader, at: datetime) -> Finding:
    since = at - timedelta(days=1)
    kinds: dict[str, int] = {}
    for failed in failures(reader, since):
        kind = failed.error_type or "unknown"
        kinds[kind] = kinds.get(kind, 0) + failed.count
    total = sum(kinds.values())
    if not total:
        return Finding("ok", "failures", "no run failed in the last 24 hours")
    most = sorted(kinds.items(), key=lambda item: -item[1])[:NAMED_MAX]
    below = failed_below(reader, since)
    shown = f"{total:,} or more runs" if total + below >= FAILED_MAX else _count(total, "run")
    rest = sum(kinds.values()) - sum(count for _, count in most)
    others = f" and others ({rest})" if rest else ""
    text = f"{shown} failed in the last 24 hours: {', '.join(f'{kind} ({n})' for kind, n in most)}{others}"
    text += also_failed(total, below)
    return Finding("warn", "failures", text, "`cloaca runs --failed --since 24h`")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{seconds:.0f} seconds"
