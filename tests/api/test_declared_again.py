"""Declared again and again: what nobody calls any more is let go of, and what a run still follows is not."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from program import SECONDS as WAIT
from program import eventually

import cloaca
import cloaca.testing

MANY = 1000
begun, go = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def _not_begun() -> Iterator[None]:
    begun.clear()
    go.clear()
    yield
    go.set()


@pytest.fixture
def runner() -> Iterator[cloaca.DefaultRunner]:
    with ThreadPoolExecutor(2) as pool, cloaca.DefaultRunner(":memory:", executors={"pool": pool}) as runner:
        yield runner


def held(context: cloaca.Context) -> None:
    """Waits until it may end."""
    begun.set()
    assert go.wait(WAIT)


async def held_on_loop(context: cloaca.Context) -> None:
    """The same, and holds up no loop."""
    begun.set()
    while not go.is_set():
        await asyncio.sleep(0.01)


def declare(number: int, name: str = "w") -> weakref.ref[Callable[..., Any]]:
    """A version of a workflow, by the function that nobody but its task has."""
    with cloaca.WorkflowBuilder(name).description(str(number)):

        @cloaca.task()
        def work(context: cloaca.Context) -> None:
            context["version"] = number

    return weakref.ref(work)


def alive(bodies: list[weakref.ref[Callable[..., Any]]]) -> int:
    gc.collect()
    return sum(body() is not None for body in bodies)


def test_a_trigger_that_waits_for_its_earlier_functions_end_says_so() -> None:
    def slow() -> bool:
        begun.set()
        return go.wait(WAIT) and False

    declare(1)
    cloaca.trigger(workflow="w", poll_interval="5ms", name="inbox")(slow)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert begun.wait(WAIT)
        cloaca.trigger(workflow="w", poll_interval="5ms", name="inbox")(lambda: False)
        told = runner.why("inbox")
        assert "was declared again and is not polled yet: it waits for its earlier declaration's" in told
        assert "function, which has not answered since 20" in told
        go.set()
        assert eventually(lambda: "skipped at its last" in runner.why("inbox"))


def test_a_workflow_that_is_declared_again_and_again_keeps_its_newest_body(
    runner: cloaca.DefaultRunner,
) -> None:
    with cloaca.DefaultRunner(":memory:") as other:
        bodies = [declare(number) for number in range(MANY)]
        assert alive(bodies) == 1
        for each in (runner, other):
            assert each.execute("w", {}, check=True).final_context["version"] == MANY - 1


def test_what_runs_have_followed_goes_with_the_last_of_them(runner: cloaca.DefaultRunner) -> None:
    bodies = []
    for number in range(50):
        bodies.append(declare(number))
        assert runner.execute("w", {}, check=True).final_context["version"] == number
    # The last one's end may be known before its run is put away.
    declare(50)
    assert eventually(lambda: alive(bodies) == 0)


@pytest.mark.parametrize(
    ("body", "executor"), [(held, None), (held_on_loop, None), (held, "pool")], ids=["thread", "loop", "pool"]
)
def test_a_run_in_flight_goes_on_with_the_bodies_that_it_began_with(
    runner: cloaca.DefaultRunner, body: Callable[..., Any], executor: str | None
) -> None:
    told: list[str] = []

    def first_version() -> weakref.ref[Callable[..., Any]]:
        with cloaca.WorkflowBuilder("w"):
            where: Any = {} if executor is None else {"executor": executor}
            cloaca.task(id="first", on_success=lambda task, context: told.append("first"), **where)(body)

            @cloaca.task(dependencies=["first"])
            def work(context: cloaca.Context) -> None:
                context["version"] = "first"

        return weakref.ref(work)

    older = first_version()
    run = runner.submit("w", {})
    assert begun.wait(WAIT)
    newer = [declare(number) for number in range(50)]
    assert alive(newer) == 1
    assert alive([older]) == 1
    go.set()
    left = run.result(WAIT)
    assert (left.status, left.final_context["version"], told) == ("Completed", "first", ["first"])
    assert eventually(lambda: alive([older]) == 0)


def test_the_next_attempt_is_of_the_version_that_its_run_follows() -> None:
    tried: list[int] = []

    def first_version() -> weakref.ref[Callable[..., Any]]:
        with cloaca.WorkflowBuilder("w"):

            @cloaca.task()
            def work(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
                tried.append(handle.attempt)
                if handle.attempt == 1:
                    raise cloaca.RetryAfter("1m")

        return weakref.ref(work)

    with cloaca.testing.Runner() as runner:
        older = first_version()
        run = runner.submit("w", {})
        runner.run_until_idle()
        newer = [declare(number) for number in range(50)]
        assert alive([older, *newer]) == 2
        runner.advance("1m")
        assert (run.result().status, tried) == ("Completed", [1, 2])
        assert eventually(lambda: alive([older]) == 0)


def test_a_workflow_that_is_declared_no_more_leaves_no_body(runner: cloaca.DefaultRunner) -> None:
    bodies = []
    for number in range(50):
        bodies.append(declare(number, f"w{number}"))
        cloaca.unregister_workflow(f"w{number}")
    assert eventually(lambda: alive(bodies) == 0)


def test_one_that_is_told_twice_of_the_same_declaration_still_calls_it(runner: cloaca.DefaultRunner) -> None:
    declare(7)
    known = cloaca.registry.workflows["w"]
    for _ in range(3):
        cloaca.registry.add_workflow(known)
    assert runner.execute("w", {}, check=True).final_context["version"] == 7


def test_a_task_that_a_test_replaced_stays_so_until_its_workflow_is_declared_again() -> None:
    def shown() -> Any:
        return runner.execute("w", {}, check=True).final_context["version"]

    with cloaca.testing.Runner() as runner:
        declare(1)
        runner.replace_task("work", lambda context: {"version": "fake"})
        assert shown() == "fake"
        runner.replace_task("work", lambda context: {"version": "other"})
        assert shown() == "other"
        declare(2)
        assert shown() == 2
