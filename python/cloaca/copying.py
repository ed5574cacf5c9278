"""`copy_store`: a store that nobody serves, taken to a new place.

Invariant: at the new place there is a whole store or none, whenever who copies is killed; and nobody who
serves either of them loses what he commits meanwhile, because he is refused or noticed.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import _cloaca, check
from .errors import ArgumentError, StoreError, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .reading import Reader

PART = "-copying-"
"""What a copy is called, behind its later name, until it is whole."""
NAME_BYTES = 200


def copy_store(source: str | os.PathLike[Any], target: str | os.PathLike[Any]) -> Path | str:
    """Copies a store that nobody serves to a new file or to a server of PostgreSQL, or from one, with all
    that it holds: schedules with their cursors, run keys, unfinished runs, history. To go on there, open a
    runner on the copy; a backup beside a living runner is `DefaultRunner.export`, or `pg_dump` of a server.

    The copy has its name only once it is whole and on disk. If who copies is killed, a file whose name goes
    on with `-copying-` stays behind, which may be deleted; on a server it is one transaction, of which
    nothing stays. Who opens the copy finds what they would find in `source`: the first runner claims the
    unfinished runs. If `source` is opened again, too, both run them.

    Args:
        source (str | PathLike): the store, as `DefaultRunner` takes it.
        target (str | PathLike): the new one: a file that does not exist (a link is followed), or a schema on
            a server that holds no store or an empty one.

    Returns:
        Path | str: the new file; of a store on a server what messages call it, which holds no password.

    Raises:
        StoreError: (a `RuntimeError`) a living runner serves one of them, there is no store at `source` or it
            is of another version, `target` exists, or is not empty, or cannot be written.
        UrlError: (a `ValueError`) one is no URL of a store.
        ArgumentError: (a `ValueError`) one is memory.
    """
    from .reading import Reader

    url = check.url(source, "source")
    url = url if check.on_server(url) else os.fspath(_file(source, "source"))
    there = check.url(target, "target")
    if check.on_server(there):
        return _to_server(url, there)
    path = _file(target, "target")
    with Reader(url) as reader:
        before = _refuse_served(reader)
        _refuse_taken(path)
        # As much of the name as leaves room for what follows.
        start = os.fsdecode(os.fsencode(path.name)[:NAME_BYTES])
        part = path.with_name(f"{start}{PART}{os.getpid()}-{os.urandom(4).hex()}")
        try:
            _write(reader, part, path)
            if _refuse_served(reader) != before:
                raise StoreError(
                    f"store {excerpt(reader.path)} was opened while it was copied; stop its runner and copy"
                    " it again"
                )
            # Whoever has made a file of that name by now serves it, or is about to.
            _refuse_taken(path)
            _cloaca.rename_to_new(part, path)
            _to_disk(path.parent)
        except FileExistsError:
            raise StoreError(f"target {excerpt(os.fspath(path))} exists by now; name a new file") from None
        except OSError as error:
            raise StoreError(
                f"target {excerpt(os.fspath(path))} cannot be written: {error.strerror}"
            ) from None
        finally:
            part.unlink(missing_ok=True)
    return path


def _to_server(source: str, target: str) -> str:
    """The same to a server, whose transaction does what names of files do."""
    from .reading import Reader

    name = _cloaca.name_of(target)
    with Reader(source) as reader:
        _refuse_served(reader)
        if (other := _reader(target)) is not None:
            # Who serves it says more than that it is not empty.
            with other:
                _refuse_served(other)
        reader.native.copy_to_server(target)
    return name


def _write(reader: Reader, part: Path, path: Path) -> None:
    try:
        if reader.file is None:
            reader.native.copy_to_file(part)
        else:
            reader.export(part)
    except StoreError as error:
        # By the name that was given, and by what it was given for.
        text = str(error).removeprefix("export ").replace(os.fspath(part), os.fspath(path))
        raise StoreError(text) from None
    _to_disk(part)


def _file(url: str | os.PathLike[Any], argument: str) -> Path:
    found = _cloaca.path_of(check.url(url, argument))
    if found is None:
        named = check.url(url, argument)
        raise ArgumentError(f"{argument} is {excerpt(named)}, which is memory; name a file")
    return Path(os.path.realpath(found))


def _refuse_served(reader: Reader) -> int:
    """Raises `StoreError` if a runner lives; else returns the number of the newest one."""
    from .reading.runners import RUNNERS_MAX

    owners = reader.native.owners(RUNNERS_MAX)
    for row in owners:
        if row["left_at"] is None and not row["is_dead"]:
            does = "is served by" if row["works"] else "may be changed by"
            raise StoreError(
                f"store {excerpt(reader.path)} {does} {_called(row)}; stop that first, or make"
                f" a backup beside it by {'pg_dump' if reader.file is None else 'export'}"
            )
    return max((row["number"] for row in owners), default=0)


def _called(row: dict[str, Any]) -> str:
    """What is in the way, and where: a client, as the page that acts is one, would be looked for in vain
    among the workers."""
    kind = "runner" if row["works"] else "client"
    name = "" if row["name"] is None else f" {excerpt(row['name'])}"
    where = (
        "" if row["pid"] is None else f" (process {row['pid']} on {excerpt(row['host'] or 'this machine')})"
    )
    return f"{kind} {row['number']}{name}{where}"


def _refuse_taken(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise StoreError(
                f"folder {excerpt(os.fspath(path.parent))} does not exist; create it first, or name another"
                " target"
            ) from None
        # A log of a database that has gone would be taken for the copy's.
        left = next((each for each in ("-wal", "-journal") if Path(f"{path}{each}").exists()), None)
        if left is not None:
            raise StoreError(
                f"target {excerpt(os.fspath(path))} has left {excerpt(path.name + left)}; name another one"
            ) from None
        return
    except OSError as error:
        raise StoreError(f"target {excerpt(os.fspath(path))} cannot be looked at: {error.strerror}") from None
    if path.is_file() and (reader := _reader(path)) is not None:
        # Who serves it says more than that it exists.
        with reader:
            _refuse_served(reader)
    raise StoreError(f"target {excerpt(os.fspath(path))} exists; name a new file")


def _reader(place: Path | str) -> Reader | None:
    """What reads the store at `place`; `None` if that is none that can be opened."""
    from .reading import Reader

    try:
        return Reader(place)
    except StoreError:
        return None


def _to_disk(path: Path) -> None:
    """Waits until a file, or what a folder lists, is on disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
