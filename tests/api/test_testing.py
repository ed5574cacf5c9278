"""`cloaca.testing`: what a test of one's own trigger needs."""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any

import flow
import pytest

import cloaca
import cloaca.testing
from cloaca.permit import Permit


def declare(trigger: str, workflow: str) -> None:
    """One workflow, and a trigger that fires it at every poll."""
    with cloaca.WorkflowBuilder(workflow):

        @cloaca.task(id="only")
        def only(context: cloaca.Context) -> None: ...

    @cloaca.trigger(name=trigger, workflow=workflow, poll_interval="10s")
    def poll() -> bool:
        return True


def is_declared(workflow: str) -> bool:
    """Whether a runner that is made now can run it."""
    with cloaca.testing.Runner() as runner:
        try:
            return runner.execute(workflow).status == "Completed"
        except ValueError:
            return False


def test_a_tick_is_made_by_hand() -> None:
    def poll(tick: cloaca.Tick) -> cloaca.TriggerResult:
        seen = tick.cursor or 0
        tick.cursor = seen + 1
        return cloaca.TriggerResult.fire({"seen": seen})

    tick = cloaca.testing.tick(cursor=4, last_fired_at="2026-01-02T00:00:00Z")
    assert isinstance(tick, cloaca.Tick)
    assert tick.last_fired_at == "2026-01-02T00:00:00.000000Z"
    assert poll(tick) == cloaca.TriggerResult.fire({"seen": 4})
    assert tick.cursor == 5


def test_a_tick_by_hand_is_the_first_one_if_nothing_is_said() -> None:
    tick = cloaca.testing.tick()
    assert (tick.cursor, tick.last_fired_at, tick.consecutive_failures) == (None, None, 0)
    assert tick.scheduled_at == "2026-01-01T00:00:00.000000Z"
    tick.poll_after("10m")


def test_a_tick_by_hand_takes_times_as_datetimes_of_any_zone() -> None:
    from datetime import timezone

    moment = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert cloaca.testing.tick(scheduled_at=moment).scheduled_at == "2026-01-01T00:00:00.000000Z"
    assert cloaca.testing.tick(last_fired_at=moment.astimezone(UTC)).last_fired_at is not None


def test_a_tick_by_hand_has_its_own_copy_of_the_cursor() -> None:
    given = {"ids": [1]}
    tick = cloaca.testing.tick(cursor=given)
    tick.cursor["ids"].append(2)
    assert given == {"ids": [1]}


def test_a_tick_shows_the_same_times_by_hand_and_from_a_runner() -> None:
    seen: list[cloaca.Tick] = []
    with cloaca.testing.isolated():
        declare("unused", "w")

        @cloaca.trigger(name="looks", workflow="w", poll_interval="10s")
        def looks(tick: cloaca.Tick) -> bool:
            seen.append(tick)
            return True

        with cloaca.testing.Runner() as runner:
            runner.advance("40s")
    last = seen[-1]
    assert last.last_fired_at is not None
    made = cloaca.testing.tick(scheduled_at=last.scheduled_at, last_fired_at=last.last_fired_at)
    assert (made.scheduled_at, made.last_fired_at) == (last.scheduled_at, last.last_fired_at)


@pytest.mark.parametrize(
    ("arguments", "kind", "named"),
    [
        ({"cursor": object()}, TypeError, "cursor"),
        ({"last_fired_at": "yesterday"}, ValueError, "Invalid datetime format"),
        ({"scheduled_at": 3}, ValueError, "Invalid datetime format"),
        ({"consecutive_failures": -1}, ValueError, "consecutive_failures"),
        ({"trigger_name": 3}, TypeError, "trigger_name"),
    ],
)
def test_a_tick_by_hand_refuses(arguments: dict[str, Any], kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match=named):
        cloaca.testing.tick(**arguments)


def test_isolated_declarations_start_empty_and_are_gone_afterwards() -> None:
    with cloaca.testing.isolated():
        declare("outer", "outside")
        with cloaca.testing.isolated():
            assert not is_declared("outside")
            declare("inner", "inside")
            with cloaca.testing.Runner() as runner:
                runner.advance("25s")
                assert runner.polls("inner") >= 2
                with pytest.raises(ValueError, match="outer"):
                    runner.polls("outer")
        assert not is_declared("inside")
        assert is_declared("outside")
        with cloaca.testing.Runner() as runner:
            runner.advance("25s")
            assert runner.polls("outer") >= 2
            with pytest.raises(ValueError, match="inner"):
                runner.polls("inner")


def test_isolated_declarations_may_take_names_that_are_taken_outside() -> None:
    with cloaca.testing.isolated():
        declare("same", "w")
        with cloaca.testing.isolated():
            declare("same", "w")  # a second function of one name: a warning, which is an error here, outside


def test_a_runner_outside_hears_nothing_of_what_is_isolated() -> None:
    with cloaca.testing.isolated():
        declare("outer", "outside")
        with cloaca.testing.Runner() as runner:
            with cloaca.testing.isolated():
                declare("inner", "inside")
            runner.advance("25s")
            assert runner.polls("outer") >= 2
            with pytest.raises(ValueError, match="inner"):
                runner.polls("inner")
            declare("later", "outside")
            runner.advance("25s")
            assert runner.polls("later") >= 2


def test_isolated_declarations_are_put_back_after_an_error() -> None:
    with cloaca.testing.isolated():
        declare("outer", "outside")
        with contextlib.suppress(KeyError), cloaca.testing.isolated():
            declare("inner", "inside")
            raise KeyError
        assert is_declared("outside")
        assert not is_declared("inside")


def declare_chain() -> None:
    """A workflow of two tasks, of which the second would send something."""
    with cloaca.WorkflowBuilder("chain"):

        @cloaca.task(id="load")
        def load(context: cloaca.Context) -> None:
            context["loaded"] = True

        @cloaca.task(id="notify", dependencies=["load"], retry_attempts=1)
        def notify(context: cloaca.Context) -> None:
            raise ConnectionError("no network in tests")


def test_a_task_is_replaced_for_one_runner() -> None:
    declare_chain()
    told: list[bool] = []
    with cloaca.testing.Runner() as runner:
        runner.replace_task("notify", lambda context: told.append(context["loaded"]))
        assert runner.execute("chain").status == "Completed"
    assert told == [True]
    with cloaca.testing.Runner() as runner:
        assert "no network" in str(runner.execute("chain").error_message)


def test_a_fake_may_take_the_handle_and_be_async() -> None:
    declare_chain()

    async def fake(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        context["by"] = "fake"

    with cloaca.testing.Runner() as runner:
        runner.replace_task("notify", fake, workflow="chain")
        assert runner.execute("chain", check=True).final_context["by"] == "fake"


def test_a_task_is_replaced_in_the_named_workflow_only() -> None:
    declare_chain()
    declare("poll", "other")
    ran: list[str] = []
    with cloaca.testing.Runner() as runner:
        with pytest.raises(ValueError, match=r"no task 'notify' in workflow 'other'.*only"):
            runner.replace_task("notify", lambda context: None, workflow="other")
        runner.replace_task("only", lambda context: ran.append("fake"), workflow="other")
        runner.execute("other")
    assert ran == ["fake"]


@pytest.mark.parametrize(
    ("task", "fake", "workflow", "named"),
    [
        ("notfy", lambda context: None, None, "no task 'notfy'.*did you mean 'notify'"),
        ("notify", 3, None, "fake is 3"),
        ("notify", lambda: None, None, "takes no parameter"),
        (3, lambda context: None, None, "task is 3"),
        ("notify", lambda context: None, "chian", "chian.*did you mean 'chain'"),
    ],
)
def test_a_replacement_refuses(task: Any, fake: Any, workflow: Any, named: str) -> None:
    declare_chain()
    with cloaca.testing.Runner() as runner, pytest.raises((ValueError, TypeError), match=named):
        runner.replace_task(task, fake, workflow=workflow)


def declare_retried() -> None:
    """A workflow whose task succeeds at its second attempt, a minute later."""
    tries: list[int] = []
    with cloaca.WorkflowBuilder("retried"):

        @cloaca.task(id="shaky", retry_attempts=2, retry_delay_ms=60_000, retry_jitter=False)
        def shaky(context: cloaca.Context) -> None:
            tries.append(1)
            if len(tries) == 1:
                raise ConnectionError


@pytest.mark.parametrize("timeout", [None, 0.5])
def test_a_result_that_waits_for_the_clock_says_so(timeout: float | None) -> None:
    declare_retried()
    with cloaca.testing.Runner() as runner:
        run = runner.submit("retried")
        with pytest.raises(TimeoutError, match="advance the clock"):
            run.result(timeout)
        runner.advance("2m")
        assert run.result(timeout).status == "Completed"


def test_a_result_that_waits_for_nothing_comes_without_advancing() -> None:
    declare("poll", "w")
    with cloaca.testing.Runner() as runner:
        before = runner.now
        assert runner.submit("w").result().status == "Completed"
        assert runner.now == before


def test_a_result_with_a_timeout_keeps_it_while_a_body_runs() -> None:
    gate = threading.Event()
    with cloaca.WorkflowBuilder("slow"):

        @cloaca.task()
        def slow(context: cloaca.Context) -> None:
            gate.wait(60)

    with cloaca.testing.Runner() as runner:
        run = runner.submit("slow")
        before = monotonic()
        try:
            with pytest.raises(TimeoutError):
                run.result(0.05)
            assert monotonic() - before < 20
        finally:
            gate.set()
        assert run.result().status == "Completed"


def test_a_trigger_that_raises_is_heard_by_advance() -> None:
    @cloaca.trigger(name="broken", workflow="w", poll_interval="10s")
    def broken() -> bool:
        raise KeyError("feed")

    declare("unused", "w")
    with cloaca.testing.Runner(raise_errors=True) as runner, pytest.raises(KeyError, match="feed"):
        runner.advance("15s")
    with cloaca.testing.Runner() as runner:
        runner.advance("15s")


def test_a_trigger_that_raises_is_heard_by_tick_once() -> None:
    @cloaca.trigger(name="broken", workflow="w", poll_interval="1h")
    def broken() -> bool:
        raise KeyError("feed")

    declare("unused", "w")
    with cloaca.testing.Runner(raise_errors=True) as runner:
        with pytest.raises(KeyError, match="feed"):
            runner.tick("broken")
        runner.run_until_idle()


def test_a_fire_that_is_refused_is_heard_too() -> None:
    @cloaca.trigger(name="broken", workflow="w", poll_interval="10s")
    def broken() -> Any:
        return "fire"

    declare("unused", "w")
    with (
        cloaca.testing.Runner(raise_errors=True) as runner,
        pytest.raises(ValueError, match="it returned str"),
    ):
        runner.advance("15s")


def test_a_fire_that_lacks_the_key_of_a_limit_is_heard_too() -> None:
    with cloaca.WorkflowBuilder("w", concurrency=cloaca.Concurrency(1, key="tenant")):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(name="broken", workflow="w", poll_interval="10s")(
        lambda: cloaca.TriggerResult.fire({"a": 1})
    )
    with cloaca.testing.Runner(raise_errors=True) as runner:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"trigger 'broken': .*limit needs tenant"):
                runner.advance("10s")
        with pytest.raises(ValueError, match="limit needs tenant"):
            runner.tick("broken")
        runner.run_until_idle()
    with cloaca.testing.Runner() as runner:
        runner.advance("10s")


def test_triggers_of_one_interval_are_all_polled_when_it_is_over() -> None:
    declare("unused", "w")
    for name in ("one", "two", "three"):
        cloaca.trigger(name=name, workflow="w", poll_interval="1m")(lambda: False)
    with cloaca.testing.Runner() as runner:
        cloaca.trigger(name="four", workflow="w", poll_interval="1m")(lambda: False)
        names = ["one", "two", "three", "four"]
        runner.advance("59s")
        assert [runner.polls(name) for name in names] == [0, 0, 0, 0]
        runner.advance("1s")
        assert [runner.polls(name) for name in names] == [1, 1, 1, 1]
        runner.advance("1m")
        assert [runner.polls(name) for name in names] == [2, 2, 2, 2]


def test_health_is_by_the_clock_that_is_moved() -> None:
    declare("polled", "w")
    cloaca.trigger(name="daily", workflow="w", cron="0 6 * * *")(lambda: None)
    with cloaca.testing.Runner() as runner:
        assert (runner.health()["ok"], runner.health()["at"]) == (True, runner.now)
        runner.advance("3d")
        told = runner.health()
        assert (told["reasons"], told["at"]) == ([], runner.now)


def test_a_task_that_fails_for_good_is_heard() -> None:
    declare_chain()
    with cloaca.testing.Runner(raise_errors=True) as runner:
        with pytest.raises(ConnectionError, match="no network"):
            runner.execute("chain")
        run = runner.submit("chain")
        with pytest.raises(ConnectionError, match="no network"):
            run.result()
        assert run.status == "Failed"


def test_a_task_that_succeeds_after_all_is_not_heard() -> None:
    declare_retried()
    with cloaca.testing.Runner(raise_errors=True) as runner:
        assert runner.execute("retried").status == "Completed"


def test_a_callback_that_raises_is_heard() -> None:
    def calls(task_id: str, context: cloaca.Context) -> None:
        raise LookupError("callback")

    with cloaca.WorkflowBuilder("called"):

        @cloaca.task(on_success=calls)
        def body(context: cloaca.Context) -> None: ...

    with (
        cloaca.testing.Runner(raise_errors=True) as runner,
        pytest.raises(LookupError, match="callback"),
    ):
        runner.execute("called")


@pytest.mark.parametrize("argument", ["on_poll_failed", "on_disabled"])
def test_what_is_called_for_a_failed_poll_is_heard_beside_it(argument: str) -> None:
    def calls(*about: Any) -> None:
        raise LookupError(argument)

    declare("unused", "w")
    arguments: dict[str, Any] = {argument: calls}

    @cloaca.trigger(name="broken", workflow="w", poll_interval="10s", max_consecutive_failures=1, **arguments)
    def broken() -> bool:
        raise KeyError("feed")

    with cloaca.testing.Runner(raise_errors=True) as runner:
        with pytest.raises(KeyError, match="feed") as found:
            runner.advance("15s")
        assert any(argument in note for note in found.value.__notes__)


def test_the_log_has_been_written_once_the_clock_stands(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            sleep(0.1)
            return True

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1)
        def fails(context: Any) -> None:
            raise ConnectionError("no source")

    @cloaca.trigger(workflow="w", poll_interval="1m")
    def fires() -> bool:
        return True

    caplog.set_level(logging.INFO)
    slow = Slow()
    logging.getLogger("cloaca").addFilter(slow)
    try:
        with cloaca.testing.Runner() as runner:
            runner.advance("1m")
            assert "of workflow 'w' failed: task 'fails' failed" in caplog.text
    finally:
        logging.getLogger("cloaca").removeFilter(slow)


def test_raise_errors_is_a_flag() -> None:
    with pytest.raises(TypeError, match="raise_errors"):
        cloaca.testing.Runner(raise_errors="no")  # type: ignore[arg-type]


def test_the_clock_is_moved_for_as_long_as_it_takes_while_bodies_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare("unused", "w")

    @cloaca.trigger(name="slow", workflow="w", poll_interval="1m")
    def slow() -> cloaca.TriggerResult:
        sleep(0.03)
        return cloaca.TriggerResult.skip()

    with cloaca.testing.Runner(triggers=[slow]) as runner:
        monkeypatch.setattr(cloaca.testing, "PATIENCE_SECONDS", 1.0)
        runner.advance("1h")
        assert runner.polls("slow") == 60


def test_nothing_is_due_for_a_run_that_is_over() -> None:
    flow.declare("w", flow.nothing)
    with cloaca.testing.Runner() as runner:
        runner.execute("w")
        assert runner._engine.next_due() is None


def test_a_poll_that_starts_a_run_by_hand_while_the_clock_moves_gets_it() -> None:
    started: list[cloaca.Run] = []

    @cloaca.trigger(workflow="w", poll_interval="1h")
    def asks(tick: cloaca.Tick) -> cloaca.TriggerResult:
        started.append(runner.submit("w", {"by": "hand"}))
        tick.cursor = len(started)
        return cloaca.TriggerResult.fire({"by": "fire"})

    flow.declare("w", flow.nothing)
    with cloaca.testing.Runner() as runner:
        runner.advance("5h")
        assert [run.result().status for run in started] == ["Completed"] * 5
        assert [row["status"] for row in runner.list_runs()] == ["Completed"] * 10
        # Between two moves the writer is at work as ever.
        assert runner.submit("w").result(timeout=30).status == "Completed"


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread's waits are counted")
def test_a_month_of_quiet_polls_passes_without_waiting_for_each() -> None:
    """Who waits for another thread at each poll takes a hundred times as long, on whatever machine."""
    import resource

    waits: dict[int, tuple[int, int]] = {}
    polls = 0

    @cloaca.trigger(workflow="w", poll_interval="1m")
    def quiet() -> bool:
        nonlocal polls
        polls += 1
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        first, _ = waits.setdefault(threading.get_ident(), (waited, waited))
        waits[threading.get_ident()] = (first, waited)
        return False

    flow.declare("w", flow.nothing)
    with cloaca.testing.Runner() as runner:
        runner.advance("30d")
    assert polls == 30 * 24 * 60
    assert sum(last - first for first, last in waits.values()) < polls / 10


def test_a_month_of_polls_that_keep_a_cursor_is_kept_to_the_last() -> None:
    @cloaca.trigger(workflow="w", poll_interval="1m")
    def counts(tick: cloaca.Tick) -> cloaca.TriggerResult:
        tick.cursor = (tick.cursor or 0) + 1
        return cloaca.TriggerResult.skip()

    flow.declare("w", flow.nothing)
    with cloaca.testing.Runner() as runner:
        runner.advance("30d")
        (row,) = runner.query("SELECT cursor FROM schedules")
        assert row["cursor"] == str(30 * 24 * 60)


def test_a_stretch_of_skips_ends_with_its_last_one() -> None:
    """And not with the poll that ends it, whatever that comes to."""

    @cloaca.trigger(workflow="w", poll_interval="1s")
    def sometimes(tick: cloaca.Tick) -> bool:
        second = tick.scheduled_at[17:19]
        if second == "09":
            raise ValueError
        return second == "05"

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.testing.Runner(start="2026-01-01T00:00:00Z") as runner:
        runner.advance("10500ms")
        rows = [
            (row["outcome"], row["count"], row["first_at"], row["last_at"])
            for row in runner.ticks("sometimes")
        ]
    seconds = [(outcome, count, first[17:19], last[17:19]) for outcome, count, first, last in rows]
    assert seconds == [
        ("skip", 1, "10", "10"),
        ("error", 1, "09", "09"),
        ("skip", 3, "06", "08"),
        ("fire", 1, "05", "05"),
        ("skip", 4, "01", "04"),
    ]


def waits(how: str, task: str, condition: Callable[[cloaca.Context], bool], **pause: float) -> None:
    """Declares a task that waits until the condition holds of its context."""

    async def on_loop(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        await handle.defer_until(lambda: condition(context), **pause)

    def on_thread(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(lambda: condition(context), **pause)

    cloaca.task(id=task)(on_loop if how == "loop" else on_thread)


@pytest.mark.parametrize("how", ["thread", "loop"])
def test_what_a_condition_held_up_is_done_when_the_clock_comes_back(how: str) -> None:
    approved: set[int] = set()
    with cloaca.WorkflowBuilder("w"):
        waits(how, "ask", lambda context: context["id"] in approved, poll_interval_ms=60_000)
        cloaca.task(id="pay", dependencies=["ask"])(lambda context: context.set("paid", True))
    with cloaca.testing.Runner() as runner:
        first, second, third = [runner.submit("w", {"id": number}) for number in range(3)]
        runner.advance("1m")
        assert [run.status for run in (first, second, third)] == ["Running"] * 3
        approved.add(0)
        assert first.result().final_context["paid"]
        approved.add(1)
        runner.advance("1s")
        assert second.status == "Completed"
        approved.add(2)
        runner.run_until_idle()
        assert third.status == "Completed"


@pytest.mark.parametrize("how", ["thread", "loop"])
def test_a_condition_is_asked_however_late_the_system_lets_its_body_go_on(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gives_back = Permit.give_back

    def gives_back_and_is_late(permit: Permit) -> None:
        gives_back(permit)
        threading.Event().wait(0.3)

    monkeypatch.setattr(Permit, "give_back", gives_back_and_is_late)
    with cloaca.WorkflowBuilder("w"):
        waits(how, "wait", lambda _: True)
    with cloaca.testing.Runner() as runner:
        run = runner.submit("w")
        runner.run_until_idle()
        assert run.status == "Completed"


@pytest.mark.parametrize("span", ["1h", "61m", "2d"])
@pytest.mark.parametrize("how", ["thread", "loop"])
def test_a_run_whose_time_is_up_while_it_waits_ends_as_on_a_real_clock(span: str, how: str) -> None:
    with cloaca.WorkflowBuilder("approve"):
        waits(how, "wait", lambda _: False)
    with cloaca.testing.Runner() as runner:
        run = runner.submit("approve")
        runner.advance(span)
        (task,) = runner.get_run(run.id)["tasks"]  # type: ignore[index]
        assert run.status == "Failed"
        assert (task["error"] or "").endswith("workflow timed out after 3600s (workflow_timeout_seconds)")
        assert task["overdue_since"] is None
        assert runner.stats()["bodies_overdue"] == 0


def test_a_task_that_is_cancelled_while_it_waits_is_home_before_the_clock_moves_on() -> None:
    with cloaca.WorkflowBuilder("approve"):

        @cloaca.task()
        def wait(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            handle.defer_until(lambda: False)

    with cloaca.testing.Runner() as runner:
        run = runner.submit("approve")
        runner.run_until_idle()
        run.cancel()
        runner.advance("1d")
        assert run.status == "Cancelled"
        assert runner.stats()["bodies_overdue"] == 0


def test_everything_stays_declared_if_that_is_asked_for() -> None:
    declare("inbox", "w")
    declare("outbox", "v")
    with cloaca.testing.isolated(triggers="all"), cloaca.testing.Runner() as runner:
        runner.advance("1h")
        assert (runner.polls("inbox") > 0, runner.polls("outbox") > 0) == (True, True)


@pytest.mark.parametrize("call", ["advance", "run_until_idle"])
@pytest.mark.parametrize("where", ["trigger", "task"])
def test_a_body_that_moves_the_clock_is_told_that_it_would_wait_for_itself(call: str, where: str) -> None:
    runners: list[cloaca.testing.Runner] = []

    def move() -> None:
        (runner,) = runners
        runner.advance("1m") if call == "advance" else runner.run_until_idle()

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only", retry_attempts=1)(lambda context: move() if where == "task" else None)

    @cloaca.trigger(workflow="w", poll_interval="1m")
    def moving(tick: cloaca.Tick) -> cloaca.TriggerResult:
        if where == "trigger":
            move()
        return cloaca.TriggerResult.fire()

    with cloaca.testing.Runner(raise_errors=True) as runner:
        runners.append(runner)
        with pytest.raises(RuntimeError) as raised:
            runner.advance("1m")
        told = [str(raised.value), *getattr(raised.value, "__notes__", [])]
        assert "call advance and run_until_idle from the test" in " ".join(told)


def test_a_body_that_shuts_the_runner_down_is_no_body_that_hangs() -> None:
    runners: list[cloaca.testing.Runner] = []
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="only")(lambda context: runners[0].shutdown(0.0))
    runner = cloaca.testing.Runner()
    runners.append(runner)
    runner.submit("w")
    with pytest.raises(cloaca.RunnerError, match="shut down"):
        runner.advance("1m")


def test_a_clock_ends_where_dates_end() -> None:
    with cloaca.testing.Runner("9999-12-30T18:00:00Z") as runner:
        with pytest.raises(cloaca.CloacaError, match="there are no dates; begin earlier"):
            runner.advance("1d")
        runner.advance("3h")
        assert runner.now == "9999-12-30T21:00:00.000000Z"
    with pytest.raises(cloaca.ScheduleError, match=r"start is '9999-12-31'; it must be from 0001-"):
        cloaca.testing.Runner("9999-12-31")
