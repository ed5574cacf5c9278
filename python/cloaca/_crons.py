"""What a runner says and does about crons.

Decides nothing: it checks arguments and words what the store refuses.
"""

from __future__ import annotations

from . import check, registry, rows, why
from .errors import ScheduleError, excerpt
from .name import is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from .crew import Crew
    from .declarations import Declarations
    from .types import CronExecutionRow, CronScheduleRow, CronStats

_SAME_CRON = """
    SELECT other.id FROM schedules AS this JOIN schedules AS other ON other.workflow = this.workflow
    WHERE this.id = ? AND other.id <> this.id AND other.kind = 'cron'
      AND other.expression = ? AND other.timezone = ?"""


class Crons:
    """The part of a runner that is about crons."""

    if TYPE_CHECKING:
        _crew: Crew
        _declarations: Declarations

        def _open(self) -> Any: ...

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
            made = str(engine.schedules.put_cron(workflow_name, cron_expression, timezone))
        except ScheduleError as error:
            raise ScheduleError(f"Failed to register cron workflow: {error}") from None
        if not registry.knows(workflow_name):
            self._crew.warn(f"cron {excerpt(cron_expression)} {why.undeclared(workflow_name)}")
        return made

    def list_cron_schedules(
        self, enabled_only: bool | None = None, limit: int | None = None, offset: int | None = None
    ) -> list[CronScheduleRow]:
        """Cron schedules in the order of their registration, at most 100 unless `limit` says more.

        `trigger_name` is the name of the trigger that declares it, or `None` for one that
        `register_cron_workflow` registered; `declared` says whether this program declares it.
        """
        found: list[CronScheduleRow] = self._open().schedules.crons(
            enabled_only is not None and check.flag(enabled_only, "enabled_only"), *check.page(limit, offset)
        )
        return [self._with_declared_here(row) for row in found]

    def get_cron_schedule(self, schedule_id: str) -> CronScheduleRow:
        """One cron schedule.

        Raises:
            ScheduleError: (a `ValueError`) `Invalid schedule ID`, or `Failed to get cron schedule` for an
            unknown one.
        """
        row: CronScheduleRow | None = self._open().schedules.cron(check.schedule_id(schedule_id))
        if row is None:
            raise ScheduleError(f"Failed to get cron schedule: there is none with id {schedule_id}")
        return self._with_declared_here(row)

    def _with_declared_here(self, row: CronScheduleRow) -> CronScheduleRow:
        row["declared"] = row["trigger_name"] in self._declarations.crons
        return row

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
        for other in engine.store.look(_SAME_CRON, [schedule_id, cron_expression, timezone]):
            raise ScheduleError(
                f"Failed to update cron schedule: its workflow already has {cron_expression!r} in "
                f"{timezone!r}, as schedule {other['id']}; change or delete that one"
            )
        try:
            done = engine.schedules.update_cron(schedule_id, cron_expression, timezone)
        except ScheduleError as error:
            raise ScheduleError(f"Failed to update cron schedule: {error}") from None
        if not done:
            raise ScheduleError(f"Failed to update cron schedule: there is none with id {schedule_id}")

    def set_cron_schedule_enabled(self, schedule_id: str, enabled: bool) -> None:
        """Switches a cron schedule; kept across restarts."""
        if not self._open().schedules.set_cron_enabled(
            check.schedule_id(schedule_id), check.flag(enabled, "enabled")
        ):
            raise ScheduleError(f"Failed to update cron schedule: there is none with id {schedule_id}")

    def delete_cron_schedule(self, schedule_id: str) -> None:
        """Deletes a cron schedule; its runs stay."""
        if not self._open().schedules.delete_cron(check.schedule_id(schedule_id)):
            raise ScheduleError(f"Failed to delete cron schedule: there is none with id {schedule_id}")

    def get_cron_execution_history(
        self, schedule_id: str, limit: int | None = None, offset: int | None = None
    ) -> list[CronExecutionRow]:
        """The slots that a cron schedule ran, newest first."""
        found = self._open().schedules.cron_runs(check.schedule_id(schedule_id), *check.page(limit, offset))
        if found is None:
            raise ScheduleError(f"Failed to get cron schedule: there is none with id {schedule_id}")
        return [rows.cron_execution(schedule_id, row) for row in found]

    def get_cron_execution_stats(self, since: str | datetime) -> CronStats:
        """Cron runs since an RFC 3339 time: `total_executions successful_executions lost_executions
        success_rate` (per cent).

        Raises:
            ScheduleError: (a `ValueError`) `Invalid datetime format`.
        """
        total, successful, lost = self._open().schedules.cron_stats(check.microseconds(since))
        rate = 100.0 * successful / total if total else 0.0
        return {
            "total_executions": total,
            "successful_executions": successful,
            "lost_executions": lost,
            "success_rate": rate,
        }
