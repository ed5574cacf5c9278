"""Decides what a size is: `"1 MiB"`, `"64 KiB"`, bytes as an int. Pure."""

from __future__ import annotations

import re

from .errors import ConfigError, excerpt

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SMALLEST, LARGEST = 2**10, 2**30

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)", re.ASCII)
_HINT = 'write "1 MiB", "64 KiB", or bytes as an int'


def bytes_of(value: object, argument: str) -> int:
    """The size in bytes, from 1 KiB to 1 GiB.

    Raises:
        ConfigError: (a `ValueError`) it is none. Names the argument.
    """
    size = value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())) is not None:
        size = int(float(found[1]) * UNITS[found[2]])
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConfigError(f"{argument} is {excerpt(value)}; {_HINT}")
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"{argument} is {excerpt(value)}; it must be from 1 KiB to 1 GiB")
    return size
