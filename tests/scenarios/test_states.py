"""What each event does to a run in each state, cell by cell.

A runner in a process of its own brings a run into a state; then something happens, and a sibling, which is
this process, looks at it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import pytest

import cloaca

SECONDS = 60.0

OWNER = """
import os, sys, time
import cloaca

path, state, go, within = sys.argv[1:]

def until_told():
    while not os.path.exists(go):
        time.sleep(0.002)

def body(context, handle):
    tries.append(context["i"])
    if state == "backing off" and context["i"] == 1:
        raise ValueError("not yet")
    if state == "failed":
        raise ValueError("never")
    if state == "deferred":
        handle.defer_until(lambda: os.path.exists(go), 1)
    else:
        until_told()

tries = []
delay = 10_000 if state == "backing off" else 1
seats = {"concurrency": cloaca.Concurrency(1)} if state == "held" else {}
with cloaca.WorkflowBuilder("w", **seats):
    attempts = 2 if state == "backing off" else 1
    timeout = "50ms" if state == "overdue" else None
    options = {"retry_attempts": attempts, "retry_delay_ms": delay, "retry_jitter": False, "timeout": timeout}
    cloaca.task(id="t", **options)(body)

fires = [1, 2]

@cloaca.trigger(workflow="w", poll_interval="1h", overlap="queue")
def line():
    return cloaca.TriggerResult.fire(cloaca.Context({"i": fires.pop(0)}))

limit = {"runs_in_hand": 2}
if within:
    limit["workflow_timeout_seconds"] = float(within)
grace = 0 if state == "overdue" else 10
# A second run stays in its hand, though another runner has room for it.
config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1, timeout_grace_seconds=grace, **limit)
runner = cloaca.DefaultRunner.with_config(path, config)
if state == "in line":
    runner.tick("line")
    runner.tick("line")
else:
    if state == "paused":
        runner.pause(workflow="w")
    later = {"delay": "1h"} if state == "delayed" else {}
    runs = [runner.submit("w", {"i": 1}, **later)]
    if state in ("in hand", "running", "asked to cancel", "held"):
        runs.append(runner.submit("w", {"i": 2}))
    if state in ("failed", "overdue"):
        runs[0].result(60)
    elif state == "backing off":
        while not (runner.get_run(runs[0].id)["tasks"] and runner.get_run(runs[0].id)["tasks"][0]["error"]):
            time.sleep(0.002)
if state == "asked to cancel":
    while not tries:
        time.sleep(0.002)
    runner.cancel(runs[0].id)
while not (tries or state in ("delayed", "paused")) or state == "in line" and len(runner.list_runs()) < 2:
    time.sleep(0.002)
ids = [run["id"] for run in sorted(runner.list_runs(), key=lambda run: run["context"]["i"])]
if state in ("in line", "in hand", "held"):
    ids.reverse()
print("ready", *ids, flush=True)
for line in sys.stdin:
    if line == "leave\\n":
        runner.shutdown(timeout=0.05)
        print("left", flush=True)
until_told()
os._exit(0)
"""


class Owner:
    """A runner in a process of its own."""

    def __init__(self, path: str, go: Path, state: str, within: str) -> None:
        self.go = go
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, path, state, str(go), within],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        _, self.run_id, *self.others = self.line("ready").split()

    def line(self, start: str) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith(start):
                return line
        raise AssertionError(f"the owner ended with {self.process.wait()}")

    def dies(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            # What was written and not read is for nobody.
            with suppress(OSError):
                pipe.close()

    def leaves(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("leave\n")
        self.process.stdin.flush()
        self.line("left")


def until(condition: object) -> None:
    deadline = monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert monotonic() < deadline
        sleep(0.002)


class Scene:
    """An owner with a run in a state, and a sibling that declares the same workflow."""

    def __init__(self, path: str, go: Path, state: str, within: str = "") -> None:
        self.began: list[int] = []
        with cloaca.WorkflowBuilder("w", concurrency=cloaca.Concurrency(1) if state == "held" else None):
            cloaca.task(id="t", retry_attempts=2 if state == "backing off" else 1)(
                lambda context: self.began.append(context["i"])
            )
        self.owner = Owner(path, go, state, within)
        self.sibling = cloaca.DefaultRunner(path)

    def run(self) -> dict[str, object]:
        run = self.sibling.get_run(self.owner.run_id)
        assert run is not None
        return run

    def is_alone(self) -> bool:
        """Whether the sibling knows that nobody else lives."""
        states = [row["state"] for row in self.sibling.list_runners()]
        return [state for state in states if state not in ("dead", "left")] == ["living"]

    def end(self) -> tuple[object, list[object]]:
        """How the run ends at last, and the numbers of its task's attempts."""
        until(lambda: self.run()["status"] in ("Completed", "Failed", "Cancelled"))
        return self.run()["status"], [task["attempts"] for task in self.run()["tasks"]]  # type: ignore[attr-defined]


Place = tuple[str, Path]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A store that processes share, and the file that tells the owner's bodies to end."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else str(tmp_path / "a.db")
    return url, tmp_path / "go"


@contextmanager
def scene(place: Place, state: str, within: str = "") -> Iterator[Scene]:
    made = Scene(*place, state, within)
    try:
        yield made
    finally:
        made.owner.go.touch()
        made.owner.dies()
        made.sibling.shutdown()


# A number is never given twice, so that it rises with each attempt that may have begun; one that waits for
# long begins only once that is on record.
DIES = {
    "held": ("Completed", [1]),
    "in hand": ("Completed", [2]),
    "running": ("Completed", [2]),
    "backing off": ("Completed", [2]),
    "deferred": ("Completed", [2]),
    "asked to cancel": ("Cancelled", [0]),
}


@pytest.mark.parametrize("state", DIES)
def test_what_the_death_of_its_owner_does_to_a_run(place: Place, state: str) -> None:
    with scene(place, state) as made:
        made.owner.dies()
        assert made.end() == DIES[state]
        assert len(made.began) <= 2, "nothing that ended is tried again"


LEAVES = {
    "held": ("Completed", [1]),
    "in hand": ("Completed", [1]),
    "in line": ("Completed", [1]),
    "running": ("Completed", [2]),
    "backing off": ("Completed", [2]),
    "deferred": ("Completed", [2]),
    "asked to cancel": ("Cancelled", [2]),
}


@pytest.mark.parametrize("state", LEAVES)
def test_what_the_leaving_of_its_owner_does_to_a_run(place: Place, state: str) -> None:
    with scene(place, state) as made:
        made.owner.leaves()
        if state in ("in hand", "backing off", "deferred"):
            assert made.end() == LEAVES[state], "it goes on once it may, beside a body that still runs"
        else:
            assert 1 not in made.began, "its body still runs elsewhere"
            made.owner.go.touch()
            assert made.end() == LEAVES[state]


@pytest.mark.parametrize("goes", ["dies", "leaves"])
@pytest.mark.parametrize("state", ["delayed", "paused"])
def test_what_waits_in_the_store_waits_on_without_its_owner(place: Place, state: str, goes: str) -> None:
    with scene(place, state) as made:
        before = made.run()
        getattr(made.owner, goes)()
        made.owner.go.touch()
        until(made.is_alone)
        assert made.run() == before, "nobody had it, so nothing has changed"
        if state == "paused":
            made.sibling.resume(workflow="w")
            assert made.end() == ("Completed", [1])


def test_an_overdue_body_keeps_its_run_closed_until_its_owner_is_dead(place: Place) -> None:
    with scene(place, "overdue") as made:
        made.owner.leaves()
        assert made.run()["status"] == "Failed"
        with pytest.raises(cloaca.StoreError, match="still runs"):
            made.sibling.retry(made.owner.run_id)
        made.owner.dies()
        made.sibling.retry(made.owner.run_id)
        assert made.end() == ("Completed", [1])


CANCEL = {
    "delayed": "Cancelled",
    "held": "Cancelled",
    "paused": "Cancelled",
    "overdue": "Failed",
    "in hand": "Cancelled",
    "in line": "Cancelled",
    "running": "Running",
    "backing off": "Cancelled",
    "deferred": "Cancelled",
    "asked to cancel": "Running",
    "failed": "Failed",
}


@pytest.mark.parametrize("state", CANCEL)
def test_what_a_cancel_of_another_runner_does_to_a_run(place: Place, state: str) -> None:
    status = CANCEL[state]
    with scene(place, state) as made:
        made.sibling.cancel(made.owner.run_id)
        if status == "Running":
            # The owner hears of both in their order.
            made.sibling.cancel(made.owner.others[0])
            until(lambda: made.sibling.get_run(made.owner.others[0])["status"] == "Cancelled")  # type: ignore[index]
            assert made.run()["status"] == status, "its body still runs"
            made.owner.go.touch()
            status = "Cancelled"
        assert made.end()[0] == status
        assert made.began == []


def test_a_cancel_ends_what_nobody_has_in_hand_at_once(place: Place) -> None:
    with scene(place, "in hand") as made:
        made.sibling.shutdown()
        made.owner.leaves()
        code = (
            "import cloaca, sys; r = cloaca.DefaultRunner(sys.argv[1]); r.cancel(sys.argv[2]); "
            "print(r.get_run(sys.argv[2])['status'])"
        )
        command = [sys.executable, "-c", code, place[0], made.owner.run_id]
        told = subprocess.run(command, check=True, capture_output=True, text=True)
        assert told.stdout == "Cancelled\n"


RETRY = {
    "failed": True,
    "delayed": False,
    "held": False,
    "paused": False,
    "running": False,
    "in hand": False,
    "in line": False,
    "backing off": False,
    "deferred": False,
    "asked to cancel": False,
}


@pytest.mark.parametrize("state", RETRY)
def test_what_a_retry_by_hand_does_to_a_run(place: Place, state: str) -> None:
    with scene(place, state) as made:
        if RETRY[state]:
            made.owner.leaves()
            made.sibling.retry(made.owner.run_id)
            assert made.end() == ("Completed", [1]), "a new life: its attempts are counted anew"
            return
        with pytest.raises(cloaca.WorkflowError):
            made.sibling.retry(made.owner.run_id)
        assert made.run()["status"] in ("Running", "Pending")


def test_what_nobody_declares_waits_and_goes_on_once_somebody_does(place: Place) -> None:
    with scene(place, "in hand") as made:
        made.sibling.shutdown()
        made.owner.leaves()
        made.owner.go.touch()
        code = (
            "import cloaca, sys; r = cloaca.DefaultRunner(sys.argv[1]); "
            "print(*sorted(x['status'] for x in r.list_runs()))"
        )
        told = subprocess.run(
            [sys.executable, "-c", code, place[0]], check=True, capture_output=True, text=True
        )
        assert "Pending" in told.stdout, "a runner that doesn't declare it leaves it alone"
        made.sibling = cloaca.DefaultRunner(place[0])
        assert made.end()[0] == "Completed"


# While nobody has begun a run its time stands still; once somebody has, it goes on, also in back-off.
TIME_IS_OVER = {
    "delayed": "Pending",
    "held": "Pending",
    "paused": "Pending",
    "in hand": "Pending",
    "in line": "Pending",
    "running": "Failed",
    "backing off": "Failed",
    "deferred": "Failed",
}


@pytest.mark.parametrize("state", TIME_IS_OVER)
def test_what_the_end_of_its_time_does_to_a_run(place: Place, state: str) -> None:
    with scene(place, state, "1") as made:
        if TIME_IS_OVER[state] == "Pending":
            assert stays(made, "Pending", 1.5)
            return
        # A body is told to end, and does; what waits ends at once.
        if state == "running":
            assert stays(made, "Running", 1.2)
            made.owner.go.touch()
        assert made.end()[0] == "Failed"
        assert "timed out after 1s" in str(made.run()["error_message"])


def stays(made: Scene, status: str, seconds: float) -> bool:
    """Whether a run still has that status after a while, in which it would have changed."""
    began = monotonic()
    while monotonic() - began < seconds:
        if made.run()["status"] != status:
            return False
        sleep(0.01)
    return True


PAUSED = {
    "delayed": "Pending",
    "held": "Pending",
    "in hand": "Pending",
    "in line": "Pending",
    "running": "Completed",
    "backing off": "Running",
    "deferred": "Completed",
    "failed": "Failed",
}


@pytest.mark.parametrize("state", PAUSED)
def test_what_a_pause_of_its_workflow_does_to_a_run(place: Place, state: str) -> None:
    """What has begun goes on, what has not is held, wherever it is."""
    with scene(place, state) as made:
        made.sibling.pause(workflow="w")
        if state in ("in hand", "in line", "held"):
            made.owner.leaves()
        made.owner.go.touch()
        if PAUSED[state] in ("Completed", "Failed"):
            assert made.end()[0] == PAUSED[state]
        else:
            assert stays(made, PAUSED[state], 0.5)


PRUNED = {
    "delayed": False,
    "held": False,
    "paused": False,
    "in hand": False,
    "in line": False,
    "running": False,
    "backing off": False,
    "deferred": False,
    "asked to cancel": False,
    "overdue": False,
    "failed": True,
}


@pytest.mark.parametrize("state", PRUNED)
def test_what_a_prune_does_to_a_run(place: Place, state: str) -> None:
    with scene(place, state) as made:
        command = [
            sys.executable,
            "-m",
            "cloaca",
            "prune",
            "--database",
            place[0],
            "--before",
            "1ms",
            "--yes",
        ]
        subprocess.run(command, check=True, capture_output=True)
        assert (made.sibling.get_run(made.owner.run_id) is None) == PRUNED[state]
