"""What a runner says and does about limits with names, and about what is paused.

Decides nothing: which attempts begin the store's rows decide, for all runners on it.
"""

from __future__ import annotations

import os

from . import check, rows, why_run
from .errors import ArgumentError, WorkflowError, excerpt
from .keyed import pauses
from .limits import KEEP, checked_concurrent, checked_throttle
from .listed import Listed
from .near import hint, says_keywords

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from .limits import Keep, Throttle
    from .redact import Redactor
    from .served import Served
    from .types import LimitRow, PauseRow


class NamedLimits:
    """The part of a runner that is about limits with names and pauses."""

    if TYPE_CHECKING:
        _redactor: Redactor
        _served: Served

        def _open(self) -> Any: ...
        def _begin_paused(self) -> bool: ...

    def list_limits(self) -> Listed[LimitRow]:
        """The limits with names that any program on the store ever declared, by name, as dicts with `name
        concurrency throttle is_set taken waiting waits_since next_at pause`.

        - `concurrency` (int | None), `throttle` (dict | None, with `limit`, `per` in seconds and `burst`):
          what holds, which is what was declared last or what `set_limit` has set.
        - `is_set` (bool): whether it is the latter.
        - `taken`, `waiting` (int): so many attempts have a seat, and so many wait for one, in all runners.
        - `waits_since`, `next_at` (str | None): since when the first of those waits, and when the throttle
          lets the next one begin, if it does not do so now.
        - `pause` (dict | None): as in `list_pauses`.
        """
        return Listed((rows.limit(row) for row in self._open().store.limits()), "LimitRow")

    def set_limit(
        self,
        name: str,
        *,
        concurrency: int | Keep | None = KEEP,
        throttle: Throttle | Keep | None = KEEP,
    ) -> None:
        """Changes a limit while everything runs, for all runners on the store, until `reset_limit`.

        Attempts that have begun go on, also where they are more than may be now. What is not given stays as
        it is, and `None` takes that bound away. A program that declares the limit otherwise changes nothing
        meanwhile, and its log says so.

        Args:
            name (str): the limit's name.
            concurrency (int | None): so many attempts at once.
            throttle (Throttle | None): how fast they may begin.

        Raises:
            WorkflowError: (a `ValueError`) no program on the store ever declared such a limit; or a bound
                that makes no sense, or neither of them.
        """
        if concurrency is KEEP and throttle is KEEP:
            raise WorkflowError(
                "set_limit needs concurrency or throttle; reset_limit goes back to what is declared"
            )
        many = KEEP if concurrency is KEEP else checked_concurrent(concurrency)
        pace = KEEP if throttle is KEEP else checked_throttle(throttle)
        known = self._limit(name)
        terms = known["terms"]
        if many is KEEP:
            many = terms["concurrency"]
        parts = terms["throttle"] if pace is KEEP else None if pace is None else pace._parts()
        self._open().store.set_limit(known["name"], (many, parts))

    def reset_limit(self, name: str) -> None:
        """Takes `set_limit` back: what a program has declared last holds again.

        Raises:
            WorkflowError: (a `ValueError`) no program on the store ever declared such a limit.
        """
        self._open().store.set_limit(self._limit(name)["name"], None)

    @says_keywords("pause()")
    def pause(
        self,
        *,
        workflow: str | None = None,
        key: str | None = None,
        limit: str | None = None,
        until: datetime | str | None = None,
    ) -> None:
        """Holds up what would begin of a workflow or under a limit, in all runners on the store. What has
        begun goes on; triggers and crons go on firing. A second call takes the first one's place.

        Of a workflow no run begins: what is submitted or fired waits in the store. Runs that have begun go
        on, with their next tasks. With `key` that holds only of the runs that its `concurrency` or `throttle`
        counts for this value of its key; what a runner has claimed already begins. Under a limit no attempt
        begins, whichever run it is of. What waits says so in `why_run`.

        It is kept in the store, and outlives all programs. `until` is an instant, at which it ends by itself;
        without it only `resume` ends it. Another process hears of it within moments.

        Args:
            workflow (str | None): the workflow's name.
            key (str | None): a value of the workflow's key, as a text: `"acme"`, or `"7"` for the number.
            limit (str | None): the limit's name. Give this or a workflow.
            until (datetime | str | None): an instant, RFC 3339 if it is a text.

        Raises:
            WorkflowError: (a `ValueError`) no program on the store ever declared such a limit; or nothing is
                known of that workflow; or `key` is given, and no limit of it that lets runs wait has a key.
            ArgumentError: (a `ValueError`) `until` is no instant, is over, or is no time that can be
                told; or neither or both of
                `workflow` and `limit` are given, or `key` with a limit.
        """
        engine = self._open()
        until_us = None if until is None else check.moment(until, "until")
        if until_us is not None:
            check.ahead(until_us, until, "until", engine.now(), ArgumentError)
        self._pause(until_us, _who(), workflow, limit, key)

    def _pause(
        self, until_us: int | None, by: str, workflow: str | None, limit: str | None, key: str | None
    ) -> None:
        """The same, in somebody's name."""
        kind, name, value = self._meant("pause", workflow, limit, key)
        if not self._open().store.pause(kind, name, value, until_us, by):
            raise WorkflowError(keyless(name))

    @says_keywords("resume()")
    def resume(
        self, *, workflow: str | None = None, key: str | None = None, limit: str | None = None
    ) -> bool:
        """Ends a pause; false if there was none.

        With `workflow` or `limit` that of `pause`; that of a workflow and that of a key of it are two.
        Without them begins what `paused=True` has put off: polls, crons, unfinished runs that nobody has.
        Twice is fine.

        Raises:
            WorkflowError: (a `ValueError`) no program on the store ever declared such a limit; or nothing is
                known of that workflow.
            RunnerError: (a `RuntimeError`) the runner is shut down.
        """
        if workflow is None and limit is None and key is None:
            return self._begin_paused()
        return bool(self._open().store.resume(*self._meant("resume", workflow, limit, key)))

    def list_pauses(self, *, unmasked: bool = False) -> Listed[PauseRow]:
        """What `pause` and `RetryAfter(pause=...)` hold up, limits first, by name, as dicts with `kind name
        key until since by`.

        - `kind` (str): `limit` or `workflow`; `name` (str): which; `key` (str | None): of a workflow perhaps
          only what its limits count for this value of its key, which is `[redacted]` where `redact=` hides
          it, unless `unmasked` asks for it.
        - `until` (str | None): when it ends by itself.
        - `since`, `by` (str): when it was paused, and by whom: a program, a user, a task.
        """
        mask = self._redactor.mask(check.flag(unmasked, "unmasked"))
        found = pauses(self._redactor.keyed(mask), self._open().store.pauses())
        return Listed((rows.pause(row) for row in found), "PauseRow")

    def _meant(self, call: str, workflow: object, limit: object, key: object) -> tuple[str, str, str | None]:
        """What is to be paused or resumed: its kind, its name, and perhaps the value of a key."""
        if (workflow is None) == (limit is None):
            raise ArgumentError(f"{call} needs workflow or limit, one of them")
        if limit is not None:
            if key is not None:
                raise ArgumentError(f"{call} takes key with workflow; a limit with a name has none")
            return "limit", self._limit(limit)["name"], None
        name = check.text(workflow, "workflow", WorkflowError)
        value = None if key is None else check.text(key, "key", WorkflowError)
        if call == "pause" or not any(row["name"] == name for row in self._open().store.pauses()):
            self._served.check(name)
        return "workflow", name, value

    def _of_paused(self, workflow: str) -> str:
        """What to add where runs of a workflow are waited for that is paused."""
        return why_run.of_paused(self._open().store.pauses(), workflow)

    def _limit(self, name: object) -> dict[str, Any]:
        """The limit of that name."""
        wanted = check.text(name, "name", WorkflowError)
        known = {row["name"]: row for row in self._open().store.limits()}
        found: dict[str, Any] | None = known.get(wanted)
        if found is None:
            raise WorkflowError(
                f"limit {excerpt(wanted)} not found: no program on this store has declared it"
                f"{hint(wanted, 'limits', list(known))}"
            )
        return found


def keyless(workflow: str) -> str:
    """Why no key of a workflow can be paused."""
    return (
        f"workflow {excerpt(workflow)} has no keys to pause: give its concurrency or its throttle a key;"
        " what overflow='drop_new' drops does not wait"
    )


def _who() -> str:
    import platform

    return f"a program (pid {os.getpid()} on {platform.node()})"
