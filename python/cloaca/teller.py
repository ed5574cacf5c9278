"""Calls what a trigger declared for its failed polls, on a thread of its own: a callback that hangs holds up
neither polls nor the keeper.

Decides nothing. Invariant: of one runner one such callback runs at a time, in the order of the polls.
"""

from __future__ import annotations

import os
from collections import deque
from threading import Condition, RLock

from . import attempt
from .answer import waited_for
from .plain import ERROR, say
from .threads import Hand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._cloaca import Engine
    from .redact import Redactor
    from .threads import Threads
    from .worker import Hear

WAITING_MAX = 1_000
"""So many calls wait at most for the one before them; more are left out, which the log says."""

_log = "cloaca"

Call = tuple[str, str, "Callable[..., Any]", tuple[object, ...]]
"""Which argument of `@trigger` it was, the trigger, what is called, and with what."""


class Teller:
    """The callbacks that wait, and the thread that calls them.

    Attributes:
        done: how many failed polls have been dealt with.
    """

    def __init__(
        self,
        engine: Engine,
        threads: Threads,
        redactor: Redactor,
        run: Callable[[Any], object],
        hear: Hear | None = None,
    ) -> None:
        self.done = 0
        self._pid = os.getpid()
        self._engine = engine
        self._hear = hear
        self._redactor = redactor
        self._threads = threads
        self._run = run
        self._waiting: deque[list[Call]] = deque()
        self._calls = Hand(self._waiting.popleft)
        # Entered by itself: as a condition enters it, what is thrown in may leave it taken.
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._has_thread = False
        self._is_closed = False
        self._is_full = False

    def tell(self, calls: list[Call]) -> None:
        """Lets these be called, for one failed poll. From the keeper alone; never waits for a callback."""
        with self._lock:
            is_full = bool(calls) and len(self._waiting) >= WAITING_MAX
            if calls and not is_full:
                self._waiting.append(calls)
            else:
                self.done += 1
            is_news, self._is_full = is_full and not self._is_full, is_full
            self._changed.notify_all()
        if calls and not self._has_thread:
            self._threads.serve("teller", self._call_all)
            self._has_thread = True
        if is_news:
            text = "%d calls of on_poll_failed and on_disabled wait for one that goes on; more are left out"
            say(_log, ERROR, text, WAITING_MAX)

    def close(self) -> None:
        """Sends the thread home once what waits has been called."""
        with self._lock:
            self._is_closed = True
            self._changed.notify_all()

    def wait_told(self, given: int, seconds: float) -> bool:
        """Waits until so many failed polls have been dealt with."""
        with self._lock:
            return self._changed.wait_for(lambda: self.done >= given, seconds)

    def _call_all(self) -> None:
        while True:
            with self._lock:
                if not self._calls.is_full:
                    self._changed.wait_for(lambda: self._waiting or self._is_closed)
                    if not self._waiting:
                        return
                calls = self._calls.next()
            while calls:
                self._call(*calls[0])
                del calls[0]
                if attempt.is_forked(self._pid):
                    return
            with self._lock:
                self.done += 1
                self._calls.done()
                self._changed.notify_all()

    def _call(
        self, what: str, name: str, function: Callable[..., Any], arguments: tuple[object, ...]
    ) -> None:
        try:
            with attempt.inside(self._engine, None, name):
                waited_for(function(*arguments), self._run)
        except BaseException as raised:
            # SystemExit and KeyboardInterrupt too: here they can only mean that this call failed.
            if self._hear is not None:
                self._hear((None, raised))
            about = {"cloaca_trigger": name}
            text = "%s of trigger '%s' raised"
            self._redactor.say(_log, ERROR, text, what, name, raised=raised, about=about)
