"""What others watch a program by: metrics for Prometheus and OpenTelemetry, health for probes.

Decides nothing: all of it is a view of what the engine counts and of what the store holds. Whatever it needs
beside the package is imported when it is asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Any

    from opentelemetry.metrics import MeterProvider

    from ..runner import DefaultRunner
    from .health import HealthApp
    from .prometheus import Collector, PrometheusApp

__all__ = ["health_app", "otel_metrics", "prometheus_app", "prometheus_collector"]


def prometheus_app(runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> PrometheusApp:
    """An ASGI application that answers with metrics in Prometheus' text format, at whatever path:
    `app.mount("/metrics", cloaca.telemetry.prometheus_app(runner))`.

    Of a runner it tells what that counts and how its store stands; by a URL only the latter, as
    `cloaca metrics` does. It lets in whoever reaches it: mount it where only Prometheus does.

    Args:
        runner_or_url (DefaultRunner | str | PathLike): a runner of this process, or a store's URL as
            `DefaultRunner` takes it.

    Raises:
        ImportError: prometheus_client is missing; `pip install "cloaca[prometheus]"` brings it.
        UrlError: (a `ValueError`) the URL means memory, or has none of the known forms.
    """
    _needs_prometheus()
    from .prometheus import PrometheusApp

    return PrometheusApp(runner_or_url)


def prometheus_collector(runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> Collector:
    """The same for a program that has metrics of its own: what `prometheus_client` registers,
    `REGISTRY.register(cloaca.telemetry.prometheus_collector(runner))`. Once the runner is shut down it tells
    what that has counted, and nothing else.

    Raises:
        ImportError, UrlError: as `prometheus_app` does.
    """
    _needs_prometheus()
    from .prometheus import Collector

    return Collector(runner_or_url)


def otel_metrics(runner: DefaultRunner, meter_provider: MeterProvider | None = None) -> None:
    """Has OpenTelemetry observe what a runner counts and how its store stands; once it is shut down what it
    has counted.

    Each metric is named as for Prometheus, with dots: `cloaca.fires`, `cloaca.store.runs_waiting`. What is a
    histogram there, which can't be observed, is two counters here, such as `cloaca.run.duration.count` and
    `cloaca.run.duration.sum`, in seconds. Spans need no call: they are made once the program has a provider.

    Args:
        runner (DefaultRunner): a runner of this process.
        meter_provider (MeterProvider | None): whose metrics they are; the program's own, unless given.

    Raises:
        ImportError: opentelemetry is missing; `pip install "cloaca[otel]"` brings its API.
    """
    try:
        from .observed import observe
    except ImportError as error:
        raise ImportError(f'this needs {error.name}; pip install "cloaca[otel]"', name=error.name) from error
    observe(runner, meter_provider)


def health_app(runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> HealthApp:
    """An ASGI application for probes: `app.mount("/health", cloaca.telemetry.health_app(runner))`.

    - `/healthz` is 503 if this runner has stopped, which starting the process again would mend.
    - `/readyz` is 503 while anything is wrong that `runner.health()` tells of, or the runner is paused or
      shut down; its body is that, as JSON.

    By a URL there is no runner that could have stopped: `/healthz` is 503 if the store can't be read. What
    was looked at less than a second ago is not looked at again.

    Args:
        runner_or_url (DefaultRunner | str | PathLike): as `prometheus_app` takes it.

    Raises:
        UrlError: (a `ValueError`) the URL means memory, or has none of the known forms.
    """
    from .health import HealthApp

    return HealthApp(runner_or_url)


def _needs_prometheus() -> None:
    try:
        import prometheus_client
    except ImportError as error:
        raise ImportError(
            f'cloaca.telemetry needs {error.name}; pip install "cloaca[prometheus]"', name=error.name
        ) from error
    del prometheus_client
