"""What a callback takes is looked at where it is declared, and not at the first failure."""

from __future__ import annotations

import functools
import unittest.mock
from collections.abc import Callable
from typing import Any

import pytest

import cloaca


class Watcher:
    def none(self) -> None: ...

    def two(self, one: object, two: object) -> None: ...

    async def three(self, one: object, two: object, three: object) -> None: ...


class Called:
    def __call__(self, one: object, two: object) -> None: ...


class ByHook:
    """Does not tell what it takes."""

    __signature__ = "odd"

    def __call__(self, *given: object) -> None: ...


def keyword(one: object, two: object, *, three: object) -> None: ...


async def later(one: object) -> None: ...


def two(one: object, two: object) -> None: ...


def declare(argument: str, callback: Any) -> None:
    if argument in ("on_success", "on_failure"):
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="t", **{argument: callback})(lambda context: None)
    else:
        cloaca.trigger(name="x", poll_interval="1h", **{argument: callback})(lambda: False)


GIVEN = {
    "on_success": "task_id, context",
    "on_failure": "task_id, error, context",
    "on_poll_failed": "name, error, failures",
    "on_disabled": "name, cause",
}


@pytest.mark.parametrize("argument", GIVEN)
@pytest.mark.parametrize(
    "callback",
    [
        lambda: None,
        lambda one: None,
        lambda one, two, three, four: None,
        lambda *, one: None,
        keyword,
        later,
        Watcher().none,
        functools.partial(two, 1),
        [].append,
    ],
)
def test_a_callback_with_other_parameters_is_refused(argument: str, callback: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=argument) as raised:
        declare(argument, callback)
    assert f"it is called with {GIVEN[argument]}" in str(raised.value)


def generator(*given: object) -> Any:
    yield given


async def async_generator(*given: object) -> Any:
    yield given


@pytest.mark.parametrize("argument", GIVEN)
@pytest.mark.parametrize("callback", [generator, async_generator])
def test_a_generator_is_refused(argument: str, callback: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=f"{argument} is .*, a generator, which would never run"):
        declare(argument, callback)


async def later_generator(*given: object) -> Any:
    return generator()


@pytest.mark.parametrize(
    "callback", [lambda *given: generator(), lambda *given: async_generator(), later_generator]
)
def test_one_that_returns_a_generator_has_done_nothing_and_is_told_of(
    callback: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    cloaca.trigger(name="x", poll_interval="1m", on_poll_failed=callback)(lambda: 1 / 0)
    with cloaca.WorkflowBuilder("w").on_success(callback):
        cloaca.task(id="t", on_success=callback)(lambda context: None)
    with cloaca.testing.Runner() as runner:
        assert runner.execute("w").status == "Completed"
        runner.advance("1m")
    told = {
        record.message.partition(" raised")[0].partition(" of run")[0]
        for record in caplog.records
        if "a generator, of which nothing has run" in str(record.exc_info)
    }
    assert told == {"callback of task 't'", "on_success of workflow 'w'", "on_poll_failed of trigger 'x'"}


@pytest.mark.parametrize("argument", GIVEN)
def test_what_takes_them_or_does_not_tell_is_taken(argument: str) -> None:
    is_pair = GIVEN[argument].count(",") == 1
    pair = [two, Watcher().two, Called(), functools.partial(lambda zero, one, two: None, 0)]
    triple = [Watcher().three, lambda one, two, three=None: None, lambda one, two, three, four=4: None]
    for callback in [
        *(pair if is_pair else triple),
        print,
        unittest.mock.Mock(),
        ByHook(),
        lambda *given: None,
    ]:
        declare(argument, callback)


def test_the_message_says_what_is_missing_or_too_many() -> None:
    with pytest.raises(
        cloaca.WorkflowError, match=r"takes 1 of them.*def on_failure\(task_id, error, context\)"
    ):
        declare("on_failure", lambda error: None)
    with pytest.raises(cloaca.WorkflowError, match="needs four; it is called with task_id, error, context"):
        declare("on_failure", lambda one, two, three, four: None)
    with pytest.raises(cloaca.TriggerError, match="needs three; it is called with name, cause"):
        declare("on_disabled", keyword)
