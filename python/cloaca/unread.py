"""Whose fault it is that a run of which somebody is to be told cannot be read: that of a store that is away,
which passes, or that of the run, which does not.
"""

from __future__ import annotations

from .errors import CloacaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ._cloaca import Engine

    Found = TypeVar("Found")


class StoreAway(Exception):
    """The store answers nothing now. It is raised from what it raised."""

    def __init__(self, error: CloacaError) -> None:
        self.error = error


def read(engine: Engine, look: Callable[[], Found]) -> Found:
    """What `look` reads, once more if the connection was cut.

    Raises:
        StoreAway: the store cannot be read.
        CloacaError: it can, and this cannot.
    """
    try:
        return look()
    except CloacaError:
        pass
    try:
        return look()
    except CloacaError as error:
        try:
            engine.store.look("SELECT 1 AS one", [])
        except CloacaError:
            raise StoreAway(error) from error
        raise
