"""A run that is opened again, by whichever process, counts for `overlap` at once, and not beside its line."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from program import eventually

import cloaca

Overlap = Literal["skip", "queue", "buffer_one", "cancel_running"]


class Works:
    """A workflow whose first run fails, and which notes how many of its bodies run at once."""

    def __init__(self, overlap: Overlap) -> None:
        self.fails = True
        self.go_on = threading.Event()
        self.began: list[int] = []
        self.running = self.most = self.fired = 0
        lock = threading.Lock()

        with cloaca.WorkflowBuilder("w"):

            @cloaca.task(id="only", retry_attempts=1)
            def only(context: cloaca.Context) -> None:
                if self.fails:
                    raise ValueError("as asked")
                with lock:
                    self.began.append(context["n"])
                    self.running += 1
                    self.most = max(self.most, self.running)
                self.go_on.wait(60)
                with lock:
                    self.running -= 1

        @cloaca.trigger(workflow="w", name="fires", poll_interval="1h", overlap=overlap)
        def fires() -> cloaca.TriggerResult:
            self.fired += 1
            return cloaca.TriggerResult.fire({"n": self.fired})

    def __enter__(self) -> Works:
        return self

    def __exit__(self, *_: object) -> None:
        # Runners end what is at work.
        self.go_on.set()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return str(tmp_path / "runs.db")


def failed_first(polls: cloaca.DefaultRunner, works: Works) -> str:
    polls.tick("fires")
    assert eventually(lambda: [run["status"] for run in polls.list_runs()] == ["Failed"])
    works.fails = False
    return str(polls.list_runs()[0]["id"])


@pytest.mark.parametrize("overlap", ["queue", "buffer_one", "skip", "cancel_running"])
@pytest.mark.parametrize("by", ["a worker", "a client", "who polls"])
def test_it_waits_for_what_is_at_work(store: str, overlap: Overlap, by: str) -> None:
    with cloaca.DefaultRunner(store) as polls, Works(overlap) as works:
        run = failed_first(polls, works)
        given: dict[str, Any] = {"work": False} if by == "a client" else {"triggers": []}
        with cloaca.DefaultRunner(store, **given) as other:
            polls.tick("fires")
            assert eventually(lambda: works.began == [2])
            opens = polls if by == "who polls" else other
            assert opens.retry(run).id == run
            assert not eventually(lambda: len(works.began) == 2, 0.5), "beside the run that was at work"
            # One behind the other waits, and is told so.
            assert "waits" in opens.why_run(run) or by == "a client"
            works.go_on.set()
            assert other.run(run).result(60).status == "Completed"
    assert (works.began, works.most) == ([2, 1], 1)


@pytest.mark.parametrize("overlap", ["queue", "buffer_one", "skip"])
def test_a_fire_right_after_it_is_held_against_it(store: str, overlap: Overlap) -> None:
    with cloaca.DefaultRunner(store) as polls, Works(overlap) as works:
        run = failed_first(polls, works)
        with cloaca.DefaultRunner(store, triggers=[]) as other:
            other.retry(run)
            polls.tick("fires")
            assert eventually(lambda: works.began == [1])
            if overlap == "skip":
                assert f"run {run} is unfinished" in (polls.ticks("fires")[0]["reason"] or "")
            assert not eventually(lambda: len(works.began) == 2, 0.5), "it waits, or is dropped"
            works.go_on.set()
            assert other.run(run).result(60).status == "Completed"
            statuses = lambda: {row["status"] for row in polls.list_runs()}  # noqa: E731
            assert eventually(lambda: statuses() == {"Completed"})
    assert works.began == ([1] if overlap == "skip" else [1, 2])
    assert works.most == 1


def test_of_a_limited_line_it_sits_once_those_before_it_are_over(store: str) -> None:
    with cloaca.DefaultRunner(store) as polls, Works("queue") as works:
        with cloaca.WorkflowBuilder("w", concurrency=cloaca.Concurrency(1)):

            @cloaca.task(id="only", retry_attempts=1)
            def only(context: cloaca.Context) -> None:
                if works.fails:
                    raise ValueError("as asked")
                works.began.append(context["n"])
                works.go_on.wait(60)

        run = failed_first(polls, works)
        with cloaca.DefaultRunner(store, triggers=[]) as other:
            for _ in range(2):
                polls.tick("fires")
            assert eventually(lambda: works.began == [2])
            other.retry(run)
            polls.tick("fires")
            works.go_on.set()
            assert other.run(run).result(60).status == "Completed"
            assert eventually(lambda: {row["status"] for row in polls.list_runs()} == {"Completed"})
    assert works.began == [2, 3, 1, 4]
