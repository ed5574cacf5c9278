"""Which runs a listing shows, as the engine takes it. Decides nothing but what an argument may be."""

from __future__ import annotations

from . import check
from .errors import ArgumentError, WorkflowError, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from ._cloaca import Reader, Runs

UNFINISHED = ("Pending", "Running")
ENDED_BADLY = ("Failed", "Cancelled")


def wanted(
    workflow: str | None = None,
    status: str | None = None,
    trigger: str | None = None,
    key: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    error: str | type[BaseException] | None = None,
    parent: str | None = None,
) -> dict[str, Any]:
    """The filter of a listing of runs, checked."""
    if isinstance(error, type) and issubclass(error, BaseException):
        error = error.__name__
    return {
        "workflow": check.optional_text(workflow, "workflow"),
        "status": check.optional_text(status, "status"),
        "trigger": check.optional_text(trigger, "trigger"),
        "key": check.optional_text(key, "key"),
        "parent": None if parent is None else check.run_id(parent, "parent"),
        "since": None if since is None else check.moment(since, "since"),
        "until": None if until is None else check.moment(until, "until"),
        "error": check.optional_text(error, "error"),
        "after": None,
        "contexts": False,
    }


def place(runs: Runs | Reader, after: str | None) -> tuple[int, int] | None:
    """Where the run with the id `after` stands in listings.

    Raises:
        ArgumentError: (a `ValueError`) it is no UUID.
        WorkflowError: (a `ValueError`) there is no such run.
    """
    if after is None:
        return None
    found = runs.place(check.run_id(after, "after"))
    if found is None:
        raise WorkflowError(f"after is run {after}, which is not kept any more; iter_runs goes on without it")
    return found


def narrowed(method: str, filter: dict[str, Any], statuses: tuple[str, str]) -> list[dict[str, Any]]:
    """The listings that together hold what such a method may change.

    Raises:
        ArgumentError: (a `ValueError`) no filter at all, or a status that it cannot change.
    """
    status = filter["status"]
    if not any(value is not None for name, value in filter.items() if name != "contexts"):
        raise ArgumentError(f"{method} needs a filter, such as workflow=, status= or since=")
    if status is not None and status not in statuses:
        raise ArgumentError(
            f"status is {excerpt(status)}; {method} takes {' or '.join(repr(known) for known in statuses)}"
        )
    return [{**filter, "status": known} for known in statuses if status in (None, known)]
