"""Waits of event loops for the ends of runs: one thread of a runner hears of all of them.

Decides nothing. Invariant: no thread of a loop's own pool waits for a run, or a pool full of those that do
would hold up what they wait for.
"""

from __future__ import annotations

import contextlib
import threading

from . import attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from ._cloaca import Engine, Watch

HEAR_SECONDS = 5.0
"""How long the thread waits for news at once."""


class Awaiter:
    """What waits in event loops for runs of one runner."""

    def __init__(self, engine: Engine, start: Callable[[str, Any], None]) -> None:
        self._engine = engine
        self._start = start
        self._lock = threading.Lock()
        self._waits: dict[str, list[_Wait]] = {}
        self._is_started = False
        self._is_closing = False

    async def wait(self, watch: Watch) -> Any:
        """A run's end, as `Watch.wait` gives it.

        Raises:
            RunnerError: (a `RuntimeError`) the runner shuts down first.
        """
        import asyncio

        is_body = attempt.current(self._engine) is not None
        while (ended := watch.wait(0.0)) is None:
            wait = _Wait(asyncio.get_running_loop(), is_body)
            self._add(watch.id, wait)
            try:
                # Who asks too late finds the end at the next look.
                if not watch.hear():
                    await wait.future
            finally:
                self._drop(watch.id, wait)
        return ended

    def _add(self, run_id: str, wait: _Wait) -> None:
        with self._lock:
            if self._is_closing and wait.is_body:
                raise attempt.Interrupted
            if not self._is_started:
                self._start("awaiter", self._hear)
                self._is_started = True
            self._waits.setdefault(run_id, []).append(wait)

    def _drop(self, run_id: str, wait: _Wait) -> None:
        with self._lock:
            waits = self._waits.get(run_id, [])
            if wait in waits:
                waits.remove(wait)
            if not waits:
                self._waits.pop(run_id, None)

    def _hear(self) -> None:
        while (heard := self._engine.runs.hear(self._is_closing, HEAR_SECONDS)) is not None:
            if isinstance(heard, list):
                for run_id in heard:
                    self._tell(run_id)
            else:
                self._tell_bodies()
        with self._lock:
            left = list(self._waits)
        for run_id in left:
            self._tell(run_id)

    def _tell(self, run_id: str) -> None:
        with self._lock:
            waits = self._waits.pop(run_id, [])
        for wait in waits:
            wait.tell(None)

    def _tell_bodies(self) -> None:
        """A body that waits for a run goes home when its runner closes."""
        with self._lock:
            self._is_closing = True
            waits = [wait for each in self._waits.values() for wait in each if wait.is_body]
        for wait in waits:
            wait.tell(attempt.Interrupted())


class _Wait:
    """One wait of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_body: bool) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.is_body = is_body

    def tell(self, error: BaseException | None) -> None:
        """Lets it go on; from another thread than its loop's."""
        # A loop that is closed waits for nothing any more.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)
