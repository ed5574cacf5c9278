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
                raise cloaca.RetryAfter("6s")

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: all_final(runner) or "own wish" in runner.why_run(runner.list_runs()[0]["id"]))
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
        lines = last.rest()
        # It says that it waits, unless the machine was so slow that this is over.
        word, attempt, again = next(line for line in lines if line != "waits").split()
        assert (word, attempt) == ("begins", "2"), "no attempt had begun when it was killed"
        assert float(again) - began >= 6.0
        assert lines[-1] == "Completed"


CHECKPOINT = """
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def pages(context, handle):
            say("begins", handle.attempt, handle.checkpointed)
            for page in range(handle.checkpointed or 0, 40):
                handle.checkpoint(page + 1)
                say("kept", page + 1)
            context["pages"] = handle.checkpointed

    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        if not runner.list_runs():
            runner.submit("w")
        until(lambda: all_final(runner))
        (run,) = runner.list_runs()
        say(run["status"], runner.query("SELECT final_context AS left FROM runs")[0]["left"])
"""


def test_a_checkpoint_that_was_kept_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    kept = 0
    for life in range(1, 5):
        with Script(CHECKPOINT, path) as killed:
            word, attempt, found = next(killed.lines).split()
            assert (word, attempt) == ("begins", str(life))
            # It may have been committed before the kill, and not told.
            assert (0 if found == "None" else int(found)) in (kept, kept + 1)
            for _ in range(7):
                kept = int(next(killed.lines).split()[1])
            killed.process.kill()
            kept = max([kept, *(int(line.split()[1]) for line in killed.lines if line.startswith("kept "))])
    with Script(CHECKPOINT, path) as last:
        assert next(last.lines).split()[:2] == ["begins", "5"]
        assert last.rest()[-1] == 'Completed {"pages":40}'
