"""How values look: times, spans, counts, texts of strangers. Knows no store.

Invariant: what comes from a store is bounded and harmless once it went through here; templates escape
it, too.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..reading import Run

TEXT_CHARS = 200
"""So much of a name, a key or a message stands in a line."""
LONG_CHARS = 20_000
"""So much of a context, an error or a traceback stands on a page."""
COUNTED_MAX = 10_000
"""Counts end here."""

_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
# What turns the direction of a text, or cannot be seen: it could make a name look like another one.
_HIDDEN = [
    0xAD,
    0x34F,
    0x61C,
    0x180E,
    *range(0x80, 0xA0),
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
]
_HARMLESS = str.maketrans(
    _CONTROLS | {code: ascii(chr(code))[1:-1].replace("\\x", "\\u00") for code in _HIDDEN}
)
_HARMLESS_LINES = {code: text for code, text in _HARMLESS.items() if code not in (0x09, 0x0A)}


def line(value: object, most: int = TEXT_CHARS) -> str:
    """A text in one line."""
    text = str(value)
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut.encode("utf-8", "backslashreplace").decode().translate(_HARMLESS)


def lines(value: object, most: int = LONG_CHARS) -> str:
    """A text in lines as they are."""
    text = str(value).replace("\r\n", "\n")
    cut = text[:most].encode("utf-8", "backslashreplace").decode().translate(_HARMLESS_LINES)
    return cut if len(text) <= most else f"{cut}\n… {len(text) - most:,} more characters"


def harmless(value: object) -> object:
    """What a template puts out: of a text each character as it looks, whatever else it went through."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return value if value.isprintable() else lines(value)


def encoded(value: object) -> Markup:
    """A text for an attribute that nobody sees: as it is, with no character of it in the page itself."""
    return Markup("".join(f"&#{ord(letter)};" for letter in str(value)))


def as_json(value: Any) -> str:
    """A JSON value, indented, on the same terms."""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def short(value: Any, most: int = 80) -> str:
    """A JSON value in one line."""
    try:
        return line(json.dumps(value, ensure_ascii=False), most)
    except (TypeError, ValueError, RecursionError):
        return line(value, most)


def moment(stamp: str | None, kind: str = "at") -> Markup:
    """A time: UTC for who has no JavaScript, else the reader's, UTC on hover; with `ago`, how old it is."""
    if stamp is None:
        return Markup('<span class="none">-</span>')
    try:
        at = datetime.fromisoformat(stamp).astimezone(UTC)
    except (ValueError, OverflowError):  # in the text of a stranger
        return Markup("{}").format(stamp)
    whole = at.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}" data-as="{}" title="{}.{:03d} UTC">{} UTC</time>').format(
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        kind,
        whole,
        at.microsecond // 1000,
        whole,
    )


_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z")


def sentence(text: str, most: int = 1200) -> Markup:
    """A text in one line, in which times are the reader's."""
    shown, parts, last = line(text, most), [], 0
    for found in _STAMP.finditer(shown):
        parts += [escape(shown[last : found.start()]), moment(found[0])]
        last = found.end()
    return Markup("").join([*parts, escape(shown[last:])])


def span(seconds: float | None) -> str:
    """How long something took."""
    if seconds is None:
        return "-"
    size = max(0.0, seconds)
    if size < 0.001:
        return f"{size * 1e6:.0f} µs"
    if size < 1:
        return f"{size * 1000:.3g} ms"
    if size < 60:
        return f"{size:.3g} s"
    for unit, name, smaller, part in ((86_400, "d", "h", 3600), (3600, "h", "min", 60), (60, "min", "s", 1)):
        if size >= unit:
            rest = int(size % unit // part)
            return f"{int(size // unit)} {name} {rest} {smaller}" if rest else f"{int(size // unit)} {name}"
    return f"{size:.0f} s"


def between(start: str | None, end: str | None) -> float | None:
    """The seconds from one time to another, or to now."""
    if start is None:
        return None
    until = datetime.now(UTC) if end is None else datetime.fromisoformat(end)
    return (until - datetime.fromisoformat(start)).total_seconds()


def under_way_since(run: Run) -> str:
    """When a run began that is not over, moved on by what it lay over since: how long that is ago it took."""
    begun_at = datetime.fromisoformat(run.started_at or run.created_at)
    return (begun_at + timedelta(seconds=run.lain_seconds)).isoformat().replace("+00:00", "Z")


def count(number: int, noun: str = "", most: int = COUNTED_MAX) -> str:
    """A count that was not counted further than `most`."""
    shown = f"{most:,}+" if number >= most else f"{number:,}"
    return f"{shown} {noun}{'' if number == 1 else 's'}" if noun else shown


def link(root: str, path: str, **query: object) -> str:
    """An address of the page."""
    asked = {key: str(value) for key, value in query.items() if value not in (None, "")}
    encoded = urlencode(asked, errors="replace")
    return f"{root}{path}?{encoded}" if encoded else f"{root}{path}"


@lru_cache(maxsize=256)
def badge(state: str) -> Markup:
    """A state, as a word with its colour."""
    return Markup('<span class="badge {}">{}</span>').format(colour(state), state)


COLOURS = {
    "completed": "good", "fire": "good", "ok": "good", "polled": "good", "scheduled": "good",
    "living": "good",
    "failed": "bad", "error": "bad", "failing": "bad", "stopped": "bad", "bad": "bad", "timedout": "bad",
    "dead": "bad", "running": "busy", "pending": "wait", "waiting": "wait",
    "draining": "warn", "paused": "warn", "silent": "bad",
    "late": "warn", "unserved": "warn", "warn": "warn", "interrupted": "warn", "hanging": "warn",
}  # fmt: skip


def colour(state: str) -> str:
    """Which of the few colours stands for a state."""
    return COLOURS.get(state.lower(), "calm")


def sparkline(values: list[int], bad: list[int] | None = None, what: str = "") -> Markup:
    """A small picture of counts, one bar each, the last one now; the bad part on top in its colour."""
    top = max([*values, 1])
    width = max(1, len(values)) * 4
    bars = []
    for place, value in enumerate(values):
        wrong = min(value, bad[place]) if bad else 0
        right = value - wrong
        if right:
            height = max(1.0, 28 * right / top)
            bars.append(f'<rect x="{place * 4}" y="{30 - height:.1f}" width="3" height="{height:.1f}"/>')
        if wrong:
            size = max(1.5, 28 * wrong / top)
            above = 28 * right / top
            y = max(0.0, 30 - above - size)
            bars.append(f'<rect class="bad" x="{place * 4}" y="{y:.1f}" width="3" height="{size:.1f}"/>')
    return Markup(
        '<svg class="spark" viewBox="0 0 {} 30" preserveAspectRatio="none" role="img" aria-label="{}">'
        "{}</svg>"
    ).format(width, line(what), Markup("".join(bars)))


def bar(parts: list[tuple[float, float, str, str]], what: str) -> Markup:
    """A line of time from 0 to 1: parts with their start, end, class and words. Without `what` it is for the
    eye only, because it stands beside what it shows.
    """
    drawn = []
    # Of a run of many tasks there are many: `Markup.format` would take most of its screen's time.
    for start, end, kind, words in parts:
        left, right = min(max(start, 0.0), 1.0) * 1000, min(max(end, 0.0), 1.0) * 1000
        drawn.append(
            f'<rect class="{escape(kind)}" x="{min(left, 997.0):.1f}" y="2"'
            f' width="{max(right - left, 3.0):.1f}" height="12"><title>{escape(line(words))}</title></rect>'
        )
    role = f'role="img" aria-label="{escape(line(what))}"' if what else 'aria-hidden="true"'
    svg = f'<svg class="bar" viewBox="0 0 1000 16" preserveAspectRatio="none" {role}>'
    return Markup(f"{svg}{''.join(drawn)}</svg>")


def seconds_of(stamp: str) -> float:
    """A result's text as seconds since 1970."""
    return datetime.fromisoformat(stamp).timestamp()


def stamp_of(at_us: int) -> str:
    """Microseconds since 1970 as a result's text."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")


def in_zone(stamp: str, zone: str) -> str:
    """A time as the clocks of a zone show it; in UTC where that zone is not known to Python."""
    at = datetime.fromisoformat(stamp)
    try:
        local = at.astimezone(ZoneInfo(zone))
    except (OSError, ValueError, KeyError):
        local = at.astimezone(UTC)
    return local.strftime("%a %Y-%m-%d %H:%M:%S %Z")
