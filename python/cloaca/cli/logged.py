"""Log lines as JSON, one object a line, for what gathers logs. Decides nothing.

Invariant: whatever a message holds, it is one line of printable ASCII.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .. import attempt, tracing
from ..plain import ABOUT, describe
from ..terminal import clean, cleaned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Json(logging.Formatter):
    """Formats a record as an object with `at level logger text`, what it is about where that is known
    (`run workflow trigger task attempt`), `error` with a traceback, and the ids of the current span.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "text": _text(record),
        }
        about = {name: getattr(record, name, None) for name in ABOUT}
        if not any(value is not None for value in about.values()):
            about = _here()
        told |= {name.removeprefix("cloaca_"): value for name, value in about.items() if value is not None}
        if record.exc_text is None and record.exc_info and record.exc_info[0] is not None:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            told["error"] = record.exc_text
        return json.dumps(told | _span(), default=str)


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as raised:
        # Its values do not fit its text: the line is told all the same.
        return f"{record.msg} ({describe(raised)})"


def _here() -> dict[str, Any]:
    """What the body is about that logs."""
    found = attempt.innermost()
    if found is None:
        return {}
    _, job, name, end = found
    if end is not None:
        run, workflow = end
        return {"cloaca_run": run, "cloaca_workflow": workflow}
    if job is None:
        return {"cloaca_trigger": name}
    return {"cloaca_run": attempt.run_id(job), "cloaca_task": name, "cloaca_attempt": job.attempt}


def _span() -> dict[str, str]:
    if tracing.active() is None:
        return {}
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}


def install() -> None:
    """Has everything that is logged written so, on standard error, in place of what the program has set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json())
    root = logging.getLogger()
    level = root.level if root.handlers else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)


class Plain(logging.Formatter):
    """Formats a record as text of which no character reaches a terminal that it would not simply show."""

    def format(self, record: logging.LogRecord) -> str:
        """Its lines; a line of ours is one, whatever names stand in it, before its traceback."""
        return cleaned(super().format(record).replace("\t", "    "))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The first of them."""
        if record.name == "cloaca" or record.name.startswith("cloaca."):
            record.message = clean(record.message)
        return super().formatMessage(record)


def plain(form: str) -> None:
    """Has everything that is logged written in that form, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
