"""`DefaultRunner`: one engine over one store.

Decides nothing: it checks arguments, hands declarations to the native engine, and turns its answers into
public objects.
Invariant: a runner that was shut down refuses every call but `shutdown`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from time import monotonic

from . import _guard, attempt, check, registry, why
from .config import DefaultRunnerConfig, microseconds
from .context import decode_value, encode_within
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    RunnerError,
    ScheduleError,
    StoreError,
    TriggerError,
    WorkflowError,
    excerpt,
)
from .name import is_text
from .policy import Backoff
from .run import Run
from .trigger import POLL_INTERVAL_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Any, Self

    from .context import Context
    from .result import WorkflowResult
    from .trigger import TriggerDefinition, TriggerKind
    from .workflow import Workflow

SHUTDOWN_SECONDS = 30.0
"""How long `shutdown` waits for running tasks by default."""
ATEXIT_SECONDS = 5.0
"""How long the end of the interpreter waits for running tasks of a runner that nobody shut down."""
DECLARED_AT_ONCE = 10_000
"""So many triggers are handed to the engine at once: the store keeps them while the next are prepared."""
JOIN_SECONDS = 1.0
"""How long `shutdown` waits for its threads once they have nothing to do."""
TICK_SECONDS_MAX = 5.0
"""How long `tick` waits for a poll in flight."""

_live: set[DefaultRunner] = set()
"""Runners that nobody has shut down: they serve until the interpreter ends, whether somebody refers to them
or not."""
_SAME_CRON = """
    SELECT other.id FROM schedules AS this JOIN schedules AS other ON other.workflow = this.workflow
    WHERE this.id = ? AND other.id <> this.id AND other.kind = 'cron'
      AND other.expression = ? AND other.timezone = ?"""
_inherited: set[DefaultRunner] = set()
_hooked = False


class DefaultRunner:
    """Polls every registered trigger and runs workflows, over one store.

    Args:
        database_url (str): `:memory:`, `sqlite://PATH`, `sqlite:///PATH`, `sqlite://:memory:` or a plain
        path.

    Raises:
        ValueError: the URL has none of these forms.
        StoreError: (a `RuntimeError`) the store cannot be opened, or was made by a newer version.
    """

    def __init__(self, database_url: str) -> None:
        self._start(database_url, DefaultRunnerConfig())

    @classmethod
    def with_config(
        cls, database_url: str, config: DefaultRunnerConfig, *, durability: str | None = None
    ) -> Self:
        """A runner with other settings than the defaults.

        Args:
            config (DefaultRunnerConfig): the settings; a copy is kept.
            durability (str | None): `"full"` keeps what is committed through power loss, `"normal"` through
            process death.

        Raises:
            TypeError: `config` is no `DefaultRunnerConfig`.
        """
        if not isinstance(config, DefaultRunnerConfig):
            raise ArgumentTypeError(f"config is {excerpt(config)}; it must be a DefaultRunnerConfig")
        runner = cls.__new__(cls)
        runner._start(database_url, config, durability)
        return runner

    @classmethod
    def with_schema(cls, database_url: str, schema: str) -> Self:
        """A runner in a schema of its own in PostgreSQL, which this build does not have.

        Raises:
            ValueError: the schema's name is empty or holds other characters than letters, digits and
            underscores, or the
                database is not PostgreSQL.
            StoreError: (a `RuntimeError`) there is no PostgreSQL to connect to.
        """
        if not isinstance(schema, str) or not schema.strip():
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
        url: str,
        config: DefaultRunnerConfig,
        durability: str | None = None,
        start_us: int | None = None,
    ) -> None:
        from ._cloaca import Engine
        from ._worker import Crew

        durability = durability if durability is not None else config.durability
        if durability not in (None, "full", "normal"):
            raise ArgumentError(f'durability is {excerpt(durability)}; it is "full" or "normal"')
        self._lock = threading.RLock()
        self._closed = False
        self._slots: dict[str, int] = {}
        self._config = config
        self._pid = os.getpid()
        self._engine = Engine.open(
            check.url(url),
            durability=durability,
            slots=config.max_concurrent_tasks,
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
        self._crew = Crew(self._engine)
        try:
            if (path := self._engine.path) is not None:
                _guard.watch(os.fspath(path), self._crew)
            self._crew.open()
            _live.add(self)
            _hook()
            registry.attach(self)
            self._engine.ready()
        except BaseException:
            # Also an interrupt: a runner that nobody got is shut down here, or by nobody.
            self.shutdown(0.0)
            raise

    def _on_workflow(self, workflow: Workflow) -> None:
        """The program declared a workflow, before this runner was made or after."""
        with self._lock:
            # Of threads that declare one name the newest wins, whichever comes here last.
            if not self._closed and registry.workflows.get(workflow.name) is workflow:
                specification = workflow._spec()
                self._crew.tasks.update(
                    {task["body"]: registry.bodies[task["body"]] for task in specification}
                )
                self._engine.declare_workflow(workflow.name, workflow.version, specification)

    def _on_triggers(self, triggers: Sequence[TriggerDefinition]) -> None:
        """The program declared triggers, before this runner was made or after."""
        with self._lock:
            if self._closed:
                return
            triggers = [trigger for trigger in triggers if registry.triggers.get(trigger.name) is trigger]
            for trigger in triggers:
                kind = trigger.kind
                if kind.cron is not None:
                    self._engine.put_cron(kind.workflow or "", kind.cron, kind.timezone, trigger.name)
            polled = [trigger for trigger in triggers if self._is_new(trigger)]
            for start in range(0, len(polled), DECLARED_AT_ONCE):
                self._declare(polled[start : start + DECLARED_AT_ONCE])

    def _is_new(self, trigger: TriggerDefinition) -> bool:
        if trigger.kind.cron is not None:
            return False
        slot = self._slots.get(trigger.name)
        return slot is None or self._crew.triggers[slot] is not trigger

    def _declare(self, triggers: Sequence[TriggerDefinition]) -> None:
        alike = groupby(triggers, attrgetter("kind"))
        kinds = [(_plan(kind), [trigger.name for trigger in group]) for kind, group in alike]
        # A body stands in its place before the engine may call it. An interrupt between leaves no gap: the
        # places are the engine's, and what it does not know of is overwritten by the next declaration.
        first = self._engine.places()
        self._crew.place(first, triggers)
        given = self._engine.declare_triggers(kinds)
        assert given == first, f"the engine gave place {given}, and the body stands at {first}"
        for slot, trigger in enumerate(triggers, first):
            before = self._slots.get(trigger.name)
            self._slots[trigger.name] = slot
            if before is not None:
                self._crew.retire(before)

    def _open(self) -> Any:
        if self._closed and self._pid == os.getpid():
            raise RunnerError("the runner is shut down; make a new DefaultRunner")
        return self._engine

    def execute(
        self, workflow_name: str, context: Context | Mapping[str, Any] | None = None
    ) -> WorkflowResult:
        """Runs a workflow and waits until the run is final. A failing task is no exception: look at `status`.

        Args:
            workflow_name (str): a registered workflow.
            context (Context | Mapping | None): what its first tasks get.

        Raises:
            WorkflowError: (a `ValueError`) no such workflow; the message names those that exist.
            ContextError, ContextTypeError: the context is not JSON, or too large for this runner.
            RunnerError: (a `RuntimeError`) the runner is shut down.
        """
        return self._submit(workflow_name, context).result()

    async def execute_async(
        self, workflow_name: str, context: Context | Mapping[str, Any] | None = None
    ) -> WorkflowResult:
        """Like `execute`, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.execute, workflow_name, context)

    def submit(self, workflow_name: str, context: Context | Mapping[str, Any] | None = None) -> Run:
        """Starts a run and returns once it is kept; `Run.result` waits for its end. Raises what `execute`
        raises."""
        run = self._submit(workflow_name, context)
        assert run._watch is not None, "a run that was submitted is watched"
        run._watch.wait_started()
        return run

    def run(self, run_id: str) -> Run:
        """A run of the store, whoever drives it, also a final one.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        engine = self._open()
        watch = engine.watch(check.run_id(run_id))
        if watch is None and engine.run(run_id) is None:
            raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")
        return Run(self, run_id, watch)

    def submit_many(
        self, workflow_name: str, contexts: Iterable[Context | Mapping[str, Any] | None]
    ) -> list[Run]:
        """Starts a run for each context, all in one transaction, and returns once they are kept. Raises what
        `execute`
        raises, before any of them is started."""
        engine = self._open()
        name = check.text(workflow_name, "workflow_name", WorkflowError)
        if isinstance(contexts, str | bytes) or not isinstance(contexts, Iterable):
            raise ArgumentTypeError(f"contexts is {excerpt(contexts)}; it must be a list of contexts")
        limit = engine.context_bytes_max
        encoded = [encode_within(limit, context, "the context") for context in contexts]
        registry.workflow(name)
        watches = engine.submit(name, encoded)
        if watches:
            watches[-1].wait_started()
        return [Run(self, watch.id, watch) for watch in watches]

    def _submit(self, workflow_name: object, context: Context | Mapping[str, Any] | None) -> Run:
        engine = self._open()
        if not isinstance(workflow_name, str):
            workflow_name = getattr(workflow_name, "name", workflow_name)
        workflow_name = check.text(workflow_name, "workflow_name", WorkflowError)
        encoded = encode_within(engine.context_bytes_max, context, "the context")
        registry.workflow(workflow_name)
        watch = engine.submit(workflow_name, [encoded])[0]
        return Run(self, watch.id, watch)

    def cancel(self, run_id: str) -> None:
        """Asks for a run's end: no further task of it starts, a running one may finish. A final run stays as
        it is.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        engine = self._open()
        if not engine.cancel(check.run_id(run_id)) and engine.run(run_id) is None:
            raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")

    def retry(self, run_id: str) -> Run:
        """Opens a run that failed or was cancelled again: tasks that completed stay, the others are decided
        anew.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run, or it completed, or has not ended, or its
                workflow is not declared in this program.
            StoreError: (a `RuntimeError`) another run of its trigger with an equal context is unfinished.
        """
        engine = self._open()
        row = engine.run(check.run_id(run_id))
        if row is not None and registry.workflow(row["workflow_name"]) is None:
            # Opened again by whom nobody could run it, it would be kept from those who can.
            raise WorkflowError(
                f"run {run_id} is of workflow {excerpt(row['workflow_name'])}, which is not declared here; "
                "retry it in a program that declares it"
            )
        watch = engine.retry(run_id)
        if watch is None:
            row = engine.run(run_id)
            stands = "is not there" if row is None else f"is {row['status']}"
            raise WorkflowError(f"run {run_id} {stands}; only a Failed or Cancelled run can be retried")
        return Run(self, run_id, watch)

    def list_runs(
        self,
        workflow: str | None = None,
        status: str | None = None,
        trigger: str | None = None,
        limit: int = check.PAGE_LIMIT,
        offset: int = 0,
        *,
        contexts: bool = True,
    ) -> list[dict[str, Any]]:
        """Runs, newest first, as dicts with `id workflow_name status trigger_name run_key context created_at
        started_at completed_at error_message`; with `contexts=False` without `context`, which is not read
        then."""
        rows = self._open().runs(
            check.optional_text(workflow, "workflow"),
            check.optional_text(status, "status"),
            check.optional_text(trigger, "trigger"),
            check.flag(contexts, "contexts"),
            *check.page(limit, offset),
        )
        return [_run(row, contexts) for row in rows]

    def get_run(self, run_id: str) -> dict[str, Any] | None:
        """One run like in `list_runs`, with `final_context` and its `tasks` (`id status attempts error
        started_at completed_at`)."""
        row = self._open().run(check.run_id(run_id))
        if row is None:
            return None
        final = row["final_context"]
        return {
            **_run(row),
            "final_context": None if final is None else decode_value(final),
            "tasks": row["tasks"],
        }

    def register_cron_workflow(self, workflow_name: str, cron_expression: str, timezone: str = "UTC") -> str:
        """Schedules a workflow by the calendar; the same three again give the same id.

        Args:
            cron_expression (str): five fields, six with seconds in front, or a nickname such as `@daily`.
            timezone (str): an IANA name.

        Raises:
            ScheduleError: (a `ValueError`) `Failed to register cron workflow`, with what is wrong.
        """
        engine = self._open()
        for name, value in (
            ("workflow_name", workflow_name),
            ("cron_expression", cron_expression),
            ("timezone", timezone),
        ):
            if not isinstance(value, str) or not value.strip() or not is_text(value):
                raise ScheduleError(
                    f"Failed to register cron workflow: {name} is {excerpt(value)}; "
                    "it must be a non-empty str"
                )
        try:
            return str(engine.put_cron(workflow_name, cron_expression, timezone))
        except ScheduleError as error:
            raise ScheduleError(f"Failed to register cron workflow: {error}") from None

    def list_cron_schedules(
        self, enabled_only: bool | None = None, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """Cron schedules in the order of their registration."""
        rows: list[dict[str, Any]] = self._open().crons(
            enabled_only is not None and check.flag(enabled_only, "enabled_only"), *check.page(limit, offset)
        )
        return rows

    def get_cron_schedule(self, schedule_id: str) -> dict[str, Any]:
        """One cron schedule.

        Raises:
            ScheduleError: (a `ValueError`) `Invalid schedule ID`, or `Failed to get cron schedule` for an
            unknown one.
        """
        row = self._open().cron(check.schedule_id(schedule_id))
        if row is None:
            raise ScheduleError(f"Failed to get cron schedule: there is none with id {schedule_id}")
        return dict(row)

    def update_cron_schedule(self, schedule_id: str, cron_expression: str, timezone: str) -> None:
        """Replaces a cron schedule's expression and time zone.

        Raises:
            ScheduleError: (a `ValueError`) `Failed to update cron schedule`, with what is wrong.
        """
        engine = self._open()
        schedule_id = check.schedule_id(schedule_id)
        for name, value in (("cron_expression", cron_expression), ("timezone", timezone)):
            if not isinstance(value, str) or not is_text(value):
                raise ScheduleError(
                    f"Failed to update cron schedule: {name} is {excerpt(value)}; it must be a str"
                )
        for other in engine.query(_SAME_CRON, [schedule_id, cron_expression, timezone]):
            raise ScheduleError(
                f"Failed to update cron schedule: its workflow already has {cron_expression!r} in "
                f"{timezone!r}, as schedule {other['id']}; change or delete that one"
            )
        try:
            done = engine.update_cron(schedule_id, cron_expression, timezone)
        except ScheduleError as error:
            raise ScheduleError(f"Failed to update cron schedule: {error}") from None
        if not done:
            raise ScheduleError(f"Failed to update cron schedule: there is none with id {schedule_id}")

    def set_cron_schedule_enabled(self, schedule_id: str, enabled: bool) -> None:
        """Switches a cron schedule; kept across restarts."""
        if not self._open().set_cron_enabled(check.schedule_id(schedule_id), check.flag(enabled, "enabled")):
            raise ScheduleError(f"Failed to update cron schedule: there is none with id {schedule_id}")

    def delete_cron_schedule(self, schedule_id: str) -> None:
        """Deletes a cron schedule; its runs stay."""
        if not self._open().delete_cron(check.schedule_id(schedule_id)):
            raise ScheduleError(f"Failed to delete cron schedule: there is none with id {schedule_id}")

    def get_cron_execution_history(
        self, schedule_id: str, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """The slots that a cron schedule ran, newest first."""
        rows = self._open().cron_runs(check.schedule_id(schedule_id), *check.page(limit, offset))
        if rows is None:
            raise ScheduleError(f"Failed to get cron schedule: there is none with id {schedule_id}")
        return [
            {
                "id": row["id"],
                "schedule_id": schedule_id,
                "scheduled_time": row["scheduled_time"],
                "claimed_at": row["created_at"],
                "workflow_execution_id": row["id"],
                "created_at": row["created_at"],
                "updated_at": row["completed_at"] or row["created_at"],
            }
            for row in rows
        ]

    def get_cron_execution_stats(self, since: str | datetime) -> dict[str, Any]:
        """Cron runs since an RFC 3339 time: `total_executions successful_executions lost_executions
        success_rate` (per cent).

        Raises:
            ScheduleError: (a `ValueError`) `Invalid datetime format`.
        """
        total, successful, lost = self._open().cron_stats(check.microseconds(since))
        rate = 100.0 * successful / total if total else 0.0
        return {
            "total_executions": total,
            "successful_executions": successful,
            "lost_executions": lost,
            "success_rate": rate,
        }

    def list_trigger_schedules(
        self, enabled_only: bool | None = None, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """Triggers in the order of their registration."""
        rows: list[dict[str, Any]] = self._open().triggers(
            enabled_only is not None and check.flag(enabled_only, "enabled_only"), *check.page(limit, offset)
        )
        return rows

    def get_trigger_schedule(self, trigger_name: str) -> dict[str, Any] | None:
        """One trigger; `None` for an unknown name."""
        row: dict[str, Any] | None = self._open().trigger(
            check.text(trigger_name, "trigger_name", TriggerError)
        )
        return row

    def set_trigger_enabled(self, trigger_name: str, enabled: bool) -> None:
        """Switches a trigger's polling; kept across restarts.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        if not self._open().set_trigger_enabled(
            check.text(trigger_name, "trigger_name", TriggerError), check.flag(enabled, "enabled")
        ):
            raise TriggerError(self._unknown_trigger(trigger_name))

    def get_trigger_execution_history(
        self, trigger_name: str, limit: int | None = None, offset: int | None = None
    ) -> list[dict[str, Any]]:
        """The runs that a trigger fired, newest first; empty for an unknown name."""
        found = self._open().trigger_runs(
            check.text(trigger_name, "trigger_name", TriggerError), *check.page(limit, offset)
        )
        if found is None:
            return []
        schedule_id, rows = found
        return [
            {
                "id": row["id"],
                "schedule_id": schedule_id,
                "context_hash": row["context_hash"],
                "workflow_execution_id": row["id"],
                "started_at": row["started_at"],
                "completed_at": row["completed_at"],
                "created_at": row["created_at"],
            }
            for row in rows
        ]

    def ticks(self, trigger_name: str, last: int = 50) -> list[dict[str, Any]]:
        """What a trigger's polls answered, newest first, with equal answers in a row as one."""
        rows = self._open().ticks(
            check.text(trigger_name, "trigger_name", TriggerError), check.count(last, "last")
        )
        if rows is None:
            raise TriggerError(self._unknown_trigger(trigger_name))
        return list(rows)

    def why(self, trigger_name: str) -> str:
        """One sentence that says what a trigger does, and why it has not fired.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        standing = self._open().standing(check.text(trigger_name, "trigger_name", TriggerError))
        if standing is None:
            raise TriggerError(self._unknown_trigger(trigger_name))
        return why.sentence(standing, self.ticks(trigger_name, 1))

    def tick(self, trigger_name: str, dry_run: bool = False) -> dict[str, Any]:
        """Polls a trigger once, now, on this thread.

        Args:
            dry_run (bool): only look: nothing is stored and nothing starts.

        Returns:
            A dict with `outcome` (`"skip"`, `"fire"` or `"error"`), `reason`, `fires` (dicts with `context`
            and `run_key`) and
            `cursor` (the new one, if it moved).

        Raises:
            TriggerError: (a `ValueError`) no such trigger in this program.
            RunnerError: (a `RuntimeError`) it has been polled for longer than 5 s.
        """
        engine = self._open()
        deadline = monotonic() + TICK_SECONDS_MAX
        name = check.text(trigger_name, "trigger_name", TriggerError)
        # A trigger that was declared a moment ago has no row yet.
        while (ticket := engine.poll_now(name)) is None or (ticket is False and name in self._slots):
            if monotonic() > deadline or engine.wait_closing(0.005):
                raise RunnerError(f"trigger {excerpt(trigger_name)} is being polled and does not come back")
        if ticket is False:
            raise TriggerError(self._unknown_trigger(trigger_name))
        ruling = self._crew.poll_now(ticket, dry_run)
        engine.flush()
        return _ticked(ruling)

    def stats(self) -> dict[str, Any]:
        """Counts since the runner was made."""
        return dict(self._open().stats())

    def query(self, sql: str, params: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Runs one read-only SQL statement on the runner's own store; rows as dicts.

        Raises:
            StoreError: (a `RuntimeError`) the statement is wrong or would write.
            RunnerError: (a `RuntimeError`) the runner shut down first, or 64 are being answered.
        """
        engine = self._open()
        return list(engine.query(check.text(sql, "sql"), _checked_params(params)))

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes a copy of everything to a new file.

        Raises:
            StoreError: (a `RuntimeError`) the file exists or cannot be written.
            RunnerError: (a `RuntimeError`) the runner shut down first, or 64 are being answered.
        """
        engine = self._open()
        if not isinstance(path, str | os.PathLike):
            raise ArgumentTypeError(f"path is {excerpt(path)}; it must be a str or a path")
        engine.export(check.path(os.fspath(path), "path"))

    def run_forever(self, shutdown_timeout: float = SHUTDOWN_SECONDS) -> None:
        """Waits until SIGINT or SIGTERM, then shuts down. Call it from the main thread.

        The first signal drains: it says for whom it waits. The second ends that wait at once; what is cut
        off is resumed by the next runner.

        Args:
            shutdown_timeout (float): seconds for what runs at the first signal.

        Raises:
            RunnerError: (a `RuntimeError`) this is not the main thread, or the runner is shut down.
        """
        import signal

        self._open()
        limit = check.seconds(shutdown_timeout, "shutdown_timeout")
        if threading.current_thread() is not threading.main_thread():
            raise RunnerError("run_forever waits for signals, which only the main thread gets; call it there")
        stop = threading.Event()

        def heard(*_: object) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            stop.set()

        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not stop.wait(3600):
                pass
        finally:
            stop.set()
            try:
                self._say_who_is_waited_for(limit)
                self.shutdown(limit)
            except KeyboardInterrupt:
                self.shutdown(0.0)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _say_who_is_waited_for(self, limit: float) -> None:
        if running := self._crew.running():
            text = "shutting down; waiting at most %g s for %s; another signal ends that at once"
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
        self._closed = True
        registry.detach(self)
        body = attempt.current(self._engine)
        try:
            if body is None:
                self._engine.close(limit)
            else:
                self._engine.close(limit, body[0], body[0] is None)
        finally:
            # Each may be done again, so that whoever is interrupted here can call again.
            _live.discard(self)
            _guard.unwatch_closed()
        # Not after an interrupt: that is heard at once.
        self._crew.join(min(limit, JOIN_SECONDS) if body is None else 0.0)

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
        import asyncio

        await asyncio.to_thread(self.shutdown)

    def __repr__(self) -> str:
        state = "shut down" if self._closed else "open"
        return f"DefaultRunner({state})"

    def _unknown_trigger(self, name: str) -> str:
        known = ", ".join(row["trigger_name"] for row in self.list_trigger_schedules()) or "none"
        return f"trigger {excerpt(name)} not found; known triggers: {known}"


def _hook() -> None:
    global _hooked
    if _hooked:
        return
    _hooked = True
    from ._cloaca import after_fork, before_fork

    atexit.register(_close_all)
    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=_forked)


def _forked() -> None:
    """The runners that a forked child knows of are the parent's."""
    from ._cloaca import after_fork, forked

    after_fork()
    forked()
    registry.forget_runners()
    _guard.forget_locks()
    if (shared_loop := sys.modules.get("cloaca._aio")) is not None:
        shared_loop.forget_locks()
    # Kept, so that nothing of theirs is closed here.
    _inherited.update(_live)
    _live.clear()


def _close_all() -> None:
    for runner in list(_live):
        runner.shutdown(ATEXIT_SECONDS)
    if (shared_loop := sys.modules.get("cloaca._aio")) is not None:
        shared_loop.leave()


def _run(row: dict[str, Any], has_context: bool = True) -> dict[str, Any]:
    shown = {name: row[name] for name in ("id", "workflow_name", "status", "trigger_name", "run_key")}
    if has_context:
        shown["context"] = decode_value(row["context"])
    return shown | {name: row[name] for name in ("created_at", "started_at", "completed_at", "error_message")}


def _plan(kind: TriggerKind) -> dict[str, Any]:
    interval = kind.interval_us or POLL_INTERVAL_US
    wait = kind.on_error or Backoff()
    # A trigger that is polled once an hour gains nothing from being polled sooner because it failed.
    base = wait.base_us if kind.on_error else max(wait.base_us, interval)
    return {
        "workflow": kind.workflow or "",
        "interval": interval,
        "allow_concurrent": kind.allow_concurrent,
        "jitter": kind.jitter_us,
        "timeout": kind.poll_timeout_us,
        "backoff": (base, wait.factor, max(wait.max_us, base)),
        "failures_max": kind.max_consecutive_failures,
        "overlap": kind.overlap or "allow",
    }


def _ticked(ruling: Any) -> dict[str, Any]:
    if isinstance(ruling, str):
        ruling = [], None, ruling, None
    elif len(ruling) == 2:
        ruling = [], None, ruling[0], None
    fires, cursor, reason, error = ruling
    outcome = "error" if error is not None else "fire" if fires else "skip"
    return {
        "outcome": outcome,
        "reason": error if error is not None else reason or None,
        "fires": [{"context": decode_value(text), "run_key": key} for text, key, _ in fires],
        "cursor": None if cursor is None else decode_value(cursor),
    }


def _checked_params(params: object) -> list[object]:
    if isinstance(params, str | bytes) or not isinstance(params, Iterable):
        raise ArgumentTypeError(f"params is {excerpt(params)}; it must be a list of values")
    values = list(params)
    for value in values:
        if isinstance(value, str):
            check.text(value, "a value of params")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ArgumentError(f"a value of params is {excerpt(value)}; SQLite has integers of 64 bits")
        elif value is not None and not isinstance(value, int | float | bytes | bytearray):
            raise ArgumentTypeError(
                f"a value of params is {excerpt(value)}; it must be None, int, float, str or bytes"
            )
    return values
