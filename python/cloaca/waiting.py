"""Says what a run that another runner has in hand waits for, from what the store has on record.

Invariant: who is a runner and who is none say the same.
"""

from __future__ import annotations

from . import rows, why_run
from .errors import excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Look = Callable[[str, Sequence[object]], list[dict[str, Any]]]

# Index limit_seats_attempt.
SEATS = """
    SELECT limit_seats.name, task FROM runs JOIN limit_seats ON run = runs.row
    WHERE id = ? AND granted_at IS NULL ORDER BY limit_seats.row LIMIT 20"""
"""The limits for which tasks of a run wait."""
_LINE = (
    "SELECT row, schedule FROM runs WHERE id = ? AND waits AND started_at IS NULL AND completed_at IS NULL"
)
_FIRST = f"SELECT id FROM ({rows.UNFINISHED}) AS line LIMIT 1"
# Index runs_unfinished.
_AHEAD = """
    SELECT count(*) AS many FROM runs
    WHERE completed_at IS NULL AND not_before IS NULL AND schedule = ?1 AND row < ?2"""


def turn(look: Look, run_id: str, trigger: str | None) -> str | None:
    """Behind which run of its trigger it waits for its turn, if it does."""
    for row in look(_LINE, [run_id]):
        ahead = look(_AHEAD, [row["schedule"], row["row"]])[0]["many"]
        first = look(_FIRST, [row["schedule"]])
        if ahead and first and first[0]["id"] != run_id:
            return why_run.of_turn(first[0]["id"], ahead, trigger)
    return None


def child(children: Iterable[tuple[str, str]]) -> str:
    """Which runs came of it that are not over, by their ids and workflows, as the end of a sentence."""
    started = list(children)
    if not started:
        return ""
    (run_id, workflow), more = started[0], len(started) - 1
    others = f" and {more} more, which are not over" if more else ", which is not over"
    return f"; run {run_id} of workflow {excerpt(workflow)} came of it{others}"


def seats(look: Look, limits: Callable[[], list[dict[str, Any]]], run_id: str) -> str:
    """Which limits its tasks wait for, and what keeps them shut, as the end of a sentence."""
    waits = look(SEATS, [run_id])
    if not waits:
        return ""
    by_name = {row["name"]: row for row in limits()}
    known = [by_name[row["name"]] for row in waits if row["name"] in by_name]
    shut = list(dict.fromkeys(words for limit in known for words in why_run.of_limit(limit)))
    tasks = " and ".join(dict.fromkeys(f"task {excerpt(row['task'])}" for row in waits))
    names = " and ".join(dict.fromkeys(f"limit {excerpt(row['name'])}" for row in waits))
    because = f": {', and '.join(shut)}" if shut else ""
    return f"; {tasks} {'waits' if len(waits) == 1 else 'wait'} for a seat of {names}{because}"
