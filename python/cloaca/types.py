"""The types of what a program gives and what it gets, by name, to annotate with.

Decides nothing: the rest of the package names them to type checkers only, and doesn't import this module when
a program runs. Invariant: a `TypedDict` has exactly the keys of the dicts that it stands for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, Literal, NotRequired, Protocol, TypeAlias, TypedDict, TypeVar

from .context import Context
from .result import TriggerResult
from .task_handle import TaskHandle
from .tick import Tick

_Item = TypeVar("_Item", covariant=True)

# What a program gives

Redact: TypeAlias = Iterable[str] | Callable[[tuple[str | int, ...], Any], Any]
"""What listings and logs hide: keys, or a function of a path and a value to what is shown."""

ContextLike: TypeAlias = Context | Mapping[str, Any]
"""What a run may start with, and what a fire may carry."""

Duration: TypeAlias = str | float | timedelta
"""A text such as `"5s"` or `"1h30m"`, seconds as a number, or a `timedelta`."""

Durability: TypeAlias = Literal["full", "normal"]
"""What a commit outlives: `full` a loss of power, `normal` the death of the process."""

Waits: TypeAlias = Literal["bodies", "runs"]
"""What a shutdown waits for."""

Overlap: TypeAlias = Literal["allow", "skip", "queue", "buffer_one", "cancel_running"]
"""What a fire does while a run of its trigger is unfinished."""

Catchup: TypeAlias = Literal["all", "last", "none"]
"""Which moments of a cron are made up for that nobody was there for."""

BackoffName: TypeAlias = Literal["fixed", "linear", "exponential"]
"""How the delay grows from one attempt of a task to the next."""

ConditionName: TypeAlias = Literal["never", "transient", "all"]
"""Which errors of a task are worth another attempt."""

InterruptName: TypeAlias = Literal["retry", "fail"]
"""What becomes of a task when an attempt is cut off."""

Executors: TypeAlias = Mapping[str, Executor | Callable[[], Executor]]
"""Places to run by name: an executor, or a function that makes one."""

OperatorName: TypeAlias = Literal[
    "Equals",
    "NotEquals",
    "GreaterThan",
    "LessThan",
    "GreaterOrEqual",
    "LessOrEqual",
    "Contains",
    "NotContains",
    "Exists",
    "NotExists",
    "In",
]
"""How `context_value` compares, as its rule says it."""

OperatorSign: TypeAlias = Literal["==", "!=", ">", "<", ">=", "<="]
"""The same as signs."""

# `context_value` ignores case and underscores; a type can only list what is usual.
OperatorSpelling: TypeAlias = Literal[
    "equals",
    "EQUALS",
    "notequals",
    "NOTEQUALS",
    "not_equals",
    "NOT_EQUALS",
    "notEquals",
    "greaterthan",
    "GREATERTHAN",
    "greater_than",
    "GREATER_THAN",
    "greaterThan",
    "lessthan",
    "LESSTHAN",
    "less_than",
    "LESS_THAN",
    "lessThan",
    "greater_or_equal",
    "GREATER_OR_EQUAL",
    "less_or_equal",
    "LESS_OR_EQUAL",
    "contains",
    "CONTAINS",
    "notcontains",
    "NOTCONTAINS",
    "not_contains",
    "NOT_CONTAINS",
    "notContains",
    "exists",
    "EXISTS",
    "notexists",
    "NOTEXISTS",
    "not_exists",
    "NOT_EXISTS",
    "notExists",
    "in",
    "IN",
    "eq",
    "EQ",
    "ne",
    "NE",
    "gt",
    "GT",
    "lt",
    "LT",
    "ge",
    "GE",
    "gte",
    "GTE",
    "le",
    "LE",
    "lte",
    "LTE",
]
"""The same in other spellings."""

Operator: TypeAlias = OperatorName | OperatorSign | OperatorSpelling
"""How `context_value` compares the context's value with its own."""

Rule: TypeAlias = dict[str, Any]
"""A trigger rule, as `context_value`, `all_of` and the others build it."""


class Several(Protocol[_Item]):
    """Lists, tuples and sets, and not a text, which would be taken letter by letter."""

    def __iter__(self) -> Iterator[_Item]: ...
    def __contains__(self, item: object, /) -> bool: ...


TaskRef: TypeAlias = str | Callable[..., Any]
"""A task by its id or its function."""

TaskRefs: TypeAlias = Several[TaskRef] | Iterator[TaskRef]
"""Several tasks by their ids or their functions."""

TriggerRef: TypeAlias = str | Callable[..., Any]
"""A trigger by its name or its function."""

# Bodies and callbacks

TaskAnswer: TypeAlias = Context | Mapping[str, Any] | None
"""What a task returns: its context, a dict in its place, or nothing, which keeps the context as it stands."""


class TaskBodyWithHandle(Protocol):
    """A task's function with a handle."""

    def __call__(self, context: Context, /, handle: TaskHandle) -> TaskAnswer | Awaitable[TaskAnswer]: ...


class TaskBodyWithTaskHandle(Protocol):
    """A task's function with a handle, by its longer name."""

    def __call__(
        self, context: Context, /, task_handle: TaskHandle
    ) -> TaskAnswer | Awaitable[TaskAnswer]: ...


TaskBody: TypeAlias = (
    Callable[[Context], TaskAnswer | Awaitable[TaskAnswer]] | TaskBodyWithHandle | TaskBodyWithTaskHandle
)
"""A task's function, or an `async def`: `f(context)`, `f(context, handle)` or `f(context, task_handle)`."""

PollAnswer: TypeAlias = TriggerResult | bool | Iterable[TriggerResult]
"""What a trigger's function returns: a result, whether to fire, or several results as a list, a tuple or what
a generator yields."""

PollBody: TypeAlias = (
    Callable[[], PollAnswer | Awaitable[PollAnswer]] | Callable[[Tick], PollAnswer | Awaitable[PollAnswer]]
)
"""A trigger's function, or an `async def`: `f()` or `f(tick)`."""

RunEndBody: TypeAlias = "Callable[[RunDetails], PollAnswer | Awaitable[PollAnswer]]"
"""The function, or an `async def`, of a trigger with `on_run`: `f(run)`."""

CronAnswer: TypeAlias = PollAnswer | Context | Mapping[str, Any] | None
"""What a cron's function with a parameter returns."""

CronBody: TypeAlias = Callable[[], object] | Callable[[Tick], CronAnswer | Awaitable[CronAnswer]]
"""A cron's function, or an `async def`: `f()`, which isn't called and returns what it likes, or `f(tick)`."""

OnSuccess: TypeAlias = Callable[[str, Context], object]
"""`f(task_id, context)`, a function or an `async def`."""

OnFailure: TypeAlias = Callable[[str, str, Context], object]
"""`f(task_id, error, context)`, a function or an `async def`."""

OnEnd: TypeAlias = "Callable[[RunDetails], object]"
"""`f(run)`, a function or an `async def`."""

OnPollFailed: TypeAlias = Callable[[str, str, int], object]
"""`f(name, error, failures)`."""

OnDisabled: TypeAlias = Callable[[str, str], object]
"""`f(name, cause)`."""

# What a program gets. Times are RFC 3339 in UTC, ids are UUIDs.

RunStatus: TypeAlias = Literal["Pending", "Running", "Completed", "Failed", "Cancelled"]
"""Where a run stands; the last three are final."""

ParentKind: TypeAlias = Literal["task", "callback", "end", "again", "given"]
"""How a run came of another one: started by a task or a callback of it, fired by a trigger that was told of
its end, asked for once more, or submitted or fired with `parent=`."""

RunEnd: TypeAlias = Literal["Completed", "Failed", "Cancelled"]
"""How a run ended."""

TaskStatus: TypeAlias = Literal["Pending", "Running", "Completed", "Failed", "Skipped"]
"""Where a task stands: not begun, under way, or one of the three that are final."""

TryOutcome: TypeAlias = Literal["Completed", "Failed", "TimedOut", "Interrupted", "Postponed", "Cancelled"]
"""How an attempt of a task ended."""

Outcome: TypeAlias = Literal["skip", "fire", "error"]
"""What came of a poll."""


class TryRow(TypedDict):
    """An attempt of a task that is over, in `get_run`."""

    number: int
    outcome: TryOutcome
    started_at: str | None
    ended_at: str
    error_type: str | None
    error: str | None
    traceback: str | None
    runner: int | None


class TaskRow(TypedDict):
    """A task of a run, in `get_run`."""

    id: str
    status: TaskStatus
    attempts: int
    error: str | None
    error_type: str | None
    started_at: str | None
    completed_at: str | None
    waits_until: str | None
    waits_since: str | None
    overdue_since: str | None
    tries: list[TryRow]
    tries_left_out: int
    earlier_version: bool


class ChildRow(TypedDict):
    """A run that came of a run, in `get_run`."""

    id: str
    workflow_name: str
    status: RunStatus
    kind: ParentKind
    task: str | None
    trigger_name: str | None
    created_at: str
    completed_at: str | None


class CallbackRow(TypedDict):
    """An end of a run that a callback of its workflow is still to be told of, in `get_run`."""

    status: RunStatus
    attempts: int
    due_at: str
    error: str | None
    begun_at: str | None
    runner: int | None


class LastCallbackRow(TypedDict):
    """What became of the last end of a run that a callback was to be told of, in `get_run`."""

    status: RunStatus
    outcome: Literal["told", "given_up", "skipped", "dropped"]
    attempts: int
    at: str
    error: str | None


class RunSummary(TypedDict):
    """A run without its context: `list_runs(contexts=False)`, `tick.last_run`."""

    id: str
    workflow_name: str
    status: RunStatus
    trigger_name: str | None
    run_key: str | None
    parent_run: str | None
    parent_task: str | None
    parent_kind: ParentKind | None
    priority: int
    due_at: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    took_seconds: float | None
    lain_seconds: float
    error_message: str | None
    error_type: str | None
    cancel_requested: bool


class RunRow(RunSummary):
    """A run as `list_runs` shows it."""

    context: dict[str, Any]


class RunDetails(RunRow):
    """A run as `get_run` shows it."""

    final_context: dict[str, Any] | None
    tasks: list[TaskRow]
    children: list[ChildRow]
    callbacks: list[CallbackRow]
    trace_id: str | None
    last_callback: LastCallbackRow | None


class AuditRow(TypedDict):
    """A change that somebody made by the page or the command line, as `runner.audit()` lists it."""

    at: str
    who: str
    door: Literal["page", "cli"]
    place: str | None
    what: str
    about: str
    many: int


class LogRow(TypedDict):
    """A line that a body logged, in `runner.logs(run_id)`. `callback` is `on_success`, `on_failure` or
    `on_cancel` where one of those logged it, and `None` of a task's own; `task` and `attempt` are `None` of a
    callback of the run."""

    number: int
    at: str
    level: str
    logger: str
    text: str
    task: str | None
    attempt: int | None
    callback: Literal["on_success", "on_failure", "on_cancel"] | None
    error: str | None


class TickRow(TypedDict):
    """Equal answers in a row of a trigger's polls, in `ticks`. Durations are of one poll, in microseconds."""

    outcome: Outcome
    reason: str | None
    count: int
    first_at: str
    last_at: str
    min_us: int
    mean_us: int
    max_us: int


GateVerdict: TypeAlias = Literal["run", "queue", "deduplicate", "refuse_key", "drop", "hold_back", "fail"]
"""What the gate does with a fire: it starts a run that begins at once, or one that waits, for its turn, its
time, limits of its workflow or the end of a pause; or it doesn't, because an equal run is unfinished or ended
after the poll began, because its run key is used, by `overlap` or a limit, because one of its row before it
is dropped, or because nobody declares its workflow or its context has not the key of that one's limits."""


class GateRow(TypedDict):
    """What the gate would do with a fire. `run` is the one that stands in the way, or before it."""

    verdict: GateVerdict
    run: str | None
    reason: str | None


class FireRow(TypedDict):
    """A fire, in what `tick` returns; `gate` only with `dry_run`."""

    context: dict[str, Any]
    run_key: str | None
    gate: NotRequired[GateRow]


class TickAnswer(TypedDict):
    """What `tick` returns. `cursor` is the new one, if it moved."""

    outcome: Outcome
    reason: str | None
    fires: list[FireRow]
    cursor: Any


class TriggerScheduleRow(TypedDict):
    """A trigger, in `list_trigger_schedules` and `get_trigger_schedule`."""

    id: str
    trigger_name: str
    workflow_name: str
    poll_interval_ms: int
    allow_concurrent: bool
    enabled: bool
    declared: bool
    last_poll_at: str | None
    created_at: str
    updated_at: str
    disabled_at: str | None
    on_run: str | None
    on_run_status: list[RunEnd]
    polled_by: int | None
    next_poll_at: str | None
    late_since: str | None
    in_body_since: str | None


class RunnerCounts(TypedDict):
    """What a runner did, as far as it is on record, in `list_runners`."""

    polls: int
    fires: int
    errors: int
    runs_started: int
    runs_completed: int
    runs_failed: int
    runs_cancelled: int


class RunnerRow(TypedDict):
    """A runner of a store, in `list_runners`."""

    number: int
    name: str | None
    state: Literal["living", "paused", "draining", "dead", "left"]
    works: bool
    host: str | None
    pid: int | None
    version: str | None
    joined_at: str
    seen_at: str | None
    left_at: str | None
    polls: int
    runs: int
    last_hour: RunnerCounts


class ThrottleRow(TypedDict):
    """How fast attempts begin under a limit: so many in so many seconds, and so many at once."""

    limit: int
    per: float
    burst: int


class PauseRow(TypedDict):
    """What is paused, in `list_pauses`."""

    kind: Literal["limit", "workflow"]
    name: str
    key: str | None
    until: str | None
    since: str
    by: str


class LimitRow(TypedDict):
    """A limit with a name, in `list_limits`."""

    name: str
    concurrency: int | None
    throttle: ThrottleRow | None
    is_set: bool
    taken: int
    waiting: int
    waits_since: str | None
    next_at: str | None
    pause: PauseRow | None


HealthCode: TypeAlias = Literal[
    "store",
    "disk",
    "stopped",
    "loop",
    "no_runner",
    "silent_runner",
    "dead_runner",
    "unserved",
    "backlog",
    "overdue",
    "stuck",
    "unpolled",
    "late_cron",
    "callbacks",
    "old_transaction",
]
"""What can be wrong, in `health`."""


class HealthReason(TypedDict):
    """Something that is wrong, in `health`."""

    code: HealthCode
    text: str
    count: int
    seconds: float | None
    names: list[str]


class Health(TypedDict):
    """Whether triggers are polled and runs begin, as `health` tells it."""

    ok: bool
    reasons: list[HealthReason]
    at: str
    runners: int
    runs_waiting: int
    oldest_seconds: float | None


class TriggerExecutionRow(TypedDict):
    """A run that a trigger fired, in `get_trigger_execution_history`."""

    id: str
    schedule_id: str
    context_hash: str | None
    workflow_execution_id: str
    started_at: str | None
    completed_at: str | None
    created_at: str


class CronScheduleRow(TypedDict):
    """A cron, in `list_cron_schedules` and `get_cron_schedule`."""

    id: str
    trigger_name: str | None
    workflow_name: str
    cron_expression: str
    timezone: str
    enabled: bool
    declared: bool
    catchup_policy: str
    next_run_at: str | None
    last_run_at: str | None
    created_at: str
    updated_at: str
    disabled_at: str | None
    registered: bool
    context: dict[str, Any] | None
    overlap: Overlap
    catchup: Catchup


class CronExecutionRow(TypedDict):
    """A moment that a cron ran, in `get_cron_execution_history`."""

    id: str
    schedule_id: str
    scheduled_time: str
    claimed_at: str
    workflow_execution_id: str
    created_at: str
    updated_at: str


class CronStats(TypedDict):
    """What `get_cron_execution_stats` counts. `success_rate` is per cent."""

    total_executions: int
    successful_executions: int
    lost_executions: int
    success_rate: float


class Stats(TypedDict):
    """What `stats` counts since the runner was made."""

    polls: int
    skips: int
    missed: int
    late_mean_ms: float
    late_max_ms: float
    fires: int
    deduplicated: int
    dropped: int
    held_back: int
    errors: int
    runs_started: int
    runs_completed: int
    runs_failed: int
    runs_cancelled: int
    runs_unfinished: int
    bodies_overdue: int
    run_latency_mean_ms: float
    run_latency_max_ms: float
    stopped: bool
