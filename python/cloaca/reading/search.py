"""Runs whose id, key, error or context holds a text, looked for as long as that may take.

Invariant: it ends in time, and says how far it came; a slow machine looks at no fewer runs than is enough.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic

from .runs import runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .runs import Run
    from .store import Reader

SEARCH_SECONDS = 0.05
"""So long it looks."""
RUNS_MIN = 2_000
"""So many runs it looks at, however long that takes,"""
SECONDS_MAX = 1.0
"""if it is not longer than this: contexts may be large, and disks slow."""
FOUND_MAX = 50
"""So many are found at once."""
AT_ONCE = 64
"""So many runs are read at once, after fewer were quick: contexts may be large."""
QUICK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Search:
    """What was found.

    Attributes:
        items (list[Run]): the runs, newest first.
        looked (int): so many were looked at.
        after (str | None): behind which run to go on; `None` if all were looked at.
        reached (str | None): when the last one that was looked at was created.
    """

    items: list[Run]
    looked: int
    after: str | None
    reached: str | None


def search(
    reader: Reader,
    text: str,
    *,
    after: str | None = None,
    limit: int = FOUND_MAX,
    seconds: float = SEARCH_SECONDS,
    at_least: int = RUNS_MIN,
    **filters: Any,
) -> Search:
    """Runs that hold a text, among those that the filters of `runs` give; large and small letters are one.

    It looks for so many seconds, and at no fewer than so many runs, if that takes no more than a second.

    Raises:
        ArgumentError, WorkflowError: (a `ValueError`) what `runs` refuses.
    """
    wanted = text.casefold()
    until = monotonic() + seconds
    at_last = max(until, monotonic() + SECONDS_MAX)
    found: list[Run] = []
    looked, at_once = 0, 4
    while True:
        began = monotonic()
        page = runs(reader, contexts=True, after=after, limit=at_once, **filters)
        at_once = min(AT_ONCE, at_once * 2) if monotonic() - began < QUICK_SECONDS else max(4, at_once // 2)
        for each in page:
            looked += 1
            after = each.id
            if _holds(each, wanted):
                found.append(each)
            if len(found) >= limit or monotonic() > (until if looked >= at_least else at_last):
                return Search(found, looked, after, each.created_at)
        if page.after is None:
            return Search(found, looked, None, page.items[-1].created_at if page.items else None)


def _holds(run: Run, wanted: str) -> bool:
    for part in (run.id, run.run_key, run.error_type, run.error_message, run.trigger_name, run.workflow_name):
        if part is not None and wanted in part.casefold():
            return True
    return run.context is not None and wanted in json.dumps(run.context, ensure_ascii=False).casefold()
