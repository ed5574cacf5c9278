"""What every test of the package starts from: an empty registry, and a runner that ends with it."""

import os
import signal
from collections.abc import Iterator

import postgres
import pytest

import cloaca
from cloaca import registry

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell has it for what runs in the background: programs that are interrupted here would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    """Workflows and triggers are known to the whole process; no test shall see another's."""
    registry.clear()
    yield
    registry.clear()


@pytest.fixture(autouse=True)
def no_runner_left() -> Iterator[None]:
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
