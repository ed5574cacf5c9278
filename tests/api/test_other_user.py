"""Another user, who may write to a store's folder but not its file: what he looks at he leaves as it is."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import run_program, start_program

import cloaca

OWNER, OTHER = 65534, 65533
# Who may become another user does; else the file's rights make one of this user.
HAS_USERS = hasattr(os, "geteuid") and os.geteuid() == 0

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="files have no such rights there"),
    pytest.mark.usefixtures("files"),
]


@pytest.fixture
def files(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--store") != "sqlite":
        pytest.skip("is about files")


# What is imported late may be out of the new user's reach.
BECOME = """
    import contextlib, importlib.util, io, os, sys, tempfile, threading
    import cloaca
    from cloaca import reading
    from cloaca.cli import main

    COMMANDS = [["ls"], ["runs"], ["doctor"], ["health"], ["metrics"], ["audit"], ["export", "COPY"]]
    if importlib.util.find_spec("prometheus_client") is None:
        COMMANDS.remove(["metrics"])
    with cloaca.WorkflowBuilder("good"):
        cloaca.task(id="only")(lambda context: None)

    def said(words, path, copy):
        words = [copy if word == "COPY" else word for word in words]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "--database", path])
        return code, out.getvalue(), err.getvalue()

    with tempfile.TemporaryDirectory() as folder:
        with cloaca.DefaultRunner(folder + "/runs.db"):
            for words in COMMANDS:
                said(words, folder + "/runs.db", folder + "/copy.db")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
"""

SERVES = (
    BECOME
    + """
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        assert runner.execute("good").status == "Completed"
        if sys.argv[3] == "die":
            os.kill(os.getpid(), 9)
        if sys.argv[3] == "stay":
            print("ready", flush=True)
            threading.Event().wait(60)
"""
)

LOOKS = (
    BECOME
    + """
    for words in COMMANDS:
        code, out, err = said(words, sys.argv[1], sys.argv[3])
        assert code in (0, 1), (words, code, err)
        if words == ["runs"]:
            print(len(out.splitlines()), flush=True)
"""
)

WATCHES = (
    BECOME
    + """
    with reading.Reader(sys.argv[1]) as reader:
        def look():
            return len(reading.runs(reader).items), len(reader.native.query("SELECT id FROM runs", []))

        commits = reader.native.commits()
        print(*look(), flush=True)
        while reader.native.commits() == commits:
            threading.Event().wait(0.01)
        while look() != (2, 2):
            threading.Event().wait(0.01)
        print(*look(), flush=True)
        threading.Event().wait(60)
"""
)


class Place:
    """A folder to which two users may write, with a store that one of them may only read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "runs.db"

    def serve(self, end: str = "leave") -> subprocess.CompletedProcess[str]:
        self.let(0o644)
        done = run_program(SERVES, self.path, OWNER, end)
        self.let(0o444)
        return done

    def serving(self) -> subprocess.Popen[str]:
        self.let(0o644)
        process = start_program(SERVES, self.path, OWNER, "stay")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self.let(0o444)
        return process

    def look(self, copy: Path, user: int = OTHER) -> str:
        done = run_program(LOOKS, self.path, user, copy)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def let(self, mode: int) -> None:
        if not HAS_USERS and self.path.exists():
            for path in self.path.parent.iterdir():
                path.chmod(mode)

    def files(self) -> dict[str, int]:
        """Whose the files are that are there."""
        return {path.name: path.stat().st_uid for path in sorted(self.path.parent.iterdir())}


def folder_for_all() -> Iterator[Path]:
    # Others may not enter what pytest makes.
    folder = Path(tempfile.mkdtemp(prefix="cloaca-other-user-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def place() -> Iterator[Place]:
    yield from (Place(folder) for folder in folder_for_all())


@pytest.fixture
def copy() -> Iterator[Path]:
    yield from (folder / "copy.db" for folder in folder_for_all())


def test_looks_at_what_nobody_serves_leave_nothing_and_keep_nobody_out(place: Place, copy: Path) -> None:
    assert place.serve().returncode == 0
    files = place.files()
    assert list(files) == ["runs.db"]
    assert place.look(copy) == "1"
    assert place.files() == files
    done = place.serve()
    assert done.returncode == 0, done.stderr
    with cloaca.DefaultRunner(copy, paused=True) as runner:
        assert len(runner.list_runs()) == 1


def test_a_file_that_nobody_may_write_is_looked_at_and_exported(place: Place, copy: Path) -> None:
    assert place.serve().returncode == 0
    place.path.chmod(0o444)
    assert place.look(copy, OWNER) == "1"
    assert list(place.files()) == ["runs.db"]
    assert copy.stat().st_mode & 0o777 == 0o644


def test_looks_beside_who_serves_leave_nothing(place: Place, copy: Path) -> None:
    with place.serving() as process:
        files = place.files()
        assert place.look(copy) == "1"
        assert place.files() == files
        process.kill()
    assert len(copy.read_bytes()) > 0


def test_what_a_crash_left_in_the_log_is_seen_and_left_there(place: Place, copy: Path) -> None:
    assert place.serve("die").returncode == -9
    files = place.files()
    assert {"runs.db-shm", "runs.db-wal"} < files.keys()
    assert place.look(copy) == "1"
    assert place.files() == files
    done = place.serve()
    assert done.returncode == 0, done.stderr


def test_a_log_without_its_memory_is_left_to_who_may_write(place: Place) -> None:
    assert place.serve("die").returncode == -9
    (place.path.parent / "runs.db-shm").unlink()
    files = place.files()
    done = run_program(LOOKS, place.path, OTHER, "none")
    assert "let its owner look at it once" in done.stderr
    assert place.files() == files
    assert place.serve().returncode == 0


@pytest.mark.skipif(not HAS_USERS, reason="needs a second user")
def test_a_reader_sees_what_a_runner_does_that_begins_and_ends_meanwhile(place: Place) -> None:
    assert place.serve().returncode == 0
    with start_program(WATCHES, place.path, OTHER) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "1 1\n"
        done = place.serve()
        assert done.returncode == 0, done.stderr
        assert watching.stdout.readline() == "2 2\n"
        done = place.serve()
        assert done.returncode == 0, done.stderr
        watching.kill()
    assert set(place.files().values()) == {OWNER}


@pytest.mark.skipif(not HAS_USERS, reason="needs a second user")
@pytest.mark.parametrize("left", ["runs.db-shm", "runs.db-wal"])
def test_a_runner_names_the_file_of_another_user_that_keeps_it_out(place: Place, left: str) -> None:
    assert place.serve().returncode == 0
    for name in ("runs.db-shm", "runs.db-wal"):
        path = place.path.parent / name
        path.touch(0o644)
        os.chown(path, *((OTHER, OTHER) if name == left else (OWNER, OWNER)))
    done = place.serve()
    assert done.returncode == 1
    assert f"{left}' beside it may not be written by this user" in done.stderr, done.stderr
    assert "chown" in done.stderr


TEAM = 65532
SHARES = """
    import os, sys, tempfile, threading
    import cloaca
    from cloaca import reading

    def use(path, does):
        with reading.Reader(path) if does == "look" else cloaca.DefaultRunner(path) as store:
            reading.runs(store) if does == "look" else store.list_runs()
            if does in ("look", "stay"):
                print("ready", flush=True)
                threading.Event().wait(60)

    user, does = int(sys.argv[2]), sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        use(folder + "/runs.db", "serve")
        with reading.Reader(folder + "/runs.db") as reader:
            reading.runs(reader)
    os.setgroups([int(sys.argv[4])])
    os.setgid(user)
    os.setuid(user)
    use(sys.argv[1], does)
"""


@pytest.mark.skipif(not HAS_USERS, reason="needs a second user")
@pytest.mark.parametrize("does", ["look", "stay"])
def test_who_shares_a_store_by_its_group_does_not_keep_its_owner_out(place: Place, does: str) -> None:
    folder = place.path.parent
    os.chown(folder, OWNER, TEAM)
    folder.chmod(0o770)
    done = run_program(SHARES, place.path, OWNER, "serve", TEAM)
    assert done.returncode == 0, done.stderr
    os.chown(place.path, OWNER, TEAM)
    place.path.chmod(0o660)
    with start_program(SHARES, place.path, OTHER, does, TEAM) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        beside = {path.name: path.stat().st_gid for path in folder.iterdir()}
        assert beside["runs.db-shm"] == beside["runs.db-wal"] == TEAM
        done = run_program(SHARES, place.path, OWNER, "serve", TEAM)
        assert done.returncode == 0, done.stderr
        other.kill()
    done = run_program(SHARES, place.path, OWNER, "serve", TEAM)
    assert done.returncode == 0, done.stderr
