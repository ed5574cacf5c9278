"""What grows too old goes, and nothing else does: final runs, run keys, history."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from program import eventually, run_program

import cloaca
from cloaca import _cloaca, reading

SQL = """
    import sqlite3, sys
    database = sqlite3.connect(sys.argv[1])
    database.executescript(sys.argv[2])
    database.commit()
    database.close()
"""


def declare() -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)


def sql(path: Path, script: str) -> None:
    done = run_program(SQL, path, script)
    assert done.returncode == 0, done.stderr


def opened(path: Path, **settings: Any) -> cloaca.DefaultRunner:
    return cloaca.DefaultRunner.with_config(str(path), cloaca.DefaultRunnerConfig(**settings))


def count(runner: cloaca.DefaultRunner, table: str) -> int:
    return int(runner.query(f"SELECT count(*) AS n FROM {table}")[0]["n"])


def filled(path: Path, runs: int) -> None:
    with cloaca.DefaultRunner(str(path)) as runner:
        for run in runner.submit_many("w", [{}] * runs):
            run.result()


def test_more_than_one_step_of_old_runs_goes_with_their_tasks(tmp_path: Path) -> None:
    declare()
    filled(tmp_path / "a.db", 3000)
    with opened(tmp_path / "a.db", retention="1ms") as runner:
        assert eventually(lambda: count(runner, "runs") == 0)
        assert count(runner, "tasks") == 0
        assert runner.execute("w").status == "Completed"


def test_without_retention_runs_stay_and_old_history_and_run_keys_go(tmp_path: Path) -> None:
    declare()
    path = tmp_path / "a.db"
    filled(path, 1)
    month_us, now_us = 30 * 86_400_000_000, time.time_ns() // 1000
    ticks = ", ".join(
        f"(1, 'skip', 'r{n}', 1, {at}, {at}, 1, 1, 1)"
        for n, at in enumerate([now_us - month_us] * 3 + [now_us] * 5)
    )
    sql(
        path,
        "INSERT INTO ticks (schedule, outcome, reason, count, first_at, last_at, min_us, max_us, sum_us) "
        f"VALUES {ticks}; INSERT INTO run_keys (schedule, key, run, expires_at) VALUES "
        f"(1, 'over', 'x', {now_us - 1}), (1, 'stays', 'x', {now_us + month_us}), (1, 'ever', 'x', NULL);",
    )
    with opened(path, ticks_max=2) as runner:
        assert eventually(lambda: count(runner, "ticks") == 2 and count(runner, "run_keys") == 2)
        assert [row["reason"] for row in runner.query("SELECT reason FROM ticks ORDER BY row")] == [
            "r6",
            "r7",
        ]
        assert count(runner, "runs") == 1


def test_a_trigger_whose_answers_change_keeps_little_more_than_it_should(tmp_path: Path) -> None:
    declare()
    numbers = iter(range(10**9))

    @cloaca.trigger(workflow="w", name="changes", poll_interval="2ms")
    def changes() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip(str(next(numbers)))

    with opened(tmp_path / "a.db", ticks_max=5) as runner:
        assert eventually(lambda: count(runner, "ticks") > 1000)
        most = count(runner, "ticks")
        assert eventually(lambda: count(runner, "ticks") < most, seconds=60)


def test_a_clock_far_ahead_of_the_last_sign_of_life_makes_nothing_go(tmp_path: Path) -> None:
    declare()
    path = tmp_path / "a.db"
    filled(path, 2)
    year_us = 365 * 86_400_000_000
    sql(
        path,
        f"UPDATE runs SET created_at = created_at - {year_us}, completed_at = completed_at - {year_us};"
        f"UPDATE owners SET joined_at = joined_at - {year_us}, left_at = left_at - {year_us};",
    )
    for _ in range(2):
        with opened(path, retention="90d") as runner:
            assert eventually(lambda: count(runner, "meta WHERE name = 'spared_until'") == 1)
            assert count(runner, "runs") == 2
    sql(path, "DELETE FROM meta")
    with opened(path, retention="90d") as runner:
        # The last start was a moment ago: the clock is right.
        assert eventually(lambda: count(runner, "runs") == 0)


def test_nothing_goes_in_the_first_hour_after_an_upgrade(tmp_path: Path) -> None:
    declare()
    path = tmp_path / "a.db"
    path.write_bytes((Path(__file__).parents[2] / "rust/store/tests/fixtures/0001.db").read_bytes())
    with opened(path, retention="1ms") as runner:
        until_us = runner.query("SELECT value FROM meta WHERE name = 'spared_until'")[0]["value"]
        assert 3000e6 < until_us - time.time_ns() // 1000 <= 3600e6
        runs = count(runner, "runs")
        assert runs > 0
        assert runner.execute("w").status == "Completed"
        assert count(runner, "runs") == runs + 1


def test_a_run_that_is_no_longer_kept_says_so_on_every_road(tmp_path: Path) -> None:
    declare()
    path = tmp_path / "a.db"
    with cloaca.DefaultRunner(str(path)) as runner:
        run = runner.submit("w")
        assert run.result(30).status == "Completed"
        found = runner.run(run.id)
        sql(path, "DELETE FROM runs; DELETE FROM tasks;")
        assert run.status == "Completed", "what was seen stays"
        assert runner.list_runs() == []
        assert runner.get_run(run.id) is None
        roads: list[Callable[[], object]] = [
            lambda: found.status,
            lambda: found.result(0),
            lambda: found.result(),
            found.cancel,
            lambda: runner.cancel(run.id),
            lambda: runner.retry(run.id),
            lambda: runner.run(run.id),
        ]
        for road in roads:
            with pytest.raises(
                cloaca.WorkflowError, match=f"{run.id} is not (kept|there)|{run.id} not found"
            ):
                road()


def test_the_error_of_a_run_is_bounded_however_many_tasks_fail(runner: cloaca.DefaultRunner) -> None:
    def fails(context: cloaca.Context) -> None:
        raise ValueError("x" * 1_000_000)

    with cloaca.WorkflowBuilder("w"):
        for number in range(30):
            cloaca.task(id=f"t{number}", retry_attempts=1)(fails)
    run = runner.submit("w")
    error = run.result(60).error_message
    assert error is not None
    assert len(error) <= 16_384
    assert error.startswith("task 't0' failed: ValueError: xxx")
    assert "get_run" in error
    shown = runner.get_run(run.id)
    assert shown is not None
    assert all(10_000 < len(task["error"]) <= 17_000 for task in shown["tasks"])
    stored = runner.query("SELECT length(error) AS n FROM runs")[0]["n"]
    assert stored == len(error)


def test_the_error_of_one_long_exception_is_kept_whole_once(runner: cloaca.DefaultRunner) -> None:
    def fails(context: cloaca.Context) -> None:
        raise ValueError("x" * 10_000)

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", retry_attempts=1)(fails)
    run = runner.submit("w")
    run.result(60)
    lengths = runner.query("SELECT length(r.error) AS run, length(t.error) AS task FROM runs r, tasks t")[0]
    assert lengths["task"] > 10_000
    assert lengths["run"] < 2_000


@pytest.mark.parametrize("store", ["file", "server"])
def test_what_would_be_deleted_is_what_is_deleted(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "runs.db") if store == "file" else request.getfixturevalue("postgres_url")
    entered, leave = threading.Event(), threading.Event()

    def away(run: object) -> None:
        raise ConnectionError

    def hold(context: cloaca.Context) -> None:
        entered.set()
        assert leave.wait(20)

    def calls(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.runner.execute("w")
        handle.runner.submit("held")
        if context.get("waits"):
            hold(context)

    declare()
    for name, body in (("held", hold), ("calls", calls)):
        with cloaca.WorkflowBuilder(name):
            cloaca.task(id="t")(body)
    with cloaca.WorkflowBuilder("told").on_success(away):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner(url) as runner, closing(_cloaca.Client.open(url)) as client:
        for run in runner.submit_many("w", [{}] * 5):
            run.result()
        # Its key is in use; its callback waits; a run that it started goes on, and another one stays with
        # it; the run that started it goes on.
        runner.submit("w", run_key="order 7").result()
        runner.execute("told")
        runner.execute("calls")
        runner.submit("calls", {"waits": True})
        assert entered.wait(20)
        assert eventually(lambda: len(runner.list_runs(workflow="w", status="Completed")) == 8)
        before_us = int(time.time() * 1e6) + 10**12
        with reading.Reader(url) as reader:
            assert reader.native.ended_before(before_us, 100) == 10
            foretold = reader.native.prunable(before_us, 100)
            assert reader.native.prunable(before_us, 3) == 3
        assert foretold == 5
        gone = 0
        while step := client.prune(before_us):
            gone += step
        assert gone == foretold
        leave.set()


def test_a_step_of_pruning_is_short_whatever_there_is_to_prune(tmp_path: Path) -> None:
    """Between two steps who prunes hears a signal."""
    declare()
    filled(tmp_path / "a.db", 500)
    before_us = int(time.time() * 1e6) + 10**12
    with closing(_cloaca.Client.open(str(tmp_path / "a.db"))) as client:
        steps = []
        while step := client.prune(before_us):
            steps.append(step)
            if len(steps) == 1:
                # What ends amidst it goes as well, and what is to stay longer does not.
                filled(tmp_path / "a.db", 1)
                assert client.prune(0) == 0
        assert sum(steps) == 501
        assert max(steps) <= 200
