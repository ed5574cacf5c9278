"""Contexts keep what they are given, judged by Python's own `json`."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cloaca
from cloaca import Context

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
)
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=4) | st.dictionaries(TEXT, part, max_size=4), max_leaves=20
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=5)


def exact(value: Any) -> Any:
    """The value with its types, so that `1`, `1.0` and `True` differ; `-0.0` is `0.0`."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return type(value).__name__, value + 0.0 if isinstance(value, float) else value


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def shared_runner() -> Iterator[cloaca.DefaultRunner]:
    with cloaca.DefaultRunner(":memory:") as runner:
        yield runner


@given(OBJECTS)
def test_json_text_is_pythons_own(data: dict[str, Any]) -> None:
    assert exact(json.loads(Context(data).to_json())) == exact(data)
    assert exact(Context.from_json(json.dumps(data)).to_dict()) == exact(data)


@given(OBJECTS)
def test_order_does_not_matter_to_equality_but_is_kept(data: dict[str, Any]) -> None:
    assert Context(data) == Context(reordered(data))
    assert json.dumps(Context(data).to_dict()) == json.dumps(data)


@given(OBJECTS)
def test_a_run_gives_back_what_it_was_given(
    shared_runner: cloaca.DefaultRunner, data: dict[str, Any]
) -> None:
    with cloaca.WorkflowBuilder("same"):
        cloaca.task(id="same")(lambda context: context)
    run = shared_runner.submit("same", data)
    assert exact(run.result(60).final_context.to_dict()) == exact(data)
    kept = shared_runner.get_run(run.id)
    assert kept is not None
    assert exact(kept["final_context"]) == exact(kept["context"]) == exact(data)


@given(OBJECTS, OBJECTS)
def test_hashes_are_equal_exactly_if_contexts_are(
    shared_runner: cloaca.DefaultRunner, one: dict[str, Any], other: dict[str, Any]
) -> None:
    with cloaca.WorkflowBuilder("hashed"):
        cloaca.task(id="noop")(lambda context: None)
    contexts = [one, reordered(one), other]
    name = f"watcher-{next(NUMBERS)}"
    fires = [cloaca.TriggerResult.fire(context) for context in contexts]
    cloaca.trigger(workflow="hashed", name=name, poll_interval="24h", allow_concurrent=True)(lambda: fires)
    shared_runner.tick(name)
    rows = shared_runner.get_trigger_execution_history(name)
    third, second, first = (row["context_hash"] for row in rows)
    assert first == second
    assert (first == third) == (exact(one) == exact(other))


NUMBERS = itertools.count()
