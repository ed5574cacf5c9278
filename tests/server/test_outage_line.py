"""Programs that the command line serves on a server that is away: they wait for it, and are told to end."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import postgres
import pytest

import cloaca

WAIT = 60.0
PROGRAM = """
import os
import cloaca

with cloaca.WorkflowBuilder("w"):
    @cloaca.task()
    def t(context):
        pass

"""
OWN = {
    "app.py": "",
    "app.py:runner": "runner = cloaca.DefaultRunner(os.environ['CLOACA_DATABASE'])",
    "app.py:make": "def make():\n    return cloaca.DefaultRunner(os.environ['CLOACA_DATABASE'])",
}
FORMS = {"plain": ["run"], "workers": ["run", "--workers", "2"], "reload": ["run", "--reload"]}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """One of its own, which runs between tests."""
    # Whoever runs it may be another user than who tests, and a path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="cloaca-") as folder:
        os.chmod(folder, 0o755)
        made = postgres.Server(Path(folder) / "server")
        try:
            made.start()
        except postgres.Missing as missing:
            pytest.skip(str(missing))
        try:
            yield made
        finally:
            made.remove()


@contextmanager
def served(folder: Path, words: list[str], url: str, own: str = "") -> Iterator[subprocess.Popen[str]]:
    (folder / "app.py").write_text(PROGRAM + own)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "cloaca", *words],
        cwd=folder,
        env={**os.environ, "CLOACA_DATABASE": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def reads(process: subprocess.Popen[str], pattern: str, told: list[str]) -> str:
    assert process.stdout is not None
    for text in process.stdout:
        told.append(text)
        if re.search(pattern, text):
            return text
    raise AssertionError("".join(told))


@contextmanager
def going(server: postgres.Server) -> Iterator[str]:
    """The URL of a database, whose server may be stopped."""
    with server.database() as name:
        try:
            yield server.loopback_url(name)
        finally:
            if not server.answers():
                server.resume()


@pytest.mark.parametrize(
    ("form", "target"),
    [("plain", "app.py"), ("workers", "app.py:runner"), ("workers", "app.py:make"), ("reload", "app.py")],
)
def test_a_program_waits_for_its_server_and_serves(
    tmp_path: Path, server: postgres.Server, form: str, target: str
) -> None:
    first, *rest = FORMS[form]
    told: list[str] = []
    with going(server) as url:
        server.stop("fast")
        with served(tmp_path, [first, target, *rest], url, OWN[target]) as process:
            line = reads(process, "waits for", told)
            assert line.startswith(f"cloaca: {target} waits for store test_")
            assert "cannot be reached" in line
            assert postgres.PASSWORD not in line
            server.resume()
            for _ in range(2 if form == "workers" else 1):
                reads(process, "serving app.py", told)
            assert "".join(told).count("waits for") == 1, told
            assert "Traceback" not in "".join(told)


def test_workers_that_are_killed_while_their_server_is_away_come_back_with_it(
    tmp_path: Path, server: postgres.Server
) -> None:
    told: list[str] = []
    with (
        going(server) as url,
        served(tmp_path, ["run", "app.py:runner", "--workers", "2"], url, OWN["app.py:runner"]) as process,
    ):
        for _ in range(2):
            reads(process, "serving app.py", told)
        workers = [
            int(found)
            for found in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        server.stop("fast")
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for _ in workers:
            reads(process, "waits for store", told)
        server.resume()
        for _ in workers:
            reads(process, "serving app.py", told)
        assert "".join(told).count("another begins") == 2, told


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ("plain", signal.SIGTERM),
        ("plain", signal.SIGINT),
        ("plain", signal.SIGHUP),
        ("workers", signal.SIGTERM),
        ("reload", signal.SIGINT),
    ],
)
def test_a_signal_ends_the_wait_at_once(tmp_path: Path, form: str, number: signal.Signals) -> None:
    first, *rest = FORMS[form]
    # It takes what comes, and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/app?connect_timeout=2"
        with served(tmp_path, [first, "app.py", *rest], url) as process:
            told: list[str] = []
            reads(process, "waits for", told)
            process.send_signal(number)
            assert process.wait(WAIT) == 0, told
            assert process.stdout is not None
            assert process.stdout.read() == ""


def test_what_time_does_not_mend_is_not_waited_for(tmp_path: Path, server: postgres.Server) -> None:
    with served(tmp_path, ["run", "app.py"], server.loopback_url(password="wrong")) as process:
        told = process.communicate(timeout=WAIT)[0]
    assert process.returncode == 3
    assert "does not take the password" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("words", [["logs", "{run}", "--follow"], ["show", "{run}", "--wait"]])
def test_who_waits_for_a_run_waits_for_its_server_too(
    server: postgres.Server, tmp_path: Path, words: list[str]
) -> None:
    with server.database() as name:
        url = server.url(name)
        with cloaca.WorkflowBuilder("w"):
            cloaca.task(id="t")(lambda context: None)
        with cloaca.DefaultRunner(url) as runner:
            runner.pause(workflow="w")
            run = runner.submit("w").id
        line = [sys.executable, "-m", "cloaca", *(word.format(run=run) for word in words)]
        with subprocess.Popen([*line, "--database", url], stdout=subprocess.DEVNULL) as process:
            try:
                # It looks again and again.
                looks = set()
                while len(looks) < 20:
                    assert process.poll() is None
                    sql = f"SELECT query_start FROM pg_stat_activity WHERE datname = '{name}'"
                    looks |= {row[0] for row in server.sql(sql)}
                server.stop("fast")
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(1.0)
                server.resume()
                with cloaca.DefaultRunner(url, work=False) as client:
                    client.cancel(run)
                assert process.wait(WAIT) == (0 if words[0] == "logs" else 1)
            finally:
                process.kill()
