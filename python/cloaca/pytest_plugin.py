"""What pytest finds by itself once this package is installed: the fixture `cloaca_runner`.

Nothing else imports it, so that the package does without pytest.
"""

from __future__ import annotations

import pytest

from .errors import ArgumentTypeError, excerpt
from .near import refuse_keywords

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from . import testing

MARKER = "cloaca_runner"
_ARGUMENTS = ("triggers", "start", "config", "raise_errors", "redact")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(triggers=None, /, **arguments): which triggers of the program the fixture {MARKER} polls,"
        " and other arguments of its cloaca.testing.Runner",
    )


def _given(marker: pytest.Mark) -> dict[str, Any]:
    """What a test says of its runner, by name.

    Raises:
        ArgumentTypeError: (a `TypeError`) an unknown name, `triggers` twice, or more than that without one.
    """
    refuse_keywords(f"@pytest.mark.{MARKER}", marker.kwargs, _ARGUMENTS)
    if not marker.args:
        return dict(marker.kwargs)
    if len(marker.args) > 1 or "triggers" in marker.kwargs:
        raise ArgumentTypeError(
            f"@pytest.mark.{MARKER} takes only triggers without a name, and once; got {excerpt(marker.args)}."
            f" Write @pytest.mark.{MARKER}(triggers=[...], start=...)"
        )
    return {"triggers": marker.args[0], **marker.kwargs}


@pytest.fixture
def cloaca_runner(request: pytest.FixtureRequest) -> Iterator[testing.Runner]:
    """A `cloaca.testing.Runner` on a manual clock, which raises what triggers and tasks raise.

    It knows what the test declares, and that is forgotten afterwards. Of what the program has declared it
    knows nothing, unless the test is marked with `@pytest.mark.cloaca_runner(triggers=[inbox])`: then that
    trigger, and all workflows; with `triggers="all"` everything. `raise_errors=False` there has failures only
    show in what the runner tells.
    """
    from . import testing

    marker = request.node.get_closest_marker(MARKER)
    arguments: dict[str, Any] = {"raise_errors": True} | ({} if marker is None else _given(marker))
    with testing.isolated(triggers=arguments.pop("triggers", None)), testing.Runner(**arguments) as runner:
        yield runner
