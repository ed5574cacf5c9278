"""Limits with names, and what is paused."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .. import _cloaca, filters, rows
from ..duration import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from ..types import ThrottleRow
    from .store import Reader


KEYS_MAX = 10_000
"""So many values of a workflow's key are looked at."""
RUNS_MAX = 1000
"""In so many runs of a workflow values of its key are looked for, the newest."""

TERMS = "SELECT limits FROM limited WHERE workflow = ?"
# By keys_name.
COUNTED = "SELECT DISTINCT key FROM keys WHERE workflow = ? AND rule < 2 ORDER BY key LIMIT ?"


@dataclass(frozen=True, slots=True)
class Pause:
    """What does not begin for the time being.

    Attributes:
        what (str): `limit`, under which no attempt begins, or `workflow`, of which no run does.
        name (str): which.
        key (str | None): the value of its key, if only what its limits count for that is paused.
        until (str | None): when that ends by itself.
        since, by (str): when it was paused, and by whom.
    """

    what: Literal["limit", "workflow"]
    name: str
    key: str | None
    until: str | None
    since: str
    by: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit with a name.

    Attributes:
        name (str): which.
        concurrency (int | None), throttle (dict | None): what it allows: so many attempts at once, and how
            fast they begin, as `limit`, `per` in seconds and `burst`.
        is_set (bool): whether somebody has set that, in place of what programs declare.
        taken, waiting (int): so many attempts have a seat, and so many wait for one.
        waits_since (str | None): since when the first of those waits.
        next_at (str | None): when the throttle lets the next one begin, if it does not do so now.
        pause (Pause | None): whether it is paused.
    """

    name: str
    concurrency: int | None
    throttle: ThrottleRow | None
    is_set: bool
    taken: int
    waiting: int
    waits_since: str | None
    next_at: str | None
    pause: Pause | None

    @property
    def pace(self) -> str | None:
        """How fast attempts begin under it, as `60 per 1m, burst 10`."""
        if self.throttle is None:
            return None
        burst = "" if self.throttle["burst"] == 1 else f", burst {self.throttle['burst']}"
        return f"{self.throttle['limit']} per {text_of(round(self.throttle['per'] * 1e6))}{burst}"


def limits(reader: Reader) -> list[Limit]:
    """All limits with names that programs ever declared, by name."""
    return [_limit(row) for row in reader.native.limits()]


def pauses(reader: Reader) -> list[Pause]:
    """What is paused, limits first, by name."""
    return [_pause(row) for row in reader.pauses()]


def keys(reader: Reader, workflow: str) -> list[str] | None:
    """The values of a workflow's key that its limits count for now, or that its newest 1,000 runs have, also
    hidden ones; `None` if it has no limit with a key that lets runs wait.
    """
    found = reader.native.query(TERMS, [workflow])
    limits = json.loads(found[0]["limits"]) if found else {}
    terms = [limits.get("concurrency") or {}, limits.get("throttle") or {}]
    paths = {each["key"] for each in terms if each.get("key") is not None}
    if not paths:
        return None
    values = {row["key"] for row in reader.native.query(COUNTED, [workflow, KEYS_MAX])} - {""}
    wanted = {**filters.wanted(workflow, None, None, None, None, None, None, None), "contexts": True}
    wanted["after"] = None
    for row in reader.native.runs(wanted, RUNS_MAX):
        values |= {value for path in paths if (value := _cloaca.key_in(path, row["context"])) is not None}
    return sorted(values)


def _limit(row: dict[str, Any]) -> Limit:
    shown: dict[str, Any] = {**rows.limit(row)}
    return Limit(**{**shown, "pause": None if row["pause"] is None else _pause(row["pause"])})


def _pause(row: dict[str, Any]) -> Pause:
    return Pause(row["kind"], row["name"], row["key"], row["until"], row["since"], row["by"])
