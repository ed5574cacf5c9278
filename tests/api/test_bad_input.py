"""Bad input of every kind, at every public entry: which exception it gets, and that nothing is stored."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cloaca
import cloaca.testing

HUGE = "x" * 1_000_000
LONE = "\ud800"
NOWHERE = "00000000-0000-7000-8000-000000000000"
MESSAGE_CHARS_MAX = 700
TABLES = ("owners", "schedules", "runs", "tasks", "run_keys", "ticks")


class World:
    """One runner with a workflow, a trigger that is never due, a cron that is never due, and a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with cloaca.WorkflowBuilder("fine"):

            @cloaca.task()
            def only(context: cloaca.Context) -> None:
                pass

        @cloaca.trigger(workflow="fine", poll_interval="24h")
        def watcher() -> bool:
            return False

        self.closed = cloaca.DefaultRunner(":memory:")
        self.closed.shutdown()
        self.runner = cloaca.DefaultRunner(":memory:")
        self.cron = self.runner.register_cron_workflow("fine", "0 0 1 1 *", "UTC")
        self.run = self.runner.submit("fine")
        self.run.result(timeout=20)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        return {table: self.runner.query(f"SELECT * FROM {table}") for table in TABLES}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.runner:
        yield made


def deep(levels: int) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for _ in range(levels):
        nested = {"a": nested}
    return nested


def endless() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["ring"] = ring
    return ring


def decorated_trigger(function: Any = None, /, **settings: Any) -> None:
    settings.setdefault("workflow", "fine")
    cloaca.trigger(**settings)(function if function is not None else lambda: False)


def decorated_task(function: Any = None, /, **settings: Any) -> None:
    with cloaca.WorkflowBuilder("bad"):
        cloaca.task(**{"id": "t", **settings})(function if function is not None else lambda context: None)


def cycle() -> None:
    with cloaca.WorkflowBuilder("bad"):
        cloaca.task(id="a", dependencies=["b"])(lambda context: None)
        cloaca.task(id="b", dependencies=["a"])(lambda context: None)


Case = tuple[str, Callable[[World], object], Any, str]

CONTEXTS: list[Case] = [
    ("Context([1])", lambda w: cloaca.Context([1]), TypeError, "dict"),  # type: ignore[arg-type]
    ("Context('a')", lambda w: cloaca.Context("a"), TypeError, "str"),  # type: ignore[arg-type]
    ("Context int key", lambda w: cloaca.Context({1: 2}), TypeError, "key 1"),  # type: ignore[dict-item]
    ("Context NaN", lambda w: cloaca.Context({"a": math.nan}), ValueError, "at 'a': got nan"),
    ("Context infinity", lambda w: cloaca.Context({"a": [1, -math.inf]}), ValueError, "a[1]"),
    ("Context object", lambda w: cloaca.Context({"a": object()}), TypeError, "got object"),
    ("Context bytes inside", lambda w: cloaca.Context({"a": {"b": [b"x"]}}), TypeError, "a.b[0]"),
    ("Context surrogate", lambda w: cloaca.Context({"a": LONE}), ValueError, "surrogate"),
    ("Context surrogate key", lambda w: cloaca.Context({LONE: 1}), ValueError, "surrogate"),
    ("Context 201 deep", lambda w: cloaca.Context(deep(201)), ValueError, "200 levels"),
    ("Context 100000 deep", lambda w: cloaca.Context(deep(100_000)), ValueError, "200 levels"),
    ("Context of itself", lambda w: cloaca.Context(endless()), ValueError, "contains itself"),
    ("Context.set int key", lambda w: cloaca.Context().set(5, 1), TypeError, "key 5"),  # type: ignore[arg-type]
    ("Context.insert twice", lambda w: cloaca.Context({"a": 1}).insert("a", 2), ValueError, "'a'"),
    ("Context.update missing", lambda w: cloaca.Context({"b": 1}).update("a", 2), KeyError, "it has b"),
    ("Context[missing]", lambda w: cloaca.Context()["a"], KeyError, "no key 'a'"),
    ("del Context[missing]", lambda w: cloaca.Context().__delitem__("a"), KeyError, "no key 'a'"),
    (
        "Context.update_from_dict str",
        lambda w: cloaca.Context().update_from_dict("a"),  # type: ignore[arg-type]
        TypeError,
        "dict",
    ),
    ("from_json empty", lambda w: cloaca.Context.from_json(""), ValueError, "bad JSON"),
    ("from_json array", lambda w: cloaca.Context.from_json("[1]"), ValueError, "object"),
    ("from_json NaN", lambda w: cloaca.Context.from_json('{"a": NaN}'), ValueError, "NaN"),
    ("from_json int", lambda w: cloaca.Context.from_json(5), TypeError, "str"),  # type: ignore[arg-type]
    ("from_json deep", lambda w: cloaca.Context.from_json("[" * 100_000), ValueError, "nested"),
    ("from_json huge", lambda w: cloaca.Context.from_json(HUGE), ValueError, "bad JSON"),
]

RUNS: list[Case] = [
    ("execute unknown", lambda w: w.runner.execute("nope", {}), ValueError, "fine"),
    ("execute empty name", lambda w: w.runner.execute("", {}), ValueError, "fine"),
    ("execute name 5", lambda w: w.runner.execute(5, {}), ValueError, "workflow_name is 5"),  # type: ignore[arg-type]
    ("execute name None", lambda w: w.runner.execute(None, {}), ValueError, "workflow_name"),  # type: ignore[arg-type]
    ("execute huge name", lambda w: w.runner.execute(HUGE, {}), ValueError, "fine"),
    ("execute surrogate name", lambda w: w.runner.execute(LONE, {}), ValueError, "surrogate"),
    ("execute NUL name", lambda w: w.runner.execute("fine\0", {}), ValueError, "fine"),
    ("execute unicode name", lambda w: w.runner.execute("ﬁne", {}), ValueError, "ﬁne"),
    ("execute context str", lambda w: w.runner.execute("fine", "{}"), TypeError, "dict"),  # type: ignore[arg-type]
    ("execute context list", lambda w: w.runner.execute("fine", []), TypeError, "dict"),  # type: ignore[arg-type]
    ("execute context NaN", lambda w: w.runner.execute("fine", {"a": math.nan}), ValueError, "nan"),
    ("execute context deep", lambda w: w.runner.execute("fine", deep(300)), ValueError, "200 levels"),
    ("execute context surrogate", lambda w: w.runner.execute("fine", {"a": LONE}), ValueError, "surrogate"),
    ("submit unknown", lambda w: w.runner.submit("nope"), ValueError, "'nope'"),
    ("submit context object", lambda w: w.runner.submit("fine", {"a": object()}), TypeError, "got object"),
    ("submit_many unknown", lambda w: w.runner.submit_many("nope", [{}]), ValueError, "'nope'"),
    (
        "submit_many of 5",
        lambda w: w.runner.submit_many("fine", 5),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "contexts is 5",
    ),
    (
        "submit_many of a dict",
        lambda w: w.runner.submit_many("fine", {"a": 1}),  # type: ignore[arg-type]
        TypeError,
        "dict",
    ),
    (
        "submit_many with one that is bad",
        lambda w: w.runner.submit_many("fine", [{}, {}, {"a": math.nan}]),
        ValueError,
        "nan",
    ),
    (
        "execute_async unknown",
        lambda w: asyncio.run(w.runner.execute_async("nope")),
        ValueError,
        "'nope'",
    ),
    ("execute when shut down", lambda w: w.closed.execute("fine", {}), RuntimeError, "shut down"),
    ("list_runs status", lambda w: w.runner.list_runs(status="Fine"), ValueError, "Completed"),
    ("list_runs status 5", lambda w: w.runner.list_runs(status=5), (TypeError, ValueError), "status"),  # type: ignore[arg-type]
    (
        "list_runs workflow 5",
        lambda w: w.runner.list_runs(workflow=5),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "workflow",
    ),
    (
        "list_runs trigger 5",
        lambda w: w.runner.list_runs(trigger=5),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "trigger",
    ),
    ("list_runs contexts 'no'", lambda w: w.runner.list_runs(contexts="no"), TypeError, "contexts is 'no'"),  # type: ignore[arg-type]
    ("list_runs limit -1", lambda w: w.runner.list_runs(limit=-1), ValueError, "limit is -1"),
    ("list_runs limit huge", lambda w: w.runner.list_runs(limit=2**64), ValueError, "limit"),
    ("list_runs offset NaN", lambda w: w.runner.list_runs(offset=math.nan), ValueError, "offset is nan"),  # type: ignore[arg-type]
    ("get_run no UUID", lambda w: w.runner.get_run("zz"), ValueError, "run"),
    ("get_run 5", lambda w: w.runner.get_run(5), (TypeError, ValueError), "run_id is 5"),  # type: ignore[arg-type]
    ("get_run surrogate", lambda w: w.runner.get_run(LONE), ValueError, "UUID"),
    ("get_run huge", lambda w: w.runner.get_run(HUGE), ValueError, "UUID"),
    ("cancel no UUID", lambda w: w.runner.cancel("zz"), ValueError, "run"),
    ("cancel None", lambda w: w.runner.cancel(None), ValueError, "run_id is None"),  # type: ignore[arg-type]
    ("cancel unknown", lambda w: w.runner.cancel(NOWHERE), ValueError, "not found"),
    ("retry no UUID", lambda w: w.runner.retry(""), ValueError, "run"),
    ("retry 5", lambda w: w.runner.retry(5), ValueError, "run_id is 5"),  # type: ignore[arg-type]
    ("retry unknown", lambda w: w.runner.retry(NOWHERE), ValueError, NOWHERE),
    ("retry completed", lambda w: w.runner.retry(w.run.id), ValueError, "Completed"),
]

CRONS: list[Case] = [
    (
        "cron empty",
        lambda w: w.runner.register_cron_workflow("fine", "", "UTC"),
        ValueError,
        "cron_expression",
    ),
    *(
        (
            f"cron {expression[:20]!r}",
            lambda w, expression=expression: w.runner.register_cron_workflow("fine", expression, "UTC"),
            ValueError,
            "Failed to register cron workflow",
        )
        for expression in (
            "* * * *",
            "* * * * * * * *",
            "60 * * * *",
            "* * * * MON-",
            "*/0 * * * *",
            "5-1-3 * * * *",
            "a b c d e",
            "@sometimes",
            "30 2 30 2 *",
            "٣ * * * *",
            "* * * *\0*",
            "0," * 500_000 + "0 * * * *",
        )
    ),
    (
        "cron surrogate",
        lambda w: w.runner.register_cron_workflow("fine", f"{LONE} * * * *", "UTC"),
        ValueError,
        "Failed to register cron workflow",
    ),
    (
        "cron 5",
        lambda w: w.runner.register_cron_workflow("fine", 5, "UTC"),  # type: ignore[arg-type]
        ValueError,
        "cron_expression is 5",
    ),
    (
        "cron zone",
        lambda w: w.runner.register_cron_workflow("fine", "* * * * *", "Mars/Olympus"),
        ValueError,
        "Mars/Olympus",
    ),
    (
        "cron zone surrogate",
        lambda w: w.runner.register_cron_workflow("fine", "* * * * *", LONE),
        ValueError,
        "Failed to register cron workflow",
    ),
    (
        "cron zone path",
        lambda w: w.runner.register_cron_workflow("fine", "* * * * *", "../../etc/passwd"),
        ValueError,
        "Failed to register cron workflow",
    ),
    (
        "cron zone None",
        lambda w: w.runner.register_cron_workflow("fine", "* * * * *", None),  # type: ignore[arg-type]
        ValueError,
        "timezone is None",
    ),
    (
        "cron workflow 5",
        lambda w: w.runner.register_cron_workflow(5, "* * * * *", "UTC"),  # type: ignore[arg-type]
        ValueError,
        "workflow_name is 5",
    ),
    (
        "cron workflow surrogate",
        lambda w: w.runner.register_cron_workflow(LONE, "* * * * *", "UTC"),
        ValueError,
        "Failed to register cron workflow",
    ),
    ("list crons limit", lambda w: w.runner.list_cron_schedules(limit=-1), ValueError, "limit is -1"),
    ("list crons offset", lambda w: w.runner.list_cron_schedules(offset="1"), ValueError, "offset is '1'"),  # type: ignore[arg-type]
    (
        "list crons limit True",
        lambda w: w.runner.list_cron_schedules(limit=True),
        ValueError,
        "limit is True",
    ),
    (
        "list crons enabled_only",
        lambda w: w.runner.list_cron_schedules(enabled_only="no"),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "enabled_only",
    ),
    ("get cron no UUID", lambda w: w.runner.get_cron_schedule("zz"), ValueError, "Invalid schedule ID"),
    ("get cron 5", lambda w: w.runner.get_cron_schedule(5), ValueError, "Invalid schedule ID"),  # type: ignore[arg-type]
    ("get cron surrogate", lambda w: w.runner.get_cron_schedule(LONE), ValueError, "Invalid schedule ID"),
    (
        "get cron unknown",
        lambda w: w.runner.get_cron_schedule(NOWHERE),
        ValueError,
        "Failed to get cron schedule",
    ),
    (
        "update cron unknown",
        lambda w: w.runner.update_cron_schedule(NOWHERE, "* * * * *", "UTC"),
        ValueError,
        "Failed to update cron schedule",
    ),
    (
        "update cron no UUID",
        lambda w: w.runner.update_cron_schedule("zz", "* * * * *", "UTC"),
        ValueError,
        "Invalid schedule ID",
    ),
    (
        "update cron expression",
        lambda w: w.runner.update_cron_schedule(w.cron, "nope", "UTC"),
        ValueError,
        "Failed to update cron schedule",
    ),
    (
        "update cron expression 5",
        lambda w: w.runner.update_cron_schedule(w.cron, 5, "UTC"),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "cron_expression is 5",
    ),
    (
        "update cron zone",
        lambda w: w.runner.update_cron_schedule(w.cron, "* * * * *", "Mars/Olympus"),
        ValueError,
        "Failed to update cron schedule",
    ),
    (
        "update cron zone None",
        lambda w: w.runner.update_cron_schedule(w.cron, "* * * * *", None),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "timezone is None",
    ),
    (
        "enable cron unknown",
        lambda w: w.runner.set_cron_schedule_enabled(NOWHERE, False),
        ValueError,
        "Failed to update cron schedule",
    ),
    (
        "enable cron 'no'",
        lambda w: w.runner.set_cron_schedule_enabled(w.cron, "no"),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "enabled is 'no'",
    ),
    ("delete cron unknown", lambda w: w.runner.delete_cron_schedule(NOWHERE), ValueError, NOWHERE),
    ("delete cron empty", lambda w: w.runner.delete_cron_schedule(""), ValueError, "Invalid schedule ID"),
    (
        "cron history unknown",
        lambda w: w.runner.get_cron_execution_history(NOWHERE),
        ValueError,
        "Failed to get cron schedule",
    ),
    (
        "cron history limit",
        lambda w: w.runner.get_cron_execution_history(w.cron, limit=-5),
        ValueError,
        "limit is -5",
    ),
    *(
        (
            f"cron stats {since!r}"[:30],
            lambda w, since=since: w.runner.get_cron_execution_stats(since),
            ValueError,
            "Invalid datetime format",
        )
        for since in ("yesterday", "", None, 5, math.nan, LONE, "2026-13-01T00:00:00Z", HUGE, b"2026-01-01")
    ),
]

TRIGGERS: list[Case] = [
    ("list triggers limit", lambda w: w.runner.list_trigger_schedules(limit=-1), ValueError, "limit is -1"),
    ("get trigger 5", lambda w: w.runner.get_trigger_schedule(5), ValueError, "trigger_name is 5"),  # type: ignore[arg-type]
    ("enable unknown", lambda w: w.runner.set_trigger_enabled("nope", True), ValueError, "watcher"),
    ("enable surrogate", lambda w: w.runner.set_trigger_enabled(LONE, True), ValueError, "surrogate"),
    ("enable huge", lambda w: w.runner.set_trigger_enabled(HUGE, True), ValueError, "watcher"),
    (
        "enable 'no'",
        lambda w: w.runner.set_trigger_enabled("watcher", "no"),  # type: ignore[arg-type]
        (TypeError, ValueError),
        "enabled is 'no'",
    ),
    ("history 5", lambda w: w.runner.get_trigger_execution_history(5), ValueError, "trigger_name is 5"),  # type: ignore[arg-type]
    (
        "history limit",
        lambda w: w.runner.get_trigger_execution_history("watcher", limit=1.5),  # type: ignore[arg-type]
        ValueError,
        "limit is 1.5",
    ),
    ("ticks unknown", lambda w: w.runner.ticks("nope"), ValueError, "watcher"),
    ("ticks last -1", lambda w: w.runner.ticks("watcher", last=-1), ValueError, "last is -1"),
    ("why unknown", lambda w: w.runner.why("nope"), ValueError, "watcher"),
    ("why None", lambda w: w.runner.why(None), ValueError, "trigger_name is None"),  # type: ignore[arg-type]
    ("why_run unknown", lambda w: w.runner.why_run("0" * 32), ValueError, "not found"),
    ("why_run nonsense", lambda w: w.runner.why_run("nope"), ValueError, "nope"),
    ("why_run None", lambda w: w.runner.why_run(None), ValueError, "None"),  # type: ignore[arg-type]
    ("forget unknown", lambda w: w.runner.forget("nope"), ValueError, "watcher"),
    ("forget declared", lambda w: w.runner.forget("watcher"), ValueError, "unregister_trigger"),
    ("forget None", lambda w: w.runner.forget(None), ValueError, "trigger_name is None"),  # type: ignore[arg-type]
    ("rename unknown", lambda w: w.runner.rename("nope", "other"), ValueError, "watcher"),
    ("rename declared", lambda w: w.runner.rename("watcher", "other"), ValueError, "unregister_trigger"),
    ("rename empty", lambda w: w.runner.rename("nope", ""), ValueError, "new_name is ''"),
    ("rename None", lambda w: w.runner.rename(None, "other"), ValueError, "trigger_name is None"),  # type: ignore[arg-type]
    ("tick unknown", lambda w: w.runner.tick("nope"), ValueError, "watcher"),
    ("tick empty", lambda w: w.runner.tick(""), ValueError, "watcher"),
    ("tick 5", lambda w: w.runner.tick(5), ValueError, "trigger_name is 5"),  # type: ignore[arg-type]
    ("tick surrogate", lambda w: w.runner.tick(LONE), ValueError, "surrogate"),
    ("fire list", lambda w: cloaca.TriggerResult.fire([1]), TypeError, "dict"),  # type: ignore[arg-type]
    ("fire empty run_key", lambda w: cloaca.TriggerResult.fire(run_key=""), ValueError, "run_key is ''"),
    ("fire run_key 5", lambda w: cloaca.TriggerResult.fire(run_key=5), ValueError, "run_key is 5"),  # type: ignore[arg-type]
    ("fire huge run_key", lambda w: cloaca.TriggerResult.fire(run_key=HUGE), ValueError, "1024"),
    (
        "fire surrogate cursor",
        lambda w: cloaca.TriggerResult.fire(cursor=LONE),
        ValueError,
        r"at 'cursor': got '\ud800', which holds a lone surrogate",
    ),
    ("set_cursor surrogate", lambda w: w.runner.set_cursor("watcher", LONE), ValueError, "lone surrogate"),
    ("fire lonely ttl", lambda w: cloaca.TriggerResult.fire(run_key_ttl="1d"), ValueError, "run_key_ttl"),
    (
        "fire negative ttl",
        lambda w: cloaca.TriggerResult.fire(run_key="k", run_key_ttl=-1),
        ValueError,
        "run_key_ttl is -1s",
    ),
    ("skip 5", lambda w: cloaca.TriggerResult.skip(5), ValueError, "reason is 5"),  # type: ignore[arg-type]
    *(
        (
            f"poll_interval {interval!r}"[:40],
            lambda w, interval=interval: decorated_trigger(poll_interval=interval),
            ValueError,
            "poll_interval",
        )
        for interval in (
            "",
            "0s",
            "5",
            "1m1h",
            "-1s",
            "1e3s",
            "٣s",
            HUGE,
            -1,
            0,
            1e300,
            math.nan,
            True,
            [1],
            "99999d",
        )
    ),
    ("trigger workflow 5", lambda w: decorated_trigger(workflow=5), ValueError, "workflow is 5"),
    ("trigger name empty", lambda w: decorated_trigger(name=""), ValueError, "name is ''"),
    ("trigger name huge", lambda w: decorated_trigger(name=HUGE), ValueError, "255"),
    ("trigger name surrogate", lambda w: decorated_trigger(name=LONE), ValueError, "surrogate"),
    ("trigger of 5", lambda w: decorated_trigger(5, name="t"), ValueError, "decorates a function"),
    (
        "trigger with two parameters",
        lambda w: decorated_trigger(lambda tick, more: False, name="t"),
        ValueError,
        "more",
    ),
    (
        "trigger workflow and on",
        lambda w: decorated_trigger(name="t", on="other"),
        ValueError,
        "they mean the same",
    ),
    (
        "trigger cron and poll_interval",
        lambda w: decorated_trigger(name="t", cron="* * * * *", poll_interval="5s"),
        ValueError,
        "give one of them",
    ),
    (
        "trigger cron without workflow",
        lambda w: cloaca.trigger(cron="* * * * *", name="t")(lambda: False),
        ValueError,
        "without a workflow",
    ),
    (
        "trigger cron never",
        lambda w: decorated_trigger(name="t", cron="30 2 30 2 *"),
        ValueError,
        "30 2 30 2 *",
    ),
    (
        "trigger cron zone",
        lambda w: decorated_trigger(name="t", cron="* * * * *", timezone="Mars/Olympus"),
        ValueError,
        "Mars/Olympus",
    ),
    ("trigger jitter", lambda w: decorated_trigger(name="t", jitter="110%"), ValueError, "jitter"),
    ("trigger overlap", lambda w: decorated_trigger(name="t", overlap="maybe"), ValueError, "overlap"),
    (
        "trigger failures",
        lambda w: decorated_trigger(name="t", max_consecutive_failures=0),
        ValueError,
        "max_consecutive_failures",
    ),
    ("trigger on_error", lambda w: decorated_trigger(name="t", on_error="5s"), ValueError, "Backoff"),
    (
        "trigger allow_concurrent",
        lambda w: decorated_trigger(name="t", allow_concurrent="yes"),
        ValueError,
        "allow_concurrent is 'yes'",
    ),
    ("Backoff factor", lambda w: cloaca.Backoff(factor=math.nan), ValueError, "factor is nan"),
    ("Backoff max", lambda w: cloaca.Backoff(base="5m", max="1m"), ValueError, "less than base"),
    ("RetryAfter", lambda w: cloaca.RetryAfter("soon"), ValueError, "delay is 'soon'"),
]

DECLARATIONS: list[Case] = [
    (
        "task outside a block",
        lambda w: cloaca.task()(lambda c: c),
        ValueError,
        "No workflow context available",
    ),
    ("task id empty", lambda w: decorated_task(id=""), ValueError, "id is ''"),
    ("task id with ::", lambda w: decorated_task(id="a::b"), ValueError, "::"),
    ("task attempts", lambda w: decorated_task(retry_attempts=-1), ValueError, "retry_attempts is -1"),
    ("task delay", lambda w: decorated_task(retry_delay_ms=math.nan), ValueError, "retry_delay_ms is nan"),
    ("task backoff", lambda w: decorated_task(retry_backoff="wild"), ValueError, "exponential"),
    (
        "task retry twice",
        lambda w: decorated_task(retry=cloaca.RetryPolicy.default(), retry_attempts=2),
        ValueError,
        "not both",
    ),
    ("task rule", lambda w: decorated_task(trigger_rules={"type": "Wild"}), ValueError, "Wild"),
    ("task rule deep", lambda w: decorated_task(trigger_rules=deep_rule()), ValueError, "nested"),
    ("task callback", lambda w: decorated_task(on_success=5), ValueError, "on_success is 5"),
    ("task dependencies", lambda w: decorated_task(dependencies="a"), ValueError, "dependencies is 'a'"),
    ("task dependency missing", lambda w: decorated_task(dependencies=["nope"]), ValueError, "nope"),
    ("task without parameter", lambda w: decorated_task(lambda: None), ValueError, "takes no parameter"),
    ("workflow cycle", lambda w: cycle(), ValueError, "->"),
    ("workflow name", lambda w: cloaca.WorkflowBuilder(5), ValueError, "name is 5"),  # type: ignore[arg-type]
    ("workflow name surrogate", lambda w: cloaca.WorkflowBuilder(LONE), ValueError, "surrogate"),
    ("workflow empty", lambda w: cloaca.WorkflowBuilder("bad").build(), ValueError, "cannot be empty"),
    (
        "add_task unknown",
        lambda w: cloaca.WorkflowBuilder("bad").add_task("nope"),
        ValueError,
        "not found in registry",
    ),
    (
        "add_task 5",
        lambda w: cloaca.WorkflowBuilder("bad").add_task(5),  # type: ignore[arg-type]
        ValueError,
        "string task ID or a function object",
    ),
    (
        "description huge",
        lambda w: cloaca.WorkflowBuilder("bad").description(HUGE),
        ValueError,
        "10000 characters",
    ),
    (
        "constructor 5",
        lambda w: cloaca.register_workflow_constructor("bad", 5),  # type: ignore[arg-type]
        ValueError,
        "function is 5",
    ),
    (
        "constructor returns 5",
        lambda w: cloaca.register_workflow_constructor("bad", lambda: 5),  # type: ignore[arg-type,return-value]
        ValueError,
        "must return a Workflow",
    ),
    ("rule operator", lambda w: cloaca.context_value("k", "~", 1), ValueError, "operator is '~'"),
    ("rule value", lambda w: cloaca.context_value("k", "==", math.inf), ValueError, "'k'"),
    ("rule of 5", lambda w: cloaca.all_of(5), ValueError, "trigger rule 5"),  # type: ignore[arg-type]
    ("namespace", lambda w: cloaca.TaskNamespace.from_string("a::b"), ValueError, "tenant::package"),
    (
        "policy attempts",
        lambda w: cloaca.RetryPolicy.builder().max_attempts(1.5),  # type: ignore[arg-type]
        ValueError,
        "max_attempts is 1.5",
    ),
    (
        "policy delay",
        lambda w: cloaca.RetryPolicy.builder().initial_delay(-1),
        ValueError,
        "initial_delay is -1",
    ),
    ("policy pattern", lambda w: cloaca.RetryCondition.error_pattern("a"), ValueError, "patterns"),
    ("var unset", lambda w: cloaca.var("NOT_SET_ANYWHERE"), KeyError, "CLOACINA_VAR_NOT_SET_ANYWHERE"),
    ("var 5", lambda w: cloaca.var(5), TypeError, "name is 5"),  # type: ignore[arg-type]
    ("DatabaseAdmin", lambda w: cloaca.DatabaseAdmin("sqlite://a.db"), RuntimeError, "PostgreSQL"),
    ("TenantConfig", lambda w: cloaca.TenantConfig("", "u"), ValueError, "schema_name"),
    ("TenantConfig 5", lambda w: cloaca.TenantConfig("s", 5), TypeError, "username is 5"),  # type: ignore[arg-type]
]

STORES: list[Case] = [
    ("url 5", lambda w: cloaca.DefaultRunner(5), TypeError, "database_url is 5"),  # type: ignore[arg-type]
    ("url None", lambda w: cloaca.DefaultRunner(None), TypeError, "database_url is None"),  # type: ignore[arg-type]
    ("url empty", lambda w: cloaca.DefaultRunner(""), ValueError, ":memory:"),
    ("url scheme", lambda w: cloaca.DefaultRunner("mysql://h/d"), ValueError, "sqlite:///PATH"),
    ("url file:", lambda w: cloaca.DefaultRunner("file:a.db"), ValueError, "sqlite://PATH"),
    ("url no path", lambda w: cloaca.DefaultRunner("sqlite://"), ValueError, "no file"),
    ("url NUL", lambda w: cloaca.DefaultRunner("a\0b"), ValueError, "NUL"),
    ("url surrogate", lambda w: cloaca.DefaultRunner(LONE), ValueError, "surrogate"),
    ("url option", lambda w: cloaca.DefaultRunner("sqlite://a.db?mode=ro"), ValueError, "durability"),
    ("url durability", lambda w: cloaca.DefaultRunner("sqlite://a.db?durability=no"), ValueError, "'full'"),
    (
        "url postgresql",
        lambda w: cloaca.DefaultRunner("postgresql://h/d"),
        RuntimeError,
        "there is no host 'h'",
    ),
    (
        "url folder missing",
        lambda w: cloaca.DefaultRunner(str(w.folder / "no" / "a.db")),
        RuntimeError,
        "/no'",
    ),
    ("url is a folder", lambda w: cloaca.DefaultRunner(str(w.folder)), RuntimeError, "folder"),
    (
        "config dict",
        lambda w: cloaca.DefaultRunner.with_config(":memory:", {}),  # type: ignore[arg-type]
        TypeError,
        "DefaultRunnerConfig",
    ),
    (
        "durability",
        lambda w: cloaca.DefaultRunner.with_config(
            ":memory:", cloaca.DefaultRunnerConfig(), durability="most"
        ),
        ValueError,
        "durability is 'most'",
    ),
    (
        "schema empty",
        lambda w: cloaca.DefaultRunner.with_schema("postgresql://h/d", ""),
        ValueError,
        "Schema name cannot be empty",
    ),
    (
        "schema characters",
        lambda w: cloaca.DefaultRunner.with_schema("postgresql://h/d", "a-b; DROP"),
        ValueError,
        "must contain only alphanumeric characters and underscores",
    ),
    (
        "schema on SQLite",
        lambda w: cloaca.DefaultRunner.with_schema(":memory:", "tenant"),
        ValueError,
        "PostgreSQL",
    ),
    (
        "schema unreachable",
        lambda w: cloaca.DefaultRunner.with_schema("postgresql://127.0.0.1:1/d", "tenant"),
        RuntimeError,
        "Failed to set up schema",
    ),
    *(
        (
            f"config {field}={value!r}",
            lambda w, field=field, value=value: cloaca.DefaultRunnerConfig(**{field: value}),
            ValueError,
            f"{field} is {value!r}",
        )
        for field, value in (
            ("max_concurrent_tasks", 0),
            ("max_concurrent_tasks", -1),
            ("max_concurrent_tasks", 1.5),
            ("max_concurrent_tasks", True),
            ("max_concurrent_tasks", 2**64),
            ("scheduler_poll_interval_ms", "100"),
            ("task_timeout_seconds", 0),
            ("task_timeout_seconds", math.nan),
            ("workflow_timeout_seconds", -math.inf),
            ("workflow_timeout_seconds", "soon"),
            ("task_timeout_seconds", []),
            ("timeout_grace_seconds", True),
            ("db_pool_size", 0),
            ("enable_recovery", 1),
            ("enable_cron_scheduling", "yes"),
            ("cron_poll_interval_seconds", 0),
            ("cron_max_catchup_executions", -1),
            ("cron_recovery_interval_seconds", 0),
            ("cron_lost_threshold_minutes", -10),
            ("cron_max_recovery_age_seconds", 0),
            ("cron_max_recovery_attempts", -3),
            ("durability", "most"),
            ("retention", "soon"),
            ("retention", True),
            ("timer_resolution", "fine"),
        )
    ),
    (
        "config timer_resolution too small",
        lambda w: cloaca.DefaultRunnerConfig(timer_resolution="0.001ms"),
        ValueError,
        "timer_resolution is 0.001ms; the smallest is 0.01ms",
    ),
    (
        "config timer_resolution too large",
        lambda w: cloaca.DefaultRunnerConfig(timer_resolution=2),
        ValueError,
        "timer_resolution is 2s; the largest is 1s",
    ),
    ("query write", lambda w: w.runner.query("DELETE FROM runs"), RuntimeError, "SELECT"),
    (
        "query hidden write",
        lambda w: w.runner.query("WITH a AS (SELECT 1) DELETE FROM runs"),
        RuntimeError,
        "",
    ),
    ("query pragma", lambda w: w.runner.query("PRAGMA user_version = 99"), RuntimeError, "PRAGMA"),
    ("query attach", lambda w: w.runner.query("ATTACH 'a.db' AS a"), RuntimeError, "SELECT"),
    ("query vacuum", lambda w: w.runner.query("VACUUM"), RuntimeError, "SELECT"),
    ("query begin", lambda w: w.runner.query("BEGIN IMMEDIATE"), RuntimeError, "SELECT"),
    ("query two", lambda w: w.runner.query("SELECT 1; DELETE FROM runs"), RuntimeError, "one statement"),
    ("query empty", lambda w: w.runner.query(""), RuntimeError, "query"),
    ("query syntax", lambda w: w.runner.query("SELEC 1"), RuntimeError, "syntax error"),
    ("query table", lambda w: w.runner.query("SELECT * FROM nope"), RuntimeError, "nope"),
    ("query 5", lambda w: w.runner.query(5), (TypeError, ValueError, RuntimeError), "sql is 5"),  # type: ignore[arg-type]
    (
        "query params 5",
        lambda w: w.runner.query("SELECT ?", 5),
        (TypeError, ValueError, RuntimeError),
        "params",
    ),  # type: ignore[arg-type]
    ("query few params", lambda w: w.runner.query("SELECT ?, ?", [1]), RuntimeError, "2"),
    (
        "query param object",
        lambda w: w.runner.query("SELECT ?", [object()]),
        (TypeError, ValueError, RuntimeError),
        "object",
    ),
    (
        "query param huge int",
        lambda w: w.runner.query("SELECT ?", [2**64]),
        (TypeError, ValueError, RuntimeError),
        str(2**64),
    ),
    (
        "query param surrogate",
        lambda w: w.runner.query("SELECT ?", [LONE]),
        (TypeError, ValueError, RuntimeError),
        "surrogate",
    ),
    (
        "query surrogate",
        lambda w: w.runner.query(f"SELECT '{LONE}'"),
        (ValueError, RuntimeError),
        "surrogate",
    ),
    ("export missing folder", lambda w: w.runner.export(w.folder / "no" / "a.db"), RuntimeError, "create it"),
    ("export over a folder", lambda w: w.runner.export(w.folder), RuntimeError, "exists"),
    ("export empty", lambda w: w.runner.export(""), (ValueError, RuntimeError), "export"),
    ("export 5", lambda w: w.runner.export(5), (TypeError, ValueError, RuntimeError), "path is 5"),  # type: ignore[arg-type]
    ("export NUL", lambda w: w.runner.export("a\0b"), (ValueError, RuntimeError), "NUL"),
    ("testing start", lambda w: cloaca.testing.Runner(start="soon"), ValueError, "Invalid datetime format"),
]

CASES = CONTEXTS + RUNS + CRONS + TRIGGERS + DECLARATIONS + STORES


def deep_rule() -> dict[str, Any]:
    rule = cloaca.always()
    for _ in range(5_000):
        rule = {"type": "All", "conditions": [rule]}
    return rule


@pytest.mark.parametrize(
    ("call", "builtin", "fragment"),
    [pytest.param(*case[1:], id=case[0].encode("ascii", "backslashreplace").decode()) for case in CASES],
)
def test_bad_input_gets_its_exception_and_changes_nothing(
    world: World, call: Callable[[World], object], builtin: Any, fragment: str
) -> None:
    declared = cloaca.registry.names(), list(cloaca.registry.triggers)
    before = world.rows()
    with pytest.raises(builtin) as caught:
        call(world)
    assert world.rows() == before
    assert (cloaca.registry.names(), list(cloaca.registry.triggers)) == declared
    assert list(world.folder.iterdir()) == []
    assert isinstance(caught.value, cloaca.CloacaError)
    message = str(caught.value)
    assert fragment in message
    assert len(message) <= MESSAGE_CHARS_MAX
    message.encode()
    assert world.runner.execute("fine", {}).status == "Completed"


@pytest.mark.parametrize("timeout", ["soon", math.nan, -1, [1]])
def test_a_bad_timeout_of_a_result_is_told_and_the_run_is_not_lost(world: World, timeout: Any) -> None:
    run = world.runner.submit("fine")
    with pytest.raises((TypeError, ValueError), match="timeout") as caught:
        run.result(timeout=timeout)
    assert isinstance(caught.value, cloaca.CloacaError)
    assert run.result(timeout=20).status == "Completed"


@pytest.mark.parametrize("timeout", ["soon", math.nan, -1, [1]])
def test_a_bad_timeout_of_shutdown_is_told_and_leaves_the_runner_open(world: World, timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout") as caught:
        world.runner.shutdown(timeout=timeout)
    assert isinstance(caught.value, cloaca.CloacaError)
    assert world.runner.execute("fine").status == "Completed"


@pytest.mark.parametrize("span", ["soon", -1, math.nan, None])
def test_a_manual_clock_is_not_moved_by_a_bad_span(span: Any) -> None:
    with cloaca.testing.Runner() as runner:
        with pytest.raises(ValueError, match="span") as caught:
            runner.advance(span)
        assert isinstance(caught.value, cloaca.CloacaError)
        assert runner.now == "2026-01-01T00:00:00.000000Z"


def test_an_unknown_field_of_the_config_is_told_with_those_that_exist() -> None:
    config = cloaca.DefaultRunnerConfig()
    with pytest.raises(AttributeError, match="max_concurrent_tasks"):
        config.max_tasks = 4  # type: ignore[attr-defined]


ANSWERS: list[tuple[str, Callable[[], object], str]] = [
    ("None", lambda: None, "returned None"),
    ("5", lambda: 5, "returned int"),
    ("a str", lambda: "fire", "returned str"),
    ("a dict", lambda: {"a": 1}, "returned dict"),
    ("a list with 5", lambda: [cloaca.TriggerResult.fire(), 5], "holds an int"),
    ("a list with True", lambda: [True], "holds a bool"),
    ("its class", lambda: cloaca.TriggerResult, "returned type"),
    ("too many", lambda: [cloaca.TriggerResult.skip()] * 10_001, "10000"),
    ("an endless generator", lambda: iter(lambda: cloaca.TriggerResult.skip(), 0), "10000"),
    ("a context changed into an object", lambda: spoilt(), "object"),
]


def spoilt() -> object:
    result = cloaca.TriggerResult.fire({"a": []})
    assert result.context is not None
    result.context["a"].append(object())
    return result


@pytest.mark.parametrize(("answer", "fragment"), [pytest.param(*case[1:], id=case[0]) for case in ANSWERS])
def test_a_poll_that_answers_nonsense_is_an_error_tick_and_fires_nothing(
    answer: Callable[[], object], fragment: str
) -> None:
    with cloaca.WorkflowBuilder("fine"):
        cloaca.task(id="only")(lambda context: None)
    cloaca.trigger(workflow="fine", name="nonsense", poll_interval="24h")(answer)
    with cloaca.DefaultRunner(":memory:") as runner:
        told = runner.tick("nonsense")
        assert told["outcome"] == "error"
        assert fragment in told["reason"]
        assert told["fires"] == []
        assert runner.ticks("nonsense")[0]["outcome"] == "error"
        assert runner.list_runs() == []
        assert runner.execute("fine").status == "Completed"


RETURNS: list[tuple[str, Callable[[cloaca.Context], object], str]] = [
    ("5", lambda context: 5, "returned int"),
    ("a list", lambda context: [context], "returned list"),
    ("NaN", lambda context: {"a": math.nan}, "nan"),
    ("an object", lambda context: {"a": object()}, "got object"),
    ("a surrogate", lambda context: {"a": LONE}, "surrogate"),
    ("a ring", lambda context: endless(), "contains itself"),
    ("a spoilt context", lambda context: context["list"].append({1, object()}), "object"),
]


@pytest.mark.parametrize(("body", "fragment"), [pytest.param(*case[1:], id=case[0]) for case in RETURNS])
def test_a_task_that_returns_nonsense_fails_its_run_with_a_message(
    body: Callable[[cloaca.Context], object], fragment: str
) -> None:
    with cloaca.WorkflowBuilder("bad"):
        cloaca.task(id="only", retry_attempts=1)(body)
    with cloaca.DefaultRunner(":memory:") as runner:
        result = runner.execute("bad", {"list": []})
        assert result.status == "Failed"
        assert result.error_message is not None
        assert fragment in result.error_message
        assert "'only'" in result.error_message


def test_an_int_beyond_every_float_is_refused_like_any_other_long_time() -> None:
    for value in (10**400, 10**15):
        with pytest.raises(cloaca.TriggerError, match=r"base is 1000.*the largest is 10 years"):
            cloaca.Backoff(base=value)
    with pytest.raises(cloaca.TriggerError, match="the smallest is"):
        cloaca.Backoff(base=-(10**400))


@pytest.mark.parametrize("params", [{"n": 5}, {5, 6}, "5", b"5", 5])
def test_parameters_without_an_order_are_refused(runner: cloaca.DefaultRunner, params: Any) -> None:
    with pytest.raises(cloaca.ArgumentTypeError, match="params is"):
        runner.query("SELECT :n", params)


def test_a_message_is_no_longer_than_somebody_can_read(runner: cloaca.DefaultRunner) -> None:
    long = "x" * 1_000_000
    calls = (
        lambda: runner.query(long),
        lambda: runner.export(f"/absent/{long}"),
        lambda: cloaca.DefaultRunner(f"/absent/{long}"),
        lambda: cloaca.DefaultRunner(f"{long}.db"),
    )
    for call in calls:
        with pytest.raises(cloaca.StoreError) as caught:
            call()
        assert len(str(caught.value)) <= 4_000


def test_a_variable_s_name_is_a_text_that_the_system_knows() -> None:
    with pytest.raises(TypeError, match="lone surrogate"):
        cloaca.var("\ud800")
