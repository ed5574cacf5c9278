"""What triggers cost that are hardly ever due: the share of a core, in per cent."""

import logging
import threading
import time
from collections.abc import Callable

from common import Figures, declare, run_contestant, skip_bodies, wait_until
from loops import heap_loop, timer_loop

import cloaca


def run_cloaca(triggers: int, interval_s: float, seconds: float) -> Figures:
    """A runner with these triggers, from their first polls on."""
    declare(skip_bodies(triggers), interval_s)
    with cloaca.DefaultRunner(":memory:") as runner:
        # None is due before one interval has passed: until then it would be idler than it ever is again.
        wait_until(lambda: runner.stats()["polls"] > 0)
        polls = runner.stats()["polls"]
        figures = _watch(seconds)
        return figures | {"polls": runner.stats()["polls"] - polls}


def run_heapq(triggers: int, interval_s: float, seconds: float) -> Figures:
    """A hand-written loop over `heapq`."""
    return _loop(heap_loop, triggers, interval_s, seconds)


def run_call_later(triggers: int, interval_s: float, seconds: float) -> Figures:
    """asyncio's timers."""
    return _loop(timer_loop, triggers, interval_s, seconds)


def run_apscheduler(triggers: int, interval_s: float, seconds: float) -> Figures:
    """APScheduler 3 with its store in memory, its jobs spread over the interval."""
    from datetime import UTC, datetime, timedelta

    from apscheduler.schedulers.background import BackgroundScheduler

    logging.disable(logging.CRITICAL)
    scheduler = BackgroundScheduler(timezone="UTC")
    now = datetime.now(UTC)
    for number, body in enumerate(skip_bodies(triggers)):
        first = now + timedelta(seconds=2 + interval_s * number / triggers)
        scheduler.add_job(body, "interval", seconds=interval_s, next_run_time=first)
    scheduler.start()
    time.sleep(3)
    figures = _watch(seconds)
    scheduler.shutdown(wait=False)
    return figures


def _loop(loop: Callable[..., int], triggers: int, interval_s: float, seconds: float) -> Figures:
    start_ns = time.perf_counter_ns()
    until_ns = start_ns + int((seconds + 1.5) * 1e9)
    polls = (skip_bodies(triggers), int(interval_s * 1e9), start_ns, until_ns)
    thread = threading.Thread(target=loop, args=polls)
    thread.start()
    time.sleep(1)
    figures = _watch(seconds)
    thread.join()
    return figures


def _watch(seconds: float) -> Figures:
    cpu, began = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return {"core_percent": (time.process_time() - cpu) / (time.perf_counter() - began) * 100}


if __name__ == "__main__":
    run_contestant(
        {
            "cloaca": run_cloaca,
            "heapq": run_heapq,
            "call_later": run_call_later,
            "apscheduler": run_apscheduler,
        },
        triggers=int,
        interval_s=float,
        seconds=float,
    )
