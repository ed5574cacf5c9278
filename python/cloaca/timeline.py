"""Draws when each attempt of a run was under way, as SVG. Decides how it looks, and what of it is known.

Invariant: every text is escaped, and every bar lies within the picture, whatever the clock did meanwhile.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from .picture import LOOKS, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_WIDTH, _NAME_WIDTH, _ROW, _BAR, _AXIS = 640.0, 190.0, 20, 12, 22
_NAME_CHARS_MAX = 25
_OUTCOMES = {
    "Completed": "Completed",
    "Failed": "Failed",
    "TimedOut": "Failed",
    "Interrupted": "Cancelled",
    "Postponed": "Pending",
    "Cancelled": "Cancelled",
}
"""The look of the state that each outcome of an attempt resembles most."""


class Bar(NamedTuple):
    """One attempt, or the wait before one."""

    begin: datetime
    end: datetime
    look: str | None
    told: str


def svg(run: Mapping[str, Any], now: datetime) -> str:
    """When the attempts of a run were under way.

    Args:
        run (Mapping): as `DefaultRunner.get_run` gives it.
        now (datetime): the end of what is still under way, with a zone.
    """
    tasks: Sequence[Mapping[str, Any]] = run["tasks"]
    begin = moment_of(run["created_at"])
    end = max(moment_of(run["completed_at"] or run["created_at"]), begin)
    if run["completed_at"] is None:
        end = max(end, now)
    rows = [(task["id"], _bars(task, now)) for task in tasks]
    begin = min([begin, *(bar.begin for _, bars in rows for bar in bars)])
    end = max([end, *(bar.end for _, bars in rows for bar in bars)])
    span = max((end - begin) / timedelta(microseconds=1), 1.0)
    height = _ROW * len(rows) + _AXIS

    def at(moment: datetime) -> float:
        return _NAME_WIDTH + (moment - begin) / timedelta(microseconds=1) / span * (_WIDTH - _NAME_WIDTH)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" class="cloaca-timeline"'
        f' width="{_WIDTH:.0f}" height="{height}"'
        f' viewBox="0 0 {_WIDTH:.0f} {height}" role="img"'
        f' aria-label={quoteattr(f"timeline of {len(rows)} tasks over {rounded(span)}")} fill="none"'
        ' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="11">'
    ]
    for place, (task_id, bars) in enumerate(rows):
        y = place * _ROW
        name = shown(task_id)
        cut = name if len(name) <= _NAME_CHARS_MAX else name[: _NAME_CHARS_MAX - 1] + "…"
        parts.append(
            f'<g class="row"><title>{escape(name)}</title>'
            f'<text x="0" y="{y + 14}" fill="currentColor">{escape(cut)}</text></g>'
        )
        parts += [_bar(bar, at(bar.begin), at(bar.end), y) for bar in bars]
    base = _ROW * len(rows) + 2
    parts.append(
        f'<path d="M{_NAME_WIDTH:.0f} {base}H{_WIDTH:.0f}" stroke="#9ca3af"/>'
        f'<text x="{_NAME_WIDTH:.0f}" y="{base + 14}" fill="currentColor" fill-opacity=".7">0</text>'
        f'<text x="{_WIDTH:.0f}" y="{base + 14}" fill="currentColor" fill-opacity=".7" text-anchor="end">'
        f"{rounded(span)}</text>"
    )
    return "".join([*parts, "</svg>"])


def _bar(bar: Bar, x: float, to_x: float, y: int) -> str:
    colour = LOOKS[bar.look][1]
    # One that took no time is to be seen, too.
    width = max(to_x - x, 2.0)
    x = min(x, _WIDTH - width)
    top = y + (_ROW - _BAR) / 2
    return (
        f'<g class="bar"><title>{escape(shown(bar.told))}</title>'
        f'<rect x="{x:.1f}" y="{top:.0f}" width="{width:.1f}" height="{_BAR}" rx="2"'
        f' fill="{colour}" fill-opacity=".55" stroke="{colour}"/></g>'
    )


def _bars(task: Mapping[str, Any], now: datetime) -> list[Bar]:
    """Attempts that are over, and the one that is under way or completed."""
    bars = []
    for known in task["tries"]:
        if known["started_at"] is not None:
            begin, end = moment_of(known["started_at"]), moment_of(known["ended_at"])
            told = f"attempt {known['number']}: {known['outcome']}"
            error = f", {known['error']}" if known["error"] else ""
            bars.append(_ordered(begin, end, _OUTCOMES.get(known["outcome"]), told + error))
    started = task["started_at"]
    if started is not None and not any(known["started_at"] == started for known in task["tries"]):
        end = now if task["completed_at"] is None else moment_of(task["completed_at"])
        status = task["status"]
        if status in ("Completed", "Running"):
            bars.append(_ordered(moment_of(started), end, status, f"attempt {task['attempts']}: {status}"))
    return bars


def _ordered(begin: datetime, end: datetime, look: str | None, told: str) -> Bar:
    # A clock that was set back between the two.
    end = max(begin, end)
    took = rounded((end - begin) / timedelta(microseconds=1))
    return Bar(begin, end, look, f"{told}, {took}")


def rounded(span_us: float) -> str:
    """A span as people say it, with two parts at most: `"7 ms"`, `"1.4 s"`, `"3 m 12 s"`, `"2 d 4 h"`."""
    seconds = span_us / 1_000_000
    if seconds < 1:
        return f"{span_us / 1_000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    for unit, name, part, part_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit:
            whole, rest = divmod(int(seconds), unit)
            return f"{whole} {name} {rest // part} {part_name}" if rest // part else f"{whole} {name}"
    raise AssertionError(span_us)


def moment_of(text: str) -> datetime:
    """A moment as rows have it."""
    return datetime.fromisoformat(text)
