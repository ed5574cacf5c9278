"""How soon triggers are where they are to be when runners come and go, and how long nobody polls one then.

Four processes come, each when the one before has its share; then one is killed. Each declares all triggers.
"""

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common import Figures, folder_on_disk, run_contestant

RUNNERS = 4
FAR_OFF = 0.15
"""So far from its share a runner may be."""
PATIENCE_S = 60.0

WATCHER = """
import sys
import cloaca

with cloaca.WorkflowBuilder("note"):
    @cloaca.task()
    def note(context):
        pass

for number in range(int(sys.argv[2])):
    cloaca.trigger(workflow="note", name=f"trigger-{number}", poll_interval="1s")(cloaca.TriggerResult.skip)

with cloaca.DefaultRunner(sys.argv[1]):
    print(flush=True)
    sys.stdin.readline()
"""
SHARES = """
    SELECT epoch, count(*) FROM schedules LEFT JOIN owners ON epoch = owner AND left_at IS NULL GROUP BY epoch
"""
FREE = "SELECT min(free_since) FROM schedules WHERE owner IS NULL"


@contextlib.contextmanager
def watcher(file: Path, triggers: int) -> Iterator[subprocess.Popen[str]]:
    """A process that polls its share, once it has joined."""
    command = [sys.executable, "-c", WATCHER, str(file), str(triggers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def settle(store: sqlite3.Connection, runners: int, triggers: int) -> tuple[float, float]:
    """After how long each has its share, and how long at most one trigger was nobody's, in milliseconds."""
    began, free_ms = time.time(), 0.0
    share = triggers / runners
    while time.time() - began < PATIENCE_S:
        if since := store.execute(FREE).fetchone()[0]:
            free_ms = max(free_ms, time.time() * 1e3 - since / 1e3)
        shares = dict(store.execute(SHARES).fetchall())
        is_spread = all(abs(has - share) <= FAR_OFF * share for has in shares.values())
        if is_spread and len(shares) == runners and None not in shares:
            return (time.time() - began) * 1e3, free_ms
        time.sleep(0.005)
    sys.exit(f"not so after {PATIENCE_S:g} s: {shares}")


def spread(triggers: int) -> Figures:
    """Joins one after another, and a kill."""
    joins, free = [], []
    with folder_on_disk() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "runs.db"
        first = stack.enter_context(watcher(file, triggers))
        store = stack.enter_context(contextlib.closing(sqlite3.connect(file, isolation_level=None)))
        settle(store, 1, triggers)
        for runners in range(2, RUNNERS + 1):
            stack.enter_context(watcher(file, triggers))
            took_ms, free_ms = settle(store, runners, triggers)
            joins.append(took_ms)
            free.append(free_ms)
        first.kill()
        took_ms, _ = settle(store, RUNNERS - 1, triggers)
    return {"join_ms": max(joins), "free_ms": max(free), "kill_ms": took_ms}


if __name__ == "__main__":
    run_contestant({"cloaca": spread}, triggers=int)
