"""What cloaca's threads do: poll, run task bodies and callbacks, write log lines.

The threads are made here, enter the native engine and wait there with the interpreter released. User code is called
on no other thread. Whatever user code raises, of whatever kind, ends that one call and never a thread.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any

from .context import Context, encode
from .errors import CloacaError
from .result import SKIP, TriggerResult

if TYPE_CHECKING:
    from ._cloaca import Engine
    from .task import TaskDefinition
    from .trigger import TriggerDefinition

#: A worker that found nothing to do for so many seconds goes home.
IDLE_SECONDS_MAX = 10.0
#: A condition of ``defer_until`` is looked at no more often than this, in seconds.
DEFER_SECONDS_MIN = 0.001

_engine_log = logging.getLogger("cloaca")
_callback_log = logging.getLogger("cloaca.callback")
_task_log = logging.getLogger("cloaca.task")

Job = tuple[int, int, int, bool]


class Crew:
    """The threads of one runner, and the tables that map the engine's numbers to Python functions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.bodies: list[Any] = []
        self.triggers: list[TriggerDefinition] = []
        self.tasks: dict[int, TaskDefinition] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._start("keeper", self._keep)

    def add_trigger(self, definition: TriggerDefinition) -> None:
        """Puts a trigger's body at the place that the engine will call it by."""
        self.triggers.append(definition)
        self.bodies.append(definition.function)

    def join(self, seconds: float) -> None:
        """Waits at most ``seconds`` for the threads to end. The calling thread is not waited for."""
        from time import monotonic

        deadline = monotonic() + seconds
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))

    def _start(self, role: str, body: Any) -> None:
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            name = f"cloaca-{role}-{len(self._threads)}"
            # Daemon threads: a body that never returns must not keep the interpreter from ending.
            thread = threading.Thread(target=body, name=name, daemon=True)
            self._threads.append(thread)
        thread.start()

    def _keep(self) -> None:
        while True:
            order = self.engine.next_order()
            if order[0] == "log":
                _engine_log.log(order[1], "%s", order[2])
            elif order[0] == "worker":
                self._start("worker", self._work)
            elif order[0] == "poller":
                self._start("poller", self._poll)
            else:
                return

    def _poll(self) -> None:
        while True:
            try:
                return self.engine.poll(self.bodies, SKIP, self._ruling)
            except BaseException:
                _engine_log.exception("polling met a fault of the engine; please report it")

    def _ruling(self, slot: int, answer: object, error: BaseException | None) -> object:
        """What a poll's answer means: a skip's reason, or plain data for the engine."""
        definition = self.triggers[slot]
        try:
            if error is not None:
                _engine_log.error("trigger '%s' raised", definition.name, exc_info=error)
                return self._tick(definition, [], describe(error))
            if answer is None or isinstance(answer, bool | TriggerResult):
                return self._answer(definition, answer)
            text = f"it returned {type(answer).__name__}; return a TriggerResult or a bool"
            return self._tick(definition, [], text)
        except CloacaError as refused:
            return self._tick(definition, [], describe(refused))

    def _answer(self, definition: TriggerDefinition, answer: bool | TriggerResult | None) -> object:
        if answer is None:
            return self._tick(definition, [], "it returned None; return a TriggerResult or a bool")
        if answer is True:
            answer = TriggerResult.fire()
        if answer is False:
            return ""
        if answer.is_skip_result():
            return answer.reason or ""
        ttl = answer.run_key_ttl
        fire = (encode(answer.context), answer.run_key, None if ttl is None else int(ttl * 1e6))
        return self._tick(definition, [fire], None)

    def _tick(self, definition: TriggerDefinition, fires: list[Any], error: str | None) -> object:
        return (definition.name, definition.workflow or "", definition.allow_concurrent, fires, None, error)

    def _work(self) -> None:
        engine = self.engine
        engine.worker_present(True)
        try:
            while True:
                found = engine.take_job(IDLE_SECONDS_MAX)
                if not found:
                    return
                try:
                    self._run(*found)
                except BaseException:
                    _engine_log.exception("a worker met a fault of the engine; please report it")
        finally:
            engine.worker_present(False)

    def _run(self, job: Job, body: int, task_id: str, context_json: str, error: str) -> None:
        task = self.tasks[body]
        context = Context._wrap(json.loads(context_json))
        if job[3]:
            self._tell_failure(task, task_id, error, context)
            self.engine.settled(job)
            return
        failure: BaseException | None = None
        left = ""
        handle = TaskHandle(self.engine, job, task_id)
        try:
            left, context = self._call(task, context, handle)
        except BaseException as raised:
            # SystemExit and KeyboardInterrupt too: on a worker they can only mean that this attempt failed.
            failure = raised
        handle._close()
        if failure is None:
            self._succeed(job, task, task_id, left, context)
        else:
            self._fail(job, task, task_id, failure, context)

    def _call(self, task: TaskDefinition, context: Context, handle: TaskHandle) -> tuple[str, Context]:
        returned = task.function(context, handle) if task.takes_handle else task.function(context)
        if task.is_async:
            from ._aio import run_coroutine

            returned = run_coroutine(returned)
        if returned is None:
            returned = context
        elif isinstance(returned, dict):
            returned = Context(returned)
        elif not isinstance(returned, Context):
            kind = type(returned).__name__
            raise TypeError(f"task '{task.id}' returned {kind}; return the Context, a dict or None")
        return encode(returned), returned

    def _succeed(self, job: Job, task: TaskDefinition, task_id: str, left: str, context: Context) -> None:
        callback = task.on_success
        if self.engine.succeeded(job, left, callback is not None) and callback is not None:
            self._tell(callback, task_id, task_id, context)
            self.engine.settled(job)

    def _fail(
        self, job: Job, task: TaskDefinition, task_id: str, failure: BaseException, context: Context
    ) -> None:
        text = describe(failure)
        has_callback = task.on_failure is not None
        final = self.engine.failed(job, text, has_callback)
        level = logging.ERROR if final else logging.WARNING
        _task_log.log(level, "task '%s' failed in attempt %d", task_id, job[2], exc_info=failure)
        if final and has_callback:
            self._tell_failure(task, task_id, text, context)
            self.engine.settled(job)

    def _tell_failure(self, task: TaskDefinition, task_id: str, error: str, context: Context) -> None:
        if task.on_failure is not None:
            self._tell(task.on_failure, task_id, task_id, error, context)

    def _tell(self, callback: Any, task_id: str, *arguments: object) -> None:
        try:
            returned = callback(*arguments)
            if hasattr(returned, "__await__"):
                from ._aio import run_coroutine

                run_coroutine(returned)
        except BaseException:
            _callback_log.exception("callback of task '%s' raised", task_id)


class TaskHandle:
    """What a running task knows of itself, as the second parameter ``handle`` of its function.

    Attributes:
        task_id (str): the task's id.
        attempt (int): the number of this attempt, from 1. A task that was in flight when its process died runs again with
            the next number.
    """

    __slots__ = ("_engine", "_held", "_job", "_open", "task_id")

    def __init__(self, engine: Engine, job: Job, task_id: str) -> None:
        self._engine = engine
        self._job = job
        self._held = True
        self._open = True
        self.task_id = task_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._job[2]

    def is_slot_held(self) -> bool:
        """Whether the task counts against ``max_concurrent_tasks`` now."""
        return self._held

    def defer_until(self, condition: Any, poll_interval_ms: int = 1000) -> None:
        """Gives the task's concurrency slot back until ``condition()`` is true, then takes a slot again.

        Args:
            condition: called without arguments; what it raises is logged and counts as false.
            poll_interval_ms (int): pause between two calls, in milliseconds, at least 1.

        Raises:
            ValueError: ``poll_interval_ms`` is not a positive number.
            TypeError: ``condition`` cannot be called.
            RuntimeError: the runner shuts down meanwhile, or the task has ended.
        """
        from .errors import RunnerError, WorkflowError

        if not callable(condition):
            raise TypeError(f"condition is a {type(condition).__name__}; give a function without arguments")
        if isinstance(poll_interval_ms, bool) or not poll_interval_ms > 0:
            raise WorkflowError(f"poll_interval_ms is {poll_interval_ms!r}; the smallest is 1")
        if not self._open:
            raise RunnerError(f"task '{self.task_id}' has ended; its handle cannot defer any more")
        pause = max(poll_interval_ms / 1000, DEFER_SECONDS_MIN)
        self._engine.yield_slot(self._job)
        self._held = False
        while not _holds(condition, self.task_id):
            if self._engine.wait_closing(pause):
                raise RunnerError(f"the runner shuts down; task '{self.task_id}' goes on with the next one")
        while not self._engine.regain_slot(self._job, 1.0):
            if self._engine.wait_closing(0.0):
                raise RunnerError(f"the runner shuts down; task '{self.task_id}' goes on with the next one")
        self._held = True

    def _close(self) -> None:
        self._open = False


def _holds(condition: Any, task_id: str) -> bool:
    try:
        return bool(condition())
    except Exception:
        _task_log.exception("the condition that task '%s' waits for raised", task_id)
        return False


def describe(error: BaseException) -> str:
    """``"ValueError: boom"``-like text of an exception."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "<its text cannot be shown>"
    return f"{kind}: {text}" if text else kind
