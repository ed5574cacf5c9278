"""One event loop on one thread for the async bodies of all runners that have none of the program's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from typing import Any

_lock = threading.RLock()
_loop: asyncio.AbstractEventLoop | None = None
_pid = 0
_thread_id: int | None = None
_running: set[Any] = set()
"""Tasks in flight. The loop keeps them weakly: one that awaits what only it knows would be collected."""


def shared_loop() -> asyncio.AbstractEventLoop:
    global _loop, _pid
    with _lock:
        # A forked child has the loop but not its thread.
        if _loop is None or _pid != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name="cloaca-asyncio", daemon=True).start()
            _loop, _pid = loop, os.getpid()
        return _loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """A body may stop the loop that it shares with others: it goes on, but not in a child that it forked."""
    global _thread_id
    _thread_id = threading.get_ident()
    pid = os.getpid()
    while not loop.is_closed() and not sys.is_finalizing() and os.getpid() == pid:
        with contextlib.suppress(BaseException):
            loop.run_forever()


def forget_locks() -> None:
    """In a forked child another thread of the parent may hold the lock for ever. The loop is the parent's,
    and stops here if its own thread has forked.
    """
    global _lock
    _lock = threading.RLock()
    if _loop is not None and threading.get_ident() == _thread_id:
        _loop.stop()


def leave() -> None:
    """Nobody will come back to what still waits at the end of the interpreter, and nobody needs to be
    told."""
    if _loop is not None and _pid == os.getpid():
        waiting: set[Any] = asyncio.all_tasks(_loop) | _running
        for task in waiting:
            task._log_destroy_pending = False


class _Raised:
    """What a coroutine raised; raised again on the loop, `SystemExit` would end that."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _kept(coroutine: Any) -> Any:
    task: Any = asyncio.current_task()
    _running.add(task)
    try:
        return await coroutine
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        return _Raised(error)
    finally:
        _running.discard(task)


def is_on_loop() -> bool:
    """Whether this is the thread of the shared loop."""
    return threading.get_ident() == _thread_id and _pid == os.getpid()


def run_coroutine(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """Runs a coroutine on a loop of another thread and returns its result, or raises what it raised."""
    future = asyncio.run_coroutine_threadsafe(_kept(coroutine), loop)
    try:
        found = future.result()
    except BaseException:
        # Also an interrupt of this thread: nobody waits for it any more.
        future.cancel()
        raise
    if isinstance(found, _Raised):
        raise found.error
    return found
