"""The end of a runner: by `shutdown`, by the interpreter, by a signal, and in a forked child."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flow import WAIT, Gate, declare
from program import SECONDS, eventually, run_program, start_program

import cloaca

NOWHERE = "00000000-0000-7000-8000-000000000000"


def cloaca_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cloaca-")]


def test_shutdown_may_be_called_twice_and_from_several_threads() -> None:
    declare("good", lambda context: None)
    runner = cloaca.DefaultRunner(":memory:")
    runner.execute("good")
    threads = [threading.Thread(target=runner.shutdown) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)
    runner.shutdown()
    runner.shutdown(timeout=0)
    with runner:
        pass


def test_an_interrupt_before_anything_is_closed_ends_the_wait_and_not_the_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)

    before = set(threading.enumerate())
    declare("good")
    runner = cloaca.DefaultRunner(":memory:")
    runner.execute("good")
    monkeypatch.setattr(runner._crew, "look_at_loop", interrupted)
    with pytest.raises(KeyboardInterrupt), runner:
        pass
    assert eventually(lambda: set(threading.enumerate()) <= before)


@pytest.mark.parametrize("way", ["shutdown", "with", "shutdown_async"])
def test_how_long_an_end_waits_is_a_setting(way: str) -> None:
    gate = Gate()
    declare("held", gate)
    runner = cloaca.DefaultRunner(":memory:", shutdown_seconds=0)
    run = runner.submit("held")
    assert gate.entered.wait(WAIT)
    try:
        if way == "with":
            with runner:
                pass
        elif way == "shutdown":
            runner.shutdown()
        else:
            asyncio.run(runner.shutdown_async())
        # It has come back while the body is still held.
        with pytest.raises(cloaca.RunnerError):
            run.result(0)
    finally:
        gate.open.set()
    assert "shutdown_seconds" not in cloaca.DefaultRunnerConfig().to_dict()
    assert cloaca.DefaultRunnerConfig(shutdown_seconds="1m").shutdown_seconds == 60


def test_shutdown_ends_every_thread_of_the_runner() -> None:
    barrier = threading.Barrier(4)
    declare("meets", lambda context: barrier.wait(WAIT) and None)
    before = cloaca_threads()
    with cloaca.DefaultRunner(":memory:") as runner:
        for run in [runner.submit("meets") for _ in range(4)]:
            run.result(WAIT)
        assert len(cloaca_threads()) > len(before)
    assert len(cloaca_threads()) <= len(before)


CALLS: dict[str, Callable[[cloaca.DefaultRunner], object]] = {
    "execute": lambda r: r.execute("good", {}),
    "execute_async": lambda r: asyncio.run(r.execute_async("good", {})),
    "submit": lambda r: r.submit("good", {}),
    "submit_async": lambda r: asyncio.run(r.submit_async("good", {})),
    "submit_many": lambda r: r.submit_many("good", [{}]),
    "audit": lambda r: r.audit(),
    "logs": lambda r: r.logs(NOWHERE),
    "redacted": lambda r: r.redacted,
    "unredact": lambda r: r.unredact("key"),
    "resume": lambda r: r.resume(),
    "poll_soon": lambda r: r.poll_soon("watcher"),
    "register_cron_workflow": lambda r: r.register_cron_workflow("good", "* * * * *", "UTC"),
    "backfill": lambda r: r.backfill(NOWHERE, "2026-01-01T00:00:00Z"),
    "list_cron_schedules": lambda r: r.list_cron_schedules(),
    "get_cron_schedule": lambda r: r.get_cron_schedule(NOWHERE),
    "update_cron_schedule": lambda r: r.update_cron_schedule(NOWHERE, "* * * * *", "UTC"),
    "set_cron_schedule_enabled": lambda r: r.set_cron_schedule_enabled(NOWHERE, True),
    "delete_cron_schedule": lambda r: r.delete_cron_schedule(NOWHERE),
    "get_cron_execution_history": lambda r: r.get_cron_execution_history(NOWHERE),
    "get_cron_execution_stats": lambda r: r.get_cron_execution_stats("2026-01-01T00:00:00Z"),
    "list_trigger_schedules": lambda r: r.list_trigger_schedules(),
    "get_trigger_schedule": lambda r: r.get_trigger_schedule("watcher"),
    "set_trigger_enabled": lambda r: r.set_trigger_enabled("watcher", True),
    "forget": lambda r: r.forget("watcher"),
    "rename": lambda r: r.rename("watcher", "looker"),
    "skip_end": lambda r: r.skip_end("watcher"),
    "tell_soon": lambda r: r.tell_soon(NOWHERE),
    "skip_callback": lambda r: r.skip_callback(NOWHERE),
    "cursor": lambda r: r.cursor("watcher"),
    "set_cursor": lambda r: r.set_cursor("watcher", 1),
    "reset_cursor": lambda r: r.reset_cursor("watcher"),
    "get_trigger_execution_history": lambda r: r.get_trigger_execution_history("watcher"),
    "list_runners": lambda r: r.list_runners(),
    "list_limits": lambda r: r.list_limits(),
    "set_limit": lambda r: r.set_limit("api", concurrency=1),
    "reset_limit": lambda r: r.reset_limit("api"),
    "pause": lambda r: r.pause(limit="api"),
    "list_pauses": lambda r: r.list_pauses(),
    "list_runs": lambda r: r.list_runs(),
    "iter_runs": lambda r: r.iter_runs(),
    "retry_many": lambda r: r.retry_many(status="Failed"),
    "cancel_many": lambda r: r.cancel_many(status="Pending"),
    "get_run": lambda r: r.get_run(NOWHERE),
    "cancel": lambda r: r.cancel(NOWHERE),
    "retry": lambda r: r.retry(NOWHERE),
    "run": lambda r: r.run(NOWHERE),
    "tick": lambda r: r.tick("watcher"),
    "tick_async": lambda r: asyncio.run(r.tick_async("watcher")),
    "ticks": lambda r: r.ticks("watcher"),
    "why": lambda r: r.why("watcher"),
    "why_run": lambda r: r.why_run(NOWHERE),
    "health": lambda r: r.health(),
    "stats": lambda r: r.stats(),
    "query": lambda r: r.query("SELECT 1"),
    "export": lambda r: r.export("/nowhere/a.db"),
}


def test_the_calls_below_are_all_that_a_runner_has() -> None:
    public = {name for name in dir(cloaca.DefaultRunner) if not name.startswith("_")}
    elsewhere = {"shutdown", "shutdown_async", "run_forever", "open", "with_config", "with_schema"}
    assert public - elsewhere == set(CALLS)


@pytest.mark.parametrize("name", list(CALLS))
def test_after_shutdown_every_call_raises_runtime_error(name: str) -> None:
    declare("good", lambda context: None)
    cloaca.trigger(workflow="good", name="watcher", poll_interval="24h")(lambda: False)
    runner = cloaca.DefaultRunner(":memory:")
    runner.shutdown()
    with pytest.raises(RuntimeError, match="shut down") as caught:
        CALLS[name](runner)
    assert isinstance(caught.value, cloaca.RunnerError)


def test_after_shutdown_run_forever_raises_runtime_error() -> None:
    program = """
        import cloaca
        runner = cloaca.DefaultRunner(":memory:")
        runner.shutdown()
        try:
            runner.run_forever()
        except cloaca.RunnerError as error:
            print(error)
    """
    assert "shut down" in run_program(program).stdout


def test_a_final_result_outlives_its_runner_and_all_else_is_refused() -> None:
    declare("good", lambda context: None)
    runner = cloaca.DefaultRunner(":memory:")
    known, unread = runner.submit("good"), runner.submit("good")
    assert known.result(WAIT).status == "Completed"
    assert runner.run(unread.id).result(WAIT).status == "Completed"
    runner.shutdown()
    assert known.status == "Completed"
    assert known.result().status == "Completed"
    assert unread.status == "Completed"
    assert unread.result().status == "Completed"
    for call in (unread.cancel, known.cancel):
        with pytest.raises(RuntimeError, match="shut down"):
            call()
    assert unread.id in repr(unread)


def test_shutdown_waits_for_running_tasks() -> None:
    entered, go, leaves = threading.Event(), threading.Event(), []

    def body(context: cloaca.Context) -> None:
        entered.set()
        go.wait(WAIT)
        leaves.append(1)

    declare("gated", body)
    runner = cloaca.DefaultRunner(":memory:")
    runner.submit("gated")
    assert entered.wait(WAIT)
    ending = threading.Thread(target=runner.shutdown)
    ending.start()
    assert eventually(lambda: "shut down" in repr(runner))
    assert leaves == []
    go.set()
    ending.join(WAIT)
    assert leaves == [1]


def test_what_does_not_end_in_time_is_left_to_the_next_runner(tmp_path: Path) -> None:
    entered, go, late = threading.Event(), threading.Event(), threading.Event()

    def body(context: cloaca.Context) -> None:
        entered.set()
        go.wait(WAIT)
        late.set()

    url = str(tmp_path / "a.db")
    declare("gated", body)
    runner = cloaca.DefaultRunner(url)
    run = runner.submit("gated", {"a": 1})
    assert entered.wait(WAIT)
    runner.shutdown(timeout=0.05)
    declare("gated", lambda context: context.set("again", late.is_set()))
    with cloaca.DefaultRunner(url) as runner:
        # Others of its runs would go on; this one may not begin beside the body that still runs.
        assert runner.submit("gated", {"a": 2}).result(WAIT).status == "Completed"
        assert [run["status"] for run in runner.list_runs()] == ["Completed", "Running"]
        go.set()
        assert runner.run(run.id).result(WAIT).status == "Completed"
        found = runner.get_run(run.id)
    assert found is not None
    assert found["final_context"] == {"a": 1, "again": True}
    assert found["tasks"][0]["attempts"] == 2


@pytest.mark.parametrize("block", ["with", "async with"])
def test_a_block_does_not_wait_again_where_a_call_within_it_has_waited(block: str, tmp_path: Path) -> None:
    began, go = threading.Event(), threading.Event()
    path = str(tmp_path / "a.db")

    def hangs(context: cloaca.Context) -> None:
        began.set()
        go.wait(60)

    async def serve() -> None:
        async with cloaca.DefaultRunner(path) as runner:
            await runner.submit_async("w")
            await asyncio.to_thread(began.wait, 30)
            await runner.shutdown_async(0.05)

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(hangs)
    started = time.monotonic()
    if block == "async with":
        asyncio.run(serve())
    else:
        with cloaca.DefaultRunner(path) as runner:
            runner.submit("w")
            began.wait(30)
            runner.shutdown(0.05)
    # And not the 30 s of the block.
    assert time.monotonic() - started < 20
    go.set()


def test_execute_that_waits_while_the_runner_shuts_down_raises(tmp_path: Path) -> None:
    entered, go = threading.Event(), threading.Event()
    declare("gated", lambda context: entered.set() or (go.wait(WAIT) and None))
    runner = cloaca.DefaultRunner(str(tmp_path / "a.db"))
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            runner.execute("gated")
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert entered.wait(WAIT)
    runner.shutdown(timeout=0.05)
    waiting.join(WAIT)
    go.set()
    assert [type(error) for error in raised] == [cloaca.RunnerError]


def test_no_poll_starts_after_shutdown() -> None:
    polls = []
    polled = threading.Event()

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def watcher() -> bool:
        polls.append(1)
        polled.set()
        return False

    with cloaca.DefaultRunner(":memory:"):
        assert polled.wait(WAIT)
    count = len(polls)
    polled.clear()
    assert not polled.wait(0.1)
    assert len(polls) == count


def test_a_trigger_may_shut_its_runner_down() -> None:
    ended = threading.Event()

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def last() -> bool:
        runner.shutdown(timeout=1)
        ended.set()
        return False

    runner = cloaca.DefaultRunner(":memory:")
    assert ended.wait(WAIT)
    with pytest.raises(RuntimeError, match="shut down"):
        runner.list_runs()


def test_a_task_may_shut_its_runner_down() -> None:
    ended = threading.Event()

    def body(context: cloaca.Context) -> None:
        runner.shutdown(timeout=0.2)
        ended.set()

    declare("last", body)
    runner = cloaca.DefaultRunner(":memory:")
    run = runner.submit("last")
    assert ended.wait(WAIT)
    with pytest.raises(RuntimeError, match="shut down"):
        run.cancel()


FILE = """
    import sys, threading
    import cloaca

    with cloaca.WorkflowBuilder("good"):
        cloaca.task(id="only")(lambda context: context.set("ran", True))
"""


def left_in_order(path: Path) -> bool:
    """Whether the only runner that a file has had said that it left. The next runner would say it for it."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT left_at IS NOT NULL FROM owners").fetchall()
    database.close()
    return rows == [(1,)]


def test_the_end_of_the_interpreter_shuts_a_runner_down_that_nobody_did(tmp_path: Path) -> None:
    url = tmp_path / "a.db"
    program = (
        FILE
        + """
    runner = cloaca.DefaultRunner(sys.argv[1])
    for _ in range(100):
        runner.submit("good")
    """
    )
    done = run_program(program, url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert left_in_order(url)
    declare("good", lambda context: context.set("ran", True))
    with cloaca.DefaultRunner(str(url)) as runner:
        assert eventually(lambda: len(runner.list_runs(status="Completed", limit=1000)) == 100)


def test_a_runner_that_nobody_keeps_polls_what_is_declared_later_and_leaves_in_order(tmp_path: Path) -> None:
    url = tmp_path / "a.db"
    program = (
        FILE
        + """
    import gc
    cloaca.DefaultRunner(sys.argv[1])
    gc.collect()
    polled = threading.Event()

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def watcher():
        polled.set()
        return False

    print("polled" if polled.wait(10) else "not polled", flush=True)
    """
    )
    done = run_program(program, url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "polled\n", "")
    assert left_in_order(url)


def test_polling_does_not_keep_the_interpreter_from_ending(tmp_path: Path) -> None:
    program = (
        FILE
        + """
    polled = threading.Event()

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def watcher():
        polled.set()
        return True

    runner = cloaca.DefaultRunner(sys.argv[1])
    assert polled.wait(20)
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_work_that_comes_as_the_interpreter_ends_makes_no_noise(tmp_path: Path) -> None:
    # Since 3.12 no thread is started once the main thread has ended: such work is the next runner's.
    program = (
        FILE
        + """
    import atexit
    runner = cloaca.DefaultRunner(sys.argv[1])

    def at_the_end():
        try:
            runner.execute("good", {})
        except cloaca.RunnerError:
            pass

    atexit.register(at_the_end)
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_bodies_that_hang_do_not_keep_the_interpreter_from_ending(tmp_path: Path) -> None:
    program = (
        FILE
        + """
    import cloaca.runner
    cloaca.runner.ATEXIT_SECONDS = 0.5
    entered = threading.Semaphore(0)
    forever = threading.Event()

    def hang(*_):
        entered.release()
        forever.wait()

    async def hang_async():
        import asyncio
        entered.release()
        await asyncio.Event().wait()

    with cloaca.WorkflowBuilder("hangs"):
        cloaca.task(id="only")(hang)
    with cloaca.WorkflowBuilder("hangs in its callback"):
        cloaca.task(id="only", on_success=hang)(lambda context: None)
    cloaca.trigger(workflow="good", poll_interval="1ms", name="hangs")(lambda: hang())
    cloaca.trigger(workflow="good", poll_interval="1ms", name="hangs_async")(hang_async)
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit("hangs")
    runner.submit("hangs in its callback")
    for _ in range(4):
        assert entered.acquire(timeout=20)
    print("ends", flush=True)
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\n", "")


def test_a_body_that_ends_while_the_interpreter_does_is_waited_for(tmp_path: Path) -> None:
    program = (
        FILE
        + """
    import time

    def body(context):
        entered.set()
        threading.main_thread().join()
        time.sleep(0.2)
        print("left", flush=True)

    entered = threading.Event()
    with cloaca.WorkflowBuilder("slow"):
        cloaca.task(id="only")(body)
    cloaca.DefaultRunner(sys.argv[1]).submit("slow")
    assert entered.wait(20)
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


@pytest.mark.parametrize(
    "ending", ["raise SystemExit(3)", "sys.exit(3)", "raise SystemExit(3) from ValueError()"]
)
def test_the_exit_status_of_the_program_is_its_own(tmp_path: Path, ending: str) -> None:
    program = (
        f"{FILE}\n    runner = cloaca.DefaultRunner(sys.argv[1])\n    runner.execute('good')\n    {ending}\n"
    )
    assert run_program(program, tmp_path / "a.db").returncode == 3


def test_a_call_at_the_very_end_raises_and_does_not_hang(tmp_path: Path) -> None:
    program = (
        """
    import atexit, sys

    def late():
        try:
            runner.execute("good")
        except RuntimeError as error:
            print("told", flush=True)

    atexit.register(late)
    """
        + FILE.replace("import sys, threading", "")
        + """
    runner = cloaca.DefaultRunner(sys.argv[1])
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "told\n", "")


def end_of(program: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = program.communicate(timeout=SECONDS)
    return program.returncode, out, error


def ready(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    line = program.stdout.readline()
    assert line == "ready\n", line + (program.stderr.read() if program.stderr else "")


def test_ctrl_c_in_execute_raises_keyboard_interrupt_and_the_runner_stays_usable(tmp_path: Path) -> None:
    program = start_program(
        FILE
        + """
    go = threading.Event()

    def body(context):
        print("ready", flush=True)
        go.wait()

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="only")(body)
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        try:
            runner.execute("waits")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(runner.list_runs()[0]["status"], runner.execute("good").status, flush=True)
        go.set()
    """,
        tmp_path / "a.db",
    )
    ready(program)
    program.send_signal(signal.SIGINT)
    assert end_of(program) == (0, "interrupted\nRunning Completed\n", "")


@pytest.mark.parametrize(
    "waiting",
    ["runner.submit('waits').result()", "runner.submit('waits').result(timeout=60)", "runner.tick('slow')"],
)
def test_ctrl_c_ends_every_call_that_waits(tmp_path: Path, waiting: str) -> None:
    program = start_program(
        FILE
        + f"""
    def wait(*_):
        print("ready", flush=True)
        # In slices: a signal in the moment before it blocks does not wake a lock of the interpreter.
        while not threading.Event().wait(0.05):
            pass

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="only")(wait)
    cloaca.trigger(workflow="good", poll_interval="24h", name="slow")(lambda: wait())
    runner = cloaca.DefaultRunner(sys.argv[1])
    try:
        {waiting}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        runner.shutdown(timeout=0.1)
    """,
        tmp_path / "a.db",
    )
    ready(program)
    program.send_signal(signal.SIGINT)
    status, out, error = end_of(program)
    assert (status, out) == (0, "interrupted\n"), error


@pytest.mark.parametrize(
    "waiting",
    ["runner.execute('waits')", "runner.advance('1h')", "runner.advance('3650d')", "runner.run_until_idle()"],
)
def test_ctrl_c_ends_every_call_that_moves_a_clock(tmp_path: Path, waiting: str) -> None:
    program = start_program(
        FILE
        + f"""
    import cloaca.testing

    def wait(*_):
        print("ready", flush=True)
        while not threading.Event().wait(0.05):
            pass

    told = threading.Event()

    def tell():
        if not told.is_set():
            told.set()
            print("ready", flush=True)
        return False

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="only")(wait)
    cloaca.trigger(workflow="good", poll_interval="1h", name="slow")(lambda: wait())
    cloaca.trigger(workflow="good", poll_interval="1s", name="quick")(tell)
    waiting = {waiting!r}
    runner = cloaca.testing.Runner(triggers=["quick" if "3650d" in waiting else "slow"])
    try:
        # Its body says that it is ready, so Ctrl-C may come before `submit` returns.
        if "idle" in waiting:
            runner.submit("waits")
        {waiting}
    except KeyboardInterrupt:
        print("interrupted at", runner.now <= "2026-01-01T01:00:00Z" or "3650d" in waiting, flush=True)
        runner.shutdown(timeout=0.1)
    """,
        tmp_path / "a.db",
    )
    ready(program)
    program.send_signal(signal.SIGINT)
    status, out, error = end_of(program)
    assert (status, out) == (0, "interrupted at True\n"), error


def test_ctrl_c_that_nobody_catches_ends_the_program_as_ever(tmp_path: Path) -> None:
    program = start_program(
        FILE
        + """
    def body(context):
        print("ready", flush=True)
        threading.main_thread().join()

    with cloaca.WorkflowBuilder("waits"):
        cloaca.task(id="only")(body)
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.execute("waits")
    """,
        tmp_path / "a.db",
    )
    ready(program)
    program.send_signal(signal.SIGINT)
    status, out, error = end_of(program)
    assert (status, out) == (-signal.SIGINT, "")
    assert error.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_forever_ends_on_a_signal_with_a_drained_shutdown(tmp_path: Path, number: signal.Signals) -> None:
    url = tmp_path / "a.db"
    program = start_program(
        FILE
        + """
    import signal

    def body(context):
        while signal.getsignal(signal.SIGTERM) is handler:
            threading.Event().wait(0.005)
        print("ready", flush=True)
        stopping.wait(20)
        context["drained"] = True

    stopping = threading.Event()
    with cloaca.WorkflowBuilder("slow"):
        cloaca.task(id="only")(body)
    runner = cloaca.DefaultRunner(sys.argv[1])
    shutdown = runner.shutdown
    cloaca.DefaultRunner.shutdown = lambda self, *rest: (stopping.set(), shutdown(*rest))
    handler = signal.getsignal(signal.SIGTERM)
    runner.submit("slow")
    runner.run_forever()
    assert "shut down" in repr(runner)
    assert signal.getsignal(signal.SIGTERM) is handler
    print("ended", flush=True)
    """,
        url,
    )
    ready(program)
    program.send_signal(number)
    assert end_of(program) == (0, "ended\n", "")
    with cloaca.DefaultRunner(str(url)) as runner:
        (row,) = runner.list_runs()
        assert row["status"] == "Completed"
        found = runner.get_run(row["id"])
    assert found is not None
    assert found["final_context"] == {"drained": True}
    assert found["tasks"][0]["attempts"] == 1


def test_run_forever_polls_until_then(tmp_path: Path) -> None:
    program = start_program(
        FILE
        + """
    import signal

    polls = []

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def watcher():
        polls.append(1)
        # It is polled from before the main thread gets there.
        if len(polls) >= 50 and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL and polls[0]:
            polls[0] = 0
            print("ready", flush=True)
        return False

    cloaca.DefaultRunner(sys.argv[1]).run_forever()
    """,
        tmp_path / "a.db",
    )
    ready(program)
    program.terminate()
    assert end_of(program) == (0, "", "")


def test_run_forever_raises_when_the_store_takes_nothing_any_more(tmp_path: Path) -> None:
    program = start_program(
        FILE
        + """
    import logging, os
    logging.getLogger("cloaca").disabled = True

    @cloaca.trigger(workflow="good", poll_interval="5ms")
    def watcher(tick):
        tick.cursor = (tick.cursor or 0) + 1
        if tick.cursor == 3:
            os.rename(sys.argv[1] + "-wal", sys.argv[1] + ".gone")
        return False

    try:
        cloaca.DefaultRunner(sys.argv[1]).run_forever()
    except cloaca.RunnerError as error:
        print(error)
    """,
        tmp_path / "a.db",
    )
    said = "the runner has stopped by itself; the log (logger 'cloaca', level ERROR) says why\n"
    assert end_of(program) == (0, said, "")


def test_run_forever_returns_when_a_task_shuts_the_runner_down(tmp_path: Path) -> None:
    program = start_program(
        FILE
        + """
    import signal

    def body(context):
        while signal.getsignal(signal.SIGTERM) is handler:
            threading.Event().wait(0.005)
        runner.shutdown()

    with cloaca.WorkflowBuilder("last"):
        cloaca.task(id="only")(body)
    handler = signal.getsignal(signal.SIGTERM)
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.submit("last")
    runner.run_forever()
    print("ended", signal.getsignal(signal.SIGTERM) is handler)
    """,
        tmp_path / "a.db",
    )
    assert end_of(program) == (0, "ended True\n", "")


def test_run_forever_off_the_main_thread_is_told(tmp_path: Path) -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        raised: list[BaseException] = []

        def forever() -> None:
            try:
                runner.run_forever()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=forever)
        thread.start()
        thread.join(WAIT)
        assert [type(error) for error in raised] == [cloaca.RunnerError]
        assert "main thread" in str(raised[0])
        assert runner.list_runs() == []


FORK = (
    FILE
    + """
    import os, warnings
    warnings.simplefilter("ignore", DeprecationWarning)

    def in_child(body):
        child = os.fork()
        if child == 0:
            try:
                body()
                os._exit(0)
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "the child failed"
"""
)


def test_a_runner_refuses_every_call_in_a_forked_child(tmp_path: Path) -> None:
    program = (
        FORK
        + """
    runner = cloaca.DefaultRunner(sys.argv[1])
    run = runner.submit("good")
    run.result(20)
    unread = runner.submit("good")

    def child():
        for call in (
            lambda: runner.execute("good"),
            lambda: runner.submit("good"),
            lambda: runner.list_runs(),
            lambda: runner.tick("watcher"),
            lambda: runner.query("SELECT 1"),
            lambda: runner.register_cron_workflow("good", "* * * * *", "UTC"),
            lambda: unread.result(1),
            lambda: unread.status,
        ):
            try:
                call()
            except cloaca.RunnerError as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("a call in the child went through")
        runner.shutdown()

    in_child(child)
    assert runner.execute("good").status == "Completed"
    assert unread.result(20).status == "Completed"
    runner.shutdown()
    print("fine")
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_forked_child_that_ends_in_order_does_not_harm_its_parent(tmp_path: Path) -> None:
    program = (
        FORK
        + """
    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.execute("good")
    child = os.fork()
    if child == 0:
        del runner
        import gc
        gc.collect()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(10):
        assert runner.execute("good").status == "Completed"
    runner.shutdown()
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        assert len(runner.list_runs()) == 11
        assert runner.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    print("fine")
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_forked_child_may_make_its_own_runner(tmp_path: Path) -> None:
    program = (
        FORK
        + """
    polled = threading.Event()

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    def watcher():
        polled.set()
        return False

    @cloaca.trigger(workflow="good", poll_interval="1ms")
    async def watcher_async():
        return False

    runner = cloaca.DefaultRunner(sys.argv[1])
    assert polled.wait(20)

    def child():
        with cloaca.DefaultRunner(sys.argv[1]) as own:
            assert own.execute("good").status == "Completed"

        fresh = threading.Event()

        @cloaca.trigger(workflow="good", poll_interval="1ms")
        def declared_in_the_child():
            fresh.set()
            return False

        with cloaca.DefaultRunner(":memory:") as own:
            assert own.tick("watcher_async")["outcome"] == "skip"
            assert own.execute("good").status == "Completed"
            assert fresh.wait(20)

    in_child(child)
    assert runner.execute("good").status == "Completed"
    runner.shutdown()
    print("fine")
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_fork_in_the_midst_of_work_leaves_both_sides_usable(tmp_path: Path) -> None:
    program = (
        FORK
        + """
    done = threading.Event()

    def work():
        while not done.is_set():
            runner.execute("good")

    runner = cloaca.DefaultRunner(sys.argv[1])
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child():
        with cloaca.DefaultRunner(":memory:") as own:
            assert own.execute("good").status == "Completed"

    for _ in range(10):
        in_child(child)
    done.set()
    for thread in threads:
        thread.join()
    runner.shutdown()
    print("fine")
    """
    )
    done = run_program(program, tmp_path / "a.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_beside_a_runner(tmp_path: Path, method: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        f"""
import multiprocessing, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import cloaca

with cloaca.WorkflowBuilder("good"):
    cloaca.task(id="only")(lambda context: context.set("ran", True))

def square(n):
    with cloaca.DefaultRunner(":memory:") as own:
        assert own.execute("good").status == "Completed"
    return n * n

if __name__ == "__main__":
    with cloaca.DefaultRunner({str(tmp_path / "a.db")!r}) as runner:
        runner.execute("good")
        with multiprocessing.get_context({method!r}).Pool(1) as pool:
            assert pool.map(square, range(3)) == [0, 1, 4]
            pool.close()
            pool.join()
        assert runner.execute("good").status == "Completed"
    print("fine")
"""
    )
    # A child that starts anew imports the program by its path, so it must be run as a file.
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


AFTER = """
    import gc, os, sqlite3, subprocess, sys, threading
    import cloaca
    folder, how = sys.argv[1:]
    path = os.path.join(folder, "runs.db")
    entered, go = threading.Event(), threading.Event()

    def body(context):
        entered.set()
        assert go.wait(30)

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(body)
    runner = cloaca.DefaultRunner(path)
    runner.query("SELECT 1")
    run = runner.submit("w")
    entered.wait()
    if how == "idle":
        go.set()
        run.result()
    runner.shutdown(0)
    def is_open(number):
        try:
            return os.path.realpath(f"/proc/self/fd/{number}").startswith(os.path.realpath(folder))
        except OSError:
            return False
    if how == "busy":
        try:
            sqlite3.connect(path)
        except cloaca.StoreError:
            go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("cloaca-worker"):
            thread.join()
    print(sorted(os.listdir(folder)))
    print([number for number in os.listdir("/proc/self/fd") if is_open(number)])
    app = sqlite3.connect(path, isolation_level=None)
    app.execute("BEGIN IMMEDIATE")
    del runner, run
    gc.collect()
    other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    done = subprocess.run([sys.executable, "-c", other, path], capture_output=True, text=True)
    print(done.stderr.splitlines()[-1:])
    app.execute("COMMIT")
    app.close()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("how", ["idle", "busy"])
def test_a_runner_that_was_shut_down_holds_its_file_until_its_last_body_is_home(
    tmp_path: Path, how: str
) -> None:
    done = run_program(AFTER, tmp_path, how)
    locked = "['sqlite3.OperationalError: database is locked']"
    assert done.stdout.splitlines() == ["['runs.db']", "[]", locked], done.stderr


def test_a_runner_that_has_stopped_by_itself_says_so(tmp_path: Path) -> None:
    program = start_program(
        FILE
        + """
    import logging, os
    logging.getLogger("cloaca").disabled = True

    @cloaca.trigger(workflow="good", poll_interval="5ms")
    def watcher(tick):
        tick.cursor = (tick.cursor or 0) + 1
        if tick.cursor == 3:
            os.rename(sys.argv[1] + "-wal", sys.argv[1] + ".gone")
        return False

    runner = cloaca.DefaultRunner(sys.argv[1])
    assert not runner.stats()["stopped"]
    while not runner.stats()["stopped"]:
        threading.Event().wait(0.005)
    print(runner.why("watcher").split(";")[0])
    for call in (runner.execute, runner.submit):
        try:
            call("good")
        except cloaca.RunnerError as error:
            print(error)
    """,
        tmp_path / "a.db",
    )
    code, said, _ = end_of(program)
    refused = (
        "the runner has stopped by itself, and takes nothing any more;"
        " the log (logger 'cloaca', level ERROR) says why"
    )
    assert (code, said.splitlines()) == (0, ["this runner has stopped by itself", refused, refused])


WAITS = """
import asyncio, logging, sys, threading, time
import cloaca

def say(text):
    # By one call: lines of two threads must not be mixed up.
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

class Shown(logging.Handler):
    def emit(self, record):
        say(record.getMessage())

logging.getLogger("cloaca").addHandler(Shown())
logging.getLogger("cloaca").setLevel(logging.INFO)

with cloaca.WorkflowBuilder("waits"):
    @cloaca.task()
    def body(context):
        say("ready")
        while True:
            time.sleep(0.05)
    """


@pytest.mark.parametrize(
    "block",
    [
        """
with cloaca.DefaultRunner(":memory:") as runner:
    runner.submit("waits")
    while True:
        time.sleep(0.05)
""",
        """
async def main():
    async with cloaca.DefaultRunner(":memory:") as runner:
        runner.submit("waits")
        while True:
            await asyncio.sleep(0.05)

asyncio.run(main())
""",
    ],
    ids=["with", "async with"],
)
def test_the_end_of_a_block_says_for_whom_it_waits_and_ctrl_c_ends_that_at_once(block: str) -> None:
    program = start_program(WAITS + block, "x")
    assert program.stdout is not None
    lines = iter(program.stdout.readline, "")
    assert "ready\n" in lines
    program.send_signal(signal.SIGINT)
    # That the runner is ready may be told after its first run has begun.
    said = next((line for line in lines if not line.startswith("runner 1 is ready")), "")
    assert said.startswith("shutting down; waiting at most 30 s for task 'body' of run "), said
    assert said.endswith("; Ctrl-C ends that at once\n"), said
    began = time.monotonic()
    program.send_signal(signal.SIGINT)
    status, _, error = end_of(program)
    assert (status, time.monotonic() - began < 25.0) == (-signal.SIGINT, True), error


def test_a_shutdown_may_wait_for_all_runs_in_hand() -> None:
    gate, done = Gate(), []
    with cloaca.WorkflowBuilder("two"):

        @cloaca.task(retry_attempts=3, retry_delay_ms=20, retry_jitter=False)
        def first(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            gate(context)
            if handle.attempt == 1:
                raise ValueError("the first time it fails")

        @cloaca.task(dependencies=[first])
        def second(context: cloaca.Context) -> None:
            runner = cloaca.current_run().runner
            assert runner is not None
            done.append(runner.execute("child", {}).status)

    declare("child")

    @cloaca.trigger(workflow="child", poll_interval="1ms", allow_concurrent=True)
    def source() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip()

    runner = cloaca.DefaultRunner(":memory:", max_concurrent_tasks=1)
    runs = runner.submit_many("two", [{}] * 3)
    assert gate.entered.wait(WAIT)
    ending = threading.Thread(target=lambda: runner.shutdown(WAIT, wait="runs"))
    ending.start()
    assert eventually(lambda: is_refused(runner))
    gate.open.set()
    ending.join(WAIT)
    assert done == ["Completed"] * 3
    assert [run.result(WAIT).status for run in runs] == ["Completed"] * 3


def is_refused(runner: cloaca.DefaultRunner) -> bool:
    try:
        runner.submit("child")
    except cloaca.RunnerError as error:
        return "shuts down once what it has in hand is over" in str(error)
    return False


def test_who_shuts_down_waits_no_longer_for_runs_than_it_says(tmp_path: Path) -> None:
    gate = Gate()
    declare("held", gate)
    runner = cloaca.DefaultRunner(tmp_path / "runs.db", max_concurrent_tasks=1)
    runs = runner.submit_many("held", [{}] * 2)
    assert gate.entered.wait(WAIT)
    runner.shutdown(0.02, wait="runs")
    gate.open.set()
    with cloaca.DefaultRunner(tmp_path / "runs.db") as next_runner:
        for run in runs:
            assert next_runner.run(run.id).result(WAIT).status == "Completed"


def test_nobody_waits_for_his_own_run_and_words_are_checked() -> None:
    said = []

    def ends(context: cloaca.Context) -> None:
        runner = cloaca.current_run().runner
        assert runner is not None
        with pytest.raises(cloaca.RunnerError, match="would wait for its own run"):
            runner.shutdown(wait="runs")
        said.append(True)

    declare("ends", ends)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("ends", {}).status == "Completed"
        with pytest.raises(ValueError, match="wait is 'all'; it must be 'bodies' or 'runs'"):
            runner.shutdown(wait="all")  # type: ignore[arg-type]
    assert said

    async def yields(context: cloaca.Context) -> None:
        await asyncio.sleep(0)

    declare("yields", yields)

    async def on_the_loop() -> None:
        async with cloaca.DefaultRunner(":memory:") as runner:
            await runner.execute_async("yields", {})
            with pytest.raises(cloaca.RunnerError, match="shutdown_async"):
                runner.shutdown(wait="runs")
            await runner.shutdown_async(wait="runs")

    asyncio.run(on_the_loop())


def by_handle(context: cloaca.Context, handle: cloaca.TaskHandle) -> bool:
    return handle.cancelled


def by_current_run(context: cloaca.Context, handle: cloaca.TaskHandle) -> bool:
    run = cloaca.current_run()
    assert run is not None
    return run.cancelled


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "async"])
@pytest.mark.parametrize("looks", [by_handle, by_current_run])
def test_who_is_told_to_end_as_the_runner_does_and_raises_is_made_anew(
    tmp_path: Path, looks: Callable[[cloaca.Context, cloaca.TaskHandle], bool], is_async: bool
) -> None:
    began = threading.Event()

    def works(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        began.set()
        while handle.attempt == 1:
            if looks(context, handle):
                raise RuntimeError("half done")
            time.sleep(0.001)
        context["by"] = handle.attempt

    async def works_async(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        began.set()
        while handle.attempt == 1:
            if looks(context, handle):
                raise RuntimeError("half done")
            await asyncio.sleep(0.001)
        context["by"] = handle.attempt

    with cloaca.WorkflowBuilder("long"):
        cloaca.task(id="work", retry_attempts=0)(works_async if is_async else works)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.submit("long")
        assert began.wait(WAIT)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        result = runner.run(run.id).result(WAIT)
        assert (result.status, result.final_context["by"]) == ("Completed", 2)
        found = runner.get_run(run.id)
        assert found is not None
        assert [tried["outcome"] for tried in found["tasks"][0]["tries"]] == ["Interrupted", "Completed"]


@pytest.mark.parametrize("ends", ["shutdown", "loop"])
@pytest.mark.parametrize("how", ["at once", "later", "again"])
def test_who_is_cancelled_as_the_runner_or_its_loop_ends_and_raises_is_made_anew(
    tmp_path: Path, how: str, ends: str
) -> None:
    began = asyncio.Event()

    async def works(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        if handle.attempt == 1:
            began.set()
            try:
                await asyncio.sleep(60)
            finally:
                if how == "later":
                    await asyncio.sleep(0.01)
                if how == "again":
                    raise cloaca.RetryAfter(0)
                raise ConnectionError("as it was cleaned up")
        context["by"] = handle.attempt

    with cloaca.WorkflowBuilder("long"):
        cloaca.task(id="work", retry_attempts=0)(works)

    async def first() -> str:
        runner = cloaca.DefaultRunner(tmp_path / "runs.db", loop=asyncio.get_running_loop())
        runners.append(runner)
        run = await runner.submit_async("long")
        await asyncio.wait_for(began.wait(), WAIT)
        if ends == "shutdown":
            await runner.shutdown_async(0.05)
        return run.id

    runners: list[cloaca.DefaultRunner] = []
    run_id = asyncio.run(first())
    runners[0].shutdown(5.0)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        result = runner.run(run_id).result(WAIT)
        assert (result.status, result.final_context["by"]) == ("Completed", 2)
        found = runner.get_run(run_id)
        assert found is not None
        first_outcome, last = [tried["outcome"] for tried in found["tasks"][0]["tries"]]
        # What is told of it counts only as long as somebody hears it.
        assert first_outcome in ({"Postponed", "Interrupted"} if how == "again" else {"Interrupted"})
        assert last == "Completed"


@pytest.mark.parametrize(
    ("on_interrupt", "says"),
    [
        ("retry", "raised RuntimeError: it is made anew"),
        ("fail", "raised RuntimeError: it is not attempted again, as its on_interrupt is 'fail'"),
    ],
)
def test_it_is_said_what_becomes_of_who_is_told_to_end_and_raises(
    on_interrupt: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = threading.Event()

    def works(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        began.set()
        while not handle.cancelled:
            time.sleep(0.001)
        raise RuntimeError("half done")

    with cloaca.WorkflowBuilder("long"):
        cloaca.task(id="work", on_interrupt=on_interrupt)(works)
    with caplog.at_level("INFO", "cloaca"), cloaca.DefaultRunner(":memory:") as runner:
        runner.submit("long")
        assert began.wait(WAIT)
    assert [line for line in caplog.messages if line.endswith(says)]


def test_who_raises_without_having_been_told_to_end_has_failed(tmp_path: Path) -> None:
    gate = Gate()

    def works(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        assert not handle.cancelled
        gate(context)
        raise RuntimeError("broken")

    with cloaca.WorkflowBuilder("long"):
        cloaca.task(id="work", retry_attempts=0)(works)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.submit("long")
        assert gate.entered.wait(WAIT)
        ends = threading.Thread(target=runner.shutdown)
        ends.start()
        gate.open.set()
        ends.join(WAIT)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        assert "broken" in str(runner.run(run.id).result(WAIT).error_message)
