"""`executors=` and `@task(executor=...)`: where bodies run, what travels, what happens when a place dies."""

from __future__ import annotations

import asyncio
import functools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import executor_bodies as bodies
import pytest
from process_bodies import WAIT, is_gone, lives, read_pids
from program import beside_tests, eventually

import cloaca
import cloaca.testing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no signals")
SOON: dict[str, Any] = {"retry_delay_ms": 1, "retry_jitter": False}


@pytest.fixture(scope="module")
def shared() -> Iterator[cloaca.ProcessExecutor]:
    with cloaca.ProcessExecutor(max_workers=2, kill_grace=0.2) as pool:
        yield pool


@pytest.fixture
def runner(shared: cloaca.ProcessExecutor) -> Iterator[cloaca.DefaultRunner]:
    with cloaca.DefaultRunner(":memory:", executors={"cpu": shared}, max_concurrent_tasks=1) as runner:
        yield runner


def declare(*functions: Callable[..., Any], name: str = "w", **keywords: Any) -> None:
    """A workflow of such tasks side by side."""
    with cloaca.WorkflowBuilder(name):
        for number, function in enumerate(functions):
            cloaca.task(**{"executor": "cpu", "id": f"t{number}", **keywords})(function)


def task_of(runner: cloaca.DefaultRunner, run_id: str) -> dict[str, Any]:
    found = runner.get_run(run_id)
    assert found is not None
    return dict(found["tasks"][0])


def ended(runner: cloaca.DefaultRunner, context: dict[str, Any] | None = None) -> dict[str, Any]:
    """The task of a run that is over."""
    run = runner.submit("w", context or {})
    run.result(WAIT)
    return task_of(runner, run.id)


# What travels


def test_a_body_runs_elsewhere_and_its_context_goes_on_here(runner: cloaca.DefaultRunner) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(executor="cpu")(bodies.where)

        @cloaca.task(dependencies=["where"])
        def here(context: cloaca.Context) -> dict[str, Any]:
            return {**context.to_dict(), "here": os.getpid()}

    result = runner.execute("w", {"ß": [1, 2.5, None, 2**70]}, check=True)
    left = result.final_context
    assert left["ß"] == [1, 2.5, None, 2**70]
    assert left["here"] == os.getpid() != left["pid"]


@pytest.mark.parametrize("body", [bodies.silent, bodies.shouted, bodies.Holder.static, bodies.awaits])
def test_what_a_module_has_by_name_can_run(runner: cloaca.DefaultRunner, body: Callable[..., Any]) -> None:
    declare(body)
    left = runner.execute("w", {}, check=True).final_context
    assert left.keys() & {"seen", "shouted", "static", "pid"}
    assert left.get("pid") != os.getpid()


def test_a_handle_knows_ids_and_names_the_way_for_the_rest(runner: cloaca.DefaultRunner) -> None:
    declare(bodies.handled)
    run = runner.submit("w", {})
    told = run.result(WAIT).final_context
    assert told["run"] == run.id
    assert (told["task"], told["attempt"], told["checkpointed"], told["holds"]) == ("t0", 1, None, True)
    assert told["current"] == [run.id, "t0", 1, "w"]
    assert "hand on in its context" in told["trigger"]
    assert "killed there" in told["is_current"]
    assert "not in this process" in told["its runner"]
    assert "not in this process" in told["the handle's runner"]
    assert "split it into tasks" in told["checkpoint"]
    assert "RetryAfter" in told["defer_until"]
    assert "__main__" in told["runner"]


@pytest.mark.parametrize(("error", "kind"), [("value", "ValueError"), ("exit", "SystemExit")])
def test_an_error_comes_back_as_class_text_and_traceback(
    runner: cloaca.DefaultRunner, error: str, kind: str
) -> None:
    declare(bodies.fails, retry_attempts=2, **SOON)
    task = ended(runner, {"error": error})
    assert (task["status"], task["attempts"], task["error_type"]) == ("Failed", 2, kind)
    assert task["error"] == f"{kind}: of it"
    assert [each["outcome"] for each in task["tries"]] == ["Failed", "Failed"]
    trace = task["tries"][0]["traceback"]
    assert "in fails" in trace
    assert "cloaca/bodies" not in trace


def test_which_errors_are_tried_again_is_decided_by_what_was_raised_there(
    runner: cloaca.DefaultRunner,
) -> None:
    declare(bodies.fails, retry_attempts=3, retry_condition="transient", **SOON)
    assert ended(runner, {"error": "connection"})["attempts"] == 3
    assert ended(runner, {"error": "value"})["attempts"] == 1


def test_a_body_may_ask_to_be_called_later(runner: cloaca.DefaultRunner) -> None:
    declare(bodies.asks_later, retry_attempts=1)
    assert runner.execute("w", {}, check=True).final_context["attempt"] == 2


def test_a_return_value_that_is_none_is_told(runner: cloaca.DefaultRunner) -> None:
    declare(bodies.returns_number, retry_attempts=1)
    assert "returned int" in ended(runner)["error"]


def test_ten_megabytes_travel_and_what_is_too_large_fails(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.silent, retry_attempts=1)
    text = "é" * 5_000_000
    with cloaca.DefaultRunner(":memory:", executors={"cpu": shared}) as runner:
        assert runner.execute("w", {"text": text}, check=True).final_context["text"] == text
    with cloaca.DefaultRunner(":memory:", executors={"cpu": shared}, context_bytes_max=100) as runner:
        assert "at most 100 fit" in ended(runner, {"text": "x" * 88})["error"]


def test_what_a_body_found_out_is_hidden_as_if_it_had_run_here(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.leaks, retry_attempts=1)
    with cloaca.DefaultRunner(":memory:", executors={"cpu": shared}, redact=["password"]) as runner:
        task = ended(runner)
    assert task["error"].startswith("ValueError: no entry with ")
    assert "hunter22" not in str(task)


def test_callbacks_are_called_here(runner: cloaca.DefaultRunner) -> None:
    told: list[tuple[Any, ...]] = []

    def on_success(task_id: str, context: cloaca.Context) -> None:
        told.append((task_id, context["pid"] != os.getpid(), os.getpid()))

    def on_failure(task_id: str, error: str, context: cloaca.Context) -> None:
        told.append((task_id, error, context["error"]))

    declare(bodies.where, on_success=on_success)
    runner.execute("w", {}, check=True)
    declare(bodies.fails, on_failure=on_failure, retry_attempts=1)
    runner.execute("w", {"error": "value"})
    assert told == [("t0", True, os.getpid()), ("t0", "ValueError: of it", "value")]


def test_an_executor_has_permits_of_its_own(tmp_path: Path, runner: cloaca.DefaultRunner) -> None:
    # `max_concurrent_tasks` is 1.
    declare(bodies.meets, bodies.meets)
    runner.execute("w", {"folder": str(tmp_path)}, check=True)


def test_why_run_names_the_executor_that_has_no_place(tmp_path: Path) -> None:
    declare(bodies.dawdles)
    executors = {"cpu": cloaca.ProcessExecutor(max_workers=1, kill_grace=0.2)}
    with cloaca.DefaultRunner(":memory:", executors=executors) as runner:
        runner.submit("w", {"folder": str(tmp_path)})
        read_pids(tmp_path, 1)
        waiting = runner.submit("w", {"folder": str(tmp_path), "second": True})
        assert eventually(lambda: "waits for a place in executor 'cpu' for attempt 1" in waiting.why())
        runner.shutdown(0.05)


# What cannot travel


def test_what_nobody_finds_by_name_is_refused_where_it_is_declared() -> None:
    def nested(context: cloaca.Context) -> None:
        """Nobody else can look in here."""

    for function, why in (
        (lambda context: None, "a lambda has none"),
        (nested, "nested is defined within test_what_nobody_finds"),
        (bodies.Holder().method, "a method of a Holder"),
        (bodies.Holder(), "has none"),
        (functools.partial(bodies.where), "has none"),
    ):
        with (
            pytest.raises(cloaca.WorkflowError, match=why) as raised,
            cloaca.WorkflowBuilder("w"),
        ):
            cloaca.task(id="t", executor="cpu")(function)  # type: ignore[arg-type]
        assert 'executor "cpu"' in str(raised.value)
        assert "leave executor out" in str(raised.value)
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", executor="thread")(lambda context: None)


def test_an_async_body_on_a_thread_is_refused_with_the_way_out() -> None:
    with (
        pytest.raises(
            cloaca.WorkflowError, match="an async def, which runs on the event loop; leave executor"
        ),
        cloaca.WorkflowBuilder("w"),
    ):
        cloaca.task(id="t", executor="thread")(bodies.awaits)


def test_a_plain_body_may_be_called_on_the_loop() -> None:
    loops: list[object] = []
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", executor="loop")(lambda context: loops.append(asyncio.get_running_loop()))
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.execute("w", check=True)
    assert len(loops) == 1


def test_a_function_that_was_replaced_fails_its_attempt(
    runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(bodies.where, retry_attempts=1)
    monkeypatch.setattr(bodies, "where", None)
    task = ended(runner)
    assert task["error_type"] == "WorkflowError"
    assert "executor_bodies:where, which is None" in task["error"]


def test_a_runner_without_the_executor_refuses_the_workflow(shared: cloaca.ProcessExecutor) -> None:
    with cloaca.WorkflowBuilder("other"):
        cloaca.task(id="t")(lambda context: None)
    declare(bodies.where)
    with pytest.raises(cloaca.WorkflowError, match='"cpu", which this runner does not have; did you mean'):
        cloaca.DefaultRunner(":memory:", executors={"cpus": shared})
    with cloaca.DefaultRunner(":memory:", workflows=["other"]) as runner:
        assert runner.execute("other").status == "Completed"


@pytest.mark.parametrize(
    ("executors", "kind", "text"),
    [
        ([], TypeError, "executors is"),
        ({1: ThreadPoolExecutor}, ValueError, "a name of executors is 1"),
        ({"": ThreadPoolExecutor}, ValueError, "must not be empty"),
        ({"thread": ThreadPoolExecutor}, ValueError, "every runner has by itself"),
        ({"cpu": None}, TypeError, r'executors\["cpu"\] is None'),
        ({"cpu": lambda: 7}, TypeError, r'executors\["cpu"\] made 7'),
        (
            {"dask": SimpleNamespace(get_executor=None)},
            TypeError,
            r"of a Dask client, client.get_executor\(\)",
        ),
    ],
)
def test_bad_executors_are_named(executors: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        cloaca.DefaultRunner(":memory:", executors=executors)


def test_a_factory_that_raises_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    def factory() -> Executor:
        raise ConnectionError("no scheduler")

    made: list[ThreadPoolExecutor] = []

    def first() -> Executor:
        made.append(ThreadPoolExecutor(1))
        return made[0]

    path = tmp_path / "runs.db"
    with pytest.raises(cloaca.RunnerError, match=r'executors\["dask"\] raised ConnectionError: no scheduler'):
        cloaca.DefaultRunner(path, executors={"a": first, "dask": factory})
    assert not path.exists()
    with pytest.raises(RuntimeError, match="shutdown"):
        made[0].submit(int)


# Places that die


def test_a_death_of_the_place_is_an_interruption_and_uses_up_no_attempt(
    runner: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    declare(bodies.dies, retry_attempts=1)
    with caplog.at_level(logging.WARNING, "cloaca.task"):
        task = ended(runner, {"deaths": 2})
    assert (task["status"], task["attempts"]) == ("Completed", 3)
    assert [each["outcome"] for each in task["tries"]] == ["Interrupted", "Interrupted", "Completed"]
    assert "exit code 3" in task["tries"][0]["error"]
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "was cut off in attempt 1: executor 'cpu' lost it" in texts[0]


def test_a_task_that_takes_its_place_with_it_again_and_again_fails(shared: cloaca.ProcessExecutor) -> None:
    told: list[str] = []
    declare(bodies.dies, on_failure=lambda task_id, error, context: told.append(error))
    with cloaca.DefaultRunner(":memory:", executors={"cpu": shared}, place_deaths_max=1) as runner:
        task = ended(runner, {"deaths": 9})
    assert (task["status"], task["attempts"], task["error_type"]) == ("Failed", 2, "Interrupted")
    assert "lost during each of 2 attempts" in task["error"]
    assert len(told) == 1


def test_a_task_that_must_not_be_cut_off_fails_at_the_first_death(runner: cloaca.DefaultRunner) -> None:
    declare(bodies.dies, on_interrupt="fail", retry_attempts=5)
    task = ended(runner, {"deaths": 9})
    assert (task["status"], task["attempts"], task["error_type"]) == ("Failed", 1, "Interrupted")
    assert 'on_interrupt is "fail"' in task["error"]


def test_a_broken_pool_is_made_anew_by_its_factory() -> None:
    made: list[ProcessPoolExecutor] = []

    def factory() -> Executor:
        made.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        return made[-1]

    declare(bodies.dies)
    with cloaca.DefaultRunner(":memory:", executors={"cpu": factory}) as runner:
        assert ended(runner, {"deaths": 1})["attempts"] == 2
        assert ended(runner, {"deaths": 0})["attempts"] == 1
    assert len(made) == 2


def test_a_broken_pool_that_nobody_can_make_anew_fails_what_comes() -> None:
    declare(bodies.dies)
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with (
        pool,
        cloaca.DefaultRunner(":memory:", executors={"cpu": pool}, place_deaths_max=1) as runner,
    ):
        assert "BrokenProcessPool" in ended(runner, {"deaths": 1})["error"]


def test_tasks_wait_while_their_pool_cannot_be_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def factory() -> Executor:
        calls.append(1)
        if 1 < len(calls) < 4:
            raise ConnectionError("not yet")
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    declare(bodies.dies)
    with (
        caplog.at_level(logging.ERROR, "cloaca.task"),
        cloaca.DefaultRunner(":memory:", executors={"cpu": factory}, place_deaths_max=1) as runner,
    ):
        task = ended(runner, {"deaths": 1})
    assert (task["status"], task["attempts"], len(calls)) == ("Completed", 2, 4)
    assert "cannot be made anew" in caplog.text


def test_threads_of_the_program_are_an_executor_too() -> None:
    declare(bodies.where)
    with ThreadPoolExecutor(1) as pool:
        with cloaca.DefaultRunner(":memory:", executors={"cpu": pool}) as runner:
            assert runner.execute("w", {}, check=True).final_context["pid"] == os.getpid()
        assert pool.submit(os.getpid).result(WAIT) == os.getpid(), "it is the program's, and goes on"


# Time-outs and cancellation


def test_a_time_out_stops_the_body_and_no_attempt_begins_beside_an_old_one(tmp_path: Path) -> None:
    declare(bodies.overlaps, retry_attempts=2, **SOON)
    executors = {"cpu": cloaca.ProcessExecutor(max_workers=2, kill_grace=0.3)}
    with cloaca.DefaultRunner(":memory:", executors=executors, task_timeout_seconds=2.0) as runner:
        task = ended(runner, {"folder": str(tmp_path)})
        pids = read_pids(tmp_path, 2)
        assert is_gone(*pids)
    assert (task["status"], task["error_type"], task["attempts"]) == ("Failed", "TimeoutError", 2)
    assert [each["outcome"] for each in task["tries"]] == ["TimedOut", "TimedOut"]
    assert not (tmp_path / "overlapped").exists()


def begun(kill_grace: float) -> cloaca.ProcessExecutor:
    """One whose process has begun already, so that all of an attempt's time is its body's."""
    pool = cloaca.ProcessExecutor(max_workers=1, kill_grace=kill_grace)
    pool.submit(bodies.where, cloaca.Context()).result(WAIT)
    return pool


def test_a_task_has_a_time_of_its_own_and_its_handle_says_that_it_is_over(tmp_path: Path) -> None:
    declare(bodies.told, retry_attempts=1, timeout="2s")
    executors = {"cpu": begun(kill_grace=WAIT)}
    with cloaca.DefaultRunner(":memory:", executors=executors) as runner:
        assert ended(runner, {"folder": str(tmp_path)})["error_type"] == "TimeoutError"
    assert (tmp_path / "said").read_text() == "[False, True]"


def test_a_body_that_nobody_can_stop_in_time_is_overdue_until_it_has_ended(tmp_path: Path) -> None:
    declare(bodies.hangs, retry_attempts=3, timeout="2s")
    executors = {"cpu": begun(kill_grace=3.0)}
    with cloaca.DefaultRunner(":memory:", executors=executors, timeout_grace_seconds=0.1) as runner:
        task = ended(runner, {"folder": str(tmp_path)})
        assert (task["status"], task["attempts"]) == ("Failed", 1)
        assert "its body still runs" in task["error"]
        assert runner.stats()["bodies_overdue"] == 1
        assert eventually(lambda: runner.stats()["bodies_overdue"] == 0)


def test_a_cancelled_run_stops_its_body(tmp_path: Path) -> None:
    declare(bodies.dawdles)
    executors = {"cpu": cloaca.ProcessExecutor(max_workers=1, kill_grace=WAIT)}
    with cloaca.DefaultRunner(":memory:", executors=executors) as runner:
        run = runner.submit("w", {"folder": str(tmp_path)})
        pids = read_pids(tmp_path, 1)
        run.cancel()
        assert run.result(WAIT).status == "Cancelled"
        assert is_gone(*pids)
        assert [tried["outcome"] for tried in task_of(runner, run.id)["tries"]] == ["Cancelled"]
    assert (tmp_path / "tidied").exists()


def test_a_run_that_is_over_its_time_stops_its_body(tmp_path: Path) -> None:
    declare(bodies.dawdles)
    pool = cloaca.ProcessExecutor(max_workers=1, kill_grace=WAIT)
    # Its process is there before the time of the run begins.
    pool.submit(os.getpid).result()
    with (
        pool,
        cloaca.DefaultRunner(":memory:", executors={"cpu": pool}, workflow_timeout_seconds=1) as runner,
    ):
        run = runner.submit("w", {"folder": str(tmp_path)})
        pids = read_pids(tmp_path, 1)
        assert run.result(WAIT).status == "Failed"
        assert is_gone(*pids)
        assert [tried["outcome"] for tried in task_of(runner, run.id)["tries"]] == ["TimedOut"]
    assert (tmp_path / "tidied").exists()


# The end of a runner


def children() -> set[int]:
    """The processes that this one has started."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid():
                found.add(int(entry.name))
    return found


@pytest.mark.parametrize("body", [bodies.resumes, bodies.dawdles, bodies.gives_up, bodies.hangs])
def test_a_shutdown_amidst_a_body_leaves_nothing_and_the_next_runner_resumes(
    tmp_path: Path, body: Callable[..., Any]
) -> None:
    before, threads = children(), threading.active_count()
    declare(body, retry_attempts=1)
    path = tmp_path / "runs.db"

    def executors() -> dict[str, Executor]:
        return {"cpu": cloaca.ProcessExecutor(max_workers=1, kill_grace=0.2)}

    first = cloaca.DefaultRunner(path, executors=executors())
    run = first.submit("w", {"folder": str(tmp_path)})
    (pid,) = read_pids(tmp_path, 1)
    first.shutdown(0.05)
    assert not lives(pid)
    assert children() <= before
    # One of them may be at its last line.
    assert eventually(lambda: threading.active_count() <= threads)
    if body is bodies.dawdles:
        assert (tmp_path / "tidied").exists()
    with cloaca.DefaultRunner(path, executors=executors()) as second:
        assert eventually(lambda: task_of(second, run.id)["attempts"] == 2)
        if body is bodies.resumes:
            assert eventually(lambda: task_of(second, run.id)["status"] == "Completed")
        second.shutdown(0.05)
    assert children() <= before


def test_a_shutdown_waits_for_a_body_that_ends_in_time(tmp_path: Path) -> None:
    declare(bodies.meets)
    runner = cloaca.DefaultRunner(":memory:", executors={"cpu": lambda: cloaca.ProcessExecutor(1)})
    run = runner.submit("w", {"folder": str(tmp_path)})
    read_pids(tmp_path, 1)
    ends = threading.Thread(target=runner.shutdown, args=(WAIT,))
    ends.start()
    (tmp_path / "0.pid").touch()
    ends.join(WAIT)
    assert run.result(0.0).status == "Completed"


def test_an_executor_that_the_program_holds_outlives_its_runner(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.where)
    for _ in range(2):
        with cloaca.DefaultRunner(":memory:", executors={"cpu": shared}) as runner:
            runner.execute("w", {}, check=True)
    assert shared.submit(os.getpid).result(WAIT) != os.getpid()


def test_a_test_runner_needs_no_processes() -> None:
    declare(bodies.where)
    with cloaca.testing.Runner() as runner:
        assert runner.execute("w", {}).final_context["pid"] == os.getpid()


# Programs


def started_program(folder: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, *(arguments or [str(path)])],
        env=beside_tests(),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SCRIPT = """
    import os
    import cloaca

    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(executor="cpu", retry_attempts=1)
        def body(context):
            return {"elsewhere": os.getpid() != context["pid"], "name": __name__}

    def main():
        executors = {"cpu": cloaca.ProcessExecutor(max_workers=1)}
        with cloaca.DefaultRunner(":memory:", executors=executors) as runner:
            result = runner.execute("w", {"pid": os.getpid()})
            print(result.status, dict(result.final_context), result.error_message, flush=True)
"""


@pytest.mark.parametrize("as_module", [False, True])
def test_a_body_of_the_program_itself_runs_by_its_path_or_its_name(tmp_path: Path, as_module: bool) -> None:
    code = textwrap.dedent(SCRIPT) + 'if __name__ == "__main__":\n    main()\n'
    with started_program(tmp_path, code, *(["-m", "program"] if as_module else [])) as started:
        shown, said = started.communicate(timeout=WAIT)
    assert shown == "Completed {'elsewhere': True, 'name': '__mp_main__'} None\n", said


def test_a_program_that_makes_its_runner_at_import_is_told_the_way_out(tmp_path: Path) -> None:
    with started_program(tmp_path, textwrap.dedent(SCRIPT) + "main()\n") as started:
        shown, _ = started.communicate(timeout=WAIT)
    assert shown.startswith("Failed")
    assert "RunnerError: a DefaultRunner is made in the process of a pool" in shown
    assert '`if __name__ == "__main__":`' in shown


def test_a_body_of_a_notebook_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with started_program(tmp_path, "", "-c", textwrap.dedent(SCRIPT)) as started:
        _, said = started.communicate(timeout=WAIT)
    assert "stands in a notebook or at a prompt" in said
    assert "move it into a module" in said


def test_a_program_that_is_killed_leaves_no_body_and_its_run_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    path = tmp_path / "runs.db"
    started = started_program(
        tmp_path,
        f"""
        import cloaca, executor_bodies
        if __name__ == "__main__":
            with cloaca.WorkflowBuilder("w"):
                cloaca.task(executor="cpu", id="t0")(executor_bodies.resumes)
            executors = {{"cpu": cloaca.ProcessExecutor(max_workers=1)}}
            with cloaca.DefaultRunner({str(path)!r}, executors=executors) as runner:
                runner.execute("w", {{"folder": {str(folder)!r}}})
        """,
    )
    with started:
        pids = read_pids(folder, 1)
        started.kill()
    assert is_gone(*pids)
    declare(bodies.resumes)
    with cloaca.DefaultRunner(path, executors={"cpu": cloaca.ProcessExecutor(max_workers=1)}) as runner:
        (row,) = runner.list_runs()
        assert eventually(lambda: task_of(runner, row["id"])["status"] == "Completed")
        assert task_of(runner, row["id"])["attempts"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_with_busy_pools_ends_a_program_within_its_bounds(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    started = started_program(
        tmp_path,
        f"""
        import cloaca, executor_bodies
        if __name__ == "__main__":
            with cloaca.WorkflowBuilder("w"):
                for number in range(4):
                    cloaca.task(executor="cpu", id=f"t{{number}}")(executor_bodies.hangs)
            executors = {{"cpu": cloaca.ProcessExecutor(max_workers=2, kill_grace=0.2)}}
            runner = cloaca.DefaultRunner({str(tmp_path / "runs.db")!r}, executors=executors)
            runner.submit("w", {{"folder": {str(folder)!r}}})
            runner.run_forever(0.1)
        """,
    )
    with started:
        pids = read_pids(folder, 2)
        started.send_signal(number)
        started.communicate(timeout=WAIT)
    assert started.returncode == 0
    assert not any(map(lives, pids))


OWN_FILE = """
from concurrent.futures import ThreadPoolExecutor

import cloaca

done = []
with cloaca.WorkflowBuilder("w"):

    @cloaca.task(executor="pool")
    def notes(context):
        done.append(__name__)


if __name__ == "__main__":
    with cloaca.DefaultRunner(":memory:", executors={"pool": ThreadPoolExecutor(1)}) as runner:
        runner.execute("w")
    print(done)
else:
    print("once more")
"""


def test_an_executor_of_the_program_s_own_process_calls_the_program_s_own_functions(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(OWN_FILE)
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "['__main__']\n"


def test_whether_a_body_is_to_end_is_known_in_another_process_too(tmp_path: Path) -> None:
    declare(bodies.asks)
    with cloaca.DefaultRunner(":memory:", executors={"cpu": begun(WAIT)}) as runner:
        assert runner.execute("w").final_context["cancelled"] is False
