"""Which workflows a runner may ask for that it does not declare: those that its store knows of.

Decides nothing about runs: those are kept, and claimed by whoever declares their workflow.
"""

from __future__ import annotations

import threading
from time import monotonic

from . import check, registry, rows
from .errors import ArgumentError, StoreError, WorkflowError, excerpt
from .name import NAME_CHARS_MAX
from .near import hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._cloaca import Engine

KNOWN_SECONDS = 5.0
"""What is known of a workflow is looked up again after so long."""
NAMED_MAX = 1000
"""So many workflows are looked at for a name like the one that is unknown."""
RUNNERS_MAX = 1000
"""So many runners are looked at."""
SERVED = "SELECT owner, version FROM workflows WHERE name = ?"
# By the index on workflow; of schedules there are few.
_KNOWN = """
    SELECT
        (SELECT version FROM runs WHERE workflow = ?1 ORDER BY created_at DESC LIMIT 1) AS ran,
        (SELECT version FROM graphs WHERE workflow = ?1
            ORDER BY unused_since IS NOT NULL, unused_since DESC LIMIT 1) AS declared,
        EXISTS (SELECT 1 FROM schedules WHERE workflow = ?1) AS is_scheduled"""
_NAMES = """
    SELECT name FROM workflows
    UNION SELECT workflow FROM graphs
    UNION SELECT DISTINCT workflow FROM schedules WHERE workflow <> '' LIMIT ?"""


class Served:
    """What a runner knows of the workflows of its store that it does not declare."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str]] = {}
        """By name: when it was looked up, and its content version."""
        self._told: set[str] = set()
        self._found: dict[str, str] = {}
        """What was found last of each that there is."""

    def is_fresh(self, workflow: str) -> bool:
        """Whether `version` need not ask the store."""
        with self._lock:
            return monotonic() - self._known.get(workflow, (float("-inf"), ""))[0] < KNOWN_SECONDS

    def version(self, workflow: str) -> str:
        """The content version of a workflow, as far as it is known; whoever claims a run goes by his own.

        Raises:
            WorkflowError: (a `ValueError`) nobody has ever declared it, and the store has neither a run nor
                a schedule of it.
            StoreError: (a `RuntimeError`) the store cannot be asked, and never was.
        """
        now = monotonic()
        with self._lock:
            at, known = self._known.get(workflow, (float("-inf"), ""))
            found = self._found.get(workflow)
        if now - at < KNOWN_SECONDS:
            return known
        try:
            return self._looked_up(workflow, now)
        except StoreError:
            # There is one, and the run waits until the store takes it.
            if found is None:
                raise
            return found

    def _looked_up(self, workflow: str, now: float) -> str:
        version = self._served(workflow)
        # Who serves it is not remembered where nobody does: somebody may come.
        found = self._unserved(workflow) if version is None else version
        with self._lock:
            self._found[workflow] = found
            if version is not None:
                self._told.discard(workflow)
                self._known[workflow] = now, version
        return found

    def check(self, workflow: str) -> None:
        """Raises `WorkflowError` where nothing is known of a workflow."""
        if not registry.knows(workflow) and self._served(workflow) is None:
            [found] = self._engine.store.look(_KNOWN, [workflow])
            if _is_unknown(found):
                raise self._unknown(workflow)

    def refuse(self, workflow: str) -> None:
        """Raises `WorkflowError` where no other living runner declares a workflow."""
        # What this one declares no more may still stand in the store.
        if self._served(workflow, but=self._engine.runs.owner()) is not None:
            return
        [found] = self._engine.store.look(_KNOWN, [workflow])
        if _is_unknown(found):
            raise self._unknown(workflow)
        raise WorkflowError(
            f"no living runner declares workflow {excerpt(workflow)}: execute() would wait for one, and"
            " submit() leaves a run for it"
        )

    def is_served(self, workflow: str) -> bool:
        """Whether a living runner declares it."""
        return self._served(workflow) is not None

    def _served(self, workflow: str, but: int | None = None) -> str | None:
        """The version of a living runner that declares it, and is not that one."""
        declaring = [row for row in self._engine.store.look(SERVED, [workflow]) if row["owner"] != but]
        if not declaring:
            return None
        owners = self._engine.store.owners(RUNNERS_MAX, self._engine.now())
        return version_of(declaring, rows.living(owners))

    def _unserved(self, workflow: str) -> str:
        [found] = self._engine.store.look(_KNOWN, [workflow])
        declared = registry.workflow(workflow)
        if declared is None and _is_unknown(found):
            raise self._unknown(workflow)
        self._warn(workflow)
        return declared.version if declared is not None else found["ran"] or found["declared"] or ""

    def _warn(self, workflow: str) -> None:
        with self._lock:
            is_told = workflow in self._told
            self._told.add(workflow)
        if not is_told:
            import logging

            logging.getLogger("cloaca").warning(
                "no living runner declares workflow %s: its runs wait for one that does", excerpt(workflow)
            )

    def _unknown(self, workflow: str) -> WorkflowError:
        known = [row["name"] for row in self._engine.store.look(_NAMES, [NAMED_MAX])]
        return WorkflowError(
            f"workflow {excerpt(workflow)} not found: nobody has declared it to this store, which has neither"
            f" a run nor a schedule of it{hint(workflow, 'workflows', sorted({*known, *registry.names()}))}"
        )


def _is_unknown(found: dict[str, Any]) -> bool:
    return found["ran"] is None and found["declared"] is None and not found["is_scheduled"]


def version_of(declaring: list[dict[str, Any]], living: set[int]) -> str | None:
    """Out of what `SERVED` finds, the content version under which a living runner declares the workflow."""
    return next((row["version"] for row in declaring if row["owner"] in living), None)


def checked_runner_name(name: object) -> str | None:
    """What a runner is called, if it is.

    Raises:
        ArgumentError: (a `ValueError`) it is empty, or longer than 255 characters; or no `str`.
    """
    text = check.optional_text(name, "name")
    if text is not None and not 0 < len(text.strip()) <= len(text) <= NAME_CHARS_MAX:
        what = (
            "it must not be empty" if not text.strip() else f"at most {NAME_CHARS_MAX} characters are allowed"
        )
        raise ArgumentError(f"name is {excerpt(text)}; {what}")
    return text


def checked_work(work: Any, triggers: Any, workflows: Any, paused: bool, executors: Any) -> bool:
    """Whether a runner polls and runs.

    Raises:
        ArgumentError: (a `ValueError`) it does not, and is given what only one that does has a use for.
    """
    if check.flag(work, "work"):
        return True
    given = {"triggers": triggers, "workflows": workflows, "executors": executors, "paused": paused or None}
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(f"a runner with work=False polls and runs nothing, and takes no {name}")
    return False
