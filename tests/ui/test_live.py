"""What an open tab is told."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx2 as httpx
from looker import WAIT, failed

import cloaca
import cloaca.ui


def told(stream: Any) -> Any:
    """The events of a stream: their marks, and what the tab is to show."""
    mark, data = "", []
    for line in stream.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            mark = value
        elif name == "data":
            data.append(value)
        elif not line and data:
            yield mark, "\n".join(data)
            data = []


def test_a_tab_is_told_what_has_changed(
    runner: cloaca.DefaultRunner, serve: Callable[..., str], gate: threading.Event
) -> None:
    base = serve(cloaca.ui.app(runner))
    with httpx.stream("GET", f"{base}/live?view=/runs?workflow=slow", timeout=WAIT) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = told(stream)
        assert "No run matches" in next(events)[1]
        run = runner.submit("slow")
        while run.id not in (shown := next(events)[1]):
            pass
        assert "<html" not in shown
        gate.set()
        while "Completed" not in next(events)[1]:
            pass


def test_a_tab_that_shows_the_newest_is_told_nothing(
    runner: cloaca.DefaultRunner, serve: Callable[..., str]
) -> None:
    app = cloaca.ui.app(runner)
    base = serve(app)
    with httpx.stream("GET", f"{base}/live?view=/triggers", timeout=WAIT) as stream:
        mark, _ = next(told(stream))
    with httpx.stream("GET", f"{base}/live?view=/triggers&have={mark}", timeout=WAIT) as stream:
        events = told(stream)
        made = app._live.made
        runner.set_trigger_enabled("inbox", False)
        assert "disabled" in next(events)[1]
        assert app._live.made > made


def test_many_tabs_cost_what_one_costs(runner: cloaca.DefaultRunner, serve: Callable[..., str]) -> None:
    app = cloaca.ui.app(runner)
    base = serve(app)
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=WAIT, limits=httpx.Limits(max_connections=100)))
        streams = [stack.enter_context(client.stream("GET", f"{base}/live?view=/runs")) for _ in range(60)]
        events = [told(stream) for stream in streams]
        first = [next(each)[0] for each in events]
        assert len(set(first)) == 1
        made = app._live.made
        (bad,) = failed(runner)
        for each in events:
            while f"{bad}" not in (shown := next(each)[1]) or "Failed" not in shown:
                pass
        # Each look may make it anew, whoever looks at it; every tab by itself would be 60.
        assert app._live.made - made < 30
        assert app._live.tabs == 60


def test_nobody_listens_and_nothing_looks(runner: cloaca.DefaultRunner, serve: Callable[..., str]) -> None:
    app = cloaca.ui.app(runner)
    base = serve(app)
    with httpx.stream("GET", f"{base}/live?view=/", timeout=WAIT) as stream:
        next(told(stream))
    pause = threading.Event()
    while app._live.tabs or not app._live._task.done():
        pause.wait(0.02)


def test_there_is_room_for_so_many_tabs(
    runner: cloaca.DefaultRunner, serve: Callable[..., str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("cloaca.ui.live.TABS_MAX", 2)
    base = serve(cloaca.ui.app(runner))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(httpx.stream("GET", f"{base}/live?view=/", timeout=WAIT))
        assert httpx.get(f"{base}/live?view=/", timeout=WAIT).status_code == 503


def test_a_server_that_ends_ends_the_streams(runner: cloaca.DefaultRunner, serve: Callable[..., str]) -> None:
    app = cloaca.ui.app(runner)
    base = serve(app)
    with httpx.stream("GET", f"{base}/live?view=/", timeout=WAIT) as stream:
        events = told(stream)
        next(events)
        app._live.end()
        assert list(events) == []


def test_a_view_that_cannot_be_shown_says_so(runner: cloaca.DefaultRunner, serve: Callable[..., str]) -> None:
    base = serve(cloaca.ui.app(runner))
    for view, says in (("/nowhere", "no screen"), ("/runs?status=Bad", "Bad"), ("/run/context?id=1", "part")):
        with httpx.stream("GET", f"{base}/live", params={"view": view}, timeout=WAIT) as stream:
            shown = next(told(stream))[1]
        assert says in shown or "cannot be shown" in shown or "not found" in shown, shown


def test_who_never_reads_holds_up_nobody(runner: cloaca.DefaultRunner, serve: Callable[..., str]) -> None:
    app = cloaca.ui.app(runner)
    base = serve(app)
    port = int(base.rpartition(":")[2])
    asked = f"GET /live?view=/runs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(20):
            deaf = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            deaf.sendall(asked)
        with httpx.stream("GET", f"{base}/live?view=/runs", timeout=WAIT) as stream:
            events = told(stream)
            next(events)
            for n in range(5):
                run = runner.submit("ingest", {"note": "x" * 10_000, "n": n})
                while run.id not in next(events)[1]:
                    pass
        assert httpx.get(f"{base}/runs", timeout=WAIT).status_code == 200
