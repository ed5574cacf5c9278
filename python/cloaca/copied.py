"""Says what happens when a copy of a store is opened: it goes on where the original was, and so may that.

Invariant: a store that somebody has served since it was copied is no copy any more.
"""

from __future__ import annotations

from .errors import RunnerError, StoreError
from .rows import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_COUNTED_MAX = 10_000
"""Of more than so many it is only said that they are more."""

# Who has lived for ten seconds has said so, and who has left well. Who came before `?1` may not have, but was
# told: of several that open it together, or one after the other's death, the first one is.
_COPY = """
    SELECT made.value AS at FROM meta AS made JOIN meta AS last ON last.name = 'copied_after'
    WHERE made.name = 'copied_at' AND NOT EXISTS (
        SELECT 1 FROM owners
        WHERE epoch > last.value AND epoch <> ?1 AND works AND NOT paused
            AND (seen_at IS NOT NULL OR epoch < ?1))"""

# Indices runs_unfinished, runs_delayed, schedules_crons.
_GOES_ON = """
    SELECT
        (SELECT count(*) FROM (SELECT 1 FROM runs WHERE completed_at IS NULL LIMIT ?1) AS many) AS runs,
        (SELECT count(*) FROM (SELECT 1 FROM schedules WHERE kind = 'trigger' AND enabled LIMIT ?1) AS many)
            AS triggers,
        (SELECT count(*) FROM (SELECT 1 FROM schedules WHERE kind = 'cron' AND enabled LIMIT ?1) AS many)
            AS crons"""


def told(engine: Any, *, paused: bool) -> str | None:
    """What to say of a store that is a copy and that nobody has served since, or began to; `None` of any
    other."""
    try:
        at_us = made_at(engine.store.look, engine.runs.owner())
        if at_us is None:
            return None
        (counts,) = engine.store.look(_GOES_ON, [_COUNTED_MAX + 1])
    except (StoreError, RunnerError):
        # It is no reason not to open it.
        return None
    if not any(counts.values()):
        return None
    parts = (
        _counted(counts["runs"], "unfinished run"),
        _counted(counts["triggers"], "trigger"),
        _counted(counts["crons"], "cron"),
    )
    when = "once resume() is called" if paused else "from now on"
    return (
        f"this store is a copy, made at {moment(at_us)}, and goes on from there {when}:"
        f" {', '.join(parts)}, each if its program is here. If the original is served too, both do the same"
        " work"
    )


def made_at(look: Callable[[str, list[Any]], list[dict[str, Any]]], own: int = 0) -> int | None:
    """When a store was made as a copy that nobody has served since, nor opened to serve it before the runner
    `own`; `None` of any other store."""
    found = look(_COPY, [own])
    return found[0]["at"] if found else None


def described(at_us: int) -> str:
    """What there is to say of such a store to who looks at it."""
    return (
        f"this store is a copy, made at {moment(at_us)}, and nobody has served it since: who served the"
        " original is not looked for"
    )


def _counted(count: int, what: str) -> str:
    if count > _COUNTED_MAX:
        return f"more than {_COUNTED_MAX} {what}s"
    return f"{count} {what}{'' if count == 1 else 's'}"
