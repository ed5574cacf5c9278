"""How many polls a second, with triggers that are always due: as fast as it goes."""

import itertools
import logging
import time
from collections.abc import Callable

from common import Figures, declare, run_contestant, skip_bodies, wait_until
from loops import heap_loop, timer_loop

import cloaca


def run_cloaca(triggers: int, interval_ms: float, seconds: float) -> Figures:
    """A runner with these triggers."""
    declare(skip_bodies(triggers), interval_ms / 1000)
    with cloaca.DefaultRunner(":memory:") as runner:

        def polls() -> int:
            return int(runner.stats()["polls"])

        # Not before each was polled a few times: until then rows are still being written.
        wait_until(lambda: polls() > 3 * triggers)
        time.sleep(0.2)
        return _rate(polls, triggers, interval_ms, lambda: time.sleep(seconds))


def run_floor(triggers: int, interval_ms: float, seconds: float) -> Figures:
    """A bare loop that calls the same bodies: what can't be beaten from Python."""
    bodies = skip_bodies(triggers)
    rounds = 0

    def call_all() -> None:
        nonlocal rounds
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            for _ in range(max(1, 10_000 // triggers)):
                for body in bodies:
                    body()
                rounds += 1

    return _rate(lambda: rounds * triggers, triggers, interval_ms, call_all)


def run_heapq(triggers: int, interval_ms: float, seconds: float) -> Figures:
    """A hand-written loop over `heapq`."""
    return _loop(heap_loop, triggers, interval_ms, seconds)


def run_call_later(triggers: int, interval_ms: float, seconds: float) -> Figures:
    """asyncio's timers."""
    return _loop(timer_loop, triggers, interval_ms, seconds)


def run_uvloop(triggers: int, interval_ms: float, seconds: float) -> Figures:
    """uvloop's timers."""
    import uvloop

    def loop(*arguments: object) -> int:
        return timer_loop(*arguments, make_loop=uvloop.new_event_loop)  # type: ignore[arg-type]

    return _loop(loop, triggers, interval_ms, seconds)


def run_apscheduler(triggers: int, interval_ms: float, seconds: float) -> Figures:
    """APScheduler 3 with its store in memory and its own pool of threads."""
    from apscheduler.schedulers.background import BackgroundScheduler

    logging.disable(logging.CRITICAL)
    polls = itertools.count()

    def counted(body: Callable[[], object]) -> Callable[[], object]:
        def job() -> object:
            next(polls)
            return body()

        return job

    scheduler = BackgroundScheduler(
        timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    )
    for body in skip_bodies(triggers):
        scheduler.add_job(counted(body), "interval", seconds=interval_ms / 1000)
    scheduler.start()
    figures = _rate(lambda: polls.__reduce__()[1][0], triggers, interval_ms, lambda: time.sleep(seconds))
    scheduler.shutdown(wait=False)
    return figures


def _loop(loop: Callable[..., int], triggers: int, interval_ms: float, seconds: float) -> Figures:
    bodies = skip_bodies(triggers)
    polls = 0

    def run() -> None:
        nonlocal polls
        start_ns = time.perf_counter_ns()
        polls = loop(bodies, int(interval_ms * 1e6), start_ns, start_ns + int(seconds * 1e9))

    return _rate(lambda: polls, triggers, interval_ms, run)


def _rate(
    polls: Callable[[], int], triggers: int, interval_ms: float, pass_time: Callable[[], None]
) -> Figures:
    polls_before, began, cpu_before = polls(), time.perf_counter(), time.process_time()
    pass_time()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_before
    per_second = (polls() - polls_before) / took
    offered = triggers / interval_ms * 1000
    return {"per_second": per_second, "kept_up": per_second / offered, "core": cpu / took}


if __name__ == "__main__":
    run_contestant(
        {
            "cloaca": run_cloaca,
            "floor": run_floor,
            "heapq": run_heapq,
            "call_later": run_call_later,
            "uvloop": run_uvloop,
            "apscheduler": run_apscheduler,
        },
        triggers=int,
        interval_ms=float,
        seconds=float,
    )
