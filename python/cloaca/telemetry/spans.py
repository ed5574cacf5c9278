"""What OpenTelemetry is told of: who asked for a run, what became of it in this runner, and each attempt.

Decides which span is whose parent, and which are only linked.
Invariant: whatever a tracer, an exporter or a propagator does, what is traced goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from functools import cache, partial

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from .. import __version__
from ..attempt import run_id
from ..kind import is_a
from ..plain import ERROR, describe, kind_of, say
from ..threads import Hand, begin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextvars import Token

    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AttributeValue

    from ..job import Job

    Handed = tuple[str | None, bool]
    """What stands with a run in the store, and whether it is at work as soon as it was asked for."""

RUNS_MAX = 10_000
"""Of so many runs at once the span of their stay here is kept open; of the oldest of more it ends early."""
ENDS_MAX = 10_000
"""So many spans wait at most for an exporter that is slow to take the one before them; more are left out."""
SYSTEM = "cloaca"
_log = "cloaca.telemetry"


def _tracer() -> Tracer:
    return _tracer_of(trace.get_tracer_provider())


@cache
def _tracer_of(provider: trace.TracerProvider) -> Tracer:
    return provider.get_tracer("cloaca", __version__)


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Of what goes wrong with a span the log is told, and nobody else."""
    try:
        yield
    except BaseException as raised:
        # Ctrl-C may come while a span is made; whatever else is raised here is the tracer's.
        if is_a(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        say(_log, ERROR, "what is traced goes on without a span: %s", describe(raised))


def _message(workflow: str, operation: str, **others: AttributeValue) -> dict[str, AttributeValue]:
    """The attributes of a message, as the conventions name them: a run is one, its workflow the queue."""
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": workflow,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        **others,
    }


class Sending:
    """A producer's span around what asks for runs."""

    def __init__(self, workflow: str, many: int, **others: AttributeValue) -> None:
        self._span: Span | None = None
        self.trace: str | None = None
        with _apart():
            if many != 1:
                others["messaging.batch.message_count"] = many
            attributes = _message(workflow, "send", **others)
            self._span = _tracer().start_span(
                f"send {workflow}", kind=SpanKind.PRODUCER, attributes=attributes
            )
            self.trace = _handed_on(trace.set_span_in_context(self._span))
        if self.trace is None:
            # The baggage is the program's own, whatever its tracer does.
            with _apart():
                self.trace = _handed_on(get_current())

    def sent(self, ids: Sequence[str]) -> None:
        """These runs are asked for."""
        if self._span is not None and len(ids) == 1:
            with _apart():
                self._span.set_attributes(_of_run(ids[0]))

    def end(self, raised: BaseException | None) -> None:
        """It is over."""
        if self._span is not None:
            with _apart():
                if raised is not None:
                    _failed(self._span, kind_of(raised), None, None)
                self._span.end()


@contextlib.contextmanager
def sending(workflow: str, many: int, trigger: str | None = None) -> Iterator[Sending]:
    """Traces what asks for so many runs of a workflow, perhaps for a trigger that is called by hand."""
    others: dict[str, AttributeValue] = {} if trigger is None else {"cloaca.trigger": trigger}
    span = Sending(workflow, many, **others)
    try:
        yield span
    except BaseException as raised:
        span.end(raised)
        raise
    span.end(None)


def _of_run(run: str) -> dict[str, str]:
    """Its id as the conventions have it, and as all other spans do, so that one search finds them."""
    return {"messaging.message.id": run, "cloaca.run.id": run}


def _handed_on(context: Context) -> str | None:
    headers: dict[str, str] = {}
    propagate.inject(headers, context)
    return json.dumps(headers) if headers else None


def _read(text: str | None) -> Context:
    """What was handed on: of whom there is nothing, an empty context."""
    if text is not None:
        with _apart():
            headers = json.loads(text)
            if isinstance(headers, dict):
                return propagate.extract(headers, Context())
    return Context()


def _failed(span: Span, kind: str, text: str | None, stack: str | None) -> None:
    span.set_attribute("error.type", kind)
    if text is not None:
        told = {"exception.type": kind, "exception.message": text}
        span.add_event("exception", told if stack is None else {**told, "exception.stacktrace": stack})
    span.set_status(Status(StatusCode.ERROR, text))


class Within:
    """What is current while a body runs: its span, and the baggage that came with its run."""

    __slots__ = ("context",)

    def __init__(self, context: Context) -> None:
        self.context = context

    def attach(self) -> Token[Context]:
        """Makes it current on this thread, or in this coroutine."""
        return attach(self.context)

    def detach(self, token: Token[Context]) -> None:
        """Makes current again what was."""
        detach(token)

    def headers(self) -> dict[str, str]:
        """The same, to travel to another process."""
        headers: dict[str, str] = {}
        with _apart():
            propagate.inject(headers, self.context)
        return headers


class Called(Within):
    """A callback's."""

    __slots__ = ("_ended_ns", "_put", "_raised", "_span")

    def __init__(self, span: Span, context: Context, put: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(context)
        self._span = span
        self._put = put
        self._raised: BaseException | None = None
        self._ended_ns = 0

    def end(self, raised: BaseException | None) -> None:
        """It is over; never waits for who hears of that."""
        self._raised, self._ended_ns = raised, time.time_ns()
        self._put(self._over)

    def _over(self) -> None:
        if self._raised is not None:
            _failed(self._span, kind_of(self._raised), None, None)
        self._span.end(self._ended_ns)
        self._raised = None


class Stay:
    """A run in the hands of this runner."""

    __slots__ = ("context", "life", "span")

    def __init__(self, life: int, span: Span, context: Context) -> None:
        self.life = life
        self.span = span
        self.context = context


class Fired:
    """A poll that asked for runs, of which it is not known yet which are kept."""

    __slots__ = ("_ended_ns", "_poll", "_sent")

    def __init__(self, poll: Span, sent: Span) -> None:
        self._poll = poll
        self._sent = sent
        self._ended_ns = time.time_ns()

    def judged(self, started: int, is_error: bool, has_raised: bool, kept_ns: int) -> None:
        """So many are runs. One by which nothing starts leaves no trace, unless something went wrong: a span
        that is not ended goes nowhere."""
        if not (started or is_error or has_raised):
            return
        self._poll.set_attribute("cloaca.started", started)
        if is_error:
            _failed(self._poll, "refused", None, None)
        if started:
            if started != 1:
                self._sent.set_attribute("messaging.batch.message_count", started)
            self._sent.end(kept_ns)
        self._poll.end(self._ended_ns)


class Ender:
    """Ends spans on a thread of its own: an exporter that is called as a span ends, and hangs, holds up
    neither polls nor the engine's log, nor who shuts down."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._ends = Hand(self._waiting.popleft)
        self._is_at_it = False
        self._has_thread = False
        self._is_closed = False
        self._is_full = False

    def put(self, end: Callable[[], None]) -> None:
        """Lets it be called; never waits for that."""
        with self._changed:
            is_full = len(self._waiting) >= ENDS_MAX
            is_news, self._is_full = is_full and not self._is_full, is_full
            if not is_full:
                self._waiting.append(end)
                self._changed.notify_all()
            starts, self._has_thread = not self._has_thread, True
        if is_news:
            say(_log, ERROR, "%d spans wait for an exporter that is slow; more are left out", ENDS_MAX)
        if starts:
            try:
                begin("cloaca-spans", self._call_all, lambda thread: None, pid=os.getpid(), serves=True)
            except RuntimeError:
                # The system gives none now, or the program ends.
                with self._changed:
                    self._has_thread = False

    def close(self, seconds: float) -> None:
        """Waits at most so long for what waits, and sends the thread home."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            if self._has_thread:
                self._changed.wait_for(lambda: not (self._waiting or self._is_at_it), seconds)

    def _call_all(self) -> None:
        while True:
            with self._changed:
                if not self._ends.is_full:
                    self._changed.wait_for(lambda: self._waiting or self._is_closed)
                    if not self._waiting:
                        self._has_thread = False
                        return
                self._is_at_it = True
                end = self._ends.next()
            # A span that was about to be ended when something was thrown in here may have ended.
            if not self._ends.is_again:
                with _apart():
                    end()
            with self._changed:
                self._ends.done()
                self._is_at_it = False
                self._changed.notify_all()


class Spans:
    """The spans of one runner that are open: of runs in its hands, of attempts that it makes, and of polls
    that have fired."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fired: dict[str, tuple[Fired, bool]] = {}
        self._ender = Ender()
        self._stays: dict[int, Stay] = {}
        self._attempts: dict[Job, Span] = {}

    def polled(
        self,
        trigger: str,
        workflow: str | None,
        began_us: int,
        fires: int,
        error: str | None,
        ended: tuple[str, str | None] | None = None,
    ) -> str | None:
        """Traces a poll that fired or failed, now that it is over; what its runs are handed on. ``ended`` is
        the run of whose end it was told, and what that was handed on."""
        # Nobody has heard of the one before: that its fires came to nothing is as likely as not.
        self.judged(trigger, 0, False)
        with _apart():
            attributes: dict[str, AttributeValue] = {"cloaca.trigger": trigger, "cloaca.fires": fires}
            links = []
            if ended is not None:
                attributes["cloaca.run.id"], given = ended
                links = _links(_read(given))
            began_ns = began_us * 1000 if began_us else None
            poll = _tracer().start_span(
                f"poll {trigger}",
                context=Context(),
                links=links,
                attributes=attributes,
                start_time=began_ns,
            )
            if error is not None:
                # What went wrong may hold what is hidden: the log and the history tell it.
                _failed(poll, error.partition(":")[0], None, None)
            if not fires or workflow is None:
                self._ender.put(partial(poll.end, time.time_ns()))
                return None
            sent = _tracer().start_span(
                f"send {workflow}",
                context=trace.set_span_in_context(poll, Context()),
                kind=SpanKind.PRODUCER,
                attributes=_message(workflow, "send", **{"cloaca.trigger": trigger}),
            )
            handed = _handed_on(trace.set_span_in_context(sent, Context()))
            with self._lock:
                self._fired[trigger] = Fired(poll, sent), error is not None
            return handed
        return None

    def judged(self, trigger: str, started: int, is_error: bool) -> None:
        """It is known how many runs the last poll of a trigger has started."""
        with self._lock:
            fired, has_raised = self._fired.pop(trigger, (None, False))
        if fired is not None:
            self._ender.put(partial(fired.judged, started, is_error, has_raised, time.time_ns()))

    def begin(self, job: Job, task: str, workflow: str, handed: Handed) -> Within:
        """An attempt's body is about to be called. The first one of a task is part of its run's stay here; a
        later one is a trace of its own, which may come much later."""
        given = _read(handed[0])
        with _apart():
            stay = self._stay(job, workflow, given, handed[1])
            attributes: dict[str, AttributeValue] = {
                "cloaca.run.id": run_id(job),
                "cloaca.workflow": workflow,
                "cloaca.task": task,
                "cloaca.attempt": job.attempt,
            }
            if job.attempt == 1:
                span = _tracer().start_span(task, context=stay.context, attributes=attributes)
            else:
                links = [*_links(given), Link(stay.span.get_span_context())]
                span = _tracer().start_span(task, context=Context(), attributes=attributes, links=links)
            with self._lock:
                self._attempts[job] = span
            return Within(trace.set_span_in_context(span, given))
        return Within(given)

    def _stay(self, job: Job, workflow: str, given: Context, is_fresh: bool) -> Stay:
        with self._lock:
            known = self._stays.get(job.run)
        if known is not None and known.life == job.life:
            return known
        if known is not None:
            self.over(job.run, "Left")
        attributes = _message(workflow, "process", **_of_run(run_id(job)))
        # Whoever asked for it waits, perhaps, for what is done at once; what was put off, or taken over from
        # somebody else, is only linked.
        parent, links = (given, []) if is_fresh else (Context(), _links(given))
        span = _tracer().start_span(
            f"process {workflow}", context=parent, kind=SpanKind.CONSUMER, attributes=attributes, links=links
        )
        stay = Stay(job.life, span, trace.set_span_in_context(span, given))
        with self._lock:
            # Two threads may have begun two tasks of it at once.
            known = self._stays.setdefault(job.run, stay)
            oldest = next(iter(self._stays)) if len(self._stays) > RUNS_MAX else None
        if oldest is not None:
            self.over(oldest, "Left")
        return known

    def told(self, workflow: str, run: str, name: str, tries: int, given: str | None) -> Called:
        """A callback of a workflow is about to be called for the end of a run, in a trace of its own with a
        link to who asked for the run: it may be much later, and again."""
        asked = _read(given)
        with _apart():
            attributes: dict[str, AttributeValue] = {
                "cloaca.run.id": run,
                "cloaca.workflow": workflow,
                "cloaca.attempt": tries,
            }
            name = f"{workflow} {name}"
            span = _tracer().start_span(name, context=Context(), links=_links(asked), attributes=attributes)
            return Called(span, trace.set_span_in_context(span, asked), self._ender.put)
        return Called(trace.INVALID_SPAN, asked, self._ender.put)

    def callback(self, job: Job, task: str, name: str) -> Called | None:
        """A callback of a task is about to be called."""
        with _apart():
            with self._lock:
                stay = self._stays.get(job.run)
            parent = Context() if stay is None else stay.context
            attributes: dict[str, AttributeValue] = {"cloaca.run.id": run_id(job), "cloaca.task": task}
            span = _tracer().start_span(f"{task} {name}", context=parent, attributes=attributes)
            return Called(span, trace.set_span_in_context(span, parent), self._ender.put)
        return None

    def ended(
        self,
        job: Job,
        outcome: str,
        kind: str | None = None,
        text: str | None = None,
        stack: str | None = None,
    ) -> None:
        """An attempt is over; with what it raised, without what is to be hidden."""
        with self._lock:
            span = self._attempts.pop(job, None)
        if span is None:
            return
        with _apart():
            span.set_attribute("cloaca.outcome", outcome)
            if kind is not None:
                _failed(span, kind, text, stack)
            span.end()

    def over(self, run: int, how: str) -> None:
        """A run is over, or out of this runner's hands."""
        with self._lock:
            stay = self._stays.pop(run, None)
        if stay is not None:
            self._ender.put(partial(_over, stay.span, how, time.time_ns()))

    def close(self, seconds: float) -> None:
        """The runner is shut down: what is still open goes on elsewhere. Waits at most so long for whoever
        exports that as it ends."""
        for trigger in list(self._fired):
            self.judged(trigger, 0, False)
        for job in list(self._attempts):
            self._ender.put(partial(self.ended, job, "Interrupted"))
        for run in list(self._stays):
            self.over(run, "Left")
        self._ender.close(seconds)


def _over(span: Span, how: str, ended_ns: int) -> None:
    span.set_attribute("cloaca.run.status", how)
    if how == "Failed":
        span.set_status(Status(StatusCode.ERROR))
    span.end(ended_ns)


def _links(given: Context) -> list[Link]:
    found = trace.get_current_span(given).get_span_context()
    return [Link(found)] if found.is_valid else []


def within(headers: Mapping[str, str]) -> Within:
    """What is current in another process while a body runs there."""
    return Within(propagate.extract(headers, Context()))
