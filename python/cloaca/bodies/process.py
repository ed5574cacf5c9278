"""`ProcessExecutor`: calls in processes of their own, each of which can be stopped for real.

Decides which process gets which call. What a call does is no business of this file.
Invariants: a future is done only once nothing of its call runs any more; whatever a process does to itself
costs its own call and no other; no process outlives this one.
Longer than a room should be: which process is free, busy or being stopped is one state.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import selectors
import signal
import socket
import sys
import threading
import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, InvalidStateError
from time import monotonic

from .. import check, imported
from ..errors import ArgumentError, ArgumentTypeError, RunnerError, excerpt
from ..kind import is_a
from ..near import says_keywords
from ..plain import describe
from ..threads import begin, tell_thrown
from . import program
from .trace import RemoteTraceback
from .wire import CALL, LEAVE, RAISED, READY, RETURNED, START, STOP, Frames, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from types import TracebackType
    from typing import Any, ParamSpec, Self, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")
    from ..types import Duration

KILL_GRACE_SECONDS = 5.0
"""How long a call that was stopped may take to clean up."""
REAP_SECONDS = 5.0
"""How long the system may take to end a process that was killed."""
LOOK_SECONDS = 0.2
"""How often a process is asked whether it lives, where the system cannot tell by itself."""
CHUNK_BYTES = 1 << 18
WORKERS_MAX = 1024
NICE_MAX = 19

_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()


class ProcessLost(BrokenExecutor):
    """The process of a call ended before the call did: it was killed, it crashed, it left by itself."""


class _Call:
    """One call, from `submit` to its end."""

    __slots__ = ("future", "payload")

    def __init__(self, future: Future[Any], payload: bytes) -> None:
        self.future = future
        self.payload = payload


class _Process:
    """One process, as seen from here."""

    def __init__(self, calls_max: int | None, nice: int) -> None:
        self.call: _Call | None = None
        self.calls_left = calls_max
        self.frames = Frames()
        self.is_ready = False
        self.is_leaving = False
        """It gets no further call."""
        self.is_stopped = False
        """Its call was stopped: what that comes to is told once the process is gone."""
        self.kill_at: float | None = None
        self.outcome: tuple[bytes, bytes] | None = None
        self.out: deque[memoryview] = deque()
        self.wire, theirs = socket.socketpair()
        end, self.lifeline = os.pipe()
        try:
            self.popen = _spawned(theirs.fileno(), end, nice)
        except BaseException:
            self.wire.close()
            os.close(self.lifeline)
            raise
        finally:
            theirs.close()
            os.close(end)
        self.wire.setblocking(False)
        self.pidfd = -1
        with contextlib.suppress(AttributeError, OSError):
            self.pidfd = os.pidfd_open(self.popen.pid)
        start = {"path": sys.path, "argv": sys.argv, "program": program.here()}
        self.send(START, pickle.dumps(start))

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Writes a message, or as much as goes; `flush` goes on with the rest."""
        self.out.extend(memoryview(part) for part in frame(kind, payload))
        self.flush()

    def flush(self) -> None:
        """Writes what waits, as much as goes. That nobody reads any more is noticed when reading."""
        try:
            while self.out:
                part = self.out[0]
                sent = self.wire.send(part)
                if sent == len(part):
                    self.out.popleft()
                else:
                    self.out[0] = part[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self.out.clear()

    def kill(self) -> None:
        """Kills it and all of its group. Before it is reaped: a number is given to another process then."""
        if self.popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.popen.pid, signal.SIGKILL)

    def reap(self) -> str:
        """Ends what is left of it, and says how it ended."""
        from subprocess import TimeoutExpired

        exited = self.popen.returncode
        with contextlib.suppress(AttributeError, OSError):
            # Asked before the rest of its group is killed, and it with them.
            left = os.waitid(os.P_PID, self.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if left is not None:
                exited = left.si_status if left.si_code == os.CLD_EXITED else -left.si_status
        self.kill()
        with contextlib.suppress(TimeoutExpired):
            self.popen.wait(REAP_SECONDS)
        self.close()
        code = exited if exited is not None else self.popen.returncode
        if code is None:
            return "does not end, though it was killed"
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"was ended by signal {-code}"

    def close(self) -> None:
        """Closes this end: the process, if it lives, is killed by that."""
        self.wire.close()
        for fd in (self.lifeline, self.pidfd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.lifeline = self.pidfd = -1


def _spawned(socket_fd: int, lifeline_fd: int, nice: int) -> Popen[bytes]:
    import subprocess
    from multiprocessing.spawn import get_executable

    where = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # No folder of the program before the standard library: the rest of the path comes by the wire.
    code = (
        f"import sys; sys.path = [*filter(None, sys.path), {where!r}];"
        f" from cloaca.bodies import child; child.main({socket_fd}, {lifeline_fd}, {nice})"
    )
    executable = get_executable()
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [os.fsdecode(executable or sys.executable), *flags, "-c", code],
        stdin=subprocess.DEVNULL,
        pass_fds=(socket_fd, lifeline_fd),
        # A group of its own: Ctrl-C on a terminal is for the program, and what it starts can be killed whole.
        process_group=0,
    )


class _Pool:
    """The processes and the thread that serves them. Knows nothing of who holds it, so that one who lets go
    of the executor ends it."""

    def __init__(self, workers_max: int, kill_grace: float, calls_max: int | None, nice: int) -> None:
        self.workers_max = workers_max
        self.kill_grace = kill_grace
        self.calls_max = calls_max
        self.nice = nice
        self.pid = os.getpid()
        self.is_closing = False
        self.lock = threading.RLock()
        self.thread: threading.Thread | None = None
        self.ear, self.mouth = socket.socketpair()
        self.ear.setblocking(False)
        self.mouth.setblocking(False)
        self.pending: deque[_Call] = deque()
        self.taken: set[_Call] = set()
        """Those that wait no more and have not ended."""
        self.processes: set[_Process] = set()
        self.to_stop: set[Future[Any]] = set()
        _pools.add(self)

    # What any thread may call

    def submit(self, future: Future[Any], payload: bytes) -> None:
        """Takes a call in."""
        with self.lock:
            if self.pid != os.getpid():
                raise RunnerError("this ProcessExecutor is the parent's; after a fork make one of your own")
            if self.is_closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self.thread is None:
                try:
                    begin("cloaca-processes", self.serve, self.served_by, pid=self.pid, serves=True)
                except RuntimeError:
                    self.thread = None
                    raise
            self.pending.append(_Call(future, payload))
        self.wake()

    def stop(self, future: Future[Any]) -> None:
        """Has a call stopped; nothing if it has ended."""
        if not future.cancel():
            with self.lock:
                self.to_stop.add(future)
            self.wake()

    def close(self, *, cancel: bool = False, stop: bool = False) -> None:
        """Takes no further call."""
        if self.pid != os.getpid():
            return
        with self.lock:
            self.is_closing = True
            dropped = list(self.pending) if cancel or stop else []
            if stop:
                self.to_stop.update(each.call.future for each in self.processes if each.call is not None)
            if self.thread is None:
                self._hang_up()
        for call in dropped:
            call.future.cancel()
        self.wake()

    def join(self, seconds: float | None = None) -> None:
        """Waits until all has ended."""
        thread = self.thread
        if thread is not None and thread is not threading.current_thread() and self.pid == os.getpid():
            thread.join(seconds)

    def wake(self) -> None:
        """Has the serving thread look."""
        # A full pipe wakes as well.
        with contextlib.suppress(OSError):
            self.mouth.send(b"\0")

    def forget(self) -> None:
        """In a forked child: lets go of what is the parent's, which its processes watch."""
        for fd in [end for each in tuple(self.processes) for end in (each.lifeline, each.pidfd)]:
            with contextlib.suppress(OSError):
                os.close(fd)
        for each in tuple(self.processes):
            with contextlib.suppress(OSError):
                each.wire.close()

    def served_by(self, thread: threading.Thread) -> None:
        """That one serves from now on."""
        self.thread = thread

    # What the serving thread does

    def serve(self) -> None:
        """Serves until it is closed and nothing is left to do. To be called again by whom something was
        thrown into amid that."""
        if self.ear.fileno() < 0:
            return
        self._begin_anew()
        self._serve()
        self._hang_up()

    def _begin_anew(self) -> None:
        """Ends what the one before has left, of which nobody knows how far it came: its calls are lost, and
        those that wait go to other processes."""
        for process in tuple(self.processes):
            process.reap()
            self.processes.discard(process)
        for call in tuple(self.taken):
            if call not in self.pending:
                # It may have ended already.
                with contextlib.suppress(InvalidStateError):
                    call.future.set_exception(ProcessLost("the thread that serves the processes was struck"))
            self.taken.discard(call)

    def _hang_up(self) -> None:
        self.ear.close()
        self.mouth.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.ear, selectors.EVENT_READ)
            while not self._is_done():
                self._watch(selector)
                for key, mask in self._looked(selector):
                    process = key.data
                    if process is None:
                        with contextlib.suppress(BlockingIOError):
                            self.ear.recv(CHUNK_BYTES)
                    elif process in self.processes:
                        if key.fileobj == process.pidfd:
                            self._read(process, selector)
                            self._bury(process, selector)
                        else:
                            if mask & selectors.EVENT_WRITE:
                                process.flush()
                            if mask & selectors.EVENT_READ:
                                self._read(process, selector)
                self._stop_asked()
                self._kill_due(selector)
                self._assign(selector)

    def _looked(self, selector: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        try:
            return selector.select(self._pause())
        except (OSError, ValueError):
            raise
        except BaseException as thrown:
            # While it waited, where it costs no call. What there is to hear is heard the next time.
            tell_thrown(thrown)
            return []

    def _is_done(self) -> bool:
        with self.lock:
            if not self.is_closing or self.pending:
                return False
        for process in self.processes:
            if process.call is None and not process.is_leaving:
                self._send_home(process)
        return not self.processes

    def _send_home(self, process: _Process) -> None:
        process.is_leaving = True
        process.kill_at = monotonic() + self.kill_grace
        process.send(LEAVE)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        """Asks to be told where something waits to be written."""
        for process in self.processes:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.out else 0)
            if selector.get_key(process.wire).events != events:
                selector.modify(process.wire, events, process)

    def _pause(self) -> float | None:
        moments = [process.kill_at for process in self.processes if process.kill_at is not None]
        if any(process.pidfd < 0 for process in self.processes):
            moments.append(monotonic() + LOOK_SECONDS)
        return max(0.0, min(moments) - monotonic()) if moments else None

    def _read(self, process: _Process, selector: selectors.BaseSelector) -> None:
        while True:
            try:
                more = process.wire.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError:
                more = b""
            if not more:
                self._bury(process, selector)
                return
            for kind, payload in process.frames.taken(more):
                self._heard(process, kind, payload)

    def _heard(self, process: _Process, kind: bytes, payload: bytes) -> None:
        if kind == READY:
            process.is_ready = True
            return
        if process.is_stopped:
            process.outcome = kind, payload
            return
        call, process.call = process.call, None
        if process.calls_left is not None and process.calls_left <= 0:
            self._send_home(process)
        if call is not None:
            _end(call.future, kind, payload)
            self.taken.discard(call)

    def _bury(self, process: _Process, selector: selectors.BaseSelector) -> None:
        """A process has gone, or nobody hears it any more."""
        if process not in self.processes:
            return
        selector.unregister(process.wire)
        if process.pidfd >= 0:
            selector.unregister(process.pidfd)
        with self.lock:
            self.processes.discard(process)
        how = process.reap()
        call, process.call = process.call, None
        if call is None and not process.is_ready and not process.is_leaving:
            # It died before its first call: whoever waits longest hears of it, or nobody ever would.
            call = self._next()
            how += " while it started"
        if call is None:
            return
        with self.lock:
            self.to_stop.discard(call.future)
        if process.outcome is not None:
            _end(call.future, *process.outcome)
        else:
            call.future.set_exception(ProcessLost(f"the process of the call {how}"))
        self.taken.discard(call)

    def _stop_asked(self) -> None:
        with self.lock:
            asked, self.to_stop = self.to_stop, set()
        for process in self.processes if asked else ():
            if process.call is not None and process.call.future in asked and not process.is_stopped:
                process.is_stopped = process.is_leaving = True
                process.kill_at = monotonic() + self.kill_grace
                process.send(STOP)

    def _kill_due(self, selector: selectors.BaseSelector) -> None:
        now = monotonic()
        for process in tuple(self.processes):
            is_gone = process.pidfd < 0 and process.popen.poll() is not None
            if is_gone or (process.kill_at is not None and process.kill_at <= now):
                self._bury(process, selector)

    def _assign(self, selector: selectors.BaseSelector) -> None:
        """Gives calls to processes that have none, and starts as many more as are needed and allowed."""
        for process in tuple(self.processes):
            if process.is_ready and process.call is None and not process.is_leaving:
                if (call := self._next()) is None:
                    return
                process.call = call
                if process.calls_left is not None:
                    process.calls_left -= 1
                process.send(CALL, call.payload)
                call.payload = b""
        starting = sum(not process.is_ready for process in self.processes)
        while starting < len(self.pending) and len(self.processes) < self.workers_max:
            try:
                process = _Process(self.calls_max, self.nice)
            except Exception as raised:
                # While others live, one of them makes the call later.
                if not self.processes and (call := self._next()) is not None:
                    call.future.set_exception(ProcessLost(f"no process can be started: {raised}"))
                    self.taken.discard(call)
                    continue
                return
            with self.lock:
                self.processes.add(process)
            selector.register(process.wire, selectors.EVENT_READ, process)
            if process.pidfd >= 0:
                selector.register(process.pidfd, selectors.EVENT_READ, process)
            starting += 1

    def _next(self) -> _Call | None:
        """The call that waits longest, which is running from now on."""
        with self.lock:
            while self.pending:
                call = self.pending[0]
                self.taken.add(call)
                self.pending.popleft()
                if call.future.set_running_or_notify_cancel():
                    return call
                self.taken.discard(call)
        return None


def _end(future: Future[Any], kind: bytes, payload: bytes) -> None:
    try:
        if kind == RETURNED:
            returned = pickle.loads(payload)
        else:
            assert kind == RAISED, "a process answers with what its call came to"
            future.set_exception(_raised(payload))
            return
    except BaseException as raised:
        # It could be written there and cannot be read here, which costs this call and nothing else.
        text = f"what the call returned cannot be read here: {describe(raised)}"
        future.set_exception(TypeError(text))
        return
    future.set_result(returned)


def _raised(payload: bytes) -> BaseException:
    kept, name, text, trace = pickle.loads(payload)
    error: BaseException | None = None
    if kept is not None:
        with contextlib.suppress(BaseException):
            found = pickle.loads(kept)
            error = found if is_a(found, BaseException) else None
    if error is None:
        error = RuntimeError(f"{name}: {text}")
    error.__cause__ = RemoteTraceback(trace)
    return error


class ProcessExecutor(Executor):
    """Makes calls in processes of their own, and can stop each of them for real.

    For `DefaultRunner(executors={"cpu": cloaca.ProcessExecutor(max_workers=2)})`, and for whatever else
    takes a `concurrent.futures.Executor`. A process is started when it is first needed, by a fresh
    interpreter, never by a fork; it makes one call after another. One that dies, by whatever, costs the call
    that it makes and no other: that ends with a `concurrent.futures.BrokenExecutor`. When this process ends,
    also by SIGKILL, the others end with it. SIGTERM from outside does nothing to them, so that a service
    manager that sends it to all processes of a service leaves it to the program what becomes of the calls.

    Not on Windows.

    Args:
        max_workers (int | None): how many processes at most, and so how many calls at once; by default as
            many as this machine has processors.
        kill_grace (Duration): seconds, or `"2s"`, that a stopped call has from SIGTERM to SIGKILL.
        max_tasks_per_child (int | None): after so many calls a process is replaced by a fresh one, which is
            what helps against bodies that leak; `None` means never.
        nice (int): how much more willingly than the program they leave a processor to others, 0 to 19. Where
            the calls keep all processors busy, 10 keeps polls in time.

    Raises:
        ValueError: an argument that makes no sense.
        TypeError: an argument of a wrong type.
        RunnerError: (a `RuntimeError`) the system is Windows.
    """

    @says_keywords("ProcessExecutor")
    def __init__(
        self,
        max_workers: int | None = None,
        *,
        kill_grace: Duration = KILL_GRACE_SECONDS,
        max_tasks_per_child: int | None = None,
        nice: int = 0,
    ) -> None:
        if os.name != "posix":
            raise RunnerError(
                "ProcessExecutor kills by signals, which this system has not; give"
                " concurrent.futures.ProcessPoolExecutor instead, whose calls nobody can stop"
            )
        if max_workers is None:
            max_workers = min(os.cpu_count() or 1, WORKERS_MAX)
        calls_max = None
        if max_tasks_per_child is not None:
            calls_max = _whole(max_tasks_per_child, "max_tasks_per_child", 1, 2**31 - 1)
        workers_max = _whole(max_workers, "max_workers", 1, WORKERS_MAX)
        grace = check.seconds(kill_grace, "kill_grace")
        self._pool = _Pool(workers_max, grace, calls_max, _whole(nice, "nice", 0, NICE_MAX))
        weakref.finalize(self, self._pool.close).atexit = False

    @property
    def max_workers(self) -> int:
        """How many processes at most."""
        return self._pool.workers_max

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Has `fn(*args, **kwargs)` called in another process; like all arguments it travels by pickle.

        Functions of the program itself are found by running its file there once, as `__mp_main__`; those of
        a notebook are not.

        Raises:
            RuntimeError: it is shut down.
            RunnerError: (a `RuntimeError`) it belongs to the process that this one was forked from.
        """
        future: Future[T] = Future()
        try:
            payload = pickle.dumps((fn, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as raised:
            future.set_running_or_notify_cancel()
            future.set_exception(raised)
            return future
        self._pool.submit(future, payload)
        return future

    def stop(self, future: Future[Any]) -> None:
        """Stops a call: SIGTERM to its process and all that it started, and SIGKILL after `kill_grace`.

        In the body SIGTERM raises a `SystemExit`, so that `finally` cleans up. Returns at once. The future is
        done when nothing of the call runs any more, by a `concurrent.futures.BrokenExecutor` unless it came
        to an end of its own meanwhile; a call that had not begun is cancelled. What made itself a process
        group of its own escapes.
        """
        self._pool.stop(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, stop: bool = False) -> None:
        """Takes no further call, and ends the processes once those it has are made. Twice is fine.

        Args:
            wait (bool): return when all has ended, else at once.
            cancel_futures (bool): drop the calls that have not begun.
            stop (bool): drop those, and stop the others as `stop` does.
        """
        self._pool.close(cancel=cancel_futures, stop=stop)
        if wait:
            self._pool.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        # Whoever leaves by Ctrl-C doesn't mean to wait for hours of work.
        self.shutdown(stop=kind is not None and not issubclass(kind, Exception))
        return None

    def __repr__(self) -> str:
        return f"ProcessExecutor(max_workers={self.max_workers}, kill_grace={self._pool.kill_grace:g})"


def _whole(value: object, argument: str, least: int, most: int) -> int:
    text = f"{argument} is {excerpt(value)}; it must be a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(text)
    if not least <= value <= most:
        raise ArgumentError(text)
    return value


def _close_all() -> None:
    """At the end of the interpreter: first the runners, which may wait for calls, then what is left."""
    if (close_all := imported.found("cloaca.living", "_close_all")) is not None:
        close_all()
    pools = list(_pools)
    try:
        for pool in pools:
            pool.close(stop=True)
        for pool in pools:
            pool.join(pool.kill_grace + REAP_SECONDS)
    except KeyboardInterrupt:
        # It asks for the end that is under way: nobody is waited for, and all are told.
        with contextlib.suppress(KeyboardInterrupt):
            for pool in pools:
                pool.close(stop=True)


def _forked() -> None:
    for pool in list(_pools):
        pool.forget()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
