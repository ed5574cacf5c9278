"""How a store on a server is found and reached: libpq's words, passwords, TLS, several hosts, and what is
said where that fails.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import postgres
import pytest

import cloaca
from cloaca import StoreError, UrlError
from cloaca.reading import Reader

SECRET = postgres.PASSWORD


def opened(url: str) -> str:
    """The URL of a store that is made there, and read."""
    cloaca.DefaultRunner(url).shutdown()
    with Reader(url):
        return url


def refused(url: str, error: type[Exception] = StoreError) -> str:
    """What is said of a URL, which never holds its password and comes in time."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        cloaca.DefaultRunner(url)
    # The bound that is promised, and not a measure of this machine.
    assert time.monotonic() - began < 10
    text = str(caught.value)
    assert SECRET not in text
    return text


@pytest.fixture
def loopback(postgres_server: postgres.Server) -> Iterator[str]:
    """A fresh database, by loopback, where a password is asked for."""
    with postgres_server.database() as name:
        yield postgres_server.loopback_url(name)


def test_a_password_may_stand_in_the_url_in_the_environment_or_in_a_file(
    loopback: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = loopback.replace(f":{quote(SECRET, safe='')}@", "@")
    assert bare != loopback
    monkeypatch.setenv("HOME", str(tmp_path))
    opened(loopback)
    assert "none is given" in refused(bare)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    opened(bare)
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / ".pgpass"
    file.write_text(f"# ours\n127.0.0.1:*:*:postgres:{SECRET}\n")
    file.chmod(0o644)
    assert "chmod 0600" in refused(bare)
    file.chmod(0o600)
    opened(bare)
    file.write_text("other:*:*:*:x\n")
    assert "has no line" in refused(bare)
    other = tmp_path / "passwords"
    other.write_text(f"*:*:*:*:{SECRET}\n")
    other.chmod(0o600)
    opened(f"{bare}?passfile={quote(str(other), safe='')}")


def test_a_password_that_is_wrong_is_told_as_such(loopback: str) -> None:
    text = refused(loopback.replace(quote(SECRET, safe=""), "WRONG-ONE"))
    assert "does not take the password of user 'postgres'" in text
    assert "WRONG-ONE" not in text


def test_a_database_that_is_not_there_is_told_with_the_way_to_make_it(
    postgres_server: postgres.Server,
) -> None:
    text = refused(postgres_server.url("no_such_database"))
    assert "no database 'no_such_database'" in text
    assert "createdb" in text


def test_where_no_server_is_the_way_to_it_is_told(tmp_path: Path) -> None:
    text = refused(f"postgresql://me@127.0.0.1:{postgres.free_port()}/db")
    assert "cannot be reached" in text
    text = refused("postgresql://me@no-such-host.invalid/db")
    assert "no host 'no-such-host.invalid'" in text
    text = refused(f"postgresql://me@/db?host={quote(str(tmp_path), safe='')}")
    assert "no server listens at" in text


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        text = refused(
            f"postgresql://me:{quote(SECRET, safe='')}@127.0.0.1:{port}/db?connect_timeout=1&sslmode=disable"
        )
    assert "no answer from 127.0.0.1" in text


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://h/d?sslmod=disable", "'sslmod'"),
        ("postgresql://h/d?sslmode=full", "'verify-full'"),
        ("postgresql://h/d?schema=pg_mine", "PostgreSQL itself"),
        (f"postgresql://me:{SECRET}/x@h/d", "%2F"),
        ("postgresql://h:no/d", "65535"),
        ("postgresql://h/d?durability=some", "'normal'"),
        ("postgresql://h/d?sslrootcert=/none&sslmode=verify-full", "cannot be read"),
    ],
)
def test_words_that_are_not_understood_are_refused_with_those_that_are(url: str, told: str) -> None:
    assert told in refused(url, StoreError if "none" in url else UrlError)


def test_the_environment_says_what_a_url_leaves_open(
    postgres_server: postgres.Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", str(postgres_server.folder))
    monkeypatch.setenv("PGPORT", str(postgres_server.port))
    monkeypatch.setenv("PGUSER", "postgres")
    database = postgres_url.split("/@/")[-1].rsplit("/", 1)[-1].split("?")[0]
    with postgres_server.database() as name:
        monkeypatch.setenv("PGDATABASE", name)
        opened("postgresql://")
        found = postgres_server.sql("SELECT count(*) FROM cloaca.owners", name)
    assert found == [["1"]]
    assert database != name


def test_of_several_hosts_the_first_that_answers_and_takes_writes_is_used(
    postgres_server: postgres.Server,
) -> None:
    with postgres_server.database() as name:
        dead = postgres.free_port()
        folder, port = quote(str(postgres_server.folder), safe=""), postgres_server.port
        url = f"postgresql://postgres@/{name}?host=127.0.0.1,{folder}&port={dead},{port}"
        opened(url)
        postgres_server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on", name)
        text = refused(url)
    assert "takes no writes" in text
    assert "cannot be reached" in text


def test_everything_stands_in_the_schema_that_is_named_however_it_is_spelt(
    postgres_server: postgres.Server,
) -> None:
    with postgres_server.database() as name:
        schema = 'Robert"; DROP SCHEMA public; --'
        url = f"{postgres_server.url(name)}&schema={quote(schema, safe='')}"
        opened(url)
        found = postgres_server.sql(
            "SELECT nspname, count(*) > 20 FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind = 'r' AND nspname !~ '^(pg_|information)' GROUP BY 1",
            name,
        )
        assert found == [[schema, "t"]]
        assert postgres_server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'", name) == [
            ["1"]
        ]
        with pytest.raises(StoreError, match="nothing of cloaca"):
            Reader(postgres_server.url(name))


def test_a_role_without_rights_to_make_tables_works_once_they_are_there(
    postgres_server: postgres.Server,
) -> None:
    with postgres_server.database() as name:
        role = f"role_{name[-12:]}"
        postgres_server.sql(f"CREATE ROLE {role} LOGIN", name)
        try:
            url = postgres_server.url(name).replace("postgres@", f"{role}@")
            assert "grant" in refused(url)
            opened(postgres_server.url(name))
            postgres_server.sql(
                f"GRANT USAGE ON SCHEMA cloaca TO {role};"
                f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cloaca TO {role};"
                f" GRANT USAGE ON ALL SEQUENCES IN SCHEMA cloaca TO {role}",
                name,
            )
            opened(url)
        finally:
            postgres_server.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", name)


def test_a_role_makes_its_tables_in_a_schema_that_is_its_own(postgres_server: postgres.Server) -> None:
    with postgres_server.database() as name:
        role = f"role_{name[-12:]}"
        postgres_server.sql(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}", name)
        try:
            opened(postgres_server.url(name).replace("postgres@", f"{role}@") + f"&schema={role}")
            assert postgres_server.sql(f"SELECT count(*) > 0 FROM {role}.owners", name) == [["t"]]
        finally:
            postgres_server.sql(f"DROP OWNED BY {role}; DROP ROLE {role}", name)


def test_a_pooler_in_transaction_mode_is_found_and_refused(postgres_server: postgres.Server) -> None:
    pooler = postgres.Pooler(postgres_server)
    try:
        with postgres_server.database() as name:
            text = refused(pooler.url(name))
            assert "there is a pooler in transaction mode before database" in text
            assert "session mode (pool_mode = session)" in text
    finally:
        pooler.stop()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_does_not_keep_every_text_is_refused(
    postgres_server: postgres.Server, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    postgres_server.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        told = f"'{name}.*' has the encoding {encoding}.* ENCODING 'UTF8'"
        with pytest.raises(cloaca.StoreError, match=told):
            cloaca.DefaultRunner(postgres_server.url(name))
    finally:
        postgres_server.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_schema_of_a_newer_version_is_refused_with_both_versions(postgres_server: postgres.Server) -> None:
    with postgres_server.database() as name:
        url = opened(postgres_server.url(name))
        postgres_server.sql("UPDATE cloaca.meta SET value = 99 WHERE name = 'version'", name)
        text = refused(url)
        assert "99" in text
        assert "version" in text
        with pytest.raises(StoreError, match="99"):
            Reader(url)


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority() -> Iterator[Path]:
    """A folder with an authority, a server's certificate for localhost, a client's, and one that vouches for
    itself.
    """
    with TemporaryDirectory(dir="/tmp", prefix="cloaca-tls-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        for own in ["ca", "alone"]:
            openssl(
                *make,
                *["-keyout", f"{folder}/{own}.key", "-out", f"{folder}/{own}.crt", "-subj", f"/CN={own}"],
                *["-addext", "subjectAltName=DNS:localhost"],
            )
        for own, names in [
            ("server", "subjectAltName=DNS:localhost"),
            ("client", "subjectAltName=DNS:client"),
        ]:
            openssl(
                *["req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{folder}/{own}.key"],
                *["-out", f"{folder}/{own}.csr", "-subj", "/CN=postgres", "-addext", names],
            )
            openssl(
                *["x509", "-req", "-in", f"{folder}/{own}.csr", "-CA", f"{folder}/ca.crt"],
                *["-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "2", "-copy_extensions", "copy"],
                *["-out", f"{folder}/{own}.crt"],
            )
        yield folder


@pytest.fixture(scope="module")
def encrypted(authority: Path) -> Iterator[postgres.Server]:
    """A server that lets in by loopback who speaks TLS, and by certificate who has one."""
    with TemporaryDirectory(dir="/tmp", prefix="cloaca-") as parent:
        Path(parent).chmod(0o711)
        try:
            server = postgres.Server(Path(parent) / "server")
            owner = postgres.unprivileged()
        except postgres.Missing as missing:
            pytest.skip(str(missing))
        for name in ["server.key", "alone.key"]:
            (authority / name).chmod(0o600)
            if owner is not None:
                os.chown(authority / name, owner.pw_uid, owner.pw_gid)
        settings = {
            "ssl": "on",
            "ssl_cert_file": f"{authority}/server.crt",
            "ssl_key_file": f"{authority}/server.key",
            "ssl_ca_file": f"{authority}/ca.crt",
        }
        access = (
            "local all all trust\n"
            "hostssl by_certificate all 127.0.0.1/32 cert\n"
            "hostssl all all 127.0.0.1/32 scram-sha-256\n"
        )
        server.start(settings, access)
        try:
            server.sql("CREATE DATABASE by_certificate")
            yield server
        finally:
            server.remove()


def ssl_of(server: postgres.Server) -> list[list[str]]:
    """How those who are connected by loopback are connected."""
    return server.sql(
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL"
    )


def test_tls_is_taken_where_it_is_to_be_had_and_asked_for_where_it_is_not_given(
    encrypted: postgres.Server,
) -> None:
    url = encrypted.loopback_url()
    opened(url)
    with Reader(url):
        assert ssl_of(encrypted) == [["t"]]
    opened(f"{url}?sslmode=require")
    # The server lets nobody in without; this mode begins so, and comes again with it.
    opened(f"{url}?sslmode=allow")
    opened(f"{url}?sslmode=require&channel_binding=require")
    text = refused(f"{url}?sslmode=disable")
    assert "sslmode" in text
    assert "pg_hba.conf" in text


def test_a_server_that_speaks_no_tls_is_refused_where_it_must(postgres_server: postgres.Server) -> None:
    url = postgres_server.loopback_url()
    assert "it speaks none" in refused(f"{url}?sslmode=require")
    opened(f"{url}?sslmode=prefer&schema=tls_of_this_test")
    postgres_server.sql("DROP SCHEMA tls_of_this_test CASCADE")


def test_a_server_is_trusted_by_who_vouches_for_it_and_by_its_name(
    encrypted: postgres.Server, authority: Path
) -> None:
    by_address = encrypted.loopback_url()
    by_name = by_address.replace("127.0.0.1", "localhost") + "?hostaddr=127.0.0.1&"
    roots = f"sslrootcert={quote(str(authority / 'ca.crt'), safe='')}"
    opened(f"{by_name}sslmode=verify-full&{roots}")
    opened(f"{by_address}?sslmode=verify-ca&{roots}")
    assert "another name" in refused(f"{by_address}?sslmode=verify-full&{roots}")
    others = f"sslrootcert={quote(str(authority / 'alone.crt'), safe='')}"
    assert "nobody vouches" in refused(f"{by_name}sslmode=verify-full&{others}")
    assert "nobody vouches" in refused(f"{by_name}sslmode=verify-ca&{others}")
    # As libpq has it: with roots at hand, `require` looks at them.
    assert "nobody vouches" in refused(f"{by_name}sslmode=require&{others}")
    assert "nobody vouches" in refused(f"{by_name}sslmode=verify-full")
    bad = authority / "bad.crt"
    bad.write_text("no certificate")
    assert "holds no certificate" in refused(f"{by_name}sslmode=verify-full&sslrootcert={bad}")


def test_a_certificate_that_vouches_for_itself_is_trusted_where_it_is_named(
    encrypted: postgres.Server, authority: Path
) -> None:
    by_name = encrypted.loopback_url().replace("127.0.0.1", "localhost") + "?hostaddr=127.0.0.1&"
    encrypted.sql(f"ALTER SYSTEM SET ssl_cert_file = '{authority}/alone.crt'")
    encrypted.sql(f"ALTER SYSTEM SET ssl_key_file = '{authority}/alone.key'")
    encrypted.stop("fast")
    encrypted.resume()
    try:
        own = f"sslrootcert={quote(str(authority / 'alone.crt'), safe='')}"
        opened(f"{by_name}sslmode=verify-full&{own}")
        roots = f"sslrootcert={quote(str(authority / 'ca.crt'), safe='')}"
        refused(f"{by_name}sslmode=verify-full&{roots}")
    finally:
        encrypted.sql("ALTER SYSTEM RESET ALL")
        encrypted.stop("fast")
        encrypted.resume()


def test_who_has_a_certificate_needs_no_password(encrypted: postgres.Server, authority: Path) -> None:
    url = f"postgresql://postgres@127.0.0.1:{encrypted.port}/by_certificate?sslmode=require"
    assert "certificate" in refused(url)
    opened(f"{url}&sslcert={authority}/client.crt&sslkey={authority}/client.key")
    assert "no key" in refused(f"{url}&sslcert={authority}/client.crt&sslkey={authority}/client.crt")
