"""Decides what may be a name: of a workflow, a task, a trigger. Knows no registry.

Invariant: a name that passed can be stored, and be a part of `tenant::package::workflow::task`.
"""

from __future__ import annotations

from .errors import TriggerError, WorkflowError, excerpt, typed

NAME_CHARS_MAX = 255
SEPARATOR = "::"


def checked_name(
    value: object, argument: str, error: type[WorkflowError | TriggerError] = WorkflowError
) -> str:
    """The value itself, if it is a name.

    Raises:
        WorkflowError: (or the given class) it is no `str`, empty, longer than 255, or holds `::` or a lone
            surrogate.
    """
    if not isinstance(value, str):
        raise error(f"{argument} is {excerpt(value)}, {typed(value)}; it must be a str")
    if not value.strip():
        raise error(f"{argument} is {excerpt(value)}; it must not be empty")
    if len(value) > NAME_CHARS_MAX:
        raise error(
            f"{argument} is {excerpt(value)}, {len(value)} characters; at most {NAME_CHARS_MAX} are allowed"
        )
    if SEPARATOR in value:
        raise error(
            f"{argument} is {excerpt(value)}; it must not contain {SEPARATOR}, which separates namespaces"
        )
    if not is_text(value):
        raise error(f"{argument} is {excerpt(value)}; it holds a lone surrogate, which cannot be stored")
    return str(value)


def is_text(value: str) -> bool:
    """Whether a `str` can be stored: it holds no lone surrogate."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def written_out(value: str) -> str:
    """A key of an event as text that can be stored: what `os.fsdecode` makes of a name that is not UTF-8 is
    written out (`\\udce9`). A key only has to be the same each time; to refuse it would refuse the whole
    poll, each time."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def already_kept(name: str, new_name: str) -> str:
    """Why something isn't renamed."""
    return (
        f"something is kept as {excerpt(new_name)} already, so {excerpt(name)} keeps its name; if it is only"
        f" what a program with the new name began, end that, forget {excerpt(new_name)}, and rename again"
    )


def unheard(name: str) -> str:
    """That a trigger is told of no ends of runs."""
    return f"trigger {excerpt(name)} is not told of ends of runs, as it has no on_run=: none waits for it"
