"""Waits of event loops for the ends of runs: each loop hears of its own by a descriptor that it reads; where
it cannot, one thread of the runner hears of all of them.

Decides nothing. Invariant: no thread of a loop's own pool waits for a run, or a pool full of those that do
would hold up what they wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from . import attempt
from .errors import RunnerError
from .permit import waiting
from .threads import Hand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ._cloaca import Engine, Hearer, Watch
    from .threads import Threads

HEAR_SECONDS = 5.0
"""How long the thread waits for news at once."""
PATIENCE_SECONDS = 30.0
"""A wait for a run that its store has not taken for so long ends, as that of a call without a loop does."""
LOOK_SECONDS = 1.0
"""From then on it is looked so often whether the store takes nothing."""


class Awaiter:
    """What waits in event loops for runs of one runner."""

    def __init__(self, engine: Engine, threads: Threads) -> None:
        self._engine = engine
        self._threads = threads
        self._heard = Hand(engine.runs.hear)
        self._lock = threading.Lock()
        self._places: dict[asyncio.AbstractEventLoop, _Place] = {}
        self._is_started = False
        self.is_closing = False
        """Whether the runner closes: bodies wait for runs no longer."""

    async def wait(self, watch: Watch, run_id: str, seconds: float | None = None) -> Any:
        """A run's end, as `Watch.wait` gives it; `None` if it does not come in time. A body that asks waits
        without its permit.

        Raises:
            RunnerError: (a `RuntimeError`) the runner shuts down first.
            StoreError: (a `RuntimeError`) the store has taken nothing for 30 s: the run is not kept yet.
        """
        if (ended := watch.wait(0.0)) is not None:
            return ended
        async with waiting(attempt.body(self._engine), watch):
            if seconds is None:
                return await self._ended(watch, run_id)
            # Within: whoever is too late has the permit of his body again.
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._ended(watch, run_id), seconds)
            return watch.wait(0.0)

    async def _ended(self, watch: Watch, run_id: str) -> Any:
        while (ended := watch.wait(0.0)) is None:
            with self.hearing(watch, run_id) as news:
                await news
        return ended

    async def wait_started(self, watch: Watch, run_id: str) -> None:
        """Until the run is kept.

        Raises:
            RunnerError: (a `RuntimeError`) the runner shuts down first, or the store refuses it.
            StoreError: (a `RuntimeError`) the store has taken nothing for 30 s: the run is not kept yet.
        """
        while not watch.is_started():
            with self.hearing(watch, run_id, of_start=True) as news:
                await news

    def hearing(self, watch: Watch, run_id: str, *, of_start: bool = False) -> _Wait:
        """A wait of the loop that runs here, to be entered, for news of a run: its end, or its commit.

        No coroutine: thousands may wait, and each layer of those costs a quarter of a kilobyte.

        Raises:
            attempt.Interrupted: a body asks, and the runner closes.
        """
        loop = asyncio.get_running_loop()
        place = self._places.get(loop) or self._placed(loop)
        return _Wait(place, watch, run_id, of_start, attempt.current(self._engine) is not None)

    def _placed(self, loop: asyncio.AbstractEventLoop) -> _Place:
        with self._lock:
            if not self._is_started:
                self._threads.serve("awaiter", self._hear)
                self._is_started = True
            for gone in [other for other in self._places if other.is_closed()]:
                del self._places[gone]
            place = self._places[loop] = _Place(self, loop, self._engine.runs.hearer())
            return place

    def _hear(self) -> None:
        while (heard := self._heard.next(self.is_closing, HEAR_SECONDS)) is not None:
            if isinstance(heard, list):
                # Any loop may wait for them.
                for place in self._all() if heard else ():
                    place.call(place.tell, heard)
            else:
                # A body that waits for a run goes home when its runner closes.
                self.is_closing = True
                for place in self._all():
                    place.call(place.interrupt)
            self._heard.done()
        for place in self._all():
            place.call(place.leave)

    def _all(self) -> list[_Place]:
        with self._lock:
            return list(self._places.values())


class _Place:
    """Where one loop waits. But for `call`, everything happens on it."""

    def __init__(self, awaiter: Awaiter, loop: asyncio.AbstractEventLoop, hearer: Hearer | None) -> None:
        self.awaiter = awaiter
        self.loop = loop
        self.hearer = hearer
        self._waits: dict[str, tuple[_Wait, ...]] = {}
        self._timer: asyncio.TimerHandle | None = None
        if hearer is not None:
            try:
                loop.add_reader(hearer.descriptor, self._heed, hearer)
            except NotImplementedError:
                self.hearer = None

    def call(self, tell: Callable[..., None], *about: Any) -> None:
        """Has this called on the loop, from any thread."""
        # A loop that is closed waits for nothing any more.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(tell, *about)

    def add(self, wait: _Wait) -> None:
        """One waits from now on."""
        self._waits[wait.run_id] = (*self._waits.get(wait.run_id, ()), wait)

    def drop(self, wait: _Wait) -> None:
        """It waits no more."""
        left = tuple(other for other in self._waits.pop(wait.run_id, ()) if other is not wait)
        if left:
            self._waits[wait.run_id] = left

    def tell(self, run_ids: Iterable[str]) -> None:
        """There is news of these runs."""
        for run_id in run_ids:
            for wait in self._waits.pop(run_id, ()):
                wait.end(None)

    def interrupt(self) -> None:
        """The runner closes."""
        for wait in self._all():
            if wait.is_body:
                wait.end(attempt.Interrupted())

    def leave(self) -> None:
        """Nothing is heard any more."""
        self._deafen()
        self.tell(list(self._waits))
        if self._timer is not None:
            self._timer.cancel()

    def be_patient(self) -> None:
        """Looks later whether the store takes nothing, on behalf of all whose runs are not kept yet."""
        if self._timer is None:
            self._timer = self.loop.call_later(PATIENCE_SECONDS, self._look)

    def _all(self) -> list[_Wait]:
        return [wait for waits in self._waits.values() for wait in waits]

    def _heed(self, hearer: Hearer) -> None:
        try:
            heard = hearer.heard()
        except RunnerError:
            # A forked child, which has the loop but not the runner.
            self._deafen()
            return
        self.tell(heard)

    def _deafen(self) -> None:
        if self.hearer is not None:
            with contextlib.suppress(ValueError):
                self.loop.remove_reader(self.hearer.descriptor)

    def _look(self) -> None:
        self._timer = None
        for wait in self._all():
            wait.look(self.loop.time() - PATIENCE_SECONDS)
        if any(wait.is_unkept for wait in self._all()):
            self._timer = self.loop.call_later(LOOK_SECONDS, self._look)


class _Wait:
    """One wait of one loop, while it is entered."""

    __slots__ = ("_future", "_of_start", "_place", "_since", "_watch", "is_body", "is_unkept", "run_id")

    def __init__(self, place: _Place, watch: Watch, run_id: str, of_start: bool, is_body: bool) -> None:
        self._future: asyncio.Future[None] = place.loop.create_future()
        self._of_start = of_start
        self._place = place
        self._since = 0.0
        self._watch = watch
        self.is_body = is_body
        self.is_unkept = False
        """Whether its run was not kept when it was last looked."""
        self.run_id = run_id

    def __enter__(self) -> asyncio.Future[None]:
        place = self._place
        if self.is_body and place.awaiter.is_closing:
            raise attempt.Interrupted
        if self._watch.hear(self._of_start, place.hearer):
            # The news is there already.
            self._future.set_result(None)
            return self._future
        if not self._watch.is_started():
            self.is_unkept = True
            self._since = place.loop.time()
            place.be_patient()
        # Only now: what is raised here leaves nothing behind, and whatever is told comes in a later turn.
        place.add(self)
        return self._future

    def __exit__(self, *_: object) -> None:
        self._place.drop(self)

    def look(self, before: float) -> None:
        """Ends it if its run is not kept, the store takes nothing, and it has waited since then or longer."""
        if not self.is_unkept:
            return
        try:
            self.is_unkept = not self._watch.is_started()
            if self.is_unkept and self._since <= before:
                self._watch.refuse_if_held_up()
        except Exception as refused:
            self.end(refused)

    def end(self, error: BaseException | None) -> None:
        """Lets it go on."""
        if self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)
