"""What each task of a run changed in the context. Pure: decides by what tasks left, and knows no workflow.

Invariant: what a task is said to have added or changed is in what it left, and in nothing that was left
before it began.
"""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from .runs import RunDetails, Task

_NOWHERE = object()


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
    """What each task that completed changed, by the task's id.

    Which tasks a task depends on only its program knows: what it left is compared with what the run began
    with, and with what all those left that had ended when it began. Of the keys that it took away only those
    are told with which the run began.
    """
    done = [_Done(task) for task in details.tasks if isinstance(task.context, dict)]
    ended = sorted(done, key=lambda each: each.ended)
    left, at = _Left(details.run.context), 0
    found: dict[str, list[Changed]] = {}
    for each in sorted(done, key=lambda each: each.began):
        while at < len(ended) and ended[at].ended <= each.began:
            # One that took no time has ended when it began, and is not before itself.
            if ended[at] is not each:
                left.take(ended[at].context)
            at += 1
        found[each.id] = left.changed_by(each.context)
        if each.ended <= each.began:
            left.take(each.context)
    return {task.id: found[task.id] for task in details.tasks if task.id in found}


class _Done:
    """A task that completed."""

    def __init__(self, task: Task) -> None:
        begins = [each.started_at for each in task.tries] + [task.started_at]
        self.id = task.id
        self.context: dict[str, Any] = task.context
        self.ended = task.completed_at or ""
        self.began = min((at for at in begins if at is not None), default="")


class _Left:
    """What was left so far, by which the number of tasks costs nothing."""

    def __init__(self, first: Any) -> None:
        self._first: dict[str, Any] = first if isinstance(first, dict) else {}
        self._newest: dict[str, Any] = {}
        self._values: dict[str, list[Any]] = {}
        """Of each key all that differ, the newest first."""
        self._having: dict[str, int] = {}
        """How many left each key of the first context."""
        self._tasks = 0

    def take(self, context: dict[str, Any]) -> None:
        """One more has ended."""
        self._tasks += 1
        for key, value in context.items():
            self._newest[key] = value
            if key in self._first:
                self._having[key] = self._having.get(key, 0) + 1
            values = self._values.setdefault(key, [])
            if not _has(values, value):
                values.insert(0, value)

    def changed_by(self, context: dict[str, Any]) -> list[Changed]:
        """What is in it that nobody left, and what is gone."""
        new: list[Changed] = []
        other: list[Changed] = []
        for key, value in context.items():
            if _has(self._values.get(key, ()), value) or _same(self._first.get(key, _NOWHERE), value):
                continue
            old = self._newest.get(key, self._first.get(key, _NOWHERE))
            if old is _NOWHERE:
                new.append(Changed("+", key, None, value))
            else:
                other.append(Changed("~", key, old, value))
        gone = [
            Changed("-", key, self._newest.get(key, value), None)
            for key, value in self._first.items()
            if key not in context and self._having.get(key, 0) == self._tasks
        ]
        return [*new, *other, *gone]


def _has(values: Sequence[Any], value: Any) -> bool:
    return any(_same(each, value) for each in values)


def _same(one: Any, other: Any) -> bool:
    """As JSON has it: `True` is not `1`."""
    return one is other or (type(one) is type(other) and bool(one == other))
