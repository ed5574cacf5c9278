"""How long a test's clock takes to pass over many days of a trigger that is polled each minute."""

import itertools
import time
from collections.abc import Callable
from typing import Any

from common import Figures, run_contestant

import cloaca
import cloaca.testing


def run_skip(days: int) -> Figures:
    """A trigger that has never anything to do."""
    return _advance(cloaca.TriggerResult.skip, days)


def run_cursor(days: int) -> Figures:
    """One whose cursor moves at each poll, which is kept."""

    def poll(tick: cloaca.Tick) -> bool:
        tick.cursor = (tick.cursor or 0) + 1
        return False

    return _advance(poll, days)


def run_fire(days: int) -> Figures:
    """One that starts a run of one task at each poll."""
    numbers = itertools.count()
    return _advance(lambda: cloaca.TriggerResult.fire({"n": next(numbers)}), days)


def _advance(poll: Callable[..., Any], days: int) -> Figures:
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None: ...

    cloaca.trigger(name="each minute", workflow="w", poll_interval="1m")(poll)
    with cloaca.testing.Runner() as runner:
        began = time.perf_counter()
        runner.advance(f"{days}d")
        return {"took_s": time.perf_counter() - began}


if __name__ == "__main__":
    run_contestant({"skip": run_skip, "cursor": run_cursor, "fire": run_fire}, days=int)
