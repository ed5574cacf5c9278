"""A trigger with no company: nothing else wakes a poller for it."""

import asyncio
import threading
from time import sleep

import cloaca

WAIT = 30.0
POLLS = 5


def polled_often(body_starts: threading.Semaphore) -> bool:
    return all(body_starts.acquire(timeout=WAIT) for _ in range(POLLS))


def test_a_lone_trigger_slower_than_its_interval_goes_on_being_polled() -> None:
    starts = threading.Semaphore(0)

    @cloaca.trigger(poll_interval="5ms")
    def slow() -> cloaca.TriggerResult:
        starts.release()
        sleep(0.03)
        return cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(":memory:"):
        assert polled_often(starts)


def test_a_lone_trigger_that_awaits_goes_on_being_polled() -> None:
    starts = threading.Semaphore(0)

    @cloaca.trigger(poll_interval="1ms")
    async def awaiting() -> cloaca.TriggerResult:
        starts.release()
        await asyncio.sleep(0.005)
        return cloaca.TriggerResult.skip()

    with cloaca.DefaultRunner(":memory:"):
        assert polled_often(starts)


def test_a_lone_trigger_that_fires_goes_on_being_polled() -> None:
    starts = threading.Semaphore(0)

    with cloaca.WorkflowBuilder("noop"):

        @cloaca.task()
        def noop(context: cloaca.Context) -> None: ...

    @cloaca.trigger(workflow="noop", poll_interval="2ms", allow_concurrent=True)
    def firing() -> bool:
        starts.release()
        sleep(0.01)
        return True

    with cloaca.DefaultRunner(":memory:"):
        assert polled_often(starts)
