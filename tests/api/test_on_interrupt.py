"""`on_interrupt="fail"` and `interruptions_max`: what becomes of a task whose attempt was cut off."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from program import eventually

import cloaca
import cloaca.testing

WAIT = 20.0


def declare(body: Any, **settings: Any) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(**{"id": "only", "on_interrupt": "fail", **settings})(body)


def task_of(runner: cloaca.DefaultRunner, run: cloaca.Run) -> dict[str, Any]:
    found = runner.get_run(run.id)
    assert found is not None
    return dict(found["tasks"][0])


def status_of(runner: cloaca.DefaultRunner, run: cloaca.Run) -> str:
    found = runner.get_run(run.id)
    assert found is not None
    return str(found["status"])


def told_by(runner: cloaca.DefaultRunner) -> str:
    """What it says of itself when work is wanted of it."""
    try:
        runner.submit("none")
    except Exception as error:
        return str(error)
    return ""


def test_a_task_that_must_not_be_cut_off_runs_like_any_other(runner: cloaca.DefaultRunner) -> None:
    attempts: list[int] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(handle.attempt)
        if handle.attempt < 3:
            raise ValueError("boom")

    declare(body, retry_delay_ms=1)
    assert runner.execute("w", check=True)
    assert attempts == [1, 2, 3]


def test_its_body_is_called_once_its_beginning_is_on_record(tmp_path: Path) -> None:
    found: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        found.extend(runner.query("SELECT status, attempt, not_before AS waits FROM tasks"))
        if handle.attempt == 1:
            raise ValueError("boom")

    declare(body, retry_delay_ms=0)
    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        assert runner.execute("w", check=True)
    assert found == [{"status": "Running", "attempt": attempt, "waits": None} for attempt in (1, 2)]


def test_a_shutdown_that_its_body_outlasts_fails_it(tmp_path: Path) -> None:
    entered = threading.Event()
    calls: list[int] = []
    told: list[str] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        calls.append(handle.attempt)
        entered.set()
        handle.defer_until(lambda: False, poll_interval_ms=10)

    declare(body, on_failure=lambda task_id, error, context: told.append(error))
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as runner:
        run = runner.submit("w")
        assert entered.wait(WAIT)
    with cloaca.DefaultRunner(url) as runner:
        assert eventually(lambda: task_of(runner, run)["status"] == "Failed")
        task = task_of(runner, run)
        assert task["error"] == 'an attempt of it was cut off, and on_interrupt is "fail"'
        # Whoever knows better opens it again.
        again = runner.retry(run.id)
        assert eventually(lambda: calls == [1, 1])
        again.cancel()
        again.result(WAIT)
    assert calls == [1, 1]
    assert told[0] == 'an attempt of it was cut off, and on_interrupt is "fail"'


def test_what_had_not_begun_when_the_runner_left_is_begun_by_the_next(tmp_path: Path) -> None:
    """It waits for the only slot, for a retry, or by its own wish."""
    entered, leaves = threading.Event(), threading.Event()
    calls: list[tuple[str, int]] = []

    def hold(context: cloaca.Context) -> None:
        entered.set()
        leaves.wait(WAIT)

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        calls.append((handle.task_id, handle.attempt))
        if handle.attempt == 1 and handle.task_id != "queued":
            raise ValueError("boom") if handle.task_id == "retried" else cloaca.RetryAfter("1s")

    with cloaca.WorkflowBuilder("w"):
        for name in ("retried", "postponed"):
            cloaca.task(id=name, on_interrupt="fail", retry_delay_ms=1000)(body)
    with cloaca.WorkflowBuilder("q"):
        cloaca.task(id="queued", on_interrupt="fail")(body)
    with cloaca.WorkflowBuilder("h"):
        cloaca.task(id="hold")(hold)
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner.with_config(url, config) as runner:
        runs = [runner.submit("w")]
        assert eventually(lambda: len(calls) == 2)
        assert eventually(lambda: all(task["waits_until"] for task in runner.get_run(runs[0].id)["tasks"]))
        runner.submit("h")
        assert entered.wait(WAIT)
        runs.append(runner.submit("q"))
        closing = threading.Thread(target=runner.shutdown)
        closing.start()
        assert eventually(lambda: "shut down" in told_by(runner))
        leaves.set()
        closing.join(WAIT)
    with cloaca.DefaultRunner.with_config(url, config) as runner:
        assert eventually(lambda: {status_of(runner, run) for run in runs} == {"Completed"})
    assert sorted(calls) == [
        ("postponed", 1),
        ("postponed", 2),
        ("queued", 1),
        ("retried", 1),
        ("retried", 2),
    ]


@pytest.mark.parametrize("value", ["never", "", 3, True])
def test_another_word_is_refused(value: Any) -> None:
    with pytest.raises(cloaca.WorkflowError, match=r"on_interrupt is .* must be retry or fail"):
        declare(lambda context: None, on_interrupt=value)


def test_a_workflow_without_it_keeps_its_version() -> None:
    versions = []
    for settings in ({}, {"on_interrupt": "retry"}, {"on_interrupt": "fail"}, {"retry_for": "1m"}):
        builder = cloaca.WorkflowBuilder("w")
        with builder:
            cloaca.task(id="only", **settings)(lambda context: None)
        found = cloaca.registry.workflow("w")  # type: ignore[attr-defined]
        versions.append(found.version)
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "20"])
def test_a_bound_on_interruptions_that_makes_no_sense_is_refused(value: Any) -> None:
    with pytest.raises(cloaca.ConfigError, match="interruptions_max is"):
        cloaca.DefaultRunnerConfig(interruptions_max=value)


def test_the_bound_on_interruptions_is_a_setting() -> None:
    assert cloaca.DefaultRunnerConfig().interruptions_max == 20
    assert "interruptions_max" not in cloaca.DefaultRunnerConfig().to_dict()
    assert cloaca.DefaultRunnerConfig(interruptions_max=3).to_dict()["interruptions_max"] == 3


def test_deaths_of_runners_that_had_not_begun_a_run_fail_none_of_its_tasks(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    declare(lambda context: None, retry_attempts=1)
    with cloaca.DefaultRunner(store) as runner:
        run = runner.submit("w", delay="1h").id
    died = "db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit(); db.close()"
    often = "UPDATE runs SET not_before = NULL, interruptions = 50, owner_before = 1"
    subprocess.run([sys.executable, "-c", f"import sqlite3, sys; {died}", str(store), often], check=True)
    with cloaca.DefaultRunner(store, interruptions_max=3) as runner:
        found = runner.run(run)
        assert found.result(WAIT).status == "Completed"
        assert task_of(runner, found)["attempts"] == 2, "the first may have begun"
