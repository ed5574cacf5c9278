"""Which changes people made by the page or the command line."""

from __future__ import annotations

from dataclasses import dataclass

from .. import audit as audits
from .. import check
from .store import PAGE_ITEMS, Page

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Reader


@dataclass(frozen=True, slots=True)
class Change:
    """A change that somebody made.

    Attributes:
        at (str): when.
        who (str): who it was, as far as the door knows: `user@host` at the command line; at the page the name
            that `access=` or the host's login gives, else `somebody`.
        door (str): `page` or `cli`.
        place (str | None): at the page, from which address.
        what (str): `retry`, `cancel`, `submit`, `enable`, `disable`, `poll`, `forget`, `pause`, `resume`,
            `rename` (once under each of the two names), `skip` (once under the trigger's name and once under
            the run's id), `set_cursor` or `prune`.
        about (str): a run's id, or the name of a trigger; of `prune` which runs.
        many (int): how many things; more than one only of `prune`.
    """

    at: str
    who: str
    door: str
    place: str | None
    what: str
    about: str
    many: int


def by_whom(change: Change) -> str:
    """Who made it, in words."""
    return audits.by(change.who, change.door, change.place)


def audit(
    reader: Reader, *, about: str | None = None, after: int | None = None, limit: int = PAGE_ITEMS
) -> Page[Change]:
    """The newest 100,000 changes, newest first; with `about` only those of one run, trigger, limit or
    workflow, also of its keys."""
    text = None if about is None else about.encode("utf-8", "replace").decode()
    many = check.count(limit, "limit")
    found = audits.found(reader.native.query, text, after, many, reader.keyed())
    more = found[-1][0] if found and len(found) >= many else None
    return Page([Change(**row) for _, row in found], more)
