"""When a run is to begin, by what who asks for it says: `priority`, and `at` or `delay`.

Decides what counts as that. Pure; reads no clock. Invariant: what passed can be handed to the engine.
"""

from __future__ import annotations

from .errors import ArgumentError, ScheduleError, TriggerError, excerpt, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

    from .errors import CloacaError
    from .types import Duration

    Urgency = tuple[int | None, int | None, int | None]
    """A priority; an instant, or a delay, in microseconds."""

PRIORITY = 5
PRIORITY_MAX = 9


def of(
    priority: int | None,
    at: str | datetime | None,
    delay: Duration | None,
    error: type[CloacaError] = ArgumentError,
    dashes: str = "",
) -> Urgency | None:
    """What these say; `None` if nothing. `dashes` stand before their names where these are options.

    Raises:
        ArgumentError: (or the given class) one of them makes no sense, or both `at` and `delay` are given.
    """
    if priority is None and at is None and delay is None:
        return None
    number = None if priority is None else checked_priority(priority, error, f"{dashes}priority")
    if at is not None and delay is not None:
        raise error(f"{dashes}at is {excerpt(at)} and {dashes}delay is {excerpt(delay)}; give one of them")
    at_us = None if at is None else _instant(at, error)
    delay_us = None if delay is None else _delay(delay, error, f"{dashes}delay")
    return number, at_us, delay_us


def checked_priority(value: object, error: type[CloacaError], name: str = "priority") -> int:
    """A priority. Raises the given class for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise error(f"{name} is {excerpt(value)}, {typed(value)}; it must be a whole number from 0 to 9")
    if not 0 <= value <= PRIORITY_MAX:
        raise error(f"{name} is {excerpt(value)}; it must be from 0 to 9, and 9 goes first")
    return int(value)


def _instant(value: object, error: type[CloacaError]) -> int:
    from .check import kept, microseconds

    try:
        at_us = microseconds(value, "at")
    except ScheduleError:
        told = f'at is {excerpt(value)}; it must be a datetime, or a text like "2026-01-01T00:00:00Z"'
        raise error(f"{told}; for some time from now give delay") from None
    return kept(at_us, value, "at", error)


def _delay(value: Duration, error: type[CloacaError], name: str) -> int:
    from .duration import microseconds_of

    try:
        return microseconds_of(value, name, smallest_us=0)
    except TriggerError as refused:
        if error is TriggerError:
            raise
        raise error(str(refused)) from None
