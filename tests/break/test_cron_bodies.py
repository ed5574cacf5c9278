"""A cron's function decides each moment once, in whichever process, and again only after a death."""

from __future__ import annotations

import random
import select
from pathlib import Path
from time import time

import pytest
from attack import TIMES, Program, outside, until

DECIDES = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): ...

    stays, leave = threading.Event(), threading.Event()

    def declare(kind):
        when = {"cron": "* * * * * *"} if kind == "cron" else {"poll_interval": "0.2s"}
        @cloaca.trigger(workflow="w", name="each", **when)
        def each(tick):
            say("at", tick.scheduled_at, tick.cursor)
            if stays.is_set():
                say("in body")
                leave.wait()
                say("out of body")
            tick.cursor = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"n": tick.cursor})

    declare(*sys.argv[2:] or ["cron"])
    runner = cloaca.DefaultRunner(sys.argv[1])
    say("ready")
    for line in sys.stdin:
        word = line.strip()
        if word == "stay":
            stays.set()
        elif word == "leave":
            stays.clear()
            leave.set()
        elif word == "gone":
            cloaca.unregister_trigger("each")
        elif word.startswith("declare"):
            declare(*word.split()[1:] or ["cron"])
        elif word == "end":
            break
        say("done", word)
    runner.shutdown()
"""

FIRED = """
    SELECT json_extract(context, '$.n'), scheduled_at / 1000000 FROM runs
    WHERE schedule = (SELECT row FROM schedules WHERE kind = 'cron') ORDER BY row
"""


def told(program: Program, word: str) -> None:
    program.tell(word)
    program.until(f"done {word}")


def end(*programs: Program) -> None:
    for program in programs:
        program.tell("end")
        program.end()


def check(file: Path, fewest: int) -> list[int]:
    """Each cursor is one run, and each moment; gives the moments."""
    [rows] = outside(file, FIRED)
    assert [n for n, _ in rows] == list(range(1, len(rows) + 1)), rows
    moments = [moment for _, moment in rows]
    assert moments == sorted(set(moments))
    assert len(moments) >= fewest
    return moments


def test_a_moment_whose_decider_is_killed_is_decided_by_another(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with Program(DECIDES, file) as one:
        one.until("ready")
        told(one, "stay")
        at = one.until("at").split()[1]
        while one.line() != "in body":
            at = one.lines[-1].split()[1] if one.lines[-1].startswith("at") else at
        with Program(DECIDES, file) as other:
            other.until("ready")
            one.kill()
            assert other.until("at").split()[1] == at, "the same moment once more"
            other.until("at")
            other.until("at")
            end(other)
    moments = check(file, 2)
    assert moments == list(range(moments[0], moments[-1] + 1)), "none is missing"


def test_a_moment_whose_decider_is_killed_is_decided_by_the_next_program(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with Program(DECIDES, file) as one:
        one.until("ready")
        told(one, "stay")
        one.until("in body")
        at = next(line for line in reversed(one.lines) if line.startswith("at")).split()[1]
        one.kill()
    with Program(DECIDES, file) as other:
        # What is overdue is decided at once, maybe before the program says that it is ready.
        assert other.until("at").split()[1] == at
        other.until("at")
        end(other)
    moments = check(file, 1)
    assert moments == list(range(moments[0], moments[-1] + 1)), "none is missing"


def test_who_is_withdrawn_in_its_body_still_decides_and_nobody_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with Program(DECIDES, file) as one:
        one.until("ready")
        told(one, "stay")
        one.until("in body")
        with Program(DECIDES, file) as other:
            other.until("ready")
            told(one, "gone")
            told(other, "leave")
            assert not [line for line in other.lines if line.startswith("at")]
            told(one, "leave")
            other.until("at")
            other.until("at")
            end(one, other)
        assert "out of body" in one.lines
    check(file, 2)


def test_moments_are_decided_once_and_in_order_whatever_dies(tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(TIMES):
        file = tmp_path / f"{number}.db"
        for _ in range(3):
            with Program(DECIDES, file) as one, Program(DECIDES, file) as other:
                for program in (one, other):
                    program.until("ready")
                for _ in range(3):
                    program = chance.choice([one, other])
                    told(program, "gone")
                    told(program, "declare")
                until(lambda: decides(one, other))
                chance.choice([one, other]).kill()
        with Program(DECIDES, file) as last:
            last.until("ready")
            last.until("at")
            last.until("at")
            end(last)
        check(file, 3)


def decides(*programs: Program) -> bool:
    """Whether one of them has decided a moment since."""
    ready, _, _ = select.select([program.process.stdout for program in programs], [], [], 0.01)
    heard = [program for program in programs if program.process.stdout in ready]
    return any(program.line().startswith("at") for program in heard)


NAMED = "SELECT json_extract(context, '$.n') FROM runs ORDER BY row"
DUE = "SELECT coalesce(min(next_at), 0) / 1000000 FROM schedules WHERE kind = 'cron'"
KINDS = [("poll", "cron"), ("cron", "poll")]


@pytest.mark.parametrize(("was", "becomes"), KINDS)
def test_a_name_in_its_body_becomes_a_cron_or_polled_in_a_new_version(
    tmp_path: Path, was: str, becomes: str
) -> None:
    file = tmp_path / "runs.db"
    with Program(DECIDES, file, was) as old:
        old.until("ready")
        old.until("at")
        told(old, "stay")
        old.until("in body")
        with Program(DECIDES, file, becomes) as new:
            new.until("ready")
            [[due]] = outside(file, DUE)[0]
            # Its moments come, and its interval is over, while the old version decides.
            until(lambda: time() > due + 2)
            assert not [line for line in new.lines if line.startswith("at")]
            told(old, "leave")
            new.until("at")
            new.until("at")
            end(old, new)
    numbers = [n for (n,) in outside(file, NAMED)[0]]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(("was", "becomes"), [*KINDS, ("poll", "poll"), ("cron", "cron")])
def test_a_name_in_its_body_becomes_a_cron_or_polled_in_its_program(
    tmp_path: Path, was: str, becomes: str
) -> None:
    file = tmp_path / "runs.db"
    with Program(DECIDES, file, was) as program:
        program.until("ready")
        program.until("at")
        told(program, "stay")
        program.until("in body")
        told(program, f"declare {becomes}")
        program.tell("leave")
        program.until("out of body")
        for _ in range(3):
            program.until("at")
        end(program)
    numbers = [n for (n,) in outside(file, NAMED)[0]]
    assert numbers == list(range(1, len(numbers) + 1))
