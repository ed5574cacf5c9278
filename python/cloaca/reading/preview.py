"""What a poll would come to: the trigger's function, called here, by what the store has on record.

Invariant: nothing of it is kept, nobody who serves the store notices, and what the function
does by itself, it does.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import cast

from .. import _cloaca, attempt, filters, registry, rows
from ..answer import PartlyError, complete, later, ruled
from ..check import microseconds
from ..config import DefaultRunnerConfig
from ..context import decode_value, encode_within
from ..errors import excerpt
from ..limits import limits_json
from ..near import hint
from ..plain import describe
from ..policy import RetryAfter, pause_of
from ..redact import hide_tick
from ..run_end import NONE_ENDED
from ..tick import Tick, Ticked
from .looks import Looks
from .store import MissingError, names, now, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..answer import Fire, Ruling
    from ..trigger import TriggerDefinition
    from ..types import GateRow, RunDetails, RunSummary, TickAnswer
    from .store import Reader

STATUSES = {1: "Completed", 2: "Failed", 4: "Cancelled"}
CONTEXT_BYTES_MAX = DefaultRunnerConfig().context_bytes_max
"""As the default of a runner: whose runner allows other sizes is told otherwise there."""

_ENDED = """
    SELECT runs.id AS id, outcome, ends.due_at AS due_at, number <= reopened AS is_past,
        ends.context AS context, cause
    FROM ends JOIN runs ON runs.row = ends.run
        JOIN listeners AS heard ON heard.workflow = ends.workflow AND heard.listener = ends.listener
    WHERE ends.listener = ?1 AND (wanted & outcome) <> 0 ORDER BY ends.row LIMIT 1"""


def preview(reader: Reader, name: str) -> TickAnswer:
    """What a poll of a trigger, or a moment of a cron, would come to now, as `DefaultRunner.tick` tells it
    with `dry_run=True`, beside whoever serves the store.

    Its function is called in this process, which must have declared it, and finds in its tick what is on
    record. Nothing starts, and nothing is kept: neither a cursor nor a failure. What would become of its
    fires the store says, which plays them as those of a real poll in a transaction that it takes back.

    There is no runner: `tick.runner`, and `cloaca.current_run().runner`, have the methods of one that read,
    which answer by what is on record, and raise `RunnerError` for the others.

    Raises:
        MissingError: (a `LookupError`) this process declares no such trigger.
        StoreError: (a `RuntimeError`) it fires, and the store cannot be written to, so that it cannot say
            what would become of that.
    """
    declared = registry.triggers.get(name)
    if declared is None:
        if name in names(reader):
            raise MissingError(
                f"trigger {excerpt(name)} is in the store, but not declared by the program that was"
                " imported; import the one that declares it"
            )
        raise unknown("trigger", name, "triggers", sorted(registry.triggers))
    is_cron = declared.kind.cron is not None
    row = next((each for each in reader.native.named(name) if ("cron_expression" in each) == is_cron), None)
    run = None if declared.kind.on_run is None else _ended(reader, row)
    decided = _ruled(reader, declared, row, run)
    answer = rows.tick(decided)
    if answer["fires"]:
        fires, cursor, *_ = cast("Any", decided)
        for fire, gate in zip(answer["fires"], _gates(reader, declared, row, fires, cursor), strict=True):
            fire["gate"] = gate
    if is_cron:
        answer["cursor"] = None
    mask = reader.mask()
    kept = reader.of_trigger(mask, name)
    if run is not None:
        kept = kept.with_those(reader.of_told(mask, run))
    return hide_tick(answer, mask, kept)


class _Asks:
    """What a tick says of the trigger's runs."""

    def __init__(self, reader: Reader, name: str, row: dict[str, Any] | None) -> None:
        self._reader = reader
        self._name = name
        self._row = row

    def unfinished(self) -> int:
        """How many are not over."""
        return len(_held(self._reader, self._row))

    def last_run(self) -> RunSummary | None:
        """The newest, without its context."""
        found = self._reader.native.runs({**filters.wanted(trigger=self._name), "contexts": False}, 1)
        return rows.run(found[0], False) if found else None


def _ruled(
    reader: Reader, declared: TriggerDefinition, row: dict[str, Any] | None, run: RunDetails | None
) -> Ruling:
    tick = _tick(reader, declared, row)
    if declared.kind.cron is not None and not declared.takes_tick:
        # Its function is never called: most are there only to be decorated.
        assert tick._moment is not None, "a cron has a moment"
        text = encode_within(CONTEXT_BYTES_MAX, tick._moment, "the context")
        fires: list[Fire] = [(text, None, None, None, None, None, None, None)]
        return fires, None, "", None, None
    function: Any = declared.function
    arguments: tuple[Any, ...] = (tick,) if declared.takes_tick else ()
    if declared.kind.on_run is not None:
        if run is None:
            return NONE_ENDED
        arguments = (run,)
    came: list[int] = []
    try:
        with _noting(came), attempt.inside(None, None, declared.name, host=Looks(reader)):
            answer = function(*arguments)
            whole: Any = complete(Ticked(tick, answer), _completed)
        return ruled(whole.answer, tick, CONTEXT_BYTES_MAX, declared.overlap)
    except RetryAfter as wish:
        return later(wish.delay_us, pause_of(wish), [])
    except PartlyError as partly:
        kept = partly.fires(tick, CONTEXT_BYTES_MAX, declared.overlap)
        return kept, None, "", describe(partly.raised), None
    except BaseException as raised:
        if came:
            # Who asks has lost his patience, whatever the function makes of that.
            raise KeyboardInterrupt from None
        # A poll that says `sys.exit` is an error of that poll, and no end of who asks.
        return [], None, "", describe(raised), None


@contextmanager
def _noting(came: list[int]) -> Iterator[None]:
    """Notes in `came` that somebody presses Ctrl-C: what a function raises of that kind by itself fails its
    poll. Where it is heard otherwise, each one counts as pressed."""
    import signal
    import threading

    def hear(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        try:
            yield
        except KeyboardInterrupt:
            came.append(signal.SIGINT)
            raise
        return
    signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is hear:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _ended(reader: Reader, row: dict[str, Any] | None) -> RunDetails | None:
    """The run of whose end a trigger is to be told next."""
    found = [] if row is None else reader.native.query(_ENDED, [row["row"]])
    run = reader.native.run(found[0]["id"]) if found else None
    if run is None:
        return None
    if found[0]["is_past"]:
        run |= {"status": STATUSES[found[0]["outcome"]], "completed_at": rows.moment(found[0]["due_at"])}
        run |= {"final_context": found[0]["context"], "error_message": found[0]["cause"]}
    return rows.run_with_tasks(run, [])


def _completed(coroutine: Any) -> object:
    from .._aio import run_coroutine, shared_loop

    return run_coroutine(coroutine, shared_loop())


def _tick(reader: Reader, declared: TriggerDefinition, row: dict[str, Any] | None) -> Tick:
    at = rows.moment(microseconds(now()))
    last = None if row is None else next(iter(reader.native.ticks(row["row"], 1, 0)), None)
    failed = last is not None and last["outcome"] == "error"
    return Tick(
        declared.name,
        None if row is None else row["cursor"],
        at,
        None if row is None else row["last_fired_at" if declared.kind.cron is None else "last_run_at"],
        0 if row is None else row["failures"],
        last["reason"] if last is not None and failed else None,
        None if declared.kind.cron is None else _moment(declared, row, at),
        _Asks(reader, declared.name, row),
    )


def _moment(declared: TriggerDefinition, row: dict[str, Any] | None, at: str) -> str:
    """What a run of a cron's moment begins with."""
    given = None if row is None else row.get("context")
    found: dict[str, Any] = (decode_value(given) if given else {}) | {
        "scheduled_time": at,
        "schedule_id": None if row is None else row["id"],
        "schedule_timezone": declared.kind.timezone,
        "schedule_expression": declared.kind.cron,
    }
    return encode_within(CONTEXT_BYTES_MAX, found, "the context")


def _gates(
    reader: Reader,
    declared: TriggerDefinition,
    row: dict[str, Any] | None,
    fires: list[Fire],
    cursor: str | None,
) -> list[GateRow]:
    """What would become of the fires: the store plays them as those of a real poll, and undoes that."""
    name = declared.kind.workflow or ""
    if (workflow := registry.workflow(name)) is None:
        meant = hint(name, "workflows", registry.names())
        why = f"trigger {excerpt(declared.name)} fired unknown workflow {excerpt(name)}{meant}"
        return [rows.gate("fail", None, why) for _ in fires]
    limits = limits_json(workflow.concurrency, workflow.throttle, workflow.rate_limit)
    asked = workflow.name, workflow.version, workflow.priority, limits
    with closing(_cloaca.Client.open(reader.url)) as client:
        if declared.kind.cron is not None and not declared.takes_tick:
            # As `tick` has it: a moment beside the calendar starts, whatever is unfinished.
            told = client.foretell_starts(asked, [(text, when) for text, *_, when, _, _ in fires])
        else:
            terms = declared.kind.allow_concurrent, declared.overlap or "allow"
            cron = None if declared.kind.cron is None or row is None else row["row"]
            told = client.foretell(declared.name, terms, asked, fires, cursor, _held(reader, row), cron)
    return [rows.gate(*each) for each in told]


def _held(reader: Reader, row: dict[str, Any] | None) -> list[tuple[str, bytes | None]]:
    found = [] if row is None else reader.native.query(rows.UNFINISHED, [row["row"]])
    return [(each["id"], each["context_hash"]) for each in found]
