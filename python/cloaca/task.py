"""`@task`: records a function as a task of the workflow whose block it stands in. Never calls it.

Invariant: a definition is complete and checked when it reaches its builder, and doesn't change afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable

from .body import is_async, is_async_generator, name_of, parameters_of, unbound, way_out_of_method
from .check import checked_callback
from .errors import WorkflowError, excerpt, typed
from .limits import Limit
from .name import checked_name
from .near import refuse_keywords
from .places import BUILT_IN
from .policy import (
    DEFAULT,
    BackoffStrategy,
    RetryCondition,
    RetryPolicy,
    checked_attempts,
    checked_bool,
    checked_seconds,
    checked_span,
)
from .rules import check
from .workflow import active_builder, id_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, overload

    from .types import (
        BackoffName,
        ConditionName,
        Duration,
        InterruptName,
        OnFailure,
        OnSuccess,
        Rule,
        TaskBody,
        TaskRefs,
    )

    AnyTaskBody = TypeVar("AnyTaskBody", bound=TaskBody)

_HANDLE_NAMES = ("handle", "task_handle")


class TaskDefinition:
    """One task as declared: its function, its edges, and what happens when it fails."""

    __slots__ = (
        "dependencies",
        "executor",
        "function",
        "id",
        "is_async",
        "limits",
        "on_failure",
        "on_interrupt",
        "on_success",
        "replaces",
        "retry",
        "rule",
        "takes_handle",
        "timeout_us",
    )

    def __init__(
        self,
        *,
        id: str,
        function: Callable[..., Any],
        dependencies: tuple[str, ...],
        retry: RetryPolicy,
        on_interrupt: str,
        on_success: Callable[..., Any] | None,
        on_failure: Callable[..., Any] | None,
        rule: dict[str, Any] | None,
        takes_handle: bool,
        is_async: bool,
        timeout_us: int | None = None,
        executor: str | None = None,
        limits: tuple[Limit, ...] = (),
    ) -> None:
        self.id = id
        self.function = function
        self.dependencies = dependencies
        self.retry = retry
        self.on_interrupt = on_interrupt
        self.on_success = on_success
        self.on_failure = on_failure
        self.rule = rule
        self.takes_handle = takes_handle
        self.is_async = is_async
        self.timeout_us = timeout_us
        self.limits = limits
        """By name in order, each once."""
        self.executor = executor or ("loop" if is_async else "thread")
        """Where it runs."""
        self.replaces: TaskDefinition | None = None
        """In whose place a test has put it."""

    def with_function(self, function: Callable[..., Any]) -> TaskDefinition:
        """The same task with another function. Raises `WorkflowError` if it takes other parameters."""
        other = TaskDefinition(
            id=self.id,
            function=function,
            dependencies=self.dependencies,
            retry=self.retry,
            on_interrupt=self.on_interrupt,
            on_success=self.on_success,
            on_failure=self.on_failure,
            rule=self.rule,
            takes_handle=_takes_handle(function, self.id),
            is_async=is_async(function),
            timeout_us=self.timeout_us,
            executor=self.executor,
            limits=self.limits,
        )
        other.replaces = self
        return other

    def __repr__(self) -> str:
        return f"TaskDefinition(id={self.id!r}, dependencies={list(self.dependencies)!r})"


if TYPE_CHECKING:

    @overload
    def task(function: AnyTaskBody, /) -> AnyTaskBody: ...
    @overload
    def task(
        *,
        id: str | None = None,
        dependencies: TaskRefs | None = None,
        retry: RetryPolicy | None = None,
        retry_attempts: int | None = None,
        retry_for: Duration | None = None,
        retry_backoff: BackoffName | None = None,
        retry_delay_ms: float | None = None,
        retry_max_delay_ms: float | None = None,
        retry_condition: ConditionName | None = None,
        retry_jitter: bool | None = None,
        on_interrupt: InterruptName | None = None,
        timeout: Duration | None = None,
        on_success: OnSuccess | None = None,
        on_failure: OnFailure | None = None,
        trigger_rules: Rule | None = None,
        executor: str | None = None,
        limits: Iterable[Limit] | None = None,
    ) -> Callable[[AnyTaskBody], AnyTaskBody]: ...


def task(
    function: TaskBody | None = None,
    /,
    *,
    id: str | None = None,
    dependencies: TaskRefs | None = None,
    retry: RetryPolicy | None = None,
    retry_attempts: int | None = None,
    retry_for: Duration | None = None,
    retry_backoff: BackoffName | None = None,
    retry_delay_ms: float | None = None,
    retry_max_delay_ms: float | None = None,
    retry_condition: ConditionName | None = None,
    retry_jitter: bool | None = None,
    on_interrupt: InterruptName | None = None,
    timeout: Duration | None = None,
    on_success: OnSuccess | None = None,
    on_failure: OnFailure | None = None,
    trigger_rules: Rule | None = None,
    executor: str | None = None,
    limits: Iterable[Limit] | None = None,
    **unknown: Any,
) -> Any:
    """Declares a task in the workflow whose `with` block this stands in, and returns the function itself.

    The function takes the context, and a handle if its second parameter is called `handle` or `task_handle`.
    `id` is its name unless given; `dependencies` are ids or decorated functions. `retry_attempts` counts all
    attempts; with `retry_for`, a duration such as `"10m"`, no further attempt begins so long after the first
    one began, and without `retry_attempts` any number of attempts may. `retry_delay_ms` and
    `retry_max_delay_ms` are milliseconds, `retry_backoff` is `fixed`, `linear` or `exponential`,
    `retry_condition` is `never`, `transient` or `all`. `on_interrupt` says what becomes of the task when an
    attempt is cut off, by the death of its process or a shutdown that its body outlasts: `retry`, the
    default, attempts it again and uses up none of its attempts; `fail` fails it, and puts each attempt on
    record before its body is called, so that with `retry_attempts=1` the body is called at most once.
    `timeout`, a duration such as `"30s"`, is how long an attempt may take, instead of the runner's
    `task_timeout_seconds`: then its body is told to end, see `TaskHandle.cancelled`.
    `on_success(task_id, context)` and `on_failure(task_id, error, context)` hear of the final outcome.
    `trigger_rules` decides whether it runs. `executor` is the name of the place where its body runs, of those
    that `DefaultRunner(executors=...)` was given; the function is found there as `module:qualname`, gets the
    context as JSON, and its callbacks are called here. Without it the body runs in the runner's process.
    `limits` are `Limit`s that its attempts share with all other tasks that name them, in every process on the
    store: an attempt begins once it has a seat of each.

    Raises:
        WorkflowError: (a `ValueError`) an argument that makes no sense, which the message names; or else
            outside a block, or an id that is taken.
    """
    if unknown:
        refuse_keywords("@task", unknown, task.__kwdefaults__)
    if function is not None and not callable(function):
        raise WorkflowError(
            f"@task decorates a function; got {excerpt(function)}. Give the id as @task(id=...)"
        )
    own_id = None if id is None else checked_name(id, "id")
    before = _checked_dependencies(dependencies)
    policy = _policy(
        retry,
        {
            "retry_attempts": retry_attempts,
            "retry_for": retry_for,
            "retry_backoff": retry_backoff,
            "retry_delay_ms": retry_delay_ms,
            "retry_max_delay_ms": retry_max_delay_ms,
            "retry_condition": retry_condition,
            "retry_jitter": retry_jitter,
        },
    )
    interrupt = _on_interrupt(on_interrupt)
    timeout_us = None if timeout is None else round(checked_span(timeout, "timeout") * 1_000_000)
    checked_callback(on_success, "on_success", WorkflowError)
    checked_callback(on_failure, "on_failure", WorkflowError)
    rule = None if trigger_rules is None else check(trigger_rules, "trigger_rules")
    if executor is not None and not isinstance(executor, str):
        raise WorkflowError(
            f"executor is {excerpt(executor)}, {typed(executor)}; it must be a str: the NAME that"
            ' DefaultRunner(executors={"NAME": …}) gives it'
        )
    place = None if executor is None else checked_name(executor, "executor")
    under = _checked_limits(limits)
    builder = active_builder()
    if builder is None:
        raise WorkflowError(
            "No workflow context available: @task stands outside a block; put it inside `with"
            " WorkflowBuilder(name):`"
        )
    needed = tuple(dict.fromkeys(item if isinstance(item, str) else id_of(item, builder) for item in before))

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        task_id = _task_id(own_id, function)
        takes_handle = _takes_handle(function, task_id)
        if place == "thread" and is_async(function):
            raise WorkflowError(
                f'task "{task_id}" names executor "thread" and is an async def, which runs on the event loop;'
                " leave executor out, or make it a plain function"
            )
        if place is not None and place not in BUILT_IN:
            from .bodies.remote import check_travels

            check_travels(function, f'task "{task_id}"', place)
        builder._declare(
            TaskDefinition(
                id=task_id,
                function=function,
                dependencies=needed,
                retry=policy,
                on_interrupt=interrupt,
                on_success=on_success,
                on_failure=on_failure,
                rule=rule,
                takes_handle=takes_handle,
                is_async=is_async(function),
                timeout_us=timeout_us,
                executor=place,
                limits=under,
            )
        )
        return function

    return decorate if function is None else decorate(function)


def _task_id(id: str | None, function: object) -> str:
    if not callable(function):
        raise WorkflowError(f"@task decorates a function; got {excerpt(function)}")
    if id is not None:
        return id
    own = name_of(function)
    if own is None:
        raise WorkflowError(f"{excerpt(function)} has no name of its own; give it one with @task(id=...)")
    return checked_name(own, "id")


def _takes_handle(function: Callable[..., Any], task_id: str) -> bool:
    if is_async_generator(function):
        raise WorkflowError(
            f'task "{task_id}" is an async generator; a task returns its context, so use no yield'
        )
    parameters = parameters_of(function)
    if parameters is None:
        return False
    names = parameters.names
    if (first := unbound(function, parameters)) is not None:
        raise WorkflowError(f'task "{task_id}" {way_out_of_method("cloaca.task", function, first)}')
    takes_handle = len(names) > 1 and names[1] in _HANDLE_NAMES
    given = 2 if takes_handle else 1
    if not names and not parameters.any_number:
        raise WorkflowError(
            f'task "{task_id}" takes no parameter; a task takes the context: def {task_id}(context)'
        )
    missing = names[given : parameters.required] + parameters.keywords_required
    if missing:
        raise WorkflowError(
            f'task "{task_id}" needs {", ".join(missing)}; it is called with the context, and with a handle'
            " if the second parameter is called handle or task_handle"
        )
    return takes_handle


def _checked_dependencies(dependencies: object) -> list[str | Callable[..., Any]]:
    if dependencies is None:
        return []
    if isinstance(dependencies, (str, bytes, dict)) or not isinstance(dependencies, Iterable):
        raise WorkflowError(
            f"dependencies is {excerpt(dependencies)}; it must be a list of task ids and functions"
        )
    given = list(dependencies)
    for item in given:
        if isinstance(item, str):
            checked_name(item, "dependencies")
        elif not callable(item):
            raise WorkflowError(
                f"dependencies holds {excerpt(item)}; each must be a task id or a decorated function"
            )
    return given


def _checked_limits(limits: object) -> tuple[Limit, ...]:
    if limits is None:
        return ()
    if isinstance(limits, (str, bytes, dict)) or not isinstance(limits, Iterable):
        raise WorkflowError(f"limits is {excerpt(limits)}; give a list of cloaca.Limit")
    by_name: dict[str, Limit] = {}
    for limit in limits:
        if not isinstance(limit, Limit):
            raise WorkflowError(
                f'limits holds {excerpt(limit)}; each must be a cloaca.Limit("github-api", concurrency=4)'
            )
        if by_name.setdefault(limit.name, limit) != limit:
            raise WorkflowError(f"limits holds two that are called {excerpt(limit.name)} and differ")
    return tuple(by_name[name] for name in sorted(by_name))


def _on_interrupt(given: object) -> str:
    if given is None or given == "retry":
        return "retry"
    if given != "fail":
        raise WorkflowError(f"on_interrupt is {excerpt(given)}; it must be retry or fail")
    return "fail"


def _policy(retry: object, keywords: dict[str, Any]) -> RetryPolicy:
    given = {name: value for name, value in keywords.items() if value is not None}
    if retry is None:
        return _policy_of(given) if given else DEFAULT
    if not isinstance(retry, RetryPolicy):
        raise WorkflowError(
            f"retry is {excerpt(retry)}; it must be a RetryPolicy, as RetryPolicy.builder() makes"
        )
    if given:
        raise WorkflowError(f"retry and {', '.join(given)} are given; use one of them, not both")
    return retry


def _policy_of(given: dict[str, Any]) -> RetryPolicy:
    values: dict[str, Any] = {}
    if "retry_attempts" in given:
        values["max_attempts"] = checked_attempts(given["retry_attempts"], "retry_attempts")
    if "retry_for" in given:
        values["retry_for"] = checked_span(given["retry_for"], "retry_for")
    if "retry_delay_ms" in given:
        values["initial_delay"] = checked_seconds(given["retry_delay_ms"], "retry_delay_ms", unit_us=1_000)
    if "retry_max_delay_ms" in given:
        values["max_delay"] = checked_seconds(
            given["retry_max_delay_ms"], "retry_max_delay_ms", unit_us=1_000
        )
    if "retry_backoff" in given:
        values["backoff_strategy"] = _chosen(
            given["retry_backoff"],
            "retry_backoff",
            {
                "fixed": BackoffStrategy.fixed(),
                "linear": BackoffStrategy.linear(1.0),
                "exponential": BackoffStrategy.exponential(2.0),
            },
        )
    if "retry_condition" in given:
        values["retry_condition"] = _chosen(
            given["retry_condition"],
            "retry_condition",
            {
                "never": RetryCondition.never(),
                "transient": RetryCondition.transient_only(),
                "all": RetryCondition.all_errors(),
            },
        )
    if "retry_jitter" in given:
        values["with_jitter"] = checked_bool(given["retry_jitter"], "retry_jitter")
    return RetryPolicy.builder()._with(**values).build()


def _chosen(value: object, argument: str, choices: dict[str, Any]) -> Any:
    chosen = choices.get(value.lower()) if isinstance(value, str) else None
    if chosen is None:
        raise WorkflowError(f"{argument} is {excerpt(value)}; it must be {', '.join(choices)}")
    return chosen
