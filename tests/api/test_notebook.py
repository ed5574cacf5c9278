"""What a notebook shows: pictures, tables and timelines, whatever texts stand in them."""

from __future__ import annotations

import contextlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import cloaca
import cloaca.testing
from cloaca import timeline

HOSTILE = "<script>alert(1)</script>&amp;\x1b[31m\"'"


def declare(error: str = "no such file") -> None:
    with cloaca.WorkflowBuilder("stock"):

        @cloaca.task()
        def fetch(context: cloaca.Context) -> None:
            context["rows"] = 3

        @cloaca.task(dependencies=["fetch"], retry_attempts=2, retry_delay_ms=1000, retry_jitter=False)
        def load(context: cloaca.Context) -> None:
            raise ValueError(error)

        @cloaca.task(dependencies=["load"])
        def report(context: cloaca.Context) -> None: ...


def tags(html: str) -> set[str]:
    """The elements of it; each that is opened is closed."""
    found, open_ = set(), []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            found.add(tag)
            if tag != "br":
                open_.append(tag)

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            found.add(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_.pop() == tag

    Reader().feed(html)
    assert open_ == []
    return found


HARMLESS = {"p", "b", "br", "code", "span", "table", "thead", "tbody", "tr", "th", "td"} | {
    "svg", "g", "title", "rect", "text", "path"
}  # fmt: skip


def test_a_run_shows_its_tasks_and_when_they_were_under_way() -> None:
    declare()
    with cloaca.testing.Runner() as runner:
        run = runner.submit("stock")
        runner.advance("2s")
        html = run._repr_html_()
        assert tags(html) <= HARMLESS
        for told in ("✓ fetch", "✗ load", "⊘ report", "ValueError: no such file", run.id):
            assert told in html
        drawn = ElementTree.fromstring(
            html[html.index('<svg xmlns="http://www.w3.org/2000/svg" class="cloaca-t') :]
        )
        bars = [title.text for title in drawn.iter("{http://www.w3.org/2000/svg}title")]
        assert [re.sub(r", [^,]*$", "", bar or "") for bar in bars if "attempt" in (bar or "")] == [
            "attempt 1: Completed",
            "attempt 1: Failed, ValueError: no such file",
            "attempt 2: Failed, ValueError: no such file",
        ]
        assert drawn.get("aria-label") == "timeline of 3 tasks over 1 s"


def test_a_run_under_way_is_shown_and_one_that_is_gone_is_no_error() -> None:
    declare()
    with cloaca.testing.Runner() as runner:
        run = runner.submit("stock")
        runner.advance("100ms")
        assert tags(run._repr_html_()) <= HARMLESS
        assert "▶" in run._repr_html_() or "○" in run._repr_html_()
    assert "shut down" in run._repr_html_()


def test_a_result_tells_how_it_ended_and_no_values() -> None:
    declare()
    with cloaca.testing.Runner() as runner:
        result = runner.execute("stock", {"password": "hunter2"})
        html = result._repr_html_()
    assert tags(html) <= HARMLESS
    assert "✗ Failed" in html
    assert "<code>password</code>" in html
    assert "hunter2" not in html


def test_lists_are_tables_and_still_lists() -> None:
    declare()
    with cloaca.testing.Runner() as runner:
        for _ in range(3):
            runner.submit("stock", {"a": HOSTILE})
        runs = runner.list_runs()
        assert isinstance(runs, list)
        assert runs == list(runs)
        assert len(runs) == 3
        html = runs._repr_html_()
    assert tags(html) <= HARMLESS
    assert html.count("<tr>") == 4
    assert "<th>workflow_name</th>" in html


def test_a_long_list_is_bounded() -> None:
    declare()
    with cloaca.testing.Runner() as runner:
        runner.submit_many("stock", [{}] * 150)
        html = runner.list_runs(limit=1000)._repr_html_()
    assert html.count("<tr>") == 101
    assert "<p>and 50 more</p>" in html


def test_a_runner_shows_its_counts_triggers_and_newest_runs(tmp_path: Path) -> None:
    declare()

    @cloaca.trigger(workflow="stock", name=f"inbox {HOSTILE}", poll_interval="1s")
    def inbox() -> bool:
        return True

    with cloaca.testing.Runner() as runner:
        runner.advance("3s")
        html = runner._repr_html_()
        assert tags(html) <= HARMLESS
        assert "polls 3" in html
        assert "stock" in html
    assert "shut down" in runner._repr_html_()


def test_no_text_is_taken_for_html() -> None:
    declare(HOSTILE * 100)
    with cloaca.testing.Runner() as runner:
        run = runner.submit("stock", {HOSTILE: HOSTILE})
        runner.advance("2s")
        for html in (run._repr_html_(), run.result(1)._repr_html_(), runner._repr_html_()):
            assert tags(html) <= HARMLESS
            assert "\x1b" not in html
            assert len(html) < 50_000


@pytest.mark.parametrize(
    ("span_us", "told"),
    [(0, "0 ms"), (1_234, "1.23 ms"), (999_000, "999 ms"), (1_400_000, "1.4 s"), (192e6, "3 m 12 s"),
     (120e6, "2 m"), (7_500e6, "2 h 5 m"), (187_200e6, "2 d 4 h")],
)  # fmt: skip
def test_spans_are_told_with_two_parts_at_most(span_us: float, told: str) -> None:
    assert timeline.rounded(span_us) == told


def test_a_clock_that_was_set_back_draws_no_bar_outside_the_picture() -> None:
    now = timeline.moment_of("2026-01-01T00:00:00Z")
    late, early = "2026-01-01T00:00:05Z", "2025-12-31T23:59:00Z"
    tried = {"number": 1, "outcome": "Failed", "started_at": late, "ended_at": early, "error": None}
    task = {
        "id": "t",
        "status": "Running",
        "attempts": 2,
        "started_at": late,
        "completed_at": None,
        "tries": [tried],
    }
    drawn = ElementTree.fromstring(
        timeline.svg({"created_at": late, "completed_at": None, "tasks": [task]}, now)
    )
    width = float(drawn.get("width") or 0)
    for bar in drawn.iter("{http://www.w3.org/2000/svg}rect"):
        x, wide = float(bar.get("x") or 0), float(bar.get("width") or 0)
        assert x >= 0
        assert wide > 0
        assert x + wide <= width


def test_a_builder_is_drawn_as_far_as_it_has_come() -> None:
    with cloaca.WorkflowBuilder("stock") as builder:
        assert builder._repr_svg_() is None
        cloaca.task(id="load", dependencies=["fetch"])(lambda context: None)
        drawn = builder._repr_svg_()
        assert drawn is not None
        assert ("load" in drawn, "fetch" in drawn) == (True, False)
        cloaca.task(id="fetch")(lambda context: None)
    assert builder._repr_svg_() == builder.build().to_svg()
    loop = cloaca.WorkflowBuilder("loop")
    with contextlib.suppress(cloaca.WorkflowError), loop:
        cloaca.task(id="a", dependencies=["b"])(lambda context: None)
        cloaca.task(id="b", dependencies=["a"])(lambda context: None)
    assert loop._repr_svg_() is None
