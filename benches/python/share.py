"""How fast one, two and four processes drain what was submitted, how evenly, and when a late one helps.

The bodies are empty; whoever comes to a backlog comes to bodies of 20 ms.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common import Figures, folder_on_disk, run_contestant, wait_until

import cloaca

WORKER = """
import os, sys, time
import cloaca

with cloaca.WorkflowBuilder("note"):
    @cloaca.task()
    def note(context):
        if context.get("seconds"):
            time.sleep(context["seconds"])
        context["by"] = os.getpid()

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    print(time.time_ns(), flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def worker(file: Path) -> Iterator[int]:
    """A process that works on the file; when its runner was there."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(file)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()


def drained(client: cloaca.DefaultRunner) -> bool:
    """Whether every run is over."""
    return not client.query("SELECT 1 FROM runs WHERE completed_at IS NULL LIMIT 1")


def drain(workers: int, runs: int) -> Figures:
    """All of them begin with the first run in the store."""
    with folder_on_disk() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "runs.db"
        for _ in range(workers):
            stack.enter_context(worker(file))
        client = stack.enter_context(cloaca.DefaultRunner(file, work=False))
        wait_until(lambda: len(client.list_runners()) == workers + 1)
        client.submit_many("note", [{} for _ in range(runs)])
        wait_until(lambda: drained(client))
        [span] = client.query("SELECT max(completed_at) - min(created_at) AS us FROM runs")
        contexts = client.query("SELECT final_context FROM runs")
        by = Counter(json.loads(row["final_context"])["by"] for row in contexts)
    return {
        "per_second": runs / span["us"] * 1e6,
        "largest_share": max(by.values()) / min(by.values()) if len(by) == workers else float(runs),
    }


def late(runs: int) -> Figures:
    """A second process comes to a backlog that the first one has in hand."""
    with folder_on_disk() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "runs.db"
        stack.enter_context(worker(file))
        client = stack.enter_context(cloaca.DefaultRunner(file, work=False))
        wait_until(lambda: len(client.list_runners()) == 2)
        client.submit_many("note", [{"seconds": 0.02} for _ in range(runs)])
        time.sleep(0.2)
        came_ns = stack.enter_context(worker(file))
        wait_until(lambda: drained(client))
        newest = max(runner["number"] for runner in client.list_runners() if runner["works"])
        sql = "SELECT min(t.started_at) AS us FROM tasks t JOIN runs r ON r.row = t.run WHERE r.owner = ?"
        [first] = client.query(sql, [newest])
    return {"helps_ms": first["us"] / 1e3 - came_ns / 1e6}


if __name__ == "__main__":
    run_contestant(
        {
            "one": lambda runs: drain(1, runs),
            "two": lambda runs: drain(2, runs),
            "four": lambda runs: drain(4, runs),
            "late": lambda runs: late(max(400, runs // 40)),
        },
        runs=int,
    )
