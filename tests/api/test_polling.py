"""Polling: every trigger, at its interval, whatever the others do."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from program import eventually, start_program

import cloaca
import cloaca.testing

WAIT = 15.0


class Count:
    """Counts calls by name, and tells when a name has had enough."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: Counter[str] = Counter()

    def body(self, name: str, answer: object = False) -> Callable[[], object]:
        def body() -> object:
            self.add(name)
            return answer

        return body

    def add(self, name: str) -> None:
        with self._changed:
            self._calls[name] += 1
            self._changed.notify_all()

    def __getitem__(self, name: str) -> int:
        with self._changed:
            return self._calls[name]

    def more(self, count: int, *names: str) -> bool:
        """Whether each of these is called so often again from now on, in time."""
        with self._changed:
            goals = {name: self._calls[name] + count for name in names}
            return self._changed.wait_for(
                lambda: all(self._calls[name] >= goal for name, goal in goals.items()), WAIT
            )


@pytest.fixture
def count() -> Count:
    return Count()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What bodies that hang wait for; set at the end."""
    event = threading.Event()
    yield event
    event.set()


def polled(name: str, body: Callable[..., object], interval: str = "1ms", **settings: Any) -> None:
    settings.setdefault("workflow", "good")
    cloaca.trigger(name=name, poll_interval=interval, **settings)(body)


def declare(name: str = "good") -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only")(lambda context: None)


def test_making_a_runner_is_all_it_takes_to_be_polled(count: Count) -> None:
    polled("watcher", count.body("watcher"))
    with cloaca.DefaultRunner(":memory:"):
        assert count.more(3, "watcher")


def test_a_trigger_declared_after_the_runner_is_polled_too(
    runner: cloaca.DefaultRunner, count: Count
) -> None:
    polled("first", count.body("first"))
    assert count.more(3, "first")
    polled("second", count.body("second"))
    assert count.more(3, "first", "second")


def test_polls_that_are_due_within_the_resolution_come_together_at_its_end() -> None:
    moments: list[str] = []
    config = cloaca.DefaultRunnerConfig(timer_resolution="100ms")
    with cloaca.testing.Runner("2026-01-01T00:00:00Z", config) as runner:
        for name in ("a", "b"):
            cloaca.trigger(name=name, workflow="w", poll_interval="150ms")(
                lambda: bool(moments.append(runner.now[17:21]))
            )
        runner.advance("0.6s")
        runner.shutdown()
    # Due at 0.15, 0.3, 0.45 and 0.6; the second trigger a little later, by its phase.
    assert moments[::2] == ["00.2", "00.3", "00.5", "00.6"]


def test_a_trigger_is_not_polled_before_its_first_interval_has_passed(count: Count) -> None:
    polled("watcher", count.body("watcher"), "1h")
    with cloaca.testing.Runner() as runner:
        runner.advance("59m59s")
        assert count["watcher"] == 0
        runner.advance("1s")
        assert count["watcher"] == 1
        runner.advance("23h")
        assert count["watcher"] == 24


@pytest.mark.parametrize("interval", ["1ms", "5ms", "40ms"])
@pytest.mark.parametrize("body_seconds", [0.0, 0.003, 0.02])
def test_a_trigger_alone_goes_on_being_polled_however_long_its_body_takes(
    runner: cloaca.DefaultRunner, count: Count, interval: str, body_seconds: float
) -> None:
    def body() -> bool:
        pause.wait(body_seconds)
        count.add("alone")
        return False

    pause = threading.Event()
    polled("alone", body, interval)
    assert count.more(8, "alone")


@pytest.mark.parametrize("body_seconds", [0.0, 0.003, 0.02])
def test_an_async_trigger_alone_goes_on_being_polled_however_long_its_body_takes(
    runner: cloaca.DefaultRunner, count: Count, body_seconds: float
) -> None:
    async def body() -> bool:
        await asyncio.sleep(body_seconds)
        count.add("alone")
        return False

    polled("alone", body, "5ms")
    assert count.more(8, "alone")


def test_a_trigger_alone_goes_on_being_polled_after_its_time_outs(
    runner: cloaca.DefaultRunner, count: Count
) -> None:
    def body() -> bool:
        count.add("alone")
        pause.wait(0.02)
        return False

    pause = threading.Event()
    backoff = cloaca.Backoff(base="1ms", factor=1, max="1ms")
    polled("alone", body, "5ms", poll_timeout="5ms", on_error=backoff)
    assert count.more(8, "alone")


def test_a_trigger_alone_goes_on_being_polled_after_hand_ticks_switches_and_a_new_declaration(
    runner: cloaca.DefaultRunner, count: Count
) -> None:
    def body(name: str) -> bool:
        pause.wait(0.004)
        count.add(name)
        return False

    pause = threading.Event()
    polled("alone", lambda: body("alone"))
    assert count.more(3, "alone")
    for _ in range(10):
        runner.tick("alone")
    assert count.more(3, "alone")
    for _ in range(10):
        runner.tick("alone", dry_run=True)
    assert count.more(3, "alone")
    for _ in range(10):
        runner.set_trigger_enabled("alone", False)
        runner.set_trigger_enabled("alone", True)
    assert count.more(3, "alone")
    polled("alone", lambda: body("again"))
    assert count.more(3, "again")
    assert runner.why("alone").startswith("trigger 'alone'")


def test_a_slow_and_a_raising_trigger_keep_nobody_from_being_polled(
    runner: cloaca.DefaultRunner, count: Count, release: threading.Event
) -> None:
    def slow() -> bool:
        count.add("slow")
        release.wait(5)
        return False

    def raising() -> bool:
        count.add("raising")
        raise ValueError("boom")

    names = [f"steady-{n}" for n in range(20)]
    for name in names:
        polled(name, count.body(name), "50ms")
    polled("slow", slow, "50ms")
    polled("raising", raising, "50ms", on_error=cloaca.Backoff(base="1ms", factor=1))
    assert eventually(lambda: count["slow"])
    assert count.more(10, *names, "raising")
    assert count["slow"] == 1
    polls = runner.stats()["polls"]
    assert polls >= 21 * 10


@pytest.mark.parametrize("hanging", [1, 8, 40])
def test_any_number_of_hanging_triggers_keeps_nobody_from_being_polled(
    count: Count, release: threading.Event, hanging: int
) -> None:
    def hang(name: str) -> bool:
        count.add(name)
        release.wait(WAIT)
        return False

    for n in range(hanging):
        polled(f"hangs-{n}", lambda n=n: hang(f"hangs-{n}"))
    polled("steady", count.body("steady"))
    with cloaca.DefaultRunner(":memory:") as runner:
        assert eventually(lambda: all(count[f"hangs-{n}"] for n in range(hanging)))
        assert count.more(20, "steady")
        assert all(count[f"hangs-{n}"] == 1 for n in range(hanging))
        release.set()
        assert count.more(1, *(f"hangs-{n}" for n in range(hanging)))
        assert runner.stats()["missed"] > 0


def test_tasks_that_hang_do_not_keep_triggers_from_being_polled(
    runner: cloaca.DefaultRunner, count: Count, release: threading.Event
) -> None:
    with cloaca.WorkflowBuilder("hangs"):
        cloaca.task(id="only")(lambda context: release.wait(WAIT) and None)
    polled("steady", count.body("steady"))
    for _ in range(10):
        runner.submit("hangs")
    assert count.more(20, "steady")


def test_at_most_one_poll_of_a_trigger_is_in_flight(runner: cloaca.DefaultRunner, count: Count) -> None:
    inside: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()
    pause = threading.Event()

    def body(name: str) -> bool:
        with lock:
            inside[name] += 1
            most[name] = max(most[name], inside[name])
        pause.wait(0.005)
        with lock:
            inside[name] -= 1
        count.add(name)
        return False

    names = [f"trigger-{n}" for n in range(4)]
    for name in names:
        polled(name, lambda name=name: body(name))
    assert count.more(15, *names)
    assert set(most.values()) == {1}


def test_at_most_one_poll_of_an_async_trigger_is_in_flight(
    runner: cloaca.DefaultRunner, count: Count
) -> None:
    inside = most = 0

    async def watcher() -> bool:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.005)
        inside -= 1
        count.add("watcher")
        return False

    polled("watcher", watcher)
    assert count.more(15, "watcher")
    assert most == 1


def test_async_triggers_that_hang_do_not_keep_others_from_being_polled(
    runner: cloaca.DefaultRunner, count: Count
) -> None:
    async def hang() -> bool:
        count.add("hangs")
        await asyncio.sleep(WAIT)
        return False

    async def steady() -> bool:
        count.add("steady async")
        return False

    for n in range(20):
        polled(f"hangs-{n}", hang)
    polled("steady async", steady)
    polled("steady", count.body("steady"))
    assert eventually(lambda: count["hangs"] == 20)
    assert count.more(20, "steady", "steady async")
    assert count["hangs"] == 20


def test_beats_that_are_missed_are_skipped_and_not_made_up_for(
    count: Count, release: threading.Event
) -> None:
    polled("watcher", lambda: bool(count.add("watcher")), "1s")
    with cloaca.testing.Runner() as runner:
        runner.advance("10s")
        assert count["watcher"] == 10
        runner.set_trigger_enabled("watcher", False)
        runner.advance("1h")
        runner.set_trigger_enabled("watcher", True)
        runner.advance("2s")
        assert count["watcher"] == 12


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, MemoryError]
)
def test_whatever_a_body_raises_polling_goes_on(
    runner: cloaca.DefaultRunner, count: Count, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> bool:
        count.add("raising")
        raise error("boom")

    polled("raising", body, on_error=cloaca.Backoff(base="1ms", factor=1, max="1ms"))
    polled("steady", count.body("steady"))
    assert count.more(5, "raising", "steady")
    assert runner.ticks("raising")[0]["outcome"] == "error"
    assert error.__name__ in runner.ticks("raising")[0]["reason"]
    records = [record for record in caplog.records if "raising" in record.getMessage()]
    assert records
    assert {record.levelno for record in records} == {logging.ERROR}
    assert any(record.exc_info for record in records), "the log has no traceback"


@pytest.mark.parametrize("answer", [None, 5, "fire", {"a": 1}, object(), [1]])
def test_whatever_a_body_returns_polling_goes_on(
    runner: cloaca.DefaultRunner, count: Count, answer: object
) -> None:
    settings = {"on_error": cloaca.Backoff(base="1ms", factor=1, max="1ms")}
    polled("wrong", count.body("wrong", answer), **settings)
    assert count.more(3, "wrong")
    assert runner.ticks("wrong")[0]["outcome"] == "error"
    assert runner.list_runs() == []


def test_a_failing_trigger_backs_off_and_recovers_at_its_first_success(count: Count) -> None:
    failing = True

    def body() -> bool:
        count.add("flaky")
        if failing:
            raise ValueError("boom")
        return False

    polled("flaky", body, "1s", on_error=cloaca.Backoff(base="10s", factor=2, max="40s"))
    with cloaca.testing.Runner() as runner:
        runner.advance("10m")
        assert 600 / 42 <= count["flaky"] <= 600 / 40 + 4
        failing = False
        before = count["flaky"]
        runner.advance("1m")
        assert count["flaky"] - before >= 60 - 42
        before = count["flaky"]
        runner.advance("1m")
        assert count["flaky"] - before == 60


def test_a_wish_to_be_polled_later_is_no_failure(count: Count) -> None:
    def body(tick: cloaca.Tick) -> bool:
        count.add("patient")
        failures.append(tick.consecutive_failures)
        raise cloaca.RetryAfter("2m")

    failures: list[int] = []
    polled("patient", body, "1s", max_consecutive_failures=1)
    with cloaca.testing.Runner() as runner:
        runner.advance("10m")
        assert 4 <= count["patient"] <= 5
        assert set(failures) == {0}
        assert runner.stats()["errors"] == 0


def test_a_poll_beyond_its_time_out_is_an_error_and_its_late_answer_is_dropped(
    runner: cloaca.DefaultRunner, count: Count, release: threading.Event
) -> None:
    declare()
    left = threading.Event()

    def hang() -> bool:
        count.add("hangs")
        release.wait(WAIT)
        left.set()
        return True

    polled("hangs", hang, "10ms", poll_timeout="20ms")
    polled("steady", count.body("steady"))
    assert eventually(lambda: [tick for tick in runner.ticks("hangs") if tick["outcome"] == "error"])
    assert "timed out" in runner.ticks("hangs")[-1]["reason"]
    assert count.more(10, "steady")
    runner.set_trigger_enabled("hangs", False)
    release.set()
    assert left.wait(WAIT)
    assert count.more(10, "steady")
    assert runner.list_runs() == []


def test_a_fire_of_an_unknown_workflow_is_logged_with_those_that_exist_and_polling_goes_on(
    runner: cloaca.DefaultRunner, count: Count, caplog: pytest.LogCaptureFixture
) -> None:
    declare("alpha")
    declare("beta")
    settings = {"on_error": cloaca.Backoff(base="1ms", factor=1, max="1ms")}
    polled("lost", count.body("lost", True), workflow="gamma", **settings)
    assert count.more(5, "lost")
    assert eventually(lambda: [record for record in caplog.records if "gamma" in record.getMessage()])
    message = next(record.getMessage() for record in caplog.records if "gamma" in record.getMessage())
    for word in ("lost", "gamma", "alpha", "beta"):
        assert word in message
    assert {record.levelno for record in caplog.records if "gamma" in record.getMessage()} == {logging.ERROR}
    assert "gamma" in runner.ticks("lost")[0]["reason"]
    assert runner.list_runs() == []
    declare("gamma")
    assert eventually(lambda: runner.list_runs(workflow="gamma"))


def test_a_workflow_of_a_constructor_is_built_when_a_trigger_fires_it(count: Count) -> None:
    def construct() -> cloaca.Workflow:
        builder = cloaca.WorkflowBuilder("built")
        with builder:
            cloaca.task(id="only")(lambda context: None)
        return builder.build()

    cloaca.register_workflow_constructor("built", construct)
    polled("watcher", count.body("watcher", True), workflow="built")
    with cloaca.DefaultRunner(":memory:") as runner:
        assert eventually(lambda: runner.list_runs(workflow="built", status="Completed"))


def test_both_runners_of_a_process_poll_when_their_stores_differ(tmp_path: Path) -> None:
    declare()
    fired = cloaca.TriggerResult.fire({"a": 1}, run_key="once in each store")
    polled("watcher", lambda: fired)
    with cloaca.DefaultRunner(":memory:") as one, cloaca.DefaultRunner(str(tmp_path / "a.db")) as two:
        for runner in (one, two):
            assert eventually(lambda runner=runner: runner.stats()["polls"] >= 5)
            assert len(runner.list_runs()) == 1
        one.shutdown()
        polls = two.stats()["polls"]
        assert eventually(lambda: two.stats()["polls"] >= polls + 5)


def test_two_runners_on_one_store_share_its_triggers_and_a_run_key_starts_one_run(tmp_path: Path) -> None:
    declare()
    url = str(tmp_path / "a.db")
    steps = []

    def body(tick: cloaca.Tick) -> cloaca.TriggerResult:
        steps.append(tick.cursor)
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor}, run_key=str(tick.cursor))

    polled("counter", body)
    with cloaca.DefaultRunner(url) as one, cloaca.DefaultRunner(url) as two:
        assert eventually(lambda: len(steps) > 20)
        one.shutdown()
        seen = len(steps)
        assert eventually(lambda: len(steps) > seen + 20)
        numbers = [row["context"]["n"] for row in two.list_runs(limit=10_000)]
    assert len(numbers) == len(set(numbers))
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_the_switch_of_a_trigger_is_kept_across_a_restart(tmp_path: Path, count: Count) -> None:
    url = str(tmp_path / "a.db")
    polled("off", count.body("off"))
    polled("on", count.body("on"))
    with cloaca.DefaultRunner(url) as runner:
        assert count.more(3, "off", "on")
        runner.set_trigger_enabled("off", False)
    before = count["off"]
    with cloaca.DefaultRunner(url) as runner:
        assert count.more(30, "on")
        assert count["off"] == before
        runner.set_trigger_enabled("off", True)
        assert count.more(3, "off")


def test_a_disabled_trigger_is_not_polled(runner: cloaca.DefaultRunner, count: Count) -> None:
    polled("off", count.body("off"))
    polled("on", count.body("on"))
    assert count.more(3, "off", "on")
    runner.set_trigger_enabled("off", False)
    assert count.more(3, "on")
    before = count["off"]
    assert count.more(30, "on")
    assert count["off"] == before


def test_triggers_may_use_the_runner_that_polls_them(runner: cloaca.DefaultRunner, count: Count) -> None:
    declare()
    declare("other")

    def body() -> bool:
        runner.execute("other")
        runner.submit("other").result(WAIT)
        assert runner.get_trigger_schedule("busy") is not None
        runner.stats()
        runner.list_runs()
        runner.why("busy")
        count.add("busy")
        return True

    polled("busy", body)
    assert count.more(5, "busy")
    assert eventually(lambda: runner.list_runs(trigger="busy"))


def test_a_trigger_may_declare_another(runner: cloaca.DefaultRunner, count: Count) -> None:
    def parent() -> bool:
        if not count["parent"]:
            polled("child", count.body("child"))
        count.add("parent")
        return False

    polled("parent", parent)
    assert count.more(3, "parent", "child")


def test_every_fire_of_a_thousand_triggers_becomes_a_run(runner: cloaca.DefaultRunner) -> None:
    declare()
    fired = threading.Semaphore(0)

    def body(n: int) -> cloaca.TriggerResult:
        fired.release()
        return cloaca.TriggerResult.fire({"n": n}, run_key=str(n))

    for n in range(1000):
        polled(f"trigger-{n}", lambda n=n: body(n), "50ms")
    assert eventually(lambda: runner.stats()["runs_completed"] >= 1000)
    (row,) = runner.query("SELECT count(*) AS runs, count(DISTINCT workflow || context) AS kinds FROM runs")
    assert row == {"runs": 1000, "kinds": 1000}


def test_methods_partials_objects_and_builtins_are_polled(runner: cloaca.DefaultRunner, count: Count) -> None:
    import functools

    class Watcher:
        def method(self) -> bool:
            count.add("method")
            return False

        def __call__(self) -> bool:
            count.add("object")
            return False

    polled("method", Watcher().method)
    polled("object", Watcher())
    polled("partial", functools.partial(lambda name: bool(count.add(name)), "partial"))
    polled("builtin", bool)
    assert count.more(2, "method", "object", "partial")
    assert eventually(lambda: runner.ticks("builtin"))
    assert runner.ticks("builtin")[0]["outcome"] == "skip"


def test_a_generator_of_results_fires_them_all(runner: cloaca.DefaultRunner) -> None:
    declare()

    def body(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
        for n in range(3):
            tick.cursor = n
            yield cloaca.TriggerResult.fire({"n": n}, run_key=str(n))

    polled("many", body)
    assert eventually(lambda: len(runner.list_runs()) == 3)
    assert runner.query("SELECT cursor FROM schedules") == [{"cursor": "2"}]


def test_a_generator_that_raises_midway_fires_nothing(runner: cloaca.DefaultRunner, count: Count) -> None:
    declare()

    def body(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
        tick.cursor = 1
        yield cloaca.TriggerResult.fire({"n": 1})
        count.add("raising")
        raise ValueError("boom")

    polled("raising", body, on_error=cloaca.Backoff(base="1ms", factor=1, max="1ms"))
    assert count.more(3, "raising")
    assert runner.list_runs() == []
    assert runner.query("SELECT cursor FROM schedules") == [{"cursor": None}]


@pytest.mark.parametrize("takes_tick", [False, True])
def test_what_is_declared_again_and_again_does_not_grow(takes_tick: bool) -> None:
    polled = threading.Semaphore(0)
    functions: list[weakref.ref[Any]] = []

    def declare() -> None:
        def watch(tick: cloaca.Tick | None = None) -> bool:
            polled.release()
            return False

        def plain() -> bool:
            polled.release()
            return False

        function = watch if takes_tick else plain
        functions.append(weakref.ref(function))
        cloaca.trigger(workflow="w", poll_interval="1ms", name="again")(function)

    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(200):
            declare()
            # Of the newest one, whatever the older ones still release.
            while polled.acquire(blocking=False):
                pass
            assert polled.acquire(timeout=20)
        assert len(runner._crew.triggers) <= 4
        assert len(runner._crew.bodies) == len(runner._crew.triggers)
        gc.collect()
        assert sum(function() is not None for function in functions) <= 4
        assert [row["trigger_name"] for row in runner.list_trigger_schedules()] == ["again"]


def test_a_burst_of_declarations_gives_its_places_back() -> None:
    polled = threading.Event()
    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(3):
            for _ in range(100):
                cloaca.trigger(workflow="w", poll_interval="1h", name="burst")(lambda: False)
            polled.clear()
            cloaca.trigger(workflow="w", poll_interval="1ms", name="burst")(lambda: polled.set())
            assert polled.wait(20)
        assert len(runner._crew.triggers) <= 210


@pytest.mark.parametrize("terms", [{"paused": False}, {"work": False}])
def test_poll_soon_asks_whoever_polls_a_trigger(tmp_path: Path, terms: dict[str, bool]) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    called = threading.Semaphore(0)

    @cloaca.trigger(workflow="w", poll_interval="1h", on_error=cloaca.Backoff("30m"))
    def theirs() -> bool:
        called.release()
        raise ConnectionError("no route")

    cloaca.trigger(workflow="w", name="nightly", cron="@daily")(lambda: None)
    with cloaca.DefaultRunner(tmp_path / "a.db") as polls:
        assert eventually(lambda: polls.get_trigger_schedule("theirs") is not None)
        polls.poll_soon("theirs")
        assert called.acquire(timeout=30)
        # It waits for an hour now, as it failed.
        assert eventually(lambda: "backs off" in polls.why("theirs"))
        with cloaca.testing.isolated(), cloaca.DefaultRunner(tmp_path / "a.db", **terms) as other:
            for _ in range(2):
                other.poll_soon("theirs")
                assert called.acquire(timeout=30)
            assert eventually(lambda: "3 failed polls" in polls.why("theirs"))
            assert polls.audit() == [], "a program's calls are not on the list"
            other.set_trigger_enabled("theirs", False)
            with pytest.raises(cloaca.TriggerError, match="'theirs' is switched off"):
                other.poll_soon("theirs")
            other.set_trigger_enabled("theirs", True)
            with pytest.raises(cloaca.TriggerError, match=r"is a cron.*`cloaca submit w`"):
                other.poll_soon("nightly")
            with pytest.raises(cloaca.TriggerError, match="did you mean 'theirs'"):
                other.poll_soon("their")
            polls.shutdown()
            with pytest.raises(cloaca.TriggerError, match="nor by another living runner"):
                other.poll_soon("theirs")
    assert not called.acquire(blocking=False)


@pytest.mark.parametrize("backs_off", [False, True])
def test_a_poll_that_was_asked_for_stands_until_one_begins_whoever_has_the_trigger_then(
    tmp_path: Path, backs_off: bool
) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    called, goes_on = threading.Semaphore(0), threading.Event()

    @cloaca.trigger(workflow="w", poll_interval="1h", on_error=cloaca.Backoff("30m"))
    def theirs() -> bool:
        called.release()
        assert goes_on.wait(WAIT)
        if backs_off:
            raise ConnectionError("no route")
        return False

    url = tmp_path / "a.db"
    with cloaca.DefaultRunner(url, work=False) as other, cloaca.DefaultRunner(url) as first:
        assert eventually(lambda: first.get_trigger_schedule("theirs") is not None)
        first.poll_soon("theirs")
        assert called.acquire(timeout=WAIT)
        # Its poll is in flight, so that the one which is asked for now can only follow it: elsewhere.
        with cloaca.DefaultRunner(url):
            other.poll_soon("theirs")
            leaves = threading.Thread(target=first.shutdown)
            leaves.start()
            assert eventually(lambda: is_closing(first))
            goes_on.set()
            leaves.join(WAIT)
            assert called.acquire(timeout=WAIT), "the ask went with the runner that had the trigger"
            assert eventually(
                lambda: other.query("SELECT asked = answered AS done FROM schedules")[0]["done"]
            )
    # It is answered: who comes next polls nothing.
    with cloaca.DefaultRunner(url) as last:
        assert eventually(lambda: "polls" in last.why("theirs") or "backs off" in last.why("theirs"))
        assert not called.acquire(timeout=0.5)


def is_closing(runner: cloaca.DefaultRunner) -> bool:
    try:
        runner.submit("w")
    except cloaca.RunnerError:
        return True
    return False


def test_a_poll_that_was_asked_for_of_who_was_killed_then_is_the_next_ones(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    polled = threading.Event()
    url = tmp_path / "a.db"
    if request.config.getoption("--store") == "postgres":
        url = request.getfixturevalue("postgres_url")
    with start_program(
        """
        import sys, threading, cloaca
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="only")(lambda context: None)
        @cloaca.trigger(workflow="w", poll_interval="1h", poll_at_start=True)
        def theirs():
            print("polls", flush=True)
            threading.Event().wait()
        with cloaca.DefaultRunner(sys.argv[1]):
            threading.Event().wait()
        """,
        url,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "polls\n"
        with cloaca.DefaultRunner(url, work=False) as other:
            other.poll_soon("theirs")
            program.kill()
            program.wait()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def theirs() -> None:
        polled.set()

    with cloaca.DefaultRunner(url):
        assert polled.wait(WAIT)


def test_poll_soon_of_a_cron_says_what_runs_it(runner: cloaca.DefaultRunner) -> None:
    cloaca.trigger(workflow="w", name="nightly", cron="@daily")(lambda: None)
    with pytest.raises(cloaca.TriggerError, match="is a cron: its calendar says when it runs"):
        runner.poll_soon("nightly")


@pytest.mark.parametrize("takes_tick", [False, True])
def test_poll_soon_of_what_was_polled_and_is_a_cron_is_refused(tmp_path: Path, takes_tick: bool) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    url = tmp_path / "a.db"
    cloaca.trigger(workflow="w", name="source", poll_interval="1h")(lambda: False)
    with cloaca.DefaultRunner(url) as first:
        assert eventually(lambda: first.get_trigger_schedule("source") is not None)
        first.poll_soon("source")
    body: Any = (lambda tick: False) if takes_tick else lambda: False
    cloaca.trigger(workflow="w", name="source", cron="0 3 29 2 *")(body)
    with cloaca.DefaultRunner(url) as runner:
        refused = pytest.raises(cloaca.TriggerError, match=r"is a cron: its calendar.*`cloaca submit w`")
        with refused:
            runner.poll_soon("source")
        with cloaca.testing.isolated(), cloaca.DefaultRunner(url, work=False) as client, refused:
            client.poll_soon("source")
        with refused:
            runner._ask_poll("source")
        assert runner.query("SELECT max(asked) AS asked FROM schedules WHERE kind = 'trigger'") == [
            {"asked": 0}
        ]
