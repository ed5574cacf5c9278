"""The templates, which escape everything that is not made for them."""

from __future__ import annotations

from functools import cache, partial
from urllib.parse import quote

import jinja2

from ..why import ends_of
from . import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


@cache
def environment() -> jinja2.Environment:
    """All templates of the page."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        finalize=show.harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters.update(
        line=show.line,
        encoded=show.encoded,
        quoted=partial(quote, safe="", errors="replace"),
        lines=show.lines,
        short=show.short,
        sentence=show.sentence,
        json=lambda value: show.lines(show.as_json(value)),
        moment=show.moment,
        span=show.span,
        ends=lambda trigger: ends_of(trigger.on_run, trigger.on_run_status),
        count=show.count,
        badge=show.badge,
        in_zone=show.in_zone,
        colour=show.colour,
    )
    found.globals.update(link=show.link, between=show.between, under_way_since=show.under_way_since)
    return found


def rendered(name: str, values: Mapping[str, Any]) -> str:
    """A template with its values."""
    return environment().get_template(name).render(values)
