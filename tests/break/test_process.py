"""What may happen to a process at any moment: it is stopped for long, told to end, ends in odd places."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest
from attack import SECONDS, TIMES, Program, command, health, outside, run

import cloaca

WORKS = """
    import atexit
    logging.disable()
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=1)
        def t(context):
            say("began", context["i"])
            time.sleep(0.02)
            say("ended", context["i"])

    @cloaca.trigger(workflow="w", poll_interval="5ms")
    def watch(tick):
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"i": tick.cursor}, run_key=str(tick.cursor))
"""


def stop_between_transactions(program: Program, path: Path) -> None:
    """Stopped amidst one, it would keep everybody else from writing, as any process on SQLite does."""
    for _ in range(1000):
        program.stop()
        with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as outsider:
            try:
                outsider.execute("BEGIN IMMEDIATE")
                outsider.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                program.go_on()
    raise AssertionError("it writes without a pause")


def test_a_runner_that_is_stopped_for_long_is_not_taken_for_dead(tmp_path: Path) -> None:
    """No lease runs out: what holds its lock lives. Its sibling leaves it its runs and its trigger."""
    path = tmp_path / "runs.db"
    source = (
        WORKS
        + """
    runner = cloaca.DefaultRunner(sys.argv[1])
    say("serves", os.getpid())
    sys.stdin.readline()
    runner.set_trigger_enabled("watch", False)
    until(lambda: not runner.list_runs(status="Running") and not runner.list_runs(status="Pending"))
    runner.shutdown()
    """
    )
    looks = """
    runner = cloaca.DefaultRunner(sys.argv[1])
    living = lambda: runner.query("SELECT count(*) AS n FROM owners WHERE left_at IS NULL")[0]["n"]
    seconds = time.monotonic() + 3
    while time.monotonic() < seconds:
        assert living() == 2
    runner.shutdown()
    """
    with Program(source, path) as program:
        for _ in range(20):
            program.until("ended")
        stop_between_transactions(program, path)
        run(WORKS + looks, path)
        program.go_on()
        for _ in range(20):
            program.until("ended")
        program.tell()
        program.end()
    began = [line for line in program.lines if line.startswith("began")]
    assert len(began) == len(set(began))
    assert health(path) == "ok"


PHASES = """
    for place in sys.argv[2].split():
        say("phase", place)
        if place == "opens":
            runner = cloaca.DefaultRunner(sys.argv[1])
        elif place == "executes":
            runner.execute("w", {"i": -1})
        elif place == "submits":
            runs = runner.submit_many("w", [{"i": -i} for i in range(10, 200)])
        elif place == "waits":
            runs[100].result()
        elif place == "closes":
            runner.shutdown()
        elif place == "forever":
            runner.run_forever(shutdown_timeout=5)
    say("end")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_signal_at_any_moment_ends_the_program_and_leaves_a_whole_file(
    tmp_path: Path, number: signal.Signals, times: int
) -> None:
    path = tmp_path / "runs.db"
    chance = random.Random(times * 100 + number)
    phases = [
        "opens executes submits waits closes",
        "opens submits forever",
        "opens executes closes opens closes",
    ]
    # A signal may come before there are tables.
    cloaca.DefaultRunner(path).shutdown()
    for round_ in range(3 * TIMES):
        with Program(WORKS + PHASES, path, phases[round_ % 3]) as program:
            if chance.random() < 0.7:
                program.until("phase")
            sleep(chance.uniform(0, 0.25))
            for _ in range(times):
                program.send(number)
                sleep(chance.uniform(0, 0.02))
            started = monotonic()
            if "forever" in phases[round_ % 3] and program.process.poll() is None:
                # One that came before its handlers was Python's or the kernel's to answer.
                sleep(0.5)
                program.send(signal.SIGTERM)
            code = program.process.wait(SECONDS)
            assert monotonic() - started < 40, "it hung"
            assert code in (0, 1, -signal.SIGINT, -signal.SIGTERM), (code, program.lines, program.errors())
    assert health(path) == "ok"
    finish(path)


def finish(path: Path) -> None:
    """What is left is done by the next runner; nothing is lost and no fire is doubled."""
    source = (
        WORKS.replace("watch(tick):", "watch(tick):\n        return False")
        + """
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=64)
    runner = cloaca.DefaultRunner.with_config(sys.argv[1], config)
    until(lambda: not runner.list_runs(status="Running") and not runner.list_runs(status="Pending"), 60)
    runner.shutdown()
    """
    )
    run(source, path, seconds=90)
    keys = "SELECT (SELECT count(*) FROM run_keys), count(*) FROM runs WHERE run_key IS NOT NULL"
    (((held, fired),), ((odd,),)) = outside(
        path, keys, "SELECT count(*) FROM runs WHERE status NOT IN ('Completed', 'Failed')"
    )
    assert held == fired
    assert odd == 0
    assert health(path) == "ok"


ENDS = {
    "in atexit": "atexit.register(runner.shutdown)",
    "in atexit, before ours": "atexit.register(lambda: (runner.execute('w', {'i': 0}), runner.shutdown()))",
    "in __del__ at the end": "sys.kept = type('D', (), {'__del__': lambda self: runner.shutdown()})()",
    "in __del__ of a cycle": (
        "a = type('D', (), {'__del__': lambda self: runner.shutdown()})(); a.a = a; "
        "del a; import gc; gc.collect()"
    ),
    "twice": "runner.shutdown(); runner.shutdown()",
    "twice at once": (
        "threads = [threading.Thread(target=runner.shutdown) for _ in range(8)]; "
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]"
    ),
    "by a daemon thread": "threading.Thread(target=runner.shutdown, daemon=True).start()",
    "by a thread that outlives the main one": (
        "threading.Thread(target=lambda: (threading.main_thread().join(), runner.shutdown())).start()"
    ),
    "by excepthook": "sys.excepthook = lambda *_: runner.shutdown(); raise ValueError",
    "by a weakref's callback": (
        "import weakref; D = type('D', (), {}); d = D(); f = weakref.finalize(d, runner.shutdown); del d"
    ),
    "os._exit": "os._exit(0)",
    "never": "pass",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_runner_may_be_shut_down_in_odd_places(tmp_path: Path, how: str) -> None:
    path = tmp_path / "runs.db"
    source = (
        WORKS
        + f"""
    runner = cloaca.DefaultRunner(sys.argv[1])
    until(lambda: runner.stats()["runs_completed"] > 5)
    {ENDS[how]}
    """
    )
    code = 1 if how == "by excepthook" else 0
    run(source, path, code=code)
    if how != "os._exit":
        assert outside(path, "SELECT count(*) FROM owners WHERE left_at IS NULL") == [[[0]]]
    finish(path)


@pytest.mark.parametrize("place", ["a task", "an async task", "a trigger", "a callback", "a condition"])
def test_a_runner_may_be_shut_down_twice_by_its_own_bodies(tmp_path: Path, place: str) -> None:
    def ends(*_: object) -> bool:
        runner.shutdown(1)
        runner.shutdown(1)
        return True

    async def ends_async(context: object) -> None:
        ends()

    def defers(context: object, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(ends, 1)

    with cloaca.WorkflowBuilder("w"):
        body = {"an async task": ends_async, "a condition": defers, "a callback": lambda context: None}
        options = {"on_success": ends} if place == "a callback" else {}
        cloaca.task(id="t", retry_attempts=1, **options)(body.get(place, ends))
    if place == "a trigger":
        cloaca.trigger(workflow="w", poll_interval="5ms", name="watch")(ends)
    runner = cloaca.DefaultRunner(str(tmp_path / "runs.db"))
    try:
        runner.submit("w")
    except RuntimeError:
        assert place == "a trigger"
    deadline = monotonic() + SECONDS
    while True:
        try:
            runner.stats()
        except RuntimeError:
            break
        assert monotonic() < deadline
        sleep(0.002)
    runner.shutdown()


def test_making_the_runner_again_and_again_as_a_notebook_does_loses_no_fire(tmp_path: Path) -> None:
    """The cell is run again: workflow, trigger and runner are made anew, and the old runner is let go of."""
    path = tmp_path / "runs.db"
    source = (
        WORKS
        + """
    import textwrap
    cell = textwrap.dedent(r'''
        with cloaca.WorkflowBuilder("w"):
            @cloaca.task(retry_attempts=1)
            def t(context): pass

        @cloaca.trigger(workflow="w", poll_interval="2ms")
        def watch(tick):
            tick.cursor = (tick.cursor or 0) + 1
            return cloaca.TriggerResult.fire({"i": tick.cursor}, run_key=str(tick.cursor))

        runner = cloaca.DefaultRunner(sys.argv[1])
    ''')
    for _ in range(20):
        exec(cell)
        # The older runners live until the program ends; one of them polls.
        count = lambda: runner.query("SELECT count(*) AS n FROM runs WHERE status = 'Completed'")[0]["n"]
        before = count()
        until(lambda: count() > before + 3)
    runner.set_trigger_enabled("watch", False)
    until(lambda: not runner.list_runs(status="Running") and not runner.list_runs(status="Pending"))
    row = runner.query("SELECT cursor, (SELECT count(*) FROM runs) AS n FROM schedules")[0]
    say(row["cursor"], row["n"])
    """
    )
    last, runs = run(source, path)[-1].split()
    assert last == runs
    assert health(path) == "ok"


@pytest.mark.parametrize("moment", ["at once", "by chance"])
def test_os_exit_in_a_body_is_a_death_like_any_other(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "runs.db"
    dies = WORKS.replace('say("ended", context["i"])', "os._exit(3)" if moment == "at once" else "gone()")
    source = (
        dies
        + """
    import random
    def gone():
        if random.random() < 0.2:
            os._exit(3)
    runner = cloaca.DefaultRunner(sys.argv[1])
    time.sleep(30)
    """
    )
    for _ in range(3 * TIMES):
        done = subprocess.run(command(source, path), capture_output=True, check=False, timeout=SECONDS)
        assert done.returncode == 3, done.stderr
    finish(path)


def test_ended_programs_say_nothing(tmp_path: Path) -> None:
    """Neither a traceback nor a warning, however odd the moment."""
    source = WORKS + "\n    runner = cloaca.DefaultRunner(sys.argv[1])\n    runner.submit('w', {'i': 1})\n"
    for _ in range(2 * TIMES):
        done = subprocess.run(
            [sys.executable, "-X", "dev", *command(source, tmp_path / "runs.db")[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert (done.returncode, done.stderr) == (0, "")
