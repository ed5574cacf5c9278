"""Tenants of a server: made, renewed and removed; each at home in its schema, and in nobody else's."""

import contextlib
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import postgres
import pytest

import cloaca

PASSWORD = 'it\'s a "secret" @ ä/%?#'


class Place:
    """A database of a server, and the tenants that a test makes in it."""

    def __init__(self, server: postgres.Server, database: str) -> None:
        self.server, self.database = server, database
        # By password, as between machines.
        self.url = server.loopback_url(database)
        self.admin = cloaca.DatabaseAdmin(self.url)
        self.names: list[tuple[str, str]] = []
        self.roles: list[str] = []

    def tenant(self, schema: str | None = None, user: str | None = None) -> tuple[str, str]:
        """Names that nobody else has on the server; what is made by them goes with the test."""
        mark = uuid.uuid4().hex[:8]
        names = (schema or f"s_{mark}", user or f"u_{mark}")
        self.names.append(names)
        return names

    def role(self, rights: str) -> str:
        """The URL of a role of somebody's."""
        name = f"r_{uuid.uuid4().hex[:8]}"
        self.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'p' {rights}")
        self.roles.append(name)
        return f"postgresql://{name}:p@127.0.0.1:{self.server.port}/{self.database}"

    def sql(self, statement: str) -> list[list[str]]:
        return self.server.sql(statement, self.database)

    def has(self, schema: str, user: str) -> tuple[bool, bool]:
        """Whether there are such a schema and such a role."""
        [[has_schema, has_role]] = self.sql(
            f"SELECT exists(SELECT FROM pg_namespace WHERE nspname = '{schema}'),"
            f" exists(SELECT FROM pg_roles WHERE rolname = '{user}')"
        )
        return has_schema == "t", has_role == "t"

    def close(self) -> None:
        for names in self.names:
            with contextlib.suppress(cloaca.StoreError):
                self.admin.remove_tenant(*names)
        for name in self.roles:
            self.sql(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture
def place(postgres_server: postgres.Server) -> Iterator[Place]:
    with postgres_server.database() as name, contextlib.closing(Place(postgres_server, name)) as place:
        yield place


def declare() -> None:
    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def work(context: dict[str, Any]) -> dict[str, Any]:
            return {"n": context["n"] + 1}


def test_a_tenant_works_in_a_store_of_its_own(place: Place) -> None:
    declare()
    one, other = (place.admin.create_tenant(cloaca.TenantConfig(*place.tenant())) for _ in range(2))
    for number, credentials in enumerate([one, other]):
        with cloaca.DefaultRunner(credentials.connection_string) as runner:
            assert runner.execute("work", {"n": number}).final_context["n"] == number + 1
            assert len(runner.list_runs()) == 1
        # Who comes without cloaca finds the same tables.
        url = f"postgresql://{credentials.username}:{credentials.password}@127.0.0.1:{place.server.port}"
        assert postgres.sql(f"{url}/{place.database}", "SELECT count(*) FROM runs") == [["1"]]
    # A role that belongs to it can do nothing but work there.
    [rights] = place.sql(
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolreplication, rolbypassrls, rolcanlogin"
        f" FROM pg_roles WHERE rolname = '{one.username}'"
    )
    assert "".join(rights) == "fffffft"


def test_a_tenant_reads_nothing_of_another(place: Place) -> None:
    declare()
    place.sql("CREATE TABLE open_to_me (n INT); REVOKE ALL ON open_to_me FROM PUBLIC")
    one, other = (place.admin.create_tenant(cloaca.TenantConfig(*place.tenant())) for _ in range(2))
    with cloaca.DefaultRunner(other.connection_string) as runner:
        runner.execute("work", {"n": 1})
    with cloaca.DefaultRunner(one.connection_string) as runner:
        assert runner.query("SELECT count(*) AS n FROM runs") == [{"n": 0}]
        for statement in [
            f"SELECT * FROM {other.schema_name}.runs",
            f"SELECT * FROM {other.schema_name}.meta",
            "SELECT * FROM public.open_to_me",
            "SELECT rolpassword FROM pg_authid",
        ]:
            with pytest.raises(cloaca.StoreError, match="permission denied"):
                runner.query(statement)
    with pytest.raises(cloaca.StoreError, match="permission denied"):
        cloaca.DefaultRunner.with_schema(one.connection_string, other.schema_name)
    # Nor makes it anything beside its schema.
    with pytest.raises(cloaca.StoreError, match="permission denied"):
        cloaca.DefaultRunner.with_schema(one.connection_string, "another")


def test_the_administrator_and_the_tenant_serve_the_same_store(place: Place) -> None:
    declare()
    schema, user = place.tenant()
    credentials = place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    with cloaca.DefaultRunner.with_schema(place.url, schema) as runner:
        run = runner.submit("work", {"n": 1})
        run.result()
    with cloaca.DefaultRunner.with_schema(credentials.connection_string, schema) as runner:
        assert [each["id"] for each in runner.list_runs()] == [run.id]
    owners = place.sql(f"SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = '{schema}'")
    assert owners == [[user]]


def test_what_is_made_in_a_schema_belongs_to_whom_that_belongs_to(place: Place) -> None:
    owner = place.role("").split("//")[1].split(":")[0]
    place.sql(f"CREATE SCHEMA theirs AUTHORIZATION {owner}")
    cloaca.DefaultRunner.with_schema(place.url, "theirs").shutdown()
    assert place.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'theirs'") == [[owner]]


def test_a_password_is_the_one_that_was_given_or_one_that_is_made_up(place: Place) -> None:
    schema, user = place.tenant()
    given = place.admin.create_tenant(cloaca.TenantConfig(schema, user, PASSWORD))
    assert (given.username, given.password, given.schema_name) == (user, PASSWORD, schema)
    assert PASSWORD not in repr(given)
    assert "***" in repr(given)
    assert given.connection_string not in repr(given)
    cloaca.DefaultRunner(given.connection_string).shutdown()
    # Again it is the same tenant; without a password it gets a new one.
    assert place.admin.create_tenant(cloaca.TenantConfig(schema, user, PASSWORD)) == given
    made = place.admin.create_tenant(cloaca.TenantConfig(schema, user, ""))
    assert len(made.password) >= 32
    cloaca.DefaultRunner(made.connection_string).shutdown()
    with pytest.raises(cloaca.StoreError, match="does not take the password") as refused:
        cloaca.DefaultRunner(given.connection_string)
    assert PASSWORD not in str(refused.value)


def test_a_password_stands_in_no_log_of_the_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path("/tmp") / f"cloaca-tenants-{uuid.uuid4().hex[:8]}"
    server = postgres.Server(folder)
    try:
        server.start(settings={"log_statement": "all", "log_min_duration_statement": "0"})
        credentials = cloaca.DatabaseAdmin(server.url()).create_tenant(cloaca.TenantConfig("acme", "acme"))
        told = (folder / "log").read_text()
        assert 'CREATE ROLE "acme"' in told
        assert "SCRAM-SHA-256$" in told
        assert credentials.password not in told
    except postgres.Missing as why:
        pytest.skip(str(why))
    finally:
        server.remove()


def test_a_tenant_that_is_there_keeps_what_it_has(place: Place) -> None:
    declare()
    schema, user = place.tenant()
    credentials = place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    with cloaca.DefaultRunner(credentials.connection_string) as runner:
        runner.execute("work", {"n": 1})
        again = place.admin.create_tenant(cloaca.TenantConfig(schema, user))
        # Who is at work goes on.
        runner.execute("work", {"n": 2})
    with cloaca.DefaultRunner(again.connection_string) as runner:
        assert len(runner.list_runs()) == 2


def test_a_schema_that_somebody_has_dropped_is_made_anew(place: Place) -> None:
    schema, user = place.tenant()
    place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    place.sql(f"DROP SCHEMA {schema} CASCADE")
    credentials = place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    cloaca.DefaultRunner(credentials.connection_string).shutdown()
    place.sql(f"DROP SCHEMA {schema} CASCADE")
    place.admin.remove_tenant(schema, user)
    assert place.has(schema, user) == (False, False)


def test_what_is_somebody_elses_is_left_alone(place: Place, postgres_server: postgres.Server) -> None:
    foreign = place.role("").split("//")[1].split(":")[0]
    schema, user = place.tenant()
    place.sql("CREATE SCHEMA theirs")
    with pytest.raises(cloaca.StoreError, match="was not made by create_tenant"):
        place.admin.create_tenant(cloaca.TenantConfig(schema, foreign))
    with pytest.raises(cloaca.StoreError, match="belongs to role 'postgres'"):
        place.admin.create_tenant(cloaca.TenantConfig("theirs", user))
    with pytest.raises(cloaca.StoreError, match="was not made by create_tenant"):
        place.admin.remove_tenant("theirs", foreign)
    with pytest.raises(cloaca.StoreError, match="belongs to role 'postgres'"):
        place.admin.remove_tenant("theirs", user)
    assert place.has("theirs", foreign) == (True, True)
    assert place.has(schema, user) == (False, False)
    # One tenant's role is not another's, and not one in another database.
    place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    with pytest.raises(cloaca.StoreError, match=f'tenant with schema "{schema}" in database'):
        place.admin.create_tenant(cloaca.TenantConfig("another", user))
    with pytest.raises(cloaca.StoreError, match=f"belongs to role '{user}'"):
        place.admin.create_tenant(cloaca.TenantConfig(schema, f"{user}_2"))
    with postgres_server.database() as name:
        elsewhere = cloaca.DatabaseAdmin(postgres_server.url(name))
        with pytest.raises(cloaca.StoreError, match="tenant with schema"):
            elsewhere.create_tenant(cloaca.TenantConfig(schema, user))
        with pytest.raises(cloaca.StoreError, match="tenant with schema"):
            elsewhere.remove_tenant(schema, user)
    place.sql(f"ALTER ROLE {user} SUPERUSER")
    with pytest.raises(cloaca.StoreError, match="a tenant must not"):
        place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    place.sql(f"ALTER ROLE {user} NOSUPERUSER")


def test_a_removed_tenant_is_gone_with_its_sessions(place: Place) -> None:
    declare()
    schema, user = place.tenant()
    credentials = place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    runner = cloaca.DefaultRunner(credentials.connection_string)
    runner.execute("work", {"n": 1})
    place.admin.remove_tenant(schema, user)
    assert place.has(schema, user) == (False, False)
    assert place.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'") == [["0"]]
    with pytest.raises(cloaca.CloacaError):
        runner.submit("work", {"n": 2})
    runner.shutdown(0)
    # Once more is no error, and what comes next under these names is a new tenant.
    place.admin.remove_tenant(schema, user)
    new = place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    with cloaca.DefaultRunner(new.connection_string) as runner:
        assert runner.list_runs() == []


def test_a_role_with_something_in_another_database_is_not_removed_by_halves(
    place: Place, postgres_server: postgres.Server
) -> None:
    schema, user = place.tenant()
    place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    with postgres_server.database() as name:
        postgres_server.sql(f"CREATE TABLE theirs (n INT); ALTER TABLE theirs OWNER TO {user}", name)
        with pytest.raises(cloaca.StoreError, match="depend"):
            place.admin.remove_tenant(schema, user)
        assert place.has(schema, user) == (True, True)
    place.admin.remove_tenant(schema, user)
    assert place.has(schema, user) == (False, False)


def test_two_who_make_or_remove_at_once_make_one_tenant(place: Place) -> None:
    schema, user = place.tenant()
    config = cloaca.TenantConfig(schema, user, PASSWORD)

    def at_once(*works: Callable[[], object]) -> list[BaseException]:
        failed: list[BaseException] = []
        start = threading.Barrier(len(works))

        def one(work: Callable[[], object]) -> None:
            start.wait()
            try:
                work()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=one, args=[work]) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failed

    def make() -> object:
        return place.admin.create_tenant(config)

    def remove() -> object:
        return place.admin.remove_tenant(schema, user)

    for _ in range(3):
        assert at_once(make, make, make, make) == []
        assert place.has(schema, user) == (True, True)
        cloaca.DefaultRunner(make().connection_string).shutdown()  # type: ignore[attr-defined]
        assert at_once(make, remove, make, remove) == []
        # Whole or not at all.
        assert place.has(schema, user) in [(True, True), (False, False)]
        assert at_once(remove, remove) == []
        assert place.has(schema, user) == (False, False)


def test_one_role_is_not_made_for_two_databases_at_once(
    place: Place, postgres_server: postgres.Server
) -> None:
    schema, user = place.tenant()
    with postgres_server.database() as name, contextlib.closing(Place(postgres_server, name)) as other:
        other.tenant(schema, user)
        told: list[str] = []
        start = threading.Barrier(2)

        def make(admin: cloaca.DatabaseAdmin) -> None:
            start.wait()
            try:
                admin.create_tenant(cloaca.TenantConfig(schema, user))
                told.append("made")
            except cloaca.StoreError as error:
                told.append(str(error))

        threads = [threading.Thread(target=make, args=[each.admin]) for each in (place, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told.count("made") == 1, told
        assert any("is the role of the tenant" in each for each in told), told


def test_who_may_not_is_told_what_is_missing(place: Place) -> None:
    nobody, maker = place.role(""), place.role("CREATEROLE")
    schema, user = place.tenant()
    with pytest.raises(cloaca.StoreError, match=r'ALTER ROLE "r_\w+" CREATEROLE'):
        cloaca.DatabaseAdmin(nobody).create_tenant(cloaca.TenantConfig(schema, user))
    with pytest.raises(cloaca.StoreError, match=r'GRANT CREATE ON DATABASE "\w+" TO "r_\w+"'):
        cloaca.DatabaseAdmin(maker).create_tenant(cloaca.TenantConfig(schema, user))
    assert place.has(schema, user) == (False, False)
    place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    with pytest.raises(cloaca.StoreError, match=r'ALTER ROLE "r_\w+" CREATEROLE'):
        cloaca.DatabaseAdmin(nobody).remove_tenant(schema, user)
    assert place.has(schema, user) == (True, True)


def test_an_administrator_need_not_be_a_superuser(place: Place) -> None:
    declare()
    url = place.role("CREATEROLE")
    name = url.split("//")[1].split(":")[0]
    place.sql(f"GRANT CREATE ON DATABASE {place.database} TO {name}")
    schema, user = place.tenant()
    admin = cloaca.DatabaseAdmin(url)
    for _ in range(2):
        credentials = admin.create_tenant(cloaca.TenantConfig(schema, user))
    with cloaca.DefaultRunner(credentials.connection_string) as runner:
        runner.execute("work", {"n": 1})
        with cloaca.DefaultRunner.with_schema(url, schema) as beside:
            assert len(beside.list_runs()) == 1
        admin.remove_tenant(schema, user)
    assert place.has(schema, user) == (False, False)


def test_where_nobody_may_connect_by_default_a_tenant_may(place: Place) -> None:
    url = place.role("CREATEROLE")
    name = url.split("//")[1].split(":")[0]
    place.sql(
        f"REVOKE CONNECT ON DATABASE {place.database} FROM PUBLIC;"
        f" GRANT CREATE, CONNECT ON DATABASE {place.database} TO {name}"
    )
    schema, user = place.tenant()
    credentials = place.admin.create_tenant(cloaca.TenantConfig(schema, user))
    cloaca.DefaultRunner(credentials.connection_string).shutdown()
    place.admin.remove_tenant(schema, user)
    with pytest.raises(cloaca.StoreError, match="only the database's owner and superusers grant CONNECT"):
        cloaca.DatabaseAdmin(url).create_tenant(cloaca.TenantConfig(schema, user))
    assert place.has(schema, user) == (False, False)


def test_an_administrator_is_no_sqlite_and_shows_no_password(place: Place) -> None:
    assert postgres.PASSWORD not in repr(place.admin)
    assert "%40" not in repr(place.admin)
    for url in [":memory:", "sqlite://runs.db", "runs.db"]:
        with pytest.raises(RuntimeError, match="use one file for each tenant"):
            cloaca.DatabaseAdmin(url)
    with pytest.raises(ValueError, match="unknown option"):
        cloaca.DatabaseAdmin("postgresql://h/d?no=1")
    with pytest.raises(cloaca.StoreError, match=re.escape("127.0.0.1:1")):
        cloaca.DatabaseAdmin("postgresql://127.0.0.1:1/d").create_tenant(cloaca.TenantConfig("s", "u"))
