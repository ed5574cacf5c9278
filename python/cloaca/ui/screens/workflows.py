"""Workflows: all that have runs, and one."""

from __future__ import annotations

from ... import registry, why_run
from ...reading import MissingError, graph, lasted
from ...reading import runs as list_runs
from ...reading import workflows as list_workflows
from ...reading.store import unknown
from .. import show
from ..graph import dag
from .screen import Ask, Screen

ROWS = 50
RUNS = 25


def workflows(ask: Ask) -> Screen:
    """All of them, by their names."""
    page = list_workflows(ask.reader, after=ask.value("after") or "", limit=ROWS)
    more = None if page.after is None else show.link(ask.root, "/workflows", after=page.after)
    values = {"ask": ask, "root": ask.root, "items": page.items, "more": more}
    return Screen("Workflows", "workflows.html", values, nav="workflows")


def workflow(ask: Ask) -> Screen:
    """One of them: its graph, how long its tasks take, its last runs."""
    name = ask.needed("name")
    items = list_runs(ask.reader, workflow=name, limit=RUNS).items
    drawn = dag(name, graph(ask.reader, name))
    if not items and drawn is None:
        raise _missing(ask, name)
    times = lasted(ask.reader, name)
    pauses = [row for row in ask.reader.pauses() if (row["kind"], row["name"]) == ("workflow", name)]
    top = max((each.p95_us for each in times), default=1) or 1
    values = {
        "ask": ask,
        "root": ask.root,
        "name": name,
        "pauses": [(row, why_run.of_pause(row)) for row in pauses],
        "is_paused": any(row["key"] is None for row in pauses),
        "dag": drawn,
        "times": [
            (each, show.bar([(0, each.p95_us / top, "soft", ""), (0, each.p50_us / top, "busy", "")], ""))
            for each in times
        ],
        "runs": items,
    }
    return Screen(f"Workflow {show.line(name, 60)}", "workflow.html", values, nav="workflows")


def _missing(ask: Ask, name: str) -> MissingError:
    native = ask.reader.native
    known = {*native.workflows("", 1000), *native.graphs("", 1000), *registry.names()}
    return unknown("workflow", name, "workflows", sorted(known))
