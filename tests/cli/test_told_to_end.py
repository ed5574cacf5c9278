"""Several signals at once, whatever what serves is about: it ends with its documented code all the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from stage import free_port, reads, serving

import cloaca

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no signals")
WAIT = 30.0
TERM, INT = signal.SIGTERM, signal.SIGINT
PAIRS = {"TERM TERM": (TERM, TERM), "INT TERM": (INT, TERM)}
MODES = {
    "plain": ["run", "app.py"],
    "function": ["run", "app.py:make"],
    "workers": ["run", "app.py", "--workers", "2"],
    "reload": ["run", "app.py", "--reload"],
    "dev": ["dev", "app.py"],
}
APP = """
import signal
import threading
import time

import cloaca

with cloaca.WorkflowBuilder("w"):

    @cloaca.task()
    def t(context):
        print("here", flush=True)
        while True:
            time.sleep(0.01)


def tells():
    heard = signal.getsignal(signal.SIGTERM)
    while signal.getsignal(signal.SIGTERM) is heard:
        time.sleep(0.01)
    print("here", flush=True)


"""
# In steps: what comes just before a long sleep is heard after it.
WAITS = "print('here', flush=True)\nfor _ in range(6000):\n    time.sleep(0.01)\n"
CLEANS = """
try:
    print("here", flush=True)
    for _ in range(6000):
        time.sleep(0.01)
{}:
    time.sleep(0.3)
"""
MOMENTS = {
    "import": WAITS,
    "import that cleans up": CLEANS.format("finally"),
    "import that lets nothing pass": CLEANS.format("except BaseException"),
    "serving": "cloaca.DefaultRunner('runs.db')\nthreading.Thread(target=tells).start()\n",
}
GOES_ON = """
def goes_on():
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    print("goes on", flush=True)
    time.sleep(60)


"""
END = {
    "atexit": f"{GOES_ON}import atexit\natexit.register(goes_on)\n{WAITS}",
    "thread": f"{GOES_ON}threading.Thread(target=goes_on).start()\n{WAITS}",
}
DRAINS = "cloaca.DefaultRunner('runs.db').submit('w')\nthreading.Thread(target=tells).start()\n"


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("mode", "moment"),
    [
        *(("plain", moment) for moment in MOMENTS),
        ("workers", "serving"),
        ("reload", "import"),
        ("dev", "serving"),
    ],
)
def test_two_signals_at_once_end_it_as_one_does(tmp_path: Path, mode: str, moment: str, pair: str) -> None:
    (tmp_path / "app.py").write_text(APP + MOMENTS[moment])
    with at_work(tmp_path, mode) as process:
        for number in PAIRS[pair]:
            process.send_signal(number)
        assert_ends_well(process)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("mode", ["plain", "workers"])
def test_two_more_at_once_end_a_drain(tmp_path: Path, mode: str, pair: str) -> None:
    (tmp_path / "app.py").write_text(APP + DRAINS)
    with at_work(tmp_path, mode) as process:
        # The task says so too, before the runner hears signals.
        reads(process, "here")
        process.send_signal(PAIRS[pair][0])
        reads(process, "shutting down")
        for number in PAIRS[pair]:
            process.send_signal(number)
        assert_ends_well(process)


@pytest.mark.parametrize("mode", ["plain", "workers", "reload"])
def test_who_is_not_to_hear_ctrl_c_ends_a_drain_by_a_second_sigterm(tmp_path: Path, mode: str) -> None:
    """As a script's `cloaca run app.py &`."""
    (tmp_path / "app.py").write_text(APP + DRAINS)
    heard = signal.signal(INT, signal.SIG_IGN)
    try:
        process = serving(tmp_path, *MODES[mode], "--database", "runs.db")
    finally:
        signal.signal(INT, heard)
    with process:
        try:
            # The task says so, and each process, as a runner hears signals in it.
            for _ in range(4 if mode == "workers" else 2):
                reads(process, "here")
            process.send_signal(INT)
            process.send_signal(TERM)
            for _ in range(2 if mode == "workers" else 1):
                reads(process, "shutting down")
            process.send_signal(TERM)
            assert_ends_well(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


ENDS = """
def make():
    try:
        print("here", flush=True)
        for _ in range(6000):
            time.sleep(0.01)
    {}


"""
MAKES = {
    "as a lock does whose wait was broken off": 'finally:\n        raise RuntimeError("not locked")',
    "in its stead": 'except BaseException:\n        raise RuntimeError("not locked")',
    "from None": 'except BaseException:\n        raise RuntimeError("not locked") from None',
    "an exit code": "except BaseException:\n        return 7",
}


SWALLOWS = """
class Heavy:
    def __del__(self):
        print("here", flush=True)
        for _ in range(6000):
            time.sleep(0.01)


heavy = Heavy()
del heavy
for _ in range(6000):
    time.sleep(0.01)
"""


def test_one_that_comes_where_nothing_gets_out_is_heard_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + SWALLOWS)
    with at_work(tmp_path, "plain") as process:
        process.send_signal(TERM)
        assert_ends_well(process)


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("how", MAKES)
@pytest.mark.parametrize("where", ["import", "function"])
def test_whatever_a_program_makes_of_its_end_is_no_fault_of_it(
    tmp_path: Path, where: str, how: str, number: signal.Signals
) -> None:
    makes = ENDS.format(MAKES[how])
    (tmp_path / "app.py").write_text(APP + makes + ("make()\n" if where == "import" else ""))
    with at_work(tmp_path, "plain" if where == "import" else "function") as process:
        process.send_signal(number)
        if how != "an exit code":
            reads(process, "as it was told to end, the program raised RuntimeError: not locked")
        assert_ends_well(process)


SERVES = """
def serves():
    threading.Thread(target=tells).start()
    cloaca.DefaultRunner("runs.db").run_forever()
    {0}

async def serves_async():
    threading.Thread(target=tells).start()
    cloaca.DefaultRunner("runs.db").run_forever()
    {0}
"""
ENDINGS = {
    "return 5": 0,
    "return 300": 0,
    "return True": 0,
    'return "done"': 0,
    "raise SystemExit(3)": 3,
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["serves", "serves_async"])
def test_what_a_function_returns_that_a_signal_has_ended_counts_for_nothing(
    tmp_path: Path, name: str, ending: str
) -> None:
    """A code that it leaves with by itself is its own."""
    (tmp_path / "app.py").write_text(APP + SERVES.format(ending))
    with serving(tmp_path, "run", f"app.py:{name}") as process:
        try:
            reads(process, "here")
            process.send_signal(TERM)
            assert process.stdout is not None
            told = process.stdout.read()
            assert (process.wait(WAIT), "no runner" in told) == (ENDINGS[ending], False), told
        finally:
            process.kill()


ASYNC = """
import asyncio

async def wait():
    try:
        print("here", flush=True)
        await asyncio.sleep(60)
    finally:
        raise RuntimeError("not locked")

async def make():
    {}
"""
AWAITS = {
    "the function": "await wait()",
    "a task of it": "task = asyncio.create_task(wait())\n    await asyncio.sleep(60)",
    "a runner's block": "async with cloaca.DefaultRunner('runs.db'):\n        await wait()",
}


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("what", AWAITS)
def test_what_an_async_function_makes_of_its_end_is_told_in_a_line(
    tmp_path: Path, what: str, number: signal.Signals
) -> None:
    (tmp_path / "app.py").write_text(APP + ASYNC.format(AWAITS[what]))
    with at_work(tmp_path, "function") as process:
        process.send_signal(number)
        assert process.stdout is not None
        told = process.stdout.read()
        assert process.wait(WAIT) == 0, told
        assert told.count("as it was told to end, the program raised RuntimeError: not locked\n") == 1
        assert "Traceback" not in told


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("waits", ["atexit", "thread"])
def test_a_program_that_does_not_end_is_ended_by_one_more(
    tmp_path: Path, waits: str, number: signal.Signals
) -> None:
    (tmp_path / "app.py").write_text(APP + END[waits])
    with at_work(tmp_path, "plain") as process:
        process.send_signal(number)
        reads(process, "goes on")
        process.send_signal(number)
        assert_ends_well(process)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("store", ["to be made", "there"])
def test_two_signals_at_once_end_the_page_as_one_does(tmp_path: Path, store: str, pair: str) -> None:
    if store == "there":
        with cloaca.DefaultRunner(tmp_path / "runs.db"):
            pass
    with serving(tmp_path, "ui", "runs.db", "--port", str(free_port())) as process:
        try:
            reads(process, "http://" if store == "there" else "the page waits for store")
            for number in PAIRS[pair]:
                process.send_signal(number)
            assert_ends_well(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def at_work(folder: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    """What serves, at the moment at which its program says that it is there."""
    words = [*MODES[mode], *(["--port", str(free_port())] if mode == "dev" else [])]
    with serving(folder, *words, "--database", "runs.db") as process:
        try:
            for _ in range(2 if mode == "workers" else 1):
                reads(process, "here")
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def assert_ends_well(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    told = process.stdout.read()
    assert process.wait(WAIT) == 0, told
    assert "Traceback" not in told


PATIENT = """
import pathlib
import time

import cloaca

with cloaca.WorkflowBuilder("w"):

    @cloaca.task()
    def t(context):
        pathlib.Path("began").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)

def make():
    runner = cloaca.DefaultRunner("runs.db", shutdown_seconds={seconds})
    runner.submit("w")
    return runner
"""
IMPATIENT = """
import sys

from cloaca.cli import children, main

children.END_SECONDS = 3.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("mode", ["workers", "reload"])
def test_a_drain_is_waited_for_as_long_as_the_program_says(tmp_path: Path, mode: str) -> None:
    (tmp_path / "app.py").write_text(PATIENT.format(seconds=600))
    words = [sys.executable, "-u", "-c", IMPATIENT, "run", "app.py:make", *MODES[mode][2:]]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            while not (tmp_path / "began").exists():
                assert process.poll() is None
            # Who is told as it opens the store would not have to wait for a body.
            for _ in range(2 if mode == "workers" else 1):
                reads(process, "serving app.py")
            process.send_signal(TERM)
            reads(process, "waiting at most 600 s")
            # Past the bound of who says nothing.
            time.sleep(3.5)
            (tmp_path / "go").touch()
            assert_ends_well(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    with cloaca.DefaultRunner(tmp_path / "runs.db", work=False) as runner:
        assert "Completed" in {run["status"] for run in runner.list_runs()}


STAYS = f"{GOES_ON}threading.Thread(target=goes_on).start()\n{CLEANS.format('finally')}"


@pytest.mark.parametrize("mode", ["workers", "reload"])
def test_a_program_that_does_not_end_though_it_was_told_twice_is_told_once_more(
    tmp_path: Path, mode: str
) -> None:
    """Both come before it has ended, and none after."""
    (tmp_path / "app.py").write_text(APP + STAYS)
    with at_work(tmp_path, mode) as process:
        # Two of one kind may come as one.
        for number in (TERM, INT):
            process.send_signal(number)
        assert_ends_well(process)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("store", ["to be made", "there"])
def test_two_signals_at_once_end_the_page_as_a_module_as_one_does(
    tmp_path: Path, store: str, pair: str
) -> None:
    if store == "there":
        with cloaca.DefaultRunner(tmp_path / "runs.db"):
            pass
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "cloaca.ui", "runs.db", "--port", str(free_port())],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            reads(process, "http://" if store == "there" else "the page waits for store")
            for number in PAIRS[pair]:
                process.send_signal(number)
            assert_ends_well(process)
        finally:
            process.kill()


LETS_NOTHING_OUT = """
import time


def serves():
    says = "here"
    while True:
        try:
            print(says, flush=True)
            for _ in range(6000):
                time.sleep(0.01)
        except BaseException:
            says = "on"


"""


@pytest.mark.parametrize("where", ["function", "module"])
@pytest.mark.parametrize("number", [TERM, INT, signal.SIGHUP])
def test_a_program_that_lets_nothing_out_is_ended_by_the_fourth(
    tmp_path: Path, where: str, number: signal.Signals
) -> None:
    (tmp_path / "app.py").write_text(LETS_NOTHING_OUT + ("serves()\n" if where == "module" else ""))
    words = ["run", "app.py" if where == "module" else "app.py:serves"]
    with serving(tmp_path, *words) as program:
        reads(program, "here")
        for _ in range(3):
            program.send_signal(number)
            reads(program, "on")
        program.send_signal(number)
        assert program.wait(WAIT) == -number
