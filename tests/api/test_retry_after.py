"""`raise RetryAfter(...)` in a task, and `retry_for`: how long a task is tried, and when again."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from program import Dated, eventually

import cloaca
import cloaca.testing

START = "2026-01-01T00:00:00Z"


class Body:
    """Answers each attempt with the next of its answers, and notes which it was and when, in seconds."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.begun: list[tuple[int, float]] = []

    def __call__(self, context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        # Of a store that is opened again it may begin before the test has the runner.
        assert isinstance(handle.runner, cloaca.testing.Runner)
        self.begun.append((handle.attempt, seconds(handle.runner.now)))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer


def seconds(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.fromisoformat(START)).total_seconds()


def declare(body: Any, **settings: Any) -> None:
    settings = {"id": "only", "retry_backoff": "fixed", "retry_jitter": False, **settings}
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(**settings)(body)


def later(span: str) -> cloaca.RetryAfter:
    return cloaca.RetryAfter(span)


def boom() -> Exception:
    return ValueError("boom")


@pytest.fixture
def clock() -> Any:
    with cloaca.testing.Runner() as runner:
        yield runner


def started(clock: cloaca.testing.Runner) -> cloaca.Run:
    run = clock.submit("w")
    clock.run_until_idle()
    return run


def taken_over(clock: cloaca.testing.Runner, run: cloaca.Run) -> str:
    """Where the run stands once the next runner has it in hand, which a thread of its own looks for."""
    assert eventually(lambda: "goes on here" in clock.why_run(run.id))
    return clock.why_run(run.id)


def row_of(runner: cloaca.DefaultRunner, run_id: str) -> dict[str, Any]:
    found = runner.get_run(run_id)
    assert found is not None
    return found


def test_what_a_response_has_in_its_header_is_taken_as_it_is() -> None:
    assert later("120").delay_us == 120_000_000
    assert later(" 0 ").delay_us == 0
    at = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert timedelta(minutes=59) < timedelta(microseconds=later(at).delay_us) <= timedelta(hours=1)
    for past in (
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "wed, 21 oct 2015 07:28:00 gmt",
        "Wed Oct 21 07:28:00 2015",
    ):
        assert later(past).delay_us == 0
    for odd in ("-5", "1.5", "soon", "Wed, 99 Foo 2015 07:28:00 GMT"):
        with pytest.raises(cloaca.TriggerError, match="delay"):
            later(odd)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_date_counts_from_what_the_runners_clock_shows(is_async: bool) -> None:
    begun: list[str] = []

    def wishes() -> None:
        begun.append(runner.now)
        if len(begun) == 1:
            raise cloaca.RetryAfter("Tue, 01 Jan 2030 00:10:00 GMT")

    async def wishes_too(context: Any) -> None:
        wishes()

    declare(wishes_too if is_async else lambda context: wishes())
    with cloaca.testing.Runner("2030-01-01T00:00:00Z") as runner:
        run = runner.submit("w")
        runner.run_until_idle()
        assert "until 2030-01-01T00:10:00.000000Z" in runner.why_run(run.id)
        runner.advance("10m")
        assert [at[11:19] for at in begun] == ["00:00:00", "00:10:00"]


def test_a_callback_may_pause_a_limit() -> None:
    calls: list[str] = []

    def told(run: cloaca.RunEnd) -> None:
        calls.append(runner.now[11:19])
        if len(calls) == 1:
            raise cloaca.RetryAfter("5m", pause="api")

    with cloaca.WorkflowBuilder("flow").on_success(told):
        cloaca.task(id="only", limits=[cloaca.Limit("api", concurrency=1)])(lambda context: None)
    with cloaca.testing.Runner("2026-01-01T00:00:00Z") as runner:
        run = runner.submit("flow")
        runner.run_until_idle()
        (pause,) = runner.list_pauses()
        assert (pause["name"], pause["until"]) == ("api", "2026-01-01T00:05:00.000000Z")
        assert pause["by"] == f"on_success of workflow 'flow' for run {run.id}"
        runner.pause(limit="api", until="2026-01-01T01:00:00Z")
        calls.clear()
        runner.advance("5m")
        assert [pause["until"][11:16] for pause in runner.list_pauses()] == ["01:00"], "the longer one holds"


def test_a_task_that_asks_for_later_is_called_then_and_no_attempt_is_used_up(clock: Any) -> None:
    body = Body(later("2m"), later("2m"), later("30s"))
    declare(body, retry_attempts=1)
    run = started(clock)
    clock.advance("1m59s")
    assert body.begun == [(1, 0.0)]
    clock.advance("1h")
    assert body.begun == [(1, 0.0), (2, 120.0), (3, 240.0), (4, 270.0)]
    assert run.result().status == "Completed"


def test_each_wish_is_told_among_the_tries(clock: Any) -> None:
    body = Body(later("2m"), boom(), later("2m"))
    declare(body, retry_attempts=2, retry_delay_ms=1000)
    run = started(clock)
    clock.advance("1h")
    (task,) = row_of(clock, run.id)["tasks"]
    outcomes = [(known["number"], known["outcome"], known["error_type"]) for known in task["tries"]]
    assert outcomes == [
        (1, "Postponed", None),
        (2, "Failed", "ValueError"),
        (3, "Postponed", None),
        (4, "Completed", None),
    ]


def test_failures_beside_wishes_are_counted_alone(clock: Any) -> None:
    body = Body(later("1m"), boom(), later("1m"), later("1m"), boom(), later("1m"))
    declare(body, retry_attempts=2, retry_delay_ms=1000)
    run = started(clock)
    clock.advance("1h")
    assert run.result().status == "Failed"
    assert [attempt for attempt, _ in body.begun] == [1, 2, 3, 4, 5]
    assert "ValueError: boom" in (run.result().error_message or "")


def test_the_delays_between_failures_grow_as_if_there_were_no_wishes(clock: Any) -> None:
    body = Body(later("1m"), later("1m"), boom(), boom())
    declare(body, retry_backoff="exponential", retry_delay_ms=1000)
    started(clock)
    clock.advance("1h")
    assert [at for _, at in body.begun] == [0, 60, 120, 121, 123]


def test_an_async_task_may_ask_for_later(clock: Any) -> None:
    attempts: list[int] = []

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(handle.attempt)
        if handle.attempt == 1:
            raise later("2m")

    declare(body, retry_attempts=1)
    run = clock.submit("w")
    clock.run_until_idle()
    assert attempts == [1]
    clock.advance("2m")
    assert (attempts, run.result().status) == ([1, 2], "Completed")


def test_who_waits_by_his_own_wish_holds_no_slot_and_says_so() -> None:
    body = Body(later("2m"))
    declare(body, retry_attempts=1)
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    with cloaca.testing.Runner(START, config) as clock:
        run = started(clock)
        until = "2026-01-01T00:02:00.000000Z"
        told = clock.why_run(run.id)
        assert f"task 'only' waits until {until} by its own wish, then comes attempt 2" in told
        (task,) = row_of(clock, run.id)["tasks"]
        assert (task["status"], task["waits_until"], task["error"]) == ("Running", until, None)
        other = started(clock)
        assert other.result().status == "Completed"
        clock.advance("2m")
        (task,) = row_of(clock, run.id)["tasks"]
        assert (task["status"], task["waits_until"]) == ("Completed", None)


def test_a_wish_is_no_news_and_a_failure_is(clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    body = Body(later("2m"), boom())
    declare(body, retry_attempts=1)
    caplog.set_level(logging.DEBUG, logger="cloaca")
    run = started(clock)
    clock.advance("1h")

    def told() -> list[tuple[str, str]]:
        records = [record for record in caplog.records if record.name == "cloaca.task"]
        return [(record.levelname, record.getMessage()) for record in records]

    head = f"task 'only' of workflow 'w', run {run.id},"
    expected = [
        ("DEBUG", f"{head} asked in attempt 1 to be called again in 2m"),
        ("ERROR", f"{head} failed in attempt 2, its last"),
    ]
    # A failure is logged once it is ruled.
    assert eventually(lambda: told() == expected), told()


def test_a_cancel_ends_the_wait(clock: Any) -> None:
    told: list[str] = []
    body = Body(later("2h"))
    declare(body, retry_attempts=1, on_failure=lambda task_id, error, context: told.append(error))
    run = started(clock)
    run.cancel()
    clock.run_until_idle()
    assert run.result().status == "Cancelled"
    assert told == ["cancelled"]
    (task,) = row_of(clock, run.id)["tasks"]
    assert (task["status"], task["error"], task["waits_until"]) == ("Failed", "cancelled", None)
    clock.advance("3h")
    assert len(body.begun) == 1


def test_the_time_of_the_run_goes_on_while_it_waits() -> None:
    body = Body(later("2h"))
    declare(body, retry_attempts=1)
    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=600)
    with cloaca.testing.Runner(START, config) as clock:
        run = started(clock)
        clock.advance("3h")
        assert run.result().status == "Failed"
        assert "workflow timed out" in (run.result().error_message or "")
        assert len(body.begun) == 1


def test_what_comes_after_the_task_waits_too(clock: Any) -> None:
    body = Body(later("2m"))
    seen: list[str] = []
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="first", retry_attempts=1)(body)

        @cloaca.task(dependencies=["first"])
        def second(context: cloaca.Context) -> None:
            seen.append(clock.now)

    run = started(clock)
    clock.advance("1h")
    assert [seconds(at) for at in seen] == [120.0]
    assert run.result().status == "Completed"


def test_a_restart_neither_shortens_nor_lengthens_the_wait(tmp_path: Path) -> None:
    body = Body(later("10m"), later("10m"))
    declare(body, retry_attempts=1)
    url = str(tmp_path / "runs.db")
    with Dated(url, START) as clock:
        run = started(clock)
        clock.advance("1m")
    with Dated(url, "2026-01-01T00:06:00Z") as clock:
        told = taken_over(clock, run)
        assert (
            "task 'only' waits until 2026-01-01T00:10:00.000000Z by its own wish, then comes attempt 2"
            in told
        )
        clock.advance("3m59s")
        assert len(body.begun) == 1
        clock.advance("1s")
        assert body.begun == [(1, 0.0), (2, 600.0)]
    # It is over while nobody runs.
    with Dated(url, "2026-01-01T01:00:00Z") as clock:
        assert eventually(lambda: row_of(clock, run.id)["status"] == "Completed")
        assert body.begun[2:] == [(3, 3600.0)]


def test_a_clock_that_was_ahead_for_a_moment_makes_no_wait_longer(tmp_path: Path) -> None:
    body = Body(later("10m"))
    declare(body, retry_attempts=1)
    url = str(tmp_path / "runs.db")
    with Dated(url, "2030-01-01T00:00:00Z") as clock:
        run = started(clock)
    with Dated(url, START) as clock:
        taken_over(clock, run)
        clock.advance("9m59s")
        assert len(body.begun) == 1
        clock.advance("1s")
        assert len(body.begun) == 2


def test_a_long_delay_after_a_failure_goes_on_after_a_restart_too(tmp_path: Path) -> None:
    body = Body(boom())
    declare(body, retry_attempts=2, retry_delay_ms=60_000)
    url = str(tmp_path / "runs.db")
    with Dated(url, START) as clock:
        run = started(clock)
    with Dated(url, "2026-01-01T00:00:20Z") as clock:
        told = taken_over(clock, run)
        assert "is tried again at 2026-01-01T00:01:00.000000Z, as attempt 2, after ValueError: boom" in told
        clock.advance("1m")
        assert body.begun == [(1, 0.0), (2, 60.0)]


def test_another_process_says_until_when_a_task_waits(tmp_path: Path) -> None:
    body = Body(later("10m"))
    declare(body, retry_attempts=1)
    url = str(tmp_path / "runs.db")
    with Dated(url, START) as clock:
        run = started(clock)
        with cloaca.DefaultRunner(url) as other:
            told = other.why_run(run.id)
    assert "task 'only' waits until 2026-01-01T00:10:00.000000Z by its own wish" in told


def test_a_run_that_is_opened_again_waits_for_nothing(clock: Any) -> None:
    body = Body(later("2h"))
    declare(body, retry_attempts=1)
    run = started(clock)
    run.cancel()
    clock.run_until_idle()
    again = clock.retry(run.id)
    clock.run_until_idle()
    assert (again.result().status, body.begun[1:]) == ("Completed", [(1, 0.0)])


def test_retries_go_on_for_as_long_as_it_is_said(clock: Any) -> None:
    body = Body(*[boom() for _ in range(100)])
    declare(body, retry_for="10m", retry_delay_ms=60_000)
    run = started(clock)
    clock.advance("1h")
    # The one that would begin after ten minutes is not made.
    assert [at for _, at in body.begun] == [minute * 60 for minute in range(10)]
    assert run.result().status == "Failed"


def test_of_attempts_and_time_the_first_ends_the_retries(clock: Any) -> None:
    few = Body(*[boom() for _ in range(100)])
    declare(few, retry_for="10m", retry_attempts=3, retry_delay_ms=60_000)
    started(clock)
    clock.advance("1h")
    assert len(few.begun) == 3
    short = Body(*[boom() for _ in range(100)])
    declare(short, retry_for="90s", retry_attempts=30, retry_delay_ms=60_000)
    started(clock)
    clock.advance("1h")
    assert len(short.begun) == 2


def test_a_wish_that_leads_beyond_the_time_for_retries_fails_at_once(clock: Any) -> None:
    body = Body(later("4m"), later("4m"), later("4m"))
    declare(body, retry_for=timedelta(minutes=10))
    run = started(clock)
    clock.advance("8m")
    assert len(body.begun) == 3
    assert run.result().status == "Failed"
    assert "RetryAfter: again in 4m, and by then the time for its attempts is over" in (
        run.result().error_message or ""
    )


def test_the_time_for_retries_counts_from_the_first_attempt_through_a_restart(tmp_path: Path) -> None:
    body = Body(later("4m"), later("4m"))
    declare(body, retry_for="10m")
    url = str(tmp_path / "runs.db")
    with Dated(url, START) as clock:
        run = started(clock)
    with Dated(url, "2026-01-01T00:07:00Z") as clock:
        assert eventually(lambda: row_of(clock, run.id)["status"] == "Failed")
    assert body.begun == [(1, 0.0), (2, 420.0)]


def test_a_policy_takes_the_time_for_retries(clock: Any) -> None:
    policy = cloaca.RetryPolicy.builder().retry_for("3m").initial_delay(60).with_jitter(False).build()
    assert (policy.retry_for, policy.max_attempts > 10**9) == (180.0, True)
    assert cloaca.RetryPolicy.default().retry_for is None
    assert cloaca.RetryPolicy.builder().retry_for("3m").max_attempts(3).build().max_attempts == 3
    body = Body(*[boom() for _ in range(100)])
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only", retry=policy)(body)
    started(clock)
    clock.advance("1h")
    assert len(body.begun) == 3


@pytest.mark.parametrize("value", ["soon", 0, -1, True, "11y", float("nan"), []])
def test_a_time_that_is_none_is_refused_by_name(value: Any) -> None:
    with pytest.raises(cloaca.WorkflowError, match="retry_for is"):
        declare(lambda context: None, retry_for=value)
    with pytest.raises(cloaca.WorkflowError, match="retry_for is"):
        cloaca.RetryPolicy.builder().retry_for(value)


def test_a_policy_beside_the_time_is_refused() -> None:
    with pytest.raises(cloaca.WorkflowError, match=r"retry and .*retry_for.* not both"):
        declare(lambda context: None, retry=cloaca.RetryPolicy.default(), retry_for="1m")


@pytest.mark.parametrize("delay_us", [None, "x", -5, 2**63, True])
def test_a_wish_without_a_time_is_an_ordinary_failure(delay_us: Any) -> None:
    class RateLimited(cloaca.RetryAfter):
        def __init__(self) -> None:
            if delay_us is not None:
                self.delay_us = delay_us

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def only(context: cloaca.Context) -> None:
            raise RateLimited

    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        assert run.result(30).status == "Failed"


@pytest.mark.parametrize("at_once", [0, "0s", 0.0, timedelta()])
def test_a_wish_for_at_once_uses_up_no_attempt_and_waits_for_nothing(clock: Any, at_once: Any) -> None:
    body = Body(cloaca.RetryAfter(at_once), cloaca.RetryAfter(at_once))
    declare(body, retry_attempts=1)
    run = started(clock)
    assert body.begun == [(1, 0.0), (2, 0.0), (3, 0.0)]
    assert run.result().status == "Completed"


def test_a_poll_that_wishes_for_at_once_comes_again_on_its_next_beat(clock: Any) -> None:
    @cloaca.trigger(poll_interval="1m")
    def asks() -> bool:
        raise cloaca.RetryAfter(0)

    clock.advance("3m")
    assert clock.polls(asks) == 3
    assert clock.ticks("asks")[0]["reason"] == "retry after 0s"


def test_a_wish_below_nothing_is_refused() -> None:
    with pytest.raises(cloaca.TriggerError, match="delay is -1"):
        cloaca.RetryAfter(-1)


def test_why_run_says_of_a_wish_that_the_run_ends_before_it(clock: Any) -> None:
    body = Body(later("2h"))
    declare(body)
    run = started(clock)
    told = clock.why_run(run.id)
    assert "waits until 2026-01-01T02:00:00.000000Z by its own wish" in told
    assert "the time of the run is up before that, at 2026-01-01T01:00:00.000000Z" in told
    assert "workflow_timeout_seconds" in told
    assert "then comes attempt" not in told


def test_why_run_says_so_of_a_delay_too(clock: Any) -> None:
    body = Body(boom())
    declare(body, retry_delay_ms=7_200_000, retry_max_delay_ms=7_200_000)
    run = started(clock)
    told = clock.why_run(run.id)
    assert "the time of the run is up before that, at 2026-01-01T01:00:00.000000Z" in told
    assert "ValueError: boom" in told


def test_a_test_is_told_why_a_run_failed_whose_task_had_asked_for_later() -> None:
    body = Body(later("30m"), later("2h"))
    declare(body)
    with cloaca.testing.Runner(raise_errors=True) as runner:
        started(runner)
        runner.advance("30m")
        with pytest.raises(cloaca.RunFailedError, match="timed out after 3600s"):
            runner.advance("3h")


def test_a_test_is_told_of_a_wish_that_leads_beyond_the_time_for_attempts() -> None:
    body = Body(later("2m"))
    declare(body, retry_for="1m")
    with cloaca.testing.Runner(raise_errors=True) as runner:
        with pytest.raises(cloaca.RunFailedError, match="by then the time for its attempts is over"):
            started(runner)
        runner.advance("1h")
