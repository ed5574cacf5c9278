"""Metrics as Prometheus reads them. Decides nothing: `families` says which there are."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.registry import Collector as ClientCollector

from ..errors import CloacaError, RunnerError
from . import families
from .asgi import Answer, App
from .watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from typing import Any

    from prometheus_client.core import Metric

    from ..runner import DefaultRunner
    from .families import Family


class Collector(ClientCollector):
    """The metrics of a runner, or of a store; `cloaca.telemetry.prometheus_collector` makes it."""

    def __init__(self, runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> None:
        self._watched = Watched(runner_or_url)

    def __repr__(self) -> str:
        return f"<cloaca.telemetry.prometheus_collector of {self._watched!r}>"

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register it must not look at the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now; what the runner has counted once it is shut down."""
        try:
            found = _found(self._watched)
        except RunnerError:
            return
        yield from map(_metric, found)


class PrometheusApp(App):
    """The application; `cloaca.telemetry.prometheus_app` makes it."""

    def __init__(self, runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> None:
        self._watched = Watched(runner_or_url)

    def __repr__(self) -> str:
        return f"<cloaca.telemetry.prometheus_app of {self._watched!r}>"

    def answer(self, path: str, accept: str) -> Answer:
        """The metrics, at any path."""
        try:
            found = _found(self._watched)
        except RunnerError as error:
            return Answer(503, f"{error}\n".encode())
        encoded, kind = text(found, accept)
        return Answer(200, encoded, kind)


def _found(watched: Watched) -> list[Family]:
    """All metrics; of a store by its URL that can't be read, that it can't.

    Raises:
        RunnerError: (a `RuntimeError`) the runner is of a process before a fork.
    """
    try:
        return [*watched.families()]
    except RunnerError:
        raise
    except CloacaError:
        # Who alerts by it must hear of it, and a program's own metrics are not to go with it.
        return [families.build(), families.unread()]


class _Fixed(ClientCollector):
    def __init__(self, found: Iterable[Family]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        yield from map(_metric, self._found)


def text(found: Iterable[Family], accept: str | None = None) -> tuple[bytes, str]:
    """Metrics as text, and what kind of text that is."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(found))
    if accept is None:
        return generate_latest(registry), "text/plain"
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def _metric(family: Family) -> Metric:
    labels = list(family.labels)
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.about, labels=labels)
        ends = [*map(str, family.bounds), "+Inf"]
        for key, (buckets, count, seconds) in sorted(family.values.items()):
            filled = [*zip(ends, map(float, (*buckets, count)), strict=True)]
            histogram.add_metric(list(key), filled, seconds)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.about, labels=labels)
    for key, value in sorted(family.values.items()):
        metric.add_metric(list(key), value)
    return metric
