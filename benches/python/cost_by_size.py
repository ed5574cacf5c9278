"""What single calls cost beside more and more runs and triggers: a cost that grows is seen here first."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from common import (
    Figures,
    declare,
    folder_on_disk,
    resident_bytes,
    run_contestant,
    skip_bodies,
    wait_until,
)
from workflows import CONTEXT, declare_one, runner_on

import cloaca

RUNS_AT_ONCE = 1_000
CALLS = 30
OPENINGS = 5
#: So many declarations of triggers that are known show what each leaves behind.
DECLARED_AGAIN = 9_000
#: Nobody is polled while calls are timed.
INTERVAL_S = 86_400.0


def run_cloaca(size: int) -> Figures:
    """Calls beside so many final runs, and then so many triggers."""
    declare_one()
    with folder_on_disk() as folder:
        path = Path(folder) / "runs.db"
        runner = runner_on(path, "normal")
        figures = _beside_runs(runner, size) | _beside_triggers(runner, size)
        figures["declare_all_again_ms"] = _once(lambda: declare(skip_bodies(size), INTERVAL_S))
        before = resident_bytes()
        _once(lambda: [declare(skip_bodies(CALLS), INTERVAL_S) for _ in range(DECLARED_AGAIN // CALLS)])
        figures["declared_again_bytes_each"] = (resident_bytes() - before) / DECLARED_AGAIN
        runner.shutdown()
        figures |= _load(path) | _forgetting(path, size)
    return figures


def _load(path: Path) -> Figures:
    """Opening a file with so many runs and triggers, until a first run is through."""
    took = []
    for _ in range(OPENINGS):
        began = time.perf_counter()
        runner = runner_on(path, "normal")
        runner.execute("one", CONTEXT)
        took.append((time.perf_counter() - began) * 1000)
        runner.shutdown()
    return {"load_ms": median(took)}


def _forgetting(path: Path, runs: int) -> Figures:
    """How long a thousand runs take to go by `retention`, and the longest that a lone run took beside it."""
    settings = cloaca.DefaultRunnerConfig(retention="1ms")
    longest = 0.0
    began = time.perf_counter()
    with cloaca.DefaultRunner.with_config(str(path), settings, durability="normal") as runner:
        while runner.query("SELECT count(*) AS n FROM runs WHERE row <= ?", [runs])[0]["n"]:
            each = time.perf_counter()
            runner.execute("one", CONTEXT)
            longest = max(longest, (time.perf_counter() - each) * 1000)
        took_ms = (time.perf_counter() - began) * 1000
    return {"prune_ms": took_ms / runs * 1000, "beside_prune_ms": longest}


def _beside_runs(runner: cloaca.DefaultRunner, runs: int) -> Figures:
    run_id = ""
    for start in range(0, runs, RUNS_AT_ONCE):
        run_id = runner.submit_many("one", [CONTEXT] * min(RUNS_AT_ONCE, runs - start))[0].id
    wait_until(lambda: runner.stats()["runs_unfinished"] == 0)
    return {
        "list_ms": _cost(lambda _: runner.list_runs()),
        "list_bare_ms": _cost(lambda _: runner.list_runs(contexts=False)),
        "list_none_ms": _cost(lambda _: runner.list_runs(workflow="other")),
        "get_run_ms": _cost(lambda _: runner.get_run(run_id)),
        "run_ms": _cost(lambda _: runner.execute("one", CONTEXT)),
    }


def _beside_triggers(runner: cloaca.DefaultRunner, triggers: int) -> Figures:
    declare(skip_bodies(triggers), INTERVAL_S)
    last = f"trigger-{triggers - 1}"
    wait_until(lambda: runner.get_trigger_schedule(last) is not None)
    again = skip_bodies(CALLS)
    return {
        "why_ms": _cost(lambda call: runner.why(f"trigger-{call}")),
        "tick_ms": _cost(lambda call: runner.tick(f"trigger-{call}")),
        "list_triggers_ms": _cost(lambda _: runner.list_trigger_schedules()),
        "list_all_triggers_ms": _once(lambda: runner.list_trigger_schedules(limit=triggers)),
        "declare_again_ms": _cost(lambda call: _declare_again(call, again)),
    }


def _declare_again(number: int, bodies: list[Callable[[], cloaca.TriggerResult]]) -> None:
    cloaca.trigger(name=f"trigger-{number}", poll_interval=INTERVAL_S)(bodies[number])


def _once(call: Callable[[], object]) -> float:
    """What a single call takes, in milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _cost(call: Callable[[int], object]) -> float:
    """The median of some calls, in milliseconds."""
    took = []
    for number in range(CALLS):
        began = time.perf_counter()
        call(number)
        took.append((time.perf_counter() - began) * 1000)
    return median(took)


if __name__ == "__main__":
    run_contestant({"cloaca": run_cloaca}, size=int)
