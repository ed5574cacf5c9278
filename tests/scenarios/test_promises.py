"""What the README promises, each promise on a running engine."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import cloaca
from cloaca import registry
from cloaca.testing import Runner

SECONDS_MAX = 60.0


@pytest.fixture(autouse=True)
def _fresh_registry() -> None:
    registry.clear()


def program(text: str, cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    """A Python program of its own in that folder."""
    path = cwd / "program.py"
    path.write_text(textwrap.dedent(text))
    command = [sys.executable, "-u", str(path), *arguments]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def lines_of(text: str, cwd: Path) -> list[str]:
    """What such a program prints; fails unless it ends by itself with exit code 0."""
    with program(text, cwd) as running:
        out, err = running.communicate(timeout=SECONDS_MAX)
    assert running.returncode == 0, out + err
    return out.splitlines()


def test_a_trigger_is_polled_because_a_runner_exists() -> None:
    with cloaca.WorkflowBuilder("inbox"):

        @cloaca.task()
        def work(context: cloaca.Context) -> None:
            context["done"] = True

    @cloaca.trigger(workflow="inbox", poll_interval="1m", allow_concurrent=True)
    def before() -> bool:
        return True

    with Runner() as runner:

        @cloaca.trigger(workflow="inbox", poll_interval="2m", allow_concurrent=True)
        def after() -> bool:
            return True

        runner.run_until_idle()
        runner.advance("59s")
        assert (runner.polls("before"), runner.polls("after")) == (0, 0)
        runner.advance("1h")
        assert (runner.polls("before"), runner.polls("after")) == (60, 30)
        assert len(runner.fired("inbox")) == 90


def test_two_runners_each_poll_into_their_own_store() -> None:
    @cloaca.trigger(poll_interval="1m")
    def quiet() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip("nothing")

    with Runner() as one, Runner() as other:
        one.advance("3m")
        other.advance("5m")
        assert (one.polls("quiet"), other.polls("quiet")) == (3, 5)


def test_a_blocking_and_a_raising_body_delay_no_other_trigger() -> None:
    release, enough = threading.Event(), threading.Event()
    counts = dict.fromkeys(range(20), 0)

    def quick(number: int) -> cloaca.TriggerResult:
        counts[number] += 1
        if min(counts.values()) >= 5:
            enough.set()
        return cloaca.TriggerResult.skip()

    @cloaca.trigger(poll_interval="10ms")
    def blocking() -> cloaca.TriggerResult:
        release.wait(SECONDS_MAX)
        return cloaca.TriggerResult.skip()

    @cloaca.trigger(poll_interval="10ms")
    def raising() -> cloaca.TriggerResult:
        raise OSError("gone")

    for number in counts:
        cloaca.trigger(name=f"quick-{number}", poll_interval="10ms")(lambda number=number: quick(number))
    with cloaca.DefaultRunner(":memory:") as runner:
        try:
            assert enough.wait(SECONDS_MAX), counts
            assert "being polled since" in runner.why("blocking")
            assert "OSError: gone" in runner.why("raising")
        finally:
            release.set()


def test_an_unknown_workflow_is_logged_with_those_that_exist(caplog: pytest.LogCaptureFixture) -> None:
    with cloaca.WorkflowBuilder("known"):

        @cloaca.task()
        def work(context: cloaca.Context) -> None: ...

    @cloaca.trigger(workflow="unknown", poll_interval="1m")
    def lost() -> bool:
        return True

    with Runner() as runner, caplog.at_level(logging.ERROR, "cloaca"):
        runner.advance("1m")
        assert runner.polls("lost") == 1
        assert runner.list_runs() == []
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "unknown workflow 'unknown'; did you mean 'known'? known workflows: known" in text


def test_equal_contexts_of_one_trigger_run_once_at_a_time_under_eight_threads() -> None:
    started, release = threading.Event(), threading.Event()

    with cloaca.WorkflowBuilder("slow"):

        @cloaca.task()
        def wait(context: cloaca.Context) -> None:
            started.set()
            release.wait(SECONDS_MAX)

    @cloaca.trigger(workflow="slow", poll_interval="1h")
    def same() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({"b": [1], "a": 2})

    with cloaca.DefaultRunner(":memory:") as runner:
        threads = [threading.Thread(target=runner.tick, args=("same",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert started.wait(SECONDS_MAX)
        assert len(runner.list_runs()) == 1
        stats = runner.stats()
        assert (stats["fires"], stats["deduplicated"]) == (8, 7)
        assert "deduplicated" in runner.why("same")
        release.set()


def test_sixteen_threads_execute_side_by_side() -> None:
    with cloaca.WorkflowBuilder("double"):

        @cloaca.task()
        def double(context: cloaca.Context) -> None:
            context["n"] *= 2

    results: dict[int, int] = {}

    def work(runner: cloaca.DefaultRunner, thread: int) -> None:
        for number in range(thread * 100, thread * 100 + 20):
            results[number] = runner.execute("double", {"n": number}).final_context["n"]

    with cloaca.DefaultRunner(":memory:") as runner:
        threads = [threading.Thread(target=work, args=(runner, thread)) for thread in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 320
    assert all(result == 2 * number for number, result in results.items())


def test_callbacks_stand_between_their_task_and_its_dependents_every_time() -> None:
    seen: list[str] = []

    def done(task_id: str, context: cloaca.Context) -> None:
        seen.append(f"success {task_id}")

    with cloaca.WorkflowBuilder("chain"):

        @cloaca.task(on_success=done)
        def first(context: cloaca.Context) -> None:
            seen.append("first")

        @cloaca.task(dependencies=[first], on_success=done)
        def second(context: cloaca.Context) -> None:
            seen.append("second")

    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(200):
            runner.execute("chain")
    assert seen == ["first", "success first", "second", "success second"] * 200


RESUMED = """
    import sys, threading
    import cloaca

    with cloaca.WorkflowBuilder("steps"):

        @cloaca.task()
        def first(context):
            print("first", flush=True)

        @cloaca.task(dependencies=[first])
        def second(context, handle):
            print("second", handle.attempt, flush=True)
            if handle.attempt == 1:
                threading.Event().wait()

    with cloaca.DefaultRunner("runs.db") as runner:
        if sys.argv[1] == "start":
            runner.execute("steps")
        (run,) = runner.list_runs()
        while runner.get_run(run["id"])["status"] != "Completed":
            pass
        print("completed", flush=True)
"""


def test_a_run_cut_off_by_sigkill_is_resumed_without_repeating_what_was_committed(tmp_path: Path) -> None:
    with program(RESUMED, tmp_path, "start") as running:
        assert running.stdout is not None
        assert [running.stdout.readline() for _ in range(2)] == ["first\n", "second 1\n"]
        running.kill()
    with program(RESUMED, tmp_path, "resume") as running:
        out, err = running.communicate(timeout=SECONDS_MAX)
    assert out.splitlines() == ["second 2", "completed"], err


def test_a_switched_off_trigger_stays_so_across_a_restart(tmp_path: Path) -> None:
    @cloaca.trigger(poll_interval="1h", name="sleepy")
    def sleepy() -> bool:
        return False

    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        runner.set_trigger_enabled("sleepy", False)
    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        schedule = runner.get_trigger_schedule("sleepy")
        assert schedule is not None
        assert schedule["enabled"] is False
        assert "set_trigger_enabled switched it off" in runner.why("sleepy")


def test_ctrl_c_leaves_execute_with_a_keyboard_interrupt(tmp_path: Path) -> None:
    text = """
        import threading, os
        import cloaca

        with cloaca.WorkflowBuilder("hang"):

            @cloaca.task()
            def hang(context):
                print("in", flush=True)
                threading.Event().wait()

        runner = cloaca.DefaultRunner(":memory:")
        try:
            runner.execute("hang")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            os._exit(0)
    """
    with program(text, tmp_path) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "in\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=SECONDS_MAX)
    assert out == "interrupted\n", err


def test_a_runner_that_nobody_shut_down_does_not_keep_the_interpreter(tmp_path: Path) -> None:
    text = """
        import cloaca

        with cloaca.WorkflowBuilder("add"):

            @cloaca.task()
            def add(context):
                context["sum"] = context["a"] + context["b"]

        @cloaca.trigger(poll_interval="1ms")
        def busy():
            return cloaca.TriggerResult.skip()

        runner = cloaca.DefaultRunner("runs.db")
        print(runner.execute("add", {"a": 1, "b": 2}).final_context["sum"])
    """
    assert lines_of(text, tmp_path) == ["3"]


def test_a_forked_child_gets_a_clear_error_and_the_parent_goes_on(tmp_path: Path) -> None:
    text = """
        import os
        import cloaca

        with cloaca.WorkflowBuilder("noop"):

            @cloaca.task()
            def noop(context): ...

        with cloaca.DefaultRunner("runs.db") as runner:
            child = os.fork()
            if child == 0:
                try:
                    runner.execute("noop")
                except RuntimeError as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(runner.execute("noop").status)
    """
    refusal, status = lines_of(text, tmp_path)
    assert "made before a fork" in refusal
    assert status == "Completed"


def test_sqlite3_is_kept_away_from_a_live_file(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(str(path)) as runner:
        for spelled in (str(path), os.fspath(path).encode(), path.as_uri()):
            with pytest.raises(RuntimeError, match=r"runner\.query"):
                sqlite3.connect(spelled, uri=isinstance(spelled, str) and spelled.startswith("file:"))
        runner.export(tmp_path / "copy.db")
        with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with closing(sqlite3.connect(path)) as after:
        assert after.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_of_a_newer_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    path = tmp_path / "runs.db"
    cloaca.DefaultRunner(str(path)).shutdown()
    with closing(sqlite3.connect(path)) as outside:
        outside.execute("PRAGMA user_version = 7")
    with pytest.raises(RuntimeError, match=r"version 7.*up to 2"):
        cloaca.DefaultRunner(str(path))
    with closing(sqlite3.connect(path)) as outside:
        assert outside.execute("PRAGMA user_version").fetchone() == (7,)


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_executed_is_in_the_file_when_execute_returns(tmp_path: Path, durability: str) -> None:
    text = f"""
        import os
        import cloaca

        with cloaca.WorkflowBuilder("noop"):

            @cloaca.task()
            def noop(context): ...

        runner = cloaca.DefaultRunner("runs.db?durability={durability}")
        runner.execute("noop", {{"kept": 1}})
        os._exit(0)
    """
    assert lines_of(text, tmp_path) == []
    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        (run,) = runner.list_runs()
        assert (run["status"], run["context"]) == ("Completed", {"kept": 1})
