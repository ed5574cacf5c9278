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
