"""Ends a command by what it has still to do: of a file nothing half made stays, and whoever starts a run is
told which it is.

Invariant: who wants it to outlive its terminal (`nohup`) has it outlive that; and what is done is done,
whatever comes as the process ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Any, NoReturn, Self

SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT")
"""As far as the system has them."""
is_whole_process = False
"""Whether this process ends with the command."""


def unheard() -> dict[int, Any]:
    """Those of them that nobody in this process hears, with what they do."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    found = {number: signal.getsignal(number) for number in numbers}
    theirs = (signal.SIG_DFL, signal.default_int_handler)
    return {number: handler for number, handler in found.items() if handler in theirs}


class Left(SystemExit):
    """A signal has ended it, with what a shell tells that end by."""

    code: int


class Ending:
    """While it is entered a signal to end is noted; in a block of `heard` it raises."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._raises = False
        self._noted: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in unheard():
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_done = kind is None and is_whole_process
        for number, handler in self._before.items():
            # The interpreter takes handlers away as it ends, before the process has its exit code.
            signal.signal(number, signal.SIG_IGN if is_done else handler)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Raises in the block: `KeyboardInterrupt` or `Left`, also by what was noted before."""
        self._raises = True
        try:
            if self._noted is not None:
                leave(self._noted)
            yield
        finally:
            self._raises = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        if self._raises:
            # Once: what is cleaned up by that is cleaned up whole.
            self._raises = False
            leave(number)


def leave(number: int) -> NoReturn:
    """Raises what ends the command by that signal."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Left(128 + number)


@contextlib.contextmanager
def cleaning_up(is_done: Callable[[], bool]) -> Iterator[None]:
    """In the block a signal to end raises; unless by then all is done, which nothing undoes."""
    with Ending() as ending:
        try:
            with ending.heard():
                yield
        except (Left, KeyboardInterrupt):
            if not is_done():
                raise


def made_by_now(path: str | os.PathLike[str] | None) -> Callable[[], bool]:
    """What asks whether a file has been made that has its name only once it is whole."""
    if path is None or os.path.exists(path):
        return lambda: False
    return lambda: os.path.exists(path)
