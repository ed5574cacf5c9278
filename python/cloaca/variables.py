"""Settings from the environment: `var` and `var_or`. Reads `os.environ` when asked, never before."""

from __future__ import annotations

import os

from .errors import ArgumentTypeError, VariableError, excerpt

PREFIX = "CLOACINA_VAR_"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Default = TypeVar("Default")


def var(name: str) -> str:
    """The environment variable `CLOACINA_VAR_<NAME>`; the name is tried as it is, then in upper case.

    Raises:
        VariableError: (a `KeyError`) it is not set.
    """
    value = _read(name)
    if value is None:
        raise VariableError(
            f"the environment variable {PREFIX}{str(name).upper()[:80]} is not set; set it, or use var_or"
        )
    return value


def var_or(name: str, default: Default) -> str | Default:
    """The environment variable `CLOACINA_VAR_<NAME>`, or `default` if it is not set."""
    value = _read(name)
    return default if value is None else value


def _read(name: object) -> str | None:
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name is {excerpt(name)}, a {type(name).__name__}; it must be a str")
    exact = os.environ.get(PREFIX + name)
    return os.environ.get(PREFIX + name.upper()) if exact is None else exact
