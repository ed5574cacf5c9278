"""SIGKILL while the moments of a cron are back-filled: the same call once more goes on, and each moment has
its runs once, however often the program dies before they are over."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import cloaca

LIVES = int(os.environ.get("CLOACA_BACKFILL_KILLS", "8"))
"""So many processes are killed with each kind of cron; `make torture` asks for 200."""
SEED = int(os.environ.get("CLOACA_SEED", str(time.time_ns() % 10**9)))
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = 60
"""So many days are back-filled."""
SECONDS = 60.0

PROGRAM = """
import os
import random
import sys
import threading
import time

import cloaca

store, out, kind, last, seed = sys.argv[1:]
chance = random.Random(int(seed))
left = chance.randrange(1, 14)
points = ["called", "returns", "runs"] if kind == "function" else ["asked", "runs"]
point = chance.choice(points) if int(seed) else None

def reached(here):
    # Dies here, or a moment later, when what was decided is on its way to the store.
    global left
    if here != point:
        return
    left -= 1
    if left <= 0:
        threading.Thread(target=die, args=(chance.uniform(0, 0.004),), daemon=True).start()

def die(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), 9)

with cloaca.WorkflowBuilder("total"):
    @cloaca.task(id="only")
    def only(context):
        reached("runs")
        with open(out, "a") as told:
            told.write(f"{context['scheduled_time'][:10]}\\n")

terms = {"overlap": "queue"} if kind == "line" else {}
if kind == "function":
    @cloaca.trigger(name="daily", workflow="total", cron="0 0 * * *")
    def daily(tick):
        reached("called")
        day = tick.scheduled_at[8:10]
        # A tenth of the days has nothing to do, and a tenth starts two runs.
        if day.endswith("7"):
            return cloaca.TriggerResult.skip("nothing")
        fires = [{"part": part} for part in range(2 if day.endswith("3") else 1)]
        reached("returns")
        return [cloaca.TriggerResult.fire(fire) for fire in fires]
else:
    @cloaca.trigger(name="daily", workflow="total", cron="0 0 * * *", **terms)
    def daily(): ...

with cloaca.DefaultRunner(store) as runner:
    if point == "asked":
        left = 1
        reached("asked")
    runs = runner.backfill("daily", "2026-01-01T00:00:00Z", last)
    for run in runs:
        assert run.result().status == "Completed"
    print(len(runs))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.mark.timeout(120 + 4 * LIVES)
@pytest.mark.parametrize("kind", ["function", "plain", "line"])
def test_whoever_dies_amidst_a_back_fill_each_moment_is_run_once(
    store: str, kind: str, tmp_path: Path
) -> None:
    chance = random.Random(f"{SEED} {kind}")
    out, last = tmp_path / "told", (FIRST + timedelta(days=MOMENTS)).isoformat()
    out.touch()

    def live(seed: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, store, str(out), kind, last, str(seed)]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)

    kills = 0
    for _ in range(LIVES):
        ended = live(chance.randrange(1, 10**9))
        assert ended.returncode in (0, -9), f"CLOACA_SEED={SEED}: {ended.stderr}"
        kills += ended.returncode == -9
    ended = live(0)
    assert ended.returncode == 0, f"CLOACA_SEED={SEED}: {ended.stderr}"
    days = [(FIRST + timedelta(days=number)).date().isoformat() for number in range(MOMENTS)]
    wanted = Counter(days)
    if kind == "function":
        wanted = Counter({day: 0 if day.endswith("7") else 2 if day.endswith("3") else 1 for day in days})
    with cloaca.DefaultRunner(store, work=False) as client:
        rows = list(client.iter_runs(workflow="total"))
        found = Counter(str((row["context"] or {})["scheduled_time"])[:10] for row in rows)
    assert +found == +wanted, f"CLOACA_SEED={SEED}"
    assert {row["status"] for row in rows} == {"Completed"}, f"CLOACA_SEED={SEED}"
    assert int(ended.stdout) == wanted.total(), f"CLOACA_SEED={SEED}: it returns each run"
    done = Counter(out.read_text().split())
    assert done.keys() == (+wanted).keys(), f"CLOACA_SEED={SEED}"
    assert kills > 0, f"CLOACA_SEED={SEED}: nobody died"
    print(f"\n{kills} of {LIVES} killed ({kind}): {done.total()} calls of bodies for {len(rows)} runs")
