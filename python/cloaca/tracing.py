"""Whether anybody traces this program, found out without asking for what is not there; who asked for a run.

Decides only that. Invariant: where no program has set a provider of OpenTelemetry nothing of it is imported,
and to find that out costs a look into a dictionary.
"""

from __future__ import annotations

import os
import sys
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from ._cloaca import Engine

_TRACE = "SELECT trace FROM runs WHERE id = ?"
"""By its id."""

_UNSET = ("ProxyTracerProvider", "NoOpTracerProvider")


@cache
def _is_named() -> bool:
    """Whether the environment names a provider, as it was when that was first asked: to look there each time
    costs as much as all else that a submit asks."""
    return "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


def active() -> ModuleType | None:
    """`cloaca.telemetry.spans`; `None` where nobody would get any."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    if getattr(api, "_TRACER_PROVIDER", api) is None and not _is_named():
        # To ask for the provider would make one that does nothing, each time.
        return None
    try:
        provider = api.get_tracer_provider()
    except Exception:
        # One that the environment names, and that cannot be made: that is the program's own business.
        return None
    if type(provider).__name__ in _UNSET:
        return None
    from .telemetry import spans

    return spans


def asked(engine: Engine, run: str) -> str | None:
    """What who asked for a run has handed on with it."""
    found = engine.store.query(_TRACE, [run])
    return found[0]["trace"] if found else None
