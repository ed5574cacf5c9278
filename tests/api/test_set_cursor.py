"""A cursor that is set by a call: the next poll sees it, and one in flight counts for nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from program import eventually

import cloaca
import cloaca.testing
from cloaca import Tick, TriggerResult

WAIT = 20.0


@pytest.fixture(autouse=True)
def workflow() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


def numbers(name: str = "it", many: int = 3, **arguments: Any) -> None:
    """Fires each number behind its cursor, one at a poll, up to so many."""

    def body(tick: Tick) -> TriggerResult:
        n = (tick.cursor or 0) + 1
        return TriggerResult.fire({"n": n}, cursor=n) if n <= many else TriggerResult.skip("all")

    cloaca.trigger(workflow="w", name=name, **{"poll_interval": "1m"} | arguments)(body)


def fired(runner: cloaca.DefaultRunner) -> list[int]:
    return [run["context"]["n"] for run in reversed(runner.list_runs())]


def test_the_next_poll_sees_what_was_set() -> None:
    numbers()
    with cloaca.testing.Runner() as runner:
        assert runner.cursor("it") is None
        runner.advance("10m")
        assert (fired(runner), runner.cursor("it")) == ([1, 2, 3], 3)
        runner.set_cursor("it", 1)
        assert runner.cursor("it") == 1
        runner.advance("10m")
        assert (fired(runner), runner.cursor("it")) == ([1, 2, 3, 2, 3], 3)
        runner.reset_cursor("it")
        assert runner.cursor("it") is None
        runner.advance("10m")
        assert fired(runner) == [1, 2, 3, 2, 3, 1, 2, 3]
        assert runner.tick("it")["outcome"] == "skip"


def test_a_poll_in_flight_that_looked_at_the_old_one_counts_for_nothing() -> None:
    looked, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    def body(tick: Tick) -> TriggerResult:
        seen.append(tick.cursor)
        if len(seen) == 1:
            looked.set()
            assert go.wait(WAIT)
        n = (tick.cursor or 0) + 1
        return TriggerResult.fire({"n": n}, cursor=n) if n in (1, 11) else TriggerResult.skip()

    cloaca.trigger(workflow="w", name="it", poll_interval="10ms")(body)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert looked.wait(WAIT)
        runner.set_cursor("it", 10)
        go.set()
        assert eventually(lambda: runner.cursor("it") == 11)
        assert fired(runner) == [11]
        assert seen[:2] == [None, 10]


def test_a_trigger_whose_polls_all_count_for_nothing_says_why() -> None:
    def body(tick: Tick) -> TriggerResult:
        tick.runner.set_cursor("it", 7)
        return TriggerResult.fire({"n": 1}, cursor=1)

    cloaca.trigger(workflow="w", name="it", poll_interval="1m")(body)
    with cloaca.testing.Runner() as runner:
        runner.advance("3m")
        (tick,) = runner.ticks("it")
        reason = "discarded: its cursor was set by a call meanwhile"
        assert (tick["outcome"], tick["reason"], tick["count"]) == ("skip", reason, 3)
        assert reason in runner.why("it")
        assert fired(runner) == []


def test_it_is_heard_by_whoever_polls_the_trigger(url: str) -> None:
    numbers(poll_interval="10ms")
    with cloaca.DefaultRunner(url) as polls, cloaca.DefaultRunner(url, paused=True) as other:
        assert eventually(lambda: other.cursor("it") == 3)
        other.set_cursor("it", 0)
        assert eventually(lambda: fired(polls) == [1, 2, 3, 1, 2, 3])
        other.reset_cursor("it")
        assert eventually(lambda: len(fired(polls)) == 9)


def test_it_is_heard_in_another_process(url: str) -> None:
    source = """
        import sys, cloaca
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="only")(lambda context: None)
        @cloaca.trigger(workflow="w", name="it", poll_interval="10ms")
        def it(tick):
            n = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"n": n}, cursor=n) if n <= 3 else cloaca.TriggerResult.skip()
        with cloaca.DefaultRunner(sys.argv[1]) as runner:
            print("ready", flush=True)
            sys.stdin.readline()
    """
    with (
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as there,
        cloaca.DefaultRunner(url, triggers=[], workflows=[]) as here,
    ):
        assert there.stdout is not None
        assert there.stdin is not None
        try:
            assert there.stdout.readline() == "ready\n"
            assert eventually(lambda: here.query("SELECT cursor FROM schedules") == [{"cursor": "3"}])
            here.set_cursor("it", 1)
            assert eventually(lambda: fired(here) == [1, 2, 3, 2, 3])
        finally:
            there.stdin.close()


def test_what_nobody_polls_is_set_too_and_outlives_the_process(url: str) -> None:
    numbers()
    with cloaca.DefaultRunner(url):
        pass
    with cloaca.DefaultRunner(url, paused=True) as runner:
        runner.set_cursor("it", {"page": [1, 2]})
    cloaca.unregister_trigger("it")
    with cloaca.DefaultRunner(url) as runner:
        assert runner.cursor("it") == {"page": [1, 2]}


def test_a_cron_has_a_cursor_too() -> None:
    seen: list[Any] = []

    def nightly(tick: Tick) -> None:
        seen.append(tick.cursor)
        tick.cursor = (tick.cursor or 0) + 1

    cloaca.trigger(workflow="w", cron="0 3 * * *")(nightly)
    with cloaca.testing.Runner() as runner:
        runner.advance("2d")
        assert runner.cursor(nightly) == 2
        runner.set_cursor(nightly, 10)
        runner.advance("2d")
        assert (seen, runner.cursor("nightly")) == ([None, 1, 10, 11], 12)
        assert len(runner.list_runs()) == 4


def test_of_a_cron_that_is_deciding_the_moment_counts_and_the_cursor_stays_as_it_was_set() -> None:
    looked, go = threading.Event(), threading.Event()

    def each(tick: Tick) -> None:
        tick.cursor = "by the body"
        looked.set()
        assert go.wait(WAIT)

    cloaca.trigger(workflow="w", cron="* * * * * *")(each)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert looked.wait(WAIT)
        runner.set_cursor("each", "by a call")
        cloaca.trigger(workflow="w", name="each", cron="0 0 1 1 *")(lambda tick: None)
        go.set()
        assert eventually(lambda: runner.list_runs())
        assert runner.cursor("each") == "by a call"


def test_one_line_in_the_log_tells_of_it(caplog: pytest.LogCaptureFixture) -> None:
    numbers()
    with cloaca.testing.Runner() as runner, caplog.at_level(logging.INFO, "cloaca"):
        runner.set_cursor("it", 2)
        runner.reset_cursor("it")
    told = [record for record in caplog.records if "set by a call" in record.message]
    assert [record.message for record in told] == [
        "trigger 'it': its cursor was set by a call, from none to 2",
        "trigger 'it': its cursor was set by a call, from 2 to none",
    ]
    assert {record.cloaca_trigger for record in told} == {"it"}  # type: ignore[attr-defined]


def test_what_cannot_be_set_is_refused() -> None:
    numbers()
    with cloaca.testing.Runner(config=cloaca.DefaultRunnerConfig(context_bytes_max=100)) as runner:
        with pytest.raises(cloaca.TriggerError, match="'ti' not found; did you mean 'it'"):
            runner.set_cursor("ti", 1)
        with pytest.raises(cloaca.TriggerError, match="not found"):
            runner.cursor("nope")
        with pytest.raises(cloaca.ContextTypeError, match="cursor"):
            runner.set_cursor("it", object())
        with pytest.raises(cloaca.ContextError, match="the cursor"):
            runner.set_cursor("it", "x" * 200)
        assert runner.cursor("it") is None
