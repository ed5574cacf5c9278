"""What a tick knows of its trigger's past: `last_error`, `last_run`, `unfinished`."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, declare
from program import eventually, start_program

import cloaca
import cloaca.testing


def test_a_tick_knows_what_went_wrong_in_the_poll_before() -> None:
    declare("good", lambda context: None)
    seen: list[tuple[int, str | None]] = []
    answers: list[Any] = [ValueError("boom"), ValueError("bang"), False, ValueError("late"), True, False]

    @cloaca.trigger(workflow="good", poll_interval="1m")
    def watcher(tick: cloaca.Tick) -> bool:
        seen.append((tick.consecutive_failures, tick.last_error))
        answer = answers.pop(0) if answers else False
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    with cloaca.testing.Runner() as runner:
        runner.advance("20m")
    expected = [
        (0, None),
        (1, "ValueError: boom"),
        (2, "ValueError: bang"),
        (0, None),
        (1, "ValueError: late"),
        (0, None),
    ]
    assert seen[:6] == expected


def test_a_tick_knows_that_the_poll_before_found_no_workflow_or_switched_it_off() -> None:
    seen: list[str | None] = []

    @cloaca.trigger(workflow="nope", poll_interval="1m", max_consecutive_failures=2)
    def watcher(tick: cloaca.Tick) -> bool:
        seen.append(tick.last_error)
        return True

    with cloaca.testing.Runner() as runner:
        runner.advance("1h")
        runner.set_trigger_enabled("watcher", True)
        runner.advance("2m")
    assert len(seen) >= 3
    assert seen[0] is None
    assert seen[1] is not None
    assert "nope" in seen[1]
    assert seen[2] is None, "who switched it on again begins anew"


def test_a_tick_knows_that_the_poll_before_timed_out(runner: cloaca.DefaultRunner) -> None:
    errors: list[str | None] = []
    go, done = threading.Event(), threading.Event()

    @cloaca.trigger(poll_interval="1ms", poll_timeout="20ms")
    def watcher(tick: cloaca.Tick) -> bool:
        errors.append(tick.last_error)
        if len(errors) == 1:
            return not go.wait(WAIT)
        done.set()
        return False

    assert eventually(lambda: [tick["outcome"] for tick in runner.ticks("watcher")] == ["error"])
    # It is polled again once it is home.
    go.set()
    assert done.wait(WAIT)
    assert errors[1] is not None
    assert "TimeoutError" in errors[1]


def test_a_tick_knows_its_runs() -> None:
    entered, go = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        entered.set()
        assert go.wait(WAIT)

    declare("gated", body)
    declare("other", lambda context: None)
    seen: list[tuple[int, dict[str, Any] | None]] = []

    @cloaca.trigger(workflow="gated", poll_interval="24h", allow_concurrent=True)
    def watcher(tick: cloaca.Tick) -> cloaca.TriggerResult:
        seen.append((tick.unfinished, tick.last_run))
        return cloaca.TriggerResult.fire({"n": len(seen)})

    with cloaca.DefaultRunner(":memory:") as runner:
        runner.tick("watcher")
        runner.tick("watcher")
        assert entered.wait(WAIT)
        runner.execute("other")
        assert runner.tick("watcher", dry_run=True)["outcome"] == "fire"
        assert [many for many, _ in seen] == [0, 1, 2]
        newest, oldest = runner.list_runs(trigger="watcher", contexts=False)
        assert seen[0][1] is None
        assert seen[1][1] is not None
        assert seen[1][1]["id"] == oldest["id"]
        assert seen[2][1] is not None
        assert seen[2][1]["id"] == newest["id"]
        assert set(seen[2][1]) == set(newest)
        go.set()
        for row in (newest, oldest):
            runner.run(row["id"]).result(WAIT)
        runner.tick("watcher", dry_run=True)
        assert seen[3][0] == 0
        assert seen[3][1] == runner.list_runs(trigger="watcher", contexts=False)[0]


@pytest.mark.parametrize("kind", ["sync", "async", "by hand"])
def test_a_function_that_ticks_its_own_trigger_is_refused_at_once(kind: str) -> None:
    declare("good", lambda context: None)
    said: list[str] = []

    def ticks(tick: cloaca.Tick) -> bool:
        try:
            tick.runner.tick("watcher")
        except cloaca.RunnerError as refused:
            said.append(str(refused))
        return False

    async def awaits(tick: cloaca.Tick) -> bool:
        try:
            await tick.runner.tick_async("watcher")
        except cloaca.RunnerError as refused:
            said.append(str(refused))
        return False

    cloaca.trigger(workflow="good", name="watcher", poll_interval="1h" if kind == "by hand" else "5ms")(
        awaits if kind == "async" else ticks
    )
    with cloaca.DefaultRunner(":memory:") as runner:
        if kind == "by hand":
            runner.tick("watcher")
        assert eventually(lambda: said)
    assert said[0].startswith("tick('watcher') in the function of that very trigger would wait for itself")


def test_a_tick_that_is_made_by_hand_knows_nothing_of_runs() -> None:
    tick = cloaca.Tick("t", None, "", None, 0)
    assert (tick.last_error, tick.last_run, tick.unfinished) == (None, None, 0)


def test_a_tick_knows_who_polls_it() -> None:
    declare("good", lambda context: None)
    seen: list[Any] = []

    @cloaca.trigger(workflow="good", poll_interval="1m")
    def watcher(tick: cloaca.Tick) -> bool:
        seen.append(tick.runner)
        assert tick.runner.submit("good", {"by": "hand"}).id
        return False

    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
        runner.tick("watcher")
        assert seen == [runner, runner]
        assert len(runner.list_runs()) == 2
    with pytest.raises(cloaca.RunnerError, match="a tick's runner is that of the poll; call the function by"):
        watcher(cloaca.testing.tick())


def quiet() -> bool:
    """Finds nothing."""
    return False


POLLS = """
import sys, threading
sys.path.append(sys.argv[2])
from program import eventually
from test_tick_looks import quiet
import cloaca
with cloaca.WorkflowBuilder("w"):
    cloaca.task(id="only")(lambda context: None)
cloaca.trigger(workflow="w", name="inbox", poll_interval="1h")(quiet)
with cloaca.DefaultRunner(sys.argv[1]) as runner:
    assert eventually(lambda: runner.get_trigger_schedule("inbox")["polled_by"])
    print("polls", flush=True)
    threading.Event().wait(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="a program is killed")
@pytest.mark.parametrize("store", ["file", "server"])
def test_a_tick_waits_until_what_a_dead_runner_polled_is_taken_over(
    request: pytest.FixtureRequest, tmp_path: Path, store: str
) -> None:
    url = str(tmp_path / "runs.db") if store == "file" else request.getfixturevalue("postgres_url")
    if store == "file" and request.config.getoption("--store") != "sqlite":
        pytest.skip("the program opens a file of its own")
    declare("w")
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1h")(quiet)
    with start_program(POLLS, url, os.path.dirname(__file__)) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "polls\n"
            with cloaca.DefaultRunner(url) as runner:
                number = runner.list_trigger_schedules()[0]["polled_by"]
                with pytest.raises(cloaca.RunnerError, match=f"by another runner \\(runner {number} of this"):
                    runner.tick("inbox")
                program.kill()
                program.wait()
                assert runner.tick("inbox")["outcome"] == "skip"
        finally:
            program.kill()
