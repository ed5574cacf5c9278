"""Runs programs in processes and on clocks of their own, and waits for conditions. Asserts nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import cloaca
import cloaca.testing
from cloaca.check import microseconds

SECONDS = 30.0
"""How long anything here may take before it counts as hanging."""


def run_program(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; `sys.argv[1:]` are the arguments."""
    return subprocess.run(
        _command(source, arguments), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def start_program(source: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts a program whose lines can be read while it runs."""
    return subprocess.Popen(
        _command(source, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def beside_tests() -> dict[str, str]:
    """The environment of a program that imports what stands beside these tests, and all that they do."""
    paths = [os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def eventually(condition: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _command(source: str, arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]


class Dated(cloaca.testing.Runner):
    """A runner over a file whose clock begins where it is told."""

    def __init__(self, url: str, start: str, config: cloaca.DefaultRunnerConfig | None = None) -> None:
        self._start(url, config or cloaca.DefaultRunnerConfig(), None, microseconds(start))
        self.run_until_idle()
