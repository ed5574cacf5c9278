"""`Run`: a run that was submitted, found or opened again, and the wait for its end.

Decides nothing. Invariant: a final result, once known, stays.
"""

from __future__ import annotations

import contextlib
from time import monotonic

from . import attempt, check, registry
from .apart import apart
from .context import Context, decode_value
from .errors import RunnerError, StoreError, WorkflowError
from .permit import waiting
from .result import WorkflowResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from ._cloaca import Watch
    from ._runs import Runs
    from .redact import Redactor
    from .types import Duration, RunStatus

RUN_KEY_TTL = "30d"
"""How long the run key of a submit holds, unless said otherwise."""
LOOK_SECONDS = 0.05
"""Between two looks at a run that another runner drives."""
LEAST_SECONDS = 0.5
"""A look that is to be over at once has so long for the store."""
SAID_SECONDS = 60.0
"""Who waits at a client hears so often in the log what for."""


class Run:
    """A run. Any number of threads may wait for it, on as many copies as they like.

    Attributes:
        id (str): the run's id.
    """

    __slots__ = ("_is_called", "_result", "_runner", "_watch", "id")

    id: str

    def __init__(self, runner: Runs, run_id: str, watch: Watch | None, is_called: bool = False) -> None:
        self._runner = runner
        # Whether a task has called it, which waits for it in vain once it is to end itself.
        self._is_called = is_called
        self._watch = watch
        self._result: WorkflowResult | None = None
        self.id = run_id

    # No `RunStatus`: of a choice, checkers take what one look saw for what the next one must see.
    @property
    def status(self) -> str:
        """Where it stands: `Pending`, `Running`, `Completed`, `Failed` or `Cancelled`. An end that was seen
        here stays, also if `retry` opens the run again: that returns another `Run`, as `runner.run` does.

        Raises:
            WorkflowError: (a `ValueError`) it is not kept any more, and its end was not seen here.
            RunnerError: (a `RuntimeError`) the runner is shut down, and its end was not seen here.
        """
        if self._result is None and self._watch is not None:
            # A runner that lost sight of it has no say; the store has.
            with contextlib.suppress(RunnerError):
                ended = self._watch.wait(0.0)
                self._result = None if ended is None else result_of(ended, self.id, self._runner._redactor)
        if self._result is not None:
            return self._result.status
        row = self._runner._open().runs.run(self.id)
        if row is None:
            raise self._unknown()
        return str(row["status"])

    def result(self, timeout: Duration | None = None, *, progress: bool = False) -> WorkflowResult:
        """Waits until the run is final.

        A task or callback of the same runner gives its place to others while it waits, and its own time-out
        stands still; when the runner shuts down meanwhile, its body ends here and is called anew by the next.

        Args:
            timeout (Duration | None): how long to wait, in seconds, or as `"30s"`; `None` waits for ever.
            progress (bool): show meanwhile how far it is, as `watch` does.

        Raises:
            TimeoutError: it is not final in time.
            RunnerError: (a `RuntimeError`) the runner shuts down first; the run goes on with the next one.
            WorkflowError: (a `ValueError`) the run is not kept any more.
        """
        if self._result is None and self._runner._crew.on_loop() is not None and not self._is_over():
            row = self._runner._open().runs.run(self.id)
            waits_for = None if row is None else registry.async_task_of(row["workflow_name"])
            self._runner._blocks("result()", "run", waits_for=waits_for)
        return self._result_within(timeout, progress=check.flag(progress, "progress"))

    def watch(self, timeout: Duration | None = None) -> WorkflowResult:
        """Shows how far the run is until it is final, whoever drives it, and returns its result.

        In a notebook the cell shows the run's tasks and timeline, live. On a terminal it is a line on
        standard error that is drawn over itself; its last state stays. Where nobody would see it nothing is
        shown.

        Args:
            timeout (Duration | None): how long to wait, in seconds, or as `"30s"`; `None` waits for ever.

        Raises:
            What `result` raises.
        """
        return self.result(timeout, progress=True)

    def _is_over(self) -> bool:
        return self._watch is not None and self._watch.wait(0.0) is not None

    def _result_within(self, timeout: Duration | None, *, progress: bool = False) -> WorkflowResult:
        if self._result is None:
            given = None if timeout is None else check.seconds(timeout, "timeout")
            limit = self._runner._patience(given)
            # A final result that this runner drove to its end outlives the runner.
            engine = self._runner._open() if self._watch is None else self._runner._engine
            ended = self._wait_shown(engine, limit) if progress else self._wait(engine, limit)
            if ended is None:
                waited = "" if given is None else f" after {given:g} s"
                raise TimeoutError(f"run {self.id} is not final{waited}{self._runner._way_out}")
            self._result = ended
        return self._result

    async def wait(self, timeout: Duration | None = None) -> WorkflowResult:
        """Like `result`, without blocking the event loop; `await run` is the same without `timeout`.

        Whoever is cancelled while he waits leaves the run alone. Ten thousand may wait: each is a future and
        no thread, whoever drives the run.
        """
        limit = None if timeout is None else check.seconds(timeout, "timeout")
        if self._result is None and (self._watch is None or not self._runner._uses_program_loop):
            # It was over when it was asked for, or a call that waits moves the clock.
            return await apart("wait", lambda: self._result_within(timeout))
        if self._result is None:
            assert self._watch is not None, "it is watched"
            if (body := attempt.body(self._runner._engine)) is not None:
                self._refuse_own(body)
            try:
                awaiter = self._runner._crew.awaiter()
                if body is not None or limit is not None:
                    ended = await awaiter.wait(self._watch, self.id, limit)
                else:
                    while (ended := self._watch.wait(0.0)) is None:
                        with awaiter.hearing(self._watch, self.id) as news:
                            await news
            except BaseException:
                self._look_after_caller()
                raise
            if ended is None:
                raise TimeoutError(f"run {self.id} is not final after {timeout} s")
            self._result = result_of(ended, self.id, self._runner._redactor)
        return self._result

    def _look_after_caller(self) -> None:
        """Whoever waited was interrupted: if the body that called this run is to end, so is the run."""
        if self._is_called and (body := attempt.body(self._runner._engine)) is not None:
            loop = body.loop
            # Not when the runner ends: then both go on with the next one.
            if loop is not None and loop.is_told(body.job) and not loop.is_sent_home():
                self._runner._crew.begin("cancel", self._abandon)

    def _abandon(self) -> None:
        # Whoever shuts down meanwhile leaves it to the next runner, as any other.
        with contextlib.suppress(RunnerError, WorkflowError):
            self.cancel()

    def __await__(self) -> Generator[Any, Any, WorkflowResult]:
        return self.wait().__await__()

    def cancel(self) -> None:
        """Asks for its end, and those of the runs that its tasks have started: no further task starts, a
        running one may finish."""
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

    def _repr_html_(self) -> str:
        from ._notebook import run

        return run(self)

    def _wait_shown(self, engine: Any, limit: float | None) -> WorkflowResult | None:
        from . import progress

        deadline = None if limit is None else monotonic() + limit
        with progress.of(self) as shown:
            while True:
                shown.show()
                left = None if deadline is None else max(0.0, deadline - monotonic())
                pause = progress.LOOK_SECONDS if left is None else min(left, progress.LOOK_SECONDS)
                if (ended := self._wait(engine, pause)) is not None or left == 0.0:
                    return ended

    def _wait(self, engine: Any, limit: float | None) -> WorkflowResult | None:
        body = attempt.body(engine)
        if self._runner._crew.is_keeper():
            # A handler of the log, or a `__del__` that the collector calls there: who would start the worker?
            raise RunnerError(
                f"run {self.id} cannot be waited for on the thread that starts the runner's others, where "
                "the log is written; wait on another thread"
            )
        if body is None:
            return self._wait_here(engine, limit, None)
        # Who finds the end, or only looks, gives nothing back.
        if (found := self._wait_here(engine, 0.0, body)) is not None or limit == 0.0:
            return found
        self._refuse_own(body, engine)
        with waiting(body, self._watch) as wait:
            found = self._wait_here(engine, limit, body, lambda: self._heed(wait))
            if found is not None and self._is_called and found.status == "Cancelled":
                # It may have been cancelled with the one that called it.
                self._heed(wait)
            return found

    def _refuse_own(self, body: attempt.inside, engine: Any = None) -> None:
        """Raises `RunnerError` if the body is a part of the run, or, with an engine to ask, of one that the
        run has called: neither can end before the other.
        """
        # Whom it called itself is below it.
        if self._is_called or body.job is None:
            return
        above: str | None = attempt.run_id(body.job)
        while above is not None and above != self.id:
            row = None if engine is None else engine.runs.run(above)
            # What a callback has started, or an end fired, is no part of the run that it came of.
            above = None if row is None or row["parent_task"] is None else row["parent_run"]
        if above is not None:
            raise RunnerError(
                f"run {self.id} cannot end before the task that waits for it here, which is a part of it"
            )

    def _heed(self, wait: waiting) -> None:
        try:
            wait.look()
        except RunnerError:
            if self._is_called:
                self._abandon()
            raise

    def _wait_here(
        self,
        engine: Any,
        limit: float | None,
        body: attempt.inside | None,
        look: Callable[[], None] | None = None,
    ) -> WorkflowResult | None:
        deadline = None if limit is None else monotonic() + limit
        said_at = monotonic()
        while True:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            # A body that waits for a run goes home when its runner closes, and waits in slices for that.
            pause = left if body is None else LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
            if not self._runner._works:
                pause = SAID_SECONDS if pause is None else min(pause, SAID_SECONDS)
            if self._watch is not None:
                ended = self._watch.wait(pause)
                found = None if ended is None else result_of(ended, self.id, self._runner._redactor)
            else:
                found = self._look(engine) if left is None else self._look_within(engine, left)
                if found is None and deadline is not None and monotonic() >= deadline:
                    return None
                pause = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
            if found is not None or left == 0.0:
                return found
            is_closing = engine.wait_closing(pause if self._watch is None else 0.0)
            if is_closing and body is not None:
                raise attempt.Interrupted
            if is_closing and self._watch is None:
                raise RunnerError(f"run {self.id} had not ended when the runner shut down")
            if look is not None:
                look()
            if not self._runner._works and monotonic() - said_at >= SAID_SECONDS:
                said_at = monotonic()
                import logging

                logging.getLogger("cloaca").info("still waiting: %s", self.why())

    def _look_within(self, engine: Any, left: float) -> WorkflowResult | None:
        """The same, but a store that does not answer is waited for no longer than the end."""
        until = monotonic() + left
        try:
            found: WorkflowResult | None = engine.store.within(
                max(left, LEAST_SECONDS), lambda: self._look(engine)
            )
            return found
        except StoreError:
            if monotonic() < until:
                raise
            return None

    def _look(self, engine: Any) -> WorkflowResult | None:
        row = engine.runs.run(self.id)
        if row is None:
            raise self._unknown()
        if row["completed_at"] is None:
            return None
        final = row["final_context"]
        ended = row["status"], row["created_at"], row["completed_at"], final or "{}", row["error_message"]
        return result_of(ended, self.id, self._runner._redactor)

    def _unknown(self) -> WorkflowError:
        return WorkflowError(f"run {self.id} is not kept any more; list_runs() shows those that are")


def result_of(
    ended: tuple[RunStatus, str, str, str, str | None], run_id: str, redactor: Redactor
) -> WorkflowResult:
    """A run's end as the engine tells it; what its error says is for people, who see no more elsewhere."""
    status, started, finished, context, error = ended
    if error is not None:
        error = redactor.of_result(run_id, context).hide(error)
    return WorkflowResult(
        status=status,
        start_time=started,
        end_time=finished,
        final_context=Context._wrap(decode_value(context)),
        error_message=error,
    )
