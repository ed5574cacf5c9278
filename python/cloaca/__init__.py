"""cloaca turns a polled Python condition into dependable workflow runs, kept in one SQLite file."""

from __future__ import annotations

from ._cloaca import __version__
from .config import DefaultRunnerConfig
from .context import Context
from .current import CurrentRun, current_run
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    CloacaError,
    ConfigError,
    ContextError,
    ContextKeyError,
    ContextTypeError,
    Dropped,
    RunFailedError,
    RunnerError,
    ScheduleError,
    StoreError,
    TriggerError,
    UrlError,
    VariableError,
    WorkflowError,
)
from .limits import Concurrency, Limit, RateLimit, Throttle
from .listed import Listed, Logs
from .living import made as runners
from .namespace import TaskNamespace, WorkflowContext
from .policy import Backoff, BackoffStrategy, RetryAfter, RetryCondition, RetryPolicy, RetryPolicyBuilder
from .result import TriggerResult, WorkflowResult
from .rules import all_of, always, any_of, context_value, none_of, task_failed, task_skipped, task_success
from .run import Run
from .runner import DefaultRunner
from .task import task
from .task_handle import TaskHandle
from .tick import Tick
from .trigger import trigger, unregister_trigger
from .variables import var, var_or
from .workflow import Workflow, WorkflowBuilder, register_workflow_constructor, unregister_workflow

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "Backoff",
    "BackoffStrategy",
    "CloacaError",
    "Concurrency",
    "ConfigError",
    "Context",
    "ContextError",
    "ContextKeyError",
    "ContextTypeError",
    "CurrentRun",
    "DatabaseAdmin",
    "DefaultRunner",
    "DefaultRunnerConfig",
    "Dropped",
    "Limit",
    "Listed",
    "Logs",
    "ProcessExecutor",
    "RateLimit",
    "RetryAfter",
    "RetryCondition",
    "RetryPolicy",
    "RetryPolicyBuilder",
    "Run",
    "RunFailedError",
    "RunnerError",
    "ScheduleError",
    "StoreError",
    "TaskHandle",
    "TaskNamespace",
    "TenantConfig",
    "TenantCredentials",
    "Throttle",
    "Tick",
    "TriggerError",
    "TriggerResult",
    "UrlError",
    "VariableError",
    "Workflow",
    "WorkflowBuilder",
    "WorkflowContext",
    "WorkflowError",
    "WorkflowResult",
    "__version__",
    "all_of",
    "always",
    "any_of",
    "context_value",
    "copy_store",
    "current_run",
    "migrate",
    "none_of",
    "register_workflow_constructor",
    "runners",
    "task",
    "task_failed",
    "task_skipped",
    "task_success",
    "trigger",
    "unregister_trigger",
    "unregister_workflow",
    "var",
    "var_or",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import reading as reading
    from . import telemetry as telemetry
    from . import testing as testing
    from . import types as types
    from .admin import DatabaseAdmin, TenantConfig, TenantCredentials
    from .bodies.process import ProcessExecutor
    from .copying import copy_store
    from .migrating import migrate
else:

    def __getattr__(name: str) -> object:
        """`cloaca.reading`, `telemetry`, `testing`, `types` and what few programs need are there when asked
        for, and cost nothing until then."""
        if name == "ProcessExecutor":
            from .bodies.process import ProcessExecutor

            return ProcessExecutor
        if name == "copy_store":
            from .copying import copy_store

            return copy_store
        if name == "migrate":
            from .migrating import migrate

            return migrate
        from importlib import import_module

        if name in ("reading", "telemetry", "testing", "types"):
            return import_module(f"cloaca.{name}")
        if name in ("DatabaseAdmin", "TenantConfig", "TenantCredentials"):
            return getattr(import_module("cloaca.admin"), name)
        raise AttributeError(f"module 'cloaca' has no attribute {name!r}")
