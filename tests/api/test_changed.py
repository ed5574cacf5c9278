"""`reading.changed`: what each task of a run changed in the context."""

from __future__ import annotations

from pathlib import Path

import cloaca
from cloaca import reading


def told(path: Path, run_id: str) -> dict[str, list[tuple[str, str, object, object]]]:
    with reading.Reader(path) as reader:
        found = reading.changed(reading.run(reader, run_id))
    return {
        task: [(each.sign, each.key, each.before, each.after) for each in changes]
        for task, changes in found.items()
    }


def test_each_task_is_told_what_it_changed_itself(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def first(context: cloaca.Context) -> None:
            context["made"] = 1
            context["given"] = True
            context.remove("gone")

        @cloaca.task(dependencies=[first])
        def left(context: cloaca.Context) -> None:
            context["left"] = [1]

        @cloaca.task(dependencies=[left])
        def nothing(context: cloaca.Context) -> None:
            pass

        @cloaca.task(dependencies=[nothing], retry_attempts=1)
        def fails(context: cloaca.Context) -> None:
            context["lost"] = 1
            raise ValueError

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("w", {"given": 1, "gone": 2, "kept": 3})
        run_id = runner.list_runs()[0]["id"]
    assert told(tmp_path / "runs.db", run_id) == {
        "first": [("+", "made", None, 1), ("~", "given", 1, True), ("-", "gone", 2, None)],
        "left": [("+", "left", None, [1])],
        "nothing": [],
    }


def test_a_join_has_changed_nothing_of_what_its_branches_left(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def one(context: cloaca.Context) -> None:
            context["one"] = 1

        @cloaca.task()
        def two(context: cloaca.Context) -> None:
            context["two"] = 2

        @cloaca.task(dependencies=[one, two])
        def both(context: cloaca.Context) -> None:
            context["sum"] = context["one"] + context["two"]

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("w", {"kept": 0})
        run_id = runner.list_runs()[0]["id"]
    assert told(tmp_path / "runs.db", run_id) == {
        "one": [("+", "one", None, 1)],
        "two": [("+", "two", None, 2)],
        "both": [("+", "sum", None, 3)],
    }


def test_a_run_of_many_tasks_takes_no_longer_than_they_are_many(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        for number in range(100):
            before = [f"t{number - 1}"] if number else []

            @cloaca.task(id=f"t{number}", dependencies=before)
            def count(context: cloaca.Context) -> None:
                context["n"] = context.get("n", 0) + 1

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("w", {})
        run_id = runner.list_runs()[0]["id"]
    found = told(tmp_path / "runs.db", run_id)
    assert found["t0"] == [("+", "n", None, 1)]
    assert [found[f"t{number}"] for number in range(1, 100)] == [
        [("~", "n", number, number + 1)] for number in range(1, 100)
    ]
