"""`at=` and `delay=`: a run waits for its time in the store, and is whose turn it is then."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, declare, nothing
from program import Dated, eventually, run_program, start_program

import cloaca
import cloaca.testing
from cloaca import TriggerResult

fire, skip = TriggerResult.fire, TriggerResult.skip
START = datetime(2026, 1, 1, tzinfo=UTC)


def clocked(**settings: Any) -> cloaca.testing.Runner:
    config = cloaca.DefaultRunnerConfig(**settings)
    return cloaca.testing.Runner(start="2026-01-01T00:00:00Z", config=config)


def statuses(runner: cloaca.DefaultRunner) -> list[str]:
    """Oldest first."""
    return [row["status"] for row in reversed(runner.list_runs())]


def test_a_delayed_run_begins_when_it_is_due() -> None:
    declare("note")
    with clocked() as runner:
        run = runner.submit("note", {"n": 1}, delay="1h")
        runner.advance("59m")
        row = runner.get_run(run.id)
        assert row is not None
        assert (row["status"], row["due_at"]) == ("Pending", "2026-01-01T01:00:00.000000Z")
        assert run.why() == f"run {run.id} of workflow 'note' waits for its time, 2026-01-01T01:00:00.000000Z"
        runner.advance("1m")
        assert run.result(WAIT).status == "Completed"
        row = runner.get_run(run.id)
        assert row is not None
        assert (row["started_at"], row["created_at"]) == (row["due_at"], "2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize("at", ["2026-01-01T00:10:00Z", START + timedelta(minutes=10)])
def test_a_run_may_be_for_an_instant(at: Any) -> None:
    declare("note")
    with clocked() as runner:
        runs = runner.submit_many("note", [{"n": n} for n in range(3)], at=at)
        runner.advance("9m")
        assert statuses(runner) == ["Pending"] * 3
        runner.advance("1m")
        assert statuses(runner) == ["Completed"] * 3
        assert [run.status for run in runs] == ["Completed"] * 3


def test_what_is_due_already_begins_at_once() -> None:
    declare("note")
    with clocked() as runner:
        past = runner.submit("note", at=START - timedelta(days=1))
        now = runner.submit("note", delay=0)
        runner.run_until_idle()
        assert (past.status, now.status) == ("Completed", "Completed")
        assert (runner.get_run(past.id) or {})["due_at"] == "2025-12-31T00:00:00.000000Z"


def test_they_begin_in_the_order_of_their_times_and_then_by_priority() -> None:
    order: list[int] = []
    declare("note", lambda context: order.append(context["n"]))
    with clocked(max_concurrent_tasks=1) as runner:
        for n, (span, urgent) in enumerate([("3s", 9), ("1s", 1), ("2s", 5), ("1s", 9), ("1s", 5)]):
            runner.submit("note", {"n": n}, delay=span, priority=urgent)
        runner.advance("1m")
    assert order == [3, 4, 1, 2, 0]


def test_the_twins_delay_too() -> None:
    declare("note")

    async def main(runner: cloaca.DefaultRunner) -> None:
        await runner.submit_async("note", delay="1h")
        await runner.submit_async("note", at=START + timedelta(hours=1), run_key="k")

    with clocked() as runner:
        asyncio.run(main(runner))
        runner.advance("59m")
        assert statuses(runner) == ["Pending"] * 2
        runner.advance("1m")
        assert statuses(runner) == ["Completed"] * 2


def test_a_delayed_run_holds_its_key() -> None:
    declare("note")
    with clocked() as runner:
        run = runner.submit("note", run_key="order 7", delay="1h")
        assert runner.submit("note", run_key="order 7").id == run.id
        runner.run_until_idle()
        assert run.status == "Pending"


def test_a_delayed_run_is_cancelled_and_may_be_opened_again() -> None:
    declare("note")
    with clocked() as runner:
        run = runner.submit("note", delay="1h")
        run.cancel()
        assert run.result(WAIT).status == "Cancelled"
        assert runner.list_runs(status="Pending") == []
        again = runner.retry(run.id)
        runner.run_until_idle()
        assert again.result(WAIT).status == "Completed"
        runner.advance("2h")
        assert statuses(runner) == ["Completed"]


def test_a_delayed_fire_is_unfinished_for_its_hash_and_for_skip() -> None:
    declare("note")
    polls: list[str] = []

    @cloaca.trigger(workflow="note", poll_interval="1m", allow_concurrent=False)
    def equal() -> TriggerResult:
        return fire({"n": 1}, delay="3m30s")

    @cloaca.trigger(workflow="note", poll_interval="1m", overlap="skip", allow_concurrent=True)
    def skips(tick: cloaca.Tick) -> TriggerResult:
        polls.append(str(tick.unfinished))
        return fire({"n": len(polls)}, at=START + timedelta(minutes=4, seconds=10))

    with clocked() as runner:
        runner.advance("4m")
        assert {row["trigger_name"] for row in runner.list_runs()} == {"equal", "skips"}
        assert polls == ["0", "1", "1", "1"]
        assert "unfinished" in runner.why("equal") or "deduplicated" in runner.why("equal")
        runner.advance("1m")
        assert [row["status"] for row in runner.list_runs(trigger="equal")] == ["Pending", "Completed"]
        assert [row["status"] for row in runner.list_runs(trigger="skips")] == ["Completed", "Completed"]


def test_a_cancelled_delayed_fire_makes_room_for_the_next() -> None:
    declare("note")

    @cloaca.trigger(workflow="note", poll_interval="1m")
    def source() -> TriggerResult:
        return fire({"n": 1}, delay="1d")

    with clocked() as runner:
        runner.advance("1m")
        [row] = runner.list_runs()
        runner.cancel(row["id"])
        assert eventually(
            lambda: runner.tick("source", dry_run=True)["fires"][0]["gate"]["verdict"] == "queue"
        )
        runner.advance("1m")
        assert [row["status"] for row in runner.list_runs()] == ["Pending", "Cancelled"]


@pytest.mark.parametrize("overlap", ["queue", "buffer_one", "cancel_running"])
def test_a_trigger_whose_runs_wait_for_one_another_delays_none(overlap: Any) -> None:
    declare("note")

    @cloaca.trigger(workflow="note", poll_interval="1m", overlap=overlap)
    def source() -> TriggerResult:
        return fire({"n": 1}, delay="1h")

    with cloaca.testing.Runner(raise_errors=False) as runner:
        told = runner.tick("source", dry_run=True)
        assert told["outcome"] == "error"
        assert told["reason"] is not None
        assert told["reason"].startswith(f"TriggerError: delay is 1h, and overlap is '{overlap}'")
        runner.advance("1m")
        assert runner.list_runs() == []


def test_what_is_no_time_is_refused(runner: cloaca.DefaultRunner) -> None:
    declare("note")
    with pytest.raises(cloaca.ArgumentError, match="delay is 'soon', which is no duration"):
        runner.submit("note", delay="soon")
    with pytest.raises(cloaca.ArgumentError, match="delay is -1s"):
        runner.submit("note", delay=-1)
    with pytest.raises(cloaca.ArgumentError, match="at is 'tomorrow'; it must be a datetime, or a text"):
        runner.submit("note", at="tomorrow")
    with pytest.raises(cloaca.ArgumentError, match=r"at is .*; it must be a datetime, or a text"):
        runner.submit("note", at="2090-01-01T00:00:00Z\0")
    for beyond in ("9999-12-31T00:00:00Z", datetime.max, "0001-01-01T00:00:00+14:00"):
        with pytest.raises(
            cloaca.ArgumentError, match=r"at is .*; it must be from 0001-.* to 9999-12-30T22:"
        ):
            runner.submit("note", at=beyond)
        with pytest.raises(cloaca.TriggerError, match=r"at is .*; it must be from 0001-"):
            cloaca.TriggerResult.fire(at=beyond)
    with pytest.raises(cloaca.ArgumentError, match=r"at is .* and delay is '1h'; give one of them"):
        runner.submit("note", at=START, delay="1h")
    with pytest.raises(cloaca.TriggerError, match="give one of them"):
        fire(at=START, delay="1h")
    assert runner.list_runs() == []


def test_a_fire_says_what_was_asked_of_it() -> None:
    asked = fire({"n": 1}, priority=3, delay="90s")
    assert (asked.priority, asked.delay, asked.at) == (3, 90.0, None)
    assert fire(at=START).at == "2026-01-01T00:00:00.000000Z"
    assert asked == fire({"n": 1}, priority=3, delay=timedelta(seconds=90))
    assert asked != fire({"n": 1}, priority=3, delay="91s")
    assert len({asked, fire({"n": 1}, priority=3, delay=90), fire({"n": 1})}) == 2


def test_a_clock_that_jumps_ahead_brings_what_is_due(tmp_path: Path) -> None:
    declare("note")
    with clocked() as runner:
        run = runner.submit("note", at=START + timedelta(days=400))
        runner.advance("400d")
        assert run.status == "Completed"


SUBMITS = """
import os, sys, cloaca
with cloaca.WorkflowBuilder("note"):
    @cloaca.task(id="only")
    def only(context): pass
runner = cloaca.DefaultRunner(sys.argv[1])
run = runner.submit("note", {"n": 1}, delay=float(sys.argv[2]), priority=7)
print(run.id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_delayed_run_outlives_a_kill(tmp_path: Path) -> None:
    declare("note")
    file = tmp_path / "runs.db"
    soon = run_program(SUBMITS, file, "0.5").stdout.strip()
    late = run_program(SUBMITS, file, "3600").stdout.strip()
    with cloaca.DefaultRunner(file) as runner:
        assert runner.run(soon).result(WAIT).status == "Completed"
        row = runner.get_run(late)
        assert row is not None
        assert (row["status"], row["priority"]) == ("Pending", 7)


WORKS = """
import sys, time, cloaca
with cloaca.WorkflowBuilder("note"):
    @cloaca.task(id="only")
    def only(context): context["begun"] = time.time()
with cloaca.DefaultRunner(sys.argv[1]) as runner:
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_client_delays_for_whoever_works_then(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with start_program(WORKS, file) as program, cloaca.DefaultRunner(file, work=False) as client:
        try:
            assert program.stdout.readline().strip() == "ready"
            assert eventually(lambda: bool(client.query("SELECT 1 FROM workflows")))
            due = time.time() + 0.5
            runs = client.submit_many(
                "note", [{"n": n} for n in range(3)], at=datetime.fromtimestamp(due, UTC)
            )
            late = client.submit("note", delay="1h")
            assert "waits for its time" in late.why()
            for run in runs:
                assert run.result(60).final_context["begun"] >= due - 1e-3
            late.cancel()
            assert late.result(60).status == "Cancelled"
        finally:
            program.kill()


def test_who_takes_nothing_over_runs_what_it_has_delayed(tmp_path: Path) -> None:
    declare("note")
    with cloaca.DefaultRunner(tmp_path / "runs.db", enable_recovery=False) as runner:
        assert runner.submit("note", delay=0.2).result(WAIT).status == "Completed"


def test_a_runner_that_takes_what_is_due_says_nothing_of_runs_resumed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    declare("note", nothing)
    with caplog.at_level("DEBUG", "cloaca"), clocked() as runner:
        runner.submit("note", delay="1s")
        runner.advance("1s")
    assert "resume" not in caplog.text


def test_many_delayed_runs_cost_one_timer_and_no_memory_in_hand() -> None:
    declare("note")
    with clocked() as runner:
        runner.submit_many("note", [{"n": n} for n in range(5_000)], delay="1h")
        assert runner.stats()["runs_unfinished"] == 0
        runner.advance("1h")
        assert runner.stats()["runs_completed"] == 5_000


def test_a_delay_that_was_given_while_the_clock_was_ahead_is_as_long_as_it_was_to_be(tmp_path: Path) -> None:
    declare("note")

    @cloaca.trigger(workflow="note", poll_interval="1m", name="inbox")
    def inbox() -> TriggerResult:
        return fire({"file": "a"}, delay="1h")

    url = str(tmp_path / "a.db")
    with Dated(url, "2027-06-01T12:00:00Z") as ahead:
        asked = ahead.submit("note", {"n": 1}, delay="2h")
        pointed = ahead.submit("note", {"n": 2}, at="2027-06-01T13:00:00Z")
        ahead.advance("1m")
        assert statuses(ahead) == ["Pending"] * 3
    with Dated(url, "2026-03-01T12:00:00Z") as runner:
        due = "2026-03-01T14:00:00.000000Z"
        assert eventually(lambda: (runner.get_run(asked.id) or {})["due_at"] == due)
        runner.advance("1h")
        fired = runner.list_runs(trigger="inbox")[-1]
        assert (fired["status"], fired["started_at"]) == ("Completed", "2026-03-01T13:00:00.000000Z")
        runner.advance("1h")
        assert (runner.get_run(asked.id) or {})["started_at"] == due
        # An instant is one, whatever the clock says.
        assert (runner.get_run(pointed.id) or {})["due_at"] == "2027-06-01T13:00:00.000000Z"
        assert (runner.get_run(pointed.id) or {})["status"] == "Pending"
