"""What is kept of a task's attempts: how each ended, with what error, where that was raised, who ran it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from program import eventually, run_program, start_program

import cloaca
import cloaca.testing

KEYS = ["number", "outcome", "started_at", "ended_at", "error_type", "error", "traceback", "runner"]
KIB = 1024


def declare(name: str, body: Callable[[cloaca.Context], object], **settings: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(**{"id": "only", "retry_attempts": 1, "retry_delay_ms": 0, **settings})(body)


def task_of(runner: cloaca.DefaultRunner, name: str) -> dict[str, Any]:
    """The one task of a workflow's newest run."""
    row = runner.list_runs(workflow=name)[0]
    found = runner.get_run(row["id"])
    assert found is not None
    (task,) = found["tasks"]
    assert all(list(known) == KEYS for known in task["tries"])
    return task  # type: ignore[no-any-return]


def fails(times: int) -> Callable[[cloaca.Context], None]:
    """A body that fails so often."""
    left = list(range(times))

    def flaky(context: cloaca.Context) -> None:
        if left:
            raise OSError(f"gone, {left.pop(0)}")

    return flaky


def test_each_attempt_is_kept_also_the_one_that_completed(runner: cloaca.DefaultRunner) -> None:
    declare("flaky", fails(2), retry_attempts=3)
    runner.execute("flaky", check=True)
    task = task_of(runner, "flaky")
    assert (task["attempts"], task["error"], task["error_type"]) == (3, None, None)
    first, second, last = task["tries"]
    assert [known["number"] for known in task["tries"]] == [1, 2, 3]
    assert [known["outcome"] for known in task["tries"]] == ["Failed", "Failed", "Completed"]
    assert (first["error_type"], first["error"]) == ("OSError", "OSError: gone, 0")
    assert second["error"] == "OSError: gone, 1"
    assert (last["error_type"], last["error"], last["traceback"]) == (None, None, None)
    times = [at for known in task["tries"] for at in (known["started_at"], known["ended_at"])]
    assert times == sorted(times)
    assert times[0] == task["started_at"]
    assert len({known["runner"] for known in task["tries"]}) == 1
    assert isinstance(first["runner"], int)


def test_an_attempt_that_completes_at_once_is_one_try(runner: cloaca.DefaultRunner) -> None:
    declare("plain", fails(0))
    runner.execute("plain", check=True)
    task = task_of(runner, "plain")
    (only,) = task["tries"]
    assert (only["number"], only["outcome"]) == (1, "Completed")
    assert (only["started_at"], only["ended_at"]) == (task["started_at"], task["completed_at"])


def test_tries_that_complete_at_once_are_written_nowhere(runner: cloaca.DefaultRunner) -> None:
    declare("plain", fails(0))
    runner.execute("plain", check=True)
    assert runner.query("SELECT count(*) AS count FROM tries") == [{"count": 0}]


def test_a_traceback_begins_in_the_body_and_tells_its_causes(runner: cloaca.DefaultRunner) -> None:
    def read(context: cloaca.Context) -> None:
        try:
            context["none"]
        except Exception as error:
            raise ValueError("no such page") from error

    declare("reader", read)
    runner.execute("reader")
    (only,) = task_of(runner, "reader")["tries"]
    text = only["traceback"]
    assert text.endswith("ValueError: no such page\n")
    assert "direct cause" in text
    assert "test_tries.py" in text
    last = text.split("direct cause of the following exception:")[1]
    assert "worker.py" not in last
    assert last.count("File ") == 1


async def _fail_async(context: cloaca.Context) -> None:
    raise KeyError("async")


def test_a_traceback_of_an_async_body_begins_in_it_too(runner: cloaca.DefaultRunner) -> None:
    declare("async", _fail_async)
    runner.execute("async")
    (only,) = task_of(runner, "async")["tries"]
    assert only["error_type"] == "KeyError"
    assert only["traceback"].count("File ") == 1
    assert "_fail_async" in only["traceback"]


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def deep(level: int) -> None:
    if level:
        # Two lines, so that no line repeats the one above it.
        if level % 2:
            deep(level - 1)
        else:
            deep(level - 1)
    else:
        raise ValueError("at the bottom \udce9")


def test_a_long_traceback_keeps_its_beginning_and_its_end(runner: cloaca.DefaultRunner) -> None:
    def body(context: cloaca.Context) -> None:
        deep(400)

    declare("deep", body)
    runner.execute("deep")
    (only,) = task_of(runner, "deep")["tries"]
    text = only["traceback"]
    assert 15 * KIB < len(text.encode()) <= 16 * KIB
    assert text.startswith("Traceback (most recent call last)")
    assert " bytes more …" in text
    assert text.endswith("ValueError: at the bottom \\udce9\n")


def test_an_exception_without_a_text_is_kept_all_the_same(runner: cloaca.DefaultRunner) -> None:
    def body(context: cloaca.Context) -> None:
        raise Hostile

    declare("hostile", body)
    runner.execute("hostile")
    task = task_of(runner, "hostile")
    assert task["error_type"] == "Hostile"
    assert [known["outcome"] for known in task["tries"]] == ["Failed"]


def test_an_attempt_that_takes_too_long_is_kept_as_timed_out() -> None:
    gate = threading.Event()

    def body(context: cloaca.Context) -> None:
        assert gate.wait(30)

    config = cloaca.DefaultRunnerConfig(task_timeout_seconds=0.1, timeout_grace_seconds=0.1)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        declare("slow", body)
        try:
            result = runner.execute("slow")
        finally:
            gate.set()
        assert result.status == "Failed"
        task = task_of(runner, "slow")
        (only,) = task["tries"]
        assert (only["outcome"], only["error_type"]) == ("TimedOut", "TimeoutError")
        assert "timed out" in only["error"]
        assert runner.list_runs()[0]["error_type"] == "TimeoutError"


def test_a_body_that_raises_a_timeout_of_its_own_has_failed(runner: cloaca.DefaultRunner) -> None:
    def body(context: cloaca.Context) -> None:
        raise TimeoutError("the server is slow")

    declare("client", body)
    runner.execute("client")
    (only,) = task_of(runner, "client")["tries"]
    assert (only["outcome"], only["error_type"]) == ("Failed", "TimeoutError")


def test_a_run_tells_the_kind_of_error_of_the_first_task_that_failed(runner: cloaca.DefaultRunner) -> None:
    with cloaca.WorkflowBuilder("two"):
        cloaca.task(id="first", retry_attempts=1)(fails(1))
        cloaca.task(id="second", retry_attempts=1)(lambda context: 3)
    declare("plain", fails(0))
    runner.execute("two")
    runner.execute("plain")
    kinds = {row["workflow_name"]: row["error_type"] for row in runner.list_runs()}
    assert kinds == {"two": "OSError", "plain": None}
    found = runner.get_run(runner.list_runs(workflow="two")[0]["id"])
    assert found is not None
    assert {task["id"]: task["error_type"] for task in found["tasks"]} == {
        "first": "OSError",
        "second": "TypeError",
    }


def test_a_cancelled_run_has_no_kind_of_error() -> None:
    with cloaca.testing.Runner() as runner:
        declare("waits", fails(9), retry_attempts=9, retry_delay_ms=60_000)
        run = runner.submit("waits")
        runner.run_until_idle()
        run.cancel()
        runner.run_until_idle()
        row = runner.list_runs()[0]
        assert (row["status"], row["error_type"]) == ("Cancelled", None)
        assert [known["outcome"] for known in task_of(runner, "waits")["tries"]] == ["Failed"]


def test_tries_before_a_retry_by_hand_stay(runner: cloaca.DefaultRunner) -> None:
    declare("flaky", fails(2))
    runner.execute("flaky")
    run_id = runner.list_runs()[0]["id"]
    runner.retry(run_id).result(30)
    assert runner.list_runs()[0]["error_type"] == "OSError"
    runner.retry(run_id).result(30)
    task = task_of(runner, "flaky")
    assert [(known["number"], known["outcome"]) for known in task["tries"]] == [
        (1, "Failed"),
        (1, "Failed"),
        (1, "Completed"),
    ]
    assert (task["attempts"], task["status"]) == (1, "Completed")
    assert runner.list_runs()[0]["error_type"] is None


def test_of_very_many_attempts_the_first_and_the_last_are_kept() -> None:
    with cloaca.testing.Runner() as runner:
        declare("stubborn", fails(99), retry_attempts=50)
        runner.execute("stubborn")
        task = task_of(runner, "stubborn")
        assert task["attempts"] == 50
        assert [known["number"] for known in task["tries"]] == [1, 2, 3, *range(34, 51)]


def test_tries_go_with_their_run(tmp_path: Path) -> None:
    url = str(tmp_path / "runs.db")
    counted = "SELECT count(*) AS count FROM tries"
    declare("flaky", fails(9), retry_attempts=2)
    with cloaca.DefaultRunner(url) as runner:
        runner.execute("flaky")
        assert runner.query(counted) == [{"count": 2}]
    with cloaca.DefaultRunner.with_config(url, cloaca.DefaultRunnerConfig(retention="1ms")) as runner:
        assert eventually(lambda: runner.list_runs() == [])
        assert runner.query(counted) == [{"count": 0}]


DIES = """
    import sys, time
    import cloaca
    def say(line):
        # At once, or the lines of two threads mix.
        sys.stdout.write(line + "\\n")
        sys.stdout.flush()
    with cloaca.WorkflowBuilder("long"):
        @cloaca.task(id="only")
        def only(context):
            say("begun")
            time.sleep(60)
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        say(runner.submit("long").id)
        time.sleep(60)
"""


def test_an_attempt_that_died_with_its_process_is_kept_as_interrupted(tmp_path: Path) -> None:
    url = str(tmp_path / "runs.db")
    with start_program(DIES, url) as program:
        assert program.stdout is not None
        lines = {program.stdout.readline().strip() for _ in range(2)}
        run_id = (lines - {"begun"}).pop()
        with cloaca.DefaultRunner(url) as looker:
            # Once it is on record, so that a looker knows when it began.
            assert eventually(lambda: looker.get_run(run_id)["tasks"])  # type: ignore[index]
            owner = looker.query("SELECT owner FROM runs")[0]["owner"]
        program.send_signal(signal.SIGKILL)
    before = datetime.now().astimezone()
    declare("long", fails(0))
    with cloaca.DefaultRunner(url) as runner:
        assert runner.run(run_id).result(30).status == "Completed"
        task = task_of(runner, "long")
        first, second = task["tries"]
        assert (first["number"], first["outcome"], first["runner"]) == (1, "Interrupted", owner)
        assert (first["error_type"], first["error"], first["traceback"]) == (None, None, None)
        assert first["started_at"] == task["started_at"]
        assert datetime.fromisoformat(first["ended_at"]) >= before
        assert (second["number"], second["outcome"]) == (2, "Completed")
        assert second["runner"] not in (None, owner)


def test_an_attempt_that_its_runner_sent_home_is_kept_as_interrupted(tmp_path: Path) -> None:
    url = str(tmp_path / "runs.db")
    entered = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if not entered.is_set():
            entered.set()
            handle.defer_until(lambda: False)

    declare("waits", body)  # type: ignore[arg-type]
    with cloaca.DefaultRunner(url) as runner:
        run_id = runner.submit("waits").id
        assert entered.wait(30)
        owner = runner.query("SELECT owner FROM runs")[0]["owner"]
    with cloaca.DefaultRunner(url) as runner:
        assert runner.run(run_id).result(30).status == "Completed"
        first, second = task_of(runner, "waits")["tries"]
        assert (first["number"], first["outcome"], first["runner"]) == (1, "Interrupted", owner)
        assert first["started_at"] is not None
        assert (second["number"], second["outcome"]) == (2, "Completed")


def test_tries_can_be_read_in_another_program(tmp_path: Path) -> None:
    url = str(tmp_path / "runs.db")
    declare("flaky", fails(1))
    with cloaca.DefaultRunner(url) as runner:
        runner.execute("flaky")
    program = run_program(
        """
        import sys, cloaca
        with cloaca.DefaultRunner(sys.argv[1]) as runner:
            row = runner.list_runs()[0]
            print(row["error_type"], runner.get_run(row["id"])["tasks"][0]["tries"][0]["traceback"])
        """,
        url,
    )
    assert program.stdout.startswith("OSError Traceback"), program.stderr
