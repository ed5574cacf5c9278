"""`cloaca run --log json`: lines for what gathers logs."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloaca.cli.logged import Json

PROGRAM = """
import logging
import sys

import cloaca

logging.basicConfig(level="INFO", format="the program's own: %(message)s")

with cloaca.WorkflowBuilder("w"):

    @cloaca.task(retry_attempts=1)
    def speak(context):
        logging.getLogger("shop").warning("two\\nlines, %s", "\\x1b[31mred")
        raise ValueError("no price")


@cloaca.trigger(workflow="w", poll_interval="1h", poll_at_start=True)
def once():
    logging.getLogger("shop").error("polled")
    return True
"""


def lines_of(folder: Path, *options: str) -> list[dict[str, Any]]:
    """What a program says until its task has failed."""
    (folder / "app.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "cloaca", "run", "app.py", "--database", "runs.db", *options]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = []
            while not found or found[-1]["logger"] != "cloaca.task":
                found.append(json.loads(process.stderr.readline()))
            process.send_signal(signal.SIGTERM)
            for line in process.stderr:
                found.append(json.loads(line))
            # Its task may have failed before it heeds signals.
            assert process.wait(60) in (0, -signal.SIGTERM)
        finally:
            process.kill()
    return found


@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_each_line_is_one_object_that_says_what_it_is_about(tmp_path: Path, options: tuple[str, ...]) -> None:
    found = lines_of(tmp_path, "--log", "json", *options)
    polled, spoken, failed = (
        next(line for line in found if line["logger"] == logger and line["level"] == level)
        for logger, level in (("shop", "ERROR"), ("shop", "WARNING"), ("cloaca.task", "ERROR"))
    )
    assert (polled["text"], polled["trigger"], "run" in polled) == ("polled", "once", False)
    assert spoken["text"] == "two\nlines, \x1b[31mred"
    assert (spoken["task"], spoken["attempt"], spoken["run"]) == ("speak", 1, failed["run"])
    assert (failed["workflow"], failed["task"]) == ("w", "speak")
    assert failed["error"].splitlines()[-1] == "ValueError: no price"
    assert all(line["at"].endswith("+00:00") for line in found)
    assert "runner 1 is ready: 1 workflow, 1 trigger and 0 crons" in [line["text"] for line in found]


def test_a_line_whose_values_do_not_fit_is_told_all_the_same() -> None:
    record = logging.LogRecord("shop", logging.INFO, "", 0, "%d apples", ("no",), None)
    told = json.loads(Json().format(record))
    assert told["text"].startswith("%d apples (TypeError")
    assert Json().format(record).isascii()
