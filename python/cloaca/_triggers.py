"""What a runner says and does about triggers.

Decides nothing: it checks arguments and words what the engine knows.
Longer than a room should be: one public method after another, each with what it promises.
"""

from __future__ import annotations

from time import monotonic

from . import attempt, check, registry, rows, why
from .chosen import name_of_one
from .context import decode_value, encode_within
from .errors import RunnerError, StoreError, TriggerError, excerpt
from .listed import Listed
from .name import checked_name, unheard
from .near import LOOKED_MAX, hint, says_keywords
from .plain import INFO, WARNING, say
from .redact import hide_tick
from .served import RUNNERS_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from ._cloaca import PollNow
    from .crew import Crew
    from .declarations import Declarations
    from .redact import Mask, Redactor
    from .served import Served
    from .types import (
        CronScheduleRow,
        TickAnswer,
        TickRow,
        TriggerExecutionRow,
        TriggerRef,
        TriggerScheduleRow,
    )
    from .why import Way

_log = "cloaca"

TICK_SECONDS_MAX = 5.0
"""How long `tick` waits for a poll in flight, or for a trigger of a runner that has died."""

LOOK_SECONDS = 0.02
"""How often `tick` looks meanwhile whether that one is polled here by now."""


_OWNER = """
    SELECT epoch FROM schedules JOIN owners ON epoch = owner AND left_at IS NULL
    WHERE kind = 'trigger' AND schedules.name = ?"""


_TICKS_LOOKED_MAX = 20
"""Among so many rows of the history that of a poll out of turn is looked for."""

# Primary key of `declared`, index schedules_trigger.
_VERSIONS = """
    SELECT owner, declared.version FROM declared JOIN owners ON epoch = owner AND left_at IS NULL
    WHERE name = ?1
    UNION
    SELECT owner, schedules.version FROM schedules JOIN owners ON epoch = owner AND left_at IS NULL
    WHERE kind = 'trigger' AND name = ?1 AND schedules.version > 0"""

# By the indices of names.
_IS_CRON = f"SELECT 1 FROM schedules WHERE kind = 'trigger' AND name = ?1 AND {rows.CRON_BY_NOW}"

# As `rows.UNFINISHED` has those of a row.
_UNFINISHED = rows.UNFINISHED.replace(
    "?1", "(SELECT row FROM schedules WHERE kind = 'cron' AND name = ?1 AND name <> '')"
)

_CURSOR = "SELECT cursor FROM schedules WHERE kind = 'trigger' AND name = ?"


# By an index each: there may be a million.
_NAMES = """
    SELECT * FROM (SELECT name FROM schedules WHERE kind = 'trigger' ORDER BY name LIMIT ?1) AS polled
    UNION
    SELECT * FROM (SELECT name FROM schedules WHERE kind = 'cron' AND name <> '' ORDER BY name LIMIT ?1)
        AS crons"""


class Triggers:
    """The part of a runner that is about triggers."""

    if TYPE_CHECKING:
        _crew: Crew
        _declarations: Declarations
        _redactor: Redactor
        _served: Served
        _paused: bool

        @property
        def _idles(self) -> str: ...
        def _of_idle(self, workflow: str | None) -> str: ...
        def _open(self) -> Any: ...
        def _of_paused(self, workflow: str) -> str: ...
        def _has_stopped(self) -> bool: ...
        def _at_work(self, call: str) -> Any: ...
        def _working(self) -> Any: ...
        def _begun(
            self, workflow: str, encoded: list[str], keys: None, calls: None, when: Any, trigger: str | None
        ) -> list[Any]: ...
        def _blocks(self, call: str, twin: str, *, waits_for: str | None = None) -> None: ...

    def list_trigger_schedules(
        self, enabled_only: bool | None = None, limit: int | None = None, offset: int | None = None
    ) -> Listed[TriggerScheduleRow]:
        """Triggers in the order of their registration, at most 100 unless `limit` says more. `declared` says
        whether this program declares it, as one that is polled.

        `polled_by` is the number of the living runner that polls it, as in `list_runners`, and `next_poll_at`
        when it is due next there. `late_since` is the first due time at which nobody polled, if that is more
        than 10 seconds ago and it is switched on. `in_body_since` is since when a poll has not come back that
        takes more than a minute, or ten of its intervals; written within 5 seconds. What is a cron by now is
        in `list_cron_schedules`."""
        only = enabled_only is not None and check.flag(enabled_only, "enabled_only")
        page = check.page(limit, offset)

        def listed() -> Listed[TriggerScheduleRow]:
            found: list[TriggerScheduleRow] = self._open().schedules.triggers(only, *page)
            shown = (self._with_polled_here(row) for row in found if not self._is_cron_by_now(row))
            return Listed(shown, "TriggerScheduleRow")

        told: Listed[TriggerScheduleRow] = self._open().store.after_flush(listed)
        return told

    def get_trigger_schedule(self, trigger_name: TriggerRef) -> TriggerScheduleRow | None:
        """One trigger; `None` for an unknown name, or one that is a cron by now."""
        name = name_of_one(trigger_name)

        def shown() -> TriggerScheduleRow | None:
            row: TriggerScheduleRow | None = self._open().schedules.trigger(name)
            return None if row is None or self._is_cron_by_now(row) else self._with_polled_here(row)

        told: TriggerScheduleRow | None = self._open().store.after_flush(shown)
        return told

    def set_trigger_enabled(self, trigger_name: TriggerRef, enabled: bool) -> None:
        """Switches a trigger's polling, or its cron; kept across restarts, and when a deploy makes a cron
        of what was polled, or the other way round.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        schedules = self._open().schedules
        name, enabled = name_of_one(trigger_name), check.flag(enabled, "enabled")
        cron = self._cron_of(name)
        # A name may have been polled before it was a cron, or the other way round: both rows are switched.
        # The cron first: what it missed while it was off is not made up for.
        is_cron = cron is not None and schedules.set_cron_enabled(cron["id"], enabled)
        if not schedules.set_trigger_enabled(name, enabled) and not is_cron:
            raise TriggerError(self._unknown_trigger(name))

    def skip_end(self, trigger_name: TriggerRef, run_id: str | None = None) -> str | None:
        """Has a trigger with `on_run` go on without the next end of a run that it is to be told of, or the
        first one of a run, from any program that has opened the store, and whoever calls its function: the
        way out where that fails for one end again and again, and all ends after it wait.

        What failed before counts no more, and the next end is told at once. If a call about that very end
        is under way, it goes on to its return, and what comes of it counts for nothing: neither its fires
        nor its failure. One line in the log, and of what was next one in `ticks`, tell of it. A trigger that
        is switched off stays so. It can't be taken back; a run that is retried has another end.

        Args:
            trigger_name (str | Callable): its name or its function.
            run_id (str): of which run; that of the next end if not given.

        Returns:
            The id of the run whose end was skipped; `None` if none waits, or it was told just now.

        Raises:
            TriggerError: (a `ValueError`) no such trigger, or it has no `on_run`.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        schedules = self._open().schedules
        name = name_of_one(trigger_name)
        run_id = None if run_id is None else check.run_id(run_id)
        row = schedules.trigger(name)
        if row is None and self._cron_of(name) is None:
            raise TriggerError(self._unknown_trigger(name))
        if row is None or row["on_run"] is None:
            raise TriggerError(unheard(name))
        skipped: str | None = schedules.skip_end(name, run_id)
        if skipped is not None:
            about = {"cloaca_trigger": name, "cloaca_run": skipped}
            say(
                _log,
                INFO,
                "trigger '%s': the end of run %s was skipped by a call",
                name,
                skipped,
                about=about,
            )
        return skipped

    def forget(self, trigger_name: TriggerRef) -> None:
        """Deletes what the store keeps of a trigger, polled or a cron, that this program does not declare:
        its cursor, its schedule, whether it is switched off, its history and its run keys.

        Its runs stay, and go on if they are not over; they are no trigger's then. Declared again, it begins
        as if it had never been. Of ends of runs that waited for one with `on_run` the log says how many they
        were. A cron that another program declares runs there again once that declares it again, which each
        start does. `delete_cron_schedule` deletes what `register_cron_workflow` registered.

        Raises:
            TriggerError: (a `ValueError`) no such trigger is kept, this program declares it (call
                `cloaca.unregister_trigger` first), or another runner of the store polls it.
        """
        engine = self._open()
        name = name_of_one(trigger_name)
        waiting = why.ends_waiting(engine.store.look, name)
        if not self._declarations.forget(name):
            cron = self._cron_of(name)
            if cron is not None:
                raise TriggerError(
                    f"cron {excerpt(name)} was registered by a call and is no declaration's; "
                    f"call delete_cron_schedule({cron['id']!r})"
                )
            raise TriggerError(self._unknown_trigger(name))
        if waiting:
            text = "trigger '%s' was forgotten; %s, and will not be told to it"
            say(_log, WARNING, text, name, why.of_ends(waiting, name), about={"cloaca_trigger": name})

    def rename(self, trigger_name: str, new_name: str) -> None:
        """Gives what the store keeps of a trigger, polled or a cron, another name: its cursor, its run keys,
        its runs and history, what it was to do next and whether it is switched off.

        A program that declares the trigger under the new name goes on where the old one ended. Without this
        a name is all that tells one trigger from another: a new one begins as if it had never been, and what
        it finds is handled again. Do it between the end of the last program with the old name and the start
        of the first one with the new; `cloaca rename` does it without a program.

        Args:
            trigger_name (str): the name that it was declared by.
            new_name (str): the one that it is to be declared by.

        Raises:
            TriggerError: (a `ValueError`) no such trigger is kept, this program declares it (call
                `cloaca.unregister_trigger` first), another runner of the store serves it, something is kept
                under the new name already, or that is no name for a trigger.
        """
        self._open()
        name = check.text(trigger_name, "trigger_name", TriggerError)
        new_name = checked_name(new_name, "new_name", TriggerError)
        if name == new_name:
            raise TriggerError(f"new_name is {excerpt(new_name)}, as it is called already; give another one")
        if not self._declarations.rename(name, new_name):
            cron = self._cron_of(name)
            if cron is not None:
                raise TriggerError(
                    f"cron {excerpt(name)} was registered by a call, under that name; register it under the"
                    f" other, and call delete_cron_schedule({cron['id']!r})"
                )
            raise TriggerError(self._unknown_trigger(name))

    def _is_cron_by_now(self, row: TriggerScheduleRow) -> bool:
        """Whether that is left of a trigger that was polled, or told of ends, before it was a cron."""
        is_polled = row["polled_by"] is not None
        return not is_polled and bool(self._open().store.look(_IS_CRON, [row["trigger_name"]]))

    def _is_cron_elsewhere(self, name: str) -> bool:
        """The same of a name that this runner does not poll."""
        row = self._open().schedules.trigger(name)
        return row is not None and not self._declarations.has_polled(name) and self._is_cron_by_now(row)

    def _with_polled_here(self, row: TriggerScheduleRow) -> TriggerScheduleRow:
        row["declared"] = self._declarations.has_polled(row["trigger_name"])
        return row

    def get_trigger_execution_history(
        self, trigger_name: TriggerRef, limit: int | None = None, offset: int | None = None
    ) -> Listed[TriggerExecutionRow]:
        """The runs that a trigger fired, newest first; empty for an unknown name."""
        found = self._open().schedules.trigger_runs(name_of_one(trigger_name), *check.page(limit, offset))
        if found is None:
            return Listed([], "TriggerExecutionRow")
        schedule_id, fired = found
        return Listed((rows.trigger_execution(schedule_id, row) for row in fired), "TriggerExecutionRow")

    @says_keywords("ticks()")
    def ticks(self, trigger_name: TriggerRef, last: int = 50, *, unmasked: bool = False) -> Listed[TickRow]:
        """What a trigger's polls answered, newest first, with equal answers in a row as one; of a cron whose
        function or `overlap` decides its moments, what those came to. With `unmasked`, also what `redact=`
        hides in their reasons."""
        name, last = name_of_one(trigger_name), check.count(last, "last")
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        told: Listed[TickRow] = self._open().store.after_flush(lambda: self._ticks(name, last, mask), name)
        return told

    def _ticks(self, name: str, last: int, mask: Mask | None) -> Listed[TickRow]:
        found = self._open().schedules.ticks(name, last)
        if found is None:
            raise TriggerError(self._unknown_trigger(name))
        rows: Listed[TickRow] = Listed(found, "TickRow")
        if mask is not None:
            secrets = self._redactor.of_trigger(mask, name)
            for row in rows:
                row["reason"] = secrets.hide_maybe(row["reason"])
        return rows

    def why(self, trigger_name: TriggerRef) -> str:
        """One sentence that says what a trigger does, and why it has not fired; while several versions of it
        are declared, also by whom. A cron that was registered without a name is told by its id.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        return self._told_why(name_of_one(trigger_name), why.by_call)

    def _told_why(self, name: str, way: Way) -> str:
        store = self._open().store
        told: str = store.within(
            why.LOOKS_SECONDS, lambda: store.after_flush(lambda: self._why_now(name, way), name)
        )
        return told

    def _why_now(self, name: str, way: Way) -> str:
        try:
            told = self._redactor.of_trigger(self._redactor.mask(), name).hide(self._why(name, way))
        except (RunnerError, StoreError):
            # What it reads from may be what it has stopped for.
            if not self._has_stopped():
                raise
            return why.STOPPED
        if self._has_stopped():
            return f"{why.STOPPED}; before that: {told}"
        return told + why.versions(self._versions(name), self._open().runs.owner())

    def _versions(self, name: str) -> list[tuple[int, int]]:
        """The living runners that declare a trigger, each with the number of its version."""
        return [(row["owner"], row["version"]) for row in self._open().store.look(_VERSIONS, [name])]

    def _why(self, name: str, way: Way) -> str:
        standing = self._open().polls.standing(name)
        is_declared = self._declarations.has_cron(name)
        if is_declared or standing is None or self._is_cron_elsewhere(name):
            cron = self._cron_of(name)
            if cron is not None:
                absent = None
                if not cron["registered"] and not (is_declared and self._idles):
                    absent = why.absent_cron(is_declared, self._leaves_out(name))
                deciding = self._open().polls.deciding(cron["id"])
                told = why.of_cron(name, cron, deciding, absent, self._served.is_served)
                silence = why.of_silence(self._open().store.takes_nothing(), None, None, None)
                besides = f"{silence}{self._besides(name, None, cron['workflow_name'], way)}{self._idles}"
                return f"{told}{besides}{self._of_idle(cron['workflow_name'])}"
        if standing is None:
            if self._paused and name in registry.triggers:
                return why.unknown_yet(name)
            if check.is_uuid(name) and (row := self._open().schedules.cron(name)) is not None:
                deciding = self._open().polls.deciding(row["id"])
                told = why.of_cron(name, row, deciding, None, self._served.is_served)
                idle = f"{self._idles}{self._of_idle(row['workflow_name'])}"
                return f"{told}{idle}{self._of_paused(row['workflow_name'])}"
            raise TriggerError(self._unknown_trigger(name))
        if standing["standing"] is None:
            standing["declared"] = name in self._declarations.places
            standing["polled_by"] = self._polled_by(name)
            standing["paused"] = self._paused
            standing["left_out"] = self._leaves_out(name)
        if standing["standing"] is None or standing["standing"]["elsewhere"]:
            heard = why.ends_of(standing["on_run"], standing["on_run_status"])
            engine = self._open()
            standing["put_off"] = why.put_off(engine.store.look, name, engine.now(), None, heard)
        ticks = self.ticks(name, 1)
        definition = registry.triggers.get(name)
        fired = None if definition is None or standing["standing"] is None else definition.kind.workflow
        is_known = fired is None or registry.knows(fired)
        last = ticks[0] if ticks else None
        fires = fired if is_known else None
        here = standing["standing"]
        heard = why.ends_of(standing["on_run"], standing["on_run_status"])
        polled_at = None if here is None else here["last_poll_at"]
        silence = why.of_silence(self._open().store.takes_nothing(), polled_at, last, heard)
        told = f"{why.sentence(standing, ticks)}{silence}{self._besides(name, last, fires, way)}"
        if standing["standing"] is None and standing["polled_by"] is None and standing["enabled"]:
            told += self._of_idle(None)
        return told if fired is None or is_known else f"{told}; it {why.undeclared(fired)}"

    def _besides(self, name: str, last: TickRow | None, workflow: str | None, way: Way) -> str:
        """What the store tells beside what a trigger does."""
        engine, mask = self._open(), self._redactor.mask()
        kept = why.Kept(
            run=engine.runs.run,
            runs=lambda wanted, limit: engine.runs.runs(wanted, limit, 0),
            pauses=engine.store.pauses,
            hide=lambda run_id, text: self._redactor.of_run(mask, run_id).hide(text),
            look=engine.store.look,
            way=way,
            idle=lambda: self._of_idle(None),
        )
        return why.besides(kept, name, last, workflow)

    def tick(self, trigger_name: TriggerRef, dry_run: bool = False, *, unmasked: bool = False) -> TickAnswer:
        """Polls a trigger once, now, on this thread. A trigger that is a cron is run once, now, beside its
        calendar: its function, if it has a parameter, decides a moment, which is now, and what it fires, or
        else its workflow with the context of that moment, starts. No moment and no run key is used up, and
        its cursor stays.

        Args:
            dry_run (bool): only look: nothing is stored and nothing starts. The store plays the tick as a
                real one, and takes that back; each fire then has a `gate`: what would become of it now
                (`verdict`: `run`, `queue`, `deduplicate`, `refuse_key`, `drop`, `hold_back` or `fail`), the
                `run` that is the cause, and the `reason`. Of a cron whose function has a parameter it is
                what a moment of its calendar would come to now, which minds run keys, equal contexts and
                `overlap=`. `outcome` is what the function answered, and
                `cursor` where it would stand if all fires were taken.
            unmasked (bool): show what `redact=` hides, too.

        Returns:
            A dict with `outcome` (`"skip"`, `"fire"` or `"error"`), `reason`, `fires` (dicts with `context`
            and `run_key`) and
            `cursor` (the new one, if it moved). Of fires that started no run the outcome is `"skip"`, and the
            reason says why.

        Raises:
            TriggerError: (a `ValueError`) no such trigger in this program.
            RunnerError: (a `RuntimeError`) another runner of the store polls it, or it has been polled for
                longer than 5 s.
            StoreError: (a `RuntimeError`) the store has taken nothing for 30 s: what it fired is not kept
                yet.
        """
        check.flag(dry_run, "dry_run")
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        name = name_of_one(trigger_name)
        decided = self._tick(name, dry_run)
        return hide_tick(decided, mask, self._redactor.of_trigger(mask, name))

    def _tick(self, name: str, dry_run: bool) -> TickAnswer:
        engine = self._at_work("tick")
        deadline = monotonic() + TICK_SECONDS_MAX
        if self._crew.on_loop() is not None:
            definition = registry.triggers.get(name)
            is_async = definition is not None and definition.is_async
            self._blocks(
                "tick()", "tick_async()", waits_for=f"async trigger {excerpt(name)}" if is_async else None
            )
        if name not in self._declarations.places and (cron := self._runs_here(name)) is not None:
            return self._tick_cron(cron, dry_run)
        # A trigger that was declared a moment ago has no row yet.
        places = self._declarations.places
        begun: PollNow | Literal[False] | None = None
        try:
            while not (begun := engine.polls.poll_now(name)) and (begun is None or name in places):
                self._refuse_own(engine, name)
                is_elsewhere = self._is_elsewhere(name)
                if is_elsewhere and (monotonic() > deadline or self._is_alive(self._polled_by(name))):
                    raise self._polled_elsewhere(name)
                if monotonic() > deadline or engine.wait_closing(LOOK_SECONDS if is_elsewhere else 0.005):
                    raise RunnerError(f"trigger {excerpt(name)} is being polled and does not come back")
            if not begun:
                raise self._undeclared(name)
            before = self._kept_cursor(name)
            ruling, told = self._crew.poll_now(begun, dry_run)
            decided = rows.tick(ruling)
            for fire, verdict in zip(decided["fires"], told, strict=False):
                fire["gate"] = rows.gate(*verdict)
        except BaseException:
            # Ctrl-C, or a store that doesn't answer: a poll that was begun is called off.
            if begun:
                begun.look()
            raise
        if not dry_run and (decided["outcome"] == "fire" or decided["cursor"] is not None):
            engine.polls.keep(name)
        else:
            engine.polls.flush(name)
        if not dry_run:
            # Fires with cursors: only the store knows which of them were taken.
            after = self._kept_cursor(name)
            decided["cursor"] = None if after in (before, None) else decode_value(after)
            if decided["outcome"] == "fire":
                from .job import Ticket

                self._tell_fates(name, Ticket(*begun.ticket).began_us, decided)
        return decided

    def _tell_fates(self, name: str, began_us: int, decided: TickAnswer) -> None:
        """Says of a poll that fired what the history says of it: only the store knows what became of it."""
        began = rows.moment(began_us)
        for row in self._open().schedules.ticks(name, _TICKS_LOOKED_MAX) or ():
            if row["first_at"] <= began <= row["last_at"]:
                decided["outcome"], decided["reason"] = row["outcome"], row["reason"]
                return

    def _undeclared(self, name: str) -> TriggerError:
        if (owner := self._polled_by(name)) is not None and not self._leaves_out(name):
            return TriggerError(
                f"trigger {excerpt(name)} is not declared in this program; runner {owner} of this store "
                "polls it, call tick there"
            )
        return TriggerError(self._unknown_trigger(name))

    def _tick_cron(self, cron: CronScheduleRow, dry_run: bool) -> TickAnswer:
        """Runs a cron once, beside its calendar."""
        engine = self._open()
        workflow = cron["workflow_name"]
        if registry.workflow(workflow) is None:
            error = f"trigger {excerpt(cron['trigger_name'])} {why.undeclared(workflow)}"
            return {"outcome": "error", "reason": error, "fires": [], "cursor": None}
        at = rows.moment(engine.now())
        context: dict[str, Any] = (cron["context"] or {}) | {
            "scheduled_time": at,
            "schedule_id": cron["id"],
            "schedule_timezone": cron["timezone"],
            "schedule_expression": cron["cron_expression"],
        }
        encoded = encode_within(engine.context_bytes_max, context, "the context")
        ruling: Any = ([(encoded, None, None, None, None, None, None)], None, "", None, None)
        place = self._declarations.decider(cron)
        if place is not None:
            ruling = self._crew.decide_now(place, at, encoded)
        decided = rows.tick(ruling)
        decided["cursor"] = None
        if dry_run and decided["fires"]:
            told = self._foretold(cron, place, ruling[0])
            for fire, verdict in zip(decided["fires"], told, strict=True):
                fire["gate"] = rows.gate(*verdict)
        if not dry_run and decided["fires"]:
            for text, *_, when, _ in ruling[0]:
                for watch in self._begun(workflow, [text], None, None, when, cron["trigger_name"]):
                    watch.wait_started()
        return decided

    def _foretold(
        self, cron: CronScheduleRow, place: int | None, fires: list[Any]
    ) -> list[tuple[Any, str | None, str]]:
        """What would become of what a cron fires now: as a moment of its calendar if its function decides."""
        engine = self._open()
        name = cron["trigger_name"] or ""
        declared = None if place is None else registry.triggers.get(name)
        if declared is None:
            asked = [(text, when) for text, *_, when, _, _ in fires]
            plain: list[tuple[Any, str | None, str]] = engine.runs.foretell_starts(
                cron["workflow_name"], asked
            )
            return plain
        held = engine.store.look(_UNFINISHED, [name])
        terms = declared.kind.allow_concurrent, declared.overlap or "allow"
        guards = [(run["id"], run["context_hash"]) for run in held]
        told: list[tuple[Any, str | None, str]] = engine.schedules.foretell_moment(name, terms, fires, guards)
        return told

    def _kept_cursor(self, name: str) -> Any:
        kept = self._open().store.look(_CURSOR, [name])
        return kept[0]["cursor"] if kept else None

    def poll_soon(self, trigger_name: TriggerRef) -> None:
        """Wants a poll of a trigger as soon as may be, and doesn't wait for it. Call it from any thread.

        While a poll of it is in flight the next one follows at once, and one that waits because it failed
        waits no longer. Its interval and its grid stay. What this program declares and does not poll now,
        say because it is switched off, is polled when it is polled again here. Of a trigger that another
        program polls that one is asked, within a second or so, also by a client (`work=False`), or, if
        it ends before it begins that poll, the next one that polls the trigger. One with `on_run` is told
        of the next end, if one waits.

        Raises:
            TriggerError: (a `ValueError`) no such trigger, it is a cron, or it is another program's and
                no living runner declares it or it is switched off.
        """
        engine = self._working()
        name = name_of_one(trigger_name)
        place = self._declarations.places.get(name)
        if place is None:
            return self._ask_poll(name)
        found = engine.polls.standing(name)
        is_elsewhere = found is not None and found["standing"] is not None and found["standing"]["elsewhere"]
        if not (is_elsewhere and engine.schedules.ask_poll(name)):
            engine.polls.poll_soon(place)
        return None

    def _ask_poll(self, name: str) -> None:
        """Asks whoever polls a trigger, by the store: as `poll_soon`, and on the audit list."""
        row = self._open().schedules.trigger(name)
        is_cron = row is not None and self._is_cron_by_now(row)
        if is_cron or not self._open().schedules.ask_poll(name):
            raise TriggerError(self._unasked(name))

    def _unasked(self, name: str) -> str:
        """Why nobody can be asked for a poll."""
        row = self._open().schedules.trigger(name)
        cron = self._cron_of(name)
        if row is not None and row["enabled"] is False and cron is None:
            return (
                f"trigger {excerpt(name)} is switched off: `cloaca enable {name}`, or set_trigger_enabled,"
                " has it polled"
            )
        if cron is not None and not self._leaves_out(name):
            return (
                f"trigger {excerpt(name)} is a cron: its calendar says when it runs; `cloaca submit "
                f"{cron['workflow_name']}` starts a run now, and tick runs it once where it is declared"
            )
        if row is not None and not self._leaves_out(name):
            return (
                f"trigger {excerpt(name)} is not polled in this program, nor by another living runner of this"
                " store"
            )
        return self._unknown_trigger(name)

    def _refuse_own(self, engine: Any, name: str) -> None:
        """Raises `RunnerError` where the trigger's own function asks, which would wait for itself."""
        inside = attempt.innermost()
        if inside is not None and inside[0] is engine and inside[1:3] == (None, name):
            raise RunnerError(
                f"tick({name!r}) in the function of that very trigger would wait for itself;"
                f" poll_soon({name!r}) has it polled again after this poll"
            )

    def _is_elsewhere(self, name: str) -> bool:
        """Whether a trigger is another runner's, as far as this one knows."""
        found = self._open().polls.standing(name)
        return found is not None and found["standing"] is not None and bool(found["standing"]["elsewhere"])

    def _is_alive(self, number: int | None) -> bool:
        """Whether it is no runner that has died, or left, and has no row by now: what that polled is about to
        be polled here."""
        owners = self._open().store.owners(RUNNERS_MAX, self._open().now())
        return any(not row["is_dead"] for row in owners if row["number"] == number)

    def _polled_elsewhere(self, name: str) -> RunnerError:
        owner = self._polled_by(name)
        who = "" if owner is None else f" (runner {owner} of this store)"
        return RunnerError(
            f"trigger {excerpt(name)} is polled by another runner{who}, in whose hands its cursor is; "
            "call tick there, or shut that runner down"
        )

    def _leaves_out(self, name: str) -> bool:
        """Whether the program declares a trigger that this runner is not for."""
        declared = registry.triggers.get(name)
        return declared is not None and not self._declarations.chosen.has_trigger(declared)

    def _cron_of(self, name: str) -> CronScheduleRow | None:
        """The schedule of the cron that a trigger of this name is, or was."""
        found: Any = self._open().schedules.cron_named(name)
        row: CronScheduleRow | None = found
        if found is not None and found["context"] is not None:
            found["context"] = decode_value(found["context"])
        return row

    def _runs_here(self, name: str) -> CronScheduleRow | None:
        """The same, if it runs in this program."""
        cron = self._cron_of(name)
        is_here = cron is not None and (cron["registered"] or name in self._declarations.crons)
        return cron if is_here else None

    def _polled_by(self, name: str) -> int | None:
        """The number of the other living runner that polls a trigger."""
        engine = self._open()
        owners = engine.store.look(_OWNER, [name])
        # A trigger that this program declares no more is still its runner's, and polled by nobody.
        owner = int(owners[0]["epoch"]) if owners and owners[0]["epoch"] != engine.runs.owner() else None
        # Whose process has just died stands there until another runner notices.
        return owner if owner is not None and self._is_alive(owner) else None

    def _unknown_trigger(self, name: str) -> str:
        known = [row["name"] for row in self._open().store.look(_NAMES, [LOOKED_MAX])]
        if self._leaves_out(name):
            return (
                f"trigger {excerpt(name)} is declared, but this runner is not for it; it was made with others"
            )
        if name in known:
            return f"trigger {excerpt(name)} is not polled in this program, which does not declare it as such"
        return f"trigger {excerpt(name)} not found{hint(name, 'triggers', known)}"
