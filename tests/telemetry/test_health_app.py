"""What probes are told over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import cloaca
from cloaca.telemetry import health as probed


@pytest.fixture(autouse=True)
def look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probed, "FRESH_SECONDS", 0.0)


def asked(app: Any, path: str) -> tuple[int, dict[str, Any]]:
    with TestClient(app) as client:
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        return answer.status_code, answer.json()


def rare() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="w", poll_interval="1h", name="rare")(lambda: False)


def test_a_runner_that_serves_is_alive_and_ready(tmp_path: Path) -> None:
    rare()
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        app = cloaca.telemetry.health_app(runner)
        assert asked(app, "/healthz") == (200, {"ok": True, "why": None})
        status, found = asked(app, "/readyz")
        assert (status, found["ok"], found["reasons"], found["runners"]) == (200, True, [], 1)
    status, found = asked(app, "/healthz")
    assert (status, found["why"]) == (503, "the runner has stopped")
    status, found = asked(app, "/readyz")
    assert (status, found["ok"]) == (503, False)
    assert "shut down" in found["why"]


def test_what_starting_anew_would_not_mend_is_no_death(tmp_path: Path) -> None:
    rare()
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as runner:
        while runner.get_trigger_schedule("rare") is None:
            pass
    with cloaca.DefaultRunner(path, work=False) as client:
        app = cloaca.telemetry.health_app(client)
        status, found = asked(app, "/readyz")
        assert (status, [reason["code"] for reason in found["reasons"]]) == (503, ["no_runner"])
        assert asked(app, "/healthz")[0] == 200
    app = cloaca.telemetry.health_app(path)
    assert (asked(app, "/healthz")[0], asked(app, "/readyz")[0]) == (200, 503)


def test_a_paused_runner_is_alive_and_not_ready(tmp_path: Path) -> None:
    with cloaca.DefaultRunner(tmp_path / "runs.db", paused=True) as runner:
        app = cloaca.telemetry.health_app(runner)
        assert asked(app, "/healthz")[0] == 200
        status, found = asked(app, "/readyz")
        assert (status, found["why"]) == (503, "the runner is paused")
        runner.resume()
        assert asked(app, "/readyz")[0] == 200


def test_a_store_that_cannot_be_read_is_neither(tmp_path: Path) -> None:
    app = cloaca.telemetry.health_app(tmp_path / "none.db")
    for path in ("/healthz", "/readyz"):
        status, found = asked(app, path)
        assert status == 503
        assert "none.db" in found["why"]


def test_it_is_mounted_under_a_path_and_asked_for_nothing_else(tmp_path: Path) -> None:
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        host = Starlette()
        host.mount("/probes", cloaca.telemetry.health_app(runner))
        with TestClient(host) as client:
            assert client.get("/probes/readyz").status_code == 200
            assert client.get("/probes/other").status_code == 404
            assert client.post("/probes/readyz").status_code == 405


def test_what_was_just_looked_at_is_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probed, "FRESH_SECONDS", 3600.0)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        app = cloaca.telemetry.health_app(runner)
        first = asked(app, "/readyz")
        assert asked(app, "/readyz") == first
        monkeypatch.setattr(probed, "FRESH_SECONDS", 0.0)
        assert asked(app, "/readyz")[1]["at"] != first[1]["at"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_end_of_a_runner_is_told_at_once(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probed, "FRESH_SECONDS", 3600.0)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        app = cloaca.telemetry.health_app(runner)
        assert asked(app, path)[0] == 200
    status, found = asked(app, path)
    assert (status, found["ok"]) == (503, False)


def test_a_shutdown_amidst_a_look_is_an_end_and_no_fault(tmp_path: Path) -> None:
    class Closing(cloaca.DefaultRunner):
        def _has_stopped(self) -> bool:
            self.shutdown()
            return bool(self._open().wait_closing(0.0))

    with Closing(tmp_path / "runs.db") as runner:
        app = cloaca.telemetry.health_app(runner)
        assert asked(app, "/healthz") == (
            503,
            {"ok": False, "why": "the runner is shut down; make a new DefaultRunner"},
        )
