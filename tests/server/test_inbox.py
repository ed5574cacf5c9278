"""Runs that programs ask for in transactions of their own, by the SQL function and by `connection=`."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import cloaca

WAIT = 60
SUBMIT = "SELECT cloaca.submit(%s, %s)::text"
SUBMIT_KEY = "SELECT cloaca.submit('greet', %s, run_key => %s)::text"


def declare(name: str = "greet", **limits: Any) -> None:
    with cloaca.WorkflowBuilder(name, **limits):

        @cloaca.task(retry_attempts=0)
        def hello(context: dict[str, Any]) -> dict[str, Any]:
            return {**context, "text": f"hello, {context.get('name')}"}


@pytest.fixture
def runner(postgres_url: str) -> Iterator[cloaca.DefaultRunner]:
    """One that works, and declares the workflow `greet`."""
    declare()
    with cloaca.DefaultRunner(postgres_url) as runner:
        yield runner


@pytest.fixture
def waiting(postgres_url: str) -> Iterator[cloaca.DefaultRunner]:
    """One that only looks: nobody admits anything."""
    declare()
    with cloaca.DefaultRunner(postgres_url, work=False) as runner:
        yield runner


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A connection of the program's own."""
    with psycopg.connect(postgres_url) as connection:
        yield connection


def one(connection: psycopg.Connection, sql: str, *values: Any) -> Any:
    """The one value that a statement gives."""
    row = connection.execute(sql, values).fetchone()
    assert row is not None
    return row[0]


def ids(runner: cloaca.DefaultRunner) -> list[str]:
    return [run["id"] for run in runner.list_runs()]


def test_a_run_exists_once_the_transaction_that_asked_for_it_is_committed(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE TABLE orders (name TEXT)")
    connection.execute("INSERT INTO orders VALUES ('Ann')")
    run = runner.submit("greet", {"name": "Ann"}, connection=connection)
    assert run.status == "Pending"
    assert ids(runner) == []
    with pytest.raises(TimeoutError):
        run.result(timeout=0.2)
    connection.commit()
    assert run.result(WAIT).final_context["text"] == "hello, Ann"
    assert runner.run(run.id).status == run.status == "Completed"
    assert ids(runner) == [run.id]


def test_a_rollback_leaves_nothing(runner: cloaca.DefaultRunner, connection: psycopg.Connection) -> None:
    run = runner.submit("greet", {"name": "Ann"}, run_key="a", connection=connection)
    connection.rollback()
    with pytest.raises(cloaca.RunnerError, match="rolled back"):
        run.result(WAIT)
    with pytest.raises(cloaca.RunnerError, match="rolled back"):
        _ = run.status
    connection.execute("SAVEPOINT before")
    lost = runner.submit("greet", {"name": "Bob"}, connection=connection)
    connection.execute("ROLLBACK TO before")
    connection.commit()
    with pytest.raises(cloaca.WorkflowError, match="savepoint"):
        lost.result(WAIT)
    assert ids(runner) == []
    assert runner.submit("greet", {"name": "Cy"}, run_key="a").result(WAIT).final_context["name"] == "Cy"


def test_any_program_may_call_the_function(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection
) -> None:
    run_id = one(connection, SUBMIT, "greet", '{"name": "Ann"}')
    connection.commit()
    assert runner.run(run_id).result(WAIT).final_context["text"] == "hello, Ann"
    # Also without a hint: it is looked for.
    run_id = one(connection, "SELECT cloaca.submit('greet', notify => false)::text")
    connection.commit()
    assert runner.run(run_id).result(WAIT).status == "Completed"


def test_what_waits_is_a_pending_run_that_cancel_deletes(
    waiting: cloaca.DefaultRunner, connection: psycopg.Connection, postgres_url: str
) -> None:
    before = waiting.submit("greet")
    first = waiting.submit("greet", {"name": "Ann"}, run_key="a", priority=7, connection=connection)
    second = waiting.submit("greet", {"name": "Bob"}, connection=connection)
    connection.commit()
    assert ids(waiting) == [second.id, first.id, before.id]
    assert [run["id"] for run in waiting.list_runs(status="Pending", limit=1, offset=1)] == [first.id]
    assert [run["id"] for run in waiting.list_runs(after=second.id)] == [first.id, before.id]
    assert [run["id"] for run in waiting.list_runs(status="Pending", after=first.id)] == [before.id]
    assert [run["id"] for run in waiting.list_runs(key="a")] == [first.id]
    assert waiting.list_runs(status="Completed") == waiting.list_runs("other") == []
    assert [run["id"] for run in waiting.iter_runs()] == [second.id, first.id, before.id]
    row = waiting.get_run(first.id)
    assert row is not None
    assert (row["status"], row["priority"], row["context"]) == ("Pending", 7, {"name": "Ann"})
    assert "waits for a runner of this store that works to admit it" in waiting.why_run(first.id)
    for words in (["run", first.id], ["show", first.id[:-2]]):
        command = [sys.executable, "-m", "cloaca", *words, "--database", postgres_url, "--json"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT).stdout
        assert json.loads(told)["status"] == "Pending"
    first.cancel()
    assert ids(waiting) == [second.id, before.id]
    with pytest.raises(cloaca.WorkflowError, match="cancelled"):
        first.result(WAIT)
    watched = waiting.run(second.id)
    waiting.cancel(second.id)
    with pytest.raises(cloaca.WorkflowError):
        watched.result(WAIT)
    with pytest.raises(cloaca.WorkflowError):
        waiting.cancel(first.id)


@pytest.mark.parametrize("is_kept", [True, False])
def test_who_comes_with_a_key_waits_for_who_came_before(
    waiting: cloaca.DefaultRunner, postgres_url: str, is_kept: bool
) -> None:
    told: list[str] = []

    def come_later() -> None:
        with psycopg.connect(postgres_url) as connection:
            told.append(one(connection, SUBMIT_KEY, '{"name": "Bob"}', "a"))

    waits = """
        SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()"""
    with psycopg.connect(postgres_url) as first, psycopg.connect(postgres_url, autocommit=True) as looks:
        mine = one(first, SUBMIT_KEY, '{"name": "Ann"}', "a")
        assert one(first, SUBMIT_KEY, '{"name": "Ann"}', "a") == mine
        second = threading.Thread(target=come_later)
        second.start()
        while one(looks, waits) == 0:
            assert second.is_alive()
        if is_kept:
            first.commit()
        else:
            first.rollback()
        second.join(WAIT)
    assert (told == [mine]) is is_kept
    [row] = waiting.list_runs()
    assert (row["id"], row["context"]) == (told[0], {"name": "Ann" if is_kept else "Bob"})


def test_a_key_that_has_a_run_makes_what_asks_for_it_an_alias(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection
) -> None:
    known = runner.submit("greet", {"name": "Ann"}, run_key="a")
    known.result(WAIT)
    alias = runner.submit("greet", {"name": "Ann"}, run_key="a", connection=connection)
    other = runner.submit("other", run_key="a", connection=connection)
    connection.commit()
    assert alias.id != known.id
    assert alias.result(WAIT).final_context["text"] == "hello, Ann"
    assert alias.status == "Completed"
    row = runner.get_run(alias.id)
    assert row is not None
    assert row["id"] == known.id
    assert runner.run(other.id).status == "Pending"
    assert ids(runner) == [other.id, known.id]


def test_a_transaction_that_stays_open_holds_up_nothing_but_its_key(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection, postgres_url: str
) -> None:
    held = runner.submit("greet", {"name": "Ann"}, run_key="a", connection=connection)
    with psycopg.connect(postgres_url) as other:
        sent = runner.submit_many("greet", [{"n": n} for n in range(100)], connection=other)
        other.commit()
    kept = runner.submit_many("greet", [{"n": n} for n in range(100)], run_keys=[f"k{n}" for n in range(100)])
    assert {run.result(WAIT).status for run in [*sent, *kept]} == {"Completed"}
    # Nobody waits for the open one, who comes with its key by another door either.
    taken = runner.submit("greet", {"name": "Ann"}, run_key="a")
    assert taken.result(WAIT).status == "Completed"
    assert held.status == "Pending"
    connection.commit()
    held.result(WAIT)
    row = runner.get_run(held.id)
    assert row is not None
    assert row["id"] == taken.id


def test_what_a_limit_drops_becomes_a_cancelled_run_that_tells_the_rule(
    postgres_url: str, connection: psycopg.Connection
) -> None:
    declare("scarce", rate_limit=cloaca.RateLimit(1, per="1h", key="name"))
    with cloaca.DefaultRunner(postgres_url) as runner:
        runner.submit("scarce", {"name": "Zoe"}).result(WAIT)
        contexts: list[dict[str, Any]] = [{"name": "Ann"}, {"name": "Ann"}, {"other": 1}, {"name": "Bob"}]
        runs = runner.submit_many("scarce", contexts, run_keys=["a", "b", "c", "d"], connection=connection)
        connection.commit()
        ends = [run.result(WAIT) for run in runs]
        assert [end.status for end in ends] == ["Completed", "Cancelled", "Failed", "Completed"]
        assert "rate limit" in str(ends[1].error_message)
        assert "name" in str(ends[2].error_message)
        [dropped] = runner.list_runs(error="Dropped")
        assert (dropped["id"], dropped["run_key"]) == (runs[1].id, "b")
        assert dropped["context"] == {"name": "Ann"}
        # What was dropped has used no key, and may be opened again.
        assert runner.retry(runs[1].id).result(WAIT).status == "Completed"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("cloaca.submit(NULL)", "workflow is NULL"),
        ("cloaca.submit('')", "workflow is ''; it must be a name"),
        ("cloaca.submit(repeat('x', 256))", "1 to 255 characters"),
        ("cloaca.submit('greet', NULL)", "context is NULL; it must be a JSON object"),
        ("cloaca.submit('greet', '[1]')", "context is a JSON array; it must be a JSON object"),
        (
            "cloaca.submit('greet', ('{\"a\":\"' || repeat('x', 16777216) || '\"}')::json)",
            "at most 16777216 fit",
        ),
        ("cloaca.submit('greet', '{}', '')", "run_key has 0 bytes"),
        ("cloaca.submit('greet', '{}', repeat('x', 1025))", "run_key has 1025 bytes"),
        ("cloaca.submit('greet', priority => 10)", "priority is 10"),
        ("cloaca.submit('greet', at => 'infinity')", "at is infinity"),
        ("cloaca.submit('greet', run_key => 'a', run_key_ttl => '0')", "run_key_ttl is 00:00:00"),
        ("cloaca.submit('greet', '{')", "invalid input syntax for type json"),
    ],
)
def test_the_function_refuses_what_cannot_be(
    waiting: cloaca.DefaultRunner, connection: psycopg.Connection, call: str, told: str
) -> None:
    with pytest.raises(psycopg.Error, match=re.escape(told)):
        connection.execute(f"SELECT {call}")
    connection.rollback()
    assert ids(waiting) == []


def test_what_nobody_can_run_becomes_a_failed_run_and_holds_up_nothing(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection
) -> None:
    """Contexts that the server takes for JSON and a program of ours could not have kept; and what whoever may
    write anything puts there."""
    deep = "[" * 300 + "]" * 300
    bad = ['{"n": 1e999}', f'{{"n": {"9" * 5000}}}', f'{{"n": {deep}}}', '{"n": "\\ud800"}']
    runs = [one(connection, SUBMIT, "greet", context) for context in bad]
    put = """
        INSERT INTO cloaca.inbox (id, workflow, run_key, priority, created_at, context)
        VALUES (coalesce(%s::uuid, gen_random_uuid()), %s, %s, %s, 0, %s) RETURNING id::text"""
    taken = runner.submit("greet")
    taken.result(WAIT)
    runs.append(one(connection, put, None, "greet", None, 99, "no JSON"))
    runs.append(one(connection, put, None, "w" * 900 + "é" * 500, None, 5, "{}"))
    # Of the id of a run that is there: nothing is left of it.
    one(connection, put, taken.id, "greet", None, 5, "{}")
    good = one(connection, SUBMIT, "greet", "{}")
    connection.commit()
    assert runner.run(good).result(WAIT).status == "Completed"
    ends = [runner.run(run).result(WAIT) for run in runs[:5]]
    assert {end.status for end in ends} == {"Failed"}
    assert "1e+999, which is out of range" in str(ends[0].error_message)
    assert "not a JSON object" in str(ends[2].error_message)
    assert runner.run(runs[5]).status == "Pending"
    assert len(ids(runner)) == len(runs) + 2


def test_who_may_call_the_function_may_do_nothing_else(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection, postgres_url: str
) -> None:
    caller = f"caller_{os.getpid()}"
    connection.execute(f"CREATE ROLE {caller}")
    try:
        connection.execute(f"GRANT USAGE ON SCHEMA cloaca TO {caller}")
        connection.commit()
        connection.execute(f"SET ROLE {caller}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("SELECT cloaca.submit('greet')")
        connection.execute("RESET ROLE")
        connection.execute(f"GRANT EXECUTE ON FUNCTION cloaca.submit TO {caller}")
        connection.commit()
        connection.execute(f"SET ROLE {caller}")
        for sql in (
            "SELECT * FROM cloaca.inbox",
            "SELECT * FROM cloaca.runs",
            "INSERT INTO cloaca.inbox (workflow, context) VALUES ('x', '{}')",
            "DELETE FROM cloaca.inbox",
            "SELECT value FROM cloaca.meta",
            "CREATE TABLE cloaca.mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(sql)
        # What it calls is not what the caller has made of the names.
        for sql in (
            "CREATE TEMPORARY TABLE inbox (LIKE pg_class)",
            "CREATE TEMPORARY TABLE meta (name TEXT, value BIGINT)",
            "CREATE FUNCTION pg_temp.now_us() RETURNS BIGINT LANGUAGE sql AS 'SELECT 1/0'",
            "CREATE FUNCTION pg_temp.octet_length(TEXT) RETURNS INTEGER LANGUAGE sql AS 'SELECT 1/0'",
            "SET search_path TO pg_temp, cloaca",
        ):
            connection.execute(sql)
        run_id = one(connection, "SELECT cloaca.submit(%s, %s, %s)::text", "greet", '{"name": "Ann"}', "a")
        connection.commit()
        connection.execute("RESET ROLE")
        connection.commit()
        assert runner.run(run_id).result(WAIT).final_context["text"] == "hello, Ann"
    finally:
        connection.rollback()
        connection.execute("RESET ROLE")
        connection.execute("RESET search_path")
        connection.execute(f"DROP OWNED BY {caller}")
        connection.execute(f"DROP ROLE {caller}")
        connection.commit()


def test_a_context_is_kept_as_a_submit_of_the_same_keeps_it(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection
) -> None:
    context = {
        "text": "\0 é \u2028 '\"; DROP SCHEMA cloaca; -- %s :name $1 \\",
        "numbers": [0, -0.0, 1.5, 10**40, 1e-7, 2.0],
        "nested": {"b": [], "a": {}, "c": None, "": True},
    }
    mine = runner.submit("greet", context, run_key="%s:'\"\0", connection=connection)
    spaced = one(connection, SUBMIT, "greet", json.dumps(context, indent=3))
    connection.commit()
    usual = runner.submit("greet", context)
    texts = []
    for run_id in (mine.id, spaced, usual.id):
        runner.run(run_id).result(WAIT)
        [row] = runner.query("SELECT context FROM runs WHERE id = CAST(CAST(? AS text) AS uuid)", [run_id])
        texts.append(row["context"])
    assert texts[0] == texts[2]
    assert json.loads(texts[1]) == json.loads(texts[2]) == context


def test_when_it_begins_and_how_urgent_it_is_are_as_of_any_run(
    waiting: cloaca.DefaultRunner, connection: psycopg.Connection
) -> None:
    at = "2030-01-02T03:04:05.000006Z"
    first = waiting.submit("greet", at=at, priority=9, connection=connection)
    late = waiting.submit("greet", delay="2h", connection=connection)
    past = waiting.submit("greet", at="1960-01-01T00:00:00Z", connection=connection)
    connection.commit()
    row, delayed = waiting.get_run(first.id), waiting.get_run(late.id)
    assert row is not None
    assert delayed is not None
    assert (row["due_at"], row["priority"]) == (at, 9)
    assert delayed["due_at"] is not None
    assert delayed["due_at"] > delayed["created_at"]
    with cloaca.DefaultRunner(waiting._url) as runner:
        assert runner.run(past.id).result(WAIT).status == "Completed"
        assert runner.run(first.id).status == runner.run(late.id).status == "Pending"
        after = runner.get_run(first.id)
        assert after is not None
        assert (after["due_at"], after["priority"]) == (at, 9)
        assert "waits for its time" in runner.why_run(first.id)
        runner.cancel(first.id)
        assert runner.run(first.id).status == "Cancelled"


def test_any_runner_admits_it_and_one_that_declares_it_runs_it(
    postgres_url: str, connection: psycopg.Connection
) -> None:
    declare("other")
    with cloaca.DefaultRunner(postgres_url, enable_recovery=False) as runner:
        run_id = one(connection, SUBMIT, "greet", "{}")
        own = one(connection, SUBMIT, "other", "{}")
        connection.commit()
        # Also one that takes nothing over from others: nobody had it.
        assert runner.run(own).result(WAIT).status == "Completed"
        assert runner.query("SELECT count(*) AS many FROM inbox") == [{"many": 0}]
        assert runner.run(run_id).status == "Pending"
        declare("greet")
        with cloaca.DefaultRunner(postgres_url) as other:
            assert other.run(run_id).result(WAIT).status == "Completed"


def submit_by_psycopg(runner: cloaca.DefaultRunner, url: str) -> cloaca.Run:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return runner.submit("greet", {"name": "Ann"}, run_key="%", connection=connection)


def submit_by_sqlalchemy(runner: cloaca.DefaultRunner, url: str) -> cloaca.Run:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        runner.submit("greet", {"name": "Bob"}, connection=connection)
    with Session(engine) as session, session.begin():
        run = runner.submit("greet", {"name": "Ann"}, connection=session)
    engine.dispose()
    return run


async def submit_by_psycopg_async(runner: cloaca.DefaultRunner, url: str) -> cloaca.Run:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        run = await runner.submit_async("greet", {"name": "Ann"}, connection=connection)
        assert run.status == "Pending"
    return run


async def submit_by_asyncpg(runner: cloaca.DefaultRunner, url: str) -> cloaca.Run:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        async with connection.transaction():
            run = await runner.submit_async("greet", {"name": "Ann"}, run_key="a", connection=connection)
            waits = asyncio.ensure_future(run.wait(WAIT))
        assert (await waits).status == "Completed"
    return run


async def submit_by_sqlalchemy_async(runner: cloaca.DefaultRunner, url: str) -> cloaca.Run:
    engine = create_async_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    async with engine.begin() as connection:
        await runner.submit_async("greet", {"name": "Bob"}, connection=connection)
    async with AsyncSession(engine) as session, session.begin():
        run = await runner.submit_async("greet", {"name": "Ann"}, connection=session)
    await engine.dispose()
    return run


@pytest.mark.parametrize("submit", [submit_by_psycopg, submit_by_sqlalchemy])
def test_each_driver_that_waits(
    runner: cloaca.DefaultRunner, postgres_url: str, submit: Callable[..., cloaca.Run]
) -> None:
    assert submit(runner, postgres_url).result(WAIT).final_context["text"] == "hello, Ann"


@pytest.mark.parametrize("submit", [submit_by_psycopg_async, submit_by_asyncpg, submit_by_sqlalchemy_async])
def test_each_driver_that_is_awaited(
    runner: cloaca.DefaultRunner, postgres_url: str, submit: Callable[..., Any]
) -> None:
    async def main() -> cloaca.WorkflowResult:
        run = await submit(runner, postgres_url)
        result: cloaca.WorkflowResult = await run
        return result

    assert asyncio.run(main()).final_context["text"] == "hello, Ann"


def test_a_schema_of_any_name_has_its_function(postgres_url: str, connection: psycopg.Connection) -> None:
    declare()
    name = "a\"b%s:c'd"
    with cloaca.DefaultRunner(f"{postgres_url}&schema={quote(name)}") as runner:
        run = runner.submit("greet", {"name": "Ann"}, connection=connection)
        connection.commit()
        assert run.result(WAIT).status == "Completed"
        engine = sqlalchemy.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as other:
            run = runner.submit("greet", {"name": "Ann"}, connection=other)
        engine.dispose()
        assert run.result(WAIT).status == "Completed"


def test_a_connection_that_cannot_be_used_is_refused_before_anything_is_asked(
    runner: cloaca.DefaultRunner, postgres_url: str, connection: psycopg.Connection
) -> None:
    with pytest.raises(TypeError, match="must be a connection of psycopg or asyncpg"):
        runner.submit("greet", connection=object())
    with pytest.raises(TypeError, match="must be a connection"), connection.cursor() as cursor:
        runner.submit("greet", connection=cursor)

    async def main() -> None:
        with pytest.raises(TypeError, match="use submit"):
            await runner.submit_async("greet", connection=connection)
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            with pytest.raises(TypeError, match="submit_async"):
                runner.submit("greet", connection=other)

    asyncio.run(main())
    with pytest.raises(ValueError, match="at most 1024 fit"):
        runner.submit("greet", run_key="é" * 600, connection=connection)
    with pytest.raises(ValueError, match="priority"):
        runner.submit("greet", priority=10, connection=connection)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with (
        cloaca.DefaultRunner(":memory:") as other,
        pytest.raises(ValueError, match="same PostgreSQL database"),
    ):
        other.submit("greet", connection=connection)


def test_the_sql_of_the_guide_is_as_it_says(
    runner: cloaca.DefaultRunner, connection: psycopg.Connection
) -> None:
    page = (Path(__file__).parents[2] / "docs/guides/transactions.md").read_text()
    blocks = re.findall(r"^```sql\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    connection.autocommit = True
    connection.execute("CREATE TABLE orders (id SERIAL PRIMARY KEY, name TEXT)")
    role = f"web_{os.getpid()}"
    try:
        for block in blocks:
            connection.execute(re.sub(r"\bweb\b", role, block))
        assert [run["run_key"] for run in runner.list_runs("ship")] == ["order 1"]
        connection.execute("INSERT INTO orders (name) VALUES ('Cy')")
        connection.execute(f"SET ROLE {role}")
        one(connection, "SELECT cloaca.submit('ship', '{}')::text")
        connection.execute("RESET ROLE")
        assert len(runner.list_runs("ship")) == 3
    finally:
        connection.execute("RESET ROLE")
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


WORKER = """
    import sys
    import cloaca

    with cloaca.WorkflowBuilder("greet"):

        @cloaca.task()
        def hello(context):
            return {**context, "done": True}

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        print("works", flush=True)
        sys.stdin.read()
"""


def worker(url: str) -> subprocess.Popen[str]:
    program = "\n".join(line[4:] for line in WORKER.splitlines())
    words = [sys.executable, "-c", program, url]
    started = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "works\n"
    return started


def test_a_kill_between_commit_and_admission_loses_nothing_and_doubles_nothing(
    waiting: cloaca.DefaultRunner, connection: psycopg.Connection, postgres_url: str
) -> None:
    """Whoever admits is killed while it does, again and again, at whatever it is at."""
    asked: list[cloaca.Run] = []
    for round_ in range(int(os.environ.get("CLOACA_KILLS", "6"))):
        with worker(postgres_url) as victim:
            for part in range(10):
                keys = [f"{round_}-{part}-{n}" if n % 2 else None for n in range(20)]
                contexts = [{"n": n} for n in range(20)]
                asked += waiting.submit_many("greet", contexts, run_keys=keys, connection=connection)
                if part % 3 == 2:
                    # It is asked for once more, by who didn't hear the answer.
                    again = waiting.submit_many("greet", contexts, run_keys=keys, connection=connection)
                    asked += [run for run, key in zip(again, keys, strict=True) if key is None]
                connection.commit()
            victim.send_signal(signal.SIGKILL)
    with worker(postgres_url) as last:
        assert {run.result(WAIT).status for run in asked} == {"Completed"}
        last.kill()
    rows = waiting.query("SELECT count(*) AS runs, count(DISTINCT id) AS ids FROM runs")
    assert rows == [{"runs": len(asked), "ids": len(asked)}]
    assert waiting.query("SELECT count(*) AS many FROM inbox") == [{"many": 0}]
