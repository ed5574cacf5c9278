"""One file by many names, and what becomes of it under a runner: nothing committed is lost, or it is told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from attack import SECONDS, Program, health, outside, run

import cloaca

SERVES = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=1)
        def t(context):
            say("begins", context["i"])
            if context.get("waits"):
                sys.stdin.readline()

    @cloaca.trigger(workflow="w", poll_interval="10ms")
    def watch(tick):
        tick.cursor = (tick.cursor or 0) + 1
        if tick.cursor > 200:
            return False
        return cloaca.TriggerResult.fire({"i": tick.cursor}, run_key=str(tick.cursor))

    try:
        runner = cloaca.DefaultRunner(sys.argv[1])
    except cloaca.StoreError as error:
        say("refused", error)
        sys.exit()
    if len(sys.argv) > 2:
        os.chdir(sys.argv[2])
    runner.submit("w", {"i": -os.getpid(), "waits": True})
    until(lambda: runner.stats()["runs_unfinished"] == 0, 60)
    until(lambda: not runner.list_runs(status="Running") and not runner.list_runs(status="Pending"))
    time.sleep(0.2)
    runner.shutdown()
    say("end")
"""

NAMES = {
    "the same path": lambda path: str(path),
    "a symbolic link": lambda path: str(linked(path)),
    "a link to its folder": lambda path: str(linked(path.parent) / path.name),
    "a link to a link": lambda path: str(linked(linked(path))),
    "a path with dots": lambda path: f"{path.parent}/../{path.parent.name}/./{path.name}",
    "a URL": lambda path: f"sqlite:///{path}",
    "the process's folder": lambda path: f"/proc/self/cwd/{path.name}",
    "a relative path": lambda path: path.name,
}


def linked(path: Path) -> Path:
    link = path.with_name(f"link-to-{path.name}")
    link.symlink_to(path)
    return link


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_see_each_other_by_whatever_name_they_open_the_file(tmp_path: Path, name: str) -> None:
    """Neither takes the other for dead: bodies that run beside each other are each run once."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "runs.db"
    with Program(SERVES, path) as first:
        first.until("begins -")
        with Program(SERVES, NAMES[name](path), "/", cwd=folder) as second:
            second.until("begins -")
            for program in (first, second):
                program.tell()
            for program in (first, second):
                program.end()
    begun = [line for program in (first, second) for line in program.lines if line.startswith("begins")]
    assert len(begun) == len(set(begun)), "a body began twice"
    assert len(begun) >= 2
    assert health(path) == "ok"


def test_a_second_hard_link_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """SQLite would keep a log of its own for each name: what is in the other one's is lost."""
    path, other = tmp_path / "runs.db", tmp_path / "other.db"
    with cloaca.DefaultRunner(str(path)) as runner:
        other.hardlink_to(path)
        for name in (path, other):
            with pytest.raises(cloaca.StoreError, match="hard link"):
                cloaca.DefaultRunner(str(name))
        assert runner.query("SELECT count(*) AS n FROM owners WHERE left_at IS NULL") == [{"n": 1}]
    with pytest.raises(cloaca.StoreError, match="hard link"):
        cloaca.DefaultRunner(str(path))
    other.unlink()
    cloaca.DefaultRunner(str(path)).shutdown()


ODD = [
    "a b", "50%", "%20", "q?x", "h#f", "a&b=c", "ünï☃", "'q'", 'd"q', "x'--", "[g*]", "~", "-owner-1", "a;b",
    "$HOME", "new\nline", "tab\t", "back\\slash", "..hidden", " lead", "trail ", "\x7f", "file:x",
    "\u202eevil", "e\u0301", "x" * 200,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("is_folder", [False, True])
def test_an_odd_name_names_that_file_and_no_other(tmp_path: Path, name: str, is_folder: bool) -> None:
    path = tmp_path / name / "runs.db" if is_folder else tmp_path / f"{name}.db"
    path.parent.mkdir(exist_ok=True)
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    url = str(path).replace("?", "%3F") if "?" in name else str(path)
    for _ in range(2):
        try:
            runner = cloaca.DefaultRunner(url if os.path.exists(url) or "?" not in name else str(path))
        except cloaca.UrlError:
            assert "?" in name, "only a question mark means something in a URL"
            return
        with runner:
            assert runner.execute("w").status == "Completed"
            runner.export(path.parent / "copy")
        (path.parent / "copy").unlink()
        del runner
    assert outside(path, "SELECT count(*) FROM runs") == [[[2]]]
    left = [found for found in path.parent.iterdir() if found.suffix != ".db" and not found.is_dir()]
    assert [found.name for found in left if not found.name.startswith(path.name)] == []


HURT = {
    "deleted": lambda path: path.unlink(),
    "replaced": lambda path: replace(path),
    "emptied": lambda path: os.truncate(path, 0),
    "its folder is moved": lambda path: path.parent.rename(f"{path.parent}-moved"),
    "its log is deleted": lambda path: [Path(f"{path}{suffix}").unlink() for suffix in ("-wal", "-shm")],
}


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


HURTS = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=1)
        def t(context): pass
    logging.basicConfig(level=logging.ERROR, stream=sys.stdout, format="log: %(message)s")
    runner = cloaca.DefaultRunner(sys.argv[1])
    for i in range(20):
        runner.execute("w", {"i": i})
    say("hurt me")
    sys.stdin.readline()
    outcomes = set()

    def work():
        for i in range(20):
            outcomes.add(str(told(lambda: runner.execute("w", {"i": i}).status)))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    say("hangs" if thread.is_alive() else "worked", *sorted(outcomes))
    time.sleep(1)
    runner.shutdown(1)
    say("end")
"""


@pytest.mark.parametrize("how", HURT)
def test_a_file_that_is_hurt_in_use_is_told_of_and_hangs_nobody(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "runs.db"
    with Program(HURTS, path) as program:
        program.until("hurt me")
        HURT[how](path)
        program.tell()
        program.end()
    assert not any(line.startswith("hangs") for line in program.lines), program.lines
    assert any(line.startswith("log:") for line in program.lines), program.lines


def test_a_file_locked_for_8_s_delays_and_loses_nothing(tmp_path: Path) -> None:
    """Longer than SQLite's own patience of 5 s. Who opens it meanwhile is refused or opens."""
    path = tmp_path / "runs.db"
    source = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): pass
    logging.disable()
    stamps = []

    @cloaca.trigger(workflow="w", poll_interval="20ms")
    def watch():
        stamps.append(time.monotonic())
        return False

    runner = cloaca.DefaultRunner(sys.argv[1])
    runner.execute("w")
    say("lock it")
    sys.stdin.readline()
    runs = []
    many = [{"i": i} for i in range(200)]
    thread = threading.Thread(target=lambda: runs.extend(runner.submit_many("w", many)))
    thread.start()
    polls = len(stamps)
    until(lambda: len(stamps) > polls + 50)
    say("polls go on")
    thread.join(60)
    say(*{run.result(30).status for run in runs})
    runner.shutdown()
    """
    opens = """
    try:
        cloaca.DefaultRunner(sys.argv[1]).shutdown()
    except cloaca.StoreError as error:
        assert "locked" in str(error), error
        say("locked")
    else:
        say("opened")
    """
    holds = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); time.sleep(8); c.execute('ROLLBACK')"
    )
    with Program(source, path) as program:
        program.until("lock it")
        other = subprocess.Popen([sys.executable, "-c", holds, str(path)], stdout=subprocess.PIPE)
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        program.tell()
        program.until("polls go on")
        assert run(opens, path) in (["locked"], ["opened"])
        program.end()
        assert other.wait(SECONDS) == 0
        other.stdout.close()
    assert program.lines[-1] == "Completed"
    assert outside(path, "SELECT status, count(*) FROM runs GROUP BY status") == [[["Completed", 201]]]
    assert health(path) == "ok"


def test_a_reader_that_stays_costs_room_and_nothing_else(tmp_path: Path) -> None:
    """It keeps the log from being folded into the file; once it is gone, the log is."""
    path = tmp_path / "runs.db"
    source = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): pass
    runner = cloaca.DefaultRunner(f"sqlite://{sys.argv[1]}?durability=normal")
    runner.execute("w")
    say("read it")
    sys.stdin.readline()
    for _ in range(30):
        for run in runner.submit_many("w", [{"i": i, "x": "x" * 500} for i in range(200)]):
            assert run.result(30).status == "Completed"
    say("grown", os.path.getsize(sys.argv[1] + "-wal"))
    sys.stdin.readline()
    for _ in range(10):
        for run in runner.submit_many("w", [{"i": i, "x": "x" * 500} for i in range(200)]):
            assert run.result(30).status == "Completed"
    say("now", os.path.getsize(sys.argv[1] + "-wal"))
    runner.shutdown()
    """
    reads = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN'); "
        "n = c.execute('SELECT count(*) FROM runs').fetchone(); "
        "print('reads', flush=True); sys.stdin.readline(); "
        "assert n == c.execute('SELECT count(*) FROM runs').fetchone(); c.execute('COMMIT'); c.close()"
    )
    with Program(source, path) as program:
        program.until("read it")
        pipe = subprocess.PIPE
        reader = subprocess.Popen([sys.executable, "-c", reads, str(path)], stdin=pipe, stdout=pipe)
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"reads\n"
        program.tell()
        grown = int(program.until("grown").split()[1])
        reader.communicate(b"\n", timeout=SECONDS)
        assert reader.returncode == 0
        program.tell()
        now = int(program.until("now").split()[1])
        program.end()
    assert now <= grown
    assert now <= 17 << 20, "the log is cut back to 16 MiB"
    assert outside(path, "SELECT count(*) FROM runs WHERE status = 'Completed'") == [[[8001]]]
    assert health(path) == "ok"
    assert not Path(f"{path}-wal").exists()


def test_an_outsider_that_writes_all_the_time_loses_nothing_and_starves_nobody(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    source = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task()
        def t(context): pass
    logging.disable()
    runner = cloaca.DefaultRunner(sys.argv[1])
    say("write")
    sys.stdin.readline()
    for i in range(20):
        assert runner.execute("w", {"i": i}).status == "Completed"
    say("done")
    runner.shutdown()
    """
    writes = """
import sqlite3, sys, threading
c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
c.execute("CREATE TABLE app (x)")
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), done.set())).start()
print("writes", flush=True)
n = 0
while not done.is_set():
    c.execute("INSERT INTO app VALUES (hex(randomblob(2000)))")
    n += 1
c.close()
print(n)
"""
    with Program(source, path) as program:
        program.until("write")
        pipe = subprocess.PIPE
        other = subprocess.Popen([sys.executable, "-c", writes, str(path)], stdin=pipe, stdout=pipe)
        assert other.stdout is not None
        assert other.stdout.readline() == b"writes\n"
        program.tell()
        program.until("done")
        written = int(other.communicate(b"\n", timeout=SECONDS)[0])
        program.end()
    assert outside(path, "SELECT count(*) FROM runs", "SELECT count(*) FROM app") == [[[20]], [[written]]]
    assert health(path) == "ok"


def test_a_copy_of_a_live_file_by_export_is_whole_whenever_it_is_taken(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner(str(tmp_path / "runs.db")) as runner:
        before = 0
        for number in range(10):
            runs = runner.submit_many("w", [{"i": i, "x": "x" * 300} for i in range(50)])
            runner.export(tmp_path / f"copy-{number}")
            with closing(sqlite3.connect(tmp_path / f"copy-{number}")) as copy:
                (count,) = copy.execute("SELECT count(*) FROM runs").fetchone()
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert count == before + 50
            before = count
            for one in runs:
                one.result(SECONDS)


def test_a_file_that_is_refused_is_left_as_it_was(tmp_path: Path) -> None:
    """Also one with a write-ahead log, of which the hold on it would leave files behind."""
    path = tmp_path / "runs.db"
    cloaca.DefaultRunner(str(path)).shutdown()
    (connection,) = [sqlite3.connect(path, isolation_level=None)]
    with closing(connection):
        connection.execute("PRAGMA user_version = 999")
    before = path.read_bytes()
    with pytest.raises(cloaca.StoreError, match="999"):
        cloaca.DefaultRunner(str(path))
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["runs.db"]


def test_a_pipe_where_news_would_be_left_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    for number in range(1, 4):
        os.mkfifo(f"{path}-owner-{number}")
    source = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=1)
        def t(context): pass
    with cloaca.DefaultRunner(sys.argv[1]) as first, cloaca.DefaultRunner(sys.argv[1]) as second:
        say(first.execute("w").status, second.execute("w").status)
    """
    assert "Completed Completed" in run(source, path)


def test_a_file_that_is_mounted_by_itself_is_refused(tmp_path: Path) -> None:
    """Its log would lie beside it, where nobody who opens it by its other path looks."""
    path, place = tmp_path / "a" / "runs.db", tmp_path / "b" / "runs.db"
    path.parent.mkdir()
    place.parent.mkdir()
    cloaca.DefaultRunner(path).shutdown()
    place.touch()
    if subprocess.run(["mount", "--bind", path, place], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        with pytest.raises(cloaca.StoreError, match=r"runs.db' is mounted by itself .* mount its folder"):
            cloaca.DefaultRunner(place)
    finally:
        subprocess.run(["umount", place], check=True)
    assert [found.name for found in place.parent.iterdir()] == ["runs.db"]
    cloaca.DefaultRunner(path).shutdown()


def test_what_is_printed_where_standard_outputs_are_closed_does_not_go_into_the_file(tmp_path: Path) -> None:
    path, source = tmp_path / "runs.db", tmp_path / "program.py"
    source.write_text("""
import os, sys, cloaca

with cloaca.WorkflowBuilder("w"):
    cloaca.task(id="t")(lambda context: None)
with cloaca.DefaultRunner(sys.argv[1]) as runner:
    runner.execute("w")
    for number in range(3):
        try:
            # As C libraries do, and `faulthandler`.
            os.write(number, b"x" * 20_000)
        except OSError:
            pass
    os._exit(runner.execute("w").status != "Completed")
""")
    command = 'exec "$0" "$@" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", command, sys.executable, source, path], check=False)
    assert done.returncode == 0
    assert outside(path, "SELECT count(*) FROM runs") == [[[2]]]
    assert health(path) == "ok"
