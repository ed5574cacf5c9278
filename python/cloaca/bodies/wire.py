"""The frames between a `ProcessExecutor` and its processes: one byte of kind, the length, the bytes.

Decides nothing. Invariant: what one end writes the other end takes apart, wherever the stream was cut.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = struct.Struct("!cQ")

START, CALL, STOP, LEAVE = b"S", b"C", b"T", b"L"
"""What a process is told: how to begin, a call, that it is to end with its call, that it is to end."""
READY, RETURNED, RAISED = b"R", b"V", b"E"
"""What it answers: that it has begun, what the call returned, what it raised."""


def frame(kind: bytes, payload: bytes = b"") -> list[bytes]:
    """The bytes of one message, in parts: a large payload isn't copied for the sake of nine bytes."""
    head = HEAD.pack(kind, len(payload))
    return [head, payload] if len(payload) > 4096 else [head + payload]


class Frames:
    """What has arrived of a stream of messages."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def taken(self, more: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Takes in more bytes; gives the messages that are complete now."""
        self._bytes += more
        while len(self._bytes) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._bytes)
            end = HEAD.size + length
            if len(self._bytes) < end:
                return
            payload = bytes(memoryview(self._bytes)[HEAD.size : end])
            del self._bytes[:end]
            yield kind, payload
