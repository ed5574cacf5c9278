"""Triggers, crons and what came of their polls.

Invariant: what is shown of a trigger is on record; what is in the memory of who polls it is not guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..health import GRACE_SECONDS
from ..rows import CRON_BY_NOW, TRIGGER_BY_NOW, moment
from .runners import declaring, living, living_and_silent
from .store import PAGE_ITEMS, Page, age_of, decoded, names, now, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from ..redact import Mask
    from .store import Reader

    Outcome = Literal["skip", "fire", "error"]

LATE_SECONDS = GRACE_SECONDS
"""A cron whose next moment is longer ago is late."""

# By schedules' rows.
PAST = f"""
    SELECT row FROM schedules WHERE row IN (SELECT value FROM json_each(?))
        AND CASE kind WHEN 'cron' THEN {TRIGGER_BY_NOW} ELSE {CRON_BY_NOW} END"""

# By schedules' rows, and of each the newest of its ticks, by ticks_schedule.
LAST = """
    SELECT schedule, outcome, reason, count, first_at, ticks.last_at, min_us, sum_us, max_us
    FROM schedules JOIN ticks ON ticks.row = (
        SELECT newest.row FROM ticks AS newest WHERE newest.schedule = schedules.row
        ORDER BY newest.row DESC LIMIT 1)
    WHERE schedules.row IN (SELECT value FROM json_each(?))"""


@dataclass(frozen=True, slots=True)
class Tick:
    """What polls answered, equal answers in a row as one.

    Attributes:
        outcome (str): `skip`, `fire` or `error`.
        reason (str | None): why, in the trigger's words or the engine's.
        count (int): so many polls.
        first_at, last_at (str): when the first and the last of them began.
        min_us, mean_us, max_us (int): how long they took, in microseconds.
    """

    outcome: Outcome
    reason: str | None
    count: int
    first_at: str
    last_at: str
    min_us: int
    mean_us: int
    max_us: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """A polled trigger, or one that is told of ends of runs.

    Attributes:
        trigger_name, workflow_name (str): its name, and what it fires.
        state (str): `polled`; `hanging`, its function has not come back for 30 seconds or longer; `failing`,
            its last poll failed; `stopped`, the engine disabled it after too
            many failures; `disabled`, somebody switched it off; `unserved`, no living runner polls it;
            `silent`, the one that polls it has said nothing for 30 seconds or longer.
        poll_interval_ms (int): how often it is polled; 0 if it is told of ends of runs.
        on_run (str | None): of whose runs' ends it is told, instead of being polled.
        on_run_status (list[str]): of which ends.
        enabled (bool): whether it is polled at all.
        disabled_cause (str | None): why the engine disabled it.
        failures (int): how many polls in a row have failed.
        runner (int | None): the number of the living runner that polls it.
        last (Tick | None): what its last polls answered, as far as they are on record.
        last_poll_at (str | None): its last poll on record.
        last_fired_at (str | None): when it last started a run.
        next_poll_at (str | None): when it is due, if somebody polls it who has not fallen silent.
        cursor (Any): its cursor, a JSON value.
        created_at, updated_at (str): when it was first declared, and when that or a switch last changed.
        disabled_at (str | None): since when it is switched off, if it is.
        in_body_since (str | None): since when its function hangs, if it does.
    """

    trigger_name: str
    workflow_name: str
    state: Literal["polled", "hanging", "failing", "stopped", "disabled", "unserved", "silent"]
    poll_interval_ms: int
    on_run: str | None
    on_run_status: list[str]
    enabled: bool
    disabled_cause: str | None
    failures: int
    runner: int | None
    last: Tick | None
    last_poll_at: str | None
    last_fired_at: str | None
    next_poll_at: str | None
    cursor: Any
    created_at: str
    updated_at: str
    disabled_at: str | None
    in_body_since: str | None


@dataclass(frozen=True, slots=True)
class Cron:
    """A calendar schedule.

    Attributes:
        id (str): its id.
        trigger_name (str | None): its name, if it has one.
        workflow_name (str): what it starts.
        state (str): `scheduled`; `hanging`, its function has not come back for 30 seconds or longer;
            `failing`, its function failed at its last moment; `late`, its next moment
            was more than ten seconds ago, and its function has not put it off; `disabled`; `unserved`, no
            living runner declares it.
        cron_expression, timezone (str): when it runs.
        enabled (bool): whether it does.
        last (Tick | None): what its last moments came to, if its function or `overlap` decides them.
        last_run_at, next_run_at (str | None): its last moment that started a run, and its next one.
        created_at, updated_at (str): when it was first registered, and when it last changed.
        disabled_at (str | None): since when it is switched off, if it is.
        in_body_since (str | None): since when its function hangs, if it does.
    """

    id: str
    trigger_name: str | None
    workflow_name: str
    state: Literal["scheduled", "hanging", "failing", "late", "disabled", "unserved"]
    cron_expression: str
    timezone: str
    enabled: bool
    last: Tick | None
    last_run_at: str | None
    next_run_at: str | None
    created_at: str
    updated_at: str
    disabled_at: str | None
    in_body_since: str | None

    @property
    def is_put_off(self) -> bool:
        """Whether its function was called for its next moment, and is called for it again."""
        return _is_put_off(self.next_run_at, self.last)


def _is_put_off(next_run_at: str | None, last: Tick | None) -> bool:
    return last is not None and next_run_at is not None and last.last_at >= next_run_at


def triggers(reader: Reader, *, after: int = 0, limit: int = PAGE_ITEMS) -> Page[Trigger]:
    """Polled triggers in the order of their registration."""
    rows = reader.native.schedules(False, after, limit)
    return _page(_by_now(reader, _shown(reader, rows)), rows, limit)


def crons(reader: Reader, *, after: int = 0, limit: int = PAGE_ITEMS) -> Page[Cron]:
    """Crons in the order of their registration."""
    rows = reader.native.schedules(True, after, limit)
    return _page(_by_now(reader, _shown(reader, rows)), rows, limit)


def _shown(reader: Reader, rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Trigger | Cron]]:
    """Rows with what they are shown as."""
    alive, silent = living_and_silent(reader)
    mask, last = reader.mask(), _last(reader, rows)
    return [
        (
            row,
            _cron(reader, row, alive, mask, last)
            if "cron_expression" in row
            else _trigger(reader, row, alive, silent, mask, last),
        )
        for row in rows
    ]


def _by_now(reader: Reader, found: list[tuple[dict[str, Any], Any]]) -> list[Any]:
    """Without what is left of triggers that are crons by now, or the other way round."""
    asked = json.dumps([row["row"] for row, each in found if each.trigger_name])
    past = {row["row"] for row in reader.native.query(PAST, [asked])}
    return [each for row, each in found if row["row"] not in past]


def _page(items: list[Any], rows: list[dict[str, Any]], limit: int) -> Page[Any]:
    return Page(items, rows[-1]["row"] if rows and len(rows) >= limit else None)


def schedules_named(reader: Reader, name: str) -> list[Trigger | Cron]:
    """What a name, or a cron's id, stands for: mostly one; both if it was a trigger before it was a cron, or
    the other way round, and nobody serves what it is by now.

    Raises:
        MissingError: (a `LookupError`) nothing has that name.
    """
    found = _shown(reader, _rows_named(reader, name))
    return _by_now(reader, found) or [each for _, each in found]


def schedules_of(reader: Reader, rows: list[int]) -> list[Trigger | Cron]:
    """What these rows hold, in their order, without what is left of one that a deploy made the other."""
    place = {row: at for at, row in enumerate(rows)}
    found = _shown(reader, reader.native.schedules_of(rows)) if rows else []
    found.sort(key=lambda each: place[each[0]["row"]])
    return _by_now(reader, found) if found else []


def unstarted(reader: Reader, found: Sequence[Trigger | Cron]) -> list[Trigger | Cron]:
    """Those of them that somebody serves and that start nothing: no living runner declares their workflow."""
    alive = living(reader)
    # A trigger without a workflow starts nothing, and means to.
    served = [
        each for each in found if each.workflow_name and each.state not in ("unserved", "disabled", "stopped")
    ]
    known = declaring(reader, {each.workflow_name for each in served}, alive) if alive and served else {}
    return [each for each in served if alive and each.workflow_name not in known]


def ticks(reader: Reader, name: str, *, limit: int = PAGE_ITEMS, offset: int = 0) -> list[Tick]:
    """What the polls of a trigger, or the moments of a cron, came to, newest first.

    Raises:
        MissingError: (a `LookupError`) nothing has that name.
    """
    rows, mask = _rows_named(reader, name), reader.mask()
    found = [tick for row in rows for tick in _ticks(reader, row, limit + offset, mask)]
    found.sort(key=lambda tick: tick.last_at, reverse=True)
    return found[offset : offset + limit]


def _rows_named(reader: Reader, name: str) -> list[dict[str, Any]]:
    # A lone surrogate is in no name.
    text = name.encode("utf-8", "replace").decode()
    found = reader.native.named(text) if name else []
    if not found and len(name) == 36 and name.count("-") == 4:
        cron = reader.native.cron(name) if _is_hex(name) else None
        found = [] if cron is None else [cron]
    if not found:
        raise unknown("trigger", name, "triggers", names(reader))
    return found


def _is_hex(text: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF-" for digit in text)


def _last(reader: Reader, rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The newest stretch of each row that has one, as `Tick` has it."""
    found = reader.native.query(LAST, [json.dumps([row["row"] for row in rows])]) if rows else []
    for tick in found:
        tick["reason"] = tick["reason"] or None
        tick["mean_us"] = tick.pop("sum_us") // max(tick["count"], 1)
        for name in ("first_at", "last_at"):
            tick[name] = moment(tick[name])
    return {tick.pop("schedule"): tick for tick in found}


def _ticks(reader: Reader, row: dict[str, Any], limit: int, mask: Mask | None) -> list[Tick]:
    return [_tick(reader, row, tick, mask) for tick in reader.native.ticks(row["row"], limit, 0)]


def _tick(reader: Reader, row: dict[str, Any], tick: dict[str, Any], mask: Mask | None) -> Tick:
    secrets = reader.of_trigger(mask, row["trigger_name"])
    return Tick(**{**tick, "reason": secrets.hide_maybe(tick["reason"])})


def _trigger(
    reader: Reader,
    row: dict[str, Any],
    alive: set[int],
    silent: set[int],
    mask: Mask | None,
    ticks: dict[int, dict[str, Any]],
) -> Trigger:
    last = _tick(reader, row, ticks[row["row"]], mask) if row["row"] in ticks else None
    runner = row["owner"] if row["owner"] in alive else None
    state: Literal["polled", "hanging", "failing", "stopped", "disabled", "unserved", "silent"] = "polled"
    if not row["enabled"]:
        state = "stopped" if row["disabled_cause"] else "disabled"
    elif runner is None:
        state = "unserved"
    elif runner in silent:
        state = "silent"
    elif row["in_body_since"] is not None:
        state = "hanging"
    elif row["failures"] > 0 or (last is not None and last.outcome == "error"):
        # What polls answered is forgotten one day, and is written later than the row is.
        state = "failing"
    polled = [at for at in (row["last_poll_at"], None if last is None else last.last_at) if at is not None]
    return Trigger(
        trigger_name=row["trigger_name"],
        workflow_name=row["workflow_name"],
        state=state,
        poll_interval_ms=row["poll_interval_ms"],
        on_run=row["on_run"],
        on_run_status=row["on_run_status"],
        enabled=row["enabled"],
        disabled_cause=reader.of_trigger(mask, row["trigger_name"]).hide_maybe(row["disabled_cause"]),
        failures=row["failures"],
        runner=runner,
        last=last,
        last_poll_at=max(polled, default=None),
        last_fired_at=row["last_fired_at"],
        next_poll_at=row["due_at"] if runner not in (None, *silent) and row["enabled"] else None,
        cursor=decoded(row["cursor"], mask),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        disabled_at=row["disabled_at"],
        in_body_since=row["in_body_since"] if state in ("hanging", "silent") else None,
    )


def _cron(
    reader: Reader,
    row: dict[str, Any],
    alive: set[int],
    mask: Mask | None,
    ticks: dict[int, dict[str, Any]],
) -> Cron:
    last = _tick(reader, row, ticks[row["row"]], mask) if row["row"] in ticks else None
    age = age_of(row["next_run_at"], now())
    state: Literal["scheduled", "hanging", "failing", "late", "disabled", "unserved"] = "scheduled"
    if not row["enabled"]:
        state = "disabled"
    elif not alive or not row["is_declared"]:
        state = "unserved"
    elif row["in_body_since"] is not None:
        state = "hanging"
    elif row["failures"] > 0 or (last is not None and last.outcome == "error"):
        state = "failing"
    elif age is not None and age > LATE_SECONDS and not _is_put_off(row["next_run_at"], last):
        state = "late"
    return Cron(
        id=row["id"],
        trigger_name=row["trigger_name"],
        workflow_name=row["workflow_name"],
        state=state,
        cron_expression=row["cron_expression"],
        timezone=row["timezone"],
        enabled=row["enabled"],
        last=last,
        last_run_at=row["last_run_at"],
        next_run_at=row["next_run_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        disabled_at=row["disabled_at"],
        in_body_since=row["in_body_since"] if state == "hanging" else None,
    )
