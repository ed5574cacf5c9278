"""How soon a browser shows a run of many tasks: the first contentful paint in Chromium, with a cold cache.

Without Chromium and its driver there are no figures.
"""

import shutil
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import Figures, run_contestant

import cloaca
import cloaca.ui

LAYER = 10
"""So many tasks stand side by side."""
PAINTED = """
    const found = performance.getEntriesByName('first-contentful-paint');
    return found.length ? found[0].startTime : null;"""
PATIENCE_S = 30.0


def run_cloaca(tasks: int, rounds: int) -> Figures:
    """Half and 95 of a hundred, from the navigation on."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        return {}
    _declare(tasks)
    with tempfile.TemporaryDirectory() as folder, cloaca.DefaultRunner(Path(folder) / "runs.db") as runner:
        run = runner.submit("wide")
        run.result(120)
        address, end = _served(cloaca.ui.app(runner))
        browser = _browser(chromium, driver, folder)
        try:
            # The first one finds the browser cold.
            spans = [_painted(browser, f"{address}/run?id={run.id}") for _ in range(max(2, rounds) + 1)][1:]
        finally:
            browser.quit()
            end()
    parts = statistics.quantiles(spans, n=20, method="inclusive")
    return {"paint_p50_ms": parts[9], "paint_p95_ms": parts[-1]}


def _declare(tasks: int) -> None:
    with cloaca.WorkflowBuilder("wide"):
        for number in range(tasks):
            before = [f"task-{each}" for each in range(number - LAYER, number) if each >= 0][:2]
            cloaca.task(id=f"task-{number}", dependencies=before)(lambda context: None)


def _served(page: Any) -> tuple[str, Any]:
    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(page, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()

    def end() -> None:
        server.should_exit = True
        thread.join(20)
        listening.close()

    return f"http://127.0.0.1:{listening.getsockname()[1]}", end


def _browser(chromium: str, driver: str, folder: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}/browser",
    ):
        options.add_argument(word)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def _painted(browser: Any, address: str) -> float:
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    browser.get(address)
    until = time.monotonic() + PATIENCE_S
    while (found := browser.execute_script(PAINTED)) is None:
        if time.monotonic() > until:
            raise TimeoutError(f"{address} was not painted in {PATIENCE_S} s")
        time.sleep(0.01)
    return float(found)


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, tasks=int, rounds=int)
