"""Runners on several machines, of which one is not heard of: cut off, stopped, killed, its server starts."""

from __future__ import annotations

import signal
import textwrap
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import far_bodies
import postgres
import pytest
from attack import PRELUDE, Program, until

import cloaca
from cloaca import reading

PATIENCE = 60.0

# Each has a folder for its lock: others know it by its beats alone, as if it were on another machine.
# What the first one begins goes on until it may not, or is told to end.
MACHINE = """
    import asyncio

    url, name, job = sys.argv[1:]
    released = threading.Event()

    with cloaca.WorkflowBuilder("work"):
        @cloaca.task(retry_attempts=1)
        async def coroutine(context, handle):
            say("begins", "coroutine", handle.attempt, time.monotonic())
            last = time.monotonic()
            try:
                while name == "first":
                    last = time.monotonic()
                    await asyncio.sleep(0.01)
            finally:
                say("ends", "coroutine", last)
            return {"coroutine": name}

        @cloaca.task(retry_attempts=1)
        def thread(context, handle):
            say("begins", "thread", handle.attempt, time.monotonic())
            if name == "first":
                last = before = time.monotonic()
                while not released.is_set() and handle.is_current():
                    last, before = before, time.monotonic()
                    time.sleep(0.01)
                say("doubts", "thread", last, handle.cancelled and cloaca.current_run().cancelled)
                released.wait()
                say("ends", "thread", handle.is_current())
            return {"thread": name}

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    with cloaca.DefaultRunner(url) as runner:
        if job == "submits":
            runner.submit("work", {})
        say("serves")
        sys.stdin.readline()
        released.set()
        sys.stdin.readline()
"""


@pytest.fixture
def homes(tmp_path: Path) -> list[dict[str, str]]:
    """What makes of each process one on a machine of its own."""
    found = [tmp_path / "first", tmp_path / "second"]
    for folder in found:
        folder.mkdir(mode=0o700)
    return [{"XDG_RUNTIME_DIR": str(folder)} for folder in found]


def begun(program: Program) -> dict[str, tuple[int, float]]:
    """The attempts of both tasks, as they begin, and when."""
    found: dict[str, tuple[int, float]] = {}
    while len(found) < 2:
        _, task, attempt, at = program.until("begins").split()
        found[task] = int(attempt), float(at)
    return found


def stopped(program: Program) -> tuple[float, float, bool]:
    """When the coroutine and the thread last went on, and whether the thread is told to end."""
    found: dict[tuple[str, ...], list[str]] = {}
    while len(found) < 2:
        what, *words = program.line().split()
        if what in ("ends", "doubts"):
            found[what, words[0]] = words[1:]
    [ended] = found["ends", "coroutine"]
    current, cancelled = found["doubts", "thread"]
    return float(ended), float(current), cancelled == "True"


def finished(url: str) -> reading.RunDetails:
    with reading.Reader(url) as reader:
        [run] = reading.runs(reader)
        return reading.run(reader, run.id)


def test_who_is_cut_off_stops_before_another_machine_goes_on(
    postgres_server: postgres.Server, way: postgres.Way, database: str, homes: list[dict[str, str]]
) -> None:
    with Program(MACHINE, way.url(database), "first", "submits", env=homes[0]) as first:
        assert {attempt for attempt, _ in begun(first).values()} == {1}
        url = postgres_server.url(database)
        with Program(MACHINE, url, "second", "waits", env=homes[1]) as second:
            second.until("serves")
            with way.cut():
                ended, current, is_cancelled = stopped(first)
                assert is_cancelled
                taken = begun(second)
            assert {attempt for attempt, _ in taken.values()} == {2}
            # What it saw last before it was cut off was earlier than what the other one began.
            assert ended < taken["coroutine"][1]
            assert current < taken["thread"][1]
            first.tell()
            assert first.until("ends thread").split()[-1] == "False"
            second.tell()
            second.tell()
            second.end()
    run = finished(url)
    assert run.run.status == "Completed"
    assert run.final_context is not None
    assert (run.final_context["coroutine"], run.final_context["thread"]) == ("second", "second")


def test_who_is_cut_off_in_the_middle_of_a_write_holds_up_nobody_for_longer_than_its_silence(
    postgres_server: postgres.Server, way: postgres.Way, database: str
) -> None:
    with cloaca.WorkflowBuilder("work"):

        @cloaca.task()
        def task(context: cloaca.Context) -> None:
            pass

    url = postgres_server.url(database)
    with cloaca.DefaultRunner(url) as other, cloaca.DefaultRunner(way.url(database), work=False) as client:
        [row] = client.query(
            "SELECT extract(epoch FROM current_setting(?)::interval)::float8 AS s",
            ["idle_in_transaction_session_timeout"],
        )
        # It begins nothing after three seconds, and is taken for dead after four.
        assert 0 < row["s"] < 3
        with way.cut_behind(b"pg_advisory_xact_lock") as is_cut:
            asking = threading.Thread(target=client.submit, args=("work", {"by": "client"}))
            asking.start()
            assert is_cut.wait(PATIENCE)
            # Which needs the lock that a session has that nobody can reach.
            assert other.execute("work", {"by": "other"}, timeout=PATIENCE).status == "Completed"
        asking.join(PATIENCE)
        until(lambda: len(other.list_runs(status="Completed")) == 2, PATIENCE)


TELLER = """
    url, name, job = sys.argv[1:]
    released = threading.Event()

    with cloaca.WorkflowBuilder("work").on_success(lambda run: say("tells", name)):
        @cloaca.task()
        def only(context):
            say("begins")
            released.wait()

    with cloaca.DefaultRunner(url) as runner:
        if job == "submits":
            runner.submit("work", {})
        say("serves")
        sys.stdin.readline()
        released.set()
        if name == "first":
            until(lambda: "stopped" in [reason["code"] for reason in runner.health()["reasons"]])
            say("stopped")
        else:
            sys.stdin.readline()
"""


TAKES = (b"UPDATE ends SET due_at", b"COMMIT")
READS = (*TAKES, b"FROM tries WHERE run = $1")


@pytest.mark.parametrize("words", [TAKES, READS], ids=["takes", "reads"])
def test_who_hears_too_late_that_an_end_is_its_own_to_tell_tells_nobody(
    postgres_server: postgres.Server,
    way: postgres.Way,
    database: str,
    homes: list[dict[str, str]],
    words: tuple[bytes, ...],
) -> None:
    with Program(TELLER, way.url(database), "first", "submits", env=homes[0]) as first:
        first.until("begins")
        with Program(TELLER, postgres_server.url(database), "second", "waits", env=homes[1]) as second:
            second.until("serves")
            # It is to tell of the end, and does not hear so, or reads what there is to tell.
            with way.cut_behind(*words) as is_cut:
                first.tell()
                assert is_cut.wait(PATIENCE)
                second.tell()
                second.until("tells second")
            said = []
            while (line := first.line()) != "stopped":
                said.append(line)
            assert "tells first" not in said
            second.tell()
            second.end()
    assert finished(postgres_server.url(database)).run.status == "Completed"


def test_what_was_told_to_end_is_made_again_if_nobody_took_it(
    way: postgres.Way, database: str, tmp_path: Path
) -> None:
    """It uses up none of its attempts, and what cannot be stopped may go on to its end."""
    told = threading.Event()
    released = threading.Event()
    begun: list[int] = []
    current: list[bool] = []
    handles: list[cloaca.TaskHandle] = []

    with cloaca.WorkflowBuilder("work"):

        @cloaca.task(retry_attempts=1)
        async def coroutine(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            import asyncio

            begun.append(handle.attempt)
            if handle.attempt == 1:
                try:
                    await asyncio.sleep(PATIENCE)
                finally:
                    told.set()

        @cloaca.task(retry_attempts=1)
        def ends(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            handles.append(handle)
            current.append(handle.is_current())
            released.wait(PATIENCE)
            current.append(handle.is_current())

        @cloaca.task(retry_attempts=1)
        def raises(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            released.wait(PATIENCE)
            if handle.attempt == 1:
                raise ValueError("it was told to end")

        cloaca.task(id="far", retry_attempts=1, executor="cpu")(far_bodies.lasts_at_first)

    executors = {"cpu": cloaca.ProcessExecutor(max_workers=1)}
    with cloaca.DefaultRunner(way.url(database), executors=executors) as runner:
        run = runner.submit("work", {"folder": str(tmp_path)})
        until(lambda: begun and current and (tmp_path / "begun").exists())
        with way.cut():
            assert told.wait(PATIENCE)
            assert not handles[0].is_current()
            until(lambda: (tmp_path / "told True").exists())
        until(lambda: handles[0].is_current())
        released.set()
        assert run.result(PATIENCE).status == "Completed"
        details = runner.get_run(run.id)
    assert details is not None
    assert begun == [1, 2]
    assert current == [True, True]
    tries = {task["id"]: task["tries"] for task in details["tasks"]}
    assert [each["outcome"] for each in tries["coroutine"]] == ["Interrupted", "Completed"]
    assert [each["outcome"] for each in tries["raises"]] == ["Interrupted", "Completed"]
    assert [each["outcome"] for each in tries["far"]] == ["Interrupted", "Completed"]
    assert [each["outcome"] for each in tries["ends"]] == ["Completed"]


PROCESS = """
    with cloaca.WorkflowBuilder("work"):
        @cloaca.task(retry_attempts=1, executor="cpu")
        def counts(context):
            pause = 0 if os.path.exists(sys.argv[2]) else 60
            say("begins")
            time.sleep(pause)

    if __name__ == "__main__":
        with cloaca.DefaultRunner(sys.argv[1], executors={"cpu": cloaca.ProcessExecutor(1)}) as runner:
            run = runner.submit("work", {})
            say("ended", run.result(60).status)
"""


def test_a_body_in_a_process_of_its_own_is_stopped(way: postgres.Way, database: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(PROCESS))
    again = tmp_path / "again"
    source = (
        "import runpy; sys.argv[0] = sys.argv.pop(1); os.execv(sys.executable, [sys.executable, *sys.argv])"
    )
    with Program(source, path, way.url(database), again) as program:
        program.until("begins")
        again.touch()
        with way.cut():
            # By its own log: the store does not answer.
            assert program.process.stderr is not None
            while b"told to end" not in program.process.stderr.readline():
                pass
        program.until("begins")
        assert program.until("ended") == "ended Completed"


def test_who_stood_still_for_longer_than_its_silence_may_last_is_refused(
    postgres_server: postgres.Server, database: str, homes: list[dict[str, str]]
) -> None:
    url = postgres_server.url(database)
    with Program(MACHINE, url, "first", "submits", env=homes[0]) as first:
        begun(first)
        first.stop()
        with Program(MACHINE, url, "second", "waits", env=homes[1]) as second:
            assert {attempt for attempt, _ in begun(second).values()} == {2}
            first.tell()
            first.go_on()
            assert first.until("ends thread").split()[-1] == "False"
            first.tell()
            told = first.end()
            # Which of the two it hears of first is the threads' matter.
            assert "takes this runner for dead" in told or "was taken over by another runner" in told
            second.tell()
            second.tell()
            second.end()
    run = finished(url)
    assert run.run.status == "Completed"
    assert run.final_context is not None
    assert (run.final_context["coroutine"], run.final_context["thread"]) == ("second", "second")
    assert {task.attempts for task in run.tasks} == {2}


@pytest.mark.parametrize("seen", ["in one folder", "a service beside a login"])
def test_who_is_stopped_on_the_same_machine_is_left_alone(
    postgres_server: postgres.Server, database: str, homes: list[dict[str, str]], tmp_path: Path, seen: str
) -> None:
    """Its lock is held, however long it says nothing. One of another machine is taken for dead beside it."""
    url = postgres_server.url(database)
    here = homes[0]
    if seen == "a service beside a login":
        # Who was not told of a folder has its own where files are that nobody keeps.
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        here |= {"TMPDIR": str(temporary)}
        first_home = {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": ""}
    else:
        first_home = here
    with Program(MACHINE, url, "first", "submits", env=first_home) as first:
        begun(first)
        first.stop()
        with Program(SERVES, url, env=homes[1]) as stranger:
            stranger.until("serves")
            stranger.stop()
            with Program(MACHINE, url, "second", "waits", env=here) as second:
                second.until("serves")
                with reading.Reader(url) as reader:

                    def left() -> list[bool]:
                        runners = sorted(reading.runners(reader, left=True), key=lambda each: each.number)
                        return [each.left_at is not None for each in runners]

                    # The stranger was heard of later than the first.
                    until(lambda: any(left()), PATIENCE)
                    assert left() == [False, True, False]
                second.tell()
                second.tell()
                second.end()
                assert not any(line.startswith("begins") for line in second.lines)


def test_who_is_killed_on_another_machine_is_taken_over(
    postgres_server: postgres.Server, database: str, homes: list[dict[str, str]]
) -> None:
    url = postgres_server.url(database)
    with Program(MACHINE, url, "second", "waits", env=homes[1]) as second:
        second.until("serves")
        with Program(MACHINE, url, "first", "submits", env=homes[0]) as first:
            begun(first)
            first.send(signal.SIGKILL)
            assert {attempt for attempt, _ in begun(second).values()} == {2}
        second.tell()
        second.tell()
        second.end()
    assert finished(url).run.status == "Completed"


def test_nobody_is_dead_of_silence_just_after_the_server_has_started(homes: list[dict[str, str]]) -> None:
    """Its start silences all: for ten seconds nobody's silence counts."""
    with TemporaryDirectory(dir="/tmp", prefix="cloaca-") as parent:
        Path(parent).chmod(0o711)
        server = postgres.Server(Path(parent) / "own")
        server.start({"fsync": "on", "full_page_writes": "on"})
        try:
            with Program(MACHINE, server.url(), "first", "submits", env=homes[0]) as first:
                begun(first)
                first.stop()
                server.stop("immediate")
                server.resume()
                with Program(MACHINE, server.url(), "second", "waits", env=homes[1]) as second:
                    begun(second)
                    [[seconds]] = server.sql(
                        "SELECT min(left_at) / 1e6 - extract(epoch FROM pg_postmaster_start_time())"
                        " FROM cloaca.owners"
                    )
                    assert float(seconds) >= 10.0
                    second.tell()
                    second.tell()
                    second.end()
        finally:
            server.remove()


SERVES = """
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    runner = cloaca.DefaultRunner(sys.argv[1])
    say("serves")
    runner.run_forever()
"""


def test_a_service_that_was_taken_for_dead_ends_so_that_its_supervisor_begins_it_anew(
    postgres_server: postgres.Server, database: str, homes: list[dict[str, str]]
) -> None:
    url = postgres_server.url(database)
    with Program(SERVES, url, env=homes[0]) as first:
        first.until("serves")
        first.stop()
        with cloaca.DefaultRunner(url) as runner:
            until(lambda: [each["left_at"] for each in runner.list_runners()].count(None) == 1, PATIENCE)
            first.go_on()
            errors = first.end(code=1)
    assert "ERROR the store takes this runner for dead; make a new one" in errors
    assert "RunnerError" in errors
