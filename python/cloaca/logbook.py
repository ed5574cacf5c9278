"""`keep_logs=`: what bodies log is kept with their runs.

Records are taken where `logging` makes them, by a factory of records: a handler on the root logger would miss
those that do not reach it, go with the next `dictConfig`, and have `basicConfig` do nothing.

Decides nothing. Invariant: whatever goes wrong here costs a line, and neither the body nor what else becomes
of the record.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import NamedTuple

from . import attempt
from .context import Context, decode_value
from .hidden import NO_SECRETS
from .plain import describe, plain
from .trace import bounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from ._cloaca import Engine
    from .hidden import Secrets
    from .job import Job
    from .redact import Redactor

NAME_CHARS_MAX = 1000
"""More of a logger's name is cut off."""
LINE_BYTES = 48
"""What a line counts beside its texts, as the engine counts it."""


class Line(NamedTuple):
    """A line as it is kept, and as it travels from other processes."""

    at_us: int
    level: int
    logger: str
    text: str
    error: str | None


class Logbook:
    """What keeps the lines of one runner's bodies, at most so many bytes of a run."""

    def __init__(self, engine: Engine, redactor: Redactor, bytes_max: int) -> None:
        self._log = engine.jobs.log
        self._redactor = redactor
        self.bytes_max = bytes_max

    def open(self) -> None:
        """Records are taken from now on."""
        _install(self)

    def close(self) -> None:
        """No more of this runner."""
        _uninstall(self)

    def of_attempt(self, job: Job, task_id: str, given: str, context: Context) -> Lines:
        """What takes an attempt's lines, by what it was given and what it makes of that."""

        def secrets() -> Secrets:
            return self._redactor.told_by_body(given, context)

        return Lines(self, job.run, task_id, job.attempt, secrets)

    def of_callback(self, job: Job, task_id: str, arguments: tuple[object, ...]) -> Lines:
        """The same of a task's callback, whose contexts are kept already."""

        def secrets() -> Secrets:
            mask = self._redactor.mask()
            contexts = [each._data for each in arguments if type(each) is Context]
            return NO_SECRETS if mask is None else mask.secrets(contexts)

        return Lines(self, job.run, task_id, job.attempt, secrets)

    def of_run(self, run_id: str) -> Lines:
        """The same of a callback of the run."""
        return Lines(self, int(run_id.replace("-", ""), 16), None, None, lambda: NO_SECRETS)

    def keep(self, job: Job, task_id: str, lines: list[Line], given: str, left: str) -> None:
        """Keeps what an attempt logged in another process."""
        if lines:
            taken = self.of_attempt(job, task_id, given, Context._wrap(decode_value(left)))
            for line in lines:
                taken.keep(line)

    def put(self, run: int, task: str | None, number: int | None, line: Line) -> None:
        """Hands a line to the engine, which never waits for the store here."""
        self._log(run, self.bytes_max, task, number, *line)


class Lines:
    """Takes what one body logs."""

    __slots__ = ("_book", "_number", "_run", "_secrets", "_task")

    def __init__(
        self, book: Logbook, run: int, task: str | None, number: int | None, secrets: Callable[[], Secrets]
    ) -> None:
        self._book = book
        self._run = run
        self._task = task
        self._number = number
        self._secrets = secrets

    def take(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self.keep(line_of(record))

    def keep(self, line: Line) -> None:
        """Keeps a line, without what no later look at the run would know to hide."""
        hide = self._secrets()
        line = line._replace(text=hide.hide(line.text), error=hide.hide_maybe(line.error))
        self._book.put(self._run, self._task, self._number, cut(line))


class Gathering:
    """Takes what a body logs in another process, the newest lines of it, to travel back with its end."""

    __slots__ = ("_bytes", "_bytes_max", "lines")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self.lines: list[Line] = []

    def __enter__(self) -> Self:
        _install(self)
        return self

    def __exit__(self, *_: object) -> None:
        _uninstall(self)

    def take(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        line = line_of(record)
        self.lines.append(line)
        self._bytes += _size(line)
        while self._bytes > self._bytes_max and len(self.lines) > 1:
            self._bytes -= _size(self.lines.pop(0))


def line_of(record: logging.LogRecord) -> Line:
    """A record as it is kept, but that its texts may still be long."""
    try:
        text = record.getMessage()
    except Exception as raised:
        # Its values do not fit its text: the line is told all the same.
        text = f"{record.msg} ({describe(raised)})"
    errors: list[str] = []
    if record.exc_info and record.exc_info[0] is not None:
        errors.append(_formatter.formatException(record.exc_info))
    if record.stack_info:
        errors.append(record.stack_info)
    error = "\n".join(errors) if errors else None
    return Line(round(record.created * 1e6), int(record.levelno), record.name, text, error)


def cut(line: Line) -> Line:
    """The same, fit for the store."""
    error = None if line.error is None else bounded(line.error)
    return line._replace(logger=plain(line.logger, NAME_CHARS_MAX), text=plain(line.text), error=error)


def _size(line: Line) -> int:
    return LINE_BYTES + len(line.logger) + len(line.text) + len(line.error or "")


_formatter = logging.Formatter()
_lock = threading.Lock()
_books: set[object] = set()
_before: Callable[..., logging.LogRecord] | None = None
_here = threading.local()


def _install(book: object) -> None:
    global _before
    with _lock:
        _books.add(book)
        _here.is_asked, _here.is_there = True, False
        try:
            # Others may have set factories since, which may call this one or not.
            logging.makeLogRecord({})
        finally:
            _here.is_asked = False
        if not _here.is_there:
            _before = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_made)


def _uninstall(book: object) -> None:
    global _before
    with _lock:
        _books.discard(book)
        if not _books and _before is not None and logging.getLogRecordFactory() is _made:
            logging.setLogRecordFactory(_before)
            _before = None


def _made(*arguments: Any, **keywords: Any) -> logging.LogRecord:
    if getattr(_here, "is_asked", False):
        _here.is_there = True
    record = (_before or logging.LogRecord)(*arguments, **keywords)
    entered = attempt.entered()
    if entered is not None and entered.lines is not None and not getattr(_here, "is_taking", False):
        # What is asked meanwhile, a function of `redact=` say, may log, too.
        _here.is_taking = True
        try:
            with contextlib.suppress(Exception):
                entered.lines.take(record)
        finally:
            _here.is_taking = False
    return record
