"""A paused runner as others see it: it lives, and is called by what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from program import eventually

import cloaca
from cloaca import reading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store whose trigger somebody has polled who is gone."""
    with cloaca.WorkflowBuilder("mail"):
        cloaca.task(id="only")(lambda context: None)

    cloaca.trigger(workflow="mail", name="inbox", poll_interval="1h")(lambda: False)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner:
        assert eventually(lambda: runner.query("SELECT 1 FROM schedules WHERE name = 'inbox'"))
    return path


def test_a_paused_runner_is_called_so_until_it_begins(path: Path) -> None:
    with (
        cloaca.DefaultRunner(path, paused=True) as runner,
        cloaca.DefaultRunner(path, work=False) as client,
        reading.Reader(str(path)) as reader,
    ):
        number = runner._engine.runs.owner()

        def state() -> str:
            (row,) = [row for row in client.list_runners() if row["number"] == number]
            return row["state"]

        assert state() == "paused"
        assert [each.standing for each in reading.runners(reader)] == ["client", "paused"]
        assert f"runner {number} is paused, until resume()" in reading.why(reader, "inbox")
        found = [*reading.doctor(reader, brief=True)]
        (told,) = [each for each in found if each.subject == "runners" and "paused" in each.text]
        assert told.level == "bad", "nobody else is there"
        # Who forgets it loses its cursor, and what it declares is known only once it begins.
        assert not any("forget" in (each.way_out or "") for each in found if each.level != "ok")
        (reason,) = [each for each in client.health()["reasons"] if each["code"] == "no_runner"]
        assert "paused until resume()" in reason["text"]
        with cloaca.DefaultRunner(path, triggers=[]):
            found = [*reading.doctor(reader, brief=True)]
            (told,) = [each for each in found if "runner paused" in each.text]
            assert told.level == "warn"
        runner.resume()
        assert state() == "living"
        assert eventually(lambda: "is polled by runner" in reading.why(reader, "inbox"))
        assert not any("runner paused" in each.text for each in reading.doctor(reader, brief=True))


def test_a_paused_runner_gives_signs_of_life(path: Path) -> None:
    with (
        cloaca.DefaultRunner(path, paused=True) as runner,
        cloaca.DefaultRunner(path, work=False) as client,
    ):
        number = runner._engine.runs.owner()

        def seen_at() -> str | None:
            (row,) = [row for row in client.list_runners() if row["number"] == number]
            return row["seen_at"]

        first = seen_at()
        assert first is not None
        assert eventually(lambda: seen_at() != first)
        last = seen_at()
        runner.resume()
        # Or it would be taken for a silent one until its first sign of life, ten seconds later.
        assert (seen_at() or "") >= (last or "")
