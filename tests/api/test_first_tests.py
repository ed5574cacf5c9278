"""What somebody writes who tests a trigger for the first time, where that once failed for odd reasons."""

import threading
from typing import Any
from unittest.mock import AsyncMock, MagicMock, create_autospec

import pytest

import cloaca
import cloaca.testing
from cloaca import Context, TaskHandle, TriggerResult

HANG_SECONDS = 30.0


def notify(context: Context) -> dict[str, Any] | None:
    """What tests replace."""
    raise ConnectionError("no network in tests")


@pytest.fixture
def workflow() -> cloaca.Workflow:
    """A workflow whose last task must not run in a test."""
    with cloaca.WorkflowBuilder("orders") as builder:
        cloaca.task(id="notify")(notify)
    return builder.build()


@pytest.mark.parametrize(
    "fake", [MagicMock(), AsyncMock(), create_autospec(notify)], ids=["mock", "async", "spec"]
)
@pytest.mark.usefixtures("workflow")
def test_a_mock_replaces_a_task(fake: Any) -> None:
    with cloaca.testing.Runner(raise_errors=True) as runner:
        runner.replace_task("notify", fake)
        assert runner.execute("orders", {"n": 1}).final_context["n"] == 1
    fake.assert_called_once()


@pytest.mark.usefixtures("workflow")
def test_a_mock_answers_and_raises_what_it_is_told_to() -> None:
    with cloaca.testing.Runner() as runner:
        runner.replace_task("notify", MagicMock(return_value={"n": 2}))
        assert runner.execute("orders").final_context["n"] == 2
        fake = MagicMock(side_effect=LookupError("told to"))
        runner.replace_task("notify", fake)
        assert "told to" in str(runner.execute("orders").error_message)
        assert fake.call_count == 3


def test_functions_and_workflows_stand_for_their_names(workflow: cloaca.Workflow) -> None:
    @cloaca.trigger(name="another name", workflow=workflow, poll_interval="1m")
    def orders() -> TriggerResult:
        return TriggerResult.fire({"n": 1})

    with cloaca.testing.Runner(raise_errors=True) as runner:
        runner.replace_task(notify, lambda context: None, workflow=workflow)
        runner.advance("1m")
        assert runner.polls(orders) == 1
        assert runner.tick(orders, dry_run=True)["outcome"] == "fire"
        assert runner.fired(workflow) == [Context({"n": 1})]


def test_a_function_that_stands_for_nothing_or_for_two_is_refused(workflow: cloaca.Workflow) -> None:
    def orders() -> bool:
        return True

    with cloaca.testing.Runner() as runner:
        with pytest.raises(ValueError, match=r"orders.* is no trigger"):
            runner.polls(orders)
        with pytest.raises(ValueError, match=r"orders.* is no task.*notify"):
            runner.replace_task(orders, lambda context: None)
        for name in ("one", "two"):
            cloaca.trigger(name=name, workflow=workflow)(orders)
        with pytest.raises(ValueError, match="triggers 'one', 'two'; give the name"):
            runner.polls(orders)


def test_fires_of_a_workflow_that_is_missing_are_raised() -> None:
    @cloaca.trigger(workflow="missing", poll_interval="1m")
    def orders() -> bool:
        return True

    with cloaca.testing.Runner(raise_errors=True) as runner:
        for _ in range(3):
            with pytest.raises(cloaca.TriggerError, match=r"trigger 'orders'.*'missing'"):
                runner.advance("1h")
        with pytest.raises(cloaca.TriggerError, match="'missing'"):
            runner.tick("orders")


def test_a_cron_of_a_workflow_that_is_missing_is_raised_with_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @cloaca.trigger(workflow="missing", cron="0 3 * * *")
    def nightly() -> None: ...

    with cloaca.testing.Runner(raise_errors=True) as runner:
        for _ in range(2):
            with pytest.raises(cloaca.TriggerError, match=r"trigger 'nightly' starts workflow 'missing'"):
                runner.advance("1d")
    assert "trigger 'nightly' fired unknown workflow 'missing'" in caplog.text


def test_a_run_that_fails_though_no_task_raised_is_raised() -> None:
    with cloaca.WorkflowBuilder("patient"):

        @cloaca.task()
        def wait(context: Context, handle: TaskHandle) -> None:
            handle.defer_until(lambda: False, 1000)

    config = cloaca.DefaultRunnerConfig(workflow_timeout_seconds=60)
    with cloaca.testing.Runner(config=config, raise_errors=True) as runner:
        run = runner.submit("patient")
        with pytest.raises(cloaca.RunFailedError, match=f"run {run.id} failed: .*60"):
            runner.advance("2m")
        runner.advance("2m")


def test_what_a_trigger_raises_is_raised_once() -> None:
    @cloaca.trigger(workflow="missing", poll_interval="1m")
    def orders() -> bool:
        raise LookupError("feed")

    with cloaca.testing.Runner(raise_errors=True) as runner:
        with pytest.raises(LookupError, match="feed") as found:
            runner.advance("1m")
        assert not [note for note in found.value.__notes__ if note.startswith("and then")]
        runner.run_until_idle()


def test_a_condition_is_looked_at_without_its_pause() -> None:
    is_there = threading.Event()

    with cloaca.WorkflowBuilder("patient"):

        @cloaca.task()
        def wait(context: Context, handle: TaskHandle) -> None:
            handle.defer_until(is_there.is_set, 3_600_000)

    with cloaca.testing.Runner(raise_errors=True) as runner:
        run = runner.submit("patient")
        runner.advance("1m")
        assert run.status != "Completed"
        is_there.set()
        assert run.result(HANG_SECONDS).status == "Completed"


@pytest.mark.parametrize("pause", ["soon", None, True, 0, float("nan")])
def test_a_pause_that_is_no_number_is_refused_by_name(pause: Any) -> None:
    with cloaca.WorkflowBuilder("patient"):

        @cloaca.task(retry_attempts=1)
        def wait(context: Context, handle: TaskHandle) -> None:
            handle.defer_until(lambda: True, pause)

    with (
        cloaca.testing.Runner(raise_errors=True) as runner,
        pytest.raises((ValueError, TypeError), match="poll_interval_ms is"),
    ):
        runner.execute("patient")


def test_a_path_in_the_place_of_the_time_is_refused_with_what_it_means() -> None:
    with pytest.raises(ValueError, match=r"start is '/tmp/x\.db'.*in memory.*DefaultRunner"):
        cloaca.testing.Runner("/tmp/x.db")


def test_what_is_raised_says_how_a_test_is_about_a_failure() -> None:
    again = ValueError("bad file")

    def fails() -> None:
        raise again

    cloaca.trigger(name="it", poll_interval="1m")(fails)
    with cloaca.testing.Runner(raise_errors=True) as runner:
        for _ in range(2):
            with pytest.raises(ValueError, match="bad file") as raised:
                runner.advance("1h")
            notes = raised.value.__notes__
            assert sum("@pytest.mark.cloaca_runner(raise_errors=False)" in note for note in notes) == 1
