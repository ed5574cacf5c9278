"""Every example, run as its reader would run it: as a program of its own, in a folder of its own.

Those of release 0.1.0 run unchanged.
"""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FIRST_RELEASE = Path(__file__).with_name("first_release")
SECONDS_MAX = 60
BOTH = pytest.mark.parametrize("folder", [EXAMPLES, FIRST_RELEASE], ids=["now", "first release"])


def run(name: str, cwd: Path, *arguments: str, folder: Path = EXAMPLES) -> list[str]:
    """The lines that the example prints; fails unless it ends by itself with exit code 0."""
    done = subprocess.run(
        [sys.executable, str(folder / name), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


TUTORIAL = """\
checking stock.csv
[SUCCESS] Task 'validate_file' completed
working on stock.csv, valid: True
[SUCCESS] Task 'process_file' completed
Workflow status: Completed
call 1: SKIP
call 2: SKIP
call 3: SKIP
call 4: SKIP
call 5: FIRE
call 6: SKIP
call 7: SKIP
"""


@BOTH
def test_the_tutorial_prints_what_it_says_in_that_order(tmp_path: Path, folder: Path) -> None:
    assert run("event_triggers_demo.py", tmp_path, folder=folder) == TUTORIAL.splitlines()


@BOTH
def test_the_inbox_watcher_processes_each_file_once(tmp_path: Path, folder: Path) -> None:
    lines = run("inbox_watcher.py", tmp_path, "--folder", str(tmp_path), "--files", "4", folder=folder)
    processed = [line for line in lines if line.startswith("processed ")]
    assert sorted(processed) == [
        "processed letter-1.txt: 1 lines",
        "processed letter-2.txt: 2 lines",
        "processed letter-3.txt: 3 lines",
        "processed letter-4.txt: 4 lines",
    ]
    history = lines[lines.index("history, oldest first:") + 1 :][:4]
    assert sorted(line.split()[1:] for line in history) == [
        [f"letter-{number}.txt", "Completed"] for number in (1, 2, 3, 4)
    ]
    assert lines[-1] == "4 files dropped, 4 runs, each file once: True"
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == [
        f"letter-{number}.txt" for number in (1, 2, 3, 4)
    ]
    assert list((tmp_path / "inbox").iterdir()) == []


@BOTH
def test_a_queue_is_worked_off_by_runs_that_overlap(tmp_path: Path, folder: Path) -> None:
    assert run("queue_depth.py", tmp_path, folder=folder) == [
        "jobs done: 20",
        "each once: True",
        "runs with equal contexts overlapped: True",
    ]


@BOTH
def test_an_order_reported_many_times_is_shipped_once(tmp_path: Path, folder: Path) -> None:
    orders = ["A-1001", "A-1002", "A-1003"]
    assert run("order_deduplication.py", tmp_path, folder=folder) == [
        *(f"shipped {order}" for order in orders),
        *(f"{order}: reported at least 3 times, shipped 1 time" for order in orders),
    ]


@BOTH
def test_a_failure_alerts_once_and_is_cleaned_up_after(tmp_path: Path, folder: Path) -> None:
    lines = run("alerts_and_cleanup.py", tmp_path, folder=folder)
    # The log is written beside the run, so only the order of the other lines is promised.
    assert lines.count("[LOG] cloaca.callback") == 1
    lines.remove("[LOG] cloaca.callback")
    assert lines == [
        "downloaded",
        "[ALERT] parse: ValueError: line 2 has no price (after 3 attempts)",
        "cleaned up",
        "[PAGER] clean_up",
        "status: Failed",
        "names the task: True",
        "left behind: False",
    ]


def test_a_shop_delivers_each_message_in_order_through_two_kills(tmp_path: Path) -> None:
    assert run("outbox.py", tmp_path) == ["30 orders, 30 messages", "in order: True"]


def test_a_site_is_watched_through_kills(tmp_path: Path) -> None:
    assert run("uptime.py", tmp_path) == ["told: down, up, down, up"]


def test_feeds_are_read_through_two_kills(tmp_path: Path) -> None:
    assert run("feeds.py", tmp_path) == ["60 items"]


def test_days_are_filled_in_through_two_kills_and_some_done_again(tmp_path: Path) -> None:
    assert run("backfill.py", tmp_path) == ["32 days, right: True", "corrected: [1100, 1100, 1100, 103]"]


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text()
    missing = [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in tested]
    if missing:
        pytest.fail(f"no test runs {', '.join(missing)}")
