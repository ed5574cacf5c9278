"""`keep_logs=`: what bodies log is kept with their runs."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import logging.config
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import log_bodies
import pytest
from flow import declare
from program import eventually, run_program, start_program

import cloaca
from cloaca import logbook, reading, redact

WAIT = 60
LOCK = """
    import sqlite3, sys, threading

    database = sqlite3.connect(sys.argv[1], isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    threading.Event().wait()
    """
KILLED = """
    import logging, sys, threading
    import cloaca

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def hangs(context):
            logging.getLogger("killed").warning("in the body")
            print(cloaca.current_run().run_id, flush=True)
            threading.Event().wait()

    with cloaca.DefaultRunner(sys.argv[1], keep_logs="1 MiB") as runner:
        runner.execute("w")
    """
log = logging.getLogger("mail")


@pytest.fixture(autouse=True)
def everything_is_logged() -> Iterator[None]:
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(logging.NOTSET)


def keeping(
    url: str | Path = ":memory:", keep_logs: str | int = "1 MiB", **more: Any
) -> cloaca.DefaultRunner:
    return cloaca.DefaultRunner(url, keep_logs=keep_logs, **more)


def texts(runner: cloaca.DefaultRunner, run_id: str, **which: Any) -> list[str]:
    return [line["text"] for line in runner.logs(run_id, **which)]


def executed(runner: cloaca.DefaultRunner, workflow: str, context: dict[str, Any] | None = None) -> str:
    runner.execute(workflow, context or {})
    return str(runner.list_runs(workflow=workflow)[0]["id"])


def test_what_a_body_logs_is_kept_with_its_run() -> None:
    def sends(context: cloaca.Context) -> None:
        log.info("to %s", "ada")
        try:
            raise KeyError("address")
        except KeyError:
            log.exception("no address")

    declare("send", sends, id="deliver")
    with keeping() as runner:
        run = executed(runner, "send")
        first, second = runner.logs(run)
        names = ("level", "logger", "text", "task", "attempt", "callback", "error")
        known = {name: first[name] for name in names}
        assert known == {
            "level": "INFO",
            "logger": "mail",
            "text": "to ada",
            "task": "deliver",
            "attempt": 1,
            "callback": None,
            "error": None,
        }
        assert first["at"] <= second["at"]
        assert (second["level"], second["text"]) == ("ERROR", "no address")
        assert second["error"] is not None
        assert second["error"].startswith("Traceback")
        assert second["error"].endswith("KeyError: 'address'")
        assert first["number"] < second["number"]
        assert runner.logs(run).left_out == 0
        log.warning("outside of a body")
        assert len(runner.logs(run)) == 2


def test_without_keep_logs_nothing_is_taken_or_kept() -> None:
    declare("send", lambda context: log.warning("sent"))
    before = logging.Logger.handle
    with cloaca.DefaultRunner(":memory:") as runner:
        run = executed(runner, "send")
        assert runner.logs(run) == []
        assert logging.Logger.handle is before


def test_each_attempt_has_its_own_and_they_can_be_told_apart() -> None:
    def sends(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        current = cloaca.current_run()
        assert current is not None
        log.debug("try %s", current.attempt)
        log.warning("slow")
        if current.attempt == 1:
            raise OSError("gone")

    declare("send", sends, id="deliver", retry_attempts=2, retry_delay_ms=0)
    with keeping() as runner:
        run = executed(runner, "send")
        assert texts(runner, run) == ["try 1", "slow", "try 2", "slow"]
        assert texts(runner, run, attempt=2) == ["try 2", "slow"]
        assert texts(runner, run, level="WARNING") == texts(runner, run, level=30) == ["slow", "slow"]
        assert texts(runner, run, task="deliver", attempt=1, level="debug") == ["try 1", "slow"]
        assert texts(runner, run, task="other") == []
        assert texts(runner, run, limit=1) == ["slow"]
        first = runner.logs(run)[0]["number"]
        assert texts(runner, run, after=first, limit=2) == ["slow", "try 2"]


def test_what_a_failed_run_logged_is_there_when_the_run_says_that_it_failed(tmp_path: Path) -> None:
    def fails(context: cloaca.Context) -> None:
        log.error("about to fail")
        raise ValueError("no")

    declare("send", fails, retry_attempts=1)
    with (
        keeping(tmp_path / "runs.db") as runner,
        cloaca.DefaultRunner(tmp_path / "runs.db", work=False) as other,
    ):
        for _ in range(20):
            handle = runner.submit("send", {})
            assert handle.result(WAIT).status == "Failed"
            # By somebody for whom the runner writes nothing down.
            assert texts(other, handle.id) == ["about to fail"]


def test_a_line_is_there_while_its_body_still_runs() -> None:
    logged, goes_on = threading.Event(), threading.Event()

    def waits(context: cloaca.Context) -> None:
        log.warning("waiting")
        logged.set()
        assert goes_on.wait(WAIT)

    declare("send", waits)
    with keeping() as runner:
        handle = runner.submit("send", {})
        assert logged.wait(WAIT)
        assert texts(runner, handle.id) == ["waiting"]
        goes_on.set()
        handle.result(WAIT)


def test_async_bodies_and_threads_with_their_context_are_heard() -> None:
    async def sends(context: cloaca.Context) -> None:
        log.info("on the loop")
        await asyncio.to_thread(log.info, "beside it")
        thread = threading.Thread(target=contextvars.copy_context().run, args=(log.info, "with the context"))
        thread.start()
        thread.join()

    declare("send", sends)
    with keeping() as runner:
        assert texts(runner, executed(runner, "send")) == ["on the loop", "beside it", "with the context"]


@pytest.mark.parametrize("is_loop", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_callbacks_of_tasks_and_runs_are_heard(is_async: bool, is_loop: bool) -> None:
    def told(task_id: str, context: cloaca.Context) -> None:
        log.info("done: %s", task_id)

    async def told_async(task_id: str, context: cloaca.Context) -> None:
        log.info("done: %s", task_id)

    def over(run: dict[str, Any]) -> None:
        log.info("over: %s", run["status"])
        is_over.set()

    is_over = threading.Event()
    with cloaca.WorkflowBuilder("send") as builder:
        builder.on_success(over)

        def deliver(context: cloaca.Context) -> None:
            log.info("deliver")

        async def deliver_async(context: cloaca.Context) -> None:
            log.info("deliver")

        told_by = told_async if is_async else told
        cloaca.task(id="deliver", on_success=told_by)(deliver_async if is_loop else deliver)

    with keeping() as runner:
        run = executed(runner, "send")
        assert is_over.wait(WAIT)
        lines = [(line["text"], line["task"], line["attempt"], line["callback"]) for line in runner.logs(run)]
        assert sorted(lines, key=str) == [
            ("deliver", "deliver", 1, None),
            ("done: deliver", "deliver", 1, "on_success"),
            ("over: Completed", None, None, "on_success"),
        ]


@pytest.mark.parametrize("name", ["own", "pool"])
def test_bodies_in_other_processes_are_heard(name: str) -> None:
    executor: Any = cloaca.ProcessExecutor(1)
    if name == "pool":
        executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with cloaca.WorkflowBuilder("far"):
        for body, retries in ((log_bodies.logs, 1), (log_bodies.logs_and_fails, 1)):
            cloaca.task(id=body.__name__, executor="pool", retry_attempts=retries)(body)
    with keeping(executors={"pool": executor}, redact=["token"]) as runner:
        run = executed(runner, "far", {"token": "sesame-42"})
        assert texts(runner, run, task="logs") == ["there", "0", "1"]
        (line,) = runner.logs(run, task="logs_and_fails")
        assert (line["text"], line["level"], line["attempt"]) == ("with [redacted]", "ERROR", 1)
        assert texts(runner, run, task="logs_and_fails", unmasked=True) == ["with sesame-42"]


def test_of_a_run_that_logs_much_the_newest_lines_are_kept_and_the_others_counted() -> None:
    def chatters(context: cloaca.Context) -> None:
        for number in range(3000):
            log.info("%05d %s", number, "x" * 200)

    declare("chat", chatters)
    declare("other", lambda context: log.info("once"))
    with keeping(keep_logs="64 KiB") as runner:
        other = executed(runner, "other")
        run = executed(runner, "chat")
        found = runner.logs(run, limit=10_000)
        numbers = [int(line["text"][:5]) for line in found]
        assert numbers == list(range(3000 - len(found), 3000)), "the newest, without a gap"
        assert found.left_out == 3000 - len(found)
        assert 32 * 1024 < sum(len(line["text"]) for line in found) <= 64 * 1024
        assert texts(runner, other) == ["once"], "each run has its own bound"


@pytest.mark.parametrize("executor", [None, "pool"])
def test_what_is_left_out_is_counted_wherever_the_body_runs(executor: str | None) -> None:
    with cloaca.WorkflowBuilder("far"):
        cloaca.task(executor=executor)(log_bodies.chatters)
    with keeping(keep_logs="64 KiB", executors={"pool": cloaca.ProcessExecutor(1)}) as runner:
        found = runner.logs(executed(runner, "far", {"lines": 3000}), limit=10_000)
        assert [int(line["text"][:5]) for line in found] == list(range(3000 - len(found), 3000))
        assert 100 < len(found) == 3000 - found.left_out


@pytest.mark.parametrize("executor", [None, "pool"])
def test_a_long_line_is_cut_and_takes_no_other_with_it_wherever_the_body_runs(executor: str | None) -> None:
    with cloaca.WorkflowBuilder("far"):
        cloaca.task(executor=executor)(log_bodies.logs_at_length)
    processes = cloaca.ProcessExecutor(1)
    with keeping(keep_logs="64 KiB", executors={"pool": processes}, redact=["token"]) as runner:
        found = runner.logs(executed(runner, "far", {"token": "sesame-42-and-more"}))
        assert [line["text"][:1] for line in found] == ["0", "1", "2", "y", "…", "e"]
        assert found.left_out == 0
        assert len(found[3]["text"]) == 16_384
        assert "sesame" not in found[4]["text"]


def test_lines_go_with_their_run(tmp_path: Path) -> None:
    declare("send", lambda context: log.info("sent"))
    with keeping(tmp_path / "runs.db") as runner:
        assert texts(runner, executed(runner, "send")) == ["sent"]
    with cloaca.DefaultRunner(tmp_path / "runs.db", retention="1ms") as runner:

        def is_empty() -> bool:
            return runner.query(
                "SELECT (SELECT count(*) FROM logs) + (SELECT count(*) FROM logged) AS n"
            ) == [{"n": 0}]

        assert eventually(is_empty)


def test_what_is_hidden_of_contexts_stands_in_no_line() -> None:
    def sends(context: cloaca.Context) -> None:
        context["token"] = "swordfish"
        log.warning("given %s, made %s", context["password"], context["token"])
        del context["token"]
        raise ValueError("no")

    declare("send", sends)
    with keeping(redact=["password", "token"]) as runner:
        run = executed(runner, "send", {"password": "sesame-42"})
        assert texts(runner, run) == ["given [redacted], made [redacted]"]
        assert texts(runner, run, unmasked=True) == ["given sesame-42, made [redacted]"]
        (kept,) = runner.query("SELECT text FROM logs")
        assert "swordfish" not in kept["text"]


@pytest.mark.parametrize("store", ["file", "server"])
def test_what_a_killed_process_logged_a_moment_before_is_there(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if store == "file" and request.config.getoption("--store") != "sqlite":
        pytest.skip("another process has the file itself")
    path = str(tmp_path / "runs.db") if store == "file" else request.getfixturevalue("postgres_url")
    with start_program(KILLED, path) as program, closing(program.stdout or io.StringIO()) as told:
        try:
            run = told.readline().strip()
            with reading.Reader(path) as reader:
                # Nothing else is written meanwhile: it comes by itself.
                assert eventually(
                    lambda: [line.text for line in reading.logs(reader, run).lines] == ["in the body"]
                )
                program.kill()
                program.wait(WAIT)
                assert [line.text for line in reading.logs(reader, run).lines] == ["in the body"]
        finally:
            program.kill()
            program.communicate()


def test_a_store_that_takes_nothing_holds_up_no_line_and_what_is_too_much_is_counted(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--store") != "sqlite":
        pytest.skip("another process has the file itself")
    in_body, is_locked, has_logged = threading.Event(), threading.Event(), threading.Event()

    def logs(context: cloaca.Context) -> None:
        in_body.set()
        assert is_locked.wait(WAIT)
        for _ in range(1500):
            log.info("x" * 16_000)
        has_logged.set()

    declare("send", logs)
    path = tmp_path / "runs.db"
    log.propagate = False
    try:
        with keeping(path, "64 MiB") as runner:
            handle = runner.submit("send", {})
            assert in_body.wait(WAIT)
            with start_program(LOCK, path) as other:
                try:
                    assert other.stdout is not None
                    assert other.stdout.readline() == "locked\n"
                    is_locked.set()
                    assert has_logged.wait(WAIT), "while the store takes nothing"
                finally:
                    other.kill()
                    other.communicate()
            handle.result(WAIT)
            found = runner.logs(handle.id, limit=10_000)
            assert len(found) + found.left_out == 1500
            # 16 MiB wait for the store.
            assert 900 < len(found) < 1100
    finally:
        log.propagate = True


def test_another_process_reads_what_was_kept(tmp_path: Path) -> None:
    declare("send", lambda context: log.info("sent"))
    with keeping(tmp_path / "runs.db") as runner:
        run = executed(runner, "send")
    with reading.Reader(tmp_path / "runs.db") as reader:
        found = reading.logs(reader, run[:23])
        assert [line.text for line in found.lines] == ["sent"]
        assert found.left_out == 0
        with pytest.raises(reading.MissingError):
            reading.logs(reader, "00000000-0000-7000-8000-000000000000")
        with pytest.raises(ValueError, match="level is 'loud'"):
            reading.logs(reader, run, level="loud")


def test_records_that_do_not_fit_cost_neither_the_body_nor_another_line(
    request: pytest.FixtureRequest,
) -> None:
    nul = "\0" if request.config.getoption("--store") == "sqlite" else "\u2400"

    class Odd:
        def __str__(self) -> str:
            raise OSError("no text")

    def logs(context: cloaca.Context) -> None:
        log.info("%d lines", "many")
        log.info("%s", Odd())
        log.info("a\0b \udce9")
        log.info("x" * 100_000)
        log.info("stack", stack_info=True)

    declare("send", logs)
    log.propagate = False
    try:
        with keeping() as runner:
            run = executed(runner, "send")
            assert runner.list_runs()[0]["status"] == "Completed"
            found = runner.logs(run)
            assert found[0]["text"].startswith("%d lines (TypeError: ")
            assert found[1]["text"] == "%s (OSError: no text)"
            assert found[2]["text"] == f"a{nul}b \\udce9"
            assert len(found[3]["text"]) == 16_384
            assert found[4]["error"] is not None
            assert found[4]["error"].startswith("Stack (most recent call last)")
    finally:
        log.propagate = True


@pytest.mark.parametrize("executor", [None, "pool"])
def test_what_a_value_raises_as_it_is_shown_never_reaches_the_body(executor: str | None) -> None:
    kinds = ["SystemExit", "GeneratorExit", "BaseException"]
    if executor is None:
        # No signal comes to the body's thread.
        kinds.insert(2, "KeyboardInterrupt")
    with cloaca.WorkflowBuilder("far"):
        cloaca.task(executor=executor)(log_bodies.logs_what_ends)
    log_bodies.log.propagate = False
    try:
        with keeping(executors={"pool": cloaca.ProcessExecutor(1)}) as runner:
            run = executed(runner, "far", {"kinds": kinds})
            assert runner.list_runs()[0]["status"] == "Completed"
            told = [(f"of %s ({kind})", f"<class 'log_bodies.Ends'> ({kind})") for kind in kinds]
            assert texts(runner, run) == [text for texts in told for text in texts]
    finally:
        log_bodies.log.propagate = True


def test_what_a_signal_raises_amid_a_line_reaches_the_program() -> None:
    program = """
        import asyncio, logging, os, signal
        import cloaca

        class Leaves(BaseException):
            pass

        def leaves(number, frame):
            raise Leaves

        class Signals:
            def __init__(self, number):
                self.number = number

            def __str__(self):
                signal.raise_signal(self.number)
                return "told"

        async def main():
            async with cloaca.DefaultRunner(":memory:", keep_logs="1 MiB") as runner:
                await runner.execute_async("w", {})

        with cloaca.WorkflowBuilder("w"):

            @cloaca.task()
            async def body(context):
                signal.signal(signal.SIGTERM, leaves)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number in (signal.SIGTERM, signal.SIGINT):
                    try:
                        logging.getLogger("quiet").warning("%s", Signals(number))
                    except BaseException as raised:
                        print(type(raised).__name__, flush=True)

        logging.getLogger("quiet").propagate = False
        asyncio.run(main())
        """
    done = run_program(program)
    assert done.stdout.split() == ["Leaves", "KeyboardInterrupt"], done.stderr


def test_what_the_program_does_to_logging_later_ends_nothing() -> None:
    def factory(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        return logging.LogRecord(*arguments, **keywords)

    def logs(context: cloaca.Context) -> None:
        log.info("before")
        # None of the two knows what was there before.
        logging.setLogRecordFactory(factory)
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        log.info("after")
        log.handle(logging.makeLogRecord({"name": "far", "levelno": 40, "msg": "made %s", "args": ("here",)}))

    declare("send", logs)
    before = logging.getLogRecordFactory()
    try:
        with keeping() as runner:
            assert texts(runner, executed(runner, "send")) == ["before", "after", "made here"]
            assert texts(runner, executed(runner, "send")) == ["before", "after", "made here"]
    finally:
        logging.setLogRecordFactory(before)


def test_what_the_program_sets_of_logging_stays_as_it_is() -> None:
    def factory(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        return logging.LogRecord(*arguments, **keywords)

    declare("send", lambda context: log.info("sent"))
    before, handlers, handle = (
        logging.getLogRecordFactory(),
        list(logging.root.handlers),
        logging.Logger.handle,
    )
    logging.setLogRecordFactory(factory)
    try:
        with keeping() as first, keeping() as second:
            assert logging.root.handlers == handlers
            assert logging.getLogRecordFactory() is factory
            for runner in (first, second):
                assert texts(runner, executed(runner, "send")) == ["sent"], "once, and its own"
        assert logging.Logger.handle is handle
    finally:
        logging.setLogRecordFactory(before)


def test_what_others_put_around_the_handling_of_lines_stays() -> None:
    handled: list[str] = []
    before = logging.Logger.handle

    def around(self: logging.Logger, record: logging.LogRecord) -> None:
        handled.append(record.getMessage())
        inner(self, record)

    declare("send", lambda context: log.info("sent"))
    try:
        with keeping() as runner:
            inner = logging.Logger.handle
            logging.Logger.handle = around  # type: ignore[method-assign]
            assert texts(runner, executed(runner, "send")) == ["sent"]
        assert logging.Logger.handle is around
        with keeping() as runner:
            assert texts(runner, executed(runner, "send")) == ["sent"], "once"
            assert handled.count("sent") == 2
            logging.Logger.handle = before  # type: ignore[method-assign]
            with keeping():
                assert texts(runner, executed(runner, "send")) == ["sent"], "the next one takes it up again"
    finally:
        logging.Logger.handle = before  # type: ignore[method-assign]


@pytest.mark.parametrize("keep_logs", ["1 MB", "much", "0 B", "2 GiB", 10, True, 1.5])
def test_what_is_no_size_is_refused(keep_logs: Any) -> None:
    with pytest.raises(ValueError, match="keep_logs is "):
        cloaca.DefaultRunnerConfig(keep_logs=keep_logs)


def test_a_size_is_a_text_or_a_number_of_bytes() -> None:
    assert cloaca.DefaultRunnerConfig(keep_logs="1.5 MiB").to_dict()["keep_logs"] == "1.5 MiB"
    assert cloaca.DefaultRunnerConfig(keep_logs=4096).keep_logs == 4096
    assert "keep_logs" not in cloaca.DefaultRunnerConfig().to_dict()


def test_a_line_waits_for_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    mask = redact.Looker.mask

    def counted(self: redact.Looker, unmasked: bool = False) -> redact.Mask | None:
        looked.append(threading.get_ident())
        return mask(self, unmasked)

    async def logs(context: cloaca.Context) -> None:
        before = looked.count(threading.get_ident())
        log.info("token %s", context["token"])
        context["looked"] = looked.count(threading.get_ident()) - before

    monkeypatch.setattr(redact.Looker, "mask", counted)
    declare("w", logs)
    with cloaca.DefaultRunner(":memory:", keep_logs="1 MiB", redact=["token"]) as runner:
        run = runner.submit("w", {"token": "s3cret-s3cret"})
        assert run.result(WAIT).final_context["looked"] == 0
        assert [line["text"] for line in runner.logs(run.id)] == [f"token {redact.MASK}"]


def test_what_another_program_hides_is_hidden_in_lines_soon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logbook, "HEARD_SECONDS", 0.01)
    goes_on = threading.Event()

    def logs(context: cloaca.Context) -> None:
        context["token"] = "s3cret-s3cret"
        while not goes_on.wait(0.02):
            log.info("token %s", context["token"])
        log.info("at last %s", context["token"])
        del context["token"]

    declare("w", logs)
    with cloaca.DefaultRunner(tmp_path / "runs.db", keep_logs="1 MiB") as runner:
        run = runner.submit("w")
        run_program(HIDES, str(tmp_path / "runs.db"))
        assert eventually(lambda: runner._redactor.known() is not None)
        goes_on.set()
        run.result(WAIT)
        assert runner.logs(run.id)[-1]["text"] == f"at last {redact.MASK}"


HIDES = """
    import sys
    import cloaca

    cloaca.DefaultRunner(sys.argv[1], redact=["token"], work=False).shutdown()
    """
