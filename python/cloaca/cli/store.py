"""The commands about a store as a whole: copied, and brought to this version."""

from __future__ import annotations

import os
from pathlib import Path

from .. import _cloaca, check
from ..migrating import migrate as bring_up
from ..migrating import schema_of, script
from .ending import cleaning_up, made_by_now
from .main import OK
from .show import Show
from .where import database, refuse_taken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace


def copy(arguments: Namespace, show: Show) -> int:
    """A store in a new place."""
    from ..copying import copy_store

    file = _cloaca.path_of(check.url(arguments.target, "target"))
    place: Path | str = Path(os.path.realpath(file or ""))
    if file is not None:
        refuse_taken(file)
    with cleaning_up(made_by_now(None if file is None else place)):
        place = copy_store(arguments.source, arguments.target)
    size = None if isinstance(place, str) else os.path.getsize(place)
    if show.as_json:
        show.record("copy", {"path": str(place), "bytes": size})
    else:
        bytes_of_it = "" if size is None else f", {size:,} bytes"
        show.note(f"copied to {place}{bytes_of_it}; the first runner of it goes on with what is unfinished")
    return OK


def migrate(arguments: Namespace, show: Show) -> int:
    """The schema of this version."""
    from .change import ask

    url = check.url(database(arguments.database))
    seen, steps = schema_of(url)
    newest = seen + len(steps)
    if arguments.print:
        _print(show, url, seen, steps)
        return OK
    if steps:
        ask(f"bring {_cloaca.name_of(url)} from schema version {seen} to {newest}", arguments)
        seen = bring_up(url)
    if show.as_json:
        show.record("schema", {"version": seen, "newest": newest, "was": newest - len(steps)})
    elif steps:
        show.values(["migrated", newest - len(steps), seen])
    else:
        show.values(["newest", seen])
    return OK


def _print(show: Show, url: str, seen: int, steps: list[str]) -> None:
    newest = seen + len(steps)
    if show.as_json:
        show.record("schema", {"version": seen, "newest": newest, "sql": steps})
        return
    if not steps:
        show.note(f"schema version {seen} is the newest that this cloaca knows; opening it changes nothing")
        return
    for line in script(url, seen, steps):
        show.line(line)
