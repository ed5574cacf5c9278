"""A runner of the last release, by its own wheel, beside this program."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cloaca

WHEELS = Path(__file__).parents[2] / "target" / "first-release"
SECONDS = 60

PROGRAM = """
    import os, sys, time
    import cloaca

    print("runs", cloaca.__file__, flush=True)
    go = sys.argv[2]

    with cloaca.WorkflowBuilder("w") as builder:

        @cloaca.task(retry_attempts=1)
        def before(context):
            context["before"] = os.getpid()

        @cloaca.task(dependencies=[before], retry_attempts=1)
        def then(context):
            print("in its body", flush=True)
            while not os.path.exists(go):
                time.sleep(0.005)

    @cloaca.trigger(workflow="w", name="fires", poll_interval="50ms")
    def fires():
        return cloaca.TriggerResult.fire(cloaca.Context({"always": "the same"}))

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        for line in sys.stdin:
            print("status", *[run["status"] for run in runner.list_runs()], flush=True)
"""


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package of the last release lies, as its wheel has it."""
    wheels = sorted(WHEELS.glob("cloaca-0.1.0-*.whl"))
    if not wheels:
        pytest.skip("without its wheel, which tests/first_release.sh builds")
    folder = tmp_path_factory.mktemp("first-release")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder)
    return folder


class Old:
    """A process that works with the last release."""

    def __init__(self, package: Path, file: Path, go: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), file, go],
            env={**os.environ, "PYTHONPATH": os.fspath(package)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self, start: str) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith(start):
                return line.rstrip()
        _, said = self.process.communicate()
        raise AssertionError(f"it ended with {self.process.returncode}: {said}")

    def statuses(self) -> list[str]:
        assert self.process.stdin is not None
        self.process.stdin.write("tell\n")
        self.process.stdin.flush()
        return self.line("status").split()[1:]


@contextmanager
def old(package: Path, file: Path, go: Path) -> Iterator[Old]:
    made = Old(package, file, go)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def declare(go: Path) -> None:
    """The same program for this release."""
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def before(context: cloaca.Context) -> None:
            context["before"] = os.getpid()

        @cloaca.task(dependencies=[before], retry_attempts=1)
        def then(context: cloaca.Context) -> None:
            pass


def test_a_living_runner_of_it_is_named_and_goes_on_and_what_it_leaves_goes_on_here(
    first_release: Path, tmp_path: Path
) -> None:
    file, go = tmp_path / "runs.db", tmp_path / "go"
    declare(go)
    with old(first_release, file, go) as runner:
        assert str(first_release) in runner.line("runs")
        runner.line("in its body")
        named = (
            f"served by a runner of cloaca 0.1.0, in process {runner.process.pid}: it would not see this one"
        )
        for _ in range(2):
            with pytest.raises(cloaca.StoreError, match=named):
                cloaca.DefaultRunner(file)
            assert runner.statuses() == ["Running"], "nothing has changed for it"
        with old(first_release, file, go) as second:
            second.line("runs")
            # A runner of its own release works beside it as ever.
            assert second.statuses() == ["Running"]
    with cloaca.DefaultRunner(file) as runner_now:
        [run] = runner_now.list_runs()
        assert runner_now.run(run["id"]).result(SECONDS).status == "Completed"
        tasks = (runner_now.get_run(run["id"]) or {})["tasks"]
        assert [(task["id"], task["status"]) for task in tasks] == [
            ("before", "Completed"),
            ("then", "Completed"),
        ]


def test_it_refuses_a_store_of_this_release_and_changes_nothing(first_release: Path, tmp_path: Path) -> None:
    file, go = tmp_path / "runs.db", tmp_path / "go"
    declare(go)
    with cloaca.DefaultRunner(file) as runner:
        run = runner.execute("w", {})
        with old(first_release, file, go) as late:
            _, said = late.process.communicate(timeout=SECONDS)
            assert late.process.returncode == 1
            assert "schema version 2" in said, said
        assert runner.execute("w", {}).status == run.status == "Completed"
    with cloaca.DefaultRunner(file) as runner:
        assert len(runner.list_runs()) == 2
