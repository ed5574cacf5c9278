"""The audit list: which changes people made by the page or the command line.

Decides nothing: the store notes a change in the transaction that makes it, in the name that stands here.
Invariant: a name holds for one block on one thread.
"""

from __future__ import annotations

from contextlib import contextmanager

from . import _cloaca
from .errors import excerpt
from .rows import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .keyed import Keyed
    from .types import AuditRow

SQL = """
    SELECT row, at, who, door, place, what, about, many FROM audit
    WHERE (CAST(?1 AS TEXT) IS NULL OR about = ?1 OR about >= ?1 || ', key ' AND about < ?1 || ', key!')
        AND row < coalesce(?2, 9223372036854775807)
    ORDER BY row DESC LIMIT ?3"""
_OF_KEY = ", key "
"""What stands between a workflow and a value of its key that was paused."""
_PARENT = "SELECT parent FROM runs WHERE id = ?1"
CANCELLED = """
    SELECT row, at, who, door, place, what, about, many FROM audit
    WHERE about = ?1 AND what = 'cancel' ORDER BY row DESC LIMIT 1"""
"""By the index of what changes are about."""
FAMILY_MAX = 8
"""So many runs above one that ended with them are looked at."""
NAME_CHARS_MAX = 200


class Acting:
    """What came of a block in which somebody acts.

    Attributes:
        has_changed (bool): once it is over, whether a change was noted: what was so already is none.
    """

    __slots__ = ("has_changed",)

    def __init__(self) -> None:
        self.has_changed = False


@contextmanager
def acting(who: str, door: str, place: str | None = None) -> Iterator[Acting]:
    """What is changed in the block is noted in that name; nothing of it may be put off to another thread."""
    told = Acting()
    _cloaca.work_as((_plain(who), door, None if place is None else _plain(place)))
    try:
        yield told
    finally:
        told.has_changed = _cloaca.work_as(None)


def _plain(text: str) -> str:
    return text[:NAME_CHARS_MAX].encode("utf-8", "replace").decode()


def user() -> str:
    """Who sits at the command line, as the system knows them: `user@host`."""
    import os
    import socket

    try:
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        # A container's user may have no name.
        name = str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "somebody")
    return f"{name}@{socket.gethostname()}"


def found(
    query: Callable[[str, list[Any]], list[dict[str, Any]]],
    about: str | None,
    after: int | None,
    limit: int,
    keyed: Keyed | None = None,
) -> list[tuple[int, AuditRow]]:
    """The changes, newest first, each with its place; those about a workflow are also those about its keys.
    `keyed` knows what may be shown of the values of these."""
    found = query(SQL, [about, after, limit])
    for row in found if keyed is not None else ():
        workflow, of_key, value = row["about"].partition(_OF_KEY)
        if of_key and keyed is not None and row["what"] in ("pause", "resume"):
            row["about"] = f"{workflow}{_OF_KEY}{keyed.shown(workflow, value)}"
    return [(row.pop("row"), _row(row)) for row in found]


def cancelled(
    query: Callable[[str, list[Any]], list[dict[str, Any]]], run: dict[str, Any]
) -> AuditRow | None:
    """Who asked for a run's end by the page or the command line, or for the end of one that started it; of
    one that was opened again since, nobody. `run` has `id status cancel_requested tasks`.
    """
    if run["status"] != "Cancelled" and not run["cancel_requested"]:
        return None
    begun = [tried["started_at"] for task in run["tasks"] for tried in (task, *task.get("tries", ()))]
    above: str | None = run["id"]
    for _ in range(FAMILY_MAX):
        if above is None:
            return None
        if found := query(CANCELLED, [above]):
            row = _row(found[0])
            # Once somebody has asked, nothing begins any more.
            return None if any(at is not None and at > row["at"] for at in begun) else row
        above = next((each["parent"] for each in query(_PARENT, [above])), None)
    return None


def by(who: str, door: str, place: str | None) -> str:
    """Who made a change, in words."""
    where = "at the command line" if door == "cli" else "on the page"
    return f"by {excerpt(who)} {where}{'' if place is None else f', from {excerpt(place)}'}"


def _row(row: dict[str, Any]) -> AuditRow:
    return {
        "at": moment(row["at"]),
        "who": row["who"],
        "door": row["door"],
        "place": row["place"],
        "what": row["what"],
        "about": row["about"],
        "many": row["many"],
    }
