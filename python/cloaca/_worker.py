"""What cloaca's threads do: poll, run task bodies and callbacks, write log lines.

The threads are made here, enter the native engine and wait there with the interpreter released. User code is
called on no other thread. Whatever user code raises, of whatever kind, ends that one call and never a thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from . import attempt
from .context import Context, decode_value, encode_within, fitting
from .duration import text_of
from .errors import CloacaError, RetryAfter, RunnerError, TriggerError
from .plain import describe, plain
from .result import SKIP, TriggerResult
from .task_handle import TaskHandle
from .tick import TickBody, Ticked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._cloaca import Engine
    from .task import TaskDefinition
    from .tick import Tick
    from .trigger import TriggerDefinition

#: One poll may fire at most so many runs.
FIRES_MAX = 10_000
#: A worker that found nothing to do for so many seconds goes home.
IDLE_SECONDS_MAX = 10.0
#: Between two attempts to start a thread that the system did not give, growing.
THREAD_PAUSE_SECONDS = 0.01
THREAD_PAUSE_SECONDS_MAX = 1.0

#: The trade between lateness and wake-ups, where the operating system lets a thread choose.
TIMER_SLACK_NS = 40_000

_engine_log = logging.getLogger("cloaca")
_callback_log = logging.getLogger("cloaca.callback")
_task_log = logging.getLogger("cloaca.task")

Job = tuple[int, int, int, bool, int]
Ticket = tuple[int, int, int, int, int]
Fire = tuple[str, str | None, int | None]
Ruling = str | tuple[str, int] | tuple[list[Fire], str | None, str, str | None] | None


def _sharpen_timers() -> None:
    """Lets this thread wake nearer to when it asked to.

    Linux allows itself 50 us of slack, as much as a step of the wheel; see proc(5), `timerslack_ns`.
    Elsewhere there is no such file.
    """
    try:
        with open(f"/proc/{threading.get_native_id()}/timerslack_ns", "w") as slack:
            slack.write(str(TIMER_SLACK_NS))
    except OSError:
        pass


class Retired:
    """What is left of a trigger that was declared again."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Crew:
    """The threads of one runner, and the tables that map the engine's numbers to Python functions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.bodies: list[Any] = []
        self.triggers: list[TriggerDefinition | Retired] = []
        self.tasks: dict[int, TaskDefinition] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._running: dict[int, TaskHandle] = {}
        self._pid = os.getpid()

    def open(self) -> None:
        """Starts the first thread, the one that starts the others."""
        self._start("keeper", self._keep)

    def holds_file(self) -> bool:
        """Whether the store's file is open here: until the runner is shut down and no body of its runs."""
        return not self.engine.is_closed

    def running(self) -> list[str]:
        """What tasks run now, in words."""
        handles = list(self._running.values())
        return sorted(f"task '{handle.task_id}' of run {handle.run_id}" for handle in handles)

    def place(self, first: int, definitions: Sequence[TriggerDefinition]) -> None:
        """Puts triggers' bodies at the places that the engine will call them by, from ``first`` on.

        What stands there already is of a declaration that was interrupted before the engine knew of it.
        """
        bodies: list[Any] = []
        for slot, definition in enumerate(definitions, first):
            if definition.is_async:
                # Here and not at the first poll: to import at a fork leaves the child half a module.
                from . import _aio  # noqa: F401
            function = definition.function
            takes_tick = definition.takes_tick
            bodies.append(TickBody(self.engine, function, definition.name, slot) if takes_tick else function)
        self.triggers[first:] = definitions
        self.bodies[first:] = bodies

    def retire(self, slot: int) -> None:
        """Lets go of the body at a place that is not polled again; its last answer may still come."""
        self.bodies[slot] = None
        self.triggers[slot] = Retired(self.triggers[slot].name)

    def poll_now(self, ticket: Ticket, dry_run: bool) -> Ruling:
        """Calls a trigger's body on this thread and ends its poll; returns what it decided."""
        body = self.bodies[ticket[0]]
        if body is None:
            self.engine.poll_looked(ticket)
            raise RunnerError(
                f"trigger '{self.triggers[ticket[0]].name}' has just been declared again; try again"
            )
        answer: object = None
        error: Exception | None = None
        try:
            answer = _complete(body())
        except Exception as raised:
            error = raised
        except BaseException:
            # Ctrl-C, say: whoever asked for this poll has called it off.
            self.engine.poll_looked(ticket)
            raise
        ruling = self._ruling(ticket, answer, error)
        if dry_run:
            self.engine.poll_looked(ticket)
        else:
            self.engine.poll_answer(ticket, None, None, lambda *_: ruling)
        return ruling

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
            # In the list only once it runs: what was never started cannot be joined.
            thread.start()
            self._threads.append(thread)

    def _keep(self) -> None:
        while True:
            order = self.engine.next_order()
            if order[0] == "log":
                _say(_engine_log, order[1], "%s", order[2])
            elif order[0] == "close":
                return
            else:
                self._hire(order[0])

    def _hire(self, role: str) -> None:
        """Starts a thread, again and again while the system has none to give."""
        body = self._work if role == "worker" else self._poll
        pause = THREAD_PAUSE_SECONDS
        told = False
        while True:
            try:
                return self._start(role, body)
            except BaseException as raised:
                if not told:
                    told = True
                    text = "no thread can be started, and work waits until one can be: %s"
                    _say(_engine_log, logging.ERROR, text, describe(raised))
                if sys.is_finalizing() or _is_too_late(raised):
                    return self.engine.give_up("no thread can be started any more: the interpreter ends")
            if self.engine.wait_closing(pause):
                return None
            pause = min(2 * pause, THREAD_PAUSE_SECONDS_MAX)

    def _poll(self) -> None:
        _sharpen_timers()
        while True:
            try:
                with attempt.inside(self.engine, None):
                    return self.engine.poll(self.bodies, SKIP, self._ruling)
            except BaseException as fault:
                if self._is_forked():
                    return None
                text = "polling met a fault of the engine; please report it"
                _say(_engine_log, logging.ERROR, text, raised=fault)

    def _ruling(self, ticket: Ticket, answer: object, error: BaseException | None) -> Ruling:
        """What a poll's answer means, as plain data for the engine; ``None`` if it comes later."""
        definition = self.triggers[ticket[0]]
        tick = None
        if type(answer) is Ticked:
            tick, answer = answer.tick, answer.answer
        try:
            if error is not None:
                raise error
            if _is_awaitable(answer):
                self._answer_later(ticket, tick, answer)
                return None
            return _ruled(answer, tick, self.engine.context_bytes_max)
        except RetryAfter as wish:
            return f"retry after {text_of(wish.delay_us)}", wish.delay_us
        except CloacaError as refused:
            _say(_engine_log, logging.ERROR, "trigger '%s': %s", definition.name, describe(refused))
            return [], None, "", describe(refused)
        except BaseException as raised:
            # SystemExit and KeyboardInterrupt too: on a poller they can only mean that this poll failed.
            _say(_engine_log, logging.ERROR, "trigger '%s' raised", definition.name, raised=raised)
            return [], None, "", describe(raised)

    def _answer_later(self, ticket: Ticket, tick: Tick | None, coroutine: Any) -> None:
        from ._aio import start_coroutine

        def done(answer: object, error: BaseException | None) -> None:
            answer = answer if tick is None or error is not None else Ticked(tick, answer)
            self.engine.poll_answer(ticket, answer, error, self._ruling)

        start_coroutine(coroutine, done)

    def _work(self) -> None:
        engine = self.engine
        engine.worker_present(True)
        try:
            while not self._is_forked():
                found = engine.take_job(IDLE_SECONDS_MAX)
                if not found:
                    return
                try:
                    self._run(*found)
                except BaseException as fault:
                    if self._is_forked():
                        return
                    text = "a worker met a fault of the engine; please report it"
                    _say(_engine_log, logging.ERROR, text, raised=fault)
        finally:
            if not self._is_forked():
                engine.worker_present(False)

    def _is_forked(self) -> bool:
        """Whether a body has forked and this is the child: the runner is not here, its thread goes home."""
        return os.getpid() != self._pid

    def _run(self, job: Job, body: int, task_id: str, context_json: str, error: str) -> None:
        task = self.tasks[body]
        context = Context._wrap(decode_value(context_json))
        if job[3]:
            self._tell_failure(job, task, task_id, error, context)
            self.engine.settled(job)
            return
        failure: BaseException | None = None
        left = ""
        handle = TaskHandle(self.engine, job, task_id)
        me = threading.get_ident()
        self._running[me] = handle
        try:
            fitting(self.engine.context_bytes_max, context_json, "the context that it is given")
            with attempt.inside(self.engine, job):
                left, context = self._call(task, context, handle)
        except BaseException as raised:
            # SystemExit and KeyboardInterrupt too: on a worker they can only mean that this attempt failed.
            failure = raised
        finally:
            del self._running[me]
        handle._close()
        if self._is_forked():
            return
        if isinstance(failure, attempt.Interrupted):
            self.engine.interrupted(job)
        elif failure is None:
            self._succeed(job, task, task_id, left, context)
        else:
            self._fail(job, task, task_id, failure, context)

    def _call(self, task: TaskDefinition, context: Context, handle: TaskHandle) -> tuple[str, Context]:
        returned = task.function(context, handle) if task.takes_handle else task.function(context)
        if _is_awaitable(returned):
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
        if self.engine.succeeded(job, left, callback is not None) and callback is not None:
            self._tell(job, callback, task_id, task_id, context)
            self.engine.settled(job)

    def _fail(
        self, job: Job, task: TaskDefinition, task_id: str, failure: BaseException, context: Context
    ) -> None:
        text = describe(failure)
        has_callback = task.on_failure is not None
        final = self.engine.failed(job, text, has_callback)
        level = logging.ERROR if final else logging.WARNING
        _say(_task_log, level, "task '%s' failed in attempt %d", task_id, job[2], raised=failure)
        if final and has_callback:
            self._tell_failure(job, task, task_id, text, context)
            self.engine.settled(job)

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
            _say(_callback_log, logging.ERROR, "callback of task '%s' raised", task_id, raised=raised)

    def _call_back(self, callback: Any, *arguments: object) -> None:
        returned = callback(*arguments)
        if _is_awaitable(returned):
            from ._aio import run_coroutine

            run_coroutine(returned)


def _say(
    log: logging.Logger, level: int, text: str, *values: object, raised: BaseException | None = None
) -> None:
    """Logs. A filter or handler of the program that raises costs this line, and nothing else."""
    with contextlib.suppress(BaseException):
        log.log(level, text, *values, exc_info=raised)


def _is_too_late(error: BaseException) -> bool:
    """Whether Python refuses threads because its main thread has ended (since 3.12)."""
    return "interpreter shutdown" in describe(error)


def _ruled(answer: object, tick: Tick | None, bytes_max: int) -> Ruling:
    """What an answer means, once all of it is there."""
    results = _results(answer)
    fires = [_fire(result, bytes_max) for result in results if result.is_fire_result()]
    reasons = [result.reason for result in results if result.is_skip_result() and result.reason]
    reason = plain(reasons[-1]) if reasons else ""
    # After the results: a generator may move the cursor between two of them.
    cursor = None if tick is None else tick._moved(bytes_max)
    if not fires and cursor is None:
        return reason
    return fires, cursor, reason, None


def _results(answer: Any) -> list[TriggerResult]:
    if isinstance(answer, TriggerResult):
        return [answer]
    if isinstance(answer, bool):
        return [TriggerResult.fire() if answer else SKIP]
    if not (isinstance(answer, list | tuple) or hasattr(answer, "__next__")):
        kind = "None" if answer is None else type(answer).__name__
        raise TriggerError(f"it returned {kind}; return a TriggerResult, a bool, or a list of TriggerResults")
    results: list[TriggerResult] = []
    for result in answer:
        if not isinstance(result, TriggerResult):
            raise TriggerError(f"its list holds a {type(result).__name__}; each must be a TriggerResult")
        results.append(result)
        if len(results) > FIRES_MAX:
            raise TriggerError(
                f"it gave more than {FIRES_MAX} results at once; give the rest at the next poll"
            )
    return results


def _fire(result: TriggerResult, bytes_max: int) -> Fire:
    ttl = result.run_key_ttl
    text = encode_within(bytes_max, result.context, "the context of a fire")
    return text, result.run_key, None if ttl is None else int(ttl * 1e6)


def _is_awaitable(answer: object) -> bool:
    """Decided by what came and not by the function: a decorator around an `async def` is an ordinary one."""
    return type(answer) is not TriggerResult and hasattr(answer, "__await__")


def _complete(answer: object) -> object:
    """An answer with all of its parts, so that what its generator or coroutine raises is raised here."""
    if type(answer) is Ticked:
        return Ticked(answer.tick, _complete(answer.answer))
    if _is_awaitable(answer):
        from ._aio import run_coroutine

        return _complete(run_coroutine(answer))
    if hasattr(answer, "__next__"):
        return _results(answer)
    return answer
