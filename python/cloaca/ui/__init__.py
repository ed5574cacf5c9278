"""The page: a store in the browser, mounted in a program of yours or served by `python -m cloaca.ui`.

Decides nothing but what it may show, and to whom. What it shows is read by `cloaca.reading`; what it changes,
the runner changes on which it is mounted.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

    from ..runner import DefaultRunner
    from .page import Page
    from .safety import Access

__all__ = ["app"]


def app(
    runner_or_url: DefaultRunner | str | os.PathLike[Any],
    *,
    access: Access | None = None,
    hosts: Iterable[str] = (),
) -> Page:
    """An ASGI application that shows a store: `app.mount("/cloaca", cloaca.ui.app(runner))`.

    Mounted on a runner it also retries, cancels, switches, pauses and previews; by a URL it only shows.
    Opens the store with the first request, and nothing before.

    Args:
        runner_or_url (DefaultRunner | str | PathLike): a runner of this process, or a store's URL as
            `DefaultRunner` takes it. A store in memory has no page.
        access (Callable | None): `access(request)` says `"none"`, `"view"` or `"act"` to each request, which
            is a `starlette.requests.Request`; it may be `async`. Without it the page answers only this
            machine, on a name of this machine, and not through a proxy, and lets it act.
        hosts (Iterable[str]): names of hosts under which it is asked for, with the port unless that is the
            usual one. Needed only behind a proxy that changes `Host`; given, no other is answered.

    Raises:
        ImportError: starlette or jinja2 is missing; `pip install "cloaca[ui]"` brings both.
        ArgumentTypeError: (a `TypeError`) `access` is not callable, or `hosts` is one text.
        ArgumentError, UrlError: (a `ValueError`) the store is in memory.
    """
    try:
        import jinja2
        import starlette
    except ImportError as error:
        raise ImportError(
            f'cloaca.ui needs {error.name}; pip install "cloaca[ui]"', name=error.name
        ) from error
    from .page import Page

    del jinja2, starlette
    return Page(runner_or_url, access=access, hosts=hosts)
