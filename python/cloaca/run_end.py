"""The function of a trigger with `on_run`, as the engine calls it for an end of a run.

Decides which run the function is shown. Invariant: what it answers is all there before any of it counts, so
that a function that raises has fired nothing for that end.
"""

from __future__ import annotations

from functools import partial
from itertools import islice

from . import rows, unread
from .answer import FIRES_MAX
from .errors import TriggerError
from .kind import is_a, is_awaitable, is_iterator
from .plain import ERROR, say
from .policy import RetryAfter
from .result import SKIP, TriggerResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._cloaca import Engine
    from .types import RunDetails

NONE_ENDED = "no run has ended that it is still to be told of"
UNREAD_SECONDS = 1
"""So long after a store that could not be read it is asked again."""
_log = "cloaca"


class RunEndBody:
    """A function that is told of ends of runs, called without arguments."""

    __slots__ = ("_engine", "_function", "_name", "_place", "_tell")

    def __init__(
        self,
        engine: Engine,
        function: Callable[..., Any],
        name: str,
        place: int,
        tell: Callable[[int, RunDetails], None],
    ) -> None:
        """``tell`` hears which run the function is about to be told of, in which place."""
        self._engine = engine
        self._function = function
        self._name = name
        self._place = place
        self._tell = tell

    def __call__(self) -> object:
        try:
            run = self._found()
        except unread.StoreAway:
            # The store's trouble, which is no failure of the function: it is told once the store can be read.
            raise RetryAfter(UNREAD_SECONDS) from None
        return run if is_a(run, TriggerResult) else self._call(run)

    def _found(self) -> RunDetails | TriggerResult:
        """The run that the function is told of, or what is to be said in its place."""
        found = self._engine.polls.ending(self._place)
        while found is not None:
            id, status, ended_at, is_too_deep, kept = found
            if is_too_deep:
                return self._refused(id)
            row = unread.read(self._engine, partial(self._engine.runs.run, id, tries=True))
            if row is not None and kept is not None:
                # It has been opened again, and is shown as it was.
                context, error = kept
                row |= {"status": status, "completed_at": ended_at, "final_context": context}
                row |= {"error_message": error}
            if row is not None and row["completed_at"] == ended_at:
                return rows.run_with_tasks(row, [])
            # It has just been opened again, or is gone.
            found = self._engine.polls.ending(self._place)
        return TriggerResult.skip(NONE_ENDED)

    def _call(self, run: RunDetails) -> object:
        self._tell(self._place, run)
        answer = self._function(run)
        return self._later(answer) if is_awaitable(answer) else _whole(answer)

    async def _later(self, answer: Any) -> object:
        return _whole(await answer)

    def _refused(self, run: str) -> TriggerResult:
        text = (
            "trigger '%s' is not told of the end of run %s: 100 ends have led to it, each by a run that a"
            " trigger fired for the one before; have one of them fire nothing for what it has fired itself"
        )
        about = {"cloaca_trigger": self._name, "cloaca_run": run}
        say(_log, ERROR, text, self._name, run, about=about)
        return TriggerResult.skip(
            f"refused: 100 ends have led to that of run {run}, each by a run fired for it"
        )


def _whole(answer: Any) -> object:
    """An answer with all of its parts, none of which is the plain skip: that would leave the end untold."""
    if is_iterator(answer):
        answer = list(islice(answer, FIRES_MAX + 1))
    results = answer if is_a(answer, list) or is_a(answer, tuple) else [answer]
    if any(is_a(result, TriggerResult) and result._cursor is not None for result in results):
        raise TriggerError(
            "it fired with cursor=..., which a trigger with on_run does not have: each end is told until"
            " it is answered, and not again; leave cursor out"
        )
    if len(results) > FIRES_MAX:
        raise TriggerError(f"it gave more than {FIRES_MAX} results at once, and none counts; give fewer")
    return [SKIP] if answer is SKIP else answer
