"""Runs found by what they are, when they were and how they ended; all of them; and many changed at once."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from flow import Gate
from program import eventually

import cloaca
import cloaca.testing
from cloaca import _listings, row

WAIT = 20.0


def declare(name: str, body: Callable[[cloaca.Context], object], **settings: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(**{"id": "only", "retry_attempts": 1, **settings})(body)


def nothing(context: cloaca.Context) -> None:
    pass


def boom(context: cloaca.Context) -> None:
    if "kind" in context:
        raise {"os": OSError, "key": KeyError}[context["kind"]]("boom")


@pytest.fixture
def manual() -> Iterator[cloaca.testing.Runner]:
    """A runner whose clock stands still unless told."""
    with cloaca.testing.Runner() as runner:
        yield runner


def ids(found: Any) -> list[str]:
    return [run["id"] for run in found]


def hourly(runner: cloaca.testing.Runner, count: int) -> list[str]:
    """Runs of workflow `w`, an hour between two of them, oldest first."""
    made = []
    for _ in range(count):
        made.append(runner.submit("w").id)
        runner.run_until_idle()
        runner.advance("1h")
    return made


def test_runs_are_found_by_when_they_were_created(manual: cloaca.testing.Runner) -> None:
    declare("w", nothing)
    made = hourly(manual, 4)
    at = datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert ids(manual.list_runs(since=at)) == made[:0:-1]
    assert ids(manual.list_runs(until=at)) == made[:1]
    for spelt in (
        "2026-01-01T01:00:00Z",
        "2026-01-01T02:00:00+01:00",
        at.replace(tzinfo=None),
        at.astimezone(timezone(timedelta(hours=5))),
    ):
        assert ids(manual.list_runs(since=spelt, until=at + timedelta(hours=2))) == [made[2], made[1]]


HOUR_MS = 3_600_000


def test_runs_are_found_by_when_they_ended(manual: cloaca.testing.Runner) -> None:
    def slow(context: cloaca.Context) -> None:
        raise ValueError

    with cloaca.WorkflowBuilder("w"):
        cloaca.task(id="slow", retry_attempts=2, retry_delay_ms=HOUR_MS, retry_max_delay_ms=HOUR_MS)(slow)
    declare("quick", nothing)
    # It ends an hour after it was created, behind the other one.
    first = manual.submit("w").id
    second = manual.submit("quick").id
    manual.run_until_idle()
    manual.advance("2h")
    night = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    assert ids(manual.list_runs(status="Failed", since=night)) == []
    assert ids(manual.list_runs(status="Failed", ended_since=night)) == [first]
    assert ids(manual.list_runs(ended_until=night)) == [second]
    assert ids(manual.list_runs(ended_until="2027-01-01")) == [first, second]
    assert ids(list(manual.iter_runs(ended_since="2025-01-01"))) == [first, second]
    assert ids(manual.list_runs(ended_since="2025-01-01", after=first)) == [second]
    with pytest.raises(cloaca.ArgumentError, match="a listing goes by one of the two"):
        manual.list_runs(since=night, ended_until=night)
    assert manual.retry_many(ended_since=night) == [first]
    with pytest.raises(cloaca.WorkflowError, match="which is not over any more"):
        manual.list_runs(ended_since=night, after=first)


def test_a_run_is_found_by_the_time_that_it_shows(runner: cloaca.DefaultRunner) -> None:
    declare("w", nothing)
    for _ in range(50):
        runner.submit("w")
    for shown in runner.list_runs():
        after = datetime.fromisoformat(shown["created_at"]) + timedelta(microseconds=1)
        assert shown["id"] in ids(runner.list_runs(since=shown["created_at"], until=after))


def test_runs_are_found_by_a_triggers_function_and_by_the_workflow_itself(
    manual: cloaca.testing.Runner,
) -> None:
    with cloaca.WorkflowBuilder("fired") as builder:
        cloaca.task(id="only")(lambda context: None)
    flow = builder.build()
    declare("w", nothing)

    @cloaca.trigger(workflow=flow, poll_interval="1m")
    def minutely() -> bool:
        return True

    hourly(manual, 1)
    other = manual.submit("w").id
    fired = ids(manual.list_runs(trigger="minutely"))
    assert fired
    assert other not in fired
    assert ids(manual.list_runs(trigger=minutely)) == ids(manual.list_runs(workflow=flow)) == fired
    assert ids(manual.iter_runs(trigger=minutely, workflow=flow)) == fired
    with pytest.raises(cloaca.TriggerError, match="no trigger that is declared here"):
        manual.list_runs(trigger=hourly)


def test_runs_are_found_by_their_run_key(runner: cloaca.DefaultRunner) -> None:
    declare("w", nothing)
    first, second = (runner.submit("w", run_key=key) for key in ("a", "b"))
    runner.submit("w")
    assert ids(runner.list_runs(key="b")) == [second.id]
    assert ids(runner.list_runs("w", key="a")) == [first.id]
    assert runner.list_runs("other", key="a") == []
    assert runner.list_runs(key="c") == []


def test_runs_are_found_by_their_kind_of_error(runner: cloaca.DefaultRunner) -> None:
    declare("w", boom)
    os, key, fine = (runner.submit("w", context) for context in ({"kind": "os"}, {"kind": "key"}, {}))
    for run in (os, key, fine):
        run.result(WAIT)
    assert ids(runner.list_runs(error="OSError")) == [os.id]
    assert ids(runner.list_runs(error=KeyError)) == [key.id]
    assert ids(runner.list_runs(error=KeyError, status="Completed")) == []
    assert ids(runner.list_runs(status="Failed")) == [key.id, os.id]


def test_a_listing_goes_on_behind_a_run(runner: cloaca.DefaultRunner) -> None:
    declare("w", nothing)
    made = ids(reversed([{"id": run.id} for run in runner.submit_many("w", [{}] * 5)]))
    assert ids(runner.list_runs(after=made[1])) == made[2:]
    assert ids(runner.list_runs(after=made[1], limit=2)) == made[2:4]
    assert runner.list_runs(after=made[-1]) == []


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("since", "yesterday", cloaca.ArgumentError),
        ("until", 3, cloaca.ArgumentError),
        ("key", 3, TypeError),
        ("error", 3, TypeError),
        ("error", int, TypeError),
        ("after", "nonsense", cloaca.ArgumentError),
        ("after", "00000000-0000-7000-8000-000000000000", cloaca.WorkflowError),
        ("status", "Done", cloaca.WorkflowError),
        ("contexts", "no", TypeError),
    ],
)
def test_a_wrong_filter_is_named_at_once(
    runner: cloaca.DefaultRunner, argument: str, value: object, error: type[Exception]
) -> None:
    for listing in (runner.list_runs, runner.iter_runs):
        with pytest.raises(error, match=argument):
            listing(**{argument: value})  # type: ignore[arg-type]


def test_iter_runs_gives_all_runs_page_after_page(
    runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listings, "PAGE_RUNS", 3)
    declare("w", nothing)
    declare("other", nothing)
    made = [run.id for run in runner.submit_many("w", [{"n": n} for n in range(10)])][::-1]
    runner.submit("other").result(WAIT)
    found = list(runner.iter_runs("w"))
    assert ids(found) == made
    assert [run["context"]["n"] for run in found] == list(range(9, -1, -1))
    assert ids(runner.iter_runs("w", after=made[4], contexts=False)) == made[5:]
    assert "context" not in next(runner.iter_runs(contexts=False))


def test_iter_runs_misses_none_while_runs_come_and_go(
    runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listings, "PAGE_RUNS", 2)
    declare("w", nothing)
    made = [run.id for run in runner.submit_many("w", [{}] * 7)][::-1]
    found = []
    for run in runner.iter_runs():
        found.append(run["id"])
        runner.submit("w").result(WAIT)
    assert found == made


def test_iter_runs_of_what_is_not_over_goes_on_while_it_ends(
    manual: cloaca.testing.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listings, "PAGE_RUNS", 2)
    declare("w", boom, retry_attempts=2, retry_delay_ms=3_600_000)
    made = [run.id for run in manual.submit_many("w", [{"kind": "os"}] * 5)][::-1]
    manual.run_until_idle()
    found = []
    for run in manual.iter_runs(status="Running"):
        found.append(run["id"])
        manual.cancel(run["id"])
        manual.run_until_idle()
    assert found == made
    assert manual.list_runs(status="Running") == []


def test_contexts_are_decoded_when_they_are_looked_at(
    runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("w", nothing)
    runner.submit("w", {"n": 1}).result(WAIT)
    decoded: list[str] = []
    decode = row.decode_value

    def counted(text: str) -> Any:
        decoded.append(text)
        return decode(text)

    monkeypatch.setattr(row, "decode_value", counted)
    (found,) = runner.list_runs()
    assert (found["status"], len(found), "context" in found) == ("Completed", 19, True)
    assert decoded == []
    assert found["context"] == {"n": 1}
    assert found["context"] is found["context"]
    assert decoded == ['{"n":1}']


@pytest.mark.parametrize(
    "look",
    [
        dict,
        lambda found: {**found},
        lambda found: dict(found.items()),
        lambda found: dict(zip(found.keys(), found.values(), strict=True)),
        lambda found: found.copy(),
        copy.copy,
        copy.deepcopy,
        lambda found: found | {},
        lambda found: {} | found,
        lambda found: json.loads(json.dumps(found)),
        lambda found: pickle.loads(pickle.dumps(found)),
        lambda found: {key: found.get(key) for key in found},
        lambda found: {key: found.setdefault(key, 3) for key in found},
        lambda found: {key: found.pop(key) for key in list(found)},
        lambda found: dict([found.popitem() for _ in range(len(found))][::-1]),
        lambda found: eval(repr(found)),
        lambda found: found,
    ],
)
def test_a_row_is_as_good_as_a_dict(
    runner: cloaca.DefaultRunner, look: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    declare("w", nothing)
    runner.submit("w", {"n": [1]}).result(WAIT)
    looked_at, expected = runner.list_runs()[0], runner.list_runs()[0]
    seen = look(looked_at)
    assert seen["context"] == {"n": [1]}
    assert seen == expected
    assert expected == seen
    assert not seen != expected  # noqa: SIM202
    assert list(seen) == list(expected)


def test_get_run_lists_every_task_of_the_plan(runner: cloaca.DefaultRunner) -> None:
    entered, gate = threading.Event(), threading.Event()

    def wait(context: cloaca.Context) -> None:
        entered.set()
        assert gate.wait(WAIT)

    with cloaca.WorkflowBuilder("chain"):
        cloaca.task(id="last", dependencies=["middle"])(nothing)
        cloaca.task(id="middle", dependencies=["first"])(nothing)
        cloaca.task(id="first")(wait)
    run = runner.submit("chain")
    assert entered.wait(WAIT)
    found = runner.get_run(run.id)
    gate.set()
    assert found is not None
    tasks = found["tasks"]
    assert [(task["id"], task["status"], task["attempts"]) for task in tasks] == [
        ("first", "Running", 1),
        ("middle", "Pending", 0),
        ("last", "Pending", 0),
    ]
    assert list(tasks[1]) == list(tasks[0])
    assert tasks[1]["tries"] == []
    run.result(WAIT)
    found = runner.get_run(run.id)
    assert found is not None
    assert [task["status"] for task in found["tasks"]] == ["Completed"] * 3


def test_a_row_tells_that_its_end_was_asked_for(runner: cloaca.DefaultRunner) -> None:
    entered, gate = threading.Event(), threading.Event()

    def wait(context: cloaca.Context) -> None:
        entered.set()
        assert gate.wait(WAIT)

    declare("w", wait)
    run = runner.submit("w")
    assert entered.wait(WAIT)
    assert runner.list_runs()[0]["cancel_requested"] is False
    run.cancel()
    (found,) = runner.list_runs()
    gate.set()
    assert (found["status"], found["cancel_requested"]) == ("Running", True)
    assert run.result(WAIT).status == "Cancelled"


def test_stats_count_cancelled_runs_apart_from_failed_ones(manual: cloaca.testing.Runner) -> None:
    declare("w", boom, retry_attempts=2, retry_delay_ms=60_000)
    manual.submit("w", {"kind": "os"}).cancel()
    manual.submit("w", {"kind": "os"})
    manual.submit("w")
    manual.advance("1h")
    stats = manual.stats()
    counts = {name: stats[f"runs_{name}"] for name in ("completed", "failed", "cancelled", "unfinished")}
    assert counts == {"completed": 1, "failed": 1, "cancelled": 1, "unfinished": 0}


def test_retry_many_opens_what_failed_oldest_first(runner: cloaca.DefaultRunner) -> None:
    broken = [True]
    order: list[int] = []

    def body(context: cloaca.Context) -> None:
        if broken[0]:
            raise OSError("down")
        order.append(context["n"])

    declare("w", body)
    runs = runner.submit_many("w", [{"n": n} for n in range(4)])
    for run in runs:
        run.result(WAIT)
    declare("other", boom)
    runner.submit("other", {"kind": "key"}).result(WAIT)
    broken[0] = False
    assert runner.retry_many(error="OSError") == [run.id for run in runs]
    assert eventually(lambda: len(runner.list_runs("w", "Completed")) == 4)
    assert sorted(order) == [0, 1, 2, 3]
    assert runner.retry_many("w") == []
    assert [run["status"] for run in runner.list_runs("other")] == ["Failed"]


def test_retry_many_leaves_out_what_cannot_be_opened(
    runner: cloaca.DefaultRunner, caplog: pytest.LogCaptureFixture
) -> None:
    declare("w", boom)
    declare("gone", boom)
    lost = runner.submit("gone", {"kind": "os"})
    run = runner.submit("w", {"kind": "os"})
    assert (lost.result(WAIT).status, run.result(WAIT).status) == ("Failed", "Failed")
    cloaca.unregister_workflow("gone")
    with caplog.at_level(logging.WARNING, "cloaca"):
        assert runner.retry_many(status="Failed") == [run.id]
    assert "left 1 runs out" in caplog.text
    assert "gone" in caplog.text


def test_retry_many_opens_one_of_several_equal_runs_of_a_trigger(
    manual: cloaca.testing.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [True]

    def body(context: cloaca.Context) -> None:
        if broken[0]:
            raise OSError("down")

    declare("w", body)
    cloaca.trigger(workflow="w", name="inbox", poll_interval="1m")(lambda: bool(broken[0]))
    manual.advance("3m")
    broken[0] = False
    with caplog.at_level(logging.WARNING, "cloaca"):
        assert len(manual.retry_many(trigger="inbox")) == 1
    assert "left 2 runs out" in caplog.text
    assert "equal run of its trigger" in caplog.text
    manual.run_until_idle()
    assert [run["status"] for run in manual.list_runs("w")] == ["Failed", "Failed", "Completed"]


def test_more_runs_than_one_transaction_changes_are_changed_all(runner: cloaca.DefaultRunner) -> None:
    gate = Gate()
    declare("w", gate)
    runs = runner.submit_many("w", [{"n": n} for n in range(1_300)])
    assert gate.entered.wait(WAIT)
    assert set(runner.cancel_many("w")) == {run.id for run in runs}
    assert eventually(lambda: len(runner.list_runs("w", "Cancelled", limit=2000, contexts=False)) >= 1_296)
    gate.open.set()
    assert all(run.result(WAIT).status == "Cancelled" for run in runs)
    assert set(runner.retry_many("w", "Cancelled")) == {run.id for run in runs}
    assert eventually(lambda: len(runner.list_runs("w", "Completed", limit=2000, contexts=False)) == 1_300)


def test_retry_many_takes_cancelled_runs_only_if_asked(manual: cloaca.testing.Runner) -> None:
    declare("w", boom, retry_attempts=2, retry_delay_ms=60_000)
    run = manual.submit("w", {"kind": "os"})
    run.cancel()
    manual.run_until_idle()
    assert manual.retry_many("w") == []
    assert manual.retry_many("w", "Cancelled") == [run.id]


def test_cancel_many_ends_what_it_is_told(manual: cloaca.testing.Runner) -> None:
    declare("w", boom, retry_attempts=2, retry_delay_ms=3_600_000)
    declare("other", boom, retry_attempts=2, retry_delay_ms=3_600_000)
    runs = manual.submit_many("w", [{"kind": "os"}] * 3)
    other = manual.submit("other", {"kind": "os"})
    manual.run_until_idle()
    assert set(manual.cancel_many("w", limit=2)) == {runs[2].id, runs[1].id}
    assert manual.cancel_many(workflow="w", status="Running") == [runs[0].id]
    assert manual.cancel_many("w") == []
    manual.run_until_idle()
    assert [run["status"] for run in manual.list_runs("w")] == ["Cancelled"] * 3
    assert other.status == "Running"


def test_many_are_changed_only_by_a_filter(runner: cloaca.DefaultRunner) -> None:
    for change in (runner.retry_many, runner.cancel_many):
        with pytest.raises(cloaca.ArgumentError, match="needs a filter"):
            change()
        with pytest.raises(cloaca.ArgumentError, match="status is 'Completed'"):
            change(status="Completed")
    with pytest.raises(cloaca.ArgumentError, match="status is 'Failed'"):
        runner.cancel_many(status="Failed")


def test_iter_runs_ends_after_as_many_as_it_is_told(manual: cloaca.testing.Runner) -> None:
    declare("w", boom)
    ids = [run.id for run in manual.submit_many("w", [{"kind": "os"}] * 5)]
    manual.run_until_idle()
    for limit, many in ((0, 0), (3, 3), (9, 5), (None, 5)):
        assert [run["id"] for run in manual.iter_runs("w", limit=limit)] == ids[::-1][:many]
    with pytest.raises(cloaca.ArgumentError, match="limit is -1"):
        manual.iter_runs(limit=-1)


@pytest.mark.parametrize("method", ["list_runs", "iter_runs", "retry_many", "cancel_many"])
@pytest.mark.parametrize(
    ("wrong", "meant"), [("statsu", "status"), ("tigger", "trigger"), ("untill", "until")]
)
def test_a_misspelt_filter_is_told_which_was_meant(
    manual: cloaca.testing.Runner, method: str, wrong: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=rf"{method} got .*'{wrong}'; did you mean '{meant}'"):
        getattr(manual, method)(**{wrong: "x"})
