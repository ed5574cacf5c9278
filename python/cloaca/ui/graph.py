"""A workflow's graph as it is shown: the one place where the page has it drawn."""

from __future__ import annotations

from markupsafe import Markup

from .. import picture
from ..drawing import nodes_of
from ..registry import workflows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..drawing import Node

TASKS_MAX = 300
"""A larger workflow is not drawn: nobody could see it at once."""


def dag(workflow: str, kept: Sequence[Node], states: Mapping[str, str] | None = None) -> Markup | None:
    """Which tasks follow which, with their states if it is of a run; as it is kept, or else as this process
    declares it, and `None` if neither knows it.
    """
    declared = workflows.get(workflow)
    nodes = kept or (nodes_of(declared) if declared is not None else [])
    if not 0 < len(nodes) <= TASKS_MAX:
        return None
    tasks = [
        picture.Drawn(
            node.id, node.dependencies, node.rule, None if states is None else states.get(node.id, "Pending")
        )
        for node in nodes
    ]
    return Markup(picture.svg(workflow, tasks))
