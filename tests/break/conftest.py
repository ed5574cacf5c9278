"""What attacks on a server have in common: a way to it that can be cut, and a database of one's own."""

from __future__ import annotations

from collections.abc import Iterator

import postgres
import pytest


@pytest.fixture
def way(postgres_server: postgres.Server) -> Iterator[postgres.Way]:
    way = postgres.Way(postgres_server)
    yield way
    way.close()


@pytest.fixture
def database(postgres_server: postgres.Server) -> Iterator[str]:
    with postgres_server.database() as name:
        yield name
