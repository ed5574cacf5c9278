"""SIGKILL of the processes that bodies run in, and of the program amidst their work: no attempt runs beside
another one of its task, nothing is lost, and no process stays behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from lives import Life, Stage
from witness import Line

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
"""Draws the moments of kills."""
KILLS = int(os.environ.get("CLOACA_PLACE_KILLS", "6"))
"""So many blows are dealt with each kind of executor; `make torture` asks for more."""
CHAPTER = 25
"""After so many blows the file is brought to rest, and another begun."""
ITEMS = 4
"""So many come with each blow."""
OPTIONS = ("--wait", "--pace", 0.12, "--durability", "normal")


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it until somebody asks for its end."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def workers(stage: Stage) -> set[int]:
    """The processes that bodies have run in."""
    return {line.pid for line in stage.testimony.read() if line.kind == "start"}


def at_work(stage: Stage) -> list[Line]:
    """The beginnings of attempts that have no end yet, in processes that live."""
    lines = stage.testimony.read()
    ended = {(line.pid, line["run"], line["task"]) for line in lines if line.kind == "end"}
    began = [line for line in lines if line.kind == "start"]
    return [line for line in began if (line.pid, line["run"], line["task"]) not in ended and lives(line.pid)]


def lasting(stage: Stage) -> bool:
    """Whether a body is at work that outlasts a start of the program."""
    busy = {line.pid: line.mono for line in at_work(stage)}
    return any(
        line.kind == "long" and line.mono > busy.get(line.pid, line.mono) for line in stage.testimony.lines
    )


def none_is_left(stage: Stage) -> None:
    """Waits until what runs bodies has ended, as it does by itself."""
    stage.until(lambda: not any(map(lives, workers(stage))), 20)


def kill_worker(stage: Stage, chance: random.Random) -> None:
    """Ends a process amidst a body, as the out-of-memory killer would."""
    busy = stage.until(lambda: at_work(stage))
    pid = chance.choice(busy).pid
    stage.voice.note("killed", of=pid)
    os.kill(pid, signal.SIGKILL)
    stage.until(lambda: not lives(pid))


def finish(stage: Stage, programs: list[Life]) -> None:
    """Lets all of them come to rest and end."""
    stage.until(lambda: all(program.lines("idle") for program in programs))
    stage.stop.touch()
    for program in programs:
        program.end()


def deal_blows(stage: Stage, place: str, count: int, chance: random.Random) -> None:
    """Kills processes at random while they work, and lets what is left come to rest."""
    options = ("--goal", ITEMS * count, "--place", place, *OPTIONS)
    # The neighbour takes over at once what a killed one leaves. The standard library's processes know of no
    # end of their program and go on: there no neighbour is, and they are killed with their program.
    programs = [stage.start(*options) for _ in range(2 if place == "processes" else 1)]
    for _ in range(count):
        stage.feed(ITEMS)
        if chance.random() < 0.6:
            kill_worker(stage, chance)
            continue
        # Every second time amidst one that would run on beside the next attempt.
        amidst = lasting if chance.random() < 0.5 else at_work
        with suppress(AssertionError):
            stage.until(partial(amidst, stage), 3)
        time.sleep(chance.expovariate(20))
        program = programs.pop(chance.randrange(len(programs)))
        if place == "processes":
            program.kill()
        else:
            program.kill_all()
            none_is_left(stage)
        programs.append(stage.start(*options))
    finish(stage, programs)
    none_is_left(stage)


@pytest.mark.parametrize("place", ["processes", "pool"])
@pytest.mark.timeout(60 + 4 * KILLS)
def test_whichever_process_is_killed_no_attempt_runs_beside_another(tmp_path: Path, place: str) -> None:
    chance = random.Random(SEED)
    for done in range(0, KILLS, CHAPTER):
        with Stage(tmp_path / f"chapter-{done}") as stage:
            told = f"CLOACA_SEED={SEED}, {stage.folder}, after {done} blows"
            deal_blows(stage, place, min(CHAPTER, KILLS - done), chance)
            programs = {line.pid for line in stage.testimony.lines if line.kind == "begin"}
            assert not programs & workers(stage), told
            found = stage.check_at_rest()
            if place == "pool":
                # The standard library's processes say there how they missed their program.
                found = [text for text in found if not text.startswith("somebody wrote to stderr")]
            assert found == [], told
        shutil.rmtree(stage.folder)
