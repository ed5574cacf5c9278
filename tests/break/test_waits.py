"""Bodies and threads that wait: for a condition, for another run, for the end of the runner."""

from __future__ import annotations

import copy
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attack import until

import cloaca

SECONDS = 30.0


def workflow(name: str, body: Callable[..., Any], **options: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="t", retry_attempts=1, **options)(body)


def deferring(condition: Callable[[], object], **options: Any) -> Callable[..., None]:
    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(condition, 1, **options)
        context.set("went", "on")

    return body


# Conditions.


def test_an_async_condition_is_awaited(runner: cloaca.DefaultRunner) -> None:
    answers = iter([False, False, True])
    looks: list[int] = []

    async def holds() -> bool:
        looks.append(1)
        return next(answers)

    workflow("w", deferring(holds))
    assert runner.submit("w").result(SECONDS).status == "Completed"
    assert len(looks) == 3


def test_a_decorated_async_condition_is_awaited(runner: cloaca.DefaultRunner) -> None:
    answers = iter([False, True])

    async def holds() -> bool:
        return next(answers)

    @functools.wraps(holds)
    def wrapper() -> Any:
        return holds()

    workflow("w", deferring(wrapper))
    assert runner.submit("w").result(SECONDS).status == "Completed"
    assert next(answers, None) is None


def nasty_truth(error: BaseException) -> object:
    class Truth:
        def __bool__(self) -> bool:
            raise error

    return Truth()


@pytest.mark.parametrize("place", ["the condition", "its truth", "an async condition"])
@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_a_condition_that_raises_ends_no_other_body(
    runner: cloaca.DefaultRunner, place: str, kind: type[BaseException]
) -> None:
    looks: list[int] = []

    def holds() -> object:
        looks.append(1)
        if len(looks) > 2:
            return True
        if place == "its truth":
            return nasty_truth(kind("on purpose"))
        raise kind("on purpose")

    async def holds_async() -> object:
        return holds()

    workflow("w", deferring(holds_async if place == "an async condition" else holds))
    expected = "Completed" if issubclass(kind, Exception) else "Failed"
    assert runner.submit("w").result(SECONDS).status == expected
    workflow("good", lambda context: None)
    assert runner.submit("good").result(SECONDS).status == "Completed"


def test_a_wait_for_a_condition_ends_in_time(runner: cloaca.DefaultRunner) -> None:
    raised: list[str] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        try:
            handle.defer_until(lambda: False, 1, timeout=0.01)
        except TimeoutError as error:
            raised.append(str(error))
            assert handle.is_slot_held()

    workflow("w", body)
    assert runner.submit("w").result(SECONDS).status == "Completed"
    assert "did not come true" in raised[0]


def test_a_wait_for_a_condition_ends_with_its_run() -> None:
    looking, ended = threading.Event(), threading.Event()
    looks: list[int] = []

    def holds() -> bool:
        looks.append(1)
        looking.set()
        return False

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        try:
            handle.defer_until(holds, 1)
        finally:
            ended.set()

    workflow("w", body)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        assert looking.wait(SECONDS)
        run.cancel()
        assert run.result(SECONDS).status == "Cancelled"
        assert ended.wait(SECONDS)


def test_a_wait_for_a_condition_ends_when_its_runs_time_is_over() -> None:
    ended = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        try:
            handle.defer_until(lambda: False, 1)
        except Exception:
            pass
        finally:
            ended.set()

    workflow("w", body)
    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=1)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        assert runner.submit("w").result(SECONDS).status == "Failed"
        assert ended.wait(SECONDS)


# The end of the runner.


@pytest.mark.parametrize("waits_for", ["a condition", "a run", "an event of a run"])
def test_what_waits_when_its_runner_ends_is_no_failure_and_goes_on_with_the_next(
    tmp_path: Path, waits_for: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = os.fspath(tmp_path / "a.db")
    waiting, ready = threading.Event(), threading.Event()
    attempts: list[int] = []
    told: list[str] = []
    current: list[cloaca.DefaultRunner] = []

    def holds() -> bool:
        waiting.set()
        return ready.is_set()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(handle.attempt)
        try:
            if waits_for == "a condition":
                handle.defer_until(holds, 1)
            elif waits_for == "a run":
                current[-1].execute("inner")
            else:
                current[-1].submit("inner").result()
        except Exception:
            told.append("took it for a failure")
            raise

    def inner(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(holds, 1)

    workflow("w", body, on_failure=lambda task, error, context: told.append(error))
    workflow("inner", inner)
    current.append(cloaca.DefaultRunner(path))
    run = current[-1].submit("w")
    assert waiting.wait(SECONDS)
    current[-1].shutdown()
    assert [record for record in caplog.records if record.exc_info] == []
    ready.set()
    with cloaca.DefaultRunner(path) as after:
        current.append(after)
        assert after.run(run.id).result(SECONDS).status == "Completed"
    assert told == []
    assert len(attempts) == 2


@pytest.mark.parametrize("caller", ["a task", "a callback", "an async task", "a trigger", "an async trigger"])
def test_shutdown_does_not_wait_for_the_body_that_calls_it(caller: str) -> None:
    done = threading.Event()
    calling = threading.Event()
    submitted = threading.Event()
    made: list[cloaca.DefaultRunner] = []

    def call(*_: object) -> bool:
        # A trigger may be polled before the runner has a name here.
        if not calling.is_set() and made:
            calling.set()
            # A submit that waits when the runner shuts down says so.
            assert "trigger" in caller or submitted.wait(SECONDS)
            made[0].shutdown(3600)
            done.set()
        return False

    async def call_async(*_: object) -> bool:
        return call()

    def body(context: cloaca.Context) -> None:
        call()

    async def body_async(context: cloaca.Context) -> None:
        call()

    if caller == "a task":
        workflow("w", body)
    elif caller == "an async task":
        workflow("w", body_async)
    elif caller == "a callback":
        workflow("w", lambda context: None, on_success=lambda task, context: body(context))
    else:
        body_of = call if caller == "a trigger" else call_async
        cloaca.trigger(poll_interval="1ms", name="calls")(body_of)
    runner = cloaca.DefaultRunner(":memory:")
    made.append(runner)
    if "trigger" not in caller:
        runner.submit("w")
        submitted.set()
    assert done.wait(SECONDS)
    with pytest.raises(cloaca.RunnerError):
        runner.execute("w")


def test_a_callback_may_use_the_runner(runner: cloaca.DefaultRunner) -> None:
    seen: list[str] = []
    workflow("inner", lambda context: None)
    workflow(
        "w",
        lambda context: None,
        on_success=lambda task, context: seen.append(runner.execute("inner").status),
    )
    assert runner.submit("w").result(SECONDS).status == "Completed"
    assert seen == ["Completed"]


# Runs that several wait for.


def test_any_number_of_threads_waits_for_one_run_and_for_its_copies(runner: cloaca.DefaultRunner) -> None:
    go = threading.Event()
    workflow("w", lambda context: go.wait(SECONDS) and None)
    run = runner.submit("w")
    handles = [run, copy.copy(run), runner.run(run.id), runner.run(run.id)] * 4
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda handle=handle: found.append(handle.result(SECONDS).status))
        for handle in handles
    ]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert found == ["Completed"] * len(handles)
    assert run.result().status == "Completed"


def test_a_handle_that_is_let_go_of_disturbs_no_other(runner: cloaca.DefaultRunner) -> None:
    fails = [True]

    def body(context: cloaca.Context) -> None:
        if fails.pop():
            fails.append(False)
            raise ValueError

    workflow("w", body)
    run = runner.submit("w")
    assert run.result(SECONDS).status == "Failed"
    run = runner.retry(run.id)
    assert run.result(SECONDS).status == "Completed"


def test_a_run_of_another_runner_is_found_and_waited_for(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "a.db")
    go = threading.Event()
    workflow("w", lambda context: go.wait(SECONDS) and None)
    with cloaca.DefaultRunner(path) as one, cloaca.DefaultRunner(path) as two:
        run = two.run(one.submit("w").id)
        with pytest.raises(TimeoutError):
            run.result(0.01)
        go.set()
        assert run.result(SECONDS).status == "Completed"
        assert two.run(run.id).result(SECONDS).status == "Completed"


def test_a_run_that_is_not_there_is_not_found(runner: cloaca.DefaultRunner) -> None:
    with pytest.raises(cloaca.WorkflowError, match="not found"):
        runner.run("01890000-0000-7000-8000-000000000000")
    with pytest.raises(ValueError, match="must be the UUID of a run"):
        runner.run("nonsense")


def test_an_async_body_that_would_wait_for_its_own_loop_fails_and_stops_nobody(
    runner: cloaca.DefaultRunner,
) -> None:
    async def holds() -> bool:
        return True

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(holds, 1)

    async def other(context: cloaca.Context) -> None:
        context.set("went", "on")

    workflow("waits", body)
    workflow("other", other)
    ended = runner.submit("waits").result(SECONDS)
    assert ended.status == "Failed"
    assert "write `await handle.defer_until(...)`" in str(ended.error_message)
    assert runner.submit("other").result(SECONDS).status == "Completed"


@pytest.mark.skipif(sys.platform != "linux", reason="the system counts a thread's waits")
def test_a_thread_that_waits_for_a_run_sleeps(tmp_path: Path) -> None:
    go = threading.Event()
    workflow("slow", lambda context: go.wait(SECONDS) and None)
    waits: list[int] = []

    def wait(run: cloaca.Run) -> None:
        import resource

        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        with pytest.raises(TimeoutError):
            run.result(1.5)
        waits.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)

    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        run = runner.submit("slow")
        threads = [threading.Thread(target=wait, args=(run,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        go.set()
    assert min(waits) < 15, "one that looks for signals each 50 ms is woken thirty times, and more"


def test_a_handler_of_the_log_that_waits_for_a_run_is_refused(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    runners: list[cloaca.DefaultRunner] = []
    told: list[BaseException] = []

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if runners and "absent" in record.getMessage():
                try:
                    runners[0].execute("w")
                except cloaca.RunnerError as refused:
                    told.append(refused)

    handler = Waits()
    logging.getLogger("cloaca").addHandler(handler)
    try:
        with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
            runners.append(runner)
            cloaca.trigger(workflow="absent", poll_interval="5ms", name="fires")(lambda: True)
            until(lambda: any("thread that starts" in str(refused) for refused in told))
            assert runner.execute("w").status == "Completed"
    finally:
        logging.getLogger("cloaca").removeHandler(handler)
