"""What every test of the package starts from: an empty registry, and a runner that ends with it."""

from collections.abc import Iterator

import pytest

import cloaca
from cloaca import registry


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
