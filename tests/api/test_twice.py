"""What is there twice by mistake is told of: a trigger's name, a runner."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cloaca

CELL = """
import cloaca

@cloaca.trigger(workflow="w", poll_interval="1h", name="inbox")
def watch():
    return False

def other():
    return False

def declare():
    @cloaca.trigger(workflow="w", poll_interval="1h", name="made")
    def made():
        return False
"""


def executed(name: str, file: str = "cell.py") -> dict[str, Any]:
    module = ModuleType(name)
    exec(compile(CELL, file, "exec"), module.__dict__)
    return module.__dict__


def warned(call: Any, *arguments: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments)
    return [str(warning.message) for warning in caught]


def test_another_function_of_a_triggers_name_is_told_of_with_both_places() -> None:
    names = executed("first")
    (text,) = warned(cloaca.trigger(workflow="w", poll_interval="1h", name="inbox"), names["other"])
    assert "'inbox'" in text
    assert "first.watch (cell.py:4)" in text
    assert "first.other (cell.py:8)" in text
    (text,) = warned(executed, "second")
    assert "first.other (cell.py:8)" in text
    assert "second.watch (cell.py:4)" in text


def test_what_is_the_same_once_more_is_not() -> None:
    names = executed("cell")
    assert warned(executed, "cell") == []
    assert warned(names["declare"]) == warned(names["declare"]) == []
    unnamed = cloaca.trigger(workflow="w", poll_interval="1h", name="inbox")
    assert warned(unnamed, lambda: False) == []


FLOW = """
import cloaca

with cloaca.WorkflowBuilder("process") as builder:
    @cloaca.task()
    def load(context): ...

def again():
    with cloaca.WorkflowBuilder("process"):
        @cloaca.task()
        def load(context): ...
"""


def test_another_modules_workflow_of_that_name_is_told_of_with_both_places() -> None:
    def flow(name: str) -> dict[str, Any]:
        module = ModuleType(name)
        exec(compile(FLOW, f"{name}.py", "exec"), module.__dict__)
        return module.__dict__

    assert warned(flow, "first") == []
    assert warned(flow, "first") == [], "a cell that runs again"
    (text,) = warned(flow, "second")
    assert "'process'" in text
    assert "first.load (first.py:5)" in text
    assert "second.load (second.py:5)" in text
    assert warned(flow("second")["again"]) == [], "what a function makes"


def test_the_program_and_its_module_are_one(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(CELL + "if __name__ == '__main__':\n    import app\n")
    paths = os.pathsep.join([*sys.path, str(tmp_path)])
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONPATH": paths}
    command = [sys.executable, str(tmp_path / "app.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_more_runner_of_one_place_and_file_is_told_of(tmp_path: Path) -> None:
    def cell(path: Path | str) -> None:
        cloaca.DefaultRunner(str(path))

    before = cloaca.runners()
    assert warned(cell, tmp_path / "a.db") == []
    (text,) = warned(cell, tmp_path / "a.db")
    assert "test_twice.py:" in text
    assert "a.db" in text
    assert "cloaca.runners()" in text
    assert warned(cell, tmp_path / "b.db") == []
    assert warned(cell, ":memory:") == warned(cell, ":memory:") == []
    made = [runner for runner in cloaca.runners() if runner not in before]
    assert len(made) == 5
    for runner in made:
        runner.shutdown()
    assert [runner for runner in cloaca.runners() if runner not in before] == []
    assert warned(cell, tmp_path / "a.db") == []
    cloaca.runners()[-1].shutdown()


@pytest.mark.parametrize(
    "names",
    [("<ipython-input-1-0a>", "<ipython-input-2-0b>"), ("/t/ipykernel_7/1.py", "/t/ipykernel_7/2.py")],
)
def test_a_cell_that_is_run_again_makes_one_more_runner(tmp_path: Path, names: tuple[str, str]) -> None:
    def cell(file: str, text: str) -> None:
        exec(compile(text, file, "exec"), {"cloaca": cloaca, "path": str(tmp_path / "a.db")})

    first, edited = names
    assert warned(cell, first, "runner = cloaca.DefaultRunner(path)") == []
    (text,) = warned(cell, edited, "# edited\nrunner = cloaca.DefaultRunner(path)")
    assert "a runner made in a cell" in text


def test_runners_made_one_after_the_other_are_not_told_of(tmp_path: Path) -> None:
    def each() -> None:
        for _ in range(2):
            with cloaca.DefaultRunner(str(tmp_path / "a.db")):
                pass

    assert warned(each) == []


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    yield
    for runner in cloaca.runners():
        runner.shutdown()


def test_a_warning_that_is_an_error_leaves_nothing_half_declared() -> None:
    polled: list[str] = []
    new = threading.Event()

    def first() -> bool:
        polled.append("first")
        return False

    def second() -> bool:
        new.set()
        return False

    # Not two of one place, which are no surprise.
    first.__qualname__, second.__qualname__ = "first", "second"
    with cloaca.DefaultRunner(":memory:") as runner:
        cloaca.trigger(name="tr", poll_interval="5ms")(first)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match="'tr'"):
                cloaca.trigger(name="tr", poll_interval="5ms")(second)
        assert new.wait(30), "the runner that lives polls what the next one would"
        before = len(polled)
        assert runner.tick("tr")["outcome"] == "skip"
        assert len(polled) == before
    assert cloaca.registry.triggers["tr"].function is second
