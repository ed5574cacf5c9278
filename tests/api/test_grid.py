"""Due times outlive who polls: a trigger is polled also by processes that live for less than its interval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import Dated

import cloaca
from cloaca import registry


class Watched:
    """A program with one trigger that lives again and again over one file."""

    def __init__(self, folder: Path, **arguments: Any) -> None:
        self.url = str(folder / "a.db")
        self.arguments = {"poll_interval": "1h", **arguments}
        self.polls: list[str] = []
        self.answer: Any = False

    def live(self, start: str, *spans: str | Callable[[Dated], None]) -> list[str]:
        """Runs from `start` on for each of the spans, or what is done then; returns when the trigger was
        polled in this life."""
        registry.clear()
        self.polls = []
        runners: list[Dated] = []
        with cloaca.WorkflowBuilder("mail"):
            cloaca.task(id="only")(lambda context: None)

        @cloaca.trigger(workflow="mail", name="inbox", **self.arguments)
        def inbox() -> Any:
            # Its first poll may come while the runner is made.
            self.polls.append(runners[-1].now if runners else f"{start[:-1]}.000000Z")
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        with Dated(self.url, start) as runner:
            runners.append(runner)
            for span in spans:
                if isinstance(span, str):
                    runner.advance(span)
                else:
                    span(runner)
            self.why = runner.why("inbox")
        return [poll[11:19] for poll in self.polls]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_process_that_lives_for_less_than_an_interval_polls_on_the_grid(watched: Watched) -> None:
    assert watched.live("2026-03-01T00:00:00Z", "40m") == []
    assert watched.live("2026-03-01T00:41:00Z", "40m") == ["01:00:00"]
    assert watched.live("2026-03-01T01:22:00Z", "40m") == ["02:00:00"]


def test_what_came_while_nobody_polled_is_made_up_for_once(watched: Watched) -> None:
    assert watched.live("2026-03-01T00:00:00Z", "40m") == []
    (made_up,) = watched.live("2026-03-01T05:15:00Z", "10s", "30m")
    assert "05:15:00" <= made_up <= "05:15:10"
    assert watched.live("2026-03-01T05:50:00Z", "40m") == ["06:00:00"]


def test_what_was_polled_is_not_polled_again(watched: Watched) -> None:
    assert watched.live("2026-03-01T00:00:00Z", "60m") == ["01:00:00"]
    assert watched.live("2026-03-01T01:00:01Z", "40m") == []


def test_making_up_goes_on_with_the_next_process_until_it_is_done(watched: Watched) -> None:
    assert watched.live("2026-03-01T00:00:00Z", "40m") == []
    for second in (0, 1, 2):
        assert watched.live(f"2026-03-01T01:15:0{second}Z", "500ms") == []
    assert len(watched.live("2026-03-01T01:16:00Z", "10s")) == 1


def test_triggers_that_were_missed_together_are_made_up_for_one_by_one(tmp_path: Path) -> None:
    url = str(tmp_path / "a.db")
    polls: list[str] = []

    def declare(count: int) -> None:
        registry.clear()
        for number in range(count):
            cloaca.trigger(name=f"t{number}", poll_interval="1h")(lambda: polls.append(runner.now))

    declare(16)
    with Dated(url, "2026-03-01T00:00:00Z") as runner:
        runner.advance("40m")
    declare(16)
    with Dated(url, "2026-03-01T12:15:00Z") as runner:
        runner.advance("10s")
    assert len(polls) == 16
    assert len({poll[:19] for poll in polls}) >= 8


def test_a_trigger_that_was_never_polled_waits_an_interval_or_is_polled_at_once(tmp_path: Path) -> None:
    at_once = Watched(tmp_path, poll_at_start=True)
    assert at_once.live("2026-03-01T00:00:00Z", "61m") == ["00:00:00", "01:00:00"]
    assert at_once.live("2026-03-01T01:10:00Z", "10m") == []


def test_a_wait_after_failures_goes_on_after_a_restart(tmp_path: Path) -> None:
    watched = Watched(tmp_path, on_error=cloaca.Backoff(base="3h", max="3h"))
    watched.answer = ValueError("no mail")
    assert watched.live("2026-03-01T00:00:00Z", "61m") == ["01:00:00"]
    watched.answer = False
    assert watched.live("2026-03-01T01:10:00Z", "1h") == []
    assert watched.live("2026-03-01T02:20:00Z", "1h", "1h") == ["04:00:00"]


def test_failures_in_a_row_go_on_after_a_restart(tmp_path: Path) -> None:
    watched = Watched(tmp_path, poll_interval="1m", on_error=cloaca.Backoff("1m", max="1h"))
    watched.answer = ValueError("no mail")
    assert watched.live("2026-03-01T00:00:00Z", "10m") == ["00:01:00", "00:02:00", "00:04:00", "00:08:00"]
    assert watched.live("2026-03-01T00:10:00Z", "1s") == []
    assert "until 2026-03-01T00:16:00.000000Z after 4 failed polls in a row" in watched.why
    assert watched.live("2026-03-01T00:11:00Z", "30m") == ["00:16:00", "00:32:00"]
    assert "after 6 failed polls in a row" in watched.why
    # It is polled long after, and goes well: that is kept, too.
    watched.answer = False
    assert watched.live("2026-03-01T02:00:30Z", "1m") == ["02:00:35", "02:01:00"]
    watched.answer = ValueError("no mail")
    assert watched.live("2026-03-01T02:01:40Z", "2m") == ["02:02:00", "02:03:00"]
    assert "after 2 failed polls in a row" in watched.why


def test_a_trigger_is_disabled_for_failures_of_all_its_processes(tmp_path: Path) -> None:
    watched = Watched(tmp_path, poll_interval="1m", on_error=cloaca.Backoff("1m", max="1m"))
    watched.arguments["max_consecutive_failures"] = 3
    watched.answer = ValueError("no mail")
    assert watched.live("2026-03-01T00:00:00Z", "2m10s") == ["00:01:00", "00:02:00"]
    assert watched.live("2026-03-01T00:02:20Z", "10m") == ["00:03:00"]
    assert "disabled it because 3 polls in a row failed" in watched.why


def test_a_wait_by_its_own_wish_goes_on_after_a_restart(watched: Watched) -> None:
    watched.answer = cloaca.RetryAfter("3h")
    assert watched.live("2026-03-01T00:00:00Z", "61m") == ["01:00:00"]
    watched.answer = False
    assert watched.live("2026-03-01T01:10:00Z", "1h") == []
    assert watched.why.startswith("trigger 'inbox' backs off until 2026-03-01T04:00:00"), watched.why
    assert "in an earlier runner" in watched.why
    assert watched.live("2026-03-01T02:20:00Z", "2h") == ["04:00:00"]


@pytest.mark.parametrize("answer", [ValueError("no mail"), cloaca.RetryAfter("3h")], ids=["failed", "wished"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("fires", [False, True], ids=["skips", "fires"])
def test_a_poll_out_of_turn_that_goes_well_ends_a_wait(
    tmp_path: Path, answer: Any, is_restarted: bool, fires: bool
) -> None:
    """Also on record, at once: a process that dies before it tells what was quiet takes no wait back."""
    watched = Watched(tmp_path, on_error=cloaca.Backoff(base="3h", max="3h"))
    watched.answer = answer

    def polled(runner: Dated) -> None:
        watched.answer = cloaca.TriggerResult.fire({"n": 1}) if fires else False
        assert runner.tick("inbox")["outcome"] == ("fire" if fires else "skip")
        # As whoever looks from outside, and as the next process finds it.
        (row,) = runner.query("SELECT failures, not_before FROM schedules")
        assert (row["failures"], row["not_before"]) == (0, None)
        assert "backs off" not in runner.why("inbox")

    if is_restarted:
        assert watched.live("2026-03-01T00:00:00Z", "61m") == ["01:00:00"]
        assert watched.live("2026-03-01T01:10:00Z", polled, "1h") == ["01:10:00", "02:00:00"]
    else:
        assert watched.live("2026-03-01T00:00:00Z", "61m", polled) == ["01:00:00", "01:01:00"]
    watched.answer = False
    assert watched.live("2026-03-01T02:10:00Z", "1h")[-1] == "03:00:00"


def test_a_wait_that_a_clock_ahead_began_is_no_longer_than_it_was_to_be(watched: Watched) -> None:
    watched.answer = cloaca.RetryAfter("3h")
    assert watched.live("2027-03-01T00:00:00Z", "61m") == ["01:00:00"]
    watched.answer = False
    assert watched.live("2026-03-01T01:10:00Z", "4h") == ["05:00:00"]


def test_a_clock_that_was_ahead_does_not_stop_polling(watched: Watched) -> None:
    assert watched.live("2027-03-01T00:00:00Z", "61m") == ["01:00:00"]
    assert watched.live("2026-03-01T00:10:00Z", "40m") == []
    assert watched.live("2026-03-01T00:51:00Z", "40m") == ["01:00:00"]
    (made_up,) = watched.live("2026-03-01T04:10:00Z", "10m")
    assert made_up <= "04:10:10"


def test_poll_at_start_is_a_bool_and_not_for_crons() -> None:
    wrong: Any = "yes"
    with pytest.raises(cloaca.TriggerError, match="poll_at_start is 'yes'"):
        cloaca.trigger(name="a", poll_at_start=wrong)
    with pytest.raises(cloaca.TriggerError, match="poll_at_start and cron"):
        cloaca.trigger(name="a", workflow="mail", cron="@daily", poll_at_start=True)
