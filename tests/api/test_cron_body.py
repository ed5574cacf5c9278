"""A cron whose function has a parameter: it is called for each moment, and decides what that starts."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from program import Dated, eventually

import cloaca
import cloaca.testing
from cloaca import Tick, TriggerResult

START = "2026-03-01T00:00:00Z"
WAIT = 20.0


@pytest.fixture(autouse=True)
def workflow() -> None:
    with cloaca.WorkflowBuilder("report"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


def declare(body: Callable[..., Any], cron: str = "0 3 * * *", **arguments: Any) -> None:
    cloaca.trigger(workflow="report", name="nightly", cron=cron, **arguments)(body)


def day(text: str) -> str:
    return text[8:16]


def moments(runner: Any) -> list[str]:
    return [day(context["scheduled_time"]) for context in runner.fired("report")]


def outcomes(runner: cloaca.DefaultRunner) -> list[tuple[str, int]]:
    return [(tick["outcome"], tick["count"]) for tick in reversed(runner.ticks("nightly"))]


def test_a_function_without_a_parameter_is_never_called() -> None:
    def never(*_: object) -> None:
        raise AssertionError("it has been called")

    declare(lambda: never())
    with cloaca.testing.Runner(START) as runner:
        runner.advance("2d")
        assert moments(runner) == ["01T03:00", "02T03:00"]
        assert outcomes(runner) == []


def fires() -> TriggerResult:
    return TriggerResult.fire({"of": "night"})


def fires_sometimes() -> TriggerResult | None:
    """Decides."""
    if day(START):
        return None
    return TriggerResult.skip()


def skips() -> bool:
    return False


def skips_within() -> bool | None:
    with threading.Lock():
        for _ in range(3):
            return False
    return None


def yields() -> Iterator[TriggerResult]:
    yield TriggerResult.fire({})


async def awaits() -> dict[str, int]:
    return {"n": 1}


class Watcher:
    def fires(self) -> dict[str, int]:
        return {"n": 1}


@pytest.mark.parametrize(
    "body", [fires, fires_sometimes, skips, skips_within, yields, awaits, Watcher().fires]
)
def test_a_function_without_a_parameter_that_returns_something_is_warned_of(body: Callable[..., Any]) -> None:
    text = (
        r'trigger "nightly" has a cron .* is never called: .*Give it a parameter, .*\(tick\), then it decides'
    )
    with pytest.warns(UserWarning, match=text) as told:
        declare(body)
    assert [each.filename for each in told] == [__file__]
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        assert moments(runner) == ["01T03:00"]


def passes() -> None:
    pass


def told() -> None:
    """Each night."""


def dots() -> None: ...


def returns() -> None:
    return


def returns_none() -> None:
    """Nothing."""
    with threading.Lock():
        for _ in range(3):
            return
    try:
        print("never")
    finally:
        return  # noqa: B012


def returns_true() -> bool:
    return True


def raises() -> bool:
    raise NotImplementedError


async def awaits_nothing() -> None: ...


def counts() -> None:
    def inner() -> int:
        return 1

    inner()


def wraps(*arguments: Any) -> Any:
    return dots(*arguments)


@functools.wraps(dots)
def wraps_as(*arguments: Any) -> Any:
    return dots(*arguments)


class Quiet:
    def dots(self) -> None: ...

    def __call__(self) -> None:
        return None


@pytest.mark.parametrize(
    "body",
    [
        passes,
        told,
        dots,
        returns,
        returns_none,
        returns_true,
        raises,
        awaits_nothing,
        counts,
        wraps,
        wraps_as,
        functools.partial(skips),
        lambda: skips(),
        Quiet().dots,
        Quiet(),
    ],
)
def test_a_function_without_a_parameter_that_returns_nothing_is_not_warned_of(
    body: Callable[..., Any],
) -> None:
    declare(body)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        assert moments(runner) == ["01T03:00"]


def test_a_function_that_is_polled_or_has_a_parameter_is_not_warned_of() -> None:
    cloaca.trigger(workflow="report", name="polled", poll_interval="1h")(fires)
    declare(lambda tick: TriggerResult.fire({}))
    declare(lambda tick=None: TriggerResult.fire({}))


def test_a_function_with_a_parameter_is_called_for_each_moment() -> None:
    seen: list[Tick] = []
    declare(lambda tick: seen.append(tick))
    with cloaca.testing.Runner(START) as runner:
        runner.advance("3d")
        assert [tick.scheduled_at for tick in seen] == [f"2026-03-0{n}T03:00:00.000000Z" for n in (1, 2, 3)]
        assert [tick.trigger_name for tick in seen] == ["nightly"] * 3
        assert seen[0].last_fired_at is None
        assert seen[1].last_fired_at == "2026-03-01T03:00:00.000000Z"
        assert moments(runner) == ["01T03:00", "02T03:00", "03T03:00"]
        assert {run["trigger_name"] for run in runner.list_runs()} == {"nightly"}
        assert outcomes(runner) == [("fire", 3)]
        (schedule,) = runner.list_cron_schedules()
        assert schedule["next_run_at"] == "2026-03-04T03:00:00.000000Z"
        assert schedule["last_run_at"] == "2026-03-03T03:00:00.000000Z"
        found = [row["scheduled_time"] for row in runner.get_cron_execution_history(schedule["id"])]
        assert [day(moment) for moment in found] == ["03T03:00", "02T03:00", "01T03:00"]
        assert "runs next at 2026-03-04T03" in runner.why("nightly")


def test_an_optional_parameter_is_one_too() -> None:
    seen: list[Tick | None] = []

    def nightly(tick: Tick | None = None) -> None:
        seen.append(tick)

    declare(nightly)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        assert [tick.scheduled_at[:10] for tick in seen if tick is not None] == ["2026-03-01"]


@pytest.mark.parametrize(
    ("answer", "started"),
    [
        (None, [{}]),
        (True, [{}]),
        (False, []),
        (TriggerResult.skip("a holiday"), []),
        (TriggerResult.fire(), [{}]),
        (TriggerResult.fire({"deep": True}), [{"deep": True}]),
        ({"deep": 2**70}, [{"deep": 2**70}]),
        (cloaca.Context({"deep": [1]}), [{"deep": [1]}]),
        ([TriggerResult.fire({"n": 1}), TriggerResult.fire({"n": 2})], [{"n": 1}, {"n": 2}]),
        ([TriggerResult.skip("none")], []),
    ],
)
def test_an_answer_says_what_the_moment_starts(answer: Any, started: list[dict[str, Any]]) -> None:
    declare(lambda tick: answer)
    with cloaca.testing.Runner(START) as runner:
        (schedule,) = runner.list_cron_schedules()
        runner.advance("1d")
        moment = {
            "scheduled_time": "2026-03-01T03:00:00.000000Z",
            "schedule_id": schedule["id"],
            "schedule_timezone": "UTC",
            "schedule_expression": "0 3 * * *",
        }
        assert runner.fired("report") == [cloaca.Context(moment | context) for context in started]
        (tick,) = runner.ticks("nightly")
        assert tick["outcome"] == ("fire" if started else "skip")
        (schedule,) = runner.list_cron_schedules()
        assert schedule["next_run_at"] == "2026-03-02T03:00:00.000000Z"
        assert (schedule["last_run_at"] is None) == (not started)


def test_an_answer_that_is_none_is_an_error() -> None:
    declare(lambda tick: "yes")
    with cloaca.testing.Runner(START) as runner:
        runner.advance("3h1s")
        assert outcomes(runner) == [("error", 1)]
        assert moments(runner) == []


def test_a_generator_and_a_coroutine_answer_as_ever() -> None:
    def both(tick: Tick) -> Iterator[TriggerResult]:
        yield TriggerResult.fire({"n": 1})
        yield TriggerResult.fire({"n": 2})

    declare(both)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        assert [context["n"] for context in runner.fired("report")] == [1, 2]

    async def later(tick: Tick) -> dict[str, str]:
        return {"at": tick.scheduled_at}

    declare(later)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        assert [context["at"][:13] for context in runner.fired("report")] == ["2026-03-01T03"]


def test_a_moment_that_is_put_off_beyond_the_next_one_is_left_out_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def nightly(tick: Tick) -> None:
        raise cloaca.RetryAfter("2h")

    declare(nightly, cron="0 * * * *")
    with cloaca.testing.Runner("2026-03-01T02:30:00Z") as runner:
        runner.advance("3h")
        assert outcomes(runner) == [("skip", 3)]
        assert runner.ticks("nightly")[0]["reason"] == "retry after 2h"
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


def test_a_moment_that_fails_is_tried_again_until_the_next_one_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[str] = []
    broken = True

    def nightly(tick: Tick) -> None:
        called.append(tick.scheduled_at)
        if broken:
            raise ConnectionError("no source")

    declare(nightly, cron="0 * * * *")
    with cloaca.testing.Runner("2026-03-01T02:30:00Z") as runner:
        runner.advance("31m")
        assert called.count("2026-03-01T03:00:00.000000Z") == 4, "after 5, 10, 20 seconds"
        assert outcomes(runner) == [("error", 4)]
        assert runner.ticks("nightly")[0]["reason"] == "ConnectionError: no source"
        (schedule,) = runner.list_cron_schedules()
        assert schedule["next_run_at"] == "2026-03-01T03:00:00.000000Z"
        runner.advance("1h")
        assert called[-1] == "2026-03-01T04:00:00.000000Z"
        warned = [record.message for record in caplog.records if "is given up" in record.message]
        assert warned == [
            "trigger 'nightly': its moment 2026-03-01T03:00:00.000000Z failed until the next one was there, "
            "and is given up"
        ]
        broken = False
        runner.advance("30m")
        assert moments(runner) == ["01T04:00"]
        assert called.count("2026-03-01T04:00:00.000000Z") == called[::-1].index(
            "2026-03-01T03:00:00.000000Z"
        )
        runner.advance("1h")
        assert moments(runner) == ["01T04:00", "01T05:00"]
        assert called.count("2026-03-01T05:00:00.000000Z") == 1


def test_a_wish_to_try_again_later_holds_for_the_moment() -> None:
    called: list[str] = []

    def nightly(tick: Tick) -> None:
        called.append(day(tick.scheduled_at))
        if len(called) < 3:
            raise cloaca.RetryAfter("1h")

    declare(nightly)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("3h")
        runner.advance("59m59s")
        assert called == ["01T03:00"]
        runner.advance("1s")
        runner.advance("1h")
        assert called == ["01T03:00"] * 3
        assert moments(runner) == ["01T03:00"]


def test_each_moment_that_is_made_up_for_is_decided_in_order(url: str) -> None:
    called: list[str] = []
    declare(lambda tick: called.append(day(tick.scheduled_at)))
    with Dated(url, START) as runner:
        runner.advance("1d")
    with Dated(url, "2026-03-04T12:00:00Z") as runner:
        assert eventually(lambda: len(moments(runner)) == 4)
        assert called == moments(runner) == ["01T03:00", "02T03:00", "03T03:00", "04T03:00"]


def test_what_is_made_up_for_waits_for_a_source_that_is_down(url: str) -> None:
    called: list[str] = []
    is_down = True

    def nightly(tick: Tick) -> None:
        called.append(day(tick.scheduled_at))
        if is_down:
            raise ConnectionError

    declare(lambda tick: None)
    with Dated(url, START) as runner:
        runner.advance("1d")
    declare(nightly)
    with Dated(url, "2026-03-04T12:00:00Z") as runner:
        assert eventually(lambda: len(called) == 1)
        runner.advance("1m")
        assert set(called) == {"02T03:00"}
        is_down = False
        runner.advance("10m")
        assert moments(runner) == ["01T03:00", "02T03:00", "03T03:00", "04T03:00"]


def test_a_cursor_is_kept_with_what_the_moment_starts(url: str) -> None:
    def nightly(tick: Tick) -> dict[str, int]:
        seen = tick.cursor or 0
        tick.cursor = seen + 1
        return {"n": seen}

    declare(nightly)
    with Dated(url, START) as runner:
        runner.advance("2d")
    with Dated(url, "2026-03-03T00:00:00Z") as runner:
        runner.advance("1d")
        assert [context["n"] for context in runner.fired("report")] == [0, 1, 2]


def test_a_used_run_key_takes_away_nothing_of_what_its_moment_fires_beside_it() -> None:
    def nightly(tick: Tick) -> list[TriggerResult]:
        once = TriggerResult.fire({"n": 0}, run_key="once")
        return [once, once, TriggerResult.fire({"n": tick.scheduled_at[8:10]}), TriggerResult.fire({"n": 9})]

    declare(nightly)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("3d")
        fired = [context["n"] for context in runner.fired("report")]
        assert sorted(map(str, fired)) == ["0", "01", "02", "03", "9", "9", "9"]


def test_a_tick_knows_the_runs_of_its_cron() -> None:
    known: list[Any] = []

    def nightly(tick: Tick) -> None:
        known.append((tick.unfinished, tick.last_run and tick.last_run["status"]))

    declare(nightly)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("2d")
        assert known == [(0, None), (0, "Completed")]


def test_a_cron_is_called_by_its_calendar_alone() -> None:
    refused: list[str] = []

    def nightly(tick: Tick) -> None:
        try:
            tick.poll_after("1m")
        except cloaca.TriggerError as error:
            refused.append(str(error))

    declare(nightly)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        assert "'nightly' is a cron" in refused[0]
        with pytest.raises(cloaca.TriggerError):
            runner.poll_soon("nightly")


def test_a_cron_that_is_declared_again_calls_the_newest_function() -> None:
    called: list[str] = []
    declare(lambda tick: called.append("first"))
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        declare(lambda tick: called.append("second"), cron="0 4 * * *")
        runner.advance("1d")
        assert called == ["first", "second"]
        declare(lambda: None)
        runner.advance("1d")
        assert called == ["first", "second"]
        declare(lambda tick: called.append("third"))
        runner.advance("1d")
        cloaca.unregister_trigger("nightly")
        runner.advance("1d")
        declare(lambda: False, cron=None, poll_interval="1h")  # type: ignore[arg-type]
        runner.advance("1d")
        assert called == ["first", "second", "third"]
        assert runner.polls("nightly") == 3 + 24
        declare(lambda tick: called.append(day(tick.scheduled_at)))
        runner.advance("1d")
        assert called[3:] == ["05T03:00", "06T03:00", "07T03:00"]


def test_what_is_declared_again_while_a_body_is_in_flight_waits_for_it() -> None:
    begun, go_on, called = threading.Event(), threading.Event(), list[str]()

    def slow(tick: Tick) -> None:
        begun.set()
        assert go_on.wait(WAIT)
        called.append("slow")

    declare(slow, cron="* * * * * *")
    with cloaca.DefaultRunner(":memory:") as runner:
        assert begun.wait(WAIT)
        declare(lambda tick: called.append("quick"), cron="* * * * * *")
        assert called == []
        go_on.set()
        assert eventually(lambda: called.count("quick") >= 2)
        assert called[0] == "slow"
        assert called.count("slow") == 1
        found = [context["scheduled_time"] for context in fired(runner)]
        assert len(set(found)) == len(found)


def fired(runner: cloaca.DefaultRunner) -> list[dict[str, Any]]:
    return [run["context"] for run in runner.list_runs()]


def test_a_moment_is_decided_by_one_of_all_runners(url: str) -> None:
    called: list[str] = []
    declare(lambda tick: called.append(tick.scheduled_at), cron="* * * * * *")
    with cloaca.DefaultRunner(url), cloaca.DefaultRunner(url) as second:
        assert eventually(lambda: len(called) >= 4)
        assert len(set(called)) == len(called)
        assert eventually(lambda: len(fired(second)) >= 4)


def test_a_switched_off_cron_is_not_called() -> None:
    called: list[str] = []
    declare(lambda tick: called.append(day(tick.scheduled_at)))
    with cloaca.testing.Runner(START) as runner:
        runner.set_trigger_enabled("nightly", False)
        runner.advance("1d")
        runner.set_trigger_enabled("nightly", True)
        runner.advance("1d")
        assert called == ["02T03:00"]


def test_a_tick_decides_now_and_uses_up_no_moment() -> None:
    called: list[str] = []

    def nightly(tick: Tick) -> list[TriggerResult]:
        called.append(tick.scheduled_at)
        tick.cursor = len(called)
        return [TriggerResult.fire({"n": n}, run_key="once") for n in (1, 2)]

    declare(nightly)
    with cloaca.testing.Runner(START) as runner:
        (before,) = runner.list_cron_schedules()
        looked = runner.tick("nightly", dry_run=True)
        assert (looked["outcome"], looked["cursor"]) == ("fire", None)
        assert [fire["context"]["n"] for fire in looked["fires"]] == [1, 2]
        assert looked["fires"][0]["context"]["scheduled_time"] == "2026-03-01T00:00:00.000000Z"
        assert runner.list_runs() == []
        assert [fire.pop("gate")["verdict"] for fire in looked["fires"]] == ["run", "refuse_key"]
        assert runner.tick("nightly") == looked
        assert sorted(run["context"]["n"] for run in runner.list_runs()) == [1, 2]
        assert runner.list_cron_schedules() == [before]
        runner.advance("1d")
        assert called[2:] == ["2026-03-01T03:00:00.000000Z"]

    def broken(tick: Tick) -> None:
        raise ConnectionError("no source")

    declare(broken)
    with cloaca.testing.Runner(START) as runner:
        answer = runner.tick("nightly")
        assert (answer["outcome"], answer["reason"]) == ("error", "ConnectionError: no source")
        assert runner.list_runs() == []


def test_a_dry_run_says_what_the_next_moment_decides() -> None:
    fires = [TriggerResult.fire({"n": 1}, run_key="one")]
    declare(lambda tick: list(fires))
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        (run,) = runner.list_runs()
        fires.append(TriggerResult.fire({"n": 2}))
        fires += [TriggerResult.fire({"n": n}, run_key="two") for n in (3, 4)]
        before = runner.list_cron_schedules(), runner.query("SELECT * FROM schedules")
        gates = [fire["gate"] for fire in runner.tick("nightly", dry_run=True)["fires"]]
        assert (runner.list_cron_schedules(), runner.query("SELECT * FROM schedules")) == before
        assert gates[0]["reason"] == f"deduplicated: run key 'one' started run {run['id']}"
        assert [(gate["verdict"], gate["run"]) for gate in gates] == [
            ("refuse_key", run["id"]),
            ("run", None),
            ("run", None),
            ("refuse_key", None),
        ]
        runner.advance("1d")
        assert sorted(run["context"]["n"] for run in runner.list_runs()) == [1, 2, 3]


def test_why_tells_what_became_of_the_last_moment() -> None:
    answers: list[Any] = [TriggerResult.skip("a holiday"), None]
    cloaca.trigger(workflow="report", name="nightly", poll_interval="1h")(lambda: False)
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1h")
        declare(lambda tick: answers.pop(0) if answers else tick.nothing)
        runner.advance("1d")
        assert runner.why("nightly").endswith("it has not run yet; its last moment was left out: a holiday")
        runner.advance("1d")
        assert runner.why("nightly").endswith("; it ran last at 2026-03-02T03:00:00.000000Z")
        runner.advance("1d")
        says = runner.why("nightly")
        assert " times in a row and is called again for 2026-03-03T03:00" in says
        assert "its last moment failed: AttributeError" in says


def test_why_tells_of_a_function_that_does_not_answer() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(tick: Tick) -> None:
        begun.set()
        assert go_on.wait(WAIT)

    declare(slow, cron="* * * * * *")
    with cloaca.DefaultRunner(":memory:") as runner:
        assert begun.wait(WAIT)
        assert "whose function has not answered since 20" in runner.why("nightly")
        go_on.set()
        assert eventually(lambda: "runs next at" in runner.why("nightly"))


def test_each_run_of_a_moment_that_starts_several_is_in_the_history() -> None:
    declare(lambda tick: [TriggerResult.fire({"n": 1}), TriggerResult.fire({"n": 2})])
    with cloaca.testing.Runner(START) as runner:
        runner.advance("1d")
        ran = runner.get_cron_execution_history("nightly")
        assert [row["scheduled_time"] for row in ran] == ["2026-03-01T03:00:00.000000Z"] * 2
        assert {row["workflow_execution_id"] for row in ran} == {run["id"] for run in runner.list_runs()}
