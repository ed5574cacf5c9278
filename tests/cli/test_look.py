"""The commands that only look, beside a living process: for people, for a pipe and as JSON."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stage import HOSTILE, Line, fields, run_command, served, steady

import cloaca


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_ls_shows_what_each_does_the_failing_ones_first(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        os.environ["NO_COLOR"] = "1"
        told = steady(line.shown("ls"))
        del os.environ["NO_COLOR"]
        rows = [text.split() for text in told.splitlines()]
        assert [row[0] for row in rows if len(row) == 1] == ["triggers", "crons", "workflows", "runners"]
        assert rows[1] == ["NAME", "STATE", "EVERY", "WORKFLOW", "POLLED", "NEXT", "LAST"]
        assert rows[2][:4] == ["broken", "failing", "20ms", "ingest"]
        assert rows[2][-5:] == ["OSError:", "the", "share", "is", "gone"]
        assert rows[3][:2] == ["rare", "polled"]
        assert ["nightly", "scheduled", "0", "3", "*", "*", "*", "UTC", "ingest", "TIME"] in rows
        assert rows[-1][:3] == ["1", "living", "0"]
        assert "\x1b" not in told
        assert "store: 'runs.db', the only one in this folder" in line.said
        assert "\x1b[31mfailing\x1b[0m" in line.shown("ls", "triggers")
        piped = fields(line.piped("ls"))
        assert [row[:3] for row in piped] == [
            ["trigger", "broken", "failing"],
            ["trigger", "rare", "polled"],
            ["cron", "nightly", "scheduled"],
            ["workflow", "ingest", "Failed"],
            ["runner", "1", "living"],
        ]
        found = records(line.piped("ls", "--json"))
        assert [each["kind"] for each in found] == ["trigger", "trigger", "cron", "workflow", "runner"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ls_tells_of_a_runner_that_says_nothing(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db") as process:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(tmp_path / "runs.db")) as store, store:
                store.execute(
                    "UPDATE owners SET seen_at = seen_at - 60000000, joined_at = joined_at - 60000000"
                )
            told = {row[1]: row for row in fields(line.piped("ls"))}
            assert (told["rare"][2], told["rare"][7]) == ("silent", "")
            assert told["1"][2] == "silent"
            (found,) = records(line.piped("runners", "--json"))
            assert (found["state"], found["is_silent"]) == ("living", True)
            assert "is due" not in line.piped("why", "rare")
        finally:
            os.kill(process.pid, signal.SIGCONT)


SCHEMA = {
    "trigger": "created_at cursor disabled_at disabled_cause enabled failures in_body_since kind last "
    "last_fired_at last_poll_at next_poll_at on_run on_run_status poll_interval_ms runner state trigger_name "
    "updated_at workflow_name",
    "cron": "created_at cron_expression disabled_at enabled id in_body_since kind last last_run_at "
    "next_run_at state timezone trigger_name updated_at workflow_name",
    "workflow": "delayed kind last_error last_run_at last_status oldest_at paused paused_keys pending "
    "runners running workflow_name",
    "runner": "host is_silent joined_at kind last_hour left_at name number pid polls runs seen_at state "
    "version works",
    "run": "cancel_requested completed_at context created_at due_at error_message error_type id kind "
    "lain_seconds parent_kind parent_run parent_task priority run_key started_at status took_seconds "
    "trigger_name workflow_name",
    "tick": "count first_at kind last_at max_us mean_us min_us outcome reason",
    "why": "kind name text",
    "log": "at attempt callback error kind level logger number task text",
    "limit": "concurrency is_set kind name next_at pause taken throttle waiting waits_since",
    "pause": "by key kind name since until what",
    "metric": "about kind labels name value",
    "health": "at kind ok oldest_seconds reasons runners runs_waiting",
    "finding": "kind level subject text way_out",
}
DETAILS = "callbacks cancelled_by children final_context graph is_living last_callback runner tasks trace_id"


def test_json_has_the_same_names_every_time(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        for words in (
            ["ls"],
            ["runs"],
            ["runs", "--context"],
            ["runners", "--left"],
            ["ticks", "broken"],
            ["why", "rare"],
            ["doctor"],
            ["limits"],
            ["health"],
            ["metrics"],
        ):
            for found in records(line.piped(*words, "--json")):
                names = SCHEMA[str(found["kind"])]
                # What was not asked for is left out: it is not nothing.
                names = names.replace(" context", "") if words == ["runs"] else names
                assert " ".join(sorted(found)) == names, words
        (failed,) = records(line.piped("runs", "--failed", "--json"))
        (whole,) = records(line.piped("show", str(failed["id"]), "--json"))
        assert set(whole) == {*SCHEMA["run"].split(), *DETAILS.split()}
        (with_both,) = fields(line.piped("runs", "--failed", "--context"))
        assert "no price" in with_both[7]
        assert json.loads(with_both[8])["file"] == "bad"
        assert "CONTEXT" in line.shown("runs", "--failed", "--context")
        assert "CONTEXT" not in line.shown("runs", "--failed")
        line.piped("runs", "--limit", "1")
        assert "there may be more: --after" in line.said
        (with_context,) = records(line.piped("runs", "--failed", "--json", "--context"))
        assert with_context["context"] == {"file": "bad"}


def test_runs_are_filtered_and_paged(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        failed, good = fields(line.piped("runs"))
        assert (failed[1:3], good[1:3]) == (["ingest", "Failed"], ["ingest", "Completed"])
        assert failed[-1] == "task 'archive' failed: ValueError: no price"
        assert fields(line.piped("runs", "--limit", "1", "--after", failed[0][:23])) == [good]
        assert fields(line.piped("runs", "--all", "--status", "Completed", "--since", "1h")) == [good]
        assert line.piped("runs", "--since", "2090-01-01") == ""
        assert line.piped("runs", "--until", "2020-01-01T00:00:00Z") == ""
        assert line.piped("runs", "--error", "OSError") == ""
        shown = steady(line.shown("runs", "--limit", "1"))
        # Columns that nothing stands in are left out.
        assert "TRIGGER" not in shown
        assert "there may be more: --after ID" in steady(line.said)
        assert "none" in line.shown("runs", "--workflow", "other", code=4)
        assert "workflow 'other' not found" in line.said
        assert line.piped("runs", "--workflow", "ingst", code=4) == ""
        assert "did you mean 'ingest'?" in line.said
        assert line.piped("runs", "--trigger", "brokn", code=4) == ""
        assert "did you mean 'broken'?" in line.said
        assert line.piped("runs", "--workflow", "ingest", "--since", "2090-01-01") == ""
        assert "not found" not in line.said
        assert line.piped("runs", "--key", "monday", code=4) == ""
        assert "run with key 'monday' not found" in line.said
        assert line.piped("runs", "--error", "ValuError") == ""
        assert "no run that is kept has failed with 'ValuError'; did you mean 'ValueError'?" in line.said
        assert line.piped("runs", "--error", "ValueError", "--since", "2090-01-01") == ""
        assert "no run" not in line.said


def test_a_run_is_shown_with_what_it_started_and_by_what_it_was(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("leaf"):
        cloaca.task(id="leaf")(lambda context: None)
    with cloaca.WorkflowBuilder("outer"):
        cloaca.task(id="load", on_success=lambda task, context: runner.submit("leaf") and None)(
            lambda context: runner.execute("leaf") and None
        )
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        outer = runner.submit("outer").result(30) and runner.list_runs("outer")[0]["id"]
        told, called = [run["id"] for run in runner.list_runs(parent=outer)]
        for run_id in (told, called):
            assert runner.run(run_id).result(30).status == "Completed"
    line.monkeypatch.setenv("NO_COLOR", "1")
    shown = line.shown("show", outer).splitlines()
    assert [steady(row) for row in shown[-2:]] == [
        "  child     run ID  leaf  Completed  SPAN  by task load",
        "  child     run ID  leaf  Completed  SPAN  by a callback",
    ]
    assert called in shown[-2]
    assert f"  parent    run {outer}, by task load\n" in line.shown("show", called)
    assert f"  parent    run {outer}, by a callback\n" in line.shown("show", told)
    rows = fields(line.piped("show", outer))
    assert [row[:3] for row in rows if row[0] == "child"] == [
        ["child", called, "Completed"],
        ["child", told, "Completed"],
    ]
    assert ["parent", outer, "", "", "", "", "by a callback"] in fields(line.piped("show", told))
    assert [row[0] for row in fields(line.piped("runs", "--parent", outer[:-4]))] == [told, called]
    (whole,) = records(line.piped("show", outer, "--json"))
    assert [child["task"] for child in whole["children"]] == ["load", None]


def test_a_run_is_shown_as_a_tree(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        (failed,) = fields(line.piped("runs", "--failed"))
        line.monkeypatch.setenv("NO_COLOR", "1")
        told = steady(line.shown("show", failed[0], "--context", "--traceback"))
        assert told.startswith("run ID  ingest  Failed\n  created   TIME\n  started   TIME, after SPAN\n")
        assert "  error     task 'archive' failed: ValueError: no price\n" in told
        assert "├─ count  Completed  SPAN\n│  left\n│    {\n" in told
        assert "├─ archive  Failed  SPAN  2 attempts\n│  ├─ attempt 1  Failed  SPAN  runner 1" in told
        assert '│  │      raise ValueError("no price")' in told
        assert "└─ hang  Skipped\n" in told
        assert told.endswith('  result\n    {\n      "file": "bad",\n      "lines": 1\n    }\n')
        assert line.shown("run", failed[0]).splitlines()[0] == line.shown("show", failed[0]).splitlines()[0]
        assert [row[0] for row in fields(line.piped("show", failed[0]))].count("attempt") == 3
        line.piped("show", failed[0], "--wait", code=1)
        rows = fields(line.piped("show", failed[0], "--context", "--traceback"))
        assert all(len(row) == 7 for row in rows)
        assert [(row[0], row[1]) for row in rows] == [
            ("run", failed[0]),
            ("context", failed[0]),
            ("task", "count"),
            ("attempt", "count 1"),
            ("left", "count"),
            ("task", "archive"),
            ("attempt", "archive 1"),
            ("traceback", "archive 1"),
            ("attempt", "archive 2"),
            ("traceback", "archive 2"),
            ("task", "hang"),
            ("result", failed[0]),
        ]
        assert rows[1] == ["context", failed[0], "", "", "", "", '{"file": "bad"}']
        assert rows[4][6] == rows[11][6] == '{"file": "bad", "lines": 1}'
        assert '\\n    raise ValueError("no price")\\n' in rows[7][6]
        (good,) = fields(line.piped("runs", "--status", "Completed"))
        line.piped("show", good[0], "--wait")


def test_ticks_and_why_say_what_is_on_record(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        (tick,) = fields(line.piped("ticks", "broken"))
        assert (tick[0], tick[-1]) == ("error", "OSError: the share is gone")
        assert line.piped("ticks", "nightly") == ""
        assert "only a cron whose function takes a tick has ticks" in line.said
        assert steady(line.shown("ticks", "broken")).splitlines()[0].split()[-1].endswith("REASON\x1b[0m")
        (failed,) = fields(line.piped("runs", "--failed"))
        told = steady(line.piped("why", "rare", "nightly", failed[0])).splitlines()
        assert told == [
            "trigger 'rare' is polled by runner 1; none of its polls is on record yet, the next is due at"
            " TIME",
            "trigger 'nightly' is a cron, '0 3 * * *' in 'UTC', that starts 'ingest', and runs next at TIME;"
            " it has not run yet",
            "run ID of workflow 'ingest' failed at TIME: task 'archive' failed: ValueError: no price",
        ]


def test_what_why_advises_is_a_command(line: Line, tmp_path: Path) -> None:
    def fails(context: cloaca.Context) -> None:
        raise ValueError("no price")

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="parse", retry_attempts=1)(fails)
    cloaca.trigger(workflow="w", name="in box", poll_interval="1h")(
        lambda: cloaca.TriggerResult.fire({"file": "a"}, run_key="a")
    )
    cloaca.trigger(on_run="w", workflow="w", name="told of it")(fails)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runner.tick("in box")
        run = runner.list_runs()[0]["id"]
        while runner.get_run(run)["status"] != "Failed" or not runner.ticks("told of it"):
            pass
        runner.tick("in box")
    told = line.piped("why", "in box", "told of it")
    assert f"and `cloaca retry {run}` opens it again" in told
    assert "`cloaca skip 'told of it'` has it go on without that one" in told


def test_why_answers_for_all_that_is_there(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        (told,) = records(line.piped("why", "rar", "rare", "0", "nope", "--json", code=4))
        assert (told["kind"], told["name"]) == ("why", "rare")
        missing = line.said.splitlines()
        assert ["'rar'" in missing[-3], "'0'" in missing[-2], "'nope'" in missing[-1]] == [True] * 3
        assert all(each.startswith("cloaca: ") for each in missing[-3:])
        assert line.shown("why", "nope", "rare", "rare", code=4).count("trigger 'rare' is polled") == 2


def test_doctor_tells_what_is_bad_by_its_exit_code(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db") as process:
        found = {row[1]: row for row in fields(line.piped("doctor"))}
        assert found["schedules"] == [
            "warn",
            "schedules",
            "failing: 'broken'",
            "`cloaca why NAME` tells what it raises, and what to do",
        ]
        assert found["integrity"][0] == "ok"
        process.send_signal(signal.SIGKILL)
        process.wait()
        told = line.shown("doctor", code=1)
        assert "no runner is alive, and there are schedules or runs to serve" in told
        assert "start the program that declares them" in told
        dead = line.piped("runners")
        assert "dead" in dead
        assert str(process.pid) in dead.split()
        assert "PID" in line.shown("runners")


def test_doctor_tells_what_was_switched_off(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        line.piped("disable", "rare", "nightly")
        found = [row for row in fields(line.piped("doctor")) if row[1] == "schedules"]
        assert ["warn", "schedules", "switched off: 'rare', 'nightly'"] in [row[:3] for row in found]
        assert [row[3] for row in found][-1].startswith("`cloaca enable NAME`")


def test_doctor_tells_crons_without_names_apart(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("mail"):
        cloaca.task(id="send")(lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        ids = [runner.register_cron_workflow("mail", f"0 {hour} * * *") for hour in (3, 4)]
        for cron in ids:
            line.piped("disable", cron)
        (found,) = (row for row in fields(line.piped("doctor")) if row[1] == "schedules")
        told = [
            f"a cron of 'mail' ('0 {hour} * * *', {cron})" for hour, cron in zip((3, 4), ids, strict=True)
        ]
        assert found[2] == f"switched off: {', '.join(told)}"


def test_health_tells_by_its_exit_code_whether_runs_begin(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db") as process:
        assert line.piped("health") == ""
        assert "1 living, 0 waiting" in line.shown("health")
        process.send_signal(signal.SIGKILL)
        process.wait()
        (row,) = fields(line.piped("health", code=1))
        assert row[:2] == ["no_runner", "0"]
        (found,) = records(line.piped("health", "--json", code=1))
        assert (found["ok"], found["runners"]) == (False, 0)
        assert "no runner is alive" in line.shown("health", code=1)


def test_export_writes_a_copy_and_no_other_file(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        assert line.piped("export", "copy.db", "--database", "runs.db") == ""
        assert "wrote copy.db" in line.said
        line.piped("export", "copy.db", "--database", "runs.db", code=2)
        assert line.said == f"cloaca: target '{tmp_path / 'copy.db'}' exists; name a new file\n"
        assert len(fields(line.piped("runs", "--database", "copy.db"))) == 2


def test_a_copy_is_not_taken_for_the_store_of_its_folder(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db", "slow"):
        line.piped("export", "backup.db", "--database", "runs.db")
        line.piped("doctor")
        assert line.said == "store: 'runs.db', the only one in this folder that is no copy\n"
        line.piped("export", "again.db")
        (tmp_path / "backups").mkdir()
        for name in ("backup.db", "again.db"):
            (tmp_path / name).rename(tmp_path / "backups" / name)
    line.monkeypatch.chdir(tmp_path / "backups")
    line.piped("ls", code=2)
    assert "which store? This folder has 'again.db', 'backup.db'" in line.said
    (tmp_path / "backups" / "again.db").unlink()
    line.piped("ls")
    assert line.said == "store: 'backup.db', the only one in this folder\n"


def test_doctor_of_a_copy_looks_for_no_runner(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db", "slow"):
        line.piped("export", "backup.db", "--database", "runs.db")
        line.monkeypatch.setenv("CLOACA_DATABASE", "backup.db")
        found = {row[1]: row for row in fields(line.piped("doctor"))}
        assert found["copy"][0] == "warn"
        assert found["copy"][2].startswith("this store is a copy, made at 20")
        assert "nobody has served it since" in found["copy"][2]
        assert "runners" not in found
        assert found["tasks"][0] == "ok"
        line.piped("health", code=1)
    with cloaca.DefaultRunner("backup.db"):
        pass
    assert "copy" not in {row[1] for row in fields(line.piped("doctor", code=1))}


def test_what_failed_lately_goes_by_the_end_of_runs(line: Line) -> None:
    def parse(context: cloaca.Context) -> None:
        raise ValueError("no price")

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="parse", retry_attempts=1)(parse)
    with cloaca.DefaultRunner("runs.db") as runner:
        late, early = (runner.submit("w") for _ in range(2))
        assert [run.result().status for run in (late, early)] == ["Failed"] * 2
    hour = 3_600_000_000
    with closing(sqlite3.connect("runs.db")) as store:
        # Both were created the day before yesterday; one of them failed then, the other one just now.
        store.execute("UPDATE runs SET created_at = created_at - ?", [48 * hour])
        store.execute("UPDATE runs SET completed_at = completed_at - ? WHERE id = ?", [48 * hour, early.id])
        store.commit()
    with cloaca.reading.Reader("runs.db") as reader:
        (found,) = cloaca.reading.failures(reader, datetime.now(UTC) - timedelta(days=1))
        assert (found.count, found.run_id) == (1, late.id)
        assert datetime.now(UTC) - datetime.fromisoformat(found.last_at) < timedelta(hours=1)
    assert "1 run failed in the last 24 hours: ValueError (1)" in line.piped("doctor")
    for asked in (
        ["--failed"],
        ["--status", "Failed"],
        ["--error", "ValueError"],
        ["--failed", "--workflow", "w"],
    ):
        assert [run for run, *_ in fields(line.piped("runs", *asked, "--since", "24h"))] == [late.id]
        assert [run for run, *_ in fields(line.piped("runs", *asked, "--until", "24h"))] == [early.id]
        found = fields(line.piped("runs", *asked, "--since", "72h"))
        assert [run for run, *_ in found] == [late.id, early.id]
    assert line.piped("runs", "--since", "24h") == ""
    assert [
        run
        for run, *_ in fields(line.piped("runs", "--status", "Failed", "--since", "72h", "--after", late.id))
    ] == [early.id]
    assert line.piped("retry", "--all", "--since", "24h", "--yes") == f"retried\t{late.id}\n"
    line.piped("runs", "--failed", "--since", "72h", "--after", late.id, code=1)
    assert f"after is run {late.id}, which is not over any more" in line.said


def test_ls_tells_of_a_workflow_with_runs_that_no_living_runner_declares(line: Line) -> None:
    with cloaca.WorkflowBuilder("orders"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner("runs.db", work=False) as client:
        run = client.submit("orders")
        told = lambda: [row[1:5] for row in fields(line.piped("ls", "workflows"))]  # noqa: E731
        assert told() == [["orders", "unserved", "1", "0"]]
        with cloaca.DefaultRunner("runs.db"):
            run.result(30)
            assert told() == [["orders", "Completed", "0", "0"]]
    assert told() == [["orders", "Completed", "0", "0"]], "nothing of it waits"


def test_a_workflow_that_never_ran_is_listed_and_why_says_what_holds_its_runs_up(line: Line) -> None:
    for name in ("ran", "never"):
        with cloaca.WorkflowBuilder(name):
            cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner("runs.db") as runner:
        runner.execute("ran")
        runner.pause(workflow="ran", until="2090-01-01T00:00:00Z")
        held = runner.submit("ran")
        found = {each["workflow_name"]: each for each in records(line.piped("ls", "workflows", "--json"))}
        assert list(found) == ["never", "ran"]
        assert (found["never"]["last_status"], found["never"]["paused"]) == (None, False)
        assert found["ran"]["paused"]
        assert [row[-2:] for row in fields(line.piped("ls", "workflows"))] == [["", ""], ["paused", ""]]
        assert line.piped("runs", "--workflow", "never") == ""
        assert "not found" not in line.said
        assert line.piped("why", "never") == (
            "workflow 'never' is declared by runner 1; none of its runs waits; it has not run yet\n"
        )
        told = line.piped("why", "ran")
        assert told.startswith("workflow 'ran' is declared by runner 1; workflow 'ran' is paused until 2090-")
        assert "; 1 run waits and 0 are under way, the oldest of " in told
        held.cancel()
    assert "workflow 'ran' is declared by no living runner: its runs wait for one" in line.piped("why", "ran")
    line.piped("why", "rann", code=4)
    assert "did you mean 'ran'?" in line.said


def test_no_hostile_text_reaches_a_terminal(line: Line, tmp_path: Path) -> None:
    big = "x" * (1 << 20)
    with cloaca.WorkflowBuilder(HOSTILE.strip()):

        @cloaca.task(id=HOSTILE.strip())
        def fail(context: cloaca.Context) -> None:
            context[HOSTILE] = HOSTILE
            raise_it = context["raise"]
            if raise_it:
                raise OSError(HOSTILE)

    with cloaca.DefaultRunner("runs.db") as runner:
        runner.execute(HOSTILE.strip(), {"raise": False, "big": big, "sur\x00": HOSTILE})
        runner.submit(HOSTILE.strip(), {"raise": True}, run_key=HOSTILE).cancel()
        runner.register_cron_workflow(HOSTILE.strip(), "@daily", "UTC")
    line.monkeypatch.setenv("NO_COLOR", "1")
    ids = [row[0] for row in fields(line.piped("runs"))]
    lines = [["ls"], ["runs", "--context"], ["doctor"], ["runners", "--left"], ["why", HOSTILE]]
    lines += [["show", run_id, "--context", "--traceback"] for run_id in ids]
    lines += [["why", run_id] for run_id in ids]
    for words in lines:
        for told in (
            line.shown(*words, code=4 if HOSTILE in words else 1 if words == ["doctor"] else 0),
            line.piped(*words, code=4 if HOSTILE in words else 1 if words == ["doctor"] else 0),
            line.piped(*words, "--json", code=4 if HOSTILE in words else 1 if words == ["doctor"] else 0),
            line.said,
        ):
            assert not [letter for letter in told if not letter.isprintable() and letter not in "\n\t"], words
    longest = line.shown("show", ids[-1], "--context")
    assert "more characters; --json has all of it" in longest
    assert len(longest) < 100_000
    assert len(line.piped("show", ids[-1], "--json")) > 1 << 20


def test_what_is_not_there_is_told_in_one_sentence(line: Line, tmp_path: Path) -> None:
    line.piped("ls", code=2)
    assert line.said.startswith(
        "cloaca: which store? There is none of cloaca's in this folder; name one with"
    )
    line.piped("ls", "--database", "none.db", code=3)
    assert "there is no database" in line.said
    assert list(tmp_path.iterdir()) == []
    with closing(sqlite3.connect("other.db")) as other:
        other.execute("CREATE TABLE t (a)")
    line.piped("ls", code=2)
    line.piped("ls", "--database", "other.db", code=3)
    assert "holds nothing of cloaca" in line.said
    line.piped("ls", "--database", "redis://x", code=2)
    for name in ("a.db", "b.db"):
        cloaca.DefaultRunner(name).shutdown()
    line.piped("ls", code=2)
    assert line.said.startswith("cloaca: which store? This folder has 'a.db', 'b.db'; name one")
    with closing(sqlite3.connect("b.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    line.piped("ls", "--database", "b.db", code=3)
    assert "upgrade cloaca" in line.said
    for words, code, told in [
        (["lss"], 2, "did you mean 'ls'?"),
        (["ls", "--jsn"], 2, "did you mean '--json'?"),
        (["ls", "trigger"], 2, "`cloaca help ls` says more"),
        (["runs", "--limit", "0"], 2, "--limit is 0"),
        (["runs", "--since", "soon"], 2, "--since is 'soon'; write how long ago"),
        (["runs", "--failed", "--status", "Running"], 2, "exclude each other"),
        (["show", "01"], 4, "run '01' not found"),
        (["ticks", "inbox"], 4, "trigger 'inbox' not found"),
        (["why", "inbox"], 4, "trigger, workflow or run 'inbox' not found"),
        (["show"], 2, "required: RUN"),
    ]:
        assert line.piped(*words, "--database", "a.db", code=code) == ""
        assert told in line.said, words
        assert line.said.count("\n") == 1


def test_where_the_store_is_comes_from_the_line_the_environment_or_the_project(
    line: Line, tmp_path: Path
) -> None:
    for name in ("a.db", "b.db", "c.db"):
        cloaca.DefaultRunner(name).shutdown()
    (tmp_path / "pyproject.toml").write_text('[tool.cloaca]\ndatabase = "sqlite://a.db"\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    line.monkeypatch.chdir(inner)
    assert "a.db" in line.piped("doctor")
    line.monkeypatch.setenv("CLOACA_DATABASE", str(tmp_path / "b.db"))
    assert "b.db" in line.piped("doctor")
    assert "c.db" in line.piped("--database", "../c.db", "doctor")
    assert line.said == ""
    line.monkeypatch.delenv("CLOACA_DATABASE")
    for wrong in (
        "[tool.cloaca]\ndatabase = 7\n",
        "[tool.cloaca\n",
        "[tool]\ncloaca = 7\n",
        "[tool.cloaca]\ndatabse = 'a.db'\n",
    ):
        (tmp_path / "pyproject.toml").write_text(wrong)
        line.piped("ls", code=2)
        assert "pyproject.toml" in line.said


def test_times_are_told_with_their_zone(line: Line, tmp_path: Path) -> None:
    cloaca.DefaultRunner("runs.db").shutdown()
    code = "from cloaca.cli.show import Show; t = '2026-07-01T00:00:00Z'; "
    code += "print(Show().time(t), Show(utc=True).time(t))"
    environment = {**os.environ, "TZ": "Europe/Berlin"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "2026-07-01 02:00:00 CEST 2026-07-01 00:00:00 UTC\n"


def test_a_local_time_that_summer_time_skips_lies_behind_the_hour() -> None:
    code = "from cloaca.cli.moment import moment; "
    code += (
        "print(*(moment(f'2027-03-14T{at}', '--at').strftime('%H:%M') for at in ('01:59', '02:30', '03:00')))"
    )
    environment = {**os.environ, "TZ": "America/New_York"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "06:59 07:30 07:00\n"


def test_help_and_version_need_no_store(line: Line) -> None:
    assert line.piped("--version") == f"cloaca {cloaca.__version__}\n"
    assert line.piped("--help") == line.piped("help")
    assert line.piped(code=2) == line.piped("--help")
    for command in ("ls", "runs", "show", "submit", "run"):
        told = line.piped(command, "--help")
        assert told == line.piped("help", command)
        assert told.startswith(f"usage: cloaca {command}")
        assert "\nexample: cloaca " in told


def test_who_reads_the_answer_may_go_and_ctrl_c_is_heard(tmp_path: Path) -> None:
    with served(tmp_path / "runs.db", "slow"):
        command = f"{sys.executable} -m cloaca runs --all --json | head -n 1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] in ("0", "141"), done.stderr
        assert "Traceback" not in done.stderr
        closed = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m cloaca ls --json | true; echo ${{PIPESTATUS[0]}}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Traceback" not in closed.stderr
        assert "Exception" not in closed.stderr
        (slow,) = fields(run_command(["runs", "--status", "Running"], cwd=tmp_path).stdout)
        waits = subprocess.Popen(
            [sys.executable, "-m", "cloaca", "show", slow[0], "--wait"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waits.wait(2)
        waits.send_signal(signal.SIGINT)
        assert waits.wait(30) == 130
        assert waits.communicate()[1].count("Traceback") == 0


def test_what_the_program_hides_is_hidden_here_too(line: Line) -> None:
    with cloaca.WorkflowBuilder("login"):

        @cloaca.task(retry_attempts=1)
        def login(context: cloaca.Context) -> None:
            raise type(f"Not{context['password']}Error", (Exception,), {})(f"not with {context['password']}")

    with cloaca.DefaultRunner("runs.db", redact=["password"]) as runner:
        runner.execute("login", {"user": "ann", "password": "hunter22"})
        run_id = runner.list_runs()[0]["id"]
    for words in (
        ["ls"],
        ["runs", "--context"],
        ["show", run_id, "--context", "--traceback"],
        ["why", run_id],
        ["doctor"],
    ):
        for told in (line.shown(*words), line.piped(*words), line.piped(*words, "--json")):
            assert "hunter22" not in told, words
    assert "[redacted]" in line.shown("show", run_id, "--context")
    assert "hunter22" in line.shown("show", run_id, "--context", "--unmasked")
    assert "not with hunter22" in line.piped("runs", "--unmasked")
    with cloaca.DefaultRunner("runs.db", redact=lambda path, value: value):
        pass
    assert "another process" in line.piped("runs", "--context", "--json")


def test_a_trigger_tells_nothing_that_is_hidden(line: Line) -> None:
    @cloaca.trigger(workflow="w", poll_interval="1h", name="mail")
    def mail(tick: cloaca.Tick) -> object:
        if tick.cursor is not None:
            raise OSError(f"not with {tick.cursor['token']}")
        tick.cursor = {"token": "hunter22"}
        return cloaca.TriggerResult.skip("hunter22 is new")

    with cloaca.DefaultRunner("runs.db", redact=["token"]) as runner:
        for _ in range(2):
            runner.tick("mail")
    for words in (["ls"], ["ticks", "mail"], ["why", "mail"]):
        for told in (line.shown(*words), line.piped(*words), line.piped(*words, "--json")):
            assert "hunter22" not in told, words
    assert "not with hunter22" in line.piped("ticks", "mail", "--unmasked")


def test_a_line_imports_no_more_than_it_needs() -> None:
    code = "import sys; from cloaca.cli import main; main(sys.argv[1:]); print(*sorted(sys.modules))"
    for words, others in [
        (["--version"], ["cloaca.reading", "dataclasses", "asyncio", "tomllib", "subprocess"]),
        (
            ["ls", "--database", "none.db"],
            ["cloaca.cli.serve", "cloaca.ui", "asyncio", "subprocess", "shutil", "zlib"],
        ),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        loaded = done.stdout.split()
        assert "cloaca" in loaded
        assert [name for name in others if name in loaded] == []


def test_runs_are_searched_for_a_text_in_their_contexts(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("ingest"):
        cloaca.task(id="load")(lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        runs = runner.submit_many("ingest", [{"file": f"Invoice-{n}.csv"} for n in range(300)])
        runs[-1].result()
    found = records(line.piped("runs", "--text", "invoice-7.", "--all", "--json"))
    assert [(each["id"], "context" in each) for each in found] == [(runs[7].id, False)]
    assert "looked at 300 runs, back to " in line.said
    assert "goes on" not in line.said
    (found,) = records(line.piped("runs", "--text", "invoice-7.", "--all", "--json", "--context"))
    assert found["context"] == {"file": "Invoice-7.csv"}
    seen = fields(line.piped("runs", "--text", "invoice", "--limit", "2"))
    assert [each[0] for each in seen] == [runs[299].id, runs[298].id]
    assert "looked at 2 runs, back to " in line.said
    assert f": --after {runs[298].id} goes on, or --all" in line.said
    (after,) = fields(line.piped("runs", "--text", "invoice", "--limit", "1", "--after", runs[298].id))
    assert after[0] == runs[297].id
    assert line.piped("runs", "--text", "invoice", "--all", "--until", "1d") == ""
    assert line.piped("runs", "--text", "invoice", "--all", "--failed") == ""


def tries_many(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    if handle.attempt <= 30:
        raise ValueError("no price")


def test_attempts_that_are_left_out_are_counted(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="load", retry_attempts=50, retry_delay_ms=1, retry_backoff="fixed")(tries_many)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.submit("import")
        assert run.result(30).status == "Completed"
        assert "31 (11 attempts between, of which no more is kept)" in run._repr_html_()
    line.monkeypatch.setenv("NO_COLOR", "1")
    shown = line.shown("show", run.id).splitlines()
    at = next(at for at, row in enumerate(shown) if "attempt 3" in row)
    assert shown[at + 1] == "   │  … 11 attempts between, of which no more is kept"
    assert "attempt 15" in shown[at + 2]
    rows = fields(line.piped("show", run.id))
    left_out = ["left out", "load", "", "", "", "", "11 attempts between, of which no more is kept"]
    assert rows[rows.index(left_out) + 1][1] == "load 15"
    (whole,) = records(line.piped("show", run.id, "--json"))
    assert [task["tries_left_out"] for task in whole["tasks"]] == [11]


def test_a_task_of_an_earlier_version_is_shown_as_that(line: Line, tmp_path: Path) -> None:
    def fails(context: cloaca.Context) -> None:
        raise ValueError("no price")

    with cloaca.testing.isolated():
        with cloaca.WorkflowBuilder("import"):
            cloaca.task(id="old", retry_attempts=1)(fails)
        with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
            run_id = runner.submit("import").result(30) and runner.list_runs()[0]["id"]
    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="new")(lambda context: context.set("price", 1))
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        assert runner.retry(run_id).result(30).status == "Completed"
    line.monkeypatch.setenv("NO_COLOR", "1")
    shown = steady(line.shown("show", run_id, "--diff"))
    assert "├─ new  Completed  SPAN\n│  + price  1\n" in shown
    assert "└─ old  Failed  of an earlier version  SPAN\n   └─ attempt 1  Failed  SPAN  runner 1" in shown
    (whole,) = records(line.piped("show", run_id, "--json"))
    assert [task["earlier_version"] for task in whole["tasks"]] == [False, True]
    assert [node["id"] for node in whole["graph"]] == ["new"]


SILENCE = """
import sqlite3, sys
at = "strftime('%s', 'now') * 1000000 - 60000000"
with sqlite3.connect(sys.argv[1], timeout=1) as store:
    store.execute(f"UPDATE owners SET seen_at = {at}")
    store.execute(f"UPDATE schedules SET next_at = {at} WHERE kind = 'cron'")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_why_says_that_who_serves_it_has_said_nothing_for_long(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db", "slow") as process:
        slow = fields(line.piped("runs", "--status", "Running"))[0][0]
        words = [sys.executable, "-c", SILENCE, str(tmp_path / "runs.db")]
        process.send_signal(signal.SIGSTOP)
        while subprocess.run(words, stderr=subprocess.DEVNULL).returncode:
            # It was stopped amidst a transaction.
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGSTOP)
        for name in ("rare", "nightly", slow, "ingest"):
            told = steady(line.piped("why", name))
            assert f"; runner 1 has said nothing since TIME: is its process {process.pid} on " in told, told
            assert "no living runner" not in told
        assert ", and was due at TIME; " in steady(line.piped("why", "nightly"))
        for words in (["runners"], ["ls", "runners"]):
            assert [row[:3] for row in fields(line.piped(*words))] == [["runner", "1", "silent"]]
        (whole,) = records(line.piped("runners", "--json"))
        assert whole["state"] == "living"
        line.piped("disable", "rare")
        assert "has said nothing" not in line.piped("why", "rare")
