"""Forms that count once, however often they are sent, as by a double click.

Decides nothing about what they do. Invariant: of forms that are equal one at a time is carried out, and those
that come while it is, or soon after, get its answer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

FORMS_MAX = 1_000
"""The answers of so many are kept, the newest."""
KEPT_SECONDS = 60.0
"""For so long: whoever goes back to a page that the browser has kept means a change anew."""


class Once:
    """The answers to the newest forms."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, tuple[float, Future[Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def done(self, form: Hashable, act: Callable[[], tuple[Any, bool]]) -> Any:
        """What `act` answers, or has answered to an equal form; it says, too, whether that is to be kept."""
        with self._lock:
            at, known = self._answers.get(form, (0.0, None))
            if known is not None and known.done() and monotonic() - at >= KEPT_SECONDS:
                known = None
            if known is None:
                mine: Future[Any] = Future()
                self._keep(form, mine)
        if known is not None:
            return known.result()
        is_kept = False
        try:
            answer, is_kept = act()
            mine.set_result(answer)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                if is_kept:
                    self._keep(form, mine)
                elif self._answers.get(form, (0.0, None))[1] is mine:
                    del self._answers[form]
        return answer

    def _keep(self, form: Hashable, answer: Future[Any]) -> None:
        self._answers[form] = monotonic(), answer
        self._answers.move_to_end(form)
        while len(self._answers) > FORMS_MAX:
            self._answers.popitem(last=False)
