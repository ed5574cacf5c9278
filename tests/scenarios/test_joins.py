"""Where branches meet: whatever is joined there, it ends soon, and nobody else waits for it."""

import threading
from collections.abc import Callable
from pathlib import Path

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


def heavy(task_id: str, dependencies: list[str], **options: object) -> None:
    """A task that adds more than is joined or looked at in passing."""

    def body(context: cloaca.Context) -> None:
        context[task_id] = task_id * 1_000_000

    cloaca.task(id=task_id, dependencies=dependencies, **options)(body)  # type: ignore[arg-type]


def test_a_run_ends_with_all_that_its_last_tasks_left_however_much_that_is() -> None:
    with cloaca.WorkflowBuilder("fan"):
        marking("root", [])
        heavy("left", ["root"])
        heavy("right", ["root"])
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.submit("fan", {"by": 1}).result(SECONDS_MAX)
    assert result.status == "Completed"
    assert list(result.final_context) == ["by", "root", "left", "right"]


@pytest.mark.parametrize(("operator", "status"), [("Exists", "Completed"), ("NotExists", "Skipped")])
def test_a_rule_looks_at_a_context_however_large(operator: str, status: str) -> None:
    with cloaca.WorkflowBuilder("ruled"):
        heavy("a", [])
        heavy("b", [])
        rule = cloaca.all_of(cloaca.task_success("a"), cloaca.context_value("b", operator))
        cloaca.task(id="c", dependencies=["a", "b"], trigger_rules=rule)(lambda context: None)
        marking("d", ["c"])
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("ruled")
        result = run.result(SECONDS_MAX)
        tasks = {task["id"]: task["status"] for task in runner.get_run(run.id)["tasks"]}
    assert result.status == "Completed"
    assert tasks == {"a": "Completed", "b": "Completed", "c": status, "d": status}
    assert ("d" in result.final_context) == (status == "Completed")


def test_a_run_whose_last_tasks_end_during_a_shutdown_has_its_end_kept(tmp_path: Path) -> None:
    begun = threading.Semaphore(0)

    def declare(side: str) -> None:
        def body(context: cloaca.Context) -> None:
            begun.release()
            context[side] = side * 1_000_000

        cloaca.task(id=side)(body)

    with cloaca.WorkflowBuilder("fan"):
        declare("left")
        declare("right")
    runner = cloaca.DefaultRunner(str(tmp_path / "runs.db"))
    run = runner.submit("fan")
    for _ in range(2):
        assert begun.acquire(timeout=SECONDS_MAX)
    runner.shutdown()
    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        rows = runner.query("SELECT status FROM runs WHERE id = ?", [run.id])
    assert rows[0]["status"] == "Completed"
