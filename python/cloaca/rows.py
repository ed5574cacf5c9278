"""What the engine's rows look like to the program.

Decides nothing: it renames, and decodes what is JSON.
"""

from __future__ import annotations

from .context import decode_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .types import CronExecutionRow, Outcome, RunDetails, RunRow, TickAnswer, TriggerExecutionRow


def moment(at_us: int) -> str:
    """A moment in microseconds since 1970 as results show it, RFC 3339 in UTC."""
    from datetime import UTC, datetime, timedelta

    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def run(row: dict[str, Any], has_context: bool = True) -> RunRow:
    """A run of a listing."""
    shown: Any = {name: row[name] for name in ("id", "workflow_name", "status", "trigger_name", "run_key")}
    if has_context:
        shown["context"] = decode_value(row["context"])
    shown |= {name: row[name] for name in ("created_at", "started_at", "completed_at", "error_message")}
    found: RunRow = shown
    return found


def run_with_tasks(row: dict[str, Any]) -> RunDetails:
    """A run with what came out of it."""
    final = row["final_context"]
    return {
        **run(row),
        "final_context": None if final is None else decode_value(final),
        "tasks": row["tasks"],
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
