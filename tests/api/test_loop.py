"""Async bodies: on the loop of the program, without a thread or a permit of threads, whatever ends it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import eventually

import cloaca
import cloaca.testing
from cloaca import registry

WAIT = 20.0


def declare(name: str, body: Callable[..., Any], **settings: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(**{"id": "only", "retry_attempts": 1, **settings})(body)


def threads() -> list[str]:
    """Those of runners; the one that shuts a runner down may be at its last line."""
    names = (thread.name for thread in threading.enumerate())
    return sorted(name for name in names if name.startswith("cloaca-") and name != "cloaca-shutdown")


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("way", ["async with", "open", "loop="])
def test_every_kind_of_async_body_runs_on_the_programs_loop(way: str) -> None:
    seen: dict[str, object] = {}

    def note(what: str) -> None:
        seen[what] = asyncio.get_running_loop()

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        note("task")

        async def condition() -> bool:
            note("condition")
            return True

        await handle.defer_until(condition, 1)

    async def succeeded(task_id: str, context: cloaca.Context) -> None:
        note("callback")

    declare("w", body, on_success=succeeded)

    @cloaca.trigger(poll_interval="1ms")
    async def poll() -> bool:
        note("trigger")
        return False

    async def made() -> cloaca.DefaultRunner:
        if way == "open":
            return await cloaca.DefaultRunner.open(":memory:")
        if way == "loop=":
            return cloaca.DefaultRunner(":memory:", loop=asyncio.get_running_loop())
        return await cloaca.DefaultRunner(":memory:").__aenter__()

    async def main() -> None:
        runner = await made()
        result = await runner.execute_async("w")
        assert result.status == "Completed", result
        await until(lambda: "trigger" in seen)
        await runner.shutdown_async()
        assert set(seen) == {"task", "condition", "callback", "trigger"}
        assert set(seen.values()) == {asyncio.get_running_loop()}

    before = threads()
    asyncio.run(main())
    assert threads() == before


def test_a_plain_runner_keeps_off_the_programs_loop() -> None:
    seen: list[object] = []

    async def body(context: cloaca.Context) -> None:
        seen.append(asyncio.get_running_loop())

    declare("w", body)

    async def main() -> None:
        runner = cloaca.DefaultRunner(":memory:")
        await runner.execute_async("w")
        # Blocks this loop, and not the one that the body runs on.
        runner.execute("w")
        await runner.shutdown_async()
        assert asyncio.get_running_loop() not in seen

    asyncio.run(main())
    assert len(seen) == 2


def test_a_blocked_loop_holds_up_no_runner_that_is_not_on_it() -> None:
    async def body(context: cloaca.Context) -> None:
        pass

    declare("w", body)

    async def main() -> None:
        # The first call after it is made: `async with` will not come any more.
        runner = cloaca.DefaultRunner(":memory:")
        assert runner.submit("w").result(WAIT).status == "Completed"
        runner.shutdown()

    asyncio.run(main())


def test_async_tasks_hold_neither_thread_nor_permit_of_threads() -> None:
    async def main() -> None:
        barrier = asyncio.Barrier(50)

        async def body(context: cloaca.Context) -> None:
            async with asyncio.timeout(WAIT):
                await barrier.wait()

        declare("w", body)
        async with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1) as runner:
            runs = [await runner.submit_async("w", {"n": n}) for n in range(50)]
            assert {(await run).status for run in runs} == {"Completed"}
            assert len(threads()) < 8, threads()

    asyncio.run(main())


def test_max_async_tasks_bounds_them() -> None:
    inside = most = 0

    async def body(context: cloaca.Context) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.002)
        inside -= 1

    declare("w", body)

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:", max_async_tasks=3) as runner:
            await asyncio.gather(*(runner.execute_async("w", {"n": n}) for n in range(30)))

    asyncio.run(main())
    assert most == 3
    with pytest.raises(cloaca.ConfigError, match="max_async_tasks is 0"):
        cloaca.DefaultRunnerConfig(max_async_tasks=0)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """An ordinary function around an async one, as many decorators make."""

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def test_a_plain_function_that_returns_an_awaitable_is_what_it_returns() -> None:
    seen: list[str] = []

    async def main() -> None:
        barrier = asyncio.Barrier(10)
        loop = asyncio.get_running_loop()

        @decorated
        async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, Any]:
            assert asyncio.get_running_loop() is loop
            async with asyncio.timeout(WAIT):
                await barrier.wait()
            await handle.checkpoint(1)
            return {"left": handle.attempt}

        @decorated
        async def succeeded(task_id: str, context: cloaca.Context) -> None:
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)
            seen.append(task_id)

        declare("w", lambda context, handle: body(context, handle), on_success=succeeded)

        @cloaca.trigger(poll_interval="1ms")
        @decorated
        async def poll() -> bool:
            seen.append("poll")
            return False

        # With one thread all ten are in their bodies together.
        async with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1) as runner:
            results = await asyncio.gather(*(runner.execute_async("w", {"n": n}) for n in range(10)))
            assert [result.final_context["left"] for result in results] == [1] * 10
            await until(lambda: "poll" in seen)
            assert seen.count("only") == 10

    asyncio.run(main())


def test_a_plain_callback_of_an_async_task_may_block() -> None:
    names: list[str] = []

    async def body(context: cloaca.Context) -> None:
        pass

    async def fails(context: cloaca.Context) -> None:
        raise ValueError("boom")

    declare("good", body, on_success=lambda *_: names.append(threading.current_thread().name))
    declare("bad", fails, on_failure=lambda *_: names.append(threading.current_thread().name))

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            await runner.execute_async("good")
            await runner.execute_async("bad")

    asyncio.run(main())
    assert len(names) == 2
    assert all(name.startswith("cloaca-aside") for name in names)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


def test_context_variables_of_the_submitter_do_not_leak_in() -> None:
    seen: list[str] = []

    async def body(context: cloaca.Context) -> None:
        seen.append(variable.get())
        variable.set("of a body")

    declare("w", body)

    async def main() -> None:
        variable.set("of main")
        async with cloaca.DefaultRunner(":memory:") as runner:
            await runner.execute_async("w")
            await runner.execute_async("w")
        assert variable.get() == "of main"

    asyncio.run(main())
    assert seen == ["nothing", "nothing"]


@pytest.mark.filterwarnings("default")
def test_calls_that_would_block_the_loop_of_async_bodies_say_so() -> None:
    async def body(context: cloaca.Context) -> None:
        if context.get("waits"):
            await go_on.wait()

    declare("async", body)
    declare("plain", lambda context: None)

    @cloaca.trigger(name="async poll", poll_interval="1h")
    async def poll() -> bool:
        return False

    @cloaca.trigger(name="plain poll", poll_interval="1h")
    def plain() -> bool:
        return False

    go_on = asyncio.Event()

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            await runner.execute_async("async")
            with pytest.raises(cloaca.RunnerError, match="use `await execute_async"):
                runner.execute("async")
            with pytest.warns(RuntimeWarning, match="execute.. blocks .* use `await execute_async"):
                assert runner.execute("plain").status == "Completed"
            run = await runner.submit_async("async", {"waits": True})
            with pytest.raises(cloaca.RunnerError, match="use `await run`"):
                run.result()
            go_on.set()
            assert (await run).status == "Completed"
            assert run.result().status == "Completed"
            with pytest.raises(cloaca.RunnerError, match="use `await tick_async"):
                runner.tick("async poll")
            with pytest.warns(RuntimeWarning, match="use `await tick_async"):
                assert runner.tick("plain poll")["outcome"] == "skip"
            assert (await runner.tick_async("async poll"))["outcome"] == "skip"
            assert (await runner.tick_async("plain poll"))["outcome"] == "skip"

    asyncio.run(main())


def test_a_call_without_await_fails_the_attempt_and_says_so(runner: cloaca.DefaultRunner) -> None:
    async def keeps(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.checkpoint(1)

    async def defers(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(lambda: True)

    declare("keeps", keeps)
    declare("defers", defers)
    assert "write `await handle.checkpoint(...)`" in str(runner.execute("keeps").error_message)
    assert "write `await handle.defer_until(...)`" in str(runner.execute("defers").error_message)


def test_a_body_that_defers_lets_others_in_and_comes_back() -> None:
    order: list[str] = []

    async def main() -> None:
        go = asyncio.Event()

        async def waits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            await handle.defer_until(go.is_set, 1)
            assert handle.is_slot_held()
            order.append("waits")

        async def opens(context: cloaca.Context) -> None:
            order.append("opens")
            go.set()

        declare("waits", waits)
        declare("opens", opens)
        async with cloaca.DefaultRunner(":memory:", max_async_tasks=1) as runner:
            first = await runner.submit_async("waits")
            second = await runner.submit_async("opens")
            assert (await first.wait(WAIT)).status == "Completed"
            assert (await second.wait(WAIT)).status == "Completed"

    asyncio.run(main())
    assert order == ["opens", "waits"]


def test_a_condition_that_does_not_come_true_times_out_and_a_cancelled_run_ends_the_wait() -> None:
    async def waits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        await handle.defer_until(lambda: False, 1, timeout=context.get("timeout"))

    declare("waits", waits)

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            result = await runner.execute_async("waits", {"timeout": 0.01})
            assert "did not come true" in str(result.error_message)
            run = await runner.submit_async("waits", {"timeout": None})
            await asyncio.sleep(0.02)
            await asyncio.to_thread(run.cancel)
            assert (await run.wait(WAIT)).status == "Cancelled"

    asyncio.run(main())


def test_a_coroutine_over_its_time_is_cancelled() -> None:
    seen: list[str] = []

    async def body(context: cloaca.Context) -> None:
        try:
            await asyncio.sleep(WAIT)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    declare("w", body)

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:", task_timeout_seconds=0.05) as runner:
            result = await runner.execute_async("w")
            assert result.status == "Failed"
            await until(lambda: seen)

    asyncio.run(main())
    assert seen == ["cancelled"]


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError("by itself")])
def test_what_a_body_raises_ends_neither_loop_nor_runner(error: BaseException) -> None:
    async def bad(context: cloaca.Context) -> None:
        raise error

    async def good(context: cloaca.Context) -> None:
        pass

    declare("bad", bad)
    declare("good", good)

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            result = await runner.execute_async("bad")
            assert result.status == "Failed"
            assert type(error).__name__ in str(result.error_message)
            assert (await runner.execute_async("good")).status == "Completed"

    asyncio.run(main())


def test_who_waits_and_is_cancelled_leaves_the_run_alone_unless_told() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def body(context: cloaca.Context) -> None:
            await go.wait()

        declare("w", body)
        declare("after", body)
        async with cloaca.DefaultRunner(":memory:") as runner:
            run = await runner.submit_async("w")
            with pytest.raises(TimeoutError, match="is not final after"):
                await run.wait(0.01)
            waiter = asyncio.ensure_future(run.wait())
            await asyncio.sleep(0.01)
            waiter.cancel()
            left = asyncio.ensure_future(runner.execute_async("after", {"n": 1}))
            dropped = asyncio.ensure_future(runner.execute_async("after", {"n": 2}, cancel_on_abandon=True))
            await asyncio.sleep(0.01)
            left.cancel()
            dropped.cancel()
            await asyncio.gather(waiter, left, dropped, return_exceptions=True)

            def status(n: int) -> object:
                rows = runner.list_runs(workflow="after")
                return next(row["status"] for row in rows if row["context"]["n"] == n)

            async with asyncio.timeout(WAIT):
                while not runner.query("SELECT 1 FROM runs WHERE cancelled"):
                    await asyncio.sleep(0.01)
            go.set()
            assert (await run).status == "Completed"
            async with asyncio.timeout(WAIT):
                while {status(1), status(2)} & {"Pending", "Running"}:
                    await asyncio.sleep(0.01)
            assert (status(1), status(2)) == ("Completed", "Cancelled")

    asyncio.run(main())


def test_one_process_runs_loop_after_loop(tmp_path: Path) -> None:
    """Each with a runner of its own, and with one that outlives the first loop."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def body(context: cloaca.Context) -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())

    declare("w", body)
    kept = cloaca.DefaultRunner(tmp_path / "kept.db")

    async def main() -> None:
        async with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
            assert (await runner.execute_async("w")).status == "Completed"
            assert loops[-1] is asyncio.get_running_loop()
        assert (await kept.execute_async("w")).status == "Completed"
        assert loops[-1] is not asyncio.get_running_loop()

    before = len(threads())
    for _ in range(3):
        asyncio.run(main())
    kept.shutdown()
    assert len({id(loop) for loop in loops[1::2]}) == 1, "that of the library's own"
    assert len(threads()) <= before


def test_a_coroutine_that_nobody_goes_on_with_shuts_its_runner_down() -> None:
    """As where a loop is ended from outside, and what ran on it is thrown away."""
    declare("w", lambda context: None)
    runners: list[cloaca.DefaultRunner] = []

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            runners.append(runner)
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    coroutine = main()
    task = loop.create_task(coroutine)
    while not runners:
        loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    coroutine.close()
    with pytest.raises(cloaca.RunnerError, match="shut down"):
        runners[0].submit("w")
    task.cancel()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(task)
    loop.close()


def test_thousands_wait_without_a_thread_each() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def body(context: cloaca.Context) -> None:
            await go.wait()

        declare("w", body)
        async with cloaca.DefaultRunner(":memory:") as runner:
            run = await runner.submit_async("w")
            waits = [asyncio.ensure_future(run.wait()) for _ in range(10_000)]
            await asyncio.sleep(0.05)
            assert len(threads()) < 8, threads()
            go.set()
            assert {(await wait).status for wait in waits} == {"Completed"}

    asyncio.run(main())


HOLDS = """
import sqlite3, sys
outsider = sqlite3.connect(sys.argv[1], isolation_level=None)
outsider.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_thousand_are_submitted_by_run_keys_without_a_thread_each(tmp_path: Path) -> None:
    declare("w", lambda context: None)
    path = tmp_path / "runs.db"

    async def asked(runner: cloaca.DefaultRunner) -> list[str]:
        async def one(n: int) -> str:
            run = await runner.submit_async("w", {"n": n}, run_key=str(n))
            return run.id

        return await asyncio.gather(*map(one, range(1000)))

    async def main() -> None:
        async with cloaca.DefaultRunner(path) as runner:
            command = [sys.executable, "-c", HOLDS, str(path)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outsider:
                assert outsider.stdin is not None
                assert outsider.stdout is not None
                assert outsider.stdout.readline() == b"held\n"
                waits = asyncio.ensure_future(asked(runner))
                # None of them can be kept yet.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                most = len(threads())
                outsider.stdin.close()
            first = await waits
            assert most <= 16, "4 workers, and those of the runner itself"
            assert len(set(first)) == 1000
            # Of these each is read from the store.
            again = asyncio.ensure_future(asked(runner))
            while not again.done():
                await asyncio.sleep(0)
                most = max(most, len(threads()))
            assert await again == first
            assert most <= 20, "and four that look"

    asyncio.run(main())


def test_a_loop_that_blocks_holds_up_its_own_bodies_and_goes_on() -> None:
    async def body(context: cloaca.Context) -> None:
        await asyncio.sleep(0)

    declare("async", body)
    declare("plain", lambda context: None)

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            runs = [await runner.submit_async("async", {"n": n}) for n in range(100)]
            plain = await runner.submit_async("plain")
            time.sleep(2)
            assert plain.status == "Completed"
            assert {(await run).status for run in runs} == {"Completed"}

    asyncio.run(main())


def test_shutdown_with_async_bodies_in_flight_has_each_resumed_and_leaves_no_thread(tmp_path: Path) -> None:
    path, attempts, seen = os.fspath(tmp_path / "a.db"), 0, []

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        nonlocal attempts
        attempts += 1
        if handle.attempt == 1:
            try:
                await asyncio.sleep(WAIT)
            except asyncio.CancelledError:
                seen.append("sent home")
                raise

    async def deferred(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        nonlocal attempts
        attempts += 1
        if handle.attempt == 1:
            await handle.defer_until(lambda: False, 1)

    declare("sleeps", body)
    declare("defers", deferred)
    before = threads()

    async def first() -> None:
        async with cloaca.DefaultRunner(path) as runner:
            for n in range(5):
                await runner.submit_async("sleeps", {"n": n})
                await runner.submit_async("defers", {"n": n})
            await until(lambda: attempts == 10)
            await runner.shutdown_async(0.05)
        assert seen == ["sent home"] * 5
        await until(lambda: threads() == before)

    async def second() -> None:
        async with cloaca.DefaultRunner(path) as runner:
            async with asyncio.timeout(WAIT):
                while len(runner.list_runs(status="Completed")) < 10:
                    await asyncio.sleep(0.01)

    # Twice in one process, each on a loop of its own.
    asyncio.run(first())
    asyncio.run(second())
    assert attempts == 20


def test_a_body_that_swallows_its_cancellation_holds_up_no_shutdown(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "a.db")

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if handle.attempt == 1:
            began.set()
            until = time.monotonic() + 3
            while time.monotonic() < until:
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    swallowed.append(1)

    declare("w", body)
    swallowed: list[int] = []
    began = threading.Event()

    async def main() -> None:
        runner = cloaca.DefaultRunner(path, loop=asyncio.get_running_loop())
        await runner.submit_async("w")
        await until(began.is_set)
        started = time.monotonic()
        await runner.shutdown_async(0.01)
        assert time.monotonic() - started < 2.5
        assert swallowed

    asyncio.run(main())
    with cloaca.DefaultRunner(path) as runner:
        run = runner.run(runner.list_runs()[0]["id"])
        assert run.result(WAIT).status == "Completed"


@pytest.mark.parametrize("way", ["ends", "closes", "sweeps and closes"])
def test_a_loop_that_ends_under_its_runner_leaves_its_runs_to_the_next(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fspath(tmp_path / "a.db")
    began: list[int] = []

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        began.append(handle.attempt)
        if handle.attempt == 1 and "later" not in context:
            await asyncio.sleep(WAIT)

    declare("w", body)

    async def main() -> cloaca.DefaultRunner:
        runner = cloaca.DefaultRunner(path, loop=asyncio.get_running_loop())
        await runner.submit_async("w")
        await until(lambda: began)
        if way == "sweeps and closes":
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        return runner

    if way == "ends":
        runner = asyncio.run(main())
    else:
        loop = asyncio.new_event_loop()
        runner = loop.run_until_complete(main())
        # Not by caplog's level, which would keep the runner's own line from it, too.
        with monkeypatch.context() as patch:
            patch.setattr(logging.getLogger("asyncio"), "disabled", True)
            loop.close()
            gc.collect()
    later = runner.submit("w", {"later": True})
    assert eventually(lambda: "the event loop that async bodies run on here has ended" in later.why())
    assert "waits for another runner" in later.why()
    assert "max_async_tasks" not in later.why()
    (reason,) = runner.health()["reasons"]
    assert (reason["code"], "async bodies run on has ended" in reason["text"]) == ("loop", True)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "event loop" in record.getMessage()]

    # Before it is shut down: then nobody would be told any more.
    assert eventually(lines)
    assert not runner.health()["ok"]
    started = time.monotonic()
    runner.shutdown(5)
    assert time.monotonic() - started < 4
    assert len(lines()) == 1, lines()
    assert "has ended: its async tasks wait for the next runner" in lines()[0]
    with cloaca.DefaultRunner(path) as runner:
        for row in runner.list_runs():
            assert runner.run(row["id"]).result(WAIT).status == "Completed"
        assert len(runner.list_runs()) == 2
        found = runner.get_run(runner.list_runs()[-1]["id"])
        assert found is not None
        outcomes = [tried["outcome"] for tried in found["tasks"][0]["tries"]]
        assert outcomes == ["Interrupted", "Completed"]
    assert later.id


def test_a_program_that_cancels_every_task_it_finds_ends_no_loop_by_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    began, polls = list[int](), list[int]()

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        began.append(handle.attempt)
        if handle.attempt == 1:
            await asyncio.sleep(WAIT)

    declare("w", body, retry_attempts=2, retry_delay_ms=1)

    @cloaca.trigger(workflow="w", poll_interval="10ms", on_error=cloaca.Backoff("1ms", 1, "1ms"))
    async def polled() -> bool:
        polls.append(1)
        return False

    async def main() -> None:
        async with cloaca.DefaultRunner(os.fspath(tmp_path / "a.db")) as runner:
            for _ in range(2):
                run = await runner.submit_async("w")
                await until(lambda: began)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                assert (await run.wait(WAIT)).status == "Completed"
                assert began == [1, 2]
                began.clear()
                polls.clear()
                await until(lambda: polls)
            run = await runner.submit_async("w")
            await until(lambda: began)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.05)
        # Who leaves before it has shown what that was leaves its run to the next.

    asyncio.run(main())
    assert "has ended" not in caplog.text
    registry.clear()
    declare("w", body)
    with cloaca.DefaultRunner(os.fspath(tmp_path / "a.db")) as runner:
        assert {runner.run(row["id"]).result(WAIT).status for row in runner.list_runs()} == {"Completed"}


KILLED = """
    import asyncio, os, sys
    import cloaca

    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(id="only")
        async def only(context, handle):
            if handle.attempt == 1 and sys.argv[2] == "dies":
                print("began", flush=True)
                await asyncio.sleep(60)
            context["attempt"] = handle.attempt

    async def main():
        async with cloaca.DefaultRunner(sys.argv[1]) as runner:
            if sys.argv[2] == "dies":
                await asyncio.gather(*(runner.execute_async("w", {"n": n}) for n in range(20)))
            while len(found := runner.list_runs(status="Completed")) < 20:
                await asyncio.sleep(0.01)
            ended = [runner.get_run(row["id"])["final_context"]["attempt"] for row in found]
            print(sorted(set(ended)))

    asyncio.run(main())
"""


def test_a_killed_program_loses_no_async_attempt(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(KILLED))
    path = os.fspath(tmp_path / "a.db")
    dying = subprocess.Popen(
        [sys.executable, os.fspath(program), path, "dies"], stdout=subprocess.PIPE, text=True
    )
    assert dying.stdout is not None
    for _ in range(20):
        assert dying.stdout.readline() == "began\n"
    time.sleep(0.05)
    dying.send_signal(signal.SIGKILL)
    dying.communicate()
    ended = subprocess.run(
        [sys.executable, os.fspath(program), path, "resumes"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == "[2]\n", ended.stderr


def test_a_body_knows_what_it_is() -> None:
    assert cloaca.current_run() is None
    seen: dict[str, Any] = {}
    runners: list[cloaca.DefaultRunner] = []

    def look(what: str) -> None:
        current = cloaca.current_run()
        assert current is not None
        assert current.runner is runners[0]
        seen[what] = (current.run_id, current.workflow, current.task, current.attempt, current.trigger)

    async def body(context: cloaca.Context) -> None:
        look("async task")
        await asyncio.to_thread(look, "thread of an async task")

    async def told(task_id: str, context: cloaca.Context) -> None:
        look("async callback")

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(id="async", on_success=told)
        async def first(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            assert handle.runner is runners[0]
            await body(context)

        @cloaca.task(id="plain", dependencies=["async"], on_success=lambda *_: look("plain callback"))
        def second(context: cloaca.Context) -> None:
            look("plain task")

    @cloaca.trigger(name="async poll", poll_interval="1h", poll_at_start=True)
    async def poll() -> bool:
        await asyncio.sleep(0)
        look("async poll")
        return False

    @cloaca.trigger(name="plain poll", poll_interval="1h", poll_at_start=True)
    def plain() -> bool:
        look("plain poll")
        return False

    @cloaca.trigger(name="fires", workflow="w", poll_interval="1h")
    def fires() -> bool:
        look("tick")
        return True

    async def main() -> None:
        runners.append(cloaca.DefaultRunner(":memory:", paused=True))
        async with runners[0] as runner:
            runner.resume()
            await until(lambda: "async poll" in seen and "plain poll" in seen)
            await runner.tick_async("fires")
            await until(lambda: "plain callback" in seen)
            run_id = runner.list_runs()[0]["id"]
            of_first = (run_id, "w", "async", 1, "fires")
            of_second = (run_id, "w", "plain", 1, "fires")
            assert seen == {
                "async poll": (None, None, None, None, "async poll"),
                "plain poll": (None, None, None, None, "plain poll"),
                "tick": (None, None, None, None, "fires"),
                "async task": of_first,
                "thread of an async task": of_first,
                "async callback": of_first,
                "plain task": of_second,
                "plain callback": of_second,
            }
            assert cloaca.current_run() is None

    asyncio.run(main())


def test_nobody_has_told_a_callback_to_end() -> None:
    seen: dict[str, bool] = {}

    def look(what: str) -> None:
        current = cloaca.current_run()
        assert current is not None
        seen[what] = current.cancelled

    async def look_on_the_loop(what: str) -> None:
        look(what)

    def plain(context: cloaca.Context) -> None:
        look("plain body")

    async def on_the_loop(context: cloaca.Context) -> None:
        look("async body")

    def fails(context: cloaca.Context) -> None:
        raise ValueError("boom")

    with cloaca.WorkflowBuilder("works").on_success(lambda run: look("workflow")):
        tells = {
            "plain of plain": (plain, look),
            "plain of async": (on_the_loop, look),
            "async of plain": (plain, look_on_the_loop),
            "async of async": (on_the_loop, look_on_the_loop),
        }
        for what, (body, tell) in tells.items():
            cloaca.task(id=what, on_success=lambda task_id, context, tell=tell: tell(task_id))(body)
    with cloaca.WorkflowBuilder("fails"):
        cloaca.task(id="on_failure", retry_attempts=1, on_failure=lambda task_id, *_: look(task_id))(fails)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("works").status == "Completed"
        assert runner.execute("fails").status == "Failed"
        assert eventually(lambda: "workflow" in seen)
    assert seen == dict.fromkeys(["plain body", "async body", *tells, "on_failure", "workflow"], False)


def test_whatever_a_runner_calls_knows_what_it_is(tmp_path: Path) -> None:
    """Conditions, callbacks of workflows and of triggers, crons, and triggers that are told of runs."""
    seen: dict[str, tuple[Any, ...]] = {}

    def look(what: str) -> None:
        current = cloaca.current_run()
        assert current is not None
        assert current.runner is runner
        seen[what] = (current.run_id, current.workflow, current.task, current.attempt, current.trigger)

    def holds(what: str) -> Callable[[], bool]:
        def condition() -> bool:
            look(what)
            return True

        return condition

    async def holds_too() -> bool:
        look("async condition")
        return True

    ends = {
        "on_success": cloaca.WorkflowBuilder("works").on_success(lambda run: look("on_success")),
        "on_failure": cloaca.WorkflowBuilder("fails").on_failure(lambda run: look("on_failure")),
        "on_cancel": cloaca.WorkflowBuilder("waits").on_cancel(lambda run: look("on_cancel")),
    }
    with ends["on_success"]:

        @cloaca.task(id="plain")
        def plain(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            handle.defer_until(holds("condition"), 1)

        @cloaca.task(id="async", dependencies=["plain"])
        async def awaits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            await handle.defer_until(holds("condition of an async task"), 1)  # type: ignore[misc]
            await handle.defer_until(holds_too, 1)  # type: ignore[misc,arg-type]

    with ends["on_failure"]:

        @cloaca.task(id="t", retry_attempts=1)
        def fails(context: cloaca.Context) -> None:
            raise ValueError("boom")

    with ends["on_cancel"]:

        @cloaca.task(id="u")
        def waits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            handle.defer_until(lambda: False, 1)

    @cloaca.trigger(
        name="breaks",
        poll_interval="1h",
        max_consecutive_failures=1,
        on_poll_failed=lambda *_: look("on_poll_failed"),
        on_disabled=lambda *_: look("on_disabled"),
    )
    def breaks() -> bool:
        raise ValueError("boom")

    @cloaca.trigger(name="at night", workflow="fails", cron="0 3 * * *")
    def at_night(tick: cloaca.Tick) -> bool:
        look("cron")
        return False

    @cloaca.trigger(name="told", workflow="fails", on_run="works")
    def told(tick: cloaca.Tick) -> bool:
        look("on_run")
        return False

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        worked = runner.execute("works")
        assert worked.error_message is None
        failed = runner.submit("fails")
        failed.result()
        cancelled = runner.submit("waits")
        cancelled.cancel()
        runner.tick("at night")
        runner.tick("breaks")
        assert eventually(lambda: len(seen) == 10), seen
        run_id = runner.list_runs("works")[0]["id"]
    assert seen == {
        "condition": (run_id, "works", "plain", 1, None),
        "condition of an async task": (run_id, "works", "async", 1, None),
        "async condition": (run_id, "works", "async", 1, None),
        "on_success": (run_id, "works", None, None, None),
        "on_failure": (failed.id, "fails", None, None, None),
        "on_cancel": (cancelled.id, "waits", None, None, None),
        "on_poll_failed": (None, None, None, None, "breaks"),
        "on_disabled": (None, None, None, None, "breaks"),
        "cron": (None, None, None, None, "at night"),
        "on_run": (None, None, None, None, "told"),
    }


class DeafLoop(asyncio.SelectorEventLoop):
    """A loop that reads no descriptors for others, as that of Windows does."""

    def add_reader(self, *_: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kinds", [(None, None), (DeafLoop, None), (DeafLoop, DeafLoop)])
def test_loops_of_every_kind_hear_of_one_run(kinds: tuple[Callable[[], Any] | None, ...]) -> None:
    gate, waiting = threading.Event(), threading.Barrier(len(kinds) + 1)
    declare("w", lambda context: gate.wait(WAIT) and None)
    ends: list[str] = []

    with cloaca.DefaultRunner(":memory:") as runner:
        # Each loop is another one, and those before are closed.
        for _ in range(2):
            gate.clear()
            run = runner.submit("w")

            async def wait(run: cloaca.Run = run) -> None:
                task = asyncio.ensure_future(run.wait())
                await asyncio.sleep(0)
                waiting.wait(WAIT)
                ends.append((await task).status)

            def serve(kind: Callable[[], Any] | None, wait: Callable[[], Any] = wait) -> None:
                with asyncio.Runner(loop_factory=kind) as loop:
                    loop.run(wait())

            waits = [threading.Thread(target=serve, args=(kind,)) for kind in kinds]
            for thread in waits:
                thread.start()
            waiting.wait(WAIT)
            gate.set()
            for thread in waits:
                thread.join(WAIT)
    assert ends == ["Completed"] * 2 * len(kinds)


@pytest.mark.parametrize("kind", [None, DeafLoop])
def test_who_waits_on_a_loop_hears_that_the_runner_shuts_down(kind: Callable[[], Any] | None) -> None:
    gate = threading.Event()
    declare("w", lambda context: gate.wait(WAIT) and None)

    async def main() -> None:
        runner = cloaca.DefaultRunner(":memory:")
        try:
            waits = asyncio.ensure_future(runner.execute_async("w"))
            await until(lambda: runner.list_runs(status="Running"))
            await runner.shutdown_async(0)
            with pytest.raises(cloaca.RunnerError, match="shut down"):
                await waits
        finally:
            gate.set()

    with asyncio.Runner(loop_factory=kind) as loop:
        loop.run(main())


def test_a_loop_that_stands_still_is_given_little_ahead() -> None:
    stands, goes_on = threading.Event(), threading.Event()

    async def hold(context: cloaca.Context) -> None:
        stands.set()
        goes_on.wait(WAIT)

    async def body(context: cloaca.Context) -> None:
        pass

    declare("hold", hold)
    declare("w", body)
    with cloaca.DefaultRunner(":memory:") as runner:
        held = runner.submit("hold")
        assert stands.wait(WAIT)
        runs = runner.submit_many("w", [{}] * 400)
        # Whoever has begun long enough ago is on record as running.
        eventually(lambda: runner.list_runs("w", status="Running", limit=1))
        begun = len(runner.list_runs("w", status="Running", limit=1000))
        goes_on.set()
        assert [run.result(WAIT).status for run in [held, *runs]] == ["Completed"] * 401
    assert 0 < begun <= 128


def test_the_loop_knows_a_body_by_the_name_of_its_task() -> None:
    names: list[str] = []

    async def body(context: cloaca.Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())

    declare("w", body, id="load")
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("w").status == "Completed"
    assert names == ["load"]


def test_a_loop_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="loop is 3; it must be an event loop"):
        cloaca.DefaultRunner(":memory:", loop=3)  # type: ignore[arg-type]


def test_a_run_of_a_runner_for_tests_is_awaited_too() -> None:
    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if handle.attempt == 1:
            raise cloaca.RetryAfter("1m")

    declare("w", body, retry_attempts=3)

    async def main() -> None:
        async with cloaca.testing.Runner() as runner:
            run = await runner.submit_async("w")
            with pytest.raises(TimeoutError):
                await run.wait(0)
            await asyncio.to_thread(runner.advance, "2m")
            assert (await run).status == "Completed"

    asyncio.run(main())
