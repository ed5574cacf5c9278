"""Runs whose work another run does again: who opens all that failed again is not to do it twice.

Invariant: a run is never left out because of one that is gone.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# Index runs_parent.
_REPEATS = """
    SELECT parent, id FROM runs
    WHERE parent IS NOT NULL AND again AND parent IN (SELECT value FROM json_each(?)) ORDER BY created_at"""


def repeats(look: Callable[..., list[dict[str, Any]]], ids: Sequence[str]) -> dict[str, str]:
    """Of these runs those whose work is done again, each with the newest that does it."""
    return {row["parent"]: row["id"] for row in look(_REPEATS, [json.dumps(list(ids))])}


def repeated(run_id: str, by: str) -> str:
    """Why a run is left out."""
    return f"run {by} does the work of run {run_id} again; retry this one by its id to do it all the same"
