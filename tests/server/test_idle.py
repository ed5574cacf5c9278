"""What runners that have nothing to do ask of the server."""

from __future__ import annotations

import re
import threading
from collections import Counter
from pathlib import Path

import postgres

import cloaca

BEATS = 10
BEAT = re.compile(r"UPDATE \S+beats SET at")
# Of each runner, for each of its beats, one of which is sent each second. It is half of this.
STATEMENTS_MAX = 16


class Log:
    """The statements of one database from now on, as the server logs them."""

    def __init__(self, server: postgres.Server, database: str) -> None:
        self._path: Path = server.folder / "log"
        self._line = re.compile(rf" {database} LOG:  (?:statement|execute [^:]*):\s*([^\n]*)")
        self.begin()

    def begin(self) -> None:
        self._from = self._path.stat().st_size

    def statements(self) -> Counter[str]:
        with self._path.open("rb") as file:
            file.seek(self._from)
            text = file.read().decode(errors="replace")
        return Counter(self._line.findall(text))

    def wait_for_beats(self, many: int) -> Counter[str]:
        while True:
            found = self.statements()
            if sum(count for text, count in found.items() if BEAT.search(text)) >= many:
                return found
            threading.Event().wait(0.05)


def test_idle_runners_ask_little(postgres_server: postgres.Server) -> None:
    """A look every 50 milliseconds with nothing to look for would be twenty statements a second."""
    with postgres_server.database() as database:
        postgres_server.sql(f"ALTER DATABASE {database} SET log_statement = 'all'")
        url = postgres_server.url(database)
        log = Log(postgres_server, database)
        with cloaca.DefaultRunner(url), cloaca.DefaultRunner(url) as runner:
            with cloaca.WorkflowBuilder("work"):

                @cloaca.task()
                def nothing(context: cloaca.Context) -> None:
                    pass

            assert runner.submit("work", {}).result(60).status == "Completed"
            # What news there are have been heard by then.
            log.wait_for_beats(2 * 2)
            log.begin()
            found = log.wait_for_beats(2 * BEATS)
    asked = sum(found.values())
    assert asked <= 2 * BEATS * STATEMENTS_MAX, found.most_common(10)
