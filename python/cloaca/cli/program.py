"""The user's program, imported. Invariant: what it prints meanwhile goes to standard error where standard
output holds answers."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

from ..errors import CloacaError, StoreError, excerpt
from ..living import only_looked_at
from ..plain import describe
from ..terminal import cleaned
from .parse import UsageError
from .show import aside
from .unimported import is_path, refuse_missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from ..workflow import Workflow


WORKER = "CLOACA_WORKER"
"""By which a process knows that it is one of several that serve a program."""
QUIET, TELLS = "quiet", "tells"
UNFIT = 70
"""What such a process exits with if the program cannot be imported."""
WRONG = 64
"""And if the line is wrong, which another one would find again. A body may end its process with 2."""
REFUSED = 69
"""And if its store cannot be opened, nor in a moment."""


class ProgramError(CloacaError):
    """The program cannot be imported; the text says why."""


def split(text: str) -> tuple[str, str | None]:
    """A module or file, and the name behind the colon."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"MODULE is {excerpt(text)}, which is no text in UTF-8; rename the file, or set LC_ALL=C.UTF-8"
        ) from None
    module, mark, name = text.partition(":")
    if os.sep == "\\" and len(module) == 1:  # a drive of Windows
        module, mark, name = text.rpartition(":") if text.count(":") > 1 else (text, "", "")
    if not module or (mark and not name):
        raise UsageError(f"MODULE is {excerpt(text)}; write a module or a file, such as app or app.py:runner")
    if not is_path(module) and "" in module.split("."):
        raise UsageError(
            f"there is no module {excerpt(module)}; name the program's module or file, such as app.py"
        )
    return module, name or None


def imported(module: str, *, serves: bool = False) -> ModuleType:
    """The module of that name, or of that file, with its folder in front of `sys.path`. Unless it `serves`,
    the runners that it makes meanwhile begin nothing, and what it writes to standard output goes to standard
    error.

    Raises:
        UsageError: there is no such module.
        ProgramError: importing it failed; its traceback has gone to standard error.
    """
    refuse_missing(module)
    folder, name, path = os.getcwd(), module, None
    if is_path(module):
        path = os.path.abspath(module)
        folder, name = os.path.dirname(path), os.path.basename(path).removesuffix(".py")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with contextlib.ExitStack() as stack:
            if not serves:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
                stack.enter_context(only_looked_at())
            found = _import(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {excerpt(name)} here; name the program's module or file, such as app.py"
            ) from None
        raise ProgramError(f"{module} cannot be imported: {error}; install what it needs") from None
    except SystemExit as left:
        from .told import Told

        if isinstance(left, Told):
            raise
        raise ProgramError(
            f"{module} leaves while it is imported, by sys.exit or the like; put what it does below"
            ' if __name__ == "__main__":'
        ) from None
    except Exception as error:
        if isinstance(error, StoreError) and _is_of_opening(error):
            raise
        if not is_quiet():
            aside(cleaned("".join(_traceback(error))))
        raise ProgramError(
            f"{module} cannot be imported: {describe(error)}; its traceback is above"
        ) from None
    own = getattr(found, "__file__", None)
    if path is not None and (own is None or not os.path.samefile(own, path)):
        where = "of Python's own" if own is None else f"at {own}"
        raise UsageError(
            f"{module} is called like module {name} {where}, which Python takes; rename the file"
        )
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except BaseException as error:
        from .told import Told, is_cause_of, say

        if is_cause_of(error):
            say(error)
            raise Told from None
        raise


def _is_of_opening(error: BaseException) -> bool:
    """Whether that is why a runner cannot open its store, which is no fault of the program: where it stands
    tells nobody more."""
    import traceback

    from ..runner import DefaultRunner

    opens = DefaultRunner._opened.__code__
    told = [error] if error.__cause__ is None else [error, error.__cause__]
    return any(frame.f_code is opens for each in told for frame, _ in traceback.walk_tb(each.__traceback__))


def is_quiet() -> bool:
    """Whether another process that imports the program at the same time says what is wrong with it."""
    return os.environ.get(WORKER) == QUIET


def _traceback(error: BaseException) -> Iterator[str]:
    """What an import raised and where, without the frames of what imports."""
    import traceback

    told = traceback.TracebackException.from_exception(error)
    several: list[traceback.TracebackException | None] = [told]
    for each in several:
        if each is None:
            continue
        frames = [frame for frame in each.stack if not _imports(frame.filename)]
        each.stack = traceback.StackSummary.from_list(frames)
        several += [each.__cause__, each.__context__]
    return told.format()


def _imports(path: str) -> bool:
    return path.startswith("<frozen importlib") or path in (__file__, importlib.__file__)


def workflow_of(module: str | None, name: str | None) -> Workflow:
    """A workflow of the program; without a name its only one.

    Raises:
        MissingError: the program has no such workflow.
        UsageError: no program is named, or it has several workflows.
    """
    from .. import registry
    from ..reading.store import unknown

    if module is None:
        raise UsageError("only the program knows its workflows; give --app MODULE, or [tool.cloaca] app")
    imported(split(module)[0])
    known = registry.names()
    if name is None and len(known) != 1:
        shown = ", ".join(excerpt(each) for each in known[:10]) or "none"
        raise UsageError(f"which workflow? {module} has {shown}")
    found = (
        registry.workflow(known[0]) if name is None else registry.workflow(name) if name in known else None
    )
    if found is None:
        raise unknown("workflow", name or "", "workflows", known)
    return found
