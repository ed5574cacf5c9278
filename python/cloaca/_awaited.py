"""What a runner does for event loops: the awaitable twins of calls that wait, and what those say on a loop
that must not wait.

Decides nothing. Invariant: nothing here holds up the loop that awaits it, and no wait for a run needs a
thread.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress

from . import living, registry, urgency
from .apart import apart, running_loop
from .check import flag, seconds, span
from .check import parent as named
from .errors import RunnerError, WorkflowError
from .kind import is_a
from .near import refuse_keywords
from .run import RUN_KEY_TTL, Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType
    from typing import Any, Never, Self

    from ._cloaca import Watch
    from ._runs import Keyed
    from .crew import Crew
    from .inbox import Wishes
    from .redact import Redactor
    from .result import WorkflowResult
    from .served import Served
    from .types import ContextLike, Duration, TickAnswer, TriggerRef, Waits
    from .urgency import Urgency
    from .workflow import Workflow


class Awaited:
    """The part of a runner that event loops await.

    Each of these calls may be made on any event loop, in any thread; the loop goes on meanwhile.
    """

    if TYPE_CHECKING:
        _closed: bool
        _crew: Crew
        _engine: Any
        _redactor: Redactor
        _served: Served
        _works: bool

        def _open(self) -> Any: ...
        def _shutdown_seconds(self) -> float: ...
        def _submit(
            self,
            workflow_name: object,
            context: ContextLike | None,
            when: Urgency | None = None,
            parent: str | None = None,
        ) -> Run: ...
        def _refuse_unknown(self, parent: str) -> None: ...
        def _refuse_unserved(self, workflow_name: object, context: ContextLike | None) -> None: ...
        def _called(self, run: Run) -> Run: ...
        def _begun_keyed(
            self,
            workflow_name: object,
            context: ContextLike | None,
            run_key: str,
            run_key_ttl: Duration,
            when: Urgency | None,
            parent: str | None = None,
        ) -> Keyed: ...
        def _keyed(
            self, watch: Watch, key: tuple[str, float] | None, encoded: str, is_called: bool = False
        ) -> Run: ...
        def _asked_in(
            self,
            workflow_name: object,
            contexts: list[ContextLike | None],
            run_keys: list[str | None],
            run_key_ttl: Duration,
            when: Urgency | None,
        ) -> Wishes: ...
        def shutdown(self, timeout: Duration | None = None, *, wait: Waits = "bodies") -> None: ...
        def _shutdown_at_once(self) -> None: ...
        def tick(
            self, trigger_name: TriggerRef, dry_run: bool = False, *, unmasked: bool = False
        ) -> TickAnswer: ...
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
        ) -> Run: ...

    _uses_program_loop = True
    """Whether `async with` has async bodies run on the loop that it stands on."""

    async def execute_async(
        self,
        workflow_name: str | Workflow,
        context: ContextLike | None = None,
        *,
        check: bool = False,
        timeout: Duration | None = None,
        cancel_on_abandon: bool = False,
        priority: int | None = None,
    ) -> WorkflowResult:
        """Like `execute`, without blocking the event loop, and without a thread that waits.

        Args:
            timeout (Duration | None): how long to wait, in seconds, or as `"30s"`; the run goes on after
                that. `None` waits for ever.
            cancel_on_abandon (bool): ask for the run's end if the wait is cancelled, by a time-out around it
                or a client that is gone. Otherwise the run goes on.
            priority (int | None): how urgent it is; see `submit`.

        Raises:
            StoreError: (a `RuntimeError`) the store has taken nothing for 30 s: the run is not kept yet; or,
                sooner, it cannot say whether there is a workflow that this program neither declares nor has
                asked for before, and no run is begun.
        """
        checks, abandons = flag(check, "check"), flag(cancel_on_abandon, "cancel_on_abandon")
        if timeout is not None:
            seconds(timeout, "timeout")
        await self._know(workflow_name, lambda: self._refuse_unserved(workflow_name, context))
        run = self._submit(workflow_name, context, urgency.of(priority, None, None))
        try:
            if run._is_called:
                run = await self._called_async(run)
            result = await run.wait(timeout)
        except BaseException as raised:
            if abandons and is_a(raised, sys.modules["asyncio"].CancelledError):
                self._crew.begin("cancel", run._abandon)
            raise
        return result.raise_for_failure() if checks else result

    async def _know(self, workflow_name: object, first: Callable[[], None] | None = None) -> None:
        """Has the store asked for a workflow that this program does not declare, away from the loop."""
        name = workflow_name if isinstance(workflow_name, str) else getattr(workflow_name, "name", None)
        if self._closed or not isinstance(name, str) or (self._works and registry.knows(name)):
            return
        if first is None and self._served.is_fresh(name):
            return

        def look() -> None:
            if first is not None:
                first()
            with suppress(WorkflowError):  # told once more, and after what else is wrong
                self._served.version(name)

        await self._crew.looks().call(look)

    async def _called_async(self, run: Run) -> Run:
        """What `Runs._called` gives, for a run that may not be kept yet."""
        assert run._watch is not None, "a run that was submitted is watched"
        await self._crew.awaiter().wait_started(run._watch, run.id)
        if run._watch.stands_for is None:
            return run
        # What has become of that one is read from the store.
        return await apart("submit", lambda: self._called(run))

    async def submit_async(
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
        """Like `submit`, without blocking the event loop; `await` the run for its end.

        Args:
            connection (object): one that is awaited: psycopg's `AsyncConnection`, asyncpg's, SQLAlchemy's
                `AsyncConnection` or `AsyncSession`; see `submit`.

        Raises:
            StoreError: (a `RuntimeError`) as `execute_async` raises it.
        """
        if unknown:
            refuse_keywords("submit_async()", unknown, Awaited.submit_async.__kwdefaults__)
        when = urgency.of(priority, at, delay)
        given = named(parent, connection)
        if connection is not None:
            asked = self._asked_in(workflow_name, [context], [run_key], run_key_ttl, when)
            return (await asked.ask_async(connection))[0]
        await self._know(workflow_name)
        if given is not None:
            await self._crew.looks().call(lambda: self._refuse_unknown(given))
        if run_key is not None:
            parts = self._begun_keyed(workflow_name, context, run_key, run_key_ttl, when, given)
            watch = parts[0]
            await self._crew.awaiter().wait_started(watch, watch.id)
            if watch.stands_for is None:
                return self._keyed(*parts)
            # Which run has the key is read from the store.
            had: Run = await self._crew.looks().call(lambda: self._keyed(*parts))
            return had
        if run_key_ttl is not RUN_KEY_TTL:
            span(run_key_ttl, "run_key_ttl")
        run = self._submit(workflow_name, context, when, given)
        if run._is_called:
            return await self._called_async(run)
        assert run._watch is not None, "a run that was submitted is watched"
        await self._crew.awaiter().wait_started(run._watch, run.id)
        return run

    async def tick_async(
        self, trigger_name: TriggerRef, dry_run: bool = False, *, unmasked: bool = False
    ) -> TickAnswer:
        """Like `tick`, without blocking the event loop: an async trigger is awaited where the runner's async
        bodies run, an ordinary one is called on another thread."""
        return await apart("tick", lambda: self.tick(trigger_name, dry_run, unmasked=unmasked))

    async def shutdown_async(self, timeout: Duration | None = None, *, wait: Waits = "bodies") -> None:
        """Like `shutdown`, without blocking the event loop: its async bodies may end meanwhile. If it is
        cancelled, as by a second Ctrl-C, it waits for nobody any more."""
        from asyncio import CancelledError

        if running_loop() is None:
            # The coroutine that awaits it is thrown away: nobody goes on with it, or waits.
            self.shutdown(0.0)
            return
        try:
            await apart("shutdown", lambda: self.shutdown(timeout, wait=wait), is_daemon=True)
        except CancelledError:
            self._shutdown_at_once()
            raise

    async def __aenter__(self) -> Self:
        if self._uses_program_loop and not self._crew.use_loop(running_loop()):
            warnings.warn(
                "async bodies of this runner have begun on another event loop, and stay there; make the"
                " runner in `async with DefaultRunner(...)`, or with loop=",
                RuntimeWarning,
                stacklevel=2,
            )
        living.begin(self)  # type: ignore[arg-type]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown_async(self._shutdown_seconds())

    def _blocks(self, call: str, twin: str, *, waits_for: str | None = None) -> None:
        """Says what is wrong with a call that waits on the loop of async bodies.

        Args:
            waits_for: the async body that it would wait for.
        """
        if self._crew.on_loop() is None:
            return
        if waits_for is not None:
            raise RunnerError(
                f"{call} would wait for ever on this thread: its event loop is the one that {waits_for} runs"
                f" on; use `await {twin}`"
            )
        warnings.warn(
            f"{call} blocks the event loop that the runner's async bodies run on; use `await {twin}`",
            RuntimeWarning,
            stacklevel=3,
        )
