"""What the screens say."""

import itertools
import logging
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from looker import BASE, HERE, WAIT, Asking, failed
from starlette.applications import Starlette
from starlette.testclient import TestClient

import cloaca
import cloaca.ui
from cloaca import reading
from cloaca.reading.store import MissingError


def test_the_first_screen_says_that_all_is_well(page: Asking, runner: cloaca.DefaultRunner) -> None:
    runner.execute("ingest", {})
    text = page.text("/")
    assert "All is well: 1 runner alive, 3 schedules served, no run waits." in text
    assert "2 triggers , 1 cron" in text
    assert "Needs a look" not in text


def test_the_first_screen_says_what_is_paused(page: Asking, runner: cloaca.DefaultRunner) -> None:
    runner.pause(workflow="ingest", until="2099-01-01T00:00:00Z")
    assert "All is well: 1 runner alive, 3 schedules served, no run waits; 1 workflow paused." in page.text(
        "/"
    )
    runner.pause(workflow="ingest")
    assert "Nothing fails; 1 workflow paused." in page.text("/")
    runner.set_trigger_enabled("nightly", False)
    assert "Nothing fails; 1 schedule disabled, 1 workflow paused." in page.text("/")


def test_a_runner_that_says_nothing_is_not_called_well(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading.Reader(runner._url) as reader:
        while reading.runners(reader)[0].seen_at is None:
            pass
    monkeypatch.setattr("cloaca.health.SILENT_SECONDS", -1.0)
    _change(tmp_path / "runs.db", "UPDATE owners SET host = 'elsewhere'")
    text = page.text("/")
    assert "Something needs a look: 1 runner with a living process said nothing lately" in text
    assert "silent" in text


def test_one_failure_is_told_once_with_what_failed_below_it(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    with cloaca.WorkflowBuilder("calls"):

        @cloaca.task(retry_attempts=1)
        def call(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            handle.runner.execute("ingest", {"file": "bad"}).raise_for_failure()

    runner.set_trigger_enabled("nightly", False)
    runner.execute("calls")
    text = page.text("/")
    assert (
        "1 run failed in the last 24 hours; 1 run that it had started failed, too; 1 schedule disabled."
        in text
    )
    assert "Failed in the last 24 hours 1 run, and 1 that it had started" in text


def test_what_fails_or_is_switched_off_comes_first(page: Asking, runner: cloaca.DefaultRunner) -> None:
    runner.tick("share")
    runner.set_trigger_enabled("nightly", False)
    failed(runner, 3)
    text = page.text("/")
    assert (
        "Something needs a look: 1 schedule failing, 1 disabled; 3 runs failed in the last 24 hours." in text
    )
    assert text.index("Needs a look") < text.index("Failed in the last 24 hours") < text.index("Newest runs")
    assert "OSError: the share is gone" in text


def test_how_many_polls_in_a_row_have_failed_stands_on_the_triggers_page(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    assert "Failed in a row" not in page.text("/trigger?name=share")
    for failures in (1, 2):
        runner.tick("share")
        assert f"Failed in a row {failures}" in page.text("/trigger?name=share")


def test_failed_runs_are_gathered_by_their_kind(page: Asking, runner: cloaca.DefaultRunner) -> None:
    failed(runner, 4)
    runner.execute("ingest", {"error": "quite another one"})
    text = page.text("/")
    assert re.search(r"Do 4 ValueError task 'price' failed: ValueError: no price for article", text)
    assert re.search(r" 1 ValueError task 'price' failed: ValueError: quite another one", text)


def test_nothing_due_and_nobody_alive_look_different(tmp_path: Path) -> None:
    empty, served = tmp_path / "empty.db", tmp_path / "served.db"
    with cloaca.DefaultRunner(empty):
        assert "All is well, and nothing is due" in Asking(cloaca.ui.app(empty)).text("/")
    assert "Nothing is due: no runner is alive" in Asking(cloaca.ui.app(empty)).text("/")

    with cloaca.WorkflowBuilder("w"):
        cloaca.task()(_nothing)
    cloaca.trigger(workflow="w", poll_interval="1h", name="hourly")(lambda: False)
    with cloaca.DefaultRunner(served):
        pass
    text = Asking(cloaca.ui.app(served)).text("/")
    assert "Nobody is serving this store: no runner is alive, and 1 schedule waits." in text


def test_the_first_screen_says_that_a_store_is_a_copy_until_somebody_serves_it(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    runner.export(tmp_path / "copy.db")
    looked_at = Asking(cloaca.ui.app(tmp_path / "copy.db"))
    text = looked_at.text("/")
    assert re.search(
        r"This store is a copy, made at 20\d\d-\S+ \S+ UTC , and nobody has served it since: who served the"
        r" original is not looked for\.",
        text,
    )
    assert "Nobody is serving" not in text
    assert "is a copy" not in page.text("/")
    with cloaca.DefaultRunner(tmp_path / "copy.db"):
        pass
    assert "Nobody is serving this store" in looked_at.text("/")


def _nothing(context: cloaca.Context) -> None:
    pass


def _change(store: Path, sql: str) -> None:
    """Writes to a store from a process of its own: in this one it is open."""
    code = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], 30); db.execute(sys.argv[2]); db.commit()"
    subprocess.run([sys.executable, "-c", code, str(store), sql], check=True)


_AGO = "CAST(unixepoch() * 1000000 AS INTEGER) - 600000000"


def test_all_is_not_well_while_the_only_runner_says_nothing(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    _change(tmp_path / "runs.db", f"UPDATE owners SET seen_at = {_AGO}, host = 'elsewhere'")
    text = page.text("/")
    assert "Something needs a look: 1 runner with a living process said nothing lately: is it stopped" in text
    assert "silent" in text
    assert "All is well" not in text


def test_all_is_not_well_while_runs_wait_that_nobody_declares(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    runner.pause(workflow="ingest", until="2099-01-01T00:00:00Z")
    for _ in range(2):
        runner.submit("ingest")
    expected = "All is well: 1 runner alive, 3 schedules served, 2 runs wait; 1 workflow paused."
    assert expected in page.text("/")
    gone = f"created_at = {_AGO}, workflow = 'gone'"
    _change(tmp_path / "runs.db", f"UPDATE runs SET {gone}")
    text = page.text("/")
    assert "needs a look: 2 runs of workflows that no living runner declares: 'gone'" in text
    assert "All is well" not in text


def test_a_trigger_that_hangs_is_due_once_it_has_come_back(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    @cloaca.trigger(workflow="ingest", poll_interval="9s", name="often")
    def often() -> bool:
        return False

    while runner.get_trigger_schedule("often") is None:
        pass
    assert "Next due within 9 s" in page.text("/trigger?name=often")
    _change(tmp_path / "runs.db", f"UPDATE schedules SET in_body_since = {_AGO} WHERE name = 'often'")
    assert "Next due once its function has come back" in page.text("/trigger?name=often")
    assert "often ingest 9 s - -" in page.text("/triggers")


def test_what_is_switched_off_is_polled_by_nobody(page: Asking, runner: cloaca.DefaultRunner) -> None:
    while "Polled by runner 1" not in page.text("/trigger?name=share"):
        pass
    runner.set_trigger_enabled("share", False)
    assert "Polled by nobody" in page.text("/trigger?name=share")


def test_what_the_doctor_warns_of_is_told_where_all_would_be_well(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    _change(tmp_path / "runs.db", f"UPDATE owners SET joined_at = 2 * {_AGO}")
    text = page.text("/")
    assert "Something needs a look: something in the store was written" in text
    assert "All is well" not in text


def test_a_long_task_is_told_of_as_the_doctor_does(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    run = runner.submit("slow")
    while "hold" not in runner.why_run(run.id):
        pass
    assert "All is well: 1 runner alive, 3 schedules served, 1 run under way." in page.text("/")
    _change(tmp_path / "runs.db", f"UPDATE tasks SET started_at = {_AGO}")
    assert "Nothing fails; 1 task under way for more than 5 minutes: 'hold' of run" in page.text("/")


def test_a_runner_that_has_stopped_is_told_on_its_own_page(
    page: Asking, runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"code": "store", "text": "writes are refused", "count": 1, "seconds": None, "names": []}
    monkeypatch.setattr(runner, "health", lambda: {"ok": False, "reasons": [told]})
    assert "Something needs a look: writes are refused." in page.text("/")


def test_a_run_that_waits_for_its_time_says_so(page: Asking, runner: cloaca.DefaultRunner) -> None:
    run = runner.submit("ingest", {"file": "late"}, at="2090-01-31T06:00:00Z", priority=8)
    text = page.get(f"/run?id={run.id}").text
    assert "waits for its time, <time" in text
    assert "<dt>Waited</dt><dd>for its time</dd>" in text
    assert "<dt>Due</dt>" in text
    assert "<dt>Priority</dt><dd>8</dd>" in text
    plain = page.get(f"/run?id={failed(runner)[0]}").text
    assert "<dt>Due</dt>" not in plain
    assert "<dt>Priority</dt>" not in plain


def test_a_trigger_that_is_told_of_ends_is_shown_with_those_that_wait(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: context["nothing"])
    with cloaca.WorkflowBuilder("alert"):
        cloaca.task(id="only")(_nothing)

    @cloaca.trigger(workflow="alert", on_run="w", status=["Failed"])
    def broken(run: cloaca.types.RunDetails) -> bool:
        return True

    store = tmp_path / "runs.db"
    with cloaca.DefaultRunner(store) as runner:
        for looked_at in (runner, store):
            page = Asking(cloaca.ui.app(looked_at))
            while "w Failed" not in page.text("/triggers"):
                pass
            text = page.text("/trigger?name=broken")
            assert "waits for a run to end, w Failed" in text
            assert "Called for w Failed Ends that wait none" in text
        runner.set_trigger_enabled("broken", False)
        first, second = runner.submit_many("w", [{}, {}])
        first.result(WAIT)
        second.result(WAIT)
        for looked_at in (runner, store):
            text = Asking(cloaca.ui.app(looked_at)).text("/trigger?name=broken")
            assert "broken' is not called" in text
            assert "2 ends of runs wait for it" in text
            assert "Ends that wait 2" in text
        told = runner.why("broken")
        assert any(
            f"2 ends of runs wait for it, that of run {run.id} first, and the others behind it" in told
            for run in (first, second)
        )
        with reading.Reader(store) as reader:
            assert "2 ends of runs wait for it" in reading.why(reader, "broken")
        runner.set_trigger_enabled("broken", True)
        while len(runner.list_runs(workflow="alert")) < 2:
            pass
        page = Asking(cloaca.ui.app(store))
        while "Ends that wait none" not in page.text("/trigger?name=broken"):
            pass
        assert "wait for it" not in page.text("/trigger?name=broken")
        assert "Its runs" in page.text("/trigger?name=broken")


def test_a_run_whose_callback_is_still_to_be_called_says_so(tmp_path: Path) -> None:
    goes_on = threading.Event()

    def book(run: cloaca.types.RunDetails) -> None:
        if not goes_on.is_set():
            raise ConnectionError("the other side is away")

    with cloaca.WorkflowBuilder("w").on_success(book):
        cloaca.task(id="only")(_nothing)
    store = tmp_path / "runs.db"
    with cloaca.DefaultRunner(store) as runner:
        run = runner.submit("w", {})
        run.result(WAIT)
        page = Asking(cloaca.ui.app(store))
        path = f"/run?id={run.id}"
        while "ConnectionError: the other side is away" not in page.text(path):
            pass
        text = page.text(path)
        assert "Callbacks on_success" in text
        assert "is called again at" in text
        goes_on.set()
        while "on_success came back at" not in page.text(path):
            pass


def test_runs_are_filtered_by_the_address(page: Asking, runner: cloaca.DefaultRunner) -> None:
    bad = failed(runner)[0]
    good = runner.submit("ingest", {"file": "good"}, run_key="order 7")
    good.result(WAIT)
    for query, is_bad, is_good in (
        ("", True, True),
        ("?status=Failed", True, False),
        ("?status=Completed&workflow=ingest", False, True),
        ("?key=order+7", False, True),
        ("?error=ValueError&since=1h", True, False),
        ("?q=ORDER+7", False, True),
        ("?q=no+price", True, False),
        ("?q=%22good%22", False, True),
        ("?workflow=slow", False, False),
    ):
        text = page.get(f"/runs{query}").text
        assert (f"id={bad}" in text, f"id={good.id}" in text) == (is_bad, is_good), query


def test_a_list_has_pages(page: Asking, runner: cloaca.DefaultRunner) -> None:
    runs = runner.submit_many("ingest", [{"n": n} for n in range(120)])
    runs[-1].result(WAIT)
    seen: list[str] = []
    path = "/runs?workflow=ingest"
    for _ in range(5):
        text = page.get(path).text
        seen += re.findall(r'/run\?id=([0-9a-f-]{36})"', text)
        older = re.search(r'rel="next" href="([^"]+)"', text)
        if older is None:
            break
        path = older[1].replace("&amp;", "&")
    assert seen == [run.id for run in reversed(runs)]


def test_a_search_says_how_far_it_came(page: Asking, runner: cloaca.DefaultRunner) -> None:
    runs = runner.submit_many("ingest", [{"n": n} for n in range(120)])
    runs[-1].result(WAIT)
    assert "found among" in page.text("/runs?q=ingest")
    with reading.Reader(runner.query("PRAGMA database_list")[0]["file"]) as reader:
        found = reading.search(reader, "NGES", limit=30, seconds=WAIT)
        assert ([run.id for run in found.items], found.looked) == ([run.id for run in runs[:89:-1]], 30)
        found = reading.search(reader, "nges", after=found.after, seconds=WAIT, limit=1000)
        assert (len(found.items), found.after) == (90, None)
        found = reading.search(reader, "nowhere", seconds=0, at_least=10)
        assert (found.items, found.looked) == ([], 10)
        assert found.after == runs[110].id


def test_a_slow_machine_looks_at_enough_runs(
    page: Asking, runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runner.submit_many("ingest", [{"n": f"file-{n}."} for n in range(120)])
    runs[-1].result(WAIT)
    clock, looks = itertools.count(), sys.modules["cloaca.reading.search"]
    monkeypatch.setattr(looks, "monotonic", lambda: next(clock) / 1000)
    assert "1 run found among 12" in page.text("/runs?q=file-0."), (
        "each look at the clock takes a millisecond"
    )
    monkeypatch.setattr(looks, "monotonic", lambda: next(clock) * 1.0)
    told = page.text("/runs?q=file-0.")
    assert "0 runs found among 1, back to " in told, "what is far too slow ends all the same"


def test_a_run_is_told_with_all_that_is_known(page: Asking, runner: cloaca.DefaultRunner) -> None:
    (bad,) = failed(runner)
    text = page.text(f"/run?id={bad}")
    for part in (
        "Failed ingest",
        "task 'price' failed: ValueError: no price for article 0",
        "attempt 1",
        "attempt 2",
        "Traceback (most recent call last)",
        "+ lines: 3",
        '"file": "bad"',
        "Skipped store",
        "Retry from what failed",
    ):
        assert part in text, part
    assert page.get(f"/run?id={bad[:18]}").status_code == 200


def test_what_a_program_hides_is_hidden(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("secret"):

        @cloaca.task(retry_attempts=1)
        def tell(context: cloaca.Context) -> None:
            raise ValueError(f"it is {context['password']}")

    with cloaca.DefaultRunner(tmp_path / "runs.db", redact=["password"]) as runner:
        run = runner.submit("secret", {"password": "correct horse"})
        run.result(WAIT)
        for source in (runner, tmp_path / "runs.db"):
            page = Asking(cloaca.ui.app(source))
            paths = ("/", "/runs", f"/run?id={run.id}", f"/run/context?id={run.id}&part=out", "/workflows")
            for path in (*paths, "/runs?q=correct"):
                assert "correct horse" not in page.get(path).text, path
            assert "[redacted]" in page.text(f"/run?id={run.id}")
            assert "0 runs found" in page.text("/runs?q=horse")


def test_a_run_that_goes_on_is_told_with_who_drives_it(
    page: Asking, runner: cloaca.DefaultRunner, gate: threading.Event
) -> None:
    run = runner.submit("slow")
    while "hold" not in page.text(f"/run?id={run.id}"):
        pass
    text = page.text(f"/run?id={run.id}")
    assert "In the hands of runner 1" in text
    assert "Cancel" in text
    assert "1 under way" in page.text("/")
    gate.set()
    run.result(WAIT)
    assert "Retry" not in page.text(f"/run?id={run.id}")


def test_a_context_is_had_as_a_file(page: Asking, runner: cloaca.DefaultRunner) -> None:
    run = runner.submit("ingest", {"file": "ä"})
    run.result(WAIT)
    answer = page.get(f"/run/context?id={run.id}&part=out")
    assert answer.json() == {"file": "ä", "lines": 3, "stored": True}
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_trigger_is_told(page: Asking, runner: cloaca.DefaultRunner) -> None:
    runner.tick("inbox")
    runner.tick("share")
    text = page.text("/trigger?name=inbox")
    assert "trigger 'inbox' fired at its last poll" in text
    assert "Cursor b.csv" in text.replace('"', "")
    assert "a.csv" in text
    assert "Preview a poll" in text
    assert "OSError: the share is gone" in page.text("/trigger?name=share")
    assert "inbox" in page.text("/triggers")


def test_a_cron_is_told_with_its_next_times(page: Asking) -> None:
    text = page.text("/trigger?name=nightly")
    assert len(re.findall(r"\d 03:30:00 CES?T", text)) == 10
    assert "is a cron" in text


def test_a_workflow_is_told_with_how_long_its_tasks_take(page: Asking, runner: cloaca.DefaultRunner) -> None:
    runner.execute("ingest", {})
    text = page.text("/workflow?name=ingest")
    assert re.search(r"Graph .*read.*price.*store", text)
    assert re.search(r"95 of 100 Of .*read .*s .*s 1 ", text)
    assert "ingest" in page.text("/workflows")
    assert "Its newest runs" in page.text("/workflow?name=ingest")


def test_a_workflow_whose_program_is_not_there_is_drawn_as_it_was(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("mail"):
        cloaca.task(id="fetch")(lambda context: None)
        cloaca.task(id="send", dependencies=["fetch"])(lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.submit("mail")
        run.result(30)
    with cloaca.testing.isolated():
        app = cloaca.ui.app(tmp_path / "runs.db")
        page = Asking(app)
        assert re.search(r"Graph .*fetch.*send", page.text("/workflow?name=mail"))
        assert re.search(r"Graph .*✓ fetch.*✓ send", page.text(f"/run?id={run.id}"))
        app._source.close()


def test_the_system_is_told(page: Asking) -> None:
    text = page.text("/system")
    assert "living 1" in text
    assert "schema" in text
    assert "runs started" in text


def test_clients_that_came_and_left_are_folded(page: Asking, runner: cloaca.DefaultRunner) -> None:
    for _ in range(3):
        with cloaca.DefaultRunner(runner._url, work=False) as client:
            client.submit("ingest", {})
    shown = page.get("/system").text
    assert "3 clients that came and left, of commands among them, are not shown" in shown
    assert "client</span>" not in shown
    assert "Last seen" in shown


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/nowhere", 404, "there is no screen"),
        ("/trigger?name=inbux", 404, "did you mean &#39;inbox&#39;?"),
        ("/workflow?name=ingst", 404, "did you mean &#39;ingest&#39;?"),
        ("/run?id=ffff", 404, "not found"),
        ("/run", 400, "id"),
        ("/runs?status=Bad", 400, "Bad"),
        ("/runs?after=1", 400, "after"),
        ("/runs?since=yesterday", 400, "since"),
        ("/../../etc/passwd", 404, "there is no screen"),
        ("/static/../page.py", 404, ""),
        ("/static/page.py", 404, "no such file"),
        (f"/runs?key={'x' * 2000}", 400, "longer"),
        (f"/runs?key={'x' * 9000}", 414, "too long"),
    ],
)
def test_what_cannot_be_shown_is_said(page: Asking, path: str, status: int, says: str) -> None:
    answer = page.get(path)
    assert answer.status_code == status
    assert says in answer.text


def test_by_a_url_the_page_only_reads(runner: cloaca.DefaultRunner, tmp_path: Path) -> None:
    (bad,) = failed(runner)
    page = Asking(cloaca.ui.app(f"sqlite://{tmp_path}/runs.db"))
    assert "Retry" not in page.text(f"/run?id={bad}")
    assert "read only" in page.get("/").text
    assert page.post(f"retry {bad}", token="x").status_code == 403


def test_a_store_that_is_not_there_yet_is_shown_once_it_is(tmp_path: Path) -> None:
    path = tmp_path / "later.db"
    page = Asking(cloaca.ui.app(path))
    answer = page.get("/")
    assert answer.status_code == 503
    assert "later.db" in answer.text
    assert "\ncloaca_store_healthy 0.0\n" in page.get("/metrics").text
    with cloaca.DefaultRunner(path):
        assert page.get("/").status_code == 200


def test_a_store_in_memory_has_no_page() -> None:
    with cloaca.DefaultRunner(":memory:") as runner, pytest.raises(ValueError, match="in memory"):
        cloaca.ui.app(runner)
    with pytest.raises(ValueError, match="is memory"):
        cloaca.ui.app(":memory:")
    answer = Asking(cloaca.ui.app("mysql://x")).get("/")
    assert answer.status_code == 503
    assert "sqlite://PATH" in answer.text


def test_a_runner_that_was_shut_down_leaves_a_page_that_reads(tmp_path: Path) -> None:
    runner = cloaca.DefaultRunner(tmp_path / "runs.db")
    page = Asking(cloaca.ui.app(runner))
    runner.shutdown()
    assert "read only" in page.get("/").text


def test_without_the_extra_the_import_says_what_installs_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None\n"
        "import cloaca.ui\n"
        "try: cloaca.ui.app('runs.db')\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'cloaca.ui needs jinja2; pip install "cloaca[ui]"' in done.stdout


def test_the_package_alone_imports_nothing_of_the_page() -> None:
    program = "import sys, cloaca, cloaca.ui; print([m for m in ('starlette', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_that_a_browser_gets_is_small() -> None:
    from cloaca.ui.page import STATIC, static

    assert sum(len(static(name)) for name in STATIC) < 100_000


def test_missing_is_a_lookup_error() -> None:
    assert issubclass(MissingError, LookupError)


def test_a_store_of_a_newer_version_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    with cloaca.DefaultRunner(path):
        pass
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
        database.commit()
    answer = Asking(cloaca.ui.app(path)).get("/runs")
    assert answer.status_code == 503
    assert "99" in answer.text


def test_it_is_mounted_while_a_program_starts(tmp_path: Path) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
            app.mount("/cloaca", cloaca.ui.app(runner))
            yield

    with TestClient(Starlette(lifespan=lifespan), base_url=BASE, client=HERE) as client:
        answer = client.get("/cloaca")
        assert answer.status_code == 200
        assert 'href="/cloaca/runs"' in answer.text
        assert client.get("/cloaca/runs").status_code == 200
        assert client.get("/cloaca/static/page.css").status_code == 200
        assert client.get("/runs").status_code == 404


def test_a_store_that_was_replaced_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path):
        pass
    page = Asking(cloaca.ui.app(path))
    assert page.get("/").status_code == 200
    for file in tmp_path.iterdir():
        file.unlink()
    answer = page.get("/")
    assert answer.status_code == 503
    assert "runs.db" in answer.text
    with cloaca.WorkflowBuilder("w"):
        cloaca.task()(_nothing)
    with cloaca.DefaultRunner(path) as runner:
        run = runner.submit("w")
        assert run.id in page.get("/runs").text


def test_a_run_links_to_its_parent_and_to_its_children(page: Asking, runner: cloaca.DefaultRunner) -> None:
    with cloaca.WorkflowBuilder("outer"):

        @cloaca.task()
        def load(context: cloaca.Context) -> None:
            runner.execute("ingest", {"file": "good"})

    run = runner.submit("outer")
    assert run.result(WAIT).status == "Completed"
    (child,) = runner.list_runs(parent=run.id)
    parent_page = page.get(f"/run?id={run.id}").text
    assert "Runs that came of it" in parent_page
    assert f"/run?id={child['id']}" in parent_page
    assert f"/runs?parent={run.id}" in parent_page
    child_page = page.get(f"/run?id={child['id']}").text
    assert re.search(rf"task load of <a [^>]*href=\"/run\?id={run.id}\"", child_page)
    assert "Runs that came of it" not in child_page
    listed = page.get(f"/runs?parent={run.id}").text
    assert child["id"] in listed
    assert f"id={run.id}" not in listed.split("</form>")[1]


def test_a_run_shows_what_its_bodies_logged(tmp_path: Path) -> None:
    def sends(context: cloaca.Context) -> None:
        for number in range(1200):
            logging.getLogger("mail").warning("to <%s>", number)
        logging.getLogger("mail").error("failed", stack_info=True)

    with cloaca.WorkflowBuilder("send"):
        cloaca.task(id="deliver")(sends)
    path = tmp_path / "logs.db"
    with cloaca.DefaultRunner(path, keep_logs="64 KiB") as runner:
        runner.execute("send")
        run = runner.list_runs()[0]["id"]
        left_out = runner.logs(run).left_out
    page = Asking(cloaca.ui.app(path))
    text = page.text(f"/run?id={run}")
    assert "Log the newest 500 lines" in text
    assert f"{left_out} older lines are not kept" in text
    assert "WARNING deliver, attempt 1 mail to <1199>" in text
    assert re.search(r"ERROR deliver, attempt 1 mail failed Stack \(most recent call last\)", text)
    assert "to &lt;1199&gt;" in page.get(f"/run?id={run}").text


def test_a_run_of_which_nothing_is_kept_has_no_log(page: Asking, runner: cloaca.DefaultRunner) -> None:
    assert 'id="log"' not in page.get(f"/run?id={failed(runner)[0]}").text


def test_what_a_run_did_before_a_deploy_and_what_is_left_out_of_it_is_shown(tmp_path: Path) -> None:
    def fails(context: cloaca.Context) -> None:
        raise ValueError("no price")

    with cloaca.testing.isolated():
        with cloaca.WorkflowBuilder("import"):
            cloaca.task(id="old", retry_attempts=25, retry_delay_ms=1, retry_backoff="fixed")(fails)
        with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
            run = runner.submit("import")
            run.result(WAIT)
    with cloaca.WorkflowBuilder("import"):
        cloaca.task(id="new")(lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        assert runner.retry(run.id).result(WAIT).status == "Completed"
        text = Asking(cloaca.ui.app(runner)).text(f"/run?id={run.id}")
    assert re.search(r"Graph new, completed ✓ new Tasks ", text), text
    assert "Failed old of an earlier version" in text
    assert text.count("5 attempts between, of which no more is kept") == 2, (
        "in the line of time and in the list"
    )


def test_attempts_after_a_retry_are_told_from_those_before(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    (bad,) = failed(runner)
    runner.retry(bad)
    runner.run(bad).result(WAIT)
    told = re.findall(r"<summary>(attempt [^:]*):", page.get(f"/run?id={bad}").text)
    # Of each task the one that failed.
    assert told == ["attempt 1", "attempt 2", "attempt 1 after retry", "attempt 2"]


def test_a_trigger_that_starts_nothing_has_no_workflow_without_a_name(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    @cloaca.trigger(poll_interval="1h")
    def heartbeat() -> bool:
        return False

    for path in ("/triggers", "/trigger?name=heartbeat", "/", "/workflows"):
        found = page.get(path)
        assert found.status_code == 200
        assert "/workflow?name=&quot;" not in found.text
        assert not re.search(r'href="[^"]*/workflow(\?name=)?"', found.text), path
    assert "no workflow" in page.text("/trigger?name=heartbeat")
    with pytest.raises(cloaca.WorkflowError) as refused:
        runner.submit("nonsense")
    assert "''" not in str(refused.value)
    assert ": ," not in str(refused.value)
