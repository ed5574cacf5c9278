"""Two versions of one program on one file, as in a rolling deploy: the newer one polls, whichever of the two
is started again, and the older one takes over where no newer one lives."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from lives import Script

TURNS = int(os.environ.get("CLOACA_TURNS", "20"))
SECONDS = 30.0
ITEMS = 5
"""So many come with each turn."""

PROGRAM = """
    database, source, witness, version = sys.argv[1:]
    file = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words):
        os.write(file, (" ".join(map(str, words)) + "\\n").encode())

    with cloaca.WorkflowBuilder("handle"):

        @cloaca.task()
        def handle(context):
            return context

    interval = {"old": "10ms", "new": "11ms"}[version]
    moments = {"old": "* * * * * *", "new": "*/1 * * * * *"}[version]

    if os.environ["OF"] == "polls":

        @cloaca.trigger(workflow="handle", poll_interval=interval, name="inbox")
        def inbox(tick):
            note("poll", version, os.getpid())
            seen = tick.cursor or 0
            with open(source) as lines:
                items = lines.read().split()[seen:]
            time.sleep(0.002)
            note("over", version, os.getpid())
            fires = [
                cloaca.TriggerResult.fire(cloaca.Context({"item": int(item)}), cursor=seen + place + 1)
                for place, item in enumerate(items)
            ]
            return fires or cloaca.TriggerResult.skip()

    if os.environ["OF"] == "moments":

        @cloaca.trigger(workflow="handle", cron=moments, name="nightly")
        def nightly(tick):
            note("poll", version, os.getpid())

    with cloaca.DefaultRunner(database) as runner:
        say("here")
        for line in sys.stdin:
            if line.strip() == "why":
                say(runner.why(os.environ["OF"] == "polls" and "inbox" or "nightly"))
            else:
                break
"""


class Deploy:
    """Processes of the program by their versions, one each, and what they note."""

    def __init__(self, folder: Path) -> None:
        self.database, self.source, self.witness = (
            folder / name for name in ("runs.db", "source", "witness")
        )
        self.source.touch()
        self.witness.touch()
        self.lives: dict[str, Script] = {}
        self.items = 0
        self.killed: set[int] = set()

    def __enter__(self) -> Deploy:
        return self

    def __exit__(self, *_: object) -> None:
        for life in self.lives.values():
            life.__exit__()

    def start(self, version: str) -> None:
        life = self.lives[version] = Script(PROGRAM, self.database, self.source, self.witness, version)
        life.says("here")

    def end(self, version: str, *, kill: bool) -> None:
        life = self.lives.pop(version)
        if kill:
            life.process.kill()
            life.process.wait()
        else:
            life.tell("end")
            assert life.rest() == []
        life.__exit__()

    def feed(self) -> None:
        with self.source.open("a") as source:
            for _ in range(ITEMS):
                self.items += 1
                source.write(f"{self.items}\n")

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.witness.read_text().splitlines()]

    def polls(self, since: int = 0) -> list[str]:
        """Which versions polled, one after another."""
        return [line[1] for line in self.lines()[since:] if line[0] == "poll"]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"it never came; polls were {self.polls()[-5:]}"
            time.sleep(0.005)

    def until_polled(self, version: str, times: int = 3) -> None:
        """Waits for as many further polls, all of them by this version from the first on."""
        start = len(self.lines())
        self.until(lambda: self.polls(start).count(version) >= times)
        found = self.polls(start)
        assert set(found[found.index(version) :]) == {version}, found

    def overlaps(self) -> list[list[str]]:
        """Polls that began while another had not ended. What a kill cut off has no end."""
        found, open_by = [], None
        for kind, _, pid in self.lines():
            if kind == "over":
                open_by = None if open_by == pid else open_by
            elif open_by not in (None, pid) and int(str(open_by)) not in self.killed:
                found.append([str(open_by), pid])
            if kind == "poll":
                open_by = pid
        return found

    def contexts(self) -> list[dict[str, object]]:
        import cloaca

        with cloaca.DefaultRunner(self.database, paused=True) as runner:
            runs = list(runner.iter_runs(contexts=True))
        return [dict(run["context"]) | {"status": run["status"]} for run in runs]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OF", "polls")
    return tmp_path


def test_the_newer_version_polls_whichever_of_the_two_is_started_again(folder: Path) -> None:
    with Deploy(folder) as deploy:
        deploy.start("old")
        deploy.until_polled("old")
        deploy.start("new")
        deploy.until(lambda: "new" in deploy.polls())
        for turn in range(TURNS):
            version, other = ("old", "new") if turn % 2 == 0 else ("new", "old")
            deploy.feed()
            kill = turn % 4 < 2
            if kill:
                deploy.killed.add(deploy.lives[version].process.pid)
            deploy.end(version, kill=kill)
            deploy.until_polled(other)
            deploy.feed()
            start = len(deploy.lines())
            deploy.start(version)
            if version == "old":
                deploy.until_polled("new", 20)
                assert set(deploy.polls(start)) == {"new"}, "a restart of the older flips nothing back"
            else:
                deploy.until(lambda start=start: "new" in deploy.polls(start))
                deploy.until_polled("new")
        deploy.lives["old"].tell("why")
        told = next(deploy.lives["old"].lines)
        assert "newer version" in told, told
        deploy.lives["new"].tell("why")
        told = next(deploy.lives["new"].lines)
        assert "older version" in told, told
        # A roll-back.
        deploy.end("new", kill=False)
        deploy.until_polled("old")
        deploy.feed()
        deploy.until(lambda: folder.joinpath("runs.db").exists())
        deploy.until_polled("old", 10)
        deploy.end("old", kill=False)
        assert deploy.overlaps() == [], "two bodies of one trigger ran at once"
        contexts = deploy.contexts()
    assert sorted(context["item"] for context in contexts) == list(range(1, deploy.items + 1))
    unfinished = [
        context for context in contexts if context["status"] not in ("Completed", "Pending", "Running")
    ]
    assert unfinished == []


def test_of_a_cron_the_newer_version_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF", "moments")
    with Deploy(folder) as deploy:
        deploy.start("old")
        deploy.until_polled("old", 1)
        deploy.start("new")
        deploy.until(lambda: "new" in deploy.polls())
        deploy.end("old", kill=True)
        deploy.start("old")
        deploy.until_polled("new", 2)
        deploy.lives["old"].tell("why")
        assert "newer version" in next(deploy.lives["old"].lines)
        deploy.end("new", kill=True)
        deploy.until_polled("old", 2)
        deploy.start("new")
        deploy.until(lambda: deploy.polls()[-1] == "new")
        deploy.until_polled("new", 2)
        deploy.end("new", kill=False)
        deploy.until_polled("old", 1)
        deploy.end("old", kill=False)
        moments = [str(context["scheduled_time"]) for context in deploy.contexts()]
    assert len(set(moments)) == len(moments), "a moment ran twice"


def told(path: Path, runners: int) -> None:
    """Waits until so many runners have said which workflows they declare."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with closing(sqlite3.connect(path)) as store:
            if store.execute("SELECT count(*) FROM workflows").fetchone() == (runners,):
                return
        time.sleep(0.01)
    raise AssertionError("they never said it")


def test_a_run_that_has_begun_goes_on_in_its_own_version_and_then_in_any(tmp_path: Path) -> None:
    program = """
        version = sys.argv[2]

        with cloaca.WorkflowBuilder("steps"):

            @cloaca.task()
            def first(context):
                say("first in", version)

            @cloaca.task(dependencies=[first])
            def second(context, handle):
                say("second in", version, handle.attempt)
                if sys.argv[3] == "block":
                    threading.Event().wait()

            if version == "new":

                @cloaca.task(dependencies=[second])
                def third(context):
                    say("third in", version)

        with cloaca.DefaultRunner(sys.argv[1]) as runner:
            say("here")
            for line in sys.stdin:
                if line.strip() == "go":
                    runner.submit("steps")
    """
    path = tmp_path / "runs.db"
    with Script(program, path, "old", "block") as began:
        began.says("here")
        began.tell("go")
        began.says("first in old")
        began.says("second in old 1")
        with Script(program, path, "new", "go on") as new, Script(program, path, "old", "block") as like:
            new.says("here")
            like.says("here")
            told(path, 3)
            began.process.kill()
            like.says("second in old 2")
            # Nobody else declares its version then.
            like.process.kill()
            new.says("second in new 3")
            new.says("third in new")
            with Script(program, path, "new", "go on") as last:
                last.says("here")


def test_who_cannot_run_a_cron_says_nothing_while_another_can(tmp_path: Path) -> None:
    program = """
        import logging

        class Heard(logging.Handler):
            def emit(self, record):
                say("log", record.getMessage())

        logging.getLogger("cloaca").addHandler(Heard())
        if sys.argv[2] == "declares":

            with cloaca.WorkflowBuilder("tidy"):

                @cloaca.task()
                def tidy(context):
                    say("tidied")

        with cloaca.DefaultRunner(sys.argv[1]) as runner:
            if sys.argv[2] == "declares":
                runner.register_cron_workflow("tidy", "* * * * * *", "UTC")
            say("here")
            sys.stdin.read()
    """
    path = tmp_path / "runs.db"
    with Script(program, path, "declares") as declares:
        declares.says("here")
        declares.says("tidied")
        with Script(program, path, "does not") as other:
            other.says("here")
            for _ in range(3):
                declares.says("tidied")
            other.process.stdin.close()  # type: ignore[union-attr]
            other.process.stdin = None
            assert other.rest() == []
