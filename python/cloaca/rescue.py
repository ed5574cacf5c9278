"""What a runner saved of a store that was taken from under it. Whoever opens one beside it is told."""

from __future__ import annotations

import os

RESCUES_MAX = 100
"""So many are kept beside one store, the last one with the highest number."""


def left_beside(path: str) -> tuple[str, str] | None:
    """What lies beside the store at `path`, and what to do about it; nothing if nothing does."""
    names = [f"{path}-rescue", *(f"{path}-rescue-{number}" for number in range(2, RESCUES_MAX + 1))]
    rescue = next((name for name in reversed(names) if os.path.exists(name)), None)
    if rescue is None:
        return None
    return (
        f"beside the store lies '{rescue}', what a runner still saw of one that was deleted, moved or"
        " replaced under it",
        f"to go on with that one, end every program of this store, move '{path}' away, delete '{path}-wal'"
        f" and '{path}-shm', and rename it to '{path}'; to go on with this one, move it elsewhere",
    )
