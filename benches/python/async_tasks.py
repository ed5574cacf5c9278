"""Async tasks on the loop of the program: how many are in flight, how fast they run, what the loop feels."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from common import Figures, folder_on_disk, percentile, resident_bytes, run_contestant
from workflows import CONTEXT, declare_one

import cloaca

#: Of the heartbeat.
BEAT_S = 0.001
RUNS_PER_SECOND = 1_000
#: What a run takes of the loop's thread, about.
COMPUTE_S = 0.000_12


def _declare_async_one() -> None:
    with cloaca.WorkflowBuilder("async"):

        @cloaca.task()
        async def load(context: cloaca.Context) -> None:
            context["rows"] = 99


def run_sleepers(runs: int) -> Figures:
    """As many tasks that sleep for a second, all in flight together."""
    with cloaca.WorkflowBuilder("sleeps"):

        @cloaca.task()
        async def sleep(context: cloaca.Context) -> None:
            await asyncio.sleep(1)

    threads = 0

    async def count() -> None:
        nonlocal threads
        while True:
            threads = max(threads, threading.active_count())
            await asyncio.sleep(0.05)

    async def main(folder: str) -> Figures:
        async with cloaca.DefaultRunner(Path(folder) / "runs.db", max_async_tasks=runs) as runner:
            counting = asyncio.create_task(count())
            before, began, cpu = resident_bytes(), time.perf_counter(), time.process_time()
            started = await asyncio.to_thread(runner.submit_many, "sleeps", [CONTEXT] * runs)
            submitted = time.perf_counter() - began
            await asyncio.gather(*(run.wait() for run in started))
            all_s, after = time.perf_counter() - began, resident_bytes()
            counting.cancel()
            return {
                "all_s": all_s,
                "submit_s": submitted,
                "cpu_s": time.process_time() - cpu,
                "threads": threads,
                "bytes_each": (after - before) / runs,
            }

    with folder_on_disk() as folder:
        return asyncio.run(main(folder))


def _run_many(name: str, runs: int) -> Figures:
    with folder_on_disk() as folder, cloaca.DefaultRunner(Path(folder) / "runs.db") as runner:
        began, cpu = time.perf_counter(), time.process_time()
        started: list[cloaca.Run] = []
        for first in range(0, runs, 1000):
            started += runner.submit_many(name, [CONTEXT] * min(1000, runs - first))
        for run in started:
            run.result()
        return {
            "per_second": runs / (time.perf_counter() - began),
            "cpu_us_each": (time.process_time() - cpu) / runs * 1e6,
        }


def run_async(runs: int) -> Figures:
    """One-task runs whose task is async, 1,000 started at a time."""
    _declare_async_one()
    return _run_many("async", runs)


def run_sync(runs: int) -> Figures:
    """The same with an ordinary task, on threads."""
    declare_one()
    return _run_many("one", runs)


def run_execute(runs: int) -> Figures:
    """`execute`, one after another, of an ordinary task."""
    declare_one()
    with folder_on_disk() as folder, cloaca.DefaultRunner(Path(folder) / "runs.db") as runner:
        began = time.perf_counter()
        for _ in range(runs):
            runner.execute("one", CONTEXT)
        return {"each_ms": (time.perf_counter() - began) / runs * 1e3}


def _await_each(name: str, runs: int) -> Figures:
    async def main(folder: str) -> Figures:
        async with cloaca.DefaultRunner(Path(folder) / "runs.db") as runner:
            began = time.perf_counter()
            for _ in range(runs):
                await runner.execute_async(name, CONTEXT)
            return {"each_ms": (time.perf_counter() - began) / runs * 1e3}

    with folder_on_disk() as folder:
        return asyncio.run(main(folder))


def run_await_execute(runs: int) -> Figures:
    """`await execute_async`, one after another, of an async task."""
    _declare_async_one()
    return _await_each("async", runs)


def run_await_execute_sync(runs: int) -> Figures:
    """The same of an ordinary task."""
    declare_one()
    return _await_each("one", runs)


async def _beaten(runs: int, run: Callable[[], Awaitable[object]]) -> Figures:
    """How late a heartbeat on the loop is while 1,000 a second of these go through it."""
    late: list[float] = []

    async def beat() -> None:
        due = time.perf_counter()
        while True:
            due = max(due + BEAT_S, time.perf_counter() - BEAT_S)
            await asyncio.sleep(due - time.perf_counter())
            late.append((time.perf_counter() - due) * 1e3)

    beating = asyncio.create_task(beat())
    began = time.perf_counter()
    waits: list[asyncio.Future[object]] = []
    for number in range(runs):
        waits.append(asyncio.ensure_future(run()))
        pause = began + number / RUNS_PER_SECOND - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
    await asyncio.gather(*waits)
    per_second = runs / (time.perf_counter() - began)
    beating.cancel()
    ordered = sorted(late)
    return {
        "per_second": per_second,
        "p50_ms": percentile(ordered, 0.5),
        "p99_ms": percentile(ordered, 0.99),
    }


def run_heartbeat(runs: int) -> Figures:
    """Beside runs of an async task."""
    _declare_async_one()

    async def main(folder: str) -> Figures:
        async with cloaca.DefaultRunner(Path(folder) / "runs.db") as runner:
            return await _beaten(runs, lambda: runner.execute_async("async", CONTEXT))

    with folder_on_disk() as folder:
        return asyncio.run(main(folder))


def run_heartbeat_floor(runs: int) -> Figures:
    """Beside coroutines that do nothing but compute for as long as a run does."""

    async def compute() -> None:
        until = time.perf_counter() + COMPUTE_S
        while time.perf_counter() < until:
            pass

    return asyncio.run(_beaten(runs, compute))


if __name__ == "__main__":
    run_contestant(
        {
            "sleepers": run_sleepers,
            "async": run_async,
            "sync": run_sync,
            "execute": run_execute,
            "await-execute": run_await_execute,
            "await-execute-sync": run_await_execute_sync,
            "heartbeat": run_heartbeat,
            "heartbeat-floor": run_heartbeat_floor,
        },
        runs=int,
    )
