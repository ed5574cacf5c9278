"""What others do to the file: lock it, fill its disk, take the right to write, delete it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from lives import Life, Script, Stage
from witness import Line

import cloaca
from cloaca import reading

REFUSES = "the store refuses writes"
TAKES = "the store takes writes again"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "stage") as stage:
        yield stage


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
    found = stage.until(lambda: [text for _, text in store_lines(life) if text.startswith(REFUSES)])
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


def test_another_process_that_locks_the_file_delays_and_loses_nothing(stage: Stage) -> None:
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


def test_a_lock_that_passes_in_time_is_not_worth_a_line(stage: Stage) -> None:
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


@pytest.fixture
def cramped(tmp_path: Path, small_disk: Path) -> Iterator[Stage]:
    """A stage whose database, but not its witness, lies on the small disk."""
    with Stage(tmp_path / "stage", small_disk / "runs.db") as stage:
        yield stage


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


def test_a_full_disk_delays_and_loses_nothing(cramped: Stage, small_disk: Path) -> None:
    cramped.feed(20)
    life = cramped.start("--goal", 120, "--wait")
    life.until("success")
    filler = fill(small_disk)
    cramped.feed(100)
    text = refusal(cramped, life)
    assert f"the disk that holds database '{cramped.database}' is full" in text
    quiet = len(polls(life, "watch"))
    cramped.until(lambda: len(polls(life, "watch")) > quiet + 20)
    filler.unlink()
    end(cramped, life)
    lines = store_lines(life)
    assert [level for level, _ in lines] == ["ERROR", "WARNING"] * (len(lines) // 2)
    assert len(lines) <= 4, "a disk that is full for a while is told of once"
    assert cramped.check_at_rest() == []


def test_a_process_killed_on_a_full_disk_loses_nothing(cramped: Stage, small_disk: Path) -> None:
    cramped.feed(20)
    life = cramped.start()
    life.until("success")
    filler = fill(small_disk)
    cramped.feed(100)
    refusal(cramped, life)
    life.kill()
    with Script(OPENS, cramped.database) as late:
        said = late.rest()[0]
    assert said == "opened" or ("StoreError True" in said and "full" in said)
    filler.unlink()
    assert cramped.check() == []
    cramped.finish()
    assert cramped.check_at_rest() == []


def test_a_disk_that_fills_up_by_itself_is_worked_on_once_there_is_room(
    cramped: Stage, small_disk: Path
) -> None:
    """Not the filler takes the last byte, but the program's own log, in the midst of a transaction."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (7 << 20))
    cramped.feed(400)
    life = cramped.start("--goal", 400, "--wait")
    refusal(cramped, life)
    ballast.unlink()
    end(cramped, life)
    assert cramped.check_at_rest() == []


def as_a_mortal(text: str, *arguments: object) -> Script:
    """A program to which permissions apply, which they don't to root."""
    if os.geteuid() != 0:
        return Script(text, *arguments)
    if (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("nothing here takes root's privileges away")
    return Script(
        text, *arguments, before=[setpriv, "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    )


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_may_not_be_written_is_refused_and_not_touched(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    database = folder / "runs.db"
    with as_a_mortal(OPENS, database) as first:
        assert first.rest() == ["opened"]
    before = database.read_bytes()
    place, mode = (database, 0o444) if what == "file" else (folder, 0o555)
    place.chmod(mode)
    with as_a_mortal(OPENS, database) as late:
        (said,) = late.rest()
    place.chmod(mode | 0o700)
    assert said.startswith("StoreError True"), said
    assert str(database) in said
    assert "writable" in said or "permissions" in said, "it says what to do"
    assert database.read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["runs.db"]


def test_a_file_that_is_deleted_in_use_stops_its_runner_which_saves_what_it_can(
    stage: Stage,
) -> None:
    """What would be committed to it from then on would be gone with the process: nothing is."""
    stage.feed(5)
    life = stage.start("--goal", 5, "--wait")
    life.until("idle")
    stage.database.unlink()
    stage.feed(5)
    said = stage.until(lambda: [line[1] for line in store_lines(life) if "has stopped" in line[1]])
    assert f"deleted, moved or replaced database '{stage.database}' while it was in use" in said[0]
    rescue = stage.database.with_name(stage.database.name + "-rescue")
    assert str(rescue) in said[0]
    with closing(sqlite3.connect(rescue)) as saved:
        assert saved.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert saved.execute("SELECT count(*) FROM runs WHERE completed_at IS NOT NULL").fetchone()[0] > 0
    life.kill()
    # The next start neither fails for another cause nor begins anew in silence, however often it is made.
    for _ in range(2):
        with Script(OPENS, stage.database) as late:
            (refused,) = late.rest()
        assert refused.startswith("StoreError"), refused
        for name in ("", "-rescue", "-wal", "-shm"):
            assert f"'{stage.database}{name}'" in refused
        assert not stage.database.exists()
    rescue.rename(stage.database)
    with Script(OPENS, stage.database) as late:
        (refused,) = late.rest()
    assert "the write-ahead log of another one, which would damage it" in refused
    for name in ("-wal", "-shm"):
        stage.database.with_name(stage.database.name + name).unlink(missing_ok=True)
    with cloaca.DefaultRunner(stage.database, paused=True) as runner:
        assert runner.query("SELECT count(*) AS n FROM runs WHERE completed_at IS NOT NULL")[0]["n"] > 0
        assert runner.query("PRAGMA integrity_check")[0]["integrity_check"] == "ok"


def test_a_store_beside_which_a_rescue_lies_says_so_at_each_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rescue = tmp_path / "runs.db-rescue"
    for is_there in (False, True, True):
        caplog.clear()
        if is_there:
            rescue.write_bytes(b"what was left")
        with cloaca.DefaultRunner(tmp_path / "runs.db"), reading.Reader(tmp_path / "runs.db") as reader:
            said = [record.getMessage() for record in caplog.records if str(rescue) in record.getMessage()]
            found = [each for each in reading.doctor(reader) if str(rescue) in each.text]
        assert len(said) == len(found) == is_there
        assert all("rename it to" in text and text.endswith("move it elsewhere") for text in said)
        assert all(each.level == "warn" and each.way_out for each in found)
    assert rescue.read_bytes() == b"what was left"


def test_who_begins_anew_moves_the_rescue_away(tmp_path: Path) -> None:
    path, rescue = tmp_path / "runs.db", tmp_path / "runs.db-rescue"
    rescue.write_bytes(b"what was left")
    for opens in (cloaca.DefaultRunner, reading.Reader):
        with pytest.raises(cloaca.StoreError, match="to begin anew, move it elsewhere"):
            opens(path)
    rescue.rename(tmp_path / "old.db")
    cloaca.DefaultRunner(path).shutdown()
