"""How long one run takes, one after another, and as many bare commits as it needs at least."""

import time
from collections.abc import Callable
from pathlib import Path

from common import Figures, folder_on_disk, percentile, run_contestant
from workflows import CONTEXT, RUN, TASK, bare_database, declare_chain, run_row, runner_on, task_row


def run_cloaca(tasks: int, durability: str, runs: int) -> Figures:
    """`execute`, from one thread."""
    declare_chain("chain", tasks)
    with folder_on_disk() as folder, runner_on(Path(folder) / "runs.db", durability) as runner:
        return _measured(lambda: runner.execute("chain", CONTEXT), runs)


def run_floor(tasks: int, durability: str, runs: int) -> Figures:
    """One commit when the run is started, and one for each task's end, the last of which ends the run."""
    with folder_on_disk() as folder:
        database = bare_database(Path(folder) / "bare.db", durability)

        def commit_all() -> None:
            database.execute("BEGIN IMMEDIATE")
            run = database.execute(RUN, run_row()).lastrowid
            database.execute("COMMIT")
            for number in range(tasks):
                database.execute("BEGIN IMMEDIATE")
                _, *rest = task_row(run or 0)
                database.execute(TASK, (run, f"task{number}", *rest[1:]))
                if number == tasks - 1:
                    done = "UPDATE runs SET status = 'Completed', completed_at = ? WHERE row = ?"
                    database.execute(done, (1_790_000_000_000_000, run))
                database.execute("COMMIT")

        figures = _measured(commit_all, runs)
        database.close()
        return figures


def _measured(run: Callable[[], object], runs: int) -> Figures:
    for _ in range(20):
        run()
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        took.append((time.perf_counter() - began) * 1e6)
    mean = sum(took) / len(took)
    took.sort()
    return {"mean_us": mean, "p50_us": percentile(took, 0.5), "p99_us": percentile(took, 0.99)}


if __name__ == "__main__":
    contestants = {"cloaca": run_cloaca, "floor": run_floor}
    run_contestant(contestants, tasks=int, durability=str, runs=int)
