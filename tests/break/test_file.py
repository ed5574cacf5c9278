"""What the program itself, and others, may do to a live file: nothing that was committed is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
