"""Says by which limit a run is held, from what the store has on record.

Invariant: what is said is what the next claim finds; who is no runner says the same.
"""

from __future__ import annotations

import json

from . import why_run
from .duration import text_of
from .errors import excerpt
from .keyed import pauses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .keyed import Keyed

    Look = Callable[[str, Sequence[object]], list[dict[str, Any]]]

SITTING_TOLD_MAX = 3
"""Of those that have the seats so many are named."""
WAITS, BEHIND = 0, 3
"""`stand` in the table `seats` of one that waits for a claim, and of one that waits for those before it."""

_SEAT = """
    SELECT seats.run, seats.stand, seats.lane, seats.seat, seats.priority, seats.party, seats.schedule,
        runs.workflow, limited.limits, lanes.until, lanes.held, place.key AS place, pace.key AS pace,
        pace.stamp,
        runs.status = 'Pending' AND runs.started_at IS NULL AS is_new
    FROM runs JOIN seats ON seats.run = runs.row JOIN lanes ON lanes.row = seats.lane
        JOIN limited ON limited.workflow = runs.workflow
        JOIN keys AS place ON place.row = seats.seat JOIN keys AS pace ON pace.row = lanes.pace
    WHERE runs.id = ?"""
_SITTING = """
    SELECT (SELECT count(DISTINCT party) FROM seats WHERE seat = ?1 AND stand = 1) AS many, runs.id
    FROM seats JOIN runs ON runs.row = seats.run WHERE seats.seat = ?1 AND seats.stand = 1
    ORDER BY seats.run LIMIT ?2"""
_BEFORE = """
    SELECT count(*) AS many FROM seats
    WHERE lane = ?1 AND stand = 0 AND (priority > ?2 OR priority = ?2 AND run < ?3)"""
_PAUSED = """
    SELECT name, key, until, by FROM pauses
    WHERE kind = 'key' AND name = ?1 AND key = ?2 AND (until IS NULL OR until > ?3)"""
_IS_PAUSED = """
    SELECT 1 FROM pauses WHERE kind = 'workflow' AND name = ?1 AND (until IS NULL OR until > ?2)"""
_FIRST = """
    SELECT runs.id FROM seats JOIN runs ON runs.row = seats.run WHERE seats.schedule = ? ORDER BY seats.run
    LIMIT 1"""


def of_run(
    look: Look, run_id: str, now_us: int, moment: Callable[[int], str], keyed: Keyed | None = None
) -> str | None:
    """What a run waits for because of a limit; `None` if none holds it. `keyed` knows what may be
    shown of the values of keys.
    """
    found = look(_SEAT, [run_id])
    if not found or found[0]["stand"] not in (WAITS, BEHIND):
        return None
    seat = found[0]
    if seat["stand"] == BEHIND:
        first = look(_FIRST, [seat["schedule"]])
        if not first:
            return None
        return f"waits for its turn behind run {first[0]['id']}, which its trigger fired before"
    limits = json.loads(seat["limits"])
    concurrency, throttle = limits.get("concurrency"), limits.get("throttle")
    for terms, value in ((concurrency, seat["place"]), (throttle, seat["pace"])):
        if terms is not None and terms["key"] is not None:
            for row in look(_PAUSED, [seat["workflow"], value, now_us]):
                until = None if row["until"] is None else moment(row["until"])
                (paused,) = pauses(keyed, [{**row, "kind": "workflow", "until": until}])
                return f"waits: {why_run.of_pause(paused)}"
    if concurrency is not None and seat["party"] == seat["run"]:
        sitting = look(_SITTING, [seat["seat"], SITTING_TOLD_MAX])
        many = sitting[0]["many"] if sitting else 0
        if many >= concurrency["limit"]:
            names = ", ".join(row["id"] for row in sitting)
            more = f" and {many - len(sitting)} more" if many > len(sitting) else ""
            of = _of_key(concurrency, seat["workflow"], seat["place"], keyed)
            limit, runs = concurrency["limit"], "run" if many == 1 else "runs"
            taken = f"{many} of {limit} taken by {runs} {names}{more}"
            return f"waits for a seat of concurrency {limit}{of}: {taken}"
    if throttle is not None and seat["stamp"] is not None:
        interval = -(-throttle["per_us"] // throttle["limit"])
        until = min(seat["stamp"], now_us + throttle["burst"] * interval) - (throttle["burst"] - 1) * interval
        if until > now_us:
            rate = f"{throttle['limit']} in {text_of(throttle['per_us'])}"
            of, before = _of_key(throttle, seat["workflow"], seat["pace"], keyed), _before(look, seat)
            return f"is throttled, {rate}{of}: the next may start at {moment(until)}{before}"
    if look(_IS_PAUSED, [seat["workflow"], now_us]):
        return "waits"  # and whoever tells it says for what
    told = "waits for a slot of a runner that declares its workflow; its limits let it begin"
    return f"{told}{_before(look, seat)}"


def _before(look: Look, seat: dict[str, Any]) -> str:
    """How many of the same key go before."""
    many = look(_BEFORE, [seat["lane"], seat["priority"], seat["run"]])[0]["many"]
    return f", and {many} {'run goes' if many == 1 else 'runs go'} before it" if many else ""


def _of_key(terms: dict[str, Any], workflow: str, value: str, keyed: Keyed | None) -> str:
    shown = value if keyed is None else keyed.shown(workflow, value)
    return "" if terms["key"] is None else f" of key {excerpt(shown)}"
