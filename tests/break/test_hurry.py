"""A further signal to a runner that shuts down while its server is frozen: that takes what is asked, and
answers nothing."""

from __future__ import annotations

import signal
import textwrap
from collections import Counter
from pathlib import Path
from time import monotonic

import postgres
import pytest
from attack import PRELUDE, Program, until

PATIENCE = 60.0
SOON = 4.0
"""Where nothing is waited for, on a machine that has much to do; what was waited for took at least 8 s."""

# What it runs goes on for ever; `how` is the way in which it waits for that once it is told to end.
SERVES = """
    import asyncio

    def in_process(context):
        say("begins cpu")
        time.sleep(3600)

    with cloaca.WorkflowBuilder("thread"):
        @cloaca.task(id="thread")
        def in_thread(context):
            say("begins thread")
            time.sleep(3600)

    with cloaca.WorkflowBuilder("coroutine"):
        @cloaca.task(id="coroutine")
        async def on_loop(context):
            say("begins coroutine")
            await asyncio.sleep(3600)

    with cloaca.WorkflowBuilder("cpu"):
        cloaca.task(id="cpu", executor="cpu")(in_process)

    def made(url=None):
        executors = {"cpu": cloaca.ProcessExecutor(1, kill_grace=1)}
        return cloaca.DefaultRunner(url or sys.argv[1], executors=executors, shutdown_seconds=600)

    def served():
        runner = made(os.environ["STORE"])
        submit(runner, *os.environ["KINDS"].split())
        threading.Thread(target=tell_that_it_hears, daemon=True).start()
        return runner

    def submit(runner, *kinds):
        for kind in kinds:
            runner.submit(kind)

    def tell_that_it_hears():
        until(lambda: callable(signal.getsignal(signal.SIGTERM)))
        say("hears")

    async def serve(kinds):
        async with made() as runner:
            await asyncio.to_thread(submit, runner, *kinds)
            await asyncio.to_thread(sys.stdin.readline)

    if __name__ == "__main__":
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
        how, *kinds = sys.argv[2:]
        if how == "async":
            asyncio.run(serve(kinds))
        else:
            with made() as runner:
                submit(runner, *kinds)
                if how == "forever":
                    threading.Thread(target=tell_that_it_hears, daemon=True).start()
                    runner.run_forever()
                else:
                    sys.stdin.readline()
"""


def told(program: Program, what: bytes) -> None:
    """Once its log says that."""
    assert program.process.stderr is not None
    while what not in (line := program.process.stderr.readline()):
        assert line, "it has ended"


@pytest.mark.parametrize("kind", ["thread", "coroutine", "cpu"])
@pytest.mark.parametrize("how", ["with", "forever", "async"])
def test_a_further_signal_ends_the_wait_for_a_frozen_server(
    way: postgres.Way, database: str, tmp_path: Path, how: str, kind: str
) -> None:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(SERVES))
    source = "sys.argv.pop(0); os.execv(sys.executable, [sys.executable, *sys.argv])"
    with Program(source, path, way.url(database), how, kind) as program:
        to_come = {f"begins {kind}"} | ({"hears"} if how == "forever" else set())
        while to_come:
            to_come.discard(program.line())
        with way.cut():
            if how == "forever":
                program.send(signal.SIGTERM)
            else:
                program.tell()
            told(program, b"shutting down; waiting")
            began = monotonic()
            program.send(signal.SIGINT)
            program.process.wait(PATIENCE)
            assert monotonic() - began < SOON


def test_a_third_signal_begins_no_other_wait(way: postgres.Way, database: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(SERVES))
    source = "sys.argv.pop(0); os.execv(sys.executable, [sys.executable, *sys.argv])"
    with Program(source, path, way.url(database), "forever", "thread", "cpu") as program:
        for _ in range(3):
            program.line()
        with way.cut():
            program.send(signal.SIGTERM)
            told(program, b"shutting down; waiting")
            began = monotonic()
            program.send(signal.SIGINT)
            until(lambda: program.process.poll() is not None or monotonic() - began > 0.2)
            program.send(signal.SIGINT)
            program.process.wait(PATIENCE)
            assert monotonic() - began < SOON


@pytest.mark.parametrize("workers", [1, 2])
def test_a_further_signal_ends_the_command_too(
    way: postgres.Way, database: str, tmp_path: Path, workers: int
) -> None:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(SERVES))
    source = "sys.argv.pop(0); os.execv(sys.executable, [sys.executable, '-m', 'cloaca', *sys.argv])"
    words = ["run", f"{path}:served", "--workers", str(workers)] if workers > 1 else ["run", f"{path}:served"]
    kinds = "thread coroutine cpu"
    with Program(source, *words, env={"STORE": way.url(database), "KINDS": kinds}) as program:
        to_come = Counter(workers * [*(f"begins {kind}" for kind in kinds.split()), "hears"])
        while to_come:
            to_come -= Counter([program.line()])
        with way.cut():
            program.send(signal.SIGTERM)
            told(program, b"shutting down; waiting")
            began = monotonic()
            program.send(signal.SIGINT)
            program.process.wait(PATIENCE)
            assert monotonic() - began < SOON
