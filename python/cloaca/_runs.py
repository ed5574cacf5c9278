"""What a runner says and does about runs.

Decides nothing: it checks arguments and words what the engine refuses.
Longer than a room should be: one public method after another, each with what it promises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import attempt, audit, check, filters, held, registry, rows, tracing, urgency, waiting, why_run
from ._listings import Listings
from .check import flag
from .context import decode_value, encode_within, same
from .errors import ArgumentError, ArgumentTypeError, RunnerError, StoreError, WorkflowError, excerpt
from .near import refuse_keywords
from .plain import INFO, say
from .rows import moment
from .run import RUN_KEY_TTL, Run
from .served import RUNNERS_MAX, SERVED, version_of
from .why import LOOKS_SECONDS, STOPPED
from .workflow import Workflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, Never

    from . import inbox
    from ._cloaca import Watch
    from .attempt import Calls
    from .config import DefaultRunnerConfig
    from .crew import Crew
    from .declarations import Declarations
    from .result import WorkflowResult
    from .served import Served
    from .types import ContextLike, Duration
    from .urgency import Urgency

    Keyed = tuple[Watch, tuple[str, float] | None, str, bool]
    """What is known of a run that was asked for with a run key, until it is known which run has that."""

_HOLDER = """
    SELECT coalesce(runs.owner, runs.owner_before) AS owner, runs.cancelled, runs.not_before, runs.limited,
        owners.epoch IS NOT NULL AS is_living
    FROM runs LEFT JOIN owners ON owners.epoch = runs.owner AND owners.left_at IS NULL WHERE runs.id = ?"""

_WAITS = "SELECT 1 AS waits FROM inbox WHERE id = CAST(CAST(? AS text) AS uuid)"


class Runs(Listings):
    """The part of a runner that is about runs."""

    if TYPE_CHECKING:
        _engine: Any
        _config: DefaultRunnerConfig
        _crew: Crew

        _declarations: Declarations
        _paused: bool
        _schema: str | None
        _url: str
        _works: bool
        _served: Served

        _uses_program_loop: bool

        def _open(self) -> Any: ...
        def _of_paused(self, workflow: str) -> str: ...
        def _is_alive(self, number: int | None) -> bool: ...
        def _has_stopped(self) -> bool: ...
        def _working(self) -> Any: ...
        def _blocks(self, call: str, twin: str, *, waits_for: str | None = None) -> None: ...

    @property
    def _idles(self) -> str:
        """That this runner does nothing of itself, if so, as the end of a sentence."""
        if not self._works:
            return "; this runner polls and runs nothing (work=False)"
        return "; this runner is paused, until resume() is called" if self._paused else ""

    def _of_idle(self, workflow: str | None) -> str:
        """That other runners are paused, if no living one declares that workflow, or what nobody serves."""
        engine = self._open()
        owners = engine.store.owners(RUNNERS_MAX, engine.now())
        if workflow is not None and version_of(engine.store.look(SERVED, [workflow]), rows.living(owners)):
            return ""
        return rows.of_paused(owners, engine.runs.owner())

    _way_out = ""
    """What to do about a run that is not final in time."""

    def _patience(self, seconds: float | None) -> float | None:
        """How long to wait for a run's end if the program says so long."""
        return seconds

    def execute(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        check: bool = False,
        timeout: Duration | None = None,
        priority: int | None = None,
    ) -> WorkflowResult:
        """Runs a workflow and waits until the run is final.

        A failing task is no exception unless `check` is true: look at `status`. A workflow that only another
        living runner declares is run there.

        Within a task of the same runner this starts a child of the task's run, as `submit` does.

        Args:
            workflow_name (str | Workflow): a registered workflow.
            context (ContextLike | None): what its first tasks get.
            check (bool): raise if the run fails or is cancelled, as `WorkflowResult.raise_for_failure` does.
            timeout (Duration | None): how long to wait, in seconds, or as `"30s"`; the run goes on after
                that. `None` waits for ever.
            priority (int | None): how urgent it is; see `submit`.

        Raises:
            TimeoutError: the run is not final in time.
            ArgumentError: (a `ValueError`) a `priority` that is none.
            WorkflowError: (a `ValueError`) no such workflow; the message names those that exist.
            ContextError, ContextTypeError: the context is not JSON, or too large for this runner.
            RunnerError: (a `RuntimeError`) the runner is shut down.
            StoreError: (a `RuntimeError`) the store has taken nothing for 30 s: the run is not kept yet; or,
                sooner, it cannot say whether there is a workflow that this program neither declares nor has
                asked for before, and no run is begun.
            RunFailedError: (a `RuntimeError`) with `check`, the run failed or was cancelled.
            ArgumentError: (a `ValueError`) `check` is no `bool`.
        """
        checks, limit = flag(check, "check"), _limit(timeout)
        if self._crew.on_loop() is not None:
            self._blocks(
                "execute()", "execute_async()", waits_for=registry.async_task_of(_name_of(workflow_name))
            )
        self._refuse_unserved(workflow_name, context)
        run = self._submit(workflow_name, context, urgency.of(priority, None, None))
        if run._is_called:
            run = self._called(run)
        result = run._result_within(limit)
        return result.raise_for_failure() if checks else result

    def submit(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        run_key: str | None = None,
        run_key_ttl: Duration = RUN_KEY_TTL,
        priority: int | None = None,
        at: str | datetime | None = None,
        delay: Duration | None = None,
        parent: Run | str | None = None,
        connection: object = None,
        **unknown: Never,
    ) -> Run:
        """Starts a run and returns once it is kept; `Run.result` waits for its end.

        Within a task of the same runner the new run is a child of the task's run, as those of `submit_many`,
        `execute` and the awaitable twins are: it is shown with that one, and cancelled with it. The same call
        of a later attempt of the task, the first for that workflow or the second, gets the same child,
        whatever the context: as it is if it has completed or goes on, and opened again if it failed or was
        cancelled. Tasks whose calls may come in another order give a run key, which finds the child instead
        of that. Runs that a callback starts are shown as children, too, but each call starts one, and none is
        cancelled with its parent.

        Args:
            workflow_name (str | Workflow): a workflow that this program declares, or that some program has
                declared to the store: then whoever declares it runs it. If no living runner does, the run
                waits for one, and a warning says so once.
            context (ContextLike | None): what its first tasks get.
            run_key (str | None): starts at most one run of its workflow while it holds: who comes with it
                once more, in this program or another one, gets that run, however it ended.
            run_key_ttl (Duration): how long it holds: `"30d"`, seconds, a `timedelta`. The run
                is kept as long, whatever `retention` says.
            priority (int | None): how urgent it is, from 0 to 9: of what could begin, 9 goes first. By
                default what its `WorkflowBuilder(priority=...)` says, and else 5. It is strict: while there
                is more urgent work than the runners have hands for, nothing else begins.
            at (str | datetime | None): it begins at this instant or later: RFC 3339, or a `datetime`; UTC if
                it has no zone. One that is past is now.
            delay (Duration | None): it begins so long from now, or later. Until then the run is `Pending` and
                in no runner's hands: any that declares its workflow takes it, whatever has become of this
                one.
            parent (Run | str | None): the run, or its id, of which this one comes: it is shown with that one,
                with `parent_kind` `given`, and cancelled with it, whoever asks and however that one stands.
                It takes the place of what is said above of calls in a task.
            connection (object): with a store on PostgreSQL, a connection of yours to that database: one of
                psycopg or asyncpg, or a connection or session of SQLAlchemy. The run is asked for in its
                transaction, and exists if and only if you commit that; what its key, its limits and the like
                make of it is decided after that. `Run.result` waits for the commit, too. The workflow need
                not be declared here, and the run is no child of a task's, nor has it a `parent`.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run as `parent`.
            ArgumentError: (a `ValueError`) with `connection`, the store is on no server.
            ArgumentTypeError: (a `TypeError`) `connection` is none that is known, or one that is awaited.
            ArgumentError: (a `ValueError`) a run key that is empty or no text, a bad `run_key_ttl`, or the
                run of that key has another context; the message names it. Also a `priority`, `at` or `delay`
                that is none, or both of the latter, a `parent` that is none, or one with a `connection`.
            RunnerError: (a `RuntimeError`) the run of the task that calls this was cancelled, or is over.
            What `execute` raises.
        """
        if unknown:
            refuse_keywords("submit()", unknown, Runs.submit.__kwdefaults__)
        when = urgency.of(priority, at, delay)
        given = check.parent(parent, connection)
        if connection is not None:
            return self._asked_in(workflow_name, [context], [run_key], run_key_ttl, when).ask(connection)[0]
        if given is not None:
            self._refuse_unknown(given)
        if run_key is not None:
            parts = self._begun_keyed(workflow_name, context, run_key, run_key_ttl, when, given)
            parts[0].wait_started()
            return self._keyed(*parts)
        if run_key_ttl is not RUN_KEY_TTL:
            check.span(run_key_ttl, "run_key_ttl")
        run = self._submit(workflow_name, context, when, given)
        assert run._watch is not None, "a run that was submitted is watched"
        run._watch.wait_started()
        return self._called(run) if run._is_called else run

    def run(self, run_id: str) -> Run:
        """A run of the store, whoever drives it, also a final one.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        engine = self._open()
        watch = engine.runs.watch(check.run_id(run_id))
        if watch is None:
            row = engine.runs.run(run_id)
            if row is None:
                raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")
            # While a runner is paused its liaison rests, which would hear of the end: who waits looks.
            if row["completed_at"] is None and not self._paused:
                watch = engine.runs.watch_anywhere(run_id)
        return Run(self, run_id, watch)

    def submit_many(
        self,
        workflow_name: str | Workflow,
        contexts: Iterable[ContextLike | None],
        *,
        run_keys: Iterable[str | None] | None = None,
        run_key_ttl: Duration = RUN_KEY_TTL,
        progress: bool = False,
        priority: int | None = None,
        at: str | datetime | None = None,
        delay: Duration | None = None,
        parent: Run | str | None = None,
        connection: object = None,
        **unknown: Never,
    ) -> list[Run]:
        """Starts a run for each context, all in one transaction, and returns once they are kept.

        Args:
            workflow_name (str | Workflow): a registered workflow.
            contexts (Iterable): what the first tasks of each get.
            run_keys (Iterable | None): a run key for each context, or `None` for none; see `submit`.
            run_key_ttl (Duration): how long they hold.
            progress (bool): count them meanwhile by a line on standard error, if that is a terminal.
            priority (int | None): how urgent all of them are; see `submit`.
            at (str | datetime | None): when all of them begin, or later.
            delay (Duration | None): how long from now.
            parent (Run | str | None): the run of which all of them come; see `submit`.
            connection (object): in whose transaction all of them are asked for; see `submit`.

        Raises:
            ArgumentError: (a `ValueError`) as `submit`; the runs of the other keys are started.
            What `execute` raises, before any of them is started.
        """
        if unknown:
            refuse_keywords("submit_many()", unknown, Runs.submit_many.__kwdefaults__)
        engine = self._working()
        name = _name_of(workflow_name)
        when = urgency.of(priority, at, delay)
        if isinstance(contexts, str | bytes) or not isinstance(contexts, Iterable):
            raise ArgumentTypeError(f"contexts is {excerpt(contexts)}; it must be a list of contexts")
        if run_keys is not None and (isinstance(run_keys, str) or not isinstance(run_keys, Iterable)):
            raise ArgumentTypeError(
                f"run_keys is {excerpt(run_keys)}; it must be a list of run keys, or None"
            )
        given = check.parent(parent, connection)
        if connection is not None:
            wanted = list(contexts)
            wishes: list[str | None] = [None] * len(wanted) if run_keys is None else list(run_keys)
            return self._asked_in(name, wanted, wishes, run_key_ttl, when).ask(connection)
        self._declarations.chosen.refuse(name)
        limit = engine.context_bytes_max
        if check.flag(progress, "progress"):
            from .progress import counted

            contexts = list(contexts)
            contexts = counted(name, contexts, len(contexts))
        encoded = [encode_within(limit, context, "the context") for context in contexts]
        keys = None if run_keys is None else [check.run_key(key, run_key_ttl) for key in run_keys]
        if keys is not None:
            _refuse_lengths(len(keys), len(encoded))
        has_keys = [False] * len(encoded) if keys is None else [key is not None for key in keys]
        if given is not None:
            self._refuse_unknown(given)
        calls = self._calls(name, has_keys, given)
        watches = self._begun(name, encoded, keys, calls, when)
        if keys is None and not _numbers(calls):
            if watches:
                watches[-1].wait_started()
            return [Run(self, watch.id, watch) for watch in watches]
        # Each is told by itself which run has its key.
        for watch in watches:
            watch.wait_started()
        if keys is None:
            keys = [None] * len(encoded)
        return [self._keyed(*parts, _numbers(calls)) for parts in zip(watches, keys, encoded, strict=True)]

    def _asked_in(
        self,
        workflow_name: object,
        contexts: list[ContextLike | None],
        run_keys: list[str | None],
        run_key_ttl: Duration,
        when: Urgency | None,
    ) -> inbox.Wishes:
        """What a connection of the program's is to ask for."""
        from . import inbox

        engine, name = self._working(), _name_of(workflow_name)
        inbox.refuse_no_server(self._url)
        _refuse_lengths(len(run_keys), len(contexts))
        limit, key_seconds = engine.context_bytes_max, check.span(run_key_ttl, "run_key_ttl")
        encoded = [encode_within(limit, context, "the context") for context in contexts]
        keys = [check.run_key(key, run_key_ttl) for key in run_keys]
        fitting = [None if key is None else inbox.key_that_fits(key[0]) for key in keys]
        return inbox.Wishes(self, name, encoded, fitting, key_seconds, when)

    def _inbox_schema(self) -> str:
        """In which schema the store is, and with it the function `submit`."""
        if self._schema is None:
            [found] = self._open().store.look("SELECT current_schema() AS schema", [])
            self._schema = found["schema"]
        return self._schema

    def _waits_in_inbox(self, run_id: str) -> bool:
        from . import inbox

        return inbox.is_on_server(self._url) and bool(self._open().store.look(_WAITS, [run_id]))

    def _begun_keyed(
        self,
        workflow_name: object,
        context: ContextLike | None,
        run_key: str,
        run_key_ttl: Duration,
        when: Urgency | None,
        parent: str | None = None,
    ) -> Keyed:
        """What `_keyed` is to be told once the watch knows of its run."""
        engine, name = self._working(), _name_of(workflow_name)
        self._declarations.chosen.refuse(name)
        encoded = encode_within(engine.context_bytes_max, context, "the context")
        key = check.run_key(run_key, run_key_ttl)
        calls = self._calls(name, (True,), parent)
        [watch] = self._begun(name, [encoded], [key], calls, when)
        return watch, key, encoded, _numbers(calls)

    def _keyed(
        self, watch: Watch, key: tuple[str, float] | None, encoded: str, is_called: bool = False
    ) -> Run:
        """The run that a submit with a run key stands for: its own, or the one that has the key."""
        run = Run(self, watch.id, watch, is_called)
        of = watch.stands_for
        if of is None:
            return run
        if key is None:
            return self._called(run)
        row = self._open().runs.run(of)
        if row is not None and self._is_own_child(row):
            return self._called(run)
        if row is not None and not same(decode_value(row["context"]), decode_value(encoded)):
            raise ArgumentError(
                f"run_key {excerpt(key[0])} has run {of} already, whose context is another one;"
                " a key stands for one event"
            )
        return self.run(of)

    def _submit(
        self,
        workflow_name: object,
        context: ContextLike | None,
        when: Urgency | None = None,
        parent: str | None = None,
    ) -> Run:
        engine = self._working()
        workflow_name = _name_of(workflow_name)
        self._declarations.chosen.refuse(workflow_name)
        encoded = encode_within(engine.context_bytes_max, context, "the context")
        calls = self._calls(workflow_name, (False,), parent)
        watch = self._begun(workflow_name, [encoded], None, calls, when)[0]
        return Run(self, watch.id, watch, _numbers(calls))

    def _refuse_unknown(self, parent: str) -> None:
        """Raises `WorkflowError` if that run, which is named as a parent, is none of the store's."""
        engine = self._working()
        if engine.runs.watch(parent) is None and engine.runs.run(parent) is None:
            raise WorkflowError(
                f"run {parent}, named as parent, not found; list_runs() shows those that exist"
            )

    def _calls(self, workflow: str, has_keys: Sequence[bool], parent: str | None) -> Calls | None:
        """How runs are called that the body starts that asks; `None` outside of one. Where a parent is named
        they are no calls."""
        if parent is not None:
            return int(parent.replace("-", ""), 16), None, None
        body = attempt.body(self._engine)
        return None if body is None else body.calls(workflow, has_keys)

    def _is_own_child(self, row: dict[str, Any]) -> bool:
        """Whether a task calls this that has started that run in an attempt before, or in this one."""
        body = attempt.body(self._engine)
        if body is None or body.job is None or body.is_home:
            return False
        return bool(row["parent_run"] == attempt.run_id(body.job) and row["parent_task"] == body.name)

    def _called(self, run: Run) -> Run:
        """The run that a task's call stands for: a new one, or the child that it called before, which is
        opened again if it did not complete."""
        assert run._watch is not None, "a run that was submitted is watched"
        run._watch.wait_started()
        if (of := run._watch.stands_for) is None:
            return run
        engine = self._working()
        watch = None
        while watch is None:
            row = engine.runs.run(of)
            if row is None:
                raise WorkflowError(f"run {of}, which this task called before, is not kept any more")
            if row["status"] not in filters.ENDED_BADLY:
                watch = engine.runs.watch(of)
                break
            # None if somebody else was faster: then there is something else to see.
            watch = engine.runs.retry(of)
        return Run(self, of, watch, True)

    def _begun(
        self,
        workflow: str,
        encoded: list[str],
        keys: list[tuple[str, float] | None] | None,
        calls: Calls | None,
        when: Urgency | None,
        trigger: str | None = None,
    ) -> list[Watch]:
        """Watches on new runs, in the hands of this runner or, if it is a client, in anyone's."""
        if (spans := tracing.active()) is None:
            return self._asked_for(workflow, encoded, keys, calls, when, None)
        with spans.sending(workflow, len(encoded), trigger) as sending:
            watches = self._asked_for(workflow, encoded, keys, calls, when, sending.trace)
            sending.sent([watch.id for watch in watches])
            return watches

    def _asked_for(
        self,
        workflow: str,
        encoded: list[str],
        keys: list[tuple[str, float] | None] | None,
        calls: Calls | None,
        when: Urgency | None,
        trace: str | None,
    ) -> list[Watch]:
        engine = self._working()
        if self._works:
            declared = registry.workflow(workflow)
            try:
                begun: list[Watch] = engine.runs.submit(workflow, encoded, keys, calls, when, trace)
                return begun
            except WorkflowError:
                # What is not declared here others may declare, or have declared.
                if declared is not None:
                    raise
        version = self._served.version(workflow)
        offered: list[Watch] = engine.runs.offer(workflow, version, encoded, keys, calls, when, trace)
        return offered

    def _refuse_unserved(self, workflow_name: object, context: ContextLike | None) -> None:
        """Raises `WorkflowError` where a runner that works would wait for a run that nobody could begin."""
        name = _name_of(workflow_name)
        if self._works and name not in self._declarations.workflows and not registry.knows(name):
            # What is wrong with an argument is said first.
            encode_within(self._working().context_bytes_max, context, "the context")
            self._served.refuse(name)

    def cancel(self, run_id: str) -> None:
        """Asks for a run's end: no further task of it starts, a running one may finish. A final run stays as
        it is. The unfinished runs that its tasks have started are to end with it, and theirs.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        self._cancel(run_id)

    def _cancel(self, run_id: str) -> bool:
        """The same, and whether it was not over by then."""
        engine = self._open()
        is_asked = bool(engine.runs.cancel(check.run_id(run_id)))
        if not is_asked and engine.runs.run(run_id) is None:
            raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")
        return is_asked

    def tell_soon(self, run_id: str) -> bool:
        """Has the callback of a run's end, which waits after a call that raised, be called now: by whoever
        declares its workflow, from any program that has opened the store.

        One that raises again is called again after the pause that comes next. One that is being called is
        left alone.

        Args:
            run_id (str): the run.

        Returns:
            Whether there is such a callback: `False` if there was none, or it was told, or is being called.

        Raises:
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        return bool(self._open().runs.call_soon(check.run_id(run_id)))

    def skip_callback(self, run_id: str) -> bool:
        """Has the callback of a run's end, which waits after a call that raised, not be called any more: the
        way out where it will never succeed. From any program that has opened the store.

        The run stays as it is, and `last_callback` of `get_run` tells of it. One that is being called is left
        alone. It can't be taken back; a run that is retried has another end.

        Args:
            run_id (str): the run.

        Returns:
            Whether there was such a callback: `False` if there was none, or it was told, or is being called.

        Raises:
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        run_id = check.run_id(run_id)
        is_gone = bool(self._open().runs.skip_call(run_id))
        if is_gone:
            text = "run %s: its callback was skipped by a call"
            say("cloaca.callback", INFO, text, run_id, about={"cloaca_run": run_id})
        return is_gone

    def retry(self, run_id: str) -> Run:
        """Opens a run that failed or was cancelled again: tasks that completed stay, the others are decided
        anew, as are those that come after one of them, such as what cleans up behind a task that failed.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run, or it completed, or has not ended, or its
                workflow is not declared in this program.
            StoreError: (a `RuntimeError`) another run of its trigger with an equal context is unfinished.
        """
        engine = self._working()
        row = engine.runs.run(check.run_id(run_id))
        if row is not None:
            self._refuse_retry(run_id, row["workflow_name"])
        watch = engine.runs.retry(run_id) if self._works else self._reopened(engine, run_id)
        if watch is None:
            raise self._not_open(run_id)
        return Run(self, run_id, watch)

    def _refuse_retry(self, run_id: str, workflow: str) -> None:
        """Raises `WorkflowError` for a run of a workflow that this runner is not for, or the program does not
        declare: opened again by whom nobody could run it, it would be kept from those who can."""
        if not self._works:
            return
        self._declarations.chosen.refuse(workflow)
        if registry.workflow(workflow) is None:
            raise WorkflowError(
                f"run {run_id} is of workflow {excerpt(workflow)}, which is not declared here; "
                "retry it in a program that declares it"
            )

    def _reopened(self, engine: Any, run_id: str) -> Watch | None:
        """A watch on a run that was opened again for others."""
        [(is_open, refusal)] = engine.runs.reopen_each([run_id])
        if refusal is not None:
            raise StoreError(refusal)
        return engine.runs.watch_anywhere(run_id) if is_open else None

    def _not_open(self, run_id: str) -> WorkflowError:
        row = self._open().runs.run(run_id)
        stands = "is not there" if row is None else f"is {row['status']}"
        return WorkflowError(f"run {run_id} {stands}; only a Failed or Cancelled run can be retried")

    def why_run(self, run_id: str) -> str:
        """One sentence that says where a run stands, and what its end waits for.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        run_id = check.run_id(run_id)
        store = self._open().store
        told: str = store.within(LOOKS_SECONDS, lambda: store.after_flush(lambda: self._why_run_now(run_id)))
        return told

    def _why_run_now(self, run_id: str) -> str:
        try:
            told = self._redactor.of_run(self._redactor.mask(), run_id).hide(self._why_run(run_id))
        except (RunnerError, StoreError):
            if not self._has_stopped():
                raise
            return STOPPED
        return f"{STOPPED}; before that: {told}" if self._has_stopped() else told

    def _why_run(self, run_id: str) -> str:
        runs = self._open().runs
        row = runs.run(run_id)
        standing = None
        if row is not None and row["completed_at"] is None:
            standing = runs.standing(run_id)
            if standing is None:
                # It may have ended between the two looks, and no runner has what is over.
                row = runs.run(run_id)
        if row is None:
            raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")
        if row["completed_at"] is not None:
            by = audit.cancelled(self._open().store.look, row)
            return why_run.of_final(row, "" if by is None else audit.by(by["who"], by["door"], by["place"]))
        paused = "" if row["started_at"] else self._of_paused(row["workflow_name"])
        if standing is not None:
            names = ("max_concurrent_tasks", "max_async_tasks")
            permits = [(name, getattr(self._config, name)) for name in names]
            is_limited = any(task["doing"] == "limited" for task in standing.get("tasks", ()))
            limits = {each["name"]: each for each in self._open().store.limits()} if is_limited else {}
            executors, is_lost = self._crew.places.names, self._crew.has_lost_loop()
            told = why_run.of_own(row, standing, permits, executors, limits, is_lost)
            return told + paused
        return self._why_elsewhere(row) + paused

    def _why_elsewhere(self, row: dict[str, Any]) -> str:
        engine = self._open()
        found = engine.store.look(_HOLDER, [row["id"]])
        if not found and self._waits_in_inbox(row["id"]):
            return why_run.of_asked(row) + self._idles + self._of_idle(row["workflow_name"])
        gone = {"owner": None, "cancelled": 0, "not_before": None, "limited": 0, "is_living": 0}
        holder = found[0] if found else gone
        owner = holder["owner"]
        if owner is not None and owner == engine.runs.owner():
            return why_run.of_taken(row, engine.store.trouble())
        is_ours = self._declarations.chosen.has_workflow(row["workflow_name"]) and not self._idles
        looks = is_ours and registry.knows(row["workflow_name"])
        # The clock may have come further than who claims.
        waits = row["due_at"] if holder["not_before"] is not None else None
        if holder["limited"] and (told := self._why_held(engine, row["id"])):
            return why_run.of_held(row, told, bool(holder["cancelled"])) + self._idles
        # Whose process has just died stands there until another runner notices.
        is_living = owner is not None and bool(holder["is_living"]) and self._is_alive(owner)
        cancelled = bool(holder["cancelled"])
        if not is_living:
            told = why_run.of_other(row, owner, is_living, cancelled, looks, waits)
        else:
            look = engine.store.look
            turn = waiting.turn(look, row["id"], row["trigger_name"])
            left = [each for each in row["children"] if each["completed_at"] is None]
            what = waiting.child((each["id"], each["workflow_name"]) for each in left)
            what += waiting.seats(look, engine.store.limits, row["id"])
            told = why_run.of_other(row, owner, True, cancelled, looks, waits, turn=turn, waits=what)
        idle = "" if is_living or looks else self._of_idle(row["workflow_name"])
        return told + self._idles + idle

    def _why_held(self, engine: Any, run_id: str) -> str | None:
        keyed = self._redactor.keyed(self._redactor.mask())
        return held.of_run(engine.store.look, run_id, engine.now(), moment, keyed)


def _numbers(calls: Calls | None) -> bool:
    """Whether a body calls, which finds what it has called before."""
    return calls is not None and calls[2] is not None


def _refuse_lengths(keys: int, contexts: int) -> None:
    if keys != contexts:
        raise ArgumentError(f"run_keys has {keys} keys for {contexts} contexts; give one for each")


def _limit(timeout: object) -> float | None:
    return None if timeout is None else check.seconds(timeout, "timeout")


def _name_of(workflow: object) -> str:
    if isinstance(workflow, Workflow):
        return workflow.name
    return check.text(workflow, "workflow_name", WorkflowError)


def over_already(run_id: str) -> str:
    """Why a run is not cancelled."""
    return f"run {run_id} is over already; only a run that is not can be cancelled"
