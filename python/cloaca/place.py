"""Where in a program something was declared or made, to tell of two things that should have been one.

Decides only whether two places are the same.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_PACKAGE = __name__.rpartition(".")[0]
_caller: ContextVar[tuple[str, int] | None] = ContextVar("cloaca_caller", default=None)


def is_another(first: Any, second: Any) -> bool:
    """Whether two functions are surely not two versions of one: a cell that runs again, a module that is
    loaded again, also as `__main__`, and what a function makes are no surprise."""
    names = [getattr(function, "__qualname__", None) for function in (first, second)]
    if None in names or (names[0] == names[1] and _module(first) == _module(second)):
        return False
    return not any("<locals>" in str(name) or "<lambda>" in str(name) for name in names)


def are_others(first: Iterable[Any], second: Iterable[Any]) -> bool:
    """The same of the functions of two workflows: none of one is in a module of the other."""
    first, second = list(first), list(second)
    names = [str(getattr(function, "__qualname__", "<lambda>")) for function in (*first, *second)]
    if any("<locals>" in name or "<lambda>" in name for name in names):
        return False
    modules = [{_module(function) for function in functions} for functions in (first, second)]
    return bool(modules[0] and modules[1]) and modules[0].isdisjoint(modules[1])


def of_function(function: Any) -> str:
    """Where a function stands, in words."""
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def of_caller() -> tuple[str, int]:
    """Where the program that called the package stands, in words, and which call of that line it was. A
    notebook's cells are one place: a cell that is run again is another file with another number."""
    if (seen := _caller.get()) is not None:
        return seen
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(_PACKAGE):
        frame = frame.f_back
    file = frame.f_code.co_filename
    if file.startswith("<ipython-input-") or "ipykernel_" in file:
        return "in a cell", 0
    return f"at {file}:{frame.f_lineno}", frame.f_lasti


@contextmanager
def seen_from_here() -> Iterator[None]:
    """What a thread does with the context variables of here is done where the program called."""
    token = _caller.set(of_caller())
    try:
        yield
    finally:
        _caller.reset(token)


def _module(function: Any) -> str | None:
    """A function's module by its file: a program's own may be there twice, as `__main__` and by its name."""
    module = getattr(function, "__module__", None)
    file = getattr(sys.modules.get(str(module)), "__file__", None)
    return file or module
