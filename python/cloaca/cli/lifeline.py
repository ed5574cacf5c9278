"""A pipe by which processes that serve for another one notice that it is gone, however that came: they drain,
as by SIGTERM. And one by which they tell it how long they drain at most.

Nothing is sent through the first. Invariant: its writing end is open in that process alone, whose end closes
it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import threading

from .. import stop
from . import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DESCRIPTOR = "CLOACA_LIFELINE"
"""By which a process finds its ends of the pipes."""
BYTES_MAX = 1 << 16

_tells: int | None = None
"""By which this process tells the one that it serves for."""


class Lifeline:
    """The end of the process that others serve for, for as long as that lives."""

    def __init__(self) -> None:
        self._theirs: tuple[int, int] | None = None
        if os.name == "posix":  # elsewhere no process inherits what is not a standard stream
            theirs, self._own = os.pipe()
            self._hears, tells = os.pipe()
            # Who tells is not held up by who does not listen yet.
            for descriptor in (self._hears, tells):
                os.set_blocking(descriptor, False)
            self._theirs = theirs, tells

    def begin(
        self, line: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Begins a process that is to end with this one."""
        if self._theirs is None:
            return subprocess.Popen(line, env=environment)
        given = {DESCRIPTOR: ",".join(map(str, self._theirs))}
        theirs = {**(os.environ if environment is None else environment), **given}
        return subprocess.Popen(line, env=theirs, pass_fds=self._theirs)

    def drains(self) -> float:
        """The longest that any of them has said since this was asked that it drains, in seconds."""
        longest = 0.0
        if self._theirs is not None:
            with contextlib.suppress(OSError, ValueError):
                longest = max(map(float, os.read(self._hears, BYTES_MAX).split()), default=0.0)
        return longest


def hold() -> None:
    """Has this process told to end once the one is gone that it serves for, if it serves for any."""
    # Of what this process begins none serves for that one.
    global _tells
    given = os.environ.pop(DESCRIPTOR, "")
    with contextlib.suppress(OSError, ValueError):
        descriptor, tells = map(int, given.split(","))
        if all(stat.S_ISFIFO(os.fstat(each).st_mode) for each in (descriptor, tells)):
            for each in (descriptor, tells):
                os.set_inheritable(each, False)
            _tells = tells
            threading.Thread(target=_watch, args=(descriptor,), name="cloaca-lifeline", daemon=True).start()


def is_held() -> bool:
    """Whether this process serves for another one."""
    return _tells is not None


def drain(seconds: float) -> None:
    """Tells the process that this one serves for, if there is one, how long it waits now for what runs."""
    if _tells is not None:
        # It may be gone, or hear nothing for long.
        with contextlib.suppress(OSError):
            os.write(_tells, f"{seconds:g}\n".encode())


def _watch(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.read(descriptor, 1)
    # A second signal would end the drain that a first one has begun.
    if not stop.is_told and not told.heard:
        os.kill(os.getpid(), signal.SIGTERM)
