"""Why a store cannot be read yet, where all it lacks is a runner that makes it, or its server.

Invariant: of a store that no runner of this version would make or bring up to date nothing is said here:
opening it says what is wrong.
"""

from __future__ import annotations

import os

from .. import _cloaca
from ..errors import StoreError, _AwayError
from ..unseen import told

UNMADE = "nobody has made it yet; the first runner that serves it does"
HEAD_BYTES = 100
"""So long is what each database of SQLite begins with."""


def lacks(url: str) -> str | None:
    """What a store still lacks; `None` if it can be read.

    Raises:
        StoreError: (a `RuntimeError`) it is none of cloaca's, or of a newer version, its folder is not there,
            or its server does not let this user in.
    """
    try:
        seen, steps = _cloaca.schema_of(url)
    except _AwayError as away:
        return str(away)
    except StoreError as error:
        path = _cloaca.path_of(url)
        if path is None or not is_bare(os.fspath(path)):
            raise told(url, error) from None
        return UNMADE
    if not steps:
        return None
    if seen == 0:
        return UNMADE
    return (
        f"it has schema version {seen}, and this cloaca reads version {seen + len(steps)}; the first runner"
        " of this version brings it up to date, and so does 'cloaca migrate'"
    )


def is_bare(path: str) -> bool:
    """Whether there is no such file in a folder, or nobody has written a table to it."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return os.path.isdir(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return False
    # A table has a page of its own.
    page = int.from_bytes(head[16:18], "big")
    return size == 0 or (head.startswith(b"SQLite format 3\0") and size <= (65_536 if page == 1 else page))
