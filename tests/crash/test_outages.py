"""Several processes whose server restarts, or whose cables are pulled, while they work: nothing is lost,
nothing done twice, and no two bodies of a task are at work at a time."""

from __future__ import annotations

import os
import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import postgres
import pytest
from lives import Life, Stage

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
RESTARTS = int(os.environ.get("CLOACA_RESTARTS", "3"))
CABLES = int(os.environ.get("CLOACA_CABLES", "3"))
"""So many cables are pulled, every third for long enough that others take over."""
CHAPTER = 25
"""After so many outages the work is brought to rest, and begun anew."""
PROCESSES = 3
GRACE_S = 10.0
"""For so long after a server's start nobody is taken for dead of silence."""
SHORT_S = (0.2, 1.0)
LONG_S = (3.0, 9.0)
"""A runner that isn't heard of for four beats, a second each, is dead; one that can't say that it lives
begins nothing after three."""


def at_work(stage: Stage, kind: str) -> int:
    """How often something has been done so far."""
    return sum(line.kind == kind for line in stage.testimony.read())


def goes_on(stage: Stage) -> None:
    """Waits until a few more bodies have begun, or nothing is left to do."""
    before = at_work(stage, "start")
    stage.until(lambda: at_work(stage, "start") > before + PROCESSES or at_work(stage, "idle"))


def finish(stage: Stage, lives: list[Life], told: str) -> None:
    """Lets all of them come to rest and end."""
    stage.until(lambda: all(life.lines("idle") for life in lives))
    stage.stop.touch()
    for life in lives:
        life.end()
    assert stage.check_at_rest() == [], told


@pytest.mark.timeout(120 + 8 * RESTARTS)
def test_however_often_a_server_restarts_its_runners_have_the_work_once(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with postgres.own_server() as server:
        for done in range(0, RESTARTS, CHAPTER):
            count = min(CHAPTER, RESTARTS - done)
            with server.store() as url, Stage(tmp_path / f"chapter-{done}", url) as stage:
                told = f"CLOACA_SEED={SEED}, {stage.folder}, after {done} restarts"
                options = ("--goal", 20 * count, "--wait", "--pace", 0.005)
                lives = [stage.start(*options) for _ in range(PROCESSES)]
                for life in lives:
                    life.until("open")
                for _ in range(count):
                    stage.feed(20)
                    time.sleep(chance.expovariate(12))
                    server.stop(chance.choice(["immediate", "fast"]))
                    # Now and then somebody dies meanwhile.
                    if chance.random() < 0.2:
                        life = lives.pop(chance.randrange(len(lives)))
                        life.kill()
                    time.sleep(chance.choice([0.0, chance.expovariate(2)]))
                    server.resume()
                    while len(lives) < PROCESSES:
                        lives.append(stage.start(*options))
                    for life in lives:
                        life.until("open")
                    if chance.random() < 0.5:
                        goes_on(stage)
                finish(stage, lives, told)
            shutil.rmtree(stage.folder)


class Machine:
    """A process with a way of its own to the server, and a folder that others don't have."""

    def __init__(self, stage: Stage, server: postgres.Server, name: str, database: str) -> None:
        self._stage = stage
        self.way = postgres.Way(server)
        self._url = self.way.url(database)
        self._home = stage.folder / name
        self._home.mkdir(mode=0o700)
        self.life: Life

    def start(self, *options: object) -> None:
        """Another process, where the last one is gone."""
        env = os.environ | {"XDG_RUNTIME_DIR": str(self._home)}
        self.life = self._stage.start(*options, env=env, database=self._url)
        self.life.until("open")


@pytest.mark.timeout(120 + 20 * CABLES)
def test_whosever_cable_is_pulled_the_work_is_done_once(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with postgres.own_server() as server:
        time.sleep(GRACE_S)
        for done in range(0, CABLES, CHAPTER):
            count = min(CHAPTER, CABLES - done)
            folder = tmp_path / f"chapter-{done}"
            with ExitStack() as ways, server.database() as name, Stage(folder, server.url(name)) as stage:
                told = f"CLOACA_SEED={SEED}, {stage.folder}, after {done} cables"
                options = ("--goal", 20 * count, "--wait", "--pace", 0.005)
                machines = [Machine(stage, server, f"machine-{number}", name) for number in range(PROCESSES)]
                for machine in machines:
                    ways.callback(machine.way.close)
                    machine.start(*options)
                for number in range(done, done + count):
                    stage.feed(20)
                    time.sleep(chance.expovariate(12))
                    machine = chance.choice(machines)
                    if number % 3 != 2:
                        with machine.way.cut():
                            time.sleep(chance.uniform(*SHORT_S))
                        continue
                    machine.life.falls_silent()
                    with machine.way.cut():
                        time.sleep(chance.uniform(*LONG_S))
                    # What it could not say is refused now, or still taken, by when it comes.
                    time.sleep(chance.choice([0.0, chance.expovariate(3)]))
                    machine.life.kill()
                    machine.start(*options)
                finish(stage, [machine.life for machine in machines], told)
            shutil.rmtree(folder)
