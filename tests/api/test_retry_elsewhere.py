"""A run that another runner opens again counts for `overlap` at once, and never runs beside its line."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from program import eventually

import cloaca

Overlap = Literal["skip", "queue", "buffer_one"]


class Works:
    """A workflow whose first run fails, and which notes how many of its bodies run at once."""

    def __enter__(self) -> Works:
        return self

    def __exit__(self, *_: object) -> None:
        # Runners end what is at work.
        self.go_on.set()

    def __init__(self, overlap: Overlap) -> None:
        self.fails = True
        self.go_on = threading.Event()
        self.began = self.running = self.most = 0
        lock = threading.Lock()

        with cloaca.WorkflowBuilder("w"):

            @cloaca.task(id="only", retry_attempts=1)
            def only(context: cloaca.Context) -> None:
                if self.fails:
                    raise ValueError("as asked")
                with lock:
                    self.began += 1
                    self.running += 1
                    self.most = max(self.most, self.running)
                self.go_on.wait(60)
                with lock:
                    self.running -= 1

        self.fired = 0

        @cloaca.trigger(workflow="w", name="fires", poll_interval="1h", overlap=overlap)
        def fires() -> cloaca.TriggerResult:
            self.fired += 1
            return cloaca.TriggerResult.fire({"n": self.fired})


def failed_first(polls: cloaca.DefaultRunner, works: Works) -> str:
    polls.tick("fires")
    assert eventually(lambda: [run["status"] for run in polls.list_runs()] == ["Failed"])
    works.fails = False
    return str(polls.list_runs()[0]["id"])


@pytest.mark.parametrize("overlap", ["queue", "buffer_one", "skip"])
@pytest.mark.parametrize("works_too", [True, False], ids=["worker", "client"])
def test_it_waits_for_what_the_one_who_polls_has_at_work(
    tmp_path: Path, overlap: Overlap, works_too: bool
) -> None:
    file = tmp_path / "runs.db"
    with cloaca.DefaultRunner(file) as polls, Works(overlap) as works:
        run = failed_first(polls, works)
        given: dict[str, Any] = {"triggers": []} if works_too else {"work": False}
        with cloaca.DefaultRunner(file, **given) as other:
            polls.tick("fires")
            assert eventually(lambda: works.began == 1)
            assert other.retry(run).id == run
            assert not eventually(lambda: works.began == 2, 0.7), "beside the run that was at work"
            works.go_on.set()
            assert other.run(run).result(60).status == "Completed"
        assert eventually(lambda: all(run["status"] == "Completed" for run in polls.list_runs()))
    assert (works.began, works.most) == (2, 1)


@pytest.mark.parametrize("overlap", ["queue", "buffer_one", "skip"])
def test_a_fire_right_after_it_is_held_against_it(tmp_path: Path, overlap: Overlap) -> None:
    file = tmp_path / "runs.db"
    with cloaca.DefaultRunner(file) as polls, Works(overlap) as works:
        run = failed_first(polls, works)
        with cloaca.DefaultRunner(file, triggers=[]) as other:
            other.retry(run)
            # With "skip" it is dropped, unless the other one is being claimed just then: then one waits.
            polls.tick("fires")
            assert eventually(lambda: works.began == 1)
            assert not eventually(lambda: works.began == 2, 0.7), "one of the two waits"
            works.go_on.set()
            assert other.run(run).result(60).status == "Completed"
        assert eventually(lambda: all(run["status"] == "Completed" for run in polls.list_runs()))
    assert works.most == 1
