"""Watches who else opens a file that a runner of this process has open.

`sqlite3.connect` is refused: two SQLite libraries on one file in one process lose committed rows where file
locks belong to the process, because closing the second connection drops the first one's lock
(https://sqlite.org/howtocorrupt.html, section 2.2). Any other opening is told once: on Linux the runner's
locks are its own and it does no harm, but a copy of a live file may be torn.
The audit hook is installed with the first file and cannot be taken out again; it costs a comparison of
strings an event, and one more for each file that is opened.
Set the environment variable ``CLOACA_ALLOW_SQLITE3=1`` before the first runner is made to leave it out.
Invariant: nothing but `sqlite3.connect` is refused, and the opening of a file of another name asks no disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

from .errors import StoreError, excerpt
from .plain import WARNING, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .crew import Crew

_log = "cloaca"
_HARM = (
    "that does no harm to what is committed"
    if sys.platform == "linux"
    else "closing it drops the runner's locks, and then another process may destroy what is committed"
)
_WAY_OUT = f"{_HARM}, but what is read may be torn: runner.export(path) copies, runner.query(sql) reads"

# Taken again on one thread by a handler of a signal, or a `__del__`, that ends a runner amidst that.
_lock = threading.RLock()
_live: dict[tuple[int, int], set[Crew]] = {}
"""Who has each file open. Sets, so that an interrupted call can be made again."""
_endings: tuple[tuple[str, ...], tuple[bytes, ...]] = (), ()
"""How the paths of live files end, which is compared before anything is asked of the disk."""
_names: dict[tuple[int, int], str] = {}
_told: set[tuple[int, int]] = set()
"""Files whose opening by others has been told."""
_seen: set[tuple[int, int]] = set()
"""Files that a runner or reader of this process, or of the one that it was forked from, has opened:
descriptors may be left of that."""
_openings: list[Before] = []
_installed = False


class Before:
    """What the process has open before a runner opens its file. To be held for as long as that takes."""

    def __init__(self) -> None:
        self.files: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Before:
        with _lock:
            # Descriptors of another runner, amidst opening the same file, look like a stranger's.
            if not _openings:
                self.files = _descriptors()
            _openings.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """It is over; once more does nothing."""
        # Not in a child that was forked meanwhile.
        with _lock, contextlib.suppress(ValueError):
            _openings.remove(self)


def _descriptors() -> dict[int, tuple[int, int]]:
    """The files that this process has open, where the system tells."""
    found: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            # One of them is the listing itself, which is closed by now.
            with contextlib.suppress(OSError):
                status = os.fstat(int(name))
                found[int(name)] = status.st_dev, status.st_ino
    return found


def watch(path: str, owner: Crew, before: Before | None = None) -> None:
    """Guards a file for as long as its owner holds it."""
    global _installed
    unwatch_closed()
    if (key := _key(path)) is None:
        return
    with _lock:
        is_first = key not in _seen
        _seen.add(key)
        _live.setdefault(key, set()).add(owner)
        _names[key] = os.path.basename(path)
        _compare()
        if not _installed and os.environ.get("CLOACA_ALLOW_SQLITE3") != "1":
            _installed = True
            sys.addaudithook(_audit)
    files = before.files if before is not None else {}
    if is_first and (strangers := [number for number, file in files.items() if file == key]):
        shown = ", ".join(map(str, strangers))
        text = "%s was open in this process before its runner, as descriptor %s: %s"
        say(_log, WARNING, text, path, shown, _WAY_OUT)


def saw(path: str) -> None:
    """Takes the descriptors that this process has of a file for the library's own, as a reader opened it."""
    if (key := _key(path)) is not None:
        with _lock:
            _seen.add(key)


def unwatch_closed() -> None:
    """Ends what `watch` began for owners that have closed their file by now."""
    with _lock:
        for key, owners in list(_live.items()):
            owners.difference_update([owner for owner in tuple(owners) if not owner.holds_file()])
            if not owners:
                _live.pop(key, None)
                _names.pop(key, None)
                _told.discard(key)
        _compare()


def _compare() -> None:
    global _endings
    names = tuple(set(_names.values()))
    _endings = names, tuple(os.fsencode(name) for name in names)


def _key(file: Any) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except (OSError, ValueError, TypeError):
        return None
    return status.st_dev, status.st_ino


def _is_live(key: tuple[int, int]) -> bool:
    return any(owner.holds_file() for owner in tuple(_live.get(key, ())))


def forget_locks() -> None:
    """In a forked child another thread of the parent may hold the lock for ever, and the files are the
    parent's: the child may open them as any other process may."""
    global _lock
    _lock = threading.RLock()
    _live.clear()
    _names.clear()
    _told.clear()
    _openings.clear()
    _compare()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if _live:
            # What goes wrong here is no business of who opens a file.
            with contextlib.suppress(Exception):
                _opened(arguments[0])
        return
    if event != "sqlite3.connect" or not _live:
        return
    path = _path_of(arguments[0])
    key = _key(path)
    # A runner whose last body came home after its shutdown has told nobody that it closed the file then.
    if key is not None and _is_live(key):
        raise StoreError(
            f"sqlite3.connect({path!r}): a runner of this process has this file open, and a second SQLite "
            "library on it would lose committed rows; use runner.query(sql) or runner.export(path), or "
            "another process"
        )


def _opened(path: object) -> None:
    """A file is opened, by name or by number: it is told once if it is a live one."""
    texts, encoded = _endings
    if isinstance(path, str):
        if not path.endswith(texts):
            return
    elif isinstance(path, bytes):
        if not path.endswith(encoded):
            return
    elif not (isinstance(path, os.PathLike) and os.fsdecode(path).endswith(texts)):
        return
    for key in _names.copy():
        if key not in _told and _key(path) == key and _is_live(key):
            _told.add(key)
            text = "%s was opened, and a runner of this process has it open: %s"
            say(_log, WARNING, text, excerpt(path), _WAY_OUT)


def _path_of(database: object) -> str:
    path = os.fsdecode(database) if isinstance(database, str | bytes | os.PathLike) else str(database)
    if path.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        # SQLite's end of a name is the first NUL; what isn't a URI to Python names no file of ours.
        with contextlib.suppress(ValueError):
            path = unquote(urlsplit(path).path).partition("\0")[0]
    return path
