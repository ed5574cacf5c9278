"""A trigger with `on_run` is told of each end of a run once, whoever ended it, and whatever it does."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flow
import pytest

import cloaca
from cloaca import TriggerResult, reading, run_end
from cloaca.testing import Runner

START = "2026-01-01T00:00:00Z"
Run = cloaca.types.RunDetails


def until(holds: Callable[[], object]) -> None:
    """Waits for what another thread or process does."""
    pause = threading.Event()
    for _ in range(int(flow.WAIT / 0.01)):
        if holds():
            return
        pause.wait(0.01)
    assert holds()


def declare(name: str, body: Callable[..., object] = flow.nothing) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only", retry_attempts=1)(body)


def fails_if_bad(context: cloaca.Context) -> None:
    context["seen"] = True
    if context.get("bad"):
        raise ValueError("boom")


def declare_both() -> None:
    declare("ingest", fails_if_bad)
    declare("alert")


def alerts(runner: cloaca.DefaultRunner) -> list[Any]:
    """What the runs of `alert` were fired with, oldest first."""
    return [dict(run["context"] or {}) for run in reversed(runner.list_runs(workflow="alert"))]


def test_each_end_that_counts_is_told_once_as_get_run_shows_it() -> None:
    declare_both()
    told: list[Run] = []

    @cloaca.trigger(workflow="alert", on_run="ingest", status=["Failed", "Cancelled"])
    def watch(run: Run) -> TriggerResult:
        told.append(run)
        return TriggerResult.fire({"of": run["id"], "status": run["status"]})

    with Runner(START) as runner:
        good, bad = runner.submit("ingest", {"a": 1}), runner.submit("ingest", {"bad": True})
        late = runner.submit("ingest", delay="1h")
        late.cancel()
        runner.advance("10m")
        assert [run["id"] for run in told] == [bad.id, late.id] or [run["id"] for run in told] == [
            late.id,
            bad.id,
        ]
        (shown,) = (run for run in told if run["id"] == bad.id)
        assert shown["children"] == []
        # What came of its being told came later.
        (found,) = (run for run in runner.list_runs(workflow="alert") if run["parent_run"] == bad.id)
        assert (found["parent_kind"], found["parent_task"]) == ("end", None)
        now = runner.get_run(bad.id)
        assert now is not None
        (child,) = now["children"]
        assert (child["id"], child["kind"], child["task"], child["trigger_name"]) == (
            found["id"],
            "end",
            None,
            "watch",
        )
        assert {**now, "children": []} == shown
        assert [run["id"] for run in runner.list_runs(parent=bad.id)] == [found["id"]]
        assert {(each["of"], each["status"]) for each in alerts(runner)} == {
            (bad.id, "Failed"),
            (late.id, "Cancelled"),
        }
        assert {run["trigger_name"] for run in runner.list_runs(workflow="alert")} == {"watch"}
        assert runner.query("SELECT count(*) AS n FROM ends") == [{"n": 0}]
        assert good.status == "Completed"


def test_any_end_counts_if_nothing_is_said_and_a_workflow_may_be_named_by_itself() -> None:
    declare("alert")
    with cloaca.WorkflowBuilder("ingest") as builder:
        cloaca.task(id="only", retry_attempts=1)(fails_if_bad)
    told: list[str] = []

    @cloaca.trigger(workflow="alert", on_run=builder.build())
    def watch(run: Run) -> bool:
        told.append(run["status"])
        return False

    with Runner(START) as runner:
        for context in ({}, {"bad": True}):
            runner.execute("ingest", context)
            runner.run_until_idle()
        assert (told, alerts(runner)) == (["Completed", "Failed"], [])
        assert [tick["outcome"] for tick in runner.ticks("watch")] == ["skip"]
        runner.run_until_idle()
        assert len(told) == 2


def test_a_run_that_is_opened_again_has_an_end_more() -> None:
    declare_both()
    told: list[tuple[str, Any]] = []

    @cloaca.trigger(workflow="alert", on_run="ingest", status="Failed")
    def watch(run: Run) -> TriggerResult:
        told.append((run["id"], run["completed_at"]))
        return TriggerResult.fire()

    with Runner(START) as runner:
        bad = runner.submit("ingest", {"bad": True})
        runner.advance("1m")
        runner.retry(bad.id)
        runner.advance("1m")
        assert [id for id, _ in told] == [bad.id, bad.id]
        assert told[0][1] != told[1][1]
        # Equal contexts of two ends are two runs.
        assert alerts(runner) == [{}, {}]


def test_an_end_that_waits_while_its_run_is_opened_again_is_told_as_it_was() -> None:
    is_bad = [True]

    def body(context: cloaca.Context) -> None:
        context["bad"] = is_bad.pop()
        if context["bad"]:
            raise ValueError("boom")

    declare("ingest", body)
    declare("alert")
    told: list[Run] = []

    @cloaca.trigger(workflow="alert", on_run="ingest")
    def watch(run: Run) -> bool:
        told.append(run)
        return True

    with Runner(START) as runner:
        runner.set_trigger_enabled("watch", False)
        bad = runner.submit("ingest")
        runner.run_until_idle()
        first = runner.get_run(bad.id)
        runner.advance("1m")
        is_bad.append(False)
        runner.retry(bad.id)
        runner.run_until_idle()
        assert told == []
        runner.set_trigger_enabled("watch", True)
        runner.advance("1m")
        shown = [(run["status"], run["completed_at"], run["error_message"]) for run in told]
        assert shown[0] == ("Failed", first["completed_at"], first["error_message"])
        assert shown[1][0] == "Completed"
        assert told[0]["final_context"] == first["final_context"]
        assert len(shown) == 2


def test_ends_before_the_first_declaration_are_not_told_and_those_in_between_are(tmp_path: Path) -> None:
    declare_both()
    told: list[str] = []
    store = str(tmp_path / "store.db")

    def watch(run: Run) -> bool:
        told.append(run["context"]["name"])
        return True

    def run_one(name: str) -> None:
        runner.execute("ingest", {"name": name})

    with cloaca.DefaultRunner(store) as runner:
        run_one("before")
        cloaca.trigger(workflow="alert", on_run="ingest")(watch)
        run_one("while")
        until(lambda: told == ["while"])
        cloaca.unregister_trigger("watch")
        run_one("between")
    cloaca.trigger(workflow="alert", on_run="ingest")(watch)
    with cloaca.DefaultRunner(store) as runner:
        until(lambda: told == ["while", "between"])
        until(lambda: len(alerts(runner)) == 2)


@pytest.mark.parametrize("between", ["a poll", "a cron", "another workflow", "other ends"])
@pytest.mark.parametrize("state", ["off", "raises"])
def test_ends_wait_until_their_declaration_is_back(tmp_path: Path, between: str, state: str) -> None:
    declare_both()
    declare("other")
    told: list[str] = []
    wrong: list[object] = []
    store = str(tmp_path / "store.db")

    def tells(run: Run) -> bool:
        if state == "raises" and not is_back:
            raise ValueError("not now")
        told.append(run["context"]["name"])
        return False

    def strays(run: Run) -> bool:
        wrong.append(run)
        return False

    def hears() -> None:
        cloaca.trigger(workflow="alert", on_run="ingest", name="watch")(tells)

    settings: dict[str, dict[str, Any]] = {
        "a poll": {"poll_interval": "1h"},
        "a cron": {"cron": "0 0 1 1 *"},
        "another workflow": {"on_run": "other"},
        "other ends": {"on_run": "ingest", "status": "Cancelled"},
    }
    is_back = False
    hears()
    with cloaca.DefaultRunner(store) as runner:
        if state == "off":
            runner.set_trigger_enabled("watch", False)
        for name in ("first", "second"):
            runner.execute("ingest", {"name": name})
        if state == "raises":
            until(lambda: runner.ticks("watch"))
    cloaca.unregister_trigger("watch")
    function: Any = strays if "on_run" in settings[between] else lambda: False
    cloaca.trigger(workflow="alert", name="watch", **settings[between])(function)
    with cloaca.DefaultRunner(store) as runner:
        runner.execute("ingest", {"name": "third"})
        row = runner.get_trigger_schedule("watch")
        if between == "a cron":
            assert (row, runner.list_trigger_schedules()) == (None, [])
        else:
            assert row is not None
            assert row["on_run"] == settings[between].get("on_run")
        if "on_run" in settings[between]:
            with reading.Reader(store) as reader:
                assert reading.preview(reader, "watch")["reason"] == run_end.NONE_ENDED
    cloaca.unregister_trigger("watch")
    is_back = True
    hears()
    with cloaca.DefaultRunner(store) as runner:
        runner.set_trigger_enabled("watch", True)
        runner.execute("ingest", {"name": "fourth"})
        until(lambda: len(told) >= 4)
        assert (told, wrong) == (["first", "second", "third", "fourth"], [])
        # They go with the name.
        cloaca.unregister_trigger("watch")
        runner.execute("ingest", {"name": "fifth"})
        runner.forget("watch")
        hears()
        runner.execute("ingest", {"name": "sixth"})
        until(lambda: len(told) >= 5)
        assert told[4:] == ["sixth"]


def test_who_forgets_a_trigger_is_told_how_many_ends_go_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declare_both()

    @cloaca.trigger(workflow="alert", on_run="ingest")
    def watch(run: Run) -> TriggerResult:
        raise ConnectionError

    store = tmp_path / "runs.db"
    with cloaca.DefaultRunner(store) as runner:
        for _ in range(3):
            runner.execute("ingest", {"name": "a"})
    cloaca.unregister_trigger("watch")
    if store.exists():
        line = [sys.executable, "-m", "cloaca", "forget", "watch", "--database", str(store)]
        asked = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert asked.returncode == 2
        assert (
            "this would forget 'watch'; 3 ends of runs wait for 'watch', and would never be told;"
            in asked.stderr
        )
    with cloaca.DefaultRunner(store) as runner:
        runner.forget("watch")
    (said,) = (each for each in caplog.records if "forgotten" in each.getMessage())
    assert said.levelname == "WARNING"
    assert said.getMessage() == (
        "trigger 'watch' was forgotten; 3 ends of runs wait for 'watch', and will not be told to it"
    )


def test_what_raises_is_told_of_the_same_end_later_and_later() -> None:
    declare_both()
    calls: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest", on_error=cloaca.Backoff("2s"))
    def watch(run: Run) -> Any:
        calls.append(f"{run['context']['name']} {runner.now[14:19]}")
        yield TriggerResult.fire({"of": run["context"]["name"]})
        if len(calls) < 3:
            raise RuntimeError("not now")

    with Runner(START) as runner:
        runner.submit("ingest", {"name": "first"})
        runner.run_until_idle()
        assert "backs off until" in runner.why("watch")
        assert "the same end of a run" in runner.why("watch")
        runner.submit("ingest", {"name": "second"})
        runner.advance("1m")
        assert calls == ["first 00:00", "first 00:02", "first 00:06", "second 00:06"]
        # What it had given before it raised does not count.
        assert alerts(runner) == [{"of": "first"}, {"of": "second"}]


def test_retry_after_is_told_of_the_same_end() -> None:
    declare_both()
    calls: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest")
    async def watch(run: Run) -> bool:
        calls.append(runner.now[14:19])
        if len(calls) == 1:
            raise cloaca.RetryAfter("10m")
        return True

    with Runner(START) as runner:
        runner.submit("ingest")
        runner.advance("9m")
        assert (calls, alerts(runner)) == (["00:00"], [])
        runner.advance("2m")
        assert (calls, alerts(runner)) == (["00:00", "10:00"], [{}])


def test_a_trigger_that_gives_up_is_told_what_it_missed_once_it_is_on_again() -> None:
    declare_both()
    calls: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest", max_consecutive_failures=2)
    def watch(run: Run) -> bool:
        calls.append(run["context"]["name"])
        if len(calls) <= 2:
            raise RuntimeError("not now")
        return True

    with Runner(START) as runner:
        runner.submit("ingest", {"name": "first"})
        runner.advance("1h")
        assert calls == ["first", "first"]
        runner.submit("ingest", {"name": "second"})
        runner.advance("1h")
        runner.set_trigger_enabled("watch", True)
        runner.advance("1m")
        assert calls == ["first", "first", "first", "second"]


def test_what_it_does_is_told_in_words_for_what_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declare_both()
    is_in, goes_on = threading.Event(), threading.Event()
    gone: list[bool] = []

    def watch(run: Run) -> bool:
        is_in.set()
        goes_on.wait(flow.WAIT)
        if not gone:
            raise RuntimeError("not now")
        return True

    settings: Any = {"on_error": cloaca.Backoff("1ms"), "max_consecutive_failures": 2}
    cloaca.trigger(workflow="alert", on_run="ingest", name="watch", **settings)(watch)
    url = tmp_path / "runs.db"

    def told() -> str:
        with reading.Reader(url) as reader:
            return f"{here.why('watch')}\n{there.why('watch')}\n{reading.why(reader, 'watch')}"

    def lacks_polls(*parts: str) -> None:
        until(lambda: all(part in told() for part in parts))
        assert "poll" not in told()

    with cloaca.DefaultRunner(url) as here:
        until(lambda: "waits for a run" in here.why("watch"))
        with cloaca.DefaultRunner(url, triggers=[]) as there:
            lacks_polls("waits for a run to end", " is called by runner ")
            there.submit("ingest")
            assert is_in.wait(flow.WAIT)
            lacks_polls("is being called since")
            goes_on.set()
            lacks_polls("is not called: the engine disabled it because 2 calls in a row failed at")
            here.set_trigger_enabled("watch", False)
            lacks_polls("is not called: set_trigger_enabled switched it off")
            gone.append(True)
            here.set_trigger_enabled("watch", True)
            until(lambda: len(alerts(there)) == 1)
            here.shutdown()
            here = there
            lacks_polls("is not called: ", "and no other calls it", "no living runner has it")
    assert "failed polls in a row" not in caplog.text
    assert "2 failed calls in a row" in caplog.text
    with cloaca.DefaultRunner(url, paused=True) as here:
        there = here
        lacks_polls("is not called here: this runner is paused")


def test_a_body_that_takes_too_long_is_told_again() -> None:
    declare_both()
    calls: list[str] = []
    goes_on = threading.Event()

    @cloaca.trigger(workflow="alert", on_run="ingest", poll_timeout="50ms", on_error=cloaca.Backoff("10ms"))
    def watch(run: Run) -> bool:
        calls.append(run["id"])
        if len(calls) == 1:
            goes_on.wait(flow.WAIT)
        return True

    with cloaca.DefaultRunner(":memory:") as runner:
        id = runner.submit("ingest").id
        until(lambda: [tick["outcome"] for tick in runner.ticks("watch")] == ["error"])
        goes_on.set()
        until(lambda: len(alerts(runner)) == 1)
        assert calls == [id, id]


def test_tick_tells_the_next_end_and_a_dry_run_leaves_it() -> None:
    declare_both()
    told: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest")
    def watch(run: Run) -> TriggerResult:
        told.append(run["context"]["name"])
        return TriggerResult.fire({"of": run["context"]["name"]})

    with Runner(START) as runner:
        none = runner.tick("watch")
        assert (none["outcome"], told) == ("skip", [])
        assert "no run has ended" in str(none["reason"])
        runner.set_trigger_enabled("watch", False)
        for name in ("first", "second"):
            runner.submit("ingest", {"name": name})
            runner.advance("1s")
        dry = runner.tick("watch", dry_run=True)
        assert [fire["context"] for fire in dry["fires"]] == [{"of": "first"}]
        assert runner.tick("watch")["outcome"] == "fire"
        assert runner.tick("watch")["outcome"] == "fire"
        assert runner.tick("watch")["outcome"] == "skip"
        assert told == ["first", "first", "second"]
        runner.set_trigger_enabled("watch", True)
        runner.run_until_idle()
        assert told == ["first", "first", "second"]


def test_a_chain_ends_after_a_hundred(caplog: pytest.LogCaptureFixture) -> None:
    declare("loop")

    @cloaca.trigger(workflow="loop", on_run="loop")
    def again(run: Run) -> bool:
        return True

    with Runner(START) as runner:
        runner.submit("loop")
        runner.advance("1h")
        assert len(runner.list_runs(workflow="loop", limit=1000)) == 101
        assert "refused: 100 ends have led" in str(runner.ticks("again", last=1)[0]["reason"])
        # The next one that somebody asks for is the first of a chain of its own.
        runner.submit("loop")
        runner.advance("1h")
        assert len(runner.list_runs(workflow="loop", limit=1000)) == 202
    (line, _) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "trigger 'again' is not told of the end of run" in line.getMessage()


def test_listings_and_why_say_what_it_waits_for() -> None:
    declare_both()
    cloaca.trigger(workflow="alert", on_run="ingest", status=["Failed"], name="watch")(lambda run: True)
    cloaca.trigger(workflow="alert", name="polled", poll_interval="1h")(lambda: False)
    with Runner(START) as runner:
        rows = {row["trigger_name"]: row for row in runner.list_trigger_schedules()}
        assert (rows["watch"]["on_run"], rows["watch"]["on_run_status"]) == ("ingest", ["Failed"])
        assert (rows["polled"]["on_run"], rows["polled"]["on_run_status"]) == (None, [])
        assert (rows["watch"]["poll_interval_ms"], rows["watch"]["next_poll_at"]) == (0, None)
        why = runner.why("watch")
        waits = "trigger 'watch' waits for a run to end, ingest Failed: none has since it was declared"
        assert why == f"{waits}, and it is told of none that ended before"
        runner.submit("ingest", {"bad": True})
        runner.advance("3h")
        assert "it is called for the next run that ends, ingest Failed" in runner.why("watch")
        assert runner.get_trigger_schedule("watch")["late_since"] is None
        assert [why for why in runner.health()["reasons"] if "watch" in why["names"]] == []
        cloaca.unregister_trigger("watch")
        runner.run_until_idle()
        runner.forget("watch")
        assert runner.query("SELECT count(*) AS n FROM listeners") == [{"n": 0}]


def test_what_fires_an_unknown_workflow_keeps_the_end() -> None:
    declare("ingest")
    cloaca.trigger(workflow="alert", on_run="ingest", name="watch")(lambda run: True)
    with Runner(START) as runner:
        runner.submit("ingest")
        runner.run_until_idle()
        assert runner.ticks("watch")[0]["outcome"] == "error"
        declare("alert")
        runner.advance("1m")
        assert alerts(runner) == [{}]


@pytest.mark.parametrize("before", [0, 1])
def test_what_the_limits_of_the_workflow_refuse_is_told_again(
    before: int, caplog: pytest.LogCaptureFixture
) -> None:
    declare("ingest")
    with cloaca.WorkflowBuilder("alert", concurrency=cloaca.Concurrency(1, key="tenant")):
        cloaca.task(id="only")(flow.nothing)
    calls: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest", on_error=cloaca.Backoff("2s"))
    def watch(run: Run) -> list[TriggerResult]:
        calls.append(f"{run['context']['name']} {runner.now[14:19]}")
        given = [TriggerResult.fire({"tenant": "a", "n": n}) for n in range(before)]
        return [*given, TriggerResult.fire({} if len(calls) < 3 else {"tenant": "b"})]

    with Runner(START) as runner:
        runner.submit("ingest", {"name": "first"})
        runner.submit("ingest", {"name": "second"})
        runner.run_until_idle()
        assert "the same end of a run" in runner.why("watch")
        assert "needs tenant" in str(runner.ticks("watch")[0]["reason"])
        assert alerts(runner) == []
        runner.advance("1m")
        assert calls == ["first 00:00", "first 00:02", "first 00:06", "second 00:06"]
        assert len(alerts(runner)) == 2 * (before + 1)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert lines
    assert all("trigger 'watch' fired a run of 'alert' that its limits refuse" in line for line in lines)


def test_what_the_rate_limit_of_the_workflow_drops_is_not_told_again() -> None:
    declare("ingest")
    with cloaca.WorkflowBuilder("alert", rate_limit=cloaca.RateLimit(1, per="1h")):
        cloaca.task(id="only")(flow.nothing)
    cloaca.trigger(workflow="alert", on_run="ingest", name="watch")(lambda run: True)
    with Runner(START) as runner:
        for _ in range(2):
            runner.submit("ingest")
        runner.run_until_idle()
        assert [tick["outcome"] for tick in runner.ticks("watch")] == ["skip", "fire"]
        assert "rate limit" in str(runner.ticks("watch")[0]["reason"])
        assert runner.query("SELECT count(*) AS n FROM ends") == [{"n": 0}]
        runner.advance("2h")
        assert alerts(runner) == [{}]


def test_more_than_may_be_given_at_once_is_refused_with_what_may_be_done_about_it() -> None:
    declare_both()

    @cloaca.trigger(workflow="alert", on_run="ingest")
    def watch(run: Run) -> Any:
        while True:
            yield TriggerResult.fire()

    with Runner(START) as runner:
        runner.submit("ingest")
        runner.run_until_idle()
        assert str(runner.ticks("watch")[0]["reason"]).endswith("none counts; give fewer")
        assert alerts(runner) == []


def given(**arguments: Any) -> Callable[[], object]:
    return lambda: cloaca.trigger(**{"workflow": "alert", "name": "t", "on_run": "ingest"} | arguments)(
        lambda run: True
    )


@pytest.mark.parametrize(
    ("declares", "told"),
    [
        (given(poll_interval="5s"), "poll_interval is '5s' and on_run is 'ingest'; a trigger with on_run"),
        (given(cron="* * * * *"), "cron is '* * * * *' and on_run is 'ingest'"),
        (given(jitter="1s"), "jitter is '1s' and on_run"),
        (given(poll_at_start=True), "poll_at_start is True and on_run"),
        (given(executor="pool"), "executor is 'pool' and on_run"),
        (given(catchup="all"), "catchup is 'all' without cron"),
        (given(on_run=5), "on_run is 5"),
        (given(on_run=""), "on_run is ''"),
        (given(status="failed"), "status has 'failed', which is no end of a run; did you mean 'Failed'"),
        (given(status=["Running"]), "status has 'Running', which is no end of a run"),
        (given(status=[]), r"status is \[\]; it must be one of Completed, Failed, Cancelled"),
        (given(status=5), "status is 5; it must be one of"),
        (given(status=[5]), "status has 5"),
        (given(on_run=None, status="Failed"), "status is 'Failed' without on_run"),
        (lambda: cloaca.trigger(workflow="a", on_run="b", name="t")(lambda: True), r"def t\(run\)"),
        (lambda: cloaca.trigger(workflow="a", on_run="b", name="t")(lambda run, more: True), r"def t\(run\)"),
    ],
)
def test_what_makes_no_sense_is_refused(declares: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("* * * * *", r"\* \* \* \* \*")):
        declares()


def test_a_fire_with_a_cursor_is_refused() -> None:
    declare_both()
    cloaca.trigger(workflow="alert", on_run="ingest", name="watch")(lambda run: TriggerResult.fire(cursor=1))
    with Runner(START) as runner:
        runner.submit("ingest")
        runner.run_until_idle()
        assert "leave cursor out" in str(runner.ticks("watch")[0]["reason"])
        assert alerts(runner) == []


PROGRAM = """
import os
import sys
import cloaca

for name in ("ingest", "alert"):
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only")(lambda context: None)

@cloaca.trigger(workflow="alert", on_run="ingest")
def watch(run):
    if sys.argv[2] == "dies":
        os.kill(os.getpid(), 9)
    return cloaca.TriggerResult.fire({"of": run["id"]})

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    if sys.argv[2] != "serves":
        runner.execute("ingest")
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What a program in another process may open, too."""
    if request.config.getoption("--store") == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return str(tmp_path / "runs.db")


def program(store: str, role: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, store, role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_an_end_whose_process_dies_in_the_body_is_told_by_the_next(store: str) -> None:
    with program(store, "dies") as dying:
        assert dying.wait(flow.WAIT) == -9
    with program(store, "serves") as serving, cloaca.DefaultRunner(store, work=False) as client:
        until(lambda: [run["status"] for run in client.list_runs(workflow="alert")] == ["Completed"])
        ended = client.list_runs(workflow="ingest")
        assert alerts(client) == [{"of": run["id"]} for run in ended]
        serving.communicate()


def test_ends_of_another_process_are_told_by_who_declares_the_trigger(store: str) -> None:
    declare("ingest")
    with program(store, "serves") as serving, cloaca.DefaultRunner(store) as runner:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "up\n"
        ids = {runner.submit("ingest").id for _ in range(5)}
        until(lambda: {each["of"] for each in alerts(runner)} == ids)
        assert len(alerts(runner)) == 5
        serving.communicate()


def fails_at_bad(**terms: Any) -> list[str]:
    """Declares `watch`, which raises for ends of bad runs; of which runs it has been told."""
    told: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest", **terms)
    def watch(run: Run) -> TriggerResult:
        told.append(run["id"])
        if run["context"].get("bad"):
            raise KeyError("file")
        return TriggerResult.fire({"of": run["id"]})

    declare_both()
    return told


def test_an_end_that_always_fails_is_skipped_and_the_next_is_told_at_once() -> None:
    told = fails_at_bad(on_error=cloaca.Backoff("30m"), max_consecutive_failures=3)
    with Runner(START) as runner:
        assert runner.skip_end("watch") is None
        bad = runner.submit("ingest", {"bad": True})
        runner.run_until_idle()
        runner.advance("31m")
        good = runner.submit("ingest")
        runner.run_until_idle()
        assert (told, alerts(runner)) == ([bad.id, bad.id], [])
        why = runner.why("watch")
        assert f"that of run {bad.id} first, and the others behind it" in why
        assert why.endswith("; skip_end('watch') has it go on without that one")
        assert runner.skip_end("watch") == bad.id
        runner.run_until_idle()
        assert (told, alerts(runner)) == ([bad.id, bad.id, good.id], [{"of": good.id}])
        reasons = [(tick["outcome"], tick["reason"]) for tick in runner.ticks("watch")]
        assert reasons[:2] == [("fire", None), ("skip", f"the end of run {bad.id} was skipped by a call")]
        assert "skip_end" not in runner.why("watch")
        # What it fails at next is counted from one.
        for _ in range(2):
            runner.submit("ingest", {"bad": True})
        runner.run_until_idle()
        runner.advance("31m")
        assert "2 failed calls in a row" in runner.why("watch")
        assert runner.get_run(bad.id)["status"] == "Failed"


def test_with_nothing_behind_it_a_trigger_that_was_moved_on_waits_for_the_next_end() -> None:
    fails_at_bad(on_error=cloaca.Backoff("30m"))
    with Runner(START) as runner:
        runner.submit("ingest", {"bad": True})
        runner.run_until_idle()
        assert "backs off until" in runner.why("watch")
        runner.skip_end("watch")
        runner.run_until_idle()
        assert "it is called for the next run that ends" in runner.why("watch")
        assert runner.skip_end("watch") is None
        runner.submit("ingest")
        runner.run_until_idle()
        assert len(alerts(runner)) == 1


def test_the_end_of_a_run_further_behind_is_skipped_by_its_id() -> None:
    told = fails_at_bad()
    with Runner(START) as runner:
        runner.set_trigger_enabled("watch", False)
        first, second, third = (runner.submit("ingest", {"n": n}) for n in range(3))
        runner.run_until_idle()
        assert runner.skip_end(cloaca.registry.triggers["watch"].function, second.id) == second.id
        assert runner.skip_end("watch", second.id) is None
        assert runner.get_trigger_schedule("watch")["enabled"] is False
        runner.set_trigger_enabled("watch", True)
        runner.run_until_idle()
        assert sorted(told) == sorted([first.id, third.id])


def test_what_has_no_ends_to_skip_is_refused() -> None:
    fails_at_bad()
    cloaca.trigger(workflow="alert", name="polled")(lambda: False)
    cloaca.trigger(workflow="alert", name="nightly", cron="0 0 1 1 *")(lambda: None)
    with Runner(START) as runner:
        with pytest.raises(cloaca.TriggerError, match="did you mean 'watch'"):
            runner.skip_end("wach")
        for name in ("polled", "nightly"):
            with pytest.raises(cloaca.TriggerError, match=f"trigger '{name}' is not told of ends of runs"):
                runner.skip_end(name)
        with pytest.raises(ValueError, match="run_id"):
            runner.skip_end("watch", "nonsense")


SKIPS = """
import sys
import cloaca

with cloaca.DefaultRunner(sys.argv[1], work=False) as client:
    print(client.skip_end("watch"))
"""


def test_a_runner_that_waits_for_half_an_hour_goes_on_as_another_process_skips_the_end(store: str) -> None:
    told = fails_at_bad(on_error=cloaca.Backoff("30m"))
    with cloaca.DefaultRunner(store) as runner:
        bad = runner.submit("ingest", {"bad": True})
        until(lambda: runner.ticks("watch"))
        good = runner.submit("ingest")
        good.result(flow.WAIT)
        skipped = subprocess.run(
            [sys.executable, "-c", SKIPS, store], capture_output=True, text=True, check=True
        )
        assert skipped.stdout.split() == [bad.id]
        until(lambda: alerts(runner) == [{"of": good.id}])
        assert told == [bad.id, good.id]


@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("then", ["fires", "raises", "waits", "hangs"])
def test_what_a_call_about_an_end_comes_to_that_is_skipped_meanwhile_counts_for_nothing(
    store: str, then: str, by: str
) -> None:
    declare_both()
    begun, goes_on = threading.Event(), threading.Event()
    told: list[str] = []
    disabled: list[object] = []

    @cloaca.trigger(
        workflow="alert",
        on_run="ingest",
        max_consecutive_failures=1,
        on_disabled=lambda *told: disabled.append(told),
        poll_timeout="3s" if then == "hangs" else None,
    )
    def watch(run: Run) -> TriggerResult:
        told.append(run["id"])
        if len(told) == 1:
            begun.set()
            assert goes_on.wait(flow.WAIT)
            if then == "raises":
                raise ValueError("boom")
            if then == "waits":
                raise cloaca.RetryAfter("30m")
        return TriggerResult.fire({"of": run["id"]})

    with cloaca.DefaultRunner(store) as runner, cloaca.DefaultRunner(store, work=False) as client:
        first = runner.submit("ingest")
        assert begun.wait(flow.WAIT)
        second = runner.submit("ingest")
        second.result(flow.WAIT)
        assert (runner if by == "itself" else client).skip_end("watch") == first.id
        if then == "hangs":
            until(lambda: any("discarded" in str(tick["reason"]) for tick in runner.ticks("watch")))
        goes_on.set()
        until(lambda: alerts(runner) == [{"of": second.id}])
        assert told == [first.id, second.id]
        ticks = runner.ticks("watch")
        assert [tick["outcome"] for tick in ticks] == ["fire", "skip", "skip"]
        assert "discarded: that end of a run was skipped by a call meanwhile" in [
            tick["reason"] for tick in ticks
        ]
        assert (disabled if by == "itself" else [], runner.get_trigger_schedule("watch")["enabled"]) == (
            [],
            True,
        )


def test_ends_that_are_skipped_while_they_are_told_are_told_or_skipped(store: str) -> None:
    declare_both()
    told: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest")
    def watch(run: Run) -> TriggerResult:
        told.append(run["id"])
        return TriggerResult.fire({"of": run["id"]})

    with cloaca.DefaultRunner(store) as runner, cloaca.DefaultRunner(store, work=False) as client:
        ids = {runner.submit("ingest").id for _ in range(30)}
        skipped: list[str] = []

        def is_over() -> bool:
            skipped.extend(run for run in [client.skip_end("watch")] if run is not None)
            return len(skipped) + len(runner.list_runs(workflow="alert")) >= len(ids)

        until(is_over)
        fired = [each["of"] for each in alerts(runner)]
        assert sorted(fired + skipped) == sorted(ids)
        assert runner.query("SELECT count(*) AS n FROM ends") == [{"n": 0}]


def test_a_preview_beside_the_store_shows_what_the_next_end_would_fire(store: str) -> None:
    declare_both()

    @cloaca.trigger(workflow="alert", on_run="ingest")
    def watch(run: Run) -> TriggerResult:
        return TriggerResult.fire({"of": run["context"]["name"], "status": run["status"]})

    with cloaca.DefaultRunner(store) as runner, reading.Reader(store) as reader:
        runner.set_trigger_enabled("watch", False)
        assert reading.preview(reader, "watch")["reason"] == "no run has ended that it is still to be told of"
        runner.execute("ingest", {"name": "first", "bad": True})
        for _ in range(2):
            (fire,) = reading.preview(reader, "watch")["fires"]
            assert fire["context"] == {"of": "first", "status": "Failed"}


def test_what_a_trigger_that_is_switched_off_is_to_be_told_is_no_trouble() -> None:
    declare_both()
    cloaca.trigger(workflow="alert", on_run="ingest", name="watch")(lambda run: False)
    with Runner(START) as runner:
        runner.set_trigger_enabled("watch", False)
        runner.submit("ingest", {})
        runner.advance("5m")
        assert "1 end of runs waits for it" in runner.why("watch")
        assert runner.health()["reasons"] == []
        runner.set_trigger_enabled("watch", True)
        runner.run_until_idle()
        assert "for it" not in runner.why("watch")


def test_a_trigger_that_listens_to_a_workflow_that_nobody_declares_is_told_of(tmp_path: Path) -> None:
    declare_both()
    cloaca.trigger(workflow="alert", name="late", on_run="ingests")(flow.nothing)
    with cloaca.DefaultRunner(tmp_path / "a.db") as runner, reading.Reader(tmp_path / "a.db") as reader:
        told = "no living runner declares workflow 'ingests', of whose ends it is to be told"
        until(lambda: told in runner.why("late"))
        assert told in reading.why(reader, "late")
        (found,) = [each for each in reading.doctor(reader) if "'ingests'" in each.text]
        assert (found.level, found.subject) == ("warn", "schedules")
        declare("ingests")
        until(lambda: "'ingests'" not in runner.why("late"))
        assert not [each for each in reading.doctor(reader) if "'ingests'" in each.text]


BOTH = """
import os, signal, sys, threading, time
import cloaca

with cloaca.WorkflowBuilder("ingest"):
    cloaca.task(id="only")(lambda context: None)
with cloaca.WorkflowBuilder("alert"):
    cloaca.task(id="only")(lambda context: None)
"""
POISONED = f"""{BOTH}
store, out, number = sys.argv[1:]

@cloaca.trigger(workflow="alert", on_run="ingest", on_error=cloaca.Backoff("30m"))
def watch(run):
    with open(out, "a") as file:
        file.write(f"{{run['context']['n']}}\\n")
    if run["context"]["n"] == 0:
        os._exit(7)
    if run["context"]["n"] == -1:
        if len(open(out).readlines()) > 1:
            os._exit(7)
        raise ConnectionError("no route")
    return True

with cloaca.DefaultRunner(store) as runner:
    if not runner.list_runs(workflow="ingest"):
        runner.execute("ingest", {{"n": int(number)}})
    print("ready", flush=True)
    threading.Event().wait(60)
"""


def test_a_call_that_ends_its_process_is_a_failed_one_and_made_again_after_a_pause(
    store: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", POISONED, store, str(out), "0"]
    assert subprocess.run(command, timeout=flow.WAIT * 2, check=False).returncode == 7
    for _ in range(2):
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program,
            cloaca.DefaultRunner(store, work=False) as client,
        ):
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            # The pause outlives the process that began it.
            with reading.Reader(store) as reader:
                until(lambda reader=reader: "backs off until" in reading.why(reader, "watch"))
            assert "the process that called it ended" in client.why("watch")
            assert out.read_text() == "0\n"
            (last, *before) = client.ticks("watch")
            assert (last["outcome"], last["reason"]) == ("error", "the process that called it ended")
            assert (last["count"], before) == (1, [])
            (kept,) = client.query("SELECT failures FROM schedules WHERE name = 'watch'")
            assert kept["failures"] == 1
            program.kill()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program,
        cloaca.DefaultRunner(store, work=False) as client,
    ):
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert client.skip_end("watch") is not None
        client.submit("ingest", {"n": 1})
        until(lambda: out.read_text() == "0\n1\n")
        program.kill()


def test_a_call_that_ends_its_process_amidst_a_back_off_is_counted_at_once(
    store: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", POISONED, store, str(tmp_path / "out"), "-1"]
    with cloaca.DefaultRunner(store, work=False) as client:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            until(lambda: "no route" in client.why("watch"))
            client.poll_soon("watch")
            assert program.wait(flow.WAIT) == 7
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            until(lambda: "the process that called it ended" in client.why("watch"))
            assert client.ticks("watch")[0]["reason"] == "the process that called it ended"
            (kept,) = client.query("SELECT failures, wait_us FROM schedules WHERE name = 'watch'")
            assert kept["failures"] == 2
            assert kept["wait_us"] > 1_000_000, "it grew"
            program.kill()


SLOW = f"""{BOTH}
store, is_slow, patience = sys.argv[1:]

@cloaca.trigger(workflow="alert", on_run="ingest", max_consecutive_failures=1)
def watch(run):
    while is_slow == "yes":
        time.sleep(0.01)
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            print("called", flush=True)
            time.sleep(600)
    return True

with cloaca.DefaultRunner(store) as runner:
    if is_slow == "yes":
        runner.execute("ingest")
    runner.run_forever(shutdown_timeout=float(patience))
"""


@pytest.mark.parametrize("is_killed", [False, True], ids=["it leaves", "it is killed as it waits"])
def test_a_program_that_is_told_to_end_amid_a_call_has_not_died_in_it(store: str, is_killed: bool) -> None:
    command = [sys.executable, "-c", SLOW, store]
    words = ["yes", "600" if is_killed else "0.1"]
    with (
        cloaca.DefaultRunner(store, work=False) as client,
        subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as program,
    ):
        assert program.stdout is not None
        assert program.stdout.readline() == "called\n"
        program.terminate()
        if is_killed:
            until(lambda: any(row["state"] == "draining" for row in client.list_runners()))
            program.kill()
        assert program.wait(flow.WAIT) == (-9 if is_killed else 0)
    with (
        cloaca.DefaultRunner(store, work=False) as client,
        subprocess.Popen([*command, "no", "1"], stdout=subprocess.PIPE, text=True) as program,
    ):
        try:
            until(lambda: len(client.list_runs(workflow="alert")) == 1)
            assert [tick["outcome"] for tick in client.ticks("watch")] == ["fire"]
        finally:
            program.kill()


def test_who_leaves_or_fails_in_a_call_has_not_died_in_it(tmp_path: Path) -> None:
    declare_both()
    called: list[str] = []

    @cloaca.trigger(workflow="alert", on_run="ingest", on_error=cloaca.Backoff("1ms"))
    def watch(run: Run) -> bool:
        called.append(run["id"])
        if len(called) == 1:
            raise ConnectionError("no route")
        return True

    for _ in range(3):
        with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
            before = len(alerts(runner))
            runner.execute("ingest")
            until(lambda runner=runner, before=before: len(alerts(runner)) > before)
            reasons = [tick["reason"] for tick in runner.ticks("watch") if tick["outcome"] == "error"]
            assert ["no route" in reason for reason in reasons] == [True]
    assert len(called) == 4
