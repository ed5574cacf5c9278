"""One runner used by many threads at once: nothing is lost, nothing happens twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flow import declare
from program import eventually

import cloaca

WAIT = 30.0


def together(count: int, body: Callable[[int], object]) -> list[Any]:
    """What each of so many threads returned; they start at the same moment. Raises what one raised."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait(WAIT)
            results[number] = body(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize("where", [":memory:", "a.db"])
def test_sixteen_threads_that_execute_each_get_their_own_result(tmp_path: Path, where: str) -> None:
    declare("double", lambda context: context.set("twice", context["n"] * 2))
    with cloaca.DefaultRunner(where if where == ":memory:" else str(tmp_path / where)) as runner:

        def body(number: int) -> list[int]:
            numbers = range(number * 100, number * 100 + 20)
            return [runner.execute("double", {"n": n}).final_context["twice"] for n in numbers]

        assert together(16, body) == [[n * 2 for n in range(k * 100, k * 100 + 20)] for k in range(16)]
        assert runner.query("SELECT status, count(*) AS n FROM runs GROUP BY status") == [
            {"status": "Completed", "n": 320}
        ]
        assert runner.stats()["runs_completed"] == 320


def test_threads_that_submit_and_wait_elsewhere_lose_no_run(runner: cloaca.DefaultRunner) -> None:
    declare("good", lambda context: None)
    runs = [
        run
        for made in together(8, lambda k: [runner.submit("good", {"k": k}) for _ in range(25)])
        for run in made
    ]
    assert len({run.id for run in runs}) == 200
    results = together(8, lambda k: [run.result(WAIT).status for run in runs[k::8]])
    assert {status for some in results for status in some} == {"Completed"}
    assert len(runner.list_runs(limit=1000)) == 200


def test_eight_threads_that_fire_an_equal_context_leave_one_unfinished_run(
    runner: cloaca.DefaultRunner,
) -> None:
    go = threading.Event()
    declare("gated", lambda context: go.wait(WAIT) and None)
    polls = []

    @cloaca.trigger(workflow="gated", poll_interval="24h")
    def watcher() -> cloaca.TriggerResult:
        polls.append(1)
        return cloaca.TriggerResult.fire({"same": 1})

    for round_number in range(1, 4):
        told = together(8, lambda k: [runner.tick("watcher") for _ in range(5)])
        assert {tick["outcome"] for made in told for tick in made} <= {"fire", "skip"}
        assert len(runner.query("SELECT id FROM runs WHERE completed_at IS NULL")) == 1
        assert len(runner.list_runs()) == round_number
        go.set()
        assert eventually(lambda: not runner.query("SELECT id FROM runs WHERE completed_at IS NULL"))
        go.clear()
    assert len(polls) == 120
    stats = runner.stats()
    assert (stats["fires"], stats["deduplicated"]) == (120, 117)
    go.set()


def test_eight_threads_that_fire_one_run_key_start_one_run(runner: cloaca.DefaultRunner) -> None:
    declare("good", lambda context: None)
    numbers = iter(range(1_000_000))

    @cloaca.trigger(workflow="good", poll_interval="24h", allow_concurrent=True)
    def watcher() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({"n": next(numbers)}, run_key="only one")

    together(8, lambda k: [runner.tick("watcher") for _ in range(10)])
    assert len(runner.list_runs()) == 1
    assert runner.stats()["deduplicated"] == 79


def test_eight_threads_with_concurrency_allowed_start_a_run_for_each_fire(
    runner: cloaca.DefaultRunner,
) -> None:
    declare("good", lambda context: None)
    cloaca.trigger(workflow="good", name="watcher", poll_interval="24h", allow_concurrent=True)(lambda: True)
    together(8, lambda k: [runner.tick("watcher") for _ in range(10)])
    assert len(runner.list_runs(limit=1000)) == 80


def test_a_cursor_loses_no_step_when_eight_threads_tick(runner: cloaca.DefaultRunner) -> None:
    declare("good", lambda context: None)

    @cloaca.trigger(workflow="good", poll_interval="24h")
    def counter(tick: cloaca.Tick) -> cloaca.TriggerResult:
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor})

    together(8, lambda k: [runner.tick("counter") for _ in range(10)])
    assert runner.query("SELECT cursor FROM schedules WHERE name = 'counter'") == [{"cursor": "80"}]
    assert sorted(row["context"]["n"] for row in runner.list_runs(limit=1000)) == list(range(1, 81))


def test_a_hand_tick_and_the_poller_are_never_in_one_body_at_once(runner: cloaca.DefaultRunner) -> None:
    inside, most = 0, 0
    lock = threading.Lock()
    polls = []

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def watcher() -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        polls.append(1)
        with lock:
            inside -= 1
        return False

    together(8, lambda k: [runner.tick("watcher") for _ in range(20)])
    assert most == 1
    assert len(polls) >= 160


def test_one_schedule_is_made_when_many_threads_register_the_same(runner: cloaca.DefaultRunner) -> None:
    declare("good", lambda context: None)
    ids = together(8, lambda k: runner.register_cron_workflow("good", "0 0 1 1 *", "UTC"))
    assert len(set(ids)) == 1
    assert len(runner.list_cron_schedules()) == 1


def test_switching_from_many_threads_leaves_one_of_both_states(runner: cloaca.DefaultRunner) -> None:
    polled = threading.Event()
    cloaca.trigger(workflow="good", name="watcher", poll_interval="1ms")(lambda: bool(polled.set()))
    together(8, lambda k: [runner.set_trigger_enabled("watcher", (k + n) % 2 == 0) for n in range(20)])
    row = runner.get_trigger_schedule("watcher")
    assert row is not None
    if not row["enabled"]:
        runner.set_trigger_enabled("watcher", True)
    polled.clear()
    assert polled.wait(WAIT), "the switch in memory differs from the one in the store"


def test_declaring_while_others_run_disturbs_neither(runner: cloaca.DefaultRunner) -> None:
    declare("steady", lambda context: context.set("ran", True))

    def body(number: int) -> None:
        for n in range(20):
            if number % 2:
                name = f"new-{number}-{n}"
                with cloaca.WorkflowBuilder(name):
                    cloaca.task(id="only")(lambda context, name=name: context.set("name", name))
                assert runner.execute(name).final_context == {"name": name}
            else:
                assert runner.execute("steady").final_context == {"ran": True}

    together(8, body)


def test_every_call_may_be_made_while_runs_go_on(tmp_path: Path) -> None:
    declare("good", lambda context: None)
    cloaca.trigger(workflow="good", name="watcher", poll_interval="1ms", allow_concurrent=True)(lambda: True)
    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        cron = runner.register_cron_workflow("good", "0 0 1 1 *", "UTC")
        calls: list[Callable[[], object]] = [
            lambda: runner.execute("good"),
            lambda: runner.list_runs(limit=5),
            lambda: runner.get_trigger_execution_history("watcher", limit=5),
            lambda: runner.query("SELECT count(*) FROM tasks"),
            lambda: runner.update_cron_schedule(cron, "0 0 2 1 *", "UTC"),
            lambda: runner.why("watcher"),
            lambda: runner.stats(),
            lambda: runner.ticks("watcher"),
        ]
        together(8, lambda k: [calls[k]() for _ in range(15)])
        assert eventually(lambda: runner.stats()["polls"] > 20)


def test_shutdown_while_threads_execute_lets_each_end_with_a_result_or_a_runner_error(tmp_path: Path) -> None:
    declare("good", lambda context: None)
    url = str(tmp_path / "a.db")
    runner = cloaca.DefaultRunner(url)
    begun = threading.Semaphore(0)

    def body(number: int) -> int:
        done = 0
        if number == 0:
            for _ in range(20):
                assert begun.acquire(timeout=WAIT)
            runner.shutdown()
            return 0
        try:
            while True:
                runner.execute("good")
                done += 1
                begun.release()
        except cloaca.RunnerError:
            return done

    done = sum(together(8, body))
    with cloaca.DefaultRunner(url) as after:
        assert eventually(lambda: not after.query("SELECT id FROM runs WHERE completed_at IS NULL"))
        rows = after.query("SELECT status, count(*) AS n FROM runs GROUP BY status")
        assert [row["status"] for row in rows] == ["Completed"]
        assert rows[0]["n"] >= done >= 20


def test_a_thread_local_of_a_worker_lasts_from_task_to_task() -> None:
    local = threading.local()
    seen = []

    def body(context: cloaca.Context) -> None:
        local.count = getattr(local, "count", 0) + 1
        seen.append(local.count)

    declare("counts", body)
    settings = cloaca.DefaultRunnerConfig(max_concurrent_tasks=1)
    with cloaca.DefaultRunner.with_config(":memory:", settings) as runner:
        for _ in range(10):
            runner.execute("counts")
    assert max(seen) > 1, "each task got a thread of its own"
