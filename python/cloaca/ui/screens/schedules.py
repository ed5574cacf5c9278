"""Triggers and crons: all of them, and one."""

from __future__ import annotations

from ... import _cloaca
from ...reading import Trigger, crons, schedules_named, ticks, why
from ...reading import runs as list_runs
from ...reading import triggers as list_triggers
from ...reading.store import now
from ...why import ENDS_COUNTED_MAX, ends_waiting, first_end, told, unnamed
from .. import show
from .screen import Ask, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

    from markupsafe import Markup

    from ...reading import Cron, Tick

ROWS = 100
TICKS = 200
TICKS_LISTED = 25
RUNS = 15
NEXT = 10
WORST_FIRST = (
    "stopped",
    "hanging",
    "failing",
    "late",
    "silent",
    "unserved",
    "polled",
    "scheduled",
    "disabled",
)


def triggers(ask: Ask) -> Screen:
    """All of them, a page at a time."""
    page = list_triggers(ask.reader, after=_number(ask, "after"), limit=ROWS)
    calendar = crons(ask.reader, after=_number(ask, "crons_after"), limit=ROWS)
    values = {
        "ask": ask,
        "root": ask.root,
        "triggers": sorted(page.items, key=lambda each: WORST_FIRST.index(each.state)),
        "crons": sorted(calendar.items, key=lambda each: WORST_FIRST.index(each.state)),
        "more": None if page.after is None else show.link(ask.root, "/triggers", after=page.after),
        "crons_more": None
        if calendar.after is None
        else show.link(ask.root, "/triggers", crons_after=calendar.after),
    }
    return Screen("Triggers", "triggers.html", values, nav="triggers")


def _number(ask: Ask, name: str) -> int:
    text = ask.value(name) or "0"
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def trigger(ask: Ask) -> Screen:
    """One of them."""
    name = ask.needed("name")
    found = schedules_named(ask.reader, name)
    history = ticks(ask.reader, name, limit=TICKS)
    fired = (
        list_runs(ask.reader, trigger=found[0].trigger_name, limit=RUNS).items
        if found[0].trigger_name
        else []
    )
    polled = [each for each in found if isinstance(each, Trigger)]
    values = {
        "ask": ask,
        "root": ask.root,
        "name": name,
        "why": _sentence(ask, name),
        "triggers": polled,
        "ends": _ends(ask, name) if any(each.on_run for each in polled) else None,
        "fails_at": first_end(ask.reader.native.query, name) if any(map(_fails_at_end, polled)) else None,
        "crons": [(each, _moments(each)) for each in found if not isinstance(each, Trigger)],
        "strip": strip(history, now()),
        "ticks": history[:TICKS_LISTED],
        "ticks_more": len(history) > TICKS_LISTED,
        "runs": fired,
        "is_enabled": any(each.enabled for each in found),
        "can_poll": any(each.enabled and each.runner is not None for each in polled),
        "can_preview": ask.can_act and _is_declared(ask, name),
    }
    title = "Trigger" if polled else "Cron"
    return Screen(f"{title} {show.line(name, 60)}", "trigger.html", values, nav="triggers")


def _ends(ask: Ask, name: str) -> str:
    """Of how many ends of runs it is still to be told."""
    many = ends_waiting(ask.reader.native.query, name)
    return f"{many:,}{' or more' if many == ENDS_COUNTED_MAX else ''}" if many else "none"


def _fails_at_end(trigger: Trigger) -> bool:
    is_error = trigger.last is not None and trigger.last.outcome == "error"
    return trigger.on_run is not None and (trigger.failures > 0 or is_error)


def _sentence(ask: Ask, name: str) -> str:
    """Where the page is mounted, the runner knows more than the store."""
    runner = ask.source.runner
    if runner is not None and ask.source.can_act and _is_declared(ask, name):
        return runner._told_why(name, unnamed)
    return why(ask.reader, name)


def _is_declared(ask: Ask, name: str) -> bool:
    runner = ask.source.runner
    if runner is None:
        return False
    return name in runner._declarations.places or name in runner._declarations.crons


def _moments(cron: Cron) -> list[str]:
    after = int(now().timestamp() * 1_000_000)
    found = _cloaca.cron_moments(cron.cron_expression, cron.timezone, after, NEXT) if cron.enabled else []
    return [show.stamp_of(at) for at in found]


def strip(history: list[Tick], at: datetime) -> Markup:
    """The last polls as a line of time, each stretch a part of its own."""
    if not history:
        return show.bar([], "no polls on record")
    end = at.timestamp()
    stretches = [(show.seconds_of(each.first_at), show.seconds_of(each.last_at), each) for each in history]
    start = min(first for first, _, _ in stretches)
    whole = max(end - start, 0.001)
    parts = []
    for first, last, each in reversed(stretches):
        words = f"{each.outcome}, {each.count:,} times" if each.count > 1 else each.outcome
        words = f"{words}: {show.line(each.reason, 120)}" if each.reason else words
        parts.append(((first - start) / whole, (last - start) / whole, show.colour(each.outcome), words))
    # What is rare stands in front.
    parts.sort(
        key=lambda part: ("calm", "good", "bad").index(part[2]) if part[2] in ("calm", "good", "bad") else 3
    )
    newest = history[0]
    row = {name: getattr(newest, name) for name in newest.__slots__}
    return show.bar(parts, f"polls since {history[-1].first_at}; the trigger {told(row)}")  # type: ignore[arg-type]
