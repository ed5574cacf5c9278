"""What systemd is told, where it has asked for that: that a program serves, that it lives, that it ends.

Decides nothing. Invariant: whatever becomes of a message, the program goes on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

READY = b"READY=1"
ALIVE = b"WATCHDOG=1"
STOPPING = b"STOPPING=1"
JOIN_SECONDS = 1.0
BYTES_MAX = 4096
_ASKED = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def told(message: bytes) -> bool:
    """Tells systemd, if it has asked for it by `NOTIFY_SOCKET`; whether it was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    import socket

    # One that begins with @ is in the abstract name space, where names begin with a zero.
    address = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.setblocking(False)
            notify.sendto(message, address)
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often this process is to say that it lives: twice as often as systemd's `WatchdogSec` wants it."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(os.environ.get("WATCHDOG_USEC", "")) / 2e6
    except ValueError:
        return None
    return seconds if seconds > 0 else None


class Relay:
    """As a context manager: hears what processes say that serve for this one, and passes on that the first of
    them serves, and that any lives. For who is not asked by systemd it does nothing.
    """

    def __init__(self) -> None:
        self._folder = ""
        self._hears: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def environment(self) -> dict[str, str]:
        """This process's, for one that serves for it."""
        theirs = {name: value for name, value in os.environ.items() if name not in _ASKED}
        if self._hears is not None:
            theirs["NOTIFY_SOCKET"] = self._hears.getsockname()
            if watchdog_seconds() is not None:
                theirs["WATCHDOG_USEC"] = os.environ["WATCHDOG_USEC"]
        return theirs

    def __enter__(self) -> Self:
        if os.environ.get("NOTIFY_SOCKET", "").startswith(("/", "@")):
            import socket
            import tempfile

            hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                self._folder = tempfile.mkdtemp(prefix="cloaca-")
                hears.bind(os.path.join(self._folder, "notify"))
            except OSError:
                # Nobody can say that it serves: better said too early than that systemd ends them all.
                hears.close()
                told(READY)
                return self
            self._hears = hears
            self._thread = threading.Thread(target=self._pass_on, args=(self._hears,), daemon=True)
            self._thread.start()
        return self

    def _pass_on(self, hears: socket.socket) -> None:
        is_ready = False
        while message := hears.recv(BYTES_MAX):
            if message == READY and not is_ready:
                is_ready = told(READY)
            elif message == ALIVE:
                told(ALIVE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hears is not None and self._thread is not None:
            import shutil

            with contextlib.suppress(OSError):
                # An empty message, which nobody else sends, ends the thread.
                self._hears.sendto(b"", self._hears.getsockname())
                self._thread.join(JOIN_SECONDS)
            self._hears.close()
            shutil.rmtree(self._folder, ignore_errors=True)


class Notifying:
    """As a context manager: says at its beginning that the program serves, says that it lives for as long as
    `lives` says so too, and `stopping` says that it ends.
    """

    def __init__(self, lives: Callable[[], bool]) -> None:
        self._lives = lives
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if told(READY) and (seconds := watchdog_seconds()) is not None:
            from .threads import begin

            # Whatever is thrown into it: systemd would take the program for hung without it.
            begin("cloaca-watchdog", partial(self._ping, seconds), self._keep, pid=os.getpid(), serves=True)
        return self

    def _keep(self, thread: threading.Thread) -> None:
        self._thread = thread

    def stopping(self) -> None:
        """The program ends, and takes its time for that."""
        told(STOPPING)

    def _ping(self, seconds: float) -> None:
        while True:
            if self._lives():
                told(ALIVE)
            if self._over.wait(seconds):
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            # Not for ever: it may hang where the runner does.
            self._thread.join(JOIN_SECONDS)
