"""Threads for ordinary functions that an event loop must not call itself: they may block.

Decides nothing. Invariant: no more threads than asked for, and none that has nothing to do for long.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from functools import partial

from ..threads import Hand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from typing import Any

    from ..threads import Threads

IDLE_SECONDS_MAX = 10.0
"""A thread that found nothing to do for so many seconds goes home."""


class _Call:
    """One call, until its outcome is told."""

    __slots__ = ("_context", "_function", "_future", "_is_begun", "_loop", "_outcome")

    def __init__(self, loop: AbstractEventLoop, future: Future[Any], function: Callable[[], Any]) -> None:
        self._context = contextvars.copy_context()
        self._function = function
        self._future = future
        self._is_begun = False
        self._loop = loop
        self._outcome: tuple[Any, BaseException | None] | None = None

    def make(self) -> None:
        """Calls the function, once, however often this is called, and tells what it came to."""
        if self._outcome is None:
            self._outcome = self._made()
        # Nobody waits in a loop that was closed meanwhile.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_end, self._future, *self._outcome)

    def _made(self) -> tuple[Any, BaseException | None]:
        if self._is_begun:
            return None, RuntimeError("something was thrown into the thread that called it, amid that")
        self._is_begun = True
        try:
            return self._context.run(self._function), None
        except BaseException as raised:
            return None, raised


class Aside:
    """Calls functions for event loops, at most `threads_max` at once."""

    def __init__(self, threads: Threads, threads_max: int) -> None:
        self._threads = threads
        self._threads_max = threads_max
        self._waiting: deque[_Call] = deque()
        # Entered by itself: as a condition enters it, what is thrown in may leave it taken.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._here: set[Hand] = set()
        """Of each thread that has come what it has in hand."""
        self._idle: set[Hand] = set()
        self._is_closed = False

    async def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns or raises, with the context variables of whoever awaits this."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: Future[tuple[Any, BaseException | None]] = loop.create_future()
        mine = None
        with self._lock:
            self._waiting.append(_Call(loop, future, function))
            if len(self._idle) < len(self._waiting) and len(self._here) < self._threads_max:
                mine = Hand(self._waiting.popleft)
                self._here.add(mine)
            self._changed.notify()
        if mine is not None:
            try:
                self._threads.serve("aside", partial(self._serve, mine))
            except BaseException:
                with self._lock:
                    self._here.discard(mine)
                    if not self._here:
                        # Nobody would come.
                        raise
        value, error = await future
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Sends the threads home once what waits has been called."""
        with self._lock:
            self._is_closed = True
            self._changed.notify_all()

    def _serve(self, mine: Hand) -> None:
        while True:
            with self._lock:
                if not mine.is_full:
                    self._idle.add(mine)
                    self._changed.wait_for(lambda: self._waiting or self._is_closed, IDLE_SECONDS_MAX)
                    self._idle.discard(mine)
                    if not self._waiting:
                        self._here.discard(mine)
                        return
                call: _Call = mine.next()
            call.make()
            del call
            mine.done()


def _end(future: Future[tuple[Any, BaseException | None]], value: Any, error: BaseException | None) -> None:
    # Not as its exception: a future asks for the class of that, and takes no StopIteration.
    if not future.done():
        future.set_result((value, error))
