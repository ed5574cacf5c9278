"""What a runner shows of runs, and what it does to many of them at once.

Decides nothing: it checks arguments, and asks for page after page.
"""

from __future__ import annotations

import logging

from . import check, filters, registry, rows
from .errors import StoreError, WorkflowError
from .plain import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any, Literal

    from .run import Run
    from .types import RunDetails, RunRow, RunStatus

PAGE_RUNS = 200
"""So many runs `iter_runs` reads at once."""

_log = logging.getLogger("cloaca")


class Listings:
    """The part of a runner that shows runs, and changes many."""

    if TYPE_CHECKING:

        def _open(self) -> Any: ...
        def retry(self, run_id: str) -> Run: ...

    def list_runs(
        self,
        workflow: str | None = None,
        status: RunStatus | None = None,
        trigger: str | None = None,
        limit: int = check.PAGE_LIMIT,
        offset: int = 0,
        *,
        key: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        contexts: bool = True,
        after: str | None = None,
    ) -> list[RunRow]:
        """Runs, newest first, as dicts with `id workflow_name status trigger_name run_key context created_at
        started_at completed_at error_message error_type cancel_requested`.

        Args:
            workflow (str | None): only runs of the workflow of this name.
            status (str | None): only those that stand so: `Pending`, `Running`, `Completed`, `Failed`,
                `Cancelled`.
            trigger (str | None): only those that the trigger of this name fired.
            limit (int): at most so many.
            offset (int): leaves out so many first; `after` goes on faster, and misses none meanwhile.
            key (str | None): only those with this run key.
            since (str | datetime | None): only those created then or later, RFC 3339 or a `datetime`; UTC if
                it has no zone.
            until (str | datetime | None): only those created before then.
            error (str | type | None): only those with this `error_type`, such as `"ValueError"`; the class
                itself counts as its name.
            contexts (bool): whether `context` is read; it is decoded when it is looked at.
            after (str | None): only those that come behind the run with this id.

        Raises:
            ArgumentError: (a `ValueError`) a time, an id or a number that is none.
            ArgumentTypeError: (a `TypeError`) an argument of another type.
            WorkflowError: (a `ValueError`) no such status, or the run `after` is not kept.
        """
        runs = self._open().runs
        wanted = filters.wanted(workflow, status, trigger, key, since, until, error)
        wanted["contexts"] = check.flag(contexts, "contexts")
        wanted["after"] = filters.place(runs, after)
        found = runs.runs(wanted, *check.page(limit, offset))
        return [rows.run(row, contexts) for row in found]

    def iter_runs(
        self,
        workflow: str | None = None,
        status: RunStatus | None = None,
        trigger: str | None = None,
        *,
        key: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        contexts: bool = True,
        after: str | None = None,
    ) -> Iterator[RunRow]:
        """All runs that `list_runs` would show, one after the other, read 200 at a time.

        What is created meanwhile is not among them; what is pruned or changed meanwhile costs none of the
        others.

        Raises:
            What `list_runs` raises, at once.
        """
        wanted = filters.wanted(workflow, status, trigger, key, since, until, error)
        wanted["contexts"] = check.flag(contexts, "contexts")
        wanted["after"] = filters.place(self._open().runs, after)
        # Here, and not at the first step: what is wrong is raised where it is written.
        first = self._page(wanted)
        return (rows.run(row, contexts) for row in self._walk(wanted, first))

    def _page(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._open().runs.runs(wanted, PAGE_RUNS, 0)
        return found

    def _walk(self, wanted: dict[str, Any], page: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        while page:
            yield from page
            if len(page) < PAGE_RUNS:
                return
            page = self._page({**wanted, "after": page[-1]["place"]})

    def _ids(self, listings: list[dict[str, Any]], limit: int | None) -> list[str]:
        """The runs of these listings, one listing after the other."""
        found: dict[str, None] = {}
        for wanted in listings:
            for row in self._walk(wanted, self._page(wanted)):
                if limit is not None and len(found) >= limit:
                    return list(found)
                found[row["id"]] = None
        return list(found)

    def get_run(self, run_id: str) -> RunDetails | None:
        """One run like in `list_runs`, with `final_context` and its `tasks`.

        Of a run that is not over these are all tasks of its workflow, if that is declared in this program:
        what has not begun is `Pending`. Each task has `id status attempts error error_type started_at
        completed_at tries`. `tries` are its attempts that are over, oldest first, also those before the run
        was opened again by `retry`; of very many the first 3 and the last 17. Each is a dict:

        - `number` (int): from 1.
        - `outcome` (str): `Completed`, `Failed`, `TimedOut`, or `Interrupted` if its process died, or its
          runner was shut down, while it may have been under way.
        - `started_at`, `ended_at` (str | None): RFC 3339 in UTC; `started_at` is `None` where the beginning
          is on no record. Of one that died with its process `ended_at` is when another runner found that.
        - `error_type` (str | None): the name of the exception's class.
        - `error` (str | None): its class and text.
        - `traceback` (str | None): from the body on, at most 16 KiB; more is cut out of its middle.
        - `runner` (int | None): the number of the runner that made it, as in `owners` of the store; `None`
          where that is on no record, as of an attempt that completed at once.

        Returns:
            dict | None: `None` if there is no such run.

        Raises:
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        row = self._open().runs.run(check.run_id(run_id), tries=True)
        if row is None:
            return None
        plan = [] if row["completed_at"] is not None else registry.plan(row["workflow_name"])
        return rows.run_with_tasks(row, plan)

    def retry_many(
        self,
        workflow: str | None = None,
        status: Literal["Failed", "Cancelled"] | None = None,
        trigger: str | None = None,
        *,
        key: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Opens many runs again, as `retry` does, oldest first.

        Which ones is told as to `list_runs`; at least one argument is needed. Without `status` they are those
        that failed; `status="Cancelled"` takes those that were cancelled.

        Args:
            limit (int | None): at most so many, the newest; `None` for all.

        Returns:
            list[str]: the ids of those that were opened. One that cannot be, because its workflow is not
            declared here or an equal run of its trigger is unfinished, is left out, which the log tells.

        Raises:
            ArgumentError: (a `ValueError`) no filter, or a status that cannot be opened again.
            What `list_runs` raises.
        """
        wanted = filters.wanted(workflow, status, trigger, key, since, until, error)
        listings = filters.narrowed("retry_many", wanted, filters.ENDED_BADLY)[:1]
        opened, left_out = [], []
        for run_id in reversed(self._ids(listings, None if limit is None else check.count(limit, "limit"))):
            try:
                self.retry(run_id)
            except (WorkflowError, StoreError) as raised:
                left_out.append(raised)
            else:
                opened.append(run_id)
        if left_out:
            text = "retry_many left %d runs out, the first because %s"
            say(_log, logging.WARNING, text, len(left_out), left_out[0])
        return opened

    def cancel_many(
        self,
        workflow: str | None = None,
        status: Literal["Pending", "Running"] | None = None,
        trigger: str | None = None,
        *,
        key: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Asks for the end of many runs that are not over, as `cancel` does.

        Which ones is told as to `list_runs`; at least one argument is needed. Those that have not begun are
        asked first, so that none of them begins because another one ends.

        Args:
            limit (int | None): at most so many; `None` for all.

        Returns:
            list[str]: the ids of those whose end was asked for.

        Raises:
            ArgumentError: (a `ValueError`) no filter, or a status of runs that are over.
            What `list_runs` raises.
        """
        wanted = filters.wanted(workflow, status, trigger, key, since, until, error)
        listings = filters.narrowed("cancel_many", wanted, filters.UNFINISHED)
        found = self._ids(listings, None if limit is None else check.count(limit, "limit"))
        runs = self._open().runs
        return [run_id for run_id in found if runs.cancel(run_id)]
