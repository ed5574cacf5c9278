"""What a signal to end waits for: a step that is carried out, and told, as a whole.

Invariant: a second one waits for nothing.
"""

from __future__ import annotations

import signal
import threading

from .ending import leave, unheard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any, NoReturn, Self


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
        self._give_back()

    def _give_back(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        self._give_back()
