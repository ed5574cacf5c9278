"""A body that is told to end before its event loop has come to it: it is never called, and its run ends."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from attack import TIMES, until

import cloaca

called: list[int] = []
told: list[str] = []
blocked, release = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def loop_that_is_blocked() -> Iterator[None]:
    called.clear()
    told.clear()
    blocked.clear()
    release.clear()
    yield
    release.set()


def declare(attempts: int = 1, timeout: float | None = None) -> None:
    with cloaca.WorkflowBuilder("blocks"):

        @cloaca.task(id="only")
        async def block(context: cloaca.Context) -> None:
            blocked.set()
            release.wait(60)

    def failed(task_id: str, error: str, context: cloaca.Context) -> None:
        told.append(error)

    with cloaca.WorkflowBuilder("waits"):

        @cloaca.task(id="only", retry_attempts=attempts, retry_delay_ms=0, timeout=timeout, on_failure=failed)
        async def only(context: cloaca.Context) -> None:
            called.append(context["n"])


def behind(runner: cloaca.DefaultRunner, count: int) -> list[cloaca.Run]:
    """Runs whose bodies the loop cannot come to."""
    runner.submit("blocks", {})
    assert blocked.wait(60)
    runs = runner.submit_many("waits", [{"n": n} for n in range(count)])
    until(lambda: all("in its body" in run.why() for run in runs))
    return runs


def test_who_is_cancelled_before_the_loop_comes_to_it_is_cancelled() -> None:
    declare()
    with cloaca.DefaultRunner(":memory:") as runner:
        runs = behind(runner, 5)
        for run in runs[:3]:
            run.cancel()
        until(lambda: all("callback" in run.why() for run in runs[:3]))
        release.set()
        assert [run.result(30).status for run in runs[:3]] == ["Cancelled"] * 3
        assert [run.result(30).status for run in runs[3:]] == ["Completed"] * 2
        assert sorted(called) == [3, 4]
        [task] = runner.get_run(runs[0].id)["tasks"]
        assert (task["status"], task["attempts"]) == ("Failed", 1)


@pytest.mark.parametrize("attempts", [1, 2])
def test_who_is_over_its_time_before_the_loop_comes_to_it_has_failed_by_that(attempts: int) -> None:
    declare(attempts, timeout=0.3)
    with cloaca.DefaultRunner(":memory:") as runner:
        [run] = behind(runner, 1)
        until(lambda: "in its body, attempt 1" not in run.why())
        release.set()
        result = run.result(30)
        [task] = runner.get_run(run.id)["tasks"]
        if attempts == 1:
            assert result.status == "Failed"
            assert called == []
            until(lambda: len(told) == 1)
            assert told[0].startswith("TimeoutError")
        else:
            assert task["tries"][0]["outcome"] == "TimedOut"


def test_runs_that_are_cancelled_at_any_moment_end() -> None:
    declare()
    chance, ends = random.Random(5), Counter[str]()
    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(20 * TIMES):
            runs = runner.submit_many("waits", [{"n": n} for n in range(20)])
            for run in runs:
                if chance.random() < 0.5:
                    run.cancel()
            ends.update(run.result(30).status for run in runs)
    assert set(ends) <= {"Completed", "Cancelled"}
