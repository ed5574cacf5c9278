"""One attempt of a task at a time: its body, its end, and who is told.

Decides nothing.
Invariant: whatever user code raises, of whatever kind, ends that one call and never a thread.
"""

from __future__ import annotations

import logging
import os
import threading

from . import attempt
from .answer import is_awaitable
from .context import Context, decode_value, encode_within, fitting
from .duration import text_of
from .job import Job
from .plain import describe, kind_of, say
from .policy import RetryAfter
from .task_handle import Deferred, TaskHandle, run_id
from .trace import traceback_of

DELAY_US_MAX = 10**17
"""Some three thousand years: a later moment has no date."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._cloaca import Engine
    from .job import JobParts
    from .task import TaskDefinition

    Hear = Callable[[tuple[str | None, BaseException]], None]
    """Called with the run if it was a task, and with what was raised."""

_callback_log = logging.getLogger("cloaca.callback")
_task_log = logging.getLogger("cloaca.task")


class Worker:
    """What a runner's worker threads do with the jobs that they take."""

    def __init__(self, engine: Engine, tasks: dict[int, TaskDefinition], hear: Hear | None = None) -> None:
        self.engine = engine
        self._hear = hear
        self.tasks = tasks
        self._running: dict[int, tuple[str, Job]] = {}
        self.deferred = Deferred()
        self._pid = os.getpid()

    def running(self) -> list[str]:
        """What tasks run now, in words."""
        running = list(self._running.values())
        return sorted(f"task '{task_id}' of run {run_id(job)}" for task_id, job in running)

    def run(
        self,
        parts: JobParts,
        body: int,
        task_id: str,
        context_json: str,
        error: str,
        checkpoint: str | None,
    ) -> None:
        """Makes an attempt: calls the body, tells the engine how it ended, then whoever wants to be told."""
        job = Job(*parts)
        task = self.tasks[body]
        context = Context._wrap(decode_value(context_json))
        if job.callback_only:
            self._tell_failure(job, task, task_id, error, context)
            self.engine.jobs.settled(job)
            return
        failure: BaseException | None = None
        left = ""
        handle = None
        if task.takes_handle:
            handle = TaskHandle(self.engine, job, task_id, self.deferred, checkpoint)
        me = threading.get_ident()
        self._running[me] = (task_id, job)
        try:
            fitting(self.engine.context_bytes_max, context_json, "the context that it is given")
            with attempt.inside(self.engine, job):
                left, context = self._call(task, context, handle)
        except BaseException as raised:
            # SystemExit and KeyboardInterrupt too: on a worker they can only mean that this attempt failed.
            failure = raised
        finally:
            del self._running[me]
        if handle is not None:
            handle._close()
        if attempt.is_forked(self._pid):
            return
        if isinstance(failure, attempt.Interrupted):
            self.engine.jobs.interrupted(job)
        elif failure is None:
            self._succeed(job, task, task_id, left, context)
        else:
            self._fail(job, task, task_id, failure, context)

    def _call(self, task: TaskDefinition, context: Context, handle: TaskHandle | None) -> tuple[str, Context]:
        returned = task.function(context) if handle is None else task.function(context, handle)
        if is_awaitable(returned):
            from ._aio import run_coroutine

            returned = run_coroutine(returned)
        if returned is None:
            returned = context
        elif isinstance(returned, dict):
            returned = Context(returned)
        elif not isinstance(returned, Context):
            kind = type(returned).__name__
            raise TypeError(f"task '{task.id}' returned {kind}; return the Context, a dict or None")
        limit = self.engine.context_bytes_max
        return encode_within(limit, returned, "the context that it left"), returned

    def _succeed(self, job: Job, task: TaskDefinition, task_id: str, left: str, context: Context) -> None:
        callback = task.on_success
        if self.engine.jobs.succeeded(job, left, callback is not None) and callback is not None:
            self._tell(job, callback, task_id, task_id, context)
            self.engine.jobs.settled(job)

    def _fail(
        self, job: Job, task: TaskDefinition, task_id: str, failure: BaseException, context: Context
    ) -> None:
        text = describe(failure)
        kind, trace = kind_of(failure), traceback_of(failure)
        if self._hear is not None:
            self._hear((run_id(job), failure))
        has_callback = task.on_failure is not None
        # Before its end: that may be the run's, too.
        workflow = self.engine.jobs.workflow_of(job)
        if (delay_us := _wish_of(failure)) is not None:
            final = self.engine.jobs.postponed(job, delay_us, text, trace, has_callback)
        else:
            final = self.engine.jobs.failed(job, kind, text, trace, has_callback)
        self._tell_ended(job, task_id, workflow, failure, None if final else delay_us, final)
        if final and has_callback:
            self._tell_failure(job, task, task_id, text, context)
            self.engine.jobs.settled(job)

    def _tell_ended(
        self,
        job: Job,
        task_id: str,
        workflow: str,
        failure: BaseException,
        delay_us: int | None,
        final: bool,
    ) -> None:
        """Lets the log know of an attempt that left nothing."""
        line, values = "task '%s' of run %s, which is over,", [task_id, run_id(job)]
        if workflow:
            line, values = "task '%s' of workflow '%s', run %s,", [task_id, workflow, run_id(job)]
        about = _about(job, task_id, workflow)
        if delay_us is not None:
            # What was asked for is no news of a healthy day.
            text, waits = f"{line} asked in attempt %d to be called again in %s", text_of(delay_us)
            say(_task_log, logging.DEBUG, text, *values, job.attempt, waits, about=about)
            return
        level = logging.ERROR if final else logging.WARNING
        text = f"{line} failed in attempt %d"
        say(_task_log, level, text, *values, job.attempt, raised=failure, about=about)

    def _tell_failure(
        self, job: Job, task: TaskDefinition, task_id: str, error: str, context: Context
    ) -> None:
        if task.on_failure is not None:
            self._tell(job, task.on_failure, task_id, task_id, error, context)

    def _tell(self, job: Job, callback: Any, task_id: str, *arguments: object) -> None:
        try:
            with attempt.inside(self.engine, job):
                self._call_back(callback, *arguments)
        except BaseException as raised:
            if self._hear is not None:
                self._hear((None, raised))
            workflow = self.engine.jobs.workflow_of(job)
            text, about = "callback of task '%s' of run %s raised", _about(job, task_id, workflow)
            say(_callback_log, logging.ERROR, text, task_id, run_id(job), raised=raised, about=about)

    def _call_back(self, callback: Any, *arguments: object) -> None:
        returned = callback(*arguments)
        if is_awaitable(returned):
            from ._aio import run_coroutine

            run_coroutine(returned)


def _about(job: Job, task_id: str, workflow: str) -> dict[str, object]:
    return {
        "cloaca_run": run_id(job),
        "cloaca_workflow": workflow or None,
        "cloaca_task": task_id,
        "cloaca_attempt": job.attempt,
    }


def _wish_of(failure: BaseException) -> int | None:
    """How long a `RetryAfter` asks for; `None` for any other error, and for one that a program's own class
    left without a time: then it is an ordinary failure, for an attempt that began must end.
    """
    if not isinstance(failure, RetryAfter):
        return None
    try:
        delay_us: object = failure.delay_us
    except BaseException:
        return None
    if isinstance(delay_us, bool) or not isinstance(delay_us, int):
        return None
    return delay_us if 0 <= delay_us < DELAY_US_MAX else None
