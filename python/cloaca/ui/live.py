"""What tabs are told when something has changed. One look a process, however many tabs there are.

Invariant: what several tabs look at is made once, and a tab that does not read holds up nobody.
"""

from __future__ import annotations

import asyncio
import signal
from time import monotonic

from starlette.concurrency import run_in_threadpool

from ..errors import CloacaError
from ..plain import ERROR, say
from .show import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import TypeAlias

    from .safety import Level
    from .source import Source

    View: TypeAlias = tuple[str, str, Level]

_log = "cloaca.ui"

LOOK_SECONDS = 0.25
"""Between two looks."""
RENEW_SECONDS = 5.0
"""What comes with time, such as that somebody is late, is shown after so long."""
TABS_MAX = 500
"""So many may listen."""
PING_SECONDS = 15.0
"""So often a tab that hears nothing is told that it still may."""
LISTEN_SECONDS = 300.0
"""A browser listens anew after so long, and is asked anew whether it may."""


class Live:
    """Who listens, by what they look at."""

    def __init__(self, source: Source, fragment: Callable[[str, str, Level], tuple[str, str]]) -> None:
        self._source = source
        self._fragment = fragment
        self._tabs: dict[View, set[_Tab]] = {}
        self._task: asyncio.Task[None] | None = None
        self.looks = 0
        self.made = 0

    @property
    def tabs(self) -> int:
        """How many listen."""
        return sum(len(tabs) for tabs in self._tabs.values())

    @property
    def has_room(self) -> bool:
        """Whether one more may listen."""
        return self.tabs < TABS_MAX

    async def listen(self, view: View, have: str) -> AsyncIterator[bytes]:
        """What one tab is told, from now on; `have` is the mark of what it shows."""
        tab = _Tab(have)
        self._tabs.setdefault(view, set()).add(tab)
        until = monotonic() + LISTEN_SECONDS
        try:
            self._begin()
            yield b"retry: 2000\n\n"
            while not tab.is_over and monotonic() < until:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await tab.news.wait()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                tab.news.clear()
                if tab.latest is not None:
                    latest, tab.latest = tab.latest, None
                    yield latest
        finally:
            tabs = self._tabs.get(view, set())
            tabs.discard(tab)
            if not tabs:
                self._tabs.pop(view, None)

    def end(self) -> None:
        """Tells nobody any more."""
        for tabs in self._tabs.values():
            for tab in tabs:
                tab.is_over = True
                tab.news.set()

    def _begin(self) -> None:
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.create_task(self._look(), name="cloaca.ui live")

    async def _look(self) -> None:
        """Looks as long as somebody listens."""
        seen: int | None = None
        fresh_until = 0.0
        while self._tabs:
            began = monotonic()
            if _is_stopping():
                self.end()
                return
            self.looks += 1
            # One that came since the last look may have missed something before it came.
            new = {view for view, tabs in self._tabs.items() if any(tab.is_new for tab in tabs)}
            mark = await run_in_threadpool(self._commits)
            if mark != seen or began > fresh_until:
                seen, fresh_until = mark, began + RENEW_SECONDS
                new = set(self._tabs)
            for view in new:
                await self._tell(view)
            # As long again as that took, so that it never takes more than half of a core.
            await asyncio.sleep(max(LOOK_SECONDS, monotonic() - began))

    def _commits(self) -> int:
        try:
            return self._source.reader.native.commits()
        except CloacaError:
            return -1

    async def _tell(self, view: View) -> None:
        self.made += 1
        try:
            mark, main = await run_in_threadpool(self._fragment, *view)
        except Exception as error:  # one view that cannot be shown costs the others nothing
            say(_log, ERROR, "the page cannot show %s", line(view[1]), raised=error)
            return
        text = "\n".join(f"data: {line}" for line in main.split("\n"))
        message = f"event: main\nid: {mark}\n{text}\n\n".encode()
        for tab in self._tabs.get(view, ()):
            tab.is_new = False
            if tab.have != mark:
                tab.have, tab.latest = mark, message
                tab.news.set()


class _Tab:
    """One that listens: it gets the latest, whatever it has missed."""

    def __init__(self, have: str) -> None:
        self.have = have
        self.latest: bytes | None = None
        self.news = asyncio.Event()
        self.is_new = True
        self.is_over = False


def _is_stopping() -> bool:
    """Whether the server, if it is uvicorn, is told to stop: it waits for streams and tells them nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", False) is True:
            return True
    return False
