"""When a trigger is polled next: by its own wish, by somebody else's, after a failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from program import eventually

import cloaca
import cloaca.testing


def declare() -> None:
    with cloaca.WorkflowBuilder("work") as builder:
        builder.add_task(cloaca.task(id="work")(lambda context: None))


@pytest.fixture
def clock() -> Iterator[cloaca.testing.Runner]:
    """A runner whose clock is advanced by hand."""
    with cloaca.testing.Runner() as clock:
        yield clock


def test_poll_after_waits_beside_fires_and_a_cursor(clock: cloaca.testing.Runner) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="paced", poll_interval="1m")
    def poll(tick: cloaca.Tick) -> cloaca.TriggerResult:
        tick.cursor = (tick.cursor or 0) + 1
        tick.poll_after("10m")
        return cloaca.TriggerResult.fire({"n": tick.cursor})

    clock.advance("1m")
    assert "backs off until" in clock.why("paced")
    assert "its own wish" in clock.why("paced")
    clock.advance("9m")
    assert len(clock.list_runs()) == 1
    clock.advance("1m")
    assert len(clock.list_runs()) == 2


@pytest.mark.parametrize("ask", ["tick", "poll_soon"])
def test_a_wish_counts_from_the_poll_that_was_asked_for(clock: cloaca.testing.Runner, ask: str) -> None:
    declare()
    polls: list[str] = []

    @cloaca.trigger(workflow="work", name="paced", poll_interval="1m")
    def poll(tick: cloaca.Tick) -> bool:
        polls.append(tick.scheduled_at)
        tick.poll_after("10m")
        return False

    clock.advance("6m")
    getattr(clock, ask)("paced")
    clock.advance("9m")
    assert len(polls) == 2
    clock.advance("2m")
    assert len(polls) == 3


def test_poll_after_holds_for_a_skip_and_not_for_an_error(clock: cloaca.testing.Runner) -> None:
    polls: list[str] = []

    @cloaca.trigger(name="paced", poll_interval="1m")
    def poll(tick: cloaca.Tick) -> bool:
        polls.append(tick.scheduled_at)
        tick.poll_after(180)
        if len(polls) == 2:
            raise ValueError("boom")
        return False

    for minutes, count in ((1, 1), (2, 1), (1, 2), (1, 3)):
        clock.advance(f"{minutes}m")
        assert len(polls) == count
    with pytest.raises(cloaca.TriggerError, match="delay"):
        cloaca.Tick("t", None, "", None, 0).poll_after("soon")


def test_retry_after_behind_a_fire_with_a_cursor_keeps_the_fire(clock: cloaca.testing.Runner) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="paced", poll_interval="1m")
    def poll(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
        start = tick.cursor or 0
        yield cloaca.TriggerResult.fire({"n": start}, cursor=start + 1)
        raise cloaca.RetryAfter("5m")

    clock.advance("1m")
    assert (len(clock.list_runs()), clock.ticks("paced")[0]["outcome"]) == (1, "fire")
    clock.advance("4m")
    assert len(clock.list_runs()) == 1
    clock.advance("1m")
    assert [run["context"]["n"] for run in clock.list_runs()] == [1, 0]


def test_the_default_back_off_starts_at_the_interval(clock: cloaca.testing.Runner) -> None:
    polls: list[str] = []

    @cloaca.trigger(name="fails", poll_interval="10s")
    def poll(tick: cloaca.Tick) -> bool:
        polls.append(tick.scheduled_at)
        raise ValueError("boom")

    for seconds, count in ((10, 1), (10, 2), (20, 3), (40, 4), (70, 4), (10, 5)):
        clock.advance(f"{seconds}s")
        assert len(polls) == count, seconds


def test_poll_soon_polls_at_once_and_does_not_wait(runner: cloaca.DefaultRunner) -> None:
    polled, release = threading.Semaphore(0), threading.Semaphore(0)

    @cloaca.trigger(name="rare", poll_interval="1h")
    def poll() -> bool:
        polled.release()
        release.acquire()
        return False

    runner.poll_soon("rare")
    assert polled.acquire(timeout=30)
    # Another is wanted while this one is in flight: it follows.
    runner.poll_soon("rare")
    release.release(2)
    assert polled.acquire(timeout=30)
    assert eventually(lambda: runner.stats()["polls"] == 2)
    with pytest.raises(cloaca.TriggerError, match="not found"):
        runner.poll_soon("nobody")
