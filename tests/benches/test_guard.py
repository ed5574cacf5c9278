"""The guard over instruction counts: what it lets pass and what it does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

PLACE = Path(__file__).resolve().parents[2] / "benches" / "guard.py"
TOOLS = {"rust": "rustc 1", "python": "Python 3"}
BASELINE = {"toolchains": TOOLS, "instructions": {"rust": {"wheel": 100.0}, "python": {"poll": 1000.0}}}


@pytest.fixture(scope="module")
def guard() -> Any:
    spec = importlib.util.spec_from_file_location("guard", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("wheel", "poll", "fails"),
    [(100, 1000, False), (109, 1099, False), (111, 1000, True), (100, 1101, True), (50, 500, False)],
)
def test_a_path_that_grows_by_more_than_a_tenth_fails(guard: Any, wheel: int, poll: int, fails: bool) -> None:
    counts = {"rust": {"wheel": wheel}, "python": {"poll": poll}}
    lines, failed = guard.compare(BASELINE, TOOLS, counts)
    assert failed is fails
    assert any("GROWN" in line for line in lines) is fails
    assert any("--update" in line for line in lines) is (wheel == 50)


def test_counts_of_other_tools_are_shown_and_not_judged(guard: Any) -> None:
    counts = {"rust": {"wheel": 100.0}, "python": {"poll": 2000.0}}
    lines, failed = guard.compare(BASELINE, TOOLS | {"python": "Python 4"}, counts)
    assert not failed
    assert any("other tools" in line for line in lines)
    assert any("GROWN by 100%" in line for line in lines)


def test_a_new_path_is_no_failure(guard: Any) -> None:
    lines, failed = guard.compare(BASELINE, TOOLS, {"rust": {"wheel": 100.0, "gate": 7.0}})
    assert not failed
    assert any(line.endswith("new") for line in lines)


def test_every_path_has_a_committed_count(guard: Any) -> None:
    known = json.loads(guard.BASELINE.read_text())["instructions"]
    assert {side: set(paths) for side, paths in guard.PATHS.items()} == {
        side: set(paths) for side, paths in known.items()
    }
