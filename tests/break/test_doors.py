"""The program opens the live file by other doors than `sqlite3.connect`: it is told once, and not refused."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cloaca

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed in /proc")


DOORS: dict[str, Callable[[Path], object]] = {
    "a path": lambda path: path.read_bytes(),
    "text": lambda path: open(os.fspath(path), "rb").close(),
    "bytes": lambda path: open(os.fsencode(path), "rb").close(),
    "os.open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "a copy": lambda path: shutil.copy(path, path.with_suffix(".copy")),
}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "cloaca" and "runner.export" in record.getMessage()
    ]


@pytest.mark.parametrize("door", DOORS)
def test_who_opens_the_live_file_is_told_of_export_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, door: str
) -> None:
    path = tmp_path / "a.db"
    with cloaca.DefaultRunner(os.fspath(path)):
        for _ in range(3):
            DOORS[door](path)
        (line,) = told(caplog)
        assert "a.db" in line
    caplog.clear()
    DOORS[door](path)
    assert not told(caplog)


def test_a_file_of_a_like_name_is_another_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "other").mkdir()
    alike = [tmp_path / "other" / "a.db", tmp_path / "aa.db"]
    for path in alike:
        path.write_bytes(b"")
    with cloaca.DefaultRunner(os.fspath(tmp_path / "a.db")):
        for path in alike:
            path.read_bytes()
        with pytest.raises(FileNotFoundError):
            (tmp_path / "missing" / "a.db").read_bytes()
        # A number, and what is no path at all.
        reader, writer = os.pipe()
        open(reader).close()
        os.close(writer)
        with pytest.raises(TypeError):
            os.open(object(), os.O_RDONLY)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="null"):
            os.open("\0a.db", os.O_RDONLY)
    assert not told(caplog)


def test_a_log_handler_that_raises_does_not_keep_a_file_from_being_opened(tmp_path: Path) -> None:
    class Raises(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise SystemExit

    handler = Raises()
    logging.getLogger("cloaca").addHandler(handler)
    try:
        with cloaca.DefaultRunner(os.fspath(tmp_path / "a.db")):
            assert (tmp_path / "a.db").read_bytes()
    finally:
        logging.getLogger("cloaca").removeHandler(handler)


@LINUX
@pytest.mark.parametrize("kind", ["a file", "sqlite3"])
def test_a_descriptor_from_before_the_runner_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = tmp_path / "a.db"
    path.touch()
    early = open(path, "rb") if kind == "a file" else sqlite3.connect(path)  # noqa: SIM115
    with cloaca.DefaultRunner(os.fspath(path)), cloaca.DefaultRunner(os.fspath(path)):
        (line,) = told(caplog)
        assert "a.db" in line
        assert "before" in line
    early.close()


def test_a_second_runner_of_the_process_is_no_stranger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = os.fspath(tmp_path / "a.db")
    with cloaca.DefaultRunner(path), cloaca.DefaultRunner(path):
        pass
    with cloaca.DefaultRunner(path):
        pass
    assert not told(caplog)


@LINUX
def test_a_runner_that_never_was_hides_no_descriptor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(cloaca.StoreError) as kept:
        cloaca.DefaultRunner(os.fspath(tmp_path / "missing" / "a.db"))
    path = tmp_path / "a.db"
    path.touch()
    # What was raised keeps the frames that it came through.
    assert kept.tb is not None
    with open(path, "rb"), cloaca.DefaultRunner(os.fspath(path)):
        assert "before" in "".join(told(caplog))
