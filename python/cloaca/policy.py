"""When a failed attempt is tried again, and when a failing trigger is polled again. Pure but for the dice of
jitter.

Invariant: a policy that exists is valid, and its numbers mean the same as in the core's `policy.rs`.
"""

from __future__ import annotations

from math import isfinite

from .duration import LARGEST_US, microseconds_of, text_of
from .errors import CloacaError, TriggerError, WorkflowError, excerpt, typed
from .frozen import Frozen
from .kind import is_a, name_of
from .limits import name_of_limit
from .name import is_text
from .near import says_keywords

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, ClassVar

    from .limits import Limit
    from .types import Duration

ATTEMPTS_MAX = 2**32 - 1
PATTERNS_MAX = 1_000
DELAY_US_MAX = 10**17
"""Some three thousand years: a later moment has no date."""
TRANSIENT_WORDS = ("connection", "network", "timeout", "temporary", "unavailable")


class BackoffStrategy(Frozen):
    """How the delay grows from one attempt to the next. Made by `fixed`, `linear` or `exponential`."""

    __slots__ = ("kind", "base", "multiplier")  # noqa: RUF023  the order in which they are shown

    kind: str
    base: float
    multiplier: float

    def __init__(self) -> None:
        raise TypeError("call BackoffStrategy.fixed(), .linear(multiplier) or .exponential(base, multiplier)")

    @staticmethod
    def fixed() -> BackoffStrategy:
        """Always the first delay."""
        return _strategy("fixed", 1.0, 1.0)

    @staticmethod
    def linear(multiplier: float = 1.0) -> BackoffStrategy:
        """The first delay times `multiplier` times the attempt.

        Raises `WorkflowError` unless it is positive.
        """
        return _strategy("linear", 1.0, _positive(multiplier, "multiplier"))

    @staticmethod
    def exponential(base: float = 2.0, multiplier: float = 1.0) -> BackoffStrategy:
        """The first delay times `multiplier` times `base` to the power of the attempt minus one.

        Raises:
            WorkflowError: one of them isn't a positive, finite number.
        """
        return _strategy("exponential", _positive(base, "base"), _positive(multiplier, "multiplier"))

    def _spec(self) -> tuple[Any, ...]:
        if self.kind == "fixed":
            return ("fixed",)
        if self.kind == "linear":
            return ("linear", self.multiplier)
        return ("exponential", self.base, self.multiplier)

    def _growth(self, attempt: int) -> float:
        attempt = max(attempt, 1)
        if self.kind == "fixed":
            return 1.0
        if self.kind == "linear":
            return self.multiplier * attempt
        try:
            return self.multiplier * self.base ** (attempt - 1)
        except OverflowError:  # becomes the longest delay
            return float("inf")

    def __repr__(self) -> str:
        return f"BackoffStrategy.{self.kind}({', '.join(repr(number) for number in self._spec()[1:])})"


def _strategy(kind: str, base: float, multiplier: float) -> BackoffStrategy:
    strategy = object.__new__(BackoffStrategy)
    strategy._fill(kind=kind, base=base, multiplier=multiplier)
    return strategy


class RetryCondition(Frozen):
    """Which errors are worth another attempt."""

    __slots__ = ("kind", "patterns")

    kind: str
    patterns: tuple[str, ...]

    def __init__(self) -> None:
        raise TypeError(
            "call RetryCondition.never(), .transient_only(), .all_errors() or .error_pattern([text, ...])"
        )

    @staticmethod
    def never() -> RetryCondition:
        """None."""
        return _condition("never", ())

    @staticmethod
    def transient_only() -> RetryCondition:
        """Time-outs, and messages with connection, network, timeout, temporary or unavailable."""
        return _condition("transient", ())

    @staticmethod
    def all_errors() -> RetryCondition:
        """All."""
        return _condition("all", ())

    @staticmethod
    def error_pattern(patterns: Iterable[str]) -> RetryCondition:
        """Those whose text contains one of these, ignoring case.

        Raises:
            WorkflowError: no pattern, more than 1000, or one that is empty or no `str`.
        """
        if isinstance(patterns, str):
            raise WorkflowError(f"patterns is {excerpt(patterns)}, a str; give a list of texts")
        try:
            texts = tuple(patterns)
        except TypeError:
            raise WorkflowError(f"patterns is {excerpt(patterns)}; give a list of texts") from None
        if not 1 <= len(texts) <= PATTERNS_MAX:
            raise WorkflowError(f"patterns has {len(texts)} texts; give 1 to {PATTERNS_MAX}")
        for text in texts:
            if not isinstance(text, str) or not text:
                raise WorkflowError(f"patterns holds {excerpt(text)}; each must be a str that isn't empty")
        return _condition("pattern", texts)

    def _spec(self) -> tuple[Any, ...]:
        return ("pattern", list(self.patterns)) if self.kind == "pattern" else (self.kind,)

    def _matches(self, error: str) -> bool:
        if self.kind == "pattern":
            lowered = error.lower()
            return any(text.lower() in lowered for text in self.patterns)
        if self.kind == "transient":
            lowered = error.lower()
            return "timed out" in lowered or any(word in lowered for word in TRANSIENT_WORDS)
        return self.kind == "all"

    def __repr__(self) -> str:
        names = {"never": "never()", "transient": "transient_only()", "all": "all_errors()"}
        return f"RetryCondition.{names.get(self.kind) or f'error_pattern({list(self.patterns)!r})'}"


def _condition(kind: str, patterns: tuple[str, ...]) -> RetryCondition:
    condition = object.__new__(RetryCondition)
    condition._fill(kind=kind, patterns=patterns)
    return condition


class RetryPolicy(Frozen):
    """When a task's failed attempt is tried again. Made by `RetryPolicy.builder()` or
    `RetryPolicy.default()`.

    `max_attempts` is the total number of attempts; `initial_delay`, `max_delay` and `retry_for` are seconds,
    `retry_for` counted from when the first attempt began; `None` means that time ends nothing.
    """

    __slots__ = (  # noqa: RUF023  the order in which they are shown
        "max_attempts",
        "initial_delay",
        "max_delay",
        "backoff_strategy",
        "retry_condition",
        "with_jitter",
        "retry_for",
    )

    max_attempts: int
    initial_delay: float
    max_delay: float
    backoff_strategy: BackoffStrategy
    retry_condition: RetryCondition
    with_jitter: bool
    retry_for: float | None

    def __init__(self) -> None:
        raise TypeError("call RetryPolicy.builder()...build() or RetryPolicy.default()")

    @staticmethod
    def builder() -> RetryPolicyBuilder:
        """A builder that starts at the defaults."""
        return RetryPolicyBuilder()

    @staticmethod
    def default() -> RetryPolicy:
        """3 attempts, exponential with base 2, first delay 1 s, at most 60 s, jitter, all errors."""
        return DEFAULT

    def should_retry(self, attempt: int, error: str | BaseException) -> bool:
        """Whether attempt number `attempt`, counted from 1, which failed with `error`, is followed by
        another, as far as `retry_for` leaves time.
        """
        _checked_attempt(attempt)
        text = f"{name_of(type(error))}: {error}" if is_a(error, BaseException) else str(error)
        return attempt < self.max_attempts and self.retry_condition._matches(text)

    def calculate_delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 1; with jitter 75 % to 125 %, never
        above the max.
        """
        _checked_attempt(attempt)
        delay = self.initial_delay * self.backoff_strategy._growth(attempt) if self.initial_delay else 0.0
        if self.with_jitter:
            from random import random

            delay *= 0.75 + 0.5 * random()
        return min(delay, self.max_delay)

    def _spec(self) -> dict[str, Any]:
        """What the engine needs to know, in plain data."""
        spec = {
            "attempts": self.max_attempts,
            "first_delay_us": round(self.initial_delay * 1_000_000),
            "delay_max_us": round(self.max_delay * 1_000_000),
            "backoff": self.backoff_strategy._spec(),
            "conditions": [self.retry_condition._spec()],
            "jitter": self.with_jitter,
        }
        if self.retry_for is not None:
            # Only then, so that a workflow without it keeps its version.
            spec["time_max_us"] = round(self.retry_for * 1_000_000)
        return spec


class RetryPolicyBuilder(Frozen):
    """Builds a `RetryPolicy`; each setter returns a new builder and raises `WorkflowError` naming what is
    wrong.
    """

    __slots__ = ("_fields",)
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    _fields: dict[str, Any]

    def __init__(self) -> None:
        self._fill(
            _fields={
                "max_attempts": None,
                "initial_delay": 1.0,
                "max_delay": 60.0,
                "backoff_strategy": BackoffStrategy.exponential(2.0),
                "retry_condition": RetryCondition.all_errors(),
                "with_jitter": True,
                "retry_for": None,
            }
        )

    def max_attempts(self, max_attempts: int) -> RetryPolicyBuilder:
        """The total number of attempts; 0 and 1 both mean one. Unless it is said, 3, or any number with
        `retry_for`.
        """
        return self._with(max_attempts=checked_attempts(max_attempts, "max_attempts"))

    def retry_for(self, span: Duration) -> RetryPolicyBuilder:
        """No further attempt begins so long after the first one began, a duration such as `"10m"`. With
        `max_attempts` too, whichever comes first ends it.
        """
        return self._with(retry_for=checked_span(span, "retry_for"))

    def initial_delay(self, seconds: Duration) -> RetryPolicyBuilder:
        """The delay before the second attempt: seconds as a number, or a duration such as `"5s"`."""
        return self._with(initial_delay=_checked_delay(seconds, "initial_delay"))

    def max_delay(self, seconds: Duration) -> RetryPolicyBuilder:
        """No delay is longer: seconds as a number, or a duration such as `"5m"`."""
        return self._with(max_delay=_checked_delay(seconds, "max_delay"))

    def backoff_strategy(self, strategy: BackoffStrategy) -> RetryPolicyBuilder:
        """How the delay grows."""
        if not isinstance(strategy, BackoffStrategy):
            raise WorkflowError(f"backoff_strategy is {excerpt(strategy)}; it must be a BackoffStrategy")
        return self._with(backoff_strategy=strategy)

    def retry_condition(self, condition: RetryCondition) -> RetryPolicyBuilder:
        """Which errors are worth another attempt."""
        if not isinstance(condition, RetryCondition):
            raise WorkflowError(f"retry_condition is {excerpt(condition)}; it must be a RetryCondition")
        return self._with(retry_condition=condition)

    def with_jitter(self, jitter: bool) -> RetryPolicyBuilder:
        """Whether to spread delays by a quarter, so that tasks that failed together don't return together."""
        return self._with(with_jitter=checked_bool(jitter, "with_jitter"))

    def build(self) -> RetryPolicy:
        """The policy."""
        fields = dict(self._fields)
        if fields["max_attempts"] is None:
            fields["max_attempts"] = 3 if fields["retry_for"] is None else ATTEMPTS_MAX
        policy = object.__new__(RetryPolicy)
        policy._fill(**fields)
        return policy

    def _with(self, **changes: Any) -> RetryPolicyBuilder:
        builder = RetryPolicyBuilder()
        builder._fields.update(self._fields)
        builder._fields.update(changes)
        return builder


class Backoff(Frozen):
    """How long a failing trigger waits: `base`, then `factor` times as long each time, up to `max`.

    A trigger without one waits one interval, then twice as long each time, up to half an hour or the
    interval. `base` and `max` are durations: `"5s"`, seconds as a number, a `timedelta`; they are kept as
    `base_us` and `max_us`.

    Raises:
        TriggerError: no duration, a factor below 1, or a `max` below `base`.
    """

    __slots__ = ("base_us", "factor", "max_us")

    base_us: int
    factor: float
    max_us: int

    @says_keywords("Backoff")
    def __init__(self, base: Duration = "5s", factor: float = 2, max: Duration = "30m") -> None:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 <= factor <= 1_000_000:
            raise TriggerError(f"factor is {excerpt(factor)}; it must be a number from 1 to 1000000")
        self._fill(
            base_us=microseconds_of(base, "base"), factor=float(factor), max_us=microseconds_of(max, "max")
        )
        if self.max_us < self.base_us:
            raise TriggerError(f"max is {excerpt(max)}, less than base, which is {excerpt(base)}")


def checked_attempts(value: object, field: str) -> int:
    """A number of attempts, at least one. Raises `WorkflowError` naming the field."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= ATTEMPTS_MAX:
        raise WorkflowError(f"{field} is {excerpt(value)}; it must be an int from 0 to {ATTEMPTS_MAX}")
    return max(int(value), 1)


def _checked_attempt(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WorkflowError(f"attempt is {excerpt(value)}; it must be an int, counted from 1")


def checked_seconds(value: object, field: str, *, unit_us: int = 1_000_000) -> float:
    """A delay in seconds, given in units of `unit_us`. Raises `WorkflowError` naming the field."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WorkflowError(f"{field} is {excerpt(value)}, {typed(value)}; it must be a number")
    if not 0 <= value <= LARGEST_US / unit_us:  # false for NaN too
        raise WorkflowError(f"{field} is {excerpt(value)}; it must be at least 0 and at most 10 years")
    return value * unit_us / 1_000_000


def _checked_delay(value: Any, field: str) -> float:
    """A delay in seconds, given as a number or a duration. Raises `WorkflowError` naming the field."""
    if isinstance(value, (int, float)):
        return checked_seconds(value, field)
    try:
        return microseconds_of(value, field, smallest_us=0) / 1_000_000
    except TriggerError as error:
        raise WorkflowError(str(error)) from None


def checked_span(value: Any, field: str) -> float:
    """A duration in seconds. Raises `WorkflowError` naming the field."""
    try:
        return microseconds_of(value, field) / 1_000_000
    except TriggerError as error:
        raise WorkflowError(str(error)) from None


def checked_bool(value: object, field: str) -> bool:
    """A `bool`, or a `WorkflowError` naming the field."""
    if not isinstance(value, bool):
        raise WorkflowError(f"{field} is {excerpt(value)}; it must be True or False")
    return value


def _positive(value: object, field: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 < value <= 1e300
        or not isfinite(value)
    ):
        raise WorkflowError(f"{field} is {excerpt(value)}; it must be a positive number")
    return float(value)


DEFAULT = RetryPolicyBuilder().build()


class RetryAfter(CloacaError):
    """Raised by a trigger's function or a task's: call it again after this delay. That is no failure.

    A task's wait uses up none of its attempts, and its end is kept: who goes on with the run after a restart
    waits for the rest. It holds no slot. Its only bounds are `retry_for`, which fails a task whose wish would
    lead beyond it, and the time-out of the run (`workflow_timeout_seconds`, an hour unless set), which goes
    on meanwhile; a cancel ends it at once. `delay` is a duration such as `"2m"`, seconds as a number, or a
    `timedelta`; `delay_us` holds it in microseconds. 0 means at once, which no number of attempts bounds
    either; for a poll it means the next beat of its interval. What an HTTP response has in its `Retry-After`
    may be given as it is: `"120"`, which is seconds, or a date.

    `pause` is a limit, or its name: no attempt under it begins for as long, of any task in any runner on the
    store. That is kept with the end of this attempt or poll, and a longer pause stays. See `runner.pause`.

    Raises:
        TriggerError: the delay is no duration, or is below 0.
        WorkflowError: `pause` is no limit and no name.
    """

    delay_us: int
    pause: str | None = None

    @says_keywords("RetryAfter")
    def __init__(self, delay: Duration, *, pause: Limit | str | None = None) -> None:
        super().__init__(delay)
        told = _of_header(delay) if isinstance(delay, str) else None
        self.delay_us = microseconds_of(delay if told is None else told, "delay", smallest_us=0)
        if pause is not None:
            self.pause = name_of_limit(pause, "pause")

    def __str__(self) -> str:
        paused = "" if self.pause is None else f", and limit {excerpt(self.pause)} is paused until then"
        return f"again in {text_of(self.delay_us)}{paused}"


def _of_header(text: str) -> float | None:
    """The seconds that an HTTP header `Retry-After` means, RFC 9110; `None` of any other text."""
    if text.strip().isdecimal():
        return float(text)
    if not text.strip()[:3].isalpha():
        return None
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    from .attempt import clock_us

    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    # One of the forms that are to be taken names no zone.
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    now_us = clock_us()
    now = datetime.now(UTC) if now_us is None else datetime.fromtimestamp(now_us / 1e6, UTC)
    return max(0.0, (at - now).total_seconds())


def wish_of(failure: BaseException) -> int | None:
    """How long a `RetryAfter` asks for, in microseconds; `None` for any other error, and for one that a
    program's own class left without a time: then it is an ordinary failure, for an attempt that began must
    end.
    """
    if not is_a(failure, RetryAfter):
        return None
    try:
        delay_us: object = failure.delay_us
    except BaseException:
        return None
    if type(delay_us) is not int:
        return None
    return delay_us if 0 <= delay_us < DELAY_US_MAX else None


def pause_of(failure: BaseException) -> str | None:
    """The limit that a `RetryAfter` pauses, if it does; what a program's own class left there is no name."""
    try:
        pause: object = failure.pause if is_a(failure, RetryAfter) else None
        return pause if is_a(pause, str) and is_text(pause) else None
    except BaseException:
        return None
