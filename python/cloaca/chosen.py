"""Which of the program's declarations a runner is for. Decides nothing else, and knows no engine.

Invariant: what is chosen is chosen by name, so that whatever is declared again under it is meant too.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import check, place, registry
from .errors import ArgumentTypeError, TriggerError, WorkflowError, excerpt
from .near import hint
from .workflow import Workflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .trigger import TriggerDefinition

    TriggerRefs = Iterable[Callable[..., Any] | str]
    WorkflowRefs = Iterable[Workflow | str]


class Chosen:
    """The triggers and the workflows that a runner is for; `None` where nobody chose.

    Attributes:
        triggers: the names of the triggers, crons too; if nobody chose, all that start one of the workflows.
        workflows: the names of the workflows; if nobody chose, all.
    """

    __slots__ = ("triggers", "workflows")

    def __init__(
        self, triggers: frozenset[str] | None = None, workflows: frozenset[str] | None = None
    ) -> None:
        self.triggers = triggers
        self.workflows = workflows

    def has_trigger(self, trigger: TriggerDefinition) -> bool:
        """Whether it is one of those."""
        if self.triggers is not None:
            return trigger.name in self.triggers
        return self.workflows is None or trigger.kind.workflow in self.workflows

    def has_workflow(self, name: str) -> bool:
        """Whether it is one of those."""
        return self.workflows is None or name in self.workflows

    def refuse(self, workflow: str) -> None:
        """Raises `WorkflowError` for a workflow that is declared, and not one of those."""
        if not self.has_workflow(workflow) and registry.knows(workflow):
            raise WorkflowError(
                f"workflow {excerpt(workflow)} is declared, but this runner is not for it: it was made with"
                f" workflows={sorted(self.workflows or ())}"
            )


EVERYTHING = Chosen()
"""Whatever the program declares."""


def chosen(triggers: TriggerRefs | None, workflows: WorkflowRefs | None = None) -> Chosen:
    """What these arguments choose.

    Raises:
        ArgumentTypeError: (a `TypeError`) one of them is no list of names, functions or workflows.
        TriggerError: (a `ValueError`) a trigger that is not declared, or that starts another workflow than
            those.
        WorkflowError: (a `ValueError`) a workflow that is not declared.
    """
    of_triggers = _names("triggers", triggers, names_of_trigger, "names or decorated functions")
    of_workflows = _names("workflows", workflows, _names_of_workflow, "names or Workflow objects")
    made = Chosen(of_triggers, of_workflows)
    for name in sorted(of_triggers or ()):
        declared = registry.triggers.get(name)
        starts = None if declared is None else declared.kind.workflow
        if starts is not None and not made.has_workflow(starts):
            raise TriggerError(
                f"triggers holds {excerpt(name)}, which starts workflow {excerpt(starts)}; workflows must"
                " hold that as well"
            )
    return made


def _names(
    argument: str, given: object, names_of: Callable[[object], list[str]], kinds: str
) -> frozenset[str] | None:
    if given is None:
        return None
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise ArgumentTypeError(f"{argument} is {excerpt(given)}; it must be a list of {kinds}")
    names: list[str] = []
    for each in given:
        if not isinstance(each, (str, Workflow)) and not callable(each):
            raise ArgumentTypeError(f"{argument} holds {excerpt(each)}; it must be a list of {kinds}")
        names += names_of(each)
    return frozenset(names)


def names_of_trigger(trigger: object) -> list[str]:
    """The trigger of this name, or those of this function. Raises `TriggerError` if there is none."""
    known = dict(registry.triggers)
    if isinstance(trigger, str):
        if trigger not in known:
            meant = hint(trigger, "triggers", sorted(known))
            raise TriggerError(
                f"triggers holds {excerpt(trigger)}, which is not declared{meant}{outside(trigger)}"
            )
        return [trigger]
    names = _names_of_function(trigger)
    if not names:
        raise TriggerError(
            f"triggers holds {place.of_function(trigger)}, which is no trigger that is declared"
            f" here{_way_in(trigger)}"
        )
    return names


def name_of_one(trigger: object) -> str:
    """The name of the one trigger that is given by its name or its function.

    Raises:
        TriggerError: it is no text, or the function is no trigger or several.
    """
    if isinstance(trigger, str) or not callable(trigger):
        return check.text(trigger, "trigger_name", TriggerError)
    names = _names_of_function(trigger)
    if len(names) != 1:
        told = f"triggers {', '.join(map(repr, names))}; give the name" if names else ""
        raise TriggerError(
            f"trigger_name is {place.of_function(trigger)}, which is"
            f" {told or f'no trigger that is declared here{_way_in(trigger)}'}"
        )
    return names[0]


def _way_in(function: object) -> str:
    """What to do about a function that is no trigger here: it may be one that was put aside."""
    name = getattr(function, "__name__", None)
    put_aside = outside(name) if isinstance(name, str) else ""
    return put_aside or "; decorate it with @cloaca.trigger(...)"


def _names_of_function(function: object) -> list[str]:
    known = dict(registry.triggers)
    return [name for name, definition in known.items() if definition.function == function]


def _names_of_workflow(workflow: object) -> list[str]:
    if isinstance(workflow, Workflow):
        if not registry.knows(workflow.name):
            registry.add_workflow(workflow)
        return [workflow.name]
    name = workflow if isinstance(workflow, str) else ""
    if not registry.knows(name):
        meant = hint(name, "workflows", registry.names())
        raise WorkflowError(
            f"workflows holds {excerpt(workflow)}, which is not declared{meant}{outside(name)}"
        )
    return [name]


KEPT_BY = (
    "isolated(triggers=[...]), or @pytest.mark.cloaca_runner(triggers=[...]); with [] the workflows alone"
    ' stay, with "all" everything'
)
"""How a test keeps what the program declares."""


def outside(name: str) -> str:
    """What to do about something that `cloaca.testing.isolated` put aside; nothing if it didn't."""
    if not registry.is_aside(name):
        return ""
    return f"; {excerpt(name)} is declared outside of what is isolated here: keep it with {KEPT_BY}"
