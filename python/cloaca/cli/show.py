"""How things look: tables for people, tab-separated values for a pipe, and JSON.

Invariant: whatever a name, an error or a context holds, no character of it reaches a terminal that is not
printable, and no value breaks its line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from datetime import UTC, datetime

from ..terminal import clean, fitted, span, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any, TextIO

    Cell = str | int | None | "Stamp" | "Word"
    Row = tuple[Any, Sequence[Any]]

CELL_WIDTH = 44
"""A column other than the last is no wider."""
CELL_WIDTH_MIN = 8
"""None before a time is made narrower than that, to make room for it."""
LAST_WIDTH = 12
"""The last column is no narrower."""
COLUMNS = 100
"""So wide is what has no width."""
ID_CHARS = 23
"""So much of an id has its time and 26 random bits."""
TEXT_CHARS_MAX = 20_000
"""Of a text of several lines people are shown no more."""
COLOURS = {
    "red": ("Failed", "failing", "stopped", "dead", "bad", "error", "TimedOut"),
    "yellow": (
        "draining",
        "paused",
        "hanging",
        "late",
        "silent",
        "unserved",
        "warn",
        "silent",
        "Pending",
        "Cancelled",
        "Interrupted",
        "Postponed",
        "Skipped",
    ),
    "cyan": ("Running", "fire"),
    "green": ("Completed", "polled", "scheduled", "living", "ok"),
    "dim": ("disabled", "left", "skip"),
}
_CODES = {"red": "31", "yellow": "33", "cyan": "36", "green": "32", "dim": "2", "bold": "1"}
_STYLE_OF = {word: style for style, words in COLOURS.items() for word in words}


class Stamp(str):
    """A time as results have it; people are shown the local one."""

    __slots__ = ()


class Id(str):
    """A run's id, of which people are shown as much as tells it from others."""

    __slots__ = ()


class Word(str):
    """A word that is coloured by what it says."""

    __slots__ = ()


def stamp(text: str | None) -> Stamp | None:
    """A time's cell."""
    return None if text is None else Stamp(text)


def clean_lines(text: str) -> list[str]:
    """The same of a text of several lines, cut if it is long."""
    cut = text[:TEXT_CHARS_MAX]
    lines = [clean(line.rstrip("\r").replace("\t", "    ")) for line in cut.split("\n")]
    if len(text) > len(cut):
        lines.append(f"… {len(text) - len(cut):,} more characters; --json has all of it")
    return lines


def as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON for people, and for a column."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def between(start: str | None, end: str | None) -> float | None:
    """The seconds from one time to another."""
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def columns() -> int:
    """How wide the terminal is; COLUMNS has the last word."""
    # As `shutil` has it, which brings all that packs and unpacks.
    with contextlib.suppress(ValueError):
        if (said := int(os.environ.get("COLUMNS", "0"))) > 0:
            return said
    try:
        return os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def let_go(out: TextIO) -> None:
    """Has what could not be written go nowhere: the interpreter would complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def aside(text: str) -> None:
    """Writes to standard error, for people. Where that is full, or has gone, what is done goes on, and its
    exit code says how it went."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        # Closed by the program, it has no number.
        with contextlib.suppress(OSError, ValueError):
            let_go(sys.stderr)


class Show:
    """Where a command's answer goes, and in which form.

    Attributes:
        is_of_change: whether it tells of changes. Each line goes out at once then, and one that cannot raises
            nothing: what is left is to be done all the same. What a full disk refuses, standard error has.
        is_cut_off: whether who read such an answer has gone.
    """

    def __init__(self, *, as_json: bool = False, utc: bool = False, is_of_change: bool = False) -> None:
        self.out = sys.stdout
        self.is_of_change = is_of_change
        self.is_cut_off = False
        reconfigure = getattr(self.out, "reconfigure", None)
        if reconfigure is not None:
            # What the terminal's encoding cannot say is spelt out.
            reconfigure(errors="backslashreplace")
        self.as_json = as_json
        self.utc = utc
        self.is_for_people = not as_json and self.out.isatty()
        has_colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.has_colours = self.is_for_people and has_colours
        self.width = columns()
        encoding = (getattr(self.out, "encoding", None) or "ascii").lower().replace("-", "")
        self.has_lines = encoding.startswith("utf")

    def line(self, text: str = "") -> None:
        """A line that is clean already."""
        if not self.is_of_change:
            self.out.write(text + "\n")
            return
        try:
            self.out.write(text + "\n")
            self.out.flush()
        except BrokenPipeError:
            let_go(self.out)
            self.is_cut_off = True
        except OSError as error:
            let_go(self.out)
            self.out = sys.stderr
            self.out.write(
                f"cloaca: standard output takes nothing ({error.strerror}); what was done:\n{text}\n"
            )

    def note(self, text: str) -> None:
        """A line beside the answer, for people."""
        self.out.flush()
        aside(clean(text) + "\n")

    def record(self, kind: str, thing: Any, but: Collection[str] = ()) -> None:
        """One JSON object on a line of its own, in ASCII, without what was not asked for."""
        plain = thing
        if not isinstance(thing, dict):
            from dataclasses import asdict

            plain = {name: value for name, value in asdict(thing).items() if name not in but}
        self.line(json.dumps({"kind": kind, **plain}, allow_nan=False))

    def table(
        self,
        kind: str,
        columns: Sequence[str],
        rows: Iterable[Row],
        title: str | None = None,
        but: Collection[str] = (),
    ) -> int:
        """Rows, each with the record that it stands for, as `record` takes it; how many there were."""
        rows = list(rows)
        if self.as_json:
            for thing, _ in rows:
                self.record(kind, thing, but)
        elif self.is_for_people:
            self._table(columns, [cells for _, cells in rows], title)
        else:
            for _, cells in rows:
                self.values(cells)
        return len(rows)

    def values(self, cells: Iterable[Any]) -> None:
        """A line of values with tabs between them."""
        self.line("\t".join("" if cell is None else clean(str(cell)) for cell in cells))

    def _table(self, columns: Sequence[str], rows: list[Sequence[Any]], title: str | None) -> None:
        if title is not None:
            self.line(self.styled(title, "bold"))
        if not rows:
            self.line(self.styled("  none", "dim"))
            return
        # Columns in which nothing stands are left out, but for the first.
        kept = [at for at in range(len(columns)) if at == 0 or any(row[at] is not None for row in rows)]
        columns = [columns[at] for at in kept]
        rows = [[row[at] for at in kept] for row in rows]
        texts = [[self.told(cell) for cell in row] for row in rows]
        columns = self._zoned(columns, rows, texts)
        widths = [
            min(CELL_WIDTH, max(width_of(name), *(width_of(row[at]) for row in texts)))
            for at, name in enumerate(columns)
        ]
        # The last one takes what is left; a time that is cut has lost its end, which is what one looks for.
        is_time = any(isinstance(row[-1], Stamp) for row in rows)
        left = max(widths[-1] if is_time else LAST_WIDTH, self.width - sum(widths[:-1]) - 2 * len(widths))
        widths[-1] = left
        while is_time and sum(widths) + 2 * len(widths) > self.width and max(widths[:-1]) > CELL_WIDTH_MIN:
            widths[widths.index(max(widths[:-1]))] -= 1
        self.line(self.styled(self._joined(columns, [None] * len(columns), widths), "dim"))
        for row, shown in zip(rows, texts, strict=True):
            self.line(self._joined(shown, row, widths))

    def _zoned(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], texts: list[list[str]]
    ) -> list[str]:
        """The columns' names; a zone that all times of a column share is named there alone."""
        names = list(columns)
        for at, name in enumerate(columns):
            times = [row for row, cells in enumerate(rows) if isinstance(cells[at], Stamp)]
            zones = {texts[row][at].rpartition(" ")[2] for row in times}
            if len(zones) == 1:
                names[at] = f"{name} ({zones.pop()})"
                for row in times:
                    texts[row][at] = texts[row][at].rpartition(" ")[0]
        return names

    def _joined(self, texts: Sequence[str], cells: Sequence[Any], widths: Sequence[int]) -> str:
        parts = []
        for text, cell, width in zip(texts, cells, widths, strict=True):
            cut = fitted(text, width)
            pad = " " * (width - width_of(cut))
            parts.append((self.styled(cut, _STYLE_OF.get(cell)) if isinstance(cell, Word) else cut) + pad)
        return ("  " + "  ".join(parts)).rstrip()

    def told(self, cell: Any) -> str:
        """A cell's text for people."""
        if cell is None:
            return "-"
        if isinstance(cell, Id):
            return cell[:ID_CHARS]
        return self.time(cell) if isinstance(cell, Stamp) else clean(str(cell))

    def word(self, text: str) -> str:
        """A word in its colour."""
        return self.styled(clean(text), _STYLE_OF.get(text))

    def styled(self, text: str, style: str | None) -> str:
        """The text in a colour, where there are any."""
        if style is None or not self.has_colours:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"

    def time(self, text: str) -> str:
        """A time in the zone that was asked for, which is named."""
        at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if self.utc else at.astimezone()
        zone = at.tzname() or "UTC"
        return f"{at:%Y-%m-%d %H:%M:%S} {zone}"

    def ago(self, text: str | None, now: datetime) -> str | None:
        """How long ago that was, or in how long it will be."""
        if text is None or not self.is_for_people:
            return text
        seconds = (now - datetime.fromisoformat(text)).total_seconds()
        return f"in {span(-seconds)}" if seconds < 0 else f"{span(seconds)} ago"
