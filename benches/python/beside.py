"""What claims, fires, lists and `why` take beside a million final and a million delayed runs, and alone."""

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from common import Figures, folder_on_disk, run_contestant, wait_until
from workflows import CONTEXT, runner_on

import cloaca

AT_ONCE = 1_000
CALLS = 100
CLAIMED = 2_000


class Claimed:
    """The workflow, a trigger of which each poll fires, and when so many of its runs have begun."""

    def __init__(self) -> None:
        self.all = threading.Event()
        self.begun = itertools.count(1)
        with cloaca.WorkflowBuilder("one"):

            @cloaca.task()
            def load(context: cloaca.Context) -> None:
                if next(self.begun) == CLAIMED:
                    self.all.set()

        @cloaca.trigger(workflow="one", name="fires", poll_interval="1d", allow_concurrent=True)
        def fires() -> cloaca.TriggerResult:
            return cloaca.TriggerResult.fire(CONTEXT)

    def anew(self) -> None:
        """Counts from here."""
        self.all.clear()
        self.begun = itertools.count(1)


def fill(path: Path, runs: int) -> None:
    """So many runs that are over, and so many that are due in a day."""
    with runner_on(path, "normal") as runner:
        for _ in range(0, runs, AT_ONCE):
            runner.submit_many("one", [CONTEXT] * AT_ONCE)
            wait_until(lambda: runner.stats()["runs_unfinished"] < 20 * AT_ONCE)
        wait_until(lambda: runner.stats()["runs_unfinished"] == 0)
        for _ in range(0, runs, AT_ONCE):
            runner.submit_many("one", [CONTEXT] * AT_ONCE, delay="1d")


def measure(runs: int) -> Figures:
    """Beside so many of each."""
    claimed = Claimed()
    with folder_on_disk() as folder:
        path = Path(folder) / "runs.db"
        fill(path, runs)
        with cloaca.DefaultRunner(path, work=False) as client:
            client.submit_many("one", [CONTEXT] * CLAIMED)
        claimed.anew()
        began = time.perf_counter()
        with runner_on(path, "normal") as runner:
            claimed.all.wait()
            claimed_s = time.perf_counter() - began
            run = runner.submit("one", CONTEXT, delay="1h")
            return {
                "claimed_per_second": CLAIMED / claimed_s,
                "fire_ms": cost(lambda: runner.tick("fires")),
                "list_ms": cost(runner.list_runs),
                "why_ms": cost(lambda: runner.why("fires")),
                "why_run_ms": cost(lambda: runner.why_run(run.id)),
            }


def cost(call: Callable[[], object]) -> float:
    """The median of some calls, in milliseconds."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    return median(took)


if __name__ == "__main__":
    run_contestant({"empty": lambda runs: measure(0), "full": measure}, runs=int)
