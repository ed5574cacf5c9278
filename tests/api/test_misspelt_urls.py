"""The URL of a server that is misspelt is shown nowhere, and no file is called so: it may hold a password."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cloaca
from cloaca import reading

SPELLINGS = [
    "postgresql:app:hunter2@h",
    "postgresql//app:hunter2@h/app",
    "app:hunter2@h/app",
    "//app:hunter2@h:5432/app",
    "sqlite://app:hunter2@h/x.db",
    "jdbc:postgresql://h/app?user=app&password=hunter2",
    "Postgres:app:hunter2",
    "postgresql;//app:hunter2@h/app",
    "postgres.//app:hunter2@h/app",
]


def export(url: str) -> None:
    with cloaca.DefaultRunner("runs.db") as runner:
        runner.export(url)


DOORS: dict[str, Callable[[str], Any]] = {
    "runner": cloaca.DefaultRunner,
    "client": lambda url: cloaca.DefaultRunner(url, work=False),
    "schema": lambda url: cloaca.DefaultRunner.with_schema(url, "x"),
    "tenants": cloaca.DatabaseAdmin,
    "reader": reading.Reader,
    "source": lambda url: cloaca.copy_store(url, "copy.db"),
    "target": lambda url: cloaca.copy_store("runs.db", url),
    "migrate": cloaca.migrate,
    "export": export,
}


@pytest.mark.parametrize("url", SPELLINGS)
@pytest.mark.parametrize("door", DOORS)
def test_no_door_of_the_program_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: str, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cloaca.DefaultRunner("runs.db").shutdown()
    with pytest.raises(cloaca.CloacaError) as raised:
        DOORS[door](url)
    assert "hunter2" not in str(raised.value)
    assert not list(tmp_path.glob("*hunter2*"))


def test_a_server_is_no_file_to_export_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cloaca.ArgumentError, match="path is the URL of a server; name a file"):
        export("postgresql://app:hunter2@h/app")
    # What is a path is one, whatever it is called.
    with cloaca.DefaultRunner("runs.db") as runner:
        runner.export(Path("ann:x@home.db"))
    assert Path("ann:x@home.db").exists()


@pytest.mark.parametrize("url", SPELLINGS)
def test_no_setting_of_a_project_shows_it(tmp_path: Path, url: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.cloaca]\ndatabase = "{url}"\n')
    for words in (["ls"], ["health"], ["run", "app.py"], ["export", "copy.db"], ["export", url]):
        line = [sys.executable, "-m", "cloaca", *words]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in (2, 3)
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pyproject.toml"]
