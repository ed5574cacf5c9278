"""How long runs take beside an exporter that hangs or raises, and beside one that takes its spans at once.

Blocks of runs take turns, so that what slows the machine for a while slows each of them.
"""

import logging
import threading
import time
from pathlib import Path

from common import Figures, folder_on_disk, percentile, run_contestant
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from workflows import CONTEXT, declare_chain, runner_on

BLOCK_RUNS = 100
WAYS = ("well", "hangs", "raises")


class Moody(SpanExporter):
    """An exporter that does as it is told."""

    def __init__(self) -> None:
        self.way = "well"
        self.goes_on = threading.Event()

    def export(self, spans: object) -> SpanExportResult:
        if self.way == "hangs":
            self.goes_on.wait()
        elif self.way == "raises":
            raise OSError("the collector is gone")
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True

    def turn(self, way: str) -> None:
        self.way = way
        if way == "hangs":
            self.goes_on.clear()
        else:
            self.goes_on.set()


def run_traced(tasks: int, durability: str, runs: int) -> Figures:
    """`execute`, from one thread, `runs` for each way of the exporter."""
    # What the exporter's own thread says of its failures is written nowhere.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = Moody()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    trace.set_tracer_provider(provider)
    declare_chain("chain", tasks)
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    with folder_on_disk() as folder, runner_on(Path(folder) / "runs.db", durability) as runner:
        for _ in range(50):
            runner.execute("chain", CONTEXT)
        while len(took["raises"]) < runs:
            for way in WAYS:
                exporter.turn(way)
                for _ in range(min(BLOCK_RUNS, runs)):
                    began = time.perf_counter()
                    runner.execute("chain", CONTEXT)
                    took[way].append((time.perf_counter() - began) * 1e6)
    exporter.turn("well")
    figures: Figures = {}
    for way, each in took.items():
        each.sort()
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            figures[f"{way}_{name}_us"] = percentile(each, share)
    return figures


if __name__ == "__main__":
    run_contestant({"traced": run_traced}, tasks=int, durability=str, runs=int)
