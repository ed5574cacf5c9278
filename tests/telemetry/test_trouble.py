"""What watches a program goes on while its store is in trouble: that is when it is needed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import cloaca
from cloaca.cli.main import main
from cloaca.telemetry import health as probed
from cloaca.telemetry import watched

WAIT = 60.0
HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def declare() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)


def values(text: str) -> dict[str, float]:
    """Of what has no labels."""
    families = text_string_to_metric_families(text)
    return {each.name: each.value for family in families for each in family.samples if not each.labels}


class Hanging(cloaca.DefaultRunner):
    """Its store does not answer whoever looks how it stands."""

    answers: threading.Event
    is_asked: threading.Event

    def health(self) -> Any:
        self.is_asked.set()
        self.answers.wait(WAIT)
        return super().health()


@contextmanager
def hanging(path: Path) -> Iterator[Hanging]:
    declare()
    Hanging.answers, Hanging.is_asked = threading.Event(), threading.Event()
    with Hanging(path) as runner:
        try:
            yield runner
        finally:
            Hanging.answers.set()


def test_who_asks_whether_it_lives_never_waits_for_who_asks_whether_it_is_ready(tmp_path: Path) -> None:
    with hanging(tmp_path / "runs.db") as runner, ThreadPoolExecutor(1) as aside:
        app = cloaca.telemetry.health_app(runner)
        ready = aside.submit(app.answer, "/readyz", "")
        assert runner.is_asked.wait(WAIT)
        assert app.answer("/healthz", "").status == 200
        assert app.answer("/healthz/", "").status == 200
        assert not ready.done()
        runner.answers.set()
        assert ready.result(WAIT).status == 200


def test_a_store_that_does_not_answer_is_told_of_and_asked_once_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "STORE_SECONDS_MAX", 0.05)
    monkeypatch.setattr(probed, "FRESH_SECONDS", 0.0)
    with hanging(tmp_path / "runs.db") as runner:
        health, metrics = cloaca.telemetry.health_app(runner), cloaca.telemetry.prometheus_app(runner)
        before = threading.active_count()
        for _ in range(20):
            ready = health.answer("/readyz", "")
            assert (ready.status, b"has not answered within" in ready.body) == (503, True)
            told = metrics.answer("/", "")
            found = values(told.body.decode())
            assert (told.status, found["cloaca_store_healthy"]) == (200, 0)
            assert "cloaca_commit_refusals_total" in found
            assert "cloaca_store_runs_waiting" not in found
        assert threading.active_count() <= before + 2
        monkeypatch.setattr(watched, "STORE_SECONDS_MAX", WAIT)
        runner.answers.set()
        while values(metrics.answer("/", "").body.decode())["cloaca_store_healthy"] != 1:
            pass
        assert health.answer("/readyz", "").status == 200


@pytest.mark.skipif(sys.platform == "win32", reason="a file is locked otherwise there")
def test_metrics_come_at_once_while_writes_wait(tmp_path: Path) -> None:
    declare()
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner, ThreadPoolExecutor(2) as aside:
        runner.execute("w")
        app = cloaca.telemetry.prometheus_app(runner)
        line = [sys.executable, "-c", HOLD, str(path)]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            holder.stdout.readline()
            submitted = aside.submit(runner.submit, "w")
            # One that waits for the commit would do so for 20 s.
            found = values(aside.submit(app.answer, "/", "").result(10).body.decode())
            assert (found["cloaca_runs_started_total"], found["cloaca_store_healthy"]) == (1, 1)
            assert not submitted.done()
            holder.stdin.close()
        submitted.result(WAIT)


def test_a_runner_that_has_stopped_says_so(tmp_path: Path) -> None:
    declare()
    path = tmp_path / "runs.db"
    runner = cloaca.DefaultRunner(path)
    try:
        app = cloaca.telemetry.prometheus_app(runner)
        registry = CollectorRegistry()
        registry.register(cloaca.telemetry.prometheus_collector(runner))
        runner.execute("w")
        for each in tmp_path.glob("runs.db*"):
            each.unlink()
        with contextlib.suppress(cloaca.CloacaError):
            while True:
                runner.submit("w")
        for text in (app.answer("/", "").body, generate_latest(registry)):
            found = values(text.decode())
            assert (found["cloaca_runner_stopped"], found["cloaca_store_healthy"]) == (1, 0)
            assert found["cloaca_runs_started_total"] >= 1
    finally:
        runner.shutdown(1)


def test_a_programs_own_metrics_do_not_go_with_the_store(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Counter("mine", "", registry=registry).inc()
    registry.register(cloaca.telemetry.prometheus_collector(tmp_path / "nothing.db"))
    found = values(generate_latest(registry).decode())
    assert (found["mine_total"], found["cloaca_store_healthy"]) == (1, 0)


def observed(reader: Any) -> dict[str, float]:
    data = reader.get_metrics_data()
    found: dict[str, float] = {}
    for resource in data.resource_metrics if data else []:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = sum(point.value for point in metric.data.data_points)
    return found


@pytest.fixture
def provided(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from cloaca.telemetry import observed as observing

    monkeypatch.setattr(observing, "FRESH_SECONDS", 0.0)
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    yield provider, reader
    provider.shutdown()


def test_open_telemetry_observes_each_runner_of_a_process(provided: tuple[Any, Any], tmp_path: Path) -> None:
    provider, reader = provided
    declare()
    with cloaca.DefaultRunner(tmp_path / "a.db") as one, cloaca.DefaultRunner(tmp_path / "b.db") as other:
        for runner in (one, one, other):
            cloaca.telemetry.otel_metrics(runner, provider)
        one.execute("w")
        other.execute("w")
        found = observed(reader)
        assert (found["cloaca.runs_started"], found["cloaca.run.duration.count"]) == (2, 2)
        assert (found["cloaca.store.healthy"], found["cloaca.build_info"]) == (1, 1)
    found = observed(reader)
    assert (found["cloaca.runs_started"], found["cloaca.run.duration.count"]) == (2, 2)
    assert "cloaca.store.healthy" not in found, "of a store nobody looks at"
    with cloaca.DefaultRunner(tmp_path / "a.db") as third:
        cloaca.telemetry.otel_metrics(third, provider)
        third.execute("w")
        assert observed(reader)["cloaca.runs_started"] == 3, "a count never goes back"


def test_open_telemetry_observes_a_store_that_did_not_answer_at_first(
    provided: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, reader = provided
    monkeypatch.setattr(watched, "STORE_SECONDS_MAX", 0.05)
    with hanging(tmp_path / "runs.db") as runner:
        cloaca.telemetry.otel_metrics(runner, provider)
        runner.execute("w")
        found = observed(reader)
        assert (found["cloaca.runs_started"], found["cloaca.store.healthy"]) == (1, 0)
        looks = [thread for thread in threading.enumerate() if thread.name == "cloaca-look"]
        assert len(looks) == 1, "it is asked once at a time"
        monkeypatch.setattr(watched, "STORE_SECONDS_MAX", WAIT)
        runner.answers.set()
        while (found := observed(reader))["cloaca.store.healthy"] != 1:
            pass
        assert "cloaca.store.runs_waiting" in found


def test_stores_that_do_not_answer_are_asked_side_by_side_and_hold_up_no_other_runner(
    provided: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, reader = provided
    monkeypatch.setattr(watched, "STORE_SECONDS_MAX", WAIT)
    declare()
    Hanging.answers = threading.Event()
    with (
        Hanging(tmp_path / "a.db") as one,
        Hanging(tmp_path / "b.db") as other,
        cloaca.DefaultRunner(":memory:") as third,
        ThreadPoolExecutor(2) as aside,
    ):
        for runner in (one, other):
            runner.is_asked = threading.Event()
            cloaca.telemetry.otel_metrics(runner, provider)
            runner.execute("w")
        third.execute("w")
        try:
            collected = aside.submit(observed, reader)
            assert one.is_asked.wait(10)
            assert other.is_asked.wait(10), "it waits for the first"
            aside.submit(cloaca.telemetry.otel_metrics, third, provider).result(10)
            assert not collected.done()
        finally:
            Hanging.answers.set()
        found = collected.result(WAIT)
        assert found["cloaca.store.healthy"] == 1
        assert observed(reader)["cloaca.runs_started"] == 3


@pytest.mark.parametrize("bad", ["runs.db", None, 3])
def test_what_open_telemetry_cannot_observe_is_refused(provided: tuple[Any, Any], bad: Any) -> None:
    with pytest.raises(TypeError, match=r"runner is .*; it must be a DefaultRunner of this process"):
        cloaca.telemetry.otel_metrics(bad, provided[0])
    with cloaca.DefaultRunner(":memory:") as runner:
        pass
    with pytest.raises(cloaca.RunnerError, match="shut down"):
        cloaca.telemetry.otel_metrics(runner, provided[0])


LATE = """
import sys
import cloaca
from cloaca.cli.main import main
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from cloaca.telemetry import observed

observed.FRESH_SECONDS = 0.0
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context): pass

reader = InMemoryMetricReader()

def counts():
    found = reader.get_metrics_data()
    scopes = [scope for each in found.resource_metrics for scope in each.scope_metrics]
    named = {metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}
    return [point.value for point in named["cloaca.runs_started"]]

with cloaca.DefaultRunner(":memory:") as one:
    cloaca.telemetry.otel_metrics(one)
    metrics.set_meter_provider(MeterProvider([reader]))
    one.execute("w")
    print(counts())
    with cloaca.DefaultRunner(":memory:") as other:
        cloaca.telemetry.otel_metrics(other)
        cloaca.telemetry.otel_metrics(one, metrics.get_meter_provider())
        other.execute("w")
        print(counts())
with cloaca.DefaultRunner(":memory:") as third:
    cloaca.telemetry.otel_metrics(third)
    third.execute("w")
    print(counts())
"""


def test_a_meter_provider_may_be_set_after_the_first_runner_is_observed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[1]\n[2]\n[3]\n", "")


@pytest.mark.parametrize(
    "name", ["a\x1b[31m", "a\nb", 'a"\\b', "nb\u00a0sp", "\u200djoined", "\x85a", "\u2028a"]
)
def test_the_command_tells_metrics_by_the_names_that_they_have(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    declare()
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        cloaca.trigger(workflow="w", name=name, poll_interval="1h")(lambda: 1 / 0)
        runner.tick(name)
        assert main(["metrics", "--database", str(tmp_path / "runs.db")]) == 0
    found = text_string_to_metric_families(capfd.readouterr().out)
    labels = [sample.labels for family in found for sample in family.samples]
    assert name in {label.get("trigger") for label in labels}
