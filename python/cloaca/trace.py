"""The traceback of an exception as it is kept: bounded, and without the frames through which we call a body.

Decides nothing. Invariant: whatever an exception is, this never raises, and what leaves is text that UTF-8
can hold.
"""

from __future__ import annotations

import os
import sys

from .plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

TRACEBACK_BYTES_MAX = 16 * 1024
"""More of a traceback is cut out of its middle: where it began and what it came to tell the most."""
HEAD_BYTES = 4 * 1024

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LOOP = (os.sep + "asyncio" + os.sep, os.sep + "concurrent" + os.sep + "futures" + os.sep)


def bounded(text: str) -> str:
    """A traceback without its middle, if it is long."""
    return _bounded(plain(text, len(text) + 1).encode()).decode()


def traceback_of(error: BaseException) -> str | None:
    """Where an exception was raised, with its causes; `None` if it cannot be told."""
    # 5 ms to import, which a program whose tasks never fail does not need.
    import traceback

    try:
        frames = _of_body(error.__traceback__)
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:
        # An exception with a `__str__` or `__cause__` of its own may raise anything.
        return None
    return bounded(text)


def stack_of(ident: int) -> str:
    """Where the body on that thread is now, without the frames through which we called it; empty if there is
    none."""
    import traceback

    try:
        frame = sys._current_frames().get(ident)
        if frame is None:
            return ""
        frames = traceback.extract_stack(frame)
        ours = 0
        while ours < len(frames) and not frames[ours].filename.startswith(_OURS):
            ours += 1
        while ours < len(frames) and _leads(frames[ours].filename):
            ours += 1
        text = "".join(traceback.format_list(frames[ours:] or frames))
    except BaseException:
        # Whatever it is, it costs where the body is, and not the line.
        return ""
    return bounded(text)


def _of_body(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the body on. What was raised in ours alone, as about what it returned, has none."""
    while frames is not None and _leads(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _leads(path: str) -> bool:
    return path.startswith(_OURS) or any(part in path for part in _LOOP)


def _bounded(text: bytes) -> bytes:
    if len(text) <= TRACEBACK_BYTES_MAX:
        return text
    left_out = f"\n… {len(text) - TRACEBACK_BYTES_MAX} bytes more …\n".encode()
    head, tail = text[:HEAD_BYTES], text[len(text) - (TRACEBACK_BYTES_MAX - HEAD_BYTES - len(left_out)) :]
    return head.decode("utf-8", "ignore").encode() + left_out + tail.decode("utf-8", "ignore").encode()
