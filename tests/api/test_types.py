"""The dicts that a program gets are what `cloaca.types` says of them, and what it lists is taken."""

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest

import cloaca
import cloaca.testing
from cloaca import audit, types

WAIT = 30.0


def misfits(value: object, declared: Any, path: str) -> list[str]:
    """Where a value isn't of the type declared, also in its keys."""
    if declared is Any:
        return []
    if is_typeddict(declared):
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no dict"]
        hints = get_type_hints(declared)
        extras = get_type_hints(declared, include_extras=True)
        optional = {key for key, hint in extras.items() if get_origin(hint) is NotRequired}
        missing = value.keys() ^ hints.keys() - (optional - value.keys())
        found = [f"{path}: {key} on one side only" for key in missing]
        both = value.keys() & hints.keys()
        return found + [fit for key in both for fit in misfits(value[key], hints[key], f"{path}.{key}")]
    if get_origin(declared) is list:
        assert isinstance(value, list)
        (item,) = get_args(declared)
        return [fit for at, each in enumerate(value) for fit in misfits(each, item, f"{path}[{at}]")]
    if get_origin(declared) is dict:
        return [] if isinstance(value, dict) else [f"{path}: {value!r} is no dict"]
    if get_origin(declared) is Literal:
        return [] if value in get_args(declared) else [f"{path}: {value!r} is not in {declared}"]
    if args := get_args(declared):
        each = [misfits(value, one, path) for one in args]
        return [] if any(not fits for fits in each) else each[0]
    return [] if type(value) is declared else [f"{path}: {value!r} is no {declared}"]


def test_every_dict_is_what_its_type_says() -> None:
    gate = threading.Event()
    with cloaca.WorkflowBuilder("work") as builder:

        @cloaca.task(retry_attempts=1)
        def fails(context: cloaca.Context) -> None:
            logging.getLogger("work").warning("looked at %s", context.get("n"))
            if context.get("n") == 1:
                raise ValueError("boom")

        @cloaca.task(dependencies=[fails])
        def follows(context: cloaca.Context) -> None: ...

    with cloaca.WorkflowBuilder("waits"):

        @cloaca.task()
        def waits(context: cloaca.Context) -> None:
            gate.wait(WAIT)

    with cloaca.WorkflowBuilder("calls"):

        @cloaca.task(limits=[cloaca.Limit("api", concurrency=1, throttle=cloaca.Throttle(9, per="1m"))])
        def calls(context: cloaca.Context) -> None:
            runner.execute("work")

    looked: list[types.RunSummary | None] = []

    @cloaca.trigger(workflow="work", poll_interval="1h", name="polled")
    def polled(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        looked.append(tick.last_run)
        tick.cursor = len(looked)
        return [cloaca.TriggerResult.fire({"n": len(looked)}, run_key=str(len(looked)))]

    @cloaca.trigger(workflow="work", poll_interval="1h", name="broken")
    def broken() -> bool:
        raise OSError("gone")

    @cloaca.trigger(workflow="work", cron="0 * * * *", name="hourly")
    def hourly() -> None: ...

    with cloaca.testing.Runner(config=cloaca.DefaultRunnerConfig(keep_logs="1 MiB")) as runner:
        cron = runner.register_cron_workflow("work", "*/30 * * * *")
        runner.advance("3h")
        # Before anything runs that no clock brings to its end.
        assert runner.execute("calls").status == "Completed"
        running = runner.submit("waits")
        found: list[tuple[object, Any]] = [
            (runner.tick(name, dry_run), types.TickAnswer)
            for name in ("polled", "broken", "hourly")
            for dry_run in (True, False)
        ]
        runs = runner.list_runs()
        found += [(run, types.RunRow) for run in runs]
        found += [(run, types.RunSummary) for run in runner.list_runs(contexts=False)]
        found += [(runner.get_run(run["id"]), types.RunDetails) for run in runs]
        found += [(run, types.RunSummary) for run in looked if run is not None]
        found += [(tick, types.TickRow) for name in ("polled", "broken") for tick in runner.ticks(name)]
        found += [(row, types.TriggerScheduleRow) for row in runner.list_trigger_schedules()]
        found += [(runner.get_trigger_schedule("polled"), types.TriggerScheduleRow)]
        found += [(row, types.TriggerExecutionRow) for row in runner.get_trigger_execution_history("polled")]
        found += [(row, types.CronScheduleRow) for row in runner.list_cron_schedules()]
        found += [(runner.get_cron_schedule(cron), types.CronScheduleRow)]
        found += [(row, types.CronExecutionRow) for row in runner.get_cron_execution_history(cron)]
        found += [(runner.get_cron_execution_stats("2026-01-01T00:00:00Z"), types.CronStats)]
        found += [(runner.stats(), types.Stats), (runner.health(), types.Health)]
        found += [(row, types.RunnerRow) for row in runner.list_runners()]
        found += [(row["last_hour"], types.RunnerCounts) for row in runner.list_runners()]
        runner.pause(limit="api")
        found += [(row, types.LimitRow) for row in runner.list_limits()]
        found += [(row, types.PauseRow) for row in runner.list_pauses()]
        with audit.acting("ada", "cli"):
            runner.set_cursor("polled", 7)
        found += [(row, types.LogRow) for run in runs for row in runner.logs(run["id"])]
        found += [(row, types.AuditRow) for row in runner.audit()]
        gate.set()
        assert running.result(WAIT).status == "Completed"
    kinds = {kind for _, kind in found}
    declared = {kind for kind in vars(types).values() if is_typeddict(kind)}
    inner = {
        types.TaskRow,
        types.TryRow,
        types.ChildRow,
        types.CallbackRow,
        types.LastCallbackRow,
        types.FireRow,
        types.GateRow,
        types.HealthReason,
    }
    inner.add(types.ThrottleRow)
    assert declared - kinds == inner, "which stand in others"
    assert {run["status"] for run in runs} >= {"Completed", "Failed"}
    assert builder.name in {run["workflow_name"] for run in runs}
    assert [fit for value, kind in found for fit in misfits(value, kind, kind.__name__)] == []


def choices(alias: Any) -> set[Any]:
    """The texts of a `Literal`, or of several."""
    found = get_args(alias)
    return {text for one in found for text in (choices(one) if get_origin(one) else {one})}


def test_what_may_be_given_is_what_is_taken(tmp_path: Path) -> None:
    for overlap in choices(types.Overlap):
        cloaca.trigger(workflow="w", name=overlap, overlap=overlap)(lambda: False)
    for backoff in choices(types.BackoffName):
        for condition in choices(types.ConditionName):
            with cloaca.WorkflowBuilder("w"):
                cloaca.task(id="t", retry_backoff=backoff, retry_condition=condition)(lambda context: None)
    for durability in choices(types.Durability):
        config = cloaca.DefaultRunnerConfig(durability=durability)
        with cloaca.DefaultRunner.with_config(str(tmp_path / durability), config) as runner:
            for status in choices(types.RunStatus):
                assert runner.list_runs(status=status) == []
    for operator in choices(types.Operator):
        value = [1] if operator.lower() == "in" else 1
        assert cloaca.context_value("k", operator, value)["operator"] in choices(types.OperatorName)


def test_an_unknown_choice_is_refused_when_the_program_runs_too() -> None:
    unknown: Any = "sometimes"
    with pytest.raises(ValueError, match="overlap is 'sometimes'"):
        cloaca.trigger(workflow="w", overlap=unknown)
    with pytest.raises(ValueError, match="durability is 'sometimes'"):
        cloaca.DefaultRunnerConfig(durability=unknown)
    with pytest.raises(ValueError, match="operator is 'sometimes'"):
        cloaca.context_value("k", unknown, 1)


def test_the_types_cost_a_program_nothing_until_it_asks_for_them() -> None:
    program = (
        "import sys, cloaca\n"
        "cloaca.DefaultRunner(':memory:').shutdown()\n"
        "assert 'cloaca.types' not in sys.modules\n"
        "print(cloaca.types.RunRow.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "RunRow\n", done.stderr


def test_the_package_is_imported_without_what_it_may_never_need() -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import cloaca\n"
        "unneeded = {'asyncio', 'datetime', 'logging', 'traceback', 'typing'}\n"
        "print(sorted(unneeded & (sys.modules.keys() - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_workflow_is_named_by_itself_wherever_runs_are_started() -> None:
    with cloaca.WorkflowBuilder("work") as builder:

        @cloaca.task()
        def work(context: cloaca.Context) -> None: ...

    workflow = builder.build()
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute(workflow).status == "Completed"
        runs = [runner.submit(workflow), runner.submit(workflow, run_key="a")]
        runs += runner.submit_many(workflow, [{}, {"n": 1}])
        assert {run.result(WAIT).status for run in runs} == {"Completed"}
    with cloaca.testing.Runner() as tested:
        assert tested.execute(workflow).status == "Completed"
