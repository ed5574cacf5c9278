"""How much at once and how fast: `Concurrency`, `Throttle`, `RateLimit` of runs; `Limit` of tasks.

Decides what counts as a limit. Pure; knows no engine. Invariant: a limit that exists is one that the core
takes.
"""

from __future__ import annotations

import json
from enum import Enum

from . import _cloaca
from .duration import microseconds_of, text_of
from .errors import TriggerError, WorkflowError, excerpt, typed
from .frozen import Frozen
from .name import checked_name, is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Literal

    from .types import Duration

LIMIT_MAX = 2**31 - 1


class Keep(Enum):
    """What was not given stays as it is."""

    KEEP = "as it is"

    def __repr__(self) -> str:
        return "..."


KEEP: Final = Keep.KEEP
OVERFLOWS = ("wait", "drop_new")


class Concurrency(Frozen):
    """At most `limit` runs of a workflow between first beginning and end, for each value of `key`.

    Waiting for a retry, for a deferral or for its process to come back, a run keeps its seat; a child with
    the same key sits in its parent's. What is beyond it waits, the most urgent first, and of one priority the
    key that has waited longest; with `overflow="drop_new"` nothing becomes a run while `limit` runs of its
    key are unfinished, so that nothing waits.

    `key` is a path into the context, such as `"order.tenant"`, or a format of paths, such as
    `"{tenant}:{region}"`; without one all runs of the workflow count together. At its end stands a text, a
    number or a bool, and equal numbers are one key, as is a number with a text of its digits.

    Raises:
        WorkflowError: (a `ValueError`) a limit below 1, a key that is none, or another `overflow`.
    """

    __slots__ = ("limit", "key", "overflow")  # noqa: RUF023  the order in which they are shown

    limit: int
    key: str | None
    overflow: Literal["wait", "drop_new"]

    def __init__(
        self, limit: int, *, key: str | None = None, overflow: Literal["wait", "drop_new"] = "wait"
    ) -> None:
        if not isinstance(overflow, str) or overflow not in OVERFLOWS:
            raise WorkflowError(
                f'overflow is {excerpt(overflow)}; "wait" lets what is beyond the limit wait, and "drop_new"'
                " drops it"
            )
        self._fill(limit=_checked_limit(limit, "limit"), key=_checked_key(key), overflow=overflow)

    def _spec(self) -> dict[str, Any]:
        return {"limit": self.limit, "key": self.key, "overflow": self.overflow}


_PACED = ("limit", "per", "burst", "key")


class _Paced(Frozen):
    """So many within a time, for each value of a key."""

    __slots__ = ()

    limit: int
    per: float
    burst: int
    key: str | None

    def _take(self, limit: int, per: Duration, burst: int, key: str | None) -> None:
        number = _checked_limit(limit, "limit")
        per_us = _checked_per(per)
        if number > per_us:
            raise WorkflowError(
                f"limit is {number} per {text_of(per_us)}; the most is one in a microsecond, which limits"
                " nothing"
            )
        self._fill(
            limit=number, per=per_us / 1_000_000, burst=_checked_limit(burst, "burst"), key=_checked_key(key)
        )

    def _spec(self) -> dict[str, Any]:
        per_us = round(self.per * 1_000_000)
        return {"limit": self.limit, "per_us": per_us, "burst": self.burst, "key": self.key}

    def _parts(self) -> tuple[int, int, int]:
        return self.limit, round(self.per * 1_000_000), self.burst

    def __repr__(self) -> str:
        per = text_of(round(self.per * 1_000_000))
        return (
            f"{type(self).__name__}(limit={self.limit}, per={per!r}, burst={self.burst}"
            f"{'' if self.key is None else f', key={self.key!r}'})"
        )


class Throttle(_Paced):
    """At most `limit` starts in each `per`, evenly spaced, for each value of `key`; the rest waits, in order.

    `per` is a duration such as `"1m"`, kept in seconds. `burst` of them may start at once after a quiet time:
    in any time `t` at most `burst + limit * t / per` start. A start that was claimed by a runner which died
    before it began counts. For `key` see `Concurrency`.

    Raises:
        WorkflowError: (a `ValueError`) a limit or burst below 1, a `per` that is no duration, a key that is
            none.
    """

    __slots__ = _PACED

    def __init__(self, limit: int, per: Duration, *, burst: int = 1, key: str | None = None) -> None:
        self._take(limit, per, burst, key)


class RateLimit(_Paced):
    """At most `limit` new runs in each `per`, for each value of `key`; the rest is dropped, and told.

    `per` is a duration such as `"1h"`, kept in seconds. `burst` of them, and without it as many as `limit`,
    may come at once after a quiet time: in any time `t` at most `burst + limit * t / per` pass. What was
    dropped for another reason, such as a run key that was used before, counts for nothing. For `key` see
    `Concurrency`.

    Raises:
        WorkflowError: (a `ValueError`) a limit or burst below 1, a `per` that is no duration, a key that is
            none.
    """

    __slots__ = _PACED

    def __init__(
        self, limit: int, per: Duration, *, burst: int | None = None, key: str | None = None
    ) -> None:
        self._take(limit, per, limit if burst is None else burst, key)


class Limit(Frozen):
    """A limit with a name, shared by all tasks that name it: `concurrency` attempts at once, which begin no
    faster than `throttle` says.

    Raises:
        WorkflowError: (a `ValueError`) a name that is no `str` or is empty, a concurrency below 1, a throttle
            that is no `Throttle` or has a key, or neither of them.
    """

    __slots__ = ("name", "concurrency", "throttle")  # noqa: RUF023  the order in which they are shown

    name: str
    concurrency: int | None
    throttle: Throttle | None

    def __init__(
        self, name: str, *, concurrency: int | None = None, throttle: Throttle | None = None
    ) -> None:
        checked = checked_name(name, "name")
        many = checked_concurrent(concurrency)
        pace = checked_throttle(throttle)
        if pace is not None and pace.key is not None:
            raise WorkflowError(
                f"throttle of limit {excerpt(checked)} has the key {excerpt(pace.key)}; a limit with a name"
                " counts all attempts together, so leave key out"
            )
        if many is None and pace is None:
            raise WorkflowError(
                f"limit {excerpt(checked)} limits nothing; give concurrency=4,"
                ' throttle=Throttle(60, per="1m") or both'
            )
        self._fill(name=checked, concurrency=many, throttle=pace)

    def _spec(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "concurrency": self.concurrency,
            "throttle": None if self.throttle is None else self.throttle._spec(),
        }


def limits_json(
    concurrency: Concurrency | None, throttle: Throttle | None, rate_limit: RateLimit | None
) -> str | None:
    """What the engine and the store need to know of a workflow's limits; `None` if it has none."""
    given = {"concurrency": concurrency, "throttle": throttle, "rate_limit": rate_limit}
    specs = {name: limit._spec() for name, limit in given.items() if limit is not None}
    return json.dumps(specs) if specs else None


def name_of_limit(value: object, argument: str) -> str:
    """The name of a limit that is given itself or by its name. Raises `WorkflowError`."""
    return value.name if isinstance(value, Limit) else checked_name(value, argument)


def checked_concurrent(value: object) -> int | None:
    """How many attempts at once, or `None`. Raises `WorkflowError`."""
    return None if value is None else _checked_limit(value, "concurrency")


def checked_concurrency(value: object) -> Concurrency | None:
    """A `Concurrency` or `None`. Raises `WorkflowError`."""
    if value is not None and not isinstance(value, Concurrency):
        raise WorkflowError(_wrong("concurrency", value, "Concurrency(2)"))
    return value


def checked_throttle(value: object) -> Throttle | None:
    """A `Throttle` or `None`. Raises `WorkflowError`."""
    if value is not None and not isinstance(value, Throttle):
        raise WorkflowError(_wrong("throttle", value, 'Throttle(60, per="1m")'))
    return value


def checked_rate_limit(value: object) -> RateLimit | None:
    """A `RateLimit` or `None`. Raises `WorkflowError`."""
    if value is not None and not isinstance(value, RateLimit):
        raise WorkflowError(_wrong("rate_limit", value, 'RateLimit(100, per="1h")'))
    return value


def _wrong(argument: str, value: object, example: str) -> str:
    return f"{argument} is {excerpt(value)}, {typed(value)}; give cloaca.{example}"


def _checked_limit(value: object, argument: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WorkflowError(
            f"{argument} is {excerpt(value)}, {typed(value)}; it must be a whole number from 1"
        )
    if not 1 <= value <= LIMIT_MAX:
        raise WorkflowError(f"{argument} is {excerpt(value)}; it must be from 1 to {LIMIT_MAX}")
    return int(value)


def _checked_per(value: Duration) -> int:
    try:
        return microseconds_of(value, "per")
    except TriggerError as refused:
        raise WorkflowError(str(refused)) from None


def _checked_key(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        way = 'give a path into the context such as "order.tenant", or a format such as "{tenant}:{region}"'
        raise WorkflowError(f"key is {excerpt(value)}, {typed(value)}; {way}")
    if not is_text(value):
        raise WorkflowError(f"key is {excerpt(value)}; it holds a lone surrogate, which no context has")
    _cloaca.check_key(value)
    return str(value)
