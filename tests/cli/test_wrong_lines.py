"""Lines that nobody means: closed streams, empty values, ports that are none, programs that raise."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from stage import Line, free_port, reads, run_command

import cloaca
from cloaca.cli import new

ESCAPES = "\x1b]0;evil\x07\x9b\u202e"
WAIT = 60.0


def made(folder: Path) -> Path:
    """A store with one failed run."""
    with cloaca.WorkflowBuilder("ingest"):

        @cloaca.task()
        def fails(context: cloaca.Context) -> None:
            raise ValueError("no")

    with cloaca.DefaultRunner(folder / "runs.db") as runner:
        runner.execute("ingest", {})
    return folder / "runs.db"


@pytest.mark.skipif(os.name != "posix", reason="closes a stream by its number")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_line_without_its_streams_does_what_it_can(tmp_path: Path, closed: str) -> None:
    made(tmp_path)
    for words, code in [
        ("retry --all", 2),
        ("prune --before 1d", 0),
        ("ls", 0),
        ("help", 0),
        ("nope", 2),
        ("--version", 0),
        ("show nope", 4),
        ("submit ingest --context -", 2),
    ]:
        line = f"exec {sys.executable} -m cloaca {words} {closed}"
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT)
        assert done.returncode == code, (words, done)
        assert "Traceback" not in done.stderr, words


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "--database", ""],
        ["ls", "--database="],
        ["prune", "--before", "1d", "--yes", "--database", ""],
        ["cancel", ""],
        ["retry", ""],
        ["show", ""],
        ["cancel", "--all", "--yes", "--workflow", ""],
        ["retry", "--all", "--yes", "--trigger", ""],
        ["retry", "--all", "--yes", "--key", ""],
        ["retry", "--all", "--yes", "--error", ""],
        ["runs", "--since", ""],
        ["run", ""],
        ["dev", ""],
        ["ui", ""],
        ["ui", "--host", ""],
        ["ui", "--token", ""],
        ["submit", "ingest", "--app", ""],
    ],
    ids=" ".join,
)
def test_a_value_that_is_empty_is_refused_and_nothing_guessed(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("CLOACA_DATABASE", str(made(tmp_path)))
    assert line.piped(*words, code=2) == ""
    assert "is empty" in line.said
    (run,) = line.piped("runs").splitlines()
    assert "\tFailed\t" in run


@pytest.mark.parametrize("words", [["ls"], ["prune", "--before", "1d", "--yes"], ["ui"]], ids=" ".join)
def test_a_variable_that_is_set_but_empty_names_no_store(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    made(tmp_path)
    monkeypatch.setenv("CLOACA_DATABASE", "")
    assert line.piped(*words, code=2) == ""
    assert "CLOACA_DATABASE is empty" in line.said


def test_a_token_that_is_set_but_empty_lets_nobody_in(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)
    monkeypatch.setenv("CLOACA_UI_TOKEN", "")
    line.piped("ui", code=2)
    assert "the token has 0 characters" in line.said


@pytest.mark.parametrize("port", ["99999", "-5", "0", "x"])
@pytest.mark.parametrize("words", [["ui", "runs.db"], ["dev", "app.py"]], ids=" ".join)
def test_a_port_that_is_none_is_refused_at_once(
    line: Line, tmp_path: Path, words: list[str], port: str
) -> None:
    made(tmp_path)
    (tmp_path / "app.py").write_text("import cloaca\n")
    assert line.piped(*words, "--port", port, code=2) == ""
    assert "--port" in line.said


def test_an_address_that_nobody_can_have_is_refused_at_once(line: Line, tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "app.py").write_text("import cloaca\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words in (["ui", "runs.db"], ["dev", "app.py"]):
            assert line.piped(*words, "--port", port, code=2) == ""
            assert "nobody can listen at" in line.said
            assert port in line.said
    words = ["ui", "runs.db", "--host", "nowhere.invalid", "--token", "a long secret"]
    assert line.piped(*words, code=2) == ""
    assert "nobody can listen at" in line.said


@pytest.mark.parametrize(
    "words", [["dev"], ["run"], ["run", "--reload"], ["run", "--workers", "2"]], ids=" ".join
)
@pytest.mark.parametrize(
    "target", ["nope.py", "nope", "nope.py:runner", "nope.inner", ".", "..", "nope.", "./"]
)
def test_a_program_that_is_not_there_is_waited_for_by_nobody(
    tmp_path: Path, words: list[str], target: str
) -> None:
    done = run_command([*words, target], cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_audit_list_of_what_is_not_there_is_not_found(line: Line, tmp_path: Path) -> None:
    made(tmp_path)
    line.piped("audit", "nope", code=4)
    assert "'nope'" in line.said
    line.piped("audit")
    line.piped("retry", "--all", "--yes")
    (change,) = line.piped("audit").splitlines()
    assert line.piped("audit", change.split("\t")[5]) == f"{change}\n"


@pytest.mark.parametrize("context", ["@none.json", "@.", "@latin.json", "-"])
def test_a_context_that_cannot_be_read_is_a_wrong_line(tmp_path: Path, context: str) -> None:
    made(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xff"}')
    words = [sys.executable, "-m", "cloaca", "submit", "ingest", "--context", context]
    done = subprocess.run(words, cwd=tmp_path, input=b'{"a": "\xff"}', capture_output=True, timeout=WAIT)
    assert done.returncode == 2, done.stderr
    assert b"--context" in done.stderr
    assert b"Traceback" not in done.stderr


def test_help_for_what_is_no_command_says_so(line: Line) -> None:
    assert line.piped("help", "shw", code=2) == ""
    assert "did you mean 'show'" in line.said
    assert line.piped("help", "show") == line.piped("show", "--help")


@pytest.mark.parametrize("how", ["import", "maker", "log"])
def test_what_a_program_raises_reaches_no_terminal_raw(tmp_path: Path, how: str) -> None:
    raises = f"raise ValueError({ESCAPES!r})\n"
    text = {
        "import": raises,
        "maker": f"def make():\n    {raises}",
        "log": "import logging, cloaca\n"
        "cloaca.WorkflowBuilder('w').__enter__()\ncloaca.task(id='t')(lambda c: None)\n"
        "def make():\n"
        f"    logging.getLogger('x').error({ESCAPES!r})\n"
        f"    try:\n        {raises}"
        "    except ValueError:\n        logging.getLogger('x').exception('it')\n"
        "    raise KeyboardInterrupt\n",
    }[how]
    (tmp_path / "app.py").write_text(text)
    done = run_command(["run", "app.py" if how == "import" else "app.py:make"], cwd=tmp_path)
    assert done.returncode == (130 if how == "log" else 1)
    assert "ValueError: \\x1b]0;evil\\x07\\x9b\\u202e" in done.stderr
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stderr)


def test_a_character_is_spelt_in_one_way(line: Line, tmp_path: Path) -> None:
    name = "a\x1bb\u202ec\\u{41}"

    @cloaca.trigger(workflow="ingest", name=name, poll_interval="1h")
    def poll() -> bool:
        return False

    made(tmp_path)
    line.piped("why", "nope", code=4)
    assert "\\u{1b}" not in line.said
    assert "\\x1b" in line.said
    assert "\\u202e" in line.said


@pytest.mark.parametrize("name", ["-x", "x-", "_x", "x_", "a/-x", "7x", "x y", "é", "x\n"])
def test_a_name_that_nothing_could_be_installed_by_is_no_project(
    line: Line, tmp_path: Path, name: str
) -> None:
    assert line.piped("new", "--", name, code=2) == ""
    assert "a letter in front" in line.said
    assert list(tmp_path.iterdir()) == []


def test_a_project_that_cannot_be_made_is_told_with_a_way_out(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.piped("new", "/", code=2)
    assert line.said.startswith("cloaca: NAME is '/'; a project's name has ")
    line.piped("new", "x" * 300, code=2)
    assert line.said.startswith("cloaca: NAME is 'xxx")
    assert line.said.endswith("it has at most 64 characters\n")
    (tmp_path / "file").touch()
    line.piped("new", "file/demo", code=1)
    assert line.said == "cloaca: 'file/demo' cannot be made: Not a directory; name a folder elsewhere\n"

    def refuse(*words: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.makedirs", refuse)
    line.piped("new", "demo", code=1)
    assert line.said == "cloaca: 'demo' cannot be made: Permission denied; name a folder elsewhere\n"


def test_of_a_project_that_cannot_be_written_nothing_stays(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnicodeEncodeError):
        new._write(str(tmp_path / "demo"), {"a": "a", "b": "\ud800"})
    assert list(tmp_path.iterdir()) == []


def test_the_unit_of_a_new_project_is_that_of_the_docs(line: Line, tmp_path: Path) -> None:
    line.piped("new", "Shop-orders")
    unit = (tmp_path / "Shop-orders" / "Shop-orders.service").read_text()
    guide = Path(__file__).parents[2] / "docs/guides/service.md"
    (documented,) = re.findall(r"```ini\n(.*?)```", guide.read_text(), re.DOTALL)
    keys = [re.findall(r"^(\w+)=", text, re.MULTILINE) for text in (unit, documented)]
    assert [key for key in keys[0] if key != "Environment"] == keys[1]
    assert "User=shop-orders\nStateDirectory=Shop-orders\nWorkingDirectory=/var/lib/Shop-orders\n" in unit
    assert "DATA=/var/lib/Shop-orders CLOACA_DATABASE=/var/lib/Shop-orders/Shop-orders.db\n" in unit
    assert "adduser --system --group shop-orders" in unit


@pytest.mark.parametrize("option", ["--context", "--diff", "--traceback", "--wait"])
def test_what_is_of_a_run_is_refused_of_a_program(line: Line, tmp_path: Path, option: str) -> None:
    (tmp_path / "app.py").write_text("raise SystemExit(7)")
    line.piped("run", "app.py", option, code=2)
    assert line.said.startswith(f"cloaca: {option} is of a run, which is named by its whole id; 'app.py' is ")
    (tmp_path / "pyproject.toml").write_text('[tool.cloaca]\napp = "app.py"\n')
    line.piped("run", option, code=2)
    assert f"{option} is of a run" in line.said


def test_nothing_is_exported_or_copied_where_that_cannot_be(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)
    (tmp_path / "old.db").touch()
    for words in (["export"], ["copy", "runs.db"]):
        more = ["--database", "runs.db"] if words == ["export"] else []
        line.piped(*words, "old.db", *more, code=2)
        assert line.said.startswith("cloaca: target '")
        assert line.said.endswith("old.db' exists; name a new file\n")
        line.piped(*words, "nodir/x.db", *more, code=2)
        assert line.said.endswith("nodir' does not exist; create it first, or name another target\n")
        with monkeypatch.context() as patch:
            patch.setattr("os.access", lambda *words: False)
            line.piped(*words, "new.db", *more, code=1)
        assert line.said.endswith("may not be written by this user; name another target\n")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["old.db", "runs.db"]


def test_a_token_of_blanks_is_none(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    line.piped("ui", "runs.db", "--token", " " * 20, code=2)
    assert "the token has 0 characters besides blanks, at least" in line.said
    monkeypatch.setenv("CLOACA_UI_TOKEN", " " * 20)
    line.piped("ui", "runs.db", code=2)
    assert "the token has 0 characters besides blanks, at least" in line.said


@pytest.mark.parametrize("folder", ["-a/demo", "a b/demo", "~/demo", "$(touch evil)/demo", "a/demo", "demo"])
def test_what_is_advised_of_a_new_project_goes_into_its_folder(
    line: Line, tmp_path: Path, folder: str
) -> None:
    line.piped("new", "--", folder)
    advised = line.said.partition("next: ")[2].partition(" && ")[0]
    done = subprocess.run(["sh", "-c", f"{advised} && pwd"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / folder}\n", advised


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_page_ends_well_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    made(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "cloaca", "ui", "runs.db", "--port", str(port)]
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == f"http://127.0.0.1:{port}/\n"
            # Who listens already, has said so.
            with socket.create_connection(("127.0.0.1", port), WAIT) as asks:
                asks.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                while asks.recv(65536):
                    pass
            process.send_signal(number)
            assert process.wait(WAIT) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="a terminal of its own")
def test_ctrl_c_at_a_question_ends_without_a_word(tmp_path: Path) -> None:
    import pty

    path = made(tmp_path)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cloaca", "retry", "--all", "--database", str(path)],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        said = b""
        while b"[y/N] " not in said:
            said += os.read(ours, 1024)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
    os.close(ours)
    assert b"Traceback" not in said


ACTS = "import cloaca\nrunner = cloaca.DefaultRunner('A.db')\nopen('acted', 'w').close()\n"


@pytest.mark.parametrize(
    "words", [["run"], ["run", "--workers", "2"], ["run", "--reload"], ["dev"]], ids=" ".join
)
@pytest.mark.parametrize(
    "target",
    ["app.py:nope", "app:nope", "pack.nope", "pack.app:nope", "pack.app.nope", "pack:nope", "space.nope"],
)
def test_nothing_of_a_program_acts_where_the_line_names_what_is_not_there(
    line: Line, tmp_path: Path, words: list[str], target: str
) -> None:
    for folder in ("pack", "space"):
        (tmp_path / folder).mkdir()
    for file in ("app.py", "pack/__init__.py", "pack/app.py", "space/app.py"):
        (tmp_path / file).write_text(f"{ACTS}def f():\n    nope = 1\n    return nope\n")
    before = sorted(os.listdir(tmp_path))
    line.piped(*words, target, code=2)
    assert "nope" in line.said
    assert line.said.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


BINDS = {
    "assigned": "nope = 1",
    "in a block": "if True:\n    try:\n        nope: int = 1\n    finally:\n        pass",
    "imported": "from os import sep as nope",
    "a class": "class nope: pass",
    "global": "def f():\n    global nope\n    nope = 1\nf()",
    "walrus": "print(nope := 1)",
    "loop": "for nope in [1]: pass",
    "star": "from other import *",
    "globals": "globals()['nope'] = 1",
    "getattr": "def __getattr__(name):\n    return 1",
}


@pytest.mark.parametrize("how", BINDS)
def test_what_a_module_may_have_is_looked_for_in_it(line: Line, tmp_path: Path, how: str) -> None:
    (tmp_path / "other.py").write_text("nope = 1\n")
    (tmp_path / "app.py").write_text(f"{BINDS[how]}\n")
    line.piped("run", "app.py:nope", code=2)
    assert "app.py has no runner 'nope': that is " in line.said


@pytest.mark.parametrize(
    ("package", "told"),
    [
        (
            "import sys, types\nsys.modules['pack.inner'] = types.ModuleType('pack.inner')\n",
            "declares no trigger",
        ),
        ("__path__.append('elsewhere')\n", "declares no trigger"),
    ],
)
def test_a_module_that_a_package_finds_elsewhere_is_found(
    line: Line, tmp_path: Path, package: str, told: str
) -> None:
    for folder in ("pack", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pack/__init__.py").write_text(package)
    (tmp_path / "elsewhere/inner.py").write_text("")
    line.piped("run", "pack.inner", code=2)
    assert told in line.said


@pytest.mark.parametrize("words", [["run", "app.py"], ["run", "app.py", "--reload"], ["dev", "app.py"]])
def test_who_serves_without_a_store_is_told_and_ends(tmp_path: Path, words: list[str]) -> None:
    """Nothing is waited for that no change of the program brings about."""
    (tmp_path / "app.py").write_text(
        "import cloaca\n\nwith cloaca.WorkflowBuilder('w'):\n    cloaca.task(id='t')(lambda context: None)\n"
    )
    port = ["--port", str(free_port())] if words[0] == "dev" else []
    done = run_command([*words, *port], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("which store?") == 1
    assert "--database runs.db makes one here" in done.stderr
    assert "started again" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nope"], 2),
        (["show", "zzz", "--database", "runs.db"], 4),
        (["export", "runs.db", "--database", "runs.db"], 2),
        (["disable", "ingest", "--database", "none.db"], 3),
        (["ls"], 0),
    ],
)
def test_a_line_ends_as_it_does_though_standard_error_takes_nothing(
    tmp_path: Path, words: list[str], code: int
) -> None:
    made(tmp_path)
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cloaca", *words]
        done = subprocess.run(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=full, check=False, timeout=WAIT
        )
    assert done.returncode == code


@pytest.mark.parametrize("words", [["--nope"], ["-x"], ["--database", "runs.db"], ["--json"]])
def test_an_option_without_a_command_is_a_wrong_line(line: Line, words: list[str]) -> None:
    assert line.piped(*words, code=2) == ""
    assert "without a command" in line.said
    assert "usage: cloaca" in line.piped("--help")


RAISES = """
class Error(Exception):
    def __str__(self):
        raise ValueError("no text")

raise Error
"""


def test_a_program_is_told_of_whatever_its_error_is(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(RAISES)
    done = run_command(["run", "app.py", "--database", "runs.db"], cwd=tmp_path)
    assert done.returncode == 1
    assert "cloaca: app.py cannot be imported: Error" in done.stderr
    assert "cloaca/cli" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes")
def test_a_program_whose_name_is_no_text_is_a_wrong_line(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.py")).write_text("")
    done = run_command([b"run", b"\xff.py"], cwd=tmp_path)
    assert (done.returncode, "rename the file" in done.stderr) == (2, True)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("more", [["--workers", "2"], ["--reload"]])
def test_a_file_called_like_a_library_is_in_nobody_s_way(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "json.py").write_text("")
    (tmp_path / "app.py").write_text("import cloaca\ncloaca.DefaultRunner('runs.db')\n")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "cloaca", "run", "app.py", *more],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            reads(process, "serving app.py")
        finally:
            process.terminate()
        assert process.wait(WAIT) == 0
