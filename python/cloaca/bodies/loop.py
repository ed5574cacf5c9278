"""The event loop that the async bodies of a runner run on: the program's, or one that all runners share.

Attempts come in batches through a carrier, and their ends go back by id. Decides nothing.
Invariant: on the loop's thread nothing waits for the engine's lock, a commit, or another thread.
Longer than a room should be: how the loop is had, shared and let go of is one state.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from functools import partial

from .. import _aio, attempt
from ..body import is_async
from ..errors import RunnerError
from ..job import Job
from ..kind import is_a, is_awaitable
from ..plain import ERROR, say
from ..tick import Ticked
from ..worker import in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from .._cloaca import Carrier, Engine
    from ..answer import Ruling
    from ..job import JobParts, TicketParts
    from ..threads import Threads
    from ..tick import Tick
    from ..worker import Worker
    from .aside import Aside

EXECUTOR = 1
"""The loop's number among the places to run."""
FETCH_MAX = 32
"""So many attempts are begun in one turn of the loop, so that others have theirs."""
WAIT_SECONDS = 5.0
"""How long a thread waits at once for something to fetch, where the loop cannot read a descriptor."""

SWEPT_SECONDS = 1.0
"""The loop that goes on for so long after everything on it was cancelled does not end by that."""

_log = "cloaca"


ASKS_MAX = 20
"""So often a thread that is struck meanwhile asks the loop."""


class _Over(asyncio.Future[None]):
    """What the watch awaits.

    Args:
        swept: called when it is cancelled while the loop runs: by somebody on it, and not by who closes it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, swept: Callable[[], None]) -> None:
        super().__init__(loop=loop)
        self._swept = swept
        self.was_running = False

    def cancel(self, msg: Any | None = None) -> bool:
        self.was_running = self.get_loop().is_running()
        if self.was_running:
            # At once: others that are cancelled may hear of that before the watch does.
            self._swept()
        return super().cancel(msg)


class Loop:
    """The place to run of async bodies.

    Args:
        threads: those of the runner.
    """

    def __init__(self, engine: Engine, worker: Worker, aside: Aside, threads: Threads) -> None:
        self._engine = engine
        self._worker = worker
        self._aside = aside
        self._threads = threads
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_own = False
        self._thread_id: int | None = None
        self._carrier: Carrier | None = None
        self._handed: deque[Callable[[], object]] = deque()
        self._is_asked = False
        self._bodies: dict[JobParts, tuple[asyncio.Task[None], str]] = {}
        self._unbegun: set[JobParts] = set()
        self._deferred: set[JobParts] = set()
        self._stopped: set[JobParts] = set()
        self._polls: set[asyncio.Task[None]] = set()
        self._answers: dict[JobParts, asyncio.Future[bool]] = {}
        self._wanted: dict[JobParts, tuple[asyncio.Future[bool], Callable[[], None]]] = {}
        self._over: _Over | None = None
        self._sentinel: asyncio.Task[None] | None = None
        self._is_sweeping = False
        self._swept: dict[JobParts, Callable[[], object]] = {}
        """Attempts whose bodies were cancelled with everything else, until it shows what by."""
        self._is_closing = False
        self._is_deaf = False
        self._is_lost = False
        self._is_over = False

    # From any thread

    @property
    def is_lost(self) -> bool:
        """Whether the program's loop has ended, and no body runs on it any more."""
        return self._is_lost

    def bind(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Has the bodies run on that loop, or on the shared one, unless that has been decided before."""
        with self._lock:
            if self._loop is not None:
                return
            self._is_own = loop is None
            self._loop = _aio.shared_loop() if loop is None else loop
            with contextlib.suppress(RuntimeError):
                if asyncio.get_running_loop() is loop:
                    self._thread_id = threading.get_ident()
            if not self._is_own:
                self._handed.appendleft(self._watch)
            if not self._handed:
                return
            self._is_asked = True
            loop = self._loop
        self._ask(loop)

    @property
    def is_own(self) -> bool:
        """Whether it is the one that runners share, and not the program's."""
        return self._is_own

    def is_here(self) -> bool:
        """Whether this is the thread of the loop."""
        if self._is_own:
            return _aio.is_on_loop()
        return self._thread_id == threading.get_ident() and not self._is_lost

    def is_running(self) -> bool:
        """Whether it runs, on whatever thread."""
        return self._loop is not None and self._loop.is_running()

    def has_bodies(self, own: object) -> bool:
        """Whether tasks are in their bodies on it, beside the one that asks."""
        return any(job != own for job in self._bodies)

    def running(self) -> list[str]:
        """What tasks run now, in words."""
        bodies = list(self._bodies.items())
        return [in_words(task_id, Job(*job)) for job, (_, task_id) in bodies if job not in self._unbegun]

    def open(self) -> Carrier:
        """What its attempts and their ends go through, from now on."""
        if self._carrier is not None:
            return self._carrier
        with self._lock:
            if self._carrier is None:
                self._carrier = self._engine.jobs.carrier(EXECUTOR)
                self._threads.serve("loop", self._carrier.carry)
                self.hand(self._listen)
            return self._carrier

    def hand(self, call: Callable[[], object]) -> None:
        """Has this called on the loop, soon and in order. Never waits."""
        with self._lock:
            self._handed.append(call)
            if self._is_asked or self._loop is None:
                return
            self._is_asked = True
            loop = self._loop
        self._ask(loop)

    def run(self, coroutine: Any) -> Any:
        """Runs a coroutine on the loop, and returns its result or raises what it raised.

        Raises:
            RunnerError: (a `RuntimeError`) this is the loop's thread, which would wait for itself for ever,
            or the loop is closed.
        """
        if self.is_here():
            _close(coroutine)
            raise RunnerError(
                "an async body cannot wait in an ordinary call for another async function: both need the"
                " same loop; await it, or make the body a plain function"
            )
        return _aio.run_coroutine(coroutine, self._known(coroutine))

    def start_poll(
        self,
        ticket: TicketParts,
        trigger: str,
        tick: Tick | None,
        coroutine: Any,
        ruling: Callable[[TicketParts, object, BaseException | None], Ruling],
    ) -> None:
        """Has a poll's answer awaited on the loop.

        Raises:
            RunnerError: (a `RuntimeError`) the loop is closed.
        """
        self._known(coroutine, may_come=True)
        carrier = self.open()
        poll = partial(self._poll, carrier, ticket, tick, coroutine, ruling)
        self.hand(partial(self._begin_poll, poll, trigger, partial(carrier.called_off, ticket), coroutine))

    def adopt(self, entered: attempt.inside, body: Coroutine[Any, Any, None], task_id: str) -> None:
        """Has an attempt that began on a thread go on here: the thread and its permit are free."""
        self.open()
        entered.goes_on(self)
        self._engine.jobs.move_to(entered.job, EXECUTOR)
        self.hand(partial(self._body, entered, body, task_id))

    def look(self) -> None:
        """Notices that the loop was closed."""
        if self._loop is not None and self._loop.is_closed():
            self._lose()

    def close(self) -> None:
        """The runner has ended: stops listening, and what still runs. Never waits."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        self._aside.close()
        if self._loop is not None and not self._is_lost:
            self.hand(self._leave)

    # For whom has nothing but an attempt's parts, on the loop

    def begins(self, job: Job) -> bool:
        """An attempt takes its first step; false if it must not: what is still to be called in this turn of
        the loop is not a forked child's."""
        self._unbegun.discard(job)
        return not attempt.is_forked(self._pid)

    def is_home(self, job: Job) -> None:
        """Nothing of it is called any more."""
        self._bodies.pop(job, None)
        self._wanted.pop(job, None)
        self._stopped.discard(job)
        self._deferred.discard(job)

    def is_passed_on(self, raised: BaseException) -> bool:
        """Whether what an attempt's coroutine raises, beside what its body did, is its loop's to hear of."""
        if is_a(raised, Exception):
            _say_fault(raised)
            return False
        if is_a(raised, KeyboardInterrupt) and (task := asyncio.current_task()) is not None:
            # The loop raises it, to whom runs it: the task need not be asked once more.
            task.add_done_callback(asyncio.Task.exception)
        return True

    def is_sweeping(self) -> bool:
        """Whether all that is on the loop was just cancelled, by somebody on it: it is about to end, or that
        was for those that somebody found there."""
        return self._is_sweeping

    def sweep(
        self, entered: attempt.inside, task_id: str, fails: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """An attempt's body has ended by that: it fails by it if the loop goes on."""
        self._swept[entered.job] = lambda: self._task(fails(), entered, task_id)

    async def regained(self, job: Job, has: Callable[[], None]) -> None:
        """Waits until the attempt has its permit again, and calls `has` then.

        Several coroutines of a body may wait: they get one, which comes even if they are cancelled meanwhile.
        """
        await asyncio.shield(self.wanted(job, has))

    def wanted(self, job: Job, has: Callable[[], None]) -> asyncio.Future[bool]:
        """What is done once the attempt has its permit again. To be called on the loop."""
        wanted = self._wanted.get(job)
        if wanted is None:
            wanted = self._wanted[job] = self._future(), has
            if self.open().wanted(job):
                self._has_again(job)
        return wanted[0]

    def yielded(self, job: Job) -> None:
        """Gives its permit back while it waits."""
        self._deferred.add(job)
        self.open().yielded(job)

    def resumed(self, job: Job) -> None:
        """It waits no more, or another thread of it has its permit."""
        self._deferred.discard(job)
        if job in self._wanted and not self.is_here():
            self.hand(partial(self._has_again, job))

    async def aside(self, function: Callable[[], Any]) -> Any:
        """Calls what may block on another thread."""
        return await self._aside.call(function)

    # On the loop

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody else asks the loop until it has come: what is thrown into this thread meanwhile is raised
        once it is asked."""
        thrown: BaseException | None = None
        for _ in range(ASKS_MAX):
            try:
                loop.call_soon_threadsafe(self._drain)
                break
            except BaseException as error:
                if loop.is_closed():
                    self._lose()
                    break
                thrown = error
        if thrown is not None:
            raise thrown

    def _drain(self) -> None:
        self._thread_id = threading.get_ident()
        try:
            with self._lock:
                many = len(self._handed)
                self._is_asked = False
            # One by one: what is thrown into this thread meanwhile takes no other with it.
            for _ in range(min(many, len(self._handed))):
                try:
                    self._handed.popleft()()
                except Exception as fault:
                    _say_fault(fault)
        except BaseException:
            if self._loop is not None:
                self._ask(self._loop)
            raise

    def _listen(self) -> None:
        carrier, loop = self._carrier, self._loop
        assert carrier is not None, "it was opened"
        assert loop is not None, "on a loop"
        descriptor = carrier.descriptor
        if descriptor is not None:
            with contextlib.suppress(NotImplementedError):
                loop.add_reader(descriptor, self._fetch)
                return
        self._threads.serve("waker", partial(self._wake, carrier))

    def _wake(self, carrier: Carrier) -> None:
        while not (self._is_over or self._is_lost):
            if carrier.wait(WAIT_SECONDS):
                self.hand(self._fetch)

    def _fetch(self) -> None:
        self._thread_id = threading.get_ident()
        carrier = self._carrier
        assert carrier is not None, "it was opened"
        try:
            found = carrier.fetch(FETCH_MAX, self._worker.tasks)
        except RunnerError:
            # A forked child, which has the loop but not the runner.
            self._deafen()
            return
        gathers = len(found) > 1
        if gathers:
            carrier.gather()
        for item in found:
            try:
                self._heed(*item)
            except Exception as fault:
                _say_fault(fault)
        if gathers and self._loop is not None:
            # Behind the first steps of what has begun here, which may be the last ones, too.
            self._loop.call_soon(self._gathered, carrier)

    def _gathered(self, carrier: Carrier) -> None:
        # A forked child has the loop but not the runner.
        with contextlib.suppress(RunnerError):
            carrier.gathered()

    def _heed(self, what: str, *about: Any) -> None:
        if what == "begun":
            parts, task, task_id, given, error, checkpoint, trace = about[0]
            entered = self._worker.entered(Job(*parts), task_id, trace, self)
            if entered.job.callback_only:
                body = self._worker.failed_on(self, entered.job, task, task_id, given, error)
            else:
                body = self._worker.attempt_on(self, entered, task, task_id, given, checkpoint)
            self._body(entered, body, task_id)
        elif what == "closing":
            self._is_closing = True
            self._drop_swept()
            # Those that wait for their conditions go home at once.
            for deferred in list(self._deferred):
                self._cancel(deferred)
        elif what == "stopped":
            self._stopped.add(about[0])
            # Who has not taken his first step finds out there; interrupted, he would be the next runner's.
            if about[0] not in self._unbegun:
                self._cancel(about[0])
        elif what == "regained":
            self._has_again(about[0])
        else:
            future = self._answers.pop(about[0], None)
            if future is not None and not future.done():
                future.set_result(about[1])

    def _cancel(self, job: JobParts) -> None:
        if (found := self._bodies.get(job)) is not None:
            found[0].cancel()
            if job in self._unbegun:
                self._never_begins(job)

    def _body(self, entered: attempt.inside, body: Coroutine[Any, Any, None], task_id: str) -> None:
        job = entered.job
        self._unbegun.add(job)
        self._bodies[job] = self._task(body, entered, task_id), task_id

    def _never_begins(self, job: JobParts) -> None:
        """Its task is cancelled before its first step: then nothing of it is ever called."""
        self._unbegun.discard(job)
        self._bodies.pop(job, None)
        self._stopped.discard(job)
        self._worker.traced(Job(*job), "Interrupted")
        self.open().interrupted(job)

    def _begin_poll(
        self,
        poll: Callable[[], Coroutine[Any, Any, None]],
        trigger: str,
        call_off: Callable[[], None],
        coroutine: Any,
    ) -> None:
        body = poll()
        try:
            task = self._task(body, attempt.inside(self._engine, None, trigger), trigger)
        except BaseException:
            # Thrown in by another thread: the next poll is as good.
            body.close()
            _close(coroutine)
            call_off()
            raise
        self._polls.add(task)
        task.add_done_callback(partial(self._poll_done, call_off, coroutine))

    def _poll_done(self, call_off: Callable[[], None], coroutine: Any, task: asyncio.Task[None]) -> None:
        self._polls.discard(task)
        if task.cancelled():
            # Before its first step: afterwards it hears of that itself.
            _close(coroutine)
            call_off()
        _done(task)

    def _task(
        self, body: Coroutine[Any, Any, None], entered: attempt.inside, name: str
    ) -> asyncio.Task[None]:
        loop = self._loop
        assert loop is not None, "it is bound before anything is handed out"
        return loop.create_task(body, name=name, context=attempt.fresh(entered))

    def _future(self) -> asyncio.Future[bool]:
        loop = self._loop
        assert loop is not None, "an attempt runs on it"
        return loop.create_future()

    def _has_again(self, job: JobParts) -> None:
        wanted = self._wanted.pop(job, None)
        if wanted is not None:
            # At once: a wait that begins in this turn of the loop gives it back.
            wanted[1]()
            if not wanted[0].done():
                wanted[0].set_result(True)

    async def ruled(self, job: Job, told: Callable[[Carrier], bool | None]) -> bool:
        """Tells the engine how an attempt ended, and waits for what that means: whether it is final."""
        future = self._answers[job] = self._future()
        carrier = self.open()
        is_final = told(carrier)
        self.is_over(job)
        if is_final is not None:
            self._answers.pop(job, None)
            return is_final
        if self._is_deaf:
            future.cancel()
        try:
            return await future
        except (asyncio.CancelledError, GeneratorExit):
            # The loop ends, or has.
            carrier.interrupted(job)
            raise

    def is_over(self, job: Job) -> None:
        """From here on it is too late to stop its body."""
        self._bodies.pop(job, None)

    def is_sent_home(self) -> bool:
        """Whether a body that was cancelled goes home without an end: the runner or its loop ends. What was
        told to end, because its time is over or its run was cancelled, has failed by that."""
        return self._is_closing or self._is_over or self._is_ending()

    def is_told(self, job: Job) -> bool:
        """Whether a body was told to end."""
        return job in self._stopped

    def is_cancelled(self) -> bool:
        """Whether the body that asks was cancelled, by whomever."""
        # Nor is one closed by whoever throws it away, once no loop goes on with it.
        task = asyncio.current_task() if self.is_running() else None
        return task is not None and task.cancelling() > 0

    async def call_back(self, callback: Callable[..., Any], *arguments: object) -> None:
        """Calls a callback: an ordinary function aside, for it may block."""
        if is_async(callback):
            returned = callback(*arguments)
        else:
            returned = await self._aside.call(partial(callback, *arguments))
        if is_awaitable(returned):
            await returned

    async def _poll(
        self,
        carrier: Carrier,
        ticket: TicketParts,
        tick: Tick | None,
        coroutine: Any,
        ruling: Callable[[TicketParts, object, BaseException | None], Ruling],
    ) -> None:
        if attempt.is_forked(self._pid):
            # What is still to be called in this turn of the loop is not this child's.
            _close(coroutine)
            return
        answer: object = None
        error: BaseException | None = None
        try:
            answer = await coroutine
        except BaseException as raised:
            attempt.end_child(self._pid, raised)
            if is_a(raised, GeneratorExit) and not self.is_running():
                raise
            if is_a(raised, asyncio.CancelledError) and (self._is_over or self._is_ending()):
                carrier.called_off(ticket)
                return
            error = raised
        if tick is not None and error is None:
            answer = Ticked(tick, answer)
        if attempt.is_forked(self._pid):
            return
        ruled = ruling(ticket, answer, error)
        if ruled is not None:
            carrier.polled(ticket, ruled)

    # The loop's end, and the runner's

    def _watch(self) -> None:
        loop = self._loop
        assert loop is not None, "it is bound"
        self._over = _Over(loop, self._begin_sweep)
        self._sentinel = loop.create_task(self._wait_over(self._over), name="cloaca")
        self._sentinel.add_done_callback(_done)

    async def _wait_over(self, over: _Over) -> None:
        try:
            await over
        except asyncio.CancelledError:
            # Whoever cancels everything while nothing runs, as `asyncio.run` does at its end, means to close
            # the loop.
            if not self._is_over and not over.was_running:
                self._lose()

    def _is_ending(self) -> bool:
        if self._is_lost or self._sentinel is None or self._over is None:
            return self._is_lost
        return self._sentinel.cancelling() > 0 and not self._over.was_running

    def _begin_sweep(self) -> None:
        assert self._loop is not None, "it runs here"
        if self._is_sweeping or self._is_over or self._is_lost:
            return
        self._is_sweeping = True
        # The next watch is not begun at once: who cancels until nothing is left would never end.
        self._loop.call_later(SWEPT_SECONDS, self._end_sweep)

    def _end_sweep(self) -> None:
        self._is_sweeping = False
        if self._is_over or self._is_lost:
            return
        swept, self._swept = self._swept, {}
        for fails in swept.values():
            fails()
        self._watch()

    def _drop_swept(self) -> None:
        """The loop or the runner ends: whoever goes on with their runs makes those attempts anew."""
        swept, self._swept = self._swept, {}
        for job in swept:
            self._worker.traced(Job(*job), "Interrupted")
            self.open().interrupted(job)

    def _lose(self) -> None:
        with self._lock:
            if self._is_lost or self._is_over:
                return
            self._is_lost = True
            self._handed.clear()
        text = (
            "the event loop that the runner's async bodies run on has ended: its async tasks wait for the"
            " next runner, and its async triggers fail"
        )
        say(_log, ERROR, text)
        if self._sentinel is not None:
            # Nobody needs to be told once more.
            self._sentinel._log_destroy_pending = False  # type: ignore[attr-defined]
        if self._carrier is not None:
            self._carrier.lose()
            self._drop_swept()
            is_closed = self._loop is not None and self._loop.is_closed()
            if is_closed:
                self._carrier.deafen()
            else:
                self._wait_no_more()
            for job in list(self._bodies if is_closed else self._unbegun):
                self._never_begins(job)

    def _deafen(self) -> None:
        if self._carrier is None or self._loop is None or (descriptor := self._carrier.descriptor) is None:
            return
        with contextlib.suppress(NotImplementedError, ValueError):
            self._loop.remove_reader(descriptor)
            self._carrier.deafen()

    def _wait_no_more(self) -> None:
        """No answer comes any more: who waits for one would keep whoever ends the loop."""
        self._is_deaf = True
        for future in [*self._answers.values(), *(future for future, _ in self._wanted.values())]:
            future.cancel()

    def _leave(self) -> None:
        self._deafen()
        self._wait_no_more()
        self._drop_swept()
        for job in list(self._bodies):
            self._cancel(job)
        for task in self._polls:
            task.cancel()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _known(self, coroutine: Any, may_come: bool = False) -> asyncio.AbstractEventLoop:
        if self._loop is None and not may_come:
            self.bind(None)
        if self._is_lost:
            _close(coroutine)
            raise RunnerError(
                "the event loop that the runner's async bodies run on has ended; make a new runner"
            )
        return self._loop  # type: ignore[return-value]


def _close(coroutine: Any) -> None:
    if hasattr(coroutine, "close"):
        coroutine.close()


def _done(task: asyncio.Task[None]) -> None:
    """What a body raised has been told; this is ours."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        _say_fault(fault)


def _say_fault(fault: BaseException) -> None:
    say(_log, ERROR, "an event loop met a fault of the engine; please report it", raised=fault)
