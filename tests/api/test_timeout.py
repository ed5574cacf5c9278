"""What a time-out, a cancel and a shutdown do to a body: it is told to end, and no
other attempt begins beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sqlite3
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from program import Dated, eventually, run_program

import cloaca
import cloaca.testing

WAIT = 30.0


def declare(name: str, body: Any, **settings: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(**{"id": "only", "retry_attempts": 1, "retry_delay_ms": 0, **settings})(body)


def runner_with(url: str = ":memory:", **settings: Any) -> cloaca.DefaultRunner:
    return cloaca.DefaultRunner.with_config(url, cloaca.DefaultRunnerConfig(**settings))


def task_of(runner: cloaca.DefaultRunner, run: cloaca.Run) -> dict[str, Any]:
    found = runner.get_run(run.id)
    assert found is not None
    (task,) = found["tasks"]
    return dict(task)


class Beside:
    """How many bodies run at once."""

    def __init__(self) -> None:
        self.now, self.most, self.attempts = 0, 0, list[int]()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def test_an_attempt_that_is_over_its_time_never_runs_beside_its_own_retry() -> None:
    beside = Beside()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        beside.attempts.append(handle.attempt)
        with beside:
            time.sleep(0.7)

    declare("slow", body, retry_attempts=3)
    with runner_with(task_timeout_seconds=0.2) as runner:
        run = runner.submit("slow")
        assert run.result(WAIT).status == "Failed"
        outcomes = [known["outcome"] for known in task_of(runner, run)["tries"]]
    assert (beside.most, beside.attempts) == (1, [1, 2, 3])
    assert outcomes == ["TimedOut"] * 3


def test_a_body_is_told_and_what_it_leaves_in_its_grace_does_not_count() -> None:
    seen: list[bool] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, int]:
        seen.append(handle.cancelled)
        assert handle.is_current()
        if handle.attempt == 1:
            assert eventually(lambda: handle.cancelled)
            seen.append(handle.is_current())
        return {"attempt": handle.attempt}

    told: list[str] = []
    declare("slow", body, retry_attempts=2, on_success=lambda task_id, context: told.append(task_id))
    with runner_with(task_timeout_seconds=0.2) as runner:
        result = runner.execute("slow", timeout=WAIT)
        assert (result.status, result.final_context["attempt"]) == ("Completed", 2)
    assert seen == [False, True, False]
    assert told == ["only"]


def test_who_returns_in_its_grace_has_failed_and_only_that_is_told() -> None:
    told: list[tuple[str, str]] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        assert eventually(lambda: handle.cancelled)

    declare(
        "slow",
        body,
        timeout="100ms",
        on_success=lambda task_id, context: told.append(("success", "")),
        on_failure=lambda task_id, error, context: told.append(("failure", error)),
    )
    with runner_with() as runner:
        result = runner.execute("slow")
        assert result.status == "Failed"
        assert "TimeoutError: timed out after 100ms" in (result.error_message or "")
    assert told == [("failure", "TimeoutError: timed out after 100ms")]


def test_a_tasks_own_timeout_takes_the_place_of_the_runners() -> None:
    declare("quick", lambda context: time.sleep(0.3), timeout="20s")
    declare("slow", lambda context: time.sleep(0.3), timeout=0.1)
    with runner_with(task_timeout_seconds=0.1) as runner:
        assert runner.execute("quick").status == "Completed"
        assert runner.execute("slow").status == "Failed"


@pytest.mark.parametrize("bad", [0, -1, "soon", True, float("nan"), []])
def test_a_timeout_that_is_no_duration_is_refused(bad: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="timeout"), cloaca.WorkflowBuilder("w"):
        cloaca.task(timeout=bad)(lambda context: None)


def test_the_version_of_a_workflow_without_timeout_is_what_it_was() -> None:
    def built(**settings: Any) -> str:
        with cloaca.WorkflowBuilder("w") as builder:
            cloaca.task(id="t", **settings)(lambda context: None)
            return builder.build().version

    assert built() == built()
    assert len({built(), built(timeout="1s"), built(timeout="2s")}) == 3


def test_a_body_that_does_not_end_is_overdue_and_its_run_opens_only_after_it() -> None:
    go, attempts = threading.Event(), list[int]()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(handle.attempt)
        if len(attempts) == 1:
            go.wait(WAIT)

    declare("hangs", body, retry_attempts=5, timeout="100ms")
    with runner_with(timeout_grace_seconds=0.1, max_concurrent_tasks=1) as runner:
        run = runner.submit("hangs")
        try:
            result = run.result(WAIT)
            assert result.status == "Failed"
            assert "its body still runs, so that it is not attempted again" in (result.error_message or "")
            assert attempts == [1]
            assert runner.stats()["bodies_overdue"] == 1
            assert task_of(runner, run)["overdue_since"] is not None
            assert "still runs, and until it has ended the run cannot be retried" in run.why()
            # Its permit is free.
            declare("fine", lambda context: None)
            assert runner.execute("fine", timeout=WAIT).status == "Completed"
            with pytest.raises(cloaca.StoreError, match="still runs: attempt 1 was given up"):
                runner.retry(run.id)
            assert runner.run(run.id).status == "Failed"
        finally:
            go.set()
        assert eventually(lambda: runner.stats()["bodies_overdue"] == 0)
        assert runner.retry(run.id).result(WAIT).status == "Completed"
        assert task_of(runner, run)["overdue_since"] is None
    assert attempts == [1, 1]


OVERDUE = """
    import sys, threading, cloaca

    with cloaca.WorkflowBuilder("hangs"):
        @cloaca.task(retry_attempts=1, timeout="100ms")
        def only(context):
            if not context.get("is_fine"):
                threading.Event().wait(30)

    role, url, *rest = sys.argv[1:]
    config = cloaca.DefaultRunnerConfig(timeout_grace_seconds=0.1)
    runner = cloaca.DefaultRunner.with_config(url, config)
    if role == "hang":
        run = runner.submit("hangs")
        assert run.result(20).status == "Failed"
        print(run.id, flush=True)
        sys.stdin.readline()
    else:
        try:
            print(runner.retry(rest[0]).id)
        except cloaca.StoreError as error:
            print("refused:", error)
    import os
    os._exit(0)
"""


def test_another_process_opens_no_run_whose_body_still_runs_and_does_once_its_process_is_dead(
    tmp_path: Path,
) -> None:
    import subprocess
    import textwrap

    url = str(tmp_path / "runs.db")
    command = [sys.executable, "-c", textwrap.dedent(OVERDUE), "hang", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hanging:
        assert hanging.stdout is not None
        run_id = hanging.stdout.readline().strip()
        asked = run_program(OVERDUE, "retry", url, run_id)
        assert "refused" in asked.stdout, asked.stderr
        assert "the body of its task 'only' still runs" in asked.stdout
        hanging.kill()
        hanging.wait(WAIT)
    asked = run_program(OVERDUE, "retry", url, run_id)
    assert asked.stdout.strip() == run_id, asked.stderr


def test_an_overdue_body_stays_on_record_through_a_clean_shutdown(tmp_path: Path) -> None:
    go, home = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        if not home.is_set():
            go.wait(WAIT)

    declare("hangs", body, timeout="100ms")
    url = str(tmp_path / "runs.db")
    with runner_with(url, timeout_grace_seconds=0.1) as runner:
        run = runner.submit("hangs")
        assert run.result(WAIT).status == "Failed"
    with runner_with(url) as runner:
        with pytest.raises(cloaca.StoreError, match="still runs"):
            runner.retry(run.id)
        home.set()
        go.set()

        def retried() -> bool:
            try:
                return runner.retry(run.id).result(WAIT).status == "Completed"
            except cloaca.StoreError:
                return False

        assert eventually(retried)


def test_so_many_bodies_are_overdue_that_no_other_begins(caplog: pytest.LogCaptureFixture) -> None:
    go, began = threading.Event(), list[int]()
    declare("hangs", lambda context: go.wait(WAIT) and None, timeout="50ms")
    declare("fine", lambda context: began.append(1))
    settings = {"timeout_grace_seconds": 0, "overdue_max": 2, "max_concurrent_tasks": 2}
    with runner_with(**settings) as runner:
        try:
            for run in [runner.submit("hangs") for _ in range(2)]:
                assert run.result(WAIT).status == "Failed"
            waits = runner.submit("fine")
            with pytest.raises(TimeoutError):
                waits.result(0.3)
            assert began == []
            assert eventually(lambda: [text for text in caplog.messages if "overdue_max" in text])
        finally:
            go.set()
        assert waits.result(WAIT).status == "Completed"
    assert len([text for text in caplog.messages if "overdue_max" in text]) == 1


def test_each_time_out_is_one_line_with_where_the_thread_is(caplog: pytest.LogCaptureFixture) -> None:
    def stuck_here(handle: cloaca.TaskHandle) -> None:
        assert eventually(lambda: handle.cancelled)

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        time.sleep(0.05)
        stuck_here(handle)
        time.sleep(0.3)

    declare("slow", body, retry_attempts=2, timeout="100ms")
    with runner_with() as runner:
        run = runner.submit("slow")
        assert run.result(WAIT).status == "Failed"

        def told() -> list[logging.LogRecord]:
            return [record for record in caplog.records if "timed out in attempt" in record.getMessage()]

        assert eventually(lambda: len(told()) == 2)
    first = told()[0]
    assert first.levelno == logging.WARNING
    assert (first.cloaca_run, first.cloaca_task, first.cloaca_attempt) == (run.id, "only", 1)  # type: ignore[attr-defined]
    assert "its body is told to end within 30s" in first.getMessage()
    assert "in body" in first.getMessage()
    assert "threading.py" not in first.getMessage()
    assert len(first.getMessage()) < 20_000


def test_a_coroutine_over_its_time_is_cancelled_and_tried_again() -> None:
    beside, raised = Beside(), list[str]()

    async def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, int]:
        beside.attempts.append(handle.attempt)
        with beside:
            try:
                await asyncio.sleep(WAIT if handle.attempt == 1 else 0)
            except asyncio.CancelledError:
                raised.append("cancelled")
                await asyncio.sleep(0.3)
                raise
        return {"attempt": handle.attempt}

    declare("slow", body, retry_attempts=2, timeout="500ms")
    with runner_with() as runner:
        result = runner.execute("slow", timeout=WAIT)
        assert (result.status, result.final_context["attempt"]) == ("Completed", 2)
    assert (raised, beside.most, beside.attempts) == (["cancelled"], 1, [1, 2])


def test_a_coroutine_that_swallows_its_cancellation_is_overdue() -> None:
    go = threading.Event()

    async def body(context: cloaca.Context) -> None:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)

    declare("stubborn", body, retry_attempts=3, timeout="100ms")
    with runner_with(timeout_grace_seconds=0.1) as runner:
        run = runner.submit("stubborn")
        try:
            assert run.result(WAIT).status == "Failed"
            assert runner.stats()["bodies_overdue"] == 1
        finally:
            go.set()
        assert eventually(lambda: runner.stats()["bodies_overdue"] == 0)


# Cancel.


def test_a_cancelled_body_is_told_and_what_it_leaves_counts() -> None:
    begun = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, bool]:
        begun.set()
        return {"cancelled": eventually(lambda: handle.cancelled)}

    declare("slow", body)
    with runner_with() as runner:
        run = runner.submit("slow")
        assert begun.wait(WAIT)
        run.cancel()
        result = run.result(WAIT)
        assert (result.status, result.final_context["cancelled"]) == ("Cancelled", True)
        assert task_of(runner, run)["status"] == "Completed"


def told_raises(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    assert eventually(lambda: handle.cancelled)
    raise ValueError("told to end")


def told_asks_for_later(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    assert eventually(lambda: handle.cancelled)
    raise cloaca.RetryAfter("10s")


def waits_for_what_never_comes(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    handle.defer_until(lambda: False, 1)


async def waits_on_the_loop(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    await handle.defer_until(lambda: False, 1)  # type: ignore[misc]


async def sleeps(context: cloaca.Context) -> None:
    await asyncio.sleep(WAIT)


def goes_on(context: cloaca.Context) -> None:
    assert eventually(lambda: GO_ON.is_set())


GO_ON = threading.Event()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (told_raises, "ValueError"),
        (told_asks_for_later, "RetryAfter"),
        (waits_for_what_never_comes, "RunnerError"),
        (waits_on_the_loop, "CancelledError"),
        (sleeps, "CancelledError"),
        (goes_on, "CancelledError"),
    ],
)
def test_an_attempt_that_ended_because_its_run_was_cancelled_is_on_record_as_that(
    body: Any, kind: str
) -> None:
    GO_ON.clear()
    declare("w", body, retry_attempts=3)
    with runner_with(timeout_grace_seconds=0.3 if body is goes_on else WAIT) as runner:
        run = runner.submit("w")
        assert eventually(lambda: "in its body" in run.why() or "its own condition" in run.why())
        run.cancel()
        assert run.result(WAIT).status == "Cancelled"
        GO_ON.set()
        task = task_of(runner, run)
        (only,) = task["tries"]
        assert (only["outcome"], only["error_type"]) == ("Cancelled", kind)
        assert (task["status"], task["error"]) == ("Failed", only["error"])


def test_a_body_that_outlasts_a_cancel_is_overdue_and_its_run_is_cancelled() -> None:
    begun, go = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        begun.set()
        go.wait(WAIT)

    declare("hangs", body)
    with runner_with(timeout_grace_seconds=0.3) as runner:
        run = runner.submit("hangs")
        assert begun.wait(WAIT)
        run.cancel()
        row = runner.get_run(run.id)
        assert row is not None
        assert (row["status"], row["cancel_requested"]) == ("Running", True)
        assert "told to end" in run.why()
        try:
            assert run.result(WAIT).status == "Cancelled"
            assert task_of(runner, run)["overdue_since"] is not None
            with pytest.raises(cloaca.StoreError, match="still runs"):
                runner.retry(run.id)
        finally:
            go.set()


def test_a_coroutine_of_a_cancelled_run_is_cancelled() -> None:
    begun, raised = threading.Event(), list[str]()

    async def body(context: cloaca.Context) -> None:
        begun.set()
        try:
            await asyncio.sleep(WAIT)
        except asyncio.CancelledError:
            raised.append("cancelled")
            raise

    declare("slow", body)
    with runner_with() as runner:
        run = runner.submit("slow")
        assert begun.wait(WAIT)
        run.cancel()
        assert run.result(WAIT).status == "Cancelled"
    assert raised == ["cancelled"]


# The run's time, the wait's, and the runner's end.


def test_the_end_of_a_runs_time_takes_the_same_road() -> None:
    told: list[bool] = []

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        told.append(eventually(lambda: handle.cancelled))

    declare("slow", body, retry_attempts=3)
    with runner_with(workflow_timeout_seconds=0.2) as runner:
        run = runner.submit("slow")
        result = run.result(WAIT)
        assert (result.status, told) == ("Failed", [True])
        assert "workflow timed out" in (result.error_message or "")
        (only,) = task_of(runner, run)["tries"]
        assert (only["outcome"], only["error_type"]) == ("TimedOut", "TimeoutError")


def test_a_coroutine_of_a_run_that_is_over_its_time_is_cancelled() -> None:
    declare("slow", sleeps, retry_attempts=3)
    with runner_with(workflow_timeout_seconds=0.2) as runner:
        run = runner.submit("slow")
        assert run.result(WAIT).status == "Failed"
        assert [tried["outcome"] for tried in task_of(runner, run)["tries"]] == ["TimedOut"]


def test_a_run_that_is_over_its_time_says_who_gave_it_that(caplog: pytest.LogCaptureFixture) -> None:
    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(lambda: False, "10ms")

    declare("approval", body)
    with cloaca.WorkflowBuilder("own", timeout="200ms"):
        cloaca.task(id="only")(body)
    with runner_with(workflow_timeout_seconds=0.3) as runner:
        told = [runner.execute(name).error_message or "" for name in ("approval", "own")]
    assert "workflow timed out after 300ms (workflow_timeout_seconds)" in told[0]
    assert "workflow timed out after 200ms (timeout of the workflow)" in told[1]
    for text in ("300ms (workflow_timeout_seconds)", "200ms (timeout of the workflow)"):
        assert eventually(lambda text=text: [line for line in caplog.messages if text in line])


def test_the_timeout_of_a_workflow_takes_the_place_of_the_runners() -> None:
    gate = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(gate.is_set, "10ms")

    with cloaca.WorkflowBuilder("approval", timeout="7d") as approval:
        cloaca.task(id="only")(body)
    assert approval.build().timeout == 7 * 86400
    with runner_with(workflow_timeout_seconds=0.1) as runner:
        run = runner.submit("approval")
        assert eventually(lambda: "waits in attempt 1" in run.why())
        assert run.why().endswith(" (timeout of the workflow)")
        gate.set()
        assert run.result(WAIT).status == "Completed"


def test_the_timeout_of_a_workflow_is_no_part_of_its_version() -> None:
    def version(**given: Any) -> str:
        with cloaca.WorkflowBuilder("approval", **given) as builder:
            cloaca.task(id="only")(lambda context: None)
        return builder.build().version

    assert version() == version(timeout="7d")
    assert cloaca.WorkflowBuilder("none")._timeout_us is None
    for wrong in ("soon", 0, -1, True, "0s"):
        with pytest.raises(cloaca.WorkflowError, match="timeout is"):
            cloaca.WorkflowBuilder("approval", timeout=wrong)


def test_execute_gives_up_its_wait_and_the_run_goes_on() -> None:
    go = threading.Event()
    declare("slow", lambda context: go.wait(WAIT) and None)
    with runner_with() as runner:
        try:
            with pytest.raises(TimeoutError, match="is not final after"):
                runner.execute("slow", timeout=0.1)
            with pytest.raises(TimeoutError, match="is not final after"):
                asyncio.run(runner.execute_async("slow", timeout=0.1))
        finally:
            go.set()
        assert eventually(lambda: runner.stats()["runs_completed"] == 2)
        assert asyncio.run(runner.execute_async("slow", timeout=WAIT)).status == "Completed"
        with pytest.raises(ValueError, match="timeout"):
            runner.execute("slow", timeout=-1)


def test_on_a_manual_clock_execute_moves_no_further_than_its_timeout() -> None:
    with cloaca.testing.isolated():
        declare("flaky", lambda context: 1 / 0, retry_attempts=2, retry_delay_ms=600_000)
        with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
            with pytest.raises(TimeoutError):
                runner.execute("flaky", timeout=10)
            assert runner.now.startswith("2026-01-01T00:00:10")


def test_a_shutdown_tells_bodies_and_rules_nothing(tmp_path: Path) -> None:
    begun, attempts, told = threading.Event(), list[int](), list[bool]()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(handle.attempt)
        begun.set()
        told.append(eventually(lambda: handle.cancelled))

    declare("slow", body)
    with runner_with(str(tmp_path / "runs.db")) as runner:
        run = runner.submit("slow")
        assert begun.wait(WAIT)
    assert told == [True]
    with runner_with(str(tmp_path / "runs.db")) as runner:
        assert runner.run(run.id).result(WAIT).status == "Completed"
    assert attempts == [1]


WAITS_AND_IS_KILLED = """
    import os, signal, sys, cloaca

    with cloaca.WorkflowBuilder("approval"):
        @cloaca.task(id="only")
        def only(context, handle): handle.defer_until(lambda: False, "10ms")

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        run = runner.submit("approval")
        while "waits in attempt 1" not in run.why() or not runner.get_run(run.id)["tasks"][0]["started_at"]:
            pass
        while not runner.query("SELECT 1 FROM tasks WHERE started_at IS NOT NULL"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_time_of_a_run_that_waits_went_on_for_as_long_as_its_dead_runner_was_seen(tmp_path: Path) -> None:
    url = tmp_path / "runs.db"
    assert run_program(WAITS_AND_IS_KILLED, url).returncode < 0
    # As if it had waited for fifty minutes, and been seen just now.
    ago = 50 * 60 * 1_000_000
    with contextlib.closing(sqlite3.connect(url)) as store, store:
        store.execute("UPDATE owners SET seen_at = (SELECT started_at FROM runs)")
        store.execute(
            "UPDATE runs SET started_at = started_at - :ago, timed_at = timed_at - :ago", {"ago": ago}
        )
        store.execute("UPDATE tasks SET started_at = started_at - ?", (ago,))

    declare("approval", lambda context, handle: handle.defer_until(lambda: False, "10ms"))
    with runner_with(str(url)) as runner:
        (row,) = runner.list_runs()
        ends = r"; its time is up at (\S+) "
        assert eventually(lambda: re.search(ends, runner.why_run(row["id"])))
        found = re.search(ends, runner.why_run(row["id"]))
        assert found is not None
        left = datetime.fromisoformat(found[1]) - datetime.now(UTC)
        assert timedelta(minutes=5) < left < timedelta(minutes=11)
        runner.cancel(row["id"])


def test_the_settings_say_their_bounds() -> None:
    with pytest.raises(ValueError, match="timeout_grace_seconds is -1"):
        cloaca.DefaultRunnerConfig(timeout_grace_seconds=-1)
    with pytest.raises(ValueError, match="overdue_max is 0"):
        cloaca.DefaultRunnerConfig(overdue_max=0)
    config = cloaca.DefaultRunnerConfig(timeout_grace_seconds=0, overdue_max=3)
    assert config.to_dict()["timeout_grace_seconds"] == 0
    assert cloaca.DefaultRunnerConfig().to_dict().keys().isdisjoint({"timeout_grace_seconds", "overdue_max"})


def test_any_function_that_a_body_calls_can_ask_whether_to_end() -> None:
    def deep() -> bool:
        current = cloaca.current_run()
        return current is not None and current.cancelled

    def body(context: cloaca.Context) -> dict[str, bool]:
        return {"early": deep(), "late": eventually(deep)}

    declare("slow", body)
    with runner_with() as runner:
        run = runner.submit("slow")
        assert eventually(lambda: run.status == "Running")
        run.cancel()
        assert run.result(WAIT).final_context["late"]


def test_a_run_has_what_was_left_of_its_time_where_another_runner_goes_on_with_it(tmp_path: Path) -> None:
    made: list[int] = []

    def fails_twice(context: cloaca.Context) -> None:
        made.append(len(made))
        if len(made) < 3:
            raise ValueError("not yet")

    declare(
        "w", fails_twice, retry_attempts=5, retry_delay_ms=40_000, retry_backoff="fixed", retry_jitter=False
    )
    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=60)
    url = os.fspath(tmp_path / "runs.db")
    with Dated(url, "2026-01-01T00:00:00Z", config) as runner:
        run = runner.submit("w").id
        runner.run_until_idle()
        runner.advance("10s")
        assert made == [0]
    # For ten hours it is in nobody's hands, of which the back-off takes 40 seconds.
    with Dated(url, "2026-01-01T10:00:00Z", config) as runner:
        # It is claimed in a moment, and the attempt that was due long ago is made.
        assert eventually(lambda: runner.run_until_idle() is None and made == [0, 1])
        runner.advance("19s")
        assert runner.get_run(run)["status"] == "Running"  # type: ignore[index]
        runner.advance("2s")
        found = runner.get_run(run)
        assert found is not None
        assert (found["status"], found["error_type"], made) == ("Failed", "TimeoutError", [0, 1])
        runner.retry(run)
        runner.advance("41s")
        assert runner.get_run(run)["status"] == "Completed", "a retry by hand has all of it"  # type: ignore[index]


def test_of_a_run_that_has_not_begun_no_time_goes_by(tmp_path: Path) -> None:
    declare("w", lambda context: None)
    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=60)
    url = os.fspath(tmp_path / "runs.db")
    with Dated(url, "2026-01-01T00:00:00Z", config) as runner:
        run = runner.submit("w", delay="1h").id
        runner.advance("50m")
    with Dated(url, "2026-01-01T10:00:00Z", config) as runner:
        over = lambda: runner.get_run(run)["status"] == "Completed"  # type: ignore[index]  # noqa: E731
        assert eventually(lambda: runner.run_until_idle() is None and over())
