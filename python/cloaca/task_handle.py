"""What a running task knows of itself, and how it gives its place to others while it waits.

Decides nothing. Invariant: a handle is of no use once its attempt has ended.
"""

from __future__ import annotations

from time import monotonic, time

from . import attempt, check
from .context import DEPTH_MAX, checked_value, decode_value, encode_value, fitting
from .duration import microseconds_of
from .errors import ArgumentTypeError, RunnerError, WorkflowError, excerpt, typed
from .kind import is_awaitable
from .permit import LOOK_SECONDS, waiting
from .plain import ERROR, WARNING, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from datetime import timedelta
    from typing import Any

    from ._cloaca import Engine
    from .bodies.loop import Loop
    from .failing import Failing
    from .job import Job
    from .permit import Deferred
    from .runner import DefaultRunner
    from .types import Duration

DEFER_SECONDS_MIN = 0.001
"""A condition of `defer_until` is looked at no more often than this."""
DEFER_SECONDS_STILL = 0.01
"""And so often where the clock stands still."""

LOOP_LOOK_SECONDS = 0.5
"""How soon a wait on an event loop notices that it is over, where most of it is told."""

_task_log = "cloaca.task"
_CONDITION = "the condition that task '%s' of run %s waits for"


class _Awaited:
    """What an async body awaits.

    A coroutine in all but its type: whoever makes a task of it calls `throw` where that is cancelled before
    its first step, and it has been awaited.
    """

    __slots__ = ("_begin", "_begun", "_handle", "_text")

    def __init__(self, handle: TaskHandle, text: str, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._handle = handle
        self._text = text
        self._begin = begin
        self._begun: Coroutine[Any, Any, None] | None = None
        handle._unawaited.append(text)

    def __await__(self) -> Generator[Any, Any, None]:
        return self._coroutine().__await__()

    def send(self, value: Any) -> Any:
        """Goes on, as a coroutine does."""
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        """Goes on with an error, as a coroutine does."""
        return self._coroutine().throw(*error)

    def close(self) -> None:
        """Ends it, as a coroutine does."""
        self._coroutine().close()

    def _coroutine(self) -> Coroutine[Any, Any, None]:
        if self._begun is None:
            self._handle._unawaited.remove(self._text)
            self._begun = self._begin()
        return self._begun


class _Done:
    """What an ordinary call gives: it is over."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


_DONE = _Done()


class TaskHandle:
    """What a running task knows of itself, as the second parameter ``handle`` of its function.

    Attributes:
        task_id (str): the task's id.
        run_id (str): the run's id.
        attempt (int): the number of this attempt, from 1. A task that was in flight when its process died
        runs again with
            the next number.
    """

    __slots__ = (
        "_body",
        "_checkpoint",
        "_deferred",
        "_engine",
        "_job",
        "_open",
        "_unawaited",
        "task_id",
    )

    task_id: str

    def __init__(
        self,
        engine: Engine,
        body: attempt.inside,
        task_id: str,
        checkpoint: str | None,
        deferred: Deferred,
    ) -> None:
        self._body = body
        self._checkpoint = checkpoint
        self._deferred = deferred
        self._engine = engine
        self._job: Job = body.job
        self._unawaited: list[str] = []
        self._open = True
        self.task_id = task_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._job.attempt

    @property
    def run_id(self) -> str:
        """The run's id: with `task_id` a key that is the same for every attempt, for whoever acts outside."""
        return attempt.run_id(self._job)

    @property
    def runner(self) -> DefaultRunner:
        """The runner that calls the task, to submit or look for runs by it.

        Raises:
            RunnerError: (a `RuntimeError`) this is another process than the runner's, or it has shut down.
        """
        from .current import runner_of

        return runner_of(self._engine)

    @property
    def checkpointed(self) -> Any:
        """What `checkpoint` was last given, in this attempt or an earlier one of this task; `None` before.

        Each look gives a copy.
        """
        return None if self._checkpoint is None else decode_value(self._checkpoint)

    def checkpoint(self, value: Any) -> Awaitable[None]:
        """Keeps a JSON value for the next attempt of this task, which finds it in `checkpointed`.

        When this returns, the value is committed: it outlives a failure of the attempt, its time-out and the
        death of the process. It takes the place of the one before, and is gone once the task has ended;
        `retry` of a failed run begins without. Each call waits for a commit, a few milliseconds. An
        `async def` body awaits it: `await handle.checkpoint(value)`; without `await` its attempt fails.

        Args:
            value: what JSON knows, of at most `context_bytes_max` bytes, like a cursor.

        Raises:
            ContextTypeError: (a `TypeError`) JSON does not know the value.
            ContextError: (a `ValueError`) JSON cannot hold it, or it is too large.
            RunnerError: (a `RuntimeError`) it is not kept, because nobody waits for this attempt any more: it
                has ended or is over its time-out, another runner has taken its run over, or this one has
                shut down.
        """
        if not self._open:
            raise RunnerError(f"task '{self.task_id}' has ended; its handle keeps no checkpoint any more")
        text = encode_value(checked_value(value, "checkpoint", DEPTH_MAX))
        fitting(self._engine.context_bytes_max, text, "the checkpoint")
        if (loop := self._on_loop()) is None:
            self._keep(text)
            return _DONE
        return _Awaited(self, "checkpoint(...)", lambda: loop.aside(lambda: self._keep(text)))

    def _keep(self, text: str) -> None:
        if not self._engine.jobs.checkpoint(self._job, text):
            if self._engine.wait_closing(0.0):
                # The next runner goes on from the last one.
                raise attempt.Interrupted
            raise RunnerError(
                f"the checkpoint of task '{self.task_id}' is not kept: nobody waits for its attempt"
                f" {self.attempt} any more"
            )
        self._checkpoint = text

    def _on_loop(self) -> Loop | None:
        """The event loop that this body runs on, if this is its thread."""
        loop = self._body.loop
        return loop if loop is not None and loop.is_here() else None

    @property
    def cancelled(self) -> bool:
        """Whether this body is to end: its time is over, or its run's, its run was cancelled, the runner
        shuts down, or it has been cut off from its server for so long that another one may go on with
        the run.

        Nobody can stop a thread: a body that may take long looks here now and then, and ends. One that is
        over its time, or whose run was cancelled, has `timeout_grace_seconds` for that; an attempt that was
        timed out fails then with `TimeoutError`, whatever its body returns, and is tried again as its retries
        say. If it does not end, its task fails for good, because the next attempt would run beside it.

        Where the runner shuts down it is what the body ends with that counts: who has done only a part of it
        raises, whatever he likes, and the next runner begins another attempt, which uses up no retry.
        """
        return not self._open or self._body.is_to_end()

    def is_current(self) -> bool:
        """Whether this attempt's end would still count: its run is in the hands of this runner, which has not
        shut down and is not cut off from its server, and nobody has given the attempt up. Ask before an act
        outside that must not be done twice.
        """
        return self._open and self._engine.jobs.is_current(self._job)

    def is_slot_held(self) -> bool:
        """Whether the task counts against ``max_concurrent_tasks`` now."""
        return self._body.is_permit_held()

    def defer_until(
        self,
        condition: Callable[[], object],
        poll_interval_ms: float | str | timedelta = 1000,
        timeout: Duration | None = None,
    ) -> Awaitable[None]:
        """Gives the task's concurrency slot back until ``condition()`` is true, then takes a slot again.

        When the runner shuts down meanwhile, the body ends here without an outcome: the attempt is not used
        up, and the next runner begins it anew. So it ends when nobody waits for the attempt any more.
        An `async def` body awaits it, `await handle.defer_until(condition)`, and holds nothing meanwhile;
        without `await` its attempt fails. Each other task that waits is a thread. A thousand of those may
        wait so at once in a runner; further ones keep their slots while they wait, until there is room.
        Several coroutines or threads of one body may wait at once: its slot is taken again when the last of
        these waits is over.

        Args:
            condition: called without arguments, where the body runs, and awaited if it is async; an
            `Exception` that it raises is logged and counts as false.
            poll_interval_ms (float | str | timedelta): pause between two calls, a number of milliseconds,
            or a duration such as `"100ms"`; at least 1 ms.
            timeout (Duration | None): after how many seconds, or `"30s"`, the wait is given up, counted from
            this call: a restart, which begins the body anew, begins that anew, too. For a deadline that
            outlives it let the condition look at the time. `None` waits until the run's time is up
            (`WorkflowBuilder(timeout=...)`, or the runner's `workflow_timeout_seconds`, an hour unless set).

        Raises:
            ValueError: ``poll_interval_ms`` is not a positive number.
            TypeError: ``condition`` cannot be called, or ``poll_interval_ms`` is no number.
            TimeoutError: the condition did not come true in time.
            RuntimeError: the run was cancelled or failed meanwhile, or the task has ended.
        """
        if not callable(condition):
            raise ArgumentTypeError(f"condition is {typed(condition)}; give a function without arguments")
        if isinstance(poll_interval_ms, str) or hasattr(poll_interval_ms, "total_seconds"):
            poll_interval_ms = microseconds_of(poll_interval_ms, "poll_interval_ms") / 1000
        if isinstance(poll_interval_ms, bool) or not isinstance(poll_interval_ms, int | float):
            raise ArgumentTypeError(
                f"poll_interval_ms is {excerpt(poll_interval_ms)}; it must be a number of milliseconds, or a"
                ' duration such as "100ms"'
            )
        if not poll_interval_ms > 0:
            raise WorkflowError(f"poll_interval_ms is {poll_interval_ms!r}; the smallest is 1")
        limit = None if timeout is None else check.seconds(timeout, "timeout")
        if not self._open:
            raise RunnerError(f"task '{self.task_id}' has ended; its handle cannot defer any more")
        deadline = None if limit is None else monotonic() + limit
        pause = min(max(poll_interval_ms / 1000, DEFER_SECONDS_MIN), self._deferred.pause_max)
        if (loop := self._on_loop()) is not None:
            return _Awaited(
                self, "defer_until(...)", lambda: self._defer_on(loop, condition, pause, deadline)
            )
        # A condition that waits for a run gives the permit back no second time.
        looker = _Looker(self.task_id, self._job, self._deferred)
        self._deferred.waits(looker)
        try:
            with waiting(self._body) as wait:
                while not looker.holds(condition):
                    self._wait(wait, pause, deadline)
        finally:
            self._deferred.looks_no_more(looker)
        return _DONE

    async def _defer_on(
        self, loop: Loop, condition: Callable[[], object], pause: float, deadline: float | None
    ) -> None:
        from asyncio import sleep

        looker = _Looker(self.task_id, self._job, self._deferred)
        self._deferred.waits(looker)
        try:
            async with waiting(self._body):
                while not await looker.holds_on(condition):
                    if (error := await self._sleep_on(sleep, pause, deadline)) is not None:
                        raise error
        finally:
            self._deferred.looks_no_more(looker)

    async def _sleep_on(
        self, sleep: Callable[[float], Coroutine[Any, Any, None]], pause: float, deadline: float | None
    ) -> BaseException | None:
        """Waits for the next look at the condition; what ends the wait, if something does."""
        until = monotonic() + pause
        while (now := monotonic()) < until:
            if deadline is not None and now >= deadline:
                return TimeoutError(f"the condition that task '{self.task_id}' waits for did not come true")
            if self._engine.jobs.attempt_stands(self._job)[1]:
                return RunnerError._of_wait(f"task '{self.task_id}' is to end; it waits no longer")
            end = until if deadline is None else min(until, deadline)
            await sleep(min(end - now, LOOP_LOOK_SECONDS))
        return None

    def _wait(self, wait: waiting, pause: float, deadline: float | None) -> None:
        """Waits for the next look at the condition, and looks meanwhile whether it still matters."""
        until = monotonic() + pause
        while True:
            wait.look()
            now = monotonic()
            if deadline is not None and now >= deadline:
                raise TimeoutError(f"the condition that task '{self.task_id}' waits for did not come true")
            end = until if deadline is None else min(until, deadline)
            if now >= until:
                return
            self._engine.wait_closing(min(end - now, LOOK_SECONDS))

    def _check_awaited(self) -> None:
        if self._unawaited:
            call = self._unawaited[0]
            raise RunnerError(
                f"task '{self.task_id}' did not await handle.{call}; in an async body write"
                f" `await handle.{call}`"
            )

    def _close(self) -> None:
        self._open = False


class _Looker:
    """Who looks at a condition, and tells of what that raises: a wait may last days."""

    __slots__ = ("_deferred", "_failing", "_failures", "_job", "_task_id")

    def __init__(self, task_id: str, job: Job, deferred: Deferred) -> None:
        self._task_id = task_id
        self._job = job
        self._deferred = deferred
        self._failing: Failing | None = None
        self._failures = 0

    def holds(self, condition: Any) -> bool:
        """Whether a condition holds, which one that raises does not."""
        self._deferred.looks(self)
        try:
            answer = condition()
            # Decided by what came: a decorator around an `async def` is an ordinary function. Always true.
            if is_awaitable(answer):
                answer = self._deferred.run(answer)
            found = bool(answer)
        except Exception as raised:
            self._raised(raised)
            return False
        self._answered()
        return found

    async def holds_on(self, condition: Any) -> bool:
        """The same on an event loop."""
        self._deferred.looks(self)
        try:
            answer = condition()
            if is_awaitable(answer):
                answer = await answer
            found = bool(answer)
        except Exception as raised:
            self._raised(raised)
            return False
        self._answered()
        return found

    def _raised(self, raised: Exception) -> None:
        from .failing import LINE, WHOLE, Failing, kind_of

        self._failing = self._failing or Failing()
        self._failures += 1
        graded = self._failing.grade("", kind_of(raised), self._failures, int(time() * 1e6))
        if graded == WHOLE:
            self._say(ERROR, f"{_CONDITION} raised", raised=raised)
        elif graded == LINE:
            error = describe(raised)
            self._say(ERROR, f"{_CONDITION} has raised %d times in a row, now %s", self._failures, error)

    def _answered(self) -> None:
        if self._failures:
            times = "once" if self._failures == 1 else f"{self._failures} times in a row"
            self._say(WARNING, f"{_CONDITION} has answered, after it had raised {times}")
            self._failures = 0

    def _say(self, level: int, text: str, *values: object, raised: Exception | None = None) -> None:
        of = attempt.run_id(self._job)
        about = {"cloaca_run": of, "cloaca_task": self._task_id, "cloaca_attempt": self._job.attempt}
        self._deferred.say(_task_log, level, text, self._task_id, of, *values, raised=raised, about=about)


run_id = attempt.run_id
