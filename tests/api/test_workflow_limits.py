"""What limits a workflow's runs: how many at once, how fast they start, how many are taken."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, Gate, nothing
from program import eventually, start_program

import cloaca
import cloaca.testing
from cloaca import TriggerResult
from cloaca.errors import WorkflowError
from cloaca.limits import Concurrency, Limit, RateLimit, Throttle

WRONG = [
    (lambda: Concurrency(0), "limit is 0; it must be from 1"),
    (lambda: Concurrency(True), "limit is True, a bool; it must be a whole number from 1"),
    (lambda: Concurrency(1.5), "limit is 1.5, a float"),
    (lambda: Concurrency(1, key=7), "key is 7, an int; give a path into the context"),
    (lambda: Concurrency(1, key=""), 'key is "", which has not 1 to 1024 characters; give a path'),
    (lambda: Concurrency(1, key="a..b"), "with an empty name in its path"),
    (lambda: Concurrency(1, key="{a"), "with a { that is not closed"),
    (lambda: Concurrency(1, key="{{a}}"), "in which no path stands"),
    (lambda: Concurrency(1, key="\ud800"), "lone surrogate"),
    (lambda: Concurrency(1, overflow="drop"), "overflow is 'drop'; \"wait\" lets"),
    (lambda: Throttle(1, per="soon"), "per is 'soon', which is no duration"),
    (lambda: Throttle(1, per="1m", burst=0), "burst is 0; it must be from 1"),
    (lambda: Throttle(2_000, per="1ms"), "limit is 2000 per 1ms; the most is one in a microsecond"),
    (lambda: RateLimit(1, per=0), "per is 0s; the smallest is 1ms"),
    (lambda: Limit(""), "name is ''; it must not be empty"),
    (lambda: Limit("api"), "limit 'api' limits nothing; give concurrency=4"),
    (lambda: Limit("api", concurrency=0), "concurrency is 0; it must be from 1"),
    (lambda: Limit("api", throttle=60), "throttle is 60, an int; give cloaca.Throttle(60"),
    (lambda: Limit("api", throttle=Throttle(1, per="1s", key="tenant")), "has the key 'tenant'"),
]


@pytest.mark.parametrize(("make", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_wrong_limit_names_argument_value_and_way_out(make, told):
    with pytest.raises(WorkflowError) as refused:
        make()
    assert told in str(refused.value)


def test_limits_are_equal_shown_and_pickled_by_what_they_say():
    throttle = Throttle(10, per=timedelta(minutes=1), key="{tenant}:{region}")
    assert throttle == Throttle(10, per="1m", burst=1, key="{tenant}:{region}") != Throttle(10, per="2m")
    assert repr(throttle) == "Throttle(limit=10, per='1m', burst=1, key='{tenant}:{region}')"
    assert throttle != RateLimit(10, per="1m", burst=1, key="{tenant}:{region}")
    assert RateLimit(100, per="1h").burst == 100
    assert repr(Concurrency(2)) == "Concurrency(limit=2, key=None, overflow='wait')"
    for limit in (
        throttle,
        Concurrency(2, key="a.b"),
        Limit("api", concurrency=4, throttle=Throttle(1, per=1)),
    ):
        assert pickle.loads(pickle.dumps(limit)) == limit
    with pytest.raises(AttributeError, match="cannot be changed"):
        throttle.limit = 3


def declare(name: str, body: Callable[..., object] = nothing, **limits: Any) -> None:
    with cloaca.WorkflowBuilder(name, **limits):
        cloaca.task(id="only", retry_attempts=1)(body)


def statuses(runner: cloaca.DefaultRunner, workflow: str) -> list[str]:
    """Oldest first."""
    return [row["status"] for row in reversed(runner.list_runs(workflow=workflow))]


class Seats:
    """Bodies that say by which key they run until they are let go, and the most that ran at once."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.inside: list[Any] = []
        self.begun: list[Any] = []
        self.most: dict[Any, int] = {}
        self.leaving: list[Any] = []

    def __call__(self, context: cloaca.Context) -> None:
        key = context.get("key")
        with self.lock:
            self.inside.append(key)
            self.begun.append(context.get("n", key))
            self.most[key] = max(self.most.get(key, 0), self.inside.count(key))
            self.lock.notify_all()
            assert self.lock.wait_for(lambda: key in self.leaving, WAIT)
            self.leaving.remove(key)
            self.inside.remove(key)
            self.lock.notify_all()

    def await_begun(self, many: int) -> None:
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.begun) >= many, WAIT), self.begun

    def leave(self, *keys: Any) -> None:
        """Lets one of each of these keys go."""
        with self.lock:
            self.leaving += keys
            self.lock.notify_all()


def test_no_more_runs_of_a_key_are_at_work_than_its_concurrency_and_the_rest_waits_in_order() -> None:
    seats = Seats()
    declare("sync", seats, concurrency=cloaca.Concurrency(2, key="key"))
    with cloaca.DefaultRunner(":memory:") as runner:
        runs = runner.submit_many("sync", [{"key": "a", "n": n} for n in range(5)])
        other = runner.submit("sync", {"key": "b", "n": "b"})
        seats.await_begun(3)
        assert sorted(seats.begun, key=str) == [0, 1, "b"]
        told = runs[3].why()
        assert "waits for a seat of concurrency 2 of key 'a': 2 of 2 taken by runs" in told
        assert runs[0].id in told
        assert runs[1].id in told
        for begun in (4, 5, 6):
            seats.leave("a")
            seats.await_begun(begun)
        seats.leave("a", "a", "b")
        assert [run.result(WAIT).status for run in [*runs, other]] == ["Completed"] * 6
        assert seats.most == {"a": 2, "b": 1}
        assert [n for n in seats.begun if n != "b"] == [0, 1, 2, 3, 4]


def test_a_key_may_be_a_format_of_paths_and_equal_numbers_are_one_key() -> None:
    seats = Seats()
    declare("sync", seats, concurrency=cloaca.Concurrency(1, key="{order.tenant}:{n}"))
    with cloaca.DefaultRunner(":memory:") as runner:
        first = runner.submit("sync", {"order": {"tenant": "a"}, "n": 1})
        seats.await_begun(1)
        second = runner.submit("sync", {"order": {"tenant": "a"}, "n": 1.0})
        assert "of key 'a:1': 1 of 1 taken by run " + first.id in second.why()
        seats.leave(None, None)
        assert second.result(WAIT).status == "Completed"


def test_drop_new_starts_nothing_beside_what_is_unfinished() -> None:
    gate = Gate()
    declare("sync", gate, concurrency=cloaca.Concurrency(1, key="key", overflow="drop_new"))
    with cloaca.DefaultRunner(":memory:") as runner:
        first = runner.submit("sync", {"key": "a"}, run_key="one")
        assert gate.entered.wait(WAIT)
        with pytest.raises(cloaca.Dropped) as refused:
            runner.execute("sync", {"key": "a"})
        assert (refused.value.rule, refused.value.key) == ("concurrency", "a")
        assert 'concurrency: 1 of at most 1 runs of key "a" are unfinished' in str(refused.value)
        # A run key that was used before is asked first.
        assert runner.submit("sync", {"key": "a"}, run_key="one").id == first.id
        with pytest.raises(cloaca.Dropped):
            asyncio.run(runner.execute_async("sync", {"key": "a"}))
        gate.open.set()
        first.result(WAIT)
        assert runner.execute("sync", {"key": "a"}).status == "Completed"
        assert statuses(runner, "sync") == ["Completed"] * 2


def clocked(**settings: Any) -> cloaca.testing.Runner:
    config = cloaca.DefaultRunnerConfig(**settings)
    return cloaca.testing.Runner(start="2026-01-01T00:00:00Z", config=config)


def test_a_throttle_spaces_starts_and_what_is_beyond_it_waits() -> None:
    declare("call", throttle=cloaca.Throttle(1, per="1m", burst=2, key="key"))
    with clocked() as runner:
        runs = runner.submit_many("call", [{"key": "a"}] * 4)
        other = runner.submit("call", {"key": "b"})
        runner.run_until_idle()
        assert statuses(runner, "call") == ["Completed"] * 2 + ["Pending"] * 2 + ["Completed"]
        assert "is throttled, 1 in 1m of key 'a': the next may start at 2026-01-01T00:01:00" in runs[2].why()
        assert ", and 1 run goes before it" in runs[3].why()
        runner.advance("59s")
        assert statuses(runner, "call").count("Pending") == 2
        runner.advance("1s")
        assert statuses(runner, "call").count("Pending") == 1
        runner.advance("1m")
        assert [run.result(WAIT).status for run in [*runs, other]] == ["Completed"] * 5
        started = [
            row["started_at"][14:19] for row in reversed(runner.list_runs()) if row["context"]["key"] == "a"
        ]
        assert started == ["00:00", "00:00", "01:00", "02:00"]


def test_a_throttle_without_a_key_is_for_all_runs_together() -> None:
    declare("call", throttle=cloaca.Throttle(1, per="1m"))
    with clocked() as runner:
        runner.submit_many("call", [{}] * 3)
        for done in (1, 2, 3):
            runner.run_until_idle()
            assert statuses(runner, "call").count("Completed") == done
            runner.advance("1m")


def test_a_rate_limit_drops_what_is_beyond_it_and_says_so() -> None:
    declare("take", rate_limit=cloaca.RateLimit(2, per="1h", key="tenant"))
    with clocked() as runner:
        runner.execute("take", {"tenant": "a"})
        kept = runner.submit("take", {"tenant": "a"}, run_key="k")
        # What is dropped for another reason uses up nothing, and neither does what another key takes.
        assert runner.submit("take", {"tenant": "a"}, run_key="k").id == kept.id
        runner.execute("take", {"tenant": "b"})
        with pytest.raises(cloaca.Dropped) as refused:
            runner.submit("take", {"tenant": "a"})
        assert (refused.value.rule, refused.value.key) == ("rate_limit", "a")
        assert 'rate limit: 2 in 1h of key "a" have come; the next passes at 2026-01-01T00:30:00' in str(
            refused.value
        )
        assert isinstance(refused.value, cloaca.RunnerError)
        assert pickle.loads(pickle.dumps(refused.value)).key == "a"
        assert runner.stats()["dropped"] == 1
        runner.advance("30m")
        runner.execute("take", {"tenant": "a"})
        assert len(runner.list_runs()) == 4


def test_of_runs_that_are_submitted_together_all_are_kept_or_none() -> None:
    declare("take", rate_limit=cloaca.RateLimit(2, per="1h"))
    with clocked() as runner:
        with pytest.raises(cloaca.Dropped):
            runner.submit_many("take", [{}] * 3)
        assert runner.list_runs() == []
        assert len(runner.submit_many("take", [{}] * 2)) == 2


def test_a_context_without_the_key_is_refused_at_submit_and_an_error_tick_at_a_fire() -> None:
    declare("sync", concurrency=cloaca.Concurrency(1, key="order.tenant"))

    @cloaca.trigger(workflow="sync", poll_interval="1s")
    def source() -> TriggerResult:
        return TriggerResult.fire({"order": {}})

    with clocked() as runner:
        for context in ({}, {"order": 1}, {"order": {"tenant": None}}):
            with pytest.raises(ValueError, match=r'the key "order\.tenant" of a limit'):
                runner.submit("sync", context)
        runner.advance("1s")
        [tick] = runner.ticks("source")
        assert tick["outcome"] == "error"
        assert 'the key "order.tenant" of a limit needs order.tenant' in str(tick["reason"])
        assert runner.list_runs() == []


@pytest.mark.parametrize("with_cursors", [False, True])
def test_a_poll_whose_fire_lacks_the_key_has_failed(with_cursors: bool) -> None:
    """No back-off followed, nobody was told, and the rest of it started and moved the cursor."""
    declare("sync", concurrency=cloaca.Concurrency(1, key="k"))
    failed: list[tuple[str, int]] = []
    seen: list[tuple[int, bool]] = []
    items = [{"k": "a"}, {"x": 1}, {"k": "b"}]

    def told(name: str, error: str, failures: int) -> None:
        failed.append((error, failures))

    @cloaca.trigger(workflow="sync", poll_interval="1m", on_poll_failed=told, max_consecutive_failures=3)
    def source(tick: cloaca.Tick) -> list[TriggerResult]:
        seen.append((tick.consecutive_failures, "needs k" in str(tick.last_error)))
        if with_cursors:
            return [TriggerResult.fire(item, cursor=at) for at, item in enumerate(items)]
        tick.cursor = 3
        return [TriggerResult.fire(item) for item in items]

    with clocked() as runner:
        foretold = [fire["gate"] for fire in runner.tick("source", dry_run=True)["fires"]]
        assert [gate["verdict"] for gate in foretold] == ["fail"] * 3
        assert all("needs k" in str(gate["reason"]) for gate in foretold)
        seen.clear()
        runner.advance("1h")
        assert seen == [(0, False), (1, True), (2, True)], "it backs off, and is switched off"
        assert [failures for _, failures in failed] == [1, 2, 3]
        assert all("needs k" in error for error, _ in failed)
        assert "needs k" in runner.why("source")
        assert (runner.cursor("source"), runner.list_runs()) == (None, [])
        assert {tick["outcome"] for tick in runner.ticks("source")} == {"error"}


def test_a_moment_whose_context_lacks_the_key_is_tried_again() -> None:
    declare("sync", concurrency=cloaca.Concurrency(1, key="k"))
    asked: list[str] = []

    @cloaca.trigger(workflow="sync", cron="0 * * * *")
    def hourly(tick: cloaca.Tick) -> dict[str, str]:
        asked.append(str(tick.scheduled_at))
        return {"k": "a"} if len(asked) > 2 else {}

    with clocked() as runner:
        runner.advance("61m")
        assert len(asked) == 3
        assert len(set(asked)) == 1
        [run] = runner.list_runs()
        assert run["context"]["k"] == "a"


def test_a_fire_that_a_limit_drops_is_told_in_the_tick() -> None:
    declare("take", rate_limit=cloaca.RateLimit(1, per="1h", key="n"))

    @cloaca.trigger(workflow="take", poll_interval="1s", allow_concurrent=True)
    def source() -> list[TriggerResult]:
        return [TriggerResult.fire({"n": 1}), TriggerResult.fire({"n": 1})]

    with clocked() as runner:
        runner.advance("1s")
        [tick] = runner.ticks("source")
        assert (tick["outcome"], tick["reason"]) == (
            "fire",
            '1 fire was dropped by rate limit: 1 in 1h of key "1" have come; the next passes at'
            " 2026-01-01T01:00:01.000000Z",
        )
        runner.advance("1s")
        tick = runner.ticks("source")[0]
        assert tick["outcome"] == "skip"
        assert tick["reason"].startswith('rate limit: 1 in 1h of key "1" have come')
        assert 'rate limit: 1 in 1h of key "1" have come' in runner.why("source")
        assert len(runner.list_runs()) == 1


def test_a_fire_with_a_cursor_that_a_limit_drops_comes_again() -> None:
    declare("take", rate_limit=cloaca.RateLimit(1, per="2s"))

    @cloaca.trigger(workflow="take", poll_interval="1s", allow_concurrent=True)
    def source(tick: cloaca.Tick) -> list[TriggerResult]:
        seen = tick.cursor or 0
        return [TriggerResult.fire({"n": n}, cursor=n) for n in range(seen + 1, 4)]

    with clocked() as runner:
        runner.advance("1s")
        assert runner.cursor("source") == 1
        runner.advance("5s")
        assert [row["context"]["n"] for row in reversed(runner.list_runs())] == [1, 2, 3]


def test_a_run_keeps_its_seat_in_back_off_and_gives_it_back_at_its_end() -> None:
    tries: list[Any] = []

    def flaky(context: cloaca.Context) -> None:
        tries.append(context.get("n"))
        if tries.count(context.get("n")) == 1:
            raise cloaca.RetryAfter("1m")

    declare("sync", flaky, concurrency=cloaca.Concurrency(1))
    with clocked() as runner:
        first = runner.submit("sync", {"n": 1})
        second = runner.submit("sync", {"n": 2})
        runner.run_until_idle()
        assert tries == [1]
        assert "1 of 1 taken by run " + first.id in second.why()
        runner.advance("1m")
        assert tries == [1, 1, 2]
        runner.advance("1m")
        assert second.result(WAIT).status == "Completed"


def test_a_child_with_the_same_key_sits_in_its_parents_seat() -> None:
    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        depth = context["depth"]
        if depth:
            child = {"tenant": context["tenant"], "depth": depth - 1}
            assert handle.runner.execute("sync", child).status == "Completed"

    declare("sync", body, concurrency=cloaca.Concurrency(1, key="tenant"))
    with cloaca.DefaultRunner(":memory:") as runner:
        runs = [runner.submit("sync", {"tenant": "a", "depth": 2}) for _ in range(2)]
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 2
        assert statuses(runner, "sync") == ["Completed"] * 6


def test_a_delayed_run_takes_its_seat_when_it_is_due() -> None:
    declare("sync", concurrency=cloaca.Concurrency(1), throttle=cloaca.Throttle(1, per="1m"))
    with clocked() as runner:
        later = runner.submit("sync", delay="1h")
        assert runner.execute("sync").status == "Completed"
        assert "waits for its time" in later.why()
        runner.advance("59m")
        runner.submit("sync")
        runner.advance("1m")
        assert later.result(WAIT).status == "Completed"


def test_a_run_that_waits_for_a_limit_can_be_cancelled_and_frees_nothing_that_it_had_not() -> None:
    gate = Gate()
    declare("sync", gate, concurrency=cloaca.Concurrency(1))
    with cloaca.DefaultRunner(":memory:") as runner:
        first = runner.submit("sync")
        assert gate.entered.wait(WAIT)
        second, third = runner.submit("sync"), runner.submit("sync")
        second.cancel()
        assert second.result(WAIT).status == "Cancelled"
        assert "1 of 1 taken by run " + first.id in third.why()
        gate.open.set()
        assert third.result(WAIT).status == "Completed"
        assert runner.query("SELECT * FROM seats") == runner.query("SELECT * FROM lanes") == []


def test_a_retry_by_hand_asks_for_a_seat_and_not_for_the_rate_limit() -> None:
    gate, fails = Gate(), [True]

    def body(context: cloaca.Context) -> None:
        if fails.pop() if fails else False:
            raise ValueError("boom")
        gate(context)

    limits = {"concurrency": cloaca.Concurrency(1), "rate_limit": cloaca.RateLimit(2, per="1h")}
    declare("sync", body, **limits)
    with cloaca.DefaultRunner(":memory:") as runner:
        failed = runner.submit("sync")
        assert failed.result(WAIT).status == "Failed"
        other = runner.submit("sync")
        assert gate.entered.wait(WAIT)
        again = runner.retry(failed.id)
        assert "1 of 1 taken by run " + other.id in again.why()
        gate.open.set()
        assert again.result(WAIT).status == "Completed"


def test_a_retry_by_hand_is_refused_where_drop_new_lets_no_other_one_be() -> None:
    gate, fails = Gate(), [True]

    def body(context: cloaca.Context) -> None:
        if fails.pop() if fails else False:
            raise ValueError("boom")
        gate(context)

    declare("sync", body, concurrency=cloaca.Concurrency(1, overflow="drop_new"))
    with cloaca.DefaultRunner(":memory:") as runner:
        failed = runner.submit("sync")
        assert failed.result(WAIT).status == "Failed"
        runner.submit("sync")
        assert gate.entered.wait(WAIT)
        with pytest.raises(cloaca.StoreError, match="concurrency: 1 of at most 1 runs are unfinished"):
            runner.retry(failed.id)
        assert statuses(runner, "sync")[0] == "Failed"
        gate.open.set()


def test_runs_of_a_queue_take_their_seats_in_its_order() -> None:
    seats = Seats()
    declare("sync", seats, concurrency=cloaca.Concurrency(2))

    @cloaca.trigger(workflow="sync", poll_interval="1s", allow_concurrent=True, overlap="queue")
    def source() -> list[TriggerResult]:
        return [TriggerResult.fire({"n": n}) for n in range(3)]

    with cloaca.testing.Runner() as runner:
        runner.tick("source")
        for begun in (1, 2, 3):
            seats.await_begun(begun)
            # None begins beside the one before it, though a seat is free.
            assert len(seats.inside) == 1
            seats.leave(None)
        assert eventually(lambda: statuses(runner, "sync") == ["Completed"] * 3)
        assert seats.begun == [0, 1, 2]


def test_a_workflow_that_is_declared_with_other_limits_obeys_those_from_then_on() -> None:
    seats = Seats()
    declare("sync", seats, concurrency=cloaca.Concurrency(1))
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=8) as runner:
        version = runner.submit("sync", {"key": "a"}) and cloaca.registry.workflow("sync")
        runs = [runner.submit("sync", {"key": "a"}) for _ in range(4)]
        seats.await_begun(1)
        declare("sync", seats, concurrency=cloaca.Concurrency(3))
        seats.await_begun(3)
        assert cloaca.registry.workflow("sync").version == version.version
        declare("sync", seats)
        seats.await_begun(5)
        seats.leave(*["a"] * 5)
        assert [run.result(WAIT).status for run in runs] == ["Completed"] * 4


def test_what_a_client_submits_is_judged_by_the_limits_of_whoever_declares_the_workflow(
    tmp_path: Path,
) -> None:
    declare("take", rate_limit=cloaca.RateLimit(1, per="1h", key="tenant"))
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner:
        runner.execute("take", {"tenant": "a"})
        with cloaca.DefaultRunner(path, work=False) as client:
            with pytest.raises(cloaca.Dropped):
                client.submit("take", {"tenant": "a"})
            with pytest.raises(cloaca.ContextError, match='the key "tenant" of a limit'):
                client.submit("take", {})
            assert client.execute("take", {"tenant": "b"}, timeout=WAIT).status == "Completed"
    # Also while nobody is there.
    with cloaca.DefaultRunner(path, work=False) as client, pytest.raises(cloaca.Dropped):
        client.submit("take", {"tenant": "b"})


HOLDER = """
    import sys, time
    import cloaca
    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(1)):
        @cloaca.task()
        def only(context):
            print("begun", flush=True)
            time.sleep(60)
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit("sync", {"first": True})
    time.sleep(60)
"""


def test_a_run_whose_process_died_keeps_its_seat_and_goes_on_first(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    process = start_program(HOLDER, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    order: list[Any] = []
    declare("sync", lambda context: order.append(context.get("first")), concurrency=cloaca.Concurrency(1))
    with cloaca.DefaultRunner(path) as runner:
        waits = runner.submit("sync")
        assert "1 of 1 taken" in waits.why()
        process.kill()
        process.communicate()
        assert waits.result(WAIT).status == "Completed"
        assert order == [True, None]


def test_limits_are_told_by_the_workflow_and_no_part_of_its_version() -> None:
    limits = {
        "concurrency": cloaca.Concurrency(2),
        "throttle": cloaca.Throttle(1, per="1s"),
        "rate_limit": cloaca.RateLimit(9, per="1h"),
    }
    builder = cloaca.WorkflowBuilder("sync", **limits)
    with builder:
        cloaca.task(id="only")(nothing)
    workflow = builder.build()
    assert {name: getattr(workflow, name) for name in limits} == limits
    plain = cloaca.WorkflowBuilder("sync").add_task("only").build()
    assert plain.version == workflow.version
    assert plain.concurrency is plain.throttle is plain.rate_limit is None
    for name, wrong in (("concurrency", 2), ("throttle", limits["rate_limit"]), ("rate_limit", "1/h")):
        with pytest.raises(WorkflowError, match=f"{name} is .*; give cloaca"):
            cloaca.WorkflowBuilder("sync", **{name: wrong})


def test_a_body_that_was_given_up_keeps_its_seat_while_it_runs() -> None:
    gate = Gate()

    def body(context: cloaca.Context) -> None:
        if context.get("hangs"):
            gate(context)

    declare("sync", body, concurrency=cloaca.Concurrency(1))
    with cloaca.DefaultRunner(":memory:", task_timeout_seconds=0.1, timeout_grace_seconds=0.1) as runner:
        hangs = runner.submit("sync", {"hangs": True})
        assert hangs.result(WAIT).status == "Failed"
        waits = runner.submit("sync")
        assert "1 of 1 taken by run " + hangs.id in waits.why()
        gate.open.set()
        assert waits.result(WAIT).status == "Completed"


def test_a_moment_of_a_cron_that_a_limit_drops_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    declare("take", rate_limit=cloaca.RateLimit(1, per="1d"))
    with clocked() as runner:
        runner.register_cron_workflow("take", "* * * * *", "UTC")
        runner.advance("2m")
        assert statuses(runner, "take") == ["Completed"]
        assert eventually(lambda: "a run was not started: rate limit: 1 in 1d have come" in caplog.text)
        assert runner.stats()["dropped"] == 1
