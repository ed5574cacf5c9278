"""`reading.preview`: a poll told from outside is the one that the trigger's runner tells."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flow import Gate, declare

import cloaca
from cloaca import TriggerResult, reading

Fires = list[TriggerResult]
PATHS: list[Path] = []


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def runner(gate: Gate, tmp_path: Path) -> Iterator[cloaca.DefaultRunner]:
    declare("w", gate)
    PATHS.append(tmp_path / "runs.db")
    with cloaca.DefaultRunner(PATHS[-1]) as runner:
        yield runner
        gate.open.set()


def trigger(fires: Fires, **settings: Any) -> None:
    cloaca.trigger(workflow="w", name="it", **{"poll_interval": "1h"} | settings)(lambda tick: list(fires))


def of(n: int, **terms: Any) -> TriggerResult:
    return TriggerResult.fire({"n": n}, **terms)


def previewed(runner: cloaca.DefaultRunner, name: str = "it", **unmasked: bool) -> Any:
    # On a server a file's name stands for its database.
    path = runner._engine.path or PATHS[-1]
    with reading.Reader(path, **unmasked) as reader:
        return reading.preview(reader, name)


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue", "buffer_one", "cancel_running"])
def test_the_gate_says_what_it_says_to_the_runner(runner: cloaca.DefaultRunner, overlap: str) -> None:
    fires = [of(1), of(2), of(2), of(3, run_key="a"), of(4, run_key="a")]
    trigger(fires, overlap=overlap)
    assert previewed(runner) == runner.tick("it", dry_run=True)
    fires[:] = [of(1), of(3, run_key="a")]
    runner.tick("it")
    assert runner.list_runs() != []
    fires[:] = [of(1), of(2), of(5, run_key="a"), of(6, cursor=1), of(7, cursor=2), of(8, dedup_key="k")]
    told = previewed(runner)
    assert told == runner.tick("it", dry_run=True)
    assert {fire["gate"]["verdict"] for fire in told["fires"]} != {"run"}


def test_a_tick_finds_what_is_on_record(runner: cloaca.DefaultRunner) -> None:
    seen: list[tuple[Any, ...]] = []

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def counts(tick: cloaca.Tick) -> TriggerResult:
        newest = tick.last_run
        seen.append((tick.cursor, tick.unfinished, newest and newest["id"], tick.last_fired_at))
        tick.cursor = (tick.cursor or 0) + 1
        return TriggerResult.fire({"n": tick.cursor})

    assert previewed(runner, "counts")["cursor"] == 1
    runner.tick("counts")
    (run,) = runner.list_runs()
    before = runner.query("SELECT * FROM schedules"), runner.query("SELECT * FROM ticks")
    answer = previewed(runner, "counts")
    assert (answer["cursor"], answer["fires"][0]["context"]) == (2, {"n": 2})
    assert seen[0] == (None, 0, None, None)
    assert seen[-1][:3] == (1, 1, run["id"])
    assert seen[-1][3] is not None
    assert (runner.query("SELECT * FROM schedules"), runner.query("SELECT * FROM ticks")) == before
    assert len(runner.list_runs()) == 1


def test_what_a_function_raises_or_answers_is_told_as_by_the_runner(runner: cloaca.DefaultRunner) -> None:
    def partly() -> Iterator[TriggerResult]:
        yield of(1, cursor=1)
        raise OSError("gone")

    async def later() -> bool:
        return True

    def waits() -> bool:
        raise cloaca.RetryAfter("2h")

    def fails() -> bool:
        raise ValueError("boom")

    bodies = {"partly": partly, "later": later, "waits": waits, "fails": fails, "odd": lambda: 7}
    for name, body in bodies.items():
        cloaca.trigger(workflow="w", name=name, poll_interval="1h")(body)  # type: ignore[arg-type]
        told = runner.tick(name, dry_run=True)
        assert previewed(runner, name) == told, name


def test_a_failed_poll_is_known_to_the_next_one(runner: cloaca.DefaultRunner) -> None:
    seen: list[tuple[int, str | None]] = []

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def fails(tick: cloaca.Tick) -> bool:
        seen.append((tick.consecutive_failures, tick.last_error))
        raise ValueError("boom")

    assert previewed(runner, "fails")["outcome"] == "error"
    runner.tick("fails")
    previewed(runner, "fails")
    assert seen == [(0, None), (0, None), (1, "ValueError: boom")]


def test_a_moment_of_a_cron_is_told_too(runner: cloaca.DefaultRunner) -> None:
    cloaca.trigger(workflow="w", name="plain", cron="0 3 * * *", timezone="Europe/Berlin")(lambda: None)

    @cloaca.trigger(workflow="w", cron="0 4 * * *")
    def decides(tick: cloaca.Tick) -> dict[str, Any]:
        return {"at": tick.scheduled_at}

    for name in ("plain", "decides"):
        told, expected = previewed(runner, name), runner.tick(name, dry_run=True)
        (mine,), (theirs,) = told.pop("fires"), expected.pop("fires")  # type: ignore[misc]
        for fire in (mine, theirs):
            at = fire["context"].pop("scheduled_time")
            assert fire["context"].pop("at", at) == at
        assert (told, mine) == (expected, theirs)
        assert mine["context"]["schedule_id"] == runner.get_trigger_schedule(name) or mine["context"]


def gates(answer: Any) -> list[Any]:
    return [fire["gate"] for fire in answer["fires"]]


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue", "buffer_one", "cancel_running"])
def test_the_gate_says_of_a_moment_what_it_says_to_the_runner(
    runner: cloaca.DefaultRunner, overlap: str
) -> None:
    fires = [of(1), of(2), of(2), of(3, run_key="a"), of(4, run_key="a"), of(5, cursor=1), of(6, cursor=2)]
    never = {"cron": "0 3 29 2 *", "poll_interval": None}
    trigger(fires, overlap=overlap, **never)
    before = gates(previewed(runner))
    assert before == gates(runner.tick("it", dry_run=True))
    assert {gate["verdict"] for gate in before} > {"run"}
    # Its name was a poll's, and what that has used up is used.
    fires[:] = [of(7, run_key="a")]
    trigger(fires, overlap=overlap)
    runner.tick("it")
    (run,) = runner.list_runs()
    trigger(fires, overlap=overlap, **never)
    (gate,) = gates(previewed(runner))
    assert [gate] == gates(runner.tick("it", dry_run=True))
    assert (gate["verdict"], gate["run"]) == ("refuse_key", run["id"])
    assert gate["reason"] == f"deduplicated: run key 'a' started run {run['id']}"


def test_a_program_that_never_ran_is_looked_at_in_an_empty_store(tmp_path: Path) -> None:
    cloaca.DefaultRunner(tmp_path / "runs.db").shutdown()
    cloaca.trigger(workflow="nope", name="it", poll_interval="1h")(lambda: True)
    with reading.Reader(tmp_path / "runs.db") as reader:
        (fire,) = reading.preview(reader, "it")["fires"]
        assert fire["gate"]["verdict"] == "fail"
        assert "'nope'" in str(fire["gate"]["reason"])
        with pytest.raises(reading.MissingError, match="did you mean 'it'"):
            reading.preview(reader, "itt")


def test_what_was_never_declared_to_a_store_may_ask_for_itself(tmp_path: Path) -> None:
    cloaca.DefaultRunner(tmp_path / "runs.db").shutdown()

    @cloaca.trigger(workflow="w", name="it", poll_interval="1h")
    def asks(tick: cloaca.Tick) -> TriggerResult:
        here = tick.runner
        assert "was never polled" in here.why("it")
        return TriggerResult.skip(f"{here.cursor('it')} {here.ticks('it')}")

    with reading.Reader(tmp_path / "runs.db") as reader:
        assert reading.preview(reader, "it")["reason"] == "None []"


def test_a_preview_hides_what_the_store_hides(tmp_path: Path) -> None:
    @cloaca.trigger(workflow="w", poll_interval="1h")
    def mail(tick: cloaca.Tick) -> TriggerResult:
        tick.cursor = {"token": "hunter22"}
        return TriggerResult.fire({"token": "hunter22"}, run_key="k")

    PATHS.append(tmp_path / "runs.db")
    with cloaca.DefaultRunner(PATHS[-1], redact=["token"]) as runner:
        told = previewed(runner, "mail")
        assert "hunter22" not in str(told)
        assert told == runner.tick("mail", dry_run=True)
        assert "hunter22" in str(previewed(runner, "mail", unmasked=True))


def test_a_preview_of_a_limited_workflow_counts_for_nothing(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w", rate_limit=cloaca.RateLimit(1, "1d")):
        cloaca.task(id="only")(lambda context: None)
    trigger([of(1), of(2)])
    PATHS.append(tmp_path / "runs.db")
    with cloaca.DefaultRunner(PATHS[-1]) as runner:
        for _ in range(2):
            told = [fire["gate"]["verdict"] for fire in previewed(runner)["fires"]]
            assert told == ["run", "drop"]
        assert runner.tick("it")["outcome"] == "fire"
        # An equal fire stands in the way of none once its run is over.
        for run in runner.list_runs():
            runner.run(run["id"]).result(60)
        told = [fire["gate"]["verdict"] for fire in previewed(runner)["fires"]]
        assert told == ["drop", "drop"]


def test_a_preview_leaves_a_store_as_it_is_and_wakes_nobody(tmp_path: Path) -> None:
    declare("w")
    trigger([of(1, run_key="a"), of(2, cursor=1)], overlap="queue")
    PATHS.append(tmp_path / "runs.db")
    with cloaca.DefaultRunner(PATHS[-1]) as runner:
        runner.tick("it")
        for run in runner.list_runs():
            runner.run(run["id"]).result(60)
        tables = ["runs", "run_keys", "schedules", "ticks", "declared", "versions", "lanes", "seats"]
        before = [runner.query(f"SELECT * FROM {table}") for table in tables]
        previewed(runner)
        after = [runner.query(f"SELECT * FROM {table}") for table in tables]
        assert before == after
        assert len(cloaca.runners()) == 1
        assert runner.query("SELECT count(*) AS many FROM owners") == [{"many": 1}]


def test_how_many_polls_in_a_row_have_failed_is_read_from_outside(tmp_path: Path) -> None:
    fails = [True]
    seen: list[int] = []

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def source(tick: cloaca.Tick) -> bool:
        seen.append(tick.consecutive_failures)
        if fails[0]:
            raise ValueError(f"boom {len(seen)}")
        return False

    def told() -> tuple[str, int]:
        with reading.Reader(runner._engine.path or PATHS[-1]) as reader:
            (found,) = reading.schedules_named(reader, "source")
            assert isinstance(found, reading.Trigger)
            return found.state, found.failures

    PATHS.append(tmp_path / "runs.db")
    with cloaca.DefaultRunner(PATHS[-1]) as runner:
        for failures in (1, 2):
            runner.tick("source")
            assert told() == ("failing", failures)
        previewed(runner, "source")
        assert seen[-1] == 2, "also where each failed by another error"
        fails[0] = False
        runner.tick("source")
        assert told() == ("polled", 0)


READS: dict[str, Any] = {
    "list_runs": lambda r: r.list_runs("w", limit=2, offset=1),
    "list_runs after": lambda r: r.list_runs(after=r.list_runs()[0]["id"], contexts=False),
    "iter_runs": lambda r: list(r.iter_runs(status="Failed")),
    "get_run": lambda r: [r.get_run(run["id"]) for run in r.list_runs()],
    "get_run of none": lambda r: r.get_run("00000000-0000-0000-0000-000000000000"),
    "logs": lambda r: r.logs(r.list_runs()[0]["id"]),
    "audit": lambda r: r.audit(),
    "ticks": lambda r: r.ticks("asks"),
    "cursor": lambda r: (r.cursor("asks"), r.cursor("nightly")),
    # While its function is called, a runner's trigger is not due.
    "list_trigger_schedules": lambda r: [
        each | {"next_poll_at": 0} for each in r.list_trigger_schedules(True)
    ],
    "get_trigger_schedule": lambda r: (r.get_trigger_schedule("off"), r.get_trigger_schedule("none")),
    "get_trigger_execution_history": lambda r: r.get_trigger_execution_history("asks"),
    "list_cron_schedules": lambda r: r.list_cron_schedules(),
    "get_cron_schedule": lambda r: r.get_cron_schedule("nightly"),
    "list_limits": lambda r: r.list_limits(),
    "list_pauses": lambda r: r.list_pauses(),
    "list_runners": lambda r: [(each["number"], each["state"], each["works"]) for each in r.list_runners()],
    "query": lambda r: r.query("SELECT count(*) AS many FROM runs WHERE row > ?", [0]),
    "redacted": lambda r: r.redacted,
    "health": lambda r: {k: v for k, v in r.health().items() if k not in ("at", "oldest_seconds")},
    "unknown run": lambda r: r.why_run("00000000-0000-0000-0000-000000000000"),
    "unknown trigger": lambda r: r.cursor("none"),
    "no SELECT": lambda r: r.query("DELETE FROM runs"),
}


def asked(runner: Any) -> dict[str, Any]:
    """What each question comes to, an error by its class."""
    found = {}
    for name, ask in READS.items():
        try:
            found[name] = ask(runner)
        except cloaca.CloacaError as error:
            found[name] = type(error)
    return found


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[cloaca.DefaultRunner, list[Any]]]:
    """A runner whose trigger `asks` tells what it is told."""
    seen: list[Any] = []
    declare("w")

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def asks(tick: cloaca.Tick) -> TriggerResult:
        called = cloaca.current_run()
        assert called is not None
        assert called.trigger == "asks"
        seen.append((tick.runner, asked(called.runner), tick.runner.why("asks"), tick.runner.why_run))
        tick.cursor = {"token": "hunter22"}
        return TriggerResult.fire({"n": len(seen)})

    cloaca.trigger(workflow="w", name="off", poll_interval="1h")(lambda: False)
    cloaca.trigger(workflow="w", name="nightly", cron="0 3 29 2 *")(lambda: False)
    PATHS.append(tmp_path / "runs.db")
    with cloaca.DefaultRunner(PATHS[-1], redact=["token"], name="desk") as runner:
        runner.set_trigger_enabled("off", False)
        runner.execute("w", {"token": "hunter22"})
        runner.execute("w", {"n": 1})
        runner.pause(workflow="w")
        runner.tick("asks")
        seen.clear()
        yield runner, seen


def test_what_a_body_asks_the_runner_it_is_told_without_one(
    told: tuple[cloaca.DefaultRunner, list[Any]],
) -> None:
    runner, seen = told
    assert previewed(runner, "asks")["outcome"] == "fire"
    runner.tick("asks", dry_run=True)
    (looks, mine, why, why_run), (real, theirs, *_) = seen
    assert real is runner
    assert not isinstance(looks, cloaca.DefaultRunner)
    assert mine.keys() == theirs.keys() == READS.keys()
    for name, answer in theirs.items():
        assert mine[name] == answer, name
    assert "trigger 'asks'" in why
    assert "hunter22" not in str(mine)
    assert callable(why_run)


def test_a_body_that_does_more_than_look_is_refused_by_name(runner: cloaca.DefaultRunner) -> None:
    calls: list[str] = []

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def acts(tick: cloaca.Tick) -> TriggerResult:
        getattr(tick.runner, calls[-1])("w", {})
        return TriggerResult.skip()

    looks = set(vars(reading.preview.__globals__["Looks"]))
    others = [name for name in dir(cloaca.DefaultRunner) if not name.startswith("_") and name not in looks]
    assert {"submit", "execute", "set_cursor", "shutdown", "tick", "export", "stats"} <= set(others)
    for name in others:
        calls.append(name)
        answer = previewed(runner, "acts")
        assert (answer["outcome"], answer["reason"]) == (
            "error",
            f"RunnerError: preview only looks; {name} is not called",
        )
    assert runner.list_runs() == []
    calls.append("sbumit")
    assert "AttributeError" in str(previewed(runner, "acts")["reason"])


def test_a_coroutine_asks_too_and_nothing_is_left_open(runner: cloaca.DefaultRunner) -> None:
    kept: list[Any] = []

    @cloaca.trigger(workflow="w", poll_interval="1h")
    async def asks(tick: cloaca.Tick) -> bool:
        kept.append(tick.runner)
        return bool(tick.runner.list_runs())

    assert previewed(runner, "asks")["outcome"] == "skip"
    with pytest.raises(cloaca.StoreError):
        kept[0].list_runs()


def test_a_preview_of_an_older_file_leaves_it_as_it_is(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--store") != "sqlite":
        pytest.skip("a server has no file")
    fixtures = Path(__file__).resolve().parents[2] / "rust/store/tests/fixtures"
    old = tmp_path / "old.db"
    shutil.copy(next(each for each in sorted(fixtures.iterdir()) if each.suffix == ".db"), old)
    before = old.read_bytes()
    cloaca.trigger(workflow="w", name="it", poll_interval="1h")(lambda tick: bool(tick.runner.list_runs()))
    with pytest.raises(cloaca.StoreError, match="schema version"), reading.Reader(old) as reader:
        reading.preview(reader, "it")
    assert old.read_bytes() == before
