"""Tenants whose names and passwords are hostile: they are taken as they are, or refused at once."""

import uuid

import postgres
import pytest

import cloaca

NAMES = [
    'a"b',
    "a b",
    " ",
    "ACME",
    "Ä漢字🦀",
    "x'; DROP SCHEMA public CASCADE; --",
    'x"; DROP SCHEMA public CASCADE; --',
    "a%41",
    "a/b?c=d&e#f:g@h",
    "a,b",
    "[::1]",
    "$user",
    "$1",
    ":name",
    "a\\b",
    "line\nbreak\ttab",
    "select",
    "current_user",
    "{}%s",
    "../x",
]
PASSWORDS = [
    "'",
    '"',
    "\\",
    "@:/?#%&=",
    " ",
    "ä漢🦀",
    "$$;SELECT 1",
    "line\nbreak",
    "x" * 1024,
    "\u00a0\u00ad",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_tenant_has_the_name_that_it_was_given(postgres_server: postgres.Server, name: str) -> None:
    mark = uuid.uuid4().hex[:8]
    schema, user = f"{name}{mark}", f"{mark}{name}"
    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def work(context: cloaca.Context) -> None: ...

    with postgres_server.database() as database:
        admin = cloaca.DatabaseAdmin(postgres_server.loopback_url(database))
        credentials = admin.create_tenant(cloaca.TenantConfig(schema, user))
        try:
            with cloaca.DefaultRunner(credentials.connection_string) as runner:
                runner.execute("work", {})
                [row] = runner.query(
                    "SELECT session_user AS who, schemaname AS place, tableowner AS owner FROM pg_tables"
                    " WHERE tablename = 'runs'"
                )
                assert row == {"who": user, "place": schema, "owner": user}
        finally:
            admin.remove_tenant(schema, user)
        assert postgres_server.sql(
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'public'", database
        ) == [["1"]]
        gone = f"SELECT count(*) FROM pg_namespace WHERE strpos(nspname, '{mark}') > 0"
        assert postgres_server.sql(gone, database) == [["0"]]
        assert postgres_server.sql(f"SELECT count(*) FROM pg_roles WHERE strpos(rolname, '{mark}') > 0") == [
            ["0"]
        ]


def test_a_tenant_has_the_password_that_it_was_given(postgres_server: postgres.Server) -> None:
    mark = uuid.uuid4().hex[:8]
    with postgres_server.database() as database:
        admin = cloaca.DatabaseAdmin(postgres_server.loopback_url(database))
        try:
            for password in PASSWORDS:
                credentials = admin.create_tenant(cloaca.TenantConfig(mark, mark, password))
                assert credentials.password == password
                cloaca.DefaultRunner(credentials.connection_string).shutdown()
        finally:
            admin.remove_tenant(mark, mark)


REFUSED = ["a\0b", "x" * 64, "é" * 32, "pg_x", "PG_X", "public", "Public"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_cannot_be_one_is_refused_before_anything_is_asked(name: str) -> None:
    # Nobody listens there: that would be another error.
    admin = cloaca.DatabaseAdmin("postgresql://127.0.0.1:1/d")
    for schema, user in [(name, "user"), ("schema", name)]:
        config = cloaca.TenantConfig(schema, user)
        with pytest.raises(ValueError, match="schema_name" if schema == name else "username"):
            admin.create_tenant(config)
        with pytest.raises(ValueError, match="schema_name" if schema == name else "username"):
            admin.remove_tenant(schema, user)


@pytest.mark.parametrize("schema", ["cloaca", "Cloaca", "information_schema", "$user"])
def test_a_schema_that_is_nobodys_or_everybodys_is_refused(schema: str) -> None:
    admin = cloaca.DatabaseAdmin("postgresql://127.0.0.1:1/d")
    with pytest.raises(ValueError, match="schema_name"):
        admin.create_tenant(cloaca.TenantConfig(schema, "user"))
    with pytest.raises(ValueError, match="schema_name"):
        admin.remove_tenant(schema, "user")


def test_what_is_no_text_is_refused() -> None:
    for value in ["", " \t", "\ud800", 5, None, b"x"]:
        with pytest.raises((ValueError, TypeError), match="schema_name"):
            cloaca.TenantConfig(value, "user")  # type: ignore[arg-type]
        with pytest.raises((ValueError, TypeError), match="username"):
            cloaca.TenantConfig("schema", value)  # type: ignore[arg-type]
    for password in [5, b"x", "\ud800"]:
        with pytest.raises(TypeError, match="password") as refused:
            cloaca.TenantConfig("schema", "user", password)  # type: ignore[arg-type]
        assert "\\ud800" not in str(refused.value)
    admin = cloaca.DatabaseAdmin("postgresql://127.0.0.1:1/d")
    for password in ["a\0b", "x" * 1025]:
        with pytest.raises(ValueError, match="password") as told:
            admin.create_tenant(cloaca.TenantConfig("schema", "user", password))
        assert password not in str(told.value)
    with pytest.raises(TypeError, match="config"):
        admin.create_tenant({"schema_name": "s"})  # type: ignore[arg-type]
