"""A base for small values that never change. Decides equality, hash, `repr` and pickling from the slots.

Invariant: after `_fill` no attribute changes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Frozen:
    """Equal, hashed and shown by its slots; assigning to one raises `AttributeError`."""

    __slots__: tuple[str, ...] = ()

    def _fill(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__} cannot be changed; make a new one instead of setting {name}"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed; {name} stays")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name.strip('_')}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _thaw, (type(self), self._values())


def _thaw(kind: type[Frozen], values: tuple[Any, ...]) -> Frozen:
    thawed = object.__new__(kind)
    thawed._fill(**dict(zip(kind.__slots__, values, strict=True)))
    return thawed
