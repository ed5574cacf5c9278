"""A cron that a program declares is the one of its name, and runs where it is declared."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from program import Dated, eventually

import cloaca
import cloaca.testing
from cloaca import registry

START = "2026-03-01T00:00:00Z"


def declare(**arguments: Any) -> None:
    """Declares the trigger `nightly` of the workflow `report`, anew or again."""
    if registry.workflow("report") is None:
        with cloaca.WorkflowBuilder("report"):
            cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    cloaca.trigger(workflow="report", name="nightly", **arguments)(lambda: False)


def expressions(runner: cloaca.DefaultRunner) -> list[str]:
    return [row["cron_expression"] for row in runner.list_cron_schedules()]


def moments(runner: Any) -> list[str]:
    """When the workflow ran for a cron."""
    return [context["scheduled_time"][8:16] for context in runner.fired("report")]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


def test_an_edited_expression_takes_the_place_of_the_old() -> None:
    declare(cron="0 3 * * *")
    with cloaca.testing.Runner(START) as runner:
        (before,) = runner.list_cron_schedules()
        runner.advance("1d")
        declare(cron="0 4 * * *")
        (after,) = runner.list_cron_schedules()
        assert after["id"] == before["id"]
        assert after["next_run_at"] == "2026-03-02T04:00:00.000000Z"
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "02T04:00"]


def test_an_expression_that_is_edited_between_two_lives_takes_the_place_of_the_old(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        runner.advance("1d")
    registry.clear()
    declare(cron="0 4 * * *")
    with Dated(url, "2026-03-02T12:00:00Z") as runner:
        assert expressions(runner) == ["0 4 * * *"]
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "03T04:00"]


def test_a_cron_that_no_program_declares_stops_and_makes_up_when_it_is_declared_again(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        runner.advance("1d")
    registry.clear()
    with Dated(url, "2026-03-02T00:00:00Z") as runner:
        runner.advance("2d")
        assert moments(runner) == ["01T03:00"]
        assert expressions(runner) == ["0 3 * * *"], "it is known all the same"
    declare(cron="0 3 * * *")
    with Dated(url, "2026-03-04T12:00:00Z") as runner:
        assert eventually(lambda: len(moments(runner)) == 4)
        assert moments(runner) == ["01T03:00", "02T03:00", "03T03:00", "04T03:00"]


def test_a_cron_that_is_unregistered_stops_at_once() -> None:
    declare(cron="0 3 * * *")
    with cloaca.testing.Runner(START) as runner:
        cloaca.unregister_trigger("nightly")
        runner.advance("2d")
        assert moments(runner) == []
        declare(cron="0 3 * * *")
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "02T03:00", "03T03:00"]


def test_a_polled_trigger_that_is_declared_as_a_cron_is_polled_no_more() -> None:
    declare(poll_interval="1m")
    with cloaca.testing.Runner(START) as runner:
        runner.advance("10m")
        assert runner.polls("nightly") == 10
        declare(cron="0 3 * * *")
        runner.advance("1d")
        assert runner.polls("nightly") == 10
        assert moments(runner) == ["01T03:00"]


def test_a_cron_that_is_declared_as_polled_runs_no_more() -> None:
    declare(cron="0 3 * * *")
    with cloaca.testing.Runner(START) as runner:
        declare(poll_interval="1h")
        runner.advance("1d")
        assert moments(runner) == []
        assert runner.polls("nightly") == 24
        declare(cron="0 3 * * *")
        runner.advance("1d")
        assert runner.polls("nightly") == 24
        assert moments(runner)[-1] == "02T03:00"


def test_a_polled_trigger_that_is_unregistered_is_polled_no_more_and_keeps_its_cursor(url: str) -> None:
    cursors: list[object] = []

    def counting() -> None:
        @cloaca.trigger(name="counter", poll_interval="1m")
        def counter(tick: cloaca.Tick) -> bool:
            cursors.append(tick.cursor)
            tick.cursor = (tick.cursor or 0) + 1
            return False

    counting()
    with Dated(url, START) as runner:
        runner.advance("3m")
        cloaca.unregister_trigger("counter")
        # Until it is let go of, to declare it again is as if nothing had been.
        eventually(lambda: runner.query("SELECT owner FROM schedules")[0]["owner"] is None)
        runner.advance("1h")
        assert cursors == [None, 1, 2]
        counting()
        runner.advance("1m")
        assert cursors == [None, 1, 2, 3, 4], "one poll makes up for the hour in which nobody polled"
    with pytest.raises(cloaca.TriggerError, match="'other' is not declared; known triggers: counter"):
        cloaca.unregister_trigger("other")


def test_what_is_registered_by_a_call_stays_whatever_is_declared(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        (declared,) = runner.list_cron_schedules()
        by_hand = runner.register_cron_workflow("report", "0 3 * * *")
        assert by_hand != declared["id"], "the declared one is known by its name"
        other = runner.register_cron_workflow("report", "0 5 * * *")
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "01T03:00", "01T05:00"]
    registry.clear()
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    with Dated(url, "2026-03-02T00:00:00Z") as runner:
        assert {row["id"] for row in runner.list_cron_schedules()} == {declared["id"], by_hand, other}
        assert eventually(lambda: runner._open().next_due() is not None)
        runner.advance("1d")
        assert moments(runner)[3:] == ["02T03:00", "02T05:00"]


@pytest.mark.parametrize("first", ["declared", "registered"])
def test_a_declared_cron_outlives_a_registered_one_with_the_same_three(url: str, first: str) -> None:
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)
    if first == "declared":
        declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        by_hand = runner.register_cron_workflow("report", "0 3 * * *")
        declare(cron="0 3 * * *")
        assert "runs next at 2026-03-01T03:00" in runner.why("nightly")
        runner.delete_cron_schedule(by_hand)
        runner.advance("1d")
        assert moments(runner) == ["01T03:00"]
        runner.register_cron_workflow("report", "0 3 * * *")
        runner.set_trigger_enabled("nightly", False)
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "02T03:00"]
        runner.set_trigger_enabled("nightly", True)
        cloaca.unregister_trigger("nightly")
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "02T03:00", "03T03:00"]


def test_two_declared_crons_with_the_same_three_are_switched_and_edited_apart(url: str) -> None:
    declare(cron="0 3 * * *")
    cloaca.trigger(workflow="report", name="other", cron="0 3 * * *")(lambda: False)
    with Dated(url, START) as runner:
        runner.set_trigger_enabled("other", False)
        runner.advance("1d")
        assert moments(runner) == ["01T03:00"]
        runner.set_trigger_enabled("other", True)
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "02T03:00", "02T03:00"]
        declare(cron="0 4 * * *")
        (edited, other) = runner.list_cron_schedules()
        runner.update_cron_schedule(other["id"], "0 4 * * *", "UTC")
        runner.update_cron_schedule(edited["id"], "0 4 * * *", "UTC")
        runner.advance("1d")
        assert moments(runner)[3:] == ["03T04:00", "03T04:00"]
        cloaca.unregister_trigger("nightly")
        runner.advance("1d")
        assert moments(runner)[5:] == ["04T04:00"]


def test_what_is_declared_and_registered_by_one_name_is_data(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        by_hand = runner.register_cron_workflow("report", "0 5 * * *", name="nightly")
        declare(cron="0 4 * * *")
        assert expressions(runner) == ["0 5 * * *"]
        cloaca.unregister_trigger("nightly")
        runner.advance("1d")
        assert moments(runner) == ["01T05:00"]
        assert "runs next at 2026-03-02T05:00" in runner.why("nightly")
        with pytest.raises(cloaca.TriggerError, match=f"delete_cron_schedule\\('{by_hand}'\\)"):
            runner.forget("nightly")


def test_an_update_by_a_call_holds_until_the_declaration_itself_changes(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        (row,) = runner.list_cron_schedules()
        runner.update_cron_schedule(row["id"], "0 6 * * *", "UTC")
    with Dated(url, START) as runner:
        assert expressions(runner) == ["0 6 * * *"]
        declare(cron="0 4 * * *")
        assert expressions(runner) == ["0 4 * * *"]


def test_what_was_missed_by_an_expression_that_changed_is_told_and_not_decided_by_the_new_one(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    declare(cron="0 */6 * * *")
    with Dated(url, START) as runner:
        runner.advance("6h")
    registry.clear()
    declare(cron="30 */6 * * *")
    caplog.clear()
    with Dated(url, "2026-03-03T00:10:00Z") as runner:
        runner.advance("1h")
        assert moments(runner) == ["01T06:00", "03T00:30"]
    (told,) = [record for record in caplog.records if "made up for" in record.message]
    assert told.levelname == "WARNING"
    assert told.message == (
        "trigger 'nightly': its expression was '0 */6 * * *' in 'UTC', and what was due by it from"
        " 2026-03-01T12:00:00.000000Z on, and missed, is not made up for; it runs next at"
        " 2026-03-03T00:30:00.000000Z"
    )


@pytest.mark.parametrize("catchup", ["all", "none"])
def test_an_expression_that_changes_when_nothing_was_missed_is_no_news(
    url: str, caplog: pytest.LogCaptureFixture, catchup: str
) -> None:
    declare(cron="0 */6 * * *", catchup=catchup)
    with Dated(url, START):
        pass
    registry.clear()
    declare(cron="30 */6 * * *", catchup=catchup)
    caplog.clear()
    with Dated(url, "2026-03-01T07:00:00Z" if catchup == "none" else "2026-03-01T01:00:00Z"):
        pass
    assert not [record for record in caplog.records if "made up for" in record.message]


def test_what_was_missed_is_made_up_for_by_another_workflow_of_the_same_times(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        runner.advance("1d")
    registry.clear()
    with cloaca.WorkflowBuilder("other"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="other", name="nightly", cron="0 3 * * *")(lambda: False)
    with Dated(url, "2026-03-03T12:00:00Z") as runner:
        runner.run_until_idle()
        ran = [context["scheduled_time"][8:16] for context in runner.fired("other")]
        assert ran == ["02T03:00", "03T03:00"]


def test_what_was_switched_off_stays_off_when_its_expression_changes(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        (row,) = runner.list_cron_schedules()
        runner.set_cron_schedule_enabled(row["id"], False)
        declare(cron="0 4 * * *")
        (row,) = runner.list_cron_schedules()
        assert (row["cron_expression"], row["enabled"]) == ("0 4 * * *", False)
        runner.advance("1d")
        assert moments(runner) == []


def of_old_release(url: str) -> None:
    """Two schedules of `nightly`, one for each expression that it ever had, as release 0.1.0 left them."""
    for expression in ("0 3 * * *", "0 4 * * *"):
        declare(cron=expression)
        with Dated(url, START):
            pass
        with closing(sqlite3.connect(url)) as db, db:
            db.execute("UPDATE schedules SET declared_as = NULL")
            db.execute("UPDATE schedules SET name = 'kept' WHERE name = 'nightly'")
        db.close()
        registry.clear()
    with closing(sqlite3.connect(url)) as db, db:
        db.execute("UPDATE schedules SET name = 'nightly'")
    db.close()


def test_crons_of_release_0_1_0_go_on_with_a_warning(url: str, caplog: pytest.LogCaptureFixture) -> None:
    of_old_release(url)
    caplog.clear()
    declare(poll_interval="1h")
    registry.triggers.clear()
    with Dated(url, START) as runner:
        assert eventually(lambda: runner._open().next_due() is not None)
        runner.advance("1d")
        assert moments(runner) == ["01T03:00", "01T04:00"]
    warned = [record.message for record in caplog.records if "release 0.1.0" in record.message]
    assert len(warned) == 2
    assert all("forget('nightly')" in message for message in warned)


def test_of_crons_of_release_0_1_0_the_declared_one_is_left(url: str) -> None:
    of_old_release(url)
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        assert expressions(runner) == ["0 3 * * *"]
        runner.advance("1d")
        assert moments(runner) == ["01T03:00"]


def test_the_name_of_a_cron_is_switched_as_that_of_a_poll() -> None:
    declare(cron="0 3 * * *")
    with cloaca.testing.Runner(START) as runner:
        runner.set_trigger_enabled("nightly", False)
        runner.advance("1d")
        assert moments(runner) == []
        runner.set_trigger_enabled("nightly", True)
        runner.advance("1d")
        assert moments(runner) == ["02T03:00"]
        with pytest.raises(cloaca.TriggerError, match="'other' not found"):
            runner.set_trigger_enabled("other", True)


def test_why_tells_of_a_cron_what_it_waits_for(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        says = "trigger 'nightly' is a cron, '0 3 * * *' in 'UTC',"
        after = "runs next at 2026-03-01T03:00:00.000000Z; it has not run yet"
        assert runner.why("nightly") == f"{says} and {after}"
        runner.advance("1d")
        assert runner.why("nightly").endswith("; it ran last at 2026-03-01T03:00:00.000000Z")
        runner.set_trigger_enabled("nightly", False)
        assert "was switched off at 2026-03-02T00:00:00.000000Z" in runner.why("nightly")
        runner.set_trigger_enabled("nightly", True)
        cloaca.unregister_trigger("nightly")
        assert "this program does not declare" in runner.why("nightly")
        declare(poll_interval="1m")
        runner.advance("1m")
        assert "skipped at its last poll" in runner.why("nightly")


def test_a_tick_runs_a_cron_once_beside_its_calendar(url: str) -> None:
    declare(cron="0 3 * * *", timezone="Europe/Berlin")
    with Dated(url, "2026-03-01T00:30:00Z") as runner:
        (schedule,) = runner.list_cron_schedules()
        context = {
            "scheduled_time": "2026-03-01T00:30:00.000000Z",
            "schedule_id": schedule["id"],
            "schedule_timezone": "Europe/Berlin",
            "schedule_expression": "0 3 * * *",
        }
        expected = {
            "outcome": "fire",
            "reason": None,
            "fires": [{"context": context, "run_key": None}],
            "cursor": None,
        }
        looked = runner.tick("nightly", dry_run=True)
        assert looked["fires"][0].pop("gate") == {"verdict": "run", "run": None, "reason": None}
        assert looked == expected
        assert runner.list_runs() == []
        assert runner.tick("nightly") == expected
        assert [row["context"] for row in runner.list_runs()] == [context]
        assert runner.list_cron_schedules() == [schedule]
        runner.advance("1d")
        assert moments(runner) == ["01T02:00"]
        assert set(runner.list_runs()[0]["context"]) == set(context)


def test_a_tick_of_a_cron_says_that_nobody_declares_its_workflow(url: str) -> None:
    declare(cron="0 3 * * *")
    with Dated(url, START) as runner:
        cloaca.unregister_workflow("report")
        answer = runner.tick("nightly")
        assert (answer["outcome"], answer["fires"]) == ("error", [])
        assert "starts workflow 'report', which this program does not declare" in answer["reason"]
        assert runner.list_runs() == []
        cloaca.unregister_trigger("nightly")
        with pytest.raises(cloaca.TriggerError, match="'nightly'"):
            runner.tick("nightly")
