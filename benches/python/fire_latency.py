"""How long it takes from a trigger's answer to the first line of the task that it fires.

The run is kept on disk in between.
"""

import itertools
import time
from pathlib import Path

from common import Figures, folder_on_disk, percentile, run_contestant, wait_until
from workflows import runner_on

import cloaca

INTERVAL_MS = 10


def run_cloaca(per_second: int, seconds: float) -> Figures:
    """As many triggers as it takes, each of which fires at every poll."""
    took: list[tuple[int, int]] = []
    with cloaca.WorkflowBuilder("fired"):

        @cloaca.task()
        def note(context: cloaca.Context) -> None:
            now = time.perf_counter_ns()
            took.append((now, now - context["at"]))

    number = itertools.count()
    for trigger in range(max(1, per_second * INTERVAL_MS // 1000)):

        @cloaca.trigger(name=f"trigger-{trigger}", workflow="fired", poll_interval=INTERVAL_MS / 1000)
        def fire():
            context = {"number": next(number), "at": time.perf_counter_ns()}
            return cloaca.TriggerResult.fire(context)

    with folder_on_disk() as folder, runner_on(Path(folder) / "runs.db", "full") as runner:
        wait_until(lambda: len(took) > per_second // 10)
        from_ns = time.perf_counter_ns()
        time.sleep(seconds)
        until_ns = time.perf_counter_ns()
        unfinished = runner.stats()["runs_unfinished"]
    ms = sorted(span / 1e6 for at, span in took if from_ns <= at <= until_ns)
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
    figures = {name: percentile(ms, share) for name, share in shares.items()}
    return figures | {"per_second": len(ms) / seconds, "unfinished": unfinished}


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, per_second=int, seconds=float)
