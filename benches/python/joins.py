"""A workflow of crossing branches: how long it takes, and how long a bystander stands still meanwhile."""

import sys
import threading
import time

from common import Figures, run_contestant

import cloaca

LOOK_EVERY_S = 0.0005
#: What is looked for is who holds the interpreter in one piece. Threads that are busy in Python make each
#: other wait a switch interval, whatever they do, which is 5 ms by default: a bystander of four 40 ms.
SLOTS = 1
SWITCH_INTERVAL_S = 0.0002


def run_cloaca(layers: int, width: int) -> Figures:
    """Layers of tasks that each add a key and depend on the whole layer above."""
    _declare(layers, width)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    is_over = threading.Event()
    gaps: list[float] = []
    bystander = threading.Thread(target=_stand_by, args=(is_over, gaps))
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=SLOTS)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        bystander.start()
        began = time.perf_counter()
        result = runner.execute("layers")
        took = time.perf_counter() - began
        is_over.set()
        bystander.join()
    assert len(result.final_context) == layers * width, result
    return {"run_s": took, "still_ms": max(gaps) * 1000}


def _declare(layers: int, width: int) -> None:
    with cloaca.WorkflowBuilder("layers"):
        for layer in range(layers):
            above = [f"{layer - 1}/{column}" for column in range(width)] if layer else []
            for column in range(width):
                _add_key(f"{layer}/{column}", above)


def _add_key(task_id: str, dependencies: list[str]) -> None:
    def body(context: cloaca.Context) -> None:
        context[task_id] = 1

    cloaca.task(id=task_id, dependencies=dependencies)(body)


def _stand_by(is_over: threading.Event, gaps: list[float]) -> None:
    last = time.perf_counter()
    while not is_over.is_set():
        time.sleep(LOOK_EVERY_S)
        now = time.perf_counter()
        gaps.append(now - last - LOOK_EVERY_S)
        last = now


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, layers=int, width=int)
