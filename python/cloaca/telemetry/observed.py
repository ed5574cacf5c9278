"""Metrics as OpenTelemetry observes them. Decides how those of several runners are one: `families` says which
there are.

Invariant: an instrument is made once for each provider, whichever runners come and go: a second one of the
same name would observe nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from functools import partial

from opentelemetry.metrics import Observation, get_meter_provider

from .. import __version__
from ..errors import CloacaError, excerpt
from ..runner import DefaultRunner
from .families import Family
from .watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from opentelemetry.metrics import CallbackOptions, MeterProvider

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
        self._is_over = False
        self._lock = threading.Lock()
        self._ends = 0
        self.has_ended = False
        """Whether that was since the last look."""
        self.counted: list[Family] = []
        runner._at_end.append(self._end)

    def is_of(self, runner: DefaultRunner) -> bool:
        """Whether it is this one."""
        return self._runner() is runner

    def look(self) -> list[Family] | None:
        """Its metrics now, while it shuts down what it counts; `None` once it counts no more."""
        self.has_ended = False
        runner = self._runner()
        if runner is None or self._is_over:
            return None
        ends = self._ends
        try:
            found = [*Watched(runner).families()]
        except CloacaError:
            return None
        with self._lock:
            # What was counted at an end meanwhile is later.
            if ends == self._ends:
                self.counted = [family for family in found if family.kind != "gauge"]
        return found

    def _end(self, is_over: bool) -> None:
        """It is shut down, and counts no more unless something still runs that this did not wait for."""
        runner = self._runner()
        # Nobody looks at one of a process before a fork.
        with contextlib.suppress(CloacaError):
            if runner is not None:
                counted = Watched(runner).counters()
                with self._lock:
                    self.counted = counted
                    self._ends += 1
        self._is_over = is_over
        self.has_ended = True


class Observed:
    """The instruments of one provider, and the runners that they observe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: list[Looked] = []
        self._gone: dict[str, Family] = {}
        self._named: set[str] = set()
        self._at = 0.0
        self._found: dict[str, Family] = {}

    def observe(self, runner: DefaultRunner, provider: MeterProvider) -> None:
        """Observes this one, too."""
        heads = [*Watched(runner).heads()]
        with self._lock:
            if not any(looked.is_of(runner) for looked in self._runners):
                self._runners.append(Looked(runner))
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
        with self._lock:
            # Who collects behind a runner's end may do so for the last time.
            has_ended = any(looked.has_ended for looked in self._runners)
            if time.monotonic() - self._at < FRESH_SECONDS and self._found and not has_ended:
                return self._found
            found: dict[str, Family] = {}
            living = []
            for looked in self._runners:
                families = looked.look()
                if families is None:
                    _add(self._gone, looked.counted)
                else:
                    living.append(looked)
                    _add(found, families)
            self._runners = living
            _add(found, self._gone.values())
            self._found, self._at = found, time.monotonic()
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
