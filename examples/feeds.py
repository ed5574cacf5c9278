"""Reads RSS feeds and stores each item once: items come in any order, stay in the feed for days, and some
feeds don't answer.

Run it: python examples/feeds.py
It publishes two feeds, and kills the reading program twice (kill -9). `python examples/feeds.py serve FOLDER
URL...` is that program: it reads each URL until SIGTERM, keeps the items in `FOLDER/items.db`, and says in
`FOLDER/feeds.log` which feeds fail.
"""

import hashlib
import logging
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import cloaca

SCHEMA = "CREATE TABLE IF NOT EXISTS item (feed TEXT, guid TEXT, title TEXT, PRIMARY KEY (feed, guid))"


def declare(url: str) -> None:
    """One trigger for each feed: one that hangs or fails holds up no other."""

    @cloaca.trigger(
        workflow="keep_item",
        name=f"feed {url}",
        poll_interval="50ms",  # a real one: "15m", with jitter="10%"
        poll_timeout="30s",
        on_error=cloaca.Backoff("100ms", max="1h"),
    )
    def feed(tick: cloaca.Tick) -> list[cloaca.TriggerResult] | cloaca.TriggerResult:
        with urllib.request.urlopen(url, timeout=10) as answer:
            body = answer.read()
        digest = hashlib.sha256(body).hexdigest()
        if digest == tick.cursor:
            return cloaca.TriggerResult.skip("unchanged")
        tick.cursor = digest  # kept with the runs below, or not at all
        return [
            # The run key outlives the run: an item that is still in the feed starts no second one.
            cloaca.TriggerResult.fire(
                {"feed": url, "guid": item.findtext("guid"), "title": item.findtext("title")},
                run_key=item.findtext("guid"),
            )
            for item in ElementTree.fromstring(body).iter("item")
        ]


def serve(folder: Path, urls: list[str]) -> None:
    """Read the feeds until SIGTERM."""
    logging.basicConfig(filename=folder / "feeds.log", level=logging.INFO)
    items = folder / "items.db"

    with cloaca.WorkflowBuilder("keep_item") as builder:
        builder.description("Keeps one item")

        @cloaca.task()
        def keep(context: cloaca.Context) -> None:
            # An attempt that was cut off is made again; the key of the table makes one row of both.
            with closing(sqlite3.connect(items, timeout=30)) as connection, connection:
                connection.execute(SCHEMA)
                row = context["feed"], context["guid"], context["title"]
                connection.execute("INSERT OR IGNORE INTO item VALUES (?, ?, ?)", row)

    for url in urls:
        declare(url)
    cloaca.DefaultRunner(folder / "runs.db").run_forever()


def publish(path: Path, numbers: range) -> None:
    """Write a feed whose newest item comes first."""
    lines = [f"<item><guid>{path.stem}-{n}</guid><title>News {n}</title></item>" for n in reversed(numbers)]
    path.with_suffix(".new").write_text(f"<rss><channel>{''.join(lines)}</channel></rss>")
    path.with_suffix(".new").rename(path)


def kept(folder: Path) -> int:
    """How many items are kept."""
    with closing(sqlite3.connect(folder / "items.db", timeout=30)) as connection:
        connection.execute(SCHEMA)
        count: int = connection.execute("SELECT count(*) FROM item").fetchone()[0]
    return count


class Site(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def main() -> int:
    """Publish more and more, and kill the reading program twice meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=name))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}"
        urls = [f"{site}/{feed}.xml" for feed in ("world", "sport", "missing")]
        deadline = time.monotonic() + 30
        for newest in (10, 20, 30):
            for feed in ("world", "sport"):
                publish(folder / f"{feed}.xml", range(newest - 10, newest))
            with subprocess.Popen([sys.executable, __file__, "serve", name, *urls]) as program:
                # All of the last ones; of the others not yet all, but they are in the store.
                enough = 60 if newest == 30 else 2 * newest - 5
                while kept(folder) < enough and time.monotonic() < deadline:
                    time.sleep(0.005)
                program.kill() if newest < 30 else program.terminate()
        found = kept(folder)
        server.shutdown()
    print(f"{found} items")
    return 0 if found == 60 else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(main())
