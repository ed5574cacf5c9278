"""Answers those who watch a program that has no web server of its own: metrics and health, by the standard
library's one.

Invariant: whoever asks slowly, never ends, or comes in crowds holds up a bounded number of threads.
"""

from __future__ import annotations

import os
import socket
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from ..threads import begin
from . import health_app, prometheus_app
from .asgi import Answer, App

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..runner import DefaultRunner

ASKING_MAX = 256
"""So many are answered at once; of more the connection is closed, but of those who ask whether the process
lives. While a store hangs all that ask for more wait for one look at it."""
HASTE_SECONDS = 0.02
"""Who comes when so many are being answered has said by then what it asks for."""
HASTE_BYTES_MAX = 8192
ASK_SECONDS_MAX = 10.0
"""Who asks has so long for each line of it."""
METRICS = "/metrics"
ALIVE = "/healthz"


_listening: weakref.WeakSet[Listening] = weakref.WeakSet()
"""Those of this process."""


def _forked() -> None:
    """A child that outlives this process would keep the port from who takes its place, and answer nobody."""
    for each in list(_listening):
        each.socket.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)


class _Asked(BaseHTTPRequestHandler):
    timeout = ASK_SECONDS_MAX
    server: Listening

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def version_string(self) -> str:
        return "cloaca"

    def log_message(self, *_: object) -> None:
        """Probes come each second: they are not told of."""

    def _answer(self, has_body: bool) -> None:
        try:
            path = urlsplit(self.path).path
        except ValueError:  # no address at all is none of ours
            path = ""
        answer = self.server.answer(path, self.headers.get("accept", ""))
        self.send_response(answer.status)
        self.send_header("content-type", answer.kind)
        self.send_header("cache-control", "no-store")
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        if has_body:
            self.wfile.write(answer.body)


class Listening(ThreadingHTTPServer):
    """What listens at an address, on threads of its own, until it is closed.

    Raises:
        ImportError: prometheus_client is missing.
        OSError: the address is taken, or not of this machine.
    """

    request_queue_size = ASKING_MAX

    def __init__(self, host: str, port: int) -> None:
        self._metrics: App | None = None
        self._health: App | None = None
        # Those that a thread answers, until it has. Whatever hits who listens, none is let go of twice.
        self._asking: set[object] = set()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Asked)
        _listening.add(self)

    def begin(self, runner: DefaultRunner) -> None:
        """Answers from now on, for this runner."""
        self._metrics, self._health = prometheus_app(runner), health_app(runner)
        begin("cloaca-listening", self.serve_forever, lambda thread: None, pid=os.getpid(), serves=True)

    def answer(self, path: str, accept: str) -> Answer:
        """What there is at a path; on any thread."""
        app = self._metrics if path == METRICS else self._health
        if app is None or path not in (METRICS, ALIVE, "/readyz"):
            return Answer(404, b"there are /metrics, /healthz and /readyz\n")
        return app.answered(path, accept)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers on a thread, if there is one for it. Whether the process lives is told without."""
        if len(self._asking) >= ASKING_MAX:
            if _asks_if_alive(request):
                self.finish_request(request, client_address)
            self.shutdown_request(request)
            return
        try:
            self._asking.add(request)
            super().process_request(request, client_address)
        except BaseException:
            self._asking.discard(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Gives its place back at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._asking.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has gone."""


def _asks_if_alive(request: socket.socket) -> bool:
    """Whether that is all that is asked, and asked to its end: then nothing is waited for."""
    request.settimeout(HASTE_SECONDS)
    try:
        asked = request.recv(HASTE_BYTES_MAX, socket.MSG_PEEK)
    except OSError:
        return False
    words = asked.split(b" ", 2)
    is_path = len(words) > 1 and words[1].partition(b"?")[0] == ALIVE.encode()
    return is_path and words[0] in (b"GET", b"HEAD") and b"\r\n\r\n" in asked
