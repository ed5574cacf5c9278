"""What a run should come to, worked out the obvious way: task after task, in order, without an engine.

Each task writes one key of its own, so that merging contexts is a union.
"""

from dataclasses import dataclass, field
from typing import Any

Statuses = dict[str, str]
Data = dict[str, Any]


@dataclass(frozen=True)
class ModelTask:
    """A task that fails so many times before it succeeds."""

    id: str
    dependencies: tuple[str, ...]
    attempts: int
    failures: int
    rule: dict[str, Any] | None


@dataclass
class Outcome:
    """How a run ended."""

    statuses: Statuses = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    context: Data = field(default_factory=dict)


def holds(rule: dict[str, Any], context: Data, statuses: Statuses) -> bool:
    """Whether a rule is true."""
    match rule["type"]:
        case "Always":
            return True
        case "TaskSuccess" | "TaskFailed" | "TaskSkipped" as kind:
            wanted = {"TaskSuccess": "Completed", "TaskFailed": "Failed", "TaskSkipped": "Skipped"}[kind]
            return statuses.get(rule["task_name"]) == wanted
        case "ContextValue":
            return (rule["key"] in context) == (rule["operator"] == "Exists")
    parts = [holds(part, context, statuses) for part in rule["conditions"]]
    return {"All": all(parts), "Any": any(parts), "None": not any(parts)}[rule["type"]]


def run(tasks: list[ModelTask], initial: Data) -> Outcome:
    """The outcome of tasks in which each stands after its dependencies."""
    outcome = Outcome()
    outputs: dict[str, Data] = {}
    for task in tasks:
        befores = [outcome.statuses[before] for before in task.dependencies]
        context = dict(initial)
        for before in task.dependencies:
            context |= outputs[before]
        if task.rule is not None:
            starts = holds(task.rule, context, outcome.statuses)
        else:
            starts = not befores or ("Failed" not in befores and "Completed" in befores)
        succeeds = starts and task.failures < task.attempts
        outcome.statuses[task.id] = "Completed" if succeeds else "Failed" if starts else "Skipped"
        outcome.attempts[task.id] = min(task.failures + 1, task.attempts) if starts else 0
        outputs[task.id] = context | {task.id: True} if succeeds else context
    needed = {before for task in tasks for before in task.dependencies}
    outcome.context = dict(initial)
    for task in tasks:
        if task.id not in needed:
            outcome.context |= outputs[task.id]
    return outcome
