"""What a poll answers, and how a run ended. Decides nothing; never touches a store.

Invariant: a result doesn't change after it was made, so one skip can be everybody's skip.
"""

from __future__ import annotations

from . import urgency
from .check import RUN_KEY_CHARS_MAX
from .context import DEPTH_MAX, Context, checked_value, decode_value, encode_value, same
from .errors import ContextError, RunFailedError, TriggerError, excerpt, typed
from .frozen import Frozen
from .name import written_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, ClassVar, Never, Self

    from .run import Run
    from .types import ContextLike, Duration, RunStatus
    from .urgency import Urgency

REASON_CHARS_MAX = 1024


class TriggerResult:
    """What one poll decided: `TriggerResult.skip()` or `TriggerResult.fire(context)`.

    Equal if everything said in it is, as the engine compares it: 1, 1.0 and `True` are three. A fire without
    a context equals one with an empty context.
    """

    __slots__ = (
        "_context",
        "_cursor",
        "_dedup_key",
        "_fires",
        "_parent",
        "_reason",
        "_run_key",
        "_run_key_ttl",
        "_urgency",
    )

    _fires: bool
    _context: Context | None
    _reason: str | None
    _run_key: str | None
    _run_key_ttl: float | None
    _cursor: str | None
    _dedup_key: str | None
    _urgency: Urgency | None
    _parent: str | None

    def __init__(self) -> None:
        raise TypeError("call TriggerResult.skip() or TriggerResult.fire(context)")

    @staticmethod
    def skip(reason: str | None = None) -> TriggerResult:
        """Nothing to do. Without a reason it is always the same object, and costs next to nothing.

        `reason` is kept in the history, its first 1024 characters.

        Raises:
            TriggerError: the reason is no `str`.
        """
        if reason is None:
            return SKIP
        if not isinstance(reason, str):
            raise TriggerError(f"reason is {excerpt(reason)}, {typed(reason)}; it must be a str or None")
        text = reason[:REASON_CHARS_MAX].encode("utf-8", "backslashreplace").decode()
        return _made(fires=False, context=None, reason=text, run_key=None, run_key_ttl=None)

    @staticmethod
    def fire(
        context: ContextLike | None = None,
        *,
        run_key: str | None = None,
        run_key_ttl: Duration | None = None,
        cursor: Any = None,
        dedup_key: str | None = None,
        priority: int | None = None,
        at: str | datetime | None = None,
        delay: Duration | None = None,
        parent: Run | str | None = None,
        **unknown: Never,
    ) -> TriggerResult:
        """Start the workflow with this context, which is copied here.

        `run_key` may start at most one run, within `run_key_ttl` (a duration: `"7d"`, seconds, a `timedelta`)
        or for ever. Where the name of a file that is not UTF-8 holds lone surrogates, they are written out in
        it (`\\udce9`), and in `dedup_key`; a context and a cursor, which come back as they were given, can't
        hold them.

        `cursor` is the trigger's cursor once this fire is behind it, a JSON value that is copied here; `None`
        means that it has none. The cursors of a poll's fires move the trigger's own only past what became a
        run, or was used up by its run key: the first one that overlap drops stops it, and comes again at the
        next poll with those behind it. A fire with a cursor is an event of its own: no other with an equal
        context stands in its way.

        `dedup_key` says what makes this fire equal to others of its trigger, where that is not the whole
        context: while a run with the same key is unfinished, none starts.

        `priority` is how urgent its run is, from 0 to 9; of what could begin, 9 goes first. By default its
        workflow decides, and else it is 5. With `at`, an instant as RFC 3339 or a `datetime` (UTC if it has
        no zone), or `delay`, a duration from the poll's end, it begins then or later. A run that waits for
        its time is unfinished: equal fires are dropped meanwhile, and it counts for `overlap="skip"`. A
        trigger whose runs wait for one another can't delay one.

        `parent`, a run or its id, is that of which the new run comes: it is shown with that one, and
        cancelled with it. One that is not kept any more stands in nobody's way.

        Raises:
            ContextTypeError: (a `TypeError`) the context or the cursor, or a value in it, is of a wrong type.
            ContextError: (a `ValueError`) the context or the cursor holds what JSON cannot.
            TriggerError: (a `ValueError`) a run key that is empty or no `str`, a bad or lonely
                `run_key_ttl`, a `priority`, `at` or `delay` that is none, or both of the latter, a `parent`
                that is neither a run nor the id of one.
        """
        seconds = None
        if unknown:
            from .near import refuse_keywords

            refuse_keywords("TriggerResult.fire()", unknown, TriggerResult.fire.__kwdefaults__)
        if run_key is not None:
            run_key = _checked_run_key(run_key)
        if run_key_ttl is not None:
            if run_key is None:
                raise TriggerError(
                    f"run_key_ttl is {excerpt(run_key_ttl)} without a run_key; give both or neither"
                )
            from .duration import seconds_of

            seconds = seconds_of(run_key_ttl, "run_key_ttl")
        if dedup_key is not None:
            dedup_key = _checked_run_key(dedup_key, "dedup_key")
            if cursor is not None:
                raise TriggerError(
                    f"dedup_key is {excerpt(dedup_key)} and a cursor is given; a fire with a cursor is an"
                    " event of its own, leave one out"
                )
        text = None if cursor is None else encode_value(checked_value(cursor, "cursor", DEPTH_MAX))
        try:
            held = None if context is None else Context(context)
        except ContextError as refused:
            # Among many it has to be found.
            which = [f"run_key {excerpt(run_key)}"] if run_key is not None else []
            which += [f"cursor {excerpt(cursor)}"] if cursor is not None else []
            told = f"; it is the fire with {' and '.join(which)}" if which else ""
            raise type(refused)(f"{refused}{told}") from None
        return _made(
            fires=True,
            context=held,
            reason=None,
            run_key=run_key,
            run_key_ttl=seconds,
            cursor=text,
            dedup_key=dedup_key,
            urgency=urgency.of(priority, at, delay, TriggerError),
            parent=None if parent is None else _checked_parent(parent),
        )

    @property
    def context(self) -> Context | None:
        """The context of a fire; `None` stands for the empty one."""
        return self._context

    @property
    def reason(self) -> str | None:
        """Why a skip skips, if it said."""
        return self._reason

    @property
    def run_key(self) -> str | None:
        """The key under which this fire may start one run; none means every time."""
        return self._run_key

    @property
    def run_key_ttl(self) -> float | None:
        """How long the run key holds, in seconds; none means for ever."""
        return self._run_key_ttl

    @property
    def cursor(self) -> Any:
        """The trigger's cursor once this fire is behind it; `None` if it carries none."""
        return None if self._cursor is None else decode_value(self._cursor)

    @property
    def dedup_key(self) -> str | None:
        """What makes this fire equal to others; none means its context."""
        return self._dedup_key

    @property
    def priority(self) -> int | None:
        """How urgent the run is, from 0 to 9; none leaves that to the workflow."""
        return None if self._urgency is None else self._urgency[0]

    @property
    def at(self) -> str | None:
        """When the run begins, or later, as RFC 3339 in UTC; none if that isn't said so."""
        from .rows import moment

        at_us = None if self._urgency is None else self._urgency[1]
        return None if at_us is None else moment(at_us)

    @property
    def delay(self) -> float | None:
        """How many seconds after the poll the run begins, or later; none if that isn't said so."""
        delay_us = None if self._urgency is None else self._urgency[2]
        return None if delay_us is None else delay_us / 1e6

    @property
    def parent(self) -> str | None:
        """The id of the run of which the new one comes; none if that isn't said."""
        return self._parent

    def is_fire_result(self) -> bool:
        """Whether it fires."""
        return self._fires

    def is_skip_result(self) -> bool:
        """Whether it skips."""
        return not self._fires

    def __bool__(self) -> bool:
        """Whether it fires, as `True` and `False` from a trigger mean."""
        return self._fires

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, TriggerResult):
            return NotImplemented
        return (
            self._fires == other._fires
            and self._reason == other._reason
            and self._run_key == other._run_key
            and self._dedup_key == other._dedup_key
            and self._run_key_ttl == other._run_key_ttl
            and self._urgency == other._urgency
            and self._parent == other._parent
            and (self._cursor == other._cursor or same(self.cursor, other.cursor))
            and same(_content(self._context), _content(other._context))
        )

    def __hash__(self) -> int:
        # The context is left out: whoever holds the result can change it in place.
        said = self._fires, self._reason, self._run_key, self._run_key_ttl, self._dedup_key
        return hash((*said, self._urgency, self._parent))

    def __repr__(self) -> str:
        if not self._fires:
            return "TriggerResult.Skip"
        parts = {"cursor": self.cursor, "run_key": self._run_key, "dedup_key": self._dedup_key}
        told = "".join(f", {name}={value!r}" for name, value in parts.items() if value is not None)
        return f"TriggerResult.Fire({self._context!r}{told})"

    def __copy__(self) -> TriggerResult:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self is SKIP:
            return "SKIP"
        parts = self._fires, self._context, self._reason, self._run_key, self._run_key_ttl
        return _restored, (*parts, self._cursor, self._dedup_key, self._urgency, self._parent)


def _content(context: Context | None) -> dict[str, Any]:
    return {} if context is None else context._data


def _made(
    *,
    fires: bool,
    context: Context | None,
    reason: str | None,
    run_key: str | None,
    run_key_ttl: float | None,
    cursor: str | None = None,
    dedup_key: str | None = None,
    urgency: Urgency | None = None,
    parent: str | None = None,
) -> TriggerResult:
    result = object.__new__(TriggerResult)
    result._fires = fires
    result._context = context
    result._reason = reason
    result._run_key = run_key
    result._run_key_ttl = run_key_ttl
    result._cursor = cursor
    result._dedup_key = dedup_key
    result._urgency = urgency
    result._parent = parent
    return result


def _restored(
    fires: bool,
    context: Context | None,
    reason: str | None,
    run_key: str | None,
    run_key_ttl: float | None,
    cursor: str | None = None,
    dedup_key: str | None = None,
    urgency: Urgency | None = None,
    parent: str | None = None,
) -> TriggerResult:
    return _made(
        fires=fires,
        context=context,
        reason=reason,
        run_key=run_key,
        run_key_ttl=run_key_ttl,
        cursor=cursor,
        dedup_key=dedup_key,
        urgency=urgency,
        parent=parent,
    )


SKIP = _made(fires=False, context=None, reason=None, run_key=None, run_key_ttl=None)
"""The skip without a reason, as an object that can be told by identity."""


def _checked_parent(parent: object) -> str:
    from .check import parent_id

    try:
        return parent_id(parent)
    except ValueError as refused:
        raise TriggerError(str(refused)) from None


def _checked_run_key(run_key: object, name: str = "run_key") -> str:
    if not isinstance(run_key, str):
        raise TriggerError(f"{name} is {excerpt(run_key)}, {typed(run_key)}; it must be a str")
    if not run_key:
        raise TriggerError(f"{name} is ''; it must not be empty, because every fire would share it")
    if len(run_key) > RUN_KEY_CHARS_MAX:
        raise TriggerError(
            f"{name} is {excerpt(run_key)}, {len(run_key)} characters; at most {RUN_KEY_CHARS_MAX} fit"
        )
    return written_out(str(run_key))


class WorkflowResult(Frozen):
    """How a run stands or ended.

    `status` is `Completed`, `Failed` or `Cancelled`, or `Pending`, `Running` while not yet final;
    `start_time` and `end_time` are RFC 3339 in UTC; `error_message` says which task failed with what error.
    """

    __slots__ = ("end_time", "error_message", "final_context", "start_time", "status")
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    status: RunStatus
    start_time: str
    end_time: str | None
    final_context: Context
    error_message: str | None

    def __init__(
        self,
        *,
        status: RunStatus,
        start_time: str,
        end_time: str | None,
        final_context: Context,
        error_message: str | None = None,
    ) -> None:
        self._fill(
            status=status,
            start_time=start_time,
            end_time=end_time,
            final_context=final_context,
            error_message=error_message,
        )

    def raise_for_failure(self) -> Self:
        """Raises if the run failed or was cancelled, and otherwise returns the result itself.

        Raises:
            RunFailedError: (a `RuntimeError`) the message says which task failed with what error; `result` is
                this result.
        """
        if self.status not in ("Failed", "Cancelled"):
            return self
        why = f": {self.error_message}" if self.error_message else ""
        failed = RunFailedError(
            f"the run was cancelled{why}" if self.status == "Cancelled" else f"the run failed{why}"
        )
        failed.result = self
        raise failed

    def __repr__(self) -> str:
        return f"WorkflowResult(status={self.status}, error={self.error_message})"

    def _repr_html_(self) -> str:
        from ._notebook import result

        return result(self)
