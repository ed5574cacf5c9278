"""What type checkers say of wrong programs, right ones, the examples and the docs. They only read them.

Each checker is asked once, as a user would: `mypy --strict`, and pyright as it comes. The blocks of the docs
leave out annotations, so that mypy reads those without `--strict`.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LINES = (HERE / "wrong.py").read_text().splitlines()
SECONDS_MAX = 300
FILE = re.compile(r'^```python title="(?P<name>[\w.]+)"\n(?P<code>.*?)^```$', re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """One wrong program, by the numbers of its lines."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Complaint:
    """What a checker has to say of a line."""

    file: str
    line: int
    text: str


SAID = {
    "a task without parameters": ('cannot be "Callable[[], None]"', "expected 1 but received 0"),
    "a task that returns an int": ('cannot be "Callable[[Context], int]"', '"int" is incompatible with'),
    "a trigger that returns a str": ('cannot be "Callable[[], str]"', '"str" is incompatible with'),
    "an on_failure with one parameter": ('"on_failure" to "task"', '"OnFailure | None"'),
    "dependencies as one text": ('"task" matches argument type "str"', '"TaskRefs | None"'),
    "an unknown overlap": ('"trigger" matches argument types "str", "str"', '"Overlap | None"'),
    "an unknown back-off": ('"task" matches argument type "str"', '"BackoffName | None"'),
    "an unknown status": ('"status" to "list_runs"', '"RunStatus | None"'),
    "an unknown durability": ('"durability" to "DefaultRunnerConfig"', '"Durability | None"'),
    "an unknown operator": ('2 to "context_value"', '"Operator"'),
    "a fire with a list for a context": ('1 to "fire"', '"ContextLike | None"'),
    "a generator trigger that yields text": (
        'cannot be "Callable[[], Iterator[str]]"',
        '"Iterator[str]" is incompatible with',
    ),
}
"""What mypy and pyright say of the twelve, each for its own reason. pyright names types as an editor does."""


def wrong_programs() -> list[Program]:
    starts = [number for number, line in enumerate(LINES, 1) if line.startswith("# wrong: ")]
    ends = [*starts[1:], len(LINES) + 1]
    return [
        Program(LINES[start - 1].removeprefix("# wrong: "), start, end)
        for start, end in zip(starts, ends, strict=True)
    ]


WRONG = wrong_programs()


def mended() -> str:
    """The wrong programs with what is right in place of what is wrong, on the same lines."""
    lines = list(LINES)
    for at, line in enumerate(LINES):
        if line.startswith("# right: "):
            lines[at + 1] = line.removeprefix("# right: ")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are that stand in no file of their own."""
    path = tmp_path_factory.mktemp("typing")
    (path / "mended.py").write_text(mended())
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text()
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
            (path / f"docs_{name}_{line}.py").write_text(block["code"])
        # What a page gives a name to, its programs import by that.
        for file in FILE.finditer(text):
            (path / file["name"]).write_text(file["code"])
    return path


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def complaints(request: pytest.FixtureRequest, folder: Path) -> list[Complaint]:
    """All that a checker has to say."""
    annotated = [HERE / "wrong.py", HERE / "right.py", folder / "mended.py"]
    annotated += sorted((ROOT / "examples").glob("*.py"))
    blocks = sorted(set(folder.glob("*.py")) - {folder / "mended.py"})
    return (
        of_mypy(annotated, blocks) if request.param == "mypy" else of_pyright([*annotated, *blocks], folder)
    )


def of_mypy(annotated: list[Path], blocks: list[Path]) -> list[Complaint]:
    flags = ("--no-pretty", "--hide-error-context", "--no-error-summary", "--config-file=")
    text = run("mypy", "--strict", *flags, *map(str, annotated))
    text += run("mypy", "--check-untyped-defs", *flags, *map(str, blocks))
    found = re.findall(r"^(.+?):(\d+): error: (.+)$", text, re.MULTILINE)
    return [Complaint(Path(file).name, int(line), message) for file, line, message in found]


def of_pyright(files: list[Path], folder: Path) -> list[Complaint]:
    command = ("pyright", "--pythonpath", sys.executable, "--outputjson", *map(str, files))
    # It looks where the interpreter does, but not beside a file that lies outside of the project.
    told = json.loads(run(*command, PYTHONPATH=str(folder)))
    return [
        Complaint(Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"])
        for one in told["generalDiagnostics"]
        if one["severity"] == "error"
    ]


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def about(complaints: list[Complaint], prefix: str) -> list[str]:
    return [f"{one.file}:{one.line}: {one.text}" for one in complaints if one.file.startswith(prefix)]


def test_there_are_the_twelve_and_their_relatives() -> None:
    first = LINES.index("# The twelve above passed once. Those below are their relatives.")
    assert [program.name for program in WRONG if program.start < first] == list(SAID)
    assert all(
        any(line.startswith("# right: ") for line in LINES[program.start : program.end]) for program in WRONG
    )


@pytest.mark.parametrize("program", WRONG, ids=lambda program: program.name)
def test_a_wrong_program_is_refused_at_its_line_and_nowhere_else(
    program: Program, complaints: list[Complaint]
) -> None:
    lines = range(program.start, program.end)
    refused = {line for line in lines if LINES[line - 1].endswith("# refused")}
    assert len(refused) == 1
    assert {one.line for one in complaints if one.file == "wrong.py" and one.line in lines} == refused


@pytest.mark.parametrize("name", SAID)
def test_a_wrong_program_is_refused_for_its_reason(
    name: str, complaints: list[Complaint], request: pytest.FixtureRequest
) -> None:
    (program,) = [program for program in WRONG if program.name == name]
    texts = [
        one.text for one in complaints if one.file == "wrong.py" and program.start < one.line < program.end
    ]
    of_mypy, of_pyright = SAID[name]
    said = of_mypy if "mypy" in request.node.callspec.id else of_pyright
    assert said in " ".join(texts)


def test_what_is_wrong_is_mended_by_one_line(complaints: list[Complaint]) -> None:
    assert about(complaints, "mended.py") == []


def test_right_programs_pass(complaints: list[Complaint]) -> None:
    assert about(complaints, "right.py") == []


def test_the_examples_pass(complaints: list[Complaint]) -> None:
    for example in (ROOT / "examples").glob("*.py"):
        assert about(complaints, example.name) == []


def test_the_programs_of_the_docs_pass(complaints: list[Complaint]) -> None:
    assert about(complaints, "docs_") == []
