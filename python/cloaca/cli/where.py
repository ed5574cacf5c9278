"""Which store, and which program, a line means when it doesn't say so.

Invariant: what was guessed is said, and nothing is guessed where there are two.
"""

from __future__ import annotations

import contextlib
import os
import re

from ..errors import EXCERPT_CHARS_MAX, CloacaError, StoreError, UrlError, excerpt
from ..near import hint
from .parse import UsageError
from .show import aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENVIRONMENT = "CLOACA_DATABASE"
APPLICATION_ID = b"cloa"
"""By which a store of ours is known, at this place of its file."""
APPLICATION_ID_AT = 68
SHOWN_CHARS_MAX = EXCERPT_CHARS_MAX - len("''")
MAGIC = b"SQLite format 3\0"
_SETTINGS = ("app", "database")
_WAYS = f"name one with --database URL, {ENVIRONMENT}, or database = in [tool.cloaca] of pyproject.toml"


def refuse_taken(path: str | os.PathLike[str]) -> None:
    """Raises where no new file can be made of that name, before anything is read or written.

    Raises:
        UsageError: something of that name is there, or its folder is not.
        CloacaError: its folder may not be written.
    """
    from pathlib import Path

    from .. import copying

    place = Path(os.path.realpath(path))
    try:
        copying._refuse_taken(place)
    except StoreError as error:
        raise UsageError(str(error)) from None
    if not os.access(place.parent, os.W_OK | os.X_OK):
        folder = excerpt(os.fspath(place.parent))
        raise CloacaError(
            f"target {excerpt(os.fspath(path))}: folder {folder} may not be written by this user; name"
            " another target"
        )


class NothingFound(UsageError):
    """No store is named, and in this folder there is none."""


def database(given: str | None, folder: str = os.curdir) -> str:
    """The URL of the store that is meant in a folder.

    Raises:
        NothingFound: (a `UsageError`) none is named, and in this folder there is none.
        UsageError: none is named, and in this folder there are more than one.
    """
    for name, value in (("--database", given), (ENVIRONMENT, os.environ.get(ENVIRONMENT))):
        if value == "":
            raise UsageError(f"{name} is empty; let it name a store, or leave it out")
        if value is not None:
            return value
    if named := _setting("database", folder):
        return named
    found, others = _meant(_ours(folder), folder)
    if not found:
        raise NothingFound(f"which store? There is none of cloaca's in this folder; {_WAYS}")
    if len(found) > 1:
        names = ", ".join(excerpt(name) for name in found[:5])
        raise UsageError(f"which store? This folder has {names}; {_WAYS}")
    besides = " that is no copy" if others else ""
    aside(f"store: {excerpt(found[0])}, the only one in this folder{besides}\n")
    return os.path.join(folder, found[0])


def settled(given: str | None) -> str | None:
    """What a line gives as its store, as it is named from everywhere: the program that is served there may go
    to another folder. So is what the environment names, where the program may look itself.

    Raises:
        UrlError: what names the store can be none.
    """
    kept = os.environ.get(ENVIRONMENT)
    if given is not None:
        if kept:
            # It is not what is meant, and may be whatever it is.
            with contextlib.suppress(UrlError):
                os.environ[ENVIRONMENT] = _lasting(kept)
        return _lasting(given)
    if kept:
        os.environ[ENVIRONMENT] = _lasting(kept)
    named(None)
    return None


def _lasting(url: str) -> str:
    folder = os.getcwd()
    made = _seen_from(folder, url)
    with contextlib.suppress(UrlError):
        if is_same(made, url):
            return made
    # A folder may be called so that nothing in it can be named but from there.
    return url


def named(given: str | None) -> tuple[str, str] | None:
    """What a line names as its store by `--database`, by `CLOACA_DATABASE` or for the whole project, and by
    which of these; `None` if by none."""
    for name, value in (("--database", given), (ENVIRONMENT, os.environ.get(ENVIRONMENT))):
        if value:
            return name, value
    setting = _setting("database")
    return None if not setting else ("[tool.cloaca] database", setting)


def tell_program(given: str | None) -> None:
    """Tells the program that is about to be imported which store a line names, by `CLOACA_DATABASE`, if it
    names one."""
    if (found := named(given)) is not None:
        os.environ[ENVIRONMENT] = _lasting(found[1])


_HERE = re.compile(r" at (?:(?:127\.0\.0\.1|\[::1\]|localhost):|/.*/\.s\.PGSQL\.)(?=\d+$)")
"""How a server of this machine may be named."""
_SOCKET = re.compile(r" at (/.*)/\.s\.PGSQL\.\d+$")


def shown(url: str, folder: str) -> str:
    """What messages call a store, for who is in that folder: two are never called the same."""
    from .. import _cloaca, check

    path = _cloaca.path_of(url)
    if path is None:
        return excerpt(check.store_name(url))
    place, inside = os.path.abspath(path), os.path.join(folder, "")
    place = place.removeprefix(inside)
    # What differs stands at the end.
    return excerpt(place if len(place) < SHOWN_CHARS_MAX else f"…{place[1 - SHOWN_CHARS_MAX :]}")


def is_same(one: str, other: str) -> bool:
    """Whether two URLs name one store. Two names of stores on a server are no answer: one may be reached by
    several, and behind a socket of another folder may be another server. Then it is the stores that are
    asked, and names tell only where one of them cannot be reached.
    """
    from .. import _cloaca

    paths = _cloaca.path_of(one), _cloaca.path_of(other)
    if None not in paths:
        return os.path.realpath(paths[0] or "") == os.path.realpath(paths[1] or "")
    if paths[0] != paths[1]:
        return False
    names = _cloaca.name_of(one), _cloaca.name_of(other)
    if names[0] == names[1]:
        return True
    found = _identity(one), _identity(other)
    if None not in found:
        # Where neither is made yet, there is nothing that could tell.
        if found != (_UNMADE, _UNMADE):
            return found[0] == found[1]
        sockets = [_folder_of(name) for name in names]
        if None not in sockets and sockets[0] != sockets[1]:
            return False
    return len({_HERE.sub(" at localhost:", name) for name in names}) == 1


_SERVED = """
    SELECT extract(epoch FROM pg_postmaster_start_time())::text || ' ' || 'runs'::regclass::oid::text
        || ' ' || (SELECT oid FROM pg_database WHERE datname = current_database())::text AS identity"""
"""What no two stores have in common, and any user may read."""
_UNMADE = ""


def _identity(url: str) -> str | None:
    """What tells the store on a server from every other one, by whichever name it is reached; nothing if it
    is not made yet, `None` if that cannot be found out now."""
    from contextlib import closing

    from .. import _cloaca

    with contextlib.suppress(CloacaError):
        if _cloaca.schema_of(url)[0] == 0:
            return _UNMADE
        with closing(_cloaca.Reader.open(url)) as reader:
            (row,) = reader.query(_SERVED, [])
            return str(row["identity"])
    return None


def _folder_of(name: str) -> str | None:
    """Where the socket lies by which a server is called so."""
    found = _SOCKET.search(name)
    return None if found is None else os.path.realpath(found[1])


def program(given: str | None) -> str | None:
    """The program that is meant, if one is."""
    return given or _setting("app")


def _meant(found: list[str], folder: str) -> tuple[list[str], list[str]]:
    """Those of several stores that may be meant, and the others: copies that nobody has served since, unless
    there is nothing else."""
    if len(found) < 2:
        return found, []
    copies = [name for name in found if _is_copy(os.path.join(folder, name))]
    if len(copies) == len(found):
        return found, []
    return [name for name in found if name not in copies], copies


def _is_copy(path: str) -> bool:
    from ..copied import made_at
    from ..errors import StoreError
    from ..reading import Reader

    try:
        with Reader(path) as reader:
            return made_at(reader.native.query) is not None
    except StoreError:  # of another version, say
        return False


def _ours(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".db") and entry.is_file())
    return [name for name in names if _is_ours(os.path.join(folder, name))]


def _is_ours(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(APPLICATION_ID_AT + 4)
    except OSError:
        return False
    kept = head[APPLICATION_ID_AT:]
    # As long as its first runner lives, what tells it stands in the log alone.
    is_new = kept == bytes(4) and os.path.exists(f"{path}-wal")
    return head.startswith(MAGIC) and (kept == APPLICATION_ID or (is_new and _opens(path)))


def _opens(path: str) -> bool:
    from ..errors import StoreError
    from ..reading import Reader

    try:
        Reader(path).close()
    except StoreError:
        return False
    return True


def _setting(name: str, folder: str = os.curdir) -> str | None:
    """What `[tool.cloaca]` says in the nearest pyproject.toml, upwards from a folder. A path there is seen
    from that file's folder."""
    folder = os.path.abspath(folder)
    while not os.path.exists(path := os.path.join(folder, "pyproject.toml")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    value = _tool(path).get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{path}: [tool.cloaca] {name} is {excerpt(value)}; it must be a string")
    if name == "database":
        return _seen_from(folder, value)
    return os.path.join(folder, value) if ".py" in value and not os.path.isabs(value) else value


def _tool(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file).get("tool", {}).get("cloaca", {})
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error}; mend it, or give --database") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: [tool.cloaca] is {excerpt(table)}; it must be a table")
    if unknown := [name for name in table if name not in _SETTINGS]:
        # What is misspelt would name another store than whoever wrote it meant.
        meant = hint(unknown[0], "settings", _SETTINGS)
        raise UsageError(f"{path}: [tool.cloaca] {excerpt(unknown[0])} is no setting{meant}")
    return table


def _seen_from(folder: str, url: str) -> str:
    """What names from everywhere the store that a URL names in a folder.

    Raises:
        UrlError: it can name none. It may hold a password, and nothing of it is shown.
    """
    from .._cloaca import path_of

    path = path_of(url)
    if path is None or os.path.isabs(path):
        return url
    _, mark, rest = url.partition("://")
    if not mark:
        return os.path.join(folder, url)
    # After three slashes a place may be meant from anywhere.
    return f"sqlite:///{os.path.join(folder, path)}{''.join(rest.partition('?')[1:])}"
