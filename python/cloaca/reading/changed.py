"""What each task of a run changed in the context. Pure: decides by what tasks left, and asks no program.

Invariant: what a task is said to have changed is where what it left differs from what it was given.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import _cloaca
from ..context import decode_value, encode_value, same
from ..drawing import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from .runs import RunDetails, Task


@dataclass(frozen=True, slots=True)
class Changed:
    """A key of the context's upper level that a task changed.

    Attributes:
        sign (str): `+` new, `~` another value, `-` gone.
        key (str): the key.
        before, after (Any): its values; `None` where it has none.
    """

    sign: Literal["+", "~", "-"]
    key: str
    before: Any
    after: Any


def changed(details: RunDetails) -> dict[str, list[Changed]]:
    """What each task that completed changed, by the task's id: how what it left differs from what it was
    given, which is what those left that it depends on, merged.

    Of a run whose workflow is not kept it is not known what a task depended on: it is taken to be what had
    ended when it began.
    """
    left = {task.id: task.context for task in details.tasks if isinstance(task.context, dict)}
    graph = details.graph or _by_time(details.tasks)
    given = _given(graph, details.run.context, left)
    return {
        task.id: _between(given[task.id], left[task.id])
        for task in details.tasks
        if task.id in left and task.id in given
    }


def _given(graph: list[Node], first: Any, left: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each of these tasks was given."""
    first = first if isinstance(first, dict) else {}
    if all(len(node.dependencies) < 2 for node in graph):
        given: dict[str, dict[str, Any]] = {}
        for node in graph:
            before = node.dependencies[0] if node.dependencies else None
            given[node.id] = first if before is None else left.get(before, given.get(before, first))
        return given
    texts = {task: encode_value(context) for task, context in left.items()}
    initial = encode_value(first)
    ids = [node.id for node in graph]
    found = _cloaca.given(
        ids, [node.dependencies for node in graph], initial, [texts.get(each) for each in ids]
    )
    # Equal texts are read once: most tasks are given what another one left.
    read = {texts[task]: context for task, context in left.items()} | {initial: first}
    for text in found:
        if text not in read:
            read[text] = decode_value(text)
    return {task: read[text] for task, text in zip(ids, found, strict=True)}


def _between(before: dict[str, Any], after: dict[str, Any]) -> list[Changed]:
    if before is after:
        return []
    new = [Changed("+", key, None, value) for key, value in after.items() if key not in before]
    other = [
        Changed("~", key, before[key], value)
        for key, value in after.items()
        if key in before and not same(before[key], value)
    ]
    gone = [Changed("-", key, value, None) for key, value in before.items() if key not in after]
    return [*new, *other, *gone]


def _by_time(tasks: list[Task]) -> list[Node]:
    """Tasks with those that had ended when they began, but for what others of those came after."""
    spans = sorted((_began(task), task.completed_at or "~", task.id) for task in tasks)
    nodes: list[Node] = []
    under_way: list[tuple[str, str, str]] = []
    ended: list[tuple[str, str, str]] = []
    for span in spans:
        began = span[0]
        for before in [each for each in under_way if each[1] <= began]:
            under_way.remove(before)
            ended = [each for each in ended if each[1] > before[0]] + [before]
        nodes.append(Node(span[2], [task for _, _, task in ended], None))
        under_way.append(span)
    return nodes


def _began(task: Task) -> str:
    begins = [each.started_at for each in task.tries] + [task.started_at]
    return min((at for at in begins if at is not None), default="~")
