"""A small application that answers questions, as ASGI has it: nothing else is needed for that.

Invariant: what is looked at is looked at on a thread, so that the server's loop never waits for a store.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ..plain import ERROR, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PLAIN = "text/plain; charset=utf-8"
_log = "cloaca.telemetry"


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    body: bytes
    kind: str = PLAIN


class App:
    """An application that only answers GET and HEAD."""

    def answer(self, path: str, accept: str) -> Answer:
        """What there is at a path, for who accepts such kinds; on any thread."""
        raise NotImplementedError

    def answered(self, path: str, accept: str) -> Answer:
        """The same, also where it cannot be told."""
        try:
            return self.answer(path, accept)
        except Exception as error:
            say(_log, ERROR, "what was asked for cannot be told", raised=error)
            return Answer(500, b"what was asked for cannot be told; the log says why\n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        answer = await self._answer(scope)
        headers = [(b"content-type", answer.kind.encode()), (b"cache-control", b"no-store")]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return Answer(405, b"this is only looked at\n")
        root, path = scope.get("root_path", ""), scope["path"]
        if root and (path == root or path.startswith(f"{root}/")):
            path = path[len(root) :]
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        return await asyncio.to_thread(self.answered, path or "/", accept.decode("latin-1"))
