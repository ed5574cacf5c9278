"""The right of an attempt to run, which it gives back while it waits, and takes again before it goes on.

Decides nothing. Invariant: an attempt that has given its permit back either has one again when its body goes
on, or its body ends without an outcome.
"""

from __future__ import annotations

import threading
from time import monotonic

from . import attempt
from .errors import RunnerError
from .plain import WARNING, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._cloaca import Engine, Watch
    from .bodies.loop import Loop
    from .job import Job

DEFERRED_MAX = 1000
"""So many tasks of a runner wait without a permit at once. Each is a thread, and a permit given back makes
room for one more: further ones keep theirs until there is room, or for too long."""

KEEP_SECONDS = 0.1
"""When nobody has begun or ended to wait for so long, one more waits without a permit: what all wait for may
need the last one. For each that is one too many it is as long again, so that threads grow ever slower."""

LOOK_SECONDS = 0.1
"""How soon a wait notices that it is over."""

PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02)
"""How long a coroutine that wants its permit again waits between two looks, growing."""

_task_log = "cloaca.task"


class Deferred:
    """How many tasks of a runner wait without a permit.

    Attributes:
        run: runs a coroutine and returns its result.
        say: how it is logged what a condition raised.
        pause_max: no pause between two looks at a condition is longer, in seconds.
    """

    def __init__(self, run: Callable[[Any], object], say: Callable[..., None]) -> None:
        self.run = run
        self.say = say
        self.pause_max = float("inf")
        self._lock = threading.RLock()
        self._count = 0
        self._moved_at = monotonic()
        self._is_told = False
        self._looked = threading.Condition()
        self._looks: dict[object, int] = {}
        """How often each wait has begun to look at its condition."""

    def waits(self, wait: object) -> None:
        """A wait begins. Said before its permit is given back: from then on its body counts as at rest."""
        with self._looked:
            self._looks[wait] = 0

    def looks(self, wait: object) -> None:
        """A wait begins to look at its condition."""
        with self._looked:
            self._looks[wait] += 1
            self._looked.notify_all()

    def looks_no_more(self, wait: object) -> None:
        """A wait is over, and its body goes on."""
        with self._looked:
            self._looks.pop(wait, None)
            self._looked.notify_all()

    def wait_looked(self, seconds: float) -> bool:
        """Waits until everybody who waits has looked once more from now on; whether somebody goes on."""
        with self._looked:
            # The look that is under way may have begun before, and the next one is over when one more begins.
            due = {wait: looks + 2 for wait, looks in self._looks.items()}
            self._looked.wait_for(
                lambda: all(self._looks.get(wait, looks) >= looks for wait, looks in due.items()), seconds
            )
            return any(wait not in self._looks for wait in due)

    def permit(self, body: attempt.inside, is_callback: bool) -> Permit:
        """The permit of an attempt that runs now."""
        return Permit(self, body, is_callback)

    def enter(self) -> bool:
        """Whether one more may."""
        with self._lock:
            still = monotonic() - self._moved_at
            if self._count < DEFERRED_MAX or still >= KEEP_SECONDS * (1 + self._count - DEFERRED_MAX):
                self._move(1)
                return True
            is_told, self._is_told = self._is_told, True
        if not is_told:
            text = (
                "%d tasks wait in defer_until or for other runs, as many as may; further ones keep their"
                " slots while they wait"
            )
            say(_task_log, WARNING, text, DEFERRED_MAX)
        return False

    def leave(self) -> None:
        """One waits no more."""
        with self._lock:
            self._move(-1)
            self._is_told &= self._count > 0

    def _move(self, by: int) -> None:
        self._count += by
        self._moved_at = monotonic()


class Permit:
    """The permit of one attempt."""

    __slots__ = (
        "_body",
        "_deferred",
        "_engine",
        "_is_callback",
        "_is_counted",
        "_job",
        "_lock",
        "_waits",
        "is_held",
    )

    def __init__(self, deferred: Deferred, body: attempt.inside, is_callback: bool) -> None:
        self._body = body
        self._deferred = deferred
        self._engine: Engine = body.engine
        self._is_callback = is_callback
        self._is_counted = False
        self._job: Job = body.job
        self._lock = threading.RLock()
        self._waits = 0
        self.is_held = True

    def begin_wait(self, watch: Watch | None = None) -> None:
        """The body waits from now on, for that run if for one. It may do so in several threads or coroutines:
        it goes on when the last of these waits is over."""
        with self._lock:
            self._waits += 1
            # What has ended already is not waited for.
            if watch is None or self._engine.jobs.wait_for_run(self._job, watch):
                self.give_back()

    def give_back(self) -> None:
        """Gives it back, once there is room among those that wait without one. On a loop there is always."""
        with self._lock:
            if not self.is_held:
                return
            if (loop := self._body.loop) is not None:
                # Another thread of such a body waits with it.
                if loop.is_here():
                    loop.yielded(self._job)
                    self.is_held = False
            elif self._deferred.enter():
                self._is_counted = True
                self._engine.jobs.yield_permit(self._job)
                self.is_held = False

    def end_wait(self, watch: Watch | None = None) -> bool:
        """A wait is over; true if the permit is to be taken again."""
        with self._lock:
            self._waits -= 1
            if watch is not None:
                self._engine.jobs.waited_for_run(self._job, watch)
            return self._waits == 0 and not self.is_held

    def regain(self) -> None:
        """Takes it again. Call on a thread that may wait.

        Raises:
            attempt.Interrupted: the runner closes, or nobody waits for the attempt any more.
        """
        if (loop := self._body.loop) is not None:
            asked = self._ask(loop)
            while not asked.wait(LOOK_SECONDS):
                self._must_matter()
            return
        while not self._take(LOOK_SECONDS):
            self._must_matter()

    async def regain_async(self) -> None:
        """Like `regain`, in a coroutine."""
        if (loop := self._body.loop) is not None and loop.is_here():
            return await loop.regained(self._job, self.close)
        import asyncio

        asked = None if loop is None else self._ask(loop)
        looks = 0
        while not (self._take(0.0) if asked is None else asked.is_set()):
            self._must_matter()
            await asyncio.sleep(PAUSES[min(looks, len(PAUSES) - 1)])
            looks += 1
        return None

    def look(self) -> None:
        """Whether to wait on is of any use.

        Raises:
            attempt.Interrupted: the runner closes, or nobody waits for the attempt any more.
            RunnerError: (a `RuntimeError`) its body is to end.
        """
        if self._must_matter():
            raise RunnerError._of_wait(
                f"this task of run {attempt.run_id(self._job)} is to end; it waits no longer"
            )

    def close(self) -> None:
        """The body is home."""
        with self._lock:
            if self.is_held:
                return
            self.is_held = True
            if self._is_counted:
                self._is_counted = False
                self._deferred.leave()
            elif (loop := self._body.loop) is not None:
                loop.resumed(self._job)

    def _ask(self, loop: Loop) -> threading.Event:
        """Asks for it on the loop, where it was given back: word of that may still be on its way to the
        engine, and nothing that the loop says overtakes it.
        """
        has_it = threading.Event()

        def ask() -> None:
            if self.is_held:
                has_it.set()
            else:
                loop.wanted(self._job, self.close).add_done_callback(lambda _: has_it.set())

        loop.hand(ask)
        return has_it

    def _take(self, seconds: float) -> bool:
        if not self.is_held and self._engine.jobs.regain_permit(self._job, seconds):
            self.close()
        return self.is_held

    def _must_matter(self) -> bool:
        """Whether the body is to end, of an attempt for which somebody waits."""
        if self._engine.wait_closing(0.0):
            raise attempt.Interrupted
        if self._is_callback:
            return False
        waited_for, told = self._engine.jobs.attempt_stands(self._job)
        if not waited_for:
            raise attempt.Interrupted
        return told


class waiting:
    """While the body that asks, if one does, waits: its permit is given back, and taken again at the end.

    Not after `attempt.Interrupted`, which ends the body.
    """

    __slots__ = ("_watch", "permit")

    def __init__(self, body: attempt.inside | None, watch: Watch | None = None) -> None:
        self.permit = None if body is None else body.permit()
        self._watch = watch

    def look(self) -> None:
        """As `Permit.look`, in a body of a task; and gives back what there was no room for before."""
        if self.permit is not None:
            self.permit.look()
            self.permit.give_back()

    def __enter__(self) -> waiting:
        if self.permit is not None:
            self.permit.begin_wait(self._watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._is_to_regain(kind):
            assert self.permit is not None
            self.permit.regain()

    async def __aenter__(self) -> waiting:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A coroutine that is cancelled must not wait for anything more.
        if self._is_to_regain(kind) and (kind is None or issubclass(kind, Exception)):
            assert self.permit is not None
            await self.permit.regain_async()

    def _is_to_regain(self, kind: type[BaseException] | None) -> bool:
        if self.permit is None or not self.permit.end_wait(self._watch):
            return False
        return kind is None or not issubclass(kind, attempt.Interrupted)
