"""The page in a real browser: Debian's Chromium by its driver."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from looker import WAIT, failed
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import cloaca
import cloaca.ui

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs chromium and its driver: apt-get install chromium chromium-driver",
)

AXE = Path(os.environ.get("CLOACA_AXE") or str(files("axe_core_python") / "axe.min.js")).read_text(
    encoding="utf-8"
)
"""Axe itself; CLOACA_AXE may name a newer one."""
SCREENS = ("/", "/runs", "/runs?status=Failed", "/triggers", "/workflows", "/system")


def started(*arguments: str, **preferences: int) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        *arguments,
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


@pytest.fixture(scope="module")
def _chromium() -> Iterator[webdriver.Chrome]:
    driver = started("--window-size=1280,900")
    yield driver
    driver.quit()


@pytest.fixture
def browser(_chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """A browser that forgets after each test, and has nothing to complain of."""
    yield _chromium
    complaints = [entry["message"] for entry in _chromium.get_log("browser")]
    # A server that ended cut the stream.
    complaints = [each for each in complaints if "/live?" not in each]
    _chromium.get("about:blank")
    _chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    _chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    _chromium.delete_all_cookies()
    assert complaints == []


def until(browser: webdriver.Chrome, holds: Callable[[webdriver.Chrome], Any]) -> Any:
    """Waits until something holds there."""
    return WebDriverWait(browser, WAIT, poll_frequency=0.05, ignored_exceptions=[Exception]).until(holds)


def shown(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "main").text


def press(browser: webdriver.Chrome, text: str) -> None:
    """One that has just come does nothing for a second."""
    words = f"//button[normalize-space()='{text}'][not(@aria-disabled)]"
    until(browser, lambda _: browser.find_element(By.XPATH, words)).click()


@pytest.fixture
def base(runner: cloaca.DefaultRunner, serve: Callable[..., str]) -> str:
    """Where the page of the program is."""
    return serve(cloaca.ui.app(runner))


def screens(runner: cloaca.DefaultRunner) -> list[str]:
    """Where there is something to see, of each kind."""
    runner.tick("share")
    runner.tick("inbox")
    runner.set_trigger_enabled("nightly", False)
    runner.set_trigger_enabled("nightly", True)
    (bad,) = failed(runner)
    runner.submit("ingest", {"file": "good"}, run_key="order 7").result(WAIT)
    named = ("/trigger?name=inbox", "/trigger?name=nightly", "/workflow?name=ingest", f"/run?id={bad}")
    return [*SCREENS, *named, "/nowhere"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner, scheme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for path in screens(runner):
        browser.get(base + path)
        browser.execute_script(AXE)
        found = browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
        told = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]
        assert told == [], path
    browser.get_log("browser")  # that "/nowhere" is none is a complaint of the browser


def test_it_fits_a_phone(browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for path in screens(runner)[:-1]:
        browser.get(base + path)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360, path


BROKEN = """
    const broken = [];
    for (const cell of document.querySelectorAll(".rows th, .rows td:not(.error, .text, .name)")) {
      const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
      for (let node = walk.nextNode(); node; node = walk.nextNode())
        for (const word of node.data.matchAll(/[A-Za-z]+/g)) {
          const range = document.createRange();
          range.setStart(node, word.index);
          range.setEnd(node, word.index + word[0].length);
          const lines = new Set([...range.getClientRects()].map((each) => each.top));
          if (lines.size > 1 && cell.closest("tr.more") === null) broken.push(word[0]);
        }
    }
    return broken"""


@pytest.mark.parametrize("width", [360, 1280])
def test_no_word_of_a_table_is_torn(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner, width: int
) -> None:
    metrics = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    failed(runner, 2)
    long = "the file that was asked for is not there, and nobody knows where it went " * 3
    runner.execute("ingest", {"error": long})
    for path in screens(runner)[:-1]:
        browser.get(base + path)
        assert browser.execute_script(BROKEN) == [], path
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, path


def test_a_run_is_seen_while_it_runs(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner, gate: threading.Event
) -> None:
    browser.get(f"{base}/runs?workflow=slow")
    assert "No run matches" in shown(browser)
    run = runner.submit("slow")
    until(browser, lambda driver: driver.find_element(By.CSS_SELECTOR, "table.runs a.id")).click()
    until(browser, lambda driver: "hold" in shown(driver))
    gate.set()
    until(browser, lambda driver: "Context out" in shown(driver))
    assert run.result(WAIT).status == "Completed"


def test_retry_and_cancel_by_click(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner, gate: threading.Event
) -> None:
    run = runner.submit("slow")
    browser.get(f"{base}/run?id={run.id}")
    press(browser, "Cancel")
    until(browser, lambda driver: "its end was asked for" in shown(driver))
    gate.set()
    until(browser, lambda driver: "Cancelled" in shown(driver))
    assert run.result(WAIT).status == "Cancelled"
    press(browser, "Retry from what failed")
    until(browser, lambda driver: "Completed slow" in shown(driver))


def test_a_trigger_is_switched_and_previewed_by_click(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    browser.get(f"{base}/trigger?name=inbox")
    press(browser, "Disable")
    until(browser, lambda driver: "disabled inbox" in shown(driver))
    press(browser, "Enable")
    until(browser, lambda driver: "polled inbox" in shown(driver))
    press(browser, "Preview a poll")
    until(browser, lambda driver: "would fire 2 runs" in shown(driver))
    assert runner.list_runs() == []


def test_a_workflow_is_paused_and_resumed_by_click(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    runner.execute("ingest")
    browser.get(f"{base}/workflow?name=ingest")
    press(browser, "Pause")
    until(browser, lambda driver: "workflow 'ingest' is paused" in shown(driver))
    held = runner.submit("ingest")
    press(browser, "Resume")
    until(browser, lambda driver: "is paused" not in shown(driver))
    assert held.result(WAIT).status == "Completed"


def test_those_of_one_kind_are_retried_by_click(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    failed(runner, 3)
    browser.get(base)
    until(browser, lambda driver: driver.find_element(By.LINK_TEXT, "Retry them…")).click()
    press(browser, "Retry all that match…")
    until(browser, lambda driver: "Retry 3 runs?" in shown(driver))
    press(browser, "Retry them")
    until(browser, lambda driver: "3 runs opened again." in shown(driver))


def test_many_are_retried_by_click(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    failed(runner, 3)
    browser.get(f"{base}/runs?status=Failed")
    press(browser, "Retry all that match…")
    until(browser, lambda driver: "Retry 3 runs?" in shown(driver))
    press(browser, "Retry them")
    until(browser, lambda driver: "3 runs opened again." in shown(driver))


def test_what_is_open_and_where_one_stands_survives_news(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner, gate: threading.Event
) -> None:
    with cloaca.WorkflowBuilder("shaky"):

        @cloaca.task(retry_attempts=2, retry_delay_ms=1, retry_jitter=False)
        def shake(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            if handle.attempt == 1:
                raise ValueError("once")

        @cloaca.task(dependencies=[shake])
        def hold(context: cloaca.Context) -> None:
            gate.wait(WAIT)

    run = runner.submit("shaky")
    # The last attempt on record is shown open: the second one has to be on it, too.
    while not any(
        task["status"] == "Completed" for task in (runner.get_run(run.id) or {"tasks": []})["tasks"]
    ):
        pass
    browser.get(f"{base}/run?id={run.id}")
    until(browser, lambda driver: driver.find_element(By.CSS_SELECTOR, ".tasks .badge.busy"))
    first = until(browser, lambda driver: driver.find_element(By.TAG_NAME, "details"))
    browser.execute_script(
        "const summary = arguments[0].firstElementChild; summary.focus(); summary.click()", first
    )
    assert first.get_attribute("open") == "true"
    focused = browser.switch_to.active_element
    gate.set()
    until(browser, lambda driver: "Context out" in shown(driver))
    assert first.get_attribute("open") == "true"
    assert browser.switch_to.active_element == focused
    assert focused.tag_name == "summary"


def test_a_hidden_tab_does_not_listen(
    browser: webdriver.Chrome, runner: cloaca.DefaultRunner, serve: Callable[..., str]
) -> None:
    app = cloaca.ui.app(runner)
    browser.get(serve(app))
    live = app._live
    until(browser, lambda driver: live.tabs == 1)
    script = """Object.defineProperty(document, "hidden", {value: arguments[0], configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));"""
    browser.execute_script(script, True)
    until(browser, lambda driver: live.tabs == 0)
    failed(runner)
    browser.execute_script(script, False)
    until(browser, lambda driver: live.tabs == 1 and "failed" in shown(driver))


def test_a_page_is_found_again_after_its_server_was_gone(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    browser.get(f"{base}/runs")
    until(browser, lambda driver: driver.find_element(By.ID, "live").text == "live")
    failed(runner)
    until(browser, lambda driver: "ValueError" in shown(driver))
    browser.refresh()
    assert "ValueError" in shown(browser)


def test_times_are_the_readers_and_utc_on_hover(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    (bad,) = failed(runner)
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    try:
        browser.get(f"{base}/run?id={bad}")
        time = browser.find_element(By.CSS_SELECTOR, "dd time")
        hour = int(runner.get_run(bad)["created_at"][11:13])
        assert f"{(hour + 9) % 24:02d}:" in time.text
        assert f" {hour:02d}:" in time.get_attribute("title")
        assert time.get_attribute("title").endswith(" UTC")
    finally:
        browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_news_leave_what_one_is_at_where_it_is(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    failed(runner, 3)
    browser.get(f"{base}/runs")
    until(browser, lambda _: browser.find_element(By.ID, "live").text == "live")
    ActionChains(browser).send_keys("jj").perform()
    chosen = browser.switch_to.active_element.get_attribute("href")
    marked = browser.execute_script(
        "const range = document.createRange(); range.selectNodeContents(document.activeElement);"
        "getSelection().removeAllRanges(); getSelection().addRange(range); return String(getSelection())"
    )
    before = len(browser.find_elements(By.CSS_SELECTOR, "tbody tr"))
    failed(runner, 3)
    until(browser, lambda _: len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) == before + 3)
    assert browser.switch_to.active_element.get_attribute("href") == chosen
    assert browser.execute_script("return String(getSelection())") == marked


def test_a_button_that_comes_under_the_hand_does_nothing_yet(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner, gate: threading.Event
) -> None:
    run = runner.submit("slow")
    browser.get(f"{base}/run?id={run.id}")
    until(browser, lambda _: browser.find_element(By.ID, "live").text == "live")
    cancel = until(browser, lambda _: browser.find_element(By.XPATH, "//button[text()='Cancel']"))
    browser.execute_script("arguments[0].focus()", cancel)
    # Whatever comes in its place is pressed in the moment in which it does.
    browser.execute_script(
        "new MutationObserver((_, observer) => {"
        "  const button = document.querySelector('button[form=act][value^=again]');"
        "  if (button) { observer.disconnect(); setTimeout(() => button.click()); }"
        "}).observe(document.getElementById('main'), { childList: true, subtree: true })"
    )
    gate.set()
    until(browser, lambda _: "Completed" in browser.find_element(By.TAG_NAME, "h1").text)
    assert browser.switch_to.active_element.get_attribute("id") == "main"
    assert browser.current_url.endswith(run.id)
    assert len(runner.list_runs(workflow="slow")) == 1
    press(browser, "Run again from its start")
    until(browser, lambda _: len(runner.list_runs(workflow="slow")) == 2)


def test_keys_lead_through_the_page(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    failed(runner, 2)
    browser.get(f"{base}/runs")
    keys = ActionChains(browser)
    keys.send_keys("j", "j").perform()
    rows = browser.find_elements(By.CSS_SELECTOR, "table.runs tbody tr")
    assert browser.switch_to.active_element == rows[1].find_element(By.TAG_NAME, "a")
    keys.send_keys("/").perform()
    assert browser.switch_to.active_element.get_attribute("name") == "q"
    browser.switch_to.active_element.send_keys("no price", Keys.ENTER)
    until(browser, lambda driver: "2 runs found" in shown(driver))
    browser.get(base)
    keys.send_keys(Keys.TAB).perform()
    assert browser.switch_to.active_element.text == "To the content"


def test_what_strangers_wrote_does_nothing(
    browser: webdriver.Chrome, base: str, runner: cloaca.DefaultRunner
) -> None:
    evil = "</pre><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    run = runner.submit("ingest", {"error": evil, evil: evil}, run_key=evil)
    browser.get(f"{base}/run?id={run.id}")
    run.result(WAIT)
    until(browser, lambda driver: "Context out" in shown(driver))  # came by the stream, too
    assert evil in shown(browser)
    for path in ("/", "/runs"):
        browser.get(base + path)
        until(browser, lambda driver: evil in shown(driver))
        assert browser.title.endswith("cloaca")
    assert not browser.find_elements(By.CSS_SELECTOR, "main script, main img")


def test_without_scripts_it_reads_and_acts(base: str, runner: cloaca.DefaultRunner) -> None:
    assert len(failed(runner)) == 1
    script_setting = {"profile.managed_default_content_settings.javascript": 2}
    driver = started("--window-size=1280,900", **script_setting)
    try:
        driver.get(base)
        assert "1 run failed in the last 24 hours." in shown(driver)
        assert " UTC" in shown(driver)
        driver.find_element(By.LINK_TEXT, "Runs").click()
        driver.find_element(By.CSS_SELECTOR, "table.runs a.id").click()
        assert "Traceback" in shown(driver)
        press(driver, "Retry from what failed")

        def shows_all(driver: webdriver.Chrome) -> bool:
            driver.refresh()
            return len(driver.find_elements(By.TAG_NAME, "details")) == 4

        until(driver, shows_all)
    finally:
        driver.quit()


def test_behind_a_prefix_in_somebodys_program(
    browser: webdriver.Chrome, runner: cloaca.DefaultRunner, serve: Callable[..., str]
) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    (bad,) = failed(runner)
    base = serve(Starlette(routes=[Mount("/ops/cloaca", app=cloaca.ui.app(runner))]))
    browser.get(f"{base}/ops/cloaca")
    until(browser, lambda driver: driver.find_element(By.ID, "live").text == "live")
    browser.find_element(By.LINK_TEXT, "ValueError").click()
    browser.find_element(By.CSS_SELECTOR, "table.runs a.id").click()
    press(browser, "Retry from what failed")
    until(browser, lambda driver: len(driver.find_elements(By.TAG_NAME, "details")) == 4)
    assert browser.current_url == f"{base}/ops/cloaca/run?id={bad}"
