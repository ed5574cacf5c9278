"""`run.watch()`, and what shows how far a run is: in a notebook, on a terminal, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cloaca
import cloaca.testing

WAIT = 60.0
PROGRAM = """
import os, sys, threading
import cloaca

HOSTILE = "\\x1b[31mred\\x07\\r\\n"
gate = threading.Event()

with cloaca.WorkflowBuilder("stock"):

    @cloaca.task()
    def fetch(context): ...

    @cloaca.task(dependencies=[fetch], retry_attempts=2, retry_delay_ms=1)
    def load(context):
        if context.get("file") == "bad":
            raise ValueError(HOSTILE)
        if context.get("file") == "gated":
            assert gate.wait(60)

    @cloaca.task(dependencies=[load])
    def report(context): ...
"""


def on_terminal(code: str, folder: Path, columns: int = 100, **environment: str) -> str:
    """What a program shows on a terminal; its standard output goes there too."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code], cwd=folder, stdout=slave, stderr=slave, env=variables
    ) as process:
        os.close(slave)
        told = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # how Linux tells the end
                break
            if not part:
                break
            told += part
        assert process.wait(WAIT) == 0, told.decode()
    os.close(master)
    return told.decode()


def drawn(told: str) -> list[str]:
    """The states of the line that is drawn over itself."""
    return [part.split("\x1b[K")[0] for part in told.split("\r") if "\x1b[K" in part]


GATED = """
with cloaca.DefaultRunner("runs.db") as runner:
    run = runner.submit("stock", {"file": "gated"})
    from cloaca import progress
    class Opens(progress.Bar):
        def draw(self, name, done, total, told):
            super().draw(name, done, total, told)
            if "load" in told:
                gate.set()
    progress.Bar = Opens
    print(run.watch(60).status)
"""


def test_a_line_on_a_terminal_says_how_far_it_is(tmp_path: Path) -> None:
    told = on_terminal(GATED, tmp_path)
    states = drawn(told)
    assert any("1/3" in state and state.rstrip().endswith("load") for state in states)
    last = states[-1]
    assert last.startswith(f"stock  {'█' * 24}  3/3  Completed  ")
    assert told.replace("\r\n", "\n").endswith("\x1b[K\nCompleted\n"), (
        "the last state stays, with its line's end"
    )


def test_a_failed_run_says_why_and_no_hostile_text_gets_through(tmp_path: Path) -> None:
    code = """
import logging
logging.getLogger("cloaca").setLevel("CRITICAL")
with cloaca.DefaultRunner("runs.db") as runner:
    run = runner.submit("stock", {"file": "bad"})
    print(run.result(60, progress=True).status)
"""
    told = on_terminal(code, tmp_path, columns=200)
    last = drawn(told)[-1]
    assert "3/3  Failed" in last
    assert "task 'load' failed: ValueError: \\x1b[31mred" in last
    assert "\x1b[31m" not in told
    assert "\x07" not in told
    for columns in (30, 1):
        assert all(len(state) < max(columns, 20) for state in drawn(on_terminal(code, tmp_path, columns)))


def test_runs_of_other_processes_are_watched_too(tmp_path: Path) -> None:
    server = """
with cloaca.DefaultRunner("runs.db") as runner:
    run = runner.submit("stock", {"file": "gated"})
    while "load" not in runner.why_run(run.id):
        pass
    print(run.id, flush=True)
    sys.stdin.readline()
    gate.set()
    run.result(60)
    print("over", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", PROGRAM + server]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        run_id = process.stdout.readline().strip()
        told = _watched_elsewhere(tmp_path, run_id, process)
        assert any("1/3" in state or "1/2" in state for state in drawn(told))
        assert "Completed" in drawn(told)[-1]
        process.stdin.close()


def _watched_elsewhere(folder: Path, run_id: str, server: subprocess.Popen[str]) -> str:
    """What a second process shows of a run, which goes on once it has been seen."""
    code = f"""
from cloaca import progress
class Says(progress.Bar):
    def draw(self, name, done, total, told):
        super().draw(name, done, total, told)
        if "load" in told:
            open("seen", "w").close()
progress.Bar = Says
with cloaca.DefaultRunner("runs.db", paused=True) as runner:
    print(runner.run({run_id!r}).watch(60).status)
"""

    def lets_go() -> None:
        until = time.monotonic() + WAIT
        while not (folder / "seen").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert server.stdin is not None
        server.stdin.write("go\n")
        server.stdin.flush()

    thread = threading.Thread(target=lets_go)
    thread.start()
    try:
        return on_terminal(code, folder)
    finally:
        thread.join()


def test_many_submits_are_counted(tmp_path: Path) -> None:
    code = """
with cloaca.DefaultRunner("runs.db") as runner:
    runs = runner.submit_many("stock", ({"n": n} for n in range(1500)), progress=True)
    print(len(runs))
    runner.cancel_many("stock")
"""
    told = on_terminal(code, tmp_path)
    assert drawn(told)[-1] == f"stock  {'█' * 24}  1,500/1,500  submitted"
    assert told.endswith("1500\r\n")


@pytest.mark.parametrize("dumb", [False, True])
def test_nothing_is_shown_where_nobody_would_see_it(tmp_path: Path, dumb: bool) -> None:
    code = """
with cloaca.DefaultRunner("runs.db") as runner:
    runs = runner.submit_many("stock", [{}] * 3, progress=True)
    assert [run.watch(60).status for run in runs] == ["Completed"] * 3
"""
    if dumb:
        assert on_terminal(code, tmp_path, TERM="dumb") == ""
        return
    command = [sys.executable, "-c", PROGRAM + code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_terminal_that_knows_ascii_alone_gets_that(tmp_path: Path) -> None:
    code = """
with cloaca.DefaultRunner("runs.db") as runner:
    runner.submit("stock").watch(60)
"""
    told = on_terminal(code, tmp_path, PYTHONIOENCODING="ascii")
    assert drawn(told)[-1].startswith(f"stock  {'#' * 24}  3/3")


def test_a_watch_ends_in_time_or_with_its_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError("none")

        def write(self, text: str) -> int:
            raise OSError("gone")

        def flush(self) -> None:
            raise ValueError("closed")

    gate = threading.Event()
    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="t")(lambda context: gate.wait(WAIT) and None)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("waits")
        monkeypatch.setattr(sys, "stderr", Broken())
        with pytest.raises(TimeoutError, match=r"is not final after 0\.3 s"):
            run.watch(0.3)
        with pytest.raises(TypeError, match="progress"):
            run.result(1, progress="yes")  # type: ignore[arg-type]
        gate.set()
        assert run.watch(WAIT).status == "Completed"
        assert run.watch().status == "Completed", "what is known is not waited for"


def test_a_runner_on_a_manual_clock_is_watched_as_it_is_waited_for() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.testing.Runner() as runner:
        assert runner.submit("w").watch().status == "Completed"


CELLS = [
    PROGRAM + "runner = cloaca.DefaultRunner('runs.db')",
    """
from cloaca import progress
shown = []
class Opens(progress.Picture):
    def show(self):
        super().show()
        shown.append(self._shown)
        if "▶ load" in self._shown:
            gate.set()
progress.Picture = Opens
run = runner.submit("stock", {"file": "gated"})
status = run.watch(60).status
""",
    "print(status, len(set(shown)) > 1, any('▶ load' in each for each in shown))",
    "run = runner.submit('stock'); run.result(60, progress=True)",
    "runner.shutdown()",
]


def test_a_notebook_shows_it_live(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    book: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    kernel = nbclient.NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    kernel.execute()
    (picture,) = (each for each in book.cells[1].outputs if each.output_type == "display_data")
    assert "✓ report" in picture.data["text/html"]
    assert "Completed" in picture.data["text/html"]
    assert "transient" not in picture
    assert book.cells[2].outputs[0].text == "Completed True True\n"
    kinds = [each.output_type for each in book.cells[3].outputs]
    assert kinds == ["display_data", "execute_result"]
