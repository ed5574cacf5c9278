"""Who serves a store."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from .. import rows
from ..errors import excerpt
from ..health import is_silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Literal

    from ..types import RunnerCounts
    from .store import Reader

HOUR_US = 3_600_000_000
RUNNERS_MAX = 1000
"""So many are looked at."""
SILENT_TOLD_MAX = 3
"""So many that have said nothing for long are named."""
BACKLOG_RUNS = 10_000
"""Of so many runs that are not over it is counted whose they are."""

# The primary key of workflows.
_DECLARED = "SELECT name, owner FROM workflows WHERE name IN (SELECT value FROM json_each(?)) ORDER BY owner"


@dataclass(frozen=True, slots=True)
class Runner:
    """A runner that serves the store, or served it.

    Attributes:
        number (int): by which the store knows it, as in `tries` of a run.
        name (str | None): as its program gave it.
        state (str): `living`; `paused`, its program has not let it begin yet; `draining`, it takes nothing
            more, and only waits for what it has; `dead`, its process died and no other runner has noticed
            yet; `left`, it was shut down, or found dead.
        is_silent (bool): whether it lives and works and has said nothing for 30 seconds or longer: its
            process is stopped, hangs, or is kept out of the store.
        works (bool): whether it polls and runs anything, and is no client.
        host, version (str | None), pid (int | None): the machine, the process on it, and the library in that,
            where they are known.
        joined_at (str): when it came.
        seen_at (str | None): when it last said that it polls, which it does every 5 seconds; `None` if it
            has no triggers.
        left_at (str | None): when it left.
        polls (int): so many triggers that are switched on it polls.
        last_hour (RunnerCounts): what it did then, as far as it is on record, which it writes once a minute.
        runs (int): so many runs that are not over are in its hands, counted among the oldest 10,000.
    """

    number: int
    name: str | None
    state: Literal["living", "paused", "draining", "dead", "left"]
    works: bool
    host: str | None
    pid: int | None
    version: str | None
    joined_at: str
    seen_at: str | None
    left_at: str | None
    polls: int
    runs: int
    last_hour: RunnerCounts
    is_silent: bool

    @property
    def standing(self) -> str:
        """The state for people, who are told of a client, and of who says nothing, by these words."""
        if self.is_silent:
            return "silent"
        return "client" if self.state == "living" and not self.works else self.state


def runners(
    reader: Reader, *, left: bool = False, backlog: list[dict[str, Any]] | None = None
) -> list[Runner]:
    """Runners, the newest first; with `left`, also those of the last hundred that left, behind the others.
    A `backlog` that was read already is not read again.
    """
    held = rows.runs_held(reader.native.backlog(BACKLOG_RUNS) if backlog is None else backlog)
    now_us = int(time.time() * 1e6)
    found = reader.native.owners(RUNNERS_MAX, now_us - HOUR_US)
    silent = _silent(found, now_us)
    return [
        Runner(**rows.runner(row, held), is_silent=row["number"] in silent)
        for row in found
        if left or row["left_at"] is None
    ]


def living(reader: Reader) -> set[int]:
    """The numbers of the runners that live and work; who only asks others for that is none of them."""
    return rows.living(reader.native.owners(RUNNERS_MAX))


def living_and_silent(reader: Reader) -> tuple[set[int], set[int]]:
    """The numbers of the runners that live and work, and those of them that have said nothing for long."""
    found = reader.native.owners(RUNNERS_MAX)
    return rows.living(found), _silent(found, int(time.time() * 1e6))


def _silent(owners: list[dict[str, Any]], now_us: int) -> set[int]:
    alive = rows.living(owners)
    return {row["number"] for row in owners if row["number"] in alive and is_silent(row, now_us)}


def of_silent(reader: Reader, numbers: Iterable[int]) -> str:
    """That these runners, which live, have all said nothing for long, as the end of a sentence; nothing if
    one of them has, or there are none."""
    asked, now_us = set(numbers), int(time.time() * 1e6)
    found = [row for row in reader.native.owners(RUNNERS_MAX) if row["number"] in asked] if asked else []
    if not found or not all(is_silent(row, now_us) for row in found):
        return ""
    named = [
        f"runner {row['number']} has said nothing since {row['seen_at'] or row['joined_at']}: is its process"
        f" {row['pid']} on {excerpt(row['host'] or 'this machine')} stopped?"
        for row in found[:SILENT_TOLD_MAX]
    ]
    more = len(found) - len(named)
    return f"; {', and '.join(named)}{f' And {more} more say nothing' if more else ''}"


def declaring(reader: Reader, workflows: Iterable[str], alive: set[int]) -> dict[str, list[int]]:
    """The living runners that declare these workflows, by their numbers; nothing of those that none does."""
    found: dict[str, list[int]] = {}
    for row in reader.native.query(_DECLARED, [json.dumps(list(workflows))]):
        if row["owner"] in alive:
            found.setdefault(row["name"], []).append(row["owner"])
    return found
