"""How fast what limits have held is drained, beside what nothing holds. All waits when the runner comes."""

import itertools
import threading
import time
from pathlib import Path

from common import Figures, folder_on_disk, run_contestant
from workflows import runner_on

import cloaca

KEYS = 10_000


def drain(runs: int, **limits: object) -> Figures:
    """One process, bodies that only count, as many keys as runs but at most 10,000."""
    begun = itertools.count(1)
    all_begun = threading.Event()
    with cloaca.WorkflowBuilder("sync", **limits):

        @cloaca.task()
        def sync(context: cloaca.Context) -> None:
            if next(begun) == runs:
                all_begun.set()

    with folder_on_disk() as folder:
        file = Path(folder) / "runs.db"
        with runner_on(file, "full"):
            pass
        with cloaca.DefaultRunner(file, work=False) as client:
            asked = time.perf_counter()
            client.submit_many("sync", [{"tenant": number % KEYS} for number in range(runs)])
            kept = time.perf_counter()
        began = time.perf_counter()
        with runner_on(file, "full"):
            all_begun.wait()
            ended = time.perf_counter()
    return {"per_second": runs / (ended - began), "submitted_per_second": runs / (kept - asked)}


def run_plain(runs: int) -> Figures:
    """Nothing is limited."""
    return drain(runs)


def run_seats(runs: int) -> Figures:
    """Two at once of a key."""
    return drain(runs, concurrency=cloaca.Concurrency(2, key="tenant"))


def run_paced(runs: int) -> Figures:
    """A throttle that lets all of them through."""
    return drain(runs, throttle=cloaca.Throttle(1_000, per="1s", burst=1_000, key="tenant"))


if __name__ == "__main__":
    run_contestant({"plain": run_plain, "seats": run_seats, "paced": run_paced}, runs=int)
