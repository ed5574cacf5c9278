"""Every Python block of the README and the docs is a whole program, and prints what the page says.

A block fenced as `python` is run as a program in an empty folder and must end with exit code 0. Where
`<!-- output -->` and a `text` block follow it, its standard output must equal that block. A block that has
tests is run by pytest, and each of them must pass. One that cannot do without `DATABASE_URL` gets a database.
A block fenced as `python title="service.py"` is a file of that name, which lies beside each program of its
page.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest

import cloaca
import cloaca.reading
import cloaca.telemetry
import cloaca.ui

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\s*<!-- output -->\s*^```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
FILE = re.compile(r'^```python title="(?P<name>[\w.]+)"\n(?P<code>.*?)^```$', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """One block, and what it should print if the page says so."""

    place: str
    code: str
    output: str | None
    files: dict[str, str]

    @property
    def has_tests(self) -> bool:
        return re.search(r"^(async )?def test_", self.code, re.MULTILINE) is not None


def programs() -> list[Program]:
    """Every Python block, named by its page and line."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text()
        files = {match["name"]: match["code"] for match in FILE.finditer(text)}
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            place = f"{page.relative_to(ROOT)}:{line}"
            found.append(Program(place, match["code"], match["output"], files))
    return found


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.place)
def test_a_program_in_the_docs_does_what_the_page_says(
    program: Program, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    needed = {}
    if 'os.environ["DATABASE_URL"]' in program.code:
        needed["DATABASE_URL"] = request.getfixturevalue("postgres_url")
    for name, code in program.files.items():
        (tmp_path / name).write_text(code)
    path = tmp_path / ("test_program.py" if program.has_tests else "program.py")
    path.write_text(program.code)
    options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"] if program.has_tests else []
    done = subprocess.run(
        [sys.executable, *options, str(path)],
        cwd=tmp_path,
        env=os.environ | needed,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{program.place}\n{done.stdout}\n{done.stderr}"
    if program.output is not None:
        assert done.stdout == program.output, program.place


def test_every_page_of_the_tutorials_has_a_program_with_its_output() -> None:
    checked = {program.place.split(":")[0] for program in programs() if program.output is not None}
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "tutorials").glob("*.md")}
    assert pages <= checked


def test_every_output_block_belongs_to_a_program() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text()
        matched = sum(match["output"] is not None for match in BLOCK.finditer(text))
        assert text.count("<!-- output -->") == matched, page.name


def test_the_api_page_has_every_name_once_and_an_example_of_each_noun() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    # A function that shares its name with its module is asked for in that.
    asked = re.findall(r"^::: cloaca\.(.+)$", text, re.MULTILINE)
    shown = [name.rpartition(".")[2] for name in asked if not name.startswith("reading.")]
    assert sorted(shown) == sorted(
        [*set(cloaca.__all__) - {"__version__"}, "reading", "telemetry", "testing", "types", "ui"]
    )
    nouns = text.split("\n## ")[1:]
    assert [noun.split("\n")[0] for noun in nouns if BLOCK.search(noun) is None] == ["Tenant"]


def test_the_api_page_asks_for_what_shares_its_name_with_its_module_in_that() -> None:
    """Under the package's name it would be taken for the module, and left out."""
    text = (ROOT / "docs" / "api.md").read_text()
    for package in (cloaca.reading, cloaca.telemetry, cloaca.ui):
        for name in package.__all__:
            module = f"{package.__name__}.{name}"
            if module in sys.modules:
                assert f"::: {module}.{name}\n" in text, module


def test_the_page_of_the_file_has_every_table_and_column(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "file.md").read_text()
    told = {
        name: sorted(columns.split())
        for name, columns in re.findall(r"^\| `(\w+)` \| .* \| `([^`]+)` \|$", page, re.MULTILINE)
    }
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        columns = runner.query(
            "SELECT tables.name AS of, columns.name FROM sqlite_schema AS tables"
            " JOIN pragma_table_info(tables.name) AS columns"
            " WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite_%'"
        )
    kept: dict[str, list[str]] = {}
    for row in columns:
        kept.setdefault(row["of"], []).append(row["name"])
    assert {name: sorted(found) for name, found in kept.items()} == told


def test_the_readme_tells_of_each_extra_and_the_last_brings_them_all() -> None:
    readme = (ROOT / "README.md").read_text()
    known = set(metadata("cloaca").get_all("Provides-Extra") or ())
    # The command line needs none; its name is kept.
    assert {extra for extra in known if f"`{extra}`" in readme} == known - {"cli"}
    brought = [line for line in requires("cloaca") or () if re.search(r"extra == ['\"]all['\"]", line)]
    assert brought
    assert all(extra in brought[0] for extra in known - {"cli", "all"})
