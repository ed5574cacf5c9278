"""What stands behind ticks, handles and runs that tests make to call functions by hand. Knows no engine
and no store.

Invariant: a body finds in them what it would find while it runs, but that nothing of it is kept.
"""

from __future__ import annotations

import time

from . import attempt, rows
from .config import DefaultRunnerConfig
from .context import decode_value
from .job import Job
from .permit import Deferred
from .plain import say
from .task_handle import DEFER_SECONDS_STILL, TaskHandle
from .urgency import PRIORITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .job import Raised
    from .types import RunDetails, RunEnd, RunSummary


class Known:
    """What a tick says of the trigger's runs."""

    __slots__ = ("_last_run", "_unfinished")

    def __init__(self, unfinished: int, last_run: RunSummary | None) -> None:
        self._unfinished = unfinished
        self._last_run = last_run

    def unfinished(self) -> int:
        """How many are not over."""
        return self._unfinished

    def last_run(self) -> RunSummary | None:
        """The newest."""
        return self._last_run


def ended(
    *,
    run_id: str,
    workflow: str,
    status: RunEnd,
    task_id: str,
    context: str,
    final_context: str,
    raised: Raised | None,
    trigger_name: str | None,
    run_key: str | None,
    at: str,
) -> RunDetails:
    """A run of one task that took no time, as functions are told of it; contexts as JSON text. One that was
    cancelled was so before it began."""
    has_begun = status != "Cancelled"
    kind, error, trace = (None, None, None) if raised is None else raised[:3]
    told = "cancelled" if not has_begun else None if error is None else f"task '{task_id}' failed: {error}"
    tried = {
        "number": 1,
        "outcome": status,
        "started_at": at,
        "ended_at": at,
        "error_type": kind,
        "error": error,
        "traceback": trace,
        "runner": 1,
    }
    task = {
        "id": task_id,
        "status": status,
        "attempts": 1,
        "error": error,
        "error_type": kind,
        "started_at": at,
        "completed_at": at,
        "waits_until": None,
        "waits_since": None,
        "overdue_since": None,
        "tries": [tried],
        "tries_left_out": 0,
    }
    row = {
        "id": run_id,
        "workflow_name": workflow,
        "status": status,
        "trigger_name": trigger_name,
        "run_key": run_key,
        "parent_run": None,
        "parent_task": None,
        "parent_kind": None,
        "context": context,
        "priority": PRIORITY,
        "due_at": None,
        "created_at": at,
        "started_at": at if has_begun else None,
        "completed_at": at,
        "took_seconds": 0.0 if has_begun else None,
        "lain_seconds": 0.0,
        "error_message": told,
        "error_type": kind,
        "cancel_requested": not has_begun,
        "final_context": final_context,
        "tasks": [task] if has_begun else [],
        "former": [],
        "graph": None,
        "children": [],
        "callbacks": [],
        "trace": None,
        "last_callback": None,
    }
    return rows.run_with_tasks(row, [])


class Handle(TaskHandle):
    """A task's handle that keeps what it is told for the test that made it, and nothing else.

    Attributes:
        checkpoints (list): what `checkpoint` was given, oldest first.
    """

    __slots__ = ("_engine_of_test",)

    def __init__(self, job: Job, task_id: str, checkpoint: str | None) -> None:
        self._engine_of_test = _Engine()
        engine: Any = self._engine_of_test
        deferred = Deferred(_completed, say)
        deferred.pause_max = DEFER_SECONDS_STILL
        super().__init__(
            engine, attempt.inside(engine, job, task_id, deferred), task_id, checkpoint, deferred
        )

    @property
    def checkpoints(self) -> list[Any]:
        """What `checkpoint` was given, oldest first; each look gives copies."""
        return [decode_value(text) for text in self._engine_of_test.kept]


def _completed(coroutine: Any) -> object:
    from ._aio import run_coroutine, shared_loop

    return run_coroutine(coroutine, shared_loop())


class _Engine:
    """As much of an engine as a handle asks, where everybody always waits for the attempt."""

    def __init__(self) -> None:
        self.context_bytes_max = DefaultRunnerConfig().context_bytes_max
        self.kept: list[str] = []
        self.jobs = self

    def checkpoint(self, _job: Job, text: str) -> bool:
        self.kept.append(text)
        return True

    def yield_permit(self, _job: Job) -> None: ...

    def regain_permit(self, _job: Job, _seconds: float) -> bool:
        return True

    def is_to_end(self, _job: Job) -> bool:
        return False

    def is_current(self, _job: Job) -> bool:
        return True

    def attempt_stands(self, _job: Job) -> tuple[bool, bool]:
        return True, False

    def wait_closing(self, seconds: float) -> bool:
        time.sleep(seconds)
        return False
