"""`tick` where it cannot poll, and where it is called off: it answers at once, and the trigger goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cloaca

SECONDS = 30.0

SIBLING = """
import sys, cloaca
with cloaca.WorkflowBuilder("w"):
    cloaca.task(id="t")(lambda context: None)
runner = cloaca.DefaultRunner(sys.argv[1])

@cloaca.trigger(workflow="w", poll_interval="1ms", name="tr")
def tr():
    return False

while not runner.ticks("tr"):
    pass
print("polls", flush=True)
sys.stdin.read()
runner.shutdown()
"""


@pytest.fixture
def sibling(tmp_path: Path) -> Iterator[str]:
    """A file whose trigger `tr` another process polls."""
    path = os.fspath(tmp_path / "a.db")
    child = subprocess.Popen(
        [sys.executable, "-c", SIBLING, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "polls\n"
    yield path
    child.stdin.close()
    child.stdout.close()
    assert child.wait(SECONDS) == 0


def test_who_polls_a_trigger_elsewhere_is_said(sibling: str) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)

    def tr() -> bool:
        return False

    # The very declaration of the other program: a newer one would be handed the trigger.
    tr.__module__, tr.__qualname__ = "__main__", "tr"
    cloaca.trigger(workflow="w", poll_interval="1ms", name="tr")(tr)
    with cloaca.DefaultRunner(sibling) as runner:
        (owner,) = runner.query("SELECT owner FROM schedules WHERE name = 'tr'")
        with pytest.raises(cloaca.RunnerError, match="another runner") as caught:
            runner.tick("tr")
        assert f"runner {owner['owner']} of this store" in str(caught.value)
        assert "another runner" in runner.why("tr")


def interrupts() -> None:
    signal.raise_signal(signal.SIGINT)


def plain() -> bool:
    interrupts()
    return False


def generator() -> Iterator[cloaca.TriggerResult]:
    yield cloaca.TriggerResult.skip()
    interrupts()
    yield cloaca.TriggerResult.fire()


async def asynchronous() -> bool:
    import asyncio

    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(SECONDS)
    return False


@pytest.mark.parametrize("body", [plain, generator, asynchronous])
def test_an_interrupt_in_a_tick_comes_out_of_it_and_the_trigger_goes_on(
    runner: cloaca.DefaultRunner, body: Callable[[], object]
) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    is_called_off, polled = threading.Event(), threading.Event()

    def poll() -> object:
        if threading.current_thread() is threading.main_thread():
            return body()
        if is_called_off.is_set():
            polled.set()
        return False

    cloaca.trigger(workflow="w", poll_interval="20ms", name="tr")(poll)
    with pytest.raises(KeyboardInterrupt):
        runner.tick("tr")
    is_called_off.set()
    assert polled.wait(SECONDS)
    assert not runner.list_runs()


def test_an_interrupt_while_an_answer_is_read_comes_out_of_the_tick(runner: cloaca.DefaultRunner) -> None:
    class Results(list[cloaca.TriggerResult]):
        def __iter__(self) -> Iterator[cloaca.TriggerResult]:
            if threading.current_thread() is threading.main_thread():
                interrupts()
            return super().__iter__()

    cloaca.trigger(poll_interval="1h", name="tr")(lambda: Results([cloaca.TriggerResult.skip()]))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            runner.tick("tr")


@pytest.mark.parametrize("error", [KeyboardInterrupt, cloaca.RunnerError])
def test_a_tick_that_is_called_off_before_its_body_leaves_the_trigger_polled(
    runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    polled = threading.Semaphore(0)

    @cloaca.trigger(workflow="w", poll_interval="5ms")
    def watch() -> bool:
        polled.release()
        return False

    def refused(*_: object) -> None:
        raise error

    assert polled.acquire(timeout=20)
    with monkeypatch.context() as patch:
        patch.setattr(type(runner), "_kept_cursor", refused)
        with pytest.raises(error):
            runner.tick("watch")
    while polled.acquire(blocking=False):
        pass
    assert polled.acquire(timeout=20)
    assert runner.tick("watch")["outcome"] == "skip"


INTERRUPTS = 100


def test_an_interrupt_anywhere_in_a_tick_leaves_the_trigger_polled(runner: cloaca.DefaultRunner) -> None:
    polled = threading.Semaphore(0)

    @cloaca.trigger(poll_interval="5ms")
    def watch() -> bool:
        if threading.current_thread() is not threading.main_thread():
            polled.release()
        return False

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for number in range(INTERRUPTS):
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.00003 * number)
                while True:
                    runner.tick("watch")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    while polled.acquire(blocking=False):
        pass
    assert polled.acquire(timeout=SECONDS), runner.why("watch")
