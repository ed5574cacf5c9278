"""The wall clock goes forward and back, by a minute and by years, under a living runner and between two."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attack import PRELUDE, Program, outside, run

import cloaca

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the clock is shifted by a library of Linux"
)

MINUTE, DAY, YEARS = 60, 86_400, 10 * 365 * 86_400


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    built = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, source], check=True)
    return built


class Clock:
    """A wall clock for programs, which can be set while they run."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.env = {"LD_PRELOAD": os.fspath(library), "CLOCK_SHIFT": os.fspath(file)}
        self.set(0)

    def set(self, seconds: int) -> None:
        # In place: who runs has it mapped.
        file = os.open(self._file, os.O_RDWR | os.O_CREAT)
        os.write(file, seconds.to_bytes(8, "little", signed=True))
        os.close(file)


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> Clock:
    return Clock(library, tmp_path / "shift")


PROGRAM = (
    PRELUDE
    + """
    def shift(seconds):
        file = os.open(os.environ["CLOCK_SHIFT"], os.O_RDWR)
        os.write(file, int(seconds).to_bytes(8, "little", signed=True))
        os.close(file)

    polls, moments, fired, seen = [0], [], [0], []
    with cloaca.WorkflowBuilder("tick"):
        @cloaca.task(retry_attempts=1)
        def noted(context):
            moments.append(context["scheduled_time"])
    with cloaca.WorkflowBuilder("again"):
        @cloaca.task(retry_attempts=2, retry_delay_ms=300)
        def twice(context, handle):
            if handle.attempt == 1:
                raise ValueError("first")
            seen.append(context["n"])

    @cloaca.trigger(workflow="again", poll_interval="20ms")
    def often():
        polls[0] += 1
        if polls[0] % 10 == 0:
            fired[0] += 1
            return cloaca.TriggerResult.fire({"n": fired[0]})
        return False

    cloaca.trigger(workflow="tick", name="each", cron="* * * * * *", catchup="none")(lambda: None)
"""
)

JUMPS = """
    with cloaca.DefaultRunner(sys.argv[1], retention="90d") as runner:
        for seconds in [0, *map(int, sys.argv[2:])]:
            shift(seconds)
            at, before = polls[0], len(moments)
            until(lambda: polls[0] >= at + 20 and len(moments) >= before + 2)
            delayed = runner.submit("again", {"n": -1}, delay="200ms")
            assert delayed.result(30).status == "Completed"
            say("at", seconds)
        runner.set_trigger_enabled("often", False)
        until(lambda: {n for n in seen if n > 0} >= set(range(1, fired[0] + 1)))
        assert len(seen) == len(set(seen) - {-1}) + seen.count(-1), "one ran twice"
        assert len(moments) == len(set(moments)), "a moment ran twice"
        say("done", len(moments), fired[0])
"""


@pytest.mark.parametrize(
    "jumps",
    [(MINUTE, 0), (DAY, 0), (-DAY, 0), (YEARS, 0), (-YEARS, YEARS, 0), (DAY - int(time.time()), 0)],
    ids=["minute", "day", "day back", "years", "years both ways", "1970"],
)
def test_polls_crons_retries_and_delays_go_on_whatever_the_clock_does(
    tmp_path: Path, clock: Clock, jumps: tuple[int, ...]
) -> None:
    path = tmp_path / "runs.db"
    lines = run(JUMPS, path, *jumps, env=clock.env, seconds=120, prelude=PROGRAM)
    assert lines[-1].startswith("done"), lines
    [[kept]] = outside(path, "SELECT count(*) FROM runs WHERE completed_at IS NULL")
    assert kept == [0]


STARTS = """
    with cloaca.DefaultRunner(sys.argv[1], retention="90d") as runner:
        at, before = polls[0], len(moments)
        until(lambda: polls[0] >= at + 20 and len(moments) >= before + 2)
        kept = runner.submit_many("again", [{"n": -n} for n in range(1, 21)])
        assert all(run.result(30).status == "Completed" for run in kept)
        say("runs", runner.query("SELECT count(*) AS n FROM runs")[0]["n"])
        say("last", moments[-1])
"""


@pytest.mark.parametrize("ahead", [DAY, YEARS], ids=["day", "years"])
def test_a_start_while_the_clock_is_ahead_neither_deletes_history_nor_silences_what_comes_after(
    tmp_path: Path, clock: Clock, ahead: int
) -> None:
    path, counted, last = tmp_path / "runs.db", [], []
    for shift in (0, ahead, 0):
        clock.set(shift)
        lines = run(STARTS, path, env=clock.env, seconds=120, prelude=PROGRAM)
        counted.append(int(lines[-2].removeprefix("runs ")))
        last.append(datetime.fromisoformat(lines[-1].removeprefix("last ")))
    assert counted == sorted(set(counted)), "what ran before is kept"
    assert last[1] - last[0] > timedelta(seconds=ahead - MINUTE)
    assert last[2] < last[0] + timedelta(minutes=5), "crons run by the clock as it is now"


HOUR = 3600

BESIDE = """
    runs = []
    with cloaca.WorkflowBuilder("quick"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    with cloaca.WorkflowBuilder("late"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    with cloaca.WorkflowBuilder("counted", rate_limit=cloaca.RateLimit(5, per="1h")):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)

    with cloaca.WorkflowBuilder("paced", throttle=cloaca.Throttle(1, per="1h")):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)

    def counted(runner):
        with contextlib.suppress(cloaca.Dropped):
            for many in range(20):
                runner.submit("counted")
        return many
"""

#: Looks for what is due in a store beside another process, and asks for something itself.
LOOKS = """
    import contextlib
    from textwrap import dedent
    exec(dedent(os.environ["BESIDE"]))
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        assert runner.submit("quick", delay="20ms").result(30).status == "Completed"
        say("late", runner.submit("late", delay="1h").id)
        say("counted", counted(runner))
        say("paced", runner.submit("paced").id)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("behind", [HOUR, -HOUR], ids=["behind", "ahead"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_processes_whose_clocks_are_an_hour_apart_wait_and_limit_as_one(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, kind: str, behind: int
) -> None:
    path: Path | str = request.getfixturevalue("postgres_url") if kind == "postgres" else tmp_path / "a.db"
    clock.set(-behind)
    scope: dict[str, Any] = {"cloaca": cloaca, "contextlib": contextlib}
    exec(textwrap.dedent(BESIDE), scope)
    with cloaca.DefaultRunner(path) as runner:
        half = runner.submit("late", delay="30m")
        due = (runner.get_run(half.id) or {})["due_at"]
        assert scope["counted"](runner) == 5
        assert runner.submit("paced").result(30).status == "Completed"
        with Program(LOOKS, path, env={**clock.env, "BESIDE": BESIDE}) as other:
            late = other.line().removeprefix("late ")
            counted = other.line()
            paced = other.line().removeprefix("paced ")
            assert runner.submit("quick", delay="20ms").result(30).status == "Completed"
            rows = [runner.get_run(run) or {} for run in (half.id, late, paced)]
        if kind == "postgres":
            # The server's clock decides.
            assert counted == "counted 0"
            assert rows[2]["status"] == "Pending", "nothing of it starts for an hour"
            ahead = datetime.fromisoformat(rows[1]["due_at"]) - datetime.fromisoformat(rows[1]["created_at"])
            assert ahead == timedelta(hours=1)
            assert abs(datetime.fromisoformat(rows[1]["created_at"]).timestamp() - time.time()) < 10 * MINUTE
        if kind == "postgres" or behind > 0:
            assert (rows[0]["status"], rows[0]["due_at"]) == ("Pending", due), "it waits on"
        assert kind == "sqlite" or rows[1]["status"] == "Pending"
