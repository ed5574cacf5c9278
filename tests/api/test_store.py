"""The store: which URLs there are, what is refused, and looking into it from outside."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import run_program

import cloaca
import cloaca.testing

MAKE = """
    import sys
    import sqlite3
    database = sqlite3.connect(sys.argv[1])
    database.executescript(sys.argv[2])
    database.commit()
    database.close()
"""


def declare() -> None:
    with cloaca.WorkflowBuilder("good"):
        cloaca.task(id="only")(lambda context: context.set("ran", True))


@pytest.fixture(autouse=True)
def workflow() -> None:
    declare()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(url: str) -> int:
    """Runs once on a store and returns how many runs it holds then."""
    with cloaca.DefaultRunner(url) as runner:
        assert runner.execute("good").final_context == {"ran": True}
        return len(runner.list_runs())


def sql(path: Path, script: str) -> None:
    """Changes a file with another SQLite, in another process."""
    assert run_program(MAKE, path, script).returncode == 0


@pytest.mark.parametrize("url", [":memory:", "sqlite://:memory:", "sqlite:///:memory:"])
def test_a_store_in_memory_leaves_no_file_and_is_nobody_elses(here: Path, url: str) -> None:
    assert use(url) == 1
    assert use(url) == 1
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("a.db", "a.db"),
        ("./a.db", "a.db"),
        ("in/a.db", "in/a.db"),
        ("sqlite://a.db", "a.db"),
        ("sqlite://in/a.db", "in/a.db"),
        ("sqlite:///a.db", "a.db"),
        ("sqlite:///./a.db", "a.db"),
        ("a.db?durability=normal", "a.db"),
        ("sqlite://a.db?durability=full", "a.db"),
        ("we?ird.db", "we?ird.db"),
        ("blank and ü%20.db", "blank and ü%20.db"),
        ("no-suffix", "no-suffix"),
    ],
)
def test_each_form_of_url_names_its_file_which_is_kept(here: Path, url: str, path: str) -> None:
    (here / "in").mkdir()
    assert use(url) == 1
    assert (here / path).read_bytes()[:15] == b"SQLite format 3"
    assert use(url) == 2
    assert use(path) == 3


@pytest.mark.parametrize("form", ["{}", "sqlite://{}", "sqlite:///{}"])
def test_an_absolute_path_is_taken_in_each_form(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.db"
    assert use(form.format(path)) == 1
    assert path.exists()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/db",
        "http://host/",
        "file:a.db",
        "sqlite:a.db",
        "SQLITE:a.db",
        "redis://h",
        "sqlite://",
        "",
    ],
)
def test_any_other_url_is_told_with_the_forms_that_exist(here: Path, url: str) -> None:
    with pytest.raises(ValueError, match="sqlite://PATH") as caught:
        cloaca.DefaultRunner(url)
    assert ":memory:" in str(caught.value)
    assert "plain path" in str(caught.value)
    assert list(here.iterdir()) == []


def test_a_url_that_may_hold_a_password_is_not_repeated() -> None:
    for url in ("mysql://me:secret@host/db", "postgresql://me:secret@host/db"):
        with pytest.raises(cloaca.CloacaError) as caught:
            cloaca.DefaultRunner(url)
        assert "secret" not in str(caught.value)


def test_a_missing_folder_is_named_and_not_made(here: Path) -> None:
    with pytest.raises(cloaca.StoreError, match="no/such") as caught:
        cloaca.DefaultRunner("no/such/a.db")
    assert isinstance(caught.value, RuntimeError)
    assert list(here.iterdir()) == []


def test_a_folder_is_no_store(here: Path) -> None:
    with pytest.raises(cloaca.StoreError, match="folder"):
        cloaca.DefaultRunner(str(here))


@pytest.mark.parametrize(
    "content",
    [b"this is text and no database, and long enough to be sure of it " * 9, b"SQLite format 3\0" * 99],
)
def test_a_file_that_is_no_database_is_refused_and_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(cloaca.StoreError, match=r"notes\.txt"):
        cloaca.DefaultRunner(str(path))
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    assert use(str(path)) == 1


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE runs (distance REAL); INSERT INTO runs VALUES (42.2);",
        "CREATE TABLE customers (id INTEGER); PRAGMA user_version = 1;",
        "PRAGMA user_version = -1;",
    ],
)
def test_the_database_of_another_program_is_refused_and_not_touched(tmp_path: Path, script: str) -> None:
    path = tmp_path / "other.db"
    sql(path, script)
    content = path.read_bytes()
    with pytest.raises(cloaca.StoreError, match=r"other\.db"):
        cloaca.DefaultRunner(str(path))
    assert path.read_bytes() == content


def test_an_application_may_keep_its_own_tables_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    sql(path, "CREATE TABLE customers (id INTEGER); INSERT INTO customers VALUES (7);")
    assert use(str(path)) == 1
    assert use(str(path)) == 2
    with cloaca.DefaultRunner(str(path)) as runner:
        assert runner.query("SELECT id FROM customers") == [{"id": 7}]


def test_a_store_of_a_newer_version_is_refused_with_both_versions_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    use(str(path))
    with cloaca.DefaultRunner(":memory:") as runner:
        ((_, version),) = runner.query("PRAGMA user_version")[0].items()
    sql(path, "PRAGMA user_version = 4711")
    content = path.read_bytes()
    with pytest.raises(cloaca.StoreError, match="4711") as caught:
        cloaca.DefaultRunner(str(path))
    assert str(version) in str(caught.value).replace("4711", "")
    assert path.read_bytes() == content
    sql(path, f"PRAGMA user_version = {version}")
    assert use(str(path)) == 2


READ_ONLY = """
    import os, sys
    import cloaca
    cloaca.DefaultRunner(":memory:").shutdown()  # what is imported late may be out of the new user's reach
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        cloaca.DefaultRunner(sys.argv[1])
    except cloaca.StoreError as error:
        print(error)
    else:
        sys.exit("opened")
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_store_that_cannot_be_written_is_refused_by_name(tmp_path: Path, what: str) -> None:
    folder = Path("/tmp") / f"cloaca-read-only-{os.getpid()}-{what}"
    folder.mkdir()
    try:
        path = folder / "a.db"
        if what == "file":
            use(str(path))
            path.chmod(0o444)
        folder.chmod(0o555)
        done = run_program(READ_ONLY, path)
        assert done.returncode == 0, done.stderr
        assert "a.db" in done.stdout
        assert "panic" not in done.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_query_reads_rows_as_dicts_with_parameters(runner: cloaca.DefaultRunner) -> None:
    runner.execute("good")
    (row,) = runner.query("SELECT workflow, status FROM runs WHERE workflow = ?", ["good"])
    assert row == {"workflow": "good", "status": "Completed"}
    assert list(row) == ["workflow", "status"]
    assert runner.query("SELECT ? AS a, ? AS b, ? AS c, ? AS d", (1, 0.5, "ü", None)) == [
        {"a": 1, "b": 0.5, "c": "ü", "d": None}
    ]
    assert runner.query("SELECT ? AS a", [b"\x00\xff"]) == [{"a": b"\x00\xff"}]
    assert runner.query("SELECT ? AS a", [True]) == [{"a": 1}]
    assert runner.query("SELECT 2 AS a -- end") == [{"a": 2}]
    assert runner.query("SELECT 1 WHERE 0") == []
    assert runner.query("EXPLAIN QUERY PLAN SELECT 1") != []
    assert runner.query("WITH a AS (VALUES (1), (2)) SELECT sum(column1) AS n FROM a") == [{"n": 3}]


def test_query_sees_what_was_committed_before(runner: cloaca.DefaultRunner) -> None:
    for n in range(1, 51):
        runner.execute("good")
        assert runner.query("SELECT count(*) AS n FROM runs WHERE completed_at IS NOT NULL") == [{"n": n}]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO owners (joined_at) VALUES (1)",
        "UPDATE runs SET status = 'Failed'",
        "DELETE FROM runs",
        "DROP TABLE runs",
        "CREATE TABLE a (b)",
        "CREATE TEMP TABLE a (b)",
        "PRAGMA user_version = 9",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "ATTACH ':memory:' AS a",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "BEGIN",
        "COMMIT",
        "SELECT load_extension('a')",
        "SELECT writefile('a', 'b')",
        "SELECT 1; SELECT 2",
    ],
)
def test_query_only_reads(here: Path, statement: str) -> None:
    with cloaca.DefaultRunner("a.db") as runner:
        runner.execute("good")
        before = runner.query("SELECT * FROM runs"), sorted(path.name for path in here.iterdir())
        with pytest.raises(cloaca.StoreError, match="query"):
            runner.query(statement)
        assert (runner.query("SELECT * FROM runs"), sorted(path.name for path in here.iterdir())) == before
        assert runner.execute("good").status == "Completed"


def test_a_query_that_never_ends_does_not_stop_the_runner(runner: cloaca.DefaultRunner) -> None:
    endless = "WITH RECURSIVE a(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM a) SELECT n FROM a LIMIT 200000"
    assert len(runner.query(endless)) == 200_000
    assert runner.execute("good").status == "Completed"


def test_export_writes_a_copy_that_opens_as_a_store(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        runner.execute("good")
        runner.register_cron_workflow("good", "0 0 1 1 *", "UTC")
        runner.export(copy)
        runner.execute("good")
        assert len(runner.list_runs()) == 2
    with cloaca.DefaultRunner(str(copy)) as runner:
        assert len(runner.list_runs()) == 1
        assert len(runner.list_cron_schedules()) == 1
        assert runner.execute("good").status == "Completed"


def test_a_store_in_memory_can_be_exported(tmp_path: Path, runner: cloaca.DefaultRunner) -> None:
    runner.execute("good")
    runner.export(str(tmp_path / "copy.db"))
    assert use(str(tmp_path / "copy.db")) == 2


def test_an_export_may_be_read_with_sqlite3_while_the_runner_lives(tmp_path: Path) -> None:
    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        runner.execute("good")
        runner.export(tmp_path / "copy.db")
        database = sqlite3.connect(tmp_path / "copy.db")
        assert database.execute("SELECT workflow, status FROM runs").fetchall() == [("good", "Completed")]
        database.close()


def test_export_never_writes_over_a_file(tmp_path: Path, runner: cloaca.DefaultRunner) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    with pytest.raises(cloaca.StoreError, match="exists"):
        runner.export(path)
    assert path.read_text() == "precious"


def test_export_never_writes_over_the_store_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with cloaca.DefaultRunner(str(path)) as runner:
        with pytest.raises(cloaca.StoreError, match="exists"):
            runner.export(path)
        assert runner.execute("good").status == "Completed"


@pytest.fixture
def live(here: Path) -> Iterator[cloaca.DefaultRunner]:
    """A runner on `a.db` in the current folder."""
    with cloaca.DefaultRunner("a.db") as runner:
        runner.execute("good")
        yield runner


def test_sqlite3_on_a_live_file_is_refused_with_the_way_out(live: cloaca.DefaultRunner) -> None:
    with pytest.raises(cloaca.StoreError, match=r"runner\.query") as caught:
        sqlite3.connect("a.db")
    assert "a.db" in str(caught.value)


def test_sqlite3_is_refused_however_the_live_file_is_named(here: Path, live: cloaca.DefaultRunner) -> None:
    (here / "symbolic.db").symlink_to("a.db")
    os.link("a.db", "hard.db")
    (here / "in").mkdir()
    names: list[object] = [
        "a.db",
        b"a.db",
        Path("a.db"),
        here / "a.db",
        "in/../a.db",
        "symbolic.db",
        "hard.db",
    ]
    for name in names:
        with pytest.raises(cloaca.StoreError):
            sqlite3.connect(name)  # type: ignore[arg-type]
    for uri in (
        "file:a.db",
        f"file://{here}/a.db",
        f"file://localhost{here}/a.db",
        "file:a.db?mode=ro",
        "file:a%2Edb",
        "file:a.db#part",
        "file:a.db%00x",
    ):
        with pytest.raises(cloaca.StoreError):
            sqlite3.connect(uri, uri=True)


def test_other_files_may_be_opened_with_sqlite3(here: Path, live: cloaca.DefaultRunner) -> None:
    for name in (":memory:", "", "other.db", "missing.db"):
        sqlite3.connect(name).close()
    sqlite3.connect("file:other.db", uri=True).close()
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect("file://[x", uri=True)
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(here / "no" / "such.db")


def test_the_file_is_free_for_sqlite3_after_the_last_runner_on_it(here: Path) -> None:
    with cloaca.DefaultRunner("a.db") as one:
        with cloaca.DefaultRunner("a.db"):
            pass
        with pytest.raises(cloaca.StoreError):
            sqlite3.connect("a.db")
        one.execute("good")
    database = sqlite3.connect("a.db")
    assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_runner_that_could_not_open_leaves_the_file_free(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    sql(path, "PRAGMA user_version = 4711")
    with pytest.raises(cloaca.StoreError):
        cloaca.DefaultRunner(str(path))
    sqlite3.connect(path).close()


def test_another_process_may_read_a_live_file(here: Path, live: cloaca.DefaultRunner) -> None:
    program = """
        import sqlite3
        print(sqlite3.connect("a.db").execute("SELECT count(*) FROM runs").fetchone()[0])
    """
    assert run_program(program).stdout == "1\n"
    live.execute("good")
    assert run_program(program).stdout == "2\n"
    assert live.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_what_the_library_itself_has_open_is_no_stranger(tmp_path: Path) -> None:
    """Runners that open one file at once, and one that opens a file that is read here, warn of nobody."""
    program = """
        import sys, threading
        import cloaca
        from cloaca import reading

        def opens(path, meet):
            meet.wait()
            runner = cloaca.DefaultRunner(path, work=False)
            meet.wait()
            runner.shutdown()

        folder, read = sys.argv[1:]
        reader = reading.Reader(read)
        cloaca.DefaultRunner(read).shutdown()
        reader.close()
        for number in range(15):
            meet = threading.Barrier(6)
            each = [threading.Thread(target=opens, args=(f"{folder}/{number}.db", meet)) for _ in range(6)]
            for thread in each:
                thread.start()
            for thread in each:
                thread.join()
    """
    read = tmp_path / "read.db"
    run_program("import cloaca, sys; cloaca.DefaultRunner(sys.argv[1]).shutdown()", read)
    assert "open in this process" not in run_program(program, tmp_path, read).stderr


def test_the_guard_can_be_left_out(tmp_path: Path) -> None:
    program = """
        import os, sys
        os.environ["CLOACA_ALLOW_SQLITE3"] = "1"
        import sqlite3
        import cloaca
        with cloaca.DefaultRunner(sys.argv[1]):
            sqlite3.connect(sys.argv[1])
        print("allowed")
    """
    assert run_program(program, tmp_path / "a.db").stdout == "allowed\n"


def test_importing_the_library_does_not_import_sqlite3_or_open_anything(tmp_path: Path) -> None:
    program = """
        import os, sys, threading
        before = os.listdir(".")
        import cloaca
        assert "sqlite3" not in sys.modules
        assert threading.active_count() == 1
        assert os.listdir(".") == before
    """
    done = run_program(program)
    assert done.returncode == 0, done.stderr


def with_durability(url: str, durability: str | None = None, field: str | None = None) -> str:
    config = cloaca.DefaultRunnerConfig(durability=field)
    with cloaca.DefaultRunner.with_config(url, config, durability=durability) as runner:
        return runner.execute("good").status


def test_durability_is_said_in_the_url_beside_it_or_in_the_config(here: Path) -> None:
    for durability in ("full", "normal"):
        assert with_durability("a.db", durability) == "Completed"
        assert with_durability(f"a.db?durability={durability}") == "Completed"
        assert with_durability(f"sqlite://a.db?durability={durability}", durability) == "Completed"
        assert with_durability("a.db", field=durability) == "Completed"
        assert with_durability(":memory:", durability) == "Completed"
    assert len(list(here.glob("*.db"))) == 1


@pytest.mark.parametrize(("first", "second"), [("full", "normal"), ("normal", "full")])
def test_two_different_durabilities_are_refused(here: Path, first: str, second: str) -> None:
    with pytest.raises(ValueError, match="twice"):
        with_durability(f"a.db?durability={first}", second)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "query", ["durability=most", "durability=", "mode=ro", "durability=full&cache=shared"]
)
def test_an_option_that_does_not_exist_is_refused(here: Path, query: str) -> None:
    with pytest.raises(ValueError, match="durability"):
        cloaca.DefaultRunner(f"sqlite://a.db?{query}")
    assert list(here.iterdir()) == []


def test_what_was_kept_is_there_after_a_kill(tmp_path: Path) -> None:
    program = """
        import os, sys
        import cloaca
        with cloaca.WorkflowBuilder("good"):
            cloaca.task(id="only")(lambda context: None)
        runner = cloaca.DefaultRunner(sys.argv[1])
        for n in range(20):
            runner.execute("good", {"n": n})
        os._exit(9)
    """
    for durability in ("full", "normal"):
        path = tmp_path / f"{durability}.db"
        assert run_program(program, f"{path}?durability={durability}").returncode == 9
        with cloaca.DefaultRunner(str(path)) as runner:
            rows = runner.list_runs()
            assert [row["context"]["n"] for row in rows] == list(range(20))[::-1]
            assert {row["status"] for row in rows} == {"Completed"}


def test_a_store_closed_in_order_is_one_file_beside_its_lock(here: Path) -> None:
    use("a.db")
    assert "a.db-wal" not in {path.name for path in here.iterdir()}


FOLDER = b"caf\xe9"


def test_a_folder_whose_name_is_no_text_is_as_good_as_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + FOLDER))
    folder.mkdir()
    monkeypatch.chdir(folder)
    with cloaca.DefaultRunner("a.db") as runner, cloaca.DefaultRunner(str(folder / "b.db")) as other:
        assert [each.execute("good").status for each in (runner, other)] == ["Completed"] * 2
        for name in ("a.db", "b.db"):
            with pytest.raises(cloaca.StoreError, match="a runner of this process"):
                sqlite3.connect(folder / name)
        for copy in ("near.db", folder / "far.db", os.fsdecode(b"f\xe9.db")):
            runner.export(copy)
        runner.query("SELECT 1")
    assert sorted(os.fsencode(path.name) for path in folder.iterdir()) == sorted(
        [b"a.db", b"b.db", b"near.db", b"far.db", b"f\xe9.db"]
    )
    with cloaca.DefaultRunner(os.fspath(folder / "far.db")) as copied:
        assert len(copied.list_runs()) == 1
    assert [record.message for record in caplog.records if record.levelname != "DEBUG"] == []


LIMITED = """
    import os, resource, signal, sys
    import cloaca
    folder, target = sys.argv[1:]
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    runner = cloaca.DefaultRunner(os.path.join(folder, "source.db"))
    runner.submit_many("w", [{"x": "y" * 1000}] * 2000)[-1].result()
    runner.query("SELECT 1")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    try:
        runner.export(os.path.join(target, "copy.db"))
    except cloaca.StoreError as error:
        print("copy.db" in str(error), "source.db" in str(error), os.listdir(target), "room" in str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    runner.export(os.path.join(target, "copy.db"))
    print(os.listdir(target))
    runner.shutdown()
"""


def test_an_export_without_room_names_its_target_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    done = run_program(LIMITED, tmp_path, tmp_path / "target")
    assert done.stdout.splitlines() == ["True False [] True", "['copy.db']"], done.stderr


def test_a_file_that_lacks_a_table_is_refused_when_it_is_opened(here: Path) -> None:
    with cloaca.DefaultRunner("runs.db"):
        pass
    assert run_program(MAKE, "runs.db", "DROP TABLE seats; DROP TABLE audit").returncode == 0
    lacks = r"runs\.db' lacks the tables 'audit', 'seats' of cloaca"
    with pytest.raises(cloaca.StoreError, match=lacks):
        cloaca.DefaultRunner("runs.db")
    with pytest.raises(cloaca.StoreError, match=lacks):
        cloaca.reading.Reader("runs.db")


CLOSED = """
    import contextlib, io, os, sys
    import cloaca
    from cloaca import reading
    from cloaca.cli import main
    from cloaca.reading import absent

    def look(path):
        for words in (
            ["ls", "--database", path],
            ["enable", "x", "--database", path],
            ["migrate", "--database", path],
            # Beside the program: what is wrong with a target is another fault.
            ["copy", path, f"/tmp/copy-{os.getpid()}.db"],
        ):
            assert main(words) == 3, words
        for looks in (reading.Reader, absent.lacks, cloaca.migrate):
            try:
                looks(path)
            except cloaca.StoreError as error:
                print(f"cloaca: {error}", file=sys.stderr)

    # What is imported late may be out of the new user's reach.
    with contextlib.redirect_stderr(io.StringIO()):
        look("/nowhere/a.db")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    os.chdir("/")
    look(sys.argv[1])
"""


@pytest.mark.parametrize("closed", ["file", "folder", "outer folder", "none"])
def test_who_may_not_look_at_a_store_is_told_what_keeps_him_out(closed: str) -> None:
    outer = Path("/tmp") / f"cloaca-closed-{os.getpid()}"
    path = outer / "inner" / "a.db"
    path.parent.mkdir(parents=True)
    shut = {"file": path, "folder": path.parent, "outer folder": outer, "none": outer}[closed]
    try:
        if closed != "none":
            use(str(path))
            shut.chmod(0)
        done = run_program(CLOSED, path)
        told = set(done.stderr.splitlines())
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("cloaca: ") == (6 if closed == "none" else 7), done.stderr
        way_out = "look as one who may, or open"
        assert told == {
            "file": {
                f"cloaca: database '{path}' cannot be looked at: this user may not read that file;"
                f" {way_out} it to this one"
            },
            "none": {f"cloaca: there is no database '{path}'; name one that a runner has made"},
        }.get(
            closed,
            {
                f"cloaca: database '{path}' cannot be looked at: this user may not enter folder '{shut}';"
                f" {way_out} that to this one"
            },
        )
    finally:
        shut.chmod(0o755)
        shutil.rmtree(outer)


def test_a_machine_without_a_folder_for_temporary_files_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloaca import reading

    path = os.fspath(tmp_path / "a.db")

    def told() -> tuple[list[str], list[str]]:
        caplog.clear()
        cloaca.DefaultRunner(path).shutdown()
        with reading.Reader(path) as reader:
            found = [each.text for each in reading.doctor(reader) if each.subject == "temporary"]
        return [line for line in caplog.messages if "temporary files" in line], found

    assert told() == ([], [])
    monkeypatch.delenv("SQLITE_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path / "nowhere"))
    monkeypatch.setattr("cloaca.temporary.FOLDERS", (os.fspath(tmp_path / "nor there"),))
    (line,), (found,) = told()
    assert line.startswith(
        "no folder for temporary files can be written to, so that retention and prune stop"
    )
    assert "point SQLITE_TMPDIR at one" in line
    assert found.startswith("in this process no folder for temporary files can be written to")
    monkeypatch.setenv("SQLITE_TMPDIR", os.fspath(tmp_path))
    assert told() == ([], [])
