"""A runner on a manual clock, for tests: an hour of polling takes as long as its bodies do.

Invariant: time stands still but for `Runner.advance` and `Runner.execute`.
"""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic

from . import attempt, registry
from .check import count, flag, microseconds, text
from .config import DefaultRunnerConfig
from .context import DEPTH_MAX, Context, checked_value, decode_value, encode_value
from .duration import microseconds_of
from .errors import ArgumentTypeError, RunnerError, WorkflowError, excerpt
from .rows import moment
from .runner import DefaultRunner
from .tick import Tick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any

    from .result import WorkflowResult
    from .types import ContextLike, Duration, TaskBody
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
        moment(microseconds(scheduled_at)),
        None if last_fired_at is None else moment(microseconds(last_fired_at)),
        count(consecutive_failures, "consecutive_failures"),
    )


@contextmanager
def isolated() -> Iterator[None]:
    """Within, the process has declared nothing, and what is declared is forgotten at the end.

    Then everything stands as before. Runners made outside hear nothing of what is declared within. One made
    within should be shut down within. It holds for the whole process, so not for two threads at a time.
    """
    put_back = registry.put_aside()
    try:
        yield
    finally:
        put_back()


def _near(name: str, names: list[str]) -> str:
    from difflib import get_close_matches

    if near := get_close_matches(name, names, 1):
        return f"; did you mean {excerpt(near[0])}?"
    return f"; there are {', '.join(names[:20])}" if names else "; there are none"


class Runner(DefaultRunner):
    """A `DefaultRunner` over `:memory:` whose clock moves only when told.

    Args:
        start (str | datetime): what its clock shows at first, RFC 3339.
        config (DefaultRunnerConfig | None): other settings than the defaults.

    Raises:
        ScheduleError: (a `ValueError`) `start` is no time.
    """

    def __init__(
        self,
        start: str | datetime = "2026-01-01T00:00:00Z",
        config: DefaultRunnerConfig | None = None,
    ) -> None:
        self._start(":memory:", config or DefaultRunnerConfig(), None, microseconds(start))
        self.run_until_idle()

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
        if not self._crew.teller.wait_told(self._open().polls.failures_given(), PATIENCE_SECONDS):
            raise RunnerError(
                f"on_poll_failed or on_disabled did not come back within {PATIENCE_SECONDS:g} s of real time"
            )

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
        return max(0.0, until - monotonic())

    def replace_task(self, task_id: str, fake: TaskBody, *, workflow: str | None = None) -> None:
        """Has this runner call another function in a task's place; its retries and callbacks stay.

        A workflow that is declared again afterwards has its own function back.

        Args:
            task_id (str): the task, in each workflow that has one of this id.
            fake (Callable): takes and returns what a task does.
            workflow (str | None): only in this workflow.

        Raises:
            TypeError: `task_id` or `workflow` is no text, or `fake` no function.
            ValueError: no such task or workflow, or `fake` takes other parameters than a task.
        """
        self._open()
        text(task_id, "task_id")
        if not callable(fake):
            raise ArgumentTypeError(f"fake is {excerpt(fake)}; it must be a function")
        names = registry.names()
        where = ""
        if workflow is not None:
            where = f" in workflow {excerpt(text(workflow, 'workflow'))}"
            if workflow not in names:
                raise WorkflowError(f"no workflow {excerpt(workflow)}{_near(workflow, names)}")
            names = [workflow]
        found = [declared for name in names if (declared := registry.workflow(name)) is not None]
        tasks = [registry.bodies[task["body"]] for declared in found for task in declared._spec()]
        chosen = [task for task in tasks if task.id == task_id]
        if not chosen:
            raise WorkflowError(
                f"no task {excerpt(task_id)}{where}{_near(task_id, sorted({task.id for task in tasks}))}"
            )
        self._crew.tasks.update({task.body: task.with_function(fake) for task in chosen})

    def fired(self, workflow: str) -> list[Context]:
        """The contexts with which triggers and crons started this workflow, oldest first."""
        rows = self._open().store.query(
            "SELECT context FROM runs WHERE workflow = ? AND schedule IS NOT NULL ORDER BY row", [workflow]
        )
        return [Context._wrap(decode_value(row["context"])) for row in rows]

    def polls(self, trigger_name: str) -> int:
        """How often a trigger was polled.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        return sum(tick["count"] for tick in self.ticks(trigger_name, _RUNS_MAX))
