"""Exceptions that cannot be looked at, whoever raises them."""

from typing import Any


class Traceless(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("in __traceback__")


class Untouchable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit("in __getattribute__")
