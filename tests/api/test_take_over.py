"""What a dead runner has left is taken over beside everything else."""

from __future__ import annotations

import threading
from pathlib import Path

from program import SECONDS, eventually, run_program

import cloaca

MANY = 20_000
LEAVES = """
    import os, sys
    import cloaca

    with cloaca.WorkflowBuilder("many"):
        cloaca.task(id="t")(lambda context: None)

    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit_many("many", [{"n": n} for n in range(int(sys.argv[2]))])
    os._exit(0)
"""
UNOWNED = "SELECT count(*) AS n FROM runs WHERE owner IS NULL AND completed_at IS NULL"


def test_triggers_are_polled_while_runs_are_still_being_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    assert run_program(LEAVES, path, MANY).returncode == 0
    polled = threading.Event()
    with cloaca.WorkflowBuilder("many"):
        cloaca.task(id="t")(lambda context: None)

    @cloaca.trigger(workflow="many", name="often", poll_interval="1ms")
    def often() -> bool:
        polled.set()
        return False

    with cloaca.DefaultRunner(path) as runner:
        assert polled.wait(SECONDS)
        assert runner.query(UNOWNED)[0]["n"] > 0
        # And all of them are in the end.
        assert eventually(lambda: runner.query(UNOWNED)[0]["n"] == 0)
        assert runner.query("SELECT count(*) AS n FROM runs")[0]["n"] == MANY
        runner.shutdown(0)
