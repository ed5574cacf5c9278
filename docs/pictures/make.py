"""Makes the pictures of the docs: the page of a store that has been busy, what Prometheus shows of it, and
the spans of one of its runs, all seen in Chromium.

usage: .venv/bin/python docs/pictures/make.py. Needs chromium, its driver, prometheus, and what development
needs.
"""

import contextlib
import logging
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

import cloaca
import cloaca.ui

HERE = Path(__file__).parent
WIDTH = 1180
SCRAPED_SECONDS = 45
GRAPH = "histogram_quantile(0.95, sum by (le, task) (rate(cloaca_task_attempt_duration_seconds_bucket[15s])))"
REQUEST = "POST /orders"
_random = random.Random(7)
log = logging.getLogger("orders")

with cloaca.WorkflowBuilder("import-orders"):

    @cloaca.task()
    def read(context: cloaca.Context) -> None:
        time.sleep(_random.uniform(0.02, 0.06))
        context["lines"] = _random.randint(40, 400)

    @cloaca.task(dependencies=[read])
    def check(context: cloaca.Context) -> None:
        time.sleep(_random.uniform(0.05, 0.12))
        context["checked"] = True

    @cloaca.task(dependencies=[read], retry_attempts=3, retry_delay_ms=120, retry_jitter=False)
    def price(context: cloaca.Context) -> None:
        log.info("looks up %d articles of %s", context["lines"], context["file"])
        time.sleep(_random.uniform(0.03, 0.09))
        if context["file"].endswith("7.csv"):
            log.warning("the price list of today is not there yet")
            raise LookupError(f"article {_random.randint(1000, 9999)} has no price")
        context["total"] = round(_random.uniform(100, 9000), 2)

    @cloaca.task(dependencies=[check, price])
    def book(context: cloaca.Context) -> None:
        time.sleep(0.03)
        context["booked"] = True


with cloaca.WorkflowBuilder("nightly-report"):

    @cloaca.task()
    def send(context: cloaca.Context) -> None:
        if context.get("n") == 3:
            raise ConnectionError("mail.example.org: connection refused")


@cloaca.trigger(workflow="import-orders", poll_interval="500ms")
def inbox(tick: cloaca.Tick) -> Any:
    place = (tick.cursor or 0) + 1
    if place % 4:
        tick.cursor = place
        return cloaca.TriggerResult.skip("the inbox is empty")
    name = f"orders-{place}.csv"
    return cloaca.TriggerResult.fire({"file": name}, run_key=name, cursor=place)


@cloaca.trigger(workflow="nightly-report", poll_interval="1s")
def share() -> Any:
    raise OSError("//files/reports: the share is gone")


@cloaca.trigger(workflow="nightly-report", cron="30 3 * * *", timezone="Europe/Berlin")
def nightly() -> None:
    pass


def main() -> None:
    """Makes them."""
    log.setLevel(logging.INFO)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with (
        tempfile.TemporaryDirectory() as folder,
        cloaca.DefaultRunner(Path(folder) / "orders.db", keep_logs="1 MiB") as runner,
    ):
        runs = runner.submit_many("import-orders", [{"file": f"orders-{n}.csv"} for n in range(28)])
        runs += runner.submit_many("nightly-report", [{"n": n} for n in range(5)])
        for run in runs:
            run.result(60)
        time.sleep(6)
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            cloaca.ui.app(runner), log_level="error", ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            address = f"127.0.0.1:{listening.getsockname()[1]}"
            taken(f"http://{address}", "page")
            with prometheus(Path(folder), address) as graphs:
                until = time.monotonic() + SCRAPED_SECONDS
                for n in range(100_000):
                    runner.submit_many(
                        "import-orders", [{"file": f"orders-{n % 10}.csv"}] * _random.randint(1, 3)
                    )
                    time.sleep(_random.uniform(0.2, 0.9))
                    if time.monotonic() > until:
                        break
                taken(graphs, "metrics")
            with trace.get_tracer("shop").start_as_current_span(REQUEST):
                runner.execute("import-orders", {"file": "orders-8.csv"})
            time.sleep(1)
            spans = Path(folder) / "spans.html"
            spans.write_text(waterfall(exporter.get_finished_spans()))
            taken(spans.as_uri(), "trace")
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """One that reads the page's metrics every second, and its page with two graphs."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: cloaca, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'series'}"]
    command = ["prometheus", *words, f"--web.listen-address={address}", "--log.level=error"]
    with subprocess.Popen(command) as server:
        try:
            yield f"http://{address}"
        finally:
            server.terminate()


STYLE = """
body { margin: 0; padding: 14px; color: #1d2126; font: 14px system-ui, "DejaVu Sans", sans-serif; }
table { width: 100%; border-collapse: collapse; background: #fff; border: 1px solid #e1e4e8; }
td { padding: .3rem .6rem; border-top: 1px solid #e1e4e8; white-space: nowrap; }
.bar { width: 62%; position: relative; }
.num { text-align: right; }
i { position: absolute; top: 30%; height: 40%; min-width: 2px; border-radius: 2px; background: #4a8fc7; }
"""


def waterfall(spans: tuple[ReadableSpan, ...]) -> str:
    """The spans of the request's trace, one below the other, as viewers of traces draw them."""
    (request,) = (span for span in spans if span.name == REQUEST)
    trace_id = request.get_span_context().trace_id
    own = [span for span in spans if span.get_span_context().trace_id == trace_id]
    own.sort(key=lambda span: span.start_time or 0)
    began = min(span.start_time or 0 for span in own)
    whole = max(span.end_time or 0 for span in own) - began
    depths: dict[int, int] = {}
    rows = []
    for span in own:
        depth = depths.get(span.parent.span_id, -1) + 1 if span.parent else 0
        depths[span.get_span_context().span_id] = depth
        left, took = (span.start_time or 0) - began, (span.end_time or 0) - (span.start_time or 0)
        place = f"left:{100 * left / whole:.2f}%;width:{100 * took / whole:.2f}%"
        rows.append(
            f"<tr><td style='padding-left:{0.6 + depth * 1.1}rem'>{escape(span.name)}</td>"
            f"<td class=bar><i style='{place}'></i></td><td class=num>{took / 1e6:.1f} ms</td></tr>"
        )
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><table>{''.join(rows)}</table>"


def taken(base: str, what: str) -> None:
    """Takes them."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("needs chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        if what == "trace":
            shot(driver, "trace", base, 300, "table")
            return
        if what == "metrics":
            shot(driver, "metrics", f"{base}/graph?g0.expr={quote(GRAPH)}&g0.tab=0&g0.range_input=40s", 940)
            return
        driver.get(f"{base}/runs?status=Failed&workflow=import-orders")
        run = driver.find_element(By.CSS_SELECTOR, "table.runs a.id").get_attribute("href")
        for name, address, height in (
            ("overview", base, 760),
            ("run", run, 800),
            ("trigger", f"{base}/trigger?name=inbox", 620),
        ):
            shot(driver, name, address, height)
        shot(driver, "log", run, 1600, "#log")
    finally:
        driver.quit()


def shot(
    driver: webdriver.Chrome, name: str, address: str | None, height: int, part: str | None = None
) -> None:
    """Takes one, of the whole window or of a part of it."""
    metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get(address or "")
    time.sleep(2)
    path = str(HERE / f"{name}.png")
    if part is None:
        driver.save_screenshot(path)
    else:
        driver.find_element(By.CSS_SELECTOR, part).screenshot(path)


if __name__ == "__main__":
    main()
