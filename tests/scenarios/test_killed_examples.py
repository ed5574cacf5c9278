"""The examples that serve, each killed (kill -9) again and again and started once more.

The source and what receives live in the test, so that they outlive the program. After all lives each event
was handled: with one run each, and as often as its example says.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECONDS_MAX = 60
LOOK_SECONDS = 0.002
"""Between two looks at how far a program is."""


class Program:
    """An example that serves, through all of its lives."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._command = [sys.executable, str(EXAMPLES / name), *arguments]

    def die_when(self, is_far_enough: Callable[[], bool], pause: float = 0.0) -> None:
        """Live until then, and so much longer; then be killed."""
        with subprocess.Popen(self._command) as process:
            try:
                _wait(process, is_far_enough)
                time.sleep(pause)
            finally:
                process.kill()

    def end_when(self, is_done: Callable[[], bool]) -> None:
        """Live until then, then be asked to end."""
        with subprocess.Popen(self._command) as process:
            try:
                _wait(process, is_done)
                # Before `run_forever` has its handlers SIGTERM ends it as any program.
                _wait(process, lambda: catches(process.pid, signal.SIGTERM))
                process.terminate()
                assert process.wait(SECONDS_MAX) == 0
            finally:
                process.kill()


def _wait(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert process.poll() is None, f"it ended by itself with {process.returncode}"
        assert time.monotonic() < deadline, "it doesn't get that far"
        time.sleep(LOOK_SECONDS)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, as Linux tells."""
    caught = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
    return bool(int(caught, 16) >> (number - 1) & 1)


def select(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Rows of a file that others write."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def runs(folder: Path, key: str) -> list[object]:
    """What each run of a store that nobody serves any more was about, oldest first; each is Completed."""
    rows = select(folder / "runs.db", "SELECT status, context FROM runs ORDER BY row")
    assert {status for status, _ in rows} == {"Completed"}
    return [json.loads(str(context))[key] for _, context in rows]


@contextmanager
def http(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def chance() -> random.Random:
    seed = os.environ.get("CLOACA_SEED", "20260101")
    print("CLOACA_SEED", seed)
    return random.Random(seed)


def test_each_file_is_moved_out_of_the_inbox_by_one_run(tmp_path: Path, chance: random.Random) -> None:
    program = Program("inbox_watcher.py", "--folder", str(tmp_path), "--serve")
    inbox, done = tmp_path / "inbox", tmp_path / "done"
    inbox.mkdir()
    files = [f"letter-{number:02}.txt" for number in range(24)]

    def moved() -> int:
        return len(list(done.glob("*.txt")))

    for life in range(4):
        for name in files[life * 6 : life * 6 + 6]:
            (tmp_path / name).write_text("dear reader\n")
            (tmp_path / name).rename(inbox / name)
        enough = life * 6 + chance.randint(1, 5)
        if life < 3:
            program.die_when(lambda enough=enough: moved() >= enough, chance.random() * 0.02)
        else:
            program.end_when(lambda: moved() == len(files) and is_at_rest(tmp_path))

    assert sorted(path.name for path in done.iterdir()) == files
    assert list(inbox.iterdir()) == []
    assert sorted(map(str, runs(tmp_path, "file"))) == files


def is_at_rest(folder: Path) -> bool:
    """Whether no run of the store is unfinished."""
    return select(folder / "runs.db", "SELECT 1 FROM runs WHERE completed_at IS NULL LIMIT 1") == []


def test_each_message_is_delivered_in_order_by_one_run(tmp_path: Path, chance: random.Random) -> None:
    shop, arrived = tmp_path / "shop.db", Counter[str]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            arrived[self.headers["Idempotency-Key"]] += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    sys.path.insert(0, str(EXAMPLES))
    try:
        import outbox
    finally:
        sys.path.remove(str(EXAMPLES))

    messages = [f"outbox-{number}" for number in range(1, 41)]
    with http(Receiver) as url:
        program = Program("outbox.py", "serve", str(tmp_path), url)
        for life in range(4):
            for number in range(10):
                outbox.place_order(shop, f"article {life} {number}")
            enough = life * 10 + chance.randint(1, 9)
            if life < 3:
                program.die_when(lambda enough=enough: len(arrived) >= enough, chance.random() * 0.02)
            else:
                program.end_when(lambda: len(arrived) == len(messages) and is_at_rest(tmp_path))

    # A dict keeps the order in which its keys came first.
    assert list(arrived) == messages
    # Each kill cuts off one delivery at most, as one is made at a time.
    assert arrived.total() <= len(messages) + 3
    assert runs(tmp_path, "id") == list(range(1, 41))


def test_each_change_of_a_site_is_told_once(tmp_path: Path, chance: random.Random) -> None:
    class Site(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    def told() -> list[tuple[object, ...]]:
        return select(tmp_path / "alerts.db", "SELECT change, state FROM alert ORDER BY change")

    changes = [(number, "down" if number % 2 else "up") for number in range(1, 7)]
    with http(Site) as url:
        program = Program("uptime.py", "serve", str(tmp_path), url)
        for number, state in changes:
            Site.status = 503 if state == "down" else 200
            if number < len(changes):
                program.die_when(lambda n=number: len(told()) >= n, chance.random() * 0.02)
            else:
                program.end_when(lambda: len(told()) == len(changes) and is_at_rest(tmp_path))

    assert told() == changes
    assert runs(tmp_path, "change") == [number for number, _ in changes]


def test_each_item_of_a_feed_is_kept_by_one_run(tmp_path: Path, chance: random.Random) -> None:
    site = tmp_path / "site"
    site.mkdir()

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(site))  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None: ...

    def kept() -> int:
        return len(select(tmp_path / "items.db", "SELECT 1 FROM item"))

    def publish(feed: str, numbers: Sequence[int]) -> None:
        items = "".join(f"<item><guid>{feed}-{n}</guid><title>{n}</title></item>" for n in numbers)
        (site / "new").write_text(f"<rss><channel>{items}</channel></rss>")
        (site / "new").rename(site / f"{feed}.xml")

    feeds = ("world", "sport")
    with http(Files) as url:
        urls = [f"{url}/{feed}.xml" for feed in (*feeds, "none")]
        program = Program("feeds.py", "serve", str(tmp_path), *urls)
        for life in range(4):
            # Each item is in two issues of its feed, in any order.
            numbers = list(range(life * 10, life * 10 + 20))
            for feed in feeds:
                publish(feed, chance.sample(numbers, len(numbers)))
            # More than one feed has: the other one was read as well.
            enough = life * 20 + 20 + chance.randint(11, 19)
            if life < 3:
                program.die_when(lambda enough=enough: kept() >= enough, chance.random() * 0.02)
            else:
                program.end_when(lambda: kept() == 100 and is_at_rest(tmp_path))

    items = sorted(f"{feed}-{number}" for feed in feeds for number in range(50))
    assert sorted(map(str, runs(tmp_path, "guid"))) == items
    assert "HTTP Error 404" in (tmp_path / "feeds.log").read_text()


def test_each_day_is_added_up_by_one_run_and_again_under_a_name_by_one_more(
    tmp_path: Path, chance: random.Random
) -> None:
    program = Program("backfill.py", "serve", str(tmp_path))
    sales = tmp_path / "sales"
    sales.mkdir()
    days = [str(date(2026, 1, 1) + timedelta(days=number)) for number in range(40)]

    def write(day: str, cents: int) -> None:
        (sales / "part").write_text(f"article,cents\ntea,{cents}\n")
        (sales / "part").rename(sales / f"{day}.csv")

    def totals() -> list[tuple[object, ...]]:
        return select(tmp_path / "totals.db", "SELECT day, cents FROM total ORDER BY day")

    for day in days[:30]:
        write(day, 1)
    for enough in (1, 8, 17):
        program.die_when(lambda enough=enough: len(totals()) >= enough, chance.random() * 0.02)
    for day in days[30:]:
        write(day, 1)
    program.end_when(lambda: len(totals()) == len(days) and is_at_rest(tmp_path))
    assert totals() == [(day, 1) for day in days]
    assert runs(tmp_path, "day") == days

    for day in days[:20]:
        write(day, 2)
    correct = Program("backfill.py", "again", str(tmp_path), "correction", days[0], days[19])
    correct.die_when(lambda: any(cents == 2 for _, cents in totals()))
    for _ in range(2):
        subprocess.run(correct._command, check=True, timeout=SECONDS_MAX)
    assert totals() == [(day, 2) for day in days[:20]] + [(day, 1) for day in days[20:]]
    assert Counter(runs(tmp_path, "day")) == Counter(days) + Counter(days[:20])
