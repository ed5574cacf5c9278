"""Watches a real folder: another process drops files, each is processed once, the history is printed.

Run it: python examples/inbox_watcher.py [--folder FOLDER] [--seconds SECONDS] [--files COUNT]

FOLDER gets `inbox/` (files arrive here), `done/` (processed ones) and `runs.db` (the runner's store). The
program ends when every file has been processed, with exit code 1 if that takes longer than SECONDS.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloaca


def declare(inbox: Path, done: Path) -> None:
    """Declare the workflow and the trigger that fires it."""
    with cloaca.WorkflowBuilder("ingest") as builder:
        builder.description("Counts a file's lines, then moves it out of the inbox")

        @cloaca.task()
        def count_lines(context: cloaca.Context) -> None:
            context["lines"] = len((inbox / context["file"]).read_text().splitlines())

        @cloaca.task(dependencies=[count_lines])
        def archive(context: cloaca.Context) -> None:
            # A task that was in flight when its process died runs again; the file may have been moved.
            arrived = inbox / context["file"]
            if arrived.exists():
                os.replace(arrived, done / context["file"])
            print(f"processed {context['file']}: {context['lines']} lines", flush=True)

    handed_over: set[str] = set()

    @cloaca.trigger(workflow="ingest", poll_interval="20ms", allow_concurrent=False)
    def inbox_watcher() -> cloaca.TriggerResult:
        # One file a poll, each reported once. After a restart this memory is empty, and the context hash
        # stands in: a file whose run is unfinished starts no second one.
        new = sorted(path.name for path in inbox.glob("*.txt") if path.name not in handed_over)
        if not new:
            return cloaca.TriggerResult.skip()
        handed_over.add(new[0])
        return cloaca.TriggerResult.fire(cloaca.Context({"file": new[0]}))


def drop_files(inbox: Path, count: int) -> None:
    """Drop files one after another, each complete from the moment that it shows under its name."""
    for number in range(1, count + 1):
        unfinished = inbox / f"letter-{number}.part"
        unfinished.write_text("dear reader\n" * number)
        unfinished.rename(inbox / f"letter-{number}.txt")
        time.sleep(0.15)


def watch(folder: Path, count: int, seconds: float) -> int:
    """Watch the folder until `count` files are through; the exit code."""
    inbox, done = folder / "inbox", folder / "done"
    inbox.mkdir(parents=True, exist_ok=True)
    done.mkdir(exist_ok=True)
    declare(inbox, done)

    with cloaca.DefaultRunner(str(folder / "runs.db")) as runner:
        print(f"watching {count} files arrive", flush=True)
        drop = [sys.executable, __file__, "--drop", str(inbox), "--files", str(count)]
        with subprocess.Popen(drop) as dropper:
            deadline = time.monotonic() + seconds
            while len(runner.list_runs(workflow="ingest", status="Completed", limit=count)) < count:
                if time.monotonic() > deadline:
                    dropper.kill()
                    print(f"not through after {seconds:g} s")
                    return 1
                time.sleep(0.05)

        print("\nhistory, oldest first:")
        runs = {run["id"]: run for run in runner.list_runs(workflow="ingest", limit=2 * count)}
        for fired in reversed(runner.get_trigger_execution_history("inbox_watcher", limit=2 * count)):
            run = runs[fired["workflow_execution_id"]]
            print(f"  {fired['started_at']}  {run['context']['file']}  {run['status']}")

        processed = sorted(run["context"]["file"] for run in runs.values())
        once = len(processed) == len(set(processed)) == count
        print(f"\n{count} files dropped, {len(processed)} runs, each file once: {once}")
        return 0 if once else 1


def main() -> int:
    """Read the arguments and be the watcher or the one that drops."""
    parser = argparse.ArgumentParser(description="Watch a folder and process each file that arrives, once.")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in (default: a temporary one)")
    parser.add_argument("--seconds", type=float, default=20.0, help="give up after so long (default: 20)")
    parser.add_argument("--files", type=int, default=6, help="how many files to drop (default: 6)")
    parser.add_argument("--drop", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drop:
        drop_files(arguments.drop, arguments.files)
        return 0
    if arguments.folder:
        return watch(arguments.folder, arguments.files, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        return watch(Path(folder), arguments.files, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
