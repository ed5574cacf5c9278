"""`Row`: a row of a listing whose contexts are decoded when they are looked at.

Decides nothing. Invariant: whoever reads it cannot tell it from a dict in which they were decoded at once.
"""

from __future__ import annotations

from .context import decode_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, ValuesView
    from typing import Any

    from .redact import Mask


class _Coded(str):
    """JSON text that nobody has looked at, and what is hidden of it."""

    __slots__ = ("mask",)

    mask: Mask | None


class Row(dict[str, "Any"]):
    """A dict; what is given as JSON text is decoded at the first look."""

    __slots__ = ()

    def keep(self, key: str, text: str | None, mask: Mask | None = None) -> None:
        """Takes a value as JSON text."""
        if text is None:
            super().__setitem__(key, None)
            return
        coded = _Coded(text)
        coded.mask = mask
        super().__setitem__(key, coded)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if type(value) is _Coded:
            mask, text = value.mask, str(value)
            value = decode_value(text) if mask is None else mask.context(text)
            super().__setitem__(key, value)
        return value

    def __iter__(self) -> Iterator[str]:
        # With an iterator of its own it is copied by `dict(row)` and `{**row}` key by key, as a mapping.
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401  it would call itself

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        return self._whole().items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return self._whole().values()

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self[key]
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._decode()
        return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else super().setdefault(key, default)

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row):
            other._decode()
        self._decode()
        return super().__eq__(other)

    __hash__ = None

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def _decode(self) -> None:
        for key in self:
            self[key]

    def _whole(self) -> dict[str, Any]:
        self._decode()
        return dict(self)
