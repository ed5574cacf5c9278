"""Death before and after each step that writes or tells something, then at each ordered pair of these places.
Only a build for tests has them; `make test` makes one."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import postgres
import pytest
from lives import SECONDS, Stage

from cloaca import _cloaca

STEPS = _cloaca.FAULT_POINTS
POINTS = range(2 * len(STEPS))
FORERUNNER = 2 * STEPS.index("AttemptEnd") if STEPS else 0
"""Dying here leaves an owner that has not left, and a run in the middle of its work."""
DEATHS = int(os.environ.get("CLOACA_PAIRS", "30"))
"""So many deaths follow one another at points drawn at random; 0 asks for every ordered pair of points."""
SERVER_DEATHS = int(os.environ.get("CLOACA_PAIRS", "6"))
"""The same of those whose store is on a server."""
SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
CHAPTER = 15
"""After so many deaths on one file it is brought to an end, and another begun."""

# A poll of long ago.
OLD = "INSERT INTO cloaca.ticks VALUES (DEFAULT, 999999, 'skip', '', 1, 1, 1, 1, 1, 1)"

pytestmark = pytest.mark.skipif(not STEPS, reason="this build cannot be told where to die")


def name_of(point: int) -> str:
    return f"{('before', 'after')[point % 2]}-{STEPS[point // 2]}"


def dies(stage: Stage, point: int, passage: int = 1) -> bool:
    """Whether a life that does a little of everything dies at that point. If it never gets there, it ends."""
    stage.feed(6)
    leave_what_is_old(stage)
    env = os.environ | {"CLOACA_FAULT": f"{point}/{passage}"}
    life = stage.start("--errands", "--goal", stage.last_item, env=env)
    code = life.process.wait(SECONDS)
    stage.voice.note("killed", of=life.pid)
    assert code in (0, -signal.SIGABRT), f"it ended with {code}:\n{stage.errors()}"
    assert stage.check() == [], f"{stage.folder}, {name_of(point)}/{passage}"
    return code != 0


def leave_what_is_old(stage: Stage) -> None:
    """Something for the next life to forget: a poll of long ago."""
    if isinstance(stage.database, str):
        if postgres.sql(stage.database, "SELECT to_regclass('cloaca.ticks') IS NOT NULL") == [["t"]]:
            postgres.sql(stage.database, OLD)
        return
    if not stage.database.exists():
        return
    with closing(sqlite3.connect(stage.database, timeout=SECONDS)) as store, store:
        if store.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ticks'").fetchone():
            store.execute("INSERT INTO ticks VALUES (NULL, 999999, 'skip', '', 1, 1, 1, 1, 1, 1)")


def every_pair() -> Iterator[int]:
    """A walk over the points that takes each ordered pair once: a de Bruijn sequence of order two, put
    together from its Lyndon words (Fredricksen and Maiorana 1978)."""
    for one in POINTS:
        yield one
        for other in POINTS[one + 1 :]:
            yield from (one, other)
    yield POINTS[0]


@pytest.mark.parametrize("point", [pytest.param(point, id=name_of(point)) for point in POINTS])
def test_after_a_death_at_any_step_nothing_is_lost_and_nothing_done_twice(tmp_path: Path, point: int) -> None:
    with Stage(tmp_path / "stage") as stage:
        if not dies(stage, point):
            # What is done for the dead needs one.
            assert dies(stage, FORERUNNER)
            assert dies(stage, point), "nothing in the scenario gets there"
        stage.finish()
        assert stage.check_at_rest() == [], stage.folder


def test_a_file_that_was_never_opened_to_the_end_is_opened_at_last(tmp_path: Path) -> None:
    with Stage(tmp_path / "stage") as stage:
        for point in (0, 0, 1, 1):
            assert dies(stage, point) or point == 1, name_of(point)
        stage.finish()
        assert stage.check_at_rest() == [], stage.folder


@pytest.mark.timeout(60 + 4 * (DEATHS or len(POINTS) ** 2))
def test_deaths_may_follow_one_another(tmp_path: Path) -> None:
    die_again_and_again(tmp_path, DEATHS, nullcontext)


@pytest.mark.timeout(60 + 8 * (SERVER_DEATHS or len(POINTS) ** 2))
def test_deaths_may_follow_one_another_on_a_server(tmp_path: Path, postgres_server: postgres.Server) -> None:
    die_again_and_again(tmp_path, SERVER_DEATHS, postgres_server.store)


def die_again_and_again(
    tmp_path: Path, deaths: int, database: Callable[[], AbstractContextManager[str | None]]
) -> None:
    chance = random.Random(SEED)
    walk = chance.choices(POINTS, k=deaths) if deaths else list(every_pair())
    lived = died = 0
    for start in range(0, len(walk), CHAPTER):
        with database() as url, Stage(tmp_path / f"chapter-{start}", url) as stage:
            # The first of a chapter is the last of the one before: their pair must not fall between the two.
            for point in walk[max(start - 1, 0) : start + CHAPTER]:
                lived += 1
                died += dies(stage, point, chance.choice([1, 1, 2, 5]) if deaths else 1)
            stage.finish()
            assert stage.check_at_rest() == [], f"CLOACA_SEED={SEED}, {stage.folder}"
    print(f"\n{lived} lives, {died} of which died at their fault point")
