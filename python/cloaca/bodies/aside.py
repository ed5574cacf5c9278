"""Threads for ordinary functions that an event loop must not call itself: they may block.

Decides nothing. Invariant: no more threads than asked for, and none that has nothing to do for long.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from typing import Any

    Call = tuple[AbstractEventLoop, Future[Any], contextvars.Context, Callable[[], Any]]

IDLE_SECONDS_MAX = 10.0
"""A thread that found nothing to do for so many seconds goes home."""


class Aside:
    """Calls functions for event loops, at most `threads_max` at once."""

    def __init__(self, start: Callable[[str, Callable[[], None]], None], threads_max: int) -> None:
        self._start = start
        self._threads_max = threads_max
        self._waiting: deque[Call] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._is_closed = False

    async def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns or raises, with the context variables of whoever awaits this."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: Future[tuple[Any, BaseException | None]] = loop.create_future()
        with self._changed:
            self._waiting.append((loop, future, contextvars.copy_context(), function))
            is_lacking = self._idle < len(self._waiting) and self._threads < self._threads_max
            self._threads += is_lacking
            self._changed.notify()
        if is_lacking:
            try:
                self._start("aside", self._serve)
            except BaseException:
                with self._changed:
                    self._threads -= 1
                    if not self._threads:
                        # Nobody would come.
                        raise
        value, error = await future
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Sends the threads home once what waits has been called."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting or self._is_closed, IDLE_SECONDS_MAX)
                self._idle -= 1
                if not self._waiting:
                    self._threads -= 1
                    return
                loop, future, context, function = self._waiting.popleft()
            value, error = None, None
            try:
                value = context.run(function)
            except BaseException as raised:
                error = raised
            # Nobody waits in a loop that was closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_end, future, value, error)


def _end(future: Future[tuple[Any, BaseException | None]], value: Any, error: BaseException | None) -> None:
    # Not as its exception: a future asks for the class of that, and takes no StopIteration.
    if not future.done():
        future.set_result((value, error))
