"""How a task's body ended, as data, in whatever process that was: what it left, or what it raised.

Decides nothing else. Invariant: what a body raised, of whatever kind, is told and not raised here.
"""

from __future__ import annotations

from .context import Context
from .job import Raised
from .kind import is_a, name_of
from .plain import describe, kind_of
from .policy import pause_of, wish_of
from .trace import traceback_of


def left_by(task_id: str, context: Context, returned: object) -> Context:
    """The context that a body left: what it returned, or else the one that it was given.

    Raises:
        TypeError: it returned something else.
    """
    if returned is None:
        return context
    if is_a(returned, dict):
        return Context(returned)
    if is_a(returned, Context):
        return returned
    kind = name_of(type(returned))
    raise TypeError(f"task '{task_id}' returned {kind}; return the Context, a dict or None")


def raised_by(error: BaseException) -> Raised:
    """What a body raised, as plain data."""
    delay_us = wish_of(error)
    pause = None if delay_us is None else pause_of(error)
    return Raised(kind_of(error), describe(error), traceback_of(error), delay_us, pause)
