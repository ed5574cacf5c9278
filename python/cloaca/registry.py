"""What this process has declared: workflows, tasks, triggers, and the runners that must hear of them.

Decides only who is told. Never opens a store or starts a thread.
Invariant: a declaration is kept before any runner is told, so a runner that attaches meanwhile hears of it at
least once.
"""

from __future__ import annotations

import threading
import warnings
import weakref

from . import place
from .errors import excerpt
from .plain import ERROR, say

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

_runners: weakref.WeakSet[LiveRunner] = weakref.WeakSet()
_aside: frozenset[str] = frozenset()
"""The names of what was put aside."""
_tasks_aside: dict[str, str] = {}
"""The ids of tasks that were put aside, each with the name of a workflow that has it."""


def add_task(namespace: str, definition: TaskDefinition) -> None:
    """Makes a task known under its full name."""
    with lock:
        tasks[namespace] = definition


def add_workflow(declared: Workflow) -> None:
    """Registers a workflow, in place of any other of its name, and tells the runners."""

    before: Workflow | None = None

    def keep() -> None:
        nonlocal before
        with lock:
            constructors.pop(declared.name, None)
            before = workflows.get(declared.name)
            workflows[declared.name] = declared

    _change(keep, lambda runner: runner.on_workflow(declared))
    # Last: where warnings are errors, all that know of the workflow know the same one.
    if before is None:
        return
    old, new = before._functions(), declared._functions()
    if place.are_others(old, new):
        warnings.warn(
            f"workflow {excerpt(declared.name)} was declared with {place.of_function(old[0])} and is now the"
            f" one with {place.of_function(new[0])}, the newest; give one of them another name",
            UserWarning,
            stacklevel=3,
        )


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
    before = triggers.get(trigger.name)

    def keep() -> None:
        nonlocal before
        with lock:
            before = triggers.get(trigger.name)
            triggers[trigger.name] = trigger

    _change(keep, lambda runner: runner.on_triggers([trigger]))
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
    is_known = name in triggers

    def keep() -> None:
        nonlocal is_known
        with lock:
            is_known = triggers.pop(name, None) is not None

    _change(keep, lambda runner: runner.on_gone(name))
    return is_known


def drop_workflow(name: str) -> bool:
    """Declares a workflow no more, and tells the runners; false if there is none of that name."""
    is_known = knows(name)

    def keep() -> None:
        nonlocal is_known
        with lock:
            gone = workflows.pop(name, None)
            is_known = gone is not None
            for full, task in () if gone is None else gone._named_tasks():
                if tasks.get(full) is task:
                    del tasks[full]
            is_known = constructors.pop(name, None) is not None or is_known

    _change(keep, lambda runner: runner.on_workflow_gone(name))
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

    def keep() -> None:
        with lock:
            # Not if it was replaced meanwhile, by another thread or by the constructor itself.
            if constructors.get(name) is constructor:
                workflows[name] = built
                del constructors[name]

    _change(keep, lambda runner: runner.on_workflow(built))
    return workflows.get(name)


def knows(name: str) -> bool:
    """Whether there is a workflow of this name, built or not."""
    with lock:
        return name in workflows or name in constructors


def plan(name: str) -> list[str]:
    """The ids of a workflow's tasks in an order in which they may run; none if it is not built here."""
    with lock:
        known = workflows.get(name)
    return [] if known is None else known._plan()


def async_task_of(workflow: str) -> str | None:
    """An async task of a workflow, in words, if it is known to have one."""
    known = workflows.get(workflow)
    tasks = [] if known is None else known._tasks
    return next((f"its async task '{task.id}'" for task in tasks if task.executor == "loop"), None)


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
            about = {"cloaca_workflow": name}
            say("cloaca", ERROR, "workflow %r: its constructor failed", name, raised=raised, about=about)
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


def put_aside(stay: frozenset[str] | None = None) -> Callable[[], None]:
    """Starts without runners and empty, or with the triggers of these names and all workflows; what comes
    back puts everything back, in place of what came since; to call it again finishes what an interrupt cut
    short, and does nothing else.
    """
    global _runners, _aside, _tasks_aside
    kept = (workflows, constructors, tasks, triggers)
    with lock:
        before: list[dict[str, Any]] = [dict(each) for each in kept]
        runners, _runners = _runners, weakref.WeakSet()
        aside, _aside = _aside, _aside | workflows.keys() | constructors.keys() | triggers.keys()
        ids = {task.id: declared.name for declared in workflows.values() for task in declared._tasks}
        tasks_aside, _tasks_aside = _tasks_aside, _tasks_aside | ids
        if stay is None:
            clear()
        for name in triggers.keys() - (stay or frozenset()):
            del triggers[name]

    is_back = False

    def put_back() -> None:
        global _runners, _aside, _tasks_aside
        nonlocal is_back
        with lock:
            if is_back:
                return
            _aside, _tasks_aside = aside, tasks_aside
            clear()
            for each, old in zip(kept, before, strict=True):
                each.update(old)  # type: ignore[attr-defined]
            _runners = runners
            is_back = True

    return put_back


def is_aside(name: str) -> bool:
    """Whether a workflow or trigger of this name is declared, but was put aside."""
    with lock:
        return name in _aside and name not in triggers and not knows(name)


def workflow_aside(task: str) -> str | None:
    """A workflow with a task of this id that was put aside, and with which it is known no more."""
    with lock:
        name = _tasks_aside.get(task)
    return name if name is not None and is_aside(name) else None


def is_all_aside() -> bool:
    """Whether something was put aside, and nothing is declared beside that."""
    with lock:
        return bool(_aside) and not (triggers or workflows or constructors)


def clear() -> None:
    """Forgets everything. For tests; runners that live keep what they know."""
    with lock:
        workflows.clear()
        constructors.clear()
        tasks.clear()
        triggers.clear()


def _change(keep: Callable[[], None], tell: Callable[[LiveRunner], None]) -> None:
    """Changes what is kept and tells every live runner, also the others if one raises or an interrupt comes
    amidst: what is declared is known to all, or to none.
    """
    try:
        keep()
        failed = _tell(tell)
    except BaseException:
        # They ask what is kept, so that to be told twice does no harm.
        _tell(tell)
        raise
    if failed is not None:
        raise failed


def _tell(tell: Callable[[LiveRunner], None]) -> Exception | None:
    failed: Exception | None = None
    for runner in _live():
        try:
            tell(runner)
        except Exception as raised:
            failed = failed or raised
    return failed


def _live() -> list[LiveRunner]:
    with lock:
        # Mostly there is none yet, and to walk a `WeakSet` is slow even if it is empty.
        return list(_runners) if _runners else []
