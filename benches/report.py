"""Turns measured figures into the table: for the terminal, for Markdown, and as plain data.

Measured figures are `{workload: {contestant: {figure: {"median", "low", "high"}}}}`.
"""

from typing import Any

from workloads import ROWS, WORKLOADS, Bound, Row

Measured = dict[str, dict[str, dict[str, dict[str, float]]]]
HEAD = ("what", "cloaca", "others", "to reach", "met")
#: Where the others of a row stand under other names than its own workload.
COMPARED = {
    "runs": [("runs-peers", "huey"), ("runs-peers", "dbos")],
    "rust": [("hash", "json_sha256"), ("hash", "orjson_xxh3"), ("hash", "orjson_blake3")],
}
#: Names that say more than the contestant's.
SHOWN = {"floor": "floor", "json_sha256": "json + SHA-256", "orjson_xxh3": "orjson + xxh3"} | {
    "orjson_blake3": "orjson + blake3",
    "traced": "one that takes its spans",
}


def table(measured: Measured, judge: bool = True) -> list[dict[str, Any]]:
    """Each row that was measured, with every text ready; those of a quick run are not judged."""
    return [
        _line(row, measured, judge) for row in ROWS if _figure(measured, row.workload, row.of, row.figure)
    ]


def _figure(measured: Measured, workload: str, contestant: str, figure: str) -> dict[str, float] | None:
    return measured.get(workload, {}).get(contestant, {}).get(figure)


def _line(row: Row, measured: Measured, judge: bool) -> dict[str, Any]:
    own = measured[row.workload][row.of][row.figure]
    judged = [_judged(bound, row, own["median"], measured) for bound in row.bounds]
    known = [met for _, _, met in judged if met is not None and judge]
    met = (all(known) if row.needs_all else any(known)) if known else None
    return {
        "what": row.title,
        "cloaca": _with_spread(own, row.unit),
        "others": ", ".join(_others(row, own["median"], measured)),
        "to reach": (", " if row.needs_all else " or ").join(text for text, _, _ in judged),
        "met": "" if met is None else "yes" if met else "no",
        "value": own["median"],
        "ratios": {
            bound.against or "limit": ratio for bound, (_, ratio, _) in zip(row.bounds, judged, strict=True)
        },
    }


def _judged(bound: Bound, row: Row, own: float, measured: Measured) -> tuple[str, float | None, bool | None]:
    """What is to be reached in words, how far we are, whether that is enough; none where unknown."""
    sign = "≥" if bound.is_least else "≤"
    if not bound.against:
        met = own >= bound.limit if bound.is_least else own <= bound.limit
        return f"{sign} {shown(bound.limit, row.unit)}", None, met
    path = bound.against.split("/", 2)
    place = path if len(path) == 3 else [row.workload, bound.against, row.figure]
    other = _figure(measured, *place)
    name = SHOWN.get(place[1], "without overload" if place[1] == "cloaca" else place[1])
    text = f"{sign} {bound.limit:g} times {name}"
    if other is None:
        return f"{text} (not measured)", None, None
    ratio = own / other["median"]
    return f"{text} (is {ratio:.2g})", ratio, ratio >= bound.limit if bound.is_least else ratio <= bound.limit


def _others(row: Row, own: float, measured: Measured) -> list[str]:
    names = [
        name for name in measured[row.workload] if name not in (row.of, "cloaca", "submit", "submit_many")
    ]
    places = [(row.workload, name, row.figure) for name in names]
    figure = row.figure.removeprefix("hash/") + "_ns" if row.workload == "rust" else row.figure
    places += [(workload, name, figure) for workload, name in COMPARED.get(row.workload, [])]
    texts = []
    for workload, name, figure in places:
        other = _figure(measured, workload, name, figure)
        if other is not None:
            texts.append(f"{SHOWN.get(name, name)} {shown(other['median'], row.unit)}")
    return texts


def _with_spread(figure: dict[str, float], unit: str) -> str:
    median, low, high = figure["median"], figure["low"], figure["high"]
    text = shown(median, unit)
    if shown(low, unit) == shown(high, unit):
        return text
    return f"{text} ({shown(low, unit)} to {shown(high, unit)})"


def shown(value: float, unit: str) -> str:
    """A value to three digits."""
    if unit == "ns":
        for size, name in ((1e6, "ms"), (1e3, "µs")):
            if value >= size:
                return f"{_digits(value / size)} {name}"
    if unit == "/s":
        for size, name in ((1e6, " million"), (1e3, ",000")):
            if value >= 10 * size and name == ",000":
                return f"{value / size:,.0f}{name}"
            if value >= size and name == " million":
                return f"{_digits(value / size)}{name}"
        return f"{value:,.0f}"
    return f"{_digits(value)} {unit}".rstrip()


def _digits(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return f"{value:.4f}" if "e" in text else text


def as_text(lines: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    cells = [HEAD, *(tuple(str(line[name]) for name in HEAD) for line in lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([rows[0], "-" * sum(widths), *rows[1:]])


def as_markdown(lines: list[dict[str, Any]]) -> str:
    """The table for a document."""
    rows = [HEAD, ("---",) * len(HEAD), *(tuple(str(line[name]) for name in HEAD) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def repeats_of(workload: str) -> int:
    """How often a workload was measured in a full run."""
    return next((known.repeats for known in WORKLOADS if known.name == workload), 1)
