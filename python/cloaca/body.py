"""Decides what sort of callable a task or trigger is: its name, parameters, and whether it is async.

Never calls it. Invariant: what cannot be known of a callable is said to be unknown, not guessed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LAYERS_MAX = 100
_FUNCTION = type(lambda: None)
_VARARGS, _VARKEYWORDS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200


class Parameters:
    """Which arguments a callable takes."""

    __slots__ = ("any_number", "keywords_required", "names", "required")

    def __init__(
        self, names: list[str], required: int, any_number: bool, keywords_required: list[str]
    ) -> None:
        self.names = names
        """Those that can be given by position."""
        self.required = required
        """How many of them have no default."""
        self.any_number = any_number
        """Whether it takes `*args`."""
        self.keywords_required = keywords_required
        """Those that can only be given by keyword, and have no default."""


def name_of(function: Callable[..., Any]) -> str | None:
    """The name it was defined under; none for objects, partials and lambdas."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and name != "<lambda>" else None


def parameters_of(function: Callable[..., Any]) -> Parameters | None:
    """Which arguments it takes; none if it doesn't tell, as some built-ins."""
    if type(function) is _FUNCTION and not function.__dict__:
        return _parameters_of_function(function)
    # `inspect` costs 7 ms to import, which a program of plain functions never needs.
    import inspect

    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    names, required, any_number, keywords = [], 0, False, []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
            required += parameter.default is parameter.empty
        elif parameter.kind is parameter.VAR_POSITIONAL:
            any_number = True
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            keywords.append(parameter.name)
    return Parameters(names, required, any_number, keywords)


def unbound(function: Any, parameters: Parameters | None = None) -> str | None:
    """What its first parameter is called, if it is a method that nobody has bound: `self` or `cls`."""
    if parameters is None:
        if type(function) is not _FUNCTION:
            return None
        parameters = _parameters_of_function(function)
    first = parameters.names[0] if parameters.names else None
    return first if first in ("self", "cls") else None


def way_out_of_method(decorator: str, function: Any, first: str) -> str:
    """What to say of a method that is decorated where it is defined."""
    name = getattr(function, "__name__", "method")
    return (
        f"is a method, its first parameter is {first}, and nobody would give it one; decorate the bound"
        f" method of an object instead, {decorator}(...)(watcher.{name}), or a function outside of the class"
    )


def takes_nothing(function: Any) -> bool:
    """Whether it is an ordinary function without parameters: by far the most triggers are, and need no closer
    look.
    """
    # Not by its `__dict__`: to ask for that would give every function one.
    if (
        type(function) is not _FUNCTION
        or hasattr(function, "__wrapped__")
        or hasattr(function, "__signature__")
    ):
        return False
    code = function.__code__
    return not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & (_COROUTINE | _ASYNC_GENERATOR))


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, as `async def` does."""
    return bool(_flags(function) & _COROUTINE)


def is_async_generator(function: Callable[..., Any]) -> bool:
    """Whether calling it gives an async generator."""
    return bool(_flags(function) & _ASYNC_GENERATOR)


def is_generator(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator."""
    return bool(_flags(function) & _GENERATOR)


def answers(function: Any) -> bool:
    """Whether somewhere in a function, or in that of a method, there is a `return` of something else than
    `None` and `True`, or a `yield`. Not if it calls another one with whatever it gets, nor of a lambda: those
    return something without meaning to.
    """
    inner = getattr(function, "__func__", function)
    if type(inner) is not _FUNCTION or hasattr(inner, "__wrapped__") or inner.__code__.co_name == "<lambda>":
        return False
    code = inner.__code__
    if code.co_flags & (_VARARGS | _VARKEYWORDS):
        return False
    return bool(code.co_flags & _GENERATOR) or (not _is_empty(code) and _returns(code))


def _is_empty(code: Any) -> bool:
    """Whether nothing is done, which can be told without importing what knows the instructions."""

    def empty() -> None: ...

    def told() -> None:
        """As one with a docstring."""

    empties = (empty.__code__.co_code, told.__code__.co_code)
    return code.co_code in empties and code.co_consts[-1:] == (None,)


def _returns(code: Any) -> bool:
    import dis

    before = None
    for each in dis.get_instructions(code):
        if each.opname == "RETURN_CONST" and not _says_nothing(each):
            return True
        if each.opname == "RETURN_VALUE" and not (before is not None and _says_nothing(before)):
            return True
        before = each
    return False


def _says_nothing(loads: Any) -> bool:
    is_constant = loads.opname.startswith(("LOAD_CO", "RETURN_CONST"))
    # By identity: 1 is equal to True.
    return is_constant and (loads.argval is None or loads.argval is True)


def _parameters_of_function(function: Any) -> Parameters:
    code = function.__code__
    positional: int = code.co_argcount
    defaults = function.__kwdefaults__ or ()
    keywords = code.co_varnames[positional : positional + code.co_kwonlyargcount]
    return Parameters(
        list(code.co_varnames[:positional]),
        positional - len(function.__defaults__ or ()),
        bool(code.co_flags & _VARARGS),
        [name for name in keywords if name not in defaults],
    )


def _flags(function: Any) -> int:
    """The code flags of the function behind methods, partials and objects; 0 if there is none."""
    for _ in range(_LAYERS_MAX):
        if type(function) is _FUNCTION:
            break
        # A method, a partial, or else an object: what its class calls.
        inner = getattr(function, "__func__", None) or getattr(function, "func", None)
        function = inner if callable(inner) else type(function).__call__
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0
