"""`DefaultRunner`: what `execute` gives, what the settings do, and its life as a context manager."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flow import WAIT, boom, declare
from program import eventually, run_program

import cloaca
import cloaca.testing


def test_execute_returns_the_final_context_when_the_run_is_final(runner: cloaca.DefaultRunner) -> None:
    declare("greet", lambda context: context.set("greeting", f"hello {context['name']}"))
    result = runner.execute("greet", {"name": "Ada"})
    assert result.status == "Completed"
    assert result.final_context == {"name": "Ada", "greeting": "hello Ada"}
    assert isinstance(result.final_context, cloaca.Context)
    assert result.error_message is None
    assert repr(result) == "WorkflowResult(status=Completed, error=None)"


def test_the_times_of_a_result_are_rfc_3339_in_utc_and_in_order(runner: cloaca.DefaultRunner) -> None:
    declare("timed", lambda context: None)
    result = runner.execute("timed", {})
    assert result.end_time is not None
    start, end = datetime.fromisoformat(result.start_time), datetime.fromisoformat(result.end_time)
    assert start.utcoffset() == end.utcoffset() == timedelta(0)
    assert start <= end
    assert abs(datetime.now(UTC) - end) < timedelta(seconds=WAIT)


def test_execute_takes_a_context_a_dict_or_nothing(runner: cloaca.DefaultRunner) -> None:
    declare("echo", lambda context: None)
    assert runner.execute("echo", cloaca.Context({"a": 1})).final_context == {"a": 1}
    assert runner.execute("echo", {"a": 1}).final_context == {"a": 1}
    assert runner.execute("echo").final_context == {}
    assert runner.execute("echo", None).final_context == {}


def test_values_of_every_kind_survive_a_run(runner: cloaca.DefaultRunner) -> None:
    declare("echo", lambda context: None)
    values = {
        "none": None,
        "true": True,
        "int": 2**200,
        "negative": -(2**63) - 1,
        "float": 0.1,
        "tiny": 5e-324,
        "whole float": 1.0,
        "text": "näh \U0001f980 \u2028 \x00 \x7f",
        "": {"nested": [[], {}, [None, [1.5]]]},
        "tuple": (1, 2),
    }
    final = runner.execute("echo", values).final_context
    assert final == {**values, "tuple": [1, 2]}
    assert list(final) == list(values)
    assert type(final["whole float"]) is float
    assert final["true"] is True


def test_a_run_does_not_change_the_dict_that_it_was_given(runner: cloaca.DefaultRunner) -> None:
    declare("append", lambda context: context["list"].append(1))
    given: dict[str, list[int]] = {"list": []}
    assert runner.execute("append", given).final_context == {"list": [1]}
    assert given == {"list": []}


def test_a_failing_task_is_no_exception_but_a_failed_result(runner: cloaca.DefaultRunner) -> None:
    declare("bad", boom)
    result = runner.execute("bad", {"kept": 1})
    assert result.status == "Failed"
    assert result.error_message is not None
    assert "'only'" in result.error_message
    assert "ValueError: boom" in result.error_message
    assert result.final_context["kept"] == 1
    assert repr(result).startswith("WorkflowResult(status=Failed, error=")


def test_an_unknown_workflow_is_told_with_those_that_exist(runner: cloaca.DefaultRunner) -> None:
    declare("alpha", lambda context: None)
    declare("beta", lambda context: None)
    with pytest.raises(ValueError, match=r"'gamma'.*alpha, beta"):
        runner.execute("gamma", {})


def test_an_unknown_workflow_is_told_when_there_is_none_at_all(runner: cloaca.DefaultRunner) -> None:
    with pytest.raises(ValueError, match="'gamma'"):
        runner.execute("gamma", {})


def test_a_workflow_declared_after_the_runner_runs(runner: cloaca.DefaultRunner) -> None:
    declare("late", lambda context: context.set("ran", 1))
    assert runner.execute("late", {}).final_context == {"ran": 1}
    declare("late", lambda context: context.set("ran", 2))
    assert runner.execute("late", {}).final_context == {"ran": 2}


def test_a_run_in_flight_keeps_the_workflow_that_it_started_with(runner: cloaca.DefaultRunner) -> None:
    begun, go = threading.Event(), threading.Event()

    def first(context: cloaca.Context) -> None:
        begun.set()
        go.wait(WAIT)

    with cloaca.WorkflowBuilder("changing"):
        cloaca.task(id="first")(first)
        cloaca.task(id="second", dependencies=["first"])(lambda context: context.set("version", 1))
    run = runner.submit("changing")
    assert begun.wait(WAIT)
    with cloaca.WorkflowBuilder("changing"):
        cloaca.task(id="first")(lambda context: None)
        cloaca.task(id="second", dependencies=["first"])(lambda context: context.set("version", 2))
    go.set()
    assert run.result(WAIT).final_context == {"version": 1}
    assert runner.execute("changing").final_context == {"version": 2}


def test_a_workflow_of_a_constructor_runs(runner: cloaca.DefaultRunner) -> None:
    def construct() -> cloaca.Workflow:
        builder = cloaca.WorkflowBuilder("built")
        with builder:
            cloaca.task(id="only")(lambda context: context.set("ran", True))
        return builder.build()

    cloaca.register_workflow_constructor("built", construct)
    assert runner.execute("built", {}).final_context == {"ran": True}


def test_leaving_the_with_block_shuts_the_runner_down() -> None:
    declare("fine", lambda context: None)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert "open" in repr(runner)
    assert "shut down" in repr(runner)
    with pytest.raises(RuntimeError, match="shut down"):
        runner.execute("fine", {})


def test_an_exception_in_the_with_block_comes_out_unchanged() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, cloaca.DefaultRunner(":memory:"):
        raise error
    assert caught.value is error


def test_a_runner_can_be_used_with_asyncio() -> None:
    declare("double", lambda context: context.set("n", context["n"] * 2))

    async def main() -> list[int]:
        async with cloaca.DefaultRunner(":memory:") as runner:
            results = await asyncio.gather(*(runner.execute_async("double", {"n": n}) for n in range(20)))
        with pytest.raises(RuntimeError, match="shut down"):
            await runner.execute_async("double", {"n": 1})
        return [result.final_context["n"] for result in results]

    assert asyncio.run(main()) == [n * 2 for n in range(20)]


def test_execute_async_does_not_block_the_event_loop(runner: cloaca.DefaultRunner) -> None:
    go = threading.Event()
    declare("waits", lambda context: context.set("went", go.wait(WAIT)))

    async def main() -> cloaca.WorkflowResult:
        run = asyncio.create_task(runner.execute_async("waits"))
        await asyncio.sleep(0)
        go.set()
        return await run

    assert asyncio.run(main()).final_context == {"went": True}


def test_a_task_may_use_the_runner_that_runs_it(runner: cloaca.DefaultRunner) -> None:
    declare("inner", lambda context: context.set("inner", 1))
    declare("outer", lambda context: context.set("seen", dict(runner.execute("inner").final_context)))
    assert runner.execute("outer").final_context == {"seen": {"inner": 1}}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, StopIteration])
def test_whatever_a_task_raises_fails_its_run_and_not_the_runner(
    runner: cloaca.DefaultRunner, error: type[BaseException]
) -> None:
    def body(context: cloaca.Context) -> None:
        raise error("out")

    declare("raises", body)
    declare("fine", lambda context: None)
    result = runner.execute("raises")
    assert result.status == "Failed"
    assert result.error_message is not None
    assert error.__name__ in result.error_message
    assert runner.execute("fine").status == "Completed"


def config(**fields: object) -> cloaca.DefaultRunnerConfig:
    return cloaca.DefaultRunnerConfig(**fields)  # type: ignore[arg-type]


def test_without_a_config_four_tasks_run_at_once() -> None:
    assert cloaca.DefaultRunnerConfig.default().max_concurrent_tasks == 4
    barrier = threading.Barrier(4)
    declare("meets", lambda context: context.set("met", barrier.wait(WAIT) >= 0))
    with cloaca.DefaultRunner(":memory:") as runner:
        runs = [runner.submit("meets") for _ in range(4)]
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 4


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_than_max_concurrent_tasks_run_at_once(most: int) -> None:
    lock = threading.Lock()
    running, seen = 0, []
    full, go = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        nonlocal running
        with lock:
            running += 1
            seen.append(running)
            if running == most:
                full.set()
        go.wait(WAIT)
        with lock:
            running -= 1

    declare("counted", body)
    with cloaca.DefaultRunner.with_config(":memory:", config(max_concurrent_tasks=most)) as runner:
        runs = [runner.submit("counted") for _ in range(12)]
        assert full.wait(WAIT)
        assert sum(runner.get_run(run.id)["status"] == "Running" for run in runs) >= most  # type: ignore[index]
        go.set()
        assert {run.result(WAIT).status for run in runs} == {"Completed"}
    assert max(seen) == most
    assert len(seen) == 12


def test_a_task_beyond_task_timeout_seconds_fails_and_its_late_return_is_ignored() -> None:
    go, left = threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        go.wait(WAIT)
        context["late"] = True
        left.set()

    declare("slow", body)
    with cloaca.DefaultRunner.with_config(
        ":memory:", config(task_timeout_seconds=0.1, timeout_grace_seconds=0.1)
    ) as runner:
        result = runner.execute("slow", {})
        assert result.status == "Failed"
        assert result.error_message is not None
        assert "'only'" in result.error_message
        assert "timed out" in result.error_message
        go.set()
        assert left.wait(WAIT)
        (row,) = runner.list_runs(workflow="slow")
        assert row["status"] == "Failed"
        assert runner.get_run(row["id"])["final_context"] == {}  # type: ignore[index]


def test_bodies_that_hang_beyond_their_time_out_do_not_hold_their_slots_for_ever() -> None:
    go = threading.Event()
    declare("hangs", lambda context: go.wait(WAIT) and None)
    declare("fine", lambda context: None)
    settings = config(task_timeout_seconds=0.1, timeout_grace_seconds=0, max_concurrent_tasks=2)
    with cloaca.DefaultRunner.with_config(":memory:", settings) as runner:
        try:
            hanging = [runner.submit("hangs") for _ in range(4)]
            assert [run.result(5).status for run in hanging] == ["Failed"] * 4
            assert runner.submit("fine").result(5).status == "Completed"
        finally:
            go.set()


def test_a_time_out_is_tried_again_and_counts_as_transient() -> None:
    attempts = []
    go = threading.Event()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        attempts.append(1)
        while len(attempts) == 1 and not handle.cancelled:
            go.wait(0.01)

    declare("slow", body, retry_attempts=2, retry_delay_ms=0, retry_condition="transient")
    with cloaca.DefaultRunner.with_config(":memory:", config(task_timeout_seconds=0.1)) as runner:
        assert runner.execute("slow").status == "Completed"
        go.set()
    assert len(attempts) == 2


def test_a_run_beyond_workflow_timeout_seconds_fails_and_starts_no_further_task() -> None:
    go = threading.Event()
    ran = []
    with cloaca.WorkflowBuilder("long"):
        cloaca.task(id="first")(lambda context: go.wait(WAIT) and None)
        cloaca.task(id="second", dependencies=["first"])(lambda context: ran.append(1))
    with cloaca.DefaultRunner.with_config(
        ":memory:", config(workflow_timeout_seconds=0.1, timeout_grace_seconds=0.1)
    ) as runner:
        result = runner.execute("long")
        go.set()
        assert result.status == "Failed"
        assert result.error_message is not None
        assert "timed out" in result.error_message
    assert ran == []


def test_the_time_of_a_run_begins_with_its_first_task_and_not_while_it_waits_for_a_slot() -> None:
    declare("short", lambda context: threading.Event().wait(0.2) or None)
    settings = config(max_concurrent_tasks=1, workflow_timeout_seconds=1.5)
    with cloaca.DefaultRunner.with_config(":memory:", settings) as runner:
        # Together they take longer than one may.
        runs = runner.submit_many("short", [{"number": number} for number in range(12)])
        assert {run.result(WAIT).status for run in runs} == {"Completed"}


def test_a_run_within_its_time_outs_completes() -> None:
    declare("quick", lambda context: None)
    settings = config(task_timeout_seconds=60, workflow_timeout_seconds=60)
    with cloaca.DefaultRunner.with_config(":memory:", settings) as runner:
        assert runner.execute("quick").status == "Completed"


DIES = """
    import os, sys
    import cloaca

    with cloaca.WorkflowBuilder("resumed"):
        cloaca.task(id="first")(lambda context: context.set("first", os.getpid()))

        @cloaca.task(id="second", dependencies=["first"])
        def second(context):
            os._exit(9)

    cloaca.DefaultRunner(sys.argv[1]).execute("resumed", {"given": 1})
"""


def declare_resumed() -> None:
    with cloaca.WorkflowBuilder("resumed"):
        cloaca.task(id="first")(lambda context: context.set("first", os.getpid()))
        cloaca.task(id="second", dependencies=["first"])(lambda context: context.set("second", os.getpid()))


def test_with_recovery_the_next_runner_ends_the_run_of_one_that_died(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    assert run_program(DIES, url).returncode == 9
    declare_resumed()
    with cloaca.DefaultRunner(url) as runner:
        assert eventually(lambda: runner.list_runs()[0]["completed_at"])
        (row,) = runner.list_runs()
        found = runner.get_run(row["id"])
    assert found is not None
    assert found["status"] == "Completed"
    assert found["final_context"]["second"] == os.getpid()
    assert found["final_context"]["first"] != os.getpid(), "a task whose success was committed ran again"
    assert {task["id"]: task["attempts"] for task in found["tasks"]} == {"first": 1, "second": 2}


def test_without_recovery_the_run_of_one_that_died_is_left_alone(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    assert run_program(DIES, url).returncode == 9
    declare_resumed()
    with cloaca.DefaultRunner.with_config(url, config(enable_recovery=False)) as runner:
        assert runner.execute("resumed").status == "Completed"
        newest, left = runner.list_runs()
        assert newest["status"] == "Completed"
        assert left["completed_at"] is None
    with cloaca.DefaultRunner(url) as runner:
        assert eventually(lambda: runner.list_runs()[1]["status"] == "Completed")


def test_without_cron_scheduling_no_cron_runs() -> None:
    declare("fine", lambda context: None)
    for enabled, expected in ((True, 10), (False, 0)):
        with cloaca.testing.Runner(config=config(enable_cron_scheduling=enabled)) as runner:
            runner.register_cron_workflow("fine", "* * * * * *", "UTC")
            runner.advance("10s")
            assert len(runner.list_runs()) == expected


def test_fields_without_a_use_are_kept_and_change_nothing() -> None:
    declare("fine", lambda context: None)
    settings = config(scheduler_poll_interval_ms=60_000, db_pool_size=1)
    assert settings.to_dict()["scheduler_poll_interval_ms"] == 60_000
    with cloaca.DefaultRunner.with_config(":memory:", settings) as runner:
        assert runner.execute("fine").status == "Completed"


def test_a_config_changed_later_does_not_change_the_runner() -> None:
    barrier = threading.Barrier(2)
    declare("meets", lambda context: context.set("met", barrier.wait(WAIT) >= 0))
    settings = config(max_concurrent_tasks=2)
    with cloaca.DefaultRunner.with_config(":memory:", settings) as runner:
        settings.max_concurrent_tasks = 1
        runs = [runner.submit("meets") for _ in range(2)]
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 2


def test_a_subclass_is_a_runner_too() -> None:
    class Mine(cloaca.DefaultRunner):
        pass

    declare("fine", lambda context: None)
    with Mine.with_config(":memory:", config()) as runner:
        assert type(runner) is Mine
        assert runner.execute("fine").status == "Completed"


def test_two_runners_of_one_process_keep_apart() -> None:
    declare("fine", lambda context: None)
    with cloaca.DefaultRunner(":memory:") as one, cloaca.DefaultRunner(":memory:") as two:
        one.execute("fine")
        assert [len(runner.list_runs()) for runner in (one, two)] == [1, 0]
        one.shutdown()
        assert two.execute("fine").status == "Completed"


def test_the_library_prints_nothing_and_logs_below_its_own_name(tmp_path: Path) -> None:
    done = run_program(
        """
        import logging, sys
        import cloaca

        names = []

        class Keep(logging.Handler):
            def emit(self, record):
                names.append(record.name)

        logging.getLogger().addHandler(Keep())
        with cloaca.WorkflowBuilder("bad"):
            @cloaca.task(retry_attempts=1, on_failure=lambda *_: 1 / 0)
            def only(context):
                raise ValueError("boom")

        @cloaca.trigger(workflow="nope", poll_interval="24h")
        def fires():
            return True

        with cloaca.DefaultRunner(sys.argv[1]) as runner:
            runner.execute("bad")
            runner.tick("fires")
        assert names
        assert all(name.split(".")[0] == "cloaca" for name in names), names
        assert "cloaca.callback" in names
        """,
        tmp_path / "a.db",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
