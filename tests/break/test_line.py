"""A long line of runs that wait for each other, while runners come and go: one at a time, and in order."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from time import sleep

import pytest
from attack import TIMES

import cloaca

SECONDS = 4.0
MANY = 8_000


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_line_keeps_its_order_while_runners_come_and_go(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    lock, stop = threading.Lock(), threading.Event()
    running: list[int] = []
    order: list[int] = []
    faults: list[tuple[int, ...]] = []

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def only(context: cloaca.Context) -> None:
            number = context["n"]
            with lock:
                if running or order[-1:] > [number]:
                    faults.append((number, *running, *order[-1:]))
                running.append(number)
                order.append(number)
            sleep(random.random() * 0.0005)
            with lock:
                running.remove(number)

    @cloaca.trigger(workflow="w", name="line", poll_interval="10ms", overlap="queue", poll_at_start=True)
    def line(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        start = tick.cursor or 0
        end = min(MANY, start + 200)
        return [cloaca.TriggerResult.fire({"n": n}, cursor=n + 1) for n in range(start, end)]

    def come_and_go() -> None:
        while not stop.is_set():
            runner = cloaca.DefaultRunner(url, durability="normal")
            sleep(random.uniform(0.02, 0.4))
            runner.shutdown(5)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    stop.wait(SECONDS * TIMES)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert order


def test_moments_that_are_filled_back_twice_at_once_run_once(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)

    @cloaca.trigger(workflow="w", name="nightly", cron="0 0 * * *")
    def nightly(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        sleep(0.002)
        return [cloaca.TriggerResult.fire({"moment": tick.scheduled_at, "part": n}) for n in range(3)]

    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        (cron,) = runner.list_cron_schedules()
        begin = threading.Barrier(2)

        def fill() -> None:
            begin.wait()
            runner.backfill(cron["id"], "2026-03-01T00:00:00Z", "2026-03-11T00:00:00Z")

        threads = [threading.Thread(target=fill) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen = [(run["context"]["moment"], run["context"]["part"]) for run in runner.list_runs(limit=1000)]
    assert len(seen) == len(set(seen)) == 30
