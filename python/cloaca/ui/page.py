"""The ASGI application: who asks for what, and what is sent back. Decides nothing about what is shown.

Invariant: every answer has the headers that bound what a browser does with it, a refusal, too.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from functools import cache
from importlib.resources import files
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from .. import __version__
from ..errors import ArgumentError, ArgumentTypeError, CloacaError, StoreError, excerpt
from ..plain import ERROR, INFO, say
from ..reading import MissingError
from ..telemetry import prometheus_app
from . import acts, safety, show
from .live import Live
from .once import Once
from .rendering import rendered
from .safety import OutdatedForm, Refusal, TokenAccess
from .screens import Ask, Screen, find
from .source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

    from starlette.types import Receive, Scope, Send

    from ..runner import DefaultRunner
    from ..telemetry.prometheus import PrometheusApp
    from .safety import Access, Level

BODY_BYTES = 65_536
"""A form of this page has fewer."""
FIELDS_MAX = 30
QUERY_CHARS = 8192
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}

_log = "cloaca.ui"


@cache
def static(name: str) -> bytes:
    """A file of the package that a browser gets."""
    return (files(__package__) / "static" / name).read_bytes()


@cache
def stamp() -> str:
    """Changes with what is static, so that a browser keeps it until then."""
    return hashlib.sha256(b"".join(static(name) for name in STATIC)).hexdigest()[:12]


class Page:
    """The application; `cloaca.ui.app` makes it."""

    def __init__(
        self,
        runner_or_url: DefaultRunner | str | os.PathLike[Any],
        *,
        access: Access | None = None,
        hosts: Iterable[str] = (),
    ) -> None:
        if access is not None and not callable(access):
            raise ArgumentTypeError(f"access is {excerpt(access)}; it must be a function of the request")
        if isinstance(hosts, str):
            raise ArgumentTypeError(f"hosts is {excerpt(hosts)}, one text; it must be a list of names")
        self._hosts = frozenset(check_host(host) for host in hosts)
        self._access = access
        self._source = Source(runner_or_url)
        self._live = Live(self._source, self._fragment)
        self._once = Once()
        self._app: PrometheusApp | None = None

    def act_as_client(self) -> None:
        """Lets a page of a URL change things, too, as a client of the store, until `close`.

        Raises:
            StoreError: (a `RuntimeError`) the store cannot be opened.
        """
        self._source.open_client()

    def close(self) -> None:
        """Leaves the store."""
        self._live.end()
        self._source.close()
        self._source.close_client()

    def __repr__(self) -> str:
        return f"<cloaca.ui.app of {excerpt(self._source.name)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive)
            try:
                response = await self._response(request)
            except Refusal as refusal:
                response = HTMLResponse(
                    rendered(
                        "refused.html",
                        self._words(request, "none") | {"title": "Refused", "text": str(refusal)},
                    ),
                    refusal.status,
                )
            except ClientDisconnect:
                return
            for name, value in safety.HEADERS.items():
                response.headers.setdefault(name, value)
            await response(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self.close()
                return

    async def _response(self, request: Request) -> Response:
        path = path_of(request)
        if len(request.scope.get("query_string", b"")) > QUERY_CHARS:
            raise Refusal(414, "That address is too long.")
        if path.startswith("/static/"):
            return _file(path.removeprefix("/static/"))
        if isinstance(self._access, TokenAccess):
            let_in = await self._let_in(request, path, self._access)
            if let_in is not None:
                return let_in
        level: Level = await safety.level_of(request, self._access, self._hosts)
        if level == "act" and not self._source.can_act:
            level = "view"
        if request.method == "POST":
            if path != "/act":
                raise Refusal(405, "Nothing is changed there.")
            return await self._act(request, level)
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "This page is looked at, or its forms are sent.")
        if path == "/metrics":
            return await run_in_threadpool(self._metrics, request.headers.get("accept", ""))
        if path == "/live":
            return self._stream(request, level)
        return await run_in_threadpool(self._show, request, path, level)

    async def _let_in(self, request: Request, path: str, access: TokenAccess) -> Response | None:
        """Answers who brings a token, or has to."""
        root, given = request.scope.get("root_path", ""), request.query_params.get("token")
        if path == "/login" and request.method == "POST":
            form = await _form(request)
            try:
                safety.refuse_forged(request, form.get("form_token", ""), self._hosts)
            except OutdatedForm:
                return self._with_form(request, self._login(request, 403, "outdated"))
            given = form.get("token", "")
        elif given is None:
            if access(request) == "act":
                return None
            lost = "changes" if (path, request.method) == ("/act", "POST") else ""
            return self._with_form(request, self._login(request, 401, lost))
        if not access.knows(given):
            return self._with_form(request, self._login(request, 403, "token"))
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        to = path if path != "/login" and is_own(path) else "/"
        response = RedirectResponse(show.link(root, to, **dict(kept)), 303)
        safety.set_cookie(response, request, access.cookie, access.proof)
        return response

    def _login(self, request: Request, status: int, wrong: str) -> Response:
        words = self._words(request, "none") | {"title": "Token", "wrong": wrong}
        return HTMLResponse(rendered("login.html", words), status)

    def _with_form(self, request: Request, response: Response) -> Response:
        safety.set_cookie(response, request, safety.COOKIE, self._token(request))
        return response

    def _token(self, request: Request) -> str:
        if "cloaca_form_token" not in request.scope:
            request.scope["cloaca_form_token"] = safety.form_token(request)
        return str(request.scope["cloaca_form_token"])

    def _words(self, request: Request, level: Level) -> dict[str, Any]:
        """What the frame needs."""
        return {
            "root": request.scope.get("root_path", ""),
            "level": level,
            "stamp": stamp(),
            "form_token": self._token(request),
            "once": secrets.token_urlsafe(16),
            "back": view_of(request),
            "mark": "",
            "version": __version__,
        }

    def _show(self, request: Request, path: str, level: Level) -> Response:
        root = request.scope.get("root_path", "")
        query = dict(request.query_params)
        screen = self._screen(Ask(self._source, root, path, query, level))
        if screen.attachment is not None:
            headers = {"Content-Disposition": f'attachment; filename="{screen.title}"'}
            return Response(screen.attachment, media_type="text/plain; charset=utf-8", headers=headers)
        return self._framed(request, screen, level)

    def _metrics(self, accept: str) -> Response:
        """What a Prometheus that may see the page gets: of the runner on which it is mounted, if there is
        one, and of the store. What the page's own client counts says nothing of the program."""
        try:
            if self._app is None:
                self._app = prometheus_app(self._source.mounted or self._source._url)
            found = self._app.answer("/metrics", accept)
        except ImportError as error:
            raise Refusal(501, str(error)) from None
        return Response(found.body, found.status, media_type=found.kind)

    def _framed(self, request: Request, screen: Screen, level: Level, **others: str) -> Response:
        main = rendered(screen.template, screen.values)
        words = self._words(request, level) | {
            "title": screen.title,
            "nav": screen.nav,
            "main": main,
            "mark": mark_of(main) if screen.is_live else "",
            "place": self._source.name,
        }
        response = HTMLResponse(rendered("layout.html", words | others), screen.status)
        return self._with_form(request, response)

    def _screen(self, ask: Ask) -> Screen:
        """What is to be seen there, or what is in the way of it."""
        try:
            return find(ask)
        except MissingError as error:
            return Screen.saying("Not found", str(error), 404, ask)
        except StoreError as error:
            # It may have been put in the place of another one.
            self._source.close()
            return Screen.saying("The store cannot be read", self._source.lack(error), 503, ask)
        except (ArgumentError, CloacaError) as error:
            return Screen.saying("That cannot be shown", str(error), 400, ask)

    def _fragment(self, root: str, view: str, level: Level) -> tuple[str, str]:
        """What a tab that looks at a view gets when something has changed: a mark, and the inner page."""
        path, query = parts_of(view)
        screen = self._screen(Ask(self._source, root, path, query, level))
        main = rendered(screen.template, screen.values) if screen.attachment is None else ""
        return mark_of(main), main

    def _stream(self, request: Request, level: Level) -> Response:
        view = request.query_params.get("view", "/")
        try:
            parts_of(view)
        except ValueError:
            raise Refusal(400, "There is nothing to look at.") from None
        if not self._live.has_room:
            raise Refusal(503, "Too many tabs look at this page.")
        root = request.scope.get("root_path", "")
        told = self._live.listen((root, view, level), request.query_params.get("have", ""))
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(told, media_type="text/event-stream", headers=headers)

    async def _act(self, request: Request, level: Level) -> Response:
        form = await _form(request)
        root, back = request.scope.get("root_path", ""), form.get("back", "/")
        if not is_own(back):
            back = "/"
        ask = Ask(self._source, root, back, {}, level)
        try:
            safety.refuse_forged(request, form.get("form_token", ""), self._hosts)
        except OutdatedForm as refusal:
            said = Screen.saying("That form is outdated", str(refusal), refusal.status, ask, root + back)
            return self._after(request, said, level, back)
        if level != "act":
            raise Refusal(403, "You may look at this page, and change nothing by it.")

        def did() -> tuple[Screen | str | None, bool]:
            return self._did(request, ask, form)

        if "once" in form:
            names = ("form_token", "once", "do", "really", "back")
            sent = repr((safety.who_is(request), *map(form.get, names)))
            mark = hashlib.sha256(sent.encode("utf-8", "replace")).digest()
            screen = await run_in_threadpool(self._once.done, mark, did)
        else:
            screen, _ = await run_in_threadpool(did)
        if not isinstance(screen, Screen):
            return RedirectResponse(root + (screen or back), 303)
        return self._after(request, screen, level, back)

    def _after(self, request: Request, screen: Screen, level: Level, back: str) -> Response:
        """What is seen after a form that was sent from the view `back`."""
        main = rendered(screen.template, screen.values)
        words = self._words(request, level)
        words |= {
            "title": screen.title,
            "nav": screen.nav,
            "main": main,
            "back": back,
            "place": self._source.name,
        }
        return self._with_form(request, HTMLResponse(rendered("layout.html", words), screen.status))

    def _did(self, request: Request, ask: Ask, form: dict[str, str]) -> tuple[Screen | str | None, bool]:
        """What came of a form, for who sent it, and whether something was changed."""
        try:
            done = acts.act(ask, form, safety.who_is(request), _client(request))
        except (CloacaError, LookupError) as error:
            return Screen.saying("That was not done", str(error), 409, ask, ask.root + ask.path), False
        except Exception as error:  # a body of the user may have raised whatever there is
            say(_log, ERROR, "a change by the page failed", raised=error)
            text = f"{type(error).__name__}: {error}"
            return Screen.saying("That was not done", text, 500, ask, ask.root + ask.path), False
        if done.note:
            self._note(request, done.note)
        return done.seen, bool(done.note)

    def _note(self, request: Request, what: str) -> None:
        who, client = show.line(safety.who_is(request)), _client(request) or "?"
        say(_log, INFO, "%s, from %s: %s", who, client, show.line(what))


def _client(request: Request) -> str | None:
    return None if request.client is None else request.client.host


def check_host(host: object) -> str:
    """A host's name as it stands in `Host`.

    Raises:
        ArgumentTypeError: (a `TypeError`) it is no text.
    """
    if not isinstance(host, str):
        raise ArgumentTypeError(f"hosts has {excerpt(host)}; it must be a text, such as 'runs.example.org'")
    return host.lower()


def path_of(request: Request) -> str:
    """The path within the page, wherever that is mounted."""
    root, path = request.scope.get("root_path", ""), str(request.scope["path"])
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path or "/"


def view_of(request: Request) -> str:
    """What is looked at, as a tab's stream asks for it."""
    path = quote(path_of(request), errors="replace")
    query = quote(request.scope.get("query_string", b""), safe=string.punctuation)
    return f"{path}?{query}" if query else path


def is_own(view: str) -> bool:
    """Whether that leads to this page and nowhere else, also in a browser, which leaves out tabs."""
    is_plain = view.isascii() and view.isprintable() and " " not in view
    return is_plain and view.startswith("/") and not view.startswith(("//", "/\\"))


def parts_of(view: str) -> tuple[str, dict[str, str]]:
    """The path and the query of a view.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(view)
    if not parts.path.startswith("/") or parts.netloc:
        raise ValueError(view)
    return unquote(parts.path), dict(parse_qsl(parts.query, max_num_fields=FIELDS_MAX))


def mark_of(main: str) -> str:
    """Equal for equal pages."""
    return hashlib.sha256(main.encode("utf-8", "replace")).hexdigest()[:16]


def _file(name: str) -> Response:
    if name not in STATIC:
        raise Refusal(404, "There is no such file.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(static(name), media_type=STATIC[name], headers=headers)


async def _form(request: Request) -> dict[str, str]:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refusal(415, "A form of this page comes otherwise.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise Refusal(413, "A form of this page is smaller.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        raise Refusal(400, "That form cannot be read.") from None
