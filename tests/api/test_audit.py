"""The audit list: which changes people made, by which door."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from flow import WAIT, Gate, declare

import cloaca
from cloaca import audit, reading


@pytest.fixture
def runner(tmp_path: Path) -> cloaca.DefaultRunner:
    declare("w", lambda context: None)

    def bad(context: cloaca.Context) -> None:
        raise ValueError

    declare("bad", bad, retry_attempts=1)
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1h")(lambda: False)
    return cloaca.DefaultRunner(tmp_path / "runs.db")


def told(runner: cloaca.DefaultRunner, **which: str) -> list[tuple[str, str, str]]:
    return [(row["who"], row["what"], row["about"]) for row in runner.audit(**which)]


def test_what_the_program_changes_by_itself_is_not_listed(runner: cloaca.DefaultRunner) -> None:
    with runner:
        runner.set_trigger_enabled("inbox", False)
        runner.set_cursor("inbox", 1)
        runner.execute("bad")
        runner.retry(runner.list_runs()[0]["id"]).result()
        assert runner.audit() == []


def test_what_is_changed_in_a_name_is_listed_and_nothing_after_it(runner: cloaca.DefaultRunner) -> None:
    with runner:
        runner.execute("bad")
        (row,) = runner.list_runs()
        with audit.acting("ann", "page", "10.0.0.7"):
            runner.set_trigger_enabled("inbox", False)
            runner.set_cursor("inbox", 1)
            runner.retry(row["id"]).result()
            runner.retry_many(error=ValueError)
            with pytest.raises(ValueError, match="not found"):
                runner.set_trigger_enabled("nobody", False)
        runner.set_trigger_enabled("inbox", True)
        assert told(runner) == [
            ("ann", "retry", row["id"]),
            ("ann", "retry", row["id"]),
            ("ann", "set_cursor", "inbox"),
            ("ann", "disable", "inbox"),
        ]
        assert told(runner, about="inbox") == told(runner)[2:]
        newest = runner.audit(1)[0]
        assert (newest["door"], newest["place"], newest["many"]) == ("page", "10.0.0.7", 1)
        assert newest["at"] >= row["created_at"]


def test_a_change_that_is_not_made_is_not_listed(runner: cloaca.DefaultRunner) -> None:
    with runner:
        runner.execute("w")
        done = runner.list_runs()[0]["id"]
        with audit.acting("ann", "cli"):
            assert not runner.cancel(done)
            with pytest.raises(ValueError, match="only a Failed"):
                runner.retry(done)
        assert runner.audit() == []


CHANGES: dict[str, tuple[Callable[[cloaca.DefaultRunner], object], str]] = {
    "enable": (lambda runner: runner.set_trigger_enabled("inbox", True), "inbox"),
    "disable": (lambda runner: runner.set_trigger_enabled("inbox", False), "inbox"),
    "set_cursor": (lambda runner: runner.set_cursor("inbox", {"at": 1}), "inbox"),
    "pause": (lambda runner: runner.pause(workflow="w"), "w"),
    "resume": (lambda runner: runner.resume(workflow="w"), "w"),
    "set_limit": (lambda runner: runner.set_limit("api", concurrency=3), "api"),
    "forget": (lambda runner: runner.forget("gone"), "gone"),
}
"""What may be so already, by what the list calls it, and what it is about there."""


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_so_already_is_no_change(runner: cloaca.DefaultRunner, what: str) -> None:
    change, about = CHANGES[what]
    declare("limited", limits=[cloaca.Limit("api", concurrency=1)])
    with runner:
        if what == "enable":
            runner.set_trigger_enabled("inbox", False)
        if what == "resume":
            runner.pause(workflow="w")
        all_acted = []
        for _ in range(3):
            with audit.acting("ann", "cli") as acted, contextlib.suppress(ValueError):
                change(runner)
            all_acted.append(acted)
        listed = [] if what == "forget" else [("ann", what, about)]
        assert told(runner) == listed
        assert [acted.has_changed for acted in all_acted] == [bool(listed), False, False]


def test_a_change_of_a_change_is_listed(runner: cloaca.DefaultRunner) -> None:
    declare("limited", limits=[cloaca.Limit("api", concurrency=1)])
    with runner, audit.acting("ann", "cli"):
        runner.pause(workflow="w", until="2090-01-01T00:00:00Z")
        runner.pause(workflow="w")
        runner.pause(workflow="w")
        runner.set_cursor("inbox", 1)
        runner.set_cursor("inbox", None)
        runner.set_limit("api", concurrency=1)
        runner.reset_limit("api")
        runner.reset_limit("api")
        assert [what for _, what, _ in reversed(told(runner))] == [
            *("pause", "pause"),
            *("set_cursor", "set_cursor"),
            *("set_limit", "set_limit"),
        ]


def test_an_end_that_was_asked_for_is_asked_for_once(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("held", gate)
    with runner:
        run = runner.submit("held")
        assert gate.entered.wait(WAIT)
        for _ in range(3):
            with audit.acting("ann", "cli"):
                runner.cancel(run.id)
        gate.open.set()
        run.result(WAIT)
        assert told(runner) == [("ann", "cancel", run.id)]


def test_an_end_that_the_program_asked_for_is_nobodys(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("held", gate)
    with runner:
        run = runner.submit("held")
        assert gate.entered.wait(WAIT)
        runner.cancel(run.id)
        with audit.acting("ann", "cli") as acted:
            runner.cancel(run.id)
        gate.open.set()
        run.result(WAIT)
        assert (told(runner), acted.has_changed) == ([], False)


def test_a_callback_that_is_due_is_asked_for_once(tmp_path: Path) -> None:
    called = threading.Event()

    def away(run: object) -> None:
        called.set()
        raise ConnectionError

    with cloaca.WorkflowBuilder("alerting").on_success(away):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run_id = runner.submit("alerting").id
        assert called.wait(WAIT)
        while not (call := runner.get_run(run_id)["callbacks"]) or call[0]["error"] is None:
            pass
    with cloaca.DefaultRunner(tmp_path / "runs.db", work=False) as client:
        for _ in range(3):
            with audit.acting("ann", "cli"):
                assert client.tell_soon(run_id)
        assert told(client) == [("ann", "tell", run_id)]


def test_to_switch_on_what_fails_is_a_change(runner: cloaca.DefaultRunner) -> None:
    failed = threading.Event()

    @cloaca.trigger(workflow="w", poll_interval="10ms")
    def away() -> bool:
        failed.set()
        raise OSError

    with runner:
        assert failed.wait(WAIT)
        while not runner.query("SELECT 1 FROM schedules WHERE name = 'away' AND failures > 0"):
            pass
        for _ in range(2):
            with audit.acting("ann", "cli"):
                runner.set_trigger_enabled("away", True)
        assert told(runner)[-1] == ("ann", "enable", "away")


def test_a_hundred_thousand_are_kept_and_read_page_by_page(
    runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    with runner, audit.acting("ann", "cli"):
        runner.set_trigger_enabled("inbox", False)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as db, db:
        db.execute("UPDATE audit SET row = 7")
        db.execute("INSERT INTO audit SELECT 100006, at, 'bob', door, place, what, about, many FROM audit")
    db.close()
    with (
        cloaca.DefaultRunner(tmp_path / "runs.db", paused=True) as other,
        audit.acting("\ud800x" * 200, "cli"),
    ):
        other.set_trigger_enabled("inbox", True)
    with reading.Reader(tmp_path / "runs.db") as reader:
        page = reading.audit(reader, limit=1)
        assert (page.items[0].who, page.items[0].what) == ("?x" * 100, "enable")
        (older,) = rest = reading.audit(reader, after=page.after)
        assert (older.who, rest.after) == ("bob", None)
