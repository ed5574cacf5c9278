"""What a command is called and takes, as data: the help, the parser and the completion are made from it."""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Completes = Literal["trigger", "run", "workflow", "limit", "any", "file", "none"]


class Option(NamedTuple):
    """An argument, or an option if its name begins with dashes."""

    name: str
    about: str
    metavar: str | None = None
    """Of an option: what its value is called; it is a switch if it has none."""
    default: Any = None
    many: bool = False
    """Whether an argument may be given several times."""
    optional: bool = False
    """Whether an argument may be left out."""
    completes: Completes = "none"
    choices: tuple[str, ...] = ()
    takes_empty: bool = False
    """Whether an empty text means something."""

    @property
    def is_argument(self) -> bool:
        """Whether it is known by its place."""
        return not self.name.startswith("-")

    @property
    def usage(self) -> str:
        """As the help's first line shows it."""
        if not self.is_argument:
            return f"{self.name} {self.metavar}" if self.metavar else self.name
        shown = (self.metavar or self.name.upper()) + ("..." if self.many else "")
        return f"[{shown}]" if self.optional else shown


class Command(NamedTuple):
    """A command, and where it is carried out."""

    name: str
    about: str
    """One sentence."""
    example: str
    does: str
    """`module:function` within this package."""
    options: tuple[Option, ...] = ()
    more: str = ""
    """What else the help says."""
    is_hidden: bool = False


DATABASE = Option(
    "--database",
    "the store; else CLOACA_DATABASE, [tool.cloaca] in pyproject.toml, or the only one in this folder",
    "URL",
    completes="file",
)
JSON = Option("--json", "one JSON object a line, with the names of the Python API")
UTC = Option("--utc", "times in UTC, not in the zone of this machine")
SHARED = (DATABASE, JSON, UTC)
"""Every command takes these."""
