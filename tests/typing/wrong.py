"""Programs that are wrong, each of which a type checker must refuse. Checked, never run.

Each stands behind a comment that names it. `refused` marks the line of which the checkers complain, and of no
other one. What stands behind `right:` mends the line below it, and then they have nothing to complain of.
"""

from collections.abc import AsyncIterator, Iterator

import cloaca
import cloaca.testing

runner = cloaca.DefaultRunner(":memory:")


# wrong: a task without parameters
@cloaca.task()  # refused
# right: def no_parameters(context: cloaca.Context) -> None: ...
def no_parameters() -> None: ...


# wrong: a task that returns an int
@cloaca.task()  # refused
# right: def returns_int(context: cloaca.Context) -> None:
def returns_int(context: cloaca.Context) -> int:
    raise NotImplementedError


# wrong: a trigger that returns a str
@cloaca.trigger(workflow="w")  # refused
# right: def returns_text() -> bool:
def returns_text() -> str:
    raise NotImplementedError


# wrong: an on_failure with one parameter
# right: def failed(task_id: str, error: str, context: cloaca.Context) -> None: ...
def failed(task_id: str) -> None: ...


@cloaca.task(on_failure=failed)  # refused
def calls_back(context: cloaca.Context) -> None: ...


# wrong: dependencies as one text
# right: @cloaca.task(dependencies=["no_arg"])
@cloaca.task(dependencies="no_arg")  # refused
def depends(context: cloaca.Context) -> None: ...


# wrong: an unknown overlap
# right: @cloaca.trigger(workflow="w", overlap="skip")
@cloaca.trigger(workflow="w", overlap="sometimes")  # refused
def overlaps() -> bool:
    raise NotImplementedError


# wrong: an unknown back-off
# right: @cloaca.task(retry_backoff="exponential")
@cloaca.task(retry_backoff="expo")  # refused
def backs_off(context: cloaca.Context) -> None: ...


# wrong: an unknown status
# right: runner.list_runs(status="Failed")
runner.list_runs(status="failed")  # refused

# wrong: an unknown durability
# right: cloaca.DefaultRunnerConfig(durability="normal")
cloaca.DefaultRunnerConfig(durability="none")  # refused

# wrong: an unknown operator
# right: cloaca.context_value("k", "!=", 1)
cloaca.context_value("k", "~", 1)  # refused

# wrong: a fire with a list for a context
# right: cloaca.TriggerResult.fire({"numbers": [1]})
cloaca.TriggerResult.fire([1])  # refused


# wrong: a generator trigger that yields text
@cloaca.trigger(workflow="w")  # refused
# right: def yields_text() -> Iterator[cloaca.TriggerResult]:
def yields_text() -> Iterator[str]:
    raise NotImplementedError


# The twelve above passed once. Those below are their relatives.


# wrong: an async task that returns an int
@cloaca.task()  # refused
# right: async def returns_int_later(context: cloaca.Context) -> None:
async def returns_int_later(context: cloaca.Context) -> int:
    raise NotImplementedError


# wrong: a bare task without parameters
@cloaca.task  # refused
# right: def bare(context: cloaca.Context) -> None: ...
def bare() -> None: ...


# wrong: a task that is a generator
@cloaca.task()  # refused
# right: def generates(context: cloaca.Context) -> None:
def generates(context: cloaca.Context) -> Iterator[cloaca.Context]:
    raise NotImplementedError


# wrong: a task whose second parameter has another name than handle
@cloaca.task()  # refused
# right: def names_its_handle(context: cloaca.Context, handle: cloaca.TaskHandle) -> None: ...
def names_its_handle(context: cloaca.Context, h: cloaca.TaskHandle) -> None: ...


# wrong: a task that takes a plain dict
@cloaca.task()  # refused
# right: def takes_a_dict(context: cloaca.Context) -> None: ...
def takes_a_dict(context: dict[str, int]) -> None: ...


# wrong: an async trigger that returns a str
@cloaca.trigger(workflow="w")  # refused
# right: async def returns_text_later() -> bool:
async def returns_text_later() -> str:
    raise NotImplementedError


# wrong: a trigger that is an async generator
@cloaca.trigger(workflow="w")  # refused
# right: async def yields_later() -> list[cloaca.TriggerResult]:
async def yields_later() -> AsyncIterator[cloaca.TriggerResult]:
    raise NotImplementedError


# wrong: a trigger that may return nothing
@cloaca.trigger(workflow="w")  # refused
# right: def returns_nothing() -> cloaca.TriggerResult:
def returns_nothing() -> cloaca.TriggerResult | None:
    raise NotImplementedError


# wrong: a trigger with two parameters
@cloaca.trigger(workflow="w")  # refused
# right: def takes_two(tick: cloaca.Tick) -> bool:
def takes_two(tick: cloaca.Tick, runner: cloaca.DefaultRunner) -> bool:
    raise NotImplementedError


# wrong: a cron whose function returns a number
@cloaca.trigger(workflow="w", cron="@daily")  # refused
# right: def returns_a_number(tick: cloaca.Tick) -> dict[str, int]:
def returns_a_number(tick: cloaca.Tick) -> int:
    raise NotImplementedError


# wrong: a cron that is polled too
# right: @cloaca.trigger(workflow="w", cron="@daily")
@cloaca.trigger(workflow="w", cron="@daily", poll_interval="5s")  # refused
def scheduled_and_polled() -> None: ...


# wrong: an on_success with the parameters of on_failure
# right: def succeeded(task_id: str, context: cloaca.Context) -> None: ...
def succeeded(task_id: str, error: str, context: cloaca.Context) -> None: ...


@cloaca.task(on_success=succeeded)  # refused
def calls_back_too(context: cloaca.Context) -> None: ...


# wrong: an executor itself in place of its name
# right: @cloaca.trigger(workflow="w", executor="cpu")
@cloaca.trigger(workflow="w", executor=cloaca.ProcessExecutor())  # refused
def polled_elsewhere() -> bool:
    return True


# wrong: an on_poll_failed without the number of failures
# right: def poll_failed(name: str, error: str, failures: int) -> None: ...
def poll_failed(name: str, error: str) -> None: ...


@cloaca.trigger(workflow="w", on_poll_failed=poll_failed)  # refused
def is_heard() -> bool:
    raise NotImplementedError


# wrong: an unknown retry condition
# right: @cloaca.task(retry_condition="transient")
@cloaca.task(retry_condition="sometimes")  # refused
def conditions(context: cloaca.Context) -> None: ...


# wrong: an unknown durability of a runner
# right: cloaca.DefaultRunner.with_config(":memory:", cloaca.DefaultRunnerConfig(), durability="full")
cloaca.DefaultRunner.with_config(":memory:", cloaca.DefaultRunnerConfig(), durability="best")  # refused

# wrong: a function executed in a workflow's place
# right: runner.execute("w")
runner.execute(succeeded)  # refused

# wrong: a key that runs do not have
# right: print(runner.list_runs()[0]["status"])
print(runner.list_runs()[0]["state"])  # refused

# wrong: a key that the counts do not have
# right: print(runner.stats()["fires"])
print(runner.stats()["fired"])  # refused


# wrong: a condition of defer_until that takes a parameter
# right: def is_ready() -> bool:
def is_ready(context: cloaca.Context) -> bool:
    raise NotImplementedError


def defers(handle: cloaca.TaskHandle) -> None:
    handle.defer_until(is_ready)  # refused


# wrong: a run that has ended, and has not
# right: cloaca.testing.run(status="Failed", error="no price")
cloaca.testing.run(status="Running")  # refused

# wrong: a fake of a task without parameters
# right: cloaca.testing.Runner().replace_task("notify", lambda context: None)
cloaca.testing.Runner().replace_task("notify", lambda: None)  # refused

# wrong: a name that the package does not have
# right: print(cloaca.task)
print(cloaca.tusk)  # refused
