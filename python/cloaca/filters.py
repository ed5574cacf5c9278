"""Which runs a listing shows, as the engine takes it. Decides nothing but what an argument may be."""

from __future__ import annotations

from . import check
from .errors import ArgumentError, WorkflowError, excerpt
from .name import written_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from ._cloaca import Reader, Runs
    from .types import TriggerRef
    from .workflow import Workflow

UNFINISHED = ("Pending", "Running")
ENDED_BADLY = ("Failed", "Cancelled")
ENDED = ("Completed", *ENDED_BADLY)


def wanted(
    workflow: str | Workflow | None = None,
    status: str | None = None,
    trigger: TriggerRef | None = None,
    key: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    error: str | type[BaseException] | None = None,
    parent: str | None = None,
    ended_since: str | datetime | None = None,
    ended_until: str | datetime | None = None,
    untold: bool = False,
) -> dict[str, Any]:
    """The filter of a listing of runs, checked.

    Raises:
        ArgumentError: (a `ValueError`) a time that is none, or times of both kinds.
        TriggerError: (a `ValueError`) a function that is no trigger, or several.
    """
    by_end = ended_since is not None or ended_until is not None
    if by_end and (since is not None or until is not None):
        raise ArgumentError(
            "since= and until= are of when runs were created, ended_since= and ended_until= of when they"
            " ended; a listing goes by one of the two"
        )
    if isinstance(error, type) and issubclass(error, BaseException):
        error = error.__name__
    return {
        "workflow": check.optional_text(_name_of_workflow(workflow), "workflow"),
        "status": check.optional_text(status, "status"),
        "trigger": check.optional_text(_name_of_trigger(trigger), "trigger"),
        "key": written_out(key) if isinstance(key, str) else check.optional_text(key, "key"),
        "parent": None if parent is None else check.run_id(parent, "parent"),
        "by_end": by_end,
        "since": _moment(ended_since, "ended_since") if by_end else _moment(since, "since"),
        "until": _moment(ended_until, "ended_until") if by_end else _moment(until, "until"),
        "error": check.optional_text(error, "error"),
        "after": None,
        "contexts": False,
        "untold": check.flag(untold, "untold"),
    }


def _name_of_workflow(workflow: object) -> Any:
    if workflow is None or isinstance(workflow, str):
        return workflow
    from .workflow import Workflow

    return workflow.name if isinstance(workflow, Workflow) else workflow


def _name_of_trigger(trigger: object) -> Any:
    if trigger is None or isinstance(trigger, str) or not callable(trigger):
        return trigger
    from .chosen import name_of_one

    return name_of_one(trigger)


def _moment(at: str | datetime | None, name: str) -> int | None:
    return None if at is None else check.moment(at, name)


def within(
    status: str | None, error: str | None, since: datetime | str | None, until: datetime | str | None
) -> dict[str, datetime | str | None]:
    """The bounds in time of who looks: of runs that are over they are of when they ended, of others, and of
    all, of when they were created. What failed last night may have been created before.
    """
    is_over = status in ENDED or (status is None and error is not None)
    if is_over and (since is not None or until is not None):
        return {"ended_since": since, "ended_until": until}
    return {"since": since, "until": until}


def place(runs: Runs | Reader, after: str | None, by_end: bool = False) -> tuple[int, int, int | None] | None:
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
    if by_end and found[2] is None:
        raise WorkflowError(f"after is run {after}, which is not over any more: it was opened again")
    return found


def narrowed(method: str, filter: dict[str, Any], statuses: tuple[str, str]) -> list[dict[str, Any]]:
    """The listings that together hold what such a method may change.

    Raises:
        ArgumentError: (a `ValueError`) no filter at all, or a status that it cannot change.
    """
    status = filter["status"]
    if not any(
        value is not None for name, value in filter.items() if name not in ("contexts", "by_end", "untold")
    ):
        raise ArgumentError(f"{method} needs a filter, such as workflow=, status= or since=")
    if status is not None and status not in statuses:
        raise ArgumentError(
            f"status is {excerpt(status)}; {method} takes {' or '.join(repr(known) for known in statuses)}"
        )
    return [{**filter, "status": known} for known in statuses if status in (None, known)]
