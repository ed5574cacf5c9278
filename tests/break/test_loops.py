"""Event loops that wait for runs: none of their threads is held, and nothing waits for itself."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import cloaca

SECONDS = 60.0
MANY = 40
"""More than a loop's own pool has threads."""


def declare(name: str, body: object) -> None:
    with cloaca.WorkflowBuilder(name) as builder:
        # One attempt: a planned restart must not use it up.
        builder.add_task(cloaca.task(id="t", retry_attempts=1)(body))  # type: ignore[call-overload]


def test_waits_that_were_given_up_hold_up_nothing(tmp_path: Path) -> None:
    go = threading.Event()
    declare("slow", lambda context: go.wait(SECONDS) and None)

    async def serve() -> None:
        async with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
            waits = [asyncio.wait_for(runner.execute_async("slow"), 0.05) for _ in range(MANY)]
            given_up = await asyncio.gather(*waits, return_exceptions=True)
            assert {type(error) for error in given_up} == {TimeoutError}
            # The loop's own threads are free.
            assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), SECONDS) == 7
            go.set()

    asyncio.run(asyncio.wait_for(serve(), SECONDS))


def test_async_bodies_that_wait_for_each_other_s_runs_all_go_on(tmp_path: Path) -> None:
    runners: list[cloaca.DefaultRunner] = []

    async def leaf(context: cloaca.Context) -> None:
        context["leaf"] = True

    async def mid(context: cloaca.Context) -> None:
        await runners[0].execute_async("leaf", check=True)

    async def top(context: cloaca.Context) -> None:
        await runners[0].execute_async("mid", check=True)

    for name, body in (("leaf", leaf), ("mid", mid), ("top", top)):
        declare(name, body)
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=3 * MANY)
    with cloaca.DefaultRunner.with_config(str(tmp_path / "a.db"), config) as runner:
        runners.append(runner)
        runs = runner.submit_many("top", [{}] * MANY)
        assert {run.result(SECONDS).status for run in runs} == {"Completed"}


def test_who_waits_is_told_when_the_runner_shuts_down(tmp_path: Path) -> None:
    entered, go = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        entered.set()
        go.wait(SECONDS)

    declare("slow", body)

    async def serve() -> None:
        runner = cloaca.DefaultRunner(str(tmp_path / "a.db"))
        wait = asyncio.ensure_future(runner.execute_async("slow"))
        await asyncio.to_thread(entered.wait, SECONDS)
        await asyncio.to_thread(runner.shutdown, 0)
        with pytest.raises(cloaca.RunnerError, match="had not ended when the runner shut down"):
            await wait
        go.set()
        with pytest.raises(cloaca.RunnerError):
            await runner.execute_async("slow")

    asyncio.run(asyncio.wait_for(serve(), SECONDS))


def test_a_body_that_awaits_a_run_goes_home_when_its_runner_closes(tmp_path: Path) -> None:
    go = threading.Event()
    entered = threading.Event()
    runners: list[cloaca.DefaultRunner] = []
    attempts: list[int] = []

    def inner(context: cloaca.Context) -> None:
        entered.set()
        go.wait(SECONDS)

    async def outer(context: cloaca.Context) -> None:
        attempts.append(1)
        await runners[-1].execute_async("inner")

    declare("inner", inner)
    declare("outer", outer)
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as runner:
        runners.append(runner)
        run = runner.submit("outer")
        assert entered.wait(SECONDS)
        threading.Timer(0.3, go.set).start()
    with cloaca.DefaultRunner(url) as runner:
        runners.append(runner)
        assert runner.run(run.id).result(SECONDS).status == "Completed"
    assert len(attempts) == 2
