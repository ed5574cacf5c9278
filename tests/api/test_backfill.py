"""Moments of a cron that have gone by are run when somebody asks for it, each at most once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import cloaca
import cloaca.testing
from cloaca import Tick, TriggerResult

START = "2026-03-10T12:00:00Z"
NOWHERE = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
def workflow() -> None:
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)


def moments(runner: Any) -> list[str]:
    return [context["scheduled_time"][8:16] for context in runner.fired("report")]


def test_each_moment_from_the_start_on_and_before_the_end_is_run() -> None:
    with cloaca.testing.Runner(START) as runner:
        cron = runner.register_cron_workflow(
            "report", "0 3 * * *", "Europe/Berlin", name="nightly", context={"region": "eu"}
        )
        before = runner.get_cron_schedule(cron)
        runs = runner.backfill(cron, "2026-03-01T02:00:00Z", "2026-03-04T02:00:00Z")
        assert [run.result(5).status for run in runs] == ["Completed"] * 3
        assert moments(runner) == ["01T02:00", "02T02:00", "03T02:00"]
        assert runner.fired("report")[0] == cloaca.Context(
            {
                "region": "eu",
                "scheduled_time": "2026-03-01T02:00:00.000000Z",
                "schedule_id": cron,
                "schedule_timezone": "Europe/Berlin",
                "schedule_expression": "0 3 * * *",
            }
        )
        assert {run["trigger_name"] for run in runner.list_runs()} == {"nightly"}
        found = [row["scheduled_time"][8:16] for row in runner.get_cron_execution_history(cron)]
        assert found == ["03T02:00", "02T02:00", "01T02:00"]
        assert runner.get_cron_schedule(cron) == before
        runner.advance("1d")
        assert moments(runner)[3:] == ["11T02:00"]


def test_a_moment_that_has_a_run_is_not_run_again() -> None:
    with cloaca.testing.Runner(START) as runner:
        cron = runner.register_cron_workflow("report", "0 3 * * *")
        some = runner.backfill(cron, "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z")
        runner.advance("1d")
        runs = runner.backfill(cron, "2026-03-01T00:00:00Z")
        assert len(runs) == 11
        assert runs[1].id == some[0].id
        assert len({run.id for run in runs}) == len(runner.list_runs()) == 11
        assert [run.id for run in runner.backfill(cron, "2026-03-01T00:00:00Z")] == [run.id for run in runs]


def test_a_function_decides_each_moment_that_has_no_run() -> None:
    called: list[str] = []

    def nightly(tick: Tick) -> Any:
        called.append(tick.scheduled_at[8:10])
        tick.cursor = len(called)
        if called[-1] == "02":
            return TriggerResult.skip()
        return [TriggerResult.fire({"n": 1}), TriggerResult.fire({"n": 2})] if called[-1] == "03" else None

    cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *")(nightly)
    with cloaca.testing.Runner(START) as runner:
        (cron,) = runner.list_cron_schedules()
        runs = runner.backfill(cron["id"], "2026-03-01T00:00:00Z", "2026-03-05T00:00:00Z")
        assert called == ["01", "02", "03", "04"]
        assert moments(runner) == ["01T03:00", "03T03:00", "03T03:00", "04T03:00"]
        assert len(runs) == 4
        again = runner.backfill(cron["id"], "2026-03-01T00:00:00Z", "2026-03-05T00:00:00Z")
        assert called[4:] == ["02"], "nobody knows that it was left out on purpose"
        assert [run.id for run in again] == [run.id for run in runs], "all runs of each moment"
        assert runner.query("SELECT cursor FROM schedules") == [{"cursor": None}]


def test_a_function_that_fails_ends_it_and_what_was_started_stays() -> None:
    def nightly(tick: Tick) -> None:
        if "-03T" in tick.scheduled_at:
            raise ConnectionError("no source")

    cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *")(nightly)
    with cloaca.testing.Runner(START) as runner:
        (cron,) = runner.list_cron_schedules()
        with pytest.raises(
            cloaca.TriggerError, match=r"moment 2026-03-03T03:00:00.* ConnectionError: no source"
        ):
            runner.backfill(cron["id"], "2026-03-01T00:00:00Z", "2026-03-05T00:00:00Z")
        assert moments(runner) == ["01T03:00", "02T03:00"]


def test_a_function_that_asks_to_be_called_later_ends_it_and_the_same_call_goes_on() -> None:
    missing = {"03"}

    def nightly(tick: Tick) -> dict[str, str]:
        if tick.scheduled_at[8:10] in missing:
            raise cloaca.RetryAfter("15m")
        return {"day": tick.scheduled_at[8:10]}

    cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *")(nightly)
    with cloaca.testing.Runner(START) as runner:
        with pytest.raises(
            cloaca.TriggerError, match=r"moment 2026-03-03T03:00:00.*: retry after 15m, as its"
        ):
            runner.backfill("nightly", "2026-03-01", "2026-03-06")
        assert moments(runner) == ["01T03:00", "02T03:00"]
        missing.clear()
        runs = runner.backfill("nightly", "2026-03-01", "2026-03-06")
        assert [run.result(5).status for run in runs] == ["Completed"] * 5
        assert moments(runner) == [f"{day:02}T03:00" for day in range(1, 6)]


def test_moments_of_a_cron_that_overlaps_nothing_wait_for_one_another() -> None:
    at_work: list[str] = []
    most: list[int] = []

    def one(context: cloaca.Context) -> None:
        at_work.append(context["scheduled_time"])
        most.append(len(at_work))
        at_work.remove(context["scheduled_time"])

    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(one)
    with cloaca.testing.Runner(START) as runner:
        cron = runner.register_cron_workflow("report", "0 * * * *", overlap="skip")
        runs = runner.backfill(cron, "2026-03-09T00:00:00Z", "2026-03-10T00:00:00Z")
        assert [run.result(10).status for run in runs] == ["Completed"] * 24
        assert max(most) == 1


def test_what_cannot_be_back_filled_is_refused() -> None:
    with cloaca.testing.Runner(START) as runner:
        cron = runner.register_cron_workflow("report", "0 3 * * *")
        opening = "Failed to back-fill cron schedule"
        with pytest.raises(cloaca.ScheduleError, match=f"{opening}: there is none with id {NOWHERE}"):
            runner.backfill(NOWHERE, "2026-03-01T00:00:00Z")
        with pytest.raises(cloaca.ScheduleError, match="Invalid schedule ID"):
            runner.backfill("nightly", "2026-03-01T00:00:00Z")
        with pytest.raises(cloaca.ScheduleError, match="Invalid datetime format"):
            runner.backfill(cron, "yesterday")
        with pytest.raises(cloaca.ScheduleError, match="which lies ahead"):
            runner.backfill(cron, "2026-03-01T00:00:00Z", "2026-03-11T00:00:00Z")
        with pytest.raises(cloaca.ScheduleError, match="which comes after end, '2026-03-01T00:00:00Z'"):
            runner.backfill(cron, "2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z")
        with pytest.raises(cloaca.ScheduleError, match="which comes after now"):
            runner.backfill(cron, "2026-03-11T00:00:00Z")
        often = runner.register_cron_workflow("report", "* * * * * *")
        with pytest.raises(
            cloaca.ScheduleError, match="more than 10000 moments; end it at 2026-03-01T02:46:40"
        ):
            runner.backfill(often, "2026-03-01T00:00:00Z")
        unknown = runner.register_cron_workflow("unknown", "0 3 * * *")
        with pytest.raises(cloaca.WorkflowError, match="unknown"):
            runner.backfill(unknown, "2026-03-01T00:00:00Z")
        assert runner.backfill(cron, "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z") == []
        assert runner.list_runs() == []


def test_what_a_limit_drops_says_how_many_are_started_and_which() -> None:
    with cloaca.WorkflowBuilder("report", rate_limit=cloaca.RateLimit(2, per="1h")):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    with cloaca.testing.Runner(START) as runner:
        cron = runner.register_cron_workflow("report", "0 3 * * *")
        with pytest.raises(cloaca.Dropped) as refused:
            runner.backfill(cron, "2026-03-01T00:00:00Z", "2026-03-06T00:00:00Z")
        started = refused.value.started
        assert started == [run["id"] for run in reversed(runner.list_runs())]
        assert len(started) == 2
        parts = (
            f"2 runs are ({started[0]}, {started[1]}) started, 3 dropped, the first of them for its moment"
            " 2026-03-03T03:00:00.000000Z: ",
            "rate limit",
        )
        assert all(part in str(refused.value) for part in parts), str(refused.value)
        assert (refused.value.rule, refused.value.key) == ("rate_limit", None)
        copy = pickle.loads(pickle.dumps(refused.value))
        assert (str(copy), copy.started) == (str(refused.value), started)


def test_a_function_is_called_for_no_moment_behind_one_that_a_limit_drops() -> None:
    called = []
    with cloaca.WorkflowBuilder("report", rate_limit=cloaca.RateLimit(1, per="1h")):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)

    @cloaca.trigger(workflow="report", cron="0 3 * * *")
    def nightly(tick: Tick) -> None:
        called.append(tick.scheduled_at)

    with cloaca.testing.Runner(START) as runner:
        with pytest.raises(cloaca.Dropped, match=r"1 run is \(.*\) started, 1 dropped") as refused:
            runner.backfill("nightly", "2026-03-01T00:00:00Z", "2026-03-06T00:00:00Z")
        assert refused.value.started == [run["id"] for run in runner.list_runs()]
        assert len(called) == 2


def test_a_back_fill_by_a_runner_that_is_not_for_its_function_is_refused(tmp_path: Path) -> None:
    @cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *")
    def nightly(tick: Tick) -> bool:
        return False

    with cloaca.DefaultRunner(tmp_path / "runs.db"):
        pass
    with cloaca.DefaultRunner(tmp_path / "runs.db", triggers=[]) as runner:
        for given in ("nightly", nightly):
            with pytest.raises(
                cloaca.ScheduleError, match="function of 'nightly' decides its moments, and this"
            ):
                runner.backfill(given, "2026-03-01T00:00:00Z", "2026-03-03T00:00:00Z")
        assert not runner.list_runs()
