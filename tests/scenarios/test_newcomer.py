"""Tests that a newcomer writes work at the first go: a program, and its tests, in a pytest of their own."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("newcomer")
SECONDS_MAX = 120
TESTS = 23


@pytest.mark.skipif(
    not entry_points(group="pytest11", name="cloaca"),
    reason="the package is on the path only, where pytest finds no fixture of it",
)
def test_what_comes_to_a_newcomers_mind_works_at_the_first_go() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--noconftest", "checks.py"]
    done = subprocess.run(
        [*command, "-o", "addopts=", "-W", "error::UserWarning"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TESTS} passed" in done.stdout
