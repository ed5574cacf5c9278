"""The rows of triggers: listing them, switching them, and the history of what they fired."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

import pytest
from program import eventually, run_program

import cloaca
import cloaca.testing

WAIT = 20.0
KEYS = [
    "id",
    "trigger_name",
    "workflow_name",
    "poll_interval_ms",
    "allow_concurrent",
    "enabled",
    "last_poll_at",
    "created_at",
    "updated_at",
    "disabled_at",
    "on_run",
    "on_run_status",
    "polled_by",
    "next_poll_at",
    "late_since",
    "in_body_since",
    "declared",
]
HISTORY_KEYS = [
    "id",
    "schedule_id",
    "context_hash",
    "workflow_execution_id",
    "started_at",
    "completed_at",
    "created_at",
]


def declare_workflow(name: str = "good") -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only")(lambda context: None)


def declare_trigger(name: str, interval: str = "24h", **settings: object) -> None:
    settings.setdefault("workflow", "good")
    cloaca.trigger(name=name, poll_interval=interval, **settings)(lambda: False)  # type: ignore[call-overload]


def schedule_of(runner: cloaca.DefaultRunner, name: str) -> dict[str, object]:
    row = runner.get_trigger_schedule(name)
    assert row is not None
    return row


def test_every_declared_trigger_has_a_row_with_its_settings(runner: cloaca.DefaultRunner) -> None:
    declare_trigger("b", "1h", allow_concurrent=True)
    declare_trigger("a", "1m", workflow="other")
    rows = runner.list_trigger_schedules()
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [row["trigger_name"] for row in rows] == ["b", "a"]
    assert [row["workflow_name"] for row in rows] == ["good", "other"]
    assert [row["poll_interval_ms"] for row in rows] == [3_600_000, 60_000]
    assert [row["allow_concurrent"] for row in rows] == [True, False]
    assert [row["enabled"] for row in rows] == [True, True]
    assert [row["last_poll_at"] for row in rows] == [None, None]
    assert datetime.fromisoformat(rows[0]["created_at"]).tzinfo is not None
    again = schedule_of(runner, "b")
    # It is told from two clocks, which may differ by a microsecond from one look to the next.
    assert {**again, "next_poll_at": None} == {**rows[0], "next_poll_at": None}


def test_a_trigger_declared_before_the_runner_has_a_row() -> None:
    declare_trigger("early")
    with cloaca.DefaultRunner(":memory:") as runner:
        assert schedule_of(runner, "early")["workflow_name"] == "good"


def test_an_unknown_trigger_has_no_row_and_no_history(runner: cloaca.DefaultRunner) -> None:
    assert runner.get_trigger_schedule("nope") is None
    assert runner.get_trigger_execution_history("nope") == []
    assert runner.list_trigger_schedules() == []


def test_switching_an_unknown_trigger_is_told_with_those_that_exist(runner: cloaca.DefaultRunner) -> None:
    declare_trigger("watcher")
    with pytest.raises(ValueError, match=r"'nope'.*watcher"):
        runner.set_trigger_enabled("nope", True)


def test_only_enabled_triggers_are_listed_when_asked(runner: cloaca.DefaultRunner) -> None:
    for name in "abc":
        declare_trigger(name)
    runner.set_trigger_enabled("b", False)

    def names(enabled_only: bool | None) -> list[str]:
        return [row["trigger_name"] for row in runner.list_trigger_schedules(enabled_only)]

    assert names(True) == ["a", "c"]
    assert names(False) == names(None) == ["a", "b", "c"]


def test_pages_of_triggers_follow_each_other_and_hold_100_by_default(runner: cloaca.DefaultRunner) -> None:
    names = [f"trigger-{n:03}" for n in range(105)]
    for name in names:
        declare_trigger(name)
    assert [row["trigger_name"] for row in runner.list_trigger_schedules()] == names[:100]
    rows = runner.list_trigger_schedules(limit=10, offset=98)
    assert [row["trigger_name"] for row in rows] == names[98:]
    assert runner.list_trigger_schedules(limit=0) == []


def test_a_disabled_trigger_is_not_polled_and_an_enabled_one_again() -> None:
    polls = []
    cloaca.trigger(workflow="good", name="watcher", poll_interval="1m")(lambda: bool(polls.append(1)))
    with cloaca.testing.Runner() as runner:
        runner.advance("3m")
        assert len(polls) == 3
        runner.set_trigger_enabled("watcher", False)
        assert schedule_of(runner, "watcher")["enabled"] is False
        runner.advance("1h")
        assert len(polls) == 3
        runner.set_trigger_enabled("watcher", True)
        assert len(polls) == 3
        runner.advance("3m")
        assert len(polls) == 6


def test_switching_changes_when_that_was_and_nothing_else() -> None:
    declare_trigger("watcher")
    with cloaca.testing.Runner() as runner:
        before = schedule_of(runner, "watcher")
        runner.advance("5m")
        runner.set_trigger_enabled("watcher", False)
        after = schedule_of(runner, "watcher")
        at = "2026-01-01T00:05:00.000000Z"
        off = {"enabled": False, "updated_at": at, "disabled_at": at, "next_poll_at": None}
        assert after == before | off


def test_a_trigger_may_switch_itself_off_and_the_poll_that_did_so_still_counts() -> None:
    polls = []

    @cloaca.trigger(workflow="good", poll_interval="1m")
    def once(tick: cloaca.Tick) -> bool:
        polls.append(tick.cursor)
        tick.cursor = 1
        runner.set_trigger_enabled("once", False)
        return True

    declare_workflow()
    with cloaca.testing.Runner() as runner:
        runner.advance("1h")
        assert polls == [None]
        assert len(runner.fired("good")) == 1
        runner.set_trigger_enabled("once", True)
        runner.advance("1h")
        assert polls == [None, 1]


def test_a_trigger_may_declare_itself_anew_and_the_poll_that_did_so_still_counts() -> None:
    polls = []

    def declare(interval: str) -> None:
        @cloaca.trigger(workflow="good", poll_interval=interval, name="restless")
        def restless(tick: cloaca.Tick) -> cloaca.TriggerResult:
            polls.append(tick.cursor)
            tick.cursor = len(polls)
            if len(polls) < 4:
                declare("2m")
            return cloaca.TriggerResult.fire({"n": len(polls)})

    declare_workflow()
    declare("1m")
    with cloaca.testing.Runner() as runner:
        runner.advance("9m")
        assert polls[:4] == [None, 1, 2, 3]
        assert [run["n"] for run in runner.fired("good")][:4] == [1, 2, 3, 4]


def test_a_trigger_declared_again_while_its_body_runs_is_not_polled_beside_it() -> None:
    entered, leave = threading.Event(), threading.Event()
    together: list[int] = []
    running = []

    def body() -> bool:
        running.append(1)
        together.append(len(running))
        entered.set()
        leave.wait(30)
        running.pop()
        return True

    declare_workflow()
    cloaca.trigger(workflow="good", poll_interval="1ms", name="slow")(body)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert entered.wait(30)
        for _ in range(5):
            cloaca.trigger(workflow="good", poll_interval="1ms", name="slow")(lambda: body())
        entered.clear()
        assert not entered.wait(0.05), "the new declaration is polled beside the old body"
        leave.set()
        assert entered.wait(30), "the new one is polled once the old one is back"
        assert eventually(lambda: runner.stats()["fires"] >= 2)
    assert set(together) == {1}


def test_last_poll_at_moves_with_each_poll() -> None:
    declare_trigger("watcher", "1m")
    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
        assert schedule_of(runner, "watcher")["last_poll_at"] == "2026-01-01T00:01:00.000000Z"
        runner.advance("1m")
        assert schedule_of(runner, "watcher")["last_poll_at"] == "2026-01-01T00:02:00.000000Z"


def test_switching_is_kept_across_restarts(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    declare_trigger("off", "1ms")
    declare_trigger("on", "1ms")
    with cloaca.DefaultRunner(url) as runner:
        runner.set_trigger_enabled("off", False)
        ids = {row["trigger_name"]: row["id"] for row in runner.list_trigger_schedules()}
    polled = threading.Event()
    polls = []
    cloaca.trigger(workflow="good", name="off", poll_interval="1ms")(lambda: bool(polls.append(1)))
    cloaca.trigger(workflow="good", name="on", poll_interval="1ms")(lambda: bool(polled.set()))
    with cloaca.DefaultRunner(url) as runner:
        rows = runner.list_trigger_schedules()
        assert {row["trigger_name"]: row["enabled"] for row in rows} == {"off": False, "on": True}
        assert {row["trigger_name"]: row["id"] for row in rows} == ids
        for _ in range(20):
            polled.clear()
            assert polled.wait(WAIT)
        assert polls == []
        runner.set_trigger_enabled("off", True)
    with cloaca.DefaultRunner(url) as runner:
        assert schedule_of(runner, "off")["enabled"] is True


def test_enabling_right_after_opening_is_not_lost(tmp_path: Path) -> None:
    polled = threading.Event()
    for number in range(30):
        url = str(tmp_path / f"{number}.db")
        cloaca.trigger(workflow="good", name="watcher", poll_interval="1ms")(lambda: bool(polled.set()))
        with cloaca.DefaultRunner(url) as runner:
            runner.set_trigger_enabled("watcher", False)
        polled.clear()
        with cloaca.DefaultRunner(url) as runner:
            assert schedule_of(runner, "watcher")["enabled"] is False
            runner.set_trigger_enabled("watcher", True)
            assert polled.wait(5), runner.why("watcher")


def test_switching_is_kept_when_the_process_dies_at_once(tmp_path: Path) -> None:
    url = tmp_path / "a.db"
    program = """
        import os, sys
        import cloaca
        cloaca.trigger(workflow="good", name="watcher", poll_interval="24h")(lambda: False)
        cloaca.DefaultRunner(sys.argv[1]).set_trigger_enabled("watcher", False)
        os._exit(9)
    """
    assert run_program(program, url).returncode == 9
    declare_trigger("watcher")
    with cloaca.DefaultRunner(str(url)) as runner:
        assert schedule_of(runner, "watcher")["enabled"] is False


def test_a_trigger_declared_again_keeps_its_row_and_takes_its_new_settings(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    declare_trigger("watcher", "1h")
    with cloaca.DefaultRunner(url) as runner:
        runner.set_trigger_enabled("watcher", False)
        before = schedule_of(runner, "watcher")
        declare_trigger("watcher", "2h", workflow="other", allow_concurrent=True)
        after = schedule_of(runner, "watcher")
        assert len(runner.list_trigger_schedules()) == 1
    assert after["id"] == before["id"]
    assert after["created_at"] == before["created_at"]
    assert (after["workflow_name"], after["poll_interval_ms"]) == ("other", 7_200_000)
    assert (after["allow_concurrent"], after["enabled"]) == (True, False)
    declare_trigger("watcher", "3h")
    with cloaca.DefaultRunner(url) as runner:
        again = schedule_of(runner, "watcher")
    assert (again["id"], again["poll_interval_ms"], again["enabled"]) == (before["id"], 10_800_000, False)


def test_a_trigger_declared_again_is_polled_by_its_new_function_only() -> None:
    old, new = [], []
    cloaca.trigger(workflow="good", name="watcher", poll_interval="1m")(lambda: bool(old.append(1)))
    with cloaca.testing.Runner() as runner:
        runner.advance("2m")
        cloaca.trigger(workflow="good", name="watcher", poll_interval="10s")(lambda: bool(new.append(1)))
        runner.advance("1m")
    assert (len(old), len(new)) == (2, 6)


def test_a_trigger_that_is_no_longer_declared_stays_listed_and_why_tells(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    declare_trigger("gone")
    with cloaca.DefaultRunner(url):
        pass
    cloaca.registry.clear()
    with cloaca.DefaultRunner(url) as runner:
        assert [row["trigger_name"] for row in runner.list_trigger_schedules()] == ["gone"]
        assert "does not declare" in runner.why("gone")
        with pytest.raises(ValueError, match="gone"):
            runner.tick("gone")


def test_a_cron_trigger_is_a_cron_schedule_and_not_polled(runner: cloaca.DefaultRunner) -> None:
    cloaca.trigger(workflow="good", name="nightly", cron="0 2 * * *", timezone="Europe/Berlin")(lambda: False)
    assert runner.list_trigger_schedules() == []
    (row,) = runner.list_cron_schedules()
    assert (row["workflow_name"], row["cron_expression"], row["timezone"]) == (
        "good",
        "0 2 * * *",
        "Europe/Berlin",
    )


def test_history_tells_each_run_that_was_fired_newest_first() -> None:
    declare_workflow()
    fire = cloaca.TriggerResult.fire
    answers = [fire({"a": 1, "b": 2}), cloaca.TriggerResult.skip(), fire({"b": 2, "a": 1}), fire({"a": 2})]
    cloaca.trigger(workflow="good", name="watcher", poll_interval="1m")(lambda: answers.pop(0))
    with cloaca.testing.Runner() as runner:
        runner.execute("good", {"by": "hand"})
        runner.advance("4m")
        history = runner.get_trigger_execution_history("watcher")
        schedule = schedule_of(runner, "watcher")
        runs = {row["id"]: row for row in runner.list_runs(trigger="watcher")}
    assert [list(row) for row in history] == [HISTORY_KEYS] * 3
    assert [row["created_at"][11:19] for row in history] == ["00:04:00", "00:03:00", "00:01:00"]
    assert {row["schedule_id"] for row in history} == {schedule["id"]}
    newest, middle, oldest = history
    assert middle["context_hash"] == oldest["context_hash"] != newest["context_hash"]
    assert len(newest["context_hash"]) >= 32
    contexts = [runs[row["workflow_execution_id"]]["context"] for row in history]
    assert contexts == [{"a": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2}]
    assert all(row["started_at"] and row["completed_at"] for row in history)


def test_pages_of_history_follow_each_other() -> None:
    declare_workflow()
    cloaca.trigger(workflow="good", name="watcher", poll_interval="1m", allow_concurrent=True)(
        lambda: [cloaca.TriggerResult.fire() for _ in range(21)]
    )
    with cloaca.testing.Runner() as runner:
        runner.advance("5m")
        whole = runner.get_trigger_execution_history("watcher", limit=1000)
        assert len(whole) == 105
        assert runner.get_trigger_execution_history("watcher") == whole[:100]
        assert runner.get_trigger_execution_history("watcher", limit=3, offset=4) == whole[4:7]
        assert runner.get_trigger_execution_history("watcher", offset=104) == whole[104:]
        assert runner.get_trigger_execution_history("watcher", limit=0) == []


def test_the_history_of_a_run_under_way_has_no_end() -> None:
    entered, go = threading.Event(), threading.Event()
    with cloaca.WorkflowBuilder("gated"):
        cloaca.task(id="only")(lambda context: entered.set() or (go.wait(WAIT) and None))
    cloaca.trigger(workflow="gated", name="watcher", poll_interval="24h")(lambda: True)
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.tick("watcher")
        assert entered.wait(WAIT)
        (row,) = runner.get_trigger_execution_history("watcher")
        go.set()
    assert row["started_at"] is not None
    assert row["completed_at"] is None


def test_a_trigger_without_a_workflow_fires_errors_only() -> None:
    cloaca.trigger(name="aimless", poll_interval="1m")(lambda: True)
    with cloaca.testing.Runner() as runner:
        runner.advance("1m")
        (tick,) = runner.ticks("aimless")
        assert tick["outcome"] == "error"
        assert "workflow" in tick["reason"]
        assert runner.list_runs() == []
        assert runner.get_trigger_execution_history("aimless") == []
        assert schedule_of(runner, "aimless")["workflow_name"] in ("", None)


def test_too_many_failures_in_a_row_switch_a_trigger_off_for_good(tmp_path: Path) -> None:
    polls = []

    @cloaca.trigger(
        workflow="good",
        poll_interval="1ms",
        max_consecutive_failures=3,
        on_error=cloaca.Backoff(base="1ms", factor=1, max="1ms"),
    )
    def broken() -> bool:
        polls.append(1)
        raise ValueError("boom")

    url = str(tmp_path / "a.db")
    with cloaca.DefaultRunner(url) as runner:
        assert eventually(lambda: schedule_of(runner, "broken")["enabled"] is False)
        assert len(polls) == 3
        assert "boom" in runner.why("broken")
    with cloaca.DefaultRunner(url) as runner:
        assert schedule_of(runner, "broken")["enabled"] is False
        assert "boom" in runner.why("broken")
        assert len(polls) == 3
        runner.set_trigger_enabled("broken", True)
        assert eventually(lambda: schedule_of(runner, "broken")["enabled"] is False)
        assert len(polls) == 6
