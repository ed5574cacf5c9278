"""A database that refuses some of what a runner writes, for a while: a trigger of somebody else's in it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from flow import WAIT, Gate, declare, nothing
from program import eventually

import cloaca

REFUSED = "no entry today"


class Guard:
    """Somebody else's trigger in the database."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on(self, what: str, when: str = "true") -> None:
        self._run(
            f"CREATE TRIGGER guard BEFORE {what} WHEN {when} BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
        )

    def off(self) -> None:
        self._run("DROP TRIGGER IF EXISTS guard")

    def _run(self, sql: str) -> None:
        # A second library in the process of a runner would take its locks away.
        source = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=20).execute(sys.argv[2])"
        subprocess.run([sys.executable, "-c", source, self.path, sql], check=True)


def moments(runner: cloaca.DefaultRunner) -> list[int]:
    """Those of crons that have a run, in seconds."""
    return [
        row["moment"]
        for row in runner.query("SELECT scheduled_at / 1000000 AS moment FROM runs ORDER BY scheduled_at")
    ]


@pytest.fixture
def guard(tmp_path: Path, request: pytest.FixtureRequest) -> Guard:
    if request.config.getoption("--store") != "sqlite":
        pytest.skip("its triggers are made in a file")
    return Guard(tmp_path / "runs.db")


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if REFUSED in line.getMessage()]


def test_a_run_whose_progress_is_refused_goes_on_once_it_is_taken(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    gate = Gate()

    def first(context: cloaca.Context) -> None:
        calls.append("first")
        gate(context)

    with cloaca.WorkflowBuilder("w"):
        one = cloaca.task(id="one")(first)
        cloaca.task(id="two", dependencies=[one])(lambda context: calls.append("two"))
    declare("other", nothing)
    with cloaca.DefaultRunner(guard.path) as runner:
        run = runner.submit("w")
        assert gate.entered.wait(WAIT)
        assert eventually(lambda: run.status == "Running")
        guard.on("UPDATE ON tasks", "NEW.status <> 'Running'")
        gate.open.set()
        assert eventually(lambda: REFUSED in run.why())
        assert "cannot go on, because the store refuses what became of it" in run.why()
        [reason] = runner.health()["reasons"]
        assert reason["code"] == "store"
        assert REFUSED in reason["text"]
        assert "1 run" in reason["text"]
        assert run.status == "Running"
        guard.off()
        assert run.result(WAIT).status == "Completed"
        assert calls == ["first", "two"]
        assert runner.execute("other").status == "Completed"
        assert eventually(lambda: runner.health()["ok"])
    assert len(refusals(caplog)) == 1, "told once, and not with each attempt"


def test_runs_that_are_not_refused_go_on_beside_one_that_is(guard: Guard) -> None:
    gate = Gate()
    declare("held", gate)
    declare("other", nothing)
    with cloaca.DefaultRunner(guard.path) as runner:
        run = runner.submit("held")
        assert gate.entered.wait(WAIT)
        guard.on("UPDATE ON runs", "NEW.workflow = 'held'")
        gate.open.set()
        assert eventually(lambda: REFUSED in run.why())
        assert all(runner.execute("other").status == "Completed" for _ in range(20))
        assert REFUSED in run.why()
        guard.off()
        assert run.result(WAIT).status == "Completed"


def test_a_shutdown_goes_on_asking_for_as_long_as_it_may_last(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    calls: list[int] = []

    def once(context: cloaca.Context) -> None:
        calls.append(len(calls))
        gate(context)

    declare("w", once)
    runner = cloaca.DefaultRunner(guard.path)
    run = runner.submit("w")
    assert gate.entered.wait(WAIT)
    guard.on("UPDATE ON runs")
    gate.open.set()
    assert eventually(lambda: REFUSED in run.why())
    ends = threading.Thread(target=runner.shutdown, args=(WAIT,))
    ends.start()
    # It has been asked again at least once since.
    assert not eventually(lambda: not ends.is_alive(), 1.0)
    guard.off()
    ends.join(WAIT)
    with cloaca.DefaultRunner(guard.path, work=False) as client:
        assert client.run(run.id).status == "Completed"
    assert calls == [0]


def test_a_run_that_is_refused_to_the_end_is_the_next_runners(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    declare("held", gate)
    with cloaca.DefaultRunner(guard.path, shutdown_seconds=0.3) as runner:
        run = runner.submit("held")
        assert gate.entered.wait(WAIT)
        guard.on("UPDATE ON runs", "NEW.status = 'Completed'")
        gate.open.set()
        assert eventually(lambda: REFUSED in run.why())
        caplog.set_level("INFO")
    assert "has taken what it refused" not in caplog.text
    assert f"the progress of run {run.id} cannot be kept; it is left to the next runner" in caplog.text
    assert "has stopped; it leaves 1 run unfinished" in caplog.text
    guard.off()
    with cloaca.DefaultRunner(guard.path) as runner:
        assert runner.run(run.id).result(WAIT).status == "Completed"


def test_a_checkpoint_that_is_refused_is_waited_for(guard: Guard) -> None:
    kept: list[object] = []
    gate = Gate()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        gate(context)
        kept.append(handle.checkpoint({"at": 1}))

    declare("w", body)
    with cloaca.DefaultRunner(guard.path) as runner:
        run = runner.submit("w")
        assert gate.entered.wait(WAIT)
        guard.on("UPDATE ON tasks")
        gate.open.set()
        assert eventually(lambda: REFUSED in run.why())
        assert not kept
        guard.off()
        assert run.result(WAIT).status == "Completed"
        assert len(kept) == 1


@pytest.mark.parametrize("has_function", [True, False])
def test_a_crons_moment_that_is_refused_is_due_still(
    has_function: bool, guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    declare("w", nothing)
    called: list[str] = []
    if has_function:

        @cloaca.trigger(name="c", workflow="w", cron="* * * * * *")
        def c(tick: cloaca.Tick) -> dict[str, str]:
            called.append(str(tick.scheduled_at))
            return {"moment": called[-1]}

    with cloaca.DefaultRunner(guard.path) as runner:
        if not has_function:
            runner.register_cron_workflow("w", "* * * * * *", "UTC")
        assert eventually(lambda: moments(runner))
        guard.on("INSERT ON runs")
        many = len(moments(runner))
        assert eventually(lambda: bool(refusals(caplog)))
        name = "c" if has_function else runner.list_cron_schedules()[0]["id"]
        assert eventually(lambda: REFUSED in runner.why(name)), runner.why(name)
        assert "the store refuses what became of its moments, which is tried again until" in runner.why(name)
        guard.off()
        assert eventually(lambda: len(moments(runner)) >= many + 2)
        assert eventually(lambda: "runs next at" in runner.why(name))
        ran = moments(runner)
    assert ran == [*range(ran[0], ran[-1] + 1)], "none is left out"
    assert len(called) == len(set(called)), "the function was called once for each"


def test_a_poll_whose_fire_is_refused_is_told_of_once_a_while(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    declare("w", nothing)
    polled = threading.Semaphore(0)

    @cloaca.trigger(name="t", workflow="w", poll_interval="10ms", allow_concurrent=True)
    def t() -> cloaca.TriggerResult:
        polled.release()
        return cloaca.TriggerResult.fire({})

    with cloaca.DefaultRunner(guard.path) as runner:
        assert eventually(runner.list_runs)
        guard.on("INSERT ON runs")
        assert eventually(lambda: refusals(caplog))
        assert all(polled.acquire(timeout=WAIT) for _ in range(20))
        guard.off()
        many = len(runner.list_runs(limit=1000))
        assert eventually(lambda: len(runner.list_runs(limit=1000)) > many), "it is polled on"
    assert len(refusals(caplog)) == 1
