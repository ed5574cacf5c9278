"""`Limit`: attempts of tasks share its seats and its throttle, in all workflows, runners and processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, Gate, declare
from program import eventually, start_program

import cloaca
import cloaca.testing
from cloaca import Limit, Throttle


class Crowd:
    """A task body that counts how many are in it, and stays until it is let go."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.order: list[Any] = []

    def __call__(self, context: cloaca.Context) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(context.get("n"))
        self.entered.release()
        assert self.leave.acquire(timeout=WAIT)
        with self.lock:
            self.now -= 1

    def wait(self, many: int) -> None:
        """Until so many more are in it."""
        for _ in range(many):
            assert self.entered.acquire(timeout=WAIT)


def limit_of(runner: Any, name: str = "api") -> Any:
    return next(row for row in runner.list_limits() if row["name"] == name)


def waiting(runner: cloaca.DefaultRunner, many: int, name: str = "api") -> bool:
    return eventually(lambda: limit_of(runner, name)["waiting"] == many)


def test_no_more_attempts_than_seats_whatever_their_workflows() -> None:
    crowd, api = Crowd(), Limit("api", concurrency=2)
    declare("one", crowd, limits=[api])
    declare("two", crowd, limits=[api])
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=8) as runner:
        runs = [runner.submit(name, {"n": n}) for n in range(4) for name in ("one", "two")]
        crowd.wait(2)
        assert waiting(runner, 6)
        assert limit_of(runner) == {
            "name": "api",
            "concurrency": 2,
            "throttle": None,
            "is_set": False,
            "taken": 2,
            "waiting": 6,
            "waits_since": limit_of(runner)["waits_since"],
            "next_at": None,
            "pause": None,
        }
        crowd.leave.release(8)
        assert {run.result(WAIT).status for run in runs} == {"Completed"}
        assert crowd.most == 2
        assert (limit_of(runner)["taken"], limit_of(runner)["waiting"]) == (0, 0)


def test_what_waits_for_a_seat_holds_no_slot() -> None:
    crowd, gate = Crowd(), Gate()
    gate.open.set()
    declare("limited", crowd, limits=[Limit("api", concurrency=1)])
    declare("free", gate)
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=2) as runner:
        runs = [runner.submit("limited", {"n": n}) for n in range(5)]
        crowd.wait(1)
        assert waiting(runner, 4)
        assert runner.submit("free").result(WAIT).status == "Completed"
        crowd.leave.release(5)
        assert {run.result(WAIT).status for run in runs} == {"Completed"}


def test_the_most_urgent_has_the_next_seat_and_of_equal_ones_who_came_first() -> None:
    crowd = Crowd()
    declare("limited", crowd, limits=[Limit("api", concurrency=1)])
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=8) as runner:
        first = runner.submit("limited", {"n": 0})
        crowd.wait(1)
        runs = []
        for n, priority in ((1, 5), (2, 9), (3, 5), (4, 0)):
            runs.append(runner.submit("limited", {"n": n}, priority=priority))
            assert waiting(runner, n)
        crowd.leave.release(5)
        assert {run.result(WAIT).status for run in [first, *runs]} == {"Completed"}
    assert crowd.order == [0, 2, 1, 3, 4]


def test_an_attempt_under_two_limits_has_a_seat_of_each_or_of_none() -> None:
    crowd, disk = Crowd(), Crowd()
    declare("both", crowd, limits=[Limit("disk", concurrency=1), Limit("api", concurrency=5)])
    declare("disk", disk, limits=[Limit("disk", concurrency=1)])
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=8) as runner:
        on_disk = runner.submit("disk")
        disk.wait(1)
        both = runner.submit("both")
        assert waiting(runner, 1, "disk")
        assert (limit_of(runner)["taken"], limit_of(runner)["waiting"]) == (0, 1)
        told = runner.why_run(both.id)
        assert "waits for a seat of limits 'api' and 'disk' for attempt 1" in told.replace('"', "'")
        assert "1 of 1 seats of limit 'disk' are taken, and 1 attempt waits" in told.replace('"', "'")
        disk.leave.release()
        crowd.wait(1)
        assert (limit_of(runner)["taken"], limit_of(runner, "disk")["taken"]) == (1, 1)
        crowd.leave.release()
        assert [on_disk.result(WAIT).status, both.result(WAIT).status] == ["Completed"] * 2


def test_attempts_begin_as_fast_as_the_throttle_says() -> None:
    at: list[str] = []
    with cloaca.testing.Runner() as runner:

        def note(context: cloaca.Context) -> None:
            at.append(runner.now[14:19])

        declare("limited", note, limits=[Limit("api", throttle=Throttle(2, per="1m", burst=2))])
        runs = [runner.submit("limited", {"n": n}) for n in range(5)]
        runner.run_until_idle()
        assert len(at) == 2
        assert "lets the next one begin at" in runner.why_run(runs[-1].id)
        runner.advance("29s")
        assert len(at) == 2
        runner.advance("1s")
        assert len(at) == 3
        runner.advance("1m")
        assert len(at) == 5


def test_each_attempt_of_a_task_takes_a_seat_anew_and_waits_between_them_without_one() -> None:
    tries: list[int] = []

    def fails_twice(context: cloaca.Context) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("boom")

    settings = {"retry_attempts": 3, "retry_delay_ms": 60_000, "retry_jitter": False}
    declare("limited", fails_twice, limits=[Limit("api", throttle=Throttle(1, per="1s"))], **settings)
    with cloaca.testing.Runner() as runner:
        run = runner.submit("limited")
        runner.run_until_idle()
        assert (len(tries), limit_of(runner)["taken"], limit_of(runner)["waiting"]) == (1, 0, 0)
        runner.advance("1h")
        assert (len(tries), runner.get_run(run.id)["status"]) == (3, "Completed")


def test_a_body_that_waits_for_its_condition_gives_its_seat_back_and_takes_it_anew() -> None:
    crowd, ready = Crowd(), threading.Event()
    through = threading.Event()

    def waits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(ready.is_set, poll_interval_ms=5)
        through.set()

    api = Limit("api", concurrency=1)
    declare("waits", waits, limits=[api])
    declare("crowd", crowd, limits=[api])
    with cloaca.DefaultRunner(":memory:", max_concurrent_tasks=4) as runner:
        deferred = runner.submit("waits")
        assert eventually(lambda: limit_of(runner)["taken"] == 0 and limit_of(runner)["waiting"] == 0)
        other = runner.submit("crowd")
        crowd.wait(1)
        ready.set()
        assert waiting(runner, 1)
        assert "waits for a seat of limit" in runner.why_run(deferred.id)
        assert not through.is_set()
        crowd.leave.release()
        assert {run.result(WAIT).status for run in (deferred, other)} == {"Completed"}


@pytest.mark.parametrize("loop", ["the runner's", "the program's"])
def test_an_async_body_does_so_likewise(loop: str) -> None:
    inside: list[int] = []
    most: list[int] = []

    async def waits(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        for _ in range(5):
            inside.append(1)
            most.append(len(inside))
            await asyncio.sleep(0)
            inside.pop()
            await handle.defer_until(lambda: True)

    declare("waits", waits, limits=[Limit("api", concurrency=1)])

    async def main() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            runs = [await runner.submit_async("waits", {"n": n}) for n in range(5)]
            assert {(await run).status for run in runs} == {"Completed"}

    if loop == "the program's":
        asyncio.run(main())
    else:
        with cloaca.DefaultRunner(":memory:") as runner:
            runs = runner.submit_many("waits", [{"n": n} for n in range(5)])
            assert {run.result(WAIT).status for run in runs} == {"Completed"}
    assert max(most) == 1


def test_a_body_that_was_given_up_keeps_its_seat_until_it_returns() -> None:
    gate, crowd, api = Gate(), Crowd(), Limit("api", concurrency=1)
    declare("hangs", gate, limits=[api], timeout=0.05)
    declare("crowd", crowd, limits=[api])
    with cloaca.DefaultRunner(":memory:", timeout_grace_seconds=0.05) as runner:
        assert runner.submit("hangs").result(WAIT).status == "Failed"
        assert limit_of(runner)["taken"] == 1
        other = runner.submit("crowd")
        assert waiting(runner, 1)
        assert crowd.now == 0
        gate.open.set()
        crowd.wait(1)
        crowd.leave.release()
        assert other.result(WAIT).status == "Completed"


def test_a_cancelled_run_waits_for_no_seat_any_more() -> None:
    crowd = Crowd()
    declare("limited", crowd, limits=[Limit("api", concurrency=1)])
    with cloaca.DefaultRunner(":memory:") as runner:
        runs = [runner.submit("limited", {"n": n}) for n in range(3)]
        crowd.wait(1)
        assert waiting(runner, 2)
        runs[1].cancel()
        assert runs[1].result(WAIT).status == "Cancelled"
        assert waiting(runner, 1)
        crowd.leave.release(2)
        assert [runs[0].result(WAIT).status, runs[2].result(WAIT).status] == ["Completed"] * 2
        assert crowd.order == [0, 2]


def test_two_runners_share_the_seats(tmp_path: Path) -> None:
    crowd = Crowd()
    declare("limited", crowd, limits=[Limit("api", concurrency=2)])
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as one, cloaca.DefaultRunner(url) as two:
        runs = [runner.submit("limited", {"n": n}) for n in range(5) for runner in (one, two)]
        crowd.wait(2)
        assert waiting(one, 8)
        crowd.leave.release(10)
        assert {run.result(WAIT).status for run in runs} == {"Completed"}
        assert crowd.most == 2


def test_who_leaves_keeps_seats_for_bodies_in_flight_and_for_nothing_else(tmp_path: Path) -> None:
    crowd = Crowd()
    declare("limited", crowd, limits=[Limit("api", concurrency=1)])
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url) as stays:
        with cloaca.DefaultRunner(url) as leaves:
            for n in range(2):
                leaves.submit("limited", {"n": n})
            crowd.wait(1)
            assert waiting(stays, 1)
            leaves.shutdown(0)
        # The second run is the other's, and waits there for the body that is still in flight.
        assert waiting(stays, 1)
        assert (limit_of(stays)["taken"], crowd.now) == (1, 1)
        crowd.leave.release(3)
        assert eventually(lambda: [run["status"] for run in stays.list_runs()] == ["Completed"] * 2)
        assert crowd.most == 1


KILLED = """
    import sys, threading, cloaca

    with cloaca.WorkflowBuilder("limited"):
        @cloaca.task(limits=[cloaca.Limit("api", concurrency=1)])
        def hold(context):
            print("in", flush=True)
            threading.Event().wait(60)

    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit("limited").result()
"""


def test_the_seat_of_a_process_that_is_killed_is_free(tmp_path: Path) -> None:
    crowd = Crowd()
    declare("other", crowd, limits=[Limit("api", concurrency=1)])
    url = str(tmp_path / "runs.db")
    with start_program(KILLED, url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        with cloaca.DefaultRunner(url) as runner:
            run = runner.submit("other")
            assert waiting(runner, 1)
            process.kill()
            crowd.wait(1)
            crowd.leave.release()
            assert run.result(WAIT).status == "Completed"


def test_a_limit_is_changed_while_everything_runs_and_goes_back(tmp_path: Path) -> None:
    crowd = Crowd()
    declare("limited", crowd, limits=[Limit("api", concurrency=1)])
    url = str(tmp_path / "runs.db")
    with cloaca.DefaultRunner(url, max_concurrent_tasks=8) as runner, cloaca.DefaultRunner(url) as other:
        runs = [runner.submit("limited", {"n": n}) for n in range(6)]
        crowd.wait(1)
        assert waiting(runner, 5)
        other.set_limit("api", concurrency=3)
        crowd.wait(2)
        assert (limit_of(runner)["concurrency"], limit_of(runner)["is_set"]) == (3, True)
        other.reset_limit("api")
        assert (limit_of(runner)["concurrency"], limit_of(runner)["is_set"]) == (1, False)
        crowd.leave.release()
        assert eventually(lambda: limit_of(runner)["taken"] == 2)
        assert limit_of(runner)["waiting"] == 3
        runner.set_limit("api", concurrency=None)
        crowd.wait(3)
        crowd.leave.release(5)
        assert {run.result(WAIT).status for run in runs} == {"Completed"}


def test_what_is_not_given_stays_as_it_is() -> None:
    declare("limited", limits=[Limit("api", concurrency=4, throttle=Throttle(60, per="1m", burst=2))])
    with cloaca.DefaultRunner(":memory:") as runner:
        runner.set_limit("api", throttle=Throttle(30, per="1m"))
        row = limit_of(runner)
        assert (row["concurrency"], row["throttle"]) == (4, {"limit": 30, "per": 60.0, "burst": 1})
        runner.set_limit("api", concurrency=2)
        row = limit_of(runner)
        assert (row["concurrency"], row["throttle"]) == (2, {"limit": 30, "per": 60.0, "burst": 1})
        runner.set_limit("api", throttle=None)
        assert (limit_of(runner)["concurrency"], limit_of(runner)["throttle"]) == (2, None)


def test_a_declaration_does_not_undo_what_was_set_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = str(tmp_path / "runs.db")
    declare("limited", limits=[Limit("api", concurrency=4)])
    with cloaca.DefaultRunner(url) as runner:
        runner.set_limit("api", concurrency=2)
    declare("limited", limits=[Limit("api", concurrency=9)])
    with cloaca.DefaultRunner(url) as runner:
        assert limit_of(runner)["concurrency"] == 2
        assert eventually(lambda: "limit 'api' was set by hand, to 2 at once" in caplog.text)
        assert caplog.text.count("was set by hand") == 1
        runner.reset_limit("api")
        assert limit_of(runner)["concurrency"] == 9


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda runner: runner.set_limit("apo", concurrency=1), "limit 'apo' not found.*api"),
        (lambda runner: runner.reset_limit("apo"), "not found"),
        (lambda runner: runner.pause(limit="apo"), "not found"),
        (lambda runner: runner.resume(limit="apo"), "not found"),
        (lambda runner: runner.set_limit("api"), "needs concurrency or throttle"),
        (lambda runner: runner.set_limit("api", concurrency=0), "concurrency is 0"),
        (lambda runner: runner.pause(limit="api", until="2001-01-01T00:00:00Z"), "which is over"),
        (lambda runner: runner.pause(limit="api", until="soon"), "until is"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[cloaca.DefaultRunner], object], told: str) -> None:
    declare("limited", limits=[Limit("api", concurrency=4)])
    with cloaca.DefaultRunner(":memory:") as runner, pytest.raises(ValueError, match=told):
        call(runner)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ("api", "give a list of cloaca.Limit"),
        (["api"], "each must be a cloaca.Limit"),
        ([Limit("api", concurrency=1), Limit("api", concurrency=2)], "called 'api' and differ"),
        (3, "give a list of cloaca.Limit"),
    ],
)
def test_a_task_takes_limits_and_nothing_else(limits: Any, told: str) -> None:
    with pytest.raises(cloaca.WorkflowError, match=told):
        declare("limited", limits=limits)
