"""What a trigger's or a cron's function may answer, and what is said of what it may not."""

from __future__ import annotations

from typing import Any

import pytest

import cloaca
import cloaca.testing

START = "2026-03-01T00:00:00Z"


@pytest.fixture(autouse=True)
def workflow() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)


def refused(answer: Any, **how: Any) -> str:
    """What is said of a function that answers so."""
    cloaca.trigger(workflow="w", name="it", **how)(lambda tick: answer)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1h1m")
        tick = runner.ticks("it")[0]
        assert (tick["outcome"], runner.list_runs()) == ("error", [])
        return str(tick["reason"])


@pytest.mark.parametrize("answer", [{"file": "a"}, cloaca.Context({"file": "a"})])
def test_a_poll_that_returns_a_context_is_told_how_to_fire_it(answer: Any) -> None:
    told = refused(answer, poll_interval="1h")
    assert f"it returned {type(answer).__name__}" in told
    assert "to fire with a context return TriggerResult.fire({...})" in told


def test_a_poll_that_returns_nothing_is_told_how_to_skip() -> None:
    told = refused(None, poll_interval="1h")
    assert "it returned None" in told
    assert "return TriggerResult.skip()" in told


def test_a_list_of_contexts_is_told_so_too() -> None:
    told = refused([{"file": "a"}], poll_interval="1h")
    assert "its list holds a dict" in told
    assert "TriggerResult.fire({...})" in told


def test_a_cron_is_told_what_a_cron_may_return() -> None:
    told = refused("x", cron="0 * * * *")
    assert "it returned str" in told
    assert (
        "a cron's function returns None to run, a context, a bool, a TriggerResult, or a list of them" in told
    )


@pytest.mark.parametrize("key", ["scheduled_time", "schedule_id", "schedule_timezone", "schedule_expression"])
@pytest.mark.parametrize("how", ["context", "fire"])
def test_a_cron_cannot_overwrite_what_tells_of_its_moment(key: str, how: str) -> None:
    answer: Any = {"own": 1, key: "2020-01-01"}
    told = refused(answer if how == "context" else [cloaca.TriggerResult.fire(answer)], cron="0 * * * *")
    assert f"context holds {key}, which each run of a cron is given" in told


def test_a_cron_may_repeat_what_tells_of_its_moment() -> None:
    cloaca.trigger(workflow="w", name="it", cron="0 * * * *")(
        lambda tick: {"scheduled_time": tick.scheduled_at, "n": 1}
    )
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1h")
        assert [context["n"] for context in runner.fired("w")] == [1]
