"""All limits at once, in processes that are killed and stopped: nothing is lost, nothing twice, no limit
exceeded."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import postgres
import pytest
from lives import Script

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
"""Draws the moments of kills and stops."""
RUNS = int(os.environ.get("CLOACA_CROWD", "480"))
"""So many are submitted, about a hundred a key."""
KEYS = max(4, RUNS // 100)
PROCESSES, SEATS, CALLS = 4, 2, 2
ADMITTED = 5
"""So many notices of a key are admitted an hour."""
LEFT = "SELECT count(*) FROM runs WHERE completed_at IS NULL"

PROGRAM = f"""
    import fcntl

    KEYS, SEATS, CALLS, ADMITTED, RUNS = {KEYS}, {SEATS}, {CALLS}, {ADMITTED}, {RUNS}
    database, folder = sys.argv[1:3]
    places = os.open(os.path.join(folder, "places"), os.O_RDWR | os.O_CREAT)
    witness = os.open(os.path.join(folder, "witness"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    mine, door = set(), threading.Lock()

    def take(first, many):
        # The kernel lets go of a place with its process, and with nothing else.
        with door:
            for place in range(first, first + many):
                if place not in mine:
                    try:
                        fcntl.lockf(places, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                    except OSError:
                        continue
                    mine.add(place)
                    return place
        os.write(witness, f"violated {{first}} 0 0 0\\n".encode())
        raise RuntimeError("no place is free")

    def give(place):
        with door:
            mine.discard(place)
            fcntl.lockf(places, fcntl.LOCK_UN, 1, place)

    def note(kind, handle):
        line = f"{{kind}} {{handle.run_id}} {{handle.task_id}} {{handle.attempt}} {{os.getpid()}}\\n"
        os.write(witness, line.encode())

    def guarded(first_of, many):
        def work(context, handle):
            note("began", handle)
            place = take(first_of(context), many)
            try:
                time.sleep(0.003)
            finally:
                give(place)
            note("ended", handle)
        return work

    def quick(context, handle):
        note("began", handle)
        note("ended", handle)

    def seat(context):
        return context["key"] * SEATS

    BACK = KEYS * SEATS
    CALL = BACK + KEYS
    api = cloaca.Limit("api", concurrency=CALLS)

    # Of a key two runs at once, one of them begun each 20 ms after a burst of three.
    with cloaca.WorkflowBuilder(
        "sync",
        concurrency=cloaca.Concurrency(SEATS, key="key"),
        throttle=cloaca.Throttle(50, per="1s", burst=3, key="key"),
    ):
        cloaca.task(id="pull")(guarded(seat, SEATS))
        cloaca.task(id="push", dependencies=["pull"], limits=[api])(guarded(lambda context: CALL, CALLS))

    # One after another.
    with cloaca.WorkflowBuilder("lone", concurrency=cloaca.Concurrency(1, key="key")):
        cloaca.task(id="only")(guarded(lambda context: BACK + context["key"], 1))

    with cloaca.WorkflowBuilder("notice", rate_limit=cloaca.RateLimit(ADMITTED, per="1h", key="key")):
        cloaca.task(id="tell")(quick)

    with cloaca.WorkflowBuilder("plain"):
        cloaca.task(id="only")(quick)
"""

WORKER = (
    PROGRAM
    + """
    with cloaca.DefaultRunner(database) as runner:
        say("ready")
        while not os.path.exists(os.path.join(folder, "stop")):
            time.sleep(0.01)
"""
)

CLIENT = (
    PROGRAM
    + """
    with cloaca.DefaultRunner(database, work=False) as runner:
        dropped = 0
        for n in range(RUNS):
            name = ("sync", "sync", "lone", "plain", "notice")[n % 5]
            try:
                runner.submit(name, {"key": n // 5 % KEYS, "n": n}, priority=n * 7 % 10)
            except cloaca.Dropped:
                dropped += 1
        say(dropped)
"""
)

OVER_SEATS = f"""
    SELECT min(keys.workflow), min(keys.key), count(*) FROM seats JOIN keys ON keys.row = seats.seat
    WHERE stand = 1 GROUP BY seats.seat
    HAVING count(*) > CASE min(keys.workflow) WHEN 'lone' THEN 1 ELSE {SEATS} END"""
PACES = "SELECT key, stamp FROM keys WHERE workflow = 'sync' AND stamp IS NOT NULL"
PACE_US_MAX = 3 * 20_000
"""A key's next free moment lies no further ahead than its burst takes."""
OVER_CALLS = f"SELECT count(*) FROM limit_seats WHERE granted_at IS NOT NULL HAVING count(*) > {CALLS}"


Look = Callable[[str], list[tuple[Any, ...]]]
"""What a statement finds, whatever the workers do."""


@contextmanager
def file_look(database: Path) -> Iterator[Look]:
    with closing(sqlite3.connect(database, timeout=60)) as db:
        yield lambda sql: db.execute(sql).fetchall()


@contextmanager
def server_look(url: str) -> Iterator[Look]:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(url, autocommit=True, options="-c search_path=cloaca") as db:
        yield lambda sql: db.execute(sql).fetchall()


class Crowd:
    """The workers, some of whom stand still."""

    def __init__(self, database: Path | str, folder: Path) -> None:
        self._arguments = (database, folder)
        self._stopped: dict[int, float] = {}
        self._workers = [self._worker() for _ in range(PROCESSES)]
        self.kills = self.stops = 0

    def _worker(self) -> Script:
        return Script(WORKER, *self._arguments)

    def __enter__(self) -> Crowd:
        for worker in self._workers:
            worker.says("ready")
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.__exit__()

    def blow(self, dice: random.Random) -> None:
        """Kills one, or stops it for a while."""
        place = dice.randrange(PROCESSES)
        if dice.random() < 0.5:
            self._workers[place].__exit__()
            self._stopped.pop(place, None)
            self._workers[place] = self._worker()
            self.kills += 1
        elif place not in self._stopped:
            self._workers[place].process.send_signal(signal.SIGSTOP)
            self._stopped[place] = time.monotonic() + dice.random() / 2
            self.stops += 1

    def wake(self, *, everybody: bool = False) -> None:
        """Lets those go on whose time has come."""
        for place, until in list(self._stopped.items()):
            if everybody or time.monotonic() > until:
                del self._stopped[place]
                self._workers[place].process.send_signal(signal.SIGCONT)


@pytest.mark.timeout(150 + RUNS // 20)
def test_in_a_crowd_that_is_killed_and_stopped_all_limits_hold(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    be_killed_and_stopped(path, file_look(path), tmp_path / "folder", 0.03, "json_extract(context, '$.key')")


@pytest.mark.skipif("CLOACA_CROWD" not in os.environ, reason="make torture does")
@pytest.mark.timeout(300 + RUNS // 10)
def test_in_a_crowd_on_a_server_that_is_killed_and_stopped_all_limits_hold(
    tmp_path: Path, postgres_server: postgres.Server
) -> None:
    with postgres_server.database() as name:
        url = postgres_server.url(name)
        be_killed_and_stopped(url, server_look(url), tmp_path / "folder", 0.01, "context::json ->> 'key'")


def be_killed_and_stopped(
    database: Path | str, looking: AbstractContextManager[Look], folder: Path, share: float, key: str
) -> None:
    """Of the looks at the limits that share deals a blow; `key` is what the SQL of a run's key is."""
    dice = random.Random(SEED)
    told = f"CLOACA_SEED={SEED}"
    folder.mkdir()
    with Crowd(database, folder) as crowd, looking as look:
        with Script(CLIENT, database, folder) as client:
            deadline = time.monotonic() + 120 + RUNS / (20 if isinstance(database, Path) else 10)
            is_submitted = False
            while not is_submitted or look(LEFT)[0][0]:
                assert time.monotonic() < deadline, f"it never came to rest, {told}"
                is_submitted = is_submitted or client.process.poll() is not None
                crowd.wake()
                if dice.random() < share:
                    crowd.blow(dice)
                over = look(OVER_SEATS) + look(OVER_CALLS)
                over += [each for each in look(PACES) if each[1] > time.time_ns() // 1000 + PACE_US_MAX]
                assert over == [], told
                time.sleep(0.005)
            crowd.wake(everybody=True)
            (dropped,) = client.rest()
        statuses = dict(look("SELECT status, count(*) FROM runs GROUP BY status"))
        assert statuses == {"Completed": RUNS - int(dropped)}, told
        admitted = look(f"SELECT {key}, count(*) FROM runs WHERE workflow = 'notice' GROUP BY 1")
        assert {count for _, count in admitted} == {ADMITTED}, told
        left = [look(f"SELECT count(*) FROM {name}")[0][0] for name in ("seats", "limit_seats")]
        assert left == [0, 0], told
        recorded = {
            (str(run), task, str(attempt))
            for run, task, attempt in look(
                "SELECT runs.id, tasks.name, tasks.attempt FROM tasks JOIN runs ON runs.row = tasks.run"
            )
        }
    began, ended = Counter[tuple[str, ...]](), set[tuple[str, ...]]()
    for line in (folder / "witness").read_text().splitlines():
        kind, *attempt, _ = line.split()
        assert kind != "violated", f"{line}, {told}"
        began.update([tuple(attempt)] * (kind == "began"))
        if kind == "ended":
            ended.add(tuple(attempt))
    twice = [attempt for attempt, times in began.items() if times > 1]
    assert twice == [], told
    assert recorded <= ended, f"a task counts as completed whose attempt never ended, {told}"
    print(
        f"\n{len(recorded)} tasks, {len(began) - len(recorded)} attempts cut off, {dropped} runs dropped, "
        f"{crowd.kills} kills, {crowd.stops} stops, {told}"
    )
