"""What a trigger's function may know of the poll that it answers, and the cursor that it may move.

Decides nothing. Invariant: a cursor that was set is valid JSON, so that saving it cannot fail after the poll.
"""

from __future__ import annotations

from . import filters, rows
from .context import DEPTH_MAX, checked_value, decode_value, encode_value, fitting
from .duration import microseconds_of
from .errors import RunnerError, TriggerError, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ._cloaca import Engine
    from .runner import DefaultRunner
    from .types import Duration, RunSummary

    TickState = tuple[str | None, str, str | None, int, str | None, str | None]
    """Cursor, when due, last fire, failures, last error, and what a run of a cron begins with."""

    class Asks(Protocol):
        """What a tick asks the engine."""

        def unfinished(self) -> int: ...
        def last_run(self) -> RunSummary | None: ...


MOMENT_KEYS = ("scheduled_time", "schedule_id", "schedule_timezone", "schedule_expression")
"""What each run of a cron finds in its context."""


class Tick:
    """One poll, or one moment of a cron, as a trigger's function with a parameter gets it.

    Attributes:
        trigger_name (str): the trigger.
        scheduled_at (str): when the poll was due, or which moment of a cron this is, RFC 3339 in UTC.
        last_fired_at (str | None): when the trigger last fired a run.
        consecutive_failures (int): how many polls in a row have failed before this one, in whatever
            process.
        last_error (str | None): what went wrong in the poll before; `None` if that went well, or was one of a
            runner before this one.
    """

    __slots__ = (
        "_body",
        "_cursor",
        "_is_read",
        "_kept",
        "_moment",
        "_pause_us",
        "consecutive_failures",
        "last_error",
        "last_fired_at",
        "scheduled_at",
        "trigger_name",
    )

    trigger_name: str
    scheduled_at: str
    last_fired_at: str | None
    consecutive_failures: int
    last_error: str | None

    def __init__(
        self,
        trigger_name: str,
        cursor: str | None,
        scheduled_at: str,
        last_fired_at: str | None,
        consecutive_failures: int,
        last_error: str | None = None,
        moment: str | None = None,
        body: Asks | None = None,
    ) -> None:
        self.trigger_name = trigger_name
        self.scheduled_at = scheduled_at
        self.last_fired_at = last_fired_at
        self.consecutive_failures = consecutive_failures
        self.last_error = last_error
        self._body = body
        self._kept = cursor
        # Of a cron: what a run of its moment begins with.
        self._moment: dict[str, Any] | None = None if moment is None else decode_value(moment)
        self._pause_us: int | None = None
        self._cursor: Any = None
        self._is_read = False

    @property
    def cursor(self) -> Any:
        """A JSON value that the trigger keeps between polls; `None` at first.

        It is saved with the fires of this poll, or not at all: when the function raises or times out, the
        next poll sees the old one. Beside fires that carry their own cursors it stands behind them all, and
        is saved only if overlap dropped none of them. Beside others it is saved whatever becomes of them.
        Changing a list or dict in place counts too, also one that was set here.

        Raises:
            ContextTypeError: (a `TypeError`) on setting what JSON does not know.
            ContextError: (a `ValueError`) on setting what JSON cannot hold.
        """
        if not self._is_read:
            self._cursor = None if self._kept is None else decode_value(self._kept)
            self._is_read = True
        return self._cursor

    @cursor.setter
    def cursor(self, value: Any) -> None:
        checked_value(value, "cursor", DEPTH_MAX)
        self._cursor = value
        self._is_read = True

    @property
    def unfinished(self) -> int:
        """How many runs that this trigger fired are not over, whoever drives them."""
        return 0 if self._body is None else self._body.unfinished()

    @property
    def last_run(self) -> RunSummary | None:
        """The newest run that this trigger fired, as a dict of `list_runs(contexts=False)`; `None` if the
        store keeps none. It is read from the store when it is asked for.

        Raises:
            StoreError, RunnerError: (a `RuntimeError`) what `list_runs` raises.
        """
        return None if self._body is None else self._body.last_run()

    @property
    def runner(self) -> DefaultRunner:
        """The runner that polls, to submit or look for runs by it: that of `cloaca.current_run()`.

        Raises:
            RunnerError: (a `RuntimeError`) this is another process than the runner's, it has shut down, or no
                body is being called. In a preview each method that does more than look raises it.
        """
        from .current import current_run

        called = current_run()
        if called is None:
            raise RunnerError("a tick's runner is that of the poll; call the function by runner.tick(name)")
        return called.runner

    def poll_after(self, delay: Duration) -> None:
        """Asks for the next poll after this delay, beside what this one answers.

        It is polled on the first beat of its interval that is not earlier. The last call counts; when the
        function raises none does. `runner.poll_soon` is stronger.

        Raises:
            TriggerError: (a `ValueError`) the delay is no duration, or the trigger is a cron, which its
                calendar calls.
        """
        if self._moment is not None:
            raise TriggerError(
                f"trigger {excerpt(self.trigger_name)} is a cron: its calendar says when it is called; raise"
                " RetryAfter to be called for this moment again"
            )
        self._pause_us = microseconds_of(delay, "delay")

    @property
    def poll_after_seconds(self) -> float | None:
        """The delay that `poll_after` was last given in this poll; `None` if it was not called."""
        return None if self._pause_us is None else self._pause_us / 1_000_000

    def _moved(self, bytes_max: int) -> str | None:
        """The cursor as JSON text if it differs from what was kept; `ContextError` if that is too large."""
        if not self._is_read:
            return None
        text = encode_value(checked_value(self._cursor, "cursor", DEPTH_MAX))
        return None if text == (self._kept or "null") else fitting(bytes_max, text, "the cursor")

    def __repr__(self) -> str:
        return f"Tick(trigger_name={self.trigger_name!r}, scheduled_at={self.scheduled_at!r})"


class Ticked:
    """What a tick-aware function answered, with its tick."""

    __slots__ = ("answer", "tick")

    def __init__(self, tick: Tick, answer: object) -> None:
        self.tick = tick
        self.answer = answer


class TickBody:
    """A tick-aware function as the engine calls it: without arguments."""

    __slots__ = ("_engine", "_function", "_name", "_place")

    def __init__(self, engine: Engine, function: Callable[[Tick], object], name: str, place: int) -> None:
        self._engine = engine
        self._function = function
        self._name = name
        self._place = place

    def __call__(self) -> Ticked:
        return self._call(*self._engine.polls.tick_state(self._place))

    def decide(self, at: str, moment: str) -> Ticked:
        """Calls a cron's function for a moment beside its calendar; a run of that begins with `moment`."""
        cursor, _, last_fired_at, failures, error, _ = self._engine.polls.tick_state(self._place)
        return self._call(cursor, at, last_fired_at, failures, error, moment)

    def _call(
        self,
        cursor: str | None,
        at: str,
        last: str | None,
        failures: int,
        error: str | None,
        moment: str | None,
    ) -> Ticked:
        tick = Tick(self._name, cursor, at, last, failures, error, moment, self)
        return Ticked(tick, self._function(tick))

    def unfinished(self) -> int:
        """How many runs of the trigger are not over."""
        return self._engine.polls.unfinished(self._place)

    def last_run(self) -> RunSummary | None:
        """The newest run of the trigger, without its context."""
        found = self._engine.runs.runs(filters.wanted(trigger=self._name), 1, 0)
        return rows.run(found[0], False) if found else None
