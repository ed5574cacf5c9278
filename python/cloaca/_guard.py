"""Refuses `sqlite3.connect` on a file that a runner of this process has open.

Two SQLite libraries on one file in one process lose committed rows: POSIX locks belong to the process, so
closing the second
connection drops the first one's lock (https://sqlite.org/howtocorrupt.html, section 2.2). The audit hook is
installed with the first
file and cannot be taken out again; it costs a string comparison an event.
Set the environment variable ``CLOACA_ALLOW_SQLITE3=1`` before the first runner is made to leave it out.
"""

from __future__ import annotations

import os
import sys
import threading

from .errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .crew import Crew

_lock = threading.Lock()
_live: dict[tuple[int, int], set[Crew]] = {}
"""Who has each file open. Sets, so that an interrupted call can be made again."""
_installed = False


def watch(path: str, owner: Crew) -> None:
    """Guards a file for as long as its owner holds it."""
    global _installed
    unwatch_closed()
    try:
        status = os.stat(path)
    except OSError:
        return
    key = (status.st_dev, status.st_ino)
    with _lock:
        _live.setdefault(key, set()).add(owner)
        if not _installed and os.environ.get("CLOACA_ALLOW_SQLITE3") != "1":
            _installed = True
            sys.addaudithook(_audit)


def unwatch_closed() -> None:
    """Ends what `watch` began for owners that have closed their file by now."""
    with _lock:
        for key, owners in list(_live.items()):
            owners.difference_update([owner for owner in owners if not owner.holds_file()])
            if not owners:
                _live.pop(key, None)


def forget_locks() -> None:
    """In a forked child another thread of the parent may hold the lock for ever, and the files are the
    parent's: the child may open them as any other process may."""
    global _lock
    _lock = threading.Lock()
    _live.clear()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "sqlite3.connect" or not _live:
        return
    path = _path_of(arguments[0])
    try:
        status = os.stat(path)
    except (OSError, ValueError, TypeError):
        return
    # A runner whose last body came home after its shutdown has told nobody that it closed the file then.
    if any(owner.holds_file() for owner in tuple(_live.get((status.st_dev, status.st_ino), ()))):
        raise StoreError(
            f"sqlite3.connect({path!r}): a runner of this process has this file open, and a second SQLite "
            "library on it would lose committed rows; use runner.query(sql) or runner.export(path), or "
            "another process"
        )


def _path_of(database: object) -> str:
    path = os.fsdecode(database) if isinstance(database, str | bytes | os.PathLike) else str(database)
    if path.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        path = unquote(urlsplit(path).path)
    return path
