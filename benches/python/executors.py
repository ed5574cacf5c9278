"""What a task costs more in a `ProcessExecutor` than on a thread of the program: `execute`, one after
another, in blocks by turns, over a store in memory, so that no disk is in it."""

import time

from common import Figures, percentile, run_contestant
from workflows import CONTEXT, declare_far_one, declare_one

import cloaca

BLOCK = 50


def run_process(runs: int) -> Figures:
    """One process that is there already, and a task that does nothing."""
    declare_one()
    declare_far_one()
    took: dict[str, list[float]] = {"one": [], "far": []}
    pool = cloaca.ProcessExecutor(max_workers=1)
    with pool, cloaca.DefaultRunner(":memory:", executors={"cpu": pool}) as runner:
        for name in took:
            runner.execute(name, CONTEXT, check=True)
        for _ in range(max(1, runs // BLOCK)):
            for name, its in took.items():
                for _ in range(BLOCK):
                    began = time.perf_counter()
                    runner.execute(name, CONTEXT)
                    its.append((time.perf_counter() - began) * 1e3)
    thread, process = sorted(took["one"]), sorted(took["far"])
    return {
        "thread_ms": percentile(thread, 0.5),
        "process_ms": percentile(process, 0.5),
        "more_ms": percentile(process, 0.5) - percentile(thread, 0.5),
        "more_p99_ms": percentile(process, 0.99) - percentile(thread, 0.99),
    }


if __name__ == "__main__":
    run_contestant({"process": run_process}, runs=int)
