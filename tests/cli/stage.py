"""What the tests of the command line have in common: a store that another process serves, and a terminal."""

import io
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloaca.cli import main

HOSTILE = "\x1b[31mred\x1b[0m\r\x07\x9b\u202eevil\t\n"
PROGRAM = f"""
import logging
import sys
import time

import cloaca

HOSTILE = {HOSTILE!r}

with cloaca.WorkflowBuilder("ingest"):

    @cloaca.task()
    def count(context):
        context["lines"] = 1

    @cloaca.task(dependencies=[count], retry_attempts=2, retry_delay_ms=1)
    def archive(context):
        log = logging.getLogger("shop")
        log.warning("archives %s", context.get("file"))
        if context.get("file") == "bad":
            log.error("no price for\\n%s", HOSTILE, stack_info=True)
            raise ValueError("no price")
        if context.get("file") == "hostile":
            raise OSError(HOSTILE)

    @cloaca.task(dependencies=[archive])
    def hang(context):
        while context.get("file") == "slow":
            time.sleep(0.01)


@cloaca.trigger(workflow="ingest", poll_interval="20ms")
def broken():
    raise OSError("the share is gone")


@cloaca.trigger(workflow="ingest", poll_interval="1h")
def rare():
    return False


@cloaca.trigger(workflow="ingest", cron="0 3 * * *")
def nightly():
    pass


def served(path, words):
    with cloaca.DefaultRunner(path, keep_logs="1 MiB") as runner:
        runner.execute("ingest", {{"file": "good"}})
        runner.execute("ingest", {{"file": "bad"}})
        for word in words:
            run = runner.submit("ingest", {{"file": word}})
            if word == "slow":
                while "hang" not in runner.why_run(run.id):
                    pass
            else:
                run.result()
        while not any(tick["outcome"] == "error" for tick in runner.ticks("broken")):
            pass
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    served(sys.argv[1], sys.argv[2:])
"""

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)?")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHORT = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}\b")
_SPAN = re.compile(r"\b\d+(\.\d+)? (ms|s|min|h)\b( \d+ s)?")


@contextmanager
def served(path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that serves the store at a path; its program lies beside it as `app.py`."""
    program = path.parent / "app.py"
    program.write_text(PROGRAM)
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    command = [sys.executable, str(program), str(path), *words]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


class Terminal(io.StringIO):
    """Standard output as a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Line:
    """Lines of the command in this process, as for a pipe or for a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        self.said = ""

    def piped(self, *words: str, code: int = 0) -> str:
        """What goes to a pipe; `said` is standard error."""
        self.capsys.readouterr()
        got = main(words)
        out, self.said = self.capsys.readouterr()
        assert got == code, (got, out, self.said)
        return out

    def shown(self, *words: str, code: int = 0, width: int = 140) -> str:
        """What a terminal of that width shows."""
        terminal = Terminal()
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setenv("COLUMNS", str(width))
            got = main(words)
        self.said = self.capsys.readouterr().err
        assert got == code, (got, terminal.getvalue(), self.said)
        return terminal.getvalue()


def steady(text: str) -> str:
    """A text without what differs from run to run."""
    return _SPAN.sub("SPAN", _SHORT.sub("ID", _ID.sub("ID", _TIME.sub("TIME", text))))


def fields(text: str) -> list[list[str]]:
    """The lines of tab-separated values."""
    return [line.split("\t") for line in text.splitlines()]


def run_command(words: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "cloaca", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def serving(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "cloaca", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Without the terminal of whoever runs the tests, which would hand Ctrl-C on by itself.
        start_new_session=True,
    )


def reads(process: subprocess.Popen[str], pattern: str) -> str:
    """Reads lines until one matches."""
    assert process.stdout is not None
    told = []
    for text in process.stdout:
        told.append(text)
        if re.search(pattern, text):
            return text
    raise AssertionError("".join(told))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
