"""How soon after a kill the first of many unfinished runs goes on."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import Figures, folder_on_disk, run_contestant, wait_until
from workflows import CONTEXT, runner_on

import cloaca

FEEDERS = 32


def run_cloaca(runs: int) -> Figures:
    """Makes them in a process that is killed, and takes them over here."""
    begun = threading.Event()
    moments: list[float] = []

    def note() -> None:
        moments.append(time.perf_counter())
        begun.set()
        threading.Event().wait()

    _declare(note)
    with folder_on_disk() as folder:
        path = Path(folder) / "runs.db"
        subprocess.run([sys.executable, __file__, "killed", "--runs", str(runs), str(path)], check=False)
        began = time.perf_counter()
        runner = runner_on(path, "full")
        opened = time.perf_counter()
        begun.wait(60)
        figures = {"first_task_ms": (moments[0] - began) * 1000, "open_ms": (opened - began) * 1000}
        wait_until(lambda: runner.stats()["runs_unfinished"] >= runs)
        figures["all_in_hand_ms"] = (time.perf_counter() - began) * 1000
        print_and_leave(figures, folder)
    return figures


def print_and_leave(figures: Figures, folder: str) -> None:
    """The runs that were taken over are of no more use: leaves without waiting for them. The runner that
    still lives may put a file into the folder while that is deleted.
    """
    import json

    print(json.dumps(figures), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _declare(note: object) -> None:
    with cloaca.WorkflowBuilder("one"):

        @cloaca.task()
        def load(context: cloaca.Context) -> None:
            note()  # type: ignore[operator]


def be_killed(runs: int, path: Path) -> None:
    """Starts runs that never end, and dies when all are kept."""
    _declare(threading.Event().wait)
    runner = runner_on(path, "full")

    def feed() -> None:
        for _ in range(runs // FEEDERS):
            runner.submit("one", CONTEXT)

    threads = [threading.Thread(target=feed) for _ in range(FEEDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(runs % FEEDERS):
        runner.submit("one", CONTEXT)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "killed":
        be_killed(int(sys.argv[3]), Path(sys.argv[4]))
    run_contestant({"cloaca": run_cloaca}, runs=int)
