"""One-task runs over a durable PostgreSQL server of its own, beside bare statements on such a server.

It isn't one of `make bench`'s: it needs Debian's `postgresql` and, for what it is compared with, `psycopg`.
"""

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from common import Figures, percentile, run_contestant
from workflows import CONTEXT, GROUP, LEFT, declare_one

import cloaca

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import postgres

TABLES = """
    CREATE TABLE bare_runs (
        row BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id UUID, status TEXT, context TEXT, final TEXT
    );
    CREATE TABLE bare_tasks (run BIGINT, name TEXT, status TEXT, context TEXT, PRIMARY KEY (run, name))
"""
BEGIN = """
    INSERT INTO bare_runs (id, status, context) SELECT id, 'Pending', %s FROM unnest(%s::UUID[]) AS id
    RETURNING row
"""
TASKS = "INSERT INTO bare_tasks SELECT run, 'load', 'Completed', %s FROM unnest(%s::BIGINT[]) AS run"
END = "UPDATE bare_runs SET status = 'Completed', final = %s WHERE row = ANY(%s::BIGINT[])"
WORKER = """
import sys, time
import cloaca

with cloaca.WorkflowBuilder("one"):
    @cloaca.task()
    def note(context):
        context["began"] = time.monotonic_ns()

with cloaca.DefaultRunner(sys.argv[1]):
    print(flush=True)
    sys.stdin.readline()
"""


def on_a_server(measure: Callable[[str], Figures]) -> Figures:
    """What is measured on a server that survives a loss of power."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cloaca-") as folder:
        Path(folder).chmod(0o711)
        server = postgres.Server(Path(folder) / "server")
        server.start(settings={"fsync": "on", "full_page_writes": "on"})
        try:
            return measure(server.url("postgres"))
        finally:
            server.stop("fast")
            server.remove()


def run_cloaca(runs: int) -> Figures:
    """1,000 runs started at a time; and then as many alone as make a median."""
    declare_one()

    def measure(url: str) -> Figures:
        with cloaca.DefaultRunner(url) as runner:
            began = time.perf_counter()
            started = []
            for first in range(0, runs, 1000):
                started += runner.submit_many("one", [CONTEXT] * min(1000, runs - first))
            for run in started:
                run.result()
            per_second = runs / (time.perf_counter() - began)
            lone = [timed(lambda: runner.execute("one", CONTEXT)) for _ in range(200)]
        return {"per_second": per_second, "lone_p50_ms": statistics.median(lone) * 1e3}

    return on_a_server(measure)


def run_floor(runs: int) -> Figures:
    """The rows of a run and its task, 100 of each to a commit; and two commits of one row."""
    import psycopg

    def measure(url: str) -> Figures:
        with psycopg.connect(url) as server:
            server.execute(TABLES)
            server.commit()
            began = time.perf_counter()
            for _ in range(0, runs, GROUP):
                write(server, GROUP)
            per_second = runs / (time.perf_counter() - began)
            lone = [timed(lambda: write(server, 1)) for _ in range(200)]
        return {"per_second": per_second, "lone_p50_ms": statistics.median(lone) * 1e3}

    def write(server: psycopg.Connection, many: int) -> None:
        begun = server.execute(BEGIN, (LEFT, [uuid.uuid4() for _ in range(many)]))
        rows = [row for (row,) in begun.fetchall()]
        server.commit()
        server.execute(TASKS, (LEFT, rows))
        server.execute(END, (LEFT, rows))
        server.commit()

    return on_a_server(measure)


def run_between(runs: int) -> Figures:
    """From a submit in one process to the first line of the task in another."""

    def measure(url: str) -> Figures:
        pipe = subprocess.PIPE
        worker = subprocess.Popen([sys.executable, "-c", WORKER, url], stdin=pipe, stdout=pipe, text=True)
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        began_ms = []
        with cloaca.DefaultRunner(url, work=False) as client:
            for number in range(runs):
                asked = time.monotonic_ns()
                result = client.execute("one", {"number": number}, timeout=30)
                began_ms.append((result.final_context["began"] - asked) / 1e6)
                time.sleep(0.005)
        worker.stdin.close()
        worker.wait()
        began_ms.sort()
        return {"p50_ms": percentile(began_ms, 0.5), "p99_ms": percentile(began_ms, 0.99)}

    return on_a_server(measure)


def run_inbox(runs: int) -> Figures:
    """Asked for in transactions of one's own: 100 to a commit, without and with run keys, until the last is
    over; and from a commit in one process to the first line of the task in another."""
    declare_one()

    def measure(url: str) -> Figures:
        figures = {}
        with cloaca.DefaultRunner(url) as runner, psycopg.connect(url) as connection:
            for name, prefix in (("per_second", None), ("keyed_per_second", "key")):
                began = time.perf_counter()
                for first in range(0, runs, GROUP):
                    keys = [None if prefix is None else f"{prefix} {first + place}" for place in range(GROUP)]
                    runner.submit_many("one", [CONTEXT] * GROUP, run_keys=keys, connection=connection)
                    connection.commit()
                while runner.list_runs(status="Pending", limit=1) or runner.list_runs(
                    status="Running", limit=1
                ):
                    time.sleep(0.01)
                figures[name] = runs / (time.perf_counter() - began)
        return figures | latency(url)

    def latency(url: str) -> Figures:
        pipe = subprocess.PIPE
        worker = subprocess.Popen([sys.executable, "-c", WORKER, url], stdin=pipe, stdout=pipe, text=True)
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        began_ms = []
        with cloaca.DefaultRunner(url, work=False) as client, psycopg.connect(url) as connection:
            for number in range(300):
                run = client.submit("one", {"number": number}, connection=connection)
                asked = time.monotonic_ns()
                connection.commit()
                result = run.result(30)
                began_ms.append((result.final_context["began"] - asked) / 1e6)
        worker.stdin.close()
        worker.wait()
        began_ms.sort()
        return {"p50_ms": percentile(began_ms, 0.5), "p99_ms": percentile(began_ms, 0.99)}

    import psycopg

    return on_a_server(measure)


def timed(call: Callable[[], object]) -> float:
    """How long it took, in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    contestants = {"cloaca": run_cloaca, "floor": run_floor, "between": run_between, "inbox": run_inbox}
    run_contestant(contestants, runs=int)
