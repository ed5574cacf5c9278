"""What `@trigger` checks of its arguments, each by itself.

Knows no registry. Invariant: what passed is as the engine takes it; what did not was named with the way out.
"""

from __future__ import annotations

from .duration import microseconds_of
from .errors import ScheduleError, TriggerError, excerpt, typed
from .name import checked_name, is_text
from .near import hint
from .places import BUILT_IN
from .policy import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .types import Duration

STATUSES = ("Completed", "Failed", "Cancelled")
OVERLAPS = ("allow", "skip", "queue", "buffer_one", "cancel_running")
CATCHUPS = ("all", "last", "none")
_CRON_CHARS_MAX = 500


def refuse_without_cron(timezone: object, jitter_us: int, jitter: Duration | None, interval_us: int) -> None:
    """Refuses what only a cron takes, and a jitter that is longer than the interval."""
    if timezone is not None:
        raise TriggerError(
            f"timezone is {excerpt(timezone)} without cron; polling knows no time zone, give both"
        )
    if jitter_us > interval_us:
        raise TriggerError(f"jitter is {excerpt(jitter)}; it must not be longer than the poll interval")


def checked_cron(cron: object) -> str | None:
    """A cron expression with single blanks; how its fields read is the engine's to say."""
    if cron is None:
        return None
    form = '5 fields, 6 with seconds in front, or "@daily" and the like'
    if not isinstance(cron, str) or not is_text(cron):
        raise ScheduleError(f"cron is {excerpt(cron)}, {typed(cron)}; write {form}")
    fields = cron.split()
    if len(cron) > _CRON_CHARS_MAX or not (
        len(fields) in (5, 6) or (len(fields) == 1 and fields[0][0] == "@")
    ):
        raise ScheduleError(f"cron is {excerpt(cron)}; write {form}")
    return " ".join(fields)


def checked_timezone(timezone: object) -> str:
    """The name of a time zone; UTC if none is given."""
    if timezone is None:
        return "UTC"
    if not isinstance(timezone, str) or not timezone.strip() or not is_text(timezone):
        raise ScheduleError(f'timezone is {excerpt(timezone)}; write a name such as "Europe/Berlin"')
    return timezone.strip()


def checked_flag(value: object, name: str) -> bool:
    """A `bool`, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise TriggerError(f"{name} is {excerpt(value)}; it must be True or False")
    return value


def jitter_us(jitter: Duration | None, interval_us: int) -> int:
    """A duration, or a share of the interval, in microseconds."""
    if jitter is None:
        return 0
    if isinstance(jitter, str) and jitter.strip().endswith("%"):
        return round(interval_us * _share(jitter))
    return microseconds_of(jitter, "jitter", smallest_us=0)


def _share(jitter: str) -> float:
    try:
        percent = float(jitter.strip()[:-1])
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise TriggerError(f'jitter is {excerpt(jitter)}; write a share from "0%" to "100%", or a duration')
    return percent / 100


def checked_overlap(overlap: object) -> str | None:
    """One of `OVERLAPS`, or `None`."""
    if overlap is None or (isinstance(overlap, str) and overlap in OVERLAPS):
        return overlap
    raise TriggerError(f"overlap is {excerpt(overlap)}; it must be {', '.join(OVERLAPS)}")


def checked_catchup(catchup: object, cron: object) -> str | None:
    """One of `CATCHUPS`, or `None`; only beside a cron."""
    if catchup is None or (isinstance(catchup, str) and catchup in CATCHUPS):
        if catchup is not None and cron is None:
            raise TriggerError(f"catchup is {excerpt(catchup)} without cron; a polled trigger has no moments")
        return catchup
    raise TriggerError(f"catchup is {excerpt(catchup)}; it must be {', '.join(CATCHUPS)}")


def checked_statuses(status: object, on_run: object) -> tuple[str, ...]:
    """Of which ends a trigger wants to hear: all if nothing is said, none without `on_run`."""
    if status is None:
        return () if on_run is None else STATUSES
    if on_run is None:
        raise TriggerError(
            f"status is {excerpt(status)} without on_run; say of whose runs' ends with on_run=..., or leave"
            " status out"
        )
    given = (status,) if isinstance(status, str) else status
    if not isinstance(given, list | tuple | set | frozenset) or not given:
        shown = excerpt(list(given) if given == () else status)
        raise TriggerError(f"status is {shown}; it must be one of {', '.join(STATUSES)}, or a list of them")
    for each in given:
        if each not in STATUSES:
            known = hint(each, "statuses", STATUSES) if isinstance(each, str) else ""
            raise TriggerError(f"status has {excerpt(each)}, which is no end of a run{known}")
    return tuple(each for each in STATUSES if each in given)


def refuse_for_ends(on_run: str, **settings: object) -> None:
    """Refuses what only a polled trigger or a cron takes, beside `on_run`."""
    for name, value in settings.items():
        if value is not None:
            raise TriggerError(
                f"{name} is {excerpt(value)} and on_run is {excerpt(on_run)}; a trigger with on_run is called"
                " when a run ends, and at no other time, leave one out"
            )


def checked_executor(executor: object) -> str | None:
    """The name of a place to run that not every runner has, or `None`."""
    if executor is None:
        return None
    name = checked_name(executor, "executor", TriggerError)
    if name in BUILT_IN:
        raise TriggerError(
            f'executor is "{name}"; an async trigger is polled on the loop and any other on a thread by'
            " itself: leave it out, or name one of DefaultRunner(executors=...)"
        )
    return name


def checked_failures(value: object) -> int | None:
    """A number of polls from 1, or `None`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**31 - 1:
        raise TriggerError(
            f"max_consecutive_failures is {excerpt(value)}; it must be an int from 1 to {2**31 - 1}, or None"
        )
    return int(value)


def checked_backoff(value: object) -> Backoff | None:
    """A `Backoff`, or `None`."""
    if value is None or isinstance(value, Backoff):
        return value
    raise TriggerError(
        f"on_error is {excerpt(value)}; it must be a Backoff, as cloaca.Backoff(base='5s') makes"
    )


def refuse_polling(**settings: object) -> None:
    """Refuses settings of polls beside a cron."""
    given = [name for name, value in settings.items() if value is not None]
    if given:
        raise TriggerError(
            f"{', '.join(given)} and cron are given; a trigger with cron is not polled, leave one out"
        )
