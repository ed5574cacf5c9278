"""`keep_logs=`: what bodies log is kept with their runs.

Records are taken where a logger hands them on, in `logging.Logger.handle`: a handler on the root logger would
miss those that do not reach it, go with the next `dictConfig`, and have `basicConfig` do nothing; a factory
of records goes when the program sets one of its own.

Decides nothing. Invariant: whatever goes wrong here costs a line, and neither the body nor what else becomes
of the record.
"""

from __future__ import annotations

import logging
import signal
import threading
import traceback
from collections import deque
from typing import NamedTuple

from . import attempt
from .context import Context, decode_value
from .hidden import NO_SECRETS
from .kind import is_a
from .plain import describe, plain
from .redact import at_hand
from .trace import bounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ._cloaca import Engine
    from .hidden import Secrets
    from .job import Job
    from .redact import Redactor
    from .task_handle import TaskHandle
    from .types import RunDetails

NAME_CHARS_MAX = 1000
"""More of a logger's name is cut off."""
HEARD_SECONDS = 1.0
"""What another program hides is hidden in lines that are kept so much later."""
LINE_BYTES = 48
"""What a line counts beside its texts, as the engine counts it."""


class Line(NamedTuple):
    """A line as it is kept, and as it travels from other processes."""

    at_us: int
    level: int
    logger: str
    text: str
    error: str | None


class Gathered(NamedTuple):
    """What a body logged in another process: the newest lines, fit for the store, and how many came before
    them."""

    lines: list[Line]
    left_out: int


class Logbook:
    """What keeps the lines of one runner's bodies, at most so many bytes of a run."""

    def __init__(self, engine: Engine, redactor: Redactor, bytes_max: int) -> None:
        self._jobs = engine.jobs
        self._redactor = redactor
        self.bytes_max = bytes_max
        self._is_used = False
        self._is_closed = threading.Event()

    def open(self) -> None:
        """Records are taken from now on."""
        _install(self)

    def close(self) -> None:
        """No more of this runner."""
        self._is_closed.set()
        _uninstall(self)

    def hear(self) -> None:
        """Until it is closed, and while lines come, asks the store what other programs have hidden meanwhile:
        what keeps a line waits for no store."""
        while not self._is_closed.wait(HEARD_SECONDS):
            if self._is_used:
                self._is_used = False
                self._redactor.mask()

    def of_attempt(
        self, job: Job, task_id: str, given: str, context: Context, handle: TaskHandle | None = None
    ) -> Lines:
        """What takes an attempt's lines, by what it was given, what it makes of that, and its checkpoint."""
        known = at_hand(given, context, handle)

        def secrets() -> Secrets:
            return self._redactor.told_by_body(lambda: self._jobs.began_with(job), known(), looks=False)

        return Lines(self, job.run, task_id, job.attempt, secrets)

    def of_callback(self, job: Job, task_id: str, name: str, arguments: tuple[object, ...]) -> Lines:
        """The same of a task's callback of that name, whose contexts are kept already."""

        def secrets() -> Secrets:
            mask = self._redactor.known()
            contexts = [each._data for each in arguments if type(each) is Context]
            return NO_SECRETS if mask is None else mask.secrets(contexts)

        return Lines(self, job.run, task_id, job.attempt, secrets, name)

    def of_run(self, run: RunDetails, name: str, secrets: Secrets) -> Lines:
        """The same of a callback of the run, without these."""
        return Lines(self, int(run["id"].replace("-", ""), 16), None, None, lambda: secrets, name)

    def keep(self, job: Job, task_id: str, gathered: Gathered, given: str, left: str) -> None:
        """Keeps what an attempt logged in another process."""
        if gathered.left_out:
            self._jobs.left_out(job.run, self.bytes_max, gathered.left_out)
        if gathered.lines:
            taken = self.of_attempt(job, task_id, given, Context._wrap(decode_value(left)))
            for line in gathered.lines:
                taken.keep(line)

    def put(self, run: int, task: str | None, number: int | None, callback: str | None, line: Line) -> None:
        """Hands a line to the engine, which never waits for the store here."""
        self._is_used = True
        self._jobs.log(run, self.bytes_max, task, number, callback, *line)


class Lines:
    """Takes what one body logs."""

    __slots__ = ("_book", "_callback", "_number", "_run", "_secrets", "_task")

    def __init__(
        self,
        book: Logbook,
        run: int,
        task: str | None,
        number: int | None,
        secrets: Callable[[], Secrets],
        callback: str | None = None,
    ) -> None:
        self._book = book
        self._run = run
        self._task = task
        self._number = number
        self._secrets = secrets
        self._callback = callback

    def take(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self.keep(line_of(record))

    def keep(self, line: Line) -> None:
        """Keeps a line, without what no later look at the run would know to hide."""
        hide = self._secrets()
        line = line._replace(text=hide.hide(line.text), error=hide.hide_maybe(line.error))
        self._book.put(self._run, self._task, self._number, self._callback, cut(line))


class Gathering:
    """Takes what a body logs in another process, the newest lines of it, to travel back with its end."""

    __slots__ = ("_bytes", "_bytes_max", "_left_out", "_lines")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lines: deque[Line] = deque()
        self._left_out = 0

    def __enter__(self) -> Self:
        _install(self)
        return self

    def __exit__(self, *_: object) -> None:
        _uninstall(self)

    def take(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        # Half a value that is to be hidden, where it is cut here, is found by the mark of the cut.
        line = cut(line_of(record))
        self._lines.append(line)
        self._bytes += _size(line)
        while self._bytes > self._bytes_max and len(self._lines) > 1:
            self._bytes -= _size(self._lines.popleft())
            self._left_out += 1

    def gathered(self) -> Gathered:
        """What it has taken."""
        return Gathered(list(self._lines), self._left_out)


def line_of(record: logging.LogRecord) -> Line:
    """A record as it is kept, but that its texts may still be long."""
    try:
        text = record.getMessage()
    except BaseException as raised:
        if _is_of_a_signal(raised):
            raise
        # Its values do not fit its text, or raise as they are shown: the line is told all the same.
        text = f"{record.msg if type(record.msg) is str else type(record.msg)} ({describe(raised)})"
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
    """As the engine counts it."""
    return LINE_BYTES + sum(len(text.encode()) for text in (line.logger, line.text, line.error or ""))


def _is_of_a_signal(raised: BaseException) -> bool:
    """Whether the handler of a signal raised it, amid what was being done here: that is for the program."""
    if threading.current_thread() is not threading.main_thread():
        return False
    # Python's own handler leaves no frame.
    codes = {getattr(signal.getsignal(each), "__code__", None) for each in signal.valid_signals()} - {None}
    frames = traceback.walk_tb(raised.__traceback__)
    return is_a(raised, KeyboardInterrupt) or any(frame.f_code in codes for frame, _ in frames)


_formatter = logging.Formatter()
_HANDLE = logging.Logger.handle
_lock = threading.Lock()
_books: set[object] = set()
_before: Callable[[logging.Logger, logging.LogRecord], None] | None = None
_here = threading.local()


def _install(book: object) -> None:
    global _before
    with _lock:
        _books.add(book)
        _here.is_asked, _here.is_there = True, False
        try:
            # Others may have taken its place since, and call this one or not.
            nobody = logging.Logger("")
            nobody.disabled = True
            nobody.handle(logging.makeLogRecord({}))
        finally:
            _here.is_asked = False
        if not _here.is_there:
            _before = logging.Logger.handle
            logging.Logger.handle = _handle  # type: ignore[method-assign]


def _uninstall(book: object) -> None:
    global _before
    with _lock:
        _books.discard(book)
        if not _books and _before is not None and logging.Logger.handle is _handle:
            logging.Logger.handle = _before  # type: ignore[assignment, method-assign]
            _before = None


def _handle(self: logging.Logger, record: logging.LogRecord) -> None:
    if getattr(_here, "is_asked", False):
        _here.is_there = True
    entered = attempt.entered()
    if entered is not None and entered.lines is not None and not getattr(_here, "is_taking", False):
        # What is asked meanwhile, a function of `redact=` say, may log, too.
        _here.is_taking = True
        try:
            entered.lines.take(record)
        except BaseException as raised:
            if _is_of_a_signal(raised):
                raise
        finally:
            _here.is_taking = False
    (_before or _HANDLE)(self, record)
