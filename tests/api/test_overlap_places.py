"""What overlap counts: a fire that its run key or a limit refuses takes no place, whoever fires it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import cloaca
import cloaca.testing
from cloaca import Concurrency, RateLimit, Throttle, TriggerResult

START = "2026-01-01T00:00:00Z"

OVERLAPS = pytest.mark.parametrize("overlap", ["skip", "buffer_one", "queue", "cancel_running", "allow"])


def keyed(*numbers: int, context: Any = None) -> list[TriggerResult]:
    return [TriggerResult.fire(context or {"n": n}, run_key=f"k{n}") for n in numbers]


def declare(**limits: Any) -> None:
    with cloaca.WorkflowBuilder("work", **limits):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)


@pytest.fixture
def runner() -> Iterator[cloaca.testing.Runner]:
    with cloaca.testing.Runner(START) as runner:
        yield runner


def started(runner: Any, key: str = "n") -> list[Any]:
    return sorted(run["context"][key] for run in runner.list_runs("work", limit=1000))


@OVERLAPS
def test_a_fire_behind_one_whose_run_key_is_used_starts(overlap: str) -> None:
    declare()
    cloaca.trigger(workflow="work", name="it", poll_interval="1m", overlap=overlap)(
        lambda tick: keyed(1, 2, 3, 4)
    )
    with cloaca.testing.Runner(START) as runner:
        runner.advance("10m")
        assert started(runner) == [1, 2, 3, 4]


@OVERLAPS
def test_equal_contexts_with_keys_of_their_own_are_tried_one_behind_another(overlap: str) -> None:
    declare()
    cloaca.trigger(workflow="work", name="it", poll_interval="1m", overlap=overlap)(
        lambda tick: keyed(1, 2, 3, context={"n": 0})
    )
    with cloaca.testing.Runner(START) as runner:
        runner.advance("10m")
        assert started(runner) == [0, 0, 0]


@OVERLAPS
def test_a_cron_whose_function_gives_a_used_key_first(overlap: str) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="it", cron="*/5 * * * *", overlap=overlap)
    def it(tick: cloaca.Tick) -> list[TriggerResult]:
        return keyed(1, 2, 3)

    with cloaca.testing.Runner(START) as runner:
        runner.advance("1h")
        assert started(runner) == [1, 2, 3]


@OVERLAPS
def test_what_is_told_of_ends_and_gives_a_used_key_first(overlap: str) -> None:
    declare()
    with cloaca.WorkflowBuilder("source"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="work", name="it", on_run="source", overlap=overlap)(lambda run: keyed(1, 2, 3))
    with cloaca.testing.Runner(START) as runner:
        for _ in range(4):
            runner.submit("source")
            runner.run_until_idle()
        assert started(runner) == [1, 2, 3]


@OVERLAPS
def test_a_cursor_of_the_whole_poll_loses_nothing_behind_a_used_key(overlap: str) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="it", poll_interval="1m", overlap=overlap)
    def it(tick: cloaca.Tick) -> list[TriggerResult]:
        number = (tick.cursor or 0) + 1
        if number > 6:
            return []
        tick.cursor = number
        # It goes back by one, to be sure.
        return keyed(*range(max(1, number - 1), number + 1))

    with cloaca.testing.Runner(START) as runner:
        runner.advance("20m")
        assert started(runner) == [1, 2, 3, 4, 5, 6]
        assert runner.stats()["dropped"] == 0


def test_a_cursor_of_the_whole_poll_that_the_store_moves_past_a_dropped_fire_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="it", poll_interval="1m", overlap="skip")
    def it(tick: cloaca.Tick) -> list[TriggerResult]:
        tick.cursor = (tick.cursor or 0) + 2
        return keyed(tick.cursor - 1, tick.cursor)

    with cloaca.testing.Runner(START) as runner:
        runner.advance("3m")
        assert started(runner) == [1, 3, 5]
        assert runner.stats()["dropped"] == 3
    assert sum("cursor" in record.getMessage() for record in caplog.records) == 1


@OVERLAPS
@pytest.mark.parametrize(
    "limits",
    [
        {"rate_limit": RateLimit(1, per="10h", key="of")},
        {"concurrency": Concurrency(1, key="of", overflow="drop_new")},
    ],
    ids=lambda limits: next(iter(limits)),
)
def test_a_fire_behind_one_that_a_limit_drops_starts(overlap: str, limits: Any) -> None:
    done: set[str] = set()
    with cloaca.WorkflowBuilder("work", **limits):

        @cloaca.task(id="only")
        def only(context: Any) -> None:
            if "first" in context:
                raise cloaca.RetryAfter("5h")
            done.add(context["of"])

    cloaca.trigger(workflow="work", name="it", poll_interval="1m", overlap=overlap)(
        lambda tick: [TriggerResult.fire({"of": of}) for of in "abc" if of not in done]
    )
    with cloaca.testing.Runner(START) as runner:
        runner.submit("work", {"of": "a", "first": True})
        runner.run_until_idle()
        runner.advance("30m")
        fired = {run["context"]["of"] for run in runner.list_runs(trigger="it", limit=1000)}
        assert fired == {"b", "c"}


def test_a_rehearsal_says_who_takes_the_place(runner: cloaca.testing.Runner) -> None:
    declare()
    cloaca.trigger(workflow="work", name="it", poll_interval="1h", overlap="skip")(
        lambda tick: keyed(1, 2, 3, 4)
    )
    runner.tick("it")
    runner.run_until_idle()
    fires = runner.tick("it", dry_run=True)["fires"]
    assert [fire["gate"]["verdict"] for fire in fires] == ["refuse_key", "run", "drop", "drop"]
    answer = runner.tick("it")
    assert (answer["outcome"], answer["reason"]) == ("fire", "overlap dropped 2 fires")
    runner.run_until_idle()
    assert started(runner) == [1, 2]
    assert runner.stats()["dropped"] == 5


def test_what_stands_behind_a_run_at_work_is_dropped_as_before(runner: cloaca.testing.Runner) -> None:
    with cloaca.WorkflowBuilder("work"):

        @cloaca.task(id="only")
        def only(context: Any) -> None:
            raise cloaca.RetryAfter("5h")

    cloaca.trigger(workflow="work", name="it", poll_interval="1m", overlap="skip")(lambda tick: keyed(1, 2))
    runner.advance("10m")
    assert started(runner) == [1]
    assert "overlap: run" in runner.why("it")


@OVERLAPS
def test_what_starts_behind_a_fire_that_a_limit_drops_is_its_moments_run(overlap: str) -> None:
    with cloaca.WorkflowBuilder("work", rate_limit=RateLimit(1, per="10h", key="of")):
        cloaca.task(id="only")(lambda context: None)

    @cloaca.trigger(workflow="work", name="it", cron="0 * * * *", overlap=overlap)
    def it(tick: cloaca.Tick) -> list[TriggerResult]:
        return [TriggerResult.fire({"of": of}) for of in ("a", f"at {tick.scheduled_at}")]

    with cloaca.testing.Runner(START) as runner:
        runner.submit("work", {"of": "a"})
        runner.advance("2h30m")
        ran = runner.get_cron_execution_history("it")
        assert [row["scheduled_time"][11:16] for row in ran] == ["02:00", "01:00"]
        ids = [row["workflow_execution_id"] for row in reversed(ran)]
        assert [run.id for run in runner.backfill("it", "2026-01-01T00:30:00Z")] == ids


@pytest.mark.parametrize(
    "limits",
    [
        {"concurrency": Concurrency(2)},
        {"concurrency": Concurrency(1)},
        {"throttle": Throttle(100, "1s", burst=9)},
    ],
    ids=["two at once", "one at once", "throttle"],
)
def test_the_newest_of_a_polls_fires_ends_those_before_it_also_where_limits_begin_them(limits: Any) -> None:
    with cloaca.WorkflowBuilder("work", **limits):

        @cloaca.task(id="only")
        def only(context: Any) -> None:
            if not context["is_last"]:
                raise cloaca.RetryAfter("1h")

    # Of many: which of the two comes first, the claim or the wish for the end, is chance.
    for number in range(8):
        cloaca.trigger(workflow="work", name=f"it-{number}", poll_interval="1h", overlap="cancel_running")(
            lambda: [TriggerResult.fire({"n": n, "is_last": n == 3}) for n in (1, 2, 3)]
        )
    with cloaca.DefaultRunner(":memory:") as runner:
        for number in range(8):
            runner.tick(f"it-{number}")
            *before, newest = [
                runner.run(run["id"]) for run in runner.list_runs(trigger=f"it-{number}")[::-1]
            ]
            assert newest.result(30).status == "Completed"
            assert [run.result(30).status for run in before] == ["Cancelled", "Cancelled"]
