"""Says of a name that nothing has which one was meant, and which there are. Knows no registry.

Invariant: what it says is bounded, however many names there are; the core words it, as it does its own.
"""

from __future__ import annotations

from functools import wraps

from . import _cloaca
from .errors import ArgumentTypeError, excerpt
from .name import is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

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
    "after": "delay",
    "attempts": "retry_attempts",
    "backoff": "retry_backoff",
    "concurrency": "max_concurrent_tasks",
    "cursor": "value",
    "delay": ("retry_delay_ms", "base"),
    "depends": "dependencies",
    "depends_on": "dependencies",
    "every": "poll_interval",
    "grace": ("kill_grace", "timeout"),
    "idempotency_key": "run_key",
    "initial": "base",
    "initial_delay": "base",
    "interval": "poll_interval",
    "key": "run_key",
    "key_ttl": "run_key_ttl",
    "keys": "run_keys",
    "last": "limit",
    "limit": "last",
    "max_processes": "max_workers",
    "max_retries": "retry_attempts",
    "max_workers": "max_concurrent_tasks",
    "multiplier": "factor",
    "name": ("workflow", "trigger_name", "schedule_id"),
    "needs": "dependencies",
    "processes": "max_workers",
    "requires": "dependencies",
    "retries": "retry_attempts",
    "retry": "retry_attempts",
    "retry_delay": "retry_delay_ms",
    "schedule": ("cron", "schedule_id"),
    "seconds": ("delay", "timeout", "shutdown_timeout"),
    "since": "start",
    "task_timeout": "task_timeout_seconds",
    "threads_max": "max_concurrent_tasks",
    "ticks_kept_days": "ticks_retention",
    "ticks_kept_rows": "ticks_max",
    "timeout": ("workflow_timeout_seconds", "shutdown_timeout"),
    "trigger": "trigger_name",
    "ttl": "run_key_ttl",
    "tz": "timezone",
    "upstream": "dependencies",
    "workers": ("max_concurrent_tasks", "max_workers"),
    "workflow_timeout": "workflow_timeout_seconds",
}
"""What others call it: nothing that is near in letters. Of several it is the first that is known there."""


def refuse_keywords(function: str, unknown: Mapping[str, object], known: Iterable[str] | None) -> None:
    """Raises `ArgumentTypeError` (a `TypeError`) for an unknown keyword, and says which was meant."""
    known = tuple(known or ())
    for keyword in unknown.keys() - set(known):
        # What it is called elsewhere says more than what looks like it.
        others = _MEANT.get(keyword, ())
        others = (others,) if isinstance(others, str) else others
        other = next((name for name in others if name in known), None)
        meant = hint(keyword if other is None else "", "arguments", known)
        if other is not None:
            meant = f"; did you mean {other!r}?{meant.removeprefix(';')}"
        raise ArgumentTypeError(f"{function} got an unexpected keyword argument {excerpt(keyword)}{meant}")


def says_keywords(called: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Has a method that is called so refuse an unknown keyword by `refuse_keywords`, before it is told of an
    argument that is missing because of that."""

    def saying(method: Callable[P, T]) -> Callable[P, T]:
        code = method.__code__
        known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]

        @wraps(method)
        def checked(*arguments: P.args, **keywords: P.kwargs) -> T:
            if keywords.keys() - known:
                refuse_keywords(called, keywords, known)
            return method(*arguments, **keywords)

        return checked

    return saying
