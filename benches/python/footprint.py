"""What it costs to have a package: its import, its memory over bare Python, its wheel."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from common import Figures, run_contestant

SCRIPT = """
import time
def held():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
before, began = held(), time.perf_counter()
{statement}
took = time.perf_counter() - began
print(took * 1000, (held() - before) / 1024)
"""
LINE = [sys.executable, "-m", "cloaca", "ls", "--database"]
OPEN = "import cloaca; runner = cloaca.DefaultRunner(':memory:')"


def run_import(statement: str, times: int, wheels: str) -> Figures:
    """One import in fresh processes."""
    command = [sys.executable, "-c", SCRIPT.format(statement=statement)]
    # An installed package is compiled already, whatever is set here.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=env)  # compiles, and fills the page cache
    answers = [
        subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.split()
        for _ in range(times)
    ]
    milliseconds, mebibytes = zip(*((float(ms), float(mib)) for ms, mib in answers), strict=True)
    return {"import_ms": median(milliseconds), "memory_mib": median(mebibytes)}


def run_cloaca(times: int, wheels: str) -> Figures:
    """The package, a runner with its threads over `:memory:`, and the newest wheel of that folder."""
    figures = run_import("import cloaca", times, wheels)
    opened = run_import(OPEN, times, wheels)
    figures |= {"runner_ms": opened["import_ms"], "runner_mib": opened["memory_mib"]}
    figures["ls_ms"] = _line(times)
    found = sorted(Path(wheels).glob("cloaca-*.whl"), key=lambda path: path.stat().st_mtime)
    return figures | ({"wheel_mb": found[-1].stat().st_size / 1e6} if found else {})


def _line(times: int) -> float:
    """A line of the command, from its start to its end."""
    import cloaca

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "runs.db")
        cloaca.DefaultRunner(path).shutdown()
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        spans = []
        for _ in range(times + 1):
            began = time.perf_counter()
            subprocess.run([*LINE, path], check=True, capture_output=True, env=env)
            spans.append((time.perf_counter() - began) * 1000)
    # The first one compiles.
    return median(spans[1:])


def _contestants() -> dict[str, Callable[..., Figures]]:
    imports = {
        "asyncio": "import asyncio",
        "apscheduler": "from apscheduler.schedulers.background import BackgroundScheduler",
        "huey": "from huey import SqliteHuey",
        "dbos": "import dbos",
    }
    contestants: dict[str, Callable[..., Figures]] = {"cloaca": run_cloaca}
    return contestants | {name: partial(run_import, statement) for name, statement in imports.items()}


if __name__ == "__main__":
    run_contestant(_contestants(), times=int, wheels=str)
