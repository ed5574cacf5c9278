"""What is watched: a runner of this process, or a store that others serve. Decides nothing."""

from __future__ import annotations

import os

from .. import check
from ..errors import CloacaError, RunnerError, UrlError, excerpt
from ..runner import DefaultRunner
from . import families

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..types import Health
    from .families import Family


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

    def __repr__(self) -> str:
        return repr(self.runner) if self.runner is not None else excerpt(self.url)

    def families(self) -> Iterator[Family]:
        """All metrics.

        Raises:
            RunnerError: (a `RuntimeError`) the runner is shut down.
            StoreError: (a `RuntimeError`) the store can't be read.
        """
        yield families.build()
        if self.runner is not None:
            engine = self.runner._open()
            yield from families.of_runner(engine.metrics())
            about = "Whether this runner has stopped by itself, because the store takes nothing any more."
            stopped: dict[tuple[str, ...], int] = {(): int(self.runner._has_stopped())}
            yield families.Family("cloaca_runner_stopped", "gauge", about, (), stopped)
            yield from families.of_store(engine.store, self.runner.health())
            return
        from ..reading import Reader

        with Reader(self.url) as reader:
            yield from families.of_store(reader.native, _health(reader.native))

    def is_alive(self) -> str | None:
        """Why the process had better be started again; `None` if that would mend nothing."""
        if self.runner is None:
            try:
                self.health()
            except CloacaError as error:
                return str(error)
            return None
        return "the runner has stopped" if self.has_ended() else None

    def has_ended(self) -> bool:
        """Whether it is a runner that is shut down, or has stopped by itself."""
        if self.runner is None:
            return False
        try:
            return self.runner._closed or self.runner._has_stopped()
        except RunnerError:
            # Shut down between the two looks.
            return True

    def health(self) -> Health:
        """As `DefaultRunner.health` tells it."""
        if self.runner is not None:
            return self.runner.health()
        from ..reading import Reader

        with Reader(self.url) as reader:
            return _health(reader.native)


def _health(native: Any) -> Health:
    from ..health import RUNNERS_MAX, health

    path = None if native.path is None else os.fspath(native.path)
    return health(native.query, native.owners(RUNNERS_MAX), path, on_server=path is None)
