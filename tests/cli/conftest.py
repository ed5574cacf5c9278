"""The command line in this process."""

import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from page import kinds
from stage import Line

from cloaca.cli.show import Show

KINDS = kinds()


@pytest.fixture
def line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Line]:
    """Lines in an empty folder, in UTC; programs that they import are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in ("CLOACA_DATABASE", "NO_COLOR"):
        # Also what a line sets of it is gone afterwards.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm")
    assert os.environ.get("TZ", "UTC") in ("UTC", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    told = Show.record

    def record(show: Show, kind: str, thing: Any, but: Collection[str] = ()) -> None:
        """What is printed as JSON is as the page tells."""
        names = KINDS[kind]
        if names is not None:
            has = set(thing if isinstance(thing, dict) else thing.__dataclass_fields__) - {*but}
            assert names[0] <= has <= names[1], (kind, has)
        told(show, kind, thing, but)

    monkeypatch.setattr(Show, "record", record)
    known = set(sys.modules)
    yield Line(monkeypatch, capsys)
    for name in sys.modules.keys() - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
