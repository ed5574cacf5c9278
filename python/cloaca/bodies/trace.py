"""Where an exception was raised in another process, as text. Decides nothing."""

from __future__ import annotations


class RemoteTraceback(Exception):
    """Where an exception was raised in its own process, as the cause of it here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
