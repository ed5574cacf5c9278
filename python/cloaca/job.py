"""What the engine hands to threads, by name: attempts to make and polls to end.

Decides nothing. The engine makes plain tuples of these parts and takes either.
"""

from __future__ import annotations

from typing import NamedTuple

JobParts = tuple[int, int, int, bool, int]
TicketParts = tuple[int, int, int, int, int, int]


class Job(NamedTuple):
    """One attempt of a task, or only the callback of one that has failed."""

    run: int
    task: int
    attempt: int
    callback_only: bool
    life: int


class Raised(NamedTuple):
    """What a body raised, as plain data: class, text, traceback, after how long it wants to be called again,
    and the limit that it pauses for as long."""

    kind: str
    text: str
    trace: str | None
    delay_us: int | None
    pause: str | None = None


class Ticket(NamedTuple):
    """One poll in flight, with when it was due and when it began."""

    place: int
    serial: int
    due: int
    began_ns: int
    began_us: int
    ends: int
