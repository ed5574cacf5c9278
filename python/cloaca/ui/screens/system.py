"""Who serves the store, and whether store and machine are well."""

from __future__ import annotations

from ...reading import audit, doctor, runners
from ...reading.runners import BACKLOG_RUNS
from .screen import Ask, Screen

RUNNERS = 50
CHANGES = 20


def system(ask: Ask) -> Screen:
    """Runners, and what the doctor finds without looking through the file."""
    backlog = ask.reader.native.backlog(BACKLOG_RUNS)
    findings = sorted(
        doctor(ask.reader, brief=True, backlog=backlog),
        key=lambda each: ("bad", "warn", "ok").index(each.level),
    )
    every = runners(ask.reader, left=True, backlog=backlog)
    # Each command that changes something comes and leaves as one.
    found = [each for each in every if each.works or each.state != "left"]
    values = {
        "ask": ask,
        "root": ask.root,
        "findings": findings,
        "runners": found[:RUNNERS],
        "clients_left": len(every) - len(found),
        "runners_more": max(0, len(found) - RUNNERS),
        "changes": audit(ask.reader, limit=CHANGES).items,
        "stats": ask.source.runner.stats() if ask.source.runner is not None and ask.source.can_act else None,
    }
    return Screen("System", "system.html", values, nav="system")
