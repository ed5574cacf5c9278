"""What a rule may ask of a context: values within others, and how they compare."""

from __future__ import annotations

from typing import Any

import pytest

import cloaca

CONTEXT: dict[str, Any] = {
    "order": {"total": 5, "lines": {"count": 2}, "ship.to": "Bonn", "note": None, "tags": ["new", "paid"]},
    "order.state": "paid",
    "a": {"b": 1, "b.c": {"d": 2}},
    "a.b": 10,
    "name": "x",
    "list": [{"a": 1}],
}


def noop(context: cloaca.Context) -> None:
    """A task that does nothing."""


def runs(runner: cloaca.DefaultRunner, rule: dict[str, Any], context: dict[str, Any] = CONTEXT) -> bool:
    """Whether a task with this rule runs after one that leaves this context."""
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="first")(noop)
        cloaca.task(id="second", dependencies=["first"], trigger_rules=rule)(noop)
    run = runner.submit("w", context)
    assert run.result(timeout=20).status == "Completed"
    found = runner.get_run(run.id)
    assert found is not None
    return {task["id"]: task["status"] for task in found["tasks"]}["second"] == "Completed"


@pytest.mark.parametrize(
    ("key", "operator", "value", "holds"),
    [
        ("order.total", ">=", 5, True),
        ("order.total", ">=", 5.0, True),
        ("order.total", ">=", 6, False),
        ("order.total", "<=", 5, True),
        ("order.total", "<=", 4.5, False),
        ("order.total", ">", 4, True),
        ("order.total", "ge", 5, True),
        ("order.total", "lte", 5, True),
        ("order.total", "greater_or_equal", 6, False),
        ("order.total", "LessOrEqual", 6, True),
        ("order.total", "In", [1, 5.0], True),
        ("order.total", "in", [], False),
        ("order.total", "In", (5,), True),
        ("order.total", ">=", "5", False),
        ("order.missing", ">=", 5, False),
        ("order.missing", "<=", 5, False),
        ("order.missing", "In", [None], False),
        ("order.note", "In", [None], True),
        ("name", "In", ["x", "y"], True),
        ("name", "In", ["xy"], False),
        ("name", ">=", "x", True),
        ("name", "<=", "w", False),
        ("order.lines.count", "==", 2, True),
        ("order.lines", "==", {"count": 2.0}, True),
        ("order.note", "Exists", None, True),
        ("order.none", "NotExists", None, True),
        ("order.total.more", "Exists", None, False),
        ("name.more", "NotEquals", 1, True),
        ("order.tags", "Contains", "paid", True),
        ("list.0", "Exists", None, False),
    ],
)
def test_a_rule_looks_into_objects(
    runner: cloaca.DefaultRunner, key: str, operator: str, value: object, holds: bool
) -> None:
    assert runs(runner, cloaca.context_value(key, operator, value)) is holds


@pytest.mark.parametrize(
    ("key", "value"),
    [("order.state", "paid"), ("order.ship.to", "Bonn"), ("a.b", 10), ("a.b.c", {"d": 2})],
)
def test_a_key_that_has_the_dot_itself_wins(runner: cloaca.DefaultRunner, key: str, value: object) -> None:
    assert runs(runner, cloaca.context_value(key, "==", value))


def test_the_new_operators_have_one_canonical_form() -> None:
    for spelling, canonical in (
        (">=", "GreaterOrEqual"),
        ("gte", "GreaterOrEqual"),
        ("GREATER_OR_EQUAL", "GreaterOrEqual"),
        ("<=", "LessOrEqual"),
        ("le", "LessOrEqual"),
        ("IN", "In"),
    ):
        assert cloaca.context_value("k", spelling, [1])["operator"] == canonical


@pytest.mark.parametrize("operator", ["=>", "~", "is", "", "GreaterThen", "NotIn", None, 5])
def test_an_unknown_operator_is_refused_where_it_is_declared(operator: Any) -> None:
    rule = {"type": "ContextValue", "key": "k", "operator": operator, "value": 1}
    for declare in (
        lambda: cloaca.context_value("k", operator, 1),
        lambda: cloaca.task(trigger_rules=rule),
        lambda: cloaca.task(trigger_rules={"type": "All", "conditions": [rule]}),
    ):
        with pytest.raises(cloaca.WorkflowError, match="operator is") as caught:
            declare()
        assert operator != "GreaterThen" or "did you mean 'GreaterThan'?" in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        ".total",
        "order.",
        "order..total",
        "items[0]",
        "order.items[0].price",
        "items.*",
        "*",
        5,
        ["a"],
    ],
)
def test_a_key_of_an_unknown_form_is_refused_where_it_is_declared(key: Any) -> None:
    rule = {"type": "ContextValue", "key": key, "operator": "Exists", "value": None}
    for declare in (lambda: cloaca.context_value(key, "Exists"), lambda: cloaca.task(trigger_rules=rule)):
        with pytest.raises(cloaca.WorkflowError, match=r"key is .*must"):
            declare()


@pytest.mark.parametrize("value", ["paid", 5, None, {"a": 1}])
def test_in_needs_a_list(value: object) -> None:
    with pytest.raises(cloaca.WorkflowError, match=r"value is .*In.*must be a list"):
        cloaca.context_value("k", "In", value)


def test_the_version_of_a_workflow_with_a_rule_stays_as_it_was() -> None:
    """A run that began under an older release goes on without a word about another version."""
    with cloaca.WorkflowBuilder("w") as builder:
        cloaca.task(id="a")(noop)
        rule = cloaca.all_of(cloaca.context_value("order.total", "gt", 1), cloaca.task_success("a"))
        cloaca.task(id="b", dependencies=["a"], trigger_rules=rule)(noop)
    assert builder.build().version == "8beefa397c63d89d37404f5acb2512c9"


def test_a_function_is_answered_with_the_id_that_is_meant() -> None:
    def post(context: cloaca.Context) -> None: ...

    given: Any = post
    text = "task_name is a function; give the id of its task, 'post'"
    for rule in (cloaca.task_success, cloaca.task_failed, cloaca.task_skipped):
        with pytest.raises(cloaca.WorkflowError, match=text):
            rule(given)
