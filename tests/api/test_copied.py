"""Who opens a copy of a store is told what goes on there, once it matters: nobody has served it since."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

import cloaca

COPY = re.compile(
    r"this store is a copy, made at 20\d\d-[-0-9T:.]+Z, and goes on from there"
    r" (from now on|once resume\(\) is called): 1 unfinished run, 2 triggers, 1 cron, each if its program is"
    r" here\. If the original is served too, both do the same work"
)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A store with something of each kind."""
    with cloaca.WorkflowBuilder("mail"):
        cloaca.task(id="send")(lambda context: None)
    for name in ("inbox", "outbox"):
        cloaca.trigger(workflow="mail", poll_interval="1h", name=name)(lambda: False)
    with cloaca.DefaultRunner(tmp_path / "first.db") as runner:
        runner.register_cron_workflow("mail", "0 3 1 1 *")
        runner.submit("mail", delay="1h")
        while runner.get_trigger_schedule("outbox") is None or runner.get_trigger_schedule("inbox") is None:
            pass
        runner.export(tmp_path / "exported.db")
    cloaca.copy_store(tmp_path / "first.db", tmp_path / "copied.db")
    return tmp_path


def told(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    found = [record.getMessage() for record in caplog.records if part in record.getMessage()]
    caplog.clear()
    return found


@pytest.mark.parametrize("name", ["exported.db", "copied.db"])
@pytest.mark.parametrize("paused", [True, False])
def test_a_copy_says_what_goes_on_until_somebody_has_served_it(
    served: Path, name: str, paused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with cloaca.DefaultRunner(served / name, work=False):
        assert told(caplog, "a copy") == []
    with cloaca.DefaultRunner(served / name, paused=paused):
        (line,) = told(caplog, "a copy")
        found = COPY.fullmatch(line)
        assert found is not None
        assert found[1] == ("once resume() is called" if paused else "from now on")
    with cloaca.DefaultRunner(served / name):
        assert told(caplog, "a copy") == []
    with cloaca.DefaultRunner(served / "first.db"):
        assert told(caplog, "a copy") == []


@pytest.mark.parametrize("name", ["exported.db", "copied.db"])
def test_of_several_runners_that_open_a_copy_together_one_says_so(
    served: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with cloaca.DefaultRunner(served / name):
        assert len(told(caplog, "a copy")) == 1
        with cloaca.DefaultRunner(served / name):
            assert told(caplog, "a copy") == []


def test_a_paused_runner_says_in_the_log_that_it_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cloaca")
    with cloaca.DefaultRunner(tmp_path / "runs.db", paused=True):
        assert told(caplog, "runner 1 is open and paused: nothing begins until resume()") != []


def test_more_is_not_counted_to_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, served: Path
) -> None:
    monkeypatch.setattr("cloaca.copied._COUNTED_MAX", 1)
    lines: list[Any] = []
    monkeypatch.setattr("cloaca.crew.Crew.warn", lambda crew, text: lines.append(text))
    with cloaca.DefaultRunner(served / "copied.db", paused=True):
        pass
    assert "1 unfinished run, more than 1 triggers, 1 cron" in lines[0]
