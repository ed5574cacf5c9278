"""A file outside the database to which the program under test testifies: a line for each thing that its
bodies do.

Decides nothing. Invariant: a line is one `write` to a file opened with `O_APPEND`, so that a process killed
at any moment leaves whole lines, and lines of several processes do not run together.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Line:
    """One thing that happened: what, in which process, and when by the clock that all processes share."""

    kind: str
    pid: int
    mono: int
    wall: int
    facts: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, fact: str) -> Any:
        return self.facts[fact]

    def get(self, fact: str) -> Any:
        """The fact, or `None` where this kind of line has none such."""
        return self.facts.get(fact)

    def text(self) -> str:
        """The line as it stands in the file."""
        known = {"kind": self.kind, "pid": self.pid, "mono": self.mono, "wall": self.wall}
        return json.dumps(known | self.facts, separators=(",", ":")) + "\n"


class Witness:
    """Writes lines. Any thread may."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def note(self, kind: str, *, of: int | None = None, **facts: Any) -> None:
        """One line; `of` is the process that it is about, if not this one."""
        line = Line(kind, of or os.getpid(), time.monotonic_ns(), time.time_ns(), facts)
        data = line.text().encode()
        written = os.write(self._file, data)
        assert written == len(data), "the disk that holds the witness is full"

    @contextmanager
    def noting(self, begin: str, end: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """A line at the beginning and one at the end, which says what the block has put into the dict, and
        whether it raised."""
        self.note(begin, **facts)
        more: dict[str, Any] = {}
        try:
            yield more
        except BaseException as error:
            self.note(end, ok=False, error=repr(error), **facts | more)
            raise
        self.note(end, ok=True, **facts | more)


class Testimony:
    """Reads what has been written so far, and later what has come since."""

    __test__ = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.lines: list[Line] = []
        self._offset = 0

    def read(self) -> list[Line]:
        """All lines; those that are new are appended to `lines`.

        Raises:
            ValueError: a line is broken, so that nothing here can be relied upon.
        """
        if not self.path.exists():
            return self.lines
        with self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        # What a living process is just writing is read the next time.
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.lines.extend(line_of(text) for text in whole.splitlines())
        return self.lines


def line_of(text: bytes | str) -> Line:
    """The line that `text` stands for."""
    facts = json.loads(text)
    return Line(facts.pop("kind"), facts.pop("pid"), facts.pop("mono"), facts.pop("wall"), facts)
