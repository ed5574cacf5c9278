"""Watches a site and tells when it goes down and when it is up again: each change once, also if the watching
program is killed in between, and not for one answer that got lost.

Run it: python examples/uptime.py
It runs a small site, and kills the watching program (kill -9) after each change. `python examples/uptime.py
serve FOLDER URL` is that program: it watches URL until SIGTERM, and writes changes to `FOLDER/alerts.db`.
"""

import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cloaca

MISSES = 2
"""So many checks in a row must fail before the site counts as down."""
SCHEMA = "CREATE TABLE IF NOT EXISTS alert (change INTEGER PRIMARY KEY, state TEXT NOT NULL)"


def is_answering(url: str) -> bool:
    """Whether the site answers, and not with an error."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:  # refused, timed out, a status of 400 and above
        return False


def serve(folder: Path, url: str) -> None:
    """Watch until SIGTERM."""
    alerts = folder / "alerts.db"

    with cloaca.WorkflowBuilder("tell") as builder:
        builder.description("Tells of one change")

        @cloaca.task()
        def alert(context: cloaca.Context) -> None:
            # An attempt that was cut off is made again; the number of the change makes one row of both.
            with closing(sqlite3.connect(alerts, timeout=30)) as connection, connection:
                connection.execute(SCHEMA)
                row = context["change"], context["state"]
                connection.execute("INSERT OR IGNORE INTO alert VALUES (?, ?)", row)

    # The cursor is what is known of the site. It and the run that tells of it are kept together.
    @cloaca.trigger(workflow="tell", poll_interval="20ms", overlap="queue")
    def site(tick: cloaca.Tick) -> cloaca.TriggerResult:
        known = tick.cursor or {"down": False, "misses": 0, "changes": 0}
        misses = 0 if is_answering(url) else min(known["misses"] + 1, MISSES)
        down = misses == MISSES
        if down == known["down"]:
            tick.cursor = known | {"misses": misses}
            return cloaca.TriggerResult.skip("down" if down else "up")
        change = known["changes"] + 1
        return cloaca.TriggerResult.fire(
            {"change": change, "state": "down" if down else "up"},
            cursor={"down": down, "misses": misses, "changes": change},
        )

    cloaca.DefaultRunner(folder / "runs.db").run_forever()


def told(folder: Path) -> list[str]:
    """What has been told so far."""
    with closing(sqlite3.connect(folder / "alerts.db", timeout=30)) as connection:
        connection.execute(SCHEMA)
        return [row[0] for row in connection.execute("SELECT state FROM alert ORDER BY change")]


class Site(BaseHTTPRequestHandler):
    """A site that can be broken."""

    status = 200

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> int:
    """Break the site twice, and kill the watching program after each change."""
    changes = ["down", "up", "down", "up"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "serve", name, f"http://127.0.0.1:{server.server_port}"]
        deadline = time.monotonic() + 30
        for number, state in enumerate(changes, start=1):
            Site.status = 503 if state == "down" else 200
            with subprocess.Popen(command) as program:
                while len(told(Path(name))) < number and time.monotonic() < deadline:
                    time.sleep(0.01)
                program.kill() if number < len(changes) else program.terminate()
        found = told(Path(name))
    server.shutdown()
    print("told:", ", ".join(found))
    return 0 if found == changes else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main())
