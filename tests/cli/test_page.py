"""The page "The command line" shows what the command shows, and the README begins with a part of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from page import BLOCK, PAGE, README, REFERENCE, kinds, played, reference
from stage import steady
from test_look import SCHEMA

import cloaca.cli


def told(text: str) -> list[str]:
    """The lines without what differs from run to run, how wide the columns are, and what that cuts."""
    return [re.sub(" +", " ", re.sub(r"\S*…", "…", line)).strip() for line in steady(text).splitlines()]


def test_the_transcript_is_what_a_terminal_shows(tmp_path: Path) -> None:
    text = PAGE.read_text()
    assert told(played(text, tmp_path)) == told(text)


def test_the_reference_is_the_help() -> None:
    text = PAGE.read_text()
    assert text[text.index(REFERENCE) :] == reference(), "run tests/cli/page.py"


def test_the_readme_shows_a_part_of_it_first() -> None:
    shown = [block["lines"] for block in BLOCK.finditer(PAGE.read_text())]
    readme = README.read_text()
    (block,) = BLOCK.finditer(readme)
    assert block["lines"] in shown
    assert readme.count("\n", 0, block.start()) < 25


def printed() -> Iterator[str]:
    """The kinds of JSON that the commands can print, as their calls name them."""
    places = {"record": 0, "table": 0, "_told": 1}
    for path in Path(cloaca.cli.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", None))
            if name in places and len(call.args) > 1:
                kind = call.args[places[name]]
                for each in (kind.body, kind.orelse) if isinstance(kind, ast.IfExp) else (kind,):
                    if isinstance(each, ast.Constant):
                        yield each.value


def test_the_page_tells_of_every_kind_of_json_and_what_it_has() -> None:
    told = kinds()
    # The fires of a preview are a table for people, and a part of it in JSON.
    assert sorted(set(told)) == sorted({*printed()} - {"fire"})
    for kind, names in told.items():
        if kind in SCHEMA and names is not None:
            assert names[0] == {*SCHEMA[kind].split()} - {"kind"}, kind
