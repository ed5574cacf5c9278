"""What a program asks of its runner when the interpreter ends: it gets an answer, and the program ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from attack import Program

SECONDS = 60.0

HEAD = """
    import atexit, sys, threading, time
    import cloaca

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)

    def execute(where):
        try:
            print(where, runner.execute("w").status, flush=True)
        except cloaca.RunnerError as refused:
            print(where, "refused", flush=True)
"""

PLACES = {
    "another thread, after the main thread has ended": """
    main = threading.main_thread()
    def late():
        main.join()
        execute("late")
    runner = cloaca.DefaultRunner(":memory:")
    threading.Thread(target=late).start()
    """,
    "atexit, before the runner's end": """
    runner = cloaca.DefaultRunner(":memory:")
    atexit.register(execute, "late")
    """,
    "atexit, after the runner's end": """
    atexit.register(execute, "late")
    runner = cloaca.DefaultRunner(":memory:")
    """,
    "daemons that ask again and again": """
    runner = cloaca.DefaultRunner(":memory:")
    def ask():
        while True:
            try:
                runner.execute("w")
            except cloaca.RunnerError:
                time.sleep(0.001)
    for _ in range(4):
        threading.Thread(target=ask, daemon=True).start()
    execute("late")
    """,
    "asyncio.to_thread, whose thread outlives its loop": """
    import asyncio
    runner = cloaca.DefaultRunner(":memory:")
    async def main():
        asyncio.get_running_loop().run_in_executor(None, execute, "late")
    asyncio.run(main())
    """,
    "the excepthook": """
    runner = cloaca.DefaultRunner(":memory:")
    sys.excepthook = lambda *_: execute("late")
    raise ValueError
    """,
}


@pytest.mark.parametrize("place", PLACES)
def test_who_asks_at_the_end_gets_an_answer_and_the_program_ends(place: str) -> None:
    source = textwrap.dedent(HEAD) + textwrap.dedent(PLACES[place])
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout in ("late Completed\n", "late refused\n"), done.stderr
    assert done.returncode == (1 if "excepthook" in place else 0)


@pytest.mark.parametrize("kind", ["a loop", "a generator"])
def test_a_body_that_outlives_the_interpreter_leaves_the_exit_code_alone(kind: str) -> None:
    """Python code of a poller goes on for longer than the end of the interpreter waits for it."""
    source = f"""
    import sys, threading, time
    import cloaca
    entered = threading.Event()
    kind = {kind!r}

    def long():
        entered.set()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.01)

    @cloaca.trigger(poll_interval="1ms")
    def poll():
        if kind == "a generator":
            return (long() for _ in range(1))
        long()

    runner = cloaca.DefaultRunner(":memory:")
    entered.wait(30)
    runner.shutdown(0.1)
    sys.exit(3)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 3, done.stderr


SECOND = """
    import sys
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    import cloaca

    if sys.version_info >= (3, 13):
        other = interpreters.create("legacy")
    else:
        other = interpreters.create(isolated=False)
    print(interpreters.run_string(other, "import sys; sys.path[:0] = %r; import cloaca" % sys.path))
    assert cloaca.DefaultRunner(":memory:").stats()
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before, each interpreter finds the right methods")
def test_a_second_interpreter_of_the_process_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SECOND)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "one interpreter a process" in done.stdout + done.stderr
    assert "TypeError" not in done.stdout + done.stderr


@pytest.mark.parametrize("executors", ["", "executors={'cpu': cloaca.ProcessExecutor(1)}"])
def test_an_interrupt_while_the_interpreter_ends_is_no_traceback(tmp_path: Path, executors: str) -> None:
    source = f"""
    def hangs(context):
        until(lambda: runner._closed)
        say("closes")
        time.sleep(3600)

    with cloaca.WorkflowBuilder("work"):
        cloaca.task(id="hangs")(hangs)
    runner = cloaca.DefaultRunner(sys.argv[1], {executors})
    runner.submit("work")
    until(lambda: runner.list_runs()[0]["status"] == "Running")
    """
    with Program(source, tmp_path / "a.db") as program:
        program.until("closes")
        program.send(signal.SIGINT)
        assert program.process.wait(SECONDS) == 0
        assert program.process.stderr is not None
        assert program.process.stderr.read() == b""
