"""The loops that people write by hand instead: over `heapq`, and over an event loop's timers.

Both poll at a fixed rate without drift, spread over the interval, and skip what they missed, as cloaca does.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Sequence

from common import Body


def heap_loop(bodies: Sequence[Body], interval_ns: int, start_ns: int, until_ns: int) -> int:
    """Polls until then; returns how often."""
    now_ns, sleep = time.perf_counter_ns, time.sleep
    heap = [(due_of(index, len(bodies), interval_ns, start_ns), index) for index in range(len(bodies))]
    heapq.heapify(heap)
    polls = 0
    while True:
        due, index = heap[0]
        now = now_ns()
        if now >= until_ns:
            return polls
        if due > now:
            sleep((min(due, until_ns) - now) / 1e9)
            continue
        bodies[index]()
        polls += 1
        due += interval_ns
        if due <= now:
            due += ((now - due) // interval_ns + 1) * interval_ns
        heapq.heapreplace(heap, (due, index))


def timer_loop(
    bodies: Sequence[Body],
    interval_ns: int,
    start_ns: int,
    until_ns: int,
    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> int:
    """The same over the timers of an event loop."""
    loop = make_loop()
    # Both are CLOCK_MONOTONIC on Linux; the difference is taken rather than believed.
    offset_ns = int(loop.time() * 1e9) - time.perf_counter_ns()
    interval = interval_ns / 1e9
    polls = 0

    def fire(index: int, due: float) -> None:
        nonlocal polls
        bodies[index]()
        polls += 1
        due += interval
        now = loop.time()
        if due <= now:
            due += ((now - due) // interval + 1) * interval
        loop.call_at(due, fire, index, due)

    for index in range(len(bodies)):
        due = (due_of(index, len(bodies), interval_ns, start_ns) + offset_ns) / 1e9
        loop.call_at(due, fire, index, due)
    loop.call_at((until_ns + offset_ns) / 1e9, loop.stop)
    loop.run_forever()
    loop.close()
    return polls


def due_of(index: int, count: int, interval_ns: int, start_ns: int) -> int:
    """When one of so many is due first."""
    return start_ns + interval_ns * index // count
