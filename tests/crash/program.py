"""The program that the crash tests kill: three triggers, two workflows, and a witness line for whatever it
does.

    program.py DATABASE WITNESS SOURCE STOP [--goal N] [--durability full|normal] [--pace SECONDS] [--errands]
        [--place processes|pool]

The source is a text file with an item number on each line, to which anybody may append. The program serves it
until the file STOP is there. With a goal it says `idle` once that item and everything before it is done, and
ends if it was not asked to wait. With errands it first does a little of what else a runner can be asked for.
With a place the bodies of tasks run in other processes: a `ProcessExecutor`'s, or the standard library's.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any

import bodies
import items
from bodies import key_of, work, working
from witness import Witness

import cloaca

LOOK_SECONDS = 0.02
"""Between two looks at whether to end."""
KEPT = timedelta(hours=1)
"""Nothing gets that old here, but it is looked for."""
REST_LOOKS = 6
"""So many looks in a row must find nothing left to do."""


HELP_SECONDS = 5.0
"""How long bodies wait for a second runner to take something, in seconds."""


class Help:
    """A second runner of this process, and whether it has begun a run."""

    runner: cloaca.DefaultRunner | None = None

    def __init__(self) -> None:
        self.came = threading.Event()
        self.came.set()


HELP = Help()


WORKERS = 3
DEATHS_MAX = 1000
PLACES = {
    "processes": lambda: cloaca.ProcessExecutor(max_workers=WORKERS, kill_grace=1),
    # What threads hold is none of theirs.
    "pool": lambda: ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")),
}
"""Where bodies may run, and what makes that."""


class WitnessLog(logging.Handler):
    """Testifies what the library logs."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(logging.INFO)
        self._witness = witness

    def emit(self, record: logging.LogRecord) -> None:
        self._witness.note(
            "log", logger=record.name, level=record.levelname, message=record.getMessage()[:500]
        )


def declare(witness: Witness, source: str, place: str | None, goal: Any) -> None:
    """The triggers with their workflows, whose bodies run in that place."""

    def succeeded(task_id: str, context: cloaca.Context) -> None:
        witness.note("success", task=task_id, **key_of(context))

    def failed(task_id: str, error: str, context: cloaca.Context) -> None:
        witness.note("failure", task=task_id, error=error, **key_of(context))

    told = {"on_success": succeeded, "on_failure": failed}
    far = {
        "retry_attempts": items.ATTEMPTS_MAX,
        "retry_delay_ms": 3,
        "retry_jitter": False,
        "executor": place,
    } | told

    def tell(run: cloaca.types.RunDetails) -> None:
        with witness.noting(
            "tell", "told", of_run=run["id"], ended=run["completed_at"], status=run["status"]
        ):
            work()

    def told_of(name: str) -> cloaca.WorkflowBuilder:
        return cloaca.WorkflowBuilder(name).on_success(tell).on_failure(tell).on_cancel(tell)

    with told_of("ingest"):
        fetch = cloaca.task(**far)(bodies.fetch)
        parse = cloaca.task(dependencies=[fetch], **far)(bodies.parse)
        index = cloaca.task(dependencies=[fetch], **far)(bodies.index)
        cloaca.task(dependencies=[parse, index], **far)(bodies.store)

    with told_of("beat"):
        stamp = cloaca.task(**far)(bodies.stamp)
        cloaca.task(dependencies=[stamp], **far)(bodies.strike)

    with told_of(items.REOPENED):

        @cloaca.task(id="errand", retry_attempts=1, **told)
        def errand(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            with working("errand", context, handle):
                if context["fails"] and handle.attempt == 1:
                    raise ValueError("the first time it fails")
                if handle.runner is HELP.runner:
                    HELP.came.set()
                HELP.came.wait(HELP_SECONDS)

    @cloaca.trigger(name=items.INBOX, workflow="ingest", poll_interval="5ms")
    def inbox(tick: cloaca.Tick) -> Any:
        cursor = tick.cursor or {"item": 0, "offset": 0}
        with witness.noting("poll", "polled", trigger=items.INBOX, cursor=cursor["item"]) as more:
            with open(source, "rb") as file:
                file.seek(cursor["offset"])
                lines = [line for line in file.readlines(200) if line.endswith(b"\n")][: items.AT_ONCE_MAX]
            more["moved"] = None
            if not lines:
                return cloaca.TriggerResult.skip()
            fires = []
            for item in map(int, lines):
                if items.is_passed_over(item):
                    witness.note("pass", trigger=items.INBOX, item=item)
                else:
                    witness.note("fire", trigger=items.INBOX, item=item)
                    fires.append(cloaca.TriggerResult.fire({"item": item}, run_key=f"item-{item}"))
            last = int(lines[-1])
            tick.cursor = {"item": last, "offset": cursor["offset"] + sum(map(len, lines))}
            more["moved"] = last
            return fires

    @cloaca.trigger(name=items.BEAT, workflow="beat", poll_interval="7ms", overlap="queue")
    def beat() -> cloaca.TriggerResult:
        with witness.noting("poll", "polled", trigger=items.BEAT) as more:
            more["fired"] = not goal.is_reached and random.random() < 0.7
            if not more["fired"]:
                return cloaca.TriggerResult.skip()
            kind = random.randrange(3)
            witness.note("fire", trigger=items.BEAT, beat=kind)
            return cloaca.TriggerResult.fire({"beat": kind})

    @cloaca.trigger(name=items.WATCH, poll_interval="11ms")
    def watch() -> cloaca.TriggerResult:
        with witness.noting("poll", "polled", trigger=items.WATCH):
            return cloaca.TriggerResult.skip("nothing to see")


def do_errands(runner: cloaca.DefaultRunner, url: str, witness: Witness) -> None:
    """Changes schedules, has a run cancelled and another opened again, and gets help for a heap of them."""
    for left in runner.list_cron_schedules():
        runner.delete_cron_schedule(left["id"])
    schedule = runner.register_cron_workflow(items.REOPENED, "0 0 29 2 *")
    runner.update_cron_schedule(schedule, "0 0 30 1 *", "UTC")
    runner.set_cron_schedule_enabled(schedule, False)
    runner.delete_cron_schedule(schedule)
    runner.set_trigger_enabled(items.WATCH, False)
    runner.set_trigger_enabled(items.WATCH, True)
    witness.note("set", trigger=items.WATCH)
    runner.set_cursor(items.WATCH, 1)
    runner.unredact()
    failed = runner.submit(items.REOPENED, {"fails": True})
    failed.result()
    runner.retry(failed.id).result()
    runner.submit(items.REOPENED, {"fails": False}).cancel()
    HELP.came.clear()
    runs = runner.submit_many(items.REOPENED, [{"fails": False}] * 30)
    with cloaca.DefaultRunner(url) as HELP.runner:
        for run in runs:
            run.result()


class Goal:
    """Whether everything up to an item is done."""

    def __init__(self, item: int | None, may_be_away: bool) -> None:
        self._item = item
        self._may_be_away = may_be_away
        self._rested = 0
        self.is_reached = False

    def look(self, runner: cloaca.DefaultRunner) -> bool:
        """Whether there is nothing left to do, and has not been for a while."""
        if self._item is None:
            return False
        try:
            return self._look(runner)
        except cloaca.StoreError:
            # A server may be away; what a file refuses is a fault.
            if not self._may_be_away:
                raise
            self._rested = 0
            return False

    def _look(self, runner: cloaca.DefaultRunner) -> bool:
        if not self.is_reached:
            rows = runner.query("SELECT cursor FROM schedules WHERE name = ?", [items.INBOX])
            seen_to = json.loads(rows[0]["cursor"] or "{}") if rows else {}
            self.is_reached = seen_to.get("item", 0) >= self._item
            return False
        unfinished = any(runner.list_runs(status=status, limit=1) for status in ("Pending", "Running"))
        (untold,) = runner.query("SELECT count(*) AS ends FROM ends")
        unfinished = unfinished or untold["ends"] > 0
        self._rested = 0 if unfinished else self._rested + 1
        return self._rested >= REST_LOOKS


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("database", "witness", "source", "stop"):
        parser.add_argument(name)
    parser.add_argument("--goal", type=int)
    parser.add_argument("--wait", action="store_true", help="go on when the goal is reached")
    parser.add_argument("--durability", default="full")
    parser.add_argument("--errands", action="store_true")
    parser.add_argument("--pace", type=float, default=0.003)
    parser.add_argument("--place", choices=PLACES)
    options = parser.parse_args()
    os.environ |= {bodies.WITNESS: options.witness, bodies.PACE: str(options.pace)}
    if options.place:
        os.environ[bodies.LONG] = "1"
    witness = bodies.witness()
    log = logging.getLogger("cloaca")
    log.addHandler(WitnessLog(witness))
    log.propagate = False
    is_far = options.database.startswith("postgresql:")
    goal = Goal(options.goal, is_far)
    declare(witness, options.source, options.place, goal)
    witness.note("begin")
    url = f"{options.database}{'&' if '?' in options.database else '?'}durability={options.durability}"
    # Whatever dies here was killed: nothing is to be given up for that.
    bounds = {"place_deaths_max": DEATHS_MAX, "interruptions_max": DEATHS_MAX} if options.place else {}
    config = cloaca.DefaultRunnerConfig(retention=KEPT, **bounds)
    hidden = ["card"] if options.errands else None
    executors = {options.place: PLACES[options.place]} if options.place else None
    with cloaca.DefaultRunner.with_config(url, config, redact=hidden, executors=executors) as runner:
        (owner,) = runner.query("SELECT max(epoch) AS epoch FROM owners")
        witness.note("open", epoch=owner["epoch"])
        if options.errands:
            do_errands(runner, url, witness)
        is_idle = False
        while not os.path.exists(options.stop):
            time.sleep(LOOK_SECONDS)
            try:
                is_done = not is_idle and goal.look(runner)
            except cloaca.RunnerError:
                if not is_far:
                    raise
                # Others took it for dead while it was cut off.
                witness.note("stopped")
                break
            if is_done:
                is_idle = True
                witness.note("idle")
            if is_idle and not options.wait:
                break
    witness.note("close")


if __name__ == "__main__":
    main()
