"""What a runner says and does about runs.

Decides nothing: it checks arguments and words what the engine refuses.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import check, registry, why_run
from ._listings import Listings
from .check import flag
from .context import decode_value, encode_within, same
from .errors import ArgumentError, ArgumentTypeError, WorkflowError, excerpt
from .run import Run, result_of
from .workflow import Workflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._cloaca import Watch
    from .config import DefaultRunnerConfig
    from .crew import Crew
    from .declarations import Declarations
    from .result import WorkflowResult
    from .types import ContextLike, Duration


_HOLDER = """
    SELECT runs.owner, runs.cancelled, owners.epoch IS NOT NULL AS is_living
    FROM runs LEFT JOIN owners ON owners.epoch = runs.owner AND owners.left_at IS NULL WHERE runs.id = ?"""


RUN_KEY_TTL = "30d"
"""How long the run key of a submit holds, unless said otherwise."""


class Runs(Listings):
    """The part of a runner that is about runs."""

    if TYPE_CHECKING:
        _engine: Any
        _config: DefaultRunnerConfig
        _crew: Crew

        _declarations: Declarations
        _paused: bool

        def _open(self) -> Any: ...
        def _working(self) -> Any: ...

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
    ) -> WorkflowResult:
        """Runs a workflow and waits until the run is final.

        A failing task is no exception unless `check` is true: look at `status`.

        Args:
            workflow_name (str | Workflow): a registered workflow.
            context (ContextLike | None): what its first tasks get.
            check (bool): raise if the run fails or is cancelled, as `WorkflowResult.raise_for_failure` does.

        Raises:
            WorkflowError: (a `ValueError`) no such workflow; the message names those that exist.
            ContextError, ContextTypeError: the context is not JSON, or too large for this runner.
            RunnerError: (a `RuntimeError`) the runner is shut down.
            RunFailedError: (a `RuntimeError`) with `check`, the run failed or was cancelled.
            ArgumentError: (a `ValueError`) `check` is no `bool`.
        """
        checks = flag(check, "check")
        result = self._submit(workflow_name, context).result()
        return result.raise_for_failure() if checks else result

    async def execute_async(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        check: bool = False,
    ) -> WorkflowResult:
        """Like `execute`, without blocking the event loop, and without a thread that waits."""
        checks = flag(check, "check")
        run = self._submit(workflow_name, context)
        assert run._watch is not None, "a run that was submitted is watched"
        result = result_of(await self._crew.awaiter.wait(run._watch))
        return result.raise_for_failure() if checks else result

    def submit(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        run_key: str | None = None,
        run_key_ttl: Duration = RUN_KEY_TTL,
    ) -> Run:
        """Starts a run and returns once it is kept; `Run.result` waits for its end.

        Args:
            workflow_name (str | Workflow): a registered workflow.
            context (ContextLike | None): what its first tasks get.
            run_key (str | None): starts at most one run of its workflow while it holds: who comes with it
                once more, in this program or another one, gets that run, however it ended.
            run_key_ttl (Duration): how long it holds: `"30d"`, seconds, a `timedelta`. The run
                is kept as long, whatever `retention` says.

        Raises:
            ArgumentError: (a `ValueError`) a run key that is empty or no text, a bad `run_key_ttl`, or the
                run of that key has another context; the message names it.
            What `execute` raises.
        """
        if run_key is not None:
            name = _name_of(workflow_name)
            return self.submit_many(name, [context], run_keys=[run_key], run_key_ttl=run_key_ttl)[0]
        if run_key_ttl is not RUN_KEY_TTL:
            check.span(run_key_ttl, "run_key_ttl")
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
        watch = engine.runs.watch(check.run_id(run_id))
        if watch is None and engine.runs.run(run_id) is None:
            raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")
        return Run(self, run_id, watch)

    def submit_many(
        self,
        workflow_name: str | Workflow,
        contexts: Iterable[ContextLike | None],
        *,
        run_keys: Iterable[str | None] | None = None,
        run_key_ttl: Duration = RUN_KEY_TTL,
    ) -> list[Run]:
        """Starts a run for each context, all in one transaction, and returns once they are kept.

        Args:
            workflow_name (str | Workflow): a registered workflow.
            contexts (Iterable): what the first tasks of each get.
            run_keys (Iterable | None): a run key for each context, or `None` for none; see `submit`.
            run_key_ttl (Duration): how long they hold.

        Raises:
            ArgumentError: (a `ValueError`) as `submit`; the runs of the other keys are started.
            What `execute` raises, before any of them is started.
        """
        engine = self._working()
        name = _name_of(workflow_name)
        self._declarations.chosen.refuse(name)
        if isinstance(contexts, str | bytes) or not isinstance(contexts, Iterable):
            raise ArgumentTypeError(f"contexts is {excerpt(contexts)}; it must be a list of contexts")
        if run_keys is not None and (isinstance(run_keys, str) or not isinstance(run_keys, Iterable)):
            raise ArgumentTypeError(
                f"run_keys is {excerpt(run_keys)}; it must be a list of run keys, or None"
            )
        limit = engine.context_bytes_max
        encoded = [encode_within(limit, context, "the context") for context in contexts]
        registry.workflow(name)
        keys = None if run_keys is None else [check.run_key(key, run_key_ttl) for key in run_keys]
        if keys is not None and len(keys) != len(encoded):
            raise ArgumentError(
                f"run_keys has {len(keys)} keys for {len(encoded)} contexts; give one for each"
            )
        watches = engine.runs.submit(name, encoded, keys)
        if keys is None:
            if watches:
                watches[-1].wait_started()
            return [Run(self, watch.id, watch) for watch in watches]
        # Each is told by itself which run has its key.
        for watch in watches:
            watch.wait_started()
        return [self._keyed(*parts) for parts in zip(watches, keys, encoded, strict=True)]

    def _keyed(self, watch: Watch, key: tuple[str, float] | None, encoded: str) -> Run:
        """The run that a submit with a run key stands for: its own, or the one that has the key."""
        of = watch.stands_for
        if of is None or key is None:
            return Run(self, watch.id, watch)
        row = self._open().runs.run(of)
        if row is not None and not same(decode_value(row["context"]), decode_value(encoded)):
            raise ArgumentError(
                f"run_key {excerpt(key[0])} has run {of} already, whose context is another one;"
                " a key stands for one event"
            )
        return self.run(of)

    def _submit(self, workflow_name: object, context: ContextLike | None) -> Run:
        engine = self._working()
        workflow_name = _name_of(workflow_name)
        self._declarations.chosen.refuse(workflow_name)
        encoded = encode_within(engine.context_bytes_max, context, "the context")
        registry.workflow(workflow_name)
        watch = engine.runs.submit(workflow_name, [encoded])[0]
        return Run(self, watch.id, watch)

    def cancel(self, run_id: str) -> None:
        """Asks for a run's end: no further task of it starts, a running one may finish. A final run stays as
        it is.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        engine = self._open()
        if not engine.runs.cancel(check.run_id(run_id)) and engine.runs.run(run_id) is None:
            raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")

    def retry(self, run_id: str) -> Run:
        """Opens a run that failed or was cancelled again: tasks that completed stay, the others are decided
        anew.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run, or it completed, or has not ended, or its
                workflow is not declared in this program.
            StoreError: (a `RuntimeError`) another run of its trigger with an equal context is unfinished.
        """
        engine = self._working()
        row = engine.runs.run(check.run_id(run_id))
        if row is not None:
            self._declarations.chosen.refuse(row["workflow_name"])
        if row is not None and registry.workflow(row["workflow_name"]) is None:
            # Opened again by whom nobody could run it, it would be kept from those who can.
            raise WorkflowError(
                f"run {run_id} is of workflow {excerpt(row['workflow_name'])}, which is not declared here; "
                "retry it in a program that declares it"
            )
        watch = engine.runs.retry(run_id)
        if watch is None:
            row = engine.runs.run(run_id)
            stands = "is not there" if row is None else f"is {row['status']}"
            raise WorkflowError(f"run {run_id} {stands}; only a Failed or Cancelled run can be retried")
        return Run(self, run_id, watch)

    def why_run(self, run_id: str) -> str:
        """One sentence that says where a run stands, and what its end waits for.

        Raises:
            WorkflowError: (a `ValueError`) there is no such run.
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        runs = self._open().runs
        row = runs.run(check.run_id(run_id))
        standing = None
        if row is not None and row["completed_at"] is None:
            standing = runs.standing(run_id)
            if standing is None:
                # It may have ended between the two looks, and no runner has what is over.
                row = runs.run(run_id)
        if row is None:
            raise WorkflowError(f"run {run_id} not found; list_runs() shows those that exist")
        if row["completed_at"] is not None:
            return why_run.of_final(row)
        if standing is not None:
            return why_run.of_own(row, standing, self._config.max_concurrent_tasks)
        return self._why_elsewhere(row)

    def _why_elsewhere(self, row: dict[str, Any]) -> str:
        engine = self._open()
        found = engine.store.look(_HOLDER, [row["id"]])
        holder = found[0] if found else {"owner": None, "cancelled": 0, "is_living": 0}
        owner = holder["owner"]
        if owner is not None and owner == engine.runs.owner():
            return why_run.of_taken(row)
        is_ours = self._declarations.chosen.has_workflow(row["workflow_name"]) and not self._paused
        looks = is_ours and registry.knows(row["workflow_name"])
        told = why_run.of_other(row, owner, bool(holder["is_living"]), bool(holder["cancelled"]), looks)
        return f"{told}; this runner is paused" if self._paused else told


def _name_of(workflow: object) -> str:
    if isinstance(workflow, Workflow):
        return workflow.name
    return check.text(workflow, "workflow_name", WorkflowError)
