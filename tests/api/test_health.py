"""`runner.health()`: what a probe is told of a store, whoever serves it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flow
import pytest
from program import eventually, run_program, start_program

import cloaca
from cloaca import health as looked
from cloaca import reading, testing

POLLS = """
import sys, time, cloaca
with cloaca.WorkflowBuilder("polled"):
    @cloaca.task()
    def only(context):
        time.sleep(600)
@cloaca.trigger(workflow="polled", poll_interval="1h")
def hourly():
    return cloaca.TriggerResult.skip()
runner = cloaca.DefaultRunner(sys.argv[1])
while runner.list_trigger_schedules()[0]["polled_by"] is None:
    time.sleep(0.01)
"""
NOW = "CAST(unixepoch() * 1000000 AS INTEGER)"


def change(store: Path, sql: str) -> None:
    """Writes to a store from a process of its own: in this one it may be open."""
    code = "db = sqlite3.connect(sys.argv[1], 30); db.execute(sys.argv[2]); db.commit(); db.close()"
    code = f"import sqlite3, sys; {code}"
    subprocess.run([sys.executable, "-c", code, str(store), sql], check=True)


def codes(found: cloaca.types.Health) -> dict[str, Any]:
    assert found["ok"] == (not found["reasons"])
    return {reason["code"]: reason for reason in found["reasons"]}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def runner(store: Path) -> Iterator[cloaca.DefaultRunner]:
    with cloaca.DefaultRunner(store, name="desk") as runner:
        yield runner


def test_where_all_is_well_nothing_is_told(store: Path) -> None:
    @cloaca.trigger(workflow="w", poll_interval="1h")
    def hourly() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip()

    flow.declare("w", flow.nothing)
    with cloaca.DefaultRunner(store) as runner, cloaca.DefaultRunner(store, work=False) as client:
        runner.register_cron_workflow("w", "0 3 * * *")
        runner.execute("w")
        for asked in (runner, client):
            found = asked.health()
            assert found["reasons"] == []
            assert (found["ok"], found["runners"], found["runs_waiting"]) == (True, 1, 0)
            assert found["oldest_seconds"] is None
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.health()["ok"]


def test_a_file_that_is_called_like_a_server_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with cloaca.DefaultRunner("postgres.db") as runner:
        assert runner.health()["ok"]


def test_that_nobody_works_is_told_where_there_is_something_to_serve(store: Path) -> None:
    with cloaca.DefaultRunner(store, work=False) as client:
        assert client.health()["ok"], "there is nothing to serve"
    with cloaca.DefaultRunner(store) as runner:
        flow.declare("w", flow.nothing)
        runner.register_cron_workflow("w", "0 3 * * *")
    with cloaca.DefaultRunner(store, work=False) as client:
        found = codes(client.health())
        assert set(found) == {"no_runner"}
        assert "start the program" in found["no_runner"]["text"]


def test_runs_of_workflows_that_nobody_declares_are_unserved(
    runner: cloaca.DefaultRunner, store: Path
) -> None:
    flow.declare("w", flow.nothing)
    runner.execute("w")
    died = POLLS + "runner.submit('polled').id; runner.shutdown(0)"
    assert run_program(died, store).returncode == 0
    # Its process is dead, which is noticed in a moment.
    assert eventually(lambda: runner.health()["runs_waiting"] == 1)
    assert "unserved" not in codes(runner.health()), "somebody may be about to come"
    change(store, f"UPDATE runs SET created_at = {NOW} - 20000000 WHERE workflow = 'polled'")
    change(store, f"UPDATE owners SET left_at = {NOW} - 20000000 WHERE left_at IS NOT NULL")
    found = codes(runner.health())
    assert (found["unserved"]["count"], found["unserved"]["names"]) == (1, ["polled"])
    assert 15 < found["unserved"]["seconds"] < 600
    assert "no living runner declares: 'polled'" in found["unserved"]["text"]


def test_what_is_a_cron_by_now_is_missed_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    flow.declare("report")
    cloaca.trigger(workflow="report", name="inbox", poll_interval="1m")(lambda: False)
    with cloaca.DefaultRunner(path):
        pass
    # Its program ended long ago.
    change(path, "UPDATE schedules SET free_since = 0")
    cloaca.unregister_trigger("inbox")
    cloaca.trigger(workflow="report", name="inbox", cron="0 3 29 2 *")(lambda: False)
    with cloaca.DefaultRunner(path) as runner:
        assert eventually(lambda: len(runner.list_cron_schedules()) == 1)
        assert runner.health()["reasons"] == []


def test_what_was_a_cron_for_a_while_is_the_trigger_that_it_was_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    """A deploy that is taken back declares the older version again."""
    path = tmp_path / "runs.db"
    flow.declare("report")

    def polled() -> None:
        cloaca.trigger(workflow="report", name="inbox", poll_interval="1m")(lambda: False)

    def timed() -> None:
        cloaca.trigger(workflow="report", name="inbox", cron="0 3 29 2 *")(lambda: False)

    for first, other in ((polled, timed), (timed, polled)):
        path.unlink(missing_ok=True)
        for declare in (first, other, first):
            declare()
            with cloaca.DefaultRunner(path) as runner, reading.Reader(path) as reader:
                # What nobody serves any more has been left alone for long.
                change(path, "UPDATE schedules SET free_since = 0")
                change(path, "UPDATE owners SET left_at = 0 WHERE left_at IS NOT NULL")

                def listed(reader: reading.Reader = reader) -> list[str]:
                    return [each.state for each in [*reading.triggers(reader), *reading.crons(reader)]]

                assert eventually(lambda: listed() in (["polled"], ["scheduled"])), listed()
                change(
                    path, "UPDATE schedules SET next_at = 1 WHERE kind = 'cron'"
                ) if declare is polled else None
                assert runner.health()["reasons"] == []
                assert listed() == (["polled"] if declare is polled else ["scheduled"])
            cloaca.unregister_trigger("inbox")


def test_doctor_says_of_what_a_program_has_no_more_what_a_probe_is_told(store: Path) -> None:
    assert run_program(POLLS + "runner.shutdown()", store).returncode == 0
    flow.declare("report")
    with cloaca.DefaultRunner(store) as runner, reading.Reader(store) as reader:

        def told() -> list[tuple[str, str]]:
            found = [each for each in reading.doctor(reader) if each.subject == "schedules"]
            return [(each.level, each.text.partition(",")[0]) for each in found]

        assert runner.health()["ok"]
        assert told() == [("warn", "1 schedule that no living runner declares: 'hourly'")]
        change(store, f"UPDATE owners SET left_at = {NOW} - 60000000 WHERE left_at IS NOT NULL")
        (reason,) = runner.health()["reasons"]
        assert told() == [("bad", reason["text"])]
        assert [each.state for each in reading.triggers(reader)] == ["unserved"]


def test_triggers_that_nobody_polls_are_told_after_a_while(runner: cloaca.DefaultRunner, store: Path) -> None:
    assert run_program(POLLS + "runner.shutdown()", store).returncode == 0
    assert "unpolled" not in codes(runner.health())
    change(store, f"UPDATE owners SET left_at = {NOW} - 60000000 WHERE left_at IS NOT NULL")
    found = codes(runner.health())
    assert (found["unpolled"]["count"], found["unpolled"]["names"]) == (1, ["hourly"])
    runner.set_trigger_enabled("hourly", False)
    assert runner.health()["ok"]


def test_a_run_that_waits_for_room_for_long_is_backlog(store: Path) -> None:
    gate = flow.Gate()
    flow.declare("w", gate)
    with cloaca.DefaultRunner(store, runs_in_hand=1, max_concurrent_tasks=1) as runner:
        runs = [runner.submit("w") for _ in range(4)]
        assert eventually(lambda: runner.health()["runs_waiting"] == 3)
        assert runner.health()["ok"], "it has not waited for long"
        change(store, f"UPDATE runs SET created_at = {NOW} - 100000000")
        found = codes(runner.health())
        assert set(found) == {"backlog"}
        assert (found["backlog"]["count"], found["backlog"]["names"]) == (3, ["w"])
        assert runner.health()["oldest_seconds"] >= 90  # type: ignore[operator]
        gate.open.set()
        for run in runs:
            run.result()
        assert runner.health()["ok"]


def test_who_died_with_runs_in_hand_is_told_where_nobody_goes_on(store: Path) -> None:
    source = POLLS + "runner.submit('polled')\nprint('ready', flush=True)\ntime.sleep(600)"
    with start_program(source, store) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with cloaca.DefaultRunner(store, work=False) as client:
            assert client.health()["ok"]
            other.kill()
            other.wait()
            assert eventually(lambda: set(codes(client.health())) == {"no_runner", "dead_runner"})
            assert codes(client.health())["dead_runner"]["count"] == 1


def test_who_was_shut_down_before_its_body_ended_did_not_die(store: Path) -> None:
    code = """
import sys, threading, cloaca
begun = threading.Event()
with cloaca.WorkflowBuilder("long"):
    @cloaca.task()
    def waits(context):
        begun.set()
        threading.Event().wait()
runner = cloaca.DefaultRunner(sys.argv[1])
runner.submit("long")
begun.wait()
runner.shutdown(timeout=0.1)
"""
    assert run_program(code, store).returncode == 0
    with reading.Reader(store) as reader:
        (told,) = [each for each in reading.of_probe(reader)["reasons"] if each["code"] == "dead_runner"]
        assert told["text"].startswith("1 run of runners whose shutdown their bodies outlasted, and nobody")
        (said,) = [each for each in reading.doctor(reader) if "with 1 run" in each.text]
        assert "1 runner ended before bodies that outlasted the shutdown" in said.text


def test_bodies_and_polls_that_do_not_come_back_are_told(store: Path) -> None:
    released = threading.Event()

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def hourly() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip()

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(timeout="50ms")
        def hangs(context: cloaca.Context) -> None:
            released.wait(60)

    with cloaca.DefaultRunner(store, timeout_grace_seconds=0.05) as runner:
        try:
            runner.execute("w")
            assert eventually(lambda: "overdue" in codes(runner.health()))
            assert codes(runner.health())["overdue"]["names"][0].startswith("hangs of run ")
        finally:
            released.set()
        assert eventually(lambda: runner.health()["ok"])
        change(store, f"UPDATE schedules SET in_body_since = {NOW} - 300000000")
        assert codes(runner.health())["stuck"]["names"] == ["hourly"]


def test_who_says_nothing_and_moments_that_go_by_are_told(runner: cloaca.DefaultRunner, store: Path) -> None:
    change(store, f"UPDATE owners SET seen_at = {NOW} - 7200000000")
    assert runner.health()["ok"], "whoever asks does not hang: a clock was set, say"
    change(store, f"UPDATE owners SET seen_at = {NOW} - 40000000, host = 'elsewhere'")
    found = codes(runner.health())
    assert (found["silent_runner"]["names"], set(found)) == (["desk"], {"silent_runner"})
    change(store, f"UPDATE owners SET seen_at = NULL, joined_at = {NOW} - 40000000, host = 'elsewhere'")
    assert "silent_runner" in codes(runner.health()), "it has hung since it came"
    change(store, f"UPDATE owners SET joined_at = {NOW}")
    flow.declare("w", flow.nothing)
    runner.register_cron_workflow("w", "0 3 * * *", name="nightly")
    change(store, f"UPDATE schedules SET next_at = {NOW} - 3600000000")
    assert codes(runner.health())["late_cron"]["names"] == ["nightly"]


def test_a_store_that_is_gone_and_a_disk_that_is_full_are_told(
    runner: cloaca.DefaultRunner, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    assert "1 MiB" in codes(runner.health())["disk"]["text"]
    monkeypatch.undo()
    if os.name == "posix":
        store.rename(store.with_suffix(".old"))
        assert eventually(lambda: set(codes(runner.health())) & {"store", "stopped"})
        store.with_suffix(".old").rename(store)


def test_no_look_goes_through_all_runs_or_triggers(runner: cloaca.DefaultRunner) -> None:
    statements = {name: sql for name, sql in vars(looked).items() if isinstance(sql, str) and "SELECT" in sql}
    # A part of others, and one for a server alone.
    del statements["_FIRST"], statements["OLDEST_TRANSACTION"]
    assert len(statements) >= 10
    for name, sql in statements.items():
        if not sql.lstrip().startswith("SELECT"):
            continue
        given = [None if "owner IS NOT DISTINCT FROM ?" in sql else 1] * max(sql.count("?"), 0)
        plan = runner.query(
            f"EXPLAIN QUERY PLAN {sql}", given[: 3 if "?3" in sql else 2 if "?2" in sql else None]
        )
        steps = [row["detail"] for row in plan]
        scans = [step for step in steps if step.startswith("SCAN") and "INDEX" not in step]
        allowed = (
            "SCAN found",
            "SCAN (subquery",
            "SCAN CONSTANT ROW",
            "SCAN overdue",
            "SCAN listeners",
            "SCAN waiting",
            "SCAN json_each",
        )
        assert [step for step in scans if not step.startswith(allowed)] == [], (name, steps)


def test_what_limits_hold_is_told_as_waiting_and_is_no_backlog_while_somebody_serves_it(store: Path) -> None:
    gate = flow.Gate()
    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(1)):
        cloaca.task(id="only")(gate)
    with cloaca.DefaultRunner(store) as runner:
        runs = [runner.submit("sync") for _ in range(4)]
        assert gate.entered.wait(flow.WAIT)
        assert runner.health()["runs_waiting"] == 3
        change(store, f"UPDATE runs SET created_at = {NOW} - 1000000000")
        assert runner.health()["ok"], "that is what it is for"
        with cloaca.reading.Reader(store) as reader:
            (found,) = cloaca.reading.workflows(reader)
            assert (found.pending, found.running) == (3, 1)
        gate.open.set()
        for run in runs:
            run.result(flow.WAIT)
        assert runner.health()["runs_waiting"] == 0


def test_what_limits_hold_of_workflows_that_nobody_declares_is_unserved(
    runner: cloaca.DefaultRunner, store: Path
) -> None:
    limited = (
        "import sys, cloaca\n"
        "with cloaca.WorkflowBuilder('sync', throttle=cloaca.Throttle(1, per='1h')):\n"
        "    cloaca.task(id='only')(lambda context: None)\n"
        "with cloaca.DefaultRunner(sys.argv[1]) as other:\n"
        "    other.execute('sync', {})\n"
        "    for _ in range(2): other.submit('sync')\n"
    )
    done = run_program(limited, store)
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: runner.health()["runs_waiting"] == 2)
    change(store, f"UPDATE runs SET created_at = {NOW} - 20000000 WHERE workflow = 'sync'")
    found = codes(runner.health())
    assert (found["unserved"]["count"], found["unserved"]["names"]) == (2, ["sync"])


LATER = "2100-01-01T00:00:00Z"


def test_runs_that_a_pause_holds_are_no_backlog_and_doctor_says_what_holds_them(store: Path) -> None:
    flow.declare("sync")
    flow.declare("other")
    with cloaca.DefaultRunner(store) as runner, reading.Reader(store) as reader:

        def told() -> tuple[str, str]:
            (found,) = [each for each in reading.doctor(reader) if each.subject == "pauses"]
            return found.level, found.text

        assert told() == ("ok", "nothing is paused")
        runner.pause(workflow="sync")
        run = runner.submit("sync")
        assert eventually(lambda: runner.health()["runs_waiting"] == 1)
        change(store, f"UPDATE runs SET created_at = {NOW} - 100000000")
        found = runner.health()
        assert (found["reasons"], found["runs_waiting"], found["oldest_seconds"]) == ([], 1, None)
        assert told()[0] == "warn"
        assert told()[1].startswith("workflow 'sync' is paused, by a program")
        runner.pause(workflow="sync", until=LATER)
        assert runner.health()["ok"]
        assert told()[0] == "ok"
        assert told()[1].startswith("workflow 'sync' is paused until ")
        runner.pause(workflow="other")
        # What may have been forgotten comes first.
        assert told()[1].startswith("workflow 'other' is paused, by")
        assert told()[1].count(" is paused until ") == 1
        runner.resume(workflow="sync")
        run.result(flow.WAIT)


@pytest.mark.parametrize("way", ["prune", "retention"])
def test_an_end_whose_callback_nobody_declares_any_more_is_no_trouble_and_keeps_no_run(
    store: Path, way: str
) -> None:
    called = flow.Gate()

    def fails(run: Any) -> None:
        called.entered.set()
        raise ConnectionError

    with testing.isolated():
        with cloaca.WorkflowBuilder("old").on_success(fails):
            cloaca.task(id="only")(flow.nothing)
        with cloaca.DefaultRunner(store) as runner:
            run = runner.submit("old")
            assert called.entered.wait(flow.WAIT)
            assert eventually(
                lambda: [each["error"] for each in runner.get_run(run.id)["callbacks"]] != [None]
            )
    change(store, f"UPDATE ends SET due_at = {NOW} - 90000000000")
    change(store, f"UPDATE runs SET completed_at = {NOW} - 90000000000, created_at = {NOW} - 90000000000")
    flow.declare("other")
    with cloaca.DefaultRunner(store, retention="1h" if way == "retention" else "30d") as runner:
        assert runner.health()["ok"]
        if way == "prune":
            line = [
                sys.executable,
                "-m",
                "cloaca",
                "prune",
                "--database",
                str(store),
                "--before",
                "1h",
                "--yes",
            ]
            subprocess.run(line, check=True)
        assert eventually(lambda: runner.list_runs() == [])
        assert runner.query("SELECT count(*) AS n FROM ends") == [{"n": 0}]


def test_a_trigger_fails_by_its_row_also_once_its_ticks_are_forgotten(store: Path) -> None:
    """`cloaca doctor`, the overview and the metrics then agree."""

    def fails() -> bool:
        raise OSError("the share is gone")

    for name in ("a", "feed", "z"):
        cloaca.trigger(workflow="w", name=name, poll_interval="1h")(fails)
    # Its program ended: nobody polls it, and nothing of it is on record.
    cloaca.trigger(workflow="w", name="left", poll_interval="1h")(fails)
    with cloaca.DefaultRunner(store):
        pass
    cloaca.unregister_trigger("left")
    with cloaca.DefaultRunner(store) as runner, reading.Reader(store) as reader:
        runner.tick("feed")
        runner.tick("feed")
        change(store, "DELETE FROM ticks")
        (found,) = reading.unwell(reader, limit=1)
        assert isinstance(found, reading.Trigger)
        assert (found.trigger_name, found.state, found.failures, found.last) == ("feed", "failing", 2, None)
        assert {each.trigger_name: each.state for each in reading.unwell(reader)} == {
            "feed": "failing",
            "left": "unserved",
        }
        runner.set_trigger_enabled("feed", False)
        runner.set_trigger_enabled("feed", True)
        assert [each.trigger_name for each in reading.unwell(reader)] == ["left"]


def test_a_function_that_does_not_come_back_is_told_of_wherever_one_looks(store: Path) -> None:
    cloaca.trigger(workflow="w", name="polled", poll_interval="1h")(flow.nothing)
    cloaca.trigger(workflow="w", name="cron", cron="0 3 29 2 *")(flow.nothing)
    cloaca.trigger(workflow="w", name="heard", on_run="w")(flow.nothing)
    flow.declare("w", flow.nothing)
    names = ("polled", "cron", "heard")
    with cloaca.DefaultRunner(store) as runner, reading.Reader(store) as reader:
        assert eventually(lambda: len(runner.list_cron_schedules()) == 1)
        assert reading.unwell(reader) == []
        change(store, f"UPDATE schedules SET in_body_since = {NOW} - 300000000, owner = 1")
        found = {each.trigger_name: each.state for each in reading.unwell(reader)}
        assert found == dict.fromkeys(names, "hanging")
        for name in names:
            told = reading.why(reader, name)
            assert "is in its function since 20" in told
            assert "has not come back" in told
            others = ("next is due", "waits for a run to end", "runs next")
            assert [other for other in others if other in told] == []


def test_a_cron_fails_by_its_row_too(store: Path) -> None:
    def fails() -> bool:
        raise OSError("the share is gone")

    flow.declare("w", flow.nothing)
    cloaca.trigger(workflow="w", name="nightly", cron="0 3 29 2 *")(fails)
    with cloaca.DefaultRunner(store) as runner, reading.Reader(store) as reader:
        assert eventually(lambda: len(runner.list_cron_schedules()) == 1)
        assert reading.unwell(reader) == []
        change(store, "UPDATE schedules SET failures = 1 WHERE name = 'nightly'")
        (found,) = reading.unwell(reader)
        assert (found.trigger_name, found.state, found.last) == ("nightly", "failing", None)


def test_doctor_tells_of_a_trigger_that_fails_also_while_nobody_serves_it(store: Path) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def only(context: cloaca.Context) -> None:
            pass

    failed = threading.Event()

    @cloaca.trigger(workflow="w", poll_interval="1ms", on_poll_failed=lambda *_: failed.set())
    def broken() -> bool:
        raise OSError("the share is gone")

    with cloaca.DefaultRunner(store):
        assert failed.wait(30)
    with reading.Reader(store) as reader:
        texts = [each.text for each in reading.doctor(reader) if each.subject == "schedules"]
    assert texts == ["failing: 'broken'"]
