"""The workflows that are measured, and bare SQLite that writes the same rows."""

import sqlite3
import time
import uuid
from pathlib import Path

import cloaca

CONTEXT = {"path": "in/file.csv", "size": 12345}
LEFT = '{"path":"in/file.csv","size":12345,"rows":99}'
GROUP = 100

TABLES = """
    CREATE TABLE runs (
        row INTEGER PRIMARY KEY, id TEXT NOT NULL, workflow TEXT NOT NULL, version TEXT NOT NULL,
        status TEXT NOT NULL, created_at INTEGER NOT NULL, started_at INTEGER, completed_at INTEGER,
        context TEXT NOT NULL, final_context TEXT
    ) STRICT;
    CREATE UNIQUE INDEX runs_id ON runs (id);
    CREATE TABLE tasks (
        run INTEGER NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, attempt INTEGER NOT NULL,
        started_at INTEGER, completed_at INTEGER, context TEXT, PRIMARY KEY (run, name)
    ) STRICT, WITHOUT ROWID;
"""
RUN = "INSERT INTO runs (id, workflow, version, status, created_at, context) VALUES (?, ?, ?, ?, ?, ?)"
TASK = "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?)"


def burn(context: cloaca.Context) -> None:
    """Pure Python, until a moment of the machine's own clock."""
    total = 0
    while time.monotonic() < context["until"]:
        for number in range(1000):
            total += number & 7


def declare_burns() -> None:
    """A workflow of one task that wants a core to itself, in another process."""
    with cloaca.WorkflowBuilder("burns"):
        cloaca.task(id="burn", executor="cpu")(burn)


def load(context: cloaca.Context) -> None:
    """What the task of `declare_one` does."""
    context["rows"] = 99


def declare_far_one() -> None:
    """The workflow of one task, in another process."""
    with cloaca.WorkflowBuilder("far"):
        cloaca.task(executor="cpu")(load)


def declare_chain(name: str, length: int) -> None:
    """A workflow of so many tasks, one after another, each of which adds a key."""
    with cloaca.WorkflowBuilder(name):
        before: list[object] = []
        for number in range(length):
            # The names of the keys are as long whatever the length, so that the rows are.
            @cloaca.task(id=f"task{number}", dependencies=before)
            def step(context: cloaca.Context, key: str = f"rows{number}") -> None:
                context[key] = 99

            before = [step]


def declare_one() -> None:
    """A workflow of one task."""
    with cloaca.WorkflowBuilder("one"):

        @cloaca.task()
        def load(context: cloaca.Context) -> None:
            context["rows"] = 99


def runner_on(path: Path, durability: str) -> cloaca.DefaultRunner:
    """A runner over that file."""
    return cloaca.DefaultRunner.with_config(str(path), cloaca.DefaultRunnerConfig(), durability=durability)


def bare_database(path: Path, durability: str) -> sqlite3.Connection:
    """The same tables, as Python's own `sqlite3` has them, set up as cloaca does."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {durability}")
    connection.executescript(TABLES)
    return connection


def run_row() -> tuple[object, ...]:
    """What is known of a run when it is started."""
    return (
        str(uuid.uuid4()),
        "one",
        "0123456789abcdef",
        "Pending",
        1_790_000_000_000_000,
        '{"path":"in/file.csv"}',
    )


def task_row(run: int) -> tuple[object, ...]:
    """What is known of its task in the end."""
    return (run, "load", "Completed", 1, 1_790_000_000_000_000, 1_790_000_000_000_000, LEFT)
