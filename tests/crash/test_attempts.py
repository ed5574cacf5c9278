"""SIGKILL between the attempts of one task, and amidst them: what the next attempt finds."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from lives import SECONDS, Script

from cloaca import reading
from cloaca.reading.why import of_run

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
"""Draws the moments of kills."""

LATER = """
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def patient(context, handle):
            say("begins", handle.attempt, time.time())
            if handle.attempt == 1:
                raise cloaca.RetryAfter("10s")

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: all_final(runner) or "own wish" in runner.why_run(runner.list_runs()[0]["id"]))
        # What is told of it may be ahead of the record, and only the record outlives a kill.
        until(lambda: all_final(runner) or runner.query("SELECT 1 FROM tasks WHERE not_before IS NOT NULL"))
        say("waits")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["status"])
"""


def test_a_wait_that_a_task_wished_for_is_as_long_through_kills(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Script(LATER, path) as first:
        began = float(next(first.lines).split()[-1])
        first.says("waits")
        first.process.kill()
    with Script(LATER, path) as second:
        second.says("waits")
        second.process.kill()
    with Script(LATER, path) as last:
        lines = last.rest()
        # It says that it waits, unless the machine was so slow that this is over.
        word, attempt, again = next(line for line in lines if line != "waits").split()
        assert (word, attempt) == ("begins", "2"), "no attempt had begun when it was killed"
        assert float(again) - began >= 10.0
        assert lines[-1] == "Completed"


CHECKPOINT = """
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def pages(context, handle):
            say("begins", handle.attempt, handle.checkpointed)
            for page in range(handle.checkpointed or 0, 40):
                handle.checkpoint(page + 1)
                say("kept", page + 1)
            context["pages"] = handle.checkpointed

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["status"], runner.query("SELECT final_context AS left FROM runs")[0]["left"])
"""


def test_a_checkpoint_that_was_kept_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    kept = 0
    for life in range(1, 5):
        with Script(CHECKPOINT, path) as killed:
            word, attempt, found = next(killed.lines).split()
            assert (word, attempt) == ("begins", str(life))
            # It may have been committed before the kill, and not told.
            assert (0 if found == "None" else int(found)) in (kept, kept + 1)
            for _ in range(7):
                kept = int(next(killed.lines).split()[1])
            killed.process.kill()
            kept = max([kept, *(int(line.split()[1]) for line in killed.lines if line.startswith("kept "))])
    with Script(CHECKPOINT, path) as last:
        assert next(last.lines).split()[:2] == ["begins", "5"]
        assert last.rest()[-1] == 'Completed {"pages":40}'


PATIENT = """
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=0)
        def wait(context, handle):
            say("waits", handle.attempt)
            handle.defer_until(lambda: os.path.exists(sys.argv[2]), "20ms")

    config = cloaca.DefaultRunnerConfig(interruptions_max=1)
    with cloaca.DefaultRunner.with_config(sys.argv[1], config) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["status"], run["error_message"])
"""


def test_a_task_that_waits_is_blamed_for_no_death_of_its_process(tmp_path: Path) -> None:
    """More deaths than a body may see: from outside it can be told that it waits."""
    path, sign = tmp_path / "runs.db", tmp_path / "sign"
    for attempt in (1, 2):
        with Script(PATIENT, path, sign) as killed:
            killed.says(f"waits {attempt}")
            told, deadline = "", time.monotonic() + SECONDS
            with reading.Reader(path) as reader:
                while f"task 'wait' waits in attempt {attempt} since " not in told:
                    assert time.monotonic() < deadline, told
                    time.sleep(0.05)
                    (run,) = reading.runs(reader)
                    told = of_run(reader, reading.run(reader, run.id))
            killed.process.kill()
    with Script(PATIENT, path, sign) as last:
        last.says("waits 3")
        sign.touch()
        assert last.rest() == ["Completed None"]
    with reading.Reader(path) as reader:
        (run,) = reading.runs(reader)
        (task,) = reading.run(reader, run.id).tasks
    assert [(tried.outcome, tried.error) for tried in task.tries] == [
        ("Interrupted", "its process died while it waited without a slot")
    ] * 2 + [("Completed", None)]


ONCE = """
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=int(sys.argv[2]), on_interrupt="fail", retry_delay_ms=0)
        def charge(context, handle):
            say("charges", handle.attempt)
            if handle.attempt < int(sys.argv[2]):
                raise ValueError("declined")
            threading.Event().wait()

        @cloaca.task(dependencies=[charge], trigger_rules=cloaca.task_failed("charge"))
        def look(context):
            say("looks")

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["status"], run["error_message"])
"""


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_task_that_fails_when_it_is_cut_off_is_called_at_most_once(tmp_path: Path, attempts: int) -> None:
    path = tmp_path / "runs.db"
    with Script(ONCE, path, attempts) as killed:
        for attempt in range(1, attempts + 1):
            killed.says(f"charges {attempt}")
        killed.process.kill()
    with Script(ONCE, path, attempts) as last:
        assert last.rest() == [
            "looks",
            "Failed task 'charge' failed: an attempt of it was cut off, and on_interrupt is \"fail\"",
        ]


HESITANT = """
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1, on_interrupt="fail")
        def charge(context, handle):
            say("charges")

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["status"])
"""


def test_whenever_it_is_killed_the_body_is_called_at_most_once(tmp_path: Path) -> None:
    """Kills at moments around the beginning; what had no record of that is claimed and runs."""
    chance = random.Random(SEED)
    for kill in range(20):
        path = tmp_path / f"{kill}.db"
        with Script(HESITANT, path) as killed:
            # Either nothing was begun yet, or it has been, or it is over.
            time.sleep(chance.uniform(0.05, 0.4))
            killed.process.kill()
            calls = [line for line in killed.lines if line == "charges"]
        with Script(HESITANT, path) as last:
            lines = last.rest()
        calls += [line for line in lines if line == "charges"]
        assert len(calls) <= 1, (SEED, kill)
        assert lines[-1] in ("Completed", "Failed"), (SEED, kill)
        assert calls or lines[-1] == "Failed", (SEED, kill)


POISON = """
    with cloaca.WorkflowBuilder("poison"):

        @cloaca.task(retry_attempts=1)
        def poison(context):
            say("dies")
            os._exit(9)

    config = cloaca.DefaultRunnerConfig(interruptions_max=2)
    with cloaca.DefaultRunner.with_config(sys.argv[1], config) as runner:
        if not runner.list_runs():
            runner.submit("poison")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["error_message"])
"""


def test_after_how_many_deaths_a_task_is_given_up_is_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    for _ in range(3):
        with Script(POISON, path) as life:
            life.says("dies")
            assert life.process.wait(60) == 9
    with Script(POISON, path) as last:
        assert last.rest() == ["task 'poison' failed: its process died during each of 3 attempts"]
