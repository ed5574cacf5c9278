"""What it costs that a program may be traced, where it is not: a submit as it is, and one that does not even
look whether anybody traces it, in blocks by turns; and how often quiet polls look. The API of OpenTelemetry
is there, and no provider.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import opentelemetry.trace  # noqa: F401
from common import Figures, declare, folder_on_disk, percentile, run_contestant, skip_bodies, wait_until
from workflows import CONTEXT, declare_one

import cloaca
from cloaca import tracing

BLOCK = 200
POLLS = 100_000

Active = Callable[[], object]


def run_submits(submits: int) -> Figures:
    """`submit` of runs that are to begin in an hour, from one thread, so many of either kind."""
    declare_one()
    declare(skip_bodies(10), 0.001)
    as_it_is = tracing.active
    looks = 0

    def counted() -> object:
        nonlocal looks
        # Who keeps the runner looks each second, whatever is polled.
        looks += threading.current_thread().name.startswith("cloaca-poller")
        return as_it_is()

    took: dict[str, list[float]] = {"submit": [], "bare": []}
    with folder_on_disk() as folder, cloaca.DefaultRunner(Path(folder) / "runs.db") as runner:
        set_active(counted)
        begun = int(runner.stats()["polls"])
        wait_until(lambda: int(runner.stats()["polls"]) - begun > POLLS)
        polls, looked = int(runner.stats()["polls"]) - begun, looks
        ways: dict[str, Active] = {"submit": as_it_is, "bare": lambda: None}
        while len(took["bare"]) < submits:
            for way, active in ways.items():
                set_active(active)
                for _ in range(min(BLOCK, submits)):
                    began = time.perf_counter()
                    runner.submit("one", CONTEXT, delay="1h")
                    took[way].append((time.perf_counter() - began) * 1e6)
        set_active(as_it_is)
        began = time.thread_time()
        for _ in range(1_000_000):
            as_it_is()
        look_us = time.thread_time() - began
    figures: Figures = {"looks_a_poll": looked / polls, "look_us": look_us}
    for way, each in took.items():
        figures[f"{way}_p50_us"] = percentile(sorted(each), 0.5)
    figures["cost_us"] = figures["submit_p50_us"] - figures["bare_p50_us"]
    return figures


def set_active(active: Active) -> None:
    """What is asked whether anybody traces."""
    tracing.active = active  # type: ignore[assignment]


if __name__ == "__main__":
    run_contestant({"submits": run_submits}, submits=int)
