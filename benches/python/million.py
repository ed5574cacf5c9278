"""What very many triggers cost: to register, in memory, and in lateness."""

import gc
import time

from common import Figures, resident_bytes, run_contestant, wait_until

import cloaca


def run_cloaca(triggers: int, interval_s: float, seconds: float) -> Figures:
    """A runner with these triggers, which share one body: bodies are the user's memory."""

    def body():
        return cloaca.TriggerResult.skip()

    gc.collect()
    bytes_before, began = resident_bytes(), time.perf_counter()
    for number in range(triggers):
        cloaca.trigger(name=f"trigger-{number}", poll_interval=interval_s)(body)
    declared = time.perf_counter()
    with cloaca.DefaultRunner(":memory:") as runner:
        wait_until(lambda: len(_row(runner, triggers)) > 0)
        took = time.perf_counter() - began
        grown = resident_bytes() - bytes_before
        figures = {"register_s": took, "declare_s": declared - began, "bytes_each": grown / triggers}
        wait_until(lambda: runner.stats()["polls"] > 0)
        return figures | _lateness(runner, seconds)


def _row(runner: cloaca.DefaultRunner, number: int) -> list[dict[str, object]]:
    return runner.query("SELECT 1 FROM schedules WHERE row = ?", [number])


def _lateness(runner: cloaca.DefaultRunner, seconds: float) -> Figures:
    before = runner.stats()
    cpu = time.process_time()
    time.sleep(seconds)
    cpu = time.process_time() - cpu
    after = runner.stats()
    polls = after["polls"] - before["polls"]
    late_ms = after["polls"] * after["late_mean_ms"] - before["polls"] * before["late_mean_ms"]
    figures = {"late_mean_ms": late_ms / polls, "late_max_ms": after["late_max_ms"]}
    return figures | {"polls_per_second": polls / seconds, "core": cpu / seconds}


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, triggers=int, interval_s=float, seconds=float)
