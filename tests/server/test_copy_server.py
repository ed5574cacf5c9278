"""`copy_store` to a server and back: all goes along, and is there whole or not at all."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import postgres
import psycopg
import pytest

import cloaca

PROGRAM = """
    import sys
    import cloaca

    order = cloaca.WorkflowBuilder(
        "order",
        concurrency=cloaca.Concurrency(2, key="customer"),
        rate_limit=cloaca.RateLimit(1000, per="1m"),
    )
    with order:

        @cloaca.task()
        def fetch(context):
            context.set("fetched", True)

        @cloaca.task(dependencies=["fetch"], retry_delay_ms=1)
        def wait(context):
            if context.get("kind") == "bad":
                raise ValueError("bad")
            if context.get("kind") == "long":
                print("begun", flush=True)
                sys.stdin.read()

    order.on_success(lambda run: None)

    @cloaca.trigger(workflow="order", poll_interval="1h")
    def counts(tick):
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor, "customer": "c"}, run_key=f"key {tick.cursor}")

    runner = cloaca.DefaultRunner(sys.argv[1], max_concurrent_tasks=4)
    for n in range(20):
        runner.execute("order", {"n": n, "customer": n % 3, "kind": "bad" if n == 7 else "good"})
    runner.tick("counts")
    runner.register_cron_workflow("order", "0 3 1 1 *", "Europe/Zurich")
    text = "\\0 \\u2400 \\U0001f600 \\\\"
    runner.submit("order", {"customer": "later", "text": text}, delay="1h", run_key="later")
    runner.submit("order", {"customer": "large", "text": "x" * 6_000_000})
    runner.pause(workflow="order", key="held")
    runner.submit("order", {"customer": "held"})
    if "long" in sys.argv:
        runner.submit("order", {"customer": "long", "kind": "long"}).result()
    runner.shutdown()
"""

OWN_WORDS = {"version", "store", "copied_at", "copied_after"}


def served(tmp_path: Path, where: str, *words: str) -> subprocess.Popen[str]:
    """The program, which has begun its long task or is about to end."""
    (tmp_path / "program.py").write_text(dedent(PROGRAM))
    running = subprocess.Popen(
        [sys.executable, "program.py", where, *words],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == ("begun\n" if "long" in words else "")
    return running


def ended(running: subprocess.Popen[str]) -> int:
    with running:
        pass
    return running.returncode


def rows(path: Path) -> dict[str, list[Any]]:
    """All that stands in a file, but for what it says of itself."""
    with closing(sqlite3.connect(path)) as db:
        names = [
            name
            for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            if not name.startswith("sqlite_stat")
        ]
        found = {name: sorted(db.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names}
    found["meta"] = [row for row in found["meta"] if row[0] not in OWN_WORDS]
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_that_went_to_a_server_and_back_holds_what_it_held(here: Path, postgres_url: str) -> None:
    assert ended(served(here, "a.db")) == 0
    there = cloaca.copy_store("a.db", postgres_url)
    assert isinstance(there, str)
    with pytest.raises(cloaca.StoreError) as refused:
        cloaca.copy_store("a.db", postgres_url)
    assert there in str(refused.value)
    assert cloaca.copy_store(postgres_url, "b.db") == here / "b.db"
    before, after = rows(here / "a.db"), rows(here / "b.db")
    assert {name: len(found) for name, found in before.items()} == {
        name: len(found) for name, found in after.items()
    }
    assert {name: (before[name], after[name]) for name in before if before[name] != after[name]} == {}
    # Something of each kind went along.
    kinds = ("runs", "tasks", "tries", "run_keys", "schedules", "ticks", "seats", "lanes", "pauses")
    assert [name for name in kinds if not before[name]] == []


def test_the_command_line_says_where_a_copy_went(here: Path, postgres_url: str) -> None:
    assert ended(served(here, "a.db")) == 0

    def copied(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cloaca", "copy", *words], capture_output=True, text=True, check=False
        )

    done = copied("a.db", postgres_url)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("copied to test_")
    assert "; the first runner of it goes on with what is unfinished" in done.stderr
    again = copied("a.db", postgres_url)
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (3, "", 1)
    assert "not empty" in again.stderr
    told = json.loads(copied(postgres_url, "b.db", "--json").stdout)
    assert told == {"kind": "copy", "path": str(here / "b.db"), "bytes": (here / "b.db").stat().st_size}


@pytest.mark.parametrize("to_server", [True, False])
def test_what_a_killed_runner_had_in_hand_goes_on_at_the_new_place(
    here: Path, postgres_url: str, to_server: bool
) -> None:
    source, target = ("a.db", postgres_url) if to_server else (postgres_url, "b.db")
    running = served(here, source, "long")
    with pytest.raises(cloaca.StoreError, match="is served by runner 1"):
        cloaca.copy_store(source, target)
    running.send_signal(signal.SIGKILL)
    ended(running)
    cloaca.copy_store(source, target)
    # At the new place nothing is typed in, and the long task ends at once.
    with subprocess.Popen(
        [sys.executable, "-c", dedent(GOES_ON), target],
        cwd=here,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as going:
        assert going.stdout is not None
        assert going.stdout.read().splitlines()[-1] == "whole"
    assert going.returncode == 0


GOES_ON = """
    import sys
    argv, sys.argv = sys.argv, ["program.py", ":memory:"]
    import cloaca
    source = open("program.py").read().split("runner = ")[0]
    exec(source)
    with cloaca.DefaultRunner(argv[1]) as runner:
        [long] = [run for run in runner.list_runs(limit=100) if run["context"].get("kind") == "long"]
        done = runner.run(long["id"]).result(60)
        assert done.status == "Completed", done
        tasks = runner.get_run(long["id"])["tasks"]
        assert [task["attempts"] for task in tasks] == [1, 2], tasks
        # The cursor and the keys that were used.
        assert runner.cursor("counts") == 1
        runner.set_cursor("counts", 0)
        [fire] = runner.tick("counts", dry_run=True)["fires"]
        assert fire["gate"]["verdict"] == "refuse_key", fire
        [later] = [run for run in runner.list_runs(limit=100) if run["run_key"] == "later"]
        assert runner.submit("order", later["context"], run_key="later").id == later["id"]
        assert [cron["cron_expression"] for cron in runner.list_cron_schedules()] == ["0 3 1 1 *"]
        # A number is never given twice.
        assert sorted(row["number"] for row in runner.list_runners())[-1] > 1
        statuses = [run["status"] for run in runner.list_runs(limit=100)]
        assert statuses.count("Failed") == 1, statuses
        assert runner.execute("order", {"customer": "new"}).status == "Completed"
    print("whole")
"""


def test_a_copy_that_is_killed_leaves_nothing_on_the_server(here: Path, postgres_url: str) -> None:
    assert ended(served(here, "a.db")) == 0
    cloaca.migrate(postgres_url)
    copies = [
        sys.executable,
        "-c",
        "import cloaca, sys; cloaca.copy_store(*sys.argv[1:])",
        "a.db",
        postgres_url,
    ]
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
    with psycopg.connect(postgres_url) as holder, subprocess.Popen(copies) as dying:
        # The copy comes as far as this table.
        holder.execute("LOCK TABLE cloaca.run_keys IN EXCLUSIVE MODE")
        while not postgres.sql(postgres_url, waits):
            assert dying.poll() is None
        dying.kill()
    # Nothing is in the way of another one.
    cloaca.copy_store("a.db", postgres_url)
    with cloaca.DefaultRunner(postgres_url, work=False) as client:
        assert client.cursor("counts") == 1


def test_a_target_that_somebody_has_is_refused(here: Path, postgres_url: str) -> None:
    assert ended(served(here, "a.db")) == 0
    with (
        cloaca.DefaultRunner(postgres_url),
        pytest.raises(cloaca.StoreError, match="is served by runner 1"),
    ):
        cloaca.copy_store("a.db", postgres_url)
    with pytest.raises(cloaca.StoreError, match=r"is not empty .*schema="):
        cloaca.copy_store("a.db", postgres_url)
    # Beside it there is room.
    beside = postgres_url + ("&" if "?" in postgres_url else "?") + "schema=beside"
    cloaca.copy_store("a.db", beside)
    with cloaca.DefaultRunner(beside, work=False) as client:
        assert client.cursor("counts") == 1


def test_what_the_inbox_of_a_server_holds_is_not_left_behind(here: Path, postgres_url: str) -> None:
    with cloaca.DefaultRunner(postgres_url):
        pass
    postgres.sql(postgres_url, "SELECT cloaca.submit('order', '{}')")
    with pytest.raises(cloaca.StoreError, match="table 'inbox' has rows"):
        cloaca.copy_store(postgres_url, "b.db")
    assert list(here.glob("b.db*")) == []
    cloaca.copy_store(postgres_url, postgres_url + ("&" if "?" in postgres_url else "?") + "schema=beside")


def test_a_run_key_that_came_twice_in_transactions_goes_back_to_a_file(here: Path, postgres_url: str) -> None:
    with cloaca.WorkflowBuilder("order"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(postgres_url) as runner, psycopg.connect(postgres_url) as connection:
        runs = []
        for _ in range(2):
            runs.append(runner.submit("order", run_key="order 7", connection=connection))
            connection.commit()
            assert runs[-1].result(60).status == "Completed"
        assert runs[0].id != runs[1].id
        assert runner.run(runs[1].id).result(60).status == "Completed"
    cloaca.copy_store(postgres_url, "b.db")
    with cloaca.DefaultRunner("b.db") as runner:
        assert [run["id"] for run in runner.list_runs()] == [runs[0].id]
        assert runner.submit("order", run_key="order 7").id == runs[0].id
