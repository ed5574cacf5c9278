"""What a runner says and does about triggers.

Decides nothing: it checks arguments and words what the engine knows.
"""

from __future__ import annotations

from time import monotonic

from . import check, registry, rows, why
from .context import decode_value, encode_within
from .errors import RunnerError, TriggerError, excerpt
from .near import LOOKED_MAX, hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from ._cloaca import PollNow
    from .crew import Crew
    from .declarations import Declarations
    from .types import CronScheduleRow, TickAnswer, TickRow, TriggerExecutionRow, TriggerScheduleRow

TICK_SECONDS_MAX = 5.0
"""How long `tick` waits for a poll in flight."""


_OWNER = """
    SELECT epoch FROM schedules JOIN owners ON epoch = owner AND left_at IS NULL
    WHERE kind = 'trigger' AND schedules.name = ?"""


_CURSOR = "SELECT cursor FROM schedules WHERE kind = 'trigger' AND name = ?"


# By an index each: there may be a million.
_NAMES = """
    SELECT * FROM (SELECT name FROM schedules WHERE kind = 'trigger' ORDER BY name LIMIT ?1)
    UNION
    SELECT * FROM (SELECT name FROM schedules WHERE kind = 'cron' AND name <> '' ORDER BY name LIMIT ?1)"""


class Triggers:
    """The part of a runner that is about triggers."""

    if TYPE_CHECKING:
        _crew: Crew
        _declarations: Declarations
        _paused: bool

        def _open(self) -> Any: ...
        def _working(self) -> Any: ...

    def list_trigger_schedules(
        self, enabled_only: bool | None = None, limit: int | None = None, offset: int | None = None
    ) -> list[TriggerScheduleRow]:
        """Triggers in the order of their registration, at most 100 unless `limit` says more. `declared` says
        whether this program declares it, as one that is polled."""
        found: list[TriggerScheduleRow] = self._open().schedules.triggers(
            enabled_only is not None and check.flag(enabled_only, "enabled_only"), *check.page(limit, offset)
        )
        return [self._with_polled_here(row) for row in found]

    def get_trigger_schedule(self, trigger_name: str) -> TriggerScheduleRow | None:
        """One trigger; `None` for an unknown name."""
        row: TriggerScheduleRow | None = self._open().schedules.trigger(
            check.text(trigger_name, "trigger_name", TriggerError)
        )
        return None if row is None else self._with_polled_here(row)

    def set_trigger_enabled(self, trigger_name: str, enabled: bool) -> None:
        """Switches a trigger's polling, or its cron; kept across restarts.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        schedules = self._open().schedules
        name, enabled = check.text(trigger_name, "trigger_name", TriggerError), check.flag(enabled, "enabled")
        cron = self._cron_of(name)
        # A name may have been polled before it was a cron, or the other way round: both rows are switched.
        is_cron = cron is not None and schedules.set_cron_enabled(cron["id"], enabled)
        if not schedules.set_trigger_enabled(name, enabled) and not is_cron:
            raise TriggerError(self._unknown_trigger(trigger_name))

    def forget(self, trigger_name: str) -> None:
        """Deletes what the store keeps of a trigger, polled or a cron, that this program does not declare:
        its cursor, its schedule, whether it is switched off, its history and its run keys.

        Its runs stay, and go on if they are not over; they are no trigger's then. Declared again, it begins
        as if it had never been. A cron that another program declares runs there again once that declares it
        again, which each start does. `delete_cron_schedule` deletes what `register_cron_workflow` registered.

        Raises:
            TriggerError: (a `ValueError`) no such trigger is kept, this program declares it (call
                `cloaca.unregister_trigger` first), or another runner of the store polls it.
        """
        self._open()
        name = check.text(trigger_name, "trigger_name", TriggerError)
        if not self._declarations.forget(name):
            cron = self._cron_of(name)
            if cron is not None:
                raise TriggerError(
                    f"cron {excerpt(name)} was registered by a call and is no declaration's; "
                    f"call delete_cron_schedule({cron['id']!r})"
                )
            raise TriggerError(self._unknown_trigger(trigger_name))

    def _with_polled_here(self, row: TriggerScheduleRow) -> TriggerScheduleRow:
        row["declared"] = row["trigger_name"] in self._declarations.places
        return row

    def get_trigger_execution_history(
        self, trigger_name: str, limit: int | None = None, offset: int | None = None
    ) -> list[TriggerExecutionRow]:
        """The runs that a trigger fired, newest first; empty for an unknown name."""
        found = self._open().schedules.trigger_runs(
            check.text(trigger_name, "trigger_name", TriggerError), *check.page(limit, offset)
        )
        if found is None:
            return []
        schedule_id, fired = found
        return [rows.trigger_execution(schedule_id, row) for row in fired]

    def ticks(self, trigger_name: str, last: int = 50) -> list[TickRow]:
        """What a trigger's polls answered, newest first, with equal answers in a row as one; of a cron whose
        function or `overlap` decides its moments, what those came to."""
        found = self._open().schedules.ticks(
            check.text(trigger_name, "trigger_name", TriggerError), check.count(last, "last")
        )
        if found is None:
            raise TriggerError(self._unknown_trigger(trigger_name))
        return list(found)

    def why(self, trigger_name: str) -> str:
        """One sentence that says what a trigger does, and why it has not fired.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        name = check.text(trigger_name, "trigger_name", TriggerError)
        standing = self._open().polls.standing(name)
        if name in self._declarations.crons or standing is None:
            cron = self._cron_of(name)
            if cron is not None:
                is_here = cron["registered"] or name in self._declarations.crons
                deciding = self._open().polls.deciding(cron["id"])
                paused = "; this runner is paused" if self._paused else ""
                return why.of_cron(name, cron, deciding, is_declared=is_here) + paused
        if standing is None:
            raise TriggerError(self._unknown_trigger(trigger_name))
        if standing["standing"] is None:
            standing["declared"] = trigger_name in self._declarations.places
            standing["polled_by"] = self._polled_by(trigger_name)
            standing["paused"] = self._paused
            standing["left_out"] = self._leaves_out(trigger_name)
        told = why.sentence(standing, self.ticks(trigger_name, 1))
        definition = registry.triggers.get(trigger_name)
        fired = None if definition is None or standing["standing"] is None else definition.kind.workflow
        if fired is not None and not registry.knows(fired):
            return f"{told}; it {why.undeclared(fired)}"
        return told

    def tick(self, trigger_name: str, dry_run: bool = False) -> TickAnswer:
        """Polls a trigger once, now, on this thread. A trigger that is a cron is run once, now, beside its
        calendar: its function, if it has a parameter, decides a moment, which is now, and what it fires, or
        else its workflow with the context of that moment, starts. No moment and no run key is used up, and
        its cursor stays.

        Args:
            dry_run (bool): only look: nothing is stored and nothing starts. `cursor` is then where it would
                stand if all fires were taken.

        Returns:
            A dict with `outcome` (`"skip"`, `"fire"` or `"error"`), `reason`, `fires` (dicts with `context`
            and `run_key`) and
            `cursor` (the new one, if it moved).

        Raises:
            TriggerError: (a `ValueError`) no such trigger in this program.
            RunnerError: (a `RuntimeError`) another runner of the store polls it, or it has been polled for
                longer than 5 s.
        """
        engine = self._working()
        check.flag(dry_run, "dry_run")
        deadline = monotonic() + TICK_SECONDS_MAX
        name = check.text(trigger_name, "trigger_name", TriggerError)
        if name not in self._declarations.places and (cron := self._runs_here(name)) is not None:
            return self._tick_cron(cron, dry_run)
        # A trigger that was declared a moment ago has no row yet.
        places = self._declarations.places
        begun: PollNow | Literal[False] | None = None
        try:
            while not (begun := engine.polls.poll_now(name)) and (begun is None or name in places):
                self._refuse_elsewhere(name)
                if monotonic() > deadline or engine.wait_closing(0.005):
                    raise RunnerError(f"trigger {excerpt(name)} is being polled and does not come back")
            if not begun:
                raise self._undeclared(name)
            before = self._kept_cursor(name)
            decided = rows.tick(self._crew.poll_now(begun, dry_run))
        except BaseException:
            # Ctrl-C, or a store that doesn't answer: a poll that was begun is called off.
            if begun:
                begun.look()
            raise
        engine.polls.flush(name)
        if not dry_run:
            # Fires with cursors: only the store knows which of them were taken.
            after = self._kept_cursor(name)
            decided["cursor"] = None if after in (before, None) else decode_value(after)
        return decided

    def _undeclared(self, name: str) -> TriggerError:
        if (owner := self._polled_by(name)) is not None:
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
        ruling: Any = ([(encoded, None, None, None, None)], None, "", None, None)
        place = self._declarations.moments.get(cron["trigger_name"] or "")
        if place is not None:
            ruling = self._crew.decide_now(place, at, encoded)
        decided = rows.tick(ruling)
        decided["cursor"] = None
        if not dry_run and decided["fires"]:
            for watch in engine.runs.submit(workflow, [text for text, *_ in ruling[0]]):
                watch.wait_started()
        return decided

    def _kept_cursor(self, name: str) -> Any:
        kept = self._open().store.look(_CURSOR, [name])
        return kept[0]["cursor"] if kept else None

    def poll_soon(self, trigger_name: str) -> None:
        """Wants a poll of a trigger as soon as may be, and doesn't wait for it. Call it from any thread.

        While a poll of it is in flight the next one follows at once. Its interval and its grid stay. A
        trigger that is switched off, or polled by another runner, is polled when it is polled again here.

        Raises:
            TriggerError: (a `ValueError`) this program has no such trigger to poll.
        """
        engine = self._working()
        slot = self._declarations.places.get(check.text(trigger_name, "trigger_name", TriggerError))
        if slot is None:
            raise TriggerError(self._unknown_trigger(trigger_name))
        engine.polls.poll_soon(slot)

    def _refuse_elsewhere(self, name: str) -> None:
        found = self._open().polls.standing(name)
        if found is None or found["standing"] is None or not found["standing"]["elsewhere"]:
            return
        owner = self._polled_by(name)
        who = "" if owner is None else f" (runner {owner} of this store)"
        raise RunnerError(
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
        return int(owners[0]["epoch"]) if owners and owners[0]["epoch"] != engine.runs.owner() else None

    def _unknown_trigger(self, name: str) -> str:
        known = [row["name"] for row in self._open().store.look(_NAMES, [LOOKED_MAX])]
        if self._leaves_out(name):
            return (
                f"trigger {excerpt(name)} is declared, but this runner is not for it; it was made with others"
            )
        if name in known:
            return f"trigger {excerpt(name)} is not polled in this program, which does not declare it as such"
        return f"trigger {excerpt(name)} not found{hint(name, 'triggers', known)}"
