"""`count.py PATH N` goes through a hot path N times, for whoever counts its instructions: benches/guard.py.

One thread does the work wherever that is possible; the runner's clock is manual.
"""

import sys
from collections.abc import Callable

import cloaca
from cloaca.testing import Runner

CONTEXT = {"path": "in/file.csv", "size": 12345}
TRIGGERS = 100


def make_contexts(times: int) -> None:
    """What a body does that fires."""
    for _ in range(times):
        cloaca.Context(CONTEXT)


def skip(times: int) -> None:
    """What a body does that does not."""
    for _ in range(times):
        cloaca.TriggerResult.skip()


def poll(times: int) -> None:
    """Quiet polls, in turns of `TRIGGERS`."""
    _play(cloaca.TriggerResult.skip, times)


def fire_duplicates(times: int) -> None:
    """Polls that fire what an unfinished run has already."""
    _play(lambda: cloaca.TriggerResult.fire(CONTEXT), times)


def _play(body: Callable[[], object], times: int) -> None:
    with cloaca.WorkflowBuilder("ingest"):
        # A rule that defers for ever would do too; a retry that is far away costs nothing while it waits.
        cloaca.task(id="load", retry_attempts=2, retry_delay_ms=10**9)(_fail)
    for number in range(TRIGGERS):
        cloaca.trigger(name=f"trigger-{number}", workflow="ingest", poll_interval="1s")(body)
    with Runner() as runner:
        runner.advance(times // TRIGGERS)


def _fail(context: cloaca.Context) -> None:
    raise ValueError("later")


def run(times: int) -> None:
    """Runs of one task, in one batch."""
    with cloaca.WorkflowBuilder("ingest"):
        cloaca.task(id="load")(lambda context: context.set("rows", 99))
    with Runner() as runner:
        runner.submit_many("ingest", [CONTEXT] * times)
        runner.run_until_idle()


PATHS = {"context": make_contexts, "skip": skip, "poll": poll, "fire-duplicate": fire_duplicates, "run": run}

if __name__ == "__main__":
    PATHS[sys.argv[1]](int(sys.argv[2]))
