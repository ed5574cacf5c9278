"""A runner that is opened paused does nothing of itself: a copy can be looked at, and put right first."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from program import SECONDS, Dated, eventually

import cloaca
from cloaca.check import microseconds

TABLES = ("schedules", "runs", "tasks", "run_keys", "ticks")
START = "2026-03-01T00:00:00Z"


class Paused(Dated):
    """A runner over a file, on a clock that moves only when told, that does not begin."""

    def __init__(self, url: str, start: str) -> None:
        self._start(url, cloaca.DefaultRunnerConfig(), None, microseconds(start), paused=True)


class Program:
    """A trigger, a cron and a workflow; what they did."""

    def __init__(self) -> None:
        self.polls = 0
        self.ran: list[str] = []
        self.begun, self.goes_on = threading.Event(), threading.Event()
        with cloaca.WorkflowBuilder("w"):

            @cloaca.task(id="only")
            def only(context: cloaca.Context) -> None:
                self.begun.set()
                if context.get("waits"):
                    self.goes_on.wait(SECONDS)
                self.ran.append(context.get("from", "cron"))

        def inbox() -> bool:
            self.polls += 1
            return False

        cloaca.trigger(workflow="w", poll_interval="1m")(inbox)
        cloaca.trigger(name="nightly", workflow="w", cron="0 3 * * *")(lambda: None)


def restored(folder: Path, program: Program) -> str:
    """A copy of the store of a program that is at work: of a runner that is gone, with a run in hand."""
    with Dated(str(folder / "live.db"), START) as runner:
        runner.advance("1m")
        runner.register_cron_workflow("w", "0 4 * * *")
        run = runner.submit("w", {"from": "hand", "waits": True})
        assert program.begun.wait(SECONDS)
        runner.export(folder / "copy.db")
        program.goes_on.set()
        assert run.result(timeout=SECONDS).status == "Completed"
    program.polls, program.ran = 0, []
    return str(folder / "copy.db")


def rows(runner: cloaca.DefaultRunner) -> dict[str, list[dict[str, Any]]]:
    return {table: runner.query(f"SELECT * FROM {table}") for table in TABLES}


def test_a_paused_runner_changes_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    program = Program()
    copy = restored(tmp_path, program)
    with Paused(copy, "2026-03-02T00:00:00Z") as runner:
        before = rows(runner)
        runner.advance("12h")
        assert rows(runner) == before
        assert (program.polls, program.ran) == (0, [])
        assert [run["completed_at"] for run in runner.list_runs()] == [None]
        assert runner.stats()["polls"] == 0
    with Paused(copy, "2026-03-02T12:00:00Z") as runner:
        assert rows(runner) == before, "nor does its end"
        runner.resume()
        assert eventually(lambda: "hand" in program.ran), "the run that the dead runner had"
        runner.advance("3h")
        assert program.polls > 0
        assert program.ran.count("cron") > 0
        runner.resume()
        assert rows(runner) != before


def test_what_is_switched_off_while_paused_stays_off(tmp_path: Path) -> None:
    program = Program()
    copy = restored(tmp_path, program)
    with Paused(copy, "2026-03-02T00:00:00Z") as runner:
        (run,) = runner.list_runs()
        runner.set_trigger_enabled("inbox", False)
        for cron in runner.list_cron_schedules():
            runner.set_cron_schedule_enabled(cron["id"], False)
            runner.set_cron_schedule_enabled(cron["id"], True)
            runner.set_cron_schedule_enabled(cron["id"], False)
        runner.cancel(run["id"])
        by_hand = runner.register_cron_workflow("w", "30 * * * *")
        runner.advance("6h")
        assert program.ran == []
        runner.delete_cron_schedule(by_hand)
        runner.resume()
        runner.advance("48h")
        assert (program.polls, program.ran) == (0, [])
        assert [found["status"] for found in runner.list_runs()] == ["Cancelled"]


def test_a_paused_runner_says_so(tmp_path: Path) -> None:
    program = Program()
    copy = restored(tmp_path, program)
    with cloaca.DefaultRunner(copy, paused=True) as runner:
        (run,) = runner.list_runs()
        assert repr(runner) == "DefaultRunner(paused)"
        assert "this runner is paused, until resume() is called" in runner.why("inbox")
        assert "this runner is paused" in runner.why("nightly")
        assert "this runner is paused" in runner.why_run(run["id"])
        for call in (
            lambda: runner.execute("w"),
            lambda: runner.submit("w"),
            lambda: runner.submit("w", run_key="k"),
            lambda: runner.submit_many("w", [{}]),
            lambda: runner.retry(run["id"]),
            lambda: runner.retry_many(workflow="w"),
            lambda: runner.tick("inbox"),
            lambda: runner.tick("nightly"),
            lambda: runner.poll_soon("inbox"),
        ):
            with pytest.raises(cloaca.RunnerError, match=r"paused.*resume\(\)"):
                call()
        runner.resume()
        assert repr(runner) == "DefaultRunner(open)"
        assert runner.execute("w", {"from": "me"}).status == "Completed"
        # Until it is known that whoever polled the original is gone.
        assert eventually(lambda: "by another runner" not in runner.why("inbox"))
        assert runner.tick("inbox")["outcome"] == "skip"


def test_what_is_declared_while_it_is_paused_is_known_when_it_is_resumed() -> None:
    polled = threading.Event()
    with cloaca.DefaultRunner(":memory:", paused=True) as runner:
        program = Program()
        cloaca.trigger(name="quick", workflow="w", poll_interval="5ms")(lambda: bool(polled.set()))
        runner.resume()
        assert polled.wait(SECONDS)
        assert runner.execute("w", {"from": "me"}).status == "Completed"
    assert program.ran == ["me"]


def test_resume_is_for_every_runner_that_is_open() -> None:
    Program()
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.resume()
        assert runner.execute("w").status == "Completed"
    paused = cloaca.DefaultRunner.with_config(":memory:", cloaca.DefaultRunnerConfig(), paused=True)
    paused.shutdown()
    with pytest.raises(cloaca.RunnerError, match="shut down"):
        paused.resume()


def test_a_program_next_to_a_paused_runner_goes_on(tmp_path: Path) -> None:
    program = Program()
    with (
        cloaca.DefaultRunner(tmp_path / "a.db", paused=True),
        cloaca.DefaultRunner(tmp_path / "a.db", workflows=["w"]) as works,
    ):
        assert works.execute("w", {"from": "works"}).status == "Completed"
        assert works.tick("inbox")["outcome"] == "skip"
    assert program.ran == ["works"]


@pytest.mark.parametrize("given", ["yes", 1, None])
def test_paused_is_true_or_false(given: Any) -> None:
    with pytest.raises(TypeError, match=r"paused is .*True or False"):
        cloaca.DefaultRunner(":memory:", paused=given)


@pytest.mark.parametrize("how", ["plain", "body", "polled"])
def test_what_the_program_declares_is_told_of_as_such_in_every_runner(tmp_path: Path, how: str) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    every: dict[str, Any] = {"poll_interval": "1h"} if how == "polled" else {"cron": "0 3 * * *"}
    for name in ("it", "other"):
        body: Any = (lambda tick: False) if how == "body" else lambda: False
        cloaca.trigger(name=name, workflow="w", **every)(body)

    def is_declared(runner: cloaca.DefaultRunner) -> list[bool]:
        rows = runner.list_trigger_schedules() if how == "polled" else runner.list_cron_schedules()
        return [row["declared"] for row in rows if row["trigger_name"] == "it"]

    with cloaca.DefaultRunner(tmp_path / "a.db", paused=True) as runner:
        told = runner.why("it")
        assert "is declared here, and this store knows nothing of it yet" in told
        assert told.endswith("this runner is paused, until resume() is called")
        assert is_declared(runner) == []
    with cloaca.DefaultRunner(tmp_path / "a.db") as runner:
        assert eventually(lambda: is_declared(runner) == [True])
    with cloaca.DefaultRunner(tmp_path / "a.db", paused=True) as runner:
        assert is_declared(runner) == [True]
        told = runner.why("it")
        assert "this runner is paused" in told
        assert "does not declare" not in told
    with cloaca.DefaultRunner(tmp_path / "a.db", triggers=["other"]) as runner:
        assert is_declared(runner) == [True]
        told = runner.why("it")
        assert "this program declares" in told
        assert "this runner is not for it" in told


def test_a_paused_runner_sees_the_ends_of_runs_that_others_drive(tmp_path: Path) -> None:
    gate = threading.Event()
    with cloaca.WorkflowBuilder("gated"):
        cloaca.task(id="t")(lambda context: gate.wait(SECONDS) and None)
    with (
        cloaca.DefaultRunner(tmp_path / "a.db") as serving,
        cloaca.DefaultRunner(tmp_path / "a.db", paused=True) as looking,
    ):
        found = looking.run(serving.submit("gated").id)
        with pytest.raises(TimeoutError):
            found.result(0.1)
        gate.set()
        assert found.result(SECONDS).status == "Completed"
