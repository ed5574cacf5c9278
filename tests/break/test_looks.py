"""What somebody asks while the server is frozen: it takes what is asked, and answers nothing."""

from __future__ import annotations

from time import monotonic

import postgres
import pytest

import cloaca

PATIENCE = 30.0
LOOK = 15.0
"""One look takes 10 s at most, and what asked four times took four times as long as each, 32 s."""


@pytest.fixture
def url(way: postgres.Way, database: str) -> str:
    return way.url(database)


def test_a_question_of_many_looks_waits_for_a_frozen_server_as_long_as_one(
    way: postgres.Way, url: str
) -> None:
    with cloaca.WorkflowBuilder("work"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(url) as runner:
        run = runner.submit("work")
        run.result(PATIENCE)
        with way.cut():
            began = monotonic()
            with pytest.raises(cloaca.StoreError, match="answer"):
                runner.why_run(run.id)
            assert monotonic() - began < LOOK


def test_a_wait_that_begins_while_the_server_is_frozen_ends_in_its_time(way: postgres.Way, url: str) -> None:
    with cloaca.WorkflowBuilder("work"):
        cloaca.task(id="only")(lambda context: None)
    with cloaca.DefaultRunner(url) as runner, cloaca.DefaultRunner(url, work=False) as client:
        over = runner.execute("work")
        [row] = runner.list_runs()
        found = client.run(row["id"])
        with way.cut():
            with pytest.raises(TimeoutError):
                found.result(1.0)
            with pytest.raises(TimeoutError):
                found.result(0.0)
        assert found.result(PATIENCE).status == over.status
