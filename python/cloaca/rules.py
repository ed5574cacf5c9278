"""Trigger rules: whether a task runs, decided from the context and from how other tasks ended. Only builds
and checks them; the core evaluates. Invariant: a rule that left here is plain data in its one canonical form.
"""

from __future__ import annotations

from .context import checked_value
from .errors import ContextError, WorkflowError, excerpt, typed
from .name import is_text
from .near import hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .types import Operator, Rule

DEPTH_MAX = 50
VALUE_DEPTH_MAX = 20

_OPERATORS = {
    "equals": "Equals",
    "eq": "Equals",
    "==": "Equals",
    "notequals": "NotEquals",
    "ne": "NotEquals",
    "!=": "NotEquals",
    "greaterthan": "GreaterThan",
    "gt": "GreaterThan",
    ">": "GreaterThan",
    "lessthan": "LessThan",
    "lt": "LessThan",
    "<": "LessThan",
    "greaterorequal": "GreaterOrEqual",
    "ge": "GreaterOrEqual",
    "gte": "GreaterOrEqual",
    ">=": "GreaterOrEqual",
    "lessorequal": "LessOrEqual",
    "le": "LessOrEqual",
    "lte": "LessOrEqual",
    "<=": "LessOrEqual",
    "in": "In",
    "contains": "Contains",
    "notcontains": "NotContains",
    "exists": "Exists",
    "notexists": "NotExists",
}
_OPERATOR_NAMES = (
    *dict.fromkeys(_OPERATORS.values()),
    *(spelling for spelling in _OPERATORS if len(spelling) < 4 and spelling != "in"),
)
_BUILD = (
    "build it with context_value, task_success, task_failed, task_skipped, all_of, any_of, none_of or always"
)
_FIELDS = {
    "Always": (),
    "ContextValue": ("key", "operator", "value"),
    "TaskSuccess": ("task_name",),
    "TaskFailed": ("task_name",),
    "TaskSkipped": ("task_name",),
    "All": ("conditions",),
    "Any": ("conditions",),
    "None": ("conditions",),
}


def always() -> Rule:
    """Runs whatever happened to the dependencies."""
    return {"type": "Always"}


def context_value(key: str, operator: Operator, value: Any = None) -> Rule:
    """Runs if the context's value compares like this.

    A key with dots, such as `order.total`, is looked up within objects: at each the key itself is tried
    first, dots and all, and else what stands before its first dot. Lists are not looked into.

    `operator` is `Equals` (or `==`, `eq`), `NotEquals` (`!=`, `ne`), `GreaterThan` (`>`, `gt`), `LessThan`
    (`<`, `lt`), `GreaterOrEqual` (`>=`, `ge`), `LessOrEqual` (`<=`, `le`), `In` (`value` is a list),
    `Contains`, `NotContains`, `Exists` or `NotExists`; the last two ignore `value`. Of a key that isn't there
    only those with `Not` hold.

    Raises:
        WorkflowError: (a `ValueError`) an unknown operator, a key that is no `str` or has parts that are
            empty, `*` or `[…]`, or a value that is no JSON, or no list where the operator is `In`.
    """
    rule = {"type": "ContextValue", "key": key, "operator": operator, "value": value}
    return _checked_context_value(rule)


def task_success(task_name: str) -> Rule:
    """Runs if this task completed. Raises `WorkflowError` unless the id is a `str` that isn't empty."""
    return {"type": "TaskSuccess", "task_name": _checked_text(task_name, "task_name")}


def task_failed(task_name: str) -> Rule:
    """Runs if this task failed. Raises `WorkflowError` unless the id is a `str` that isn't empty."""
    return {"type": "TaskFailed", "task_name": _checked_text(task_name, "task_name")}


def task_skipped(task_name: str) -> Rule:
    """Runs if this task was skipped. Raises `WorkflowError` unless the id is a `str` that isn't empty."""
    return {"type": "TaskSkipped", "task_name": _checked_text(task_name, "task_name")}


def all_of(*conditions: Rule) -> Rule:
    """Runs if all of these hold. Raises `WorkflowError` if one is no rule."""
    return check({"type": "All", "conditions": list(conditions)}, "conditions")


def any_of(*conditions: Rule) -> Rule:
    """Runs if at least one of these holds. Raises `WorkflowError` if one is no rule."""
    return check({"type": "Any", "conditions": list(conditions)}, "conditions")


def none_of(*conditions: Rule) -> Rule:
    """Runs if none of these holds. Raises `WorkflowError` if one is no rule."""
    return check({"type": "None", "conditions": list(conditions)}, "conditions")


def check(rule: object, argument: str) -> Rule:
    """A deep copy of a rule in its canonical form.

    Raises:
        WorkflowError: (a `ValueError`) it isn't one; the message names the argument and shows the part that
            is wrong.
    """
    if not isinstance(rule, dict):
        raise WorkflowError(f"{argument} is {excerpt(rule)}, {typed(rule)}; {_BUILD}")
    try:
        return _checked(rule, DEPTH_MAX)
    except WorkflowError as error:
        raise WorkflowError(f"{argument}: {error}") from None


def tasks_named(rule: Rule) -> Iterator[str]:
    """The ids of the tasks that a checked rule asks about."""
    if "task_name" in rule:
        yield rule["task_name"]
    for condition in rule.get("conditions", ()):
        yield from tasks_named(condition)


def _checked(rule: object, room: int) -> Rule:
    if not isinstance(rule, dict):
        raise WorkflowError(f"trigger rule {excerpt(rule)} is {typed(rule)}; {_BUILD}")
    kind = rule.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None or not isinstance(kind, str):
        raise WorkflowError(
            f"trigger rule {excerpt(rule)} has the type {excerpt(kind)}; known are {', '.join(_FIELDS)}"
        )
    if rule.keys() != {"type", *fields}:
        raise WorkflowError(
            f"trigger rule {excerpt(rule)} must have exactly the keys {', '.join(('type', *fields))}"
        )
    if kind == "ContextValue":
        return _checked_context_value(rule)
    if "task_name" in rule:
        return {"type": kind, "task_name": _checked_text(rule["task_name"], "task_name")}
    if "conditions" in rule:
        return {"type": kind, "conditions": _checked_conditions(rule["conditions"], room)}
    return {"type": kind}


def _checked_conditions(conditions: object, room: int) -> list[Rule]:
    if not isinstance(conditions, (list, tuple)):
        raise WorkflowError(
            f"trigger rule has the conditions {excerpt(conditions)}; they must be a list of rules"
        )
    if room == 0:
        raise WorkflowError(f"trigger rule is nested deeper than {DEPTH_MAX} levels, or contains itself")
    return [_checked(condition, room - 1) for condition in conditions]


def _checked_context_value(rule: Rule) -> Rule:
    key = _checked_key(rule["key"])
    operator = _operator(rule["operator"])
    try:
        value = checked_value(rule["value"], "value", VALUE_DEPTH_MAX)
    except ContextError as error:
        raise WorkflowError(f"value of the rule on key {excerpt(key)}: {error}") from None
    if operator == "In" and not isinstance(value, list):
        raise WorkflowError(f"value is {excerpt(value)}; the operator is In, so it must be a list")
    return {"type": "ContextValue", "key": key, "operator": operator, "value": value}


def _checked_key(given: object) -> str:
    key = _checked_text(given, "key")
    for part in key.split("."):
        if part in ("", "*") or "[" in part or "]" in part:
            raise WorkflowError(
                f"key is {excerpt(key)}, with {part!r} for a part; it must be a key, or keys of objects with"
                ' dots between, such as "order.total"'
            )
    return key


def _operator(operator: object) -> str:
    name = _OPERATORS.get(operator.strip().lower().replace("_", "")) if isinstance(operator, str) else None
    if name is None:
        meant = hint(operator if isinstance(operator, str) else "", "operators", _OPERATOR_NAMES)
        raise WorkflowError(f"operator is {excerpt(operator)}; it must be one that is known{meant}")
    return name


def _checked_text(value: object, argument: str) -> str:
    if callable(value) and (name := getattr(value, "__name__", None)):
        raise WorkflowError(f"{argument} is a function; give the id of its task, {excerpt(name)}")
    if not isinstance(value, str) or not value or not is_text(value):
        raise WorkflowError(
            f"{argument} is {excerpt(value)}, {typed(value)}; it must be a str that isn't empty"
        )
    return str(value)
