"""Waits of event loops for the ends of runs: one thread of a runner hears of all of them.

Decides nothing. Invariant: no thread of a loop's own pool waits for a run, or a pool full of those that do
would hold up what they wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from . import attempt
from .permit import waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._cloaca import Engine, Watch

HEAR_SECONDS = 5.0
"""How long the thread waits for news at once."""
PATIENCE_SECONDS = 30.0
"""A wait for a run that its store has not taken for so long ends, as that of a call without a loop does."""
LOOK_SECONDS = 1.0
"""From then on it is looked so often whether the store takes nothing."""


class Awaiter:
    """What waits in event loops for runs of one runner."""

    def __init__(self, engine: Engine, start: Callable[[str, Any], None]) -> None:
        self._engine = engine
        self._start = start
        self._lock = threading.Lock()
        self._waits: dict[str, list[_Wait]] = {}
        self._is_started = False
        self._is_closing = False

    async def wait(self, watch: Watch, seconds: float | None = None) -> Any:
        """A run's end, as `Watch.wait` gives it; `None` if it does not come in time.

        Raises:
            RunnerError: (a `RuntimeError`) the runner shuts down first.
            StoreError: (a `RuntimeError`) the store has taken nothing for 30 s: the run is not kept yet.
        """
        if (ended := watch.wait(0.0)) is not None:
            return ended
        async with waiting(attempt.body(self._engine), watch):
            if seconds is None:
                # As `_ended`, without a coroutine of its own: they are what thousands of waits cost.
                while (ended := watch.wait(0.0)) is None:
                    await self._hear_of(watch, False)
                return ended
            # Within: whoever is too late has the permit of his body again.
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._ended(watch), seconds)
            return watch.wait(0.0)

    async def _ended(self, watch: Watch) -> Any:
        while (ended := watch.wait(0.0)) is None:
            await self._hear_of(watch, False)
        return ended

    async def wait_started(self, watch: Watch) -> None:
        """Until the run is kept.

        Raises:
            RunnerError: (a `RuntimeError`) the runner shuts down first, or the store refuses it.
            StoreError: (a `RuntimeError`) the store has taken nothing for 30 s: the run is not kept yet.
        """
        while not watch.is_started():
            await self._hear_of(watch, True)

    async def _hear_of(self, watch: Watch, start: bool) -> None:
        wait = _Wait(asyncio.get_running_loop(), attempt.current(self._engine) is not None)
        self._add(watch.id, wait)
        try:
            # Who asks too late finds the news at the next look.
            if not watch.hear(start):
                wait.bound(watch)
                await wait.future
        finally:
            self._drop(watch.id, wait)
            wait.close()

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
                self._tell(heard)
            else:
                self._tell_bodies()
        with self._lock:
            left = list(self._waits)
        self._tell(left)

    def _tell(self, run_ids: list[str]) -> None:
        with self._lock:
            waits = [wait for run_id in run_ids for wait in self._waits.pop(run_id, ())]
        # Each loop is woken once, however many wait in it.
        loops: dict[asyncio.AbstractEventLoop, list[_Wait]] = {}
        for wait in waits:
            loops.setdefault(wait.loop, []).append(wait)
        for loop, waits in loops.items():
            _tell(loop, waits, None)

    def _tell_bodies(self) -> None:
        """A body that waits for a run goes home when its runner closes."""
        with self._lock:
            self._is_closing = True
            waits = [wait for each in self._waits.values() for wait in each if wait.is_body]
        for wait in waits:
            _tell(wait.loop, [wait], attempt.Interrupted())


class _Wait:
    """One wait of one loop."""

    __slots__ = ("future", "is_body", "loop", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, is_body: bool) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.is_body = is_body
        self.timer: asyncio.TimerHandle | None = None

    def bound(self, watch: Watch, seconds: float = PATIENCE_SECONDS) -> None:
        """Has it end if by then the run is not kept, and its store takes nothing; on its loop."""
        if not watch.is_started():
            self.timer = self.loop.call_later(seconds, self._look, watch)

    def _look(self, watch: Watch) -> None:
        try:
            if not watch.is_started():
                watch.refuse_if_held_up()
                self.bound(watch, LOOK_SECONDS)
        except Exception as refused:
            self.end(refused)

    def close(self) -> None:
        """Nobody waits any more."""
        if self.timer is not None:
            self.timer.cancel()

    def end(self, error: BaseException | None) -> None:
        """Lets it go on; on its loop."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


def _tell(loop: asyncio.AbstractEventLoop, waits: list[_Wait], error: BaseException | None) -> None:
    """Lets them go on; from another thread than their loop's."""

    def end() -> None:
        for wait in waits:
            wait.end(error)

    # A loop that is closed waits for nothing any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(end)
