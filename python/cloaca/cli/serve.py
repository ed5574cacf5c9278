"""The commands that serve a program: in this process, in several, or in one that starts again when its files
change.

Longer than a room should be: three ways to serve that end alike, by the same signals.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from importlib.util import find_spec

from .. import living, stop
from ..check import on_server
from ..check import run_id as checked_run_id
from ..errors import ArgumentError, ArgumentTypeError, CloacaError, StoreError, excerpt
from ..terminal import clean
from . import ending, outage, told
from .children import command, drained, end, ended, how_it_ended
from .lifeline import Lifeline, hold, is_held
from .main import OK, STORE, USAGE, code_of
from .parse import UsageError
from .program import REFUSED, UNFIT, WORKER, WRONG, ProgramError, imported, is_quiet, split
from .show import Show, aside
from .unimported import refuse_missing
from .where import ENVIRONMENT, NothingFound, database, is_same, named, program, settled, shown, tell_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from argparse import Namespace
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..runner import DefaultRunner
    from ..telemetry.listening import Listening

HELD_SECONDS = 10.0
"""What a program makes begins after so long, if it is still being imported then."""
LOOK_SECONDS = 0.3
"""So often it is looked whether a file has changed."""
OPEN_SECONDS = 1.5
"""The page is there after so long."""
LISTEN_SECONDS = 1.0
"""So often a worker looks whether a port that was taken is free."""
FILES_MAX = 5_000
"""So many of a program's files are looked at."""
WORKERS_MAX = 256
PORT_MAX = 65_535
_LEFT_OUT = ("node_modules", "__pycache__", "site-packages")


def run(arguments: Namespace, show: Show) -> int:
    """Serves a program, or shows a run."""
    target = arguments.module
    if target is not None and _is_run(target):
        from .tree import show as show_run

        arguments.run = target
        return show_run(arguments, show)
    return told.over(lambda: _run(arguments))


def _run(arguments: Namespace) -> int:
    target = program(arguments.module)
    if target is None:
        raise UsageError("what to run? Name a module or a file, such as app.py, or [tool.cloaca] app")
    split(target)
    for option in ("context", "diff", "traceback", "wait"):
        if getattr(arguments, option):
            raise UsageError(
                f"--{option} is of a run, which is named by its whole id; {excerpt(target)} is a program"
            )
    if not 0 < arguments.workers <= WORKERS_MAX:
        raise UsageError(f"--workers is {arguments.workers}; it is a number from 1 to {WORKERS_MAX}")
    url = settled(arguments.database)
    refuse_missing(*split(target))
    listens = None if arguments.metrics is None else _address(arguments.metrics, arguments.workers)
    if arguments.reload:
        if arguments.workers > 1:
            raise UsageError("--reload serves in one process; leave --workers out")
        return _reloading(command(target, url, arguments.log, listens), target)
    if arguments.workers > 1:
        from .workers import serve

        if listens is not None:
            _refuse_taken(listens, arguments.workers)
        return serve(target, url, arguments.workers, arguments.log, listens)
    return _serve(target, url, arguments.log, listens)


def dev(arguments: Namespace, show: Show) -> int:
    """Serves a program, and starts it again when it changes."""
    return told.over(lambda: _dev(arguments))


def _dev(arguments: Namespace) -> int:
    target = program(arguments.module)
    if target is None:
        raise UsageError("what to run? Name a module or a file, such as app.py, or [tool.cloaca] app")
    refuse_missing(*split(target))
    _refuse_port(arguments.port)
    url = settled(arguments.database)
    beside = Beside(url, arguments.port, arguments.open, arguments.log)
    return _reloading(command(target, url, arguments.log), target, beside)


def page(arguments: Namespace, show: Show) -> int:
    """Serves the page of a store."""
    return told.over(lambda: _page(arguments))


def _page(arguments: Namespace) -> int:
    from ..ui.__main__ import LOCAL, serve

    hold()
    host, prefix = arguments.host or LOCAL[0], arguments.prefix or ""
    try:
        url = arguments.url or database(arguments.database)
        return serve(
            url,
            host=host,
            port=arguments.port,
            prefix=prefix,
            token=arguments.token,
            acts=arguments.act,
            log=arguments.log,
        )
    except ImportError as error:
        raise UsageError(str(error)) from error


def _refuse_port(port: int) -> None:
    """The page beside a program would be missed only after a while."""
    from ..ui.__main__ import LOCAL, listening

    listening(LOCAL[0], port).close()


class Beside:
    """The page beside a program: it begins once the store is there, and ends with the program."""

    def __init__(self, url: str | None, port: int, opens: bool, log: str | None) -> None:
        self.log = log
        self.url = url
        self.port = port
        self.opens = opens
        self.process: subprocess.Popen[bytes] | None = None
        self.is_off = False

    def look(self, lifeline: Lifeline) -> None:
        """Begins, if it can and has not."""
        if self.process is not None or self.is_off:
            return
        if any(find_spec(name) is None for name in ("starlette", "uvicorn", "jinja2")):
            self.is_off = True
            aside('cloaca: the page needs more; pip install "cloaca[ui]"\n')
        elif (url := _known(self.url)) is not None:
            command = [sys.executable, "-P", "-m", "cloaca", "ui", url, "--port", str(self.port), "--act"]
            command += [] if self.log is None else ["--log", self.log]
            self.process = lifeline.begin(command)
            if self.opens:
                import webbrowser

                threading.Timer(OPEN_SECONDS, webbrowser.open, [f"http://127.0.0.1:{self.port}/"]).start()

    def end(self, lifeline: Lifeline) -> None:
        """Ends it."""
        if self.process is not None:
            self.process.terminate()
            ended(self.process, lifeline)


def _known(url: str | None) -> str | None:
    """The store, once it is there."""
    import io

    from ..reading import Reader

    with contextlib.suppress(CloacaError), contextlib.redirect_stderr(io.StringIO()):
        known = database(url)
        Reader(known).close()
        return known
    return None


def _is_run(text: str) -> bool:
    try:
        checked_run_id(text)
    except (ArgumentError, ArgumentTypeError):
        return False
    return True


def _address(text: str, many: int) -> tuple[str, int]:
    """Where the first of so many processes listens."""
    if find_spec("prometheus_client") is None:
        raise UsageError('--metrics needs prometheus_client; pip install "cloaca[prometheus]"')
    host, colon, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX - many + 1
    if not is_port or (colon and not host):
        raise UsageError(
            f"--metrics is {excerpt(text)}; it is a port, or HOST:PORT, with a port for each worker: at most"
            f" {PORT_MAX}"
        )
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _listening(listens: tuple[str, int]) -> Listening | None:
    """What listens there; `None` if a worker cannot now: the port may be held by what one before has left."""
    from ..telemetry.listening import Listening

    host, port = listens
    try:
        return Listening(host, port)
    except OSError as error:
        text = f"--metrics: nobody can listen at {excerpt(host)}, port {port}: {error.strerror or error}"
        if WORKER not in os.environ:
            raise UsageError(text) from error
        later = "this worker serves without, and listens once that is free"
        logging.getLogger("cloaca").error("%s; %s", text, later)
        return None


def _refuse_taken(listens: tuple[str, int], many: int) -> None:
    """Before anything is begun: a worker would go on without."""
    for port in range(listens[1], listens[1] + many):
        listening = _listening((listens[0], port))
        if listening is not None:
            listening.server_close()


def _listen_later(listens: tuple[str, int], runner: DefaultRunner) -> None:
    from ..telemetry.listening import Listening

    while True:
        time.sleep(LISTEN_SECONDS)
        with contextlib.suppress(OSError):
            Listening(*listens).begin(runner)
            logging.getLogger("cloaca").info("--metrics: listens at %s, port %d now", *listens)
            return


def _serve(target: str, url: str | None, log: str | None, listens: tuple[str, int] | None) -> int:
    hold()
    try:
        return _served(target, url, log, listens)
    except KeyboardInterrupt:
        if stop.is_told:
            # A third one, as a runner was shut down at once.
            return OK
        raise
    except CloacaError as error:
        if told.is_cause_of(error):
            raise
        if isinstance(error, NothingFound) and is_held() and WORKER not in os.environ:
            # No file of the program that changes names a store.
            aside(f"cloaca: {clean(str(error))}\n")
            return WRONG
        code = UNFIT if isinstance(error, ProgramError) else _TOLD_AS.get(code_of(error))
        if WORKER not in os.environ or code is None:
            raise
        if not is_quiet():
            aside(f"cloaca: {clean(str(error))}\n")
        return code


_TOLD_AS = {USAGE: WRONG, STORE: REFUSED}
"""By what a worker tells its supervisor how it would have ended: a program may end with any code."""


def _served(target: str, url: str | None, log: str | None, listens: tuple[str, int] | None) -> int:
    module, name = split(target)
    meant = _Meant(url, target)
    tell_program(url)
    listening = None if listens is None else _listening(listens)
    # Nothing begins before it is known that the line is right. Without a name the program has one runner;
    # with one, others may be on whatever store.
    with (
        meant.heeded(),
        living.refusing(meant.awaits if name is not None else meant.opens),
        living.holding(meant.is_other),
    ):
        loaded = _imported(module)
    if stop.is_told or told.heard:
        # It has served itself, or let nothing pass, and was told to end.
        return OK
    if log == "json":
        from .logged import install

        install()
    elif not logging.getLogger().handlers and not logging.getLogger("cloaca").handlers:
        from .logged import plain

        plain("%(asctime)s %(levelname)s %(message)s")
    runner = _runner(loaded, module, name, meant)
    if stop.is_told or told.heard:
        return OK
    if isinstance(runner, int):
        # A function that has served by itself.
        return runner
    if WORKER in os.environ and runner._engine.path is None and not on_server(runner._url):
        raise UsageError(
            f"the store of {target} is in memory, which each worker has for itself, so that each would poll"
            " every trigger; name a file or a server, or leave --workers out"
        )
    _begin(module)
    meant.say_what_is_kept()
    if listening is not None:
        listening.begin(runner)
    elif listens is not None:
        threading.Thread(target=_listen_later, args=(listens, runner), daemon=True).start()
    store = meant.shown(_store_of(runner))
    runner._on_serving = lambda: logging.getLogger("cloaca").info(_serving(runner), target, store)
    runner.run_forever()
    return OK


def _serving(runner: DefaultRunner) -> str:
    """What it does, of a program and its store."""
    if not runner._works:
        return "%s is a client of %s, and serves nothing (work=False); Ctrl-C ends it"
    if runner._paused:
        return "%s is open on %s and paused: nothing begins until resume(); Ctrl-C ends it"
    return "serving %s on %s; Ctrl-C drains and ends"


class _OtherStore(UsageError):
    """The program's runner is on another store than the line names."""


class _Meant:
    """The store that a line names, for a program that may name its own, and go to another folder."""

    def __init__(self, given: str | None, target: str) -> None:
        self._named = named(given)
        self._target = target
        self._folder = os.getcwd()
        self._refused: _OtherStore | None = None
        self._said = 0

    def url(self) -> str:
        """It, or what is guessed if none is named.

        Raises:
            UsageError: none is named, and it cannot be guessed.
        """
        if self._named is not None:
            return self._named[1]
        try:
            return database(None, self._folder)
        except NothingFound as missing:
            raise NothingFound(f"{missing}; --database runs.db makes one here") from None

    def shown(self, url: str) -> str:
        """What messages call a store."""
        return shown(url, self._folder)

    def is_other(self, url: str) -> bool:
        """Whether that is not the store that is meant."""
        return self._named is not None and not is_same(self._named[1], url)

    def awaits(self, url: str) -> None:
        """Returns once the server of a store is there, if it has one."""
        outage.awaited(url, self._target, is_quiet())

    def opens(self, url: str) -> None:
        """The program is about to open that: refuses it, or waits for its server."""
        try:
            self.refuse(url)
        except _OtherStore as refused:
            self._refused = refused
            if threading.current_thread() is not threading.main_thread() and ending.is_whole_process:
                # Whatever the main one waits for meanwhile.
                os.kill(os.getpid(), signal.SIGTERM)
            # The program does not go on: this is no error to be handled, and threads say nothing of it.
            raise SystemExit(USAGE) from None
        self.awaits(url)

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """What was refused in the block is raised as it ends, whatever the program has made of that."""
        try:
            yield
        finally:
            if self._refused is not None:
                # Of what it told itself for that nobody else is to hear.
                told.heard.clear()
                raise self._refused from None

    def refuse(self, url: str) -> None:
        """Raises `_OtherStore` if that is not the store that is meant."""
        if self._named is None or not self.is_other(url):
            return
        by, meant = self._named
        own = f"the runner of {self._target} is on {self.shown(url)}"
        raise _OtherStore(
            f"{by} names {self.shown(meant)}, and {own}: leave one of them out, or have the"
            f" program open what {ENVIRONMENT} names"
        )

    def refuse_opened(self, runner: DefaultRunner) -> None:
        """The same of a runner, which does not go on then: a store that is made by now can be told apart."""
        try:
            self.refuse(_store_of(runner))
        except _OtherStore:
            runner.shutdown(0.0)
            raise

    def say_what_is_kept(self) -> None:
        """Says which other runners of the program begin nothing."""
        if self._named is None:
            return
        by, meant = self._named
        said, self._said = self._said, len(living.kept)
        for runner in living.kept[said:]:
            logging.getLogger("cloaca").warning(
                "a runner of %s is on %s and stays paused: %s names %s; leave that out to serve both",
                self._target,
                self.shown(_store_of(runner)),
                by,
                self.shown(meant),
            )


def _imported(module: str) -> object:
    """The program. One that waits for its end as it is imported, as for `python app.py`, serves meanwhile."""
    with _letting_go():
        return imported(module, serves=True)


@contextlib.contextmanager
def _letting_go() -> Iterator[None]:
    """Those that are held in the block begin in it, if it goes on."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(HELD_SECONDS):
            living.let_go()

    threading.Thread(target=look, name="cloaca-held", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _begin(module: str) -> None:
    """Those that were held until the line was known to be right."""
    try:
        living.let_go()
    except StoreError:
        raise
    except CloacaError as error:
        raise ProgramError(f"{module} cannot be served: {error}") from None


def _store_of(runner: DefaultRunner) -> str:
    """Its store as it is named from everywhere: the program may be in another folder since it was made."""
    path = runner._engine.path
    return runner._url if path is None else os.fspath(path)


def _runner(loaded: object, module: str, name: str | None, meant: _Meant) -> DefaultRunner | int:
    """What is to be served, or the exit code of a function that has served by itself."""
    from .. import registry
    from ..runner import DefaultRunner

    if name is not None:
        found = getattr(loaded, name, None)
        made = found
        if callable(found) and not isinstance(found, DefaultRunner):
            _refuse_asking(found, module, name)
            made = _called(found, f"{module}:{name}", meant)
            if (told.heard or stop.is_told) and not isinstance(made, DefaultRunner):
                # Whatever it leaves as it was told to end.
                return OK
            if living.has_made and (made is None or type(made) is int):
                if living.held:
                    raise UsageError(
                        f"{module}:{name} makes a runner, and neither returns it nor has it serve; return it"
                    )
                return made or OK
        if not isinstance(made, DefaultRunner):
            raise UsageError(
                f"{module} has no runner {excerpt(name)}: that is {excerpt(made)}; name a DefaultRunner, or a"
                " function that makes one or serves by itself"
            )
        meant.refuse_opened(made)
        return made
    runners = living.made()
    if len(runners) > 1:
        raise UsageError(f"{module} makes {len(runners)} runners; say which one by {module}:NAME")
    if runners:
        meant.refuse_opened(runners[0])
        return runners[0]
    if not registry.triggers and not registry.names():
        raise UsageError(
            f"{module} declares no trigger and no workflow, and makes no runner; is it the program?"
        )
    hidden = _hidden_runner(loaded)
    try:
        found_url = meant.url()
    except UsageError as error:
        raise type(error)(f"{error}{f'. {module} {hidden}' if hidden else ''}") from None
    if hidden:
        aside(f"cloaca: {module} {hidden}; it is served with default settings\n")
    meant.awaits(found_url)
    return DefaultRunner(found_url)


def _called(found: Callable[..., object], shown: str, meant: _Meant) -> object:
    """What a function returns that is called to make a runner, or to serve by itself."""
    meant.say_what_is_kept()
    before = living.made()
    with (
        meant.heeded(),
        living.refusing(meant.opens),
        living.holding(meant.is_other),
        _letting_go(),
    ):
        made = found()
        if not hasattr(made, "cr_code"):
            return made
        made = _awaited(made)
    if made is None or type(made) is int:
        return made
    for runner in living.made():
        if runner not in before:
            runner.shutdown(0.0)
    if told.heard or stop.is_told:
        return None
    raise UsageError(
        f"{shown} is async, and its event loop is over once it returns, here {excerpt(made)}: let it serve by"
        " itself and return nothing, or have a function without async make the runner"
    )


def _awaited(made: Any) -> object:
    """What a coroutine comes to, as by `asyncio.run`."""
    import asyncio

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        raised = context.get("exception")
        if raised is not None and (told.heard or stop.is_told):
            told.say(raised)
        else:
            loop.default_exception_handler(context)

    with asyncio.Runner() as loop:
        # Of a program that sets one of its own, that is the one that is heard.
        loop.get_loop().set_exception_handler(handle)
        return loop.run(made)


def _refuse_asking(found: Callable[..., object], module: str, name: str) -> None:
    """Of what is called to make a runner nobody knows what else it is to be given; a task is called so."""
    import inspect

    try:
        inspect.signature(found).bind()
    except ValueError:  # it tells nothing of that
        return
    except TypeError as error:
        raise UsageError(
            f"{module} has no runner {excerpt(name)}: that is called with arguments ({error}); name a"
            " DefaultRunner, or a function without any that makes one or serves by itself"
        ) from None


def _hidden_runner(loaded: object) -> str | None:
    """What is to be said of a program that makes its runner only where it is the main one."""
    import ast
    import inspect

    try:
        tree = ast.parse(inspect.getsource(loaded))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError):
        return None
    names = {"DefaultRunner", "with_schema"}
    for block in tree.body:
        if not isinstance(block, ast.If) or "__name__" not in ast.dump(block.test):
            continue
        calls = (node.func for node in ast.walk(block) if isinstance(node, ast.Call))
        if any(getattr(each, "attr", getattr(each, "id", None)) in names for each in calls):
            return (
                "makes its runner under `if __name__ == ...`, which is not carried out here: run it by"
                " python, or move that into a function and give its name, as in app.py:make_runner"
            )
    return None


def _reloading(line: list[str], target: str, beside: Beside | None = None) -> int:
    lifeline = Lifeline()
    with told.noting():
        try:
            return _reloaded(line, target, beside, lifeline)
        finally:
            if beside is not None:
                beside.end(lifeline)


def _reloaded(line: list[str], target: str, beside: Beside | None, lifeline: Lifeline) -> int:
    module = split(target)[0]
    folder = os.path.dirname(os.path.abspath(module)) if module.endswith(".py") else os.getcwd()
    seen = _files(folder)
    child = lifeline.begin(line)
    is_first, has_ended = True, False
    while not told.heard:
        told.pause(LOOK_SECONDS)
        if not has_ended and (code := child.poll()) is not None:
            if is_first and code == WRONG:
                return USAGE
            has_ended = True
            text = f"{excerpt(target)} (process {child.pid}) {how_it_ended(code)}"
            aside(f"cloaca: {text}; it is started again when one of its files changes\n")
        if beside is not None:
            beside.look(lifeline)
        if told.heard or (now := _files(folder)) == seen or told.heard:
            continue
        changed = sorted(path for path, _ in now ^ seen)
        seen = now
        aside(f"cloaca: {excerpt(os.path.relpath(changed[0], folder))} changed; starting again\n")
        child.terminate()
        drained(child, lifeline)
        if told.heard:  # a second time would end the drain
            ended(child, lifeline)
            return OK
        child = lifeline.begin(line)
        is_first = has_ended = False
    end([child], told.heard[0])
    ended(child, lifeline)
    return OK


def _files(folder: str) -> set[tuple[str, int]]:
    """The program's files with when they changed, without what is hidden or installed."""
    found: set[tuple[str, int]] = set()
    for path, folders, names in os.walk(folder):
        folders[:] = [
            each
            for each in folders
            if not each.startswith(".")
            and each not in _LEFT_OUT
            and not os.path.exists(os.path.join(path, each, "pyvenv.cfg"))
        ]
        for name in names:
            if name.endswith((".py", ".toml")):
                file = os.path.join(path, name)
                try:
                    found.add((file, os.stat(file).st_mtime_ns))
                except OSError:  # it has just gone
                    continue
                if len(found) >= FILES_MAX:
                    return found
        if told.heard:
            break
    return found
