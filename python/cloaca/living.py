"""The runners that nobody has shut down: until the interpreter ends, and over a fork.

Invariant: in a forked child no runner of the parent is ever closed, or collected.
"""

from __future__ import annotations

import atexit
import os
import sys

from . import _guard, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runner import DefaultRunner

ATEXIT_SECONDS = 5.0
"""How long the end of the interpreter waits for running tasks of a runner that nobody shut down."""
runners: set[DefaultRunner] = set()
"""Runners that nobody has shut down: they serve until the interpreter ends, whether somebody refers to them
or not."""
_inherited: set[DefaultRunner] = set()
_hooked = False


def enter(runner: DefaultRunner) -> None:
    """Keeps a runner until it leaves."""
    runners.add(runner)
    _hook()


def leave(runner: DefaultRunner) -> None:
    """Forgets a runner that was shut down. Twice is fine."""
    runners.discard(runner)


def _hook() -> None:
    global _hooked
    if _hooked:
        return
    _hooked = True
    from ._cloaca import after_fork, before_fork

    atexit.register(_close_all)
    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=_forked)


def _forked() -> None:
    """The runners that a forked child knows of are the parent's."""
    from ._cloaca import after_fork, forked

    after_fork()
    forked()
    registry.forget_runners()
    _guard.forget_locks()
    if (shared_loop := sys.modules.get("cloaca._aio")) is not None:
        shared_loop.forget_locks()
    # Kept, so that nothing of theirs is closed here.
    _inherited.update(runners)
    runners.clear()


def _close_all() -> None:
    for runner in list(runners):
        runner.shutdown(ATEXIT_SECONDS)
    if (shared_loop := sys.modules.get("cloaca._aio")) is not None:
        shared_loop.leave()
