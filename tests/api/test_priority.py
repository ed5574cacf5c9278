"""`priority=`: what is more urgent begins first, and what has begun is finished before less is begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, Gate, declare, nothing
from program import eventually, run_program

import cloaca
import cloaca.testing
from cloaca import TriggerResult

fire = TriggerResult.fire


@pytest.fixture
def one_slot() -> Iterator[cloaca.DefaultRunner]:
    """A runner that does one thing at a time."""
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1) as runner:
        yield runner


class Held:
    """Keeps the one slot of a runner, so that all that comes after is there before any of it is taken."""

    def __init__(self, runner: cloaca.DefaultRunner) -> None:
        self.gate = Gate()
        declare("held", self.gate)
        self.run = runner.submit("held")
        assert self.gate.entered.wait(WAIT)

    def let_go(self) -> None:
        self.gate.open.set()
        self.run.result(WAIT)


def noting(order: list[Any]) -> Any:
    def note(context: cloaca.Context) -> None:
        order.append(context.get("n"))

    return note


def test_the_most_urgent_run_begins_first_and_equal_ones_in_their_order(
    one_slot: cloaca.DefaultRunner,
) -> None:
    order: list[Any] = []
    declare("note", noting(order))
    held = Held(one_slot)
    urgencies = [None, 0, 9, 5, 9, 6]
    runs = [one_slot.submit("note", {"n": n}, priority=urgent) for n, urgent in enumerate(urgencies)]
    held.let_go()
    for run in runs:
        run.result(WAIT)
    assert order == [2, 4, 5, 0, 3, 1]
    shown = {row["context"]["n"]: row["priority"] for row in one_slot.list_runs(workflow="note")}
    assert shown == {0: 5, 1: 0, 2: 9, 3: 5, 4: 9, 5: 6}
    assert (one_slot.get_run(runs[2].id) or {})["priority"] == 9


def test_what_a_submit_says_counts_more_than_what_its_workflow_says(one_slot: cloaca.DefaultRunner) -> None:
    order: list[Any] = []
    for name, urgent in (("low", 1), ("high", 8)):
        with cloaca.WorkflowBuilder(name, priority=urgent) as builder:
            cloaca.task(id="only")(noting(order))
        assert builder.build().priority == urgent
    held = Held(one_slot)
    runs = one_slot.submit_many("low", [{"n": "low"}])
    runs += one_slot.submit_many("low", [{"n": "raised"}], priority=9, run_keys=["k"])
    runs += one_slot.submit_many("high", [{"n": "high"}])
    held.let_go()
    for run in runs:
        run.result(WAIT)
    assert order == ["raised", "high", "low"]


def test_execute_and_its_twin_have_a_priority(runner: cloaca.DefaultRunner) -> None:
    declare("note")
    runner.execute("note", priority=7)
    asyncio.run(runner.execute_async("note", priority=8))
    asyncio.run(one(runner))
    assert [row["priority"] for row in runner.list_runs()] == [1, 2, 8, 7]


async def one(runner: cloaca.DefaultRunner) -> None:
    await (await runner.submit_async("note", priority=2))
    await (await runner.submit_async("note", priority=1, run_key="k"))


def test_a_workflow_that_is_declared_again_has_its_new_priority_and_its_old_version() -> None:
    declare("note")
    with cloaca.testing.Runner() as runner:
        runner.execute("note")
        with cloaca.WorkflowBuilder("note", priority=3) as builder:
            cloaca.task(id="only", retry_attempts=1)(nothing)
        runner.execute("note")
        newest, oldest = runner.list_runs()
        assert (newest["priority"], oldest["priority"]) == (3, 5)
        first = cloaca.WorkflowBuilder("note").add_task("only").build()
        assert builder.build().version == first.version


def test_what_a_fire_says_counts_more_than_what_its_workflow_says() -> None:
    with cloaca.WorkflowBuilder("note", priority=2):
        cloaca.task(id="only")(nothing)

    @cloaca.trigger(workflow="note", poll_interval="1s", allow_concurrent=True)
    def source() -> list[TriggerResult]:
        return [fire({"n": 1}, priority=9), fire({"n": 2})]

    with cloaca.testing.Runner() as runner:
        runner.advance("1s")
        assert {row["context"]["n"]: row["priority"] for row in runner.list_runs()} == {1: 9, 2: 2}


def has_gone_on(told: str) -> bool:
    return "task 'last' waits for the slot" in told or " completed at " in told


def test_runs_that_have_begun_go_on_before_others_begin(one_slot: cloaca.DefaultRunner) -> None:
    order: list[Any] = []
    runs: list[cloaca.Run] = []

    def first(context: cloaca.Context) -> None:
        n = context["n"]
        order.append((n, "first"))
        if n == 1:
            # What the first run goes on with is ready by then, and waits for this slot if it had it not.
            assert eventually(lambda: has_gone_on(runs[0].why()))

    with cloaca.WorkflowBuilder("two"):
        cloaca.task(id="first")(first)

        @cloaca.task(id="last", dependencies=["first"])
        def last(context: cloaca.Context) -> None:
            order.append((context["n"], "last"))

    held = Held(one_slot)
    runs += one_slot.submit_many("two", [{"n": 0}, {"n": 1}, {"n": 2}])
    held.let_go()
    for run in runs:
        run.result(WAIT)
    assert order.index((0, "last")) < order.index((2, "first"))


def test_what_is_no_priority_is_refused_before_anything_is_started(runner: cloaca.DefaultRunner) -> None:
    declare("note")
    for wrong in (-1, 10, 10**30):
        with pytest.raises(cloaca.ArgumentError, match=r"priority is .*; it must be from 0 to 9"):
            runner.submit("note", priority=wrong)
    for strange in (True, 5.0, "5"):
        with pytest.raises(cloaca.ArgumentError, match=r"priority is .*; it must be a whole number"):
            runner.submit("note", priority=strange)  # type: ignore[arg-type]
    with pytest.raises(cloaca.TriggerError, match="priority is 10"):
        fire(priority=10)
    with pytest.raises(cloaca.WorkflowError, match="priority is 11"):
        cloaca.WorkflowBuilder("other", priority=11)
    assert runner.list_runs() == []


DIES = """
import os, sys, threading, cloaca
held = threading.Event()
with cloaca.WorkflowBuilder("held"):
    @cloaca.task(id="only")
    def only(context):
        held.set()
        threading.Event().wait(60)
with cloaca.WorkflowBuilder("note"):
    @cloaca.task(id="only")
    def note(context): pass
runner = cloaca.DefaultRunner(sys.argv[1], max_concurrent_tasks=1)
runner.submit("held", priority=9)
held.wait(60)
for n, urgent in enumerate((1, 8, 5)):
    runner.submit("note", {"n": n}, priority=urgent)
os.kill(os.getpid(), 9)
"""


def test_a_priority_outlives_who_gave_it(tmp_path: Path) -> None:
    run_program(DIES, tmp_path / "runs.db")
    order: list[Any] = []
    declare("held")
    declare("note", noting(order))
    with cloaca.DefaultRunner(tmp_path / "runs.db", max_concurrent_tasks=1) as runner:
        for row in runner.list_runs():
            assert runner.run(row["id"]).result(WAIT).status == "Completed"
    assert order == [1, 2, 0]


def test_more_urgent_work_goes_first_also_where_bodies_are_async() -> None:
    order: list[Any] = []
    entered, go_on = threading.Event(), threading.Event()

    async def held(context: cloaca.Context) -> None:
        entered.set()
        await asyncio.to_thread(go_on.wait, WAIT)

    async def note(context: cloaca.Context) -> None:
        order.append(context["n"])

    declare("held", held)
    declare("note", note)
    with cloaca.DefaultRunner(":memory:", max_async_tasks=1) as runner:
        first = runner.submit("held")
        assert entered.wait(WAIT)
        runs = [runner.submit("note", {"n": n}, priority=n) for n in range(10)]
        go_on.set()
        for run in [first, *runs]:
            run.result(WAIT)
    assert order == list(range(9, -1, -1))
