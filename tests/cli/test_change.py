"""The commands that change something, beside a living process of the program and without one."""

import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from stage import Line, fields, free_port, reads, run_command, served, serving

import cloaca
from cloaca import reading
from cloaca.audit import user
from cloaca.cli import change
from cloaca.cli.commands import COMMANDS
from cloaca.cli.where import is_same

WAIT = 30.0


def state_of(name: str) -> str:
    with reading.Reader("runs.db") as reader:
        return reading.schedules_named(reader, name)[0].state


def test_triggers_and_crons_are_switched_while_another_process_polls_them(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        assert line.piped("disable", "broken", "nightly") == "disabled\tbroken\ndisabled\tnightly\n"
        assert (state_of("broken"), state_of("nightly"), state_of("rare")) == (
            "disabled",
            "disabled",
            "polled",
        )
        assert "it was switched off" in line.piped("why", "broken")
        line.piped("enable", "nightly")
        assert "'nightly' is a cron" in line.said
        assert "and runs next at " in line.said
        line.piped("disable", "nightly")
        assert line.said.count("\n") == 1, "nothing of it goes on"
        assert line.piped("enable", "broken", "nightly", "--json") == (
            '{"kind": "enabled", "of": "broken"}\n{"kind": "enabled", "of": "nightly"}\n'
        )
        assert state_of("nightly") == "scheduled"
        # Of several names none is switched if one of them is not known.
        line.piped("disable", "rare", "brokn", code=4)
        assert "did you mean 'broken'" in line.said
        assert state_of("rare") == "polled"
        (cron,) = (each for each in map(json.loads, line.piped("ls", "crons", "--json").splitlines()))
        line.piped("disable", cron["id"])
        assert state_of("nightly") == "disabled"


def test_a_run_that_ends_as_it_is_cancelled_is_told_of(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path / "runs.db", "slow"):
        (failed,) = fields(line.piped("runs", "--failed"))
        # As where it was not over a moment ago.
        monkeypatch.setattr("cloaca.cli.change._was_asked", lambda reader, run_id: None)
        assert line.piped("cancel", failed[0], code=1) == ""
        assert f"run {failed[0]} is over already" in line.said


def test_a_run_is_cancelled_where_it_is_at_work(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db", "slow"):
        (slow,) = fields(line.piped("runs", "--status", "Running"))
        # Its body goes on, and the run with it.
        assert line.piped("cancel", slow[0]) == f"asked\t{slow[0]}\n"
        assert "its end was asked for" in line.piped("why", slow[0])
        (failed,) = fields(line.piped("runs", "--failed"))
        line.piped("cancel", failed[0], code=1)
        assert "is over already" in line.said
        line.piped("cancel", code=2)
        line.piped("cancel", failed[0], "--all", code=2)
        line.piped("cancel", failed[0], "--since", "1h", code=2)
        line.piped("cancel", "--all", "--workflow", "ingest", code=2)
        assert "this would cancel 1 run; give --yes" in line.said
        assert line.piped("cancel", "--all", "--workflow", "ingest", "--yes") == f"asked\t{slow[0]}\n"
        line.piped("cancel", "--all", "--workflow", "other", "--yes", code=4)


def test_a_run_is_retried_by_a_living_runner(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        (failed,) = fields(line.piped("runs", "--failed"))
        assert line.piped("retry", failed[0]) == f"retried\t{failed[0]}\n"
        assert line.said.count("no runner is alive") == 0
        line.piped("show", failed[0], "--wait", code=1)
        whole = json.loads(line.piped("show", failed[0], "--json"))
        (archive,) = (task for task in whole["tasks"] if task["id"] == "archive")
        assert len(archive["tries"]) == 4
        assert line.piped("retry", "--all", "--error", "ValueError", "--yes") == f"retried\t{failed[0]}\n"
        (good,) = fields(line.piped("runs", "--status", "Completed"))
        line.piped("retry", good[0], code=1)
        assert "only a Failed or Cancelled run can be retried" in line.said


def test_a_run_is_submitted_to_a_living_runner_and_waited_for(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        began = time.monotonic()
        words = ("submit", "ingest", "--context", '{"file": "new"}')
        ((run_id, status, error),) = fields(line.piped(*words, "--wait"))
        assert time.monotonic() - began < WAIT
        assert (status, error) == ("Completed", "")
        ((_, status, error),) = fields(
            line.piped("submit", "ingest", "--context", '{"file": "bad"}', "--wait", code=1)
        )
        assert (status, error) == ("Failed", "task 'archive' failed: ValueError: no price")
        with reading.Reader("runs.db") as reader:
            assert reading.run(reader, run_id).run.context == {"file": "new"}
            # Who asked has gone, and ran nothing.
            assert [each.state for each in reading.runners(reader)] == ["living"]
            assert [each.works for each in reading.runners(reader, left=True)] == [True, False, False]
        assert list(tmp_path.glob("*-owner-*")) == [tmp_path / "runs.db-owner-1"]


def test_a_run_is_done_again_from_its_start(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        ((good, *_),) = fields(line.piped("runs", "--status", "Completed"))
        ((again, status, _),) = fields(line.piped("submit", "--again", good[:23], "--wait"))
        assert (again != good, status) == (True, "Completed")
        with reading.Reader("runs.db") as reader:
            assert reading.run(reader, again).run.context == {"file": "good"}
            assert reading.run(reader, again).run.parent_kind == "again"
            assert [child.id for child in reading.run(reader, good).children] == [again]
        assert f"run {good}, which it does again" in line.shown("show", again)
        assert "does it again" in line.shown("show", good)
        assert fields(line.piped("runs", "--parent", good))[0][0] == again
        ((bad, *_),) = fields(line.piped("runs", "--failed"))
        ((repeat, *_),) = fields(line.piped("submit", "--again", bad, "--wait", code=1))
        assert line.piped("retry", "--all", "--workflow", "ingest", "--yes") == f"retried\t{repeat}\n"
        assert (
            f"1 left out, as their work is done again; run {repeat} does the work of run {bad}" in line.said
        )
        line.piped("show", repeat, "--wait", code=1)
        assert line.piped("retry", bad) == f"retried\t{bad}\n"
        line.piped("submit", "--again", "beef", code=4)
        line.piped("submit", code=2)
        line.piped("submit", "ingest", "--again", good, code=2)
        line.piped("submit", "--again", good, "--context", "{}", code=2)
        assert "--again takes the run's own context" in line.said
        line.piped("retry", good, code=1)
        assert f"`cloaca submit --again {good}`" in line.said


def test_done_again_is_what_the_program_hides_of_a_run(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("login"):
        cloaca.task(id="call")(lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "runs.db", redact=["password"]) as runner:
        run = runner.submit("login", {"password": "hunter2"})
        run.result(WAIT)
        ((again, _, _),) = fields(line.piped("submit", "--again", run.id, "--wait"))
        assert "hunter2" not in line.piped("show", again, "--context")
        found = runner.get_run(again, unmasked=True)
        assert found is not None
        assert found["context"] == {"password": "hunter2"}


def test_a_run_key_stands_for_one_event(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        words = ("submit", "ingest", "--key", "7", "--json", "--context")
        first = json.loads(line.piped(*words, '{"file": "k"}'))
        again = json.loads(line.piped(*words, '{"file": "k"}'))
        assert (first["new"], again["new"], again["id"]) == (True, False, first["id"])
        line.piped(*words, '{"file": "other"}', code=2)
        assert "a key stands for one event" in line.said


def test_a_run_is_submitted_for_later_and_with_a_priority(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        words = ("submit", "ingest", "--context", '{"file": "new"}')
        ((late,),) = fields(line.piped(*words, "--delay", "1h", "--priority", "8"))
        ((dated,),) = fields(line.piped(*words, "--at", "2090-01-31T06:00:00Z"))
        ((now, status, _),) = fields(line.piped(*words, "--delay", "0.1s", "--wait"))
        assert status == "Completed"
        whole = {each: json.loads(line.piped("show", each, "--json")) for each in (late, dated, now)}
        assert [(each["status"], each["priority"]) for each in whole.values()] == [
            ("Pending", 8),
            ("Pending", 5),
            ("Completed", 5),
        ]
        assert whole[dated]["due_at"] == "2090-01-31T06:00:00.000000Z"
        shown = line.shown("show", late)
        assert "due " in shown
        assert "priority" in shown
        assert f"waits for its time, {whole[late]['due_at']}" in line.piped("why", late)
        line.piped(*words, "--priority", "10", code=2)
        assert "--priority is 10; it must be from 0 to 9" in line.said
        line.piped(*words, "--priority", "high", code=2)
        line.piped(*words, "--at", "tomorrow", code=2)
        assert "--at is 'tomorrow'; write a time such as" in line.said
        line.piped(*words, "--at", "2090-01-31", "--delay", "1h", code=2)
        assert line.said.endswith("cloaca: --at is '2090-01-31' and --delay is '1h'; give one of them\n")
        line.piped(*words, "--delay", "soon", code=2)
        assert "--delay is 'soon', which is no duration" in line.said
        line.piped(*words, "--delay", "9999d", code=2)
        assert "--delay is '9999d'; the largest is 10 years" in line.said
        line.piped("cancel", late, dated)


def test_every_change_is_on_the_audit_list(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        (failed,) = fields(line.piped("runs", "--failed"))
        line.piped("disable", "broken", "nightly")
        line.piped("enable", "broken")
        (new,) = fields(line.piped("submit", "ingest", "--context", '{"file": "bad"}', "--wait", code=1))
        line.piped("retry", new[0])
        line.piped("retry", "nothing", code=4)
    line.piped("submit", "ingest", "--key", "once")
    line.piped("submit", "ingest", "--key", "once")
    (waiting,) = fields(line.piped("runs", "--key", "once"))
    line.piped("cancel", waiting[0])
    line.piped("forget", "broken", "--yes")
    line.piped("prune", "--before", "2100-01-01T00:00:00Z", "--yes")
    rows = fields(line.piped("audit"))
    assert {(row[1], row[2], row[3]) for row in rows} == {(user(), "cli", "")}
    assert "@" in user()
    assert [(row[4], row[5]) for row in reversed(rows)] == [
        ("disable", "broken"),
        ("disable", "nightly"),
        ("enable", "broken"),
        ("submit", new[0]),
        ("retry", new[0]),
        ("submit", waiting[0]),
        ("cancel", waiting[0]),
        ("forget", "broken"),
        ("prune", "runs that ended before 2100-01-01T00:00:00.000Z"),
    ]
    assert int(rows[0][6]) > 1
    assert [row[4] for row in fields(line.piped("audit", "broken"))] == ["forget", "enable", "disable"]
    assert [row[4] for row in fields(line.piped("audit", new[0]))] == ["retry", "submit"]
    (record,) = map(json.loads, line.piped("audit", "--limit", "1", "--json").splitlines())
    assert (record["kind"], record["what"], record["place"]) == ("change", "prune", None)
    assert "WHAT" in line.shown("audit")
    assert failed


def test_what_is_submitted_is_checked(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        for wrong in ("[]", "{", "@none.json"):
            line.piped("submit", "ingest", "--context", wrong, code=2)
        line.piped("submit", "ingst", code=4)
        assert "did you mean 'ingest'" in line.said
        assert "--app MODULE" in line.said
        line.piped("submit", "ingst", "--app", "app.py", code=4)
        line.piped("submit", "ingest", "--app", "none.py", code=2)
        assert len(fields(line.piped("runs"))) == 2
        (tmp_path / "context.json").write_text('{"file": "from a file"}')
        line.piped("submit", "ingest", "--app", "app.py", "--context", "@context.json", "--wait")


def test_without_a_runner_a_run_waits_for_one_and_that_is_said(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    ((run_id,),) = fields(line.piped("submit", "ingest"))
    assert "no runner is alive: it waits until one that declares its workflow serves this store" in line.said
    assert "waits for a runner" in line.piped("why", run_id)
    with served(tmp_path / "runs.db"):
        line.piped("show", run_id, "--wait")


def test_what_is_forgotten_is_polled_by_nobody(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db") as process:
        line.piped("forget", "rare", "--yes", code=1)
        assert "is served by runner 1" in line.said
        line.piped("forget", "nightly", "--yes", code=1)
        assert "'nightly' is served by runner 1" in line.said
        line.piped("forget", "rare", code=2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert line.piped("forget", "rare", "--yes") == "forgotten\trare\n"
        line.piped("why", "rare", code=4)


def test_what_is_renamed_keeps_what_hangs_on_it(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db") as process:
        line.piped("rename", "rare", "seldom", code=1)
        assert "is served by runner 1" in line.said
        line.piped("rename", "nightly", "daily", code=1)
        assert "'nightly' is served by runner 1" in line.said
        process.send_signal(signal.SIGKILL)
        process.wait()
    line.piped("rename", "rare", "broken", code=1)
    assert "something is kept as 'broken' already" in line.said
    line.piped("rename", "rare", "a::b", code=1)
    line.piped("rename", "none", "neither", code=4)
    assert line.piped("rename", "nightly", "daily") == "renamed\tnightly\tdaily\n"
    line.piped("disable", "broken")
    assert line.piped("rename", "broken", "fixed", "--json") == (
        '{"kind": "renamed", "of": "broken", "to": "fixed"}\n'
    )
    # A deploy that does it each time is told, and goes on.
    assert line.piped("rename", "broken", "fixed") == ""
    assert "'broken' is not kept, and 'fixed' is: nothing to rename" in line.said
    assert "off" in line.piped("why", "fixed")
    line.piped("why", "broken", code=4)
    assert [row[4] for row in fields(line.piped("audit", "fixed"))] == ["rename"]
    assert [row[4] for row in fields(line.piped("audit", "broken"))] == ["rename", "disable"]


def test_old_runs_are_deleted_and_no_others(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db", "slow"):
        assert line.piped("prune", "--before", "1h", "--yes") == "pruned\t0\n"
        assert "the file stays" not in line.said
        line.piped("prune", code=2)
        line.piped("prune", "--before", "2090-01-01", code=2)
        assert "this would delete 2 runs, which ended before 2090-01-01 00:00:00 UTC; give --yes" in line.said
        assert line.piped("prune", "--before", "2090-01-01", "--yes", "--json") == (
            '{"kind": "pruned", "runs": 2}\n'
        )
        assert "the file stays as large as it is: what is written next takes the room" in line.said
        assert [row[2] for row in fields(line.piped("runs"))] == ["Running"]


def test_old_runs_that_are_still_needed_stay_and_are_counted(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner("runs.db") as runner:
        runner.submit("w").result(WAIT)
        runner.submit("w", run_key="order 7").result(WAIT)
    line.piped("prune", "--before", "2090-01-01", code=2)
    assert "1 stays, as its run key is in use" in line.said
    assert "delete 1 run, which ended" in line.said
    assert line.piped("prune", "--before", "2090-01-01", "--yes") == "pruned\t1\n"
    assert "1 stays, as its run key is in use" in line.said
    # Where all of them stay there is nothing to ask.
    assert line.piped("prune", "--before", "2090-01-01") == "pruned\t0\n"
    assert "1 stays, as its run key is in use" in line.said


def test_a_change_makes_no_store(line: Line, tmp_path: Path) -> None:
    for words in (
        ["enable", "x"],
        ["cancel", "0"],
        ["retry", "0"],
        ["submit", "w"],
        ["forget", "x", "--yes"],
        ["rename", "x", "y"],
        ["prune", "--before", "1d"],
    ):
        line.piped(*words, "--database", "none.db", code=3)
        assert "there is no database" in line.said
    assert list(tmp_path.iterdir()) == []


def test_a_picture_in_text_has_the_rules_of_tasks(line: Line, tmp_path: Path) -> None:
    (tmp_path / "ruled.py").write_text(
        "import cloaca\n"
        "with cloaca.WorkflowBuilder('w') as builder:\n"
        "    cloaca.task(id='open')(lambda context: None)\n"
        "    rule = cloaca.task_failed('open')\n"
        "    cloaca.task(id='aside', dependencies=['open'], trigger_rules=rule)(lambda context: None)\n"
    )
    assert line.piped("graph", "--app", "ruled.py") == (
        "w, 2 tasks\n  1  open\n  2  aside after open, if open failed\n"
    )
    assert '    t1["aside<br>if open failed"]\n' in line.piped(
        "graph", "--app", "ruled.py", "--format", "mermaid"
    )
    assert '    "aside" [label="aside\\nif open failed"];\n' in line.piped(
        "graph", "--app", "ruled.py", "--format", "dot"
    )
    rules = [
        json.loads(each)["rule"] for each in line.piped("graph", "--app", "ruled.py", "--json").splitlines()
    ]
    assert rules == [None, {"type": "TaskFailed", "task_name": "open"}]


def test_a_workflow_is_drawn_from_the_program(line: Line, tmp_path: Path) -> None:
    (tmp_path / "drawn.py").write_text(
        "import cloaca\nprint('imported')\n"
        "with cloaca.WorkflowBuilder('w') as builder:\n"
        "    for name, needs in (('a', []), ('b \"]', ['a']), ('c', ['a']), ('d', ['b \"]', 'c'])):\n"
        "        cloaca.task(id=name, dependencies=needs)(lambda context: None)\n"
    )
    assert line.piped("graph", "--app", "drawn.py") == (
        'w, 4 tasks\n  1  a\n  2  b "] after a\n  2  c after a\n  3  d after b "], c\n'
    )
    assert line.said == "imported\n"
    sys.modules.pop("drawn")
    assert line.piped("graph", "w", "--app", "drawn", "--format", "mermaid") == (
        'flowchart TD\n    t0["a"]\n    t1["b #34;#93;"]\n    t2["c"]\n    t3["d"]\n'
        "    t0 --> t1\n    t0 --> t2\n    t1 --> t3\n    t2 --> t3\n"
    )
    assert '    "b \\"]" -> "d";\n' in line.piped("graph", "w", "--app", "drawn", "--format", "dot")
    assert json.loads(line.piped("graph", "w", "--app", "drawn", "--json").splitlines()[-1]) == {
        "kind": "task",
        "id": "d",
        "dependencies": ['b "]', "c"],
        "rule": None,
    }
    assert line.piped("graph", "w", "--app", "drawn", "--format", "svg").startswith("<svg")
    line.piped("graph", "v", "--app", "drawn", code=4)
    (tmp_path / "types.py").write_text("")
    line.piped("graph", "--app", "types.py", code=2)
    assert "is called like module types at" in line.said
    (tmp_path / "sys.py").write_text("")
    line.piped("graph", "--app", "sys.py", code=2)
    assert "is called like module sys of Python's own, which Python takes" in line.said
    line.piped("graph", code=2)
    assert "which store?" in line.said
    (tmp_path / "broken.py").write_text("1 / 0")
    line.piped("graph", "--app", "broken.py", code=1)
    assert "broken.py cannot be imported: ZeroDivisionError: division by zero" in line.said


def test_a_workflow_is_drawn_from_the_store_where_its_program_is_not_there(
    line: Line, tmp_path: Path
) -> None:
    go_on, has_begun = threading.Event(), threading.Event()
    line.monkeypatch.chdir(tmp_path)
    with cloaca.testing.isolated():
        with cloaca.WorkflowBuilder("mail"):
            cloaca.task(id="fetch")(lambda context: None)
            cloaca.task(
                id="send", dependencies=["fetch"], trigger_rules=cloaca.context_value("to", "==", "\0")
            )(lambda context: None)
        with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
            first = runner.submit("mail")
            assert first.result(WAIT).status == "Completed"
    with cloaca.testing.isolated():
        with cloaca.WorkflowBuilder("mail"):

            @cloaca.task()
            def load(context: Any) -> None:
                has_begun.set()
                assert go_on.wait(WAIT)

            cloaca.task(id="post", dependencies=["load"])(lambda context: None)
            cloaca.task(id="count", dependencies=["load", "post"])(lambda context: None)
        with (
            cloaca.DefaultRunner(tmp_path / "runs.db") as runner,
            cloaca.DefaultRunner(tmp_path / "runs.db", work=False) as client,
        ):
            second = runner.submit("mail")
            assert has_begun.wait(WAIT)
            deadline = time.monotonic() + WAIT
            while "load" not in line.piped("graph"):
                assert time.monotonic() < deadline
            with cloaca.testing.isolated():
                # Neither of these declares it.
                found = client.get_run(second.id)
                assert found is not None
                assert [task["id"] for task in found["tasks"]] == ["load", "post", "count"]
                assert re.search(r"post +.*Pending", line.shown("show", second.id))
            whole = json.loads(line.piped("show", second.id, "--json"))
            assert [task["id"] for task in whole["tasks"]] == ["load", "post", "count"]
            assert whole["graph"][2] == {"id": "count", "dependencies": ["load", "post"], "rule": None}
            go_on.set()
            assert second.result(WAIT).status == "Completed"
    drawn = "mail, 3 tasks\n  1  load\n  2  post after load\n  3  count after load, post\n"
    assert line.piped("graph") == line.piped("graph", "mail", "--database", "runs.db") == drawn
    assert line.piped("graph", "mail", "--format", "svg").startswith("<svg")
    assert len(line.piped("graph", "--json").splitlines()) == 3
    # A run is told as what it was.
    whole = json.loads(line.piped("show", first.id, "--json"))
    assert [(node["id"], node["dependencies"]) for node in whole["graph"]] == [
        ("fetch", []),
        ("send", ["fetch"]),
    ]
    assert whole["graph"][1]["rule"]["value"] == "\0"
    line.piped("graph", "mial", code=4)
    assert "did you mean 'mail'?" in line.said


def test_names_are_completed_and_none_that_a_shell_would_carry_out(line: Line, tmp_path: Path) -> None:
    for name in ("inbox", "index", "in $(touch evil)", "in;x", "in`x`", "other"):
        cloaca.trigger(workflow="w", poll_interval="1h", name=name)(lambda: False)
    cloaca.trigger(workflow="w", cron="0 3 * * *", name="nightly")(lambda: None)
    for name in ("shop:in", "shop=in", "=in"):
        cloaca.trigger(workflow="w", poll_interval="1h", name=name)(lambda: False)
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", limits=[cloaca.Limit("api", concurrency=1)])(lambda context: None)
    with cloaca.DefaultRunner("runs.db") as runner:
        runner.execute("w")
    run_id = fields(line.piped("runs"))[0][0]
    for words, found in [
        (["d"], ["doctor", "disable", "dev"]),
        # Runs only once one is begun: before that they would hide the names.
        (["why", ""], ["inbox", "index", "nightly", "other", "shop:in", "shop=in", "w"]),
        (["why", "w"], ["w"]),
        (["why", "inbox", run_id[:3]], [run_id]),
        (["audit", "n"], ["nightly"]),
        (["audit", run_id[:9]], [run_id]),
        (["enable", "shop"], ["shop:in", "shop=in"]),
        (["ticks", "shop:"], ["shop:in"]),
        (["pause", "--limit", ""], ["api"]),
        (["resume", "--limit=a"], ["--limit=api"]),
        (["why", "in"], ["inbox", "index"]),
        (["enable", "inbox", "ot"], ["other"]),
        (["ticks", "inbox", "ot"], []),
        (["runs", "--workflow", ""], ["w"]),
        (["runs", "--s"], ["--status", "--since"]),
        (["runs", "--status", "Ca"], ["Cancelled"]),
        (["show", ""], [run_id]),
        (["show", run_id[:9]], [run_id]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["nothing", ""], []),
        (["--database", "runs.db", "show", run_id[:9]], [run_id]),
        (["--database=runs.db", "--json", "why", "in"], ["inbox", "index"]),
        (["--database", "runs.db", ""], [each.name for each in COMMANDS if not each.is_hidden]),
        (["--json", "d"], ["doctor", "disable", "dev"]),
        (["--d"], ["--database"]),
        (["--database", ""], []),
        (["--database="], []),
        (["show", "--database=runs.db", run_id[:9]], [run_id]),
        (["show", "--database=none.db", run_id[:9]], []),
        (["show", run_id[:9], "--database=runs.db", "0"], []),
        (["runs", "--workflow="], ["--workflow=w"]),
        (["runs", "--status=Ca"], ["--status=Cancelled"]),
        (["runs", "--status=Failed", "--workflow", ""], ["w"]),
        (["why", "--", "in"], ["inbox", "index"]),
        (["ticks", "--limit=5", "in"], ["inbox", "index"]),
        (["help", "li"], ["limits"]),
    ]:
        assert line.piped("complete", *words).splitlines() == found, words
        assert line.said == ""
    (tmp_path / "runs.db").unlink()
    assert line.piped("complete", "why", "in") == ""
    for shell in ("bash", "zsh", "fish"):
        assert "cloaca complete" in line.piped("completion", shell)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("cloaca why r", ["rare"]),
        ("cloaca why --database=runs.db r", ["rare"]),
        ("cloaca --database sqlite://runs.db  why r", ["rare"]),
        ("cloaca --database=sqlite://runs.db why broken ", ["rare", "broken", "nightly", "ingest"]),
        ("cloaca runs --status=Ca", ["Cancelled"]),
        ("cloaca runs --status=", ["Pending", "Running", "Completed", "Failed", "Cancelled"]),
        ("cloaca runs --status Ca", ["Cancelled"]),
        ("cloaca li", ["limits"]),
    ],
)
def test_bash_completes_by_the_script(tmp_path: Path, typed: str, found: list[str]) -> None:
    # As bash takes a line apart.
    words = [each for each in re.split(r"(?<=[=:])(?![=:/])|(?=[=:])|\s+", typed) if each]
    words += [""] * typed.endswith(" ")
    with served(tmp_path / "runs.db"):
        script = f"""
cloaca() {{ {sys.executable} -m cloaca "$@"; }}
eval "$(cloaca completion bash)"
COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1} COMP_LINE={shlex.quote(typed)}
_cloaca
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert sorted(done.stdout.split()) == sorted(found)


def shown_by(port: int) -> bytes:
    """What the page shows; nothing if it is not there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=WAIT) as answer:
            text: bytes = answer.read()
            return text
    except urllib.error.URLError:
        return b""


def _acts(port: int, run: str) -> None:
    """Retries a run by the page."""
    address = f"http://127.0.0.1:{port}"
    while not shown_by(port):
        pass
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(f"{address}/run?id={run}", timeout=WAIT) as answer:
        text = answer.read().decode()
    found = re.search('name="form_token" value="([^"]+)"', text)
    assert found is not None, text
    form = {"do": f"retry {run}", "form_token": found[1], "back": f"/run?id={run}"}
    wish = urllib.request.Request(f"{address}/act", urlencode(form).encode(), {"Origin": address})
    with opener.open(wish, timeout=WAIT) as answer:
        assert answer.status == 200


def test_a_new_project_works_at_once_and_starts_again_when_it_changes(tmp_path: Path) -> None:
    assert run_command(["new", "demo"], cwd=tmp_path).returncode == 0
    assert run_command(["new", "demo"], cwd=tmp_path).returncode == 2
    assert run_command(["new", "7x"], cwd=tmp_path).returncode == 2
    demo = tmp_path / "demo"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=demo,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    port = free_port()
    with serving(demo, "dev", "--port", str(port)) as process:
        try:
            reads(process, f"http://127.0.0.1:{port}/")
            # Without anybody doing anything.
            while (
                "hello.txt"
                not in run_command(["runs", "--status", "Completed", "--context"], cwd=demo).stdout
            ):
                pass
            (demo / "inbox" / "bad.txt").write_bytes(b"\xff\xfe")
            while "UnicodeDecodeError" not in run_command(["runs", "--failed"], cwd=demo).stdout:
                pass
            assert (demo / "failed" / "bad.txt").exists()
            app = demo / "app.py"
            app.write_text(app.read_text().replace(" lines", " rows"))
            reads(process, "'app.py' changed; starting again")
            reads(process, "serving .*app.py")
            (demo / "inbox" / "again.txt").write_text("hello\n")
            reads(process, "again.txt: 1 rows")
            while not (page := shown_by(port)):
                pass
            assert b"<title>" in page
            assert run_command(["runs", "--failed"], cwd=demo).stdout.count("UnicodeDecodeError") == 1
            _acts(port, run_command(["runs", "--failed"], cwd=demo).stdout.split("\t")[0])
            while "\tpage\t127.0.0.1\tretry\t" not in run_command(["audit"], cwd=demo).stdout:
                pass
            reads(process, r" INFO somebody, from 127\.0\.0\.1: retry ")
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT) == 0
            assert shown_by(port) == b""
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ([], " INFO somebody, from 127\\.0\\.0\\.1: retry {}$"),
        (["--log", "json"], '"logger": "cloaca.ui", "text": "somebody, from 127.0.0.1: retry {}"'),
    ],
)
def test_what_the_page_changes_is_in_its_log(tmp_path: Path, log: list[str], told: str) -> None:
    with cloaca.WorkflowBuilder("ingest"):
        cloaca.task(id="fails", retry_attempts=1)(lambda context: context["nothing"])
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run_id = runner.submit("ingest").id
        assert runner.run(run_id).result(WAIT).status == "Failed"
    port = free_port()
    with serving(tmp_path, "ui", "runs.db", "--act", "--port", str(port), *log) as process:
        try:
            reads(process, f"http://127.0.0.1:{port}/")
            _acts(port, run_id)
            reads(process, told.format(run_id))
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", [["--workers", "1"], ["--workers", "2"], ["--reload"]])
def test_a_program_is_served_until_it_is_told_to_end(tmp_path: Path, how: list[str], number: int) -> None:
    workers = 2 if how[-1] == "2" else 1
    (tmp_path / "app.py").write_text(
        "import cloaca\nwith cloaca.WorkflowBuilder('w'):\n"
        "    @cloaca.task()\n    def t(context): pass\n"
        "def make(): return cloaca.DefaultRunner('runs.db')\n"
    )
    with serving(tmp_path, "run", "app.py:make", *how) as process:
        try:
            for _ in range(workers):
                reads(process, "serving app.py:make")
            told = run_command(["submit", "w", "--app", "app.py", "--wait"], cwd=tmp_path)
            assert (told.returncode, told.stdout.split()[1:]) == (0, ["Completed"]), told.stderr
            assert run_command(["runners"], cwd=tmp_path).stdout.count("living") == workers
            process.send_signal(number)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
    assert run_command(["runners"], cwd=tmp_path).stdout == ""


def test_a_name_with_a_line_end_stays_on_its_line_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import cloaca\nwith cloaca.WorkflowBuilder('line\\nend'):\n"
        "    @cloaca.task(retry_attempts=1)\n    def t(context): raise ValueError('boom')\n"
        "@cloaca.trigger(workflow='line\\nend', poll_interval='20ms')\ndef feed(): return True\n"
    )
    with serving(tmp_path, "run", "app.py", "--database", "runs.db") as process:
        try:
            said = reads(process, "task 't' of workflow")
            assert "workflow 'line\\nend'" in said, said
            assert "Traceback" in reads(process, "Traceback")
        finally:
            process.kill()


DRILL = """
import cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context): pass
@cloaca.trigger(workflow="w", poll_interval="1ms")
def feed():
    return cloaca.TriggerResult.fire({})
"""


@pytest.mark.parametrize("by", ["--database", "CLOACA_DATABASE", "pyproject"])
@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("runner = cloaca.DefaultRunner('real.db')", ""),
        ("runner = cloaca.DefaultRunner('real.db')", ":runner"),
        ("def runner(): return cloaca.DefaultRunner('real.db')", ":runner"),
    ],
)
def test_a_program_whose_runner_is_on_another_store_than_the_line_names_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, own: str, by: str
) -> None:
    (tmp_path / "app.py").write_text(f"{DRILL}{line}\n")
    words = ["run", f"app.py{own}"]
    if by == "pyproject":
        (tmp_path / "pyproject.toml").write_text('[tool.cloaca]\ndatabase = "drill.db"\n')
        by = "[tool.cloaca] database"
    elif by == "--database":
        words += ["--database", "drill.db"]
    else:
        monkeypatch.setenv(by, "drill.db")
    done = run_command(words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"cloaca: {by} names" in done.stderr
    assert "drill.db', and the runner of app.py" in done.stderr
    assert "is on 'real.db'" in done.stderr
    assert not (tmp_path / "drill.db").exists()
    if "def" in line or not own:
        assert not (tmp_path / "real.db").exists(), "nothing was begun there"


def test_a_runner_on_another_store_has_begun_nothing_as_it_is_refused(tmp_path: Path) -> None:
    line = "import time\nrunner = cloaca.DefaultRunner('real.db')\ntime.sleep(0.5)\n"
    (tmp_path / "app.py").write_text(f"{DRILL}{line}")
    done = run_command(["run", "app.py:runner", "--database", "drill.db"], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    with closing(sqlite3.connect(tmp_path / "real.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_function_has_no_runner_on_another_store_begin(tmp_path: Path) -> None:
    lines = "other = cloaca.DefaultRunner('other.db')\n\ndef main():\n    other.resume()\n"
    (tmp_path / "app.py").write_text(f"{DRILL}{lines}")
    done = run_command(["run", "app.py:main", "--database", "real.db"], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--database names 'real.db', and the runner of app.py:main is on 'other.db'" in done.stderr
    assert not run_command(["runs", "--database", "other.db"], cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("own", "more"),
    [("runner = cloaca.DefaultRunner(':memory:')\n", []), ("", ["--database", ":memory:"])],
)
def test_workers_have_no_store_in_memory_each(tmp_path: Path, own: str, more: list[str]) -> None:
    (tmp_path / "app.py").write_text(f"{DRILL}{own}")
    done = run_command(["run", "app.py", "--workers", "2", *more], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("the store of app.py is in memory, which each worker has for itself") == 1


@pytest.mark.parametrize("named", [["--database", "real.db"], []])
def test_another_runner_of_the_program_begins_unless_the_line_names_the_store_of_this_one(
    tmp_path: Path, named: list[str]
) -> None:
    line = "other = cloaca.DefaultRunner('other.db')\nrunner = cloaca.DefaultRunner('real.db')\n"
    (tmp_path / "app.py").write_text(f"{DRILL}{line}")
    with serving(tmp_path, "run", "app.py:runner", *named) as process:
        try:
            told = ""
            if named:
                told = reads(process, "stays paused")
                assert (
                    "a runner of app.py:runner is on 'other.db' and stays paused: --database names 'real.db'"
                    in told
                )
            assert reads(process, "serving app.py:runner on 'real.db'; Ctrl-C")
            for store in ["real.db"] if named else ["other.db", "real.db"]:
                until = time.monotonic() + WAIT
                while not run_command(["runs", "--database", store], cwd=tmp_path).stdout:
                    assert time.monotonic() < until
            if named:
                assert not run_command(["runs", "--database", "other.db"], cwd=tmp_path).stdout
                assert "\tpaused\t" in run_command(["runners", "--database", "other.db"], cwd=tmp_path).stdout
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("target", "more", "own"),
    [
        ("app.py", ["--metrics"], ""),
        ("app.py:nope", [], ""),
        ("app.py:t", [], ""),
        ("app.py", [], "other = cloaca.DefaultRunner('other.db')\n"),
        ("app.py", ["--database", "real.db"], "other = cloaca.DefaultRunner('other.db')\n"),
    ],
)
def test_a_line_that_is_wrong_is_told_before_anything_begins(
    tmp_path: Path, target: str, more: list[str], own: str
) -> None:
    wait = "import time\ntime.sleep(0.5)\n"
    (tmp_path / "app.py").write_text(f"{DRILL}runner = cloaca.DefaultRunner('real.db')\n{own}{wait}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        more = [*more, str(taken.getsockname()[1])] if more == ["--metrics"] else more
        done = run_command(["run", target, *more], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert [each[:8] for each in done.stderr.splitlines() if " INFO " not in each] == ["cloaca: "]
    for store in ("real.db", "other.db"):
        if (tmp_path / store).exists():
            with closing(sqlite3.connect(tmp_path / store)) as database:
                assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)


@pytest.mark.parametrize(
    "own",
    [
        "runner = cloaca.DefaultRunner('real.db')\nrunner.execute('w', {})\n",
        "with cloaca.DefaultRunner('real.db') as runner:\n"
        "    while not runner.list_runs():\n        pass\n"
        "    runner.run_forever()\n",
        "runner = cloaca.DefaultRunner('real.db')\nrunner.run_forever()\n",
    ],
)
def test_what_a_program_has_done_as_it_is_imported_is_done(tmp_path: Path, own: str) -> None:
    (tmp_path / "app.py").write_text(f"{DRILL}{own}print('is there', flush=True)\n")
    with serving(tmp_path, "run", "app.py", "--database", "real.db") as process:
        try:
            until = time.monotonic() + WAIT
            while "Completed" not in run_command(["runs", "--database", "real.db"], cwd=tmp_path).stdout:
                assert time.monotonic() < until
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT)
        finally:
            process.kill()


def test_a_program_that_is_on_the_store_that_the_line_names_is_served_and_the_log_names_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(f"{DRILL}runner = cloaca.DefaultRunner('real.db')\n")
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real.db")
    for store in ("sqlite://real.db", str(tmp_path / "real.db"), "link.db"):
        with serving(tmp_path, "run", "app.py:runner", "--database", store) as process:
            try:
                assert reads(process, "serving app.py:runner on 'real.db'; Ctrl-C")
                # By then it hears signals.
                assert "living" in run_command(["runners", "--database", "real.db"], cwd=tmp_path).stdout
                process.send_signal(signal.SIGTERM)
                assert process.wait(WAIT) == 0
            finally:
                process.kill()


def test_a_server_of_this_machine_is_one_store_by_each_of_its_names() -> None:
    names = ["localhost/app", "127.0.0.1:5432/app", "[::1]/app", "/app?host=/var/run/postgresql"]
    for name in names:
        assert is_same("postgresql://me@localhost/app", f"postgresql://me@{name}")
    for other in ("localhost/test", "localhost:5433/app", "elsewhere/app", "/app?host=/run&port=5433"):
        assert not is_same("postgresql://me@localhost/app", f"postgresql://me@{other}"), other


@pytest.mark.parametrize(
    ("target", "own"),
    [
        ("app.py", "runner = cloaca.DefaultRunner('real.db')"),
        ("app.py:make", "def make(): return cloaca.DefaultRunner('real.db')"),
    ],
)
def test_workers_that_are_on_another_store_end_the_command(tmp_path: Path, target: str, own: str) -> None:
    # The one that says why comes last.
    late = "import os, time\ntime.sleep(0.5 * (os.environ.get('CLOACA_WORKER') == 'tells'))\n"
    (tmp_path / "app.py").write_text(f"{DRILL}{late}{own}\n")
    done = run_command(["run", target, "--workers", "2", "--database", "drill.db"], cwd=tmp_path)
    assert done.returncode == 2
    alone = run_command(["run", target, "--database", "drill.db"], cwd=tmp_path)
    assert done.stderr == alone.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "real.db").exists()


WORKER = """
import os, sys, cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context): pass
"""


def living_pids(folder: Path) -> list[int]:
    told = run_command(["runners", "--json"], cwd=folder).stdout.splitlines()
    return [each["pid"] for each in map(json.loads, told) if each["state"] == "living"]


@pytest.mark.skipif(os.name != "posix", reason="there are no signals")
def test_a_worker_that_dies_is_told_of_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(WORKER)
    with serving(tmp_path, "run", "app.py", "--workers", "2", "--database", "runs.db") as process:
        try:
            for _ in range(2):
                reads(process, "serving app.py")
            for _ in range(2):
                killed = living_pids(tmp_path)[0]
                os.kill(killed, signal.SIGKILL)
                told = reads(process, f"process {killed}")
                assert re.search(r"cloaca: worker [12] \(process \d+\) was killed by signal 9", told), told
                reads(process, "serving app.py")
                assert len(living_pids(tmp_path)) == 2
            ended = living_pids(tmp_path)[0]
            os.kill(ended, signal.SIGTERM)
            assert "has ended, and none takes its place" in reads(process, f"cloaca: .*process {ended}")
            assert len(living_pids(tmp_path)) == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
    assert run_command(["runners"], cwd=tmp_path).stdout == ""


def test_workers_that_die_at_once_again_and_again_are_given_up(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os\nprint('came', flush=True)\nos._exit(7)\n")
    done = run_command(["run", "app.py", "--workers", "2"], cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("came") == 10
    assert done.stderr.count("ended with exit code 7; another begins") == 10
    assert "every worker died within 10 s, 5 times in a row; giving up" in done.stderr


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import cloaca\ndef f(:\n", "SyntaxError"),
        ("import cloaca\nfrom cloaca import nothing\n", "ImportError"),
        ("import nothing_such\n", "No module named 'nothing_such'; install what it needs"),
        ("import other\n", "ZeroDivisionError"),
    ],
)
def test_workers_that_cannot_import_the_program_are_given_up_at_once(
    tmp_path: Path, program: str, told: str
) -> None:
    (tmp_path / "app.py").write_text(program)
    (tmp_path / "other.py").write_text("try:\n    {}['a']\nexcept KeyError:\n    1 / 0\n")
    for words in (["--workers", "3"], ["--workers", "3", "--log", "json"], []):
        done = run_command(["run", "app.py", *words], cwd=tmp_path)
        assert done.returncode == 1
        assert "app.py cannot be imported: " in done.stderr
        assert told in done.stderr
        assert done.stderr.count("cannot be imported") == 1
        assert done.stderr.count("  File ") <= (3 if "other" in program else 1), done.stderr
        assert "another begins" not in done.stderr
        assert "importlib" not in done.stderr
        assert ("no worker could import the program; giving up" in done.stderr) == bool(words)
        lines = [line for line in done.stderr.splitlines() if "worker " in line]
        if "json" in words:
            assert all(json.loads(line)["level"] == "WARNING" for line in lines)
        else:
            assert all(
                re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING cloaca: ", line) for line in lines
            )


def test_a_worker_that_alone_cannot_import_the_program_is_replaced(tmp_path: Path) -> None:
    first = """
try:
    open("taken", "x")
except FileExistsError:
    if not os.path.exists("again"):
        open("again", "x")
        raise RuntimeError("the port is taken") from None
"""
    (tmp_path / "app.py").write_text(WORKER + first)
    with serving(tmp_path, "run", "app.py", "--workers", "2", "--database", "runs.db") as process:
        try:
            for _ in range(2):
                reads(process, "serving app.py")
            assert len(living_pids(tmp_path)) == 2
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()


def test_workers_that_are_called_wrongly_are_not_called_again(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x = 1\n")
    done = run_command(["run", "app.py", "--workers", "2"], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("cloaca: app.py declares no trigger and no workflow")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="there are no signals")
def test_a_runner_that_only_the_main_program_makes_is_told_of(tmp_path: Path) -> None:
    made = """
if __name__ == "__main__":
    with cloaca.DefaultRunner("runs.db", workflow_timeout="30d") as runner:
        runner.run_forever()
"""
    (tmp_path / "app.py").write_text(WORKER + made)
    done = run_command(["run", "app.py"], cwd=tmp_path)
    assert done.returncode == 2
    assert "which store?" in done.stderr
    assert "app.py makes its runner under `if __name__ == ...`" in done.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "cloaca", "run", "app.py", "--database", "runs.db"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    assert "app.py makes its runner" in line
    assert "it is served with default settings" in line


@pytest.mark.skipif(os.name != "posix", reason="there are no signals")
def test_workers_that_have_done_what_there_is_to_do_end_well(tmp_path: Path) -> None:
    # Told again and again, so that it is heard once it serves.
    told = """
import signal, threading, time
signal.signal(signal.SIGTERM, lambda *_: None)
def tell():
    while True:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=tell, daemon=True).start()
"""
    (tmp_path / "app.py").write_text(WORKER + told)
    done = run_command(["run", "app.py", "--workers", "2", "--database", "runs.db"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has ended, and none takes its place") == 2


def test_what_cannot_be_served_is_told(line: Line, tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text("x = 1\n")
    for words, told in [
        (["run"], "what to run?"),
        (["run", "none.py"], "there is no file 'none.py'"),
        (["run", "nomodule"], "there is no module 'nomodule' here"),
        (["run", "nothing.py"], "nothing.py declares no trigger and no workflow"),
        (["run", "nothing.py:x"], "nothing.py has no runner 'x'"),
        (["run", "nothing.py:"], "write a module or a file"),
        (["run", "nothing.py", "--workers", "0"], "--workers is 0"),
        (["dev"], "what to run?"),
    ]:
        line.piped(*words, code=2)
        assert told in line.said, words


def test_a_workflow_that_a_living_runner_declares_needs_no_earlier_run(line: Line, tmp_path: Path) -> None:
    program = (
        "import cloaca, time\n"
        "with cloaca.WorkflowBuilder('fresh'):\n"
        "    cloaca.task(id='only')(lambda context: None)\n"
        "runner = cloaca.DefaultRunner('runs.db')\n"
        "while not runner.query('SELECT 1 FROM workflows'):\n"
        "    time.sleep(0.01)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            ((_, status, _),) = fields(line.piped("submit", "fresh", "--wait"))
            assert status == "Completed"
        finally:
            process.kill()


def test_limits_and_workflows_are_paused_and_resumed_beside_a_living_runner(
    line: Line, tmp_path: Path
) -> None:
    with cloaca.WorkflowBuilder("sync"):
        limit = cloaca.Limit("github-api", concurrency=2, throttle=cloaca.Throttle(60, per="1m", burst=5))
        cloaca.task(id="call", limits=[limit])(lambda context: None)
    line.monkeypatch.chdir(tmp_path)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        deadline = time.monotonic() + WAIT
        while not line.piped("limits"):  # what was declared a moment ago is not on record yet
            assert time.monotonic() < deadline
        assert line.piped("pause", "--limit", "github-api") == "paused\tgithub-api\n"
        assert line.said.splitlines()[-1] == (
            "until `cloaca resume --limit github-api`; what has begun goes on"
        )
        shown_limit = fields(line.piped("limits"))[0][1:7]
        assert shown_limit == ["github-api", "0", "2", "0", "", "60 per 1m, burst 5"]
        run = runner.submit("sync")
        while "waits for a seat of limit 'github-api'" not in line.piped("why", run.id):
            assert time.monotonic() < deadline
        assert f"is paused, by {user()}, by the command line" in line.piped("why", run.id)
        shown = json.loads(line.piped("limits", "--json").splitlines()[0])
        assert (shown["waiting"], shown["pause"]["what"]) == (1, "limit")
        assert line.piped("resume", "--limit", "github-api") == "resumed\tgithub-api\n"
        assert "limit 'github-api' lets attempts begin again: " in line.said
        assert run.result(WAIT).status == "Completed"
        line.piped("resume", "--limit", "github-api", code=1)
        assert "is not paused" in line.said
        assert line.piped("pause", "--workflow", "sync", "--for", "1h") == "paused\tsync\n"
        until = (
            r"until [-\d]+ [:\d]+ UTC, or `cloaca resume --workflow sync` before; what has begun goes on\n"
        )
        assert re.search(until, line.said)
        # Another process hears of it within moments.
        while "workflow 'sync' is paused until" not in line.piped("why", (held := runner.submit("sync")).id):
            assert time.monotonic() < deadline
        assert fields(line.piped("limits"))[-1][:3] == ["pause", "workflow", "sync"]
        line.piped("resume", "--workflow", "sync")
        assert "workflow 'sync' is declared by runner 1; " in line.said
        assert held.result(WAIT).status == "Completed"
    for words, told in (
        ([], "one of them"),
        (["--key", "acme", "--limit", "github-api"], "--key goes with --workflow"),
        (["--workflow", "sync", "--limit", "github-api"], "one of them"),
        (["--workflow", "sync", "--for", "1h", "--until", "2099-01-01"], "not both"),
        (["--workflow", "sync", "--until", "2001-01-01"], "which is over"),
        (["--workflow", "sync", "--until", "9999-12-31T00:00Z"], "to 9999-12-30T22:00:00Z"),
        (["--workflow", "sync", "--until", "tomorrow"], "--until is 'tomorrow'; write a time such as"),
        (["--workflow", "sync", "--for", "never"], "--for"),
    ):
        line.piped("pause", *words, code=2)
        assert told in line.said
    line.piped("pause", "--limit", "github-ap", code=4)
    assert "did you mean 'github-api'" in line.said
    line.piped("pause", "--workflow", "snyc", code=4)
    assert "workflow 'snyc' not found" in line.said
    line.piped("pause", "--workflow", "sync", "--key", "acme", code=1)
    assert "workflow 'sync' has no keys to pause" in line.said


def test_a_key_is_paused_and_resumed_beside_a_living_runner(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(1, key="tenant")):
        cloaca.task(id="call")(lambda context: None)
    line.monkeypatch.chdir(tmp_path)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        assert runner.execute("sync", {"tenant": "acme"}).status == "Completed"
        said = line.piped("pause", "--workflow", "sync", "--key", "acme", "--for", "1h")
        assert said == "paused\tsync\tacme\n"
        assert fields(line.piped("limits"))[-1][:4] == ["pause", "workflow", "sync", "acme"]
        run = runner.submit("sync", {"tenant": "acme"})
        assert runner.execute("sync", {"tenant": "other"}).status == "Completed"
        assert "key 'acme' of workflow 'sync' is paused until" in line.piped("why", run.id)
        told = json.loads(
            line.piped("pause", "--workflow", "sync", "--key", "acme", "--until", "2099-01-01", "--json")
        )
        assert (told["key"], told["until"]) == ("acme", "2099-01-01T00:00:00.000000Z")
        assert "or `cloaca resume --workflow sync --key acme` before" in line.said
        line.piped("resume", "--workflow", "sync", code=1)
        assert "workflow 'sync' is not paused" in line.said
        line.piped("pause", "--workflow", "sync", "--key", "acmee", code=4)
        assert "has the key 'acmee'; did you mean 'acme'? known keys: acme, other; give --yes" in line.said
        assert line.piped("pause", "--workflow", "sync", "--key", "new", "--yes") == "paused\tsync\tnew\n"
        said = line.piped("resume", "--workflow", "sync", "--key", "acme", "--json")
        assert json.loads(said) == {"kind": "resumed", "of": "sync", "key": "acme"}
        assert run.result(WAIT).status == "Completed"


ASKED = """
import sys
import cloaca

with cloaca.WorkflowBuilder("ingest"):

    @cloaca.task(id="only")
    def only(context):
        pass

@cloaca.trigger(workflow="ingest", poll_interval="1h")
def inbox():
    return cloaca.TriggerResult.fire()

@cloaca.trigger(workflow="ingest", poll_interval="1h", on_error=cloaca.Backoff("30m"))
def feed():
    raise ConnectionError("no route")

cloaca.trigger(workflow="ingest", name="quiet", poll_interval="1h")(lambda: False)
cloaca.trigger(workflow="ingest", name="says", poll_interval="1h")(
    lambda: cloaca.TriggerResult.skip("inbox empty")
)
cloaca.trigger(workflow="ingest", name="nightly", cron="@daily")(lambda: None)
cloaca.trigger(workflow="ingest", name="off", poll_interval="1h")(lambda: False)

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    runner.set_trigger_enabled("off", False)
    runner.poll_soon("feed")
    while not runner.ticks("feed"):
        pass
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_trigger_is_polled_now_while_its_runner_waits(line: Line, tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", ASKED, str(tmp_path / "runs.db")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert fields(line.piped("poll", "inbox"))[0][:3] == ["polled", "inbox", "fire"]
        until = time.monotonic() + WAIT
        while "Completed" not in line.piped("runs", "--workflow", "ingest"):
            assert time.monotonic() < until
        record = json.loads(line.piped("poll", "feed", "--json"))
        assert (record["kind"], record["of"], record["outcome"]) == ("polled", "feed", "error")
        assert "no route" in record["reason"]
        assert "2 failed polls" in line.piped("why", "feed")
        for _ in range(2):
            assert fields(line.piped("poll", "quiet"))[0][:3] == ["polled", "quiet", "skip"]
            assert "inbox empty" in line.piped("poll", "says")
        line.piped("poll", "inbx", code=4)
        assert "did you mean 'inbox'" in line.said
        line.piped("poll", "nightly", code=1)
        assert "is a cron" in line.said
        assert "`cloaca submit ingest`" in line.said
        line.piped("poll", "off", code=1)
        assert "'off' is switched off" in line.said
        rows = [(row[2], row[4], row[5]) for row in fields(line.piped("audit"))]
        asked = ["says", "quiet", "says", "quiet", "feed", "inbox"]
        assert rows == [("cli", "poll", name) for name in asked]
        program.communicate()
    line.piped("poll", "inbox", code=1)
    assert "nor by another living runner" in line.said


TOLD = """
import sys
import cloaca

for name in ("ingest", "alert"):
    with cloaca.WorkflowBuilder(name):

        @cloaca.task(id="only", retry_attempts=1)
        def only(context):
            pass

cloaca.trigger(workflow="alert", name="polled", poll_interval="1h")(lambda: False)

@cloaca.trigger(workflow="alert", on_run="ingest", on_error=cloaca.Backoff("30m"))
def watch(run):
    return cloaca.TriggerResult.fire({"file": run["context"]["file"]})

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    runner.execute("ingest", {"fil": "slip"})
    while not runner.ticks("watch"):
        pass
    runner.execute("ingest", {"file": "good"})
    runner.execute("ingest", {"fil": "second slip"})
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_an_end_that_a_trigger_fails_at_is_skipped_while_its_runner_waits(line: Line, tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", TOLD, str(tmp_path / "runs.db")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        second, _, first = (row[0] for row in fields(line.piped("runs", "--workflow", "ingest")))
        told = line.piped("why", "watch")
        assert f"that of run {first} first" in told
        assert "; `cloaca skip watch` has it go on without that one" in told
        # Nothing happens that was not confirmed, or is not there.
        line.piped("skip", "watch", code=2)
        assert (
            f"this would skip the end of run {first}, of which trigger 'watch' is then not told" in line.said
        )
        line.piped("skip", "wach", "--yes", code=4)
        assert "did you mean 'watch'" in line.said
        line.piped("skip", "polled", "--yes", code=1)
        assert "trigger 'polled' is not told of ends of runs" in line.said
        line.piped("skip", "watch", "--run", "nonsense", "--yes", code=4)
        assert line.piped("skip", "watch", "--run", second[:13], "--yes") == f"skipped\twatch\t{second}\n"
        line.piped("skip", "watch", "--run", second, "--yes", code=4)
        assert f"no end of run {second} waits for trigger 'watch'" in line.said
        record = json.loads(line.piped("skip", "watch", "--yes", "--json"))
        assert record == {"kind": "skipped", "of": "watch", "run": first}
        until = time.monotonic() + WAIT
        while "Completed" not in line.piped("runs", "--workflow", "alert"):
            assert time.monotonic() < until
        line.piped("skip", "watch", "--yes", code=4)
        assert "no end of a run waits for trigger 'watch'" in line.said
        rows = fields(line.piped("audit"))
        assert {(row[1], row[2]) for row in rows} == {(user(), "cli")}
        noted = [(row[4], row[5]) for row in reversed(rows)]
        assert noted == [("skip", about) for run in (second, first) for about in ("watch", run)]
        assert "skip_end" not in line.piped("why", "watch")
        program.communicate()


TELLS = """
import sys

import cloaca


def alert(run):
    raise ConnectionError("the other side is away")


with cloaca.WorkflowBuilder("ingest").on_failure(alert):

    @cloaca.task(retry_attempts=1)
    def load(context):
        raise ValueError("no file")


with cloaca.DefaultRunner(sys.argv[1]) as runner:
    for _ in range(3):
        runner.execute("ingest")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_callbacks_that_wait_are_listed_called_and_dropped(line: Line, tmp_path: Path) -> None:
    pipe, url = subprocess.PIPE, str(tmp_path / "runs.db")
    command = [sys.executable, "-c", TELLS, url]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        ids = [row[0] for row in fields(line.piped("runs", "--untold"))]
        assert len(ids) == 3

        def calls(run_id: str) -> int:
            with reading.Reader(url) as reader:
                (call,) = reading.run(reader, run_id).callbacks
                return call.attempts if call.begun_at is None else 0

        def after(run_id: str, many: int) -> None:
            until = time.monotonic() + WAIT
            while calls(run_id) < many:
                assert time.monotonic() < until

        # Their next pauses are long enough for what comes.
        for _ in range(4):
            before = [calls(each) or 1 for each in ids]
            assert "asked" in line.piped("tell", "--all")
            for each, many in zip(ids, before, strict=True):
                after(each, many + 1)
        assert line.piped("tell", ids[0][:13]) == f"asked\t{ids[0]}\n"
        assert json.loads(line.piped("tell", ids[1], "--json")) == {"kind": "asked", "of": ids[1]}
        line.piped("skip", "--run", ids[2], code=2)
        assert f"this would drop on_failure of run {ids[2]}" in line.said
        assert line.piped("skip", "--run", ids[2], "--yes") == f"skipped\ton_failure\t{ids[2]}\n"
        line.piped("skip", "--run", ids[2], "--yes", code=1)
        assert f"no callback of run {ids[2]} waits: on_failure was skipped at 2" in line.said
        line.piped("tell", ids[2], code=1)
        assert f"no callback of run {ids[2]} waits: on_failure was skipped at 2" in line.said
        assert [row[0] for row in fields(line.piped("runs", "--untold"))] == ids[:2]
        assert "on_failure  was skipped at " in line.shown("show", ids[2])
        record = next(row for row in fields(line.piped("show", ids[2])) if row[0] == "callback")
        assert record[1:3] == ["on_failure", "skipped"]
        for words in ("skip", "skip --yes", "tell", f"tell {ids[0]} --all", "tell --workflow w"):
            line.piped(*words.split(), code=2)
        noted = {(row[4], row[5]) for row in fields(line.piped("audit"))}
        assert {("tell", ids[0]), ("skip", ids[2])} <= noted
        program.communicate()


def test_callbacks_that_keep_failing_are_told_of_where_one_looks(line: Line, tmp_path: Path) -> None:
    url = tmp_path / "runs.db"

    def alert(run: Any) -> None:
        raise ConnectionError("the other side is away")

    with cloaca.WorkflowBuilder("ingest").on_success(alert):
        cloaca.task(id="load")(lambda context: None)
    with cloaca.DefaultRunner(url) as runner:
        ids = [runner.submit("ingest").id for _ in range(2)]
        until = time.monotonic() + WAIT
        while [len(runner.get_run(each)["callbacks"]) for each in ids] != [1, 1] or any(
            runner.get_run(each)["callbacks"][0]["attempts"] < 2 for each in ids
        ):
            assert time.monotonic() < until
        found = {row[1]: row for row in fields(line.piped("doctor"))}
        assert found["callbacks"][:3] == [
            "ok",
            "callbacks",
            "none keeps failing, or was given up within a day",
        ]
        line.monkeypatch.setattr("cloaca.reading.attention.CALLBACKS_SECONDS", 0.0)
        found = {row[1]: row for row in fields(line.piped("doctor"))}
        level, _, text, way_out = found["callbacks"]
        assert level == "warn"
        assert text.startswith(
            "2 ends of runs of workflow 'ingest' whose callback keeps failing, first that of run"
            f" {ids[0]}, since 2"
        )
        assert text.endswith("calls: 'ConnectionError: the other side is away'")
        assert "cloaca tell RUN" in way_out
        assert "cloaca skip --run RUN" in way_out
        told = line.piped("why", "ingest")
        assert f"2 of its runs have ended whose callbacks keep failing, first that of run {ids[0]}" in told
        assert "ConnectionError: the other side is away" in told
        # What callbacks tell may be away, and the runner works all the same.
        line.piped("health")


def at_once(*numbers: int) -> None:
    """Those signals at one instant."""
    if len(numbers) == 1:
        signal.raise_signal(numbers[0])
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.pthread_kill(threading.get_ident(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


TOGETHER = [
    pytest.param(names, marks=pytest.mark.skipif(os.name != "posix", reason="one is held back for another"))
    for names in ("SIGHUP SIGTERM", "SIGINT SIGTERM", "SIGHUP SIGINT SIGTERM")
]


@pytest.mark.parametrize("by", ["SIGINT", "SIGTERM", "SIGHUP", *TOGETHER])
@pytest.mark.parametrize("verb", ["retry", "cancel"])
def test_who_interrupts_a_change_of_many_runs_is_told_what_was_done(
    line: Line, monkeypatch: pytest.MonkeyPatch, verb: str, by: str
) -> None:
    numbers = [getattr(signal, name, signal.SIGINT) for name in by.split()]
    number = numbers[0]
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def fail(context: cloaca.Context) -> None:
            raise OSError("no")

    with cloaca.DefaultRunner("runs.db") as runner:
        if verb == "cancel":
            runner.pause(workflow="w")
        runs = runner.submit_many("w", [{"n": n} for n in range(5)])
        if verb == "retry":
            assert {run.result(WAIT).status for run in runs} == {"Failed"}

    def told(*words: Any) -> None:
        at_once(*numbers)
        monkeypatch.setattr(change, "_told", before)
        before(*words)

    before = change._told
    monkeypatch.setattr(change, "_told", told)
    monkeypatch.setattr(change, "BATCH", 2)
    # What is read of each run would be read before the first one ends.
    monkeypatch.setattr(reading, "run", None)
    ids = [row[1] for row in fields(line.piped(verb, "--all", "--workflow", "w", "--yes", code=128 + number))]
    assert len(ids) == 2
    assert (
        f"interrupted when 2 of 5 were {'opened again' if verb == 'retry' else 'asked to end'}" in line.said
    )
    audited = [row[5] for row in fields(line.piped("audit")) if row[4] == verb]
    assert sorted(audited) == sorted(ids)
    assert not unraisable


SECOND = """
import os, signal, sys
from cloaca.cli.finishing import Finishing

with Finishing() as finishing:
    for name in sys.argv[1:]:
        signal.raise_signal(getattr(signal, name))
    print("goes on", flush=True)
    if finishing.is_asked:
        finishing.leave()
"""


@pytest.mark.skipif(os.name != "posix", reason="there are no signals")
@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("SIGTERM SIGTERM", -signal.SIGTERM),
        ("SIGINT SIGTERM", -signal.SIGTERM),
        ("SIGHUP SIGTERM", 128 + 1),
        ("SIGTERM SIGHUP", 128 + signal.SIGTERM),
        ("SIGHUP SIGHUP", 128 + 1),
        ("SIGHUP SIGTERM SIGTERM", -signal.SIGTERM),
    ],
)
def test_a_second_signal_waits_for_no_step_but_the_end_of_the_terminal_is_none(names: str, code: int) -> None:
    words = [sys.executable, "-c", SECOND, *names.split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (code, "goes on\n" if code > 0 else ""), done.stderr


@pytest.mark.parametrize("by", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("words", ["cancel --all", "prune --before 1s"])
def test_who_interrupts_it_before_anything_is_changed_is_told_so(
    line: Line, monkeypatch: pytest.MonkeyPatch, words: str, by: str
) -> None:
    number = getattr(signal, by, signal.SIGINT)
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner("runs.db") as runner:
        run = runner.submit("w", delay="1h" if words.startswith("cancel") else None)
        if words.startswith("prune"):
            run.result(WAIT)
            while runner.query("SELECT 1 FROM runs WHERE completed_at > (unixepoch('subsec') - 1.01) * 1e6"):
                pass
    before = change.ask

    def asks(what: str, arguments: Any) -> None:
        signal.raise_signal(number)
        before(what, arguments)

    monkeypatch.setattr(change, "ask", asks)
    assert line.piped(*words.split(), "--yes", code=128 + number) == ""
    assert re.search(r"interrupted when 0 (of 1 )?were ", line.said), line.said
    assert "Completed" in line.piped("runs") or "Pending" in line.piped("runs")


@pytest.mark.parametrize("by", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_who_waits_for_a_run_no_longer_knows_which_it_is(tmp_path: Path, by: str) -> None:
    number = getattr(signal, by, signal.SIGINT)
    with served(tmp_path / "runs.db"):
        words = ["submit", "ingest", "--context", '{"file": "slow"}', "--wait"]
        waits = subprocess.Popen(
            [sys.executable, "-m", "cloaca", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (slow := fields(run_command(["runs", "--status", "Running"], cwd=tmp_path).stdout)):
            pass
        waits.send_signal(number)
        out, said = waits.communicate(timeout=WAIT)
    assert (waits.returncode, out) == (128 + number, "")
    goes_on = f"cloaca: run {slow[0][0]} goes on; `cloaca show {slow[0][0]} --wait` waits for it"
    assert said.splitlines()[1:] == [goes_on]


def test_all_that_stand_so_are_meant_by_the_words_that_list_them(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t", retry_attempts=1)(lambda context: context["nothing"])
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.submit("w")
        failed = run.id
        assert run.result(WAIT).status == "Failed"
        late = runner.submit("w", delay="1h").id
        waiting = runner.submit("w", delay="1h").id
    line.piped("cancel", "--all", "--status", "Running", "--yes", code=4)
    assert line.piped("cancel", late) == f"cancelled\t{late}\n"
    assert fields(line.piped("runs", "--status", "Cancelled"))[0][0] == late
    for words in (["--failed"], ["--status", "Failed"], ["--failed", "--status", "Failed"]):
        line.piped("retry", "--all", *words, code=2)
        assert "this would retry 1 run; give --yes" in line.said
    assert line.piped("retry", "--all", "--failed", "--yes") == f"retried\t{failed}\n"
    line.piped("retry", "--all", "--failed", "--yes", code=4)
    assert line.piped("retry", "--all", "--status", "Cancelled", "--yes") == f"retried\t{late}\n"
    line.piped("retry", "--all", "--failed", "--status", "Cancelled", "--yes", code=2)
    assert "exclude each other" in line.said
    for words in (["--failed"], [failed, "--failed"], [failed, "--status", "Failed"]):
        line.piped("retry", *words, code=2)
        assert "name the runs to retry, or give --all" in line.said
    line.piped("cancel", waiting, "--status", "Pending", code=2)
    assert waiting in line.piped("cancel", "--all", "--status", "Pending", "--yes")
    assert "--failed\n" in line.piped("complete", "retry", "--all", "--f")
    assert line.piped("complete", "retry", "--all", "--status", "") == "Failed\nCancelled\n"


@pytest.mark.parametrize(
    "words", [["submit", "w", "--wait"], ["show", "", "--wait"], ["logs", "", "--follow"]]
)
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_who_waits_for_a_run_is_told_that_its_store_is_gone(
    line: Line, monkeypatch: pytest.MonkeyPatch, words: list[str], how: str
) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner("runs.db") as runner:
        runner.execute("w", {})
    # Nobody serves it any more.
    with cloaca.DefaultRunner("runs.db", work=False) as client:
        run_id = client.submit("w", {"n": 1}).id
    sleeps = time.sleep

    def sleep(seconds: float) -> None:
        if Path("runs.db").exists() and not Path("aside.db").exists():
            Path("runs.db").rename("aside.db")
            if how == "replaced":
                Path("runs.db").write_bytes(Path("aside.db").read_bytes())
        sleeps(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    line.piped(*(word or run_id for word in words), code=3)
    assert "was deleted, moved or replaced meanwhile" in line.said
    assert "goes on" not in line.said
