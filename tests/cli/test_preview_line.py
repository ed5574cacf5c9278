"""`cloaca preview` and `cloaca show --diff`, beside a living process of the program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stage import HOSTILE, Line, fields, run_command, served, steady

import cloaca
from cloaca import reading

PROGRAM = f"""
import cloaca

print("importing")

with cloaca.WorkflowBuilder("sort"):

    @cloaca.task()
    def sort(context):
        context["sorted"] = sorted(context.pop("names", []))
        context["n"] = 2

    @cloaca.task(dependencies=[sort])
    def shout(context):
        context["loud"] = {HOSTILE!r}


@cloaca.trigger(workflow="sort", poll_interval="1h")
def inbox(tick):
    print("polling")
    tick.cursor = "b"
    yield cloaca.TriggerResult.fire({{"names": ["b", "a"], "n": 1}}, run_key="k")
    yield cloaca.TriggerResult.fire({{"names": []}}, run_key="k")


@cloaca.trigger(workflow="sort", poll_interval="1h")
def quiet():
    return cloaca.TriggerResult.skip({HOSTILE!r})


@cloaca.trigger(workflow="sort", poll_interval="1h")
def broken():
    raise OSError("the share is gone")


@cloaca.trigger(workflow="sort", poll_interval="1h")
def leaves():
    import sys

    sys.exit(0)


@cloaca.trigger(workflow="nowhere", poll_interval="1h")
def astray():
    return cloaca.TriggerResult.fire({{}})


if __name__ == "__main__":
    import sys

    with cloaca.DefaultRunner("other.db") as runner:
        runner.execute("sort", {{"names": ["b", "a"], "n": 1}})
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_a_preview_is_told_to_people_pipes_and_programs(line: Line, tmp_path: Path) -> None:
    (tmp_path / "sorting.py").write_text(PROGRAM)
    line.monkeypatch.setenv("NO_COLOR", "1")
    with served(tmp_path / "runs.db"):
        words = ("preview", "inbox", "--app", "sorting.py")
        told = line.shown(*words)
        assert line.said.splitlines()[-2:] == ["importing", "polling"]
        assert told.splitlines() == [
            "inbox  fire",
            "  FATE              KEY  WHY                                           CONTEXT",
            f'  would start       k    -{" " * 45}{{"names": ["b", "a"], "n": 1}}',
            '  would be dropped  k    deduplicated: a fire of this poll with the …  {"names": []}',
            '  cursor then "b"',
        ]
        assert fields(line.piped(*words)) == [
            ["poll", "inbox", "fire", "", "", ""],
            ["fire", "run", "", "k", "", '{"names": ["b", "a"], "n": 1}'],
            [
                "fire",
                "refuse_key",
                "",
                "k",
                "deduplicated: a fire of this poll with the same run key comes before it",
                '{"names": []}',
            ],
            ["cursor", "", "", "", "", '"b"'],
        ]
        found = json.loads(line.piped(*words, "--json"))
        assert sorted(found) == ["cursor", "fires", "kind", "outcome", "reason", "trigger_name"]
        assert [sorted(fire) for fire in found["fires"]] == [["context", "gate", "run_key"]] * 2
        assert sorted(found["fires"][0]["gate"]) == ["reason", "run", "verdict"]
        assert (found["kind"], found["trigger_name"], found["cursor"]) == ("preview", "inbox", "b")
        # Nothing of it is in the store, and nobody joined.
        assert [row[1] for row in fields(line.piped("ls", "triggers"))] == ["broken", "rare"]
        assert len(fields(line.piped("runners", "--left"))) == 1
        assert len(fields(line.piped("runs"))) == 2


def test_a_preview_fails_as_the_poll_would_and_says_what_is_not_there(line: Line, tmp_path: Path) -> None:
    (tmp_path / "sorting.py").write_text(PROGRAM)
    with served(tmp_path / "runs.db"):
        told = line.piped("preview", "broken", "--app", "sorting.py", code=1)
        assert fields(told) == [["poll", "broken", "error", "", "", "OSError: the share is gone"]]
        told = line.piped("preview", "leaves", "--app", "sorting.py", code=1)
        assert fields(told)[0][2:] == ["error", "", "", "SystemExit: 0"]
        told = line.piped("preview", "astray", "--app", "sorting.py", code=1)
        assert fields(told)[1][1] == "fail"
        assert "would fail" not in line.shown("preview", "quiet", "--app", "sorting.py")
        for shown in (line.piped, line.shown):
            text = shown("preview", "quiet", "--app", "sorting.py")
            assert not [letter for letter in text if not letter.isprintable() and letter not in "\n\t\x1b"]
        line.piped("preview", "inbx", "--app", "sorting.py", code=4)
        assert "did you mean 'inbox'?" in line.said
        line.piped("preview", "rare", "--app", "sorting.py", code=4)
        assert "is in the store, but not declared by the program that was imported" in line.said
        line.piped("preview", "inbox", code=2)
        assert "give --app MODULE" in line.said
        line.piped("preview", "inbox", "--app", "nowhere.py", code=2)
        assert "there is no file 'nowhere.py'" in line.said
        (tmp_path / "pyproject.toml").write_text('[tool.cloaca]\napp = "sorting.py"\n')
        assert fields(line.piped("preview", "quiet"))[0][2] == "skip"


SERVES = """
import cloaca

with cloaca.WorkflowBuilder("sort"):

    @cloaca.task()
    def sort(context):
        open("ran", "a").write("x")


@cloaca.trigger(workflow="sort", poll_interval="10ms")
def inbox(tick):
    tick.cursor = (tick.cursor or 0) + 1
    return cloaca.TriggerResult.fire({"n": tick.cursor})


runner = cloaca.DefaultRunner("serves.db")
"""


def test_a_program_that_makes_its_runner_on_import_is_only_looked_at(line: Line, tmp_path: Path) -> None:
    (tmp_path / "serving.py").write_text(SERVES)
    with cloaca.DefaultRunner(tmp_path / "serves.db"):
        pass
    for words in (["preview", "inbox", "--database", "serves.db"], ["graph"]):
        command = [sys.executable, "-m", "cloaca", *words, "--app", "serving.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True)
        assert done.stdout
        assert done.stderr == ""
    assert not (tmp_path / "ran").exists()
    with reading.Reader(tmp_path / "serves.db") as reader:
        assert len(reading.runners(reader, left=True)) == 1
        assert reading.triggers(reader).items == []


def test_a_program_that_serves_or_leaves_as_it_is_imported_is_looked_at_or_told_of(
    line: Line, tmp_path: Path
) -> None:
    with cloaca.DefaultRunner(tmp_path / "serves.db"):
        pass
    ends = {
        "runner.run_forever()": (0, ""),
        "import sys; sys.exit(0)": (1, "leaves while it is imported, by sys.exit or the like; put"),
        "runner.submit('sort', {})": (1, "is only looked at, and starts nothing as it is imported; put"),
    }
    for number, (end, (code, said)) in enumerate(ends.items()):
        (tmp_path / f"serving{number}.py").write_text(f"{SERVES}{end}\n")
        words = ["preview", "inbox", "--database", "serves.db", "--app", f"serving{number}.py"]
        command = [sys.executable, "-m", "cloaca", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True, timeout=60)
        assert (bool(done.stdout), said in done.stderr) == (code == 0, True), done.stderr
        assert (done.returncode == 0) == (code == 0)
    assert not (tmp_path / "ran").exists()


def test_what_each_task_changed(line: Line, tmp_path: Path) -> None:
    (tmp_path / "sorting.py").write_text(PROGRAM)
    line.monkeypatch.setenv("NO_COLOR", "1")
    done = subprocess.run(
        [sys.executable, "sorting.py"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().splitlines()[-1] == "ready"
    ((run_id, *_),) = fields(line.piped("runs"))
    told = steady(line.shown("run", run_id, "--diff")).splitlines()
    at = next(number for number, text in enumerate(told) if text.startswith("├─ sort"))
    assert told[at:] == [
        "├─ sort  Completed  SPAN",
        '│  + sorted  ["a", "b"]',
        "│  ~ n  1 -> 2",
        '│  - names  ["b", "a"]',
        "└─ shout  Completed  SPAN",
        f"   + loud  {json.dumps(HOSTILE, ensure_ascii=False)}".replace("\x9b", "\\x9b").replace(
            "\u202e", "\\u202e"
        ),
    ]
    rows = [row for row in fields(line.piped("show", run_id, "--diff")) if row[0] == "changed"]
    assert [row[:4] for row in rows] == [
        ["changed", "sort", "+", "sorted"],
        ["changed", "sort", "~", "n"],
        ["changed", "sort", "-", "names"],
        ["changed", "shout", "+", "loud"],
    ]
    whole = json.loads(line.piped("show", run_id, "--diff", "--json"))
    assert whole["changes"]["sort"][1] == {"sign": "~", "key": "n", "before": 1, "after": 2}
    assert "changes" not in json.loads(line.piped("show", run_id, "--json"))


@pytest.mark.parametrize("given", [[], ["--database", "runs.db"]], ids=["none is named", "one is named"])
def test_what_a_first_poll_would_come_to_is_said_before_the_first_start(
    line: Line, tmp_path: Path, given: list[str]
) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    told = fields(line.piped("preview", "inbox", "--app", "app.py", *given))
    assert [row[:2] for row in told] == [
        ["poll", "inbox"],
        ["fire", "run"],
        ["fire", "refuse_key"],
        ["cursor", ""],
    ]
    assert "this is what a first poll would come to" in line.said
    assert not list(tmp_path.glob("*.db*"))
    line.piped("preview", "inbx", "--app", "app.py", *given, code=4)
    assert "did you mean 'inbox'" in line.said


def test_a_store_that_is_none_is_refused_by_a_preview(line: Line, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "runs.db").write_text("dear diary, this is longer than what a database begins with")
    line.piped("preview", "inbox", "--app", "app.py", "--database", "runs.db", code=3)
    line.piped("preview", "inbox", "--app", "app.py", "--database", "nowhere/runs.db", code=3)


ENDS = """
import os, signal
import cloaca

with cloaca.WorkflowBuilder("w"):
    cloaca.task(id="t")(lambda context: None)

@cloaca.trigger(workflow="w", poll_interval="1h")
def interrupts():
    raise KeyboardInterrupt

@cloaca.trigger(workflow="w", poll_interval="1h")
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)

@cloaca.trigger(workflow="w", poll_interval="1h")
def leaves():
    os._exit(0)

@cloaca.trigger(workflow="w", poll_interval="1h")
def forks():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return False
"""


@pytest.mark.skipif(os.name != "posix", reason="signals and forks")
def test_what_ends_the_process_of_a_preview_is_told(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ENDS)
    for name, code, out, said in [
        ("interrupts", 1, "poll\tinterrupts\terror\t\t\tKeyboardInterrupt", ""),
        ("interrupted", 130, "", ""),
        ("leaves", 1, "", "cloaca: the function of trigger 'leaves' ends its process, by os._exit(0)\n"),
        ("forks", 0, "poll\tforks\tskip", ""),
    ]:
        done = run_command(["preview", name, "--app", "app.py"], cwd=tmp_path)
        assert done.returncode == code, (name, done)
        assert done.stdout.startswith(out), (name, done)
        assert bool(done.stdout) is bool(out), (name, done)
        assert done.stderr.endswith(said), (name, done)
