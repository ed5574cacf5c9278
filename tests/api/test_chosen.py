"""A runner that is for some of the program's triggers and workflows leaves all others alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from program import SECONDS, Dated, eventually

import cloaca


def noop(context: cloaca.Context) -> None:
    """A task that does nothing."""


def flow(name: str, body: Callable[..., Any] = noop) -> cloaca.Workflow:
    with cloaca.WorkflowBuilder(name) as builder:
        cloaca.task(id="only")(body)
    return builder.build()


class Polled:
    """A trigger that never fires and counts its polls."""

    def __init__(self, name: str, workflow: str, **settings: Any) -> None:
        self.polls = 0
        self.name = name
        self.function = lambda: self.poll()
        cloaca.trigger(name=name, workflow=workflow, **{"poll_interval": "5ms", **settings})(self.function)

    def poll(self) -> bool:
        self.polls += 1
        return False


@pytest.mark.parametrize("by", ["name", "function"])
def test_only_the_chosen_triggers_are_polled(by: str) -> None:
    flow("w")
    first, second = Polled("first", "w"), Polled("second", "w")
    with cloaca.DefaultRunner(
        ":memory:", triggers=[first.name if by == "name" else first.function]
    ) as runner:
        assert eventually(lambda: first.polls > 20)
        assert second.polls == 0
        assert [row["trigger_name"] for row in runner.list_trigger_schedules()] == ["first"]
        for call in (
            lambda: runner.why("second"),
            lambda: runner.tick("second"),
            lambda: runner.poll_soon("second"),
        ):
            assert "this runner is not for it" in told(call)


def told(call: Callable[[], object]) -> str:
    """What the call says, or raises."""
    try:
        return str(call())
    except ValueError as error:
        return str(error)


def test_two_runners_of_one_program_share_its_triggers(tmp_path: Path) -> None:
    flow("w")
    first, second = Polled("first", "w"), Polled("second", "w")
    with (
        cloaca.DefaultRunner(tmp_path / "a.db", triggers=["first"]) as one,
        cloaca.DefaultRunner(tmp_path / "a.db", triggers=["second"]) as two,
    ):
        assert eventually(lambda: first.polls > 20 and second.polls > 20)
        assert one.stats()["polls"] > 0
        assert "is polled by runner" in one.why("second")
        assert "is polled by runner" in two.why("first")
        assert one.list_runs() == []


def test_what_is_declared_again_under_a_chosen_name_is_meant_too() -> None:
    flow("w")
    Polled("first", "w")
    with cloaca.DefaultRunner(":memory:", triggers=["first"]):
        again, other = Polled("first", "w"), Polled("other", "w")
        assert eventually(lambda: again.polls > 5)
        assert other.polls == 0


def test_a_cron_that_is_not_chosen_is_not_there() -> None:
    flow("w")
    for name in ("day", "night"):
        cloaca.trigger(name=name, workflow="w", cron="@daily")(noop_trigger)
    with cloaca.DefaultRunner(":memory:", triggers=["night"]) as runner:
        assert [row["trigger_name"] for row in runner.list_cron_schedules()] == ["night"]


def noop_trigger() -> None:
    """A cron's body, which is never called."""


@pytest.mark.parametrize("by", ["name", "object"])
def test_only_the_chosen_workflows_run(by: str) -> None:
    ours, _ = flow("ours"), flow("theirs")
    with cloaca.DefaultRunner(":memory:", workflows=["ours" if by == "name" else ours]) as runner:
        assert runner.execute("ours").status == "Completed"
        for call in (
            lambda: runner.execute("theirs"),
            lambda: runner.submit("theirs"),
            lambda: runner.submit_many("theirs", [{}]),
        ):
            message = told(call)
            assert "'theirs' is declared, but this runner is not for it" in message
            assert "['ours']" in message


def test_triggers_that_start_other_workflows_are_left_alone_too() -> None:
    flow("ours")
    flow("theirs")
    first, second = Polled("first", "ours"), Polled("second", "theirs")
    with cloaca.DefaultRunner(":memory:", workflows=["ours"]):
        assert eventually(lambda: first.polls > 20)
        later = Polled("later", "ours")
        assert eventually(lambda: later.polls > 5)
    assert second.polls == 0


def test_runs_of_other_workflows_wait_for_a_runner_that_is_for_them(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    begun, goes_on = threading.Event(), threading.Event()

    def waits(context: cloaca.Context) -> None:
        begun.set()
        goes_on.wait(SECONDS)

    flow("ours")
    flow("theirs", waits)
    with cloaca.DefaultRunner(path) as runner:
        run = runner.submit("theirs")
        assert begun.wait(SECONDS)
        runner.shutdown(0)
    goes_on.set()
    with cloaca.DefaultRunner(path, workflows=["ours"]) as runner:
        # What it takes over it takes before this.
        assert runner.execute("ours").status == "Completed"
        assert "this one is not at present" in runner.why_run(run.id)
        with cloaca.DefaultRunner(path) as all_of_them:
            assert all_of_them.run(run.id).result(timeout=SECONDS).status == "Completed"


def test_a_run_of_another_workflow_is_not_opened_again_here(tmp_path: Path) -> None:
    def fails(context: cloaca.Context) -> None:
        raise ValueError("no")

    flow("ours")
    with cloaca.WorkflowBuilder("theirs"):
        cloaca.task(id="only", retry_attempts=1)(fails)
    with cloaca.DefaultRunner(tmp_path / "a.db") as runner:
        run = runner.submit("theirs")
        assert run.result(timeout=SECONDS).status == "Failed"
    with cloaca.DefaultRunner(tmp_path / "a.db", workflows=["ours"]) as runner:
        assert "this runner is not for it" in told(lambda: runner.retry(run.id))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"triggers": ["inbx"]}, ["triggers holds 'inbx'", "did you mean 'inbox'?"]),
        ({"triggers": [noop]}, ["triggers holds", "noop", "@cloaca.trigger"]),
        ({"triggers": [3]}, ["triggers holds 3", "must be a list"]),
        ({"triggers": "inbox"}, ["triggers is 'inbox'", "must be a list"]),
        ({"triggers": 3}, ["triggers is 3", "must be a list"]),
        ({"workflows": ["our"]}, ["workflows holds 'our'", "did you mean 'ours'?"]),
        ({"workflows": [noop]}, ["workflows holds <function noop", "not declared"]),
        ({"workflows": [None]}, ["workflows holds None", "must be a list"]),
        ({"workflows": "ours"}, ["workflows is 'ours'", "must be a list"]),
        ({"triggers": ["inbox"], "workflows": ["theirs"]}, ["'inbox', which starts workflow 'ours'", "must"]),
    ],
)
@pytest.mark.parametrize("maker", ["DefaultRunner", "with_config"])
def test_what_is_not_declared_is_refused_before_anything_is_opened(
    tmp_path: Path, arguments: dict[str, Any], parts: list[str], maker: str
) -> None:
    flow("ours")
    flow("theirs")
    Polled("inbox", "ours")
    make: Any = cloaca.DefaultRunner
    if maker == "with_config":
        make = partial(cloaca.DefaultRunner.with_config, config=cloaca.DefaultRunnerConfig())
    with pytest.raises(ValueError, match=r".") as caught:
        make(tmp_path / "a.db", **arguments)
    assert isinstance(caught.value, cloaca.CloacaError)
    for part in parts:
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_chosen_is_a_choice(tmp_path: Path) -> None:
    flow("w")
    first = Polled("first", "w")
    with cloaca.DefaultRunner(":memory:", triggers=[]) as runner:
        assert runner.execute("w").status == "Completed"
        assert runner.list_trigger_schedules() == []
    assert first.polls == 0
    with Dated(str(tmp_path / "a.db"), "2026-01-01T00:00:00Z") as clock:
        clock.advance("1s")
    assert first.polls > 0


@pytest.mark.parametrize("then", [{"poll_interval": "5ms"}, {"cron": "@daily", "poll_interval": None}])
def test_a_trigger_that_starts_another_workflow_from_now_on_is_let_go(then: dict[str, Any]) -> None:
    flow("ours")
    flow("theirs")
    first = Polled("first", "ours")
    cloaca.trigger(name="night", workflow="ours", cron="@daily")(noop_trigger)
    with cloaca.DefaultRunner(":memory:", workflows=["ours"]) as runner:
        assert eventually(lambda: first.polls > 5)
        assert runner.list_cron_schedules()[0]["declared"]
        second = Polled("first", "theirs", **then)
        cloaca.trigger(name="night", workflow="theirs", cron="@daily")(noop_trigger)
        assert "this runner is not for it" in told(lambda: runner.poll_soon("first"))
        assert "this runner is not for it" in runner.why("night")
        watched = Polled("watched", "ours")
        before = first.polls
        assert eventually(lambda: watched.polls > 20)
        assert first.polls <= before + 1
        assert second.polls == 0
