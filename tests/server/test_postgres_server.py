"""The server that tests on PostgreSQL start: it is shared, and goes with the last who uses it."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import postgres
import pytest

USER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import postgres
    server = postgres.Shared(Path(sys.argv[2]), 0).use()
    print(server.sql("SELECT system_identifier FROM pg_control_system()")[0][0], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(postgres_server: postgres.Server) -> Iterator[Path]:
    """For a server of this test's own: short, as it has a socket, and open to whom the server runs as."""
    with TemporaryDirectory(dir="/tmp", prefix="cloaca-") as parent:
        Path(parent).chmod(0o711)
        yield Path(parent) / "shared"


def user(place: Path) -> subprocess.Popen[str]:
    program = "\n".join(line.strip() for line in USER.splitlines())
    words = [sys.executable, "-c", program, str(Path(postgres.__file__).parent), str(place)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def which(user: subprocess.Popen[str]) -> str:
    """The name that a server gave itself when it was made."""
    assert user.stdout is not None
    return user.stdout.readline()


def test_who_comes_at_the_same_time_shares_a_server_that_goes_with_the_last_however_that_ends(
    place: Path,
) -> None:
    with user(place) as first, user(place) as second:
        server = which(first)
        assert server == which(second) != ""
        first.send_signal(signal.SIGKILL)
        first.wait()
        with user(place) as third:
            assert which(third) == server
            third.send_signal(signal.SIGINT)
        second.kill()
    # Its keeper holds this as long as the server is there.
    with (place.with_name("shared.locks") / "keeper").open("a") as keeper:
        fcntl.flock(keeper, fcntl.LOCK_EX)
    assert not place.exists()


def test_a_server_of_its_own_comes_back_with_what_it_had(place: Path) -> None:
    server = postgres.Server(place)
    server.start()
    try:
        server.sql("CREATE TABLE kept AS SELECT 7 AS number")
        server.stop("fast")
        assert not server.answers()
        server.resume()
        assert server.sql("SELECT number FROM kept") == [["7"]]
    finally:
        server.remove()


def test_a_database_is_a_tests_own_and_is_deleted(postgres_server: postgres.Server) -> None:
    with postgres_server.database() as first, postgres_server.database() as second:
        postgres_server.sql("CREATE TABLE seen ()", first)
        assert postgres_server.sql("SELECT to_regclass('seen') IS NULL", second) == [["t"]]
    databases = postgres_server.sql("SELECT datname FROM pg_database")
    assert [first] not in databases
    assert [second] not in databases
