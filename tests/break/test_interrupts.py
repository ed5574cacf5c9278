"""Interrupts amidst a declaration, at each of its lines: all runners know what is declared, or none does."""

from __future__ import annotations

import contextlib
import linecache
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from attack import until

import cloaca
import cloaca.testing
from cloaca import DefaultRunner, _guard, registry

LINES_MAX = 1_000


def at_line(number: int, function: Callable[[], Any]) -> bool:
    """Calls it with an interrupt at that line of the registry, from 1; false if there are not so many."""
    count = 0

    def traced(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != registry.__file__:
            return None
        # No signal is heard between a lock and its `with`: an interrupt there would keep the lock for ever.
        is_with = linecache.getline(registry.__file__, frame.f_lineno).strip().startswith("with ")
        if event in ("line", "return") and not is_with:
            count += 1
            if count == number:
                raise KeyboardInterrupt
        return traced

    sys.settrace(traced)
    try:
        function()
    except KeyboardInterrupt:
        assert count >= number
    finally:
        sys.settrace(None)
    return count >= number


@pytest.fixture(autouse=True)
def lock_is_free() -> Iterator[None]:
    yield
    taken: list[bool] = []

    def take() -> None:
        taken.append(registry.lock.acquire(timeout=10))
        registry.lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert taken == [True]


@pytest.fixture
def runners() -> Iterator[list[cloaca.testing.Runner]]:
    made = [cloaca.testing.Runner(), cloaca.testing.Runner()]
    yield made
    for runner in made:
        runner.shutdown()


def declare_workflow() -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def work(context: cloaca.Context) -> None: ...


def declare_trigger() -> None:
    @cloaca.trigger(workflow="w", name="watcher", poll_interval="1h")
    def watcher() -> bool:
        return False


def is_polled(runner: cloaca.testing.Runner) -> bool:
    try:
        runner.tick("watcher")
    except cloaca.TriggerError:
        return False
    return True


def has_workflow(runner: cloaca.testing.Runner) -> bool:
    try:
        run = runner.submit("w")
    except ValueError:
        return False
    # What it has known before it takes all the same, for whoever may come.
    runner.run_until_idle()
    return run.status == "Completed"


def drop(dropping: Callable[[str], None], name: str) -> None:
    # It may be gone before.
    with contextlib.suppress(cloaca.CloacaError):
        dropping(name)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[[cloaca.testing.Runner], bool]]] = {
    "a trigger comes": (lambda: drop(cloaca.unregister_trigger, "watcher"), declare_trigger, is_polled),
    "a trigger goes": (declare_trigger, lambda: drop(cloaca.unregister_trigger, "watcher"), is_polled),
    "a workflow comes": (lambda: drop(cloaca.unregister_workflow, "w"), declare_workflow, has_workflow),
    "a workflow goes": (declare_workflow, lambda: drop(cloaca.unregister_workflow, "w"), has_workflow),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_interrupted_declaration_is_known_to_all_or_to_none(
    runners: list[cloaca.testing.Runner], change: str
) -> None:
    before, changed, knows = CHANGES[change]
    declare_workflow()
    for number in range(1, LINES_MAX):
        before()
        if not at_line(number, changed):
            break
        # Who comes now is told of everything that is declared.
        with cloaca.testing.Runner() as fresh:
            assert [knows(runner) for runner in runners] == [knows(fresh)] * 2, number
    assert 3 < number < LINES_MAX - 1


def test_an_interrupt_at_the_end_of_isolation_loses_nothing_that_was_declared_before() -> None:
    declare_workflow()
    for number in range(1, LINES_MAX):
        declare_trigger()
        isolation = cloaca.testing.isolated()
        isolation.__enter__()
        is_amidst = at_line(number, partial(isolation.__exit__, None, None, None))
        with cloaca.testing.Runner() as runner:
            assert (has_workflow(runner), is_polled(runner)) == (True, True), number
        if not is_amidst:
            break
    assert 3 < number < LINES_MAX - 1


def test_a_runner_that_refuses_a_declaration_keeps_it_from_no_other(
    runners: list[cloaca.testing.Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    declare_workflow()

    def refuse(*_: object) -> None:
        raise cloaca.StoreError("the disk is full")

    for runner in runners:
        with monkeypatch.context() as patch:
            patch.setattr(runner._declarations, "on_triggers", refuse)
            with pytest.raises(cloaca.StoreError, match="the disk is full"):
                declare_trigger()
        (other,) = (each for each in runners if each is not runner)
        assert is_polled(other)
        cloaca.unregister_trigger("watcher")


def begun_at(number: int, path: Path) -> bool:
    """Makes a runner with an interrupt at that line of it, from 1; false if there are not so many."""
    count = 0
    codes = {DefaultRunner._start.__code__, _guard.Before.__enter__.__code__, _guard.Before.leave.__code__}

    def traced(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code not in codes:
            return None
        is_with = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith("with ")
        if event == "line" and not is_with:
            count += 1
            if count == number:
                raise KeyboardInterrupt
        return traced

    runner = None
    sys.settrace(traced)
    try:
        runner = DefaultRunner(path)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    if runner is not None:
        runner.shutdown()
    return runner is None


def test_an_interrupt_as_a_runner_is_made_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    cloaca.trigger(poll_interval="1h", name="watch")(lambda: False)
    DefaultRunner(path).shutdown()
    before = threading.active_count()
    number = 1
    while begun_at(number, path):
        assert cloaca.runners() == [], number
        assert _guard._openings == [], number
        # Nobody waits for those whom it has sent home.
        until(lambda: threading.active_count() == before)
        number += 1
        assert number < LINES_MAX
    assert number > 30
