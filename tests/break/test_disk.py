"""A disk that fails to read for a while: SQLite takes the file for damaged then, and it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attack import health, run

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads fail by a library of Linux"
)

PROGRAM = '''
    import subprocess

    def every(n):
        file = os.open(os.environ["DISK_FAULT"], os.O_RDWR)
        os.write(file, n.to_bytes(8, "little"))
        os.close(file)

    done = []
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=0)
        def one(context): context["pad"] = "x" * 3000
        @cloaca.task(retry_attempts=0, dependencies=["one"])
        def two(context): done.append(context["n"])

    # SQLite keeps in memory what it has read: a foreign write makes it read anew.
    WRITES = """if True:
        import sqlite3, sys, time
        end = time.monotonic() + 20
        while time.monotonic() < end:
            other = sqlite3.connect(sys.argv[1], timeout=30)
            with other:
                other.execute("CREATE TABLE IF NOT EXISTS app (n)")
                other.execute("INSERT INTO app VALUES (1)")
            other.close()
            time.sleep(0.005)
    """

    def fail():
        for n in (50, 20, 7, 3):
            every(n)
            time.sleep(0.7)
            every(0)
            time.sleep(0.3)

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        quiet = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        command = [sys.executable, "-c", WRITES, sys.argv[1]]
        beside = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL)
        failing = threading.Thread(target=fail)
        failing.start()
        runs = []
        while failing.is_alive():
            runs.append(runner.submit("w", {"n": len(runs)}))
        failing.join()
        beside.kill()
        beside.wait()
        say({each.result(60).status for each in runs}, sorted(set(done)) == list(range(len(runs))))
        say(runner.health()["ok"])
'''


def test_reads_that_fail_for_a_while_leave_no_run_standing(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library, fault, path = tmp_path / "disk.so", tmp_path / "fault", tmp_path / "runs.db"
    source = Path(__file__).with_name("disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    fault.write_bytes(bytes(8))
    env = {"LD_PRELOAD": os.fspath(library), "DISK_FAULT": os.fspath(fault)}
    told = run(PROGRAM, path, env=env)
    assert told[-2:] == ["{'Completed'} True", "True"]
    assert health(path) == "ok"
