"""A tick and a handle that a test makes, to call bodies by hand."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import cloaca
from cloaca import testing


def test_a_tick_says_what_the_test_tells_it() -> None:
    tick = testing.tick(unfinished=3, last_run={"status": "Failed"}, last_error="OSError: down")
    assert (tick.unfinished, tick.last_error) == (3, "OSError: down")
    assert tick.last_run == {"status": "Failed"}
    bare = testing.tick()
    assert (bare.unfinished, bare.last_run, bare.last_error) == (0, None, None)


def test_what_a_tick_was_asked_for_can_be_read_back() -> None:
    tick = testing.tick()
    assert tick.poll_after_seconds is None
    tick.poll_after("10m")
    assert tick.poll_after_seconds == 600.0


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"unfinished": -1}, ValueError, "unfinished"),
        ({"unfinished": "3"}, TypeError, "unfinished"),
        ({"last_run": "Failed"}, TypeError, "last_run"),
        ({"last_error": OSError()}, TypeError, "last_error"),
    ],
)
def test_a_tick_of_nonsense_is_refused(arguments: Any, error: type[Exception], names: str) -> None:
    with pytest.raises(error, match=names):
        testing.tick(**arguments)


def test_a_handle_has_what_an_earlier_attempt_left_and_keeps_what_it_is_given() -> None:
    handle = testing.handle(checkpointed={"page": 3}, attempt=2, task_id="load")
    assert isinstance(handle, cloaca.TaskHandle)
    assert (handle.checkpointed, handle.attempt, handle.task_id) == ({"page": 3}, 2, "load")
    handle.checkpoint({"page": 4})
    given = {"page": 5}
    handle.checkpoint(given)
    given["page"] = 6
    assert handle.checkpointed == {"page": 5}
    assert handle.checkpoints == [{"page": 4}, {"page": 5}]
    assert testing.handle().checkpointed is None
    assert testing.handle(run_id="01a21f7f-b48b-71d9-aa42-627e1f5867c1").run_id.startswith("01a21f7f")


def test_a_handle_refuses_what_a_task_s_would() -> None:
    handle = testing.handle()
    with pytest.raises(cloaca.ContextTypeError):
        handle.checkpoint(object())
    with pytest.raises(TypeError, match="condition"):
        handle.defer_until(3)  # type: ignore[arg-type]
    assert handle.checkpoints == []


def test_a_handle_defers_until_its_condition_holds() -> None:
    looks: list[bool] = []
    handle = testing.handle()
    handle.defer_until(lambda: looks.append(handle.is_slot_held()) or len(looks) > 3, 3_600_000)
    assert looks == [False] * 4
    assert handle.is_slot_held()
    with pytest.raises(TimeoutError):
        handle.defer_until(threading.Event().is_set, timeout=0.02)


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"attempt": 0}, ValueError, "attempt"),
        ({"attempt": "1"}, TypeError, "attempt"),
        ({"checkpointed": object()}, TypeError, "checkpointed"),
        ({"run_id": "1"}, ValueError, "run_id"),
        ({"task_id": 4}, TypeError, "task_id"),
    ],
)
def test_a_handle_of_nonsense_is_refused(arguments: Any, error: type[Exception], names: str) -> None:
    with pytest.raises(error, match=names):
        testing.handle(**arguments)
