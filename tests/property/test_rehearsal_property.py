"""A dry run and a preview say of random polls what the real one then does: both are the same judgement.

`HYPOTHESIS_PROFILE=more` runs many more examples than the default.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections import Counter
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import cloaca
from cloaca import Concurrency, RateLimit, Throttle, TriggerResult, reading, registry

SECONDS = 20.0
FIRES = st.builds(
    lambda n, **terms: {"n": n} | {name: term for name, term in terms.items() if term is not None},
    st.integers(0, 3),
    run_key=st.sampled_from([None, None, "a", "b"]),
    cursor=st.sampled_from([None, None, None, 1, 2]),
    dedup_key=st.sampled_from([None, None, "k"]),
    at=st.sampled_from([None, None, None, "2100-01-01T00:00:00Z"]),
)
LIMITS: list[dict[str, Any]] = [
    {},
    {},
    {"concurrency": Concurrency(1)},
    {"concurrency": Concurrency(1, overflow="drop_new")},
    {"concurrency": Concurrency(1, key="n")},
    {"concurrency": Concurrency(2, key="absent")},
    {"rate_limit": RateLimit(3, "1d")},
    {"rate_limit": RateLimit(1, "1d", key="n")},
    {"throttle": Throttle(1, "1d")},
    {"concurrency": Concurrency(2), "rate_limit": RateLimit(4, "1d")},
]
POLLS = st.lists(
    st.tuples(st.lists(FIRES, min_size=1, max_size=5), st.booleans(), st.sampled_from([None, None, 7])),
    min_size=1,
    max_size=4,
)


class World:
    """A program whose trigger fires what it is told to, and whose runs end when they are told to."""

    def __init__(self, folder: Path, terms: dict[str, Any], limits: dict[str, Any], *, known: bool) -> None:
        self.fires: list[dict[str, Any]] = []
        self.cursor: Any = None
        self.is_over = False
        self.overlap = terms["overlap"]
        self.entered: list[threading.Event] = []
        if known:
            with cloaca.WorkflowBuilder("w", **limits):
                cloaca.task(id="only", retry_attempts=1)(self._wait)
        cloaca.trigger(workflow="w", name="it", poll_interval="1h", **terms)(self._poll)
        self.path = folder / f"{uuid.uuid4()}.db"
        config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=64)
        self.runner = cloaca.DefaultRunner.with_config(self.path, config)

    def _wait(self, context: cloaca.Context) -> None:
        gate = threading.Event()
        self.entered.append(gate)
        if self.is_over:
            gate.set()
        assert gate.wait(SECONDS)

    def _poll(self, tick: cloaca.Tick) -> list[TriggerResult]:
        if self.cursor is not None:
            tick.cursor = self.cursor
        asked = [self._allowed(fire) for fire in self.fires]
        return [TriggerResult.fire({"n": fire.pop("n")}, **fire) for fire in asked]

    def _allowed(self, fire: dict[str, Any]) -> dict[str, Any]:
        """Without what is refused together."""
        left_out = {"dedup_key"} if "cursor" in fire else set()
        left_out |= {"at"} if self.overlap in ("queue", "buffer_one", "cancel_running") else set()
        return {name: term for name, term in fire.items() if name not in left_out}

    def finish(self) -> None:
        """Lets what has begun end."""
        begun, self.entered = self.entered, []
        for gate in begun:
            gate.set()

    def rests(self) -> None:
        """Waits until nothing moves any more."""
        seen: list[Any] = []
        deadline = monotonic() + SECONDS
        while len(seen) < 4 or seen[-4:] != seen[-1:] * 4:
            assert monotonic() < deadline
            seen.append((self.runner.query("SELECT id, status FROM runs"), len(self.entered)))
            sleep(0.005)


_ROW = "SELECT * FROM schedules"
COUNTED = {
    "run": "runs_started",
    "queue": "runs_started",
    "deduplicate": "deduplicated",
    "refuse_key": "deduplicated",
    "drop": "dropped",
    "hold_back": "held_back",
}


@settings(max_examples=60)
@given(
    overlap=st.sampled_from(["allow", "skip", "queue", "buffer_one", "cancel_running"]),
    allow_concurrent=st.booleans(),
    limits=st.sampled_from(LIMITS),
    known=st.sampled_from([True] * 9 + [False]),
    polls=POLLS,
)
def test_what_is_told_of_a_poll_is_what_it_does(
    tmp_path: Path,
    overlap: Any,
    allow_concurrent: bool,
    limits: dict[str, Any],
    known: bool,
    polls: list[tuple[list[dict[str, Any]], bool, int | None]],
) -> None:
    registry.clear()
    terms = {"overlap": overlap, "allow_concurrent": allow_concurrent}
    world = World(tmp_path, terms, limits, known=known)
    runner = world.runner
    with runner:
        try:
            for world.fires, finishes, world.cursor in polls:
                world.rests()
                before = _counts(runner), runner.query("SELECT * FROM run_keys"), runner.query(_ROW)
                told = runner.tick("it", dry_run=True)
                with reading.Reader(str(runner._engine.path or world.path)) as reader:
                    assert _timeless(reading.preview(reader, "it")) == _timeless(told)
                after = _counts(runner), runner.query("SELECT * FROM run_keys"), runner.query(_ROW)
                assert after == before, "it leaves nothing"
                verdicts = [fire["gate"]["verdict"] for fire in told["fires"]]
                runs = {run["id"] for run in runner.list_runs(limit=1000)}
                runner.tick("it")
                new = [run for run in runner.list_runs(limit=1000, contexts=True) if run["id"] not in runs]
                begun = [json.dumps(fire["context"]) for fire in told["fires"] if _starts(fire)]
                assert Counter(begun) == Counter(json.dumps({"n": _n(run)}) for run in new), told
                expected = Counter(COUNTED[verdict] for verdict in verdicts if verdict in COUNTED)
                counts = _counts(runner)
                assert +expected == +Counter({key: counts[key] - before[0][key] for key in counts}), told
                world.rests()
                if overlap != "cancel_running":
                    _assert_begun(runner, told, {run["id"] for run in new})
                if finishes:
                    world.finish()
        finally:
            world.is_over = True
            world.finish()


def _timeless(told: Any) -> str:
    """Without the moments from which spans were counted."""
    return re.sub(r"20\d\d-[0-9T:.-]+Z", "then", json.dumps(told))


def _assert_begun(runner: cloaca.DefaultRunner, told: Any, new: set[str]) -> None:
    """What is to run has begun, and what is to be queued has not."""
    rows = [row for row in runner.list_runs(limit=1000, contexts=True) if row["id"] in new]
    begun = [_n(row) for row in rows if row["status"] != "Pending"]
    expected = [fire["context"]["n"] for fire in told["fires"] if fire["gate"]["verdict"] == "run"]
    assert sorted(begun) == sorted(expected), told


def _starts(fire: Any) -> bool:
    return fire["gate"]["verdict"] in ("run", "queue")


def _n(run: Any) -> int:
    found: int = run["context"]["n"]
    return found


def _counts(runner: cloaca.DefaultRunner) -> dict[str, int]:
    stats: Any = runner.stats()
    return {name: stats[name] for name in ("runs_started", "deduplicated", "dropped", "held_back")}
