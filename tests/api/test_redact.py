"""What `redact=` hides, at every door, in this process and in others; and what it must not hide."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flow import declare
from program import eventually, run_program

import cloaca
import cloaca.ui
from cloaca import Context, TriggerResult, reading, redact
from cloaca.hidden import MASK, WITHHELD
from cloaca.redact import FOREIGN
from cloaca.testing import Runner

SECRET = "hunter2-and-more"
GIVEN = {"user": "ann", "password": SECRET, "host": {"Token": [SECRET + "/x", 7], "port": 80}}
SHOWN = {"user": "ann", "password": MASK, "host": {"Token": MASK, "port": 80}}


@pytest.fixture(autouse=True)
def fresh_reprs() -> Iterator[None]:
    """What one test hides, no other shall."""
    yield
    redact._keys.clear()
    redact._functions.clear()
    redact._show_reprs()


@pytest.fixture
def hiding() -> Iterator[cloaca.DefaultRunner]:
    """A runner that hides passwords and tokens."""
    with cloaca.DefaultRunner(":memory:", redact=["password", "token"]) as runner:
        yield runner


def fails_with_password(context: Context) -> None:
    raise ValueError(f"no login with {context['password']!r} at {context['host']}")


def texts_of(found: object) -> str:
    return json.dumps(found, default=repr)


# Contexts


def test_listings_hide_the_values_of_keys_and_bodies_see_them(hiding: cloaca.DefaultRunner) -> None:
    seen: list[object] = []
    declare("login", lambda context: seen.append(context.to_dict()))
    result = hiding.execute("login", GIVEN)
    (row,) = hiding.list_runs()
    assert row["context"] == SHOWN
    assert [found["context"] for found in hiding.iter_runs()] == [SHOWN]
    details = hiding.get_run(row["id"])
    assert details is not None
    assert (details["context"], details["final_context"]) == (SHOWN, SHOWN)
    assert seen == [GIVEN]
    assert result.final_context == GIVEN


def test_whoever_asks_unmasked_sees_the_values(hiding: cloaca.DefaultRunner) -> None:
    declare("login", fails_with_password, retry_attempts=1)
    hiding.execute("login", GIVEN)
    (row,) = hiding.list_runs(unmasked=True)
    assert row["context"] == GIVEN
    assert SECRET in str(row["error_message"])
    assert [found["context"] for found in hiding.iter_runs(unmasked=True)] == [GIVEN]
    details = hiding.get_run(row["id"], unmasked=True)
    assert details is not None
    assert details["context"] == GIVEN
    assert SECRET in str(details["tasks"][0]["tries"][0]["traceback"])
    with pytest.raises(ValueError, match="unmasked"):
        hiding.list_runs(unmasked=1)  # type: ignore[arg-type]


def test_the_store_and_its_copies_keep_the_values(tmp_path: Path) -> None:
    with cloaca.DefaultRunner(tmp_path / "runs.db", redact=["password"]) as runner:
        declare("login", fails_with_password, retry_attempts=1)
        runner.execute("login", GIVEN)
        runner.export(tmp_path / "copy.db")
        (row,) = runner.query("SELECT context, error FROM runs")
    assert json.loads(row["context"]) == GIVEN
    assert SECRET in row["error"]
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("SELECT context FROM runs").fetchall() == [(row["context"],)]
    assert copy.execute("SELECT how, key FROM redacted").fetchall() == [("key", "password")]
    copy.close()


@pytest.mark.parametrize(
    ("key", "context", "shown"),
    [
        ("PassWord", {"password": 1}, {"password": MASK}),
        ("password", {"PASSWORD": 1, "passwords": 2}, {"PASSWORD": MASK, "passwords": 2}),
        ("straße", {"STRASSE": 1}, {"STRASSE": MASK}),
        ("caf\u00e9", {"cafe\u0301": 1}, {"cafe\u0301": MASK}),
        ("", {"": 1, "a": {"": 2}}, {"": MASK, "a": {"": MASK}}),
        ("a.b", {"a": {"b": 1}, "a.b": 2}, {"a": {"b": 1}, "a.b": MASK}),
        ("b", {"a": [[{"b": 1}], {"c": [{"b": {"d": 2}}]}]}, {"a": [[{"b": MASK}], {"c": [{"b": MASK}]}]}),
        ("k", {"k": None, "l": None}, {"k": MASK, "l": None}),
        ("'; DROP TABLE runs; --", {"'; DROP TABLE runs; --": 1}, {"'; DROP TABLE runs; --": MASK}),
        ("\x00", {"\x00": 1}, {"\x00": MASK}),
    ],
)
def test_keys_are_found_at_any_depth_whatever_they_look_like(
    key: str, context: dict[str, Any], shown: dict[str, Any]
) -> None:
    declare("w", lambda context: None)
    with cloaca.DefaultRunner(":memory:", redact=[key]) as runner:
        runner.execute("w", context)
        assert runner.list_runs()[0]["context"] == shown
        assert runner.list_runs(unmasked=True)[0]["context"] == context


def test_a_context_of_200_levels_is_hidden_to_its_bottom(hiding: cloaca.DefaultRunner) -> None:
    deep: dict[str, Any] = {"password": SECRET}
    for _ in range(199):
        deep = {"a": deep}
    declare("w", lambda context: None)
    hiding.execute("w", deep)
    assert SECRET not in texts_of(hiding.list_runs()[0]["context"])


def test_a_function_of_path_and_value_decides(hiding: cloaca.DefaultRunner) -> None:
    asked: list[tuple[object, object]] = []

    def shown(path: tuple[str | int, ...], value: Any) -> Any:
        asked.append((path, value))
        if path[-1] == "card":
            return "…" + value[-4:]
        return value

    declare("pay", lambda context: None)
    with cloaca.DefaultRunner(":memory:", redact=shown) as runner:
        runner.execute("pay", {"of": [{"card": "4000123412341234"}], "sum": 5})
        assert runner.list_runs()[0]["context"] == {"of": [{"card": "…1234"}], "sum": 5}
    assert [path for path, _ in asked] == [("of",), ("of", 0), ("of", 0, "card"), ("sum",)]


@pytest.mark.parametrize("answer", [object(), float("nan"), {1: 2}, b"x"])
def test_a_function_that_answers_what_is_no_json_hides_the_value(answer: object) -> None:
    declare("w", lambda context: None)
    with cloaca.DefaultRunner(":memory:", redact=lambda path, value: answer) as runner:
        runner.execute("w", {"a": 1})
        assert runner.list_runs()[0]["context"] == {"a": MASK}


def test_a_function_that_raises_hides_the_value() -> None:
    def shown(path: object, value: Any) -> Any:
        return value["no such"]

    declare("w", lambda context: None)
    with cloaca.DefaultRunner(":memory:", redact=shown) as runner:
        runner.execute("w", {"a": 1, "b": {"c": 2}})
        assert runner.list_runs()[0]["context"] == {"a": MASK, "b": MASK}


def test_what_a_cron_was_registered_with_is_hidden(hiding: cloaca.DefaultRunner) -> None:
    declare("w", lambda context: None)
    made = hiding.register_cron_workflow(
        "w", "0 0 1 1 *", "UTC", name="yearly", context={"token": SECRET, "n": 1}
    )
    assert hiding.get_cron_schedule(made)["context"] == {"token": MASK, "n": 1}
    assert hiding.list_cron_schedules()[0]["context"] == {"token": MASK, "n": 1}
    assert hiding.get_cron_schedule(made, unmasked=True)["context"] == {"token": SECRET, "n": 1}
    assert hiding.list_cron_schedules(unmasked=True)[0]["context"] == {"token": SECRET, "n": 1}
    shown = hiding.tick("yearly", dry_run=True)["fires"][0]["context"]
    assert (shown["token"], shown["n"]) == (MASK, 1)


def test_a_tick_hides_what_it_fires_and_where_its_cursor_stands() -> None:
    @cloaca.trigger(workflow="w", poll_interval="1h")
    def inbox(tick: cloaca.Tick) -> TriggerResult:
        tick.cursor = {"token": SECRET, "at": 3}
        return TriggerResult.fire({"password": SECRET, "n": 1})

    declare("w", lambda context: None)
    with Runner(redact=["password", "token"]) as runner:
        told = runner.tick(inbox)
        assert told["fires"] == [{"context": {"password": MASK, "n": 1}, "run_key": None}]
        assert told["cursor"] == {"token": MASK, "at": 3}
        whole = runner.tick(inbox, unmasked=True)
        assert whole["fires"][0]["context"] == {"password": SECRET, "n": 1}


# Texts


def test_error_texts_and_tracebacks_do_not_tell_a_value(hiding: cloaca.DefaultRunner) -> None:
    declare("login", fails_with_password, retry_attempts=2, retry_delay_ms=0)
    result = hiding.execute("login", GIVEN)
    details = hiding.get_run(hiding.list_runs()[0]["id"])
    assert details is not None
    for found in (hiding.list_runs(), list(hiding.iter_runs()), details, hiding.why_run(details["id"])):
        assert SECRET not in texts_of(found)
    assert hiding.list_runs()[0]["error_message"] == (
        f"task 'only' failed: ValueError: no login with '{MASK}' at {{'Token': ['{MASK}', 7], 'port': 80}}"
    )
    tries = details["tasks"][0]["tries"]
    assert len(tries) == 2
    assert all("raise ValueError" in str(known["traceback"]) for known in tries)
    assert all(MASK in str(known["traceback"]) for known in tries)
    assert SECRET not in repr(result)
    assert SECRET not in str(result.error_message)
    with pytest.raises(cloaca.RunFailedError) as failed:
        result.raise_for_failure()
    assert SECRET not in str(failed.value)


def test_a_value_that_only_the_body_knew_is_not_told_either(hiding: cloaca.DefaultRunner) -> None:
    def body(context: Context) -> None:
        context["session"] = {"token": "gotten-just-now"}
        raise ValueError("refused: gotten-just-now")

    declare("login", body, retry_attempts=1)
    result = hiding.execute("login")
    assert result.error_message == f"task 'only' failed: ValueError: refused: {MASK}"
    assert "gotten-just-now" not in texts_of(hiding.get_run(hiding.list_runs()[0]["id"]))


def test_a_value_in_the_name_of_an_error_s_class_is_not_told(
    hiding: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def body(context: Context) -> None:
        context["session"] = {"token": "gotten_just_now"}
        raise type(f"Err_{context['password']}_gotten_just_now", (Exception,), {})("no")

    declare("login", body, retry_attempts=2, retry_delay_ms=0)
    with caplog.at_level(logging.DEBUG, "cloaca"):
        hiding.execute("login", {"password": "hunter2secret"})
    (row,) = hiding.list_runs()
    details = hiding.get_run(row["id"])
    assert details is not None
    (task,) = details["tasks"]
    for found in (row, details, task, *task["tries"]):
        assert found["error_type"] == f"Err_{MASK}_{MASK}"
    for told in (texts_of(row), texts_of(details), hiding.why_run(row["id"]), caplog.text):
        assert "hunter2secret" not in told
        assert "gotten_just_now" not in told
    (whole,) = hiding.list_runs(unmasked=True)
    assert whole["error_type"] == f"Err_hunter2secret_{MASK}"


@pytest.mark.parametrize(
    ("value", "message", "told"),
    [
        ("ab'cd\"ef", "{0!r}", f"'{MASK}'"),
        ("pass word/1", "postgresql://u:pass%20word%2F1@h", f"postgresql://u:{MASK}@h"),
        ("pass word/1", "pass+word%2F1", MASK),
        ("tür\nzu und zu", "tür\\nzu und zu", MASK),
        (
            "first line of it\nsecond line of it",
            "| first line of it\n| second line of it",
            f"| {MASK}\n| {MASK}",
        ),
        (123456789, "pin 123456789 refused", f"pin {MASK} refused"),
        ({"x": ["aaaa", {"y": "bbbb"}]}, "aaaa and bbbb", f"{MASK} and {MASK}"),
        ("  padded  ", "got padded", f"got {MASK}"),
        ("abab-abab", "abab-abab-abab", MASK),
        ("a" * 300, "got 'aaaaaaaaaaaaaaaaaaaaaa…", f"got '{MASK}…"),
        ("reda", "reda and [redacted]", f"{MASK} and [{MASK}cted]"),
        ("abc", "abc is too short to be looked for", "abc is too short to be looked for"),
        (True, "True", "True"),
        ("nowhere", "nothing", "nothing"),
        ("uni\u00e9secret", repr("uni\u00e9secret".encode()), f"b'{MASK}'"),
        ("uni\u00e9secret", repr("uni\u00e9secret".encode("latin-1")), f"b'{MASK}'"),
        ("uni\u00e9\U0001f511secret", ascii("uni\u00e9\U0001f511secret"), f"'{MASK}'"),
        ("uni\u00e9secret", repr(repr("uni\u00e9secret".encode())), f"\"b'{MASK}'\""),
        ("tab\tand \\ in it", repr(repr("tab\tand \\ in it")), f"\"'{MASK}'\""),
        ("uni\u00e9secret", "uni%c3%a9secret", MASK),
    ],
)
def test_a_value_is_found_as_texts_write_it(value: object, message: str, told: str) -> None:
    def body(context: Context) -> None:
        raise ValueError(message.format(context["password"]) if "{" in message else message)

    declare("w", body, retry_attempts=1)
    with cloaca.DefaultRunner(":memory:", redact=["password"]) as runner:
        assert (
            runner.execute("w", {"password": value}).error_message
            == f"task 'only' failed: ValueError: {told}"
        )


def test_a_value_that_was_cut_in_the_middle_of_a_traceback_is_not_told(hiding: cloaca.DefaultRunner) -> None:
    value = "".join(f"{number:05}" for number in range(8_000))

    def body(context: Context) -> None:
        raise ValueError(context["password"])

    declare("w", body, retry_attempts=1)
    result = hiding.execute("w", {"password": value})
    details = hiding.get_run(hiding.list_runs()[0]["id"])
    told = texts_of(details) + str(result.error_message)
    assert [part for part in ("00000000010000200003", "0799707998", "00100") if part in told] == []


def test_a_text_about_more_values_than_can_be_looked_for_is_withheld(hiding: cloaca.DefaultRunner) -> None:
    def body(context: Context) -> None:
        raise ValueError("value-5000")

    declare("w", body, retry_attempts=1)
    result = hiding.execute("w", {"password": [f"value-{number}" for number in range(10_000)]})
    assert result.error_message == WITHHELD


def test_a_trigger_that_fails_does_not_tell_the_values_of_its_cursor_and_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    polls = iter(range(100))

    @cloaca.trigger(workflow="w", poll_interval="1s", max_consecutive_failures=2)
    def inbox(tick: cloaca.Tick) -> TriggerResult:
        if next(polls) == 0:
            tick.cursor = {"token": "cursor-token"}
            return TriggerResult.fire({"password": SECRET})
        raise OSError(f"refused {SECRET} with cursor-token")

    declare("w", lambda context: None)
    with caplog.at_level(logging.DEBUG, "cloaca"), Runner(redact=["password", "token"]) as runner:
        runner.advance("10s")
        told = [runner.why("inbox"), texts_of(runner.ticks("inbox"))]
        assert SECRET in texts_of(runner.ticks("inbox", unmasked=True))
    told += [formatted(record) for record in caplog.records]
    assert [text for text in told if SECRET in text or "cursor-token" in text] == []
    assert any(MASK in formatted(record) for record in caplog.records)
    assert f"OSError: refused {MASK} with {MASK}" in told[0]


def formatted(record: logging.LogRecord) -> str:
    seen = "" if record.exc_info is None else "".join(traceback.format_exception(*record.exc_info))
    return logging.Formatter("%(levelname)s %(message)s").format(record) + seen


# Logs


def test_no_line_of_the_log_tells_a_value(
    hiding: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def told(task_id: str, error: str, context: Context) -> None:
        assert SECRET in error
        raise KeyError(context["password"])

    declare("login", fails_with_password, retry_attempts=2, retry_delay_ms=0, on_failure=told)
    with caplog.at_level(logging.DEBUG, "cloaca"):
        run = hiding.submit("login", GIVEN)
        run.result()
        assert eventually(lambda: any("'login' failed" in record.getMessage() for record in caplog.records))
    lines = [formatted(record) for record in caplog.records]
    assert [line for line in lines if SECRET in line] == []
    (last,) = [line for line in lines if line.startswith("ERROR task 'only'")]
    assert "Traceback (most recent call last)" in last
    assert f"ValueError: no login with '{MASK}'" in last
    (callback,) = [line for line in lines if "callback of task" in line]
    assert f"KeyError: '{MASK}'" in callback
    (ended,) = [line for line in lines if "'login' failed" in line]
    assert MASK in ended


def test_a_condition_that_raises_does_not_tell_a_value(
    hiding: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    left = [1]

    def body(context: Context, handle: cloaca.TaskHandle) -> None:
        def condition() -> bool:
            if left:
                left.pop()
                raise OSError(SECRET)
            return True

        handle.defer_until(condition, poll_interval_ms=1)

    declare("w", body)
    with caplog.at_level(logging.DEBUG, "cloaca"):
        assert hiding.execute("w", {"password": SECRET}).status == "Completed"
    (line,) = [formatted(record) for record in caplog.records if record.levelno == logging.ERROR]
    assert "the condition" in line
    assert SECRET not in line
    assert f"OSError: {MASK}" in line


def test_a_line_without_a_value_has_its_exception_as_ever(
    hiding: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def body(context: Context) -> None:
        raise ValueError("boom")

    declare("w", body, retry_attempts=1)
    hiding.execute("w", {"password": SECRET})
    assert eventually(lambda: any(record.name == "cloaca.task" for record in caplog.records))
    (record,) = [record for record in caplog.records if record.name == "cloaca.task"]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert record.cloaca_task == "only"  # type: ignore[attr-defined]


def test_a_context_hides_in_its_repr_what_is_hidden(hiding: cloaca.DefaultRunner) -> None:
    shown = '{"user":"ann","password":"[redacted]","host":{"Token":"[redacted]","port":80}}'
    assert repr(Context(GIVEN)) == f"Context({shown})"
    assert repr(TriggerResult.fire(GIVEN)) == f"TriggerResult.Fire(Context({shown}))"
    assert json.loads(Context(GIVEN).to_json()) == GIVEN
    odd = Context({"password": SECRET, "list": []})
    odd["list"].append({1, 2})
    assert SECRET not in repr(odd)


# Other programs on the file


def test_keys_hold_in_another_process_that_names_none(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    declare("login", fails_with_password, retry_attempts=1)
    with cloaca.DefaultRunner(store, redact=["password", "token"]) as runner:
        runner.execute("login", GIVEN)
    with closing(sqlite3.connect(store)) as written, written:
        # As another process would have left it: an error whose value nobody took out as it was kept.
        assert SECRET in written.execute("SELECT error FROM runs").fetchone()[0]
    done = run_program(OTHER, store)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert done.stdout.count(MASK) >= 8
    assert f'Context({{"password":"{MASK}"}})' in done.stdout
    assert "ValueError: no login" in done.stderr


OTHER = """
import logging, sys
import cloaca
logging.basicConfig(level=logging.DEBUG)
with cloaca.WorkflowBuilder("login"):
    @cloaca.task(retry_attempts=1)
    def only(context):
        raise ValueError(f"no login with {context['password']}")

with cloaca.DefaultRunner(sys.argv[1]) as runner:
    print(cloaca.Context({"password": "x"}))
    (row,) = runner.list_runs()
    print(dict(row), runner.get_run(row["id"]), runner.why_run(row["id"]))
    run = runner.retry(row["id"])
    print(run.result())
    print(list(runner.iter_runs()))
    print(runner.redacted)
"""


def test_a_function_of_another_process_leaves_no_context_to_be_seen(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    declare("login", fails_with_password, retry_attempts=1)
    with cloaca.DefaultRunner(store, redact=lambda path, value: value) as runner:
        runner.execute("login", GIVEN)
        assert runner.list_runs()[0]["context"] == GIVEN
    with cloaca.DefaultRunner(store, paused=True) as runner:
        (row,) = runner.list_runs()
        assert row["context"] == FOREIGN
        details = runner.get_run(row["id"])
        assert details is not None
        assert details["final_context"] == FOREIGN
        assert SECRET not in texts_of(details)
        assert runner.list_runs(unmasked=True)[0]["context"] == GIVEN
        runner.unredact()
        assert runner.list_runs()[0]["context"] == GIVEN


def test_a_runner_that_was_there_before_hides_it_at_once(tmp_path: Path) -> None:
    declare("w", lambda context: None)
    with cloaca.DefaultRunner(tmp_path / "runs.db", workflows=["w"]) as first:
        first.execute("w", GIVEN)
        assert first.list_runs()[0]["context"] == GIVEN
        with cloaca.DefaultRunner(tmp_path / "runs.db", paused=True, redact=["password"]):
            assert first.list_runs()[0]["context"]["password"] == MASK
        assert first.list_runs()[0]["context"]["password"] == MASK


# What is kept of it


def test_keys_of_several_programs_add_up_and_are_taken_back_by_name(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with cloaca.DefaultRunner(store, redact=["password"]) as runner:
        assert runner.redacted == ["password"]
    with cloaca.DefaultRunner(store, redact={"Token", "PASSWORD"}) as runner:
        assert sorted(runner.redacted) == ["Token", "password"]
        assert MASK in repr(Context({"token": 1}))
        runner.unredact("TOKEN")
        assert runner.redacted == ["password"]
        assert repr(Context({"token": 1})) == 'Context({"token":1})'
        with pytest.raises(ValueError, match="'token' are not hidden; those of 'password' are"):
            runner.unredact("token")
    with cloaca.DefaultRunner(store) as runner:
        assert runner.redacted == ["password"]
        runner.unredact()
        assert runner.redacted == []


def test_a_runner_that_hides_what_is_hidden_already_writes_nothing(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    with cloaca.DefaultRunner(store, paused=True, redact=["password"]) as runner:
        asked = redact.checked(["PASSWORD"])
        writes: list[object] = []

        class Store:
            redacted = runner._engine.store.redacted

            def redact(self, *what: object) -> None:
                writes.append(what)

        redact.Redactor(Store(), asked)  # type: ignore[arg-type]
        assert writes == []


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("password", TypeError, "redact is 'password'; it must be a list of keys"),
        (b"password", TypeError, "must be a list of keys"),
        ({"password": 1}, TypeError, "must be a list of keys"),
        (7, TypeError, "redact is 7"),
        (["password", 7], TypeError, "redact holds 7, an int"),
        (["\ud800"], ValueError, "lone"),
        (["x" * 1001], ValueError, "at most 1000 characters"),
        ([str(number) for number in range(1001)], RuntimeError, "at most 1000 are kept"),
    ],
)
def test_what_is_no_key_is_refused(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        cloaca.DefaultRunner(":memory:", redact=given)


def test_a_result_that_outlives_its_runner_tells_no_value() -> None:
    declare("login", fails_with_password, retry_attempts=1)
    with cloaca.DefaultRunner(":memory:", redact=["password", "token"]) as runner:
        run = runner.submit("login", GIVEN)
        assert eventually(lambda: runner.list_runs()[0]["completed_at"])
    assert SECRET not in repr(run.result())


def test_a_store_that_hides_nothing_shows_everything(runner: cloaca.DefaultRunner) -> None:
    declare("login", fails_with_password, retry_attempts=1)
    result = runner.execute("login", GIVEN)
    assert SECRET in str(result.error_message)
    assert runner.list_runs()[0]["context"] == GIVEN
    assert repr(Context({"password": 1})) == 'Context({"password":1})'
    assert runner.redacted == []


# Without a runner


def test_the_command_and_reading_hide_what_is_hidden(tmp_path: Path) -> None:
    @cloaca.trigger(workflow="login", poll_interval="1h")
    def inbox(tick: cloaca.Tick) -> TriggerResult:
        if tick.cursor is not None:
            raise OSError(f"refused {SECRET}")
        tick.cursor = {"token": SECRET}
        return TriggerResult.skip()

    store = tmp_path / "runs.db"
    declare("login", fails_with_password, retry_attempts=1)
    with cloaca.DefaultRunner(store, redact=["password", "token"]) as runner:
        run_id = runner.submit("login", GIVEN).id
        runner.run(run_id).result()
        runner.tick("inbox")
        runner.tick("inbox")
    for line in (
        ["runs", "--context"],
        ["show", run_id, "--context", "--traceback"],
        ["--json", "show", run_id, "--context"],
        ["ls"],
        ["ticks", "inbox"],
        ["why", "inbox"],
        ["why", run_id],
        ["runners", "--left"],
        ["doctor"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "cloaca", "--database", str(store), *line],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, (line, done.stderr)
        assert SECRET not in done.stdout + done.stderr, line
    with reading.Reader(store) as reader:
        assert reading.run(reader, run_id).run.context == SHOWN
        assert reading.triggers(reader).items[0].cursor == {"token": MASK}
    with reading.Reader(store, unmasked=True) as reader:
        assert reading.run(reader, run_id).run.context == GIVEN
        assert reading.triggers(reader).items[0].cursor == {"token": SECRET}


# What a function with on_run says of the run that it is told of


def raises(run: cloaca.types.RunDetails) -> bool:
    raise ValueError(f"no {run['context']['password']} nor {run['final_context']['made']['token']}")


def skips(run: cloaca.types.RunDetails) -> TriggerResult:
    return TriggerResult.skip(f"no {run['context']['password']} nor {run['final_context']['made']['token']}")


async def raises_later(run: cloaca.types.RunDetails) -> bool:
    raise ValueError(f"no {run['context']['password']} nor {run['final_context']['made']['token']}")


def makes_token(context: Context) -> None:
    context["made"] = {"token": "made-" + SECRET[::-1]}


@pytest.mark.parametrize("body", [raises, skips, raises_later])
def test_what_a_function_says_of_the_run_that_it_is_told_of_is_hidden(
    body: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declare("login", makes_token)
    declare("alert")
    told: list[str] = []

    def failed(name: str, error: str, failures: int) -> None:
        told.append(error)

    heard = None if body is skips else failed
    cloaca.trigger(workflow="alert", on_run="login", name="watch", on_poll_failed=heard)(body)
    store = str(tmp_path / "runs.db")
    with (
        cloaca.DefaultRunner(store, redact=["password", "token"]) as runner,
        reading.Reader(store) as reader,
    ):
        runner.set_trigger_enabled("watch", False)
        for user in ("ann", "bob"):
            runner.execute("login", GIVEN | {"user": user})
        found: list[object] = []
        found.append(reading.preview(reader, "watch"))
        found.append(runner.tick("watch", dry_run=True))
        found.append(runner.tick("watch"))
        runner.set_trigger_enabled("watch", True)
        assert eventually(lambda: sum(tick["count"] for tick in runner.ticks("watch")) >= 2)
        assert body is skips or eventually(lambda: told)
        found += [runner.ticks("watch"), runner.why("watch"), reading.ticks(reader, "watch"), told]
    shown = texts_of(found) + caplog.text
    assert f"no {MASK} nor {MASK}" in shown
    for secret in (SECRET, SECRET[::-1]):
        assert secret not in shown
    with cloaca.DefaultRunner(store, work=False) as client:
        assert SECRET not in texts_of(client.query("SELECT reason FROM ticks"))


# Values of limits' keys

KEYED = [
    ({"token": SECRET}, "token"),
    ({"host": {"Token": "abc"}, "n": 1}, "{n}:{host.Token}"),
    ({"token": 977}, "token"),
]


@pytest.mark.parametrize(("context", "key"), KEYED)
def test_a_limit_s_key_that_is_hidden_is_shown_at_no_door(
    context: dict[str, Any], key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    value = str(context.get("token", "1:abc"))
    store = tmp_path / "runs.db"
    released = threading.Event()
    one = cloaca.Concurrency(1, key=key)
    with cloaca.WorkflowBuilder("limited", concurrency=one, rate_limit=cloaca.RateLimit(4, "1h", key=key)):

        @cloaca.task()
        def waits(context: Context) -> None:
            released.wait(30)

    @cloaca.trigger(workflow="limited", poll_interval="1h")
    def many() -> TriggerResult:
        return TriggerResult.fire(context)

    told: list[object] = []
    caplog.set_level(logging.DEBUG)
    with cloaca.DefaultRunner(store, redact=["token"]) as runner:
        try:
            sits, waiting = [runner.submit("limited", context, run_key=name) for name in ("one", "two")]
            assert eventually(lambda: "a seat of concurrency" in runner.why_run(waiting.id))
            told.append(runner.why_run(waiting.id))
            told += [runner.submit("limited", context).id for _ in range(2)]
            with pytest.raises(cloaca.Dropped, match="rate limit") as dropped:
                runner.submit("limited", context)
            assert dropped.value.key == value
            told.append(str(dropped.value))
            told += [runner.tick("many"), runner.tick("many", dry_run=True), runner.ticks("many")]
            # What the newest run has is looked for in texts in any case.
            runner.submit("limited", {**context, "token": "other", "host": {"Token": "other"}})
            told += [runner.why("many"), runner.ticks("many")]
            line = [sys.executable, "-m", "cloaca", "--database", str(store)]
            pausing = [*line, "pause", "--workflow", "limited", "--key"]
            subprocess.run([*pausing, value], check=True, capture_output=True)
            slip = subprocess.run([*pausing, "slip"], check=False, capture_output=True, text=True)
            told.append(slip.stderr)
            assert "slip" in slip.stderr
            told += [runner.list_pauses(), runner.why_run(waiting.id), runner.audit()]
            assert [row["key"] for row in runner.list_pauses(unmasked=True)] == [value]
            asked = json.dumps(context)
            for words in (
                ["ls"],
                ["limits"],
                ["audit"],
                ["audit", "limited"],
                ["why", "limited"],
                ["why", "many"],
                ["why", waiting.id],
                ["ticks", "many"],
                ["doctor"],
                ["metrics", "--json"],
                ["show", waiting.id],
                ["submit", "limited", "--context", asked],
            ):
                done = subprocess.run([*line, *words], check=False, capture_output=True, text=True)
                assert "pause" in done.stdout or words != ["audit", "limited"], "by the workflow's name"
                told.append((words[0], done.stdout, done.stderr))
            page = cloaca.ui.app(store)
            looks = testclient.TestClient(page, base_url="http://127.0.0.1:8720", client=("127.0.0.1", 1))
            for path in (
                "/",
                "/system",
                "/trigger?name=many",
                "/workflow?name=limited",
                f"/run?id={sits.id}",
            ):
                told.append((path, looks.get(path).text))
            told.append(looks.get(f"/run?id={waiting.id}").text)
            page._source.close()
            with reading.Reader(store, unmasked=True) as reader:
                assert [each.key for each in reading.pauses(reader)] == [value]
                assert repr(value) in reading.why(reader, waiting.id)
            subprocess.run([*line, "resume", "--workflow", "limited", "--key", value], check=True)
            assert runner.list_pauses() == []
        finally:
            released.set()
    told += [record.getMessage() for record in caplog.records]
    leaks = [
        each for each in told if re.search(rf"(?<![\w.:-]){re.escape(value)}(?![\w.:-])", texts_of(each))
    ]
    assert leaks == []


def test_a_limit_s_key_that_is_not_hidden_is_shown(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("limited", rate_limit=cloaca.RateLimit(1, "1h", key="{user.name}")):
        cloaca.task(id="only")(fails_not)
    with cloaca.DefaultRunner(tmp_path / "runs.db", redact=["password"]) as runner:
        given = {"user": {"name": "ann"}, "password": SECRET}
        runner.execute("limited", given)
        with pytest.raises(cloaca.Dropped, match='of key "ann"'):
            runner.execute("limited", given)


def fails_not(context: Context) -> None:
    pass


@pytest.mark.parametrize("hides", ["ann", "bob"])
def test_a_function_is_asked_for_a_limit_s_key(hides: str) -> None:
    def hidden(path: tuple[str | int, ...], value: Any) -> Any:
        return MASK if (path, value) == (("user", "name"), hides) else value

    with cloaca.WorkflowBuilder("limited", rate_limit=cloaca.RateLimit(1, "1h", key="user.name")):
        cloaca.task(id="only")(fails_not)
    with cloaca.DefaultRunner(":memory:", redact=hidden) as runner:
        runner.execute("limited", {"user": {"name": "ann"}})
        with pytest.raises(cloaca.Dropped) as dropped:
            runner.execute("limited", {"user": {"name": "ann"}})
        assert ("ann" in str(dropped.value)) == (hides == "bob")


# What stays on record of a run that is retried


def token_and_retry(runner: cloaca.DefaultRunner) -> tuple[str, list[bool]]:
    """A run that failed after a task that its retry skips has put a token into its context."""
    fails = [True]
    log = logging.getLogger("mail")
    log.setLevel(logging.INFO)

    def tells(run: cloaca.types.RunDetails) -> None:
        log.info("telling %s", run["final_context"].get("token"))
        if fails[0]:
            raise ValueError(f"not told of {run['final_context'].get('token')}")

    with cloaca.WorkflowBuilder("w").on_success(tells).on_failure(tells):

        @cloaca.task(retry_attempts=1)
        def first(context: Context) -> None:
            if fails[0]:
                raise ValueError("no")

        @cloaca.task(dependencies=[first], trigger_rules=cloaca.task_failed("first"))
        def makes(context: Context) -> None:
            context["token"] = SECRET

        @cloaca.task(dependencies=[makes], retry_attempts=1)
        def takes(context: Context) -> None:
            log.info("taking %s", context["token"])
            raise ValueError(f"not taken: {context['token']}")

    runner.execute("w", {"password": "sesame-42"})
    return runner.list_runs()[0]["id"], fails


def test_what_a_retry_takes_off_the_record_stays_out_of_lines_and_errors() -> None:
    with cloaca.DefaultRunner(":memory:", redact=["password", "token"], keep_logs="1 MiB") as runner:
        run, fails = token_and_retry(runner)
        assert eventually(lambda: runner.get_run(run)["callbacks"][0]["error"] is not None)
        assert SECRET not in texts_of(runner.query("SELECT error FROM ends"))
        fails[0] = False
        runner.retry(run)
        assert eventually(lambda: (runner.get_run(run)["last_callback"] or {}).get("outcome") == "told")
        lines = [(line["task"], line["callback"], line["text"]) for line in runner.logs(run)]
        assert ("takes", None, f"taking {MASK}") in lines
        assert (None, "on_failure", f"telling {MASK}") in lines
        for unmasked in (False, True):
            found = [*runner.logs(run, unmasked=unmasked), runner.get_run(run, unmasked=unmasked)]
            assert SECRET not in texts_of(found)


def test_what_a_checkpoint_held_stays_out_of_lines_and_errors_once_its_task_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("mail")
    log.setLevel(logging.INFO)

    def walks(context: Context, handle: cloaca.TaskHandle) -> None:
        if handle.checkpointed is None:
            handle.checkpoint({"token": SECRET})
            log.info("at %s", handle.checkpointed)
            raise ValueError(f"at {handle.checkpointed}")
        log.info("from %s", handle.checkpointed)

    declare("walk", walks, retry_attempts=2, retry_delay_ms=1)
    with cloaca.DefaultRunner(":memory:", redact=["token"], keep_logs="1 MiB") as runner:
        runner.execute("walk")
        run = runner.list_runs()[0]["id"]
        assert SECRET not in texts_of([*runner.logs(run), runner.get_run(run)])
        assert f"at {{'token': '{MASK}'}}" in [line["text"] for line in runner.logs(run)]
    told = [record for record in caplog.records if record.name == "cloaca.task"]
    assert told
    assert SECRET not in "".join(record.getMessage() + (record.exc_text or "") for record in told)
