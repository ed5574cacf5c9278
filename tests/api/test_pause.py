"""`pause`: of a workflow no run begins, under a limit no attempt, in all programs, until that is over."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, Gate, boom, declare, nothing
from program import eventually, run_program, start_program

import cloaca
import cloaca.testing
from cloaca import Limit, RetryAfter


def noting(into: list[Any]) -> Any:
    def note(context: cloaca.Context) -> None:
        into.append(context.get("n"))

    return note


def statuses(runner: cloaca.DefaultRunner) -> list[str]:
    return [run["status"] for run in runner.list_runs()]


def test_of_a_paused_workflow_no_run_begins_and_others_do() -> None:
    begun: list[Any] = []
    declare("sync", noting(begun))
    declare("other")
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.pause(workflow="sync")
        held = [runner.submit("sync", {"n": n}) for n in range(3)]
        assert runner.execute("other").status == "Completed"
        assert begun == []
        told = runner.why_run(held[0].id).replace('"', "'")
        assert "workflow 'sync' is paused, by a program" in told
        [row] = runner.list_pauses()
        assert (row["kind"], row["name"], row["until"]) == ("workflow", "sync", None)
        assert runner.resume(workflow="sync")
        assert [run.result(WAIT).status for run in held] == ["Completed"] * 3
        assert begun == [0, 1, 2]
        assert not runner.resume(workflow="sync")


def test_a_run_that_has_begun_goes_on_with_its_next_tasks() -> None:
    gate, begun = Gate(), []
    with cloaca.WorkflowBuilder("sync"):
        cloaca.task(id="first")(gate)
        cloaca.task(id="second", dependencies=["first"])(noting(begun))
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("sync", {"n": 1})
        assert gate.entered.wait(WAIT)
        runner.pause(workflow="sync")
        gate.open.set()
        assert run.result(WAIT).status == "Completed"
        assert begun == [1]


def test_what_was_in_hand_and_had_not_begun_waits_too() -> None:
    gate, begun = Gate(), []
    declare("holds", gate)
    declare("sync", noting(begun))
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1) as runner:
        holds = runner.submit("holds")
        assert gate.entered.wait(WAIT)
        runs = [runner.submit("sync", {"n": n}) for n in range(3)]
        assert eventually(lambda: "waits for the slot" in runner.why_run(runs[-1].id))
        runner.pause(workflow="sync")
        gate.open.set()
        assert holds.result(WAIT).status == "Completed"
        declare("after")
        assert runner.execute("after").status == "Completed"
        assert begun == []
        runner.resume(workflow="sync")
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 3


def test_a_pause_is_over_at_its_instant_and_crons_fire_meanwhile() -> None:
    begun: list[str] = []
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
        declare("sync", lambda context: begun.append(context["scheduled_time"][11:16]))
        runner.register_cron_workflow("sync", "*/10 * * * *")
        runner.pause(workflow="sync", until="2026-01-01T00:25:00Z")
        runner.advance("24m")
        assert begun == []
        assert statuses(runner) == ["Pending", "Pending"]
        runner.advance("1m")
        assert begun == ["00:10", "00:20"]
        assert runner.list_pauses() == []
        runner.advance("5m")
        assert begun[2:] == ["00:30"]


def test_a_trigger_goes_on_firing_and_says_that_its_runs_wait() -> None:
    begun: list[Any] = []
    with cloaca.testing.Runner() as runner:
        declare("sync", noting(begun))

        @cloaca.trigger(workflow="sync", poll_interval="10s", name="each")
        def each(tick: cloaca.Tick) -> cloaca.TriggerResult:
            tick.cursor = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"n": tick.cursor})

        runner.pause(workflow="sync")
        runner.advance("30s")
        assert begun == []
        assert "workflow 'sync' is paused" in runner.why("each").replace('"', "'")
        assert statuses(runner) == ["Pending"] * 3
        runner.resume(workflow="sync")
        runner.advance("1s")
        assert begun == [1, 2, 3]


def test_a_line_stays_in_its_order() -> None:
    begun: list[Any] = []
    with cloaca.testing.Runner() as runner:
        declare("sync", noting(begun))

        @cloaca.trigger(workflow="sync", poll_interval="10s", name="each", overlap="queue")
        def each(tick: cloaca.Tick) -> cloaca.TriggerResult:
            tick.cursor = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"n": tick.cursor})

        runner.pause(workflow="sync")
        runner.advance("40s")
        assert begun == []
        runner.resume(workflow="sync")
        runner.advance("1s")
        assert begun == [1, 2, 3, 4]


def test_a_paused_run_can_be_cancelled() -> None:
    declare("sync", boom)
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.pause(workflow="sync")
        run = runner.submit("sync")
        run.cancel()
        assert run.result(WAIT).status == "Cancelled"


def test_a_runner_that_takes_nothing_over_keeps_what_it_holds_up() -> None:
    begun: list[Any] = []
    declare("sync", noting(begun))
    with cloaca.DefaultRunner(":memory:", enable_recovery=False) as runner:
        runner.pause(workflow="sync")
        run = runner.submit("sync", {"n": 1})
        declare("other")
        assert runner.execute("other").status == "Completed"
        assert begun == []
        runner.resume(workflow="sync")
        assert run.result(WAIT).status == "Completed"


def test_two_runners_obey_and_a_third_one_finds_it(tmp_path: Path) -> None:
    begun: list[Any] = []
    declare("sync", noting(begun))
    declare("other")
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as one, cloaca.DefaultRunner(url) as two:
        one.pause(workflow="sync")
        assert eventually(lambda: len(two.list_pauses()) == 1)
        one.submit("sync", {"n": 1})
    with cloaca.DefaultRunner(url) as third:
        run = third.submit("sync", {"n": 2})
        assert third.execute("other").status == "Completed"
        assert begun == []
        with cloaca.DefaultRunner(url, work=False) as client:
            client.resume(workflow="sync")
        assert run.result(WAIT).status == "Completed"
        assert eventually(lambda: sorted(begun) == [1, 2])


def test_a_paused_limit_holds_up_attempts_of_runs_that_have_begun() -> None:
    gate, begun = Gate(), []
    with cloaca.WorkflowBuilder("sync"):
        cloaca.task(id="first")(gate)
        cloaca.task(id="second", dependencies=["first"], limits=[Limit("api", concurrency=4)])(noting(begun))
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("sync", {"n": 1})
        assert gate.entered.wait(WAIT)
        runner.pause(limit="api")
        gate.open.set()
        assert eventually(lambda: "limit 'api' is paused" in runner.why_run(run.id).replace('"', "'"))
        assert begun == []
        assert runner.resume(limit="api")
        assert run.result(WAIT).status == "Completed"


def test_a_paused_limit_opens_at_its_instant() -> None:
    begun: list[Any] = []
    declare("sync", noting(begun), limits=[Limit("api", concurrency=4)])
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
        runner.pause(limit="api", until="2026-01-01T00:05:00Z")
        runner.submit("sync", {"n": 1})
        runner.advance("299s")
        assert begun == []
        runner.advance("1s")
        assert begun == [1]


def test_a_body_that_is_refused_holds_up_the_others_in_every_runner(tmp_path: Path) -> None:
    answers, at = [429, 200, 200], []

    def call(context: cloaca.Context) -> None:
        status = answers.pop(0)
        at.append((context["n"], status))
        if status == 429:
            raise RetryAfter("1h", pause="api")

    declare("sync", call, limits=[Limit("api", concurrency=1)])
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as one, cloaca.DefaultRunner(url) as two:
        first = one.submit("sync", {"n": 1})
        assert eventually(lambda: one.list_pauses() != [])
        second = two.submit("sync", {"n": 2})
        assert eventually(lambda: "is paused until" in two.why_run(second.id))
        [row] = two.list_pauses()
        assert row["by"] == f"task 'only' of run {first.id}"
        assert at == [(1, 429)]
        two.resume(limit="api")
        assert second.result(WAIT).status == "Completed"
        assert at == [(1, 429), (2, 200)]


def test_a_poll_that_is_refused_pauses_a_limit_with_its_tick() -> None:
    begun: list[Any] = []
    api = Limit("api", concurrency=1)
    polls: list[str] = []
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
        declare("sync", noting(begun), limits=[api])

        @cloaca.trigger(workflow="sync", poll_interval="10s", name="each")
        def each() -> cloaca.TriggerResult:
            polls.append(runner.now[14:19])
            if len(polls) == 1:
                raise RetryAfter("2m", pause=api)
            return cloaca.TriggerResult.skip()

        runner.advance("10s")
        runner.submit("sync", {"n": 1})
        runner.advance("100s")
        assert (begun, polls) == ([], ["00:10"])
        told = runner.ticks("each")[0]["reason"]
        assert told == "retry after 2m; limit 'api' is paused until then"
        runner.advance("20s")
        assert begun == [1]


def test_a_longer_pause_is_left_alone() -> None:
    def refused(context: cloaca.Context) -> None:
        raise RetryAfter("1m", pause="api")

    declare("sync", refused)
    declare("limited", limits=[Limit("api", concurrency=1)])
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
        runner.pause(limit="api")
        runner.submit("sync")
        runner.run_until_idle()
        assert runner.list_pauses()[0]["until"] is None


def test_a_limit_that_no_task_names_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def refused(context: cloaca.Context) -> None:
        raise RetryAfter("1h", pause="apo")

    declare("sync", refused)
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.submit("sync")
        assert eventually(lambda: "pauses limit 'apo', which no task of this program is under" in caplog.text)


PROGRAM = """
    import sys, cloaca

    with cloaca.WorkflowBuilder("sync"):
        @cloaca.task()
        def only(context):
            print("begun", flush=True)

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        print(runner.submit("sync").result(30).status, flush=True)
"""


def test_a_pause_outlives_its_program_and_holds_in_others(tmp_path: Path) -> None:
    url = str(tmp_path / "runs.db")
    pausing = """
        import sys, cloaca

        with cloaca.WorkflowBuilder("sync"):
            @cloaca.task()
            def only(context): ...

        with cloaca.DefaultRunner(sys.argv[1]) as runner:
            runner.pause(workflow="sync")
    """
    assert run_program(pausing, url).returncode == 0
    with start_program(PROGRAM, url) as process, cloaca.DefaultRunner(url, work=False) as client:
        assert eventually(lambda: len(client.list_runs()) == 1)
        assert [row["name"] for row in client.list_pauses()] == ["sync"]
        client.resume(workflow="sync")
        out, _ = process.communicate(timeout=WAIT)
        assert out == "begun\nCompleted\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "needs workflow or limit, one of them"),
        ({"workflow": "sync", "limit": "api"}, "one of them"),
        ({"workflow": "snyc"}, "workflow 'snyc' not found.*sync"),
        ({"workflow": "sync", "until": "2001-01-01T00:00:00Z"}, "which is over"),
        ({"workflow": "sync", "until": "9999-12-31T00:00:00Z"}, "to 9999-12-30T22:00:00Z; without it"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], told: str) -> None:
    declare("sync", nothing)
    with cloaca.DefaultRunner(":memory:") as runner, pytest.raises(ValueError, match=told):
        runner.pause(**arguments)


def test_pauses_end_in_any_order_while_work_comes_and_goes() -> None:
    done = threading.Semaphore(0)
    declare("a", lambda context: done.release())
    declare("b", lambda context: done.release())
    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(20):
            runner.pause(workflow="a")
            runner.pause(workflow="b")
            runner.submit("a")
            runner.submit("b")
            runner.resume(workflow="b")
            assert done.acquire(timeout=WAIT)
            runner.resume(workflow="a")
            assert done.acquire(timeout=WAIT)


def test_of_a_paused_key_no_run_begins_and_those_of_others_do(tmp_path: Path) -> None:
    begun: list[Any] = []
    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(2, key="tenant")):
        cloaca.task(id="only")(noting(begun))
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.pause(workflow="sync", key="acme")
        held = [runner.submit("sync", {"tenant": "acme", "n": n}) for n in range(3)]
        assert runner.execute("sync", {"tenant": "other", "n": 7}).status == "Completed"
        assert begun == [7]
        told = runner.why_run(held[0].id).replace('"', "'")
        assert "waits: key 'acme' of workflow 'sync' is paused, by a program" in told
        [row] = runner.list_pauses()
        assert (row["kind"], row["name"], row["key"], row["until"]) == ("workflow", "sync", "acme", None)
        assert not runner.resume(workflow="sync")
        assert not runner.resume(workflow="sync", key="other")
        assert runner.resume(workflow="sync", key="acme")
        assert [run.result(WAIT).status for run in held] == ["Completed"] * 3
        assert sorted(begun) == [0, 1, 2, 7]
        assert not runner.resume(workflow="sync", key="acme")


def test_a_key_of_a_throttle_is_paused_until_an_instant() -> None:
    begun: list[Any] = []
    with cloaca.WorkflowBuilder("sync", throttle=cloaca.Throttle(100, per="1s", burst=100, key="tenant.id")):
        cloaca.task(id="only")(noting(begun))
    with cloaca.testing.Runner(start="2026-01-01T12:00:00Z") as runner:
        runner.pause(workflow="sync", key="7", until="2026-01-01T12:05:00Z")
        held = runner.submit("sync", {"tenant": {"id": 7}, "n": 1})
        runner.submit("sync", {"tenant": {"id": 8}, "n": 2})
        runner.advance("4m")
        assert begun == [2]
        assert "is paused until 2026-01-01T12:05:00" in runner.why_run(held.id)
        runner.advance("61s")
        assert begun == [2, 1]
        # Put forward, it does not go on holding until then.
        runner.pause(workflow="sync", key="7", until="2026-01-01T13:00:00Z")
        runner.submit("sync", {"tenant": {"id": 7}, "n": 3})
        runner.advance("1s")
        runner.pause(workflow="sync", key="7", until="2026-01-01T12:06:00Z")
        runner.advance("1m")
        assert begun == [2, 1, 3]


def test_only_what_waits_by_a_key_can_be_paused_by_it() -> None:
    declare("plain")
    with cloaca.WorkflowBuilder(
        "dropped", concurrency=cloaca.Concurrency(2, key="tenant", overflow="drop_new")
    ):
        cloaca.task(id="only")(nothing)
    with cloaca.DefaultRunner(":memory:") as runner:
        for name in ("plain", "dropped"):
            with pytest.raises(
                cloaca.errors.WorkflowError, match="has no keys to pause: give its concurrency"
            ):
                runner.pause(workflow=name, key="acme")
        with pytest.raises(ValueError, match="takes key with workflow"):
            runner.pause(limit="api", key="acme")
        with pytest.raises(ValueError, match="needs workflow or limit"):
            runner.resume(key="acme")
        assert runner.list_pauses() == []


def test_what_was_to_end_ends_also_while_its_workflow_is_paused(tmp_path: Path) -> None:
    declare("import", nothing)

    @cloaca.trigger(workflow="import", poll_interval="1h", overlap="cancel_running")
    def newest() -> Any:
        return [cloaca.TriggerResult.fire({"n": n}) for n in (1, 2)]

    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.pause(workflow="import")
        assert [fire["context"]["n"] for fire in runner.tick("newest")["fires"]] == [1, 2]
        second, first = runner.list_runs()
        assert runner.run(first["id"]).result(WAIT).status == "Cancelled"
        assert runner.list_runs(status="Pending")[0]["id"] == second["id"]
        runner.resume(workflow="import")
        assert runner.run(second["id"]).result(WAIT).status == "Completed"
