"""`cloaca copy` and `cloaca migrate`."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from stage import Line, fields, served

import cloaca
from cloaca import reading

OLD = Path(__file__).parents[2] / "rust/store/tests/fixtures/0001.db"


def test_a_store_is_copied_with_all_that_it_holds(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db") as process:
        line.piped("copy", "runs.db", "copy.db", code=3)
        host = os.uname().nodename
        told = f"is served by runner 1 (process {process.pid} on '{host}'); stop that first"
        assert told in line.said
        assert not list(tmp_path.glob("copy.db*"))
        process.kill()
        process.wait()
    assert line.piped("copy", "runs.db", "copy.db") == ""
    assert line.said.startswith(f"copied to {tmp_path / 'copy.db'}, ")
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]
    for words in (["runs", "--all"], ["ls", "triggers"], ["ls", "crons"], ["ticks", "broken"]):
        copied = [line.piped(*words, "--json", "--database", name) for name in ("copy.db", "runs.db")]
        assert copied[0] == copied[1] != "", words
    line.piped("copy", "runs.db", "copy.db", code=2)
    assert f"target '{tmp_path / 'copy.db'}' exists; name a new file" in line.said
    told = json.loads(line.piped("copy", "sqlite://runs.db", "new.db", "--json"))
    assert (sorted(told), told["bytes"]) == (
        ["bytes", "kind", "path"],
        os.path.getsize(tmp_path / "new.db"),
    )


def test_what_keeps_a_store_from_being_copied_is_called_by_what_it_is(line: Line) -> None:
    cloaca.DefaultRunner("runs.db").shutdown()
    with cloaca.DefaultRunner("runs.db", work=False, name="page"):
        line.piped("copy", "runs.db", "copy.db", code=3)
    assert f"may be changed by client 2 'page' (process {os.getpid()} on " in line.said
    with reading.Reader("runs.db"):
        line.piped("copy", "runs.db", "copy.db")


def test_a_copy_is_refused_in_one_sentence(line: Line, tmp_path: Path) -> None:
    cloaca.DefaultRunner("runs.db").shutdown()
    for words, code, told in [
        (["none.db", "copy.db"], 3, "there is no database"),
        (["runs.db", "nowhere/copy.db"], 2, "folder"),
        (["runs.db", "."], 2, "exists; name a new file"),
        (["runs.db", "runs.db"], 2, "exists; name a new file"),
        (["runs.db", ":memory:"], 2, "which is memory"),
        (["runs.db"], 2, "required: DST"),
        (["runs.db", "redis://x"], 2, "redis"),
    ]:
        assert line.piped("copy", *words, code=code) == ""
        assert told in line.said, (words, line.said)
        assert line.said.count("\n") == 1


def test_an_old_store_is_brought_up_to_date_when_that_is_wished(line: Line, tmp_path: Path) -> None:
    (tmp_path / "old.db").write_bytes(OLD.read_bytes())
    words = ("migrate", "--database", "old.db")
    line.piped("ls", "--database", "old.db", code=3)
    assert "and so does 'cloaca migrate'" in line.said
    line.piped(*words, code=2)
    assert "this would bring old.db from schema version 1 to 2; give --yes" in line.said
    sql = line.piped(*words, "--print")
    assert sql.startswith("-- From schema version 1 to 2")
    assert "CREATE TABLE tries" in sql
    found = json.loads(line.piped(*words, "--print", "--json"))
    assert (found["kind"], found["version"], found["newest"], len(found["sql"])) == ("schema", 1, 2, 1)
    assert (tmp_path / "old.db").read_bytes() == OLD.read_bytes(), "nothing was changed"
    # The SQL is what opening does.
    with closing(sqlite3.connect("by_hand.db")) as by_hand:
        (tmp_path / "by_hand.db").write_bytes(OLD.read_bytes())
        # The system's SQLite may be one that has no such word.
        by_hand.executescript(sql.replace("unixepoch('subsec')", "strftime('%s')"))
        tables = "SELECT name, sql FROM sqlite_schema ORDER BY name"
        mine = by_hand.execute(tables).fetchall()
    assert line.piped(*words, "--yes") == "migrated\t1\t2\n"
    with closing(sqlite3.connect("old.db")) as migrated:
        assert migrated.execute(tables).fetchall() == mine
    assert line.piped(*words) == "newest\t2\n"
    assert line.piped(*words, "--print") == ""
    assert "is the newest that this cloaca knows; opening it changes nothing" in line.said
    assert json.loads(line.piped(*words, "--json")) == {
        "kind": "schema",
        "version": 2,
        "newest": 2,
        "was": 2,
    }
    assert fields(line.piped("runs", "--database", "old.db")) != []
    line.piped("migrate", "--database", "none.db", code=3)
    assert "there is no database" in line.said
    assert not (tmp_path / "none.db").exists()
    line.piped("migrate", "--database", ":memory:", code=2)


LOCKS = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_store_that_an_old_runner_serves_is_left_alone(line: Line, tmp_path: Path) -> None:
    (tmp_path / "old.db").write_bytes(OLD.read_bytes())
    with closing(sqlite3.connect("old.db")) as old:
        old.execute("INSERT INTO owners (epoch, joined_at) VALUES (900, 1)")
        old.commit()
    command = [sys.executable, "-c", LOCKS, "old.db-owner-900"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        line.piped("migrate", "--database", "old.db", "--yes", code=3)
        assert f"served by a runner of cloaca 0.1.0, in process {holder.pid}: it would not see" in line.said
        assert "-- From schema version 1" in line.piped("migrate", "--database", "old.db", "--print")
        assert holder.stdin is not None
        holder.stdin.close()
    line.piped("migrate", "--database", "old.db", "--yes")
