"""Crons of a runner that drains are at once those of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from program import eventually

import cloaca

WAIT = 30.0
CRONS = [f"cron-{number}" for number in range(8)]


def late(run: Any) -> float:
    """How long after its moment a run was begun, in seconds."""
    moment, begun = (
        datetime.fromisoformat(at.replace("Z", "+00:00"))
        for at in (run["context"]["scheduled_time"], run["created_at"])
    )
    return (begun - moment).total_seconds()


def drains(runner: cloaca.DefaultRunner) -> None:
    runner.shutdown(WAIT, wait="runs")


def ends(runner: cloaca.DefaultRunner) -> None:
    runner.shutdown(WAIT)


@pytest.mark.parametrize("leave", [drains, ends])
def test_moments_of_who_drains_are_begun_in_time_elsewhere(
    tmp_path: Path, leave: Callable[[cloaca.DefaultRunner], None]
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("long"):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None:
            begun.set()
            assert go_on.wait(WAIT)

    by: dict[str, cloaca.DefaultRunner] = {}
    with cloaca.WorkflowBuilder("short"):

        @cloaca.task(id="only")
        def notes(context: cloaca.Context) -> None:
            run = cloaca.current_run()
            assert run is not None
            assert run.trigger is not None
            by[run.trigger] = run.runner

    for name in CRONS:
        cloaca.trigger(workflow="short", name=name, cron="* * * * * *")(lambda: None)
    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as first, cloaca.DefaultRunner(url) as second:
        first.submit("long")
        assert begun.wait(WAIT)
        assert eventually(lambda: {*by.values()} == {first, second}, WAIT), "they share the crons"
        leaving = threading.Thread(target=leave, args=[first])
        leaving.start()
        try:
            assert eventually(lambda: any(row["state"] == "draining" for row in second.list_runners()), WAIT)
            since = max(run["id"] for run in second.list_runs(workflow="short", limit=1) or [{"id": ""}])

            # Three in a row of each, whenever: this machine may stand still for a while.
            def in_time(name: str) -> bool:
                runs = second.list_runs(trigger=name, limit=3)
                return len(runs) == 3 and all(run["id"] > since and late(run) < 0.9 for run in runs)

            assert eventually(lambda: all(map(in_time, CRONS)), WAIT)
        finally:
            go_on.set()
            leaving.join()
