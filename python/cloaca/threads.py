"""The threads of one runner: nobody waits for ever for one to begin, and one that serves is kept at it,
whatever another thread throws into it (`PyThreadState_SetAsyncExc`, as some time-outs do).

Decides nothing. Invariants: a thread that serves ends when what it calls has returned, and by nothing else;
what it has taken stays in its `Hand` until it is seen to.
"""

from __future__ import annotations

import os
import threading
from itertools import starmap
from time import monotonic, sleep

from . import attempt, imported
from .errors import CloacaError, RunnerError
from .kind import is_a
from .plain import ERROR, WARNING, describe, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BEGINS_WITHIN_SECONDS = (0.5, 2.0, 8.0)
"""How long a thread that was started may take to begin; then another is started in its stead."""
TRIES_MAX = 3
"""What a thread was struck over so often is let go of: it may be what strikes."""
SOON_SECONDS = 1.0
"""Struck again within so long, a thread waits before it goes on: what strikes it may not pass."""
PAUSE_SECONDS = 0.01
PAUSE_SECONDS_MAX = 1.0

_GREEN = (
    ("gevent.monkey", "is_module_patched", "threading"),
    ("eventlet.patcher", "is_monkey_patched", "thread"),
)
"""What tells whether threads are still threads."""

_log = "cloaca"


def refuse_green() -> None:
    """Refuses a runner where threads are none: those that serve wait in native code, where none of the others
    would go on.

    Raises:
        RunnerError: gevent or eventlet has put its own in their place.
    """
    for module, asks, named in _GREEN:
        is_patched = imported.found(module, asks)
        if is_patched is not None and is_patched(named):
            name = module.partition(".")[0]
            raise RunnerError(
                f"{name} has replaced the threads of this process by its own (monkey patching), and a runner"
                " needs real ones; make it in a process that is not patched, as `cloaca run` is"
            )


class Threads:
    """Those of one runner."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def start(self, role: str, call: Callable[[], object]) -> None:
        """Has this called once, on a thread of its own.

        Raises:
            RuntimeError: the system has no thread to give.
        """
        self._begin(role, call, serves=False)

    def serve(self, role: str, call: Callable[[], object]) -> None:
        """Has this called on a thread of its own, and again when something was thrown into that before it has
        returned. A `RunnerError` that it raises ends it: there is no engine any more.

        Raises:
            RuntimeError: the system has no thread to give.
        """
        self._begin(role, call, serves=True)

    def join(self, seconds: float) -> None:
        """Waits at most ``seconds`` for them to end. The calling thread is not waited for."""
        deadline = monotonic() + seconds
        with self._lock:
            threads = [thread for thread in self._threads if thread.is_alive()]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))

    def is_home(self) -> bool:
        """Whether all have ended."""
        with self._lock:
            return not any(thread.is_alive() for thread in self._threads)

    def _begin(self, role: str, call: Callable[[], object], *, serves: bool) -> None:
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            name = f"cloaca-{role}-{len(self._threads)}"
        begin(name, call, self._keep, pid=self._pid, serves=serves)

    def _keep(self, thread: threading.Thread) -> None:
        with self._lock:
            self._threads.append(thread)


def begin(
    name: str, call: Callable[[], object], keep: Callable[[threading.Thread], None], *, pid: int, serves: bool
) -> None:
    """Has this called on a thread of that name, in this process; of one that serves again when something was
    thrown into it.

    Args:
        keep: is given the thread before it is waited for: who waits may be interrupted. Once more if that
            does not begin.

    Raises:
        RuntimeError: the system has no thread to give.
    """
    for seconds in BEGINS_WITHIN_SECONDS:
        seat = _Seat(call, pid, serves)
        # Daemon threads: a body that never returns must not keep the interpreter from ending.
        thread = threading.Thread(target=seat.sit, name=name, daemon=True)
        # `start` would wait for ever for one that is struck before it says that it has begun.
        thread._started = _NotWaitedFor()  # type: ignore[attr-defined]
        thread.start()
        keep(thread)
        if seat.is_taken_within(seconds):
            return
    raise RuntimeError("can't start new thread: of those that were started none has begun")


class _NotWaitedFor(threading.Event):
    """What a thread says that it has begun with, for who does not wait for that."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class _Seat:
    """What a thread is to call, until it does."""

    __slots__ = ("_call", "_claims", "_empty", "_is_called", "_pid", "_serves")

    def __init__(self, call: Callable[[], object], pid: int, serves: bool) -> None:
        self._call = call
        self._pid = pid
        self._serves = serves
        self._claims: list[bool] = []
        """Whose it is, the thread's or of who gave it up, says the first of them."""
        self._empty = threading.Lock()
        self._empty.acquire()
        self._is_called = False

    def is_taken_within(self, seconds: float) -> bool:
        """Whether its thread has begun, or does within so long."""
        if self._empty.acquire(timeout=seconds):
            return True
        self._claims.append(False)
        return self._claims[0]

    def sit(self) -> None:
        """The whole life of a thread. Of what is thrown into it each step here stands once more."""
        thrown: BaseException | None = None
        strikes, struck_at = 0, 0.0
        while True:
            try:
                self._claims.append(True)
                if not self._claims[0]:
                    return
                if self._empty.locked():
                    self._empty.release()
                if thrown is not None:
                    if attempt.is_forked(self._pid):
                        return
                    attempt.outside()
                    now = monotonic()
                    strikes = strikes + 1 if now - struck_at < SOON_SECONDS else 0
                    struck_at, news, thrown = now, thrown, None
                    tell_thrown(news)
                    del news
                    if strikes:
                        sleep(min(PAUSE_SECONDS * 2.0 ** min(strikes, 10), PAUSE_SECONDS_MAX))
                self._is_called = True
                self._call()
                return
            except BaseException as raised:
                if self._is_called and not self._serves:
                    raise
                if is_a(raised, RunnerError):
                    return
                thrown = raised


class Hand:
    """What a thread that serves takes, one after another, and has not seen to yet.

    Args:
        take: gives the next; must be of C, so that nothing which is thrown into the thread comes between what
            is given and its being kept here.
    """

    __slots__ = ("_held", "_take", "_tries")

    def __init__(self, take: Callable[..., Any]) -> None:
        self._take = take
        self._held: list[Any] = []
        self._tries = 0

    def next(self, *arguments: object) -> Any:
        """What is in hand still, else the next."""
        if self._held and self._tries > TRIES_MAX:
            say(_log, ERROR, "what a thread of the runner was struck over %d times is let go of", TRIES_MAX)
            self.done()
        if not self._held:
            self._held.extend(starmap(self._take, (arguments,)))
        self._tries += 1
        return self._held[0]

    @property
    def mark(self) -> list[Any]:
        """A list that goes with what is in hand: what was noted there is known when it is seen to again."""
        if len(self._held) == 1:
            self._held.append([])
        mark: list[Any] = self._held[1]
        return mark

    @property
    def is_full(self) -> bool:
        """Whether there is something in hand still."""
        return bool(self._held)

    @property
    def is_again(self) -> bool:
        """Whether what is in hand was before, when its thread was struck."""
        return self._tries > 1

    def done(self) -> None:
        """It is seen to."""
        self._tries = 0
        self._held.clear()


def tell_thrown(thrown: BaseException) -> None:
    """Says what was thrown into this thread."""
    name = threading.current_thread().name
    if is_a(thrown, CloacaError):
        say(_log, ERROR, "thread %s met a fault of the engine; please report it", name, raised=thrown)
    else:
        text = "%s was thrown into thread %s of the runner, which goes on"
        say(_log, WARNING, text, describe(thrown), name)
