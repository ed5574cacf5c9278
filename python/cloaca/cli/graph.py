"""Pictures of a workflow's tasks in text. Invariant: whatever a task is called, it breaks no picture."""

from __future__ import annotations

from .. import reading
from ..drawing import nodes_of
from ..errors import excerpt
from ..reading.store import unknown
from ..terminal import clean
from .look import opened
from .main import OK
from .parse import UsageError
from .program import workflow_of
from .show import Show
from .where import program, tell_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from ..drawing import Node
    from ..reading import Reader

NAMES_MAX = 1000
"""So many workflows are looked at for the one that is meant."""


def graph(arguments: Namespace, show: Show) -> int:
    """A workflow's tasks and edges."""
    app = None if arguments.database and not arguments.app else program(arguments.app)
    if app is not None:
        tell_program(arguments.database)
        found = workflow_of(app, arguments.workflow)
        name, nodes = found.name, nodes_of(found)
    else:
        with opened(arguments) as reader:
            name, nodes = _kept(reader, arguments.workflow)
    if show.as_json:
        for node in nodes:
            show.record("task", {"id": node.id, "dependencies": node.dependencies, "rule": node.rule})
        return OK
    if arguments.format == "svg":
        from ..picture import Drawn, svg

        show.out.write(svg(name, [Drawn(node.id, node.dependencies, node.rule) for node in nodes]))
        return OK
    picture = {"text": text, "mermaid": mermaid, "dot": dot}[arguments.format]
    for line in picture(name, [(node.id, node.dependencies, _ruled(node)) for node in nodes]):
        show.line(line)
    return OK


def _kept(reader: Reader, name: str | None) -> tuple[str, list[Node]]:
    """A workflow as the store keeps it; without a name the only one."""
    known = reader.native.graphs("", NAMES_MAX)
    if name is None and len(known) != 1:
        shown = ", ".join(excerpt(each) for each in known[:10]) or "none"
        raise UsageError(f"which workflow? {reader.path} has {shown}; or give the program by --app MODULE")
    wanted = known[0] if name is None else name
    nodes = reading.graph(reader, wanted)
    if not nodes:
        raise unknown("workflow", wanted, "workflows", known)
    return wanted, nodes


def _ruled(node: Node) -> str:
    """When a task begins beside what it waits for, in words."""
    if node.rule is None:
        return ""
    from ..picture import words_of

    return f"if {words_of(node.rule)}"


Edges = list[tuple[str, list[str], str]]
"""The tasks in topological order, each with those that it waits for, and its rule in words."""


def text(name: str, tasks: Edges) -> list[str]:
    """One line a task, level by level; what may run side by side stands in one level."""
    levels: dict[str, int] = {}
    for task_id, dependencies, _ in tasks:
        levels[task_id] = max((levels[each] + 1 for each in dependencies), default=0)
    lines = [f"{clean(name)}, {len(tasks)} task{'' if len(tasks) == 1 else 's'}"]
    for level in range(max(levels.values()) + 1):
        for task_id, dependencies, rule in tasks:
            if levels[task_id] == level:
                after = f" after {', '.join(clean(each) for each in dependencies)}" if dependencies else ""
                ruled = f", {clean(rule)}" if rule else ""
                lines.append(f"  {level + 1}  {clean(task_id)}{after}{ruled}")
    return lines


def mermaid(_name: str, tasks: Edges) -> list[str]:
    """A flowchart for Markdown."""
    place = {task_id: at for at, (task_id, *_) in enumerate(tasks)}
    lines = ["flowchart TD"]
    for task_id, _, rule in tasks:
        ruled = f"<br>{_entities(rule)}" if rule else ""
        lines.append(f'    t{place[task_id]}["{_entities(task_id)}{ruled}"]')
    lines += [f"    t{place[each]} --> t{place[task_id]}" for task_id, needs, _ in tasks for each in needs]
    return lines


def dot(name: str, tasks: Edges) -> list[str]:
    """A graph for Graphviz."""
    lines = [f"digraph {_quoted(name)} {{", "    node [shape=box];"]
    for task_id, _, rule in tasks:
        label = f"{_quoted(task_id)[:-1]}\\n{_quoted(rule)[1:]}"
        lines.append(f"    {_quoted(task_id)}{f' [label={label}]' if rule else ''};")
    lines += [f"    {_quoted(each)} -> {_quoted(task_id)};" for task_id, needs, _ in tasks for each in needs]
    return [*lines, "}"]


def _entities(name: str) -> str:
    shown = clean(name)
    return "".join(letter if letter.isalnum() or letter in " _-." else f"#{ord(letter)};" for letter in shown)


def _quoted(name: str) -> str:
    shown = clean(name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{shown}"'
