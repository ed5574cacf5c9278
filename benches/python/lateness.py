"""How late polls begin, what share of a core that costs, and what is left to a busy main thread.

Each body notes when it is called. It was due at the first beat of its trigger's grid that came after its last
call. For the hand-written loops the grid is known; cloaca is asked when each trigger is due next, as
`runner.why` tells it, and its own mean lateness has to agree with what is found.
"""

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from common import Body, Figures, declare, percentile, run_contestant, wait_until
from loops import due_of, heap_loop, timer_loop
from workflows import declare_burns

import cloaca

NOTES_BITS = 22
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How often each trigger's due time is asked for, and how close two looks at clocks have to be.
ASKED, AT_ONCE_NS = 3, 3_000
#: So many processes burn a core each, where any do.
BURNING = 4
#: By so much, and that share of it, the mean that is found may differ from the one that the engine counts.
MEAN_OFF_MS, MEAN_OFF = 0.01, 0.05
#: Of fewer polls, those at the ends of the window, which only one of the two means counts, decide.
POLLS_MIN = 10_000


class Notes:
    """When bodies were called, in a ring without allocation; the newest 4 million stay."""

    def __init__(self, triggers: int) -> None:
        self.at = array("q", bytes(8 << NOTES_BITS))
        self.who = array("i", bytes(4 << NOTES_BITS))
        self.order = itertools.count()
        self.bodies = [self._body(number) for number in range(triggers)]

    def _body(self, number: int) -> Body:
        at, who, order, now, last = self.at, self.who, self.order, time.perf_counter_ns, len(self.at) - 1

        def body():
            note = next(order) & last
            at[note] = now()
            who[note] = number
            return cloaca.TriggerResult.skip()

        return body

    def figures(self, grids: list[int], interval_ns: int, window: tuple[int, int]) -> Figures:
        """What the notes of that window say."""
        late, lost = [], 0
        last_beat = [-1] * len(grids)
        count = next(self.order)
        size = len(self.at)
        for note in range(max(0, count - size), count):
            at, who = self.at[note % size], self.who[note % size]
            if at > window[1]:
                break
            # A due time is known to some microseconds: what seems early belongs to the beat after.
            beat = (at - grids[who] + interval_ns // 10) // interval_ns
            if at >= window[0] and last_beat[who] >= 0:
                late.append(at - grids[who] - (last_beat[who] + 1) * interval_ns)
                lost += beat - last_beat[who] - 1
            last_beat[who] = beat
        late.sort()
        at_ms = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
        figures = {name: percentile(late, share) / 1e6 for name, share in at_ms.items()}
        return figures | {"mean_ms": sum(late) / len(late) / 1e6, "polls": len(late), "lost": lost}


def run_cloaca(
    triggers: int,
    interval_ms: float,
    seconds: float,
    busy: int,
    resolution_ms: float,
    nice: int | None = None,
) -> Figures:
    """A runner with these triggers; with `nice` beside tasks that burn four processes, as nice as that."""
    speed_alone = _work(min(1.0, seconds)) if busy else 0.0
    notes = Notes(triggers)
    interval_ns = int(interval_ms * 1e6)
    pool = None if nice is None else cloaca.ProcessExecutor(max_workers=BURNING, nice=nice)
    executors = {"cpu": pool} if pool else None
    with (
        pool or contextlib.nullcontext(),
        cloaca.DefaultRunner(
            ":memory:", timer_resolution=resolution_ms / 1000, executors=executors
        ) as runner,
    ):
        declare(notes.bodies, interval_ms / 1000)
        wait_until(lambda: runner.stats()["polls"] > 3 * triggers)
        wait_until(lambda: len(runner.query("SELECT 1 FROM schedules LIMIT 1 OFFSET ?", [triggers - 1])) > 0)
        grids = [_due_ns(runner, f"trigger-{number}", interval_ns) for number in range(triggers)]
        if pool:
            declare_burns()
            runner.submit_many("burns", [{"until": time.monotonic() + seconds + 3}] * BURNING)
            time.sleep(1)
        time.sleep(2 * interval_ms / 1000 + 0.2)
        before = runner.stats()
        figures, window = _watch(seconds, busy, speed_alone)
        after = runner.stats()
    figures |= notes.figures(grids, interval_ns, window)
    polls = after["polls"] - before["polls"]
    late_ms = after["polls"] * after["late_mean_ms"] - before["polls"] * before["late_mean_ms"]
    off_ms = abs(figures["mean_ms"] - late_ms / polls)
    # Beside others that want all cores, who looks comes late himself.
    is_sure = pool is None and figures["polls"] >= POLLS_MIN
    if is_sure and off_ms > MEAN_OFF_MS + MEAN_OFF * figures["mean_ms"]:
        sys.exit(f"the mean lateness found is off by {off_ms:.3f} ms: {figures}")
    return figures


def run_processes(
    triggers: int, interval_ms: float, seconds: float, busy: int, resolution_ms: float
) -> Figures:
    """The same beside four tasks in a `ProcessExecutor` that each want a core to themselves."""
    return run_cloaca(triggers, interval_ms, seconds, busy, resolution_ms, nice=0)


def run_nice(triggers: int, interval_ms: float, seconds: float, busy: int, resolution_ms: float) -> Figures:
    """The same with `ProcessExecutor(nice=10)`."""
    return run_cloaca(triggers, interval_ms, seconds, busy, resolution_ms, nice=10)


def run_hogs(triggers: int, interval_ms: float, seconds: float, busy: int, resolution_ms: float) -> Figures:
    """The loop over `heapq` beside four processes that do the same and nobody else's."""
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BURNING)]
    try:
        return run_heapq(triggers, interval_ms, seconds, busy, resolution_ms)
    finally:
        for process in burning:
            process.kill()
            process.wait()


def _due_ns(runner: cloaca.DefaultRunner, trigger: str, interval_ns: int) -> int:
    """When a trigger is due, on the clock of the notes.

    Whoever is interrupted between two looks at a clock is told too late a time, so that the earliest of a few
    answers counts. One that is due this moment may be overdue, and nobody tells by how much.
    """
    half = interval_ns // 2
    first, *more = (_told_due_ns(runner, trigger, interval_ns // 4) for _ in range(ASKED))
    return first + min(0, *((due - first + half) % interval_ns - half for due in more))


def _told_due_ns(runner: cloaca.DefaultRunner, trigger: str, ahead_ns: int) -> int:
    while True:
        due = runner._engine.polls.standing(trigger)["standing"]["next_poll_at"]
        before_ns, wall_ns, after_ns = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
        if due is None or after_ns - before_ns > AT_ONCE_NS:
            continue
        left_ns = (datetime.fromisoformat(due) - EPOCH) // timedelta(microseconds=1) * 1000 - wall_ns
        if left_ns > ahead_ns:
            return after_ns + left_ns


def run_heapq(triggers: int, interval_ms: float, seconds: float, busy: int, resolution_ms: float) -> Figures:
    """A hand-written loop over `heapq`, which knows no resolution."""
    return _loop(heap_loop, triggers, interval_ms, seconds, busy)


def run_call_later(
    triggers: int, interval_ms: float, seconds: float, busy: int, resolution_ms: float
) -> Figures:
    """asyncio's timers, which know none either."""
    return _loop(timer_loop, triggers, interval_ms, seconds, busy)


def _loop(loop: Callable[..., int], triggers: int, interval_ms: float, seconds: float, busy: int) -> Figures:
    speed_alone = _work(min(1.0, seconds)) if busy else 0.0
    notes = Notes(triggers)
    interval_ns = int(interval_ms * 1e6)
    start_ns = time.perf_counter_ns()
    settle_s = 2 * interval_ms / 1000 + 0.2
    until_ns = start_ns + int((2 * settle_s + seconds) * 1e9)
    thread = threading.Thread(target=loop, args=(notes.bodies, interval_ns, start_ns, until_ns))
    thread.start()
    time.sleep(settle_s)
    figures, window = _watch(seconds, busy, speed_alone)
    thread.join()
    grids = [due_of(number, triggers, interval_ns, start_ns) for number in range(triggers)]
    return figures | notes.figures(grids, interval_ns, window)


def _watch(seconds: float, busy: int, speed_alone: float) -> tuple[Figures, tuple[int, int]]:
    """Lets time pass, idle or busy, and says what that cost the other threads, and when it was."""
    cpu, own_cpu, from_ns = time.process_time(), time.thread_time(), time.perf_counter_ns()
    speed = _work(seconds) if busy else time.sleep(seconds)
    until_ns = time.perf_counter_ns()
    cpu, own_cpu = time.process_time() - cpu, time.thread_time() - own_cpu
    figures = {"core": (cpu - own_cpu) / (until_ns - from_ns) * 1e9}
    if speed is not None:
        figures["main_kept"] = speed / speed_alone
    return figures, (from_ns, until_ns)


def _work(seconds: float) -> float:
    """Pure Python without a pause; returns how much of it a second."""
    began = time.perf_counter()
    rounds = total = 0
    while time.perf_counter() - began < seconds:
        for number in range(1000):
            total += number & 7
        rounds += 1
    return rounds / (time.perf_counter() - began)


if __name__ == "__main__":
    run_contestant(
        {
            "cloaca": run_cloaca,
            "processes": run_processes,
            "nice": run_nice,
            "heapq": run_heapq,
            "heapq-hogs": run_hogs,
            "call_later": run_call_later,
        },
        triggers=int,
        interval_ms=float,
        seconds=float,
        busy=int,
        resolution_ms=float,
    )
