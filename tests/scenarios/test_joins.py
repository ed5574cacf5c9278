"""Where branches meet: whatever is joined there, it ends soon, and nobody else waits for it."""

from collections.abc import Callable

import pytest

import cloaca

SECONDS_MAX = 60.0


def marking(task_id: str, dependencies: list[str]) -> None:
    """A task that adds a key of its own."""

    def body(context: cloaca.Context) -> None:
        context[task_id] = True

    cloaca.task(id=task_id, dependencies=dependencies)(body)


def layers(count: int, width: int) -> None:
    """Layers of tasks, each of which depends on the whole layer above."""
    for layer in range(count):
        above = [f"{layer - 1}/{column}" for column in range(width)] if layer else []
        for column in range(width):
            marking(f"{layer}/{column}", above)


@pytest.mark.parametrize(
    ("build", "keys"),
    [(lambda: layers(20, 20), 400), (lambda: layers(30, 30), 900), (lambda: layers(300, 2), 600)],
    ids=["20x20", "30x30", "300x2"],
)
def test_layers_of_crossing_branches_end_soon_with_every_key(build: Callable[[], None], keys: int) -> None:
    with cloaca.WorkflowBuilder("layers"):
        build()
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.submit("layers").result(SECONDS_MAX)
    assert result.status == "Completed"
    assert len(result.final_context) == keys
