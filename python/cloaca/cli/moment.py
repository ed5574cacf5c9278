"""What a time on a command line means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ..duration import microseconds_of
from ..errors import TriggerError, excerpt
from .parse import UsageError


def instant(text: str) -> datetime:
    """The instant of a date or time, local if it has no zone. In an hour that summer time skips the clock
    goes on as before it: `astimezone` takes the other way, to before the hour.

    Raises:
        ValueError, OverflowError, OSError: it is none, or beyond what there is.
    """
    read = datetime.fromisoformat(text)
    return read.astimezone(UTC) if read.tzinfo is not None else datetime.fromtimestamp(read.timestamp(), UTC)


def moment(text: str | None, option: str) -> datetime | None:
    """The moment that a text means: `24h` ago, or a date or time, local if it has no zone.

    Raises:
        UsageError: it is none of these.
    """
    if text is None:
        return None
    try:
        return instant(text)
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return datetime.now(UTC) - timedelta(microseconds=microseconds_of(text, option))
    except TriggerError:
        raise UsageError(
            f"{option} is {excerpt(text)}; write how long ago, such as 24h or 7d, or a time such as"
            " 2026-01-31 or 2026-01-31T06:00:00Z"
        ) from None
