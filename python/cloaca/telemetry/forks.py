"""What a forked child does with the telemetry of its parent: another thread of that may have held a lock, or
have been about to answer.

Decides nothing. Invariant: nothing is kept alive by being known here.
"""

from __future__ import annotations

import os
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Forks(Protocol):
        def forked(self) -> None: ...


_known: weakref.WeakSet[Forks] = weakref.WeakSet()


def tell(each: Forks) -> None:
    """It is told in each child that is forked from now on, for as long as it lives."""
    _known.add(each)


def _forked() -> None:
    for each in list(_known):
        each.forked()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
