"""What the program has declared, as one runner's engine knows it.

Decides only what is new to the engine. The registry tells it, and holds it in the runner's place.
Invariant: a trigger's body stands in its place before the engine may call it.
"""

from __future__ import annotations

import threading
from itertools import groupby
from operator import attrgetter

from . import registry
from .chosen import EVERYTHING
from .errors import TriggerError, excerpt
from .policy import Backoff
from .trigger import POLL_INTERVAL_US
from .why import undeclared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._cloaca import Engine
    from .chosen import Chosen
    from .crew import Crew
    from .trigger import TriggerDefinition, TriggerKind
    from .workflow import Workflow

DECLARED_AT_ONCE = 10_000
"""So many triggers are handed to the engine at once: the store keeps them while the next are prepared."""


class Declarations:
    """What one runner's engine was told.

    Attributes:
        places: the place of each trigger's newest body.
        crons: the names of the triggers that are crons.
        chosen: what the runner is for.

    Args:
        chosen: what the engine is told of, whatever else is declared.
    """

    def __init__(self, engine: Engine, crew: Crew, chosen: Chosen) -> None:
        self.chosen = chosen
        self.places: dict[str, int] = {}
        self.crons: set[str] = set()
        self._engine = engine
        self._crew = crew
        self._lock = threading.RLock()
        self._is_closed = False

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

    def on_workflow(self, workflow: Workflow) -> None:
        """The program declared a workflow, before this runner was made or after."""
        with self._lock:
            # Of threads that declare one name the newest wins, whichever comes here last.
            is_newest = registry.workflows.get(workflow.name) is workflow
            if not self._is_closed and is_newest and self.chosen.has_workflow(workflow.name):
                specification = workflow._spec()
                self._crew.tasks.update(
                    {task["body"]: registry.bodies[task["body"]] for task in specification}
                )
                self._engine.declare_workflow(workflow.name, workflow.version, specification)

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
                if trigger.kind.cron is not None:
                    self._declare_cron(trigger, trigger.kind.cron)
                elif trigger.name in self.crons:
                    self.crons.discard(trigger.name)
                    self._engine.schedules.withdraw_cron(trigger.name)
            polled = [trigger for trigger in triggers if self._is_new(trigger)]
            for start in range(0, len(polled), DECLARED_AT_ONCE):
                self._declare(polled[start : start + DECLARED_AT_ONCE])

    def on_gone(self, name: str) -> None:
        """The program declares no trigger of this name any more."""
        with self._lock:
            if self._is_closed or name in registry.triggers:
                return
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        if name in self.crons:
            self.crons.discard(name)
            self._engine.schedules.withdraw_cron(name)
        self._withdraw(name)

    def on_workflow_gone(self, name: str) -> None:
        """The program declares no workflow of this name any more."""
        with self._lock:
            if not self._is_closed and not registry.knows(name):
                self._engine.withdraw_workflow(name)

    def forget(self, name: str) -> bool:
        """Deletes what the store keeps of a trigger that the program does not declare; false if it keeps
        nothing.

        Raises:
            TriggerError: the program declares it, or another runner polls it.
        """
        with self._lock:
            # Who declares it meanwhile waits here, and finds nothing kept.
            # Also what `cloaca.testing.isolated` has put aside.
            if name in registry.triggers or name in self.places or name in self.crons:
                raise TriggerError(
                    f"trigger {excerpt(name)} is declared in this program; call cloaca.unregister_trigger"
                    f"({name!r}) first"
                )
            is_gone, polled_by = self._engine.schedules.forget(name)
        if polled_by is not None:
            raise TriggerError(
                f"trigger {excerpt(name)} is polled by runner {polled_by} of this store; unregister it there"
                " first"
            )
        return is_gone

    def _declare_cron(self, trigger: TriggerDefinition, expression: str) -> None:
        kind = trigger.kind
        self._withdraw(trigger.name)
        self.crons.add(trigger.name)
        self._engine.schedules.put_cron(kind.workflow or "", expression, kind.timezone, trigger.name)

    def _withdraw(self, name: str) -> None:
        slot = self.places.pop(name, None)
        if slot is not None:
            self._engine.polls.withdraw(name)
            self._crew.retire(slot)

    def _is_new(self, trigger: TriggerDefinition) -> bool:
        if trigger.kind.cron is not None:
            return False
        slot = self.places.get(trigger.name)
        return slot is None or self._crew.triggers[slot] is not trigger

    def _declare(self, triggers: Sequence[TriggerDefinition]) -> None:
        alike = groupby(triggers, attrgetter("kind"))
        kinds = [(_plan(kind), [trigger.name for trigger in group]) for kind, group in alike]
        # A body stands in its place before the engine may call it. An interrupt between does no harm: the
        # places are the engine's, and what it does not know of is overwritten by the next declaration.
        places = self._engine.polls.reserve([trigger.name for trigger in triggers])
        self._crew.place(places, triggers)
        placed = zip(places, triggers, strict=True)
        heard = [slot for slot, trigger in placed if self._crew.hears_polls(trigger)]
        if heard:
            self._engine.polls.hear(heard)
        self._engine.polls.declare_triggers(kinds, places)
        for slot, trigger in zip(places, triggers, strict=True):
            before = self.places.get(trigger.name)
            self.places[trigger.name] = slot
            if before is not None:
                self._crew.retire(before)


def _plan(kind: TriggerKind) -> dict[str, Any]:
    interval = kind.interval_us or POLL_INTERVAL_US
    wait = kind.on_error or Backoff()
    # One of 10 ms that fails once shall not stand still for long, and one of an hour not be polled sooner.
    base = wait.base_us if kind.on_error else interval
    return {
        "workflow": kind.workflow or "",
        "interval": interval,
        "allow_concurrent": kind.allow_concurrent,
        "jitter": kind.jitter_us,
        "poll_at_start": kind.poll_at_start,
        "timeout": kind.poll_timeout_us,
        "backoff": (base, wait.factor, max(wait.max_us, base)),
        "failures_max": kind.max_consecutive_failures,
        "overlap": kind.overlap or "allow",
    }
