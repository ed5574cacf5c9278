"""Runs that a program asks for in a transaction of its own: the store's SQL function `submit`, called by the
program's connection.

Decides nothing: the function and whoever admits what it keeps do. Invariant: nothing is written here but by
the connection that was given, so that what it commits or rolls back is all there is.
"""

from __future__ import annotations

import json
from time import monotonic

from . import attempt, check
from .apart import apart
from .errors import ArgumentError, ArgumentTypeError, RunnerError, WorkflowError, excerpt, typed
from .run import LOOK_SECONDS, Run, result_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ._runs import Runs
    from .result import WorkflowResult
    from .types import Duration
    from .urgency import Urgency

    Rows = list[tuple[str, str]]
    """Ids of runs, and in which transaction they were asked for."""
    Values = tuple[str | None, ...]
    Call = Callable[[Any, str, Values], Any]

NUL = "\u2400"
"""What a text holds in place of a NUL, as the store has it."""
KEY_BYTES_MAX = 1024
"""A run key that waits is in an index with the name of its workflow."""

_SUBMIT = """
    SELECT CAST({}.submit(
        workflow => CAST({} AS text),
        context => wanted.context,
        run_key => wanted.run_key,
        priority => CAST(CAST({} AS text) AS integer),
        at => coalesce(
            TIMESTAMPTZ 'epoch' + CAST(CAST({} AS text) AS interval),
            clock_timestamp() + CAST(CAST({} AS text) AS interval)),
        run_key_ttl => CAST(CAST({} AS text) AS interval)
    ) AS text) AS id, CAST(pg_current_xact_id() AS text) AS xact
    FROM ROWS FROM (
        json_array_elements(CAST(CAST({} AS text) AS json)),
        json_array_elements_text(CAST(CAST({} AS text) AS json))
    ) WITH ORDINALITY AS wanted (context, run_key, place) ORDER BY place"""
_PLACES = 7
_XACT = "SELECT pg_xact_status(CAST(CAST(? AS text) AS xid8)) AS status"


class Wishes:
    """Runs that are to be asked for: contexts as JSON text with their run keys, and what holds of all."""

    def __init__(
        self,
        runner: Runs,
        workflow: str,
        contexts: Sequence[str],
        keys: Sequence[str | None],
        key_seconds: float,
        when: Urgency | None,
    ) -> None:
        priority, at_us, delay_us = when if when is not None else (None, None, None)
        self._runner = runner
        self._values = (
            workflow,
            None if priority is None else str(priority),
            # One that is past is now.
            None if at_us is None else f"{max(at_us, 0)} microseconds",
            None if delay_us is None else f"{delay_us} microseconds",
            f"{round(key_seconds * 1e6)} microseconds",
            f"[{','.join(contexts)}]",
            json.dumps([None if key is None else key.replace("\0", NUL) for key in keys]),
        )

    def ask(self, connection: object) -> list[Run]:
        """Asks for them by a connection that waits.

        Raises:
            ArgumentTypeError: it is no connection that is known here, or one that is awaited.
        """
        driver, is_awaited = _driver(connection)
        if is_awaited:
            raise ArgumentTypeError(
                f"connection is a {_kind(connection)}, which is awaited; use await submit_async(...,"
                " connection=)"
            )
        return self._runs(driver(connection, self._runner._inbox_schema(), self._values))

    async def ask_async(self, connection: object) -> list[Run]:
        """Asks for them by a connection that is awaited."""
        driver, is_awaited = _driver(connection)
        if not is_awaited:
            raise ArgumentTypeError(
                f"connection is a {_kind(connection)}, which would hold up the event loop; use submit(...,"
                " connection=), or an async connection"
            )
        schema = await apart("submit", self._runner._inbox_schema)
        return self._runs(await driver(connection, schema, self._values))

    def _runs(self, rows: Rows) -> list[Run]:
        return [Asked(self._runner, run_id, xact) for run_id, xact in rows]


class Asked(Run):
    """A run that was asked for in a transaction, and is there once that is committed."""

    __slots__ = ("_xact",)

    def __init__(self, runner: Runs, run_id: str, xact: str) -> None:
        super().__init__(runner, run_id, None)
        self._xact = xact

    @property
    def status(self) -> str:
        """As of any run; `Pending` while its transaction is open.

        Raises:
            RunnerError: (a `RuntimeError`) the transaction was rolled back. Otherwise what `Run.status`
                raises.
        """
        if self._result is None and self._watch is None:
            row = self._row(self._runner._open())
            return "Pending" if row is None else str(row["status"])
        return super().status

    async def wait(self, timeout: Duration | None = None) -> WorkflowResult:
        """As of any run, from before the commit on."""
        engine = self._runner._open()
        if attempt.body(engine) is not None:
            return await apart("wait", lambda: self._result_within(timeout))
        from asyncio import sleep

        limit = None if timeout is None else check.seconds(timeout, "timeout")
        deadline = None if limit is None else monotonic() + limit
        while self._result is None and self._watch is None:
            self._result = await apart("look", lambda: self._look(self._runner._open()))
            if self._result is None and self._watch is None:
                left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - monotonic())
                if left <= 0.0:
                    raise TimeoutError(f"run {self.id} is not final after {timeout} s")
                await sleep(left)
        left_s = None if deadline is None else max(0.0, deadline - monotonic())
        return await super().wait(left_s)

    def _look(self, engine: Any) -> WorkflowResult | None:
        row = self._row(engine)
        if row is None:
            return None
        if row["completed_at"] is None:
            # From here on its end is told as that of any other run.
            if not self._runner._paused:
                self._watch = engine.runs.watch_anywhere(self.id)
            return None
        final = row["final_context"]
        ended = row["status"], row["created_at"], row["completed_at"], final or "{}", row["error_message"]
        return result_of(ended, self.id, self._runner._redactor)

    def _row(self, engine: Any) -> dict[str, Any] | None:
        """What the store has of it; `None` while its transaction is open."""
        row: dict[str, Any] | None = engine.runs.run(self.id)
        if row is not None:
            return row
        [found] = engine.store.look(_XACT, [self._xact])
        if found["status"] == "in progress":
            return None
        if found["status"] == "aborted":
            raise RunnerError(
                f"run {self.id} was never started: the transaction that asked for it was rolled back"
            )
        # What has been committed between the two looks is there now.
        row = engine.runs.run(self.id)
        if row is None:
            raise WorkflowError(
                f"run {self.id} is not there: it was cancelled before it began, or a savepoint before it was"
                " rolled back, or it is not kept any more; list_runs() shows those that are"
            )
        return row


def key_that_fits(key: str | None) -> str | None:
    """Raises `ArgumentError` for a run key that is too long to wait."""
    if key is not None and len(key.encode()) > KEY_BYTES_MAX:
        raise ArgumentError(
            f"run_key is {excerpt(key)}, {len(key.encode())} bytes; with connection= at most"
            f" {KEY_BYTES_MAX} fit"
        )
    return key


def is_on_server(url: str) -> bool:
    """Whether that is the URL of a store that programs can ask for runs by transactions of their own."""
    return url.startswith(("postgresql://", "postgres://"))


def refuse_no_server(url: str) -> None:
    """Raises `ArgumentError` if the store is on no server, as its URL tells."""
    if not is_on_server(url):
        raise ArgumentError(
            f"connection= needs a runner whose store is in the same PostgreSQL database, and this one's is"
            f" {excerpt(url)}: a file cannot share a transaction. Call submit() after your commit, with a"
            " run_key"
        )


def _driver(connection: object) -> tuple[Call, bool]:
    """How a connection is asked, and whether that is awaited."""
    for kind in type(connection).__mro__:
        found = _DRIVERS.get((kind.__module__.partition(".")[0], kind.__name__))
        if found is not None:
            return found
    raise ArgumentTypeError(
        f"connection is {excerpt(connection)}, {typed(connection)}; it must be a connection of psycopg or"
        " asyncpg, or a connection or session of SQLAlchemy. Any other calls the SQL function itself:"
        " SELECT cloaca.submit('workflow', '{}')"
    )


def _kind(connection: object) -> str:
    return f"{type(connection).__module__.partition('.')[0]} {type(connection).__name__}"


def _quoted(schema: str) -> str:
    return '"' + schema.replace('"', '""') + '"'


def _text(schema: str, places: Sequence[str]) -> str:
    return _SUBMIT.format(schema, *places)


def _formatted(schema: str) -> str:
    """For drivers that have `%s` for a parameter."""
    return _text(_quoted(schema).replace("%", "%%"), ["%s"] * _PLACES)


def _by_psycopg(connection: Any, schema: str, values: Values) -> Rows:
    from psycopg.rows import tuple_row

    with connection.cursor(row_factory=tuple_row) as cursor:
        return list(cursor.execute(_formatted(schema), values).fetchall())


async def _by_psycopg_async(connection: Any, schema: str, values: Values) -> Rows:
    from psycopg.rows import tuple_row

    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_formatted(schema), values)
        return list(await cursor.fetchall())


async def _by_asyncpg(connection: Any, schema: str, values: Values) -> Rows:
    rows = await connection.fetch(
        _text(_quoted(schema), [f"${place}" for place in range(1, _PLACES + 1)]), *values
    )
    return [(row["id"], row["xact"]) for row in rows]


def _of_sqlalchemy(schema: str, values: Values) -> tuple[Any, dict[str, str | None]]:
    from sqlalchemy import text

    names = [f"cloaca_{place}" for place in range(_PLACES)]
    statement = _text(_quoted(schema).replace(":", "\\:"), [f":{name}" for name in names])
    return text(statement), dict(zip(names, values, strict=True))


def _by_sqlalchemy(connection: Any, schema: str, values: Values) -> Rows:
    return [(row[0], row[1]) for row in connection.execute(*_of_sqlalchemy(schema, values)).all()]


async def _by_sqlalchemy_async(connection: Any, schema: str, values: Values) -> Rows:
    return [(row[0], row[1]) for row in (await connection.execute(*_of_sqlalchemy(schema, values))).all()]


_DRIVERS: dict[tuple[str, str], tuple[Call, bool]] = {
    ("psycopg", "Connection"): (_by_psycopg, False),
    ("psycopg", "AsyncConnection"): (_by_psycopg_async, True),
    ("asyncpg", "Connection"): (_by_asyncpg, True),
    ("asyncpg", "PoolConnectionProxy"): (_by_asyncpg, True),
    ("sqlalchemy", "Connection"): (_by_sqlalchemy, False),
    ("sqlalchemy", "Session"): (_by_sqlalchemy, False),
    ("sqlalchemy", "scoped_session"): (_by_sqlalchemy, False),
    ("sqlalchemy", "AsyncConnection"): (_by_sqlalchemy_async, True),
    ("sqlalchemy", "AsyncSession"): (_by_sqlalchemy_async, True),
    ("sqlalchemy", "async_scoped_session"): (_by_sqlalchemy_async, True),
}
"""By the module and the name of their classes: none of them is imported for that."""
