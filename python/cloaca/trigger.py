"""`@trigger`: records a function that is polled, and what it fires. Never calls it.

Invariant: a definition is complete and checked when it is registered, and doesn't change afterwards.
Longer than a room should be: one public decorator, with what it promises and all that it refuses.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

from . import registry
from . import trigger_arguments as arguments
from .body import (
    answers,
    is_async,
    is_async_generator,
    name_of,
    parameters_of,
    takes_nothing,
    unbound,
    way_out_of_method,
)
from .check import checked_callback
from .duration import microseconds_of
from .errors import TriggerError, excerpt
from .name import checked_name
from .near import hint, refuse_keywords
from .policy import Backoff
from .version import origin_of
from .workflow import Workflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar, overload

    from .types import (
        Catchup,
        CronBody,
        Duration,
        OnDisabled,
        OnPollFailed,
        Overlap,
        PollBody,
        RunEnd,
        RunEndBody,
        TriggerRef,
    )

    AnyPollBody = TypeVar("AnyPollBody", bound=PollBody)
    AnyCronBody = TypeVar("AnyCronBody", bound=CronBody)
    AnyRunEndBody = TypeVar("AnyRunEndBody", bound=RunEndBody)

POLL_INTERVAL_US = 30_000_000
_KINDS_MAX = 256
"""So many different sets of arguments are remembered."""


class TriggerKind:
    """What a trigger fires, and how it is polled or scheduled. Triggers declared alike share one.

    Durations are whole microseconds; `interval_us` is `None` if and only if `cron` or `on_run` isn't.
    """

    __slots__ = (
        "allow_concurrent",
        "catchup",
        "cron",
        "executor",
        "interval_us",
        "jitter_us",
        "max_consecutive_failures",
        "on_disabled",
        "on_error",
        "on_poll_failed",
        "on_run",
        "overlap",
        "poll_at_start",
        "poll_timeout_us",
        "statuses",
        "timezone",
        "workflow",
    )

    def __init__(
        self,
        *,
        workflow: str | None,
        interval_us: int | None,
        cron: str | None,
        timezone: str,
        allow_concurrent: bool,
        jitter_us: int,
        poll_timeout_us: int | None,
        overlap: str | None,
        max_consecutive_failures: int | None,
        on_error: Backoff | None,
        poll_at_start: bool,
        on_poll_failed: OnPollFailed | None,
        on_disabled: OnDisabled | None,
        catchup: str | None,
        executor: str | None,
        on_run: str | None,
        statuses: tuple[str, ...],
    ) -> None:
        self.workflow = workflow
        self.interval_us = interval_us
        self.cron = cron
        self.timezone = timezone
        self.allow_concurrent = allow_concurrent
        self.jitter_us = jitter_us
        self.poll_timeout_us = poll_timeout_us
        self.overlap = overlap
        self.max_consecutive_failures = max_consecutive_failures
        self.on_error = on_error
        self.poll_at_start = poll_at_start
        self.on_poll_failed = on_poll_failed
        self.on_disabled = on_disabled
        self.catchup = catchup
        self.executor = executor
        """Where it is polled; `None` in the runner's process."""
        self.on_run = on_run
        self.statuses = statuses
        """Of whose runs' ends it is told instead of being polled, and of which."""

    def is_heard(self) -> bool:
        """Whether the program wants to hear of failed polls."""
        return self.on_poll_failed is not None or self.on_disabled is not None


class TriggerDefinition:
    """One trigger as declared. Small, as there may be a million."""

    __slots__ = ("function", "is_async", "kind", "name", "origin", "takes_tick")

    def __init__(
        self, name: str, function: Callable[..., Any], kind: TriggerKind, *, takes_tick: bool, is_async: bool
    ) -> None:
        self.name = name
        self.function = function
        self.kind = kind
        self.takes_tick = takes_tick
        self.is_async = is_async
        self.origin = origin_of(function)

    @property
    def overlap(self) -> str | None:
        """What a fire does while a run is unfinished."""
        return self.kind.overlap

    def __repr__(self) -> str:
        return f"TriggerDefinition(name={self.name!r}, workflow={self.kind.workflow!r})"


if TYPE_CHECKING:

    @overload
    def trigger(function: AnyPollBody, /) -> AnyPollBody: ...
    @overload
    def trigger(
        *,
        workflow: str | Workflow | None = None,
        on: str | Workflow | None = None,
        name: str | None = None,
        cron: str,
        timezone: str | None = None,
        allow_concurrent: bool = False,
        overlap: Overlap | None = None,
        catchup: Catchup | None = None,
        executor: str | None = None,
    ) -> Callable[[AnyCronBody], AnyCronBody]: ...
    @overload
    def trigger(
        *,
        workflow: str | Workflow | None = None,
        on: str | Workflow | None = None,
        name: str | None = None,
        on_run: str | Workflow,
        status: RunEnd | Sequence[RunEnd] | None = None,
        allow_concurrent: bool = False,
        poll_timeout: Duration | None = None,
        overlap: Overlap | None = None,
        max_consecutive_failures: int | None = None,
        on_error: Backoff | None = None,
        on_poll_failed: OnPollFailed | None = None,
        on_disabled: OnDisabled | None = None,
    ) -> Callable[[AnyRunEndBody], AnyRunEndBody]: ...
    @overload
    def trigger(
        *,
        workflow: str | Workflow | None = None,
        on: str | Workflow | None = None,
        name: str | None = None,
        poll_interval: Duration | None = None,
        cron: None = None,
        timezone: None = None,
        allow_concurrent: bool = False,
        jitter: Duration | None = None,
        poll_timeout: Duration | None = None,
        overlap: Overlap | None = None,
        max_consecutive_failures: int | None = None,
        on_error: Backoff | None = None,
        poll_at_start: bool = False,
        on_poll_failed: OnPollFailed | None = None,
        on_disabled: OnDisabled | None = None,
        executor: str | None = None,
    ) -> Callable[[AnyPollBody], AnyPollBody]: ...


def trigger(
    function: Callable[..., Any] | None = None,
    /,
    *,
    workflow: str | Workflow | None = None,
    on: str | Workflow | None = None,
    name: str | None = None,
    poll_interval: Duration | None = None,
    cron: str | None = None,
    timezone: str | None = None,
    allow_concurrent: bool = False,
    jitter: Duration | None = None,
    poll_timeout: Duration | None = None,
    overlap: Overlap | None = None,
    max_consecutive_failures: int | None = None,
    on_error: Backoff | None = None,
    poll_at_start: bool = False,
    on_poll_failed: OnPollFailed | None = None,
    on_disabled: OnDisabled | None = None,
    catchup: Catchup | None = None,
    executor: str | None = None,
    on_run: str | Workflow | None = None,
    status: RunEnd | Sequence[RunEnd] | None = None,
    **unknown: Any,
) -> Any:
    """Registers a function that every runner polls, and returns the function itself.

    `workflow`, or its synonym `on`, names what it fires: a name or a `Workflow`. `name` is the function's
    name unless given; the same name again replaces. `poll_interval` is a duration such as `"5s"`, seconds as
    a number, or a `timedelta`, by default 30 s and at least 1 ms; or `cron` (5 or 6 fields) with `timezone`
    schedules the workflow instead. `jitter` is a duration or a share of the interval such as `"10%"`;
    `poll_timeout` is a duration; `overlap` is `allow`, `skip`, `queue`, `buffer_one` or `cancel_running`. A
    trigger that was never polled before waits one interval, or with `poll_at_start` is polled at once; later
    runners go on where the one before ended, and poll within 10 s if a poll was missed meanwhile. A function
    with a parameter gets a tick.

    While programs that live on one store declare it in several versions (other arguments, or another module
    or qualified name of the function), the version is polled, or runs as a cron, that was declared last for
    the first time, and an older one again once nobody declares that.

    The function of a trigger with `cron` is called only if it has a parameter (a `UserWarning` tells of one
    that has none and returns something): once for each moment, by one of all runners, with a tick whose
    `scheduled_at` is the moment. What it returns says what that starts: `None` or `True` a run, a context (a
    `Context` or a mapping) a run with that beside what tells of the moment, a `TriggerResult` or several what
    they say, and `False` or a skip nothing. Its moments start their runs whatever is unfinished, as if
    `allow_concurrent` were true, unless `overlap` says otherwise. If it raises, the moment is tried again,
    after longer and longer waits, until the next one is there. `catchup` says which moments are made up for
    that nobody was there for: `all`, the default, up to `cron_max_catchup_executions`, the `last`, or `none`.

    `executor` is the name of the place where the function is called, of those that
    `DefaultRunner(executors=...)` was given. It is found there as `module:qualname`; its tick tells what it
    told when the poll began, and what it answers, with the cursor, comes back as JSON. A `ProcessExecutor`
    stops one that is over its `poll_timeout`, for which the wait for a free place counts too; a place that
    dies costs its poll, which has failed. Without it the function is called in the runner's process.

    `on_poll_failed(name, error, failures)` is called after each failed poll, with its error as the history
    shows it and how many in a row have failed; `on_disabled(name, cause)` when `max_consecutive_failures`
    switches the trigger off. Both are called on a thread of their own, one at a time; what they raise is
    logged.

    With `on_run` it is not polled: its function is called with each run of that workflow (a name or a
    `Workflow`) that ends, whoever drove it, as `get_run` shows it, nothing hidden. `status` says which ends
    count: `Completed`, `Failed`, `Cancelled`, or a list of them; any if nothing is said. What it answers for
    an end is kept once, with the runs that it fires, and until it has answered the end waits: while nobody
    declares it, while it is switched off, and while it raises, after longer and longer waits. A run that is
    opened again has an end more. Ends before the first declaration are not told. Each end is an event of its
    own, so that equal contexts of two of them are two runs. Where 100 ends have led to one another, each by a
    run that a trigger fired for the one before, the function is not called for the next.

    Raises:
        TriggerError: (a `ValueError`) an argument that makes no sense; the message names it.
        ScheduleError: (a `ValueError`) a cron expression of the wrong form.
    """
    if unknown:
        refuse_keywords("@trigger", unknown, trigger.__kwdefaults__)
    if function is not None and not callable(function):
        raise TriggerError(
            f"@trigger decorates a function; got {excerpt(function)}. Give @trigger(workflow=...)"
        )
    own_name = None if name is None else checked_name(name, "name", TriggerError)
    fired = _workflow_name(workflow, on)
    heard = None if on_run is None else _name_of_workflow(on_run, "on_run")
    given = (
        fired,
        poll_interval,
        cron,
        timezone,
        allow_concurrent,
        jitter,
        poll_timeout,
        overlap,
        max_consecutive_failures,
        on_error,
        poll_at_start,
        on_poll_failed,
        on_disabled,
        catchup,
        executor,
        heard,
        tuple(status) if isinstance(status, list) else status,
    )
    try:
        kind = _kind(*given)
    except TypeError:
        kind = None
    if kind is None:
        # An argument without a hash cannot be remembered.
        kind = _kind.__wrapped__(*given)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        trigger_name = _trigger_name(own_name, function)
        is_plain = takes_nothing(function)
        takes_tick = not is_plain and kind.on_run is None and _takes_tick(function, trigger_name, kind)
        if kind.on_run is not None:
            _check_takes_run(function, trigger_name)
        if kind.executor is not None:
            _check_travels(function, trigger_name, kind, takes_tick)
        definition = TriggerDefinition(
            trigger_name,
            function,
            kind,
            takes_tick=takes_tick,
            is_async=not is_plain and is_async(function),
        )
        for given in (workflow, on, on_run):
            if isinstance(given, Workflow) and registry.workflow(given.name) is None:
                registry.add_workflow(given)
        registry.add_trigger(definition)
        if kind.cron is not None and not takes_tick and answers(function):
            shown = name_of(function) or trigger_name
            warnings.warn(
                f'trigger "{trigger_name}" has a cron and a function without a parameter, which is never'
                " called: what that returns counts for nothing, and each moment starts a run. Give it a"
                f" parameter, def {shown}(tick), then it decides each moment",
                UserWarning,
                stacklevel=2,
            )
        return function

    return decorate if function is None else decorate(function)


def unregister_trigger(name: TriggerRef) -> None:
    """Declares a trigger, told by its name or its function, no more: the runners of this process stop polling
    it, and its cron runs only where other programs declare it.

    What the store keeps of it stays: declared again, it goes on with its cursor, and one poll, or its cron,
    makes up for what it missed. A poll in flight still counts. Another process that declares it polls it from
    then on, once a poll that is in flight here is over.

    Raises:
        TriggerError: (a `ValueError`) no such trigger is declared.
    """
    if callable(name):
        from .chosen import name_of_one

        name = name_of_one(name)
    checked = checked_name(name, "name", TriggerError)
    if not registry.drop_trigger(checked):
        known = hint(name, "triggers", sorted(registry.triggers))
        raise TriggerError(f"trigger {excerpt(name)} is not declared{known}")


@lru_cache(_KINDS_MAX, typed=True)
def _kind(
    workflow: str | None,
    poll_interval: Duration | None,
    cron: str | None,
    timezone: str | None,
    allow_concurrent: bool,
    jitter: Duration | None,
    poll_timeout: Duration | None,
    overlap: str | None,
    max_consecutive_failures: int | None,
    on_error: Backoff | None,
    poll_at_start: bool,
    on_poll_failed: OnPollFailed | None,
    on_disabled: OnDisabled | None,
    catchup: str | None,
    executor: str | None,
    on_run: str | None,
    status: object,
) -> TriggerKind:
    """What these arguments mean, once they are checked. The same ones are checked once."""
    interval_us = (
        POLL_INTERVAL_US if poll_interval is None else microseconds_of(poll_interval, "poll_interval")
    )
    kind = TriggerKind(
        workflow=workflow,
        interval_us=interval_us if cron is None and on_run is None else None,
        cron=arguments.checked_cron(cron),
        timezone=arguments.checked_timezone(timezone),
        # Each end is an event of its own.
        allow_concurrent=arguments.checked_flag(allow_concurrent, "allow_concurrent") or on_run is not None,
        jitter_us=arguments.jitter_us(jitter, interval_us),
        poll_timeout_us=None if poll_timeout is None else microseconds_of(poll_timeout, "poll_timeout"),
        overlap=arguments.checked_overlap(overlap),
        max_consecutive_failures=arguments.checked_failures(max_consecutive_failures),
        on_error=arguments.checked_backoff(on_error),
        poll_at_start=arguments.checked_flag(poll_at_start, "poll_at_start"),
        on_poll_failed=checked_callback(on_poll_failed, "on_poll_failed", TriggerError),
        on_disabled=checked_callback(on_disabled, "on_disabled", TriggerError),
        catchup=arguments.checked_catchup(catchup, cron),
        executor=arguments.checked_executor(executor),
        on_run=on_run,
        statuses=arguments.checked_statuses(status, on_run),
    )
    # Each makes sense by itself; now together.
    if on_run is not None:
        arguments.refuse_for_ends(
            on_run,
            poll_interval=poll_interval,
            cron=cron,
            jitter=jitter,
            poll_at_start=poll_at_start or None,
            executor=executor,
        )
    if kind.cron is None:
        arguments.refuse_without_cron(timezone, kind.jitter_us, jitter, interval_us)
    else:
        from ._cloaca import check_cron

        if workflow is None:
            raise TriggerError(
                f"cron is {excerpt(cron)} without a workflow; say what it starts with workflow=..."
            )
        if poll_interval is not None:
            raise TriggerError(
                f"poll_interval is {excerpt(poll_interval)} and cron is {excerpt(cron)}; a trigger is polled"
                " or scheduled, give one of them"
            )
        check_cron(kind.cron, kind.timezone)
        arguments.refuse_polling(
            jitter=jitter,
            poll_timeout=poll_timeout,
            max_consecutive_failures=max_consecutive_failures,
            on_error=on_error,
            poll_at_start=poll_at_start or None,
            on_poll_failed=on_poll_failed,
            on_disabled=on_disabled,
        )
    return kind


def _check_travels(function: Callable[..., Any], name: str, kind: TriggerKind, takes_tick: bool) -> None:
    from .bodies.remote import check_travels

    assert kind.executor is not None, "it names one"
    if kind.cron is not None and not takes_tick:
        raise TriggerError(
            f'trigger "{name}" names executor "{kind.executor}" and a cron, whose function is called only if'
            " it has a parameter; give it one, as def decide(tick), or leave executor out"
        )
    check_travels(function, f'trigger "{name}"', kind.executor, TriggerError)


def _trigger_name(name: str | None, function: object) -> str:
    if not callable(function):
        raise TriggerError(f"@trigger decorates a function; got {excerpt(function)}")
    if name is not None:
        return name
    own = name_of(function)
    if own is None:
        raise TriggerError(f"{excerpt(function)} has no name of its own; give it one with @trigger(name=...)")
    return checked_name(own, "name", TriggerError)


def _takes_tick(function: Callable[..., Any], name: str, kind: TriggerKind) -> bool:
    if is_async_generator(function):
        raise TriggerError(f'trigger "{name}" is an async generator; return a list of results instead')
    parameters = parameters_of(function)
    if parameters is None:
        return False
    if (first := unbound(function, parameters)) is not None:
        raise TriggerError(f'trigger "{name}" {way_out_of_method("cloaca.trigger", function, first)}')
    missing = parameters.names[1 : parameters.required] + parameters.keywords_required
    if missing:
        raise TriggerError(
            f'trigger "{name}" needs {", ".join(missing)}; it is called with nothing, or with a tick'
        )
    # A cron's function is called only if it can be told for which moment.
    return parameters.required == 1 or (kind.cron is not None and bool(parameters.names))


def _check_takes_run(function: Callable[..., Any], name: str) -> None:
    if is_async_generator(function):
        raise TriggerError(f'trigger "{name}" is an async generator; return a list of results instead')
    parameters = parameters_of(function)
    if parameters is None:
        return
    if (first := unbound(function, parameters)) is not None:
        raise TriggerError(f'trigger "{name}" {way_out_of_method("cloaca.trigger", function, first)}')
    if not parameters.names or parameters.required > 1 or parameters.keywords_required:
        raise TriggerError(
            f'trigger "{name}" has on_run, and is called with the run that has ended: def {name}(run)'
        )


def _workflow_name(workflow: object, on: object) -> str | None:
    if workflow is None and on is None:
        return None
    names = [
        _name_of_workflow(given, argument)
        for given, argument in ((workflow, "workflow"), (on, "on"))
        if given is not None
    ]
    if len(names) == 2 and names[0] != names[1]:
        raise TriggerError(
            f"workflow is {excerpt(names[0])} and on is {excerpt(names[1])}; they mean the same, give one"
        )
    return names[0] if names else None


def _name_of_workflow(given: object, argument: str) -> str:
    return given.name if isinstance(given, Workflow) else checked_name(given, argument, TriggerError)
