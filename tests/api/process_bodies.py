"""What the tests of `ProcessExecutor` have called in other processes, and how they know who lives."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

WAIT = 30.0
FOR_EVER = 600.0


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def is_gone(*pids: int) -> bool:
    """Whether all of these end before long."""
    end = time.monotonic() + WAIT
    while any(map(lives, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def read_pids(folder: Path, count: int) -> list[int]:
    """What so many bodies have left in the folder by `note`, once all have."""
    end = time.monotonic() + WAIT
    while len(found := [path for path in folder.iterdir() if path.suffix == ".pid"]) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} bodies have begun"
        time.sleep(0.005)
    return [int(path.stem) for path in found]


def note(folder: str) -> None:
    """Leaves word that this process has begun."""
    (Path(folder) / f"{os.getpid()}.pid").touch()


def echo(value: Any = None, **more: Any) -> Any:
    """Gives back what it got."""
    return more or value


def pid() -> int:
    """Where it was called."""
    return os.getpid()


_leaked: list[bytes] = []


def leak(many: int) -> int:
    """Keeps so many bytes for ever, and tells how many this process holds."""
    _leaked.append(os.urandom(many))
    return sum(map(len, _leaked))


def chatter() -> str:
    """Prints, on every way there is."""
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    os.write(1, b"raw\n")
    return "done"


def sleep(folder: str) -> None:
    """Runs until it is stopped."""
    note(folder)
    time.sleep(FOR_EVER)


def spin(folder: str) -> NoReturn:
    """Never leaves the interpreter to anybody."""
    note(folder)
    sum(range(10**15))
    raise AssertionError("it takes hours")


def stubborn(folder: str) -> None:
    """Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(folder)
    time.sleep(FOR_EVER)


def deaf(folder: str) -> None:
    """Swallows whatever is raised."""
    is_told = False
    while True:
        try:
            if not is_told:
                note(folder)
                is_told = True
            time.sleep(FOR_EVER)
        except BaseException:
            continue


def tidy(folder: str) -> None:
    """Cleans up when it is stopped."""
    try:
        note(folder)
        time.sleep(FOR_EVER)
    finally:
        (Path(folder) / "tidied").touch()


def family(folder: str) -> None:
    """Has a child by fork that ignores SIGTERM, and one by exec; then runs until it is stopped."""
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(folder)
        time.sleep(FOR_EVER)
        os._exit(0)
    code = "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code])
    (Path(folder) / f"{child.pid}.pid").touch()
    note(folder)
    time.sleep(FOR_EVER)


def forks_and_returns(_: str) -> int:
    """Comes back twice: as itself, and as a child that has forgotten to end."""
    parent = os.getpid()
    os.fork()
    return parent


def terminates_its_own() -> int:
    """Ends a forked child of its own by SIGTERM, as `multiprocessing` does."""
    if (child := os.fork()) == 0:
        time.sleep(FOR_EVER)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leave(code: int) -> NoReturn:
    """Leaves by itself."""
    os._exit(code)


def killed() -> None:
    """Is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def closes_everything(folder: str) -> None:
    """Closes what is not its own."""
    note(folder)
    os.closerange(3, 256)


class Unreadable(Exception):
    """Can be written by pickle and not read again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


class Unwritable(Exception):
    """Cannot be written by pickle."""

    def __init__(self) -> None:
        super().__init__("kept")
        self.function = lambda: None


class Bomb:
    """Raises when it is read."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def raise_unreadable() -> NoReturn:
    """Raises what cannot be read again."""
    raise Unreadable("first", "second")


def raise_unwritable() -> NoReturn:
    """Raises what cannot be written."""
    raise Unwritable


def raise_value() -> NoReturn:
    """Raises an ordinary error."""
    raise ValueError("of the body")


def raise_exit() -> NoReturn:
    """Raises what ends other programs."""
    raise SystemExit(3)


def return_bomb() -> Bomb:
    """Returns what cannot be read."""
    return Bomb()


def return_function() -> Any:
    """Returns what cannot be written."""
    return lambda: None
