"""What every test of the package starts from: an empty registry, and a runner that ends with it."""

from collections.abc import Callable, Iterator
from time import monotonic, sleep

import pytest

import cloaca
from cloaca import registry

SECONDS_MAX = 30.0


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    """Workflows and triggers are known to the whole process; no test shall see another's."""
    registry.clear()
    yield
    registry.clear()


@pytest.fixture
def runner() -> Iterator[cloaca.DefaultRunner]:
    """A runner in memory."""
    with cloaca.DefaultRunner(":memory:") as runner:
        yield runner


def until(condition: Callable[[], object], seconds: float = SECONDS_MAX) -> None:
    """Waits until the condition holds, for what no event tells; fails if it never does."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it never came"
        sleep(0.005)
