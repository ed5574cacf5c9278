"""What clients cost that wait for nothing, made by `DefaultRunner(url, work=False)`, beside a runner."""

import contextlib
import os
import time
import warnings
from pathlib import Path

from common import Figures, folder_on_disk, resident_bytes, run_contestant

import cloaca


def run_cloaca(clients: int, seconds: float) -> Figures:
    """As many clients on one store, in one process."""
    warnings.simplefilter("ignore", UserWarning)  # that they share a store is the point
    with folder_on_disk() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "runs.db"
        stack.enter_context(cloaca.DefaultRunner(path))
        before = resident_bytes()
        for _ in range(clients):
            stack.enter_context(cloaca.DefaultRunner(path, work=False))
        time.sleep(1)
        grown = resident_bytes() - before
        cpu, began = time.process_time(), time.perf_counter()
        time.sleep(seconds)
        core = (time.process_time() - cpu) / (time.perf_counter() - began)
        threads = len(os.listdir("/proc/self/task"))
        return {"core_percent": core * 100, "bytes_each": grown / clients, "threads": threads}


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, clients=int, seconds=float)
