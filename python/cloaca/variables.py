"""Settings from the environment: `var` and `var_or`. Reads `os.environ` when asked, never before."""

from __future__ import annotations

import os

from .errors import ArgumentTypeError, VariableError, excerpt, typed
from .name import is_text

PREFIXES = ("CLOACINA_VAR_", "CLOACA_VAR_")
FILE = "_FILE"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Default = TypeVar("Default")


def var(name: str) -> str:
    """The environment variable `CLOACA_VAR_<NAME>`, or the `CLOACINA_VAR_<NAME>` that goes before it, or what
    stands in the file that the variable of the same name with `_FILE` at its end names, as for a secret that
    is mounted; a line end at its end is left out. The name is tried as it is, then in upper case.

    Raises:
        VariableError: (a `KeyError`) it is not set, or its file cannot be read.
    """
    value = _read(name)
    if value is None:
        upper = str(name).upper()[:80]
        raise VariableError(
            f"neither {PREFIXES[1]}{upper} nor {PREFIXES[0]}{upper} is set in the environment;"
            " set one, or use var_or"
        )
    return value


def var_or(name: str, default: Default) -> str | Default:
    """The same, or `default` if it is not set.

    Raises:
        VariableError: (a `KeyError`) its file cannot be read.
    """
    value = _read(name)
    return default if value is None else value


def _read(name: object) -> str | None:
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name is {excerpt(name)}, {typed(name)}; it must be a str")
    if not is_text(name):
        raise ArgumentTypeError(f"name is {excerpt(name)}; no environment variable has a lone surrogate")
    variables = [prefix + spelt for prefix in PREFIXES for spelt in (name, name.upper())]
    for variable in variables:
        if (value := os.environ.get(variable)) is not None:
            return value
    for variable in variables:
        if (path := os.environ.get(variable + FILE)) is not None:
            return _content(variable + FILE, path)
    return None


def _content(variable: str, path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().removesuffix("\n")
    except (OSError, ValueError) as error:
        raise VariableError(f"the environment variable {variable} names {excerpt(path)}: {error}") from error
