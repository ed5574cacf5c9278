"""`Run`: a run that was submitted, found or opened again, and the wait for its end.

Decides nothing. Invariant: a final result, once known, stays.
"""

from __future__ import annotations

import contextlib
from time import monotonic

from . import attempt, check
from .context import Context, decode_value
from .errors import RunnerError, WorkflowError
from .result import WorkflowResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._cloaca import Watch
    from ._runs import Runs
    from .types import RunStatus

LOOK_SECONDS = 0.05
"""Between two looks at a run that another runner drives."""


class Run:
    """A run. Any number of threads may wait for it, on as many copies as they like.

    Attributes:
        id (str): the run's id.
    """

    __slots__ = ("_result", "_runner", "_watch", "id")

    id: str

    def __init__(self, runner: Runs, run_id: str, watch: Watch | None) -> None:
        self._runner = runner
        self._watch = watch
        self._result: WorkflowResult | None = None
        self.id = run_id

    # No `RunStatus`: of a choice, checkers take what one look saw for what the next one must see.
    @property
    def status(self) -> str:
        """Where it stands: `Pending`, `Running`, `Completed`, `Failed` or `Cancelled`.

        Raises:
            WorkflowError: (a `ValueError`) it is not kept any more, and its end was not seen here.
            RunnerError: (a `RuntimeError`) the runner is shut down, and its end was not seen here.
        """
        if self._result is None and self._watch is not None:
            # A runner that lost sight of it has no say; the store has.
            with contextlib.suppress(RunnerError):
                ended = self._watch.wait(0.0)
                self._result = None if ended is None else result_of(ended)
        if self._result is not None:
            return self._result.status
        row = self._runner._open().runs.run(self.id)
        if row is None:
            raise self._unknown()
        return str(row["status"])

    def result(self, timeout: float | None = None) -> WorkflowResult:
        """Waits until the run is final.

        Args:
            timeout (float | None): seconds to wait; `None` waits for ever.

        Raises:
            TimeoutError: it is not final in time.
            RunnerError: (a `RuntimeError`) the runner shuts down first; the run goes on with the next one.
            WorkflowError: (a `ValueError`) the run is not kept any more.
        """
        if self._result is None:
            limit = self._runner._patience(None if timeout is None else check.seconds(timeout, "timeout"))
            # A final result that this runner drove to its end outlives the runner.
            engine = self._runner._open() if self._watch is None else self._runner._engine
            ended = self._wait(engine, limit)
            if ended is None:
                waited = "" if timeout is None else f" after {timeout} s"
                raise TimeoutError(f"run {self.id} is not final{waited}{self._runner._way_out}")
            self._result = ended
        return self._result

    def cancel(self) -> None:
        """Asks for its end: no further task starts, a running one may finish."""
        self._runner.cancel(self.id)

    def why(self) -> str:
        """One sentence that says where it stands, as `DefaultRunner.why_run` does.

        Raises:
            WorkflowError: (a `ValueError`) it is not kept any more.
            RunnerError: (a `RuntimeError`) the runner is shut down.
        """
        return self._runner.why_run(self.id)

    def __repr__(self) -> str:
        return f"Run(id={self.id!r})"

    def _wait(self, engine: Any, limit: float | None) -> WorkflowResult | None:
        deadline = None if limit is None else monotonic() + limit
        is_body = attempt.current(engine) is not None
        if self._runner._crew.is_keeper():
            # A handler of the log, or a `__del__` that the collector calls there: who would start the worker?
            raise RunnerError(
                f"run {self.id} cannot be waited for on the thread that starts the runner's others, where "
                "the log is written; wait on another thread"
            )
        while True:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            # A body that waits for a run goes home when its runner closes, and waits in slices for that.
            pause = left if not is_body else LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
            if self._watch is not None:
                ended = self._watch.wait(pause)
                found = None if ended is None else result_of(ended)
            else:
                found = self._look(engine)
                pause = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
            if found is not None or left == 0.0:
                return found
            is_closing = engine.wait_closing(pause if self._watch is None else 0.0)
            if is_closing and is_body:
                raise attempt.Interrupted
            if is_closing and self._watch is None:
                raise RunnerError(f"run {self.id} had not ended when the runner shut down")

    def _look(self, engine: Any) -> WorkflowResult | None:
        row = engine.runs.run(self.id)
        if row is None:
            raise self._unknown()
        if row["completed_at"] is None:
            return None
        final = row["final_context"]
        return WorkflowResult(
            status=row["status"],
            start_time=row["created_at"],
            end_time=row["completed_at"],
            final_context=Context() if final is None else Context._wrap(decode_value(final)),
            error_message=row["error_message"],
        )

    def _unknown(self) -> WorkflowError:
        return WorkflowError(f"run {self.id} is not kept any more; list_runs() shows those that are")


def result_of(ended: tuple[RunStatus, str, str, str, str | None]) -> WorkflowResult:
    """A run's end as the engine tells it."""
    status, started, finished, context, error = ended
    return WorkflowResult(
        status=status,
        start_time=started,
        end_time=finished,
        final_context=Context._wrap(decode_value(context)),
        error_message=error,
    )
