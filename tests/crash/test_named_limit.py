"""SIGKILL amidst attempts under a limit with a name, in several processes: its seats are never exceeded."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from drain import drained_under_kills

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
"""Draws the moments of kills."""
RUNS = int(os.environ.get("CLOACA_LIMITED_RUNS", "120"))
SEATS, PROCESSES = 2, 3

WORKER = """
    import fcntl

    def seat():
        # The kernel takes a lock away with its process, and with nothing else.
        for number in range(SEATS):
            found = os.open(os.path.join(sys.argv[2], f"{number}"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return found
            except BlockingIOError:
                os.close(found)
        return None

    def work(context):
        found = seat()
        if found is None:
            open(os.path.join(sys.argv[2], "violated"), "a").close()
            raise RuntimeError("no seat is free")
        try:
            time.sleep(0.002)
        finally:
            os.close(found)

    api = cloaca.Limit("api", concurrency=SEATS)
    for name in ("one", "two"):
        with cloaca.WorkflowBuilder(name):
            cloaca.task(id="first", retry_attempts=1, limits=[api])(work)
            cloaca.task(id="second", retry_attempts=1, dependencies=["first"], limits=[api])(work)

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        say("ready")
        until(lambda: os.path.exists(sys.argv[3]))
""".replace("SEATS", str(SEATS))

CLIENT = """
    with cloaca.DefaultRunner(sys.argv[1], work=False) as runner:
        for name in ("one", "two"):
            runner.submit_many(name, [{"n": n} for n in range(RUNS // 2)])
        say("submitted")
""".replace("RUNS", str(RUNS))

TAKEN = "SELECT count(*) FROM limit_seats WHERE granted_at IS NOT NULL"


def holds(db: sqlite3.Connection) -> bool:
    """As the store sees it: a seat is a row, until its body has ended or its process is buried."""
    return db.execute(TAKEN).fetchone()[0] <= SEATS


def test_no_more_attempts_are_in_their_bodies_than_a_limit_has_seats_whoever_dies(tmp_path: Path) -> None:
    drained_under_kills(
        tmp_path, WORKER, CLIENT, processes=PROCESSES, runs=RUNS, seed=SEED, seats="limit_seats", holds=holds
    )
