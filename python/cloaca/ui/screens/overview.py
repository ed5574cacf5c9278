"""The first screen: is all well?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from ...copied import described, made_at
from ...reading import Trigger, doctor, of_probe, pace, runners, runs
from ...reading.attention import (
    Counts,
    FailingCallbacks,
    Failures,
    GivenUpCallbacks,
    also_failed,
    failed_below,
    failing_callbacks,
    failures,
    given_up_callbacks,
    schedule_counts,
    unwell,
)
from ...reading.runners import BACKLOG_RUNS
from ...reading.store import age_of, now
from .. import show
from .screen import Ask, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...reading import Cron, Finding, Runner
    from ...types import Health

WAITING_SECONDS = 300.0
"""Runs that wait for longer are worth a word."""
MINUTES = 60
NEWEST = 8
POLLED_LOOKED = 200
"""Of so many triggers it is asked whether a poll of theirs hangs."""
HANGING_SECONDS = 30.0
"""A poll that has not come back for so long hangs."""
KINDS_MAX = 20
WARNINGS_TOLD = 2
"""So many of the doctor's warnings stand in the sentence; the System screen has all."""
_SAID_BY = {"stuck": "hanging", "unpolled": "unserved", "late_cron": "late"}
"""What a probe is told, and in which state schedules tell the same, one by one."""
# Those that are known to hang first, by schedules_in_body, then by their rows.
_POLLED = """
    SELECT name FROM (
        SELECT name FROM schedules WHERE in_body_since IS NOT NULL AND kind = 'trigger' AND enabled LIMIT ?1
    ) AS stuck UNION SELECT name FROM (
        SELECT name FROM schedules WHERE kind = 'trigger' AND enabled ORDER BY row LIMIT ?1
    ) AS others"""


@dataclass(frozen=True, slots=True)
class Concern:
    """A schedule that somebody should look at.

    Attributes:
        name (str): what it is called, or its id.
        state (str): what is wrong.
        text (str): what is known about it.
        since (str | None): since when, as far as that is known.
    """

    name: str
    state: str
    text: str
    since: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is not over.

    Attributes:
        pending, running (int): so many have not begun, and are under way.
        delayed (int): so many more wait for their time.
        oldest_at (str | None): when the oldest that has not begun was created.
        unserved (int): so many are in nobody's hands.
    """

    pending: int
    running: int
    delayed: int
    oldest_at: str | None
    unserved: int


def overview(ask: Ask) -> Screen:
    """A sentence, and what it is made of."""
    reader = ask.reader
    since = now() - timedelta(days=1)
    counts = schedule_counts(reader)
    concerns = [_concern(each) for each in unwell(reader)]
    # A poll of the page's own runner is known to hang before the store is told.
    known = {each.name for each in concerns if each.state == "hanging"}
    concerns = [*(each for each in _hanging(ask) if each.name not in known), *concerns]
    rows = reader.native.backlog(BACKLOG_RUNS)
    found = runners(reader, backlog=rows)
    waits = _backlog(
        rows, {each.number for each in found if each.state in ("living", "draining") and each.works}
    )
    kinds, below = failures(reader, since), failed_below(reader, since)
    callbacks = failing_callbacks(reader)
    given_up = given_up_callbacks(reader, since)
    if (copied_us := made_at(reader.native.query)) is not None:
        told = described(copied_us)
        tone, sentence = "warn", f"{told[0].upper()}{told[1:]}."
    else:
        # Of the page's own runner it is known, too, whether it still may write, and whether it has stopped.
        probed = ask.source.acting.health() if ask.source.can_act else of_probe(reader)
        tone, sentence = verdict(
            counts,
            concerns,
            found,
            waits,
            kinds,
            below,
            callbacks,
            given_up,
            reader.pauses(),
            probed,
            lambda: [*doctor(reader, brief=True, backlog=rows, probed=probed)],
        )
    going = pace(reader, MINUTES)
    values = {
        "ask": ask,
        "root": ask.root,
        "tone": tone,
        "sentence": sentence,
        "concerns": concerns,
        "callbacks": callbacks,
        "given_up": given_up,
        "counts": counts,
        "runners": found,
        "backlog": waits,
        "kinds": kinds[:KINDS_MAX],
        "kinds_more": max(0, len(kinds) - KINDS_MAX),
        "failed": sum(each.count for each in kinds),
        "below": below,
        "since": since.isoformat(timespec="minutes").replace("+00:00", "Z"),
        "newest": runs(reader, limit=NEWEST).items,
        "runs_spark": show.sparkline(
            going.runs, going.failed, f"{sum(going.runs)} runs in the last hour, {sum(going.failed)} failed"
        ),
        "runs_hour": sum(going.runs),
        "failed_hour": sum(going.failed),
        "polls_spark": show.sparkline(going.polls, None, f"{sum(going.polls)} polls in the last hour"),
        "polls_hour": sum(going.polls),
    }
    return Screen("Overview", "overview.html", values, nav="overview")


def verdict(
    counts: Counts,
    concerns: list[Concern],
    found: list[Runner],
    waits: Backlog,
    kinds: list[Failures],
    below: int,
    callbacks: list[FailingCallbacks],
    given_up: list[GivenUpCallbacks],
    pauses: list[dict[str, Any]],
    probed: Health,
    examine: Callable[[], list[Finding]],
) -> tuple[str, str]:
    """A tone, and a sentence. All is well only where a probe and the doctor have nothing to tell, either; who
    examines is asked where that may make a difference."""
    alive = sum(each.state in ("living", "draining") and each.works for each in found)
    unfinished = waits.pending + waits.running
    schedules = show.count(counts.enabled, "schedule")
    if not alive and (counts.enabled or unfinished):
        waiting = [schedules] if counts.enabled else []
        waiting += [show.count(unfinished, "run")] if unfinished else []
        verb = "waits" if len(waiting) == 1 and waiting[0].startswith("1 ") else "wait"
        stand_by = sum(each.state == "paused" for each in found)
        none = "no runner is alive"
        if stand_by:
            none = (
                f"{show.count(stand_by, 'runner')} {'is' if stand_by == 1 else 'are'} paused until resume()"
            )
        return "bad", f"Nobody is serving this store: {none}, and {' and '.join(waiting)} {verb}."
    if not alive and probed["ok"]:
        return "calm", "Nothing is due: no runner is alive, and no schedule and no run waits for one."
    states = Counter(each.state for each in concerns)
    wrong = [f"{number} {state}" for state, number in states.items()]
    if wrong:
        noun = "schedule" if wrong[0].startswith("1 ") else "schedules"
        wrong[0] = wrong[0].replace(" ", f" {noun} ", 1)
    failed = sum(each.count for each in kinds)
    told = f"{show.count(failed, 'run', 1000)} failed in the last 24 hours" if failed else ""
    told += also_failed(failed, below) if failed else ""
    late = ""
    if waits.oldest_at is not None and (age_of(waits.oldest_at, now()) or 0.0) > WAITING_SECONDS:
        late = f"runs wait for {show.span(show.between(waits.oldest_at, None))}"
    untold, lost = sum(each.count for each in callbacks), sum(each.count for each in given_up)
    silent = ", ".join(
        [f"{show.count(untold, 'callback')} {'keeps' if untold == 1 else 'keep'} failing"] * (untold > 0)
        + [f"{show.count(lost, 'callback')} {'was' if lost == 1 else 'were'} given up"] * (lost > 0)
    )
    serious = any(each.state in ("stopped", "failing", "hanging") for each in concerns)
    paused = _paused(pauses)
    bad = [each["text"] for each in probed["reasons"] if _SAID_BY.get(each["code"]) not in states]
    findings: list[Finding] = []
    if not (serious or late or silent) and probed["ok"]:
        findings = examine()
        bad += [each.text for each in findings if each.level == "bad" and each.subject == "clock"]
    if any(each["code"] in ("backlog", "unserved") for each in probed["reasons"]):
        late = ""
    if serious or late or silent or not probed["ok"] or bad:
        parts = [part for part in (*bad, ", ".join(wrong), late, silent, told, paused) if part]
        return "bad", _ended(f"Something needs a look: {'; '.join(parts)}")
    if told:
        return "warn", f"{'; '.join([told, *wrong, *([paused] if paused else [])])}."
    if wrong or any(each["until"] is None for each in pauses):
        # What goes on by itself is not to be looked at.
        return "warn", f"Nothing fails; {', '.join([*wrong, *([paused] if paused else [])])}."
    warnings = [each.text for each in findings if each.level == "warn"]
    if warnings:
        # Of these the page has no words of its own.
        parts = [*warnings[:WARNINGS_TOLD], *([paused] if paused else [])]
        more = len(warnings) - WARNINGS_TOLD
        parts += [f"{show.count(more, 'more warning')} on the System screen"] if more > 0 else []
        return "warn", _ended(f"Nothing fails; {'; '.join(parts)}")
    served = f"{show.count(alive, 'runner')} alive"
    if not counts.enabled and not unfinished:
        return "calm", f"All is well, and nothing is due: {served}, no schedule, no run."
    rest = _rest(waits)
    rest = f"{rest}; {paused}" if paused else rest
    return "good", f"All is well: {served}, {schedules} served, {rest}."


def _rest(waits: Backlog) -> str:
    """What is not over, in words."""
    waiting = f"{show.count(waits.pending, 'run')} {'waits' if waits.pending == 1 else 'wait'}"
    if not waits.running:
        return waiting if waits.pending else "no run waits"
    under_way = f"{show.count(waits.running, 'run')} under way"
    return f"{under_way}, {waiting}" if waits.pending else under_way


def _ended(sentence: str) -> str:
    """With its mark at the end."""
    return sentence if sentence.endswith("?") else f"{sentence}."


def _paused(pauses: list[dict[str, Any]]) -> str:
    """How many workflows and limits somebody has paused, whole or for a key."""
    kinds = Counter(kind for kind, _ in {(each["kind"], each["name"]) for each in pauses})
    told = [show.count(kinds[kind], kind) for kind in ("workflow", "limit") if kinds[kind]]
    return f"{' and '.join(told)} paused" if told else ""


def _concern(each: Trigger | Cron) -> Concern:
    last = each.last
    is_cause = last is not None and last.outcome == "error"
    text = (last.reason or "") if last is not None and is_cause else ""
    since: str | None = last.first_at if last is not None and is_cause else each.updated_at
    name = each.trigger_name or (each.workflow_name if isinstance(each, Trigger) else each.id)
    if each.state == "stopped" and isinstance(each, Trigger):
        text, since = each.disabled_cause or text, each.disabled_at
    elif each.state == "disabled":
        text, since = "switched off", each.disabled_at
    elif each.state == "hanging":
        text, since = "its function does not come back", each.in_body_since
    elif each.state == "silent" and isinstance(each, Trigger):
        text, since = f"runner {each.runner} says nothing: is its process stopped?", None
    elif each.state == "unserved":
        text, since = "no living runner serves it", each.updated_at
    elif each.state == "failing" and not is_cause:
        # What it raised is forgotten, or not written yet.
        text, since = "its last poll failed" if isinstance(each, Trigger) else "its last moment failed", None
    elif each.state == "late" and not isinstance(each, Trigger):
        text, since = "its moment has passed", each.next_run_at
    return Concern(name, each.state, text, since)


def _hanging(ask: Ask) -> list[Concern]:
    if ask.source.runner is None:
        return []
    names = [row["name"] for row in ask.reader.native.query(_POLLED, [POLLED_LOOKED])]
    at = now()
    return [
        Concern(name, "hanging", "its function does not come back", since)
        for name, since in ask.source.polled_since(names).items()
        if (age_of(since, at) or 0.0) > HANGING_SECONDS
    ]


def _backlog(rows: list[dict[str, Any]], alive: set[int]) -> Backlog:
    return Backlog(
        pending=sum(row["pending"] for row in rows),
        running=sum(row["running"] for row in rows),
        delayed=sum(row["delayed"] for row in rows),
        oldest_at=min((row["oldest_at"] for row in rows if row["pending"]), default=None),
        unserved=sum(
            row["pending"] + row["running"] for row in rows if row["owner"] not in alive and not row["held"]
        ),
    )
