"""Programs that are right, to none of which a type checker may object. Checked, never run."""

import asyncio
import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Never, TypedDict, assert_type

import cloaca
import cloaca.testing
from cloaca import types

# Bodies of tasks, with and without a handle, and what they return


class Order(TypedDict):
    number: int


with cloaca.WorkflowBuilder("orders") as orders:

    @cloaca.task
    def bare(context: cloaca.Context) -> None:
        context["n"] = 1

    @cloaca.task()
    def keeps(context: cloaca.Context) -> None: ...

    @cloaca.task(id="gives")
    def gives(context: cloaca.Context) -> cloaca.Context:
        return context

    @cloaca.task(dependencies=[keeps, "gives"])
    def gives_dict(context: cloaca.Context) -> dict[str, int]:
        return {"n": 1}

    @cloaca.task(dependencies=(keeps,))
    def gives_order(context: cloaca.Context) -> Order:
        return {"number": 1}

    @cloaca.task(dependencies={"keeps"})
    def gives_mapping(context: cloaca.Context) -> Mapping[str, object]:
        return {"number": 1}

    @cloaca.task(dependencies=(name for name in ("keeps", "gives")))
    def may_keep(context: cloaca.Context) -> cloaca.Context | dict[str, Any] | None:
        return None

    @cloaca.task(retry_attempts=2, retry_backoff="exponential", retry_condition="transient")
    def anything(context: cloaca.Context) -> Any: ...

    @cloaca.task(retry=cloaca.RetryPolicy.builder().max_attempts(5).build())
    def with_handle(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(lambda: handle.attempt > 1, poll_interval_ms=5)

    @cloaca.task()
    def with_task_handle(ctx: cloaca.Context, task_handle: cloaca.TaskHandle) -> dict[str, Any]:
        return {"attempt": task_handle.attempt}

    @cloaca.task()
    def with_default(context: cloaca.Context, limit: int = 5) -> None: ...

    @cloaca.task()
    def with_any_number(*arguments: Any) -> None: ...

    @cloaca.task()
    def never_returns(context: cloaca.Context) -> Never:
        raise ValueError

    @cloaca.task()
    async def waits(context: cloaca.Context) -> None:
        await asyncio.sleep(0)

    @cloaca.task()
    async def waits_with_handle(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, Any]:
        await handle.checkpoint({"page": 1})
        await handle.defer_until(lambda: True)
        return {"run": handle.run_id}

    class Step:
        def __call__(self, context: cloaca.Context) -> None: ...

        def method(self, context: cloaca.Context, handle: cloaca.TaskHandle) -> None: ...

    def counted(context: cloaca.Context, by: int) -> None: ...

    cloaca.task(id="object")(Step())
    cloaca.task(id="method")(Step().method)
    cloaca.task(id="lambda")(lambda context: None)
    cloaca.task(id="partial")(functools.partial(counted, by=2))
    names: list[str] = ["keeps"]
    functions: Sequence[Callable[..., Any]] = [keeps]
    cloaca.task(id="names", dependencies=names)(keeps)
    cloaca.task(id="functions", dependencies=functions)(keeps)
    cloaca.task(id="mapped", dependencies=map(str, [1]))(keeps)
    cloaca.task(id="keys", dependencies={"keeps": 1}.keys())(keeps)
    options: dict[str, Any] = {"id": "options", "retry_attempts": 2}
    cloaca.task(**options)(keeps)
    cloaca.task(trigger_rules={"type": "Always"})(keeps)

# A decorated function is what it was.
assert_type(keeps(cloaca.Context()), None)
assert_type(gives_dict(cloaca.Context()), dict[str, int])


# Callbacks


def succeeded(task_id: str, context: cloaca.Context) -> None: ...
async def succeeded_later(task_id: str, context: cloaca.Context) -> None: ...
def failed(task_id: str, error: str, context: cloaca.Context) -> None: ...
async def failed_later(task_id: str, error: str, context: cloaca.Context) -> None: ...
def poll_failed(name: str, error: str, failures: int) -> None: ...
def disabled(name: str, cause: str) -> None: ...


with cloaca.WorkflowBuilder("callbacks", timeout="7d"):
    cloaca.task(id="a", on_success=succeeded, on_failure=failed)(keeps)
    cloaca.task(id="b", on_success=succeeded_later, on_failure=failed_later)(keeps)
    cloaca.task(id="c", on_success=lambda task_id, context: print(task_id))(keeps)
    cloaca.task(id="d", on_failure=lambda *told: print(told))(keeps)

# Bodies of triggers


@cloaca.trigger
def bare_poll() -> bool:
    return True


@cloaca.trigger(workflow="orders", poll_interval="5s", overlap="queue")
def polls() -> cloaca.TriggerResult:
    return cloaca.TriggerResult.fire({"n": 1})


@cloaca.trigger(on=orders.build(), poll_interval=5)
def polls_with_tick(tick: cloaca.Tick) -> cloaca.TriggerResult | bool:
    tick.poll_after(timedelta(minutes=1))
    return False


@cloaca.trigger(workflow="orders", poll_interval=timedelta(seconds=5), jitter="10%", poll_timeout=3.5)
def lists(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
    return [cloaca.TriggerResult.fire(Order(number=1), run_key="1", cursor=1)]


@cloaca.trigger(workflow="orders", executor="cpu", poll_timeout="1m")
def polls_elsewhere(tick: cloaca.Tick) -> bool:
    return bool(tick.cursor)


@cloaca.trigger(workflow="orders", executor="cpu", cron="@daily")
async def decides_elsewhere(tick: cloaca.Tick) -> dict[str, object]:
    return {"at": tick.scheduled_at}


@cloaca.trigger(workflow="orders", on_error=cloaca.Backoff("1s"), max_consecutive_failures=3)
def gives_tuple() -> tuple[cloaca.TriggerResult, ...]:
    return ()


@cloaca.trigger(workflow="orders", on_poll_failed=poll_failed, on_disabled=disabled)
def iterates(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
    yield cloaca.TriggerResult.skip("nothing new")


@cloaca.trigger(workflow="orders", poll_at_start=True)
def generates() -> Generator[cloaca.TriggerResult, None, None]:
    yield cloaca.TriggerResult.fire(cloaca.Context({"n": 1}))


@cloaca.trigger(workflow="orders")
def repeats() -> Iterable[cloaca.TriggerResult]:
    yield cloaca.TriggerResult.fire()


@cloaca.trigger(workflow="orders")
async def polls_later() -> bool:
    return True


@cloaca.trigger(workflow="orders")
async def lists_later(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
    return []


class Inbox:
    def poll(self) -> bool:
        return True

    def __call__(self, tick: cloaca.Tick) -> cloaca.TriggerResult:
        return cloaca.TriggerResult.skip()


# Where all may be anything, mypy has to be told which of the two it is.
settings: dict[str, Any] = {"name": "settings", "poll_interval": "1m"}
cloaca.trigger(workflow="orders", cron=None, **settings)(polls)
cloaca.trigger(workflow="orders", name="method")(Inbox().poll)
cloaca.trigger(workflow="orders", name="object")(Inbox())
cloaca.trigger(workflow="orders", name="lambda")(lambda: True)
cloaca.trigger(workflow="orders", name="lambda_with_tick")(lambda tick: cloaca.TriggerResult.skip())
cloaca.trigger(workflow="orders", name="partial")(functools.partial(polls_with_tick))
assert_type(polls().is_fire_result(), bool)


# Crons: a function without parameters isn't called, so that it may return anything


@cloaca.trigger(workflow="orders", cron="0 4 * * *", timezone="Europe/Berlin")
def nightly() -> None: ...


@cloaca.trigger(workflow="orders", cron="@hourly")
def hourly() -> str:
    return "never asked"


@cloaca.trigger(workflow="orders", cron="@hourly", overlap="skip", catchup="last")
def with_moment(tick: cloaca.Tick) -> dict[str, str]:
    return {"at": tick.scheduled_at}


@cloaca.trigger(workflow="orders", cron="@daily")
async def later(tick: cloaca.Tick) -> cloaca.TriggerResult | None:
    return None


cloaca.trigger(workflow="orders", name="cron", cron="@daily")(lambda: None)


def poll_or_cron(expression: str | None, interval: str | None) -> None:
    cloaca.trigger(workflow="orders", cron=expression)(polls)


# Rules

for rule in (
    cloaca.context_value("k", "Equals", 1),
    cloaca.context_value("k", "not_equals", 1),
    cloaca.context_value("k", "GREATER_THAN", 1),
    cloaca.context_value("k", "==", 1),
    cloaca.context_value("k", ">=", 1),
    cloaca.context_value("k", "<=", 1),
    cloaca.context_value("k", "lt", 1),
    cloaca.context_value("k", "In", [1, 2]),
    cloaca.context_value("k", "Exists"),
    cloaca.all_of(cloaca.always(), cloaca.none_of(cloaca.task_failed("a")), cloaca.any_of()),
):
    cloaca.task(id="ruled", trigger_rules=rule)(keeps)

# A runner, and the dicts that it gives

overlap: types.Overlap = "cancel_running"
status: types.RunStatus = "Failed"
body: types.TaskBody = keeps


def after(run: types.RunDetails) -> types.PollAnswer:
    return run["status"] == "Failed"


heard: types.RunEndBody = cloaca.trigger(workflow="w", on_run="w", status=["Failed"])(after)
poll: types.PollBody = lists
cloaca.DefaultRunnerConfig(durability="normal", retention="90d", timer_resolution=0.001)
with cloaca.DefaultRunner.with_config(":memory:", cloaca.DefaultRunnerConfig(), durability="full") as runner:
    built = orders.build()
    assert_type(runner.execute(built, {"n": 1}).status, types.RunStatus)
    assert_type(runner.execute("orders", Order(number=1), check=True), cloaca.WorkflowResult)
    assert_type(runner.submit(built, cloaca.Context()).result(timeout=5), cloaca.WorkflowResult)
    assert_type(runner.submit_many(built, [{"n": 1}, None], run_keys=["a", None]), list[cloaca.Run])
    rows = runner.list_runs(workflow="orders", status=status)
    assert_type(rows, cloaca.Listed[types.RunRow])
    for row in rows:
        assert_type(row["error_message"], str | None)
        print(row["context"]["n"], row["created_at"] < row["id"], {**row})
    found = runner.get_run(rows[0]["id"])
    if found is not None:
        assert_type(found["tasks"], list[types.TaskRow])
        assert_type(found["tasks"][0]["attempts"], int)
    assert_type(runner.ticks("lists")[0]["outcome"], Literal["skip", "fire", "error"])
    assert_type(runner.tick("lists", dry_run=True)["fires"], list[types.FireRow])
    runner.list_runs(workflow=orders.build(), trigger=polls_with_tick)
    assert_type(runner.list_trigger_schedules()[0]["poll_interval_ms"], int)
    assert_type(runner.list_cron_schedules()[0]["next_run_at"], str | None)
    assert_type(runner.list_cron_schedules()[0]["catchup"], Literal["all", "last", "none"])
    assert_type(runner.list_runs(unmasked=True), cloaca.Listed[types.RunRow])
    assert_type(runner.redacted, list[str])
    cloaca.DefaultRunner(":memory:", redact={"password"})
    cloaca.DefaultRunner(":memory:", redact=lambda path, value: None if path[-1] == "card" else value)
    named = runner.register_cron_workflow("orders", "@daily", name="eu", context={"a": 1}, overlap="skip")
    assert_type(runner.backfill(named, "2026-01-01", datetime.now()), list[cloaca.Run])
    assert_type(runner.get_cron_execution_stats(datetime.now())["success_rate"], float)
    assert_type(runner.stats()["runs_failed"], int)
    shown: Mapping[str, object] = rows[0]
    runner.export(Path("copy.db"))

    # A run goes on between two looks, which a checker must not take for impossible.
    run = runner.submit("orders")
    assert run.status == "Running"
    run.result()
    assert run.status == "Completed"
    print("reached")
    assert_type(run.id, str)


def tests_its_trigger() -> None:
    tick = cloaca.testing.tick(cursor=4)
    ended = cloaca.testing.run(workflow=built, status="Failed", error=ValueError("no price"))
    assert_type(ended, cloaca.types.RunDetails)
    assert_type(ended["error_message"], str | None)
    with cloaca.testing.Runner() as tested:
        tested.replace_task("keeps", lambda context: None)
        tested.replace_task("keeps", with_handle)
        tested.advance("1h")
        assert lists(tick) == [cloaca.TriggerResult.skip()]
        assert tested.execute(built).status == "Completed"
