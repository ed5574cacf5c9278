"""What is thrown into the threads that only serve, and that no function of the program runs in: they go on,
and lose nothing of what they have taken. Nobody waits for ever for a thread that is struck as it begins.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import cloaca
from cloaca import _aio, registry

SECONDS = 30.0
EVENTS = range(1, 61)
"""So many calls and returns after its begin a thread is struck, once in each."""


class Late(Exception):
    pass


def left(context: cloaca.Context) -> None:
    """For other processes, which find it by its name."""


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


def threads(role: str) -> list[threading.Thread]:
    found = [each for each in threading.enumerate() if each.name.startswith(f"cloaca-{role}")]
    # One that was struck as it began is listed for ever.
    return [each for each in found if each.is_alive()]


def throw(thread: threading.Thread, error: type[BaseException]) -> None:
    ident = ctypes.c_ulong(thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(error)) == 1


class Program:
    """Uses every thread that a runner has."""

    def __init__(self, cpu: concurrent.futures.Executor | None = None) -> None:
        self.ended: set[str] = set()
        self.failed: list[str] = []
        self.is_to_fail = False
        self.is_waited_for = threading.Event()
        with cloaca.WorkflowBuilder("w") as builder:
            builder.on_success(lambda run: self.ended.add(run["id"]))
            cloaca.task(id="thread", **again)(lambda context: logging.getLogger("w").warning("one line"))
        with cloaca.WorkflowBuilder("cpu"):
            cloaca.task(id="cpu", executor="cpu", **again)(left)
        with cloaca.WorkflowBuilder("held"):
            cloaca.task(id="held", **again)(self.held)
        with cloaca.WorkflowBuilder("loop"):
            cloaca.task(id="loop", on_success=lambda task, context: None, **again)(self.on_loop)
        cloaca.trigger(
            workflow="w",
            poll_interval="10ms",
            on_error=cloaca.Backoff("1ms", 1, "1ms"),
            on_poll_failed=lambda *about: self.failed.append("told"),
        )(self.poll)
        executors = {"cpu": cpu or concurrent.futures.ThreadPoolExecutor(2, "theirs")}
        self.executor = executors["cpu"]
        self.runner = cloaca.DefaultRunner(":memory:", executors=executors, keep_logs="1 MiB")

    async def on_loop(self, context: cloaca.Context) -> None:
        await asyncio.sleep(0)

    def held(self, context: cloaca.Context) -> None:
        assert self.is_waited_for.wait(SECONDS)

    def poll(self) -> bool:
        if self.is_to_fail:
            raise ValueError("asked to fail")
        return False

    def goes_on(self) -> None:
        """Every kind of work is done, by whichever thread it needs."""
        runner = self.runner
        runs = {name: runner.submit(name) for name in ("w", "cpu", "loop")}
        for name, run in runs.items():
            assert run.result(SECONDS).status == "Completed", name
        assert eventually(lambda: runs["w"].id in self.ended)
        assert [line["text"] for line in runner.logs(runs["w"].id)] == ["one line"]
        told, self.is_to_fail = len(self.failed), True
        assert eventually(lambda: len(self.failed) > told)
        self.is_to_fail = False

        async def waits() -> None:
            run = asyncio.ensure_future(runner.execute_async("held", timeout=SECONDS))
            # A run that is over before it is waited for needs nobody who tells of its end.
            while not threads("awaiter") and not run.done():
                await asyncio.sleep(0)
            self.is_waited_for.set()
            assert (await run).status == "Completed"

        self.is_waited_for.clear()
        asyncio.run(waits())


again: dict[str, Any] = {"retry_attempts": 5, "retry_delay_ms": 1}


@contextmanager
def program(cpu: concurrent.futures.Executor | None = None) -> Iterator[Program]:
    made = Program(cpu)
    try:
        yield made
        made.runner.shutdown(SECONDS)
        assert eventually(lambda: not [each for each in threads("") if each.name not in KEPT])
    finally:
        made.runner.shutdown(0.0)
        made.executor.shutdown()


KEPT = {"cloaca-asyncio", "cloaca-processes"}
"""Those that no runner ends."""
ROLES = ["keeper", "ends-", "executor-cpu", "ends-cpu", "logbook", "awaiter", "teller", "aside", "loop"]


@pytest.mark.parametrize("error", [Late, SystemExit])
@pytest.mark.parametrize("role", ROLES)
def test_what_hits_a_thread_that_serves_ends_it_not(
    role: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    with program() as made:
        made.goes_on()
        (*_, thread) = threads(role)
        throw(thread, error)
        made.goes_on()
        made.goes_on()
        if role != "loop":
            assert thread.is_alive()
    assert "report it" not in caplog.text


# A number goes from a thread that has ended to one that begins, which may be hit before Python's own `run`.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [Late, SystemExit])
def test_what_hits_a_thread_that_has_served_nobody_yet_ends_it_not(error: type[BaseException]) -> None:
    with program() as made:
        for thread in threads("keeper"):
            throw(thread, error)
        made.goes_on()


@pytest.mark.parametrize("error", [Late, SystemExit])
def test_what_hits_the_thread_of_a_process_executor_costs_no_call_while_it_waits(
    error: type[BaseException],
) -> None:
    with program(cloaca.ProcessExecutor(max_workers=1)) as made:
        made.goes_on()
        (thread,) = threads("processes")
        throw(thread, error)
        made.goes_on()
        assert thread.is_alive()
        assert made.runner.query("SELECT DISTINCT attempt FROM tasks WHERE name = 'cpu'") == [{"attempt": 1}]


class Strikes:
    """Has threads of a role raise, each once, so many calls and returns after their begin."""

    def __init__(self, role: str, events: int) -> None:
        self._role = f"cloaca-{role}"
        self._events = events
        self.struck = 0

    def __enter__(self) -> Strikes:
        threading.setprofile(self._begin)
        return self

    def _begin(self, frame: Any, event: str, argument: object) -> None:
        sys.setprofile(None)
        if not self.struck and threading.current_thread().name.startswith(self._role):
            self.struck = 1
            count = 0

            def strike(frame: Any, event: str, argument: object) -> None:
                nonlocal count
                # Where the interpreter looks for what is thrown in; and the locks of others, as that of
                # `logging`, are not ours to be kept.
                if event not in {"call", "c_return"} or "cloaca" not in frame.f_code.co_filename:
                    return
                count += 1
                if count == self._events:
                    sys.setprofile(None)
                    self.struck = 2
                    raise Late

            sys.setprofile(strike)

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("role", [*ROLES, "callback"])
def test_wherever_a_thread_that_serves_is_struck_it_goes_on(role: str) -> None:
    # What was called amid that is called again a second later.
    for events in EVENTS[:: 4 if role == "callback" else 1]:
        with Strikes(role, events) as strikes, program() as made:
            made.goes_on()
        registry.clear()
        if strikes.struck < 2:
            # It does no more than that.
            break
    assert events > 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("step", ["_bootstrap_inner", "run"])
@pytest.mark.parametrize("role", ["keeper", "worker", "ends-cpu", "callback", "aside"])
def test_nobody_waits_for_a_thread_that_is_struck_as_it_begins(
    role: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, struck = getattr(threading.Thread, step), []

    def begin(thread: threading.Thread) -> None:
        if thread.name.startswith(f"cloaca-{role}") and not struck:
            struck.append(thread.name)
            raise Late
        original(thread)

    monkeypatch.setattr(threading.Thread, step, begin)
    with program() as made:
        made.goes_on()
    assert struck


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_runner_whose_threads_never_begin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloaca.threads.BEGINS_WITHIN_SECONDS", (0.01, 0.01))
    with monkeypatch.context() as patch:

        def begin(thread: threading.Thread) -> None:
            raise Late

        patch.setattr(threading.Thread, "_bootstrap_inner", begin)
        with pytest.raises(RuntimeError, match="can't start new thread: of those that were started none"):
            cloaca.DefaultRunner(":memory:")
    with program() as made:
        made.goes_on()


@pytest.mark.parametrize("error", [RecursionError, SystemExit])
@pytest.mark.parametrize("moment", ["handed", "begun"])
def test_what_hits_a_poll_on_its_way_to_the_loop_costs_no_more_than_that(
    moment: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll is handed to the loop by a thread that polls, and begun there among others that were handed."""
    loop, left, polled = _aio.shared_loop(), [error], Counter[str]()
    asks, begins = loop.call_soon_threadsafe, loop.create_task

    def struck(real: Callable[..., Any], *words: Any, **more: Any) -> Any:
        if left:
            raise left.pop()
        return real(*words, **more)

    async def poll(name: str) -> bool:
        polled[name] += 1
        return False

    with cloaca.WorkflowBuilder("w") as builder:
        builder.add_task(cloaca.task(id="t")(lambda context: None))
    for name in ("one", "other"):
        cloaca.trigger(workflow="w", name=name, poll_interval="5ms", on_error=cloaca.Backoff("1ms"))(
            partial(poll, name)
        )
    with cloaca.DefaultRunner(":memory:") as runner:
        assert eventually(lambda: min(polled["one"], polled["other"]) > 2)
        if moment == "handed":
            monkeypatch.setattr(loop, "call_soon_threadsafe", partial(struck, asks))
        else:
            monkeypatch.setattr(loop, "create_task", partial(struck, begins))
        assert eventually(lambda: not left)
        polled.clear()
        assert eventually(lambda: min(polled["one"], polled["other"]) > 2)
        assert runner.health()["ok"]
