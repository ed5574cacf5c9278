"""A store that is read without a runner: beside living ones of this process and others, and with none."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from program import eventually

import cloaca
from cloaca import reading
from cloaca.cli import main
from cloaca.reading import attention

PROGRAM = """
import sys
import cloaca

with cloaca.WorkflowBuilder("ingest"):

    @cloaca.task()
    def count(context):
        context["lines"] = 1

    @cloaca.task(dependencies=[count], retry_attempts=2, retry_delay_ms=1)
    def archive(context):
        if context.get("file") == "bad":
            raise ValueError("no price")

    @cloaca.task(dependencies=[archive])
    def hang(context):
        while context.get("file") == "slow":
            import time

            time.sleep(0.01)


@cloaca.trigger(workflow="ingest", poll_interval="20ms")
def inbox(tick):
    if tick.cursor is None:
        return cloaca.TriggerResult.fire({"file": "new"}, run_key="new", cursor=1)
    raise OSError("the share is gone")


@cloaca.trigger(workflow="ingest", poll_interval="1h")
def rare():
    return False


@cloaca.trigger(workflow="ingest", cron="0 3 * * *", timezone="Europe/Berlin")
def nightly():
    pass


with cloaca.DefaultRunner(sys.argv[1]) as runner:
    runner.execute("ingest", {"file": "bad"})
    if "slow" in sys.argv:
        run = runner.submit("ingest", {"file": "slow"})
        while "hang" not in runner.why_run(run.id):
            pass
    while not any(tick["outcome"] == "error" for tick in runner.ticks("inbox")):
        pass
    while not runner.list_runs(workflow="ingest", status="Completed"):
        pass
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def served(path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that serves the store; its standard input ends it."""
    command = [sys.executable, "-c", PROGRAM, str(path), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_store_is_read_beside_a_living_process(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with served(path), reading.Reader(path) as reader:
        inbox, rare = reading.triggers(reader)
        assert (inbox.trigger_name, inbox.state, inbox.workflow_name) == ("inbox", "failing", "ingest")
        assert inbox.last is not None
        assert inbox.last.reason == "OSError: the share is gone"
        assert (inbox.cursor, inbox.runner) == (1, 1)
        assert (rare.state, rare.last, rare.runner) == ("polled", None, 1)
        assert rare.next_poll_at is not None
        (nightly,) = reading.crons(reader)
        assert (nightly.trigger_name, nightly.state) == ("nightly", "scheduled")
        (runner,) = reading.runners(reader)
        assert (runner.number, runner.state) == (1, "living")
        (workflow,) = reading.workflows(reader)
        assert workflow.workflow_name == "ingest"
        assert "is polled by runner 1" in reading.why(reader, "inbox")
        assert "runs next at" in reading.why(reader, "nightly")
        assert any(tick.outcome == "error" for tick in reading.ticks(reader, "inbox"))


def test_a_run_is_told_with_its_tasks_and_attempts(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with served(path), reading.Reader(path) as reader:
        (failed,) = reading.runs(reader, status="Failed")
        details = reading.run(reader, failed.id[:13]) if failed.id else None
        assert details is not None
        assert (details.run.context, details.run.error_type) == ({"file": "bad"}, "ValueError")
        assert details.final_context == {"file": "bad", "lines": 1}
        assert [(task.id, task.status, len(task.tries)) for task in details.tasks] == [
            ("count", "Completed", 1),
            ("archive", "Failed", 2),
            ("hang", "Skipped", 0),
        ]
        assert "failed at" in reading.why(reader, failed.id)


def test_pages_go_on_behind_the_last_item(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with served(path), reading.Reader(path) as reader:
        first = reading.runs(reader, limit=1)
        second = reading.runs(reader, after=first.after, limit=1)
        third = reading.runs(reader, after=second.after, limit=1)
        assert len({run.id for page in (first, second) for run in page}) == 2
        assert (list(third), third.after) == ([], None)
        one = reading.triggers(reader, limit=1)
        assert [each.trigger_name for each in reading.triggers(reader, after=one.after)] == ["rare"]


def test_a_run_that_limits_let_begin_and_nobody_serves_says_so(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("limited", concurrency=cloaca.Concurrency(2)):
        cloaca.task(id="t")(lambda context: None)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path):
        pass
    with cloaca.DefaultRunner(path, work=False) as client:
        run = client.submit("limited", {})
    with reading.Reader(path) as reader:
        told = reading.why(reader, run.id)
    assert "waits for a slot of a runner that declares its workflow; its limits let it begin" in told
    assert "no living runner declares its workflow" in told


def test_a_killed_runner_is_seen_to_be_dead_and_nothing_changes_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with served(path, "slow") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = sorted(entry.name for entry in tmp_path.iterdir())
        with reading.Reader(path) as reader:
            (runner,) = reading.runners(reader)
            assert (runner.state, runner.runs) == ("dead", 1)
            (slow,) = reading.runs(reader, status="Running")
            assert "which no living one does; runner 1, which had it, is gone" in reading.why(reader, slow.id)
            assert "no living runner has it; start a program" in reading.why(reader, "inbox")
            levels = {(found.level, found.subject) for found in reading.doctor(reader)}
            assert {("warn", "runners"), ("bad", "runners")} <= levels
        assert sorted(entry.name for entry in tmp_path.iterdir()) == before
        with closing(sqlite3.connect(path)) as outsider:
            assert outsider.execute("SELECT count(*) FROM owners WHERE left_at IS NULL").fetchone() == (1,)


def test_a_run_that_is_opened_again_waits_for_who_declares_its_workflow(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs.db"
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def fail(context: cloaca.Context) -> None:
            raise OSError("no")

    with cloaca.DefaultRunner(path) as runner:
        failed = runner.submit("w")
        failed.result()
    # Two that live, and take nothing of it.
    with cloaca.DefaultRunner(path, workflows=[]), cloaca.DefaultRunner(path, workflows=[]):
        assert main(["retry", failed.id, "--database", str(path)]) == 0
        with reading.Reader(path) as reader:
            said = f"run {failed.id} of workflow 'w' waits for "
            nobody = "a runner that declares its workflow, which no living one does"
            assert reading.why(reader, failed.id) == said + nobody
            for number, waits in [
                (2, "runner 2, which declares its workflow and has not taken it yet"),
                (3, "one of runners 2, 3, which declare its workflow and have not taken it yet"),
                (1, "one of runners 2, 3, which declare its workflow and have not taken it yet"),
            ]:
                declare_as(path, number)
                assert reading.why(reader, failed.id) == f"{said}{waits}", number


def declare_as(path: Path, number: int) -> None:
    """The runner of that number declares workflow `w`, as far as the file says."""
    code = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    db.execute("INSERT INTO workflows (name, owner, version) VALUES ('w', ?, 'v')", [int(sys.argv[2])])
"""
    subprocess.run([sys.executable, "-c", code, str(path), str(number)], check=True)


def test_a_reader_in_the_process_of_a_runner_takes_nothing_from_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with cloaca.WorkflowBuilder("add"):

        @cloaca.task()
        def add(context: cloaca.Context) -> None:
            context["sum"] = 1

    with cloaca.DefaultRunner(path) as runner:
        runner.execute("add")
        for _ in range(3):
            with reading.Reader(path) as reader:
                assert len(reading.runs(reader)) == 1
        with served(path):
            # The other process has the file open, and would take the log with it if our hold were gone.
            pass
        runner.execute("add")
        with reading.Reader(path) as reader:
            (own,) = (each for each in reading.runners(reader) if each.state == "living")
            assert own.state == "living"
            assert len(reading.runs(reader, workflow="add")) == 2
    assert sorted(entry.name for entry in tmp_path.iterdir())[0] == "runs.db"
    with closing(sqlite3.connect(path)) as outsider:
        assert outsider.execute("SELECT count(*) FROM runs WHERE workflow = 'add'").fetchone() == (2,)
        assert outsider.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_runner_that_ends_before_its_reader_leaves_no_log_behind(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    runner = cloaca.DefaultRunner(path)
    reader = reading.Reader(path)
    assert reading.runs(reader).items == []
    runner.shutdown()
    assert [each.state for each in reading.runners(reader, left=True)] == ["left"]
    reader.close()
    reader.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.db"]
    with pytest.raises(cloaca.StoreError, match="closed"):
        reading.runs(reader)


def test_a_copy_that_no_runner_has_opened_is_read_as_it_is(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    with served(path), reading.Reader(path) as reader:
        reader.export(copy)
    before = copy.read_bytes()
    with reading.Reader(copy) as reader:
        assert len(reading.runs(reader)) == 2
    assert copy.read_bytes() == before


def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("PRAGMA application_id = 7")
        other.execute("CREATE TABLE t (a)")
        other.commit()
    cloaca.DefaultRunner(tmp_path / "new.db").shutdown()
    with closing(sqlite3.connect(tmp_path / "new.db")) as new:
        new.execute("PRAGMA user_version = 99")
        new.commit()
    fixture = Path(__file__).resolve().parents[2] / "rust/store/tests/fixtures"
    old = next(entry for entry in sorted(fixture.iterdir()) if entry.suffix == ".db")
    shutil.copy(old, tmp_path / "old.db")
    for name, told in [
        ("none.db", "there is no database"),
        ("text.db", "is not a database"),
        ("empty.db", "holds nothing of cloaca"),
        ("other.db", "belongs to another program"),
        ("new.db", "upgrade cloaca"),
        ("old.db", "schema version 1"),
        ("missing/none.db", "create it first"),
    ]:
        path = tmp_path / name
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(cloaca.StoreError, match=told):
            reading.Reader(path)
        assert (path.read_bytes() if path.exists() else None) == before
    with pytest.raises(ValueError, match="name a file"):
        reading.Reader(":memory:")


def test_names_that_nothing_has_are_told_with_near_ones(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with served(path), reading.Reader(path) as reader:
        with pytest.raises(reading.MissingError, match="did you mean 'inbox'"):
            reading.ticks(reader, "inbx")
        with pytest.raises(reading.MissingError, match="trigger, workflow or run"):
            reading.why(reader, "inbx")
        for wrong in ("", "\ud800", "zz", "0" * 40, "ffffffff"):
            with pytest.raises(reading.MissingError):
                reading.run(reader, wrong)
            with pytest.raises(reading.MissingError):
                reading.why(reader, wrong)
        with pytest.raises(reading.MissingError, match="more than one run's id"):
            reading.run(reader, "0")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_to_open_its_own(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with served(path):
        code = """
import os, sys
import cloaca
from cloaca import reading
reader = reading.Reader(sys.argv[1])
count = len(reading.runs(reader))
if os.fork() == 0:
    try:
        reading.runs(reader)
    except cloaca.RunnerError:
        with reading.Reader(sys.argv[1]) as own:
            os._exit(0 if len(reading.runs(own)) == count else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.wait()[1]), len(reading.runs(reader)) == count)
"""
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        assert done.stdout == "0 True\n", done.stderr


def declare_workflow(name: str) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="t")(lambda context: None)


def test_a_cron_that_no_living_program_declares_is_unserved(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    declare_workflow("w")
    for name in ("nightly", "renamed"):
        cloaca.trigger(workflow="w", name=name, cron="0 3 * * *")(lambda: None)
        with cloaca.DefaultRunner(path), reading.Reader(path) as reader:
            states = {cron.trigger_name: cron.state for cron in reading.crons(reader)}
            assert states.pop(name) == "scheduled"
            assert states == ({} if name == "nightly" else {"nightly": "unserved"})
            if name == "renamed":
                assert "no living runner declares it" in reading.why(reader, "nightly")
                told = {found.text for found in reading.doctor(reader) if found.subject == "schedules"}
                assert told == {"1 schedule that no living runner declares: 'nightly'"}
        cloaca.unregister_trigger(name)


def test_what_starts_a_workflow_that_nobody_declares_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    declare_workflow("report")
    cloaca.trigger(workflow="reprot", name="nightly", cron="0 3 * * *")(lambda: None)
    cloaca.trigger(workflow="reprot", name="inbox", poll_interval="1h")(lambda: False)
    cloaca.trigger(workflow="report", name="good", cron="0 4 * * *")(lambda: None)
    lost = "no living runner declares workflow 'reprot', which it starts"
    with cloaca.DefaultRunner(path), reading.Reader(path) as reader:
        while reading.triggers(reader).items[0].runner is None:
            pass
        assert [lost in reading.why(reader, name) for name in ("nightly", "inbox", "good")] == [
            True,
            True,
            False,
        ]
        told = {found.text for found in reading.doctor(reader) if found.subject == "schedules"}
        more = "starts 'reprot', a workflow that no living runner declares"
        assert told == {f"'nightly' {more}", f"'inbox' {more}"}
    declare_workflow("reprot")
    # A heartbeat, say, that starts nothing and means to.
    cloaca.trigger(name="beat", poll_interval="1h")(lambda: False)
    with cloaca.DefaultRunner(path), reading.Reader(path) as reader:
        while any(each.runner is None for each in reading.triggers(reader).items):
            pass
        assert "which it starts" not in reading.why(reader, "beat")
        assert [found.level for found in reading.doctor(reader) if found.subject == "schedules"] == ["ok"]
        assert not any(lost in reading.why(reader, name) for name in ("nightly", "inbox", "good"))


@pytest.mark.parametrize("first", ["polled", "timed"])
def test_what_a_name_was_last_is_what_it_is_also_once_its_program_has_ended(
    tmp_path: Path, first: str
) -> None:
    path = tmp_path / "runs.db"
    declare_workflow("w")

    def told(kind: str) -> str:
        how = {"poll_interval": "1h"} if kind == "polled" else {"cron": "0 3 29 2 *"}
        cloaca.trigger(workflow="w", name="a", **how)(lambda: False)  # type: ignore[call-overload]
        with cloaca.DefaultRunner(path):
            pass
        cloaca.unregister_trigger("a")
        with reading.Reader(path) as reader:
            return reading.why(reader, "a")

    if first == "polled":
        assert told("polled").startswith("trigger 'a' is not polled")
    assert told("timed").startswith("trigger 'a' is a cron")
    # A deploy that is taken back declares an old version again.
    assert told("polled").startswith("trigger 'a' is not polled")


def test_what_a_name_was_before_is_listed_no_more(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    declare_workflow("w")

    def listed() -> tuple[list[str], list[str]]:
        with cloaca.DefaultRunner(path), reading.Reader(path) as reader:
            triggers, crons = reading.triggers(reader), reading.crons(reader)
            return [each.state for each in triggers], [each.state for each in crons]

    polled = cloaca.trigger(workflow="w", name="a", poll_interval="1h")
    cron = cloaca.trigger(workflow="w", name="a", cron="0 3 * * *")
    polled(lambda: False)
    assert listed() == (["polled"], [])
    cloaca.unregister_trigger("a")
    cron(lambda: None)
    assert listed() == ([], ["scheduled"])
    cloaca.unregister_trigger("a")
    polled(lambda: False)
    assert listed() == (["polled"], [])


def test_doctor_tells_of_runs_whose_workflow_nobody_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"

    def waits(context: cloaca.Context) -> None:
        raise cloaca.RetryAfter("1h")

    with cloaca.WorkflowBuilder("gone"):
        cloaca.task(id="t")(waits)
    with cloaca.DefaultRunner(path) as runner:
        runner.submit("gone")
    cloaca.unregister_workflow("gone")
    declare_workflow("w")
    with cloaca.DefaultRunner(path), reading.Reader(path) as reader:

        def told() -> tuple[str, str]:
            (found,) = (found for found in reading.doctor(reader) if found.subject == "backlog")
            return found.level, found.text

        assert told() == ("ok", "1 run not over"), "somebody may be about to come"
        monkeypatch.setattr("cloaca.health.GRACE_SECONDS", -1.0)
        level, text = told()
        assert (level, text[:58]) == ("bad", "1 run of workflows that no living runner declares: 'gone',")


def test_runs_that_wait_for_their_time_are_counted_and_apart_from_those_that_are_due(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    declare_workflow("later")
    with cloaca.DefaultRunner(path) as runner:
        runner.execute("later")
        for _ in range(2):
            runner.submit("later", delay="1h")
    with cloaca.DefaultRunner(path, work=False) as client, reading.Reader(path) as reader:
        # Its time comes, and nobody is there to claim it.
        client.submit("later", delay="1ms")

        def counts() -> tuple[int, int, int]:
            (found,) = reading.workflows(reader)
            return found.pending, found.running, found.delayed

        assert eventually(lambda: counts() == (1, 0, 2))
        assert [
            part.partition(", the oldest")[0]
            for part in reading.why(reader, "later").split("; ")
            if "wait for their" in part or "under way" in part
        ] == ["1 run waits and 0 are under way", "2 runs wait for their time"]
        (found,) = (found for found in reading.doctor(reader) if found.subject == "backlog")
        assert found.text == "1 run not over, and 2 runs that wait for their time"


def test_very_many_delayed_runs_are_counted_as_far_as_is_quick(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    declare_workflow("later")
    with cloaca.DefaultRunner(path) as runner:
        runner.submit_many("later", [{} for _ in range(10_001)], delay="1h")
    with reading.Reader(path) as reader:
        assert [each.delayed for each in reading.workflows(reader)] == [10_000]
        (found,) = (found for found in reading.doctor(reader) if found.subject == "backlog")
        assert found.text == "0 runs not over, and 10,000 or more runs that wait for their time"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no price for acme 7 in acme-12.csv", "no price for acme 7 in bolt_x.csv"),
        ("cannot read /srv/in/acme.bin, it is empty", "cannot read /srv/in/sub/bolt.bin, it is empty"),
        ("cannot read C:\\in\\acme: denied", "cannot read D:\\out\\bolt: denied"),
        ("GET https://x.example/a?b=c: gone", "GET https://y.example/d: gone"),
        ("no customer “acme” in it", "no customer “bolt” in it"),
        ("no customer `acme` in it", "no customer `bolt` in it"),
        ("run 7 of 'a'", "run 812 of 'it is'"),
    ],
)
def test_messages_that_differ_by_a_file_or_what_is_quoted_are_of_one_kind(one: str, other: str) -> None:
    assert attention.pattern(one) == attention.pattern(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("os.read failed", "os.write failed"),
        ("can't read it, don't know why", "can't find it, don't know why"),
        ("the file is empty", "the file is broken"),
        ("cannot read a.csv", "cannot write a.csv"),
    ],
)
def test_messages_that_say_something_else_are_of_two_kinds(one: str, other: str) -> None:
    assert attention.pattern(one) != attention.pattern(other)
