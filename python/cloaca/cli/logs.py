"""The command that shows what bodies logged."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

from .. import reading
from ..reading.logs import kept
from ..terminal import clean
from .look import limit_of, opened
from .main import OK
from .outage import waited
from .parse import UsageError
from .show import Show, clean_lines
from .tree import WAIT_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from ..reading import Logs
    from ..reading.logs import LogLine

COLOURS = {"CRITICAL": "red", "ERROR": "red", "WARNING": "yellow", "DEBUG": "dim"}


def logs(arguments: Namespace, show: Show) -> int:
    """What the bodies of a run logged, oldest first."""
    limit = limit_of(arguments)
    with opened(arguments) as reader:
        run_id = reading.find_run(reader, arguments.run)
        wanted: dict[str, Any] = {
            "task": arguments.task,
            "attempt": _number(arguments.attempt),
            "level": _level(arguments.level),
        }

        def found(after: int | None) -> Logs:
            return reading.logs(reader, run_id, **wanted, after=after, limit=limit)

        told = found(None)
        if told.left_out:
            lines = "line was" if told.left_out == 1 else "lines were"
            show.note(f"{told.left_out:,} older {lines} left out: keep_logs= says how much of a run is kept")
        if len(told.lines) == limit and (older := kept(reader, run_id, **wanted) - limit) > 0:
            lines = "line is" if older == 1 else "lines are"
            show.note(f"{older:,} older {lines} kept, too: --limit {limit + older} shows all")
        _tell(show, told)
        if not (told.lines or arguments.follow):
            _note_none(show, kept(reader, run_id), is_any_left_out=told.left_out > 0)
        last = told.lines[-1].number if told.lines else 0
        while arguments.follow:
            # Looked at before the lines: those of its last moments are kept before its end is.
            row = waited(reader, lambda: reader.native.run(run_id))
            while (more := waited(reader, partial(found, last))).lines:
                _tell(show, more)
                last = more.lines[-1].number
            if row is None or row["completed_at"] is not None:
                break
            show.out.flush()
            time.sleep(WAIT_SECONDS)
    return OK


def _note_none(show: Show, many: int, *, is_any_left_out: bool) -> None:
    """None of the lines is shown: perhaps because none passes the filters."""
    if many:
        lines = "the line that is kept" if many == 1 else f"none of the {many:,} lines that are kept"
        passes = "does not pass" if many == 1 else "passes"
        show.note(f"{lines} of the run {passes} --task, --attempt or --level as they are given")
    elif not is_any_left_out:
        show.note(
            "nothing is kept of what the run logged: no line was logged, or no runner of it had keep_logs="
        )


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise UsageError(f"--attempt is {text}; it is a number from 1")
    return int(text)


def _tell(show: Show, told: Logs) -> None:
    for line in told.lines:
        if show.as_json:
            show.record("log", line)
        elif show.is_for_people:
            _line(show, line)
        else:
            cells = [line.at, line.level, line.task, line.attempt, line.logger, line.text, line.error]
            show.values([*cells, line.callback])


def _line(show: Show, line: LogLine) -> None:
    at = datetime.fromisoformat(line.at)
    at = at.astimezone(UTC) if show.utc else at.astimezone()
    body = None if line.task is None else f"{line.task} {line.attempt}"
    who = " ".join(each for each in (body, line.callback) if each)
    head = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
    level = show.styled(f"{clean(line.level):<8}", COLOURS.get(line.level))
    first, *rest = clean_lines(line.text)
    logger = show.styled(clean(line.logger), "dim")
    show.line(f"{show.styled(head, 'dim')}  {level}  {clean(who)}  {logger}: {first}")
    for more in rest + ([] if line.error is None else clean_lines(line.error)):
        show.line(f"    {more}")


def _level(text: str | None) -> str | int | None:
    """A level by its name, or by a number."""
    return int(text) if text is not None and text.strip().isascii() and text.strip().isdigit() else text
