"""Runs, as a list that is filtered by its address."""

from __future__ import annotations

from datetime import timedelta

from ... import filters
from ...reading import runs as list_runs
from ...reading import search
from ...reading.store import now
from .. import show
from .screen import Ask, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROWS = 50
STATUSES = ("Failed", "Running", "Pending", "Completed", "Cancelled")
SPANS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
FILTERS = ("workflow", "status", "trigger", "key", "parent", "error", "since", "until", "untold")
COUNTED = 10_000
"""Matches are counted so far."""


def wanted(ask: Ask) -> dict[str, Any]:
    """The filters of an address, as `reading.runs` and the runner take them."""
    found: dict[str, Any] = {name: ask.value(name) for name in FILTERS}
    if found["since"] in SPANS:
        found["since"] = now() - SPANS[found["since"]]
    found["untold"] = found["untold"] is not None
    bounds = filters.within(found["status"], found["error"], found.pop("since"), found.pop("until"))
    return found | bounds


def runs(ask: Ask) -> Screen:
    """A page of the list."""
    asked_for, text, after = wanted(ask), ask.value("q"), ask.value("after")
    told = None
    if text is None:
        page = list_runs(ask.reader, **asked_for, after=after, limit=ROWS)
        items, after = page.items, page.after
    else:
        found = search(ask.reader, text, after=after, limit=ROWS, **asked_for)
        items, after = found.items, found.after
        ends = ""
        if found.after is not None and found.reached is not None:
            ends = f", back to {found.reached}"
        told = f"{show.count(len(items), 'run')} found among {found.looked:,}{ends}"
    asked = {name: value for name in (*FILTERS, "q") if (value := ask.value(name))}
    values = {
        "ask": ask,
        "root": ask.root,
        "items": items,
        "asked": asked,
        "told": told,
        "statuses": STATUSES,
        "spans": SPANS,
        "by_end": "ended_since" in asked_for,
        "is_later": ask.value("after") is not None,
        "next": None if after is None else show.link(ask.root, "/runs", **asked, after=after),
        "first": show.link(ask.root, "/runs", **asked),
        "many": _many(ask, asked) if text is None and items else None,
    }
    return Screen(
        "Runs", "runs.html", values, nav="runs", is_live=ask.value("after") is None and text is None
    )


def _many(ask: Ask, asked: dict[str, str]) -> str | None:
    """What may be done to all that match."""
    if not ask.can_act or not asked:
        return None
    if asked.get("untold"):
        return "tell"
    if asked.get("status") in ("Failed", "Cancelled"):
        return "retry"
    return "cancel" if asked.get("status") in ("Pending", "Running") else None
