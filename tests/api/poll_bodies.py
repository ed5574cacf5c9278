"""Bodies of triggers for executors: other processes find them here by their names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from process_bodies import FOR_EVER, note

import cloaca

FOLDER = "CLOACA_TEST_FOLDER"
"""Where the bodies leave word, as an environment variable: a poll is given nothing by the program."""


def folder() -> Path:
    """Where to leave word."""
    return Path(os.environ[FOLDER])


def is_first() -> bool:
    """Whether no body has been called here before."""
    try:
        (folder() / "first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def yes() -> bool:
    """Fires."""
    return True


def counts(tick: cloaca.Tick) -> cloaca.TriggerResult:
    """Moves its cursor, and tells what its tick knows."""
    number = (tick.cursor or 0) + 1
    tick.cursor = number
    current = cloaca.current_run()
    assert current is not None
    told: dict[str, Any] = {
        "number": number,
        "pid": os.getpid(),
        "trigger": tick.trigger_name,
        "current": [current.trigger, current.run_id, current.workflow],
        "due": tick.scheduled_at,
        "fired": tick.last_fired_at,
        "failures": tick.consecutive_failures,
        "error": tick.last_error,
        "unfinished": tick.unfinished,
    }
    for name, call in (
        ("last_run", lambda: tick.last_run),
        ("runner", lambda: cloaca.DefaultRunner(":memory:")),
    ):
        try:
            call()
        except cloaca.RunnerError as raised:
            told[name] = str(raised)
    return cloaca.TriggerResult.fire(told)


async def awaits(tick: cloaca.Tick) -> list[cloaca.TriggerResult]:
    """A coroutine that fires twice."""
    import asyncio

    await asyncio.sleep(0)
    tick.poll_after("1h")
    return [cloaca.TriggerResult.fire({"n": number, "pid": os.getpid()}) for number in range(2)]


def gives(tick: cloaca.Tick) -> Iterator[cloaca.TriggerResult]:
    """A generator whose fires carry cursors, and that breaks off."""
    for number in range(2):
        yield cloaca.TriggerResult.fire({"n": number}, cursor=number)
    raise ConnectionError("gone")


def raises() -> bool:
    """Fails."""
    raise ValueError("of it")


def says_nothing() -> Any:
    """Answers with what is no answer."""
    return None


def later() -> bool:
    """Wishes to be called later."""
    raise cloaca.RetryAfter("2h")


def dies_once(tick: cloaca.Tick) -> bool:
    """Takes its process down in its first poll."""
    if is_first():
        os._exit(1)
    if tick.last_error is not None:
        (folder() / "again").write_text(tick.last_error)
    return False


def hangs_once(tick: cloaca.Tick) -> bool:
    """Does not come back from its first poll."""
    if is_first():
        note(str(folder()))
        time.sleep(FOR_EVER)
    if tick.last_error is not None:
        (folder() / "again").write_text(tick.last_error)
    return False


def hangs() -> bool:
    """Never comes back."""
    note(str(folder()))
    time.sleep(FOR_EVER)
    return True


def decides(tick: cloaca.Tick) -> dict[str, Any]:
    """Says what a moment of a cron starts."""
    return {"at": tick.scheduled_at, "pid": os.getpid()}
