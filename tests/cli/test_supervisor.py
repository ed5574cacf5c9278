"""Processes that serve for another one, when that one or their terminal ends: they drain, as by SIGTERM."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from stage import free_port, reads, run_command, serving

import cloaca

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no signals")
WAIT = 30.0
APP = """
import pathlib
import time

import cloaca

with cloaca.WorkflowBuilder("w"):

    @cloaca.task()
    def t(context):
        print("began", flush=True)
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
"""
SUPERVISED = {
    "workers": ["run", "app.py", "--workers", "2"],
    "reload": ["run", "app.py", "--reload"],
    "dev": ["dev", "app.py"],
}
MODES = {**SUPERVISED, "plain": ["run", "app.py"]}


@contextmanager
def at_work(folder: Path, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """What serves, amid a body that ends once `go` is there."""
    (folder / "app.py").write_text(APP)
    words = [*words, "--database", "runs.db", *(["--port", str(free_port())] if words[0] == "dev" else [])]
    with serving(folder, *words) as process:
        try:
            for _ in range(2 if "2" in words else 1):
                reads(process, "serving app.py")
            if words[0] == "dev":
                reads(process, "http://127.0.0.1")
            assert run_command(["submit", "w", "--app", "app.py"], cwd=folder).returncode == 0
            reads(process, "began")
            yield process
        finally:
            # Its workers are of its group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def drains(folder: Path, process: subprocess.Popen[str]) -> str:
    """Lets a body end that is waited for, and reads to the end of whoever serves."""
    told = reads(process, "shutting down; waiting at most 30 s for task 't'")
    (folder / "go").touch()
    assert process.stdout is not None
    return told + process.stdout.read()


def assert_drained(folder: Path) -> None:
    (run,) = run_command(["runs", "--json"], cwd=folder).stdout.splitlines()
    shown = json.loads(run_command(["show", json.loads(run)["id"], "--json"], cwd=folder).stdout)
    assert (shown["status"], [task["attempts"] for task in shown["tasks"]]) == ("Completed", [1])
    assert run_command(["runners"], cwd=folder).stdout == "", "none is living, or was taken for dead"


@pytest.mark.parametrize("mode", SUPERVISED)
def test_who_serves_for_a_process_that_is_killed_drains_and_ends(tmp_path: Path, mode: str) -> None:
    with at_work(tmp_path, SUPERVISED[mode]) as process:
        process.kill()
        drains(tmp_path, process)
    assert_drained(tmp_path)


@pytest.mark.parametrize("mode", SUPERVISED)
def test_a_drain_outlives_the_process_that_asked_for_it(tmp_path: Path, mode: str) -> None:
    with at_work(tmp_path, SUPERVISED[mode]) as process:
        process.terminate()
        reads(process, "shutting down; waiting at most 30 s for task 't'")
        process.kill()
        process.wait(WAIT)
        (tmp_path / "go").touch()
        assert process.stdout is not None
        process.stdout.read()
    assert_drained(tmp_path)


@pytest.mark.parametrize("by", ["a signal to it alone", "its terminal"])
@pytest.mark.parametrize("mode", MODES)
def test_what_serves_drains_when_it_is_hung_up(tmp_path: Path, mode: str, by: str) -> None:
    with at_work(tmp_path, MODES[mode]) as process:
        if by == "its terminal":
            # All of the group are told by that, and workers by the one that they serve for as well.
            os.killpg(process.pid, signal.SIGHUP)
        else:
            process.send_signal(signal.SIGHUP)
        drains(tmp_path, process)
        assert process.wait(WAIT) == 0
    assert_drained(tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_to_outlive_its_terminal_does(tmp_path: Path, mode: str) -> None:
    # As nohup leaves it to what it begins.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with at_work(tmp_path, MODES[mode]) as process:
            os.killpg(process.pid, signal.SIGHUP)
            (tmp_path / "go").touch()
            told = run_command(["submit", "w", "--app", "app.py", "--wait"], cwd=tmp_path)
            assert told.stdout.split()[1:] == ["Completed"], told.stderr
            process.terminate()
            assert process.wait(WAIT) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_a_drain_that_a_terminal_began(tmp_path: Path) -> None:
    with at_work(tmp_path, MODES["plain"]) as process:
        process.send_signal(signal.SIGHUP)
        reads(process, "shutting down")
        process.terminate()
        process.send_signal(signal.SIGINT)
        # Nobody waits for the body.
        process.wait(WAIT)
        assert not (tmp_path / "go").exists()


@pytest.mark.parametrize("mode", ["reload", "dev"])
def test_a_signal_during_the_drain_of_a_restart_ends_it_all_after_that_drain(
    tmp_path: Path, mode: str
) -> None:
    with at_work(tmp_path, SUPERVISED[mode]) as process:
        with (tmp_path / "app.py").open("a") as file:
            file.write("# changed\n")
        reads(process, "changed; starting again")
        reads(process, "shutting down; waiting at most 30 s for task 't'")
        process.terminate()
        (tmp_path / "go").touch()
        assert process.stdout is not None
        for text in process.stdout:
            assert "serving app.py" not in text
        assert process.wait(WAIT) == 0
    assert_drained(tmp_path)


@pytest.mark.parametrize("mode", ["reload", "dev"])
def test_a_program_that_dies_is_told_of_and_begins_again_when_it_changes(tmp_path: Path, mode: str) -> None:
    with at_work(tmp_path, SUPERVISED[mode]) as process:
        found = run_command(["runners", "--json"], cwd=tmp_path).stdout.splitlines()
        # The page is a client.
        (pid,) = (each["pid"] for each in map(json.loads, found) if each["works"])
        os.kill(pid, signal.SIGKILL)
        told = reads(process, "was killed")
        assert told.startswith(
            f"cloaca: 'app.py' (process {pid}) was killed by signal 9 (SIGKILL); it is started"
        )
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with (tmp_path / "app.py").open("a") as file:
            file.write("\nimport os\nif not os.path.exists('go'): os._exit(7)\n")
        reads(process, "starting again")
        reads(process, "ended with exit code 7; it is started again when one of its files changes")
        process.terminate()
        assert process.wait(WAIT) == 0


@pytest.mark.parametrize("mode", [*MODES, "ui"])
def test_a_ctrl_c_that_is_not_to_be_heard_ends_nothing(tmp_path: Path, mode: str) -> None:
    """As in `cloaca run app.py &` of a script."""
    (tmp_path / "app.py").write_text(APP)
    words = MODES.get(mode, ["ui", "runs.db"])
    if mode == "ui":
        cloaca.DefaultRunner(tmp_path / "runs.db", paused=True).shutdown(0.0)
    else:
        words = [*words, "--database", "runs.db"]
    if mode in ("ui", "dev"):
        words = [*words, "--port", str(free_port())]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = serving(tmp_path, *words)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            reads(process, "http://127.0.0.1" if mode in ("ui", "dev") else "serving app.py")
            if mode not in ("ui", "dev"):
                while "living" not in run_command(["runners", "--database", "runs.db"], cwd=tmp_path).stdout:
                    pass
            process.send_signal(signal.SIGINT)
            run_command(["runners", "--database", "runs.db"], cwd=tmp_path)
            assert process.poll() is None
            process.terminate()
            assert process.wait(WAIT) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("mode", MODES)
def test_a_signal_as_the_program_is_imported_ends_it_well(
    tmp_path: Path, mode: str, number: signal.Signals
) -> None:
    (tmp_path / "app.py").write_text(
        "import time\nimport cloaca\nrunner = cloaca.DefaultRunner('runs.db')\n"
        "print('is imported', flush=True)\ntime.sleep(30)\n"
    )
    words = [*MODES[mode], *(["--port", str(free_port())] if mode == "dev" else [])]
    with serving(tmp_path, *words) as process:
        try:
            for _ in range(2 if mode == "workers" else 1):
                reads(process, "is imported")
            process.send_signal(number)
            assert process.stdout is not None
            assert "Traceback" not in process.stdout.read()
            assert process.wait(WAIT) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
