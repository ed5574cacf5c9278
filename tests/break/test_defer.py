"""Many tasks that wait in `defer_until`: each is a thread, and so there is a bound."""

from __future__ import annotations

import threading

import pytest
from attack import until

import cloaca
from cloaca import permit

SECONDS = 30.0


def workers() -> int:
    return sum(thread.name.startswith("cloaca-worker") for thread in threading.enumerate())


def test_of_many_tasks_that_wait_so_many_give_their_slot_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(permit, "DEFERRED_MAX", 3)
    monkeypatch.setattr(permit, "KEEP_SECONDS", SECONDS)
    go, entered = threading.Event(), []

    def told() -> list[str]:
        return [line for line in caplog.messages if "3 tasks wait in defer_until or for other runs" in line]

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        entered.append(handle)
        handle.defer_until(go.is_set, poll_interval_ms=1)
        assert handle.is_slot_held()

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="t", retry_attempts=1)(body)
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=2)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        runs = runner.submit_many("waits", [{"number": number} for number in range(20)])
        until(lambda: len(entered) == 5)
        until(told)
        # Who waits in its slot holds it, and nobody else begins.
        assert sorted(handle.is_slot_held() for handle in entered) == [False] * 3 + [True] * 2
        assert workers() <= 6
        assert len(told()) == 1
        go.set()
        # From here on there may be none, and then as many again.
        assert {run.result(SECONDS).status for run in runs} == {"Completed"}


def test_a_task_that_waits_in_its_slot_gives_it_back_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permit, "DEFERRED_MAX", 1)
    monkeypatch.setattr(permit, "KEEP_SECONDS", SECONDS)
    handles: dict[str, cloaca.TaskHandle] = {}
    gates = {name: threading.Event() for name in ("first", "second")}

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        name = context["name"]
        handles[name] = handle
        handle.defer_until(gates[name].is_set, poll_interval_ms=1)

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="t", retry_attempts=1)(body)
    with cloaca.DefaultRunner(":memory:") as runner:
        first = runner.submit("waits", {"name": "first"})
        until(lambda: "first" in handles and not handles["first"].is_slot_held())
        second = runner.submit("waits", {"name": "second"})
        until(lambda: "second" in handles)
        assert handles["second"].is_slot_held()
        gates["first"].set()
        assert first.result(SECONDS).status == "Completed"
        until(lambda: not handles["second"].is_slot_held())
        gates["second"].set()
        assert second.result(SECONDS).status == "Completed"


def test_what_many_wait_for_may_come_of_a_task_that_stands_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permit, "DEFERRED_MAX", 3)
    go = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(go.is_set, poll_interval_ms=1)

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="t", retry_attempts=1)(body)
    with cloaca.WorkflowBuilder("tells"):
        cloaca.task(id="told")(lambda context: go.set())
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=2) as runner:
        runs = runner.submit_many("waits", [{"number": number} for number in range(8)])
        runs.append(runner.submit("tells", {}))
        assert {run.result(SECONDS).status for run in runs} == {"Completed"}
