"""Says of a name that nothing has which one was meant, and which there are. Knows no registry.

Invariant: what it says is bounded, however many names there are; the core words it, as it does its own.
"""

from __future__ import annotations

from . import _cloaca
from .errors import ArgumentTypeError, excerpt
from .name import is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOOKED_MAX = 10_000
"""Among so many names the nearest is looked for, and so many are counted."""


def hint(name: str, kind: str, known: Iterable[str]) -> str:
    """`"; did you mean 'extract'? known tasks: extract, load"`, or only the second half."""
    text = _cloaca.hint(name if is_text(name) else "", kind, list(known))
    if "\\u{" not in text:
        return text
    import re

    # As Python spells it, and all else that is said; what is a backslash of the name itself stays.
    return re.sub(
        r"\\(?:\\|u\{([0-9a-f]+)\})",
        lambda found: ascii(chr(int(found[1], 16)))[1:-1] if found[1] else found[0],
        text,
    )


_MEANT = {
    "attempts": "retry_attempts",
    "backoff": "retry_backoff",
    "concurrency": "max_concurrent_tasks",
    "delay": "retry_delay_ms",
    "depends": "dependencies",
    "depends_on": "dependencies",
    "every": "poll_interval",
    "idempotency_key": "run_key",
    "interval": "poll_interval",
    "key": "run_key",
    "key_ttl": "run_key_ttl",
    "keys": "run_keys",
    "max_retries": "retry_attempts",
    "max_workers": "max_concurrent_tasks",
    "needs": "dependencies",
    "requires": "dependencies",
    "retries": "retry_attempts",
    "retry": "retry_attempts",
    "retry_delay": "retry_delay_ms",
    "schedule": "cron",
    "threads_max": "max_concurrent_tasks",
    "ticks_kept_days": "ticks_retention",
    "ticks_kept_rows": "ticks_max",
    "timeout": "workflow_timeout_seconds",
    "ttl": "run_key_ttl",
    "task_timeout": "task_timeout_seconds",
    "tz": "timezone",
    "upstream": "dependencies",
    "workers": "max_concurrent_tasks",
    "workflow_timeout": "workflow_timeout_seconds",
}
"""What others call it: nothing that is near in letters."""


def refuse_keywords(function: str, unknown: Mapping[str, object], known: Iterable[str] | None) -> None:
    """Raises `ArgumentTypeError` (a `TypeError`) for an unknown keyword, and says which was meant."""
    known = tuple(known or ())
    for keyword in unknown.keys() - set(known):
        # What it is called elsewhere says more than what looks like it.
        other = _MEANT.get(keyword, "")
        meant = hint("" if other in known else keyword, "arguments", known)
        if other in known:
            meant = f"; did you mean {other!r}?{meant.removeprefix(';')}"
        raise ArgumentTypeError(f"{function} got an unexpected keyword argument {excerpt(keyword)}{meant}")
