"""Draws a workflow's graph as SVG. Decides how it looks; the core decides where each task stands.

Invariant: every text is escaped, and equal graphs give equal pictures.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from . import _cloaca
from .plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CHARS_MAX = 40
"""Longer names and rules are cut; the tooltip has them whole."""

TOOLTIP_CHARS_MAX = 2_000
"""So much of a text stands in a tooltip."""

_CHAR_WIDTH, _SMALL_WIDTH = 7.3, 6.1
_PADDING, _LINE, _SMALL_LINE, _MARGIN = 12, 18, 14, 8
_GAPS = (44.0, 14.0)
_ARROW = 6

LOOKS = {
    # The sign says what the colour says: not everybody sees it, and not every printer has it.
    None: ("", "#6b7280", ""),
    "Pending": ("○", "#6b7280", "pending"),
    "Running": ("▶", "#2563eb", "running"),
    "Completed": ("✓", "#15803d", "completed"),
    "Failed": ("✗", "#dc2626", "failed"),
    "Skipped": ("⊘", "#6b7280", "skipped"),
    "Cancelled": ("■", "#b45309", "cancelled"),
}
_OPERATORS = {
    "Equals": "=",
    "NotEquals": "≠",
    "GreaterThan": ">",
    "LessThan": "<",
    "GreaterOrEqual": "≥",
    "LessOrEqual": "≤",
    "In": "in",
    "Contains": "contains",
    "NotContains": "doesn't contain",
    "Exists": "exists",
    "NotExists": "doesn't exist",
}


class Drawn(NamedTuple):
    """A task as it is drawn."""

    id: str
    dependencies: Sequence[str]
    rule: Any = None
    """Its trigger rule as plain data, if it has one."""
    status: str | None = None
    """Where it stands in a run; `None` in a picture of the workflow alone."""
    href: str | None = None
    """Where a click leads."""


def words_of(rule: Any) -> str:
    """A trigger rule in a few words."""
    kind, parts = rule["type"], rule.get("conditions", ())
    if kind == "ContextValue":
        value = "" if rule["operator"] in ("Exists", "NotExists") else f" {rule['value']!r}"
        return f"{rule['key']} {_OPERATORS.get(rule['operator'], rule['operator'])}{value}"
    if kind in ("TaskSuccess", "TaskFailed", "TaskSkipped"):
        return f"{rule['task_name']} {_ENDS[kind]}"
    if kind == "Always":
        return "always"
    inner = [f"({words_of(part)})" if part.get("conditions") else words_of(part) for part in parts]
    if kind == "None":
        return "none of " + ", ".join(inner)
    return (" and " if kind == "All" else " or ").join(inner)


_ENDS = {"TaskSuccess": "completed", "TaskFailed": "failed", "TaskSkipped": "skipped"}


def svg(name: str, tasks: Sequence[Drawn]) -> str:
    """The picture of a workflow, or of one of its runs where tasks have states.

    Args:
        name (str): of the workflow.
        tasks (Sequence[Drawn]): all of its tasks.

    Raises:
        WorkflowError: (a `ValueError`) they are no graph of a workflow.
    """
    labels = [_cut(task.id) for task in tasks]
    rules = ["" if task.rule is None else _cut(f"if {words_of(task.rule)}") for task in tasks]
    sizes = [_size(task, label, rule) for task, label, rule in zip(tasks, labels, rules, strict=True)]
    ids, dependencies = [task.id for task in tasks], [list(task.dependencies) for task in tasks]
    frames, lines, (width, height) = _cloaca.layout(name, ids, dependencies, sizes, _GAPS)
    width, height = width + 2 * _MARGIN, height + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cloaca-graph"'
        f' width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="{-_MARGIN} {-_MARGIN} {width:.0f} {height:.0f}" role="img"'
        f' aria-label={quoteattr(_told(name, tasks))} fill="none"'
        ' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="12">'
    ]
    parts += [_line(points) for _, _, points in lines]
    parts += [
        _task(task, label, rule, frame)
        for task, label, rule, frame in zip(tasks, labels, rules, frames, strict=True)
    ]
    return "".join([*parts, "</svg>"])


def _told(name: str, tasks: Sequence[Drawn]) -> str:
    counted = f"workflow {_cut(name)} with {len(tasks)} task{'' if len(tasks) == 1 else 's'}"
    states = [task.status for task in tasks if task.status is not None]
    told = [f"{states.count(state)} {look[2]}" for state, look in LOOKS.items() if state in states]
    return f"{counted}: {', '.join(told)}" if told else counted


def _size(task: Drawn, label: str, rule: str) -> tuple[float, float]:
    sign = 2 if task.status is not None else 0
    width = max((_cells(label) + sign) * _CHAR_WIDTH, _cells(rule) * _SMALL_WIDTH) + 2 * _PADDING
    return width, _LINE + _PADDING + (_SMALL_LINE if rule else 0)


def _line(points: list[tuple[float, float]]) -> str:
    (x, y), *rest = points
    path = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in [*rest[:-1], (rest[-1][0] - _ARROW, rest[-1][1])]:
        middle = (x + to_x) / 2
        path.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    head = f"M{x:.1f} {y - 4:.1f}L{x + _ARROW:.1f} {y:.1f}L{x:.1f} {y + 4:.1f}Z"
    return (
        f'<path class="edge" d="{"".join(path)}" stroke="#9ca3af" stroke-width="1.2"/>'
        f'<path class="edge-head" d="{head}" fill="#9ca3af"/>'
    )


def _task(task: Drawn, label: str, rule: str, frame: tuple[float, float, float, float]) -> str:
    x, y, width, height = frame
    sign, colour, state = LOOKS.get(task.status, LOOKS[None])
    dashes = ' stroke-dasharray="4 3"' if task.status == "Skipped" else ""
    told = [task.id, *([state] if state else []), *([f"if {words_of(task.rule)}"] if rule else [])]
    signed = escape(f"{sign} {label}" if sign else label)
    parts = [
        f'<g class="task {state or "plain"}"><title>{escape(shown(", ".join(told)))}</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6" fill="{colour}"'
        f' fill-opacity=".1" stroke="{colour}"{dashes}/>'
        f'<text x="{x + _PADDING:.1f}" y="{y + _PADDING / 2 + 13:.1f}" fill="currentColor">{signed}</text>'
    ]
    if rule:
        at = y + _PADDING / 2 + _LINE + 9
        parts.append(
            f'<text x="{x + _PADDING:.1f}" y="{at:.1f}" font-size="10" fill="currentColor"'
            f' fill-opacity=".7">{escape(rule)}</text>'
        )
    drawn = "".join([*parts, "</g>"])
    return drawn if task.href is None else f"<a href={quoteattr(shown(task.href))}>{drawn}</a>"


def _cut(text: str) -> str:
    """What fits into a box."""
    told = shown(text)
    return told if len(told) <= CHARS_MAX else told[: CHARS_MAX - 1] + "…"


def shown(text: str) -> str:
    """One line of it that XML can hold."""
    return "".join(char if char.isprintable() else "�" for char in plain(text, TOOLTIP_CHARS_MAX))


def _cells(text: str) -> int:
    """How wide it is, in letters: those of East Asia are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
