"""What the program has declared, as one runner's engine knows it.

Decides only what is new to the engine. The registry tells it, and holds it in the runner's place.
Invariant: a trigger's body stands in its place before the engine may call it.
"""

from __future__ import annotations

import json
import threading
from itertools import groupby
from operator import attrgetter

from . import check, registry, version
from .chosen import EVERYTHING
from .ends import outcomes
from .errors import RunnerError, StoreError, TriggerError, WorkflowError, excerpt
from .limits import limits_json
from .name import already_kept
from .near import hint
from .places import BUILT_IN
from .plain import WARNING, say
from .policy import Backoff
from .rows import moment
from .trigger import POLL_INTERVAL_US
from .why import undeclared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ._cloaca import Engine
    from .chosen import Chosen
    from .crew import Crew
    from .trigger import TriggerDefinition, TriggerKind
    from .types import CronScheduleRow
    from .workflow import Workflow

OFF_LOOKED_MAX = 10_000
"""Of more triggers than this it is not looked which of them are switched off."""

# Indices schedules_trigger, schedules_cron_name.
_OFF = """
    SELECT name, kind, disabled_at, disabled_cause FROM schedules
    WHERE kind = 'trigger' AND name IN (SELECT value FROM json_each(?1)) AND NOT enabled
    UNION ALL SELECT name, kind, disabled_at, disabled_cause FROM schedules
    WHERE kind = 'cron' AND name <> '' AND name IN (SELECT value FROM json_each(?1)) AND NOT enabled
    ORDER BY name LIMIT 40"""

_log = "cloaca"

END_AGAIN_US = 1_000_000
"""What has failed for an end of a run is called again after so long, at first."""

DECLARED_AT_ONCE = 10_000
"""So many triggers are handed to the engine at once: the store keeps them while the next are prepared."""


class Declarations:
    """What one runner's engine was told.

    Attributes:
        places: the place of the newest body of each trigger that is polled.
        crons: the names of the triggers that are crons.
        moments: the place of the newest body of each cron whose function takes a tick.
        workflows: the names of those that the engine starts.
        chosen: what the runner is for.

    Args:
        chosen: what the engine is told of, whatever else is declared.
        executors: the numbers of its places to run, by name.
    """

    def __init__(self, engine: Engine, crew: Crew, chosen: Chosen, executors: Mapping[str, int]) -> None:
        self.chosen = chosen
        self.executors = executors
        self.places: dict[str, int] = {}
        self.crons: set[str] = set()
        self.moments: dict[str, int] = {}
        self.workflows: set[str] = set()
        self._engine = engine
        self._crew = crew
        self._lock = threading.RLock()
        self._is_closed = False
        self._is_ready = False

    def close(self) -> None:
        """Tells the engine nothing more. Without the lock: who declares now may hold it for long."""
        self._is_closed = True
        registry.detach(self)

    def ready(self) -> None:
        """Everything that the program has declared so far is known: says what would start nothing."""
        known = {None, *registry.names()}
        lost: dict[str, list[str]] = {}
        for trigger in filter(self.chosen.has_trigger, list(registry.triggers.values())):
            if (workflow := trigger.kind.workflow) not in known:
                lost.setdefault(str(workflow), []).append(trigger.name)
        for workflow, triggers in lost.items():
            more = f" (and {len(triggers) - 1} more triggers)" if len(triggers) > 1 else ""
            self._crew.warn(f"trigger '{triggers[0]}'{more} {undeclared(workflow)}")
        self._is_ready = True
        self._tell_off([*self.places, *self.crons])

    def _tell_off(self, names: Sequence[str]) -> None:
        """Says which of these triggers are switched off: nothing else would tell why they rest."""
        if not 0 < len(names) <= OFF_LOOKED_MAX:
            return
        try:
            found = self._engine.store.look(_OFF, [json.dumps(list(names))])
        except (StoreError, RunnerError):
            # It is no reason not to declare them, and `why` tells it too.
            return
        for row in found:
            if (row["kind"] == "cron") != (row["name"] in self.crons):
                # What it was before: that is off with it.
                continue
            cause = row["disabled_cause"]
            by = f"the engine disabled it because {cause}" if cause else "set_trigger_enabled switched it off"
            text, about = "trigger '%s' is declared, and is off since %s: %s", {"cloaca_trigger": row["name"]}
            say(_log, WARNING, text, row["name"], moment(row["disabled_at"]), by, about=about)

    def on_workflow(self, workflow: Workflow) -> None:
        """The program declared a workflow, before this runner was made or after."""
        from .drawing import written

        with self._lock:
            # Of threads that declare one name the newest wins, whichever comes here last.
            is_newest = registry.workflows.get(workflow.name) is workflow
            if not self._is_closed and is_newest and self.chosen.has_workflow(workflow.name):
                specification = workflow._spec()
                for task in specification:
                    what = f'task "{task["id"]}" of workflow "{workflow.name}"'
                    task["executor"] = self._number_of(task["executor"], what, "workflow", WorkflowError)
                if any(task["executor"] == BUILT_IN["loop"] for task in specification):
                    # Before the first attempt, which would wait for it.
                    self._crew.loop().open()
                # Before the engine knows of it: it may have ends to tell at once.
                self._crew.ends.declare(workflow)
                bodies = self._crew.number(workflow._tasks)
                for task, body in zip(specification, bodies, strict=True):
                    task["body"] = body
                try:
                    self._engine.declare_workflow(
                        workflow.name,
                        workflow.version,
                        (
                            workflow.priority,
                            workflow._timeout_us,
                            limits_json(workflow.concurrency, workflow.throttle, workflow.rate_limit),
                            outcomes(workflow._callbacks),
                        ),
                        written(workflow),
                        specification,
                    )
                except BaseException:
                    self._crew.let_go(bodies)
                    raise
                self.workflows.add(workflow.name)
        # Without the lock: with the older declaration goes what the program has made for it.
        self._crew.let_go(self._engine.unneeded_bodies())

    def _number_of(
        self, executor: str, what: str, kind: str, error: type[WorkflowError] | type[TriggerError]
    ) -> int:
        try:
            return self.executors[executor]
        except KeyError:
            raise error(
                f'{what} runs in executor "{executor}", which this runner'
                f" does not have{hint(executor, 'executors', self.executors)}; give it by DefaultRunner(...,"
                f" executors={{{executor!r}: ...}}), or leave the {kind} to another runner by"
                f" {kind}s=[...]"
            ) from None

    def on_triggers(self, triggers: Sequence[TriggerDefinition]) -> None:
        """The program declared triggers, before this runner was made or after."""
        with self._lock:
            if self._is_closed:
                return
            triggers = [trigger for trigger in triggers if registry.triggers.get(trigger.name) is trigger]
            if self.chosen is not EVERYTHING:
                for trigger in triggers:
                    # It may have been chosen by the workflow that it started until now.
                    if not self.chosen.has_trigger(trigger):
                        self._let_go(trigger.name)
                triggers = list(filter(self.chosen.has_trigger, triggers))
            for trigger in triggers:
                if (executor := trigger.kind.executor) is not None:
                    self._number_of(executor, f'trigger "{trigger.name}"', "trigger", TriggerError)
            for trigger in triggers:
                if trigger.kind.cron is not None:
                    self._declare_cron(trigger, trigger.kind.cron)
                elif trigger.name in self.crons:
                    self._withdraw_cron(trigger.name)
            polled = [trigger for trigger in triggers if self._is_new(trigger)]
            for start in range(0, len(polled), DECLARED_AT_ONCE):
                self._declare(polled[start : start + DECLARED_AT_ONCE])
        if self._is_ready:
            self._tell_off([trigger.name for trigger in triggers])

    def on_gone(self, name: str) -> None:
        """The program declares no trigger of this name any more."""
        with self._lock:
            if self._is_closed or name in registry.triggers:
                return
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        if name in self.crons:
            self._withdraw_cron(name)
        self._withdraw(name)

    def on_workflow_gone(self, name: str) -> None:
        """The program declares no workflow of this name any more."""
        with self._lock:
            if not self._is_closed and not registry.knows(name):
                self._engine.withdraw_workflow(name)
                self.workflows.discard(name)
                self._crew.ends.forget(name)

    def forget(self, name: str) -> bool:
        """Deletes what the store keeps of a trigger that the program does not declare; false if it keeps
        nothing.

        Raises:
            TriggerError: the program declares it, or another runner polls it.
        """
        with self._lock:
            # Who declares it meanwhile waits here, and finds nothing kept.
            self._refuse_declared(name)
            is_gone, polled_by = self._engine.schedules.forget(name)
        _refuse_served(name, polled_by)
        return is_gone

    def rename(self, name: str, new_name: str) -> bool:
        """Gives what the store keeps of a trigger another name; false if it keeps nothing.

        Raises:
            TriggerError: the program declares it, another runner polls it, or something has the new name.
        """
        with self._lock:
            self._refuse_declared(name)
            is_done, polled_by, is_taken = self._engine.schedules.rename(name, new_name)
        if polled_by is not None and polled_by == self._engine.runs.owner():
            raise TriggerError(
                f"trigger {excerpt(name)} is in its body still, though this program declares it no more;"
                " rename it once that has ended"
            )
        _refuse_served(name, polled_by)
        if is_taken:
            raise TriggerError(already_kept(name, new_name))
        return is_done

    def _refuse_declared(self, name: str) -> None:
        # Also what `cloaca.testing.isolated` has put aside.
        if name in registry.triggers or name in self.places or name in self.crons:
            raise TriggerError(
                f"trigger {excerpt(name)} is declared in this program; call cloaca.unregister_trigger"
                f"({name!r}) first"
            )

    def has_polled(self, name: str) -> bool:
        """Whether the program declares a polled trigger of this name, whatever the runner is for."""
        declared = registry.triggers.get(name)
        return name in self.places or (declared is not None and declared.kind.cron is None)

    def has_cron(self, name: str | None) -> bool:
        """Whether it declares a cron of this name, likewise."""
        declared = registry.triggers.get(name or "")
        return name in self.crons or (declared is not None and declared.kind.cron is not None)

    def decider(self, cron: CronScheduleRow) -> int | None:
        """The place of the body that decides a cron's moments; what a call registered has none."""
        return None if cron["registered"] else self.moments.get(cron["trigger_name"] or "")

    def _declare_cron(self, trigger: TriggerDefinition, expression: str) -> None:
        name, kind, before = trigger.name, trigger.kind, self.moments.get(trigger.name)
        if before is not None and self._crew.triggers[before] is trigger:
            return
        parts: dict[str, object] = {
            "name": name,
            "is_declared": True,
            "workflow": kind.workflow or "",
            "expression": expression,
            "timezone": kind.timezone,
            "context": None,
            "overlap": kind.overlap or "allow",
            "catchup": kind.catchup or "all",
            "version": version.of_trigger(kind, trigger.origin),
            "body": None,
        }
        was = self._engine.schedules.cron_named(name)
        if not trigger.takes_tick:
            # Its function is never called: most are there only to be decorated.
            self._withdraw(name)
            self._engine.schedules.put_cron(parts)
        else:
            if name in self.places:
                self._withdraw(name)
            (place,) = self._engine.polls.reserve([name])
            self._crew.place([place], [trigger], self.executors)
            wait = Backoff()
            backoff = (wait.base_us, wait.factor, wait.max_us)
            body = {"place": place, "backoff": backoff, "allow_concurrent": kind.allow_concurrent}
            self._engine.schedules.put_cron(parts | {"body": body})
            self.moments[name] = place
            if before is not None:
                self._crew.retire(before)
        self.crons.add(name)
        if was is not None and (was["cron_expression"], was["timezone"]) != (expression, kind.timezone):
            self._say_what_is_over(was)

    def _say_what_is_over(self, was: dict[str, Any]) -> None:
        """What was missed by another expression is not made up for: the new one decides nothing before it was
        declared."""
        since, name = was["next_run_at"], was["trigger_name"]
        is_due = since is not None and check.microseconds(since) <= self._engine.now()
        if not is_due or not was["enabled"] or was["catchup"] == "none":
            return
        row = self._engine.schedules.cron(was["id"])
        if row is None or row["updated_at"] == was["updated_at"]:
            # Another version of it is in force.
            return
        text = (
            "trigger %r: its expression was %r in %r, and what was due by it from %s on, and missed, is not"
            " made up for; it runs next at %s"
        )
        values = name, was["cron_expression"], was["timezone"], since, row["next_run_at"]
        say(_log, WARNING, text, *values, about={"cloaca_trigger": name})

    def _withdraw_cron(self, name: str) -> None:
        self.crons.discard(name)
        self._engine.schedules.withdraw_cron(name)
        self._withdraw(name)

    def _withdraw(self, name: str) -> None:
        for places in (self.places, self.moments):
            place = places.pop(name, None)
            if place is not None:
                self._engine.polls.withdraw(name)
                self._crew.retire(place)

    def _is_new(self, trigger: TriggerDefinition) -> bool:
        if trigger.kind.cron is not None:
            return False
        place = self.places.get(trigger.name)
        return place is None or self._crew.triggers[place] is not trigger

    def _declare(self, triggers: Sequence[TriggerDefinition]) -> None:
        alike = groupby(triggers, attrgetter("kind", "origin"))
        kinds = [(_plan(*each), [trigger.name for trigger in group]) for each, group in alike]
        # A body stands in its place before the engine may call it. An interrupt between does no harm: the
        # places are the engine's, and what it does not know of is overwritten by the next declaration.
        places = self._engine.polls.reserve([trigger.name for trigger in triggers])
        self._crew.place(places, triggers, self.executors)
        placed = list(zip(places, triggers, strict=True))
        heard = [place for place, trigger in placed if self._crew.hears_polls(trigger)]
        if heard:
            self._engine.polls.hear(heard)
        stoppable = [place for place, trigger in placed if trigger.kind.executor is not None]
        if stoppable:
            self._engine.polls.stoppable(stoppable)
        self._engine.polls.declare_triggers(kinds, places)
        for place, trigger in zip(places, triggers, strict=True):
            before = self.places.get(trigger.name)
            self.places[trigger.name] = place
            if before is not None:
                self._crew.retire(before)


def _plan(kind: TriggerKind, origin: str) -> dict[str, Any]:
    interval = kind.interval_us or (POLL_INTERVAL_US if kind.on_run is None else END_AGAIN_US)
    wait = kind.on_error or Backoff()
    # One of 10 ms that fails once shall not stand still for long, and one of an hour not be polled sooner.
    base = wait.base_us if kind.on_error else interval
    return {
        "workflow": kind.workflow or "",
        "on_run": None if kind.on_run is None else (kind.on_run, outcomes(kind.statuses)),
        "interval": interval,
        "allow_concurrent": kind.allow_concurrent,
        "jitter": kind.jitter_us,
        "poll_at_start": kind.poll_at_start,
        "timeout": kind.poll_timeout_us,
        "backoff": (base, wait.factor, max(wait.max_us, base)),
        "failures_max": kind.max_consecutive_failures,
        "overlap": kind.overlap or "allow",
        "version": version.of_trigger(kind, origin),
    }


def _refuse_served(name: str, polled_by: int | None) -> None:
    if polled_by is not None:
        raise TriggerError(
            f"trigger {excerpt(name)} is served by runner {polled_by} of this store; unregister it there"
            " first"
        )
