"""Runs are spread over the runners that declare their workflow: each holds what it has room for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, declare, nothing
from program import eventually

import cloaca

pytestmark = pytest.mark.filterwarnings("ignore:a runner made at")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


class Crowd:
    """A body that holds everybody until it is let go, and says which runs are in it."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.runners: set[int] = set()
        self.order: list[Any] = []
        self._open = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, context: cloaca.Context) -> None:
        with self._lock:
            current = cloaca.current_run()
            self.inside.add(current.run_id)
            self.runners.add(id(current.runner))
            self.order.append(context.get("n"))
        assert self._open.wait(WAIT)

    def has(self, many: int) -> bool:
        return eventually(lambda: len(self.inside) == many)

    def let_go(self) -> None:
        self._open.set()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    declare("crowd", crowd)
    try:
        yield crowd
    finally:
        crowd.let_go()


class Hall:
    """A body that holds each run until it is let go, but one that is short."""

    def __init__(self) -> None:
        self.inside: dict[int, list[threading.Event]] = {}
        self.many = 0
        self._lock = threading.Lock()

    def __call__(self, context: cloaca.Context) -> None:
        if context.get("short"):
            return
        through = threading.Event()
        with self._lock:
            self.inside.setdefault(id(cloaca.current_run().runner), []).append(through)
            self.many += 1
        assert through.wait(WAIT)

    def has(self, many: int) -> bool:
        return eventually(lambda: self.many == many)

    def let_go(self, runner: cloaca.DefaultRunner, many: int = 2) -> None:
        """Those that came to that runner last."""
        for through in self.inside[id(runner)][-many:]:
            through.set()

    def let_all_go(self) -> None:
        for each in self.inside.values():
            for through in each:
                through.set()


@pytest.fixture
def hall() -> Iterator[Hall]:
    hall = Hall()
    declare("hall", hall)
    try:
        yield hall
    finally:
        hall.let_all_go()


@contextlib.contextmanager
def small(file: Path | str, **settings: Any) -> Iterator[cloaca.DefaultRunner]:
    with cloaca.DefaultRunner(str(file), max_concurrent_tasks=2, **settings) as runner:
        yield runner


def test_an_idle_runner_takes_what_a_busy_one_has_no_room_for(file: Path, crowd: Crowd) -> None:
    with small(file) as busy, small(file):
        assert eventually(lambda: len(busy.list_runners()) == 2)
        runs = busy.submit_many("crowd", [{"n": n} for n in range(12)])
        assert crowd.has(4), "both run two at a time"
        assert len(crowd.runners) == 2
        crowd.let_go()
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 12


def test_who_comes_later_gets_its_share_of_what_was_taken_in_hand_before(file: Path, crowd: Crowd) -> None:
    with small(file) as busy:
        runs = busy.submit_many("crowd", [{"n": n} for n in range(40)])
        assert crowd.has(2)
        with small(file), small(file):
            assert crowd.has(6)
            assert len(crowd.runners) == 3
            crowd.let_go()
            assert [run.result(WAIT).status for run in runs] == ["Completed"] * 40
        assert len(busy.list_runs(status="Completed")) == 40


def test_no_long_run_lies_in_a_busy_hand_while_a_place_is_free_elsewhere(file: Path, hall: Hall) -> None:
    """Of eight that go to one of two, the other one runs all but those in the places of the first one."""
    with small(file) as busy, small(file) as other:
        assert eventually(lambda: len(busy.list_runners()) == 2)
        runs = busy.submit_many("hall", [{"n": n} for n in range(8)])
        assert hall.has(4)
        hall.let_go(other)
        assert hall.has(6)
        hall.let_go(other)
        assert hall.has(8)
        assert (len(hall.inside[id(busy)]), len(hall.inside[id(other)])) == (2, 6)
        hall.let_all_go()
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 8


def test_long_runs_that_were_taken_for_short_ones_are_given_back(file: Path, hall: Hall) -> None:
    with small(file) as busy, small(file) as other:
        assert eventually(lambda: len(busy.list_runners()) == 2)
        short = [{"n": n, "short": True} for n in range(300)]
        runs = busy.submit_many("hall", [*short, *({"n": n} for n in range(300, 308))])
        assert hall.has(4)
        hall.let_go(other)
        assert hall.has(6)
        hall.let_go(other)
        assert hall.has(8)
        assert len(hall.inside[id(busy)]) == 2
        hall.let_all_go()
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 308


def test_a_place_that_becomes_free_is_filled_though_most_are_busy(hall: Hall) -> None:
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=4, runs_in_hand=4) as runner:
        runs = runner.submit_many("hall", [{"n": n} for n in range(6)])
        assert hall.has(4)
        hall.let_go(runner, 1)
        assert hall.has(5)
        hall.let_all_go()
        assert hall.has(6)
        hall.let_all_go()
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 6


def test_a_runner_that_leaves_hands_over_what_it_had_not_begun(file: Path, crowd: Crowd) -> None:
    with small(file) as stays:
        with small(file) as leaves:
            runs = [leaves.submit("crowd", {"n": n}) for n in range(20)]
            assert crowd.has(4)
            crowd.let_go()
        assert eventually(lambda: len(stays.list_runs(status="Completed")) == 20)
        assert all(stays.get_run(run.id) for run in runs)


def test_a_runner_that_waits_for_its_bodies_leaves_the_rest_to_others(file: Path) -> None:
    """It polls nothing from then on, and begins nothing: so others do."""
    go: dict[Any, threading.Event] = {}
    inside: set[str] = set()
    polled: list[Any] = []

    def body(context: cloaca.Context) -> None:
        current = cloaca.current_run()
        inside.add(current.run_id)
        assert go[current.runner].wait(WAIT)

    @cloaca.trigger(workflow="held", poll_interval="10ms")
    def source(tick: cloaca.Tick) -> bool:
        polled.append(tick.runner)
        return False

    declare("held", body)
    with small(file) as first, small(file) as second:
        go.update({first: threading.Event(), second: threading.Event()})
        try:
            runs = [runner.submit("held", {"n": n}) for n, runner in enumerate([first, second] * 3)]
            assert eventually(lambda: len(inside) == 4 and polled)
            leaves = polled[-1]
            stays = second if leaves is first else first
            leaving = threading.Thread(target=leaves.shutdown, args=(WAIT,))
            leaving.start()
            assert eventually(lambda: polled[-1] is stays)
            go[stays].set()
            assert eventually(lambda: len(stays.list_runs(status="Completed")) == 4)
            assert leaving.is_alive(), "its bodies are not home"
        finally:
            for each in go.values():
                each.set()
        leaving.join()
        assert [stays.run(run.id).result(WAIT).status for run in runs] == ["Completed"] * 6


def test_what_a_trigger_fires_is_spread_too_and_deduplicated_wherever_it_is(file: Path, crowd: Crowd) -> None:
    @cloaca.trigger(workflow="crowd", poll_interval="1h")
    def source() -> list[cloaca.TriggerResult]:
        return [cloaca.TriggerResult.fire(cloaca.Context({"n": n})) for n in range(12)]

    with small(file) as first, small(file) as second:
        assert eventually(lambda: len(first.list_runners()) == 2)
        poll_once(first, second)
        assert crowd.has(4)
        assert len(crowd.runners) == 2
        poll_once(first, second)
        assert len(first.list_runs()) == 12, "equal ones are unfinished, whoever has them"
        crowd.let_go()
        assert eventually(lambda: len(first.list_runs(status="Completed")) == 12)
        assert eventually(lambda: poll_once(first, second) or len(first.list_runs()) >= 24), (
            "ends are heard of"
        )


def poll_once(*runners: cloaca.DefaultRunner) -> None:
    """Whoever of them polls it does so now."""
    for runner in runners:
        with contextlib.suppress(cloaca.RunnerError):
            runner.tick("source")


def test_what_does_not_fit_lies_in_the_store_and_goes_by_its_priority() -> None:
    crowd = Crowd()
    declare("crowd", crowd)
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1, runs_in_hand=1) as runner:
        priorities = [5, 1, 9, 5, 9]
        runs = [runner.submit("crowd", {"n": n}, priority=p) for n, p in enumerate(priorities)]
        assert crowd.has(1)
        crowd.let_go()
        for run in runs:
            assert run.result(WAIT).status == "Completed"
    assert crowd.order == [0, 2, 4, 3, 1]


def test_a_task_waits_for_its_child_though_hands_are_full() -> None:
    declare("child")

    def parent(context: cloaca.Context) -> None:
        runner = cloaca.current_run().runner
        assert runner is not None
        context["child"] = runner.execute("child", {}).status

    declare("parent", parent)
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1, runs_in_hand=1) as runner:
        runs = runner.submit_many("parent", [{"n": n} for n in range(5)])
        assert [run.result(WAIT).final_context["child"] for run in runs] == ["Completed"] * 5


def test_what_waits_keeps_nobody_out() -> None:
    through = threading.Event()

    def waits(handle: cloaca.TaskHandle, context: cloaca.Context) -> None:
        handle.defer_until(through.is_set, poll_interval_ms=5)

    def fails_at_first(context: cloaca.Context) -> None:
        if not through.is_set():
            raise ValueError("not yet")

    def opens(context: cloaca.Context) -> None:
        through.set()

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="only")(lambda context, handle: waits(handle, context))
    declare("backs_off", fails_at_first, retry_attempts=50, retry_delay_ms=50, retry_jitter=False)
    declare("opens", opens)
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1, runs_in_hand=1) as runner:
        runs = [runner.submit(name) for name in ("waits", "backs_off", "waits", "opens")]
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 4


def test_runs_in_hand_are_at_least_one() -> None:
    declare("only", nothing)
    with pytest.raises(cloaca.ConfigError, match="runs_in_hand is 0; it must be above 0"):
        cloaca.DefaultRunner(":memory:", runs_in_hand=0)
    assert "runs_in_hand" not in cloaca.DefaultRunnerConfig().to_dict()
    assert cloaca.DefaultRunnerConfig(runs_in_hand=3).to_dict()["runs_in_hand"] == 3


def test_local_load_does_not_starve_what_lies_in_the_store(file: Path) -> None:
    """Who is asked for more and more itself begins what others have asked for before."""
    began: list[tuple[int, str]] = []
    go_on = threading.Semaphore(0)

    def body(context: cloaca.Context) -> None:
        began.append((id(cloaca.current_run().runner), context["by"]))
        assert go_on.acquire(timeout=WAIT)

    declare("both", body)
    with small(file) as busy, small(file), cloaca.DefaultRunner(str(file), work=False) as client:
        assert eventually(lambda: len(busy.list_runners()) == 3)
        client.submit_many("both", [{"by": "others"} for _ in range(20)])
        assert eventually(lambda: len(began) == 4)
        # One is asked for here each time that a place becomes free.
        runs = []
        for ended in range(1, 17):
            runs.append(busy.submit("both", {"by": "itself"}))
            go_on.release()
            assert eventually(lambda many=4 + ended: len(began) == many)
        local = [by for _, by in began].count("itself")
        for _ in range(40):
            go_on.release()
        assert all(run.result(WAIT).status == "Completed" for run in runs)
    assert local <= 2, f"{local} of 16 that were asked for later began before those that lay there"
