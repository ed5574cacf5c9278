"""Cron: schedules by the calendar, their rows, their runs, and what becomes of the moments of a downtime."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flow import WAIT, declare
from program import Dated, eventually, run_program

import cloaca
import cloaca.testing
from cloaca import reading

NOWHERE = "00000000-0000-7000-8000-000000000000"
KEYS = (
    "id trigger_name workflow_name cron_expression timezone enabled catchup_policy "
    "next_run_at last_run_at created_at updated_at disabled_at registered context overlap catchup declared"
)
HISTORY_KEYS = "id schedule_id scheduled_time claimed_at workflow_execution_id created_at updated_at"


@pytest.fixture(autouse=True)
def workflow() -> None:
    declare("good")


def moments(runner: cloaca.DefaultRunner, schedule_id: str) -> list[str]:
    """The moments that ran, oldest first."""
    history = runner.get_cron_execution_history(schedule_id, limit=10_000)
    return [row["scheduled_time"] for row in reversed(history)]


def at(text: str) -> str:
    return f"{text}.000000Z"


def test_a_schedule_has_a_row_with_its_settings() -> None:
    with cloaca.testing.Runner(start="2026-03-01T10:00:00Z") as runner:
        schedule_id = runner.register_cron_workflow("good", "30 12 * * *", "Europe/Berlin")
        row = runner.get_cron_schedule(schedule_id)
        assert list(row) == KEYS.split()
        assert UUID(row["id"]) == UUID(schedule_id)
        assert row["workflow_name"] == "good"
        assert row["cron_expression"] == "30 12 * * *"
        assert row["timezone"] == "Europe/Berlin"
        assert row["enabled"] is True
        assert isinstance(row["catchup_policy"], str)
        assert row["next_run_at"] == at("2026-03-01T11:30:00")
        assert row["last_run_at"] is None
        assert row["created_at"] == row["updated_at"] == at("2026-03-01T10:00:00")
        assert runner.list_cron_schedules() == [row]


def test_the_same_three_again_are_one_schedule(runner: cloaca.DefaultRunner) -> None:
    declare("other")
    first = runner.register_cron_workflow("good", "0 3 * * *", "UTC")
    assert runner.register_cron_workflow("good", "0 3 * * *", "UTC") == first
    assert runner.register_cron_workflow("good", "0 3 * * *") == first
    others = {
        runner.register_cron_workflow("other", "0 3 * * *", "UTC"),
        runner.register_cron_workflow("good", "0 4 * * *", "UTC"),
        runner.register_cron_workflow("good", "0 3 * * *", "Asia/Tokyo"),
    }
    assert len(others | {first}) == 4
    assert len(runner.list_cron_schedules()) == 4


def test_a_name_schedules_one_workflow_twice_with_contexts_of_its_own() -> None:
    with cloaca.testing.Runner(start="2026-03-01T00:00:00Z") as runner:
        ids = {
            name: runner.register_cron_workflow("good", "0 3 * * *", name=name, context={"region": name})
            for name in ("eu", "us")
        }
        plain = runner.register_cron_workflow("good", "0 3 * * *")
        assert len({plain, *ids.values()}) == 3
        runner.advance("1d")
        runs = {run["trigger_name"]: run["context"] for run in runner.list_runs()}
        moment = {
            "scheduled_time": at("2026-03-01T03:00:00"),
            "schedule_timezone": "UTC",
            "schedule_expression": "0 3 * * *",
        }
        assert runs == {
            "eu": {"region": "eu", "schedule_id": ids["eu"], **moment},
            "us": {"region": "us", "schedule_id": ids["us"], **moment},
            None: {"schedule_id": plain, **moment},
        }
        assert [run["trigger_name"] for run in runner.list_runs(trigger="eu")] == ["eu"]
        assert len(runner.get_trigger_execution_history("eu")) == 1
        rows = {row["trigger_name"]: row for row in runner.list_cron_schedules()}
        assert rows["eu"]["context"] == {"region": "eu"}
        assert (rows["eu"]["registered"], rows["eu"]["declared"]) == (True, False)
        assert rows[None]["context"] is None
        assert runner.tick("us", dry_run=True)["fires"][0]["context"]["region"] == "us"
        assert "'us' is a cron, '0 3 * * *' in 'UTC', and runs next at 2026-03-02T03" in runner.why("us")


def test_a_name_registered_again_changes_its_schedule(tmp_path: Path) -> None:
    declare("other")
    url = str(tmp_path / "a.db")
    with Dated(url, "2026-03-01T00:00:00Z") as runner:
        first = runner.register_cron_workflow("good", "0 3 * * *", name="nightly", context={"deep": True})
        assert runner.register_cron_workflow("good", "0 3 * * *", name="nightly") == first
        assert runner.get_cron_schedule(first)["context"] is None
        runner.update_cron_schedule(first, "0 7 * * *", "UTC")
    with Dated(url, "2026-03-01T00:00:00Z") as runner:
        assert runner.register_cron_workflow("good", "0 3 * * *", name="nightly") == first
        assert runner.get_cron_schedule(first)["cron_expression"] == "0 7 * * *", "until the call changes"
        assert runner.register_cron_workflow("other", "0 5 * * *", "Asia/Tokyo", name="nightly") == first
        (row,) = runner.list_cron_schedules()
        assert (row["workflow_name"], row["cron_expression"]) == ("other", "0 5 * * *")
        assert row["next_run_at"] == at("2026-03-01T20:00:00")
        runner.advance("1d")
        assert [run["workflow_name"] for run in runner.list_runs()] == ["other"]


def test_a_name_or_context_that_cannot_be_kept_is_refused(runner: cloaca.DefaultRunner) -> None:
    opening = "Failed to register cron workflow"
    for name in ("", "a::b", 3):
        with pytest.raises(cloaca.ScheduleError, match=f"{opening}: name is "):
            runner.register_cron_workflow("good", "0 3 * * *", name=name)  # type: ignore[arg-type]
    with pytest.raises(cloaca.ScheduleError, match=f"{opening}: context holds schedule_id"):
        runner.register_cron_workflow("good", "0 3 * * *", context={"schedule_id": "mine", "a": 1})
    with pytest.raises(cloaca.ContextError, match="the context of a cron"):
        runner.register_cron_workflow("good", "0 3 * * *", context={"text": "x" * 20_000_000})
    with pytest.raises(TypeError):
        runner.register_cron_workflow("good", "0 3 * * *", context={"a": object()})
    assert runner.list_cron_schedules() == []


def test_numbers_in_a_crons_context_arrive_as_they_were_written() -> None:
    seen: list[object] = []
    declare("reads", lambda context: seen.append(context["big"]))
    with cloaca.testing.Runner(start="2026-03-01T00:00:00Z") as runner:
        runner.register_cron_workflow("reads", "0 3 * * *", context={"big": 2**80 + 1})
        runner.register_cron_workflow("reads", "0 4 * * *", context={"big": {}})
        runner.register_cron_workflow("good", "0 4 * * *", context={})
        runner.advance("1d")
        assert seen == [2**80 + 1, {}]


def test_runs_of_a_name_that_was_polled_and_is_a_cron_are_found_by_it() -> None:
    cloaca.trigger(workflow="good", name="both", poll_interval="1h")(lambda: True)
    with cloaca.testing.Runner(start="2026-03-01T00:30:00Z") as runner:
        runner.advance("1h")
        cloaca.trigger(workflow="good", name="both", cron="0 3 * * *")(lambda: True)
        runner.advance("1d")
        assert len(runner.list_runs(trigger="both")) == 2
        assert {run["trigger_name"] for run in runner.list_runs()} == {"both"}
        assert [run["trigger_name"] for run in runner.list_runs(trigger="both", limit=1)] == ["both"]


def test_registering_again_keeps_what_was_switched_off(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as runner:
        schedule_id = runner.register_cron_workflow("good", "0 3 * * *", "UTC")
        runner.set_cron_schedule_enabled(schedule_id, False)
    with cloaca.DefaultRunner(url) as runner:
        assert runner.register_cron_workflow("good", "0 3 * * *", "UTC") == schedule_id
        assert runner.get_cron_schedule(schedule_id)["enabled"] is False


def test_schedules_run_at_each_moment_and_never_before() -> None:
    with cloaca.testing.Runner(start="2026-03-01T00:00:30Z") as runner:
        schedule_id = runner.register_cron_workflow("good", "*/15 * * * *", "UTC")
        runner.advance("14m29s")
        assert runner.list_runs() == []
        runner.advance("1s")
        assert len(runner.list_runs()) == 1
        runner.advance("1h")
        assert moments(runner, schedule_id) == [
            at(f"2026-03-01T{time}:00") for time in ("00:15", "00:30", "00:45", "01:00", "01:15")
        ]
        row = runner.get_cron_schedule(schedule_id)
        assert row["next_run_at"] == at("2026-03-01T01:30:00")
        assert row["last_run_at"] == at("2026-03-01T01:15:00")
        assert {run["status"] for run in runner.list_runs()} == {"Completed"}


def test_six_fields_start_with_seconds() -> None:
    with cloaca.testing.Runner(start="2026-03-01T00:00:00Z") as runner:
        schedule_id = runner.register_cron_workflow("good", "*/20 * * * * *", "UTC")
        runner.advance("1m")
        assert moments(runner, schedule_id) == [
            at(f"2026-03-01T00:{time}") for time in ("00:20", "00:40", "01:00")
        ]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@daily", ["2026-03-02T00:00:00", "2026-03-03T00:00:00"]),
        ("@hourly", ["2026-03-01T12:00:00", "2026-03-01T13:00:00"]),
        ("@weekly", ["2026-03-08T00:00:00", "2026-03-15T00:00:00"]),
        ("@monthly", ["2026-04-01T00:00:00", "2026-05-01T00:00:00"]),
        ("@yearly", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        ("0 9 * * MON-FRI", ["2026-03-02T09:00:00", "2026-03-03T09:00:00"]),
        ("0 9 1 JAN,jul *", ["2026-07-01T09:00:00", "2027-01-01T09:00:00"]),
        ("0 0 13 * FRI", ["2026-03-06T00:00:00", "2026-03-13T00:00:00"]),
        ("0 0 * * 7", ["2026-03-08T00:00:00", "2026-03-15T00:00:00"]),
        ("0 0 * * 0", ["2026-03-08T00:00:00", "2026-03-15T00:00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("59 23 31 12 *", ["2026-12-31T23:59:00", "2027-12-31T23:59:00"]),
    ],
)
def test_the_usual_rules_of_cron_hold(expression: str, expected: list[str]) -> None:
    with cloaca.testing.Runner(start="2026-03-01T11:30:00Z") as runner:
        schedule_id = runner.register_cron_workflow("good", expression, "UTC")
        found = []
        for _ in expected:
            due = runner.get_cron_schedule(schedule_id)["next_run_at"]
            found.append(due)
            runner.advance(datetime.fromisoformat(due) - datetime.fromisoformat(runner.now))
        assert found == [at(time) for time in expected]
        assert moments(runner, schedule_id) == found


def test_a_local_time_that_is_skipped_runs_once_at_the_jump() -> None:
    with cloaca.testing.Runner(start="2026-03-28T12:00:00Z") as runner:
        schedule_id = runner.register_cron_workflow("good", "30 2 * * *", "Europe/Berlin")
        runner.advance("48h")
        assert moments(runner, schedule_id) == [at("2026-03-29T01:00:00"), at("2026-03-30T00:30:00")]


def test_a_local_time_that_is_repeated_runs_once() -> None:
    with cloaca.testing.Runner(start="2026-10-24T12:00:00Z") as runner:
        schedule_id = runner.register_cron_workflow("good", "30 2 * * *", "Europe/Berlin")
        runner.advance("48h")
        assert moments(runner, schedule_id) == [at("2026-10-25T00:30:00"), at("2026-10-26T01:30:00")]


def test_an_interval_goes_on_through_both_changes_of_the_clocks() -> None:
    for start in ("2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z"):
        with cloaca.testing.Runner(start=start) as runner:
            schedule_id = runner.register_cron_workflow("good", "*/30 * * * *", "Europe/Berlin")
            runner.advance("3h")
            times = [datetime.fromisoformat(time) for time in moments(runner, schedule_id)]
            first = datetime.fromisoformat(start)
            assert times == [first + n * timedelta(minutes=30) for n in range(1, 7)]


def test_list_filters_and_pages_in_the_order_of_registration(runner: cloaca.DefaultRunner) -> None:
    ids = [runner.register_cron_workflow("good", f"{n % 60} {n // 60} * * *", "UTC") for n in range(110)]
    runner.set_cron_schedule_enabled(ids[1], False)

    def found(**page: Any) -> list[str]:
        return [row["id"] for row in runner.list_cron_schedules(**page)]

    assert found() == ids[:100]
    assert found(limit=3, offset=108) == ids[108:]
    assert found(enabled_only=True, limit=3) == [ids[0], ids[2], ids[3]]
    assert found(enabled_only=False, limit=2) == ids[:2]
    assert found(limit=0) == []


def test_a_disabled_schedule_does_not_run_and_makes_nothing_up() -> None:
    with cloaca.testing.Runner() as runner:
        schedule_id = runner.register_cron_workflow("good", "0 * * * *", "UTC")
        runner.advance("2h")
        runner.set_cron_schedule_enabled(schedule_id, False)
        runner.advance("5h")
        assert len(runner.list_runs()) == 2
        runner.set_cron_schedule_enabled(schedule_id, True)
        runner.run_until_idle()
        assert len(runner.list_runs()) == 2, "moments of the time when it was off were made up"
        runner.advance("1h")
        assert moments(runner, schedule_id)[2:] == [at("2026-01-01T08:00:00")]


def test_an_updated_schedule_runs_by_its_new_expression_only() -> None:
    with cloaca.testing.Runner() as runner:
        schedule_id = runner.register_cron_workflow("good", "0 * * * *", "UTC")
        runner.advance("1h")
        runner.update_cron_schedule(schedule_id, "30 6 * * *", "Asia/Tokyo")
        row = runner.get_cron_schedule(schedule_id)
        assert (row["cron_expression"], row["timezone"]) == ("30 6 * * *", "Asia/Tokyo")
        assert row["next_run_at"] == at("2026-01-01T21:30:00")
        assert row["updated_at"] == at("2026-01-01T01:00:00") != row["created_at"]
        runner.advance("24h")
        assert moments(runner, schedule_id) == [at("2026-01-01T01:00:00"), at("2026-01-01T21:30:00")]


def test_a_schedule_is_not_updated_into_another_ones_place(runner: cloaca.DefaultRunner) -> None:
    taken = runner.register_cron_workflow("good", "0 3 * * *", "UTC")
    other = runner.register_cron_workflow("good", "0 4 * * *", "UTC")
    with pytest.raises(cloaca.CloacaError, match="Failed to update cron schedule"):
        runner.update_cron_schedule(other, "0 3 * * *", "UTC")
    assert runner.get_cron_schedule(other)["cron_expression"] == "0 4 * * *"
    assert runner.get_cron_schedule(taken)["cron_expression"] == "0 3 * * *"


def test_a_bad_update_changes_nothing(runner: cloaca.DefaultRunner) -> None:
    schedule_id = runner.register_cron_workflow("good", "0 3 * * *", "UTC")
    before = runner.get_cron_schedule(schedule_id)
    for expression, timezone in (("nope", "UTC"), ("0 3 * * *", "Mars/Olympus"), ("30 2 30 2 *", "UTC")):
        with pytest.raises(ValueError, match="Failed to update cron schedule"):
            runner.update_cron_schedule(schedule_id, expression, timezone)
    assert runner.get_cron_schedule(schedule_id) == before


def test_a_deleted_schedule_runs_no_more_and_its_runs_stay() -> None:
    with cloaca.testing.Runner() as runner:
        schedule_id = runner.register_cron_workflow("good", "0 * * * *", "UTC")
        runner.advance("2h")
        runner.delete_cron_schedule(schedule_id)
        runner.advance("5h")
        assert len(runner.list_runs()) == 2
        assert runner.list_cron_schedules() == []
        for call in (
            lambda: runner.get_cron_schedule(schedule_id),
            lambda: runner.delete_cron_schedule(schedule_id),
            lambda: runner.get_cron_execution_history(schedule_id),
        ):
            with pytest.raises(ValueError, match=schedule_id):
                call()
        again = runner.register_cron_workflow("good", "0 * * * *", "UTC")
        assert again != schedule_id
        assert runner.get_cron_execution_history(again) == []


def test_history_tells_each_moment_newest_first() -> None:
    with cloaca.testing.Runner() as runner:
        schedule_id = runner.register_cron_workflow("good", "0 * * * *", "UTC")
        runner.advance("3h")
        history = runner.get_cron_execution_history(schedule_id)
        assert [list(row) for row in history] == [HISTORY_KEYS.split()] * 3
        assert [row["scheduled_time"] for row in history] == [
            at(f"2026-01-01T0{hour}:00:00") for hour in (3, 2, 1)
        ]
        assert {row["schedule_id"] for row in history} == {schedule_id}
        runs = {run["id"]: run for run in runner.list_runs()}
        for row in history:
            run = runs[row["workflow_execution_id"]]
            assert row["scheduled_time"] == row["claimed_at"] == row["created_at"] == run["created_at"]
            assert row["updated_at"] == run["completed_at"]
        assert [row["workflow_execution_id"] for row in history] == [run["id"] for run in runner.list_runs()]
        assert runner.get_cron_execution_history(schedule_id, limit=1, offset=1) == history[1:2]
        assert runner.get_cron_execution_history(schedule_id, offset=3) == []


def test_history_holds_100_moments_by_default() -> None:
    with cloaca.testing.Runner() as runner:
        schedule_id = runner.register_cron_workflow("good", "* * * * * *", "UTC")
        runner.advance("105s")
        assert len(runner.get_cron_execution_history(schedule_id)) == 100
        assert len(runner.get_cron_execution_history(schedule_id, limit=1000)) == 105


def test_stats_count_runs_since_a_time() -> None:
    results = [True, False, True, True]

    def body(context: cloaca.Context) -> None:
        if not results.pop(0):
            raise ValueError("boom")

    declare("mixed", body)
    with cloaca.testing.Runner() as runner:
        assert runner.get_cron_execution_stats("2025-01-01T00:00:00Z") == {
            "total_executions": 0,
            "successful_executions": 0,
            "lost_executions": 0,
            "success_rate": 0.0,
        }
        runner.register_cron_workflow("mixed", "0 * * * *", "UTC")
        runner.execute("good")
        runner.advance("4h")
        whole = runner.get_cron_execution_stats("2026-01-01T00:00:00Z")
        assert whole == {
            "total_executions": 4,
            "successful_executions": 3,
            "lost_executions": 0,
            "success_rate": 75.0,
        }
        assert [type(value) for value in whole.values()] == [int, int, int, float]
        later = runner.get_cron_execution_stats("2026-01-01T02:30:00Z")
        assert (later["total_executions"], later["success_rate"]) == (2, 100.0)
        assert runner.get_cron_execution_stats("2026-01-01T03:30:00+01:00") == later
        assert runner.get_cron_execution_stats(datetime(2026, 1, 1, 2, 30, tzinfo=UTC)) == later


def test_a_run_that_takes_longer_than_its_interval_does_not_hold_up_the_next_moment() -> None:
    barrier = threading.Barrier(2)
    declare("slow", lambda context: barrier.wait(WAIT) and None)
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.register_cron_workflow("slow", "* * * * * *", "UTC")
        assert eventually(lambda: len(runner.list_runs(status="Completed")) >= 2)


def test_a_cron_runs_by_the_real_clock(runner: cloaca.DefaultRunner) -> None:
    schedule_id = runner.register_cron_workflow("good", "* * * * * *", "UTC")
    assert eventually(lambda: runner.list_runs(status="Completed"))
    row = runner.get_cron_execution_history(schedule_id)[-1]
    moment, claimed = (datetime.fromisoformat(row[key]) for key in ("scheduled_time", "claimed_at"))
    assert timedelta(0) <= claimed - moment < timedelta(seconds=5)
    run = runner.get_run(row["workflow_execution_id"])
    assert run is not None
    assert (row["claimed_at"], row["updated_at"]) == (run["created_at"], run["completed_at"])
    assert moment.microsecond == 0


def test_a_cron_of_a_workflow_that_is_declared_later_runs_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with cloaca.testing.Runner() as runner:
        schedule_id = runner.register_cron_workflow("late", "0 * * * *", "UTC")
        runner.advance("1h")
        assert eventually(lambda: [record for record in caplog.records if "late" in record.getMessage()])
        declare("late")
        runner.advance("1h")
        assert {run["status"] for run in runner.list_runs(workflow="late")} == {"Completed"}
        assert at("2026-01-01T02:00:00") in moments(runner, schedule_id)


def test_a_cron_trigger_schedules_its_workflow_and_its_function_is_not_polled() -> None:
    calls = []
    settings = {"workflow": "good", "cron": "0 6 * * *", "timezone": "Asia/Tokyo"}
    cloaca.trigger(name="morning", **settings)(lambda: calls.append(1))  # type: ignore[call-overload]
    with cloaca.testing.Runner() as runner:
        (row,) = runner.list_cron_schedules()
        assert row["next_run_at"] == at("2026-01-01T21:00:00")
        runner.advance("48h")
        assert moments(runner, row["id"]) == [at("2026-01-01T21:00:00"), at("2026-01-02T21:00:00")]
    assert calls == []


def test_a_cron_trigger_and_the_same_three_by_hand_are_two_schedules() -> None:
    cloaca.trigger(workflow="good", cron="0 6 * * *", name="morning")(lambda: False)
    with cloaca.testing.Runner() as runner:
        schedule_id = runner.register_cron_workflow("good", "0 6 * * *", "UTC")
        declared, registered = runner.list_cron_schedules()
        assert (declared["trigger_name"], registered["trigger_name"]) == ("morning", None)
        assert registered["id"] == schedule_id


LATE = """
    import sqlite3, sys, time
    path, seconds = sys.argv[1], float(sys.argv[2])
    database = sqlite3.connect(path)
    second = 1_000_000
    due = (int(time.time()) - int(seconds)) * second
    move = "UPDATE schedules SET next_at = ?, decided = ? WHERE kind = 'cron'"
    changed = database.execute(move, (due, f"[[{due - 1},{due - 1}]]"))
    assert changed.rowcount == 1
    database.commit()
    database.close()
"""


def after_downtime(
    tmp_path: Path, hours: int, expression: str = "0 * * * *", **fields: int
) -> tuple[str, str]:
    """The URL and id of a store whose one schedule was last due so many hours ago, while nobody ran."""
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as runner:
        schedule_id = runner.register_cron_workflow("good", expression, "UTC")
    assert run_program(LATE, url, hours * 3600).returncode == 0
    return url, schedule_id


def reopened(url: str, catchup: int) -> cloaca.DefaultRunner:
    config = cloaca.DefaultRunnerConfig(cron_max_catchup_executions=catchup)
    return cloaca.DefaultRunner.with_config(url, config)


def settled(runner: cloaca.DefaultRunner, schedule_id: str) -> list[datetime]:
    """The moments that ran, once the schedule is due in the future and no run is under way."""

    def is_settled() -> bool:
        due = runner.get_cron_schedule(schedule_id)["next_run_at"]
        unfinished = runner.query("SELECT id FROM runs WHERE completed_at IS NULL")
        return datetime.fromisoformat(due) > datetime.now(UTC) and not unfinished

    assert eventually(is_settled)
    return [datetime.fromisoformat(time) for time in moments(runner, schedule_id)]


def missed(hours: int) -> range:
    """How many hourly moments lie in so many hours up to now; an hour may turn meanwhile."""
    return range(hours, hours + 2)


def test_the_moments_of_a_downtime_are_made_up_at_most_as_many_as_configured(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 50)
    with reopened(url, 7) as runner:
        times = settled(runner, schedule_id)
        assert len(times) in (7, 8)
        assert times == sorted(set(times))
        assert {run["status"] for run in runner.list_runs()} == {"Completed"}


def test_by_default_the_latest_100_moments_of_a_downtime_are_made_up(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 200)
    with cloaca.DefaultRunner(url) as runner:
        times = settled(runner, schedule_id)
    assert len(times) in (100, 101)
    assert datetime.now(UTC) - times[-1] < timedelta(hours=1, minutes=5), "the newest moments were left out"
    assert all(later - earlier == timedelta(hours=1) for earlier, later in itertools.pairwise(times))


def test_a_short_downtime_is_made_up_in_full(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 5)
    with cloaca.DefaultRunner(url) as runner:
        times = settled(runner, schedule_id)
    assert len(times) in missed(5)
    assert datetime.now(UTC) - times[-1] < timedelta(hours=1, minutes=5)


def test_no_moment_of_a_downtime_is_made_up_when_none_is_to_be(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 50, "0 * * * *")
    with reopened(url, 0) as runner:
        assert len(settled(runner, schedule_id)) <= 1


def test_what_was_made_up_is_not_made_up_again(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 5)
    with cloaca.DefaultRunner(url) as runner:
        times = settled(runner, schedule_id)
    with cloaca.DefaultRunner(url) as runner:
        assert len(settled(runner, schedule_id)) in (len(times), len(times) + 1)
    assert run_program(LATE, url, 5 * 3600).returncode == 0
    with cloaca.DefaultRunner(url) as runner:
        again = settled(runner, schedule_id)
        assert len(again) == len(set(again)), "a moment ran twice"
        assert set(times) <= set(again)


def test_a_downtime_of_years_of_seconds_opens_at_once(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 24 * 365 * 5, "* * * * * *")
    with reopened(url, 10) as runner:
        assert eventually(lambda: len(moments(runner, schedule_id)) >= 10, 5)
        runner.delete_cron_schedule(schedule_id)


def test_a_disabled_schedule_makes_nothing_up(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 50)
    assert (
        run_program(LATE.replace("next_at = ?", "enabled = 0, next_at = ?"), url, 50 * 3600).returncode == 0
    )
    with cloaca.DefaultRunner(url) as runner:
        runner.execute("good")
        assert moments(runner, schedule_id) == []


def test_without_cron_scheduling_a_downtime_is_left_to_the_next_runner(tmp_path: Path) -> None:
    url, schedule_id = after_downtime(tmp_path, 5)
    config = cloaca.DefaultRunnerConfig(enable_cron_scheduling=False)
    with cloaca.DefaultRunner.with_config(url, config) as runner:
        runner.execute("good")
        assert moments(runner, schedule_id) == []
    with cloaca.DefaultRunner(url) as runner:
        assert len(settled(runner, schedule_id)) in missed(5)


def test_a_restart_between_two_moments_changes_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as runner:
        schedule_id = runner.register_cron_workflow("good", "0 0 1 1 *", "UTC")
        row = runner.get_cron_schedule(schedule_id)
    with cloaca.DefaultRunner(url) as runner:
        assert runner.get_cron_schedule(schedule_id) == row
        assert runner.list_runs() == []


SLIM = """
import sys, tempfile, pathlib, os
assert not os.path.exists("/usr/share/zoneinfo/UTC")
import cloaca

with cloaca.WorkflowBuilder("good"):
    @cloaca.task()
    def only(context): ...

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    if sys.argv[2] == "declare":
        for zone in ("UTC", "GMT", "Etc/GMT+3", "Etc/UTC", "Europe/Berlin"):
            runner.register_cron_workflow("good", "0 3 * * *", zone)
        try:
            runner.register_cron_workflow("good", "0 3 * * *", "Europe/Atlantis")
        except ValueError as error:
            print(error)
    print(*(row["next_run_at"] is not None for row in runner.list_cron_schedules()))
"""


def without_zone_files(tmp_path: Path, url: str, act: str) -> str:
    """What a program says on a system that has no zone files."""
    (tmp_path / "slim.py").write_text(SLIM)
    hide = "for zones in /usr/share/zoneinfo /usr/share/lib/zoneinfo /etc/zoneinfo; do "
    hide += 'if [ -d $zones ]; then mount -t tmpfs none $zones || exit 9; fi; done; exec "$@"'
    program = [sys.executable, str(tmp_path / "slim.py"), url, act]
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", hide, "sh", *program]
    environment = {name: value for name, value in os.environ.items() if name != "TZDIR"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    except FileNotFoundError:
        pytest.skip("no unshare on this system")
    if done.returncode == 9 or done.stderr.startswith("unshare:"):
        pytest.skip("this user may not hide files from a process")
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    return done.stdout


def test_zones_are_known_on_a_system_without_zone_files(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    unknown, crons = without_zone_files(tmp_path, url, "declare").splitlines()
    assert "unknown time zone 'Europe/Atlantis'" in unknown
    assert "tzdata" in unknown
    assert crons == "True True True True True"


def test_crons_of_another_system_run_on_one_without_zone_files(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as runner:
        runner.register_cron_workflow("good", "* * * * * *", "Europe/Berlin")
        assert eventually(lambda: runner.list_runs() != [])
    assert without_zone_files(tmp_path, url, "open") == "True\n"


def test_a_clock_that_was_behind_makes_up_for_nothing_before_the_declaration(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    with Dated(url, "2026-03-01T12:00:00Z") as runner:
        daily = runner.register_cron_workflow("good", "@daily")
    with Dated(url, "2026-01-30T12:00:00Z") as behind:
        assert eventually(lambda: behind.get_cron_schedule(daily)["next_run_at"] == at("2026-01-31T00:00:00"))
    with Dated(url, "2026-03-02T12:00:00Z") as right:
        assert eventually(lambda: right.get_cron_schedule(daily)["next_run_at"] == at("2026-03-03T00:00:00"))
        right.advance("1d")
        assert moments(right, daily) == [at("2026-03-02T00:00:00"), at("2026-03-03T00:00:00")]


def test_a_moment_whose_run_was_pruned_does_not_come_again_after_a_clock_that_was_behind(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "a.db")
    with Dated(url, "2026-03-01T12:00:00Z") as runner:
        hourly = runner.register_cron_workflow("good", "@hourly")
        runner.advance("3h")
        assert len(moments(runner, hourly)) == 3
    prune = ["prune", "--before", "2026-03-01T16:00:00Z", "--yes", "--database", url]
    subprocess.run([sys.executable, "-m", "cloaca", *prune], check=True, capture_output=True)
    with Dated(url, "2026-02-28T12:00:00Z") as behind:
        assert eventually(
            lambda: behind.get_cron_schedule(hourly)["next_run_at"] == at("2026-02-28T13:00:00")
        )
    with Dated(url, "2026-03-01T15:30:00Z") as right:
        assert eventually(lambda: right.get_cron_schedule(hourly)["next_run_at"] == at("2026-03-01T16:00:00"))
        right.advance("30m")
        assert moments(right, hourly) == [at("2026-03-01T16:00:00")]


def test_crons_go_on_after_a_clock_that_was_ahead_and_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = str(tmp_path / "a.db")
    with Dated(url, "2027-06-01T12:00:00Z") as ahead:
        ids = [ahead.register_cron_workflow("good", expression) for expression in ("0 3 * * *", "0 4 * * *")]
        assert ahead.get_cron_schedule(ids[0])["next_run_at"] == at("2027-06-02T03:00:00")
    caplog.clear()
    with Dated(url, "2026-03-01T12:00:00Z") as runner:
        assert eventually(
            lambda: runner.get_cron_schedule(ids[0])["next_run_at"] == at("2026-03-02T03:00:00")
        )
        runner.advance("1d")
        assert moments(runner, ids[0]) == [at("2026-03-02T03:00:00")]
        assert moments(runner, ids[1]) == [at("2026-03-02T04:00:00")]
        assert runner.get_cron_schedule(ids[1])["next_run_at"] == at("2026-03-03T04:00:00")
    (told,) = (record.message for record in caplog.records if "the clock was ahead" in record.message)
    assert f"cron '{ids[1]}' and 1 more would have waited until 2027-06-02T04:00:00" in told
    assert "here it is 2026-03-01T12:00:00" in told


def test_a_moment_that_a_clock_ahead_ran_already_does_not_run_again(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    with Dated(url, "2026-03-01T12:00:00Z") as runner:
        schedule_id = runner.register_cron_workflow("good", "0 3 * * *")
        runner.advance("1d")
        assert len(moments(runner, schedule_id)) == 1
    with Dated(url, "2026-03-01T12:00:00Z") as runner:
        assert runner.get_cron_schedule(schedule_id)["next_run_at"] == at("2026-03-03T03:00:00")
        assert f"runs next at {at('2026-03-03T03:00:00')}" in runner.why(schedule_id)
        # Who changes it knows nothing of that clock.
        runner.set_cron_schedule_enabled(schedule_id, False)
        runner.set_cron_schedule_enabled(schedule_id, True)
        assert eventually(
            lambda: runner.get_cron_schedule(schedule_id)["next_run_at"] == at("2026-03-03T03:00:00")
        )
        runner.advance("2d")
        assert moments(runner, schedule_id) == [at("2026-03-02T03:00:00"), at("2026-03-03T03:00:00")]
        assert len(runner.list_runs()) == 2


def test_a_zone_that_this_machine_does_not_know_is_told_by_why_and_health(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as runner:
        runner.register_cron_workflow("good", "0 3 1 1 *", "Europe/Berlin", name="yearly")
    with closing(sqlite3.connect(url)) as database, database:
        # As a machine with newer zone files has left it.
        database.execute("UPDATE schedules SET timezone = 'Europe/Atlantis', next_at = 1")
    with cloaca.DefaultRunner(url) as runner:
        unread = "is left out, here at least: unknown time zone 'Europe/Atlantis'"
        assert unread in runner.why("yearly")
        assert "runs next" not in runner.why("yearly")
        with reading.Reader(url) as reader:
            assert unread in reading.why(reader, "yearly")
            found = [finding for finding in reading.doctor(reader) if finding.subject == "schedules"]
            assert ("warn", True) in [(finding.level, unread in finding.text) for finding in found]
        (reason,) = runner.health()["reasons"]
        assert reason["code"] == "late_cron"
        assert unread in reason["text"]


def test_of_a_cron_that_failed_why_says_that_nobody_is_there_any_more(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")

    @cloaca.trigger(workflow="good", cron="* * * * * *")
    def failing(tick: cloaca.Tick) -> None:
        raise ValueError("no source")

    with cloaca.DefaultRunner(url) as runner, reading.Reader(url) as reader:
        assert eventually(lambda: runner.ticks("failing") != [])
        assert "its function is called again for" in reading.why(reader, "failing")
    with reading.Reader(url) as reader:
        told = reading.why(reader, "failing")
        assert "nobody is there for it: no living runner declares it" in told
        assert "its last moment failed: ValueError: no source" in told
