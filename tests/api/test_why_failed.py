"""`why` tells of a trigger whose runs fail, and whose run has the key that stands in the way."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from program import eventually

import cloaca
import cloaca.testing
from cloaca import TriggerResult, reading

broken = [True]


@pytest.fixture(autouse=True)
def workflow() -> None:
    broken[:] = [True]

    def body(context: cloaca.Context) -> None:
        if broken[0]:
            raise ValueError("no price in line 2\nnor in line 3")

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="parse", retry_attempts=1)(body)


@pytest.mark.parametrize("how", [{"poll_interval": "1h"}, {"cron": "0 * * * *"}])
def test_why_says_that_the_runs_of_the_last_fires_failed(how: dict[str, Any]) -> None:
    cloaca.trigger(workflow="w", name="inbox", **how)(lambda: True)
    with cloaca.testing.Runner() as runner:
        runner.advance("1h")
        (run,) = runner.list_runs()
        told = runner.why("inbox")
        error = "task 'parse' failed: ValueError: no price in line 2"
        assert told.endswith(f"its newest run that is over failed, run {run['id']}: {error}")
        runner.advance("2h")
        assert "; its 3 newest runs that are over failed, the last of them run" in runner.why("inbox")
        broken[0] = False
        runner.advance("1h")
        assert "failed" not in runner.why("inbox")
        broken[0] = True
        runner.advance("60h")
        assert "; at least its 50 newest runs that are over failed" in runner.why("inbox")


def test_why_says_of_a_run_key_what_became_of_the_run_that_has_it() -> None:
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1m")(
        lambda: [TriggerResult.fire({"file": name}, run_key=name) for name in ("a", "b")]
    )
    with cloaca.testing.Runner() as runner:
        runner.advance("2m")
        (holder, _) = runner.list_runs()
        told = runner.why("inbox")
        assert f"run key 'b' started run {holder['id']}, and 1 more fire was refused" in told
        assert (
            f"that run failed at {holder['completed_at']}, and retry('{holder['id']}') opens it again" in told
        )
        broken[0] = False
        runner.retry_many("w")
        runner.run_until_idle()
        assert "that run is Completed since" in runner.why("inbox")


def test_why_says_of_a_run_key_that_its_run_is_kept_no_longer() -> None:
    broken[0] = False
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1h")(
        lambda: TriggerResult.fire({"file": "a"}, run_key="a")
    )
    with cloaca.testing.Runner(config=cloaca.DefaultRunnerConfig(retention="1d")) as runner:
        runner.advance("1h")
        (holder,) = runner.list_runs()
        runner.advance("3d")
        assert runner.list_runs() == []
        told = runner.why("inbox")
        assert f"run key 'a' started run {holder['id']}" in told
        assert told.endswith(
            "; that run is not kept any more, and its key is still used up: what is to start one again needs"
            " another key"
        )


def test_who_is_no_runner_says_the_same_of_keys_failures_and_pauses(tmp_path: Path) -> None:
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1h")(
        lambda: TriggerResult.fire({"file": "a"}, run_key="a")
    )
    cloaca.trigger(workflow="w", name="nightly", cron="0 3 1 1 *")(lambda: True)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner, reading.Reader(path) as reader:
        runner.tick("inbox")
        (holder,) = runner.list_runs()
        assert eventually(lambda: runner.get_run(holder["id"])["status"] == "Failed")
        runner.tick("inbox")
        runner.tick("nightly")
        runner.pause(workflow="w")
        by_call, unnamed = (f"and {way} opens it again" for way in (f"retry('{holder['id']}')", "a retry"))
        for told, opens in ((runner.why("inbox"), by_call), (reading.why(reader, "inbox"), unnamed)):
            assert f"run key 'a' started run {holder['id']}" in told
            assert opens in told
            assert "its newest run that is over failed" in told
            assert "; workflow 'w' is paused, by" in told
        for told in (runner.why("nightly"), reading.why(reader, "nightly")):
            assert "; workflow 'w' is paused, by" in told
        runner.set_trigger_enabled("inbox", False)
        assert "is paused" not in reading.why(reader, "inbox"), "it is switched off anyway"
        (pause,) = (found for found in reading.doctor(reader) if found.subject == "pauses")
        assert (pause.level, "workflow 'w' is paused, by" in pause.text) == ("warn", True)
        runner.resume(workflow="w")
        (pause,) = (found for found in reading.doctor(reader) if found.subject == "pauses")
        assert pause.level == "ok"


def test_a_run_that_is_held_up_by_a_pause_is_not_told_to_be_about_to_begin(tmp_path: Path) -> None:
    broken[0] = False
    with cloaca.WorkflowBuilder("limited", concurrency=cloaca.Concurrency(1, key="tenant")):
        cloaca.task(id="call")(lambda context: None)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner, reading.Reader(path) as reader:
        runner.pause(workflow="limited")
        run = runner.submit("limited", {"tenant": "acme"})
        for told in (runner.why_run(run.id), reading.why(reader, run.id)):
            assert "waits; workflow 'limited' is paused, by" in told
            assert "let it begin" not in told
        runner.resume(workflow="limited")
        assert run.result().status == "Completed"


def test_who_is_no_runner_tells_of_a_task_that_has_no_slot(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(context: cloaca.Context) -> None:
        entered.set()
        leave.wait()

    with cloaca.WorkflowBuilder("slow"):
        cloaca.task(id="hold")(hold)
    with cloaca.WorkflowBuilder("after"):
        cloaca.task(id="next")(lambda context: None)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path, max_concurrent_tasks=1) as runner, reading.Reader(path) as reader:
        try:
            held = runner.submit("slow")
            entered.wait()
            run = runner.submit("after")
            said = (
                "; task 'next' is about to begin, or waits for a slot of that runner or a place in its"
                f" executor; under way there: task 'hold' of run {held.id}"
            )
            assert eventually(lambda: reading.why(reader, run.id).endswith(said))
        finally:
            leave.set()
        assert run.result().status == "Completed"
        assert "slot" not in reading.why(reader, run.id)


def test_the_function_of_a_trigger_is_as_good_as_its_name() -> None:
    @cloaca.trigger(workflow="w", poll_interval="1m")
    def inbox() -> TriggerResult:
        return TriggerResult.skip("empty")

    @cloaca.trigger(workflow="w", cron="0 3 * * *")
    def nightly() -> None: ...

    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
        assert runner.why(inbox) == runner.why("inbox")
        assert runner.why(nightly) == runner.why("nightly")
        assert runner.ticks(inbox) == runner.ticks("inbox")
        assert runner.get_trigger_schedule(inbox) == runner.get_trigger_schedule("inbox")
        assert runner.get_trigger_execution_history(inbox) == []
        assert runner.tick(inbox)["reason"] == "empty"
        runner.poll_soon(inbox)
        runner.set_trigger_enabled(inbox, False)
        assert "switched it off" in runner.why(inbox)
        with pytest.raises(cloaca.TriggerError, match="is declared in this program"):
            runner.forget(inbox)
        with pytest.raises(cloaca.TriggerError, match=r"trigger_name is .*no trigger that is declared here"):
            runner.why(print)
        cloaca.trigger(workflow="w", name="too", poll_interval="1h")(inbox)
        with pytest.raises(cloaca.TriggerError, match="is triggers 'inbox', 'too'; give the name"):
            runner.why(inbox)


def test_a_cron_is_told_by_its_name_too() -> None:
    @cloaca.trigger(workflow="w", cron="0 3 * * *")
    def nightly() -> None: ...

    broken[0] = False
    with cloaca.testing.Runner() as runner:
        by_hand = runner.register_cron_workflow("w", "0 5 * * *", name="early")
        runner.advance("1d")
        (row,) = [row for row in runner.list_cron_schedules() if row["trigger_name"] == "nightly"]
        for given in ("nightly", nightly, row["id"]):
            assert runner.get_cron_schedule(given) == row
            history = runner.get_cron_execution_history(given)
            assert {slot["schedule_id"] for slot in history} == {row["id"]}
            assert len(runner.backfill(given, "2025-12-31T00:00:00Z", "2026-01-01T00:00:00Z")) == 1
        runner.set_cron_schedule_enabled("nightly", False)
        assert not runner.get_cron_schedule("nightly")["enabled"]
        runner.update_cron_schedule("early", "0 6 * * *", "UTC")
        assert runner.get_cron_schedule(by_hand)["cron_expression"] == "0 6 * * *"
        runner.delete_cron_schedule("early")
        with pytest.raises(cloaca.ScheduleError, match=r"Invalid schedule ID: .*UUID or the name of a cron"):
            runner.delete_cron_schedule("early")


def test_why_from_outside_says_of_a_trigger_that_it_backs_off(tmp_path: Path) -> None:
    @cloaca.trigger(workflow="w", poll_interval="20ms", on_error=cloaca.Backoff("1h", max="1h"))
    def fails() -> bool:
        raise OSError("the share is gone")

    @cloaca.trigger(workflow="w", poll_interval="20ms")
    def wishes() -> bool:
        raise cloaca.RetryAfter("2h")

    @cloaca.trigger(workflow="w", poll_interval="20ms")
    def quiet() -> bool:
        return False

    @cloaca.trigger(workflow="w", on_run="w", on_error=cloaca.Backoff("1h", max="1h"))
    def watch(run: cloaca.types.RunDetails) -> bool:
        raise OSError("no answer")

    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner, reading.Reader(path) as reader:
        assert "none has yet" in reading.why(reader, "watch")
        runner.execute("w")
        found = {}
        for name in ("fails", "wishes", "watch"):
            assert eventually(lambda name=name: "backs off until" in runner.why(name))
            until = runner.why(name).split("until ")[1].split(" after ")[0]
            assert eventually(lambda name=name: "on record, it" in reading.why(reader, name))
            found[name] = reading.why(reader, name)
            kept = found[name].split("runner 1, and backs off until ")[1].split(" after ")[0]
            assert abs(datetime.fromisoformat(kept) - datetime.fromisoformat(until)) < timedelta(minutes=1)
        assert " after 1 failed poll in a row; on record, it failed at its last poll, at" in found["fails"]
        assert "after its own wish; on record, it skipped at its last poll, at" in found["wishes"]
        assert "after 1 failed call in a row, and is told of the same end" in found["watch"]
        assert "on record, it failed at its last call, at" in found["watch"]
        assert "it failed at its last call, at" in runner.why("watch")
        assert "backs off" not in reading.why(reader, "quiet")
        runner.set_trigger_enabled("fails", False)
        assert "backs off" not in reading.why(reader, "fails")
