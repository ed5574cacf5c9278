"""Descriptors that a program closes and that are not its own: what it opens next gets their numbers."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attack import Program, run, until

import cloaca

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system doesn't tell them")
ROBS = """
    logging.basicConfig(stream=sys.stdout)

    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=0)
        def t(context): pass

    path, way = sys.argv[1:3]
    runner = cloaca.DefaultRunner(path)
    runner.execute("w")
    if way == "all":
        os.closerange(3, 300)
    else:
        for each in os.listdir("/proc/self/fd"):
            try:
                at = os.readlink(f"/proc/self/fd/{each}")
            except OSError:
                continue
            if at == path + way.removeprefix("first"):
                os.close(int(each))
                if way == "first":
                    # By it others know that this runner lives.
                    break
    victims = [open(f"{path}.{i}", "w+b") for i in range(40)]
    for victim in victims:
        victim.write(b"precious" * 1000)
        victim.flush()
    done = 1
    try:
        while done < 1000:
            runner.execute("w", {"i": done}, timeout=20)
            done += 1
    except cloaca.RunnerError:
        say("done", done)
    try:
        runner.shutdown(5)
    except cloaca.CloacaError as error:
        pass
    del runner
    import gc; gc.collect()
    for victim in victims:
        victim.seek(0)
        assert victim.read() == b"precious" * 1000, victim.name
        victim.write(b"!")
        victim.flush()
"""


@pytest.mark.parametrize("way", ["all", "first", "", "-wal", "-shm"])
def test_what_gets_the_numbers_of_a_store_s_descriptors_is_left_alone(tmp_path: Path, way: str) -> None:
    path = tmp_path / "runs.db"
    lines = run(ROBS, path, way)
    assert [line for line in lines if "closed descriptors of database" in line]
    (done,) = (line.split()[1] for line in lines if line.startswith("done"))
    for number in range(40):
        assert Path(f"{path}.{number}").read_bytes() == b"precious" * 1000 + b"!"
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with cloaca.DefaultRunner(path, work=False) as client:
        kept = [row for row in client.list_runs(limit=2000) if row["status"] == "Completed"]
    # One more may have been kept, and not been told.
    assert int(done) <= len(kept) <= int(done) + 1


NUMBERS = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=0)
        def t(context): pass

    def numbers(path):
        found = []
        for each in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{each}").startswith(path):
                    found.append(int(each))
            except OSError:
                pass
        return sorted(found)
"""
TAKES_THEM = (
    NUMBERS
    + """
    path, way = sys.argv[1:3]
    first = cloaca.DefaultRunner(path)
    first.execute("w")
    for number in numbers(path)[:1 if way == "first" else None]:
        os.close(number)
    second = cloaca.DefaultRunner(path + ".second")
    second.execute("w")
    told(first.shutdown, 5)
    del first
    import gc; gc.collect()
    for i in range(50):
        second.execute("w", {"i": i}, timeout=20)
    assert second.health()["ok"], second.health()
    second.shutdown()
    say(sum(1 for _ in cloaca.DefaultRunner(path + ".second", work=False).iter_runs()))
"""
)


@pytest.mark.parametrize("way", ["all", "first"])
def test_a_runner_that_gets_another_one_s_numbers_keeps_them(tmp_path: Path, way: str) -> None:
    assert run(TAKES_THEM, tmp_path / "runs.db", way)[-1] == "51"


MADE_AGAIN = (
    NUMBERS
    + """
    path = sys.argv[1]
    first = cloaca.DefaultRunner(path)
    first.execute("w")
    for number in numbers(path):
        os.close(number)
    try:
        cloaca.DefaultRunner(path)
    except cloaca.StoreError as error:
        say(error)
    told(first.shutdown, 5)
    with cloaca.DefaultRunner(path) as second:
        second.execute("w", timeout=20)
        say(sum(1 for _ in second.iter_runs()))
"""
)


def test_a_runner_can_be_made_again_once_the_robbed_one_is_shut_down(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    *refused, count = run(MADE_AGAIN, path)
    assert [line for line in refused if f"closed descriptors of database '{path}'" in line and "shut" in line]
    assert count == "2"


DAEMON = (
    NUMBERS
    + """
    path, parents = sys.argv[1:3]
    first = cloaca.DefaultRunner(path)
    first.execute("w")
    parent = os.getpid()
    if (child := os.fork()) == 0:
        # What makes a daemon does so.
        os.closerange(3, 300)
        while parents == "gone" and os.getppid() == parent:
            time.sleep(0.01)
        with cloaca.DefaultRunner(path) as second:
            for i in range(200):
                second.execute("w", {"i": i, "text": "x" * 30000}, timeout=20)
        os._exit(0)
    if parents == "gone":
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    first.execute("w", {"last": True}, timeout=20)
    first.shutdown()
"""
)


@pytest.mark.parametrize("parents", ["living", "gone"])
def test_a_forked_child_that_closes_all_makes_its_own_runner(tmp_path: Path, parents: str) -> None:
    path = tmp_path / "runs.db"
    run(DAEMON, path, parents)

    def kept() -> int:
        with closing(sqlite3.connect(path)) as store:
            assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            (count,) = store.execute("SELECT count(*) FROM runs WHERE status = 'Completed'").fetchone()
            return int(count)

    until(lambda: kept() == (202 if parents == "living" else 201))


ROBBED_AT_WORK = (
    NUMBERS
    + """
    path, folder = sys.argv[1:3]

    def note(*words):
        with open(os.path.join(folder, "journal"), "a") as file:
            print(*words, file=file)

    with cloaca.WorkflowBuilder("long"):
        @cloaca.task(retry_attempts=0)
        def body(context, handle):
            note("begins", handle.attempt)
            until(lambda: os.path.exists(os.path.join(folder, "may_end")))
            note("ends", handle.attempt)

    runner = cloaca.DefaultRunner(path)
    if sys.argv[3] == "robbed":
        runner.submit("long")
        until(lambda: os.path.exists(os.path.join(folder, "journal")))
        for number in numbers(path):
            os.close(number)
            if sys.argv[4] == "first":
                break
        say("robbed")
        until(lambda: os.path.exists(os.path.join(folder, "may_end")))
        told(runner.shutdown, 10)
    else:
        # Whoever looks dead is succeeded before the first run of this one ends.
        runner.execute("w", timeout=20)
        runner.execute("w", timeout=20)
        open(os.path.join(folder, "may_end"), "w").close()
        until(lambda: not [row for row in runner.list_runs(workflow="long") if row["status"] != "Completed"])
        runner.shutdown()
"""
)


@pytest.mark.parametrize("way", ["all", "first"])
def test_a_robbed_runner_lives_for_others_until_its_bodies_have_ended(tmp_path: Path, way: str) -> None:
    path = tmp_path / "runs.db"
    with Program(ROBBED_AT_WORK, path, tmp_path, "robbed", way) as first:
        first.until("robbed")
        run(ROBBED_AT_WORK, path, tmp_path, "other", way)
        first.end()
    lines = (tmp_path / "journal").read_text().splitlines()
    assert lines == ["begins 1", "ends 1", "begins 2", "ends 2"]
