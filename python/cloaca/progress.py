"""How far a run is, shown while somebody waits for it: a picture in a notebook, a line on a terminal.

Invariant: to show it decides nothing and fails nothing: what cannot be asked, drawn or written is left out,
and the wait goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from time import monotonic

from .terminal import clean, fitted, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Self, TextIO

    from .run import Run
    from .types import RunDetails

LOOK_SECONDS = 0.2
"""Between two looks."""
BAR_CELLS = 24
NAMES_MAX = 3
"""So many tasks that are under way are named."""
_OVER = ("Completed", "Failed", "Skipped", "Cancelled")
_COUNTED_EACH = 500


class Silent:
    """Shows nothing: nobody would see it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def show(self) -> None:
        """Shows how far it is."""


class Line(Silent):
    """A line of a terminal, drawn over itself; the last one stays."""

    def __init__(self, run: Run, to: TextIO) -> None:
        self._run = run
        self._bar = Bar(to)

    def __exit__(self, *_: object) -> None:
        self.show()
        self._bar.end()

    def show(self) -> None:
        with contextlib.suppress(Exception):
            details = _details(self._run)
            if details is not None:
                done, total, told = _told(details)
                self._bar.draw(details["workflow_name"], done, total, told)


class Picture(Silent):
    """A cell's output, which is shown anew when it is another."""

    def __init__(self, run: Run, display: Any) -> None:
        self._run = run
        self._display = display
        self._handle: Any = None
        self._shown = ""

    def __exit__(self, *_: object) -> None:
        self.show()

    def show(self) -> None:
        from ._notebook import run

        with contextlib.suppress(Exception):
            html = run(self._run)
            if html == self._shown:
                return
            self._shown, shown = html, _Shown(html)
            if self._handle is None:
                self._handle = self._display(shown, display_id=True)
            else:
                self._handle.update(shown)


class _Shown:
    """HTML, as a notebook asks for it."""

    def __init__(self, html: str) -> None:
        self._html = html

    def _repr_html_(self) -> str:
        return self._html


class Bar:
    """A line with a bar, drawn over itself on a terminal."""

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._drawn = ""
        encoding = (getattr(to, "encoding", None) or "ascii").lower().replace("-", "")
        self._cells = "█░" if encoding.startswith("utf") else "#-"

    def draw(self, name: str, done: int, total: int, told: str) -> None:
        """Draws it, if it is another than before."""
        full = BAR_CELLS * done // total if total else 0
        bar = self._cells[0] * full + self._cells[1] * (BAR_CELLS - full)
        line = fitted(f"{clean(name)}  {bar}  {done:,}/{total:,}  {told}".rstrip(), self._columns() - 1)
        if line == self._drawn:
            return
        self._drawn = line
        if self._cells[0] == "#":
            line = line.encode("ascii", "replace").decode()
        # A writer that has gone, or a terminal that is closed, is no reason to end the wait.
        with contextlib.suppress(OSError, ValueError):
            self._to.write(f"\r{line}\x1b[K")
            self._to.flush()

    def end(self) -> None:
        """Leaves the line as it is, and begins the next one."""
        with contextlib.suppress(OSError, ValueError):
            if self._drawn:
                self._to.write("\n")
                self._to.flush()

    def _columns(self) -> int:
        try:
            return max(20, os.get_terminal_size(self._to.fileno()).columns)
        except (OSError, ValueError):
            return 80


def of(run: Run) -> Silent:
    """Whatever shows it to who waits here."""
    display = _display()
    if display is not None:
        return Picture(run, display)
    to = _terminal()
    return Silent() if to is None else Line(run, to)


def counted(name: str, things: Iterable[Any], total: int | None) -> Iterator[Any]:
    """The same things, with a line on the terminal that counts them."""
    to = _terminal()
    if to is None or not total:
        yield from things
        return
    bar, done, due = Bar(to), 0, 0.0
    try:
        for done, thing in enumerate(things, 1):
            yield thing
            if done % _COUNTED_EACH == 0 and monotonic() >= due:
                bar.draw(name, done, total, "submitted")
                due = monotonic() + LOOK_SECONDS
    finally:
        bar.draw(name, done, total, "submitted")
        bar.end()


def _display() -> Any:
    """What shows something in a notebook's cell, if this is one."""
    known: Any = sys.modules.get("IPython")
    with contextlib.suppress(Exception):
        shell = None if known is None else known.get_ipython()
        if getattr(shell, "kernel", None) is not None:
            return known.display.display
    return None


def _terminal() -> TextIO | None:
    """Standard error, if somebody sees it."""
    to = sys.stderr
    with contextlib.suppress(Exception):
        if to.isatty() and os.environ.get("TERM") != "dumb":
            return to
    return None


def _details(run: Run) -> RunDetails | None:
    return run._runner.get_run(run.id)


def _told(details: Mapping[str, Any]) -> tuple[int, int, str]:
    """How many of its tasks are over, how many there are, and what goes on."""
    tasks = [task for task in details["tasks"] if not task["earlier_version"]]
    done = sum(task["status"] in _OVER for task in tasks)
    if details["completed_at"] is not None:
        took = details["took_seconds"]
        if took is None:
            took = _seconds(details["created_at"], details["completed_at"])
        error = f"  {clean(details['error_message'])}" if details["error_message"] else ""
        return done, len(tasks), f"{details['status']}  {span(took)}{error}"
    running = [_named(task) for task in tasks if task["status"] == "Running"]
    more = f" and {len(running) - NAMES_MAX} more" if len(running) > NAMES_MAX else ""
    names = ", ".join(running[:NAMES_MAX]) + more
    return done, len(tasks), f"{span(_since(details['created_at']))}  {names or details['status']}"


def _named(task: Mapping[str, Any]) -> str:
    attempt = f" (attempt {task['attempts']})" if task["attempts"] > 1 else ""
    return f"{clean(task['id'])}{attempt}"


def _seconds(start: str, end: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _since(start: str) -> float:
    from datetime import UTC, datetime

    # In whole seconds, or the line would be another one at each look.
    return float(int((datetime.now(UTC) - datetime.fromisoformat(start)).total_seconds()))
