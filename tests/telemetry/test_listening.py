"""Who watches a program that has no web server of its own is answered, however many others wait."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import socketserver
import threading
from collections.abc import Iterator

import pytest

import cloaca
from cloaca.telemetry.asgi import Answer
from cloaca.telemetry.listening import ASKING_MAX, Listening

WAIT = 30.0


class Hangs:
    """Stands for a look at a store that does not answer."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.goes_on = threading.Event()

    def answered(self, path: str, accept: str) -> Answer:
        self.asked.release()
        assert self.goes_on.wait(WAIT)
        return Answer(503, b"it hangs\n")


@pytest.fixture
def listening(runner: cloaca.DefaultRunner) -> Iterator[Listening]:
    listening = Listening("127.0.0.1", 0)
    listening.begin(runner)
    yield listening
    listening.shutdown()
    listening.server_close()


def ask(listening: Listening, path: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", listening.server_address[1], timeout=WAIT)
    connection.request("GET", path)
    return connection


def test_whether_the_process_lives_is_answered_while_hundreds_wait_for_the_store(
    listening: Listening,
) -> None:
    hangs = Hangs()
    listening._metrics = hangs  # type: ignore[assignment]
    waiting = [ask(listening, "/metrics") for _ in range(ASKING_MAX)]
    for _ in waiting:
        assert hangs.asked.acquire(timeout=WAIT)
    # No place is left: but for this there is none needed.
    for _ in range(3):
        alive = ask(listening, "/healthz")
        assert alive.getresponse().status == 200
        alive.close()
    for path in ("/readyz", "/healthzz"):
        more = ask(listening, path)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            more.getresponse()
        more.close()
    hangs.goes_on.set()
    assert [each.getresponse().status for each in waiting] == [503] * ASKING_MAX
    for each in waiting:
        each.close()
    assert ASKING_MAX >= 200


def test_it_answers_on_whatever_is_thrown_into_its_thread(listening: Listening) -> None:
    def status() -> int:
        asked = ask(listening, "/healthz")
        try:
            return asked.getresponse().status
        finally:
            asked.close()

    assert status() == 200
    (thread,) = (each for each in threading.enumerate() if each.name == "cloaca-listening")
    ident = ctypes.c_ulong(thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit)) == 1
    # The one that it takes as it is hit is cut off.
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        status()
    for _ in range(3):
        assert status() == 200
    assert thread.is_alive()


def test_who_is_answered_by_a_thread_is_counted_once_whatever_is_thrown_as_that_begins(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = socketserver.ThreadingMixIn.process_request
    struck: list[threading.Thread] = []

    def begin_and_raise(server: socketserver.ThreadingMixIn, request: object, client_address: object) -> None:
        before = set(threading.enumerate())
        begin(server, request, client_address)  # type: ignore[arg-type]
        struck.extend(set(threading.enumerate()) - before)
        raise RuntimeError("thrown in")

    with monkeypatch.context() as patch:
        patch.setattr(socketserver.ThreadingMixIn, "process_request", begin_and_raise)
        for _ in range(3):
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                asked = ask(listening, "/healthz")
                asked.getresponse()
            asked.close()
    for thread in struck:
        thread.join(WAIT)
    # As many may ask as before, and no more.
    hangs = Hangs()
    listening._metrics = hangs  # type: ignore[assignment]
    waiting = [ask(listening, "/metrics") for _ in range(ASKING_MAX)]
    for _ in waiting:
        assert hangs.asked.acquire(timeout=WAIT)
    more = ask(listening, "/metrics")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        more.getresponse()
    more.close()
    hangs.goes_on.set()
    for each in waiting:
        assert each.getresponse().status == 503
        each.close()
