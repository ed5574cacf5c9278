"""What is kept of what bodies logged, as listings show it.

Decides nothing. Invariant: where lines were left out, whoever looks can tell how many.
"""

from __future__ import annotations

from .errors import ArgumentError, ArgumentTypeError, excerpt
from .rows import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .hidden import Secrets
    from .types import LogRow

    Query = Callable[[str, list[Any]], list[dict[str, Any]]]

_LINES = """
    SELECT row, at, level, logger, text, error, task, attempt, callback FROM logs
    WHERE run = (SELECT row FROM runs WHERE id = ?1) AND (CAST(?2 AS TEXT) IS NULL OR task = ?2)
        AND (CAST(?3 AS BIGINT) IS NULL OR attempt = ?3) AND level >= ?4 AND row > ?5"""
NEWEST = f"{_LINES} ORDER BY row DESC LIMIT ?6"
BEHIND = f"{_LINES} ORDER BY row LIMIT ?6"
COUNT = f"SELECT count(*) AS many FROM ({_LINES}) AS found"
_WAY_OUT = 'it must be a name such as "WARNING", or a number'
LEFT_OUT = "SELECT left_out FROM logged WHERE run = (SELECT row FROM runs WHERE id = ?1)"


def level_of(value: object) -> int:
    """How grave a line is at least, by its name or number; none is 0.

    Raises:
        ArgumentError: (a `ValueError`) there is no level of that name.
        ArgumentTypeError: (a `TypeError`) it is neither.
    """
    if value is None:
        return 0
    if isinstance(value, str):
        import logging

        names = logging.getLevelNamesMapping()
        found = names.get(value.strip().upper(), names.get(value.strip()))
        if found is None:
            raise ArgumentError(f"level is {excerpt(value)}; {_WAY_OUT}")
        return found
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"level is {excerpt(value)}; {_WAY_OUT}")
    return value


def found(
    query: Query,
    run_id: str,
    secrets: Secrets,
    *,
    task: str | None,
    attempt: int | None,
    level: int,
    after: int | None,
    limit: int,
) -> tuple[list[LogRow], int]:
    """Lines of a run, oldest first: the newest ones, or those behind `after`; and how many were left out."""
    sql = NEWEST if after is None else BEHIND
    rows = query(sql, [run_id, task, attempt, level, after or 0, limit])
    if after is None:
        rows.reverse()
    left_out = query(LEFT_OUT, [run_id])
    return [_row(row, secrets) for row in rows], left_out[0]["left_out"] if left_out else 0


def counted(query: Query, run_id: str, task: str | None, attempt: int | None, level: int) -> int:
    """How many lines of a run are kept that pass the filters."""
    many: int = query(COUNT, [run_id, task, attempt, level, 0])[0]["many"]
    return many


def _row(row: dict[str, Any], secrets: Secrets) -> LogRow:
    import logging

    return {
        "number": row["row"],
        "at": moment(row["at"]),
        "level": logging.getLevelName(row["level"]),
        "logger": secrets.hide(row["logger"]),
        "text": secrets.hide(row["text"]),
        "task": row["task"],
        "attempt": row["attempt"],
        "callback": row["callback"],
        "error": secrets.hide_maybe(row["error"]),
    }
