"""SIGKILL amidst limited runs, in several processes: no key ever has more at work than it may."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from drain import drained_under_kills

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
"""Draws the moments of kills."""
RUNS = int(os.environ.get("CLOACA_LIMITED_RUNS", "240"))
KEYS, SEATS, PROCESSES = 6, 2, 3

WORKER = """
    import fcntl

    def seat_of(key):
        # The kernel takes a lock away with its process, and with nothing else.
        for number in range(SEATS):
            seat = os.open(os.path.join(sys.argv[2], f"{key}-{number}"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return seat
            except BlockingIOError:
                os.close(seat)
        return None

    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(SEATS, key="key")):

        @cloaca.task(id="work", retry_attempts=1)
        def work(context):
            seat = seat_of(context["key"])
            if seat is None:
                open(os.path.join(sys.argv[2], "violated"), "a").close()
                raise RuntimeError("no seat is free")
            try:
                time.sleep(0.002)
            finally:
                os.close(seat)

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        say("ready")
        until(lambda: os.path.exists(sys.argv[3]))
""".replace("SEATS", str(SEATS))

CLIENT = """
    import sqlite3
    with cloaca.DefaultRunner(sys.argv[1], work=False) as runner:
        runner.submit_many("sync", [{"key": n % KEYS} for n in range(RUNS)])
        say("submitted")
""".replace("KEYS", str(KEYS)).replace("RUNS", str(RUNS))

HELD = """
    SELECT json_extract(context, '$.key') AS key, count(*) AS many FROM runs
    WHERE completed_at IS NULL AND owner IS NOT NULL GROUP BY 1 HAVING many > ?"""


def holds(db: sqlite3.Connection) -> bool:
    """As the store sees it: in anybody's hands, begun or about to."""
    return db.execute(HELD, [SEATS]).fetchall() == []


def test_no_key_has_more_at_work_than_it_may_whoever_dies(tmp_path: Path) -> None:
    drained_under_kills(
        tmp_path, WORKER, CLIENT, processes=PROCESSES, runs=RUNS, seed=SEED, seats="seats", holds=holds
    )
