"""What queues on PostgreSQL fall into: plans made on empty tables, deadlocks of work with keys, one hot key,
a snapshot that is held for long, and texts of arrays."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import postgres

import cloaca

PATIENCE = 120.0
MANY = 20_000
"""So many runs are over, of which none of ours is one."""
WAITING = 2_000
"""And so many wait for a program that declares their workflow."""
BIG = {"runs", "tasks", "contexts"}
ROWS_MAX = 500
"""No step of a statement of ours looks at more rows."""
PAGES_MAX = 1_000
"""Nor a statement at more pages."""
DEAD = 1_500
"""So many runs leave what nobody can remove while a snapshot is held."""

EXPLAINING = """
    ALTER DATABASE {0} SET session_preload_libraries = 'auto_explain';
    ALTER DATABASE {0} SET auto_explain.log_min_duration = 0;
    ALTER DATABASE {0} SET auto_explain.log_analyze = on;
    ALTER DATABASE {0} SET auto_explain.log_timing = off;
    ALTER DATABASE {0} SET auto_explain.log_buffers = on;
    ALTER DATABASE {0} SET auto_explain.log_nested_statements = on;
    ALTER DATABASE {0} SET auto_explain.log_format = json;
"""
COPIES = """
    INSERT INTO cloaca.runs ({columns}) SELECT {values} FROM cloaca.runs, generate_series(1, {many})
    WHERE row = (SELECT max(row) FROM cloaca.runs WHERE workflow = 'plain')
"""


class Plans:
    """The plans of one database's statements from now on, as the server logs them."""

    def __init__(self, server: postgres.Server, database: str) -> None:
        self._path: Path = server.folder / "log"
        # A plan's lines begin with a tab, and so does none of the next entry.
        self._entry = re.compile(rf" {database} LOG:  duration: [^\n]* plan:\n((?:\t[^\n]*\n)+)")
        self.begin()

    def begin(self) -> None:
        self._from = self._path.stat().st_size

    def all(self) -> list[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._from)
            text = file.read().decode(errors="replace")
        return [json.loads(entry.replace("\t", " ")) for entry in self._entry.findall(text)]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def walks(told: dict[str, Any]) -> set[str]:
    """The big tables that a statement goes through from their first row to their last."""
    # One that stands in a plan and never ran walks nothing.
    ran = [node for node in nodes(told["Plan"]) if node.get("Actual Loops", 1)]
    scans = [node for node in ran if node["Node Type"] == "Seq Scan"]
    return {node["Relation Name"] for node in scans} & BIG


def pages(told: dict[str, Any]) -> int:
    plan = told["Plan"]
    return int(plan.get("Shared Hit Blocks", 0)) + int(plan.get("Shared Read Blocks", 0))


def rows(told: dict[str, Any]) -> int:
    """At how many rows the step looks that looks at most."""
    kinds = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return max(
        int(sum(node.get(kind, 0) for kind in kinds) * node.get("Actual Loops", 1))
        for node in nodes(told["Plan"])
    )


def declare() -> None:
    with cloaca.WorkflowBuilder("plain"):

        @cloaca.task(id="only")
        def plain(context: cloaca.Context) -> None:
            pass

    with cloaca.WorkflowBuilder("keyed", concurrency=cloaca.Concurrency(1, key="key")):

        @cloaca.task(id="only")
        def keyed(context: cloaca.Context) -> None:
            pass

    with cloaca.WorkflowBuilder("steps"):

        @cloaca.task()
        def first(context: cloaca.Context) -> None:
            context["first"] = 1

        @cloaca.task(dependencies=[first])
        def second(context: cloaca.Context) -> None:
            pass


def work(runner: cloaca.DefaultRunner, times: int, name: str) -> None:
    """Some of everything, one after another and together."""
    for number in range(times):
        run = runner.submit("plain", {"n": number}, run_key=f"{name} {number}")
        assert run.result(PATIENCE).status == "Completed"
        assert runner.execute("keyed", {"key": number % 3}).status == "Completed"
        assert runner.execute("steps", {}).status == "Completed"
    for each in ("plain", "keyed", "steps"):
        runs = runner.submit_many(each, [{"key": number % 3} for number in range(20)])
        assert {run.result(PATIENCE).status for run in runs} == {"Completed"}


def copies(url: str, many: int, **changed: str) -> str:
    """As many rows as one of ours that is over, but for what is changed."""
    found = postgres.sql(
        url,
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'cloaca' AND table_name = 'runs' AND column_name <> 'row'",
    )
    values = {name: name for (name,) in found} | {"id": "gen_random_uuid()", "run_key": "NULL"} | changed
    return COPIES.format(columns=", ".join(values), values=", ".join(values.values()), many=many)


def test_plans_that_were_made_on_empty_tables_walk_no_big_one(postgres_server: postgres.Server) -> None:
    """The server keeps a plan for a connection once it has been asked for some five times."""
    declare()
    with postgres_server.database() as database:
        postgres_server.sql(EXPLAINING.format(database))
        url = postgres_server.url(database)
        plans = Plans(postgres_server, database)
        with cloaca.DefaultRunner(url) as runner:
            work(runner, 10, "before")
            postgres.sql(url, copies(url, MANY, end_number="NULL"))
            waiting = {"workflow": "'elsewhere'", "status": "'Pending'", "owner": "NULL"}
            over = {"completed_at": "NULL", "started_at": "NULL", "end_number": "NULL"}
            postgres.sql(url, copies(url, WAITING, **waiting, **over))
            plans.begin()
            work(runner, 10, "after")
            # Whose runs nobody serves is asked once, some time after a start.
            others = "generate_series", "GROUP BY workflow ORDER BY workflow"
            told = plans.all()
            asked = [each for each in told if not any(other in each["Query Text"] for other in others)]
    assert len(asked) > 100
    assert {told["Query Text"]: walks(told) for told in asked if walks(told)} == {}
    assert {told["Query Text"]: rows(told) for told in asked if rows(told) > ROWS_MAX} == {}


def test_work_with_keys_that_comes_begins_and_ends_at_once_deadlocks_never(
    postgres_server: postgres.Server,
) -> None:
    declare()
    with postgres_server.database() as database:
        url = postgres_server.url(database)
        with cloaca.DefaultRunner(url), cloaca.DefaultRunner(url), cloaca.DefaultRunner(url) as runner:
            runs: list[cloaca.Run] = []

            def submit(step: int) -> None:
                # The same keys, in another order each time.
                for first in range(3):
                    contexts = [{"key": (first + step * number) % 7} for number in range(15)]
                    runs.extend(runner.submit_many("keyed", contexts))

            threads = [threading.Thread(target=submit, args=[step]) for step in (1, 2, 6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert {run.result(PATIENCE).status for run in runs} == {"Completed"}
        assert len(runs) == 135
        # What a connection counts it says at its end.
        assert postgres.sql(url, DEADLOCKS.format(database)) == [["0"]]


DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = '{}'"


def test_behind_one_hot_key_nobody_waits_but_its_own(postgres_server: postgres.Server) -> None:
    hot, gate = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("keyed", concurrency=cloaca.Concurrency(1, key="key")):

        @cloaca.task()
        def only(context: cloaca.Context) -> None:
            if context["key"] == "hot":
                hot.set()
                gate.wait(PATIENCE)

    with postgres_server.database() as database:
        url = postgres_server.url(database)
        with cloaca.DefaultRunner(url), cloaca.DefaultRunner(url), cloaca.DefaultRunner(url) as runner:
            crowd = runner.submit_many("keyed", [{"key": "hot"}] * 60)
            assert hot.wait(PATIENCE)
            # They come later than all of those, which stand where they are.
            others = runner.submit_many("keyed", [{"key": number} for number in range(50)])
            assert {run.result(PATIENCE).status for run in others} == {"Completed"}
            assert crowd[-1].status != "Completed"
            gate.set()
            assert {run.result(PATIENCE).status for run in crowd} == {"Completed"}


@contextmanager
def snapshot(url: str) -> Iterator[None]:
    """Held by somebody who looks and does not come to an end."""
    words = [postgres.program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) >= 0 FROM cloaca.runs;\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "t\n"
        yield
        holder.communicate("ROLLBACK;\n")


def test_a_snapshot_that_is_held_leaves_statements_as_cheap_as_they_were(
    postgres_server: postgres.Server,
) -> None:
    """What has been deleted and changed since stays where it was, and is gone through again and again."""
    declare()
    with postgres_server.database() as database:
        url = postgres_server.url(database)
        postgres_server.sql(EXPLAINING.format(database))
        plans = Plans(postgres_server, database)
        with cloaca.DefaultRunner(url) as runner:
            work(runner, 10, "before")
            with snapshot(url):
                runs = runner.submit_many("plain", [{}] * DEAD)
                assert {run.result(PATIENCE).status for run in runs} == {"Completed"}
                plans.begin()
                work(runner, 10, "after")
                asked = plans.all()
    assert len(asked) > 100
    assert {told["Query Text"]: pages(told) for told in asked if pages(told) > PAGES_MAX} == {}


def test_texts_that_mean_something_in_an_array_come_back_as_they_went(postgres_url: str) -> None:
    """Arrays go in binary form, in which no letter is one of theirs."""
    texts = [
        "{",
        "}",
        ",",
        '"',
        "\\",
        "NULL",
        "",
        " ",
        '{"a\\\\',
        "ü€😀",
        "'; DROP TABLE runs; --",
        "a\nb\tc",
    ]
    with cloaca.WorkflowBuilder("echo"):

        @cloaca.task()
        def only(context: cloaca.Context) -> None:
            context["back"] = context["text"]

    with cloaca.DefaultRunner(postgres_url) as runner:
        keys = [f"key {text}" for text in texts]
        runs = runner.submit_many("echo", [{"text": text} for text in texts], run_keys=keys)
        assert [run.result(PATIENCE).final_context["back"] for run in runs] == texts
        again = runner.submit_many("echo", [{"text": text} for text in texts], run_keys=keys)
        assert [run.id for run in again] == [run.id for run in runs]
