"""One poll takes at most ten thousand results: those behind come with the next, which comes at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cloaca
from cloaca import TriggerResult, testing

AT_ONCE = 10_000


def declare() -> None:
    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def nothing(context: cloaca.Context) -> None:
            """Nothing to do."""


def rows(start: int, end: int) -> list[TriggerResult]:
    return [TriggerResult.fire({"n": n}, cursor=n) for n in range(start, end)]


@pytest.mark.parametrize("is_generator", [True, False])
def test_a_backlog_is_worked_off_at_once_and_without_a_failure(is_generator: bool) -> None:
    declare()
    polls: list[int] = []
    closed: list[int] = []

    def given(start: int) -> Iterator[TriggerResult]:
        try:
            yield from rows(start, AT_ONCE * 2 + 8)
        finally:
            closed.append(start)

    @cloaca.trigger(workflow="work", poll_interval="1h", max_consecutive_failures=1, overlap="allow")
    def backlog(tick: cloaca.Tick) -> Iterator[TriggerResult] | list[TriggerResult]:
        start = (tick.cursor or 0) + 1
        polls.append(start)
        tick.cursor = AT_ONCE * 3 if start < AT_ONCE else tick.cursor
        return given(start) if is_generator else list(given(start))

    with testing.Runner(raise_errors=True) as runner:
        runner.advance("1h")
        assert polls == [1, AT_ONCE + 1, AT_ONCE * 2 + 1]
        assert runner.cursor("backlog") == AT_ONCE * 2 + 7
        assert runner.stats()["runs_completed"] == AT_ONCE * 2 + 7
        assert closed == polls
        assert {row["outcome"] for row in runner.ticks("backlog")} == {"fire"}
        runner.advance("1h")
        assert len(polls) == 4


@pytest.mark.parametrize("is_paused", [True, False])
def test_of_a_backlog_that_is_put_off_no_more_is_asked_for_at_once(is_paused: bool) -> None:
    declare()
    polls: list[int] = []

    @cloaca.trigger(workflow="work", poll_interval="1h", overlap="skip")
    def backlog(tick: cloaca.Tick) -> list[TriggerResult]:
        polls.append(1)
        return rows((tick.cursor or 0) + 1, AT_ONCE * 2)

    with testing.Runner(raise_errors=True) as runner:
        if is_paused:
            runner.pause(workflow="work")
        runner.advance("1h")
        assert (len(polls), runner.cursor("backlog"), len(runner.list_runs())) == (1, 1, 1)
        assert runner.ticks("backlog")[0]["reason"] == f"overlap dropped 1 fire and held {AT_ONCE - 2} back"
        runner.advance("1h")
        taken = 1 if is_paused else 2
        assert (len(polls), runner.cursor("backlog"), len(runner.list_runs())) == (2, taken, taken)


def test_of_a_backlog_that_a_rate_limit_puts_off_no_more_is_asked_for_at_once() -> None:
    with cloaca.WorkflowBuilder("work", rate_limit=cloaca.RateLimit(3, per="1h")):
        cloaca.task(id="nothing")(lambda context: None)
    polls: list[int] = []

    @cloaca.trigger(workflow="work", poll_interval="1m")
    def backlog(tick: cloaca.Tick) -> list[TriggerResult]:
        polls.append(1)
        return rows((tick.cursor or 0) + 1, AT_ONCE * 2)

    with testing.Runner(raise_errors=True) as runner:
        runner.advance("2m")
        assert len(polls) == 2


def test_more_than_that_without_cursors_fails_and_says_what_to_do() -> None:
    declare()

    @cloaca.trigger(workflow="work", poll_interval="1h")
    def backlog() -> list[TriggerResult]:
        return [TriggerResult.fire({"n": n}) for n in range(AT_ONCE + 1)]

    with testing.Runner() as runner:
        told = runner.tick("backlog")
        assert told["outcome"] == "error"
        assert "none counts; give fewer, or give each fire its cursor" in (told["reason"] or "")
        assert not runner.list_runs()


def test_exactly_that_many_are_one_poll() -> None:
    declare()

    @cloaca.trigger(workflow="work", poll_interval="1h", overlap="allow")
    def backlog(tick: cloaca.Tick) -> list[TriggerResult]:
        return rows((tick.cursor or 0) + 1, AT_ONCE + 1)

    with testing.Runner() as runner:
        told = runner.tick("backlog")
        assert (told["outcome"], len(told["fires"]), told["reason"]) == ("fire", AT_ONCE, None)
