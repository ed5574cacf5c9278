"""Names that are declared twice, change their kind, disappear, or are known to one process only."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from attack import SECONDS, TIMES, Program, health, outside, run

import cloaca
from cloaca.testing import Runner


def workflow(name: str, ran: list[str], say: str) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="t", retry_attempts=1)(lambda context: ran.append(say))


def test_of_one_workflow_declared_twice_the_newest_runs(runner: cloaca.DefaultRunner) -> None:
    ran: list[str] = []
    for number in range(50):
        workflow("w", ran, str(number))
        assert runner.execute("w").status == "Completed"
    assert ran == [str(number) for number in range(50)]


def test_the_same_function_under_two_names_is_two_triggers() -> None:
    def shared() -> bool:
        return True

    workflow("w", [], "")
    for name in ("one", "other"):
        cloaca.trigger(workflow="w", poll_interval="1s", name=name)(shared)
    with Runner() as runner:
        runner.advance("3s")
        assert len(runner.fired("w")) >= 2
        assert {row["trigger_name"] for row in runner.list_trigger_schedules()} == {"one", "other"}


@pytest.mark.parametrize("first", ["polled", "cron"])
def test_a_trigger_that_changes_its_kind_is_no_longer_what_it_was(first: str) -> None:
    polls: list[int] = []
    workflow("w", [], "")

    def polled() -> None:
        cloaca.trigger(workflow="w", poll_interval="1s", name="x")(lambda: bool(polls.append(1)))

    def cron() -> None:
        cloaca.trigger(workflow="w", cron="*/5 * * * *", name="x")(lambda: None)

    kinds = [polled, cron] if first == "polled" else [cron, polled]
    with Runner() as runner:
        for kind in kinds:
            kind()
            runner.advance("10s")
        before = len(polls)
        runner.advance("10s")
        if first == "polled":
            assert len(polls) == before
        else:
            assert len(polls) > before
            runner.advance("10m")
            assert runner.list_runs() == [], "the cron that it was stays listed, and doesn't run"


def test_a_renamed_trigger_stays_listed_and_only_the_new_one_is_polled(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    source = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): pass
    polled = threading.Event()
    @cloaca.trigger(workflow="w", poll_interval="5ms", name=sys.argv[2])
    def body():
        polled.set()
        return cloaca.TriggerResult.fire({"from": sys.argv[2]}, run_key="once")
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        assert polled.wait(30)
        until(lambda: runner.stats()["runs_completed"])
        say(*sorted(row["trigger_name"] for row in runner.list_trigger_schedules()))
        say(runner.why("old"))
    """
    assert run(source, path, "old")[0] == "old"
    names, why = run(source, path, "new")
    assert names == "new old"
    assert "does not declare it" in why
    assert outside(path, "SELECT count(*) FROM runs") == [[[2]]]


DECLARES = """
    mine = sys.argv[2].split(",")
    for name in mine:
        with cloaca.WorkflowBuilder("flow_" + name):
            @cloaca.task(retry_attempts=1)
            def t(context):
                say("ran", context["from"], context["i"])

        def make(name):
            @cloaca.trigger(workflow="flow_" + name, poll_interval="5ms", name=name)
            def body(tick):
                tick.cursor = (tick.cursor or 0) + 1
                return cloaca.TriggerResult.fire({"from": name, "i": tick.cursor}, run_key=str(tick.cursor))
        make(name)
    runner = cloaca.DefaultRunner(sys.argv[1])
    say("serves")
    sys.stdin.readline()
    for name in mine:
        runner.set_trigger_enabled(name, False)
    until(lambda: not runner.list_runs(status="Running") and not runner.list_runs(status="Pending"))
    runner.shutdown()
"""


def test_what_one_process_declares_and_another_does_not_is_done_by_the_one_that_does(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Program(DECLARES, path, "a,both") as first, Program(DECLARES, path, "b,both") as second:
        for program, name in ((first, "a"), (second, "b")):
            for _ in range(20):
                program.until(f"ran {name}")
        for program in (first, second):
            program.tell()
        for program in (first, second):
            program.end()
    ran = [line for program in (first, second) for line in program.lines if line.startswith("ran")]
    assert len(ran) == len(set(ran)), "once each"
    assert not any(line.startswith("ran b ") for line in first.lines)
    assert not any(line.startswith("ran a ") for line in second.lines)
    # What was fired in the moment of the shutdown is kept, and waits for the next start.
    done = "SELECT count(*) FROM runs WHERE status = 'Completed'"
    unused = "SELECT (SELECT count(*) FROM run_keys) - (SELECT count(*) FROM runs)"
    assert outside(path, done, unused) == [[[len(ran)]], [[0]]]
    assert health(path) == "ok"


def test_a_workflow_that_is_gone_waits_beside_others_for_who_declares_it_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.db"
    dies = """
    with cloaca.WorkflowBuilder("gone"):
        @cloaca.task()
        def t(context): os.kill(os.getpid(), 9)
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit_many("gone", [{"i": i} for i in range(30)])
    time.sleep(30)
    """
    run(dies, path, code=-9)
    other: list[str] = []
    workflow("other", other, "ran")
    with cloaca.DefaultRunner(str(path)) as runner:
        assert runner.execute("other").status == "Completed"
        assert len([row for row in runner.list_runs(limit=100) if row["completed_at"] is None]) == 30
        ran: list[str] = []
        workflow("gone", ran, "ran")
        for row in runner.list_runs(workflow="gone", limit=100):
            assert runner.run(row["id"]).result(SECONDS).status == "Completed"
    assert len(ran) == 30


def test_threads_that_declare_everything_again_and_again_disturb_no_run(runner: cloaca.DefaultRunner) -> None:
    """Workflows, triggers and crons, by five names, while others execute them."""
    stop = threading.Event()
    failures: list[BaseException] = []
    names = [f"n{number}" for number in range(5)]
    for name in names:
        workflow(name, [], "")

    def declares(number: int) -> None:
        name = names[number % len(names)]
        while not stop.is_set():
            workflow(name, [], "")
            cloaca.trigger(workflow=name, poll_interval="2ms", name=name)(lambda: False)

    def executes(number: int) -> None:
        try:
            for _ in range(100 * TIMES):
                assert runner.execute(names[number]).status == "Completed"
        except BaseException as error:
            failures.append(error)

    declaring = [threading.Thread(target=declares, args=(number,)) for number in range(5)]
    executing = [threading.Thread(target=executes, args=(number,)) for number in range(5)]
    for thread in declaring + executing:
        thread.start()
    for thread in executing:
        thread.join(SECONDS * TIMES)
        assert not thread.is_alive(), "it hangs"
    stop.set()
    for thread in declaring:
        thread.join(SECONDS)
    assert failures == []
