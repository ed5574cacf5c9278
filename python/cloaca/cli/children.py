"""Processes that serve a program for this one: what they are called with, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from . import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .lifeline import Lifeline

END_SECONDS = 35.0
"""One that is told to end, and does not say how long it drains, is killed then."""
SLACK_SECONDS = 5.0
"""And one that does say so, if it takes so much longer."""
HURRIED_SECONDS = 5.0
"""And no later than that if its drain is ended."""
AGAIN_SECONDS = 1.0
"""So long before that it is told once more: what its program leaves running holds it up no longer then."""
LOOK_SECONDS = 0.05
"""So often it is looked who has ended."""


def command(
    target: str, url: str | None, log: str | None = None, listens: tuple[str, int] | None = None
) -> list[str]:
    """What serves a program in a process of its own."""
    options = [] if url is None else ["--database", url]
    if log is not None:
        options += ["--log", log]
    if listens is not None:
        host, port = listens
        options += ["--metrics", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    # As the command itself: without this folder before the libraries, whose names its files may have.
    return [sys.executable, "-P", "-m", "cloaca", "run", target, *options]


def end(children: Sequence[subprocess.Popen[bytes]], by: int) -> None:
    """Tells them to end, as this process was told by that signal."""
    if by != signal.SIGINT or not _is_told_by_terminal():
        for child in children:
            child.terminate()


def _is_told_by_terminal() -> bool:
    """Whether a Ctrl-C reaches what this process has begun as well: a second one would end the drain."""
    if os.name != "posix":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def all_ended(children: Sequence[subprocess.Popen[bytes]], lifeline: Lifeline) -> list[int]:
    """The exit codes of processes that were told to end. Who tells this one once more ends their drain."""
    # The second may have come beside the first.
    until, seen = time.monotonic() + END_SECONDS, min(_heard(), 1)
    again: float | None = None
    is_hurried = False
    while any(child.poll() is None for child in children):
        until = max(until, 0.0 if is_hurried else _drains_until(lifeline))
        if _heard() > seen:
            seen = _heard()
            until = min(until, time.monotonic() + HURRIED_SECONDS)
            again = until - AGAIN_SECONDS
            is_hurried = True
            _hurry(children)
        if again is not None and time.monotonic() >= again:
            again = None
            _hurry(children)
        if time.monotonic() >= until:
            for child in children:
                child.kill()
        told.pause(LOOK_SECONDS)
    return [child.wait() for child in children]


def _hurry(children: Sequence[subprocess.Popen[bytes]]) -> None:
    # Another one than the first, with which it would come as one; unless they are not to hear that, as this
    # process is not.
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    for child in children:
        child.send_signal(signal.SIGTERM if is_ignored else signal.SIGINT)


def _drains_until(lifeline: Lifeline) -> float:
    """Until when one of them drains that has just said so; long ago otherwise."""
    seconds = lifeline.drains()
    return time.monotonic() + seconds + SLACK_SECONDS if seconds > 0.0 else 0.0


def _heard() -> int:
    """How many signals have come; of its terminal's end a process may be told twice."""
    return sum(number != getattr(signal, "SIGHUP", None) for number in told.heard)


def drained(child: subprocess.Popen[bytes], lifeline: Lifeline) -> None:
    """Returns once one has ended that was told to. A signal ends the wait, and not the drain."""
    until = time.monotonic() + END_SECONDS
    while child.poll() is None and not told.heard:
        until = max(until, _drains_until(lifeline))
        if time.monotonic() >= until:
            child.kill()
        told.pause(LOOK_SECONDS)


def ended(child: subprocess.Popen[bytes], lifeline: Lifeline) -> int:
    """The exit code of one."""
    return all_ended([child], lifeline)[0]


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"
