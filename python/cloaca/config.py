"""`DefaultRunnerConfig`: the settings of a runner. Only checks them.

Invariant: every field holds a value that makes sense, also after it was set.
"""

from __future__ import annotations

from .duration import LARGEST_US, SMALLEST_US, microseconds_of, text_of
from .errors import ArgumentTypeError, ConfigError, excerpt
from .near import hint, refuse_keywords
from .size import bytes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, TypedDict

    from .types import Durability, Duration

    class Fields(TypedDict, total=False):
        """The fields of a `DefaultRunnerConfig`, as keywords."""

        max_concurrent_tasks: int | None
        scheduler_poll_interval_ms: int | None
        task_timeout_seconds: Duration | None
        workflow_timeout_seconds: Duration | None
        db_pool_size: int | None
        enable_recovery: bool | None
        enable_cron_scheduling: bool | None
        cron_poll_interval_seconds: Duration | None
        cron_max_catchup_executions: int | None
        cron_enable_recovery: bool | None
        cron_recovery_interval_seconds: Duration | None
        cron_lost_threshold_minutes: int | None
        cron_max_recovery_age_seconds: Duration | None
        cron_max_recovery_attempts: int | None
        durability: Durability | None
        retention: Duration | None
        ticks_retention: Duration | None
        ticks_max: int | None
        timer_resolution: Duration | None
        context_bytes_max: int | None
        max_pollers: int | None
        interruptions_max: int | None
        max_async_tasks: int | None
        timeout_grace_seconds: Duration | None
        overdue_max: int | None
        place_deaths_max: int | None
        shutdown_seconds: Duration | None
        runs_in_hand: int | None
        keep_logs: str | int | None


_DEFAULTS: dict[str, Any] = {
    "max_concurrent_tasks": 4,
    "scheduler_poll_interval_ms": 100,
    "task_timeout_seconds": 300,
    "workflow_timeout_seconds": 3600,
    "db_pool_size": 10,
    "enable_recovery": True,
    "enable_cron_scheduling": True,
    "cron_poll_interval_seconds": 30,
    "cron_max_catchup_executions": 100,
    "cron_enable_recovery": True,
    "cron_recovery_interval_seconds": 300,
    "cron_lost_threshold_minutes": 10,
    "cron_max_recovery_age_seconds": 86400,
    "cron_max_recovery_attempts": 3,
    "durability": None,
    "retention": None,
    "ticks_retention": "7d",
    "ticks_max": 10_000,
    "timer_resolution": None,
    "context_bytes_max": 16 * 1024 * 1024,
    "max_pollers": 64,
    "interruptions_max": 20,
    "max_async_tasks": 1000,
    "timeout_grace_seconds": 30,
    "overdue_max": None,
    "place_deaths_max": 3,
    "shutdown_seconds": 30,
    "runs_in_hand": None,
    "keep_logs": None,
}
_BEYOND_UPSTREAM = (
    "durability",
    "retention",
    "ticks_retention",
    "ticks_max",
    "timer_resolution",
    "context_bytes_max",
    "max_pollers",
    "interruptions_max",
    "max_async_tasks",
    "timeout_grace_seconds",
    "overdue_max",
    "place_deaths_max",
    "shutdown_seconds",
    "runs_in_hand",
    "keep_logs",
)
_DURATIONS_US = {
    "retention": (SMALLEST_US, LARGEST_US),
    "ticks_retention": (SMALLEST_US, LARGEST_US),
    "timer_resolution": (10, 1_000_000),
}
"""Fields that are durations, each with the shortest and the longest."""
_MAY_BE_ZERO = (
    "cron_max_catchup_executions",
    "cron_max_recovery_attempts",
    "timeout_grace_seconds",
    "shutdown_seconds",
)
_LARGEST = 2**31 - 1


class DefaultRunnerConfig:
    """The settings of a runner, read and written as attributes; `None` for a field means its default.

    `max_concurrent_tasks` bounds the tasks that run at once on threads, `max_async_tasks`, 1,000 by default,
    those that are `async def`. What ends in `_seconds` may be a fraction, or given as a duration such as
    `"7d"` or a `timedelta`; it is read as a number. `durability` is `"full"` (through power loss), `"normal"`
    (through process death) or `None`, as the URL says. `retention` is a duration such as `"90d"` after which
    final runs and history are deleted; `None` keeps the runs. Of what polls answered, `ticks_retention`,
    `"7d"` by default, and the newest `ticks_max` stretches of each trigger, 10,000 by default, are kept.
    `timer_resolution`, a duration from `"0.01ms"` to `"1s"`, is how finely polls are timed: those that are
    due within it share one wake-up at its end, which spares the processor; `None` is 0.05 ms.
    `context_bytes_max` is how many bytes of JSON a context or a cursor may have, 16 MiB by default.
    `max_pollers` is how many threads poll at most, 64 by default: so many bodies that hang at once stop every
    trigger, and a warning comes before. `interruptions_max`, 20 by default and at least 1, is how many deaths
    of its process a task may have been cut off by: after one more it is taken for their cause and fails,
    whatever its retries; `@task(on_interrupt="fail")` fails at the first. `place_deaths_max`, 3 by default,
    is the same for deaths of the process or worker of an executor under its bodies, while this process lives.
    `timeout_grace_seconds`, 30 by default, is how long a body may go on once it was told to end, because its
    time is over or its run was cancelled: then its task fails for good, and the body is overdue.
    `overdue_max`, four times `max_concurrent_tasks` by default, is how many overdue bodies on threads may run
    on before no other task begins on one. `runs_in_hand` is how many unfinished runs that could go on this
    runner holds at most, of all its workflows together; the others lie in the store, where every runner that
    declares their workflow claims them. `None` is all of a workflow that no other runner declares, and else
    as many as can run at once and, while they are short, as many more as end in 50 ms.
    `keep_logs`, a size such as `"1 MiB"` or a number of bytes, keeps what bodies log with their runs, of each
    run the newest lines up to so much; `None` keeps nothing.
    `shutdown_seconds`, 30 by default, is how long `shutdown`, `run_forever` and the end of a `with` block
    wait for running bodies, unless they are told otherwise.
    These fifteen show in `to_dict` only when set.
    `scheduler_poll_interval_ms`, and on SQLite `db_pool_size`, are accepted and kept but change
    nothing: no loop looks for work here, and one connection writes.

    Raises:
        ConfigError: (a `ValueError`) a value that makes no sense; the message names the field.
        TypeError: an unknown field.
    """

    __slots__ = tuple(_DEFAULTS)
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    max_concurrent_tasks: int
    scheduler_poll_interval_ms: int
    task_timeout_seconds: float
    workflow_timeout_seconds: float
    db_pool_size: int
    enable_recovery: bool
    enable_cron_scheduling: bool
    cron_poll_interval_seconds: float
    cron_max_catchup_executions: int
    cron_enable_recovery: bool
    cron_recovery_interval_seconds: float
    cron_lost_threshold_minutes: int
    cron_max_recovery_age_seconds: float
    cron_max_recovery_attempts: int
    durability: Durability | None
    retention: Duration | None
    ticks_retention: Duration
    ticks_max: int
    timer_resolution: Duration | None
    context_bytes_max: int
    max_pollers: int
    interruptions_max: int
    max_async_tasks: int
    timeout_grace_seconds: float
    overdue_max: int | None
    place_deaths_max: int
    shutdown_seconds: float
    runs_in_hand: int | None
    keep_logs: str | int | None

    if not TYPE_CHECKING:

        def __new__(cls, *_: object, **fields: object) -> DefaultRunnerConfig:
            refuse_keywords("DefaultRunnerConfig", fields, _DEFAULTS)
            return object.__new__(cls)

    def __init__(
        self,
        *,
        max_concurrent_tasks: int | None = None,
        scheduler_poll_interval_ms: int | None = None,
        task_timeout_seconds: Duration | None = None,
        workflow_timeout_seconds: Duration | None = None,
        db_pool_size: int | None = None,
        enable_recovery: bool | None = None,
        enable_cron_scheduling: bool | None = None,
        cron_poll_interval_seconds: Duration | None = None,
        cron_max_catchup_executions: int | None = None,
        cron_enable_recovery: bool | None = None,
        cron_recovery_interval_seconds: Duration | None = None,
        cron_lost_threshold_minutes: int | None = None,
        cron_max_recovery_age_seconds: Duration | None = None,
        cron_max_recovery_attempts: int | None = None,
        durability: Durability | None = None,
        retention: Duration | None = None,
        ticks_retention: Duration | None = None,
        ticks_max: int | None = None,
        timer_resolution: Duration | None = None,
        context_bytes_max: int | None = None,
        max_pollers: int | None = None,
        interruptions_max: int | None = None,
        max_async_tasks: int | None = None,
        timeout_grace_seconds: Duration | None = None,
        overdue_max: int | None = None,
        place_deaths_max: int | None = None,
        shutdown_seconds: Duration | None = None,
        runs_in_hand: int | None = None,
        keep_logs: str | int | None = None,
    ) -> None:
        given = locals()
        for field in _DEFAULTS:
            setattr(self, field, given[field])

    @classmethod
    def default(cls) -> DefaultRunnerConfig:
        """The settings that a runner has without any."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Every field with its value, in the order documented."""
        fields = {field: getattr(self, field) for field in _DEFAULTS}
        return {
            field: value
            for field, value in fields.items()
            if value != _DEFAULTS[field] or field not in _BEYOND_UPSTREAM
        }

    def __setattr__(self, field: str, value: object) -> None:
        if field not in _DEFAULTS:
            raise AttributeError(
                f"DefaultRunnerConfig has no field {excerpt(field)}{hint(field, 'fields', _DEFAULTS)}"
            )
        object.__setattr__(self, field, _DEFAULTS[field] if value is None else _checked(field, value))

    def __delattr__(self, field: str) -> None:
        raise AttributeError(
            f"a field of DefaultRunnerConfig cannot be deleted; set {field} to None for its default"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DefaultRunnerConfig):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        fields = ", ".join(f"{field}={value!r}" for field, value in self.to_dict().items())
        return f"DefaultRunnerConfig({fields})"


def checked_config(config: object) -> DefaultRunnerConfig:
    """The settings themselves, or the defaults for `None`. Raises `ArgumentTypeError` for anything else."""
    if config is None:
        return DefaultRunnerConfig()
    if not isinstance(config, DefaultRunnerConfig):
        raise ArgumentTypeError(f"config is {excerpt(config)}; it must be a DefaultRunnerConfig")
    return config


def microseconds(config: DefaultRunnerConfig, field: str) -> int | None:
    """A field that is a duration, in microseconds."""
    value = getattr(config, field)
    return None if value is None else microseconds_of(value, field, smallest_us=_DURATIONS_US[field][0])


def _checked(field: str, value: object) -> object:
    if field == "durability":
        return _checked_durability(value)
    if field in _DURATIONS_US:
        return _checked_duration(field, value)
    if field == "keep_logs":
        bytes_of(value, field)
        return value
    if isinstance(_DEFAULTS[field], bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{field} is {excerpt(value)}; it must be True or False")
        return value
    return _checked_number(field, value)


def _checked_number(field: str, value: object) -> object:
    fraction = field.endswith("_seconds")
    if fraction and not isinstance(value, (int, float)):
        value = _seconds(field, value)
    kinds = (int, float) if fraction else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ConfigError(f"{field} is {excerpt(value)}; it must be {'a number' if fraction else 'an int'}")
    if field in _MAY_BE_ZERO and value == 0:
        return value
    if not 0 < value <= _LARGEST:
        least = "at least 0" if field in _MAY_BE_ZERO else "above 0"
        raise ConfigError(f"{field} is {excerpt(value)}; it must be {least} and at most {_LARGEST}")
    return value


def _seconds(field: str, value: Any) -> float:
    """A duration as the number that the field is. One that is too short or too long is told in seconds."""
    try:
        span_us = microseconds_of(value, field, smallest_us=0)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    whole, rest = divmod(span_us, 1_000_000)
    return span_us / 1_000_000 if rest else whole


def _checked_durability(value: object) -> object:
    if value not in ("full", "normal"):
        raise ConfigError(f"durability is {excerpt(value)}; it must be 'full', 'normal' or None")
    return value


def _checked_duration(field: str, value: Any) -> object:
    smallest_us, largest_us = _DURATIONS_US[field]
    try:
        span_us = microseconds_of(value, field, smallest_us=smallest_us)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if span_us > largest_us:
        raise ConfigError(f"{field} is {text_of(span_us)}; the largest is {text_of(largest_us)}")
    return value
