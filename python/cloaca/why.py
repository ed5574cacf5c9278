"""Says in one sentence what a trigger does and why it has not fired. Decides nothing: it words what the
engine knows."""

from __future__ import annotations

from . import registry
from .errors import excerpt
from .near import hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .types import CronScheduleRow, TickRow


def sentence(trigger: dict[str, Any], ticks: Sequence[TickRow]) -> str:
    """One sentence about a trigger, from its row with `standing`, and its newest tick."""
    name = f"trigger '{trigger['trigger_name']}'"
    standing = trigger["standing"]
    last = ticks[0] if ticks else None
    if not trigger["enabled"]:
        cause = trigger["disabled_cause"]
        by = f"the engine disabled it because {cause}" if cause else "set_trigger_enabled switched it off"
        return f"{name} is not polled: {by} at {trigger['updated_at']}{_ending(last)}"
    if standing is None:
        return f"{name} {_absent(trigger)}{_ending(last)}"
    if standing["in_body"]:
        since = f" since {standing['polled_since']}" if standing["polled_since"] else ""
        return f"{name} is being polled{since} and has not answered yet{_ending(last)}"
    if standing["elsewhere"]:
        return f"{name} is polled by another runner of this store{_ending(last)}"
    if last is None:
        return f"{name} has not been polled yet; its first poll is due at {standing['next_poll_at']}"
    if standing["backs_off"]:
        failures = standing["failures"]
        cause = f"{failures} failed {_times(failures, 'poll')} in a row" if failures else "its own wish"
        if standing["goes_on"]:
            cause = "failed polls or its own wish, in an earlier runner"
        return f"{name} backs off until {standing['next_poll_at']} after {cause}{_ending(last)}"
    return f"{name} {_told(last)}"


def undeclared(workflow: str) -> str:
    """What follows for a trigger or a cron that starts a workflow which the program has not declared."""
    return (
        f"starts workflow {excerpt(workflow)}, which this program does not declare: nothing starts until it"
        f" does{hint(workflow, 'workflows', registry.names())}"
    )


def of_cron(name: str, cron: CronScheduleRow, is_declared: bool) -> str:
    """One sentence about a trigger that is a cron, from its schedule."""
    last = cron["last_run_at"]
    before = f"; it ran last at {last}" if last else "; it has not run yet"
    says = f"{cron['cron_expression']!r} in {cron['timezone']!r}"
    if not cron["enabled"]:
        return f"trigger '{name}' is a cron, {says}, and was switched off at {cron['updated_at']}{before}"
    if not is_declared:
        return (
            f"trigger '{name}' is a cron, {says}, that this program does not declare: it runs in those that "
            f"do{before}"
        )
    if registry.workflow(cron["workflow_name"]) is None:
        return f"trigger '{name}' is a cron, {says}, and {undeclared(cron['workflow_name'])}{before}"
    return f"trigger '{name}' is a cron, {says}, and runs next at {cron['next_run_at']}{before}"


def _absent(trigger: dict[str, Any]) -> str:
    if trigger["paused"]:
        return "is not polled here: this runner is paused, until resume() is called"
    if (owner := trigger["polled_by"]) is not None:
        return f"is polled by runner {owner} of this store, and not by this one"
    if trigger["declared"]:
        return "is declared here and about to be polled: the store is being asked for it"
    if trigger["left_out"]:
        return "is not polled: this program declares it, but this runner is not for it, and no other polls it"
    return "is not polled: this program does not declare it, and no other runner of the store polls it"


def _ending(last: TickRow | None) -> str:
    return "" if last is None else f"; before that it {_told(last)}"


def _told(last: TickRow) -> str:
    count = last["count"]
    since = f"since {last['first_at']}" if count > 1 else f"at {last['first_at']}"
    reason = f": {last['reason']}" if last["reason"] else ""
    if last["outcome"] == "fire":
        return f"fired at its last {_polls(count)}, {since}"
    if last["outcome"] == "error":
        return f"failed at its last {_polls(count)}, {since}{reason}"
    return f"skipped at its last {_polls(count)}, {since}{reason or ', without giving a reason'}"


def _polls(count: int) -> str:
    return "poll" if count == 1 else f"{count} polls"


def _times(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
