"""Places to run that are `concurrent.futures.Executor`s: processes, Dask, whatever a program has.

Decides what the end of a future means for its attempt.
Invariant: an attempt that was handed over ends once, by its future; one that was stopped ends when that has
stopped it.
Longer than a room should be: handing over, stopping and ending an attempt is one state.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from time import monotonic

from .. import attempt
from ..context import Context, decode_value, fitting
from ..end import raised_by
from ..errors import ArgumentError, ArgumentTypeError, RunnerError, excerpt
from ..job import Job
from ..kind import is_a
from ..name import checked_name
from ..plain import ERROR, WARNING, describe, say
from ..task_handle import run_id
from ..threads import TRIES_MAX, Hand
from ..worker import about_attempt
from . import remote
from .far import Call, Polls, is_lost
from .process import REAP_SECONDS, ProcessExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._cloaca import Engine, Pump
    from ..task import TaskDefinition
    from ..telemetry.spans import Handed
    from ..threads import Threads
    from ..worker import Worker

    Factory = Callable[[], Executor]

TAKEN_AT_ONCE = 64
LOOK_SECONDS = 1.0
CLOSING_LOOK_SECONDS = 0.02
MAKE_PAUSE_SECONDS = 0.1
MAKE_PAUSE_SECONDS_MAX = 30.0
BUILT_IN = ("thread", "loop")

_log = "cloaca.task"


class Named:
    """An executor as the program gave it: itself, or what makes it."""

    def __init__(self, name: str, executor: Executor | None, factory: Factory | None) -> None:
        self.name = name
        self.executor = executor
        self.factory = factory

    def make(self) -> None:
        """Has the program make one, if there is none.

        Raises:
            ArgumentTypeError: it made something else. Otherwise what it raises.
        """
        if self.executor is None and self.factory is not None:
            made: object = self.factory()
            if not isinstance(made, Executor):
                raise ArgumentTypeError(
                    f'executors["{self.name}"] made {excerpt(made)}; it must make a'
                    f" concurrent.futures.Executor{_hint(made)}"
                )
            self.executor = made

    def let_go(self, *, wait: bool) -> None:
        """Holds it no longer: what a factory made ends, and so does what nobody else holds."""
        executor, self.executor = self.executor, None
        if executor is None:
            return
        pool = executor._pool if isinstance(executor, ProcessExecutor) else None
        if self.factory is not None:
            # It may be broken, which is why it goes; and Dask's knows no other argument.
            with contextlib.suppress(Exception):
                executor.shutdown(wait=False)
        del executor
        if wait and pool is not None and pool.is_closing:
            pool.join(pool.kill_grace + REAP_SECONDS)

    def lost(self, executor: Executor | None, raised: BaseException) -> str:
        """Says that a call was lost; one that is broken for good goes."""
        is_broken = is_a(raised, BrokenExecutor) and not isinstance(executor, ProcessExecutor)
        if is_broken and self.factory is not None and executor is not None and self.executor is executor:
            # Other calls that end by that find a new one here.
            self.let_go(wait=False)
        return f"executor '{self.name}' lost it: {describe(raised)}"

    def stop(self, executor: Executor | None, future: Future[Any]) -> None:
        """Stops a call, if that executor can."""
        if isinstance(executor, ProcessExecutor):
            executor.stop(future)
        elif not type(executor).__module__.startswith("distributed."):
            future.cancel()
        # Else it would say that it is cancelled, and run on.

    def permits(self, otherwise: int) -> int:
        """How many calls it makes at once, as far as it tells."""
        for attribute in ("max_workers", "_max_workers"):
            most = getattr(self.executor, attribute, None)
            if isinstance(most, int) and most > 0:
                return most
        return otherwise

    def grace(self) -> float:
        """How long its calls may take to stop; none of those of other executors can be stopped."""
        return self.executor._pool.kill_grace if isinstance(self.executor, ProcessExecutor) else 0.0


def _broken(why: str) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(BrokenExecutor(why))
    return future


def made(executors: object) -> list[Named]:
    """The executors of a runner, those that a factory makes included.

    Raises:
        WorkflowError: (a `ValueError`) a name that none can have.
        ArgumentError: (a `ValueError`) a name that every runner has.
        ArgumentTypeError: (a `TypeError`) no mapping of names to executors or functions.
        RunnerError: (a `RuntimeError`) a factory raised.
    """
    if executors is None:
        return []
    if not isinstance(executors, Mapping):
        raise ArgumentTypeError(
            f'executors is {excerpt(executors)}; it must be a dict, as {{"cpu": cloaca.ProcessExecutor()}}'
        )
    found = []
    for name, given in executors.items():
        checked_name(name, "a name of executors")
        if name in BUILT_IN:
            raise ArgumentError(f'executors has "{name}", which every runner has by itself; rename it')
        if isinstance(given, Executor):
            found.append(Named(name, given, None))
        elif callable(given):
            found.append(Named(name, None, given))
        else:
            raise ArgumentTypeError(
                f'executors["{name}"] is {excerpt(given)}; it must be a concurrent.futures.Executor, or a'
                f" function that makes one{_hint(given)}"
            )
    for number, named in enumerate(found):
        try:
            named.make()
        except BaseException as raised:
            for before in found[:number]:
                before.let_go(wait=False)
            if is_a(raised, Exception) and not is_a(raised, RunnerError):
                raise RunnerError(f'executors["{named.name}"] raised {describe(raised)}') from raised
            raise
    return found


def _hint(given: object) -> str:
    return "; of a Dask client, client.get_executor()" if hasattr(given, "get_executor") else ""


class _Flight:
    """An attempt that was handed over."""

    __slots__ = (
        "checkpoint",
        "context",
        "enders",
        "executor",
        "future",
        "is_handed",
        "is_stopped",
        "is_unwanted",
        "job",
        "task",
        "task_id",
        "trace",
    )

    def __init__(
        self,
        job: Job,
        task: TaskDefinition,
        task_id: str,
        context: str,
        checkpoint: str | None,
        trace: Handed,
    ) -> None:
        self.checkpoint = checkpoint
        self.job = job
        self.task = task
        self.task_id = task_id
        self.context = context
        self.trace = trace
        self.executor: Executor | None = None
        self.future: Future[remote.Left | remote.Failed] | None = None
        self.is_handed: bool | None = None
        """Whether it is handed over; `None` while that was not begun."""
        self.enders: list[int] = []
        """Which threads have set about telling of its end; the first one does, all over again if it was
        struck amid that."""
        self.is_stopped = False
        self.is_unwanted = False
        """It was stopped because nobody waits for it, and not because the runner ends."""

    def given(self) -> Context:
        """The context that it was given."""
        return Context._wrap(decode_value(self.context))


class Place:
    """One executor of one runner: takes its attempts from the engine, and reports their ends."""

    def __init__(
        self,
        named: Named,
        number: int,
        engine: Engine,
        worker: Worker,
        threads: Threads,
        deaths_max: int,
    ) -> None:
        self.named = named
        self._number = number
        self._engine = engine
        self._worker = worker
        self._threads = threads
        self._deaths_max = deaths_max
        self._pump: Pump | None = None
        self._taken: Hand | None = None
        self._is_closing = False
        self._flights: dict[Job, _Flight] = {}
        self._ended: queue.SimpleQueue[_Flight | Call | None] = queue.SimpleQueue()
        self._reported = Hand(self._ended.get)
        self.polls = Polls(named, engine, self._ended.put)
        self._made_again_at = 0.0
        self._pause = MAKE_PAUSE_SECONDS
        self._pid = os.getpid()
        self._is_gone = threading.Event()
        self._is_open = False

    def open(self) -> None:
        """Begins to take attempts."""
        self._threads.serve(f"executor-{self.named.name}", self._serve)
        self._is_open = True
        self._threads.serve(f"ends-{self.named.name}", self._report)

    def running(self) -> list[tuple[str, Job]]:
        """What runs there now."""
        return [(flight.task_id, flight.job) for flight in tuple(self._flights.values())]

    def stop(self) -> None:
        """Stops what runs there, as far as it can be stopped."""
        for flight in tuple(self._flights.values()):
            self._stop(flight)
        self.polls.close()
        if not self._is_open:
            self.named.let_go(wait=True)

    def join(self) -> None:
        """Waits for what was stopped: as long as its executor takes to stop it for certain."""
        if self._is_open:
            grace = self.named.grace()
            self._is_gone.wait(grace + REAP_SECONDS if grace else CLOSING_LOOK_SECONDS)

    # The thread that takes

    def _serve(self) -> None:
        # The engine may have ended: nothing is in flight any more, or nobody can be told.
        with contextlib.suppress(RunnerError):
            self._serve_until_closed()
        self._ended.put(None)
        if not attempt.is_forked(self._pid):
            self.named.let_go(wait=True)
        self._is_gone.set()

    def _serve_until_closed(self) -> None:
        if self._pump is None or self._taken is None:
            self._pump = self._engine.jobs.pump(self._number)
            self._taken = Hand(self._pump.take)
        # What another thread has thrown in may have come amid a hand-over.
        self._go_on(self._taken)
        while not attempt.is_forked(self._pid):
            heard = self._pump.wait(CLOSING_LOOK_SECONDS if self._is_closing else LOOK_SECONDS)
            self._is_closing = self._is_closing or heard is None
            while self._take(self._taken):
                pass
            if self._is_closing and not self._flights and not self.polls.in_flight():
                return

    def _go_on(self, taken: Hand) -> None:
        for flight in tuple(self._flights.values()):
            if flight.is_handed is None:
                self._begin(flight)
            elif not flight.is_handed:
                # Without its future nobody knows whether the executor has it.
                self._hand_over(flight, flight.future or _broken("the thread that hands it over was struck"))
        while self._take(taken):
            pass

    def _take(self, taken: Hand) -> bool:
        """Takes some; whether there may be more."""
        most = TAKEN_AT_ONCE if self._has_executor() else 0
        begun, stopped = taken.next(most, self._worker.tasks)
        has_more = most > 0 and (len(begun) == most or taken.is_again)
        to_end = {Job(*parts) for parts in stopped}
        for job in to_end:
            if (flight := self._flights.get(job)) is not None:
                # Of a runner that leaves, whoever goes on with the run makes the attempt anew.
                flight.is_unwanted = not self._is_closing
                self._stop(flight)
        while begun:
            parts, task, task_id, context, error, checkpoint, trace = begun[0]
            job = Job(*parts)
            flight = _Flight(job, task, task_id, context, checkpoint, trace)
            if job.callback_only:
                self._aside(partial(self._tell_failure, flight, error))
                del begun[0]
                continue
            self._flights[job] = flight
            del begun[0]
            if job not in to_end:
                self._begin(flight)
            else:
                flight.is_unwanted, flight.is_stopped = not self._is_closing, True
                never: Future[remote.Left | remote.Failed] = Future()
                never.cancel()
                self._hand_over(flight, never)
        taken.done()
        return has_more

    def _has_executor(self) -> bool:
        named = self.named
        if named.executor is not None:
            return True
        if monotonic() < self._made_again_at:
            return False
        try:
            named.make()
        except BaseException as raised:
            self._made_again_at = monotonic() + self._pause
            self._pause = min(2 * self._pause, MAKE_PAUSE_SECONDS_MAX)
            text = "executor '%s' cannot be made anew, and its tasks wait until it can: %s"
            say(_log, ERROR, text, named.name, describe(raised))
        return named.executor is not None

    def _begin(self, flight: _Flight) -> None:
        job, task = flight.job, flight.task
        limit = self._engine.context_bytes_max
        future: Future[remote.Left | remote.Failed] = Future()
        try:
            fitting(limit, flight.context, "the context that it is given")
            body = remote.body_of(task.function, f'task "{flight.task_id}"')
        except Exception as raised:
            future.set_result(remote.Failed(raised_by(raised), None))
            return self._hand_over(flight, future)
        entered = self._worker.entered(job, flight.task_id, flight.trace)
        what = remote.Attempt(
            body=body,
            job=job,
            task_id=flight.task_id,
            workflow=self._engine.jobs.workflow_of(job),
            takes_handle=task.takes_handle,
            context=flight.context,
            checkpoint=flight.checkpoint,
            context_bytes_max=limit,
            tells_left=self._worker.hides(),
            trace=None if entered.trace is None else entered.trace.headers(),
            log_bytes_max=None if self._worker.logbook is None else self._worker.logbook.bytes_max,
        )
        executor = flight.executor = self.named.executor
        flight.is_handed = False
        try:
            if executor is None:
                raise BrokenExecutor("it is being made anew")
            future = executor.submit(remote.call, what)
        except BaseException as raised:
            # It is broken or shut down: no fault of the attempt.
            future = _broken(describe(raised))
        return self._hand_over(flight, future)

    def _hand_over(self, flight: _Flight, future: Future[remote.Left | remote.Failed]) -> None:
        flight.future = future
        flight.is_handed = False
        # All of it in C, as far as `Hand` goes. The future that it is called with counts as `block`, and for
        # nothing.
        future.add_done_callback(partial(self._ended.put, flight))
        flight.is_handed = True
        if flight.is_stopped and not future.done():
            self._stop(flight)

    def _stop(self, flight: _Flight) -> None:
        flight.is_stopped = True
        if (future := flight.future) is None:
            # Amidst being handed over, which looks again.
            return
        self.named.stop(flight.executor, future)

    # The thread that reports

    def _report(self) -> None:
        while (flight := self._reported.next()) is not None:
            if attempt.is_forked(self._pid):
                return
            if isinstance(flight, Call):
                self.polls.end(flight)
            # A callback is the program's: it may take long, and others end meanwhile.
            elif flight.task.on_success is not None or flight.task.on_failure is not None:
                self._aside(partial(self._end, flight))
            else:
                self._end(flight)
            # Dask runs again what somebody still holds the result of, if its worker dies.
            del flight
            self._reported.done()

    def _aside(self, call: Callable[[], None]) -> None:
        try:
            self._threads.serve("callback", call)
        except RuntimeError:
            # No thread is to be had.
            call()

    def _end(self, flight: _Flight) -> None:
        flight.enders.append(threading.get_ident())
        if flight.enders[0] != threading.get_ident() or self._flights.get(flight.job) is not flight:
            return
        # The engine may have ended.
        with contextlib.suppress(RunnerError):
            self._told(flight, len(flight.enders))
        # Unless it has been told already, nothing came of it.
        self._worker.traced(flight.job, "Interrupted")
        flight.executor = flight.future = None
        self._flights.pop(flight.job, None)

    def _told(self, flight: _Flight, time: int) -> None:
        """Tells the engine of an end; more than once if its thread is struck."""
        job = flight.job
        if time > 1 and not self._engine.jobs.is_current(job):
            # Its end counts, and nobody knows whether its callback was called.
            self._engine.jobs.settled(job)
        elif time <= TRIES_MAX:
            self._ruled(flight)
        else:
            say(_log, ERROR, "the end of an attempt met a fault of the engine; please report it")
            self._engine.jobs.lost(job, "its end could not be told", self._deaths_max, False)

    def _ruled(self, flight: _Flight) -> None:
        future, job, task = flight.future, flight.job, flight.task
        assert future is not None, "what has no future yet has not ended"
        try:
            outcome = future.result(0)
        except BaseException as raised:
            if flight.is_unwanted:
                has_callback = task.on_failure is not None
                if self._engine.jobs.lost(job, "it was stopped", self._deaths_max, has_callback):
                    self._settle(flight, "it was stopped")
            elif flight.is_stopped:
                self._engine.jobs.interrupted(job)
            elif is_lost(raised):
                self._lost(flight, raised)
            else:
                # It came to no body, or its end could not travel.
                self._fail(flight, remote.Failed(raised_by(raised), None), raised)
            return
        self._keep_logged(flight, outcome)
        if isinstance(outcome, remote.Left):
            left = Context() if task.on_success is None else Context._wrap(decode_value(outcome.context))
            self._worker.succeed(job, task, flight.task_id, outcome.context, left)
        elif isinstance(outcome, remote.Failed):
            self._fail(flight, outcome, remote.error_of(outcome.raised))

    def _keep_logged(self, flight: _Flight, outcome: remote.Left | remote.Failed) -> None:
        if self._worker.logbook is not None and outcome.logged is not None:
            left = outcome.context if isinstance(outcome, remote.Left) else outcome.left
            given = flight.context
            self._worker.logbook.keep(flight.job, flight.task_id, outcome.logged, given, left or given)

    def _fail(self, flight: _Flight, failed: remote.Failed, failure: BaseException) -> None:
        job, task, task_id, given = flight.job, flight.task, flight.task_id, flight.context
        left = given if failed.left is None else failed.left
        context = Context._wrap(decode_value(left))
        self._worker.fail(job, task, task_id, failed.raised, failure, given, context)

    def _lost(self, flight: _Flight, raised: BaseException) -> None:
        job, task = flight.job, flight.task
        text = self.named.lost(flight.executor, raised)
        workflow = self._engine.jobs.workflow_of(job)
        has_callback = task.on_failure is not None
        is_final = self._engine.jobs.lost(job, text, self._deaths_max, has_callback)
        about = about_attempt(job, flight.task_id, workflow)
        line = "task '%s' of workflow '%s', run %s, was cut off in attempt %d: %s"
        level = ERROR if is_final else WARNING
        say(_log, level, line, flight.task_id, workflow, run_id(job), job.attempt, text, about=about)
        if is_final:
            self._settle(flight, text)

    def _settle(self, flight: _Flight, error: str) -> None:
        if flight.task.on_failure is not None:
            self._tell_failure(flight, error)

    def _tell_failure(self, flight: _Flight, error: str) -> None:
        self._worker.tell_failed(flight.job, flight.task, flight.task_id, error, flight.given())
