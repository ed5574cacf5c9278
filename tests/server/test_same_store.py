"""Which URLs of PostgreSQL name one store: that of a program, and the one that its line names."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import postgres

import cloaca
from cloaca.cli.where import is_same


@contextmanager
def one_more(port: int) -> Iterator[postgres.Server]:
    """A server of its own, whose socket has a port's number that another server may have."""
    # Whoever runs it may be another user than who tests, and a path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="cloaca-") as folder:
        os.chmod(folder, 0o755)
        made = postgres.Server(Path(folder) / "server")
        try:
            made.start({"listen_addresses": "", "port": str(port)})
            yield made
        finally:
            made.remove()


def by_socket(folder: Path, port: int, name: str) -> str:
    return f"postgresql:///{name}?host={quote(str(folder))}&port={port}&user=postgres"


def make(url: str) -> None:
    cloaca.DefaultRunner(url, paused=True).shutdown(0.0)


def test_a_store_is_known_by_what_it_is_and_not_by_how_its_server_is_called(
    postgres_server: postgres.Server,
) -> None:
    port = postgres_server.port
    with postgres_server.database() as name, one_more(port) as other:
        url = postgres_server.loopback_url(name)
        postgres.sql(by_socket(other.folder, port, "postgres"), f"CREATE DATABASE {name}")
        socket, strange = (by_socket(each.folder, port, name) for each in (postgres_server, other))
        beside = url.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1", 1)
        for unmade in (True, False):
            assert is_same(url, socket)
            assert not is_same(socket, strange)
            if unmade:
                make(url)
                assert not is_same(url, strange), "where one is made and the other is not"
                make(strange)
        assert not is_same(url, strange)
        assert is_same(url, url.replace("127.0.0.1", "127.1"))
        assert is_same(url, beside)
        assert not is_same(url, f"{socket}&schema=elsewhere")


def test_a_program_on_another_server_than_the_line_names_is_refused(
    postgres_server: postgres.Server, tmp_path: Path
) -> None:
    port = postgres_server.port
    with postgres_server.database() as name, one_more(port) as other:
        postgres.sql(by_socket(other.folder, port, "postgres"), f"CREATE DATABASE {name}")
        strange = by_socket(other.folder, port, name)
        for own in ("", ":runner"):
            (tmp_path / "app.py").write_text(
                f"import cloaca\nrunner = cloaca.DefaultRunner({postgres_server.loopback_url(name)!r})\n"
            )
            done = subprocess.run(
                [sys.executable, "-m", "cloaca", "run", f"app.py{own}", "--database", strange],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 2, done.stderr
            assert "--database names" in done.stderr
            assert postgres.PASSWORD not in done.stderr
