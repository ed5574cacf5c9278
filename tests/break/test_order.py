"""Calls that change things, by many threads, in every order, against each other and against another process's
news: at the end nothing is lost, nothing doubled, and nobody hangs."""

from __future__ import annotations

import collections
import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest
from attack import SECONDS, TIMES, Program, health, outside

import cloaca

ROUNDS = 600 * TIMES
THREADS = 6


class Ground:
    """A workflow whose bodies count themselves, a trigger, some crons, and what they must come to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lock = threading.Lock()
        self.running: set[tuple[str, str]] = set()
        self.overlaps: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.failures: list[BaseException] = []
        self.said: collections.Counter[str] = collections.Counter()
        self.declare_workflow()
        self.declare_trigger()
        self.runner = cloaca.DefaultRunner.with_config(
            url, cloaca.DefaultRunnerConfig(max_concurrent_tasks=8)
        )

    def declare_workflow(self) -> None:
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="a", retry_attempts=2, retry_delay_ms=1)(self.body("a", 0.1))
            cloaca.task(id="b", dependencies=["a"], retry_attempts=1)(self.body("b", 0.1))

    def declare_trigger(self) -> None:
        @cloaca.trigger(workflow="w", poll_interval="3ms", name="watch")
        def watch(tick: cloaca.Tick) -> object:
            tick.cursor = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"n": tick.cursor}, run_key=str(tick.cursor))

    def body(self, name: str, risk: float) -> Callable[..., None]:
        def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            key = (handle.run_id, name)
            with self.lock:
                if key in self.running:
                    self.overlaps.append(key)
                self.running.add(key)
            try:
                if random.random() < 0.3:
                    sleep(random.random() * 0.004)
                if random.random() < risk:
                    raise ConnectionError("on purpose")
                context[name] = 1
            finally:
                with self.lock:
                    self.running.discard(key)

        return body

    def known(self, chance: random.Random) -> str:
        with self.lock:
            return chance.choice(self.ids) if self.ids else "none"

    def submit(self, chance: random.Random) -> None:
        run = self.runner.submit("w", {})
        with self.lock:
            self.ids.append(run.id)
        if chance.random() < 0.3:
            run.result(SECONDS)

    def cancel(self, chance: random.Random) -> None:
        self.runner.cancel(self.known(chance))

    def retry(self, chance: random.Random) -> None:
        self.runner.retry(self.known(chance)).result(SECONDS)

    def switch(self, chance: random.Random) -> None:
        self.runner.set_trigger_enabled("watch", chance.random() < 0.5)

    def declare(self, chance: random.Random) -> None:
        chance.choice([self.declare_trigger, self.declare_workflow])()

    def tick(self, chance: random.Random) -> None:
        self.runner.tick("watch", dry_run=chance.random() < 0.3)

    def crons(self, chance: random.Random) -> None:
        known = [row["id"] for row in self.runner.list_cron_schedules()]
        if len(known) < 5:
            self.runner.register_cron_workflow("w", f"* * * * * {chance.randrange(7)}")
            return
        one = chance.choice(known)
        chance.choice(
            [
                lambda: self.runner.delete_cron_schedule(one),
                lambda: self.runner.set_cron_schedule_enabled(one, chance.random() < 0.5),
                lambda: self.runner.update_cron_schedule(one, f"*/2 * * * * {chance.randrange(7)}", "UTC"),
            ]
        )()

    def look(self, chance: random.Random) -> None:
        self.runner.why("watch")
        self.runner.list_runs(limit=20)
        self.runner.ticks("watch")

    def attack(self, number: int) -> None:
        chance = random.Random(number)
        calls = [
            self.submit,
            self.submit,
            self.cancel,
            self.retry,
            self.switch,
            self.declare,
            self.crons,
            self.look,
        ]
        calls.append(self.tick)
        try:
            for _ in range(ROUNDS):
                try:
                    chance.choice(calls)(chance)
                except cloaca.CloacaError as error:
                    self.said[type(error).__name__] += 1
        except BaseException as error:
            self.failures.append(error)

    def end(self) -> None:
        """All settles, and what the file says fits together."""
        self.runner.set_trigger_enabled("watch", False)
        for row in self.runner.list_cron_schedules():
            self.runner.delete_cron_schedule(row["id"])
        deadline = monotonic() + SECONDS * TIMES
        while left := [
            row for row in self.runner.list_runs(limit=10_000, contexts=False) if not row["completed_at"]
        ]:
            assert monotonic() < deadline, [(row["id"], row["status"]) for row in left[:5]]
            sleep(0.05)
        assert self.runner.stats()["runs_unfinished"] == 0
        assert self.overlaps == []
        assert self.failures == []
        keys = self.runner.query("SELECT count(*) AS n FROM run_keys")[0]["n"]
        fired = self.runner.query("SELECT count(*) AS n FROM runs WHERE run_key IS NOT NULL")[0]["n"]
        cursor = self.runner.query("SELECT coalesce(cursor, '0') AS n FROM schedules WHERE name = 'watch'")[
            0
        ]["n"]
        assert (keys, fired) == (int(cursor), int(cursor)), "a fire was lost or doubled"
        torn = (
            "SELECT id FROM runs WHERE status = 'Completed' AND 2 <> "
            "(SELECT count(*) FROM tasks WHERE run = runs.row AND status = 'Completed')"
        )
        assert self.runner.query(torn) == [], "completed without its tasks"
        for identity in self.ids:
            assert self.runner.get_run(identity) is not None, "a run is lost"


@pytest.fixture(autouse=True)
def quiet() -> object:
    logging.getLogger("cloaca").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("cloaca").setLevel(logging.NOTSET)


NEIGHBOUR = """
    logging.disable()
    import random
    chance = random.Random(7)
    runner = cloaca.DefaultRunner(sys.argv[1])
    say("serves")
    while True:
        for _ in range(20):
            told(lambda: runner.set_trigger_enabled("watch", chance.random() < 0.6))
            rows = runner.list_runs(limit=5)
            if rows:
                told(lambda: runner.cancel(chance.choice(rows)["id"]))
            crons = runner.list_cron_schedules()
            if crons:
                told(lambda: runner.set_cron_schedule_enabled(chance.choice(crons)["id"], True))
            time.sleep(0.005)
        if chance.random() < 0.3:
            runner.shutdown()
            runner = cloaca.DefaultRunner(sys.argv[1])
"""


@pytest.mark.timeout(SECONDS * 4 * TIMES)
@pytest.mark.parametrize("where", ["memory", "file", "file with a neighbour"])
def test_whatever_the_order_of_calls_nothing_is_lost_doubled_or_hangs(tmp_path: Path, where: str) -> None:
    path = tmp_path / "runs.db"
    ground = Ground(":memory:" if where == "memory" else f"sqlite://{path}?durability=normal")
    neighbour = Program(NEIGHBOUR, path) if where == "file with a neighbour" else None
    try:
        if neighbour is not None:
            neighbour.until("serves")
        threads = [
            threading.Thread(target=ground.attack, args=(number,), daemon=True) for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS * 2 * TIMES)
            assert not thread.is_alive(), "it hangs"
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.__exit__()
    ground.end()
    ground.runner.shutdown()
    if where != "memory":
        del ground.runner
        assert outside(path, "SELECT count(*) FROM owners WHERE left_at IS NULL AND epoch = 1") == [[[0]]]
        assert health(path) == "ok"


@pytest.mark.timeout(SECONDS * 4 * TIMES)
@pytest.mark.filterwarnings("ignore:a runner made at")
def test_a_runner_that_is_closed_amidst_calls_leaves_all_to_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    ground = Ground(f"sqlite://{path}?durability=normal")
    stop = threading.Event()

    def calls(number: int) -> None:
        chance = random.Random(number)
        todo = [
            ground.submit,
            ground.cancel,
            ground.retry,
            ground.switch,
            ground.crons,
            ground.look,
            ground.tick,
        ]
        while not stop.is_set():
            try:
                chance.choice(todo)(chance)
            except (cloaca.CloacaError, RuntimeError):
                sleep(0.001)
            except BaseException as error:
                ground.failures.append(error)

    threads = [threading.Thread(target=calls, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    chance = random.Random(1)
    for _ in range(8 * TIMES):
        sleep(chance.random() * 0.3)
        old = ground.runner
        if chance.random() < 0.5:
            ground.runner = cloaca.DefaultRunner(ground.url)
            old.shutdown(chance.choice([0, 0.05, 5]))
        else:
            old.shutdown(chance.choice([0, 0.05, 5]))
            ground.runner = cloaca.DefaultRunner(ground.url)
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), "it hangs"
    ground.end()
    ground.runner.shutdown()
    assert health(path) == "ok"
