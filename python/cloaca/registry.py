"""What this process has declared: workflows, tasks, triggers, and the runners that must hear of them.

Decides only who is told. Never opens a store or starts a thread.
Invariant: a declaration is kept before any runner is told, so a runner that attaches meanwhile hears of it at
least once.
"""

from __future__ import annotations

import itertools
import threading
import warnings
import weakref

from . import place
from .errors import excerpt
from .plain import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .task import TaskDefinition
    from .trigger import TriggerDefinition
    from .workflow import Workflow

    class LiveRunner(Protocol):
        """What the registry needs of a runner. Both may be told the same thing twice."""

        def on_workflow(self, workflow: Workflow) -> None: ...
        def on_triggers(self, triggers: Sequence[TriggerDefinition]) -> None: ...
        def on_gone(self, name: str) -> None: ...
        def on_workflow_gone(self, name: str) -> None: ...


lock = threading.RLock()
"""Guards everything below; never held while code of the user or a runner is called."""

workflows: dict[str, Workflow] = {}
"""The workflow of each name, the newest one."""

constructors: dict[str, Callable[[], Workflow]] = {}
"""Functions that build a workflow when its name is first looked up."""

tasks: dict[str, TaskDefinition] = {}
"""Every task by `tenant::package::workflow::task`, the newest one."""

triggers: dict[str, TriggerDefinition] = {}
"""The trigger of each name, the newest one."""

bodies: dict[int, TaskDefinition] = {}
"""Every task by its body id.

Kept for good, because runs in flight keep the workflow that they started with.
"""

_runners: weakref.WeakSet[LiveRunner] = weakref.WeakSet()
_aside: frozenset[str] = frozenset()
"""The names of what was put aside."""
_body_ids = itertools.count(1)


def add_task(namespace: str, definition: TaskDefinition) -> None:
    """Makes a task known under its full name, and hands out its body id."""
    with lock:
        definition.body = next(_body_ids)
        bodies[definition.body] = definition
        tasks[namespace] = definition


def add_workflow(declared: Workflow) -> None:
    """Registers a workflow, in place of any other of its name, and tells the runners."""
    with lock:
        constructors.pop(declared.name, None)
        workflows[declared.name] = declared
    announce_workflow(declared)


def add_constructor(name: str, constructor: Callable[[], Workflow]) -> None:
    """Registers what builds the workflow of this name; it is called now if a runner lives, else when looked
    up.
    """
    with lock:
        workflows.pop(name, None)
        constructors[name] = constructor
        live = bool(_runners)
    if live:
        try:
            workflow(name)
        except BaseException:
            with lock:
                constructors.pop(name, None)
            raise


def add_trigger(trigger: TriggerDefinition) -> None:
    """Registers a trigger, in place of any other of its name, and tells the runners."""
    with lock:
        before = triggers.get(trigger.name)
        triggers[trigger.name] = trigger
        live = _live()
    for runner in live:
        runner.on_triggers([trigger])
    # Last: where warnings are errors, all that know of the trigger know the same one.
    if before is not None and place.is_another(before.function, trigger.function):
        warnings.warn(
            f"trigger {excerpt(trigger.name)} was declared by {place.of_function(before.function)} and is now"
            f" {place.of_function(trigger.function)}, the newest; give one of them another name",
            UserWarning,
            stacklevel=3,
        )


def drop_trigger(name: str) -> bool:
    """Declares a trigger no more, and tells the runners; false if there is none of that name."""
    with lock:
        known = triggers.pop(name, None)
        live = _live()
    for runner in live if known is not None else ():
        runner.on_gone(name)
    return known is not None


def drop_workflow(name: str) -> bool:
    """Declares a workflow no more, and tells the runners; false if there is none of that name."""
    with lock:
        is_known = workflows.pop(name, None) is not None
        is_known = constructors.pop(name, None) is not None or is_known
        live = _live()
    for runner in live if is_known else ():
        runner.on_workflow_gone(name)
    return is_known


def workflow(name: str) -> Workflow | None:
    """The workflow of this name, built now if a constructor was registered for it; `None` if there is none.

    Raises:
        WorkflowError: the constructor returned something else. Its own exceptions pass through.
    """
    with lock:
        known = workflows.get(name)
        constructor = constructors.get(name)
    if constructor is None:
        return known
    built = constructor()
    with lock:
        if constructors.get(name) is not constructor:
            return workflows.get(name)  # replaced meanwhile, by another thread or by the constructor itself
        del constructors[name]
        workflows[name] = built
    announce_workflow(built)
    return built


def knows(name: str) -> bool:
    """Whether there is a workflow of this name, built or not."""
    with lock:
        return name in workflows or name in constructors


def plan(name: str) -> list[str]:
    """The ids of a workflow's tasks in an order in which they may run; none if it is not built here."""
    with lock:
        known = workflows.get(name)
    return [] if known is None else known._plan()


def names() -> list[str]:
    """The names of all workflows, sorted."""
    with lock:
        return sorted(workflows.keys() | constructors.keys())


def attach(runner: LiveRunner) -> None:
    """Tells a new runner of everything there is, and from now on of everything new.

    A constructor that fails is logged, so that one broken workflow doesn't keep the runner from the others.
    """
    with lock:
        _runners.add(runner)
        known, due, polled = list(workflows.values()), list(constructors), list(triggers.values())
    for declared in known:
        runner.on_workflow(declared)
    for name in due:
        try:
            workflow(name)
        except Exception as raised:
            import logging

            log, about = logging.getLogger("cloaca"), {"cloaca_workflow": name}
            say(log, logging.ERROR, "workflow %r: its constructor failed", name, raised=raised, about=about)
    runner.on_triggers(polled)


def detach(runner: LiveRunner) -> None:
    """Tells a runner nothing more. One that isn't attached is no error."""
    with lock:
        _runners.discard(runner)


def forget_runners() -> None:
    """Tells no runner anything more: in a forked child they are the parent's, and so may be the lock."""
    global lock
    lock = threading.RLock()
    _runners.clear()


def announce_workflow(declared: Workflow) -> None:
    """Tells every live runner of a workflow."""
    for runner in _live():
        runner.on_workflow(declared)


def put_aside(stay: frozenset[str] | None = None) -> Callable[[], None]:
    """Starts without runners and empty, or with the triggers of these names and all workflows; what comes
    back puts everything back, in place of what came since.

    The bodies stay, as always: a run in flight may need them.
    """
    global _runners, _aside
    kept = (workflows, constructors, tasks, triggers)
    with lock:
        before: list[dict[str, Any]] = [dict(each) for each in kept]
        runners, _runners = _runners, weakref.WeakSet()
        aside, _aside = _aside, _aside | workflows.keys() | constructors.keys() | triggers.keys()
        if stay is None:
            clear()
        for name in triggers.keys() - (stay or frozenset()):
            del triggers[name]

    def put_back() -> None:
        global _runners, _aside
        with lock:
            _aside = aside
            clear()
            for each, old in zip(kept, before, strict=True):
                each.update(old)  # type: ignore[attr-defined]
            _runners = runners

    return put_back


def is_aside(name: str) -> bool:
    """Whether a workflow or trigger of this name is declared, but was put aside."""
    with lock:
        return name in _aside and name not in triggers and not knows(name)


def clear() -> None:
    """Forgets everything but the bodies. For tests; runners that live keep what they know."""
    with lock:
        workflows.clear()
        constructors.clear()
        tasks.clear()
        triggers.clear()


def _live() -> list[LiveRunner]:
    with lock:
        # Mostly there is none yet, and to walk a `WeakSet` is slow even if it is empty.
        return list(_runners) if _runners else []
