"""Why a store's file cannot be looked at, where the system lets this user not so far.

Invariant: the file is not opened for that: to close it again would give up this process's locks on it.
"""

from __future__ import annotations

import os

from . import _cloaca
from .errors import StoreError


def told(url: str, error: StoreError) -> StoreError:
    """What is to be raised in place of an error with which a store could not be opened for reading; the error
    itself, if the file's rights are not why."""
    found = _cloaca.path_of(url)
    path = None if found is None else os.path.abspath(found)
    why = None if path is None else _closed(path)
    return error if why is None else StoreError(f"database {path!r} cannot be looked at: this user {why}")


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
