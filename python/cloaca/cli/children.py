"""Processes that serve a program for this one: what they are called with, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

END_SECONDS = 35.0
"""A runner that is told to end drains for 30 s; then it is killed."""


class Told(BaseException):
    """This process was told to end."""


def tell(number: int, frame: FrameType | None) -> NoReturn:
    """Raises that where a signal is heard."""
    raise Told


def command(target: str, url: str | None) -> list[str]:
    """What serves a program in a process of its own."""
    options = [] if url is None else ["--database", url]
    return [sys.executable, "-m", "cloaca", "run", target, *options]


def ended(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that was told to end. Who tells this one once more ends the wait."""
    until = time.monotonic() + END_SECONDS
    while True:
        try:
            return child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
        except (KeyboardInterrupt, Told):
            # The second one ends the drain.
            until = min(until, time.monotonic() + 5.0)
            child.send_signal(signal.SIGINT)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"
