"""One-task runs over a durable PostgreSQL server of its own, beside bare statements on such a server.

It needs Debian's `postgresql` and, for what it is compared with, `psycopg`.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from common import Figures, percentile, run_contestant, wait_until
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

with cloaca.WorkflowBuilder("long"):
    @cloaca.task()
    def stay(context, handle):
        if handle.attempt == 1:
            time.sleep(600)
        context["again"] = time.time()

with cloaca.DefaultRunner(sys.argv[1]):
    print(flush=True)
    sys.stdin.readline()
"""


IDLE_S = 20
KILLED = 1_000
"""So many runs are in the hands of who is killed."""
HELD_EACH = 2_000
"""So many runs are drained at a time beside a snapshot that is held."""


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


@contextlib.contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that works on the store."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WORKER, url], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        assert process.stdin is not None
        process.stdin.close()


def unfinished(client: cloaca.DefaultRunner) -> bool:
    """Whether any run is not over."""
    return bool(client.query("SELECT 1 AS one FROM runs WHERE completed_at IS NULL LIMIT 1"))


def drain(workers: int, runs: int) -> Figures:
    """All of them begin with the first run in the store."""

    def measure(url: str) -> Figures:
        with contextlib.ExitStack() as stack:
            for _ in range(workers):
                stack.enter_context(worker(url))
            client = stack.enter_context(cloaca.DefaultRunner(url, work=False))
            for first in range(0, runs, 1000):
                client.submit_many("one", [CONTEXT] * min(1000, runs - first))
            wait_until(lambda: not unfinished(client))
            [span] = client.query("SELECT max(completed_at) - min(created_at) AS us FROM runs")
        return {"per_second": runs / span["us"] * 1e6}

    return on_a_server(measure)


def run_killed(runs: int) -> Figures:
    """From the death of a process with runs in hand to the first attempt of one of them in another process on
    the same machine."""

    def measure(url: str) -> Figures:
        with cloaca.DefaultRunner(url, work=False) as client, worker(url) as victim:
            client.submit_many("long", [CONTEXT] * KILLED)
            wait_until(lambda: held(client) == KILLED)
            with worker(url):
                os.kill(victim.pid, signal.SIGKILL)
                died = time.time()
                wait_until(lambda: not unfinished(client))
                [first] = client.query(AGAIN)
        return {"taken_ms": (first["at"] - died) * 1e3}

    def held(client: cloaca.DefaultRunner) -> int:
        [found] = client.query("SELECT count(*) AS many FROM runs WHERE owner IS NOT NULL")
        return int(found["many"])

    return on_a_server(measure)


AGAIN = "SELECT min((final_context::json ->> 'again')::float) AS at FROM runs"


def run_idle(runs: int) -> Figures:
    """What four runners with nothing to do ask of the server, each, and what that costs it."""

    def measure(url: str) -> Figures:
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(worker(url))
            time.sleep(15)
            before, cpu = asked(url), spent(url)
            time.sleep(IDLE_S)
            after, more = asked(url), spent(url)
        # What is counted is transactions: a lone statement is one.
        return {
            "transactions": (after - before) / IDLE_S / 4,
            "share_percent": (more - cpu) / IDLE_S * 100,
        }

    def asked(url: str) -> int:
        [[many]] = postgres.sql(
            url, "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
        )
        return int(many)

    def spent(url: str) -> float:
        """Seconds of the processor that its connections have used."""
        ticks = 0
        for [pid] in postgres.sql(url, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"):
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    return on_a_server(measure)


def run_held(runs: int) -> Figures:
    """How fast runs go while a snapshot is held, at the end beside before: after so many have left rows that
    nobody can remove."""
    declare_one()

    def measure(url: str) -> Figures:
        def speed(runner: cloaca.DefaultRunner) -> float:
            began = time.perf_counter()
            for run in runner.submit_many("one", [CONTEXT] * HELD_EACH):
                run.result()
            return HELD_EACH / (time.perf_counter() - began)

        with cloaca.DefaultRunner(url) as runner:
            speed(runner)
            before = statistics.median(speed(runner) for _ in range(5))
            with psycopg.connect(url) as holder:
                holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                holder.execute("SELECT count(*) FROM cloaca.runs")
                for _ in range(runs // HELD_EACH):
                    speed(runner)
                after = statistics.median(speed(runner) for _ in range(5))
        return {"before": before, "per_second": after, "kept": after / before}

    import psycopg

    return on_a_server(measure)


def timed(call: Callable[[], object]) -> float:
    """How long it took, in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    contestants = {
        "cloaca": run_cloaca,
        "floor": run_floor,
        "between": run_between,
        "inbox": run_inbox,
        "one": lambda runs: drain(1, runs),
        "two": lambda runs: drain(2, runs),
        "four": lambda runs: drain(4, runs),
        "killed": run_killed,
        "idle": run_idle,
        "held": run_held,
    }
    run_contestant(contestants, runs=int)
