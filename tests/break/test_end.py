"""Programs that end while bodies run Python: their exit code is what it would be without a runner."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SECONDS = 60.0

HEAD = """
    import logging, os, sys, threading
    import cloaca
    import cloaca.runner
    cloaca.runner.ATEXIT_SECONDS = 0.2
    logging.disable()
    entered = threading.Event()

    def spin():
        entered.set()
        while True:
            pass

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
"""


def program(body: str, path: Path, code: int = 0) -> None:
    source = textwrap.dedent(HEAD) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", source, os.fspath(path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")


SPINNING = {
    "a trigger": 'cloaca.trigger(poll_interval="1ms", name="spins")(spin)',
    "a trigger with a tick": """
        @cloaca.trigger(poll_interval="1ms")
        def spins(tick):
            spin()
    """,
    "a generator": """
        @cloaca.trigger(poll_interval="1ms")
        def spins():
            yield cloaca.TriggerResult.skip()
            spin()
    """,
    "an async trigger": """
        @cloaca.trigger(poll_interval="1ms")
        async def spins():
            spin()
    """,
    "the text of an exception": """
        class Slow(Exception):
            def __str__(self):
                spin()

        @cloaca.trigger(poll_interval="1ms")
        def spins():
            raise Slow
    """,
    "the end of an answer": """
        class Slow:
            def __del__(self):
                spin()

        @cloaca.trigger(poll_interval="1ms")
        def spins():
            return Slow()
    """,
    "a task": """
        with cloaca.WorkflowBuilder("spins"):
            cloaca.task(id="t")(lambda context: spin())
    """,
}


@pytest.mark.parametrize("place", SPINNING)
@pytest.mark.parametrize("code", [0, 7])
def test_a_body_that_still_runs_does_not_change_how_a_program_ends(
    tmp_path: Path, place: str, code: int
) -> None:
    starts = 'runner.submit("spins")' if place == "a task" else ""
    body = f"{textwrap.dedent(SPINNING[place])}\nrunner = cloaca.DefaultRunner(sys.argv[1])\n{starts}\n"
    program(f"{body}assert entered.wait(30)\nsys.exit({code})\n", tmp_path / "a.db", code)
