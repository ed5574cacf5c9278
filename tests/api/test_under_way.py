"""How long a run was under way, what never began, who ends, and who ended a run."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flow import Gate, declare

import cloaca
import cloaca.testing
from cloaca import reading
from cloaca.cli import main
from cloaca.cli.show import between

WAIT = 30


def test_what_a_run_lay_over_before_a_retry_is_no_part_of_what_it_took() -> None:
    is_fixed = False

    def load(context: cloaca.Context) -> None:
        if not is_fixed:
            raise ValueError("no price")

    with cloaca.WorkflowBuilder("import"):
        cloaca.task(retry_attempts=2, retry_delay_ms=10_000, retry_jitter=False)(load)
        cloaca.task(
            id="wait", dependencies=["load"], retry_attempts=2, retry_delay_ms=3_000, retry_jitter=False
        )(lambda context, handle: None if handle.attempt == 2 else 1 / 0)
    with cloaca.testing.Runner() as runner:
        run = runner.submit("import")
        runner.advance("10s")
        first = runner.get_run(run.id)
        assert first is not None
        assert (first["status"], first["took_seconds"], first["lain_seconds"]) == ("Failed", 10, 0)
        runner.advance("2h")
        is_fixed = True
        runner.retry(run.id)
        runner.run_until_idle()
        under_way = runner.get_run(run.id)
        assert under_way is not None
        assert (under_way["status"], under_way["took_seconds"]) == ("Running", None)
        assert under_way["lain_seconds"] == 7200
        runner.advance("3s")
        (row,) = runner.list_runs()
        assert (row["status"], row["took_seconds"], row["lain_seconds"]) == ("Completed", 13, 7200)


def test_a_task_that_is_skipped_anew_begins_nothing() -> None:
    is_fixed, done = threading.Event(), threading.Event()

    def load(context: cloaca.Context) -> None:
        if not is_fixed.is_set():
            raise ValueError("no price")
        # By then what is skipped is on record.
        while runner.list_runs()[0]["status"] != "Running":
            pass

    def wait(context: cloaca.Context) -> None:
        # And what is done here is on record apart from what was done before.
        while task_of("load")["status"] != "Completed":
            pass
        done.set()

    def task_of(name: str) -> Any:
        return next(task for task in runner.get_run(run.id)["tasks"] if task["id"] == name)

    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="look")(lambda context: None)
        cloaca.task(dependencies=["look"], retry_attempts=1)(load)
        cloaca.task(dependencies=["load"])(wait)
        cloaca.task(id="aside", dependencies=["look"], trigger_rules=cloaca.task_failed("look"))(
            lambda context: None
        )
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("import")
        assert run.result(WAIT).status == "Failed"
        before = runner.list_runs()[0]
        is_fixed.set()
        assert runner.retry(run.id)
        assert done.wait(WAIT)
        assert runner.run(run.id).result(WAIT).status == "Completed"
        lay = between(before["completed_at"], task_of("load")["started_at"])
        assert runner.get_run(run.id)["lain_seconds"] == pytest.approx(lay, abs=1e-5)


def test_one_that_was_opened_again_and_ended_before_it_began_took_what_it_had_taken(tmp_path: Path) -> None:
    declare("import", lambda context: 1 / 0)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.submit("import")
        run.result(WAIT)
        before = runner.list_runs()[0]
    with cloaca.DefaultRunner(tmp_path / "runs.db", work=False) as client:
        client.retry_many(workflow="import")
        client.cancel(run.id)
        after = client.list_runs()[0]
    assert after["status"] == "Cancelled"
    assert after["completed_at"] > before["completed_at"]
    assert after["took_seconds"] == before["took_seconds"] is not None


def test_what_a_run_lay_over_before_it_began_is_no_part_of_what_it_took() -> None:
    with cloaca.WorkflowBuilder("nap"):
        cloaca.task(id="nap", retry_attempts=2, retry_delay_ms=10_000, retry_jitter=False)(
            lambda context, handle: None if handle.attempt == 2 else 1 / 0
        )
    declare("quick", lambda context: None)
    with cloaca.testing.Runner() as runner:
        ids = []
        for workflow in ("nap", "quick"):
            runner.pause(workflow=workflow)
            ids.append(runner.submit(workflow).id)
            runner.cancel(ids[-1])
        runner.advance("2h")
        for workflow, run_id in zip(("nap", "quick"), ids, strict=True):
            runner.resume(workflow=workflow)
            runner.retry(run_id)
        runner.run_until_idle()
        under_way = runner.get_run(ids[0])
        assert under_way is not None
        assert (under_way["status"], under_way["lain_seconds"]) == ("Running", 0)
        runner.advance("10s")
        quick, nap = runner.list_runs()
        assert (nap["status"], nap["took_seconds"], nap["lain_seconds"]) == ("Completed", 10, 0)
        assert (quick["status"], quick["lain_seconds"]) == ("Completed", 0)


KILLED = """
import sys
import cloaca

with cloaca.WorkflowBuilder("w"):

    @cloaca.task()
    def only(context):
        if context["n"] == 1:
            print("in its body", flush=True)
            sys.stdin.read()

runner = cloaca.DefaultRunner(sys.argv[1], max_concurrent_tasks=1)
first = runner.submit("w", {"n": 1})
while "is in its body" not in first.why():
    pass
print(runner.submit("w", {"n": 2}).id, flush=True)
sys.stdin.read()
"""


def test_an_attempt_that_never_began_does_not_say_that_it_was_under_way(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "runs.db")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in its body\n"
        waits = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    declare("w")
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        assert runner.run(waits).result(WAIT).status == "Completed"
        details = runner.get_run(waits)
    assert details is not None
    first = details["tasks"][0]["tries"][0]
    assert (first["outcome"], first["started_at"]) == ("Interrupted", None)
    assert "it never did, or a moment before" in str(first["error"])


def test_a_runner_that_waits_for_what_it_has_says_so(tmp_path: Path) -> None:
    gate = Gate()
    declare("slow", gate)
    runner = cloaca.DefaultRunner(tmp_path / "runs.db")
    with reading.Reader(tmp_path / "runs.db") as reader:
        runner.submit("slow")
        assert gate.entered.wait(WAIT)
        assert [each.state for each in reading.runners(reader)] == ["living"]
        closing = threading.Thread(target=runner.shutdown)
        closing.start()
        while [each.standing for each in reading.runners(reader)] != ["draining"]:
            assert closing.is_alive()
        gate.open.set()
        closing.join(WAIT)
        assert [each.state for each in reading.runners(reader, left=True)] == ["left"]


def test_who_cancelled_a_run_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloaca.audit.user", lambda: "alice@desk")
    store = str(tmp_path / "runs.db")
    gate, heard, may_end = Gate(), threading.Event(), threading.Event()

    def calls(context: cloaca.Context) -> None:
        try:
            runner.execute("inner")
        except cloaca.RunnerError:
            heard.set()
            assert may_end.wait(WAIT)
            raise

    declare("inner", gate)
    declare("outer", calls)
    declare("failing", lambda context: 1 / 0)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        outer = runner.submit("outer")
        assert gate.entered.wait(WAIT)
        assert main(["cancel", outer.id, "--database", store, "--yes"]) == 0
        with reading.Reader(store) as reader:
            assert "; its end was asked for by 'alice@desk' at the command line" in reading.why(
                reader, outer.id
            )
        assert heard.wait(WAIT)
        may_end.set()
        assert outer.result(WAIT).status == "Cancelled"
        gate.open.set()
        (inner,) = runner.list_runs("inner")
        assert runner.run(inner["id"]).result(WAIT).status == "Cancelled"
        for run_id in (outer.id, inner["id"]):
            assert " by 'alice@desk' at the command line" in runner.why_run(run_id)
        with reading.Reader(store) as reader:
            details = reading.run(reader, inner["id"])
            assert details.cancelled_by is not None
            assert (details.cancelled_by.who, details.cancelled_by.about) == ("alice@desk", outer.id)
            assert "by 'alice@desk' at the command line" in reading.why(reader, outer.id)
        capsys.readouterr()
        assert main(["show", outer.id, "--database", store, "--json"]) == 0
        assert '"who": "alice@desk"' in capsys.readouterr().out
        # By the program itself: nobody is named.
        gate.open.clear()
        again = runner.submit("inner")
        again.cancel()
        gate.open.set()
        again.result(WAIT)
        assert "alice" not in runner.why_run(again.id)
