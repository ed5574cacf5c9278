"""Where the command `cloaca` begins: the one module of it outside the package, whose import takes longer than
all else that a short line does.

Invariant: Ctrl-C meanwhile ends it without a word, as it ends a program that has not begun.
"""

from __future__ import annotations

import signal


def main() -> int:
    """Carries the line of this process out, and returns what it exits with."""
    # Who is not to hear Ctrl-C, as a script's `cloaca run app.py &`, goes on not hearing it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cloaca.cli.main import begun

    return begun()
