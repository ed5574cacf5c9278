"""Descriptors that a program closes and that are not its own: what it opens next gets their numbers."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attack import run

import cloaca

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system doesn't tell them")
ROBS = """
    logging.basicConfig(stream=sys.stdout)

    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=0)
        def t(context): pass

    path, way = sys.argv[1:3]
    runner = cloaca.DefaultRunner(path)
    runner.execute("w")
    if way == "all":
        os.closerange(3, 300)
    else:
        for each in os.listdir("/proc/self/fd"):
            try:
                at = os.readlink(f"/proc/self/fd/{each}")
            except OSError:
                continue
            if at == path + way.removeprefix("first"):
                os.close(int(each))
                if way == "first":
                    # By it others know that this runner lives.
                    break
    victims = [open(f"{path}.{i}", "w+b") for i in range(40)]
    for victim in victims:
        victim.write(b"precious" * 1000)
        victim.flush()
    done = 1
    try:
        while done < 1000:
            runner.execute("w", {"i": done}, timeout=20)
            done += 1
    except cloaca.RunnerError:
        say("done", done)
    try:
        runner.shutdown(5)
    except cloaca.CloacaError as error:
        pass
    del runner
    import gc; gc.collect()
    for victim in victims:
        victim.seek(0)
        assert victim.read() == b"precious" * 1000, victim.name
        victim.write(b"!")
        victim.flush()
"""


@pytest.mark.parametrize("way", ["all", "first", "", "-wal", "-shm"])
def test_what_gets_the_numbers_of_a_store_s_descriptors_is_left_alone(tmp_path: Path, way: str) -> None:
    path = tmp_path / "runs.db"
    lines = run(ROBS, path, way)
    assert [line for line in lines if "closed descriptors of database" in line]
    (done,) = (line.split()[1] for line in lines if line.startswith("done"))
    for number in range(40):
        assert Path(f"{path}.{number}").read_bytes() == b"precious" * 1000 + b"!"
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with cloaca.DefaultRunner(path, work=False) as client:
        kept = [row for row in client.list_runs(limit=2000) if row["status"] == "Completed"]
    # One more may have been kept, and not been told.
    assert int(done) <= len(kept) <= int(done) + 1
