"""One attempt of a task at a time: its body, its end, and who is told.

Decides nothing.
Invariant: whatever user code raises, of whatever kind, ends that one call and never a thread.
Longer than a room should be: each way in which an attempt may end passes by the same few steps.
"""

from __future__ import annotations

import os
import threading

from . import attempt, tracing
from .context import Context, decode_value, encode_within, fitting
from .duration import text_of
from .end import left_by, raised_by
from .errors import CloacaError, RunnerError
from .job import Job, Raised
from .kind import is_a, is_awaitable, refuse_generator
from .permit import Deferred
from .plain import DEBUG, ERROR, INFO, WARNING, describe, kind_of, say
from .redact import at_hand
from .task_handle import TaskHandle, run_id
from .trace import stack_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from ._cloaca import Carrier, Engine
    from .bodies.loop import Loop
    from .hidden import Secrets
    from .job import JobParts
    from .logbook import Logbook
    from .redact import Redactor
    from .task import TaskDefinition
    from .telemetry.spans import Called, Handed, Spans

    Found = tuple[JobParts, TaskDefinition, str, str, str, str | None, Handed]
    """An attempt as `Worker.run` is given it."""
    Hear = Callable[[tuple[str | None, BaseException]], None]
    """Called with the run if it was a task, and with what was raised."""

_callback_log = "cloaca.callback"
_engine_log = "cloaca"
_task_log = "cloaca.task"


class Worker:
    """What a runner's worker threads do with the jobs that they take."""

    def __init__(
        self,
        engine: Engine,
        tasks: dict[int, TaskDefinition],
        redactor: Redactor,
        loop: Callable[[], Loop],
        hear: Hear | None = None,
        logbook: Logbook | None = None,
    ) -> None:
        self.engine = engine
        self._redactor = redactor
        self._hear = hear
        self.logbook = logbook
        self.tasks = tasks
        self._loop = loop
        self._running: dict[int, tuple[str, Job]] = {}
        self.deferred = Deferred(lambda coroutine: loop().run(coroutine), redactor.say)
        self._pid = os.getpid()
        self._spans: Spans | None = None

    def hides(self) -> bool:
        """Whether anything of contexts is to be hidden."""
        return self._redactor.mask() is not None

    def running(self) -> list[str]:
        """What tasks run now on threads, in words."""
        return [in_words(task_id, job) for task_id, job in list(self._running.values())]

    def entered(self, job: Job, task_id: str, trace: Handed, loop: Loop | None = None) -> attempt.inside:
        """An attempt's body, that is about to be called."""
        entered = attempt.inside(self.engine, job, task_id, self.deferred, loop, job.callback_only)
        if not job.callback_only and (spans := self.spans()) is not None:
            entered.trace = spans.begin(job, task_id, self.engine.jobs.workflow_of(job), trace)
        return entered

    def spans(self) -> Spans | None:
        """What traces its attempts; `None` while nobody would get that."""
        if self._spans is None and (made := tracing.active()) is not None:
            self._spans = made.Spans()
        return self._spans

    def traced(self, job: Job, outcome: str, raised: Raised | None = None) -> None:
        """An attempt has ended so; `raised` is without what is to be hidden."""
        if self._spans is not None:
            if raised is None:
                self._spans.ended(job, outcome)
            else:
                self._spans.ended(job, outcome, raised.kind, raised.text, raised.trace)

    def is_traced(self) -> bool:
        """Whether somebody gets spans."""
        return self.spans() is not None

    def heard(self, about: dict[str, object], end: str | None, judged: tuple[int, bool] | None) -> None:
        """The engine has said something, perhaps how a run ended, or how many of a poll's fires are runs."""
        if self._spans is None:
            return
        if judged is not None:
            self._spans.judged(str(about["cloaca_trigger"]), *judged)
        if end is not None:
            self._spans.over(int(str(about["cloaca_run"]).replace("-", ""), 16), end)

    def close_spans(self, seconds: float) -> None:
        """The runner is shut down; waits at most so long."""
        if self._spans is not None:
            self._spans.close(seconds)

    def _called(self, job: Job, task_id: str, name: str) -> Called | None:
        """A callback's span."""
        spans = self.spans()
        return None if spans is None else spans.callback(job, task_id, name)

    def tell(self, parts: JobParts, log: tuple[int, str, dict[str, object]] | None) -> None:
        """Says of a body that is told to end what there is to say, with where its thread is. The body may ask
        its handle."""
        if log is None:
            return
        job, where = Job(*parts), ""
        for ident, (_, running) in list(self._running.items()):
            if running == job:
                where = stack_of(ident)
        level, text, about = log
        say(_engine_log, level, "%s%s", text, f". Its thread is at\n{where}" if where else "", about=about)

    def run(
        self,
        parts: JobParts,
        task: TaskDefinition,
        task_id: str,
        context_json: str,
        error: str,
        checkpoint: str | None,
        trace: Handed,
    ) -> None:
        """Makes an attempt: calls the body, tells the engine how it ended, then whoever wants to be told."""
        job = Job(*parts)
        context = Context._wrap(decode_value(context_json))
        if job.callback_only:
            self.tell_failed(job, task, task_id, error, context)
            return
        failure: BaseException | None = None
        returned: Any = None
        left = ""
        handle = None
        entered = self.entered(job, task_id, trace)
        if task.takes_handle:
            handle = TaskHandle(self.engine, entered, task_id, checkpoint, self.deferred)
        if self.logbook is not None:
            entered.lines = self.logbook.of_attempt(job, task_id, context_json, context, handle)
        me = threading.get_ident()
        self._running[me] = (task_id, job)
        try:
            fitting(self.engine.context_bytes_max, context_json, "the context that it is given")
            with entered:
                returned = task.function(context) if handle is None else task.function(context, handle)
            if not is_awaitable(returned):
                left, context = self._left(task, context, returned)
        except BaseException as raised:
            # SystemExit and KeyboardInterrupt too: on a worker they can only mean that this attempt failed.
            failure = raised
        finally:
            del self._running[me]
        if attempt.is_forked(self._pid):
            return
        if failure is None and is_awaitable(returned):
            # A decorator around an `async def`: it goes on where that would have begun.
            loop = self._loop()
            begun = (context, handle, returned)
            body = self.attempt_on(loop, entered, task, task_id, context_json, None, begun)
            loop.adopt(entered, body, task_id)
            return
        if handle is not None:
            handle._close()
        if self._ends_unruled(entered, failure, task, task_id):
            self.traced(job, "Interrupted")
            self.engine.jobs.interrupted(job)
        elif failure is None:
            self.succeed(job, task, task_id, left, context)
        else:
            self._fail(job, task, task_id, failure, context_json, context, handle)

    def _ends_unruled(
        self,
        entered: attempt.inside,
        failure: BaseException | None,
        task: TaskDefinition,
        task_id: str,
        is_cancelled: bool = False,
    ) -> bool:
        """Whether what a body raised is no end of its attempt, as its runner ends.

        Args:
            is_cancelled: it runs on a loop, and was cancelled for that.
        """
        if is_a(failure, attempt.Interrupted):
            return True
        if failure is None or not (is_cancelled or entered.is_sent_home()):
            return False
        if raised_by(failure).delay_us is not None:
            return False
        text = "task '%s' of run %s was told to end, as its runner does, and raised %s: it %s"
        follows = (
            "is not attempted again, as its on_interrupt is 'fail'"
            if task.on_interrupt == "fail"
            else "is made anew"
        )
        # Not its text, which may hold what is to be hidden.
        say(_engine_log, INFO, text, task_id, run_id(entered.job), kind_of(failure), follows)
        return True

    def struck(self, error: BaseException, found: Found | None = None) -> None:
        """Something was thrown into a worker's thread from outside, by who meant a body that had returned:
        while it waited, or behind the body of an attempt, which fails by it if it had not ended.
        """
        if found is None and is_a(error, CloacaError):
            say(_engine_log, ERROR, "a worker met a fault of the engine; please report it", raised=error)
            return
        if found is None:
            text = "%s was thrown into a worker's thread, while it waited"
            say(_engine_log, WARNING, text, describe(error))
            return
        parts, task, task_id, context_json, *_ = found
        job = Job(*parts)
        self._running.pop(threading.get_ident(), None)
        if not job.callback_only and self.engine.jobs.is_current(job):
            context = Context._wrap(decode_value(context_json))
            self._fail(job, task, task_id, error, context_json, context, None)
        else:
            text = "%s was thrown into the thread of task '%s' of run %s, behind its end"
            about = about_attempt(job, task_id, self.engine.jobs.workflow_of(job))
            say(_engine_log, WARNING, text, describe(error), task_id, run_id(job), about=about)

    async def attempt_on(
        self,
        loop: Loop,
        entered: attempt.inside,
        task: TaskDefinition,
        task_id: str,
        given: str,
        checkpoint: str | None,
        begun: tuple[Context, TaskHandle | None, Any] | None = None,
    ) -> None:
        """The same on an event loop, where nothing may wait. One coroutine for all of it: each layer of them
        costs a quarter of a kilobyte, times the bodies in flight.

        Args:
            begun: what a body has that was called on a thread, and what it returned there.
        """
        carrier, job = loop.open(), entered.job
        failure: BaseException | None = None
        handle = None
        try:
            if not loop.begins(job):
                return
            if begun is None:
                context = Context._wrap(decode_value(given))
                if task.takes_handle:
                    handle = TaskHandle(self.engine, entered, task_id, checkpoint, self.deferred)
                if self.logbook is not None:
                    entered.lines = self.logbook.of_attempt(job, task_id, given, context, handle)
            else:
                context, handle, returned = begun
            try:
                if begun is None:
                    if loop.is_told(job):
                        from asyncio import CancelledError

                        raise CancelledError
                    fitting(self.engine.context_bytes_max, given, "the context that it is given")
                    returned = task.function(context) if handle is None else task.function(context, handle)
                if is_awaitable(returned):
                    returned = await returned
                left, context = self._left(task, context, returned)
                if handle is not None:
                    handle._check_awaited()
            except BaseException as raised:
                attempt.end_child(self._pid, raised)
                if self._goes_home(loop, raised) or self._ends_unruled(
                    entered, raised, task, task_id, self._is_cancelled_home(loop, entered)
                ):
                    self.traced(job, "Interrupted")
                    carrier.interrupted(job)
                    if is_a(raised, GeneratorExit) or is_a(raised, KeyboardInterrupt):
                        raise
                    return
                # SystemExit too: raised on, it would end the loop.
                failure = raised
            finally:
                entered.close()
                if handle is not None:
                    handle._close()
            if attempt.is_forked(self._pid):
                return
            if failure is not None and loop.is_sweeping() and self._is_swept(loop, job, failure):
                fails = self._failed_later(loop, job, task, task_id, failure, given, context, handle)
                loop.sweep(entered, task_id, fails)
                return
            if failure is not None:
                await self._fail_on(loop, job, task, task_id, failure, given, context, handle)
                return
            self.traced(job, "Completed")
            if task.on_success is None:
                carrier.succeeded(job, left, False)
            elif await loop.ruled(job, lambda carrier: carrier.succeeded(job, left, True)):
                telling = loop.call_back(task.on_success, task_id, context)
                await self._tell_on(loop, job, task_id, "on_success", telling, context)
        except BaseException as raised:
            if loop.is_passed_on(raised):
                raise
        finally:
            loop.is_home(job)

    def _is_cancelled_home(self, loop: Loop, entered: attempt.inside) -> bool:
        """Whether it was cancelled as its runner or loop ends: what it raises by that is no failure."""
        if not loop.is_cancelled():
            return False
        if loop.is_sent_home() and not loop.is_told(entered.job):
            return True
        return entered.is_to_end() and entered.is_sent_home()

    def _is_swept(self, loop: Loop, job: Job, failure: BaseException) -> bool:
        from asyncio import CancelledError

        return is_a(failure, CancelledError) and not loop.is_told(job)

    def _failed_later(self, loop: Loop, job: Job, *about: Any) -> Callable[[], Coroutine[Any, Any, None]]:
        async def failed() -> None:
            try:
                await self._fail_on(loop, job, *about)
            except BaseException as raised:
                if loop.is_passed_on(raised):
                    raise
            finally:
                loop.is_home(job)

        return failed

    def _goes_home(self, loop: Loop, raised: BaseException) -> bool:
        from asyncio import CancelledError

        if is_a(raised, CancelledError):
            return loop.is_sent_home()
        if is_a(raised, GeneratorExit):
            # Who closes a coroutine that no loop goes on with; a body may also raise it by itself.
            return not loop.is_running()
        # Ctrl-C that met a body by chance, on the program's loop, is the program's.
        is_stray = is_a(raised, KeyboardInterrupt) and not loop.is_own
        return is_stray or is_a(raised, attempt.Interrupted)

    async def _fail_on(
        self,
        loop: Loop,
        job: Job,
        task: TaskDefinition,
        task_id: str,
        failure: BaseException,
        given: str,
        context: Context,
        handle: TaskHandle | None,
    ) -> None:
        raised = raised_by(failure)
        known = at_hand(given, context, handle)
        kind, kept, trace, delay_us, pause = self._to_keep(job, raised, failure, known)
        has_callback = task.on_failure is not None
        workflow = self.engine.jobs.workflow_of(job)
        is_told = loop.is_told(job)

        def told(carrier: Carrier) -> bool | None:
            if delay_us is not None:
                return carrier.postponed(job, delay_us, kept, trace, has_callback, pause)
            return carrier.failed(job, kind, kept, trace, has_callback)

        final = await loop.ruled(job, told)
        if not (is_told and kind == "CancelledError"):
            # Who was cancelled has been told of already.
            self._tell_ended(job, task_id, workflow, failure, None if final else delay_us, final, known)
        if final and has_callback:
            assert task.on_failure is not None, "it has one"
            telling = loop.call_back(task.on_failure, task_id, raised.text, context)
            await self._tell_on(loop, job, task_id, "on_failure", telling, context)

    def failed_on(
        self, loop: Loop, job: Job, task: TaskDefinition, task_id: str, given: str, error: str
    ) -> Coroutine[Any, Any, None]:
        """Tells the callback of a task that failed before, on an event loop."""
        context = Context._wrap(decode_value(given))

        def tell() -> Any:
            return task.on_failure and loop.call_back(task.on_failure, task_id, error, context)

        return self._telling_on(loop, job, task_id, "on_failure", tell, error, context)

    async def _telling_on(
        self, loop: Loop, job: Job, task_id: str, name: str, tell: Callable[[], Any], *arguments: object
    ) -> None:
        """A callback that is all there is of an attempt there."""
        try:
            if loop.begins(job):
                await self._tell_on(loop, job, task_id, name, tell(), *arguments)
        except BaseException as raised:
            if loop.is_passed_on(raised):
                raise
        finally:
            loop.is_home(job)

    async def _tell_on(
        self, loop: Loop, job: Job, task_id: str, name: str, telling: Any, *arguments: object
    ) -> None:
        """Awaits a callback, and settles the attempt."""
        loop.is_over(job)
        if (entered := attempt.entered()) is not None:
            entered.tells()
            if self.logbook is not None:
                # What the body logged is its own.
                entered.lines = self.logbook.of_callback(job, task_id, name, arguments)
        called = None if telling is None else self._called(job, task_id, name)
        failure: BaseException | None = None
        token = None if called is None else called.attach()
        try:
            if telling is not None:
                refuse_generator(await telling)
        except BaseException as raised:
            failure = raised
            if is_a(raised, GeneratorExit) and not loop.is_running():
                raise
            self._callback_raised(job, task_id, raised, arguments)
        finally:
            if called is not None and token is not None:
                called.detach(token)
                called.end(failure)
        loop.open().settled(job)

    def _left(self, task: TaskDefinition, context: Context, returned: Any) -> tuple[str, Context]:
        """What a body left: as JSON text, and as a context."""
        left = left_by(task.id, context, returned)
        return encode_within(self.engine.context_bytes_max, left, "the context that it left"), left

    def succeed(self, job: Job, task: TaskDefinition, task_id: str, left: str, context: Context) -> None:
        """Ends an attempt that left a context, and tells of it."""
        self.traced(job, "Completed")
        callback = task.on_success
        if self.engine.jobs.succeeded(job, left, callback is not None) and callback is not None:
            self._tell(job, "on_success", callback, task_id, task_id, context)

    def _to_keep(
        self, job: Job, raised: Raised, failure: BaseException, known: Callable[[], Iterator[Any]]
    ) -> Raised:
        """What is kept of a failure. Lets who hears of errors hear of it."""
        own = self._redactor.told_by_body(lambda: self.engine.jobs.began_with(job), known())
        # A wish is no failure. Where it fails the task, or the run's time is up before it, the run tells why.
        if self._hear is not None and raised.delay_us is None:
            self._hear((run_id(job), failure))
        if raised.delay_us is not None:
            self.traced(job, "Postponed")
        elif self._spans is not None:
            self.traced(job, "Failed", _hidden(raised, self._redactor.shown_of_body(known())))
        return _hidden(raised, own)

    def _fail(
        self,
        job: Job,
        task: TaskDefinition,
        task_id: str,
        failure: BaseException,
        given: str,
        context: Context,
        handle: TaskHandle | None,
    ) -> None:
        self.fail(job, task, task_id, raised_by(failure), failure, given, context, handle)

    def fail(
        self,
        job: Job,
        task: TaskDefinition,
        task_id: str,
        raised: Raised,
        failure: BaseException,
        given: str,
        context: Context,
        handle: TaskHandle | None = None,
    ) -> None:
        """Ends an attempt that left nothing but an error, here or elsewhere, and tells of it."""
        known = at_hand(given, context, handle)
        kind, kept, trace, delay_us, pause = self._to_keep(job, raised, failure, known)
        has_callback = task.on_failure is not None
        # Before its end: that may be the run's, too.
        workflow = self.engine.jobs.workflow_of(job)
        if delay_us is not None:
            final = self.engine.jobs.postponed(job, delay_us, kept, trace, has_callback, pause)
        else:
            final = self.engine.jobs.failed(job, kind, kept, trace, has_callback)
        self._tell_ended(job, task_id, workflow, failure, None if final else delay_us, final, known)
        if final and has_callback:
            self.tell_failed(job, task, task_id, raised.text, context)

    def _tell_ended(
        self,
        job: Job,
        task_id: str,
        workflow: str,
        failure: BaseException,
        delay_us: int | None,
        final: bool,
        known: Callable[[], Iterator[Any]],
    ) -> None:
        """Lets the log know of an attempt that left nothing."""
        line, values = "task '%s' of run %s, which is over,", [task_id, attempt.run_id(job)]
        if workflow:
            line, values = "task '%s' of workflow '%s', run %s,", [task_id, workflow, run_id(job)]
        about = about_attempt(job, task_id, workflow)
        if delay_us is not None:
            # What was asked for is no news of a healthy day.
            text, waits = f"{line} asked in attempt %d to be called again in %s", text_of(delay_us)
            say(_task_log, DEBUG, text, *values, job.attempt, waits, about=about)
            return
        if is_a(failure, RunnerError) and failure._ends_wait:
            # Who has it end has said why, and nothing else has gone wrong.
            say(
                _task_log,
                DEBUG,
                f"{line} was told to end while it waited, in attempt %d",
                *values,
                job.attempt,
                about=about,
            )
            return
        level = ERROR if final else WARNING
        text = f"{line} failed in attempt %d{', its last' if final else ''}"
        self._redactor.say(
            _task_log, level, text, *values, job.attempt, raised=failure, about=about, values_of=known
        )

    def tell_failed(self, job: Job, task: TaskDefinition, task_id: str, error: str, context: Context) -> None:
        """Calls the task's `on_failure`, if it has one, and settles the attempt."""
        if task.on_failure is None:
            self.engine.jobs.settled(job)
        else:
            self._tell(job, "on_failure", task.on_failure, task_id, task_id, error, context)

    def _tell(self, job: Job, name: str, callback: Any, task_id: str, *arguments: object) -> None:
        """Calls a callback, and settles the attempt."""
        entered = attempt.inside(self.engine, job, task_id, self.deferred, None, True)
        called = entered.trace = self._called(job, task_id, name)
        if self.logbook is not None:
            entered.lines = self.logbook.of_callback(job, task_id, name, arguments)
        failure: BaseException | None = None
        try:
            with entered:
                returned = callback(*arguments)
            if is_awaitable(returned):
                loop = self._loop()
                body = self._telling_on(loop, job, task_id, name, lambda: returned, *arguments)
                loop.adopt(entered, body, task_id)
                return
            refuse_generator(returned)
        except BaseException as raised:
            failure = raised
            self._callback_raised(job, task_id, raised, arguments)
        finally:
            if called is not None:
                called.end(failure)
        self.engine.jobs.settled(job)

    def _callback_raised(
        self, job: Job, task_id: str, raised: BaseException, arguments: tuple[object, ...]
    ) -> None:
        if self._hear is not None:
            self._hear((None, raised))
        workflow = self.engine.jobs.workflow_of(job)
        text, about = "callback of task '%s' of run %s raised", about_attempt(job, task_id, workflow)
        values, left = (task_id, run_id(job)), [each._data for each in arguments if type(each) is Context]
        self._redactor.say(
            _callback_log, ERROR, text, *values, raised=raised, about=about, values_of=lambda: left
        )


def _hidden(raised: Raised, secrets: Secrets) -> Raised:
    kind, text = secrets.hide(raised.kind), secrets.hide(raised.text)
    return raised._replace(kind=kind, text=text, trace=secrets.hide_maybe(raised.trace))


def in_words(task_id: str, job: Job) -> str:
    """What runs, for whoever waits for it."""
    return f"task '{task_id}' of run {run_id(job)}"


def about_attempt(job: Job, task_id: str, workflow: str) -> dict[str, object]:
    """What a line of the log about an attempt says that it is about."""
    return {
        "cloaca_run": attempt.run_id(job),
        "cloaca_workflow": workflow or None,
        "cloaca_task": task_id,
        "cloaca_attempt": job.attempt,
    }
