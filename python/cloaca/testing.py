"""A runner on a manual clock, for tests: an hour of polling takes as long as its bodies do.

Invariant: time stands still but for `Runner.advance` and `Runner.execute`.
"""

from __future__ import annotations

from .check import flag, microseconds
from .config import DefaultRunnerConfig
from .context import Context, decode_value
from .duration import microseconds_of
from .errors import RunnerError
from .rows import moment
from .runner import DefaultRunner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta
    from typing import Any

    from .result import WorkflowResult

PATIENCE_SECONDS = 30.0
"""How long in real time the bodies may take that one call sets off."""
_RUNS_MAX = 2**31


class Runner(DefaultRunner):
    """A `DefaultRunner` over `:memory:` whose clock moves only when told.

    Args:
        start (str | datetime): what its clock shows at first, RFC 3339.
        config (DefaultRunnerConfig | None): other settings than the defaults.

    Raises:
        ScheduleError: (a `ValueError`) `start` is no time.
    """

    def __init__(
        self,
        start: str | datetime = "2026-01-01T00:00:00Z",
        config: DefaultRunnerConfig | None = None,
    ) -> None:
        self._start(":memory:", config or DefaultRunnerConfig(), None, microseconds(start))
        self.run_until_idle()

    @property
    def now(self) -> str:
        """What the clock shows, RFC 3339 in UTC."""
        return moment(self._open().now())

    def advance(self, span: str | float | timedelta) -> None:
        """Moves the clock and does, in order, everything that becomes due on the way.

        Args:
            span (str | float | timedelta): a duration such as `"1h"`, seconds, or a `timedelta`.

        Raises:
            RunnerError: (a `RuntimeError`) a body does not come back.
        """
        self._advance(microseconds_of(span, "span", smallest_us=0))

    def run_until_idle(self) -> None:
        """Does everything that is due now, and waits until it is done. Raises what `advance` raises."""
        self._advance(0)

    def _advance(self, span_us: int) -> None:
        if not self._open().advance(span_us, PATIENCE_SECONDS):
            raise RunnerError(
                f"a trigger or task did not come back within {PATIENCE_SECONDS:g} s of real time"
            )
        if not self._crew.teller.wait_told(self._open().polls.failures_given(), PATIENCE_SECONDS):
            raise RunnerError(
                f"on_poll_failed or on_disabled did not come back within {PATIENCE_SECONDS:g} s of real time"
            )

    def execute(
        self,
        workflow_name: str,
        context: Context | Mapping[str, Any] | None = None,
        *,
        check: bool = False,
    ) -> WorkflowResult:
        """Runs a workflow, moving the clock over the delays of its retries. Raises what
        `DefaultRunner.execute` raises."""
        checks = flag(check, "check")
        run = self.submit(workflow_name, context)
        self.run_until_idle()
        while self._open().runs.run(run.id)["completed_at"] is None:
            due = self._open().next_due()
            if due is None:
                raise RunnerError(f"run {run.id} waits for nothing that the clock could bring")
            self._advance(due)
        result = run.result()
        return result.raise_for_failure() if checks else result

    def fired(self, workflow: str) -> list[Context]:
        """The contexts with which triggers and crons started this workflow, oldest first."""
        rows = self._open().store.query(
            "SELECT context FROM runs WHERE workflow = ? AND schedule IS NOT NULL ORDER BY row", [workflow]
        )
        return [Context._wrap(decode_value(row["context"])) for row in rows]

    def polls(self, trigger_name: str) -> int:
        """How often a trigger was polled.

        Raises:
            TriggerError: (a `ValueError`) no such trigger.
        """
        return sum(tick["count"] for tick in self.ticks(trigger_name, _RUNS_MAX))
