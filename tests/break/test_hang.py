"""The store stands still and says nothing: every call hears Ctrl-C, and each ends by itself.

A server whose processes are stopped takes connections and answers nothing, and so does one behind a cable
that was pulled; a file may be locked by somebody for as long as he likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import postgres
import pytest

import cloaca

PATIENCE = 60.0
HEARD = 5.0
"""Ctrl-C is heard within a twentieth of a second, and what it ends has another one to go home."""
BOUND = 50.0
"""No call waits longer than thirty seconds; most know after ten that there is nobody to wait for."""


class Silence:
    """A store that can be made to say nothing."""

    def __init__(self, url: str, falls: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self.url, self.falls = url, falls


@pytest.fixture(scope="module")
def own(postgres_server: postgres.Server) -> Iterator[postgres.Server]:
    with TemporaryDirectory(dir="/tmp", prefix="cloaca-") as parent:
        Path(parent).chmod(0o711)
        server = postgres.Server(Path(parent) / "own")
        server.start()
        try:
            yield server
        finally:
            server.remove()


OUTSIDER = """
import sqlite3, sys
outsider = sqlite3.connect(sys.argv[1], isolation_level=None)
outsider.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


HOLDER = OUTSIDER.replace("EXCLUSIVE", "IMMEDIATE").replace("locked", "held")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """By another program, which does not let go of it."""
    words = [sys.executable, "-c", OUTSIDER, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outsider:
        assert outsider.stdout is not None
        assert outsider.stdout.readline() == b"locked\n"
        yield
        outsider.kill()


@pytest.fixture(params=["stopped", "cut", "locked"])
def silence(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Silence]:
    # Where a copy may be made.
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs.db"
    if request.param == "locked":
        yield Silence(str(path), lambda: locked(path))
        return
    server: postgres.Server = request.getfixturevalue("own")
    with server.database() as name, contextlib.closing(postgres.Way(server)) as way:
        if request.param == "cut":
            yield Silence(way.url(name), way.cut)
        else:
            yield Silence(server.url(name), server.hanging)


def declared() -> threading.Event:
    """A workflow whose run waits for an event."""
    gate = threading.Event()
    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def wait(context: cloaca.Context) -> None:
            gate.wait(PATIENCE)

    with cloaca.WorkflowBuilder("quick"):

        @cloaca.task()
        def nothing(context: cloaca.Context) -> None:
            pass

    @cloaca.trigger(workflow="quick", name="watch", poll_interval="1h")
    def watch() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip()

    @cloaca.trigger(workflow="quick", name="told", on_run="quick", status="Failed")
    def told(run: cloaca.types.RunDetails) -> bool:
        return False

    @cloaca.trigger(workflow="quick", name="fires", poll_interval="1h")
    def fires() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire()

    return gate


async def _submitted(runner: cloaca.DefaultRunner) -> cloaca.Run:
    return await runner.submit_async("quick")


Call = Callable[[cloaca.DefaultRunner, cloaca.Run], Any]
READS: dict[str, Call] = {
    "list_runs": lambda runner, run: runner.list_runs(),
    "get_run": lambda runner, run: runner.get_run(run.id),
    "list_trigger_schedules": lambda runner, run: runner.list_trigger_schedules(),
    "ticks": lambda runner, run: runner.ticks("watch"),
    "query": lambda runner, run: runner.query("SELECT 1 AS one"),
    "why": lambda runner, run: runner.why("watch"),
    "health": lambda runner, run: runner.health(),
    "export": lambda runner, run: runner.export("copy.db"),
    "list_runners": lambda runner, run: runner.list_runners(),
}
WRITES: dict[str, Call] = {
    "execute": lambda runner, run: runner.execute("quick"),
    "submit": lambda runner, run: runner.submit("quick", run_key="once"),
    "execute_async": lambda runner, run: asyncio.run(runner.execute_async("quick")),
    "submit_async": lambda runner, run: asyncio.run(_submitted(runner)),
    "cancel": lambda runner, run: runner.cancel(run.id),
    "retry": lambda runner, run: runner.retry(run.id),
    "pause": lambda runner, run: runner.pause(workflow="quick"),
    "set_trigger_enabled": lambda runner, run: runner.set_trigger_enabled("watch", False),
    "tick": lambda runner, run: runner.tick("fires"),
    "forget": lambda runner, run: runner.forget("nobody"),
    "rename": lambda runner, run: runner.rename("nobody", "somebody"),
    "skip_end": lambda runner, run: runner.skip_end("told"),
    "tell_soon": lambda runner, run: runner.tell_soon(run.id),
    "skip_callback": lambda runner, run: runner.skip_callback(run.id),
}
CALLS = {**READS, **WRITES}


def interrupt_soon() -> None:
    """As Ctrl-C does, in the midst of a wait or before one."""
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()


def heard_after(call: Callable[[], Any]) -> float:
    """How long it took to hear Ctrl-C. What is answered meanwhile, or refused, hears nothing."""
    began = monotonic()
    try:
        interrupt_soon()
        with contextlib.suppress(cloaca.StoreError):
            call()
        threading.Event().wait(PATIENCE)
    except KeyboardInterrupt:
        pass
    return monotonic() - began


def test_each_call_of_a_store_that_says_nothing_hears_an_interrupt(silence: Silence) -> None:
    gate = declared()
    with cloaca.DefaultRunner(silence.url) as runner:
        run = runner.submit("work")
        with silence.falls():
            took = {name: heard_after(partial(call, runner, run)) for name, call in CALLS.items()}
            gate.set()
    assert {name: seconds for name, seconds in took.items() if seconds > HEARD} == {}


def test_each_call_of_a_store_that_says_nothing_ends_by_itself(silence: Silence) -> None:
    gate = declared()
    ends: dict[str, BaseException | None] = {}

    def end(name: str) -> None:
        try:
            CALLS[name](runner, run)
        except Exception as error:
            ends[name] = error
        else:
            ends[name] = None

    with cloaca.DefaultRunner(silence.url) as runner:
        run = runner.submit("work")
        with silence.falls():
            # Those that write wait for one another, too.
            until = monotonic() + 2 * BOUND
            threads = [threading.Thread(target=end, args=[name], name=name, daemon=True) for name in CALLS]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(max(0.0, until - monotonic()))
            assert [thread.name for thread in threads if thread.is_alive()] == []
            gate.set()
    # Nobody is told that something starts which a store may never have.
    for name in ("submit", "execute", "submit_async", "execute_async", "tick"):
        assert isinstance(ends[name], cloaca.StoreError), name
    others = {
        name: error
        for name, error in ends.items()
        if not isinstance(error, cloaca.StoreError | TimeoutError | None)
    }
    assert others == {}


def test_opening_hears_an_interrupt_and_ends_by_itself(silence: Silence) -> None:
    with cloaca.DefaultRunner(silence.url):
        pass
    # A server that does not answer is given up after eight seconds.
    openings: dict[str, Callable[[], Any]] = {
        "a runner": lambda: cloaca.DefaultRunner(silence.url).shutdown(0),
        "a client": lambda: cloaca.DefaultRunner(silence.url, work=False).shutdown(0),
        "a look": lambda: cloaca.migrate(silence.url, print_only=True),
    }
    with silence.falls():
        took = {name: heard_after(opening) for name, opening in openings.items()}
        assert {name: seconds for name, seconds in took.items() if seconds > HEARD} == {}
        began = monotonic()
        with contextlib.suppress(cloaca.StoreError):
            openings["a runner"]()
        assert monotonic() - began < BOUND
    with cloaca.DefaultRunner(silence.url) as runner:
        assert runner.list_runs() == []


def submitted(runner: cloaca.DefaultRunner) -> threading.Thread:
    """Somebody who submits a run meanwhile."""

    def submit() -> None:
        with contextlib.suppress(cloaca.RunnerError, cloaca.StoreError):
            runner.submit("quick", {"by": "somebody"})

    thread = threading.Thread(target=submit)
    thread.start()
    return thread


def test_shutting_down_ends_in_its_time_and_the_next_runner_has_what_was_left(silence: Silence) -> None:
    gate = declared()
    gate.set()
    runner = cloaca.DefaultRunner(silence.url)
    runner.execute("work")
    with silence.falls():
        somebody = submitted(runner)
        began = monotonic()
        runner.shutdown(1)
        took = monotonic() - began
        somebody.join()
        assert took < BOUND / 4, took
    with cloaca.DefaultRunner(silence.url) as after:
        assert [run["status"] for run in after.list_runs(workflow="work")] == ["Completed"]
        assert after.execute("quick").status == "Completed"


def test_an_interrupt_of_a_shutdown_ends_that_at_once(silence: Silence) -> None:
    declared()
    runner = cloaca.DefaultRunner(silence.url)
    with silence.falls():
        somebody = submitted(runner)
        assert heard_after(lambda: runner.shutdown(PATIENCE)) < HEARD
        runner.shutdown(0)
        somebody.join()
    with cloaca.DefaultRunner(silence.url) as after:
        assert after.execute("quick").status == "Completed"


@contextlib.contextmanager
def held(url: str) -> Iterator[None]:
    """Somebody changes the store and does not come to an end: whoever reads goes on."""
    if url.startswith("postgres"):
        words = [postgres.program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", url]
        begin, end = "BEGIN; LOCK TABLE cloaca.runs IN EXCLUSIVE MODE; SELECT 'held';\n", "ROLLBACK;\n"
    else:
        words = [sys.executable, "-c", HOLDER, url]
        begin = end = ""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as outsider:
        assert outsider.stdin is not None
        assert outsider.stdout is not None
        outsider.stdin.write(begin)
        outsider.stdin.flush()
        assert outsider.stdout.readline() == "held\n"
        yield
        outsider.communicate(end)


@pytest.fixture(params=["sqlite", "postgres"])
def holdable(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that may be held."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return str(tmp_path / "runs.db")


def took(call: Callable[[], Any]) -> float:
    began = monotonic()
    call()
    return monotonic() - began


def waited(call: Callable[[], Any]) -> float:
    """How long the first call of it takes that waits: before, nothing is on its way to the store."""
    return next(seconds for seconds in iter(partial(took, call), PATIENCE) if seconds > 1.0)


def test_why_tells_of_polls_that_a_store_which_takes_nothing_has_no_word_of(holdable: str) -> None:
    declared().set()
    polled, called = threading.Semaphore(0), threading.Event()

    @cloaca.trigger(workflow="quick", name="often", poll_interval="10ms")
    def often() -> cloaca.TriggerResult:
        polled.release()
        return cloaca.TriggerResult.skip()

    @cloaca.trigger(
        workflow="quick", name="fails", poll_interval="10ms", on_error=cloaca.Backoff("1h", max="1h")
    )
    def fails() -> cloaca.TriggerResult:
        called.set()
        raise ValueError

    with cloaca.DefaultRunner(holdable) as runner:
        runner.cursor("often")
        with held(holdable):
            somebody = submitted(runner)
            for _ in range(5):
                assert polled.acquire(timeout=PATIENCE)
            assert called.wait(PATIENCE)
            told = {name: runner.why(name) for name in ("watch", "often", "fails")}
        somebody.join()
        after = runner.why("often")
    assert "trigger 'watch' has not been polled yet" in told["watch"]
    assert "trigger 'often' was last polled at 20" in told["often"]
    assert "none of its polls is on record yet; its next poll is due at 20" in told["often"]
    assert "trigger 'fails' backs off until" in told["fails"]
    for sentence in told.values():
        assert "; the store takes nothing at the moment: " in sentence
    assert "skipped at its last" in after
    assert "takes nothing" not in after


def test_why_tells_since_when_it_has_no_record(holdable: str) -> None:
    declared().set()
    polled = threading.Semaphore(0)

    @cloaca.trigger(workflow="quick", name="often", poll_interval="10ms")
    def often() -> cloaca.TriggerResult:
        polled.release()
        return cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(holdable) as runner:
        assert polled.acquire(timeout=PATIENCE)
        assert "skipped at its last" in runner.why("often")
        with held(holdable):
            somebody = submitted(runner)
            for _ in range(5):
                assert polled.acquire(timeout=PATIENCE)
            told = runner.why("often")
        somebody.join()
    assert "trigger 'often' skipped at its last" in told
    assert "; it was last polled at 20" in told
    assert ", which is not on record yet; the store takes nothing at the moment: " in told


def test_a_call_waits_once_for_a_store_that_takes_nothing_and_those_after_it_do_not(holdable: str) -> None:
    gate = declared()
    gate.set()

    @cloaca.trigger(workflow="quick", name="daily", cron="@daily")
    def daily(tick: cloaca.Tick) -> bool:
        return False

    with cloaca.DefaultRunner(holdable) as runner:
        run = runner.submit("work")
        run.result(PATIENCE)
        query = partial(runner.query, "SELECT 1 AS one")
        calls: dict[str, Callable[[], Any]] = {
            "why": lambda: runner.why("watch"),
            "why of a cron": lambda: runner.why("daily"),
            "why_run": lambda: runner.why_run(run.id),
            "ticks": lambda: runner.ticks("watch"),
            "list_trigger_schedules": runner.list_trigger_schedules,
            "get_trigger_schedule": lambda: runner.get_trigger_schedule("watch"),
            "list_cron_schedules": runner.list_cron_schedules,
            "cursor": lambda: runner.cursor("watch"),
            "get_run": lambda: runner.get_run(run.id),
        }
        with held(holdable):
            somebody = submitted(runner)
            alone = waited(query)
            # What it refuses, it refuses all of them.
            more = {name: took(call) for name, call in (calls | {"query": query}).items()}
        somebody.join()
        with held(holdable):
            somebody = submitted(runner)
            why = waited(calls["why"])
        somebody.join()
    assert {name: seconds for name, seconds in more.items() if seconds > alone / 2} == {}
    assert why < 1.5 * alone
