"""What a cron does about moments that were missed, and while a run of it is unfinished."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from program import Dated, eventually

import cloaca
import cloaca.testing

START = "2026-03-01T00:00:00Z"
WAIT = 20.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


def declare(how: str, **terms: Any) -> None:
    """A cron at three, declared or to be registered, with or without a body."""
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    if how != "registered":
        body = (lambda tick: None) if how == "body" else lambda: None
        cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *", **terms)(body)


def register(runner: cloaca.DefaultRunner, how: str, **terms: Any) -> None:
    if how == "registered":
        runner.register_cron_workflow("report", "0 3 * * *", name="nightly", **terms)


def moments(runner: Any) -> list[str]:
    return [context["scheduled_time"][8:16] for context in runner.fired("report")]


HOWS = pytest.mark.parametrize("how", ["registered", "declared", "body"])


@HOWS
@pytest.mark.parametrize(
    ("catchup", "limit", "made_up"),
    [
        ("all", 100, ["02T03:00", "03T03:00", "04T03:00"]),
        ("all", 2, ["03T03:00", "04T03:00"]),
        ("last", 100, ["04T03:00"]),
        ("none", 100, []),
        ("all", 0, []),
        ("last", 0, []),
    ],
)
def test_what_was_missed_is_made_up_for_as_the_cron_says(
    url: str, how: str, catchup: str, limit: int, made_up: list[str]
) -> None:
    config = cloaca.DefaultRunnerConfig(cron_max_catchup_executions=limit)
    declare(how, catchup=catchup)
    with Dated(url, START, config=config) as runner:
        register(runner, how, catchup=catchup)
        runner.advance("1d")
        assert moments(runner) == ["01T03:00"], "what comes in time is not made up for"
    with Dated(url, "2026-03-04T12:00:00Z", config=config) as runner:
        register(runner, how, catchup=catchup)
        assert eventually(lambda: len(moments(runner)) == 1 + len(made_up))
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", *made_up, "05T03:00"]
        (row,) = runner.list_cron_schedules()
        assert (row["catchup"], row["next_run_at"]) == (catchup, "2026-03-06T03:00:00.000000Z")


@HOWS
@pytest.mark.parametrize(("terms", "limit"), [({"catchup": "none"}, 100), ({}, 0)])
@pytest.mark.parametrize(("second", "made_up"), [("10", ["02T03:00"]), ("11", [])])
def test_a_moment_is_on_time_for_ten_seconds_though_nothing_is_made_up_for(
    url: str, how: str, terms: dict[str, Any], limit: int, second: str, made_up: list[str]
) -> None:
    config = cloaca.DefaultRunnerConfig(cron_max_catchup_executions=limit)
    declare(how, **terms)
    with Dated(url, START, config=config) as runner:
        register(runner, how, **terms)
        runner.advance("1d")
    with Dated(url, f"2026-03-02T03:00:{second}Z", config=config) as runner:
        assert eventually(
            lambda: runner.list_cron_schedules()[0]["next_run_at"] == "2026-03-03T03:00:00.000000Z"
        )
        runner.run_until_idle()
        assert moments(runner) == ["01T03:00", *made_up]


@pytest.mark.parametrize("how", ["declared", "body"])
def test_each_moment_of_the_last_ten_seconds_is_on_time(how: str) -> None:
    body = (lambda tick: None) if how == "body" else lambda: None
    often = cloaca.trigger(workflow="report", name="often", cron="*/3 * * * * *", catchup="none")
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    often(body)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("3s")
        cloaca.unregister_trigger(body)
        runner.advance("16s")
        often(body)
        runner.run_until_idle()
        ran = [context["scheduled_time"][17:19] for context in runner.fired("report")]
        assert ran == ["03", "09", "12", "15", "18"], "that of 06 is 13 s late"


def test_a_moment_that_fails_is_tried_again_though_nothing_is_made_up_for() -> None:
    failures = iter(range(6))

    def failing(tick: cloaca.Tick) -> None:
        if next(failures, None) is not None:
            raise ValueError("not yet")

    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *", catchup="none")(failing)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        assert moments(runner) == ["01T03:00"]


@HOWS
@pytest.mark.parametrize(
    ("overlap", "ran"),
    [
        ("allow", ["01T03:00", "02T03:00", "03T03:00", "04T03:00"]),
        ("skip", ["01T03:00", "04T03:00"]),
        ("queue", ["01T03:00", "02T03:00", "03T03:00", "04T03:00"]),
        ("buffer_one", ["01T03:00", "02T03:00", "04T03:00"]),
        ("cancel_running", ["01T03:00", "02T03:00", "03T03:00", "04T03:00"]),
    ],
)
def test_a_moment_heeds_the_run_before_it(how: str, overlap: str, ran: list[str]) -> None:
    declare(how, overlap=overlap)
    begun: set[str] = set()

    def takes_sixty_hours(context: cloaca.Context) -> None:
        if context["scheduled_time"] not in begun:
            begun.add(context["scheduled_time"])
            raise ConnectionError

    long = {"retry_attempts": 2, "retry_delay_ms": 60 * 3_600_000, "retry_max_delay_ms": 60 * 3_600_000}
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_jitter=False, **long)(takes_sixty_hours)  # type: ignore[call-overload]
    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=1e6)
    with cloaca.testing.Runner(START, config) as runner:
        register(runner, how, overlap=overlap)
        runner.advance("4d")
        assert moments(runner) == ran
        statuses = [run["status"] for run in reversed(runner.list_runs())]
        assert (
            statuses[:2] == ["Cancelled"] * 2 if overlap == "cancel_running" else "Cancelled" not in statuses
        )


def test_a_cron_that_skips_says_which_run_stood_in_the_way(url: str) -> None:
    go_on = threading.Event()
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: go_on.wait(WAIT) and None)
    cloaca.trigger(workflow="report", name="often", cron="* * * * * *", overlap="skip")(lambda: None)
    with cloaca.DefaultRunner(url) as runner:
        assert eventually(lambda: runner.list_runs() and len(runner.ticks("often")) >= 2)
        (run,) = runner.list_runs()
        assert runner.ticks("often")[0]["reason"] == f"overlap: run {run['id']} is unfinished"
        assert runner.stats()["dropped"] >= 1
        go_on.set()
        assert eventually(lambda: len(runner.list_runs()) >= 2)


def test_runs_of_a_cron_wait_for_one_another_over_runners(url: str) -> None:
    at_work, most, lock = [0], [0], threading.Lock()
    done = threading.Event()

    def one_at_a_time(context: cloaca.Context) -> None:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        done.wait(1.3)
        with lock:
            at_work[0] -= 1

    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(one_at_a_time)
    cloaca.trigger(workflow="report", name="often", cron="* * * * * *", overlap="queue")(lambda: None)
    with cloaca.DefaultRunner(url) as first, cloaca.DefaultRunner(url):
        assert eventually(lambda: len(first.list_runs()) >= 5)
        done.set()
        assert most == [1]


def test_what_a_cron_cannot_obey_is_refused() -> None:
    refused: list[dict[str, Any]] = [
        {"jitter": "5s"},
        {"poll_timeout": "5s"},
        {"poll_at_start": True},
        {"max_consecutive_failures": 3},
        {"on_error": cloaca.Backoff()},
    ]
    for arguments in refused:
        (name,) = arguments
        with pytest.raises(cloaca.TriggerError, match=f"{name} and cron are given"):
            cloaca.trigger(workflow="report", cron="0 3 * * *", **arguments)
    with pytest.raises(cloaca.TriggerError, match="catchup is 'last' without cron"):
        cloaca.trigger(workflow="report", poll_interval="5s", catchup="last")
    with pytest.raises(cloaca.TriggerError, match="catchup is 'some'; it must be all, last, none"):
        cloaca.trigger(workflow="report", cron="0 3 * * *", catchup="some")
    with cloaca.DefaultRunner(":memory:") as runner:
        opening = "Failed to register cron workflow"
        with pytest.raises(cloaca.ScheduleError, match=f"{opening}: catchup is 3"):
            runner.register_cron_workflow("report", "0 3 * * *", catchup=3)  # type: ignore[arg-type]
        with pytest.raises(cloaca.ScheduleError, match=f"{opening}: overlap is 'never'"):
            runner.register_cron_workflow("report", "0 3 * * *", overlap="never")
