"""Metrics as OpenTelemetry observes them. Decides nothing: `families` says which there are."""

from __future__ import annotations

import threading
import time
import weakref
from functools import partial

from opentelemetry.metrics import Observation, get_meter_provider

from .. import __version__
from ..errors import CloacaError
from .watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider

    from ..runner import DefaultRunner
    from .families import Family

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


class Looks:
    """What was seen of a runner lately; it may go meanwhile."""

    def __init__(self, runner: DefaultRunner) -> None:
        self._runner = weakref.ref(runner)
        self._lock = threading.Lock()
        self._at = 0.0
        self._found: dict[str, Family] = {}

    def found(self) -> dict[str, Family]:
        """By their names; nothing once the runner is shut down."""
        with self._lock:
            if not self._found or time.monotonic() - self._at >= FRESH_SECONDS:
                runner = self._runner()
                try:
                    families = [] if runner is None else [*Watched(runner).families()]
                except CloacaError:
                    families = []
                self._found = {family.name: family for family in families}
                self._at = time.monotonic()
            return self._found

    def observations(self, name: str, part: int | None, _: CallbackOptions) -> Iterable[Observation]:
        """What an instrument observes: of a histogram one of its parts."""
        family = self.found().get(name)
        if family is None:
            return
        for key, value in family.values.items():
            attributes = dict(zip(family.labels, key, strict=True))
            yield Observation(value if part is None else value[1 + part], attributes)


def observe(runner: DefaultRunner, meter_provider: MeterProvider | None) -> None:
    """Makes an instrument of each metric."""
    provider = get_meter_provider() if meter_provider is None else meter_provider
    meter, looks = provider.get_meter("cloaca", __version__), Looks(runner)
    for family in looks.found().values():
        name, unit = _named(family.name)
        if family.kind == "histogram":
            for part, told in enumerate(PARTS):
                look = partial(looks.observations, family.name, part)
                meter.create_observable_counter(
                    f"{name}.{told}", [look], unit if told == "sum" else "1", family.about
                )
            continue
        is_counter = family.kind == "counter"
        create = meter.create_observable_counter if is_counter else meter.create_observable_gauge
        create(name, [partial(looks.observations, family.name, None)], unit, family.about)


def _named(name: str) -> tuple[str, str]:
    """A metric's name as OpenTelemetry has it, with its unit apart: of what kind it is, and what it says."""
    name, unit = (name.removesuffix("_seconds"), "s") if name.endswith("_seconds") else (name, "1")
    for kind in (*KINDS, "cloaca_"):
        if name.startswith(kind):
            return f"{kind.replace('_', '.')}{name.removeprefix(kind)}", unit
    return name, unit
