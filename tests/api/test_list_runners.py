"""What is told of a store's runners, and of when its triggers are due, to who is none of those that poll."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import flow
import pytest
from program import eventually, run_program, start_program

import cloaca
from cloaca import reading

POLLS = """
import sys, time, cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context):
        pass
@cloaca.trigger(workflow="w", poll_interval="1h")
def hourly():
    return cloaca.TriggerResult.skip()
runner = cloaca.DefaultRunner(sys.argv[1])
while runner.list_trigger_schedules()[0]["polled_by"] is None:
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""

NOTHING = {
    "polls": 0,
    "fires": 0,
    "errors": 0,
    "runs_started": 0,
    "runs_completed": 0,
    "runs_failed": 0,
    "runs_cancelled": 0,
}


def moment(stamp: str | None) -> datetime:
    assert stamp is not None
    return datetime.fromisoformat(stamp)


def test_a_runner_lists_itself(runner: cloaca.DefaultRunner) -> None:
    (mine,) = runner.list_runners()
    assert (mine["number"], mine["state"], mine["pid"]) == (1, "living", os.getpid())
    assert mine["version"]
    assert abs(datetime.now(UTC) - moment(mine["joined_at"])) < timedelta(minutes=1)
    assert (mine["seen_at"], mine["left_at"], mine["runs"]) == (None, None, 0)
    assert (mine["name"], mine["polls"]) == (None, 0)
    assert mine["last_hour"] == NOTHING
    with pytest.raises(ValueError, match="left"):
        runner.list_runners(left="yes")  # type: ignore[arg-type]


def test_a_runner_has_the_name_that_its_program_gives_it(tmp_path: Path) -> None:
    with (
        cloaca.DefaultRunner(tmp_path / "runs.db", name="billing 1") as first,
        cloaca.DefaultRunner(tmp_path / "runs.db", name="desk", work=False),
    ):
        assert [row["name"] for row in first.list_runners()] == ["desk", "billing 1"]
    for bad, text in (("", "empty"), (" ", "empty"), ("x" * 256, "at most 255")):
        with pytest.raises(ValueError, match=text):
            cloaca.DefaultRunner(":memory:", name=bad)
    with pytest.raises(TypeError, match="name is 7"):
        cloaca.DefaultRunner(":memory:", name=7)  # type: ignore[arg-type]


def test_triggers_that_are_switched_on_are_counted_where_they_are_polled(
    runner: cloaca.DefaultRunner,
) -> None:
    for name in ("a", "b", "c"):
        cloaca.trigger(workflow="w", name=name, poll_interval="1h")(cloaca.TriggerResult.skip)
    flow.declare("w", flow.nothing)
    polls = lambda: [row["polls"] for row in runner.list_runners()]  # noqa: E731
    assert eventually(lambda: polls() == [3])
    runner.set_trigger_enabled("b", False)
    assert polls() == [2]


def test_runs_in_hand_are_counted(runner: cloaca.DefaultRunner) -> None:
    gate = flow.Gate()
    flow.declare("w", gate)
    runs = [runner.submit("w") for _ in range(3)]
    assert runner.list_runners()[0]["runs"] == 3
    gate.open.set()
    for run in runs:
        run.result()
    assert runner.list_runners()[0]["runs"] == 0


def test_a_runner_that_left_has_said_what_it_did(tmp_path: Path) -> None:
    @cloaca.trigger(workflow="w", poll_interval="20ms", allow_concurrent=True)
    def often() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire()

    flow.declare("w", flow.nothing)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        assert eventually(lambda: runner.stats()["runs_completed"] >= 3)
    with cloaca.DefaultRunner(tmp_path / "runs.db", paused=True) as runner:
        assert [row["number"] for row in runner.list_runners()] == [2]
        _, left = runner.list_runners(left=True)
        assert (left["number"], left["state"]) == (1, "left")
        assert left["left_at"]
        counts = left["last_hour"]
        assert counts["polls"] >= 3
        assert counts["fires"] >= counts["runs_started"] >= counts["runs_completed"] >= 3
        assert (counts["runs_failed"], counts["runs_cancelled"], counts["errors"]) == (0, 0, 0)


def test_another_process_is_told_who_polls_and_when_and_that_it_died(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with start_program(POLLS, store) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with cloaca.DefaultRunner(store, paused=True) as runner:
            (row,) = runner.list_trigger_schedules()
            found = {known["pid"]: known for known in runner.list_runners()}
            assert found.keys() == {os.getpid(), other.pid}
            assert row["polled_by"] == found[other.pid]["number"]
            ahead = moment(row["next_poll_at"]) - datetime.now(UTC)
            assert timedelta(minutes=50) < ahead <= timedelta(hours=1)
            assert (row["late_since"], row["in_body_since"]) == (None, None)
            assert row == runner.get_trigger_schedule("hourly")
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert eventually(lambda: [row["state"] for row in runner.list_runners()] == ["paused", "dead"])
            (row,) = runner.list_trigger_schedules()
            assert (row["polled_by"], row["next_poll_at"]) == (None, None)


def test_what_nobody_polls_is_late_from_its_first_due_time_on(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    declared = run_program(POLLS.replace("time.sleep(600)", "runner.shutdown()"), store)
    assert declared.returncode == 0, declared.stderr
    began = datetime.now(UTC) - timedelta(hours=5)
    began_us = int(began.timestamp() * 1_000_000)
    with closing(sqlite3.connect(store)) as written, written:
        written.execute(
            "UPDATE schedules SET origin_at = :at, heeded_until = :at, taken_at = :at, last_at = NULL",
            {"at": began_us},
        )
        written.execute("UPDATE owners SET seen_at = ?", [began_us + 90 * 60 * 1_000_000])
    written.close()
    with cloaca.DefaultRunner(store, paused=True) as runner:
        (row,) = runner.list_trigger_schedules()
        assert abs(moment(row["late_since"]) - began - timedelta(hours=2)) < timedelta(seconds=1)
        assert row["next_poll_at"] is None
        runner.set_trigger_enabled("hourly", False)
        assert runner.list_trigger_schedules()[0]["late_since"] is None


def test_who_looks_from_outside_is_told_the_next_poll_of_a_failing_trigger_as_its_runner_tells_it(
    tmp_path: Path,
) -> None:
    @cloaca.trigger(workflow="w", poll_interval="300ms")
    def broken() -> cloaca.TriggerResult:
        raise OSError("no route to host")

    flow.declare("w", flow.nothing)
    path = tmp_path / "runs.db"
    seen: set[str] = set()
    with cloaca.DefaultRunner(path) as runner, reading.Reader(path) as reader:

        def due() -> str | None:
            row = runner.get_trigger_schedule("broken")
            return None if row is None or row["in_body_since"] else row["next_poll_at"]

        def is_told_thrice() -> bool:
            before, found, after = due(), reading.triggers(reader).items, due()
            if before is not None and before == after and found[0].failures and found[0].next_poll_at:
                ahead = moment(before) - datetime.now(UTC)
                # Neither on the point of being polled, nor amidst that.
                if ahead > timedelta(milliseconds=50):
                    assert abs(moment(found[0].next_poll_at) - moment(before)) < timedelta(milliseconds=20)
                    why = reading.why(reader, "broken")
                    if before == due():
                        assert f"backs off until {found[0].next_poll_at} after" in why
                    seen.add(before)
            return len(seen) >= 3

        assert eventually(is_told_thrice)


def test_a_runner_tells_of_another_ones_trigger_until_when_it_waits_and_how_old_that_is(
    tmp_path: Path,
) -> None:
    @cloaca.trigger(workflow="w", poll_interval="10ms")
    def broken() -> cloaca.TriggerResult:
        raise OSError("no route to host")

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def hourly() -> bool:
        return False

    flow.declare("w", flow.nothing)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path), cloaca.DefaultRunner(path, triggers=[]) as other:
        # Between two waits it says nothing of them.
        told = r", and backs off until \S+Z after \d+ failed polls? in a row; on record, as of \S+Z, it"
        assert eventually(lambda: re.search(told, other.why("broken"))), other.why("broken")
        assert other.why("hourly").endswith("; none of its polls is on record yet")


def test_a_runner_knows_when_its_own_triggers_are_due() -> None:
    @cloaca.trigger(workflow="w", poll_interval="1m")
    def minutely() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip()

    flow.declare("w", flow.nothing)
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
        runner.advance("30s")
        row: Any = runner.get_trigger_schedule("minutely")
        assert row["next_poll_at"] == "2026-01-01T00:01:00.000000Z"
        assert (row["polled_by"], row["late_since"]) == (1, None)
        runner.advance("1h")
        row = runner.get_trigger_schedule("minutely")
        assert row["next_poll_at"] == "2026-01-01T01:01:00.000000Z"
        assert row["late_since"] is None
        runner.set_trigger_enabled("minutely", False)
        row = runner.get_trigger_schedule("minutely")
        assert (row["next_poll_at"], row["late_since"]) == (None, None)
