"""Questions to the store that take long, or cannot be answered: they hold up nobody, and end when told to."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cloaca

SECONDS = 30.0
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) AS m FROM c"


def run_program(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False)


class Asking(threading.Thread):
    """A thread that asks once, and keeps what came of it."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.ask = ask
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.ask()
        except Exception as error:
            self.answer = error

    def wait(self) -> Any:
        self.join(SECONDS)
        assert not self.is_alive(), "it hangs"
        return self.answer


def workflow() -> None:
    failed: list[int] = []

    def body(context: cloaca.Context) -> None:
        failed.append(1)
        if len(failed) < 3:
            raise ValueError("again")

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", retry_attempts=3, retry_delay_ms=1)(body)


def test_an_endless_query_holds_up_nobody_and_ends_with_the_runner(tmp_path: Path) -> None:
    workflow()
    runner = cloaca.DefaultRunner(str(tmp_path / "runs.db"))
    try:
        endless = [Asking(lambda: runner.query(ENDLESS)) for _ in range(2)]
        others: list[Callable[[], Any]] = [
            lambda: runner.execute("w").status,
            lambda: runner.list_runs()[0]["status"],
            lambda: runner.query("SELECT status FROM runs")[0]["status"],
            lambda: runner.export(tmp_path / "copy.db") or "Completed",
        ]
        for ask in others:
            assert Asking(ask).wait() == "Completed"
        assert all(asking.is_alive() for asking in endless)
    finally:
        Asking(runner.shutdown).wait()
    for asking in endless:
        assert isinstance(asking.wait(), cloaca.RunnerError)


def test_an_endless_query_in_memory_ends_with_the_runner() -> None:
    runner = cloaca.DefaultRunner(":memory:")
    endless = [Asking(lambda: runner.query(ENDLESS)) for _ in range(2)]
    while not all(asking.is_alive() for asking in endless):
        pass
    Asking(runner.shutdown).wait()
    for asking in endless:
        assert isinstance(asking.wait(), cloaca.RunnerError)


INTERRUPTED = f"""
    import signal, sys, time
    import cloaca
    runner = cloaca.DefaultRunner(sys.argv[1])
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        runner.query({ENDLESS!r})
    except KeyboardInterrupt:
        print("heard")
    print(runner.query("SELECT 1 AS one"))
    runner.shutdown()
"""


@pytest.mark.parametrize("url", ["runs.db", ":memory:"])
def test_a_signal_ends_a_query_of_the_main_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_program(INTERRUPTED, url)
    assert done.stdout.splitlines() == ["heard", "[{'one': 1}]"], done.stderr


LOCKED = """
    import signal, subprocess, sys, time
    import cloaca
    path, call = sys.argv[1:]
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    cloaca.trigger(workflow="w", poll_interval="1h", name="trig")(lambda: False)
    runner = cloaca.DefaultRunner(path)
    run = runner.submit("w")
    run.result()
    cron = runner.register_cron_workflow("w", "0 0 1 1 *")
    HOLD = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); " \\
        "db.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    import threading
    threading.Thread(target=lambda: runner.submit("w"), daemon=True).start()
    while runner.stats()["runs_unfinished"] == 0:
        time.sleep(0.01)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    try:
        eval(call)
    except KeyboardInterrupt:
        print("heard" if time.monotonic() - began < 4 else "late")
    else:
        print("answered" if time.monotonic() - began < 4 else "late")
    holder.stdin.close()
    holder.wait()
    runner.shutdown()
"""


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        ("runner.query('SELECT 1 AS one')", "heard"),
        ("runner.why('trig')", "heard"),
        ("runner.cancel(run.id)", "heard"),
        ("runner.retry(run.id)", "heard"),
        ("runner.tick('trig')", "heard"),
        ("runner.export(path + '-copy')", "heard"),
        ("runner.list_trigger_schedules()", "heard"),
        ("runner.set_trigger_enabled('trig', False)", "heard"),
        ("runner.delete_cron_schedule(cron)", "heard"),
        ("runner.list_runs()", "answered"),
        ("runner.get_run(run.id)", "answered"),
        ("runner.list_cron_schedules()", "answered"),
        ("runner.stats()", "answered"),
    ],
)
def test_a_signal_is_heard_while_the_store_takes_nothing(tmp_path: Path, call: str, outcome: str) -> None:
    done = run_program(LOCKED, tmp_path / "runs.db", call)
    assert done.stdout.splitlines() == [outcome], done.stderr
