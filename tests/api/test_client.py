"""A runner that works on nothing: what it starts is anyone's, and whoever declares the workflow runs it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from program import eventually, run_program, start_program

import cloaca
from cloaca import run as run_module

WORKS = """
import sys, time, cloaca
with cloaca.WorkflowBuilder("double"):
    @cloaca.task(id="only", retry_attempts=1)
    def only(context):
        if context.get("fails"):
            raise ValueError("as asked")
        deadline = time.monotonic() + 60
        while context.get("waits") and not cloaca.current_run().cancelled and time.monotonic() < deadline:
            time.sleep(0.01)
        context["n"] = context.get("n", 0) * 2
runner = cloaca.DefaultRunner(sys.argv[1])
declared = runner.query("SELECT 1 FROM workflows JOIN owners ON owner = epoch WHERE left_at IS NULL")
print("ready" if declared else "nobody may ask for anything yet", flush=True)
if len(sys.argv) < 3:
    time.sleep(600)
runner.shutdown()
"""


DELETES = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=60) as outsider:
    outsider.execute("DELETE FROM runs WHERE id = ?", [sys.argv[2]])
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@contextmanager
def working(file: Path) -> Iterator[Any]:
    """A program that declares a workflow and runs what there is of it."""
    with start_program(WORKS, file) as program:
        try:
            assert program.stdout.readline().strip() == "ready"
            yield program
        finally:
            program.kill()


@pytest.fixture
def worker(file: Path) -> Iterator[Any]:
    with working(file) as program:
        yield program


@pytest.fixture
def client(file: Path, worker: Any) -> Iterator[cloaca.DefaultRunner]:
    with cloaca.DefaultRunner(file, work=False) as runner:
        yield runner


def test_a_run_is_submitted_here_and_worked_on_there(client: cloaca.DefaultRunner) -> None:
    run = client.submit("double", {"n": 21})
    result = run.result(60)
    assert (result.status, result.final_context["n"]) == ("Completed", 42)
    assert client.execute("double", {"n": 4}, timeout=60).final_context["n"] == 8
    runs = client.submit_many("double", [{"n": n} for n in range(300)])
    assert [run.result(60).final_context["n"] for run in runs] == [2 * n for n in range(300)]
    mine, theirs = client.list_runners()
    assert (mine["works"], theirs["works"], mine["runs"]) == (False, True, 0)
    assert client.stats()["runs_started"] == 302, "what was asked for here"


def test_an_event_loop_waits_without_threads(client: cloaca.DefaultRunner) -> None:
    async def main() -> list[int]:
        runs = [await client.submit_async("double", {"n": n}) for n in range(100)]
        before = threading.active_count()
        waiting = asyncio.gather(*runs)
        await asyncio.sleep(0)
        assert threading.active_count() <= before + 1
        results = await asyncio.wait_for(waiting, 60)
        one = await client.execute_async("double", {"n": 5}, timeout=60)
        return [result.final_context["n"] for result in [*results, one]]

    assert asyncio.run(main()) == [*(2 * n for n in range(100)), 10]


def test_everybody_who_waits_comes_back_when_the_client_closes(file: Path, worker: Any) -> None:
    async def rounds() -> None:
        for _ in range(10):
            client = cloaca.DefaultRunner(file, work=False)
            runs = client.submit_many("double", [{"waits": True}] * 50)
            waits = [asyncio.ensure_future(run.wait()) for run in runs]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(client.shutdown)
            told = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 30)
            assert all(isinstance(each, cloaca.RunnerError) for each in told), told

    asyncio.run(rounds())


def test_who_waits_is_told_that_the_store_or_the_run_is_gone(file: Path, worker: Any) -> None:
    with cloaca.DefaultRunner(file, work=False) as client:
        lost = client.submit("double", {"waits": True})
        gone = client.submit("double", {"waits": True})
        assert eventually(lambda: gone.status == "Running")
        run_program(DELETES, file, gone.id)
        with pytest.raises(cloaca.WorkflowError, match="is not kept any more"):
            gone.result(60)
        file.unlink()
        with pytest.raises(cloaca.RunnerError, match="it goes on where it is"):
            lost.result(60)
        assert client.stats()["stopped"]


def test_what_failed_is_opened_again_and_what_runs_is_cancelled(client: cloaca.DefaultRunner) -> None:
    failed = client.submit("double", {"fails": True})
    assert failed.result(60).status == "Failed"
    again = client.retry(failed.id)
    assert (again.id, again.result(60).status) == (failed.id, "Failed")
    assert client.retry_many(status="Failed") == [failed.id]
    assert client.run(failed.id).result(60).status == "Failed"
    runs = client.submit("double", {"waits": True})
    assert eventually(lambda: client.run(runs.id).status == "Running")
    with pytest.raises(TimeoutError):
        runs.result(0.05)
    runs.cancel()
    assert runs.result(60).status == "Cancelled"
    done = client.submit("double", {"n": 1})
    assert done.result(60).status == "Completed"
    with pytest.raises(ValueError, match="is Completed"):
        client.retry(done.id)


def test_a_run_key_starts_one_run_whoever_comes_with_it(client: cloaca.DefaultRunner, file: Path) -> None:
    one = client.submit("double", {"n": 1}, run_key="order-1")
    assert client.submit("double", {"n": 1}, run_key="order-1").id == one.id
    with cloaca.DefaultRunner(file, work=False) as other:
        assert other.submit("double", {"n": 1}, run_key="order-1").result(60).final_context["n"] == 2
    with pytest.raises(ValueError, match="another one"):
        client.submit("double", {"n": 2}, run_key="order-1")


def test_runs_outlive_their_worker_and_their_client(file: Path) -> None:
    with cloaca.WorkflowBuilder("double"):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None:
            raise AssertionError("a client runs nothing")

    with cloaca.DefaultRunner(file, work=False) as client:
        early = client.submit("double", {"n": 1})
        assert "waits for a runner" in early.why()
        with pytest.raises(TimeoutError):
            early.result(0.1)
    with working(file) as program, cloaca.DefaultRunner(file, work=False) as client:
        assert client.run(early.id).result(60).final_context["n"] == 2
        cut = client.submit("double", {"waits": True})
        assert eventually(lambda: client.run(cut.id).status == "Running")
        program.kill()
        program.wait()
        cut.cancel()
        assert cut.result(60).status == "Cancelled"


def test_an_unknown_workflow_is_refused_and_one_that_nobody_serves_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = "workflow 'double' not found: nobody has declared it to this store"
    with cloaca.DefaultRunner(file, work=False) as client, pytest.raises(ValueError, match=refusal):
        client.submit("double", {"n": 1})
    with working(file), cloaca.DefaultRunner(file, work=False) as client:
        with pytest.raises(ValueError, match="did you mean 'double'"):
            client.submit("duoble", {"n": 1})
        client.submit("double", {"n": 1}).result(60)
    with cloaca.DefaultRunner(file, work=False) as client, caplog.at_level(logging.WARNING, "cloaca"):
        runs = [client.submit("double", {"n": n}) for n in range(3)]
        assert all("waits for a runner" in run.why() and "work=False" in run.why() for run in runs)
    told = [record.getMessage() for record in caplog.records if "no living runner" in record.getMessage()]
    assert told == ["no living runner declares workflow 'double': its runs wait for one that does"]


def test_who_waits_long_hears_what_for(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "SAID_SECONDS", 0.05)
    with cloaca.WorkflowBuilder("nobodys"):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None: ...

    with cloaca.DefaultRunner(file, work=False) as client, caplog.at_level(logging.INFO, "cloaca"):
        run = client.submit("nobodys", {})
        with pytest.raises(TimeoutError):
            run.result(0.5)
    assert any(record.getMessage().startswith(f"still waiting: run {run.id}") for record in caplog.records)


def test_a_client_polls_nothing_and_says_so(file: Path) -> None:
    polls: list[int] = []

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None: ...

    @cloaca.trigger(workflow="w", poll_interval="1ms")
    def polled() -> bool:
        polls.append(1)
        return False

    with cloaca.DefaultRunner(file, work=False) as client:
        assert repr(client) == "DefaultRunner(client)"
        with pytest.raises(RuntimeError, match=r"polls and runs nothing \(work=False\)"):
            client.tick("polled")
        with pytest.raises(cloaca.TriggerError, match="'polled'"):
            client.poll_soon("polled")
        assert client.list_trigger_schedules() == []
        client.resume()
        cron = client.register_cron_workflow("w", "* * * * * *")
        client.submit("w", {})
    assert polls == []
    with cloaca.DefaultRunner(file) as runner:
        assert eventually(lambda: bool(polls))
        assert eventually(lambda: bool(runner.get_cron_execution_history(cron)))
        assert eventually(lambda: all(run["status"] == "Completed" for run in runner.list_runs()))


@pytest.mark.parametrize(
    "given",
    [{"triggers": []}, {"workflows": []}, {"executors": {}}, {"paused": True}],
    ids=lambda given: next(iter(given)),
)
def test_what_only_work_has_a_use_for_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=f"work=False polls and runs nothing, and takes no {next(iter(given))}"
    ):
        cloaca.DefaultRunner(":memory:", work=False, **given)
    with pytest.raises(ValueError, match="work"):
        cloaca.DefaultRunner(":memory:", work="no")  # type: ignore[arg-type]


def test_a_working_runner_asks_for_what_only_another_one_declares(file: Path, worker: Any) -> None:
    with cloaca.WorkflowBuilder("own"):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None:
            run = cloaca.current_run()
            assert run is not None
            context["double"] = run.runner.execute("double", {"n": 4}).final_context["n"]

    with cloaca.DefaultRunner(file) as runner:
        run = runner.submit("double", {"n": 21})
        assert run.result(60).final_context["n"] == 42
        assert runner.execute("double", {"n": 4}, timeout=60).final_context["n"] == 8
        many = runner.submit_many("double", [{"n": n} for n in range(10)])
        assert [run.result(60).final_context["n"] for run in many] == [2 * n for n in range(10)]
        keyed = [runner.submit("double", {"n": 1}, run_key="k") for _ in range(2)]
        assert keyed[0].id == keyed[1].id
        own = runner.submit("own", {})
        assert own.result(60).final_context["double"] == 8
        [child] = [row for row in runner.list_runs(workflow="double") if row["parent_run"] == own.id]
        assert child["parent_task"] == "only"
        assert asyncio.run(executed(runner)) == 10


async def executed(runner: cloaca.DefaultRunner) -> int:
    return int((await runner.execute_async("double", {"n": 5}, timeout=60)).final_context["n"])


def test_what_was_declared_once_is_known_and_waits_for_who_declares_it(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run_program(WORKS, file, "and end").stdout == "ready\n"
    for works in (False, True):
        caplog.clear()
        with cloaca.DefaultRunner(file, work=works) as runner, caplog.at_level(logging.WARNING, "cloaca"):
            runs = [runner.submit("double", {"n": n}) for n in range(3)]
            assert all("waits for a runner" in run.why() for run in runs)
            if works:
                with pytest.raises(ValueError, match="no living runner declares workflow 'double'"):
                    runner.execute("double", {"n": 1})
                with pytest.raises(ValueError, match="no living runner declares workflow 'double'"):
                    asyncio.run(executed(runner))
            with pytest.raises(ValueError, match=r"'duoble' not found.*did you mean 'double'"):
                runner.submit("duoble", {"n": 1})
            with pytest.raises(ValueError, match=r"'duoble' not found.*did you mean 'double'"):
                runner.execute("duoble", {"n": 1})
        told = [record.getMessage() for record in caplog.records if "its runs wait" in record.getMessage()]
        assert told == ["no living runner declares workflow 'double': its runs wait for one that does"]
    with working(file), cloaca.DefaultRunner(file, work=False) as client:
        assert client.run(runs[1].id).result(60).final_context["n"] == 2
