"""Everything that may happen to a file, at once and by chance: the program opens, copies and attaches it,
threads submit, outsiders read and write, all of them die at any moment, and it is opened again. What was told
as committed is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest
from attack import SECONDS, TIMES, command, health, outside, run

import cloaca

LIVES = 4 * TIMES

MEDDLER = """
    import random, shutil, sqlite3
    path, witness, seed, ways = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
    chance = random.Random(seed)
    logging.disable()
    told = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=1)
        def t(context): pass

    def meddle(number):
        chance = random.Random(seed * 100 + number)
        while True:
            how = chance.choice(ways)
            try:
                if how == "open":
                    open(path, "rb").close()
                elif how == "open beside":
                    open(path + "-shm", "rb").close()
                    open(path + "-wal", "rb").close()
                elif how == "log":
                    open(path + "-wal", "rb").close()
                elif how == "copy":
                    shutil.copy(path, f"{path}.copy{number}")
                elif how == "copy beside":
                    shutil.copy(path + "-shm", f"{path}.shm{number}")
                    shutil.copy(path + "-wal", f"{path}.wal{number}")
                elif how == "attach":
                    other = sqlite3.connect(":memory:")
                    other.execute("ATTACH ? AS live", (path,))
                    other.execute("SELECT count(*) FROM live.runs").fetchall()
                    other.close()
                elif how == "write":
                    other = sqlite3.connect(":memory:", timeout=30, isolation_level=None)
                    other.execute("ATTACH ? AS live", (path,))
                    row = f"{seed}-{number}-{time.monotonic_ns()}"
                    other.execute("INSERT INTO live.app VALUES (?, hex(randomblob(300)))", (row,))
                    os.write(told, f"app {row}\\n".encode())
                    other.close()
                elif how == "descriptor":
                    os.close(os.open(path, os.O_RDWR))
            except (OSError, sqlite3.Error):
                pass
            time.sleep(chance.random() * 0.003)

    def submit(number):
        count = 0
        while True:
            count += 1
            run = runner.submit("w", {"i": f"{os.getpid()}-{number}-{count}"})
            if chance.random() < 0.5 and run.result(30).status != "Completed":
                os.write(told, b"odd\\n")
            # The run is committed: `wait_started` and `cancel` alike wait for its record.
            if runner.get_run(run.id) is None:
                os.write(told, b"odd\\n")
            if runner.query("SELECT count(*) AS n FROM runs WHERE id = ?", [run.id]) == [{"n": 1}]:
                os.write(told, (run.id + "\\n").encode())

    if chance.random() < 0.7:
        for number in range(2):
            threading.Thread(target=meddle, args=(number,), daemon=True).start()
    early = None
    if "before" in ways and chance.random() < 0.5 and os.path.exists(path):
        early = sqlite3.connect(path)
        early.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    stays = None
    if "stays" in ways:
        stays = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        stays.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    while True:
        try:
            runner = cloaca.DefaultRunner(f"sqlite://{path}?durability=normal")
            break
        except cloaca.StoreError:
            time.sleep(0.01)
    if early is not None:
        early.close()
    if stays is not None:
        def write():
            count = 0
            while True:
                try:
                    stays.execute("INSERT INTO app VALUES (?, hex(randomblob(300)))", (f"{seed}-{count}",))
                    os.write(told, f"app {seed}-{count}\\n".encode())
                    count += 1
                except sqlite3.OperationalError as error:
                    assert "locked" in str(error) or "no such table" in str(error), error
                time.sleep(chance.random() * 0.003)
        threading.Thread(target=write, daemon=True).start()
    for number in range(3):
        threading.Thread(target=submit, args=(number,), daemon=True).start()
    end = time.monotonic() + chance.uniform(0.2, 1.0)
    while time.monotonic() < end:
        time.sleep(0.05)
        if chance.random() < 0.1:
            second = cloaca.DefaultRunner(path)
            second.shutdown()
            del second
    if chance.random() < 0.4:
        os.kill(os.getpid(), 9)
    runner.shutdown(1)
    os._exit(0)
"""

OUTSIDER = """
import random, sqlite3, sys, time
chance = random.Random(int(sys.argv[2]))
told = open(sys.argv[3], "a", buffering=1)
n = 0
while True:
    try:
        c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
        c.execute("CREATE TABLE IF NOT EXISTS app (x PRIMARY KEY, y)")
        for _ in range(chance.randrange(5)):
            n += 1
            c.execute("INSERT INTO app VALUES (?, hex(randomblob(300)))", (f"{sys.argv[2]}-{n}",))
            told.write(f"app {sys.argv[2]}-{n}\\n")
        if chance.random() < 0.3:
            c.execute("SELECT sum(length(context)) FROM runs").fetchall()
        if chance.random() < 0.1:
            c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        c.close()
    except sqlite3.Error as error:
        if "locked" not in str(error) and "no such table" not in str(error) and "UNIQUE" not in str(error):
            print(error, file=sys.stderr, flush=True)
            sys.exit(5)
    time.sleep(chance.random() * 0.01)
"""


WAYS = [
    pytest.param("nothing", id="nothing"),
    pytest.param("open,copy,descriptor", id="the file"),
    pytest.param("open,log", id="its log"),
    pytest.param("before,nothing", id="a connection from before"),
    pytest.param("open beside,copy beside", id="its memory"),
    pytest.param("stays,nothing", id="a connection that stays"),
    pytest.param("write", id="ATTACH that writes"),
    pytest.param("attach", id="ATTACH"),
]


def committed(witness: Path) -> set[str]:
    """The runs of which a program was told that they are kept."""
    return {
        line for line in witness.read_text().split("\n")[:-1] if line and not line.startswith(("app ", "odd"))
    }


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.timeout(SECONDS * 2 + LIVES * 10)
def test_what_was_told_as_committed_is_there_whatever_happens_to_the_file(tmp_path: Path, ways: str) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    path, witness = tmp_path / "runs.db", tmp_path / "told"
    # The very first making of a file goes through SQLite's old journal, and is not what is tried here.
    cloaca.DefaultRunner(str(path)).shutdown()
    witness.touch()
    lives: list[subprocess.Popen[bytes]] = []
    others: list[subprocess.Popen[bytes]] = []
    born = 0

    def start(source: str, *arguments: object, program: bool = True) -> subprocess.Popen[bytes]:
        words = (
            command(source, *arguments) if program else [sys.executable, "-c", source, *map(str, arguments)]
        )
        return subprocess.Popen(words, stderr=subprocess.PIPE)

    def ended(process: subprocess.Popen[bytes], codes: tuple[int, ...]) -> None:
        try:
            errors = process.communicate(timeout=SECONDS)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError("it hangs") from None
        assert process.returncode in codes, f"ended with {process.returncode}: {errors[-3000:]}"

    try:
        while born < LIVES or lives:
            while born < LIVES and len(lives) < 2:
                born += 1
                lives.append(start(MEDDLER, path, witness, seed + born, ways))
            while len(others) < 2:
                others.append(start(OUTSIDER, path, chance.randrange(1 << 30), witness, program=False))
            sleep(chance.random() * 0.3)
            if chance.random() < 0.4:
                victim = others.pop(chance.randrange(len(others)))
                victim.kill()
                ended(victim, (-9,))
            # One must have come to a commit of a run, however slow the machine is.
            if chance.random() < 0.3 and lives and committed(witness):
                chance.choice(lives).kill()
            for process in [process for process in lives if process.poll() is not None]:
                lives.remove(process)
                ended(process, (0, -9))
    finally:
        for process in lives + others:
            process.kill()
            process.communicate()
    for process in others:
        assert process.returncode == -9, "an outsider was told that the file is hurt"
    lines = witness.read_text().split("\n")
    assert "odd" not in lines
    rows = {line.split()[1] for line in lines[:-1] if line.startswith("app ")}
    told = committed(witness)
    assert told, "nothing was committed at all"
    runs, app = outside(path, "SELECT id FROM runs", "SELECT x FROM app")
    assert told - {row[0] for row in runs} == set(), "committed runs are lost"
    assert rows - {row[0] for row in app} == set(), "an outsider's rows are lost"
    assert health(path) == "ok"
    finish = """
    with cloaca.WorkflowBuilder("w"):
        @cloaca.task(retry_attempts=1)
        def t(context): pass
    with cloaca.DefaultRunner(sys.argv[1]) as runner:
        until(lambda: not runner.query("SELECT 1 FROM runs WHERE completed_at IS NULL LIMIT 1"), 60)
    """
    run(finish, path, seconds=120)
    assert health(path) == "ok"
