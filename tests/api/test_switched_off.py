"""A trigger that was switched off and is declared again says in the log that it is off, and since when."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from program import eventually

import cloaca
import cloaca.testing
from cloaca.rows import moment


@pytest.fixture(autouse=True)
def workflow() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)


def declare(how: dict[str, Any]) -> None:
    cloaca.trigger(workflow="w", name="it", **how)(lambda: False)


POLLED = {"poll_interval": "1h"}
DAILY = {"cron": "@daily"}
HOWS = pytest.mark.parametrize("how", [POLLED, DAILY])


@HOWS
def test_a_start_tells_of_what_is_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: dict[str, Any]
) -> None:
    declare(how)
    cloaca.trigger(workflow="w", name="on", **how)(lambda: False)

    def switch(runner: cloaca.DefaultRunner, enabled: bool) -> bool:
        try:
            runner.set_trigger_enabled("it", enabled)
        except cloaca.TriggerError:
            return False
        return True

    with cloaca.DefaultRunner(tmp_path / "a.db") as runner:
        assert eventually(lambda: switch(runner, False))
        row = runner.query("SELECT disabled_at FROM schedules WHERE name = 'it'")[0]
    assert "is off" not in caplog.text
    since = moment(row["disabled_at"])
    with caplog.at_level(logging.WARNING, "cloaca"), cloaca.DefaultRunner(tmp_path / "a.db") as runner:
        pass
    told = [record for record in caplog.records if "is off" in record.message]
    assert [record.message for record in told] == [
        f"trigger 'it' is declared, and is off since {since}: set_trigger_enabled switched it off"
    ]
    assert {record.cloaca_trigger for record in told} == {"it"}  # type: ignore[attr-defined]


@HOWS
def test_a_declaration_in_a_living_runner_tells_so_too(
    caplog: pytest.LogCaptureFixture, how: dict[str, Any]
) -> None:
    declare(how)
    with cloaca.testing.Runner() as runner:
        runner.set_trigger_enabled("it", False)
        cloaca.unregister_trigger("it")
        assert "is off" not in caplog.text
        declare(how)
        assert "trigger 'it' is declared, and is off since 2026-01-01T00:00:00" in caplog.text


def test_it_says_so_of_what_the_engine_has_disabled(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> bool:
        raise OSError("gone")

    def again() -> None:
        cloaca.trigger(workflow="w", name="it", poll_interval="1m", max_consecutive_failures=1)(fails)

    again()
    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
        caplog.clear()
        again()
        why = "the engine disabled it because 1 polls"
        assert f"is off since 2026-01-01T00:01:00.000000Z: {why}" in caplog.text


@pytest.mark.parametrize(("before", "after"), [(POLLED, DAILY), (DAILY, POLLED)])
def test_what_is_off_stays_off_when_a_deploy_makes_a_cron_of_it_or_polls_it(
    caplog: pytest.LogCaptureFixture, before: dict[str, Any], after: dict[str, Any]
) -> None:
    polls: list[str] = []

    def deploy(how: dict[str, Any]) -> None:
        @cloaca.trigger(workflow="w", name="it", **how)
        def it(tick: cloaca.Tick) -> dict[str, Any]:
            polls.append(tick.trigger_name)
            return {}

    deploy(before)
    with cloaca.testing.Runner() as runner:
        runner.set_trigger_enabled("it", False)
        cloaca.unregister_trigger("it")
        runner.advance("1h")
        caplog.clear()
        deploy(after)
        assert caplog.text.count("trigger 'it' is declared, and is off since 2026-01-01T00:00:00") == 1
        runner.advance("2d")
        assert polls == []
        assert "off at 2026-01-01T00:00:00" in runner.why("it")
        runner.set_trigger_enabled("it", True)
        runner.advance("1d")
        assert polls
        # What was missed while it was off stays missed.
        assert after is POLLED or len(polls) == 1


def test_an_edit_of_what_is_off_does_not_move_since_when(caplog: pytest.LogCaptureFixture) -> None:
    declare(DAILY)
    with cloaca.testing.Runner() as runner:
        runner.set_trigger_enabled("it", False)
        runner.advance("1h")
        caplog.clear()
        declare({"cron": "@hourly"})
        assert "is off since 2026-01-01T00:00:00" in caplog.text
        row = runner.get_cron_schedule("it")
        assert row["cron_expression"] == "@hourly"
        assert row["disabled_at"] == "2026-01-01T00:00:00.000000Z" != row["updated_at"]
        runner.set_trigger_enabled("it", True)
        assert runner.get_cron_schedule("it")["disabled_at"] is None
