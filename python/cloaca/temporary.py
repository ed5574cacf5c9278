"""Where SQLite can put its temporary files: without such a folder it can neither delete much at once nor sort
much.

Decides nothing. Invariant: it asks what SQLite asks, and writes nothing.
"""

from __future__ import annotations

import os

FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp", ".")
"""Where it looks after `SQLITE_TMPDIR` and `TMPDIR`."""


def trouble() -> str | None:
    """What is wrong, and what to do; `None` if there is a folder, or the system knows by itself."""
    if os.name != "posix":
        return None
    named = (os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR"))
    if any(folder and _is_writable(folder) for folder in (*named, *FOLDERS)):
        return None
    return (
        "no folder for temporary files can be written to, so that retention and prune stop half-way, and"
        " large queries fail: point SQLITE_TMPDIR at one"
    )


def _is_writable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
