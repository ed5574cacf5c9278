"""Bodies that raise and answer what nobody expects: their own poll or attempt ends, all others go on."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from attack import until
from nasty import Traceless, Untouchable

import cloaca
from cloaca import testing
from cloaca.answer import PartlyError, Pending
from cloaca.attempt import Interrupted
from cloaca.declarations import Declarations

SECONDS = 30.0


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("in __str__")

    __repr__ = __str__


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("in __reduce__")


def of_class(told: Callable[[object], object]) -> Callable[[], BaseException]:
    """Makes exceptions that say of their class what `told` says."""

    class Liar(Exception):
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            return told(self)

    return lambda: Liar("whose class is not what it says")


def no_class(_: object) -> object:
    raise RuntimeError("in __class__")


def exits(_: object) -> object:
    raise SystemExit("in __class__")


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("in __name__")


class OfNoName(Exception, metaclass=Nameless):
    pass


class Fancy(str):
    def __len__(self) -> int:
        raise RuntimeError("in __len__")

    __getitem__ = encode = __str__ = __eq__ = __len__  # type: ignore[assignment]

    __hash__ = None  # type: ignore[assignment]


class Fancily(Exception):
    def __str__(self) -> str:
        return Fancy("a text of its own kind")


class Hostile:
    """An answer whose every question raises."""

    def _raises(self, *_: object) -> Any:
        raise RuntimeError("in a question")

    __bool__ = __eq__ = __hash__ = __len__ = __iter__ = __next__ = __repr__ = __str__ = _raises  # type: ignore[assignment]
    __call__ = __getattr__ = __getitem__ = __await__ = _raises
    __class__ = property(_raises)  # type: ignore[assignment]


class Silent:
    """An answer that says of each name that it is asked for that it is not there, in words of its own."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)

    __class__ = property(no_class)  # type: ignore[assignment]


class Lies:
    """An answer that is what it is asked for, and has nothing of that."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    __class__ = property(lambda self: self._kind)  # type: ignore[assignment]


def recursion() -> None:
    recursion()


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


NASTY: dict[str, Callable[[], object]] = {
    "an exception": raising(ValueError("boom")),
    "SystemExit": raising(SystemExit(3)),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "GeneratorExit": raising(GeneratorExit()),
    "BaseException": raising(BaseException("base")),
    "CancelledError": raising(asyncio.CancelledError()),
    "a lone surrogate": raising(ValueError("cannot read " + os.fsdecode(b"caf\xe9.txt"))),
    "NUL": raising(ValueError("a\0b")),
    "1 MB": raising(ValueError("x" * (1 << 20))),
    "unprintable": raising(Unprintable()),
    "unpicklable": raising(Unpicklable("u")),
    "__traceback__ raises": lambda: raising(Traceless("t"))(),
    "each attribute exits": lambda: raising(Untouchable("u"))(),
    "MemoryError": raising(MemoryError()),
    "StopIteration": raising(StopIteration(1)),
    "StopAsyncIteration": raising(StopAsyncIteration()),
    "recursion": recursion,
    "a wrong answer": lambda: object(),
    "__class__ raises": lambda: raising(of_class(no_class)())(),
    "__class__ exits": lambda: raising(of_class(exits)())(),
    "__class__ is no class": lambda: raising(of_class(lambda _: 3)())(),
    "a class without a name": raising(OfNoName("nameless")),
    "a text that is no str": raising(Fancily()),
    **{
        f"says it is {kind.__name__}": lambda kind=kind: raising(of_class(lambda _: kind)())()
        for kind in (
            cloaca.RetryAfter,
            Interrupted,
            GeneratorExit,
            KeyboardInterrupt,
            asyncio.CancelledError,
            PartlyError,
            BrokenExecutor,
            StopIteration,
        )
    },
    "a hostile answer": lambda: Hostile(),
    "a silent answer": lambda: Silent(),
    **{
        f"an answer that says it is {kind.__name__}": lambda kind=kind: Lies(kind)
        for kind in (cloaca.TriggerResult, cloaca.Context, dict, list, bool, Pending)
    },
}


@pytest.fixture(params=list(NASTY))
def nasty(request: pytest.FixtureRequest) -> Callable[[], object]:
    return NASTY[request.param]


def workflow(name: str, body: Callable[..., Any], **options: Any) -> None:
    with cloaca.WorkflowBuilder(name):
        cloaca.task(id="t", retry_attempts=1, **options)(body)


def goes_on(runner: cloaca.DefaultRunner) -> None:
    """Sync and async bodies are still called, by polls and by tasks."""
    polled, awaited = threading.Event(), threading.Event()

    def poll() -> bool:
        polled.set()
        return False

    async def poll_async() -> bool:
        awaited.set()
        return False

    cloaca.trigger(poll_interval="1ms", name="good")(poll)
    cloaca.trigger(poll_interval="1ms", name="good_async")(poll_async)

    async def body(context: cloaca.Context) -> None:
        await asyncio.sleep(0)

    workflow("good", lambda context: None)
    workflow("good_async", body)
    assert polled.wait(SECONDS)
    assert awaited.wait(SECONDS)
    for name in ("good", "good_async"):
        assert runner.submit(name).result(SECONDS).status == "Completed"


def test_a_task_that_ends_badly_fails_alone(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object]
) -> None:
    workflow("bad", lambda context: nasty())
    result = runner.submit("bad").result(SECONDS)
    assert result.status == "Failed"
    assert result.error_message is not None
    assert len(result.error_message) < 20_000
    goes_on(runner)


def test_an_async_task_that_ends_badly_fails_alone(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object]
) -> None:
    async def body(context: cloaca.Context) -> object:
        return nasty()

    workflow("bad", body)
    assert runner.submit("bad").result(SECONDS).status == "Failed"
    goes_on(runner)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_trigger_that_ends_badly_is_polled_again(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], is_async: bool
) -> None:
    polls, thrice = [], threading.Event()

    def poll() -> object:
        polls.append(1)
        if len(polls) == 3:
            thrice.set()
        return nasty()

    async def poll_async() -> object:
        return poll()

    body = poll_async if is_async else poll
    cloaca.trigger(poll_interval="1ms", name="bad", on_error=cloaca.Backoff("1ms", max="1ms"))(body)
    assert thrice.wait(SECONDS)
    assert runner.ticks("bad")[0]["outcome"] == "error"
    goes_on(runner)


@pytest.mark.parametrize("ends", ["Completed", "Failed"])
def test_a_callback_that_ends_badly_changes_nothing(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], ends: str
) -> None:
    def body(context: cloaca.Context) -> None:
        if ends == "Failed":
            raise ValueError("on purpose")

    callbacks: dict[str, Any] = {
        "on_success": lambda task, context: nasty(),
        "on_failure": lambda task, error, context: nasty(),
    }
    workflow("called", body, **callbacks)
    assert runner.submit("called").result(SECONDS).status == ends
    goes_on(runner)


@pytest.mark.parametrize("ends", ["Completed", "Failed"])
def test_an_async_callback_that_ends_badly_changes_nothing(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], ends: str
) -> None:
    async def told(*_: object) -> object:
        await asyncio.sleep(0)
        return nasty()

    def body(context: cloaca.Context) -> None:
        if ends == "Failed":
            raise ValueError("on purpose")

    workflow("called", body, on_success=told, on_failure=told)
    assert runner.submit("called").result(SECONDS).status == ends
    goes_on(runner)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ends", ["Completed", "Failed"])
def test_a_callback_of_a_workflow_that_ends_badly_changes_nothing(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], ends: str, is_async: bool
) -> None:
    called = threading.Event()

    def told(run: object) -> object:
        called.set()
        return nasty()

    async def told_async(run: object) -> object:
        return told(run)

    def body(context: cloaca.Context) -> None:
        if ends == "Failed":
            raise ValueError("on purpose")

    on_end = told_async if is_async else told
    with cloaca.WorkflowBuilder("called") as builder:
        builder.on_success(on_end)
        builder.on_failure(on_end)
        cloaca.task(id="t", retry_attempts=1)(body)
    assert runner.submit("called").result(SECONDS).status == ends
    assert called.wait(SECONDS)
    goes_on(runner)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_told_of_failed_polls_and_of_ends_changes_nothing_when_it_ends_badly(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], is_async: bool
) -> None:
    failed, disabled, ended = threading.Event(), threading.Event(), threading.Event()

    def telling(event: threading.Event) -> Callable[..., object]:
        def told(*_: object) -> object:
            event.set()
            return nasty()

        async def told_async(*_: object) -> object:
            return told()

        return told_async if is_async else told

    cloaca.trigger(
        poll_interval="1ms",
        name="bad",
        max_consecutive_failures=1,
        on_poll_failed=telling(failed),
        on_disabled=telling(disabled),
    )(lambda: nasty() and 1 / 0)
    workflow("good_too", lambda context: None)
    told = telling(ended)
    cloaca.trigger(workflow="good_too", on_run="good_too", name="ends", on_error=cloaca.Backoff("1ms"))(
        lambda run: told()
    )
    assert failed.wait(SECONDS)
    assert disabled.wait(SECONDS)
    assert runner.submit("good_too").result(SECONDS).status == "Completed"
    assert ended.wait(SECONDS)
    goes_on(runner)


def test_a_cron_that_ends_badly_is_tried_again(nasty: Callable[[], object]) -> None:
    workflow("nightly", lambda context: None)
    calls: list[int] = []

    def at_night(tick: cloaca.Tick) -> object:
        calls.append(1)
        return nasty()

    cloaca.trigger(workflow="nightly", cron="0 3 * * *")(at_night)
    with testing.Runner(start="2026-01-01T00:00:00Z", raise_errors=False) as runner:
        runner.advance("3h30m")
        assert len(calls) > 1
        assert runner.ticks("at_night")[0]["outcome"] == "error"


@pytest.mark.parametrize("what", ["task", "trigger"])
def test_a_body_in_a_pool_of_threads_that_ends_badly_ends(nasty: Callable[[], object], what: str) -> None:
    global _pooled
    _pooled, _polled[:] = nasty, []
    with ThreadPoolExecutor(1) as pool, cloaca.DefaultRunner(":memory:", executors={"pool": pool}) as runner:
        if what == "task":
            workflow("bad", pooled, executor="pool")
            assert runner.submit("bad").result(SECONDS).status == "Failed"
        else:
            cloaca.trigger(poll_interval="1ms", name="bad", executor="pool", on_error=cloaca.Backoff("1ms"))(
                pool_polled
            )
            until(lambda: len(_polled) > 2)
            assert runner.ticks("bad")[0]["outcome"] == "error"
        goes_on(runner)


@pytest.mark.parametrize("what", ["task", "trigger"])
def test_a_body_in_a_process_whose_error_lies_of_its_class_ends(what: str) -> None:
    pool = cloaca.ProcessExecutor(max_workers=1)
    with cloaca.DefaultRunner(":memory:", executors={"pool": pool}) as runner:
        if what == "task":
            for body in (far_raises, far_answers, far_lies):
                workflow(body.__name__, body, executor="pool")
                assert runner.submit(body.__name__).result(SECONDS).status == "Failed"
        else:
            for poll in (poll_raises, poll_answers, poll_lies):
                name = poll.__name__
                cloaca.trigger(poll_interval="1ms", name=name, executor="pool")(poll)
                until(lambda name=name: [t for t in runner.ticks(name) if t["outcome"] == "error"])
        goes_on(runner)


_pooled: Callable[[], object] = object
_polled: list[int] = []


def pooled(context: cloaca.Context) -> object:
    return _pooled()


def pool_polled() -> object:
    _polled.append(1)
    return _pooled()


def far_raises(context: cloaca.Context) -> None:
    raise of_class(no_class)()


def far_answers(context: cloaca.Context) -> object:
    return Hostile()


def far_lies(context: cloaca.Context) -> None:
    raise of_class(lambda _: Interrupted)()


def poll_raises() -> None:
    raise of_class(no_class)()


def poll_answers() -> object:
    return Hostile()


def poll_lies() -> None:
    raise of_class(lambda _: cloaca.RetryAfter)()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_condition_that_ends_badly_is_asked_again_or_fails_its_task_alone(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], is_async: bool
) -> None:
    calls: list[int] = []

    def condition() -> object:
        calls.append(1)
        return True if len(calls) > 2 else nasty()

    async def condition_async() -> object:
        await asyncio.sleep(0)
        return condition()

    def body(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
        handle.defer_until(condition_async if is_async else condition, poll_interval_ms=1)

    workflow("waits", body)
    status = runner.submit("waits").result(SECONDS).status
    # What is no `Exception` ends the body at once; an answer is true or false, whatever it is.
    assert status == "Completed" if len(calls) > 2 else len(calls) == 1
    goes_on(runner)


@pytest.mark.parametrize("kind", ["a generator", "a tick", "an iterator", "a list"])
def test_an_answer_that_ends_badly_while_it_is_read_is_an_error_tick(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], kind: str
) -> None:
    polls, thrice = [], threading.Event()

    def results() -> Iterator[Any]:
        polls.append(1)
        if len(polls) == 3:
            thrice.set()
        yield cloaca.TriggerResult.fire({"n": len(polls)})
        yield nasty()

    class Bad(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            return results()

    def poll_tick(tick: cloaca.Tick) -> object:
        tick.cursor = len(polls) + 1
        return results()

    bodies: dict[str, Callable[..., object]] = {
        "a generator": results,
        "a tick": poll_tick,
        "an iterator": lambda: itertools.chain(results()),
        "a list": lambda: Bad([1]),
    }
    workflow("good", lambda context: None)
    cloaca.trigger(
        workflow="good", poll_interval="1ms", name="bad", on_error=cloaca.Backoff("1ms", max="1ms")
    )(bodies[kind])
    assert thrice.wait(SECONDS)
    assert runner.ticks("bad")[0]["outcome"] == "error"
    assert not runner.list_runs()
    goes_on(runner)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tick_that_ends_badly_is_an_error_or_comes_out_and_the_trigger_goes_on(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object], is_async: bool
) -> None:
    async def poll_async() -> object:
        return nasty()

    cloaca.trigger(poll_interval="1h", name="bad")(poll_async if is_async else lambda: nasty())
    for _ in range(2):
        came: BaseException | None = None
        outcome = None
        try:
            outcome = runner.tick("bad")["outcome"]
        except BaseException as raised:
            came = raised
        # What is no `Exception` is the caller's; the error of a cancelled coroutine is one on this side.
        is_callers = not isinstance(came, Exception) or type(came).__name__ == "CancelledError"
        assert outcome == "error" if came is None else is_callers
    goes_on(runner)


def test_a_constructor_that_ends_badly_beside_a_living_runner_declares_nothing(
    runner: cloaca.DefaultRunner, nasty: Callable[[], object]
) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        cloaca.register_workflow_constructor("bad", nasty)
    assert type(caught.value) is not AssertionError
    with pytest.raises(cloaca.WorkflowError, match="bad"):
        runner.execute("bad")
    goes_on(runner)


def test_a_generator_that_raises_half_way_is_an_error_tick_as_a_whole(runner: cloaca.DefaultRunner) -> None:
    workflow("good", lambda context: None)
    cursors, twice = [], threading.Event()

    def poll(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
        cursors.append(tick.cursor)
        if len(cursors) == 2:
            twice.set()
        tick.cursor = 1
        yield cloaca.TriggerResult.fire({"n": 1})
        raise ValueError("half-way")

    cloaca.trigger(
        workflow="good", poll_interval="1ms", name="half", on_error=cloaca.Backoff("1ms", max="1ms")
    )(poll)
    assert twice.wait(SECONDS)
    assert runner.list_runs() == []
    assert cursors[:2] == [None, None]


@pytest.mark.parametrize("how", ["stop", "exit", "interrupt"])
def test_the_loop_that_async_bodies_share_survives_each_of_them(
    runner: cloaca.DefaultRunner, how: str
) -> None:
    async def body(context: cloaca.Context) -> None:
        loop = asyncio.get_running_loop()
        if how == "stop":
            loop.stop()
        else:
            error: BaseException = SystemExit(1) if how == "exit" else KeyboardInterrupt()
            loop.create_task(asyncio.sleep(0)).add_done_callback(lambda _: (_ for _ in ()).throw(error))
        await asyncio.sleep(0.001)

    workflow("bad", body)
    assert runner.submit("bad").result(SECONDS).status == "Completed"
    goes_on(runner)


class Refuses(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:
        raise SystemExit("a handler that raises")


@pytest.mark.parametrize("place", ["cloaca", "cloaca.task", "cloaca.callback"])
def test_a_log_handler_that_raises_costs_its_line_only(runner: cloaca.DefaultRunner, place: str) -> None:
    log, handler = logging.getLogger(place), Refuses()
    log.addHandler(handler)
    try:
        workflow("bad", lambda context: 1 / 0, on_failure=lambda task, error, context: 1 / 0)
        cloaca.trigger(workflow="nowhere", poll_interval="1ms", name="lost")(lambda: True)
        assert runner.submit("bad").result(SECONDS).status == "Failed"
        goes_on(runner)
    finally:
        log.removeHandler(handler)


def test_a_thread_that_cannot_be_started_is_asked_for_again(
    runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = threading.Thread.start, []

    def sometimes(thread: threading.Thread) -> None:
        if thread.name.startswith("cloaca-worker") and len(refused) < 3:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", sometimes)
    workflow("good", lambda context: None)
    assert runner.submit("good").result(SECONDS).status == "Completed"
    assert len(refused) == 3


def test_an_interrupted_declaration_gives_no_trigger_the_body_of_another(
    runner: cloaca.DefaultRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, both = set(), threading.Event()

    def body(name: str) -> Callable[[], bool]:
        def poll() -> bool:
            called.add(name)
            if {"second", "third"} <= called:
                both.set()
            return False

        return poll

    place = type(runner._crew).place
    for where in ("before", "after"):

        def interrupted(crew: Any, *arguments: Any, where: str = where) -> None:
            if where == "after":
                place(crew, *arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(runner._crew), "place", interrupted)
            with pytest.raises(KeyboardInterrupt):
                cloaca.trigger(poll_interval="1h", name=f"first {where}")(body("first"))
    cloaca.trigger(poll_interval="1ms", name="second")(body("second"))
    cloaca.trigger(poll_interval="1ms", name="third")(body("third"))
    assert both.wait(SECONDS)
    assert "first" not in called


def test_a_decorated_async_body_is_awaited_like_a_bare_one(runner: cloaca.DefaultRunner) -> None:
    import functools

    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Any:
            return function(*arguments)

        return wrapper

    async def body(context: cloaca.Context) -> None:
        context.set("awaited", True)

    async def poll() -> bool:
        polled.set()
        return False

    polled = threading.Event()
    workflow("wrapped", decorated(body))
    cloaca.trigger(poll_interval="1ms", name="wrapped")(decorated(poll))
    assert runner.submit("wrapped").result(SECONDS).final_context["awaited"] is True
    assert polled.wait(SECONDS)


@pytest.mark.parametrize("kind", ["a trigger", "a workflow"])
def test_of_two_threads_that_declare_one_name_the_newest_wins(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The older one is held up between the registry and the runner, and comes after the newer one."""
    name = "on_triggers" if kind == "a trigger" else "on_workflow"
    told = getattr(Declarations, name)
    is_held, go, came, older_came = threading.Event(), threading.Event(), threading.Event(), threading.Event()

    def held_up(declarations: Declarations, declared: Any) -> None:
        if threading.current_thread().name == "older":
            is_held.set()
            assert go.wait(SECONDS)
        told(declarations, declared)

    def declare(body: Callable[[], object]) -> None:
        def poll() -> bool:
            body()
            return False

        if kind == "a trigger":
            cloaca.trigger(poll_interval="1ms", name="same")(poll)
        else:
            workflow("same", lambda context: body() and None)

    monkeypatch.setattr(Declarations, name, held_up)
    with cloaca.DefaultRunner(":memory:") as runner:
        older = threading.Thread(target=declare, args=(older_came.set,), name="older")
        older.start()
        assert is_held.wait(SECONDS)
        declare(came.set)
        go.set()
        older.join(SECONDS)
        came.clear()
        older_came.clear()
        if kind == "a workflow":
            assert runner.submit("same").result(SECONDS).status == "Completed"
        assert came.wait(SECONDS)
        assert not older_came.is_set()


def test_a_constructor_that_ends_badly_keeps_no_other_workflow_from_running(
    nasty: Callable[[], object],
) -> None:
    cloaca.register_workflow_constructor("bad", nasty)
    try:
        made = cloaca.DefaultRunner(":memory:")
    except Exception:
        raise
    except BaseException:
        # Ctrl-C in a constructor comes out of the caller's own call, and leaves no runner behind.
        from cloaca import living, registry

        assert not living.runners
        registry.constructors.clear()
        made = cloaca.DefaultRunner(":memory:")
    with made:
        goes_on(made)


def test_a_body_that_never_returns_keeps_no_other_from_being_called(runner: cloaca.DefaultRunner) -> None:
    end, entered = threading.Event(), threading.Semaphore(0)

    def never(*_: object) -> None:
        entered.release()
        end.wait()

    async def never_async(*_: object) -> None:
        entered.release()
        while not end.is_set():
            await asyncio.sleep(0.01)

    cloaca.trigger(poll_interval="1ms", name="never")(never)
    cloaca.trigger(poll_interval="1ms", name="never_async")(never_async)
    workflow("never", never)
    workflow("never_async", never_async)
    workflow("called", lambda context: None, on_success=never)
    try:
        for name in ("never", "never_async", "called"):
            runner.submit(name)
        for _ in range(5):
            assert entered.acquire(timeout=SECONDS)
        goes_on(runner)
    finally:
        end.set()
