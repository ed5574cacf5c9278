"""`runner.why_run`: a sentence for every state that a run can stand in."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from flow import WAIT, Gate, boom, declare, nothing
from program import eventually, run_program

import cloaca
import cloaca.testing
from cloaca import registry


def one_slot() -> cloaca.DefaultRunner:
    return cloaca.DefaultRunner.with_config(":memory:", cloaca.DefaultRunnerConfig(max_concurrent_tasks=1))


def test_a_run_that_is_over_says_how_it_ended() -> None:
    declare("good", nothing)
    declare("bad", boom)
    gate = Gate()
    declare("gated", gate)
    with cloaca.DefaultRunner(":memory:") as runner:
        good, bad, gated = runner.submit("good"), runner.submit("bad"), runner.submit("gated")
        assert gate.entered.wait(WAIT)
        gated.cancel()
        gate.open.set()
        for run in (good, bad, gated):
            run.result(WAIT)
        at = {row["id"]: row["completed_at"] for row in runner.list_runs()}
        assert good.why() == f"run {good.id} of workflow 'good' completed at {at[good.id]}"
        told = runner.why_run(bad.id)
        assert told.startswith(f"run {bad.id} of workflow 'bad' failed at {at[bad.id]}: ")
        assert "ValueError: boom" in told
        assert gated.why() == f"run {gated.id} of workflow 'gated' was cancelled at {at[gated.id]}"


def test_a_run_that_is_over_says_which_callback_of_it_keeps_raising(tmp_path: Path) -> None:
    def away(run: cloaca.RunDetails) -> None:
        raise ConnectionError("chat is away")

    with cloaca.WorkflowBuilder("good").on_success(away):
        cloaca.task(id="only")(nothing)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.submit("good")
        run.result(WAIT)
        assert eventually(lambda: "ConnectionError" in run.why())
        told = re.search(
            r"; its on_success has raised in \d calls? and is called again at 20\S+: (.*)$", run.why()
        )
        assert told is not None, run.why()
        assert told[1] == "ConnectionError: chat is away"
    look = subprocess.run(
        [sys.executable, "-m", "cloaca", "--database", str(tmp_path / "runs.db"), "why", run.id],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "; its on_success has raised in " in look.stdout


def test_a_run_in_a_body_says_since_when_and_what_its_end_waits_for(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated")
    assert gate.entered.wait(WAIT)
    told = run.why()
    assert "goes on here: task 'only' is in its body, attempt 1, begun first at 20" in told
    assert re.search(r"; its time is up at 20\S+Z \(workflow_timeout_seconds\)$", told), told
    run.cancel()
    assert "once its tasks are home; task 'only' was told to end in attempt 1" in run.why()
    gate.open.set()
    run.result(WAIT)


def test_a_run_without_a_slot_says_so() -> None:
    gate = Gate()
    declare("gated", gate)
    declare("good", nothing)
    with one_slot() as runner:
        held = runner.submit("gated")
        assert gate.entered.wait(WAIT)
        run = runner.submit("good")
        assert "task 'only' waits for the slot of this runner (max_concurrent_tasks)" in run.why()
        gate.open.set()
        assert (held.result(WAIT).status, run.result(WAIT).status) == ("Completed", "Completed")


def test_a_run_between_attempts_says_when_the_next_one_begins_and_why() -> None:
    declare("flaky", boom, retry_attempts=3, retry_delay_ms=60_000, retry_jitter=False, retry_backoff="fixed")
    with cloaca.testing.Runner() as runner:
        run = runner.submit("flaky")
        runner.advance("1s")
        told = run.why()
        assert "task 'only' is tried again at 2026-01-01T00:01:00" in told
        assert "as attempt 2, after ValueError: boom" in told


def test_a_body_that_waits_for_its_own_condition_says_that_it_holds_no_slot() -> None:
    go = threading.Event()
    looked = threading.Event()

    def condition() -> bool:
        looked.set()
        return go.is_set()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(condition, 1)

    declare("patient", body)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("patient")
        assert looked.wait(WAIT)
        assert eventually(lambda: "waits in attempt 1 for its own condition, without a slot" in run.why())
        go.set()
        run.result(WAIT)


def test_a_run_whose_callback_is_being_told_says_so(runner: cloaca.DefaultRunner) -> None:
    entered, go = threading.Event(), threading.Event()

    def told(*_: object) -> None:
        entered.set()
        assert go.wait(WAIT)

    declare("bad", boom, on_failure=told)
    run = runner.submit("bad")
    assert entered.wait(WAIT)
    assert "task 'only' is over after attempt 1, and its callback is being told" in run.why()
    go.set()
    run.result(WAIT)


def test_a_run_that_waits_for_its_turn_names_the_run_before_it(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    fire = cloaca.TriggerResult.fire
    answers = [fire({"n": n}) for n in range(3)]
    cloaca.trigger(workflow="gated", name="inbox", poll_interval="24h", overlap="queue")(
        lambda: answers.pop(0)
    )
    for _ in range(3):
        runner.tick("inbox")
    assert gate.entered.wait(WAIT)
    first, second, third = (row["id"] for row in reversed(runner.list_runs()))
    of = "of trigger 'inbox'"
    assert runner.why_run(second).endswith(f"waits for its turn behind run {first} {of}")
    assert runner.why_run(third).endswith(f"waits for its turn behind run {first} and 1 run after it {of}")
    gate.open.set()


def test_a_run_of_another_runner_says_whose_and_what_is_on_record(tmp_path: Path) -> None:
    gate = Gate()
    declare("gated", gate)
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as driver, cloaca.DefaultRunner(url) as other:
        run = driver.submit("gated")
        assert gate.entered.wait(WAIT)
        (owner,) = (row["owner"] for row in driver.query("SELECT owner FROM runs"))
        record = "task 'only' is on record as begun, attempt 1"
        # Only who drives it knows of a beginning at once; whoever looks there makes it known.
        assert driver.get_run(run.id) is not None
        assert record in other.why_run(run.id)
        told = other.why_run(run.id)
        assert f"is in the hands of runner {owner} of this store, and not of this one" in told
        other.cancel(run.id)
        assert "its end was asked for" in other.why_run(run.id)
        gate.open.set()
        run.result(WAIT)


def test_a_run_whose_workflow_nobody_declares_says_which(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    left = """
        import os, sys, cloaca
        with cloaca.WorkflowBuilder("orphan"):
            @cloaca.task(id="only", dependencies=[])
            def only(context):
                os._exit(0)
        runner = cloaca.DefaultRunner(sys.argv[1])
        runner.submit("orphan").result()
    """
    assert run_program(left, url).returncode == 0
    declare("good", nothing)
    registry.workflow("good")
    with cloaca.DefaultRunner(url) as runner:
        (row,) = runner.list_runs()
        assert eventually(lambda: "workflow 'orphan'" in runner.why_run(row["id"]))
        assert eventually(lambda: "does not" in runner.why_run(row["id"]))
        told = runner.why_run(row["id"])
        assert "waits for" in told
        assert "known workflows: good" in told


def test_a_run_that_does_not_exist_is_refused(runner: cloaca.DefaultRunner) -> None:
    with pytest.raises(cloaca.WorkflowError, match="not found"):
        runner.why_run("00000000-0000-0000-0000-000000000000")
