"""What a screen is made from, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ArgumentError, excerpt
from .. import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...reading import Reader
    from ..safety import Level
    from ..source import Source

VALUE_CHARS = 1000
"""A value in an address is no longer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What somebody wants to see.

    Attributes:
        source (Source): the store, and the runner if there is one.
        root (str): where the page is mounted.
        path (str): which screen.
        query (dict[str, str]): what the address says of it.
        level (str): what who asks may do.
    """

    source: Source
    root: str
    path: str
    query: dict[str, str]
    level: Level

    @property
    def reader(self) -> Reader:
        """The store."""
        return self.source.reader

    @property
    def can_act(self) -> bool:
        """Whether who asks may change something."""
        return self.level == "act"

    def value(self, name: str) -> str | None:
        """What the address says, `None` if nothing.

        Raises:
            ArgumentError: (a `ValueError`) it is longer than anything that could be meant.
        """
        text = self.query.get(name, "").strip()
        if len(text) > VALUE_CHARS:
            raise ArgumentError(f"{name} is {excerpt(text)}; it must not be longer than {VALUE_CHARS}")
        return text or None

    def needed(self, name: str) -> str:
        """The same, where nothing is shown without.

        Raises:
            ArgumentError: (a `ValueError`) it is missing.
        """
        text = self.query.get(name, "")
        if not text or len(text) > VALUE_CHARS:
            raise ArgumentError(f"{name} is {excerpt(text)}; the address must say which {name} is meant")
        return text


@dataclass(frozen=True, slots=True)
class Screen:
    """What is to be seen.

    Attributes:
        title (str): what it is called.
        template (str): how it is shown.
        values (dict): what its template needs.
        nav (str): the part of the page that it belongs to.
        is_live (bool): whether it is shown anew when something changes.
        status (int): of the answer.
        attachment (str | None): if it is a file instead, its text.
    """

    title: str
    template: str
    values: dict[str, Any] = field(default_factory=dict)
    nav: str = ""
    is_live: bool = True
    status: int = 200
    attachment: str | None = None

    @classmethod
    def saying(cls, title: str, text: str, status: int, ask: Ask, back: str | None = None) -> Screen:
        """A screen with a sentence, and the way back."""
        values = {"title": title, "text": show.line(text, 2000), "root": ask.root, "back": back}
        return cls(title, "message.html", values, is_live=False, status=status)
