"""A transactional outbox: a shop writes each order and the message about it in one transaction, and a
trigger delivers every message in order, at least once, each with a key by which its receiver knows it again.

Run it: python examples/outbox.py
It kills the delivering program twice (kill -9) and starts it again. `python examples/outbox.py serve FOLDER
URL` is that program: it delivers what `FOLDER/shop.db` holds to URL until SIGTERM.
"""

import json
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

SCHEMA = """
    CREATE TABLE IF NOT EXISTS shop_order (id INTEGER PRIMARY KEY, article TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
"""


def place_order(shop: Path, article: str) -> None:
    """What the shop does: the order and the message are there together, or neither is."""
    with closing(sqlite3.connect(shop, timeout=30)) as connection, connection:
        connection.executescript(SCHEMA)
        number = connection.execute("INSERT INTO shop_order (article) VALUES (?)", (article,)).lastrowid
        message = json.dumps({"order": number, "article": article})
        connection.execute("INSERT INTO outbox (body) VALUES (?)", (message,))


def serve(folder: Path, url: str) -> None:
    """Deliver the messages until SIGTERM."""
    with cloaca.WorkflowBuilder("deliver") as builder:
        builder.description("Sends one message")

        @cloaca.task(retry_attempts=10, retry_delay_ms=100)
        def post(context: cloaca.Context) -> None:
            # An attempt that was cut off is made again: the receiver tells by the key what it has already.
            headers = {"Idempotency-Key": f"outbox-{context['id']}"}
            request = urllib.request.Request(url, context["body"].encode(), headers)
            with urllib.request.urlopen(request, timeout=10):
                pass

    # The cursor moves past a message when its run is kept. `queue`: one run after the other, in order.
    @cloaca.trigger(workflow="deliver", poll_interval="50ms", overlap="queue")
    def outbox(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
        # SQLite gives ids in the order of commits. Where a database doesn't (PostgreSQL, for one), a message
        # can come with an id below the cursor: there ask for unsent ones, with a run key each.
        query = "SELECT id, body FROM outbox WHERE id > ? ORDER BY id LIMIT 100"
        with closing(sqlite3.connect(folder / "shop.db", timeout=30)) as connection:
            found = connection.execute(query, (tick.cursor or 0,)).fetchall()
        return [cloaca.TriggerResult.fire({"id": id, "body": body}, cursor=id) for id, body in found]

    cloaca.DefaultRunner(folder / "runs.db").run_forever()


class Receiver(BaseHTTPRequestHandler):
    """Counts how often each message arrives."""

    arrivals: dict[str, int] = {}  # noqa: RUF012

    def do_POST(self) -> None:
        """Take a message."""
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        self.arrivals[key] = self.arrivals.get(key, 0) + 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> int:
    """Place orders, and kill the delivering program twice meanwhile."""
    orders = 30
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        for number in range(orders):
            place_order(Path(name) / "shop.db", f"article {number}")
        command = [sys.executable, __file__, "serve", name, f"http://127.0.0.1:{receiver.server_port}"]
        deadline = time.monotonic() + 30
        for enough in (5, 15, orders):
            with subprocess.Popen(command) as program:
                while len(Receiver.arrivals) < enough and time.monotonic() < deadline:
                    time.sleep(0.005)
                program.kill() if enough < orders else program.terminate()
    receiver.shutdown()
    print(f"{orders} orders, {len(Receiver.arrivals)} messages")
    print(f"in order: {list(Receiver.arrivals) == [f'outbox-{id}' for id in range(1, orders + 1)]}")
    return 0 if len(Receiver.arrivals) == orders else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main())
