"""Decides what a duration is: `"100ms"`, `"1h30m"`, `1.5` seconds, a `timedelta`. Pure; reads no clock.

Invariant: every duration leaves as whole microseconds between its smallest and ten years.
"""

from __future__ import annotations

import re
from math import isfinite

from .errors import TriggerError, excerpt, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

SMALLEST_US = 1_000
LARGEST_US = 10 * 365 * 86_400 * 1_000_000

_OUT_OF_REACH = 10**12
"""Seconds that are more than any duration."""

_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(us|ms|s|m|h|d)", re.ASCII)
_HINT = 'write "100ms", "5s", "1h30m" or "7d" (units us, ms, s, m, h, d), seconds as a number, or a timedelta'


def seconds_of(value: str | float | timedelta, argument: str) -> float:
    """The duration in seconds. Raises as `microseconds_of` does."""
    return microseconds_of(value, argument) / 1_000_000


def microseconds_of(value: str | float | timedelta, argument: str, *, smallest_us: int = SMALLEST_US) -> int:
    """The duration in microseconds; numbers are seconds.

    Raises:
        TriggerError: no duration, or one shorter than `smallest_us` or longer than ten years. Names the
            argument.
    """
    span_us = _parsed_us(value, argument) if isinstance(value, str) else _converted_us(value, argument)
    if span_us < smallest_us:
        shown = value.strip() if isinstance(value, str) else text_of(span_us)
        raise TriggerError(f"{argument} is {shown}; the smallest is {text_of(smallest_us)}")
    if span_us > LARGEST_US:
        raise TriggerError(f"{argument} is {excerpt(value)}; the largest is 10 years")
    return span_us


def text_of(span_us: int) -> str:
    """A duration as people write it: `"5s"`, `"0.5ms"`, `"2h"`."""
    if span_us < 0:
        return "-" + text_of(-span_us)
    for unit in ("d", "h", "m", "s"):
        if span_us and span_us % _UNITS_US[unit] == 0:
            return f"{span_us // _UNITS_US[unit]}{unit}"
    if span_us == 0 or span_us > 1_000_000:
        return f"{span_us / 1_000_000:g}s"
    return f"{span_us / 1_000:g}ms"


def _parsed_us(text: str, argument: str) -> int:
    rest = text.strip()
    total_us = 0.0
    position = 0
    seen_us = LARGEST_US
    while position < len(rest) and len(rest) <= 64:
        part = _PART.match(rest, position)
        # Each unit once and from long to short, so that "5m1h" is taken for the slip that it probably is.
        if part is None or _UNITS_US[part[2]] >= seen_us:
            break
        seen_us = _UNITS_US[part[2]]
        total_us += float(part[1]) * seen_us
        position = part.end()
        while position < len(rest) and rest[position] == " ":
            position += 1
    if not rest or position < len(rest):
        raise TriggerError(f"{argument} is {excerpt(text)}, which is no duration; {_HINT}")
    return _rounded_us(total_us)


def _converted_us(value: object, argument: str) -> int:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, int):
            # No float holds every int.
            return min(max(value, -_OUT_OF_REACH), _OUT_OF_REACH) * 1_000_000
        if not isfinite(value):
            raise TriggerError(f"{argument} is {value!r}; {_HINT}")
        return _rounded_us(value * 1_000_000)
    from datetime import timedelta

    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    raise TriggerError(f"{argument} is {excerpt(value)}, {typed(value)}; {_HINT}")


def _rounded_us(span_us: float) -> int:
    # A float may have overflowed to infinity, which must become "too long" and not an OverflowError.
    return round(span_us) if isfinite(span_us) else (LARGEST_US + 1 if span_us > 0 else -1)
