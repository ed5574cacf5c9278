"""SIGKILL amidst runs that wait for runs: the next process finds what was started, and starts none twice."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from lives import Script

SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
"""Draws the moments of kills."""

NESTED = """
    def nest(name, inner):
        with cloaca.WorkflowBuilder(name):

            @cloaca.task(id=name, retry_attempts=1)
            def body(context, handle):
                if inner is None:
                    say("leaf of", context["pid"])
                    handle.defer_until(lambda: os.path.exists(sys.argv[2]), 10)
                else:
                    runner.execute(inner, {"pid": os.getpid()}, check=True)

    nest("leaf", None)
    nest("middle", "leaf")
    nest("outer", "middle")
    say("pid", os.getpid())
    with cloaca.DefaultRunner(sys.argv[1], max_concurrent_tasks=1) as runner:
        if not runner.list_runs():
            runner.submit("outer")
        until(lambda: all_final(runner))
        for run in reversed(runner.list_runs()):
            of = [other["workflow_name"] for other in runner.list_runs() if other["id"] == run["parent_run"]]
            say(run["workflow_name"], run["status"], *of)
"""


def test_a_nested_call_that_was_cut_off_three_deep_goes_on_with_the_same_runs(tmp_path: Path) -> None:
    path, go = tmp_path / "runs.db", tmp_path / "go"
    with Script(NESTED, path, go) as first:
        pid = next(first.lines).removeprefix("pid ")
        first.says(f"leaf of {pid}")
        first.process.kill()
    with Script(NESTED, path, go) as second:
        assert next(second.lines) != f"pid {pid}"
        # Whoever asks for it once more gives it a context of his own, and gets the run with the first one.
        second.says(f"leaf of {pid}")
        second.process.kill()
    go.touch()
    with Script(NESTED, path, go) as last:
        lines = last.rest()
    assert set(lines[1:-3]) <= {f"leaf of {pid}"}
    assert lines[-3:] == ["outer Completed", "middle Completed outer", "leaf Completed middle"]


CALLS = """
    with cloaca.WorkflowBuilder("leaf"):

        @cloaca.task(retry_attempts=1)
        def leaf(context, handle):
            say("leaf", context["n"])
            time.sleep(0.02)

    with cloaca.WorkflowBuilder("outer"):

        @cloaca.task(retry_attempts=1)
        def outer(context, handle):
            for n in range(10):
                if n % 2:
                    runner.execute("leaf", {"n": n, "pid": os.getpid()}, check=True)
                else:
                    runner.submit("leaf", {"n": n, "pid": os.getpid()})

    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=2, interruptions_max=1000)
    with cloaca.DefaultRunner.with_config(sys.argv[1], config) as runner:
        if not runner.list_runs():
            runner.submit("outer")
        say("ready")
        until(lambda: all_final(runner))
        ends = {run["status"] for run in runner.list_runs()}
        numbers = [run["context"]["n"] for run in reversed(runner.list_runs("leaf"))]
        parents = {run["parent_run"] for run in runner.list_runs("leaf")}
        say(ends, numbers, parents == {runner.list_runs("outer")[0]["id"]})
"""


def test_whenever_the_process_is_killed_each_call_has_one_run(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    path = tmp_path / "runs.db"
    for _ in range(8):
        with Script(CALLS, path) as killed:
            # Told once there is a run: what is killed before that leaves nothing to look at.
            for line in killed.lines:
                if line == "ready":
                    break
            time.sleep(chance.uniform(0.0, 0.2))
            killed.process.kill()
    with Script(CALLS, path) as last:
        lines = last.rest()
    assert lines[-1] == "{'Completed'} " + f"{list(range(10))} True", SEED
