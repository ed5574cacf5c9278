"""A name that was polled and is a cron now, or the other way round, goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flow import WAIT
from program import eventually

import cloaca
import cloaca.testing
from cloaca import reading

KINDS: dict[str, dict[str, Any]] = {
    "polled": {"poll_interval": "1d"},
    "cron": {"cron": "0 3 1 1 *"},
}


def seen_by(path: Path, kind: str, *, fires: bool) -> tuple[Any, bool]:
    """The cursor that a program finds which declares the name as that, and whether it knows of a fire. It
    leaves a cursor one higher."""
    seen: list[tuple[Any, bool]] = []
    with cloaca.testing.isolated():
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="only")(lambda context: None)

        @cloaca.trigger(workflow="w", name="inbox", **KINDS[kind])
        def inbox(tick: cloaca.Tick) -> cloaca.TriggerResult:
            seen.append((tick.cursor, tick.last_fired_at is not None))
            tick.cursor = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire() if fires else cloaca.TriggerResult.skip()

        with cloaca.DefaultRunner(path) as runner:
            if kind == "polled":
                runner.tick("inbox")
            else:
                (cron,) = runner.list_cron_schedules()
                runner.set_cursor("inbox", (runner.cursor("inbox") or 0) + 1)
                row = runner.query("SELECT cursor, last_fired_at FROM schedules WHERE kind = 'cron'")[0]
                assert cron["trigger_name"] == "inbox"
                return int(row["cursor"]) - 1, row["last_fired_at"] is not None
    return seen[0]


@pytest.mark.parametrize("first", ["polled", "cron"])
def test_a_name_that_is_declared_as_the_other_goes_on_with_its_cursor(tmp_path: Path, first: str) -> None:
    path = tmp_path / "runs.db"
    second = "cron" if first == "polled" else "polled"
    cursor, _ = seen_by(path, first, fires=True)
    assert not cursor
    cursor, has_fired = seen_by(path, second, fires=False)
    assert (cursor, has_fired) == (1, first == "polled")
    # From then on it is its own.
    assert seen_by(path, second, fires=False)[0] == 2


@pytest.mark.parametrize("second", ["polled", "cron"])
def test_who_looks_from_outside_finds_the_cursor_that_counts(tmp_path: Path, second: str) -> None:
    """A client, beside the program and after its end, was told of the one that the name had before."""
    path = tmp_path / "runs.db"
    serve(path, "cron" if second == "polled" else "polled", 1)
    serve(path, second, 1_000)
    assert by_client(path) == 1_000


def serve(path: Path, kind: str, cursor: int) -> None:
    """A program that sets the cursor to that, and ends."""
    kinds: dict[str, dict[str, Any]] = {"polled": {"poll_interval": "10ms"}, "cron": {"cron": "* * * * * *"}}
    with cloaca.testing.isolated():
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="only")(lambda context: None)

        @cloaca.trigger(workflow="w", name="inbox", **kinds[kind])
        def inbox(tick: cloaca.Tick) -> cloaca.TriggerResult:
            tick.cursor = cursor
            return cloaca.TriggerResult.skip()

        with cloaca.DefaultRunner(path) as runner:
            assert eventually(lambda: runner.cursor("inbox") == cursor, WAIT)
            assert by_client(path) == cursor


def by_client(path: Path) -> Any:
    with cloaca.testing.isolated(), cloaca.DefaultRunner(path, work=False) as client:
        return client.cursor("inbox")


def test_what_a_deploy_left_behind_is_in_no_list_and_no_count(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    for kind in ("polled", "cron", "polled"):
        seen_by(path, kind, fires=False)
    with cloaca.testing.isolated():
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="only")(lambda context: None)
        cloaca.trigger(workflow="w", name="inbox", poll_interval="1d")(lambda: False)
        with cloaca.DefaultRunner(path) as runner:
            assert [row["trigger_name"] for row in runner.list_trigger_schedules()] == ["inbox"]
            assert runner.list_cron_schedules() == []
            with reading.Reader(path) as reader:
                assert reading.schedule_counts(reader) == reading.Counts(triggers=1, crons=0, enabled=1)
