"""Twelve programs that are wrong, each of which a type checker must refuse. Checked, never run.

Each stands behind a comment that names it; its error must lie between that comment and the next.
"""

from collections.abc import Iterator

import cloaca

runner = cloaca.DefaultRunner(":memory:")


# wrong: a task without parameters
@cloaca.task()
def no_parameters() -> None: ...


# wrong: a task that returns an int
@cloaca.task()
def returns_int(context: cloaca.Context) -> int:
    return 1


# wrong: a trigger that returns a str
@cloaca.trigger(workflow="w")
def returns_text() -> str:
    return "fire"


# wrong: an on_failure with one parameter
def failed(task_id: str) -> None: ...


@cloaca.task(on_failure=failed)
def calls_back(context: cloaca.Context) -> None: ...


# wrong: dependencies as one text
@cloaca.task(dependencies="no_arg")
def depends(context: cloaca.Context) -> None: ...


# wrong: an unknown overlap
@cloaca.trigger(workflow="w", overlap="sometimes")
def overlaps() -> bool:
    return True


# wrong: an unknown back-off
@cloaca.task(retry_backoff="expo")
def backs_off(context: cloaca.Context) -> None: ...


# wrong: an unknown status
runner.list_runs(status="failed")

# wrong: an unknown durability
cloaca.DefaultRunnerConfig(durability="none")

# wrong: an unknown operator
cloaca.context_value("k", "~", 1)

# wrong: a fire with a list for a context
cloaca.TriggerResult.fire([1])


# wrong: a generator trigger that yields text
@cloaca.trigger(workflow="w")
def yields_text() -> Iterator[str]:
    yield "fire"
