"""Which body of which runner asks, and how it goes home without an end. Decides nothing.

Invariant: what is entered is left, whatever the body raises.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from contextvars import Context, ContextVar
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from .bodies.loop import Loop
    from .job import Job
    from .logbook import Gathering, Lines
    from .permit import Deferred, Permit
    from .telemetry.spans import Within

    Name = str | Callable[[], str | None] | None
    """The task's id, or the trigger's name, or what finds out whose trigger's body this thread is in."""
    Calls = tuple[int, str | None, list[int | None] | None]
    """The run of which a body starts runs, its task unless a callback does, and those calls' numbers; without
    those the run that was named as the parent."""

# A context variable follows a coroutine to the loop, and `asyncio.to_thread` back to a thread.
_bodies: ContextVar[tuple[inside, ...]] = ContextVar("cloaca_bodies", default=())


class Interrupted(BaseException):
    """Ends a body whose runner closes, or for whom nobody waits any more: nothing is ruled, the run goes on
    elsewhere. No `Exception`, so that a body's own `except Exception` doesn't take it for a failure.
    """


class inside:
    """While a body of `engine` runs here: an attempt's `job`, or `None` for a poll.

    Written out as a class, because each attempt enters one. Without an engine the body is only named, as one
    of its `host`, and runs in its caller's name. An attempt that may wait without its permit comes with what
    counts those that do, and with the loop that it runs on, if it does.

    Attributes:
        is_home: whether the body has ended, and its callback runs, or this is one.
        is_callback: whether it is a callback that runs.
        was_told: whether it has looked whether it is to end, and was told so.
    """

    __slots__ = (
        "_calls",
        "_deferred",
        "_permit",
        "_token",
        "_traced",
        "engine",
        "host",
        "is_callback",
        "is_home",
        "job",
        "lines",
        "loop",
        "name",
        "trace",
        "was_told",
    )

    def __init__(
        self,
        engine: Any,
        job: Any,
        name: Name,
        deferred: Deferred | None = None,
        loop: Loop | None = None,
        is_callback: bool = False,
        host: Any = None,
    ) -> None:
        self.engine = engine
        self.host = engine if host is None else host
        self.job = job
        self.name = name
        self.loop = loop
        self._deferred = deferred
        self.is_callback = is_callback
        self._permit: Permit | None = None
        self._calls: dict[str, Iterator[int]] | None = None
        self.is_home = is_callback
        self.was_told = False
        self.lines: Lines | Gathering | None = None
        """What takes what it logs, if that is kept."""
        self.trace: Within | None = None
        """What is current of OpenTelemetry while it runs, if that is traced."""

    def calls(self, workflow: str, has_keys: Sequence[bool]) -> Calls | None:
        """How runs are called that it starts, in this order: those without a run key are numbered, for each
        workflow by itself, so that the same call of a later attempt has the same number. A callback's have
        none, for each of its calls is another one. `None` of a poll.
        """
        if self.job is None:
            return None
        if self.is_home:
            return self.job.run, None, [None] * len(has_keys)
        if self._calls is None:
            self._calls = {}
        numbers = self._calls.setdefault(workflow, count(1))
        # An attempt's name is its task's id.
        task: Any = self.name
        return self.job.run, task, [None if has_key else next(numbers) for has_key in has_keys]

    def permit(self) -> Permit | None:
        """The attempt's permit; `None` of what needs none, a poll."""
        if self._permit is None and self._deferred is not None:
            self._permit = self._deferred.permit(self, self.is_callback)
        return self._permit

    def is_to_end(self) -> bool:
        """Whether the attempt's body is to end, which it may tell by what it raises from now on."""
        self.was_told = self.job is not None and bool(self.host.jobs.is_to_end(self.job))
        return self.was_told

    def is_sent_home(self) -> bool:
        """Whether it was told to end, and not for its own sake: the runner closes, or has fallen silent. What
        it raises by that is no failure; whoever goes on with the run makes it anew."""
        if not self.was_told:
            return False
        is_waited_for, is_told = self.host.jobs.attempt_stands(self.job)
        return is_waited_for and not is_told

    def is_permit_held(self) -> bool:
        """Whether the attempt counts among those that run."""
        return self._permit is None or self._permit.is_held

    def goes_on(self, loop: Loop) -> None:
        """The body, which began on a thread, goes on on an event loop."""
        self.loop = loop
        self.is_home = self.is_callback

    def tells(self) -> None:
        """The body is home, and its callback runs where it did: for that nobody waits."""
        self.is_callback, self._permit = True, None

    def close(self) -> None:
        """The body is home; whoever still calls is its callback."""
        self.is_home = True
        if self._permit is not None:
            self._permit.close()

    def __enter__(self) -> None:
        before = _bodies.get()
        try:
            self._token = _bodies.set((*before, self))
            if self.trace is not None:
                self._traced = self.trace.attach()
        except BaseException:
            # Thrown in from outside: nobody leaves what was not entered.
            _bodies.set(before)
            raise

    def __exit__(self, *_: object) -> None:
        if self.trace is not None:
            self.trace.detach(self._traced)
        _bodies.reset(self._token)
        self.close()


def outside() -> None:
    """This thread is in no body: something was thrown into it that may have come amid leaving one."""
    _bodies.set(())


class calling(inside):
    """While a callback of a run that is over is called.

    Attributes:
        end: that run's id, and its workflow.
    """

    __slots__ = ("end",)

    def __init__(self, engine: Any, run: str, workflow: str) -> None:
        super().__init__(engine, None, None)
        self.end = run, workflow

    def calls(self, workflow: str, has_keys: Sequence[bool]) -> Calls | None:
        """How runs are called that it starts: each call is another one."""
        return int(self.end[0].replace("-", ""), 16), None, [None] * len(has_keys)


def fresh(body: inside) -> Context:
    """A context for a body that begins apart from whoever asked for it: nothing of theirs leaks in."""
    context = Context()
    context.run(_bodies.set, (body,))
    if body.trace is not None:
        context.run(body.trace.attach)
    return context


def current(engine: Any) -> tuple[Any] | None:
    """The innermost body of that engine that asks, as `(job,)`; `None` outside of one."""
    found = body(engine)
    return None if found is None else (found.job,)


def body(engine: Any) -> inside | None:
    """The innermost body of that engine that asks; `None` outside of one."""
    for entered in reversed(_bodies.get()):
        if entered.engine is engine:
            return entered
    return None


def entered() -> inside | None:
    """The innermost body of any runner; `None` outside of one."""
    bodies = _bodies.get()
    return bodies[-1] if bodies else None


def innermost() -> tuple[Any, Any, str | None, tuple[str, str] | None] | None:
    """The innermost body of any runner: its engine, the attempt's job, and its task or trigger; of a callback
    for a run that is over, that run's id and its workflow."""
    bodies = _bodies.get()
    if not bodies:
        return None
    last = bodies[-1]
    end = last.end if isinstance(last, calling) else None
    return last.host, last.job, last.name() if callable(last.name) else last.name, end


def clock_us() -> int | None:
    """What the clock of the runner shows that has called the innermost body here, in microseconds since 1970;
    `None` outside of bodies, and in other processes, where the machine's shows the same."""
    inside = innermost()
    shows = None if inside is None else getattr(inside[0], "now", None)
    return None if shows is None else int(shows())


def run_id(job: Job) -> str:
    """The id of an attempt's run, as text."""
    # Not by `uuid`: a thread that imports at a fork leaves the child half a module, and its lock.
    digits = f"{job.run:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_forked(pid: int) -> bool:
    """Whether a body has forked and this is the child: the runner is not here, its thread goes home."""
    return os.getpid() != pid


def end_child(pid: int, raised: BaseException) -> None:
    """Ends a child that an async body has forked and that wishes to end, as `sys.exit` would. The loop that
    it has is its parent's, too: to end that in order would deafen the parent's."""
    if not is_forked(pid) or not isinstance(raised, SystemExit):
        return
    code = raised.code
    with suppress(Exception):
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(0 if code is None else code & 0xFF if isinstance(code, int) else 1)
