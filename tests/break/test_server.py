"""The server goes away under a runner and comes back: nothing is lost, nothing done twice, little said."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import postgres
import pytest
from attack import Program, until

import cloaca
from cloaca import served

EVENTS = 200
PATIENCE = 60.0


@pytest.fixture
def server(postgres_server: postgres.Server) -> Iterator[postgres.Server]:
    """One of this test's own, which it may stop."""
    with postgres.own_server() as server:
        yield server


class Work:
    """Events that a trigger fires one after another by its cursor, and what its runs saw of them."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        with cloaca.WorkflowBuilder("work") as builder:
            builder.add_task(cloaca.task(id="note")(self.note))

        @cloaca.trigger(workflow="work", name="events", poll_interval="10ms")
        def events(tick: cloaca.Tick) -> cloaca.TriggerResult:
            number = tick.cursor or 0
            if number == EVENTS:
                return cloaca.TriggerResult.skip()
            return cloaca.TriggerResult.fire({"number": number}, cursor=number + 1)

    def note(self, context: cloaca.Context) -> None:
        with self.changed:
            self.seen[context["number"]] += 1
            self.changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Until so many events were seen."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.seen) >= number, PATIENCE), self.seen


def final_runs(runner: cloaca.DefaultRunner) -> list[tuple[str, int]]:
    return sorted((run["status"], run["context"]["number"]) for run in runner.list_runs(limit=1000))


@pytest.mark.parametrize("way", ["immediate", "fast"])
def test_a_server_that_restarts_loses_and_doubles_nothing(
    server: postgres.Server, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work()
    with caplog.at_level(logging.INFO), cloaca.DefaultRunner(server.url()) as runner:
        for step in (EVENTS // 4, EVENTS // 2):
            work.wait_for(step)
            server.stop(way)
            server.resume()
        work.wait_for(EVENTS)
        runner.shutdown(PATIENCE)
    with cloaca.DefaultRunner(server.url(), paused=True) as runner:
        runs = final_runs(runner)
    assert runs == [("Completed", number) for number in range(EVENTS)]
    assert set(work.seen.values()) == {1}
    said = [record.message for record in caplog.records if "the store" in record.message]
    lost = [line for line in said if "refuses writes" in line]
    again = [line for line in said if "takes writes again" in line]
    assert len(said) == len(lost) + len(again)
    assert 1 <= len(again) == len(lost) <= 2


def test_connections_that_are_ended_again_and_again_cost_nothing_but_time(
    postgres_server: postgres.Server,
) -> None:
    work = Work()
    with postgres_server.database() as name, cloaca.DefaultRunner(postgres_server.url(name)) as runner:
        for step in range(10, EVENTS, 10):
            work.wait_for(step)
            postgres_server.cut(name)
        work.wait_for(EVENTS)
        runner.shutdown(PATIENCE)
        with cloaca.DefaultRunner(postgres_server.url(name), paused=True) as after:
            assert final_runs(after) == [("Completed", number) for number in range(EVENTS)]
    assert set(work.seen.values()) == {1}


def test_the_health_of_a_runner_whose_server_is_away_is_told(server: postgres.Server) -> None:
    with cloaca.DefaultRunner(server.url()) as runner:
        assert runner.health()["ok"]
        server.stop()
        found = runner.health()
        assert (found["ok"], [reason["code"] for reason in found["reasons"]]) == (False, ["store"])
        server.resume()
        until(lambda: runner.health()["ok"], PATIENCE)


class Held:
    """A body of each kind that returns when it is told to, and how often each began."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.changed = threading.Condition()
        self.gate = threading.Event()
        with cloaca.WorkflowBuilder("threads") as builder:
            builder.add_task(cloaca.task(id="thread", retry_attempts=1)(self.thread))
        with cloaca.WorkflowBuilder("coroutines") as builder:
            builder.add_task(cloaca.task(id="coroutine", retry_attempts=1)(self.coroutine))

    def note(self, context: cloaca.Context) -> None:
        with self.changed:
            self.begun[context["by"]] += 1
            self.changed.notify_all()

    def thread(self, context: cloaca.Context) -> None:
        self.note(context)
        self.gate.wait(PATIENCE)

    async def coroutine(self, context: cloaca.Context) -> None:
        self.note(context)
        while not self.gate.is_set():
            await asyncio.sleep(0.001)

    def wait_for(self, many: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.begun.total() >= many, PATIENCE), self.begun


def shut_down(runner: cloaca.DefaultRunner) -> None:
    runner.shutdown(PATIENCE)


def shut_down_async(runner: cloaca.DefaultRunner) -> None:
    asyncio.run(runner.shutdown_async(PATIENCE))


def end_block(runner: cloaca.DefaultRunner) -> None:
    runner.__exit__(None, None, None)


class Refusing(logging.Handler):
    """Counts runners whose stores refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.many = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        if "refuses writes" in record.getMessage():
            self.many.release()


def test_what_returns_while_a_runner_shuts_down_counts_though_the_server_is_away(
    server: postgres.Server,
) -> None:
    held, refusing = Held(), Refusing()
    ends = [shut_down, shut_down_async, end_block]
    runners = [cloaca.DefaultRunner(server.url(), shutdown_seconds=PATIENCE) for _ in ends]
    for runner, end in zip(runners, ends, strict=True):
        runner.submit_many("threads", [{"by": f"thread of {end.__name__}"}])
        runner.submit_many("coroutines", [{"by": f"coroutine of {end.__name__}"}])
    held.wait_for(2 * len(ends))
    log = logging.getLogger("cloaca")
    log.addHandler(refusing)
    try:
        server.stop("immediate")
        threads = [
            threading.Thread(target=end, args=[runner]) for runner, end in zip(runners, ends, strict=True)
        ]
        for thread in threads:
            thread.start()
        held.gate.set()
        for _ in runners:
            assert refusing.many.acquire(timeout=PATIENCE)
        # Longer than who gives up at the first refusal.
        threads[0].join(0.5)
        ended = [end.__name__ for end, thread in zip(ends, threads, strict=True) if not thread.is_alive()]
    finally:
        log.removeHandler(refusing)
        server.resume()
    for thread in threads:
        thread.join(PATIENCE)
    assert ended == []
    with cloaca.DefaultRunner(server.url(), paused=True) as after:
        assert {run["status"] for run in after.list_runs()} == {"Completed"}
    assert set(held.begun.values()) == {1}


SERVES = """
    with cloaca.WorkflowBuilder("work"):
        @cloaca.task(retry_attempts=1)
        def waits(context, handle):
            say("begins", handle.attempt)
            sys.stdin.readline()
            return {"attempt": handle.attempt}

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    runner = cloaca.DefaultRunner(sys.argv[1], shutdown_seconds=3600)
    runner.submit("work")
    runner.run_forever()
"""


@pytest.mark.parametrize("told", ["once", "twice"])
def test_a_service_that_is_told_to_end_during_an_outage_waits_for_the_server_unless_it_is_told_again(
    server: postgres.Server, told: str
) -> None:
    with Program(SERVES, server.url()) as program:
        program.until("begins 1")
        server.stop("immediate")
        program.send(signal.SIGTERM)
        program.tell()
        assert program.process.stderr is not None
        while b"refuses writes" not in program.process.stderr.readline():
            pass
        if told == "twice":
            # Two that come before the first is heard are one.
            until(lambda: program.process.poll() is not None or program.send(signal.SIGTERM), PATIENCE)
        server.resume()
        if told == "once":
            program.end()
    with cloaca.DefaultRunner(server.url(), paused=True) as after:
        [run] = after.list_runs()
        assert (run["status"] == "Completed") == (told == "once")


@pytest.fixture
def asking(postgres_server: postgres.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    """A client that looks each time whether there is the workflow."""
    monkeypatch.setattr(served, "KNOWN_SECONDS", 0.0)
    with cloaca.WorkflowBuilder("quick"):

        @cloaca.task()
        def nothing(context: cloaca.Context) -> None:
            pass

    with postgres_server.database() as name, contextlib.closing(postgres.Way(postgres_server)) as way:
        url = postgres_server.url(name)
        with (
            cloaca.DefaultRunner(url),
            cloaca.DefaultRunner(way.url(name), work=False) as client,
        ):
            client.submit("quick").result(PATIENCE)
            yield Asking(client, way)


class Asking(NamedTuple):
    client: cloaca.DefaultRunner
    way: postgres.Way


def test_a_client_that_knows_a_workflow_asks_for_runs_of_it_while_the_server_refuses(asking: Asking) -> None:
    refusing = Refusing()
    log = logging.getLogger("cloaca")

    async def main() -> list[str]:
        calls = [asking.client.submit_async("quick"), asking.client.submit_async("quick", run_key="once")]
        tasks = [asyncio.ensure_future(call) for call in calls]
        executing = asyncio.ensure_future(asking.client.execute_async("quick"))
        await asyncio.to_thread(refusing.many.acquire, timeout=PATIENCE)
        refused.close()
        runs = [await task for task in tasks]
        results = [await run.wait(PATIENCE) for run in runs] + [await executing]
        return [result.status for result in results]

    log.addHandler(refusing)
    try:
        with contextlib.ExitStack() as refused:
            refused.enter_context(asking.way.refused())
            assert asyncio.run(main()) == ["Completed"] * 3
    finally:
        log.removeHandler(refusing)


def test_a_loop_goes_on_while_the_server_does_not_say_whether_there_is_a_workflow(asking: Asking) -> None:
    async def main() -> str:
        with asking.way.cut():
            submitting = asyncio.ensure_future(asking.client.submit_async("quick"))
            executing = asyncio.ensure_future(asking.client.execute_async("quick"))
            # Each has its turn, and this one another.
            for _ in range(3):
                await asyncio.sleep(0)
            # Only a server that answers ends what would hold the loop up.
            assert not submitting.done()
        return f"{(await (await submitting).wait(PATIENCE)).status} {(await executing).status}"

    assert asyncio.run(main()) == "Completed Completed"


WAITING = """
    SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"""


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody has the lock of the store, for as long as he likes."""
    key = 0x811C9DC5
    for byte in b"cloaca":
        key = (key ^ byte) * 0x01000193 % 2**32
    words = [postgres.program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(f"SELECT 'held' FROM pg_advisory_lock({0x636C6F61}, {key - (key >> 31 << 32)});\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()


def test_a_wait_for_the_lock_of_the_store_that_the_server_ends_is_begun_again(
    postgres_server: postgres.Server,
) -> None:
    """As it ends one that takes too long. What is asked next stands in no transaction of before."""
    begun: list[cloaca.Run] = []
    with cloaca.WorkflowBuilder("quick"):

        @cloaca.task()
        def nothing(context: cloaca.Context) -> None:
            pass

    with postgres_server.database() as name:
        url = postgres_server.url(name)
        with cloaca.DefaultRunner(url) as runner:
            asking = threading.Thread(target=lambda: begun.append(runner.submit("quick")))
            with locked(url):
                asking.start()
                for _ in range(3):
                    until(lambda: postgres.sql(url, WAITING), PATIENCE)
                    waiting = {pid for (pid,) in postgres.sql(url, WAITING)}
                    for pid in waiting:
                        postgres.sql(url, f"SELECT pg_cancel_backend({pid})")
            asking.join(PATIENCE)
            assert [run.result(PATIENCE).status for run in begun] == ["Completed"]


def test_a_runner_that_cannot_say_that_it_lives_begins_nothing_until_it_can(server: postgres.Server) -> None:
    """After three seconds: a second later another machine could go on with what it has."""
    begun: list[int] = []
    changed = threading.Condition()
    gate = threading.Event()

    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def note(context: cloaca.Context) -> None:
            with changed:
                begun.append(context["number"])
                changed.notify_all()
            gate.wait(PATIENCE)

    with cloaca.DefaultRunner(server.url(), max_concurrent_tasks=1) as runner:
        runs = runner.submit_many("work", [{"number": number} for number in range(3)])
        with changed:
            assert changed.wait_for(lambda: begun, PATIENCE)
        server.stop("immediate")
        # The span that it takes to be silent.
        time.sleep(3.5)
        gate.set()
        with changed:
            assert not changed.wait_for(lambda: len(begun) > 1, 1.0), begun
        server.resume()
        assert [run.result(PATIENCE).status for run in runs] == ["Completed"] * 3
    assert begun == [0, 1, 2]
