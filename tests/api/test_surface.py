"""The published surface, section by section in the order of the API page."""

import asyncio
import copy
import json
import math
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cloaca
from cloaca import BackoffStrategy, Context, RetryCondition, RetryPolicy, TaskNamespace, WorkflowContext

WAIT = 30.0
NO_DELAY: dict[str, Any] = {"retry_delay_ms": 1, "retry_jitter": False}


def workflow(*tasks: tuple[Callable[..., Any], dict[str, Any]], name: str = "w") -> cloaca.Workflow:
    """A workflow of functions with the keywords of their `@task`, each with the id that it is given."""
    with cloaca.WorkflowBuilder(name) as builder:
        for function, keywords in tasks:
            cloaca.task(**keywords)(function)
    return builder.build()


def noop(context: Context) -> None:
    """A task that does nothing."""


def boom(context: Context) -> None:
    """A task that fails."""
    raise ValueError("boom")


def statuses(runner: cloaca.DefaultRunner) -> dict[str, str]:
    (run,) = runner.list_runs(limit=1)
    found = runner.get_run(run["id"])
    assert found is not None
    return {task["id"]: task["status"] for task in found["tasks"]}


# Context


def test_a_context_is_a_mapping_that_keeps_its_order() -> None:
    context = Context({"b": 1, "a": [1, (2, 3)], "s": {3, 1, 2}})
    assert list(context) == ["b", "a", "s"]
    assert (context["a"], context["s"]) == ([1, [2, 3]], [1, 2, 3])
    assert len(context) == 3
    assert "a" in context
    assert "z" not in context
    assert dict(context.items()) == context.to_dict()
    assert (list(context.keys()), list(context.values())) == (
        list(context),
        [context[key] for key in context],
    )
    assert repr(Context({"a": 1})) == 'Context({"a":1})'
    assert {**context} == context.to_dict()


def test_context_get_set_insert_update_remove() -> None:
    context = Context()
    context.set("a", 1)
    context["b"] = None
    assert (context.get("a"), context.get("z"), context.get("z", 5), context["b"]) == (1, None, 5, None)
    with pytest.raises(ValueError, match="a"):
        context.insert("a", 2)
    with pytest.raises(KeyError, match="z"):
        context.update("z", 2)
    context.insert("c", 3)
    context.update("c", 4)
    assert (context.remove("c"), context.remove("c")) == (4, None)
    del context["b"]
    for missing in (lambda: context["b"], lambda: context.__delitem__("b")):
        with pytest.raises(KeyError, match="b"):
            missing()
    context.update_from_dict({"x": 1, "a": 9})
    assert context == {"a": 9, "x": 1} == context.to_dict()


def test_a_context_is_changed_as_a_dict_is() -> None:
    context = Context({"a": 1})
    context.update({"a": 2, "b": [1]})
    context |= {"c": 3}
    context |= Context({"d": 4})
    assert context == {"a": 2, "b": [1], "c": 3, "d": 4}
    assert context.setdefault("a", 9) == 2
    assert context.setdefault("e") is None
    assert context.setdefault("f", (1,)) == [1]
    assert (context.pop("c"), context.pop("c", "gone"), context.pop("e", 1)) == (3, "gone", None)
    assert list(context) == ["a", "b", "d", "f"]
    with pytest.raises(KeyError, match="no key 'c'"):
        context.pop("c")


def test_a_context_takes_all_of_a_mapping_or_nothing() -> None:
    context = Context({"a": 1})
    with pytest.raises(ValueError, match="context value at 'b'"):
        context.update({"a": 2, "b": math.nan})
    with pytest.raises(TypeError, match="a key with its value, or one mapping; got 'a' alone"):
        context.update("a")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        context |= [("a", 2)]  # type: ignore[operator]
    assert context == {"a": 1}


def test_context_equality_ignores_order_and_tells_types_apart() -> None:
    assert Context({"a": 1, "b": 2}) == Context({"b": 2, "a": 1})
    assert Context({"a": 1}) != Context({"a": 2})
    assert Context({"a": 1}) != 5


def test_context_json_round_trip_keeps_every_integer() -> None:
    data = {"big": 10**40, "small": -(2**63) - 1, "text": "ä\u0000😀", "f": 0.1, "n": None, "t": True}
    assert Context.from_json(Context(data).to_json()).to_dict() == data
    assert json.loads(Context(data).to_json()) == data
    for bad in ("[1]", "{", "1", '{"a": NaN}', ""):
        with pytest.raises(ValueError, match=r"."):
            Context.from_json(bad)


def test_context_copies_are_deep() -> None:
    inner = [1]
    context = Context({"a": inner})
    inner.append(2)
    assert context["a"] == [1]
    for copied in (context.copy(), copy.copy(context), copy.deepcopy(context)):
        copied["a"].append(5)
        assert context["a"] == [1]


def test_a_context_refuses_what_json_cannot_hold_and_names_the_path() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="a"):
            Context({"a": bad})
    with pytest.raises(TypeError, match=r"a.*0.*b.*object"):
        Context({"a": [{"b": object()}]})
    with pytest.raises(TypeError, match="int"):
        Context({1: 2})  # type: ignore[dict-item]


# @task


def test_a_task_outside_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="No workflow context available"):
        cloaca.task(id="lost")(noop)


def test_a_decorated_task_is_still_the_function() -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def add(context: Context) -> Context:
            context["n"] += 1
            return context

    assert add(Context({"n": 1}))["n"] == 2


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (lambda context: context.set("n", 2), {"n": 2}),
        (lambda context: context, {"n": 1}),
        (lambda context: {"other": 3}, {"other": 3}),
        (lambda context: Context({"other": 3}), {"other": 3}),
    ],
)
def test_what_a_body_returns_is_passed_on(
    runner: cloaca.DefaultRunner, answer: Callable[[Context], Any], left: dict[str, Any]
) -> None:
    workflow((answer, {"id": "only"}))
    result = runner.execute("w", {"n": 1})
    assert (result.status, result.final_context.to_dict(), result.error_message) == ("Completed", left, None)


def test_another_answer_fails_the_task_and_says_so(runner: cloaca.DefaultRunner) -> None:
    workflow((lambda context: 5, {"id": "odd", "retry_attempts": 1}))
    result = runner.execute("w")
    assert result.status == "Failed"
    assert "odd" in str(result.error_message)
    assert "int" in str(result.error_message)


@pytest.mark.parametrize(("attempts", "calls"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_retry_attempts_are_the_total(runner: cloaca.DefaultRunner, attempts: int, calls: int) -> None:
    seen: list[int] = []

    def body(context: Context, handle: cloaca.TaskHandle) -> None:
        seen.append(handle.attempt)
        raise ValueError("boom")

    workflow((body, {"id": "t", "retry_attempts": attempts, **NO_DELAY}))
    assert runner.execute("w").status == "Failed"
    assert seen == list(range(1, calls + 1))


@pytest.mark.parametrize(
    ("condition", "error", "calls"),
    [
        ("never", ConnectionError("connection lost"), 1),
        ("transient", ConnectionError("connection lost"), 3),
        ("transient", TimeoutError("slow"), 3),
        ("transient", ValueError("boom"), 1),
        ("all", ValueError("boom"), 3),
    ],
)
def test_retry_conditions_choose_what_is_tried_again(
    runner: cloaca.DefaultRunner, condition: str, error: Exception, calls: int
) -> None:
    seen: list[int] = []

    def body(context: Context) -> None:
        seen.append(1)
        raise error

    workflow((body, {"id": "t", "retry_attempts": 3, "retry_condition": condition, **NO_DELAY}))
    runner.execute("w")
    assert len(seen) == calls


def test_a_task_that_succeeds_at_last_completes_the_run(runner: cloaca.DefaultRunner) -> None:
    seen: list[int] = []

    def body(context: Context) -> None:
        seen.append(1)
        if len(seen) < 3:
            raise ValueError("not yet")
        context["tries"] = len(seen)

    workflow((body, {"id": "t", "retry_attempts": 3, **NO_DELAY}))
    assert runner.execute("w").final_context.to_dict() == {"tries": 3}


def test_retry_and_its_keywords_exclude_each_other() -> None:
    for keyword, value in (
        ("retry_attempts", 2),
        ("retry_backoff", "fixed"),
        ("retry_delay_ms", 5),
        ("retry_max_delay_ms", 5),
        ("retry_condition", "all"),
        ("retry_jitter", False),
    ):
        with (
            pytest.raises(ValueError, match=f"{keyword}.*not both|not both.*{keyword}"),
            cloaca.WorkflowBuilder("w"),
        ):
            cloaca.task(id="t", retry=RetryPolicy.default(), **{keyword: value})(noop)  # type: ignore[arg-type]


def test_callbacks_hear_the_final_outcome_once_with_the_context_as_it_was_left(
    runner: cloaca.DefaultRunner,
) -> None:
    heard: list[tuple[Any, ...]] = []

    def body(context: Context) -> None:
        context["n"] = context.get("n", 0) + 1
        raise ValueError("boom")

    def failed(task_id: str, error: str, context: Context) -> None:
        heard.append((task_id, error, context.to_dict()))

    workflow((body, {"id": "t", "retry_attempts": 2, "on_failure": failed, **NO_DELAY}))
    runner.execute("w", {})
    assert heard == [("t", "ValueError: boom", {"n": 1})]


def test_a_callback_that_raises_is_logged_and_changes_nothing(
    runner: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def rude(task_id: str, context: Context) -> None:
        raise RuntimeError("rude")

    workflow((noop, {"id": "t", "on_success": rude}))
    assert runner.execute("w").status == "Completed"
    (record,) = [record for record in caplog.records if record.name == "cloaca.callback"]
    assert "t" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("second", ["handle", "task_handle"])
def test_a_second_parameter_gets_the_handle(runner: cloaca.DefaultRunner, second: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def body(context, {second}): context['held'] = {second}.is_slot_held()", scope)
    workflow((scope["body"], {"id": "t"}))
    assert runner.execute("w").final_context["held"] is True


def test_defer_until_gives_its_slot_to_others() -> None:
    order: list[str] = []
    ready = threading.Event()

    def waits(context: Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(ready.is_set, poll_interval_ms=1)
        order.append("waited")
        assert handle.is_slot_held()

    def works(context: Context) -> None:
        order.append("worked")
        ready.set()

    workflow((waits, {"id": "waits"}), (works, {"id": "works"}))
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        assert runner.execute("w").status == "Completed"
    assert order == ["worked", "waited"]


def test_no_more_tasks_run_at_once_than_allowed() -> None:
    inside = most = 0
    lock = threading.Lock()

    def body(context: Context) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.005)
        with lock:
            inside -= 1

    workflow(*((body, {"id": f"t{number}"}) for number in range(12)))
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=3)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        assert runner.execute("w").status == "Completed"
    assert 1 <= most <= 3


# Trigger rules


def test_rules_are_plain_dicts() -> None:
    assert cloaca.always() == {"type": "Always"}
    assert cloaca.task_success("a") == {"type": "TaskSuccess", "task_name": "a"}
    assert cloaca.task_failed("a") == {"type": "TaskFailed", "task_name": "a"}
    assert cloaca.task_skipped("a") == {"type": "TaskSkipped", "task_name": "a"}
    value = {"type": "ContextValue", "key": "k", "operator": "Equals", "value": 1}
    assert cloaca.context_value("k", "==", 1) == value
    assert cloaca.context_value("k", "EQUALS", 1) == value
    assert cloaca.context_value("k", "not_equals", 1)["operator"] == "NotEquals"
    assert cloaca.all_of(cloaca.always()) == {"type": "All", "conditions": [{"type": "Always"}]}
    assert cloaca.any_of(cloaca.always()) == {"type": "Any", "conditions": [{"type": "Always"}]}
    assert cloaca.none_of(cloaca.always()) == {"type": "None", "conditions": [{"type": "Always"}]}


@pytest.mark.parametrize(
    ("rule", "runs"),
    [
        (cloaca.context_value("n", ">", 3), True),
        (cloaca.context_value("n", "lt", 3), False),
        (cloaca.context_value("n", "Equals", 5.0), True),
        (cloaca.context_value("s", "Contains", "ell"), True),
        (cloaca.context_value("l", "NotContains", 2), False),
        (cloaca.context_value("z", "Exists", None), False),
        (cloaca.context_value("z", "NotExists", None), True),
        (cloaca.none_of(cloaca.task_failed("first")), True),
        (cloaca.all_of(cloaca.task_success("first"), cloaca.context_value("n", "!=", 5)), False),
        (cloaca.any_of(cloaca.task_skipped("first"), cloaca.always()), True),
        ({"type": "ContextValue", "key": "n", "operator": "Equals", "value": 5}, True),
    ],
)
def test_a_rule_decides_whether_a_task_runs(
    runner: cloaca.DefaultRunner, rule: dict[str, Any], runs: bool
) -> None:
    second = {"id": "second", "dependencies": ["first"], "trigger_rules": rule}
    workflow((noop, {"id": "first"}), (noop, second))
    result = runner.execute("w", {"n": 5, "s": "hello", "l": [1, 2]})
    assert result.status == "Completed"
    assert statuses(runner)["second"] == ("Completed" if runs else "Skipped")


def test_a_bad_rule_is_refused_at_decoration() -> None:
    for bad in ({"type": "Maybe"}, {}, {"type": "All"}, {"type": "ContextValue", "key": "k"}):
        with pytest.raises(ValueError, match=r"."), cloaca.WorkflowBuilder("w"):
            cloaca.task(id="t", trigger_rules=bad)(noop)


def test_a_failed_dependency_skips_what_has_no_rule_and_runs_what_cleans_up(
    runner: cloaca.DefaultRunner,
) -> None:
    once = {"retry_attempts": 1}
    workflow(
        (boom, {"id": "first", **once}),
        (noop, {"id": "after", "dependencies": ["first"]}),
        (noop, {"id": "later", "dependencies": ["after"]}),
        (
            noop,
            {
                "id": "cleanup",
                "dependencies": ["first"],
                "trigger_rules": cloaca.task_failed("first"),
            },
        ),
    )
    result = runner.execute("w")
    assert result.status == "Failed"
    assert "first" in str(result.error_message)
    assert "ValueError: boom" in str(result.error_message)
    assert statuses(runner) == {
        "first": "Failed",
        "after": "Skipped",
        "later": "Skipped",
        "cleanup": "Completed",
    }


def test_a_join_past_a_skipped_branch_runs_if_another_completed(runner: cloaca.DefaultRunner) -> None:
    never = cloaca.context_value("z", "Exists", None)
    workflow(
        (noop, {"id": "root"}),
        (noop, {"id": "left", "dependencies": ["root"], "trigger_rules": never}),
        (noop, {"id": "right", "dependencies": ["root"]}),
        (noop, {"id": "join", "dependencies": ["left", "right"]}),
    )
    assert runner.execute("w").status == "Completed"
    assert statuses(runner) == {
        "root": "Completed",
        "left": "Skipped",
        "right": "Completed",
        "join": "Completed",
    }


# WorkflowBuilder and Workflow


def test_a_builder_collects_its_block_and_finds_tasks_again() -> None:
    with cloaca.WorkflowBuilder("w") as builder:
        assert builder.description("text").tag("k", "v") is builder
        cloaca.task(id="a")(noop)
        inside = builder.build()
    again = cloaca.WorkflowBuilder("w").add_task("a").add_task("a").build()
    assert (inside.name, again.name) == ("w", "w")
    assert repr(again) == "Workflow(name='w', tasks=1)"


def test_a_block_that_raises_registers_nothing(runner: cloaca.DefaultRunner) -> None:
    def declare() -> None:
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="a")(noop)
            raise OSError("stop")

    with pytest.raises(OSError, match="stop"):
        declare()
    with pytest.raises(ValueError, match="w"):
        runner.execute("w")


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda builder: builder.add_task("ghost"), "not found in registry"),
        (lambda builder: builder.add_task(5), "string task ID or a function object"),
        (lambda builder: builder.build(), "cannot be empty"),
    ],
)
def test_a_builder_says_what_is_wrong(declare: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declare(cloaca.WorkflowBuilder("w"))


def test_cycles_missing_dependencies_and_twins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a -> b -> a|b -> a -> b"):
        workflow((noop, {"id": "a", "dependencies": ["b"]}), (noop, {"id": "b", "dependencies": ["a"]}))
    with pytest.raises(ValueError, match=r"'a'.*'ghost'"):
        workflow((noop, {"id": "a", "dependencies": ["ghost"]}))
    with pytest.raises(ValueError, match="a"):
        workflow((noop, {"id": "a"}), (boom, {"id": "a"}))


def test_a_workflow_tells_its_shape() -> None:
    built = workflow(
        (noop, {"id": "a"}),
        (noop, {"id": "b", "dependencies": ["a"]}),
        (noop, {"id": "c", "dependencies": ["a"]}),
        (noop, {"id": "d", "dependencies": ["b", "c"]}),
    )
    full = {task: f"public::embedded::w::{task}" for task in "abcd"}
    assert built.topological_sort() == [full[task] for task in "abcd"]
    assert built.get_execution_levels() == [[full["a"]], [full["b"], full["c"]], [full["d"]]]
    assert (built.get_roots(), built.get_leaves()) == ([full["a"]], [full["d"]])
    built.validate()


def test_a_version_follows_the_content() -> None:
    def version(**keywords: Any) -> str:
        cloaca.registry.clear()
        return workflow((noop, {"id": "a", **keywords})).version

    assert version() == version()
    int(version(), 16)
    assert len({version(), version(retry_attempts=2), version(trigger_rules=cloaca.always())}) == 3


def test_registering_a_name_again_replaces_the_workflow(runner: cloaca.DefaultRunner) -> None:
    workflow((lambda context: {"version": 1}, {"id": "a"}))
    assert runner.execute("w").final_context["version"] == 1
    workflow((lambda context: {"version": 2}, {"id": "a"}))
    assert runner.execute("w").final_context["version"] == 2


def test_a_constructor_is_called_when_its_workflow_is_needed(runner: cloaca.DefaultRunner) -> None:
    def construct() -> cloaca.Workflow:
        return workflow((noop, {"id": "a"}), name="made")

    cloaca.register_workflow_constructor("made", construct)
    assert runner.execute("made").status == "Completed"


def test_namespaces() -> None:
    space = TaskNamespace("t", "p", "w", "a")
    assert (space.tenant_id, space.package_name, space.workflow_id, space.task_id) == ("t", "p", "w", "a")
    assert str(space) == "t::p::w::a"
    assert TaskNamespace.from_string("t::p::w::a") == space
    assert hash(TaskNamespace.from_string("t::p::w::a")) == hash(space)
    assert space.is_sibling_of(TaskNamespace("t", "p", "w", "b"))
    assert space.is_child_of(space.parent())
    within = WorkflowContext("t", "p", "w")
    assert within.task_namespace("a") == within.resolve_dependency("a") == space
    assert within.contains_namespace(space)
    assert str(within) == "t::p::w"
    assert within.workflow_namespace() == space.parent()
    assert within == WorkflowContext("t", "p", "w")


# RetryPolicy


def test_a_policy_is_built_step_by_step() -> None:
    builder = RetryPolicy.builder()
    policy = (
        builder.max_attempts(4)
        .initial_delay(0.5)
        .max_delay(3.0)
        .backoff_strategy(BackoffStrategy.exponential(2.0))
        .retry_condition(RetryCondition.error_pattern(["busy"]))
        .with_jitter(False)
        .build()
    )
    assert (policy.max_attempts, policy.initial_delay, policy.max_delay) == (4, 0.5, 3.0)
    assert policy.with_jitter is False
    assert [policy.calculate_delay(attempt) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 3.0]
    assert policy.should_retry(1, "it was BUSY")
    assert not policy.should_retry(4, "busy")
    assert not policy.should_retry(1, "boom")
    assert repr(policy).startswith("RetryPolicy(max_attempts=4")
    assert builder.build().max_attempts == RetryPolicy.default().max_attempts == 3
    assert RetryPolicy.default().max_delay == 60.0


# Triggers


def test_results_of_a_poll() -> None:
    assert repr(cloaca.TriggerResult.skip()) == "TriggerResult.Skip"
    assert repr(cloaca.TriggerResult.fire()) == "TriggerResult.Fire(None)"
    told = repr(cloaca.TriggerResult.fire({"a": 1}, cursor=4, run_key="k"))
    assert told.endswith(", cursor=4, run_key='k')"), "what makes two of them unequal is seen"
    fire = cloaca.TriggerResult.fire(Context({"a": 1}))
    assert repr(fire) == 'TriggerResult.Fire(Context({"a":1}))'
    assert (fire.is_fire_result(), fire.is_skip_result()) == (True, False)


def test_results_of_a_poll_compare_by_value() -> None:
    fire, skip = cloaca.TriggerResult.fire, cloaca.TriggerResult.skip
    assert fire({"a": 1, "b": 2}) == fire(Context({"b": 2, "a": 1}))
    assert fire() == fire({}) == fire(Context())
    assert fire(run_key="k", run_key_ttl="1m") == fire(run_key="k", run_key_ttl=60)
    assert fire(cursor={"a": 1, "b": 2}) == fire(cursor={"b": 2, "a": 1})
    assert skip("empty") == skip("empty")
    for one, other in (
        (1, True),
        (0, False),
        (1, 1.0),
        (True, 1.0),
        (None, False),
        ("1", 1),
        ([], {}),
        ([1], [1, 1]),
    ):
        assert fire({"a": one}) != fire({"a": other})
        assert fire({"a": [{"b": one}]}) != fire({"a": [{"b": other}]})
        assert fire({"a": {"b": [one]}}) == fire({"a": {"b": [one]}})
        if one is not None:
            assert fire(cursor=one) != fire(cursor=other)
    assert fire({"a": 0.0}) == fire({"a": -0.0})
    assert fire({"a": None}) != fire({}) != fire({"b": None})
    told = [fire(), fire({"a": 1}), fire(run_key="k"), fire(run_key="k", run_key_ttl=1), fire(cursor=1)]
    told += [skip(), skip("empty"), skip("late")]
    assert [[one == other for other in told] for one in told] == [
        [place == row for place in range(len(told))] for row in range(len(told))
    ]
    assert hash(fire({"a": 1})) == hash(fire({"a": 1}))
    assert fire() != True  # noqa: E712
    assert skip() != None  # noqa: E711


def test_a_decorated_trigger_is_still_the_function() -> None:
    @cloaca.trigger(on="w", poll_interval="1h")
    def watcher() -> bool:
        return True

    assert watcher() is True


@pytest.mark.parametrize(
    ("interval", "milliseconds"),
    [
        ("100ms", 100),
        ("5s", 5000),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("1h30m", 5_400_000),
        (2, 2000),
        (0.5, 500),
    ],
)
def test_intervals(runner: cloaca.DefaultRunner, interval: Any, milliseconds: int) -> None:
    cloaca.trigger(workflow="w", name="t", poll_interval=interval)(lambda: False)
    schedule = runner.get_trigger_schedule("t")
    assert schedule is not None
    assert schedule["poll_interval_ms"] == milliseconds


def test_fires_of_equal_contexts_run_side_by_side_only_if_allowed() -> None:
    gate = threading.Event()
    with cloaca.WorkflowBuilder("gated"):
        cloaca.task(id="wait")(lambda context: gate.wait(WAIT) and None)
    for name, allowed in (("once", False), ("often", True)):
        cloaca.trigger(workflow="gated", name=name, poll_interval="1h", allow_concurrent=allowed)(
            lambda: True
        )
    with cloaca.DefaultRunner(":memory:") as runner:
        for name in ("once", "often"):
            for _ in range(3):
                runner.tick(name)
        counts = {name: len(runner.list_runs(trigger=name)) for name in ("once", "often")}
        gate.set()
    assert counts == {"once": 1, "often": 3}


def test_a_cursor_a_run_key_and_several_fires_from_one_poll() -> None:
    with cloaca.WorkflowBuilder("ingest"):
        cloaca.task(id="only")(noop)

    @cloaca.trigger(workflow="ingest", poll_interval="1m", allow_concurrent=True)
    def inbox(tick: cloaca.Tick) -> Any:
        start = tick.cursor or 0
        tick.cursor = start + 2
        for number in (start, start + 1):
            yield cloaca.TriggerResult.fire({"n": number}, run_key=str(number // 3))

    with cloaca.testing.Runner() as runner:
        runner.advance("3m")
        assert [context["n"] for context in runner.fired("ingest")] == [0, 3]
        assert runner.tick("inbox", dry_run=True)["cursor"] == 8
        assert runner.tick("inbox", dry_run=True)["cursor"] == 8
        assert len(runner.fired("ingest")) == 2


def test_a_failing_poll_saves_nothing_and_backs_off() -> None:
    @cloaca.trigger(poll_interval="1s", on_error=cloaca.Backoff(base="4s", factor=2, max="8s"))
    def flaky(tick: cloaca.Tick) -> cloaca.TriggerResult:
        seen.append((tick.cursor, tick.consecutive_failures, tick.scheduled_at[14:19]))
        tick.cursor = 1
        if len(seen) < 4:
            raise OSError("gone")
        return cloaca.TriggerResult.skip("fine")

    seen: list[tuple[Any, int, str]] = []
    with cloaca.testing.Runner() as runner:
        runner.advance("25s")
        assert seen[:5] == [
            (None, 0, "00:01"),
            (None, 1, "00:05"),
            (None, 2, "00:13"),
            (None, 3, "00:21"),
            (1, 0, "00:22"),
        ]
        assert [tick["outcome"] for tick in runner.ticks("flaky")] == ["skip", "error"]


def test_too_many_failures_disable_with_a_cause_that_is_kept(tmp_path: Path) -> None:
    @cloaca.trigger(poll_interval="1h", max_consecutive_failures=2)
    def broken() -> bool:
        raise OSError("gone")

    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        runner.tick("broken")
        runner.tick("broken")
        assert "2 polls in a row failed" in runner.why("broken")
    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        assert "2 polls in a row failed" in runner.why("broken")
        runner.set_trigger_enabled("broken", True)
        assert "disabled" not in runner.why("broken")


def test_retry_after_puts_off_the_next_poll_without_a_failure() -> None:
    calls: list[str] = []

    @cloaca.trigger(poll_interval="1s")
    def polite() -> bool:
        calls.append(runner.now[14:19])
        if len(calls) == 1:
            raise cloaca.RetryAfter("10s")
        return False

    with cloaca.testing.Runner() as runner:
        runner.advance("12s")
        assert calls == ["00:01", "00:11", "00:12"]
        assert {tick["outcome"] for tick in runner.ticks("polite")} == {"skip"}


@pytest.mark.parametrize(
    ("overlap", "order"),
    [
        ("allow", ["1+", "2+", "3+"]),
        ("skip", ["1+", "1-"]),
        ("queue", ["1+", "1-", "2+", "2-", "3+", "3-"]),
        ("buffer_one", ["1+", "1-", "2+", "2-"]),
        ("cancel_running", ["1+", "1-", "3+", "3-"]),
    ],
)
def test_overlap_decides_what_a_fire_does_meanwhile(overlap: str, order: list[str]) -> None:
    seen: list[str] = []
    gate, first = threading.Event(), threading.Event()

    def body(context: Context) -> None:
        seen.append(f"{context['n']}+")
        first.set()
        gate.wait(WAIT)
        seen.append(f"{context['n']}-")

    numbers = iter(range(1, 10))
    with cloaca.WorkflowBuilder("slow"):
        cloaca.task(id="only")(body)
    cloaca.trigger(workflow="slow", name="t", poll_interval="1h", overlap=overlap)(
        lambda: cloaca.TriggerResult.fire({"n": next(numbers)})
    )
    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(3):
            runner.tick("t")
            assert first.wait(WAIT)
        if overlap == "allow":
            while len(seen) < 3:
                threading.Event().wait(0.001)
            assert sorted(seen) == order
            gate.set()
            return
        gate.set()
        runs = [run["id"] for run in runner.list_runs()]
        while any(runner.get_run(run)["completed_at"] is None for run in runs):  # type: ignore[index]
            threading.Event().wait(0.001)
    assert seen == order


# WorkflowResult


def test_branches_merge_three_way(runner: cloaca.DefaultRunner) -> None:
    def left(context: Context) -> None:
        context["shared"] = "left"
        context["deep"]["l"] = 1
        context["list"].append("l")
        del context["gone"]

    def right(context: Context) -> None:
        context["deep"]["r"] = 2
        context["list"].append("r")
        context["both"] = "right"

    def also(context: Context) -> None:
        context["both"] = "also"

    workflow(
        (noop, {"id": "root"}),
        (left, {"id": "left", "dependencies": ["root"]}),
        (right, {"id": "right", "dependencies": ["root"]}),
        (also, {"id": "also", "dependencies": ["root"]}),
    )
    start = {"shared": "old", "deep": {"o": 0}, "list": ["o"], "gone": 1, "both": "old"}
    assert runner.execute("w", start).final_context.to_dict() == {
        "shared": "left",
        "deep": {"o": 0, "l": 1, "r": 2},
        "list": ["o", "l", "r"],
        "both": "also",
    }


def test_a_result_tells_its_times_and_error(runner: cloaca.DefaultRunner) -> None:
    workflow((noop, {"id": "a"}))
    result = runner.execute("w")
    assert repr(result) == "WorkflowResult(status=Completed, error=None)"
    assert result.start_time <= str(result.end_time)
    assert result.start_time.endswith("Z")


@pytest.mark.parametrize("make", [lambda: cloaca.DefaultRunner(":memory:"), cloaca.testing.Runner])
def test_a_failed_run_raises_where_it_is_asked_to(make: Callable[[], cloaca.DefaultRunner]) -> None:
    def fail(context: Context) -> None:
        raise ValueError("boom")

    workflow((noop, {"id": "a"}), name="fine")
    workflow((fail, {"id": "a", "retry_attempts": 1}))
    with make() as runner:
        assert runner.execute("fine", check=True).status == "Completed"
        result = runner.execute("w")
        with pytest.raises(cloaca.RunFailedError, match=r"the run failed: .*ValueError: boom") as by_result:
            result.raise_for_failure()
        assert by_result.value.result is result
        with pytest.raises(RuntimeError, match="ValueError: boom") as by_check:
            runner.execute("w", check=True)
        assert pickle.loads(pickle.dumps(by_check.value)).result.status == "Failed"
        with pytest.raises(RuntimeError, match="ValueError: boom"):
            asyncio.run(runner.execute_async("w", check=True))
        with pytest.raises(ValueError, match="check"):
            runner.execute("w", check="yes")  # type: ignore[arg-type]
        fine = runner.execute("fine")
        assert fine.raise_for_failure() is fine


def test_a_cancelled_run_counts_as_failed_where_it_is_asked_to() -> None:
    result = cloaca.WorkflowResult(
        status="Cancelled", start_time="2026-01-01T00:00:00Z", end_time=None, final_context=Context()
    )
    with pytest.raises(cloaca.RunFailedError, match=r"^the run was cancelled$"):
        result.raise_for_failure()


# DefaultRunnerConfig and the rest


def test_a_config_has_upstream_defaults_and_checks_what_is_set() -> None:
    config = cloaca.DefaultRunnerConfig.default()
    assert config.to_dict() == {
        "max_concurrent_tasks": 4,
        "scheduler_poll_interval_ms": 100,
        "task_timeout_seconds": 300,
        "workflow_timeout_seconds": 3600,
        "db_pool_size": 10,
        "enable_recovery": True,
        "enable_cron_scheduling": True,
        "cron_poll_interval_seconds": 30,
        "cron_max_catchup_executions": 100,
        "cron_enable_recovery": True,
        "cron_recovery_interval_seconds": 300,
        "cron_lost_threshold_minutes": 10,
        "cron_max_recovery_age_seconds": 86400,
        "cron_max_recovery_attempts": 3,
    }
    assert repr(config).startswith("DefaultRunnerConfig(max_concurrent_tasks=4")
    config.max_concurrent_tasks = 9
    assert config.max_concurrent_tasks == 9
    for field in ("max_concurrent_tasks", "task_timeout_seconds", "db_pool_size"):
        for bad in (0, -1):
            with pytest.raises(ValueError, match=field):
                setattr(config, field, bad)


def test_variables_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOACINA_VAR_HOST", "example.org")
    assert cloaca.var("HOST") == cloaca.var("host") == "example.org"
    with pytest.raises(KeyError, match="neither CLOACA_VAR_GHOST nor CLOACINA_VAR_GHOST is set"):
        cloaca.var("GHOST")
    assert cloaca.var_or("GHOST", "none") == "none"


def test_variables_come_from_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pass word\n")
    monkeypatch.setenv("CLOACA_VAR_TOKEN_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("CLOACA_VAR_HOST", "example.org")
    monkeypatch.setenv("CLOACA_VAR_HOST_FILE", str(tmp_path / "never read"))
    assert (cloaca.var("token"), cloaca.var_or("host", "")) == ("pass word", "example.org")
    monkeypatch.setenv("CLOACINA_VAR_HOST", "first.example.org")
    assert cloaca.var("host") == "first.example.org"
    monkeypatch.setenv("CLOACA_VAR_GONE_FILE", str(tmp_path / "gone"))
    for read in (cloaca.var, lambda name: cloaca.var_or(name, "")):
        with pytest.raises(KeyError, match=r"CLOACA_VAR_GONE_FILE names '.*gone': .*No such file"):
            read("gone")


def test_postgresql_is_named_where_it_would_be_needed() -> None:
    with pytest.raises(ValueError, match="Schema name cannot be empty"):
        cloaca.DefaultRunner.with_schema("postgresql://h/d", "")
    with pytest.raises(ValueError, match="must contain only alphanumeric characters and underscores"):
        cloaca.DefaultRunner.with_schema("postgresql://h/d", "a-b")
    with pytest.raises(RuntimeError, match="Failed to set up schema"):
        cloaca.DefaultRunner.with_schema("postgresql://127.0.0.1:1/d", "ok")
    with pytest.raises(RuntimeError, match="there is no host 'h'"):
        cloaca.DefaultRunner("postgresql://h/d?connect_timeout=2")
    with pytest.raises(RuntimeError, match="PostgreSQL"):
        cloaca.DatabaseAdmin(":memory:")


@pytest.mark.parametrize(
    ("named", "warned"), [("a", False), ("root", False), ("beside", True), ("late", True)]
)
def test_a_rule_about_a_task_that_may_not_have_ended_is_warned_of(named: str, warned: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with cloaca.WorkflowBuilder("ruled"):
            cloaca.task(id="root")(lambda context: None)
            cloaca.task(id="a", dependencies=["root"])(lambda context: None)
            cloaca.task(id="beside")(lambda context: None)
            rule = cloaca.any_of(cloaca.always(), cloaca.task_success(named))
            cloaca.task(id="late", dependencies=["a"], trigger_rules=rule)(lambda context: None)
    texts = [str(warning.message) for warning in caught]
    assert [f"'{named}', for which it does not wait" in text for text in texts] == [True] * warned
