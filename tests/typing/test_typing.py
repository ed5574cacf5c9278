"""What a type checker says of wrong programs. The programs are in wrong.py, which is never run."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

WRONG = Path(__file__).with_name("wrong.py")
LINES = WRONG.read_text().splitlines()
PROGRAMS = {
    line.removeprefix("# wrong: "): at for at, line in enumerate(LINES, 1) if line.startswith("# wrong: ")
}
UNCAUGHT = set(PROGRAMS) - {"a fire with a list for a context"}
"""What passes today; a name leaves this set once it is caught."""


@cache
def refused() -> frozenset[int]:
    """The lines of which `mypy --strict` reports an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--hide-error-context", str(WRONG)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return frozenset(int(line) for line in re.findall(r"wrong\.py:(\d+): error", done.stdout))


def test_there_are_twelve() -> None:
    assert len(PROGRAMS) == 12


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_wrong_program_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    if name in UNCAUGHT:
        request.applymarker(pytest.mark.xfail(strict=True, reason="passes mypy --strict"))
    start = PROGRAMS[name]
    end = min((at for at in PROGRAMS.values() if at > start), default=len(LINES) + 1)
    assert any(start < line < end for line in refused())
