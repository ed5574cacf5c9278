"""Work under a limit, in processes that are killed: what both kinds of limits are tested by."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from lives import Script

LEFT = "SELECT count(*) FROM runs WHERE completed_at IS NULL"


def drained_under_kills(
    folder: Path,
    worker: str,
    client: str,
    *,
    processes: int,
    runs: int,
    seed: int,
    seats: str,
    holds: Callable[[sqlite3.Connection], bool],
) -> None:
    """Has processes work off what a client submits, kills one of them now and then, and looks all the while
    whether a limit holds.

    Args:
        folder: for the store, what the bodies hold on to, and the sign to end, which the worker is told of.
        seats: the table that is empty in the end.
        holds: whether no more is at work than may be, as the store sees it.
    """
    dice = random.Random(seed)
    path, places, stop = folder / "runs.db", folder / "seats", folder / "stop"
    places.mkdir()
    workers = [Script(worker, path, places, stop) for _ in range(processes)]
    try:
        for each in workers:
            each.__enter__().says("ready")
        with Script(client, path) as submitting:
            submitting.says("submitted")
        deadline = time.monotonic() + 120
        with closing(sqlite3.connect(path, timeout=30)) as db:
            while (left := db.execute(LEFT).fetchone()[0]) and time.monotonic() < deadline:
                assert holds(db), f"seed {seed}"
                if left < runs // 4 or dice.random() > 0.03:
                    time.sleep(0.002)
                    continue
                number = dice.randrange(processes)
                workers[number].process.kill()
                workers[number].__exit__(None, None, None)
                workers[number] = Script(worker, path, places, stop)
                workers[number].__enter__()
            assert left == 0, f"{left} runs are left, seed {seed}"
            statuses = dict(db.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall())
            assert statuses == {"Completed": runs}, f"seed {seed}"
            assert db.execute(f"SELECT count(*) FROM {seats}").fetchone() == (0,), f"seed {seed}"
        assert not (places / "violated").exists(), f"seed {seed}"
    finally:
        stop.touch()
        for each in workers:
            each.__exit__(None, None, None)
