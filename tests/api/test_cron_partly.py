"""A cron's function that has given some of its moment and is called for it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from program import Dated

import cloaca
import cloaca.reading
import cloaca.testing
from cloaca import Tick, TriggerResult

START = "2026-01-05T12:00:00Z"
MIDNIGHT = "2026-01-06T00:00:00.000000Z"

ENDS = pytest.mark.parametrize(
    ("ends", "wait"),
    [(cloaca.RetryAfter("5m"), "5m"), (ValueError("no source"), "5s")],
    ids=["wish", "error"],
)


def declare(ends: Exception, calls: list[Any], left: int = 2) -> None:
    """Each call gives one part; the first `left - 1` of them end as that says."""
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)

    @cloaca.trigger(workflow="report", cron="0 0 * * *")
    def daily(tick: Tick) -> Iterator[TriggerResult]:
        calls.append((tick.scheduled_at, tick.cursor))
        part = (tick.cursor or 0) + 1
        yield TriggerResult.fire({"part": part}, cursor=part)
        if len(calls) < left:
            raise ends


def parts(runner: Any) -> list[tuple[int, str]]:
    return [(context["part"], context["scheduled_time"]) for context in runner.fired("report")]


@ENDS
def test_it_is_called_again_for_the_same_moment_behind_what_it_gave(ends: Exception, wait: str) -> None:
    calls: list[Any] = []
    declare(ends, calls, left=3)
    with cloaca.testing.Runner(START, raise_errors=False) as runner:
        runner.advance("12h")
        assert (calls, parts(runner)) == ([(MIDNIGHT, None)], [(1, MIDNIGHT)])
        runner.advance(wait)
        assert calls[1:] == [(MIDNIGHT, 1)]
        runner.advance("10m")
        assert calls[2:] == [(MIDNIGHT, 2)]
        assert parts(runner) == [(1, MIDNIGHT), (2, MIDNIGHT), (3, MIDNIGHT)]
        runner.advance("12h")
        assert len(calls) == 3, "it is over"
        ran = runner.get_cron_execution_history("daily")
        assert [row["scheduled_time"] for row in ran] == [MIDNIGHT] * 3
        assert runner.get_cron_execution_stats(START)["total_executions"] == 1, "one moment"


@ENDS
def test_why_says_for_which_moment_it_is_called_again(ends: Exception, wait: str) -> None:
    declare(ends, [])
    with cloaca.testing.Runner(START, raise_errors=False) as runner:
        runner.advance("12h")
        says = runner.why("daily")
        assert f" is called again for {MIDNIGHT}; it ran last at {MIDNIGHT}; its last moment " in says
        assert says.endswith(("was put off: retry after 5m", "failed: ValueError: no source"))
        assert runner.ticks("daily")[0]["reason"] in ("retry after 5m", "ValueError: no source")
        runner.advance(wait)
        assert "and runs next at 2026-01-07T00:00:00" in runner.why("daily")


def test_why_says_that_a_moment_is_put_off() -> None:
    def nightly(tick: Tick) -> None:
        raise cloaca.RetryAfter("15m")

    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="report", name="nightly", cron="0 0 * * *")(nightly)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("13h")
        assert runner.why("nightly").endswith(
            f"whose function is called again for {MIDNIGHT}; it has not run yet; its last moment was put off:"
            " retry after 15m"
        )


def test_who_reads_the_store_is_told_that_a_moment_is_put_off(tmp_path: Path) -> None:
    declare(cloaca.RetryAfter("5m"), [])
    url = str(tmp_path / "a.db")
    with Dated(url, START) as runner:
        runner.advance("12h")
        with cloaca.reading.Reader(url) as reader:
            (cron,) = cloaca.reading.crons(reader).items
            assert (cron.state, cron.is_put_off) == ("scheduled", True), "it is not late"
            says = cloaca.reading.why(reader, "daily")
            assert f"and its function is called again for {MIDNIGHT}; it ran last at {MIDNIGHT}" in says
            assert says.endswith("; its last moment was put off: retry after 5m")


@ENDS
def test_the_next_runner_goes_on_with_the_moment(tmp_path: Path, ends: Exception, wait: str) -> None:
    calls: list[Any] = []
    declare(ends, calls)
    url = str(tmp_path / "a.db")
    with Dated(url, START) as runner:
        runner.advance("12h")
    with Dated(url, "2026-01-06T00:00:02Z") as runner:
        runner.advance(wait)
        assert calls == [(MIDNIGHT, None), (MIDNIGHT, 1)]
        assert sorted(run["context"]["part"] for run in runner.list_runs()) == [1, 2]


def test_a_moment_that_is_given_up_has_what_it_was_given() -> None:
    calls: list[Any] = []
    declare(ValueError("no source"), calls, left=1000)
    with cloaca.testing.Runner(START, raise_errors=False) as runner:
        runner.advance("36h")
        of_first = [call for call in calls if call[0] == MIDNIGHT]
        assert len(of_first) > 5
        assert [call[1] for call in calls] == [None, *range(1, len(calls))], "nothing is given twice"
        given = len(runner.list_runs(limit=1000))
        again = runner.backfill("daily", MIDNIGHT, "2026-01-06T00:00:01Z")
        assert [len(of_first), given] == [len(again), len(runner.list_runs(limit=1000))]


def calls_of(tick: Tick) -> list[TriggerResult]:
    return [TriggerResult.fire({"part": n}, cursor=n) for n in (1, 2)]


@pytest.mark.parametrize("ends", [cloaca.RetryAfter("5m"), ValueError("no source")], ids=["wish", "error"])
def test_a_moment_that_is_back_filled_starts_all_that_it_is_given_or_nothing(ends: Exception) -> None:
    calls: list[str] = []
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only")(lambda context: None)

    @cloaca.trigger(workflow="report", cron="0 0 * * *")
    def daily(tick: Tick) -> Iterator[TriggerResult]:
        calls.append(tick.scheduled_at)
        first, second = calls_of(tick)
        yield first
        if len(calls) == 1:
            raise ends
        yield second

    moment = "2026-01-04T00:00:00.000000Z"
    with cloaca.testing.Runner(START, raise_errors=False) as runner:
        with pytest.raises(
            cloaca.TriggerError, match=rf"its moment {moment}: (retry after 5m, as|ValueError)"
        ):
            runner.backfill("daily", "2026-01-04", "2026-01-05")
        assert runner.list_runs() == []
        assert len(runner.backfill("daily", "2026-01-04", "2026-01-05")) == 2
        runner.run_until_idle()
        assert parts(runner) == [(1, moment), (2, moment)]
        assert len(runner.backfill("daily", "2026-01-04", "2026-01-05")) == 2
        assert len(calls) == 2


def test_what_runs_beside_the_calendar_has_its_moment_also_where_its_function_raises() -> None:
    declare(cloaca.RetryAfter("5m"), [])
    with cloaca.testing.Runner(START, raise_errors=False) as runner:
        assert [fire["context"]["scheduled_time"] for fire in runner.tick("daily")["fires"]] == [runner.now]


def many(tick: Tick) -> Iterator[TriggerResult]:
    return (TriggerResult.fire({"n": n}, cursor=n) for n in range(10_001))


@pytest.mark.parametrize(
    "asks",
    [
        lambda runner: runner.backfill("daily", "2026-01-04", "2026-01-05"),
        lambda runner: runner.advance("12h"),
        lambda runner: runner.tick("daily"),
    ],
    ids=["back-fill", "calendar", "tick"],
)
def test_a_moment_that_is_given_too_much_starts_nothing(asks: Callable[[Any], Any]) -> None:
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="report", name="daily", cron="0 0 * * *")(many)
    with cloaca.testing.Runner(START, raise_errors=False) as runner:
        try:
            told = str(asks(runner))
        except cloaca.TriggerError as refused:
            told = str(refused)
        told = f"{told} {[tick['reason'] for tick in runner.ticks('daily')]}"
        assert "it gave more than 10000 results at once, and none counts" in told
        assert runner.list_runs() == []
