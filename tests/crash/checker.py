"""Compares what the witness saw with what the database holds, rule by rule.

Each rule is a generator of complaints, named after what it claims; nothing in here knows how the engine
works, only what it promises. `ALWAYS` holds at any moment at which no process of the program lives, `AT_REST`
once all is done, `SINCE` between two such moments. Invariant: a rule reads only the evidence. The database is
a copy: looking at the original would tidy up its write-ahead log, and the next process would not find what
the last one left.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import items
import postgres
from witness import Line

FLUSH_SECONDS = 30
"""Quiet polls reach the history at least so often; a kill loses those since then."""
SERVER_SECONDS = 30
"""A server may take so long to notice that who was connected is dead."""
SLACK_SECONDS = 2
"""What a busy machine may add to that."""
TABLES = ("owners", "schedules", "runs", "tasks", "run_keys", "ticks", "ends")
FINAL_RUN = ("Completed", "Failed", "Cancelled")
FINAL_TASK = ("Completed", "Failed", "Skipped")

Row = dict[str, Any]
Key = tuple[Any, ...]
Complaints = Iterator[str]


@dataclass(frozen=True)
class Database:
    """Everything in a file at a moment at which nobody had it open."""

    integrity: list[str]
    owners: list[Row]
    schedules: list[Row]
    runs: list[Row]
    tasks: list[Row]
    run_keys: list[Row]
    ticks: list[Row]
    ends: list[Row] = field(default_factory=list)
    taken_at: int = 0
    """On the witness's monotonic clock."""

    @classmethod
    def read(cls, path: Path | str, taken_at: int = 0) -> Database:
        """Reads a copy of the file and of its write-ahead log, or by its URL what a server has."""
        if isinstance(path, str):
            return cls(integrity=["ok"], taken_at=taken_at, **tables_of(path))
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "copy.db")
            for suffix in ("", "-wal"):
                if (source := Path(f"{path}{suffix}")).exists():
                    shutil.copyfile(source, f"{copy}{suffix}")
            with closing(sqlite3.connect(copy)) as db:
                db.row_factory = sqlite3.Row
                integrity = [row[0] for row in db.execute("PRAGMA integrity_check")]
                # A process that is killed early enough leaves no tables.
                there = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
                tables = {
                    name: [dict(row) for row in db.execute(f"SELECT * FROM {name}")] if name in there else []
                    for name in TABLES
                }
        return cls(integrity=integrity, taken_at=taken_at, **tables)

    @cached_property
    def run_of(self) -> dict[int, Row]:
        """Runs by their row."""
        return {run["row"]: run for run in self.runs}

    @cached_property
    def triggers(self) -> dict[str, Row]:
        """Triggers by their name."""
        return {row["name"]: row for row in self.schedules if row["kind"] == "trigger"}

    @cached_property
    def task_of(self) -> dict[Key, Row]:
        """Records of tasks by their run's id and their name."""
        return {
            (self.run_of[task["run"]]["id"], task["name"]): task
            for task in self.tasks
            if task["run"] in self.run_of
        }

    def runs_by(self, trigger: str) -> list[Row]:
        """The runs that a trigger fired, oldest first."""
        schedule = self.triggers.get(trigger)
        return [run for run in self.runs if schedule is not None and run["schedule"] == schedule["row"]]

    @property
    def cursor(self) -> int:
        """The last item that the trigger of the source has seen to."""
        schedule = self.triggers.get(items.INBOX)
        if schedule is None or schedule["cursor"] is None:
            return 0
        return int(json.loads(schedule["cursor"])["item"])


def tables_of(url: str) -> dict[str, list[Row]]:
    """What a server has, once it has heard of the ends of all who were connected."""
    others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    deadline = time.monotonic() + SERVER_SECONDS
    while postgres.sql(url, f"SELECT count(*) FROM pg_stat_activity WHERE {others}") != [["0"]]:
        assert time.monotonic() < deadline, "connections of dead processes stay"
        time.sleep(0.002)
    tables: dict[str, list[Row]] = {}
    for name in TABLES:
        (found,) = postgres.sql(url, f"SELECT to_regclass('cloaca.{name}') IS NOT NULL")
        # A process that is killed early enough leaves no tables.
        all_of_it = f"SELECT coalesce(jsonb_agg(t ORDER BY t), '[]') FROM cloaca.{name} AS t"
        tables[name] = json.loads(postgres.sql(url, all_of_it)[0][0]) if found == ["t"] else []
    return tables


@dataclass(frozen=True)
class Evidence:
    """What the witness said so far, and the file as it is."""

    lines: Sequence[Line]
    database: Database
    last_item: int = 0
    """Of the source; asked for once all is done."""

    @cached_property
    def by_kind(self) -> dict[str, list[Line]]:
        """Lines of each kind, in the order of time."""
        kinds: dict[str, list[Line]] = defaultdict(list)
        for line in sorted(self.lines, key=lambda line: line.mono):
            kinds[line.kind].append(line)
        return kinds

    @cached_property
    def alive_until(self) -> dict[int, int]:
        """Until when each process was certainly alive."""
        last: dict[int, int] = {}
        for line in self.lines:
            if line.kind not in ("killed", "silent"):
                last[line.pid] = max(last.get(line.pid, 0), line.mono)
        for line in self.by_kind["killed"]:
            last[line.pid] = line.mono
        return last

    @cached_property
    def deaths(self) -> dict[int, int]:
        """The same of those that did not end by themselves, and since when others may have taken one for
        dead that was cut off for long."""
        clean = {line.pid for line in self.by_kind["close"]}
        silent = {line.pid: line.mono for line in self.by_kind["silent"]}
        return {pid: mono for pid, mono in self.alive_until.items() if pid not in clean} | silent

    @cached_property
    def starts(self) -> dict[Key, list[Line]]:
        """The attempts at each task of each run, in the order of time."""
        return self._by_task("start")

    @cached_property
    def ends(self) -> dict[Key, list[Line]]:
        """The ends of those attempts."""
        return self._by_task("end")

    @cached_property
    def calls(self) -> dict[Key, list[Line]]:
        """The calls that tell of each end of a run, in the order of time."""
        return self._by_end("tell")

    @cached_property
    def told(self) -> dict[Key, list[Line]]:
        """Those of them that came back."""
        return self._by_end("told")

    def _by_end(self, kind: str) -> dict[Key, list[Line]]:
        found: dict[Key, list[Line]] = defaultdict(list)
        for line in self.by_kind[kind]:
            found[line["of_run"], micros(line["ended"])].append(line)
        return found

    def _by_task(self, kind: str) -> dict[Key, list[Line]]:
        found: dict[Key, list[Line]] = defaultdict(list)
        for line in self.by_kind[kind]:
            found[line["run"], line["task"]].append(line)
        return found


def micros(moment: str) -> int:
    """A time as the database has it."""
    at = datetime.fromisoformat(moment)
    return int(at.replace(microsecond=0).timestamp()) * 1_000_000 + at.microsecond


def is_before(one: Line, other: Line) -> bool:
    """Whether the one happened first."""
    return one.mono < other.mono


# What holds at any moment.


def the_file_is_sound(evidence: Evidence) -> Complaints:
    database = evidence.database
    if database.integrity != ["ok"]:
        yield f"integrity_check says {database.integrity[:3]}"
    ids = {run["id"] for run in database.runs}
    for task in database.tasks:
        if task["run"] not in database.run_of:
            yield f"task {task['name']} belongs to run {task['run']}, which is not there"
    for key in database.run_keys:
        if key["run"] not in ids:
            yield f"run key {key['key']} belongs to run {key['run']}, which is not there"


def a_tick_is_whole(evidence: Evidence) -> Complaints:
    """The runs are those of the items up to the cursor, no more and no fewer, but for those passed over."""
    database = evidence.database
    recorded = {line["item"] for line in evidence.by_kind["pass"]}
    found = {json.loads(run["context"])["item"] for run in database.runs_by(items.INBOX)}
    for item in range(1, database.cursor + 1):
        if items.is_passed_over(item):
            if item not in recorded:
                yield f"item {item} lies behind the cursor, but nobody looked at it"
        elif item not in found:
            yield f"item {item} lies behind the cursor {database.cursor} and has no run"
    for item in sorted(found):
        if item > database.cursor:
            yield f"item {item} has a run, but the cursor stands at {database.cursor}"
        if items.is_passed_over(item):
            yield f"item {item} has a run, but was passed over"


def a_run_key_starts_one_run(evidence: Evidence) -> Complaints:
    database = evidence.database
    counts = Counter((run["schedule"], run["run_key"]) for run in database.runs if run["run_key"])
    for (_, key), count in counts.items():
        if count > 1:
            yield f"run key {key} has started {count} runs"
    held = {(key["schedule"], key["key"]): key["run"] for key in database.run_keys}
    for run in database.runs:
        if run["run_key"] and held.get((run["schedule"], run["run_key"])) != run["id"]:
            yield f"run key {run['run_key']} of run {run['id']} is not held by it"


def equal_runs_do_not_overlap(evidence: Evidence) -> Complaints:
    """Of the trigger without run keys, two runs with one context follow one another."""
    by_hash: dict[Key, list[Row]] = defaultdict(list)
    for run in evidence.database.runs:
        if run["unique_hash"]:
            by_hash[run["schedule"], run["context_hash"]].append(run)
    for runs in by_hash.values():
        for one, other in pairwise(sorted(runs, key=lambda run: run["row"])):
            if one["completed_at"] is None:
                yield f"run {other['id']} began although run {one['id']} with its context is unfinished"
            elif other["started_at"] is not None and other["started_at"] < one["completed_at"]:
                yield f"run {other['id']} began before run {one['id']} with its context was final"


def beats_take_turns(evidence: Evidence) -> Complaints:
    """Of the trigger that queues its fires, each run begins after those before it, whoever drives them."""
    runs = sorted(evidence.database.runs_by(items.BEAT), key=lambda run: run["row"])
    for one, other in pairwise(runs):
        if other["started_at"] is None:
            continue
        if one["completed_at"] is None:
            yield f"beat {other['id']} began although beat {one['id']} before it is unfinished"
        elif other["started_at"] < one["completed_at"]:
            yield f"beat {other['id']} began before beat {one['id']} before it was final"


def what_a_body_saw_was_kept(evidence: Evidence) -> Complaints:
    """A task starts only once its run, and the success of what it depends on, is committed."""
    database = evidence.database
    contexts = {run["id"]: json.loads(run["context"]) for run in database.runs}
    for (run, task), starts in evidence.starts.items():
        for name in ("item", "beat"):
            if run in contexts and contexts[run].get(name) != starts[0].get(name):
                yield f"task {task} of run {run} saw {name} {starts[0].get(name)}, not {contexts[run]}"
        if run not in contexts:
            yield f"task {task} of run {run} ran at {starts[0].mono}, but there is no such run"
        for dependency in items.DEPENDENCIES[task]:
            record = database.task_of.get((run, dependency))
            if record is None or record["status"] != "Completed":
                status = "no record" if record is None else record["status"]
                yield f"task {task} of run {run} ran, but {dependency}, which it depends on, has {status}"


def a_success_has_a_body(evidence: Evidence) -> Complaints:
    """A record says `Completed` only after the body of just that attempt returned."""
    for (run, task), record in evidence.database.task_of.items():
        if record["status"] != "Completed":
            continue
        ends = evidence.ends.get((run, task), [])
        if not any(end["ok"] and end["attempt"] == record["attempt"] for end in ends):
            attempt = record["attempt"]
            yield f"task {task} of run {run} completed in attempt {attempt}, whose body never returned"


def a_success_is_not_repeated(evidence: Evidence) -> Complaints:
    """Once a success is committed, no attempt follows. The witness knows of the commit when a dependent
    starts, the database by the attempt's number."""
    starts = evidence.starts
    for (run, task), record in evidence.database.task_of.items():
        if record["status"] == "Completed":
            for line in starts.get((run, task), []):
                if line["attempt"] > record["attempt"]:
                    yield (
                        f"task {task} of run {run} completed in attempt {record['attempt']}, "
                        f"but ran in attempt {line['attempt']}"
                    )
    for (run, task), lines in starts.items():
        for dependency in items.DEPENDENCIES[task]:
            for line in starts.get((run, dependency), []):
                if is_before(lines[0], line):
                    attempt = line["attempt"]
                    yield f"task {dependency} of run {run} ran in attempt {attempt} after {task} had begun"


def an_attempt_has_a_number_of_its_own(evidence: Evidence) -> Complaints:
    for (run, task), lines in evidence.starts.items():
        # A run that is opened again counts anew.
        for one, other in pairwise(lines if task != items.REOPENED else []):
            if other["attempt"] <= one["attempt"]:
                attempts = f"{one['attempt']} and then in {other['attempt']}"
                yield f"task {task} of run {run} ran in attempt {attempts}"


def attempts_do_not_overlap(evidence: Evidence) -> Complaints:
    """Over all processes at most one body of a task of a run is at work, whatever the attempts' numbers."""
    for (run, task), lines in evidence.starts.items():
        ends = defaultdict(list)
        for end in evidence.ends.get((run, task), []):
            ends[end.pid, end["attempt"]].append(end.mono)
        last, until = lines[0], 0
        for start in lines:
            if until > start.mono:
                yield (
                    f"task {task} of run {run} ran in attempt {start['attempt']} in process {start.pid} "
                    f"while process {last.pid} was in attempt {last['attempt']}"
                )
            mine = ends[start.pid, start["attempt"]]
            # A body that never returned was at work for as long as its process was seen alive.
            end = mine.pop(0) if mine else evidence.alive_until[start.pid]
            if end > until:
                last, until = start, end


def polls_do_not_overlap(evidence: Evidence) -> Complaints:
    """At most one poll of a trigger is in flight, over all processes that can say that they live."""
    silent = {line.pid: line.mono for line in evidence.by_kind["silent"]}
    ends: dict[Key, list[int]] = defaultdict(list)
    for line in evidence.by_kind["polled"]:
        ends[line["trigger"], line.pid].append(line.mono)
    last: dict[str, Line] = {}
    until: dict[str, int] = {}
    taken: Counter[Key] = Counter()
    for poll in evidence.by_kind["poll"]:
        trigger = poll["trigger"]
        if poll.pid in silent and poll.mono > silent[poll.pid]:
            continue
        if until.get(trigger, 0) > poll.mono:
            yield (
                f"process {poll.pid} polled {trigger} at {poll.mono} while process {last[trigger].pid} did "
                f"so from {last[trigger].mono} to {until[trigger]}"
            )
        mine = ends[trigger, poll.pid]
        place = taken[trigger, poll.pid]
        taken[trigger, poll.pid] += 1
        end = mine[place] if place < len(mine) else evidence.deaths.get(poll.pid, poll.mono)
        last[trigger], until[trigger] = poll, max(end, until.get(trigger, 0))


def a_poll_sees_the_last_cursor(evidence: Evidence) -> Complaints:
    """The cursor never goes back; what a poll moved it to is what the next poll of a living process sees."""
    moved: dict[int, int] = {}
    highest = 0
    ends = iter(evidence.by_kind["polled"])
    pending = [line for line in ends if line["trigger"] == items.INBOX]
    place = 0
    proposed = 0
    for poll in evidence.by_kind["poll"]:
        if poll["trigger"] != items.INBOX:
            continue
        while place < len(pending) and pending[place].mono < poll.mono:
            end = pending[place]
            moved[end.pid] = end["cursor"] if end.get("moved") is None else end["moved"]
            proposed = max(proposed, moved[end.pid])
            place += 1
        cursor = poll["cursor"]
        if cursor < highest:
            yield f"process {poll.pid} saw the cursor at {cursor} after it had stood at {highest}"
        if cursor > proposed:
            yield f"process {poll.pid} saw the cursor at {cursor}, but nobody moved it beyond {proposed}"
        if poll.pid in moved and cursor < moved[poll.pid]:
            yield f"process {poll.pid} saw the cursor at {cursor} after it moved it to {moved[poll.pid]}"
        highest = max(highest, cursor)
    if evidence.database.cursor < highest:
        yield f"the cursor is kept as {evidence.database.cursor}, but a poll saw it at {highest}"


def a_final_outcome_was_told(evidence: Evidence) -> Complaints:
    """Each final outcome has at least one callback, after the body and before what depends on it."""
    told: dict[Key, list[Line]] = defaultdict(list)
    for kind in ("success", "failure"):
        for line in evidence.by_kind[kind]:
            told[kind, line["run"], line["task"]].append(line)
    for (run, task), record in evidence.database.task_of.items():
        kind = {"Completed": "success", "Failed": "failure"}.get(record["status"])
        if kind is not None and not told[kind, run, task]:
            yield f"task {task} of run {run} is {record['status']}, but no {kind} was told"
    for (run, task), starts in evidence.starts.items():
        for dependency in items.DEPENDENCIES[task]:
            before = told["success", run, dependency]
            if not any(is_before(line, starts[0]) for line in before):
                yield f"task {task} of run {run} began before the success of {dependency} was told"


def polls_are_counted(evidence: Evidence) -> Complaints:
    """No poll is counted that was not made, and none is missing but those that a kill may lose: the quiet
    ones of a process that was killed, since its last tick that was committed, and no more than those of the
    last thirty seconds before the kill. Setting the cursor makes void the poll that is in flight, if one is.

    A tick is known to be committed once its process polls the trigger again."""
    for name, trigger in evidence.database.triggers.items():
        counted = sum(tick["count"] for tick in evidence.database.ticks if tick["schedule"] == trigger["row"])
        polls = [line for line in evidence.by_kind["poll"] if line["trigger"] == name]
        ended = [line for line in evidence.by_kind["polled"] if line["trigger"] == name]
        lost = sum(line["trigger"] == name for line in evidence.by_kind["set"])
        for pid, death in evidence.deaths.items():
            mine = [line for line in ended if line.pid == pid]
            begun = [line.mono for line in polls if line.pid == pid]
            kept = [line.mono for line in mine if is_tick(line) and begun and line.mono < begun[-1]]
            since = max([*kept[-1:], death - (FLUSH_SECONDS + SLACK_SECONDS) * 10**9])
            lost += sum(line.mono > since for line in mine)
        if counted > len(polls):
            yield f"the history counts {counted} polls of {name}, but {len(polls)} were made"
        if counted < len(ended) - lost:
            yield (
                f"the history counts {counted} polls of {name}, but {len(ended)} ended and at most {lost} "
                "may be lost"
            )


def is_tick(line: Line) -> bool:
    """Whether a poll surely asks for a commit of its own: fires may all be dropped, and are gathered then."""
    return line.get("moved") is not None


def an_epoch_has_one_owner(evidence: Evidence) -> Complaints:
    epochs = {owner["epoch"] for owner in evidence.database.owners}
    opens = evidence.by_kind["open"]
    if len(epochs) < len(evidence.database.owners) or len(epochs) < len(opens):
        yield f"{len(opens)} processes opened the file, but it knows {len(epochs)} epochs"
    for line in opens:
        if line["epoch"] not in epochs:
            yield f"process {line.pid} saw epoch {line['epoch']}, which is gone"
    for row in [*evidence.database.runs, *evidence.database.schedules]:
        if row["owner"] is not None and row["owner"] not in epochs:
            yield f"{row['id']} belongs to epoch {row['owner']}, which nobody has had"


def a_callback_sees_what_is_kept(evidence: Evidence) -> Complaints:
    ends = {run["id"]: run for run in evidence.database.runs}
    for (run, ended), calls in evidence.calls.items():
        if run not in ends:
            yield f"a callback was told of run {run}, which is not there"
        elif ends[run]["workflow"] == items.REOPENED:
            continue
        elif (ends[run]["status"], ends[run]["completed_at"]) != (calls[0]["status"], ended):
            kept = ends[run]["status"]
            yield f"a callback was told that run {run} is {calls[0]['status']}, and it is {kept}"


def an_end_is_told_again_only_after_a_death(evidence: Evidence) -> Complaints:
    """And never by two at a time."""
    for (run, _), calls in evidence.calls.items():
        for one, other in pairwise(calls):
            if one.pid not in evidence.deaths:
                yield f"the end of run {run} was told by process {one.pid}, which lived, and by {other.pid}"
            elif other.mono < evidence.deaths[one.pid]:
                yield f"the end of run {run} was told by {other.pid} while {one.pid} was alive"


ALWAYS = (
    the_file_is_sound,
    a_tick_is_whole,
    a_run_key_starts_one_run,
    equal_runs_do_not_overlap,
    beats_take_turns,
    what_a_body_saw_was_kept,
    a_success_has_a_body,
    a_success_is_not_repeated,
    an_attempt_has_a_number_of_its_own,
    attempts_do_not_overlap,
    polls_do_not_overlap,
    a_poll_sees_the_last_cursor,
    a_final_outcome_was_told,
    polls_are_counted,
    an_epoch_has_one_owner,
    a_callback_sees_what_is_kept,
    an_end_is_told_again_only_after_a_death,
)

# What holds once all is done.


def no_run_is_unfinished(evidence: Evidence) -> Complaints:
    for run in evidence.database.runs:
        if run["completed_at"] is None or run["status"] not in FINAL_RUN:
            yield f"run {run['id']} of {run['workflow']} is {run['status']}"
    for task in evidence.database.tasks:
        if task["status"] not in FINAL_TASK:
            yield f"task {task['name']} of run {task['run']} is {task['status']}"


def the_source_is_served(evidence: Evidence) -> Complaints:
    if evidence.database.cursor != evidence.last_item:
        yield f"the cursor stands at {evidence.database.cursor}, the source at {evidence.last_item}"


def outcomes_are_right(evidence: Evidence) -> Complaints:
    for run in evidence.database.runs_by(items.INBOX):
        item = json.loads(run["context"])["item"]
        tasks = {name: evidence.database.task_of.get((run["id"], name)) for name in items.ITEM_TASKS}
        statuses = {name: task and task["status"] for name, task in tasks.items()}
        if items.is_broken(item):
            wanted = {"fetch": "Completed", "parse": "Failed", "index": "Completed", "store": "Skipped"}
            if run["status"] != "Failed" or statuses != wanted:
                yield f"item {item} cannot be parsed, but ended as {run['status']}, {statuses}"
        elif run["status"] != "Completed" or set(statuses.values()) != {"Completed"}:
            yield f"item {item} ended as {run['status']}, {statuses}: {run['error']}"
        elif json.loads(run["final_context"]) != items.result_of(item, run["id"]):
            yield f"item {item} ended with {run['final_context']}"
    for run in evidence.database.runs_by(items.BEAT):
        if run["status"] != "Completed":
            yield f"a beat ended as {run['status']}: {run['error']}"


def everybody_has_left(evidence: Evidence) -> Complaints:
    for owner in evidence.database.owners:
        if owner["left_at"] is None:
            yield f"epoch {owner['epoch']} has not left"


def every_end_was_told(evidence: Evidence) -> Complaints:
    for end in evidence.database.ends:
        yield f"end {end['number']} of run {end['run']} is still to be told"
    for run in evidence.database.runs:
        calls = evidence.told.get((run["id"], run["completed_at"]), [])
        if run["status"] in FINAL_RUN and not any(call["ok"] for call in calls):
            yield f"nobody was told that run {run['id']} of {run['workflow']} is {run['status']}"


AT_REST = (
    no_run_is_unfinished,
    the_source_is_served,
    outcomes_are_right,
    everybody_has_left,
    every_end_was_told,
)

# What holds between two moments.


TOLD = ("told_outcome", "told_as", "told_calls", "told_at", "told_error")
"""What became of the callback of a run's end comes after that end."""


def without_told(run: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if run is None else {name: value for name, value in run.items() if name not in TOLD}


def what_was_final_stays(before: Evidence, after: Evidence) -> Complaints:
    reopened = {run["row"] for run in before.database.runs if run["workflow"] == items.REOPENED}
    for run in before.database.runs:
        if run["row"] in reopened:
            continue
        now_is = without_told(after.database.run_of.get(run["row"]))
        if run["completed_at"] is not None and now_is != without_told(run):
            yield f"run {run['id']} was {run['status']} and is now {after.database.run_of.get(run['row'])}"
    now = {(task["run"], task["name"]): task for task in after.database.tasks}
    for task in before.database.tasks:
        is_final = task["status"] in FINAL_TASK and task["run"] not in reopened
        if is_final and now.get((task["run"], task["name"])) != task:
            yield f"task {task['name']} of run {task['run']} was {task['status']} and has changed"
    if after.database.cursor < before.database.cursor:
        yield f"the cursor went back from {before.database.cursor} to {after.database.cursor}"
    keys = {(key["schedule"], key["key"]) for key in after.database.run_keys}
    for key in before.database.run_keys:
        if (key["schedule"], key["key"]) not in keys:
            yield f"run key {key['key']} is forgotten"


def what_was_done_is_not_begun(before: Evidence, after: Evidence) -> Complaints:
    done = {key for key, task in before.database.task_of.items() if task["status"] == "Completed"}
    for key, starts in after.starts.items():
        if key in done and starts[-1].mono > before.database.taken_at:
            yield f"{key} was Completed, and ran again in attempt {starts[-1]['attempt']}"


def owners_are_only_added(before: Evidence, after: Evidence) -> Complaints:
    old = {owner["epoch"] for owner in before.database.owners}
    new = {owner["epoch"] for owner in after.database.owners} - old
    opened = any(line.mono > before.database.taken_at for line in after.by_kind["open"])
    if not new and after.database.taken_at and opened:
        yield "a process opened the file, but has no epoch"
    if old and new and min(new) <= max(old):
        yield f"epoch {min(new)} was given after {max(old)}"


def what_was_told_is_not_told_again(before: Evidence, after: Evidence) -> Complaints:
    open_still = {end["run"] for end in before.database.ends}
    for run in before.database.runs:
        calls = after.calls.get((run["id"], run["completed_at"]), [])
        is_done = run["completed_at"] is not None and run["row"] not in open_still
        if is_done and calls and calls[-1].mono > before.database.taken_at:
            yield f"the end of run {run['id']} was told, and was told again"


SINCE = (
    what_was_final_stays,
    what_was_done_is_not_begun,
    owners_are_only_added,
    what_was_told_is_not_told_again,
)

Rule = Callable[..., Complaints]


def complaints(rules: Sequence[Rule], *evidence: Evidence) -> list[str]:
    """What all the rules have to say, each with its name; a few of each are enough."""
    found: list[str] = []
    for rule in rules:
        mine = list(rule(*evidence))
        found += [f"{rule.__name__}: {text}" for text in mine[:3]]
        if len(mine) > 3:
            found.append(f"{rule.__name__}: … and {len(mine) - 3} more")
    return found
