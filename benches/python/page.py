"""Server time of the page's screens beside many runs, 20,000 of which nobody has.

Of each screen also half and 95 of a hundred, under its path, and the processor's time, which other work on
the machine hardly changes; and what each question to the store takes of that, from a millisecond on.
"""

import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from common import Figures, run_contestant

import cloaca
import cloaca.ui

TRIGGERS = 200
FAILED_PART = 50
"""One of so many failed."""
DAYS_US = 3 * 86_400_000_000
LISTS = ("/", "/runs", "/runs?status=Failed", "/runs?status=Pending", "/runs?error=ValueError&since=24h")
OTHERS = ("/triggers", "/trigger?name=t7", "/workflows", "/workflow?name=ingest", "/system")
RARE = (
    "/runs?workflow=elsewhere&status=Failed",
    "/runs?trigger=t7&status=Cancelled",
    "/runs?workflow=elsewhere&status=Completed",
    "/runs?status=Running",
)
"""Lists that find nothing among many: they go through what an index has of one of their filters."""
TOLD_MS = 1.0


def run_cloaca(runs: int, rounds: int) -> Figures:
    """The slowest screen's 95th of a hundred, in wall time, and that of what an open run's tab is sent."""
    _declare()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        with cloaca.DefaultRunner(path) as runner:
            runner.execute("ingest", {"items": list(range(20))})
            runner.execute("ingest", {"bad": 1})
        with closing(sqlite3.connect(path)) as database:
            # It is thrown away.
            database.execute("PRAGMA synchronous = OFF")
            _multiply(database, 1, runs - runs // FAILED_PART, 10, runs)
            _multiply(database, 2, runs // FAILED_PART, 10 + runs, runs)
            database.execute(
                "UPDATE runs SET status = 'Pending', completed_at = NULL, final_context = NULL, owner = NULL,"
                " workflow = 'elsewhere' WHERE row BETWEEN 20 AND ?",
                [20 + min(20_000, runs // 5)],
            )
            database.commit()
        with cloaca.DefaultRunner(path) as runner:
            page = cloaca.ui.app(runner)
            failed = runner.list_runs(status="Failed", limit=1)[0]["id"]
            views = {view: view for view in (*LISTS, *OTHERS, *RARE)} | {"/run": f"/run?id={failed}"}
            took = {name: _took(page, view, rounds) for name, view in views.items()}
            asked = {name: _asked(page, view) for name, view in views.items()}
            page._source.close()
    figures = {
        "page_ms": max(each.p95_ms for each in took.values()),
        "page_cpu_ms": max(each.cpu_ms for each in took.values()),
        "update_ms": took["/run"].p95_ms,
        "first_ms": took["/"].p95_ms,
        "first_cpu_ms": took["/"].cpu_ms,
    }
    for name, each in took.items():
        figures |= {f"{name} {what}": value for what, value in each._asdict().items()}
        figures |= {f"{name}: {question} cpu_ms": value for question, value in asked[name].items()}
    return figures


class Took(NamedTuple):
    """What a screen takes: half of a hundred, 95 of them, and 95 of them of the processor's time."""

    p50_ms: float
    p95_ms: float
    cpu_ms: float


def _took(page: "cloaca.ui.Page", view: str, rounds: int) -> Took:
    page._fragment("", view, "act")
    spans, worked = [], []
    for _ in range(max(2, rounds)):
        began, begun = time.perf_counter(), time.process_time()
        page._fragment("", view, "act")
        spans.append((time.perf_counter() - began) * 1000)
        worked.append((time.process_time() - begun) * 1000)
    parts = statistics.quantiles(spans, n=20, method="inclusive")
    return Took(parts[9], parts[-1], statistics.quantiles(worked, n=20, method="inclusive")[-1])


def _asked(page: "cloaca.ui.Page", view: str) -> dict[str, float]:
    """What each question to the store takes of the processor's time, by its method and first words."""
    reader = page._source.reader
    native, spans = reader.native, dict[str, float]()

    class Asked:
        def __getattr__(self, name: str) -> object:
            method = getattr(native, name)

            def timed(*values: object) -> object:
                began = time.process_time()
                try:
                    return method(*values)
                finally:
                    words = " ".join(str(values[0]).split())[:60] if name == "query" else ""
                    question = f"{name} {words}".strip()
                    spans[question] = spans.get(question, 0.0) + (time.process_time() - began) * 1000

            return timed if callable(method) else method

    reader.native = Asked()
    try:
        page._fragment("", view, "act")
    finally:
        reader.native = native
    return {question: span for question, span in spans.items() if span > TOLD_MS}


def _declare() -> None:
    with cloaca.WorkflowBuilder("ingest"):

        @cloaca.task()
        def read(context: cloaca.Context) -> None:
            pass

        @cloaca.task(dependencies=[read], retry_attempts=1)
        def price(context: cloaca.Context) -> None:
            if context.get("bad"):
                raise ValueError("no price for article 17")

        @cloaca.task(dependencies=[price])
        def store(context: cloaca.Context) -> None:
            pass

    for number in range(TRIGGERS):
        cloaca.trigger(workflow="ingest", poll_interval="1h", name=f"t{number}")(lambda: False)


def _multiply(database: sqlite3.Connection, row: int, times: int, offset: int, runs: int) -> None:
    """Makes many runs of one, spread over three days and all triggers."""
    other = {
        "row": f"{offset} + i",
        "id": f"printf('%08x-%04x-7000-8000-%012x', {offset} + i, i % 65536, {offset} + i)",
        "created_at": f"created_at - i * {DAYS_US // runs}",
        "schedule": f"(SELECT min(row) FROM schedules) + i % {TRIGGERS}",
        "unique_hash": "0",
        "context_hash": "NULL",
        "scheduled_at": "NULL",
        "end_number": "NULL",
        "run_key": "'key-' || i",
    }
    names = [column[1] for column in database.execute("PRAGMA table_info(runs)")]
    database.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        f" INSERT INTO runs ({', '.join(names)}) SELECT {', '.join(other.get(name, name) for name in names)}"
        " FROM n, runs WHERE runs.row = ?",
        [times, row],
    )
    names = [column[1] for column in database.execute("PRAGMA table_info(tasks)")]
    chosen = ", ".join("r.row" if name == "run" else f"t.{name}" for name in names)
    database.execute(
        f"INSERT INTO tasks ({', '.join(names)}) SELECT {chosen} FROM runs AS r, tasks AS t"
        " WHERE r.row > ? AND r.row <= ? AND t.run = ?",
        [offset, offset + times, row],
    )


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, runs=int, rounds=int)
