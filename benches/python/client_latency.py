"""How long it takes from a submit in one process to the first line of the task in another, and back again.

The run is kept on disk in between. Both processes read one monotonic clock.
"""

import subprocess
import sys
import time
from pathlib import Path

from common import Figures, folder_on_disk, percentile, run_contestant

import cloaca

WORKER = """
import sys, time
import cloaca

with cloaca.WorkflowBuilder("note"):
    @cloaca.task()
    def note(context):
        context["began"] = time.monotonic_ns()

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    print("ready", flush=True)
    sys.stdin.readline()
"""
KNOWN_SECONDS = 30.0


def run_cloaca(runs: int) -> Figures:
    """One after another, with a pause, as requests come."""
    began_ms: list[float] = []
    known_ms: list[float] = []
    with folder_on_disk() as folder:
        file = Path(folder) / "runs.db"
        pipe = subprocess.PIPE
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(file)], stdin=pipe, stdout=pipe, text=True
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        with cloaca.DefaultRunner(file, work=False) as client:
            deadline = time.monotonic() + KNOWN_SECONDS
            while not client.list_runs("note"):
                try:
                    client.submit("note", {})
                except cloaca.WorkflowError:
                    assert time.monotonic() < deadline, "the worker does not come"
                    time.sleep(0.01)
            for number in range(runs):
                asked = time.monotonic_ns()
                result = client.execute("note", {"number": number}, timeout=KNOWN_SECONDS)
                known_ms.append((time.monotonic_ns() - asked) / 1e6)
                began_ms.append((result.final_context["began"] - asked) / 1e6)
                time.sleep(0.005)
        worker.stdin.close()
        worker.wait()
    began, known = sorted(began_ms), sorted(known_ms)
    return {
        "began_p50_ms": percentile(began, 0.5),
        "began_p99_ms": percentile(began, 0.99),
        "known_p50_ms": percentile(known, 0.5),
        "known_p99_ms": percentile(known, 0.99),
    }


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, runs=int)
