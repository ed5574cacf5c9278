"""What the engine's rows look like to the program.

Decides nothing: it renames, and decodes what is JSON.
"""

from __future__ import annotations

from .context import decode_value
from .row import Row

# By schedules_cron_name, schedules_trigger, and the primary keys of `declared` and `owners`.
_IS_POLLED = "EXISTS (SELECT 1 FROM owners WHERE epoch = {}.owner AND left_at IS NULL)"
_IS_DECLARED = """EXISTS (
    SELECT 1 FROM declared JOIN owners ON epoch = declared.owner AND left_at IS NULL
    WHERE declared.name = {0}.name AND declared.version = {0}.version)"""
# The one that has served the name last is not stale. A cron that was made after the trigger was taken over
# last may have had no moment yet. Versions tell nothing: a deploy that goes back declares an old one.
_CRON_WAS_LAST = "({0}.stale OR {1}.created_at > coalesce({0}.taken_at, 0))"
CRON_BY_NOW = f"""
    (NOT {_IS_POLLED.format("schedules")} AND EXISTS (SELECT 1 FROM schedules AS cron
        WHERE cron.kind = 'cron' AND cron.name = schedules.name AND cron.name <> ''
            AND cron.declared_as IS NOT NULL AND NOT cron.registered
            AND ({_IS_DECLARED.format("cron")} OR {_CRON_WAS_LAST.format("schedules", "cron")})))"""
"""Whether the row of a trigger is left from before a deploy made its name a cron, or before that was undone.
While somebody polls it, it is."""
TRIGGER_BY_NOW = f"""
    (schedules.declared_as IS NOT NULL AND NOT schedules.registered AND NOT {_IS_DECLARED.format("schedules")}
        AND EXISTS (SELECT 1 FROM schedules AS polled
            WHERE polled.kind = 'trigger' AND polled.name = schedules.name
                AND ({_IS_POLLED.format("polled")} OR NOT {_CRON_WAS_LAST.format("polled", "schedules")})))"""
"""The same of the row of a declared cron, whose name is a trigger's by now."""

# By the indices of unfinished runs, oldest first, as they stand in line.
UNFINISHED = """
    SELECT id, context_hash FROM (
        SELECT row, id, context_hash FROM runs INDEXED BY runs_unfinished
        WHERE completed_at IS NULL AND not_before IS NULL AND schedule = ?1
        UNION ALL
        SELECT row, id, context_hash FROM runs INDEXED BY runs_delayed_fires
        WHERE completed_at IS NULL AND not_before IS NOT NULL AND schedule = ?1
    ) AS found ORDER BY row"""
"""The unfinished runs of a trigger, with what they guard."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from .hidden import Secrets
    from .redact import Mask
    from .types import (
        CronExecutionRow,
        GateRow,
        GateVerdict,
        LimitRow,
        Outcome,
        PauseRow,
        RunDetails,
        RunnerRow,
        RunRow,
        TickAnswer,
        TriggerExecutionRow,
    )


_BEGINS = (
    "id",
    "workflow_name",
    "status",
    "trigger_name",
    "run_key",
    "parent_run",
    "parent_task",
    "parent_kind",
)
_ENDS = (
    "priority",
    "due_at",
    "created_at",
    "started_at",
    "completed_at",
    "took_seconds",
    "lain_seconds",
    "error_message",
    "error_type",
    "cancel_requested",
)

PAUSED_NAMED = 3
"""So many runners that are paused are named."""
HANDED_ON_SECONDS = 1.0
"""What a shutdown has to leave behind has its new number within so long."""
TRIES_FIRST = 3
"""So many of a task's first attempts are kept, whatever is left out behind them."""
CALLBACKS = {"Completed": "on_success", "Failed": "on_failure", "Cancelled": "on_cancel"}
"""Which callback of a workflow is for which end of its runs."""


def moment(at_us: int) -> str:
    """A moment in microseconds since 1970 as results show it, RFC 3339 in UTC."""
    from datetime import UTC, datetime, timedelta

    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def limit(row: dict[str, Any]) -> LimitRow:
    """A limit with a name."""
    terms, held = row["terms"], row["pause"]
    throttle = terms["throttle"]
    return {
        "name": row["name"],
        "concurrency": terms["concurrency"],
        "throttle": None
        if throttle is None
        else {"limit": throttle[0], "per": throttle[1] / 1_000_000, "burst": throttle[2]},
        "is_set": row["is_set"],
        "taken": row["taken"],
        "waiting": row["waiting"],
        "waits_since": row["waits_since"],
        "next_at": row["next_at"],
        "pause": None if held is None else pause(held),
    }


def pause(row: dict[str, Any]) -> PauseRow:
    """What is held up."""
    return {name: row[name] for name in ("kind", "name", "key", "until", "since", "by")}  # type: ignore[return-value]


def run(
    row: dict[str, Any],
    has_context: bool = True,
    mask: Mask | None = None,
    of_run: Callable[[Mask | None, str], Secrets] | None = None,
) -> RunRow:
    """A run of a listing, without what is hidden of it; ``of_run`` knows what that is in its texts."""
    found: Any = _run(row, has_context, mask)
    if mask is not None and of_run is not None and found["error_message"] is not None:
        _hide(found, ("error_message", "error_type"), of_run(mask, row["id"]))
    shown: RunRow = found
    return shown


def _run(row: dict[str, Any], has_context: bool, mask: Mask | None) -> Row:
    shown = Row((name, row[name]) for name in _BEGINS)
    if has_context:
        shown.keep("context", row["context"], mask)
    for name in _ENDS:
        shown[name] = row[name]
    return shown


def run_with_tasks(
    row: dict[str, Any], plan: list[str], mask: Mask | None = None, secrets: Secrets | None = None
) -> RunDetails:
    """A run with what came out of it, and with its `tasks`; `plan` are their names where none are kept."""
    from .drawing import read

    found_tasks = tasks(row, [node.id for node in read(row["graph"])], plan)
    shown = _run(row, True, mask)
    shown.keep("final_context", row["final_context"], mask)
    if secrets is not None:
        _hide(shown, ("error_message", "error_type"), secrets)
        for task in found_tasks:
            _hide(task, ("error", "error_type"), secrets)
            for attempt in task["tries"]:
                _hide(attempt, ("error", "error_type", "traceback"), secrets)
        last = row["last_callback"]
        for call in [*row["callbacks"], *([] if last is None else [last])]:
            _hide(call, ("error",), secrets)
    shown["tasks"] = found_tasks
    shown["children"] = row["children"]
    shown["callbacks"] = row["callbacks"]
    shown["trace_id"] = trace_id(row["trace"])
    shown["last_callback"] = row["last_callback"]
    found: Any = shown
    details: RunDetails = found
    return details


def trace_id(kept: str | None) -> str | None:
    """The trace of what is kept of whoever asked for a run, https://www.w3.org/TR/trace-context/; `None`
    where another propagator than the W3C's has written that.
    """
    if kept is None:
        return None
    found = decode_value(kept).get("traceparent")
    parts = found.split("-") if isinstance(found, str) else ()
    return parts[1] if len(parts) >= 4 else None


def tasks(row: dict[str, Any], kept: list[str], plan: list[str]) -> list[dict[str, Any]]:
    """The tasks of a run: those on record; those of which no more is left than what they tried, as the
    version with which it goes on has no such task; and of one that is not over, those to come. `kept` are
    the names of that version, if it is known, and `plan` is what else is taken for them.
    """
    found: list[dict[str, Any]] = row["tasks"]
    known, former = {task["id"] for task in found}, {task["id"]: task for task in row["former"]}
    to_come = []
    if row["completed_at"] is None:
        to_come = [_to_come(name, former.pop(name, None)) for name in kept or plan if name not in known]
    found = [*found, *map(_undone, former.values()), *to_come]
    for task in found:
        task["earlier_version"] = bool(kept) and task["id"] not in kept
    return found


def _hide(texts: dict[str, Any], names: tuple[str, ...], secrets: Secrets) -> None:
    for name in names:
        texts[name] = secrets.hide_maybe(texts[name])


def not_kept(many: int) -> str:
    """What is said of attempts that are left out."""
    return f"{many:,} attempt{'' if many == 1 else 's'} between, of which no more is kept"


def _undone(former: dict[str, Any]) -> dict[str, Any]:
    """A task of which there is no record any more, as its attempts tell it."""
    first, last = _last_life(former), former["tries"][-1]
    has_failed = last["outcome"] in ("Failed", "TimedOut")
    return {
        **_to_come(former["id"], former),
        "status": "Failed" if has_failed else "Skipped",
        "attempts": last["number"],
        "error": last["error"],
        "error_type": last["error_type"],
        "started_at": first["started_at"],
        "completed_at": last["ended_at"],
    }


def _last_life(former: dict[str, Any]) -> dict[str, Any]:
    """The first attempt since the run was last opened again, after which they are counted anew."""
    tries, left_out = former["tries"], former["tries_left_out"]
    first: dict[str, Any] = tries[-1]
    for earlier in reversed(tries[:-1]):
        if first["number"] - earlier["number"] not in (1, left_out + 1):
            break
        first = earlier
    return first


def _to_come(task_id: str, former: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": task_id,
        "status": "Pending",
        "attempts": 0,
        "error": None,
        "error_type": None,
        "started_at": None,
        "completed_at": None,
        "waits_until": None,
        "waits_since": None,
        "overdue_since": None,
        "tries": [] if former is None else former["tries"],
        "tries_left_out": 0 if former is None else former["tries_left_out"],
    }


def cron_execution(schedule_id: str, row: dict[str, Any]) -> CronExecutionRow:
    """A run as one of a cron's moments."""
    return {
        "id": row["id"],
        "schedule_id": schedule_id,
        # Of several runs of a moment one names it; the others have it in their contexts.
        "scheduled_time": row["scheduled_time"] or decode_value(row["context"])["scheduled_time"],
        "claimed_at": row["created_at"],
        "workflow_execution_id": row["id"],
        "created_at": row["created_at"],
        "updated_at": row["completed_at"] or row["created_at"],
    }


def runs_held(backlog: list[dict[str, Any]]) -> dict[int | None, int]:
    """How many runs are in whose hands."""
    held: dict[int | None, int] = {}
    for row in backlog:
        held[row["owner"]] = held.get(row["owner"], 0) + row["pending"] + row["running"]
    return held


def living(owners: list[dict[str, Any]]) -> set[int]:
    """The numbers of the runners that live and work; who only asks others for that is none of them."""
    return {row["number"] for row in owners if row["works"] and state_of(row) in ("living", "draining")}


def paused(owners: list[dict[str, Any]]) -> set[int]:
    """The numbers of those that are open and that their programs have not let begin yet."""
    return {row["number"] for row in owners if state_of(row) == "paused"}


def of_paused(owners: list[dict[str, Any]], besides: int | None = None) -> str:
    """That there are runners which are paused, but for `besides`, and what has them begin, as the end of a
    sentence about what nobody serves; nothing if there is none. What they will declare is not known."""
    waiting = sorted(paused(owners) - {besides})
    if not waiting:
        return ""
    named = (
        f"{', '.join(map(str, waiting[:PAUSED_NAMED]))}{' and more' if len(waiting) > PAUSED_NAMED else ''}"
    )
    are = (
        f"runner {named} is paused, and declares"
        if len(waiting) == 1
        else f"runners {named} are paused, and declare"
    )
    return f"; {are} nothing until resume() is called"


def state_of(row: dict[str, Any]) -> Literal["living", "paused", "draining", "dead", "left"]:
    """Where a runner stands."""
    if row["left_at"] is not None:
        return "left"
    if row["is_dead"]:
        return "dead"
    return "draining" if row["is_draining"] else "paused" if row["is_paused"] else "living"


def cut_off(owners: list[dict[str, Any]]) -> set[int]:
    """The dead ones that are no more than what a shutdown left behind: a body outlasted it, so its run stayed
    in the hands of its process, under a number of its own, until that ended.
    """
    from datetime import datetime

    left = {
        (row["host"], row["pid"]): datetime.fromisoformat(row["left_at"])
        for row in reversed(owners)
        if row["left_at"] is not None and row["pid"] is not None
    }
    found = set()
    for row in owners:
        shut_at = left.get((row["host"], row["pid"])) if row["is_dead"] and row["left_at"] is None else None
        if shut_at is not None:
            between = datetime.fromisoformat(row["joined_at"]) - shut_at
            if abs(between.total_seconds()) < HANDED_ON_SECONDS:
                found.add(row["number"])
    return found


def runner(row: dict[str, Any], held: dict[int | None, int]) -> RunnerRow:
    """A runner of the store."""
    return {
        "number": row["number"],
        "name": row["name"],
        "state": state_of(row),
        "works": row["works"],
        "host": row["host"],
        "pid": row["pid"],
        "version": row["version"],
        "joined_at": row["joined_at"],
        "seen_at": row["seen_at"],
        "left_at": row["left_at"],
        "polls": row["polls"],
        "runs": held.get(row["number"], 0),
        "last_hour": row["counts"],
    }


def trigger_execution(schedule_id: str, row: dict[str, Any]) -> TriggerExecutionRow:
    """A run as one of a trigger's fires."""
    return {
        "id": row["id"],
        "schedule_id": schedule_id,
        "context_hash": row["context_hash"],
        "workflow_execution_id": row["id"],
        "started_at": row["started_at"],
        "completed_at": row["completed_at"],
        "created_at": row["created_at"],
    }


def gate(verdict: GateVerdict, run: str | None, reason: str) -> GateRow:
    """What the gate would do with a fire."""
    return {"verdict": verdict, "run": run, "reason": reason or None}


def asks_again(ruling: Any) -> bool:
    """Whether what decided asks for a wait before it is called again."""
    return not isinstance(ruling, str) and (ruling[1] if len(ruling) == 2 else ruling[4]) is not None


def tick(ruling: Any) -> TickAnswer:
    """What a poll out of turn decided."""
    if isinstance(ruling, str):
        ruling = [], None, ruling, None, None
    elif len(ruling) == 2:
        ruling = [], None, ruling[0], None, None
    fires, cursor, reason, error, *_ = ruling
    if cursor is None:
        cursor = next((own for _, _, _, own, *_ in reversed(fires) if own is not None), None)
    outcome: Outcome = "error" if error is not None else "fire" if fires else "skip"
    return {
        "outcome": outcome,
        "reason": error if error is not None else reason or None,
        "fires": [{"context": decode_value(text), "run_key": key} for text, key, *_ in fires],
        "cursor": None if cursor is None else decode_value(cursor),
    }
