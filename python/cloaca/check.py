"""Checks the arguments of a runner's methods. Knows no engine.

Invariant: what passed can be handed to the engine as it is, and what did not was named with the way out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from . import _cloaca
from .body import is_async_generator, is_generator, parameters_of, unbound
from .errors import ArgumentError, ArgumentTypeError, CloacaError, ScheduleError, UrlError, excerpt, typed
from .name import is_text, written_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

RUN_KEY_CHARS_MAX = 1024
_LARGEST = 2**63 - 1
PAGE_LIMIT = 100
"""How many rows a listing gives by default."""


def text(value: object, argument: str, error: type[CloacaError] = ArgumentTypeError) -> str:
    """A `str` that can be stored.

    Raises:
        ArgumentTypeError: (or the given class) anything else.
    """
    if not isinstance(value, str):
        raise error(f"{argument} is {excerpt(value)}, {typed(value)}; it must be a str")
    if not is_text(value):
        raise error(f"{argument} is {excerpt(value)}; it holds a lone surrogate, which cannot be stored")
    return str(value)


def optional_text(value: object, argument: str) -> str | None:
    """Like `text`, or `None`."""
    return None if value is None else text(value, argument)


def on_server(url: str) -> bool:
    """Whether a database URL names a server; a file may be called alike."""
    scheme, is_url, _ = url.partition("://")
    return bool(is_url) and scheme.partition("+")[0] in ("postgres", "postgresql")


def store_name(url: str) -> str:
    """What messages call the store of a URL: that, or of one on a server its database and host."""
    try:
        return _cloaca.name_of(url)
    except UrlError:
        # It may hold a password.
        return "no store"


def url(value: object, argument: str = "database_url") -> str:
    """A database URL's text, of a `str` or a path.

    Raises:
        ArgumentTypeError: another type.
        UrlError: what no path can be.
    """
    if isinstance(value, os.PathLike):
        place = os.fsdecode(os.fspath(value))
        # What is a path is no URL, whatever it looks like.
        value = os.path.join(os.curdir, place) if ":" in place and not os.path.isabs(place) else place
    if not isinstance(value, str):
        kind = typed(value)
        raise ArgumentTypeError(f"{argument} is {excerpt(value)}, {kind}; it must be a str or a path")
    return path(value, argument, UrlError)


def path(value: object, argument: str, error: type[CloacaError] = ArgumentTypeError) -> str:
    """A `str` that can be part of a path: as `os.fsdecode` spells names that are no text, too."""
    try:
        os.fsencode(value)  # type: ignore[arg-type]
    except (UnicodeEncodeError, TypeError):
        return text(value, argument, error)
    return str(value) if isinstance(value, str) else text(value, argument, error)


def target(value: str | os.PathLike[Any], argument: str) -> str:
    """Where a file is to be written, as `path` tells it.

    Raises:
        ArgumentError: it is a server's URL, or one that is misspelt: it may hold a password.
    """
    found = path(os.fspath(value), argument)
    # What is a path is no URL, whatever it looks like.
    if isinstance(value, str) and _cloaca.means_server(found):
        raise ArgumentError(f"{argument} is the URL of a server; name a file, one that is called so by ./")
    return found


def run_key(value: object, ttl: object) -> tuple[str, float] | None:
    """A run key and for how many seconds it holds; `None` for none."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ArgumentTypeError(f"run_key is {excerpt(value)}, {typed(value)}; it must be a str")
    key = str(value)
    if not 0 < len(key) <= RUN_KEY_CHARS_MAX:
        raise ArgumentError(
            f"run_key is {excerpt(key)}, {len(key)} characters; it must have 1 to {RUN_KEY_CHARS_MAX}"
        )
    return written_out(key), span(ttl, "run_key_ttl")


def span(value: object, argument: str) -> float:
    """A duration, in seconds. Raises `TriggerError` naming the argument for what is none."""
    from .duration import seconds_of

    return seconds_of(value, argument)  # type: ignore[arg-type]


def flag(value: object, argument: str) -> bool:
    """A `bool`, and nothing that merely counts as one: `"no"` would switch things on."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{argument} is {excerpt(value)}; it must be True or False")
    return value


CALLBACKS = {
    "on_success": ("task_id", "context"),
    "on_failure": ("task_id", "error", "context"),
    "on_poll_failed": ("name", "error", "failures"),
    "on_disabled": ("name", "cause"),
}
"""What each callback is called with."""


def checked_callback(
    value: Any, argument: str, error: type[CloacaError], given: tuple[str, ...] | None = None
) -> Any:
    """A function that the program wants called, or `None`. Raises the given class for anything else, and for
    one that cannot be called with what it would get: that would be found out when it is needed."""
    if value is None:
        return None
    if not callable(value):
        raise error(f"{argument} is {excerpt(value)}; it must be a function or None")
    if (first := unbound(value)) is not None:
        raise error(
            f"{argument} is {excerpt(value)}, a method whose first parameter is {first}, which nobody would"
            " give it; give a bound method of an object, or a function"
        )
    if is_async_generator(value) or is_generator(value):
        raise error(f"{argument} is {excerpt(value)}, a generator, which would never run; give a function")
    parameters = parameters_of(value)
    if parameters is None:
        return value
    given = CALLBACKS[argument] if given is None else given
    missing = parameters.names[len(given) : parameters.required] + parameters.keywords_required
    takes = len(parameters.names)
    if missing:
        told = f"needs {', '.join(missing)}; it is called with {', '.join(given)}"
        raise error(f"{argument} is {excerpt(value)}, which {told}")
    if takes < len(given) and not parameters.any_number:
        told = f"takes {takes or 'none'} of them: def {argument}({', '.join(given)})"
        raise error(f"{argument} is {excerpt(value)}; it is called with {', '.join(given)}, and {told}")
    return value


def one_of(value: object, names: tuple[str, ...], argument: str) -> str:
    """One of these words. Raises `ArgumentError` for anything else."""
    if value not in names:
        raise ArgumentError(f"{argument} is {excerpt(value)}; it must be {' or '.join(map(repr, names))}")
    return str(value)


def count(value: object, argument: str) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{argument} is {excerpt(value)}; it must be a whole number from 0")
    if not 0 <= value <= _LARGEST:
        raise ArgumentError(f"{argument} is {excerpt(value)}; it must be a whole number from 0 to 2^63 - 1")
    return int(value)


def page(limit: object, offset: object) -> tuple[int, int]:
    """The two bounds of a listing, with their defaults."""
    return (
        PAGE_LIMIT if limit is None else count(limit, "limit"),
        0 if offset is None else count(offset, "offset"),
    )


def seconds(value: object, argument: str) -> float:
    """A time to wait, in seconds from 0, from a number or any other duration; infinity means for ever."""
    if isinstance(value, str) or hasattr(value, "total_seconds"):
        given: Any = value
        from .duration import microseconds_of
        from .errors import TriggerError

        try:
            return microseconds_of(given, argument, smallest_us=0) / 1_000_000
        except TriggerError as refused:
            raise ArgumentError(str(refused)) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentTypeError(
            f'{argument} is {excerpt(value)}; it must be seconds as a number, or a duration such as "30s"'
        )
    if not value >= 0:  # false for NaN too
        raise ArgumentError(f"{argument} is {excerpt(value)}; it must be at least 0 seconds")
    # Longer than the engine can count is as good as for ever.
    return min(float(value), 1e9) if value < 1e300 else 1e9


def schedule_id(value: object) -> str:
    """A schedule's id, as text. Raises `ScheduleError` with `Invalid schedule ID`."""
    if not isinstance(value, str) or not is_text(value) or not is_uuid(value):
        raise ScheduleError(
            f"Invalid schedule ID: schedule_id is {excerpt(value)}; it must be the UUID or the name of a cron"
            ", as list_cron_schedules() shows it"
        )
    return value


def run_id(value: object, argument: str = "run_id") -> str:
    """A run's id, as text. Raises `ArgumentError`."""
    if not isinstance(value, str) or not is_text(value) or not is_uuid(value):
        raise ArgumentError(
            f"{argument} is {excerpt(value)}; it must be the UUID of a run, as list_runs() shows it"
        )
    return value


def parent(value: object, connection: object) -> str | None:
    """The id of the run that is named as the parent of another one, if one is.

    Raises:
        ArgumentError: it is no run, nor the id of one; or a connection is given, too.
    """
    if value is None:
        return None
    run = parent_id(value)
    if connection is not None:
        raise ArgumentError(
            "parent and connection are both given; what is asked for in a transaction of yours has no parent"
        )
    return run


def parent_id(value: object) -> str:
    """The id of a run that is named as the parent of another one: that run, or its id.

    Raises:
        ArgumentError: it is neither.
    """
    run = getattr(value, "id", None) if not isinstance(value, str) else value
    if not isinstance(run, str) or not is_text(run) or not is_uuid(run):
        raise ArgumentError(f"parent is {excerpt(value)}; it must be a run, or the id of one")
    return run


def microseconds(since: object, argument: str = "since") -> int:
    """A moment in microseconds since 1970, from an RFC 3339 text or a `datetime`; UTC if it has no zone.

    Raises:
        ScheduleError: `Invalid datetime format`.
    """
    from datetime import UTC, datetime, timedelta

    try:
        # Python's reader overlooks a NUL at the end.
        is_text = isinstance(since, str) and "\0" not in since
        moment: datetime | object = datetime.fromisoformat(str(since)) if is_text else since
        if not isinstance(moment, datetime):
            raise TypeError("not a time")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        # Not by `timestamp()`, a float that cannot tell every microsecond.
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except (ValueError, TypeError, OverflowError):
        message = f'Invalid datetime format: {argument} is {excerpt(since)}; write "2026-01-01T00:00:00Z"'
        raise ScheduleError(f"{message}, or give a datetime") from None


FIRST_US = -62_135_596_800_000_000
LAST_US = 253_402_207_200_000_000
TELLABLE = "from 0001-01-01T00:00:00Z to 9999-12-30T22:00:00Z"
"""From `FIRST_US` to `LAST_US`, what results can tell, of which the time zones may take a day at the end."""


def kept(at_us: int, value: object, argument: str, error: type[CloacaError] = ArgumentError) -> int:
    """A moment that the store is to keep, so that each result can tell it. Raises the given class."""
    if not FIRST_US <= at_us <= LAST_US:
        raise error(f"{argument} is {excerpt(value)}; it must be {TELLABLE}")
    return at_us


def ahead(at_us: int, value: object, argument: str, now_us: int, error: type[CloacaError]) -> int:
    """The end of a pause. Raises the given class."""
    if at_us <= now_us:
        raise error(f"{argument} is {excerpt(value)}, which is over")
    if at_us > LAST_US:
        raise error(
            f"{argument} is {excerpt(value)}; it must be {TELLABLE}; without it a pause lasts till resumed"
        )
    return at_us


def moment(value: object, argument: str) -> int:
    """Like `microseconds`, for an argument of another kind of method. Raises `ArgumentError`."""
    try:
        return microseconds(value)
    except ScheduleError:
        raise ArgumentError(
            f'{argument} is {excerpt(value)}; it must be a datetime, or a text like "2026-01-01T00:00:00Z"'
            f"{_ago(value)}"
        ) from None


def _ago(value: object) -> str:
    """How to write that something was so long ago."""
    from .duration import microseconds_of
    from .errors import TriggerError

    try:
        microseconds_of(value, "it")  # type: ignore[arg-type]
    except TriggerError:
        return ""
    return "; for how long ago, datetime.now(UTC) - timedelta(...)"


def is_uuid(value: str) -> bool:
    """Whether a text has the form of an id."""
    dashed = [at for at, letter in enumerate(value) if letter == "-"]
    digits = value.replace("-", "")
    return (
        len(digits) == 32
        and dashed in ([], [8, 13, 18, 23])
        and all(digit in "0123456789abcdefABCDEF" for digit in digits)
    )


def params(given: object) -> list[object]:
    """The parameters of a statement."""
    if isinstance(given, str | bytes | Mapping | AbstractSet) or not isinstance(given, Iterable):
        raise ArgumentTypeError(
            f"params is {excerpt(given)}; it must be a list of values, for `?` in their order"
        )
    values = list(given)
    for value in values:
        if isinstance(value, str):
            text(value, "a value of params")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ArgumentError(f"a value of params is {excerpt(value)}; SQLite has integers of 64 bits")
        elif value is not None and not isinstance(value, int | float | bytes | bytearray):
            raise ArgumentTypeError(
                f"a value of params is {excerpt(value)}; it must be None, int, float, str or bytes"
            )
    return values
