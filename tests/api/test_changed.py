"""`reading.changed`: what each task of a run changed in the context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import cloaca
from cloaca import reading


def told(
    path: Path, run_id: str, *, has_graph: bool = True
) -> dict[str, list[tuple[str, str, object, object]]]:
    with reading.Reader(path) as reader:
        details = reading.run(reader, run_id)
        found = reading.changed(details if has_graph else replace(details, graph=[]))
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


@pytest.mark.parametrize("has_graph", [True, False])
def test_what_a_task_added_another_takes_away_or_sets_back(tmp_path: Path, has_graph: bool) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def add(context: cloaca.Context) -> None:
            context["passing"] = 1
            context["kept"] = 2

        @cloaca.task(dependencies=[add])
        def drop(context: cloaca.Context) -> None:
            context.remove("passing")
            context["kept"] = 3

        @cloaca.task(dependencies=[drop])
        def again(context: cloaca.Context) -> None:
            context["passing"] = 1
            context["kept"] = 2

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("w", {})
        run_id = runner.list_runs()[0]["id"]
    assert told(tmp_path / "runs.db", run_id, has_graph=has_graph) == {
        "add": [("+", "passing", None, 1), ("+", "kept", None, 2)],
        "drop": [("~", "kept", 2, 3), ("-", "passing", 1, None)],
        "again": [("+", "passing", None, 1), ("~", "kept", 3, 2)],
    }


def test_a_branch_is_told_of_what_it_was_given_and_of_no_other_branch(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def one(context: cloaca.Context) -> None:
            context["same"] = 1

        @cloaca.task(dependencies=[one], trigger_rules=cloaca.context_value("absent", "Exists", None))
        def skipped(context: cloaca.Context) -> None:
            pass

        @cloaca.task()
        def two(context: cloaca.Context) -> None:
            context["same"] = 1
            context["list"] = [True]

        @cloaca.task(dependencies=[skipped, two], trigger_rules=cloaca.always())
        def both(context: cloaca.Context) -> None:
            context.remove("same")
            context["list"] = [1]

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("w", {})
        run_id = runner.list_runs()[0]["id"]
    assert told(tmp_path / "runs.db", run_id) == {
        "one": [("+", "same", None, 1)],
        "two": [("+", "same", None, 1), ("+", "list", None, [True])],
        "both": [("~", "list", [True], [1]), ("-", "same", 1, None)],
    }


def test_joins_of_many_wide_layers_are_made_once(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        for layer in range(20):
            before = [f"t{layer - 1}.{at}" for at in range(10)] if layer else []
            for at in range(10):

                @cloaca.task(id=f"t{layer}.{at}", dependencies=before)
                def count(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
                    context[handle.task_id] = 1

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("w", {})
        run_id = runner.list_runs()[0]["id"]
    assert told(tmp_path / "runs.db", run_id) == {
        f"t{layer}.{at}": [("+", f"t{layer}.{at}", None, 1)] for layer in range(20) for at in range(10)
    }
