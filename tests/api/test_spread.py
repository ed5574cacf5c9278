"""Triggers spread over the runners of a store, in processes of their own: each is polled by one, goes on
where it was when hands change, and is polled by somebody whoever dies or leaves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from program import eventually

import cloaca

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no signals")

TRIGGERS = 24
NAMES = [f"t{number:02}" for number in range(TRIGGERS)]
WORD = (1 << 64) - 1


def owner_of(name: str, runners: list[int]) -> int:
    """Whose a trigger is: of the numbers that all draw for it, who has the highest."""
    known = 0xCBF29CE484222325
    for byte in name.encode():
        known = (known ^ byte) * 0x100000001B3 & WORD

    def draw(number: int) -> int:
        mixed = known ^ (number * 0x9E3779B97F4A7C15 & WORD)
        for _ in range(2):
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & WORD
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & WORD
            mixed ^= mixed >> 31
        return mixed

    return max(runners, key=draw)


# Each poll says who polls what, from which cursor on, and when its body ends: two at once would show, and so
# would a cursor that goes back.
POLLS = f"""
import os, sys, time, cloaca
url, word = sys.argv[1:3]
chosen = sys.argv[3].split(",") if len(sys.argv) > 3 else None
witness = os.open(word, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context):
        pass
def declare(name):
    @cloaca.trigger(workflow="w", poll_interval="100ms", name=name)
    def poll(tick):
        at = tick.cursor or 0
        os.write(witness, f"{{os.getpid()}} {{name}} {{at}} begins\\n".encode())
        time.sleep(0.001)
        os.write(witness, f"{{os.getpid()}} {{name}} {{at}} ends\\n".encode())
        if "QUIET" not in os.environ:
            tick.cursor = at + 1
        return cloaca.TriggerResult.skip()
for number in range({TRIGGERS}):
    declare(f"t{{number:02}}")
runner = cloaca.DefaultRunner(url, triggers=chosen)
print("ready", flush=True)
sys.stdin.readline()
runner.shutdown()
"""


class Stage:
    """Programs that poll the same triggers of one store."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.url, self.word = folder / "runs.db", folder / "word"
        self.word.touch()
        self._stack = stack
        self.client = stack.enter_context(cloaca.DefaultRunner(self.url, work=False))

    def start(self, *chosen: str) -> subprocess.Popen[str]:
        extra = [",".join(chosen)] if chosen else []
        return self.start_other(POLLS, str(self.word), *extra)

    def start_other(self, source: str, *arguments: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, "-c", source, str(self.url), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(end, program)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        return program

    def stop(self, program: subprocess.Popen[str]) -> None:
        """Stops a program where it is not in the middle of a write: nobody else could write then."""
        command = [sys.executable, "-m", "cloaca", "enable", NAMES[0], "--database", str(self.url)]
        while True:
            program.send_signal(signal.SIGSTOP)
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=10)
                return
            except subprocess.TimeoutExpired:
                program.send_signal(signal.SIGCONT)

    def shares(self) -> dict[int, list[str]]:
        """Which process polls which."""
        pids = {row["number"]: row["pid"] for row in self.client.list_runners() if row["state"] == "living"}
        shares: dict[int, list[str]] = {}
        for row in self.client.list_trigger_schedules(limit=100):
            pid = pids.get(row["polled_by"]) if row["polled_by"] is not None else None
            shares.setdefault(pid or 0, []).append(row["trigger_name"])
        return shares

    def numbers(self, *programs: subprocess.Popen[str]) -> list[int]:
        numbers = {row["pid"]: row["number"] for row in self.client.list_runners() if row["works"]}
        return [numbers[program.pid] for program in programs]

    def are_polled_by(self, *programs: subprocess.Popen[str]) -> Callable[[], bool]:
        return lambda: self.shares().keys() == {program.pid for program in programs}

    def are_spread_over(self, *programs: subprocess.Popen[str]) -> Callable[[], bool]:
        """Whether each is polled by whose it is by right."""

        def holds() -> bool:
            numbers = self.numbers(*programs)
            rightful: dict[int, list[str]] = {}
            for name in NAMES:
                owner = numbers.index(owner_of(name, numbers))
                rightful.setdefault(programs[owner].pid, []).append(name)
            return self.shares() == rightful

        return holds

    def lines(self) -> list[list[str]]:
        # What a killed process has begun to write is no line yet.
        whole = self.word.read_text().rpartition("\n")[0]
        return [line.split(" ") for line in whole.splitlines()]

    def polled_since(self, mark: int) -> set[str]:
        return {name for _, name, _, what in self.lines()[mark:] if what == "ends"}

    def check(self, *killed: int) -> None:
        """Of a trigger one poll ends before the next begins, which begins where the last one left it."""
        at_work: dict[str, tuple[str, str]] = {}
        cursors: dict[str, int] = {}
        for pid, name, at, what in self.lines():
            if what == "ends":
                assert at_work.pop(name) == (pid, at)
                continue
            before = at_work.get(name)
            assert before is None or int(before[0]) in killed, f"{name} is polled by {pid} and {before}"
            assert int(at) >= cursors.get(name, 0), f"{name} goes back to {at}"
            at_work[name], cursors[name] = (pid, at), int(at)


def end(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.wait()
    for pipe in (program.stdin, program.stdout):
        assert pipe is not None
        pipe.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


def test_triggers_are_spread_over_all_that_declare_them_and_polled_by_one_at_a_time(stage: Stage) -> None:
    first = stage.start()
    assert eventually(stage.are_polled_by(first))
    second = stage.start()
    third = stage.start()
    assert eventually(stage.are_spread_over(first, second, third))
    shares = {pid: len(names) for pid, names in stage.shares().items()}
    assert {row["pid"]: row["polls"] for row in stage.client.list_runners() if row["works"]} == shares
    mark = len(stage.lines())
    assert eventually(lambda: len(stage.polled_since(mark)) == TRIGGERS)
    second.kill()
    second.wait()
    assert eventually(stage.are_spread_over(first, third))
    mark = len(stage.lines())
    assert eventually(lambda: len(stage.polled_since(mark)) == TRIGGERS)
    assert third.stdin is not None
    third.stdin.write("\n")
    third.stdin.flush()
    assert third.wait(30) == 0
    assert eventually(stage.are_polled_by(first))
    mark = len(stage.lines())
    assert eventually(lambda: len(stage.polled_since(mark)) == TRIGGERS)
    stage.check(second.pid)


# Half of them are told of ends of runs, and all fail.
FAILS = f"""
import os, sys, cloaca
url, word = sys.argv[1:3]
witness = os.open(word, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for name in ("w", "ingest"):
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only")(lambda context: None)
def declare(name, **how):
    @cloaca.trigger(workflow="w", name=name, on_error=cloaca.Backoff("30m"), **how)
    def poll(asked):
        os.write(witness, f"{{os.getpid()}} {{name}} 0 ends\\n".encode())
        raise ConnectionError("no route")
for number in range({TRIGGERS}):
    how = {{"poll_interval": "100ms"}} if number % 2 else {{"on_run": "ingest"}}
    declare(f"t{{number:02}}", **how)
runner = cloaca.DefaultRunner(url)
print("ready", flush=True)
sys.stdin.readline()
runner.shutdown()
"""


def test_what_failed_goes_on_counting_and_waiting_where_hands_change(stage: Stage) -> None:
    def failures() -> set[int]:
        return {row["failures"] for row in stage.client.query("SELECT failures FROM schedules")}

    first = stage.start_other(FAILS, str(stage.word))
    stage.client.submit("ingest")
    assert eventually(lambda: failures() == {1})
    second = stage.start_other(FAILS, str(stage.word))
    assert eventually(stage.are_spread_over(first, second))
    for name in NAMES:
        stage.client.poll_soon(name)
    assert eventually(lambda: len(stage.lines()) >= 2 * TRIGGERS and failures() == {2}), stage.client.query(
        "SELECT name, owner, failures FROM schedules"
    )
    assert len(stage.lines()) == 2 * TRIGGERS
    second.kill()
    second.wait()
    assert eventually(stage.are_polled_by(first))
    for name in NAMES:
        stage.client.poll_soon(name)
    assert eventually(lambda: len(stage.lines()) >= 3 * TRIGGERS and failures() == {3})
    assert len(stage.lines()) == 3 * TRIGGERS


def test_who_comes_and_goes_at_once_moves_nothing(stage: Stage) -> None:
    first = stage.start()
    assert eventually(stage.are_polled_by(first))

    def hands() -> list[dict[str, object]]:
        return stage.client.query("SELECT name, owner, taken_at FROM schedules ORDER BY name")

    before = hands()
    for _ in range(3):
        visitor = stage.start()
        assert visitor.stdin is not None
        visitor.stdin.close()
        assert visitor.wait(30) == 0
        (row,) = (row for row in stage.client.list_runners(left=True) if row["pid"] == visitor.pid)
        assert row["left_at"] is not None
        lived = datetime.fromisoformat(row["left_at"]) - datetime.fromisoformat(row["joined_at"])
        if lived > timedelta(seconds=0.5):
            return  # the machine is so slow that it has come to stay
    assert hands() == before


def test_a_runner_polls_only_what_it_is_told_to(stage: Stage) -> None:
    some = ("t03", "t07", "t11", "t19")
    few = stage.start(*some)
    assert eventually(lambda: stage.shares().keys() == {few.pid})
    every = stage.start()
    rightful = {name for name in some if owner_of(name, stage.numbers(few, every)) == stage.numbers(few)[0]}
    assert eventually(lambda: set(stage.shares().get(few.pid, [])) == rightful)
    assert eventually(lambda: set(stage.shares()[every.pid]) == set(NAMES) - rightful)
    stage.check()


def test_a_stopped_runner_keeps_its_triggers_until_it_goes_on_or_dies(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIET", "1")
    first = stage.start()
    assert eventually(stage.are_polled_by(first))
    stage.stop(first)
    second = stage.start()
    runners = lambda: {row["pid"] for row in stage.client.list_runners() if row["works"]}  # noqa: E731
    assert eventually(lambda: runners() == {first.pid, second.pid})
    assert stage.are_polled_by(first)()
    first.send_signal(signal.SIGCONT)
    assert eventually(stage.are_spread_over(first, second))
    stage.stop(second)
    held = set(stage.shares()[second.pid])
    mark = len(stage.lines())
    theirs = set(stage.shares()[first.pid])
    assert eventually(lambda: theirs <= stage.polled_since(mark))
    assert set(stage.shares()[second.pid]) == held
    second.kill()
    second.wait()
    assert eventually(stage.are_polled_by(first))
    assert eventually(lambda: held <= stage.polled_since(mark))
    stage.check(second.pid)


CRONS = """
import os, sys, cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context):
        context["by"] = os.getpid()
runner = cloaca.DefaultRunner(sys.argv[1])
for number in range(6):
    runner.register_cron_workflow("w", "* * * * * *", "UTC", name=f"c{number}")
print("ready", flush=True)
sys.stdin.readline()
"""
LAST = """
    SELECT final_context ->> 'by' AS by FROM runs
    WHERE schedule = ? AND status = 'Completed' ORDER BY scheduled_at DESC LIMIT 3
"""


def test_each_moment_of_a_cron_is_run_once_by_whose_it_is(stage: Stage) -> None:
    programs = [stage.start_other(CRONS) for _ in range(2)]
    crons = stage.client.query("SELECT name, row FROM schedules WHERE kind = 'cron'")
    rows = {row["name"]: row["row"] for row in crons}
    assert len(rows) == 6
    numbers = stage.numbers(*programs)
    rightful = {name: programs[numbers.index(owner_of(f"cron {rows[name]}", numbers))].pid for name in rows}
    assert len(set(rightful.values())) == 2

    def by() -> dict[str, list[int]]:
        """Who has run the last three moments of each."""
        found = {name: stage.client.query(LAST, [row]) for name, row in rows.items()}
        return {name: [run["by"] for run in runs] for name, runs in found.items()}

    # At first each may run what it knows of, before it knows of the other.
    assert eventually(lambda: by() == {name: [pid] * 3 for name, pid in rightful.items()})
    heir = programs[1]
    programs[0].kill()
    programs[0].wait()
    assert eventually(lambda: by() == {name: [heir.pid] * 3 for name in rows})
    moments = stage.client.query(
        "SELECT count(*) AS runs, count(DISTINCT schedule || '/' || scheduled_at) AS moments FROM runs"
    )
    assert moments[0]["runs"] == moments[0]["moments"]
