"""The command that shows one run, and the wait for its end."""

from __future__ import annotations

import time
from typing import NamedTuple

from .. import reading
from ..reading.audit import by_whom
from ..rows import CALLBACKS, TRIES_FIRST, not_kept
from ..terminal import clean, span
from ..urgency import PRIORITY
from .look import opened
from .main import FAILED, OK
from .outage import waited
from .show import Show, as_json, between, clean_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from typing import Any

    from ..reading import Attempt, Callback, Changed, Child, LastCallback, Reader, Run, RunDetails, Task
    from ..types import ParentKind

WAIT_SECONDS = 0.1
"""So often it is looked whether a run is over."""
EARLIER = "of an earlier version"
"""What is said of a task that the version with which its run goes on has no more."""
SIGNS = {"+": "green", "~": "yellow", "-": "red"}


def show(arguments: Namespace, show: Show) -> int:
    """One run."""
    with opened(arguments) as reader:
        run_id = reading.find_run(reader, arguments.run)
        if arguments.wait:
            wait(reader, run_id)
        details = reading.run(reader, run_id)
        times = {} if show.as_json else _times(reader, details)
    if show.as_json:
        changes = {"changes": changes_of(details)} if arguments.diff else {}
        show.record("run", {**as_record(details), **changes})
    elif show.is_for_people:
        Tree(show, details, Parts.of(arguments), times).print()
    else:
        _values(show, details, Parts.of(arguments), times)
    is_bad = arguments.wait and details.run.status != "Completed"
    return FAILED if is_bad else OK


def _came(kind: ParentKind | None, task: str | None, trigger: str | None) -> str:
    """How a run came of its parent."""
    if kind == "task":
        return f"by task {clean(str(task))}"
    if kind == "end":
        return f"by trigger {clean(str(trigger))}, told of its end"
    if kind == "given":
        return "of which it is a part"
    return "which it does again" if kind == "again" else "by a callback"


def _of_child(child: Child) -> str:
    """How a run came of the one that it is shown with."""
    if child.kind == "given":
        return "a part of it"
    return "does it again" if child.kind == "again" else _came(child.kind, child.task, child.trigger_name)


class Times(NamedTuple):
    """When a run began, and how long it took since: the wait before is not of that."""

    started_at: str | None
    took_seconds: float | None


def _times(reader: Reader, details: RunDetails) -> dict[str, Times]:
    """Those of the runs that came of it, but for one that was pruned meanwhile."""
    found = {child.id: reader.native.run(child.id) for child in details.children}
    return {
        run_id: Times(row["started_at"], row["took_seconds"])
        for run_id, row in found.items()
        if row is not None
    }


class Parts(NamedTuple):
    """What is shown of a run beside its tasks."""

    context: bool
    diff: bool
    traceback: bool

    @classmethod
    def of(cls, arguments: Namespace) -> Parts:
        """Those that a line asks for."""
        return cls(arguments.context, arguments.diff, arguments.traceback)


def wait(reader: Reader, run_id: str) -> None:
    """Waits until a run is over, or gone."""
    while (row := waited(reader, lambda: reader.native.run(run_id))) and row["completed_at"] is None:
        time.sleep(WAIT_SECONDS)


def as_record(details: RunDetails) -> dict[str, Any]:
    """A run as one object, with the names of `DefaultRunner.get_run`."""
    from dataclasses import asdict

    whole = asdict(details)
    graph = [node._asdict() for node in details.graph]
    return {**whole.pop("run"), **whole, "graph": graph}


def changes_of(details: RunDetails) -> dict[str, list[dict[str, Any]]]:
    """What each task changed, as plain values."""
    from dataclasses import asdict

    found = reading.changed(details)
    return {task: [asdict(each) for each in changes] for task, changes in found.items()}


def _values(show: Show, details: RunDetails, parts: Parts, times: dict[str, Times]) -> None:
    def whole(kind: str, of: str, text: str | None) -> None:
        if text is not None:
            # In the column of errors, on one line.
            show.values([kind, of, None, None, None, None, text])

    def context(kind: str, of: str, value: Any) -> None:
        whole(kind, of, as_json(value) if parts.context and value is not None else None)

    found = details.run
    changes = reading.changed(details) if parts.diff else {}
    took = found.took_seconds
    show.values(
        ["run", found.id, found.status, found.started_at, found.completed_at, took, found.error_message]
    )
    for kind, value in (
        ("trigger", found.trigger_name),
        ("key", found.run_key),
        ("trace", details.trace_id),
    ):
        if value is not None:
            show.values([kind, value])
    context("context", found.id, found.context)
    if found.parent_run is not None:
        how = _came(found.parent_kind, found.parent_task, found.trigger_name)
        show.values(["parent", found.parent_run, None, None, None, None, how])
    for task in details.tasks:
        took = between(task.started_at, task.completed_at)
        show.values(["task", task.id, task.status, task.started_at, task.completed_at, took, task.error])
        for at, each in enumerate(task.tries):
            if at == TRIES_FIRST and task.tries_left_out:
                show.values(["left out", task.id, *[None] * 4, not_kept(task.tries_left_out)])
            took = between(each.started_at, each.ended_at)
            name = f"{task.id} {each.number}"
            show.values(["attempt", name, each.outcome, each.started_at, each.ended_at, took, each.error])
            whole("traceback", name, each.traceback if parts.traceback else None)
        context("left", task.id, task.context)
        for change in changes.get(task.id, ()):
            show.values(["changed", task.id, change.sign, change.key, None, None, told(change)])
    for child in details.children:
        began, took = times.get(child.id, Times(None, None))
        how = f"{child.workflow_name}, {_of_child(child)}"
        show.values(["child", child.id, child.status, began, child.completed_at, took, how])
    for call in details.callbacks:
        show.values(
            ["callback", CALLBACKS[call.status], None, call.begun_at or call.due_at, None, None, call.error]
        )
    last = details.last_callback
    if last is not None:
        show.values(["callback", CALLBACKS[last.status], last.outcome, last.at, None, None, None])
    context("result", found.id, None if found.completed_at is None else details.final_context)


def told(change: Changed) -> str:
    """What a value was and became."""
    if change.sign == "~":
        return f"{as_json(change.before)} -> {as_json(change.after)}"
    return as_json(change.after if change.sign == "+" else change.before)


class Tree:
    """A run for people."""

    def __init__(self, show: Show, details: RunDetails, parts: Parts, times: dict[str, Times]) -> None:
        self.show = show
        self.details = details
        self.parts = parts
        self.times = times
        self.changes = reading.changed(details) if parts.diff else {}
        self.marks = ("├─ ", "└─ ", "│  ", "   ") if show.has_lines else ("|- ", "`- ", "|  ", "   ")

    def print(self) -> None:
        """Prints it."""
        show, found = self.show, self.details.run
        show.line(f"run {found.id}  {clean(found.workflow_name)}  {show.word(found.status)}")
        for name, text in self._facts(found):
            show.line(f"  {show.styled(f'{name:<9}', 'dim')} {text}")
        if self.parts.context:
            self._context("context", found.context, "  ")
        for at, task in enumerate(self.details.tasks):
            self._task(task, at == len(self.details.tasks) - 1)
        for child in self.details.children:
            self._child(child)
        for call in self.details.callbacks:
            self._callback(call)
        if self.details.last_callback is not None:
            self._last_callback(self.details.last_callback)
        if self.parts.context and found.completed_at is not None:
            self._context("result", self.details.final_context, "  ")

    def _facts(self, found: Run) -> Iterator[tuple[str, str]]:
        show = self.show
        yield "created", show.time(found.created_at)
        if found.started_at is not None:
            waited = span(between(max(found.created_at, found.due_at or ""), found.started_at))
            yield "started", f"{show.time(found.started_at)}, after {waited}"
        if found.completed_at is not None:
            took = span(found.took_seconds)
            lain = f", beside {span(found.lain_seconds)} that it lay over" if found.lain_seconds else ""
            yield "ended", show.time(found.completed_at) + (f", after {took}{lain}" if took else "")
        elif found.lain_seconds:
            yield "retried", f"after it had lain over for {span(found.lain_seconds)}"
        if found.due_at is not None:
            yield "due", show.time(found.due_at)
        if found.priority != PRIORITY:
            yield "priority", str(found.priority)
        if found.trigger_name is not None:
            yield "trigger", clean(found.trigger_name)
        if found.run_key is not None:
            yield "key", clean(found.run_key)
        if found.parent_run is not None:
            yield (
                "parent",
                f"run {found.parent_run}, {_came(found.parent_kind, found.parent_task, found.trigger_name)}",
            )
        change = self.details.cancelled_by
        by = "" if change is None else f"{by_whom(change)}, {show.time(change.at)}"
        if found.cancel_requested and found.completed_at is None:
            yield "cancel", f"its end was asked for{by and ' '}{by}"
        elif by:
            yield "cancelled", by
        if self.details.runner is not None:
            state = "" if self.details.is_living else ", which is gone"
            yield "runner", f"{self.details.runner}{state}"
        if self.details.trace_id is not None:
            yield "trace", self.details.trace_id
        if found.error_message is not None:
            yield "error", clean(found.error_message)

    def _task(self, task: Task, is_last: bool) -> None:
        show = self.show
        branch, last, bar, none = self.marks
        parts = [clean(task.id), show.word(task.status)]
        if task.earlier_version:
            parts.append(EARLIER)
        if (took := span(between(task.started_at, task.completed_at))) is not None:
            parts.append(took)
        if task.attempts > 1 or task.status == "Running":
            parts.append(
                f"attempt {task.attempts}" if task.status == "Running" else f"{task.attempts} attempts"
            )
        if task.waits_until is not None:
            parts.append(f"waits until {show.time(task.waits_until)}")
        if task.waits_since is not None:
            parts.append(f"waits without a slot since {show.time(task.waits_since)}")
        if task.overdue_since is not None:
            parts.append(f"its body still runs, given up at {show.time(task.overdue_since)}")
        if task.error is not None and not task.tries:
            parts.append(clean(task.error))
        show.line((last if is_last else branch) + "  ".join(parts))
        inner = none if is_last else bar
        is_dull = len(task.tries) == 1 and task.tries[0].outcome == "Completed"
        before = 0
        for at, attempt in enumerate([] if is_dull else task.tries):
            if at == TRIES_FIRST and task.tries_left_out:
                show.line(f"{inner}{bar}{show.styled(f'… {not_kept(task.tries_left_out)}', 'dim')}")
            # They are counted anew when a run is opened again.
            is_anew, before = attempt.number <= before, attempt.number
            self._attempt(attempt, inner, at == len(task.tries) - 1, is_anew)
        if self.parts.context and task.context is not None:
            self._context("left", task.context, inner)
        for each in self.changes.get(task.id, ()):
            sign = show.styled(each.sign, SIGNS[each.sign])
            show.line(f"{inner}{sign} {clean(each.key)}  {clean(told(each))}".rstrip())

    def _child(self, child: Child) -> None:
        show = self.show
        parts = [f"run {child.id}", clean(child.workflow_name), show.word(child.status)]
        if (took := span(self.times.get(child.id, Times(None, None)).took_seconds)) is not None:
            parts.append(took)
        how = _of_child(child)
        show.line(f"  {show.styled('child', 'dim')}     {'  '.join(parts)}  {show.styled(how, 'dim')}")

    def _callback(self, call: Callback) -> None:
        show = self.show
        if call.begun_at is not None:
            when = f"being called since {show.time(call.begun_at)} by runner {call.runner}"
        else:
            when = f"{'is called' if call.attempts == 0 else 'is called again'} at {show.time(call.due_at)}"
        parts = [CALLBACKS[call.status], when]
        if call.error is not None:
            parts.append(clean(call.error))
        show.line(f"  {show.styled('callback', 'dim')}  {'  '.join(parts)}")

    def _last_callback(self, last: LastCallback) -> None:
        show = self.show
        calls = f"{last.attempts} {'call' if last.attempts == 1 else 'calls'}"
        when = show.time(last.at)
        said = {
            "told": f"came back at {when}, in call {last.attempts}",
            "given_up": f"was given up at {when}, after {calls}",
            "skipped": f"was skipped at {when}, after {calls}",
            "dropped": f"was dropped at {when}, after {calls}: no runner declared it any more",
        }[last.outcome]
        parts = [CALLBACKS[last.status], said]
        if last.error is not None:
            parts.append(clean(last.error))
        show.line(f"  {show.styled('callback', 'dim')}  {'  '.join(parts)}")

    def _attempt(self, attempt: Attempt, inner: str, is_last: bool, is_anew: bool) -> None:
        show = self.show
        branch, last, bar, none = self.marks
        parts = [f"attempt {attempt.number}{' after retry' if is_anew else ''}", show.word(attempt.outcome)]
        if (took := span(between(attempt.started_at, attempt.ended_at))) is not None:
            parts.append(took)
        if attempt.runner is not None:
            parts.append(show.styled(f"runner {attempt.runner}", "dim"))
        if attempt.error is not None:
            parts.append(clean(attempt.error))
        show.line(inner + (last if is_last else branch) + "  ".join(parts))
        if self.parts.traceback and attempt.traceback:
            for line in clean_lines(attempt.traceback.rstrip("\n")):
                show.line(inner + (none if is_last else bar) + line)

    def _context(self, name: str, value: Any, inner: str) -> None:
        self.show.line(inner + self.show.styled(name, "dim"))
        for line in clean_lines(as_json(value, indent=2)):
            self.show.line(f"{inner}  {line}")
