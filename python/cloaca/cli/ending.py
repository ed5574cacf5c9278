"""Ends a command by what it has still to do: of a file nothing half made stays, and whoever waits for a run
is told which it is.

Invariant: who wants it to outlive its terminal (`nohup`) has it outlive that.
"""

from __future__ import annotations

import contextlib
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = ("SIGTERM", "SIGHUP")
"""As far as the system has them. Ctrl-C raises of itself."""


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """In the block a signal to end raises, with what a shell tells that end by."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in before:
            signal.signal(number, _leave)
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
