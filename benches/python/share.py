"""How fast one, two and four processes drain what was submitted, how evenly, and when a late one helps.

The bodies are empty, and claims as large as the runner makes them, or of 8; whoever comes to a backlog, or is
idle beside one, has bodies of 20 ms. Who is killed has a thousand runs at work.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common import Figures, folder_on_disk, percentile, run_contestant, wait_until

import cloaca

WORKER = """
import json, os, sys, time
import cloaca

with cloaca.WorkflowBuilder("note"):
    @cloaca.task()
    def note(context):
        if context.get("seconds"):
            time.sleep(context["seconds"])
        context["by"] = os.getpid()

with cloaca.WorkflowBuilder("long"):
    @cloaca.task()
    def long(context, handle):
        if handle.attempt == 1:
            time.sleep(3600)
        context["again"] = time.time()

settings = cloaca.DefaultRunnerConfig(**json.loads(sys.argv[2]))
with cloaca.DefaultRunner.with_config(sys.argv[1], settings) as runner:
    print(time.time_ns(), flush=True)
    sys.stdin.readline()
"""
BODIES = """
    SELECT owner, tasks.started_at AS began, tasks.completed_at AS ended FROM tasks JOIN runs ON row = run
"""
KILLED = 1_000
"""So many runs are in the hands of who is killed."""


@contextlib.contextmanager
def worker(file: Path, **settings: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """When its runner was there, and the process that works on the file."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WORKER, str(file), json.dumps(settings)]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process
    finally:
        process.stdin.close()
        process.wait()


def drained(client: cloaca.DefaultRunner) -> bool:
    """Whether every run is over."""
    return not client.query("SELECT 1 FROM runs WHERE completed_at IS NULL LIMIT 1")


def drain(workers: int, runs: int, **settings: object) -> Figures:
    """All of them begin with the first run in the store."""
    with folder_on_disk() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "runs.db"
        for _ in range(workers):
            stack.enter_context(worker(file, **settings))
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
        came_ns, _ = stack.enter_context(worker(file))
        wait_until(lambda: drained(client))
        newest = max(runner["number"] for runner in client.list_runners() if runner["works"])
        sql = "SELECT min(t.started_at) AS us FROM tasks t JOIN runs r ON r.row = t.run WHERE r.owner = ?"
        [first] = client.query(sql, [newest])
    return {"helps_ms": first["us"] / 1e3 - came_ns / 1e6}


def idle(runs: int) -> Figures:
    """How long a permit of two processes lies idle between two bodies while there is a backlog."""
    with folder_on_disk() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "runs.db"
        for _ in range(2):
            stack.enter_context(worker(file, max_concurrent_tasks=1))
        client = stack.enter_context(cloaca.DefaultRunner(file, work=False))
        wait_until(lambda: len(client.list_runners()) == 3)
        client.submit_many("note", [{"seconds": 0.02} for _ in range(runs)])
        wait_until(lambda: drained(client))
        bodies = client.query(BODIES)
    gaps = []
    lasts = []
    for owner in {body["owner"] for body in bodies}:
        own = sorted((body["began"], body["ended"]) for body in bodies if body["owner"] == owner)
        gaps += [(after[0] - before[1]) / 1e3 for before, after in itertools.pairwise(own)]
        lasts.append(own[-1][1])
    # Who has nothing left while the other one has its last ones.
    gaps.append((max(lasts) - min(lasts)) / 1e3)
    gaps.sort()
    return {"idle_p99_ms": percentile(gaps, 0.99), "idle_max_ms": gaps[-1]}


def killed(runs: int) -> Figures:
    """From the death of who has a thousand in hand to the first attempt of one of them in another process."""
    with folder_on_disk() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "runs.db"
        _, victim = stack.enter_context(worker(file, max_concurrent_tasks=KILLED))
        client = stack.enter_context(cloaca.DefaultRunner(file, work=False))
        wait_until(lambda: len(client.list_runners()) == 2)
        client.submit_many("long", [{} for _ in range(KILLED)])
        begun = "SELECT count(*) AS many FROM tasks"
        wait_until(lambda: client.query(begun)[0]["many"] == KILLED)
        stack.enter_context(worker(file))
        victim.kill()
        died = time.time()
        wait_until(lambda: drained(client))
        first = min(
            json.loads(row["final_context"])["again"]
            for row in client.query("SELECT final_context FROM runs")
        )
    return {"taken_ms": (first - died) * 1e3}


if __name__ == "__main__":
    run_contestant(
        {
            "one": lambda runs: drain(1, runs),
            "two": lambda runs: drain(2, runs),
            "four": lambda runs: drain(4, runs),
            "one-8": lambda runs: drain(1, runs, runs_in_hand=8),
            "two-8": lambda runs: drain(2, runs, runs_in_hand=8),
            "four-8": lambda runs: drain(4, runs, runs_in_hand=8),
            "idle": lambda runs: idle(max(100, runs // 20)),
            "killed": lambda runs: killed(runs),
            "late": lambda runs: late(max(400, runs // 40)),
        },
        runs=int,
    )
