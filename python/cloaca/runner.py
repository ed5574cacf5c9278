"""`DefaultRunner`: one engine over one store.

Decides nothing: it checks arguments, asks the native engine, and turns its answers into public objects.
Invariant: a runner that was shut down refuses every call but `shutdown`.
Longer than a room should be: the public object itself, where its makers and its end need all of its parts.
"""

from __future__ import annotations

import contextlib
import os
import threading
from time import monotonic

from . import _guard, attempt, check, copied, imported, living, place, registry, rows, temporary
from . import redact as redaction
from ._awaited import Awaited
from ._crons import Crons
from ._cursors import Cursors
from ._limits import NamedLimits
from ._runs import Runs
from ._triggers import Triggers
from .apart import apart, checked_loop, running_loop
from .chosen import EVERYTHING, chosen
from .config import DefaultRunnerConfig, checked_config, microseconds
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    RunnerError,
    StoreError,
    excerpt,
)
from .listed import Listed
from .near import refuse_keywords, says_keywords
from .places import Places, refuse_in_pool
from .plain import INFO, say
from .rescue import left_beside
from .served import Served, checked_runner_name, checked_work
from .threads import refuse_green

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Never, Self, Unpack

    from ._cloaca import Engine
    from .chosen import Chosen, TriggerRefs, WorkflowRefs
    from .config import Fields
    from .logbook import Logbook
    from .types import Durability, Duration, Executors, Health, Redact, RunnerRow, Stats, Waits

_KEYWORDS = ("triggers", "workflows", "paused", "work", "name", "executors", "redact", "loop")
RUNNERS_MAX = 1000
"""So many runners are looked at, and of so many runs it is counted whose they are."""
BACKLOG_RUNS = 10_000
HOUR_US = 3_600_000_000
OVERDUE_PER_TASK = 4
"""By default so many overdue bodies may run on for each task that runs at once."""
JOIN_SECONDS = 1.0
"""How long `shutdown` waits for its threads once they have nothing to do."""
SPANS_SECONDS = 1.0
"""How long it waits at least for an exporter that is called as a span ends."""
_OPEN_AND_PAUSED = "runner %s is open and paused: nothing begins until resume()"
_SHUT = "the runner is shut down; make a new DefaultRunner"
_ENDED = "the runner has stopped by itself; the log (logger 'cloaca', level ERROR) says why"


class DefaultRunner(Runs, Crons, Triggers, Cursors, NamedLimits, Awaited):
    """Polls every registered trigger and runs workflows, over one store.

    Args:
        database_url (str | PathLike): `:memory:`, `sqlite://PATH`, `sqlite:///PATH`, `sqlite://:memory:` or a
            plain path; a `pathlib.Path` is always a file. `postgresql://USER@HOST/DATABASE` is a server.
        triggers (Iterable[Callable | str] | None): functions or names of the declared triggers that it polls,
            crons too, and no others; by default all that start one of its workflows, also those declared
            later.
        workflows (Iterable[Workflow | str] | None): the workflows that it runs, and no others: runs of others
            wait for a runner that is for them. By default all, also those declared later.
        paused (bool): open the store and do nothing of itself: poll nothing, run no cron, take over no run,
            delete nothing old, until `resume`. To look at a copy, a restored one say, and to switch off what
            it should not do.
        work (bool): poll and run triggers, crons and workflows. A runner with `work=False` is a client: it
            submits, waits, lists, cancels and retries, and leaves the work to the other runners of the store,
            in this process or others. It needs no declarations: `submit` takes every workflow that a living
            runner declares, or that the store has runs or schedules of, and warns once of one that no living
            runner declares.
        name (str | None): what `list_runners` and the command line call it, beside its number: `"billing-1"`
            say. Several may have the same.
        executors (Mapping[str, Executor | Callable] | None): where the bodies of `@task(executor=...)` run:
            by name a `concurrent.futures.Executor`, such as a `cloaca.ProcessExecutor`, or a function that
            makes one, which is called now and whenever one has broken. As many bodies run there at once as it
            has workers, apart from `max_concurrent_tasks`; where it does not tell, as many as that. What a
            function made ends with the runner, and so does what nobody else refers to.
        loop (AbstractEventLoop | None): the event loop that `async def` triggers, tasks, callbacks and
            conditions run on. By default `async with DefaultRunner(...)` has them run on the loop that it
            stands on, and any other runner on one that all runners of the process share, on a thread of its
            own.
        redact (Iterable[str] | Callable | None): what listings, messages, logs and tracebacks hide of
            contexts: the values of these keys, at any depth, whatever their case; or what a function of
            `(path, value)` shows in a value's place, called with a path of keys and places, from outside in.
            The store keeps keys and holds every program on it to them, until `unredact`. Of a function it
            keeps that there is one: other processes then show no contexts. Bodies, `final_context`, `query`
            and `export` have the values themselves, and `unmasked=True` shows them.
        fields: settings by name, those of `DefaultRunnerConfig`: `DefaultRunner("app.db",
            max_concurrent_tasks=8, durability="normal")`.

    Raises:
        ValueError: the URL has none of these forms, or a setting makes no sense; the message names it.
        ValueError: one of `triggers` or `workflows` is not declared, or `redact` holds what is no key; or
            with `work=False` there is something that only a runner at work has.
        ValueError: a task runs in an executor that the runner does not have.
        TypeError: an unknown setting, or a second argument that has no name.
        StoreError: (a `RuntimeError`) the store cannot be opened, or was made by a newer version.
        RunnerError: (a `RuntimeError`) a function of `executors` raised, or this is the process of a pool,
            which imports the program that made it, or one in which gevent or eventlet has replaced threads.
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
        work: bool = True,
        name: str | None = None,
        executors: Executors | None = None,
        redact: Redact | None = None,
        loop: AbstractEventLoop | None = None,
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
        asked = checked_loop(loop)
        self._start(
            database_url,
            config,
            chosen=bound,
            paused=quiet,
            works=checked_work(work, triggers, workflows, quiet, executors),
            name=checked_runner_name(name),
            executors=executors,
            redact=redact,
            loop=asked,
        )

    @classmethod
    async def open(
        cls,
        database_url: str | os.PathLike[Any],
        *,
        triggers: TriggerRefs | None = None,
        workflows: WorkflowRefs | None = None,
        paused: bool = False,
        work: bool = True,
        name: str | None = None,
        executors: Executors | None = None,
        redact: Redact | None = None,
        **fields: Unpack[Fields],
    ) -> Self:
        """A runner whose async bodies run on the event loop that awaits this, and that is opened without
        holding that up. Takes and raises what `DefaultRunner` does; shut it down by `await
        runner.shutdown_async()`.
        """
        loop = running_loop()

        def opened() -> Any:
            return cls(
                database_url,
                triggers=triggers,
                workflows=workflows,
                paused=paused,
                work=work,
                name=name,
                executors=executors,
                redact=redact,
                loop=loop,
                **fields,
            )

        with place.seen_from_here():
            runner: Self = await apart("open", opened, lambda runner: runner.shutdown(0.0))
        return runner

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
        work: bool = True,
        name: str | None = None,
        executors: Executors | None = None,
        redact: Redact | None = None,
        loop: AbstractEventLoop | None = None,
    ) -> Self:
        """A runner with other settings than the defaults.

        Args:
            config (DefaultRunnerConfig): the settings; a copy is kept.
            durability (Durability | None): `"full"` keeps what is committed through power loss, `"normal"`
            through process death.
            triggers, workflows, paused, work, name, executors, redact, loop: as `DefaultRunner` takes them.

        Raises:
            TypeError: `config` is no `DefaultRunnerConfig`. Otherwise what `DefaultRunner` raises.
        """
        if config is None:
            raise ArgumentTypeError("config is None; it must be a DefaultRunnerConfig")
        runner = cls.__new__(cls)
        bound, quiet = chosen(triggers, workflows), check.flag(paused, "paused")
        asked = checked_loop(loop)
        runner._start(
            database_url,
            checked_config(config),
            durability,
            chosen=bound,
            paused=quiet,
            works=checked_work(work, triggers, workflows, quiet, executors),
            name=checked_runner_name(name),
            executors=executors,
            redact=redact,
            loop=asked,
        )
        return runner

    @classmethod
    def with_schema(cls, database_url: str | os.PathLike[Any], schema: str) -> Self:
        """A runner in a schema of its own in PostgreSQL: a store by itself, made if there is none. `?schema=`
        in the URL says the same.

        Raises:
            ValueError: the schema's name is empty or holds other characters than letters, digits and
            underscores, or the
                database is not PostgreSQL.
            StoreError: (a `RuntimeError`) the server cannot be reached, or this user may not make the schema.
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
                f"Schema {schema!r} needs PostgreSQL, postgresql://USER@HOST/DATABASE; in SQLite one file is"
                " one tenant"
            )
        # They are letters, digits and underscores: there is nothing to escape.
        try:
            return cls(f"{url}{'&' if '?' in url else '?'}schema={schema}")
        except StoreError as error:
            raise StoreError(f"Failed to set up schema {schema!r}: {error}") from error

    def _start(
        self,
        url: str | os.PathLike[Any],
        config: DefaultRunnerConfig,
        durability: Durability | None = None,
        start_us: int | None = None,
        chosen: Chosen = EVERYTHING,
        paused: bool = False,
        works: bool = True,
        name: str | None = None,
        executors: Executors | None = None,
        redact: Redact | None = None,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        from ._cloaca import Engine
        from .crew import Crew
        from .declarations import Declarations

        durability = durability if durability is not None else config.durability
        if durability not in (None, "full", "normal"):
            raise ArgumentError(f"durability is {excerpt(durability)}; it must be 'full', 'normal' or None")
        url = check.url(url)
        if living.is_looked_at:
            url, paused, works = ":memory:", True, True
        elif works and living.refuse is not None:
            living.refuse(url)
        held = None
        if works and not paused and living.hold is not None and not living.is_looked_at:
            held = living.kept if living.hold(url) else living.held
        paused = paused or held is not None
        asked = redaction.checked(redact)
        refuse_in_pool()
        refuse_green()
        places = Places(executors)
        self._url = url
        self._schema: str | None = None
        self._closed = False
        self._at_end: list[Callable[[], None]] = []
        self._has_waited = False
        self._paused = paused
        self._works = works
        self._on_serving: Callable[[], None] | None = None
        self._name = name
        self._config = config
        self._resuming = threading.Lock()
        self._pid = os.getpid()
        before = _guard.Before()
        try:
            with before:
                self._engine = self._opened(Engine, url, config, durability, start_us, places)
                self._redactor = redaction.Redactor(self._engine.store, asked)
                self._logbook = self._keeper_of(config.keep_logs)
                self._crew = Crew(
                    self._engine,
                    self._redactor,
                    config.max_concurrent_tasks,
                    self._hear,
                    places,
                    self._logbook,
                )
                if loop is not None:
                    self._crew.use_loop(loop)
                elif self._uses_program_loop and (running := running_loop()) is not None:
                    # `async with` may follow, and say that it is this one.
                    self._crew.leave_loop_open()
                    running.call_soon(self._crew.decide_loop)
                self._declarations = Declarations(self._engine, self._crew, chosen, self._executors(places))
                self._served = Served(self._engine)
                if (path := self._engine.path) is not None:
                    _guard.watch(os.fspath(path), self._crew, before)
                    if (told := left_beside(os.fspath(path))) is not None:
                        self._crew.warn("; ".join(told))
                    if self._works and (lacking := temporary.trouble()) is not None:
                        self._crew.warn(lacking)
                self._crew.open(config.place_deaths_max)
                living.enter(self)
                if held is not None:
                    held.append(self)
                stays = paused and held is not living.held
                if self._works and (copy := copied.told(self._engine, paused=stays)) is not None:
                    self._crew.warn(copy)
                if paused:
                    self._engine.wait_for_program()
                    if held is None:
                        number = self._engine.runs.owner()
                        say("cloaca", INFO, _OPEN_AND_PAUSED, number)
                else:
                    self._begin()
        except BaseException:
            # Also an interrupt: a runner that nobody got is shut down here, or by nobody.
            before.leave()
            if "_served" in self.__dict__:
                self.shutdown(0.0)
            else:
                if "_engine" in self.__dict__:
                    self._engine.close(0.0)
                places.let_go()
            raise

    def _opened(
        self,
        engine: type[Engine],
        url: str,
        config: DefaultRunnerConfig,
        durability: Durability | None,
        start_us: int | None,
        places: Places,
    ) -> Engine:
        return engine.open(
            url,
            durability=durability,
            permits=[
                config.max_concurrent_tasks,
                config.max_async_tasks,
                *places.permits(config.max_concurrent_tasks),
            ],
            pollers=config.max_pollers,
            task_timeout=float(config.task_timeout_seconds),
            workflow_timeout=float(config.workflow_timeout_seconds),
            timeout_grace=float(config.timeout_grace_seconds),
            overdue_max=config.overdue_max or OVERDUE_PER_TASK * config.max_concurrent_tasks,
            interruptions_max=config.interruptions_max,
            crons=config.enable_cron_scheduling and self._works,
            catchup_max=config.cron_max_catchup_executions,
            recovery=config.enable_recovery,
            hands=config.runs_in_hand,
            context_bytes_max=config.context_bytes_max,
            ticks_retention=microseconds(config, "ticks_retention") or 0,
            ticks_max=config.ticks_max,
            retention=microseconds(config, "retention"),
            resolution=microseconds(config, "timer_resolution"),
            work=self._works,
            name=self._name,
            start=start_us,
        )

    def _keeper_of(self, keep_logs: str | int | None) -> Logbook | None:
        """What keeps what bodies log, if that is asked for."""
        if keep_logs is None or not self._works:
            return None
        from .logbook import Logbook
        from .size import bytes_of

        logbook = Logbook(self._engine, self._redactor, bytes_of(keep_logs, "keep_logs"))
        logbook.open()
        return logbook

    def _executors(self, places: Places) -> Mapping[str, int]:
        return places.numbers

    def _is_shut(self) -> bool:
        """Whether it was told to shut down, in this process."""
        return self._closed and self._pid == os.getpid()

    def _open(self) -> Any:
        # Its bodies go on for as long as the shutdown waits for them, and may look.
        if self._is_shut() and attempt.body(self._engine) is None:
            raise RunnerError(_SHUT)
        self._crew.decide_loop()
        return self._engine

    def _begin(self) -> None:
        if not self._works:
            self._engine.ready()
            return
        registry.attach(self._declarations)
        self._engine.ready()
        self._declarations.ready()

    def _working(self) -> Any:
        """The engine, if something may start by it."""
        if self._is_shut():
            body = attempt.body(self._engine)
            if body is not None and body.job is not None and not body.is_home:
                # It would wait, or be forgotten: the task is called anew by the next runner.
                raise attempt.Interrupted
            raise RunnerError(_SHUT)
        engine = self._open()
        if living.is_looked_at:
            raise RunnerError(
                "the program is only looked at, and starts nothing as it is imported; put the call below"
                ' if __name__ == "__main__":'
            )
        if self._paused:
            living.begin(self)
        if self._paused:
            engine.now()  # refused after a fork
            raise RunnerError("the runner is paused, and starts nothing; call resume() first")
        return engine

    def _at_work(self, call: str) -> Any:
        """The engine of a runner that polls and runs."""
        engine = self._working()
        if not self._works:
            raise RunnerError(
                f"this runner polls and runs nothing (work=False); call {call}() in a program that does"
            )
        return engine

    def _begin_paused(self) -> bool:
        """Begins what `paused=True` has put off; false if nothing was."""
        self._open().now()  # refused after a fork
        living.refuse_kept(self)
        if not self._paused or not self._resuming.acquire(blocking=False):
            return False
        try:
            self._begin()
            self._paused = False
        finally:
            self._resuming.release()
        return True

    def stats(self) -> Stats:
        """Counts since the runner was made; `stopped` is whether it has stopped by itself, because the store
        takes nothing any more: the log says why."""
        counts: Stats = self._open().stats()
        counts["stopped"] = self._has_stopped()
        return counts

    def list_runners(self, *, left: bool = False) -> Listed[RunnerRow]:
        """The runners of this store, the newest first, this one among them, as dicts with `number name
        state works host pid version joined_at seen_at left_at polls runs last_hour`.

        - `number` (int): by which the store knows it, as in `tries` and in `polled_by`.
        - `name` (str | None): as its program gave it, `DefaultRunner(url, name="billing-1")`.
        - `state` (str): `living`; `paused`, it is open and does nothing before `resume()`; `draining`, it
          takes nothing more, and only waits for what it has; `dead`, its process died and no other runner has
          noticed yet; `left`.
        - `works` (bool): whether it polls and runs anything, and is no client, made with `work=False`.
        - `host`, `version` (str | None), `pid` (int | None): the machine, the process on it, and the library
          in that, where they are known.
        - `joined_at`, `seen_at`, `left_at` (str | None): when it came, when it last said that it lives, which
          it does every 5 seconds and for the first time after 10, and when it left.
        - `polls` (int): so many triggers that are switched on it polls.
        - `runs` (int): so many runs that are not over are in its hands, counted among the oldest 10,000.
        - `last_hour` (dict): what it did then: `polls fires errors runs_started runs_completed runs_failed
          runs_cancelled`. It is written once a minute, and when the runner leaves.

        Args:
            left (bool): also those of the last hundred that left, behind the others.
        """
        engine = self._open()
        shows_left = check.flag(left, "left")
        held = rows.runs_held(engine.store.backlog(BACKLOG_RUNS))
        found = engine.store.owners(RUNNERS_MAX, engine.now() - HOUR_US)
        shown = (rows.runner(row, held) for row in found if shows_left or row["left_at"] is None)
        return Listed(shown, "RunnerRow")

    def health(self) -> Health:
        """Whether the triggers of this store are polled and its runs begin, whoever serves it: `ok`, and if
        it is not, `reasons`, each with `code text count seconds names`. Of a client it tells the same. It
        takes some milliseconds, however much the store holds: a probe may ask every few seconds.

        - `store`: writes are refused, the store doesn't answer, or the file is gone; `disk`: less than 64 MiB
          are free.
        - `old_transaction`: on a server of PostgreSQL one is open for more than five minutes, whosever it is.
        - `stopped`: this runner has stopped by itself; `loop`: the program's event loop has ended, and async
          bodies of this runner ran on it: its async tasks wait for another runner, its async triggers fail.
        - `no_runner`: no runner is alive that works, and there is something to serve; `dead_runner`: and
          runs of one that died are in nobody's hands.
        - `silent_runner`: a process lives and has said nothing for 30 seconds: it is stopped, or hangs.
        - `unserved`: runs wait for more than 10 seconds that no living runner declares the workflow of.
        - `backlog`: runs wait for more than a minute for a runner that has room, and no pause holds them.
        - `overdue`: bodies still run that nobody waits for any more; `stuck`: polls don't come back.
        - `unpolled`: triggers that are switched on and that no living runner polls, for more than 10 seconds;
          `late_cron`: the same of moments of crons. `callbacks`: callbacks of runs that have been due, or
          under way, for a minute.

        `count` is how many, up to 10,000, `seconds` how old the oldest is, `names` the first five. Beside
        them: `at`, `runners` (living ones that work), `runs_waiting` (in nobody's hands, and due or
        held by limits) and `oldest_seconds` (of
        these, but for what a pause holds).
        """
        from .health import of_unreadable

        self._open()
        try:
            return self._health()
        except StoreError as error:
            return of_unreadable("store", str(error))
        except RunnerError:
            if not self.stats()["stopped"]:
                raise
            return of_unreadable("stopped", _ENDED)

    def _health(self) -> Health:
        from .health import health, lost_loop

        engine = self._open()
        now_us = engine.now()
        owners = engine.store.owners(RUNNERS_MAX, now_us)
        path = None if engine.path is None else os.fspath(engine.path)
        stopped = self._has_stopped()
        trouble = engine.store.trouble()
        told = _ENDED if stopped else trouble
        on_server = check.on_server(self._url)
        found = health(engine.store.glance, owners, path, told, on_server=on_server, now_us=now_us)
        if stopped:
            found["reasons"][0]["code"] = "stopped"
        self._crew.look_at_loop()
        if self._crew.has_lost_loop():
            found["ok"] = False
            found["reasons"].append(lost_loop(now_us))
        return found

    def _has_stopped(self) -> bool:
        return not self._closed and bool(self._open().wait_closing(0.0))

    @property
    def redacted(self) -> list[str]:
        """The keys that the store keeps to be hidden, whichever program named them."""
        self._open()
        return self._redactor.keys()

    def unredact(self, key: str | None = None) -> None:
        """Takes back that the values of a key are hidden, for every program on the store, until one that
        names it in `redact=` starts again. Without a key, everything that the store keeps of `redact=`, also
        that a function decides; a function of a living runner goes on in its process.

        Raises:
            ArgumentError: (a `ValueError`) the values of that key are not hidden.
        """
        self._open()
        if not self._redactor.take_back(None if key is None else check.text(key, "key")) and key is not None:
            known = ", ".join(map(excerpt, self._redactor.keys()[:10])) or "none"
            raise ArgumentError(f"the values of key {excerpt(key)} are not hidden; those of {known} are")

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
        engine.store.export(check.target(path, "path"))

    @says_keywords("run_forever()")
    def run_forever(self, shutdown_timeout: Duration | None = None) -> None:
        """Waits until SIGINT or SIGTERM, then shuts down. Call it from the main thread. It also returns when
        another thread, or a task, has shut the runner down. SIGHUP, as the terminal closes, is like SIGTERM,
        unless it is ignored, as by `nohup`, or the program hears it itself.

        Under systemd (`Type=notify`) it says when it serves and when it drains, and with `WatchdogSec` that
        its engine lives.

        The first signal drains: it says for whom it waits. The second ends that wait at once; what is cut
        off is resumed by the next runner.

        Args:
            shutdown_timeout (Duration | None): seconds, or `"30s"`, for what runs at the first signal;
                `None` is the runner's `shutdown_seconds`.

        Raises:
            RunnerError: (a `RuntimeError`) this is not the main thread, the runner is shut down, or it has
                stopped by itself, because the store takes nothing any more.
        """
        from .stop import Stop
        from .systemd import Notifying

        self._open()
        limit = self._patience_at_end(shutdown_timeout, "shutdown_timeout")
        if living.is_looked_at:
            # Nothing runs, and who looks waits for the import to end.
            return
        if threading.current_thread() is not threading.main_thread():
            raise RunnerError("run_forever waits for signals, which only the main thread gets; call it there")
        living.begin(self)
        with Stop() as stop, Notifying(self._lives) as notifying:
            self._crew.on_end = stop.end
            try:
                if self._on_serving is not None:
                    # From here on a signal drains, and doesn't end this.
                    self._on_serving()
                # The engine may have ended before it could be asked to tell.
                if not self._engine.wait_closing(0.0):
                    stop.wait()
                if not stop.is_heard and not self._closed:
                    raise RunnerError(_ENDED)
            finally:
                stop.is_heard = True
                notifying.stopping()
                try:
                    with stop.hurried():
                        self._say_who_is_waited_for(limit, "another signal")
                        self.shutdown(limit)
                except KeyboardInterrupt:
                    with stop.hurried():
                        self._shutdown_at_once()

    def _lives(self) -> bool:
        """Whether its engine answers and has not stopped. Where that hangs, so does this call."""
        if self._closed:
            # It drains, as it was told to.
            return True
        self._engine.stats()
        return not self._has_stopped()

    def _say_who_is_waited_for(self, limit: float, ends_it: str) -> None:
        if limit > 0.0 and (running := self._crew.running()):
            text = "shutting down; waiting at most %g s for %s; %s ends that at once"
            # Not `say`: that would take another signal, which ends the wait, for a fault of the log.
            with contextlib.suppress(Exception):
                import logging

                logging.getLogger("cloaca").info(text, limit, ", ".join(running), ends_it)

    @says_keywords("shutdown()")
    def shutdown(self, timeout: Duration | None = None, *, wait: Waits = "bodies") -> None:
        """Stops polling, waits for running tasks, writes what has gathered, ends the threads. Twice is fine:
        a second call finishes what the first one began, also if an interrupt cut that short.

        With `wait="runs"` it waits for the ends of all runs in hand, with every task that they still have,
        retries and deferrals too, and takes no other: nothing is submitted but by their tasks, and its
        triggers and crons are for other runners from the beginning. What lies in the store stays there.

        A task or a trigger may call it; it is not waited for. The end of a `with` or `async with` block calls
        it, and waits no more where a call within the block has waited.

        Args:
            timeout (Duration | None): seconds, or `"30s"`, for running tasks; `None` is the runner's
                `shutdown_seconds`. What is not done then is resumed by the next runner.
            wait ("bodies" | "runs"): what is waited for.

        Raises:
            RunnerError: `wait="runs"` in a body of this runner, or on the event loop of its async bodies.
        """
        limit = self._patience_at_end(timeout, "timeout")
        check.one_of(wait, ("bodies", "runs"), "wait")
        if self._pid != os.getpid():
            return
        until = monotonic() + limit
        if (tells := imported.found("cloaca.cli.lifeline", "drain")) is not None:
            tells(limit)
        if wait == "runs" and not self._closed:
            self._drain(limit)
            limit = max(0.0, until - monotonic())
        self._closed = True
        self._declarations.close()
        body = attempt.current(self._engine)
        self._crew.look_at_loop()
        loop = self._crew.on_loop()
        if loop is not None and loop.has_bodies(None if body is None else body[0]):
            # They cannot end before this returns: what is cut off is resumed by the next runner.
            limit = 0.0
        try:
            if body is None:
                self._engine.close(limit)
            else:
                is_call = isinstance(attempt.body(self._engine), attempt.calling)
                self._engine.close(limit, body[0], body[0] is None and not is_call, is_call)
        except BaseException:
            # Whoever waits was told not to: the end of a block is not to begin another wait.
            self._has_waited |= body is None
            raise
        finally:
            # Nobody waits for what still runs there; the next runner makes those attempts anew.
            self._crew.places.close(wait=body is None)
            # Each may be done again, so that whoever is interrupted here can call again.
            living.leave(self)
            self._redactor.close()
            if self._logbook is not None:
                self._logbook.close()
            _guard.unwatch_closed()
        self._crew.close_loop()
        # Not after an interrupt: that is heard at once.
        left = max(0.0, until - monotonic())
        self._crew.join(min(left, JOIN_SECONDS) if body is None else 0.0)
        self._has_waited |= body is None
        for each in self._at_end:
            each()
        self._crew.close_spans(max(SPANS_SECONDS, until - monotonic()))

    def _shutdown_at_once(self) -> None:
        """As `shutdown(0.0)`, for whoever was waiting and does no more: nor for a store that is silent."""
        self._has_waited = True
        if self._pid == os.getpid():
            self._engine.hurry()
        self.shutdown(0.0)

    def _patience_at_end(self, timeout: Duration | None, name: str) -> float:
        return float(self._config.shutdown_seconds) if timeout is None else check.seconds(timeout, name)

    def _drain(self, limit: float) -> None:
        if attempt.current(self._engine) is not None:
            raise RunnerError(
                'shutdown(wait="runs") in a body would wait for its own run; use wait="bodies", or call it '
                "elsewhere"
            )
        self._crew.look_at_loop()
        loop = self._crew.on_loop()
        if loop is not None:
            raise RunnerError(
                'shutdown(wait="runs") would hold up the event loop that async bodies run on; use '
                '`await runner.shutdown_async(wait="runs")`'
            )
        self._declarations.close()
        if self._works and not self._engine.wait_closing(0.0):
            self._engine.drain(limit)

    def __enter__(self) -> Self:
        living.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        limit = self._shutdown_seconds()
        try:
            self.shutdown(limit)
        except KeyboardInterrupt:
            # Wherever it came, perhaps before anything was closed: it ends the wait, and not the shutdown.
            self._shutdown_at_once()
            raise

    def _shutdown_seconds(self) -> float:
        """How long the end of a block waits: not again, if somebody has. Says for whom."""
        limit = 0.0 if self._has_waited else float(self._config.shutdown_seconds)
        try:
            self._say_who_is_waited_for(limit, "Ctrl-C")
        except BaseException:
            # An interrupt that met the line in the log ends the wait, and not the shutdown.
            self._shutdown_at_once()
            raise
        return limit

    def __repr__(self) -> str:
        state = "paused" if self._paused else "open" if self._works else "client"
        state = "shut down" if self._closed else state
        return f"DefaultRunner({state})"

    def _repr_html_(self) -> str:
        from ._notebook import runner

        return runner(self)
