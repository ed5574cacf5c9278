"""What is declared no more: `forget`, `unregister_workflow`, and what listings say of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from flow import WAIT, declare
from program import Dated, eventually

import cloaca
import cloaca.testing
from cloaca import registry

START = "2026-03-01T00:00:00Z"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


def counting(cursors: list[object]) -> None:
    @cloaca.trigger(workflow="report", name="inbox", poll_interval="1m")
    def counter(tick: cloaca.Tick) -> cloaca.TriggerResult:
        cursors.append(tick.cursor)
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor}, run_key=f"n{tick.cursor}")


def test_what_is_forgotten_begins_as_if_it_had_never_been_and_keeps_its_runs(url: str) -> None:
    declare("report")
    cursors: list[object] = []
    counting(cursors)
    with Dated(url, START) as runner:
        runner.advance("2m")
        with pytest.raises(
            cloaca.TriggerError, match=r"is declared in this program; call cloaca.unregister_tr"
        ):
            runner.forget("inbox")
        cloaca.unregister_trigger("inbox")
        runner.set_trigger_enabled("inbox", False)
        runner.forget("inbox")
        assert runner.get_trigger_schedule("inbox") is None
        assert runner.query("SELECT * FROM ticks") == runner.query("SELECT * FROM run_keys") == []
        assert [row["status"] for row in runner.list_runs()] == ["Completed"] * 2
        with pytest.raises(cloaca.TriggerError, match="'inbox' not found; known triggers: none"):
            runner.forget("inbox")
        counting(cursors)
        runner.advance("5m")
        # Its run keys are gone as well: what they stood for runs once more.
        assert cursors[:4] == [None, 1, None, 1]
        assert len(runner.list_runs()) == len(cursors)


def test_what_is_renamed_goes_on_where_it_ended(url: str) -> None:
    declare("report")
    cursors: list[object] = []
    counting(cursors)
    with Dated(url, START) as runner:
        runner.advance("2m")
        with pytest.raises(cloaca.TriggerError, match=r"is declared in this program"):
            runner.rename("inbox", "outbox")
        cloaca.unregister_trigger("inbox")
        runner.rename("inbox", "outbox")
        assert runner.get_trigger_schedule("inbox") is None
        assert runner.cursor("outbox") == 2
        with pytest.raises(cloaca.TriggerError, match="'inbox' not found"):
            runner.rename("inbox", "outbox")

    @cloaca.trigger(workflow="report", name="outbox", poll_interval="1m")
    def renamed() -> list[cloaca.TriggerResult]:
        return [cloaca.TriggerResult.fire({"n": n}, run_key=f"n{n}") for n in (1, 2, 3)]

    with Dated(url, "2026-03-01T00:10:00Z") as runner:
        runner.advance("1m")
        # Two of the three keys were given under the old name.
        assert sorted(context["n"] for context in runner.fired("report")) == [1, 2, 3]
        assert len(runner.get_trigger_execution_history("outbox")) == 3


def test_equal_contexts_are_equal_under_the_new_name(url: str) -> None:
    """A rename forgot that: the first poll under the new name started a second unfinished run of each."""
    entered, go = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("report"):

        @cloaca.task()
        def body(context: cloaca.Context) -> None:
            entered.set()
            go.wait(WAIT)

    def equal() -> list[cloaca.TriggerResult]:
        return [cloaca.TriggerResult.fire({"a": 1}), cloaca.TriggerResult.fire({"b": 1}, dedup_key="k")]

    cloaca.trigger(workflow="report", name="inbox", poll_interval="10ms")(equal)
    with cloaca.DefaultRunner(url) as runner:
        assert entered.wait(WAIT)
        assert eventually(lambda: len(runner.list_runs()) == 2)
        cloaca.unregister_trigger("inbox")
        assert eventually(lambda: renamed(runner))
        cloaca.trigger(workflow="report", name="outbox", poll_interval="10ms")(equal)
        assert eventually(lambda: runner.stats()["deduplicated"] > 3 and runner.ticks("outbox") != [])
        count = len(runner.list_runs())
        go.set()
    assert count == 2


def test_what_is_in_its_body_still_is_not_renamed(url: str) -> None:
    declare("report")
    entered, go = threading.Event(), threading.Event()

    def inbox() -> cloaca.TriggerResult:
        entered.set()
        go.wait(WAIT)
        return cloaca.TriggerResult.fire({"n": 1}, run_key="n1")

    cloaca.trigger(workflow="report", name="inbox", poll_interval="1ms")(inbox)
    with cloaca.DefaultRunner(url) as runner:
        assert entered.wait(WAIT)
        cloaca.unregister_trigger("inbox")
        with pytest.raises(cloaca.TriggerError, match="'inbox' is in its body still"):
            runner.rename("inbox", "outbox")
        go.set()
        assert eventually(lambda: len(runner.list_runs()) == 1)
        assert eventually(lambda: renamed(runner))
        assert len(runner.get_trigger_execution_history("outbox")) == 1


def renamed(runner: cloaca.DefaultRunner) -> bool:
    try:
        runner.rename("inbox", "outbox")
    except cloaca.TriggerError:
        return False
    return True


def test_a_renamed_cron_makes_up_for_what_its_old_name_missed(url: str) -> None:
    declare("report")

    def daily(name: str) -> None:
        cloaca.trigger(workflow="report", name=name, cron="0 3 * * *", catchup="all")(lambda: True)

    daily("daily")
    with Dated(url, START) as runner:
        runner.advance("1d")
    cloaca.unregister_trigger("daily")
    with Dated(url, "2026-03-03T04:00:00Z") as runner:
        runner.rename("daily", "nightly")
    daily("nightly")
    with Dated(url, "2026-03-03T05:00:00Z") as runner:
        runner.advance("1h")
        days = [context["scheduled_time"][8:10] for context in runner.fired("report")]
        assert days == ["01", "02", "03"]
    # Back again, as a deploy that is taken back: nothing runs twice.
    cloaca.unregister_trigger("nightly")
    with Dated(url, "2026-03-03T07:00:00Z") as runner:
        runner.rename("nightly", "daily")
    daily("daily")
    with Dated(url, "2026-03-03T08:00:00Z") as runner:
        runner.advance("1d")
        days = [context["scheduled_time"][8:10] for context in runner.fired("report")]
        assert days == ["01", "02", "03", "04"]


def test_a_declared_cron_that_is_forgotten_makes_up_for_nothing(url: str) -> None:
    declare("report")

    def nightly() -> None:
        cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *")(lambda: False)

    nightly()
    with Dated(url, START) as runner:
        cloaca.unregister_trigger("nightly")
        runner.advance("3d")
        runner.forget("nightly")
        assert runner.list_cron_schedules() == []
        nightly()
        runner.advance("1d")
        assert [context["scheduled_time"][8:16] for context in runner.fired("report")] == ["04T03:00"]


def test_a_trigger_that_another_runner_polls_is_not_forgotten(url: str) -> None:
    cloaca.trigger(workflow="report", name="inbox", poll_interval="24h")(lambda: False)
    with cloaca.DefaultRunner(url) as polling:
        assert eventually(lambda: polling.get_trigger_schedule("inbox") is not None)
        (owner,) = (row["owner"] for row in polling.query("SELECT owner FROM schedules"))
        # As another program would see it, which does not declare it.
        registry.triggers.clear()
        with cloaca.DefaultRunner(url) as other:
            with pytest.raises(cloaca.TriggerError, match=f"is served by runner {owner} of this store"):
                other.forget("inbox")
            assert other.get_trigger_schedule("inbox") is not None


def test_a_trigger_is_forgotten_while_its_poll_is_in_flight(url: str) -> None:
    declare("report")
    entered, go = threading.Event(), threading.Event()

    @cloaca.trigger(workflow="report", name="inbox", poll_interval="1ms")
    def inbox() -> bool:
        entered.set()
        return go.wait(WAIT)

    with cloaca.DefaultRunner(url) as runner:
        assert entered.wait(WAIT)
        cloaca.unregister_trigger("inbox")
        runner.forget("inbox")
        go.set()
    with cloaca.DefaultRunner(url) as runner:
        assert runner.list_trigger_schedules() == runner.list_runs() == []


def test_what_is_forgotten_in_flight_and_declared_again_is_polled_anew(url: str) -> None:
    declare("report")
    entered, go = threading.Event(), threading.Event()
    cursors: list[object] = []

    def declare_inbox() -> None:
        @cloaca.trigger(workflow="report", name="inbox", poll_interval="1ms")
        def inbox(tick: cloaca.Tick) -> cloaca.TriggerResult:
            cursors.append(tick.cursor)
            entered.set()
            go.wait(WAIT)
            number = tick.cursor or 0
            return cloaca.TriggerResult.fire({"n": number}, cursor=number + 1)

    declare_inbox()
    with cloaca.DefaultRunner(url) as runner:
        assert entered.wait(WAIT)
        cloaca.unregister_trigger("inbox")
        runner.forget("inbox")
        declare_inbox()
        go.set()
        eventually(lambda: cursors[:4] == [None, None, 1, 2])


def test_what_a_test_has_put_aside_is_not_forgotten(url: str) -> None:
    cloaca.trigger(name="inbox", poll_interval="1ms")(lambda: False)
    with cloaca.DefaultRunner(url) as runner:
        with (
            cloaca.testing.isolated(),
            pytest.raises(cloaca.TriggerError, match="declared in this program"),
        ):
            runner.forget("inbox")
        eventually(lambda: bool(runner.ticks("inbox")))


def test_listings_say_what_this_program_declares(url: str) -> None:
    declare("report")
    cloaca.trigger(workflow="report", name="inbox", poll_interval="24h")(lambda: False)
    cloaca.trigger(workflow="report", name="nightly", cron="0 3 * * *")(lambda: False)
    with Dated(url, START) as runner:
        by_hand = runner.register_cron_workflow("report", "0 4 * * *")

        def declared() -> list[tuple[str | None, bool]]:
            found = runner.list_trigger_schedules() + runner.list_cron_schedules()
            return [(row["trigger_name"], row["declared"]) for row in found]

        assert declared() == [("inbox", True), ("nightly", True), (None, False)]
        assert runner.get_cron_schedule(by_hand)["declared"] is False
        cloaca.unregister_trigger("inbox")
        cloaca.unregister_trigger("nightly")
        assert declared() == [("inbox", False), ("nightly", False), (None, False)]
        row = runner.get_trigger_schedule("inbox")
        assert row is not None
        assert row["declared"] is False


def test_a_workflow_that_is_unregistered_starts_no_more_and_ends_what_it_began(url: str) -> None:
    entered, go = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        entered.set()
        assert go.wait(WAIT)

    declare("report", body)
    with cloaca.DefaultRunner(url) as runner:
        run = runner.submit("report")
        assert entered.wait(WAIT)
        cloaca.unregister_workflow("report")
        with pytest.raises(cloaca.WorkflowError, match="no living runner declares workflow 'report'"):
            runner.execute("report")
        go.set()
        assert run.result(WAIT).status == "Completed"
        with pytest.raises(cloaca.WorkflowError, match="'report' is not declared; known workflows: none"):
            cloaca.unregister_workflow("report")
        declare("report")
        assert runner.execute("report").status == "Completed"


def test_a_trigger_of_an_unregistered_workflow_fails_until_it_is_declared_again() -> None:
    declare("report")
    cloaca.trigger(workflow="report", name="inbox", poll_interval="1m")(lambda: True)
    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
        cloaca.unregister_workflow("report")
        runner.advance("1m")
        assert len(runner.list_runs()) == 1
        assert "starts workflow 'report', which this program does not declare" in runner.why("inbox")
        declare("report")
        runner.advance("1h")
        assert len(runner.list_runs()) > 1
