"""Processes that have used up what the system gives: descriptors, threads, bytes a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attack import Program, health, outside, run

NO_DESCRIPTORS = """
    import resource

    @cloaca.trigger(workflow="w", poll_interval="5ms")
    def watch(tick):
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor}, run_key=str(tick.cursor))

    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context):
            say("did", context["n"])

    def use_up():
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return taken

    logging.disable()
    runner = cloaca.DefaultRunner(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5,) * 2)
    taken = use_up()
    say("full")
    sys.stdin.readline()
    for number in taken:
        os.close(number)
    say("free", told(lambda: runner.execute("w", {"n": 0}).status))
    runner.set_trigger_enabled("watch", False)
    until(lambda: not runner.list_runs(status="Running") and not runner.list_runs(status="Pending"))
    runner.shutdown()
    say("end")
"""


REST = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context):
            say("did", context["n"])

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        until(lambda: not runner.list_runs(status="Running") and not runner.list_runs(status="Pending"))
"""


def test_who_has_no_descriptors_left_takes_nobody_for_dead_and_goes_on(tmp_path: Path) -> None:
    """Its sibling polls and runs meanwhile; each run is done once."""
    path = tmp_path / "runs.db"
    with Program(NO_DESCRIPTORS, path) as first:
        first.until("full")
        with Program(NO_DESCRIPTORS, path) as second:
            second.until("full")
            first.tell()
            first.until("free Completed")
            second.tell()
            second.until("free Completed")
            second.until("end")
            second.end()
        first.until("end")
        first.end()
    # A poll that was in flight when the trigger was switched off may have fired while its runner left.
    rest = run(REST, path)
    done = [line.split()[1] for line in first.lines + second.lines + rest if line.startswith("did")]
    numbers = [number for number in done if number != "0"]
    assert len(numbers) == len(set(numbers)), "each run once"
    counted = "SELECT (SELECT count(*) FROM run_keys), count(*) FROM runs WHERE completed_at IS NULL"
    assert outside(path, counted) == [[[len(numbers), 0]]]
    assert health(path) == "ok"


def test_without_a_descriptor_a_file_is_refused_and_the_next_try_opens_it(tmp_path: Path) -> None:
    source = """
    import resource
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): pass
    cloaca.DefaultRunner(":memory:").shutdown()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    seen = set()
    for spare in range(12):
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for number in taken[:spare]:
            os.close(number)
        try:
            with cloaca.DefaultRunner(sys.argv[1]) as runner:
                seen.add(runner.execute("w").status)
        except cloaca.StoreError as error:
            assert sys.argv[1] in str(error), error
            seen.add("StoreError")
        except (OSError, ImportError):
            # Python itself reads a module at the first runner.
            seen.add("OSError")
        for number in taken[spare:]:
            os.close(number)
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        seen.add(runner.execute("w").status)
        living = runner.query("SELECT count(*) AS n FROM owners WHERE left_at IS NULL")[0]["n"]
    say(living, *sorted(seen))
    """
    lines = run(source, tmp_path / "runs.db")
    assert lines[-1] == "1 Completed OSError StoreError"
    assert health(tmp_path / "runs.db") == "ok"


NO_THREADS = """
    import resource, threading
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context):
            gate.wait(30)
    cloaca.trigger(workflow="w", poll_interval="5ms", name="watch")(lambda: False)
    gate = threading.Event()
    logging.disable()
    # The other user may not be able to read what Python imports late.
    import pathlib, traceback, queue
    with cloaca.DefaultRunner(":memory:") as first:
        gate.set()
        first.execute("w"), first.list_runs()
        gate.clear()
    os.setgroups([]); os.setgid(54321); os.setuid(54321)
    runner = cloaca.DefaultRunner.with_config(
        sys.argv[1], cloaca.DefaultRunnerConfig(max_concurrent_tasks=50))
    until(lambda: runner.stats()["polls"] > 2)
    threads = len(os.listdir("/proc/self/task"))
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        say("no more threads")
    runs = runner.submit_many("w", [{"i": i} for i in range(20)])
    polls = runner.stats()["polls"]
    until(lambda: runner.stats()["polls"] > polls + 20)
    say("polls go on")
    try:
        late = cloaca.DefaultRunner(sys.argv[1])
    except cloaca.CloacaError as error:
        say("refused", type(error).__name__)
    except RuntimeError as error:
        say("refused", type(error).__name__)
    else:
        late.shutdown()
    resource.setrlimit(resource.RLIMIT_NPROC, (resource.getrlimit(resource.RLIMIT_NPROC)[1],) * 2)
    gate.set()
    say(*{run.result(30).status for run in runs})
    with cloaca.DefaultRunner(sys.argv[1]) as again:
        say(again.execute("w").status)
    runner.shutdown()
    say("end")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit of threads counts those of a whole user")
def test_who_gets_no_more_threads_goes_on_once_there_are_some(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in list(tmp_path.parents)[:2]:
        folder.chmod(folder.stat().st_mode | 0o111)
    lines = run(NO_THREADS, tmp_path / "runs.db")
    assert lines[:2] == ["no more threads", "polls go on"]
    assert [line for line in lines[2:] if not line.startswith("refused")] == ["Completed", "Completed", "end"]
    assert health(tmp_path / "runs.db") == "ok"


def test_a_bound_on_the_bytes_of_a_file_delays_and_loses_nothing(tmp_path: Path) -> None:
    """`ulimit -f`: to SQLite it is a disk that fails in the midst of a write."""
    source = """
    import resource
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): pass
    logging.disable()
    runner = cloaca.DefaultRunner(sys.argv[1])
    assert runner.execute("w", {"i": -1}).status == "Completed"
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1] + "-wal") + 40_000, hard))
    ids, threads = [], []

    def load(first):
        for i in range(first, first + 40):
            ids.append(runner.submit("w", {"i": i, "x": "x" * 3000}).id)

    for k in range(4):
        threads.append(threading.Thread(target=load, args=(40 * k,)))
        threads[-1].start()
    time.sleep(1)
    assert any(thread.is_alive() for thread in threads) or runner.stats()["runs_unfinished"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    until(lambda: not runner.stats()["runs_unfinished"])
    say(len(ids), len(set(ids)))
    runner.shutdown()
    """
    assert run(source, tmp_path / "runs.db") == ["160 160"]
    counted = "SELECT status, count(*) FROM runs GROUP BY status"
    assert outside(tmp_path / "runs.db", counted) == [[["Completed", 161]]]
    assert health(tmp_path / "runs.db") == "ok"


OPENS = """
    from cloaca import reading

    path, how = sys.argv[1:3]
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    first = cloaca.DefaultRunner(path)
    first.execute("w")

    def opened():
        if how == "reader":
            reading.Reader(path).close()
        else:
            with cloaca.DefaultRunner(path, work=how != "client") as another:
                assert another.list_runs()

    opened()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        opened()
    say(len(os.listdir("/proc/self/fd")) - before)
    first.shutdown()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system doesn't tell them")
@pytest.mark.parametrize("how", ["reader", "client", "runner"])
def test_who_comes_and_goes_beside_a_runner_leaves_no_descriptor(tmp_path: Path, how: str) -> None:
    assert run(OPENS, tmp_path / "runs.db", how)[-1] == "0"
