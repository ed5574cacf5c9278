"""Workflows as far as a store knows them: by their runs, and by what fires them."""

from __future__ import annotations

from dataclasses import dataclass

from .. import drawing
from ..near import LOOKED_MAX
from .runners import BACKLOG_RUNS
from .runs import runs
from .store import PAGE_ITEMS, Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..drawing import Node
    from ..types import RunStatus
    from .store import Reader

# The primary key of workflows.
_DECLARED = "SELECT DISTINCT name FROM workflows ORDER BY name LIMIT ?"


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow that has runs.

    Attributes:
        workflow_name (str): its name.
        pending, running (int): so many runs have not begun, and are under way, counted among the oldest
            10,000 that are not over.
        oldest_at (str | None): when the oldest of them was created.
        last_status (str): where its newest run stands.
        last_run_at (str): when that was created.
        last_error (str | None): why that failed.
    """

    workflow_name: str
    pending: int
    running: int
    oldest_at: str | None
    last_status: RunStatus
    last_run_at: str
    last_error: str | None


def workflows(reader: Reader, *, after: str = "", limit: int = PAGE_ITEMS) -> Page[Workflow]:
    """Workflows that have runs, by their names."""
    names = reader.native.workflows(after, limit)
    backlog = reader.native.backlog(BACKLOG_RUNS)
    found = []
    for name in names:
        own = [row for row in backlog if row["workflow"] == name]
        for newest in runs(reader, workflow=name, limit=1):
            found.append(
                Workflow(
                    workflow_name=name,
                    pending=sum(row["pending"] for row in own),
                    running=sum(row["running"] for row in own),
                    oldest_at=min((row["oldest_at"] for row in own), default=None),
                    last_status=newest.status,
                    last_run_at=newest.created_at,
                    last_error=newest.error_message,
                )
            )
    return Page(found, names[-1] if len(names) >= limit else None)


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
