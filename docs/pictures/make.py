"""Makes the pictures of the page: a store that has been busy for a day, seen in Chromium.

usage: .venv/bin/python docs/pictures/make.py. Needs chromium, its driver, and what development needs.
"""

import random
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

import cloaca
import cloaca.ui

HERE = Path(__file__).parent
WIDTH = 1180
_random = random.Random(7)

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
        time.sleep(_random.uniform(0.03, 0.09))
        if context["file"].endswith("7.csv"):
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
    with tempfile.TemporaryDirectory() as folder, cloaca.DefaultRunner(Path(folder) / "orders.db") as runner:
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
            taken(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


def taken(base: str) -> None:
    """Takes them."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("needs chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.get(f"{base}/runs?status=Failed&workflow=import-orders")
        run = driver.find_element(By.CSS_SELECTOR, "table.runs a.id").get_attribute("href")
        for name, address, height in (
            ("overview", base, 760),
            ("run", run, 800),
            ("trigger", f"{base}/trigger?name=inbox", 620),
        ):
            metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            driver.get(address)
            time.sleep(1)
            driver.save_screenshot(str(HERE / f"{name}.png"))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
