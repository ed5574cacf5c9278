"""What the program itself, and others, may do to a live file: nothing that was committed is lost."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from attack import SECONDS, TIMES, Program

import cloaca

SETUP = """
import os, shutil, sqlite3, subprocess, sys
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context):
        pass

path, how = sys.argv[1], sys.argv[2]

def outside(sql):
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None); "
    code += "print(*c.execute(sys.argv[2]).fetchall()); c.close()"
    command = [sys.executable, "-c", code, path, sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

def runs(count):
    for number in range(count):
        assert runner.execute("w", {"i": number, "x": "x" * 500}).status == "Completed"
"""

MEDDLES = (
    SETUP
    + """
early = None
if how == "before":
    cloaca.DefaultRunner(path).shutdown()
    early = sqlite3.connect(path)
    early.execute("SELECT count(*) FROM runs").fetchall()
runner = cloaca.DefaultRunner(path)
runs(5)
for _ in range(3):
    if how == "copy":
        shutil.copy(path, path + ".copy")
        shutil.copy(path + "-shm", path + ".shm")
    elif how == "open":
        open(path, "rb").close()
        open(path + "-shm", "rb").close()
    elif how == "attach":
        other = sqlite3.connect(":memory:")
        other.execute("ATTACH ? AS live", (path,))
        other.execute("SELECT count(*) FROM live.runs").fetchall()
        other.close()
    elif early is not None:
        early.close()
    outside("SELECT count(*) FROM runs")
    runs(10)
    outside("CREATE TABLE IF NOT EXISTS app (x)")
    outside("INSERT INTO app WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 2000)"
            " SELECT hex(randomblob(100)) FROM c")
    runs(10)
print(runner.query("SELECT count(*) AS n FROM runs")[0]["n"], flush=True)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), 9)
runner.shutdown()
"""
)


@pytest.mark.parametrize("end", ["shutdown", "kill"])
@pytest.mark.parametrize("how", ["copy", "open", "attach", "before"])
def test_a_foreign_close_in_the_runners_process_loses_nothing(tmp_path: Path, how: str, end: str) -> None:
    path = tmp_path / "runs.db"
    command = [sys.executable, "-c", MEDDLES, str(path), how, end]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == (-9 if end == "kill" else 0), done.stderr
    assert done.stdout.split() == ["65"]
    assert counted(path) == (65, 6000, "ok")
    if end == "shutdown":
        assert not os.path.exists(f"{path}-wal"), "the log is folded into the file"


def counted(path: Path) -> tuple[int, int, str]:
    """Runs, the outsider's rows, and what SQLite says of the file, as a process of its own sees them."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print("
        "*(c.execute(q).fetchone()[0] for q in ('SELECT count(*) FROM runs', 'SELECT count(*) FROM app', "
        "'PRAGMA integrity_check'))); c.close()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    runs, rows, health = done.stdout.split(maxsplit=2)
    return int(runs), int(rows), health.strip()


VISITS = """
import sys, threading
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context):
        threading.Event().wait(0.3)

runner = cloaca.DefaultRunner(sys.argv[1])
runner.submit_many("w", [{"i": number} for number in range(20)])
runner.shutdown(timeout=0)
"""


def test_who_joins_and_leaves_between_two_looks_orphans_no_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def t(context: cloaca.Context) -> None:
            pass

    with cloaca.DefaultRunner(str(path)) as runner:
        subprocess.run([sys.executable, "-c", VISITS, str(path)], check=True, timeout=60)
        deadline = time.monotonic() + 30
        while any(run["status"] != "Completed" for run in runner.list_runs(limit=100)):
            assert time.monotonic() < deadline, [run["status"] for run in runner.list_runs(limit=100)]
            time.sleep(0.02)
        assert len(runner.list_runs(limit=100)) == 20


EARLY = (
    SETUP
    + """
cloaca.DefaultRunner(path).shutdown()
early = sqlite3.connect(path, isolation_level=None)
early.execute("CREATE TABLE mine (x)")
early.execute("BEGIN")
assert early.execute("SELECT count(*) FROM mine").fetchone() == (0,)
runner = cloaca.DefaultRunner(path)
runs(3)
runner.shutdown()
print(outside("PRAGMA wal_checkpoint(TRUNCATE)"), end="")
outside("INSERT INTO mine VALUES (1)")
print(early.execute("SELECT count(*) FROM mine").fetchone())
early.execute("COMMIT")
early.execute("INSERT INTO mine VALUES (2)")
print(outside("SELECT count(*) FROM mine"), end="")
for _ in range(30):
    runner = cloaca.DefaultRunner(path)
    runs(1)
    runner.shutdown()
early.execute("INSERT INTO mine VALUES (3)")
print(len(os.listdir("/proc/self/fd")))
early.close()
runner = cloaca.DefaultRunner(path)
runs(1)
runner.shutdown()
print(outside("SELECT count(*) FROM mine"), end="")
print(os.path.exists(path + "-wal"))
print(len([fd for fd in os.listdir("/proc/self/fd") if path in os.path.realpath("/proc/self/fd/" + fd)]))
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="locks of an open file are Linux's")
def test_a_runner_that_ends_leaves_the_locks_of_another_sqlite_in_its_process(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    command = [sys.executable, "-c", EARLY, str(path), "early"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    checkpoint, snapshot, seen, descriptors, rest, is_left, kept = done.stdout.split("\n")[:-1]
    assert checkpoint.startswith("(1,"), "the other's snapshot is in use"
    assert snapshot == "(0,)"
    assert seen == "(2,)", "what the other wrote went into everybody's log"
    assert int(descriptors) < 60, "what is kept for the other's sake does not grow"
    assert (rest, is_left, kept) == ("(3,)", "False", "0")


CLOSES = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context):
            pass

    for line in sys.stdin:
        with cloaca.DefaultRunner(line.strip()) as runner:
            runner.submit("w")
            say("open")
            sys.stdin.readline()
        say("closed")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="locks of an open file are Linux's")
def test_of_processes_that_close_a_file_at_once_the_last_folds_its_log(tmp_path: Path) -> None:
    with Program(CLOSES) as one, Program(CLOSES) as other:
        both = (one, other)
        for number in range(200 * TIMES):
            path = tmp_path / f"{number}.db"
            for word, answer in ((str(path), "open"), ("", "closed")):
                for program in both:
                    program.tell(word)
                assert [program.line() for program in both] == [answer] * 2
            assert [found.name for found in tmp_path.glob(f"{path.name}-*")] == []
            path.unlink()


IDLE = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context):
            pass

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        runner.execute("w")
        say("idle")
        try:
            runner.run_forever()
        except cloaca.RunnerError as error:
            say("raised", error)
            sys.exit(3)
"""


@pytest.mark.parametrize("how", ["deleted", "replaced", "emptied", "log deleted", "memory deleted"])
def test_a_runner_with_nothing_to_write_finds_out_that_its_file_is_gone(tmp_path: Path, how: str) -> None:
    path = tmp_path / "runs.db"
    with Program(IDLE, path) as program:
        program.until("idle")
        if how == "deleted":
            path.unlink()
        elif how == "replaced":
            (tmp_path / "other").write_bytes(b"")
            (tmp_path / "other").rename(path)
        elif how == "emptied":
            os.truncate(path, 0)
        else:
            Path(f"{path}{'-wal' if how == 'log deleted' else '-shm'}").unlink()
        program.until("raised")
        assert "the store is gone" in program.end(code=3)
    if how == "memory deleted":
        # Nothing is missing in the file.
        with cloaca.DefaultRunner(path) as runner:
            assert len(runner.list_runs()) == 1
    elif how != "emptied":
        assert Path(f"{path}-rescue").exists()


def test_the_health_of_a_runner_that_has_stopped_is_told(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner:
        path.unlink()
        deadline = time.monotonic() + SECONDS
        while not runner.stats()["stopped"] and time.monotonic() < deadline:
            time.sleep(0.01)
        (reason,) = runner.health()["reasons"]
        assert (reason["code"], "has stopped by itself" in reason["text"]) == ("stopped", True)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_why_nothing_happens_in_a_runner_that_has_stopped_is_told(tmp_path: Path, how: str) -> None:
    path = tmp_path / "runs.db"
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="w", name="it", poll_interval="1h")(lambda: False)
    with cloaca.DefaultRunner(path) as runner:
        run = runner.execute("w", {}) and runner.list_runs()[0]["id"]
        if how == "replaced":
            (tmp_path / "other").write_bytes(b"")
            (tmp_path / "other").rename(path)
        else:
            path.unlink()
        deadline = time.monotonic() + SECONDS
        while not runner.stats()["stopped"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "has stopped by itself" in runner.why("it")
        assert "has stopped by itself" in runner.why_run(run)


CLIENT = """
    with cloaca.DefaultRunner(sys.argv[1], work=False) as client:
        for run in client.submit_many("w", [{"n": n} for n in range(50)]):
            say("kept", run.id)
        say("all")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="an open file cannot be deleted everywhere")
def test_two_that_share_no_memory_of_the_log_do_not_both_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    runner = cloaca.DefaultRunner(path)
    kept = [run.id for run in runner.submit_many("w", [{"n": n} for n in range(20)])]
    Path(f"{path}-shm").unlink()
    with Program(CLIENT, path) as program:
        program.until("all")
        program.end()
        kept += [line.split()[1] for line in program.lines if line.startswith("kept")]
    with pytest.raises(cloaca.CloacaError, match=r"has stopped by itself|somebody deleted or replaced"):
        kept.extend(runner.submit("w", {"n": n}).id for n in range(50))
    assert re.search(r"the runner has stopped: .* deleted or replaced '.*runs.db-shm'", caplog.text)
    runner.shutdown(timeout=0)
    with closing(sqlite3.connect(path)) as outsider:
        assert outsider.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert {row[0] for row in outsider.execute("SELECT id FROM runs")} == set(kept)
