"""Bar charts as SVG text, without a library."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from report import Measured, shown

WIDTH, LABELS, VALUES, BAR, GAP, HEAD = 720, 170, 110, 22, 10, 46
STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #222 }
    .title { font-weight: 600 }
    .bar { fill: #9aa7b5 }
    .own { fill: #0f8a6c }
    @media (prefers-color-scheme: dark) { text { fill: #ddd } .bar { fill: #68788a } .own { fill: #2fc09c } }
"""

_POLLS = ("floor", "cloaca", "heapq", "uvloop", "call_later", "apscheduler")
#: File, title, unit, figure, and whose: `workload/contestant`.
CHARTS = [
    (
        "polls",
        "Polls a second, 10,000 triggers that are always due (logarithmic)",
        "/s",
        "per_second",
        [f"polls-10000x1ms/{name}" for name in _POLLS],
    ),
    (
        "lateness",
        "Late by, p99, 10,000 triggers every 100 ms",
        "ms",
        "p99_ms",
        [f"late-10000x100ms/{name}" for name in ("cloaca", "heapq", "call_later")],
    ),
    (
        "runs",
        "One-task runs a second, kept on disk, many in flight (logarithmic)",
        "/s",
        "per_second",
        ["runs/floor", "runs/cloaca", "runs-peers/huey", "runs-peers/dbos"],
    ),
]
NAMES = {"floor": "bare Python floor", "call_later": "asyncio", "heapq": "heapq loop"} | {
    "runs/floor": "bare grouped inserts",
    "apscheduler": "APScheduler",
    "huey": "Huey",
    "dbos": "DBOS",
}


def write_all(measured: Measured, folder: Path) -> None:
    """A file for each chart of which anything was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, title, unit, figure, places in CHARTS:
        bars = []
        for place in places:
            workload, contestant = place.split("/")
            found = measured.get(workload, {}).get(contestant, {}).get(figure)
            if found:
                name = NAMES.get(place, NAMES.get(contestant, contestant))
                bars.append((name, found["median"], shown(found["median"], unit)))
        if bars:
            (folder / f"{file}.svg").write_text(chart(title, bars, is_log="logarithmic" in title))


def chart(title: str, bars: Sequence[tuple[str, float, str]], is_log: bool) -> str:
    """Horizontal bars, cloaca's in another colour."""
    height = HEAD + len(bars) * (BAR + GAP)
    largest, smallest = max(value for _, value, _ in bars), min(value for _, value, _ in bars)
    room = WIDTH - LABELS - VALUES

    def length(value: float) -> float:
        if not is_log:
            return room * value / largest
        # One power of ten below the smallest, so that this has a bar, too.
        low = math.floor(math.log10(smallest)) - 0.5
        return room * (math.log10(value) - low) / (math.log10(largest) - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="0" y="22">{escape(title)}</text>',
    ]
    for number, (name, value, text) in enumerate(bars):
        y = HEAD + number * (BAR + GAP)
        kind = "bar own" if name == "cloaca" else "bar"
        parts += [
            f'<text x="{LABELS - 10}" y="{y + 16}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length(value):.1f}" height="{BAR}" rx="3"/>',
            f'<text x="{LABELS + length(value) + 8:.1f}" y="{y + 16}">{escape(text)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
