"""A store that nobody serves, on a disk without room for what SQLite lays beside it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import run_command

import cloaca


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no disk of its own can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "fill").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@pytest.mark.parametrize("words", [["ls"], ["health"], ["doctor"], ["runs"]], ids=" ".join)
def test_a_full_disk_is_told_of_with_what_to_do(small: Path, words: list[str]) -> None:
    store = small / "runs.db"
    cloaca.DefaultRunner(store, paused=True).shutdown(0.0)
    fill(small)
    done = run_command([*words, "--database", str(store)])
    assert done.returncode == 3
    assert done.stderr == (
        f"cloaca: database '{store}' cannot be looked at: its disk is full (0 bytes are free, and to open it"
        " takes 32,768); make room there, or look at a copy of the file on another disk\n"
    )
    (small / "fill").unlink()
    assert run_command([words[0], "--database", str(store)]).returncode in (0, 1)
