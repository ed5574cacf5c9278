"""Waits for the server of a store before a program opens it there, as `cloaca ui` waits.

Invariant: what time does not mend is not waited for: what is wrong with a store, opening it says.
"""

from __future__ import annotations

import time

from .. import _cloaca, check
from ..errors import CloacaError, StoreError, _AwayError, excerpt
from ..terminal import clean
from .show import aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..reading import Reader

    T = TypeVar("T")

LOOK_SECONDS = 0.25
"""So often it is looked whether it is there."""
AWAY_SECONDS = 30.0
"""As long as what a program asks for waits for it."""


def awaited(url: str, target: str, is_quiet: bool) -> None:
    """Returns once the server of a store is there; says once that a program waits for it, unless another
    process does.
    """
    is_told = is_quiet
    while (lack := _away(url)) is not None:
        if not is_told:
            is_told = True
            text = f"{target} waits for store {check.store_name(url)}: {lack}"
            aside(f"cloaca: {clean(text)}\n")
        time.sleep(LOOK_SECONDS)


def _away(url: str) -> str | None:
    """Why its server is away, if it has one that is."""
    try:
        if _cloaca.path_of(url) is None:
            _cloaca.schema_of(url)
    except _AwayError as away:
        return str(away)
    except CloacaError:
        pass
    return None


def waited(reader: Reader, look: Callable[[], T]) -> T:
    """What a look finds at a store that is waited for: a server may be away meanwhile.

    Raises:
        StoreError: it stays away, or the file was deleted or replaced.
    """
    until: float | None = None
    while True:
        if reader.is_gone():
            raise StoreError(
                f"database {excerpt(reader.path)} was deleted, moved or replaced meanwhile; nothing is known"
                " of the run any more"
            )
        try:
            return look()
        except StoreError:
            now = time.monotonic()
            until = now + AWAY_SECONDS if until is None else until
            if reader.file is not None or now >= until:
                raise
            time.sleep(LOOK_SECONDS)
