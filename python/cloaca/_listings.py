"""What a runner shows of runs, and what it does to many of them at once.

Decides nothing: it checks arguments, and asks for page after page.
"""

from __future__ import annotations

from itertools import islice

from . import audit, check, filters, logged, registry, rows
from .errors import ArgumentTypeError, StoreError, WorkflowError
from .hidden import NO_SECRETS
from .listed import Listed, Logs
from .near import refuse_keywords, says_keywords
from .plain import WARNING, say
from .repeats import repeated, repeats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any, Literal, Never

    from .redact import Redactor
    from .types import AuditRow, RunDetails, RunRow, RunStatus, TriggerRef
    from .workflow import Workflow

PAGE_RUNS = 200
"""So many runs `iter_runs` reads at once."""

CHANGED_AT_ONCE = 500
"""So many runs one transaction opens again, or asks to end: others who write wait for it."""

_CHANGED = ("key", "parent", "since", "until", "error", "limit")
_ENDED = ("ended_since", "ended_until")
_FILTERS = (*_CHANGED, *_ENDED, "untold", "contexts", "after", "unmasked")

_log = "cloaca"


class Listings:
    """The part of a runner that shows runs, and changes many."""

    if TYPE_CHECKING:
        _redactor: Redactor

        def _open(self) -> Any: ...

        _works: bool

        def _working(self) -> Any: ...
        def _refuse_retry(self, run_id: str, workflow: str) -> None: ...
        def _not_open(self, run_id: str) -> WorkflowError: ...

    def list_runs(
        self,
        workflow: str | Workflow | None = None,
        status: RunStatus | None = None,
        trigger: TriggerRef | None = None,
        limit: int = check.PAGE_LIMIT,
        offset: int = 0,
        *,
        key: str | None = None,
        parent: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        ended_since: str | datetime | None = None,
        ended_until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        untold: bool = False,
        contexts: bool = True,
        after: str | None = None,
        unmasked: bool = False,
        **unknown: Never,
    ) -> Listed[RunRow]:
        """Runs, newest first, as dicts with `id workflow_name status trigger_name run_key parent_run
        parent_task parent_kind context created_at started_at completed_at error_message error_type
        cancel_requested`.

        `parent_run` is the run of which this one came, `parent_kind` how: `task`, of which `parent_task` is
        the id, or `callback` where a body of that run started it by `submit` or `execute`, `end` where a
        trigger with `on_run` fired it as it was told of that run's end, `again` where the command line or the
        page was asked for that run's work once more.

        Args:
            workflow (str | Workflow | None): only runs of this workflow.
            status (str | None): only those that stand so: `Pending`, `Running`, `Completed`, `Failed`,
                `Cancelled`.
            trigger (str | Callable | None): only those that this trigger fired, told by its name or function.
            limit (int): at most so many.
            offset (int): leaves out so many first; `after` goes on faster, and misses none meanwhile.
            key (str | None): only those with this run key.
            parent (str | None): only those that came of the run with this id.
            since (str | datetime | None): only those created then or later, RFC 3339 or a `datetime`; UTC if
                it has no zone.
            until (str | datetime | None): only those created before then.
            ended_since, ended_until (str | datetime | None): only those that ended then or later, and before
                then; the last one to end comes first. Not together with `since` and `until`.
            error (str | type | None): only those with this `error_type`, such as `"ValueError"`; the class
                itself counts as its name.
            untold (bool): only those with an end that `on_success`, `on_failure` or `on_cancel` of their
                workflow is still to be told of.
            contexts (bool): whether `context` is read; it is decoded when it is looked at.
            after (str | None): only those that come behind the run with this id.
            unmasked (bool): show what `redact=` hides, too.

        Raises:
            ArgumentError: (a `ValueError`) a time, an id or a number that is none.
            ArgumentTypeError: (a `TypeError`) an argument of another type.
            WorkflowError: (a `ValueError`) no such status, or the run `after` is not kept.
        """
        refuse_keywords("list_runs", unknown, ("workflow", "status", "trigger", "offset", *_FILTERS))
        runs = self._open().runs
        wanted = filters.wanted(
            workflow, status, trigger, key, since, until, error, parent, ended_since, ended_until, untold
        )
        wanted["contexts"] = check.flag(contexts, "contexts")
        wanted["after"] = filters.place(runs, after, wanted["by_end"])
        found = runs.runs(wanted, *check.page(limit, offset))
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        shown = (rows.run(row, contexts, mask, self._redactor.of_run) for row in found)
        return Listed(shown, "RunRow" if contexts else "RunSummary")

    def iter_runs(
        self,
        workflow: str | Workflow | None = None,
        status: RunStatus | None = None,
        trigger: TriggerRef | None = None,
        *,
        key: str | None = None,
        parent: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        ended_since: str | datetime | None = None,
        ended_until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        untold: bool = False,
        limit: int | None = None,
        contexts: bool = True,
        after: str | None = None,
        unmasked: bool = False,
        **unknown: Never,
    ) -> Iterator[RunRow]:
        """All runs that `list_runs` would show, one after the other, read 200 at a time; with `limit` at most
        so many.

        What is created meanwhile is not among them; what is pruned or changed meanwhile costs none of the
        others.

        Raises:
            What `list_runs` raises, at once.
        """
        refuse_keywords("iter_runs", unknown, ("workflow", "status", "trigger", *_FILTERS))
        wanted = filters.wanted(
            workflow, status, trigger, key, since, until, error, parent, ended_since, ended_until, untold
        )
        wanted["contexts"] = check.flag(contexts, "contexts")
        many = None if limit is None else check.count(limit, "limit")
        wanted["after"] = filters.place(self._open().runs, after, wanted["by_end"])
        # Here, and not at the first step: what is wrong is raised where it is written.
        first = self._page(wanted)
        mask, of_run = self._redactor.mask(check.flag(unmasked, "unmasked")), self._redactor.of_run
        return (rows.run(row, contexts, mask, of_run) for row in islice(self._walk(wanted, first), many))

    def _page(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._open().runs.runs(wanted, PAGE_RUNS, 0)
        return found

    def _walk(self, wanted: dict[str, Any], page: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        while page:
            yield from page
            if len(page) < PAGE_RUNS:
                return
            page = self._page({**wanted, "after": page[-1]["place"]})

    def _ids(self, listings: list[dict[str, Any]], limit: int | None) -> dict[str, str]:
        """The runs of these listings, one listing after the other, each with its workflow."""
        found: dict[str, str] = {}
        for wanted in listings:
            for row in self._walk(wanted, self._page(wanted)):
                if limit is not None and len(found) >= limit:
                    return found
                found[row["id"]] = row["workflow_name"]
        return found

    @says_keywords("get_run()")
    def get_run(self, run_id: str, *, unmasked: bool = False) -> RunDetails | None:
        """One run like in `list_runs`, with `final_context`, its `tasks`, `children`, `callbacks` and
        `last_callback`.

        Of a run that is not over these are all tasks of its workflow, if that is declared in this program:
        what has not begun is `Pending`. Each task has `id status attempts error error_type started_at
        completed_at waits_until waits_since overdue_since tries tries_left_out earlier_version`;
        `waits_until` is when the next attempt begins, where that waits by the task's own wish or for long;
        `waits_since` is since when the body waits without a slot, by `defer_until` or for another run, if it
        has for five seconds; `overdue_since` is when
        an attempt was given up whose body still runs, as far as is known; `earlier_version` is whether the
        version of the workflow with which the run goes on has no such task: what it did before a deploy.
        `tries` are its attempts that are over, oldest first, also those before the run was opened again by
        `retry`; of very many the first 3 and the last 17, and `tries_left_out` is how many there were
        between. Each is a dict:

        - `number` (int): from 1.
        - `outcome` (str): `Completed`, `Failed`, `TimedOut`, or `Interrupted` if its process died, or its
          runner was shut down, while it may have been under way, or `Postponed` if it raised `RetryAfter`, or
          `Cancelled` if it was told to end because its run was cancelled, and left nothing.
        - `started_at`, `ended_at` (str | None): RFC 3339 in UTC; `started_at` is `None` where the beginning
          is on no record. Of one that died with its process `ended_at` is when another runner found that.
        - `error_type` (str | None): the name of the exception's class.
        - `error` (str | None): its class and text.
        - `traceback` (str | None): from the body on, at most 16 KiB; more is cut out of its middle.
        - `runner` (int | None): the number of the runner that made it, as in `owners` of the store; `None`
          where that is on no record, as of an attempt that completed at once.

        `children` are the first 100 runs that came of it, oldest first, as dicts with `id workflow_name
        status kind task trigger_name created_at completed_at`; `list_runs(parent=run_id)` has all of them.
        `kind` is `task` or `callback` of what a body of it started, `end` of what a trigger fired that was
        told of its end, `again` of what does its work once more.

        `trace_id` is the trace of whoever asked for it, with OpenTelemetry: 32 hexadecimal digits.

        `callbacks` are the ends that `on_success`, `on_failure` or `on_cancel` of its workflow is still to be
        told of, as dicts with `status attempts due_at error begun_at runner`: so many calls have begun, when
        the next one is due, what the last one raised, and since when which runner is calling.

        `last_callback` is what became of the last end that no callback is to be told of any more, a dict with
        `status outcome attempts at error`: `told` once the callback came back, `given_up` after a day,
        `skipped` by `skip_callback`, or `dropped` where no runner declared it any more; after how many
        calls, when, and what the last of them raised, unless it was told. It is `None` if there was none.

        Args:
            unmasked (bool): show what `redact=` hides, too.

        Returns:
            dict | None: `None` if there is no such run.

        Raises:
            ArgumentError: (a `ValueError`) `run_id` is no UUID.
        """
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        row = self._open().runs.run(check.run_id(run_id), tries=True)
        if row is None:
            return None
        plan = registry.plan(row["workflow_name"]) if row["graph"] is None else []
        secrets = None if mask is None else self._redactor.of_run(mask, run_id)
        return rows.run_with_tasks(row, plan, mask, secrets)

    @says_keywords("logs()")
    def logs(
        self,
        run_id: str,
        *,
        task: str | None = None,
        attempt: int | None = None,
        level: str | int | None = None,
        after: int | None = None,
        limit: int = 1000,
        unmasked: bool = False,
    ) -> Logs:
        """What the bodies of a run logged, oldest first: the newest `limit` lines, or with `after`, the
        number of a line, the first ones behind that. A runner keeps it that has `keep_logs=`.

        Each is a dict: `number` (give it as `after`), `at`, `level` (`WARNING`, say), `logger`, `text`,
        `task` and `attempt` (`None` of a callback of the run), and `error`, what was raised with its
        traceback. The list's `left_out` is how many older lines of the run are not kept any more.

        Args:
            task (str | None): only what this task logged.
            attempt (int | None): only what that attempt of a task logged.
            level (str | int | None): only what is so grave or graver, by name or number.
            unmasked (bool): show what `redact=` hides, too.

        Raises:
            ArgumentError: (a `ValueError`) `run_id` is no UUID, or there is no such level.
        """
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        run = check.run_id(run_id)
        lines, left_out = logged.found(
            self._open().store.look,
            run,
            NO_SECRETS if mask is None else self._redactor.of_run(mask, run),
            task=None if task is None else check.text(task, "task", ArgumentTypeError),
            attempt=None if attempt is None else check.count(attempt, "attempt"),
            level=logged.level_of(level),
            after=None if after is None else check.count(after, "after"),
            limit=check.count(limit, "limit"),
        )
        return Logs(lines, left_out=left_out)

    @says_keywords("audit()")
    def audit(self, last: int = 100, *, about: str | None = None) -> Listed[AuditRow]:
        """Which changes people made by the page or the command line, newest first; 100,000 are kept.

        Each is a dict: `at`, `who`, `door` (`page` or `cli`), `place` (the page's caller's address), `what`
        (`retry`, `cancel`, `submit`, `enable`, `disable`, `poll`, `forget`, `rename`, `skip`, `set_cursor`,
        `prune`, `pause`, `resume`, `tell`), `about` (a run's id or a trigger's name) and `many`. What
        programs change by this API is not among them.

        Args:
            last (int): at most so many.
            about (str | None): only those of one run, trigger, limit or workflow, also of its keys.
        """
        of = None if about is None else check.text(about, "about", ArgumentTypeError)
        keyed = self._redactor.keyed(self._redactor.mask())
        found = audit.found(self._open().store.look, of, None, check.count(last, "last"), keyed)
        return Listed((row for _, row in found), "AuditRow")

    def retry_many(
        self,
        workflow: str | Workflow | None = None,
        status: Literal["Failed", "Cancelled"] | None = None,
        trigger: TriggerRef | None = None,
        *,
        key: str | None = None,
        parent: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        ended_since: str | datetime | None = None,
        ended_until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        limit: int | None = None,
        **unknown: Never,
    ) -> list[str]:
        """Opens many runs again, as `retry` does, oldest first, 500 in a transaction.

        Which ones is told as to `list_runs`; at least one argument is needed. Without `status` they are those
        that failed; `status="Cancelled"` takes those that were cancelled. What failed last night is found by
        `ended_since=`, whenever it was created.

        Args:
            limit (int | None): at most so many, the newest; `None` for all.

        Returns:
            list[str]: the ids of those that were opened. One that cannot be, because its workflow is not
            declared here or an equal run of its trigger is unfinished, is left out, which the log tells. So
            is one whose work another run does again (`cloaca submit --again`): that one is opened if it
            failed, too, and `retry` opens the first all the same.

        Raises:
            ArgumentError: (a `ValueError`) no filter, or a status that cannot be opened again.
            What `list_runs` raises.
        """
        wanted = filters.wanted(
            workflow, status, trigger, key, since, until, error, parent, ended_since, ended_until
        )
        refuse_keywords("retry_many", unknown, ("workflow", "status", "trigger", *_CHANGED, *_ENDED))
        opened, left_out = self._retried(wanted, None if limit is None else check.count(limit, "limit"))
        if left_out:
            text = "retry_many left %d runs out, the first because %s"
            say(_log, WARNING, text, len(left_out), left_out[0])
        return opened

    def _retried(self, wanted: dict[str, Any], limit: int | None = None) -> tuple[list[str], list[object]]:
        """Opens those again that `_to_retry` tells: the ids of those that were, and why others were not."""
        may, left_out = self._to_retry(wanted, limit)
        runs, opened = self._working().runs, []
        for ids in _batched(may):
            try:
                told = runs.retry_each(ids) if self._works else runs.reopen_each(ids)
            except StoreError as raised:
                told = [(False, str(raised))] * len(ids)
            for run_id, (is_open, refusal) in zip(ids, told, strict=True):
                if is_open:
                    opened.append(run_id)
                else:
                    left_out.append(refusal or self._not_open(run_id))
        return opened, left_out

    def _to_retry(self, wanted: dict[str, Any], limit: int | None = None) -> tuple[list[str], list[object]]:
        """The runs that a filter means to open again, oldest first, and why others of it are left out."""
        listings = filters.narrowed("retry_many", wanted, filters.ENDED_BADLY)[:1]
        self._working()
        left_out: list[object] = []
        may: list[str] = []
        for run_id, of in reversed(self._ids(listings, limit).items()):
            try:
                self._refuse_retry(run_id, of)
            except WorkflowError as raised:
                left_out.append(raised)
            else:
                may.append(run_id)
        done = repeats(self._open().store.look, may)
        left_out += [repeated(run_id, by) for run_id, by in done.items()]
        return [run_id for run_id in may if run_id not in done], left_out

    def cancel_many(
        self,
        workflow: str | Workflow | None = None,
        status: Literal["Pending", "Running"] | None = None,
        trigger: TriggerRef | None = None,
        *,
        key: str | None = None,
        parent: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        error: str | type[BaseException] | None = None,
        limit: int | None = None,
        **unknown: Never,
    ) -> list[str]:
        """Asks for the end of many runs that are not over, as `cancel` does, 500 in a transaction.

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
        wanted = filters.wanted(workflow, status, trigger, key, since, until, error, parent)
        refuse_keywords("cancel_many", unknown, ("workflow", "status", "trigger", *_CHANGED))
        return self._cancelled(wanted, None if limit is None else check.count(limit, "limit"))

    def _cancelled(self, wanted: dict[str, Any], limit: int | None = None) -> list[str]:
        """Asks for the ends of those that `_to_cancel` tells: the ids of those that were not over by then."""
        runs = self._open().runs
        return [
            run_id
            for ids in _batched(self._to_cancel(wanted, limit))
            for run_id, is_found in zip(ids, runs.cancel_each(ids), strict=True)
            if is_found
        ]

    def _to_cancel(self, wanted: dict[str, Any], limit: int | None = None) -> list[str]:
        """The runs that a filter means to end, those first that have not begun."""
        return list(self._ids(filters.narrowed("cancel_many", wanted, filters.UNFINISHED), limit))


def _batched(ids: list[str]) -> Iterator[list[str]]:
    """The same, so many at once as one transaction changes."""
    for start in range(0, len(ids), CHANGED_AT_ONCE):
        yield ids[start : start + CHANGED_AT_ONCE]
