"""`@trigger(executor=...)`: polls in other processes, what travels, and what happens when a place dies."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import poll_bodies as bodies
import pytest
from process_bodies import WAIT, is_gone, lives, read_pids

import cloaca
import cloaca.testing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no signals")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where bodies leave word. The processes of a pool know it from when they began."""
    path = tmp_path_factory.mktemp("word")
    os.environ[bodies.FOLDER] = os.fspath(path)
    yield path
    del os.environ[bodies.FOLDER]


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[cloaca.ProcessExecutor]:
    with cloaca.ProcessExecutor(max_workers=2, kill_grace=0.2) as pool:
        # Started before any time counts.
        pool.submit(os.getpid).result(WAIT)
        yield pool


@pytest.fixture(autouse=True)
def workflow(folder: Path) -> None:
    for left in folder.iterdir():
        left.unlink()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)


def declare(function: Callable[..., Any], **keywords: Any) -> None:
    given = {"workflow": "w", "executor": "cpu", "poll_interval": "1h", "name": "x", **keywords}
    cloaca.trigger(**given)(function)


def over(shared: Executor, **settings: Any) -> cloaca.DefaultRunner:
    return cloaca.DefaultRunner(":memory:", executors={"cpu": shared}, **settings)


def eventually(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    return found


def errors(runner: cloaca.DefaultRunner) -> list[str]:
    return [tick["reason"] for tick in runner.ticks("x") if tick["outcome"] == "error"]


# What travels


def test_a_poll_is_made_elsewhere_and_its_fire_and_cursor_come_back(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.counts, poll_interval="20ms")
    with over(shared) as runner:
        eventually(lambda: len(runner.list_runs(status="Completed")) >= 3)
        rows = sorted(
            (runner.get_run(row["id"])["final_context"] for row in runner.list_runs()),  # type: ignore[index]
            key=lambda context: context["number"],
        )
        assert [row["number"] for row in rows[:3]] == [1, 2, 3]
        assert {row["trigger"] for row in rows} == {"x"}
        assert os.getpid() not in {row["pid"] for row in rows}
        first, second = rows[:2]
        assert first["current"] == ["x", None, None]
        assert (first["fired"], first["failures"], first["error"]) == (None, 0, None)
        assert first["due"] <= second["fired"] <= second["due"]
        assert "keep in tick.cursor" in first["last_run"]
        assert "in the process of a pool" in first["runner"]
        assert runner.cursor("x") >= 3


def test_a_tick_by_hand_is_made_elsewhere_too(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.counts)
    with over(shared, max_concurrent_tasks=1) as runner:
        assert runner.tick("x", dry_run=True)["fires"][0]["context"]["number"] == 1
        assert runner.cursor("x") is None
        told = runner.tick("x")
        assert (told["fires"][0]["context"]["number"], runner.cursor("x")) == (1, 1)
        assert told["fires"][0]["context"]["pid"] != os.getpid()
        assert runner.tick("x")["fires"][0]["context"]["number"] == 2


def test_a_coroutine_and_a_generator_are_completed_there(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.awaits)
    declare(bodies.gives, name="y")
    with over(shared) as runner:
        told = runner.tick("x")
        assert [fire["context"]["n"] for fire in told["fires"]] == [0, 1]
        assert told["fires"][0]["context"]["pid"] != os.getpid()
        told = runner.tick("y")
        # What it gave before it broke off counts.
        assert [fire["context"]["n"] for fire in told["fires"]] == [0, 1]
        assert "ConnectionError: gone" in str(told)
        assert runner.cursor("y") == 1


def test_what_goes_wrong_there_is_told_as_if_it_had_gone_wrong_here(
    shared: cloaca.ProcessExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, str, int]] = []
    told = threading.Event()

    def hear(name: str, error: str, failures: int) -> None:
        heard.append((name, error, failures))
        told.set()

    declare(bodies.raises, poll_at_start=True, on_poll_failed=hear)
    with over(shared) as runner:
        assert told.wait(WAIT)
        assert heard == [("x", "ValueError: of it", 1)]
        # It is told before it is on record.
        eventually(lambda: errors(runner) == ["ValueError: of it"])
    record = next(record for record in caplog.records if "trigger 'x' raised" in record.getMessage())
    text = logging.Formatter().format(record)
    assert "poll_bodies.py" in text
    assert 'raise ValueError("of it")' in text


def test_an_answer_that_is_none_and_a_wish_travel(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.says_nothing)
    declare(bodies.later, name="y")
    with over(shared) as runner:
        assert "it returned None; if there is nothing to do" in str(runner.tick("x")["reason"])
        told = runner.tick("y")
        assert (told["outcome"], told["reason"]) == ("skip", "retry after 2h")


def test_a_function_that_was_replaced_fails_its_poll(
    shared: cloaca.ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(bodies.yes)
    monkeypatch.setattr(bodies, "yes", None)
    with over(shared) as runner:
        error = str(runner.tick("x")["reason"])
        assert 'TriggerError: trigger "x" is to be found as poll_bodies:yes, which is None' in error
        assert "put that below @trigger" in error


def test_a_cron_decides_its_moments_there(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.decides, cron="* * * * * *", poll_interval=None)
    with over(shared) as runner:
        (run,) = eventually(lambda: runner.list_runs(status="Completed")[-1:])
        assert run["context"]["pid"] != os.getpid()
        assert run["context"]["at"] == run["context"]["scheduled_time"]
        assert runner.tick("x", dry_run=True)["fires"][0]["context"]["pid"] != os.getpid()


# What is refused where it is declared


def test_what_nobody_finds_by_name_is_refused_where_it_is_declared() -> None:
    def within() -> bool:
        return True

    for function, why in ((lambda: True, "a lambda has none"), (within, "is defined within")):
        with pytest.raises(cloaca.TriggerError, match=why) as raised:
            declare(function)
        assert 'trigger "x" runs in executor "cpu"' in str(raised.value)
        assert "leave executor out" in str(raised.value)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"executor": "thread"}, 'executor is "thread"; an async trigger is polled on the loop'),
        ({"executor": "loop"}, "or name one of DefaultRunner"),
        ({"executor": ""}, "executor"),
        ({"executor": 7}, "executor is 7"),
        ({"cron": "* * * * *", "poll_interval": None}, "called only if it has a parameter"),
    ],
)
def test_bad_executors_are_named(keywords: dict[str, Any], text: str) -> None:
    with pytest.raises(cloaca.TriggerError, match=text):
        declare(bodies.yes, **keywords)


def test_a_runner_without_the_executor_refuses_the_trigger(shared: cloaca.ProcessExecutor) -> None:
    declare(bodies.yes)
    with pytest.raises(
        cloaca.TriggerError, match='"cpu", which this runner does not have; did you mean'
    ) as no:
        cloaca.DefaultRunner(":memory:", executors={"cpus": shared})
    assert "or leave the trigger to another runner by triggers=[...]" in str(no.value)
    with cloaca.DefaultRunner(":memory:", triggers=[]) as runner:
        assert runner.execute("w").status == "Completed"


# A place that dies, a poll that hangs, a runner that ends


def test_a_death_of_the_place_is_a_failed_poll_with_its_wait(
    folder: Path, shared: cloaca.ProcessExecutor
) -> None:
    declare(bodies.dies_once, poll_interval="20ms", on_error=cloaca.Backoff("20ms"))
    with over(shared) as runner:
        eventually(lambda: (folder / "again").exists())
        (error,) = set(errors(runner))
        assert error.startswith("executor 'cpu' lost it: ProcessLost")
    assert (folder / "again").read_text() == error


def test_a_poll_over_its_time_is_killed_and_its_trigger_polled_again(
    folder: Path, shared: cloaca.ProcessExecutor
) -> None:
    # To start a process counts, too.
    shared.submit(os.getpid).result(WAIT)
    declare(bodies.hangs_once, poll_interval="20ms", poll_timeout="3s", on_error=cloaca.Backoff("20ms"))
    with over(shared) as runner:
        (pid,) = read_pids(folder, 1)
        eventually(lambda: (folder / "again").exists())
        # Not before the first one was gone.
        assert not lives(pid)
        assert errors(runner) == [
            "TimeoutError: timed out after 3s; it is polled again when its body returns"
        ]


@pytest.mark.parametrize("how", ["polled", "by hand"])
def test_a_runner_that_ends_amidst_a_poll_leaves_no_process_and_no_trace(
    how: str, tmp_path: Path, folder: Path
) -> None:
    declare(bodies.hangs, poll_at_start=how == "polled")
    pools = {"cpu": lambda: cloaca.ProcessExecutor(max_workers=1, kill_grace=0.2)}
    runner = cloaca.DefaultRunner(os.fspath(tmp_path / "a.db"), executors=pools)
    raised: list[BaseException] = []

    def tick() -> None:
        try:
            runner.tick("x")
        except cloaca.RunnerError as error:
            raised.append(error)

    asks = threading.Thread(target=tick)
    if how == "by hand":
        asks.start()
    (pid,) = read_pids(folder, 1)
    runner.shutdown(0.2)
    assert is_gone(pid)
    if how == "by hand":
        asks.join(WAIT)
        assert "the runner shuts down" in str(raised[0])
    cloaca.unregister_trigger("x")
    with cloaca.DefaultRunner(os.fspath(tmp_path / "a.db")) as runner:
        assert runner.ticks("x") == []


def test_a_broken_pool_is_made_anew_by_its_factory(folder: Path) -> None:
    declare(bodies.dies_once, poll_interval="20ms", on_error=cloaca.Backoff("20ms"))
    made: list[ProcessPoolExecutor] = []

    def factory() -> Executor:
        import multiprocessing

        made.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        return made[-1]

    with cloaca.DefaultRunner(":memory:", executors={"cpu": factory}):
        eventually(lambda: (folder / "again").exists())
    assert len(made) == 2


def test_threads_of_the_program_are_an_executor_too() -> None:
    declare(bodies.counts)
    with ThreadPoolExecutor(1) as pool, over(pool) as runner:
        told = runner.tick("x")
        assert (told["fires"][0]["context"]["pid"], runner.cursor("x")) == (os.getpid(), 1)


def test_a_test_runner_needs_no_processes() -> None:
    declare(bodies.awaits, poll_interval="1s")
    with cloaca.testing.Runner() as runner:
        runner.advance("2s")
        assert {row["context"]["pid"] for row in runner.list_runs()} == {os.getpid()}
