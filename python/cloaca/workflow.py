"""`WorkflowBuilder` and `Workflow`: tasks gathered into a graph that is checked. Never runs anything.

Invariant: a `Workflow` that exists has tasks, no cycle, no missing dependency, and never changes.
Longer than a room should be: the public builder, with what it promises and all that it refuses.
"""

from __future__ import annotations

import json
import warnings
from contextvars import ContextVar
from functools import partial

from . import _cloaca, registry
from .body import name_of
from .errors import ArgumentTypeError, WorkflowError, excerpt, typed
from .limits import checked_concurrency, checked_rate_limit, checked_throttle
from .name import SEPARATOR, checked_name, is_text
from .namespace import DEFAULT_PACKAGE, DEFAULT_TENANT
from .near import hint, refuse_keywords
from .policy import checked_span
from .rules import tasks_named
from .urgency import PRIORITY, checked_priority

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, Never, NoReturn, Self

    from .limits import Concurrency, RateLimit, Throttle
    from .task import TaskDefinition
    from .types import Duration, OnEnd

    Limits = tuple[Concurrency | None, Throttle | None, RateLimit | None]

TEXT_CHARS_MAX = 10_000

_blocks: ContextVar[tuple[WorkflowBuilder, ...]] = ContextVar("cloaca_workflow_blocks", default=())


def active_builder() -> WorkflowBuilder | None:
    """The builder whose `with` block we are in, the innermost one."""
    blocks = _blocks.get()
    return blocks[-1] if blocks else None


def id_of(function: Callable[..., Any], builder: WorkflowBuilder) -> str:
    """The id under which a function was declared here, or else its name.

    Raises:
        WorkflowError: it wasn't declared and has no name.
    """
    definition = builder._known(function)
    name = definition.id if definition is not None else name_of(function)
    if name is None:
        raise WorkflowError(
            f"{excerpt(function)} is no task of workflow {excerpt(builder.name)}; decorate it with @task"
        )
    return name


_METHODS = {"description", "on_cancel", "on_failure", "on_success", "tag"}
"""What a builder is told by methods."""


class WorkflowBuilder:
    """Gathers tasks into a workflow. As a context manager it collects the tasks declared in its block, and
    registers the workflow when the block ends without an exception.

    `workflow` replaces the name in the tasks' namespaces, `tenant::package::workflow::task`. `priority` is
    how urgent its runs are, from 0 to 9, unless whoever asks for one says so: of what could begin, 9 goes
    first. `timeout`, a duration such as `"7d"`, is how long a run may take, its waits in `defer_until` and
    for retries too, instead of the runner's `workflow_timeout_seconds`. `concurrency` and `throttle` limit
    how many runs are at work and how fast they start, and the rest waits; `rate_limit` how many are taken at
    all, and the rest is dropped. None of these five is part of the version.

    Raises:
        WorkflowError: (a `ValueError`) a name that is no `str`, is empty, or contains `::`, or a priority,
            timeout or limit that is none.
    """

    __slots__ = (
        "_callbacks",
        "_description",
        "_limits",
        "_namespace",
        "_package",
        "_priority",
        "_tags",
        "_tasks",
        "_tenant",
        "_timeout_us",
        "_tokens",
        "_workflow",
        "name",
    )

    name: str

    def __init__(
        self,
        name: str,
        *,
        tenant: str = DEFAULT_TENANT,
        package: str = DEFAULT_PACKAGE,
        workflow: str | None = None,
        priority: int = PRIORITY,
        timeout: Duration | None = None,
        concurrency: Concurrency | None = None,
        throttle: Throttle | None = None,
        rate_limit: RateLimit | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            for keyword in unknown.keys() & _METHODS:
                raise ArgumentTypeError(
                    f"WorkflowBuilder got an unexpected keyword argument {keyword!r}, which is a method of"
                    f" it: WorkflowBuilder(name).{keyword}(...)"
                )
            refuse_keywords("WorkflowBuilder", unknown, WorkflowBuilder.__init__.__kwdefaults__)
        self.name = checked_name(name, "name")
        self._tenant = checked_name(tenant, "tenant")
        self._package = checked_name(package, "package")
        self._workflow = self.name if workflow is None else checked_name(workflow, "workflow")
        self._namespace = SEPARATOR.join((self._tenant, self._package, self._workflow))
        self._priority = checked_priority(priority, WorkflowError)
        self._timeout_us = None if timeout is None else round(checked_span(timeout, "timeout") * 1_000_000)
        self._limits = (
            checked_concurrency(concurrency),
            checked_throttle(throttle),
            checked_rate_limit(rate_limit),
        )
        self._description: str | None = None
        self._tags: dict[str, str] = {}
        self._callbacks: dict[str, OnEnd] = {}
        self._tasks: dict[str, TaskDefinition] = {}
        self._tokens: list[Any] = []

    def description(self, text: str) -> Self:
        """Sets the description. Raises `WorkflowError` unless it is a `str` of at most 10000 characters."""
        self._description = _checked_text(text, "text")
        return self

    def tag(self, key: str, value: str) -> Self:
        """Adds a tag, in place of any with the same key. Raises `WorkflowError` unless both are `str`."""
        self._tags[_checked_text(key, "key")] = _checked_text(value, "value")
        return self

    def on_success(self, function: OnEnd) -> Self:
        """Has `function(run)` called when a run of this workflow has completed, with what `get_run` shows
        of it, nothing hidden.

        It is called by a runner that declares the workflow, whoever ended the run, on a thread that no task
        waits for; an `async def` runs on the runner's event loop. It is called at least once for each end of
        a run: once, unless it raises or its process dies in it. What raises is called again, after a second
        at first and 10 minutes at last, and given up after a day. `retry` withdraws the calls that have not
        begun. It is no part of the version.

        Raises:
            WorkflowError: (a `ValueError`) it can't be called with a run, or another one was given before.
        """
        return self._on("Completed", "on_success", function)

    def on_failure(self, function: OnEnd) -> Self:
        """The same for a run that has failed, also by its time."""
        return self._on("Failed", "on_failure", function)

    def on_cancel(self, function: OnEnd) -> Self:
        """The same for a run that was cancelled, by whomever."""
        return self._on("Cancelled", "on_cancel", function)

    def _on(self, status: str, name: str, function: OnEnd) -> Self:
        if function is None:
            raise WorkflowError(f"{name} got None; give a function: def {name}(run)")
        # Not before it is needed: it knows of dates.
        from .check import checked_callback

        checked_callback(function, name, WorkflowError, ("run",))
        known = self._callbacks.setdefault(status, function)
        if known != function:
            raise WorkflowError(
                f'workflow "{self.name}" has {name}={excerpt(known)} already, and was given'
                f" {excerpt(function)} too; give one function that calls both"
            )
        return self

    def add_task(self, task: str | Callable[..., Any]) -> Self:
        """Adds a task that is known in this workflow's namespace, by its id or its function; twice is once.

        Raises:
            WorkflowError: (a `ValueError`) it isn't known here, or is neither an id nor a function.
        """
        if isinstance(task, str):
            self._add(self._found(task), task)
        elif callable(task):
            name = name_of(task)
            self._add(
                self._known(task) or (None if name is None else self._found(name)), name or excerpt(task)
            )
        else:
            raise WorkflowError(f"add_task got {excerpt(task)}; give a string task ID or a function object")
        return self

    def build(self) -> Workflow:
        """The workflow as it stands now.

        Raises:
            WorkflowError: (a `ValueError`) no tasks, a cycle, a missing dependency, or a rule about an
                unknown task.
        """
        return Workflow._built(
            name=self.name,
            tasks=tuple(self._tasks.values()),
            description=self._description,
            tags=dict(self._tags),
            tenant=self._tenant,
            package=self._package,
            workflow=self._workflow,
            priority=self._priority,
            timeout_us=self._timeout_us,
            limits=self._limits,
            callbacks=dict(self._callbacks),
        )

    def __enter__(self) -> Self:
        self._tokens.append(_blocks.set((*_blocks.get(), self)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _blocks.reset(self._tokens.pop())
        if kind is None:
            registry.add_workflow(self.build())

    def _repr_svg_(self) -> str | None:
        """What is there so far, as of the workflow; nothing while it is no graph."""
        from .picture import Drawn, svg

        tasks = self._tasks.values()
        drawn = [
            Drawn(task.id, [name for name in task.dependencies if name in self._tasks], task.rule)
            for task in tasks
        ]
        try:
            return svg(self.name, drawn) if drawn else None
        except ValueError:  # they wait for one another
            return None

    def __repr__(self) -> str:
        return f"WorkflowBuilder(name={self.name!r}, tasks={len(self._tasks)})"

    def _declare(self, definition: TaskDefinition) -> None:
        """Takes in a task that was just decorated."""
        if definition.id in self._tasks:
            raise WorkflowError(
                f'workflow "{self.name}" has two tasks with the id {excerpt(definition.id)}; rename one, or'
                " give @task(id=...)"
            )
        registry.add_task(f"{self._namespace}{SEPARATOR}{definition.id}", definition)
        self._tasks[definition.id] = definition

    def _add(self, definition: TaskDefinition | None, shown: str) -> None:
        if definition is None:
            raise WorkflowError(
                f"task {excerpt(shown)} not found in registry under {self._namespace}; declare it with @task"
                f" in a block of WorkflowBuilder({self._workflow!r}) first"
                f"{hint(shown, 'tasks', dict.fromkeys((*self._tasks, *self._ids_known())))}"
            )
        self._tasks.setdefault(definition.id, definition)

    def _found(self, task_id: str) -> TaskDefinition | None:
        if task_id in self._tasks:
            return self._tasks[task_id]
        own = (
            task_id
            if task_id.startswith(self._namespace + SEPARATOR)
            else f"{self._namespace}{SEPARATOR}{task_id}"
        )
        with registry.lock:
            return registry.tasks.get(own)

    def _ids_known(self) -> list[str]:
        """The ids of the tasks that are known in this namespace."""
        prefix = self._namespace + SEPARATOR
        with registry.lock:
            return [name.removeprefix(prefix) for name in registry.tasks if name.startswith(prefix)]

    def _known(self, function: Callable[..., Any]) -> TaskDefinition | None:
        """The newest task of this namespace with this very function."""
        for definition in reversed(self._tasks.values()):
            if definition.function == function:
                return definition
        prefix = self._namespace + SEPARATOR
        with registry.lock:
            known = [item for name, item in registry.tasks.items() if name.startswith(prefix)]
        return next((item for item in reversed(known) if item.function == function), None)


class Workflow:
    """Tasks and the edges between them, checked. Made by `WorkflowBuilder.build()`."""

    __slots__ = (
        "_callbacks",
        "_description",
        "_levels",
        "_limits",
        "_name",
        "_order",
        "_package",
        "_priority",
        "_tags",
        "_tasks",
        "_tenant",
        "_timeout_us",
        "_version",
        "_workflow",
    )

    _name: str
    _tasks: tuple[TaskDefinition, ...]
    _description: str | None
    _tags: dict[str, str]
    _tenant: str
    _package: str
    _workflow: str
    _priority: int
    _timeout_us: int | None
    _limits: Limits
    _callbacks: dict[str, OnEnd]
    _order: list[int]
    _levels: list[list[int]]
    _version: str

    def _functions(self) -> list[Callable[..., Any]]:
        return [task.function for task in self._tasks]

    def __init__(self) -> None:
        raise TypeError("a Workflow is made by WorkflowBuilder(name).build()")

    @classmethod
    def _built(
        cls,
        *,
        name: str,
        tasks: tuple[TaskDefinition, ...],
        description: str | None,
        tags: dict[str, str],
        tenant: str,
        package: str,
        workflow: str,
        priority: int,
        timeout_us: int | None,
        limits: Limits,
        callbacks: dict[str, OnEnd],
    ) -> Self:
        built = object.__new__(cls)
        built._name = name
        built._tasks = tasks
        built._description = description
        built._tags = tags
        built._tenant = tenant
        built._package = package
        built._workflow = workflow
        built._priority = priority
        built._timeout_us = timeout_us
        built._limits = limits
        built._callbacks = callbacks
        built._order, built._levels = _checked_graph(name, tasks)
        _warn_of_rules(name, [tasks[at] for at in built._order])
        built._version = _cloaca.content_version(built._content())
        return built

    @property
    def name(self) -> str:
        """What runs and triggers call it by."""
        return self._name

    @property
    def description(self) -> str | None:
        """What it is for, if it says."""
        return self._description

    @property
    def tags(self) -> dict[str, str]:
        """A copy of its tags."""
        return dict(self._tags)

    @property
    def priority(self) -> int:
        """How urgent its runs are, from 0 to 9, unless whoever asks for one says so. No part of the
        version."""
        return self._priority

    @property
    def timeout(self) -> float | None:
        """How many seconds a run of it may take, if it says. No part of the version."""
        return None if self._timeout_us is None else self._timeout_us / 1_000_000

    @property
    def concurrency(self) -> Concurrency | None:
        """How many of its runs are at work at once, if that is limited. No part of the version."""
        return self._limits[0]

    @property
    def throttle(self) -> Throttle | None:
        """How fast its runs start, if that is limited. No part of the version."""
        return self._limits[1]

    @property
    def rate_limit(self) -> RateLimit | None:
        """How many runs of it are taken, if that is limited. No part of the version."""
        return self._limits[2]

    @property
    def version(self) -> str:
        """Hex digest of name, tasks, edges, rules, policies, description, tags: equal for equal content."""
        return self._version

    def _plan(self) -> list[str]:
        """The ids of all tasks, each after its dependencies."""
        return [self._tasks[index].id for index in self._order]

    def topological_sort(self) -> list[str]:
        """All tasks, each after its dependencies, as `tenant::package::workflow::task`."""
        return [self._full(self._tasks[index].id) for index in self._order]

    def _named_tasks(self) -> list[tuple[str, TaskDefinition]]:
        """Its tasks, each with the name that it is known under."""
        return [(self._full(task.id), task) for task in self._tasks]

    def get_execution_levels(self) -> list[list[str]]:
        """The tasks in levels; those of one level can run at once, after all levels before."""
        return [[self._full(self._tasks[index].id) for index in level] for level in self._levels]

    def get_roots(self) -> list[str]:
        """The tasks without dependencies, in the order declared."""
        return [self._full(task.id) for task in self._tasks if not task.dependencies]

    def get_leaves(self) -> list[str]:
        """The tasks that no other depends on, in the order declared."""
        needed = {dependency for task in self._tasks for dependency in task.dependencies}
        return [self._full(task.id) for task in self._tasks if task.id not in needed]

    def validate(self) -> None:
        """Checks the graph once more. Raises `WorkflowError` as `WorkflowBuilder.build` does."""
        _checked_graph(self._name, self._tasks)

    def to_svg(self) -> str:
        """A picture of its tasks, from left to right, as the text of an SVG file; notebooks show it.

        Equal workflows give equal pictures. Trigger rules stand in the tasks that have them.
        """
        from .picture import Drawn, svg

        return svg(self._name, [Drawn(task.id, task.dependencies, task.rule) for task in self._tasks])

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def __repr__(self) -> str:
        return f"Workflow(name={self._name!r}, tasks={len(self._tasks)})"

    def _full(self, task_id: str) -> str:
        return SEPARATOR.join((self._tenant, self._package, self._workflow, task_id))

    def _renamed(self, name: str) -> Workflow:
        """The same tasks under another name, for a constructor that was registered under one."""
        return Workflow._built(
            name=checked_name(name, "name"),
            tasks=self._tasks,
            description=self._description,
            tags=self.tags,
            tenant=self._tenant,
            package=self._package,
            workflow=self._workflow,
            priority=self._priority,
            timeout_us=self._timeout_us,
            limits=self._limits,
            callbacks=self._callbacks,
        )

    def _spec(self) -> list[dict[str, Any]]:
        """What the engine needs to know of each task, in plain data."""
        return [
            {
                "id": task.id,
                "dependencies": list(task.dependencies),
                "retry": task.retry._spec(),
                "rule": None if task.rule is None else _canonical(task.rule),
                "fails_on_interrupt": task.on_interrupt == "fail",
                "limits": [limit._spec() for limit in task.limits],
                "timeout_us": task.timeout_us,
                "executor": task.executor,
                "failure_callback": task.on_failure is not None,
            }
            for task in self._tasks
        ]

    def _content(self) -> list[tuple[str, str]]:
        """What the version is a digest of: labels with texts, in an order that doesn't depend on the
        declaration's.
        """
        content = [("name", self._name), ("description", _canonical(self._description))]
        content += [(f"tag {key}", value) for key, value in sorted(self._tags.items())]
        for task in sorted(self._tasks, key=lambda task: task.id):
            parts: list[Any] = [list(task.dependencies), task.retry._spec(), task.rule]
            if task.on_interrupt != "retry":
                # Only then, so that a workflow without it keeps its version.
                parts.append(task.on_interrupt)
            if task.timeout_us is not None:
                parts.append({"timeout_us": task.timeout_us})
            content.append((f"task {task.id}", _canonical(parts)))
        return content


def register_workflow_constructor(name: str, constructor: Callable[[], Workflow]) -> None:
    """Registers what `constructor()` builds. It is called when the workflow is first looked up, or now if a
    runner lives.

    Raises:
        WorkflowError: (a `ValueError`) a bad name, or something that isn't callable.
    """
    checked_name(name, "name")
    if not callable(constructor):
        raise WorkflowError(
            f"function is {excerpt(constructor)}; it must be a function that returns a Workflow"
        )
    registry.add_constructor(name, partial(_constructed, name, constructor))


def unregister_workflow(name: str) -> None:
    """Declares a workflow no more: the runners of this process start and take over no runs of it.

    Those that they have at work go on. What triggers fire for it fails their polls until it is declared
    again, and its crons make up for what they missed then. Unfinished runs of the store wait for a program
    that declares it.

    Raises:
        WorkflowError: (a `ValueError`) no such workflow is declared.
    """
    if not registry.drop_workflow(checked_name(name, "name")):
        known = hint(name, "workflows", registry.names())
        raise WorkflowError(f"workflow {excerpt(name)} is not declared{known}")


def _constructed(name: str, constructor: Callable[[], Workflow]) -> Workflow:
    built = constructor()
    if not isinstance(built, Workflow):
        raise WorkflowError(
            f"the constructor of workflow {excerpt(name)} returned {excerpt(built)}; it must return a"
            " Workflow"
        )
    return built if built.name == name else built._renamed(name)


def _checked_graph(name: str, tasks: tuple[TaskDefinition, ...]) -> tuple[list[int], list[list[int]]]:
    if not tasks:
        _refuse_empty(name)
    ids = [task.id for task in tasks]
    _check_rules(name, tasks, ids)
    return _cloaca.check_graph(name, ids, [list(task.dependencies) for task in tasks])


def _refuse_empty(name: str) -> NoReturn:
    raise WorkflowError(f'workflow "{name}" cannot be empty; declare a task in its block, or call add_task')


def _check_rules(name: str, tasks: Iterable[TaskDefinition], ids: list[str]) -> None:
    known = set(ids)
    for task in tasks:
        for named in tasks_named(task.rule) if task.rule else ():
            if named not in known:
                raise WorkflowError(
                    f'workflow "{name}": the trigger rule of task {excerpt(task.id)} asks about task'
                    f" {excerpt(named)}, which is not in the workflow{hint(named, 'tasks', ids)}"
                )


def _warn_of_rules(name: str, ordered: Iterable[TaskDefinition]) -> None:
    """A rule about a task that may end later, or not before, is decided by who is faster."""
    before: dict[str, set[str]] = {}
    for task in ordered:
        waited = before[task.id] = set(task.dependencies).union(*(before[of] for of in task.dependencies))
        for named in tasks_named(task.rule) if task.rule else ():
            if named not in waited:
                warnings.warn(
                    f'workflow "{name}": the trigger rule of task {excerpt(task.id)} asks about task'
                    f" {excerpt(named)}, for which it does not wait: make that a dependency, or who is faster"
                    " decides",
                    UserWarning,
                    stacklevel=4,
                )


def _checked_text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise WorkflowError(f"{what} is {excerpt(value)}, {typed(value)}; it must be a str")
    if len(value) > TEXT_CHARS_MAX or not is_text(value):
        raise WorkflowError(
            f"{what} is {excerpt(value)}; it must be at most {TEXT_CHARS_MAX} characters of UTF-8"
        )
    return str(value)


def _canonical(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
