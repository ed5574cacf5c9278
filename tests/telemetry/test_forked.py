"""A forked child tells nothing of what its parent counts, and waits for nobody there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")

HEAD = """
    import os, signal, sys, threading, warnings
    import cloaca
    warnings.simplefilter("ignore", DeprecationWarning)

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)

    def in_child(body):
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            signal.alarm(30)
            body()
            sys.stdout.flush()
            os._exit(0)
        print("child ended", os.waitpid(pid, 0)[1])
"""

OBSERVED = """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from cloaca.telemetry import observed, otel_metrics
    observed.FRESH_SECONDS = 0.0
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])

    def started(reader=reader):
        found = reader.get_metrics_data()
        scopes = [scope for each in (found.resource_metrics if found else []) for scope in each.scope_metrics]
        points = {metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}
        return [point.value for point in points.get("cloaca.runs_started", [])]
"""

COUNTS = """
    def child():
        print("child of a parent", started())
        with cloaca.DefaultRunner(":memory:") as own:
            otel_metrics(own, provider)
            own.execute("w")
            own.execute("w")
            print("child", started())
        print("child", started())

    with cloaca.DefaultRunner(":memory:") as gone:
        otel_metrics(gone, provider)
        gone.execute("w")
    with cloaca.DefaultRunner(":memory:") as runner:
        otel_metrics(runner, provider)
        runner.execute("w")
        print(started())
        in_child(child)
    print(started())
"""

AMIDST = """
    asked, goes_on = threading.Event(), threading.Event()

    class Hanging(cloaca.DefaultRunner):
        def health(self):
            asked.set()
            goes_on.wait(60)
            return super().health()

    def child():
        second = InMemoryMetricReader()
        with cloaca.DefaultRunner(":memory:") as own:
            otel_metrics(own, provider)
            otel_metrics(own, MeterProvider([second]))
            own.execute("w")
            print("child", started(second))

    with Hanging(":memory:") as runner:
        otel_metrics(runner, provider)
        collects = threading.Thread(target=reader.collect)
        collects.start()
        asked.wait()
        in_child(child)
        goes_on.set()
        collects.join()
"""

ASKED = """
    from cloaca.telemetry import health_app, prometheus_app, watched
    asked, goes_on = threading.Event(), threading.Event()
    health = watched._health

    def hangs(native):
        asked.set()
        goes_on.wait(60)
        return health(native)

    def child():
        watched._health = health
        answer = app.answer(path, "")
        print("child", answer.status, b"cloaca_store_healthy 0.0" not in answer.body)

    cloaca.DefaultRunner("runs.db").shutdown()
    watched._health, watched.STORE_SECONDS_MAX = hangs, 60.0
    app, path = {}("runs.db"), {!r}
    asks = threading.Thread(target=app.answer, args=(path, ""))
    asks.start()
    asked.wait()
    in_child(child)
    goes_on.set()
    asks.join()
"""


def said(tmp_path: Path, *parts: str) -> list[str]:
    code = "".join(map(textwrap.dedent, (HEAD, *parts)))
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_child_tells_what_it_counts_and_not_what_its_parent_has_counted(tmp_path: Path) -> None:
    told = ["[2]", "child of a parent []", "child [2]", "child [2]", "child ended 0", "[2]"]
    assert said(tmp_path, OBSERVED, COUNTS) == told


def test_a_child_that_is_forked_amidst_a_collection_observes_its_own_runners(tmp_path: Path) -> None:
    assert said(tmp_path, OBSERVED, AMIDST) == ["child [1]", "child ended 0"]


@pytest.mark.parametrize(("app", "path"), [("health_app", "/readyz"), ("prometheus_app", "/")])
def test_a_child_that_is_forked_amidst_a_look_at_a_store_looks_for_itself(
    app: str, path: str, tmp_path: Path
) -> None:
    assert said(tmp_path, ASKED.format(app, path)) == ["child 200 True", "child ended 0"]
