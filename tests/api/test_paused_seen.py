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
        assert f"runner {number} is paused, and declares nothing until" in reading.why(reader, "inbox")
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


@pytest.fixture
def crons(path: Path) -> list[str]:
    """And its crons, one declared and one registered."""
    cloaca.trigger(workflow="mail", name="nightly", cron="0 3 * * *", timezone="UTC")(lambda: None)
    cloaca.trigger(workflow="mail", name="reply", on_run="mail")(lambda tick: None)
    with cloaca.DefaultRunner(path) as runner:
        assert eventually(lambda: runner.query("SELECT 1 FROM schedules WHERE name = 'nightly'"))
        return ["nightly", runner.register_cron_workflow("mail", "0 4 * * *", "UTC")]


def test_what_waits_for_a_paused_runner_says_so_and_what_has_it_begin(path: Path, crons: list[str]) -> None:
    with (
        cloaca.DefaultRunner(path, paused=True) as runner,
        cloaca.DefaultRunner(path, work=False) as client,
        reading.Reader(str(path)) as reader,
    ):
        idle = (
            f"runner {runner._engine.runs.owner()} is paused, and declares nothing until resume() is called"
        )
        own = "this runner is paused, until resume() is called"
        now, later = client.submit("mail").id, client.submit("mail", delay="1h").id

        def told_by(program: cloaca.DefaultRunner) -> dict[str, str]:
            whys = {name: program.why(name) for name in ("inbox", "reply", *crons)}
            return whys | {run_id: program.why_run(run_id) for run_id in (now, later)}

        def read() -> dict[str, str]:
            return {name: reading.why(reader, name) for name in ("inbox", "mail", *crons, now, later)}

        assert {name: told for name, told in read().items() if told.count(idle) != 1} == {}
        assert {name: told for name, told in told_by(client).items() if idle not in told} == {}
        assert {name: told for name, told in told_by(runner).items() if own not in told or idle in told} == {}
        with cloaca.DefaultRunner(path, triggers=[], workflows=[]) as other:
            assert {name: told for name, told in read().items() if told.count(idle) != 1} == {}
            assert {name: told for name, told in told_by(other).items() if idle not in told} == {}
        runner.resume()
        assert runner.run(now).result(20.0).status == "Completed"
        whole = {**read(), **told_by(client), **told_by(runner)}
        assert {name: told for name, told in whole.items() if "paused" in told} == {}


def test_beside_one_that_declares_it_a_paused_runner_is_not_waited_for(path: Path, crons: list[str]) -> None:
    with (
        cloaca.DefaultRunner(path),
        cloaca.DefaultRunner(path, paused=True),
        cloaca.DefaultRunner(path, work=False) as client,
        reading.Reader(str(path)) as reader,
    ):
        later = client.submit("mail", delay="1h").id
        assert eventually(lambda: "is polled by runner" in reading.why(reader, "inbox"))
        for name in ("inbox", *crons):
            assert "paused" not in client.why(name) + reading.why(reader, name), name
        assert "paused" not in client.why_run(later) + reading.why(reader, later)


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
