"""What a signal to end waits for: a step that is carried out, and told, as a whole.

Invariant: a second one waits for nothing. Those that come at one instant are one, and so is the end of the
terminal with whatever it comes with: who ends a session sends it beside another.
"""

from __future__ import annotations

import contextlib
import signal
import threading

from ..stop import HANG_UP
from .ending import Ending, Left, leave, unheard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType, TracebackType
    from typing import Any, NoReturn, Self

    from .show import Show


class Finishing:
    """While it is entered, the first signal to end is noted and interrupts nothing."""

    __slots__ = ("_before", "_noted")

    def __init__(self) -> None:
        self._noted: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def is_asked(self) -> bool:
        """Whether somebody has asked for the end."""
        return self._noted is not None

    def leave(self) -> NoReturn:
        """Ends by what was noted, as if that came now."""
        assert self._noted is not None, "somebody has asked for it"
        leave(self._noted)

    def __enter__(self) -> Self:
        # Elsewhere nobody is interrupted; and who has another handler, or ignores it, knows better.
        if threading.current_thread() is threading.main_thread():
            for number in unheard():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back(self._before)

    def _give_back(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            # One that has come by then is heard before another handler is set, and may give it back itself.
            handler = self._before.pop(number, None)
            if handler is not None:
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted is None:
            self._noted = number
        if number == HANG_UP or number not in self._before:
            return
        further = [each for each in self._before if each != HANG_UP]
        for each in further:
            signal.signal(each, _is_same)
        # Python calls a handler for each that has come by now, once this one returns, and cannot where that
        # is its default by then. So they are heard here, by way of one more.
        signal.raise_signal(number)
        self._give_back(further)


def _is_same(number: int, frame: FrameType | None) -> None:
    """It has come at one instant with the one that is noted."""


@contextlib.contextmanager
def beginning(what: str, show: Show) -> Iterator[None]:
    """In the block, where nothing has been changed yet, a signal to end raises, and that is said."""
    with Ending() as ending:
        try:
            with ending.heard():
                yield
        except (Left, KeyboardInterrupt):
            show.note(f"cloaca: interrupted when 0 were {what}")
            raise
