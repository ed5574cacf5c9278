"""`copy_store`, killed and raced: under the new name there is a whole store or none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cloaca
from cloaca import _cloaca, copying, reading, registry

RUNS = 30
DIES = """
import os, sys
import cloaca
from cloaca import copying

where = sys.argv[1]
if where == "replace":
    from cloaca import _cloaca
    _cloaca.rename_to_new = lambda *_: os._exit(9)
elif where == "export":
    from cloaca.reading import Reader
    before = Reader.export
    def export(self, path):
        before(self, path)
        # As if it had died amidst it.
        os.truncate(path, 5000)
        os._exit(9)
    Reader.export = export
cloaca.copy_store("a.db", "b.db")
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def counts(tick: cloaca.Tick) -> cloaca.TriggerResult:
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.fire({"n": tick.cursor}, run_key=str(tick.cursor))

    with cloaca.DefaultRunner("a.db") as runner:
        for run in runner.submit_many("w", [{"n": n} for n in range(RUNS)]):
            run.result(60)
        runner.tick("counts")
    return tmp_path / "a.db"


@pytest.mark.parametrize("where", ["export", "replace"])
def test_a_killed_copy_leaves_no_half_store(source: Path, where: str) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, where], cwd=source.parent, check=False)
    assert done.returncode == 9
    assert not Path("b.db").exists()
    assert [path.name.startswith("b.db-copying-") for path in source.parent.glob("b.db*")] == [True]
    # What is left is in nobody's way.
    assert cloaca.copy_store("a.db", "b.db") == source.parent / "b.db"


def test_an_export_that_is_killed_leaves_no_half_store(source: Path) -> None:
    with cloaca.DefaultRunner("a.db", work=False) as runner:
        runner.submit_many("w", [{"n": n, "text": "x" * 1_000_000} for n in range(40)])
    exports = "import cloaca; cloaca.reading.Reader('a.db').export('b.db')"
    process = subprocess.Popen([sys.executable, "-c", exports])
    while process.poll() is None and not list(source.parent.glob("b.db*")):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert [path.name.startswith("b.db-exporting-") for path in source.parent.glob("b.db*[0-9a-f]")] == [True]
    # What is left is in nobody's way.
    with reading.Reader("a.db") as reader:
        reader.export("b.db")
    with reading.Reader("b.db") as copy:
        assert len(reading.runs(copy, limit=1000)) == RUNS + 41
    # Nor does what a store of that name has left become the copy's.
    Path("c.db-wal").write_bytes(b"left")
    with reading.Reader("a.db") as reader, pytest.raises(cloaca.StoreError, match="has left"):
        reader.export("c.db")


@contextmanager
def making(source: Path, words: list[str], *before: str) -> Iterator[subprocess.Popen[str]]:
    """A command that makes `b.db`, amid that."""
    with cloaca.DefaultRunner("a.db", work=False) as runner:
        for _ in range(2):
            runner.submit_many("w", [{"n": n, "text": "x" * 1_000_000} for n in range(40)])
    line = [*before, sys.executable, "-m", "cloaca", *words]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(source.parent.glob("b.db*")):
            time.sleep(0.001)
        yield process


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("words", [["export", "b.db", "--database", "a.db"], ["copy", "a.db", "b.db"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_leaves_nothing(source: Path, words: list[str], number: int) -> None:
    with making(source, words) as process:
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert list(source.parent.glob("b.db*")) == []


@pytest.mark.skipif(shutil.which("nohup") is None, reason="nohup")
def test_a_command_that_is_to_outlive_its_terminal_does(source: Path) -> None:
    with making(source, ["copy", "a.db", "b.db"], "nohup") as process:
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert Path("b.db").exists()


def test_a_copy_goes_on_where_the_store_ended(source: Path) -> None:
    cloaca.copy_store("a.db", "b.db")
    with cloaca.DefaultRunner("b.db") as runner:
        assert runner.cursor("counts") == 1
        assert len(runner.list_runs(limit=1000)) == RUNS + 1
        (fire,) = runner.tick("counts", dry_run=True)["fires"]
        assert fire["context"] == {"n": 2}
        # A key that was used is used there, too.
        runner.set_cursor("counts", 0)
        (fire,) = runner.tick("counts", dry_run=True)["fires"]
        assert fire["gate"]["verdict"] == "refuse_key"  # type: ignore[typeddict-item]
        # An epoch is never given twice.
        assert [row["number"] for row in runner.list_runners()] == [2]


def test_what_is_unfinished_is_claimed_by_the_first_runner_of_the_copy(source: Path) -> None:
    client = _cloaca.Client.open("a.db")
    run_id, _ = client.submit("w", registry.workflows["w"].version, '{"n":99}')
    client.close()
    cloaca.copy_store("a.db", "b.db")
    assert run_id is not None
    with cloaca.DefaultRunner("b.db") as runner:
        assert runner.run(run_id).result(60).status == "Completed"
    with reading.Reader("a.db") as reader:
        assert reading.run(reader, run_id).run.status == "Pending"


def test_a_runner_that_comes_meanwhile_is_noticed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = reading.Reader.export

    def export(self: Any, path: Any) -> None:
        before(self, path)
        with cloaca.DefaultRunner("a.db") as runner:
            runner.execute("w", {"late": 1})

    monkeypatch.setattr(reading.Reader, "export", export)
    with pytest.raises(cloaca.StoreError, match="was opened while it was copied"):
        cloaca.copy_store("a.db", "b.db")
    assert list(source.parent.glob("b.db*")) == []


def test_a_target_that_is_made_meanwhile_is_left_alone(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = reading.Reader.export

    def export(self: Any, path: Any) -> None:
        before(self, path)
        monkeypatch.undo()
        os.chdir(source.parent)
        cloaca.DefaultRunner("b.db").shutdown()

    monkeypatch.setattr(reading.Reader, "export", export)
    with pytest.raises(cloaca.StoreError, match="exists; name a new file"):
        cloaca.copy_store("a.db", "b.db")
    with cloaca.DefaultRunner("b.db") as runner:
        assert runner.query("SELECT * FROM runs") == []
        with pytest.raises(cloaca.StoreError, match=r"b\.db.* is served by runner 2"):
            cloaca.copy_store("a.db", "b.db")


def test_a_runner_that_makes_its_file_at_the_last_moment_keeps_it(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look, and as empty as a file is that a runner has just made."""
    before = copying._refuse_taken
    looks = []

    def refuse_taken(path: Path) -> None:
        before(path)
        looks.append(path)
        if len(looks) == 2:
            path.touch()

    monkeypatch.setattr(copying, "_refuse_taken", refuse_taken)
    with pytest.raises(cloaca.StoreError, match="exists by now"):
        cloaca.copy_store("a.db", "b.db")
    assert len(looks) == 2
    assert [path.stat().st_size for path in source.parent.glob("b.db*")] == [0]
    with pytest.raises(cloaca.StoreError, match="exists; name a new file"):
        cloaca.copy_store("a.db", "b.db")


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
def test_a_copy_may_be_read_by_nobody_who_may_not_read_the_store(source: Path) -> None:
    source.chmod(0o600)
    with reading.Reader("a.db") as reader:
        reader.export("c.db")
    with cloaca.DefaultRunner("a.db") as runner:
        runner.export("d.db")
    cloaca.copy_store("a.db", "b.db")
    assert [oct(Path(name).stat().st_mode)[-3:] for name in ("b.db", "c.db", "d.db")] == ["600"] * 3


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
def test_a_copy_goes_to_where_the_link_leads(source: Path) -> None:
    folder = source.parent / "big"
    folder.mkdir()
    Path("b.db").symlink_to(folder / "real.db")
    assert cloaca.copy_store("a.db", "b.db") == folder / "real.db"
    assert Path("b.db").is_symlink()
    with cloaca.DefaultRunner("b.db") as runner:
        assert len(runner.list_runs(limit=1000)) == RUNS + 1


def test_a_copy_may_have_a_long_name_and_is_told_by_its_own(source: Path) -> None:
    long = "x" * 240
    assert cloaca.copy_store("a.db", long).name == long
    with pytest.raises(cloaca.StoreError, match="File name too long"):
        cloaca.copy_store("a.db", "x" * 300)
    with pytest.raises(cloaca.ArgumentTypeError, match="target is b'b"):
        cloaca.copy_store("a.db", b"b.db")  # type: ignore[arg-type]
