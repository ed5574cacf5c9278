"""What is watched: a runner of this process, or a store that others serve. Decides nothing.

Invariant: a store that does not answer holds up who asks for a bounded time, however many ask.
"""

from __future__ import annotations

import os
import threading
import time

from .. import check
from ..errors import CloacaError, RunnerError, StoreError, UrlError, excerpt
from ..runner import DefaultRunner
from . import families, forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..types import Health
    from .families import Family

STORE_SECONDS_MAX = 3.0
"""A store is waited for so long: less than any probe or scraper waits by default, but the shortest."""


class Asked:
    """A question that is under way, and its answer."""

    def __init__(self) -> None:
        self.until = time.monotonic() + STORE_SECONDS_MAX
        self.is_over = threading.Event()
        self.found: Any = None
        self.error: CloacaError | None = None


class Asking:
    """Asks a store, on a thread beside: who asks meanwhile waits for the same answer."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        forks.tell(self)
        self.forked()

    def forked(self) -> None:
        """Nobody answers in a child what its parent has asked."""
        self._lock = threading.Lock()
        self._asked: Asked | None = None

    def begin(self) -> Asked:
        """Asks, unless that is under way, and waits for nothing."""
        with self._lock:
            asked = self._asked
            if asked is None or asked.is_over.is_set():
                asked = self._asked = Asked()
                try:
                    threading.Thread(
                        target=self._call, args=(asked,), name="cloaca-look", daemon=True
                    ).start()
                except RuntimeError as error:
                    # The system gives none now, or the program ends.
                    asked.error = StoreError(f"nobody can look at the store: {error}")
                    asked.is_over.set()
        return asked

    def answer(self, asked: Asked | None = None) -> Any:
        """The answer, to what was asked before or is asked now.

        Raises:
            StoreError: it takes too long.
            CloacaError: as it was raised by who was asked.
        """
        if asked is None:
            asked = self.begin()
        if not asked.is_over.wait(max(0.0, asked.until - time.monotonic())):
            raise StoreError(f"the store has not answered within {STORE_SECONDS_MAX:g} s")
        if asked.error is not None:
            raise asked.error
        return asked.found

    def _call(self, asked: Asked) -> None:
        try:
            asked.found = self._ask()
        except CloacaError as error:
            asked.error = error
        except BaseException as error:
            asked.error = StoreError(f"the store cannot be looked at: {error}")
            raise
        finally:
            asked.is_over.set()


class Glance:
    """A runner's store without what is not written down yet: to look waits for no commit."""

    def __init__(self, store: Any) -> None:
        self.query = store.glance
        self.owners = store.owners
        self.backlog = store.backlog
        self.limits = store.glance_limits


class Watched:
    """A runner, or a store by its URL, which is opened anew for each look.

    Raises:
        UrlError: (a `ValueError`) the URL means memory, or has none of the known forms.
    """

    def __init__(self, runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> None:
        self.runner = runner_or_url if isinstance(runner_or_url, DefaultRunner) else None
        self.url = "" if isinstance(runner_or_url, DefaultRunner) else check.url(runner_or_url)
        if ":memory:" in self.url:
            raise UrlError(f"{excerpt(self.url)} is memory, where only its runner can look; give a file")
        self._families = Asking(self._look)
        self._health = Asking(self._look_at_health)

    def __repr__(self) -> str:
        return repr(self.runner) if self.runner is not None else excerpt(check.store_name(self.url))

    def ask(self) -> Asked:
        """Has the store asked how it stands, and waits for nothing: `families` tells what it answers."""
        return self._families.begin()

    def families(self, asked: Asked | None = None) -> Iterator[Family]:
        """All metrics. What a runner has counted is told whatever its store does, and once it is shut down
        nothing else.

        Args:
            asked: what `ask` began; a new question unless given.

        Raises:
            RunnerError: (a `RuntimeError`) the runner is of a process before a fork.
            StoreError: (a `RuntimeError`) a store given by its URL can't be read.
        """
        if self.runner is None:
            yield families.build()
            yield from self._families.answer(asked)
            return
        try:
            counted = [*self._counted(self.runner)]
        except RunnerError:
            yield from self.counters()
            return
        yield from counted
        try:
            yield from self._families.answer(asked)
        except CloacaError:
            yield families.unread()

    def counters(self) -> list[Family]:
        """What a runner has counted, also once it is shut down.

        Raises:
            RunnerError: (a `RuntimeError`) it is of a process before a fork.
        """
        assert self.runner is not None
        return counters(self.runner._engine)

    def heads(self) -> Iterator[Family]:
        """All metrics that there are of a runner, without a look at its store.

        Raises:
            RunnerError: (a `RuntimeError`) it is shut down, or of a process before a fork.
        """
        assert self.runner is not None
        yield from self._counted(self.runner)
        yield from families.heads_of_store()

    def _counted(self, runner: DefaultRunner) -> Iterator[Family]:
        yield families.build()
        yield from families.of_runner(runner._open().metrics())
        about = "Whether this runner has stopped by itself, because the store takes nothing any more."
        stopped: dict[tuple[str, ...], int] = {(): int(runner._has_stopped())}
        yield families.Family("cloaca_runner_stopped", "gauge", about, (), stopped)

    def _look(self) -> list[Family]:
        if self.runner is not None:
            engine = self.runner._open()
            return [*families.of_store(Glance(engine.store), self.runner.health(), engine.now())]
        from ..reading import Reader

        with Reader(self.url) as reader:
            return [*families.of_store(reader.native, _health(reader.native), int(time.time() * 1e6))]

    def is_alive(self) -> str | None:
        """Why the process had better be started again; `None` if that would mend nothing."""
        if self.runner is None:
            try:
                self.health()
            except CloacaError as error:
                return str(error)
            return None
        return self.why_ended()

    def why_ended(self) -> str | None:
        """Of a runner that is shut down, or has stopped by itself: that it has."""
        if self.runner is None:
            return None
        try:
            has_ended = self.runner._closed or self.runner._has_stopped()
        except RunnerError as error:
            # Shut down between the two looks, or made before a fork.
            return str(error)
        return "the runner has stopped" if has_ended else None

    def health(self) -> Health:
        """As `DefaultRunner.health` tells it.

        Raises:
            StoreError: (a `RuntimeError`) the store can't be read, or does not answer in time.
        """
        found: Health = self._health.answer()
        return found

    def _look_at_health(self) -> Health:
        if self.runner is not None:
            return self.runner.health()
        from ..reading import Reader

        with Reader(self.url) as reader:
            return _health(reader.native)


def counters(engine: Any) -> list[Family]:
    """What a runner has counted, by its engine.

    Raises:
        RunnerError: (a `RuntimeError`) it is of a process before a fork.
    """
    return [family for family in families.of_runner(engine.metrics()) if family.kind != "gauge"]


def _health(native: Any) -> Health:
    from ..health import RUNNERS_MAX, health

    path = None if native.path is None else os.fspath(native.path)
    return health(native.query, native.owners(RUNNERS_MAX), path, on_server=path is None)
