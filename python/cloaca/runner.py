"""`DefaultRunner`: one engine over one store.

Decides nothing: it checks arguments, asks the native engine, and turns its answers into public objects.
Invariant: a runner that was shut down refuses every call but `shutdown`.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import threading
from time import monotonic

from . import _guard, attempt, check, living, registry
from ._crons import Crons
from ._runs import Runs
from ._triggers import Triggers
from .chosen import EVERYTHING, chosen
from .config import DefaultRunnerConfig, checked_config, microseconds
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    RunnerError,
    StoreError,
    excerpt,
)
from .near import refuse_keywords

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Never, Self, Unpack

    from .chosen import Chosen, TriggerRefs, WorkflowRefs
    from .config import Fields
    from .types import Durability, Stats

_KEYWORDS = ("triggers", "workflows", "paused")
SHUTDOWN_SECONDS = 30.0
"""How long `shutdown` waits for running tasks by default."""
JOIN_SECONDS = 1.0
"""How long `shutdown` waits for its threads once they have nothing to do."""
_ENDED = "the runner has stopped by itself; the log (logger 'cloaca', level ERROR) says why"


class DefaultRunner(Runs, Crons, Triggers):
    """Polls every registered trigger and runs workflows, over one store.

    Args:
        database_url (str | PathLike): `:memory:`, `sqlite://PATH`, `sqlite:///PATH`, `sqlite://:memory:` or a
            plain path; a `pathlib.Path` is always a file.
        triggers (Iterable[Callable | str] | None): functions or names of the declared triggers that it polls,
            crons too, and no others; by default all that start one of its workflows, also those declared
            later.
        workflows (Iterable[Workflow | str] | None): the workflows that it runs, and no others: runs of others
            wait for a runner that is for them. By default all, also those declared later.
        paused (bool): open the store and do nothing of itself: poll nothing, run no cron, take over no run,
            delete nothing old, until `resume`. To look at a copy, a restored one say, and to switch off what
            it should not do.
        fields: settings by name, those of `DefaultRunnerConfig`: `DefaultRunner("app.db",
            max_concurrent_tasks=8, durability="normal")`.

    Raises:
        ValueError: the URL has none of these forms, or a setting makes no sense; the message names it.
        ValueError: one of `triggers` or `workflows` is not declared.
        TypeError: an unknown setting, or a second argument that has no name.
        StoreError: (a `RuntimeError`) the store cannot be opened, or was made by a newer version.
    """

    _hear: Callable[[tuple[str | None, BaseException]], None] | None = None
    """Who hears, before the engine does, of what bodies raise: the run if it was a task, and the error."""

    def __init__(
        self,
        database_url: str | os.PathLike[Any],
        *others: Never,
        triggers: TriggerRefs | None = None,
        workflows: WorkflowRefs | None = None,
        paused: bool = False,
        **fields: Unpack[Fields],
    ) -> None:
        if others:
            raise ArgumentTypeError(
                f"DefaultRunner takes only database_url without a name; got {excerpt(others[0])} too. Write"
                " DefaultRunner(database_url, max_concurrent_tasks=8) and the like, or"
                " DefaultRunner.with_config(database_url, config)"
            )
        refuse_keywords("DefaultRunner", fields, (*DefaultRunnerConfig.__slots__, *_KEYWORDS))
        config = DefaultRunnerConfig(**fields)
        bound, quiet = chosen(triggers, workflows), check.flag(paused, "paused")
        self._start(database_url, config, chosen=bound, paused=quiet)

    @classmethod
    def with_config(
        cls,
        database_url: str | os.PathLike[Any],
        config: DefaultRunnerConfig,
        *,
        durability: Durability | None = None,
        triggers: TriggerRefs | None = None,
        workflows: WorkflowRefs | None = None,
        paused: bool = False,
    ) -> Self:
        """A runner with other settings than the defaults.

        Args:
            config (DefaultRunnerConfig): the settings; a copy is kept.
            durability (Durability | None): `"full"` keeps what is committed through power loss, `"normal"`
            through process death.
            triggers, workflows, paused: as `DefaultRunner` takes them.

        Raises:
            TypeError: `config` is no `DefaultRunnerConfig`. Otherwise what `DefaultRunner` raises.
        """
        if config is None:
            raise ArgumentTypeError("config is None; it must be a DefaultRunnerConfig")
        runner = cls.__new__(cls)
        bound, quiet = chosen(triggers, workflows), check.flag(paused, "paused")
        runner._start(database_url, checked_config(config), durability, chosen=bound, paused=quiet)
        return runner

    @classmethod
    def with_schema(cls, database_url: str | os.PathLike[Any], schema: str) -> Self:
        """A runner in a schema of its own in PostgreSQL, which this build does not have.

        Raises:
            ValueError: the schema's name is empty or holds other characters than letters, digits and
            underscores, or the
                database is not PostgreSQL.
            StoreError: (a `RuntimeError`) there is no PostgreSQL to connect to.
        """
        if not check.text(schema, "schema").strip():
            raise ArgumentError("Schema name cannot be empty")
        if not schema.isascii() or not schema.replace("_", "a").isalnum():
            raise ArgumentError(
                "Schema name must contain only alphanumeric characters and underscores, "
                f"not {excerpt(schema)}"
            )
        url = check.url(database_url)
        if not url.startswith(("postgresql://", "postgres://")):
            raise ArgumentError(
                f"Schema {schema!r} needs PostgreSQL; {excerpt(url)} is SQLite, where one file is one tenant"
            )
        raise StoreError(f"Failed to set up schema {schema!r}: this build has no PostgreSQL; use SQLite")

    def _start(
        self,
        url: str | os.PathLike[Any],
        config: DefaultRunnerConfig,
        durability: Durability | None = None,
        start_us: int | None = None,
        chosen: Chosen = EVERYTHING,
        paused: bool = False,
    ) -> None:
        from ._cloaca import Engine
        from .crew import Crew
        from .declarations import Declarations

        durability = durability if durability is not None else config.durability
        if durability not in (None, "full", "normal"):
            raise ArgumentError(f"durability is {excerpt(durability)}; it must be 'full', 'normal' or None")
        self._closed = False
        self._paused = paused
        self._config = config
        self._resuming = threading.Lock()
        self._pid = os.getpid()
        before = _guard.descriptors()
        self._engine = Engine.open(
            check.url(url),
            durability=durability,
            slots=config.max_concurrent_tasks,
            pollers=config.max_pollers,
            task_timeout=float(config.task_timeout_seconds),
            workflow_timeout=float(config.workflow_timeout_seconds),
            crons=config.enable_cron_scheduling,
            catchup_max=config.cron_max_catchup_executions,
            recovery=config.enable_recovery,
            context_bytes_max=config.context_bytes_max,
            ticks_retention=microseconds(config, "ticks_retention") or 0,
            ticks_max=config.ticks_max,
            retention=microseconds(config, "retention"),
            resolution=microseconds(config, "timer_resolution"),
            start=start_us,
        )
        self._crew = Crew(self._engine, self._hear)
        self._declarations = Declarations(self._engine, self._crew, chosen)
        try:
            if (path := self._engine.path) is not None:
                _guard.watch(os.fspath(path), self._crew, before)
            self._crew.open()
            living.enter(self)
            if not paused:
                self._begin()
        except BaseException:
            # Also an interrupt: a runner that nobody got is shut down here, or by nobody.
            self.shutdown(0.0)
            raise

    def _open(self) -> Any:
        if self._closed and self._pid == os.getpid():
            raise RunnerError("the runner is shut down; make a new DefaultRunner")
        return self._engine

    def _begin(self) -> None:
        registry.attach(self._declarations)
        self._engine.ready()
        self._declarations.ready()

    def _working(self) -> Any:
        """The engine, if something may start by it."""
        engine = self._open()
        if self._paused:
            raise RunnerError("the runner is paused, and starts nothing; call resume() first")
        return engine

    def resume(self) -> None:
        """Begins what `paused=True` has put off: polls, crons, unfinished runs that nobody has.

        Twice is fine, and so is a runner that was never paused.

        Raises:
            RunnerError: (a `RuntimeError`) the runner is shut down.
        """
        self._open().now()  # refused after a fork
        if not self._paused or not self._resuming.acquire(blocking=False):
            return
        try:
            self._begin()
            self._paused = False
        finally:
            self._resuming.release()

    def stats(self) -> Stats:
        """Counts since the runner was made."""
        counts: Stats = self._open().stats()
        return counts

    def query(self, sql: str, params: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Runs one read-only SQL statement on the runner's own store; rows as dicts.

        Raises:
            StoreError: (a `RuntimeError`) the statement is wrong or would write.
            RunnerError: (a `RuntimeError`) the runner shut down first, or 64 are being answered.
        """
        engine = self._open()
        return list(engine.store.query(check.text(sql, "sql"), check.params(params)))

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes a copy of everything to a new file. A runner that opens it goes on with its triggers, crons
        and unfinished runs, unless it is made with `paused=True`.

        Raises:
            StoreError: (a `RuntimeError`) the file exists or cannot be written.
            RunnerError: (a `RuntimeError`) the runner shut down first, or 64 are being answered.
        """
        engine = self._open()
        if not isinstance(path, str | os.PathLike):
            raise ArgumentTypeError(f"path is {excerpt(path)}; it must be a str or a path")
        engine.store.export(check.path(os.fspath(path), "path"))

    def run_forever(self, shutdown_timeout: float = SHUTDOWN_SECONDS) -> None:
        """Waits until SIGINT or SIGTERM, then shuts down. Call it from the main thread. It also returns when
        another thread, or a task, has shut the runner down.

        The first signal drains: it says for whom it waits. The second ends that wait at once; what is cut
        off is resumed by the next runner.

        Args:
            shutdown_timeout (float): seconds for what runs at the first signal.

        Raises:
            RunnerError: (a `RuntimeError`) this is not the main thread, the runner is shut down, or it has
                stopped by itself, because the store takes nothing any more.
        """
        from .stop import Stop

        self._open()
        limit = check.seconds(shutdown_timeout, "shutdown_timeout")
        if threading.current_thread() is not threading.main_thread():
            raise RunnerError("run_forever waits for signals, which only the main thread gets; call it there")
        with Stop() as stop:
            self._crew.on_end = stop.end
            try:
                # The engine may have ended before it could be asked to tell.
                if not self._engine.wait_closing(0.0):
                    stop.wait()
                if not stop.is_heard and not self._closed:
                    raise RunnerError(_ENDED)
            finally:
                stop.is_heard = True
                try:
                    self._say_who_is_waited_for(limit)
                    self.shutdown(limit)
                except KeyboardInterrupt:
                    self.shutdown(0.0)

    def _say_who_is_waited_for(self, limit: float) -> None:
        if running := self._crew.running():
            text = "shutting down; waiting at most %g s for %s; another signal ends that at once"
            # Not `say`: that would take another signal, which ends the wait, for a fault of the log.
            with contextlib.suppress(Exception):
                logging.getLogger("cloaca").info(text, limit, ", ".join(running))

    def shutdown(self, timeout: float = SHUTDOWN_SECONDS) -> None:
        """Stops polling, waits for running tasks, writes what has gathered, ends the threads. Twice is fine:
        a second call finishes what the first one began, also if an interrupt cut that short.

        A task or a trigger may call it; it is not waited for.

        Args:
            timeout (float): seconds for running tasks; what is not done then is resumed by the next runner.
        """
        limit = check.seconds(timeout, "timeout")
        if self._pid != os.getpid():
            return
        until = monotonic() + limit
        self._closed = True
        self._declarations.close()
        body = attempt.current(self._engine)
        try:
            if body is None:
                self._engine.close(limit)
            else:
                self._engine.close(limit, body[0], body[0] is None)
        finally:
            # Each may be done again, so that whoever is interrupted here can call again.
            living.leave(self)
            _guard.unwatch_closed()
        # Not after an interrupt: that is heard at once.
        left = max(0.0, until - monotonic())
        self._crew.join(min(left, JOIN_SECONDS) if body is None else 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._shutdown_apart()

    async def _shutdown_apart(self) -> None:
        """Shuts down on a thread of its own: those of the loop may all wait for what only this ends."""
        import asyncio

        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        context = contextvars.copy_context()

        def end() -> None:
            error = None
            try:
                context.run(self.shutdown)
            except BaseException as raised:
                error = raised
            # Nobody waits in a loop that was closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, error)

        def tell(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(error)

        threading.Thread(target=end, name="cloaca-shutdown").start()
        if (error := await ended) is not None:
            raise error

    def __repr__(self) -> str:
        state = "shut down" if self._closed else "paused" if self._paused else "open"
        return f"DefaultRunner({state})"
