"""`python -m cloaca.ui URL` serves the page of a store, on this machine.

Decides nothing: it reads its arguments, and lets uvicorn serve.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import time

from .. import check
from ..cli import ending, told
from ..errors import ArgumentError, CloacaError, excerpt
from ..reading import Reader
from ..reading.absent import lacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .page import Page

LOCAL = ("127.0.0.1", "localhost", "::1")
PORT = 8720
PORT_MAX = 65_535
BACKLOG = 128
"""So many may wait to be heard."""
TOKEN = "CLOACA_UI_TOKEN"
TOKEN_CHARS_MIN = 12
LOOK_SECONDS = 0.25
"""So often it is looked whether a store is there that was not."""
DRAIN_SECONDS = 2
"""How long an open stream is waited for at the end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM; 2 for wrong arguments, 3 for a store that cannot be opened."""
    asked = _parser().parse_args(arguments)
    ending.is_whole_process = arguments is None
    code = told.over(lambda: _served(asked))
    told.ends(code)
    return code


def _served(asked: argparse.Namespace) -> int:
    try:
        return serve(
            asked.url,
            host=asked.host,
            port=asked.port,
            prefix=asked.prefix,
            token=asked.token,
            acts=asked.act,
        )
    except (ImportError, ArgumentError) as error:
        print(f"cloaca.ui: {error}", file=sys.stderr)
        return 2
    except CloacaError as error:
        print(f"cloaca.ui: {error}", file=sys.stderr)
        return 3


def serve(
    url: str,
    *,
    host: str = LOCAL[0],
    port: int = PORT,
    prefix: str = "",
    token: str | None = None,
    acts: bool = False,
    log: str | None = None,
) -> int:
    """Serves the page of a store until a signal, which its line hears (`told.over`), and waits before for a
    store that nobody has made or brought up to date yet, and for its server. A token that is not given is
    that of the environment. One that acts does so as a client of the store: what is changed, its runners
    carry out, and it is told on standard error; with `json` as its `log` one object a line.

    Raises:
        ArgumentError: (a `ValueError`) another host than this machine's own, and no token; a short one; or
            nobody can listen there.
        ImportError: starlette, jinja2 or uvicorn is missing.
        StoreError: (a `RuntimeError`) the store cannot be opened.
    """
    from . import app

    if token is None:
        token = os.environ.get(TOKEN)
    if host not in LOCAL and token is None:
        raise ArgumentError(
            f"--host {host} lets other machines in; give --token TEXT too, or {TOKEN} in the environment,"
            " where other users of this machine don't see it"
        )
    if token is not None and (many := len(token.strip())) < TOKEN_CHARS_MIN:
        besides = "" if many == len(token) else " besides blanks"
        raise ArgumentError(
            f"the token has {many} characters{besides}, at least {TOKEN_CHARS_MIN} are needed, so that it is"
            ' not guessed; python -c "import secrets; print(secrets.token_urlsafe())" makes one'
        )
    try:
        import uvicorn
    except ImportError as error:
        raise ImportError('cloaca.ui needs uvicorn; pip install "cloaca[ui]"', name="uvicorn") from error
    from .safety import TokenAccess

    del uvicorn
    # Who asks meanwhile is to find nobody there, and no page that hangs.
    listening(host, port).close()
    if not _awaited(check.url(url)):
        return 0
    with Reader(url):
        pass  # what is wrong with it is said now, and not by the first request
    listens = listening(host, port)
    if acts or log is not None:
        _hear_log(log)
    page = app(url, access=TokenAccess(token) if token else None)
    with listens, contextlib.closing(page):
        if acts:
            page.act_as_client()
        root = f"/{prefix.strip('/')}" if prefix.strip("/") else ""
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port}{root}/{'?token=…' if token else ''}", flush=True)
        _serve(page, listens, root)
    return 0


def _hear_log(log: str | None) -> None:
    """What is logged, each change by the page among it, goes to standard error, unless somebody has set where
    it is to go."""
    import logging

    if log == "json":
        from ..cli.logged import install

        install()
    elif not logging.getLogger().handlers and not logging.getLogger("cloaca").handlers:
        from ..cli.logged import plain

        plain("%(asctime)s %(levelname)s %(message)s")


def _awaited(url: str) -> bool:
    """Waits for a store that whoever serves it has still to make, and for its server; whether nobody has
    ended that. Each lack is told once: a server that comes up is silent, refuses, and is silent again."""
    told: set[str] = set()
    with contextlib.suppress(KeyboardInterrupt):
        while (lack := lacks(url)) is not None:
            if lack not in told:
                print(f"cloaca: the page waits for store {check.store_name(url)}: {lack}", file=sys.stderr)
                told.add(lack)
            time.sleep(LOOK_SECONDS)
        return True
    return False


def _serve(page: Page, listens: socket.socket, root: str) -> None:
    import uvicorn

    config = uvicorn.Config(
        page,
        root_path=root,
        log_level="warning",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        # Who asks is who asks: a proxy's word for it is heeded by access= alone.
        proxy_headers=False,
        server_header=False,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listens])


def listening(host: str, port: int) -> socket.socket:
    """What listens at an address, before anybody is told of it.

    Raises:
        ArgumentError: (a `ValueError`) nobody can listen there.
    """
    if not 0 < port <= PORT_MAX:
        raise ArgumentError(f"--port is {port}; it is a number from 1 to {PORT_MAX}")
    made = None
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        if os.name == "posix":  # elsewhere it would let two have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        if made is not None:
            made.close()
        why = getattr(error, "strerror", None) or error
        raise ArgumentError(f"nobody can listen at {excerpt(host)}, port {port}: {why}") from None
    return made


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloaca.ui",
        description="Serves the page of a store, which is only read unless --act is given.",
        epilog=f"example: python -m cloaca.ui runs.db --port {PORT}",
    )
    parser.add_argument("url", help="the store, as DefaultRunner takes it")
    parser.add_argument(
        "--host", default=LOCAL[0], help="where to listen (%(default)s); another needs a token"
    )
    parser.add_argument("--port", type=int, default=PORT, help="(%(default)s)")
    parser.add_argument("--prefix", default="", help="the path under which a proxy passes it on")
    parser.add_argument("--token", help="asks for this, from everybody; better by CLOACA_UI_TOKEN")
    parser.add_argument("--act", action="store_true", help="let it change things, too, as a client")
    return parser


if __name__ == "__main__":
    sys.exit(main())
