"""A workflow's graph as it is shown: the one place where the page has it drawn.

Invariant: what is not declared in this process has no graph here; the store keeps none.
"""

from __future__ import annotations

from markupsafe import Markup

from .. import picture, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS_MAX = 300
"""A larger workflow is not drawn: nobody could see it at once."""


def dag(workflow: str, states: Mapping[str, str] | None = None) -> Markup | None:
    """Which tasks follow which, with their states if it is of a run; `None` where nobody here declares it."""
    declared = registry.workflows.get(workflow)
    if declared is None or len(declared._tasks) > TASKS_MAX:
        return None
    tasks = [
        picture.Drawn(
            task.id, task.dependencies, task.rule, None if states is None else states.get(task.id, "Pending")
        )
        for task in declared._tasks
    ]
    return Markup(picture.svg(workflow, tasks))
