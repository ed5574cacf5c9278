"""Which store a program is served on, and what becomes of a line that names none that can be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stage import Line, reads, run_command, serving

import cloaca

WAIT = 30.0
FORMS = {
    "run": [],
    "workers": ["--workers", "2"],
    "reload": ["--reload"],
}
MOVES = """
import os
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context):
        pass

os.chdir("other")
"""

# A program that is told its store.
TOLD = """
import os
import sys
import cloaca

# In one piece: several may say so.
sys.stdout.write(f"finds {os.environ['CLOACA_DATABASE']}\\n")
sys.stdout.flush()

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context):
        pass

@cloaca.trigger(workflow="w", poll_interval="1h")
def inbox():
    return False

def runner():
    return cloaca.DefaultRunner(os.environ["CLOACA_DATABASE"])
"""


@pytest.fixture
def moves(tmp_path: Path) -> Path:
    """A program that goes to another folder as it is imported."""
    (tmp_path / "other").mkdir()
    (tmp_path / "app.py").write_text(MOVES)
    return tmp_path


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(WAIT)


@pytest.mark.parametrize(
    ("form", "store"),
    [
        ("run", "A.db"),
        ("run", "./A.db?durability=normal"),
        ("workers", "sqlite://A.db"),
        ("reload", "sqlite:///A.db"),
    ],
)
def test_a_store_is_named_from_the_folder_of_the_line_wherever_the_program_goes(
    moves: Path, store: str, form: str
) -> None:
    with serving(moves, "run", "app.py", *FORMS[form], "--database", store) as process:
        try:
            assert reads(process, "serving app.py on 'A.db'; Ctrl-C")
            assert "living" in run_command(["runners", "--database", store], cwd=moves).stdout
            end(process)
        finally:
            process.kill()
    assert not list((moves / "other").iterdir())


@pytest.mark.parametrize("named", [True, False])
def test_what_the_environment_or_the_folder_says_is_meant_from_there_too(
    moves: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    with (moves / "app.py").open("a") as file:
        file.write("print('finds', os.environ.get('CLOACA_DATABASE'), flush=True)\n")
    if named:
        monkeypatch.setenv("CLOACA_DATABASE", "A.db")
    else:
        # The only store in the folder.
        with serving(moves, "run", "app.py", "--database", "A.db") as process:
            reads(process, "serving")
            end(process)
    with serving(moves, "run", "app.py") as process:
        try:
            told = reads(process, "finds")
            assert told.strip() == f"finds {moves / 'A.db' if named else None}"
            assert reads(process, "serving app.py on 'A.db'; Ctrl-C")
            end(process)
        finally:
            process.kill()
    assert not list((moves / "other").iterdir())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by", ["--database", "pyproject"])
def test_a_program_is_told_which_store_is_named(
    moves: Path, monkeypatch: pytest.MonkeyPatch, by: str, form: str
) -> None:
    (moves / "app.py").write_text(TOLD)
    words = ["run", "app.py:runner", *FORMS[form]]
    if by == "pyproject":
        (moves / "pyproject.toml").write_text('[tool.cloaca]\ndatabase = "A.db"\n')
    else:
        # Which says otherwise.
        monkeypatch.setenv("CLOACA_DATABASE", "B.db")
        words += [by, "A.db"]
    with serving(moves, *words) as process:
        try:
            assert reads(process, "finds").strip() == f"finds {moves / 'A.db'}"
            assert reads(process, "serving app.py:runner on 'A.db'; Ctrl-C")
            end(process)
        finally:
            process.kill()
    assert not (moves / "B.db").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["graph", "w", "--app", "app.py"],
        ["preview", "inbox"],
        ["submit", "w"],
        ["submit", "w", "--app", "app.py"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("by", ["--database", "pyproject"])
def test_a_program_that_is_only_looked_at_is_told_so_too(moves: Path, words: list[str], by: str) -> None:
    (moves / "app.py").write_text(TOLD)
    cloaca.DefaultRunner(moves / "A.db").shutdown()
    named = 'database = "A.db"\n' if by == "pyproject" else ""
    (moves / "pyproject.toml").write_text(f'[tool.cloaca]\n{named}app = "app.py"\n')
    given = [by, "A.db"] if by == "--database" else []
    done = run_command([*words, *given], cwd=moves)
    assert done.returncode == 0, done.stderr
    assert f"finds {moves / 'A.db'}\n" in done.stderr


def test_a_project_s_store_is_named_from_its_folder_in_each_form(moves: Path) -> None:
    for store in ("A.db", "sqlite://A.db", "sqlite:///A.db"):
        (moves / "pyproject.toml").write_text(f'[tool.cloaca]\ndatabase = "{store}"\n')
        with serving(moves, "run", "app.py") as process:
            try:
                assert reads(process, "serving app.py on 'A.db'; Ctrl-C")
                end(process)
            finally:
                process.kill()
        assert run_command(["runners", "--left"], cwd=moves / "other").stdout
    assert not list((moves / "other").iterdir())


@pytest.mark.parametrize("own", ["", ":runner"])
def test_a_program_s_own_store_is_compared_from_where_the_program_is(moves: Path, own: str) -> None:
    with (moves / "app.py").open("a") as file:
        file.write("runner = cloaca.DefaultRunner('A.db')\nos.chdir('..')\n")
    done = run_command(["run", f"app.py{own}", "--database", "A.db"], cwd=moves)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"cloaca: --database names 'A.db', and the runner of app.py{own} is on 'other/A.db': "
    )
    assert not (moves / "A.db").exists()
    with serving(moves, "run", f"app.py{own}", "--database", "other/A.db") as process:
        try:
            assert reads(process, f"serving app.py{own} on 'other/A.db'; Ctrl-C")
            end(process)
        finally:
            process.kill()


def test_stores_with_long_names_do_not_look_alike(tmp_path: Path) -> None:
    far = tmp_path / ("f" * 90)
    far.mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "app.py").write_text(f"{MOVES.replace('other', '.')}cloaca.DefaultRunner('A.db')\n")
    done = run_command(["run", "app.py", "--database", str(far / "A.db")], cwd=tmp_path / "here")
    assert done.returncode == 2
    assert "--database names '…fff" in done.stderr
    assert "fff/A.db', and the runner of app.py is on 'A.db'" in done.stderr


@pytest.mark.parametrize("by", ["--database", "CLOACA_DATABASE", "pyproject"])
@pytest.mark.parametrize("store", ["file:A.db", "A.db?x=1"])
@pytest.mark.parametrize("words", [["run", "app.py", *form] for form in FORMS.values()] + [["dev", "app.py"]])
def test_what_is_no_store_is_told_before_the_program_is_imported(
    line: Line, tmp_path: Path, words: list[str], store: str, by: str
) -> None:
    (tmp_path / "app.py").write_text("open('imported', 'x')\nimport cloaca\ncloaca.DefaultRunner('A.db')\n")
    if by == "pyproject":
        (tmp_path / "pyproject.toml").write_text(f'[tool.cloaca]\ndatabase = "{store}"\n')
    elif by == "--database":
        words = [*words, "--database", store]
    else:
        line.monkeypatch.setenv(by, store)
    assert line.piped(*words, code=2) == ""
    assert line.said.count("\n") == 1, line.said
    assert ("URIs are not supported" if "file" in store else "unknown option 'x'") in line.said
    assert os.listdir(tmp_path) in (["app.py"], ["app.py", "pyproject.toml"], ["pyproject.toml", "app.py"])


LONG_SECONDS = 2.5
# The command, for which that is a long life.
SOON = f"""
import sys
from cloaca.cli import main, workers
workers.AT_ONCE_SECONDS, workers.PAUSE_SECONDS = {LONG_SECONDS}, 0.01
sys.exit(main())
"""
BREAKS = """
import os
import cloaca
with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context):
        pass
if os.path.exists("broken"):
    os._exit(7)
"""


@pytest.mark.skipif(os.name != "posix", reason="there are no signals")
@pytest.mark.parametrize("form", ["run", "workers"])
def test_a_store_that_cannot_be_opened_is_told_once_and_nothing_is_tried_again(
    tmp_path: Path, form: str
) -> None:
    (tmp_path / "app.py").write_text(
        "import cloaca\nwith cloaca.WorkflowBuilder('w'):\n    cloaca.task(id='t')(print)\n"
    )
    (tmp_path / "A.db").write_text("no database, and longer than a header of one would be" * 100)
    done = run_command(["run", "app.py", *FORMS[form], "--database", "A.db"], cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("cloaca: ")
    assert "A.db" in line


def test_a_program_that_waits_for_its_end_in_its_module_serves_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import signal\nimport cloaca\nwith cloaca.WorkflowBuilder('w'):\n    cloaca.task(id='t')(print)\n"
        "cloaca.trigger(name='beat', poll_interval='50ms')(lambda: print('beat', flush=True))\n"
        "runner = cloaca.DefaultRunner('A.db')\nsignal.pause()\n"
    )
    line = (
        "import sys; from cloaca.cli import main, serve; serve.HELD_SECONDS = 0.2;"
        " sys.argv[1:] = ['run', 'app.py']; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", line], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert reads(process, "beat")
            process.terminate()
        finally:
            process.kill()


def test_a_program_that_was_served_well_is_not_given_up(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(BREAKS)
    words = ["run", "app.py", "--workers", "2", "--database", "A.db"]
    with subprocess.Popen(
        [sys.executable, "-c", SOON, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            for _ in range(2):
                tells(process, "serving app.py")
            until = time.monotonic() + LONG_SECONDS
            while time.monotonic() < until:
                told = run_command(["runners", "--json", "--database", "A.db"], cwd=tmp_path).stdout
            (tmp_path / "broken").touch()
            for each in told.splitlines():
                os.kill(json.loads(each)["pid"], signal.SIGKILL)
            for _ in range(14):
                tells(process, "another begins")
            (tmp_path / "broken").unlink()
            for _ in range(2):
                tells(process, "serving app.py")
        finally:
            end(process)


def tells(process: subprocess.Popen[str], pattern: str) -> None:
    assert process.stderr is not None
    told = []
    for text in process.stderr:
        told.append(text)
        if pattern in text:
            return
    raise AssertionError("".join(told))


SWALLOWS = {
    "handled": "try:\n    cloaca.DefaultRunner('B.db')\nexcept Exception:\n    pass\n",
    "handled all": (
        "try:\n    cloaca.DefaultRunner('B.db')\nexcept BaseException:\n    cloaca.DefaultRunner('A.db')\n"
    ),
    "turned into another": (
        "try:\n    cloaca.DefaultRunner('B.db')\nexcept BaseException:\n    raise ValueError('no')\n"
    ),
    "in a thread": (
        "import threading\nthread = threading.Thread(target=lambda: cloaca.DefaultRunner('B.db'))\n"
        "thread.start()\nthread.join()\n"
    ),
    "in a thread while it serves": (
        "import threading\nrunner = cloaca.DefaultRunner('A.db')\n"
        "threading.Thread(target=lambda: cloaca.DefaultRunner('B.db')).start()\nrunner.run_forever()\n"
    ),
    "on a loop": (
        "import asyncio\nasync def makes():\n    await cloaca.DefaultRunner.open('B.db')\n"
        "asyncio.run(makes())\n"
    ),
}


@pytest.mark.parametrize("how", SWALLOWS)
def test_a_refused_store_is_told_whatever_the_program_makes_of_it(tmp_path: Path, how: str) -> None:
    for own, text in (
        ("", SWALLOWS[how]),
        (
            ":make",
            "def make():\n"
            + "".join(
                f"    {each}\n"
                for each in (*SWALLOWS[how].splitlines(), "return cloaca.DefaultRunner('A.db')")
            ),
        ),
    ):
        (tmp_path / "app.py").write_text(MOVES.replace("other", ".") + text)
        done = run_command(["run", f"app.py{own}", "--database", "A.db"], cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        lines = [each for each in done.stderr.splitlines() if " INFO " not in each]
        assert lines[-1].startswith(
            f"cloaca: --database names 'A.db', and the runner of app.py{own} is on 'B.db'"
        )
        assert len(lines) == 1 or how == "turned into another"
        assert not (tmp_path / "B.db").exists()


@pytest.mark.parametrize(
    ("terms", "line"),
    [
        ("work=False", "app.py is a client of 'A.db', and serves nothing (work=False); Ctrl-C ends it"),
        ("paused=True", "app.py is open on 'A.db' and paused: nothing begins until resume(); Ctrl-C ends it"),
        ("work=True", "serving app.py on 'A.db'; Ctrl-C drains and ends"),
    ],
)
def test_the_line_says_what_the_runner_does(tmp_path: Path, terms: str, line: str) -> None:
    (tmp_path / "app.py").write_text(f"import cloaca\ncloaca.DefaultRunner('A.db', {terms})\n")
    with serving(tmp_path, "run", "app.py") as process:
        try:
            assert line in reads(process, "Ctrl-C")
            end(process)
            assert process.returncode == 0
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_forked_child_is_told_that_it_is_one_also_by_a_runner_that_waits(tmp_path: Path) -> None:
    told = (
        "import os, sys, cloaca\n"
        "with cloaca.WorkflowBuilder('w'):\n    cloaca.task(id='t')(print)\n"
        "runner = cloaca.DefaultRunner('A.db'{})\n"
        "if os.fork() == 0:\n    try:\n        runner.submit('w')\n    except cloaca.RunnerError as error:\n"
        "        print(error, flush=True)\n    os._exit(0)\nos.wait()\nsys.exit()\n"
    )
    for terms in ("", ", paused=True"):
        (tmp_path / "app.py").write_text(told.format(terms))
        done = run_command(["run", "app.py"], cwd=tmp_path)
        assert "fork" in done.stdout, done
        assert "resume" not in done.stdout


OPENS = {
    "module": ("app.py", "cloaca.DefaultRunner({})\n"),
    "name": ("app.py:runner", "runner = cloaca.DefaultRunner({})\n"),
    "maker": ("app.py:make", "def make():\n    return cloaca.DefaultRunner({})\n"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", OPENS)
def test_a_store_of_the_program_s_own_that_cannot_be_opened_is_told_in_one_line(
    tmp_path: Path, how: str, form: str
) -> None:
    (tmp_path / "broken.db").write_text("no database, and longer than a header of one would be" * 100)
    if form == "reload":
        pytest.skip("it waits for a change")
    target, text = OPENS[how]
    for store in ("'broken.db'", "'nowhere/A.db'"):
        (tmp_path / "app.py").write_text(
            "import cloaca\nwith cloaca.WorkflowBuilder('w'):\n    cloaca.task(id='t')(print)\n"
            + text.format(store)
        )
        done = run_command(["run", target, *FORMS[form]], cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("cloaca: ")
        assert store.strip("'") in line


def test_another_error_of_a_store_has_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import cloaca\ncloaca.DefaultRunner('A.db').query('DROP TABLE runs')\n")
    done = run_command(["run", "app.py"], cwd=tmp_path)
    assert done.returncode == 1
    assert "in <module>" in done.stderr


BEAT = (
    "import asyncio, time\nimport cloaca\nwith cloaca.WorkflowBuilder('w'):\n    cloaca.task(id='t')(print)\n"
    "cloaca.trigger(name='beat', poll_interval='50ms')(lambda: print('beat', flush=True))\n"
)
SERVES = {
    "run_forever": "def main():\n    cloaca.DefaultRunner('A.db').run_forever()\n",
    "its module's": (
        "runner = cloaca.DefaultRunner('A.db')\ndef main():\n    runner.run_forever()\n    return 0\n"
    ),
    "block": "def main():\n    with cloaca.DefaultRunner('A.db'):\n        time.sleep(60)\n",
    "async block": (
        "async def main():\n    async with cloaca.DefaultRunner('A.db'):\n        await asyncio.sleep(60)\n"
    ),
    "async run": "def main():\n    asyncio.run(serves())\nasync def serves():\n"
    "    async with cloaca.DefaultRunner('A.db'):\n        await asyncio.sleep(60)\n",
}


@pytest.mark.skipif(os.name != "posix", reason="there are no signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", SERVES)
def test_a_function_that_serves_by_itself_is_called(tmp_path: Path, how: str, number: signal.Signals) -> None:
    (tmp_path / "app.py").write_text(BEAT + SERVES[how])
    with serving(tmp_path, "run", "app.py:main") as process:
        try:
            reads(process, "^beat")
            process.send_signal(number)
            assert process.stdout is not None
            told = process.stdout.read()
            assert process.wait(WAIT) == 0, told
            assert "Traceback" not in told
            assert "never awaited" not in told
        finally:
            process.kill()
    assert run_command(["runners"], cwd=tmp_path).stdout == "", "it has left"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("def main():\n    cloaca.DefaultRunner('A.db').shutdown()\n", 0, ""),
        ("def main():\n    cloaca.DefaultRunner('A.db').shutdown()\n    return 5\n", 5, ""),
        ("async def main():\n    cloaca.DefaultRunner('A.db').shutdown()\n    return 5\n", 5, ""),
        ("def main():\n    cloaca.DefaultRunner('A.db').execute('w')\n", 0, ""),
        ("def main():\n    cloaca.DefaultRunner('A.db')\n", 2, "neither returns it nor has it serve"),
        ("def main():\n    pass\n", 2, "that is None; name a DefaultRunner"),
        ("async def main():\n    pass\n", 2, "that is None; name a DefaultRunner"),
        ("async def main():\n    return cloaca.DefaultRunner('A.db')\n", 2, "app.py:main is async"),
        (
            "async def main():\n    return await cloaca.DefaultRunner.open('A.db')\n",
            2,
            "app.py:main is async",
        ),
    ],
)
def test_a_function_that_serves_nothing_is_told_of(tmp_path: Path, text: str, code: int, told: str) -> None:
    (tmp_path / "app.py").write_text(BEAT.replace("50ms", "1h") + text)
    done = run_command(["run", "app.py:main"], cwd=tmp_path)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert "Warning" not in done.stderr
    assert done.stderr.count("cloaca: ") == (code == 2)


def test_a_function_that_serves_on_another_store_is_refused(tmp_path: Path) -> None:
    for how in ("run_forever", "its module's", "async block"):
        (tmp_path / "app.py").write_text(BEAT + SERVES[how])
        done = run_command(["run", "app.py:main", "--database", "B.db"], cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        said = [each for each in done.stderr.splitlines() if each.startswith("cloaca: ")]
        assert said[0].startswith(
            "cloaca: --database names 'B.db', and the runner of app.py:main is on 'A.db'"
        )
