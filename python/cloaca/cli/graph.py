"""Pictures of a workflow's tasks in text. Invariant: whatever a task is called, it breaks no picture."""

from __future__ import annotations

from ..terminal import clean
from .main import OK
from .program import workflow_of
from .show import Show
from .where import program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from ..workflow import Workflow


def graph(arguments: Namespace, show: Show) -> int:
    """A workflow's tasks and edges."""
    found = workflow_of(program(arguments.app), arguments.workflow)
    if show.as_json:
        for task_id, dependencies in edges(found):
            show.record("task", {"id": task_id, "dependencies": dependencies})
        return OK
    if arguments.format == "svg":
        show.out.write(found.to_svg())
        return OK
    picture = {"text": text, "mermaid": mermaid, "dot": dot}[arguments.format]
    for line in picture(found):
        show.line(line)
    return OK


def edges(workflow: Workflow) -> list[tuple[str, list[str]]]:
    """The tasks in topological order, each with those that it waits for."""
    tasks = {task.id: list(task.dependencies) for task in workflow._tasks}
    return [(task_id, tasks[task_id]) for task_id in workflow._plan()]


def text(workflow: Workflow) -> list[str]:
    """One line a task, level by level; what may run side by side stands in one level."""
    tasks = edges(workflow)
    levels: dict[str, int] = {}
    for task_id, dependencies in tasks:
        levels[task_id] = max((levels[each] + 1 for each in dependencies), default=0)
    lines = [f"{clean(workflow.name)}, {len(tasks)} task{'' if len(tasks) == 1 else 's'}"]
    for level in range(max(levels.values()) + 1):
        for task_id, dependencies in tasks:
            if levels[task_id] == level:
                after = f" after {', '.join(clean(each) for each in dependencies)}" if dependencies else ""
                lines.append(f"  {level + 1}  {clean(task_id)}{after}")
    return lines


def mermaid(workflow: Workflow) -> list[str]:
    """A flowchart for Markdown."""
    tasks = edges(workflow)
    place = {task_id: at for at, (task_id, _) in enumerate(tasks)}
    lines = ["flowchart TD"]
    lines += [f'    t{place[task_id]}["{_entities(task_id)}"]' for task_id, _ in tasks]
    lines += [f"    t{place[each]} --> t{place[task_id]}" for task_id, needs in tasks for each in needs]
    return lines


def dot(workflow: Workflow) -> list[str]:
    """A graph for Graphviz."""
    tasks = edges(workflow)
    lines = [f"digraph {_quoted(workflow.name)} {{", "    node [shape=box];"]
    lines += [f"    {_quoted(task_id)};" for task_id, _ in tasks]
    lines += [f"    {_quoted(each)} -> {_quoted(task_id)};" for task_id, needs in tasks for each in needs]
    return [*lines, "}"]


def _entities(name: str) -> str:
    shown = clean(name)
    return "".join(letter if letter.isalnum() or letter in " _-." else f"#{ord(letter)};" for letter in shown)


def _quoted(name: str) -> str:
    shown = clean(name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{shown}"'
