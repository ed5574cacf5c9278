"""Whom the function of a previewed trigger asks in place of a runner: nobody runs, but there is a store.

Invariant: it answers what a runner would, as far as that is on record, and does nothing. Whatever else a
runner has is refused by its name, before anything of it has begun.
"""

from __future__ import annotations

import json

from .. import check, filters, registry, rows
from ..chosen import name_of_one
from ..errors import RunnerError, TriggerError, WorkflowError
from ..health import RUNNERS_MAX, health
from ..near import LOOKED_MAX
from ..runner import DefaultRunner
from .runners import living
from .store import MissingError, names, now, unknown
from .why import why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Never

    from ..types import Health, TriggerRef
    from .store import Reader

    Found = list[dict[str, Any]]

_INNER = (
    "row",
    "disabled_cause",
    "cursor",
    "last_fired_at",
    "owner",
    "is_declared",
    "in_body_since",
    "version",
    "due_at",
    "failures",
)
"""What a reader's rows of schedules have, and a runner's don't."""

# By schedules' rows.
IN_BODY = """
    SELECT row, in_body_since FROM schedules
    WHERE row IN (SELECT value FROM json_each(?)) AND in_body_since IS NOT NULL"""


class Looks:
    """The methods of a `DefaultRunner` that read, over a `Reader`."""

    only_looks = True

    list_runs = DefaultRunner.list_runs
    iter_runs = DefaultRunner.iter_runs
    get_run = DefaultRunner.get_run
    logs = DefaultRunner.logs
    audit = DefaultRunner.audit
    list_trigger_schedules = DefaultRunner.list_trigger_schedules
    get_trigger_schedule = DefaultRunner.get_trigger_schedule
    get_trigger_execution_history = DefaultRunner.get_trigger_execution_history
    ticks = DefaultRunner.ticks
    cursor = DefaultRunner.cursor
    list_cron_schedules = DefaultRunner.list_cron_schedules
    get_cron_schedule = DefaultRunner.get_cron_schedule
    list_limits = DefaultRunner.list_limits
    list_pauses = DefaultRunner.list_pauses
    list_runners = DefaultRunner.list_runners
    query = DefaultRunner.query

    _ticks = DefaultRunner._ticks
    _page = DefaultRunner._page
    _walk = DefaultRunner._walk
    _is_cron_by_now = DefaultRunner._is_cron_by_now
    _with_polled_here = DefaultRunner._with_polled_here
    _cron_id = DefaultRunner._cron_id
    _shown = DefaultRunner._shown
    _polled_by_now = DefaultRunner._polled_by_now
    _kept = DefaultRunner._kept
    _is_cron = DefaultRunner._is_cron

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._redactor = reader._redactor
        self._declarations = _Declarations()
        self._store = _Store(reader)

    @property
    def redacted(self) -> list[str]:
        """The keys that the store keeps to be hidden."""
        keys, _ = self._reader.native.redacted() or ([], False)
        return keys

    def why(self, trigger_name: TriggerRef) -> str:
        """What the store knows of why a trigger has not fired, in a sentence."""
        try:
            return why(self._reader, name := name_of_one(trigger_name))
        except MissingError as missing:
            if name in registry.triggers:
                return f"trigger '{name}' was never polled: no runner has declared it yet"
            raise TriggerError(str(missing)) from None

    def why_run(self, run_id: str) -> str:
        """What the store knows of where a run stands, in a sentence."""
        try:
            return why(self._reader, check.run_id(run_id))
        except MissingError as missing:
            raise WorkflowError(str(missing)) from None

    def health(self) -> Health:
        """Whether triggers are polled and runs begin, whoever serves the store."""
        native = self._reader.native
        on_server = check.on_server(self._reader.url)
        return health(native.query, native.owners(RUNNERS_MAX), self._reader.file, on_server=on_server)

    def _open(self) -> _Store:
        return self._store

    def _unknown_trigger(self, name: str) -> str:
        return str(unknown("trigger", name, "triggers", names(self._reader)))

    def __getattr__(self, name: str) -> Never:
        if not name.startswith("_") and hasattr(DefaultRunner, name):
            raise RunnerError(f"preview only looks; {name} is not called")
        raise AttributeError(f"a preview's runner has no {name!r}")

    def __repr__(self) -> str:
        return f"Looks({self._reader!r})"


class _Declarations:
    """What this process declares."""

    def has_polled(self, name: str) -> bool:
        declared = registry.triggers.get(name)
        return declared is not None and declared.kind.cron is None

    def has_cron(self, name: str | None) -> bool:
        declared = registry.triggers.get(name or "")
        return declared is not None and declared.kind.cron is not None


class _Store:
    """A reader by the names by which a runner's methods ask its engine."""

    def __init__(self, reader: Reader) -> None:
        native = reader.native
        self.store = self
        self.runs = _Runs(reader)
        self.schedules = _Schedules(reader, self.runs)
        self.look = self.query = native.query
        self.limits, self.pauses = native.limits, native.pauses
        self.owners, self.backlog = native.owners, native.backlog

    def now(self) -> int:
        return check.microseconds(now())

    def after_flush(self, call: Callable[[], Any], trigger: str | None = None) -> Any:
        """Nothing is on its way from here."""
        return call()

    def within(self, _seconds: float, call: Callable[[], Any]) -> Any:
        """Who only looks has a patience of its own."""
        return call()


class _Runs:
    def __init__(self, reader: Reader) -> None:
        self._native = reader.native
        self.place = reader.native.place

    def runs(self, wanted: dict[str, Any], limit: int, offset: int) -> Found:
        return self._native.runs(wanted, limit + offset)[offset:]

    def run(self, id: str, tries: bool = False) -> dict[str, Any] | None:
        row = self._native.run(id)
        for task in () if row is None else row["tasks"]:
            del task["context"]
            if not tries:
                del task["tries"]
        return row


class _Schedules:
    def __init__(self, reader: Reader, runs: _Runs) -> None:
        self._reader = reader
        self._native = reader.native
        self._runs = runs

    def triggers(self, enabled_only: bool, limit: int, offset: int) -> Found:
        return self._outer(self._listed(False, enabled_only, limit, offset))

    def trigger(self, name: str) -> dict[str, Any] | None:
        return next(iter(self._outer(self._named(name, False))), None)

    def crons(self, enabled_only: bool, limit: int, offset: int) -> Found:
        return self._outer(self._listed(True, enabled_only, limit, offset))

    def cron(self, id: str) -> dict[str, Any] | None:
        row = self._native.cron(id)
        return None if row is None else self._outer([row])[0]

    def cron_named(self, name: str) -> dict[str, Any] | None:
        return next(iter(self._outer(self._named(name, True))), None)

    def cursor(self, name: str, is_cron: bool) -> tuple[str | None] | None:
        found = self._named(name, is_cron)
        if not found and name in registry.triggers:
            # A runner would have declared it before its first poll.
            return (None,)
        return (found[0]["cursor"],) if found else None

    def ticks(self, name: str, limit: int) -> Found | None:
        # As a runner has it: what is polled under a name, or else runs by the calendar.
        found = self._named(name, False) or self._named(name, True)
        if not found:
            return [] if name in registry.triggers else None
        return self._native.ticks(found[0]["row"], limit, 0)

    def trigger_runs(self, name: str, limit: int, offset: int) -> tuple[str, Found] | None:
        found = self._named(name, False)
        wanted = {**filters.wanted(trigger=name), "contexts": False}
        return (found[0]["id"], self._runs.runs(wanted, limit, offset)) if found else None

    def _named(self, name: str, is_cron: bool) -> Found:
        return [row for row in self._native.named(name) if ("cron_expression" in row) == is_cron]

    def _listed(self, is_cron: bool, enabled_only: bool, limit: int, offset: int) -> Found:
        found = self._native.schedules(is_cron, 0, LOOKED_MAX if enabled_only else limit + offset)
        return [row for row in found if row["enabled"] or not enabled_only][offset : offset + limit]

    def _outer(self, found: Found) -> Found:
        """The rows as a runner has them. Since when one is late is not told: its grid is not on show."""
        alive = living(self._reader)
        asked = json.dumps([row["row"] for row in found])
        stuck = {row["row"]: row["in_body_since"] for row in self._native.query(IN_BODY, [asked])}
        shown = []
        for row in found:
            outer = {name: value for name, value in row.items() if name not in _INNER}
            if "cron_expression" not in row:
                owner = row["owner"] if row["owner"] in alive else None
                since = None if owner is None else stuck.get(row["row"])
                outer["polled_by"] = owner
                outer["next_poll_at"] = row["due_at"] if owner is not None and row["enabled"] else None
                outer["late_since"] = None
                outer["in_body_since"] = None if since is None else rows.moment(since)
            shown.append(outer)
        return shown
