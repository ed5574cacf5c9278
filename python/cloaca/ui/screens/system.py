"""Who serves the store, and whether store and machine are well."""

from __future__ import annotations

from ... import why_run
from ...reading import audit, doctor, limits, runners
from ...reading.runners import BACKLOG_RUNS
from .screen import Ask, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...types import Stats

RUNNERS = 50
LIMITS = 100
CHANGES = 20


def system(ask: Ask) -> Screen:
    """Runners, limits with names, and what the doctor finds without looking through the file."""
    backlog = ask.reader.native.backlog(BACKLOG_RUNS)
    findings = sorted(
        doctor(ask.reader, brief=True, backlog=backlog),
        key=lambda each: ("bad", "warn", "ok").index(each.level),
    )
    every = runners(ask.reader, left=True, backlog=backlog)
    # Each command that changes something comes and leaves as one.
    found = [each for each in every if each.works or each.state != "left"]
    named = limits(ask.reader)
    pauses = {row["name"]: row for row in ask.reader.pauses() if row["kind"] == "limit"}
    values = {
        "ask": ask,
        "root": ask.root,
        "findings": findings,
        "runners": found[:RUNNERS],
        "clients_left": len(every) - len(found),
        "runners_more": max(0, len(found) - RUNNERS),
        "limits": [
            (each, why_run.of_pause(pauses[each.name]) if each.name in pauses else "")
            for each in named[:LIMITS]
        ],
        "limits_more": max(0, len(named) - LIMITS),
        "changes": audit(ask.reader, limit=CHANGES).items,
        "stats": _stats(ask),
    }
    return Screen("System", "system.html", values, nav="system")


def _stats(ask: Ask) -> Stats | None:
    """What the page's own runner did, if it does anything."""
    runner = ask.source.runner
    return runner.stats() if runner is not None and runner._works and ask.source.can_act else None
