"""What tests of the page start from: a program with a runner over a file, and who asks the page."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from looker import Asking, declare

import cloaca
import cloaca.ui


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What slow tasks wait for."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def runner(tmp_path: Path, gate: threading.Event) -> Iterator[cloaca.DefaultRunner]:
    """A runner of the program over a file."""
    declare(gate)
    with cloaca.DefaultRunner(tmp_path / "runs.db") as runner:
        # What was declared a moment ago has no row yet.
        while runner.get_trigger_schedule("share") is None or runner._cron_of("nightly") is None:
            pass
        yield runner
        gate.set()


@pytest.fixture
def page(runner: cloaca.DefaultRunner) -> Iterator[Asking]:
    """Who asks the page of that runner, from this machine."""
    app = cloaca.ui.app(runner)
    yield Asking(app)
    app._source.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves applications, each at an address of its own."""
    ends: list[Callable[[], None]] = []

    def serve(app: Any, **settings: Any) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=1, **settings)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join(20)
            listening.close()

        ends.append(end)
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    for end in ends:
        end()
