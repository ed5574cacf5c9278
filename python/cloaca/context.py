"""`Context`: a JSON object that travels from fire to workflow and from task to task.

Decides what a context may hold. Never reads or writes anything outside itself.
Invariant: what goes in through a method of `Context` is copied and is JSON; what was changed inside a value
behind its back is checked again when it leaves as `to_dict` or `to_json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite

from .errors import ContextError, ContextKeyError, ContextTypeError, excerpt
from .name import is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, KeysView, ValuesView
    from typing import Any, ClassVar, NoReturn, Self, overload

DEPTH_MAX = 200
"""How many objects and arrays may stand inside one another, the context itself being the first."""

shown: Callable[[Any], Any] | None = None
"""Takes out of a context what its `repr` hides, where something is hidden; see `redact`."""

_MISSING: Any = object()
_HOLDS = "a context holds dict, list, tuple, set, str, int, float, bool and None"


class Context:
    """A JSON object with `str` keys, in insertion order.

    Values are `dict`, `list`, `str`, `int` of any size, finite `float`, `bool` and `None`; tuples and sets
    become lists. They are copied on the way in. `context[key]` is the value itself, so changing a list in
    place changes the context.

    Raises:
        ContextTypeError: (a `TypeError`) a value or key of another type; the message names the key path and
            the type.
        ContextError: (a `ValueError`) NaN, infinity, a lone surrogate, or more than 200 levels.
    """

    __slots__ = ("_data",)
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    _data: dict[str, Any]

    def __init__(self, data: Mapping[str, Any] | Context | None = None) -> None:
        self._data = {} if data is None else checked(data)

    @classmethod
    def _wrap(cls, data: dict[str, Any]) -> Self:
        """A context around this very dict, which must be JSON already and belong to nobody else."""
        context = object.__new__(cls)
        context._data = data
        return context

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The context that a JSON object spells.

        Raises:
            ContextError: (a `ValueError`) bad JSON, no object, NaN or infinity, or more than 200 levels.
            ContextTypeError: (a `TypeError`) `text` is no `str`.
        """
        return cls._wrap(decode(text))

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` if the key is missing."""
        return self._data.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Inserts or replaces. Raises as the constructor does."""
        self._data[_checked_key(key)] = _checked_item(key, value)

    def insert(self, key: str, value: Any) -> None:
        """Inserts a key that is not there yet.

        Raises:
            ContextError: (a `ValueError`) the key is there. Otherwise as the constructor.
        """
        if key in self._data:
            raise ContextError(
                f"the key {excerpt(key)} is in the context already; update() or set() replaces its value"
            )
        self.set(key, value)

    if TYPE_CHECKING:

        @overload
        def update(self, key: str, value: Any) -> None: ...
        @overload
        def update(self, key: Mapping[str, Any] | Context, /) -> None: ...

    def update(self, key: Any, value: Any = _MISSING) -> None:
        """Replaces the value of a key that is there; given a mapping alone, inserts or replaces every item.

        Of a mapping all items are taken, or none if one is refused.

        Raises:
            ContextKeyError: (a `KeyError`) the key is missing. Otherwise as the constructor.
            ContextTypeError: (a `TypeError`) a key without a value.
        """
        if value is _MISSING:
            if not isinstance(key, Mapping):
                raise ContextTypeError(
                    f"update takes a key with its value, or one mapping; got {excerpt(key)} alone"
                )
            self.update_from_dict(key)
            return
        if key not in self._data:
            self._miss(key)
        self.set(key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value; where the key is missing, `default` is inserted first. Raises as the constructor."""
        if key not in self._data:
            self.set(key, default)
        return self._data[key]

    if TYPE_CHECKING:

        @overload
        def pop(self, key: str) -> Any: ...
        @overload
        def pop(self, key: str, default: Any) -> Any: ...

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Takes a key out and returns its value, or `default` if the key is missing.

        Raises:
            ContextKeyError: (a `KeyError`) the key is missing, and no default was given.
        """
        if key in self._data:
            return self._data.pop(key)
        if default is _MISSING:
            self._miss(key)
        return default

    def remove(self, key: str) -> Any:
        """Takes a key out and returns its value, or `None` if the key is missing."""
        return self._data.pop(key, None)

    def update_from_dict(self, data: Mapping[str, Any] | Context) -> None:
        """Inserts or replaces every item, or none if one is refused. Raises as the constructor does."""
        self._data.update(checked(data))

    def to_dict(self) -> dict[str, Any]:
        """A deep copy as a plain `dict`.

        Raises as the constructor, if a value was changed into something else.
        """
        return checked(self)

    def to_json(self) -> str:
        """Compact JSON in insertion order.

        Raises as the constructor, if a value was changed into something else.
        """
        return _dumps(checked(self))

    def copy(self) -> Self:
        """A deep copy."""
        return self._wrap(checked(self))

    def keys(self) -> KeysView[str]:
        """The keys, in insertion order."""
        return self._data.keys()

    def values(self) -> ValuesView[Any]:
        """The values, in insertion order."""
        return self._data.values()

    def items(self) -> ItemsView[str, Any]:
        """Keys with values, in insertion order."""
        return self._data.items()

    def __getitem__(self, key: str) -> Any:
        try:
            return self._data[key]
        except KeyError:
            self._miss(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self._data:
            self._miss(key)
        del self._data[key]

    def __ior__(self, other: Mapping[str, Any] | Context) -> Self:
        if not isinstance(other, Mapping):
            return NotImplemented
        self.update_from_dict(other)
        return self

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Context):
            return self._data == other._data
        if isinstance(other, dict):
            return self._data == other
        if isinstance(other, Mapping):
            return self._data == dict(other)
        return NotImplemented

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def __repr__(self) -> str:
        data = self._data if shown is None else shown(self._data)
        try:
            text = encode(data)
        except ContextError:  # a repr stands in tracebacks and logs, so it shows even what cannot be stored
            text = repr(data)
        return f"{type(self).__name__}({text})"

    def _miss(self, key: object) -> NoReturn:
        known = ", ".join(self._data) or "nothing"
        if len(known) > 80:
            known = known[:79] + "…"
        raise ContextKeyError(f"no key {excerpt(key)} in the context; it has {known}") from None


Mapping.register(Context)


def encode(data: Context | Mapping[str, Any] | None) -> str:
    """The JSON text of a context, checked; `None` is the empty one. Raises as `Context` does."""
    return "{}" if data is None else _dumps(checked(data))


def encode_within(bytes_max: int, data: Context | Mapping[str, Any] | None, what: str) -> str:
    """Like `encode`, for where a context enters a runner, which has a bound on its size.

    Raises:
        ContextError: it has more bytes of JSON; the message names the largest value. Otherwise as `Context`.
    """
    return fitting(bytes_max, encode(data), what)


def fitting(bytes_max: int, text: str, what: str) -> str:
    """A context's JSON text, if it has at most so many bytes.

    Raises:
        ContextError: it has more.
    """
    # A character has at most four bytes; an ASCII text has as many as characters.
    if len(text) <= bytes_max and (text.isascii() or len(text) <= bytes_max // 4):
        return text
    from ._cloaca import too_large

    if (problem := too_large(what, text, bytes_max)) is not None:
        raise ContextError(problem)
    return text


def decode(text: str) -> dict[str, Any]:
    """The dict that a JSON object spells, checked. Raises as `Context.from_json` does."""
    if not isinstance(text, str):
        raise ContextTypeError(f"JSON is read from a str; got {type(text).__name__} ({excerpt(text)})")
    try:
        data = _loads(text)
    except RecursionError:
        raise ContextError(f"JSON is nested too deeply; a context has at most {DEPTH_MAX} levels") from None
    except _RefusedError as refused:
        raise refused.told() from None
    except json.JSONDecodeError as error:
        raise ContextError(f"bad JSON: {error}; got {excerpt(text)}") from None
    if type(data) is not dict:
        raise ContextError(f"a context is a JSON object; got {excerpt(text)}")
    return checked(data)


def encode_value(value: Any) -> str:
    """The JSON text of a checked value."""
    return _dumps(value)


def decode_value(text: str) -> Any:
    """The value that a JSON text spells which this library wrote."""
    return _loads(text)


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are one, as the context hash has it: 1, 1.0 and `True` are three."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def checked(data: object) -> dict[str, Any]:
    """A deep copy of a context's content as plain JSON values. Raises as `Context` does."""
    if isinstance(data, Context):
        data = data._data
    elif isinstance(data, Mapping):
        data = dict(data) if not isinstance(data, dict) else data
    else:
        raise ContextTypeError(
            f"a context is a dict or a Context; got {type(data).__name__} ({excerpt(data)})"
        )
    try:
        return _copy_dict(data, DEPTH_MAX)
    except _RefusedError as refused:
        raise refused.told() from None
    except RecursionError:
        raise ContextError("no room on the stack to copy the context; it is nested too deeply here") from None


def checked_value(value: object, name: str, depth_max: int) -> Any:
    """A deep copy of one value, told by this name in errors. Raises as `Context` does."""
    return _checked_item(name, value, depth_max)


def _checked_key(key: object) -> str:
    try:
        return _copy_key(key)
    except _RefusedError as refused:
        raise refused.told() from None


def _checked_item(key: str, value: object, room: int = DEPTH_MAX - 1) -> Any:
    try:
        return _copy(value, room)
    except _RefusedError as refused:
        refused.path.append(key)
        raise refused.told() from None
    except RecursionError:
        raise ContextError("no room on the stack to copy the value; it is nested too deeply here") from None


class _RefusedError(Exception):
    """A value that no context holds, on its way up to where its whole key path is known."""

    def __init__(self, problem: str, kind: type[ContextError] = ContextError) -> None:
        super().__init__(problem)
        self.problem = problem
        self.kind = kind
        self.path: list[str | int] = []

    def told(self) -> ContextError:
        path = ""
        for step in reversed(self.path):
            part = f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
            path += part
            if len(path) > 80:
                path = path[:79] + "…"
                break
        where = (
            f"context value at '{path.encode('utf-8', 'backslashreplace').decode()}': "
            if path
            else "context: "
        )
        return self.kind(where + self.problem)


def _copy(value: Any, room: int) -> Any:
    """A copy as plain JSON; `room` is how many levels may still be opened."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _copy_text(value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if isfinite(value) else _refuse_float(value)
    if kind is dict:
        return _copy_dict(value, room)
    if kind is list or kind is tuple:
        return _copy_items(value, room)
    return _copy_other(value, room)


def _copy_dict(value: dict[Any, Any], room: int) -> dict[str, Any]:
    if room == 0:
        _refuse_depth()
    copied: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is not str or not key.isascii():
            key = _copy_key(key)
        try:
            copied[key] = _copy(item, room - 1)
        except _RefusedError as refused:
            refused.path.append(key)
            raise
    return copied


def _copy_items(value: list[Any] | tuple[Any, ...], room: int) -> list[Any]:
    if room == 0:
        _refuse_depth()
    copied = []
    for index, item in enumerate(value):
        try:
            copied.append(_copy(item, room - 1))
        except _RefusedError as refused:
            refused.path.append(index)
            raise
    return copied


def _copy_other(value: Any, room: int) -> Any:
    if isinstance(value, Context):
        return _copy_dict(value._data, room)
    if isinstance(value, (set, frozenset)):
        return _sorted(_copy_items(list(value), room))
    if isinstance(value, dict):
        return _copy_dict(value, room)
    if isinstance(value, (list, tuple)):
        return _copy_items(value, room)
    # Subclasses such as IntEnum and numpy.float64 lose their class here, so that a context survives the
    # store.
    if isinstance(value, str):
        return _copy_text(str.__str__(value))
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return _copy(float.__float__(value), room)
    told = f"got {type(value).__name__} ({excerpt(value)}){_way_in(value)}; {_HOLDS}"
    raise _RefusedError(told, ContextTypeError)


def _way_in(value: object) -> str:
    """How such a value is written in a context."""
    if hasattr(value, "isoformat"):
        return ", which fits as its isoformat()"
    if hasattr(value, "__fspath__") or type(value).__name__ in ("Decimal", "UUID"):
        return ", which fits as str() of it"
    return ""


def _sorted(items: list[Any]) -> list[Any]:
    """A set's items in an order that doesn't depend on the hash seed."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=_dumps)


def _copy_text(value: str) -> str:
    if not is_text(value):
        raise _RefusedError(
            f"got {excerpt(value)}, which holds a lone surrogate; text must be encodable as UTF-8"
        )
    return value


def _copy_key(key: object) -> str:
    if not isinstance(key, str):
        raise _RefusedError(
            f"got the key {excerpt(key)} of type {type(key).__name__}; keys are str", ContextTypeError
        )
    return _copy_text(str.__str__(key))


def _refuse_float(value: float) -> NoReturn:
    raise _RefusedError(f"got {value!r}, which JSON cannot hold; use None, or a str")


def _refuse_depth() -> NoReturn:
    raise _RefusedError(f"nested too deeply (a context has at most {DEPTH_MAX} levels), or contains itself")


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"got {name}, which JSON cannot hold; use null, or a string")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _made_once() -> Callable[[Any], str]:
    """What encodes as `_ENCODER` does, which makes an encoder in C each time: without a search for cycles it
    keeps nothing from one value to the next."""
    try:
        made: Any = json.encoder
        parts = made.c_make_encoder(
            None, _ENCODER.default, made.c_encode_basestring, None, ":", ",", False, False, False
        )
        if "".join(parts({"k": ["é", None, True, 1.5]}, 0)) == '{"k":["é",null,true,1.5]}':
            return lambda value: "".join(parts(value, 0))
    except (AttributeError, TypeError):
        pass
    return _ENCODER.encode  # of an interpreter that has none, or another one


_encode = _made_once()


def _dumps(value: Any) -> str:
    try:
        return _encode(value)
    except (
        ValueError
    ):  # the interpreter's limit on digits is the one thing left that checked JSON can run into
        return _dumps_unlimited(value)


def _dumps_unlimited(value: Any) -> str:
    if type(value) is dict:
        items = (f"{_ENCODER.encode(key)}:{_dumps_unlimited(item)}" for key, item in value.items())
        return "{" + ",".join(items) + "}"
    if type(value) is list:
        return "[" + ",".join(map(_dumps_unlimited, value)) + "]"
    if type(value) is int:
        from decimal import Decimal

        return str(Decimal(value))
    return _ENCODER.encode(value)


def _loads(text: str) -> Any:
    try:
        # What was written here has no blanks around it, for which `decode` searches.
        try:
            value, end = _DECODER.raw_decode(text)
        except json.JSONDecodeError:
            end = -1
        return value if end == len(text) else _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # more digits than the interpreter's limit
        return json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_parse_unlimited).decode(text)


def _parse_unlimited(digits: str) -> int:
    from decimal import Decimal

    return int(Decimal(digits))
