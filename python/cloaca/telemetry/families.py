"""Which metrics there are: what they are called, what they mean, and where each comes from.

Decides only that. What a runner counts begins with it, grows, and adds up over processes; what is said of the
store (`cloaca_store_`) is the same whoever says it.
Invariant: so many names of a kind stand in labels, all others together as `other`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

from .. import __version__, rows
from ..types import HealthCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ..types import Health

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Took: TypeAlias = tuple[Sequence[int], int, float]
"""So many took no longer than each bound, so many in all, and the seconds that they took together."""

OTHER = "other"
NAMES_MAX = 100
_STATES = ("living", "paused", "draining", "dead")
"""So many workflows, limits and runners of a store are named."""
RUNNERS_MAX = 1000
BACKLOG_RUNS = 10_000
"""Of so many runs that are not over it is counted whose they are."""
ENDS_MAX = 1000
"""So many ends of runs that somebody is to be told of are counted for each."""
GIVEN_UP_MAX = 10_000
"""So many of those that were given up within a day are counted."""
TRIGGERS_MAX = 10_000
"""Of so many triggers, and as many crons, it is looked whether they fail or are switched off."""
FAILED_MAX = 10_000
"""So many of the runs that failed within an hour are counted."""
PAUSES_MAX = 10_000
"""So many pauses are counted."""
FAILED_US = 3_600_000_000
GIVEN_UP_US = 24 * FAILED_US

_HEALTHY = "Whether all is well: whether triggers are polled and runs begin; 0 if it cannot be found out."

# By the primary key of listeners, then of each by ends_due and ends_owner. Also of what has none: a series
# that appears only with the first one says nothing of how long it is there.
_OF_ONE = """SELECT {} FROM ends INDEXED BY ends_due
            WHERE owner IS NULL AND listener = 0 AND ends.workflow = listeners.workflow LIMIT ?1"""
_CALLS = f"""
    SELECT name, sum(many) AS many, sum(failing) AS failing FROM (
        SELECT workflow AS name, (SELECT count(*) FROM ({_OF_ONE.format("1")}) AS counted) AS many,
            (SELECT count(*) FROM ({_OF_ONE.format("tries, error")}) AS counted
            WHERE tries > 1 AND error IS NOT NULL) AS failing
        FROM listeners WHERE listener = 0
        UNION ALL SELECT workflow, 1, CASE WHEN tries > 1 AND error IS NOT NULL THEN 1 ELSE 0 END
        FROM ends INDEXED BY ends_owner WHERE owner IS NOT NULL AND listener = 0
    ) AS told GROUP BY name"""
# The same of triggers by listeners_listener, then by ends_listener.
_TOLD = """
    SELECT schedules.name AS name, sum((
        SELECT count(*) FROM (
            SELECT 1 FROM ends INDEXED BY ends_listener
            WHERE listener <> 0 AND ends.listener = schedules.row LIMIT ?1
        ) AS counted
    )) AS many
    FROM schedules WHERE row IN (SELECT listener FROM listeners WHERE listener <> 0)
    GROUP BY schedules.name"""

# By schedules_trigger and schedules_crons, then by their rows. What failures have switched off counts as
# failing, too; a name that a deploy made something else of does not count.
_SCHEDULES = f"""
    SELECT name, sum(CASE WHEN fails THEN 1 ELSE 0 END) AS failing,
        sum(CASE WHEN enabled THEN 0 ELSE 1 END) AS switched_off
    FROM (
        SELECT schedules.name AS name, enabled,
            failures > 0 AND (enabled OR disabled_cause IS NOT NULL) AS fails
        FROM (
            SELECT row FROM schedules INDEXED BY schedules_trigger WHERE kind = 'trigger'
            ORDER BY name LIMIT ?1
        ) AS found JOIN schedules ON schedules.row = found.row
        WHERE (failures > 0 OR NOT enabled) AND NOT {rows.CRON_BY_NOW}
        UNION ALL
        SELECT coalesce(nullif(schedules.name, ''), schedules.workflow), enabled,
            failures > 0 AND (enabled OR disabled_cause IS NOT NULL)
        FROM (
            SELECT row FROM schedules INDEXED BY schedules_crons WHERE kind = 'cron'
            ORDER BY row LIMIT ?1
        ) AS found JOIN schedules ON schedules.row = found.row
        WHERE (failures > 0 OR NOT enabled) AND NOT {rows.TRIGGER_BY_NOW}
    ) AS named GROUP BY name"""
# The primary key of pauses; of a workflow that is paused whole its row without a key, else one for each key.
_PAUSED = """
    SELECT name, count(*) AS many FROM (
        SELECT name FROM pauses WHERE kind IN ('workflow', 'key') AND (until IS NULL OR until > ?1) LIMIT ?2
    ) AS paused GROUP BY name"""
# The primary key of workflows, so that one is at 0 again once its runs were retried, and runs_failed_ends.
_FAILED = """
    SELECT name, sum(many) AS many FROM (
        SELECT DISTINCT name, 0 AS many FROM workflows
        UNION ALL SELECT workflow, 1 FROM (
            SELECT workflow FROM runs INDEXED BY runs_failed_ends
            WHERE error_type IS NOT NULL AND completed_at >= ?1 AND status = 'Failed'
            ORDER BY completed_at DESC LIMIT ?2
        ) AS failed
    ) AS counted GROUP BY name"""


# The primary key of listeners, so that one is at 0 again, and runs_lost.
_GIVEN_UP = """
    SELECT name, sum(many) AS many FROM (
        SELECT workflow AS name, 0 AS many FROM listeners WHERE listener = 0
        UNION ALL SELECT workflow, 1 FROM (
            SELECT workflow FROM runs INDEXED BY runs_lost
            WHERE (told_as = 'dropped' OR told_as = 'given_up') AND told_as = 'given_up' AND told_at >= ?1
            ORDER BY told_at DESC LIMIT ?2
        ) AS given_up
    ) AS counted GROUP BY name"""


class Family(NamedTuple):
    """All series of one name.

    Attributes:
        name (str): without `_total`, which a counter has in addition.
        kind (str): `counter`, `gauge` or `histogram`.
        about (str): what it means.
        labels (tuple): the names of its labels.
        values (dict): by the values of its labels: a number, or what a histogram has.
        bounds (list): what the buckets of a histogram end with, in seconds.
    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...]
    values: dict[tuple[str, ...], Any]
    bounds: Sequence[float] = ()


def _summed(
    name: str,
    kind: Kind,
    about: str,
    labels: tuple[str, ...] = (),
    values: Iterable[tuple[tuple[str, ...], Any]] = (),
    bounds: Sequence[float] = (),
) -> Family:
    """A family in which what has the same labels is one: a trigger may be called `other`, too."""
    sums: dict[tuple[str, ...], Any] = {}
    for key, value in values:
        known = sums.get(key)
        if known is None:
            sums[key] = value
        elif isinstance(value, tuple):
            buckets = [one + other for one, other in zip(known[0], value[0], strict=True)]
            sums[key] = (buckets, known[1] + value[1], known[2] + value[2])
        else:
            sums[key] = known + value
    return Family(name, kind, about, labels, sums, bounds)


def build() -> Family:
    """What is running here."""
    python = ".".join(map(str, sys.version_info[:3]))
    about = "Which version of cloaca, and of Python, this is."
    return Family("cloaca_build_info", "gauge", about, ("version", "python"), {(__version__, python): 1})


def of_runner(found: dict[str, Any]) -> Iterator[Family]:
    """What a runner has counted since it was made."""

    def one(name: str, kind: Kind, about: str, key: str) -> Family:
        return Family(f"cloaca_{name}", kind, about, (), {(): found[key]})

    def took(name: str, about: str, key: str) -> Family:
        return Family(f"cloaca_{name}_seconds", "histogram", about, (), {(): found[key]}, found["bounds"])

    yield from _polls(found)
    yield one("polls_missed", "counter", "Due times that passed while their trigger was polled.", "missed")
    yield took("poll_duration", "How long polls took, from their call to their answer.", "took")
    yield took("poll_lateness", "How long after their due time polls began.", "late")
    yield from _fires(found["fires"])
    yield from _calls(found["calls"])
    yield one(
        "runs_started", "counter", "Runs that this runner has asked for, and that were kept.", "started"
    )
    yield from _runs(found["runs"], found["bounds"])
    about = "Runs that a workflow's limits have dropped, by the rule."
    limited = {("concurrency",): 0, ("rate_limit",): 0} | {(rule,): many for rule, many in found["limited"]}
    yield Family("cloaca_runs_limited", "counter", about, ("rule",), limited)
    yield one("runs_in_hand", "gauge", "Runs that are not over and that this runner drives.", "in_hand")
    about = "Runs that this runner has taken over from runners that are gone."
    yield one("runs_taken_over", "counter", about, "taken_over")
    yield from _tasks(found["tasks"], found["bounds"])
    yield one("bodies_overdue", "gauge", "Bodies still running that nobody waits for any more.", "overdue")
    yield took("commit_duration", "How long commits took.", "commits")
    yield one("commit_changes", "counter", "Changes that were in all commits together.", "changes")
    yield one("commit_refusals", "counter", "How often the store took nothing at first.", "refusals")


def _polls(found: dict[str, Any]) -> Iterator[Family]:
    named = found["triggers"]
    for at, name, about in (
        (1, "polls", "Polls that ended."),
        (2, "poll_skips", "Polls that answered to skip."),
    ):
        values = [((row[0],), row[at]) for row in named]
        left = found["polls" if at == 1 else "skips"] - sum(value for _, value in values)
        if left > 0:
            values.append(((OTHER,), left))
        yield _summed(f"cloaca_{name}", "counter", about, ("trigger",), values)


def _fires(found: list[tuple[str | None, list[int], int | None]]) -> Iterator[Family]:
    for at, name, about in (
        (0, "fires", "Fires that polls asked for; of an empty trigger what was asked for without one."),
        (1, "fires_deduplicated", "Fires dropped because an equal one was unfinished, or its key used up."),
        (2, "fires_dropped", "Fires dropped by overlap, or by limits of their workflow."),
        (3, "fires_held_back", "Fires with a cursor not tried, because one before them was dropped."),
        (4, "poll_errors", "Polls that raised or timed out, and fires that could not start."),
    ):
        values = [((OTHER if name is None else name,), counts[at]) for name, counts, _ in found]
        yield _summed(f"cloaca_{name}", "counter", about, ("trigger",), values)
    about = "Ends of runs that a trigger with on_run has been told of."
    ends = [((OTHER if name is None else name,), many) for name, _, many in found if many is not None]
    yield _summed("cloaca_run_ends_told", "counter", about, ("trigger",), ends)


def _calls(found: list[tuple[str | None, list[int]]]) -> Iterator[Family]:
    for at, name, about in (
        (0, "called", "Calls of callbacks for ends of runs that came back, whatever came of them."),
        (1, "failed", "Calls of callbacks for ends of runs that raised."),
        (2, "given_up", "Ends of runs for which no callback is called any more, though no call went well."),
    ):
        values = [((OTHER if name is None else name,), counts[at]) for name, counts in found]
        yield _summed(f"cloaca_callbacks_{name}", "counter", about, ("workflow",), values)


def _runs(found: list[tuple[str | None, list[Took]]], bounds: Sequence[float]) -> Iterator[Family]:
    ended: list[tuple[tuple[str, ...], Took]] = []
    waits: list[tuple[tuple[str, ...], Took]] = []
    for name, (*by_status, wait) in found:
        workflow = OTHER if name is None else name
        for status, took in zip(("Completed", "Failed", "Cancelled"), by_status, strict=True):
            ended.append(((workflow, status), took))
        waits.append(((workflow,), wait))
    about = "How long runs took, from their commit to their end."
    labels = ("workflow", "status")
    yield _summed("cloaca_run_duration_seconds", "histogram", about, labels, ended, bounds)
    about = "How long runs waited from their commit to their first task; a delay that was asked for is in it."
    yield _summed("cloaca_run_wait_seconds", "histogram", about, ("workflow",), waits, bounds)


def _tasks(found: list[tuple[Any, Any, int, Took, Took]], bounds: Sequence[float]) -> Iterator[Family]:
    by_outcome: list[tuple[tuple[str, ...], int]] = []
    retries: list[tuple[tuple[str, ...], int]] = []
    attempts: list[tuple[tuple[str, ...], Took]] = []
    tasks: list[tuple[tuple[str, ...], Took]] = []
    for name, outcomes, retried, attempted, took in found:
        key = (OTHER, OTHER) if name is None else tuple(name)
        by_outcome += [((*key, outcome), many) for outcome, many in outcomes]
        retries.append((key, retried))
        attempts.append((key, attempted))
        tasks.append((key, took))
    labels = ("workflow", "task")
    about = "Attempts of tasks that ended, by how."
    yield _summed("cloaca_task_attempts", "counter", about, (*labels, "outcome"), by_outcome)
    about = "Attempts that failed and were followed by another."
    yield _summed("cloaca_task_retries", "counter", about, labels, retries)
    about = "How long attempts of tasks took."
    yield _summed("cloaca_task_attempt_duration_seconds", "histogram", about, labels, attempts, bounds)
    about = "How long tasks took, from the beginning of their first attempt to the end of their last."
    yield _summed("cloaca_task_duration_seconds", "histogram", about, labels, tasks, bounds)


def unread() -> Family:
    """Of a store that cannot be read, or does not answer: that all is not well, and nothing else."""
    return Family("cloaca_store_healthy", "gauge", _HEALTHY, (), {(): 0})


class _Nothing:
    """A store without anything in it."""

    def query(self, sql: str, params: Sequence[object]) -> list[dict[str, Any]]:
        return []

    def owners(self, limit: int, since_us: int) -> list[dict[str, Any]]:
        return []

    def backlog(self, limit: int) -> list[dict[str, Any]]:
        return []

    def limits(self) -> list[dict[str, Any]]:
        return []


def heads_of_store() -> Iterator[Family]:
    """Which metrics there are of a store, without a look at one."""
    well: Any = {"ok": True, "reasons": [], "runs_waiting": 0, "oldest_seconds": None}
    return of_store(_Nothing(), well, 0)


def of_store(native: Any, health: Health, at_us: int) -> Iterator[Family]:
    """How a store stands at that time, by what reads it, a runner's or a reader's, and its health."""

    def gauge(name: str, about: str, labels: tuple[str, ...], values: Iterable[Any]) -> Family:
        return _summed(f"cloaca_store_{name}", "gauge", about, labels, values)

    found = native.owners(RUNNERS_MAX, int(time.time() * 1e6))
    here = [row for row in found if row["left_at"] is None]
    counts = {(state, works): 0 for state in _STATES for works in ("yes", "no")}
    for row in here:
        counts[rows.state_of(row), "yes" if row["works"] else "no"] += 1
    about = 'Runners that have not left, by whether they live; works="no" are clients.'
    yield gauge("runners", about, ("state", "works"), counts.items())
    numbers = rows.living(found)
    working = [
        ((str(row["number"]), row["name"] or ""), row["polls"]) for row in here if row["number"] in numbers
    ]
    about = "Triggers that are switched on, by the living runner that polls them."
    yield gauge("triggers_polled", about, ("runner", "name"), _bounded(working))
    schedules = native.query(_SCHEDULES, [TRIGGERS_MAX])
    for key, told in (("failing", "whose last poll failed"), ("switched_off", "that is switched off")):
        about = f"1 of each trigger and cron {told}; the first {TRIGGERS_MAX:,} are looked at."
        yield gauge(f"triggers_{key}", about, ("trigger",), _named(schedules, key))
    about = (
        "How many pauses hold a workflow's runs: 1 of one that is paused whole, and one for each paused key."
    )
    yield gauge("workflows_paused", about, ("workflow",), _named(native.query(_PAUSED, [at_us, PAUSES_MAX])))

    yield gauge("healthy", _HEALTHY, (), [((), int(health["ok"]))])
    troubles = {(code,): 0 for code in get_args(HealthCode)}
    troubles |= {(reason["code"],): max(1, reason["count"]) for reason in health["reasons"]}
    about = "Of what is wrong, by its code, how much; 0 of what is well."
    yield gauge("trouble", about, ("code",), troubles.items())
    about = "Runs in nobody's hands that are due, or held by limits."
    yield gauge("runs_waiting", about, (), [((), health["runs_waiting"])])
    about = "How long the oldest of these waits; 0 without one."
    yield gauge("oldest_waiting_run_age_seconds", about, (), [((), health["oldest_seconds"] or 0.0)])
    about = (
        f"Runs that are not over, among the oldest {BACKLOG_RUNS:,}, by whether one of their tasks has begun,"
        f" and those that wait for their time, among the next {BACKLOG_RUNS:,}."
    )
    unfinished: dict[str, list[int]] = {}
    for row in native.backlog(BACKLOG_RUNS):
        sums = unfinished.setdefault(row["workflow"], [0, 0, 0])
        for place, kind in enumerate(("pending", "running", "delayed")):
            sums[place] += row[kind]
    values = [
        ((name, status), many)
        for name, sums in _capped(unfinished.items())
        for status, many in zip(("Pending", "Running", "Delayed"), sums, strict=True)
    ]
    yield gauge("runs_unfinished", about, ("workflow", "status"), values)
    about = (
        f"Runs that failed within an hour and were not retried since; the newest {FAILED_MAX:,} are counted."
    )
    failed = native.query(_FAILED, [at_us - FAILED_US, FAILED_MAX])
    yield gauge("runs_failed", about, ("workflow",), _whole(failed, FAILED_MAX))
    yield from _ends(gauge, native, at_us)
    yield from _limits(gauge, native.limits())


def _ends(gauge: Any, native: Any, at_us: int) -> Iterator[Family]:
    about = f"Ends of runs of which callbacks are still to be told, at most {ENDS_MAX:,} of a workflow."
    calls = native.query(_CALLS, [ENDS_MAX])
    yield gauge("callbacks_waiting", about, ("workflow",), _named(calls, is_zero_told=True))
    about = "Those of them whose callback raised, or ended its process, at more than one call."
    yield gauge("callbacks_failing", about, ("workflow",), _named(calls, "failing", is_zero_told=True))
    about = "Ends of runs of which no callback is told any more, as it was given up within a day."
    given_up = native.query(_GIVEN_UP, [at_us - GIVEN_UP_US, GIVEN_UP_MAX])
    yield gauge("callbacks_given_up", about, ("workflow",), _whole(given_up, GIVEN_UP_MAX))
    about = f"Ends of runs of which triggers are still to be told, at most {ENDS_MAX:,} of one."
    told = native.query(_TOLD, [ENDS_MAX])
    yield gauge("run_ends_waiting", about, ("trigger",), _named(told, is_zero_told=True))


def _limits(gauge: Any, found: list[dict[str, Any]]) -> Iterator[Family]:
    for key, name, about in (
        ("taken", "executing", "Attempts that have a seat under a limit with a name."),
        ("waiting", "waiting", "Attempts that wait for one."),
    ):
        values = [((row["name"],), row[key]) for row in found]
        yield gauge(f"limit_{name}", about, ("limit",), _bounded(values))
    about = "How many may have a seat; none of a limit that bounds only how fast."
    bounded = [row for row in found if row["terms"]["concurrency"] is not None]
    values = [((row["name"],), row["terms"]["concurrency"]) for row in bounded[:NAMES_MAX]]
    yield gauge("limit_concurrency", about, ("limit",), values)
    about = "Whether a limit is paused."
    values = [((row["name"],), int(row["pause"] is not None)) for row in found[:NAMES_MAX]]
    yield gauge("limit_paused", about, ("limit",), values)


def _bounded(found: Sequence[tuple[tuple[str, ...], Any]]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The first so many, and all others as one."""
    for at, (key, value) in enumerate(found):
        yield (key if at < NAMES_MAX else (OTHER,) * len(key)), value


def _named(
    found: Iterable[dict[str, Any]], key: str = "many", *, is_zero_told: bool = False
) -> Iterator[tuple[tuple[str, ...], int]]:
    """Counts by names, the first so many by themselves."""
    counts = [(row["name"], [row[key]]) for row in found if row[key] or is_zero_told]
    return (((name,), many) for name, (many,) in _capped(counts))


def _whole(found: list[dict[str, Any]], most: int) -> Iterator[tuple[tuple[str, ...], int]]:
    """The same of what is counted to so many; of whom none is among those it is not known."""
    return _named(found, is_zero_told=sum(row["many"] for row in found) < most)


def _capped(found: Iterable[tuple[str, list[int]]]) -> Iterator[tuple[str, list[int]]]:
    for at, (name, sums) in enumerate(sorted(found)):
        yield (name if at < NAMES_MAX else OTHER), sums
