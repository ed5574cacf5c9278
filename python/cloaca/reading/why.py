"""Says in one sentence, from what the store has on record, what a trigger, a cron or a run does and why it
does nothing else. Who asks is no runner, so that it says what is on record, and who would know more."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

from .. import check, held, rows, waiting, why_run
from ..errors import excerpt
from ..why import (
    Kept,
    besides,
    disabled_by,
    ending,
    ends_of,
    named,
    of_unread,
    polled,
    put_off,
    told,
    unnamed,
)
from .attention import failing_callbacks, given_up_callbacks
from .audit import by_whom
from .runners import RUNNERS_MAX, declaring, living, of_silent
from .runs import find_run, run
from .schedules import Trigger, schedules_named, unstarted
from .store import MissingError, names, now, unknown
from .workflows import workflow, workflow_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..why import Way
    from .runs import RunDetails, Task
    from .schedules import Cron
    from .store import Reader

UNDER_WAY_MAX = 50
UNDER_WAY_TOLD = 2
# By runs_unfinished: what is under way is among the oldest, of however many wait.
_UNDER_WAY = f"""
    SELECT oldest.id, tasks.name AS task FROM (
        SELECT runs.row AS place, id, owner FROM runs
        WHERE completed_at IS NULL AND not_before IS NULL ORDER BY runs.row LIMIT 1000
    ) AS oldest JOIN tasks ON tasks.run = oldest.place
    WHERE oldest.owner = ?1 AND oldest.id <> ?2 AND tasks.status = 'Running'
    ORDER BY oldest.place, tasks.position LIMIT {UNDER_WAY_MAX}"""
TASKS_TOLD_MAX = 5
"""So many tasks of one run are told; of the others only how many they are."""


def why(reader: Reader, name_or_id: str, *, way: Way = unnamed) -> str:
    """One sentence about a trigger, a cron, a run or a workflow; `way` names what it advises.

    Raises:
        MissingError: (a `LookupError`) nothing has that name or id.
    """
    try:
        found = schedules_named(reader, name_or_id)
    except MissingError:
        try:
            run_id = find_run(reader, name_or_id)
        except MissingError as missing:
            if "more than one" in str(missing):
                raise
            if name_or_id in (known := workflow_names(reader)):
                return of_workflow(reader, name_or_id)
            every = sorted({*names(reader), *known})
            raise unknown("trigger, workflow or run", name_or_id, "triggers and workflows", every) from None
        return of_run(reader, run(reader, run_id))
    return "; ".join(_of_schedule(reader, each, way) for each in found)


def _of_schedule(reader: Reader, found: Trigger | Cron, way: Way) -> str:
    """One sentence about a trigger or a cron, and what the store tells besides."""
    told = of_trigger(reader, found) if isinstance(found, Trigger) else of_cron(reader, found)
    native, mask = reader.native, reader.mask()
    kept = Kept(
        run=native.run,
        runs=native.runs,
        pauses=reader.pauses,
        hide=lambda run_id, text: reader.of_run(mask, run_id).hide(text),
        look=native.query,
        way=way,
        idle=lambda: _of_idle(reader),
    )
    told += _of_silent(reader, found)
    if unstarted(reader, [found]):
        workflow = excerpt(found.workflow_name)
        told += f"; no living runner declares workflow {workflow}, which it starts{_of_idle(reader)}"
    last = None if found.last is None else _row(found.last)
    is_off = found.state in ("stopped", "disabled")
    return f"{told}{besides(kept, found.trigger_name, last, None if is_off else found.workflow_name)}"


def _of_silent(reader: Reader, found: Trigger | Cron) -> str:
    """That nobody who serves it has been heard of for long: what is due does not come then."""
    if found.state in ("stopped", "disabled", "unserved"):
        return ""
    if isinstance(found, Trigger):
        return of_silent(reader, [] if found.runner is None else [found.runner])
    return of_silent(reader, _serving(reader, found))


def _nobody(reader: Reader) -> str:
    """That no living runner has a trigger, and the way out. What a paused one will declare is not known."""
    idle = _of_idle(reader)
    return f"no living runner has it{idle}; {'or ' if idle else ''}start a program that declares it"


def _of_idle(reader: Reader) -> str:
    """That who may serve what nobody does is paused, as the end of a sentence."""
    return rows.of_paused(reader.native.owners(RUNNERS_MAX))


def _serving(reader: Reader, cron: Cron) -> list[int]:
    """The living runners that may start its workflow."""
    return declaring(reader, [cron.workflow_name], living(reader)).get(cron.workflow_name, [])


def of_trigger(reader: Reader, trigger: Trigger) -> str:
    """One sentence about a trigger that is polled, or told of ends of runs."""
    name, last = f"trigger {excerpt(trigger.trigger_name)}", trigger.last
    row = None if last is None else _row(last)
    heard = ends_of(trigger.on_run, trigger.on_run_status)
    if trigger.state in ("stopped", "disabled"):
        cause = trigger.disabled_cause
        by = disabled_by(cause, heard) if cause else "it was switched off"
        return f"{name} is not {polled(heard)}: {by} at {trigger.disabled_at}{ending(row, heard)}"
    if trigger.runner is None:
        return f"{name} is not {polled(heard)}: {_nobody(reader)}{ending(row, heard)}"
    if trigger.in_body_since is not None:
        since = f"since {trigger.in_body_since}, in runner {trigger.runner}"
        return f"{name} is in its function {since}, and has not come back{ending(row, heard)}"
    off = _backs_off(reader, trigger, heard)
    record = "" if row is None else f"on record, it {told(row, heard)}"
    if heard is not None:
        by = f"waits for a run to end, {heard}, in runner {trigger.runner}"
        return f"{name} {by}{off}; {record or 'none has yet'}"
    by = f"is polled by runner {trigger.runner}"
    due = off or ("" if trigger.next_poll_at is None else f", the next is due at {trigger.next_poll_at}")
    if row is None:
        return f"{name} {by}; none of its polls is on record yet{due}"
    return f"{name} {by}{due}; {record}"


def _backs_off(reader: Reader, trigger: Trigger, heard: str | None) -> str:
    """Until when it waits, and why, if it does not go by its interval."""
    at = check.microseconds(now())
    return put_off(reader.native.query, trigger.trigger_name, at, trigger.next_poll_at, heard)


def of_cron(reader: Reader, cron: Cron) -> str:
    """One sentence about a cron."""
    name = "a cron" if cron.trigger_name is None else f"trigger {excerpt(cron.trigger_name)} is a cron"
    says = f"{name}, {cron.cron_expression!r} in {cron.timezone!r}, that starts {excerpt(cron.workflow_name)}"
    before = f"; it ran last at {cron.last_run_at}" if cron.last_run_at else "; it has not run yet"
    # What has run since was not decided: its function takes no moment any more, say.
    is_newest = cron.last is not None and (cron.last_run_at is None or cron.last.last_at >= cron.last_run_at)
    is_put_off = cron.is_put_off
    if cron.last is not None and is_newest and (is_put_off or cron.last.outcome != "fire"):
        what = "failed" if cron.last.outcome == "error" else "was put off" if is_put_off else "was left out"
        before += f"; its last moment {what}{f': {cron.last.reason}' if cron.last.reason else ''}"
    if cron.state == "disabled":
        return f"{says}, and was switched off at {cron.disabled_at}{before}"
    if cron.state == "unserved":
        return f"{says}, and nobody is there for it: no living runner declares it{_of_idle(reader)}{before}"
    if (unread := of_unread(cron.cron_expression, cron.timezone)) is not None:
        return f"{says}, and {unread}{before}"
    if cron.in_body_since is not None:
        return f"{says}, and is in its function since {cron.in_body_since}: that has not come back{before}"
    if cron.state == "failing" or is_put_off:
        return f"{says}, and its function is called again for {cron.next_run_at}{before}"
    if cron.state == "late":
        nobody = f": no living runner declares it or its workflow{_of_idle(reader)}"
        why = "" if _serving(reader, cron) else nobody
        return f"{says}, and was due at {cron.next_run_at}{why}{before}"
    return f"{says}, and runs next at {cron.next_run_at}{before}"


def of_workflow(reader: Reader, name: str) -> str:
    """One sentence about a workflow: who serves it, what holds it up, and what waits."""
    found = workflow(reader, name)
    pauses = reader.pauses()
    nobody = f"workflow {excerpt(name)} is declared by no living runner: its runs wait for one"
    told = [f"{nobody}{'' if found.runners else _of_idle(reader)}"]
    if found.runners:
        one = len(found.runners) == 1
        by = f"declared by runner{'' if one else 's'} {named(found.runners)}"
        told = [f"workflow {excerpt(name)} is {by}{of_silent(reader, found.runners)}"]
    told += [why_run.of_pause(row) for row in pauses if row["kind"] == "workflow" and row["name"] == name]
    if found.pending or found.running:
        begun = f"{found.running:,} {'is' if found.running == 1 else 'are'} under way"
        waits = f"{found.pending:,} {'run waits' if found.pending == 1 else 'runs wait'}"
        told.append(f"{waits} and {begun}, the oldest of {found.oldest_at}")
    elif not found.delayed:
        told.append("none of its runs waits")
    if found.delayed:
        wait = "run waits for its" if found.delayed == 1 else "runs wait for their"
        told.append(f"{found.delayed:,} {wait} time")
    for each in failing_callbacks(reader):
        if each.workflow_name == name:
            keeps = "callback keeps" if each.count == 1 else "callbacks keep"
            told.append(
                f"{each.count:,} of its {'run has' if each.count == 1 else 'runs have'} ended whose {keeps}"
                f" failing, first that of run {each.run_id} in {each.attempts} calls: {excerpt(each.error)};"
                f" `cloaca runs --untold` lists them, `cloaca tell RUN` has one called now, and"
                f" `cloaca skip --run RUN` drops it"
            )
    for lost in given_up_callbacks(reader, now() - timedelta(days=1)):
        if lost.workflow_name == name:
            told.append(
                f"{lost.count:,} of its {'run has' if lost.count == 1 else 'runs have'} ended of which nobody"
                f" is told any more, as the callback raised for a day: it was given up within the last 24"
                f" hours, first that of run {lost.run_id} after {lost.attempts} calls: {excerpt(lost.error)}"
            )
    if found.last_status is None:
        told.append("it has not run yet")
    else:
        error = f": {found.last_error}" if found.last_error else ""
        told.append(f"its newest run, of {found.last_run_at}, is {found.last_status}{error}")
    return "; ".join(told)


def of_run(reader: Reader, details: RunDetails) -> str:
    """One sentence about a run."""
    found = details.run
    row = {
        "id": found.id,
        "workflow_name": found.workflow_name,
        "status": found.status,
        "completed_at": found.completed_at,
        "error_message": found.error_message,
        "tasks": [{"id": task.id, "overdue_since": task.overdue_since} for task in details.tasks],
        "callbacks": [asdict(call) for call in details.callbacks],
        "last_callback": None if details.last_callback is None else asdict(details.last_callback),
    }
    by = "" if details.cancelled_by is None else by_whom(details.cancelled_by)
    if found.completed_at is not None:
        return why_run.of_final(row, by)
    name = f"run {found.id} of workflow {excerpt(found.workflow_name)}"
    ends = f"; its end was asked for{by and ' '}{by}" if found.cancel_requested else ""
    begun = [_begun(task) for task in details.tasks if task.status == "Running"]
    more = len(begun) - TASKS_TOLD_MAX
    shown = begun[:TASKS_TOLD_MAX] + ([f"{more} more tasks"] if more > 0 else [])
    records = f"; {'; '.join(shown)}" if shown else ""
    left = [child for child in details.children if child.completed_at is None]
    records += waiting.child((child.id, child.workflow_name) for child in left)
    if details.is_living:
        turn = waiting.turn(reader.native.query, found.id, found.trigger_name)
        if turn is not None:
            silent = of_silent(reader, [] if details.runner is None else [details.runner])
            return f"{name} {turn}, in the hands of runner {details.runner}{ends}{silent}"
        waits = waiting.seats(reader.native.query, reader.native.limits, found.id)
        ready = "" if found.cancel_requested else _ready(reader, details)
        silent = of_silent(reader, [] if details.runner is None else [details.runner])
        return f"{name} is in the hands of runner {details.runner}{ends}{records}{waits}{ready}{silent}"
    paused = "" if found.started_at is not None else why_run.of_paused(reader.pauses(), found.workflow_name)
    by_limit = held.of_run(
        reader.native.query, found.id, check.microseconds(now()), rows.moment, reader.keyed()
    )
    declared = declaring(reader, [found.workflow_name], living(reader))
    numbers = declared.get(found.workflow_name, [])
    silent = of_silent(reader, numbers) if numbers else ""
    if by_limit is not None:
        nobody = "" if numbers else f"; no living runner declares its workflow{_of_idle(reader)}"
        return f"{name} {by_limit}{ends}{paused}{nobody}{silent}"
    gone = "" if details.runner is None else f"; runner {details.runner}, which had it, is gone"
    ends += paused
    if found.started_at is None and found.due_at is not None and found.due_at > _now():
        nobody = "" if numbers else ", and for a runner that declares its workflow, which no living one does"
        nobody += "" if numbers else _of_idle(reader)
        return f"{name} waits for its time, {found.due_at}{nobody}{ends}"
    if not numbers:
        waits = f"a runner that declares its workflow, which no living one does{_of_idle(reader)}"
    elif len(numbers) == 1:
        waits = f"runner {numbers[0]}, which declares its workflow and has not taken it yet"
    else:
        waits = f"one of runners {named(numbers)}, which declare its workflow and have not taken it yet"
    return f"{name} waits for {waits}{gone}{ends}{records}{silent}"


def _ready(reader: Reader, details: RunDetails) -> str:
    """Which tasks nothing on record keeps from beginning: what is left is a slot of their runner."""
    status = {task.id: task.status for task in details.tasks}
    seats = {row["task"] for row in reader.native.query(waiting.SEATS, [details.run.id])}
    ready = [
        f"task {excerpt(node.id)}"
        for node in details.graph
        if status.get(node.id) == "Pending" and node.id not in seats and node.rule is None
        if all(status.get(each) == "Completed" for each in node.dependencies)
    ]
    if not ready:
        return ""
    more = len(ready) - TASKS_TOLD_MAX
    named = " and ".join(ready[:TASKS_TOLD_MAX] + ([f"{more} more"] if more > 0 else []))
    begin, wait = ("is", "waits") if len(ready) == 1 else ("are", "wait")
    executor = "a place in its executor" if len(ready) == 1 else "places in their executors"
    told = f"; {named} {begin} about to begin, or {wait} for a slot of that runner or {executor}"
    return f"{told}{_under_way(reader, details)}"


def _under_way(reader: Reader, details: RunDetails) -> str:
    """Which tasks of other runs their runner has begun, as the end of a sentence: those have its places."""
    begun = reader.native.query(_UNDER_WAY, [details.runner, details.run.id])
    if not begun:
        return ""
    told = [f"task {excerpt(row['task'])} of run {row['id']}" for row in begun[:UNDER_WAY_TOLD]]
    more = len(begun) - len(told)
    many = f"{more} or more" if len(begun) >= UNDER_WAY_MAX else f"{more}"
    return f"; under way there: {', '.join(told)}{f' and {many} more' if more else ''}"


def _now() -> str:
    return rows.moment(check.microseconds(now()))


def _begun(task: Task) -> str:
    after = f", after {task.error}" if task.error else ""
    if task.waits_until:
        return f"task {excerpt(task.id)} waits until {task.waits_until}{after or ' by its own wish'}"
    if task.waits_since:
        return why_run.rests(task.id, task.attempts, task.waits_since)
    return f"task {excerpt(task.id)} is on record as begun, attempt {task.attempts}{after}"


def _row(last: Any) -> Any:
    return {name: getattr(last, name) for name in last.__slots__}
