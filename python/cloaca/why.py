"""Says in one sentence what a trigger does and why it has not fired. Decides nothing: it words what the
engine knows."""

from __future__ import annotations

import re
from itertools import takewhile

from . import filters, registry, rows, why_run
from .errors import ScheduleError, excerpt
from .near import hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from .types import CronScheduleRow, TickRow

    Way = Callable[[str, str], str]
    """Names an act, `"retry"` of a run or `"skip"` of an end that a trigger is told of, as a way out."""

STOPPED = "this runner has stopped by itself; the log (logger 'cloaca', level ERROR) says why"
"""Of a runner that goes on with nothing."""

LOOKS_SECONDS = 10.0
"""Whoever asks why waits no longer for a store that does not answer, however much is looked at."""
ENDS_COUNTED_MAX = 1000
"""So many ends of runs that wait for a trigger are counted."""
RUNS_LOOKED_MAX = 50
"""So many of a trigger's newest runs are looked at."""
ERROR_CHARS_MAX = 200
"""So much of a run's error is told."""

_HOLDER = re.compile(r"\brun key .* started run ([0-9a-f-]{36})")


_NAMED_MAX = 3
"""So many runners are named."""
# By ends_listener. What the declaration in force does not ask for waits for another one.
_WAITING = """
    FROM schedules
        JOIN listeners AS heard ON heard.listener = schedules.row AND heard.listener <> 0
        JOIN ends ON ends.listener = heard.listener AND ends.workflow = heard.workflow AND ends.listener <> 0
    WHERE schedules.kind = 'trigger' AND schedules.name = ? AND (heard.wanted & ends.outcome) <> 0"""
_ENDS = f"SELECT count(*) AS many FROM (SELECT 1 {_WAITING} LIMIT ?) AS found"
# By schedules_trigger, listeners_listener and the primary keys of `workflows` and `owners`.
_UNDECLARED = """
    SELECT heard.workflow FROM schedules
        JOIN listeners AS heard ON heard.listener = schedules.row AND heard.listener <> 0
    WHERE schedules.kind = 'trigger' AND schedules.name = ? AND heard.wanted <> 0 AND NOT EXISTS (
        SELECT 1 FROM workflows JOIN owners ON owners.epoch = workflows.owner AND owners.left_at IS NULL
        WHERE workflows.name = heard.workflow)"""
# Index schedules_trigger. Who switches it on takes `not_before` back.
_WAITS_UNTIL = """
    SELECT not_before, failures FROM schedules
    WHERE kind = 'trigger' AND name = ? AND wait_us IS NOT NULL AND not_before > ?"""
# The oldest of those ends.
_FIRST_END = f"SELECT id FROM runs WHERE row = (SELECT ends.run {_WAITING} ORDER BY ends.row LIMIT 1)"


def sentence(trigger: dict[str, Any], ticks: Sequence[TickRow]) -> str:
    """One sentence about a trigger, from its row with `standing`, and its newest tick."""
    name = f"trigger '{trigger['trigger_name']}'"
    standing = trigger["standing"]
    last = ticks[0] if ticks else None
    heard = ends_of(trigger["on_run"], trigger["on_run_status"])
    if not trigger["enabled"]:
        cause = trigger["disabled_cause"]
        by = disabled_by(cause, heard) if cause else "set_trigger_enabled switched it off"
        return f"{name} is not {polled(heard)}: {by} at {trigger['disabled_at']}{ending(last, heard)}"
    if standing is None:
        absent = f"{name} {_absent(trigger, polled(heard))}"
        if trigger["polled_by"] is None or trigger["paused"]:
            return f"{absent}{ending(last, heard)}"
        return f"{absent}{trigger['put_off']}{_on_record(last, heard)}"
    since = f" since {standing['polled_since']}" if standing["polled_since"] else ""
    if standing["waits_for_older"]:
        not_yet = f"was declared again and is not {polled(heard)} yet"
        waits = f"it waits for its earlier declaration's function, which has not answered{since}"
        return f"{name} {not_yet}: {waits}{ending(last, heard)}"
    if standing["in_body"]:
        return f"{name} is being {polled(heard)}{since} and has not answered yet{ending(last, heard)}"
    if standing["elsewhere"]:
        by = f"{name} is {polled(heard)} by another runner of this store"
        return f"{by}{trigger['put_off']}{_on_record(last, heard)}"
    polled_at = standing["last_poll_at"]
    if last is None and polled_at is None and heard is not None:
        since = "none has since it was declared, and it is told of none that ended before"
        return f"{name} waits for a run to end, {heard}: {since}"
    if last is None and polled_at is None:
        return f"{name} has not been polled yet; its first poll is due at {standing['next_poll_at']}"
    if standing["backs_off"]:
        cause = backing_off(standing["failures"], heard)
        if standing["goes_on"]:
            cause = "its own wish, in an earlier runner"
        return f"{name} backs off until {standing['next_poll_at']} after {cause}{ending(last, heard)}"
    due = standing["next_poll_at"]
    if last is None:
        noun = "polls" if heard is None else "calls"
        did = f"was last {polled(heard)} at {polled_at}, and none of its {noun} is on record yet"
    else:
        did = told(last, heard)
    if heard is not None:
        return f"{name} {did}; it is called for the next run that ends, {heard}"
    return f"{name} {did}{f'; its next poll is due at {due}' if due else ''}"


def of_silence(trouble: str | None, polled_at: str | None, last: TickRow | None, heard: str | None) -> str:
    """That the store takes nothing, as `trouble` says, and has no record of the last poll, if it has none."""
    if trouble is None:
        return ""
    untold = ""
    if polled_at is not None and last is not None and polled_at > last["last_at"]:
        untold = f"; it was last {polled(heard)} at {polled_at}, which is not on record yet"
    return f"{untold}; the store takes nothing at the moment: {trouble}"


def backing_off(failures: int, heard: str | None) -> str:
    """What a trigger backs off after: so many failures in a row, or none; `heard` as by `ends_of`."""
    noun = "poll" if heard is None else "call"
    cause = f"{failures} failed {_times(failures, noun)} in a row" if failures else "its own wish"
    return cause if heard is None else f"{cause}, and is told of the same end of a run then"


def put_off(
    look: Callable[[str, Sequence[Any]], list[dict[str, Any]]],
    name: str,
    at: int,
    due: str | None,
    heard: str | None,
) -> str:
    """Until when a trigger waits, and why, as the store has it, if it does not go by its interval; `due` is
    its next beat, `heard` as by `ends_of`."""
    for row in look(_WAITS_UNTIL, [name, at]):
        cause = backing_off(row["failures"], heard)
        # Its next beat may come a while after that; who is told of ends of runs has none.
        return f", and backs off until {due or rows.moment(row['not_before'])} after {cause}"
    return ""


def disabled_by(cause: str, heard: str | None) -> str:
    """Who disabled a trigger, and why: `heard` as by `ends_of`."""
    # That is on record in the words for one that is polled.
    told = cause if heard is None else cause.replace(" polls in a row ", " calls in a row ")
    return f"the engine disabled it because {told}"


def polled(heard: str | None) -> str:
    """What is done with a trigger, or not: `heard` as by `ends_of`."""
    return "polled" if heard is None else "called"


def ends_of(on_run: str | None, statuses: Sequence[str]) -> str | None:
    """Of which ends of runs a trigger is told; `None` if it is polled."""
    if on_run is None:
        return None
    return f"each end of {on_run}" if len(statuses) == 3 else f"{on_run} {' or '.join(statuses)}"


def undeclared(workflow: str) -> str:
    """What follows for a trigger or a cron that starts a workflow which the program has not declared."""
    return (
        f"starts workflow {excerpt(workflow)}, which this program does not declare: nothing starts until it"
        f" does{hint(workflow, 'workflows', registry.names())}"
    )


class Kept:
    """How the store is asked by whoever tells of a trigger, a runner or not."""

    __slots__ = ("hide", "idle", "look", "pauses", "run", "runs", "way")

    def __init__(
        self,
        *,
        run: Callable[[str], dict[str, Any] | None],
        runs: Callable[[dict[str, Any], int], Sequence[dict[str, Any]]],
        pauses: Callable[[], Sequence[dict[str, Any]]],
        hide: Callable[[str, str], str],
        look: Callable[[str, Sequence[Any]], list[dict[str, Any]]],
        way: Way,
        idle: Callable[[], str],
    ) -> None:
        self.run = run
        """One run by its id."""
        self.runs = runs
        """So many runs that `filters.wanted` describes, newest first."""
        self.pauses = pauses
        """What is paused."""
        self.hide = hide
        """A text about a run, without its secrets."""
        self.look = look
        """What a statement reads of the store."""
        self.way = way
        """How an act is named where that is read."""
        self.idle = idle
        """That there are paused runners, which may declare what no living one does."""


def by_call(act: str, of: str) -> str:
    """How a program does it."""
    return f"{'skip_end' if act == 'skip' else act}({of!r})"


def by_command(act: str, of: str) -> str:
    """How it is done at the shell."""
    import shlex

    return f"`cloaca {act} {shlex.quote(of)}`"


def unnamed(act: str, of: str) -> str:
    """What is to be done, for who finds a button for it, or does it by either of these."""
    return f"a {act}"


def besides(kept: Kept, name: str | None, last: Mapping[str, Any] | None, workflow: str | None) -> str:
    """What the store tells beside what a trigger or a cron does: what became of the run whose key is why its
    newest poll started none, that its newest runs failed, and that its workflow is paused."""
    run_id = None if last is None else _holder(last)
    row = None if run_id is None else kept.run(run_id)
    told = "" if run_id is None else _of_holder(row, kept.way)
    if name is not None:
        failed = _failed_of(kept.runs(filters.wanted(trigger=name), RUNS_LOOKED_MAX))
        if failed:
            told += _of_failures(failed, kept.hide(failed[0]["id"], failed[0]["error_message"] or ""))
        if (unknown := unheard(kept.look, name)) is not None:
            told += f"; no living runner declares workflow {excerpt(unknown)}, of whose ends it is to be told"
            told += kept.idle()
        if many := ends_waiting(kept.look, name):
            told += _of_ends(many, first_end(kept.look, name))
            if last is not None and last["outcome"] == "error":
                told += f"; {kept.way('skip', name)} has it go on without that one"
    return told if workflow is None else f"{told}{why_run.of_paused(kept.pauses(), workflow)}"


def unheard(look: Callable[[str, Sequence[Any]], list[dict[str, Any]]], name: str) -> str | None:
    """The workflow of whose ends a trigger is to be told, if no living runner declares it."""
    found = look(_UNDECLARED, [name])
    return found[0]["workflow"] if found else None


def ends_waiting(look: Callable[[str, Sequence[Any]], list[dict[str, Any]]], name: str) -> int:
    """Of how many ends of runs a trigger is still to be told; at most `ENDS_COUNTED_MAX`."""
    many: int = look(_ENDS, [name, ENDS_COUNTED_MAX])[0]["many"]
    return many


def first_end(look: Callable[[str, Sequence[Any]], list[dict[str, Any]]], name: str) -> str | None:
    """The run whose end a trigger is to be told of next."""
    found = look(_FIRST_END, [name])
    return found[0]["id"] if found else None


def of_ends(many: int, name: str) -> str:
    """That so many ends of runs wait for a trigger."""
    return f"{_waiting(many)} for {excerpt(name)}"


def _waiting(many: int) -> str:
    least = "at least " if many == ENDS_COUNTED_MAX else ""
    return f"{least}{many} {_times(many, 'end')} of runs {'waits' if many == 1 else 'wait'}"


def _of_ends(many: int, first: str | None) -> str:
    told = f"; {_waiting(many)} for it"
    if first is None:
        return told
    return f"{told}, that of run {first}{' first, and the others behind it' if many > 1 else ''}"


def _holder(last: Mapping[str, Any]) -> str | None:
    """The run that has the run key which is why a poll started none."""
    named = _HOLDER.search(last["reason"] or "") if last["outcome"] == "skip" else None
    return None if named is None else named[1]


def _of_holder(row: dict[str, Any] | None, way: Way) -> str:
    """What became of that run."""
    if row is None:
        kept = "that run is not kept any more, and its key is still used up"
        return f"; {kept}: what is to start one again needs another key"
    if row["status"] == "Failed":
        return f"; that run failed at {row['completed_at']}, and {way('retry', row['id'])} opens it again"
    if row["completed_at"] is not None:
        return f"; that run is {row['status']} since {row['completed_at']}"
    return f"; that run is {row['status']}"


def _failed_of(newest: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a trigger's newest runs that failed, up to the first that is over and did not."""
    ended = [row for row in newest if row["completed_at"] is not None]
    return list(takewhile(lambda row: row["status"] == "Failed", ended))


def _of_failures(failed: Sequence[dict[str, Any]], error: str) -> str:
    """That the newest of a trigger's runs failed, and the error of the last."""
    last = f"run {failed[0]['id']}: {_shortened(error)}"
    if len(failed) == 1:
        return f"; its newest run that is over failed, {last}"
    least = "at least " if len(failed) == RUNS_LOOKED_MAX else ""
    return f"; {least}its {len(failed)} newest runs that are over failed, the last of them {last}"


def _shortened(error: str) -> str:
    line = error.splitlines()[0] if error else ""
    return line if len(line) <= ERROR_CHARS_MAX else line[: ERROR_CHARS_MAX - 1] + "…"


def of_cron(
    name: str,
    cron: CronScheduleRow,
    deciding: tuple[int, str | None, str | None, str | None, bool, str | None] | None,
    absent: str | None,
    is_served: Callable[[str], bool],
) -> str:
    """One sentence about a trigger that is a cron, from its schedule, how often in a row its function has
    failed and since when it has not answered, what its newest moment came to, or that it is put off, and why
    the store refuses what became of its moments; `absent` is why it does not run here, if it doesn't. Of one
    without a name `name` is its id. A living runner may declare its workflow where this program does not:
    `is_served` says so."""
    last = cron["last_run_at"]
    before = f"; it ran last at {last}" if last else "; it has not run yet"
    failures, since, outcome, reason, is_put_off, refused = deciding or (0, None, None, None, False, None)
    if outcome in ("skip", "error") or is_put_off:
        what = "failed" if outcome == "error" else "was put off" if is_put_off else "was left out"
        before = f"{before}; its last moment {what}{f': {reason}' if reason else ''}"
    of = f"cron '{name}'" if cron["trigger_name"] is None else f"trigger '{name}' is a cron"
    says = f"{of}, {cron['cron_expression']!r} in {cron['timezone']!r}"
    if not cron["enabled"]:
        return f"{says}, and was switched off at {cron['disabled_at']}{before}"
    if absent is not None:
        return f"{says}, {absent}{before}"
    if (unread := of_unread(cron["cron_expression"], cron["timezone"])) is not None:
        return f"{says}, and {unread}{before}"
    if registry.workflow(cron["workflow_name"]) is None:
        if is_served(cron["workflow_name"]):
            where = f"where its workflow is declared, {excerpt(cron['workflow_name'])}"
            return f"{says}, and runs next at {cron['next_run_at']} {where}{before}"
        return f"{says}, and {undeclared(cron['workflow_name'])}{before}"
    if since is not None:
        return f"{says}, whose function has not answered since {since}{before}"
    if refused is not None:
        cannot = "cannot go on, because the store refuses what became of its moments, which is tried again"
        return f"{says}, and {cannot} until it takes that: {refused}{before}"
    if failures:
        times = _times(failures, "time")
        return (
            f"{says}, whose function has failed {failures} {times} in a row and"
            f" is called again for {cron['next_run_at']}{before}"
        )
    if is_put_off:
        return f"{says}, whose function is called again for {cron['next_run_at']}{before}"
    return f"{says}, and runs next at {cron['next_run_at']}{before}"


def of_unread(expression: str, timezone: str) -> str | None:
    """That a cron that is kept does not run here, and why, if this machine cannot read when: it knows no such
    zone, as a rule."""
    from ._cloaca import check_cron

    try:
        check_cron(expression, timezone)
    except ScheduleError as unread:
        return f"is left out, here at least: {unread}"
    return None


def versions(declared: Sequence[tuple[int, int]], own: int) -> str:
    """Who declares which version of a trigger, as the end of a sentence; nothing if all declare the same.

    Args:
        declared: the numbers of living runners, each with that of its version, which grow with time.
        own: the number of who tells it.
    """
    if len({version for _, version in declared}) < 2:
        return ""
    newest = max(version for _, version in declared)
    newer = sorted(owner for owner, version in declared if version == newest)
    older = sorted(owner for owner, version in declared if version < newest)
    if own in older:
        return f"; {_runners(newer)} a newer version of it, until whose end this one stands by"
    behind = f"{_runners(older)} an older version of it, and would go on with it after the newer"
    return f"; {behind}" if own in newer else f"; {_runners(newer)} its newest version, {behind}"


def named(numbers: Sequence[int]) -> str:
    """The numbers of runners, the first of them and how many more."""
    more = f" and {len(numbers) - _NAMED_MAX} more" if len(numbers) > _NAMED_MAX else ""
    return f"{', '.join(map(str, numbers[:_NAMED_MAX]))}{more}"


def _runners(numbers: Sequence[int]) -> str:
    return f"runner {numbers[0]} declares" if len(numbers) == 1 else f"runners {named(numbers)} declare"


def absent_cron(is_declared: bool, is_left_out: bool) -> str | None:
    """Why a declared cron does not run in this runner; `None` if it does."""
    if is_left_out:
        return "that this program declares, but this runner is not for it: it runs in those that are"
    return None if is_declared else "that this program does not declare: it runs in those that do"


def unknown_yet(name: str) -> str:
    """One sentence about a trigger that a paused runner has not told its store of."""
    return (
        f"trigger '{name}' is declared here, and this store knows nothing of it yet: this runner is paused,"
        " until resume() is called"
    )


def _absent(trigger: dict[str, Any], polled: str) -> str:
    if trigger["paused"]:
        return f"is not {polled} here: this runner is paused, until resume() is called"
    if (owner := trigger["polled_by"]) is not None:
        return f"is {polled} by runner {owner} of this store, and not by this one"
    if trigger["declared"]:
        return f"is declared here and about to be {polled}: the store is being asked for it"
    does = f"{polled.removesuffix('ed')}s"
    if trigger["left_out"]:
        unmeant = "this program declares it, but this runner is not for it"
        return f"is not {polled}: {unmeant}, and no other {does} it"
    return f"is not {polled}: this program does not declare it, and no other runner of the store {does} it"


def ending(last: TickRow | None, heard: str | None = None) -> str:
    """What was before, after a sentence."""
    return "" if last is None else f"; before that it {told(last, heard)}"


def _on_record(last: TickRow | None, heard: str | None) -> str:
    """What another runner has written down, and as of when."""
    if last is None:
        return f"; none of its {'polls' if heard is None else 'calls'} is on record yet"
    return f"; on record, as of {last['last_at']}, it {told(last, heard)}"


def told(last: TickRow, heard: str | None = None) -> str:
    """What polls answered, or calls of a function that is told of ends of runs: `heard` as by `ends_of`."""
    noun = "poll" if heard is None else "call"
    count = last["count"]
    since = f"since {last['first_at']}" if count > 1 else f"at {last['first_at']}"
    reason = f": {last['reason']}" if last["reason"] else ""
    if last["outcome"] == "fire":
        return f"fired at its last {_counted(count, noun)}, {since}"
    if last["outcome"] == "error":
        return f"failed at its last {_counted(count, noun)}, {since}{reason}"
    return f"skipped at its last {_counted(count, noun)}, {since}{reason or ', without giving a reason'}"


def _counted(count: int, noun: str) -> str:
    return noun if count == 1 else f"{count} {noun}s"


def _times(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
