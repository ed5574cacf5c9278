"""What tells versions of a declaration apart, in all processes that declare it.

Decides only what belongs to a version: its arguments, and which function it is. Another body of the same
function is no other version.
"""

from __future__ import annotations

import sys
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .trigger import TriggerKind

_ABSENT = "?"


def origin_of(function: Any) -> str:
    """The module and qualified name of a function. A program's own module may be `__main__`."""
    while isinstance(function, partial):
        function = function.func
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    # There may be a million of one function.
    return sys.intern(f"{module or _ABSENT}.{name}")


def of_trigger(kind: TriggerKind, origin: str) -> str:
    """All of a trigger that makes it the version that it is, as a text."""
    return "\n".join([origin, *(f"{name}={_text(getattr(kind, name))}" for name in sorted(kind.__slots__))])


def _text(value: object) -> str:
    if callable(value):
        return origin_of(value)
    parts = getattr(value, "__dict__", None) or {
        name: getattr(value, name) for name in getattr(value, "__slots__", ())
    }
    return repr(sorted(parts.items())) if parts else repr(value)
