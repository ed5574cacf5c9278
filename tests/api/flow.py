"""Workflows of one task, and bodies for them. Asserts nothing but that a gate is opened in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import cloaca

WAIT = 20.0
"""How long a body or a test waits for another before it counts as hanging, in seconds."""


class Gate:
    """A task body that says that it was entered, and waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, context: cloaca.Context) -> None:
        self.entered.set()
        assert self.open.wait(WAIT)
        context["through"] = True


def nothing(context: cloaca.Context) -> None:
    """Leaves the context as it is."""


def boom(context: cloaca.Context) -> None:
    """Fails."""
    raise ValueError("boom")


def declare(name: str, body: Callable[..., object] = nothing, **settings: Any) -> None:
    """Declares a workflow of one task, `only`, that is tried once unless the settings say otherwise."""
    with cloaca.WorkflowBuilder(name):
        cloaca.task(**{"id": "only", "retry_attempts": 1, **settings})(body)
