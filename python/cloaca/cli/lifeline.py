"""A pipe by which processes that serve for another one notice that it is gone, however that came: they drain,
as by SIGTERM.

Nothing is sent through it. Invariant: its writing end is open in that process alone, whose end closes it.
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
"""By which a process finds its end of the pipe."""


class Lifeline:
    """The end of the process that others serve for, for as long as that lives."""

    def __init__(self) -> None:
        self._theirs: int | None = None
        if os.name == "posix":  # elsewhere no process inherits what is not a standard stream
            self._theirs, self._own = os.pipe()

    def begin(
        self, line: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Begins a process that is to end with this one."""
        if self._theirs is None:
            return subprocess.Popen(line, env=environment)
        theirs = {**(os.environ if environment is None else environment), DESCRIPTOR: str(self._theirs)}
        return subprocess.Popen(line, env=theirs, pass_fds=(self._theirs,))


def hold() -> None:
    """Has this process told to end once the one is gone that it serves for, if it serves for any."""
    # Of what this process begins none serves for that one.
    given = os.environ.pop(DESCRIPTOR, "")
    with contextlib.suppress(OSError, ValueError):
        descriptor = int(given)
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.set_inheritable(descriptor, False)
            threading.Thread(target=_watch, args=(descriptor,), name="cloaca-lifeline", daemon=True).start()


def _watch(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.read(descriptor, 1)
    # A second signal would end the drain that a first one has begun.
    if not stop.is_told and not told.heard:
        os.kill(os.getpid(), signal.SIGTERM)
