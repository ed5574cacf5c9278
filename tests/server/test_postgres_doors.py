"""Who looks at a store on a server: the package's statements, reader, doctor, health, page, command line."""

import importlib
import pkgutil
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import postgres
import psycopg
import pytest

import cloaca
import cloaca.ui
from cloaca import health as health_module
from cloaca import reading, telemetry
from cloaca.reading import attention
from cloaca.reading.why import _under_way

STATEMENT = re.compile(r"\s*(SELECT|WITH)\s", re.ASCII)
PARAMETER = re.compile(r"\?(\d*)")


def statements() -> Iterator[tuple[str, str]]:
    """Every constant of the package that is a statement, by where it stands."""
    for found in pkgutil.walk_packages(cloaca.__path__, "cloaca."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if isinstance(value, str) and name.isupper() and STATEMENT.match(value) and "{}" not in value:
                yield f"{found.name}.{name}", value


@pytest.fixture
def store(postgres_url: str) -> str:
    """A store on a server in which something has happened."""
    with cloaca.WorkflowBuilder("greet"):

        @cloaca.task(retry_attempts=0)
        def hello(context: dict[str, Any]) -> dict[str, Any]:
            if "name" not in context:
                raise ValueError("nobody is there")
            return {"text": f"hello, {context['name']}"}

    @cloaca.trigger(workflow="greet", poll_interval="1h")
    def visitors() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(postgres_url, name="here") as runner:
        runner.register_cron_workflow("greet", "0 4 * * *", "UTC")
        assert runner.execute("greet", {"name": "Ann"}).final_context["text"] == "hello, Ann"
        assert runner.execute("greet", {}).status == "Failed"
        runner.pause(workflow="greet")
        health = runner.health()
        assert health["ok"], health
        assert runner.audit() == []
        assert "trigger 'visitors'" in runner.why("visitors")
    return postgres_url


def line(*words: str, code: int = 0) -> str:
    """What a line of the command line prints."""
    command = [sys.executable, "-m", "cloaca", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def test_a_reader_reads_a_server_as_it_reads_a_file(store: str) -> None:
    with reading.Reader(store) as reader:
        assert reader.file is None
        assert reader.path.startswith("test_")
        failed, completed = reading.runs(reader)
        assert (failed.status, completed.status) == ("Failed", "Completed")
        details = reading.run(reader, failed.id)
        assert [task.id for task in details.tasks] == ["hello"]
        assert "nobody is there" in str(details.tasks[0].error)
        assert reading.find_run(reader, completed.id[:30]) == completed.id
        assert [trigger.trigger_name for trigger in reading.triggers(reader)] == ["visitors"]
        assert len(reading.crons(reader)) == 1
        assert reading.runners(reader) == []
        assert [workflow.workflow_name for workflow in reading.workflows(reader)] == ["greet"]
        assert [pause.name for pause in reading.pauses(reader)] == ["greet"]
        assert "Completed" in reading.why(reader, completed.id) or "completed" in reading.why(
            reader, completed.id
        )
        assert _under_way(reader, details) == ""
        assert reading.failures(reader, datetime.now(UTC) - timedelta(days=1))
        assert reading.pace(reader)
        assert [found["n"] for found in reader.native.query("SELECT count(*) AS n FROM runs", [])] == [2]
        with pytest.raises(cloaca.StoreError, match="would change"):
            reader.native.query("DELETE FROM runs", [])


def test_the_doctor_looks_at_the_server(store: str) -> None:
    with reading.Reader(store) as reader:
        found = {finding.subject: finding for finding in reading.doctor(reader)}
    assert "PostgreSQL" in found["versions"].text
    assert found["transactions"].level == "ok"
    assert found["connections"].level == "ok"
    assert "integrity" not in found


def test_a_transaction_that_is_open_for_long_is_warned_of(
    store: str, postgres_server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "TRANSACTION_SECONDS", -1.0)
    asleep = "FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"

    def hold() -> None:
        with reading.Reader(store) as other, pytest.raises(cloaca.StoreError):
            other.native.query("SELECT pg_sleep(600)", [])

    held = threading.Thread(target=hold)
    with cloaca.DefaultRunner(store, work=False) as runner, reading.Reader(store) as reader:
        held.start()
        try:
            while not reader.native.query(f"SELECT 1 {asleep} AND state = 'active'", []):
                pass
            found = {finding.subject: finding for finding in reading.doctor(reader)}
            told = runner.health()
        finally:
            postgres_server.sql(f"SELECT pg_cancel_backend(pid) {asleep}")
            held.join()
    assert found["transactions"].level == "bad"
    assert "pid" in found["transactions"].text
    assert "old_transaction" in [reason["code"] for reason in told["reasons"]]


def test_the_command_line_reads_a_server(store: str) -> None:
    database = ["--database", store]
    assert line("runs", *database).count("greet") == 2
    assert "visitors" in line("ls", *database)
    assert "no_runner" in line("health", *database, code=1)
    assert "cloaca_build_info" in line("metrics", *database)
    assert "PostgreSQL" in line("doctor", *database, code=1)
    assert "hello" in line("show", *database, line("runs", *database).split()[0])


def test_a_page_over_a_server_is_made_and_tells_no_password(postgres_server: postgres.Server) -> None:
    with (
        postgres_server.database() as name,
        cloaca.DefaultRunner(postgres_server.loopback_url(name)) as runner,
    ):
        page = cloaca.ui.app(runner)
    assert postgres.PASSWORD not in repr(page)
    assert name in repr(page)


def test_the_sql_that_makes_a_schema_is_printed_and_does_it(
    postgres_server: postgres.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with postgres_server.database() as name:
        url = postgres_server.url(name)
        assert cloaca.migrate(url, print_only=True) == 0
        sql = capsys.readouterr().out
        assert postgres_server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'cloaca'", name) == [
            ["0"]
        ]
        postgres_server.sql(sql, name)
        assert cloaca.migrate(url, print_only=True) == cloaca.migrate(url) == 1
        assert "is the newest" in capsys.readouterr().out
        cloaca.DefaultRunner(url).shutdown()
    with postgres_server.database() as name:
        assert cloaca.migrate(postgres_server.url(name)) == 1


def test_a_schema_of_a_tenant_is_a_store_by_itself(postgres_url: str) -> None:
    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def work(context: dict[str, Any]) -> dict[str, Any]:
            return context

    for tenant in ["one", "two"]:
        with cloaca.DefaultRunner.with_schema(postgres_url, tenant) as runner:
            runner.execute("work", {})
            assert len(runner.list_runs()) == 1


def test_every_statement_of_the_package_is_understood_by_a_server(postgres_url: str) -> None:
    cloaca.DefaultRunner(postgres_url).shutdown()
    found = dict(statements())
    assert len(found) > 30
    refused = {}
    with reading.Reader(postgres_url) as reader:
        for place, sql in found.items():
            numbers = [match[1] for match in PARAMETER.finditer(sql)]
            count = max((int(number or 1) for number in numbers), default=0)
            count = count if any(numbers) else len(numbers)
            try:
                reader.native.query(sql, [None] * count)
            except cloaca.StoreError as error:
                refused[place] = str(error)
    assert refused == {}


def test_a_schema_that_lacks_a_table_is_refused_when_it_is_opened(postgres_url: str) -> None:
    with cloaca.DefaultRunner(postgres_url):
        pass
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DROP TABLE cloaca.seats CASCADE")
    for opens in (cloaca.DefaultRunner, cloaca.reading.Reader):
        with pytest.raises(cloaca.StoreError, match="lacks the table 'seats' of cloaca"):
            opens(postgres_url)


def test_on_a_server_too_what_fails_by_its_row_comes_before_what_was_never_polled(postgres_url: str) -> None:
    def fails() -> bool:
        raise OSError("the share is gone")

    for name in ("left", "feed"):
        cloaca.trigger(workflow="w", name=name, poll_interval="1h")(fails)
    with cloaca.DefaultRunner(postgres_url):
        pass
    cloaca.unregister_trigger("left")
    with cloaca.DefaultRunner(postgres_url) as runner, reading.Reader(postgres_url) as reader:
        runner.tick("feed")
        assert [each.trigger_name for each in reading.unwell(reader, limit=1)] == ["feed"]
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DELETE FROM cloaca.ticks")
        (found,) = reading.unwell(reader, limit=1)
        assert (found.trigger_name, found.state, found.last) == ("feed", "failing", None)


def test_who_looks_again_asks_by_the_same_connection(store: str) -> None:
    pid = "SELECT pg_backend_pid() AS pid"
    with reading.Reader(store) as reader:
        ((first,), (second,)) = (reader.native.query(pid, []) for _ in range(2))
        assert first == second
        # A statement that is wrong costs nothing but itself.
        with pytest.raises(cloaca.CloacaError, match="nothing"):
            reader.native.query("SELECT nothing FROM runs", [])
        (third,) = reader.native.query(pid, [])
        with psycopg.connect(store, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [third["pid"]])
            while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [third["pid"]]).fetchone():
                pass
        (fourth,) = reader.native.query(pid, [])
        assert fourth != third
        with pytest.raises(cloaca.CloacaError, match="change the database"):
            reader.native.query("UPDATE runs SET status = 'Failed' RETURNING 1", [])
        with pytest.raises(cloaca.CloacaError, match="change the database"):
            reader.native.query("WITH a AS (DELETE FROM runs RETURNING 1) SELECT * FROM a", [])
        (last,) = reader.native.query(pid, [])
    with psycopg.connect(store, autocommit=True) as other:
        while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [last["pid"]]).fetchone():
            pass


def test_what_needs_a_look_is_asked_for_at_once_however_much_that_is(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):

        @cloaca.trigger(workflow="greet", poll_interval="1h", poll_at_start=True, name=f"fails{number}")
        def fails() -> bool:
            raise OSError("no")

    with cloaca.DefaultRunner(store) as runner:
        while runner.stats()["errors"] < 40:
            pass
        with reading.Reader(store) as reader:
            asked: list[str] = []

            class Counted:
                def __getattr__(self, name: str) -> Any:
                    asked.append(name)
                    return getattr(native, name)

            native, reader.native = reader.native, Counted()  # type: ignore[assignment]
            while len(found := attention.unwell(reader)) < 40:
                asked.clear()
            assert {each.state for each in found} == {"failing"}
            assert len(asked) < 15, asked


@pytest.mark.parametrize("by", ["runner", "url"])
def test_no_screen_of_the_page_shows_the_password(postgres_server: postgres.Server, by: str) -> None:
    from starlette.testclient import TestClient

    with postgres_server.database() as name, cloaca.DefaultRunner(postgres_server.url(name)):
        url = postgres_server.loopback_url(name)
        secret = quote(postgres.PASSWORD, safe="")
        assert secret in url
        with cloaca.DefaultRunner(url) as runner:
            client = TestClient(
                cloaca.ui.app(runner if by == "runner" else url),
                base_url="http://127.0.0.1:8720",
                client=("127.0.0.1", 50000),
            )
            for path in ("/", "/runs", "/triggers", "/workflows", "/system", "/nowhere", "/run?id=none"):
                text = client.get(path).text
                assert f"{name} at 127.0.0.1" in text, path
                assert secret not in text, path


def test_who_watches_a_store_by_its_url_names_it_without_the_password() -> None:
    url = "postgresql://bob:PWSECRET@127.0.0.1:1/app"
    for made in (telemetry.prometheus_app, telemetry.prometheus_collector, telemetry.health_app):
        shown = repr(made(url))
        assert "PWSECRET" not in shown
        assert "app at 127.0.0.1" in shown


def test_a_time_out_of_the_role_ends_no_question(postgres_server: postgres.Server) -> None:
    with postgres_server.database() as name:
        postgres_server.sql(f"ALTER DATABASE \"{name}\" SET statement_timeout TO '300ms'")
        with cloaca.DefaultRunner(postgres_server.url(name)) as runner:
            assert runner.query("SELECT pg_sleep(0.4) IS NULL AS woke") == [{"woke": 0}]
