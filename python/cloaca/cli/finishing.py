"""What Ctrl-C waits for: a step that is carried out, and told, as a whole.

Invariant: a second Ctrl-C waits for nothing.
"""

from __future__ import annotations

import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any, Self


class Finishing:
    """While it is entered, the first Ctrl-C is noted and interrupts nothing.

    Attributes:
        is_asked (bool): whether somebody has pressed it.
    """

    __slots__ = ("_before", "is_asked")

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        # Elsewhere nobody is interrupted; and who has another handler, or ignores it, knows better.
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        signal.signal(signal.SIGINT, self._before)
