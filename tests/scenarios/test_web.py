"""A real FastAPI under uvicorn, over HTTP: the app of the guide, and one whose runner ends amidst its bodies.

Everything is tried on asyncio's own loop and on uvloop.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import cloaca

httpx = pytest.importorskip("httpx")
uvloop = pytest.importorskip("uvloop")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
ENDED = -signal.SIGTERM
"""Once it has shut down in good order, uvicorn ends by the signal that it was sent."""
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])

# Beside what the guide shows: which loop it is, a request that blocks it, and two that take as long as told.
MORE = """
    import asyncio, time
    import cloaca
    from fastapi import Request
    from fastapi.responses import StreamingResponse
    from shop import app

    with cloaca.WorkflowBuilder("waits"):
        @cloaca.task(id="only", retry_attempts=1)
        async def only(context):
            async with asyncio.timeout(60):
                while not opened:
                    await asyncio.sleep(0.01)

    opened = []

    @app.get("/loop")
    async def loop():
        return type(asyncio.get_running_loop()).__module__

    @app.get("/block")
    async def block():
        time.sleep(2)

    @app.post("/open")
    async def open_all():
        opened.append(1)

    @app.post("/wait/{n}")
    async def wait(n: int, request: Request):
        return (await request.app.state.runner.execute_async("waits", {"n": n})).status

    @app.post("/stream/{n}")
    async def stream(n: int, ends: bool, request: Request):
        async def parts():
            yield b"began"
            runner = request.app.state.runner
            result = await runner.execute_async("waits", {"n": n}, cancel_on_abandon=ends)
            yield result.status.encode()

        return StreamingResponse(parts())

    @app.get("/runs")
    async def runs(workflow: str, request: Request):
        rows = await asyncio.to_thread(request.app.state.runner.list_runs, workflow=workflow)
        return {row["context"]["n"]: row["status"] for row in rows}
"""

ENDING = """
    import asyncio, os, sys, threading, time
    from contextlib import asynccontextmanager
    from pathlib import Path
    import cloaca
    from fastapi import FastAPI

    HERE = Path(os.environ["HERE"])

    def began(handle):
        (HERE / f"{handle.task_id}-{handle.attempt}").write_text(str(os.getpid()))
        return handle.attempt == 1

    def on_thread(context, handle):
        if began(handle):
            handle.defer_until(lambda: False, 10)

    def hung(context, handle):
        if began(handle):
            time.sleep(600)

    async def on_loop(context, handle):
        if began(handle):
            await asyncio.sleep(600)

    async def deferred(context, handle):
        if began(handle):
            await handle.defer_until(lambda: False)

    def in_process(context, handle):
        if began(handle):
            time.sleep(600)

    BODIES = [on_thread, hung, on_loop, deferred, in_process]
    for body in BODIES:
        with cloaca.WorkflowBuilder(body.__name__):
            cloaca.task(
                id=body.__name__, executor="cpu" if body is in_process else None, retry_attempts=1
            )(body)

    @asynccontextmanager
    async def lifespan(app):
        pools = {"cpu": lambda: cloaca.ProcessExecutor(max_workers=1, kill_grace=0.5)}
        async with cloaca.DefaultRunner(str(HERE / "a.db"), executors=pools) as runner:
            app.state.runner = runner
            yield
            await runner.shutdown_async(0.5)
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("cloaca-")]
        (HERE / "left").write_text("\\n".join(left))

    app = FastAPI(lifespan=lifespan)

    @app.post("/begin")
    async def begin():
        return [(await app.state.runner.submit_async(body.__name__)).id for body in BODIES]

    @app.get("/statuses")
    async def statuses():
        rows = await asyncio.to_thread(app.state.runner.list_runs)
        return [row["status"] for row in rows]
"""


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Partner(BaseHTTPRequestHandler):
    """Takes charges and mails, and answers after a moment."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(0.02)
        answer = json.dumps({"receipt": f"receipt {asked.get('order')}"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Listening(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


@pytest.fixture
def partner() -> Iterator[str]:
    with Listening(("127.0.0.1", 0), Partner) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def served(
    folder: Path, app: str, loop: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server process, once it answers; killed at the end if it still runs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        number = listener.fileno()
        line = [
            sys.executable,
            "-m",
            "uvicorn",
            app,
            "--fd",
            str(number),
            "--loop",
            loop,
            "--log-level",
            "warning",
        ]
        server = subprocess.Popen(
            line,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.fspath(folder), **environment},
            pass_fds=[number],
            stderr=subprocess.PIPE,
            text=True,
        )
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        # The socket takes connections before the app has begun, and answers once it has.
        with httpx.Client(base_url=address, timeout=SECONDS) as client:
            client.get("/openapi.json").raise_for_status()
        yield address, server
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()


def stopped(server: subprocess.Popen[str]) -> str:
    """Ends it as a service manager does; what it said on its standard error."""
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=SECONDS)
    return said


def put(folder: Path, name: str, source: str) -> None:
    (folder / name).write_text(textwrap.dedent(source))


@pytest.fixture
def shop(tmp_path: Path, partner: str) -> dict[str, str]:
    """The app of the guide, word for word, with more beside it."""
    page = (ROOT / "docs/guides/fastapi.md").read_text()
    found = re.search(r'```py title="shop.py"\n(.*?)```', page, re.DOTALL)
    assert found is not None
    put(tmp_path, "shop.py", found[1])
    put(tmp_path, "more.py", MORE)
    return {"SHOP_PARTNER": partner, "SHOP_DB": os.fspath(tmp_path / "a.db")}


@LOOPS
def test_two_hundred_requests_at_once_each_await_their_run_while_the_loop_is_blocked(
    loop: str, tmp_path: Path, shop: dict[str, str]
) -> None:
    async def ask(address: str) -> tuple[list[Any], str]:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=address, timeout=SECONDS, limits=limits) as client:
            module = (await client.get("/loop")).json()
            asked = [client.post(f"/quotes/{n}") for n in range(200)]
            *replies, blocked = await asyncio.gather(*asked, client.get("/block"))
            assert blocked.status_code == 200
            return [(reply.status_code, reply.json()) for reply in replies], module

    with served(tmp_path, "more:app", loop, **shop) as (address, server):
        replies, module = asyncio.run(ask(address))
        said = stopped(server)
    assert module.startswith(loop)
    assert replies == [(200, {"status": "Completed", "id": n, "receipt": f"receipt {n}"}) for n in range(200)]
    assert (server.returncode, said) == (ENDED, "")


@LOOPS
def test_a_client_that_goes_away_leaves_its_run_alone(
    loop: str, tmp_path: Path, shop: dict[str, str]
) -> None:
    def statuses(client: Any) -> dict[str, str]:
        found: dict[str, str] = client.get("/runs", params={"workflow": "waits"}).json()
        return found

    with (
        served(tmp_path, "more:app", loop, **shop) as (address, server),
        httpx.Client(base_url=address, timeout=SECONDS) as client,
    ):
        host, port = address.removeprefix("http://").split(":")
        gone = []
        for path in ("/wait/1", "/stream/2?ends=false", "/stream/3?ends=true"):
            connection = socket.create_connection((host, int(port)), timeout=SECONDS)
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            gone.append(connection)
        until(lambda: list(statuses(client).values()) == ["Running"] * 3)
        for connection in gone:
            connection.close()
        # Who said so has its run cancelled.
        until(lambda: statuses(client)["3"] == "Cancelled")
        assert (statuses(client)["1"], statuses(client)["2"]) == ("Running", "Running")
        # It serves on meanwhile.
        assert client.post("/orders/7").status_code == 200
        assert client.get("/orders/7/receipt").json()["receipt"] == "receipt 7"
        client.post("/open")
        until(lambda: [statuses(client)[n] for n in "12"] == ["Completed", "Completed"])
        said = stopped(server)
    assert (server.returncode, said) == (ENDED, "")


@LOOPS
def test_a_server_that_ends_amidst_every_kind_of_body_leaves_nothing_and_each_run_resumes(
    loop: str, tmp_path: Path
) -> None:
    put(tmp_path, "ending.py", ENDING)
    kinds = ["on_thread", "hung", "on_loop", "deferred", "in_process"]
    with served(tmp_path, "ending:app", loop, HERE=os.fspath(tmp_path)) as (address, server):
        httpx.post(f"{address}/begin", timeout=SECONDS).raise_for_status()
        pids = {kind: int(until(lambda kind=kind: word(tmp_path / f"{kind}-1"))) for kind in kinds}
        said = stopped(server)
    assert server.returncode == ENDED, said
    assert "Traceback" not in said
    assert {kind for kind, pid in pids.items() if pid != server.pid} == {"in_process"}
    until(lambda: not any(map(lives, pids.values())))
    # Nobody can end a thread that sleeps, but the end of its process.
    left = (tmp_path / "left").read_text().splitlines()
    # The one that shut the runner down may be at its last line.
    left = [name for name in left if name != "cloaca-shutdown"]
    assert [name.rpartition("-")[0] for name in left] in ([], ["cloaca-worker"]), left
    with served(tmp_path, "ending:app", loop, HERE=os.fspath(tmp_path)) as (address, server):
        with httpx.Client(base_url=address, timeout=SECONDS) as client:
            until(lambda: client.get("/statuses").json() == ["Completed"] * 5)
        assert stopped(server) == ""
    assert all((tmp_path / f"{kind}-2").exists() for kind in kinds)


def word(path: Path) -> str:
    """What a body has left there, once it has."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def test_one_process_runs_a_uvloop_twice_and_the_second_resumes_what_the_first_left(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "a.db")
    seen: list[tuple[int, str]] = []

    with cloaca.WorkflowBuilder("w"):

        @cloaca.task(id="only", retry_attempts=1)
        async def only(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
            seen.append((handle.attempt, type(asyncio.get_running_loop()).__module__))
            if handle.attempt == 1:
                await asyncio.sleep(SECONDS)

    async def first() -> None:
        async with cloaca.DefaultRunner(path) as runner:
            await runner.submit_async("w")
            async with asyncio.timeout(SECONDS):
                while not seen:
                    await asyncio.sleep(0.005)
            await runner.shutdown_async(0.05)

    async def second() -> None:
        async with cloaca.DefaultRunner(path) as runner:
            (row,) = runner.list_runs()
            assert (await runner.run(row["id"]).wait(SECONDS)).status == "Completed"

    for main in (first, second):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(main())
    assert seen == [(1, "uvloop"), (2, "uvloop")]
