"""One run."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ...reading import changed
from ...reading import logs as read_logs
from ...reading import run as read_run
from ...reading.store import moment_of, now
from ...reading.why import of_run
from ...rows import CALLBACKS, TRIES_FIRST, not_kept
from .. import contexts, show
from ..graph import dag
from .screen import Ask, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

    from markupsafe import Markup

    from ...reading import Changed, Run, RunDetails, Task

TASKS_MAX = 500
"""So many tasks are shown."""
LINES_MAX = 500
"""So many lines of its log are shown."""
PARENT_WORDS = {
    "task": "task",
    "callback": "a callback of",
    "end": ", told of the end of",
    "again": "a submit, to do the work again of",
    "given": "a submit or a fire, as part of",
}
"""How a run came of its parent."""


@dataclass(frozen=True, slots=True)
class Row:
    """A task as it is shown.

    Attributes:
        task (Task): the task.
        bar (Markup): when its attempts ran.
        seconds (float | None): how long it took, its waits included.
        changes (list): what it changed of its context: a sign, the key, the value.
    """

    task: Task
    bar: Markup
    seconds: float | None
    changes: list[tuple[str, str, str]]


def run(ask: Ask) -> Screen:
    """What a run does or did."""
    details = read_run(ask.reader, ask.needed("id"))
    found = details.run
    start, end = _bounds(details)
    shown = details.tasks[:TASKS_MAX]
    changes = changed(details)
    logs = read_logs(ask.reader, found.id, limit=LINES_MAX + 1)
    is_over, name = found.completed_at is not None, found.workflow_name
    values = {
        "ask": ask,
        "root": ask.root,
        "run": found,
        "details": details,
        "callback_names": CALLBACKS,
        "parent_words": PARENT_WORDS,
        "tries_first": TRIES_FIRST,
        "not_kept": not_kept,
        "why": of_run(ask.reader, details),
        "rows": [_row(task, details, start, end, changes.get(task.id, [])) for task in shown],
        "tasks_more": len(details.tasks) - len(shown),
        "lines": logs.lines[-LINES_MAX:],
        "has_more_lines": len(logs.lines) > LINES_MAX,
        "lines_left_out": logs.left_out,
        "dag": dag(name, details.graph, {task.id: task.status for task in details.tasks}),
        "context_in": contexts.shown(found.context),
        "context_out": contexts.shown(details.final_context) if is_over else None,
        "changes": contexts.changes(found.context, details.final_context) if is_over else [],
        "waited": show.between(_ready_at(found), found.started_at) if found.started_at else None,
        "ready_at": _ready_at(found),
        "is_delayed": found.started_at is None and moment_of(_ready_at(found)) > now(),
        "can_cancel": ask.can_act and not is_over and not found.cancel_requested,
        "can_tell": ask.can_act and any(call.begun_at is None for call in details.callbacks),
        "can_again": ask.can_act and is_over,
        "can_retry": ask.can_act and found.status in ("Failed", "Cancelled"),
        "whole": (end - start).total_seconds(),
    }
    return Screen(
        f"Run {found.id[:8]} of {show.line(found.workflow_name, 60)}", "run.html", values, nav="runs"
    )


def context(ask: Ask) -> Screen:
    """A context as a file."""
    details = read_run(ask.reader, ask.needed("id"))
    part = ask.needed("part")
    value = details.run.context if part == "in" else details.final_context
    text = json.dumps(value, indent=2, ensure_ascii=False)
    name = f"{details.run.id}-{'in' if part == 'in' else 'out'}.json"
    return Screen(name, "", attachment=text.encode("utf-8", "replace").decode())


def _ready_at(found: Run) -> str:
    """Since when it could begin."""
    return max(found.created_at, found.due_at or "")


def _bounds(details: RunDetails) -> tuple[datetime, datetime]:
    start = moment_of(details.run.created_at)
    stamps = [details.run.completed_at] + [task.completed_at for task in details.tasks]
    ends = [moment_of(stamp) for stamp in stamps if stamp is not None]
    end = max(ends, default=start) if details.run.completed_at is not None else now()
    return start, max(start, end)


def _row(task: Task, details: RunDetails, start: datetime, end: datetime, changes: list[Changed]) -> Row:
    whole = max((end - start).total_seconds(), 0.001)

    def at(stamp: str | None) -> float:
        return 1.0 if stamp is None else (moment_of(stamp) - start).total_seconds() / whole

    parts: list[tuple[float, float, str, str]] = []
    last: float | None = None
    for place, tried in enumerate(task.tries):
        began = at(tried.started_at or tried.ended_at)
        if place == TRIES_FIRST and task.tries_left_out and last is not None:
            parts.append((last, began, "wait", not_kept(task.tries_left_out)))
        elif last is not None and began > last:
            parts.append((last, began, "wait", "waits for its next attempt"))
        last = at(tried.ended_at)
        took = show.span(show.between(tried.started_at, tried.ended_at)) if tried.started_at else "?"
        words = f"attempt {tried.number}: {tried.outcome}, {took}"
        parts.append((began, last, show.colour(tried.outcome), words))
    if task.completed_at is None and task.status == "Running":
        if task.waits_until:
            parts.append((last or at(task.started_at), 1.0, "wait", "waits for its next attempt"))
        elif task.waits_since:
            words = f"attempt {task.attempts}: waits without a slot"
            parts.append((at(task.started_at), at(task.waits_since), "busy", f"attempt {task.attempts}"))
            parts.append((at(task.waits_since), 1.0, "wait", words))
        elif len(task.tries) < task.attempts:
            parts.append((at(task.started_at), 1.0, "busy", f"attempt {task.attempts}: under way"))
    elif not parts and task.started_at is not None:
        words = f"{task.status}, {show.span(show.between(task.started_at, task.completed_at))}"
        parts.append((at(task.started_at), at(task.completed_at), show.colour(task.status), words))
    # What is short stands in front of what is long.
    parts.sort(key=lambda part: part[2] != "wait")
    began_at = task.tries[0].started_at if task.tries else task.started_at
    seconds = show.between(began_at, task.completed_at) if began_at else None
    told = f"{show.line(task.id)}: {'; '.join(words for *_, words in parts[:20]) or task.status}"
    return Row(task, show.bar(parts, told), seconds, contexts.of_task(changes))
