"""Bodies that hang: the others are polled on, and who looks is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep

import pytest
from attack import until

import cloaca

SECONDS = 30.0


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """Lets every body that hangs go."""
    go = threading.Event()
    yield go
    go.set()


def pollers() -> int:
    return sum(thread.name.startswith("cloaca-poller") for thread in threading.enumerate())


def declare(count: int, go: threading.Event) -> tuple[set[int], list[float]]:
    """Triggers that hang, and one that does not; who hangs, and when the other was polled."""
    hanging: set[int] = set()
    polled: list[float] = []

    def body(number: int) -> Callable[[], bool]:
        def poll() -> bool:
            hanging.add(number)
            go.wait(SECONDS)
            return False

        return poll

    for number in range(count):
        cloaca.trigger(poll_interval="5ms", name=f"hangs {number:02}")(body(number))

    @cloaca.trigger(poll_interval="5ms")
    def good() -> bool:
        polled.append(monotonic())
        return False

    return hanging, polled


def test_sixty_bodies_that_hang_together_hold_up_nobody_else(go: threading.Event) -> None:
    with cloaca.DefaultRunner(":memory:"):
        hanging, polled = declare(60, go)
        until(lambda: len(hanging) == 60)
        before = len(polled)
        until(lambda: len(polled) > before + 10)
        assert pollers() <= 64
        go.set()
        # Those that are not needed go home.
        until(lambda: pollers() < 10)


def test_the_last_poller_that_is_taken_is_told(go: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        return [line for line in lines if "the last of 4 pollers" in line]

    config = cloaca.DefaultRunnerConfig(max_pollers=4)
    with cloaca.DefaultRunner.with_config(":memory:", config):
        hanging, polled = declare(3, go)
        until(told)
        assert len(hanging) == 3
        assert all(f"'hangs {number:02}'" in told()[0] for number in range(3))
        assert "max_pollers" in told()[0]
        before = len(polled)
        until(lambda: len(polled) > before + 10)
        assert pollers() == 4
        assert len(told()) == 1
        go.set()


def test_since_when_a_poll_is_in_flight_is_said(go: threading.Event, runner: cloaca.DefaultRunner) -> None:
    entered = threading.Event()

    @cloaca.trigger(poll_interval="1ms")
    def alone() -> bool:
        entered.set()
        go.wait(SECONDS)
        return False

    @cloaca.trigger(poll_interval="1ms")
    async def awaits() -> bool:
        import asyncio

        await asyncio.to_thread(go.wait, SECONDS)
        return False

    assert entered.wait(SECONDS)
    for name in ("alone", "awaits"):
        until(lambda name=name: "has not answered" in runner.why(name))  # type: ignore[misc]
        sentence = runner.why(name)
        assert re.search(
            r"is being polled since 2\d{3}-\d\d-\d\dT[\d:.]+Z and has not answered yet", sentence
        )
        sleep(0.02)
        assert runner.why(name) == sentence
    go.set()
    until(lambda: "has not answered" not in runner.why("awaits"))


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
def test_the_bound_on_pollers_is_checked(value: object) -> None:
    with pytest.raises(cloaca.ConfigError, match="max_pollers"):
        cloaca.DefaultRunnerConfig(max_pollers=value)  # type: ignore[arg-type]


def test_one_poller_is_enough_for_bodies_that_come_back() -> None:
    config = cloaca.DefaultRunnerConfig(max_pollers=1)
    assert config.to_dict()["max_pollers"] == 1
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        polled = threading.Semaphore(0)

        @cloaca.trigger(poll_interval="1ms")
        def poll() -> bool:
            polled.release()
            return False

        for _ in range(5):
            assert polled.acquire(timeout=SECONDS)
        assert pollers() == 1
        assert "poll" in runner.why("poll")


@pytest.mark.parametrize("steps", [["declare", "withdraw", "declare"], ["withdraw", "declare"] * 2])
def test_what_is_withdrawn_and_declared_amidst_a_poll_waits_for_that_poll(steps: list[str]) -> None:
    lock, inside, most = threading.Lock(), [0], [0]
    events: list[int] = []
    entered, go = threading.Semaphore(0), threading.Event()

    def declare() -> None:
        @cloaca.trigger(workflow="w", poll_interval="1ms", name="tr")
        def tr(tick: cloaca.Tick) -> cloaca.TriggerResult:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            number = tick.cursor or 0
            entered.release()
            go.wait(20)
            with lock:
                inside[0] -= 1
            return cloaca.TriggerResult.fire({"n": number}, cursor=number + 1)

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: events.append(context["n"]))
    declare()
    with cloaca.DefaultRunner(":memory:") as runner:
        assert entered.acquire(timeout=20)
        for step in steps:
            declare() if step == "declare" else cloaca.unregister_trigger("tr")
        # Whatever is polled beside it is polled within a few milliseconds.
        assert not entered.acquire(timeout=0.1)
        go.set()
        until(lambda: len(events) > 20)
        cloaca.unregister_trigger("tr")
        assert runner.list_runs(limit=1)
    assert most == [1]
    assert sorted(events) == list(range(len(events)))
