"""Decides how much is told of a trigger, or a callback of a run, that goes on failing.

Invariant: what is new is told whole, and what is not new is told ever more rarely, but at least each hour.
"""

from __future__ import annotations

from .kind import qualname_of

KINDS_MAX = 10
"""So many kinds of errors in a row are told whole; a body that raises ever new ones would fill the log."""
TOLD_EVERY_US = 3_600_000_000

Kind = tuple[str, str, int]

WHOLE = "whole"
LINE = "line"
NOTHING = ""


def kind_of(error: BaseException) -> Kind:
    """What makes errors the same: their class and where they were raised. Their texts may hold a time or an
    id, and differ each time."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
    except BaseException:
        # Its own `__getattribute__` raised; of whatever kind, it must not end the thread that only asks.
        trace = None
    if trace is None:
        return qualname_of(type(error)), "", 0
    return qualname_of(type(error)), trace.tb_frame.f_code.co_filename, trace.tb_lineno


class Failing:
    """What has been told of each trigger since it last went well."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Kind]] = {}
        self._told_us: dict[str, int] = {}

    def forget(self, name: str) -> None:
        """It went well, or is over."""
        self._kinds.pop(name, None)
        self._told_us.pop(name, None)

    def bound(self, many: int) -> None:
        """Forgets all once they are more than that: then each is told of anew."""
        if len(self._kinds) > many:
            self._kinds.clear()
            self._told_us.clear()

    def grade(self, name: str, kind: Kind, failures: int, now_us: int) -> str:
        """`WHOLE`, with the traceback, `LINE` or `NOTHING`, for the ``failures``-th failed poll in a row."""
        if failures <= 1:
            self._kinds.pop(name, None)
        kinds = self._kinds.setdefault(name, set())
        is_new = kind not in kinds and len(kinds) < KINDS_MAX
        # By the wall clock, which may have been set back.
        is_time = abs(now_us - self._told_us.get(name, now_us)) >= TOLD_EVERY_US
        if not (is_new or is_time or _is_rung(failures)):
            return NOTHING
        kinds.add(kind)
        self._told_us[name] = now_us
        return WHOLE if is_new else LINE


def _is_rung(failures: int) -> bool:
    return failures == 2 or str(failures).rstrip("0") == "1"
