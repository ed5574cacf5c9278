"""Gate, line, limits and priority together do what a small model of them does, step by step.

`HYPOTHESIS_PROFILE=more` runs many more examples than the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import cloaca
from cloaca import Concurrency, RateLimit, Throttle, TriggerResult, registry
from cloaca.testing import Runner

START = "2026-01-01T00:00:00Z"
# Then all is over, whatever there was.
DONE_SECONDS = 3_000


@dataclass
class Terms:
    """What holds in one example. Of a limit without a key there is one for all; spans are seconds."""

    overlap: Any
    keyed: bool
    seats: int | None
    drops: bool
    pace: int | None
    burst: int
    rate: int | None
    rate_keyed: bool

    def limits(self) -> dict[str, Any]:
        key = "k" if self.keyed else None
        seats, pace, rate = self.seats, self.pace, self.rate
        found: dict[str, Any] = {}
        if seats is not None:
            found["concurrency"] = Concurrency(seats, key=key, overflow="drop_new" if self.drops else "wait")
        if pace is not None:
            found["throttle"] = Throttle(1, per=f"{pace}s", burst=self.burst, key=key)
        if rate is not None:
            found["rate_limit"] = RateLimit(rate, per=f"{rate * 10}s", key="k" if self.rate_keyed else None)
        return found


@dataclass
class Step:
    """What somebody does: the first is what, the others of what, as far as that matters."""

    kind: str
    k: int = 0
    priority: int = 5
    run_key: str | None = None
    takes: int = 0
    place: int = 0
    span: int = 1


@dataclass
class Model:
    """What is to happen, written down as plainly as can be; times are milliseconds since the start."""

    terms: Terms
    now: int = 0
    paused: bool = False
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    keys: set[tuple[bool, str]] = field(default_factory=set)
    # Of each limit and value of its key, when the next one would be due if none came early.
    paces: dict[Any, int] = field(default_factory=dict)
    rates: dict[Any, int] = field(default_factory=dict)

    def unfinished(self) -> list[dict[str, Any]]:
        return [run for run in self.runs.values() if run["state"] != "over"]

    def lane(self, run: dict[str, Any]) -> Any:
        return run["k"] if self.terms.keyed else None

    def ask(self, run: dict[str, Any], run_key: str | None) -> str:
        """`run`, or why not, in the gate's order: run key, overlap, bound, rate."""
        # Those of a trigger are its own.
        if run_key is not None and (run["fired"], run_key) in self.keys:
            return "run_key"
        in_line = sum(other["fired"] for other in self.unfinished()) if run["fired"] else 0
        if in_line >= {"skip": 1, "buffer_one": 2}.get(self.terms.overlap, 1_000):
            return "overlap"
        of_lane = sum(self.lane(other) == self.lane(run) for other in self.unfinished())
        if self.terms.seats is not None and self.terms.drops and of_lane >= self.terms.seats:
            return "concurrency"
        if self.terms.rate is not None:
            key = run["k"] if self.terms.rate_keyed else None
            due = max(self.rates.get(key, 0), self.now)
            if due - self.now > (self.terms.rate - 1) * 10_000:
                return "rate_limit"
            self.rates[key] = due + 10_000
        self.runs[run["n"]] = run
        if run_key is not None:
            self.keys.add((run["fired"], run_key))
        return "run"

    def candidates(self) -> list[dict[str, Any]]:
        """Those that only limits could hold, in the order in which they begin."""
        fired = [run["n"] for run in self.unfinished() if run["fired"]]
        is_line = self.terms.overlap in ("queue", "buffer_one")
        waiting = [run for run in self.unfinished() if run["state"] == "waits" and not self.paused]
        first = [run for run in waiting if not (is_line and run["fired"] and run["n"] != min(fired))]
        return sorted(first, key=lambda run: (-run["priority"], run["n"]))

    def opens(self, run: dict[str, Any]) -> int | None:
        """When limits let it begin, if nothing ends."""
        lane = self.lane(run)
        seats = sum(self.lane(other) == lane for other in self.begun())
        if self.terms.seats is not None and seats >= self.terms.seats:
            return None
        if self.terms.pace is None:
            return self.now
        return max(self.now, self.paces.get(lane, 0) - (self.terms.burst - 1) * self.terms.pace * 1_000)

    def begun(self) -> list[dict[str, Any]]:
        return [run for run in self.unfinished() if run["state"] == "begun"]

    def settle(self) -> None:
        """Does all that is due now: what is over makes room first."""
        while True:
            for run in self.begun():
                if run["began"] + run["takes"] == self.now:
                    run["state"] = "over"
            first = [run for run in self.candidates() if self.opens(run) == self.now][:1]
            if not first:
                return
            first[0]["state"], first[0]["began"] = "begun", self.now
            lane = self.lane(first[0])
            if self.terms.pace is not None:
                self.paces[lane] = max(self.paces.get(lane, 0), self.now) + self.terms.pace * 1_000

    def advance(self, seconds: int) -> None:
        until = self.now + seconds * 1_000
        self.settle()
        while True:
            dues = [run["began"] + run["takes"] for run in self.begun()]
            dues += [due for run in self.candidates() if (due := self.opens(run)) is not None]
            self.now = min([due for due in dues if due <= until], default=until)
            self.settle()
            if self.now == until:
                return

    def began(self) -> dict[int, int]:
        return {n: run["began"] for n, run in self.runs.items() if run["began"] is not None}


class World:
    """The real thing: a run takes so long, in which it has no permit."""

    def __init__(self, terms: Terms) -> None:
        self.began: dict[int, int] = {}
        self.asked = 0
        self.ids: dict[int, str] = {}
        self.fire: TriggerResult = TriggerResult.skip()
        registry.clear()
        with cloaca.WorkflowBuilder("w", **terms.limits()):
            cloaca.task(id="only", retry_attempts=1)(self._body)
        cloaca.trigger(workflow="w", name="line", poll_interval="30d", overlap=terms.overlap)(self._poll)
        self.runner = Runner(START)

    def _body(self, context: cloaca.Context) -> None:
        if context["n"] not in self.began:
            self.began[context["n"]] = self.since_start()
            raise cloaca.RetryAfter(f"{context['takes']}ms")

    def _poll(self) -> TriggerResult:
        return self.fire

    def since_start(self) -> int:
        span = datetime.fromisoformat(self.runner.now) - datetime.fromisoformat(START)
        whole, rest = divmod(span, timedelta(milliseconds=1))
        assert not rest, "it began later than it was to"
        return whole

    def ask(self, run: dict[str, Any], run_key: str | None) -> str:
        context = {"n": run["n"], "k": run["k"], "takes": run["takes"]}
        if run["fired"]:
            self.fire = TriggerResult.fire(context, run_key=run_key, priority=run["priority"])
            known = {row["id"] for row in self.rows()}
            self.runner.tick("line")
            new = [row["id"] for row in self.rows() if row["id"] not in known]
            if not new:
                return "dropped"
            (self.ids[run["n"]],) = new
            return "run"
        try:
            made = self.runner.submit("w", context, run_key=run_key, priority=run["priority"])
        except cloaca.Dropped as dropped:
            return dropped.rule
        except cloaca.ArgumentError:
            # It stands for another context.
            return "run_key"
        self.ids[run["n"]] = made.id
        return "run"

    def rows(self) -> list[Any]:
        return self.runner.list_runs(limit=1_000)

    def statuses(self) -> dict[int, str]:
        by_id = {row["id"]: row["status"] for row in self.rows()}
        assert set(by_id) == set(self.ids.values())
        return {n: by_id[run_id] for n, run_id in self.ids.items()}


TERMS = st.builds(
    Terms,
    overlap=st.sampled_from(["allow", "skip", "queue", "buffer_one", "buffer_one"]),
    keyed=st.booleans(),
    seats=st.sampled_from([None, 1, 1, 1, 2]),
    drops=st.sampled_from([False, False, False, True]),
    pace=st.sampled_from([None, None, 7, 20]),
    burst=st.integers(1, 2),
    rate=st.sampled_from([None, None, None, 2, 4]),
    rate_keyed=st.booleans(),
)
KINDS = ["submit"] * 5 + ["fire"] * 4 + ["advance"] * 3 + ["cancel", "pause", "resume"]
STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(KINDS),
        k=st.sampled_from([0, 0, 1]),
        priority=st.sampled_from([5, 1, 9]),
        run_key=st.sampled_from([None, None, None, None, "a", "b"]),
        takes=st.sampled_from([12, 5, 30]),
        place=st.integers(0, 9),
        span=st.integers(1, 25),
    ),
    min_size=6,
    max_size=25,
)


@settings(max_examples=max(80, settings().max_examples // 3))
@given(terms=TERMS, steps=STEPS)
def test_what_begins_and_when_is_what_the_model_says(terms: Terms, steps: list[Step]) -> None:
    model, world = Model(terms), World(terms)
    with world.runner:
        for step in steps:
            _play(step, model, world)
            assert world.began == model.began(), step
        for last in (Step("resume"), Step("advance", span=DONE_SECONDS)):
            _play(last, model, world)
        assert world.began == model.began()
        assert world.statuses() == {n: run["ends"] for n, run in model.runs.items()}


def _play(step: Step, model: Model, world: World) -> None:
    match step.kind:
        case "submit" | "fire":
            world.asked += 1
            # No run ends just when a limit opens: which is first then would be chance.
            takes = step.takes * 1_000 + world.asked**3
            run: dict[str, Any] = {"n": world.asked, "k": step.k, "priority": step.priority, "takes": takes}
            run |= {"fired": step.kind == "fire", "state": "waits", "began": None, "ends": "Completed"}
            expected = model.ask(dict(run), step.run_key)
            told = world.ask(run, step.run_key)
            assert told == ("dropped" if run["fired"] and expected != "run" else expected)
        case "cancel":
            if found := model.unfinished():
                run = found[step.place % len(found)]
                run["state"], run["ends"] = "over", "Cancelled"
                world.runner.cancel(world.ids[run["n"]])
        case "advance":
            world.runner.advance(step.span)
            model.advance(step.span)
        case "pause":
            model.paused = True
            world.runner.pause(workflow="w")
        case "resume":
            model.paused = False
            world.runner.resume(workflow="w")
    world.runner.run_until_idle()
    model.settle()
