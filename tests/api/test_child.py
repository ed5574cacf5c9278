"""Runs that tasks start: whose they are, which call they stand for, and what ends them."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from program import eventually, run_program

import cloaca
import cloaca.testing
from cloaca import reading
from cloaca.cli import main

SECONDS = 30.0

Start = Callable[[cloaca.DefaultRunner, Any], Any]


def workflow(name: str, body: Any, **options: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id=name, **{"retry_attempts": 1, "retry_delay_ms": 0, **options})(body)


def one_at_a_time(**settings: Any) -> cloaca.DefaultRunnerConfig:
    return cloaca.DefaultRunnerConfig(max_concurrent_tasks=1, **settings)


def details(runner: cloaca.DefaultRunner, run_id: str) -> Any:
    found = runner.get_run(run_id)
    assert found is not None
    return found


def children(runner: cloaca.DefaultRunner, run_id: str) -> list[Any]:
    return list(details(runner, run_id)["children"])


async def _submit_async(runner: cloaca.DefaultRunner, context: Any) -> Any:
    return await (await runner.submit_async("leaf", context))


WAYS: dict[str, tuple[bool, Any]] = {
    "execute": (False, lambda runner, context: runner.execute("leaf", context)),
    "submit": (False, lambda runner, context: runner.submit("leaf", context).result(SECONDS)),
    "submit_many": (
        False,
        lambda runner, context: runner.submit_many("leaf", [context])[0].result(SECONDS),
    ),
    "execute_async": (True, lambda runner, context: runner.execute_async("leaf", context)),
    "submit_async": (True, _submit_async),
    "decorated": (True, lambda runner, context: runner.execute_async("leaf", context)),
    "thread": (True, lambda runner, context: asyncio.to_thread(runner.execute, "leaf", context)),
}


def decorated(body: Any) -> Any:
    """An ordinary function that returns an awaitable, as decorators make."""

    def wrapper(context: cloaca.Context, handle: cloaca.TaskHandle) -> Any:
        return body(context, handle)

    return wrapper


def calling(way: str, then: Callable[[Any, int], Any]) -> Any:
    """A body that calls "leaf" in that way with a context of its attempt's own, and does something with how
    that ended. Its runner is the one that is alive."""
    is_async, call = WAYS[way]

    def runner() -> cloaca.DefaultRunner:
        return cloaca.runners()[0]

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> Any:
        return then(call(runner(), {"attempt": handle.attempt}), handle.attempt)

    async def body_async(context: cloaca.Context, handle: cloaca.TaskHandle) -> Any:
        return then(await call(runner(), {"attempt": handle.attempt}), handle.attempt)

    if way == "decorated":
        return decorated(body_async)
    return body_async if is_async else body


ways = pytest.mark.parametrize("way", WAYS)


@ways
def test_a_run_that_a_task_starts_is_shown_with_it(way: str) -> None:
    workflow("leaf", lambda context: None)
    workflow("outer", calling(way, lambda result, attempt: None))
    with cloaca.DefaultRunner(":memory:") as runner:
        outer = runner.submit("outer")
        assert outer.result(SECONDS).status == "Completed"
        (child,) = children(runner, outer.id)
        (leaf,) = runner.list_runs("leaf")
        assert child == {
            "id": leaf["id"],
            "workflow_name": "leaf",
            "status": "Completed",
            "kind": "task",
            "task": "outer",
            "trigger_name": None,
            "created_at": leaf["created_at"],
            "completed_at": leaf["completed_at"],
        }
        assert (leaf["parent_run"], leaf["parent_task"], leaf["parent_kind"]) == (outer.id, "outer", "task")
        assert (details(runner, leaf["id"])["parent_run"], children(runner, leaf["id"])) == (outer.id, [])
        assert [run["id"] for run in runner.list_runs(parent=outer.id)] == [leaf["id"]]
        assert [run["id"] for run in runner.iter_runs(parent=leaf["id"])] == []
        (parent,) = runner.list_runs("outer")
        assert (parent["parent_run"], parent["parent_task"], parent["parent_kind"]) == (None, None, None)


@ways
def test_a_second_attempt_finds_the_child_of_the_first_whatever_its_context(way: str) -> None:
    called: list[int] = []

    def leaf(context: cloaca.Context) -> None:
        called.append(context["attempt"])
        context["answer"] = 42

    def then(result: Any, attempt: int) -> Any:
        if attempt < 3:
            raise ValueError("not yet")
        return {"answer": result.final_context["answer"], "of": result.final_context["attempt"]}

    workflow("leaf", leaf)
    workflow("outer", calling(way, then), retry_attempts=3)
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.submit("outer").result(SECONDS)
        assert (result.status, result.final_context.to_dict()) == ("Completed", {"answer": 42, "of": 1})
        assert len(runner.list_runs("leaf")) == 1
    assert called == [1]


@ways
@pytest.mark.parametrize("end", ["Failed", "Cancelled"])
def test_a_child_that_ended_badly_is_opened_again_by_the_next_attempt(way: str, end: str) -> None:
    attempts: list[int] = []

    def leaf(context: cloaca.Context) -> None:
        attempts.append(context["attempt"])
        if len(attempts) == 1:
            current = cloaca.current_run()
            assert current is not None
            assert current.run_id is not None
            if end == "Cancelled":
                cloaca.runners()[0].cancel(current.run_id)
            raise OSError("down")

    def then(result: Any, attempt: int) -> None:
        assert result.status == (end if attempt == 1 else "Completed")
        result.raise_for_failure()

    workflow("leaf", leaf)
    workflow("outer", calling(way, then), retry_attempts=2)
    with cloaca.DefaultRunner(":memory:") as runner:
        outer = runner.submit("outer")
        result = outer.result(SECONDS)
        assert result.status == "Completed", result.error_message
        assert [child["status"] for child in children(runner, outer.id)] == ["Completed"]
    assert attempts == [1, 1], "the same run, with its own context"


@pytest.mark.parametrize("way", ["execute_async", "submit_async", "decorated"])
@pytest.mark.parametrize("end", ["Failed", "Completed"])
def test_on_the_programs_loop_a_later_attempt_finds_the_child(way: str, end: str) -> None:
    attempts: list[int] = []
    loops: list[object] = []

    async def leaf(context: cloaca.Context) -> None:
        loops.append(asyncio.get_running_loop())
        attempts.append(context["attempt"])
        if end == "Failed" and len(attempts) == 1:
            raise OSError("down")

    def then(result: Any, attempt: int) -> None:
        loops.append(asyncio.get_running_loop())
        result.raise_for_failure()
        if attempt == 1:
            raise ValueError("once more")

    workflow("leaf", leaf)
    workflow("outer", calling(way, then), retry_attempts=2)

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1) as runner:
            run = await runner.submit_async("outer")
            result = await run.wait(SECONDS)
            assert result.status == "Completed", result.error_message
            assert len(children(runner, run.id)) == 1
        assert set(loops) == {asyncio.get_running_loop()}

    asyncio.run(main())
    assert attempts == ([1, 1] if end == "Failed" else [1])


def test_a_second_attempt_waits_for_a_child_that_goes_on() -> None:
    go, again = threading.Event(), threading.Event()
    called: list[str] = []

    def leaf(context: cloaca.Context) -> None:
        called.append("leaf")
        go.wait(SECONDS)

    def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, str]:
        run = runner.submit("leaf", {"attempt": handle.attempt})
        if handle.attempt == 1:
            raise ValueError("cut short")
        again.set()
        return {"leaf": run.result(SECONDS).status}

    workflow("leaf", leaf)
    workflow("outer", outer, retry_attempts=2)
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time()) as runner:
        run = runner.submit("outer")
        try:
            # The leaf has the one permit until it is let go: the second attempt comes after it, or beside it.
            assert eventually(lambda: bool(called))
        finally:
            go.set()
        assert run.result(SECONDS).final_context["leaf"] == "Completed"
        assert again.is_set()
    assert called == ["leaf"]


def test_calls_are_counted_for_each_workflow_by_itself_and_apart_from_run_keys() -> None:
    orders = [["a", "b", "a", "key"], ["key", "b", "a", "extra", "a"]]

    def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        counts = {"a": 0, "b": 0, "extra": 0}
        for name in orders[handle.attempt - 1]:
            if name == "key":
                runner.submit("a", {"key": handle.attempt}, run_key="k")
                continue
            counts[name] += 1
            runner.execute(name, {"number": counts[name], "attempt": handle.attempt})
        if handle.attempt == 1:
            raise ValueError("once more")

    for name in ("a", "b", "extra"):
        workflow(name, lambda context: None)
    workflow("outer", outer, retry_attempts=2)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.submit("outer").result(SECONDS).status == "Completed"
        found = {
            name: [run["context"] for run in runner.list_runs(name)][::-1] for name in ("a", "b", "extra")
        }
    first = {"attempt": 1}
    assert found["a"] == [{"number": 1, **first}, {"number": 2, **first}, {"key": 1}]
    assert found["b"] == [{"number": 1, **first}]
    assert found["extra"] == [{"number": 1, "attempt": 2}]


def test_many_at_once_are_that_many_calls() -> None:
    def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, list[int]]:
        contexts = [{"number": number, "attempt": handle.attempt} for number in range(2 + handle.attempt)]
        results = [run.result(SECONDS) for run in runner.submit_many("leaf", contexts)]
        if handle.attempt == 1:
            raise ValueError("once more")
        return {"of": [result.final_context["attempt"] for result in results]}

    workflow("leaf", lambda context: None)
    workflow("outer", outer, retry_attempts=2)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("outer")
        assert run.result(SECONDS).final_context["of"] == [1, 1, 1, 2]
        assert len(children(runner, run.id)) == 4


def test_a_run_key_finds_a_tasks_own_child_as_its_number_does() -> None:
    calls: list[int] = []

    def leaf(context: cloaca.Context) -> None:
        calls.append(context["attempt"])
        if len(calls) == 1:
            raise OSError("down")

    def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        run = runner.submit("leaf", {"attempt": handle.attempt}, run_key="order 7")
        run.result(SECONDS).raise_for_failure()

    workflow("leaf", leaf)
    workflow("outer", outer, retry_attempts=2)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("outer")
        assert run.result(SECONDS).status == "Completed"
        (child,) = children(runner, run.id)
        assert (child["status"], calls) == ("Completed", [1, 1])
        # Whoever else comes with it gets what there is, as ever.
        with pytest.raises(ValueError, match="whose context is another one"):
            runner.submit("leaf", {"attempt": 9}, run_key="order 7")


def test_of_a_run_key_that_another_has_a_task_gets_what_there_is() -> None:
    found: list[Any] = []

    def outer(context: cloaca.Context) -> None:
        run = runner.submit("leaf", {"n": 1}, run_key="k")
        found.append((run.id, run.result(SECONDS).status))

    def leaf(context: cloaca.Context) -> None:
        raise OSError("down")

    workflow("leaf", leaf)
    workflow("outer", outer)
    with cloaca.DefaultRunner(":memory:") as runner:
        first = runner.submit("leaf", {"n": 1}, run_key="k")
        assert first.result(SECONDS).status == "Failed"
        run = runner.submit("outer")
        assert run.result(SECONDS).status == "Completed"
        assert children(runner, run.id) == []
    assert found == [(first.id, "Failed")]


def test_users_run_keys_and_calls_never_meet() -> None:
    def outer(context: cloaca.Context) -> None:
        current = cloaca.current_run()
        assert current is not None
        for key in (f"{current.run_id}", f"{current.run_id}/outer/1", "outer", "1"):
            runner.submit("leaf", {"key": key}, run_key=key).result(SECONDS)
        runner.execute("leaf", {"key": None})

    workflow("leaf", lambda context: None)
    workflow("outer", outer)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.submit("outer").result(SECONDS).status == "Completed"
        assert len(runner.list_runs("leaf")) == 5
        assert runner.list_runs("leaf", key="1")[0]["parent_task"] == "outer"
        assert runner.list_runs("leaf")[0]["run_key"] is None


def test_a_parent_that_is_retried_by_hand_finds_its_children() -> None:
    fails, called = [True], []

    def leaf(context: cloaca.Context) -> None:
        called.append("leaf")

    def outer(context: cloaca.Context) -> None:
        runner.execute("leaf")
        if fails[0]:
            raise ValueError("not yet")

    workflow("leaf", leaf)
    workflow("outer", outer)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("outer")
        assert run.result(SECONDS).status == "Failed"
        fails[0] = False
        assert runner.retry(run.id).result(SECONDS).status == "Completed"
    assert called == ["leaf"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_callbacks_runs_are_shown_with_the_run_and_each_call_starts_one(is_async: bool) -> None:
    fails = [True]

    def outer(context: cloaca.Context) -> None:
        runner.submit("leaf", {"by": "body"}).result(SECONDS)
        if fails[0]:
            raise ValueError("not yet")

    async def outer_async(context: cloaca.Context) -> None:
        await runner.execute_async("leaf", {"by": "body"})
        if fails[0]:
            raise ValueError("not yet")

    def told(*arguments: object) -> None:
        runner.execute("leaf", {"by": "callback"})

    async def told_async(*arguments: object) -> None:
        await runner.execute_async("leaf", {"by": "callback"})

    callback = told_async if is_async else told
    workflow("leaf", lambda context: None)
    body = outer_async if is_async else outer
    workflow("outer", body, on_success=callback, on_failure=callback)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("outer")
        assert run.result(SECONDS).status == "Failed"
        fails[0] = False
        assert runner.retry(run.id).result(SECONDS).status == "Completed"
        assert [child["task"] for child in children(runner, run.id)] == ["outer", None, None]
        kinds = ["task", "callback", "callback"]
        assert [child["kind"] for child in children(runner, run.id)] == kinds
        contexts = [found["context"]["by"] for found in runner.list_runs(parent=run.id)]
        assert contexts == ["callback", "callback", "body"]


def test_a_task_of_what_a_callback_started_waits_for_the_run_that_was_called_back() -> None:
    fails, got, goes_on = [True], [], threading.Event()

    def outer(context: cloaca.Context) -> None:
        if fails[0]:
            raise ValueError("not yet")
        goes_on.wait(SECONDS)

    def mend(context: cloaca.Context) -> None:
        fails[0] = False
        runner.retry(context["run"])
        with pytest.raises(TimeoutError):
            # It is no part of the run that it waits for.
            runner.run(context["run"]).result(0.01)
        goes_on.set()
        got.append(runner.run(context["run"]).result(SECONDS).status)

    workflow("mend", mend)
    started: list[Any] = []
    with cloaca.WorkflowBuilder("outer") as builder:
        cloaca.task(id="only", retry_attempts=1)(outer)
        builder.on_failure(lambda run: started.append(runner.submit("mend", {"run": run["id"]})))
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("outer")
        assert run.result(SECONDS).status == "Failed"
        assert eventually(lambda: started)
        assert started[0].result(SECONDS).status == "Completed"
        assert (got, details(runner, run.id)["status"]) == (["Completed"], "Completed")


def test_what_no_task_starts_has_no_parent() -> None:
    seen: list[Any] = []
    workflow("leaf", lambda context: None)

    @cloaca.trigger(workflow="leaf", poll_interval="1h", name="polled")
    def polled() -> cloaca.TriggerResult:
        seen.append(runner.submit("leaf").id)
        return cloaca.TriggerResult.fire({})

    with cloaca.DefaultRunner(":memory:") as runner:
        runner.tick("polled")
        runner.submit("leaf").result(SECONDS)
        assert eventually(lambda: len(runner.list_runs("leaf", "Completed")) == 3)
        assert {run["parent_run"] for run in runner.list_runs()} == {None}


def test_a_run_of_another_runner_is_no_child() -> None:
    def outer(context: cloaca.Context) -> None:
        other.execute("leaf")

    workflow("leaf", lambda context: None)
    workflow("outer", outer)
    with cloaca.DefaultRunner(":memory:") as runner, cloaca.DefaultRunner(":memory:") as other:
        assert runner.submit("outer").result(SECONDS).status == "Completed"
        assert other.list_runs("leaf")[0]["parent_run"] is None


def test_three_deep_with_one_permit_every_level_may_be_attempted_again() -> None:
    called: list[tuple[str, int]] = []

    def nest(name: str, inner: str | None) -> None:
        def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            called.append((name, handle.attempt))
            if inner is not None:
                runner.execute(inner, {"attempt": handle.attempt}, check=True)
            if handle.attempt == 1:
                raise ValueError("once more")

        workflow(name, body, retry_attempts=2)

    nest("leaf", None)
    nest("middle", "leaf")
    nest("outer", "middle")
    with cloaca.DefaultRunner.with_config(":memory:", one_at_a_time()) as runner:
        assert runner.submit("outer").result(SECONDS).status == "Completed"
        assert len(runner.list_runs()) == 3
    assert called == [
        ("outer", 1),
        ("middle", 1),
        ("leaf", 1),
        ("leaf", 2),
        ("middle", 2),
        ("outer", 2),
    ]


def test_on_a_manual_clock_a_second_attempt_finds_the_child() -> None:
    called: list[int] = []

    def leaf(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        called.append(handle.attempt)
        if handle.attempt < 2:
            raise ValueError("not yet")

    def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        runner.execute("leaf", {"attempt": handle.attempt}, check=True)
        if handle.attempt < 2:
            raise ValueError("not yet")

    with cloaca.testing.isolated():
        workflow("leaf", leaf, retry_attempts=2, retry_delay_ms=600_000)
        workflow("outer", outer, retry_attempts=2, retry_delay_ms=600_000)
        config = one_at_a_time(workflow_timeout_seconds=1e6)
        with cloaca.testing.Runner(config=config) as runner:
            assert runner.execute("outer", check=True).status == "Completed"
    assert called == [1, 2]


class Held:
    """Bodies that wait until they are let go, and count."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def body(self, context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        self.begun.release()
        # Goes home without an end when its runner shuts down, and waits no longer when it is to end.
        handle.defer_until(self.go.is_set, 10)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()

    def wait(self, many: int = 1) -> None:
        for _ in range(many):
            assert self.begun.acquire(timeout=SECONDS)


def ended(runner: cloaca.DefaultRunner, *run_ids: str) -> list[str]:
    """How these runs have ended, once they all have."""
    return [runner.run(run_id).result(SECONDS).status for run_id in run_ids]


def test_a_cancel_ends_the_children_and_theirs() -> None:
    with Held() as held:
        workflow("leaf", held.body)

        def middle(context: cloaca.Context) -> None:
            runner.submit("leaf")
            runner.execute("leaf")

        def outer(context: cloaca.Context) -> None:
            runner.submit("leaf")
            runner.execute("middle")

        workflow("middle", middle)
        workflow("outer", outer)
        with cloaca.DefaultRunner(":memory:") as runner:
            run = runner.submit("outer")
            other = runner.submit("leaf")
            held.wait(4)
            run.cancel()
            assert run.result(SECONDS).status == "Cancelled"
            below = [found["id"] for found in runner.list_runs() if found["id"] not in (run.id, other.id)]
            assert len(below) == 4
            assert set(ended(runner, *below)) == {"Cancelled"}
            assert other.status == "Running"
            held.go.set()
            assert ended(runner, other.id) == ["Completed"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_body_that_is_cancelled_with_its_child_hears_of_its_own_end(is_async: bool) -> None:
    raised: list[BaseException] = []

    def outer(context: cloaca.Context) -> None:
        try:
            runner.execute("leaf")
        except BaseException as error:
            raised.append(error)
            raise

    async def outer_async(context: cloaca.Context) -> None:
        try:
            await runner.execute_async("leaf")
        except BaseException as error:
            raised.append(error)
            raise

    with Held() as held:
        workflow("leaf", held.body)
        workflow("outer", outer_async if is_async else outer)
        with cloaca.DefaultRunner(":memory:") as runner:
            run = runner.submit("outer")
            held.wait()
            run.cancel()
            assert run.result(SECONDS).status == "Cancelled"
            assert ended(runner, *(child["id"] for child in children(runner, run.id))) == ["Cancelled"]
    if not is_async:
        # A coroutine may hear of its child's end first.
        assert "is to end" in str(raised[0])


def test_children_in_the_hands_of_another_runner_end_with_their_parent(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.db")
    with Held() as held:

        def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            if handle.attempt == 1:
                runner.submit("leaf")
            held.body(context, handle)

        workflow("leaf", held.body)
        workflow("outer", outer)
        with cloaca.DefaultRunner(path) as runner:
            run = runner.submit("outer")
            held.wait(2)
            (child,) = children(runner, run.id)
        with (
            cloaca.DefaultRunner(path, workflows=["outer"]) as parents,
            cloaca.DefaultRunner(path, workflows=["leaf"]) as others,
        ):
            held.wait(2)
            assert others.run(child["id"]).status == "Running"
            parents.cancel(run.id)
            assert ended(parents, run.id) == ["Cancelled"]
            assert ended(others, child["id"]) == ["Cancelled"]


def test_children_that_nobody_has_end_with_a_parent_that_nobody_has(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.db")
    with Held() as held:

        def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            runner.submit("leaf")
            held.body(context, handle)

        workflow("leaf", held.body)
        workflow("outer", outer)
        with cloaca.DefaultRunner(path) as runner:
            run = runner.submit("outer")
            held.wait(2)
            (child,) = children(runner, run.id)
        held.go.set()
        with cloaca.DefaultRunner(path, paused=True) as looker:
            assert looker.run(run.id).status == "Running"
            looker.cancel(run.id)
            assert (looker.run(run.id).status, looker.run(child["id"]).status) == ("Cancelled", "Cancelled")


def test_a_trigger_that_cancels_its_running_run_cancels_the_children() -> None:
    with Held() as held:

        def outer(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            if context["n"] == 1:
                runner.submit("leaf")
                held.body(context, handle)

        workflow("leaf", held.body)
        workflow("outer", outer)
        polls: list[int] = []

        @cloaca.trigger(workflow="outer", poll_interval="1h", name="newest", overlap="cancel_running")
        def newest() -> cloaca.TriggerResult:
            polls.append(1)
            return cloaca.TriggerResult.fire({"n": len(polls)})

        with cloaca.DefaultRunner(":memory:") as runner:
            runner.tick("newest")
            held.wait(2)
            (leaf,) = runner.list_runs("leaf")
            runner.tick("newest")
            assert ended(runner, leaf["id"]) == ["Cancelled"]
            assert eventually(lambda: len(runner.list_runs("outer", "Completed")) == 1)


def test_many_are_cancelled_with_their_children() -> None:
    with Held() as held:

        def outer(context: cloaca.Context) -> None:
            runner.execute("leaf")

        workflow("leaf", held.body)
        workflow("outer", outer)
        with cloaca.DefaultRunner(":memory:") as runner:
            runs = runner.submit_many("outer", [{}] * 3)
            held.wait(3)
            assert sorted(runner.cancel_many("outer")) == sorted(run.id for run in runs)
            assert ended(runner, *(run["id"] for run in runner.list_runs())) == ["Cancelled"] * 6


def test_a_parents_failure_leaves_its_children_alone() -> None:
    with Held() as held:

        def outer(context: cloaca.Context) -> None:
            runner.submit("leaf")
            raise ValueError("boom")

        workflow("leaf", held.body)
        workflow("outer", outer)
        with cloaca.DefaultRunner(":memory:") as runner:
            run = runner.submit("outer")
            assert run.result(SECONDS).status == "Failed"
            held.wait()
            (child,) = children(runner, run.id)
            assert child["status"] in ("Pending", "Running")
            run.cancel()
            held.go.set()
            assert ended(runner, child["id"]) == ["Completed"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_that_is_over_its_time_ends_the_child_that_it_waits_for(is_async: bool) -> None:
    with Held() as held:

        def outer(context: cloaca.Context) -> None:
            runner.submit("leaf", {"waited": False})
            time.sleep(later)
            runner.execute("leaf", {"waited": True})

        async def outer_async(context: cloaca.Context) -> None:
            await runner.submit_async("leaf", {"waited": False})
            await asyncio.sleep(later)
            await runner.execute_async("leaf", {"waited": True})

        workflow("leaf", held.body)
        workflow("outer", outer_async if is_async else outer)
        # A child has as much time of its own: that the parent's is over first must be no chance.
        later = 3.0
        config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=4.0)
        with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
            run = runner.submit("outer")
            held.wait(2)
            result = run.result(SECONDS)
            assert "workflow timed out" in (result.error_message or "")
            left = {found["context"]["waited"]: found["id"] for found in runner.list_runs(parent=run.id)}
            assert ended(runner, left[True]) == ["Cancelled"]
            assert not details(runner, left[False])["cancel_requested"]


def test_a_body_whose_run_was_cancelled_starts_nothing_more_but_a_callback_may() -> None:
    raised: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def outer(context: cloaca.Context) -> None:
        begun.set()
        go.wait(SECONDS)
        try:
            runner.submit("leaf", {"by": "body"})
        except cloaca.RunnerError as error:
            raised.append(str(error))
            raise

    def told(task: str, error: str, context: cloaca.Context) -> None:
        runner.submit("leaf", {"by": "callback"})

    workflow("leaf", lambda context: None)
    workflow("outer", outer, on_failure=told)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("outer")
        assert begun.wait(SECONDS)
        run.cancel()
        go.set()
        assert run.result(SECONDS).status == "Cancelled"
        (leaf,) = runner.list_runs("leaf")
        assert leaf["context"] == {"by": "callback"}
        assert ended(runner, leaf["id"]) == ["Completed"]
    assert "is to end" in raised[0]
    assert "a callback of it may" in raised[0]


def test_a_body_that_outlasts_its_run_starts_nothing_more() -> None:
    raised: list[str] = []
    begun, go, home = threading.Event(), threading.Event(), threading.Event()

    def outer(context: cloaca.Context) -> None:
        begun.set()
        go.wait(SECONDS)
        try:
            runner.submit("leaf")
        except cloaca.RunnerError as error:
            raised.append(str(error))
        finally:
            home.set()

    workflow("leaf", lambda context: None)
    workflow("outer", outer)
    config = cloaca.DefaultRunnerConfig(task_timeout_seconds=0.1, timeout_grace_seconds=0.1)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        run = runner.submit("outer")
        assert begun.wait(SECONDS)
        assert run.result(SECONDS).status == "Failed"
        go.set()
        assert home.wait(SECONDS)
        assert runner.list_runs("leaf") == []
    assert run.id in raised[0]


def test_a_child_that_somebody_cancels_is_returned_as_such() -> None:
    with Held() as held:
        workflow("leaf", held.body)
        workflow("outer", lambda context: {"leaf": runner.execute("leaf").status})
        with cloaca.DefaultRunner(":memory:") as runner:
            run = runner.submit("outer")
            held.wait()
            (child,) = children(runner, run.id)
            runner.cancel(child["id"])
            assert run.result(SECONDS).final_context["leaf"] == "Cancelled"


def test_why_says_for_which_run_a_task_waits() -> None:
    with Held() as held:
        workflow("leaf", held.body)
        workflow("outer", lambda context: runner.execute("leaf") and None)
        with cloaca.DefaultRunner(":memory:") as runner:
            run = runner.submit("outer")
            held.wait()
            (child,) = children(runner, run.id)
            assert eventually(lambda: "without a slot" in runner.why_run(run.id))
            assert f"for run {child['id']} of workflow 'leaf'" in runner.why_run(run.id)


def aged(path: Path) -> None:
    """Makes everything that is over a day old."""
    day_us = 86_400_000_000
    done = run_program(
        """
        import sqlite3, sys
        database = sqlite3.connect(sys.argv[1])
        database.execute(sys.argv[2])
        database.commit()
        database.close()
        """,
        path,
        f"UPDATE runs SET created_at = created_at - {day_us}, completed_at = completed_at - {day_us}"
        " WHERE completed_at IS NOT NULL",
    )
    assert done.returncode == 0, done.stderr


def keeping_an_hour(path: Path) -> cloaca.DefaultRunner:
    config = cloaca.DefaultRunnerConfig(retention="1h")
    return cloaca.DefaultRunner.with_config(str(path), config)


def names(runner: cloaca.DefaultRunner) -> list[str]:
    return sorted(run["workflow_name"] for run in runner.list_runs())


def test_old_children_stay_until_their_parent_is_old_too(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    def outer(context: cloaca.Context) -> None:
        runner.execute("leaf")
        raise cloaca.RetryAfter("10h")

    workflow("leaf", lambda context: None)
    workflow("other", lambda context: None)
    workflow("outer", outer)
    with cloaca.DefaultRunner(str(path)) as runner:
        run = runner.submit("outer")
        assert runner.execute("other").status == "Completed"
        assert eventually(lambda: runner.query("SELECT 1 FROM tasks WHERE not_before IS NOT NULL"))
    aged(path)
    with keeping_an_hour(path) as runner:
        assert eventually(lambda: names(runner) == ["leaf", "outer"])
        runner.cancel(run.id)
        assert ended(runner, run.id) == ["Cancelled"]
    with keeping_an_hour(path) as runner:
        # Its parent is over, and may be retried.
        assert runner.execute("other").status == "Completed"
    aged(path)
    with keeping_an_hour(path) as runner:
        assert eventually(lambda: names(runner) == [])


def test_an_old_parent_stays_while_its_child_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    def leaf(context: cloaca.Context) -> None:
        raise cloaca.RetryAfter("10h")

    workflow("leaf", leaf)
    workflow("other", lambda context: None)
    workflow("outer", lambda context: runner.submit("leaf") and None)
    with cloaca.DefaultRunner(str(path)) as runner:
        assert runner.execute("outer").status == "Completed"
        assert runner.execute("other").status == "Completed"
        assert eventually(lambda: runner.query("SELECT 1 FROM tasks WHERE not_before IS NOT NULL"))
    aged(path)
    with keeping_an_hour(path) as runner:
        assert eventually(lambda: names(runner) == ["leaf", "outer"])


def test_a_chain_of_runs_that_start_the_next_goes_at_once_when_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    def link(context: cloaca.Context) -> None:
        if context["n"] < 20:
            runner.submit("link", {"n": context["n"] + 1})

    workflow("link", link)
    with cloaca.DefaultRunner(str(path)) as runner:
        runner.submit("link", {"n": 1})
        assert eventually(lambda: len(runner.list_runs("link", "Completed")) == 20)
    aged(path)
    with keeping_an_hour(path) as runner:
        assert eventually(lambda: names(runner) == [])


def test_a_parent_of_no_run_is_refused() -> None:
    with cloaca.DefaultRunner(":memory:") as runner, pytest.raises(ValueError, match="parent is 'x'"):
        runner.list_runs(parent="x")


@pytest.mark.parametrize("whose", ["own", "parent's"])
def test_nobody_waits_for_a_run_that_waits_for_him(runner: cloaca.DefaultRunner, whose: str) -> None:
    def waits(context: cloaca.Context) -> None:
        current = cloaca.current_run()
        assert current is not None
        run_id = context.get("parent") or current.run_id
        with pytest.raises(cloaca.RunnerError, match="cannot end before the task that waits for it here"):
            current.runner.run(str(run_id)).result()

    async def awaits(context: cloaca.Context) -> None:
        current = cloaca.current_run()
        assert current is not None
        with pytest.raises(cloaca.RunnerError, match="cannot end before the task that waits for it here"):
            await current.runner.run(str(current.run_id))

    def calls(context: cloaca.Context) -> None:
        current = cloaca.current_run()
        assert current is not None
        current.runner.execute("waits", {"parent": current.run_id}, check=True)

    for body in (waits, awaits, calls):
        with cloaca.WorkflowBuilder(body.__name__):
            cloaca.task(id="t", retry_attempts=1)(body)
    for workflow in ("waits", "awaits") if whose == "own" else ("calls",):
        runner.execute(workflow, {}, check=True, timeout=60)


@pytest.mark.parametrize("store", ["file", "server"])
def test_what_failed_below_a_failed_run_is_told_with_it(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "runs.db") if store == "file" else request.getfixturevalue("postgres_url")
    caught = ["leaf"]

    def fails(context: cloaca.Context) -> None:
        raise ValueError("boom")

    def calls(name: str) -> Callable[..., None]:
        def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            result = handle.runner.execute(name)
            if name not in context.get("catches", ()):
                result.raise_for_failure()

        return body

    workflow("leaf", fails)
    workflow("mid", calls("leaf"))
    workflow("top", calls("mid"))
    with cloaca.DefaultRunner(url) as runner, reading.Reader(url) as reader:
        since = datetime.now(UTC) - timedelta(days=1)

        def told() -> tuple[str, str]:
            (text,) = [each.text for each in reading.doctor(reader, brief=True) if each.subject == "failures"]
            return text, text.partition("; ")[2]

        assert runner.execute("top").status == "Failed"
        assert told()[0] == (
            "1 run failed in the last 24 hours: RunFailedError (1); 2 runs that it had started failed, too"
        )
        assert [(each.count, each.workflows) for each in reading.failures(reader, since)] == [(1, ["top"])]
        # What its caller has caught is a failure of its own.
        assert runner.execute("mid", {"catches": caught}).status == "Completed"
        kinds = {each.error_type: each.count for each in reading.failures(reader, since)}
        assert kinds == {"RunFailedError": 1, "ValueError": 1}
        assert told()[1] == "2 runs that they had started failed, too"
        # What somebody has asked for to do its work again no run had started.
        top = runner.list_runs("top")[0]["id"]
        assert main(["submit", "--again", top, "--wait", "--database", str(url)]) == 1
        kinds = {each.error_type: each.count for each in reading.failures(reader, since)}
        assert kinds == {"RunFailedError": 2, "ValueError": 1}
        assert told()[1] == "4 runs that they had started failed, too"


PARENTS: dict[str, Callable[[cloaca.DefaultRunner, Any], Any]] = {
    "submit": lambda runner, parent: runner.submit("part", {}, parent=parent),
    "submit with a key": lambda runner, parent: runner.submit("part", {}, parent=parent, run_key="k"),
    "submit_many": lambda runner, parent: runner.submit_many("part", [{}], parent=parent)[0],
    "submit_async": lambda runner, parent: asyncio.run(runner.submit_async("part", {}, parent=parent)),
}


@pytest.mark.parametrize("is_client", [False, True])
@pytest.mark.parametrize("way", PARENTS)
def test_a_run_is_a_part_of_the_one_that_is_named_as_its_parent(
    way: str, is_client: bool, tmp_path: Path
) -> None:
    workflow("whole", lambda context: None)
    workflow("part", lambda context: None)
    path = tmp_path / "runs.db"
    with (
        cloaca.DefaultRunner(path) as runner,
        cloaca.DefaultRunner(path, work=False) as client,
    ):
        whole = runner.submit("whole")
        # It may be over.
        whole.result(SECONDS)
        asks = client if is_client else runner
        part = PARENTS[way](asks, whole.id if is_client else whole)
        assert part.result(SECONDS).status == "Completed"
        found = details(runner, part.id)
        assert (found["parent_run"], found["parent_task"], found["parent_kind"]) == (whole.id, None, "given")
        assert [(child["id"], child["kind"]) for child in children(runner, whole.id)] == [(part.id, "given")]
        assert [row["id"] for row in runner.list_runs(parent=whole.id)] == [part.id]
        assert details(runner, whole.id)["parent_kind"] is None


def test_a_fire_names_the_parent_of_its_run() -> None:
    workflow("whole", lambda context: None)
    workflow("part", lambda context: None)
    with cloaca.testing.Runner() as runner:
        whole = runner.submit("whole")
        runner.run_until_idle()

        @cloaca.trigger(workflow="part", poll_interval="1s")
        def fires(tick: cloaca.Tick) -> cloaca.TriggerResult:
            return cloaca.TriggerResult.fire({}, parent=whole)

        answer = runner.tick(fires)
        runner.run_until_idle()
        [part] = runner.list_runs(workflow="part")
        assert (part["parent_run"], part["parent_kind"]) == (whole.id, "given"), answer
        # One that is not there any more stands in nobody's way.
        gone = "01a2312a-04e3-71a4-9edd-0ca364fae40e"

        @cloaca.trigger(workflow="part", poll_interval="1s")
        def fires_late() -> cloaca.TriggerResult:
            return cloaca.TriggerResult.fire({}, parent=gone)

        runner.tick(fires_late)
        runner.run_until_idle()
        part = runner.list_runs(workflow="part")[0]
        assert (part["parent_run"], part["status"]) == (gone, "Completed")


def test_what_ends_of_runs_fire_may_name_another_parent() -> None:
    workflow("whole", lambda context: None)
    workflow("first", lambda context: None)
    workflow("part", lambda context: None)
    with cloaca.testing.Runner() as runner:
        whole = runner.submit("whole")

        @cloaca.trigger(workflow="part", on_run="first")
        def follows(run: Any) -> cloaca.TriggerResult:
            return cloaca.TriggerResult.fire({}, parent=whole)

        runner.run_until_idle()
        runner.submit("first")
        runner.run_until_idle()
        [part] = runner.list_runs(workflow="part")
        assert (part["parent_run"], part["parent_kind"]) == (whole.id, "given")


def test_what_is_a_part_of_a_run_is_cancelled_with_it_and_its_own_too() -> None:
    workflow("whole", lambda context, handle: handle.defer_until(lambda: False))
    workflow("part", lambda context: None)
    with cloaca.DefaultRunner(":memory:") as runner:
        whole = runner.submit("whole")
        part = runner.submit("part", delay="1h", parent=whole)
        its_own = runner.submit("part", delay="1h", parent=part)
        other = runner.submit("part", delay="1h")
        runner.cancel(whole.id)
        assert [run.result(SECONDS).status for run in (whole, part, its_own)] == ["Cancelled"] * 3
        assert details(runner, other.id)["status"] == "Pending"


def test_a_named_parent_takes_the_place_of_the_task_that_submits() -> None:
    workflow("part", lambda context: None)
    names: list[str] = []
    attempts: list[int] = []

    def body(context: cloaca.Context) -> None:
        runner.submit("part", {}, parent=names[0])
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once more")

    workflow("whole", body, retry_attempts=2)
    workflow("elsewhere", lambda context: None)
    with cloaca.DefaultRunner(":memory:") as runner:
        names.append(runner.submit("elsewhere").id)
        whole = runner.submit("whole")
        assert whole.result(SECONDS).status == "Completed"
        assert children(runner, whole.id) == []
        # Another one in each attempt.
        assert [child["kind"] for child in children(runner, names[0])] == ["given", "given"]


def test_a_parent_that_is_none_is_refused() -> None:
    workflow("part", lambda context: None)
    unknown = "01a2312a-04e3-71a4-9edd-0ca364fae40e"
    with cloaca.DefaultRunner(":memory:") as runner:
        for bad in ("mine", 7, object()):
            with pytest.raises(cloaca.ArgumentError, match="it must be a run, or the id of one"):
                runner.submit("part", parent=bad)  # type: ignore[arg-type]
            with pytest.raises(cloaca.TriggerError, match="it must be a run, or the id of one"):
                cloaca.TriggerResult.fire({}, parent=bad)  # type: ignore[arg-type]
        for submit in PARENTS.values():
            with pytest.raises(cloaca.WorkflowError, match=f"run {unknown}, named as parent, not found"):
                submit(runner, unknown)
        with pytest.raises(cloaca.ArgumentError, match="parent and connection are both given"):
            runner.submit("part", parent=unknown, connection=object())
        assert runner.list_runs() == []
    fire = cloaca.TriggerResult.fire({}, parent=unknown)
    assert fire.parent == unknown
    assert fire != cloaca.TriggerResult.fire({})
    assert pickle.loads(pickle.dumps(fire)) == fire
