"""`cloaca.testing`: what a test of one's own trigger needs."""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import cloaca
import cloaca.testing


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
