"""A store that is opened for reading, and what all that is read from it has in common.

Invariant: nothing in the store changes by a `Reader`, and whoever closes it has nothing open any more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from .. import _cloaca, _guard, check, living
from ..context import decode_value
from ..errors import CloacaError, StoreError, excerpt
from ..hidden import NO_SECRETS
from ..keyed import pauses
from ..near import LOOKED_MAX, hint
from ..redact import Looker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, Self

    from ..hidden import Secrets
    from ..keyed import Keyed
    from ..redact import Mask
    from ..types import RunDetails

_Item = TypeVar("_Item")

PAGE_ITEMS = 100
"""So many a listing gives unless more are asked for."""


class MissingError(CloacaError, LookupError):
    """The store holds nothing of that name or id; the message says which was probably meant."""


@dataclass(frozen=True, slots=True)
class Page(Generic[_Item]):
    """A part of a listing.

    Attributes:
        items (list): what it holds, in the listing's order.
        after (int | str | None): what to give as `after` for the next one; `None` if this is the last.
    """

    items: list[_Item]
    after: Any

    def __iter__(self) -> Iterator[_Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Reader:
    """A store, opened for reading beside whoever serves it: no runner, no thread, nothing is changed or made.

    Args:
        database_url (str | PathLike): as `DefaultRunner` takes it; a file that a runner has made.

        unmasked (bool): show what the store's programs hide by `redact=`, too.

    Raises:
        StoreError: (a `RuntimeError`) there is no such file, it is none of cloaca's, or of another version.
        UrlError: (a `ValueError`) the URL has none of the known forms, or means memory.
    """

    __slots__ = ("_opened", "_redactor", "native", "unmasked", "url")

    def __init__(self, database_url: str | os.PathLike[Any], *, unmasked: bool = False) -> None:
        living.hook()
        self.unmasked = check.flag(unmasked, "unmasked")
        self.url = check.url(database_url)
        try:
            self.native = _cloaca.Reader.open(self.url)
        except StoreError as error:
            from ..unseen import told

            raise told(self.url, error) from None
        self._opened = self.found()
        if self.file is not None:
            _guard.saw(self.file)
        # What cannot be asked for must not pass for nothing.
        self.native.redacted()
        self._redactor = Looker(self.native)

    @property
    def path(self) -> str:
        """The file, by its absolute path; of a store on a server its database and host."""
        return self.file or self.native.name

    @property
    def file(self) -> str | None:
        """The file, by its absolute path; `None` of a store on a server."""
        path = self.native.path
        return None if path is None else os.fspath(path)

    def found(self) -> tuple[int, int] | None:
        """What lies at its path now, which another may have replaced; `None` of a store on a server."""
        if self.file is None:
            return None
        try:
            found = os.stat(self.file)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def is_gone(self) -> bool:
        """Whether its file was deleted or replaced since it was opened: what is read comes from a file that
        nobody can open any more."""
        return self.found() != self._opened

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes a copy of everything to a new file, as `DefaultRunner.export` does.

        Raises:
            StoreError: (a `RuntimeError`) the file exists or cannot be written.
        """
        self.native.export(check.target(path, "path"))

    def mask(self) -> Mask | None:
        """What is hidden of contexts and cursors; `None` if nothing is."""
        return self._redactor.mask(self.unmasked)

    def of_run(self, mask: Mask | None, run_id: str) -> Secrets:
        """What texts about a run must not tell."""
        return self._redactor.of_run(mask, run_id)

    def keyed(self) -> Keyed | None:
        """What may be shown of the values of limits' keys; `None` if all of it."""
        return self._redactor.keyed(self.mask())

    def pauses(self) -> list[dict[str, Any]]:
        """What is paused, as it is shown."""
        return pauses(self.keyed(), self.native.pauses())

    def of_told(self, mask: Mask | None, run: RunDetails) -> Secrets:
        """What no text must tell of a run whose end a function was told of."""
        return self._redactor.of_told(mask, run)

    def of_trigger(self, mask: Mask | None, name: str | None) -> Secrets:
        """What texts about a trigger, or a cron with a name, must not tell."""
        return NO_SECRETS if name is None else self._redactor.of_trigger(mask, name)

    def close(self) -> None:
        """Closes it; twice is fine. Whatever is asked then raises `StoreError`."""
        self.native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Reader({excerpt(self.path)})"


def names(reader: Reader) -> list[str]:
    """The names of triggers and crons, the first 10,000 of each."""
    native = reader.native
    found = native.schedules(False, 0, LOOKED_MAX) + native.schedules(True, 0, LOOKED_MAX)
    return sorted({row["trigger_name"] for row in found if row["trigger_name"]})


def unknown(what: str, name: str, kind: str, known: list[str]) -> MissingError:
    """What to raise for a name that nothing has."""
    return MissingError(f"{what} {excerpt(name)} not found{hint(name, kind, known)}")


def decoded(text: str | None, mask: Mask | None) -> Any:
    """A context or cursor as it is shown, from its JSON text."""
    if text is None:
        return None
    return decode_value(text) if mask is None else mask.context(text)


def moment_of(stamp: str) -> datetime:
    """The moment that a result's text stands for."""
    return datetime.fromisoformat(stamp)


def age_of(stamp: str | None, now: datetime) -> float | None:
    """How many seconds ago that was; negative if it lies ahead."""
    return None if stamp is None else (now - moment_of(stamp)).total_seconds()


def now() -> datetime:
    """This moment."""
    return datetime.now(UTC)
