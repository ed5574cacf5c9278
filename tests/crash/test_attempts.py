"""SIGKILL between the attempts of one task, and amidst them: what the next attempt finds."""

from __future__ import annotations

from pathlib import Path

from lives import Script

LATER = """
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def patient(context, handle):
            say("begins", handle.attempt, time.time())
            if handle.attempt == 1:
                raise cloaca.RetryAfter("4s")

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: any("by its own wish" in runner.why_run(run["id"]) for run in runner.list_runs()))
        say("waits")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["status"])
"""


def test_a_wait_that_a_task_wished_for_is_as_long_through_kills(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Script(LATER, path) as first:
        began = float(next(first.lines).split()[-1])
        first.says("waits")
        first.process.kill()
    with Script(LATER, path) as second:
        second.says("waits")
        second.process.kill()
    with Script(LATER, path) as last:
        last.says("waits")
        word, attempt, again = next(last.lines).split()
        assert (word, attempt) == ("begins", "2"), "no attempt had begun when it was killed"
        assert float(again) - began >= 4.0
        assert last.rest() == ["Completed"]
