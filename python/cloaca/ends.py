"""Calls what workflows declare for the ends of their runs, on threads of its own: a callback that hangs holds
up neither tasks nor other callbacks.

Decides nothing: the engine hands out ends, and keeps what came of each. Invariant: of each end that was
handed out the engine hears what came of it, once the callback is home.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from threading import Condition, RLock, get_ident
from time import monotonic, time
from typing import NamedTuple

from . import attempt, rows, tracing, unread
from .answer import waited_for
from .end import raised_by
from .errors import CloacaError, RunnerError
from .failing import LINE, TOLD_EVERY_US, WHOLE, Failing, Kind, kind_of
from .hidden import NO_SECRETS
from .kind import name_of
from .plain import ERROR, WARNING, describe, say
from .policy import pause_of, wish_of
from .threads import Hand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ._cloaca import Engine
    from .logbook import Logbook
    from .redact import Redactor
    from .telemetry.spans import Spans
    from .threads import Threads
    from .worker import Hear
    from .workflow import Workflow

CALLS_MAX = 8
"""So many callbacks of runs are called at once, of one workflow fewer: the engine says how many."""
CALL_SECONDS_MAX = 60.0
"""One that takes longer leaves its place to another."""

WAITS_SAID_EVERY = 60.0
"""That what is to be called waits, since it can't be, is said so often."""

FAILING_MAX = 10_000
"""Of so many it is known what was told of them; then of the others."""

_BITS = {"Completed": 1, "Failed": 2, "Cancelled": 4}

_log = "cloaca.callback"


class End(NamedTuple):
    """An end that somebody is to be told of, as the engine hands it out."""

    key: int
    run: str
    workflow: str
    number: int
    status: str
    ended_at: str | None
    tries: int
    is_given_up: bool


def outcomes(statuses: Iterable[str]) -> int:
    """Of which ends the engine is to tell, as it wants them named."""
    return sum(_BITS[status] for status in statuses)


class _Call:
    """One call for an end; after it there may be another."""

    __slots__ = ("end", "has_thread", "secrets", "tellers", "until")

    def __init__(self, end: End) -> None:
        self.end = end
        self.has_thread = False
        self.secrets = NO_SECRETS
        self.tellers: list[int] = []
        """Which threads have set about it; the first one does, all over again if it was struck amid that."""
        self.until = monotonic() + CALL_SECONDS_MAX


class Ends:
    """The callbacks of one runner's workflows, and the threads that call them."""

    def __init__(
        self,
        engine: Engine,
        threads: Threads,
        redactor: Redactor,
        run: Callable[[Any], object],
        hear: Hear | None = None,
        logbook: Logbook | None = None,
        spans: Callable[[], Spans | None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._found = Hand(engine.ends.take)
        self._redactor = redactor
        self._run = run
        self._hear = hear
        self._logbook = logbook
        self._spans = spans
        self._pid = os.getpid()
        self._callbacks: dict[str, Mapping[str, Callable[..., Any]]] = {}
        # Entered by itself: as a condition enters it, what is thrown in may leave it taken.
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._calls: dict[_Call, None] = {}
        self._failing = Failing()
        self._told_whole: dict[tuple[str, str, Kind], int] = {}
        self._overdue: set[_Call] = set()
        self._waits_said = -WAITS_SAID_EVERY
        self._is_open = False
        self._is_closed = False

    def declare(self, workflow: Workflow) -> None:
        """The program declared a workflow: these are its callbacks from now on."""
        with self._lock:
            self._callbacks[workflow.name] = workflow._callbacks
            if not workflow._callbacks:
                return
            is_first, self._is_open = not self._is_open, True
        self._engine.ends.open(workflow.name)
        if is_first:
            self._threads.serve("ends", self._hand_out)

    def forget(self, workflow: str) -> None:
        """The program declares it no more."""
        with self._lock:
            self._callbacks.pop(workflow, None)

    def wait_home(self, seconds: float) -> bool:
        """Waits until no callback is called, and what was said of the last is in the log."""
        with self._lock:
            return self._changed.wait_for(lambda: not (self._calls or self._overdue), seconds)

    def close(self) -> None:
        """Nothing more is called."""
        with self._lock:
            self._is_closed = True
            self._changed.notify_all()

    def _hand_out(self) -> None:
        while True:
            self._begin()
            if (room := self._room()) <= 0:
                return
            if (found := self._found.next(room, self._patience())) is None:
                return
            while found:
                if type(found[0]) is not _Call:
                    found[0] = _Call(End(*found[0]))
                with self._lock:
                    self._calls[found[0]] = None
                del found[0]
            self._found.done()

    def _begin(self) -> None:
        """Starts a thread for each that has none; two if it is struck amid that, of which the later one finds
        that the other has begun."""
        with self._lock:
            calls = [call for call in self._calls if not call.has_thread]
        for call in calls:
            try:
                self._threads.serve("callback", partial(self._tell, call))
            except RuntimeError as error:
                # The system gives no thread now.
                self._waits(call.end, "no thread can be started", error)(call.end.key)
                self._home(call)
            call.has_thread = True

    def _room(self) -> int:
        """How many more may be called, once that is at least one; none once the runner has closed."""
        while True:
            self._look_for_overdue()
            with self._lock:
                if self._is_closed:
                    return 0
                room = CALLS_MAX - len(self._calls)
                if room > 0:
                    return room
                self._changed.wait(self._patience())

    def _patience(self) -> float | None:
        """Until the next callback has taken too long."""
        with self._lock:
            times = [call.until for call in self._calls]
        return max(0.0, min(times) - monotonic()) + 0.001 if times else None

    def _look_for_overdue(self) -> None:
        now = monotonic()
        with self._lock:
            late = [call for call in self._calls if call.until <= now]
            self._overdue.update(late)
            for call in late:
                del self._calls[call]
        for end in (call.end for call in late):
            text = "%s of workflow '%s' has not come back from run %s within %g s; "
            if self._engine.ends.overdue(end.key):
                text += "no other callback of that workflow is called while so many of them do not come back"
            else:
                text += "others are called meanwhile"
            values = rows.CALLBACKS[end.status], end.workflow, end.run, CALL_SECONDS_MAX
            say(_log, WARNING, text, *values, about=_about(end))

    def _tell(self, call: _Call) -> None:
        call.tellers.append(get_ident())
        with self._lock:
            if call.tellers[0] != get_ident() or not (call in self._calls or call in self._overdue):
                return
        # The engine may have ended.
        with suppress(RunnerError):
            if len(call.tellers) == 1:
                self._settle(call)
            elif not attempt.is_forked(self._pid):
                # Nobody knows how far it came: it is called once more, unless the engine has heard of it.
                self._engine.ends.given_back(call.end.key)
        self._home(call)

    def _settle(self, call: _Call) -> None:
        try:
            settle = self._called(call)
        except BaseException as raised:
            # SystemExit and KeyboardInterrupt too: here they can only mean that this call failed.
            if not attempt.is_forked(self._pid):
                self._failed(call, raised)
            return
        if not attempt.is_forked(self._pid):
            settle(call.end.key)
            with self._lock:
                self._failing.forget(str(call.end.key))

    def _home(self, call: _Call) -> None:
        with self._lock:
            self._calls.pop(call, None)
            self._overdue.discard(call)
            self._changed.notify_all()

    def _called(self, call: _Call) -> Callable[[int], None]:
        """Returns what says to the engine that nothing more is to be called for this end."""
        end = call.end
        function = self._callbacks.get(end.workflow, {}).get(end.status)
        if function is None:
            # It was taken, and is declared here no more: perhaps in a moment again, or by another program.
            return self._engine.ends.given_back
        given, spans = None, self._spans()
        try:
            row = unread.read(self._engine, lambda: self._engine.runs.run(end.run, tries=True))
            if spans is not None:
                given = unread.read(self._engine, lambda: tracing.asked(self._engine, end.run))
        except unread.StoreAway as away:
            # It is no failure of the callback, which nobody has called.
            return self._waits(end, "the store cannot be read", away.error)
        if row is None or end.ended_at is None or row["completed_at"] != end.ended_at:
            # The run was opened again, and may have come to another end, or is gone.
            return self._engine.ends.withdrawn
        if end.is_given_up:
            text = "%s of workflow '%s' for run %s is given up: its process died in each of %d calls"
            values = rows.CALLBACKS[end.status], end.workflow, end.run, end.tries - 1
            say(_log, ERROR, text, *values, about=_about(end))
            return self._engine.ends.given_up
        if not self._engine.ends.is_current():
            # It was cut off while that was read: another machine may call.
            return self._engine.ends.given_back
        run = rows.run_with_tasks(row, [])
        entered = attempt.calling(self._engine, end.run, end.workflow)
        secrets = call.secrets = self._redactor.told_by_callback(run)
        if self._logbook is not None:
            entered.lines = self._logbook.of_run(run, rows.CALLBACKS[end.status], secrets)
        called = None
        if spans is not None:
            called = spans.told(end.workflow, end.run, rows.CALLBACKS[end.status], end.tries, given)
        entered.trace = called
        failure: BaseException | None = None
        try:
            with entered:
                waited_for(function(run), self._run)
        except BaseException as raised:
            failure = raised
            raise
        finally:
            if called is not None:
                called.end(failure)
        if end.tries > 1:
            text = f"%s of workflow '%s' went well in call {end.tries} for run %s"
            say(_log, WARNING, text, rows.CALLBACKS[end.status], end.workflow, end.run, about=_about(end))
        return self._engine.ends.told

    def _waits(self, end: End, why: str, error: Exception) -> Callable[[int], None]:
        """Returns what gives an end back that was not called; says each minute that this is so."""
        now = monotonic()
        with self._lock:
            if now < self._waits_said + WAITS_SAID_EVERY:
                return self._engine.ends.given_back
            self._waits_said = now
        text = "%s of workflow '%s' for run %s waits, as %s: %s"
        values = rows.CALLBACKS[end.status], end.workflow, end.run, why, describe(error)
        self._redactor.say(_log, WARNING, text, *values, about=_about(end))
        return self._engine.ends.given_back

    def _failed(self, call: _Call, raised: BaseException) -> None:
        end = call.end
        if self._hear is not None:
            self._hear((None, raised))
        # Before the next call may come, on another thread.
        graded, error = LINE, name_of(type(raised))
        try:
            graded = self._grade(end, raised)
            error = call.secrets.hide(raised_by(raised).text)
        except BaseException as beyond:
            # Whatever cannot be told of it, the engine has to hear that it failed.
            error = f"{error}: <its text cannot be shown: {name_of(type(beyond))}>"
        wish_us = wish_of(raised) or 0
        if (limit := pause_of(raised)) is not None and wish_us:
            self._hold_up(limit, wish_us, end)
        due = self._engine.ends.failed(end.key, error, wish_us)
        if due is None:
            graded = graded or LINE
            with self._lock:
                self._failing.forget(str(end.key))
        again = "and is given up" if due is None else f"and is called again at {rows.moment(due)}"
        text = "%s of workflow '%s' raised in call %d for run %s, %s"
        values = rows.CALLBACKS[end.status], end.workflow, end.tries, end.run, again
        level = ERROR if due is None else WARNING
        if graded == WHOLE:
            self._redactor.say(_log, level, text, *values, raised=raised, about=_about(end))
        elif graded == LINE:
            said = raised_by(raised).text
            self._redactor.say(_log, level, f"{text}: %s", *values, said, about=_about(end))

    def _hold_up(self, limit: str, span_us: int, end: End) -> None:
        """Pauses a limit as a callback asks, unless that is paused for longer."""
        until_us = self._engine.now() + span_us
        by = f"{rows.CALLBACKS[end.status]} of workflow '{end.workflow}' for run {end.run}"
        try:
            store = self._engine.store
            held = (row for row in store.pauses() if row["kind"] == "limit" and row["name"] == limit)
            until = rows.moment(until_us)
            if not any(row["until"] is None or row["until"] >= until for row in held):
                store.pause("limit", limit, None, until_us, by)
        except CloacaError as fault:
            text = "limit '%s' is not paused as %s asks: %s"
            self._redactor.say(_log, WARNING, text, limit, by, describe(fault), about=_about(end))

    def _grade(self, end: End, raised: BaseException) -> str:
        """How much is told of it: the same error of a callback whole for one of its ends, not for each."""
        kind, now_us = kind_of(raised), int(time() * 1e6)
        known = end.workflow, end.status, kind
        with self._lock:
            graded = self._failing.grade(str(end.key), kind, end.tries, now_us)
            self._failing.bound(FAILING_MAX)
            if graded == WHOLE and abs(now_us - self._told_whole.get(known, -TOLD_EVERY_US)) < TOLD_EVERY_US:
                return LINE
            if graded == WHOLE:
                if len(self._told_whole) >= FAILING_MAX:
                    self._told_whole.clear()
                self._told_whole[known] = now_us
        return graded


def _about(end: End) -> dict[str, object]:
    return {"cloaca_run": end.run, "cloaca_workflow": end.workflow}
