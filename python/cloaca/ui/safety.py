"""Who may see the page and who may change something by it, and what a browser may do with it.

Invariant: what is not allowed on purpose is refused, before anything is read.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

Level: TypeAlias = Literal["none", "view", "act"]
Answer: TypeAlias = Level | tuple[Level, str]
"""What somebody may do, and perhaps their name."""
Access: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]

COOKIE = "cloaca_page"
WHO = "cloaca_who"
"""Where a request's scope has the name that `access` told."""
SECRET_CHARS = 43
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
FORWARDED = re.compile(
    r"forwarded|proxy|ssl-client|(client|connecting|connection|real)-?ip$"
    r"|^(akamai|cdn|cf|fastly|fly|incap|remote|tailscale)-"
    r"|^x-(akamai|amz|amzn|appengine|arr|azure|cdn|cloud|edge|envoy|goog|nf|original|originating|real|remote"
    r"|rewrite|ssl|sucuri|vercel)-"
    r"|^(via|x-scheme|x-varnish)$"
)
"""Headers by which a proxy tells for whom it asks, or that it does: `X-Forwarded-For`, `Client-IP`, and what
those of one vendor begin with. No browser sends one."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, a browser sends "Origin: null" with a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """Why a request gets no answer, and the status to say it with."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class OutdatedForm(Refusal):
    """It is a form of this page that the browser's cookie does not fit, or no longer."""

    def __init__(self) -> None:
        super().__init__(
            403,
            "Nothing was changed: that form is older than what your browser keeps for this page, as after it"
            " was started anew or its cookies were cleared; or it keeps no cookie for this page at all. Load"
            " anew what you looked at, and press the button there.",
        )


async def level_of(request: Request, access: Access | None, hosts: frozenset[str]) -> Level:
    """What who asks may do.

    Raises:
        Refusal: nothing, and why.
    """
    host = request.headers.get("host", "")
    if hosts and host.lower() not in hosts:
        raise Refusal(421, "This page is not for that host; hosts= of cloaca.ui.app names its hosts.")
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
        request.headers.get("sec-fetch-mode") != "navigate" or request.method not in ("GET", "HEAD")
    ):
        raise Refusal(403, "Another site may link to this page, and nothing else.")
    if access is None:
        refuse_strangers(request, host if not hosts else "localhost")
        return "act"
    answer = access(request)
    level = await answer if inspect.isawaitable(answer) else answer
    if isinstance(level, tuple) and len(level) == 2:
        level, who = level
        if who is not None:
            request.scope[WHO] = str(who)
    if level not in ("view", "act"):
        raise Refusal(403, "You may not see this page.")
    return level


def who_is(request: Request) -> str:
    """Who asks, as far as `access` or the host's login has told."""
    told = request.scope.get(WHO) or getattr(request.scope.get("user"), "display_name", "")
    return str(told) or "somebody"


def refuse_strangers(request: Request, host: str) -> None:
    """Lets only this machine pass, by a name of its own: another name may be a stranger's that points here.

    Raises:
        Refusal: it is not this machine, or it can't be told.
    """
    client = request.client.host if request.client is not None else ""
    is_local = client == "::1" or client.startswith(("127.", "::ffff:127."))
    if not is_local or name_of(host) not in LOCAL_NAMES or is_forwarded(request):
        raise Refusal(
            403, "This page answers only the machine that it runs on, unless it is given access= or a token."
        )


def is_forwarded(request: Request) -> bool:
    """Whether a proxy says that it asks for somebody else."""
    # No browser speaks as nginx does where nobody told it how.
    if request.scope.get("http_version") == "1.0":
        return True
    return any(map(FORWARDED.search, request.headers))


def name_of(host: str) -> str:
    """The name in a `Host` header, without its port; nothing of one that is none."""
    try:
        parts = urlsplit(f"//{host}")
        # To ask for the port raises if it is no number.
        is_plain = parts.port is None or parts.port >= 0
        return (parts.hostname or "") if is_plain and parts.username is None else ""
    except ValueError:
        return ""


def refuse_forged(request: Request, token: str, hosts: frozenset[str]) -> None:
    """Lets only a form of this page pass.

    Raises:
        Refusal: it is another's.
        OutdatedForm: the browser has no cookie, or that of another form.
    """
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if origin is None:
        is_own = request.headers.get("sec-fetch-site") == "same-origin"
    else:
        try:
            is_own = urlsplit(origin).netloc.lower() in {host.lower()} | hosts
        except ValueError:  # no browser sends that
            is_own = False
    if not is_own:
        raise Refusal(403, "That form was not sent by this page. Behind a proxy, let it pass Host on.")
    known = request.cookies.get(COOKIE, "")
    if len(known) != SECRET_CHARS or not hmac.compare_digest(known.encode(), token.encode()):
        raise OutdatedForm


def form_token(request: Request) -> str:
    """What a form of this page carries, and its cookie, too."""
    known = request.cookies.get(COOKIE, "")
    is_one = len(known) == SECRET_CHARS and all(c.isalnum() or c in "-_" for c in known)
    return known if is_one else secrets.token_urlsafe(32)


def set_cookie(response: Response, request: Request, name: str, value: str) -> None:
    """A cookie of this page, for this page only."""
    path = request.scope.get("root_path", "") or "/"
    response.set_cookie(
        name,
        value,
        path=path,
        httponly=True,
        samesite="strict",
        secure=request.scope.get("scheme") == "https",
    )


class TokenAccess:
    """Lets in who knows a token: by a header, by a link that is followed once, or by typing it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        # A cookie that tells nobody the token.
        self.proof = hmac.new(self._token, b"cloaca page", hashlib.sha256).hexdigest()
        # A host's ports share their cookies: who has entered one page stays there while entering another.
        self.cookie = f"cloaca_token_{self.proof[:8]}"

    def knows(self, token: str) -> bool:
        """Whether that is the token."""
        return hmac.compare_digest(self._token, token.encode("utf-8", "replace"))

    def _is_borne(self, given: str) -> bool:
        """Whether a header has it: letters beyond ASCII come in UTF-8 from one, as Latin-1 from another."""
        return self.knows(given) or hmac.compare_digest(self._token, given.encode("latin-1"))

    def __call__(self, request: Request) -> Level:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # What else is white space in Latin-1 may be half a letter.
        if scheme.lower() == "bearer" and self._is_borne(given.strip(" \t")):
            return "act"
        proof = request.cookies.get(self.cookie, "")
        return "act" if hmac.compare_digest(proof.encode(), self.proof.encode()) else "none"
