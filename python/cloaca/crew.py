"""A runner's threads: made here, they enter the native engine and wait there with the interpreter released.

User code is called on no other thread. Whatever user code raises, of whatever kind, ends that one call and
never a thread.
Longer than a room should be: how threads are made, counted and ended is one state.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from . import attempt, tracing
from .answer import BeyondError, PartlyError, Pending, complete, later, ruled
from .ends import Ends
from .errors import CloacaError, RunnerError, TriggerError, excerpt
from .failing import Failing, kind_of
from .hidden import NO_SECRETS
from .job import Ticket
from .kind import is_a, is_awaitable
from .places import Places
from .plain import DEBUG, ERROR, WARNING, describe, say
from .policy import RetryAfter, pause_of
from .result import SKIP
from .run_end import RunEndBody
from .task_handle import DEFER_SECONDS_STILL
from .teller import Teller
from .threads import Hand, Threads
from .tick import TickBody, Ticked
from .worker import Worker, in_words

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._cloaca import Engine, PollNow
    from .answer import Ruling
    from .awaiter import Awaiter
    from .bodies.aside import Aside
    from .bodies.loop import Loop
    from .bodies.remote import Polled
    from .failing import Kind
    from .job import TicketParts
    from .logbook import Logbook
    from .redact import Redactor
    from .task import TaskDefinition
    from .teller import Call
    from .tick import Tick
    from .trigger import TriggerDefinition, TriggerKind
    from .types import GateVerdict, RunDetails
    from .worker import Hear

#: A worker that found nothing to do for so many seconds goes home.
IDLE_SECONDS_MAX = 10.0
#: A logger whose level is changed is heard within so many seconds.
LEVEL_SECONDS = 5.0
#: Between two attempts to start a thread that the system did not give, growing.
THREAD_PAUSE_SECONDS = 0.01
THREAD_PAUSE_SECONDS_MAX = 1.0
LOOKS_MAX = 4
"""So many threads ask the store for event loops."""

#: The trade between lateness and wake-ups, where the operating system lets a thread choose.
TIMER_SLACK_NS = 40_000

_engine_log = "cloaca"


def _sharpen_timers() -> None:
    """Lets this thread wake nearer to when it asked to.

    Linux allows itself 50 us of slack, as much as a step of the wheel; see proc(5), `timerslack_ns`.
    Elsewhere there is no such file.
    """
    try:
        with open(f"/proc/{threading.get_native_id()}/timerslack_ns", "w") as slack:
            slack.write(str(TIMER_SLACK_NS))
    except OSError:
        pass


class Retired:
    """What is left of a trigger that was declared again."""

    __slots__ = ("kind", "name", "overlap")

    def __init__(self, name: str, overlap: str | None, kind: TriggerKind) -> None:
        self.name = name
        self.overlap = overlap
        self.kind = kind


class Crew:
    """The threads of one runner, and the tables that map the engine's numbers to Python functions."""

    def __init__(
        self,
        engine: Engine,
        redactor: Redactor,
        threads_max: int,
        hear: Hear | None = None,
        places: Places | None = None,
        logbook: Logbook | None = None,
    ) -> None:
        self.engine = engine
        self._redactor = redactor
        self._threads_max = threads_max
        self._hear = hear
        self.bodies: list[Any] = []
        self.triggers: list[TriggerDefinition | Retired] = []
        self._heard: dict[int, str] = {}
        self._told: dict[int, RunDetails] = {}
        self.tasks: dict[int, TaskDefinition] = {}
        self._task_numbers = itertools.count(1)
        self._threads_max = threads_max
        self._worker = Worker(engine, self.tasks, redactor, self.loop, hear, logbook)
        self.places = Places(None) if places is None else places
        self._failing = Failing()
        self._threads = Threads()
        self._orders = Hand(engine.next_order)
        self.teller = Teller(engine, self._threads, redactor, self.run, hear)
        self._logbook = logbook
        self.ends = Ends(engine, self._threads, redactor, self.run, hear, logbook, self._worker.spans)
        self._loop: Loop | None = None
        self._program_loop: AbstractEventLoop | None = None
        self._is_loop_open = False
        self._awaiter: Awaiter | None = None
        self._looks: Aside | None = None
        self._loop_lock = threading.RLock()
        self._pid = os.getpid()
        self._keeper: int | None = None
        self.on_end: Callable[[], None] | None = None
        """Called when the engine has ended, whoever ended it."""

    def open(self, place_deaths_max: int) -> None:
        """Starts the first threads: the one that starts the others, and those that serve executors."""
        self.engine.tell_debug(self._hears_all())
        self._threads.serve("keeper", self._keep)
        if self._logbook is not None:
            self._threads.serve("logbook", self._logbook.hear)
        self.places.open(self.engine, self._worker, self._threads, place_deaths_max)

    def leave_loop_open(self) -> None:
        """It is not said yet which loop async bodies run on: none begins before `use_loop`."""
        self._is_loop_open = True

    def use_loop(self, loop: AbstractEventLoop | None) -> bool:
        """Has async bodies run on a loop of the program, or on the one that runners share; false if that was
        decided before."""
        with self._loop_lock:
            if not self._is_loop_open and (self._loop is not None or self._program_loop is not None):
                return self._program_loop is loop
            self._is_loop_open = False
            self._program_loop = loop
            if self._loop is not None:
                self._loop.bind(loop)
            return True

    def decide_loop(self) -> None:
        """Nobody has said which loop it is: the one that runners share."""
        if self._is_loop_open:
            self.use_loop(None)

    def loop(self) -> Loop:
        """Where async bodies run. Not before it is needed: to import `asyncio` takes a while."""
        if (loop := self._loop) is not None:
            return loop
        with self._loop_lock:
            if self._loop is None:
                from .bodies.aside import Aside
                from .bodies.loop import Loop

                aside = Aside(self._threads, self._threads_max)
                loop = Loop(self.engine, self._worker, aside, self._threads)
                if not self._is_loop_open:
                    loop.bind(self._program_loop)
                self._loop = loop
            return self._loop

    def awaiter(self) -> Awaiter:
        """What event loops wait for runs with."""
        with self._loop_lock:
            if self._awaiter is None:
                from .awaiter import Awaiter

                self._awaiter = Awaiter(self.engine, self._threads)
            return self._awaiter

    def looks(self) -> Aside:
        """Threads that ask the store for who awaits the answer: however many ask, there are a few."""
        with self._loop_lock:
            if self._looks is None:
                from .bodies.aside import Aside

                self._looks = Aside(self._threads, LOOKS_MAX)
            return self._looks

    def begin(self, role: str, call: Callable[[], None]) -> None:
        """Has this called on a thread of its own."""
        self._threads.start(role, call)

    def on_loop(self) -> Loop | None:
        """The loop of async bodies, if this is its thread, which must not wait."""
        loop = self._loop
        return loop if loop is not None and loop.is_here() else None

    def has_lost_loop(self) -> bool:
        """Whether the program's loop has ended on which async bodies run."""
        return self._loop is not None and self._loop.is_lost

    def look_at_loop(self) -> None:
        """Notices that the program has closed the loop."""
        if (loop := self._loop) is not None:
            loop.look()

    def close_loop(self) -> None:
        """The runner has ended: nothing runs on the loop any more. Never waits."""
        if (loop := self._loop) is not None:
            loop.close()
        if (looks := self._looks) is not None:
            looks.close()

    def run(self, coroutine: Any) -> object:
        """Runs a coroutine of the program where its async bodies run, and waits for it."""
        return self.loop().run(coroutine)

    def is_keeper(self) -> bool:
        """Whether this thread is the one that starts the others."""
        return threading.get_ident() == self._keeper

    def holds_file(self) -> bool:
        """Whether the store's file is open here: until the runner is shut down and no body of its runs."""
        return not self.engine.is_closed

    def hears_polls(self, trigger: TriggerDefinition) -> bool:
        """Whether somebody is to be told of each failed poll of this trigger."""
        return self._hear is not None or trigger.kind.is_heard()

    def look_at_once(self) -> None:
        """Has tasks that wait in `defer_until` look at their conditions all the time: on a clock that stands
        still its pauses would be those of another one."""
        self._worker.deferred.pause_max = DEFER_SECONDS_STILL

    def wait_looked(self, seconds: float) -> bool:
        """Waits until each of those has looked once more; whether one of them goes on."""
        return self._worker.deferred.wait_looked(seconds)

    def warn(self, text: str) -> None:
        """Says on the logger `cloaca` what the program may not have meant."""
        say(_engine_log, WARNING, "%s", text)

    def running(self) -> list[str]:
        """What tasks run now, in words."""
        elsewhere = [in_words(task_id, job) for task_id, job in self.places.running()]
        on_loop = [] if self._loop is None else self._loop.running()
        return sorted([*self._worker.running(), *on_loop, *elsewhere])

    def place(
        self, places: Sequence[int], definitions: Sequence[TriggerDefinition], executors: Mapping[str, int]
    ) -> None:
        """Puts triggers' bodies at the places that the engine will call them by. `executors` has the numbers
        of the places to run that they name.

        What stands there already is of an older declaration of the same trigger, or of one that was
        interrupted before the engine knew of it.
        """
        for place, definition in zip(places, definitions, strict=True):
            executor = definition.kind.executor
            polls = None if executor is None else self.places.polls(executors[executor])
            body: Any = definition.function
            if polls is not None:
                from .bodies.far import Body

                body = Body(self.engine, polls, definition, place)
            elif definition.is_async:
                # Here and not at the first poll: to import at a fork leaves the child half a module.
                self.loop().open()
            if definition.kind.on_run is not None:
                body = RunEndBody(self.engine, definition.function, definition.name, place, self._tell_of_end)
            if polls is None and definition.takes_tick:
                body = TickBody(self.engine, definition.function, definition.name, place)
            if place < len(self.bodies):
                self.triggers[place] = definition
                self.bodies[place] = body
            else:
                self.triggers[place:] = [definition]
                self.bodies.append(body)

    def number(self, tasks: Sequence[TaskDefinition]) -> list[int]:
        """Puts the tasks of one declaration of a workflow where the engine will have their bodies called by
        number. The numbers are that declaration's alone: another one may be needed for longer."""
        numbers = [next(self._task_numbers) for _ in tasks]
        self.tasks.update(zip(numbers, tasks, strict=True))
        return numbers

    def let_go(self, numbers: Iterable[int]) -> None:
        """Forgets tasks whose bodies nobody calls any more. That may call what the program has to say about
        the end of its own objects."""
        for number in numbers:
            self.tasks.pop(number, None)

    def retire(self, place: int) -> None:
        """Lets go of the body at a place that is not polled again; its last answer may still come."""
        self.bodies[place] = None
        gone = self.triggers[place]
        self.triggers[place] = Retired(gone.name, gone.overlap, gone.kind)

    def poll_now(
        self, begun: PollNow, dry_run: bool
    ) -> tuple[Ruling, list[tuple[GateVerdict, str | None, str]]]:
        """Calls a trigger's body on this thread and ends its poll; returns what it decided and, of a dry run,
        what would become of each fire.

        Whatever else is raised, Ctrl-C say, calls the poll off, as whoever asked for it does.
        """
        ticket = Ticket(*begun.ticket)
        body = self.bodies[ticket.place]
        if body is None:
            raise RunnerError(
                f"trigger '{self.triggers[ticket.place].name}' has just been declared again; try again"
            )
        answer: object = None
        error: Exception | None = None
        try:
            with attempt.inside(None, None, self.triggers[ticket.place].name, host=self.engine):
                answer = complete(body(), self.run)
        except Exception as raised:
            error = raised
        ruling = self._ruled_now(ticket, answer, error)
        run = self._told.pop(ticket.place, None)
        ruling = self._without_told(run, ruling)
        if not dry_run:
            begun.answer(self._traced(ticket, ruling, run))
            return ruling, []
        fires, cursor = ruling[:2] if isinstance(ruling, tuple) and len(ruling) > 2 else ([], None)
        told = begun.foretell(fires, cursor) if fires else []
        begun.look()
        return ruling, told

    def decide_now(self, place: int, at: str, moment: str) -> Ruling:
        """Calls a cron's body on this thread for a moment beside its calendar; returns what it decided."""
        body = self.bodies[place]
        answer: object = None
        error: Exception | None = None
        if body is None:
            raise RunnerError(
                f"trigger '{self.triggers[place].name}' has just been declared again; try again"
            )
        try:
            with attempt.inside(None, None, self.triggers[place].name, host=self.engine):
                answer = body.decide(at, moment)
                answer = complete(answer, self.run)
        except Exception as raised:
            error = raised
        return self._ruled_now((place, 0, 0, 0, 0, 0), answer, error)

    def _ruled_now(self, ticket: TicketParts, answer: object, error: Exception | None) -> Ruling:
        if is_a(answer, Pending):
            return self._judged_there(ticket[0], answer.wait(ticket))
        return self._judged(ticket, answer, error)

    def _judged_there(self, place: int, polled: Polled) -> Ruling:
        """What a poll in another process came to, once it is told what went wrong."""
        if polled.error is not None:
            self._tell_failed_as(place, polled.error, polled.kind, polled.shown())
        return polled.ruling

    def close_spans(self, seconds: float) -> None:
        """Ends what is traced and still open: it goes on elsewhere, or not at all. Waits at most so long for
        who exports it."""
        self._worker.close_spans(seconds)

    def join(self, seconds: float) -> None:
        """Waits at most ``seconds`` for the threads to end. The calling thread is not waited for."""
        self._threads.join(seconds)

    def is_home(self) -> bool:
        """Whether all of its threads have ended."""
        return self._threads.is_home()

    def _keep(self) -> None:
        self._keeper = threading.get_ident()
        while True:
            self.engine.tell_debug(self._hears_all())
            order = self._orders.next(LEVEL_SECONDS)
            self.look_at_loop()
            self.let_go(self.engine.unneeded_bodies())
            if order is None:
                self.decide_loop()
            elif not self._carries_out(order):
                return
            self._orders.done()

    def _carries_out(self, order: Any) -> bool:
        """Does what the engine has ordered, once more if it is struck amid that; whether more may come."""
        if order[0] == "log":
            self._worker.heard(*order[3:])
            # At DEBUG no line repeats what a body said.
            tell = self._redactor.say if order[1] > DEBUG else say
            tell(_engine_log, order[1], "%s", order[2], about=order[3])
            # A handler may have forked.
            return not attempt.is_forked(self._pid)
        if order[0] == "tell":
            self._worker.tell(*order[1:])
            return not attempt.is_forked(self._pid)
        if order[0] == "stop_poll":
            self.places.stop_poll(*order[1:])
        elif order[0] == "poll_failed":
            self._tell_program(*order[1:])
        elif order[0] == "close":
            if (on_end := self.on_end) is not None:
                on_end()
            self.close_loop()
            self.ends.close()
            self.teller.close()
            return False
        else:
            self._hire(order[0], self._orders.mark)
        return True

    def _hears_all(self) -> bool:
        """Whether the engine is to tell of what a healthy day has, too: for the log, or for what traces runs
        to their ends."""
        return self._worker.is_traced() or logging.getLogger(_engine_log).isEnabledFor(DEBUG)

    def _tell_program(self, place: int, error: str, failures: int, disabled: str | None) -> None:
        """Lets the program hear of a failed poll, if its trigger has not been declared again since."""
        definition = self.triggers[place]
        calls: list[Call] = []
        if not isinstance(definition, Retired):
            kind, name = definition.kind, definition.name
            # What the body raised was heard as it was raised.
            if self._hear is not None and self._heard.get(place) != error:
                self._hear((None, TriggerError(f"trigger {excerpt(name)}: {error}")))
            if kind.on_poll_failed is not None:
                calls.append(("on_poll_failed", name, kind.on_poll_failed, (name, error, failures)))
            if kind.on_disabled is not None and disabled is not None:
                calls.append(("on_disabled", name, kind.on_disabled, (name, disabled)))
        try:
            self.teller.tell(calls)
        except RuntimeError as raised:
            # No thread can be started now; the next failed poll tries again.
            say(_engine_log, ERROR, "nobody can be told of a failed poll: %s", describe(raised))

    def _hire(self, role: str, hired: list[int]) -> None:
        """Starts a thread, again and again while the system has none to give; of two for one order the later
        one finds that the other has begun."""

        def body() -> None:
            hired.append(threading.get_ident())
            if hired[0] == threading.get_ident():
                (self._work if role == "worker" else self._poll)()

        pause = THREAD_PAUSE_SECONDS
        told = False
        while True:
            try:
                return self._threads.serve(role, body)
            except (RuntimeError, MemoryError) as raised:
                if sys.is_finalizing() or _is_too_late(raised):
                    return self._give_up()
                if not told:
                    told = True
                    text = "no thread can be started, and work waits until one can be: %s"
                    say(_engine_log, ERROR, text, describe(raised))
            if self.engine.wait_closing(pause):
                return None
            pause = min(2 * pause, THREAD_PAUSE_SECONDS_MAX)

    def _give_up(self) -> None:
        """Ends a runner for which no thread can be started any more: the main thread has ended."""
        if any(
            not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()
        ):
            # The program goes on, for nobody knows how long, and would wonder why nothing is polled.
            text = "no thread can be started any more, the main thread has ended: the runner has stopped"
            say(_engine_log, ERROR, text)
        self.engine.give_up()

    def _poll(self) -> None:
        _sharpen_timers()
        while True:
            try:
                with attempt.inside(self.engine, None, self._polled_here):
                    return self.engine.polls.poll(self.bodies, SKIP, self._ruling, _rest)
            except CloacaError as fault:
                if attempt.is_forked(self._pid):
                    return None
                text = "polling met a fault of the engine; please report it"
                say(_engine_log, ERROR, text, raised=fault)
            except BaseException as thrown:
                if attempt.is_forked(self._pid):
                    return None
                say(
                    _engine_log,
                    WARNING,
                    "%s was thrown into a thread that polls, while it waited",
                    describe(thrown),
                )

    def _polled_here(self) -> str | None:
        place = self.engine.polls.here()
        return None if place is None else self.triggers[place].name

    def _ruling(self, ticket: TicketParts, answer: object, error: BaseException | None) -> Ruling:
        """What a poll's answer means, as plain data for the engine; ``None`` if it comes later."""

        def failed(raised: BaseException) -> Ruling:
            # SystemExit and KeyboardInterrupt too: on a poller they can only mean that this poll failed.
            place, *_ = ticket
            return self._raised(place, raised)

        try:
            ruling = self._judged(ticket, answer, error, failed)
        except BaseException as raised:
            ruling = failed(raised)
        if ruling is None:
            return None
        run = self._told.pop(ticket[0], None)
        return self._traced(ticket, self._without_told(run, ruling), run)

    def _tell_of_end(self, place: int, run: RunDetails) -> None:
        """The function in that place is about to be told of a run's end."""
        self._told[place] = run

    def _without_told(self, run: RunDetails | None, ruling: Ruling) -> Ruling:
        """The same without what is to be hidden of the run whose end the function was told of: whoever looks
        at the trigger later cannot know which run that was."""
        if ruling is None or run is None or self._redactor.mask() is None:
            return ruling
        secrets = self._redactor.of_told(self._redactor.mask(), run)
        if isinstance(ruling, str):
            return secrets.hide(ruling)
        if len(ruling) == 2:
            return secrets.hide(ruling[0]), ruling[1]
        return *ruling[:2], secrets.hide(ruling[2]), secrets.hide_maybe(ruling[3]), *ruling[4:]

    def _traced(self, ticket: TicketParts, ruling: Ruling, told: RunDetails | None = None) -> Ruling:
        """The same, with what the runs of a poll that fires are handed on, if somebody traces that. One that
        skips leaves no trace. ``told`` is the run of whose end it was told."""
        if not isinstance(ruling, tuple) or len(ruling) == 2:
            return ruling
        fires, error = ruling[0], ruling[3]
        if (not fires and error is None) or (spans := self._worker.spans()) is None:
            return ruling
        definition = self.triggers[ticket[0]]
        workflow = None if isinstance(definition, Retired) else definition.kind.workflow
        ended = None if told is None else (told["id"], tracing.asked(self.engine, told["id"]))
        trace = spans.polled(definition.name, workflow, Ticket(*ticket).began_us, len(fires), error, ended)
        return ruling if trace is None else ([(*fire[:7], trace) for fire in fires], *ruling[1:])

    def _judged(
        self,
        ticket: TicketParts,
        answer: object,
        error: BaseException | None,
        failed: Callable[[BaseException], Ruling] | None = None,
    ) -> Ruling:
        """Like `_ruling`; what is no `Exception` is raised, for whoever polls in his own name, unless
        ``failed`` says what it means.
        """
        tick = None
        if type(answer) is Ticked:
            tick, answer = answer.tick, answer.answer
        try:
            return self._answered(ticket, tick, answer, error)
        except PartlyError as partly:
            kept = partly
        # What went wrong is told as ever, and what was given before counts. Not amidst the other exception:
        # that shows all that was given.
        place, *_ = ticket
        fires = kept.fires(tick, self.engine.context_bytes_max, self.triggers[place].overlap)
        if is_a(kept, BeyondError) and (goes_on := kept.ruling(fires)) is not None:
            return goes_on
        try:
            ruling = self._answered(ticket, None, None, kept.raised)
        except BaseException as raised:
            if failed is None:
                raise
            ruling = failed(raised)
        assert isinstance(ruling, tuple), "an exception answers at once"
        if len(ruling) == 2:
            return fires, None, *ruling[:1], None, ruling[1]
        return fires, *ruling[1:]

    def _answered(
        self, ticket: TicketParts, tick: Tick | None, answer: object, error: BaseException | None
    ) -> Ruling:
        place, *_ = ticket
        try:
            if error is not None:
                raise error
            if is_a(answer, Pending):
                answer.begin(
                    ticket, lambda _, polled: self._traced(ticket, self._judged_there(place, polled))
                )
                return None
            if is_awaitable(answer):
                self.loop().start_poll(ticket, self.triggers[place].name, tick, answer, self._ruling)
                return None
            overlap = self.triggers[place].overlap
            return ruled(answer, tick, self.engine.context_bytes_max, overlap)
        except RetryAfter as wish:
            return later(wish.delay_us, pause_of(wish), [])
        except CloacaError as refused:
            self._tell_failed(place, refused, None)
            return [], None, "", describe(refused), None
        except PartlyError:
            raise
        except Exception as raised:
            return self._raised(place, raised)

    def _raised(self, place: int, raised: BaseException) -> Ruling:
        self._tell_failed(place, raised, raised)
        return [], None, "", describe(raised), None

    def _tell_failed(self, place: int, error: BaseException, shown: BaseException | None) -> None:
        """``shown`` is the error if its traceback is of the program."""
        if self._hear is not None:
            run = self._told.get(place)
            secrets = NO_SECRETS if run is None else self._redactor.of_told(self._redactor.mask(), run)
            self._heard[place] = secrets.hide(describe(error))
            self._hear((None, error))
        self._tell_failed_as(place, describe(error), kind_of(error), shown)

    def _tell_failed_as(self, place: int, error: str, kind: Kind, shown: BaseException | None) -> None:
        name = self.triggers[place].name
        *_, failed_before, _, _ = self.engine.polls.tick_state(place)
        failures = failed_before + 1
        about = {"cloaca_trigger": name}
        say = partial(self._redactor.say, about=about, told=self._told.get(place))
        match self._failing.grade(name, kind, failures, self.engine.now()):
            case "whole" if shown is None:
                say(_engine_log, ERROR, "trigger '%s': %s", name, error)
            case "whole":
                say(_engine_log, ERROR, "trigger '%s' raised", name, raised=shown)
            case "line":
                does = "polls" if self.triggers[place].kind.on_run is None else "calls"
                text = "trigger '%s' fails: %d failed %s in a row, now %s"
                say(_engine_log, ERROR, text, name, failures, does, error)

    def _work(self) -> None:
        thrown: BaseException | None = None
        while not attempt.is_forked(self._pid):
            try:
                return self._work_on(thrown)
            except BaseException as once_more:
                thrown = once_more
        return None

    def _work_on(self, thrown: BaseException | None) -> None:
        jobs, run, struck = self.engine.jobs, self._worker.run, self._worker.struck
        jobs.worker_present(True)
        news = None if thrown is None else (struck, thrown)
        while not attempt.is_forked(self._pid):
            try:
                found = jobs.take_job(IDLE_SECONDS_MAX, self.tasks, _rest, news)
                news = None
                if not found:
                    jobs.worker_present(False)
                    return
                run(*found)
            except BaseException as error:
                news = struck, error
                attempt.outside()


def _rest() -> None:
    """Where a thread stands that is in no body: what another has thrown into it, too late for the body that
    was meant, comes out here."""


def _is_too_late(error: BaseException) -> bool:
    """Whether Python refuses threads because its main thread has ended (since 3.12)."""
    return "interpreter shutdown" in describe(error)
