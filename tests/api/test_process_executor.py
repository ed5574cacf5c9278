"""`ProcessExecutor`: whatever a call does costs that call alone, and a stopped one has stopped."""

import concurrent.futures
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path

import process_bodies as bodies
import pytest
from process_bodies import WAIT, is_gone, lives, read_pids
from program import beside_tests

import cloaca

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no signals")


@pytest.fixture(scope="module")
def shared() -> Iterator[cloaca.ProcessExecutor]:
    with cloaca.ProcessExecutor(max_workers=2, kill_grace=0.2) as pool:
        yield pool


@pytest.fixture
def pool() -> Iterator[cloaca.ProcessExecutor]:
    with cloaca.ProcessExecutor(max_workers=2, kill_grace=0.2) as pool:
        yield pool
        pool.shutdown(stop=True)


def test_it_is_an_executor(shared: cloaca.ProcessExecutor) -> None:
    assert isinstance(shared, concurrent.futures.Executor)
    assert shared.submit(bodies.echo, 1).result(WAIT) == 1
    assert shared.submit(bodies.echo, a=[1, {"b": None}]).result(WAIT) == {"a": [1, {"b": None}]}
    assert list(shared.map(bodies.echo, range(20), timeout=WAIT)) == list(range(20))
    assert shared.submit(bodies.pid).result(WAIT) != os.getpid()


def test_calls_share_processes_and_run_side_by_side(tmp_path: Path, pool: cloaca.ProcessExecutor) -> None:
    for _ in range(2):
        pool.submit(bodies.sleep, str(tmp_path))
    first, second = read_pids(tmp_path, 2)
    assert first != second
    with cloaca.ProcessExecutor(max_workers=1) as one:
        assert len({one.submit(bodies.pid).result(WAIT) for _ in range(5)}) == 1


def test_processes_are_as_nice_as_they_are_asked_to_be() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with cloaca.ProcessExecutor(max_workers=1, nice=3) as nice, cloaca.ProcessExecutor(max_workers=1) as pool:
        found = [pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result(WAIT) for pool in (nice, pool)]
    assert found == [min(own + 3, 19), own]


def test_a_call_of_ten_megabytes_goes_and_comes(shared: cloaca.ProcessExecutor) -> None:
    text = "é" * 5_000_000
    assert shared.submit(bodies.echo, text).result(WAIT) == text


def test_what_a_call_prints_harms_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with cloaca.ProcessExecutor(max_workers=1) as pool:
        assert pool.submit(bodies.chatter).result(WAIT) == "done"
    shown = capfd.readouterr()
    assert shown.out == "to stdout\nraw\n"
    assert shown.err == "to stderr\n"


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (bodies.raise_value, ValueError, "of the body"),
        (bodies.raise_exit, SystemExit, "3"),
        (bodies.raise_unreadable, RuntimeError, "Unreadable: first"),
        (bodies.raise_unwritable, RuntimeError, "Unwritable: kept"),
        (bodies.return_bomb, TypeError, "cannot be read here"),
        (bodies.return_function, TypeError, "cannot travel between processes"),
    ],
)
def test_an_error_costs_its_own_call(
    shared: cloaca.ProcessExecutor, body: object, kind: type[BaseException], text: str
) -> None:
    future = shared.submit(body)  # type: ignore[arg-type, var-annotated]
    with pytest.raises(kind, match=text) as raised:
        future.result(WAIT)
    assert not isinstance(raised.value, BrokenExecutor)
    if raised.value.__cause__ is not None:
        assert f"in {body.__name__}" in str(raised.value.__cause__) or "travel" in text  # type: ignore[attr-defined]
    assert shared.submit(bodies.echo, 1).result(WAIT) == 1


def test_what_cannot_travel_is_told_by_the_future(shared: cloaca.ProcessExecutor) -> None:
    future = shared.submit(bodies.echo, lambda: None)
    with pytest.raises(Exception, match="lambda"):
        future.result(WAIT)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ((bodies.leave, 3), "ended with exit code 3"),
        ((bodies.leave, 0), "ended with exit code 0"),
        ((bodies.killed,), r"ended by signal 9 \(SIGKILL\)"),
    ],
)
def test_a_process_that_dies_costs_its_own_call(
    tmp_path: Path, pool: cloaca.ProcessExecutor, call: tuple[object, ...], text: str
) -> None:
    beside = pool.submit(bodies.sleep, str(tmp_path))
    read_pids(tmp_path, 1)
    dying = pool.submit(*call)  # type: ignore[arg-type, var-annotated]
    with pytest.raises(BrokenExecutor, match=text):
        dying.result(WAIT)
    assert pool.submit(bodies.echo, 1).result(WAIT) == 1
    assert beside.running()


def test_a_process_that_is_killed_from_outside_costs_its_own_call(
    tmp_path: Path, pool: cloaca.ProcessExecutor
) -> None:
    future = pool.submit(bodies.family, str(tmp_path))
    pids = read_pids(tmp_path, 3)
    (leader,) = {os.getpgid(pid) for pid in pids}
    os.kill(leader, signal.SIGKILL)
    with pytest.raises(BrokenExecutor, match="SIGKILL"):
        future.result(WAIT)
    # Those that hold its end of the pipe, by a fork, too.
    assert is_gone(*pids)


def test_a_process_that_closes_its_descriptors_costs_its_own_call(
    tmp_path: Path, pool: cloaca.ProcessExecutor
) -> None:
    future = pool.submit(bodies.closes_everything, str(tmp_path))
    with pytest.raises(BrokenExecutor):
        future.result(WAIT)
    assert is_gone(*read_pids(tmp_path, 1))
    assert pool.submit(bodies.echo, 1).result(WAIT) == 1


def test_a_body_that_forks_returns_once(shared: cloaca.ProcessExecutor) -> None:
    assert len({shared.submit(bodies.forks_and_returns, "").result(WAIT) for _ in range(10)}) <= 2


def test_a_forked_child_of_a_body_hears_its_sigterm(shared: cloaca.ProcessExecutor) -> None:
    assert shared.submit(bodies.terminates_its_own).result(WAIT) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("body", "count"),
    [(bodies.sleep, 1), (bodies.spin, 1), (bodies.stubborn, 1), (bodies.deaf, 1), (bodies.family, 3)],
)
def test_a_stopped_call_has_stopped_when_its_future_is_done(
    tmp_path: Path, pool: cloaca.ProcessExecutor, body: object, count: int
) -> None:
    future = pool.submit(body, str(tmp_path))  # type: ignore[arg-type, var-annotated]
    pids = read_pids(tmp_path, count)
    assert not future.cancel(), "a call that runs cannot be cancelled, as with every executor"
    pool.stop(future)
    with pytest.raises((BrokenExecutor, SystemExit)):
        future.result(WAIT)
    assert is_gone(*pids)
    assert pool.submit(bodies.echo, 1).result(WAIT) == 1


def test_the_leader_is_dead_at_the_moment_when_its_future_is_done(
    tmp_path: Path, pool: cloaca.ProcessExecutor
) -> None:
    alive: queue.SimpleQueue[bool] = queue.SimpleQueue()
    future = pool.submit(bodies.stubborn, str(tmp_path))
    (pid,) = read_pids(tmp_path, 1)
    future.add_done_callback(lambda _: alive.put(lives(pid)))
    pool.stop(future)
    with pytest.raises(BrokenExecutor, match="SIGKILL"):
        future.result(WAIT)
    assert alive.get(timeout=WAIT) is False


def test_a_stopped_call_cleans_up(tmp_path: Path) -> None:
    with cloaca.ProcessExecutor(max_workers=1, kill_grace=WAIT) as pool:
        future = pool.submit(bodies.tidy, str(tmp_path))
        read_pids(tmp_path, 1)
        pool.stop(future)
        with pytest.raises(SystemExit):
            future.result(WAIT)
    assert (tmp_path / "tidied").exists()


def test_a_call_that_waits_is_cancelled_when_it_is_stopped(tmp_path: Path) -> None:
    with cloaca.ProcessExecutor(max_workers=1, kill_grace=0.2) as pool:
        running = pool.submit(bodies.sleep, str(tmp_path))
        read_pids(tmp_path, 1)
        waiting = pool.submit(bodies.echo, 1)
        pool.stop(waiting)
        with pytest.raises(CancelledError):
            waiting.result(WAIT)
        pool.stop(running)
        with pytest.raises((BrokenExecutor, SystemExit)):
            running.result(WAIT)
        pool.stop(running)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_of_a_service_stops_no_call(pool: cloaca.ProcessExecutor, number: int) -> None:
    pid = pool.submit(bodies.pid).result(WAIT)
    os.kill(pid, number)
    pids = {pool.submit(bodies.pid).result(WAIT) for _ in range(4)}
    assert pid in pids


def test_a_process_is_replaced_after_so_many_calls() -> None:
    with cloaca.ProcessExecutor(max_workers=1, max_tasks_per_child=2) as pool:
        pids = [pool.submit(bodies.pid).result(WAIT) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_what_a_call_leaks_goes_with_its_process() -> None:
    with cloaca.ProcessExecutor(max_workers=1, max_tasks_per_child=3) as pool:
        held = [pool.submit(bodies.leak, 1 << 20).result(WAIT) for _ in range(7)]
    assert [many >> 20 for many in held] == [1, 2, 3, 1, 2, 3, 1]


def test_shutdown_waits_for_what_runs_and_leaves_no_process_and_no_thread() -> None:
    before = threading.active_count()
    pool = cloaca.ProcessExecutor(max_workers=2)
    pids = {pool.submit(bodies.pid).result(WAIT) for _ in range(10)}
    futures = [pool.submit(bodies.echo, number) for number in range(10)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == list(range(10))
    assert not any(map(lives, pids))
    assert threading.active_count() == before
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(bodies.pid)


def test_shutdown_can_stop_what_runs(tmp_path: Path) -> None:
    pool = cloaca.ProcessExecutor(max_workers=1, kill_grace=0.1)
    running, waiting = (pool.submit(bodies.deaf, str(tmp_path)) for _ in range(2))
    pids = read_pids(tmp_path, 1)
    pool.shutdown(stop=True)
    assert isinstance(running.exception(0), BrokenExecutor)
    assert waiting.cancelled()
    assert not any(map(lives, pids))


def test_an_executor_that_nobody_holds_leaves_nothing() -> None:
    before = threading.enumerate()
    pool = cloaca.ProcessExecutor(max_workers=1)
    pid = pool.submit(bodies.pid).result(WAIT)
    (thread,) = (each for each in threading.enumerate() if each not in before)
    del pool
    thread.join(WAIT)
    assert not thread.is_alive()
    assert is_gone(pid)


def test_a_forked_child_is_told_to_make_its_own(tmp_path: Path, pool: cloaca.ProcessExecutor) -> None:
    pid = pool.submit(bodies.pid).result(WAIT)
    if (forked := os.fork()) == 0:
        code = 1
        try:
            pool.submit(bodies.pid)
        except cloaca.RunnerError:
            pool.shutdown()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert pool.submit(bodies.pid).result(WAIT) == pid


def program(tmp_path: Path, code: str) -> "subprocess.Popen[str]":
    """Runs a program of its own beside the bodies."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(code))
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=beside_tests(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("body", ["sleep", "spin", "stubborn", "deaf", "family"])
def test_a_program_that_is_killed_leaves_no_process(tmp_path: Path, body: str) -> None:
    count = 3 if body == "family" else 1
    folder = tmp_path / "pids"
    folder.mkdir()
    started = program(
        tmp_path,
        f"""
        import cloaca, process_bodies
        if __name__ == "__main__":
            pool = cloaca.ProcessExecutor(max_workers=1)
            pool.submit(process_bodies.{body}, {str(folder)!r}).result()
        """,
    )
    with started:
        pids = read_pids(folder, count)
        started.kill()
    assert is_gone(*pids)


def test_a_fork_of_the_program_keeps_no_process_alive(tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    started = program(
        tmp_path,
        f"""
        import os, time, cloaca, process_bodies
        if __name__ == "__main__":
            pool = cloaca.ProcessExecutor(max_workers=1)
            running = pool.submit(process_bodies.sleep, {str(folder)!r})
            process_bodies.read_pids(__import__("pathlib").Path({str(folder)!r}), 1)
            pid = os.fork()
            if pid:
                print(pid, flush=True)
            time.sleep(600)
        """,
    )
    with started:
        assert started.stdout is not None
        fork = int(started.stdout.readline())
        started.kill()
        try:
            assert is_gone(*read_pids(folder, 1))
            assert lives(fork)
        finally:
            os.kill(fork, signal.SIGKILL)


@pytest.mark.parametrize("held", ["with", "exit"])
def test_ctrl_c_with_a_busy_pool_ends_the_program_at_once(tmp_path: Path, held: str) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    started = program(
        tmp_path,
        f"""
        import contextlib, cloaca, process_bodies
        if __name__ == "__main__":
            pool = cloaca.ProcessExecutor(max_workers=2, kill_grace=0.2)
            with pool if {held!r} == "with" else contextlib.nullcontext():
                futures = [pool.submit(process_bodies.deaf, {str(folder)!r}) for _ in range(4)]
                futures[0].result()
        """,
    )
    with started:
        pids = read_pids(folder, 2)
        started.send_signal(signal.SIGINT)
        _, shown = started.communicate(timeout=WAIT)
    assert "KeyboardInterrupt" in shown
    assert not any(map(lives, pids))


def test_a_program_may_end_without_a_shutdown(tmp_path: Path) -> None:
    folder = tmp_path / "pids"
    folder.mkdir()
    started = program(
        tmp_path,
        f"""
        import pathlib, cloaca, process_bodies
        if __name__ == "__main__":
            pool = cloaca.ProcessExecutor(max_workers=1, kill_grace=0.2)
            pool.submit(process_bodies.deaf, {str(folder)!r})
            process_bodies.read_pids(pathlib.Path({str(folder)!r}), 1)
        """,
    )
    with started:
        assert started.communicate(timeout=WAIT) == ("", "")
    assert started.returncode == 0
    assert not any(map(lives, read_pids(folder, 1)))


def test_a_function_of_the_program_itself_is_found_again(tmp_path: Path) -> None:
    started = program(
        tmp_path,
        """
        import cloaca

        print("imported as", __name__, flush=True)

        def double(number):
            return 2 * number

        if __name__ == "__main__":
            with cloaca.ProcessExecutor(max_workers=1) as pool:
                print(pool.submit(double, 21).result(), flush=True)
        """,
    )
    with started:
        shown, _ = started.communicate(timeout=WAIT)
    assert shown == "imported as __main__\nimported as __mp_main__\n42\n"


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"max_workers": 0}, "max_workers is 0"),
        ({"max_workers": 2000}, "max_workers is 2000"),
        ({"max_tasks_per_child": 0}, "max_tasks_per_child is 0"),
        ({"nice": 20}, "nice is 20; it must be a whole number from 0 to 19"),
        ({"kill_grace": -1}, "kill_grace is -1"),
    ],
)
def test_bad_arguments_are_named(keywords: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        cloaca.ProcessExecutor(**keywords)  # type: ignore[arg-type]


def test_arguments_of_a_wrong_type_are_named() -> None:
    for keywords in ({"max_workers": True}, {"max_workers": "2"}, {"kill_grace": [2]}):
        with pytest.raises(TypeError, match=next(iter(keywords))):
            cloaca.ProcessExecutor(**keywords)  # type: ignore[arg-type]
