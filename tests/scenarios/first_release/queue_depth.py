"""A queue-depth trigger on a real queue: while enough jobs wait, each poll starts one more run.

The queue is a SQLite file of its own, filled by another process. (The runner's own file may not be opened by
`sqlite3` in the runner's process; `runner.query` reads that one.)

Run it: python examples/queue_depth.py
"""

import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import cloaca

JOBS = 20
BATCH = 5


def fill(queue: Path) -> None:
    """Put all jobs into the queue, in one transaction."""
    with closing(sqlite3.connect(queue)) as connection, connection:
        connection.executemany("INSERT INTO job (taken) VALUES (?)", [(0,)] * JOBS)


def take(queue: Path) -> list[int]:
    """Take at most a batch of jobs; no two callers ever get the same one."""
    with closing(sqlite3.connect(queue, timeout=30)) as connection, connection:
        rows = connection.execute(
            "UPDATE job SET taken = 1"
            " WHERE id IN (SELECT id FROM job WHERE NOT taken ORDER BY id LIMIT ?) RETURNING id",
            (BATCH,),
        ).fetchall()
    return sorted(row[0] for row in rows)


def depth(queue: Path) -> int:
    """How many jobs wait."""
    with closing(sqlite3.connect(queue, timeout=30)) as connection:
        waiting: int = connection.execute("SELECT count(*) FROM job WHERE NOT taken").fetchone()[0]
    return waiting


def main() -> int:
    """Work off a queue that another process fills."""
    with tempfile.TemporaryDirectory() as folder:
        queue = Path(folder) / "queue.db"
        with closing(sqlite3.connect(queue)) as connection, connection:
            connection.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, taken INTEGER NOT NULL)")

        done: list[int] = []
        all_done = threading.Event()
        # Each batch waits here for another one: only runs that overlap get through.
        pair = threading.Barrier(2, timeout=20)

        with cloaca.WorkflowBuilder("work_off") as builder:
            builder.description("Takes a batch of jobs from the queue and does them")

            @cloaca.task(retry_attempts=1)
            def do_batch(context: cloaca.Context) -> None:
                batch = take(queue)
                if not batch:
                    return  # the runs before this one took the last jobs
                pair.wait()
                done.extend(batch)
                if len(done) == JOBS:
                    all_done.set()

        @cloaca.trigger(workflow="work_off", poll_interval="20ms", allow_concurrent=True)
        def queue_depth() -> cloaca.TriggerResult:
            if depth(queue) < BATCH:
                return cloaca.TriggerResult.skip()
            # The context is the same each time; `allow_concurrent=True` starts a run none the less.
            return cloaca.TriggerResult.fire(cloaca.Context({"queue": "jobs"}))

        with cloaca.DefaultRunner(str(Path(folder) / "runs.db")) as runner:
            subprocess.run([sys.executable, __file__, "--fill", str(queue)], check=True)
            in_time = all_done.wait(timeout=30)
            runs = len(runner.get_trigger_execution_history("queue_depth"))

        print(f"jobs done: {len(done)}")
        print(f"each once: {sorted(done) == list(range(1, JOBS + 1))}")
        print(f"runs with equal contexts overlapped: {in_time and runs >= JOBS // BATCH}")
        return 0 if in_time else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        fill(Path(sys.argv[2]))
    else:
        sys.exit(main())
