"""How fast what limits have held is drained, beside what nothing holds. All waits when the runner comes."""

import itertools
import threading
import time
from pathlib import Path

from common import Figures, folder_on_disk, percentile, run_contestant, wait_until
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


def run_behind(runs: int) -> Figures:
    """A key's first run, behind ten times as many of another one, until it begins."""
    began: dict[str, float] = {}
    go_on = threading.Event()
    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(1, key="tenant")):

        @cloaca.task()
        def sync(context: cloaca.Context) -> None:
            began[context["tenant"]] = time.perf_counter()
            if context["tenant"] == "many":
                go_on.wait()

    with folder_on_disk() as folder, runner_on(Path(folder) / "runs.db", "full") as runner:
        for _ in range(0, runs * 10, 1_000):
            runner.submit_many("sync", [{"tenant": "many"}] * min(1_000, runs * 10))
        wait_until(lambda: "many" in began)
        took = []
        for number in range(200):
            tenant = f"first {number}"
            asked = time.perf_counter()
            runner.submit("sync", {"tenant": tenant}).result()
            took.append((began[tenant] - asked) * 1e3)
        runner.cancel_many(workflow="sync")
        go_on.set()
    took.sort()
    return {"p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99)}


if __name__ == "__main__":
    contestants = {"plain": run_plain, "seats": run_seats, "paced": run_paced, "behind": run_behind}
    run_contestant(contestants, runs=int)
