"""Workflows as far as a store knows them: by their runs, and by who declares them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .. import drawing
from ..near import LOOKED_MAX
from .runners import BACKLOG_RUNS, declaring, living
from .runs import runs
from .store import PAGE_ITEMS, Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..drawing import Node
    from ..types import RunStatus
    from .store import Reader

# The primary key of workflows.
_DECLARED = "SELECT DISTINCT name FROM workflows ORDER BY name LIMIT ?"
_DECLARED_NOW = """
    SELECT DISTINCT name FROM workflows
    WHERE name > ? AND owner IN (SELECT value FROM json_each(?)) ORDER BY name LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow that has runs, or that a living runner declares.

    Attributes:
        workflow_name (str): its name.
        pending, running (int): so many runs have not begun, and are under way, counted among the oldest
            10,000 that are not over.
        delayed (int): so many more wait for their time, counted among the next 10,000.
        oldest_at (str | None): when the oldest of those that do not was created.
        last_status (str | None): where its newest run stands; `None` if it has none.
        last_run_at (str | None): when that was created.
        last_error (str | None): why that failed.
        runners (list[int]): the living runners that declare it, by their numbers.
        paused (bool): whether none of its runs begins for the time being.
        paused_keys (list[str]): for which values of its key that is so.
    """

    workflow_name: str
    pending: int
    running: int
    delayed: int
    oldest_at: str | None
    last_status: RunStatus | None
    last_run_at: str | None
    last_error: str | None
    runners: list[int]
    paused: bool
    paused_keys: list[str]


def workflows(reader: Reader, *, after: str = "", limit: int = PAGE_ITEMS) -> Page[Workflow]:
    """Workflows that have runs, or that a living runner declares, by their names."""
    native, alive = reader.native, living(reader)
    declared = native.query(_DECLARED_NOW, [after, json.dumps(sorted(alive)), limit])
    names = sorted({*native.workflows(after, limit), *(row["name"] for row in declared)})[:limit]
    backlog, pauses = native.backlog(BACKLOG_RUNS), reader.pauses()
    serving = declaring(reader, names, alive)
    found = [_workflow(reader, name, backlog, pauses, serving.get(name, [])) for name in names]
    return Page(found, names[-1] if len(names) >= limit else None)


def workflow(reader: Reader, name: str) -> Workflow:
    """One of them, also one that has no run and that nobody declares."""
    serving = declaring(reader, [name], living(reader)).get(name, [])
    backlog = reader.native.backlog(BACKLOG_RUNS)
    return _workflow(reader, name, backlog, reader.pauses(), serving)


def _workflow(
    reader: Reader,
    name: str,
    backlog: list[dict[str, Any]],
    pauses: list[dict[str, Any]],
    serving: list[int],
) -> Workflow:
    own = [row for row in backlog if row["workflow"] == name]
    newest = next(iter(runs(reader, workflow=name, limit=1)), None)
    keys = [row["key"] for row in pauses if row["kind"] == "workflow" and row["name"] == name]
    return Workflow(
        workflow_name=name,
        pending=sum(row["pending"] for row in own),
        running=sum(row["running"] for row in own),
        delayed=sum(row["delayed"] for row in own),
        oldest_at=min((row["oldest_at"] for row in own if not row["delayed"]), default=None),
        last_status=None if newest is None else newest.status,
        last_run_at=None if newest is None else newest.created_at,
        last_error=None if newest is None else newest.error_message,
        runners=serving,
        paused=None in keys,
        paused_keys=[key for key in keys if key is not None],
    )


def workflow_names(reader: Reader) -> list[str]:
    """The names of workflows that have runs, or that some program declares or declared."""
    native = reader.native
    declared = [row["name"] for row in native.query(_DECLARED, [LOOKED_MAX])]
    return sorted({*native.workflows("", LOOKED_MAX), *native.graphs("", LOOKED_MAX), *declared})


def graph(reader: Reader, workflow: str) -> list[Node]:
    """The tasks of a workflow as the newest runner declares it, or else as its newest run was executed, each
    after those that it waits for; none if that is not kept.
    """
    return drawing.read(reader.native.graph(workflow))
