"""Values that texts must not tell, and how they are taken out of an error, a traceback or a line of the log.

Decides in what forms a value is looked for. Invariant: where it cannot be told what to take out, nothing of
the text is shown.
"""

from __future__ import annotations

from .context import DEPTH_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

MASK = "[redacted]"
"""What stands in the place of a value that is hidden."""
WITHHELD = f"{MASK} (the whole text: what in it is to be hidden cannot be told)"
SECRET_CHARS_MIN = 4
"""Shorter values are not looked for in texts: they would be found in every other word."""
SECRETS_MAX = 1000
"""A text about a run with more hidden values than so many is withheld."""
LINE_CHARS_MIN = 8
"""Of values of several lines, lines from so many characters on are looked for by themselves."""
CUTS_MAX = 100
"""At so many places of a text where it was cut, halves of values are looked for."""


def gather(value: Any, found: dict[str, None], depth: int = 0) -> None:
    """Adds the texts and numbers in a value, each as text."""
    if len(found) > SECRETS_MAX or depth > DEPTH_MAX:
        raise OverflowError
    if isinstance(value, dict):
        for item in list(value.values()):
            gather(item, found, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in list(value):
            gather(item, found, depth + 1)
    elif value is not None and not isinstance(value, bool):
        text = value if isinstance(value, str) else str(value)
        if len(text.strip()) >= SECRET_CHARS_MIN:
            found[text] = None


class Secrets:
    """Values that texts must not tell."""

    __slots__ = ("_forms", "_hide_keys", "_values")

    def __init__(self, values: dict[str, None] | None, hide_keys: Callable[[str], str] | None = None) -> None:
        self._values = values
        self._forms: list[str] | None = None
        self._hide_keys = hide_keys

    def without(self, others: Secrets) -> Secrets:
        """Those that the others don't have."""
        if self._values is None or others._values is None:
            return self
        known = others._values
        return Secrets({value: None for value in self._values if value not in known}, self._hide_keys)

    def and_keys(self, hide_keys: Callable[[str], str]) -> Secrets:
        """These, and what `hide_keys` takes out of a text: values of limits' keys."""
        return Secrets(self._values, hide_keys)

    def with_those(self, others: Secrets) -> Secrets:
        """These and the others."""
        if self._values is None or others._values is None:
            return WITHHOLDING
        if not (self._values and others._values):
            return Secrets(self._values or others._values, self._hide_keys or others._hide_keys)
        found = self._values | others._values
        return (
            WITHHOLDING if len(found) > SECRETS_MAX else Secrets(found, self._hide_keys or others._hide_keys)
        )

    def hide(self, text: str) -> str:
        """The text with each of the values, written as it is, quoted or escaped, or cut off, taken out."""
        if text and self._hide_keys is not None and self._values is not None:
            text = self._hide_keys(text)
        if not text or self._values == {}:
            return text
        if self._values is None:
            return WITHHELD
        if self._forms is None:
            self._forms = _forms(self._values)
        spans = _spans(text, self._forms)
        return text if not spans else _without(text, spans)

    def hide_maybe(self, text: str | None) -> str | None:
        """The same of a text that may be missing."""
        return None if text is None else self.hide(text)


NO_SECRETS = Secrets({})
WITHHOLDING = Secrets(None)
"""Stands for values that nobody could find out."""


def _forms(values: Iterable[str]) -> list[str]:
    """How a value may stand in a text."""
    forms: dict[str, None] = {}
    for value in values:
        lines = [line for line in value.splitlines() if len(line.strip()) >= LINE_CHARS_MIN]
        for text in (value.strip(), *(lines if len(lines) > 1 else ())):
            for form in _written(text):
                forms[form] = None
                # As a text that has it stands in the repr of another one.
                if "\\" in form:
                    forms[form.replace("\\", "\\\\")] = None
    return list(forms)


def _written(text: str) -> Iterator[str]:
    import json
    import re
    from urllib.parse import quote, quote_plus

    yield text
    yield repr(text)[1:-1]
    yield ascii(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield text.encode("utf-8", "backslashreplace").decode()
    yield repr(text.encode("utf-8", "surrogatepass"))[2:-1]
    for quoted in (quote(text, safe="", errors="replace"), quote_plus(text, errors="replace")):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)


def _spans(text: str, forms: list[str]) -> list[tuple[int, int]]:
    """Where any of them stands."""
    spans = []
    for form in forms:
        at = text.find(form)
        while at >= 0:
            spans.append((at, at + len(form)))
            at = text.find(form, at + 1)
    cut, count = text.find("…"), 0
    while cut >= 0 and count < CUTS_MAX:
        spans += _halves(text, cut, forms)
        cut, count = text.find("…", cut + 1), count + 1
    if cut >= 0:
        # We cut most texts off at their end.
        spans += _halves(text, text.rfind("…"), forms)
    return spans


def _halves(text: str, cut: int, forms: list[str]) -> list[tuple[int, int]]:
    """Where a value was cut off: its beginning stands before the mark, its end behind it."""
    before = text[:cut].removesuffix("\n")
    begins = cut + 1 + text[cut + 1 :].startswith("\n")
    after = text[begins:]
    spans = []
    for form in forms:
        head, tail = form[:SECRET_CHARS_MIN], form[-SECRET_CHARS_MIN:]
        at = before.find(head, max(0, len(before) - len(form)))
        while at >= 0:
            if form.startswith(before[at:]):
                spans.append((at, len(before)))
                break
            at = before.find(head, at + 1)
        at = after.rfind(tail, 0, len(form))
        while at >= 0:
            end = at + len(tail)
            if form.endswith(after[:end]):
                spans.append((begins, begins + end))
                break
            at = after.rfind(tail, 0, end - 1)
    return spans


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    parts, done = [], 0
    start, end = -1, -1
    for begin, stop in sorted(spans):
        if begin > end:
            if end >= 0:
                parts += [text[done:start], MASK]
                done = end
            start, end = begin, stop
        else:
            end = max(end, stop)
    return "".join([*parts, text[done:start], MASK, text[end:]])
