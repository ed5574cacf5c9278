"""`cloaca run --metrics`: who watches a program asks the command that serves it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

WAIT = 60.0
CODE = """
import cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context): pass
"""


def free_ports(many: int) -> int:
    """The first of so many that follow each other, below those from which who connects is given one: a
    connection to a port of those that nobody has may be one to itself."""
    while True:
        first = random.randrange(10_000, 32_000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + many):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


@contextlib.contextmanager
def serving(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "app.py").write_text(CODE)
    line = [sys.executable, "-m", "cloaca", "run", "app.py", "--database", "runs.db", *words]
    with subprocess.Popen(
        line, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def reads(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"it never said {pattern}")


def asked(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_each_worker_answers_at_a_port_of_its_own(tmp_path: Path) -> None:
    first = free_ports(2)
    with serving(tmp_path, "--workers", "2", "--metrics", str(first)) as process:
        for _ in range(2):
            reads(process, "serving app.py")
        for port in (first, first + 1):
            status, text = asked(port, "/metrics")
            assert (status, text.count("\ncloaca_build_info{")) == (200, 1)
            status, text = asked(port, "/healthz")
            assert (status, json.loads(text)) == (200, {"ok": True, "why": None})
            assert asked(port, "/readyz?verbose")[0] in (200, 503)
            assert asked(port, "/metrics", "HEAD") == (200, "")
            assert asked(port, "/")[0] == 404
            assert asked(port, "/metrics", "POST")[0] == 501
        process.terminate()
        assert process.wait(WAIT) == 0


def test_who_asks_and_never_ends_holds_up_others_only_while_there_are_too_many(tmp_path: Path) -> None:
    port = free_ports(1)
    with serving(tmp_path, "--metrics", f"127.0.0.1:{port}") as process, contextlib.ExitStack() as slow:
        reads(process, "serving app.py")
        for _ in range(8):
            slow.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"GET /metr")
        assert asked(port, "/healthz")[0] == 200
        for _ in range(100):
            slow.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"GET /metr")
        threads = len(os.listdir(f"/proc/{process.pid}/task")) if os.path.exists("/proc") else 0
        assert threads < 60, "no thread for each of a hundred"
        slow.close()
        deadline = time.monotonic() + WAIT
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if asked(port, "/healthz")[0] == 200:
                    break
            assert time.monotonic() < deadline
        process.terminate()
        assert process.wait(WAIT) == 0


def test_a_port_that_is_taken_is_told_of(tmp_path: Path) -> None:
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first + 1)):
        with serving(tmp_path, "--metrics", str(first + 1)) as process:
            assert process.wait(WAIT) == 2
            assert process.stderr is not None
            assert f"nobody can listen at '127.0.0.1', port {first + 1}" in process.stderr.read()
        with serving(tmp_path, "--workers", "2", "--metrics", str(first)) as process:
            assert process.wait(WAIT) == 2
            assert process.stderr is not None
            told = process.stderr.read()
            assert f"nobody can listen at '127.0.0.1', port {first + 1}" in told
            assert "serving" not in told
    assert not (tmp_path / "runs.db").exists()


def answers(port: int) -> None:
    deadline = time.monotonic() + WAIT
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if asked(port, "/healthz")[0] == 200:
                return
        assert time.monotonic() < deadline


@pytest.mark.skipif(not os.path.exists("/proc"), reason="it looks for the workers' processes there")
def test_a_worker_whose_port_is_taken_works_and_listens_once_it_is_free(tmp_path: Path) -> None:
    first = free_ports(2)
    with serving(tmp_path, "--workers", "2", "--metrics", str(first)) as process:
        for _ in range(2):
            reads(process, "serving app.py")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        while True:
            with contextlib.suppress(OSError):
                taken = socket.create_server(("127.0.0.1", first + 1))
                break
        with taken:
            reads(process, r"worker 2 .* another begins")
            reads(process, f"nobody can listen at '127.0.0.1', port {first + 1}.* serves without")
            reads(process, "serving app.py")
            answers(first)
        reads(process, f"listens at 127.0.0.1, port {first + 1} now")
        answers(first + 1)
        process.terminate()
        assert process.wait(WAIT) == 0


FORKS = """
import os, time
import cloaca

@cloaca.trigger(workflow="w", poll_interval="50ms")
def forks():
    with open("pids", "x") as file:
        if (pid := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        file.write(f"{os.getpid()} {pid}")
    return False
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_what_a_body_has_forked_does_not_keep_the_port_of_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "CODE", CODE + FORKS)
    first = free_ports(2)
    with serving(tmp_path, "--workers", "2", "--metrics", str(first)) as process:
        for _ in range(2):
            reads(process, "serving app.py")
        deadline = time.monotonic() + WAIT
        while (
            len(pids := (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []) < 2
        ):
            assert time.monotonic() < deadline
        os.kill(int(pids[0]), signal.SIGKILL)
        try:
            reads(process, "another begins")
            reads(process, "serving app.py|nobody can listen")
            for port in (first, first + 1):
                answers(port)
        finally:
            os.kill(int(pids[1]), signal.SIGKILL)
        process.terminate()
        assert process.wait(WAIT) == 0


@pytest.mark.parametrize("text", ["x", "0", "65536", ":9101", "host:", "-1", "٣"])
def test_what_is_no_address_is_refused(tmp_path: Path, text: str) -> None:
    with serving(tmp_path, f"--metrics={text}") as process:
        assert process.wait(WAIT) == 2
        assert process.stderr is not None
        assert "it is a port, or HOST:PORT" in process.stderr.read()
