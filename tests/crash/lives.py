"""Starts processes of the program under test, ends them by force or by request, and looks at what they left.
Asserts nothing about it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from checker import ALWAYS, AT_REST, SINCE, Database, Evidence, complaints
from witness import Line, Testimony, Witness

HERE = Path(__file__).parent
SECONDS = 60.0
"""How long anything here may take before it counts as hanging."""
LOOK_SECONDS = 0.002


class Life:
    """One process of the program."""

    def __init__(
        self, stage: Stage, *options: object, env: dict[str, str] | None, database: Path | str
    ) -> None:
        self._stage = stage
        paths = (database, stage.witness, stage.source, stage.stop)
        command = [sys.executable, str(HERE / "program.py"), *map(str, (*paths, *options))]
        with (stage.folder / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=errors, stderr=errors, env=env, start_new_session=True
            )
        self.pid = self.process.pid

    def lines(self, kind: str) -> list[Line]:
        """What the witness heard from this process."""
        return [line for line in self._stage.testimony.read() if line.pid == self.pid and line.kind == kind]

    def until(self, kind: str) -> Line:
        """The first such line of this process, once it comes."""
        lines = self._stage.until(lambda: self.lines(kind) or self.process.poll() is not None)
        if not isinstance(lines, list):
            raise AssertionError(
                f"it ended with {self.process.returncode} without '{kind}':\n{self._stage.errors()}"
            )
        return lines[0]

    def kill(self) -> None:
        """Ends it as the kernel would."""
        self._stage.voice.note("killed", of=self.pid)
        self.process.kill()
        self.process.wait()

    def falls_silent(self) -> None:
        """It is cut off from here on, for so long that others may take it for dead."""
        self._stage.voice.note("silent", of=self.pid)

    def kill_all(self) -> None:
        """Ends it with all that it has started, as a service manager does."""
        self._stage.voice.note("killed", of=self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Stops it where it stands."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets it go on."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Waits for its own end, which must be a good one."""
        code = self.process.wait(SECONDS)
        assert code == 0, f"it ended with {code}:\n{self._stage.errors()}"


class Stage:
    """A folder with a database, a source, and a witness that outlives the processes, all of which end with
    the stage."""

    def __init__(self, folder: Path, database: Path | str | None = None) -> None:
        """On a server `database` is a URL."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.database = database or folder / "runs.db"
        self.witness = folder / "witness.jsonl"
        self.source = folder / "source.txt"
        self.stop = folder / "stop"
        self.voice = Witness(self.witness)
        self.testimony = Testimony(self.witness)
        self.last_item = 0
        self.source.touch()
        self._lives: list[Life] = []
        self._before: Evidence | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for life in self._lives:
            if life.process.returncode is None:
                life.kill_all()

    def feed(self, count: int) -> None:
        """Appends so many items to the source, in one write."""
        first, self.last_item = self.last_item + 1, self.last_item + count
        data = "".join(f"{item}\n" for item in range(first, self.last_item + 1)).encode()
        file = os.open(self.source, os.O_WRONLY | os.O_APPEND)
        os.write(file, data)
        os.close(file)

    def start(self, *options: object, env: dict[str, str] | None = None, database: str | None = None) -> Life:
        """Another process of the program, which may have a way of its own to the database."""
        life = Life(self, *options, env=env, database=database or self.database)
        self._lives.append(life)
        return life

    def finish(self, *options: object) -> None:
        """Lets a process do all that is left and end."""
        self.start("--goal", self.last_item, *options).end()

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """Waits for a condition that no event tells, and returns what it gave."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"it never came\n{self.errors()}"
            time.sleep(LOOK_SECONDS)
        return value

    def errors(self) -> str:
        """What the processes wrote to stderr."""
        path = self.folder / "stderr"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def look(self) -> Evidence:
        """What there is while no process lives."""
        now = time.monotonic_ns()
        database = Database.read(self.database, now)
        return Evidence(list(self.testimony.read()), database, self.last_item)

    def check(self) -> list[str]:
        """What the rules complain about while no process lives."""
        evidence = self.look()
        found = complaints(ALWAYS, evidence)
        if self._before is not None:
            found += complaints(SINCE, self._before, evidence)
        self._before = evidence
        return found + self._noise()

    def check_at_rest(self) -> list[str]:
        """What the rules complain about once all is done."""
        found = self.check()
        if isinstance(self.database, Path):
            left = [path.name for path in self.database.parent.glob(f"{self.database.name}-*")]
            found += [f"a file stayed behind: {name}" for name in left]
        return found + complaints(AT_REST, self._before or self.look())

    def _noise(self) -> list[str]:
        return [f"somebody wrote to stderr: {text}"] if (text := self.errors()) else []


PRELUDE = """
    import json, os, sys, threading, time
    import cloaca

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def all_final(runner):
        return all(run["completed_at"] for run in runner.list_runs())

    def until(condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.002)
"""


class Script:
    """A small program in a process of its own, whose lines are read as they come."""

    def __init__(self, text: str, *arguments: object, before: Sequence[str] = ()) -> None:
        source = textwrap.dedent(PRELUDE) + textwrap.dedent(text)
        command = [*before, sys.executable, "-c", source, *map(str, arguments)]
        self.born = time.monotonic()
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        assert self.process.stdout is not None
        self.lines: Iterator[str] = (line.rstrip("\n") for line in self.process.stdout)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def tell(self, words: str) -> None:
        """Writes it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")

    def says(self, words: str) -> None:
        """Waits for its next line, which must be this one."""
        assert next(self.lines, "it ended") == words

    def rest(self) -> list[str]:
        """What else it says until it ends by itself."""
        rest = list(self.lines)
        assert self.process.wait(SECONDS) == 0, rest
        return rest
