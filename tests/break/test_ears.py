"""What the kernel lends a runner, which hears by it of other processes, is given back at its shutdown."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import cloaca

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems tell nobody")


def ears() -> int:
    """How many descriptors of this process listen for changes of files."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return links.count("anon_inode:inotify")


def test_a_runner_that_was_shut_down_listens_no_more_though_somebody_still_names_it(tmp_path: Path) -> None:
    before = ears()
    runners = []
    for work in (True, False):
        runner = cloaca.DefaultRunner(tmp_path / "runs.db", work=work)
        assert ears() == before + work, "a client is told nothing"
        runner.shutdown()
        runners.append(runner)
    assert ears() == before


def test_many_runners_of_one_program_leave_ears_for_others(tmp_path: Path) -> None:
    before = ears()
    runners = [cloaca.DefaultRunner(tmp_path / f"{number}.db") for number in range(24)]
    try:
        assert 1 <= ears() - before <= 16
    finally:
        for runner in runners:
            runner.shutdown(0)
    assert ears() == before
