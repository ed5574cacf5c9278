"""Text of strangers made fit for the store: exceptions, reasons, names. Decides nothing.

Invariant: what leaves here is a `str` that UTF-8 can hold, no longer than a bound, whatever came in.
"""

from __future__ import annotations

import contextlib

from .kind import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT_CHARS_MAX = 16_384
"""More of an error's text is cut off."""


def plain(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """The text with lone surrogates written out (`\\udce9`), and cut to ``chars_max`` characters.

    File names that are not UTF-8 come with such surrogates (`os.fsdecode`), and so do messages about them.
    """
    short = text if len(text) <= chars_max else text[: chars_max - 1] + "…"
    return short.encode("utf-8", "backslashreplace").decode("utf-8")


def kind_of(error: BaseException) -> str:
    """The name of an exception's class, such as ``"ValueError"``."""
    return plain(name_of(type(error)))


def describe(error: BaseException) -> str:
    """``"ValueError: boom"``-like text of an exception; never raises."""
    kind = kind_of(error)
    try:
        text = plain(str.__str__(str(error)))
    except BaseException:
        # Its own `__str__` raised; of whatever kind, it must not end the thread that only asks.
        text = "<its text cannot be shown>"
    return f"{kind}: {text}" if text else kind


DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""As `logging` numbers them, which is a fourth of this package's import, and not imported before there is
something to say."""

ABOUT = {
    "cloaca_run": None,
    "cloaca_workflow": None,
    "cloaca_trigger": None,
    "cloaca_task": None,
    "cloaca_attempt": None,
}
"""What each record of ours says that it is about: all of them, so that a format may name any."""


def say(
    log: str,
    level: int,
    text: str,
    *values: object,
    raised: BaseException | None = None,
    about: Mapping[str, object] = ABOUT,
    trace: str | None = None,
) -> None:
    """Logs. A filter or handler of the program that raises costs this line, and nothing else.

    ``log`` names the logger. ``trace`` is the traceback as text, where the exception itself must not be seen.
    """
    with contextlib.suppress(BaseException):
        import logging

        logger, extra = logging.getLogger(log), {**ABOUT, **about}
        if trace is None:
            logger.log(level, text, *values, exc_info=raised, extra=extra)
        elif logger.isEnabledFor(level):
            path, line, function, _ = logger.findCaller()
            record = logger.makeRecord(log, level, path, line, text, values, None, function, extra)
            record.exc_text = trace
            logger.handle(record)
