"""What can go wrong, as classes. Decides nothing; imports of the package only what a stranger's object is.

Invariant: each class is a `CloacaError` and the built-in that a caller would catch in its place.
"""

from __future__ import annotations

from .kind import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .result import WorkflowResult

EXCERPT_CHARS_MAX = 80


def excerpt(value: object) -> str:
    """The `repr` of a value, at most 80 characters long; never raises, as messages contain it."""
    if type(value) is str or type(value) is bytes or type(value) is bytearray:
        value = value[: EXCERPT_CHARS_MAX + 1]
    try:
        text = str.__str__(repr(value))
    except Exception:  # a user's __repr__ may raise anything, and the message must still be told
        text = f"<{name_of(type(value))}>"
    if len(text) > EXCERPT_CHARS_MAX:
        text = text[: EXCERPT_CHARS_MAX - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()[:EXCERPT_CHARS_MAX]


def typed(value: object) -> str:
    """`"an int"`: of what type a value is, in words."""
    name = name_of(type(value))
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


class CloacaError(Exception):
    """The root of everything that this library raises on purpose."""


class ContextError(CloacaError, ValueError):
    """A context holds what JSON cannot: NaN, a lone surrogate, too deep a nesting; or text is no object."""


class ContextTypeError(ContextError, TypeError):
    """A context holds a value or key of a type that JSON doesn't know; the message names the key path and the
    type.
    """


class _MissingError(CloacaError, KeyError):
    """A `KeyError` whose text is a sentence instead of the `repr` of one."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ContextKeyError(ContextError, _MissingError):
    """A key that a context doesn't have."""


class VariableError(_MissingError):
    """An environment variable behind `var` that is not set."""


class ConfigError(CloacaError, ValueError):
    """A field of `DefaultRunnerConfig` with a value that makes no sense."""


class WorkflowError(CloacaError, ValueError):
    """A workflow, task, rule or retry policy that was declared wrongly."""


class TriggerError(CloacaError, ValueError):
    """A trigger, or the result of one, that was declared wrongly."""


class ScheduleError(CloacaError, ValueError):
    """A cron expression, time zone or schedule id that is none."""


class StoreError(CloacaError, RuntimeError):
    """The database cannot be opened, read or written."""


class _AwayError(StoreError):
    """The server of a store is not there, or does not serve now: the same may go well later."""


class UrlError(StoreError, ValueError):
    """A database URL of none of the known forms, or with an unknown option."""


class RunnerError(CloacaError, RuntimeError):
    """A runner that cannot do this now, because it is shut down, forked or at fault itself."""

    _ends_wait = False
    """Whether it ends the wait of a body that was told to end, of which is said elsewhere why."""

    @classmethod
    def _of_wait(cls, text: str) -> RunnerError:
        error = cls(text)
        error._ends_wait = True
        return error


class Dropped(RunnerError):
    """A run that was asked for was not started, because a limit of its workflow drops what is beyond it.

    `rule` is `"concurrency"` or `"rate_limit"`; `key` is the value of its key that was full, also where the
    message hides that by `redact=`, `None` if it has no key; `started` has the ids of the runs that the same
    call of `backfill` started all the same.
    """

    rule: str
    key: str | None
    started: list[str]

    def __init__(
        self, message: str, rule: str = "", key: str | None = None, started: Sequence[str] = ()
    ) -> None:
        if key is not None:
            from .keyed import hidden_here

            message = hidden_here(message)
        super().__init__(message)
        self.rule = rule
        self.key = key
        self.started = list(started)

    def __reduce__(self) -> tuple[type[Dropped], tuple[str, str, str | None, list[str]]]:
        return type(self), (str(self), self.rule, self.key, self.started)


class RunFailedError(CloacaError, RuntimeError):
    """A run failed or was cancelled, and its caller asked to be told by an exception.

    `result` is the `WorkflowResult`.
    """

    result: WorkflowResult


class ArgumentError(RunnerError, ValueError):
    """An argument of a runner's method that makes no sense."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument of a runner's method that is of a wrong type."""
