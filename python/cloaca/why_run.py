"""Says in one sentence where a run stands and why it is not over. Decides nothing: it words what the engine
and the store know."""

from __future__ import annotations

from . import registry
from .errors import excerpt
from .near import hint
from .places import BUILT_IN
from .rows import CALLBACKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

TASKS_TOLD_MAX = 5
"""So many tasks of one run are told; of the others only how many they are."""


def of_final(row: dict[str, Any], by: str = "") -> str:
    """One sentence about a run that is over; `by` is who ended it, if that is known."""
    name, at, error = _name(row), row["completed_at"], row["error_message"]
    if row["status"] == "Completed":
        return f"{name} completed at {at}{_untold(row)}"
    more = f"{_overdue(row)}{_untold(row)}"
    if row["status"] == "Failed":
        return f"{name} failed at {at}: {error}{more}"
    return f"{name} was cancelled at {at}{by and ' '}{by}{more}"


def of_own(
    row: dict[str, Any],
    standing: dict[str, Any],
    permits: Sequence[tuple[str, int]],
    executors: Mapping[int, str],
    limits: Mapping[str, dict[str, Any]],
    is_loop_lost: bool = False,
) -> str:
    """One sentence about a run that this runner has, from where it stands; ``limits`` by name, and whether
    the event loop has ended on which its async bodies run."""
    name = _name(row)
    if standing["refused"] is not None:
        return (
            f"{name} cannot go on, because the store refuses what became of it, which is tried again until it"
            f" takes that: {standing['refused']}"
        )
    if standing["is"] == "turn":
        return f"{name} {of_turn(standing['behind'], standing['ahead'], row['trigger_name'])}"
    if standing["is"] == "undeclared":
        return f"{name} waits for its workflow, which this program does not declare{_meant(row)}"
    if standing["is_at_its_end"]:
        return f"{name} is at its end, which is about to be kept"
    tasks = [
        _limited(task, limits)
        if task["doing"] == "limited"
        else _task(task, standing, permits, executors, _started(row, task), is_loop_lost)
        for task in standing["tasks"]
    ]
    if standing["is_halted"]:
        rest = f"; {_listed(tasks)}" if tasks else ""
        return f"{name} ends, because that was asked for or its time is up, once its tasks are home{rest}"
    if not tasks:
        return f"{name} is about to begin"
    ends_by = standing["ends_by"]
    is_told = ends_by is None or any(_is_too_late(task, standing) for task in standing["tasks"])
    ends = "" if is_told else f"; its time is up at {ends_by} ({standing['setting']})"
    return f"{name} goes on here: {_listed(tasks)}{ends}"


def of_turn(first: str, ahead: int, trigger: str | None) -> str:
    """That a run waits behind so many of its trigger, and which of them is the first."""
    others = f" and {ahead - 1} {_runs(ahead - 1)} after it" if ahead > 1 else ""
    return f"waits for its turn behind run {first}{others}{'' if trigger is None else _by(trigger)}"


def of_other(
    row: dict[str, Any],
    owner: int | None,
    is_living: bool,
    is_cancelled: bool,
    looks: bool,
    waits_until: str | None = None,
    *,
    turn: str | None = None,
    waits: str = "",
) -> str:
    """One sentence about a run that this runner does not have, from its records; `looks` is whether it would
    take it, `waits_until` until when nobody does, and `turn` and `waits` what it waits for where it is."""
    name = _name(row)
    begun = [
        rests(task["id"], task["attempts"], task["waits_since"])
        if task["waits_since"]
        else f"task {excerpt(task['id'])} is on record as begun, attempt {task['attempts']}{_failed(task)}"
        for task in row["tasks"]
        if task["status"] == "Running" and not task["waits_until"]
    ] + [
        f"task {excerpt(task['id'])} waits until {task['waits_until']}{_why(task)}"
        for task in row["tasks"]
        if task["waits_until"]
    ]
    ends = "; its end was asked for" if is_cancelled else ""
    records = f"; {_listed(begun)}" if begun else ""
    if owner is not None and is_living:
        if turn is not None:
            return f"{name} {turn}, in the hands of runner {owner} of this store, and not of this one{ends}"
        by = f"runner {owner} of this store, and not of this one"
        return f"{name} is in the hands of {by}{ends}{records}{waits}"
    if waits_until is not None:
        who = ", when a runner that declares its workflow takes it" if not looks else ""
        return f"{name} waits for its time, {waits_until}{who}{ends}"
    gone = "" if owner is None else f" that takes it over from runner {owner}, which is gone"
    if looks:
        return f"{name} waits for a runner{gone}; this one declares its workflow and looks again soon{ends}"
    workflow = excerpt(row["workflow_name"])
    if registry.knows(row["workflow_name"]):
        return (
            f"{name} waits for a runner{gone} that is for workflow {workflow}; this one is not at present"
            f"{ends}{records}"
        )
    return (
        f"{name} waits for a runner{gone}, in a program that declares workflow {workflow}; this program does "
        f"not{_meant(row)}{ends}{records}"
    )


def rests(task_id: str, attempt: int, since: str) -> str:
    """That a body waits without a slot, where only the record tells."""
    what = "its own condition or a run that it has started"
    return f"task {excerpt(task_id)} waits in attempt {attempt} since {since}, without a slot, for {what}"


def of_taken(row: dict[str, Any], trouble: str | None = None) -> str:
    """One sentence about a run that is this runner's, and not in its hands yet; `trouble` is what the store
    refuses meanwhile."""
    waits = "" if trouble is None else f", once the store lets it: {trouble}"
    return f"{_name(row)} is this runner's and about to be taken in hand{waits}"


def of_asked(row: dict[str, Any]) -> str:
    """One sentence about a run that no runner has admitted yet."""
    return (
        f"{_name(row)} was asked for in a transaction of its program's, and waits for a runner of this store"
        " that works to admit it"
    )


def of_held(row: dict[str, Any], told: str, is_cancelled: bool) -> str:
    """A run that limits hold, and what it waits for."""
    return f"{_name(row)}{_of_trigger(row)} {told}{'; its end was asked for' if is_cancelled else ''}"


def _name(row: dict[str, Any]) -> str:
    return f"run {row['id']} of workflow {excerpt(row['workflow_name'])}"


def _meant(row: dict[str, Any]) -> str:
    return hint(row["workflow_name"], "workflows", registry.names())


def _of_trigger(row: dict[str, Any]) -> str:
    return _by(row["trigger_name"]) if row["trigger_name"] else ""


def _by(trigger: str) -> str:
    return f" of trigger {excerpt(trigger)}"


def _task(
    task: dict[str, Any],
    standing: dict[str, Any],
    permits: Sequence[tuple[str, int]],
    executors: Mapping[int, str],
    started: str,
    is_loop_lost: bool,
) -> str:
    name, attempt, doing = f"task {excerpt(task['id'])}", task["attempt"], task["doing"]
    if doing == "in_body":
        return f"{name} is in its body, attempt {attempt}, begun first at {task['started_at']}{_failed(task)}"
    if doing == "told":
        return f"{name} was told to end in attempt {attempt}, and its body still runs"
    if doing == "deferred":
        if started:
            return f"{name} waits in attempt {attempt}, without a slot, for {started} or its own condition"
        return f"{name} waits in attempt {attempt} for its own condition, without a slot"
    if doing == "retry":
        when = f"at {task['due']}" if task["due"] else "soon"
        late = _too_late(task, standing)
        if late:
            return f"{name} would be tried again {when}, as attempt {attempt}{_failed(task)}{late}"
        return f"{name} is tried again {when}, as attempt {attempt}{_failed(task)}"
    if doing == "postponed":
        when = f"until {task['due']}" if task["due"] else "a while"
        late = _too_late(task, standing)
        return f"{name} waits {when} by its own wish{late or f', then comes attempt {attempt}'}"
    if doing == "settling":
        return f"{name} is over after attempt {attempt}, and its callback is being told"
    if doing == "looked":
        return f"whether {name} runs is being read from its contexts"
    if is_loop_lost and task["executor"] == BUILT_IN["loop"]:
        lost = "the event loop that async bodies run on here has ended"
        return f"{name} waits for another runner, as {lost}; attempt {attempt} begins there{_failed(task)}"
    if standing["is_permit_free"]:
        return f"{name} is about to begin attempt {attempt}{_failed(task)}"
    if (executor := executors.get(task["executor"])) is not None:
        return f"{name} waits for a place in executor {excerpt(executor)} for attempt {attempt}"
    setting, slots = permits[task["executor"]]
    slot = "the slot" if slots == 1 else f"one of the {slots} slots"
    return f"{name} waits for {slot} of this runner ({setting}) for attempt {attempt}"


def _limited(task: dict[str, Any], limits: Mapping[str, dict[str, Any]]) -> str:
    """What a task waits for that has no seat of a limit."""
    name, attempt = f"task {excerpt(task['id'])}", task["attempt"]
    shut = [words for limit in task["limits"] if limit in limits for words in of_limit(limits[limit])]
    seats = f"a seat of {_named(task['limits'])}"
    return f"{name} waits for {seats} for attempt {attempt}{_failed(task)}: {', and '.join(shut) or 'soon'}"


def of_limit(limit: dict[str, Any]) -> list[str]:
    """What keeps attempts under a limit from beginning, a sentence each."""
    name, told = f"limit {excerpt(limit['name'])}", []
    if limit["pause"] is not None:
        told.append(of_pause(limit["pause"]))
    most, waiting = limit["terms"]["concurrency"], limit["waiting"]
    if most is not None and limit["taken"] >= most:
        wait = "1 attempt waits" if waiting == 1 else f"{waiting} attempts wait"
        told.append(f"{limit['taken']} of {most} seats of {name} are taken, and {wait}")
    if limit["next_at"] is not None:
        told.append(f"the throttle of {name} lets the next one begin at {limit['next_at']}")
    return told


def of_paused(pauses: Sequence[dict[str, Any]], workflow: str) -> str:
    """What to add where runs of a workflow are waited for that is paused."""
    meant = ("workflow", workflow, None)
    return "".join(f"; {of_pause(row)}" for row in pauses if (row["kind"], row["name"], row["key"]) == meant)


def of_pause(pause: dict[str, Any]) -> str:
    """What is paused, until when and by whom."""
    until = "" if pause["until"] is None else f" until {pause['until']}"
    what = f"{pause['kind']} {excerpt(pause['name'])}"
    key = "" if pause["key"] is None else f"key {excerpt(pause['key'])} of "
    return f"{key}{what} is paused{until}, by {pause['by']}"


def _named(limits: Sequence[str]) -> str:
    kind = "limit" if len(limits) == 1 else "limits"
    return f"{kind} {' and '.join(map(excerpt, limits))}"


def _started(row: dict[str, Any], task: dict[str, Any]) -> str:
    """The runs that a task has started and that are not over."""
    open_ones = [
        child
        for child in row["children"]
        if child["task"] == task["id"] and child["status"] in ("Pending", "Running")
    ]
    if not open_ones:
        return ""
    first, more = open_ones[0], len(open_ones) - 1
    others = f" and {more} more {_runs(more)}" if more else ""
    return f"run {first['id']} of workflow {excerpt(first['workflow_name'])}{others}"


def _overdue(row: dict[str, Any]) -> str:
    """What of a final run still runs."""
    bodies = [
        f"the body of task {excerpt(task['id'])}, given up at {task['overdue_since']},"
        for task in row["tasks"]
        if task["overdue_since"]
    ]
    return (
        f"; {_listed(bodies)} still runs, and until it has ended the run cannot be retried" if bodies else ""
    )


def _untold(row: dict[str, Any]) -> str:
    """Which callbacks of a final run have raised so far, or to the end."""
    told = []
    for call in row["callbacks"]:
        if call["error"] is not None:
            again = "is being called again" if call["begun_at"] else f"is called again at {call['due_at']}"
            # A call that is under way has raised nothing yet.
            raised = call["attempts"] - bool(call["begun_at"])
            told.append(
                f"{CALLBACKS[call['status']]} has raised in {_calls(raised)} and {again}: {call['error']}"
            )
    last = row["last_callback"]
    if last is not None and last["outcome"] == "given_up":
        name, calls = CALLBACKS[last["status"]], _calls(last["attempts"])
        told.append(f"{name} was given up at {last['at']}, as it raised in {calls}: {last['error']}")
    return "".join(f"; its {each}" for each in told)


def _calls(count: int) -> str:
    return f"{count:,} {'call' if count == 1 else 'calls'}"


def _too_late(task: dict[str, Any], standing: dict[str, Any]) -> str:
    """What to add where the next attempt would come after the time of the run."""
    if not _is_too_late(task, standing):
        return ""
    return f", and the time of the run is up before that, at {standing['ends_by']} ({standing['setting']})"


def _is_too_late(task: dict[str, Any], standing: dict[str, Any]) -> bool:
    due, ends_by = task["due"], standing["ends_by"]
    return due is not None and ends_by is not None and due >= ends_by


def _why(task: dict[str, Any]) -> str:
    return _failed(task) or " by its own wish"


def _failed(task: dict[str, Any]) -> str:
    return f", after {task['error']}" if task["error"] else ""


def _listed(tasks: list[str]) -> str:
    more = len(tasks) - TASKS_TOLD_MAX
    rest = [f"{more} more {'task' if more == 1 else 'tasks'}"] if more > 0 else []
    return "; ".join(tasks[:TASKS_TOLD_MAX] + rest)


def _runs(count: int) -> str:
    return "run" if count == 1 else "runs"
