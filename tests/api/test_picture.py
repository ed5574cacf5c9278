"""Pictures of workflows: what stands in them, and that no text breaks them."""

from __future__ import annotations

import random
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloaca
from cloaca.picture import CHARS_MAX, Drawn, svg

SVG = "{http://www.w3.org/2000/svg}"


def declared(name: str = "stock") -> cloaca.Workflow:
    builder = cloaca.WorkflowBuilder(name)
    with builder:

        @cloaca.task()
        def fetch(context: cloaca.Context) -> None: ...

        @cloaca.task(dependencies=["fetch"])
        def load(context: cloaca.Context) -> None: ...

        @cloaca.task(dependencies=["load"], trigger_rules=cloaca.task_failed("load"))
        def alarm(context: cloaca.Context) -> None: ...

        return builder.add_task("fetch").add_task("load").add_task("alarm").build()


def texts(picture: str, of: str = "text") -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}{of}")]


def test_a_workflow_shows_its_tasks_edges_and_rules() -> None:
    picture = declared().to_svg()
    root = ElementTree.fromstring(picture)
    assert texts(picture) == ["fetch", "load", "alarm", "if load failed"]
    assert len([path for path in root.iter(f"{SVG}path") if path.get("class") == "edge"]) == 2
    assert root.get("aria-label") == "workflow stock with 3 tasks"


def test_a_notebook_shows_a_workflow_as_its_picture() -> None:
    workflow = declared()
    assert workflow._repr_svg_() == workflow.to_svg() == declared().to_svg()


def test_states_are_told_by_signs_and_words_and_not_by_colour_alone() -> None:
    states = ["Pending", "Running", "Completed", "Failed", "Skipped", "Cancelled"]
    picture = svg("w", [Drawn(f"t{at}", [], None, state) for at, state in enumerate(states)])
    assert texts(picture) == ["○ t0", "▶ t1", "✓ t2", "✗ t3", "⊘ t4", "■ t5"]
    assert texts(picture, "title") == [f"t{at}, {state.lower()}" for at, state in enumerate(states)]
    label = ElementTree.fromstring(picture).get("aria-label")
    assert label == f"workflow w with 6 tasks: {', '.join(f'1 {state.lower()}' for state in states)}"


def test_rules_are_told_in_words() -> None:
    rule = cloaca.all_of(
        cloaca.task_success("a"),
        cloaca.none_of(cloaca.context_value("order.total", ">=", 5), cloaca.context_value("k", "Exists")),
        cloaca.any_of(cloaca.task_skipped("a"), cloaca.always()),
    )
    told = "a completed and (none of order.total ≥ 5, k exists) and (a skipped or always)"
    picture = svg("w", [Drawn("a", []), Drawn("b", ["a"], rule)])
    assert texts(picture, "title")[1] == f"b, if {told}"
    assert texts(picture)[2] == f"if {told}"[: CHARS_MAX - 1] + "…"


def test_a_task_may_lead_somewhere() -> None:
    picture = svg("w", [Drawn("a", [], None, "Failed", '/runs/1?task="a"&x=<y>')])
    (link,) = ElementTree.fromstring(picture).iter(f"{SVG}a")
    assert link.get("href") == '/runs/1?task="a"&x=<y>'


def test_two_hundred_tasks_with_long_edges_are_drawn() -> None:
    chance = random.Random(3)
    before = lambda at: [f"t{other}" for other in chance.sample(range(max(0, at - 25), at), min(at, 3))]  # noqa: E731
    picture = svg("w", [Drawn(f"t{at}", before(at)) for at in range(200)])
    assert sorted(texts(picture)) == sorted(f"t{at}" for at in range(200))


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(cloaca.WorkflowError, match="cycle"):
        svg("w", [Drawn("a", ["b"]), Drawn("b", ["a"])])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=6, unique=True), st.text(max_size=60))
def test_no_text_breaks_a_picture(names: list[str], workflow: str) -> None:
    tasks = [Drawn(name, names[:at], None, "Running", name) for at, name in enumerate(names)]
    root = ElementTree.fromstring(svg(workflow, tasks))
    assert len(list(root.iter(f"{SVG}rect"))) == len(names)
    assert not {element.tag for element in root.iter()} - {
        f"{SVG}{tag}" for tag in ("svg", "g", "a", "title", "rect", "text", "path")
    }


def test_a_name_of_a_megabyte_is_cut() -> None:
    picture = svg("w" * 2**20, [Drawn("<b>\x00\x1b[31m" + "x" * 2**20, [])])
    assert texts(picture) == [("<b>��[31m" + "x" * CHARS_MAX)[: CHARS_MAX - 1] + "…"]
    assert len(re.sub("x", "", picture)) < 10_000
