"""What a notebook shows of runs, results, runners and lists. Decides nothing: it asks, escapes and lays out.

Invariant: every text is escaped and bounded, and what cannot be asked for any more is left out, not raised:
to look at a thing never fails.
"""

from __future__ import annotations

import json
from html import escape
from itertools import islice

from . import drawing, picture, registry, timeline
from .picture import LOOKS, Drawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from .result import WorkflowResult
    from .run import Run

ROWS_MAX = 100
"""Of longer lists the rest is counted."""

CHARS_MAX = 200
"""A longer text of a cell is cut."""

TASKS_DRAWN_MAX = 200
"""Of larger workflows only the list is shown."""

_RUN = ("workflow_name", "status", "trigger_name", "created_at", "completed_at", "error_message", "id")
_TASK = ("id", "status", "attempts", "started_at", "completed_at", "error")


def run(shown: Run) -> str:
    """A run: where it stands, its tasks, and when they were under way."""
    from .rows import moment

    try:
        details: Any = shown._runner.get_run(shown.id)
        drawn = "" if details is None else _graph(shown, details)
        now = timeline.moment_of(moment(shown._runner._open().now()))
    except Exception as raised:
        return f"<p>run <code>{_text(shown.id)}</code>: {_text(raised)}</p>"
    if details is None:
        return f"<p>run <code>{_text(shown.id)}</code> is not kept any more</p>"
    head = (
        f"{_state(details['status'])} <b>{_text(details['workflow_name'])}</b> <code>{_text(shown.id)}</code>"
    )
    error = f"<br>{_text(details['error_message'])}" if details["error_message"] else ""
    tasks = table([_named(task) for task in details["tasks"]], _TASK)
    return f"<p>{head}{error}</p>{drawn}{tasks}{timeline.svg(details, now)}"


def result(shown: WorkflowResult) -> str:
    """How a run ended, and the names of what it left: the values may be nobody else's business."""
    error = f"<br>{_text(shown.error_message)}" if shown.error_message else ""
    took = ""
    if shown.end_time is not None:
        begin, end = timeline.moment_of(shown.start_time), timeline.moment_of(shown.end_time)
        took = f" after {timeline.rounded(max(0.0, (end - begin).total_seconds()) * 1e6)}"
    names = ", ".join(
        f"<code>{_text(name)}</code>" for name in islice(shown.final_context.to_dict(), ROWS_MAX)
    )
    return f"<p>{_state(shown.status)}{took}{error}</p><p>final_context: {names or 'empty'}</p>"


def runner(shown: Any) -> str:
    """A runner: what it counted, its triggers, and the newest runs."""
    try:
        counts, triggers = shown.stats(), shown.list_trigger_schedules(limit=ROWS_MAX)
        runs = shown.list_runs(limit=10, contexts=False)
    except Exception as raised:
        return f"<p>{_text(repr(shown))}: {_text(raised)}</p>"
    told = ", ".join(f"{_text(name)} {_text(count)}" for name, count in counts.items() if count)
    parts = [f"<p>{_text(repr(shown))}{': ' + told if told else ''}</p>"]
    if triggers:
        parts.append(table(triggers, [name for name in _columns(triggers) if name != "id"]))
    if runs:
        parts.append(table(runs, _RUN))
    return "".join(parts)


def table(rows: Sequence[Mapping[str, Any]], names: Iterable[str] | None = None) -> str:
    """A list of dicts as a table."""
    columns = list(_columns(rows) if names is None else names)
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(name, row.get(name))}</td>' for name in columns)}</tr>"
        for row in islice(rows, ROWS_MAX)
    )
    more = f"<p>and {len(rows) - ROWS_MAX} more</p>" if len(rows) > ROWS_MAX else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in islice(rows, ROWS_MAX) for name in row))


def _named(task: Mapping[str, Any]) -> dict[str, Any]:
    from .rows import not_kept

    row = dict(task)
    if row["earlier_version"]:
        row["id"] += " (of an earlier version)"
    if row["tries_left_out"]:
        row["attempts"] = f"{row['attempts']} ({not_kept(row['tries_left_out'])})"
    return row


def _graph(shown: Run, details: Mapping[str, Any]) -> str:
    """The run's tasks as a picture, as the version is kept with which it goes on, or else as this program
    declares them."""
    row = shown._runner._open().runs.run(shown.id)
    nodes = drawing.read(None if row is None else row["graph"])
    workflow = registry.workflows.get(details["workflow_name"])
    if not nodes and workflow is not None:
        nodes = drawing.nodes_of(workflow)
    if not 0 < len(nodes) <= TASKS_DRAWN_MAX:
        return ""
    states = {task["id"]: task["status"] for task in details["tasks"]}
    return picture.svg(
        details["workflow_name"],
        [Drawn(node.id, node.dependencies, node.rule, states.get(node.id, "Pending")) for node in nodes],
    )


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name == "status" and isinstance(value, str):
        return _state(value)
    if isinstance(value, dict | list):
        return f"<code>{_text(json.dumps(value, ensure_ascii=False, default=str))}</code>"
    return _text(value)


def _state(status: str) -> str:
    sign, colour, _ = LOOKS.get(status, LOOKS[None])
    return f'<span style="color:{colour}">{sign} {_text(status)}</span>'


def _text(value: object) -> str:
    text = str(value)
    cut = text if len(text) <= CHARS_MAX else text[: CHARS_MAX - 1] + "…"
    return escape("".join(char if char.isprintable() or char in "\n\t" else "�" for char in cut))
