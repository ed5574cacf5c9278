"""Alerts in callbacks, and a task that cleans up when another one has failed.

Run it: python examples/alerts_and_cleanup.py
"""

import logging
import sys
import tempfile
from pathlib import Path

import cloaca

attempts = 0


class Printer(logging.Handler):
    """Prints which logger was told of something."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the logger's name."""
        print(f"[LOG] {record.name}", flush=True)


def alert(task_id: str, error: str, context: cloaca.Context) -> None:
    """Wake somebody. Called once, after the last attempt."""
    print(f"[ALERT] {task_id}: {error} (after {attempts} attempts)", flush=True)


def report_to_pager(task_id: str, context: cloaca.Context) -> None:
    """Fail, to show that a callback's own error stays in the log."""
    print(f"[PAGER] {task_id}", flush=True)
    raise ConnectionError("the pager does not answer")


with cloaca.WorkflowBuilder("price_import") as builder:
    builder.description("Imports a price list, and leaves nothing behind when that fails")

    @cloaca.task()
    def download(context: cloaca.Context) -> None:
        """Fetch a price list that turns out to be broken."""
        Path(context["path"]).write_text("apple;3\npear\n")
        print("downloaded", flush=True)

    @cloaca.task(
        dependencies=[download],
        retry_attempts=3,
        retry_backoff="fixed",
        retry_delay_ms=20,
        on_failure=alert,
    )
    def parse(context: cloaca.Context) -> None:
        """Read the prices."""
        global attempts
        attempts += 1
        for number, line in enumerate(Path(context["path"]).read_text().splitlines(), start=1):
            if ";" not in line:
                raise ValueError(f"line {number} has no price")

    @cloaca.task(dependencies=[parse])
    def publish(context: cloaca.Context) -> None:
        """Skipped: its dependency fails."""
        print("published", flush=True)

    @cloaca.task(
        dependencies=[parse],
        trigger_rules=cloaca.task_failed("parse"),
        on_success=report_to_pager,
    )
    def clean_up(context: cloaca.Context) -> None:
        """Remove what was downloaded. Runs only if `parse` failed."""
        Path(context["path"]).unlink(missing_ok=True)
        print("cleaned up", flush=True)


def main() -> int:
    """Run the import once."""
    callbacks = logging.getLogger("cloaca.callback")
    callbacks.addHandler(Printer())
    callbacks.propagate = False
    with tempfile.TemporaryDirectory() as folder, cloaca.DefaultRunner(":memory:") as runner:
        path = Path(folder) / "prices.csv"
        result = runner.execute("price_import", cloaca.Context({"path": str(path)}))
        print(f"status: {result.status}")
        print(f"names the task: {'parse' in (result.error_message or '')}")
        print(f"left behind: {path.exists()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
