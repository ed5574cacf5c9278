"""Which body of which runner asks, and how it goes home without an end. Decides nothing.

Invariant: what is entered is left, whatever the body raises.
"""

from __future__ import annotations

import os
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A context variable follows a coroutine to the loop, and `asyncio.to_thread` back to a thread.
_bodies: ContextVar[tuple[tuple[Any, Any], ...]] = ContextVar("cloaca_bodies", default=())


class Interrupted(BaseException):
    """Ends a body whose runner closes, or for whom nobody waits any more: nothing is ruled, the run goes on
    elsewhere. No `Exception`, so that a body's own `except Exception` doesn't take it for a failure.
    """


class inside:
    """While a body of `engine` runs here: an attempt's `job`, or `None` for a poll.

    Written out as a class, because each attempt enters one.
    """

    __slots__ = ("_entered", "_token")

    def __init__(self, engine: Any, job: Any) -> None:
        self._entered = (engine, job)

    def __enter__(self) -> None:
        self._token = _bodies.set((*_bodies.get(), self._entered))

    def __exit__(self, *_: object) -> None:
        _bodies.reset(self._token)


def current(engine: Any) -> tuple[Any] | None:
    """The innermost body of that engine that asks, as `(job,)`; `None` outside of one."""
    for owner, job in reversed(_bodies.get()):
        if owner is engine:
            return (job,)
    return None


def is_forked(pid: int) -> bool:
    """Whether a body has forked and this is the child: the runner is not here, its thread goes home."""
    return os.getpid() != pid
