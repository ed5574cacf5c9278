"""Runs: listed, found by the beginning of their id, and one with all that is kept of it."""

from __future__ import annotations

from dataclasses import dataclass

from .. import audit as audits
from .. import drawing, filters, rows
from ..drawing import Node
from ..errors import excerpt
from ..hidden import NO_SECRETS
from ..rows import trace_id
from .audit import Change
from .runners import living
from .store import PAGE_ITEMS, MissingError, Page, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from ..hidden import Secrets
    from ..redact import Mask
    from ..types import ParentKind, RunStatus
    from .store import Reader

NEAR_IDS = 5
"""So many ids are named that one could have meant."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run, by the names of `DefaultRunner.list_runs`; `context` is `None` where it was not asked for."""

    id: str
    workflow_name: str
    status: RunStatus
    trigger_name: str | None
    run_key: str | None
    parent_run: str | None
    parent_task: str | None
    parent_kind: ParentKind | None
    context: Any
    priority: int
    due_at: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    took_seconds: float | None
    lain_seconds: float
    error_message: str | None
    error_type: str | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a task that is over, by the names of `tries` in `DefaultRunner.get_run`."""

    number: int
    outcome: str
    started_at: str | None
    ended_at: str
    error_type: str | None
    error: str | None
    traceback: str | None
    runner: int | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a run that is on record, by the names of `tasks` in `DefaultRunner.get_run`, with the context
    that it left if it completed.
    """

    id: str
    status: str
    attempts: int
    error: str | None
    error_type: str | None
    started_at: str | None
    completed_at: str | None
    waits_until: str | None
    waits_since: str | None
    overdue_since: str | None
    tries: list[Attempt]
    tries_left_out: int
    earlier_version: bool
    context: Any


@dataclass(frozen=True, slots=True)
class Child:
    """A run that came of a run, by the names of `children` in `DefaultRunner.get_run`."""

    id: str
    workflow_name: str
    status: RunStatus
    kind: ParentKind
    task: str | None
    trigger_name: str | None
    created_at: str
    completed_at: str | None


@dataclass(frozen=True, slots=True)
class Callback:
    """An end that a callback of a run's workflow is still to be told of, by the names of `callbacks` in
    `DefaultRunner.get_run`.
    """

    status: RunStatus
    attempts: int
    due_at: str
    error: str | None
    begun_at: str | None
    runner: int | None


@dataclass(frozen=True, slots=True)
class LastCallback:
    """What became of the last end that a callback was to be told of, by the names of `last_callback` in
    `DefaultRunner.get_run`.
    """

    status: RunStatus
    outcome: str
    attempts: int
    at: str
    error: str | None


@dataclass(frozen=True, slots=True)
class RunDetails:
    """One run with its tasks in the order of their records.

    Attributes:
        run (Run): the run itself, with its first context.
        final_context (Any): what came out of it.
        runner (int | None): the number of the runner in whose hands it is, if it is not over.
        is_living (bool): whether that runner lives.
        tasks (list[Task]): those of its tasks that are on record, also as one of an earlier version of its
            workflow, and of a run that is not over those to come.
        graph (list[Node]): the tasks of its workflow in the version with which it goes on, or went on last,
            each after those that it waits for; none if they are not known.
        children (list[Child]): the first 100 runs that came of it.
        callbacks (list[Callback]): of which of its ends the callbacks of its workflow are still to be told.
        cancelled_by (Change | None): who asked for its end by the page or the command line, or for that of
            the run that started it.
        trace_id (str | None): the trace of whoever asked for it, if one was handed on.
        last_callback (LastCallback | None): what became of the last one that is settled.
    """

    run: Run
    final_context: Any
    runner: int | None
    is_living: bool
    tasks: list[Task]
    graph: list[Node]
    children: list[Child]
    callbacks: list[Callback]
    trace_id: str | None
    cancelled_by: Change | None
    last_callback: LastCallback | None


def runs(
    reader: Reader,
    *,
    workflow: str | None = None,
    status: RunStatus | None = None,
    trigger: str | None = None,
    key: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    ended_since: str | datetime | None = None,
    ended_until: str | datetime | None = None,
    error: str | None = None,
    parent: str | None = None,
    untold: bool = False,
    contexts: bool = False,
    after: str | None = None,
    limit: int = PAGE_ITEMS,
) -> Page[Run]:
    """Runs, newest first, or the last one to end first, filtered as by `DefaultRunner.list_runs`.

    Raises:
        ArgumentError, WorkflowError: (a `ValueError`) what `DefaultRunner.list_runs` refuses.
    """
    wanted = filters.wanted(
        workflow, status, trigger, key, since, until, error, parent, ended_since, ended_until, untold
    )
    wanted["contexts"] = contexts
    wanted["after"] = filters.place(reader.native, after, wanted["by_end"])
    mask = reader.mask()
    found = reader.native.runs(wanted, limit)
    return Page(
        [_run(reader, row, mask) for row in found], found[-1]["id"] if found and len(found) >= limit else None
    )


def find_run(reader: Reader, prefix: str) -> str:
    """The id of the one run whose id begins like this.

    Raises:
        MissingError: (a `LookupError`) there is none, or more than one.
    """
    text = prefix.strip().lower()
    if len(text) == 32 and "-" not in text:
        text = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    is_id = bool(text) and len(text) <= 36 and all(digit in "0123456789abcdef-" for digit in text)
    found = reader.native.run_ids(text, NEAR_IDS + 1) if is_id else []
    if not found:
        raise MissingError(f"run {excerpt(prefix)} not found; a run is known by its id, or how that begins")
    if len(found) > 1:
        more = f" and others (the first {NEAR_IDS} are told)" if len(found) > NEAR_IDS else ""
        raise MissingError(
            f"more than one run's id begins with {excerpt(prefix)}: {', '.join(found[:NEAR_IDS])}{more}"
        )
    return found[0]


def run(reader: Reader, run_id: str) -> RunDetails:
    """One run with its tasks and their attempts.

    Raises:
        MissingError: (a `LookupError`) there is no such run.
    """
    row = reader.native.run(find_run(reader, run_id))
    if row is None:  # it was pruned between the two looks
        raise MissingError(f"run {excerpt(run_id)} not found; it was there a moment ago")
    mask = reader.mask()
    secrets = reader.of_run(mask, row["id"])
    owner = row["owner"] if row["completed_at"] is None else None
    graph = drawing.read(row["graph"])
    names = [node.id for node in graph]
    by = audits.cancelled(reader.native.query, row)
    tasks = [_task(task, mask, secrets) for task in rows.tasks(row, names, [])]
    return RunDetails(
        run=_run(reader, row, mask),
        final_context=decoded(row["final_context"], mask),
        runner=owner,
        is_living=owner is not None and owner in living(reader),
        tasks=tasks,
        graph=graph,
        children=[Child(**child) for child in row["children"]],
        callbacks=[
            Callback(**{**call, "error": secrets.hide_maybe(call["error"])}) for call in row["callbacks"]
        ],
        trace_id=trace_id(row["trace"]),
        cancelled_by=None if by is None else Change(**by),
        last_callback=None if row["last_callback"] is None else LastCallback(**row["last_callback"]),
    )


def _run(reader: Reader, row: dict[str, Any], mask: Mask | None) -> Run:
    secrets = NO_SECRETS if row["error_message"] is None else reader.of_run(mask, row["id"])
    return Run(
        id=row["id"],
        workflow_name=row["workflow_name"],
        status=row["status"],
        trigger_name=row["trigger_name"],
        run_key=row["run_key"],
        parent_run=row["parent_run"],
        parent_task=row["parent_task"],
        parent_kind=row["parent_kind"],
        context=decoded(row["context"], mask),
        priority=row["priority"],
        due_at=row["due_at"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        took_seconds=row["took_seconds"],
        lain_seconds=row["lain_seconds"],
        error_message=secrets.hide_maybe(row["error_message"]),
        error_type=secrets.hide_maybe(row["error_type"]),
        cancel_requested=row["cancel_requested"],
    )


def _task(row: dict[str, Any], mask: Mask | None, secrets: Secrets) -> Task:
    hidden = {name: secrets.hide_maybe(row[name]) for name in ("error", "error_type")}
    parts = {**row, **hidden, "context": decoded(row.get("context"), mask)}
    parts["tries"] = [_attempt(attempt, secrets) for attempt in row["tries"]]
    return Task(**parts)


def _attempt(row: dict[str, Any], secrets: Secrets) -> Attempt:
    hidden = {name: secrets.hide_maybe(row[name]) for name in ("error", "error_type", "traceback")}
    return Attempt(**{**row, **hidden})
