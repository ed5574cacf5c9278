"""The signals that end what serves: heard from the beginning of its line to the end of its process.

Invariant: however many come, and whenever, the process ends with the code of its line, which is 0 where it is
they that end it. Only where the interpreter has not come to the line yet, or where the program catches
everything and goes on, they end the process by themselves.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time

from .. import stop
from ..plain import describe
from ..terminal import clean
from . import ending
from .show import aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

AGAIN_SECONDS = 0.01
SWALLOWED_MAX = 3
"""So many may meet what lets nothing out; the next ends the process, as it ends others."""

heard: list[int] = []
"""Those that have come, in that order, but for what a runner has heard that serves."""
_numbers: list[int] = []
"""Those that this process hears so."""
_raises = False
_code: int | None = None
"""What the process ends with, once there is nothing left but its end."""
_pid: int | None = None
"""The process that ignores them at last."""
_wakes: tuple[socket.socket, socket.socket] | None = None


class Told(SystemExit):
    """This process was told to end. As what ends a process by itself, event loops and threads of a program
    let it through without a word."""

    def __init__(self) -> None:
        super().__init__(0)


def hear(number: int, frame: FrameType | None) -> None:
    """Hears one of them."""
    heard.append(number)
    if _wakes is not None:
        # A full socket wakes as well.
        with contextlib.suppress(OSError):
            _wakes[1].send(b"\0")
    elif _raises:
        if len(heard) > SWALLOWED_MAX and ending.is_whole_process:
            # As without this: a program that lets nothing out would else be ended by nobody.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        raise Told
    elif _code is not None:
        # Nobody waits for what the program has still to do.
        os._exit(_code)


def over(does: Callable[[], int]) -> int:
    """What a line comes to that serves: 0 if one of them ends that, which raises `Told` in it."""
    with _hearing():
        try:
            return does()
        except BaseException as error:
            if not is_cause_of(error):
                raise
            say(error)
            return 0


def say(error: BaseException) -> None:
    """Says what a program raised as it was told to end, which is no fault of its line."""
    if not isinstance(error, Told | SystemExit | KeyboardInterrupt):
        aside(f"cloaca: as it was told to end, the program raised {clean(describe(error))}\n")


def is_cause_of(error: BaseException) -> bool:
    """Whether it was raised where one of them ended what the program did: by a lock, say, whose wait that
    broke off, and which is let go all the same."""
    if not heard:
        # Who refuses something may have ended it by itself.
        return isinstance(error, Told)
    chain = [error]
    for each in chain:
        if isinstance(each, Told):
            return True
        for further in (each.__cause__, each.__context__):
            # By identity: of a program's exceptions who knows what is equal.
            if further is not None and not any(further is known for known in chain):
                chain.append(further)
    return False


@contextlib.contextmanager
def _hearing() -> Iterator[None]:
    global _raises, _pid
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard.clear()
    if ending.is_whole_process and _pid is None:
        _pid = os.getpid()
        # The first to be registered comes last.
        atexit.register(_ignore)
    before = ending.unheard()
    hook, sys.unraisablehook = sys.unraisablehook, _swallowed
    try:
        _raises = True
        _numbers[:] = before
        for number in before:
            stop.hear(number, hear)
        yield
    except SystemExit as left:
        ends(left.code if isinstance(left.code, int) else 0 if left.code is None else 1)
        raise
    finally:
        _raises = False
        if not ending.is_whole_process and sys.unraisablehook is _swallowed:
            sys.unraisablehook = hook
        if not ending.is_whole_process:
            for number, handler in before.items():
                # The program may have begun to hear it itself.
                if signal.getsignal(number) is hear:
                    stop.give_back(number, handler)
            _numbers.clear()


def _swallowed(unraisable: sys.UnraisableHookArgs) -> None:
    """What came in a place that lets nothing out, as where an object is done away with, comes once more."""
    if isinstance(unraisable.exc_value, Told):
        _thread.start_new_thread(_again, ())
    else:
        sys.__unraisablehook__(unraisable)


def _again() -> None:
    # Once the main thread is out of there.
    time.sleep(AGAIN_SECONDS)
    if _raises and heard:
        os.kill(os.getpid(), heard.pop())


def ends(code: int) -> None:
    """There is nothing left to be done but the end of this process, with that code: one that comes now ends
    it at once, whatever its program waits for."""
    global _code, _raises
    _raises = False
    if not ending.is_whole_process or not _numbers:
        return
    _code = code
    for number in _numbers:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler) or stop.is_ours(number):
            signal.signal(number, hear)


def _ignore() -> None:
    """The interpreter takes handlers away as it ends, before the process has its exit code."""
    if os.getpid() == _pid:
        for number in _numbers:
            if signal.getsignal(number) is hear:
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Within `over`: in the block they raise nothing, and who serves by other processes looks for them."""
    global _wakes
    inlet, outlet = socket.socketpair()
    outlet.setblocking(False)
    with inlet, outlet:
        _wakes = inlet, outlet
        try:
            yield
        finally:
            _wakes = None


def pause(seconds: float) -> None:
    """Waits for so long, or for the next of them."""
    assert _wakes is not None, "they are noted"
    inlet = _wakes[0]
    inlet.settimeout(seconds)
    with contextlib.suppress(TimeoutError):
        inlet.recv(4096)
