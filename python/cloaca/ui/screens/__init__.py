"""The screens: each a function of what is asked for. They read, and decide what is worth showing."""

from __future__ import annotations

from ...errors import excerpt
from ...reading import MissingError
from . import overview, run, runs, schedules, system, workflows
from .screen import Ask, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ask", "Screen", "find"]

SCREENS: dict[str, Callable[[Ask], Screen]] = {
    "/": overview.overview,
    "/runs": runs.runs,
    "/run": run.run,
    "/run/context": run.context,
    "/triggers": schedules.triggers,
    "/trigger": schedules.trigger,
    "/workflows": workflows.workflows,
    "/workflow": workflows.workflow,
    "/system": system.system,
}


def find(ask: Ask) -> Screen:
    """What is to be seen there.

    Raises:
        MissingError: (a `LookupError`) nothing.
    """
    found = SCREENS.get(ask.path.rstrip("/") or "/")
    if found is None:
        raise MissingError(f"there is no screen {excerpt(ask.path)}")
    return found(ask)
