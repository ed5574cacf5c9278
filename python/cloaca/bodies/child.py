"""A process of a `ProcessExecutor`, from the inside: takes calls, makes one at a time, answers.

Decides nothing. Invariant: it ends when the other end of its pipe closes, with all that it started, whatever
the call that it makes is doing.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import signal
import socket
import sys
import threading

from ..kind import name_of
from . import program
from .wire import CALL, LEAVE, RAISED, READY, RETURNED, START, STOP, Frames, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Never

CHUNK_BYTES = 1 << 18
EXIT_LOST = 74
"""The exit code of a process that cannot tell what its call came to: EX_IOERR of sysexits(3)."""

_pid: int | None = None
_stopping = False
_program: program.Program | None = None
_forking: list[None] = []


class Stopped(SystemExit):
    """Ends a call that was stopped. No `Exception`, so that only what means to outlives it."""


def is_here() -> bool:
    """Whether this is a process of a `ProcessExecutor`, and not one that a call has forked."""
    return _pid is not None and _pid == os.getpid()


def is_stopping() -> bool:
    """Whether the call that is made here is to end."""
    return _stopping


def main(socket_fd: int, lifeline_fd: int, nice: int = 0) -> Never:
    """Serves until it is told to leave, or nobody is there any more."""
    global _pid
    _pid = os.getpid()
    if nice:
        # Before any other thread: on Linux each has its own, and begins with that of who starts it.
        os.nice(nice)
    for fd in (socket_fd, lifeline_fd):
        os.set_inheritable(fd, False)
    _die_with(lifeline_fd)
    wire = socket.socket(fileno=socket_fd)
    calls: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    frames = Frames()
    # Before the first import of anybody else's: what that does must not outlive the other end either.
    threading.Thread(target=_listen, args=(wire, frames, calls), name="cloaca-wire", daemon=True).start()
    # A handler: what a call starts would inherit that it is ignored.
    signal.signal(signal.SIGINT, _on_int)
    _begin(calls.get())
    signal.signal(signal.SIGTERM, _on_term)
    os.register_at_fork(before=_as_others, after_in_parent=_as_ever)
    _send(wire, READY)
    while (call := calls.get()) is not None:
        _make(wire, call)
        # What it worked on must not be held until the next call comes.
        del call
        if _stopping:
            break
    sys.exit(0)


def _die_with(lifeline_fd: int) -> None:
    """Has the kernel kill this process's group once the other end closes, also amidst a call that never lets
    go of the interpreter. Where the system cannot, `_listen` does it, once it gets the interpreter.
    """
    with contextlib.suppress(AttributeError, OSError):
        import fcntl

        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)  # type: ignore[attr-defined, unused-ignore]
        flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
        import select

        poll = select.poll()
        poll.register(lifeline_fd, select.POLLHUP)
        if poll.poll(0):
            # It closed before we asked to be told.
            os.killpg(0, signal.SIGKILL)


def _listen(wire: socket.socket, frames: Frames, calls: queue.SimpleQueue[bytes | None]) -> None:
    """Reads what comes, on a thread of its own: a call is made meanwhile."""
    while True:
        try:
            more = wire.recv(CHUNK_BYTES)
        except OSError:
            more = b""
        if not more:
            os.killpg(0, signal.SIGKILL)
        for kind, payload in frames.taken(more):
            if kind in (START, CALL):
                calls.put(payload)
            elif kind == STOP:
                _stop()
            elif kind == LEAVE:
                calls.put(None)


def _stop() -> None:
    """Sends SIGTERM to this process and to what it has started."""
    global _stopping
    _stopping = True
    os.killpg(0, signal.SIGTERM)


def _on_term(number: int, _: FrameType | None) -> None:
    if _pid != os.getpid():
        # A process that the call has forked: it ends as any other would.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif _stopping:
        raise Stopped(128 + number)
    # Else it was meant for the whole service, which says itself what is to become of its calls.


def _on_int(number: int, frame: FrameType | None) -> None:
    """As `_on_term`, but that nobody stops a call by it."""
    if _pid != os.getpid():
        signal.default_int_handler(number, frame)


def _as_others() -> None:
    """Before a call forks: a signal that comes before the forked child has begun would be forgotten by the
    interpreter, unless the system itself acts on it."""
    # Another thread than the main one may not set it: then `_on_term` sees to most of it.
    with contextlib.suppress(ValueError):
        if signal.getsignal(signal.SIGTERM) is _on_term:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _forking.append(None)


def _as_ever() -> None:
    if _forking:
        _forking.clear()
        signal.signal(signal.SIGTERM, _on_term)


def _begin(payload: bytes | None) -> None:
    global _program
    if payload is None:
        sys.exit(0)
    start: dict[str, Any] = pickle.loads(payload)
    sys.path[:] = start["path"]
    sys.argv[:] = start["argv"]
    _program = start["program"]


def _make(wire: socket.socket, call: bytes) -> None:
    try:
        function, arguments, keywords = _Unpickler(io.BytesIO(call)).load()
        kind, answer = RETURNED, _pickled(function(*arguments, **keywords))
    except BaseException as raised:
        # SystemExit and KeyboardInterrupt too: here they can only mean that this call failed.
        if _pid != os.getpid():
            # The body has forked and this is the child, which has nobody to tell.
            os._exit(EXIT_LOST)
        kind, answer = RAISED, _error(raised)
    if _pid != os.getpid():
        os._exit(0)
    _send(wire, kind, answer)


def _pickled(returned: object) -> bytes:
    try:
        return pickle.dumps(returned, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as raised:
        kind = name_of(type(returned))
        raise TypeError(
            f"the call returned a {kind} that cannot travel between processes: {raised}"
        ) from raised


def _error(raised: BaseException) -> bytes:
    """An exception with its traceback as text: the frames stay here."""
    import traceback

    name = name_of(type(raised))
    try:
        text = str(raised)
    except BaseException:
        text = "<its text cannot be shown>"
    trace = ""
    with contextlib.suppress(Exception):
        trace = "".join(traceback.format_exception(raised))
    kept: bytes | None = None
    with contextlib.suppress(BaseException):
        # It must also be one that can be read again, which not every one that can be written is.
        kept = pickle.dumps(raised, protocol=pickle.HIGHEST_PROTOCOL)
    told = (kept, name, text, trace)
    return pickle.dumps(told, protocol=pickle.HIGHEST_PROTOCOL)


def _send(wire: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    try:
        for part in frame(kind, payload):
            wire.sendall(part)
    except OSError:
        os._exit(EXIT_LOST)


class _Unpickler(pickle.Unpickler):
    """Finds what the program itself defines in the program, which `__main__` isn't here."""

    def find_class(self, module: str, name: str) -> Any:
        if module != program.MAIN:
            return super().find_class(module, name)
        found: Any = program.imported(_program)
        for part in name.split("."):
            found = getattr(found, part)
        return found
