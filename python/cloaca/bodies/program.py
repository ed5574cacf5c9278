"""Where a process that is not the program finds the program's own file, and how it imports that.

Decides whether a function of `__main__` can be found again elsewhere.
Invariant: the program is run at most once in a process that is not its own, and never as `__main__`.
"""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    Program = tuple[str, str]
    """How to run the program again: `("name", module)` or `("path", file)`."""

MAIN = "__main__"
NAME = "__mp_main__"
"""What the program is called there: as `multiprocessing` calls it, whose guard every program knows."""

_lock = threading.RLock()


def here() -> Program | None:
    """How to run this process's program again; none for a notebook, a prompt, or `python -c`."""
    import os

    if NAME in sys.modules:
        main: ModuleType | None = sys.modules[NAME]
    else:
        main = sys.modules.get(MAIN)
    spec = getattr(main, "__spec__", None)
    if (name := getattr(spec, "name", None)) is not None:
        return "name", name
    path = getattr(main, "__file__", None)
    if path is None or path.startswith("<") or hasattr(main, "__IPYTHON__") or _is_notebook(main):
        return None
    path = os.path.abspath(path)
    return ("path", path) if os.path.isfile(path) else None


def _is_notebook(main: ModuleType | None) -> bool:
    # A kernel's `__main__` has `get_ipython`, and may have borrowed the launcher's file.
    return hasattr(main, "get_ipython")


def imported(program: Program | None) -> ModuleType:
    """The program's module, run here under another name than `__main__` unless it has been.

    Raises:
        ImportError: it has no file, or that is not on this machine. Otherwise what it raises itself.
    """
    import os
    import runpy
    from types import ModuleType

    with _lock:
        if (known := sys.modules.get(NAME)) is not None:
            return known
        if program is None:
            raise ImportError(
                "it is defined in a notebook or at a prompt, which no other process can import; move it into"
                " a module, a file of its own beside the notebook, and import it from there"
            )
        if program == here():
            # An executor of this very process, or of one that it has forked.
            return sys.modules[MAIN]
        kind, place = program
        if kind == "path" and not os.path.isfile(place):
            raise ImportError(
                f"the program {place} is not on this machine; move the function into a module that is"
            )
        module = ModuleType(NAME)
        module.__file__ = place if kind == "path" else None
        sys.modules[NAME] = module
        try:
            if kind == "name":
                names = runpy.run_module(place, run_name=NAME, alter_sys=True)
            else:
                names = runpy.run_path(place, run_name=NAME)
        except BaseException:
            sys.modules.pop(NAME, None)
            raise
        # What `runpy` ran in is taken apart when it returns; functions keep its names alive.
        module.__dict__.update(names)
        sys.modules[NAME] = module
        return module
