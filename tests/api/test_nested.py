"""A task or a callback that waits for another run of its runner: it gives its permit back meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cloaca
import cloaca.testing
from cloaca import permit

WAIT = 60.0

SECONDS = 30.0


def one_at_a_time(**settings: Any) -> cloaca.DefaultRunnerConfig:
    return cloaca.DefaultRunnerConfig(max_concurrent_tasks=1, **settings)


def workflow(name: str, body: Any, **options: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id=name, retry_attempts=options.pop("retry_attempts", 1), **options)(body)


def leaf(context: cloaca.Context) -> cloaca.Context:
    context["depth"] = context.get("depth", 0) + 1
    return context


@pytest.mark.parametrize("way", ["execute", "result", "async", "awaited thread"])
def test_with_one_permit_runs_nest_three_deep(way: str) -> None:
    def nest(name: str) -> Any:
        def body(context: cloaca.Context) -> Any:
            if way == "execute":
                return runner.execute(name, context).final_context
            return runner.submit(name, context).result(SECONDS).final_context

        async def body_async(context: cloaca.Context) -> Any:
            if way == "async":
                return (await runner.execute_async(name, context)).final_context
            return await asyncio.to_thread(body, context)

        return body if way in ("execute", "result") else body_async

    workflow("leaf", leaf)
    workflow("inner", nest("leaf"))
    workflow("middle", nest("inner"))
    workflow("outer", nest("middle"))
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time()) as runner:
        result = runner.submit("outer", {}).result(SECONDS)
        assert (result.status, result.final_context["depth"]) == ("Completed", 1)


def test_a_callback_may_wait_for_a_run() -> None:
    found: list[str] = []

    def told(task_id: str, context: cloaca.Context) -> None:
        found.append(runner.execute("leaf", {}).status)

    workflow("leaf", leaf)
    workflow("outer", leaf, on_success=told)
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time()) as runner:
        assert runner.submit("outer", {}).result(SECONDS).status == "Completed"
    assert found == ["Completed"]


@pytest.mark.parametrize("has_waited", [False, True])
def test_a_plain_callback_of_an_async_task_may_wait_for_a_run(
    has_waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    looked, look = threading.Event(), permit.Permit.look

    def looks(of: permit.Permit) -> None:
        try:
            look(of)
        finally:
            looked.set()

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if has_waited:
            await handle.defer_until(lambda: True, 1)  # type: ignore[misc]
        monkeypatch.setattr(permit.Permit, "look", looks)

    def told(task_id: str, context: cloaca.Context) -> None:
        seen.append(runner.execute("waits", {}).status)

    workflow("waits", lambda context: looked.wait(SECONDS) and None)
    workflow("tells", body, on_success=told)
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time()) as runner:
        assert runner.submit("tells", {}).result(SECONDS).status == "Completed"
    assert seen == ["Completed"]


def test_a_body_may_wait_for_several_runs_at_once() -> None:
    async def body(context: cloaca.Context) -> dict[str, Any]:
        results = await asyncio.gather(*(runner.execute_async("leaf", {"depth": n}) for n in range(3)))
        return {"depths": [result.final_context["depth"] for result in results]}

    workflow("leaf", leaf)
    workflow("outer", body)
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time()) as runner:
        assert runner.submit("outer", {}).result(SECONDS).final_context["depths"] == [1, 2, 3]


def test_who_has_waited_goes_on_before_anything_new_begins() -> None:
    order: list[str] = []
    is_waiting, go = threading.Event(), threading.Event()

    def outer(context: cloaca.Context) -> None:
        run = runner.submit("leaf", {})
        runner.submit_many("later", [{}] * 20)
        is_waiting.set()
        run.result(SECONDS)
        order.append("outer")

    def inner(context: cloaca.Context) -> None:
        go.wait(SECONDS)
        order.append("leaf")

    def later(context: cloaca.Context) -> None:
        # Longer than a thread needs to wake up: its turn is the one after that.
        time.sleep(0.02)
        order.append("later")

    workflow("leaf", inner)
    workflow("outer", outer)
    workflow("later", later)
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time()) as runner:
        run = runner.submit("outer", {})
        assert is_waiting.wait(SECONDS)
        go.set()
        assert run.result(SECONDS).status == "Completed"
    # The run's end is known a moment after its task's: one of the others may begin in between.
    assert order[:3] in (["leaf", "outer"], ["leaf", "outer", "later"], ["leaf", "later", "outer"])


def test_a_tasks_time_stands_still_while_it_waits_for_a_run() -> None:
    workflow("leaf", lambda context: time.sleep(0.4))
    workflow("outer", lambda context: runner.execute("slow", {}) and None)

    def slow(context: cloaca.Context) -> None:
        for _ in range(3):
            runner.execute("leaf", {})

    workflow("slow", slow)
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time(task_timeout_seconds=0.9)) as runner:
        result = runner.submit("outer", {}).result(SECONDS)
        assert result.status == "Completed", result.error_message


def test_what_a_task_has_used_of_its_time_counts_after_the_wait() -> None:
    def outer(context: cloaca.Context) -> None:
        time.sleep(0.4)
        runner.execute("leaf", {})
        time.sleep(0.4)

    workflow("leaf", leaf)
    workflow("outer", outer)
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time(task_timeout_seconds=0.6)) as runner:
        result = runner.submit("outer", {}).result(SECONDS)
        assert "timed out" in (result.error_message or "")


def test_a_runs_time_goes_on_while_its_task_waits_for_another() -> None:
    gone = threading.Event()
    workflow("leaf", lambda context: gone.wait(SECONDS) and None)
    workflow("outer", lambda context: runner.execute("leaf", {}) and None)
    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=0.3)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        try:
            result = runner.submit("outer", {}).result(SECONDS)
            assert "workflow timed out" in (result.error_message or "")
        finally:
            gone.set()


def test_a_body_that_waits_goes_home_when_its_runner_closes(tmp_path: Path) -> None:
    begun, go, attempts = threading.Event(), threading.Event(), []

    def inner(context: cloaca.Context) -> None:
        begun.set()
        go.wait(SECONDS)

    def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(handle.attempt)
        runner.submit("leaf", {}).result()

    workflow("leaf", inner)
    workflow("outer", outer, retry_attempts=1)
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as runner:
        run = runner.submit("outer", {})
        assert begun.wait(SECONDS)
        threading.Timer(0.2, go.set).start()
    with cloaca.DefaultRunner(url) as runner:
        assert runner.run(run.id).result(SECONDS).status == "Completed"
    assert attempts == [1, 2]


def test_a_cancelled_body_waits_no_longer() -> None:
    begun, go, raised = threading.Event(), threading.Event(), []

    def outer(context: cloaca.Context) -> None:
        try:
            runner.submit("leaf", {}).result()
        except cloaca.RunnerError as error:
            raised.append(str(error))
            raise

    def inner(context: cloaca.Context) -> None:
        begun.set()
        go.wait(SECONDS)

    workflow("leaf", inner)
    workflow("outer", outer)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("outer", {})
        assert begun.wait(SECONDS)
        run.cancel()
        try:
            assert run.result(SECONDS).status == "Cancelled"
        finally:
            go.set()
    assert raised
    assert "is to end" in raised[0]


def test_on_a_manual_clock_a_body_waits_over_the_retries_of_the_other_run() -> None:
    def flaky(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if handle.attempt < 3:
            raise ValueError("not yet")

    with cloaca.testing.isolated():
        workflow("leaf", flaky, retry_attempts=3, retry_delay_ms=600_000)
        workflow("outer", lambda context: {"inner": runner.execute("leaf", {}).status})
        config = one_at_a_time(workflow_timeout_seconds=1e6)
        with cloaca.testing.Runner(config=config) as runner:
            assert runner.execute("outer", {}).final_context["inner"] == "Completed"


@pytest.mark.parametrize("priority", [5, 9])
def test_more_parents_than_may_wait_at_once_all_end(monkeypatch: pytest.MonkeyPatch, priority: int) -> None:
    """Beyond a bound a task that waits keeps its place: its children must go first."""
    monkeypatch.setattr(permit, "DEFERRED_MAX", 3)
    go = threading.Event()

    def calls(context: cloaca.Context) -> None:
        go.wait(WAIT)
        current = cloaca.current_run()
        assert current is not None
        current.runner.execute("called", {"n": context["n"]}, check=True)

    with cloaca.WorkflowBuilder("called"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.WorkflowBuilder("calls", priority=priority):
        cloaca.task(id="t", retry_attempts=1)(calls)
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=2) as runner:
        runs = runner.submit_many("calls", [{"n": n} for n in range(30)])
        go.set()
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 30


def test_more_parents_than_may_wait_at_once_end_when_their_children_are_not_ready_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every place is a waiting parent's before the first child is attempted again."""
    monkeypatch.setattr(permit, "DEFERRED_MAX", 3)

    def flaky(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if handle.attempt == 1:
            raise ValueError("not yet")

    def calls(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.runner.execute("called", {"n": context["n"]}, check=True)

    workflow("called", flaky, retry_attempts=2, retry_delay_ms=300, retry_jitter=False)
    workflow("calls", calls)
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=2) as runner:
        runs = runner.submit_many("calls", [{"n": n} for n in range(12)])
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 12
