"""What a workflow declares for the ends of its runs is called, whoever ended them, and whatever it does."""

from __future__ import annotations

import functools
import json
import logging
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import flow
import pytest
from nasty import Traceless, Untouchable
from program import Dated, eventually

import cloaca
from cloaca import ends, reading, run_end
from cloaca.cli.logged import Json
from cloaca.testing import Runner

START = "2026-01-01T00:00:00Z"


class Told:
    """A callback that keeps what it was given, and lets a test wait for it."""

    def __init__(self) -> None:
        self.runs: list[cloaca.types.RunDetails] = []
        self._changed = threading.Condition()

    def __call__(self, run: cloaca.types.RunDetails) -> None:
        with self._changed:
            self.runs.append(run)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[cloaca.types.RunDetails]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.runs) >= count, flow.WAIT)
            return list(self.runs)


def declare(name: str = "w", body: Callable[..., object] = flow.nothing, **callbacks: Any) -> None:
    builder = cloaca.WorkflowBuilder(name)
    for each, function in callbacks.items():
        getattr(builder, each)(function)
    with builder:
        cloaca.task(id="only", retry_attempts=1)(body)


def fails_if_bad(context: cloaca.Context) -> None:
    context["seen"] = True
    if context.get("bad"):
        raise ValueError("boom")


def test_each_end_is_told_to_its_callback_with_what_get_run_shows() -> None:
    completed, failed, cancelled = Told(), Told(), Told()
    declare(body=fails_if_bad, on_success=completed, on_failure=failed, on_cancel=cancelled)
    with Runner() as runner:
        good, bad = runner.submit("w", {"a": 1}), runner.submit("w", {"bad": True})
        late = runner.submit("w", delay="1h")
        late.cancel()
        runner.run_until_idle()
        assert [run["id"] for run in completed.runs] == [good.id]
        assert [run["id"] for run in failed.runs] == [bad.id]
        assert [run["id"] for run in cancelled.runs] == [late.id]
        kept = runner.get_run(good.id)
        assert completed.runs[0] | {"callbacks": [], "last_callback": kept["last_callback"]} == kept
        assert completed.runs[0]["final_context"] == {"a": 1, "seen": True}
        assert failed.runs[0]["error_message"] == "task 'only' failed: ValueError: boom"
        assert failed.runs[0]["callbacks"][0]["attempts"] == 1
        assert runner.get_run(bad.id)["callbacks"] == []


def test_an_end_without_a_callback_writes_nothing(runner: cloaca.DefaultRunner) -> None:
    declare(on_failure=lambda run: None)
    declare("plain")
    for name in ("w", "plain"):
        runner.execute(name)
    rows = runner.query("SELECT count(*) AS n FROM ends")
    assert rows == [{"n": 0}]


def test_what_raises_is_called_again_later_and_later_and_the_others_meanwhile() -> None:
    seen: list[str] = []

    def odd(run: cloaca.types.RunDetails) -> None:
        seen.append(f"{run['context']['name']} {runner.now[11:19]}")
        if run["context"]["name"] == "poison":
            raise RuntimeError("not now")

    declare(on_success=odd)
    with Runner(START) as runner:
        poison = runner.submit("w", {"name": "poison"})
        runner.advance("3s")
        runner.submit("w", {"name": "other"})
        runner.advance("4s")
        assert seen == [
            "poison 00:00:00",
            "poison 00:00:01",
            "poison 00:00:03",
            "other 00:00:03",
            "poison 00:00:07",
        ]
        (call,) = runner.get_run(poison.id)["callbacks"]
        assert call["status"] == "Completed"
        assert (call["attempts"], call["error"]) == (4, "RuntimeError: not now")
        assert call["due_at"].startswith("2026-01-01T00:00:15")
        assert (call["begun_at"], call["runner"]) == (None, None)


def test_a_callback_that_asks_to_be_called_later_is_not_called_before() -> None:
    seen: list[str] = []

    def waits(run: cloaca.types.RunDetails) -> None:
        seen.append(runner.now[11:19])
        # What is shorter than the pause that comes next makes that no shorter.
        raise cloaca.RetryAfter("5m" if len(seen) == 1 else "1s")

    declare(on_success=waits)
    with Runner(START) as runner:
        run = runner.submit("w")
        runner.advance("5m2s")
        assert seen == ["00:00:00", "00:05:00", "00:05:02"]
        (call,) = runner.get_run(run.id)["callbacks"]
        assert call["error"] == "RetryAfter: again in 1s"


def test_it_is_given_up_after_a_day_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def never(run: cloaca.types.RunDetails) -> None:
        calls.append(runner.now)
        raise RuntimeError("never")

    declare(on_success=never)
    with Runner(START) as runner:
        run = runner.submit("w")
        runner.advance("30h")
        assert calls[-1] < "2026-01-02T00:00:01Z"
        assert len(calls) > 100
        # The end is given up before the log hears of it, and the clock may be there before either.
        assert eventually(lambda: runner.get_run(run.id)["callbacks"] == [])

        def told() -> list[tuple[str, bool]]:
            lines = [record for record in caplog.records if record.name == "cloaca.callback"]
            return [(line.levelname, "is given up" in line.getMessage()) for line in lines[-1:]]

        assert eventually(lambda: told() == [("ERROR", True)])


def test_what_raised_while_the_clock_was_ahead_is_called_again_after_its_pause(tmp_path: Path) -> None:
    calls: list[str] = []

    def never(run: cloaca.types.RunDetails) -> None:
        calls.append(runner.now[:19])
        raise RuntimeError("never")

    declare(on_success=never)
    url = str(tmp_path / "runs.db")
    with Dated(url, "2027-06-01T12:00:00Z") as runner:
        runner.submit("w")
        runner.advance("4s")
        assert calls == [f"2027-06-01T12:00:0{second}" for second in (0, 1, 3)]
    calls.clear()
    with Dated(url, "2026-03-01T12:00:00Z") as runner:
        runner.advance("3s")
        assert calls == []
        runner.advance("10s")
        assert calls == ["2026-03-01T12:00:04", "2026-03-01T12:00:12"]


def test_that_a_callback_was_told_stays_visible_with_its_run() -> None:
    calls: list[str] = []

    def second(run: cloaca.types.RunDetails) -> None:
        calls.append(run["id"])
        if len(calls) == 1:
            raise RuntimeError("not now")

    declare(body=fails_if_bad, on_failure=second)
    with Runner(START) as runner:
        run, other = runner.submit("w", {"bad": True}), runner.submit("w")
        runner.run_until_idle()
        assert runner.get_run(run.id)["last_callback"] is None
        runner.advance("1s")
        assert runner.get_run(run.id)["last_callback"] == {
            "status": "Failed",
            "outcome": "told",
            "attempts": 2,
            "at": "2026-01-01T00:00:01.000000Z",
            "error": None,
        }
        assert runner.get_run(other.id)["last_callback"] is None


def test_a_callback_that_waits_is_called_soon_or_not_at_all() -> None:
    is_away, calls = [True], Told()

    def tells(run: cloaca.types.RunDetails) -> None:
        calls(run)
        if is_away[0]:
            raise ConnectionError("the other side is away")

    declare(on_success=tells)
    with Runner(START) as runner:
        runs = [runner.submit("w") for _ in range(3)]
        plain = runner.submit("w", delay="300d")
        runner.advance("20m")
        assert [row["id"] for row in runner.list_runs(untold=True)] == [run.id for run in reversed(runs)]
        assert [row["id"] for row in runner.iter_runs("other", untold=True)] == []
        called = len(calls.runs)
        is_away[0] = False
        assert runner.tell_soon(runs[0].id)
        runner.run_until_idle()
        assert [run["id"] for run in calls.runs[called:]] == [runs[0].id]
        assert runner.get_run(runs[0].id)["callbacks"] == []
        assert runner.skip_callback(runs[1].id)
        assert [row["id"] for row in runner.list_runs(untold=True)] == [runs[2].id]
        skipped = runner.get_run(runs[1].id)
        assert (skipped["status"], skipped["callbacks"]) == ("Completed", [])
        assert skipped["last_callback"]["outcome"] == "skipped"
        runner.advance("10m")
        assert {run["id"] for run in calls.runs[called:]} == {runs[0].id, runs[2].id}
        # Nothing waits any more, nor ever did.
        for run_id in [run.id for run in runs] + [plain.id, "00000000-0000-0000-0000-000000000000"]:
            assert not runner.tell_soon(run_id)
            assert not runner.skip_callback(run_id)
        for act in (runner.tell_soon, runner.skip_callback):
            with pytest.raises(cloaca.ArgumentError, match="run_id"):
                act("nonsense")


def knows_no_callbacks(runner: cloaca.DefaultRunner) -> bool:
    """Whether the store has heard that the program declares a workflow without them."""
    return [row["tells"] for row in runner.query("SELECT tells FROM workflows")] == [0]


class Unreadable:
    """An engine by which these parts of its store cannot be read for so many times."""

    def __init__(self, engine: Any, times: int, parts: tuple[str, ...]) -> None:
        self._engine = engine
        self._parts = parts
        self.left = times

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._engine, name)
        return UnreadablePart(self, part) if name in self._parts else part


class UnreadablePart:
    def __init__(self, of: Unreadable, part: Any) -> None:
        self._of = of
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def run(self, *arguments: Any, **named: Any) -> Any:
        return self._read("run", *arguments, **named)

    def look(self, *arguments: Any) -> Any:
        return self._read("look", *arguments)

    def _read(self, name: str, *arguments: Any, **named: Any) -> Any:
        if self._of.left > 0:
            self._of.left -= 1
            raise cloaca.StoreError("the connection to the database is gone")
        return getattr(self._part, name)(*arguments, **named)


def unreadable(
    monkeypatch: pytest.MonkeyPatch, kind: type, times: int, parts: tuple[str, ...] = ("runs", "store")
) -> None:
    """What a runner makes of that kind reads by an engine that can't read for so many times."""
    begin = kind.__init__  # type: ignore[misc]

    def init(self: Any, engine: Any, *arguments: Any, **named: Any) -> None:
        begin(self, Unreadable(engine, times, parts), *arguments, **named)

    monkeypatch.setattr(kind, "__init__", init)


def test_a_store_that_cannot_be_read_before_a_call_is_no_failure_of_the_callback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    unreadable(monkeypatch, ends.Ends, 6)
    declare(on_success=told)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        told.wait()
        assert eventually(lambda: runner.get_run(run.id)["last_callback"] is not None)
        last = runner.get_run(run.id)["last_callback"]
        assert (last["outcome"], last["attempts"], len(told.runs)) == ("told", 1, 1)
    lines = [each.getMessage() for each in caplog.records if each.name == "cloaca.callback"]
    assert lines == [
        f"on_success of workflow 'w' for run {run.id} waits, as the store cannot be read:"
        " StoreError: the connection to the database is gone"
    ], "one line a minute is enough"


def hears(failed: threading.Event) -> Any:
    """Declares a function as a trigger that one failure switches off, which sets `failed`."""
    declare("next")
    return cloaca.trigger(
        workflow="next",
        on_run="w",
        name="heard",
        max_consecutive_failures=1,
        on_poll_failed=lambda *_: failed.set(),
    )


def test_a_store_that_cannot_be_read_before_a_call_is_no_failure_of_a_trigger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, failed = Told(), threading.Event()
    unreadable(monkeypatch, run_end.RunEndBody, 6)
    declare()

    @hears(failed)
    def heard(run: cloaca.types.RunDetails) -> cloaca.TriggerResult:
        told(run)
        return cloaca.TriggerResult.skip("it is told")

    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        assert [each["id"] for each in told.wait()] == [run.id]
        assert runner.list_trigger_schedules()[0]["enabled"]
        assert not failed.is_set()


def test_a_run_that_cannot_be_read_for_good_is_a_failure_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where everything else can be read: what hides in the file stops no other end in silence."""
    unreadable(monkeypatch, ends.Ends, 1_000_000, ("runs",))
    unreadable(monkeypatch, run_end.RunEndBody, 1_000_000, ("runs",))
    failed = threading.Event()
    declare(on_success=Told())

    @hears(failed)
    def heard(run: cloaca.types.RunDetails) -> cloaca.TriggerResult:
        raise AssertionError("it cannot be read")

    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        assert failed.wait(30)
        assert eventually(lambda: not runner.list_trigger_schedules()[0]["enabled"])
        # What it came to is written after it began.
        assert eventually(lambda: "is gone" in (runner.get_run(run.id)["callbacks"][0]["error"] or ""))
        assert runner.get_run(run.id)["callbacks"][0]["attempts"] >= 1


def test_where_no_thread_can_be_started_for_a_callback_none_has_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told, refused, start = Told(), [0], threading.Thread.start

    def starts(self: threading.Thread) -> None:
        if "callback" in self.name and refused[0] < 3:
            refused[0] += 1
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", starts)
    declare(on_success=told)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        told.wait()
        assert eventually(lambda: runner.get_run(run.id)["last_callback"] is not None)
        assert (runner.get_run(run.id)["last_callback"]["attempts"], refused) == (1, [3])
    assert "raised" not in caplog.text


@pytest.mark.parametrize("kind", [Traceless, Untouchable])
def test_what_a_callback_raised_and_nobody_can_look_at_takes_no_place(kind: type[Exception]) -> None:
    calls: list[str] = []

    def tell(run: cloaca.types.RunDetails) -> None:
        calls.append(run["id"])
        if calls.count(run["id"]) == 1:
            raise kind("boom")

    declare(on_success=tell)
    with cloaca.DefaultRunner(":memory:") as runner:
        ids = [runner.submit("w").id for _ in range(9)]
        assert eventually(lambda: sorted(calls) == sorted(ids * 2), 10)
        assert eventually(lambda: not runner.list_runs(untold=True))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_redact_function_that_ends_badly_hides_the_value_and_holds_no_callback_up(
    kind: type[BaseException],
) -> None:
    def redact(path: tuple[str | int, ...], value: object) -> object:
        if kind is KeyboardInterrupt and threading.current_thread() is threading.main_thread():
            return value  # Ctrl-C comes out there.
        raise kind("redact")

    told = Told()
    declare(on_success=told)
    with cloaca.DefaultRunner(":memory:", redact=redact) as runner:
        run = runner.submit("w", {"secret": "abcdefgh"})
        assert told.wait()[0]["context"] == {"secret": "abcdefgh"}
        assert eventually(lambda: runner.get_run(run.id)["last_callback"] is not None)
        assert runner.get_run(run.id)["last_callback"]["attempts"] == 1


def test_when_a_callback_was_dropped_is_told_by_the_runners_clock() -> None:
    def raises(run: cloaca.types.RunDetails) -> None:
        raise RuntimeError("not now")

    declare(on_success=raises)
    with Runner(START) as runner:
        run = runner.submit("w")
        runner.advance("2m")
        cloaca.unregister_workflow("w")
        declare()
        assert eventually(lambda: knows_no_callbacks(runner))
        runner.advance("50m")
        assert runner.get_run(run.id)["callbacks"], "who has it may come back"
        runner.advance("2h")
        assert eventually(lambda: not runner.get_run(run.id)["callbacks"])
        last = runner.get_run(run.id)["last_callback"]
        assert last["outcome"] == "dropped"
        assert "2026-01-01T01:02" <= last["at"] <= "2026-01-01T02:53"


@pytest.mark.parametrize("way", ["unregistered", "without callbacks"])
def test_an_end_that_was_taken_as_its_callback_went_is_told_once_that_is_back(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, go, told = threading.Event(), threading.Event(), Told()
    tell = ends.Ends._tell

    def later(self: ends.Ends, end: ends.End) -> None:
        taken.set()
        assert go.wait(flow.WAIT)
        tell(self, end)

    monkeypatch.setattr(ends.Ends, "_tell", later)
    declare(on_success=told)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        assert taken.wait(flow.WAIT)
        cloaca.unregister_workflow("w")
        if way == "without callbacks":
            declare()
        go.set()
        assert eventually(lambda: runner.get_run(run.id)["callbacks"][0]["begun_at"] is None)
        declare(on_success=told)
        assert [each["id"] for each in told.wait()] == [run.id]
        assert eventually(lambda: runner.get_run(run.id)["callbacks"] == [])
        assert runner.get_run(run.id)["last_callback"]["attempts"] == 1


def test_a_callback_under_way_is_not_disturbed() -> None:
    gate, told = flow.Gate(), Told()

    def slow(run: cloaca.types.RunDetails) -> None:
        gate.entered.set()
        assert gate.open.wait(flow.WAIT)
        told(run)

    declare(on_success=slow)
    with cloaca.DefaultRunner(":memory:") as runner:
        run = runner.submit("w")
        assert gate.entered.wait(flow.WAIT)
        assert not runner.tell_soon(run.id)
        assert not runner.skip_callback(run.id)
        gate.open.set()
        told.wait()
        assert eventually(lambda: runner.get_run(run.id)["callbacks"] == [])
        assert runner.get_run(run.id)["last_callback"]["outcome"] == "told"
        assert len(told.runs) == 1


AWAY = """
import sys
import cloaca

def tells(run):
    print(run["id"], flush=True)
    raise ConnectionError

with cloaca.WorkflowBuilder("w").on_success(tells):
    @cloaca.task(id="only")
    def only(context): ...

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    runner.execute("w")
    sys.stdin.read()
"""


def test_another_process_has_a_callback_called_or_dropped(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pipe = subprocess.PIPE
    if request.config.getoption("--store") != "sqlite":
        pytest.skip("the other process opens a file")
    line = [sys.executable, "-c", AWAY, str(tmp_path / "runs.db")]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as program:
        assert program.stdout is not None
        run_id = program.stdout.readline().strip()
        with cloaca.DefaultRunner(tmp_path / "runs.db", paused=True) as runner:

            def waiting() -> list[Any]:
                return [call for call in runner.get_run(run_id)["callbacks"] if call["begun_at"] is None]

            # Once its pause is long, who calls it looks at the clock no more but for what others say.
            for _ in range(5):
                assert eventually(lambda: bool(waiting()) and runner.tell_soon(run_id))
                assert program.stdout.readline().strip() == run_id
            assert eventually(lambda: bool(waiting()) and runner.skip_callback(run_id))
            assert runner.get_run(run_id)["callbacks"] == []
        program.communicate()


def raised(runner: cloaca.DefaultRunner, run_id: str) -> bool:
    return any(call["error"] and not call["begun_at"] for call in runner.get_run(run_id)["callbacks"])


def test_a_deploy_that_drops_a_callback_says_how_many_waited_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(run: cloaca.types.RunDetails) -> None:
        raise ConnectionError

    declare(on_success=away)
    with Runner(START) as runner:
        ids = [runner.submit("w").id for _ in range(3)]
        runner.run_until_idle()
        caplog.clear()
        cloaca.unregister_workflow("w")
        declare()
        assert eventually(lambda: knows_no_callbacks(runner))
        runner.advance("30m")
        # It is what other programs do, too, which serve the workflow without it while its own is away.
        assert "not told to a callback any more" not in caplog.text
        runner.advance("2h")
        assert eventually(lambda: "not told to a callback any more" in caplog.text)
        (line,) = (each for each in caplog.records if "not told to a callback" in each.getMessage())
        assert (line.levelname, line.cloaca_workflow) == ("WARNING", "w")  # type: ignore[attr-defined]
        assert line.getMessage() == (
            "workflow 'w': 3 ended runs are not told to a callback any more, since no runner has declared"
            " that one for an hour, while others serve the workflow"
        )
        assert runner.get_run(ids[0])["last_callback"]["outcome"] == "dropped"


SERVES = """
import sys
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task(id="only")
    def only(context): ...

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    print("ready", flush=True)
    for line in sys.stdin:
        print(runner.execute("w").status, flush=True)
"""


@pytest.mark.parametrize("way", ["shutdown", "taken"])
def test_ends_wait_for_a_callback_whose_program_is_away_while_another_serves_its_workflow(
    tmp_path: Path, request: pytest.FixtureRequest, way: str
) -> None:
    if request.config.getoption("--store") != "sqlite":
        pytest.skip("the other process opens a file")
    told, is_up = Told(), [False]

    def tells(run: cloaca.types.RunDetails) -> None:
        if not is_up[0]:
            raise ConnectionError
        told(run)

    pipe, path = subprocess.PIPE, tmp_path / "runs.db"
    line = [sys.executable, "-c", SERVES, str(path)]
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        declare(on_success=tells)
        with cloaca.DefaultRunner(path) as runner:
            ids = [runner.submit("w").id]
            assert eventually(lambda: raised(runner, ids[0]) or way == "shutdown")
        print("go", file=other.stdin, flush=True)
        assert other.stdout.readline() == "Completed\n"
        is_up[0] = True
        with cloaca.DefaultRunner(path) as runner:
            ids = [run["id"] for run in runner.list_runs()]
            assert sorted(run["id"] for run in told.wait(2)) == sorted(ids)
        other.stdin.close()


def test_ends_that_were_given_up_are_told_of_for_a_day(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("prometheus_client")
    if request.config.getoption("--store") != "sqlite":
        pytest.skip("the day is written into the file itself")
    path = tmp_path / "runs.db"

    def away(run: cloaca.types.RunDetails) -> None:
        raise ConnectionError("the webhook is away")

    def found() -> str:
        with reading.Reader(path) as reader:
            return "\n".join(
                f"{each.level}: {each.text}" for each in reading.doctor(reader) if each.subject == "callbacks"
            )

    declare(on_success=away)
    with cloaca.DefaultRunner(path) as runner:
        run = runner.submit("w").id
        assert eventually(lambda: raised(runner, run))
    # As if it had raised for a day.
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE ends SET tries = 152, due_at = 0, error = 'the one before'")
        database.commit()
    with cloaca.DefaultRunner(path) as runner:
        assert eventually(lambda: runner.get_run(run)["last_callback"] is not None)
        last = runner.get_run(run)["last_callback"]
        assert (last["outcome"], last["attempts"]) == ("given_up", 153)
        assert last["error"] == "ConnectionError: the webhook is away"
        metrics = cloaca.telemetry.prometheus_app(runner).answer("/", "").body.decode()
        assert 'cloaca_store_callbacks_given_up{workflow="w"} 1.0' in metrics
        assert found().startswith("warn: 1 end of runs of workflow 'w' whose callback was given up")
        assert f"first that of run {run}" in found()
        assert "after 153 calls: 'ConnectionError: the webhook is away'" in found()
        with reading.Reader(path) as reader:
            assert f"given up within the last 24 hours, first that of run {run}" in reading.why(reader, "w")
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE runs SET told_at = told_at - 90000000000")
        database.commit()
    assert found() == "ok: none keeps failing, or was given up within a day"


def test_doctor_tells_of_ends_that_nobody_declares_a_callback_for_and_of_those_that_were_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("cloaca.reading.attention.CALLBACKS_SECONDS", 0.0)

    def away(run: cloaca.types.RunDetails) -> None:
        raise ConnectionError

    def told() -> list[str]:
        with reading.Reader(tmp_path / "runs.db") as reader:
            found = [each for each in reading.doctor(reader) if each.subject == "callbacks"]
            return [f"{each.level}: {each.text}" for each in found]

    declare(on_success=away)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run, _ = [runner.submit("w").id for _ in range(2)]
        assert eventually(lambda: len(runner.list_runs(untold=True)) == 2 and raised(runner, run))
    cloaca.unregister_workflow("w")
    declare("other")
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        (text,) = [each for each in told() if "declares" in each]
        assert text.startswith(
            "warn: 2 ends of runs of workflow 'w' wait for callbacks that no living runner declares, first"
            f" that of run {run}"
        )
        # Nor does who serves the workflow without.
        declare()
        declared = "SELECT count(*) AS many FROM workflows"
        assert eventually(lambda: runner.query(declared)[0]["many"] == 2)
        assert [each for each in told() if "declares" in each]
    if request.config.getoption("--store") != "sqlite":
        return
    with closing(sqlite3.connect(tmp_path / "runs.db")) as database:
        # As an hour later.
        database.execute(
            "UPDATE runs SET told_as = 'dropped', told_at = completed_at, told_outcome = 1, told_calls = 1"
        )
        database.execute("DELETE FROM ends")
        database.commit()
    with cloaca.DefaultRunner(tmp_path / "runs.db"):
        assert not [each for each in told() if "declares" in each]
        (text,) = told()
        assert text.startswith(
            "warn: 2 ends of runs of workflow 'w' waited for a callback that was dropped within"
        )
        assert run in text


def test_a_callback_that_goes_on_raising_is_told_of_ever_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_other = [False]

    def away(run: cloaca.types.RunDetails) -> None:
        if is_other[0]:
            raise KeyError("url")
        raise ConnectionError(run["completed_at"])

    declare(on_success=away)
    with Runner(START) as runner:
        run = runner.submit("w")

        def told() -> list[tuple[str, bool]]:
            lines = [each for each in caplog.records if each.name == "cloaca.callback"]
            calls = [re.search(r"call (\d+)", each.getMessage()) for each in lines]
            return [
                (call[1], each.exc_info is not None) for call, each in zip(calls, lines, strict=True) if call
            ]

        runner.advance("30m")
        assert eventually(lambda: len(told()) == 3)
        assert sorted(told(), key=lambda each: int(each[0])) == [("1", True), ("2", False), ("10", False)]
        is_other[0] = True
        # What the last call came to may be on its way to the store.
        assert eventually(lambda: runner.tell_soon(run.id))
        runner.run_until_idle()
        assert eventually(lambda: len(told()) == 4)
        assert told()[3][1], "it raises something else"


def test_what_a_callback_raises_is_told_whole_once_for_all_its_ends_and_each_recovery_in_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_away = [True]

    def away(run: cloaca.types.RunDetails) -> None:
        if is_away[0]:
            raise ConnectionError("no route")

    declare(on_success=away)
    with Runner(START) as runner:
        runs = [runner.submit("w", {"n": n}).id for n in range(3)]

        def told() -> list[tuple[str, bool]]:
            lines = [each for each in caplog.records if each.name == "cloaca.callback"]
            return [(each.getMessage(), each.exc_info is not None) for each in lines]

        runner.run_until_idle()
        assert eventually(lambda: len(told()) == 3)
        assert sorted(is_whole for _, is_whole in told()) == [False, False, True]
        assert all("ConnectionError: no route" in text for text, is_whole in told() if not is_whole)
        is_away[0] = False
        runner.advance("1s")
        assert eventually(lambda: len(told()) == 6)
        assert sorted(text for text, _ in told()[3:]) == [
            f"on_success of workflow 'w' went well in call 2 for run {run}" for run in sorted(runs)
        ]
        runner.submit("w", {"n": 3})
        runner.run_until_idle()
        assert len(told()) == 6, "what went well at once is no news"


def test_retry_withdraws_what_has_not_begun_and_the_next_end_is_told() -> None:
    failed = Told()

    def once_bad(run: cloaca.types.RunDetails) -> None:
        failed(run)
        if len(failed.runs) == 1:
            raise RuntimeError("not now")

    declare(body=fails_if_bad, on_failure=once_bad)
    with Runner(START) as runner:
        run = runner.submit("w", {"bad": True})
        runner.run_until_idle()
        assert len(runner.get_run(run.id)["callbacks"]) == 1
        runner.retry(run.id)
        runner.run_until_idle()
        assert len(failed.runs) == 2
        # Nothing is left of the first end: its call would have been due.
        runner.advance("1h")
        assert len(failed.runs) == 2


def test_an_async_callback_is_awaited() -> None:
    seen: list[str] = []

    async def later(run: cloaca.types.RunDetails) -> None:
        import asyncio

        await asyncio.sleep(0)
        seen.append(run["status"])

    declare(on_success=later)
    with Runner() as runner:
        runner.execute("w")
        runner.run_until_idle()
    assert seen == ["Completed"]


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_a_callback_raises_ends_that_call_and_nothing_else(raised: BaseException) -> None:
    calls: list[str] = []

    def odd(run: cloaca.types.RunDetails) -> object:
        calls.append(run["id"])
        if len(calls) == 1:
            raise raised
        return ["anything", object()]

    declare(on_success=odd)
    with Runner() as runner:
        run = runner.submit("w")
        runner.advance("1s")
        assert calls == [run.id, run.id]
        assert runner.get_run(run.id)["callbacks"] == []


def test_a_callback_may_use_the_runner() -> None:
    declare("after")

    def chain(run: cloaca.types.RunDetails) -> None:
        runner.submit("after", {"of": run["id"]})
        assert runner.get_run(run["id"])["status"] == "Completed"

    declare(on_success=chain)
    with Runner() as runner:
        run = runner.submit("w")
        runner.run_until_idle()
        (found,) = runner.list_runs("after")
        assert found["context"] == {"of": run.id}
        assert (found["parent_run"], found["parent_task"], found["parent_kind"]) == (run.id, None, "callback")


def test_a_callback_may_shut_the_runner_down() -> None:
    done = threading.Event()

    def close(run: cloaca.types.RunDetails) -> None:
        runner.shutdown()
        done.set()

    declare(on_success=close)
    runner = cloaca.DefaultRunner(":memory:")
    runner.submit("w")
    assert done.wait(flow.WAIT)


def test_shutdown_waits_for_a_callback_and_begins_no_other(tmp_path: Path) -> None:
    entered, go = threading.Event(), threading.Event()
    told = Told()

    def slow(run: cloaca.types.RunDetails) -> None:
        entered.set()
        assert go.wait(flow.WAIT)
        told(run)

    declare(on_success=slow)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        run = runner.execute("w")
        assert run.status == "Completed"
        assert entered.wait(flow.WAIT)
        threading.Timer(0.05, go.set).start()
    assert len(told.runs) == 1


def test_raise_errors_raises_what_a_callback_raised() -> None:
    def bad(run: cloaca.types.RunDetails) -> None:
        raise ZeroDivisionError("in a callback")

    declare(on_success=bad)
    with Runner(raise_errors=True) as runner:
        runner.submit("w")
        with pytest.raises(ZeroDivisionError, match="in a callback"):
            runner.run_until_idle()


def test_a_callback_that_hangs_is_told_of_and_leaves_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ends, "CALL_SECONDS_MAX", 0.01)
    go, told = threading.Event(), Told()

    def hangs(run: cloaca.types.RunDetails) -> None:
        if run["context"].get("hangs"):
            assert go.wait(flow.WAIT)
        told(run)

    declare(on_success=hangs)
    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(ends.CALLS_MAX):
            runner.submit("w", {"hangs": True})
        other = runner.submit("w")
        assert told.wait()[0]["id"] == other.id
        assert "has not come back" in caplog.text
        go.set()
        # They were told all the same, and are not called again.
        told.wait(1 + ends.CALLS_MAX)


def test_while_too_many_of_a_workflow_hang_its_others_wait_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ends, "CALL_SECONDS_MAX", 0.01)
    go, told, said = threading.Event(), Told(), threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "no other callback of that workflow is called while so many" in record.getMessage():
                said.set()

    def hangs(run: cloaca.types.RunDetails) -> None:
        if run["context"].get("hangs"):
            assert go.wait(flow.WAIT)
        told(run)

    declare(on_success=hangs)
    declare("healthy", on_success=told)
    logger, heard = logging.getLogger("cloaca.callback"), Heard()
    logger.addHandler(heard)
    try:
        with cloaca.DefaultRunner(":memory:") as runner:
            for _ in range(16):
                runner.submit("w", {"hangs": True}).result(flow.WAIT)
            assert said.wait(flow.WAIT)
            waits = runner.submit("w")
            waits.result(flow.WAIT)
            healthy = runner.submit("healthy")
            assert [run["id"] for run in told.wait(1)] == [healthy.id]
            go.set()
            assert waits.id in [run["id"] for run in told.wait(18)]
    finally:
        logger.removeHandler(heard)


def test_a_workflow_whose_callbacks_hang_holds_up_those_of_no_other() -> None:
    go, told = threading.Event(), Told()

    def hangs(run: cloaca.types.RunDetails) -> None:
        assert go.wait(flow.WAIT)

    declare(on_success=hangs)
    declare("healthy", on_success=told)
    with cloaca.DefaultRunner(":memory:") as runner:
        for _ in range(2 * ends.CALLS_MAX):
            runner.submit("w").result(flow.WAIT)
        healthy = [runner.submit("healthy").id for _ in range(ends.CALLS_MAX)]
        assert sorted(run["id"] for run in told.wait(len(healthy))) == sorted(healthy)
        go.set()


def test_an_error_shows_nothing_that_is_hidden(caplog: pytest.LogCaptureFixture) -> None:
    def tells(run: cloaca.types.RunDetails) -> None:
        raise ValueError(f"key {run['context']['token']}")

    declare(on_success=tells)
    with Runner(redact=["token"]) as runner:
        run = runner.submit("w", {"token": "s3cret-s3cret"})
        runner.run_until_idle()
        assert "s3cret" not in str(runner.get_run(run.id)["callbacks"])
        assert "s3cret" not in caplog.text
        assert "s3cret" in str(runner.get_run(run.id, unmasked=True)["callbacks"])


def test_who_is_declared_last_is_called() -> None:
    first, second = Told(), Told()
    declare(on_success=first)
    with Runner() as runner:
        declare(on_success=second)
        runner.execute("w")
        runner.run_until_idle()
        declare()
        runner.execute("w")
        runner.run_until_idle()
    assert (len(first.runs), len(second.runs)) == (0, 1)


PROGRAM = """
import os, sys, threading
import cloaca

def after(run):
    with open(sys.argv[2], "a") as out:
        out.write(run["id"] + " " + sys.argv[3] + "\\n")
    if sys.argv[3] == "dies":
        os._exit(7)
    if sys.argv[3] == "forks" and (child := os.fork()):
        os.waitpid(child, 0)
        os._exit(0)

with cloaca.WorkflowBuilder("w").on_success(after).on_cancel(after):
    @cloaca.task
    def only(context): pass

runner = cloaca.DefaultRunner(sys.argv[1])
if sys.argv[3] != "lives":
    runner.submit("w")
print("ready", flush=True)
sys.stdin.read()
runner.shutdown()
"""


def start(store: str, out: Path, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, store, str(out), what]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What a program in another process may open, too."""
    if request.config.getoption("--store") == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return str(tmp_path / "runs.db")


POISONED = """
import os, sys, threading
import cloaca

store, out = sys.argv[1:]

def book(run):
    if run["context"]["n"] == 0:
        os._exit(7)
    # Whoever is called beside the one that ends the process goes with it.
    threading.Event().wait(0.2)
    with open(out, "a") as file:
        file.write(f"{run['context']['n']}\\n")

with cloaca.WorkflowBuilder("order").on_success(book):
    cloaca.task(id="ship")(lambda context: None)

with cloaca.DefaultRunner(store) as runner:
    if not runner.list_runs():
        runner.submit_many("order", [{"n": n} for n in range(4)])
    threading.Event().wait(60)
"""


def test_one_that_ends_its_process_takes_the_same_others_along_once(store: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.touch()
    for _ in range(10):
        command = [sys.executable, "-c", POISONED, store, str(out)]
        assert subprocess.run(command, timeout=flow.WAIT * 2, check=False).returncode == 7
        if len(set(out.read_text().split())) == 3:
            break
    assert sorted(out.read_text().split()) == ["1", "2", "3"]


def test_whose_process_dies_in_it_is_called_by_the_next(store: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(store, out, "dies") as dying:
        assert dying.wait(flow.WAIT) == 7
    told = Told()
    declare(on_success=told, on_cancel=told)
    with cloaca.DefaultRunner(store):
        (run,) = told.wait()
    assert out.read_text().split() == [run["id"], "dies"]


def test_the_end_that_a_client_makes_is_told_by_who_declares_the_workflow(store: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.touch()
    with start(store, out, "lives") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with cloaca.DefaultRunner(store, work=False) as client:
            run = client.submit("w", delay="1h")
            run.cancel()
            deadline = threading.Event()
            for _ in range(int(flow.WAIT / 0.02)):
                if out.read_text():
                    break
                deadline.wait(0.02)
            assert out.read_text() == f"{run.id} lives\n"
        other.communicate()


def test_between_runners_that_come_and_go_each_end_is_told_once(tmp_path: Path) -> None:
    told = Told()
    declare(on_success=told)
    path = tmp_path / "runs.db"
    with cloaca.DefaultRunner(path) as stays:
        ids = []
        for _ in range(30):
            ids += [run.id for run in stays.submit_many("w", [{}] * 3)]
            with cloaca.DefaultRunner(path) as goes:
                ids += [run.id for run in goes.submit_many("w", [{}] * 3)]
        for run in ids:
            stays.run(run).result(flow.WAIT)
        told.wait(len(ids))
    assert sorted(run["id"] for run in told.runs) == sorted(ids)


def test_a_callback_knows_for_which_run_it_is_called() -> None:
    seen: list[tuple[Any, ...]] = []

    def book(run: Any) -> None:
        here = cloaca.current_run()
        assert here is not None
        record = logging.LogRecord("shop", logging.INFO, "", 0, "booked", (), None)
        line = json.loads(Json().format(record))
        seen.append((here.run_id, here.workflow, here.task, here.attempt, here.trigger, line["run"]))
        assert (line["workflow"], "trigger" in line) == ("order", False)
        assert repr(here) == f"CurrentRun(run_id={run['id']!r}, workflow='order')"

    with cloaca.WorkflowBuilder("order").on_success(book):
        cloaca.task(id="ship")(lambda context: None)
    cloaca.trigger(workflow="order", poll_interval="1m", name="inbox")(lambda: True)
    with cloaca.testing.Runner(raise_errors=True) as runner:
        asked = runner.submit("order")
        asked.result()
        runner.advance("1m")
        polled = runner.list_runs(trigger="inbox")[0]["id"]
    assert seen == [
        (asked.id, "order", None, None, None, asked.id),
        (polled, "order", None, None, "inbox", polled),
    ]


def none() -> None: ...


def two(run: object, more: object) -> None: ...


def keyword(run: object, *, more: object) -> None: ...


def generator(run: object) -> Any:
    yield run


async def async_generator(run: object) -> Any:
    yield run


class Watcher:
    def method(self, run: object) -> None: ...


@pytest.mark.parametrize("name", ["on_success", "on_failure", "on_cancel"])
@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (None, "got None"),
        (3, "must be a function"),
        ("f", "must be a function"),
        (none, r"called with run, and takes none of them: def on_\w+\(run\)"),
        (two, "needs more; it is called with run"),
        (keyword, "needs more"),
        (Watcher.method, "first parameter is self"),
        (generator, "a generator"),
        (async_generator, "a generator"),
    ],
)
def test_what_cannot_be_called_with_a_run_is_refused(name: str, bad: Any, told: str) -> None:
    with pytest.raises(cloaca.WorkflowError, match=told):
        getattr(cloaca.WorkflowBuilder("w"), name)(bad)


def test_one_function_an_end() -> None:
    builder = cloaca.WorkflowBuilder("w").on_failure(print)
    assert builder.on_failure(print) is builder
    assert builder.on_success(print) is builder
    with pytest.raises(cloaca.WorkflowError, match=r"has on_failure=.* already"):
        builder.on_failure(functools.partial(print, "other"))


def test_callbacks_are_no_part_of_the_version() -> None:
    versions = []
    for callbacks in ({}, {"on_success": print}):
        declare(**callbacks)
        workflow = cloaca.registry.workflow("w")
        assert workflow is not None
        versions.append(workflow.version)
    assert versions[0] == versions[1]


def test_a_forked_child_says_nothing_of_what_it_was_called_for(store: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(store, out, "forks") as forking:
        assert forking.wait(flow.WAIT) == 0
    (run,) = {line.split()[0] for line in out.read_text().splitlines()}
    # The parent was killed before it had told: it is told again, though the child came back.
    told = Told()
    declare(on_success=told)
    with cloaca.DefaultRunner(store):
        assert told.wait()[0]["id"] == run
