"""What is said of a slip tells which it is, and the way out."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import pathlib
import re
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import cloaca
import cloaca.testing

TODAY = datetime.date(2026, 1, 31)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: cloaca.Context({"at": datetime.datetime(2026, 1, 31)}),
            r"context value at 'at': got datetime \(.*\), which fits as its isoformat\(\)",
        ),
        (
            lambda: cloaca.Context({"a": [{"at": TODAY}]}),
            r"context value at 'a\[0\].at': got date .*isoformat",
        ),
        (lambda: cloaca.Context({"a": uuid.UUID(int=1)}), r"got UUID .*, which fits as str\(\) of it"),
        (lambda: cloaca.Context({"a": decimal.Decimal(1)}), r"got Decimal .*, which fits as str\(\) of it"),
        (lambda: cloaca.Context({"a": pathlib.Path("x")}), r", which fits as str\(\) of it"),
        (
            lambda: cloaca.TriggerResult.fire({"row": TODAY}, run_key="7", cursor=[7]),
            r"'row': got date .*; it is the fire with run_key '7' and cursor \[7\]$",
        ),
        (
            lambda: cloaca.TriggerResult.fire({"row": TODAY}, cursor=7),
            r"; it is the fire with cursor 7$",
        ),
        (lambda: cloaca.TriggerResult.fire({}, run_key=7), r"run_key is 7, an int; it must be a str"),
        (lambda: cloaca.TriggerResult.fire({}, run_key=b"7"), r"run_key is b'7', a bytes; it"),
        (
            lambda: cloaca.TriggerResult.fire({}, key="7"),
            r"'key'; did you mean 'run_key'\? known arguments: ",
        ),
        (lambda: cloaca.TriggerResult.fire({}, run_ky="7"), r"did you mean 'run_key'\? known arguments: "),
        (lambda: cloaca.RetryAfter("7w"), r'"7d" \(units us, ms, s, m, h, d\), seconds as a number'),
        (lambda: cloaca.task(retries=3), r"did you mean 'retry_attempts'\? known arguments: "),
        (lambda: cloaca.task(depends_on=[]), r"did you mean 'dependencies'\? known arguments: "),
        (lambda: cloaca.task(retry_attempt=3), r"did you mean 'retry_attempts'\? known arguments: "),
        (lambda: cloaca.trigger(every="1s"), r"did you mean 'poll_interval'\? known arguments: "),
        (
            lambda: cloaca.DefaultRunner(":memory:", max_workers=3),
            r"did you mean 'max_concurrent_tasks'\? known arguments: ",
        ),
        (
            lambda: cloaca.DefaultRunner(":memory:", ticks_kept_rows=3),
            r"did you mean 'ticks_max'\? known arguments: ",
        ),
        (
            lambda: cloaca.WorkflowBuilder("w", priorty=3),
            r"WorkflowBuilder got an unexpected .*; did you mean 'priority'\? known arguments: ",
        ),
        (
            lambda: cloaca.WorkflowBuilder("w", on_success=print),
            r"'on_success', which is a method of it: WorkflowBuilder\(name\).on_success\(...\)",
        ),
        (
            lambda: cloaca.DefaultRunner(":memory:", workflow_timeout=3),
            r"did you mean 'workflow_timeout_seconds'\?",
        ),
        (lambda: cloaca.Backoff(initial="5s"), r"^Backoff got an .*'initial'; did you mean 'base'\?"),
        (lambda: cloaca.Backoff(facto=3), r"did you mean 'factor'\? known arguments: base, factor, max$"),
        (lambda: cloaca.RetryAfter(seconds=3), r"^RetryAfter got an .*'seconds'; did you mean 'delay'\?"),
        (lambda: cloaca.RetryAfter(3, paus="l"), r"did you mean 'pause'\?"),
        (
            lambda: cloaca.ProcessExecutor(workers=3),
            r"^ProcessExecutor got an .*did you mean 'max_workers'\?",
        ),
        (lambda: cloaca.ProcessExecutor(grace=3), r"did you mean 'kill_grace'\?"),
        (
            lambda: cloaca.testing.Runner(trigger=["t"]),
            r"^testing.Runner got an .*'trigger'; did you mean 'triggers'\?",
        ),
        (lambda: cloaca.task(tz="UTC"), r"unexpected keyword argument 'tz'; known arguments: "),
    ],
)
def test_a_slip_is_told_with_the_way_out(call: Callable[[], Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    assert re.search(said, str(raised.value)), raised.value


def test_a_run_key_by_another_name_is_told_with_its_own(runner: cloaca.DefaultRunner) -> None:
    said = r"'key'; did you mean 'run_key'\? known arguments: "
    with pytest.raises(TypeError, match=rf"submit\(\) got an unexpected keyword argument {said}"):
        runner.submit("nobody", {}, key="7")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=rf"submit_async\(\) got an unexpected keyword argument {said}"):
        asyncio.run(runner.submit_async("nobody", {}, key="7"))  # type: ignore[arg-type]


def test_a_keyword_of_a_runners_method_is_told_by_the_methods_own_name(runner: cloaca.DefaultRunner) -> None:
    with pytest.raises(
        TypeError, match=r"^submit_many\(\) got an unexpected .* 'keys'; did you mean 'run_keys'\?"
    ):
        runner.submit_many("nobody", [{}], keys=["7"])  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"^register_cron_workflow\(\) got an unexpected .* 'tz'; did you mean 'timezone'"
    ):
        runner.register_cron_workflow("nobody", "@daily", tz="UTC")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda runner: runner.set_cursor("t", cursor=3),
            r"set_cursor\(\) .*'cursor'; did you mean 'value'\?",
        ),
        (lambda runner: runner.backfill("c", since="x"), r"backfill\(\) .*'since'; did you mean 'start'\?"),
        (lambda runner: runner.pause(name="w"), r"pause\(\) .*'name'; did you mean 'workflow'\?"),
        (lambda runner: runner.resume(worflow="w"), r"resume\(\) .*'worflow'; did you mean 'workflow'\?"),
        (lambda runner: runner.audit(limit=3), r"audit\(\) .*'limit'; did you mean 'last'\?"),
        (lambda runner: runner.ticks("t", limit=3), r"ticks\(\) .*'limit'; did you mean 'last'\?"),
        (lambda runner: runner.list_runs(last=3), r"list_runs .*'last'; did you mean 'limit'\?"),
        (lambda runner: runner.shutdown(timeut=3), r"shutdown\(\) .*; did you mean 'timeout'\?"),
        (
            lambda runner: runner.run_forever(timeout=3),
            r"run_forever\(\) .*'timeout'; did you mean 'shutdown_timeout'\?",
        ),
    ],
)
def test_a_slip_in_a_call_of_a_runner_is_told_with_the_way_out(
    runner: cloaca.DefaultRunner, call: Callable[[Any], Any], said: str
) -> None:
    with pytest.raises(TypeError, match=rf"^{said}"):
        call(runner)


def test_how_long_ago_is_told_by_a_time(runner: cloaca.DefaultRunner) -> None:
    with pytest.raises(ValueError, match=r"since is '24h'; .*; for how long ago, datetime.now\(UTC\) - "):
        runner.list_runs(since="24h")
    with pytest.raises(ValueError, match=r"since is 'noon'; .*T00:00:00Z\"$"):
        runner.list_runs(since="noon")


def said_by(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_function_that_is_returned_instead_of_called_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with cloaca.testing.Runner() as runner:
        cloaca.trigger(workflow="w", name="a", poll_interval="1s")(lambda: cloaca.TriggerResult.skip)  # type: ignore[arg-type,return-value]
        runner.advance("1s")
    assert (
        "it returned the function TriggerResult.skip and not what that returns; write TriggerResult.skip()"
        in (said_by(caplog))
    )


def test_a_fire_without_a_workflow_says_where_it_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with cloaca.testing.Runner() as runner:
        cloaca.trigger(name="a", poll_interval="1s")(lambda: True)
        runner.advance("1s")
    assert "names no workflow; write @trigger(workflow=...); known workflows: none" in said_by(caplog)


def test_a_name_with_a_line_end_stays_on_its_line(runner: cloaca.DefaultRunner) -> None:
    cloaca.trigger(name="in\nbox\x1b[31m", poll_interval="1h")(lambda: False)
    with pytest.raises(cloaca.TriggerError) as raised:
        runner.tick("other")
    assert str(raised.value).splitlines() == [str(raised.value)]
    assert r"in\nbox\x1b[31m" in str(raised.value)


def test_a_skip_is_false_and_a_fire_is_true() -> None:
    assert not cloaca.TriggerResult.skip()
    assert not cloaca.TriggerResult.skip("nothing new")
    assert cloaca.TriggerResult.fire()
    assert cloaca.TriggerResult.fire({})


def test_defer_until_takes_a_duration(runner: cloaca.DefaultRunner) -> None:
    looked: list[object] = []

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task()
        def wait(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            for pause in ("10ms", datetime.timedelta(milliseconds=10), 10):
                looked.clear()
                handle.defer_until(lambda: looked.append(1) or len(looked) > 1, pause)
            for bad in ("soon", "1", None):
                with pytest.raises((TypeError, ValueError), match="poll_interval_ms is "):
                    handle.defer_until(lambda: True, bad)  # type: ignore[arg-type]

    runner.execute("w", check=True)


@pytest.fixture
def program() -> None:
    """What a program declares."""
    with cloaca.WorkflowBuilder("ingest"):

        @cloaca.task()
        def fetch(context: cloaca.Context) -> None: ...

    cloaca.trigger(workflow="ingest", name="inbox", poll_interval="1s")(lambda: True)


def fetch(context: cloaca.Context) -> None:
    """Called as the program's task."""


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("task", ["fetch", fetch])
def test_a_task_outside_of_what_is_isolated_is_told_of(task: Any) -> None:
    with cloaca.testing.isolated(), cloaca.testing.Runner() as runner:
        with pytest.raises(cloaca.WorkflowError) as raised:
            runner.replace_task(task, lambda context: None)
        assert "'ingest' is declared outside of what is isolated here: keep it with" in str(raised.value)
        assert "with [] the workflows alone stay" in str(raised.value)
        with pytest.raises(cloaca.WorkflowError) as raised:
            runner.replace_task("other", lambda context: None)
        assert "isolated" not in str(raised.value)
    with cloaca.testing.isolated(triggers=[]), cloaca.testing.Runner() as runner:
        runner.replace_task("fetch", lambda context: None)


@pytest.mark.usefixtures("program")
def test_a_clock_that_moves_beside_the_program_warns_once() -> None:
    with cloaca.testing.isolated(), cloaca.testing.Runner() as runner:
        with pytest.warns(UserWarning, match="knows no trigger and no workflow, so that nothing happens"):
            runner.advance("1h")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runner.advance("1h")


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize("stay", [None, [], ["inbox"]])
def test_a_clock_that_moves_for_what_is_declared_does_not_warn(stay: list[str] | None) -> None:
    with (
        warnings.catch_warnings(),
        cloaca.testing.isolated(triggers=stay),
        cloaca.testing.Runner() as runner,
    ):
        warnings.simplefilter("error")
        if stay is None:
            cloaca.trigger(name="own", poll_interval="1s")(lambda: False)
        runner.advance("1h")


def test_a_clock_that_moves_where_nothing_is_declared_does_not_warn() -> None:
    with warnings.catch_warnings(), cloaca.testing.isolated(), cloaca.testing.Runner() as runner:
        warnings.simplefilter("error")
        runner.advance("1h")
