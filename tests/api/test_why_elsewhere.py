"""`why` and `why_run` of what another process does, asked of a client and at the shell alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from program import eventually, start_program

import cloaca
import cloaca.testing
from cloaca import reading

PROGRAM = """
    import sys
    import time
    import cloaca

    file, kind = sys.argv[1:]
    with cloaca.WorkflowBuilder("source"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.WorkflowBuilder("work"):
        cloaca.task(id="only")(lambda context: None)

    def again(tick):
        raise cloaca.RetryAfter("1h")

    kinds = {
        "polled": ({"poll_interval": "20ms"}, lambda tick: True),
        "asks": ({"poll_interval": "20ms"}, again),
        "cron": ({"cron": "* * * * * *"}, lambda tick: True),
        "asking cron": ({"cron": "* * * * * *"}, again),
        "plain cron": ({"cron": "* * * * * *"}, lambda: None),
        "on_run": ({"on_run": "source"}, lambda run: True),
    }
    if kind in kinds:
        given, body = kinds[kind]
        cloaca.trigger(workflow="work", name="x", **given)(body)
    else:
        api = cloaca.Limit("api", concurrency=1)

        def wait(context, handle):
            handle.defer_until(lambda: False, "50ms")

        with cloaca.WorkflowBuilder("line"):
            cloaca.task(id="only")(wait)
        with cloaca.WorkflowBuilder("seat"):
            cloaca.task(id="only", limits=[api])(lambda context: time.sleep(600))
        with cloaca.WorkflowBuilder("parent"):
            cloaca.task(id="only")(lambda context, handle: handle.runner.execute("line") and None)

        @cloaca.trigger(workflow="line", name="x", poll_interval="20ms", overlap="queue")
        def x(tick):
            number = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"n": number}, cursor=number) if number < 4 else False

    with cloaca.DefaultRunner(file) as runner:
        print("ready", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@contextmanager
def serving(file: Path, kind: str) -> Iterator[Any]:
    """A program that works on the store, and a client of it that declares nothing."""
    with start_program(PROGRAM, file, kind) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n", program.communicate()
        try:
            with cloaca.testing.isolated(), cloaca.DefaultRunner(file, work=False) as client:
                client.program = program  # type: ignore[attr-defined]
                yield client
        finally:
            program.kill()


def at_the_shell(file: Path, name: str) -> str:
    with reading.Reader(file) as reader:
        return reading.why(reader, name)


def runs(client: Any, more_than: int = 0) -> bool:
    return eventually(lambda: len(client.list_runs(trigger="x", limit=1000)) > more_than)


@pytest.mark.parametrize("before", ["polled", "on_run"])
def test_a_name_that_is_a_cron_by_now_is_told_as_one(file: Path, before: str) -> None:
    with serving(file, before) as client:
        assert before == "on_run" or runs(client)
    with serving(file, "cron") as client:
        assert runs(client, len(client.list_runs(trigger="x", limit=1000)))
        told = client.why("x")
        assert told.startswith("trigger 'x' is a cron, '* * * * * *' in 'UTC'"), told
        assert "polled" not in told
        assert "called" not in told


@pytest.mark.parametrize(
    ("before", "after"), [("asks", "on_run"), ("asking cron", "polled"), ("asks", "cron")]
)
def test_what_one_kind_asked_for_holds_up_no_other(file: Path, before: str, after: str) -> None:
    with serving(file, before) as client:
        assert eventually(lambda: any("1h" in (tick["reason"] or "") for tick in client.ticks("x")))
    with serving(file, after) as client:
        if after == "on_run":
            client.submit("source")
        assert runs(client)
        assert "backs off" not in client.why("x")
        assert "backs off" not in at_the_shell(file, "x")


def test_what_an_older_function_left_out_is_not_the_last_moment_of_a_cron_without_one(file: Path) -> None:
    with serving(file, "asking cron") as client:
        assert eventually(lambda: any("1h" in (tick["reason"] or "") for tick in client.ticks("x")))
        assert "left out: retry after 1h" in client.why("x")
    with serving(file, "plain cron") as client:
        assert runs(client)
        for told in (client.why("x"), at_the_shell(file, "x")):
            assert "it ran last at" in told
            assert "left out" not in told


def test_what_a_run_waits_for_is_told_at_both_doors(file: Path) -> None:
    with serving(file, "runs") as client:
        assert runs(client, 2)
        first, second, third = (run["id"] for run in reversed(client.list_runs(trigger="x")))
        doors = client.why_run, lambda run: at_the_shell(file, run)
        for door in doors:
            of = "of trigger 'x', in the hands of runner 1"
            assert f"waits for its turn behind run {first} {of}" in door(second)
            assert f"waits for its turn behind run {first} and 1 run after it {of}" in door(third)
            assert "turn" not in door(first)
        sits, waits = (client.submit("seat").id for _ in range(2))
        assert eventually(lambda: "waits for a seat" in client.why_run(waits))
        parent = client.submit("parent").id
        assert eventually(lambda: "came of it" in client.why_run(parent))
        for door in doors:
            assert "task 'only' waits for a seat of limit 'api': 1 of 1 seats of limit 'api'" in door(waits)
            assert "for a seat" not in door(sits)
            (child,) = client.get_run(parent)["children"]
            assert f"run {child['id']} of workflow 'line' came of it, which is not over" in door(parent)


def test_what_a_killed_runner_had_is_told_as_nobodys_at_once(file: Path) -> None:
    with serving(file, "runs") as client:
        assert runs(client, 2)
        (run, *_) = (run["id"] for run in reversed(client.list_runs(trigger="x")))
        assert "in the hands of runner 1" in client.why_run(run)
        assert "is polled by runner 1" in client.why("x")
        client.program.kill()
        client.program.wait()
        for told in (client.why_run(run), at_the_shell(file, run)):
            assert "runner 1" in told
            assert "gone" in told
            assert "in the hands" not in told
        assert "is not polled" in client.why("x")
        assert "is not polled" in at_the_shell(file, "x")


def test_a_moment_that_started_nothing_has_not_run() -> None:
    with cloaca.WorkflowBuilder("work"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="work", name="x", cron="0 * * * *")(
        lambda tick: cloaca.TriggerResult.fire(run_key="only")
    )
    with cloaca.testing.Runner("2026-01-01T00:30:00Z") as runner:
        runner.advance("1h")
        (cron,) = runner.list_cron_schedules()
        ran = cron["last_run_at"]
        runner.advance("2h")
        (cron,) = runner.list_cron_schedules()
        assert cron["last_run_at"] == ran
        told = runner.why("x")
        assert f"it ran last at {ran}; its last moment was left out: deduplicated: run key 'only'" in told
