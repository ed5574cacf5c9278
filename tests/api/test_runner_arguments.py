"""How a runner is made: from a path, with settings by name, and what it says to what else it is given."""

from __future__ import annotations

import ast
import os
import re
import sys
import types
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import cloaca


class Place(os.PathLike[Any]):
    """A path of any kind."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


def noop(context: cloaca.Context) -> None:
    """A task that does nothing."""


def flow(name: str = "w") -> cloaca.Workflow:
    with cloaca.WorkflowBuilder(name) as builder:
        cloaca.task(id="only")(noop)
    return builder.build()


def test_a_path_is_a_file(tmp_path: Path) -> None:
    flow()
    with cloaca.DefaultRunner(tmp_path / "app.db") as runner:
        assert runner.execute("w").status == "Completed"
    assert (tmp_path / "app.db").exists()
    with cloaca.DefaultRunner.with_config(tmp_path / "app.db", cloaca.DefaultRunnerConfig()) as runner:
        assert len(runner.list_runs()) == 1


@pytest.mark.parametrize("name", ["app.db", ":memory:", "file:a.db", "sqlite:a", "a b.db"])
def test_a_relative_path_is_a_file_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cloaca.DefaultRunner(Path(name)).shutdown()
    assert (tmp_path / name).exists()


def test_a_path_may_be_bytes_that_are_no_text(tmp_path: Path) -> None:
    place = Place(os.fsencode(tmp_path) + b"/\xff.db")
    cloaca.DefaultRunner(place).shutdown()
    assert os.path.exists(place.path)


def test_settings_are_given_by_name() -> None:
    settings: dict[str, Any] = {
        "max_concurrent_tasks": 8,
        "durability": "normal",
        "task_timeout_seconds": 1.5,
        "enable_recovery": False,
        "retention": timedelta(days=3),
        "max_pollers": None,
    }
    with cloaca.DefaultRunner(":memory:", **settings) as runner:
        assert runner._config == cloaca.DefaultRunnerConfig(**settings)


def test_what_is_in_seconds_may_be_given_as_a_duration() -> None:
    fields = [field for field in cloaca.DefaultRunnerConfig.__slots__ if field.endswith("_seconds")]
    assert len(fields) == 7
    given: list[tuple[Any, float]] = [
        ("7d", 604800),
        ("1m30s", 90),
        (timedelta(minutes=2), 120),
        ("250ms", 0.25),
    ]
    for duration, seconds in given:
        config = cloaca.DefaultRunnerConfig(**dict.fromkeys(fields, duration))
        assert {repr(getattr(config, field)) for field in fields} == {repr(seconds)}
    assert cloaca.DefaultRunnerConfig(timeout_grace_seconds="0s").timeout_grace_seconds == 0
    with pytest.raises(ValueError, match="task_timeout_seconds is 0; it must be above 0"):
        cloaca.DefaultRunnerConfig(task_timeout_seconds="0s")
    with cloaca.DefaultRunner(
        ":memory:", task_timeout_seconds="7d", workflow_timeout_seconds="30d"
    ) as runner:
        assert runner._config.task_timeout_seconds == 604800


def test_delays_of_a_retry_policy_may_be_given_as_durations() -> None:
    def policy(first: Any, longest: Any) -> cloaca.RetryPolicy:
        return cloaca.RetryPolicy.builder().initial_delay(first).max_delay(longest).build()

    assert policy("1m30s", timedelta(minutes=5)) == policy(90, 300)
    assert policy("0s", 300) == policy(0, 300)
    with pytest.raises(ValueError, match="initial_delay is 'soon', which is no duration"):
        policy("soon", 300)


def test_every_field_of_a_config_is_a_keyword_of_a_runner() -> None:
    config = cloaca.DefaultRunnerConfig()
    fields = {field: getattr(config, field) for field in config.__slots__}
    with cloaca.DefaultRunner(":memory:", **fields) as runner:
        assert runner._config == config


def test_settings_that_are_no_fields_are_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(TypeError, match="'max_concurent_tasks'; did you mean 'max_concurrent_tasks'"):
        cloaca.DefaultRunner(":memory:", max_concurent_tasks=8)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "second", [cloaca.DefaultRunnerConfig(), 8, "normal", {"max_concurrent_tasks": 8}, None]
)
def test_a_second_positional_argument_is_told_what_to_do_instead(second: object) -> None:
    with pytest.raises(TypeError) as caught:
        cloaca.DefaultRunner(":memory:", second)  # type: ignore[arg-type]
    assert isinstance(caught.value, cloaca.CloacaError)
    message = str(caught.value)
    assert "DefaultRunner(database_url, max_concurrent_tasks=8)" in message
    assert "DefaultRunner.with_config(database_url, config)" in message


class Watcher:
    """Methods, as somebody might want to decorate them."""

    def poll(self) -> bool:
        return False

    def fill(self, context: cloaca.Context) -> None: ...

    def lonely(self: Any) -> None: ...

    @classmethod
    def of_class(cls) -> bool:
        return False

    def heard(self, task_id: str, context: cloaca.Context) -> None: ...


def refused(call: Any) -> str:
    with pytest.raises(ValueError, match=r"first parameter is (self|cls)") as caught:
        call()
    assert isinstance(caught.value, cloaca.CloacaError)
    assert "bound method" in str(caught.value)
    return str(caught.value)


def test_a_method_is_refused_as_a_trigger_with_the_way_out() -> None:
    def poll(self: Any) -> bool:
        return False

    def of_class(cls: Any) -> bool:
        return False

    assert "cloaca.trigger(...)(watcher.poll)" in refused(lambda: cloaca.trigger(workflow="w")(Watcher.poll))
    assert 'trigger "inbox"' in refused(lambda: cloaca.trigger(name="inbox", workflow="w")(poll))
    refused(lambda: cloaca.trigger(workflow="w")(of_class))
    refused(lambda: cloaca.trigger(poll))
    assert not cloaca.registry.triggers


def test_a_method_is_refused_as_a_task_with_the_way_out() -> None:
    for method in (Watcher.fill, Watcher.lonely):
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="a")(noop)
            message = refused(lambda method=method: cloaca.task(method))
            assert f"cloaca.task(...)(watcher.{method.__name__})" in message


@pytest.mark.parametrize("argument", ["on_success", "on_failure"])
def test_a_method_is_refused_as_a_callback_of_a_task(argument: str) -> None:
    message = refused(lambda: cloaca.task(**{argument: Watcher.heard}))  # type: ignore[call-overload]
    assert message.startswith(f"{argument} is")


@pytest.mark.parametrize("argument", ["on_poll_failed", "on_disabled"])
def test_a_method_is_refused_as_a_callback_of_a_trigger(argument: str) -> None:
    message = refused(lambda: cloaca.trigger(workflow="w", **{argument: Watcher.heard}))  # type: ignore[call-overload]
    assert message.startswith(f"{argument} is")


def test_a_bound_method_is_a_trigger_a_task_and_a_callback(runner: cloaca.DefaultRunner) -> None:
    heard: list[str] = []

    class Told(Watcher):
        def heard(self, task_id: str, context: cloaca.Context) -> None:
            heard.append(task_id)

    watcher = Told()
    with cloaca.WorkflowBuilder("w"):
        cloaca.task(on_success=watcher.heard)(watcher.fill)
    cloaca.trigger(workflow="w", poll_interval="1h")(watcher.poll)
    cloaca.trigger(workflow="w", name="c", poll_interval="1h")(Watcher.of_class)
    assert runner.execute("w").status == "Completed"
    assert heard == ["fill"]
    assert runner.tick("poll")["outcome"] == "skip"


NOT_QUITE = ["0" * 31 + "-0", "0-" * 31 + "0", "-" + "0" * 32, "{" + "0" * 32 + "}", "zz", ""]


@pytest.mark.parametrize("run_id", NOT_QUITE)
@pytest.mark.parametrize("method", ["run", "get_run", "cancel", "retry", "why_run"])
def test_of_a_run_nobody_says_that_its_schedule_is_invalid(
    runner: cloaca.DefaultRunner, method: str, run_id: str
) -> None:
    with pytest.raises(cloaca.ArgumentError, match=r"run_id is .*UUID of a run") as caught:
        getattr(runner, method)(run_id)
    assert "chedule" not in str(caught.value)


def test_the_table_of_settings_has_each_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "settings.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \|", page, re.MULTILINE))
    config = cloaca.DefaultRunnerConfig()
    defaults = {name: getattr(config, name) for name in cloaca.DefaultRunnerConfig.__slots__}
    assert {name: ast.literal_eval(value) for name, value in told.items()} == defaults


@pytest.mark.parametrize(
    ("module", "asks", "named"),
    [
        ("gevent.monkey", "is_module_patched", "threading"),
        ("eventlet.patcher", "is_monkey_patched", "thread"),
    ],
)
@pytest.mark.parametrize("work", [True, False])
def test_where_threads_are_replaced_a_runner_is_refused(
    module: str, asks: str, named: str, work: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched = {named}
    fake = types.SimpleNamespace(**{asks: lambda name: name in patched})
    monkeypatch.setitem(sys.modules, module, fake)
    with pytest.raises(cloaca.RunnerError, match=f"{module.partition('.')[0]} has replaced the threads"):
        cloaca.DefaultRunner(":memory:", work=work)
    # It may be there and leave threads alone.
    patched.clear()
    cloaca.DefaultRunner(":memory:", work=work).shutdown()
