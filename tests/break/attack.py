"""What the attacks share: programs in processes of their own, and an outsider's eyes on a file."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

TIMES = int(os.environ.get("CLOACA_BREAKS", "1"))
"""How often the attacks by chance are repeated: once in `make test`, more in `make break`."""
SECONDS = 60.0
"""How long anything may take before it counts as hanging."""

PRELUDE = """
    import json, logging, os, signal, sys, threading, time
    import cloaca

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode("utf-8", "backslashreplace"))

    def until(condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("it never came")
            time.sleep(0.002)

    def told(call, *arguments):
        try:
            return call(*arguments)
        except cloaca.CloacaError as error:
            return type(error).__name__
"""

READS = """
    import json, sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], timeout=30)
    answers = [connection.execute(sql).fetchall() for sql in sys.argv[2:]]
    connection.commit()
    connection.close()
    print(json.dumps(answers))
"""


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits until the condition holds, for what no event tells; fails if it never does."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it never came"
        sleep(0.005)


def command(source: str, *arguments: object, prelude: str = PRELUDE) -> list[str]:
    text = textwrap.dedent(prelude) + textwrap.dedent(source)
    return [
        sys.executable,
        "-c",
        text,
        *(a if isinstance(a, str) else os.fspath(a) for a in map(_told, arguments)),
    ]


def _told(argument: object) -> str | os.PathLike[str]:
    return argument if isinstance(argument, str | os.PathLike) else str(argument)


def run(
    source: str,
    *arguments: object,
    code: int = 0,
    seconds: float = SECONDS,
    prelude: str = PRELUDE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> list[str]:
    """Runs a program to its end, which must have this exit code, and gives its lines."""
    done = subprocess.run(
        command(source, *arguments, prelude=prelude),
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=seconds,
        check=False,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
    )
    assert done.returncode == code, (
        f"ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout.splitlines()


class Program:
    """A program in a process of its own, whose lines are read as they come and which ends with the block."""

    def __init__(
        self,
        source: str,
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command(source, *arguments),
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
        )
        self.lines: list[str] = []
        self._rest = b""

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def line(self, seconds: float = SECONDS) -> str:
        """The next line."""
        assert self.process.stdout is not None
        deadline = monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - monotonic()
            assert left > 0, f"said nothing within {seconds} s after {self.lines[-3:]}"
            if select.select([self.process.stdout], [], [], left)[0]:
                got = os.read(self.process.stdout.fileno(), 1 << 16)
                assert got, f"ended with {self.process.wait()} after {self.lines[-3:]}:\n{self.errors()}"
                self._rest += got
        text, self._rest = self._rest.split(b"\n", 1)
        self.lines.append(text.decode(errors="backslashreplace"))
        return self.lines[-1]

    def until(self, start: str, seconds: float = SECONDS) -> str:
        """The next line that starts so; those before it are passed over."""
        deadline = monotonic() + seconds
        while not (line := self.line(deadline - monotonic())).startswith(start):
            pass
        return line

    def tell(self, words: str = "") -> None:
        """Writes it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(words.encode() + b"\n")
        self.process.stdin.flush()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, code: int = 0, seconds: float = SECONDS) -> str:
        """Waits for its own end, and gives what it wrote to stderr."""
        out, errors = self.process.communicate(timeout=seconds)
        text = errors.decode(errors="backslashreplace")
        assert self.process.returncode == code, f"ended with {self.process.returncode}:\n{text[-4000:]}"
        self.lines += (self._rest + out).decode(errors="backslashreplace").splitlines()
        return text

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode(errors="backslashreplace")[-4000:]

    def stop(self) -> None:
        """Stops it where it stands, and waits until the kernel has."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)

    def state(self, key: str) -> str:
        """What Linux tells of it in its status."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return text.split(f"{key}:")[1].split("\n")[0].strip()

    def wait_for_handler(self, number: int) -> None:
        """Until it catches the signal."""
        deadline = monotonic() + SECONDS
        while not int(self.state("SigCgt"), 16) >> (number - 1) & 1:
            assert monotonic() < deadline


def outside(path: os.PathLike[str] | str, *statements: str) -> list[list[list[Any]]]:
    """What a process of its own, with another SQLite, answers to each statement."""
    import json

    lines: Sequence[str] = run(READS, path, *statements, prelude="")
    answers: list[list[list[Any]]] = json.loads(lines[-1])
    return answers


def health(path: os.PathLike[str] | str) -> str:
    """What SQLite says of the file, and what its rows say of each other."""
    faults = (
        "SELECT 'final without an end' FROM runs WHERE status IN ('Completed', 'Failed', 'Cancelled') "
        "AND completed_at IS NULL UNION ALL "
        "SELECT 'a task without its run' FROM tasks WHERE run NOT IN (SELECT row FROM runs) UNION ALL "
        "SELECT 'an end before its beginning' FROM runs WHERE completed_at < started_at"
    )
    checked, found = outside(path, "PRAGMA integrity_check", faults)
    return "; ".join(str(row[0]) for row in checked + found)
