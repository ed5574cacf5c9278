"""What a store holds, as plain records, read without a runner: lists, one run, one trigger, a health report.

Each function takes a `Reader` and asks the store when it is called. A listing is a `Page`; what is counted is
bounded. Times are RFC 3339 in UTC, ids are UUIDs, and what is in a record has the name that the methods of
`DefaultRunner` give it. Nothing here joins the store, changes it, or holds up who serves it.

What a poll answered that was quiet is gathered in the memory of the process that polls, and written every
30 seconds: of a trigger that only skips, the newest polls are not on record yet.
"""

from ..drawing import Node
from .attention import Counts, Failures, failures, schedule_counts, unwell
from .audit import Change, audit
from .changed import Changed, changed
from .health import Finding, doctor, of_probe
from .limits import Limit, Pause, keys, limits, pauses
from .logs import LogLine, Logs, logs
from .pace import Lasted, Pace, lasted, pace
from .preview import preview
from .runners import Runner, runners
from .runs import Attempt, Callback, Child, LastCallback, Run, RunDetails, Task, find_run, run, runs
from .schedules import Cron, Tick, Trigger, crons, schedules_named, ticks, triggers
from .search import Search, search
from .store import MissingError, Page, Reader
from .why import why
from .workflows import Workflow, graph, workflows

__all__ = [
    "Attempt",
    "Callback",
    "Change",
    "Changed",
    "Child",
    "Counts",
    "Cron",
    "Failures",
    "Finding",
    "LastCallback",
    "Lasted",
    "Limit",
    "LogLine",
    "Logs",
    "MissingError",
    "Node",
    "Pace",
    "Page",
    "Pause",
    "Reader",
    "Run",
    "RunDetails",
    "Runner",
    "Search",
    "Task",
    "Tick",
    "Trigger",
    "Workflow",
    "audit",
    "changed",
    "crons",
    "doctor",
    "failures",
    "find_run",
    "graph",
    "keys",
    "lasted",
    "limits",
    "logs",
    "of_probe",
    "pace",
    "pauses",
    "preview",
    "run",
    "runners",
    "runs",
    "schedule_counts",
    "schedules_named",
    "search",
    "ticks",
    "triggers",
    "unwell",
    "why",
    "workflows",
]
