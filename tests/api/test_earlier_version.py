"""Runs that go on in another version of their workflow, after a deploy: what is shown of them."""

import re
from pathlib import Path

import pytest

import cloaca
import cloaca.testing
from cloaca import reading

WAIT = 30


def first_version() -> None:
    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="fetch")(put("rows"))
        cloaca.task(id="old", dependencies=["fetch"], retry_attempts=2, retry_delay_ms=1)(boom)
        cloaca.task(id="report", dependencies=["old"])(put("report"))


def second_version() -> None:
    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="fetch")(put("rows"))
        cloaca.task(id="new", dependencies=["fetch"])(put("price"))
        cloaca.task(id="report", dependencies=["new"])(put("report"))


def broken_second_version() -> None:
    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="fetch")(put("rows"))
        cloaca.task(id="new", dependencies=["fetch"])(boom)
        cloaca.task(id="report", dependencies=["new"])(put("report"))


def put(key: str):  # type: ignore[no-untyped-def]
    def body(context: cloaca.Context) -> None:
        context[key] = 1

    return body


def boom(context: cloaca.Context) -> None:
    raise ValueError("no price")


def failed(path: Path) -> str:
    """A run that failed in the first version."""
    with cloaca.testing.isolated():
        first_version()
        with cloaca.DefaultRunner(path) as runner:
            run = runner.submit("import")
            assert run.result(WAIT).status == "Failed"
            return run.id


@pytest.fixture
def went_on(tmp_path: Path) -> str:
    """It was retried in the second one."""
    run_id = failed(tmp_path / "runs.db")
    second_version()
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        assert runner.retry(run_id).result(WAIT).status == "Completed"
    return run_id


def test_attempts_of_a_task_that_the_version_has_no_more_are_told(went_on: str, tmp_path: Path) -> None:
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        details = runner.get_run(went_on)
        assert details is not None
        tasks = {task["id"]: task for task in details["tasks"]}
        assert {name: task["status"] for name, task in tasks.items()} == {
            "fetch": "Completed",
            "old": "Failed",
            "new": "Completed",
            "report": "Completed",
        }
        assert [name for name, task in tasks.items() if task["earlier_version"]] == ["old"]
        old = tasks["old"]
        assert [tried["error"] for tried in old["tries"]] == ["ValueError: no price"] * 2
        assert (old["attempts"], old["error"], old["error_type"]) == (2, "ValueError: no price", "ValueError")
        assert old["started_at"] == old["tries"][0]["started_at"]
        assert old["completed_at"] == old["tries"][1]["ended_at"]


def test_a_task_of_an_earlier_version_took_what_its_last_attempts_did(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    run_id = failed(path)
    for declare in (broken_second_version, first_version, second_version):
        with cloaca.testing.isolated():
            declare()
            with cloaca.DefaultRunner(path) as runner:
                runner.retry(run_id).result(WAIT)
    with reading.Reader(path) as reader:
        details = reading.run(reader, run_id)
    assert details.run.status == "Completed"
    (old,) = [task for task in details.tasks if task.id == "old"]
    assert old.earlier_version
    assert [tried.number for tried in old.tries] == [1, 2, 1, 2]
    assert old.started_at == old.tries[2].started_at
    assert old.completed_at == old.tries[3].ended_at


def test_the_graph_is_of_the_version_with_which_a_run_went_on(went_on: str, tmp_path: Path) -> None:
    with reading.Reader(tmp_path / "runs.db") as reader:
        details = reading.run(reader, went_on)
    assert [node.id for node in details.graph] == ["fetch", "new", "report"]
    assert [(task.id, task.earlier_version) for task in details.tasks if task.tries and task.id == "old"] == [
        ("old", True)
    ]
    changes = reading.changed(details)
    assert [change.key for change in changes["report"]] == ["report"]
    assert [change.key for change in changes["new"]] == ["price"]


def test_a_notebook_draws_that_version_and_lists_those_tasks(went_on: str, tmp_path: Path) -> None:
    # What this program declares by now is neither.
    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="third")(put("third"))
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        html = runner.run(went_on)._repr_html_()
    assert re.search(r"✓ fetch.*✓ new.*✓ report", html)
    assert "third" not in html
    assert "old (of an earlier version)" in html


def test_a_run_that_is_opened_again_shows_what_its_tasks_had_tried(tmp_path: Path) -> None:
    run_id = failed(tmp_path / "runs.db")
    with cloaca.DefaultRunner(tmp_path / "runs.db", work=False) as client:
        client.retry_many(workflow="import")
    with reading.Reader(tmp_path / "runs.db") as reader:
        tasks = reading.run(reader, run_id).tasks
    # Nobody has it yet.
    assert [(task.id, task.status, len(task.tries), task.earlier_version) for task in tasks] == [
        ("fetch", "Completed", 1, False),
        ("old", "Pending", 2, False),
        ("report", "Pending", 0, False),
    ]
