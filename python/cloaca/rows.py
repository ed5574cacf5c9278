"""What the engine's rows look like to the program.

Decides nothing: it renames, and decodes what is JSON.
"""

from __future__ import annotations

from .context import decode_value
from .row import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .types import CronExecutionRow, Outcome, RunDetails, RunRow, TickAnswer, TriggerExecutionRow


_ENDS = ("created_at", "started_at", "completed_at", "error_message", "error_type", "cancel_requested")


def moment(at_us: int) -> str:
    """A moment in microseconds since 1970 as results show it, RFC 3339 in UTC."""
    from datetime import UTC, datetime, timedelta

    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def run(row: dict[str, Any], has_context: bool = True) -> RunRow:
    """A run of a listing."""
    found: Any = _run(row, has_context)
    shown: RunRow = found
    return shown


def _run(row: dict[str, Any], has_context: bool) -> Row:
    shown = Row((name, row[name]) for name in ("id", "workflow_name", "status", "trigger_name", "run_key"))
    if has_context:
        shown.keep("context", row["context"])
    for name in _ENDS:
        shown[name] = row[name]
    return shown


def run_with_tasks(row: dict[str, Any], plan: list[str]) -> RunDetails:
    """A run with what came out of it, and those tasks of its plan that are on no record."""
    shown = _run(row, True)
    shown.keep("final_context", row["final_context"])
    known = {task["id"] for task in row["tasks"]}
    shown["tasks"] = row["tasks"] + [_to_come(task_id) for task_id in plan if task_id not in known]
    found: Any = shown
    details: RunDetails = found
    return details


def _to_come(task_id: str) -> dict[str, Any]:
    return {
        "id": task_id,
        "status": "Pending",
        "attempts": 0,
        "error": None,
        "error_type": None,
        "started_at": None,
        "completed_at": None,
        "tries": [],
    }


def cron_execution(schedule_id: str, row: dict[str, Any]) -> CronExecutionRow:
    """A run as one of a cron's slots."""
    return {
        "id": row["id"],
        "schedule_id": schedule_id,
        "scheduled_time": row["scheduled_time"],
        "claimed_at": row["created_at"],
        "workflow_execution_id": row["id"],
        "created_at": row["created_at"],
        "updated_at": row["completed_at"] or row["created_at"],
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


def tick(ruling: Any) -> TickAnswer:
    """What a poll out of turn decided."""
    if isinstance(ruling, str):
        ruling = [], None, ruling, None, None
    elif len(ruling) == 2:
        ruling = [], None, ruling[0], None, None
    fires, cursor, reason, error, _ = ruling
    if cursor is None:
        cursor = next((own for *_, own, _ in reversed(fires) if own is not None), None)
    outcome: Outcome = "error" if error is not None else "fire" if fires else "skip"
    return {
        "outcome": outcome,
        "reason": error if error is not None else reason or None,
        "fires": [{"context": decode_value(text), "run_key": key} for text, key, *_ in fires],
        "cursor": None if cursor is None else decode_value(cursor),
    }
