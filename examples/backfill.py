"""Daily totals of sales: all days of the past (the back-fill), each new day as it comes, and a range of days
anew after a correction; each day once, however often the program is started.

Run it: python examples/backfill.py
It kills the program twice (kill -9) in the midst of the back-fill. `python examples/backfill.py serve FOLDER`
is that program: it reads `FOLDER/sales/2026-01-31.csv` and the like, and keeps `FOLDER/totals.db`, until
SIGTERM. `python examples/backfill.py again FOLDER NAME FIRST LAST` does the days from FIRST to LAST anew.
"""

import csv
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import cloaca

SCHEMA = "CREATE TABLE IF NOT EXISTS total (day TEXT PRIMARY KEY, cents INTEGER NOT NULL)"


def declare(folder: Path) -> None:
    """Declare the workflow, and the trigger that finds days."""
    with cloaca.WorkflowBuilder("total_day") as builder:
        builder.description("Adds up one day")

        @cloaca.task()
        def add_up(context: cloaca.Context) -> None:
            # The context names the day; the data stay in the file.
            with (folder / "sales" / f"{context['day']}.csv").open(newline="") as file:
                context["cents"] = sum(int(row["cents"]) for row in csv.DictReader(file))

        @cloaca.task(dependencies=[add_up])
        def keep(context: cloaca.Context) -> None:
            # Done again, it replaces what it wrote before: a day may be added up any number of times.
            with closing(sqlite3.connect(folder / "totals.db", timeout=30)) as connection, connection:
                connection.execute(SCHEMA)
                row = context["day"], context["cents"]
                connection.execute("INSERT OR REPLACE INTO total VALUES (?, ?)", row)

    # The cursor is the last day that has its run: at first there is none, and all days are new. `skip` takes
    # one day at a time; the others wait in front of the cursor, and not in the store.
    @cloaca.trigger(workflow="total_day", poll_interval="10ms", poll_at_start=True, overlap="skip")
    def new_days(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        days = sorted(path.stem for path in (folder / "sales").glob("*.csv"))
        return [
            cloaca.TriggerResult.fire({"day": day}, cursor=day) for day in days if day > (tick.cursor or "")
        ]


def serve(folder: Path) -> None:
    """Add up each day that is there, and each that comes, until SIGTERM."""
    declare(folder)
    cloaca.DefaultRunner(folder / "runs.db").run_forever()


def again(folder: Path, name: str, first: date, last: date) -> int:
    """Add up a range of days once more. Under the same name it does so once: call it again after a crash."""
    declare(folder)
    days = [str(first + timedelta(days=number)) for number in range((last - first).days + 1)]
    with cloaca.DefaultRunner(folder / "runs.db", triggers=[]) as runner:
        runs = runner.submit_many(
            "total_day", [{"day": day} for day in days], run_keys=[f"{name} {day}" for day in days]
        )
        ended = [run.result() for run in runs]
    return sum(result.status != "Completed" for result in ended)


def totals(folder: Path) -> dict[str, int]:
    """The totals so far."""
    with closing(sqlite3.connect(folder / "totals.db", timeout=30)) as connection:
        connection.execute(SCHEMA)
        return dict(connection.execute("SELECT day, cents FROM total").fetchall())


def write_sales(folder: Path, day: date, cents: int) -> None:
    """One day's sales, complete from the moment that the file shows under its name."""
    path = folder / "sales" / f"{day}.csv"
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".part").write_text(f"article,cents\ntea,{cents}\ncoffee,100\n")
    path.with_suffix(".part").rename(path)


def main() -> int:
    """Kill the back-fill twice, let a new day come, and correct three days."""
    with tempfile.TemporaryDirectory() as name:
        folder, first = Path(name), date(2026, 1, 1)
        for number in range(31):
            write_sales(folder, first + timedelta(days=number), number)
        deadline = time.monotonic() + 30
        for enough in (5, 20, 32):
            if enough == 32:
                write_sales(folder, date(2026, 2, 1), 31)
            with subprocess.Popen([sys.executable, __file__, "serve", name]) as program:
                while len(totals(folder)) < enough and time.monotonic() < deadline:
                    time.sleep(0.005)
                program.kill() if enough < 32 else program.terminate()
        found = totals(folder)
        print(f"{len(found)} days, right: {sorted(found.values()) == [100 + n for n in range(32)]}")

        for number in range(3):
            write_sales(folder, first + timedelta(days=number), 1000)
        correct = [sys.executable, __file__, "again", name, "correction", "2026-01-01", "2026-01-03"]
        for _ in range(2):
            subprocess.run(correct, check=True)
        found = totals(folder)
        print("corrected:", [found[f"2026-01-0{day}"] for day in (1, 2, 3, 4)])
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["again"]:
        sys.exit(again(Path(sys.argv[2]), sys.argv[3], *map(date.fromisoformat, sys.argv[4:6])))
    else:
        sys.exit(main())
