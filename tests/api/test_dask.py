"""Bodies on a Dask cluster of separate processes, by `Client.get_executor()`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from program import beside_tests

pytest.importorskip("distributed")

SECONDS = 100.0
HEAD = """
    import os, sys, time
    import cloaca, dask, executor_bodies
    from pathlib import Path
    from distributed import Client, LocalCluster
    from process_bodies import read_pids

    def task_of(runner, run):
        return runner.get_run(run.id)["tasks"][0]

    def declare(body, **keywords):
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(executor="dask", id="t0", **keywords)(body)

    if __name__ == "__main__":
        folder = sys.argv[1]
        # Dask would make a call again by itself, of which nobody here would know.
        dask.config.set({"distributed.scheduler.allowed-failures": 0})
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=folder
        )
        client = Client(cluster)
        def factory():
            return client.get_executor()
"""
TAIL = """
        client.close()
        cluster.close()
        print("closed", flush=True)
"""


def run(folder: Path, code: str) -> list[str]:
    """What the program prints, line by line."""
    path = folder / "program.py"
    path.write_text(
        textwrap.dedent(HEAD)
        + textwrap.indent(textwrap.dedent(code), "    ")
        + TAIL[1:].replace("        ", "    ")
    )
    done = subprocess.run(
        [sys.executable, str(path), str(folder)],
        env=beside_tests(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_body_runs_on_a_worker_and_what_it_raises_comes_back(tmp_path: Path) -> None:
    assert run(
        tmp_path,
        """
        with cloaca.DefaultRunner(":memory:", executors={"dask": factory}) as runner:
            declare(executor_bodies.where)
            left = runner.execute("w", {"number": 7}, check=True).final_context
            print(left["number"], left["pid"] in {each.process.pid for each in cluster.workers.values()})
            print(left["pid"] == os.getpid())
            declare(executor_bodies.fails, retry_attempts=2, retry_delay_ms=1)
            run = runner.submit("w", {"error": "value"})
            run.result(30)
            task = task_of(runner, run)
            trace = task["tries"][0]["traceback"]
            print(task["status"], task["attempts"], task["error"], "in fails" in trace)
            declare(executor_bodies.handled)
            told = runner.execute("w", {}, check=True).final_context
            print(told["attempt"], "RetryAfter" in told["defer_until"], "__main__" in told["runner"])
        """,
    ) == ["7 True", "False", "Failed 2 ValueError: of it True", "1 True True", "closed"]


def test_nobody_holds_the_result_of_what_has_ended(tmp_path: Path) -> None:
    # Dask would run it again when its worker dies.
    assert run(
        tmp_path,
        """
        import poll_bodies
        with cloaca.DefaultRunner(":memory:", executors={"dask": factory}) as runner:
            declare(executor_bodies.where)
            runner.execute("w", {"number": 7}, check=True)
            cloaca.trigger(workflow="w", name="x", poll_interval="1h", executor="dask")(poll_bodies.counts)
            runner.tick("x")
            deadline = time.monotonic() + 30
            while client.futures and time.monotonic() < deadline:
                time.sleep(0.01)
            print(client.futures)
        """,
    ) == ["{}", "closed"]


def test_a_worker_that_is_killed_amidst_a_body_is_an_interruption(tmp_path: Path) -> None:
    assert run(
        tmp_path,
        """
        declare(executor_bodies.resumes, retry_attempts=1)
        with cloaca.DefaultRunner(":memory:", executors={"dask": factory}) as runner:
            pids = Path(folder, "pids")
            pids.mkdir()
            run = runner.submit("w", {"folder": str(pids)})
            (pid,) = read_pids(pids, 1)
            os.kill(pid, 9)
            run.result(60)
            task = task_of(runner, run)
            print(task["status"], task["attempts"], [each["outcome"] for each in task["tries"]])
            print("KilledWorker" in task["tries"][0]["error"])
        """,
    ) == ["Completed 2 ['Interrupted', 'Completed']", "True", "closed"]


def test_a_trigger_is_polled_on_a_worker(tmp_path: Path) -> None:
    assert run(
        tmp_path,
        """
        import poll_bodies
        import time
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="t")(lambda context: None)
        cloaca.trigger(workflow="w", executor="dask", poll_interval="50ms", name="x")(poll_bodies.counts)
        with cloaca.DefaultRunner(":memory:", executors={"dask": factory}) as runner:
            until = time.monotonic() + 60
            while len(runner.list_runs(status="Completed")) < 2 and time.monotonic() < until:
                time.sleep(0.01)
            first, *_ = sorted((row["context"] for row in runner.list_runs()), key=lambda row: row["number"])
            print(first["number"], first["pid"] in {each.process.pid for each in cluster.workers.values()})
            print("keep in tick.cursor" in first["last_run"], runner.cursor("x") >= 2)
        """,
    ) == ["1 True", "True True", "closed"]


def test_a_runner_that_ends_amidst_a_body_leaves_the_run_to_the_next(tmp_path: Path) -> None:
    assert run(
        tmp_path,
        """
        declare(executor_bodies.resumes)
        pids = Path(folder, "pids")
        pids.mkdir()
        first = cloaca.DefaultRunner(folder + "/runs.db", executors={"dask": factory})
        run = first.submit("w", {"folder": str(pids)})
        (pid,) = read_pids(pids, 1)
        first.shutdown(0.1)
        os.kill(pid, 9)
        with cloaca.DefaultRunner(folder + "/runs.db", executors={"dask": factory}) as second:
            end = time.monotonic() + 30
            while (task := task_of(second, run))["status"] != "Completed" and time.monotonic() < end:
                time.sleep(0.01)
            print(task["status"], task["attempts"])
        """,
    ) == ["Completed 2", "closed"]
