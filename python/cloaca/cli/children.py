"""Processes that serve a program for this one: what they are called with, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import NoReturn

END_SECONDS = 35.0
"""A runner that is told to end drains for 30 s; then it is killed."""


class Told(BaseException):
    """This process was told to end."""


def tell(number: int, frame: FrameType | None) -> NoReturn:
    """Raises that where a signal is heard."""
    raise Told


def hear_hangup(handler: Callable[[int, FrameType | None], object]) -> None:
    """By the terminal's end as by SIGTERM, unless somebody (`nohup`) wants it to be outlived."""
    if (number := getattr(signal, "SIGHUP", None)) is not None and signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, handler)


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
    return [sys.executable, "-m", "cloaca", "run", target, *options]


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


def all_ended(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes of processes that were told to end. Who tells this one once more ends their drain."""
    until = time.monotonic() + END_SECONDS
    codes: list[int] = []
    for child in children:
        while True:
            try:
                codes.append(child.wait(max(0.0, until - time.monotonic())))
                break
            except subprocess.TimeoutExpired:
                child.kill()
            except (KeyboardInterrupt, Told):
                until = min(until, time.monotonic() + 5.0)
                for each in children:
                    each.send_signal(signal.SIGINT)
    return codes


def drained(child: subprocess.Popen[bytes]) -> None:
    """Returns once one has ended that was told to. A signal ends the wait, and not the drain."""
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def ended(child: subprocess.Popen[bytes]) -> int:
    """The exit code of one."""
    return all_ended([child])[0]


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"
