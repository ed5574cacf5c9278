"""What the program's log is told, what its records carry, and that a healthy day is quiet."""

import logging
import threading
from pathlib import Path

import pytest
from flow import WAIT, Gate, declare
from program import eventually

import cloaca
from cloaca import registry
from cloaca.testing import Runner


def lines(caplog: pytest.LogCaptureFixture, level: int, part: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == level and part in record.getMessage()]


def about(record: logging.LogRecord) -> dict[str, object]:
    names = ("run", "workflow", "trigger", "task", "attempt")
    return {name: getattr(record, f"cloaca_{name}") for name in names}


def test_a_task_that_fails_says_which_run_and_attempt(caplog: pytest.LogCaptureFixture) -> None:
    def body(context: cloaca.Context) -> None:
        raise ValueError("boom")

    declare("mail", body, retry_attempts=2, retry_delay_ms=1)
    with caplog.at_level(logging.INFO, "cloaca"), cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("mail")
        assert run.result().status == "Failed"
        assert eventually(lambda: lines(caplog, logging.INFO, f"run {run.id} of workflow 'mail' failed"))
    (first,) = lines(caplog, logging.WARNING, f"task 'only' of workflow 'mail', run {run.id}, failed in")
    (last,) = lines(caplog, logging.ERROR, f"task 'only' of workflow 'mail', run {run.id}, failed in")
    mine = {"run": run.id, "workflow": "mail", "trigger": None, "task": "only"}
    assert [about(first), about(last)] == [{**mine, "attempt": 1}, {**mine, "attempt": 2}]
    (ended,) = lines(caplog, logging.INFO, "'mail' failed")
    assert about(ended) == {**mine, "task": None, "attempt": None}
    assert "ValueError: boom" in ended.getMessage()


def test_a_task_that_times_out_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def body(context: cloaca.Context) -> None:
        release.wait(30)

    declare("slow", body, retry_attempts=1)
    config = cloaca.DefaultRunnerConfig(task_timeout_seconds=1, timeout_grace_seconds=0.2)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        run = runner.submit("slow")
        assert run.result().status == "Failed"
        assert eventually(lambda: lines(caplog, logging.WARNING, "timed out in attempt 1 after 1s"))
        release.set()
    (record,) = lines(caplog, logging.WARNING, "timed out")
    assert lines(caplog, logging.ERROR, "still runs 200ms after it was told to end")
    assert about(record) == {
        "run": run.id,
        "workflow": "slow",
        "trigger": None,
        "task": "only",
        "attempt": 1,
    }


def test_a_healthy_day_is_quiet_at_info(caplog: pytest.LogCaptureFixture) -> None:
    declare("mail", lambda context: None)
    cloaca.trigger(name="inbox", workflow="mail", poll_interval="1s")(lambda: cloaca.TriggerResult.fire())
    with caplog.at_level(logging.INFO, "cloaca"):
        runner = Runner()
        runner.advance("1m")
        assert runner.stats()["runs_completed"] >= 59
        runner.shutdown()
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2, texts
    assert "is ready: 1 workflow, 1 trigger and 0 crons" in texts[0]
    assert "has stopped; it leaves 0 runs unfinished" in texts[1]


def test_a_runner_counts_what_it_leaves_to_others_among_what_it_leaves_unfinished(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    declare("mail", gate)
    with caplog.at_level(logging.INFO, "cloaca"):
        runner = cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1)
        runner.submit_many("mail", [{"n": n} for n in range(3)])
        assert gate.entered.wait(WAIT)
        runner.shutdown(0.01)
        gate.open.set()
        # Its own thread says so, which may have been amidst something else.
        assert eventually(lambda: lines(caplog, logging.INFO, "has stopped; it leaves 3 runs unfinished"))


def test_a_runner_says_how_much_is_declared(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    declare("mail", lambda context: None)

    def said() -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO, "cloaca"), cloaca.DefaultRunner(tmp_path / "a.db"):
            assert eventually(lambda: lines(caplog, logging.INFO, "is ready"))
        return lines(caplog, logging.INFO, "is ready")[0].getMessage()

    cloaca.trigger(name="inbox", workflow="mail", poll_interval="1h")(lambda: False)
    cloaca.trigger(name="told", workflow="mail", poll_interval="1h")(lambda: False)
    assert said().endswith("1 workflow, 2 triggers and 0 crons")
    # What one was before a deploy counts no more, and a function that decides moments is no trigger besides.
    cloaca.trigger(name="inbox", workflow="mail", cron="0 3 29 2 *")(lambda tick: False)
    assert said().endswith("1 workflow, 1 trigger and 1 cron")
    cloaca.trigger(name="inbox", workflow="mail", cron="0 3 29 2 *")(lambda: False)
    assert said().endswith("1 workflow, 1 trigger and 1 cron")


def test_debug_tells_of_each_fire_and_run(caplog: pytest.LogCaptureFixture) -> None:
    declare("mail", lambda context: None)
    cloaca.trigger(name="inbox", workflow="mail", poll_interval="1s")(lambda: cloaca.TriggerResult.fire())
    with caplog.at_level(logging.DEBUG, "cloaca"):
        runner = Runner()
        runner.advance("1s")
        (run,) = runner.list_runs()
        runner.shutdown()
    (fired,) = lines(caplog, logging.DEBUG, f"trigger 'inbox' fired run {run['id']}")
    assert about(fired) | {"trigger": "inbox", "run": run["id"]} == about(fired)
    (completed,) = lines(caplog, logging.DEBUG, f"run {run['id']} of workflow 'mail' completed")
    assert about(completed) | {"workflow": "mail", "run": run["id"]} == about(completed)


def test_a_cancelled_run_is_told(caplog: pytest.LogCaptureFixture) -> None:
    begun, release = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        begun.set()
        release.wait(30)

    declare("long", body)
    with caplog.at_level(logging.INFO, "cloaca"), cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("long")
        assert begun.wait(30)
        run.cancel()
        release.set()
        assert run.result().status == "Cancelled"
        assert eventually(
            lambda: lines(caplog, logging.INFO, f"run {run.id} of workflow 'long' was cancelled")
        )


def test_runs_that_are_resumed_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun, release = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        begun.set()
        release.wait(30)

    declare("long", body)
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as runner:
        runner.submit("long")
        assert begun.wait(30)
        runner.shutdown(0.0)
        release.set()
        runner.shutdown()
    with caplog.at_level(logging.DEBUG, "cloaca"), cloaca.DefaultRunner(url):
        assert eventually(lambda: lines(caplog, logging.INFO, "1 unfinished run that nobody was at work on"))
        assert eventually(lambda: lines(caplog, logging.DEBUG, "of workflow 'long' is resumed"))


def failing(body: object, interval: str = "10s", **options: object) -> None:
    declare("mail", lambda context: None)
    backoff = cloaca.Backoff(base=interval, factor=1, max=interval)
    decorate = cloaca.trigger(
        name="inbox", workflow="mail", poll_interval=interval, on_error=backoff, **options
    )
    decorate(body)  # type: ignore[arg-type]


def test_a_trigger_that_goes_on_failing_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    count = 0

    def body() -> bool:
        nonlocal count
        count += 1
        raise ValueError(f"failure {count}")

    failing(body)
    runner = Runner()
    runner.advance("5h")
    assert count > 1700
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors if record.exc_info] == ["trigger 'inbox' raised"]
    shown = [record.getMessage() for record in errors if not record.exc_info]
    for rung in (2, 10, 100, 1000):
        (line,) = [line for line in shown if f" {rung} failed polls in a row" in line]
        assert f"ValueError: failure {rung}" in line
    # Two in the hours between the 100th and the 1000th, and two after that.
    assert len(shown) == 8, shown
    assert {record.cloaca_trigger for record in errors} == {"inbox"}  # type: ignore[attr-defined]
    runner.shutdown()


def test_an_error_that_is_new_is_told_whole_and_a_recovery_once(caplog: pytest.LogCaptureFixture) -> None:
    error: Exception | None = ValueError("a")

    def body() -> bool:
        if error is not None:
            raise error
        return False

    failing(body)
    runner = Runner()
    runner.advance("50s")
    error = KeyError("b")
    runner.advance("50s")
    whole = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert whole == [ValueError, KeyError]
    error = None
    runner.advance("50s")
    error = ValueError("a")
    runner.advance("10s")
    runner.shutdown()
    (recovered,) = lines(caplog, logging.WARNING, "trigger 'inbox' has recovered, after 10 failed polls")
    assert about(recovered)["trigger"] == "inbox"
    whole = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert whole == [ValueError, KeyError, ValueError], "after a recovery everything is new"


def test_a_trigger_that_raises_something_else_each_time_has_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    count = 0

    def body() -> bool:
        nonlocal count
        count += 1
        raise type(f"Error{count}", (Exception,), {})

    failing(body)
    runner = Runner()
    runner.advance("10m")
    runner.shutdown()
    assert count > 50
    assert len([record for record in caplog.records if record.exc_info]) == 10


def test_an_answer_that_is_refused_each_time_is_told_as_rarely(caplog: pytest.LogCaptureFixture) -> None:
    failing(lambda: 5)
    runner = Runner()
    runner.advance("9m")
    runner.shutdown()
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 3, texts
    assert "10 failed polls in a row" in texts[2]


def test_polls_that_time_out_are_told_as_rarely(caplog: pytest.LogCaptureFixture) -> None:
    count = 0
    never = threading.Event()

    def body() -> bool:
        nonlocal count
        count += 1
        never.wait(0.03)
        return False

    failing(body, "1ms", poll_timeout="2ms")
    with cloaca.DefaultRunner(":memory:"):
        assert eventually(lambda: count > 15)
    told = lines(caplog, logging.ERROR, "timed out after 2ms")
    assert len(told) == 3, [record.getMessage() for record in told]
    assert "10 failed polls in a row" in told[2].getMessage()


def test_runs_that_nobody_declares_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun, release = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        begun.set()
        release.wait(30)

    declare("gone", body)
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as runner:
        runner.submit("gone")
        assert begun.wait(30)
        runner.shutdown(0.0)
        release.set()
        runner.shutdown()
    registry.clear()
    declare("stays", lambda context: None)
    with cloaca.DefaultRunner(url):
        part = "wait for workflows that no living runner declares: 'gone' (1 run)"
        assert eventually(lambda: lines(caplog, logging.WARNING, part))
    assert len(lines(caplog, logging.WARNING, "no living runner declares")) == 1


def test_runs_that_nobody_had_begun_are_not_called_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declare("short", lambda context: None)
    url = str(tmp_path / "runs.db")
    with caplog.at_level(logging.DEBUG, "cloaca"):
        with cloaca.DefaultRunner(url):
            client = cloaca.DefaultRunner(url, work=False)
            assert client.execute("short", timeout=60).status == "Completed"
            client.shutdown()
        assert not [record for record in caplog.records if "resumed" in record.getMessage()]


@pytest.mark.parametrize("ends_by", ["cancel", "timeout"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_wait_that_is_told_to_end_is_no_failed_attempt(
    caplog: pytest.LogCaptureFixture, ends_by: str, is_async: bool
) -> None:
    def waits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(lambda: False, "5ms")

    async def waits_too(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        await handle.defer_until(lambda: False, "5ms")

    given = {"timeout": "300ms"} if ends_by == "timeout" else {}
    with cloaca.WorkflowBuilder("child"):
        cloaca.task(id="only", retry_attempts=3)(waits_too if is_async else waits)
    with cloaca.WorkflowBuilder("flow", **given):

        @cloaca.task(id="only", retry_attempts=3)
        def only(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            handle.runner.execute("child")

    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("flow")
        assert eventually(lambda: "own condition" in "".join(map(runner.why_run, ids(runner, "child"))))
        if ends_by == "cancel":
            runner.cancel(run.id)
        assert run.result(20).status in ("Cancelled", "Failed")
        assert eventually(lambda: runner.get_run(*ids(runner, "child"))["completed_at"])
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in told if "timed out" not in record.getMessage()] == []


def ids(runner: cloaca.DefaultRunner, workflow: str) -> list[str]:
    return [row["id"] for row in runner.list_runs(workflow)]


def test_a_condition_that_goes_on_raising_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    looks = 0

    def condition() -> bool:
        nonlocal looks
        looks += 1
        if looks <= 100:
            raise ConnectionError(f"no source at look {looks}")
        return looks > 101

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(condition, "1ms")

    declare("flow", body)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("flow").status == "Completed"
    said = [line for line in caplog.records if line.name.startswith("cloaca")]
    told = [(line.levelname, line.getMessage(), bool(line.exc_info)) for line in said]
    (run,) = {about(line)["run"] for line in said}
    of = f"the condition that task 'only' of run {run} waits for"
    assert told == [
        ("ERROR", f"{of} raised", True),
        *(
            (
                "ERROR",
                f"{of} has raised {many} times in a row, now ConnectionError: no source at look {many}",
                False,
            )
            for many in (2, 10, 100)
        ),
        ("WARNING", f"{of} has answered, after it had raised 100 times in a row", False),
    ]
