"""What the page changes."""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any, Literal

import httpx2 as httpx
import pytest
from looker import WAIT, Asking, failed
from starlette.requests import Request

import cloaca
import cloaca.ui
from cloaca.ui.once import FORMS_MAX, Once


def test_a_run_is_retried(
    page: Asking, runner: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    (bad,) = failed(runner)
    before = runner.get_run(bad)["tasks"][1]["attempts"]
    with caplog.at_level(logging.INFO, "cloaca.ui"):
        done = page.post(f"retry {bad}", back=f"/run?id={bad}")
    assert (done.status_code, done.headers["location"]) == (303, f"/run?id={bad}")
    assert f"from 127.0.0.1: retry {bad}" in caplog.text
    assert runner.run(bad).result(WAIT).status == "Failed"
    price = next(task for task in runner.get_run(bad)["tasks"] if task["id"] == "price")
    assert len(price["tries"]) > before


def test_a_run_is_done_again_from_its_start(page: Asking, runner: cloaca.DefaultRunner) -> None:
    (bad,) = failed(runner)
    assert "Run again from its start" in page.text(f"/run?id={bad}")
    done = page.post(f"again {bad}", back=f"/run?id={bad}")
    assert done.status_code == 303
    new = done.headers["location"].removeprefix("/run?id=")
    assert new != bad
    assert runner.run(new).result(WAIT).status == "Failed"
    assert runner.get_run(new)["context"] == runner.get_run(bad)["context"]
    assert [(row["door"], row["what"], row["about"]) for row in runner.audit()] == [("page", "submit", new)]
    assert page.post("again 00000000-0000-0000-0000-000000000000").status_code == 409
    assert page.post("again nonsense").status_code == 409


def once(page: Asking, path: str) -> dict[str, str]:
    """What a form of that page carries, so that it counts once."""
    (found,) = re.findall(r'name="once" value="([^"]+)"', page.get(path).text)
    return {"once": found}


def test_a_form_that_is_sent_twice_starts_one_run(page: Asking, runner: cloaca.DefaultRunner) -> None:
    (bad,) = failed(runner)
    form = once(page, f"/run?id={bad}")
    answers = [page.post(f"again {bad}", form=form) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303, 303, 303]
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(runner.list_runs()) == 2
    assert len(runner.audit()) == 1
    page.post(f"again {bad}", form=once(page, f"/run?id={bad}"))
    assert len(runner.list_runs()) == 3


def test_a_form_that_is_sent_three_times_at_once_starts_one_run(
    runner: cloaca.DefaultRunner, serve: Callable[..., str]
) -> None:
    (bad,) = failed(runner)
    base = serve(cloaca.ui.app(runner))
    with httpx.Client(base_url=base, timeout=WAIT) as client, ThreadPoolExecutor(3) as threads:
        page = Asking.by(client)
        form, token = once(page, f"/run?id={bad}"), page.token()
        sent = [threads.submit(page.post, f"again {bad}", token=token, form=form) for _ in range(3)]
        assert len({each.result(WAIT).headers["location"] for each in sent}) == 1
    assert len(runner.list_runs()) == 2


def test_the_second_press_of_a_button_is_not_told_that_it_came_too_late(
    page: Asking, runner: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner.execute("ingest")
    runner.pause(workflow="ingest")
    form, back = once(page, "/workflow?name=ingest"), "/workflow?name=ingest"
    with caplog.at_level(logging.INFO, "cloaca.ui"):
        answers = [page.post("resume ingest", back=back, form=form) for _ in range(2)]
    assert [each.headers.get("location") for each in answers] == [back, back]
    assert caplog.text.count("resume ingest") == 1


def test_a_form_counts_once_for_each_button_and_browser_and_what_was_refused_may_be_tried_again(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    form = once(page, "/trigger?name=inbox")
    for word, is_enabled in (("disable", False), ("enable", True)):
        assert page.post(f"{word} inbox", form=form).status_code == 303
        row = runner.get_trigger_schedule("inbox")
        assert row is not None
        assert row["enabled"] is is_enabled
    assert page.post("disable later", form=form).status_code == 409
    cloaca.trigger(workflow="ingest", poll_interval="1h", name="later")(lambda: False)
    while runner.get_trigger_schedule("later") is None:
        pass
    assert page.post("disable later", form=form).status_code == 303
    other = Asking(page.client.app)
    assert other.post("disable inbox", form=form).status_code == 303
    row = runner.get_trigger_schedule("inbox")
    assert row is not None
    assert row["enabled"] is False


def test_a_form_counts_again_after_a_while(
    page: Asking, runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad,) = failed(runner)
    form = once(page, f"/run?id={bad}")
    monkeypatch.setattr("cloaca.ui.once.KEPT_SECONDS", 0.0)
    first, second = (page.post(f"again {bad}", form=form).headers["location"] for _ in range(2))
    assert first != second


def test_no_more_forms_are_kept_than_their_bound() -> None:
    forms = Once()
    for number in range(FORMS_MAX + 10):
        assert forms.done(("form", number), lambda number=number: (number, True)) == number
    assert forms.done(("form", FORMS_MAX), lambda: (-1, True)) == FORMS_MAX
    assert forms.done(("form", 0), lambda: (-1, True)) == -1
    assert len(forms) == FORMS_MAX


def test_a_form_whose_change_raised_counts_for_nothing() -> None:
    forms = Once()
    with pytest.raises(ZeroDivisionError):
        forms.done("form", lambda: 1 / 0)
    assert forms.done("form", lambda: (1, True)) == 1


def test_a_run_is_cancelled(page: Asking, runner: cloaca.DefaultRunner, gate: threading.Event) -> None:
    run = runner.submit("slow")
    assert page.post(f"cancel {run.id}").status_code == 303
    gate.set()
    assert run.result(WAIT).status == "Cancelled"


def test_a_trigger_and_a_cron_are_switched(page: Asking, runner: cloaca.DefaultRunner) -> None:
    unnamed = runner.register_cron_workflow("ingest", "0 4 * * *", "UTC")
    for name in ("inbox", "nightly", unnamed):
        assert page.post(f"disable {name}").status_code == 303
        assert "Enable" in page.text(f"/trigger?name={name}")
        assert page.post(f"enable {name}").status_code == 303
        assert "Disable" in page.text(f"/trigger?name={name}")


def test_a_workflow_is_paused_and_resumed_from_its_screen(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    runner.execute("ingest")
    screen = "/workflow?name=ingest"
    assert 'value="pause ingest"' in page.get(screen).text
    assert page.post("pause ingest", back=screen).status_code == 303
    (pause,) = runner.list_pauses()
    assert (pause["kind"], pause["name"], pause["key"], pause["until"]) == ("workflow", "ingest", None, None)
    assert pause["by"] == "somebody, by the page"
    assert "paused ingest" in page.text(screen)
    assert "workflow 'ingest' is paused, by somebody, by the page" in page.text(screen)
    held = runner.submit("ingest")
    assert page.post("pause ingest", token="forged").status_code == 403
    assert 'value="resume ingest"' in page.get(screen).text
    assert page.post("resume ingest", back=screen).status_code == 303
    assert held.result(WAIT).status == "Completed"
    assert "is paused" not in page.text(screen)
    assert [(row["door"], row["what"], row["about"]) for row in runner.audit()] == [
        ("page", "resume", "ingest"),
        ("page", "pause", "ingest"),
    ]
    # As from a page that was open for long.
    assert "is not paused" in (late := page.post("resume ingest")).text
    assert late.status_code == 409
    assert page.post("pause nobody").status_code == 409
    reads = Asking(cloaca.ui.app(tmp_path / "runs.db"))
    assert "pause ingest" not in reads.get(screen).text
    assert reads.post("pause ingest").status_code == 403


def test_a_paused_key_is_told_on_the_screen_of_its_workflow(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(1, key="tenant")):
        cloaca.task(id="only")(lambda context: None)
    runner.execute("sync", {"tenant": "acme"})
    runner.pause(workflow="sync", key="acme", until="2099-01-01T00:00:00Z")
    seen = page.text("/workflow?name=sync")
    assert "key 'acme' of workflow 'sync' is paused until 2099-01-01 00:00:00 UTC , by a program" in seen
    assert 'value="pause sync"' in page.get("/workflow?name=sync").text


def pressed(page: Asking, path: str, word: str, row: int = 0) -> Any:
    """Presses the button of that word on a screen, and what that answers."""
    found = re.findall(rf'name="do" value="({word} [^"]+)"', page.get(path).text)
    return page.post(unescape(found[row]), back=path)


def test_a_paused_key_is_resumed_from_the_screen_of_its_workflow(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    with cloaca.WorkflowBuilder("a b, key c", concurrency=cloaca.Concurrency(1, key="tenant")):
        cloaca.task(id="only")(lambda context: None)
    screen = "/workflow?name=a+b%2C+key+c"
    runner.execute("a b, key c", {"tenant": "x y"})
    for key in ("x y", "", "z"):
        runner.pause(workflow="a b, key c", key=key)
    assert page.text(screen).count("Resume") == 3
    held = runner.submit("a b, key c", {"tenant": "x y"})
    stale = re.findall(r'value="(resume-key [^"]+)"', page.get(screen).text)[1]
    assert pressed(page, screen, "resume-key", 1).status_code == 303
    assert [row["key"] for row in runner.list_pauses()] == ["", "z"]
    assert held.result(WAIT).status == "Completed"
    assert [(row["door"], row["what"], row["about"]) for row in runner.audit()] == [
        ("page", "resume", "a b, key c, key x y")
    ]
    # From a page that was open for long: meanwhile somebody else has paused it.
    runner.pause(workflow="a b, key c", key="x y")
    late = page.post(unescape(stale))
    assert late.status_code == 409
    assert "is not paused any more" in late.text
    assert len(runner.list_pauses()) == 3
    assert page.post("resume-key nonsense").status_code == 409
    reads = Asking(cloaca.ui.app(tmp_path / "runs.db"))
    assert "resume-key" not in reads.get(screen).text


def test_a_paused_key_that_is_hidden_is_resumed_and_shown_nowhere(
    gate: threading.Event, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with cloaca.WorkflowBuilder("sync", concurrency=cloaca.Concurrency(1, key="tenant")):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "hidden.db", redact=["tenant"]) as runner:
        runner.execute("sync", {"tenant": "acme"})
        runner.pause(workflow="sync", key="acme")
        page = Asking(cloaca.ui.app(runner))
        assert "acme" not in page.get("/workflow?name=sync").text
        with caplog.at_level(logging.INFO, "cloaca.ui"):
            assert pressed(page, "/workflow?name=sync", "resume-key").status_code == 303
        assert not runner.list_pauses()
        assert "acme" not in caplog.text


def test_a_limit_with_a_name_is_paused_and_resumed_on_the_page(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    api = cloaca.Limit("the api", concurrency=4, throttle=cloaca.Throttle(60, per="1m"))
    assert "Limits with names" not in page.text("/system")
    with cloaca.WorkflowBuilder("sync"):
        cloaca.task(id="only", limits=[api])(lambda context: None)
    runner.execute("sync")
    assert "the api 0 of 4 0 60 per 1m" in page.text("/system")
    assert pressed(page, "/system", "pause-limit").status_code == 303
    (pause,) = runner.list_pauses()
    assert (pause["kind"], pause["name"], pause["key"], pause["until"]) == ("limit", "the api", None, None)
    assert pause["by"] == "somebody, by the page"
    assert "limit 'the api' is paused, by somebody, by the page" in page.text("/system")
    assert "pause-limit" not in page.get("/system").text
    held = runner.submit("sync")
    assert pressed(page, "/system", "resume-limit").status_code == 303
    assert held.result(WAIT).status == "Completed"
    assert [(row["door"], row["what"], row["about"]) for row in runner.audit()] == [
        ("page", "resume", "the api"),
        ("page", "pause", "the api"),
    ]
    assert (late := page.post("resume-limit the api")).status_code == 409
    assert "limit &#39;the api&#39; is not paused" in late.text
    assert page.post("pause-limit nobody").status_code == 409
    reads = Asking(cloaca.ui.app(tmp_path / "runs.db"))
    assert "pause-limit" not in reads.get("/system").text


def test_the_failures_of_one_kind_lead_to_where_all_of_them_are_retried(
    page: Asking, runner: cloaca.DefaultRunner, tmp_path: Path
) -> None:
    ids = failed(runner, 2)
    listed = "/runs?status=Failed&error=ValueError&since=24h&workflow=ingest"
    (link,) = re.findall(r'<a href="([^"]+)">Retry them…</a>', page.get("/").text)
    assert unescape(link) == listed
    assert "Retry all that match" in page.text(listed)
    assert "Retry 2 runs?" in page.post("retry-all", back=listed).text
    assert "2 runs opened again." in page.post("retry-all", back=listed, form={"really": "retry-all"}).text
    for id in ids:
        runner.run(id).result(WAIT)
    assert "Retry" not in Asking(cloaca.ui.app(tmp_path / "runs.db")).text("/")


def test_every_change_is_on_the_audit_list(page: Asking, runner: cloaca.DefaultRunner) -> None:
    assert "Nobody has changed anything" in page.text("/system")
    ids = failed(runner, 2)
    page.post(f"retry {ids[0]}")
    runner.run(ids[0]).result(WAIT)
    page.post("retry nonsense")
    page.post("disable inbox")
    page.post("enable inbox")
    page.post("preview inbox")
    page.post("retry-all", back="/runs?status=Failed", form={"really": "retry-all"})
    rows = runner.audit()
    assert {(row["who"], row["door"], row["place"]) for row in rows} == {("somebody", "page", "127.0.0.1")}
    assert [(row["what"], row["about"]) for row in reversed(rows)] == [
        ("retry", ids[0]),
        ("disable", "inbox"),
        ("enable", "inbox"),
        *(("retry", found) for found in sorted(ids)),
    ]
    for told in ("disable", "page from 127.0.0.1", "inbox"):
        assert told in page.text("/system")


@pytest.mark.parametrize("is_async", [False, True])
def test_the_audit_list_has_the_name_that_access_tells(runner: cloaca.DefaultRunner, is_async: bool) -> None:
    def access(request: Request) -> tuple[Literal["act"], str]:
        return "act", "<b>ann"

    async def slow(request: Request) -> tuple[Literal["act"], str]:
        return access(request)

    page = Asking(cloaca.ui.app(runner, access=slow if is_async else access))
    assert page.post("disable inbox").status_code == 303
    assert [row["who"] for row in runner.audit()] == ["<b>ann"]
    shown = page.get("/system").text
    assert "&lt;b&gt;ann" in shown
    assert "<b>ann" not in shown


def test_a_preview_stores_nothing(page: Asking, runner: cloaca.DefaultRunner) -> None:
    answer = page.post("preview inbox")
    assert answer.status_code == 200
    assert "A poll now would fire 2 runs" in answer.text
    assert answer.text.count(">run</span>") == 2  # what the gate would do with each
    assert "a.csv" in answer.text
    assert "OSError: the share is gone" in page.post("preview share").text
    assert runner.list_runs() == []


class Own(BaseException):
    """Of a program's own."""


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Own])
def test_a_preview_tells_of_whatever_a_function_raises(page: Asking, error: type[BaseException]) -> None:
    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def leaves() -> None:
        raise error("no more")

    answer = page.post("preview leaves")
    assert (answer.status_code, f"{error.__name__}: no more" in answer.text) == (200, True)


def test_all_that_match_are_retried_once_they_were_counted(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    ids = failed(runner, 3)
    runner.execute("ingest", {"error": "of another kind"})
    back = "/runs?status=Failed&workflow=ingest"
    assert "Retry all that match" in page.get(back).text
    asked = page.post("retry-all", back=back)
    assert "Retry 4 runs?" in asked.text
    assert all(runner.get_run(id)["status"] == "Failed" for id in ids)
    done = page.post("retry-all", back=back, form={"really": "retry-all"})
    assert "4 runs opened again." in done.text
    for id in ids:
        runner.run(id).result(WAIT)


def test_all_that_match_are_meant_from_a_later_page_of_the_list_too(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    ids = failed(runner, 3)
    newest = runner.list_runs(status="Failed")[0]["id"]
    back = f"/runs?status=Failed&after={newest}&order=none"
    assert (
        newest
        not in page.get(back).text.partition("<main")[2].partition("<tbody>")[2].partition("</tbody>")[0]
    )
    asked = page.post("retry-all", back=back)
    assert "Retry 3 runs?" in asked.text
    main = asked.text.partition("<main")[2].partition("</main>")[0]
    assert "status <code>Failed</code>" in main
    assert "after <code>" not in main
    assert "order <code>" not in main
    assert "3 runs opened again." in page.post("retry-all", back=back, form={"really": "retry-all"}).text
    for id in ids:
        runner.run(id).result(WAIT)


def test_what_a_retry_of_all_leaves_out_is_told_when_it_is_asked_and_when_it_is_done(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    first, second = failed(runner, 2)
    again = page.post(f"again {first}").headers["location"].removeprefix("/run?id=")
    runner.run(again).result(WAIT)
    back = "/runs?status=Failed&workflow=ingest"
    asked = page.post("retry-all", back=back).text
    assert "Retry 2 runs?" in asked
    assert (
        left_out := f"1 left out, the first because run {again} does the work of run {first} again"
    ) in asked
    done = page.post("retry-all", back=back, form={"really": "retry-all"}).text
    assert "2 runs opened again." in done
    assert left_out in done
    for id in (second, again):
        runner.run(id).result(WAIT)


def test_where_none_of_all_can_be_retried_nothing_is_asked(
    page: Asking, runner: cloaca.DefaultRunner
) -> None:
    (first,) = failed(runner)
    with cloaca.WorkflowBuilder("gone"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: 1 / 0)
    runner.execute("gone")
    cloaca.unregister_workflow("gone")
    asked = page.post("retry-all", back="/runs?status=Failed&workflow=gone")
    assert "No run that matches can be retried" in asked.text
    assert "1 left out, the first because" in asked.text
    assert "not declared here" in asked.text
    assert "Retry them" not in asked.text
    assert runner.get_run(first)["status"] == "Failed"


@pytest.mark.parametrize("more", ["q=price", "untold=1"])
def test_all_are_not_retried_by_what_a_retry_cannot_heed(
    page: Asking, runner: cloaca.DefaultRunner, more: str
) -> None:
    (bad,) = failed(runner)
    for form in ({}, {"really": "retry-all"}):
        answer = page.post("retry-all", back=f"/runs?status=Failed&{more}", form=form)
        assert answer.status_code == 409
        assert more.partition("=")[0] in answer.text
    assert runner.get_run(bad)["status"] == "Failed"


def test_all_that_are_under_way_are_asked_to_end(
    page: Asking, runner: cloaca.DefaultRunner, gate: threading.Event
) -> None:
    runs = runner.submit_many("slow", [{}, {}, {}])
    gone = runner.execute("ingest")
    # No state in the filter: those that are over are not counted, as they are not asked.
    back = "/runs?since=24h"
    assert "Cancel 3 runs?" in page.post("cancel-all", back=back).text
    assert "3 runs asked to end." in page.post("cancel-all", back=back, form={"really": "cancel-all"}).text
    gate.set()
    assert {run.result(WAIT).status for run in runs} == {"Cancelled"}
    assert gone.status == "Completed"


def test_only_what_was_changed_is_logged(
    page: Asking, runner: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    ids = failed(runner, 2)
    back, sure = "/runs?status=Failed&workflow=ingest", {"really": "retry-all"}
    with caplog.at_level(logging.INFO, "cloaca.ui"):
        page.post("retry-all", back=back)
        page.post("preview inbox")
        page.post("tell-all", back="/runs?untold=1")
        page.post("retry-all", back="/runs?status=Cancelled", form=sure)
        assert [record.getMessage() for record in caplog.records if record.name == "cloaca.ui"] == []
        page.post("retry-all", back=back, form=sure)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "cloaca.ui"]
    assert line == "somebody, from 127.0.0.1: retry-all of 2 runs: workflow ingest, status Failed"
    for id in ids:
        runner.run(id).result(WAIT)


def test_what_is_so_already_is_neither_logged_nor_listed(
    page: Asking, runner: cloaca.DefaultRunner, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    run = runner.submit("slow")
    # Before its task has begun, its end would be over at once.
    while runner.get_run(run.id)["tasks"][0]["status"] != "Running":
        pass
    runner.cancel(run.id)
    runner.set_trigger_enabled("share", False)
    # Both are known by now, or there would be nothing to switch.
    with caplog.at_level(logging.INFO, "cloaca.ui"):
        for do in (f"cancel {run.id}", "disable share", "enable inbox", "enable nightly", "pause ingest"):
            assert page.post(do).status_code == 303, do
        assert page.post("pause ingest").status_code == 303
    lines = [record.getMessage() for record in caplog.records if record.name == "cloaca.ui"]
    assert [line.partition(": ")[2] for line in lines] == ["pause ingest"]
    assert [(row["what"], row["about"]) for row in runner.audit()] == [("pause", "ingest")]
    gate.set()
    run.result(WAIT)


def test_a_cancel_that_comes_too_late_is_said_and_changes_nothing(
    page: Asking, runner: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    run = runner.submit("ingest")
    run.result(WAIT)
    with caplog.at_level(logging.INFO, "cloaca.ui"):
        late = page.post(f"cancel {run.id}", back=f"/run?id={run.id}")
    assert late.status_code == 409
    assert f"run {run.id} is over already" in late.text
    assert f"cancel {run.id}" not in caplog.text
    assert runner.audit() == []


def test_what_is_refused_is_said(page: Asking, runner: cloaca.DefaultRunner) -> None:
    good = runner.submit("ingest")
    good.result(WAIT)
    for do, says in (
        (f"retry {good.id}", "only a Failed or Cancelled run can be retried"),
        ("retry nonsense", "nonsense"),
        ("cancel 01a21f96-954f-7656-9500-db298f808ade", "not found"),
        ("disable nobody", "nobody"),
        ("preview nobody", "nobody"),
        ("format disk", "nothing that this page does"),
        ("", "nothing that this page does"),
        ("retry-all", "needs a filter"),
    ):
        form: dict[str, Any] = {"really": "retry-all"} if do == "retry-all" else {}
        answer = page.post(do, form=form)
        assert answer.status_code == 409, do
        assert says in answer.text, do


def test_a_trigger_is_polled_now(page: Asking, runner: cloaca.DefaultRunner) -> None:
    called = threading.Semaphore(0)

    @cloaca.trigger(workflow="ingest", poll_interval="1h")
    def rare() -> bool:
        called.release()
        return False

    while "Poll now" not in page.text("/trigger?name=rare"):
        pass
    assert page.post("poll rare").status_code == 303
    assert called.acquire(timeout=WAIT)
    assert [(row["door"], row["what"], row["about"]) for row in runner.audit()] == [("page", "poll", "rare")]
    runner.set_trigger_enabled("rare", False)
    assert "Poll now" not in page.text("/trigger?name=rare")
    for name in ("rare", "nightly", "nobody"):
        assert page.post(f"poll {name}").status_code == 409
    assert not called.acquire(blocking=False)


def test_an_end_that_a_trigger_fails_at_is_skipped(page: Asking, runner: cloaca.DefaultRunner) -> None:
    @cloaca.trigger(workflow="ingest", on_run="ingest", status="Failed", on_error=cloaca.Backoff("30m"))
    def repairs(run: Any) -> bool:
        raise KeyError("file")

    while runner.get_trigger_schedule("repairs") is None:
        pass
    assert "Skip the end" not in page.text("/trigger?name=repairs")
    (bad,) = failed(runner)
    while not runner.ticks("repairs"):
        pass
    seen = page.text("/trigger?name=repairs")
    assert f"Skip the end of run {bad[:8]}" in seen
    assert "Last call on record" in seen
    assert "Called by" in seen
    assert "olled by" not in seen
    assert "Last poll on record" in page.text("/trigger?name=inbox")
    assert f'value="skip {bad}%20repairs"' in page.get("/trigger?name=repairs").text
    assert page.post(f"skip {bad} repairs").status_code == 303
    assert [(row["door"], row["what"], row["about"]) for row in runner.audit()] == [
        ("page", "skip", bad),
        ("page", "skip", "repairs"),
    ]
    seen = page.text("/trigger?name=repairs")
    assert "Skip the end" not in seen
    assert f"the end of run {bad} was skipped by a call" in seen
    # As from a page that was open for long.
    assert page.post(f"skip {bad} repairs").status_code in (404, 409)
    assert page.post("skip").status_code == 409
    assert page.post("skip nonsense repairs").status_code == 409
    assert page.post(f"skip {bad} inbox").status_code == 409


def test_a_callback_that_waits_is_called_or_dropped(page: Asking, runner: cloaca.DefaultRunner) -> None:
    called = threading.Semaphore(0)

    def alert(run: Any) -> None:
        called.release()
        raise ConnectionError("the other side is away")

    with cloaca.WorkflowBuilder("alerting").on_success(alert):
        cloaca.task(id="only")(lambda context: None)
    ids = [runner.submit("alerting").id for _ in range(2)]

    def wait(run_id: str) -> None:
        assert called.acquire(timeout=WAIT)
        while not (page.text(f"/run?id={run_id}").count("Call it now")):
            pass

    for run_id in ids:
        wait(run_id)
    assert "Call their callbacks now" in page.text("/runs?untold=1")
    for run_id in ids:
        assert run_id in page.get("/runs?untold=1").text
    # Their pauses are long by then.
    for _ in range(3):
        assert page.post(f"tell {ids[0]}", back=f"/run?id={ids[0]}").status_code == 303
        wait(ids[0])
    assert "callbacks called now" in page.post("tell-all", back="/runs?untold=1").text
    wait(ids[0])
    assert page.post(f"skip-callback {ids[0]}", back=f"/run?id={ids[0]}").status_code == 303
    seen = page.text(f"/run?id={ids[0]}")
    assert "was skipped" in seen
    assert "Call it now" not in seen
    assert page.post(f"skip-callback {ids[0]}").status_code in (404, 409)
    assert page.post(f"tell {ids[0]}").status_code in (404, 409)
    assert ids[0] not in page.get("/runs?untold=1").text
    noted = {(row["door"], row["what"], row["about"]) for row in runner.audit()}
    assert {("page", "tell", ids[0]), ("page", "skip", ids[0])} <= noted


def test_the_overview_tells_of_callbacks_that_keep_failing(
    page: Asking, runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = threading.Semaphore(0)

    def alert(run: Any) -> None:
        called.release()
        raise ConnectionError("the other side is away")

    with cloaca.WorkflowBuilder("alerting").on_success(alert):
        cloaca.task(id="only")(lambda context: None)
    run_id = runner.submit("alerting").id
    assert "keeps failing" not in page.text("/")
    assert called.acquire(timeout=WAIT)
    assert called.acquire(timeout=WAIT)
    monkeypatch.setattr("cloaca.reading.attention.CALLBACKS_SECONDS", 0.0)
    while "1 callback keeps failing" not in (seen := page.text("/")):
        pass
    assert "ConnectionError: the other side is away" in seen
    assert f"/run?id={run_id}" in page.get("/").text
    assert "keeps failing" in page.text("/system")


def test_who_has_no_name_is_somebody(runner: cloaca.DefaultRunner) -> None:
    page = Asking(cloaca.ui.app(runner, access=lambda request: ("act", None)))  # type: ignore[arg-type,return-value]
    page.post("disable inbox")
    assert [row["who"] for row in runner.audit()] == ["somebody"]
