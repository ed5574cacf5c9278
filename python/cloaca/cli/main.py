"""The command's beginning and end: what it exits with, and how what went wrong is said.

Invariant: whatever happens, standard output holds answers only, standard error one sentence with a way out.
"""

from __future__ import annotations

import os
import signal
import sys

from .. import imported
from ..errors import ArgumentError, CloacaError, StoreError, UrlError
from ..plain import describe
from ..terminal import clean, cleaned
from . import ending
from .parse import UsageError, parse
from .show import Show, aside, let_go

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OK, FAILED, USAGE, STORE, NOT_FOUND = range(5)
INTERRUPTED = 130
"""As a shell tells the end by SIGINT."""
CUT_OFF = 141
"""As a shell tells the end by SIGPIPE: who read the answer has gone."""


def main(words: Sequence[str] | None = None) -> int:
    """Carries a line out, and returns what the process exits with."""
    ending.is_whole_process = words is None
    code = _code(list(sys.argv[1:] if words is None else words))
    if (ends := imported.found("cloaca.cli.told", "ends")) is not None:
        ends(code)
    return code


def begun() -> int:
    """The same for this process's own line, until which Ctrl-C ended it without a word, and so it does behind
    it."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _code(words: list[str]) -> int:
    _open_streams()
    try:
        code = _carried_out(words)
        sys.stdout.flush()
    except BrokenPipeError:
        let_go(sys.stdout)
        return CUT_OFF
    except KeyboardInterrupt:
        return INTERRUPTED
    except ending.Left as left:
        return left.code
    except Exception as error:
        return _told(error)
    return code


def _open_streams() -> None:
    """Without one of the three, as by `<&-`, there is nothing to read, or nobody to tell."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (as long as the process)


def _carried_out(words: list[str]) -> int:
    found = parse(words)
    if isinstance(found, str):
        sys.stdout.write(found)
        return OK if words else USAGE
    command, arguments = found
    module, _, function = command.does.partition(":")
    from importlib import import_module

    does: Callable[..., int] = getattr(import_module(f"cloaca.cli.{module}"), function)
    show = Show(as_json=arguments.json, utc=arguments.utc, is_of_change=module == "change")
    if module != "change":
        return does(arguments, show)
    from ..audit import acting, user

    with acting(user(), "cli"):
        code = does(arguments, show)
    return CUT_OFF if show.is_cut_off else code


def _told(error: Exception) -> int:
    import contextlib

    with contextlib.suppress(OSError):
        sys.stdout.flush()
    text = describe(error) if _is_a_fault(error) else str(error)
    if _is_a_fault(error):
        import traceback

        aside(cleaned("".join(traceback.format_exception(error))))
    aside(f"cloaca: {clean(text)}\n")
    return code_of(error)


def code_of(error: Exception) -> int:
    """What the process exits with because of that."""
    if isinstance(error, UsageError | UrlError | ArgumentError):
        return USAGE
    if isinstance(error, StoreError):
        return STORE
    if isinstance(error, CloacaError) and isinstance(error, LookupError):
        return NOT_FOUND
    return FAILED


def _is_a_fault(error: Exception) -> bool:
    """Whether nobody expected that: it is told with its traceback, to be reported."""
    return not isinstance(error, CloacaError | OSError)
