"""What every test of the package starts from: an empty registry, and a runner that ends with it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import postgres
import pytest

import cloaca
from cloaca import _cloaca, registry

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell has it for what runs in the background: programs that are interrupted here would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--store postgres` runs the same tests with every store of this process on PostgreSQL."""
    parser.addoption("--store", choices=["sqlite", "postgres"], default="sqlite", help="where runs are kept")


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    """Workflows and triggers are known to the whole process; no test shall see another's."""
    registry.clear()
    yield
    registry.clear()


@pytest.fixture(autouse=True)
def store_that_is_named_stays() -> Iterator[None]:
    """The command line names its store to the processes that it begins; no test shall meet another's."""
    before = os.environ.get("CLOACA_DATABASE")
    yield
    os.environ.pop("CLOACA_DATABASE", None)
    if before is not None:
        os.environ["CLOACA_DATABASE"] = before


@pytest.fixture(autouse=True)
def no_runner_left(store_of_this_run: None) -> Iterator[None]:
    """One that a failed test leaves at work would meet the next test's declarations, and talk meanwhile."""
    before = set(cloaca.runners())
    yield
    for left in cloaca.runners():
        if left not in before:
            left.shutdown(0)


@pytest.fixture
def runner() -> Iterator[cloaca.DefaultRunner]:
    """A runner in memory."""
    with cloaca.DefaultRunner(":memory:") as runner:
        yield runner


@pytest.fixture(scope="session")
def postgres_server() -> postgres.Server:
    """The one that all tests of this worktree share. Who stops or restarts a server makes one of his own."""
    try:
        return postgres.of_this_worktree().use()
    except postgres.Missing as why:
        if os.environ.get("CLOACA_POSTGRES") == "required":
            pytest.fail(str(why))
        pytest.skip(str(why))


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    """The URL of a database of this test's own."""
    with postgres_server.database() as name:
        yield postgres_server.url(name)


@pytest.fixture(autouse=True)
def store_of_this_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On PostgreSQL, if that is asked for: a store in memory is a database of its own, as is each file."""
    if request.config.getoption("--store") == "sqlite":
        yield
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    with contextlib.ExitStack() as databases:
        files: dict[str, str] = {}

        def elsewhere(url: str) -> str:
            if url.startswith("postgres"):
                return url
            is_memory = url in (":memory:", "sqlite://:memory:")
            path = None if is_memory else os.path.abspath(url.removeprefix("sqlite://").partition("?")[0])
            if path not in files or path is None:
                files[path or ""] = server.url(databases.enter_context(server.database()))
            return files[path or ""]

        def opening(kind: Any) -> Any:
            def open_there(url: str, *args: Any, **options: Any) -> Any:
                return kind.open(elsewhere(url), *args, **options)

            return SimpleNamespace(open=open_there)

        for name in ("Engine", "Reader", "Client"):
            monkeypatch.setattr(_cloaca, name, opening(getattr(_cloaca, name)))
        yield
