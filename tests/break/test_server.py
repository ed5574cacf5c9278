"""The server goes away under a runner and comes back: nothing is lost, nothing done twice, little said."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import postgres
import pytest

import cloaca

EVENTS = 200
PATIENCE = 60.0


@pytest.fixture
def server(postgres_server: postgres.Server) -> Iterator[postgres.Server]:
    """One of this test's own, which it may stop."""
    with TemporaryDirectory(dir="/tmp", prefix="cloaca-") as parent:
        Path(parent).chmod(0o711)
        server = postgres.Server(Path(parent) / "own")
        # A crash must keep what was committed.
        server.start({"fsync": "on", "full_page_writes": "on"})
        try:
            yield server
        finally:
            server.remove()


class Work:
    """Events that a trigger fires one after another by its cursor, and what its runs saw of them."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        with cloaca.WorkflowBuilder("work") as builder:
            builder.add_task(cloaca.task(id="note")(self.note))

        @cloaca.trigger(workflow="work", name="events", poll_interval="10ms")
        def events(tick: cloaca.Tick) -> cloaca.TriggerResult:
            number = tick.cursor or 0
            if number == EVENTS:
                return cloaca.TriggerResult.skip()
            return cloaca.TriggerResult.fire({"number": number}, cursor=number + 1)

    def note(self, context: cloaca.Context) -> None:
        with self.changed:
            self.seen[context["number"]] += 1
            self.changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Until so many events were seen."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.seen) >= number, PATIENCE), self.seen


def final_runs(runner: cloaca.DefaultRunner) -> list[tuple[str, int]]:
    return sorted((run["status"], run["context"]["number"]) for run in runner.list_runs(limit=1000))


@pytest.mark.parametrize("way", ["immediate", "fast"])
def test_a_server_that_restarts_loses_and_doubles_nothing(
    server: postgres.Server, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    with caplog.at_level(logging.INFO), cloaca.DefaultRunner(server.url()) as runner:
        for step in (EVENTS // 4, EVENTS // 2):
            work.wait_for(step)
            server.stop(way)
            server.resume()
        work.wait_for(EVENTS)
        runner.shutdown(PATIENCE)
    with cloaca.DefaultRunner(server.url(), paused=True) as runner:
        runs = final_runs(runner)
    assert runs == [("Completed", number) for number in range(EVENTS)]
    assert set(work.seen.values()) == {1}
    said = [record.message for record in caplog.records if "the store" in record.message]
    lost = [line for line in said if "refuses writes" in line]
    again = [line for line in said if "takes writes again" in line]
    assert len(said) == len(lost) + len(again)
    assert 1 <= len(again) == len(lost) <= 2


def test_connections_that_are_ended_again_and_again_cost_nothing_but_time(
    postgres_server: postgres.Server,
) -> None:
    work = Work()
    with postgres_server.database() as name, cloaca.DefaultRunner(postgres_server.url(name)) as runner:
        for step in range(10, EVENTS, 10):
            work.wait_for(step)
            postgres_server.cut(name)
        work.wait_for(EVENTS)
        runner.shutdown(PATIENCE)
        with cloaca.DefaultRunner(postgres_server.url(name), paused=True) as after:
            assert final_runs(after) == [("Completed", number) for number in range(EVENTS)]
    assert set(work.seen.values()) == {1}


def test_a_runner_that_cannot_say_that_it_lives_begins_nothing_until_it_can(server: postgres.Server) -> None:
    """After three seconds: a second later another machine could go on with what it has."""
    begun: list[int] = []
    changed = threading.Condition()
    gate = threading.Event()

    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def note(context: cloaca.Context) -> None:
            with changed:
                begun.append(context["number"])
                changed.notify_all()
            gate.wait(PATIENCE)

    with cloaca.DefaultRunner(server.url(), max_concurrent_tasks=1) as runner:
        runs = runner.submit_many("work", [{"number": number} for number in range(3)])
        with changed:
            assert changed.wait_for(lambda: begun, PATIENCE)
        server.stop("immediate")
        # The span that it takes to be silent.
        time.sleep(3.5)
        gate.set()
        with changed:
            assert not changed.wait_for(lambda: len(begun) > 1, 1.0), begun
        server.resume()
        assert [run.result(PATIENCE).status for run in runs] == ["Completed"] * 3
    assert begun == [0, 1, 2]
