"""What others do to the file: lock it, fill its disk, take the right to write, delete it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from lives import Life, Script, Stage
from witness import Line

REFUSES = "the store refuses writes"
TAKES = "the store takes writes again"
NOBODY = 65534


@contextmanager
def held(database: Path) -> Iterator[None]:
    """The file under another process's exclusive lock: no runner lives in this one."""
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def store_lines(life: Life) -> list[tuple[str, str]]:
    """What it logged about its store."""
    return [(line["level"], line["message"]) for line in life.lines("log") if "store" in line["message"]]


def refusal(stage: Stage, life: Life) -> str:
    """The log line that says that the store refuses writes, once it comes."""
    found = stage.until(lambda: [text for level, text in store_lines(life) if text.startswith(REFUSES)])
    return str(found[0])


def end(stage: Stage, life: Life) -> None:
    """Ends a process that waits once its goal is reached."""
    life.until("idle")
    stage.stop.touch()
    life.end()


def polls(life: Life, trigger: str) -> list[Line]:
    return [line for line in life.lines("polled") if line["trigger"] == trigger]


OPENS = """
    try:
        cloaca.DefaultRunner(sys.argv[1]).shutdown()
    except RuntimeError as error:
        say(type(error).__name__, isinstance(error, cloaca.CloacaError), error)
    else:
        say("opened")
"""


def test_another_process_that_locks_the_file_delays_and_loses_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    stage.feed(20)
    life = stage.start("--goal", 40, "--wait", "--pace", 0.02)
    life.until("success")
    with held(stage.database), Script(OPENS, stage.database) as late:
        stage.feed(20)
        quiet = len(polls(life, "watch"))
        text = refusal(stage, life)
        assert "locked by another process" in text
        assert str(stage.database) in text
        assert len(polls(life, "watch")) > quiet + 20, "what needs no write goes on"
        (said,) = late.rest()
        assert said.startswith("StoreError True")
        assert "locked by another process" in said
        assert str(stage.database) in said
        kept_back = len(life.lines("start"))
    end(stage, life)
    assert len(life.lines("start")) > kept_back
    assert store_lines(life) == [("ERROR", text), ("WARNING", TAKES)]
    assert stage.check_at_rest() == []


def test_a_lock_that_passes_in_time_is_not_worth_a_line(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    stage.feed(20)
    life = stage.start("--goal", 20, "--wait")
    life.until("fire")
    for _ in range(5):
        with held(stage.database):
            quiet = len(polls(life, "watch"))
            stage.until(lambda quiet=quiet: len(polls(life, "watch")) > quiet + 3)
    with held(stage.database):
        late = Script(OPENS, stage.database)
        stage.until(lambda: len(polls(life, "watch")) > 40)
    with late:
        assert late.rest() == ["opened"]
    end(stage, life)
    assert store_lines(life) == []
    assert stage.check_at_rest() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk, and not everywhere")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Takes the last byte of the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1 << 8, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_delays_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    stage = Stage(tmp_path / "stage", small_disk / "runs.db")
    stage.feed(20)
    life = stage.start("--goal", 120, "--wait")
    life.until("success")
    filler = fill(small_disk)
    stage.feed(100)
    text = refusal(stage, life)
    assert f"the disk that holds database '{stage.database}' is full" in text
    quiet = len(polls(life, "watch"))
    stage.until(lambda: len(polls(life, "watch")) > quiet + 20)
    filler.unlink()
    end(stage, life)
    lines = store_lines(life)
    assert [level for level, _ in lines] == ["ERROR", "WARNING"] * (len(lines) // 2)
    assert len(lines) <= 4, "a disk that is full for a while is told of once"
    assert stage.check_at_rest() == []


def test_a_process_killed_on_a_full_disk_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    stage = Stage(tmp_path / "stage", small_disk / "runs.db")
    stage.feed(20)
    life = stage.start()
    life.until("success")
    filler = fill(small_disk)
    stage.feed(100)
    refusal(stage, life)
    life.kill()
    with Script(OPENS, stage.database) as late:
        said = late.rest()[0]
    assert said == "opened" or ("StoreError True" in said and "full" in said)
    filler.unlink()
    assert stage.check() == []
    stage.finish()
    assert stage.check_at_rest() == []


def test_a_disk_that_fills_up_by_itself_is_worked_on_once_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    """Not the filler takes the last byte, but the program's own log, in the midst of a transaction."""
    stage = Stage(tmp_path / "stage", small_disk / "runs.db")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (7 << 20))
    stage.feed(400)
    life = stage.start("--goal", 400, "--wait")
    refusal(stage, life)
    ballast.unlink()
    end(stage, life)
    assert stage.check_at_rest() == []


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="cloaca-crash-"))
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


def as_nobody(text: str, *arguments: object) -> Script:
    """A program of a user who may not do everything."""
    return Script(text, *arguments, **({"user": NOBODY} if os.geteuid() == 0 else {}))


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_may_not_be_written_is_refused_and_not_touched(public_folder: Path, what: str) -> None:
    database = public_folder / "runs.db"
    with as_nobody(OPENS, database) as first:
        assert first.rest() == ["opened"]
    before = database.read_bytes()
    place = database if what == "file" else public_folder
    if os.geteuid() == 0:
        os.chown(place, 0, 0)
        database.chmod(0o666)
    place.chmod(0o444 if what == "file" else 0o555)
    with as_nobody(OPENS, database) as late:
        (said,) = late.rest()
    assert said.startswith("StoreError True"), said
    assert str(database) in said
    assert "writable" in said or "permissions" in said, "it says what to do"
    assert database.read_bytes() == before
    assert sorted(path.name for path in public_folder.iterdir()) == ["runs.db"]


def test_a_file_that_is_deleted_in_use_is_told_of(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    stage.feed(5)
    life = stage.start("--goal", 5, "--wait")
    life.until("idle")
    stage.database.unlink()
    stage.feed(5)
    text = refusal(stage, life)
    assert "was moved or deleted while in use" in text
    assert str(stage.database) in text
    life.kill()
