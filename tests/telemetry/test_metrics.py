"""What a runner counts, and how its store stands, as Prometheus reads it."""

from __future__ import annotations

import itertools
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

import cloaca
import cloaca.testing
import cloaca.ui
from cloaca.telemetry import families
from cloaca.telemetry.watched import Watched

HERE = ("127.0.0.1", 50000)
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(what: Any) -> Series:
    """All series of a runner or a store."""
    answer = cloaca.telemetry.prometheus_app(what).answer("/", "")
    assert answer.status == 200
    return read(answer.body.decode())


def read(text: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} stands there twice"
            found[key] = sample.value
    return found


def of(found: Series, name: str, **labels: str) -> float:
    return found[f"cloaca_{name}", frozenset(labels.items())]


def total(found: Series, name: str) -> float:
    return sum(value for (known, _), value in found.items() if known == f"cloaca_{name}")


def declare() -> None:
    with cloaca.WorkflowBuilder("ingest"):

        @cloaca.task(retry_attempts=2, retry_delay_ms=1)
        def price(context: cloaca.Context) -> None:
            if context.get("bad"):
                raise ValueError("no price")

        @cloaca.task(dependencies=[price])
        def store(context: cloaca.Context) -> None:
            pass


def test_polls_and_fires_are_counted_by_their_triggers() -> None:
    declare()

    @cloaca.trigger(workflow="ingest", poll_interval="1s")
    def quiet() -> bool:
        return False

    @cloaca.trigger(workflow="ingest", poll_interval="2s")
    def told() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip("nothing there")

    @cloaca.trigger(workflow="ingest", poll_interval="5s")
    def eager() -> list[cloaca.TriggerResult]:
        return [cloaca.TriggerResult.fire({"n": key}, run_key=key) for key in ("a", "b")]

    @cloaca.trigger(workflow="ingest", poll_interval="10s", on_error=cloaca.Backoff("10s", factor=1))
    def broken() -> bool:
        raise OSError("the share is gone")

    with cloaca.testing.Runner(raise_errors=False) as runner:
        runner.advance("10s")
        found = scraped(runner)
        polls = {
            name: of(found, "polls_total", trigger=name) for name in ("quiet", "told", "eager", "broken")
        }
        assert polls == {"quiet": 10, "told": 5, "eager": 2, "broken": 1}
        assert total(found, "polls_total") == runner.stats()["polls"] == 18
        skips = {name: of(found, "poll_skips_total", trigger=name) for name in polls}
        assert skips == {"quiet": 10, "told": 5, "eager": 0, "broken": 0}
        assert of(found, "poll_errors_total", trigger="broken") == 1
        assert of(found, "poll_errors_total", trigger="quiet") == 0, "what has not happened is told, too"
        assert of(found, "fires_total", trigger="eager") == 4
        assert of(found, "fires_deduplicated_total", trigger="eager") == 2
        assert of(found, "poll_duration_seconds_count") == of(found, "poll_lateness_seconds_count") == 18
        assert of(found, "poll_duration_seconds_bucket", le="+Inf") == 18
        # Taking the history away loses nothing, and to ask changes nothing.
        assert runner.ticks("quiet")
        assert of(scraped(runner), "polls_total", trigger="quiet") == 10
        runner.advance("1s")
        assert of(scraped(runner), "polls_total", trigger="quiet") == 11


def test_runs_tasks_and_attempts_are_counted_by_how_they_ended() -> None:
    declare()
    with cloaca.testing.Runner(raise_errors=False) as runner:
        found = scraped(runner)
        assert of(found, "run_duration_seconds_count", workflow="ingest", status="Failed") == 0
        for context in ({}, {}, {"bad": True}):
            run = runner.submit("ingest", context)
            runner.advance("1m")
            run.result()
        found = scraped(runner)
        assert of(found, "runs_started_total") == 3
        ended = {
            status: of(found, "run_duration_seconds_count", workflow="ingest", status=status)
            for status in ("Completed", "Failed", "Cancelled")
        }
        assert ended == {"Completed": 2, "Failed": 1, "Cancelled": 0}
        assert of(found, "run_wait_seconds_count", workflow="ingest") == 3
        names = {"workflow": "ingest", "task": "price"}
        assert of(found, "task_attempts_total", **names, outcome="Completed") == 2
        assert of(found, "task_attempts_total", **names, outcome="Failed") == 2
        assert of(found, "task_retries_total", **names) == 1
        assert of(found, "task_attempt_duration_seconds_count", **names) == 4
        assert of(found, "task_duration_seconds_count", **names) == 3
        assert of(found, "task_attempts_total", workflow="ingest", task="store", outcome="Completed") == 2
        assert of(found, "commit_duration_seconds_count") > 0
        assert of(found, "commit_changes_total") >= of(found, "commit_duration_seconds_count")


def test_an_attempt_that_is_cut_off_or_postponed_is_neither_a_failure_nor_a_retry() -> None:
    with cloaca.WorkflowBuilder("later"):

        @cloaca.task(retry_attempts=1)
        def ask(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            if handle.attempt == 1:
                raise cloaca.RetryAfter("10s")

    with cloaca.testing.Runner() as runner:
        run = runner.submit("later", {})
        runner.advance("1m")
        assert run.result().status == "Completed"
        found = scraped(runner)
        names = {"workflow": "later", "task": "ask"}
        outcomes = {
            outcome: of(found, "task_attempts_total", **names, outcome=outcome)
            for outcome in ("Completed", "Failed", "TimedOut", "Interrupted", "Postponed", "Cancelled")
        }
        assert outcomes.pop("Completed") == outcomes.pop("Postponed") == 1
        assert set(outcomes.values()) == {0}
        assert of(found, "task_retries_total", **names) == 0
        assert of(found, "task_duration_seconds_sum", **names) >= 10


def test_what_asks_for_later_once_its_run_is_cancelled_is_counted_as_it_is_kept() -> None:
    entered, go = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("later"):

        @cloaca.task(retry_attempts=3)
        def ask(context: cloaca.Context) -> None:
            entered.set()
            assert go.wait(30)
            raise cloaca.RetryAfter("10s")

    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("later")
        assert entered.wait(30)
        runner.cancel(run.id)
        go.set()
        assert run.result(30).status == "Cancelled"
        assert runner.query("SELECT outcome FROM tries") == [{"outcome": "Cancelled"}]
        found = scraped(runner)
        names = {"workflow": "later", "task": "ask"}
        assert of(found, "task_attempts_total", **names, outcome="Cancelled") == 1
        assert of(found, "task_attempts_total", **names, outcome="Failed") == 0
        assert of(found, "task_attempts_total", **names, outcome="Postponed") == 0


def test_names_beyond_the_bound_are_told_together_and_all_add_up() -> None:
    declare()
    for number in range(150):
        name = "other" if number == 7 else f"trigger-{number}"
        cloaca.trigger(workflow="ingest", poll_interval="1s", name=name)(lambda: False)
    with cloaca.testing.Runner() as runner:
        runner.advance("3s")
        found = scraped(runner)
        named = [labels for name, labels in found if name == "cloaca_polls_total"]
        assert len(named) == 100, "what is called so stands with all others"
        assert total(found, "polls_total") == runner.stats()["polls"] == 150 * 3
        assert of(found, "polls_total", trigger="trigger-0") == 3
        assert of(found, "polls_total", trigger="other") == 51 * 3


def test_the_counts_of_several_runners_add_up(tmp_path: Path) -> None:
    declare()
    with (
        cloaca.DefaultRunner(tmp_path / "runs.db") as one,
        cloaca.DefaultRunner(tmp_path / "runs.db") as other,
    ):
        for runner in (one, other, other):
            runner.execute("ingest", {})
        counted = [total(scraped(runner), "runs_started_total") for runner in (one, other)]
        assert counted == [1, 2]
        ended = [total(scraped(runner), "run_duration_seconds_count") for runner in (one, other)]
        assert sum(ended) == 3
        assert of(scraped(one), "store_runners", state="living", works="yes") == 2


def test_what_is_asked_for_without_a_trigger_is_counted_by_a_runner_and_by_a_client(tmp_path: Path) -> None:
    declare()
    names = ("fires_total", "fires_deduplicated_total")
    with (
        cloaca.DefaultRunner(tmp_path / "runs.db") as runner,
        cloaca.DefaultRunner(tmp_path / "runs.db", work=False) as client,
    ):
        for asked, prefix in ((runner, "of the runner"), (client, "of the client")):
            for key in ("a", "b", "b"):
                asked.submit("ingest", {}, run_key=f"{prefix} {key}")
            found = scraped(asked)
            assert [of(found, name, trigger="") for name in names] == [3, 1], prefix
            assert of(found, "runs_started_total") == asked.stats()["runs_started"] == 2
            assert asked.stats()["fires"] == 0, "these are fires of polls"


def test_a_run_that_is_cancelled_in_nobodys_hands_is_counted_by_whoever_asked(tmp_path: Path) -> None:
    declare()
    url = str(tmp_path / "runs.db")
    name = "run_duration_seconds_count"
    with cloaca.DefaultRunner(url) as runner, cloaca.DefaultRunner(url, work=False) as client:
        for who, many in ((runner, 3), (client, 2)):
            runs = [who.submit("ingest", {}, delay="1h") for _ in range(many)]
            runs[0].cancel()
            assert len(who.cancel_many(workflow="ingest")) == many - 1
            assert who.stats()["runs_cancelled"] == many
            assert of(scraped(who), name, workflow="ingest", status="Cancelled") == many


def test_that_nobody_lives_looks_different_from_nothing_to_do(tmp_path: Path) -> None:
    declare()
    cloaca.trigger(workflow="ingest", poll_interval="1h", name="rare")(lambda: False)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner:
        while runner.get_trigger_schedule("rare") is None:
            pass
        found = scraped(path)
        assert of(found, "store_runners", state="living", works="yes") == 1
        assert of(found, "store_healthy") == 1
        assert total(found, "store_triggers_polled") == 1
        assert ("cloaca_polls_total", frozenset()) not in found, "what a runner counts it tells itself"
    found = scraped(path)
    assert of(found, "store_runners", state="living", works="yes") == 0
    assert of(found, "store_healthy") == 0
    assert of(found, "store_trouble", code="no_runner") == 1
    assert of(found, "store_trouble", code="disk") == 0


def test_triggers_that_fail_are_told_as_long_as_they_do_also_where_that_switched_them_off() -> None:
    declare()
    broken = {"hourly", "nightly", "briefly", "by-hand"}

    def fails(name: str) -> bool:
        if name in broken:
            raise ConnectionError("the other side is away")
        return False

    for name in ("hourly", "by-hand", "well"):
        cloaca.trigger(workflow="ingest", poll_interval="1h", name=name)(lambda name=name: fails(name))
    cloaca.trigger(workflow="ingest", poll_interval="1h", name="briefly", max_consecutive_failures=2)(
        lambda: fails("briefly")
    )
    cloaca.trigger(workflow="ingest", cron="0 3 * * *", name="nightly")(lambda tick: fails("nightly"))
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z", raise_errors=False) as runner:

        def failing() -> dict[str, float]:
            found = scraped(runner)
            return {
                dict(labels)["trigger"]: value
                for (name, labels), value in found.items()
                if name == "cloaca_store_triggers_failing"
            }

        assert failing() == {}
        runner.advance("3h1m")
        assert failing() == dict.fromkeys(broken, 1)
        schedule = runner.get_trigger_schedule("briefly")
        assert schedule is not None
        assert not schedule["enabled"]
        runner.set_trigger_enabled("by-hand", False)
        assert failing() == dict.fromkeys(broken - {"by-hand"}, 1), "nobody is to be woken for that"
        broken.clear()
        runner.advance("24h")
        assert failing() == {"briefly": 1}
        runner.set_trigger_enabled("briefly", True)
        assert failing() == {}


def test_what_somebody_has_switched_off_or_paused_is_told_until_it_goes_on() -> None:
    declare()
    with cloaca.WorkflowBuilder("other"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="ingest", poll_interval="1h", name="inbox")(lambda: False)
    cloaca.trigger(workflow="ingest", cron="0 3 * * *", name="nightly")(lambda tick: None)
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
        runner.register_cron_workflow("other", "0 4 * * *", "UTC")

        def told() -> dict[str, dict[str, float]]:
            series = {"triggers_switched_off": "trigger", "workflows_paused": "workflow"}
            found = scraped(runner)
            return {
                name: {
                    dict(labels)[of]: value
                    for (key, labels), value in found.items()
                    if key == f"cloaca_store_{name}"
                }
                for name, of in series.items()
            }

        assert told() == {"triggers_switched_off": {}, "workflows_paused": {}}
        for name in ("inbox", "nightly"):
            runner.set_trigger_enabled(name, False)
        (cron,) = [each for each in runner.list_cron_schedules() if each["workflow_name"] == "other"]
        runner.set_cron_schedule_enabled(cron["id"], False)
        runner.pause(workflow="ingest")
        runner.pause(workflow="other", until="2026-01-01T01:00:00Z")
        assert told() == {
            "triggers_switched_off": {"inbox": 1, "nightly": 1, "other": 1},
            "workflows_paused": {"ingest": 1, "other": 1},
        }
        with cloaca.WorkflowBuilder("keyed", concurrency=cloaca.Concurrency(1, key="tenant")):
            cloaca.task(id="only")(lambda context: None)
        for tenant in ("ann", "bob"):
            runner.pause(workflow="keyed", key=tenant, until="2026-01-01T01:00:00Z")
        assert told()["workflows_paused"] == {"ingest": 1, "keyed": 2, "other": 1}
        runner.advance("2h")
        runner.resume(workflow="ingest")
        runner.set_trigger_enabled("inbox", True)
        assert told() == {"triggers_switched_off": {"nightly": 1, "other": 1}, "workflows_paused": {}}


def test_runs_that_failed_are_told_until_they_are_retried() -> None:
    outcome = {"is_bad": True}
    with cloaca.WorkflowBuilder("ingest"):

        @cloaca.task(retry_attempts=1)
        def load(context: cloaca.Context) -> None:
            if outcome["is_bad"]:
                raise ConnectionError("the other side is away")

    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z", raise_errors=False) as runner:
        runs = [runner.submit("ingest", {"n": n}) for n in range(3)]
        runner.run_until_idle()
        assert of(scraped(runner), "store_runs_failed", workflow="ingest") == 3
        outcome["is_bad"] = False
        runner.retry(runs[0].id)
        runner.run_until_idle()
        assert of(scraped(runner), "store_runs_failed", workflow="ingest") == 2
        runner.advance("61m")
        assert of(scraped(runner), "store_runs_failed", workflow="ingest") == 0


def test_of_failed_runs_beyond_those_that_are_counted_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(families, "FAILED_MAX", 2)
    for name in ("first", "second"):
        with cloaca.WorkflowBuilder(name):

            @cloaca.task(retry_attempts=1)
            def fails(context: cloaca.Context) -> None:
                raise ConnectionError("the other side is away")

    with cloaca.testing.Runner(raise_errors=False) as runner:
        for name in ("first", "second", "second"):
            runner.submit(name)
            runner.run_until_idle()
        found = scraped(runner)
        assert of(found, "store_runs_failed", workflow="second") == 2
        # An alert that goes by 0 would be over while nobody has retried anything.
        with pytest.raises(KeyError):
            of(found, "store_runs_failed", workflow="first")


def test_ends_that_wait_are_counted_for_each_workflow_and_trigger_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(families, "ENDS_MAX", 3)

    def away(run: Any) -> None:
        raise ConnectionError("the other side is away")

    def later(run: Any) -> None:
        raise cloaca.RetryAfter("2h")

    for name, callback in (("noisy", later), ("quiet", away)):
        with cloaca.WorkflowBuilder(name).on_success(callback):

            @cloaca.task()
            def body(context: cloaca.Context) -> None:
                pass

    for name in ("noisy", "quiet"):

        @cloaca.trigger(name=f"after_{name}", workflow="quiet", on_run=name)
        def told(run: Any) -> cloaca.TriggerResult:
            return cloaca.TriggerResult.skip()

    with cloaca.testing.Runner(raise_errors=False) as runner:
        runner.set_trigger_enabled("after_noisy", False)
        runner.set_trigger_enabled("after_quiet", False)
        for name in ("noisy", "noisy", "noisy", "noisy", "quiet", "quiet"):
            runner.submit(name)
            runner.run_until_idle()
        runner.advance("1s")
        found = scraped(runner)
        waiting = [of(found, "store_callbacks_waiting", workflow=name) for name in ("noisy", "quiet")]
        failing = [of(found, "store_callbacks_failing", workflow=name) for name in ("noisy", "quiet")]
        ends = [of(found, "store_run_ends_waiting", trigger=f"after_{name}") for name in ("noisy", "quiet")]
        assert (waiting, failing[1], ends) == ([3, 2], 2, [3, 2])


def test_each_metric_is_in_the_docs_and_each_of_the_docs_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "telemetry.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `cloaca_")]
    told = {name for row in rows for name in re.findall(r"`(cloaca_\w+)`", row)}
    with cloaca.DefaultRunner(":memory:") as runner:
        families = list(Watched(runner).families())
    assert told == {family.name + ("_total" if family.kind == "counter" else "") for family in families}


def test_callbacks_for_ends_of_runs_are_counted_by_what_came_of_them() -> None:
    calls: list[str] = []

    def book(run: Any) -> None:
        calls.append(run["id"])
        if run["context"].get("poison") or len(calls) == 1:
            raise ConnectionError("the other side is away")

    with cloaca.WorkflowBuilder("order").on_success(book):

        @cloaca.task()
        def ship(context: cloaca.Context) -> None:
            pass

    with cloaca.testing.Runner(raise_errors=False) as runner:

        def counted() -> list[float]:
            found = scraped(runner)
            names = ("callbacks_called_total", "callbacks_failed_total", "callbacks_given_up_total")
            own = [of(found, name, workflow="order") for name in names]
            standing = [
                of(found, f"store_callbacks_{name}", workflow="order") for name in ("waiting", "failing")
            ]
            return own + standing

        assert counted() == [0, 0, 0, 0, 0], "what has not happened is told, too"
        runner.submit("order", {})
        runner.run_until_idle()
        assert counted() == [1, 1, 0, 1, 0]
        runner.advance("1s")
        assert counted() == [2, 1, 0, 0, 0]
        runner.submit("order", {"poison": True})
        runner.advance("1h")
        assert counted()[2:] == [0, 1, 1]
        runner.advance("24h")
        called, failed, given_up, waiting, failing = counted()
        assert (called, given_up, waiting, failing) == (len(calls), 1, 0, 0)
        assert failed == called - 1 > 100


def test_ends_of_runs_are_counted_by_the_triggers_that_were_told_of_them() -> None:
    declare()

    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def polled() -> bool:
        return False

    @cloaca.trigger(workflow="ingest", on_run="ingest", status=["Failed"])
    def broken(run: Any) -> bool:
        if calls.append(run["id"]) is None and len(calls) == 1:
            raise ConnectionError("not now")
        return False

    calls: list[str] = []
    with cloaca.testing.Runner(raise_errors=False) as runner:

        def counted() -> list[float]:
            found = scraped(runner)
            assert not [labels for name, labels in found if "run_ends" in name and "polled" in str(labels)]
            names = ("run_ends_told_total", "store_run_ends_waiting", "poll_errors_total")
            return [of(found, name, trigger="broken") for name in names]

        assert counted() == [0, 0, 0]
        runner.set_trigger_enabled("broken", False)
        for context in ({"bad": True}, {"bad": True}, {}):
            runner.submit("ingest", context)
        runner.advance("10s")
        assert counted() == [0, 2, 0]
        runner.set_trigger_enabled("broken", True)
        runner.run_until_idle()
        assert counted() == [0, 2, 1]
        runner.advance("1m")
        assert counted() == [2, 0, 1]
        assert len(calls) == 3


def test_what_waits_and_what_limits_hold_is_told() -> None:
    gate = threading.Event()
    with cloaca.WorkflowBuilder("call"):

        @cloaca.task(limits=[cloaca.Limit("api", concurrency=1)])
        def ask(context: cloaca.Context) -> None:
            gate.wait(30)

    with cloaca.WorkflowBuilder("bounded", rate_limit=cloaca.RateLimit(1, per="1h")):

        @cloaca.task()
        def only(context: cloaca.Context) -> None:
            pass

    with cloaca.DefaultRunner(":memory:") as runner:
        runs = [runner.submit("call", {}) for _ in range(3)]
        while not (
            of(found := scraped(runner), "store_limit_executing", limit="api") == 1
            and of(found, "store_limit_waiting", limit="api") == 2
        ):
            pass
        assert of(found, "store_limit_concurrency", limit="api") == 1
        assert of(found, "store_limit_paused", limit="api") == 0
        assert of(found, "runs_in_hand") == 3
        assert total(found, "store_runs_unfinished") == 3
        runner.execute("bounded", {})
        with pytest.raises(cloaca.Dropped):
            runner.submit("bounded", {})
        found = scraped(runner)
        assert of(found, "runs_limited_total", rule="rate_limit") == 1
        assert of(found, "fires_dropped_total", trigger="") == 1
        gate.set()
        assert [run.result().status for run in runs] == ["Completed"] * 3


def test_what_a_runner_has_counted_is_told_once_it_is_shut_down_and_nothing_else() -> None:
    declare()
    registry = CollectorRegistry()
    with cloaca.DefaultRunner(":memory:") as runner:
        registry.register(cloaca.telemetry.prometheus_collector(runner))
        app = cloaca.telemetry.prometheus_app(runner)
        runner.execute("ingest", {})
        assert registry.get_sample_value("cloaca_runs_started_total") == 1
        runner.execute("ingest", {"bad": True})
    # Nobody has scraped since.
    assert registry.get_sample_value("cloaca_runs_started_total") == 2
    assert {metric.type for metric in registry.collect()} == {"counter", "histogram"}
    found = read(app.answer("/", "").body.decode())
    assert of(found, "run_duration_seconds_count", workflow="ingest", status="Failed") == 1
    assert not any(name.startswith(("cloaca_store_", "cloaca_build_")) for name, _ in found)


def test_the_application_answers_what_asgi_asks(tmp_path: Path) -> None:
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        app = cloaca.telemetry.prometheus_app(runner)
        with TestClient(app) as client:
            answer = client.get("/metrics")
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            assert answer.headers["content-type"].startswith("text/plain; version=")
            assert client.post("/metrics").status_code == 405
            assert client.head("/metrics").text == ""
            kind = "application/openmetrics-text"
            answer = client.get("/metrics", headers={"accept": f"{kind}; version=1.0.0"})
            assert answer.headers["content-type"].startswith(kind)
            assert answer.text.endswith("# EOF\n")


def test_of_a_store_that_is_not_there_it_is_told_that_it_cannot_be_read(tmp_path: Path) -> None:
    answer = cloaca.telemetry.prometheus_app(tmp_path / "none.db").answer("/", "")
    assert answer.status == 200
    assert re.findall(rb"^cloaca_store.*", answer.body, re.M) == [b"cloaca_store_healthy 0.0"]
    with pytest.raises(cloaca.UrlError, match="memory"):
        cloaca.telemetry.prometheus_app(":memory:")


def test_the_page_has_metrics_for_who_may_see_it(tmp_path: Path) -> None:
    declare()
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.execute("ingest", {})
        page = cloaca.ui.app(runner)
        with TestClient(page, base_url="http://127.0.0.1:8720", client=HERE) as client:
            assert of(read(client.get("/metrics").text), "runs_started_total") == 1
        with TestClient(page, base_url="http://127.0.0.1:8720", client=("192.0.2.7", 1)) as client:
            assert client.get("/metrics").status_code == 403
        only_read = cloaca.ui.app(tmp_path / "runs.db")
        with TestClient(only_read, base_url="http://127.0.0.1:8720", client=HERE) as client:
            found = read(client.get("/metrics").text)
            assert of(found, "store_runners", state="living", works="yes") == 1


def test_without_the_extra_it_is_said_what_to_install() -> None:
    code = "import sys, cloaca; sys.modules['prometheus_client'] = None; cloaca.telemetry.prometheus_app('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "cloaca[prometheus]"' in done.stderr.splitlines()[-1]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
def test_promtool_finds_nothing_to_say() -> None:
    declare()
    cloaca.trigger(workflow="ingest", poll_interval="1s", name='a "name"\\ of\nits own')(lambda: True)
    with cloaca.testing.Runner(raise_errors=False) as runner:
        runner.advance("5s")
        body = cloaca.telemetry.prometheus_app(runner).answer("/", "").body
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@contextmanager
def serving(app: Any) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus here")
def test_a_prometheus_reads_a_living_runner(tmp_path: Path) -> None:
    declare()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        cloaca.DefaultRunner(tmp_path / "runs.db") as runner,
        serving(cloaca.telemetry.prometheus_app(runner)) as address,
    ):
        for _ in range(3):
            runner.execute("ingest", {})
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
            f"scrape_configs: [{{job_name: cloaca, static_configs: [{{targets: ['{address}']}}]}}]\n"
        )
        command = [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        null = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=null, stderr=null) as prometheus:
            try:
                query = 'sum(cloaca_run_duration_seconds_count{status="Completed"})'
                while (value := asked(port, query)) != 3:
                    assert prometheus.poll() is None
                    assert value in (None, 0, 1, 2)
                # A scrape that came too late says nothing, and there is another one.
                while (value := asked(port, "max(cloaca_store_healthy)")) != 1:
                    assert prometheus.poll() is None
                    assert value is None
            finally:
                prometheus.kill()


def asked(port: int, query: str) -> float | None:
    """What a Prometheus answers; `None` while it is not there, or knows nothing."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=10)
        found = answer.json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError):
        return None
    return float(found[0]["value"][1]) if found else None


def test_open_telemetry_observes_the_same() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    declare()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])

    def observed() -> dict[tuple[str, str], float]:
        found = reader.get_metrics_data()
        scopes = [] if found is None else found.resource_metrics[0].scope_metrics
        return {
            (metric.name, str(point.attributes.get("status", ""))): point.value
            for scope in scopes
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    with cloaca.DefaultRunner(":memory:") as runner:
        runner.execute("ingest", {})
        cloaca.telemetry.otel_metrics(runner, provider)
        found = observed()
        assert found["cloaca.runs_started", ""] == 1
        assert found["cloaca.run.duration.count", "Completed"] == 1
        assert found["cloaca.run.duration.sum", "Completed"] > 0
        assert found["cloaca.store.healthy", ""] == 1
        assert found["cloaca.commit.duration.count", ""] > 0
    provider.shutdown()


def failed_as_observed(reader: Any) -> float:
    found = reader.get_metrics_data()
    scopes = [] if found is None else found.resource_metrics[0].scope_metrics
    return sum(
        point.value
        for scope in scopes
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name == "cloaca.run.duration.count" and point.attributes["status"] == "Failed"
    )


def test_what_a_runner_counted_before_it_was_shut_down_is_observed_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    monkeypatch.setattr("cloaca.telemetry.observed.FRESH_SECONDS", 0.0)
    declare()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])

    def job() -> None:
        with cloaca.DefaultRunner(":memory:") as runner:
            cloaca.telemetry.otel_metrics(runner, provider)
            runner.execute("ingest", {"bad": True})

    job()
    assert failed_as_observed(reader) == 1, "with no runner left"
    with cloaca.DefaultRunner(":memory:") as other:
        cloaca.telemetry.otel_metrics(other, provider)
        for many in (2, 3):
            job()
            assert failed_as_observed(reader) == many
        other.execute("ingest", {"bad": True})
    assert failed_as_observed(reader) == 4
    provider.shutdown()


def test_a_collection_right_after_a_runner_s_end_finds_what_it_has_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    monkeypatch.setattr("cloaca.telemetry.observed.FRESH_SECONDS", 3600.0)
    declare()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    with cloaca.DefaultRunner(":memory:") as other, cloaca.DefaultRunner(":memory:") as runner:
        cloaca.telemetry.otel_metrics(other, provider)
        cloaca.telemetry.otel_metrics(runner, provider)
        assert failed_as_observed(reader) == 0
        runner.execute("ingest", {"bad": True})
        assert failed_as_observed(reader) == 0, "all of a moment share a look"
        runner.shutdown()
        assert failed_as_observed(reader) == 1, "a program's last collection"
        other.execute("ingest", {"bad": True})
    assert failed_as_observed(reader) == 2
    provider.shutdown()


def test_a_collection_under_way_at_a_shutdown_leaves_what_was_counted_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from cloaca.telemetry.watched import Watched

    monkeypatch.setattr("cloaca.telemetry.observed.FRESH_SECONDS", 0.0)
    families = Watched.families
    ended: list[bool] = []

    def slow(self: Watched, *asked: Any) -> Any:
        found = [*families(self, *asked)]
        if not ended:
            ended.append(True)
            runner.execute("ingest", {"bad": True})
            runner.shutdown()
        return iter(found)

    declare()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    runner = cloaca.DefaultRunner(":memory:")
    cloaca.telemetry.otel_metrics(runner, provider)
    monkeypatch.setattr(Watched, "families", slow)
    failed_as_observed(reader)
    assert failed_as_observed(reader) == 1
    provider.shutdown()


def test_what_a_runner_counts_while_it_is_shut_down_is_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    monkeypatch.setattr("cloaca.telemetry.observed.FRESH_SECONDS", 0.0)
    entered, goes_on, closes = threading.Event(), threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("slow"):

        @cloaca.task(retry_attempts=1)
        def waits(context: cloaca.Context) -> None:
            entered.set()
            assert goes_on.wait(30)
            raise ValueError("no")

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    runner = cloaca.DefaultRunner(":memory:")
    cloaca.telemetry.otel_metrics(runner, provider)
    runner.submit("slow")
    assert entered.wait(30)
    closed = runner._declarations.close
    # What isn't closed hears of each later test's declarations.
    monkeypatch.setattr(runner._declarations, "close", lambda: (closed(), closes.set()))
    ends = threading.Thread(target=runner.shutdown)
    ends.start()
    assert closes.wait(30)
    assert failed_as_observed(reader) == 0
    goes_on.set()
    ends.join()
    assert failed_as_observed(reader) == 1
    provider.shutdown()


def test_callbacks_that_a_shutdown_did_not_wait_for_are_counted_once_they_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    monkeypatch.setattr("cloaca.telemetry.observed.FRESH_SECONDS", 3600.0)
    entered, goes_on = threading.Semaphore(0), threading.Event()

    def slow(run: Any) -> None:
        entered.release()
        assert goes_on.wait(30)

    with cloaca.WorkflowBuilder("w").on_success(slow):
        cloaca.task(id="t")(lambda context: None)

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])

    def called() -> float:
        found = reader.get_metrics_data()
        scopes = [] if found is None else found.resource_metrics[0].scope_metrics
        named = {metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}
        return sum(point.value for point in named["cloaca.callbacks.called"])

    # Some of the process's outlive every runner, once there are any.
    before = set(threading.enumerate())
    runner = cloaca.DefaultRunner(":memory:")
    cloaca.telemetry.otel_metrics(runner, provider)
    registry = CollectorRegistry()
    registry.register(cloaca.telemetry.prometheus_collector(runner))
    for _ in range(2):
        runner.execute("w")
        assert entered.acquire(timeout=30)
    runner.shutdown(0)
    assert called() == 0
    goes_on.set()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("cloaca-"):
            thread.join(30)
    assert registry.get_sample_value("cloaca_callbacks_called_total", {"workflow": "w"}) == 2
    del registry, runner
    assert called() == called() == 2
    provider.shutdown()


def test_polls_that_skip_for_another_reason_each_time_share_their_commits() -> None:
    polls = itertools.count()
    with cloaca.WorkflowBuilder("ingest"):
        cloaca.task(id="load")(lambda context: None)

    @cloaca.trigger(workflow="ingest", poll_interval="100ms")
    def inbox() -> cloaca.TriggerResult:
        number = next(polls)
        # Now and then one without a reason stands between them, and two alike are one.
        return cloaca.TriggerResult.skip("" if number % 5 == 0 else f"nothing at {number // 2}")

    with cloaca.testing.Runner() as runner:
        runner.advance("1s")
        before = of(scraped(runner), "commit_duration_seconds_count")
        began = runner.stats()["polls"]
        runner.advance("160s")
        commits = of(scraped(runner), "commit_duration_seconds_count") - before
        polled = runner.stats()["polls"]
        assert polled - began == 1600
        assert commits < 1600 / 8
        told = [(row["reason"], row["count"]) for row in reversed(runner.ticks("inbox", 2000))]
        series = of(scraped(runner), "poll_skips_total", trigger="inbox")
    reasons = [None if number % 5 == 0 else f"nothing at {number // 2}" for number in range(polled)]
    assert told == [(reason, len(list(alike))) for reason, alike in itertools.groupby(reasons)]
    assert series == polled


def test_runs_that_wait_for_their_time_are_told_apart_from_those_that_could_begin() -> None:
    declare()
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.submit("ingest", {}, delay="1h")
        found = scraped(runner)
        assert of(found, "store_runs_unfinished", workflow="ingest", status="Delayed") == 1
        assert of(found, "store_runs_unfinished", workflow="ingest", status="Pending") == 0
