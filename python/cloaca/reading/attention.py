"""What needs somebody's eyes: schedules that do not do what they should, and failed runs by their kind.

Invariant: each look is bounded, and says where its bound was met.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from ..check import microseconds
from ..rows import CRON_BY_NOW, TRIGGER_BY_NOW, moment
from .runners import living, living_and_silent
from .schedules import LATE_SECONDS, schedules_of
from .store import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from .schedules import Cron, Trigger
    from .store import Reader

SCHEDULES_MAX = 10_000
"""So many schedules are looked at."""
SHOWN_MAX = 50
"""So many of those are told."""
CALLBACKS_SECONDS = 60.0
"""Callbacks that raise are told of once their runs have ended for so long."""
MESSAGE_CHARS = 300
"""So much of a message is compared, and told."""
FAILED_MAX = 1000
"""So many failed runs are looked at, the newest."""

# By schedules' rows, and of each the newest of its ticks, by ticks_schedule. Some have none, and what is
# unknown sorts first on a server.
_UNWELL = """
    WITH looked AS (
        SELECT s.row, s.kind, s.enabled, s.disabled_cause, s.next_at, s.owner,
            s.in_body_since IS NOT NULL AS hangs,
            s.failures > 0 OR coalesce((
                SELECT t.outcome FROM ticks t WHERE t.schedule = s.row ORDER BY t.row DESC LIMIT 1
            ), '') = 'error' AS fails
        FROM (SELECT * FROM schedules ORDER BY row LIMIT ?1) AS s
    )
    SELECT row FROM looked
    WHERE NOT enabled OR hangs OR fails OR (kind = 'cron' AND (next_at < ?2 OR ?4 = '[]'))
        OR (kind = 'trigger' AND (owner IS NULL OR owner NOT IN (SELECT value FROM json_each(?4))))
    ORDER BY NOT enabled AND disabled_cause IS NOT NULL DESC, enabled AND hangs DESC,
        enabled AND fails DESC, enabled DESC
    LIMIT ?3"""
# By runs_failed_ends, then by their parents' ids. What failed below a run that failed, too, is no failure of
# its own: that one's error holds it, and to retry that one opens it again. A run that does the work of
# another one again was started by whoever asked for that.
_NEWEST_FAILED = """
    SELECT completed_at, id, workflow, error_type, substr(error, 1, ?3) AS error, NOT again AND EXISTS (
            SELECT 1 FROM runs AS own WHERE own.id = runs.parent AND own.status = 'Failed') AS is_below
    FROM runs INDEXED BY runs_failed_ends
    WHERE error_type IS NOT NULL AND completed_at >= ?1 AND status = 'Failed'
    ORDER BY completed_at DESC LIMIT ?2"""
_FAILED_BELOW = f"SELECT count(*) AS many FROM ({_NEWEST_FAILED}) AS newest WHERE is_below"
# Of equal ones the row of the newest is told.
_FAILED = f"""
    SELECT error_type, error, workflow, many, completed_at AS last_us, id FROM (
        SELECT error_type, error, workflow, completed_at, id, count(*) OVER same AS many,
            row_number() OVER (same ORDER BY completed_at DESC) AS place
        FROM ({_NEWEST_FAILED}) AS newest WHERE NOT is_below
        WINDOW same AS (PARTITION BY error_type, error, workflow)
    ) AS ranked WHERE place = 1 ORDER BY last_us DESC"""
# By ends_due and ends_owner, and of each workflow the oldest by its row: what is called again and again.
_FAILING_CALLBACKS = """
    SELECT counted.workflow, many, tries, ends.error, runs.id, completed_at FROM (
        SELECT found.workflow, count(*) AS many, min(found.row) AS first FROM (
            SELECT row, run, workflow, tries, error FROM (
                SELECT row, run, workflow, tries, error FROM ends INDEXED BY ends_due
                WHERE owner IS NULL AND listener = 0 LIMIT ?1
            ) AS waiting
            UNION ALL SELECT row, run, workflow, tries, error FROM ends INDEXED BY ends_owner
            WHERE owner IS NOT NULL AND listener = 0
        ) AS found JOIN runs ON runs.row = found.run
        WHERE found.tries > 1 AND found.error IS NOT NULL AND completed_at < ?2 GROUP BY found.workflow
    ) AS counted JOIN ends ON ends.row = first JOIN runs ON runs.row = ends.run
    ORDER BY many DESC, counted.workflow LIMIT ?3"""
# By runs_lost, then of each workflow the first run of them by its row.
_LOST = """
    SELECT counted.workflow, many, runs.id, runs.told_at AS at, told_calls, told_error FROM (
        SELECT workflow, count(*) AS many, min(row) AS first FROM (
            SELECT row, workflow FROM runs INDEXED BY runs_lost
            WHERE (told_as = 'dropped' OR told_as = 'given_up') AND told_as = ?4 AND told_at >= ?1
            ORDER BY told_at DESC LIMIT ?2
        ) AS found GROUP BY workflow
    ) AS counted JOIN runs ON runs.row = first ORDER BY many DESC, counted.workflow LIMIT ?3"""
# By ends_due, then by their runs' rows.
_WAITING_CALLBACKS = """
    SELECT counted.workflow, many, runs.id, completed_at AS at FROM (
        SELECT found.workflow, count(*) AS many, min(runs.row) AS first FROM (
            SELECT run, workflow, outcome FROM ends INDEXED BY ends_due
            WHERE owner IS NULL AND listener = 0 LIMIT ?1
        ) AS found JOIN runs ON runs.row = found.run
        WHERE completed_at < ?2 AND NOT EXISTS (
            SELECT 1 FROM workflows WHERE name = found.workflow AND (tells & found.outcome) <> 0
                AND owner IN (SELECT value FROM json_each(?4)))
        GROUP BY found.workflow
    ) AS counted JOIN runs ON runs.row = first ORDER BY many DESC, counted.workflow LIMIT ?3"""
_SCHEDULES = """
    SELECT count(*) FILTER (WHERE kind = 'trigger') AS triggers,
        count(*) FILTER (WHERE kind = 'cron') AS crons, count(*) FILTER (WHERE enabled) AS enabled
    FROM (SELECT row, kind, enabled FROM schedules ORDER BY row LIMIT ?) AS looked
    WHERE row NOT IN (SELECT value FROM json_each(?))"""
# By schedules_crons and schedules_trigger: names that were polled and are crons, or the other way round.
_TWICE = f"""
    SELECT schedules.row FROM schedules WHERE row IN (
        SELECT cron.row FROM schedules AS cron JOIN schedules AS polled ON polled.name = cron.name
        WHERE cron.kind = 'cron' AND cron.declared_as IS NOT NULL AND polled.kind = 'trigger'
        UNION SELECT polled.row FROM schedules AS cron JOIN schedules AS polled ON polled.name = cron.name
        WHERE cron.kind = 'cron' AND cron.declared_as IS NOT NULL AND polled.kind = 'trigger')
    AND CASE kind WHEN 'cron' THEN {TRIGGER_BY_NOW} ELSE {CRON_BY_NOW} END"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many schedules there are, among the first 10,000.

    Attributes:
        triggers, crons (int): of each kind.
        enabled (int): of both, those that are not switched off.
    """

    triggers: int
    crons: int
    enabled: int


@dataclass(frozen=True, slots=True)
class FailingCallbacks:
    """Ends of a workflow's runs whose callbacks have raised again and again for a minute.

    Attributes:
        workflow_name (str): the workflow.
        count (int): so many, among the first 10,000 that wait.
        run_id (str): the run that ended first of them.
        ended_at (str): when that was.
        attempts (int): how often its callback was called.
        error (str): what that raised last.
    """

    workflow_name: str
    count: int
    run_id: str
    ended_at: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class UntoldEnds:
    """Ends of a workflow's runs that its callbacks are not told of.

    Attributes:
        workflow_name (str): the workflow.
        count (int): so many, among the 10,000 that are looked at.
        run_id (str): the first of their runs.
        at (str): when that ended, or its callback was dropped.
    """

    workflow_name: str
    count: int
    run_id: str
    at: str


@dataclass(frozen=True, slots=True)
class GivenUpCallbacks:
    """Ends of a workflow's runs whose callbacks went on raising, and are called no more.

    Attributes:
        workflow_name (str): the workflow.
        count (int): so many, among the 10,000 that are looked at.
        run_id (str): the first of their runs.
        at (str): when its callback was given up.
        attempts (int): how often that was called.
        error (str): what it raised last.
    """

    workflow_name: str
    count: int
    run_id: str
    at: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed runs of one kind: of one class of error, with messages that differ in numbers at most.

    Attributes:
        error_type (str | None): the class.
        message (str): the message of the newest, its first 300 characters.
        count (int): so many.
        workflows (list[str]): what they ran, the first few.
        run_id (str): the one of them that failed last.
        last_at (str): when that failed.
    """

    error_type: str | None
    message: str
    count: int
    workflows: list[str]
    run_id: str
    last_at: str


def schedule_counts(reader: Reader) -> Counts:
    """How many triggers and crons there are, without what is left of one that a deploy made the other."""
    past = [row["row"] for row in reader.native.query(_TWICE, [])]
    (row,) = reader.native.query(_SCHEDULES, [SCHEDULES_MAX, json.dumps(past)])
    return Counts(**row)


def unwell(reader: Reader, *, limit: int = SHOWN_MAX) -> list[Trigger | Cron]:
    """Triggers and crons that are not `polled` or `scheduled`: stopped ones first, then what hangs, and
    what fails."""
    alive, silent = living_and_silent(reader)
    heard_of = json.dumps(sorted(alive - silent))
    late_us = int((now().timestamp() - LATE_SECONDS) * 1_000_000)
    rows = [row["row"] for row in reader.native.query(_UNWELL, [SCHEDULES_MAX, late_us, limit, heard_of])]
    return [each for each in schedules_of(reader, rows) if each.state not in ("polled", "scheduled")]


def failing_callbacks(reader: Reader) -> list[FailingCallbacks]:
    """Of each workflow whose callbacks go on raising how many those are, the most first."""
    before_us = microseconds(now()) - int(CALLBACKS_SECONDS * 1e6)
    mask = reader.mask()
    return [
        FailingCallbacks(
            workflow_name=row["workflow"],
            count=row["many"],
            run_id=row["id"],
            ended_at=moment(row["completed_at"]),
            attempts=row["tries"],
            error=reader.of_run(mask, row["id"]).hide(row["error"])[:MESSAGE_CHARS],
        )
        for row in reader.native.query(_FAILING_CALLBACKS, [SCHEDULES_MAX, before_us, SHOWN_MAX])
    ]


def dropped_callbacks(reader: Reader, since: datetime) -> list[UntoldEnds]:
    """Of each workflow how many ends of its runs waited for a callback that was dropped since then, as no
    runner declared it any more."""
    given = [microseconds(since), SCHEDULES_MAX, SHOWN_MAX, "dropped"]
    return _untold(reader.native.query(_LOST, given))


def given_up_callbacks(reader: Reader, since: datetime) -> list[GivenUpCallbacks]:
    """Of each workflow how many ends of its runs were given up since then: their callbacks kept raising."""
    mask = reader.mask()
    given = [microseconds(since), SCHEDULES_MAX, SHOWN_MAX, "given_up"]
    return [
        GivenUpCallbacks(
            workflow_name=row["workflow"],
            count=row["many"],
            run_id=row["id"],
            at=moment(row["at"]),
            attempts=row["told_calls"],
            error=reader.of_run(mask, row["id"]).hide(row["told_error"] or "")[:MESSAGE_CHARS],
        )
        for row in reader.native.query(_LOST, given)
    ]


def undeclared_callbacks(reader: Reader) -> list[UntoldEnds]:
    """Of each workflow how many ends of its runs wait for callbacks that no living runner declares; none
    if no runner lives."""
    before_us = microseconds(now()) - int(CALLBACKS_SECONDS * 1e6)
    alive = living(reader)
    given = [SCHEDULES_MAX, before_us, SHOWN_MAX, json.dumps(sorted(alive))]
    return _untold(reader.native.query(_WAITING_CALLBACKS, given)) if alive else []


def _untold(rows: list[dict[str, Any]]) -> list[UntoldEnds]:
    return [UntoldEnds(row["workflow"], row["many"], row["id"], moment(row["at"])) for row in rows]


def failures(reader: Reader, since: datetime) -> list[Failures]:
    """Runs that failed since then by their kind, the most frequent first, among the 1,000 last ones; without
    those that `failed_below` counts."""
    mask = reader.mask()
    kinds: dict[tuple[str | None, str], list[dict[str, Any]]] = {}
    # What is hidden is found in whole texts alone.
    chars = MESSAGE_CHARS if mask is None else 1 << 30
    for row in reader.native.query(_FAILED, [microseconds(since), FAILED_MAX, chars]):
        secrets = reader.of_run(mask, row["id"])
        row["error"] = secrets.hide(row["error"] or "")[:MESSAGE_CHARS]
        row["error_type"] = secrets.hide_maybe(row["error_type"]) or None
        kinds.setdefault((row["error_type"], pattern(row["error"])), []).append(row)
    found = [
        Failures(
            error_type=error_type,
            message=several[0]["error"],
            count=sum(each["many"] for each in several),
            workflows=list(dict.fromkeys(each["workflow"] for each in several))[:3],
            run_id=several[0]["id"],
            last_at=moment(several[0]["last_us"]),
        )
        for (error_type, _), several in kinds.items()
    ]
    return sorted(found, key=lambda each: -each.count)


def failed_below(reader: Reader, since: datetime) -> int:
    """How many of these 1,000 were started by a run that failed, too: one failure is told once."""
    [row] = reader.native.query(_FAILED_BELOW, [microseconds(since), FAILED_MAX, 0])
    return int(row["many"])


def also_failed(failed: int, below: int) -> str:
    """That so many runs which the failed ones had started failed, too; nothing if none did."""
    runs = "1 run" if below == 1 else f"{below:,} runs"
    return f"; {runs} that {'it' if failed == 1 else 'they'} had started failed, too" if below else ""


_ADDRESS = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b|0x[0-9a-fA-F]+|\d+")
# An apostrophe within a word begins no quotation.
_QUOTED = re.compile(
    r"(?<!\w)'[^']{0,200}'(?!\w)|\"[^\"]{0,200}\"|`[^`]{0,200}`"
    r"|\u201c[^\u201d]{0,200}\u201d|\u2018[^\u2019]{0,200}\u2019"
)
# A path, an address, or the name of a file by what files usually end with; os.read is none.
_FILE = re.compile(
    r"[^\s,;()\[\]]{0,200}[/\\][^\s,;()\[\]]{0,200}[^\s,;()\[\].:]"
    r"|[\w.+@-]{1,200}\.(?:csv|tsv|txt|log|json|jsonl|xml|yaml|yml|toml|ini|pdf|docx?|xlsx?|odt|ods|html?|md|eml"
    r"|parquet|avro|orc|feather|npy|db|sqlite|sql|zip|gz|bz2|xz|zst|tar|tgz|7z|png|jpe?g|gif|tiff?|webp|svg|mp[34]"
    r"|wav|py|sh|bin|dat|bak|tmp|part)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=1000)
def pattern(message: str) -> str:
    """A message without what differs from one run to the next: numbers, addresses, what is quoted, files."""
    return _ADDRESS.sub("#", _FILE.sub("…", _QUOTED.sub("'…'", message[:MESSAGE_CHARS])))
