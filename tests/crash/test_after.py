"""SIGKILL while ends of runs are told, by four processes on one store: each end is told to a callback, and
fired by a trigger with `on_run` exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import cloaca

KILLS = int(os.environ.get("CLOACA_AFTER_KILLS", "6"))
"""So many processes are killed in each state; `make torture` asks for 200."""
SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
PROCESSES = 4
WAITING_MAX = 12
"""So many runs are under way, or their ends untold, at most."""
SECONDS = 60.0

PROGRAM = """
import os
import random
import sys
import threading
import time

import cloaca

store, out, state, seed = sys.argv[1:]
chance = random.Random(int(seed))
left = chance.randrange(3)

def reached(here):
    # Dies here, or a moment later, when what was answered is on its way to the store.
    global left
    if here != state:
        return
    left -= 1
    if left < 0:
        if state.endswith("begins"):
            os.kill(os.getpid(), 9)
        threading.Thread(target=die, args=(chance.uniform(0, 0.006),), daemon=True).start()

def die(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), 9)

def tell(run):
    reached("callback begins")
    with open(out, "a") as told:
        told.write(f"{run['id']} {run['completed_at']} {os.getpid()}\\n")
    reached("callback returns")

with cloaca.WorkflowBuilder("ingest").on_success(tell).on_failure(tell):
    @cloaca.task(id="only", retry_attempts=1)
    def only(context):
        reached("run ends")
        if context.get("bad"):
            raise ValueError("bad")

with cloaca.WorkflowBuilder("alert"):
    @cloaca.task(id="only")
    def alert(context):
        reached("fired begins")

@cloaca.trigger(workflow="alert", on_run="ingest", on_error=cloaca.Backoff("10ms"))
def watch(run):
    reached("event begins")
    reached("event returns")
    return cloaca.TriggerResult.fire({"of": run["id"], "at": run["completed_at"]})

with cloaca.DefaultRunner(store) as runner:
    sys.stdin.read()
"""

STATES = [
    "run ends",
    "callback begins",
    "callback returns",
    "event begins",
    "event returns",
    "fired begins",
]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


def until(holds: Callable[[], object], seconds: float = SECONDS) -> bool:
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.05)
    return True


class Client:
    """Asks for runs, opens some of them again, and knows how many ends each has had."""

    def __init__(self, runner: cloaca.DefaultRunner, chance: random.Random) -> None:
        self._runner = runner
        self._chance = chance
        self.ends: Counter[str] = Counter()

    def alerts(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for run in self._runner.iter_runs(workflow="alert"):
            context = run["context"] or {}
            found[str(context["of"]), str(context["at"])] += 1
        return found

    def untold(self) -> int:
        return self.ends.total() - self.alerts().total()

    def feed(self) -> None:
        """One more end that is to come, unless there are enough."""
        if self.untold() >= WAITING_MAX:
            return
        failed = self._runner.list_runs(workflow="ingest", status="Failed", limit=10)
        if failed and self._chance.random() < 0.3:
            id = failed[-1]["id"]
            self._runner.retry(id)
        else:
            id = self._runner.submit("ingest", {"bad": self._chance.random() < 0.4}).id
        self.ends[id] += 1

    def is_at_rest(self) -> bool:
        runs = [self._runner.get_run(id) for id in self.ends]
        is_over = all(run is not None and run["completed_at"] and not run["callbacks"] for run in runs)
        return is_over and self.untold() <= 0

    def completed_at(self, id: str) -> str:
        run = self._runner.get_run(id)
        assert run is not None
        return str(run["completed_at"])


@pytest.mark.timeout(240 + 8 * KILLS)
@pytest.mark.parametrize("state", STATES)
def test_whoever_dies_each_end_is_told_and_fires_once(store: str, state: str, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED} {state}")
    out = tmp_path / "told"
    out.touch()

    def start(state: str) -> subprocess.Popen[bytes]:
        seed = str(chance.randrange(10**9))
        command = [sys.executable, "-c", PROGRAM, store, str(out), state, seed]
        with open(tmp_path / "log", "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)

    kills = 0
    with cloaca.WorkflowBuilder("ingest"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    with cloaca.DefaultRunner(store, work=False) as runner:
        client = Client(runner, chance)
        living = [start(state) for _ in range(PROCESSES)]
        try:
            # Ends count from the first declaration on.
            assert until(lambda: runner.get_trigger_schedule("watch") is not None)
            while kills < KILLS:
                client.feed()
                for each in [each for each in living if each.poll() is not None]:
                    assert each.returncode == -9, f"CLOACA_SEED={SEED}"
                    close(each)
                    living.remove(each)
                    kills += 1
                    living.append(start(state))
                threading.Event().wait(0.02)
            for each in living:
                each.kill()
                close(each)
            living = [start("lives") for _ in range(2)]
            assert until(client.is_at_rest), (
                f"CLOACA_SEED={SEED}: {client.untold()} of {client.ends.total()} untold"
            )
        finally:
            for each in living:
                each.kill()
                close(each)
        told = [tuple(line.split()[:2]) for line in out.read_text().splitlines()]
        fired = client.alerts()
        assert {end: count for end, count in fired.items() if count > 1} == {}, f"CLOACA_SEED={SEED}"
        assert Counter(id for id, _ in fired) == client.ends, f"CLOACA_SEED={SEED}"
        missing = [id for id in client.ends if (id, client.completed_at(id)) not in told]
        assert missing == [], f"CLOACA_SEED={SEED}"
        print(f"\n{kills} kills where {state}: {fired.total()} ends, {len(told)} calls of callbacks")


def close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
