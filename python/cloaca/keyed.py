"""Values of limits' keys that are hidden: a limit counts by a path into the context, and `redact=` may hide
what stands there.

Decides whether such a value is shown. Invariant: whatever cannot be told is hidden.
"""

from __future__ import annotations

import json
import re

from . import context as contexts
from .hidden import MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from .redact import Mask

    Look = Callable[[str, Sequence[object]], list[dict[str, Any]]]

OF_KEY = ' of key "'
"""How texts of the engine name the value of a key, up to one of the following."""
_ENDS = ('" have come; the next passes at ', '" are unfinished')
# The primary key of limited.
TERMS = "SELECT workflow, limits FROM limited LIMIT 10000"
_PATH = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


class Keyed:
    """What may be shown of the values of a store's keys, as long as something is hidden in it."""

    __slots__ = ("_known", "_look", "_mask")

    def __init__(self, mask: Mask, look: Look) -> None:
        self._mask = mask
        self._look = look
        self._known: dict[str, list[str]] | None = None

    def shown(self, workflow: str, value: str) -> str:
        """A value of a workflow's keys as it is shown."""
        try:
            return MASK if _hidden(self._mask.told, self._keys().get(workflow, []), value) else value
        except Exception:
            return MASK

    def hide(self, text: str) -> str:
        """A text in which the engine may have named such values, without those that are hidden."""
        try:
            keys = {key for each in self._keys().values() for key in each} if OF_KEY in text else ()
        except Exception:
            keys = ()
        return _without(text, lambda value: _hidden(self._mask.told, keys, value))

    def _keys(self) -> dict[str, list[str]]:
        if self._known is None:
            found = self._look(TERMS, [])
            self._known = {row["workflow"]: _keys_of(json.loads(row["limits"])) for row in found}
        return self._known


def pauses(keyed: Keyed | None, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is paused, as it is shown."""
    return [
        row if keyed is None or row["key"] is None else {**row, "key": keyed.shown(row["name"], row["key"])}
        for row in rows
    ]


def hidden_here(text: str) -> str:
    """A text that leaves the library in this process, by what its stores hide and its workflows count by."""
    from . import registry

    shown = contexts.shown
    if shown is None or OF_KEY not in text:
        return text
    limits = [limit for each in [*registry.workflows.values()] for limit in each._limits if limit is not None]
    keys = {limit.key for limit in limits if limit.key is not None}
    return _without(text, lambda value: _hidden(shown, keys, value))


def _keys_of(limits: dict[str, Any]) -> list[str]:
    return [terms["key"] for terms in limits.values() if terms and terms.get("key") is not None]


def _hidden(shown: Callable[[Any], Any], keys: Iterable[str], value: str) -> bool:
    """Whether one of these keys has something hidden, if its value is this; also if there is no key."""
    asked = [(path, each) for key in keys for path in _paths(key) for each in _read(value)]
    return not asked or "…" in value or any(not _passes(shown, path, each) for path, each in asked)


def _paths(key: str) -> list[list[str]]:
    """The paths in a key."""
    found = [each for each in _PATH.findall(key) if each] if "{" in key else [key]
    return [each.split(".") for each in found]


def _read(value: str) -> list[Any]:
    """What may stand in a context for that text."""
    return [value, int(value)] if value.isascii() and value.isdigit() and len(value) < 19 else [value]


def _passes(shown: Callable[[Any], Any], path: list[str], value: Any) -> bool:
    nested = value
    for name in reversed(path):
        nested = {name: nested}
    told = shown(nested)
    for name in path:
        if not isinstance(told, dict) or name not in told:
            return False
        told = told[name]
    return bool(told == value)


def _without(text: str, is_hidden: Callable[[str], bool]) -> str:
    at = text.find(OF_KEY)
    if at < 0:
        return text
    begin = at + len(OF_KEY)
    # To the last end: a value may hold what looks like one.
    end = max(text.rfind(each, begin) for each in _ENDS)
    end = len(text) if end < 0 else end
    value = text[begin:end]
    parts = [value] if OF_KEY not in value else [value, "…"]
    return f"{text[:begin]}{MASK}{text[end:]}" if any(map(is_hidden, parts)) else text
