"""Random workflows come to what the model says, whatever fails, is skipped, or is decided by a rule.

`HYPOTHESIS_PROFILE=more` runs many more examples than the default.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cloaca

from .dag_model import ModelTask, run

IDS = [f"t{number}" for number in range(8)]


@pytest.fixture(scope="module")
def shared_runner() -> Iterator[cloaca.DefaultRunner]:
    config = cloaca.DefaultRunnerConfig(max_concurrent_tasks=3)
    with cloaca.DefaultRunner.with_config(":memory:", config) as runner:
        yield runner


def rules(ids: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.sampled_from(ids)
    leaves = st.one_of(
        st.just(cloaca.always()),
        some.map(cloaca.task_success),
        some.map(cloaca.task_failed),
        some.map(cloaca.task_skipped),
        st.builds(cloaca.context_value, some, st.sampled_from(["Exists", "NotExists"]), st.none()),
    )
    combined = st.sampled_from([cloaca.all_of, cloaca.any_of, cloaca.none_of])
    return st.recursive(
        leaves,
        lambda part: st.builds(
            lambda combine, parts: combine(*parts), combined, st.lists(part, min_size=1, max_size=3)
        ),
        max_leaves=4,
    )


@st.composite
def workflows(draw: st.DrawFn) -> list[ModelTask]:
    tasks: list[ModelTask] = []
    for position, task_id in enumerate(IDS[: draw(st.integers(1, len(IDS)))]):
        before = IDS[:position]
        dependencies = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
        attempts = draw(st.integers(1, 3))
        failures = draw(st.one_of(st.just(0), st.integers(0, 4)))
        rule = draw(st.one_of(st.none(), rules(dependencies))) if dependencies else None
        tasks.append(ModelTask(task_id, tuple(dependencies), attempts, failures, rule))
    return tasks


def declare(tasks: list[ModelTask], calls: Counter[str]) -> None:
    def body_of(task: ModelTask) -> Any:
        def body(context: cloaca.Context) -> None:
            calls[task.id] += 1
            if calls[task.id] <= task.failures:
                raise ValueError(task.id)
            context[task.id] = True

        return body

    with cloaca.WorkflowBuilder("random"):
        for task in tasks:
            cloaca.task(
                id=task.id,
                dependencies=list(task.dependencies),
                retry_attempts=task.attempts,
                retry_delay_ms=1,
                retry_jitter=False,
                trigger_rules=task.rule,
            )(body_of(task))


@given(tasks=workflows(), initial=st.dictionaries(st.sampled_from(["x", "y"]), st.integers(), max_size=2))
def test_a_run_comes_to_what_the_model_says(
    shared_runner: cloaca.DefaultRunner, tasks: list[ModelTask], initial: dict[str, Any]
) -> None:
    calls: Counter[str] = Counter()
    declare(tasks, calls)
    expected = run(tasks, initial)
    submitted = shared_runner.submit("random", initial)
    result = submitted.result(timeout=60)
    kept = shared_runner.get_run(submitted.id)
    assert kept is not None
    assert {task["id"]: task["status"] for task in kept["tasks"]} == expected.statuses
    assert {task["id"]: task["attempts"] for task in kept["tasks"]} == expected.attempts
    assert {task.id: calls[task.id] for task in tasks} == expected.attempts
    assert result.final_context.to_dict() == expected.context
    failed = [task for task, status in expected.statuses.items() if status == "Failed"]
    assert result.status == ("Failed" if failed else "Completed")
    assert all(task in str(result.error_message) for task in failed)
