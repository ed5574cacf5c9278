"""Interrupts that land in the constructor or in `shutdown`: nothing is left that nobody can shut down."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

import cloaca
from cloaca import _guard, living, registry

SECONDS = 60.0


def interrupted(function: Callable[..., Any], where: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if where == "after":
            function(*arguments)
        raise KeyboardInterrupt

    return call


def crew() -> type:
    from cloaca import crew as module

    return module.Crew


STEPS: dict[str, tuple[Callable[[], Any], str]] = {
    "the guard": (lambda: _guard, "watch"),
    "the crew": (crew, "open"),
    "the registry": (lambda: registry, "attach"),
    "the hook": (lambda: living, "hook"),
}
ENDS: dict[str, tuple[Callable[[], Any], str]] = {
    "the guard": (lambda: _guard, "unwatch_closed"),
    "the crew": (crew, "join"),
    "the registry": (lambda: registry, "detach"),
}


def nothing_is_left(path: Path) -> None:
    sqlite3.connect(path).close()
    deadline = monotonic() + SECONDS
    while [thread for thread in threading.enumerate() if thread.name.startswith("cloaca-keeper")]:
        # Nobody waited for it.
        assert monotonic() < deadline
        sleep(0.005)
    with cloaca.DefaultRunner(os.fspath(path)) as after:
        living = after.query("SELECT count(*) AS n FROM owners WHERE left_at IS NULL")
    assert living == [{"n": 1}]


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_constructor_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, where: str
) -> None:
    place, name = STEPS[step]
    path = tmp_path / "a.db"
    with monkeypatch.context() as patch:
        patch.setattr(place(), name, interrupted(getattr(place(), name), where))
        with pytest.raises(KeyboardInterrupt):
            cloaca.DefaultRunner(os.fspath(path))
    nothing_is_left(path)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("step", ENDS)
def test_a_second_shutdown_finishes_what_an_interrupt_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, where: str
) -> None:
    place, name = ENDS[step]
    path = tmp_path / "a.db"
    runner = cloaca.DefaultRunner(os.fspath(path))
    other = cloaca.DefaultRunner(os.fspath(path))
    with monkeypatch.context() as patch:
        patch.setattr(place(), name, interrupted(getattr(place(), name), where))
        with pytest.raises(KeyboardInterrupt):
            runner.shutdown()
    runner.shutdown()
    runner.shutdown()
    with pytest.raises(cloaca.StoreError):
        sqlite3.connect(path)
    other.shutdown()
    nothing_is_left(path)


def test_a_signal_is_heard_while_shutdown_waits(tmp_path: Path) -> None:
    source = """
    import os, signal, sqlite3, sys, threading
    import cloaca, cloaca.crew
    joined, join = [], cloaca.crew.Crew.join
    cloaca.crew.Crew.join = lambda crew, seconds: (joined.append(seconds), join(crew, seconds))
    entered = threading.Event()

    def hangs(context):
        entered.set()
        threading.Event().wait()

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(hangs)
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit("w")
    assert entered.wait(30)
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        runner.shutdown(3600)
    except KeyboardInterrupt:
        print("heard", [seconds for seconds in joined if seconds])
    runner.shutdown(0)
    try:
        sqlite3.connect(sys.argv[1])
    except cloaca.StoreError:
        print("held by what hangs", flush=True)
    os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), os.fspath(tmp_path / "a.db")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard []\nheld by what hangs\n", "")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_second_ends_the_wait(tmp_path: Path, first: int) -> None:
    source = """
    import logging, sys, threading
    import cloaca
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    entered = threading.Event()

    def hangs(context):
        entered.set()
        threading.Event().wait()

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(hangs)
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit("w")
    assert entered.wait(30)
    # In one piece, unlike by `print`: the log writes to the same file from other threads.
    threading.Timer(0, lambda: (sys.stdout.write("runs\\n"), sys.stdout.flush())).start()
    runner.run_forever(shutdown_timeout=3600)
    print("fine", flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), os.fspath(tmp_path / "a.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert any(line == "runs\n" for line in child.stdout)
        # `run_forever` may not have its handlers yet when the line comes; SIGTERM would end the program.
        wait_for_handlers(child.pid)
        child.send_signal(first)
        assert any("waiting at most 3600 s for task 't' of run" in line for line in child.stdout)
        child.send_signal(signal.SIGINT)
        rest = child.communicate(timeout=SECONDS)[0]
        # The log's own lines are written by another thread.
        assert child.returncode == 0
        assert "fine" in rest
    finally:
        child.kill()
        child.communicate()


def wait_for_handlers(pid: int) -> None:
    """Until the process catches SIGTERM, as Linux tells."""
    deadline = monotonic() + SECONDS
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        assert monotonic() < deadline
        sleep(0.005)
        caught = int(Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0], 16)


def test_a_handler_may_shut_a_runner_down_whatever_the_main_thread_is_in(tmp_path: Path) -> None:
    source = """
    import random, signal, sys
    import cloaca

    runner = None

    def handle(*_):
        if runner is not None:
            runner.shutdown(1)

    signal.signal(signal.SIGALRM, handle)
    chance = random.Random(1)
    for number in range(150):
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0005, 0.02))
        runner = cloaca.DefaultRunner(sys.argv[1])
        runner.shutdown(1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    print("ends")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), os.fspath(tmp_path / "a.db")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_a_signal_that_comes_while_run_forever_begins_to_wait_is_heard(tmp_path: Path) -> None:
    source = """
    import os, signal, sys, threading
    import cloaca

    before = signal.getsignal(signal.SIGTERM)

    def send():
        # As soon as the handler is there: about when the main thread goes to sleep.
        while signal.getsignal(signal.SIGTERM) is before:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    for number in range(100):
        runner = cloaca.DefaultRunner(":memory:")
        sender = threading.Thread(target=send)
        sender.start()
        runner.run_forever()
        sender.join()
    print("ends", signal.getsignal(signal.SIGTERM) is before, signal.set_wakeup_fd(-1))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ends True -1\n"), done.stderr


def test_a_signal_that_comes_as_run_forever_ends_leaves_nothing_that_is_closed_in_its_way(
    tmp_path: Path,
) -> None:
    source = """
    import gc, os, signal, threading
    import cloaca
    from cloaca import stop

    def raises(*_):
        raise LookupError("the program's own")

    signal.signal(signal.SIGTERM, raises)
    give_back = stop.give_back

    def and_one_more(number, before):
        give_back(number, before)
        if number == signal.SIGTERM:
            signal.raise_signal(number)

    stop.give_back = and_one_more
    runner = cloaca.DefaultRunner(":memory:")
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    for ends in (runner.run_forever, gc.collect, lambda: signal.raise_signal(signal.SIGTERM)):
        try:
            ends()
        except LookupError as error:
            print(error)
    runner.shutdown()
    print(signal.set_wakeup_fd(-1))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "the program's own\nthe program's own\n-1\n"
