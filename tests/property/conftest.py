"""How much is tried: a little and always the same by default, much with `HYPOTHESIS_PROFILE=more`."""

import os

from hypothesis import HealthCheck, settings

COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("ci", max_examples=150, derandomize=True, **COMMON)  # type: ignore[arg-type]
settings.register_profile("more", max_examples=5_000, **COMMON)  # type: ignore[arg-type]
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
