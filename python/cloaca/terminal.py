"""Texts as a terminal shows them: cleaned, measured and cut. Pure.

Invariant: no character that is not printable gets through.
"""

from __future__ import annotations


def clean(text: str) -> str:
    """The text with every character spelt out that a terminal would not simply show."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _spelt(letter) for letter in text)


def cleaned(text: str) -> str:
    """The same of a text of several lines, such as a traceback, which stay."""
    return "\n".join(clean(line) for line in text.split("\n"))


def _spelt(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def width_of(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def fitted(text: str, width: int) -> str:
    """The text, cut to so many columns."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[: max(0, min(len(text) - 1, width))]
    return text + "…"


def span(seconds: float | None) -> str | None:
    """A duration as people read it."""
    if seconds is None:
        return None
    if seconds < 0:
        return "0 ms"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    for size, unit, less, lesser in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // less
            return f"{whole // size} {unit}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"
