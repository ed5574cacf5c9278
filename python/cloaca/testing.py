"""A runner on a manual clock, for tests: an hour of polling takes as long as its bodies do.

Invariant: time stands still but for `Runner.advance` and `Runner.execute`.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from time import monotonic

from . import attempt, imported, place, registry
from .by_hand import Handle, Known, ended
from .check import LAST_US, count, flag, kept, microseconds, one_of, optional_text, seconds, text
from .check import run_id as checked_run_id
from .chosen import KEPT_BY, chosen, outside
from .config import DefaultRunnerConfig, checked_config
from .context import DEPTH_MAX, Context, checked_value, decode_value, encode, encode_value
from .duration import microseconds_of
from .end import raised_by
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    RunnerError,
    ScheduleError,
    WorkflowError,
    excerpt,
)
from .heard import Heard
from .job import Job
from .kind import is_awaitable
from .near import hint, says_keywords
from .rows import moment
from .runner import DefaultRunner
from .tick import Tick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import Any, Literal

    from .places import Places
    from .result import WorkflowResult
    from .run import Run
    from .types import ContextLike, Duration, Redact, RunDetails, RunEnd, TaskBody, TickAnswer
    from .urgency import Urgency
    from .workflow import Workflow

PATIENCE_SECONDS = 30.0
"""How long in real time the bodies may take that one call sets off."""
LOOK_SECONDS = 1.0
"""How long in real time the conditions of `defer_until` may take, before they are not waited for."""
_RUNS_MAX = 2**31


def tick(
    *,
    cursor: Any = None,
    last_fired_at: str | datetime | None = None,
    scheduled_at: str | datetime = "2026-01-01T00:00:00Z",
    consecutive_failures: int = 0,
    last_error: str | None = None,
    unfinished: int = 0,
    last_run: Mapping[str, Any] | None = None,
    trigger_name: str = "trigger",
) -> Tick:
    """A tick, to call a trigger's function by hand: `assert poll(tick(cursor=4)) == TriggerResult.fire()`.

    Args:
        cursor (Any): what the poll before left in `tick.cursor`, a JSON value; the tick gets a copy.
        last_fired_at (str | datetime | None): when the trigger last fired, RFC 3339; UTC without a zone.
        scheduled_at (str | datetime): when the poll was due, likewise.
        consecutive_failures (int): how many polls in a row have failed before this one.
        last_error (str | None): what went wrong in the poll before.
        unfinished (int): how many runs of the trigger are not over.
        last_run (Mapping | None): the newest run of the trigger: as much of what `tick.last_run` has as the
            function looks at, such as `{"status": "Failed"}`.
        trigger_name (str): the trigger.

    What the function does with it can be read back: `tick.cursor`, `tick.poll_after_seconds`.

    Raises:
        TypeError: JSON does not know the cursor, or another argument is of another type.
        ValueError: JSON cannot hold the cursor, a time is none, or a number is below 0.
    """
    if last_run is not None and not isinstance(last_run, Mapping):
        raise ArgumentTypeError(
            f"last_run is {excerpt(last_run)}; it must be a dict as tick.last_run has, or None"
        )
    run: Any = None if last_run is None else dict(last_run)
    body: Any = Known(count(unfinished, "unfinished"), run)
    return Tick(
        text(trigger_name, "trigger_name"),
        None if cursor is None else encode_value(checked_value(cursor, "cursor", DEPTH_MAX)),
        moment(microseconds(scheduled_at, "scheduled_at")),
        None if last_fired_at is None else moment(microseconds(last_fired_at, "last_fired_at")),
        count(consecutive_failures, "consecutive_failures"),
        optional_text(last_error, "last_error"),
        body=body,
    )


def handle(
    *,
    checkpointed: Any = None,
    attempt: int = 1,
    run_id: str = "00000000-0000-7000-8000-000000000000",
    task_id: str = "task",
) -> Handle:
    """A task's handle, to call its function by hand: `download(context, handle(checkpointed=3))`.

    `checkpoint` checks and keeps what it is given: `handle.checkpointed` is the last, `handle.checkpoints`
    all, oldest first. `defer_until` looks at its condition all the time, and its `timeout` is real time.

    Args:
        checkpointed (Any): what an earlier attempt left, a JSON value; the handle gets a copy.
        attempt (int): the number of this attempt, from 1.
        run_id (str): the run, a UUID.
        task_id (str): the task.

    Raises:
        TypeError: JSON does not know the value, or another argument is of another type.
        ValueError: JSON cannot hold the value, the attempt is below 1, or `run_id` is no UUID.
    """
    from uuid import UUID

    number = count(attempt, "attempt")
    if number < 1:
        raise ArgumentError(f"attempt is {number}; attempts are counted from 1")
    job = Job(UUID(checked_run_id(run_id)).int, 0, number, False, 0)
    kept = (
        None if checkpointed is None else encode_value(checked_value(checkpointed, "checkpointed", DEPTH_MAX))
    )
    return Handle(job, text(task_id, "task_id"), kept)


def run(
    *,
    workflow: str | Workflow = "workflow",
    status: RunEnd = "Completed",
    context: ContextLike | None = None,
    final_context: ContextLike | None = None,
    error: BaseException | str | None = None,
    task_id: str = "task",
    trigger_name: str | None = None,
    run_key: str | None = None,
    run_id: str = "00000000-0000-7000-8000-000000000000",
    completed_at: str | datetime = "2026-01-01T00:00:00Z",
) -> RunDetails:
    """A run that has ended, to call by hand what is told of it: a workflow's `on_success`, `on_failure` or
    `on_cancel`, or the function of a trigger with `on_run`: `alert(run(status="Failed", error="no price"))`.

    Everything that `runner.get_run` tells is there. It has one task, and took no time; one that was cancelled
    had not begun. What else the function looks at can be set in it: `run(...) | {"priority": 9}`.

    Args:
        workflow (str | Workflow): what it ran, or the name of that.
        status (str): `"Completed"`, `"Failed"` or `"Cancelled"`.
        context (Context | Mapping | None): what it began with; by default nothing.
        final_context (Context | Mapping | None): what it ended with; by default what it began with.
        error (BaseException | str | None): what its task raised, if it failed; a text is a `RuntimeError`'s.
        task_id (str): its task.
        trigger_name, run_key (str | None): the trigger that fired it, and its run key.
        run_id (str): the run, a UUID.
        completed_at (str | datetime): when it ended, RFC 3339; UTC without a zone.

    Raises:
        TypeError: JSON does not know what is in a context, or another argument is of another type.
        ValueError: JSON cannot hold a context; `status` is no end, or has no `error`; `run_id` is no UUID; or
            `completed_at` is no time.
    """
    checked: Any = one_of(status, ("Completed", "Failed", "Cancelled"), "status")
    if error is not None and checked != "Failed":
        raise ArgumentError(f"error is {excerpt(error)}, and status {checked!r}; only a Failed run has one")
    if error is not None and not isinstance(error, BaseException | str):
        raise ArgumentTypeError(f"error is {excerpt(error)}; it must be an exception, or its text")
    failure = error if isinstance(error, BaseException) else RuntimeError(error or "it failed")
    began_with = encode(context)
    return ended(
        run_id=checked_run_id(run_id),
        workflow=_workflow_name(workflow),
        status=checked,
        task_id=text(task_id, "task_id"),
        context=began_with,
        final_context=began_with if final_context is None else encode(final_context),
        raised=raised_by(failure) if checked == "Failed" else None,
        trigger_name=optional_text(trigger_name, "trigger_name"),
        run_key=optional_text(run_key, "run_key"),
        at=moment(kept(microseconds(completed_at, "completed_at"), completed_at, "completed_at")),
    )


@contextmanager
def isolated(
    *, triggers: Iterable[Callable[..., Any] | str] | Literal["all"] | None = None
) -> Iterator[None]:
    """Within, the process has declared nothing, and what is declared is forgotten at the end.

    Then everything stands as before. Runners made outside hear nothing of what is declared within. One made
    within should be shut down within. It holds for the whole process, so not for two threads at a time.

    Args:
        triggers (Iterable[Callable | str] | "all" | None): functions or names of triggers that stay declared
            within, and with them all workflows; `"all"` for each trigger that there is.

    Raises:
        TriggerError: (a `ValueError`) no such trigger is declared.
        TypeError: `triggers` is no list, or holds what is neither a function nor a name.
    """
    stay = frozenset(registry.triggers) if triggers == "all" else chosen(triggers).triggers
    put_back = registry.put_aside(stay)
    try:
        yield
    finally:
        try:
            put_back()
        finally:
            put_back()


def _workflow_name(workflow: object) -> str:
    name: str = text(getattr(workflow, "name", workflow), "workflow")
    return name


def _fake(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but that a mock for an answer, which nobody has asked for, is none."""

    def call(*arguments: Any) -> Any:
        returned = function(*arguments)
        return settled(returned) if is_awaitable(returned) else without_mock(returned)

    async def settled(returned: Any) -> Any:
        return without_mock(await returned)

    def without_mock(returned: Any) -> Any:
        mock = imported.found("unittest.mock", "NonCallableMock")
        return None if mock is not None and isinstance(returned, mock) else returned

    return call


class Runner(DefaultRunner):
    """A `DefaultRunner` over `:memory:` whose clock moves only when told. Bodies for executors run on its
    threads.

    Args:
        start (str | datetime): what its clock shows at first, RFC 3339.
        config (DefaultRunnerConfig | None): other settings than the defaults.
        triggers (Iterable[Callable | str] | None): functions or names of the declared triggers that it polls,
            and no other; by default all, also those declared later. Workflows it knows all.
        raise_errors (bool): raise what a trigger or callback raised, why a poll failed otherwise, or why a
            run failed (what its task raised), from the next call that moves the clock or waits; of several
            the first, with notes of the others.
        redact (Iterable[str] | Callable | None): as `DefaultRunner` takes it.

    Raises:
        ScheduleError: (a `ValueError`) `start` is no time.
        TriggerError: (a `ValueError`) one of `triggers` is not declared.
    """

    _heard: Heard | None = None
    # Whether it needs no more to be said that it knows nothing: while it is made that is no wonder.
    _is_told = True
    # Who moves its clock waits for the bodies, on whatever thread that is.
    _uses_program_loop = False

    @says_keywords("testing.Runner")
    def __init__(
        self,
        start: str | datetime = "2026-01-01T00:00:00Z",
        config: DefaultRunnerConfig | None = None,
        *,
        triggers: Iterable[Callable[..., Any] | str] | None = None,
        raise_errors: bool = False,
        redact: Redact | None = None,
    ) -> None:
        only = chosen(triggers)
        if flag(raise_errors, "raise_errors"):
            self._heard = Heard()
            self._hear = self._heard.hear
        try:
            start_us = microseconds(start, "start")
        except ScheduleError as error:
            raise ScheduleError(
                f"start is {excerpt(start)}, and is when its clock begins: {error}. It is always in memory;"
                " over a file make a cloaca.DefaultRunner"
            ) from None
        kept(start_us, start, "start", ScheduleError)
        self._start(":memory:", checked_config(config), None, start_us, only, redact=redact)
        self._crew.look_at_once()
        try:
            self.run_until_idle()
        except BaseException:
            self.shutdown(0.0)
            raise
        self._is_told = False

    def _executors(self, places: Places) -> Mapping[str, int]:
        # A test of a workflow needs no processes: bodies for other executors run on threads.
        return defaultdict(int, places.numbers)

    @property
    def now(self) -> str:
        """What the clock shows, RFC 3339 in UTC."""
        return moment(self._open().now())

    def advance(self, span: Duration) -> None:
        """Moves the clock and does, in order, everything that becomes due on the way.

        Args:
            span (Duration): a duration such as `"1h"`, seconds, or a `timedelta`.

        Raises:
            RunnerError: (a `RuntimeError`) a body does not come back, a body calls it, or one has shut the
                runner down.
            ArgumentError: (a `ValueError`) it goes beyond the year 9999, after which there are no dates.
        """
        span_us = microseconds_of(span, "span", smallest_us=0)
        if self._open().now() + span_us > LAST_US:
            raise ArgumentError(
                f"span is {excerpt(span)}, and the clock shows {self.now}: it ends with the year 9999, after"
                " which there are no dates; begin earlier, with start="
            )
        self._advance(span_us)

    def run_until_idle(self) -> None:
        """Does everything that is due now, and waits until it is done. Raises what `advance` raises."""
        self._advance(0)

    def _advance(self, span_us: int) -> None:
        if not self._is_told and registry.is_all_aside():
            self._is_told = True
            warnings.warn(
                "this runner knows no trigger and no workflow, so that nothing happens: what the program"
                f" declares is outside of what is isolated here; keep it with {KEPT_BY}",
                UserWarning,
                stacklevel=3,
            )
        self._move(span_us)
        # What the test has changed may be what a task waits for.
        while self._crew.wait_looked(LOOK_SECONDS):
            self._move(0)
        self._wait_told()
        self._raise_errors()

    def _move(self, span_us: int) -> None:
        engine = self._open()
        body = attempt.body(engine)
        # Nobody waits for what is told of the end of a run before the clock moves.
        if body is not None and not isinstance(body, attempt.calling):
            raise RunnerError(
                "a trigger or task of this runner moves its clock, which waits for that very body to come"
                " back; call advance and run_until_idle from the test"
            )
        if not engine.advance(span_us, PATIENCE_SECONDS):
            # A body, or another thread, has shut it down meanwhile.
            self._open()
            raise RunnerError(
                f"a trigger or task did not come back within {PATIENCE_SECONDS:g} s of real time"
            )

    def _wait_told(self) -> None:
        if attempt.body(self._engine) is None and not self._crew.ends.wait_home(PATIENCE_SECONDS):
            raise RunnerError(
                f"a callback of a run did not come back within {PATIENCE_SECONDS:g} s of real time"
            )
        # Log lines, too: a test looks for them next.
        if not self._crew.is_keeper() and not self._open().wait_carried_out(PATIENCE_SECONDS):
            raise RunnerError(f"a log handler did not come back within {PATIENCE_SECONDS:g} s of real time")
        if not self._crew.teller.wait_told(self._open().polls.failures_given(), PATIENCE_SECONDS):
            raise RunnerError(
                f"on_poll_failed or on_disabled did not come back within {PATIENCE_SECONDS:g} s of real time"
            )

    def _raise_errors(self) -> None:
        if self._heard is not None and attempt.current(self._engine) is None:
            self._heard.raise_first(self._open(), self._declarations.crons)

    def tick(
        self, trigger_name: Callable[..., Any] | str, dry_run: bool = False, *, unmasked: bool = False
    ) -> TickAnswer:
        """Polls a trigger once, now, on this thread. Like `DefaultRunner.tick`, but for `raise_errors`."""
        told = super().tick(trigger_name, dry_run, unmasked=unmasked)
        self._wait_told()
        self._raise_errors()
        return told

    def execute(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        check: bool = False,
        timeout: Duration | None = None,
        priority: int | None = None,
    ) -> WorkflowResult:
        """Runs a workflow, moving the clock over the delays of its retries, at most by `timeout` seconds.
        Raises what `DefaultRunner.execute` raises."""
        if attempt.current(self._engine) is not None:
            # Whoever moves the clock waits for this very body.
            return super().execute(workflow_name, context, check=check, timeout=timeout, priority=priority)
        checks = flag(check, "check")
        left = None if timeout is None else round(seconds(timeout, "timeout") * 1_000_000)
        run = self.submit(workflow_name, context, priority=priority)
        self.run_until_idle()
        while self._open().runs.run(run.id)["completed_at"] is None:
            due = self._open().next_due()
            if due is None:
                raise RunnerError(f"run {run.id} waits for nothing that the clock could bring")
            if left is not None and due > left:
                self._advance(left)
                raise TimeoutError(f"run {run.id} is not final after {timeout} s")
            self._advance(due)
            left = None if left is None else left - due
        result = run.result()
        return result.raise_for_failure() if checks else result

    async def execute_async(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        check: bool = False,
        timeout: Duration | None = None,
        cancel_on_abandon: bool = False,
        priority: int | None = None,
    ) -> WorkflowResult:
        """Like `execute`, without blocking the event loop. The run is over when the wait is, so that there is
        nothing to cancel."""
        import asyncio

        flag(cancel_on_abandon, "cancel_on_abandon")
        if attempt.current(self._engine) is not None:
            return await super().execute_async(
                workflow_name, context, check=check, timeout=timeout, priority=priority
            )
        # The clock is moved meanwhile.
        return await asyncio.to_thread(
            self.execute, workflow_name, context, check=check, timeout=timeout, priority=priority
        )

    _way_out = "; the clock stands still: advance the clock with runner.advance(...)"

    def _patience(self, seconds: float | None) -> float | None:
        # In a body the call that moves the clock waits for this very body.
        if self._closed or attempt.current(self._engine) is not None:
            return seconds
        if seconds is None:
            self.run_until_idle()
            return 0.0
        until = monotonic() + seconds
        self._open().advance(0, min(seconds, PATIENCE_SECONDS))
        self._raise_errors()
        return max(0.0, until - monotonic())

    def replace_task(
        self,
        task: Callable[..., Any] | str,
        fake: TaskBody,
        *,
        workflow: str | Workflow | None = None,
    ) -> None:
        """Has this runner call another function in a task's place; its retries and callbacks stay.

        A workflow that is declared again afterwards has its own function back.

        Args:
            task (Callable | str): its function or its id, in each workflow that has such a task.
            fake (Callable): takes and returns what a task does. It may be a mock; one that was not told what
                to return leaves the context as it is.
            workflow (str | Workflow | None): only in this workflow.

        Raises:
            TypeError: `task` is neither function nor text, `workflow` is none, or `fake` is no function.
            ValueError: no such task or workflow, or `fake` takes other parameters than a task.
        """
        self._open()
        if not callable(task):
            text(task, "task")
        if not callable(fake):
            raise ArgumentTypeError(f"fake is {excerpt(fake)}; it must be a function")
        names = registry.names()
        where = ""
        if workflow is not None:
            name = _workflow_name(workflow)
            where = f" in workflow {excerpt(name)}"
            if name not in names:
                raise WorkflowError(f"no workflow {excerpt(name)}{hint(name, 'workflows', names)}")
            names = [name]
        found = [declared for name in names if (declared := registry.workflow(name)) is not None]
        tasks = [each for declared in found for each in declared._tasks]
        chosen = [each for each in tasks if task in (each.id, each.function)]
        if not chosen:
            ids = sorted({each.id for each in tasks})
            aside = registry.workflow_aside(task if isinstance(task, str) else task.__name__)
            where += "" if aside is None else outside(aside)
            if isinstance(task, str):
                raise WorkflowError(f"no task {excerpt(task)}{where}{hint(task, 'tasks', ids)}")
            raise WorkflowError(f"{place.of_function(task)} is no task{where}{hint('', 'tasks', ids)}")
        for each in chosen:
            replaced = each.with_function(fake)
            replaced.function = _fake(fake)
            for number, known in list(self._crew.tasks.items()):
                if each in (known, known.replaces):
                    self._crew.tasks[number] = replaced

    def fired(self, workflow: str | Workflow) -> list[Context]:
        """The contexts with which triggers and crons started this workflow, oldest first. What `tick` starts
        of a cron is nobody's: it is beside the calendar.

        Raises:
            WorkflowError: (a `ValueError`) no such workflow.
        """
        rows = self._open().store.query(
            "SELECT context FROM runs WHERE workflow = ? AND schedule IS NOT NULL ORDER BY row",
            [name := _workflow_name(workflow)],
        )
        if not rows and not registry.knows(name):
            raise WorkflowError(
                f"no workflow {excerpt(name)}{hint(name, 'workflows', registry.names())}{outside(name)}"
            )
        return [Context._wrap(decode_value(row["context"])) for row in rows]

    def polls(self, trigger: Callable[..., Any] | str) -> int:
        """How often a trigger was polled.

        Args:
            trigger (Callable | str): its function or its name.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        return sum(tick["count"] for tick in self.ticks(trigger, _RUNS_MAX))

    def _submit(
        self,
        workflow_name: object,
        context: ContextLike | None,
        when: Urgency | None = None,
        parent: str | None = None,
    ) -> Run:
        try:
            return super()._submit(workflow_name, context, when, parent)
        except WorkflowError as error:
            name = str(getattr(workflow_name, "name", workflow_name))
            if not (told := outside(name)):
                raise
            raise WorkflowError(f"{error}{told}") from None

    def _refuse_unserved(self, workflow_name: object, context: ContextLike | None) -> None:
        """`_submit` knows more of what is missing here."""

    def _unknown_trigger(self, name: str) -> str:
        return super()._unknown_trigger(name) + outside(name)
