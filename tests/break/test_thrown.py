"""What is thrown into our threads from outside and comes too late for the body that was meant, as time-outs
by `PyThreadState_SetAsyncExc` do: it ends one call at most, and no thread, run or trigger stops for ever.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import cloaca

EVENTS = range(1, 101)
"""So many calls and returns behind a body it comes; the last ones hit whatever the thread does next."""
SECONDS = 30.0
AT_ONCE = cloaca.Backoff("1ms", 1, "1ms")


class Late(Exception):
    pass


class Striking:
    """Raises in the thread that arms it, so many calls and returns later."""

    def __init__(self, events: int) -> None:
        self._left = events
        sys.setprofile(self)

    def __call__(self, frame: Any, event: str, argument: object) -> None:
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            raise Late


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


def test_what_hits_a_worker_that_waits_meets_no_run(caplog: pytest.LogCaptureFixture) -> None:
    threads: list[int] = []
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="one")(lambda context: threads.append(threading.get_ident()))
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1) as runner:
        assert runner.execute("w").status == "Completed"
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threads[0]), ctypes.py_object(Late))
        assert runner.execute("w", timeout=SECONDS).status == "Completed"
        assert runner.execute("w", timeout=SECONDS).status == "Completed"
    assert [message for message in caplog.messages if "thrown" in message] == [
        "Late was thrown into a worker's thread, while it waited"
    ]


# It may hit the thread's own way out, too, which says so by itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("has_callbacks", [False, True])
def test_what_hits_a_worker_behind_a_body_ends_that_attempt_at_most(has_callbacks: bool) -> None:
    events = iter(EVENTS)
    told: list[str] = []
    callbacks: dict[str, Any] = {}
    if has_callbacks:
        callbacks = {
            "on_success": lambda task, context: told.append("success"),
            "on_failure": lambda task, error, context: told.append(error),
        }
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="one", retry_attempts=0, **callbacks)(lambda context: Striking(next(events)) and None)
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1) as runner:
        ends = [runner.execute("w", timeout=SECONDS) for _ in EVENTS]
        assert {end.status for end in ends} == {"Completed", "Failed"}
        assert all("Late" in str(end.error_message) for end in ends if end.status == "Failed")
        assert runner.stats()["runs_unfinished"] == 0
    if has_callbacks:
        # One that is hit between the end and its callback loses that callback.
        assert len(EVENTS) // 2 <= len(told) <= len(EVENTS)


def test_what_hits_a_poller_behind_a_body_ends_one_poll_at_most(caplog: pytest.LogCaptureFixture) -> None:
    events = list(EVENTS)
    polls = 0

    @cloaca.trigger(workflow="w", poll_interval="1ms", on_error=AT_ONCE)
    def struck() -> bool:
        nonlocal polls
        polls += 1
        if events:
            Striking(events.pop())
        return False

    @cloaca.trigger(workflow="w", poll_interval="1ms", on_error=AT_ONCE)
    def other() -> bool:
        return False

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="one")(lambda context: None)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert eventually(lambda: not events)
        seen = polls
        assert eventually(lambda: polls > seen + 100)
        assert "is being polled" not in runner.why("other")
    assert "report it" not in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_hits_a_poller_on_its_way_home_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """More threads poll while bodies hang; each of those is hit as it goes, somewhere."""
    gate, held, events = threading.Event(), list[int](), 1
    quick = 0

    def hang() -> bool:
        sys.setprofile(None)
        here, strikes_after = gate, events
        held.append(id(here))
        here.wait(SECONDS)
        Striking(strikes_after)
        return False

    def are_held(by: threading.Event) -> bool:
        return held.count(id(by)) == 5

    for number in range(5):
        cloaca.trigger(workflow="w", name=f"hangs-{number}", poll_interval="1ms", on_error=AT_ONCE)(hang)

    @cloaca.trigger(workflow="w", poll_interval="1ms", on_error=AT_ONCE)
    def other() -> bool:
        nonlocal quick
        quick += 1
        return False

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="one")(lambda context: None)
    with cloaca.DefaultRunner(":memory:"):
        for number in EVENTS[:30]:
            events, go, gate = number, gate, threading.Event()
            go.set()
            assert eventually(partial(are_held, gate))
        gate.set()
        seen = quick
        assert eventually(lambda: quick > seen + 100)
    assert "report it" not in caplog.text
