"""`handle.checkpoint(value)` and `handle.checkpointed`: what one attempt of a task leaves for the next."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from program import Dated, eventually

import cloaca
import cloaca.testing

WAIT = 20.0
START = "2026-01-01T00:00:00Z"


def declare(body: Any, **settings: Any) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(**{"id": "only", "retry_delay_ms": 0, **settings})(body)


def tasks_of(runner: cloaca.DefaultRunner, run: cloaca.Run) -> list[dict[str, Any]]:
    found = runner.get_run(run.id)
    assert found is not None
    return list(found["tasks"])


def test_the_next_attempt_finds_what_the_last_one_left(runner: cloaca.DefaultRunner) -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        seen.append(handle.checkpointed)
        handle.checkpoint({"page": handle.attempt})
        if handle.attempt < 3:
            raise ValueError("boom")

    declare(body)
    assert runner.execute("w").status == "Completed"
    assert seen == [None, {"page": 1}, {"page": 2}]


@pytest.mark.parametrize("value", [None, 0, False, "text", "ä\0", [1, [2]], {"a": {"b": 1.5}}, 10**30])
def test_what_json_knows_comes_back(runner: cloaca.DefaultRunner, value: Any) -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if handle.attempt == 1:
            handle.checkpoint(value)
            seen.append(handle.checkpointed)
            raise ValueError("boom")
        seen.append(handle.checkpointed)

    declare(body)
    assert runner.execute("w").status == "Completed"
    assert seen == [value, value]


def test_it_is_a_copy(runner: cloaca.DefaultRunner) -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        value = [1]
        handle.checkpoint(value)
        value.append(2)
        handle.checkpointed.append(3)
        seen.append(handle.checkpointed)

    declare(body)
    assert runner.execute("w").status == "Completed"
    assert seen == [[1]]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"a": b"bytes"}, TypeError),
        (object(), TypeError),
        ({"a": {1: 2}}, TypeError),
        (math.nan, ValueError),
        ("x" * 2000, ValueError),
    ],
)
def test_what_it_cannot_keep_is_refused_and_the_one_before_stays(value: Any, error: type[Exception]) -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.checkpoint("good")
        with pytest.raises(error, match="checkpoint"):
            handle.checkpoint(value)
        seen.append(handle.checkpointed)

    declare(body, retry_attempts=1)
    config = cloaca.DefaultRunnerConfig(context_bytes_max=1000)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        assert runner.execute("w", check=True)
    assert seen == ["good"]


def test_it_is_gone_once_the_task_has_ended(tmp_path: Path) -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        seen.append(handle.checkpointed)
        handle.checkpoint("left")
        if len(seen) == 1:
            raise ValueError("boom")

    declare(body, retry_attempts=1)
    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        run = runner.submit("w")
        assert run.result(WAIT).status == "Failed"
        left = runner.query("SELECT count(*) AS left FROM tasks WHERE checkpoint IS NOT NULL")
        assert left == [{"left": 0}]
        assert runner.retry(run.id).result(WAIT).status == "Completed"
    assert seen == [None, None]


def test_each_task_of_a_run_has_its_own(runner: cloaca.DefaultRunner) -> None:
    seen: dict[str, list[Any]] = {"one": [], "two": []}

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        seen[handle.task_id].append(handle.checkpointed)
        handle.checkpoint(handle.task_id)
        if handle.attempt == 1:
            raise ValueError("boom")

    with cloaca.WorkflowBuilder("w"):
        for name in seen:
            cloaca.task(id=name, retry_delay_ms=0)(body)
    assert runner.execute("w").status == "Completed"
    assert seen == {"one": [None, "one"], "two": [None, "two"]}


def test_what_an_attempt_leaves_in_its_grace_is_for_the_next_one() -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if handle.attempt == 1:
            handle.checkpoint("early")
            assert eventually(lambda: handle.cancelled)
            handle.checkpoint("late")
            return
        seen.append(handle.checkpointed)

    declare(body, timeout="300ms")
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("w", check=True)
    assert seen == ["late"]


def test_an_attempt_that_was_given_up_leaves_nothing_any_more() -> None:
    over, told = threading.Event(), list[BaseException]()
    done = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        assert over.wait(WAIT)
        try:
            handle.checkpoint("late")
        except BaseException as error:
            told.append(error)
        done.set()

    declare(body, timeout="100ms")
    with cloaca.DefaultRunner(":memory:", timeout_grace_seconds=0.1) as runner:
        assert runner.execute("w").status == "Failed"
        over.set()
        assert done.wait(WAIT)
    assert [type(error) for error in told] == [cloaca.RunnerError]
    assert "nobody waits for its attempt 1 any more" in str(told[0])


def test_a_handle_whose_task_has_ended_keeps_nothing(runner: cloaca.DefaultRunner) -> None:
    handles: list[cloaca.TaskHandle] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handles.append(handle)

    declare(body)
    runner.execute("w", check=True)
    with pytest.raises(cloaca.RunnerError, match="'only' has ended"):
        handles[0].checkpoint(1)


def test_any_thread_of_the_body_may_leave_it(runner: cloaca.DefaultRunner) -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        seen.append(handle.checkpointed)
        thread = threading.Thread(target=handle.checkpoint, args=("left",))
        thread.start()
        thread.join(WAIT)
        if handle.attempt == 1:
            raise ValueError("boom")

    declare(body)
    runner.execute("w", check=True)
    assert seen == [None, "left"]


def test_an_async_body_leaves_it_too(runner: cloaca.DefaultRunner) -> None:
    seen: list[Any] = []

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        seen.append(handle.checkpointed)
        await handle.checkpoint(1)
        assert handle.checkpointed == 1
        await asyncio.to_thread(handle.checkpoint, 2)
        if handle.attempt == 1:
            raise ValueError("boom")

    declare(body)
    runner.execute("w", check=True)
    assert seen == [None, 2]


def test_it_goes_with_a_task_that_asks_for_later_through_a_restart(tmp_path: Path) -> None:
    seen: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        seen.append(handle.checkpointed)
        if handle.attempt < 3:
            handle.checkpoint({"asked": handle.attempt})
            raise cloaca.RetryAfter("10m")

    declare(body, retry_attempts=1)
    url = str(tmp_path / "runs.db")
    with Dated(url, START) as clock:
        run = clock.submit("w")
        clock.advance("10m")
    with Dated(url, START) as clock:
        assert eventually(lambda: "goes on here" in clock.why_run(run.id))
        clock.advance("20m")
        assert tasks_of(clock, run)[0]["status"] == "Completed"
    assert seen == [None, {"asked": 1}, {"asked": 2}]


def test_it_goes_with_a_run_whose_runner_leaves_while_the_body_waits(tmp_path: Path) -> None:
    seen: list[Any] = []
    entered = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        seen.append(handle.checkpointed)
        if handle.checkpointed is None:
            handle.checkpoint("half")
            entered.set()
            handle.defer_until(lambda: False, poll_interval_ms=10)

    declare(body, retry_attempts=1)
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as runner:
        run = runner.submit("w")
        assert entered.wait(WAIT)
    with cloaca.DefaultRunner(url) as runner:
        assert eventually(lambda: tasks_of(runner, run)[0]["status"] == "Completed")
    assert seen == [None, "half"]


def test_what_is_left_is_on_record_when_the_call_returns(tmp_path: Path) -> None:
    url = str(tmp_path / "runs.db")
    found: list[Any] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        for number in range(50):
            handle.checkpoint(number)
            found.extend(runner.query("SELECT checkpoint AS left FROM tasks"))

    declare(body, retry_attempts=1)
    with cloaca.DefaultRunner(url) as runner:
        runner.execute("w", check=True)
    assert found == [{"left": str(number)} for number in range(50)]


def test_a_task_that_is_over_before_its_body_is_keeps_nothing() -> None:
    """The run's time is over while its body is at work."""
    told: list[BaseException] = []
    over = threading.Event()
    done = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        assert over.wait(WAIT)
        try:
            handle.checkpoint(1)
        except BaseException as error:
            told.append(error)
        done.set()

    declare(body, retry_attempts=1)
    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=0.2, timeout_grace_seconds=0)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        assert runner.execute("w").status == "Failed"
        over.set()
        assert done.wait(WAIT)
    assert [type(error) for error in told] == [cloaca.RunnerError]
