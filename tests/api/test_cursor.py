"""The cursor: it moves only past what was taken."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from program import eventually

import cloaca

NEVER = "1h"
"""An interval: these triggers are polled by `tick` alone."""


def fires(start: int, end: int, **more: Any) -> list[cloaca.TriggerResult]:
    """Events from `start` to before `end`, all with the same context, each with its own cursor."""
    return [cloaca.TriggerResult.fire(more, cursor=n + 1) for n in range(start, end)]


@pytest.fixture
def gate() -> Iterator[threading.Semaphore]:
    """How many runs may end."""
    gate = threading.Semaphore(0)
    yield gate
    gate.release(1000)


def declare(gate: threading.Semaphore | None = None) -> None:
    """A workflow whose runs end one at each release."""

    def work(context: cloaca.Context) -> None:
        if gate is not None:
            gate.acquire()

    with cloaca.WorkflowBuilder("work") as builder:
        builder.add_task(cloaca.task(id="work")(work))


def kept(runner: cloaca.DefaultRunner, name: str) -> Any:
    found = runner.query("SELECT cursor FROM schedules WHERE name = ?", [name])[0]["cursor"]
    return None if found is None else int(found)


def events(overlap: str, many: int = 20, **options: Any) -> None:
    @cloaca.trigger(workflow="work", name="events", poll_interval=NEVER, overlap=overlap)
    def poll(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        start = tick.cursor or 0
        return [
            cloaca.TriggerResult.fire({"n": n}, cursor=n + 1, **{k: f(n) for k, f in options.items()})
            for n in range(start, many)
        ]


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue", "buffer_one"])
def test_every_event_is_handled_once_whatever_overlap_drops(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore, overlap: str
) -> None:
    declare(gate)
    events(overlap)
    for _ in range(100):
        runner.tick("events")
        if kept(runner, "events") == 20:
            break
        ended = len(runner.list_runs(status="Completed"))
        gate.release()
        assert eventually(lambda ended=ended: len(runner.list_runs(status="Completed")) == ended + 1)
    gate.release(1000)
    assert eventually(lambda: len(runner.list_runs(status="Completed")) == 20)
    handled = [run["context"]["n"] for run in runner.list_runs()]
    assert sorted(handled) == list(range(20))


def test_a_dropped_fire_stops_the_row_and_the_rest_is_held_back(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore
) -> None:
    declare(gate)
    events("skip", 5)
    told = runner.tick("events")
    assert (told["outcome"], told["cursor"], kept(runner, "events")) == ("fire", 1, 1)
    counts = runner.stats()
    assert (counts["fires"], counts["dropped"], counts["held_back"]) == (5, 1, 3)
    assert runner.ticks("events")[0]["reason"] == "overlap dropped 1 fire and held 3 back"


def test_polls_that_only_repeat_a_drop_are_gathered_like_skips(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore
) -> None:
    declare(gate)
    events("skip", 5, run_key=str)
    for _ in range(5):
        runner.tick("events")
    assert kept(runner, "events") == 1
    newest, first = runner.ticks("events")
    assert (newest["outcome"], newest["count"], first["outcome"]) == ("skip", 4, "fire")
    assert "is unfinished; the cursor waits" in newest["reason"]
    assert "the cursor waits" in runner.why("events")
    assert runner.stats()["skips"] == 3


def test_equal_contexts_with_cursors_are_different_events(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore
) -> None:
    declare(gate)
    cloaca.trigger(workflow="work", name="same", poll_interval=NEVER)(lambda: fires(0, 3, a=1))
    runner.tick("same")
    assert (len(runner.list_runs()), kept(runner, "same"), runner.stats()["deduplicated"]) == (3, 3, 0)


def test_a_used_run_key_is_behind_the_cursor(runner: cloaca.DefaultRunner, gate: threading.Semaphore) -> None:
    declare(gate)
    asked = iter([[0], [0, 1, 2]])

    @cloaca.trigger(workflow="work", name="keyed", poll_interval=NEVER, overlap="skip")
    def poll() -> list[cloaca.TriggerResult]:
        return [cloaca.TriggerResult.fire({}, run_key=str(n), cursor=n + 10) for n in next(asked)]

    runner.tick("keyed")
    assert kept(runner, "keyed") == 10
    gate.release()
    assert eventually(lambda: runner.list_runs(status="Completed"))
    runner.tick("keyed")
    # 0 was used up, 1 is taken, 2 waits for the run of 1.
    assert kept(runner, "keyed") == 11
    assert runner.stats()["deduplicated"] == 1


def test_a_used_key_passes_while_a_run_is_unfinished(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore
) -> None:
    declare(gate)
    cloaca.trigger(workflow="work", name="keyed", poll_interval=NEVER, overlap="skip")(
        lambda: [cloaca.TriggerResult.fire({}, run_key="k", cursor=n) for n in (1, 2, 3)]
    )
    runner.tick("keyed")
    assert (kept(runner, "keyed"), len(runner.list_runs())) == (3, 1)


def test_a_cursor_beside_moves_only_if_nothing_was_dropped(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore
) -> None:
    declare(gate)
    many = 2

    @cloaca.trigger(workflow="work", name="beside", poll_interval=NEVER, overlap="skip")
    def poll(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        tick.cursor = 100
        return fires(0, many)

    runner.tick("beside")
    assert kept(runner, "beside") == 1
    gate.release()
    assert eventually(lambda: runner.list_runs(status="Completed"))
    many = 1
    runner.tick("beside")
    assert kept(runner, "beside") == 100


def test_a_lone_cursor_that_loses_an_event_is_told_once(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore, caplog: pytest.LogCaptureFixture
) -> None:
    declare(gate)

    @cloaca.trigger(workflow="work", name="loses", poll_interval=NEVER, overlap="skip")
    def poll(tick: cloaca.Tick) -> cloaca.TriggerResult:
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor})

    for _ in range(4):
        runner.tick("loses")
    assert (kept(runner, "loses"), runner.stats()["dropped"]) == (4, 3)
    assert "overlap" in runner.ticks("loses")[0]["reason"]
    assert eventually(lambda: "that event is lost" in caplog.text)
    assert caplog.text.count("that event is lost") == 1
    assert "cursor=" in caplog.text


def test_what_a_generator_gave_with_a_cursor_before_it_raised_counts(runner: cloaca.DefaultRunner) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="raises", poll_interval=NEVER)
    def poll(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
        start = tick.cursor or 0
        yield cloaca.TriggerResult.fire({"n": start}, cursor=start + 1)
        yield cloaca.TriggerResult.fire({"n": "plain"})
        tick.cursor = 99
        raise ValueError("boom")

    told = runner.tick("raises")
    assert (told["outcome"], told["cursor"]) == ("error", 1)
    assert runner.ticks("raises")[0]["reason"] == "ValueError: boom"
    assert [run["context"] for run in runner.list_runs()] == [{"n": 0}]


def test_changing_what_was_set_as_the_cursor_counts(runner: cloaca.DefaultRunner) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="list", poll_interval=NEVER)
    def poll(tick: cloaca.Tick) -> bool:
        seen: list[int] = []
        tick.cursor = seen
        assert tick.cursor is seen
        seen.append(1)
        return False

    assert runner.tick("list")["cursor"] == [1]


@pytest.mark.parametrize("cursor", [object(), {1: 2}, float("nan"), b"x"])
def test_a_cursor_that_is_no_json_is_refused_when_it_is_given(cursor: object) -> None:
    with pytest.raises((cloaca.ContextTypeError, cloaca.ContextError), match="cursor"):
        cloaca.TriggerResult.fire({}, cursor=cursor)


def test_a_fire_holds_a_copy_of_its_cursor() -> None:
    seen = [1]
    fire = cloaca.TriggerResult.fire({}, cursor=seen)
    seen.append(2)
    for same in (fire, copy.deepcopy(fire), pickle.loads(pickle.dumps(fire))):
        assert same.cursor == [1]
    assert cloaca.TriggerResult.fire({}).cursor is None
    assert cloaca.TriggerResult.skip().cursor is None


def test_an_unknown_workflow_costs_no_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @cloaca.trigger(
        workflow="work", name="early", poll_interval=NEVER, on_error=cloaca.Backoff(base="2h", max="2h")
    )
    def poll(tick: cloaca.Tick) -> cloaca.TriggerResult:
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor})

    with cloaca.DefaultRunner(":memory:") as runner:
        assert caplog.text.count("trigger 'early' starts workflow 'work', which this program does not") == 1
        assert eventually(lambda: "not been polled yet" in runner.why("early"))
        assert "starts workflow 'work', which this program does not declare" in runner.why("early")
        runner.tick("early")
        assert (kept(runner, "early"), runner.ticks("early")[0]["outcome"]) == (None, "error")
        assert "backs off" in runner.why("early")
        assert "1 failed poll" in runner.why("early")
        declare()
        assert "does not declare" not in runner.why("early")
        runner.tick("early")
        assert kept(runner, "early") == 1
        assert [run["context"] for run in runner.list_runs()] == [{"n": 1}]


def test_a_cron_of_an_unknown_workflow_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.register_cron_workflow("nowhere", "0 0 1 1 *")
        assert "starts workflow 'nowhere', which this program does not declare" in caplog.text


def ghost(runner: cloaca.DefaultRunner, gate: threading.Semaphore, **fire: Any) -> None:
    """A poll that looks, and answers only after the equal run of the poll before has ended."""
    declare(gate)
    polls = 0

    @cloaca.trigger(workflow="work", name="slow", poll_interval=NEVER)
    def poll() -> cloaca.TriggerResult:
        nonlocal polls
        polls += 1
        if polls == 2:
            gate.release()
            # Not only in the store: this runner has heard of it.
            assert eventually(lambda: runner.stats()["runs_completed"] == 1)
        return cloaca.TriggerResult.fire({"a": 1}, **{k: f(polls) for k, f in fire.items()})

    runner.tick("slow")
    runner.tick("slow")


def test_a_fire_that_was_polled_before_its_equal_run_ended_starts_nothing(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore
) -> None:
    ghost(runner, gate)
    assert (len(runner.list_runs()), runner.stats()["deduplicated"]) == (1, 1)
    assert "with an equal context ended after this poll began" in runner.ticks("slow")[0]["reason"]
    # Asked again, the source means another event.
    runner.tick("slow")
    assert len(runner.list_runs()) == 2


@pytest.mark.parametrize("fire", [{"run_key": str}, {"cursor": int}])
def test_a_fire_with_a_key_or_a_cursor_is_no_ghost(
    runner: cloaca.DefaultRunner, gate: threading.Semaphore, fire: dict[str, Any]
) -> None:
    ghost(runner, gate, **fire)
    assert len(runner.list_runs()) == 2


def test_a_poll_right_after_the_end_of_an_equal_run_starts_the_next(runner: cloaca.DefaultRunner) -> None:
    declare()
    cloaca.trigger(workflow="work", name="again", poll_interval=NEVER)(lambda: True)
    for count in range(1, 20):
        runner.tick("again")
        assert len(runner.list_runs()) == count
        assert runner.list_runs()[0]["id"]
        assert eventually(lambda count=count: runner.stats()["runs_completed"] == count, seconds=30)


def test_the_ends_of_a_runner_before_are_no_ghosts(tmp_path: Any) -> None:
    declare()
    cloaca.trigger(workflow="work", name="again", poll_interval=NEVER)(lambda: True)
    for count in (1, 2, 3):
        with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
            runner.tick("again")
            assert eventually(lambda: runner.stats()["runs_completed"] == 1)
            assert len(runner.list_runs()) == count


def test_a_dedup_key_stands_for_the_context(runner: cloaca.DefaultRunner, gate: threading.Semaphore) -> None:
    declare(gate)
    fired = iter([("a", 1), ("a", 2), ("b", 1)])

    @cloaca.trigger(workflow="work", name="keyed", poll_interval=NEVER)
    def poll() -> cloaca.TriggerResult:
        key, n = next(fired)
        return cloaca.TriggerResult.fire({"n": n}, dedup_key=key)

    for _ in range(3):
        runner.tick("keyed")
    assert [run["context"] for run in runner.list_runs()] == [{"n": 1}, {"n": 1}]
    assert runner.stats()["deduplicated"] == 1


def test_a_dedup_key_is_checked() -> None:
    for key in ("", 3, "x" * 2000):
        with pytest.raises(cloaca.TriggerError, match="dedup_key"):
            cloaca.TriggerResult.fire({}, dedup_key=key)  # type: ignore[arg-type]
    with pytest.raises(cloaca.TriggerError, match="leave one out"):
        cloaca.TriggerResult.fire({}, dedup_key="a", cursor=1)
    assert copy.copy(cloaca.TriggerResult.fire({}, dedup_key="a")).dedup_key == "a"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_what_a_generator_gave_counts_whatever_it_raised(
    runner: cloaca.DefaultRunner, kind: type[BaseException]
) -> None:
    declare()

    @cloaca.trigger(
        workflow="work", name="raises", poll_interval="20ms", on_error=cloaca.Backoff(base="20ms")
    )
    def poll(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
        start = tick.cursor or 0
        yield cloaca.TriggerResult.fire({"n": start}, cursor=start + 1)
        raise kind

    eventually(lambda: len(runner.list_runs()) >= 2)
    runs = runner.list_runs()
    assert [run["context"]["n"] for run in reversed(runs)] == list(range(len(runs)))


def test_what_was_given_before_a_fire_that_is_too_large_counts(runner: cloaca.DefaultRunner) -> None:
    declare()

    @cloaca.trigger(workflow="work", name="raises", poll_interval=NEVER)
    def poll(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
        yield cloaca.TriggerResult.fire({"n": 1}, cursor=1)
        yield cloaca.TriggerResult.fire({"n": "x" * (17 << 20)}, cursor=2)
        raise ValueError("boom")

    told = runner.tick("raises")
    assert (told["outcome"], told["cursor"]) == ("error", 1)
    assert (
        "too large" in runner.ticks("raises")[0]["reason"] or "bytes" in runner.ticks("raises")[0]["reason"]
    )
    assert [run["context"] for run in runner.list_runs()] == [{"n": 1}]
