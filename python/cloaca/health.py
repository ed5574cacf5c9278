"""Whether a store's triggers are polled and its runs begin: what a probe asks every few seconds.

Decides what is wrong enough to be told, and nothing else. Invariant: each look is bounded by an index and a
number, however much the store holds, and no reason is told for what rights itself in a moment.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime

from . import rows
from .errors import excerpt
from .rows import moment
from .why import of_unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from .types import Health, HealthCode, HealthReason

    Look = Callable[[str, Sequence[Any]], list[dict[str, Any]]]

RUNNERS_MAX = 1000
COUNTED_MAX = 10_000
"""So many of a kind are counted."""
LINES_MAX = 500
"""Of so many workflows, with the priorities of their runs, it is looked how long they wait."""
NAMED_MAX = 5
"""So many of a kind are named."""
WAITING_SECONDS = 60.0
"""A run that is due and in nobody's hands for longer is told of: somebody should have had room by then."""
GRACE_SECONDS = 10.0
"""What nobody declares or polls for so long is not about to be taken over."""
SILENT_SECONDS = 30.0
"""A runner says every 5 seconds that it lives; one that has not for so long is stopped, or hangs."""
TRANSACTION_SECONDS = 300.0
"""One that is older, anywhere on a server, keeps dead rows from being removed, and slows claims down."""
FREE_BYTES = 64 << 20
"""Less than that on the disk, and writes will soon be refused."""

# By runs_unowned, which holds what is due and in nobody's hands: of each workflow and priority the oldest.
# Whose it was is known of who died; who left by itself has left by now, and of those few are kept.
_UNOWNED = (
    "FROM runs INDEXED BY runs_unowned WHERE completed_at IS NULL AND not_before IS NULL AND owner IS NULL"
)
_FIRST = f"""
    SELECT workflow, priority, waits, CASE
        WHEN started_at IS NULL AND due_at > created_at THEN due_at WHEN started_at IS NULL THEN created_at
        ELSE (
            SELECT max(left_at) FROM owners WHERE epoch = coalesce(owner_before, epoch)
        ) END AS since
    {_UNOWNED} AND workflow {{}} ORDER BY workflow, priority DESC, row LIMIT 1"""
_NEXT_PRIORITY = _FIRST.format("= ? AND priority < ?")
_NEXT_WORKFLOW = _FIRST.format("> ?")
_COUNTED = (
    f"SELECT workflow, count(*) AS runs FROM (SELECT workflow {_UNOWNED} LIMIT ?) AS found GROUP BY workflow"
)
# By runs_unfinished: delayed runs whose time has come, and that nobody has claimed.
_DUE = """
    SELECT workflow, not_before AS since FROM runs INDEXED BY runs_unfinished
    WHERE completed_at IS NULL AND not_before <= ? ORDER BY not_before LIMIT 1000"""
# By runs_unfinished: what limits hold, which waits behind the latest of all times.
_LIMITED = """
    SELECT workflow, count(*) AS runs, min(created_at) AS since FROM (
        SELECT workflow, created_at FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before = 9223372036854775807 LIMIT ?
    ) AS found GROUP BY workflow"""
_HELD = """
    SELECT owner, count(*) AS runs FROM (
        SELECT owner FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before IS NULL LIMIT ?
    ) AS found WHERE owner IS NOT NULL GROUP BY owner"""
# The primary key of pauses: whole workflows, for as long as that is not over.
_PAUSED = """
    SELECT name FROM pauses WHERE kind = 'workflow' AND key = '' AND (until IS NULL OR until > ?)
    LIMIT 10000"""
# The primary key of workflows.
_DECLARED = """
    SELECT DISTINCT name FROM workflows
    WHERE name IN (SELECT value FROM json_each(?1)) AND owner IN (SELECT value FROM json_each(?2))"""
_OVERDUE = """
    SELECT overdue.task, runs.id, since FROM overdue JOIN runs ON runs.row = run
    WHERE overdue.owner IN (SELECT value FROM json_each(?)) ORDER BY since LIMIT 1000"""
# By schedules_polled, then by what few are left.
_OWNERS = """
    SELECT owner, count(*) AS many FROM schedules INDEXED BY schedules_polled
    WHERE kind = 'trigger' AND enabled GROUP BY owner"""
# But for what is a cron by now.
_UNPOLLED = f"""
    SELECT name, coalesce(free_since, (
        SELECT coalesce(left_at, seen_at, joined_at) FROM owners WHERE epoch = owner), updated_at) AS since
    FROM schedules INDEXED BY schedules_polled
    WHERE kind = 'trigger' AND enabled AND owner IS NOT DISTINCT FROM ?
        AND NOT {rows.CRON_BY_NOW}
    LIMIT ?"""
_STUCK = """
    SELECT name, in_body_since AS since FROM schedules INDEXED BY schedules_in_body
    WHERE in_body_since IS NOT NULL AND owner IN (SELECT value FROM json_each(?))
    ORDER BY in_body_since LIMIT ?"""
_LATE = f"""
    SELECT coalesce(nullif(name, ''), CAST(id AS TEXT)) AS name, next_at AS since, expression, timezone
    FROM schedules INDEXED BY schedules_crons
    WHERE kind = 'cron' AND enabled AND next_at < ? AND NOT {rows.TRIGGER_BY_NOW}
    ORDER BY next_at LIMIT ?"""
# Of what listens, which is little, who lives and calls it: the primary keys of listeners and workflows.
_CALLED = """
    SELECT DISTINCT name FROM workflows
    WHERE tells <> 0 AND owner IN (SELECT value FROM json_each(?))
        AND name IN (SELECT workflow FROM listeners WHERE listener = 0 LIMIT 10000)"""
# By ends_due and ends_owner: callbacks alone, and of workflows that somebody calls them of. What triggers are
# to be told waits while they are switched off, or nobody polls them, which is told of these. What is backing
# off is not late.
_UNTOLD = """
    SELECT workflow, count(*) AS many, min(since) AS since FROM (
        SELECT workflow, since FROM (
            SELECT workflow, due_at AS since FROM ends INDEXED BY ends_due
            WHERE owner IS NULL AND listener = 0 AND workflow IN (SELECT value FROM json_each(?3)) LIMIT ?1
        ) AS waiting
        UNION ALL SELECT workflow, begun_at FROM ends INDEXED BY ends_owner
        WHERE owner IS NOT NULL AND listener = 0
    ) AS found WHERE since < ?2 AND workflow IN (SELECT value FROM json_each(?3)) GROUP BY workflow"""
# Of a server: who keeps it from removing dead rows, among those that its user may see.
OLDEST_TRANSACTION = """
    SELECT pid, coalesce(nullif(application_name, ''), usename, 'somebody') AS name,
        CAST(extract(epoch FROM clock_timestamp() - xact_start) * 1000000 AS BIGINT) AS lasted
    FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()
    ORDER BY xact_start LIMIT 1"""
_ANYTHING = """
    SELECT EXISTS (SELECT 1 FROM schedules INDEXED BY schedules_polled WHERE kind = 'trigger' AND enabled)
        OR EXISTS (SELECT 1 FROM schedules INDEXED BY schedules_crons WHERE kind = 'cron' AND enabled)
        OR EXISTS (SELECT 1 FROM runs INDEXED BY runs_unfinished WHERE completed_at IS NULL) AS anything"""


def health(
    look: Look,
    owners: list[dict[str, Any]],
    path: str | None,
    trouble: str | None = None,
    *,
    on_server: bool = False,
    now_us: int | None = None,
) -> Health:
    """What a store's health is by what `look` reads of it, and who its runners are. `trouble` is what whoever
    asks knows to be wrong with the store, `now_us` what the runner's clock shows, if a runner asks.
    """
    now_us = int(time.time() * 1e6) if now_us is None else now_us
    living = rows.living(owners)
    alive = [row for row in owners if row["number"] in living]
    numbers = [row["number"] for row in alive]
    waiting = _Waiting(look, now_us)
    since = [
        since
        for found in (waiting.since, waiting.limited)
        for name, since in found.items()
        if name not in waiting.paused
    ]
    reasons = [
        *_store(path, trouble),
        *(_transactions(look, now_us) if on_server else ()),
        *_runners(look, owners, alive, now_us),
        *waiting.reasons(look, numbers, now_us),
        *_bodies(look, numbers, now_us),
        *_schedules(look, numbers, now_us),
        *_ends(look, numbers, now_us),
    ]
    return {
        "ok": not reasons,
        "reasons": reasons,
        "at": moment(now_us),
        "runners": len(alive),
        "runs_waiting": sum(waiting.counts.values()),
        "oldest_seconds": _age(min(since), now_us) if since else None,
    }


def of_unreadable(code: HealthCode, text: str) -> Health:
    """The health of a runner that reads nothing: it has stopped by itself, or its store doesn't answer."""
    now_us = int(time.time() * 1e6)
    return {
        "ok": False,
        "reasons": [_reason(code, text, 1, now_us)],
        "at": moment(now_us),
        "runners": 0,
        "runs_waiting": 0,
        "oldest_seconds": None,
    }


def lost_loop(now_us: int) -> HealthReason:
    """What is wrong with a runner whose async bodies ran on an event loop that has ended."""
    text = (
        "the event loop that this runner's async bodies run on has ended: its async tasks wait for another"
        " runner, and its async triggers fail; make a new runner on the loop that runs now"
    )
    return _reason("loop", text, 1, now_us)


def _reason(
    code: HealthCode,
    text: str,
    count: int,
    now_us: int,
    since: int | None = None,
    names: Iterable[str] = (),
) -> HealthReason:
    seconds = None if since is None else _age(since, now_us)
    return {"code": code, "text": text, "count": count, "seconds": seconds, "names": [*names][:NAMED_MAX]}


def _store(path: str | None, trouble: str | None) -> Iterable[HealthReason]:
    if trouble is not None:
        yield _reason("store", trouble, 1, 0)
    elif path is not None and not os.path.exists(path):
        yield _reason("store", f"the file {path} is gone", 1, 0)
    elif path is not None and (free := _free(os.path.dirname(os.path.abspath(path)))) < FREE_BYTES:
        text = f"{free >> 20} MiB are free where the file lies: make room before writes are refused"
        yield _reason("disk", text, free, 0)


def _transactions(look: Look, now_us: int) -> Iterable[HealthReason]:
    for oldest in look(OLDEST_TRANSACTION, []):
        if oldest["lasted"] / 1e6 > TRANSACTION_SECONDS:
            who = f"{oldest['name']} (pid {oldest['pid']})"
            text = f"a transaction of {excerpt(who)} on the server is open for long: dead rows pile up"
            yield _reason("old_transaction", text, 1, now_us, now_us - oldest["lasted"], [who])


def _free(folder: str) -> int:
    import shutil  # which brings all that packs and unpacks

    return shutil.disk_usage(folder).free


def is_silent(row: dict[str, Any], now_us: int) -> bool:
    """Whether a runner that lives and has triggers has said nothing for so long that its process is stopped,
    or hangs."""
    return (seen := _seen(row)) is not None and _age(seen, now_us) > SILENT_SECONDS


def _runners(
    look: Look, owners: list[dict[str, Any]], alive: list[dict[str, Any]], now_us: int
) -> Iterable[HealthReason]:
    if not alive and look(_ANYTHING, [])[0]["anything"]:
        text = "no runner is alive, and there are schedules or runs to serve: start the program"
        if waiting := [row for row in owners if rows.state_of(row) == "paused"]:
            text = f"nobody serves the schedules and runs: {_count(len(waiting), 'runner')} of the store"
            text = f"{text} {'is' if len(waiting) == 1 else 'are'} paused until resume() is called"
        yield _reason("no_runner", text, 0, now_us, None, map(_name, waiting))
    silent = [row for row in alive if is_silent(row, now_us)]
    if silent:
        text = f"{_count(len(silent), 'runner')} with a living process said nothing lately: is it stopped, or"
        text = f"{text} kept out of the store?"
        since = min(seen for row in silent if (seen := _seen(row)) is not None)
        yield _reason("silent_runner", text, len(silent), now_us, since, map(_name, silent))
    dead = [row for row in owners if row["left_at"] is None and row["is_dead"]]
    if dead and not alive:
        # The next runner takes them over, and who lives does so at once.
        held = {row["owner"]: row["runs"] for row in look(_HELD, [COUNTED_MAX])}
        if runs := sum(held.get(row["number"], 0) for row in dead):
            of = "runners that died"
            if all(row["number"] in rows.cut_off(owners) for row in dead if held.get(row["number"])):
                of = "runners whose shutdown their bodies outlasted"
            text = f"{_count(runs, 'run')} of {of}, and nobody is there to go on with them"
            yield _reason("dead_runner", text, runs, now_us, None, map(_name, dead))


class _Waiting:
    """Runs that are due and in nobody's hands, or held by limits, by their workflows."""

    def __init__(self, look: Look, now_us: int) -> None:
        # They wait because somebody wants them to, however long that is.
        self.paused = {row["name"] for row in look(_PAUSED, [now_us])}
        self.counts: dict[str, int] = {row["workflow"]: row["runs"] for row in look(_COUNTED, [COUNTED_MAX])}
        self.since: dict[str, int] = {}
        row = _first(look(_NEXT_WORKFLOW, [""]))
        for _ in range(LINES_MAX):
            if row is None:
                break
            workflow, priority = row["workflow"], row["priority"]
            # One that stands in line behind another waits for that, and not for a runner.
            if row["since"] is not None and not row["waits"]:
                self._note(workflow, row["since"])
            row = _first(look(_NEXT_PRIORITY, [workflow, priority])) or _first(
                look(_NEXT_WORKFLOW, [workflow])
            )
        for row in look(_DUE, [now_us]):
            self.counts[row["workflow"]] = self.counts.get(row["workflow"], 0) + 1
            self._note(row["workflow"], row["since"])

        self.limited: dict[str, int] = {}
        for row in look(_LIMITED, [COUNTED_MAX]):
            self.counts[row["workflow"]] = self.counts.get(row["workflow"], 0) + row["runs"]
            self.limited[row["workflow"]] = row["since"]

    def _note(self, workflow: str, since: int) -> None:
        self.since[workflow] = min(since, self.since.get(workflow, since))

    def reasons(self, look: Look, numbers: list[int], now_us: int) -> Iterable[HealthReason]:
        # What limits hold waits for them, but not where nobody serves it.
        since_of = self.limited | self.since
        old = {name: since for name, since in since_of.items() if _age(since, now_us) > GRACE_SECONDS}
        if not old or not numbers:
            return
        given = [json.dumps(list(old)), json.dumps(numbers)]
        declared = {row["name"] for row in look(_DECLARED, given)}
        if unserved := {name: since for name, since in old.items() if name not in declared}:
            runs = sum(self.counts.get(name, 1) for name in unserved)
            text = f"{_count(runs, 'run')} of workflows that no living runner declares: {_named(unserved)}"
            yield _reason("unserved", text, runs, now_us, min(unserved.values()), unserved)
        late = {
            name: since
            for name, since in old.items()
            if name in self.since and name in declared - self.paused and _age(since, now_us) > WAITING_SECONDS
        }
        if late:
            runs = sum(self.counts.get(name, 1) for name in late)
            text = f"{_count(runs, 'run')} waiting for a runner that has room: {_named(late)}"
            yield _reason("backlog", text, runs, now_us, min(late.values()), late)


def _bodies(look: Look, numbers: list[int], now_us: int) -> Iterable[HealthReason]:
    if overdue := look(_OVERDUE, [json.dumps(numbers)]):
        names = [f"{row['task']} of run {row['id']}" for row in overdue]
        text = (
            f"{_count(len(overdue), 'body', 'bodies')} still running that nobody waits for: {_named(names)}"
        )
        yield _reason("overdue", text, len(overdue), now_us, overdue[0]["since"], names)
    if stuck := look(_STUCK, [json.dumps(numbers), COUNTED_MAX]):
        names = [row["name"] for row in stuck]
        text = f"{_count(len(stuck), 'poll')} in its body for long: {_named(names)}"
        yield _reason("stuck", text, len(stuck), now_us, stuck[0]["since"], names)


def _schedules(look: Look, numbers: list[int], now_us: int) -> Iterable[HealthReason]:
    if not numbers:
        return
    free: list[dict[str, Any]] = []
    for group in look(_OWNERS, []):
        if group["owner"] not in numbers:
            free += look(_UNPOLLED, [group["owner"], COUNTED_MAX])
    free = [row for row in free if row["since"] is None or _age(row["since"], now_us) > GRACE_SECONDS]
    if free:
        names = sorted(row["name"] for row in free)
        since = min((row["since"] for row in free if row["since"] is not None), default=None)
        text = f"{_count(len(free), 'trigger')} that no living runner polls: {_named(names)}"
        yield _reason("unpolled", text, len(free), now_us, since, names)
    if late := look(_LATE, [now_us - int(GRACE_SECONDS * 1e6), COUNTED_MAX]):
        names = [row["name"] for row in late]
        text = f"{_count(len(late), 'cron')} whose moment has gone by: {_named(names)}"
        for row in late[:NAMED_MAX]:
            if (unread := of_unread(row["expression"], row["timezone"])) is not None:
                text += f"; {row['name']} {unread}"
                break
        yield _reason("late_cron", text, len(late), now_us, late[0]["since"], names)


def _ends(look: Look, numbers: list[int], now_us: int) -> Iterable[HealthReason]:
    # Without a runner nobody calls anything, which is told already.
    called = [row["name"] for row in look(_CALLED, [json.dumps(numbers)])] if numbers else []
    given = [COUNTED_MAX, now_us - int(WAITING_SECONDS * 1e6), json.dumps(called)]
    untold = look(_UNTOLD, given) if called else []
    if untold:
        names = sorted(row["workflow"] for row in untold)
        many = sum(row["many"] for row in untold)
        text = f"{_count(many, 'end')} of runs whose callbacks are due or don't come back: {_named(names)}"
        yield _reason("callbacks", text, many, now_us, min(row["since"] for row in untold), names)


def _seen(row: dict[str, Any]) -> int | None:
    # Whoever asks does not hang, whatever a clock that was set makes of when it was seen last.
    if row["pid"] == os.getpid() and row["host"] == os.uname().nodename:
        return None
    # One that hangs before it has said anything is silent since it came.
    seen = row["seen_at"] or row["joined_at"]
    return None if seen is None else int(datetime.fromisoformat(seen).astimezone(UTC).timestamp() * 1e6)


def _name(row: dict[str, Any]) -> str:
    return row["name"] or str(row["number"])


def _first(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return rows[0] if rows else None


def _age(since_us: int, now_us: int) -> float:
    return max(0.0, (now_us - since_us) / 1e6)


def _named(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(map(excerpt, names[:NAMED_MAX])) + more


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
