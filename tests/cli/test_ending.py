"""Signals at the moments at which a command has done something, and has still to tell of it."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from stage import Line, fields

import cloaca
from cloaca.cli import change
from cloaca.cli.show import Show

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no signals")
ROOT = Path(__file__).parents[2]
BY = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
# The command with a signal at a moment, and once more as the interpreter ends.
AT = """
import atexit, os, signal, sys
import cloaca.reading
from cloaca import cli, copying
from cloaca.cli.show import Show

moment, number = sys.argv.pop(1), int(sys.argv.pop(1))

def then(does):
    def done(*words, **named):
        found = does(*words, **named)
        os.kill(os.getpid(), number)
        return found
    return done

if moment == "made" and sys.argv[1] == "export":
    cloaca.reading.Reader.export = then(cloaca.reading.Reader.export)
elif moment == "made":
    copying._cloaca.rename_to_new = then(copying._cloaca.rename_to_new)
elif moment == "told":
    Show.note = then(Show.note)
else:
    atexit.register(os.kill, os.getpid(), number)
sys.exit(cli.main())
"""


def made(store: str = "runs.db") -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def t(context: cloaca.Context) -> None:
            pass

    with cloaca.DefaultRunner(store) as runner:
        runner.execute("w", {})


@pytest.mark.parametrize("number", BY)
@pytest.mark.parametrize("moment", ["made", "told", "over"])
@pytest.mark.parametrize("words", [["export", "out.db"], ["copy", "runs.db", "out.db"]], ids=" ".join)
def test_what_is_whole_is_done_whatever_comes_then(
    line: Line, tmp_path: Path, words: list[str], moment: str, number: signal.Signals
) -> None:
    made()
    done = subprocess.run(
        [sys.executable, "-c", AT, moment, str(int(number)), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, "out.db" in done.stderr) == (0, True), done.stderr
    with closing(sqlite3.connect("out.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.mark.parametrize("number", BY)
@pytest.mark.parametrize("waits", [["--wait"], []])
def test_a_run_that_has_begun_is_told_whenever_the_command_is_ended(
    line: Line, monkeypatch: pytest.MonkeyPatch, waits: list[str], number: signal.Signals
) -> None:
    made()
    before = change._say_who_takes_them

    def told(*words: Any) -> None:
        signal.raise_signal(number)
        before(*words)

    monkeypatch.setattr(change, "_say_who_takes_them", told)
    words = ["submit", "w", *waits]
    if not waits:
        # It is done.
        (shown,) = fields(line.piped(*words))
        run_id = shown[0]
    else:
        line.piped(*words, code=128 + number)
        run_id = line.said.splitlines()[-1].split()[2]
    assert run_id in line.piped("runs")


@pytest.mark.parametrize("number", BY)
def test_a_run_that_is_over_is_told_by_its_end(
    line: Line, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    made()
    before = Show.values

    def told(*words: Any) -> None:
        signal.raise_signal(number)
        before(*words)

    monkeypatch.setattr(Show, "values", told)
    with cloaca.DefaultRunner("runs.db"):
        assert "Completed" in line.piped("submit", "w", "--wait")


@pytest.mark.parametrize("number", BY)
def test_what_the_first_signal_has_cleaned_up_no_second_one_cuts_short(number: signal.Signals) -> None:
    source = """
        import os, signal, sys
        from cloaca.cli.ending import cleaning_up

        with cleaning_up(lambda: False):
            try:
                os.kill(os.getpid(), int(sys.argv[1]))
            finally:
                for _ in range(3):
                    os.kill(os.getpid(), int(sys.argv[1]))
                print("clean", flush=True)
        print("not ended")
    """
    command = [sys.executable, "-c", textwrap.dedent(source), str(int(number))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "clean\n", done.stderr
    assert done.returncode not in (0, 1) or number == signal.SIGINT


# The command as it is installed, with Ctrl-C as its package is imported, or as the interpreter ends.
BEGINS = """
import atexit, importlib, os, signal, sys

moment = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, *rest):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
if moment == "over":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
if moment == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    moment = "cloaca"
module, _, function = sys.argv.pop(1).partition(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ("cloaca", -signal.SIGINT),
        ("cloaca.errors", -signal.SIGINT),
        ("cloaca.cli.main", -signal.SIGINT),
        ("cloaca.cli.look", 130),
        ("over", -signal.SIGINT),
        ("ignored", 0),
        ("", 0),
    ],
)
def test_ctrl_c_ends_a_command_without_a_traceback_from_its_beginning(
    tmp_path: Path, moment: str, code: int
) -> None:
    made(str(tmp_path / "runs.db"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = [sys.executable, "-c", BEGINS, moment, project["scripts"]["cloaca"], "runs"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) is (code == 0 or moment == "over")
