"""What pytest finds by itself once this package is installed: the fixture `cloaca_runner`.

Nothing else imports it, so that the package does without pytest.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from . import testing

MARKER = "cloaca_runner"


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(triggers=None, **arguments): which triggers of the program the fixture {MARKER} polls,"
        " and other arguments of its cloaca.testing.Runner",
    )


@pytest.fixture
def cloaca_runner(request: pytest.FixtureRequest) -> Iterator[testing.Runner]:
    """A `cloaca.testing.Runner` on a manual clock, which raises what triggers and tasks raise.

    It knows what the test declares, and that is forgotten afterwards. Of what the program has declared it
    knows nothing, unless the test is marked with `@pytest.mark.cloaca_runner(triggers=[inbox])`: then that
    trigger, and all workflows.
    """
    from . import testing

    marker = request.node.get_closest_marker(MARKER)
    arguments: dict[str, Any] = {"raise_errors": True} | (dict(marker.kwargs) if marker is not None else {})
    with testing.isolated(triggers=arguments.pop("triggers", None)), testing.Runner(**arguments) as runner:
        yield runner
