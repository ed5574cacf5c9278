"""Bodies of tasks for executors: other processes find them here by their names."""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path
from typing import Any

from process_bodies import FOR_EVER, deaf, lives, note

import cloaca


def where(context: cloaca.Context) -> dict[str, Any]:
    """Tells where it is called, and leaves what it was given."""
    return {**context.to_dict(), "pid": os.getpid()}


def silent(context: cloaca.Context) -> None:
    """Changes the context in place."""
    context["seen"] = True


def handled(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, Any]:
    """Tells what its handle knows, and what it refuses."""
    told: dict[str, Any] = {
        "run": handle.run_id,
        "task": handle.task_id,
        "attempt": handle.attempt,
        "checkpointed": handle.checkpointed,
        "holds": handle.is_slot_held(),
    }
    current = cloaca.current_run()
    assert current is not None
    told["current"] = [current.run_id, current.task, current.attempt, current.workflow]
    for name, call in (
        ("checkpoint", lambda: handle.checkpoint(1)),
        ("defer_until", lambda: handle.defer_until(lambda: True)),
        ("trigger", lambda: current.trigger),
        ("is_current", lambda: handle.is_current()),
        ("its runner", lambda: current.runner),
        ("the handle's runner", lambda: handle.runner),
        ("runner", lambda: cloaca.DefaultRunner(":memory:")),
    ):
        try:
            call()
        except cloaca.RunnerError as raised:
            told[name] = str(raised)
    return told


def fails(context: cloaca.Context) -> None:
    """Raises what its context names."""
    raise {"value": ValueError, "exit": SystemExit, "connection": ConnectionError}[context["error"]]("of it")


def returns_number(context: cloaca.Context) -> Any:
    """Returns what no task may return."""
    return 7


def asks_later(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, int]:
    """Wants to be called again."""
    if handle.attempt == 1:
        raise cloaca.RetryAfter(0.01)
    return {"attempt": handle.attempt}


def dies(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, int]:
    """Takes its process with it, in as many attempts as its context says."""
    if handle.attempt <= context["deaths"]:
        print("about to die", flush=True)
        os._exit(3)
    return {"attempt": handle.attempt}


def dawdles(context: cloaca.Context) -> None:
    """Runs until it is stopped, and cleans up then."""
    note(context["folder"])
    try:
        time.sleep(FOR_EVER)
    finally:
        (Path(context["folder"]) / "tidied").touch()


def gives_up(context: cloaca.Context) -> None:
    """Runs until it is stopped, and raises what it likes then."""
    note(context["folder"])
    try:
        time.sleep(FOR_EVER)
    finally:
        raise RuntimeError("half done")


def asks(context: cloaca.Context) -> None:
    """Asks whether it is to end."""
    run = cloaca.current_run()
    assert run is not None
    context["cancelled"] = run.cancelled


def told(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    """Notes what its handle says before it is stopped and after."""
    note(context["folder"])
    said = [handle.cancelled]
    try:
        time.sleep(FOR_EVER)
    finally:
        (Path(context["folder"]) / "said").write_text(str([*said, handle.cancelled]))


def hangs(context: cloaca.Context) -> None:
    """Cannot be stopped by anything but SIGKILL."""
    deaf(context["folder"])


def meets(context: cloaca.Context) -> None:
    """Waits until another one of it has begun."""
    note(context["folder"])
    end = time.monotonic() + FOR_EVER
    while len(list(Path(context["folder"]).glob("*.pid"))) < 2 and time.monotonic() < end:
        time.sleep(0.005)


def resumes(context: cloaca.Context, handle: cloaca.TaskHandle) -> dict[str, int]:
    """Hangs in its first attempt."""
    if handle.attempt == 1:
        note(context["folder"])
        time.sleep(FOR_EVER)
    return {"attempt": handle.attempt}


async def awaits(context: cloaca.Context) -> dict[str, int]:
    """Needs a loop."""
    import asyncio

    await asyncio.sleep(0)
    return {"pid": os.getpid()}


def modules(context: cloaca.Context) -> dict[str, Any]:
    """Tells what the process is."""
    return {"argv": sys.argv, "path": sys.path}


def shout(function: Any) -> Any:
    """A decorator that says who it is around."""

    @functools.wraps(function)
    def shouting(context: cloaca.Context) -> Any:
        left = function(context)
        return {**left, "shouted": True}

    return shouting


@shout
def shouted(context: cloaca.Context) -> dict[str, Any]:
    """Is decorated below `@task`."""
    return {"pid": os.getpid()}


class Holder:
    """Has a method, and one that needs no object."""

    def method(self, context: cloaca.Context) -> None:
        """Is a method of an object."""

    @staticmethod
    def static(context: cloaca.Context) -> dict[str, Any]:
        """Needs no object."""
        return {"static": True}

    def __call__(self, context: cloaca.Context) -> None:
        """Is an object that can be called."""


def overlaps(context: cloaca.Context) -> None:
    """Cannot be stopped but by SIGKILL, and notes whether another one of it still runs."""
    folder = Path(context["folder"])
    others = [int(path.stem) for path in folder.glob("*.pid")]
    if any(map(lives, others)):
        (folder / "overlapped").touch()
    deaf(str(folder))


def leaks(context: cloaca.Context) -> None:
    """Finds a secret out and raises with it."""
    context["password"] = "hunter22"
    raise ValueError(f"no entry with {context['password']}")
