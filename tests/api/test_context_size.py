"""How large a context may be, at every door that one comes through; the measure is bytes of JSON text."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cloaca
from cloaca.testing import Runner

LIMIT = 1000
SECONDS_MAX = 60.0


def of(size: int, letter: str = "x") -> dict[str, Any]:
    """A context of so many bytes, by a value that says where it is."""
    return {"deep": {"list": [1, {"here": letter * (size - len('{"deep":{"list":[1,{"here":""}]}}'))}]}}


@pytest.fixture
def small() -> Iterator[Runner]:
    with Runner(config=cloaca.DefaultRunnerConfig(context_bytes_max=LIMIT)) as runner:
        yield runner


def nothing(name: str = "w") -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="only")(lambda context: None)


def says(text: str | None, size: int, path: str, limit: int = LIMIT) -> bool:
    """Whether a message names the size, the limit, the place of the largest value and the setting."""
    parts = [f"{size} bytes", str(limit), path, "context_bytes_max"]
    return text is not None and all(part in text for part in parts)


DOORS: dict[str, Callable[[Runner, dict[str, Any]], object]] = {
    "execute": lambda runner, context: runner.execute("w", context),
    "submit": lambda runner, context: runner.submit("w", context),
    "submit_many": lambda runner, context: runner.submit_many("w", [{}, context]),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_what_is_too_large_starts_no_run(
    small: Runner, door: Callable[[Runner, dict[str, Any]], object]
) -> None:
    nothing()
    with pytest.raises(cloaca.ContextError) as raised:
        door(small, of(LIMIT + 1))
    assert says(str(raised.value), LIMIT + 1, "deep.list[1].here")
    assert small.list_runs() == []
    door(small, of(LIMIT))
    small.run_until_idle()
    assert {row["status"] for row in small.list_runs()} == {"Completed"}


def test_bytes_count_and_not_characters(small: Runner) -> None:
    nothing()
    small.execute("w", {"k": "ü" * 490})
    with pytest.raises(cloaca.ContextError, match="1010 bytes"):
        small.execute("w", {"k": "ü" * 501})


def test_the_default_is_sixteen_mebibytes() -> None:
    nothing()
    with cloaca.DefaultRunner(":memory:") as runner:
        assert runner.execute("w", of(16 * 1024 * 1024)).status == "Completed"
        with pytest.raises(cloaca.ContextError) as raised:
            runner.execute("w", of(16 * 1024 * 1024 + 1))
    assert says(str(raised.value), 16_777_217, "deep.list[1].here", 16_777_216)


def test_a_fire_that_is_too_large_makes_its_tick_an_error(small: Runner) -> None:
    nothing()

    @cloaca.trigger(workflow="w", poll_interval="1m")
    def inbox(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        tick.cursor = 7
        return [cloaca.TriggerResult.fire({"n": 1}), cloaca.TriggerResult.fire(of(LIMIT + 1))]

    small.advance("1m")
    answered = small.ticks("inbox")[0]
    assert answered["outcome"] == "error"
    assert says(answered["reason"], LIMIT + 1, "deep.list[1].here")
    assert small.list_runs() == []
    assert small.tick("inbox", dry_run=True)["cursor"] is None


@pytest.mark.parametrize("in_place", [False, True])
def test_a_cursor_that_is_too_large_makes_its_tick_an_error(small: Runner, in_place: bool) -> None:
    nothing()

    @cloaca.trigger(workflow="w", poll_interval="1m")
    def inbox(tick: cloaca.Tick) -> bool:
        tick.cursor = {"seen": []}
        if in_place:
            tick.cursor["seen"] += ["x" * LIMIT]
        else:
            tick.cursor = {"seen": ["x" * LIMIT]}
        return True

    small.advance("1m")
    answered = small.ticks("inbox")[0]
    assert answered["outcome"] == "error"
    assert says(answered["reason"], LIMIT + len('{"seen":[""]}'), "seen[0]")
    assert small.list_runs() == []


def test_a_task_whose_result_is_too_large_fails_with_that(small: Runner) -> None:
    told: list[str] = []
    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(retry_attempts=1, on_failure=lambda task_id, error, context: told.append(error))
        def grows(context: cloaca.Context) -> None:
            context["y"] = "y" * LIMIT

    result = small.execute("w", {"x": 1})
    assert result.status == "Failed"
    assert says(result.error_message, LIMIT + len('{"x":1,"y":""}'), "y")
    assert "ContextError" in told[0]
    assert result.final_context == {"x": 1}


def test_what_branches_come_to_together_may_be_too_large_for_the_task_after_them(small: Runner) -> None:
    called: list[str] = []
    with cloaca.WorkflowBuilder("w"):
        for side in ("left", "right"):
            cloaca.task(id=side)(lambda context, side=side: context.set(side, "x" * (LIMIT // 2)))

        @cloaca.task(dependencies=["left", "right"], retry_attempts=1)
        def last(context: cloaca.Context) -> None:
            called.append("last")

    result = small.execute("w")
    assert (result.status, called) == ("Failed", [])
    assert result.error_message is not None
    assert re.search(r"task 'last' failed: ContextError: .*1022 bytes", result.error_message)
    assert "what the last tasks left" not in result.error_message
    assert result.final_context == {}


@pytest.mark.parametrize("length", [LIMIT // 2, 100_000], ids=["found at once", "looked at"])
def test_what_the_last_tasks_come_to_may_be_too_large_for_a_run(length: int) -> None:
    with cloaca.WorkflowBuilder("w"):
        for side in ("left", "right"):
            cloaca.task(id=side)(lambda context, side=side: context.set(side, [1, "x" * length]))
    limit = length + 100
    with Runner(config=cloaca.DefaultRunnerConfig(context_bytes_max=limit)) as runner:
        result = runner.execute("w", {"by": "me"})
    assert result.status == "Failed"
    size = len('{"by":"me","left":[1,""],"right":[1,""]}') + 2 * length
    assert says(result.error_message, size, "[1]", limit)
    assert result.final_context == {"by": "me"}


def test_the_setting_is_checked_and_shown_where_it_was_set() -> None:
    assert cloaca.DefaultRunnerConfig().context_bytes_max == 16_777_216
    assert "context_bytes_max" not in cloaca.DefaultRunnerConfig().to_dict()
    assert cloaca.DefaultRunnerConfig(context_bytes_max=5).to_dict()["context_bytes_max"] == 5
    for wrong in (0, -1, 1.5, "16 MiB", True):
        with pytest.raises(cloaca.ConfigError, match="context_bytes_max"):
            cloaca.DefaultRunnerConfig(context_bytes_max=wrong)  # type: ignore[arg-type]
