"""`on_poll_failed` and `on_disabled`: the program hears of what its triggers suffer."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from program import eventually

import cloaca
import cloaca.testing

WAIT = 20.0


def fails() -> bool:
    raise ValueError("boom")


def test_each_failed_poll_is_told_with_its_error_and_how_many_failed_in_a_row() -> None:
    told: list[tuple[object, ...]] = []
    answers: list[bool | Exception] = [ValueError("a"), KeyError("b"), False, ValueError("c")]

    @cloaca.trigger(name="inbox", poll_interval="1m", on_poll_failed=lambda *given: told.append(given))
    def inbox() -> bool:
        answer = answers.pop(0) if answers else False
        if isinstance(answer, Exception):
            raise answer
        return answer

    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
        assert told == [("inbox", "ValueError: a", 1)]
        runner.advance("1h")
    assert told[1:] == [("inbox", "KeyError: 'b'", 2), ("inbox", "ValueError: c", 1)]


def test_a_trigger_that_is_switched_off_is_told_behind_its_last_failed_poll() -> None:
    told: list[tuple[object, ...]] = []
    cloaca.trigger(
        name="inbox",
        poll_interval="1m",
        max_consecutive_failures=2,
        on_poll_failed=lambda *given: told.append(given),
        on_disabled=lambda *given: told.append(given),
    )(fails)
    with cloaca.testing.Runner() as runner:
        runner.advance("1h")
        row = runner.get_trigger_schedule("inbox")
        assert row is not None
        assert row["enabled"] is False
    assert told == [
        ("inbox", "ValueError: boom", 1),
        ("inbox", "ValueError: boom", 2),
        ("inbox", "2 polls in a row failed"),
    ]


def test_a_poll_that_times_out_and_one_that_finds_no_workflow_are_told() -> None:
    told: list[tuple[str, str, int]] = []
    heard = threading.Event()
    go = threading.Event()

    def hear(name: str, error: str, failures: int) -> None:
        told.append((name, error, failures))
        heard.set()

    cloaca.trigger(workflow="nope", name="lost", poll_interval="1m", on_poll_failed=hear)(lambda: True)
    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
    assert [(name, failures) for name, _, failures in told] == [("lost", 1)]
    assert "nope" in told[0][1]
    told.clear()
    heard.clear()
    cloaca.unregister_trigger("lost")
    cloaca.trigger(name="slow", poll_interval="1ms", poll_timeout="20ms", on_poll_failed=hear)(
        lambda: not go.wait(WAIT)
    )
    with cloaca.DefaultRunner(":memory:"):
        assert heard.wait(WAIT)
        go.set()
    assert told[0][0] == "slow"
    assert told[0][1].startswith("TimeoutError: ")
    assert told[0][2] == 1


def test_a_callback_that_raises_is_logged_and_the_next_is_called(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def hear(name: str, error: str, failures: int) -> None:
        told.append(failures)
        if failures == 1:
            raise SystemExit(3)

    async def hear_off(name: str, cause: str) -> None:
        told.append(0)

    cloaca.trigger(
        name="inbox",
        poll_interval="1m",
        max_consecutive_failures=2,
        on_poll_failed=hear,
        on_disabled=hear_off,
    )(fails)
    with cloaca.testing.Runner() as runner:
        runner.advance("1h")
    assert told == [1, 2, 0]
    (line,) = [record for record in caplog.records if "on_poll_failed" in record.message]
    assert line.message.startswith("on_poll_failed of trigger 'inbox' raised")
    assert getattr(line, "cloaca_trigger", None) == "inbox"


def test_a_callback_that_hangs_holds_up_neither_polls_nor_runs_nor_the_shutdown() -> None:
    go, entered, polled = threading.Event(), threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        entered.set()
        go.wait(WAIT)

    polls: list[int] = []

    def good() -> bool:
        polls.append(1)
        if entered.is_set():
            polled.set()
        return False

    with cloaca.WorkflowBuilder("work"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    backoff = cloaca.Backoff(base="1ms", max="1ms")
    cloaca.trigger(name="bad", poll_interval="1ms", on_error=backoff, on_poll_failed=hang)(fails)
    cloaca.trigger(name="good", poll_interval="1ms")(good)
    runner = cloaca.DefaultRunner(":memory:")
    assert entered.wait(WAIT)
    assert polled.wait(WAIT)
    assert [runner.execute("work").status for _ in range(3)] == ["Completed"] * 3
    assert eventually(lambda: runner.stats()["errors"] > 5)
    runner.shutdown(0.1)
    go.set()


def test_a_callback_may_ask_the_runner() -> None:
    whys: list[str] = []

    with cloaca.testing.Runner() as runner:
        cloaca.trigger(
            name="inbox",
            poll_interval="1m",
            max_consecutive_failures=1,
            on_disabled=lambda name, cause: whys.append(runner.why(name)),
        )(fails)
        runner.advance("5m")
    assert len(whys) == 1
    assert "'inbox'" in whys[0]


@pytest.mark.parametrize("argument", ["on_poll_failed", "on_disabled"])
def test_what_is_no_function_or_stands_beside_a_cron_is_refused(argument: str) -> None:
    given: dict[str, Any] = {argument: "mail me"}
    with pytest.raises(cloaca.TriggerError, match=f"{argument} is 'mail me'; it must be a function"):
        cloaca.trigger(name="inbox", **given)(fails)
    given = {argument: print}
    with pytest.raises(cloaca.TriggerError, match=f"{argument} and cron are given"):
        cloaca.trigger(name="inbox", workflow="work", cron="@daily", **given)(fails)


def test_a_trigger_that_is_declared_again_tells_its_newest_callback() -> None:
    told: list[str] = []

    def declare(number: int) -> None:
        def hear(*_: object) -> None:
            told.append(f"callback {number}")

        cloaca.trigger(name="inbox", poll_interval="1m", on_poll_failed=hear if number else None)(fails)

    with cloaca.testing.Runner() as runner:
        for number in (1, 2, 0, 3):
            told.clear()
            declare(number)
            runner.advance("10m")
            assert set(told) == ({f"callback {number}"} if number else set())
