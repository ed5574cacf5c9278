"""A run that is opened again goes on from what completed, as if all else had never been."""

from __future__ import annotations

import cloaca
from cloaca.testing import Runner


def test_what_comes_after_what_is_decided_anew_is_decided_anew_too() -> None:
    broken, called = [True], []

    def load(context: cloaca.Context) -> None:
        called.append("load")
        if broken[0]:
            raise ValueError("not yet")
        context["rows"] = 3

    def store(context: cloaca.Context) -> None:
        context["stored"] = True

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="load", retry_attempts=1)(load)
        cloaca.task(id="store", dependencies=["load"])(store)
        cloaca.task(id="beside")(lambda context: called.append("beside"))
        cloaca.task(id="put_aside", dependencies=["load"], trigger_rules=cloaca.task_failed("load"))(
            lambda context: called.append("put_aside")
        )
        cloaca.task(id="after", dependencies=["put_aside", "beside"], trigger_rules=cloaca.always())(
            lambda context: called.append("after")
        )
    with Runner() as runner:
        run = runner.submit("w", {"file": "a"})
        runner.run_until_idle()
        assert sorted(called) == ["after", "beside", "load", "put_aside"]
        called.clear()
        runner.retry(run.id)
        runner.run_until_idle()
        # It failed once more, which is to be cleaned up after once more.
        assert sorted(called) == ["after", "load", "put_aside"]
        called.clear()
        broken[0] = False
        runner.retry(run.id)
        runner.run_until_idle()
        assert sorted(called) == ["after", "load"]
        details = runner.get_run(run.id)
        assert details is not None
        assert details["final_context"] == {"file": "a", "rows": 3, "stored": True}
        assert {task["id"]: task["status"] for task in details["tasks"]} == {
            "load": "Completed",
            "store": "Completed",
            "beside": "Completed",
            "put_aside": "Skipped",
            "after": "Completed",
        }


def test_what_comes_after_a_branch_that_was_skipped_is_not_called_again() -> None:
    called: list[str] = []

    def task(name: str, *dependencies: str, **options: object) -> None:
        def body(context: cloaca.Context) -> None:
            called.append(name)
            if name == "mail" and called.count(name) == 1:
                raise OSError("no route to host")

        cloaca.task(id=name, dependencies=list(dependencies), retry_attempts=1, **options)(body)  # type: ignore[arg-type]

    with cloaca.WorkflowBuilder("w"):
        task("measure")
        task("cool", "measure")
        task("heat", "measure", trigger_rules=cloaca.task_failed("measure"))
        task("pay", "cool", "heat", trigger_rules=cloaca.task_success("cool"))
        task("mail", "pay")
    with Runner() as runner:
        run = runner.submit("w")
        runner.run_until_idle()
        assert runner.get_run(run.id)["status"] == "Failed"
        runner.retry(run.id)
        runner.run_until_idle()
        assert called == ["measure", "cool", "pay", "mail", "mail"]
        details = runner.get_run(run.id)
        assert details["status"] == "Completed"
        assert {task["id"]: task["status"] for task in details["tasks"]}["heat"] == "Skipped"


def test_what_a_task_did_before_it_was_decided_anew_stays_on_record() -> None:
    def fails(context: cloaca.Context) -> None:
        raise OSError("no route to host")

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="load", retry_attempts=1)(fails)
        cloaca.task(id="after", dependencies=["load"], trigger_rules=cloaca.always())(lambda context: None)
    with Runner() as runner:
        run = runner.submit("w")
        runner.run_until_idle()
        for _ in range(2):
            runner.retry(run.id)
            runner.run_until_idle()
        tried = {task["id"]: task["tries"] for task in runner.get_run(run.id)["tasks"]}
        assert [attempt["outcome"] for attempt in tried["load"]] == ["Failed"] * 3
        assert [attempt["outcome"] for attempt in tried["after"]] == ["Completed"] * 3
