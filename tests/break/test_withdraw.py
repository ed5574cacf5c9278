"""A trigger that one process declares no more: another one that does goes on, and never beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from attack import Program, outside

WATCHES = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): ...

    polls, stays, leave = 0, threading.Event(), threading.Event()

    def declare():
        @cloaca.trigger(workflow="w", name="watch", poll_interval="20ms")
        def watch(tick):
            global polls
            polls += 1
            if stays.is_set():
                say("in body")
                stays.clear()
                leave.wait()
                say("out of body")
            tick.cursor = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"n": tick.cursor})

    def grows():
        before = polls
        until(lambda: polls >= before + 3)

    declare()
    runner = cloaca.DefaultRunner(sys.argv[1])
    say("ready")
    for line in sys.stdin:
        word = line.strip()
        if word == "polls":
            grows()
        elif word == "stay":
            stays.set()
            until(lambda: not stays.is_set())
        elif word == "leave":
            leave.set()
        elif word == "gone":
            cloaca.unregister_trigger("watch")
        elif word == "cron":
            cloaca.unregister_trigger("watch")
            @cloaca.trigger(workflow="w", name="watch", cron="0 0 1 1 *")
            def yearly(): ...
        elif word == "declare":
            declare()
        elif word == "none":
            before = polls
            time.sleep(0.3)
            assert polls == before, (polls, before)
        elif word == "end":
            break
        say("done", word)
    runner.shutdown()
"""


FIRED = """
    SELECT count(*), max(CAST(schedules.cursor AS INTEGER))
    FROM runs JOIN schedules ON schedules.row = runs.schedule
"""


def end(*programs: Program) -> None:
    for program in programs:
        program.tell("end")
        program.end()


def told(program: Program, word: str) -> None:
    program.tell(word)
    program.until(f"done {word}")


ANOTHER_GOES_ON = {
    "gone": ["other none", "one gone", "other polls", "one none"],
    # The newest version is in force, and the older stands by until nobody declares it.
    "a cron of that name": ["one cron", "one none", "other none", "one gone", "other polls", "one none"],
}


@pytest.mark.parametrize("steps", ANOTHER_GOES_ON.values(), ids=list(ANOTHER_GOES_ON))
def test_what_one_process_declares_no_more_another_goes_on_with(tmp_path: Path, steps: list[str]) -> None:
    file = tmp_path / "runs.db"
    with Program(WATCHES, file) as one:
        one.until("ready")
        told(one, "polls")
        with Program(WATCHES, file) as other:
            other.until("ready")
            programs = {"one": one, "other": other}
            for step in steps:
                who, word = step.split()
                told(programs[who], word)
            end(one, other)
    [[[fired, last]]] = outside(file, FIRED)
    assert fired == last, "each cursor is one run"


def test_who_comes_later_takes_over_what_was_withdrawn(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with Program(WATCHES, file) as one:
        one.until("ready")
        told(one, "polls")
        told(one, "gone")
        with Program(WATCHES, file) as other:
            other.until("ready")
            told(other, "polls")
            told(one, "declare")
            told(one, "none")
            other.kill()
        told(one, "polls")
        end(one)


def test_it_is_not_polled_elsewhere_before_its_body_here_is_over(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    with Program(WATCHES, file) as one:
        one.until("ready")
        told(one, "polls")
        with Program(WATCHES, file) as other:
            other.until("ready")
            told(one, "stay")
            told(one, "gone")
            told(other, "none")
            told(one, "leave")
            told(other, "polls")
            end(one, other)
    [[[fired, last]]] = outside(file, FIRED)
    assert fired == last, "the poll that was in flight counts too"
