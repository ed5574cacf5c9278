"""What stands behind ticks and handles that tests make to call bodies by hand. Knows no engine and no store.

Invariant: a body finds in them what it would find while it runs, but that nothing of it is kept.
"""

from __future__ import annotations

import time

from . import attempt
from .config import DefaultRunnerConfig
from .context import decode_value
from .job import Job
from .permit import Deferred
from .plain import say
from .task_handle import DEFER_SECONDS_STILL, TaskHandle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .types import RunSummary


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
