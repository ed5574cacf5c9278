"""How a body travels to another process: as `module:qualname`, with what it is given as JSON, and back.

Decides which functions can travel, and says of the others why they cannot.
Invariant: what comes back is plain text and numbers, whatever the body returned or raised.
"""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext, suppress
from typing import NamedTuple

from .. import attempt, imported
from ..answer import BeyondError, PartlyError, complete, later, ruled
from ..attempt import inside
from ..context import Context, decode_value, encode_within
from ..current import NOT_HERE
from ..end import left_by, raised_by
from ..errors import CloacaError, RunnerError, TriggerError, WorkflowError, excerpt
from ..job import Job, Raised
from ..kind import is_a, is_awaitable
from ..policy import pause_of, wish_of
from ..task_handle import TaskHandle
from ..tick import Tick
from . import program
from .trace import RemoteTraceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Never

    from ..answer import Fire, Ruling
    from ..failing import Kind
    from ..job import JobParts
    from ..logbook import Gathered, Gathering
    from ..telemetry.spans import Within
    from ..tick import TickState

_calls = threading.local()
_WAY_OUT = "define it with def at the top of a module, or leave executor out"


class Body(NamedTuple):
    """Where a function is found."""

    module: str
    qualname: str
    program: program.Program | None
    depth: int
    """So many decorators stand around it there, which it is to be called without."""


class Attempt(NamedTuple):
    """What an attempt is given."""

    body: Body
    job: JobParts
    task_id: str
    workflow: str
    takes_handle: bool
    context: str
    checkpoint: str | None
    context_bytes_max: int
    tells_left: bool
    """Whether it is to be told what its body had changed of the context when it raised: that may have to be
    hidden."""
    trace: dict[str, str] | None = None
    """What is current of OpenTelemetry while it runs."""
    log_bytes_max: int | None = None
    """Of what it logs so much is to come back with its end; nothing if that is not kept."""


class RemoteError(Exception):
    """What a body raised in another process, by its text; the traceback there is its cause."""


def error_of(raised: Raised) -> RemoteError:
    """The exception that stands for what was raised elsewhere."""
    error = RemoteError(raised.text)
    error.__cause__ = RemoteTraceback(raised.trace or raised.text)
    return error


class Left(NamedTuple):
    """What a body left: a context, as JSON, and what it logged."""

    context: str
    logged: Gathered | None = None


class Failed(NamedTuple):
    """What a body raised, what it had made of its context by then, as JSON, if that is asked for, and what it
    logged."""

    raised: Raised
    left: str | None
    logged: Gathered | None = None


class Poll(NamedTuple):
    """What a poll is given."""

    body: Body
    trigger: str
    state: TickState | None
    """What its tick tells; `None` if the function takes none."""
    unfinished: int
    context_bytes_max: int
    overlap: str | None


class Polled(NamedTuple):
    """What a poll came to: a ruling as the engine takes it, and what went wrong, if something did."""

    ruling: Ruling
    error: str | None
    raised: Raised | None
    """What the function raised; `None` if its answer was none, of which no traceback tells more."""

    @property
    def kind(self) -> Kind:
        """What makes errors the same: their class and where they were raised."""
        if self.raised is None:
            return (self.error or "").partition(":")[0], "", 0
        places = [line for line in (self.raised.trace or "").splitlines() if line.startswith("  File ")]
        return self.raised.kind, places[-1] if places else "", 0

    def shown(self) -> RemoteError | None:
        """The exception that stands for what the function raised."""
        return None if self.raised is None else error_of(self.raised)


def check_travels(
    function: Callable[..., Any],
    what: str,
    executor: str,
    error: type[WorkflowError] | type[TriggerError] = WorkflowError,
) -> None:
    """Refuses at its declaration what no other process could find.

    Args:
        what: names the task or trigger.

    Raises:
        WorkflowError: or `error`: it has no name there, because it is a lambda, stands in a function or
            belongs to an object; or it stands in a notebook.
    """
    why = _why_not(function)
    if why is not None:
        raise error(
            f'{what} runs in executor "{executor}", where it is found by its name in its module, and {why}'
        )


def _why_not(function: Any) -> str | None:
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    owner = getattr(function, "__self__", None)
    if not isinstance(name, str) or not isinstance(module, str):
        return f"{excerpt(function)} has none; {_WAY_OUT}"
    if "<lambda>" in name:
        return f"a lambda has none; {_WAY_OUT}"
    if "<locals>" in name:
        outer = name.partition(".<locals>")[0]
        return f"{name.rpartition('.')[2]} is defined within {outer}, where nobody else can look; {_WAY_OUT}"
    if owner is not None and not isinstance(owner, type) and type(owner).__name__ != "module":
        kind = type(owner).__name__
        return f"it is a method of a {kind} that exists only here; {_WAY_OUT}, and make the object in it"
    if module == program.MAIN and program.here() is None:
        return (
            "it stands in a notebook or at a prompt, which no other process can import; move it into a"
            " module, a file beside the notebook, and import it from there"
        )
    return None


def body_of(
    function: Any,
    what: str,
    decorator: str = "@task",
    error: type[WorkflowError] | type[TriggerError] = WorkflowError,
) -> Body:
    """Where a function that `check_travels` let pass is found.

    Raises:
        WorkflowError: or `error`: something else goes by its name there.
    """
    module, qualname = function.__module__, function.__qualname__
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    inner, depth = found, 0
    while inner != function and inner is not None:
        inner, depth = getattr(inner, "__wrapped__", None), depth + 1
    if inner is None:
        raise error(
            f"{what} is to be found as {module}:{qualname}, which is {excerpt(found)} and not its"
            " function; it was renamed, replaced or deleted, or a decorator without functools.wraps stands"
            f" around it: put that below {decorator}"
        )
    return Body(module, qualname, program.here() if module == program.MAIN else None, depth)


def is_inside() -> bool:
    """Whether a body that has travelled is being called on this thread, or its module imported for it."""
    return getattr(_calls, "depth", 0) > 0


def call(what: Attempt) -> Left | Failed:
    """Makes an attempt here. Raises only what ends this process."""
    _calls.depth = getattr(_calls, "depth", 0) + 1
    context = Context()
    gathering = None if what.log_bytes_max is None else _gathering(what.log_bytes_max)
    try:
        with nullcontext() if gathering is None else gathering:
            function = _found(what.body)
            context = Context._wrap(decode_value(what.context))
            left = _made(what, function, context, gathering)
            return left if gathering is None else left._replace(logged=gathering.gathered())
    except BaseException as raised:
        if _is_stopping():
            raise
        # SystemExit and KeyboardInterrupt too: here they can only mean that this attempt failed.
        left_json = None
        if what.tells_left:
            with suppress(Exception):
                left_json = encode_within(what.context_bytes_max, context, "the context that it left")
        return Failed(raised_by(raised), left_json, None if gathering is None else gathering.gathered())
    finally:
        _calls.depth -= 1


def _gathering(bytes_max: int) -> Gathering:
    # Its `logging` is a fourth of what the package costs to import.
    from ..logbook import Gathering

    return Gathering(bytes_max)


def _made(what: Attempt, function: Callable[..., Any], context: Context, gathering: Gathering | None) -> Left:
    handle = None
    if what.takes_handle:
        handle = FarHandle(Job(*what.job), what.task_id, what.checkpoint)
    entered = attempt.inside(Elsewhere(what.workflow), Job(*what.job), what.task_id)
    entered.trace, entered.lines = _traced(what.trace), gathering
    with entered:
        returned = function(context) if handle is None else function(context, handle)
        if is_awaitable(returned):
            returned = _run(returned)
    left = left_by(what.task_id, context, returned)
    return Left(encode_within(what.context_bytes_max, left, "the context that it left"))


def _traced(headers: dict[str, str] | None) -> Within | None:
    """What is current there, if that process has the API of OpenTelemetry at all."""
    if headers:
        with suppress(ImportError):
            from ..telemetry.spans import within

            return within(headers)
    return None


def poll(what: Poll) -> Polled:
    """Makes a poll here. Raises only what ends this process."""
    _calls.depth = getattr(_calls, "depth", 0) + 1
    tick = None
    fires: list[Fire] = []
    try:
        function = _found(what.body)
        if what.state is not None:
            tick = Tick(what.trigger, *what.state, body=FarTick(what.trigger, what.unfinished))
        with attempt.inside(Elsewhere(""), None, what.trigger):
            answer = complete(function() if tick is None else function(tick), _run, tick)
        return Polled(ruled(answer, tick, what.context_bytes_max, what.overlap), None, None)
    except PartlyError as partly:
        # What it gave with cursors before it raised counts.
        fires = partly.fires(tick, what.context_bytes_max, what.overlap)
        if is_a(partly, BeyondError) and (goes_on := partly.ruling(fires)) is not None:
            return Polled(goes_on, None, None)
        error = partly.raised
    except BaseException as raised:
        error = raised
    finally:
        _calls.depth -= 1
    if _is_stopping():
        raise error
    delay_us = wish_of(error)
    if delay_us is not None:
        return Polled(later(delay_us, pause_of(error), fires), None, None)
    # SystemExit and KeyboardInterrupt too: here they can only mean that this poll failed.
    told = raised_by(error)
    shown = None if is_a(error, CloacaError) else told
    return Polled((fires, None, "", told.text, None), told.text, shown)


def _run(coroutine: Any) -> object:
    import asyncio

    return asyncio.run(_awaited(coroutine))


async def _awaited(returned: Any) -> Any:
    return await returned


def _found(body: Body) -> Callable[..., Any]:
    found: Any
    if body.module == program.MAIN:
        found = program.imported(body.program)
    else:
        from importlib import import_module

        found = import_module(body.module)
    for part in body.qualname.split("."):
        found = getattr(found, part)
    for _ in range(body.depth):
        found = found.__wrapped__
    function: Callable[..., Any] = found
    return function


def _is_stopping() -> bool:
    is_here = imported.found("cloaca.bodies.child", "is_here")
    is_stopping = imported.found("cloaca.bodies.child", "is_stopping")
    return bool(is_here is not None and is_here() and is_stopping is not None and is_stopping())


class Elsewhere:
    """Stands for the engine of another process: says of it what came with the attempt."""

    def __init__(self, workflow: str) -> None:
        self._workflow = workflow
        self.jobs = self.runs = self

    def workflow_of(self, job: Job) -> str:
        """The workflow of the attempt's run."""
        return self._workflow

    def is_to_end(self, job: Job) -> bool:
        """Whether this call was stopped."""
        return _is_stopping()

    def run(self, run_id: str) -> Never:
        """Raises `RunnerError`: only the process of the runner reads the store."""
        raise RunnerError(
            f"run {run_id} is kept where its runner is, and this body runs in another process; hand on in its"
            " context what it has to know of the trigger"
        )


class FarTick:
    """What a tick in another process asks the engine: that was asked before."""

    def __init__(self, trigger: str, unfinished: int) -> None:
        self._trigger = trigger
        self._unfinished = unfinished

    def unfinished(self) -> int:
        """How many runs of the trigger were not over when its poll began."""
        return self._unfinished

    def last_run(self) -> Never:
        """Raises `RunnerError`: only the process of the runner reads the store."""
        raise RunnerError(
            f"trigger '{self._trigger}' is polled in another process, which does not read the store; keep in"
            " tick.cursor what it has to know of its last run, or let it poll without executor"
        )


class FarHandle(TaskHandle):
    """What a task in another process knows of itself. What needs the runner raises."""

    __slots__ = ()

    def __init__(self, job: Job, task_id: str, checkpoint: str | None) -> None:
        self._job = job
        self._checkpoint = checkpoint
        self._body = inside(None, job, task_id)
        self._open = True
        self.task_id = task_id

    @property
    def cancelled(self) -> bool:
        """Whether this call was stopped: it had SIGTERM, and SIGKILL follows."""
        return _is_stopping()

    @property
    def runner(self) -> Never:
        """Raises `RunnerError`: it is in another process."""
        raise RunnerError(NOT_HERE)

    def is_current(self) -> Never:
        """Raises `RunnerError`: only the process of the runner knows."""
        raise RunnerError(
            f"task '{self.task_id}' runs in another process, which does not know whether its end still"
            " counts; one that is over its time is killed there"
        )

    def checkpoint(self, value: Any) -> Never:
        """Raises `RunnerError`: only the process of the runner can commit it."""
        raise RunnerError(
            f"task '{self.task_id}' runs in another process, from which nothing is committed before it ends;"
            " split it into tasks, of which each one's context is kept, or run it without executor"
        )

    def defer_until(
        self, condition: object, poll_interval_ms: object = 1000, timeout: object = None
    ) -> Never:
        """Raises `RunnerError`: the place in the executor is taken while its body runs there."""
        raise RunnerError(
            f"task '{self.task_id}' runs in another process, whose place it cannot give back; let a task"
            " before it, without executor, wait by defer_until, or raise cloaca.RetryAfter"
        )
