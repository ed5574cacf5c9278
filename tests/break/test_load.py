"""Much of everything: what each call costs then is bounded, and nothing starves. The bounds are generous,
against hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from attack import SECONDS, TIMES

import cloaca

QUEUED = 20_000 if TIMES == 1 else 100_000
CALL_SECONDS = 2.0
"""More than any call may take beside so many runs; each takes milliseconds."""


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ":memory:" if request.param == "memory" else f"sqlite://{tmp_path}/runs.db?durability=normal"


def timed(call: Callable[[], Any]) -> Any:
    started = monotonic()
    answer = call()
    took = monotonic() - started
    assert took < CALL_SECONDS, f"{took:.1f} s"
    return answer


@pytest.mark.timeout(SECONDS * 6)
def test_each_call_answers_in_bounded_time_beside_100000_queued_runs(url: str) -> None:
    gate, polled = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", retry_attempts=1)(lambda context: gate.wait() and None)
    with cloaca.WorkflowBuilder("quick"):
        cloaca.task(id="t", retry_attempts=1)(lambda context: None)

    @cloaca.trigger(workflow="quick", poll_interval="10ms")
    def watch() -> bool:
        polled.set()
        return False

    runner = cloaca.DefaultRunner.with_config(url, cloaca.DefaultRunnerConfig(max_concurrent_tasks=4))
    try:
        runs = []
        for first in range(0, QUEUED, 10_000):
            runs += runner.submit_many("w", [{"i": i} for i in range(first, first + 10_000)])
        for _ in range(3):
            timed(lambda: runner.why("watch"))
            timed(runner.list_runs)
            timed(lambda: runner.list_runs(offset=QUEUED - 50))
            timed(lambda: runner.list_runs(status="Pending"))
            timed(lambda: runner.list_runs(workflow="quick"))
            timed(lambda: runner.get_run(runs[QUEUED // 2].id))
            timed(lambda: runner.query("SELECT count(*) FROM runs"))
            timed(lambda: runner.tick("watch"))
            timed(lambda: runner.submit("quick"))
            timed(runner.stats)
            polled.clear()
            assert polled.wait(CALL_SECONDS), "polling starves"
        for run in (runs[-1], runs[QUEUED // 2], runs[10]):
            timed(lambda run=run: runner.cancel(run.id))
            assert timed(lambda run=run: run.result(CALL_SECONDS)).status == "Cancelled"
        gate.set()
        deadline = monotonic() + SECONDS * 5
        for run in runs:
            assert run.result(deadline - monotonic()).status in ("Completed", "Cancelled")
    finally:
        gate.set()
        runner.shutdown()


@pytest.mark.timeout(SECONDS * 4)
def test_calls_do_not_starve_under_a_load_that_never_ends(url: str) -> None:
    stop = threading.Event()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    cloaca.trigger(workflow="w", poll_interval="10ms", name="watch")(lambda: False)
    with cloaca.DefaultRunner(url) as runner:

        def load() -> None:
            while not stop.is_set():
                for run in runner.submit_many("w", [{"i": i} for i in range(200)]):
                    run.result(SECONDS)

        threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20 * TIMES):
                timed(lambda: runner.why("watch"))
                timed(lambda: runner.query("SELECT 1"))
                run = timed(lambda: runner.submit("w"))
                timed(lambda run=run: runner.cancel(run.id))
                assert timed(lambda run=run: run.result(SECONDS)).status in ("Completed", "Cancelled")
        finally:
            stop.set()
            for thread in threads:
                thread.join(SECONDS)


@pytest.mark.parametrize("count", [30, 60])
def test_trigger_bodies_that_hang_hold_up_no_other(count: int) -> None:
    """Against hangs only; by how much they are late is the benches' to say."""
    gate = threading.Event()
    entered: set[int] = set()
    polls = threading.Semaphore(0)

    def hang(number: int) -> None:
        @cloaca.trigger(poll_interval="10ms", name=f"hangs{number}")
        def hangs() -> bool:
            entered.add(number)
            gate.wait()
            return False

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    for number in range(count):
        hang(number)

    @cloaca.trigger(workflow="w", poll_interval="10ms")
    def healthy() -> bool:
        polls.release()
        return False

    runner = cloaca.DefaultRunner(":memory:")
    try:
        deadline = monotonic() + SECONDS
        while len(entered) < count:
            assert monotonic() < deadline, f"only {len(entered)} began"
            assert polls.acquire(timeout=SECONDS)
        for _ in range(100):
            assert polls.acquire(timeout=CALL_SECONDS), "the healthy one is polled no more"
        assert timed(lambda: runner.execute("w")).status == "Completed"
        assert "is being polled since" in timed(lambda: runner.why("hangs0"))
    finally:
        gate.set()
        runner.shutdown()


def test_task_bodies_that_hang_hold_up_neither_polls_nor_calls() -> None:
    gate, polled = threading.Event(), threading.Semaphore(0)
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", retry_attempts=1)(lambda context: gate.wait() and None)
    cloaca.trigger(workflow="w", poll_interval="10ms", name="watch")(lambda: bool(polled.release()))
    runner = cloaca.DefaultRunner.with_config(":memory:", cloaca.DefaultRunnerConfig(max_concurrent_tasks=60))
    try:
        runs = runner.submit_many("w", [{"i": i} for i in range(120)])
        for _ in range(50):
            assert polled.acquire(timeout=CALL_SECONDS)
        timed(lambda: runner.cancel(runs[-1].id))
        assert timed(lambda: runs[-1].result(SECONDS)).status == "Cancelled"
        gate.set()
        assert {run.result(SECONDS).status for run in runs} == {"Completed", "Cancelled"}
    finally:
        gate.set()
        runner.shutdown()
