"""The runners that nobody has shut down: until the interpreter ends, and over a fork.

Invariant: in a forked child no runner of the parent is ever closed, or collected.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings

from . import _guard, imported, place, registry
from .errors import excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .runner import DefaultRunner

ATEXIT_SECONDS = 5.0
"""How long the end of the interpreter waits for running tasks of a runner that nobody shut down."""
runners: set[DefaultRunner] = set()
"""Runners that nobody has shut down: they serve until the interpreter ends, whether somebody refers to them
or not."""
_made: dict[DefaultRunner, tuple[tuple[str, int], str | None]] = {}
"""Where in the program each of them was made, in that order, and on which file."""
has_made = False
"""Whether there was any."""
_inherited: set[DefaultRunner] = set()
_hooked = False
is_looked_at = False
"""Whether the program is imported by somebody who only wants to know what it declares."""


refuse: Callable[[str], None] | None = None
"""Who is asked before a runner that works opens a store, and raises if it is not the one that is meant."""


@contextlib.contextmanager
def refusing(asked: Callable[[str], None] | None) -> Iterator[None]:
    """The runners that are made meanwhile, and work, open no store at which `asked` raises."""
    global refuse
    refuse = asked
    try:
        yield
    finally:
        refuse = None


hold: Callable[[str], bool] | None = None
"""Who is asked of its store before a runner that works begins, which waits for `let_go` then: whether it is
passed over by that, and stays paused."""
held: list[DefaultRunner] = []
"""Those that wait: each begins before, once its program has something done by it."""
kept: list[DefaultRunner] = []
"""Those that stay paused."""


@contextlib.contextmanager
def holding(asked: Callable[[str], bool]) -> Iterator[None]:
    """The runners that are made meanwhile, and work, begin nothing yet; where `asked` says so of a store, not
    before somebody resumes them."""
    global hold
    before, hold = hold, asked
    try:
        yield
    finally:
        hold = before


def let_go() -> None:
    """Those that were held begin."""
    for runner in list(held):
        begin(runner)


def begin(runner: DefaultRunner) -> None:
    """Its program has something done by it: if it was held, it begins."""
    try:
        held.remove(runner)
    except ValueError:  # another thread has let it begin, or it never waited
        refuse_kept(runner)
        return
    runner.resume()


def refuse_kept(runner: DefaultRunner) -> None:
    """Its program has one begin that stays paused, because its store is not the one that is meant."""
    if refuse is not None and runner in kept:
        refuse(runner._url)


@contextlib.contextmanager
def only_looked_at() -> Iterator[None]:
    """The runners that are made meanwhile serve no store: they hold what is declared, in memory, and begin
    nothing."""
    global is_looked_at
    before, is_looked_at = is_looked_at, True
    try:
        yield
    finally:
        is_looked_at = before


def enter(runner: DefaultRunner) -> None:
    """Keeps a runner until it leaves."""
    global has_made
    path = runner._engine.path
    made = place.of_caller(), None if path is None else os.path.realpath(path)
    if path is not None and made in _made.values():
        warnings.warn(
            f"a runner made {made[0][0]} on {excerpt(os.fspath(path))} is still at work; this is one more,"
            " cloaca.runners() has both",
            UserWarning,
            stacklevel=4,
        )
    has_made = True
    runners.add(runner)
    _made[runner] = made
    hook()


def leave(runner: DefaultRunner) -> None:
    """Forgets a runner that was shut down. Twice is fine."""
    runners.discard(runner)
    _made.pop(runner, None)
    for waiting in (held, kept):
        if runner in waiting:
            waiting.remove(runner)


def hook() -> None:
    """Has everything closed at the interpreter's end, and looks after forks from here on. Twice is fine."""
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
    if (forget_locks := imported.found("cloaca._aio", "forget_locks")) is not None:
        forget_locks()
    # Kept, so that nothing of theirs is closed here.
    _inherited.update(runners)
    held.clear()
    kept.clear()
    runners.clear()
    _made.clear()


def made() -> list[DefaultRunner]:
    """The runners of this process that nobody has shut down, in the order in which they were made, whether or
    not anything else still refers to them."""
    return list(_made)


def _close_all() -> None:
    waits = True
    for runner in list(runners):
        # An interrupt asks for the end that is under way, and only its waits end by that.
        try:
            runner.shutdown(ATEXIT_SECONDS if waits else 0.0)
        except KeyboardInterrupt:
            waits = False
            with contextlib.suppress(KeyboardInterrupt):
                runner._shutdown_at_once()
    if (leave_loop := imported.found("cloaca._aio", "leave")) is not None:
        leave_loop()
