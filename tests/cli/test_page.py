"""The page "The command line" shows what the command shows, and the README begins with a part of it."""

import re
from pathlib import Path

from page import BLOCK, PAGE, README, REFERENCE, played, reference
from stage import steady


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
