"""Polls of triggers in an executor: each is handed over as data, and ended by its future.

Decides what the end of a future means for its poll.
Invariant: a poll that was handed over ends once, and until then its trigger is not polled again.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from functools import partial

from ..answer import Pending
from ..errors import RunnerError, TriggerError
from ..job import Ticket
from ..kind import is_a, name_of
from ..plain import ERROR, describe, say
from ..threads import TRIES_MAX
from . import remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from .._cloaca import Engine
    from ..answer import Judge
    from ..job import TicketParts
    from ..tick import TickState
    from ..trigger import TriggerDefinition
    from .future import Named

LOOK_SECONDS = 0.1
"""How soon whoever waits for a poll notices that the runner shuts down."""
_LOST = ("BrokenExecutor", "KilledWorker", "CommClosedError", "FutureCancelledError", "FuturesCancelledError")
"""The classes of exceptions that say that a place died, and not that a body failed. Some are Dask's."""

_log = "cloaca"


def is_lost(raised: BaseException) -> bool:
    """Whether a place died, and not a body failed."""
    if any(is_a(raised, kind) for kind in (BrokenExecutor, CancelledError, OSError)):
        return True
    return any(name_of(kind) in _LOST for kind in type(raised).__mro__)


class Call(Pending):
    """One poll that is to be made elsewhere, or is."""

    __slots__ = ("_polls", "executor", "future", "is_stopped", "judge", "poll", "ticket", "tries")

    def __init__(self, polls: Polls, poll: remote.Poll) -> None:
        self._polls = polls
        self.poll = poll
        self.executor: Executor | None = None
        self.future: Future[remote.Polled] = Future()
        self.is_stopped = False
        self.ticket: Ticket | None = None
        self.judge: Judge | None = None
        self.tries = 0
        """How often it was set about to report its end."""

    def begin(self, ticket: TicketParts, judge: Judge) -> None:
        """Hands it over; its end is reported. Never waits for it."""
        self.ticket, self.judge = Ticket._make(ticket), judge
        self._polls.begin(self)

    def wait(self, ticket: TicketParts) -> remote.Polled:
        """Hands it over, and waits for its end.

        Raises:
            RunnerError: the runner shuts down meanwhile.
        """
        self.ticket = Ticket._make(ticket)
        return self._polls.made(self)


class Body:
    """A trigger's function as the engine calls it: what it gives is to be made elsewhere."""

    __slots__ = ("_definition", "_engine", "_place", "_polls")

    def __init__(self, engine: Engine, polls: Polls, definition: TriggerDefinition, place: int) -> None:
        self._definition = definition
        self._engine = engine
        self._polls = polls
        self._place = place

    def __call__(self) -> Call:
        return self._call(self._engine.polls.tick_state(self._place))

    def decide(self, at: str, moment: str) -> Call:
        """The same of a cron's function, for a moment beside its calendar; a run of that begins with
        `moment`."""
        cursor, _, last_fired_at, failures, error, _ = self._engine.polls.tick_state(self._place)
        return self._call((cursor, at, last_fired_at, failures, error, moment))

    def _call(self, state: TickState) -> Call:
        definition = self._definition
        body = remote.body_of(definition.function, f'trigger "{definition.name}"', "@trigger", TriggerError)
        unfinished, takes_tick = 0, definition.takes_tick
        if takes_tick:
            unfinished = self._engine.polls.unfinished(self._place)
        limit = self._engine.context_bytes_max
        poll = remote.Poll(
            body, definition.name, state if takes_tick else None, unfinished, limit, definition.overlap
        )
        return Call(self._polls, poll)


class Polls:
    """The polls of one runner in one executor.

    Args:
        put: gives a poll that has ended to the thread that reports; its second argument counts for nothing.
    """

    def __init__(self, named: Named, engine: Engine, put: Callable[..., None]) -> None:
        self._named = named
        self._engine = engine
        self._put = put
        self._calls: set[Call] = set()
        self._is_closed = False

    def in_flight(self) -> bool:
        """Whether some are."""
        return bool(self._calls)

    def begin(self, call: Call) -> None:
        """Hands a poll over, and has its end reported."""
        self._hand_over(call)
        call.future.add_done_callback(partial(self._put, call))

    def made(self, call: Call) -> remote.Polled:
        """Hands a poll over, and waits for it."""
        self._hand_over(call)
        try:
            while True:
                try:
                    call.future.exception(LOOK_SECONDS)
                except TimeoutError:
                    if self._engine.wait_closing(0.0):
                        raise RunnerError(
                            f"trigger '{call.poll.trigger}' is called off: the runner shuts down"
                        ) from None
                except CancelledError:
                    return self._outcome(call)
                else:
                    return self._outcome(call)
        finally:
            if not call.future.done():
                # Whoever waited has been interrupted.
                self._stop(call)
            self._calls.discard(call)

    def stop(self, place: int, serial: int) -> None:
        """A poll is over its time."""
        for call in tuple(self._calls):
            if call.ticket is not None and call.ticket[:2] == (place, serial):
                self._stop(call)

    def close(self) -> None:
        """The runner has ended: stops what can be stopped."""
        self._is_closed = True
        for call in tuple(self._calls):
            self._stop(call)

    def end(self, call: Call) -> None:
        """Reports the end of a poll; to be called again by whom something was thrown into amid that."""
        if call not in self._calls:
            return
        call.tries += 1
        # The engine may have ended.
        with suppress(RunnerError):
            self._report(call)
        call.executor = None
        # Nobody holds its result any more: see `Place`.
        call.future = Future()
        self._calls.discard(call)

    def _report(self, call: Call) -> None:
        ticket, judge = call.ticket, call.judge
        assert ticket is not None, "it was begun"
        assert judge is not None, "it was begun"
        if call.tries > TRIES_MAX:
            say(_log, ERROR, "the end of a poll met a fault of the engine; please report it")
            self._engine.polls.called_off(ticket)
        elif call.is_stopped and self._is_closed:
            self._engine.polls.called_off(ticket)
        else:
            # What is over its time has been ruled; but now its trigger can be polled again.
            outcome = self._outcome(call)
            ruling = outcome.ruling if call.is_stopped else judge(ticket.place, outcome)
            self._engine.polls.ended(ticket, ruling)

    def _hand_over(self, call: Call) -> None:
        executor = call.executor = self._named.executor
        try:
            if executor is None:
                raise BrokenExecutor("it is being made anew")
            call.future = executor.submit(remote.poll, call.poll)
        except BaseException as raised:
            # It is broken or shut down: no fault of the function.
            call.future.set_exception(BrokenExecutor(describe(raised)))
        self._calls.add(call)
        if self._is_closed:
            self._stop(call)

    def _stop(self, call: Call) -> None:
        call.is_stopped = True
        self._named.stop(call.executor, call.future)

    def _outcome(self, call: Call) -> remote.Polled:
        try:
            return call.future.result(0)
        except BaseException as raised:
            text = self._named.lost(call.executor, raised) if is_lost(raised) else describe(raised)
            return remote.Polled(([], None, "", text, None), text, None)
