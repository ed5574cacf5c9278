"""Which event loop a caller stands on, and what waits done without holding it up.

Decides nothing. Invariant: `asyncio` is imported by whoever uses it first, and not by this.
"""

from __future__ import annotations

import contextvars
import threading

from . import imported
from .errors import ArgumentTypeError, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")


def running_loop() -> AbstractEventLoop | None:
    """The event loop that runs on this thread, if one does."""
    # Without it none does, and to import it takes a while.
    look = imported.found("asyncio", "_get_running_loop")
    return None if look is None else look()


def checked_loop(loop: object) -> AbstractEventLoop | None:
    """Raises `ArgumentTypeError` if it is no event loop."""
    if loop is not None and not (hasattr(loop, "call_soon_threadsafe") and hasattr(loop, "create_task")):
        raise ArgumentTypeError(f"loop is {excerpt(loop)}; it must be an event loop, or None")
    return loop  # type: ignore[return-value]


async def apart(
    name: str,
    function: Callable[[], T],
    unwanted: Callable[[T], object] | None = None,
    *,
    is_daemon: bool = False,
) -> T:
    """What a function returns or raises that waits, on a thread of its own: those of the loop's pool may all
    wait for what only this ends.

    Args:
        unwanted: what is done with what it returns, on a thread, if nobody waits for it any more.
        is_daemon: whether the program ends without it.
    """
    loop = running_loop()
    assert loop is not None, "it is awaited"
    ended: Future[tuple[T | None, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def call() -> None:
        value, error = None, None
        try:
            value = context.run(function)
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(tell, value, error)
        except RuntimeError:
            # Nobody waits in a loop that was closed meanwhile.
            drop(value, error)

    def tell(value: T | None, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((value, error))
        else:
            threading.Thread(target=drop, args=(value, error), name=f"cloaca-{name}").start()

    def drop(value: Any, error: BaseException | None) -> None:
        if error is None and unwanted is not None:
            unwanted(value)

    threading.Thread(target=call, name=f"cloaca-{name}", daemon=is_daemon).start()
    value, error = await ended
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
