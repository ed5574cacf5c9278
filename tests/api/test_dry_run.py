"""What `tick` tells of the gate: what it would do with each fire in a dry run, else what became of them."""

from __future__ import annotations

from typing import Any

import pytest
from flow import Gate, declare, nothing
from program import eventually

import cloaca
import cloaca.testing
from cloaca import TriggerResult

Fires = list[TriggerResult]


@pytest.fixture
def gate() -> Any:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def runner(gate: Gate) -> Any:
    declare("w", gate)
    with cloaca.DefaultRunner(":memory:") as runner:
        yield runner
        gate.open.set()


def trigger(fires: Fires, **settings: Any) -> None:
    cloaca.trigger(workflow="w", name="it", **{"poll_interval": "1h"} | settings)(lambda tick: list(fires))


def foretold(runner: cloaca.DefaultRunner) -> list[tuple[str, str | None]]:
    before = runner.query("SELECT id FROM runs"), runner.query("SELECT * FROM ticks"), runner.stats()["fires"]
    answer = runner.tick("it", dry_run=True)
    after = runner.query("SELECT id FROM runs"), runner.query("SELECT * FROM ticks"), runner.stats()["fires"]
    assert (answer["outcome"], after) == ("fire", before), "nothing is changed"
    gates = [fire["gate"] for fire in answer["fires"]]
    assert all((each["verdict"] == "run") == (each["reason"] is None) for each in gates)
    return [(each["verdict"], each["run"]) for each in gates]


def of(n: int, **terms: Any) -> TriggerResult:
    return TriggerResult.fire({"n": n}, **terms)


def test_an_equal_run_that_is_unfinished(runner: cloaca.DefaultRunner) -> None:
    fires = [of(1)]
    trigger(fires)
    assert foretold(runner) == [("run", None)]
    runner.tick("it")
    (run,) = runner.list_runs()
    fires[:] = [of(1), of(2), of(2)]
    assert foretold(runner) == [("deduplicate", run["id"]), ("run", None), ("deduplicate", None)]
    assert f"run {run['id']} with an equal context" in str(
        runner.tick("it", dry_run=True)["fires"][0]["gate"]
    )
    runner.tick("it")
    assert len(runner.list_runs()) == 2


def test_a_run_key_that_is_used(runner: cloaca.DefaultRunner) -> None:
    fires = [of(1, run_key="a")]
    trigger(fires)
    runner.tick("it")
    (run,) = runner.list_runs()
    fires[:] = [of(2, run_key="a"), of(3, run_key="b"), of(4, run_key="b")]
    assert foretold(runner) == [("refuse_key", run["id"]), ("run", None), ("refuse_key", None)]
    assert f"run key 'a' started run {run['id']}" in str(runner.tick("it", dry_run=True))
    assert runner.tick("it")["outcome"] == "fire"
    assert len(runner.list_runs()) == 2


@pytest.mark.parametrize(
    ("overlap", "first", "beside"),
    [
        ("allow", ["run", "run"], ["run", "run"]),
        ("skip", ["run", "drop"], ["drop", "drop"]),
        ("queue", ["run", "queue"], ["queue", "queue"]),
        ("buffer_one", ["run", "queue"], ["queue", "drop"]),
        ("cancel_running", ["run", "queue"], ["queue", "queue"]),
    ],
)
def test_what_overlap_says(
    runner: cloaca.DefaultRunner, overlap: str, first: list[str], beside: list[str]
) -> None:
    fires = [of(1), of(2)]
    trigger(fires, overlap=overlap)
    assert [verdict for verdict, _ in foretold(runner)] == first
    fires[:] = [of(0)]
    runner.tick("it")
    (run,) = runner.list_runs()
    fires[:] = [of(1), of(2)]
    told = foretold(runner)
    assert [verdict for verdict, _ in told] == beside
    assert all(by == (None if verdict == "run" else run["id"]) for verdict, by in told)
    runner.tick("it")
    started = sum(verdict in ("run", "queue") for verdict in beside)
    assert eventually(lambda: len(runner.list_runs()) == 1 + started)


def test_a_row_of_fires_with_cursors(runner: cloaca.DefaultRunner) -> None:
    fires = [of(n, cursor=n) for n in (1, 2, 3)]
    trigger(fires, overlap="skip")
    assert [verdict for verdict, _ in foretold(runner)] == ["run", "drop", "hold_back"]
    answer = runner.tick("it")
    assert (answer["outcome"], answer["cursor"]) == ("fire", 1)
    assert answer["reason"] == "overlap dropped 1 fire and held 1 back"
    assert [verdict for verdict, _ in foretold(runner)] == ["drop", "hold_back", "hold_back"]


def test_a_fire_whose_key_is_used_up_takes_no_place(runner: cloaca.DefaultRunner) -> None:
    fires = [of(1, run_key="a")]
    trigger(fires, overlap="skip")
    runner.tick("it")
    (run,) = runner.list_runs()
    runner.cancel(run["id"])
    fires[:] = [of(2, run_key="a"), of(3), of(4)]
    assert eventually(lambda: [v for v, _ in foretold(runner)] == ["refuse_key", "run", "drop"])
    runner.tick("it")
    assert len(runner.list_runs()) == 2


@pytest.mark.parametrize(
    ("limits", "verdicts"),
    [
        ({"rate_limit": cloaca.RateLimit(1, "1d")}, ["run", "drop"]),
        ({"concurrency": cloaca.Concurrency(1, overflow="drop_new")}, ["run", "drop"]),
        ({"concurrency": cloaca.Concurrency(1)}, ["run", "queue"]),
        ({"throttle": cloaca.Throttle(1, "1d")}, ["run", "queue"]),
        ({"concurrency": cloaca.Concurrency(1, key="absent")}, ["fail", "fail"]),
    ],
)
def test_what_limits_say(limits: Any, verdicts: list[str]) -> None:
    with cloaca.WorkflowBuilder("w", **limits):
        cloaca.task(id="only")(nothing)
    trigger([of(1), of(2)])
    with cloaca.testing.Runner() as runner:
        assert [verdict for verdict, _ in foretold(runner)] == verdicts
        assert [verdict for verdict, _ in foretold(runner)] == verdicts, "nothing was counted"


def test_what_limits_say_to_a_cron_beside_its_calendar() -> None:
    with cloaca.WorkflowBuilder("w", rate_limit=cloaca.RateLimit(1, "1d")):
        cloaca.task(id="only")(nothing)
    cloaca.trigger(workflow="w", name="it", cron="0 3 * * *")(lambda: None)
    with cloaca.testing.Runner() as runner:
        assert [verdict for verdict, _ in foretold(runner)] == ["run"]
        runner.tick("it")
        assert [verdict for verdict, _ in foretold(runner)] == ["drop"]


def test_a_workflow_that_is_paused_queues() -> None:
    declare("w")
    trigger([of(1)])
    with cloaca.testing.Runner() as runner:
        runner.pause(workflow="w")
        assert [verdict for verdict, _ in foretold(runner)] == ["queue"]
        assert "workflow 'w' is paused" in str(runner.tick("it", dry_run=True))


def test_a_workflow_that_nobody_declares() -> None:
    cloaca.trigger(workflow="nope", name="it", poll_interval="1h")(lambda: True)
    with cloaca.testing.Runner() as runner:
        (fire,) = runner.tick("it", dry_run=True)["fires"]
        assert fire["gate"]["verdict"] == "fail"
        assert "unknown workflow 'nope'" in str(fire["gate"]["reason"])
        answer = runner.tick("it")
        assert answer["outcome"] == "error"
        assert "unknown workflow 'nope'" in str(answer["reason"])


def test_a_tick_says_what_became_of_its_fires(runner: cloaca.DefaultRunner, gate: Gate) -> None:
    trigger([of(1)], overlap="skip")
    assert runner.tick("it")["outcome"] == "fire"
    assert gate.entered.wait(20)
    (run,) = runner.list_runs()
    answer = runner.tick("it")
    assert (answer["outcome"], len(answer["fires"])) == ("skip", 1)
    assert answer["reason"] == f"deduplicated: run {run['id']} with an equal context is unfinished"


def test_the_moment_of_a_cron_beside_its_calendar_runs() -> None:
    declare("w")
    cloaca.trigger(workflow="w", name="it", cron="0 3 * * *", overlap="skip")(lambda: None)
    with cloaca.testing.Runner() as runner:
        (fire,) = runner.tick("it", dry_run=True)["fires"]
        assert fire["gate"] == {"verdict": "run", "run": None, "reason": None}
