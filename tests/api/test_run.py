"""Runs in hand and in store: submit, list_runs, get_run, cancel, retry; and tick, ticks, why, stats."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flow import WAIT, Gate, boom, declare, nothing
from program import eventually

import cloaca
import cloaca.testing
from cloaca import registry

FINAL = {"Completed", "Failed", "Cancelled"}


def test_submit_returns_before_the_run_is_final(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated", {"a": 1})
    assert gate.entered.wait(WAIT)
    assert run.status == "Running"
    gate.open.set()
    result = run.result(WAIT)
    assert result.final_context == {"a": 1, "through": True}
    assert run.status == "Completed"
    assert run.result() is run.result(0)


def test_a_submitted_run_is_kept_when_submit_returns(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated")
    assert [row["id"] for row in runner.query("SELECT id FROM runs")] == [run.id]
    assert UUID(run.id).version == 7
    gate.open.set()


def test_many_runs_are_submitted_in_one_go_in_their_order(runner: cloaca.DefaultRunner) -> None:
    declare("double", lambda context: context.set("twice", context["n"] * 2))
    runs = runner.submit_many("double", ({"n": n} for n in range(50)))
    assert len(runner.list_runs()) == 50
    assert [run.result(WAIT).final_context["twice"] for run in runs] == [n * 2 for n in range(50)]
    assert [row["id"] for row in runner.list_runs()] == [run.id for run in runs][::-1]
    assert runner.submit_many("double", []) == []


def test_a_result_that_is_not_there_in_time_is_a_timeout_error(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated")
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError, match=run.id):
            run.result(timeout)
    gate.open.set()
    assert run.result(WAIT).status == "Completed"


def test_several_threads_may_wait_for_one_run(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated")
    results: list[cloaca.WorkflowResult] = []
    threads = [threading.Thread(target=lambda: results.append(run.result(WAIT))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert gate.entered.wait(WAIT)
    gate.open.set()
    for thread in threads:
        thread.join(WAIT)
    assert [result.status for result in results] == ["Completed"] * 8


def test_a_run_whose_handle_is_dropped_goes_on(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    runner.submit("gated")
    gate.open.set()
    assert eventually(lambda: runner.list_runs()[0]["status"] == "Completed")


def test_runs_are_listed_newest_first_with_their_keys(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    declare("bad", boom)
    ids = [runner.submit(name, {"n": n}).id for n, name in enumerate(["good", "bad", "good"])]
    assert eventually(lambda: all(row["completed_at"] for row in runner.list_runs()))
    rows = runner.list_runs()
    assert [row["id"] for row in rows] == ids[::-1]
    assert list(rows[0]) == [
        "id",
        "workflow_name",
        "status",
        "trigger_name",
        "run_key",
        "parent_run",
        "parent_task",
        "parent_kind",
        "context",
        "priority",
        "due_at",
        "created_at",
        "started_at",
        "completed_at",
        "took_seconds",
        "lain_seconds",
        "error_message",
        "error_type",
        "cancel_requested",
    ]
    assert rows[0]["workflow_name"] == "good"
    assert rows[0]["context"] == {"n": 2}
    assert rows[0]["trigger_name"] is None
    assert rows[0]["run_key"] is None
    assert rows[0]["error_message"] is None
    assert "ValueError: boom" in rows[1]["error_message"]
    times = [datetime.fromisoformat(rows[0][key]) for key in ("created_at", "started_at", "completed_at")]
    assert times == sorted(times)


def test_runs_are_filtered_by_workflow_status_and_trigger(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    declare("bad", boom)

    @cloaca.trigger(workflow="good", poll_interval="24h")
    def watcher() -> bool:
        return True

    runner.execute("good")
    runner.execute("bad")
    runner.tick("watcher")
    assert eventually(lambda: all(row["completed_at"] for row in runner.list_runs()))
    assert len(runner.list_runs()) == 3
    assert [row["workflow_name"] for row in runner.list_runs(workflow="bad")] == ["bad"]
    assert [row["workflow_name"] for row in runner.list_runs(status="Failed")] == ["bad"]
    assert [row["trigger_name"] for row in runner.list_runs(trigger="watcher")] == ["watcher"]
    assert len(runner.list_runs(workflow="good", status="Completed")) == 2
    assert len(runner.list_runs(workflow="good", status="Completed", trigger="watcher")) == 1
    assert runner.list_runs(workflow="nope") == []
    assert runner.list_runs(trigger="nope") == []
    assert runner.list_runs(status="Cancelled") == []


def test_pages_of_runs_follow_each_other(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    ids = [runner.submit("good").id for _ in range(120)][::-1]
    assert [row["id"] for row in runner.list_runs()] == ids[:100]
    assert [row["id"] for row in runner.list_runs(limit=7, offset=5)] == ids[5:12]
    assert [row["id"] for row in runner.list_runs(offset=100)] == ids[100:]
    assert runner.list_runs(limit=0) == []
    assert runner.list_runs(offset=1000) == []
    assert len(runner.list_runs(limit=2**62)) == 120


def test_a_listing_leaves_out_contexts_if_asked_to(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    runner.submit("good", {"n": 1}).result(30)
    (with_context,) = runner.list_runs()
    (without,) = runner.list_runs(contexts=False)
    assert with_context.pop("context") == {"n": 1}
    assert list(without) == list(with_context)
    assert "context" not in without


def test_get_run_shows_the_final_context_and_each_task(runner: cloaca.DefaultRunner) -> None:
    with cloaca.WorkflowBuilder("chain"):
        cloaca.task(id="first")(lambda context: context.set("first", 1))
        cloaca.task(id="second", dependencies=["first"], retry_attempts=1)(boom)
        cloaca.task(id="third", dependencies=["second"])(nothing)
    runner.execute("chain", {"given": 0})
    (row,) = runner.list_runs()
    found = runner.get_run(row["id"])
    assert found is not None
    assert {key: found[key] for key in row} == row
    assert found["context"] == {"given": 0}
    assert found["final_context"] == {"given": 0, "first": 1}
    tasks = {task["id"]: task for task in found["tasks"]}
    keys = "id status attempts error error_type started_at completed_at waits_until waits_since overdue_since"
    keys += " tries tries_left_out earlier_version"
    assert list(tasks["first"]) == keys.split()
    assert {name: task["status"] for name, task in tasks.items()} == {
        "first": "Completed",
        "second": "Failed",
        "third": "Skipped",
    }
    assert [tasks[name]["attempts"] for name in ("first", "second", "third")] == [1, 1, 0]
    assert tasks["second"]["error"] == "ValueError: boom"
    assert tasks["first"]["error"] is None
    assert tasks["first"]["completed_at"] <= tasks["second"]["completed_at"]


def test_get_run_counts_attempts(runner: cloaca.DefaultRunner) -> None:
    declare("stubborn", boom, retry_attempts=3, retry_delay_ms=0)
    runner.execute("stubborn")
    found = runner.get_run(runner.list_runs()[0]["id"])
    assert found is not None
    assert found["tasks"][0]["attempts"] == 3


def test_get_run_shows_a_run_that_is_under_way(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated")
    assert gate.entered.wait(WAIT)
    found = runner.get_run(run.id)
    gate.open.set()
    assert found is not None
    assert found["status"] == "Running"
    assert found["started_at"] is not None
    assert found["completed_at"] is None
    assert found["final_context"] is None
    assert [(task["id"], task["status"]) for task in found["tasks"]] == [("only", "Running")]


def test_get_run_of_an_unknown_id_is_none(runner: cloaca.DefaultRunner) -> None:
    assert runner.get_run("00000000-0000-7000-8000-000000000000") is None


def test_a_cancelled_run_starts_no_further_task(runner: cloaca.DefaultRunner) -> None:
    gate, ran = Gate(), []
    with cloaca.WorkflowBuilder("gated"):
        cloaca.task(id="first")(gate)
        cloaca.task(id="second", dependencies=["first"])(lambda context: ran.append(1))
    run = runner.submit("gated")
    assert gate.entered.wait(WAIT)
    run.cancel()
    gate.open.set()
    result = run.result(WAIT)
    assert result.status == "Cancelled"
    assert run.status == "Cancelled"
    assert ran == []
    assert runner.list_runs(status="Cancelled")[0]["id"] == run.id


def test_a_run_waiting_for_a_slot_can_be_cancelled_before_it_starts() -> None:
    gate = Gate()
    declare("gated", gate)
    declare("queued", nothing)
    settings = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    with cloaca.DefaultRunner.with_config(":memory:", settings) as runner:
        first = runner.submit("gated")
        assert gate.entered.wait(WAIT)
        second = runner.submit("queued")
        runner.cancel(second.id)
        assert second.result(WAIT).status == "Cancelled"
        gate.open.set()
        assert first.result(WAIT).status == "Completed"


def test_a_run_waiting_for_its_next_attempt_can_be_cancelled(runner: cloaca.DefaultRunner) -> None:
    failed = threading.Event()

    def body(context: cloaca.Context) -> None:
        failed.set()
        raise ValueError("boom")

    declare("patient", body, retry_attempts=2, retry_delay_ms=60_000)
    run = runner.submit("patient")
    assert failed.wait(WAIT)
    run.cancel()
    assert run.result(WAIT).status == "Cancelled"


def test_cancelling_a_final_run_changes_nothing(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    run = runner.submit("good")
    run.result(WAIT)
    before = runner.get_run(run.id)
    run.cancel()
    runner.cancel(run.id)
    assert runner.get_run(run.id) == before


def test_retry_runs_only_what_has_not_completed(runner: cloaca.DefaultRunner) -> None:
    calls: list[str] = []
    healed = False

    def second(context: cloaca.Context) -> None:
        calls.append("second")
        if not healed:
            raise ValueError("boom")
        context["second"] = context["first"] + 1

    with cloaca.WorkflowBuilder("chain"):

        @cloaca.task()
        def first(context: cloaca.Context) -> None:
            calls.append("first")
            context["first"] = 1

        cloaca.task(id="second", dependencies=[first], retry_attempts=1)(second)
        cloaca.task(id="third", dependencies=["second"])(lambda context: calls.append("third"))
    run = runner.submit("chain")
    assert run.result(WAIT).status == "Failed"
    healed = True
    again = runner.retry(run.id)
    assert again.id == run.id
    result = again.result(WAIT)
    assert result.status == "Completed"
    assert result.error_message is None
    assert result.final_context == {"first": 1, "second": 2}
    assert calls == ["first", "second", "second", "third"]
    assert len(runner.list_runs()) == 1


def test_a_run_is_retried_only_where_its_workflow_is_declared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    def boom(context: cloaca.Context) -> None:
        raise ValueError("boom")

    def declare() -> None:
        with cloaca.WorkflowBuilder("chain"):
            cloaca.task(id="only", retry_attempts=1)(boom)

    declare()
    with cloaca.DefaultRunner(url) as owner:
        run = owner.submit("chain")
        assert run.result(WAIT).status == "Failed"
        registry.clear()
        with cloaca.DefaultRunner(url) as stranger:
            with pytest.raises(cloaca.WorkflowError, match="'chain', which is not declared here"):
                stranger.retry(run.id)
            assert stranger.get_run(run.id)["status"] == "Failed"
        declare()
        assert owner.retry(run.id).result(WAIT).status == "Failed"


def test_a_run_that_fails_again_can_be_retried_again(runner: cloaca.DefaultRunner) -> None:
    declare("bad", boom)
    run = runner.submit("bad")
    run.result(WAIT)
    for _ in range(3):
        assert runner.retry(run.id).result(WAIT).status == "Failed"
    found = runner.get_run(run.id)
    assert found is not None
    assert "ValueError: boom" in found["error_message"]


def test_a_cancelled_run_can_be_retried(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    with cloaca.WorkflowBuilder("gated"):
        cloaca.task(id="first")(gate)
        cloaca.task(id="second", dependencies=["first"])(lambda context: context.set("second", True))
    run = runner.submit("gated")
    assert gate.entered.wait(WAIT)
    run.cancel()
    gate.open.set()
    assert run.result(WAIT).status == "Cancelled"
    assert runner.retry(run.id).result(WAIT).final_context == {"through": True, "second": True}


def test_a_run_that_is_under_way_cannot_be_retried(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated")
    assert gate.entered.wait(WAIT)
    with pytest.raises(ValueError, match="Running"):
        runner.retry(run.id)
    gate.open.set()
    assert run.result(WAIT).status == "Completed"


def test_a_run_is_not_retried_beside_an_unfinished_one_of_equal_context(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    bodies: list[Callable[[cloaca.Context], None]] = [boom, gate]
    declare("turns", lambda context: bodies.pop(0)(context))

    @cloaca.trigger(workflow="turns", poll_interval="24h")
    def watcher() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({"same": 1})

    runner.tick("watcher")
    assert eventually(lambda: runner.list_runs(status="Failed"))
    (failed,) = runner.list_runs()
    runner.tick("watcher")
    assert gate.entered.wait(WAIT)
    with pytest.raises(RuntimeError, match="unfinished"):
        runner.retry(failed["id"])
    gate.open.set()
    assert eventually(lambda: runner.list_runs(status="Completed"))


def test_a_run_fired_by_a_trigger_tells_its_trigger_and_run_key(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)

    @cloaca.trigger(workflow="good", poll_interval="24h")
    def watcher() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({"a": 1}, run_key="k")

    runner.tick("watcher")
    (row,) = runner.list_runs()
    assert (row["trigger_name"], row["run_key"], row["context"]) == ("watcher", "k", {"a": 1})


def test_tick_polls_now_and_tells_what_was_decided(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    answers: list[object] = [
        False,
        cloaca.TriggerResult.skip("nothing yet"),
        [cloaca.TriggerResult.fire({"n": n}, run_key=f"k{n}") for n in range(2)],
        True,
        ValueError("boom"),
    ]

    @cloaca.trigger(workflow="good", poll_interval="24h")
    def watcher() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def shape(outcome: str, reason: str | None = None, fires: object = ()) -> dict[str, object]:
        return {"outcome": outcome, "reason": reason, "fires": list(fires), "cursor": None}  # type: ignore[call-overload]

    assert runner.tick("watcher") == shape("skip")
    assert runner.tick("watcher") == shape("skip", "nothing yet")
    fires = [{"context": {"n": n}, "run_key": f"k{n}"} for n in range(2)]
    assert runner.tick("watcher") == shape("fire", fires=fires)
    assert runner.tick("watcher") == shape("fire", fires=[{"context": {}, "run_key": None}])
    assert runner.tick("watcher") == shape("error", "ValueError: boom")
    assert len(runner.list_runs(trigger="watcher")) == 3


def test_the_fires_of_a_tick_are_kept_when_it_returns(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)

    @cloaca.trigger(workflow="gated", poll_interval="24h")
    def watcher(tick: cloaca.Tick) -> bool:
        tick.cursor = {"seen": 1}
        return True

    assert runner.tick("watcher")["cursor"] == {"seen": 1}
    (row,) = runner.query("SELECT cursor FROM schedules WHERE name = 'watcher'")
    assert row == {"cursor": '{"seen":1}'}
    assert len(runner.query("SELECT id FROM runs")) == 1
    gate.open.set()


def test_a_dry_tick_calls_the_body_and_stores_nothing(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    seen = []

    @cloaca.trigger(workflow="good", poll_interval="24h")
    def watcher(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        seen.append(tick.cursor)
        tick.cursor = (tick.cursor or 0) + 1
        return [cloaca.TriggerResult.fire({"n": tick.cursor}, run_key="k")]

    def rows() -> list[list[dict[str, Any]]]:
        tables = ("schedules", "runs", "run_keys", "ticks", "tasks")
        return [runner.query(f"SELECT * FROM {table}") for table in tables]

    before, stats = rows(), runner.stats()
    expected = {
        "outcome": "fire",
        "reason": None,
        "fires": [{"context": {"n": 1}, "run_key": "k"}],
        "cursor": 1,
    }
    for _ in range(2):
        looked = runner.tick("watcher", dry_run=True)
        assert looked["fires"][0].pop("gate")["verdict"] == "run"
        assert looked == expected
    assert rows() == before
    assert runner.stats()["fires"] == stats["fires"]
    assert runner.ticks("watcher") == []
    assert runner.tick("watcher") == expected
    assert seen == [None, None, None]
    assert len(runner.list_runs()) == 1
    assert runner.tick("watcher", dry_run=True)["cursor"] == 2


def test_a_dry_tick_that_raises_tells_and_counts_no_failure(runner: cloaca.DefaultRunner) -> None:
    failures = []

    @cloaca.trigger(workflow="good", poll_interval="24h", max_consecutive_failures=1)
    def watcher(tick: cloaca.Tick) -> bool:
        failures.append(tick.consecutive_failures)
        raise ValueError("boom")

    for _ in range(3):
        assert runner.tick("watcher", dry_run=True)["reason"] == "ValueError: boom"
    assert failures == [0, 0, 0]
    schedule = runner.get_trigger_schedule("watcher")
    assert schedule is not None
    assert schedule["enabled"] is True


def test_a_disabled_trigger_can_be_ticked_by_hand(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)

    @cloaca.trigger(workflow="good", poll_interval="24h")
    def watcher() -> bool:
        return True

    runner.set_trigger_enabled("watcher", False)
    assert runner.tick("watcher", dry_run=True)["outcome"] == "fire"
    schedule = runner.get_trigger_schedule("watcher")
    assert schedule is not None
    assert schedule["enabled"] is False


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_comes_out_of_tick_and_leaves_the_trigger_usable(
    runner: cloaca.DefaultRunner, error: type[BaseException]
) -> None:
    answers: list[type[BaseException] | None] = [error, None]

    @cloaca.trigger(workflow="good", poll_interval="24h")
    def watcher() -> bool:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return False

    with pytest.raises(error):
        runner.tick("watcher")
    assert runner.tick("watcher")["outcome"] == "skip"


def test_an_async_trigger_can_be_ticked(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)

    @cloaca.trigger(workflow="good", poll_interval="24h")
    async def watcher(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        tick.cursor = 1
        return [cloaca.TriggerResult.fire({"a": 1})]

    told = runner.tick("watcher")
    assert (told["outcome"], told["cursor"]) == ("fire", 1)
    assert len(runner.list_runs()) == 1


def test_ticks_keeps_equal_answers_in_a_row_as_one_newest_first() -> None:
    answers = ["idle"] * 3 + ["busy"] * 2 + ["boom"] + ["idle"]

    @cloaca.trigger(workflow="good", poll_interval="1m", on_error=cloaca.Backoff(base="1m", factor=1))
    def watcher() -> cloaca.TriggerResult:
        reason = answers.pop(0)
        if reason == "boom":
            raise ValueError("boom")
        return cloaca.TriggerResult.skip(reason)

    with cloaca.testing.Runner() as runner:
        runner.advance("7m")
        ticks = runner.ticks("watcher")
        assert [(tick["outcome"], tick["reason"], tick["count"]) for tick in ticks] == [
            ("skip", "idle", 1),
            ("error", "ValueError: boom", 1),
            ("skip", "busy", 2),
            ("skip", "idle", 3),
        ]
        assert ticks[-1]["first_at"] == "2026-01-01T00:01:00.000000Z"
        assert ticks[-1]["last_at"] == "2026-01-01T00:03:00.000000Z"
        assert all(newer["first_at"] > older["last_at"] for newer, older in pairwise(ticks))
        assert runner.ticks("watcher", last=2) == ticks[:2]
        assert runner.ticks("watcher", last=0) == []


def test_the_ticks_of_a_trigger_that_was_never_polled_are_none(runner: cloaca.DefaultRunner) -> None:
    cloaca.trigger(workflow="good", name="watcher", poll_interval="24h")(lambda: False)
    assert runner.ticks("watcher") == []


def why_after(answer: Callable[[], object], span: str = "1m", **settings: Any) -> str:
    declare("good", nothing)
    cloaca.trigger(workflow="good", name="watcher", poll_interval="1m", **settings)(answer)
    with cloaca.testing.Runner() as runner:
        runner.advance(span)
        return runner.why("watcher")


def fails() -> bool:
    raise ValueError("boom")


def test_why_tells_the_reason_of_the_last_skip() -> None:
    told = why_after(lambda: cloaca.TriggerResult.skip("inbox empty"), "3m")
    assert "'watcher'" in told
    assert "inbox empty" in told
    assert "3 polls" in told


def test_why_tells_that_it_fired() -> None:
    assert "fired" in why_after(lambda: True)


def test_why_tells_a_failure_and_when_it_is_polled_again() -> None:
    told = why_after(fails)
    assert "ValueError: boom" in told
    assert "backs off until 2026-01-01T00:02" in told


def test_why_tells_that_it_was_not_polled_yet() -> None:
    assert "2026-01-01T00:01:00" in why_after(lambda: False, "1s")


def test_why_tells_that_too_many_failures_switched_it_off() -> None:
    told = why_after(fails, "1h", max_consecutive_failures=2)
    assert "is not polled" in told
    assert "engine disabled it" in told
    assert "ValueError: boom" in told


def test_why_tells_that_a_fire_was_deduplicated() -> None:
    told = why_after(lambda: cloaca.TriggerResult.fire({"a": 1}, run_key="k"), "2m")
    assert "deduplicated" in told
    assert "'k'" in told


def test_why_tells_that_it_was_switched_off(runner: cloaca.DefaultRunner) -> None:
    cloaca.trigger(workflow="good", name="watcher", poll_interval="24h")(lambda: False)
    runner.set_trigger_enabled("watcher", False)
    assert "set_trigger_enabled" in runner.why("watcher")


def test_why_tells_that_a_body_has_not_answered(runner: cloaca.DefaultRunner) -> None:
    entered, go = threading.Event(), threading.Event()

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def watcher() -> bool:
        entered.set()
        return not go.wait(WAIT)

    assert entered.wait(WAIT)
    told = runner.why("watcher")
    go.set()
    assert "being polled since" in told


def test_why_tells_that_the_workflow_is_unknown(runner: cloaca.DefaultRunner) -> None:
    cloaca.trigger(workflow="nope", name="watcher", poll_interval="24h")(lambda: True)
    runner.tick("watcher")
    assert "'nope'" in runner.why("watcher")


def test_stats_count_polls_fires_skips_errors_and_runs() -> None:
    declare("good", nothing)
    declare("bad", boom)
    fire = cloaca.TriggerResult.fire
    answers: list[object] = [
        False,
        True,
        [fire({"a": 1}, run_key="k"), fire({"a": 2}, run_key="k")],
        ValueError("boom"),
        None,
    ]

    @cloaca.trigger(workflow="good", poll_interval="1m", on_error=cloaca.Backoff(base="1m", factor=1))
    def watcher() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with cloaca.testing.Runner() as runner:
        start = runner.stats()
        assert {start[name] for name in ("polls", "fires", "skips", "deduplicated", "errors")} == {0}
        runner.advance("5m")
        runner.execute("bad")
        stats = runner.stats()
    expected = {
        "polls": 5,
        "skips": 1,
        "fires": 3,
        "deduplicated": 1,
        "errors": 2,
        "runs_started": 3,
        "runs_completed": 2,
        "runs_failed": 1,
        "runs_cancelled": 0,
        "runs_unfinished": 0,
        "bodies_overdue": 0,
    }
    assert {name: stats[name] for name in expected} == expected
    assert stats["late_max_ms"] >= stats["late_mean_ms"] >= 0


def test_stats_tell_the_latency_of_runs(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    runner.execute("good")
    latencies = {
        name: value for name, value in runner.stats().items() if "latency" in name or "latencies" in name
    }
    assert latencies, "stats() has lateness and latencies"


def test_stats_count_runs_that_are_not_final(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("gated", gate)
    run = runner.submit("gated")
    assert gate.entered.wait(WAIT)
    assert runner.stats()["runs_unfinished"] == 1
    gate.open.set()
    run.result(WAIT)
    assert eventually(lambda: runner.stats()["runs_unfinished"] == 0)


def test_changing_what_was_returned_changes_nothing_inside(runner: cloaca.DefaultRunner) -> None:
    declare("good", nothing)
    run = runner.submit("good", {"list": [1]})
    run.result(WAIT).final_context["list"].append(2)
    runner.list_runs()[0]["context"]["list"].append(3)
    runner.stats().clear()
    found = runner.get_run(run.id)
    assert found is not None
    assert found["context"] == found["final_context"] == {"list": [1]}
    assert runner.stats()["runs_completed"] == 1


@pytest.mark.parametrize("timeout", [0.01, "10ms", timedelta(milliseconds=10)])
def test_a_timeout_is_any_duration(timeout: Any) -> None:
    go = threading.Event()
    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="only")(lambda context: go.wait(30) and None)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("waits")
        with pytest.raises(TimeoutError, match=r"is not final after 0\.01 s"):
            run.result(timeout)
        with pytest.raises(TimeoutError, match=r"is not final after 0\.01 s"):
            runner.execute("waits", timeout=timeout)
        with pytest.raises(cloaca.ArgumentError, match="timeout is 'soon', which is no duration"):
            run.result("soon")
        go.set()
        assert run.result("30s").status == "Completed"
        runner.shutdown("1m")
