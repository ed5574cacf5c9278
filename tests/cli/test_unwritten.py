"""A change whose answer reaches nobody: it is carried out whole, and what it was is not lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stage import fields, run_command

import cloaca

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def feed() -> None: ...

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("w")
    return tmp_path


def said_beside(folder: Path, *words: str) -> tuple[int, list[str]]:
    """The exit code, and the lines of standard error, where standard output takes nothing."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cloaca", *words]
        done = subprocess.run(
            command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    return done.returncode, done.stderr.splitlines()


def test_a_change_whose_answer_cannot_be_written_says_what_was_done(store: Path) -> None:
    cannot = "cloaca: standard output takes nothing (No space left on device); what was done:"
    code, said = said_beside(store, "submit", "w")
    (run_id,) = (row[0] for row in fields(run_command(["runs", "--status", "Pending"], cwd=store).stdout))
    assert (code, said[-2:]) == (0, [cannot, run_id])
    assert said_beside(store, "disable", "feed")[0] == 0
    assert "it was switched off" in run_command(["why", "feed"], cwd=store).stdout
    code, said = said_beside(store, "cancel", run_id, "--json", "--database", "runs.db")
    assert (code, said) == (0, [cannot, f'{{"kind": "cancelled", "of": "{run_id}"}}'])
    # What only looks has not done what it was asked for.
    assert said_beside(store, "runs", "--database", "runs.db") == (
        1,
        ["cloaca: [Errno 28] No space left on device"],
    )


def test_a_change_of_many_is_carried_out_whole_though_its_reader_leaves(store: Path) -> None:
    with cloaca.DefaultRunner(store / "runs.db", work=False) as runner:
        runner.submit_many("w", [{"n": n} for n in range(1200)])
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "cloaca", "cancel", "--all", "--yes", "--database", "runs.db"]
    with os.fdopen(writes, "w") as nobody:
        done = subprocess.run(
            command, cwd=store, stdout=nobody, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (141, "")
    audited = run_command(["audit", "--limit", "5000"], cwd=store).stdout
    assert audited.count("\tcancel\t") == 1200
