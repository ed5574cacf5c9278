"""What a trigger's body answered, as plain data for the engine.

Decides what counts as an answer. Invariant: an answer that is none raises, and says what to return.
"""

from __future__ import annotations

from .context import encode_within, fitting
from .errors import CloacaError, TriggerError
from .plain import plain
from .result import SKIP, TriggerResult
from .tick import Ticked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .tick import Tick

    Fire = tuple[str, str | None, int | None, str | None, str | None]
    Ruling = str | tuple[str, int] | tuple[list[Fire], str | None, str, str | None, int | None] | None

FIRES_MAX = 10_000
"""One poll may fire at most so many runs."""


class PartlyError(Exception):
    """A generator raised after it had given fires that carry their own cursors: those count."""

    def __init__(self, results: list[TriggerResult], raised: BaseException) -> None:
        super().__init__(results, raised)
        self.results = results
        self.raised = raised

    def fires(self, bytes_max: int) -> list[Fire]:
        """The fires that count: those before one that can't be kept, which is then what went wrong."""
        kept: list[Fire] = []
        try:
            for result in self.results:
                kept.append(_fire(result, bytes_max))
        except CloacaError as refused:
            self.raised = refused
        return kept


def ruled(answer: object, tick: Tick | None, bytes_max: int) -> Ruling:
    """What an answer means, once all of it is there."""
    results = _results(answer)
    fires = [_fire(result, bytes_max) for result in results if result.is_fire_result()]
    reasons = [result.reason for result in results if result.is_skip_result() and result.reason]
    reason = plain(reasons[-1]) if reasons else ""
    # After the results: a generator may move the cursor between two of them.
    cursor = None if tick is None else tick._moved(bytes_max)
    pause = None if tick is None else tick._pause_us
    if not fires and cursor is None:
        return reason if pause is None else (reason, pause)
    return fires, cursor, reason, None, pause


def _results(answer: Any) -> list[TriggerResult]:
    if isinstance(answer, TriggerResult):
        return [answer]
    if isinstance(answer, bool):
        return [TriggerResult.fire() if answer else SKIP]
    if not (isinstance(answer, list | tuple) or hasattr(answer, "__next__")):
        kind = "None" if answer is None else type(answer).__name__
        raise TriggerError(f"it returned {kind}; return a TriggerResult, a bool, or a list of TriggerResults")
    results: list[TriggerResult] = []
    try:
        for result in answer:
            if not isinstance(result, TriggerResult):
                raise TriggerError(f"its list holds a {type(result).__name__}; each must be a TriggerResult")
            results.append(result)
            if len(results) > FIRES_MAX:
                raise TriggerError(
                    f"it gave more than {FIRES_MAX} results at once; give the rest at the next poll"
                )
    except BaseException as raised:
        # SystemExit and its like too: what was given before stays given.
        count = [result for result in results[:FIRES_MAX] if result._cursor is not None]
        if count and hasattr(answer, "__next__"):
            raise PartlyError(count, raised) from raised
        raise
    return results


def _fire(result: TriggerResult, bytes_max: int) -> Fire:
    ttl = result.run_key_ttl
    text = encode_within(bytes_max, result.context, "the context of a fire")
    cursor = None if result._cursor is None else fitting(bytes_max, result._cursor, "the cursor of a fire")
    return text, result.run_key, None if ttl is None else int(ttl * 1e6), cursor, result._dedup_key


def is_awaitable(answer: object) -> bool:
    """Decided by what came and not by the function: a decorator around an `async def` is an ordinary one."""
    return type(answer) is not TriggerResult and hasattr(answer, "__await__")


def complete(answer: object) -> object:
    """An answer with all of its parts, so that what its generator or coroutine raises is raised here."""
    if type(answer) is Ticked:
        return Ticked(answer.tick, complete(answer.answer))
    if is_awaitable(answer):
        from ._aio import run_coroutine

        return complete(run_coroutine(answer))
    if hasattr(answer, "__next__"):
        return _results(answer)
    return answer
