"""Why a store's file cannot be looked at, where the system lets this user not so far, or its disk is full.

Invariant: the file is not opened for that: to close it again would give up this process's locks on it.
"""

from __future__ import annotations

import os

from . import _cloaca
from .errors import StoreError

INDEX_BYTES = 32 * 1024
"""SQLite keeps the index of a log in a file of so much, which is made as the first one opens the database."""


def told(url: str, error: StoreError) -> StoreError:
    """What is to be raised in place of an error with which a store could not be opened for reading; the error
    itself, if neither the file's rights nor its disk are why."""
    found = _cloaca.path_of(url)
    path = None if found is None else os.path.abspath(found)
    if path is None:
        return error
    why = _closed(path)
    why = f"this user {why}" if why is not None else _full(path)
    return error if why is None else StoreError(f"database {path!r} cannot be looked at: {why}")


def _full(path: str) -> str | None:
    """That its disk is full: nobody has it open, or the index of its log would be there."""
    if os.path.exists(f"{path}-shm") or not os.path.exists(path):
        return None
    import shutil  # which brings all that packs and unpacks

    try:
        free = shutil.disk_usage(os.path.dirname(path)).free
    except OSError:
        return None
    if free >= INDEX_BYTES:
        return None
    return (
        f"its disk is full ({free:,} bytes are free, and to open it takes {INDEX_BYTES:,}); make room there,"
        " or look at a copy of the file on another disk"
    )


def _closed(path: str) -> str | None:
    """What keeps this user from a file, the outermost first."""
    folder = os.path.dirname(path)
    try:
        os.stat(path)
    except PermissionError:
        while not _enters(os.path.dirname(folder)) and folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
        return f"may not enter folder {folder!r}; look as one who may, or open that to this one"
    except OSError:
        return None
    is_closed = not os.access(path, os.R_OK)
    return "may not read that file; look as one who may, or open it to this one" if is_closed else None


def _enters(folder: str) -> bool:
    try:
        os.stat(os.path.join(folder, os.curdir))
    except OSError:
        return False
    return True
