"""Random cron expressions are due when croniter says so, in seven zones and over changes of daylight saving.

croniter is asked in naive local time, and its answer is put into the zone here: what it makes of gaps and
folds itself is another rule than ours, which `rust/core/tests/cron.rs` holds against a model of its own. So a
local time that a change skips or repeats says nothing here, and neither does an expression of elapsed time (a
`*` in front of the minutes or hours) with a change in between.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import croniter
from hypothesis import assume, given
from hypothesis import strategies as st

import cloaca
from cloaca.testing import Runner

ZONES = {
    "UTC": ["2026-02-28T12:00:00", "2028-02-28T12:00:00"],
    "Europe/Berlin": ["2026-03-29T01:00:00", "2026-10-25T01:00:00"],
    "America/New_York": ["2026-03-08T07:00:00", "2026-11-01T06:00:00"],
    "Australia/Sydney": ["2026-04-04T16:00:00", "2026-10-03T16:00:00"],
    "Australia/Lord_Howe": ["2026-04-04T15:00:00", "2026-10-03T15:30:00"],
    "America/Santiago": ["2026-04-05T03:00:00", "2026-09-06T04:00:00"],
    "Asia/Kolkata": ["2026-06-30T18:30:00"],
}


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high).map(str)
    # croniter reads `0-0` as a whole week.
    ends = st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True)
    span = ends.map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(one, st.lists(st.one_of(one, span), min_size=1, max_size=3).map(",".join))


def field(low: int, high: int, steps: list[int]) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), numbers(low, high), st.sampled_from(steps).map(lambda step: f"*/{step}"))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    minute = draw(field(0, 59, [5, 7, 15, 30]))
    hour = draw(field(0, 23, [2, 3, 6]))
    month = draw(st.one_of(st.just("*"), numbers(1, 12)))
    # croniter takes `*/2` in a day field for a restriction, Vixie cron and cloaca do not.
    day = draw(st.one_of(st.just("*"), numbers(1, 28)))
    weekday = draw(st.one_of(st.just("*"), numbers(0, 6)))
    return f"{minute} {hour} {day} {month} {weekday}"


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime]:
    zone = draw(st.sampled_from(sorted(ZONES)))
    change = datetime.fromisoformat(draw(st.sampled_from(ZONES[zone]))).replace(tzinfo=UTC)
    return zone, change + timedelta(seconds=draw(st.integers(-3 * 86_400, 3 * 86_400)))


def is_plain(local: datetime, zone: ZoneInfo) -> bool:
    """Whether this local time comes exactly once."""
    early, late = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    return early.utcoffset() == late.utcoffset() and early.astimezone(UTC).astimezone(zone) == early


def crosses_a_change(start: datetime, end: datetime, zone: ZoneInfo) -> bool:
    moment, offset = start, start.astimezone(zone).utcoffset()
    while moment < end:
        moment = min(moment + timedelta(hours=1), end)
        if moment.astimezone(zone).utcoffset() != offset:
            return True
    return False


@given(expression=expressions(), moment=moments())
def test_the_next_run_is_when_croniter_says(expression: str, moment: tuple[str, datetime]) -> None:
    name, start = moment
    zone = ZoneInfo(name)
    local = start.astimezone(zone).replace(tzinfo=None)
    assume(is_plain(local, zone))
    answer: datetime = croniter(expression, local).get_next(datetime)
    assume(answer.year < 2040 and is_plain(answer, zone))
    due = answer.replace(tzinfo=zone).astimezone(UTC)
    # A change on the way may add a time that croniter, in naive time, does not know.
    minute, hour = expression.split()[:2]
    is_fixed = not minute.startswith("*") and not hour.startswith("*")
    assume(due - start < timedelta(days=400) or is_fixed)
    assume(
        not crosses_a_change(start, min(due, start + timedelta(days=7)), zone)
        or is_fixed_and_clear(expression, start, due, zone, is_fixed)
    )
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with Runner(start=start) as runner:
        schedule = runner.get_cron_schedule(runner.register_cron_workflow("w", expression, name))
    assert datetime.fromisoformat(schedule["next_run_at"]) == due


def is_fixed_and_clear(
    expression: str, start: datetime, due: datetime, zone: ZoneInfo, is_fixed: bool
) -> bool:
    """Whether no fixed time of the expression falls into a gap or a fold between the two moments."""
    if not is_fixed:
        return False
    moment = start
    while moment < due and moment < start + timedelta(days=7):
        later = moment + timedelta(hours=1)
        before, after = moment.astimezone(zone), later.astimezone(zone)
        if before.utcoffset() != after.utcoffset():
            around = croniter(expression, before.replace(tzinfo=None) - timedelta(hours=3))
            for _ in range(400):
                local: datetime = around.get_next(datetime)
                if local > after.replace(tzinfo=None) + timedelta(hours=3):
                    break
                if not is_plain(local, zone):
                    return False
        moment = later
    return True
