"""What a stranger's object is, by its type alone.

Decides nothing. Invariant: no code of the object is called. `isinstance` asks an object that is no instance
for its `__class__`, which may raise, or say of an exception that it is one of ours; `hasattr` asks it for
anything at all.
"""

from __future__ import annotations

from types import AsyncGeneratorType, GeneratorType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import TypeIs

    T = TypeVar("T")

_NAME: Any = type.__dict__["__name__"].__get__
_QUALNAME: Any = type.__dict__["__qualname__"].__get__


def is_a(value: object, kind: type[T]) -> TypeIs[T]:
    """Whether the value's type is that class, or derives from it."""
    return issubclass(type(value), kind)


def is_iterator(value: object) -> bool:
    """Whether `next` can be asked of it."""
    return hasattr(type(value), "__next__")


def is_awaitable(value: object) -> bool:
    """Whether it can be awaited. Decided by what came and not by the function: a decorator around an
    `async def` is an ordinary one."""
    return hasattr(type(value), "__await__")


def refuse_generator(returned: object) -> None:
    """What a callback returned is looked at by nobody, unless it stands for what was to be done.

    Raises:
        TypeError: it is a generator.
    """
    if is_a(returned, GeneratorType) or is_a(returned, AsyncGeneratorType):
        raise TypeError(
            "it returned a generator, of which nothing has run; a callback returns when all is done, or what"
            " can be awaited"
        )


def name_of(kind: type) -> str:
    """The name of a class, whatever its own class says of it."""
    name: str = _NAME(kind)
    return name


def qualname_of(kind: type) -> str:
    """The same within its module."""
    name: str = _QUALNAME(kind)
    return name
