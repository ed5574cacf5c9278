"""The page "The command line": its transcript played, and its reference made. Run it to renew both."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from cloaca.cli.commands import COMMANDS
from cloaca.cli.parse import describe, overview

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "command-line.md"
README = PAGE.parents[2] / "README.md"
COLUMNS = 118
REFERENCE = "## Every command\n"
PROGRAM = re.compile(r'^```python title="app.py"\n(?P<code>.*?)^```$', re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```console\n(?P<lines>.*?)^```$", re.DOTALL | re.MULTILINE)
SECONDS_MAX = 60.0


def on_terminal(command: str, folder: Path) -> str:
    """What a line of the shell shows on a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    # But for the first, which says which store it took.
    named = {} if command == "cloaca ls" else {"CLOACA_DATABASE": "runs.db"}
    environment = {
        **os.environ,
        **named,
        "NO_COLOR": "1",
        "TZ": "UTC",
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
    }
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        ["bash", "-c", command], cwd=folder / "demo", stdout=slave, stderr=slave, stdin=slave, env=environment
    ):
        os.close(slave)
        told = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # how Linux tells the end
                break
            if not part:
                break
            told += part
    os.close(master)
    return told.decode().replace("\r\n", "\n")


def played(text: str, folder: Path) -> str:
    """The page with what its lines show now."""
    program = PROGRAM.search(text)
    assert program is not None
    (folder / "bin").mkdir()
    shim = folder / "bin" / "cloaca"
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cloaca "$@"\n')
    shim.chmod(0o755)
    demo = folder / "demo"
    demo.mkdir()
    (demo / "app.py").write_text(program["code"])
    command = [sys.executable, "-m", "cloaca", "run", "app.py", "--database", "runs.db"]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=demo, stdout=null, stderr=null) as process:
        try:
            _settled(demo)
            return BLOCK.sub(lambda block: _block(block["lines"], folder), text)
        finally:
            process.kill()


def _settled(demo: Path) -> None:
    """Waits until what the page shows has happened."""
    until = time.monotonic() + SECONDS_MAX
    while time.monotonic() < until:
        command = [sys.executable, "-m", "cloaca", "ls", "--database", "runs.db"]
        told = subprocess.run(command, cwd=demo, capture_output=True, text=True, check=False).stdout
        if (
            "feed\tfailing" in told
            and "Failed\t0\t0" in told
            and re.search(r"runner\t1\tliving\t0\t\S+\t\S", told)
        ):
            return
        time.sleep(0.2)
    raise AssertionError(told)


def _block(lines: str, folder: Path) -> str:
    commands = [line for line in lines.splitlines() if line.startswith("$ ")]
    shown = [f"{command}\n{on_terminal(command[2:], folder)}" for command in commands]
    return f"```console\n{''.join(shown)}```"


def reference() -> str:
    """The help of every command."""
    shown = [command for command in COMMANDS if not command.is_hidden]
    parts = [REFERENCE, "```text\n" + overview() + "```\n"]
    for command in shown:
        parts.append(f"### cloaca {command.name}\n```text\n{_own(describe(command))}```\n")
    return "\n".join(parts)


KIND = re.compile(r"^\| (?P<kinds>`\w+`(?:, `\w+`)*) \| (?P<has>.*) \|$", re.MULTILINE)


def kinds() -> dict[str, tuple[set[str], set[str]] | None]:
    """Each `kind` of `--json` that the page tells of: the names that it has, and all that it may have; `None`
    if those are told of elsewhere."""
    text = PAGE.read_text()
    found: dict[str, tuple[set[str], set[str]] | None] = {}
    for row in KIND.finditer(text[text.index("| `kind` | has |") :].partition("\n\n")[0]):
        names = None
        if row["has"].startswith("`"):
            spans = [span.split() for span in re.findall("`([^`]*)`", row["has"])]
            names = (set(spans[0]), {name for span in spans for name in span})
        found |= dict.fromkeys(re.findall(r"\w+", row["kinds"]), names)
    return {kind: names for kind, names in found.items() if kind != "kind"}


def _own(text: str) -> str:
    """Without what every command takes."""
    head, _, tail = text.partition("\nevery command takes:\n")
    return f"{head}\n{tail[tail.index('example:') :]}"


if __name__ == "__main__":
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as made:
        page = played(page, Path(made))
    PAGE.write_text(page[: page.index(REFERENCE)] + reference())
    (first, *_) = BLOCK.finditer(page)
    README.write_text(BLOCK.sub(lambda _: first[0], README.read_text()))
