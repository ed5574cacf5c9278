"""A module that another thread has only begun to import counts as one that nobody has imported."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import cloaca
import cloaca.testing

# The import of asyncio waits for its own module in the midst of it, until a runner has run something.
AMIDST = """
import sys, threading
from importlib.machinery import PathFinder, SourceFileLoader

class Slow(SourceFileLoader):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "asyncio.base_events":
            spec = PathFinder.find_spec(name, path)
            spec.loader = cls(name, spec.origin)
            return spec

    def exec_module(self, module):
        begun.set()
        assert goes_on.wait(60)
        super().exec_module(module)

begun, goes_on = threading.Event(), threading.Event()
import cloaca
assert "asyncio" not in sys.modules
with cloaca.WorkflowBuilder("w"):
    cloaca.task(id="t")(lambda context: None)
sys.meta_path.insert(0, Slow)
imports = threading.Thread(target=lambda: __import__("asyncio"))
imports.start()
assert begun.wait(60)
assert not hasattr(sys.modules["asyncio"], "_get_running_loop")
runner = cloaca.DefaultRunner(":memory:")
goes_on.set()
imports.join()
print(runner.execute("w").status)
runner.shutdown()
"""


def test_a_runner_is_made_while_another_thread_imports_asyncio() -> None:
    line = [sys.executable, "-c", AMIDST]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("Completed\n", "")


@pytest.mark.parametrize(
    "module", ["multiprocessing.process", "cloaca.bodies.child", "cloaca.bodies.remote", "IPython"]
)
def test_a_runner_is_made_while_another_thread_imports(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("w").status == "Completed"


def test_a_task_is_mocked_while_another_thread_imports_mocks(monkeypatch: pytest.MonkeyPatch) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.testing.Runner() as runner:
        runner.replace_task("t", lambda context: {"n": 1})
        monkeypatch.setitem(sys.modules, "unittest.mock", ModuleType("unittest.mock"))
        assert runner.execute("w").final_context["n"] == 1
