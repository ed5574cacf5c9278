"""Run keys of runs that are submitted: who comes twice with one event gets one run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from program import eventually, run_program

import cloaca
import cloaca.testing


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def runner(seen: list[int]) -> Iterator[cloaca.testing.Runner]:
    for name in ("order", "other"):
        with cloaca.WorkflowBuilder(name):
            cloaca.task(id="t")(lambda context: seen.append(context["i"]))
    with cloaca.testing.Runner() as runner:
        yield runner


def test_the_same_key_gives_the_same_run(runner: cloaca.testing.Runner, seen: list[int]) -> None:
    first = runner.submit("order", {"i": 1, "x": [1.5, None]}, run_key="event-1")
    again = runner.submit("order", {"x": [1.5, None], "i": 1}, run_key="event-1")
    assert again.id == first.id
    assert first.result(20).status == again.result(20).status == "Completed"
    assert runner.submit("order", {"i": 1, "x": [1.5, None]}, run_key="event-1").id == first.id
    assert seen == [1]
    assert [run["run_key"] for run in runner.list_runs()] == ["event-1"]


def test_a_key_belongs_to_its_workflow(runner: cloaca.testing.Runner, seen: list[int]) -> None:
    ids = {
        runner.submit("order", {"i": 1}, run_key="e").id,
        runner.submit("other", {"i": 1}, run_key="e").id,
        runner.submit("order", {"i": 1}, run_key="f").id,
        runner.submit("order", {"i": 1}).id,
    }
    assert len(ids) == 4


def test_a_key_that_has_another_context_is_refused_and_names_the_run(runner: cloaca.testing.Runner) -> None:
    run = runner.submit("order", {"i": 1}, run_key="e")
    with pytest.raises(cloaca.ArgumentError, match=f"run_key 'e' has run {run.id} already"):
        runner.submit("order", {"i": 2}, run_key="e")
    assert len(runner.list_runs()) == 1


def test_a_run_that_failed_keeps_its_key(runner: cloaca.testing.Runner) -> None:
    with cloaca.WorkflowBuilder("fails"):
        cloaca.task(id="t", retry_attempts=1)(lambda context: 1 / 0)
    run = runner.submit("fails", run_key="e")
    assert run.result(20).status == "Failed"
    assert runner.submit("fails", run_key="e").status == "Failed"


def test_a_key_holds_for_its_time(runner: cloaca.testing.Runner) -> None:
    first = runner.submit("order", {"i": 1}, run_key="e", run_key_ttl=timedelta(days=7))
    month = runner.submit("order", {"i": 1}, run_key="f")
    runner.advance("6d")
    assert runner.submit("order", {"i": 1}, run_key="e").id == first.id
    runner.advance("2d")
    assert runner.submit("order", {"i": 1}, run_key="e").id != first.id
    assert runner.submit("order", {"i": 1}, run_key="f").id == month.id


def test_a_run_is_kept_as_long_as_its_key(tmp_path: Path) -> None:
    with cloaca.WorkflowBuilder("order"):
        cloaca.task(id="t")(lambda context: None)
    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        first = runner.submit("order", {"i": 1}, run_key="e")
        lone = runner.submit("order", {"i": 1})
        brief = runner.submit("order", {"i": 1}, run_key="brief", run_key_ttl="1ms")
        for run in (first, lone, brief):
            assert run.result(20).status == "Completed"
    config = cloaca.DefaultRunnerConfig(retention="1ms")
    with cloaca.DefaultRunner.with_config(str(tmp_path / "a.db"), config) as runner:
        assert eventually(lambda: len(runner.list_runs()) == 1)
        assert runner.submit("order", {"i": 1}, run_key="e").id == first.id
        assert runner.submit("order", {"i": 1}, run_key="brief").id != brief.id


def test_many_are_started_once_each(runner: cloaca.testing.Runner, seen: list[int]) -> None:
    contexts = [{"i": number} for number in range(4)]
    first = runner.submit_many("order", contexts, run_keys=["a", "b", None, None])
    again = runner.submit_many("order", [*contexts[:2], {"i": 1}], run_keys=["a", "b", None])
    assert [run.id for run in again[:2]] == [run.id for run in first[:2]]
    assert len({run.id for run in first + again}) == 5
    same = runner.submit_many("order", [{"i": 9}, {"i": 9}], run_keys=["same", "same"])
    assert same[0].id == same[1].id


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"run_key": ""}, "run_key is '', 0 characters"),
        ({"run_key": "x" * 1025}, "1025 characters"),
        ({"run_key": 3}, "run_key is 3"),
        ({"run_key": "a", "run_key_ttl": "soon"}, "run_key_ttl"),
    ],
)
def test_what_is_no_key_is_refused(
    runner: cloaca.testing.Runner, keywords: dict[str, object], text: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        runner.submit("order", {"i": 1}, **keywords)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 keys for 2 contexts"):
        runner.submit_many("order", [{}, {}], run_keys=["a"])
    assert runner.list_runs() == []


NOT_UTF8 = b"caf\xe9.csv".decode("utf-8", "surrogateescape")
WRITTEN_OUT = "caf\\udce9.csv"


def test_a_key_that_is_the_name_of_a_file_which_is_no_text_is_written_out(
    runner: cloaca.testing.Runner,
) -> None:
    first = runner.submit("order", {"i": 1}, run_key=NOT_UTF8)
    assert [runner.submit("order", {"i": 1}, run_key=key).id for key in (NOT_UTF8, WRITTEN_OUT)] == [
        first.id
    ] * 2
    assert runner.submit_many("order", [{"i": 1}], run_keys=[NOT_UTF8])[0].id == first.id
    assert [row["run_key"] for row in runner.list_runs(key=NOT_UTF8)] == [WRITTEN_OUT]


def test_a_poll_that_finds_such_a_file_fires_for_it_once() -> None:
    with cloaca.WorkflowBuilder("load"):
        cloaca.task(id="t")(lambda context: None)

    @cloaca.trigger(workflow="load", name="files", poll_interval="1m")
    def files() -> list[cloaca.TriggerResult]:
        fires = [
            cloaca.TriggerResult.fire({"n": n}, run_key=key) for n, key in enumerate(["a.csv", NOT_UTF8])
        ]
        return [*fires, cloaca.TriggerResult.fire({}, dedup_key=NOT_UTF8)]

    assert [fire.run_key for fire in files()] == ["a.csv", WRITTEN_OUT, None]
    assert files()[2].dedup_key == WRITTEN_OUT
    with cloaca.testing.Runner() as runner:
        runner.advance("3m")
        assert [tick["outcome"] for tick in runner.ticks("files")] == ["fire"]
        keys = [row["run_key"] for row in runner.list_runs() if row["run_key"] is not None]
        assert sorted(keys) == ["a.csv", WRITTEN_OUT]


@pytest.mark.parametrize("is_of_a_fire", [True, False])
def test_a_cursor_that_could_not_come_back_as_it_was_given_is_refused_and_the_old_one_stays(
    is_of_a_fire: bool,
) -> None:
    with cloaca.WorkflowBuilder("load"):
        cloaca.task(id="t")(lambda context: None)
    given = ["a.csv", NOT_UTF8]

    @cloaca.trigger(workflow="load", name="files", poll_interval="1m")
    def files(tick: cloaca.Tick) -> cloaca.TriggerResult:
        cursor = given.pop(0)
        if is_of_a_fire:
            return cloaca.TriggerResult.fire({"n": len(given)}, cursor=cursor)
        tick.cursor = cursor
        return cloaca.TriggerResult.skip()

    with cloaca.testing.Runner() as runner:
        runner.advance("2m")
        last = runner.ticks("files")[0]
        assert (last["outcome"], runner.cursor("files")) == ("error", "a.csv")
        assert "value at 'cursor': got 'caf\\udce9.csv', which holds a lone surrogate" in (
            last["reason"] or ""
        )


def test_many_threads_and_another_process_with_one_key_get_one_run(tmp_path: Path) -> None:
    seen: list[int] = []
    with cloaca.WorkflowBuilder("order"):
        cloaca.task(id="t")(lambda context: seen.append(1))
    together = threading.Barrier(8)

    def submit(_: int) -> str:
        together.wait(20)
        return runner.submit("order", {"i": 1}, run_key="e").id

    with cloaca.DefaultRunner(str(tmp_path / "a.db")) as runner:
        with ThreadPoolExecutor(8) as pool:
            ids = set(pool.map(submit, range(8)))
        assert len(ids) == 1
        program = """
        import sys
        import cloaca
        with cloaca.WorkflowBuilder("order"):
            cloaca.task(id="t")(lambda context: print("again"))
        with cloaca.DefaultRunner(sys.argv[1]) as runner:
            run = runner.submit("order", {"i": 1}, run_key="e")
            print(run.id, run.result(20).status)
        """
        done = run_program(program, tmp_path / "a.db")
        assert done.stdout == f"{ids.pop()} Completed\n"
    assert seen == [1]
