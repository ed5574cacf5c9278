"""The first tests of that program: each as it came to mind, before any of the errors that it may meet."""

import datetime

import news
import pytest

import cloaca
import cloaca.testing

pytestmark = pytest.mark.cloaca_runner(triggers="all")


@pytest.fixture(autouse=True)
def reset():
    news.SENT.clear()
    news.FLAKY["fails"] = 0
    news.APPROVED.clear()
    news.FEED[:] = [{"id": 1, "title": "a"}, {"id": 2, "title": "b"}]


def test_feed_by_hand():
    assert list(news.feed(cloaca.testing.tick())) == [
        cloaca.TriggerResult.fire({"title": "a"}, cursor=1),
        cloaca.TriggerResult.fire({"title": "b"}, cursor=2),
    ]


def test_feed_cursor():
    assert list(news.feed(cloaca.testing.tick(cursor=2))) == []


def test_render():
    c = cloaca.Context({"title": "x"})
    news.render(c)
    assert c["html"] == "<h1>x</h1>"


def test_publish_twice_only_once(cloaca_runner):
    cloaca_runner.advance("2m")
    assert news.SENT == ["<h1>a</h1>", "<h1>b</h1>"]


def test_new_item(cloaca_runner):
    cloaca_runner.advance("1m")
    news.FEED.append({"id": 3, "title": "c"})
    cloaca_runner.advance("1m")
    assert news.SENT[-1] == "<h1>c</h1>"
    assert cloaca_runner.cursor("feed") == 3


def test_execute(cloaca_runner):
    result = cloaca_runner.execute("publish", {"title": "q"})
    assert result.status == "Completed"
    assert result.final_context["html"] == "<h1>q</h1>"


def test_execute_missing_key(cloaca_runner):
    with pytest.raises(KeyError):
        cloaca_runner.execute("publish", {})


def test_failed_status():
    with cloaca.testing.Runner(raise_errors=False) as runner:
        result = runner.execute("publish", {})
        assert result.status == "Failed"
        assert "title" in result.error_message


@pytest.mark.cloaca_runner(triggers=[])
def test_retries_then_ok(cloaca_runner):
    news.FLAKY["fails"] = 2
    result = cloaca_runner.execute("flaky")
    assert result.status == "Completed"


def test_retry_exhausted():
    news.FLAKY["fails"] = 5
    with cloaca.testing.Runner(triggers=[]) as runner:
        result = runner.execute("flaky")
        assert result.status == "Failed"
        run = runner.list_runs(workflow="flaky")[0]
        assert len(runner.get_run(run["id"])["tasks"][0]["tries"]) == 3


def test_cron(cloaca_runner):
    cloaca_runner.advance("2d")
    assert len(cloaca_runner.fired("report")) == 2


def test_cron_context():
    with cloaca.testing.Runner("2026-01-01T00:00:00Z") as runner:
        runner.advance("1d")
        (run,) = runner.list_runs(workflow="report")
        assert runner.get_run(run["id"])["final_context"]["day"] == "2026-01-01"


def test_approval(cloaca_runner):
    run = cloaca_runner.submit("approval", {"id": 7})
    cloaca_runner.advance("1m")
    assert run.status == "Running"
    news.APPROVED.add(7)
    cloaca_runner.advance("1s")
    assert run.result().final_context["approved"]


def test_approval_with_handle():
    handle = cloaca.testing.handle()
    news.APPROVED.add(1)
    c = cloaca.Context({"id": 1})
    news.ask(c, handle)
    assert c["approved"] is True


def test_why(cloaca_runner):
    assert "feed" in cloaca_runner.why("feed")
    cloaca_runner.advance("1m")
    assert "fired at its last poll" in cloaca_runner.why("feed")


def test_replace(cloaca_runner):
    got = []
    cloaca_runner.replace_task("send", lambda context: got.append(context["html"]))
    cloaca_runner.advance("1m")
    assert got == ["<h1>a</h1>", "<h1>b</h1>"]
    assert news.SENT == []


def test_tick_by_name(cloaca_runner):
    answer = cloaca_runner.tick("feed")
    assert answer["outcome"] == "fire"


def test_tick_by_function(cloaca_runner):
    assert cloaca_runner.tick(news.feed, dry_run=True)["fires"][0]["context"] == {"title": "a"}
    assert news.SENT == []


def test_only_one_trigger():
    with cloaca.testing.Runner(triggers=[news.feed]) as runner:
        runner.advance("1d")
        assert runner.fired("report") == []


def test_poll_at_start(cloaca_runner):
    cloaca_runner.run_until_idle()
    assert len(cloaca_runner.fired("flaky")) == 1
    cloaca_runner.advance("3h")
    assert len(cloaca_runner.fired("flaky")) == 1


def test_isolated():
    with cloaca.testing.isolated():

        @cloaca.trigger(workflow="x", poll_interval="1s")
        def mine():
            return True

        with cloaca.WorkflowBuilder("x"):
            cloaca.task(id="t")(lambda c: None)
        with cloaca.testing.Runner() as runner:
            runner.advance("10s")
            assert len(runner.fired("x")) == 10


def test_time():
    with cloaca.testing.Runner(start=datetime.datetime(2026, 5, 1)) as runner:
        runner.advance(datetime.timedelta(hours=7))
        assert runner.fired("report")[0]["scheduled_time"].startswith("2026-05-01T06:00")


def test_parallel_fail_raises():
    news.FLAKY["fails"] = 5
    with cloaca.testing.Runner(raise_errors=True) as runner, pytest.raises(ConnectionError):
        runner.advance("1h")
