"""What a wrong argument is answered with, before all else: its name, what was given, what would be right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import cloaca
import cloaca.testing


class Odd:
    """Of no kind that any argument takes."""

    def __repr__(self) -> str:
        return "<odd>"


ODD = Odd()
ALLOWED = ("must", "give", "write", "call", "build", "one of", "a context holds", "a context is")
"""Words that say what would be right."""


def told(call: Callable[[], object]) -> str:
    """The message of the error that the call raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert isinstance(caught.value, cloaca.CloacaError), repr(caught.value)
    return str(caught.value)


TASK = (
    *(
        "id",
        "dependencies",
        "retry",
        "retry_attempts",
        "retry_backoff",
        "retry_delay_ms",
        "retry_max_delay_ms",
    ),
    *("retry_condition", "retry_jitter", "on_success", "on_failure", "trigger_rules"),
)
TRIGGER = (
    *("workflow", "on", "name", "poll_interval", "cron", "timezone", "allow_concurrent", "jitter"),
    *("poll_timeout", "overlap", "max_consecutive_failures", "on_error", "poll_at_start", "on_poll_failed"),
    "on_disabled",
)
RUNNER = (
    *cloaca.DefaultRunnerConfig().to_dict(),
    *("durability", "retention", "ticks_retention", "ticks_max", "timer_resolution", "context_bytes_max"),
    "max_pollers",
)


@pytest.mark.parametrize("argument", TASK)
def test_a_task_names_the_wrong_argument_also_outside_a_block(argument: str) -> None:
    message = told(lambda: cloaca.task(**{argument: ODD}))  # type: ignore[call-overload]
    assert f"{argument} is <odd>" in message
    assert any(word in message for word in ALLOWED)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"on_success": 3}, ["on_success is 3", "function"]),
        ({"retry_condition": "sometimes"}, ["retry_condition is 'sometimes'", "never, transient, all"]),
        ({"dependencies": [3]}, ["dependencies", "3", "task id"]),
        ({"dependencies": "extract"}, ["dependencies is 'extract'", "list"]),
        ({"id": ""}, ["id is ''", "must not be empty"]),
        (
            {"retry": cloaca.RetryPolicy.default(), "retry_attempts": 3},
            ["retry", "retry_attempts", "not both"],
        ),
        ({"retry_attempts": 2.5}, ["retry_attempts is 2.5", "int from 0"]),
        ({"retry_attempts": True}, ["retry_attempts is True", "int from 0"]),
        ({"retry_delay_ms": "5s"}, ["retry_delay_ms is '5s'", "number"]),
        ({"trigger_rules": {"type": "Never"}}, ["trigger_rules", "'Never'", "Always"]),
        ({"trigger_rules": {"type": "ContextValue"}}, ["trigger_rules", "key, operator, value"]),
    ],
    ids=str,
)
def test_a_task_says_what_is_wrong_before_it_asks_for_a_block(
    arguments: dict[str, Any], parts: list[str]
) -> None:
    message = told(lambda: cloaca.task(**arguments))
    for part in parts:
        assert part in message, message


def test_a_task_without_a_fault_still_asks_for_its_block() -> None:
    assert "No workflow context available" in told(lambda: cloaca.task(retry_attempts=2))


@pytest.mark.parametrize("argument", TRIGGER)
def test_a_trigger_names_the_wrong_argument_before_it_has_a_function(argument: str) -> None:
    given = {argument: ODD, **({"workflow": "w"} if argument == "cron" else {})}
    message = told(lambda: cloaca.trigger(**given))  # type: ignore[call-overload]
    assert f"{argument} is <odd>" in message
    assert any(word in message for word in ALLOWED)


@pytest.mark.parametrize("argument", TRIGGER)
def test_beside_a_fault_of_another_kind_the_wrong_argument_is_named(argument: str) -> None:
    """A cron without a workflow, beside an interval, is wrong too; what is no value at all comes first."""
    beside = {"cron": "* * * * *", "poll_interval": "5s", "jitter": "5%"}
    message = told(lambda: cloaca.trigger(**{**beside, argument: ODD}))  # type: ignore[call-overload]
    assert f"{argument} is <odd>" in message


BUILDER: list[tuple[str, Callable[[Any], object]]] = [
    ("name", lambda odd: cloaca.WorkflowBuilder(odd)),
    ("tenant", lambda odd: cloaca.WorkflowBuilder("w", tenant=odd)),
    ("package", lambda odd: cloaca.WorkflowBuilder("w", package=odd)),
    ("workflow", lambda odd: cloaca.WorkflowBuilder("w", workflow=odd)),
    ("text", lambda odd: cloaca.WorkflowBuilder("w").description(odd)),
    ("key", lambda odd: cloaca.WorkflowBuilder("w").tag(odd, "v")),
    ("value", lambda odd: cloaca.WorkflowBuilder("w").tag("k", odd)),
    ("task", lambda odd: cloaca.WorkflowBuilder("w").add_task(odd)),
    ("name", lambda odd: cloaca.register_workflow_constructor(odd, lambda: None)),  # type: ignore[arg-type,return-value]
    ("function", lambda odd: cloaca.register_workflow_constructor("w", odd)),
    ("name", lambda odd: cloaca.unregister_workflow(odd)),
    ("name", lambda odd: cloaca.unregister_trigger(odd)),
    ("key", lambda odd: cloaca.context_value(odd, "==", 1)),
    ("operator", lambda odd: cloaca.context_value("k", odd, 1)),
    ("value", lambda odd: cloaca.context_value("k", "==", odd)),
    ("task_name", lambda odd: cloaca.task_success(odd)),
    ("task_name", lambda odd: cloaca.task_failed(odd)),
    ("task_name", lambda odd: cloaca.task_skipped(odd)),
    ("conditions", lambda odd: cloaca.all_of(odd)),
    ("conditions", lambda odd: cloaca.any_of(cloaca.always(), odd)),
    ("conditions", lambda odd: cloaca.none_of(odd)),
    ("multiplier", lambda odd: cloaca.BackoffStrategy.linear(odd)),
    ("base", lambda odd: cloaca.BackoffStrategy.exponential(odd)),
    ("multiplier", lambda odd: cloaca.BackoffStrategy.exponential(2, odd)),
    ("patterns", lambda odd: cloaca.RetryCondition.error_pattern(odd)),
    ("patterns", lambda odd: cloaca.RetryCondition.error_pattern([odd])),
    ("max_attempts", lambda odd: cloaca.RetryPolicy.builder().max_attempts(odd)),
    ("initial_delay", lambda odd: cloaca.RetryPolicy.builder().initial_delay(odd)),
    ("max_delay", lambda odd: cloaca.RetryPolicy.builder().max_delay(odd)),
    ("backoff_strategy", lambda odd: cloaca.RetryPolicy.builder().backoff_strategy(odd)),
    ("retry_condition", lambda odd: cloaca.RetryPolicy.builder().retry_condition(odd)),
    ("with_jitter", lambda odd: cloaca.RetryPolicy.builder().with_jitter(odd)),
    ("attempt", lambda odd: cloaca.RetryPolicy.default().should_retry(odd, "error")),
    ("attempt", lambda odd: cloaca.RetryPolicy.default().calculate_delay(odd)),
    ("tenant_id", lambda odd: cloaca.TaskNamespace(odd, "p", "w", "t")),
    ("task_id", lambda odd: cloaca.WorkflowContext("t", "p", "w").resolve_dependency(odd)),
    ("namespace", lambda odd: cloaca.WorkflowContext("t", "p", "w").contains_namespace(odd)),
    ("parent", lambda odd: cloaca.TaskNamespace("t", "p", "w", "a").is_child_of(odd)),
    ("other", lambda odd: cloaca.TaskNamespace("t", "p", "w", "a").is_sibling_of(odd)),
    ("namespace", lambda odd: cloaca.TaskNamespace.from_string(odd)),
    ("base", lambda odd: cloaca.Backoff(odd)),
    ("factor", lambda odd: cloaca.Backoff(factor=odd)),
    ("max", lambda odd: cloaca.Backoff(max=odd)),
    ("delay", lambda odd: cloaca.RetryAfter(odd)),
    ("reason", lambda odd: cloaca.TriggerResult.skip(odd)),
    ("context", lambda odd: cloaca.TriggerResult.fire(odd)),
    ("run_key", lambda odd: cloaca.TriggerResult.fire(run_key=odd)),
    ("run_key_ttl", lambda odd: cloaca.TriggerResult.fire(run_key="k", run_key_ttl=odd)),
    ("run_key_ttl", lambda odd: cloaca.TriggerResult.fire(run_key_ttl=odd)),
    ("cursor", lambda odd: cloaca.TriggerResult.fire(cursor=odd)),
    ("dedup_key", lambda odd: cloaca.TriggerResult.fire(dedup_key=odd)),
    ("name", lambda odd: cloaca.var(odd)),
    ("name", lambda odd: cloaca.var_or(odd, "")),
    ("cursor", lambda odd: cloaca.testing.tick(cursor=odd)),
    ("trigger_name", lambda odd: cloaca.testing.tick(trigger_name=odd)),
    ("consecutive_failures", lambda odd: cloaca.testing.tick(consecutive_failures=odd)),
    ("scheduled_at", lambda odd: cloaca.testing.tick(scheduled_at=odd)),
    ("last_fired_at", lambda odd: cloaca.testing.tick(last_fired_at=odd)),
    ("start", lambda odd: cloaca.testing.Runner(odd)),
    ("config", lambda odd: cloaca.testing.Runner(config=odd)),
    ("database_url", lambda odd: cloaca.DefaultRunner(odd)),
    ("config", lambda odd: cloaca.DefaultRunner.with_config(":memory:", odd)),
    (
        "durability",
        lambda odd: cloaca.DefaultRunner.with_config(
            ":memory:", cloaca.DefaultRunnerConfig(), durability=odd
        ),
    ),
    ("database_url", lambda odd: cloaca.DefaultRunner.with_config(odd, cloaca.DefaultRunnerConfig())),
    ("schema", lambda odd: cloaca.DefaultRunner.with_schema("postgresql://h/d", odd)),
    ("database_url", lambda odd: cloaca.DefaultRunner.with_schema(odd, "s")),
    *((field, lambda odd, field=field: cloaca.DefaultRunnerConfig(**{field: odd})) for field in RUNNER),
]


@pytest.mark.parametrize(("argument", "call"), BUILDER)
def test_what_builds_something_names_the_wrong_argument(argument: str, call: Callable[[Any], object]) -> None:
    message = told(lambda: call(ODD))
    assert argument in message, message
    assert "<odd>" in message or "Odd" in message, message
    assert any(word in message for word in ALLOWED), message


R = cloaca.DefaultRunner
NOWHERE = "00000000-0000-7000-8000-000000000000"
METHODS: list[tuple[str, Callable[[R, Any], object]]] = [
    ("workflow_name", lambda r, odd: r.execute(odd)),
    ("context", lambda r, odd: r.execute("w", odd)),
    ("check", lambda r, odd: r.execute("w", check=odd)),
    ("workflow_name", lambda r, odd: r.submit(odd)),
    ("workflow_name", lambda r, odd: r.submit(odd, run_key="k")),
    ("context", lambda r, odd: r.submit("w", odd)),
    ("run_key", lambda r, odd: r.submit("w", run_key=odd)),
    ("run_key_ttl", lambda r, odd: r.submit("w", run_key="k", run_key_ttl=odd)),
    ("run_key_ttl", lambda r, odd: r.submit("w", run_key_ttl=odd)),
    ("workflow_name", lambda r, odd: r.submit_many(odd, [])),
    ("contexts", lambda r, odd: r.submit_many("w", odd)),
    ("context", lambda r, odd: r.submit_many("w", [odd])),
    ("run_keys", lambda r, odd: r.submit_many("w", [{}], run_keys=odd)),
    ("run_key", lambda r, odd: r.submit_many("w", [{}], run_keys=[odd])),
    ("run_key_ttl", lambda r, odd: r.submit_many("w", [{}], run_keys=["k"], run_key_ttl=odd)),
    ("run_id", lambda r, odd: r.run(odd)),
    ("run_id", lambda r, odd: r.get_run(odd)),
    ("run_id", lambda r, odd: r.cancel(odd)),
    ("run_id", lambda r, odd: r.retry(odd)),
    ("run_id", lambda r, odd: r.why_run(odd)),
    ("workflow", lambda r, odd: r.list_runs(odd)),
    ("status", lambda r, odd: r.list_runs(status=odd)),
    ("trigger", lambda r, odd: r.list_runs(trigger=odd)),
    ("limit", lambda r, odd: r.list_runs(limit=odd)),
    ("offset", lambda r, odd: r.list_runs(offset=odd)),
    ("contexts", lambda r, odd: r.list_runs(contexts=odd)),
    ("key", lambda r, odd: r.list_runs(key=odd)),
    ("since", lambda r, odd: r.list_runs(since=odd)),
    ("until", lambda r, odd: r.list_runs(until=odd)),
    ("error", lambda r, odd: r.list_runs(error=odd)),
    ("after", lambda r, odd: r.list_runs(after=odd)),
    ("status", lambda r, odd: r.retry_many(status=odd)),
    ("limit", lambda r, odd: r.retry_many(workflow="w", limit=odd)),
    ("status", lambda r, odd: r.cancel_many(status=odd)),
    ("trigger", lambda r, odd: r.cancel_many(trigger=odd)),
    ("until", lambda r, odd: list(r.iter_runs(until=odd))),
    ("workflow_name", lambda r, odd: r.register_cron_workflow(odd, "@daily")),
    ("cron_expression", lambda r, odd: r.register_cron_workflow("w", odd)),
    ("timezone", lambda r, odd: r.register_cron_workflow("w", "@daily", odd)),
    ("enabled_only", lambda r, odd: r.list_cron_schedules(odd)),
    ("schedule_id", lambda r, odd: r.get_cron_schedule(odd)),
    ("schedule_id", lambda r, odd: r.update_cron_schedule(odd, "@daily", "UTC")),
    ("cron_expression", lambda r, odd: r.update_cron_schedule(NOWHERE, odd, "UTC")),
    ("timezone", lambda r, odd: r.update_cron_schedule(NOWHERE, "@daily", odd)),
    ("schedule_id", lambda r, odd: r.set_cron_schedule_enabled(odd, True)),
    ("enabled", lambda r, odd: r.set_cron_schedule_enabled(NOWHERE, odd)),
    ("schedule_id", lambda r, odd: r.delete_cron_schedule(odd)),
    ("schedule_id", lambda r, odd: r.get_cron_execution_history(odd)),
    ("limit", lambda r, odd: r.get_cron_execution_history(NOWHERE, odd)),
    ("since", lambda r, odd: r.get_cron_execution_stats(odd)),
    ("enabled_only", lambda r, odd: r.list_trigger_schedules(odd)),
    ("trigger_name", lambda r, odd: r.get_trigger_schedule(odd)),
    ("trigger_name", lambda r, odd: r.set_trigger_enabled(odd, True)),
    ("enabled", lambda r, odd: r.set_trigger_enabled("nowhere", odd)),
    ("trigger_name", lambda r, odd: r.get_trigger_execution_history(odd)),
    ("trigger_name", lambda r, odd: r.ticks(odd)),
    ("last", lambda r, odd: r.ticks("nowhere", odd)),
    ("trigger_name", lambda r, odd: r.why(odd)),
    ("trigger_name", lambda r, odd: r.tick(odd)),
    ("dry_run", lambda r, odd: r.tick("nowhere", dry_run=odd)),
    ("trigger_name", lambda r, odd: r.poll_soon(odd)),
    ("trigger_name", lambda r, odd: r.cursor(odd)),
    ("trigger_name", lambda r, odd: r.set_cursor(odd, 1)),
    ("trigger_name", lambda r, odd: r.forget(odd)),
    ("sql", lambda r, odd: r.query(odd)),
    ("params", lambda r, odd: r.query("SELECT 1", odd)),
    ("path", lambda r, odd: r.export(odd)),
    ("shutdown_timeout", lambda r, odd: r.run_forever(odd)),
    ("timeout", lambda r, odd: r.shutdown(odd)),
]


@pytest.mark.parametrize(("argument", "call"), METHODS)
def test_a_method_of_a_runner_names_the_wrong_argument(
    runner: R, argument: str, call: Callable[[R, Any], object]
) -> None:
    """Also where the name beside it, or the id, stands for nothing."""
    message = told(lambda: call(runner, ODD))
    assert argument in message, message
    assert "<odd>" in message or "Odd" in message, message
    assert any(word in message for word in ALLOWED), message


def test_a_long_value_is_shown_shortened() -> None:
    message = told(lambda: cloaca.task(retry_condition="x" * 10_000))
    assert len(message) < 300


def test_an_argument_that_cannot_be_shown_is_named_all_the_same() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "on_success is" in told(lambda: cloaca.task(on_success=Unshowable()))  # type: ignore[arg-type]


def test_a_duration_names_what_it_is_for() -> None:
    message = told(lambda: cloaca.trigger(poll_timeout=timedelta(0)))
    assert "poll_timeout is 0s" in message


def noop(context: cloaca.Context) -> None:
    """A task that does nothing."""


def chain(*tasks: dict[str, Any], name: str = "etl") -> None:
    with cloaca.WorkflowBuilder(name):
        for keywords in tasks:
            cloaca.task(**keywords)(noop)


def polled(runner: R) -> R:
    chain({"id": "extract"})
    cloaca.trigger(name="inbox", workflow="etl", poll_interval="1h")(lambda: False)
    cloaca.trigger(name="nightly", workflow="etl", cron="@daily")(lambda: False)
    return runner


MISSED: list[tuple[str, Callable[[R], object]]] = [
    ("extract", lambda r: chain({"id": "extract"}, {"id": "load", "dependencies": ["extrct"]})),
    (
        "extract",
        lambda r: chain({"id": "extract"}, {"id": "b", "trigger_rules": cloaca.task_failed("Extract")}),
    ),
    ("extract", lambda r: cloaca.WorkflowBuilder("etl").add_task("exract")),
    ("etl-daily", lambda r: (chain({"id": "a"}, name="etl-daily"), r.execute("etl_daly"))),
    ("etl-daily", lambda r: (chain({"id": "a"}, name="etl-daily"), r.submit("etldialy"))),
    ("etl-daily", lambda r: (chain({"id": "a"}, name="etl-daily"), r.submit_many("etldialy", [{}]))),
    ("etl-daily", lambda r: (chain({"id": "a"}, name="etl-daily"), cloaca.unregister_workflow("etl-dayly"))),
    ("inbox", lambda r: cloaca.unregister_trigger("inbx")),
    ("inbox", lambda r: r.why("imbox")),
    ("nightly", lambda r: r.why("nighty")),
    ("inbox", lambda r: r.tick("inbxo")),
    ("inbox", lambda r: r.ticks("INBOX")),
    ("inbox", lambda r: r.set_trigger_enabled("in_box", False)),
    ("nightly", lambda r: r.set_trigger_enabled("nightli", False)),
    ("inbox", lambda r: r.poll_soon("inboxx")),
    ("inbox", lambda r: r.forget("inbx")),
    ("retry_attempts", lambda r: cloaca.task(retry_attempt=3)),  # type: ignore[call-overload]
    ("dependencies", lambda r: cloaca.task(dependancies=[])),  # type: ignore[call-overload]
    ("poll_interval", lambda r: cloaca.trigger(pol_interval="5s")),  # type: ignore[call-overload]
    ("max_concurrent_tasks", lambda r: cloaca.DefaultRunnerConfig(max_concurent_tasks=3)),  # type: ignore[call-arg]
]


@pytest.mark.parametrize(("meant", "call"), MISSED)
def test_of_a_name_that_nothing_has_the_nearest_is_suggested(
    runner: R, meant: str, call: Callable[[R], object]
) -> None:
    message = told(lambda: call(polled(runner)))
    assert f"did you mean '{meant}'?" in message


def test_a_field_that_a_config_does_not_have_is_suggested_too() -> None:
    with pytest.raises(AttributeError, match="did you mean 'retention'"):
        cloaca.DefaultRunnerConfig().retensions = 3  # type: ignore[attr-defined]


def test_a_trigger_of_an_unknown_workflow_is_told_which_was_meant() -> None:
    chain({"id": "extract"}, name="report")
    with cloaca.testing.Runner() as clock:
        cloaca.trigger(name="inbox", workflow="reprot", poll_interval="1m")(lambda: True)
        clock.advance("1m")
        assert "did you mean 'report'?" in clock.ticks("inbox")[0]["reason"]
        assert "did you mean 'report'?" in clock.why("inbox")


def test_nothing_is_suggested_where_nothing_is_near(runner: R) -> None:
    message = told(lambda: polled(runner).why("publish"))
    assert "did you mean" not in message
    assert "known triggers: inbox, nightly" in message


def test_a_trigger_of_the_store_that_this_program_does_not_poll_is_not_said_to_be_missing(runner: R) -> None:
    for call in (lambda: runner.tick("inbox"), lambda: runner.poll_soon("inbox")):
        polled(runner)
        runner.why("inbox")
        cloaca.unregister_trigger("inbox")
        assert "'inbox' is not polled in this program" in told(call)
