"""What the workloads share: bodies, clocks, percentiles, and one line of JSON as their answer."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cloaca

Body = Callable[[], cloaca.TriggerResult]
Figures = dict[str, float]


def skip_bodies(count: int) -> list[Body]:
    """As many functions, each an object of its own, that say there is nothing to do."""

    def made() -> Body:
        def body():
            return cloaca.TriggerResult.skip()

        return body

    return [made() for _ in range(count)]


def declare(bodies: Sequence[Body], interval_s: float) -> list[int]:
    """Declares them as triggers; returns when each was, in nanoseconds."""
    moments = []
    for number, body in enumerate(bodies):
        moments.append(time.perf_counter_ns())
        cloaca.trigger(name=f"trigger-{number}", poll_interval=interval_s)(body)
    return moments


def wait_until(is_so: Callable[[], bool], patience_s: float = 300.0) -> None:
    """Looks now and then until it is so."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"not so after {patience_s:g} s")
        time.sleep(0.01)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of an ascending sequence doesn't exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def folder_on_disk() -> tempfile.TemporaryDirectory[str]:
    """A folder that is no memory file system where there is a choice: `fsync` has to cost what it costs."""
    place = Path("/var/tmp")
    return tempfile.TemporaryDirectory(prefix="cloaca-bench-", dir=place if place.is_dir() else None)


def resident_bytes() -> int:
    """How much memory this process holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def run_contestant(contestants: dict[str, Callable[..., Figures]], **options: type) -> None:
    """Runs the contestant that the command line names, with its options, and prints its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=contestants)
    for name, kind in options.items():
        parser.add_argument("--" + name.replace("_", "-"), type=kind, required=True)
    arguments: dict[str, Any] = vars(parser.parse_args())
    figures = contestants[arguments.pop("contestant")](**arguments)
    print(json.dumps(figures))
