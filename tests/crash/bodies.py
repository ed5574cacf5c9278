"""The bodies of the program that the crash tests kill, at the top of a module: an executor's process finds
them here by their names, and the witness and the pace by the environment.

Decides nothing of what is tested. Invariant: a body testifies to its beginning and its end, and a long one
also in between, so that one which outlives its time is caught.
"""

from __future__ import annotations

import functools
import os
import random
import time
from typing import TYPE_CHECKING, Any

import items
from witness import Witness

if TYPE_CHECKING:
    import cloaca

WITNESS = "CLOACA_TEST_WITNESS"
PACE = "CLOACA_TEST_PACE"
LONG = "CLOACA_TEST_LONG"
"""Is set where some bodies are to outlast a start of the program: what should have ended with it is seen."""
LONG_CHANCE, LONG_TIMES = 0.04, 40
STEP_SECONDS = 0.01


@functools.cache
def witness() -> Witness:
    """That of the program whose body this is."""
    return Witness(os.environ[WITNESS])


def work(*, steps: bool = False) -> None:
    """Takes as long as the program was told, at most; in steps it testifies to each."""
    left = random.uniform(0, float(os.environ[PACE]))
    if steps and LONG in os.environ and random.random() < LONG_CHANCE:
        left = float(os.environ[PACE]) * LONG_TIMES
        witness().note("long")
    while steps and left > STEP_SECONDS:
        time.sleep(STEP_SECONDS)
        left -= STEP_SECONDS
        witness().note("step")
    time.sleep(left)


def working(task: str, context: cloaca.Context, handle: cloaca.TaskHandle) -> Any:
    """The beginning and the end of an attempt. The first task hands the run's id on to the callbacks, which
    are told the context only."""
    context["run"] = handle.run_id
    return witness().noting("start", "end", task=task, attempt=handle.attempt, **key_of(context))


def key_of(context: cloaca.Context) -> dict[str, Any]:
    """What tells the run: its id, and its item or the kind of its beat."""
    return {name: context[name] for name in ("run", "item", "beat") if name in context}


def fetch(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    with working("fetch", context, handle):
        work(steps=True)
        context["size"] = context["item"] * 2


def parse(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    with working("parse", context, handle):
        work(steps=True)
        if items.is_broken(context["item"]):
            raise ValueError("it cannot be parsed")
        if items.is_flaky(context["item"]) and handle.attempt == 1:
            raise ConnectionError("not yet")
        context["words"] = context["item"] + 1


def index(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    with working("index", context, handle):
        work(steps=True)
        context["pages"] = [context["item"]]


def store(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    with working("store", context, handle):
        work(steps=True)
        context["total"] = context["size"] + context["words"] + context["pages"][0]


def stamp(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    with working("stamp", context, handle):
        work(steps=True)


def strike(context: cloaca.Context, handle: cloaca.TaskHandle) -> None:
    with working("strike", context, handle):
        work(steps=True)
