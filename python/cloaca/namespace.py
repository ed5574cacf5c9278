"""The full names of tasks: `tenant::package::workflow::task`. Only names; never looks anything up.

Invariant: `TaskNamespace.from_string(str(namespace)) == namespace`.
"""

from __future__ import annotations

from .errors import WorkflowError, excerpt
from .frozen import Frozen
from .name import SEPARATOR

DEFAULT_TENANT = "public"
DEFAULT_PACKAGE = "embedded"


class TaskNamespace(Frozen):
    """The full name of a task, or of a workflow when `task_id` is empty.

    Raises:
        WorkflowError: (a `ValueError`) a part that is no `str`, is empty (`task_id` may be) or contains `::`.
    """

    __slots__ = (  # noqa: RUF023  the order of the parts
        "tenant_id",
        "package_name",
        "workflow_id",
        "task_id",
    )

    tenant_id: str
    package_name: str
    workflow_id: str
    task_id: str

    def __init__(self, tenant_id: str, package_name: str, workflow_id: str, task_id: str) -> None:
        self._fill(
            tenant_id=_part(tenant_id, "tenant_id"),
            package_name=_part(package_name, "package_name"),
            workflow_id=_part(workflow_id, "workflow_id"),
            task_id=_part(task_id, "task_id") if task_id != "" else "",
        )

    @staticmethod
    def from_string(namespace: str) -> TaskNamespace:
        """The namespace that `tenant::package::workflow::task` spells.

        Raises:
            WorkflowError: (a `ValueError`) it isn't four parts.
        """
        parts = namespace.split(SEPARATOR) if isinstance(namespace, str) else []
        if len(parts) != 4:
            raise WorkflowError(f"namespace is {excerpt(namespace)}; write tenant::package::workflow::task")
        return TaskNamespace(*parts)

    def parent(self) -> TaskNamespace:
        """The workflow's namespace: the same without the task."""
        return TaskNamespace(self.tenant_id, self.package_name, self.workflow_id, "")

    def is_child_of(self, parent: TaskNamespace) -> bool:
        """Whether this is a task of that workflow."""
        _checked(parent, "parent")
        return self.task_id != "" and parent.task_id == "" and self.parent() == parent

    def is_sibling_of(self, other: TaskNamespace) -> bool:
        """Whether both are tasks of one workflow, and not the same."""
        _checked(other, "other")
        return self != other and "" not in (self.task_id, other.task_id) and self.parent() == other.parent()

    def __str__(self) -> str:
        return SEPARATOR.join(self._values())

    def __repr__(self) -> str:
        return f"TaskNamespace({', '.join(map(repr, self._values()))})"


class WorkflowContext(Frozen):
    """Where a workflow stands, from which its tasks get their full names.

    Raises:
        WorkflowError: (a `ValueError`) as `TaskNamespace`.
    """

    __slots__ = ("tenant_id", "package_name", "workflow_id")  # noqa: RUF023  the order of the parts

    tenant_id: str
    package_name: str
    workflow_id: str

    def __init__(self, tenant_id: str, package_name: str, workflow_id: str) -> None:
        self._fill(
            tenant_id=_part(tenant_id, "tenant_id"),
            package_name=_part(package_name, "package_name"),
            workflow_id=_part(workflow_id, "workflow_id"),
        )

    def task_namespace(self, task_id: str) -> TaskNamespace:
        """The full name of a task here."""
        return TaskNamespace(self.tenant_id, self.package_name, self.workflow_id, task_id)

    def resolve_dependency(self, task_id: str) -> TaskNamespace:
        """The full name of a dependency, which always stands in the same workflow."""
        return self.task_namespace(task_id)

    def workflow_namespace(self) -> TaskNamespace:
        """The workflow's namespace, without a task."""
        return self.task_namespace("")

    def contains_namespace(self, namespace: TaskNamespace) -> bool:
        """Whether the namespace is this workflow's or one of its tasks'."""
        return _checked(namespace, "namespace").parent() == self.workflow_namespace()

    def __str__(self) -> str:
        return SEPARATOR.join(self._values())

    def __repr__(self) -> str:
        return f"WorkflowContext({', '.join(map(repr, self._values()))})"


def _checked(value: object, argument: str) -> TaskNamespace:
    if not isinstance(value, TaskNamespace):
        raise WorkflowError(f"{argument} is {excerpt(value)}; it must be a TaskNamespace")
    return value


def _part(value: object, field: str) -> str:
    if not isinstance(value, str) or not value or SEPARATOR in value:
        raise WorkflowError(
            f"{field} is {excerpt(value)}; it must be a str that isn't empty and has no {SEPARATOR}"
        )
    return str(value)
