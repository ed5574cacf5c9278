"""Waits for the server of a store before a program opens it there, as `cloaca ui` waits.

Invariant: what time does not mend is not waited for: what is wrong with a store, opening it says.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time

from .. import _cloaca, check, stop
from ..errors import CloacaError, _AwayError
from ..terminal import clean
from .children import tell
from .ending import unheard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_SECONDS = 0.25
"""So often it is looked whether it is there."""


def awaited(url: str, target: str, is_quiet: bool) -> None:
    """Returns once the server of a store is there; says once that a program waits for it, unless another
    process does.

    Raises:
        Told: a signal has ended that.
    """
    is_told = is_quiet
    with hearing():
        while (lack := _away(url)) is not None:
            if not is_told:
                is_told = True
                text = f"{target} waits for store {check.store_name(url)}: {lack}"
                sys.stderr.write(f"cloaca: {clean(text)}\n")
                sys.stderr.flush()
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


@contextlib.contextmanager
def hearing() -> Iterator[None]:
    """In the block what ends a process raises `Told`, as far as the program hears none of it itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = unheard()
    try:
        for number in before:
            stop.hear(number, tell)
        yield
    finally:
        for number, handler in before.items():
            # The program may have begun to hear it itself.
            if signal.getsignal(number) is tell:
                stop.give_back(number, handler)
