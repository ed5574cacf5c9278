"""`migrate`: a store's schema, brought to this version or told as SQL.

Invariant: what is printed is what would be run, and printing it changes nothing.
"""

from __future__ import annotations

import os
from contextlib import closing

from . import _cloaca, check
from .errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def migrate(database_url: str | os.PathLike[Any], *, print_only: bool = False) -> int:
    """Brings the schema of a store to this version, as the first runner that opens it would; on a server of
    PostgreSQL it makes the schema if there is none. Two programs may do so at once.

    Args:
        database_url (str | PathLike): the store, as `DefaultRunner` takes it; a file must be there.
        print_only (bool): print the SQL that would do it, for whoever runs such things by hand, and change
            nothing.

    Returns:
        int: the schema version that the store has now.

    Raises:
        StoreError: (a `RuntimeError`) there is no store, it is of a newer version, or this user may not
            change its schema.
        UrlError: (a `ValueError`) the URL has none of the known forms, or means memory.
    """
    url = check.url(database_url)
    seen, steps = schema_of(url)
    if check.flag(print_only, "print_only"):
        print("\n".join(script(url, seen, steps)))
        return seen
    if steps:
        with closing(_cloaca.Client.open(url)):
            pass
        seen = _cloaca.schema_of(url)[0]
    return seen


def schema_of(url: str) -> tuple[int, list[str]]:
    """The schema version of a store, and the SQL that would bring it to this program's.

    Raises:
        StoreError: (a `RuntimeError`) there is no store, or it cannot be looked at.
    """
    try:
        return _cloaca.schema_of(url)
    except StoreError as error:
        from .unseen import told

        raise told(url, error) from None


def script(url: str, seen: int, steps: list[str]) -> list[str]:
    """The lines of a script that takes a schema from version `seen` on."""
    newest = seen + len(steps)
    if not steps:
        return [f"-- Schema version {seen} is the newest that this cloaca knows; opening it changes nothing."]
    head = f"-- From schema version {seen} to {newest}, as one transaction."
    if _cloaca.path_of(url) is None:
        return [head, "BEGIN;", *(step.rstrip("\n") for step in steps), "COMMIT;"]
    return [head, *(step.rstrip("\n") for step in steps), f"PRAGMA user_version = {newest};"]
