"""`current_run`: what a body, and whatever it calls, may know of itself. Decides nothing."""

from __future__ import annotations

from . import attempt
from .errors import RunnerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .attempt import inside
    from .runner import DefaultRunner


NOT_HERE = (
    "the runner of this body is not in this process, or has shut down; a client can submit from anywhere:"
    " DefaultRunner(url, work=False)"
)


class CurrentRun:
    """What is being called: an attempt of a task, its callback, a callback of a workflow, or a poll of a
    trigger.

    Attributes:
        run_id (str | None): the run's id; `None` in a poll, which has none.
        task (str | None): the task's id; `None` in a poll, and in a callback of a workflow.
        attempt (int | None): the number of the attempt, from 1; `None` where there is no task.
    """

    __slots__ = ("_body", "_end", "_engine", "_job", "_name", "attempt", "run_id", "task")

    run_id: str | None
    task: str | None
    attempt: int | None

    def __init__(
        self,
        engine: Any,
        job: Any,
        name: str | None,
        end: tuple[str, str] | None = None,
        body: inside | None = None,
    ) -> None:
        self._body = body
        self._engine = engine
        self._job = job
        self._name = name
        self._end = end
        is_task = job is not None
        self.run_id = attempt.run_id(job) if is_task else None if end is None else end[0]
        self.task = name if is_task else None
        self.attempt = job.attempt if is_task else None

    @property
    def workflow(self) -> str | None:
        """The workflow's name; `None` in a poll, and in a task once the run is over or another runner has
        taken it."""
        if self._end is not None:
            return self._end[1]
        return None if self._job is None else self._engine.jobs.workflow_of(self._job) or None

    @property
    def trigger(self) -> str | None:
        """In a poll the trigger that is polled; else the one that fired the run, read from the store; `None`
        if none did, or the run is not kept any more.
        """
        if self.run_id is None:
            return self._name
        row = self._engine.runs.run(self.run_id)
        return None if row is None else row["trigger_name"]

    @property
    def cancelled(self) -> bool:
        """Whether an attempt's body is to end, as `TaskHandle.cancelled` tells; false in a poll and in a
        callback, which nobody tells to end."""
        body = self._body
        return body is not None and not body.is_callback and body.is_to_end()

    @property
    def runner(self) -> DefaultRunner:
        """The runner that calls the body, to submit or look for runs by it.

        Raises:
            RunnerError: (a `RuntimeError`) this is another process than the runner's, or it has shut down. In
                a preview each method that does more than look raises it.
        """
        return runner_of(self._engine)

    def __repr__(self) -> str:
        if self._end is not None:
            return f"CurrentRun(run_id={self.run_id!r}, workflow={self.workflow!r})"
        if self._job is None:
            return f"CurrentRun(trigger={self._name!r})"
        return f"CurrentRun(run_id={self.run_id!r}, task={self.task!r}, attempt={self.attempt})"


def runner_of(engine: Any) -> DefaultRunner:
    """The runner of a body's engine. Raises `RunnerError` if that is not here."""
    from . import living

    # A preview has neither: what it lets its function look into is both.
    if getattr(engine, "only_looks", False):
        looks: DefaultRunner = engine
        return looks
    for runner in living.runners.copy():
        if runner._engine is engine:
            return runner
    raise RunnerError(NOT_HERE)


def current_run() -> CurrentRun | None:
    """What calls this, directly or through any function, also in `asyncio.to_thread`: an attempt of a task,
    its callback, a callback of a workflow, or a poll of a trigger. `None` outside of a body.
    """
    found = attempt.innermost()
    return None if found is None else CurrentRun(*found, attempt.entered())
