"""Several processes that serve one program. One that dies is told of and replaced.

Invariant: once this process is told to end, none is begun any more.
"""

from __future__ import annotations

import logging
import signal
import time

from .. import systemd
from . import told
from .children import all_ended, command, end, how_it_ended
from .lifeline import Lifeline
from .main import FAILED, INTERRUPTED, OK, STORE, USAGE
from .program import QUIET, REFUSED, TELLS, UNFIT, WORKER, WRONG

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from ..systemd import Relay

LOOK_SECONDS = 0.3
"""So often it is looked whether one has died."""
AT_ONCE_SECONDS = 10.0
"""One that lives no longer has died at once."""
DEATHS_MAX = 5
"""After so many of those in a row, of every one, nothing is tried any more: unless one has lived longer."""
PAUSE_SECONDS = 0.5
"""Before the second of them in a row, and twice as long before each further one."""
PAUSE_SECONDS_MAX = 30.0
ENDED = (0, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT, -getattr(signal, "SIGHUP", 0))
"""How one ends that was told to: before it serves, by the signal itself."""


class Worker:
    """A place for one process.

    Attributes:
        process: the one that lives, as far as is known.
        is_done: whether the last one ended well, so that none is to follow.
        deaths: so many in a row died at once.
        has_lived: whether one has ever lived longer than that.
        is_unfit: whether the first one could not import the program, and none has since.
        has_told: whether the last one has said what was wrong, if anything was.
    """

    def __init__(self, number: int, line: Sequence[str], relay: Relay, lifeline: Lifeline) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.is_done = False
        self.deaths = 0
        self.has_lived = False
        self.is_unfit = False
        self.has_told = False
        self._is_first = True
        self._line = line
        self._relay = relay
        self._lifeline = lifeline
        self._born = self._due = time.monotonic()

    def look(self) -> int | None:
        """Begins it if that is due, and says how it ended if it has; the exit code then."""
        now = time.monotonic()
        if self.process is None:
            if not self.is_done and now >= self._due:
                self._begin(now)
            return None
        code = self.process.poll()
        self.has_lived = self.has_lived or now - self._born >= AT_ONCE_SECONDS
        if code is None:
            return None
        pid, self.process = self.process.pid, None
        self.is_unfit = code == UNFIT and (self._is_first or self.is_unfit)
        self._is_first = False
        if code == 0:
            # It was told to, by somebody or its own program.
            self.is_done = True
            _say(f"worker {self.number} (process {pid}) has ended, and none takes its place")
        elif code == UNFIT:
            text = f"worker {self.number} (process {pid}) could not import the program"
            self._died(text, now, not self.is_unfit)
        elif code == WRONG or (code == REFUSED and not self.has_lived):
            # One of those that begin together says what is wrong: the next one here, if it was right there.
            self._due = now + PAUSE_SECONDS
        else:
            self._died(f"worker {self.number} (process {pid}) {how_it_ended(code)}", now)
        return code

    def _begin(self, now: float) -> None:
        self._born = now
        try:
            # Systemd is told by this process, for all of them.
            theirs = self._relay.environment()
            # What is wrong with the program is the same for those that begin together.
            self.has_told = not self._is_first or self.number == 1
            theirs[WORKER] = TELLS if self.has_told else QUIET
            self.process = self._lifeline.begin(self._line, theirs)
        except OSError as error:
            self._died(f"worker {self.number} cannot begin: {error}", now)

    def _died(self, text: str, now: float, begins: bool = True) -> None:
        self.deaths = self.deaths + 1 if now - self._born < AT_ONCE_SECONDS else 0
        is_next_at_once = self.deaths < 2 and not self.is_unfit
        pause = min(PAUSE_SECONDS * 2.0 ** max(self.deaths - 2, 0), PAUSE_SECONDS_MAX)
        pause = 0.0 if is_next_at_once else pause
        self._due = now + pause
        when = f" in {pause:g} s" if pause else ""
        _say(f"{text}; another begins{when}" if begins else text)


def serve(
    target: str,
    url: str | None,
    many: int,
    log: str | None = None,
    listens: tuple[str, int] | None = None,
) -> int:
    """Serves a program by so many processes until this one is told to end, or they have ended. The first one
    listens at that address, each other one at the next port."""
    _hear_log(log)
    with told.noting(), systemd.Relay() as relay:
        return _serve(target, url, many, log, listens, relay)


def _serve(
    target: str, url: str | None, many: int, log: str | None, listens: tuple[str, int] | None, relay: Relay
) -> int:
    workers, lifeline = [], Lifeline()
    for number in range(1, many + 1):
        at = None if listens is None else (listens[0], listens[1] + number - 1)
        workers.append(Worker(number, command(target, url, log, at), relay, lifeline))
    code = None
    while code is None and not told.heard:
        code = _looked(workers)
        if code is None:
            told.pause(LOOK_SECONDS)
    systemd.told(systemd.STOPPING)
    processes = [worker.process for worker in workers if worker.process is not None]
    end(processes, told.heard[0] if told.heard else signal.SIGTERM)
    codes = all_ended(processes, lifeline)
    is_well = all(each in ENDED for each in codes)
    return code if code is not None else OK if is_well else FAILED


def _looked(workers: list[Worker]) -> int | None:
    """Looks at each; how this process is to end, if it is."""
    for worker in workers:
        code = worker.look()
        if code == WRONG and worker.has_told:
            # The next one would say the same.
            return USAGE
        if code == REFUSED and worker.has_told and not any(each.has_lived for each in workers):
            return STORE
    if all(worker.is_unfit for worker in workers):
        _say("no worker could import the program; giving up")
        return FAILED
    waiting = [worker for worker in workers if not worker.is_done]
    if not waiting:
        return OK
    if any(worker.has_lived for worker in workers):
        # The program is one that can be served: what ends them now may pass.
        return None
    if all(worker.process is None and worker.deaths >= DEATHS_MAX for worker in waiting):
        _say(f"every worker died within {AT_ONCE_SECONDS:g} s, {DEATHS_MAX} times in a row; giving up")
        return FAILED
    return None


def _hear_log(log: str | None) -> None:
    """What is said here looks like the workers' lines, as they are if the program sets nothing else."""
    if log == "json":
        from .logged import install

        install()
        return
    from .logged import plain

    plain("%(asctime)s %(levelname)s cloaca: %(message)s")


def _say(text: str) -> None:
    logging.getLogger("cloaca").warning("%s", text)
