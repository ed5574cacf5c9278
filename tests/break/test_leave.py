"""Who leaves, and who only looks: runs of a runner that is gone or at work, as another one sees them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from attack import until

import cloaca

SECONDS = 30.0


def workflow(name: str, body: object, **options: object) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="t", **{"retry_attempts": 1, **options})(body)


def statuses(runner: cloaca.DefaultRunner) -> list[str]:
    return sorted(run["status"] for run in runner.list_runs(limit=1000))


def test_a_body_that_does_not_end_holds_up_none_of_the_others(tmp_path: Path) -> None:
    url, entered, go = str(tmp_path / "a.db"), threading.Event(), threading.Event()
    polls: list[int] = []

    def stuck(context: cloaca.Context) -> None:
        entered.set()
        go.wait(SECONDS)

    workflow("stuck", stuck)
    workflow("others", lambda context: None)

    @cloaca.trigger(workflow="others", poll_interval="5ms")
    def watcher() -> bool:
        polls.append(threading.get_ident())
        return False

    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    first = cloaca.DefaultRunner.with_config(url, config)
    held = first.submit("stuck")
    assert entered.wait(SECONDS)
    left = [first.submit("others") for _ in range(20)]
    with cloaca.DefaultRunner(url) as second:
        first.shutdown(timeout=0.01)
        before = len(polls)
        for run in left:
            assert second.run(run.id).result(SECONDS).status == "Completed"
        until(lambda: len(polls) > before + 3)
        assert second.get_run(held.id)["status"] == "Running"  # type: ignore[index]
        go.set()
        assert second.run(held.id).result(SECONDS).status == "Completed"
        tasks = second.get_run(held.id)["tasks"]  # type: ignore[index]
    assert [task["attempts"] for task in tasks] == [2]


def test_a_clean_restart_uses_up_no_attempt(tmp_path: Path) -> None:
    url, waits, attempts = str(tmp_path / "a.db"), threading.Event(), []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(len(attempts) + 1)
        if len(attempts) <= 3:
            waits.set()
            handle.defer_until(lambda: False, 1)
        if len(attempts) == 4:
            raise ValueError("once")

    workflow("w", body, retry_attempts=2, retry_delay_ms=1)
    first = cloaca.DefaultRunner(url)
    run = first.submit("w")
    for runner in (first, cloaca.DefaultRunner, cloaca.DefaultRunner):
        living = runner if isinstance(runner, cloaca.DefaultRunner) else runner(url)
        assert waits.wait(SECONDS)
        waits.clear()
        living.shutdown()
    with cloaca.DefaultRunner(url) as last:
        assert last.run(run.id).result(SECONDS).status == "Completed"
        tasks = last.get_run(run.id)["tasks"]  # type: ignore[index]
    assert attempts == [1, 2, 3, 4, 5]
    assert [task["attempts"] for task in tasks] == [5]


def test_more_clean_restarts_than_deaths_are_allowed_fail_nothing(tmp_path: Path) -> None:
    url, waits, goes_on = str(tmp_path / "a.db"), threading.Event(), threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        waits.set()
        handle.defer_until(goes_on.is_set, 1)

    workflow("w", body)
    run_id = ""
    for _ in range(25):
        with cloaca.DefaultRunner(url) as runner:
            run_id = run_id or runner.submit("w").id
            assert waits.wait(SECONDS)
            waits.clear()
    goes_on.set()
    with cloaca.DefaultRunner(url) as runner:
        assert runner.run(run_id).result(SECONDS).status == "Completed"


def test_a_cancelled_run_whose_body_outlives_its_runner_ends_cancelled(tmp_path: Path) -> None:
    url, entered, go = str(tmp_path / "a.db"), threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        entered.set()
        go.wait(SECONDS)

    workflow("w", body)
    first = cloaca.DefaultRunner(url)
    run = first.submit("w")
    assert entered.wait(SECONDS)
    with cloaca.DefaultRunner(url) as second:
        run.cancel()
        first.shutdown(timeout=0.01)
        go.set()
        assert second.run(run.id).result(SECONDS).status == "Cancelled"


def test_filters_and_rows_agree_and_only_what_runs_reads_running() -> None:
    entered, go = threading.Barrier(4), threading.Event()

    def body(context: cloaca.Context) -> None:
        if not go.is_set():
            entered.wait(SECONDS)
            go.wait(SECONDS)

    workflow("w", body)
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=3)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        runs = runner.submit_many("w", [{"i": number} for number in range(400)])
        entered.wait(SECONDS)
        assert statuses(runner) == ["Pending"] * 397 + ["Running"] * 3
        for status, count in (("Running", 3), ("Pending", 397)):
            rows = runner.list_runs(status=status, limit=1000)
            assert [row["status"] for row in rows] == [status] * count
        running = runner.list_runs(status="Running")
        assert all(row["started_at"] is not None for row in running)
        assert all(runner.get_run(row["id"])["tasks"] for row in running)  # type: ignore[index]
        go.set()
        assert all(run.result(SECONDS).status == "Completed" for run in runs)


LOOKS = """
import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], timeout=30)
deadline = time.monotonic() + 30
while True:
    found = store.execute("SELECT status, started_at IS NOT NULL FROM runs").fetchall()
    if found == [("Running", 1)]:
        break
    assert time.monotonic() < deadline, found
    time.sleep(0.005)
assert store.execute("SELECT status, attempt FROM tasks").fetchall() == [("Running", 1)]
"""


def test_what_runs_is_seen_by_whoever_only_reads_the_file(tmp_path: Path) -> None:
    path, go = tmp_path / "a.db", threading.Event()

    def body(context: cloaca.Context) -> None:
        go.wait(SECONDS)

    workflow("w", body)
    with cloaca.DefaultRunner(str(path)) as runner:
        run = runner.submit("w")
        subprocess.run([sys.executable, "-c", LOOKS, str(path)], check=True, timeout=60)
        go.set()
        assert run.result(SECONDS).status == "Completed"


BURIES = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], timeout=30)
store.execute("UPDATE owners SET left_at = 1")
store.commit()
"""


def test_a_runner_that_was_taken_for_dead_ends_and_says_so(tmp_path: Path) -> None:
    path, entered, go = tmp_path / "a.db", threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        entered.set()
        go.wait(SECONDS)

    workflow("w", body)
    with cloaca.DefaultRunner(str(path)) as runner:
        run = runner.submit("w")
        assert entered.wait(SECONDS)
        subprocess.run([sys.executable, "-c", BURIES, str(path)], check=True, timeout=60)
        with pytest.raises(cloaca.RunnerError):
            run.result(SECONDS)
        with pytest.raises(cloaca.RunnerError):
            runner.submit("w")
        with pytest.raises(cloaca.StoreError):
            runner.retry(run.id)
        go.set()
    with cloaca.DefaultRunner(str(path)) as runner:
        assert runner.run(run.id).result(SECONDS).status == "Completed"


def test_equal_runs_from_before_hold_back_a_trigger_that_allows_none_any_more(tmp_path: Path) -> None:
    url, go = str(tmp_path / "a.db"), threading.Event()

    def body(context: cloaca.Context) -> None:
        go.wait(SECONDS)

    workflow("w", body)

    def declare(allow_concurrent: bool) -> None:
        @cloaca.trigger(workflow="w", poll_interval="1h", name="t", allow_concurrent=allow_concurrent)
        def t() -> cloaca.TriggerResult:
            return cloaca.TriggerResult.fire({"same": 1})

    declare(True)
    with cloaca.DefaultRunner(url) as runner:
        runner.tick("t")
        runner.tick("t")
        assert len(runner.list_runs()) == 2
        declare(False)
        runner.tick("t")
        assert len(runner.list_runs()) == 2
        assert "deduplicated" in runner.ticks("t")[0]["reason"]
        go.set()
        until(lambda: statuses(runner) == ["Completed"] * 2)
        go.clear()
        runner.tick("t")
        assert len(runner.list_runs()) == 3
        runner.tick("t")
        assert len(runner.list_runs()) == 3
        go.set()


def test_a_trigger_whose_poll_outlives_its_runner_is_not_polled_beside_it(tmp_path: Path) -> None:
    url, entered, go = str(tmp_path / "a.db"), threading.Event(), threading.Event()
    inside: list[int] = []
    most: list[int] = []
    polls: list[str] = []
    workflow("w", lambda context: None)

    @cloaca.trigger(workflow="w", poll_interval="5ms")
    def hangs() -> bool:
        inside.append(1)
        most.append(len(inside))
        entered.set()
        go.wait(SECONDS)
        inside.pop()
        polls.append("hangs")
        return False

    @cloaca.trigger(workflow="w", poll_interval="5ms")
    def healthy() -> bool:
        polls.append("healthy")
        return False

    first = cloaca.DefaultRunner(url)
    assert entered.wait(SECONDS)
    first.shutdown(timeout=0.01)
    polls.clear()
    with cloaca.DefaultRunner(url):
        until(lambda: polls.count("healthy") > 20)
        assert len(most) == 1
        go.set()
        until(lambda: polls.count("hangs") > 3)
    assert max(most) == 1


def test_who_does_not_declare_a_trigger_is_told_who_polls_it(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    workflow("w", lambda context: None)

    @cloaca.trigger(workflow="w", poll_interval="5ms")
    def watcher() -> bool:
        return False

    with cloaca.DefaultRunner(url) as first:
        until(lambda: first.stats()["polls"] > 3)
        cloaca.registry.clear()
        with cloaca.DefaultRunner(url) as second:
            assert "is polled by runner 1 of this store" in second.why("watcher")
            with pytest.raises(cloaca.TriggerError, match="runner 1 of this store polls it"):
                second.tick("watcher")
        assert "skipped" in first.why("watcher")


def test_a_task_that_was_renamed_amidst_a_run_is_not_left_as_running(tmp_path: Path) -> None:
    url, entered = str(tmp_path / "a.db"), threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        entered.set()
        handle.defer_until(lambda: False, 1)

    workflow("w", body)
    with cloaca.DefaultRunner(url) as first:
        run = first.submit("w")
        assert entered.wait(SECONDS)
        until(lambda: first.get_run(run.id)["tasks"])  # type: ignore[index]
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="renamed")(lambda context: None)
    with cloaca.DefaultRunner(url) as second:
        assert second.run(run.id).result(SECONDS).status == "Completed"
        tasks = {task["id"]: task["status"] for task in second.get_run(run.id)["tasks"]}  # type: ignore[index]
    assert tasks == {"t": "Skipped", "renamed": "Completed"}


WAYS = (
    "checkpoint",
    "execute",
    "submit",
    "submit_many",
    "execute_async",
    "submit_async",
    "list_runs",
    "retry_many",
)


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_calls_a_runner_that_shuts_down_loses_no_attempt(tmp_path: Path, way: str) -> None:
    """It has one, and does nothing but call; where it only looks, until it is told to end."""
    url, entered = str(tmp_path / "a.db"), threading.Event()

    def call(handle: cloaca.TaskHandle, number: int) -> object:
        runner = runners[-1]
        if way == "checkpoint":
            return handle.checkpoint(number)
        if way == "list_runs":
            return runner.list_runs(), runner.why_run(str(cloaca.current_run().run_id))  # type: ignore[union-attr]
        if way == "retry_many":
            return runner.retry_many(workflow="leaf")
        if way == "submit_many":
            return runner.submit_many("leaf", [{"i": number}])
        return getattr(runner, way)("leaf", {"i": number})

    def calls(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        number = 0
        while handle.attempt == 1 and not (way == "list_runs" and handle.cancelled):
            call(handle, number := number + 1)
            entered.set()

    async def awaits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        number = 0
        while handle.attempt == 1:
            called: Any = call(handle, number := number + 1)
            await called
            entered.set()

    workflow("leaf", lambda context: None)
    workflow("calls", awaits if way.endswith("async") else calls)
    runners = [cloaca.DefaultRunner(url)]
    run = runners[0].submit("calls")
    assert entered.wait(SECONDS)
    # A body that keeps checkpoints is waited for, and stopped where no more is kept.
    runners[0].shutdown(SECONDS if way != "checkpoint" else 0.1)
    with cloaca.DefaultRunner(url) as runner:
        runners.append(runner)
        ended = runner.run(run.id).result(SECONDS)
        assert (ended.status, ended.error_message) == ("Completed", None)
