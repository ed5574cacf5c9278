"""Waits for the signal that asks a program to end, or for the end of what it waits beside.

Decides nothing. Invariant: a signal ends the wait, whether it comes before, at or after its beginning.
A `threading.Event` doesn't promise that: Python calls a handler between two steps of the main thread, and a
signal that comes after the last step before a wait is handled once that wait is over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from . import imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""The end of the terminal, where the system tells of that."""
is_told = False
"""Whether a signal has told this process to end."""


_ours: dict[int, tuple[tuple[Any, ...], Any]] = {}
"""What hears signals here, the newest first, and what heard each for the program. A thread may fork at any
moment: it stands here before it hears, and for as long as it may."""
_wakes: set[int] = set()
"""The descriptors by which a signal wakes a wait here."""
_is_hooked = False


def hear(number: int, handler: Callable[[int, FrameType | None], object]) -> Any:
    """Hears a signal in this process alone: in a child that the program forks, as a pool does, that end is
    for the program to make, and the signal means what it did. Returns what heard it before."""
    global _is_hooked
    if not _is_hooked and hasattr(os, "register_at_fork"):
        _is_hooked = True
        os.register_at_fork(after_in_child=_forked)
    before = signal.getsignal(number)
    ours, theirs = _ours.get(number, ((), None))
    # The program may have begun to hear it itself, where one of these did.
    has_ours = before is not None and before in ours
    _ours[number] = ((handler, before), theirs) if has_ours else ((handler,), before)
    signal.signal(number, handler)
    return before


def is_ours(number: int) -> bool:
    """Whether one of these hears it."""
    ours = _ours.get(number)
    return ours is not None and signal.getsignal(number) == ours[0][0]


def give_back(number: int, before: Any) -> None:
    """Has it heard by what heard it before, one of these or the program."""
    _set(number, before)
    _, theirs = _ours.pop(number, ((), before))
    if before != theirs:
        _ours[number] = (before,), theirs


def _set(number: int, handler: Any) -> None:
    # One that wasn't made by Python is `None`, and cannot be given back.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _forked() -> None:
    """Whichever thread forks is the child's main one."""
    for number, (ours, theirs) in _ours.items():
        if signal.getsignal(number) in ours:
            _set(number, theirs)
    _ours.clear()
    if _wakes:
        _wakes.clear()
        signal.set_wakeup_fd(-1)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


class Stop:
    """As a context manager, hears the first of `SIGNALS`; each further one raises `KeyboardInterrupt`, in a
    block of `hurried`, as soon as there is one.

    Ctrl-C that is ignored, as what a script begins with `&` finds it, stays so. It hears `HANG_UP` too,
    unless somebody has that ignored, as by `nohup`, or heard for something else. That never is the further
    one, nor makes the next a further one: of its terminal's end a program may be told twice, by the system
    and by the process that it serves for.
    """

    def __init__(self) -> None:
        self.is_heard = False
        self._is_over = False
        self._is_hurried = False
        self._raises = False
        self._is_hung_up = False
        self._before: dict[int, Any] = {}
        self._descriptor_before = -1
        self._inlet, self._outlet = socket.socketpair()
        self._outlet.setblocking(False)

    def __enter__(self) -> Self:
        # First, so that what the handlers are told also ends the wait. Python writes to it at once, from
        # whichever thread the signal interrupts.
        self._descriptor_before = signal.set_wakeup_fd(self._outlet.fileno(), warn_on_full_buffer=False)
        _wakes.add(self._outlet.fileno())
        try:
            numbers: list[int] = [each for each in SIGNALS if each == signal.SIGTERM or not _is_ignored(each)]
            # The command line ends by it what imports the program, until that serves.
            theirs = signal.SIG_DFL, imported.found("cloaca.cli.told", "hear")
            if HANG_UP is not None and signal.getsignal(HANG_UP) in theirs:
                numbers.append(HANG_UP)
            for number in numbers:
                self._before[number] = hear(number, self._hear)
        except BaseException:
            # An interrupt: `with` does not leave what it has not entered.
            self._leave()
            raise
        return self

    def wait(self) -> None:
        """Waits for the first of the signals, or for `end`."""
        # Other signals of the program write, too, and so do those of a forked child.
        while not self.is_heard and not self._is_over:
            self._inlet.recv(4096)

    def end(self) -> None:
        """Ends the wait. From any thread, also when there is no wait any more."""
        self._is_over = True
        # A full socket wakes it as well, and a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._outlet.send(b"\0")

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """In the block a further signal raises, also one that has come before."""
        try:
            self._raises = True
            if self._is_hurried:
                self._hurry()
            yield
        finally:
            self._raises = False

    def _hurry(self) -> NoReturn:
        self._is_hurried = False
        raise KeyboardInterrupt

    def _hear(self, number: int, *_: object) -> None:
        global is_told
        is_told = True
        if number != HANG_UP:
            self._is_hurried |= self.is_heard and not self._is_hung_up
            self._is_hung_up = False
        elif not self.is_heard:
            self._is_hung_up = True
        self.is_heard = True
        if self._is_hurried and self._raises:
            self._hurry()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        # First, as what heard a signal before may raise from then on: what is closed is written to no more.
        signal.set_wakeup_fd(self._descriptor_before)
        _wakes.discard(self._outlet.fileno())
        try:
            for number, handler in self._before.items():
                give_back(number, handler)
        finally:
            self._inlet.close()
            self._outlet.close()
