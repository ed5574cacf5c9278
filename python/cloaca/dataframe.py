"""Rows as a table of pandas or polars. Imports either only when it is asked for.

Invariant: which columns a table has, and of which types, follows from what is listed, not what was found.
"""

from __future__ import annotations

from importlib import import_module
from types import UnionType
from typing import NotRequired, get_args, get_origin, get_type_hints

from .errors import ArgumentError, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Column = tuple[str, str, list[Any]]
    """Its name, its kind and its values."""

LIBRARIES = ("pandas", "polars")
_TIMES = ("_at", "_since", "_until", "_time")
_PLAIN: dict[object, str] = {bool: "bool", int: "int", float: "float", str: "text"}


def of(rows: Sequence[Mapping[str, Any]], name: str, library: object = None) -> Any:
    """These rows, which are what `cloaca.types` has under that name, as a `DataFrame`."""
    if library is not None and library not in LIBRARIES:
        raise ArgumentError(f"library is {excerpt(library)}; it must be 'pandas', 'polars' or None")
    made = _pandas if (found := _imported(library)).__name__ == "pandas" else _polars
    kinds = _kinds(name)
    names = dict.fromkeys([*kinds, *(key for row in rows for key in row)]) if rows else kinds
    return made(found, [_column(each, kinds.get(each, "object"), rows) for each in names])


def _imported(library: object) -> Any:
    for name in LIBRARIES if library is None else (str(library),):
        try:
            return import_module(name)
        except ImportError:
            continue
    if library is None:
        raise ImportError("as_dataframe needs pandas or polars; pip install pandas, or pip install polars")
    raise ImportError(f"as_dataframe({library!r}) needs {library}; pip install {library}")


def _kinds(name: str) -> dict[str, str]:
    """What each column is, by the declared type."""
    if not name:
        return {}
    from . import types

    declared = getattr(types, name)
    found = get_type_hints(declared, include_extras=True)
    return {key: _kind(key, hint) for key, hint in found.items() if get_origin(hint) is not NotRequired}


def _kind(name: str, hint: Any) -> str:
    parts = [each for each in get_args(hint) if each is not type(None)]
    is_maybe = get_origin(hint) is UnionType and len(parts) < len(get_args(hint))
    plain = parts[0] if is_maybe and len(parts) == 1 else hint
    if all(isinstance(each, str) for each in get_args(plain)) and get_args(plain):
        plain = str  # a choice of words
    kind = _PLAIN.get(plain, "object")
    if kind == "text" and (name.endswith(_TIMES) or name == "at"):
        return "time"
    return f"maybe {kind}" if is_maybe and kind in ("bool", "int") else kind


def _column(name: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    values = [row.get(name) for row in rows]
    if kind == "time":
        from datetime import datetime

        values = [None if value is None else datetime.fromisoformat(value) for value in values]
    return name, kind, values


def _pandas(pandas: Any, columns: list[Column]) -> Any:
    types = {
        "time": "datetime64[us, UTC]",
        "bool": "bool",
        "maybe bool": "boolean",
        "int": "int64",
        "maybe int": "Int64",
        "float": "float64",
        "text": "str",
        "object": "object",
    }
    made = {name: pandas.Series(values, dtype=types[kind]) for name, kind, values in columns}
    return pandas.DataFrame(made)


def _polars(polars: Any, columns: list[Column]) -> Any:
    types = {
        "time": polars.Datetime("us", "UTC"),
        "bool": polars.Boolean,
        "int": polars.Int64,
        "float": polars.Float64,
        "text": polars.String,
        # Values of any shape have no type there but one that nothing can write.
        "object": polars.String,
    }
    columns = [(name, kind, _texts(values) if kind == "object" else values) for name, kind, values in columns]
    return polars.DataFrame(
        [
            polars.Series(name, values, dtype=types[kind.removeprefix("maybe ")])
            for name, kind, values in columns
        ]
    )


def _texts(values: list[Any]) -> list[str | None]:
    """Values as JSON, which `str.json_decode` of polars reads."""
    import json

    return [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
