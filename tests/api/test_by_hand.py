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


def shape(value: Any) -> Any:
    """Keys and types, however deep; of a list that of its first item."""
    if isinstance(value, dict):
        return type(value), {key: shape(value[key]) for key in value}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value)


def fails(context: cloaca.Context) -> None:
    if context.get("bad"):
        raise ValueError("no price")
    context["lines"] = 3


def told_of_ends() -> dict[str, Any]:
    """What callbacks are told of a run of each end, and the function of a trigger of one that failed."""
    told: dict[str, Any] = {}

    def hear(run: cloaca.types.RunDetails) -> None:
        told[run["status"]] = run

    @cloaca.trigger(workflow="mend", on_run="shop", status="Failed")
    def broken(run: cloaca.types.RunDetails) -> bool:
        told["trigger"] = run
        return False

    with cloaca.WorkflowBuilder("mend"):
        cloaca.task(id="mend")(lambda context: None)
    with cloaca.WorkflowBuilder("shop").on_success(hear).on_failure(hear).on_cancel(hear):
        cloaca.task(id="price", retry_attempts=1)(fails)
    with testing.Runner() as runner:
        runner.advance("1s")
        runner.submit("shop", {"file": "a"})
        runner.submit("shop", {"bad": 1})
        runner.cancel(runner.submit("shop", delay="1h").id)
        runner.run_until_idle()
    return told


def test_a_run_that_a_test_makes_is_like_one_of_which_callbacks_and_triggers_are_told() -> None:
    told = told_of_ends()
    assert set(told) == {"Completed", "Failed", "Cancelled", "trigger"}
    made = {
        "Completed": testing.run(
            workflow="shop",
            context={"file": "a"},
            final_context={"file": "a", "lines": 3},
            task_id="price",
        ),
        "Failed": testing.run(
            workflow="shop",
            status="Failed",
            context={"bad": 1},
            error=ValueError("no price"),
            task_id="price",
        ),
        "Cancelled": testing.run(workflow="shop", status="Cancelled"),
    }
    made["trigger"] = made["Failed"]
    # Callbacks are told in any order, the cancelled one had a delay, and tasks are looked at below.
    unlike = {"callbacks", "last_callback", "tasks", "due_at"}
    for end, run in made.items():
        real = told[end]
        assert type(run) is type(real)
        assert list(run) == list(real)
        assert [list(task) for task in run["tasks"]] == [list(task) for task in real["tasks"]]
        assert {key: shape(run[key]) for key in run if key not in unlike} == {
            key: shape(real[key]) for key in real if key not in unlike
        }
        for key in ("status", "workflow_name", "context", "error_message", "error_type", "cancel_requested"):
            assert run[key] == real[key], key
    (task,), (real,) = made["Failed"]["tasks"], told["Failed"]["tasks"]
    assert {**task, "tries": None, "started_at": None, "completed_at": None} == {
        **real,
        "tries": None,
        "started_at": None,
        "completed_at": None,
    }
    (tried,), (real,) = task["tries"], real["tries"]
    assert (tried["error"], tried["outcome"]) == (real["error"], real["outcome"])
    assert shape(tried) == shape(real)


def test_a_run_that_a_test_makes_says_what_the_test_tells_it() -> None:
    plain = testing.run()
    assert (plain["workflow_name"], plain["status"], plain["error_message"]) == (
        "workflow",
        "Completed",
        None,
    )
    assert plain["context"] == plain["final_context"] == {}
    given = {"order": {"id": 4}}
    run = testing.run(
        workflow="shop",
        status="Failed",
        context=given,
        final_context={"lines": 3},
        error="no price",
        trigger_name="inbox",
        run_key="order 4",
        run_id="01a21f7f-b48b-71d9-aa42-627e1f5867c1",
        completed_at="2026-02-03T04:05:06Z",
    )
    given["order"]["id"] = 5
    assert run["context"] == {"order": {"id": 4}}
    assert run["final_context"] == {"lines": 3}
    assert run["error_message"] == "task 'task' failed: RuntimeError: no price"
    assert (run["error_type"], run["trigger_name"], run["run_key"]) == ("RuntimeError", "inbox", "order 4")
    assert run["id"] == "01a21f7f-b48b-71d9-aa42-627e1f5867c1"
    assert run["completed_at"] == "2026-02-03T04:05:06.000000Z"
    assert testing.run(status="Failed")["error_type"] == "RuntimeError"


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"status": "Running"}, ValueError, "status is 'Running'; .*'Failed' or 'Cancelled'"),
        ({"workflow": 3}, TypeError, "workflow"),
        ({"context": []}, TypeError, "context"),
        ({"status": "Failed", "error": 3}, TypeError, "error is 3"),
        ({"error": "no price"}, ValueError, "error .* only a Failed run"),
        ({"run_id": "4"}, ValueError, "run_id"),
        ({"completed_at": "soon"}, ValueError, "completed_at"),
    ],
)
def test_a_run_of_nonsense_is_refused(arguments: Any, error: type[Exception], names: str) -> None:
    with pytest.raises(error, match=names):
        testing.run(**arguments)


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"])
def test_a_run_that_ends_at_a_time_that_cannot_be_told_is_refused(at: str) -> None:
    with pytest.raises(cloaca.ArgumentError, match="completed_at is '"):
        testing.run(completed_at=at)
