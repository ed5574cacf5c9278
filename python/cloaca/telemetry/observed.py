"""Metrics as OpenTelemetry observes them. Decides how those of several runners are one: `families` says which
there are.

Invariant: an instrument is made once for each provider, whichever runners come and go: a second one of the
same name would observe nothing.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from functools import partial

from opentelemetry.metrics import Observation, get_meter_provider

from .. import __version__
from ..errors import CloacaError, excerpt
from ..runner import DefaultRunner
from . import forks
from .families import Family
from .watched import Asked, Watched, counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from opentelemetry.metrics import CallbackOptions, MeterProvider

    from .._cloaca import Engine
    from ..crew import Crew

FRESH_SECONDS = 1.0
"""All instruments of one collection share a look."""
PARTS = ("count", "sum")
KINDS = (
    "cloaca_store_",
    "cloaca_callbacks_",
    "cloaca_poll_",
    "cloaca_run_",
    "cloaca_task_",
    "cloaca_commit_",
)
_ADDED = ("cloaca_runs_in_hand", "cloaca_bodies_overdue")
"""Gauges of which each runner has its share."""
_WORST = ("cloaca_store_healthy",)
"""Gauges of which less is worse."""


class Looked:
    """One runner, which may go meanwhile, and what was seen of it last."""

    def __init__(self, runner: DefaultRunner) -> None:
        self._runner = weakref.ref(runner)
        # Taken again on one thread by a handler of a signal that ends the runner amidst that.
        self._lock = threading.RLock()
        self._watched: Watched | None = None
        self._asked: Asked | None = None
        self._has_ended = False
        self._left: tuple[Engine, Crew] | None = None
        """Who goes on counting once it is shut down: what that did not wait for."""
        self._is_told = True
        """Whether its end has been looked at."""
        self.counted: list[Family] = []
        runner._at_end.append(self._end)

    def is_of(self, runner: DefaultRunner) -> bool:
        """Whether it is this one."""
        return self._runner() is runner

    def has_ended(self) -> bool:
        """Whether it was shut down since the last look, or the last of what that left has ended."""
        left = self._left
        return not self._is_told or (left is not None and left[1].is_home())

    def ask(self) -> None:
        """Has its store asked, for the next look."""
        runner = self._runner()
        if runner is None or self._has_ended:
            self._watched = None
            return
        # One that has not answered since the last look is not asked once more.
        if self._watched is None:
            self._watched = Watched(runner)
        self._asked = self._watched.ask()

    def look(self) -> list[Family] | None:
        """Its metrics now, once it is shut down what it counts; `None` once it counts no more."""
        self._is_told = True
        if self._has_ended:
            return self._look_at_left()
        watched, asked = self._watched, self._asked
        if watched is None or asked is None:
            return None
        try:
            found = [*watched.families(asked)]
        except CloacaError:
            return None
        if asked.is_over.is_set():
            self._watched = self._asked = None
        with self._lock:
            # What was counted at an end meanwhile is later.
            if not self._has_ended:
                self.counted = [family for family in found if family.kind != "gauge"]
        return found

    def _look_at_left(self) -> list[Family] | None:
        with self._lock:
            if self._left is None:
                return None
            engine, crew = self._left
            # Before it is read what has been counted: what ends in between is found by the next look.
            if crew.is_home():
                self._left = None
            self.counted = counters(engine)
            return self.counted if self._left is not None else None

    def _end(self) -> None:
        """It is shut down, and counts no more unless something still runs that this did not wait for."""
        runner = self._runner()
        if runner is None:
            return
        with self._lock:
            engine, crew = runner._engine, runner._crew
            self._left = None if crew.is_home() else (engine, crew)
            self.counted = counters(engine)
            self._has_ended = True
            # Nothing is kept of the runner, whose store may never answer what it was asked last.
            self._watched = self._asked = None
        self._is_told = False


class Observed:
    """The instruments of one provider, and the runners that they observe."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        forks.tell(self)
        self.forked()

    def forked(self) -> None:
        """A child tells nothing of what its parent counts; the instruments are there for its own runners."""
        self._looking = threading.Lock()
        """Who looks, which may take as long as stores take to answer."""
        self._lock = threading.Lock()
        self._runners: list[Looked] = []
        self._gone: dict[str, Family] = {}
        self._at = 0.0
        self._found: dict[str, Family] = {}

    def observe(self, runner: DefaultRunner, provider: MeterProvider) -> None:
        """Observes this one, too."""
        heads = [*Watched(runner).heads()]
        with self._lock:
            if not any(looked.is_of(runner) for looked in self._runners):
                self._runners = [*self._runners, Looked(runner)]
            self._at = 0.0
            fresh = [head for head in heads if head.name not in self._named]
            self._named |= {head.name for head in fresh}
        meter = provider.get_meter("cloaca", __version__)
        for head in fresh:
            name, unit = _named(head.name)
            if head.kind == "histogram":
                for part, told in enumerate(PARTS):
                    look = partial(self._observations, head.name, part)
                    unit_of_part = unit if told == "sum" else "1"
                    meter.create_observable_counter(f"{name}.{told}", [look], unit_of_part, head.about)
                continue
            is_counter = head.kind == "counter"
            create = meter.create_observable_counter if is_counter else meter.create_observable_gauge
            create(name, [partial(self._observations, head.name, None)], unit, head.about)

    def _observations(self, name: str, part: int | None, _: CallbackOptions) -> Iterable[Observation]:
        """What an instrument observes: of a histogram one of its parts."""
        family = self._look().get(name)
        if family is None:
            return
        for key, value in family.values.items():
            attributes = dict(zip(family.labels, key, strict=True))
            yield Observation(value if part is None else value[1 + part], attributes)

    def _look(self) -> dict[str, Family]:
        """By their names; of runners that are shut down what they counted: a count never goes back."""
        with self._looking:
            with self._lock:
                runners = self._runners
                # Who collects behind a runner's end may do so for the last time.
                has_ended = any(looked.has_ended() for looked in runners)
                if time.monotonic() - self._at < FRESH_SECONDS and self._found and not has_ended:
                    return self._found
            # All at once, so that several which do not answer take no longer than one.
            for looked in runners:
                looked.ask()
            found: dict[str, Family] = {}
            gone = []
            for looked in runners:
                families = looked.look()
                if families is None:
                    gone.append(looked)
                else:
                    _add(found, families)
            with self._lock:
                for looked in gone:
                    _add(self._gone, looked.counted)
                _add(found, self._gone.values())
                # Who came meanwhile was not looked at.
                self._at = time.monotonic() if self._runners is runners else 0.0
                self._runners = [looked for looked in self._runners if looked not in gone]
                self._found = found
                return found


def _add(sums: dict[str, Family], families: Iterable[Family]) -> None:
    """Makes one of the metrics of several runners: counts add up; of stores the worst is told."""
    for family in families:
        known = sums.get(family.name)
        values = dict(known.values) if known is not None else {}
        for key, value in family.values.items():
            values[key] = value if key not in values else _one(family, values[key], value)
        sums[family.name] = family._replace(values=values)


def _one(family: Family, one: Any, other: Any) -> Any:
    if family.kind == "histogram":
        buckets = [mine + theirs for mine, theirs in zip(one[0], other[0], strict=True)]
        return buckets, one[1] + other[1], one[2] + other[2]
    if family.kind == "counter" or family.name in _ADDED:
        return one + other
    return min(one, other) if family.name in _WORST else max(one, other)


_providers: weakref.WeakKeyDictionary[Any, Observed] = weakref.WeakKeyDictionary()
_of_process: list[Observed] = []
"""That of the process's own provider, once it is asked for. Before the program sets that one another stands
for it, which passes on what was made with it.
"""
_lock = threading.Lock()


def _forked() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)


def observe(runner: DefaultRunner, meter_provider: MeterProvider | None) -> None:
    """Makes an instrument of each metric, unless there is one."""
    if not isinstance(runner, DefaultRunner):
        raise TypeError(f"runner is {excerpt(runner)}; it must be a DefaultRunner of this process")
    provider = get_meter_provider() if meter_provider is None else meter_provider
    with _lock:
        observed = _providers.get(provider)
        if observed is None:
            is_own = provider is get_meter_provider()
            observed = _of_process[0] if is_own and _of_process else Observed()
            if is_own:
                _of_process[:] = [observed]
            _providers[provider] = observed
    observed.observe(runner, provider)


def _named(name: str) -> tuple[str, str]:
    """A metric's name as OpenTelemetry has it, with its unit apart: of what kind it is, and what it says."""
    name, unit = (name.removesuffix("_seconds"), "s") if name.endswith("_seconds") else (name, "1")
    for kind in (*KINDS, "cloaca_"):
        if name.startswith(kind):
            return f"{kind.replace('_', '.')}{name.removeprefix(kind)}", unit
    return name, unit
