"""What a line shows of one run, and how much of it a narrow terminal has room for."""

import json
import re
from pathlib import Path

import pytest
from stage import Line, fields

import cloaca

WAIT = 30.0


def test_a_child_is_shown_with_its_own_times(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("leaf"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.WorkflowBuilder("outer"):

        @cloaca.task()
        def load(context: cloaca.Context) -> None:
            here = cloaca.current_run()
            assert here is not None
            here.runner.submit("leaf", {}, delay="200ms").result(WAIT)

    with cloaca.DefaultRunner("runs.db") as runner:
        outer = runner.submit("outer")
        assert outer.result(WAIT).status == "Completed"
    (listed,) = map(json.loads, line.piped("runs", "--parent", outer.id, "--json").splitlines())
    (child,) = (row for row in fields(line.piped("show", outer.id)) if row[0] == "child")
    assert child[1:6] == [
        listed["id"],
        "Completed",
        listed["started_at"],
        listed["completed_at"],
        str(listed["took_seconds"]),
    ]
    assert listed["took_seconds"] < 0.2, "it did not wait"


def test_a_pipe_has_what_a_run_came_of(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def feed() -> cloaca.TriggerResult:
        return cloaca.TriggerResult.fire({}, run_key="order 7")

    with cloaca.DefaultRunner("runs.db") as runner:
        runner.tick("feed")
        run_id = str(runner.list_runs()[0]["id"])
        runner.run(run_id).result(WAIT)
    rows = fields(line.piped("show", run_id))
    assert rows[1:3] == [["trigger", "feed"], ["key", "order 7"]]


def test_the_time_of_a_cron_has_room_on_a_narrow_terminal(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("invoices_of_the_night"):
        cloaca.task(id="t")(lambda context: None)

    @cloaca.trigger(workflow="invoices_of_the_night", cron="0 3 * * *", timezone="Europe/Berlin")
    def nightly_invoices() -> None: ...

    with cloaca.DefaultRunner("runs.db"):
        pass
    line.monkeypatch.setenv("NO_COLOR", "1")
    shown = line.shown("ls", "crons", width=80)
    assert ":00:00" in shown.splitlines()[-1]
    assert max(map(len, shown.splitlines())) <= 80


def test_an_executor_itself_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
        with pytest.raises(cloaca.WorkflowError, match=r'DefaultRunner\(executors=\{"NAME": …\}\)'):
            cloaca.task(executor=cloaca.ProcessExecutor(2))  # type: ignore[call-overload]


def test_attempts_after_a_retry_are_told_from_those_before(line: Line, tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=2, retry_delay_ms=0)
        def load(context: cloaca.Context) -> None:
            raise ValueError("no")

    with cloaca.DefaultRunner("runs.db") as runner:
        run = runner.submit("w")
        run.result(WAIT)
        runner.retry(run.id)
        runner.run(run.id).result(WAIT)
    told = re.findall(r"attempt \d(?: after retry)?(?=  )", line.shown("show", run.id))
    assert told == ["attempt 1", "attempt 2", "attempt 1 after retry", "attempt 2"]


def test_keys_that_begin_as_the_one_that_nothing_has_are_named_the_newest_first(
    line: Line, tmp_path: Path
) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner("runs.db") as runner:
        for key in ("bolt/1.txt@77", "acme/1", "bolt/2.txt@78"):
            runner.submit("w", run_key=key).result(WAIT)
    line.piped("runs", "--key", "bolt/", code=4)
    assert "known keys of the newest runs that begin so: bolt/2.txt@78, bolt/1.txt@77\n" in line.said
    line.piped("runs", "--key", "zzz", code=4)
    assert "known keys of the newest runs: bolt/2.txt@78, acme/1, bolt/1.txt@77\n" in line.said
