"""A server that refuses some of what a runner writes, for a while: a right is missing, or somebody else's
trigger stands in the way."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import postgres
import pytest

import cloaca

WAIT = 30.0


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Role:
    """Whoever serves a store and may make nothing."""

    def __init__(self, server: postgres.Server, database: str) -> None:
        self.name = f"r_{uuid.uuid4().hex[:8]}"
        self._server, self._database = server, database
        cloaca.migrate(server.url(database))
        self.sql(
            f"CREATE ROLE {self.name} LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA cloaca TO {self.name};"
            f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cloaca TO {self.name};"
            f" GRANT USAGE ON ALL SEQUENCES IN SCHEMA cloaca TO {self.name}"
        )
        self.url = f"postgresql://{self.name}:p@127.0.0.1:{server.port}/{database}"

    def sql(self, statement: str) -> list[list[str]]:
        return self._server.sql(statement, self._database)

    def may_insert(self, *, may: bool) -> None:
        way = "GRANT INSERT ON ALL TABLES IN SCHEMA cloaca TO"
        self.sql(f"{way if may else way.replace('GRANT', 'REVOKE').replace(' TO', ' FROM')} {self.name}")

    def close(self) -> None:
        self.sql(f"DROP OWNED BY {self.name}; DROP ROLE {self.name}")


@pytest.fixture
def role(postgres_server: postgres.Server) -> Iterator[Role]:
    with postgres_server.database() as database:
        role = Role(postgres_server, database)
        yield role
        role.close()


def lines(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if what in record.getMessage()]


def test_what_a_missing_right_refuses_is_kept_once_that_is_there(
    role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    calls: Counter[str] = Counter()
    entered, gate = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def one(context: cloaca.Context) -> None:
            calls["one"] += 1
            entered.set()
            gate.wait(WAIT)

        @cloaca.task(dependencies=[one])
        def two(context: cloaca.Context) -> None:
            calls["two"] += 1

    with cloaca.WorkflowBuilder("ticks"):

        @cloaca.task()
        def tick(context: cloaca.Context) -> None:
            calls[context["moment"]] += 1

    @cloaca.trigger(name="c", workflow="ticks", cron="* * * * * *")
    def c(tick: cloaca.Tick) -> dict[str, str]:
        return {"moment": str(tick.scheduled_at)}

    with cloaca.DefaultRunner(role.url) as runner:
        run = runner.submit("w")
        assert entered.wait(WAIT)
        assert eventually(lambda: run.status == "Running")
        assert eventually(lambda: runner.list_runs(workflow="ticks"))
        role.may_insert(may=False)
        gate.set()
        assert eventually(lambda: "permission denied" in run.why())
        assert "cannot go on, because the store refuses what became of it" in run.why()
        assert not runner.health()["ok"]
        assert eventually(lambda: "more changes" in runner.health()["reasons"][0]["text"])
        many = len(runner.list_runs(workflow="ticks"))
        role.may_insert(may=True)
        assert run.result(WAIT).status == "Completed"
        assert eventually(lambda: len(runner.list_runs(workflow="ticks")) > many + 1)
        moments = runner.query(
            "SELECT scheduled_at / 1000000 AS s FROM runs WHERE workflow = 'ticks' ORDER BY scheduled_at"
        )
    seconds = [row["s"] for row in moments]
    assert seconds == [*range(seconds[0], seconds[-1] + 1)], "none is left out"
    assert set(calls.values()) == {1}
    assert len(lines(caplog, "permission denied")) == 1
    assert len(lines(caplog, "the store has taken what it refused")) == 1


def test_a_run_that_somebody_elses_trigger_refuses_holds_up_no_other(role: Role) -> None:
    entered, gate = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("held"):

        @cloaca.task()
        def held(context: cloaca.Context) -> None:
            entered.set()
            gate.wait(WAIT)

    with cloaca.WorkflowBuilder("other"):

        @cloaca.task()
        def other(context: cloaca.Context) -> None:
            pass

    with cloaca.DefaultRunner(role.url) as runner:
        run = runner.submit("held")
        assert entered.wait(WAIT)
        role.sql(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no entry today'; END $$;"
            " CREATE TRIGGER guard BEFORE UPDATE ON cloaca.runs FOR EACH ROW"
            " WHEN (NEW.workflow = 'held') EXECUTE FUNCTION no()"
        )
        gate.set()
        assert eventually(lambda: "no entry today" in run.why())
        assert all(runner.execute("other").status == "Completed" for _ in range(10))
        role.sql("DROP TRIGGER guard ON cloaca.runs")
        assert run.result(WAIT).status == "Completed"
