"""What is kept of a workflow for who looks at its runs without the program: its tasks, what each waits for,
and its rule. Invariant: what a later release has written in another form is left out, and breaks nothing.
"""

from __future__ import annotations

import json
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .workflow import Workflow


class Node(NamedTuple):
    """A task of a workflow."""

    id: str
    dependencies: list[str]
    """The ids of those that it waits for."""
    rule: Any
    """Its trigger rule as plain data, if it has one."""


def nodes_of(workflow: Workflow) -> list[Node]:
    """A workflow's tasks, each after those that it waits for."""
    tasks = {task.id: task for task in workflow._tasks}
    ordered = [tasks[task_id] for task_id in workflow._plan()]
    return [Node(task.id, list(task.dependencies), task.rule) for task in ordered]


def written(workflow: Workflow) -> str:
    """The same as text."""
    return json.dumps(nodes_of(workflow), separators=(",", ":"))


def read(text: str | None) -> list[Node]:
    """What was written; nothing, if that was nothing."""
    try:
        found = json.loads(text or "[]")
        return [Node(task_id, list(dependencies), rule) for task_id, dependencies, rule, *_ in found]
    except (ValueError, TypeError):
        return []
