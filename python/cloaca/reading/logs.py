"""What bodies of a run logged, where that is kept."""

from __future__ import annotations

from dataclasses import dataclass

from .. import check, logged
from .runs import find_run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Reader

LINES = 1000
"""So many lines are given unless more are asked for."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a body logged, by the names of `DefaultRunner.logs`."""

    number: int
    at: str
    level: str
    logger: str
    text: str
    task: str | None
    attempt: int | None
    callback: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Logs:
    """Lines of a run.

    Attributes:
        lines (list[LogLine]): the lines, oldest first.
        left_out (int): so many lines of the run are not kept any more, or never were.
    """

    lines: list[LogLine]
    left_out: int


def kept(
    reader: Reader,
    run_id: str,
    *,
    task: str | None = None,
    attempt: int | None = None,
    level: str | int | None = None,
) -> int:
    """How many lines of a run are kept that pass the filters, by the run's whole id.

    Raises:
        ArgumentError: (a `ValueError`) there is no such level.
    """
    return logged.counted(reader.native.query, run_id, task, attempt, logged.level_of(level))


def logs(
    reader: Reader,
    run_id: str,
    *,
    task: str | None = None,
    attempt: int | None = None,
    level: str | int | None = None,
    after: int | None = None,
    limit: int = LINES,
) -> Logs:
    """The newest lines of a run, oldest first; with `after`, the number of a line, the first ones behind it.

    Raises:
        MissingError: (a `LookupError`) there is no such run.
        ArgumentError: (a `ValueError`) there is no such level.
    """
    found = find_run(reader, run_id)
    lines, left_out = logged.found(
        reader.native.query,
        found,
        reader.of_run(reader.mask(), found),
        task=task,
        attempt=attempt,
        level=logged.level_of(level),
        after=after,
        limit=check.count(limit, "limit"),
    )
    return Logs([LogLine(**line) for line in lines], left_out)
