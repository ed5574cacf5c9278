"""How much goes on: runs and polls a minute, and how long tasks take.

Invariant: each look walks an index, newest first, and ends at a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

from .store import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Reader

RUNS_MAX = 20_000
"""So many runs are counted, the newest."""
TICKS_MAX = 2000
"""So many stretches of polls are looked at, the newest."""
LASTED_RUNS = 1000
"""Of so many runs of a workflow it is told how long their tasks took."""
LASTED_ROWS = 5000
"""And of no more tasks of them than that."""
MINUTE_US = 60_000_000

_CREATED = """
    SELECT (?1 - created_at) / 60000000 AS ago, count(*) AS many FROM (
        SELECT created_at FROM runs INDEXED BY runs_created
        WHERE created_at > ?2 AND created_at <= ?1 ORDER BY created_at DESC LIMIT ?3
    ) AS found GROUP BY ago"""
# Of each kind the newest, as the index has them.
_FAILED = """
    SELECT (?1 - created_at) / 60000000 AS ago, count(*) AS many FROM (
        SELECT created_at FROM (
            SELECT created_at FROM runs INDEXED BY runs_failed
            WHERE error_type IS NOT NULL AND status = 'Failed' AND created_at > ?2 AND created_at <= ?1
            ORDER BY created_at DESC LIMIT ?3
        ) AS failed
        UNION ALL SELECT created_at FROM (
            SELECT created_at FROM runs INDEXED BY runs_failed
            WHERE error_type IS NOT NULL AND status = 'Cancelled' AND created_at > ?2 AND created_at <= ?1
            ORDER BY created_at DESC LIMIT ?3
        ) AS cancelled
    ) AS found GROUP BY ago"""
_POLLED = """
    SELECT count, first_at, last_at FROM ticks ORDER BY row DESC LIMIT ?"""
_LASTED = """
    SELECT tasks.name, tasks.completed_at - tasks.started_at AS lasted FROM (
        SELECT row FROM runs INDEXED BY runs_workflow WHERE workflow = ?1 ORDER BY created_at DESC LIMIT ?2
    ) AS newest CROSS JOIN tasks
    WHERE tasks.run = newest.row AND tasks.status = 'Completed'
        AND tasks.started_at IS NOT NULL AND tasks.completed_at IS NOT NULL
    LIMIT ?3"""


@dataclass(frozen=True, slots=True)
class Pace:
    """Counts of the last minutes, the oldest first; the last one is the minute up to now.

    Attributes:
        runs (list[int]): runs that were created.
        failed (list[int]): those of them that failed or were cancelled.
        polls (list[int]): polls on record; a long stretch of equal ones is spread over its time.
    """

    runs: list[int]
    failed: list[int]
    polls: list[int]


@dataclass(frozen=True, slots=True)
class Lasted:
    """How long a task took where it completed.

    Attributes:
        task (str): its id.
        count (int): so many were looked at.
        p50_us, p95_us (int): half of them took no longer, and 95 of 100, in microseconds.
    """

    task: str
    count: int
    p50_us: int
    p95_us: int


def pace(reader: Reader, minutes: int = 60) -> Pace:
    """What went on in the last minutes."""
    at = int(now().timestamp() * 1_000_000)
    since = at - minutes * MINUTE_US
    query = reader.native.query
    return Pace(
        runs=_minutes(query(_CREATED, [at, since, RUNS_MAX]), minutes),
        failed=_minutes(query(_FAILED, [at, since, RUNS_MAX]), minutes),
        polls=_spread(query(_POLLED, [TICKS_MAX]), at, minutes),
    )


def _minutes(rows: list[dict[str, int]], minutes: int) -> list[int]:
    found = [0] * minutes
    for row in rows:
        if 0 <= row["ago"] < minutes:
            found[minutes - 1 - row["ago"]] = row["many"]
    return found


def _spread(rows: list[dict[str, int]], at: int, minutes: int) -> list[int]:
    found = [0.0] * minutes
    start = at - minutes * MINUTE_US
    for row in rows:
        first, last = row["first_at"], max(row["last_at"], row["first_at"])
        if last < start or first > at:
            continue
        each = row["count"] / (last - first + 1)
        for minute in range(
            max(0, (first - start) // MINUTE_US), min(minutes - 1, (last - start) // MINUTE_US) + 1
        ):
            begins = start + minute * MINUTE_US
            within = min(last + 1, begins + MINUTE_US) - max(first, begins)
            found[minute] += each * max(0, within)
    return [round(value) for value in found]


def lasted(reader: Reader, workflow: str) -> list[Lasted]:
    """How long the tasks of a workflow took, over its last 1,000 runs."""
    text = workflow.encode("utf-8", "replace").decode()
    taken: dict[str, list[int]] = {}
    for row in reader.native.query(_LASTED, [text, LASTED_RUNS, LASTED_ROWS]):
        taken.setdefault(row["name"], []).append(max(0, row["lasted"]))
    found = []
    for task, spans in taken.items():
        spans.sort()
        found.append(Lasted(task, len(spans), _part(spans, 0.5), _part(spans, 0.95)))
    return found


def _part(ordered: list[int], part: float) -> int:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
