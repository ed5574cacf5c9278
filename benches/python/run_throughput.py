"""How many one-task runs a second are kept, with 64 in flight."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from common import Figures, folder_on_disk, run_contestant
from workflows import (
    CONTEXT,
    GROUP,
    RUN,
    TASK,
    bare_database,
    declare_one,
    run_row,
    runner_on,
    task_row,
)

IN_FLIGHT = 64


def run_cloaca(runs: int) -> Figures:
    """64 threads, each of which waits for its run before it starts the next."""
    declare_one()
    with folder_on_disk() as folder, runner_on(Path(folder) / "runs.db", "full") as runner:
        return _measured(runs, lambda share: [runner.execute("one", CONTEXT) for _ in range(share)])


def run_submit(runs: int) -> Figures:
    """64 threads, each of which starts its runs, every one kept before the next, and then waits."""
    declare_one()

    def submit_and_wait(share: int) -> None:
        for run in [runner.submit("one", CONTEXT) for _ in range(share)]:
            run.result()

    with folder_on_disk() as folder, runner_on(Path(folder) / "runs.db", "full") as runner:
        return _measured(runs, submit_and_wait)


def run_submit_many(runs: int) -> Figures:
    """One thread, 1,000 runs started at a time, the next as soon as these are kept."""
    declare_one()
    with folder_on_disk() as folder, runner_on(Path(folder) / "runs.db", "full") as runner:
        began = time.perf_counter()
        started = []
        for first in range(0, runs, 1000):
            started += runner.submit_many("one", [CONTEXT] * min(1000, runs - first))
        for run in started:
            run.result()
        return {"per_second": runs / (time.perf_counter() - began)}


def run_floor(runs: int) -> Figures:
    """Bare inserts of a run and its task, 100 of each to a commit; nothing is decided or called."""
    with folder_on_disk() as folder:
        database = bare_database(Path(folder) / "bare.db", "full")
        began = time.perf_counter()
        for first in range(1, runs + 1, GROUP):
            database.execute("BEGIN IMMEDIATE")
            database.executemany(RUN, [run_row() for _ in range(GROUP)])
            database.executemany(TASK, [task_row(run) for run in range(first, first + GROUP)])
            database.execute("COMMIT")
        took = time.perf_counter() - began
        database.close()
        return {"per_second": runs / took}


def run_huey(runs: int) -> Figures:
    """Huey over SQLite, with `fsync`: four worker threads, all tasks enqueued at once."""
    from huey import SqliteHuey

    logging.disable(logging.CRITICAL)
    with folder_on_disk() as folder:
        huey = SqliteHuey(filename=str(Path(folder) / "huey.db"), fsync=True)

        @huey.task()
        def load(context: dict[str, object]) -> dict[str, object]:
            return context | {"rows": 99}

        consumer = huey.create_consumer(workers=4, worker_type="thread", initial_delay=0.001, max_delay=0.001)
        consumer.start()
        began = time.perf_counter()
        for result in [load(CONTEXT) for _ in range(runs)]:
            result.get(blocking=True, backoff=1, max_delay=0.001)
        took = time.perf_counter() - began
        consumer.stop(graceful=True)
        return {"per_second": runs / took}


def run_dbos(runs: int) -> Figures:
    """DBOS over SQLite: a workflow of one step."""
    from dbos import DBOS

    logging.disable(logging.CRITICAL)
    with folder_on_disk() as folder:
        url = f"sqlite:///{folder}/dbos.sqlite"
        DBOS(config={"name": "bench", "system_database_url": url, "run_admin_server": False})

        @DBOS.step()
        def load(context: dict[str, object]) -> dict[str, object]:
            return context | {"rows": 99}

        @DBOS.workflow()
        def one(context: dict[str, object]) -> dict[str, object]:
            return load(context)

        DBOS.launch()
        one(CONTEXT)
        figures = _measured(runs, lambda share: [one(CONTEXT) for _ in range(share)])
        DBOS.destroy()
        return figures


def _measured(runs: int, run_share: Callable[[int], object]) -> Figures:
    share = max(1, runs // IN_FLIGHT)
    threads = [threading.Thread(target=run_share, args=(share,)) for _ in range(IN_FLIGHT)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"per_second": share * IN_FLIGHT / (time.perf_counter() - began)}


if __name__ == "__main__":
    contestants = {
        "cloaca": run_cloaca,
        "submit": run_submit,
        "submit_many": run_submit_many,
        "floor": run_floor,
        "huey": run_huey,
        "dbos": run_dbos,
    }
    run_contestant(contestants, runs=int)
