"""A cron that a call registers by the name of a declared one: it takes that over, and gives it back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import Dated, eventually

import cloaca
import cloaca.testing
from cloaca import registry

START = "2026-03-01T00:00:00Z"
BODIES = pytest.mark.parametrize("how", ["plain", "body"])


@pytest.fixture(autouse=True)
def workflows() -> None:
    for name in ("declared", "registered"):
        with cloaca.WorkflowBuilder(name):
            cloaca.task(id="only", retry_attempts=1)(lambda context: None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


def declare(how: str, seen: list[str] | None = None, cron: str = "0 3 * * *") -> None:
    """The cron `nightly` at three; its body, if it has one, notes for which moments it is called."""

    def body(tick: cloaca.Tick) -> dict[str, str]:
        if seen is not None:
            seen.append(tick.scheduled_at[8:16])
        return {"by": "body"}

    function: Callable[..., Any] = body if how == "body" else lambda: None
    cloaca.trigger(workflow="declared", name="nightly", cron=cron)(function)


def register(runner: cloaca.DefaultRunner, **arguments: Any) -> str:
    return runner.register_cron_workflow("registered", "0 5 * * *", name="nightly", **arguments)


def moments(runner: Any, workflow: str) -> list[str]:
    return [context["scheduled_time"][8:16] for context in runner.fired(workflow)]


@BODIES
def test_what_is_registered_starts_its_own_workflow_with_its_own_context(how: str) -> None:
    seen: list[str] = []
    declare(how, seen)
    with cloaca.testing.Runner(START) as runner:
        schedule = register(runner, context={"given": True})
        assert runner.tick("nightly", dry_run=True)["fires"][0]["context"]["given"]
        runner.advance("1d")
        assert moments(runner, "declared") == []
        assert moments(runner, "registered") == ["01T05:00"]
        (context,) = runner.fired("registered")
        assert context["given"]
        assert "by" not in context
        runner.backfill(schedule, "2026-02-27T00:00:00Z", "2026-02-28T00:00:00Z")
        assert moments(runner, "registered") == ["01T05:00", "27T05:00"]
        assert seen == [], "what is data is not decided by a function"


@BODIES
def test_what_is_declared_goes_on_once_what_is_registered_is_deleted(how: str) -> None:
    seen: list[str] = []
    declare(how, seen)
    with cloaca.testing.Runner(START) as runner:
        runner.delete_cron_schedule(register(runner))
        (row,) = runner.list_cron_schedules()
        assert (row["workflow_name"], row["cron_expression"]) == ("declared", "0 3 * * *")
        assert (row["declared"], row["registered"], row["context"]) == (True, False, None)
        assert "runs next at 2026-03-01T03:00" in runner.why("nightly")
        runner.advance("2d")
        assert moments(runner, "declared") == ["01T03:00", "02T03:00"]
        assert seen == (["01T03:00", "02T03:00"] if how == "body" else [])


@BODIES
def test_it_goes_on_as_it_was_declared_last(how: str) -> None:
    declare(how)
    with cloaca.testing.Runner(START) as runner:
        schedule = register(runner)
        declare(how, cron="0 4 * * *")
        runner.delete_cron_schedule(schedule)
        runner.advance("1d")
        assert moments(runner, "declared") == ["01T04:00"]


@BODIES
def test_it_goes_on_in_a_later_life_too(url: str, how: str) -> None:
    declare(how)
    with Dated(url, START) as runner:
        schedule = register(runner)
    with Dated(url, START) as runner:
        runner.delete_cron_schedule(schedule)
        runner.advance("1d")
        assert moments(runner, "declared") == ["01T03:00"]


@BODIES
def test_it_goes_on_where_it_is_declared_if_another_runner_deletes_what_was_registered(
    url: str, how: str
) -> None:
    each_second = "* * * * * *"
    declare(how, cron=each_second)
    with cloaca.DefaultRunner(url) as runner, cloaca.DefaultRunner(url, paused=True) as other:
        schedule = other.register_cron_workflow("registered", each_second, name="nightly")
        assert eventually(lambda: runner.list_runs("registered"))
        other.delete_cron_schedule(schedule)
        assert eventually(lambda: [row["registered"] for row in other.list_cron_schedules()] == [False])
        before = len(runner.list_runs("declared"))
        assert eventually(lambda: len(runner.list_runs("declared")) > before)


def test_what_nobody_declares_stays_deleted(url: str) -> None:
    declare("plain")
    with cloaca.testing.Runner(START) as runner:
        schedule = register(runner)
        cloaca.unregister_trigger("nightly")
        runner.delete_cron_schedule(schedule)
        assert runner.list_cron_schedules() == []
        runner.advance("1d")
        assert runner.list_runs() == []


def test_a_cron_is_not_deleted_while_a_living_program_declares_it(url: str) -> None:
    declare("plain")
    with Dated(url, START) as runner:
        (row,) = runner.list_cron_schedules()
        refused = (
            "'nightly' is declared in this program; call cloaca.unregister_trigger('nightly') first,"
            f" or switch it off with set_cron_schedule_enabled('{row['id']}', False)"
        )
        with pytest.raises(cloaca.ScheduleError, match=re.escape(refused)):
            runner.delete_cron_schedule(row["id"])
        with cloaca.DefaultRunner(url, triggers=[], workflows=[]) as other:
            number = runner._open().runs.owner()
            refused = f"'nightly' is declared by runner {number} of this store; unregister it there first"
            with pytest.raises(cloaca.ScheduleError, match=refused):
                other.delete_cron_schedule(row["id"])
        runner.advance("1d")
        assert moments(runner, "declared") == ["01T03:00"]
        cloaca.unregister_trigger("nightly")
        runner.delete_cron_schedule(row["id"])
        assert runner.list_cron_schedules() == []
        declare("plain")
        runner.advance("1d")
        assert moments(runner, "declared") == ["01T03:00", "02T03:00"], "it begins anew"


def test_a_cron_of_a_program_that_is_gone_can_be_deleted(url: str) -> None:
    declare("plain")
    with Dated(url, START) as runner:
        (row,) = runner.list_cron_schedules()
    registry.clear()
    with Dated(url, START) as runner:
        runner.delete_cron_schedule(row["id"])
        assert runner.list_cron_schedules() == []


def test_what_is_registered_for_a_workflow_that_nobody_declares_is_told_at_the_next_start(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with cloaca.DefaultRunner(url) as runner:
        runner.register_cron_workflow("gone", "0 3 * * *", name="monthly")
        unnamed = runner.register_cron_workflow("gone", "30 5 * * *", "Europe/Berlin")
        off = runner.register_cron_workflow("gone", "0 6 * * *")
        runner.set_cron_schedule_enabled(off, False)
        runner.register_cron_workflow("registered", "0 6 * * *")
        cloaca.trigger(workflow="gone", cron="0 7 * * *", name="declared")(lambda: None)
    told = (
        "crons start workflows that no living runner declares: 'monthly' (workflow 'gone'), '30 5 * * * in"
        " Europe/Berlin' (workflow 'gone'); declare these workflows, or delete the crons"
    )

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        return [line for line in found if "no living runner declares" in line]

    caplog.clear()
    with cloaca.DefaultRunner(url) as runner:
        assert eventually(lambda: lines() == [told])
        assert "starts workflow 'gone', which this program does not declare" in runner.why("monthly")
        told = runner.why(unnamed)
        assert f"cron '{unnamed}', '30 5 * * *' in 'Europe/Berlin', and starts workflow 'gone', which" in told
        assert "this program does not declare: nothing starts until it does" in told
    # Of what another runner declares nobody says anything.
    with cloaca.WorkflowBuilder("gone"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(url, workflows=["gone"], triggers=[]) as other:
        other.register_cron_workflow("lost", "0 8 * * *")
        assert "and runs next at" in other.why("monthly")
        caplog.clear()
        with cloaca.DefaultRunner(url, workflows=["registered"], triggers=[]):
            assert eventually(lambda: len(lines()) >= 1)
    assert lines()[0].startswith(
        "crons start workflows that no living runner declares: '0 8 * * * in UTC' (workflow 'lost'); declare"
    )


def test_an_unnamed_cron_of_an_unknown_workflow_is_told_by_its_expression(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with cloaca.testing.Runner(START) as runner:
        runner.register_cron_workflow("gone", "0 3 * * *")
        runner.advance("1d")
        assert any("'0 3 * * * in UTC' fired unknown workflow 'gone'" in line for line in caplog.messages)


def test_a_client_registers_for_what_a_living_runner_declares_without_a_warning(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        cloaca.DefaultRunner(url, workflows=["registered"], triggers=[]) as runner,
        cloaca.testing.isolated(),
        cloaca.DefaultRunner(url, work=False) as client,
    ):
        assert runner.execute("registered").status == "Completed"
        assert eventually(lambda: runner.query("SELECT 1 FROM workflows") != [])
        register(client)
        assert "does not declare" not in caplog.text
        assert "where its workflow is declared, 'registered'" in client.why("nightly")
        client.register_cron_workflow("gone", "0 5 * * *")
        assert "cron '0 5 * * *' starts workflow 'gone', which this program does not declare" in caplog.text
        client.register_cron_workflow("gone", "0 6 * * *", name="early")
        assert "cron 'early', '0 6 * * *', starts workflow 'gone', which" in caplog.text


def test_a_name_that_no_cron_has_is_told_with_those_that_there_are() -> None:
    with cloaca.testing.Runner(START) as runner:
        register(runner)
        refusal = r"Invalid schedule ID: .*; did you mean 'nightly'\? known crons: nightly"
        with pytest.raises(cloaca.ScheduleError, match=refusal):
            runner.delete_cron_schedule("nigthly")
