"""Contexts as they are shown: as text, and as what has changed in them.

Invariant: what comes here was read by `cloaca.reading` or told by a runner, which hide what is to be hidden.
"""

from __future__ import annotations

from . import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..reading import Changed

CHANGES_MAX = 30
"""So many changes are told."""


def shown(value: Any) -> str:
    """A context as text in lines."""
    return show.lines(show.as_json(value))


def changes(before: Any, after: Any) -> list[tuple[str, str, str]]:
    """What is new, other or gone in the upper level of a context: a sign, the key, the value."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    found: list[tuple[str, str, Any]] = [
        ("+", key, value) for key, value in after.items() if key not in before
    ]
    found += [("~", key, value) for key, value in after.items() if key in before and before[key] != value]
    found += [("-", key, value) for key, value in before.items() if key not in after]
    return _told(found)


def of_task(changed: list[Changed]) -> list[tuple[str, str, str]]:
    """What a task changed, likewise."""
    return _told([(each.sign, each.key, each.before if each.sign == "-" else each.after) for each in changed])


def _told(found: list[tuple[str, str, Any]]) -> list[tuple[str, str, str]]:
    told = [(sign, show.line(key, 60), show.short(value)) for sign, key, value in found[:CHANGES_MAX]]
    more = len(found) - len(told)
    return [*told, ("", f"and {more:,} more", "")] if more > 0 else told
