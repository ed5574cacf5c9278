"""What systemd is told, where it has asked for that: that a program serves, that it lives, that it ends.

Decides nothing. Invariant: whatever becomes of a message, the program goes on.
"""

from __future__ import annotations

import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

READY = b"READY=1"
ALIVE = b"WATCHDOG=1"
STOPPING = b"STOPPING=1"
JOIN_SECONDS = 1.0


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
            arguments = (seconds,)
            self._thread = threading.Thread(
                target=self._ping, args=arguments, name="cloaca-watchdog", daemon=True
            )
            self._thread.start()
        return self

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
