"""The permit of a body that waits in several coroutines or threads at once: one goes, and one comes back."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cloaca

SECONDS = 30.0


def workflow(name: str, body: Callable[..., Any], **options: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(**{"id": name, "retry_attempts": 1, "timeout": SECONDS, **options})(body)


def leaf(context: cloaca.Context) -> None:
    pass


def in_threads(*calls: Callable[[], object]) -> None:
    """Makes these calls side by side, in the name of the body that asks."""
    threads = [threading.Thread(target=contextvars.copy_context().run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def has_one_permit_left(runner: cloaca.DefaultRunner) -> bool:
    """Whether two tasks of a runner with one permit run one after the other, and both end."""
    runs = runner.submit_many("alone", [{}, {}])
    return {run.result(SECONDS).status for run in runs} == {"Completed"}


def alone() -> Callable[..., Any]:
    inside = threading.Lock()

    def body(context: cloaca.Context) -> None:
        assert inside.acquire(blocking=False)
        inside.release()

    return body


@pytest.mark.parametrize("loop", ["the runner's", "the program's"])
def test_an_async_body_waits_for_two_conditions_at_once(loop: str) -> None:
    held: list[bool] = []

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        for _ in range(20):
            await asyncio.gather(*(handle.defer_until(lambda: True) for _ in range(3)))
        held.append(handle.is_slot_held())

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:", max_async_tasks=1) as runner:
            runs = [await runner.submit_async("waits", {"number": number}) for number in range(4)]
            assert [(await run).status for run in runs] == ["Completed"] * 4

    workflow("waits", body)
    if loop == "the program's":
        asyncio.run(main())
    else:
        with cloaca.DefaultRunner(":memory:", max_async_tasks=1) as runner:
            runs = runner.submit_many("waits", [{"number": number} for number in range(4)])
            assert [run.result(SECONDS).status for run in runs] == ["Completed"] * 4
    assert held == [True] * 4


def test_conditions_that_come_true_one_after_the_other_end_their_own_waits() -> None:
    order: list[str] = []

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        second, third = asyncio.Event(), asyncio.Event()

        async def wait(name: str, condition: Callable[[], bool], then: asyncio.Event | None) -> None:
            await handle.defer_until(condition, 1)
            order.append(name)
            if then is not None:
                then.set()

        await asyncio.gather(
            wait("third", third.is_set, None),
            wait("second", second.is_set, third),
            wait("first", lambda: True, second),
        )
        assert handle.is_slot_held()

    workflow("waits", body)
    with cloaca.DefaultRunner(":memory:", max_async_tasks=1) as runner:
        assert runner.execute("waits").status == "Completed"
    assert order == ["first", "second", "third"]


def test_runs_conditions_and_checkpoints_are_awaited_together() -> None:
    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        async def condition() -> bool:
            # A wait within a wait.
            return (await runner.execute_async("leaf")).status == "Completed"

        await asyncio.gather(
            handle.defer_until(condition, 1),
            runner.execute_async("leaf"),
            handle.defer_until(lambda: True),
            handle.checkpoint(1),
            asyncio.to_thread(runner.execute, "leaf"),
            runner.execute_async("leaf"),
        )

    workflow("leaf", leaf)
    workflow("waits", body)
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1, max_async_tasks=1)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        runs = runner.submit_many("waits", [{"number": number} for number in range(4)])
        assert [run.result(SECONDS).status for run in runs] == ["Completed"] * 4


@pytest.mark.parametrize("cancels", ["before it looks", "while it looks"])
def test_a_wait_that_is_cancelled_leaves_the_others_alone(cancels: str) -> None:
    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        for _ in range(20):
            given_up = asyncio.ensure_future(handle.defer_until(lambda: cancels == "before it looks", 1))
            others = [asyncio.ensure_future(handle.defer_until(lambda: True)) for _ in range(2)]
            for _ in range(2):
                # By then it has given its permit back, and wants it again or looks at its condition.
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.gather(given_up, *others, return_exceptions=True)
        await handle.defer_until(lambda: True)
        assert handle.is_slot_held()

    workflow("waits", body)
    with cloaca.DefaultRunner(":memory:", max_async_tasks=1) as runner:
        runs = runner.submit_many("waits", [{"number": number} for number in range(4)])
        assert [run.result(SECONDS).status for run in runs] == ["Completed"] * 4


def test_threads_of_one_body_wait_at_once_and_get_one_permit() -> None:
    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        def wait() -> None:
            for _ in range(20):
                handle.defer_until(lambda: True, 1)

        in_threads(wait, wait, lambda: runner.execute("leaf"), wait)
        assert handle.is_slot_held()

    workflow("leaf", leaf)
    workflow("alone", alone())
    workflow("waits", body)
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        runs = runner.submit_many("waits", [{"number": number} for number in range(4)])
        assert [run.result(SECONDS).status for run in runs] == ["Completed"] * 4
        assert has_one_permit_left(runner)


def test_threads_of_an_async_body_and_its_coroutines_get_one_permit() -> None:
    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        for _ in range(5):
            await asyncio.gather(
                handle.defer_until(lambda: True),
                asyncio.to_thread(handle.defer_until, lambda: True, 1),
                asyncio.to_thread(handle.defer_until, lambda: True, 1),
            )

    workflow("waits", body)
    # Each round by chance: a thread may be quicker than word of what the loop gave back.
    for _ in range(10):
        with cloaca.DefaultRunner(":memory:", max_async_tasks=1) as runner:
            runs = runner.submit_many("waits", [{"number": number} for number in range(4)])
            assert [run.result(SECONDS).status for run in runs] == ["Completed"] * 4


def test_a_call_that_is_cancelled_before_it_begins_was_awaited() -> None:
    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        for call in (lambda: handle.checkpoint(1), lambda: handle.defer_until(lambda: False)):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call(), 0)
            task = asyncio.ensure_future(call())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await handle.checkpoint(2)
        assert handle.checkpointed == 2

    workflow("waits", body)
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("waits")
        assert (result.status, result.error_message) == ("Completed", None)


INTERRUPTED = """
    import asyncio, sys
    import cloaca

    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(id="only", retry_attempts=1)
        async def only(context, handle):
            if sys.argv[2] == "interrupted":
                raise KeyboardInterrupt

    async def main():
        async with cloaca.DefaultRunner(sys.argv[1]) as runner:
            if sys.argv[2] == "interrupted":
                await runner.execute_async("w")
            for row in runner.list_runs():
                print((await runner.run(row["id"]).wait(60)).status)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_that_meets_an_async_body_is_the_programs_and_says_nothing_more(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(INTERRUPTED))

    def told(how: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(program), str(tmp_path / "a.db"), how]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    first, second = told("interrupted"), told("resumes")
    assert (first.stdout, "never retrieved" in first.stderr, "Loop._attempt" in first.stderr) == (
        "interrupted\n",
        False,
        False,
    ), first.stderr
    assert second.stdout == "Completed\n", second.stderr
