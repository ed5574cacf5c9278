"""What went wrong on a runner for tests, gathered from all threads until the test can be told.

Decides which of it is raised. Invariant: what is raised is not raised again.
"""

from __future__ import annotations

from collections import deque

from . import registry, why
from .errors import RunFailedError, TriggerError, excerpt
from .plain import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOTES_MAX = 3
"""So many errors after the first are noted on it."""

_WAY_OUT = (
    "raised here because this runner has raise_errors=True; a test that is about a failure says"
    " @pytest.mark.cloaca_runner(raise_errors=False), or Runner(raise_errors=False)"
)

_RUN_OUT_OF_TIME = "workflow timed out"
"""How the error of a run begins that was over its own time."""

_FAILED = "SELECT id, error FROM runs WHERE status = 'Failed' ORDER BY completed_at DESC LIMIT ?"
_TICKS = """
    SELECT name, reason FROM ticks JOIN schedules ON schedules.row = schedule
    WHERE ticks.outcome = 'error' ORDER BY ticks.last_at DESC, ticks.row DESC LIMIT ?"""
_CRONS = "SELECT name, workflow FROM schedules WHERE kind = 'cron' AND enabled"


class Heard:
    """What bodies raised, and what the engine refused or gave up."""

    def __init__(self) -> None:
        self._told: deque[tuple[str | None, BaseException]] = deque()
        self._failed = 0
        self._errors = 0

    def hear(self, told: tuple[str | None, BaseException]) -> None:
        """From any thread: a run, if a task raised it, and what was raised."""
        self._told.append(told)

    def raise_first(self, engine: Any, crons: set[str]) -> None:
        """Raises the first, with notes of others; never of a run that may still end well.

        Args:
            crons: the names of crons that the program declares.
        """
        counts = engine.stats()
        failed, self._failed = counts["runs_failed"] - self._failed, counts["runs_failed"]
        errors, self._errors = counts["errors"] - self._errors, counts["errors"]
        raised: list[BaseException] = []
        known: set[str | None] = {run_id for run_id, _ in self._told}
        for _ in range(len(self._told)):
            run_id, error = self._told.popleft()
            row = None if run_id is None else engine.runs.run(run_id)
            if row is not None and row["completed_at"] is None:
                self._told.append((run_id, error))
            elif row is not None and (row["error_message"] or "").startswith(_RUN_OUT_OF_TIME):
                # Whatever its body made of being told to end.
                known.discard(run_id)
            elif row is None or row["status"] == "Failed":
                raised.append(error)
        if failed > 0:
            rows = engine.store.query(_FAILED, [failed])
            raised += [_run_failed(row) for row in reversed(rows) if row["id"] not in known]
        if errors > 0 and not raised:
            raised += [_cron_failed(*cron) for cron in _lost(engine, crons)]
        if errors > 0 and not raised:
            # What the store has refused no poll has raised.
            rows = engine.store.query(_TICKS, [errors])
            raised += [_tick_failed(row["name"], row["reason"]) for row in reversed(rows)]
        if raised:
            for error in raised[1 : 1 + NOTES_MAX]:
                raised[0].add_note(f"and then {describe(error)}")
            # One object may be raised again and again.
            if _WAY_OUT not in getattr(raised[0], "__notes__", ()):
                raised[0].add_note(_WAY_OUT)
            raise raised[0]


def _run_failed(row: dict[str, Any]) -> RunFailedError:
    return RunFailedError(f"run {row['id']} failed: {row['error']}")


def _lost(engine: Any, crons: set[str]) -> list[tuple[str, str]]:
    """The crons whose workflow is missing, with it: no poll tells of them."""
    rows = [(row["name"], row["workflow"]) for row in engine.store.query(_CRONS, [])]
    return [(name, workflow) for name, workflow in rows if name in crons and not registry.knows(workflow)]


def _cron_failed(name: str, workflow: str) -> TriggerError:
    return TriggerError(f"trigger {excerpt(name)} {why.undeclared(workflow)}")


def _tick_failed(name: str, reason: str) -> TriggerError:
    return TriggerError(f"trigger {excerpt(name)}: {reason}")
