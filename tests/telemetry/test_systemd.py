"""What systemd hears, its notify socket played by the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = """
import sys
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def only(context): pass

@cloaca.trigger(workflow="w", poll_interval="1h")
def rare(): return False

if __name__ == "__main__":
    with cloaca.DefaultRunner("runs.db") as runner:
        runner.run_forever()
"""


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


@contextmanager
def program(folder: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "app.py").write_text(PROGRAM)
    given = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), **environment}
    line = [sys.executable, *(command or ("app.py",))]
    with subprocess.Popen(line, cwd=folder, env=given, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


STRUCK = PROGRAM.replace(
    "    with cloaca.DefaultRunner",
    """    import ctypes, threading

    def strike():
        for thread in threading.enumerate():
            if thread.name == "cloaca-watchdog":
                ident = ctypes.c_ulong(thread.ident)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))
                return
        threading.Timer(0.01, strike).start()

    strike()
    with cloaca.DefaultRunner""",
)


def test_systemd_hears_that_a_program_lives_whatever_is_thrown_into_its_threads(
    heard: socket.socket, tmp_path: Path
) -> None:
    (tmp_path / "struck.py").write_text(STRUCK)
    heard.settimeout(10)
    with program(tmp_path, "struck.py", WATCHDOG_USEC="40000"):
        assert heard.recv(99) == b"READY=1"
        assert [heard.recv(99) for _ in range(50)] == [b"WATCHDOG=1"] * 50


def test_systemd_hears_that_a_program_serves_lives_and_ends(heard: socket.socket, tmp_path: Path) -> None:
    with program(tmp_path, WATCHDOG_USEC="40000") as process:
        assert heard.recv(99) == b"READY=1"
        assert [heard.recv(99) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        process.send_signal(signal.SIGTERM)
        while (message := heard.recv(99)) == b"WATCHDOG=1":
            pass
        assert message == b"STOPPING=1"
        assert process.wait(60) == 0


def test_without_a_watchdog_nothing_else_is_said(heard: socket.socket, tmp_path: Path) -> None:
    with program(tmp_path, WATCHDOG_USEC="40000", WATCHDOG_PID="1") as process:
        assert heard.recv(99) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        assert heard.recv(99) == b"STOPPING=1"
        assert process.wait(60) == 0


def test_where_systemd_is_gone_the_program_serves_all_the_same(tmp_path: Path) -> None:
    with program(tmp_path, NOTIFY_SOCKET=str(tmp_path / "nobody")) as process:
        while not (tmp_path / "runs.db").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)


def test_several_workers_are_ready_once_one_of_them_serves(heard: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nfrom app import *\n"
    )
    more = "run", "late.py", "--database", "runs.db", "--workers", "2"
    with program(tmp_path, "-m", "cloaca", *more, WATCHDOG_USEC="100000") as process:
        heard.settimeout(3)
        with pytest.raises(TimeoutError):
            heard.recv(99)
        (tmp_path / "go").touch()
        heard.settimeout(60)
        assert [heard.recv(99) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        process.send_signal(signal.SIGTERM)
        while (message := heard.recv(99)) == b"WATCHDOG=1":
            pass
        assert message == b"STOPPING=1"
        # The other one may have been told to end before it could hear that.
        process.wait(60)


def test_where_every_worker_dies_systemd_hears_of_none_that_serves_or_lives(
    heard: socket.socket, tmp_path: Path
) -> None:
    (tmp_path / "dies.py").write_text("import os\nos._exit(3)\n")
    more = "run", "dies.py", "--database", "runs.db", "--workers", "2"
    with program(tmp_path, "-m", "cloaca", *more, WATCHDOG_USEC="100000") as process:
        assert heard.recv(99) == b"STOPPING=1"
        assert process.wait(60) == 1


def test_of_several_workers_their_parent_speaks(heard: socket.socket, tmp_path: Path) -> None:
    command = ("-m", "cloaca", "run", "app.py", "--workers", "2", "--database", "runs.db")
    with program(tmp_path, *command, WATCHDOG_USEC="600000") as process:
        assert heard.recv(99) == b"READY=1"
        assert heard.recv(99) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        while (message := heard.recv(99)) == b"WATCHDOG=1":
            pass
        assert message == b"STOPPING=1"
        process.wait(60)
        heard.setblocking(False)
        # While they drain they live, and say nothing else.
        with contextlib.suppress(BlockingIOError):
            while True:
                assert heard.recv(99) == b"WATCHDOG=1"


def test_a_runner_that_has_stopped_says_no_more_that_it_lives(
    heard: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloaca.systemd import Notifying

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    answers = iter([True, True, False])
    asked: list[bool] = []

    def lives() -> bool:
        asked.append(next(answers, False))
        return asked[-1]

    with Notifying(lives):
        while len(asked) < 10:
            pass
    heard.setblocking(False)
    said = [heard.recv(99) for _ in range(3)]
    with pytest.raises(BlockingIOError):
        heard.recv(99)
    assert said == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
