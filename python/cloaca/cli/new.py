"""A small project that works at once."""

from __future__ import annotations

import contextlib
import os
import re
import shlex

from ..errors import CloacaError, excerpt
from .main import OK
from .parse import UsageError
from .show import Show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

APP = '''\
"""Watches the folder `inbox`: each new text file starts a run, which counts its lines and archives it.

A file whose run fails is moved to `failed`: where it lay, the next poll would find it again.
"""

import os
from pathlib import Path

import cloaca

DATA = Path(os.environ.get("DATA") or Path(__file__).parent)
INBOX = DATA / "inbox"
ARCHIVE = DATA / "archive"
FAILED = DATA / "failed"
for folder in (INBOX, ARCHIVE, FAILED):
    folder.mkdir(exist_ok=True)


def found(context):
    """Where the file of a run lies: one that failed is retried with the file that was set aside."""
    source = Path(context["file"])
    return source if source.exists() else FAILED / source.name


def set_aside(task_id, error, context):
    source = Path(context["file"])
    if source.exists():
        source.rename(FAILED / source.name)


with cloaca.WorkflowBuilder("ingest"):

    @cloaca.task(on_failure=set_aside)
    def count_lines(context):
        context["lines"] = len(found(context).read_text().splitlines())

    @cloaca.task(dependencies=[count_lines], on_failure=set_aside)
    def archive(context):
        source = found(context)
        # A run that is resumed may find it moved already.
        if source.exists():
            source.rename(ARCHIVE / source.name)
        print(f"{source.name}: {context['lines']} lines", flush=True)


@cloaca.trigger(workflow="ingest", poll_interval="1s")
def new_file():
    files = sorted(INBOX.glob("*.txt"))
    if not files:
        return cloaca.TriggerResult.skip("the inbox is empty")
    return [cloaca.TriggerResult.fire({"file": str(file)}) for file in files]
'''

TEST = '''\
"""`pytest` runs this on a manual clock: no second is waited for."""

import pytest

import app


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("INBOX", "ARCHIVE", "FAILED"):
        monkeypatch.setattr(app, name, tmp_path / name)
        (tmp_path / name).mkdir()


@pytest.mark.cloaca_runner(triggers=["new_file"])
def test_a_new_file_is_counted_and_archived(cloaca_runner):
    (app.INBOX / "hello.txt").write_text("hello\\nworld\\n")
    cloaca_runner.advance("1s")
    cloaca_runner.run_until_idle()
    (run,) = cloaca_runner.list_runs()
    assert run["status"] == "Completed"
    assert (app.ARCHIVE / "hello.txt").exists()


@pytest.mark.cloaca_runner(triggers=["new_file"], raise_errors=False)
def test_a_file_that_fails_is_set_aside_and_not_found_again(cloaca_runner):
    (app.INBOX / "bad.txt").write_bytes(b"\\xff\\xfe")
    cloaca_runner.advance("1m")
    cloaca_runner.run_until_idle()
    (run,) = cloaca_runner.list_runs()
    assert run["status"] == "Failed"
    assert (app.FAILED / "bad.txt").exists()
    (app.FAILED / "bad.txt").write_text("mended\\n")
    cloaca_runner.retry(run["id"])
    cloaca_runner.run_until_idle()
    (run,) = cloaca_runner.list_runs()
    assert run["status"] == "Completed"
    assert (app.ARCHIVE / "bad.txt").exists()
'''

PYPROJECT = """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
# From the wheel that you have installed: PyPI's package of that name is another one.
dependencies = ["cloaca"]

[tool.cloaca]
database = "{name}.db"
app = "app.py"
"""

README = """\
# {name}

`cloaca run` serves it. `cloaca dev` starts it again when a file changes, with the page beside it.
A first file lies in `inbox`: its run is there a second later. Drop another one into it:

```sh
printf 'one\\ntwo\\n' > inbox/more.txt
cloaca ls            # what is polled, and what it does
cloaca runs          # what became of the file
cloaca why new_file  # why nothing happens
```

A file is taken as it lies there, half-written or not: who writes for longer than a moment writes it under a
name without `.txt`, and renames it once it is whole.

A file whose run fails goes to `failed`, so that no later poll finds it again. `cloaca runs --failed` says
why it did. Mend it there and `cloaca retry` its run, or move it back into `inbox`, which makes a new one.

`pytest` tests it. `{name}.service` and `Dockerfile` put it to work.
"""

SERVICE = """\
[Unit]
Description={name}
Wants=network-online.target
After=network-online.target

[Service]
# It counts as started once it serves.
Type=notify
# Once: adduser --system --group {user}
User={user}
StateDirectory={name}
WorkingDirectory=/var/lib/{name}
# The store and the folders; the program itself lies where that user writes nothing.
Environment=DATA=/var/lib/{name} CLOACA_DATABASE=/var/lib/{name}/{name}.db
ExecStart=/opt/{name}/.venv/bin/cloaca run /opt/{name}/app.py
Restart=always
RestartSec=2
# The first signal drains, and goes to the program alone: what its tasks have started goes on meanwhile.
# A runner gives its tasks 30 seconds.
KillMode=mixed
TimeoutStopSec=40
WatchdogSec=60
NotifyAccess=main

[Install]
WantedBy=multi-user.target
"""

DOCKERFILE = """\
FROM python:3.12-slim
WORKDIR /app
# Put the wheel that you have installed beside this file: PyPI's package of that name is another one.
COPY cloaca-*.whl /tmp/
RUN pip install --no-cache-dir /tmp/cloaca-*.whl
COPY app.py ./
# The store and the folders lie on a volume of one machine; a network file system loses data.
VOLUME /data
ENV DATA=/data CLOACA_DATABASE=/data/{name}.db
CMD ["cloaca", "run", "app.py"]
"""

IGNORED = """\
{name}.db*
inbox/
archive/
failed/
__pycache__/
"""

NAME_CHARS_MAX = 64
USER_CHARS_MAX = 31
# As what installs a project takes its name.
_NAME = re.compile("[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")


def new(arguments: Namespace, show: Show) -> int:
    """Makes the folder."""
    folder: str = arguments.name
    name = os.path.basename(os.path.normpath(folder)) or folder
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"NAME is {excerpt(name)}; a project's name has letters, digits, - and _, a letter in front, and"
            " a letter or digit at its end"
        )
    if len(name) > NAME_CHARS_MAX:
        raise UsageError(f"NAME is {excerpt(name)}; it has at most {NAME_CHARS_MAX} characters")
    if os.path.exists(folder):
        raise UsageError(f"{excerpt(folder)} is there already; name a new folder")
    files = {
        "app.py": APP,
        "test_app.py": TEST,
        "pyproject.toml": PYPROJECT.format(name=name),
        "README.md": README.format(name=name),
        f"{name}.service": SERVICE.format(name=name, user=_user(name)),
        "Dockerfile": DOCKERFILE.format(name=name),
        ".gitignore": IGNORED.format(name=name),
        # Something to see before anything was read.
        os.path.join("inbox", "hello.txt"): "hello\nworld\n",
    }
    try:
        _write(folder, files)
    except OSError as error:
        raise CloacaError(
            f"{excerpt(folder)} cannot be made: {error.strerror}; name a folder elsewhere"
        ) from None
    if show.as_json:
        show.record("project", {"path": folder, "files": sorted(files)})
    else:
        show.note(f"made {folder}; next: cd {_quoted(folder)} && cloaca dev")
    return OK


def _write(folder: str, files: dict[str, str]) -> None:
    """Writes them all, or none: what is half made would be there already the next time."""
    made: list[str] = []
    try:
        os.makedirs(os.path.join(folder, "inbox"))
        for file, text in files.items():
            path = os.path.join(folder, file)
            with open(path, "x", encoding="utf-8") as new:
                made.append(path)
                new.write(text)
    except BaseException:
        # Only what is of this project, and of folders what is empty then.
        with contextlib.suppress(OSError):
            for path in made:
                os.unlink(path)
            os.rmdir(os.path.join(folder, "inbox"))
            os.rmdir(folder)
        raise


def _user(name: str) -> str:
    """Who serves a project of that name, as systems call their users."""
    return name.lower()[:USER_CHARS_MAX].rstrip("-_")


def _quoted(folder: str) -> str:
    """A folder as a shell's `cd` takes it."""
    return shlex.quote(os.path.join(os.curdir, folder) if folder.startswith("-") else folder)
