"""What probes ask: whether to start the process again, and whether all is well. Decides only that."""

from __future__ import annotations

import json
import threading
import time

from ..errors import CloacaError
from . import forks
from .asgi import Answer, App
from .watched import Watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Any

    from ..runner import DefaultRunner

FRESH_SECONDS = 1.0
"""What was looked at since then is not looked at again: whoever asks often costs the store nothing."""
JSON = "application/json"


class HealthApp(App):
    """The application; `cloaca.telemetry.health_app` makes it."""

    def __init__(self, runner_or_url: DefaultRunner | str | os.PathLike[Any]) -> None:
        self._watched = Watched(runner_or_url)
        forks.tell(self)
        self.forked()

    def forked(self) -> None:
        """A child looks for itself."""
        self._locks = {"/healthz": threading.Lock(), "/readyz": threading.Lock()}
        self._known: dict[str, tuple[float, Answer]] = {}

    def __repr__(self) -> str:
        return f"<cloaca.telemetry.health_app of {self._watched!r}>"

    def answer(self, path: str, accept: str) -> Answer:
        """Tells whoever asks for `/healthz` or `/readyz`."""
        path = path.rstrip("/")
        if path not in self._locks:
            return Answer(404, b"there are /healthz and /readyz\n")
        # One lock each: who asks whether the process is to be killed never waits for the store.
        with self._locks[path]:
            at, known = self._known.get(path, (0.0, None))
            is_old = known is None or time.monotonic() - at >= FRESH_SECONDS
            # A runner's own end is known without a look at the store.
            if known is None or is_old or (known.status == 200 and self._watched.why_ended()):
                known = self._alive() if path == "/healthz" else self._ready()
                self._known[path] = (time.monotonic(), known)
            return known

    def _alive(self) -> Answer:
        why = self._watched.is_alive()
        return _told(200 if why is None else 503, {"ok": why is None, "why": why})

    def _ready(self) -> Answer:
        runner = self._watched.runner
        try:
            found = self._watched.health()
        except CloacaError as error:
            return _told(503, {"ok": False, "why": str(error)})
        why = "the runner is paused" if runner is not None and runner._paused else None
        ok = found["ok"] and why is None
        return _told(200 if ok else 503, {**found, "ok": ok, "why": why})


def _told(status: int, what: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(what).encode() + b"\n", JSON)
