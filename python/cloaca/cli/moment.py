"""What a time on a command line means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ..duration import microseconds_of
from ..errors import TriggerError, excerpt
from .parse import UsageError


def moment(text: str | None, option: str) -> datetime | None:
    """The moment that a text means: `24h` ago, or a date or time, local if it has no zone.

    Raises:
        UsageError: it is none of these.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return datetime.now(UTC) - timedelta(microseconds=microseconds_of(text, option))
    except TriggerError:
        raise UsageError(
            f"{option} is {excerpt(text)}; write how long ago, such as 24h or 7d, or a time such as"
            " 2026-01-31 or 2026-01-31T06:00:00Z"
        ) from None
