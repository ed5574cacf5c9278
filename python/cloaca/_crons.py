"""What a runner says and does about crons.

Decides nothing: it checks arguments and words what the store refuses.
"""

from __future__ import annotations

import json

from . import check, registry, rows, why
from .chosen import name_of_one
from .context import decode_value, encode_within
from .errors import Dropped, ScheduleError, TriggerError, excerpt
from .listed import Listed
from .name import checked_name, is_text
from .near import LOOKED_MAX, hint, refuse_keywords, says_keywords
from .run import Run
from .tick import MOMENT_KEYS
from .trigger_arguments import CATCHUPS, OVERLAPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Any, Never

    from ._cloaca import Watch
    from .context import Context
    from .crew import Crew
    from .declarations import Declarations
    from .redact import Mask, Redactor
    from .served import Served
    from .types import Catchup, CronExecutionRow, CronScheduleRow, CronStats, Overlap, TriggerRef

_SAME_CRON = """
    SELECT other.id FROM schedules AS this JOIN schedules AS other ON other.workflow = this.workflow
    WHERE this.id = ? AND other.id <> this.id AND other.kind = 'cron' AND this.name = '' AND other.name = ''
      AND other.expression = ? AND other.timezone = ?"""

# By schedules_cron_name.
_POLLED = f"""
    SELECT name FROM schedules
    WHERE kind = 'cron' AND name <> '' AND name IN (SELECT value FROM json_each(?))
      AND {rows.TRIGGER_BY_NOW}"""

_RAN = """
    SELECT runs.scheduled_at AS at, runs.id AS id, runs.row AS row
    FROM runs JOIN schedules ON schedules.row = runs.schedule
    WHERE schedules.id = ? AND runs.scheduled_at >= ? AND runs.scheduled_at < ?"""

# Of several runs of a moment only one bears it, or none yet; the others have it in their contexts.
_RAN_TOO = """
    SELECT json_extract(runs.context, '$.scheduled_time') AS at, runs.id AS id, runs.row AS row
    FROM runs JOIN schedules ON schedules.row = runs.schedule
    WHERE schedules.id = ? AND runs.scheduled_at IS NULL"""

_BACKFILL = "Failed to back-fill cron schedule"

_IDS_SHOWN = 3
"""So many runs a message names; the exception has all of them."""

MOMENTS_MAX = 10_000
"""So many moments are back-filled at once."""


class Crons:
    """The part of a runner that is about crons."""

    if TYPE_CHECKING:
        _crew: Crew
        _declarations: Declarations
        _redactor: Redactor
        _served: Served

        def _open(self) -> Any: ...
        def _at_work(self, call: str) -> Any: ...

    def register_cron_workflow(
        self,
        workflow_name: str,
        cron_expression: str,
        timezone: str = "UTC",
        *,
        name: str | None = None,
        context: Context | Mapping[str, Any] | None = None,
        catchup: Catchup = "all",
        overlap: Overlap = "allow",
        **unknown: Never,
    ) -> str:
        """Schedules a workflow by the calendar, and returns the schedule's id. It is data: it runs in every
        runner, whatever programs declare, until `delete_cron_schedule` deletes it.

        Without a name the same three again give the same id. With one the name is its identity: the same name
        again with another workflow, expression or zone changes the schedule. So one workflow can be scheduled
        twice by the same expression.

        Args:
            cron_expression (str): five fields, six with seconds in front, or a nickname such as `@daily`.
            timezone (str): an IANA name.
            name (str | None): what its runs show as `trigger_name`. Of a trigger with `cron=` that has the
                same name it takes the schedule over: what is registered starts, the trigger's function is not
                called, and once this is deleted the declared one goes on.
            context (Context | Mapping | None): what its runs find in their contexts beside
                `scheduled_time`, `schedule_id`, `schedule_timezone` and `schedule_expression`.
            catchup (str): what becomes of moments that nobody was there for: `all` are made up for, up to
                `cron_max_catchup_executions`, only the `last`, or `none`.
            overlap (str): what a moment does while a run of the schedule is unfinished, as for a trigger.

        Raises:
            ScheduleError: (a `ValueError`) `Failed to register cron workflow`, with what is wrong.
            ContextError: (a `ValueError`) the context has more than `context_bytes_max` bytes; otherwise as
                `Context`.
        """
        if unknown:
            known = ("timezone", *(Crons.register_cron_workflow.__kwdefaults__ or ()))
            refuse_keywords("register_cron_workflow()", unknown, known)
        engine = self._open()
        for argument, value in (
            ("workflow_name", workflow_name),
            ("cron_expression", cron_expression),
            ("timezone", timezone),
        ):
            if not isinstance(value, str) or not value.strip() or not is_text(value):
                raise ScheduleError(
                    f"Failed to register cron workflow: {argument} is {excerpt(value)}; "
                    "it must be a non-empty str"
                )
        try:
            known_by = "" if name is None else checked_name(name, "name", TriggerError)
            parts = {
                "name": known_by,
                "is_declared": False,
                "workflow": workflow_name,
                "expression": cron_expression,
                "timezone": timezone,
                "context": _cron_context(engine.context_bytes_max, context),
                "overlap": _one_of(overlap, "overlap", OVERLAPS),
                "catchup": _one_of(catchup, "catchup", CATCHUPS),
                "version": "",
                "body": None,
            }
            made = str(engine.schedules.put_cron(parts))
        except (ScheduleError, TriggerError) as error:
            raise ScheduleError(f"Failed to register cron workflow: {error}") from None
        if not registry.knows(workflow_name) and not self._served.is_served(workflow_name):
            called = (
                excerpt(cron_expression) if name is None else f"{excerpt(name)}, {excerpt(cron_expression)},"
            )
            self._crew.warn(f"cron {called} {why.undeclared(workflow_name)}")
        return made

    def list_cron_schedules(
        self,
        enabled_only: bool | None = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        unmasked: bool = False,
    ) -> Listed[CronScheduleRow]:
        """Cron schedules in the order of their registration, at most 100 unless `limit` says more,
        without what is left of those whose name is a polled trigger's by now.

        `trigger_name` is the name of the trigger that declares it, or that `register_cron_workflow` gave it,
        or `None`. `declared` says whether this program declares a cron of that name, `registered` whether a
        call registered it, so that it runs whoever declares it. `context` is what was registered with it;
        `unmasked` shows what `redact=` hides of it, too.
        """
        found: list[CronScheduleRow] = self._open().schedules.crons(
            enabled_only is not None and check.flag(enabled_only, "enabled_only"), *check.page(limit, offset)
        )
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        polled = self._polled_by_now(found)
        shown = (
            self._shown(row, mask) for row in found if row["registered"] or row["trigger_name"] not in polled
        )
        return Listed(shown, "CronScheduleRow")

    def _polled_by_now(self, found: Sequence[CronScheduleRow]) -> set[str]:
        """Which of the names of these crons are by now those of polled triggers, or of such with `on_run`."""
        names = [row["trigger_name"] for row in found if row["trigger_name"] and not row["registered"]]
        if not names:
            return set()
        return {row["name"] for row in self._open().store.look(_POLLED, [json.dumps(names)])}

    def get_cron_schedule(self, schedule_id: TriggerRef, *, unmasked: bool = False) -> CronScheduleRow:
        """One cron schedule, by its id, its name or its function.

        Raises:
            ScheduleError: (a `ValueError`) `Invalid schedule ID`, or `Failed to get cron schedule` for an
            unknown one.
        """
        found = self._cron_id(schedule_id)
        row: CronScheduleRow | None = self._open().schedules.cron(found)
        if row is None:
            raise ScheduleError(f"Failed to get cron schedule: there is none with id {found}")
        return self._shown(row, self._redactor.mask(check.flag(unmasked, "unmasked")))

    def _cron_id(self, given: object) -> str:
        """A schedule's id, of the id itself, or of the name or the function of a cron."""
        engine = self._open()
        if callable(given):
            given = name_of_one(given)
        named = None
        if isinstance(given, str) and is_text(given) and not check.is_uuid(given):
            named = engine.schedules.cron_named(given)
        try:
            return check.schedule_id(given if named is None else named["id"])
        except ScheduleError as refused:
            if not isinstance(given, str) or not is_text(given):
                raise
            found = engine.schedules.crons(False, LOOKED_MAX, 0)
            names = sorted({row["trigger_name"] for row in found if row["trigger_name"]})
            raise ScheduleError(f"{refused}{hint(given, 'crons', names)}") from None

    def _shown(self, found: Any, mask: Mask | None) -> CronScheduleRow:
        row: CronScheduleRow = found
        row["declared"] = self._declarations.has_cron(row["trigger_name"])
        if (text := found["context"]) is not None:
            row["context"] = decode_value(text) if mask is None else mask.context(text)
        return row

    def update_cron_schedule(self, schedule_id: TriggerRef, cron_expression: str, timezone: str) -> None:
        """Replaces the expression and time zone of a cron schedule, which is told by its id, its name or its
        function.

        Raises:
            ScheduleError: (a `ValueError`) `Failed to update cron schedule`, with what is wrong.
        """
        engine = self._open()
        found = self._cron_id(schedule_id)
        for name, value in (("cron_expression", cron_expression), ("timezone", timezone)):
            if not isinstance(value, str) or not is_text(value):
                raise ScheduleError(
                    f"Failed to update cron schedule: {name} is {excerpt(value)}; it must be a str"
                )
        for other in engine.store.look(_SAME_CRON, [found, cron_expression, timezone]):
            raise ScheduleError(
                f"Failed to update cron schedule: its workflow already has {cron_expression!r} in "
                f"{timezone!r}, as schedule {other['id']}; change or delete that one"
            )
        try:
            done = engine.schedules.update_cron(found, cron_expression, timezone)
        except ScheduleError as error:
            raise ScheduleError(f"Failed to update cron schedule: {error}") from None
        if not done:
            raise ScheduleError(f"Failed to update cron schedule: there is none with id {found}")

    def set_cron_schedule_enabled(self, schedule_id: TriggerRef, enabled: bool) -> None:
        """Switches a cron schedule, told by its id, its name or its function; kept across restarts."""
        found = self._cron_id(schedule_id)
        if not self._open().schedules.set_cron_enabled(found, check.flag(enabled, "enabled")):
            raise ScheduleError(f"Failed to update cron schedule: there is none with id {found}")

    def delete_cron_schedule(self, schedule_id: TriggerRef) -> None:
        """Deletes a cron schedule, told by its id, its name or its function; its runs stay. A declared cron
        that it had taken over goes on from now.

        Raises:
            ScheduleError: (a `ValueError`) `Invalid schedule ID`, or `Failed to delete cron schedule` for an
                unknown one, or one that a living program declares: it is deleted there, with its
                declaration, or switched off with `set_cron_schedule_enabled`.
        """
        engine = self._open()
        found = self._cron_id(schedule_id)
        cron = engine.schedules.cron(found)
        is_gone, declared_by = engine.schedules.delete_cron(found)
        if cron is not None and declared_by is not None:
            name = cron["trigger_name"]
            if declared_by == engine.runs.owner():
                where, way_out = "in this program", f"call cloaca.unregister_trigger({name!r}) first"
            else:
                where, way_out = f"by runner {declared_by} of this store", "unregister it there first"
            raise ScheduleError(
                f"Failed to delete cron schedule: trigger {excerpt(name)} is declared {where}; {way_out}, or"
                f" switch it off with set_cron_schedule_enabled({found!r}, False)"
            )
        if not is_gone:
            raise ScheduleError(f"Failed to delete cron schedule: there is none with id {found}")

    @says_keywords("backfill()")
    def backfill(
        self, schedule_id: TriggerRef, start: str | datetime, end: str | datetime | None = None
    ) -> list[Run]:
        """Starts a run for each moment of a cron schedule that has gone by, from `start` on and before `end`.

        A moment that has runs is not run again: those are returned in its place. So a call that was cut
        off can be made again. What the schedule says now holds: its expression, its zone, its context. If
        its function has a parameter, it is called for each moment that has no run, one after another on this
        thread, and its cursor stays; otherwise all begin in one transaction. With another `overlap` than
        `allow` the runs wait for one another. The schedule may be switched off; its own next moment stays.

        Args:
            schedule_id (str | Callable): what `register_cron_workflow` returned, or `list_cron_schedules`
                shows; or the cron's name, or its function.
            start (str | datetime): RFC 3339, or a `datetime`; UTC if it has no zone.
            end (str | datetime | None): the same; now if it is left out.

        Returns:
            The runs, by their moments.

        Raises:
            ScheduleError: (a `ValueError`) `Failed to back-fill cron schedule`: there is none with that id,
                `end` lies ahead, or before `start`, there are more than 10,000 moments, or its function
                decides them and this runner leaves it out; `Invalid schedule ID`, `Invalid datetime format`.
            WorkflowError: (a `ValueError`) this program does not declare its workflow.
            TriggerError: (a `ValueError`) its function failed for a moment, or raised `RetryAfter`; the runs
                of those before it are started, and the same call goes on from there.
            Dropped: (a `RuntimeError`) a limit of its workflow drops some; `started` has the ids of the
                others. A function is called for no moment behind.
        """
        self._at_work("backfill")
        first, last = self._past(start, end)
        known_by = self._cron_id(schedule_id)
        found = self._moments(known_by, first, last)
        cron = self.get_cron_schedule(known_by)
        ran = self._ran(known_by, first, last, [at for at, _ in found])
        runs = {at: [self._found(run_id) for run_id in ran[at]] for at, _ in found if at in ran}
        due = [(at, context) for at, context in found if at not in ran]
        registry.workflow(cron["workflow_name"])
        place = self._declarations.decider(cron)
        declared = None if cron["registered"] else registry.triggers.get(cron["trigger_name"] or "")
        if place is None and declared is not None and declared.takes_tick:
            raise ScheduleError(
                f"{_BACKFILL}: the function of {declared.name!r} decides its moments, and this runner is not"
                " for it; give triggers= that one, or back-fill in a runner that serves it"
            )
        started: list[Run] = []
        if place is None:
            started = self._start_moments(known_by, [(at, [context]) for at, context in due], started)
            runs |= {at: [run] for (at, _), run in zip(due, started, strict=True)}
            return [run for _, its in sorted(runs.items()) for run in its]
        for at, context in due:
            ruling: Any = self._crew.decide_now(place, rows.moment(at), context)
            decided = rows.tick(ruling)
            if decided["outcome"] == "error":
                raise TriggerError(f"{_BACKFILL}: its moment {rows.moment(at)}: {decided['reason']}")
            if rows.asks_again(ruling):
                raise TriggerError(
                    f"{_BACKFILL}: its moment {rows.moment(at)}: {decided['reason']}, as its function asks;"
                    " call backfill again then, which goes on from there"
                )
            fires = [text for text, *_ in ruling[0]] if decided["fires"] else []
            runs[at] = self._start_moments(known_by, [(at, fires)], started)
            started += runs[at]
        return [run for _, its in sorted(runs.items()) for run in its]

    def _ran(self, schedule_id: str, first: int, last: int, moments: list[int]) -> dict[int, list[str]]:
        """The ids of the runs of each of these moments that has some."""
        look = self._open().store.query
        ran = {row["at"]: [(row["row"], row["id"])] for row in look(_RAN, [schedule_id, first, last])}
        told = {rows.moment(at): at for at in moments}
        for row in look(_RAN_TOO, [schedule_id]):
            if (at := told.get(row["at"])) is not None:
                ran.setdefault(at, []).append((row["row"], row["id"]))
        return {at: [run_id for _, run_id in sorted(its)] for at, its in ran.items()}

    def _past(self, start: str | datetime, end: str | datetime | None) -> tuple[int, int]:
        """From when on and before when moments are back-filled."""
        first, now = check.microseconds(start, "start"), self._open().now()
        last = now if end is None else check.microseconds(end, "end")
        if last > now:
            raise ScheduleError(f"{_BACKFILL}: end is {excerpt(end)}, which lies ahead; its time will come")
        if first > last:
            ends = "now" if end is None else f"end, {excerpt(end)}"
            raise ScheduleError(f"{_BACKFILL}: start is {excerpt(start)}, which comes after {ends}")
        return first, last

    def _moments(self, schedule_id: str, first: int, last: int) -> list[tuple[int, str]]:
        """The moments of a cron in that time, each with what a run of it begins with."""
        found = self._open().schedules.moments(schedule_id, first, last, MOMENTS_MAX + 1)
        if found is None:
            raise ScheduleError(f"{_BACKFILL}: there is none with id {schedule_id}")
        if len(found) > MOMENTS_MAX:
            raise ScheduleError(
                f"{_BACKFILL}: there are more than {MOMENTS_MAX} moments; end it at"
                f" {rows.moment(found[-1][0])}, and go on from there"
            )
        return list(found)

    def _start_moments(
        self, schedule_id: str, moments: list[tuple[int, list[str]]], before: list[Run]
    ) -> list[Run]:
        watches = self._open().schedules.backfill(schedule_id, moments)
        if watches is None:
            raise ScheduleError(f"{_BACKFILL}: there is none with id {schedule_id}")
        found: list[Run] = []
        dropped: list[tuple[int, Dropped]] = []
        for at, watch in zip((at for at, fires in moments for _ in fires), watches, strict=True):
            try:
                watch.wait_started()
            except Dropped as refused:
                dropped.append((at, refused))
                continue
            # Another process may have been there first.
            is_own = watch.stands_for is None
            found.append(self._found(watch.id, watch) if is_own else self._found(watch.stands_for))
        if dropped:
            at, first = dropped[0]
            ids = [run.id for run in [*before, *found]]
            raise Dropped(
                f"{_BACKFILL}: {_counted(ids)} started, {len(dropped)} dropped, the first of them for its"
                f" moment {rows.moment(at)}: {first}",
                first.rule,
                first.key,
                ids,
            )
        return found

    def _found(self, run_id: str, watch: Watch | None = None) -> Run:
        runner: Any = self
        return Run(runner, run_id, watch)

    def get_cron_execution_history(
        self, schedule_id: TriggerRef, limit: int | None = None, offset: int | None = None
    ) -> Listed[CronExecutionRow]:
        """The moments that a cron schedule, told by its id, its name or its function, ran, newest first."""
        known_by = self._cron_id(schedule_id)
        found = self._open().schedules.cron_runs(known_by, *check.page(limit, offset))
        if found is None:
            raise ScheduleError(f"Failed to get cron schedule: there is none with id {known_by}")
        for row in found:
            # Of several runs of a moment one bears its time; where that of another stands is read by itself.
            if row["scheduled_time"] is None and (whole := self._open().runs.run(row["id"])) is not None:
                row["context"] = whole["context"]
        return Listed((rows.cron_execution(known_by, row) for row in found), "CronExecutionRow")

    def get_cron_execution_stats(self, since: str | datetime) -> CronStats:
        """Cron runs since an RFC 3339 time: `total_executions successful_executions lost_executions
        success_rate` (per cent).

        Raises:
            ScheduleError: (a `ValueError`) `Invalid datetime format`.
        """
        total, successful, lost = self._open().schedules.cron_stats(check.microseconds(since))
        rate = 100.0 * successful / total if total else 0.0
        return {
            "total_executions": total,
            "successful_executions": successful,
            "lost_executions": lost,
            "success_rate": rate,
        }


def _one_of(value: object, argument: str, known: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in known:
        return value
    raise ScheduleError(f"{argument} is {excerpt(value)}; it must be {', '.join(known)}")


def _cron_context(bytes_max: int, context: Context | Mapping[str, Any] | None) -> str | None:
    """What is kept for the contexts of a cron's runs, as JSON text."""
    if context is None:
        return None
    text = encode_within(bytes_max, context, "the context of a cron")
    taken = [key for key in MOMENT_KEYS if key in decode_value(text)]
    if taken:
        raise ScheduleError(f"context holds {', '.join(taken)}, which each run is given; leave that out")
    return text


def _counted(ids: list[str]) -> str:
    if not ids:
        return "no run is"
    shown = ", ".join(ids[:_IDS_SHOWN]) + (", ..." if len(ids) > _IDS_SHOWN else "")
    return f"1 run is ({shown})" if len(ids) == 1 else f"{len(ids)} runs are ({shown})"
