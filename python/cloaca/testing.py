"""A runner on a manual clock, for tests: an hour of polling takes as long as its bodies do.

Invariant: time stands still but for `Runner.advance` and `Runner.execute`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import contextmanager
from time import monotonic

from . import attempt, place, registry
from .answer import is_awaitable
from .check import count, flag, microseconds, text
from .chosen import chosen, names_of_trigger, outside
from .config import DefaultRunnerConfig, checked_config
from .context import DEPTH_MAX, Context, checked_value, decode_value, encode_value
from .duration import microseconds_of
from .errors import ArgumentTypeError, RunnerError, ScheduleError, TriggerError, WorkflowError, excerpt
from .heard import Heard
from .near import hint
from .rows import moment
from .runner import DefaultRunner
from .tick import Tick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from typing import Any

    from .result import WorkflowResult
    from .run import Run
    from .types import ContextLike, Duration, TaskBody, TickAnswer
    from .workflow import Workflow

PATIENCE_SECONDS = 30.0
"""How long in real time the bodies may take that one call sets off."""
_RUNS_MAX = 2**31


def tick(
    *,
    cursor: Any = None,
    last_fired_at: str | datetime | None = None,
    scheduled_at: str | datetime = "2026-01-01T00:00:00Z",
    consecutive_failures: int = 0,
    trigger_name: str = "trigger",
) -> Tick:
    """A tick, to call a trigger's function by hand: `assert poll(tick(cursor=4)) == TriggerResult.fire()`.

    Args:
        cursor (Any): what the poll before left in `tick.cursor`, a JSON value; the tick gets a copy.
        last_fired_at (str | datetime | None): when the trigger last fired, RFC 3339; UTC without a zone.
        scheduled_at (str | datetime): when the poll was due, likewise.
        consecutive_failures (int): how many polls in a row have failed before this one.
        trigger_name (str): the trigger.

    Raises:
        TypeError: JSON does not know the cursor, or another argument is of another type.
        ValueError: JSON cannot hold the cursor, a time is none, or the failures are below 0.
    """
    return Tick(
        text(trigger_name, "trigger_name"),
        None if cursor is None else encode_value(checked_value(cursor, "cursor", DEPTH_MAX)),
        moment(microseconds(scheduled_at, "scheduled_at")),
        None if last_fired_at is None else moment(microseconds(last_fired_at, "last_fired_at")),
        count(consecutive_failures, "consecutive_failures"),
    )


@contextmanager
def isolated(*, triggers: Iterable[Callable[..., Any] | str] | None = None) -> Iterator[None]:
    """Within, the process has declared nothing, and what is declared is forgotten at the end.

    Then everything stands as before. Runners made outside hear nothing of what is declared within. One made
    within should be shut down within. It holds for the whole process, so not for two threads at a time.

    Args:
        triggers (Iterable[Callable | str] | None): functions or names of triggers that stay declared within,
            and with them all workflows.

    Raises:
        TriggerError: (a `ValueError`) no such trigger is declared.
        TypeError: `triggers` is no list, or holds what is neither a function nor a name.
    """
    put_back = registry.put_aside(chosen(triggers).triggers)
    try:
        yield
    finally:
        put_back()


def _name_of(trigger: Callable[..., Any] | str) -> str:
    """The name of the one trigger that this function is."""
    if isinstance(trigger, str) or not callable(trigger):
        return trigger
    names = names_of_trigger(trigger)
    if len(names) > 1:
        told = ", ".join(map(repr, names))
        raise TriggerError(f"{place.of_function(trigger)} is triggers {told}; give the name")
    return names[0]


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
        mock: Any = sys.modules.get("unittest.mock")
        return None if mock is not None and isinstance(returned, mock.NonCallableMock) else returned

    return call


class Runner(DefaultRunner):
    """A `DefaultRunner` over `:memory:` whose clock moves only when told.

    Args:
        start (str | datetime): what its clock shows at first, RFC 3339.
        config (DefaultRunnerConfig | None): other settings than the defaults.
        triggers (Iterable[Callable | str] | None): functions or names of the declared triggers that it polls,
            and no other; by default all, also those declared later. Workflows it knows all.
        raise_errors (bool): raise what a trigger or callback raised, why a poll failed otherwise, or why a
            run failed (what its task raised), from the next call that moves the clock or waits; of several
            the first, with notes of the others.

    Raises:
        ScheduleError: (a `ValueError`) `start` is no time.
        TriggerError: (a `ValueError`) one of `triggers` is not declared.
    """

    _heard: Heard | None = None

    def __init__(
        self,
        start: str | datetime = "2026-01-01T00:00:00Z",
        config: DefaultRunnerConfig | None = None,
        *,
        triggers: Iterable[Callable[..., Any] | str] | None = None,
        raise_errors: bool = False,
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
        self._start(":memory:", checked_config(config), None, start_us, only)
        self._crew.look_at_once()
        try:
            self.run_until_idle()
        except BaseException:
            self.shutdown(0.0)
            raise

    @property
    def now(self) -> str:
        """What the clock shows, RFC 3339 in UTC."""
        return moment(self._open().now())

    def advance(self, span: Duration) -> None:
        """Moves the clock and does, in order, everything that becomes due on the way.

        Args:
            span (Duration): a duration such as `"1h"`, seconds, or a `timedelta`.

        Raises:
            RunnerError: (a `RuntimeError`) a body does not come back.
        """
        self._advance(microseconds_of(span, "span", smallest_us=0))

    def run_until_idle(self) -> None:
        """Does everything that is due now, and waits until it is done. Raises what `advance` raises."""
        self._advance(0)

    def _advance(self, span_us: int) -> None:
        if not self._open().advance(span_us, PATIENCE_SECONDS):
            raise RunnerError(
                f"a trigger or task did not come back within {PATIENCE_SECONDS:g} s of real time"
            )
        self._wait_told()
        self._raise_errors()

    def _wait_told(self) -> None:
        if not self._crew.teller.wait_told(self._open().polls.failures_given(), PATIENCE_SECONDS):
            raise RunnerError(
                f"on_poll_failed or on_disabled did not come back within {PATIENCE_SECONDS:g} s of real time"
            )

    def _raise_errors(self) -> None:
        if self._heard is not None and attempt.current(self._engine) is None:
            self._heard.raise_first(self._open(), self._declarations.crons)

    def tick(self, trigger_name: Callable[..., Any] | str, dry_run: bool = False) -> TickAnswer:
        """Polls a trigger once, now, on this thread. Like `DefaultRunner.tick`, but that it also takes the
        trigger's function, and for `raise_errors`."""
        told = super().tick(_name_of(trigger_name), dry_run)
        self._wait_told()
        self._raise_errors()
        return told

    def execute(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        check: bool = False,
    ) -> WorkflowResult:
        """Runs a workflow, moving the clock over the delays of its retries. Raises what
        `DefaultRunner.execute` raises."""
        checks = flag(check, "check")
        run = self.submit(workflow_name, context)
        self.run_until_idle()
        while self._open().runs.run(run.id)["completed_at"] is None:
            due = self._open().next_due()
            if due is None:
                raise RunnerError(f"run {run.id} waits for nothing that the clock could bring")
            self._advance(due)
        result = run.result()
        return result.raise_for_failure() if checks else result

    async def execute_async(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        check: bool = False,
    ) -> WorkflowResult:
        """Like `execute`, without blocking the event loop."""
        import asyncio

        # The clock is moved meanwhile.
        return await asyncio.to_thread(self.execute, workflow_name, context, check=check)

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
        tasks = [registry.bodies[each["body"]] for declared in found for each in declared._spec()]
        chosen = [each for each in tasks if task in (each.id, each.function)]
        if not chosen:
            ids = sorted({each.id for each in tasks})
            if isinstance(task, str):
                raise WorkflowError(f"no task {excerpt(task)}{where}{hint(task, 'tasks', ids)}")
            raise WorkflowError(f"{place.of_function(task)} is no task{where}{hint('', 'tasks', ids)}")
        for each in chosen:
            replaced = each.with_function(fake)
            replaced.function = _fake(fake)
            self._crew.tasks[each.body] = replaced

    def fired(self, workflow: str | Workflow) -> list[Context]:
        """The contexts with which triggers and crons started this workflow, oldest first.

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
        return sum(tick["count"] for tick in self.ticks(_name_of(trigger), _RUNS_MAX))

    def _submit(self, workflow_name: object, context: ContextLike | None) -> Run:
        try:
            return super()._submit(workflow_name, context)
        except WorkflowError as error:
            name = str(getattr(workflow_name, "name", workflow_name))
            if not (told := outside(name)):
                raise
            raise WorkflowError(f"{error}{told}") from None

    def _unknown_trigger(self, name: str) -> str:
        return super()._unknown_trigger(name) + outside(name)
