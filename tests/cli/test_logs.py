"""`cloaca logs`: what the bodies of a run logged."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from stage import Line, fields, served, steady
from test_look import SCHEMA, records

import cloaca


def failed(line: Line) -> str:
    (run,) = fields(line.piped("runs", "--failed"))
    return run[0]


def test_logs_shows_what_bodies_logged_for_people_for_a_pipe_and_as_json(line: Line, tmp_path: Path) -> None:
    with served(tmp_path / "runs.db"):
        run = failed(line)
        told = fields(line.piped("logs", run[:23]))
        assert [cells[1:5] for cells in told] == [
            ["WARNING", "archive", "1", "shop"],
            ["ERROR", "archive", "1", "shop"],
            ["WARNING", "archive", "2", "shop"],
            ["ERROR", "archive", "2", "shop"],
        ]
        assert told[0][5:] == ["archives bad", "", ""]
        shown = line.shown("logs", run)
        first, second, *rest = shown.splitlines()
        assert "WARNING" in first
        assert steady(first).endswith("archive 1  \x1b[2mshop\x1b[0m: archives bad")
        assert "\x1b[31mERROR   \x1b[0m" in second
        assert rest[0].startswith("    ")
        assert "evil" in rest[0]
        assert "\x9b" not in shown
        assert any("Stack (most recent call last)" in each for each in rest)
        found = records(line.piped("logs", run, "--json"))
        assert [" ".join(sorted(each)) for each in found] == [SCHEMA["log"]] * 4


def test_logs_are_filtered(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path / "runs.db"):
        run = failed(line)
        assert len(fields(line.piped("logs", run, "--level", "error"))) == 2
        assert len(fields(line.piped("logs", run, "--level", "40"))) == 2
        line.piped("logs", run, "--level", "shout", code=2)
        assert [cells[3] for cells in fields(line.piped("logs", run, "--attempt", "2"))] == ["2", "2"]
        assert line.said == "store: 'runs.db', the only one in this folder\n"
        assert [cells[1] for cells in fields(line.piped("logs", run, "--limit", "1"))] == ["ERROR"]
        assert "3 older lines are kept, too: --limit 4 shows all" in line.said
        line.piped("logs", run, "--limit", "1", "--attempt", "1")
        assert "1 older line is kept, too: --limit 2 shows all" in line.said
        line.piped("logs", run, "--limit", "4")
        assert "older line" not in line.said
        for none in (["--task", "count"], ["--level", "CRITICAL"], ["--attempt", "3"]):
            assert line.piped("logs", run, *none) == ""
            told = "none of the 4 lines that are kept of the run passes --task, --attempt or --level"
            assert told in line.said
            assert "keep_logs" not in line.said
        with cloaca.reading.Reader("runs.db") as reader:
            quiet = cloaca.reading.runs(reader, status="Completed").items[0].id
        path = str(tmp_path / "none.db")
        with cloaca.WorkflowBuilder("silent"):
            cloaca.task(id="t")(lambda context: None)
        with cloaca.DefaultRunner(path) as runner:
            runner.execute("silent")
            silent = str(runner.list_runs()[0]["id"])
        assert line.piped("--database", path, "logs", silent, "--level", "ERROR") == ""
        assert "nothing is kept of what the run logged" in line.said
        line.piped("--database", "runs.db", "logs", quiet, "--level", "ERROR")
        assert "the line that is kept of the run does not pass" in line.said
        monkeypatch.setenv("CLOACA_DATABASE", "runs.db")
        line.piped("logs", run, "--level", "loud", code=2)
        assert "level is 'loud'" in line.said
        line.piped("logs", run, "--attempt", "x", code=2)
        line.piped("logs", "ffffffff", code=4)


def test_follow_goes_on_until_the_run_is_over(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with served(path, "slow") as program:
        with cloaca.reading.Reader(path) as reader:
            (run,) = (each.id for each in cloaca.reading.runs(reader, status="Running"))
        command = [sys.executable, "-m", "cloaca", "--database", str(path), "logs", run, "--follow"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follows:
            try:
                assert follows.stdout is not None
                assert "archives slow" in follows.stdout.readline()
                assert follows.poll() is None
                program.kill()
                program.wait(60)
                with cloaca.DefaultRunner(path, work=False) as client:
                    client.cancel(run)
                rest, _ = follows.communicate(timeout=60)
                assert rest == ""
                assert follows.returncode == 0
            finally:
                follows.kill()


def test_what_was_left_out_is_told(line: Line, tmp_path: Path) -> None:
    def chatters(context: cloaca.Context) -> None:
        for number in range(100):
            logging.getLogger("chat").warning("%02d %s", number, "x" * 100)

    with cloaca.WorkflowBuilder("chat"):
        cloaca.task(id="t")(chatters)
    path = str(tmp_path / "few.db")
    with cloaca.DefaultRunner(path, keep_logs="2 KiB") as runner:
        runner.execute("chat")
        run = str(runner.list_runs()[0]["id"])
    told = fields(line.piped("--database", path, "logs", run))
    assert told[-1][5].startswith("99 ")
    assert f"{100 - len(told)} older lines were left out" in line.said
