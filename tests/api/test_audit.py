"""The audit list: which changes people made, by which door."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from flow import declare

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
