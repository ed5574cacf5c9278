"""What a running task knows of itself, and how it gives its place to others while it waits.

Decides nothing. Invariant: a handle is of no use once its attempt has ended.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic

from . import attempt, check
from .errors import ArgumentTypeError, RunnerError, WorkflowError, excerpt
from .plain import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._cloaca import Engine
    from .job import Job

DEFER_SECONDS_MIN = 0.001
"""A condition of `defer_until` is looked at no more often than this."""
DEFER_SECONDS_STILL = 0.01
"""And so often where the clock stands still."""

DEFERRED_MAX = 1000
"""So many tasks of a runner wait without a slot at once. Each is a thread, and a slot given back makes
room for one more: further ones wait in their slots until there is room."""

LOOK_SECONDS = 0.1
"""How soon a wait notices that it is over."""

_task_log = logging.getLogger("cloaca.task")


class Deferred:
    """How many tasks of a runner wait without a slot.

    Attributes:
        pause_max: no pause between two looks at a condition is longer, in seconds.
    """

    def __init__(self) -> None:
        self.pause_max = float("inf")
        self._lock = threading.RLock()
        self._count = 0
        self._is_told = False

    def enter(self) -> bool:
        """Whether one more may."""
        with self._lock:
            if self._count < DEFERRED_MAX:
                self._count += 1
                return True
            is_told, self._is_told = self._is_told, True
        if not is_told:
            text = (
                "%d tasks wait in defer_until, as many as may; further ones keep their slots while they wait"
            )
            say(_task_log, logging.WARNING, text, DEFERRED_MAX)
        return False

    def leave(self) -> None:
        """One waits no more."""
        with self._lock:
            self._count -= 1
            self._is_told &= self._count > 0


class TaskHandle:
    """What a running task knows of itself, as the second parameter ``handle`` of its function.

    Attributes:
        task_id (str): the task's id.
        run_id (str): the run's id.
        attempt (int): the number of this attempt, from 1. A task that was in flight when its process died
        runs again with
            the next number.
    """

    __slots__ = ("_deferred", "_engine", "_held", "_job", "_open", "_waits", "task_id")

    task_id: str

    def __init__(self, engine: Engine, job: Job, task_id: str, deferred: Deferred) -> None:
        self._deferred = deferred
        self._engine = engine
        self._job = job
        self._held = True
        self._waits = False
        self._open = True
        self.task_id = task_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._job.attempt

    @property
    def run_id(self) -> str:
        """The run's id: with `task_id` a key that is the same for every attempt, for whoever acts outside."""
        return run_id(self._job)

    def is_slot_held(self) -> bool:
        """Whether the task counts against ``max_concurrent_tasks`` now."""
        return self._held

    def defer_until(
        self, condition: Callable[[], object], poll_interval_ms: int = 1000, timeout: float | None = None
    ) -> None:
        """Gives the task's concurrency slot back until ``condition()`` is true, then takes a slot again.

        When the runner shuts down meanwhile, the body ends here without an outcome: the attempt is not used
        up, and the next runner begins it anew. So it ends when nobody waits for the attempt any more.
        Each task that waits is a thread. A thousand of a runner's tasks may wait so at once; further ones
        keep their slots while they wait, until there is room.

        Args:
            condition: called without arguments, and awaited if it is async; an `Exception` that it raises is
            logged and counts as false.
            poll_interval_ms (int): pause between two calls, in milliseconds, at least 1.
            timeout (float | None): seconds after which the wait is given up; `None` waits for ever.

        Raises:
            ValueError: ``poll_interval_ms`` is not a positive number.
            TypeError: ``condition`` cannot be called, or ``poll_interval_ms`` is no number.
            TimeoutError: the condition did not come true in time.
            RuntimeError: the run was cancelled or failed meanwhile, or the task has ended.
        """
        if not callable(condition):
            raise ArgumentTypeError(
                f"condition is a {type(condition).__name__}; give a function without arguments"
            )
        if isinstance(poll_interval_ms, bool) or not isinstance(poll_interval_ms, int | float):
            raise ArgumentTypeError(
                f"poll_interval_ms is {excerpt(poll_interval_ms)}; it must be a number of milliseconds"
            )
        if not poll_interval_ms > 0:
            raise WorkflowError(f"poll_interval_ms is {poll_interval_ms!r}; the smallest is 1")
        limit = None if timeout is None else check.seconds(timeout, "timeout")
        if not self._open:
            raise RunnerError(f"task '{self.task_id}' has ended; its handle cannot defer any more")
        deadline = None if limit is None else monotonic() + limit
        pause = min(max(poll_interval_ms / 1000, DEFER_SECONDS_MIN), self._deferred.pause_max)
        try:
            self._yield()
            while not _holds(condition, self.task_id, self._job):
                self._wait(pause, deadline)
                self._yield()
            while not self._held and not self._engine.jobs.regain_slot(self._job, LOOK_SECONDS):
                self._look()
            self._held = True
        finally:
            if self._waits:
                self._waits = False
                self._deferred.leave()

    def _yield(self) -> None:
        """Gives the slot back, once there is room among those that wait without one."""
        if not self._waits and self._deferred.enter():
            self._waits = True
            self._engine.jobs.yield_slot(self._job)
            self._held = False

    def _wait(self, pause: float, deadline: float | None) -> None:
        """Waits for the next look at the condition, and looks meanwhile whether it still matters."""
        until = monotonic() + pause
        while True:
            self._look()
            now = monotonic()
            if deadline is not None and now >= deadline:
                self._regain()
                raise TimeoutError(f"the condition that task '{self.task_id}' waits for did not come true")
            end = until if deadline is None else min(until, deadline)
            if now >= until:
                return
            self._engine.wait_closing(min(end - now, LOOK_SECONDS))

    def _look(self) -> None:
        if self._engine.wait_closing(0.0):
            raise attempt.Interrupted
        waited_for, halted = self._engine.jobs.attempt_stands(self._job)
        if not waited_for:
            raise attempt.Interrupted
        if halted:
            self._regain()
            raise RunnerError(f"the run of task '{self.task_id}' is to end; it waits no longer")

    def _regain(self) -> None:
        # The end of a body that goes on is reported from a slot like any other.
        while not self._held and not self._engine.jobs.regain_slot(self._job, LOOK_SECONDS):
            if self._engine.wait_closing(0.0):
                raise attempt.Interrupted
        self._held = True

    def _close(self) -> None:
        self._open = False


def _holds(condition: Any, task_id: str, job: Job) -> bool:
    on_loop = False
    try:
        answer = condition()
        # Decided by what came: a decorator around an `async def` is an ordinary function. It is always true.
        if hasattr(answer, "__await__"):
            from ._aio import is_on_loop, run_coroutine

            on_loop = is_on_loop()
            answer = run_coroutine(answer)
        return bool(answer)
    except Exception as raised:
        if on_loop:
            # No fault of the condition: it would be waited for in vain for ever.
            raise
        text, about = (
            "the condition that task '%s' of run %s waits for raised",
            {
                "cloaca_run": run_id(job),
                "cloaca_task": task_id,
                "cloaca_attempt": job.attempt,
            },
        )
        say(_task_log, logging.ERROR, text, task_id, run_id(job), raised=raised, about=about)
        return False


def run_id(job: Job) -> str:
    """The id of an attempt's run, as text."""
    # Not by `uuid`: a thread that imports at a fork leaves the child half a module, and its lock.
    digits = f"{job.run:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
