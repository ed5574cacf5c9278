"""What a trigger's body answered, as plain data for the engine.

Decides what counts as an answer. Invariant: an answer that is none raises, and says what to return.
"""

from __future__ import annotations

from collections.abc import Mapping

from .context import Context, encode_within, fitting
from .duration import text_of
from .errors import CloacaError, TriggerError, excerpt, typed
from .kind import is_a, is_awaitable, is_iterator, name_of, refuse_generator
from .plain import plain
from .result import SKIP, TriggerResult
from .tick import MOMENT_KEYS, Ticked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .bodies.remote import Polled
    from .job import TicketParts
    from .tick import Tick
    from .urgency import Urgency

    Fire = tuple[str, str | None, int | None, str | None, str | None, Urgency | None, int | None, str | None]
    Told = tuple[list[Fire], str | None, str, str | None, int | None]
    Ruling = str | tuple[str, int] | Told | tuple[*Told, str] | None
    Judge = Callable[[int, Polled], Ruling]
    """What a poll in a place came to, once whoever listens has been told."""

WAITING = frozenset(("queue", "buffer_one", "cancel_running"))
"""By these policies a run waits for others of its trigger."""

FIRES_MAX = 10_000
"""One poll may give at most so many results."""
BEYOND = f"it gave more than {FIRES_MAX} results: those behind come at the next poll"
"""Why a poll that is no failure ends where it does."""


class Pending:
    """An answer that is made in another process, and comes later."""

    __slots__ = ()

    def begin(self, ticket: TicketParts, judge: Judge) -> None:
        """Has it made, and reported as `judge` rules. Never waits for it."""
        raise NotImplementedError

    def wait(self, ticket: TicketParts) -> Polled:
        """Has it made, and waits for it."""
        raise NotImplementedError


class PartlyError(Exception):
    """A generator raised after it had given fires that carry their own cursors: those count."""

    def __init__(self, results: list[TriggerResult], raised: BaseException) -> None:
        super().__init__(results, raised)
        self.results = results
        self.raised = raised

    def fires(self, tick: Tick | None, bytes_max: int, overlap: str | None) -> list[Fire]:
        """The fires that count: those before one that can't be kept, which is then what went wrong."""
        kept: list[Fire] = []
        try:
            for result in self.results:
                kept.append(_fire(result, tick, bytes_max, overlap))
        except CloacaError as refused:
            self.raised = refused
        return kept


class BeyondError(PartlyError):
    """A poll gave more than counts at once, with cursors: what stands up to the last of them within the bound
    counts, and the poll behind it, which comes at once, goes on from there."""

    def __init__(self, results: list[TriggerResult]) -> None:
        super().__init__(results, _Beyond())

    def ruling(self, fires: list[Fire]) -> Ruling | None:
        """What that means, unless one of its fires can't be kept."""
        return (fires, None, BEYOND, None, 0) if is_a(self.raised, _Beyond) else None


class _Beyond(Exception):
    """Nothing went wrong."""


def ruled(answer: object, tick: Tick | None, bytes_max: int, overlap: str | None) -> Ruling:
    """What an answer means, once all of it is there, of a trigger with that policy."""
    is_cron = tick is not None and tick._moment is not None
    results = _results(_decision(answer) if is_cron else answer, is_cron)
    fires = [_fire(result, tick, bytes_max, overlap) for result in results if result.is_fire_result()]
    reasons = [result.reason for result in results if result.is_skip_result() and result.reason]
    reason = plain(reasons[-1]) if reasons else ""
    # After the results: a generator may move the cursor between two of them.
    cursor = None if tick is None else tick._moved(bytes_max)
    pause = None if tick is None else tick._pause_us
    if not fires and cursor is None:
        return reason if pause is None else (reason, pause)
    return fires, cursor, reason, None, pause


def later(delay_us: int, pause: str | None, fires: list[Fire]) -> Ruling:
    """What a poll means that asks to be called again, and gave these fires before."""
    reason = f"retry after {text_of(delay_us)}"
    if pause is not None:
        return fires, None, f"{reason}; limit {excerpt(pause)} is paused until then", None, delay_us, pause
    return (fires, None, reason, None, delay_us) if fires else (reason, delay_us)


def _decision(answer: Any) -> Any:
    """What a cron's function says of its moment: nothing means run, a context means run with that."""
    if answer is None:
        return TriggerResult.fire()
    return TriggerResult.fire(answer) if _is_context(answer) else answer


def _results(answer: Any, is_cron: bool = False) -> list[TriggerResult]:
    if is_a(answer, TriggerResult):
        return [answer]
    if type(answer) is bool:
        return [TriggerResult.fire() if answer else SKIP]
    if not (is_a(answer, list) or is_a(answer, tuple) or is_iterator(answer)):
        raise TriggerError(_no_answer(answer, is_cron))
    results: list[TriggerResult] = []
    try:
        for result in answer:
            if not is_a(result, TriggerResult):
                text = f"its list holds {typed(result)}; each must be a TriggerResult"
                raise TriggerError(f"{text}{_way_to_fire(result)}")
            results.append(result)
            if len(results) > FIRES_MAX:
                # It holds what it reads from, and is not read to its end.
                getattr(answer, "close", lambda: None)()
                break
    except BaseException as raised:
        # SystemExit and its like too: what was given before stays given.
        count = [result for result in results[:FIRES_MAX] if result._cursor is not None]
        if count and is_iterator(answer):
            raise PartlyError(count, raised) from raised
        raise
    if len(results) > FIRES_MAX:
        raise _beyond(results[:FIRES_MAX], is_cron)
    return results


def _beyond(results: list[TriggerResult], is_cron: bool) -> Exception:
    """What to say of a poll that gave these and more. What has no cursor would be given again, so that the
    rest would have its turn never, or the first a second time."""
    last = next((n for n in reversed(range(len(results))) if results[n]._cursor is not None), None)
    if last is not None and not is_cron:
        return BeyondError([result for result in results[: last + 1] if result.is_fire_result()])
    way = "" if is_cron else ", or give each fire its cursor: TriggerResult.fire(..., cursor=...)"
    return TriggerError(f"it gave more than {FIRES_MAX} results at once, and none counts; give fewer{way}")


def _no_answer(answer: object, is_cron: bool) -> str:
    """What is said of what is no answer, with what was probably meant."""
    kind = "None" if answer is None else name_of(type(answer))
    if callable(answer) and not is_a(answer, type):
        # What was meant to be called mostly tells its name.
        name = getattr(answer, "__qualname__", kind)
        return f"it returned the function {name} and not what that returns; write {name}()"
    if is_cron:
        may = "a cron's function returns None to run, a context, a bool, a TriggerResult, or a list of them"
        return f"it returned {kind}; {may}"
    if answer is None:
        return "it returned None; if there is nothing to do return TriggerResult.skip() or False"
    may = "return a TriggerResult, a bool, or a list of TriggerResults"
    return f"it returned {kind}; {may}{_way_to_fire(answer)}"


def _way_to_fire(answer: object) -> str:
    return "; to fire with a context return TriggerResult.fire({...})" if _is_context(answer) else ""


def _is_context(answer: object) -> bool:
    return is_a(answer, Context) or issubclass(type(answer), Mapping)


def _with_moment(moment: dict[str, Any], context: Context | None) -> Context:
    """The context of a cron's run: what tells of the moment, and what its function adds."""
    given = {} if context is None else context.to_dict()
    taken = [key for key in MOMENT_KEYS if key in given and given[key] != moment.get(key)]
    if taken:
        raise TriggerError(
            f"its context holds {', '.join(taken)}, which each run of a cron is given; leave that out"
        )
    return Context._wrap(moment | given)


def _fire(result: TriggerResult, tick: Tick | None, bytes_max: int, overlap: str | None) -> Fire:
    ttl, when = result.run_key_ttl, result._urgency
    if overlap in WAITING and when is not None and not when[1] is when[2] is None:
        said = "delay" if when[1] is None else "at"
        shown = excerpt(result.at) if when[2] is None else text_of(when[2])
        raise TriggerError(
            f"{said} is {shown}, and overlap is {excerpt(overlap)}, by which runs wait for one another: one"
            " that waits for its time would hold up all others; leave out either, or say"
            ' overlap="allow" or "skip"'
        )
    context = result.context
    if tick is not None and tick._moment is not None:
        context = _with_moment(tick._moment, context)
    text = encode_within(bytes_max, context, "the context of a fire")
    cursor = None if result._cursor is None else fitting(bytes_max, result._cursor, "the cursor of a fire")
    ttl_us = None if ttl is None else int(ttl * 1e6)
    parent = None if result._parent is None else int(result._parent.replace("-", ""), 16)
    return text, result.run_key, ttl_us, cursor, result._dedup_key, when, parent, None


def waited_for(returned: object, run: Callable[[Any], object]) -> None:
    """Waits for what a callback returned, if that can be awaited.

    Args:
        run: runs a coroutine and returns its result.

    Raises:
        TypeError: it is a generator, of which nothing has run.
    """
    while is_awaitable(returned):
        returned = run(returned)
    refuse_generator(returned)


def complete(answer: object, run: Callable[[Any], object], tick: Tick | None = None) -> object:
    """An answer with all of its parts, so that what its generator or coroutine raises is raised here.

    Args:
        run: runs a coroutine and returns its result.
        tick: what the function was given.
    """
    if type(answer) is Ticked:
        return Ticked(answer.tick, complete(answer.answer, run, answer.tick))
    if is_awaitable(answer):
        return complete(run(answer), run, tick)
    if is_iterator(answer):
        return _results(answer, tick is not None and tick._moment is not None)
    return answer
